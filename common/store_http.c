/*
 * Searches in stores over HTTP. A search is one call to an upstream (upstream.c has the permit, the
 * time-outs, the retry), whose JSON answer is read into the caller's arena.
 *
 * The index may be somebody else's, with a mapping that was never meant for exact matches: a field
 * that is split into words matches "acme" where it says "acme corp". So each hit is checked here
 * once more against the scope and the filter, as text, and left out when it does not fit.
 *
 * What can go wrong: what upstream.h names; an answer that is not what the API promises
 * (-SL_EPROTO, with what is missing). Of a hit only its score and text are required: chunk_index
 * counts as 0, a missing doc_id is the record's id, chunk_id is made of both, as it is everywhere.
 */
#include "common/store_http.h"

#include "common/coord.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { BODY_MAX = 4 << 20, ANSWER_MAX = 32 << 20, ATTEMPTS = 2, DETAIL_MAX = 200 };

struct sl_http_store {
    struct sl_store store;
    const struct sl_http_store_kind *kind;
    struct sl_upstream_config config;
    struct sl_upstream *upstream;
    char *base, *path;
    size_t calls;
};

struct call {
    struct sl_store_call base;
    struct sl_upstream_call *upstream;
    struct sl_store_scope scope; /* Copied to the arena of the search, like the hits. */
    uint32_t top_k;
    struct sl_arena *arena;
    sl_store_hits_cb *cb;
    void *ctx;
};

static struct sl_http_store *store_of(const struct call *call)
{
    return (struct sl_http_store *)call->base.store;
}

/* --- reading an answer --- */

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
    sl_buf_init(&text, ANSWER_MAX);
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
static int read_hit(const struct call *call, const struct sl_json *record, struct sl_hit *hits,
                    size_t *len, char *why, size_t why_size)
{
    const struct sl_http_store_kind *kind = store_of(call)->kind;
    const struct sl_json *fields = sl_json_get(record, kind->fields);
    const struct sl_json *id = sl_json_get(record, kind->id);
    const struct sl_json *score = sl_json_get(record, kind->score);
    if (!is_number(score) || !is_text(sl_json_get(fields, "text")) ||
        (!is_text(id) && !is_number(id))) {
        snprintf(why, why_size, "a hit without %s, %s or a text in %s.text", kind->id, kind->score,
                 kind->fields);
        return -SL_EPROTO;
    }
    if (!fits(&call->scope, fields)) {
        return 0;
    }
    int rv = fill_hit(call->arena, fields, id, &hits[*len]);
    hits[*len].score = sl_json_number(score);
    *len += rv == 0;
    return rv;
}

static int read_hits(const struct call *call, const struct sl_json *answer, struct sl_hit **ret,
                     size_t *len, char *why, size_t why_size)
{
    const struct sl_json *records = store_of(call)->kind->find_hits(answer, why, why_size);
    const struct sl_json *record;
    size_t at = 0;
    if (records == NULL) {
        return -SL_EPROTO;
    }
    assert(sl_json_type(records) == SL_JSON_ARRAY);
    struct sl_hit *hits = sl_arena_alloc(call->arena, (sl_json_len(records) + 1) * sizeof(*hits));
    int rv = hits != NULL ? 0 : -SL_ENOMEM;
    while (rv == 0 && *len < call->top_k && sl_json_each(records, &at, NULL, &record)) {
        rv = read_hit(call, record, hits, len, why, why_size);
    }
    *ret = hits;
    return rv;
}

static int read_answer(const struct call *call, struct sl_span body, struct sl_hit **hits,
                       size_t *len, char *why, size_t why_size)
{
    struct sl_json_doc *doc = NULL;
    int rv = sl_json_parse(body, &doc, why, why_size);
    if (rv == -SL_EBADMSG) {
        return -SL_EPROTO;
    }
    if (rv == 0) {
        rv = read_hits(call, sl_json_root(doc), hits, len, why, why_size);
        sl_json_free(doc);
    }
    return rv;
}

/* --- the call --- */

static void destroy(struct call *call)
{
    store_of(call)->calls--;
    free(call);
}

static void on_end(void *ctx, int err, int status, struct sl_span body, const char *detail,
                   uint32_t attempts)
{
    struct call *call = ctx;
    struct sl_hit *hits = NULL;
    size_t len = 0;
    char why[DETAIL_MAX] = "";
    char text[DETAIL_MAX + 64];
    (void)status;
    (void)attempts;
    if (err == 0) {
        err = read_answer(call, body, &hits, &len, why, sizeof(why));
        if (err != 0) {
            snprintf(text, sizeof(text), "the answer cannot be used: %s",
                     why[0] != '\0' ? why : sl_error_text(err));
            detail = text;
        }
    }
    call->cb(call->ctx, err, err == 0 ? hits : NULL, err == 0 ? len : 0, err == 0 ? "" : detail);
    destroy(call);
}

static const struct sl_upstream_callbacks callbacks = {.on_end = on_end};

static bool copy_span(struct sl_arena *arena, struct sl_span *span)
{
    *span = sl_arena_copy(arena, *span);
    return span->data != NULL;
}

static bool copy_scope(struct sl_arena *arena, struct sl_store_scope *scope)
{
    struct sl_pair *filter = sl_arena_alloc(arena, (scope->filter_len + 1) * sizeof(*filter));
    bool whole = filter != NULL;
    for (size_t i = 0; whole && i < scope->filter_len; i++) {
        filter[i] = scope->filter[i];
        whole = copy_span(arena, &filter[i].key) && copy_span(arena, &filter[i].value);
    }
    scope->filter = filter;
    return whole && copy_span(arena, &scope->tenant) && copy_span(arena, &scope->collection);
}

