/*
 * opensearch+http://host:port/INDEX: both searches in an OpenSearch index, through
 * `POST /INDEX/_search`. The vectors are the field `embedding` (knn_vector; with the lucene engine
 * the filter applies while searching), the words the field `text`. How it is made and written is in
 * store_opensearch_write.c.
 *
 * Text fields may be mapped as keyword, or as text with a keyword below it, which is what
 * OpenSearch does by itself: an equality asks for either. What a mapping as text lets through
 * besides, the check in store_http.c leaves out. The scope "default" also takes records that lack
 * the field.
 *
 * As many neighbours as are asked for are as many as Lucene looks at on its way to them, and with
 * few it may miss the nearest: at least CANDIDATES are asked for, of which the best top_k come
 * back.
 *
 * A question is cut to TEXT_MAX bytes, so that it never has more words than OpenSearch allows in
 * one query (1024).
 */
#include "common/store_opensearch_write.h"

#include <stdio.h>

enum { TEXT_MAX = 2048, CANDIDATES = 100 };

static void put_term(struct sl_json_writer *w, struct sl_span field, struct sl_span value)
{
    sl_json_begin_object(w);
    sl_json_key(w, "term");
    sl_json_begin_object(w);
    sl_json_key_span(w, field);
    sl_json_put_string(w, value);
    sl_json_end_object(w);
    sl_json_end_object(w);
}

static void put_missing(struct sl_json_writer *w, struct sl_span field)
{
    sl_json_begin_object(w);
    sl_json_key(w, "bool");
    sl_json_begin_object(w);
    sl_json_key(w, "must_not");
    sl_json_begin_array(w);
    sl_json_begin_object(w);
    sl_json_key(w, "exists");
    sl_json_begin_object(w);
    sl_json_key(w, "field");
    sl_json_put_string(w, field);
    sl_json_end_object(w);
    sl_json_end_object(w);
    sl_json_end_array(w);
    sl_json_end_object(w);
    sl_json_end_object(w);
}

/* As put_term, but a value that a field of this type cannot have (a word where numbers are) matches
 * nothing instead of failing the search. */
static void put_lenient_match(struct sl_json_writer *w, struct sl_span field, struct sl_span value)
{
    sl_json_begin_object(w);
    sl_json_key(w, "match");
    sl_json_begin_object(w);
    sl_json_key_span(w, field);
    sl_json_begin_object(w);
    sl_json_key(w, "query");
    sl_json_put_string(w, value);
    sl_json_key(w, "operator");
    sl_json_put_string(w, SL_SPAN("and"));
    sl_json_key(w, "lenient");
    sl_json_put_bool(w, true);
    sl_json_end_object(w);
    sl_json_end_object(w);
    sl_json_end_object(w);
}

/* The field parent.name or name equals the value. */
static void put_equals(struct sl_json_writer *w, const char *parent, struct sl_span name,
                       struct sl_span value, bool or_missing)
{
    static const char suffix[] = ".keyword";
    struct sl_buf field;
    sl_buf_init(&field, strlen(parent) + name.len + sizeof(suffix));
    sl_buf_append_text(&field, parent);
    sl_buf_append_span(&field, name);
    struct sl_span plain = sl_buf_span(&field);
    sl_json_begin_object(w);
    sl_json_key(w, "bool");
    sl_json_begin_object(w);
    sl_json_key(w, "should");
    sl_json_begin_array(w);
    put_lenient_match(w, plain, value);
    if (or_missing) {
        put_missing(w, plain);
    }
    sl_buf_append_text(&field, suffix);
    put_term(w, sl_buf_span(&field), value);
    sl_json_end_array(w);
    sl_json_key(w, "minimum_should_match");
    sl_json_put_int(w, 1);
    sl_json_end_object(w);
    sl_json_end_object(w);
    if (field.err != 0) {
        w->out->err = field.err;
    }
    sl_buf_fini(&field);
}

static void put_scope(struct sl_json_writer *w, const struct sl_store_scope *scope)
{
    sl_json_begin_array(w);
    put_equals(w, "", SL_SPAN("tenant"), scope->tenant, sl_span_is(scope->tenant, "default"));
    put_equals(w, "", SL_SPAN("collection"), scope->collection,
               sl_span_is(scope->collection, "default"));
    for (size_t i = 0; i < scope->filter_len; i++) {
        put_equals(w, "metadata.", scope->filter[i].key, scope->filter[i].value, false);
    }
    sl_json_end_array(w);
}

