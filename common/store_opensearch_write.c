/*
 * Writing to OpenSearch: the mapping that is made, `_bulk`, and `_delete_by_query`.
 *
 * The mapping is a table of fields. An index that is not there is made with all of them, and with a
 * refresh every second, said in so many words: an index with the default of one second stops
 * refreshing when nobody searches. In one that is there, fields that it lacks are added; a field of
 * another type makes it unfit for writing (it can still be searched). The vectors come when their
 * length is known. Metadata is a flat_object (OpenSearch 2.7): any key can be filtered by, and no
 * two documents can disagree about a key's type.
 *
 * A deletion finds what searches see, so a refresh comes before it, or the chunks of the last
 * second would stay for ever; what changed between its search and its deletion is left, and told.
 *
 * What can go wrong: single chunks are refused within an answer of 200. A full queue (429) or a
 * shard that is away (503) may take them later; anything else is final. A 404 says that the index
 * is gone.
 */
#include "common/store_opensearch_write.h"

#include <inttypes.h>
#include <stdio.h>

enum { VECTOR_MAPPING = 160, TYPES_MAX = 3, TRANSIENT_FROM = 500, TOO_MANY = 429, GONE = 404 };

static const struct field {
    const char *name;
    const char *types[TYPES_MAX]; /* Those that will do. */
    const char *mapping;          /* NULL: depends on the options. */
} fields[] = {
    {"tenant", {"keyword"}, "{\"type\":\"keyword\"}"},
    {"collection", {"keyword"}, "{\"type\":\"keyword\"}"},
    {"doc_id", {"keyword"}, "{\"type\":\"keyword\"}"},
    {"chunk_id", {"keyword", "text"}, "{\"type\":\"keyword\",\"index\":false}"},
    {"chunk_index", {"integer", "long"}, "{\"type\":\"integer\"}"},
    {"version", {"long"}, "{\"type\":\"long\"}"},
    {"metadata", {"flat_object", "object"}, "{\"type\":\"flat_object\"}"},
    {"text", {"text"}, NULL},
};
enum { FIELDS = sizeof(fields) / sizeof(fields[0]) };

/* --- the index --- */

bool opensearch_is_missing(const struct sl_json *answer)
{
    const struct sl_json *type = sl_json_get(sl_json_get(answer, "error"), "type");
    return type != NULL && sl_json_type(type) == SL_JSON_STRING &&
           sl_span_is(sl_json_string(type), "index_not_found_exception");
}

/* An object has no type of its own. */
static struct sl_span type_of(const struct sl_json *field)
{
    const struct sl_json *type = sl_json_get(field, "type");
    bool told = type != NULL && sl_json_type(type) == SL_JSON_STRING;
    return told ? sl_json_string(type) : SL_SPAN("object");
}

static void refuse(struct sl_http_shape *ret, const char *name, struct sl_span type,
                   const char *wanted)
{
    if (ret->unfit[0] == '\0') {
        snprintf(ret->unfit, sizeof(ret->unfit),
                 "its field %s is of the type %.*s, and must be of the type %s", name,
                 (int)(type.len < 40 ? type.len : 40), type.data, wanted);
    }
}

static void read_field(const struct sl_json *properties, size_t i, struct sl_http_shape *ret)
{
    const struct sl_json *field = sl_json_get(properties, fields[i].name);
    if (field == NULL) {
        ret->missing |= UINT32_C(1) << i;
        return;
    }
    struct sl_span type = type_of(field);
    for (size_t t = 0; t < TYPES_MAX && fields[i].types[t] != NULL; t++) {
        if (sl_span_is(type, fields[i].types[t])) {
            return;
        }
    }
    refuse(ret, fields[i].name, type, fields[i].types[0]);
}

