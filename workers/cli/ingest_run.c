/*
 * A run of `sluice ingest`.
 *
 * Files are read one after another and produced to the documents topic, a bounded number and size
 * of them ahead of the broker's acknowledgements. From the start, the run's account in Redis is
 * looked at twenty times a second: sluice-ingest counts there what was stored and what could not
 * be. The run is over when every document that the broker has is counted.
 *
 * When nothing moves for the time-out, the run gives up and says what it was waiting for; documents
 * that were sent are stored all the same once whatever was in the way is gone.
 */
#include "workers/cli/ingest_run.h"

#include "common/clock.h"
#include "common/codec.h"
#include "common/ingest_account.h"
#include "common/kafka.h"
#include "workers/cli/cli.h"
#include "workers/cli/terminal.h"

#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>

enum {
    IN_FLIGHT_MAX = 256,
    IN_FLIGHT_BYTES = 32 << 20,
    FILES_A_TURN = 16,
    TICK_MS = 50,
    TEXT_ROOM = (16 << 20) + (128 << 10), /* The limit and one read beyond it. */
    MESSAGE_MAX = 24 << 20,
    ARENA_MAX = 64 << 20,
    FLUSH_MS = 1000,
    TOPIC_MS = 10000,
    NAME_BYTES = 256,
};

struct state;

/* A document that the broker has not acknowledged. */
struct sending {
    struct state *state;
    size_t file, bytes;
};

struct state {
    struct cli_ingest_run *run;
    struct sl_loop *loop;
    struct sl_signal *sigint;
    struct sl_producer *producer;
    struct sl_redis *redis;
    struct cli_progress_line line;
    struct sl_timer tick;
    struct sl_timer more; /* More files after the loop has turned. */
    char ingest_id[37];
    char topic[NAME_BYTES];
    char redis_why[160]; /* Why Redis cannot be used; empty while it can. */
    struct sl_buf text, message;

    size_t next; /* The first file that was not looked at. */
    size_t in_flight, in_flight_bytes;
    bool blocked;  /* The producer's queue is full. */
    bool asking;   /* The account's reply is due. */
    bool begun;    /* The run is known in Redis: documents that name it are counted. */
    bool closed;   /* Or Redis has been told how many they are. */
    uint64_t sent; /* Acknowledged. */
    uint64_t counted_failed, skipped, chunks, own_failed;
    size_t known; /* Failures that the account told. */
    uint64_t began_ms, moved_ms;
    bool over, interrupted;
};

/* --- how it ends --- */

static void end(struct state *state)
{
    state->over = true;
    sl_loop_stop(state->loop);
}