static void put_knn(struct sl_json_writer *w, const struct sl_store_search *search)
{
    sl_json_key(w, "knn");
    sl_json_begin_object(w);
    sl_json_key(w, "embedding");
    sl_json_begin_object(w);
    sl_json_key(w, "vector");
    sl_http_store_put_vector(w, search->vector, search->dim);
    sl_json_key(w, "k");
    sl_json_put_int(w, search->top_k > CANDIDATES ? search->top_k : CANDIDATES);
    sl_json_key(w, "filter");
    sl_json_begin_object(w);
    sl_json_key(w, "bool");
    sl_json_begin_object(w);
    sl_json_key(w, "filter");
    put_scope(w, &search->scope);
    sl_json_end_object(w);
    sl_json_end_object(w);
    sl_json_end_object(w);
    sl_json_end_object(w);
}

/* At most TEXT_MAX bytes, whole characters. */
static struct sl_span cut(struct sl_span text)
{
    if (text.len > TEXT_MAX) {
        text.len = TEXT_MAX;
        while (text.len > 0 && ((unsigned char)text.data[text.len] & 0xc0) == 0x80) {
            text.len--;
        }
    }
    return text;
}

static void put_match(struct sl_json_writer *w, const struct sl_store_search *search)
{
    sl_json_key(w, "bool");
    sl_json_begin_object(w);
    sl_json_key(w, "must");
    sl_json_begin_array(w);
    sl_json_begin_object(w);
    sl_json_key(w, "match");
    sl_json_begin_object(w);
    sl_json_key(w, "text");
    sl_json_put_string(w, cut(search->text));
    sl_json_end_object(w);
    sl_json_end_object(w);
    sl_json_end_array(w);
    sl_json_key(w, "filter");
    put_scope(w, &search->scope);
    sl_json_end_object(w);
}

static void write_body(struct sl_json_writer *w, const struct sl_store_search *search)
{
    sl_json_begin_object(w);
    sl_json_key(w, "size");
    sl_json_put_int(w, search->top_k);
    sl_json_key(w, "_source");
    sl_json_put_raw(w, SL_SPAN("{\"excludes\":[\"embedding\"]}"));
    sl_json_key(w, "query");
    sl_json_begin_object(w);
    if (search->vector != NULL) {
        put_knn(w, search);
    } else {
        put_match(w, search);
    }
    sl_json_end_object(w);
    sl_json_end_object(w);
}

/* Some shards' hits are not the best of all: a failed one fails the search. */
static const struct sl_json *find_hits(const struct sl_json *answer, char *why, size_t why_size)
{
    const struct sl_json *hits = sl_json_get(sl_json_get(answer, "hits"), "hits");
    const struct sl_json *failed = sl_json_get(sl_json_get(answer, "_shards"), "failed");
    if (failed != NULL && sl_json_type(failed) == SL_JSON_INT && sl_json_int(failed) > 0) {
        snprintf(why, why_size, "%lld shards failed", (long long)sl_json_int(failed));
        return NULL;
    }
    if (hits == NULL || sl_json_type(hits) != SL_JSON_ARRAY) {
        snprintf(why, why_size, "no array hits.hits");
        return NULL;
    }
    return hits;
}

static const struct sl_http_store_kind kind = {
    .backend = &sl_store_opensearch,
    .noun = "index",
    .path = "/%s/_search",
    .keyword = true,
    .write_body = write_body,
    .find_hits = find_hits,
    .fields = "_source",
    .id = "_id",
    .score = "_score",
    .is_missing = opensearch_is_missing,
    .look_path = "/%s/_mapping",
    .read_shape = opensearch_read_shape,
    .make = opensearch_make,
    .upsert_method = "POST",
    .upsert_path = OPENSEARCH_UPSERT_PATH,
    .write_upsert = opensearch_write_upsert,
    .read_upsert = opensearch_read_upsert,
    .refresh_path = "/%s/_refresh",
    .delete_path = OPENSEARCH_DELETE_PATH,
    .write_delete = opensearch_write_delete,
    .read_delete = opensearch_read_delete,
};

static int open_opensearch(const char *url, const struct sl_store_env *env, struct sl_store **ret,
                           char *why, size_t why_size)
{
    return sl_http_store_open(&kind, url, env, ret, why, why_size);
}

const struct sl_store_backend sl_store_opensearch = {
    .scheme = "opensearch+http",
    .open = open_opensearch,
    .close = sl_http_store_close,
    .search = sl_http_store_search,
    .upsert = sl_http_store_upsert,
    .delete_below = sl_http_store_delete_below,
    .delete_version = sl_http_store_delete_version,
    .cancel = sl_http_store_cancel,
};