static void read_embedding(const struct sl_json *properties, struct sl_http_shape *ret)
{
    const struct sl_json *field = sl_json_get(properties, "embedding");
    const struct sl_json *dim = sl_json_get(field, "dimension");
    if (field == NULL) {
        return;
    }
    bool told = dim != NULL && sl_json_type(dim) == SL_JSON_INT && sl_json_int(dim) > 0 &&
                sl_json_int(dim) <= UINT32_MAX;
    if (!sl_span_is(type_of(field), "knn_vector") || !told) {
        refuse(ret, "embedding", type_of(field), "knn_vector with a dimension");
        return;
    }
    ret->dim = (uint32_t)sl_json_int(dim);
}

/* {"chunks": {"mappings": {"properties": {...}}}}; a name may stand for several indexes. */
int opensearch_read_shape(const struct sl_json *answer, struct sl_http_shape *ret, char *why,
                          size_t why_size)
{
    const struct sl_json *index;
    size_t at = 0;
    if (sl_json_type(answer) != SL_JSON_OBJECT) {
        snprintf(why, why_size, "no object of indexes");
        return -SL_EPROTO;
    }
    ret->exists = sl_json_len(answer) > 0;
    if (sl_json_len(answer) > 1) {
        snprintf(ret->unfit, sizeof(ret->unfit), "this name stands for several indexes");
    }
    if (sl_json_each(answer, &at, NULL, &index)) {
        const struct sl_json *mappings = sl_json_get(index, "mappings");
        if (mappings == NULL || sl_json_type(mappings) != SL_JSON_OBJECT) {
            snprintf(why, why_size, "an index without mappings");
            return -SL_EPROTO;
        }
        const struct sl_json *properties = sl_json_get(mappings, "properties");
        for (size_t i = 0; i < FIELDS; i++) {
            read_field(properties, i, ret);
        }
        read_embedding(properties, ret);
    }
    return 0;
}

static void put_properties(struct sl_json_writer *w, uint32_t which, const char *analyzer,
                           uint32_t dim)
{
    char vector[VECTOR_MAPPING];
    sl_json_key(w, "properties");
    sl_json_begin_object(w);
    for (size_t i = 0; i < FIELDS; i++) {
        if ((which >> i & 1) == 0) {
            continue;
        }
        sl_json_key(w, fields[i].name);
        if (fields[i].mapping != NULL) {
            sl_json_put_raw(w, sl_span_of(fields[i].mapping));
            continue;
        }
        sl_json_begin_object(w);
        sl_json_key(w, "type");
        sl_json_put_string(w, SL_SPAN("text"));
        sl_json_key(w, "analyzer");
        sl_json_put_string(w, sl_span_of(analyzer));
        sl_json_end_object(w);
    }
    if (dim > 0) {
        snprintf(vector, sizeof(vector),
                 "{\"type\":\"knn_vector\",\"dimension\":%" PRIu32
                 ",\"method\":{\"name\":\"hnsw\",\"engine\":\"lucene\","
                 "\"space_type\":\"cosinesimil\"}}",
                 dim);
        sl_json_key(w, "embedding");
        sl_json_put_raw(w, sl_span_of(vector));
    }
    sl_json_end_object(w);
}

bool opensearch_make(const struct sl_http_shape *shape, const struct sl_store_env *env,
                     uint32_t dim, struct sl_http_step *step)
{
    struct sl_json_writer w = {.out = &step->body};
    const char *analyzer = env->analyzer != NULL ? env->analyzer : "english";
    uint32_t missing = shape->exists ? shape->missing : (UINT32_C(1) << FIELDS) - 1;
    uint32_t missing_dim = shape->dim == 0 ? dim : 0;
    if (missing == 0 && missing_dim == 0) {
        return false;
    }
    step->method = "PUT";
    step->path = shape->exists ? "/%s/_mapping" : "/%s";
    sl_json_begin_object(&w);
    if (!shape->exists) {
        sl_json_key(&w, "settings");
        sl_json_put_raw(&w, SL_SPAN("{\"index\":{\"knn\":true,\"refresh_interval\":\"1s\","
                                    "\"auto_expand_replicas\":\"0-1\"}}"));
        sl_json_key(&w, "mappings");
        sl_json_begin_object(&w);
        sl_json_key(&w, "dynamic");
        sl_json_put_bool(&w, false);
    }
    put_properties(&w, missing, analyzer, missing_dim);
    if (!shape->exists) {
        sl_json_end_object(&w);
    }
    sl_json_end_object(&w);
    return true;
}

