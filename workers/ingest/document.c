/*
 * Documents become chunks.
 *
 * A document's message is first given its version, the same one however often it is delivered; one
 * that has ended already is passed over. Then its text is cut on the thread pool, since a large one
 * takes longer than the loop may wait, and the chunks are sent on in batches, as fast as the
 * producer takes them and with a pause for other jobs now and then.
 *
 * The pool's thread works on a copy of the text, and cannot be stopped: a job that is cancelled
 * meanwhile leaves the copy behind, and it goes when the thread is done with it.
 */
#include "workers/ingest/ingest.h"

#include "common/chunk.h"
#include "common/worker.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    BATCH_BYTES = 20 << 20, /* Less than a record may have. */
    BATCHES_A_TURN = 32,
};

struct chunking {
    struct ingest_job *state; /* NULL: cancelled. */
    bool running;
    char *text;
    size_t len, size, overlap;
    struct sl_span *chunks;
    uint32_t count, cap;
    size_t bad; /* The byte at which text is not UTF-8. */
    int err;
};

static void destroy(struct chunking *chunking)
{
    free(chunking->text);
    free(chunking->chunks);
    free(chunking);
}

static void drop_chunks(struct ingest_job *state)
{
    if (state->chunking != NULL && state->chunking->running) {
        state->chunking->state = NULL;
    } else if (state->chunking != NULL) {
        destroy(state->chunking);
    }
    state->chunking = NULL;
}

/* --- on the thread pool --- */

static int add_chunk(struct chunking *chunking, struct sl_span chunk)
{
    if (chunking->count == chunking->cap) {
        uint32_t cap = chunking->cap > 0 ? chunking->cap * 2 : 64;
        struct sl_span *chunks = realloc(chunking->chunks, cap * sizeof(*chunks));
        if (chunks == NULL) {
            return -SL_ENOMEM;
        }
        chunking->chunks = chunks;
        chunking->cap = cap;
    }
    chunking->chunks[chunking->count++] = chunk;
    return 0;
}

static void cut(void *ctx)
{
    struct chunking *chunking = ctx;
    struct sl_chunker chunker;
    struct sl_span chunk;
    chunking->err = sl_chunker_init(&chunker, (struct sl_span){chunking->text, chunking->len},
                                    chunking->size, chunking->overlap, &chunking->bad);
    while (chunking->err == 0 && sl_chunker_next(&chunker, &chunk)) {
        chunking->err = add_chunk(chunking, chunk);
    }
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
    const struct chunking *chunking = state->chunking;
    const struct sl_document *document = sl_job_document(state->job);
    uint32_t left = chunking->count - state->next, most = (uint32_t)ingest_config.batch;
    struct sl_batch batch = {
        .doc_id = document->doc_id,
        .tenant = document->tenant,
        .collection = document->collection,
        .ingest_id = document->ingest_id,
        .metadata = document->metadata,
        .version = state->ask.version,
        .total_chunks = chunking->count,
        .first = state->next,
        .texts = chunking->chunks + state->next,
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
    for (int i = 0; i < BATCHES_A_TURN && rv == 0 && state->next < state->chunking->count; i++) {
        rv = send_batch(state);
    }
    if (rv == -SL_EAGAIN) {
        sl_job_on_room(state->job, on_room);
    } else if (rv != 0) {
        drop_chunks(state);
        ingest_fail(state, "its chunks cannot be sent: %s", sl_error_text(rv));
    } else if (state->next < state->chunking->count) {
        sl_timer_start(sl_worker_loop(state->ingest->worker), &state->pause, 0, on_pause_over);
    } else {
        drop_chunks(state);
        sl_job_done(state->job);
    }
}

/* --- chunking --- */

static void on_cut(void *ctx)
{
    struct chunking *chunking = ctx;
    struct ingest_job *state = chunking->state;
    chunking->running = false;
    if (state == NULL) {
        destroy(chunking);
    } else if (chunking->err == -SL_EINVAL) {
        size_t bad = chunking->bad;
        drop_chunks(state);
        ingest_fail(state, "its text is not UTF-8 at byte %zu", bad);
    } else if (chunking->err != 0) {
        int err = chunking->err;
        drop_chunks(state);
        ingest_fail(state, "%s", sl_error_text(err));
    } else if (chunking->count == 0) {
        drop_chunks(state);
        ingest_fail(state, "it holds nothing but white space");
    } else {
        send_some(state);
    }
}

static int start_chunking(struct ingest_job *state)
{
    struct sl_span text = sl_job_document(state->job)->text;
    struct chunking *chunking = calloc(1, sizeof(*chunking));
    if (chunking == NULL) {
        return -SL_ENOMEM;
    }
    *chunking = (struct chunking){.state = state,
                                  .running = true,
                                  .text = malloc(text.len + 1),
                                  .len = text.len,
                                  .size = (size_t)ingest_config.chunk_size,
                                  .overlap = (size_t)ingest_config.chunk_overlap};
    int rv = chunking->text == NULL ? -SL_ENOMEM : 0;
    if (rv == 0 && text.len > 0) {
        memcpy(chunking->text, text.data, text.len);
    }
    rv =
        rv != 0 ? rv : sl_work_submit(sl_worker_loop(state->ingest->worker), cut, on_cut, chunking);
    if (rv != 0) {
        destroy(chunking);
        return rv;
    }
    state->chunking = chunking;
    return 0;
}

static void on_opened(struct ingest_ask *ask)
{
    struct ingest_job *state = SL_ITEM(ask, struct ingest_job, ask);
    if (ask->state == INGEST_STATE_DONE || ask->state == INGEST_STATE_FAILED) {
        sl_job_done(state->job); /* Delivered again after its end. */
        return;
    }
    int rv = start_chunking(state);
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
