/*
 * The hits in the answer of a store over HTTP.
 *
 * The index may be somebody else's, with a mapping that was never meant for exact matches: a field
 * that is split into words matches "acme" where it says "acme corp". So each hit is checked here
 * once more against the scope and the filter, as text, and left out when it does not fit.
 *
 * What can go wrong: an answer that is not what the API promises (-SL_EPROTO, with what is
 * missing). Of a hit only its score and text are required: chunk_index counts as 0, a missing
 * doc_id is the record's id, chunk_id is made of both, as it is everywhere.
 */
#include "common/store_http_internal.h"

#include <assert.h>
#include <stdio.h>

struct reading {
    const struct sl_http_store_kind *kind;
    const struct sl_store_search *search;
};

/* A value as filters see it: text, number or boolean as text; false for anything else. The text is
 * in scratch or the document. */
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
    return true;
}

static bool equals(const struct sl_json *value, struct sl_span wanted)
{
    struct sl_buf scratch;
    struct sl_span text;
    sl_buf_init(&scratch, 64);
    bool equal = value != NULL && value_text(value, &scratch, &text) && sl_span_equal(text, wanted);
    sl_buf_fini(&scratch);
    return equal;
}

static const struct sl_json *find(const struct sl_json *object, struct sl_span key)
{
    size_t at = 0;
    struct sl_span name;
    const struct sl_json *value;
    if (object == NULL || sl_json_type(object) != SL_JSON_OBJECT) {
        return NULL;
    }
    while (sl_json_each(object, &at, &name, &value)) {
        if (sl_span_equal(name, key)) {
            return value;
        }
    }
    return NULL;
}

/* A record without the field is of the scope "default". */
static bool in_scope(const struct sl_json *field, struct sl_span wanted)
{
    bool missing = field == NULL || sl_json_type(field) == SL_JSON_NULL;
    return missing ? sl_span_is(wanted, "default") : equals(field, wanted);
}

static bool fits(const struct sl_store_scope *scope, const struct sl_json *fields)
{
    const struct sl_json *metadata = sl_json_get(fields, "metadata");
    bool fit = in_scope(sl_json_get(fields, "tenant"), scope->tenant) &&
               in_scope(sl_json_get(fields, "collection"), scope->collection);
    for (size_t i = 0; fit && i < scope->filter_len; i++) {
        fit = equals(find(metadata, scope->filter[i].key), scope->filter[i].value);
    }
    return fit;
}

static int64_t whole_number(const struct sl_json *value)
{
    return value != NULL && sl_json_type(value) == SL_JSON_INT ? sl_json_int(value) : 0;
}

/* A copy in the arena of a text field, or of a number as text; no data when it is neither. */
static struct sl_span copy_text(struct sl_arena *arena, const struct sl_json *value)
{
    struct sl_buf scratch;
    struct sl_span text;
    struct sl_span copy = {NULL, 0};
    sl_buf_init(&scratch, 64);
    if (value != NULL && value_text(value, &scratch, &text)) {
        copy = sl_arena_copy(arena, text);
    }
    sl_buf_fini(&scratch);
    return copy;
}

static struct sl_span copy_metadata(struct sl_arena *arena, const struct sl_json *metadata)
{
    struct sl_buf text;
    struct sl_span copy = SL_SPAN("");
    sl_buf_init(&text, HTTP_STORE_ANSWER_MAX);
    if (metadata != NULL && sl_json_type(metadata) == SL_JSON_OBJECT) {
        sl_json_dump(metadata, &text);
        copy = sl_buf_error(&text) == 0 ? sl_arena_copy(arena, sl_buf_span(&text))
                                        : (struct sl_span){NULL, 0};
    }
    sl_buf_fini(&text);
    return copy;
}