/* --- chunks --- */

/* Two lines a chunk. One that comes without its vector keeps the one that it has. */
void opensearch_write_upsert(struct sl_buf *out, const struct sl_batch *batch)
{
    char id[SL_UUID_TEXT];
    for (size_t i = 0; i < batch->len && out->err == 0; i++) {
        struct sl_json_writer w = {.out = out};
        int rv = sl_http_store_chunk_id(batch, i, id);
        if (rv != 0) {
            out->err = rv;
            return;
        }
        if (batch->vectors != NULL) {
            sl_buf_printf(out, "{\"index\":{\"_id\":\"%s\"}}\n", id);
        } else {
            sl_buf_printf(out,
                          "{\"update\":{\"_id\":\"%s\",\"retry_on_conflict\":3}}\n"
                          "{\"doc_as_upsert\":true,\"doc\":",
                          id);
        }
        sl_json_begin_object(&w);
        sl_http_store_put_fields(&w, batch, i);
        if (batch->vectors != NULL) {
            sl_json_key(&w, "embedding");
            sl_http_store_put_vector(&w, batch->vectors + i * batch->dim, batch->dim);
        }
        sl_json_end_object(&w);
        sl_buf_append_text(out, batch->vectors != NULL ? "\n" : "}\n");
    }
}

/* Of one refused chunk or deletion: what is worse than the others' wins. */
static int worse(int rv, int64_t status)
{
    int one = status == TOO_MANY                           ? -SL_ERATE
              : status >= TRANSIENT_FROM || status == GONE ? -SL_EUPSTREAM
                                                           : -SL_EREJECTED;
    static const int ranks[] = {0, -SL_ERATE, -SL_EUPSTREAM, -SL_EREJECTED};
    for (size_t i = sizeof(ranks) / sizeof(ranks[0]); i-- > 0;) {
        if (rv == ranks[i] || one == ranks[i]) {
            return ranks[i];
        }
    }
    return rv;
}

static int64_t status_of(const struct sl_json *item)
{
    const struct sl_json *status = sl_json_get(item, "status");
    return status != NULL && sl_json_type(status) == SL_JSON_INT ? sl_json_int(status) : 0;
}

/* The innermost reason says what it was about. */
static void describe(const struct sl_json *error, size_t refused, size_t len, char *why,
                     size_t why_size)
{
    const struct sl_json *cause = sl_json_get(error, "caused_by");
    const struct sl_json *reason = sl_json_get(cause != NULL ? cause : error, "reason");
    struct sl_span text = reason != NULL && sl_json_type(reason) == SL_JSON_STRING
                              ? sl_json_string(reason)
                              : SL_SPAN("no reason given");
    int most = (int)(text.len < why_size / 2 ? text.len : why_size / 2);
    snprintf(why, why_size, "%zu of %zu chunks were refused: %.*s", refused, len, most, text.data);
}

/* What became of one chunk, under the name of what was to be done with it. */
static const struct sl_json *outcome_of(const struct sl_json *item)
{
    const struct sl_json *outcome = sl_json_get(item, "index");
    return outcome != NULL ? outcome : sl_json_get(item, "update");
}

/* Shards count what they do from 0. */
static bool is_first(const struct sl_json *outcome)
{
    const struct sl_json *number = sl_json_get(outcome, "_seq_no");
    return number != NULL && sl_json_type(number) == SL_JSON_INT && sl_json_int(number) == 0;
}

