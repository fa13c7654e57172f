/*
 * From files to the documents topic. One file at a time is read, on the thread pool, since a slow
 * disk must not keep ctrl-C waiting; there it becomes a message, and is decoded again as the
 * workers will, so that what they would refuse is told here with the file's name.
 *
 * Two limits keep memory small whatever the corpus: what the broker has not acknowledged, and what
 * was sent and is not counted in the account. The second makes the whole pipeline's pace this
 * one's. The account counts without saying which; so the first ones that were sent are taken for
 * counted.
 */
#include "workers/cli/ingest_internal.h"

#include "common/codec.h"

#include <stdio.h>
#include <stdlib.h>

enum { IN_FLIGHT_MAX = 256, IN_FLIGHT_BYTES = 32 << 20, ARENA_MAX = 64 << 20 };

/* A document that the broker has not acknowledged. */
struct sending {
    struct ingest_state *state;
    const struct cli_file *file;
    size_t bytes;
};

/* --- on the thread pool --- */

static bool read_text(struct ingest_reading *reading, struct sl_span *ret)
{
    const struct cli_plan *plan = reading->state->run->plan;
    const struct cli_file *file = reading->file;
    *ret = (struct sl_span){NULL, 0};
    if (reading->state->run->remove) {
        return true;
    }
    if (file->root == NULL) {
        snprintf(reading->why, sizeof(reading->why), "%s", plan->input_why);
        *ret = sl_buf_span(&plan->input);
        return reading->why[0] == '\0';
    }
    bool fine = cli_read_text(file->root, file->id, &reading->text, reading->why);
    *ret = sl_buf_span(&reading->text);
    return fine;
}

static void read_on_pool(void *ctx)
{
    struct ingest_reading *reading = ctx;
    const struct cli_ingest_run *run = reading->state->run;
    struct sl_document document = {
        .doc_id = sl_span_of(reading->file->id),
        .metadata = run->metadata,
        .collection = sl_span_of(run->collection),
        .again = run->again,
        .ingest_id = sl_span_of(run->ingest_id),
        .remove = run->remove,
    };
    struct sl_document checked = {.text = {NULL, 0}};
    struct sl_fault fault = {{0}, {0}};
    struct sl_arena arena;
    if (!read_text(reading, &document.text)) {
        return;
    }
    sl_buf_clear(&reading->message);
    sl_document_encode(&document, &reading->message);
    int rv = sl_buf_error(&reading->message);
    if (rv == 0) {
        sl_arena_init(&arena, ARENA_MAX);
        rv = sl_document_decode(sl_buf_span(&reading->message), false, &arena, &checked, &fault);
        sl_arena_fini(&arena);
    }
    if (rv != 0) {
        snprintf(reading->why, sizeof(reading->why), "%s",
                 fault.message[0] != '\0' ? fault.message : sl_error_text(rv));
    }
}

/* --- to the broker --- */

static void on_delivered(void *ctx, int err, int32_t partition, int64_t offset)
{
    struct sending *sending = ctx;
    struct ingest_state *state = sending->state;
    (void)partition;
    (void)offset;
    state->in_flight--;
    state->in_flight_bytes -= sending->bytes;
    if (state->over) {
        free(sending);
        return;
    }
    if (err == 0) {
        state->sizes[state->run->sent % INGEST_AHEAD] = sending->bytes;
        state->ahead_bytes += sending->bytes;
        state->run->sent++;
        ingest_moved(state);
    } else if (err == -SL_ENOENT) {
        ingest_give_up(state, "the topic %s does not exist: sluice topics create makes it",
                       state->topic);
    } else if (err == -SL_ETIMEDOUT) {
        ingest_give_up(state, "Kafka does not answer at %s (SLUICE_KAFKA_BROKERS)",
                       cli_options.brokers);
    } else {
        ingest_refuse(state, sending->file, sl_error_text(err));
    }
    free(sending);
    ingest_pump(state);
    ingest_watch(state);
}

/* 0: it is on its way, was refused, or the run ends; -SL_EAGAIN: the producer's queue is full. */
static int send_message(struct ingest_state *state)
{
    const struct sl_kafka_header type = {SL_SPAN("content-type"), SL_SPAN("application/msgpack")};
    const struct cli_file *file = state->reading.file;
    struct sending *sending = malloc(sizeof(*sending));
    if (sending == NULL) {
        ingest_refuse(state, file, sl_error_text(-SL_ENOMEM));
        return 0;
    }
    *sending = (struct sending){state, file, state->reading.message.len};
    const struct sl_outgoing record = {.topic = state->topic,
                                       .partition = -1,
                                       .key = sl_span_of(file->id),
                                       .value = sl_buf_span(&state->reading.message),
                                       .headers = &type,
                                       .header_count = 1};
    int rv = sl_producer_send(state->producer, &record, on_delivered, sending);
    if (rv == 0) {
        state->in_flight++;
        state->in_flight_bytes += sending->bytes;
        return 0;
    }
    free(sending);
    if (rv == -SL_ENOENT) {
        ingest_give_up(state, "the topic %s does not exist: sluice topics create makes it",
                       state->topic);
    } else if (rv != -SL_EAGAIN) {
        ingest_refuse(state, file, sl_error_text(rv));
    }
    return rv == -SL_EAGAIN ? rv : 0;
}

/* --- one after another --- */

static void on_read(void *ctx)
{
    struct ingest_reading *reading = ctx;
    struct ingest_state *state = reading->state;
    reading->busy = false;
    if (state->leaving || state->over) {
        ingest_watch(state);
        return;
    }
    if (reading->why[0] != '\0') {
        ingest_refuse(state, reading->file, reading->why);
    } else {
        reading->ready = send_message(state) == -SL_EAGAIN;
    }
    ingest_pump(state);
    ingest_watch(state);
}

static bool has_room(const struct ingest_state *state)
{
    uint64_t ahead = state->run->sent - state->passed + state->in_flight;
    return state->in_flight < IN_FLIGHT_MAX && state->in_flight_bytes < IN_FLIGHT_BYTES &&
           ahead < INGEST_AHEAD &&
           state->ahead_bytes + state->in_flight_bytes < INGEST_AHEAD_BYTES &&
           state->refusal_count < INGEST_REFUSALS;
}

void ingest_pump(struct ingest_state *state)
{
    const struct cli_files *files = &state->run->plan->files;
    struct ingest_reading *reading = &state->reading;
    if (!state->run->begun || state->leaving || state->over) {
        return;
    }
    if (reading->ready) {
        reading->ready = send_message(state) == -SL_EAGAIN;
    }
    while (!state->leaving && !reading->busy && !reading->ready && state->next < files->len &&
           has_room(state)) {
        const struct cli_file *file = &files->items[state->next];
        if (file->reason != NULL) {
            state->next++;
            ingest_refuse(state, file, file->reason);
            continue;
        }
        reading->state = state;
        reading->file = file;
        reading->why[0] = '\0';
        if (sl_work_submit(state->loop, read_on_pool, on_read, reading) != 0) {
            return; /* Out of memory: the next tick tries again. */
        }
        reading->busy = true;
        state->next++;
    }
}

bool ingest_all_sent(const struct ingest_state *state)
{
    bool none_left = state->leaving || (state->next == state->run->plan->files.len &&
                                        !state->reading.busy && !state->reading.ready);
    return none_left && state->in_flight == 0;
}

void ingest_counted(struct ingest_state *state, uint64_t count)
{
    while (state->passed < count && state->passed < state->run->sent) {
        state->ahead_bytes -= state->sizes[state->passed % INGEST_AHEAD];
        state->passed++;
    }
}