static int fill_hit(struct sl_arena *arena, const struct sl_json *fields, const struct sl_json *id,
                    struct sl_hit *hit)
{
    const struct sl_json *doc_id = sl_json_get(fields, "doc_id");
    const struct sl_json *chunk_id = sl_json_get(fields, "chunk_id");
    hit->chunk_index = whole_number(sl_json_get(fields, "chunk_index"));
    hit->version = whole_number(sl_json_get(fields, "version"));
    hit->text = copy_text(arena, sl_json_get(fields, "text"));
    hit->metadata = copy_metadata(arena, sl_json_get(fields, "metadata"));
    hit->doc_id = copy_text(arena, doc_id != NULL ? doc_id : id);
    if (hit->doc_id.data == NULL || hit->text.data == NULL || hit->metadata.data == NULL) {
        return -SL_ENOMEM;
    }
    if (chunk_id != NULL && sl_json_type(chunk_id) == SL_JSON_STRING) {
        hit->chunk_id = copy_text(arena, chunk_id);
    } else {
        hit->chunk_id = sl_span_of(sl_arena_printf(
            arena, SL_SPAN_FMT "_%lld", SL_SPAN_ARG(hit->doc_id), (long long)hit->chunk_index));
    }
    return hit->chunk_id.data != NULL ? 0 : -SL_ENOMEM;
}

static bool is_number(const struct sl_json *value)
{
    return value != NULL &&
           (sl_json_type(value) == SL_JSON_INT || sl_json_type(value) == SL_JSON_NUMBER);
}

static bool is_text(const struct sl_json *value)
{
    return value != NULL && sl_json_type(value) == SL_JSON_STRING;
}

/* One record of the answer; *len grows unless it does not fit. */
static int read_hit(const struct reading *reading, const struct sl_json *record,
                    struct sl_hit *hits, size_t *len, char *why, size_t why_size)
{
    const struct sl_http_store_kind *kind = reading->kind;
    const struct sl_store_search *search = reading->search;
    const struct sl_json *fields = sl_json_get(record, kind->fields);
    const struct sl_json *id = sl_json_get(record, kind->id);
    const struct sl_json *score = sl_json_get(record, kind->score);
    if (!is_number(score) || !is_text(sl_json_get(fields, "text")) ||
        (!is_text(id) && !is_number(id))) {
        snprintf(why, why_size, "a hit without %s, %s or a text in %s.text", kind->id, kind->score,
                 kind->fields);
        return -SL_EPROTO;
    }
    if (!fits(&search->scope, fields)) {
        return 0;
    }
    int rv = fill_hit(search->arena, fields, id, &hits[*len]);
    hits[*len].score = sl_json_number(score);
    *len += rv == 0;
    return rv;
}

static int read_hits(const struct reading *reading, const struct sl_json *answer,
                     struct sl_hit **ret, size_t *len, char *why, size_t why_size)
{
    const struct sl_store_search *search = reading->search;
    const struct sl_json *records = reading->kind->find_hits(answer, why, why_size);
    const struct sl_json *record;
    size_t at = 0;
    if (records == NULL) {
        return -SL_EPROTO;
    }
    assert(sl_json_type(records) == SL_JSON_ARRAY);
    struct sl_hit *hits = sl_arena_alloc(search->arena, (sl_json_len(records) + 1) * sizeof(*hits));
    int rv = hits != NULL ? 0 : -SL_ENOMEM;
    while (rv == 0 && *len < search->top_k && sl_json_each(records, &at, NULL, &record)) {
        rv = read_hit(reading, record, hits, len, why, why_size);
    }
    *ret = hits;
    return rv;
}

int http_hits_read(const struct sl_http_store_kind *kind, const struct sl_store_search *search,
                   struct sl_span body, struct sl_hit **ret, size_t *len, char *why,
                   size_t why_size)
{
    const struct reading reading = {kind, search};
    struct sl_json_doc *doc = NULL;
    int rv = http_store_parse(body, &doc, why, why_size);
    if (rv == 0) {
        rv = read_hits(&reading, sl_json_root(doc), ret, len, why, why_size);
        sl_json_free(doc);
    }
    return rv;
}