/* {"errors": true, "items": [{"index": {"status": 400, "error": {"reason"}}}]} */
int opensearch_read_upsert(const struct sl_json *answer, size_t len, char *why, size_t why_size)
{
    const struct sl_json *errors = sl_json_get(answer, "errors");
    const struct sl_json *items = sl_json_get(answer, "items");
    const struct sl_json *item;
    const struct sl_json *error = NULL;
    size_t at = 0, refused = 0;
    bool first = false;
    int rv = 0;
    if (errors == NULL || sl_json_type(errors) != SL_JSON_BOOL || items == NULL ||
        sl_json_type(items) != SL_JSON_ARRAY || sl_json_len(items) != len) {
        snprintf(why, why_size, "no errors, or not an item for each chunk");
        return -SL_EPROTO;
    }
    while (sl_json_each(items, &at, NULL, &item)) {
        const struct sl_json *outcome = outcome_of(item);
        int64_t status = status_of(outcome);
        if (status < 200 || status >= 300) {
            int before = rv;
            rv = worse(rv, status);
            error = rv != before ? sl_json_get(outcome, "error") : error;
            refused++;
        }
        first = first || is_first(outcome);
    }
    if (rv != 0) {
        describe(error, refused, len, why, why_size);
    }
    return rv != 0 ? rv : first ? SL_HTTP_WRITTEN_FIRST : 0;
}

/* --- deleting --- */

static void put_term(struct sl_json_writer *w, const char *field, struct sl_span value)
{
    sl_json_begin_object(w);
    sl_json_key(w, "term");
    sl_json_begin_object(w);
    sl_json_key(w, field);
    sl_json_put_string(w, value);
    sl_json_end_object(w);
    sl_json_end_object(w);
}

void opensearch_write_delete(struct sl_json_writer *w, const struct sl_batch *document,
                             int64_t version, enum sl_http_deletion deletion)
{
    char range[80];
    snprintf(range, sizeof(range),
             deletion == SL_HTTP_DELETE_BELOW ? "{\"range\":{\"version\":{\"lt\":%" PRId64 "}}}"
                                              : "{\"term\":{\"version\":%" PRId64 "}}",
             version);
    sl_json_begin_object(w);
    sl_json_key(w, "query");
    sl_json_begin_object(w);
    sl_json_key(w, "bool");
    sl_json_begin_object(w);
    sl_json_key(w, "filter");
    sl_json_begin_array(w);
    put_term(w, "tenant", document->tenant);
    put_term(w, "collection", document->collection);
    put_term(w, "doc_id", document->doc_id);
    sl_json_put_raw(w, sl_span_of(range));
    sl_json_end_array(w);
    sl_json_end_object(w);
    sl_json_end_object(w);
    sl_json_end_object(w);
}

static bool is_true(const struct sl_json *value)
{
    return value != NULL && sl_json_type(value) == SL_JSON_BOOL && sl_json_bool(value);
}

/* {"timed_out": false, "deleted": 3, "version_conflicts": 0, "failures": []} */
int opensearch_read_delete(const struct sl_json *answer, char *why, size_t why_size)
{
    const struct sl_json *conflicts = sl_json_get(answer, "version_conflicts");
    const struct sl_json *failures = sl_json_get(answer, "failures");
    const struct sl_json *failure;
    size_t at = 0;
    int rv = 0;
    if (conflicts == NULL || sl_json_type(conflicts) != SL_JSON_INT || failures == NULL ||
        sl_json_type(failures) != SL_JSON_ARRAY) {
        snprintf(why, why_size, "no version_conflicts or failures");
        return -SL_EPROTO;
    }
    while (sl_json_each(failures, &at, NULL, &failure)) {
        rv = worse(rv, status_of(failure));
    }
    if (rv != 0) {
        snprintf(why, why_size, "%zu deletions failed", sl_json_len(failures));
        return rv;
    }
    if (sl_json_int(conflicts) > 0) {
        snprintf(why, why_size, "%" PRId64 " chunks changed while they were deleted",
                 sl_json_int(conflicts));
        return -SL_EAGAIN;
    }
    if (is_true(sl_json_get(answer, "timed_out"))) {
        snprintf(why, why_size, "not all chunks were found in time");
        return -SL_EAGAIN;
    }
    return 0;
}
