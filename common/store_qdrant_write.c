/*
 * Writing to Qdrant: the collection that is made, points, and deletion by filter.
 *
 * A collection has one unnamed vector, compared by cosine, and indexes over the fields that
 * searches and deletions filter by. Qdrant cannot make one before the vectors' length is known, so
 * it may come with the first upsert. One that is there already is taken as it is, whatever its
 * distance; one with named vectors cannot be written to. All writes wait until they are applied:
 * what is acknowledged is found.
 *
 * What can go wrong is told by the status of the response: upstream.c reads it.
 */
#include "common/store_qdrant_write.h"

#include <inttypes.h>
#include <stdio.h>

static const struct {
    const char *name, *schema;
} indexes[] = {
    {"tenant", "keyword"},
    {"collection", "keyword"},
    {"doc_id", "keyword"},
    {"version", "integer"},
};
enum { INDEXES = sizeof(indexes) / sizeof(indexes[0]) };

/* --- the collection --- */

/* {"status": {"error": "Not found: Collection `chunks` doesn't exist!"}} */
bool qdrant_is_missing(const struct sl_json *answer)
{
    const struct sl_json *error = sl_json_get(sl_json_get(answer, "status"), "error");
    if (error == NULL || sl_json_type(error) != SL_JSON_STRING) {
        return false;
    }
    struct sl_span text = sl_json_string(error);
    return memmem(text.data, text.len, "Collection", 10) != NULL &&
           memmem(text.data, text.len, "doesn't exist", 13) != NULL;
}

/* {"result": {"config": {"params": {"vectors": {"size": 384}}}, "payload_schema": {"tenant": {}}}}
 */
int qdrant_read_shape(const struct sl_json *answer, struct sl_http_shape *ret, char *why,
                      size_t why_size)
{
    const struct sl_json *result = sl_json_get(answer, "result");
    const struct sl_json *params = sl_json_get(sl_json_get(result, "config"), "params");
    const struct sl_json *size = sl_json_get(sl_json_get(params, "vectors"), "size");
    if (params == NULL || sl_json_type(params) != SL_JSON_OBJECT) {
        snprintf(why, why_size, "no object result.config.params");
        return -SL_EPROTO;
    }
    if (size != NULL && sl_json_type(size) == SL_JSON_INT && sl_json_int(size) > 0 &&
        sl_json_int(size) <= UINT32_MAX) {
        ret->dim = (uint32_t)sl_json_int(size);
    } else {
        snprintf(ret->unfit, sizeof(ret->unfit), "it has no unnamed vector");
    }
    for (size_t i = 0; i < INDEXES; i++) {
        if (sl_json_get(sl_json_get(result, "payload_schema"), indexes[i].name) == NULL) {
            ret->missing |= UINT32_C(1) << i;
        }
    }
    return 0;
}

bool qdrant_make(const struct sl_http_shape *shape, const struct sl_store_env *env, uint32_t dim,
                 struct sl_http_step *step)
{
    (void)env;
    if (shape->exists ? shape->missing == 0 : dim == 0) {
        return false;
    }
    step->method = "PUT";
    if (!shape->exists) {
        step->path = "/collections/%s";
        sl_buf_printf(&step->body, "{\"vectors\":{\"size\":%" PRIu32 ",\"distance\":\"Cosine\"}}",
                      dim);
        return true;
    }
    size_t i = 0;
    while ((shape->missing >> i & 1) == 0) {
        i++;
    }
    step->path = "/collections/%s/index?wait=true";
    sl_buf_printf(&step->body, "{\"field_name\":\"%s\",\"field_schema\":\"%s\"}", indexes[i].name,
                  indexes[i].schema);
    return true;
}

/* --- points --- */

void qdrant_write_upsert(struct sl_buf *out, const struct sl_batch *batch)
{
    struct sl_json_writer w = {.out = out};
    char id[SL_UUID_TEXT];
    sl_json_begin_object(&w);
    sl_json_key(&w, "points");
    sl_json_begin_array(&w);
    for (size_t i = 0; i < batch->len && out->err == 0; i++) {
        int rv = sl_http_store_chunk_id(batch, i, id);
        if (rv != 0) {
            out->err = rv;
            return;
        }
        sl_json_begin_object(&w);
        sl_json_key(&w, "id");
        sl_json_put_string(&w, sl_span_of(id));
        sl_json_key(&w, "vector");
        sl_http_store_put_vector(&w, batch->vectors + i * batch->dim, batch->dim);
        sl_json_key(&w, "payload");
        sl_json_begin_object(&w);
        sl_http_store_put_fields(&w, batch, i);
        sl_json_end_object(&w);
        sl_json_end_object(&w);
    }
    sl_json_end_array(&w);
    sl_json_end_object(&w);
}

/* {"result": {"operation_id": 1, "status": "completed"}, "status": "ok"} */
static int read_update(const struct sl_json *answer, char *why, size_t why_size)
{
    const struct sl_json *status = sl_json_get(sl_json_get(answer, "result"), "status");
    if (status != NULL && sl_json_type(status) == SL_JSON_STRING &&
        sl_span_is(sl_json_string(status), "completed")) {
        return 0;
    }
    snprintf(why, why_size, "no result.status that says completed");
    return -SL_EPROTO;
}

int qdrant_read_upsert(const struct sl_json *answer, size_t len, char *why, size_t why_size)
{
    (void)len;
    return read_update(answer, why, why_size);
}

/* --- deleting --- */

static void put_match(struct sl_json_writer *w, const char *key, struct sl_span value)
{
    sl_json_begin_object(w);
    sl_json_key(w, "key");
    sl_json_put_string(w, sl_span_of(key));
    sl_json_key(w, "match");
    sl_json_begin_object(w);
    sl_json_key(w, "value");
    sl_json_put_string(w, value);
    sl_json_end_object(w);
    sl_json_end_object(w);
}

void qdrant_write_delete(struct sl_json_writer *w, const struct sl_batch *document, int64_t version,
                         enum sl_http_deletion deletion)
{
    char condition[80];
    snprintf(condition, sizeof(condition),
             deletion == SL_HTTP_DELETE_BELOW
                 ? "{\"key\":\"version\",\"range\":{\"lt\":%" PRId64 "}}"
                 : "{\"key\":\"version\",\"match\":{\"value\":%" PRId64 "}}",
             version);
    sl_json_begin_object(w);
    sl_json_key(w, "filter");
    sl_json_begin_object(w);
    sl_json_key(w, "must");
    sl_json_begin_array(w);
    put_match(w, "tenant", document->tenant);
    put_match(w, "collection", document->collection);
    put_match(w, "doc_id", document->doc_id);
    sl_json_put_raw(w, sl_span_of(condition));
    sl_json_end_array(w);
    sl_json_end_object(w);
    sl_json_end_object(w);
}

int qdrant_read_delete(const struct sl_json *answer, char *why, size_t why_size)
{
    return read_update(answer, why, why_size);
}