static void give_up(struct state *state, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static void give_up(struct state *state, const char *format, ...)
{
    va_list args;
    if (state->over) {
        return;
    }
    va_start(args, format);
    vsnprintf(state->run->why, sizeof(state->run->why), format, args);
    va_end(args);
    end(state);
}

static void add_failure(struct state *state, struct sl_span doc_id, struct sl_span reason)
{
    struct cli_ingest_run *run = state->run;
    if (run->failure_count == run->failure_cap) {
        size_t cap = run->failure_cap > 0 ? run->failure_cap * 2 : 16;
        struct cli_failure *failures = realloc(run->failures, cap * sizeof(*failures));
        if (failures == NULL) {
            give_up(state, "%s", sl_error_text(-SL_ENOMEM));
            return;
        }
        run->failures = failures;
        run->failure_cap = cap;
    }
    struct cli_failure failure = {strndup(doc_id.data, doc_id.len),
                                  strndup(reason.data, reason.len)};
    if (failure.doc_id == NULL || failure.reason == NULL) {
        free(failure.doc_id);
        free(failure.reason);
        give_up(state, "%s", sl_error_text(-SL_ENOMEM));
        return;
    }
    run->failures[run->failure_count++] = failure;
}

static void file_failed(struct state *state, size_t file, const char *reason)
{
    state->own_failed++;
    state->moved_ms = sl_clock_now_ms();
    add_failure(state, sl_span_of(state->run->files->items[file].path), sl_span_of(reason));
}

static void check_over(struct state *state)
{
    struct cli_ingest_run *run = state->run;
    run->failed = state->own_failed + state->counted_failed;
    if (!state->over && state->next == run->files->len && state->in_flight == 0 &&
        run->processed + state->counted_failed + state->skipped >= state->sent) {
        end(state);
    }
}

/* --- producing --- */

static void pump(struct state *state);

static void on_more(struct sl_timer *timer)
{
    pump(SL_ITEM(timer, struct state, more));
}

static void on_delivered(void *ctx, int err, int32_t partition, int64_t offset)
{
    struct sending *sending = ctx;
    struct state *state = sending->state;
    (void)partition;
    (void)offset;
    state->in_flight--;
    state->in_flight_bytes -= sending->bytes;
    if (err == 0) {
        state->sent++;
        state->moved_ms = sl_clock_now_ms();
    } else if (err == -SL_ENOENT) {
        give_up(state, "the topic %s does not exist: sluice topics create makes it", state->topic);
    } else if (err == -SL_ETIMEDOUT) {
        give_up(state, "Kafka does not answer at %s (SLUICE_KAFKA_BROKERS)", cli_options.brokers);
    } else {
        file_failed(state, sending->file, sl_error_text(err));
    }
    free(sending);
    check_over(state);
    if (!state->over) {
        pump(state);
    }
}

/* The file as a message, in state->message. NULL, or why it cannot be one. The worker's own check
 * is made here, where its words can still be shown. */
static const char *write_message(struct state *state, size_t file, struct sl_fault *fault)
{
    const char *path = state->run->files->items[file].path;
    const char *reason = state->run->files->items[file].reason;
    reason = reason != NULL ? reason : cli_read_text(state->run->root, path, &state->text);
    if (reason != NULL) {
        return reason;
    }
    const char *collection = state->run->collection;
    const struct sl_document document = {
        .doc_id = sl_span_of(path),
        .text = sl_buf_span(&state->text),
        .collection = sl_span_of(collection != NULL ? collection : "default"),
        .ingest_id = sl_span_of(state->ingest_id),
    };
    struct sl_document checked;
    struct sl_arena arena;
    sl_buf_clear(&state->message);
    sl_document_encode(&document, &state->message);
    int rv = sl_buf_error(&state->message);
    if (rv == 0) {
        sl_arena_init(&arena, ARENA_MAX);
        rv = sl_document_decode(sl_buf_span(&state->message), false, &arena, &checked, fault);
        sl_arena_fini(&arena);
    }
    return rv == 0 ? NULL : fault->message[0] != '\0' ? fault->message : sl_error_text(rv);
}

/* 0: it is on its way or has failed; -SL_EAGAIN: the queue is full. */
static int send_file(struct state *state, size_t file)
{
    struct sl_fault fault = {{0}, {0}};
    const char *reason = write_message(state, file, &fault);
    if (reason != NULL) {
        file_failed(state, file, reason);
        return 0;
    }
    struct sending *sending = malloc(sizeof(*sending));
    if (sending == NULL) {
        file_failed(state, file, sl_error_text(-SL_ENOMEM));
        return 0;
    }
    *sending = (struct sending){.state = state, .file = file, .bytes = state->message.len};
    const struct sl_kafka_header type = {SL_SPAN("content-type"), SL_SPAN("application/msgpack")};
    const struct sl_outgoing record = {.topic = state->topic,
                                       .partition = -1,
                                       .key = sl_span_of(state->run->files->items[file].path),
                                       .value = sl_buf_span(&state->message),
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
        give_up(state, "the topic %s does not exist: sluice topics create makes it", state->topic);
    } else if (rv != -SL_EAGAIN) {
        file_failed(state, file, sl_error_text(rv));
    }
    return rv == -SL_EAGAIN ? rv : 0;
}

static void pump(struct state *state)
{
    size_t files = 0;
    state->blocked = false;
    while (state->begun && !state->over && !state->blocked &&
           state->next < state->run->files->len && files < FILES_A_TURN &&
           state->in_flight < IN_FLIGHT_MAX && state->in_flight_bytes < IN_FLIGHT_BYTES) {
        state->blocked = send_file(state, state->next) == -SL_EAGAIN;
        if (!state->blocked) {
            state->next++;
            files++;
        }
    }
    check_over(state);
    if (!state->over && files == FILES_A_TURN && !sl_timer_active(&state->more)) {
        sl_timer_start(state->loop, &state->more, 0, on_more);
    }
}

static void on_room(void *ctx)
{
    pump(ctx);
}

static void on_fatal(void *ctx, const char *why)
{
    give_up(ctx, "Kafka: %s", why);
}

/* --- the account --- */

static void take_account(struct state *state, const struct sl_ingest_run *account)
{
    uint64_t before = state->run->processed + state->counted_failed + state->skipped;
    uint64_t after = account->processed + account->failed + account->skipped;
    if (after != before || account->stored_chunks != state->chunks) {
        state->moved_ms = sl_clock_now_ms();
    }
    state->run->processed = account->processed;
    state->counted_failed = account->failed;
    state->skipped = account->skipped;
    state->run->total_chunks = account->total_chunks;
    state->chunks = account->stored_chunks;
    for (size_t i = 0; i < account->failure_count; i++) {
        add_failure(state, account->failures[i].doc_id, account->failures[i].reason);
        state->known++;
    }
}

static void on_account(void *ctx, int err, const struct sl_ingest_run *account)
{
    struct state *state = ctx;
    state->asking = false;
    if (state->over) {
        return;
    }
    if (err == 0) {
        take_account(state, account);
        check_over(state);
    } else if (err == -SL_ENOENT) {
        give_up(state, "Redis has lost the account of this run: ingest again");
    } else {
        snprintf(state->redis_why, sizeof(state->redis_why), "%s", sl_error_text(err));
    }
}

static void on_begun(void *ctx, int err)
{
    struct state *state = ctx;
    state->asking = false;
    if (!state->over && err == 0) {
        state->begun = true;
        pump(state);
    } else {
        snprintf(state->redis_why, sizeof(state->redis_why), "%s", sl_error_text(err));
    }
}

static void on_closed(void *ctx, int err)
{
    struct state *state = ctx;
    state->asking = false;
    state->closed = err == 0;
}

/* The run begins, is closed when all is sent, and is looked at in between. */
static void ask_account(struct state *state)
{
    const struct cli_ingest_run *run = state->run;
    const struct sl_ingest_env env = {.redis = state->redis,
                                      .prefix = cli_options.topic_prefix,
                                      .ttl_ms = (uint64_t)cli_options.result_ttl_ms,
                                      .tenant = SL_SPAN("default")};
    struct sl_span id = sl_span_of(state->ingest_id);
    int rv;
    if (!state->begun) {
        const char *collection = run->collection != NULL ? run->collection : "default";
        rv = sl_ingest_begin(&env, id, sl_span_of(collection), sl_span_of(run->root), on_begun,
                             state);
    } else if (!state->closed && state->next == run->files->len && state->in_flight == 0) {
        rv = sl_ingest_close(&env, id, state->sent, on_closed, state);
    } else {
        rv = sl_ingest_read(&env, id, state->known, on_account, state);
    }
    state->asking = rv == 0;
}

static void on_link(void *ctx, const char *run_id, const char *why)
{
    struct state *state = ctx;
    snprintf(state->redis_why, sizeof(state->redis_why), "%s", run_id != NULL ? "" : why);
    if (run_id != NULL && !state->begun && !state->asking) {
        ask_account(state);
    }
}

/* --- time --- */

static void draw(struct state *state)
{
    const struct cli_progress progress = {
        .done = state->run->processed + state->skipped,
        .failed = state->own_failed + state->counted_failed,
        .total = state->run->files->len,
        .chunks = state->chunks,
        .elapsed_ms = sl_clock_now_ms() - state->began_ms,
    };
    cli_progress_draw(&state->line, &progress, sl_clock_now_ms());
}

static void on_standstill(struct state *state)
{
    uint64_t seconds = state->run->timeout_ms / 1000;
    uint64_t counted = state->run->processed + state->counted_failed + state->skipped;
    if (state->in_flight > 0) {
        give_up(state,
                "for %" PRIu64 " s Kafka has not acknowledged %zu documents at %s "
                "(SLUICE_KAFKA_BROKERS)",
                seconds, state->in_flight, cli_options.brokers);
    } else if (state->redis_why[0] != '\0') {
        give_up(state, "for %" PRIu64 " s Redis could not be asked: %s (SLUICE_REDIS_URL)", seconds,
                state->redis_why);
    } else {
        give_up(state,
                "%" PRIu64 " of %" PRIu64
                " documents are not stored, and nothing moved for %" PRIu64
                " s: sluice status shows which program is not ready and where records wait",
                state->sent - counted, state->sent, seconds);
    }
}

static void on_tick(struct sl_timer *timer)
{
    struct state *state = SL_ITEM(timer, struct state, tick);
    if (state->over) {
        return;
    }
    if (!state->asking && sl_redis_up(state->redis)) {
        ask_account(state);
    }
    draw(state);
    if (sl_clock_now_ms() - state->moved_ms >= state->run->timeout_ms) {
        on_standstill(state);
    } else {
        sl_timer_start(state->loop, timer, TICK_MS, on_tick);
    }
}

static void on_sigint(void *ctx, int signum)
{
    struct state *state = ctx;
    (void)signum;
    state->interrupted = true;
    end(state);
}

/* --- the run --- */

static int create_parts(struct state *state, char *why, size_t why_size)
{
    const struct sl_kafka_config kafka = {.brokers = cli_options.brokers, .client_id = "sluice"};
    const struct sl_redis_config redis = {
        .url = cli_options.redis_url, .on_link = on_link, .ctx = state};
    int rv = sl_loop_create(&state->loop);
    rv = rv != 0 ? rv : sl_signal_create(state->loop, SIGINT, on_sigint, state, &state->sigint);
    rv = rv != 0 ? rv
                 : sl_producer_create(state->loop, &kafka, on_fatal, state, &state->producer, why,
                                      why_size);
    rv = rv != 0 ? rv : sl_redis_create(state->loop, &redis, &state->redis, why, why_size);
    if (rv == 0) {
        sl_producer_on_room(state->producer, on_room, state);
        sl_producer_warm(state->producer, state->topic);
    }
    return rv;
}

static void destroy_parts(struct state *state)
{
    state->over = true;
    if (state->loop == NULL) {
        return;
    }
    sl_timer_stop(state->loop, &state->tick);
    sl_timer_stop(state->loop, &state->more);
    if (state->producer != NULL) {
        sl_producer_destroy(state->producer, FLUSH_MS);
    }
    sl_redis_destroy(state->redis);
    sl_signal_destroy(state->sigint);
    sl_loop_destroy(state->loop);
}

/* Whether the topic is there, asked before anything is read: the producer would wait for it long.
 */
static bool topic_exists(struct state *state)
{
    const struct sl_kafka_config kafka = {.brokers = cli_options.brokers, .client_id = "sluice"};
    struct cli_ingest_run *run = state->run;
    int count = sl_kafka_partition_count(&kafka, state->topic, TOPIC_MS);
    if (count == -SL_ENOENT) {
        snprintf(run->why, sizeof(run->why),
                 "the topic %s does not exist: sluice topics create makes it", state->topic);
    } else if (count < 0) {
        snprintf(run->why, sizeof(run->why), "Kafka does not answer at %s (SLUICE_KAFKA_BROKERS)",
                 cli_options.brokers);
    }
    return count > 0;
}

static void run_loop(struct state *state)
{
    char why[256] = "";
    if (!topic_exists(state)) {
        return;
    }
    int rv = create_parts(state, why, sizeof(why));
    if (rv != 0) {
        snprintf(state->run->why, sizeof(state->run->why), "%s",
                 why[0] != '\0' ? why : sl_error_text(rv));
        return;
    }
    state->began_ms = state->moved_ms = sl_clock_now_ms();
    cli_progress_init(&state->line, stderr, state->began_ms);
    sl_timer_start(state->loop, &state->tick, TICK_MS, on_tick);
    sl_timer_start(state->loop, &state->more, 0, on_more);
    sl_loop_run(state->loop);
    if (state->line.shown) {
        draw(state); /* As it stands at the end. */
    }
    cli_progress_end(&state->line);
}

int cli_ingest_run(struct cli_ingest_run *run)
{
    struct state state = {.run = run};
    snprintf(state.topic, sizeof(state.topic), "%s.documents", cli_options.topic_prefix);
    snprintf(state.redis_why, sizeof(state.redis_why), "no connection yet");
    sl_id_new(sl_clock_unix_ms(), state.ingest_id);
    sl_buf_init(&state.text, TEXT_ROOM);
    sl_buf_init(&state.message, MESSAGE_MAX);
    signal(SIGPIPE, SIG_IGN);
    run_loop(&state);
    destroy_parts(&state);
    run->failed = state.own_failed + state.counted_failed;
    sl_buf_fini(&state.text);
    sl_buf_fini(&state.message);
    return state.interrupted ? CLI_INTERRUPTED : run->why[0] != '\0' ? CLI_FAILED : CLI_DONE;
}

void cli_ingest_run_fini(struct cli_ingest_run *run)
{
    for (size_t i = 0; i < run->failure_count; i++) {
        free(run->failures[i].doc_id);
        free(run->failures[i].reason);
    }
    free(run->failures);
    run->failures = NULL;
}
