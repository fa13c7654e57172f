/*
 * Chunks with their vectors go to the stores.
 *
 * Look, whether the document's version still wants them; write; note the batch in the account. The
 * batch that completes a version deletes lower ones, and then the document counts as processed.
 * Each step can be repeated, so a batch that is delivered again, or whose worker was lost half-way,
 * does no harm.
 *
 * Two versions of a document may be on their way at once. A version is accepted, in the same step
 * that notes its last batch, before lower ones are deleted: a batch of a lower one that was written
 * late learns of it when it is noted, and deletes what it wrote.
 *
 * A batch that brings a failure ends its version: what was written of it before stays unfinished,
 * and the version that was there before stays too.
 */
#include "workers/ingest/ingest.h"

#include <inttypes.h>

static void on_counted(struct ingest_ask *ask)
{
    sl_job_done(SL_ITEM(ask, struct ingest_job, ask)->job);
}

static void on_deleted(struct ingest_write *write, int err, const char *detail)
{
    struct ingest_job *state = SL_ITEM(write, struct ingest_job, write);
    if (err != 0) {
        ingest_fail(state, "its old version cannot be deleted from the store: %s", detail);
    } else {
        ingest_ask_about(state, INGEST_DONE, on_counted);
    }
}

static void on_noted(struct ingest_ask *ask)
{
    struct ingest_job *state = SL_ITEM(ask, struct ingest_job, ask);
    if (ask->accepted > ask->version || ask->state == INGEST_STATE_COMPLETE) {
        ingest_write_delete_below(&state->ingest->stores, &state->write, sl_job_batch(state->job),
                                  ask->accepted, on_deleted);
    } else {
        sl_job_done(state->job);
    }
}

static void on_written(struct ingest_write *write, int err, const char *detail)
{
    struct ingest_job *state = SL_ITEM(write, struct ingest_job, write);
    if (err != 0) {
        ingest_fail(state, "the store: %s", detail);
    } else {
        ingest_ask_about(state, INGEST_BATCH, on_noted);
    }
}

static void on_looked(struct ingest_ask *ask)
{
    struct ingest_job *state = SL_ITEM(ask, struct ingest_job, ask);
    if (ask->state == INGEST_STATE_DONE || ask->state == INGEST_STATE_FAILED) {
        sl_job_done(state->job);
    } else if (ask->accepted > ask->version) { /* A newer version took its place meanwhile. */
        ingest_ask_about(state, INGEST_DONE, on_counted);
    } else {
        ingest_write_upsert(&state->ingest->stores, &state->write, sl_job_batch(state->job),
                            on_written);
    }
}

void ingest_batch_start(struct ingest_job *state)
{
    const struct sl_batch *batch = sl_job_batch(state->job);
    if (batch->failure.len > 0) {
        ingest_fail(state, SL_SPAN_FMT, SL_SPAN_ARG(batch->failure));
    } else if (batch->vectors == NULL || batch->len == 0) {
        ingest_fail(state, "a batch came without vectors");
    } else {
        ingest_ask_about(state, INGEST_LOOK, on_looked);
    }
}
