/*
 * Names inside the Redis store.
 *
 * A chunk's key says what it is, so that an operator can read it and a delete can be sure of it:
 * NAME:TENANT,COLLECTION,DOCUMENT:VERSION:INDEX, where tenant and collection are preceded by their
 * lengths ("7:default,") and thus cannot be mistaken for one another.
 *
 * What a search filters by are tags, in one field `terms`. A tag must not contain a comma, loses
 * spaces at its ends and is read with escapes; metadata has any bytes. So a tag is a hash: a letter
 * for what it names and 128 bits of the bytes, each part with its length. The search checks the
 * fields themselves afterwards, so that two that hash alike cannot show a tenant another's chunks.
 */
#include "common/store_redis_internal.h"

#include "common/json.h"
#include "common/map.h"

enum { BYTES_MAX = 1 << 20 };

/* As netstrings: "7:default,". */
static void put_part(struct sl_buf *out, struct sl_span part)
{
    sl_buf_append_uint(out, part.len);
    sl_buf_append_text(out, ":");
    sl_buf_append_span(out, part);
    sl_buf_append_text(out, ",");
}

/* The tag of kind for these parts. The seeds are part of the format: the same for all processes. */
static void put_term(struct sl_buf *out, char kind, const struct sl_span *parts, size_t count)
{
    static const uint64_t seeds[2][2] = {{0x736c75696365, 1}, {0x736c75696365, 2}};
    struct sl_buf bytes;
    sl_buf_init(&bytes, BYTES_MAX);
    for (size_t i = 0; i < count; i++) {
        put_part(&bytes, parts[i]);
    }
    if (sl_buf_error(&bytes) != 0) {
        out->err = out->err != 0 ? out->err : sl_buf_error(&bytes);
    }
    sl_buf_printf(out, "%c%016llx%016llx", kind,
                  (unsigned long long)sl_siphash(seeds[0], sl_buf_span(&bytes)),
                  (unsigned long long)sl_siphash(seeds[1], sl_buf_span(&bytes)));
    sl_buf_fini(&bytes);
}

void redis_put_scope_term(struct sl_buf *out, struct sl_span tenant, struct sl_span collection)
{
    put_term(out, 's', (const struct sl_span[]){tenant, collection}, 2);
}

void redis_put_document_term(struct sl_buf *out, const struct sl_batch *document)
{
    const struct sl_span parts[] = {document->tenant, document->collection, document->doc_id};
    put_term(out, 'd', parts, 3);
}

void redis_put_pair_term(struct sl_buf *out, struct sl_span key, struct sl_span value)
{
    put_term(out, 'm', (const struct sl_span[]){key, value}, 2);
}

/* A value as filters see it: text, number or boolean as text, in scratch or the document; false for
 * anything else. */
static bool value_text(const struct sl_json *value, struct sl_buf *scratch, struct sl_span *ret)
{
    enum sl_json_type type = sl_json_type(value);
    if (type == SL_JSON_STRING) {
        *ret = sl_json_string(value);
        return true;
    }
    if (type != SL_JSON_INT && type != SL_JSON_NUMBER && type != SL_JSON_BOOL) {
        return false;
    }
    sl_buf_clear(scratch);
    sl_json_dump(value, scratch);
    *ret = sl_buf_span(scratch);
    return sl_buf_error(scratch) == 0;
}

static void put_pairs(struct sl_buf *out, const struct sl_json *object)
{
    size_t at = 0;
    struct sl_span key, text;
    const struct sl_json *value;
    struct sl_buf scratch;
    sl_buf_init(&scratch, 64);
    while (sl_json_each(object, &at, &key, &value)) {
        if (value_text(value, &scratch, &text)) {
            sl_buf_append_text(out, ",");
            redis_put_pair_term(out, key, text);
        }
    }
    sl_buf_fini(&scratch);
}

int redis_put_terms(struct sl_buf *out, const struct sl_batch *batch, struct sl_span metadata)
{
    struct sl_json_doc *doc = NULL;
    redis_put_scope_term(out, batch->tenant, batch->collection);
    sl_buf_append_text(out, ",");
    redis_put_document_term(out, batch);
    if (metadata.len == 0) {
        return 0;
    }
    int rv = sl_json_parse(metadata, &doc, NULL, 0);
    if (rv != 0) {
        return rv == -SL_EBADMSG ? -SL_EINVAL : rv;
    }
    bool object = sl_json_type(sl_json_root(doc)) == SL_JSON_OBJECT;
    if (object) {
        put_pairs(out, sl_json_root(doc));
    }
    sl_json_free(doc);
    return object ? 0 : -SL_EINVAL;
}

void redis_put_document_key(struct sl_buf *out, const char *name, const struct sl_batch *document)
{
    sl_buf_append_text(out, name);
    sl_buf_append_text(out, ":");
    put_part(out, document->tenant);
    put_part(out, document->collection);
    sl_buf_append_span(out, document->doc_id);
    sl_buf_append_text(out, ":");
}

/* The rest is a number, a colon and a number: a document whose id goes on there is another one. */
bool redis_is_key_of(struct sl_span key, struct sl_span document_key)
{
    struct sl_span begin;
    if (!sl_span_take(&key, document_key.len, &begin) || !sl_span_equal(begin, document_key)) {
        return false;
    }
    size_t colons = 0;
    for (size_t i = 0; i < key.len; i++) {
        colons += key.data[i] == ':';
        if (key.data[i] != ':' && (key.data[i] < '0' || key.data[i] > '9')) {
            return false;
        }
    }
    return colons == 1;
}

static bool has_pair(const struct sl_json *object, const struct sl_pair *pair)
{
    size_t at = 0;
    struct sl_span key, text;
    const struct sl_json *value;
    struct sl_buf scratch;
    bool found = false;
    sl_buf_init(&scratch, 64);
    while (!found && sl_json_each(object, &at, &key, &value)) {
        found = sl_span_equal(key, pair->key) && value_text(value, &scratch, &text) &&
                sl_span_equal(text, pair->value);
    }
    sl_buf_fini(&scratch);
    return found;
}

bool redis_fits_filter(struct sl_span metadata, const struct sl_store_scope *scope)
{
    struct sl_json_doc *doc = NULL;
    if (scope->filter_len == 0) {
        return true;
    }
    if (sl_json_parse(metadata, &doc, NULL, 0) != 0) {
        return false;
    }
    bool fits = sl_json_type(sl_json_root(doc)) == SL_JSON_OBJECT;
    for (size_t i = 0; fits && i < scope->filter_len; i++) {
        fits = has_pair(sl_json_root(doc), &scope->filter[i]);
    }
    sl_json_free(doc);
    return fits;
}
