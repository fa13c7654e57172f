/*
 * qdrant+http://host:port/COLLECTION: vector search in a Qdrant collection with one unnamed vector,
 * through `POST /collections/COLLECTION/points/query`. How it is made and written is in
 * store_qdrant_write.c.
 *
 * Tenant, collection and metadata filters are conditions that Qdrant applies inside the index. The
 * scope "default" also takes records that lack the field. A filter value is text here, while the
 * record may hold a number or a boolean, which Qdrant tells apart: both are asked for.
 */
#include "common/store_qdrant_write.h"

#include <stdio.h>

static void begin_condition(struct sl_json_writer *w, struct sl_span key)
{
    sl_json_begin_object(w);
    sl_json_key(w, "key");
    sl_json_put_string(w, key);
    sl_json_key(w, "match");
    sl_json_begin_object(w);
    sl_json_key(w, "value");
}

static void end_condition(struct sl_json_writer *w)
{
    sl_json_end_object(w);
    sl_json_end_object(w);
}

static void put_match(struct sl_json_writer *w, struct sl_span key, struct sl_span value)
{
    begin_condition(w, key);
    sl_json_put_string(w, value);
    end_condition(w);
}

static void begin_should(struct sl_json_writer *w)
{
    sl_json_begin_object(w);
    sl_json_key(w, "should");
    sl_json_begin_array(w);
}

static void end_should(struct sl_json_writer *w)
{
    sl_json_end_array(w);
    sl_json_end_object(w);
}

static void put_scope(struct sl_json_writer *w, const char *key, struct sl_span value)
{
    if (!sl_span_is(value, "default")) {
        put_match(w, sl_span_of(key), value);
        return;
    }
    begin_should(w);
    put_match(w, sl_span_of(key), value);
    sl_json_begin_object(w);
    sl_json_key(w, "is_empty");
    sl_json_begin_object(w);
    sl_json_key(w, "key");
    sl_json_put_string(w, sl_span_of(key));
    sl_json_end_object(w);
    sl_json_end_object(w);
    end_should(w);
}

/* What the text is in JSON: an integer or a boolean, another number, or nothing but text. */
enum looks { LOOKS_TEXT, LOOKS_SCALAR, LOOKS_NUMBER };

static enum looks looks_like(struct sl_span value)
{
    struct sl_json_doc *doc = NULL;
    enum looks looks = LOOKS_TEXT;
    if (sl_json_parse(value, &doc, NULL, 0) == 0) {
        enum sl_json_type type = sl_json_type(sl_json_root(doc));
        looks = type == SL_JSON_INT || type == SL_JSON_BOOL ? LOOKS_SCALAR
                : type == SL_JSON_NUMBER                    ? LOOKS_NUMBER
                                                            : LOOKS_TEXT;
        sl_json_free(doc);
    }
    return looks;
}

/* Qdrant matches no numbers that are not whole, but compares them. */
static void put_number(struct sl_json_writer *w, struct sl_span key, struct sl_span value)
{
    sl_json_begin_object(w);
    sl_json_key(w, "key");
    sl_json_put_string(w, key);
    sl_json_key(w, "range");
    sl_json_begin_object(w);
    sl_json_key(w, "gte");
    sl_json_put_raw(w, value);
    sl_json_key(w, "lte");
    sl_json_put_raw(w, value);
    sl_json_end_object(w);
    sl_json_end_object(w);
}

static bool is_plain(struct sl_span key)
{
    for (size_t i = 0; i < key.len; i++) {
        char c = key.data[i];
        if (!((c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z') || c == '_' ||
              c == '-')) {
            return false;
        }
    }
    return key.len > 0;
}

static void put_value(struct sl_json_writer *w, struct sl_span key, struct sl_span value)
{
    enum looks looks = looks_like(value);
    if (looks == LOOKS_TEXT) {
        put_match(w, key, value);
        return;
    }
    begin_should(w);
    put_match(w, key, value);
    if (looks == LOOKS_SCALAR) {
        begin_condition(w, key);
        sl_json_put_raw(w, value);
        end_condition(w);
    } else {
        put_number(w, key, value);
    }
    end_should(w);
}

/* Dots and brackets mean something in Qdrant's paths unless the name is quoted. A name with a quote
 * cannot be said at all: then only the check of the hits compares it. */
static void put_filter(struct sl_json_writer *w, const struct sl_pair *pair)
{
    struct sl_buf key;
    if (memchr(pair->key.data, '"', pair->key.len) != NULL) {
        return;
    }
    const char *quote = is_plain(pair->key) ? "" : "\"";
    sl_buf_init(&key, pair->key.len + 16);
    sl_buf_append_text(&key, "metadata.");
    sl_buf_append_text(&key, quote);
    sl_buf_append_span(&key, pair->key);
    sl_buf_append_text(&key, quote);
    if (key.err != 0) {
        w->out->err = key.err;
    }
    put_value(w, sl_buf_span(&key), pair->value);
    sl_buf_fini(&key);
}

static void write_body(struct sl_json_writer *w, const struct sl_store_search *search)
{
    sl_json_begin_object(w);
    sl_json_key(w, "query");
    sl_http_store_put_vector(w, search->vector, search->dim);
    sl_json_key(w, "limit");
    sl_json_put_int(w, search->top_k);
    sl_json_key(w, "with_payload");
    sl_json_put_bool(w, true);
    sl_json_key(w, "filter");
    sl_json_begin_object(w);
    sl_json_key(w, "must");
    sl_json_begin_array(w);
    put_scope(w, "tenant", search->scope.tenant);
    put_scope(w, "collection", search->scope.collection);
    for (size_t i = 0; i < search->scope.filter_len; i++) {
        put_filter(w, &search->scope.filter[i]);
    }
    sl_json_end_array(w);
    sl_json_end_object(w);
    sl_json_end_object(w);
}

static const struct sl_json *find_hits(const struct sl_json *answer, char *why, size_t why_size)
{
    const struct sl_json *points = sl_json_get(sl_json_get(answer, "result"), "points");
    if (points == NULL || sl_json_type(points) != SL_JSON_ARRAY) {
        snprintf(why, why_size, "no array result.points");
        return NULL;
    }
    return points;
}

static const struct sl_http_store_kind kind = {
    .backend = &sl_store_qdrant,
    .noun = "collection",
    .path = "/collections/%s/points/query",
    .write_body = write_body,
    .find_hits = find_hits,
    .fields = "payload",
    .id = "id",
    .score = "score",
    .is_missing = qdrant_is_missing,
    .look_path = "/collections/%s",
    .read_shape = qdrant_read_shape,
    .make = qdrant_make,
    .upsert_method = "PUT",
    .upsert_path = "/collections/%s/points?wait=true",
    .write_upsert = qdrant_write_upsert,
    .read_upsert = qdrant_read_upsert,
    .delete_path = "/collections/%s/points/delete?wait=true",
    .write_delete = qdrant_write_delete,
    .read_delete = qdrant_read_delete,
};

static int open_qdrant(const char *url, const struct sl_store_env *env, struct sl_store **ret,
                       char *why, size_t why_size)
{
    return sl_http_store_open(&kind, url, env, ret, why, why_size);
}

const struct sl_store_backend sl_store_qdrant = {
    .scheme = "qdrant+http",
    .open = open_qdrant,
    .close = sl_http_store_close,
    .search = sl_http_store_search,
    .upsert = sl_http_store_upsert,
    .delete_below = sl_http_store_delete_below,
    .delete_version = sl_http_store_delete_version,
    .cancel = sl_http_store_cancel,
};
