/*
 * What each text's job gets of a call. A question goes on with its vector, or fails. The chunks of
 * a batch may come in several calls: the batch goes on when the last has ended, with all vectors,
 * or with the reason in their place, so that ingestion can say which document it was.
 */
#include "workers/embed/call.h"

#include <stdio.h>
#include <stdlib.h>

enum { BATCH_BYTES = 64 << 20 };

static void question_done(struct sl_job *job, const float *vector, size_t dim)
{
    struct sl_query *query = sl_job_query(job);
    float *copy = sl_arena_alloc(sl_job_arena(job), dim * sizeof(float));
    ((struct embed_state *)sl_job_state(job))->call = NULL;
    if (copy == NULL) {
        sl_job_fail(job, SL_QERR_INTERNAL, sl_error_text(-SL_ENOMEM));
        return;
    }
    memcpy(copy, vector, dim * sizeof(float));
    query->vector = copy;
    query->vector_len = dim;
    sl_job_forward(job, "retrieve");
}

static void question_failed(struct sl_job *job, int err, const char *why)
{
    ((struct embed_state *)sl_job_state(job))->call = NULL;
    sl_job_fail(job,
                err == -SL_EEXPIRED ? SL_QERR_TIMEOUT
                : err == -SL_ENOMEM ? SL_QERR_INTERNAL
                                    : SL_QERR_UPSTREAM_ERROR,
                why);
}

/* All chunks of a batch have their vectors, or one its failure. */
static void send_batch(struct sl_job *job)
{
    struct embed_state *state = sl_job_state(job);
    struct sl_batch *batch = sl_job_batch(job);
    struct sl_buf out;
    sl_buf_init(&out, BATCH_BYTES);
    batch->vectors = state->failure[0] == '\0' ? state->vectors : NULL;
    batch->dim = batch->vectors != NULL ? (uint32_t)state->dim : 0;
    batch->failure = sl_span_of(state->failure);
    sl_batch_encode(batch, &out);
    int rv = sl_buf_error(&out);
    rv = rv != 0 ? rv : sl_job_send(job, "vectors", batch->doc_id, sl_buf_span(&out));
    sl_buf_fini(&out);
    free(state->bulk);
    state->bulk = NULL;
    if (rv == -SL_EAGAIN) {
        sl_job_on_room(job, send_batch);
    } else if (rv != 0) {
        sl_job_fail(job, SL_QERR_INTERNAL, "the vectors are larger than their topic takes");
    } else {
        sl_job_done(job);
    }
}

static void chunk_done(struct sl_job *job, size_t index, const float *vector, size_t dim)
{
    struct embed_state *state = sl_job_state(job);
    struct sl_batch *batch = sl_job_batch(job);
    if (state->vectors == NULL) {
        state->dim = dim;
        state->vectors = sl_arena_alloc(sl_job_arena(job), batch->len * dim * sizeof(float));
    }
    if (state->vectors == NULL || dim != state->dim) {
        snprintf(state->failure, sizeof(state->failure), "embedding: %s",
                 state->vectors == NULL ? sl_error_text(-SL_ENOMEM)
                                        : "the model's dimension changed within a document");
        return;
    }
    memcpy(state->vectors + index * dim, vector, dim * sizeof(float));
}

static void chunk_failed(struct sl_job *job, size_t index, const char *why)
{
    struct embed_state *state = sl_job_state(job);
    const struct sl_batch *batch = sl_job_batch(job);
    snprintf(state->failure, sizeof(state->failure), "chunk %zu: %s", batch->first + index, why);
}

void embed_batch_lost(struct sl_job *job, const char *why)
{
    struct embed_state *state = sl_job_state(job);
    snprintf(state->failure, sizeof(state->failure), "embedding: %s", why);
    send_batch(job);
}

void embed_batch_call_ended(struct sl_job *job, const struct embed_call *call)
{
    struct embed_state *state = sl_job_state(job);
    for (size_t i = 0; i < state->bulk_len; i++) {
        if (state->bulk[i] == call) {
            state->bulk[i] = NULL;
            state->bulk_open--;
        }
    }
    if (state->bulk_open == 0) {
        send_batch(job);
    }
}

void embed_member_done(const struct embed_member *member, bool bulk, const float *vector,
                       size_t dim)
{
    if (bulk) {
        chunk_done(member->job, member->index, vector, dim);
    } else {
        question_done(member->job, vector, dim);
    }
}

void embed_member_failed(const struct embed_member *member, bool bulk, int err, const char *why)
{
    if (bulk) {
        chunk_failed(member->job, member->index, why);
    } else {
        question_failed(member->job, err, why);
    }
}
