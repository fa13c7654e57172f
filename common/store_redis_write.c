/*
 * Writing to a Redis store. An upsert is one HSET a chunk, REDIS_WINDOW of them on their way at a
 * time; the index follows within each. A batch without vectors leaves the vector that a chunk has.
 *
 * A delete asks the index for keys of the document's versions, PAGE at a time, and unlinks those
 * that are its own, until none is found. Keys that only look alike (two documents whose tags are
 * the same hash) are passed over. While the index is being built it does not know all keys: the
 * delete is to be tried again.
 *
 * What can go wrong: the index holds vectors of another length, a vector without direction,
 * metadata that is no JSON object, an index of somebody else (refused, before anything is written);
 * Redis is full or goes away in between (some chunks are written; written again they are the same).
 */
#include "common/store_redis_internal.h"

#include <inttypes.h>
#include <stdio.h>

enum { TEXT_MAX = 32 << 20, PAGE = 256 };

/* --- upserts --- */

/* -SL_EINVAL, -SL_EREJECTED or 0. */
static int check(const struct redis_call *call, char *why, size_t why_size)
{
    const struct redis_store *store = redis_store_of(call);
    const struct sl_batch *batch = &call->batch;
    if (!store->index.ours) {
        snprintf(why, why_size, "the index is not over the keys that begin with \"%s:\"",
                 store->name);
        return -SL_EREJECTED;
    }
    for (size_t i = 0; batch->vectors != NULL && i < batch->len; i++) {
        if (!sl_store_has_direction(batch->vectors + i * batch->dim, batch->dim)) {
            snprintf(why, why_size, "the vector of chunk %u is zero or not finite",
                     sl_batch_index(batch, i));
            return -SL_EINVAL;
        }
    }
    return batch->vectors == NULL ? 0
                                  : sl_store_check_dim(&store->store, batch->dim, why, why_size);
}

/* The texts that a chunk's fields are made of. */
struct chunk_texts {
    struct sl_buf key, terms, chunk_id;
    char version[24], index[16];
};

static void put_fields(struct redis_args *args, const struct redis_call *call, size_t i,
                       const struct chunk_texts *texts)
{
    const struct sl_batch *batch = &call->batch;
    struct sl_span metadata = sl_batch_metadata(batch, i);
    const struct sl_span words[] = {
        SL_SPAN("HSET"),        sl_buf_span(&texts->key),
        SL_SPAN("tenant"),      batch->tenant,
        SL_SPAN("collection"),  batch->collection,
        SL_SPAN("doc_id"),      batch->doc_id,
        SL_SPAN("chunk_id"),    sl_buf_span(&texts->chunk_id),
        SL_SPAN("chunk_index"), sl_span_of(texts->index),
        SL_SPAN("version"),     sl_span_of(texts->version),
        SL_SPAN("text"),        batch->texts[i],
        SL_SPAN("metadata"),    metadata.len > 0 ? metadata : SL_SPAN("{}"),
        SL_SPAN("terms"),       sl_buf_span(&texts->terms)};
    for (size_t w = 0; w < sizeof(words) / sizeof(words[0]); w++) {
        redis_arg(args, words[w]);
    }
    if (batch->vectors != NULL) {
        redis_arg(args, SL_SPAN("embedding"));
        redis_arg(args, (struct sl_span){(const char *)(batch->vectors + i * batch->dim),
                                         batch->dim * sizeof(*batch->vectors)});
    }
}

static int send_chunk(struct redis_call *call, size_t i)
{
    const struct sl_batch *batch = &call->batch;
    struct redis_args args = {.len = 0};
    struct chunk_texts texts;
    sl_buf_init(&texts.key, TEXT_MAX);
    sl_buf_init(&texts.terms, TEXT_MAX);
    sl_buf_init(&texts.chunk_id, TEXT_MAX);
    snprintf(texts.version, sizeof(texts.version), "%" PRId64, batch->version);
    snprintf(texts.index, sizeof(texts.index), "%" PRIu32, sl_batch_index(batch, i));
    sl_buf_append_span(&texts.key, call->key);
    sl_buf_printf(&texts.key, "%s:%s", texts.version, texts.index);
    sl_buf_append_span(&texts.chunk_id, batch->doc_id);
    sl_buf_printf(&texts.chunk_id, "_%s", texts.index);
    int rv = redis_put_terms(&texts.terms, batch, sl_batch_metadata(batch, i));
    rv = rv != 0 ? rv : sl_buf_error(&texts.key);
    rv = rv != 0 ? rv : sl_buf_error(&texts.terms);
    rv = rv != 0 ? rv : sl_buf_error(&texts.chunk_id);
    if (rv == 0) {
        put_fields(&args, call, i, &texts);
        rv = redis_call_send(call, &args);
    }
    sl_buf_fini(&texts.key);
    sl_buf_fini(&texts.terms);
    sl_buf_fini(&texts.chunk_id);
    return rv;
}

