/*
 * Documents become chunks.
 *
 * A document's message is first given its version, the same one however often it is delivered; one
 * that has ended already is passed over. Then its text is cut (cut.c), and the chunks are sent on
 * in batches, as fast as the producer takes them and with a pause for other jobs now and then.
 */
#include "workers/ingest/ingest.h"

#include "common/worker.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    BATCH_BYTES = 20 << 20, /* Less than a record may have. */
    BATCHES_A_TURN = 32,
};

static void drop_chunks(struct ingest_job *state)
{
    ingest_cut_destroy(state->cut);
    state->cut = NULL;
    state->chunks = NULL;
}

/* --- sending --- */

static void send_some(struct ingest_job *state);

static void on_pause_over(struct sl_timer *timer)
{
    send_some(SL_ITEM(timer, struct ingest_job, pause));
}

static void on_room(struct sl_job *job)
{
    send_some(sl_job_state(job));
}

/* The next batch. 0, -SL_EAGAIN or what went wrong. */
static int send_batch(struct ingest_job *state)
{
    const struct ingest_cut_result *chunks = state->chunks;
    const struct sl_document *document = sl_job_document(state->job);
    uint32_t left = chunks->count - state->next, most = (uint32_t)ingest_config.batch;
    struct sl_batch batch = {
        .doc_id = document->doc_id,
        .tenant = document->tenant,
        .collection = document->collection,
        .ingest_id = document->ingest_id,
        .metadata = document->metadata,
        .version = state->ask.version,
        .total_chunks = chunks->count,
        .first = state->next,
        .texts = chunks->texts + state->next,
        .headings = chunks->headings != NULL ? chunks->headings + state->next : NULL,
        .len = left < most ? left : most,
    };
    struct sl_buf out;
    sl_buf_init(&out, BATCH_BYTES);
    sl_batch_encode(&batch, &out);
    int rv = sl_buf_error(&out);
    rv = rv != 0 ? rv : sl_job_send(state->job, "chunks", document->doc_id, sl_buf_span(&out));
    sl_buf_fini(&out);
    if (rv == 0) {
        state->next += (uint32_t)batch.len;
    }
    return rv;
}

static void send_some(struct ingest_job *state)
{
    int rv = 0;
    for (int i = 0; i < BATCHES_A_TURN && rv == 0 && state->next < state->chunks->count; i++) {
        rv = send_batch(state);
    }
    if (rv == -SL_EAGAIN) {
        sl_job_on_room(state->job, on_room);
    } else if (rv != 0) {
        drop_chunks(state);
        ingest_fail(state, "its chunks cannot be sent: %s", sl_error_text(rv));
    } else if (state->next < state->chunks->count) {
        sl_timer_start(sl_worker_loop(state->ingest->worker), &state->pause, 0, on_pause_over);
    } else {
        drop_chunks(state);
        sl_job_done(state->job);
    }
}

/* --- chunking --- */

static void on_cut(void *ctx, const struct ingest_cut_result *result)
{
    struct ingest_job *state = ctx;
    state->chunks = result;
    if (result->err != 0) {
        ingest_fail(state, "%s", result->reason);
        drop_chunks(state);
    } else {
        send_some(state);
    }
}

static void on_opened(struct ingest_ask *ask)
{
    struct ingest_job *state = SL_ITEM(ask, struct ingest_job, ask);
    if (ask->state == INGEST_STATE_DONE || ask->state == INGEST_STATE_FAILED) {
        sl_job_done(state->job); /* Delivered again after its end. */
        return;
    }
    int rv = ingest_cut_start(&state->ingest->cutter, sl_job_document(state->job), on_cut, state,
                              &state->cut);
    if (rv != 0) {
        ingest_fail(state, "%s", sl_error_text(rv));
    }
}

void ingest_document_start(struct ingest_job *state)
{
    state->ask.message = sl_job_id(state->job);
    ingest_ask_about(state, INGEST_OPEN, on_opened);
}

void ingest_document_cancel(struct ingest_job *state)
{
    drop_chunks(state);
    sl_timer_stop(sl_worker_loop(state->ingest->worker), &state->pause);
}
