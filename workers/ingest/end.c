/*
 * How the work on a document ends.
 *
 * A version that failed, or that a higher one was accepted before, leaves nothing behind: it is
 * first marked as ended in the account, so that no batch of it is written from then on, then
 * deleted from the stores, and then cleaned: only that lets questions stop to look for it. A batch
 * that was on its way to the stores meanwhile finds out when it is noted, and does the same.
 *
 * A version whose chunks are all in is accepted already when it comes here: lower ones are deleted,
 * and then it is counted.
 *
 * Where a store cannot delete for the whole budget the document stays among those that change, so
 * that questions go on to see what is visible; the next version of it deletes what is left.
 */
#include "workers/ingest/ingest.h"

#include "common/log.h"

#include <stdio.h>

/* As the stores want it. */
static struct sl_batch document_of(const struct ingest_job *state)
{
    return (struct sl_batch){.doc_id = state->ask.doc_id,
                             .tenant = state->ask.tenant,
                             .collection = state->ask.collection,
                             .version = state->ask.version};
}

/* A failure that no run counts goes to the dead letters, so that somebody learns of it. */
static void settle(struct ingest_job *state)
{
    if (state->ask.uncounted[0] != '\0' && !state->worn_out) {
        sl_job_fail(state->job, SL_QERR_BAD_REQUEST, state->ask.uncounted);
    } else {
        sl_job_done(state->job);
    }
}

static void on_settled(struct ingest_ask *ask)
{
    settle(SL_ITEM(ask, struct ingest_job, ask));
}

/* --- nothing of it stays --- */

static void on_cleaned(struct ingest_write *write, int err, const char *detail)
{
    struct ingest_job *state = SL_ITEM(write, struct ingest_job, write);
    if (err == 0) {
        ingest_ask_about(state, INGEST_CLEANED, on_settled);
        return;
    }
    sl_log(SL_LOG_WARN, "a version that is not wanted cannot be deleted from the store",
           SL_SPANF("doc_id", state->ask.doc_id), SL_INT("version", state->ask.version),
           SL_STR("why", detail));
    snprintf(state->reason, sizeof(state->reason),
             "it was replaced, and cannot be deleted from the store: %s", detail);
    state->ask.reason = sl_span_of(state->reason);
    ingest_ask_about(state, INGEST_FAILED, on_settled); /* Unless it has ended: its run waits. */
}

static void clean(struct ingest_job *state)
{
    const struct sl_batch document = document_of(state);
    ingest_write_delete_version(&state->ingest->stores, &state->write, &document,
                                state->ask.version, on_cleaned);
}

static void on_failure_noted(struct ingest_ask *ask)
{
    ingest_pass_over(SL_ITEM(ask, struct ingest_job, ask));
}

void ingest_fail(struct ingest_job *state, const char *format, ...)
{
    va_list args;
    sl_counter_add(state->ingest->failed, 1);
    va_start(args, format);
    vsnprintf(state->reason, sizeof(state->reason), format, args);
    va_end(args);
    state->ask.reason = sl_span_of(state->reason);
    ingest_ask_about(state, INGEST_FAILED, on_failure_noted);
    sl_log(SL_LOG_WARN, "document not stored", SL_SPANF("doc_id", state->ask.doc_id),
           SL_SPANF("ingest_id", state->ask.ingest_id), SL_STR("why", state->reason));
}

void ingest_pass_over(struct ingest_job *state)
{
    const struct ingest_ask *ask = &state->ask;
    bool is_failed = ask->state == INGEST_STATE_FAILED && ask->accepted != ask->version;
    bool is_replaced = ask->state == INGEST_STATE_DONE && ask->accepted > ask->version;
    if (ask->state == INGEST_STATE_OLD || is_failed || is_replaced) {
        clean(state);
    } else {
        settle(state);
    }
}

/* --- it is there --- */

static void on_processed(struct ingest_ask *ask)
{
    struct ingest_job *state = SL_ITEM(ask, struct ingest_job, ask);
    sl_counter_add(state->ingest->processed, 1);
    settle(state);
}

static void on_lower_deleted(struct ingest_write *write, int err, const char *detail)
{
    struct ingest_job *state = SL_ITEM(write, struct ingest_job, write);
    if (err != 0) {
        ingest_fail(state, "its old version cannot be deleted from the store: %s", detail);
    } else {
        ingest_ask_about(state, INGEST_DONE, on_processed);
    }
}

void ingest_complete(struct ingest_job *state)
{
    const struct sl_batch document = document_of(state);
    ingest_write_delete_below(&state->ingest->stores, &state->write, &document, state->ask.accepted,
                              on_lower_deleted);
}