/* Sends what there is room for; ends the call when nothing is on its way any more. */
static void pump(struct redis_call *call)
{
    while (call->err == 0 && call->sent < REDIS_WINDOW && call->next < call->batch.len) {
        int rv = send_chunk(call, call->next);
        if (rv == -SL_EAGAIN && call->sent > 0) {
            break;
        }
        call->err = rv;
        call->next++;
    }
    if (call->sent == 0) {
        redis_call_end_later(call, call->err, call->detail);
    }
}

static void on_written(struct redis_call *call, int err, const struct redisReply *reply)
{
    if (err != 0 && call->err == 0) {
        call->err = err;
        redis_error_text(err, reply, call->detail, sizeof(call->detail));
    }
    pump(call);
}

void redis_begin_upsert(struct redis_call *call)
{
    char why[REDIS_DETAIL_MAX] = "";
    int rv = check(call, why, sizeof(why));
    call->on_reply = on_written;
    if (rv != 0) {
        redis_call_end_later(call, rv, why);
    } else {
        pump(call);
    }
}

/* --- deletes --- */

static void find_keys(struct redis_call *call);

static void on_unlinked(struct redis_call *call, int err, const struct redisReply *reply)
{
    char detail[REDIS_DETAIL_MAX];
    if (err != 0) {
        redis_error_text(err, reply, detail, sizeof(detail));
        redis_call_end(call, err, NULL, 0, detail);
    } else {
        find_keys(call);
    }
}

/* [count, key, key ...] */
static void on_keys(struct redis_call *call, int err, const struct redisReply *reply)
{
    struct redis_args args = {.len = 0};
    char detail[REDIS_DETAIL_MAX];
    if (err != 0 && !redis_says_no_index(reply)) {
        redis_error_text(err, reply, detail, sizeof(detail));
        redis_call_end(call, err, NULL, 0, detail);
        return;
    }
    size_t found = err == 0 && sl_reply_len(reply) > 0 ? sl_reply_len(reply) - 1 : 0;
    redis_arg(&args, SL_SPAN("UNLINK"));
    for (size_t i = 1; i <= found; i++) {
        struct sl_span key = sl_reply_span(sl_reply_at(reply, i));
        if (redis_is_key_of(key, call->key)) {
            redis_arg(&args, key);
        } else {
            call->next++;
        }
    }
    if (found == 0) {
        redis_call_end(call, 0, NULL, 0, "");
    } else if (args.len == 1) {
        find_keys(call);
    } else {
        call->on_reply = on_unlinked;
        int rv = redis_call_send(call, &args);
        if (rv != 0) {
            redis_call_end_later(call, rv, "");
        }
    }
}

static void find_keys(struct redis_call *call)
{
    struct redis_args args = {.len = 0};
    struct sl_buf query;
    char offset[24], page[16];
    sl_buf_init(&query, TEXT_MAX);
    sl_buf_append_text(&query, "@terms:{");
    redis_put_document_term(&query, &call->batch);
    if (call->below) {
        sl_buf_printf(&query, "} @version:[-inf (%" PRId64 "]", call->version);
    } else {
        sl_buf_printf(&query, "} @version:[%" PRId64 " %" PRId64 "]", call->version, call->version);
    }
    snprintf(offset, sizeof(offset), "%zu", call->next);
    snprintf(page, sizeof(page), "%d", PAGE);
    const struct sl_span words[] = {SL_SPAN("FT.SEARCH"), sl_span_of(redis_store_of(call)->name),
                                    sl_buf_span(&query),  SL_SPAN("NOCONTENT"),
                                    SL_SPAN("LIMIT"),     sl_span_of(offset),
                                    sl_span_of(page),     SL_SPAN("TIMEOUT"),
                                    SL_SPAN("0"),         SL_SPAN("DIALECT"),
                                    SL_SPAN("2")};
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        redis_arg(&args, words[i]);
    }
    call->on_reply = on_keys;
    int rv = sl_buf_error(&query);
    rv = rv != 0 ? rv : redis_call_send(call, &args);
    if (rv != 0) {
        redis_call_end_later(call, rv, "");
    }
    sl_buf_fini(&query);
}

void redis_begin_delete(struct redis_call *call)
{
    const struct redis_index *index = &redis_store_of(call)->index;
    if (!index->exists || !index->terms) { /* Nothing that this store wrote. */
        redis_call_end_later(call, 0, "");
    } else if (index->building) {
        redis_call_end_later(call, -SL_EUPSTREAM, "Redis is still indexing what was there before");
    } else {
        find_keys(call);
    }
}