static int start_call(struct call *call, const struct sl_store_search *search)
{
    struct sl_http_store *store = store_of(call);
    struct sl_buf body;
    struct sl_json_writer w = {.out = &body};
    sl_buf_init(&body, BODY_MAX);
    store->kind->write_body(&w, search);
    const struct sl_upstream_request request = {
        .method = "POST",
        .path = store->path,
        .body = sl_buf_span(&body),
        .max_response = ANSWER_MAX,
        .deadline_ms = search->deadline_ms,
        .permit = search->permit,
        .callbacks = &callbacks,
        .ctx = call,
    };
    int rv = sl_buf_error(&body);
    rv = rv != 0 ? rv : sl_upstream_start(store->upstream, &request, &call->upstream);
    sl_buf_fini(&body);
    return rv;
}

static bool is_finite(const struct sl_store_search *search)
{
    for (size_t i = 0; i < search->dim; i++) {
        if (!isfinite(search->vector[i])) {
            return false;
        }
    }
    return true;
}

int sl_http_store_search(struct sl_store *base, const struct sl_store_search *search,
                         sl_store_hits_cb *cb, void *ctx, struct sl_store_call **ret)
{
    struct sl_http_store *store = (struct sl_http_store *)base;
    if (search->vector != NULL ? !is_finite(search) : !store->kind->keyword) {
        return -SL_EINVAL;
    }
    struct call *call = calloc(1, sizeof(*call));
    if (call == NULL) {
        return -SL_ENOMEM;
    }
    *call = (struct call){.base.store = base,
                          .scope = search->scope,
                          .top_k = search->top_k,
                          .arena = search->arena,
                          .cb = cb,
                          .ctx = ctx};
    int rv = copy_scope(search->arena, &call->scope) ? start_call(call, search) : -SL_ENOMEM;
    if (rv != 0) {
        free(call);
        return rv;
    }
    store->calls++;
    *ret = &call->base;
    return 0;
}

void sl_http_store_cancel(struct sl_store_call *base)
{
    struct call *call = (struct call *)base;
    sl_upstream_cancel(call->upstream);
    destroy(call);
}

void sl_http_store_put_vector(struct sl_json_writer *w, const struct sl_store_search *search)
{
    sl_json_begin_array(w);
    for (size_t i = 0; i < search->dim; i++) {
        sl_json_put_float(w, search->vector[i]);
    }
    sl_json_end_array(w);
}

/* --- opening and closing --- */

void sl_http_store_close(struct sl_store *base)
{
    struct sl_http_store *store = (struct sl_http_store *)base;
    assert(store->calls == 0);
    sl_upstream_destroy(store->upstream);
    free(store->base);
    free(store->path);
    free(store);
}

/* "qdrant+http://host:6333/name" into "http://host:6333" and "name". */
static int split_url(const char *url, char **ret_base, const char **ret_name)
{
    const char *base = strchr(url, '+') + 1;
    const char *host = strstr(base, "://") + 3;
    const char *slash = strrchr(host, '/');
    const char *const name_bytes = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                                   "._-*,";
    if (slash == NULL || slash == host || slash[1] == '\0' ||
        slash[1 + strspn(slash + 1, name_bytes)] != '\0') {
        return -SL_EINVAL;
    }
    *ret_base = strndup(base, (size_t)(slash - base));
    *ret_name = slash + 1;
    return *ret_base != NULL ? 0 : -SL_ENOMEM;
}

static int fill_store(struct sl_http_store *store, const char *url, const struct sl_store_env *env)
{
    const char *name = NULL;
    int rv = split_url(url, &store->base, &name);
    if (rv != 0) {
        return rv;
    }
    size_t size = strlen(store->kind->path) + strlen(name) + 1;
    store->path = malloc(size);
    if (store->path == NULL) {
        return -SL_ENOMEM;
    }
    const char *gap = strstr(store->kind->path, "%s");
    snprintf(store->path, size, "%.*s%s%s", (int)(gap - store->kind->path), store->kind->path, name,
             gap + 2);
    store->config = (struct sl_upstream_config){
        .url = store->base,
        .model = "",
        .api_key = "",
        .connect_timeout_ms = env->timeout_ms,
        .first_byte_timeout_ms = env->timeout_ms,
        .idle_timeout_ms = env->timeout_ms,
        .timeout_ms = env->timeout_ms,
        .attempts = ATTEMPTS,
    };
    return sl_upstream_create(env->loop, env->http, env->coord, env->metrics, env->limit_name,
                              &store->config, &store->upstream);
}

int sl_http_store_open(const struct sl_http_store_kind *kind, const char *url,
                       const struct sl_store_env *env, struct sl_store **ret, char *why,
                       size_t why_size)
{
    if (!kind->keyword && strcmp(env->limit_name, "KEYWORD") == 0) {
        snprintf(why, why_size,
                 "a %s store searches by vector only: the keyword search needs "
                 "another store",
                 kind->backend->scheme);
        return -SL_EINVAL;
    }
    struct sl_http_store *store = calloc(1, sizeof(*store));
    if (store == NULL) {
        snprintf(why, why_size, "out of memory");
        return -SL_ENOMEM;
    }
    store->store.backend = kind->backend;
    store->kind = kind;
    int rv = fill_store(store, url, env);
    if (rv != 0) {
        snprintf(why, why_size, "%s",
                 rv == -SL_EINVAL ? "host, port and a name belong here, as in "
                                    "opensearch+http://127.0.0.1:9200/chunks"
                                  : sl_error_text(rv));
        sl_http_store_close(&store->store);
        return rv;
    }
    *ret = &store->store;
    return 0;
}
