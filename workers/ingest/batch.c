/*
 * Chunks with their vectors go to the stores.
 *
 * Look, whether the document's version still wants them; write; note the batch in the account. The
 * batch that completes a version makes it the accepted one, deletes lower ones, and then the
 * document counts as processed (end.c). Each step can be repeated, so a batch that is delivered
 * again, or whose worker was lost half-way, does no harm.
 *
 * Two versions of a document may be on their way at once. A version is accepted, in the same step
 * that notes its last batch, before lower ones are deleted: a batch of a lower one that was written
 * late learns of it when it is noted, and deletes what it wrote. So does one whose version failed.
 * A batch that is delivered again to find that its version has ended so cannot know whether it was
 * written before: it deletes too.
 *
 * Where Redis has lost what it knew of a version, its chunks are written all the same, since those
 * before them are there; nobody counts them, and older versions stay, until the document is
 * ingested again.
 */
#include "workers/ingest/ingest.h"

#include "common/json.h"
#include "common/log.h"

enum { METADATA_MAX = 1 << 20 };

/* --- what the chunks know of themselves --- */

/* The document's metadata with the headings above one chunk. */
static struct sl_span with_headings(struct sl_arena *arena, const struct sl_json *metadata,
                                    struct sl_span headings)
{
    struct sl_buf out;
    struct sl_json_writer w = {.out = &out};
    struct sl_span key;
    const struct sl_json *value;
    sl_buf_init(&out, METADATA_MAX);
    sl_json_begin_object(&w);
    for (size_t at = 0; metadata != NULL && sl_json_each(metadata, &at, &key, &value);) {
        if (!sl_span_is(key, "headings")) {
            struct sl_buf text;
            sl_buf_init(&text, METADATA_MAX);
            sl_json_dump(value, &text);
            sl_json_key_span(&w, key);
            sl_json_put_raw(&w, sl_buf_span(&text));
            out.err = out.err != 0 ? out.err : text.err;
            sl_buf_fini(&text);
        }
    }
    sl_json_key(&w, "headings");
    sl_json_put_string(&w, headings);
    sl_json_end_object(&w);
    struct sl_span copy = {0};
    if (sl_buf_error(&out) == 0) {
        copy = sl_arena_copy(arena, sl_buf_span(&out));
    }
    sl_buf_fini(&out);
    return copy;
}

static int fill_metadatas(struct sl_arena *arena, struct sl_batch *batch)
{
    struct sl_json_doc *doc = NULL;
    struct sl_span *metadatas = sl_arena_alloc(arena, batch->len * sizeof(*metadatas));
    int rv = metadatas == NULL ? -SL_ENOMEM : 0;
    if (rv == 0 && batch->metadata.len > 0) {
        rv = sl_json_parse(batch->metadata, &doc, NULL, 0);
    }
    const struct sl_json *root = doc != NULL ? sl_json_root(doc) : NULL;
    for (size_t i = 0; i < batch->len && rv == 0; i++) {
        metadatas[i] = batch->headings[i].len == 0 ? batch->metadata
                                                   : with_headings(arena, root, batch->headings[i]);
        rv = batch->headings[i].len > 0 && metadatas[i].data == NULL ? -SL_ENOMEM : 0;
    }
    sl_json_free(doc);
    batch->metadatas = rv == 0 ? metadatas : NULL;
    return rv;
}

/* --- the way of a batch --- */

static void on_noted(struct ingest_ask *ask)
{
    struct ingest_job *state = SL_ITEM(ask, struct ingest_job, ask);
    if (ask->state == INGEST_STATE_COMPLETE || ask->state == INGEST_STATE_OPEN) {
        sl_counter_add(state->ingest->stored_chunks, sl_job_batch(state->job)->len);
    }
    if (ask->state == INGEST_STATE_COMPLETE) {
        ingest_complete(state);
    } else if (ask->state == INGEST_STATE_OPEN) {
        sl_job_done(state->job);
    } else {
        if (ask->state == INGEST_STATE_LOST) {
            sl_log(SL_LOG_WARN, "Redis has lost the account of a document: ingest it again",
                   SL_SPANF("doc_id", ask->doc_id), SL_INT("version", ask->version));
        }
        ingest_pass_over(state);
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
    if (ask->state == INGEST_STATE_COMPLETE) { /* All are there, this one too. */
        ingest_complete(state);
    } else if (ask->state == INGEST_STATE_OPEN || ask->state == INGEST_STATE_LOST) {
        ingest_write_upsert(&state->ingest->stores, &state->write, sl_job_batch(state->job),
                            on_written);
    } else {
        ingest_pass_over(state);
    }
}

void ingest_batch_start(struct ingest_job *state)
{
    struct sl_batch *batch = sl_job_batch(state->job);
    int rv = 0;
    if (batch->failure.len > 0) {
        ingest_fail(state, SL_SPAN_FMT, SL_SPAN_ARG(batch->failure));
    } else if (batch->vectors == NULL || batch->len == 0) {
        ingest_fail(state, "a batch came without vectors");
    } else if (batch->headings != NULL &&
               (rv = fill_metadatas(sl_job_arena(state->job), batch)) != 0) {
        ingest_fail(state, "its metadata: %s", sl_error_text(rv));
    } else {
        ingest_ask_about(state, INGEST_LOOK, on_looked);
    }
}
