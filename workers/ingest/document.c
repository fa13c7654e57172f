/*
 * Documents become chunks.
 *
 * A document's message is first given its version, the same one however often it is delivered; one
 * that has ended already is passed over, and so is one in which nothing has changed, which its hash
 * tells (hash.c). Then its text is cut (cut.c), the account is told into how many chunks, and they
 * are sent on in batches, as fast as the producer takes them and with a pause for other jobs now
 * and then. One that says that the document is to go is accepted as soon as it has its version: it
 * is a version without chunks, and lower ones are deleted (end.c).
 *
 * Of two messages about one document the later must get the higher version. They come from one
 * partition, so to one worker; here a message waits until those before it that are about the same
 * document have their versions, since a large one is hashed for longer than a small one.
 */
#include "workers/ingest/ingest.h"

#include "common/worker.h"

#include <inttypes.h>

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

static void open_version(struct ingest_job *state);

static void on_cut_noted(struct ingest_ask *ask)
{
    struct ingest_job *state = SL_ITEM(ask, struct ingest_job, ask);
    if (ask->state == INGEST_STATE_OPEN) {
        send_some(state);
        return;
    }
    drop_chunks(state);
    if (ask->state == INGEST_STATE_LOST) {
        open_version(state);
    } else {
        ingest_pass_over(state);
    }
}

static void on_cut(void *ctx, const struct ingest_cut_result *result)
{
    struct ingest_job *state = ctx;
    state->chunks = result;
    if (result->err != 0) {
        ingest_fail(state, "%s", result->reason);
        drop_chunks(state);
    } else {
        state->ask.total = result->count;
        ingest_ask_about(state, INGEST_CUT, on_cut_noted);
    }
}

/* --- its version --- */

static bool is_same(const struct sl_document *a, const struct sl_document *b)
{
    return sl_span_equal(a->doc_id, b->doc_id) && sl_span_equal(a->tenant, b->tenant) &&
           sl_span_equal(a->collection, b->collection);
}

/* The first that is about this document and has no version yet. */
static struct ingest_job *first_of(struct ingest *ingest, const struct sl_document *document)
{
    SL_LIST_EACH(node, &ingest->opening)
    {
        struct ingest_job *state = SL_ITEM(node, struct ingest_job, in_opening);
        if (is_same(sl_job_document(state->job), document)) {
            return state;
        }
    }
    return NULL;
}

static void begin(struct ingest_job *state);

static void leave_opening(struct ingest_job *state)
{
    bool was_first = state->is_opening;
    state->is_opening = false;
    sl_list_remove(&state->in_opening);
    struct ingest_job *next =
        was_first ? first_of(state->ingest, sl_job_document(state->job)) : NULL;
    if (next != NULL) {
        begin(next);
    }
}

static void on_opened(struct ingest_ask *ask)
{
    struct ingest_job *state = SL_ITEM(ask, struct ingest_job, ask);
    leave_opening(state);
    if (ask->state != INGEST_STATE_OPEN) {
        sl_counter_add(state->ingest->skipped, ask->state == INGEST_STATE_SKIPPED ? 1 : 0);
        ingest_pass_over(state);
        return;
    }
    int rv = ingest_cut_start(&state->ingest->cutter, sl_job_document(state->job), on_cut, state,
                              &state->cut);
    if (rv != 0) {
        ingest_fail(state, "%s", sl_error_text(rv));
    }
}

static void on_removed(struct ingest_ask *ask)
{
    struct ingest_job *state = SL_ITEM(ask, struct ingest_job, ask);
    leave_opening(state);
    if (ask->state == INGEST_STATE_COMPLETE) {
        state->ask.total = 0;
        ingest_complete(state);
    } else {
        ingest_pass_over(state);
    }
}

static void open_version(struct ingest_job *state)
{
    state->ask.hash = sl_span_of(state->hash.hex);
    state->ask.size = (uint32_t)ingest_config.batch;
    state->ask.bytes = sl_job_document(state->job)->text.len;
    state->ask.again = sl_job_document(state->job)->again;
    ingest_ask_about(state, INGEST_OPEN, on_opened);
}

static void on_hash(struct ingest_hash *hash)
{
    open_version(SL_ITEM(hash, struct ingest_job, hash));
}

static void begin(struct ingest_job *state)
{
    const struct sl_document *document = sl_job_document(state->job);
    state->is_opening = true;
    if (document->remove) {
        ingest_ask_about(state, INGEST_REMOVE, on_removed);
    } else {
        ingest_hash_start(&state->ingest->hasher, &state->hash, document, on_hash);
    }
}

void ingest_document_start(struct ingest_job *state)
{
    struct ingest *ingest = state->ingest;
    bool waits = first_of(ingest, sl_job_document(state->job)) != NULL;
    state->ask.message = sl_job_id(state->job);
    sl_list_push(&ingest->opening, &state->in_opening);
    if (!waits) {
        begin(state);
    }
}

void ingest_document_cancel(struct ingest_job *state)
{
    ingest_hash_cancel(&state->hash);
    drop_chunks(state);
    sl_timer_stop(sl_worker_loop(state->ingest->worker), &state->pause);
    leave_opening(state);
}
