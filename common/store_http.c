/*
 * Stores over HTTP: opening one, and searches in it. A search is one call to an upstream
 * (upstream.c has the permit, the time-outs, the retry), whose JSON answer is read into the
 * caller's arena (store_http_hits.c). Writes are in store_http_write.c, what is known of the index
 * and how it is made in store_http_shape.c.
 *
 * What can go wrong with a search: what upstream.h names, and an answer that cannot be used. An
 * index that is not there yet has no hits. One that refuses a vector is asked what it holds, so
 * that another embedding model is told as what it is.
 */
#include "common/store_http_internal.h"

#include "common/log.h"
#include "common/store_backend.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

enum { BODY_MAX = 4 << 20, ATTEMPTS = 2, NAME_MAX_BYTES = 255 };

struct search_call {
    struct http_store_call base;
    struct sl_store_search search; /* Its scope in the arena; without vector, text and permit. */
    bool by_vector;
    sl_store_hits_cb *cb;
    void *ctx;
    int err; /* Of a search that was refused, while the index is looked at. */
    char detail[HTTP_STORE_DETAIL];
};

/* --- what the files share --- */

void http_store_path(const struct sl_http_store *store, const char *path, char ret[HTTP_STORE_PATH])
{
    const char *gap = strstr(path, "%s");
    assert(gap != NULL);
    snprintf(ret, HTTP_STORE_PATH, "%.*s%s%s", (int)(gap - path), path, store->name, gap + 2);
}

int http_store_send(struct http_store_call *call, const struct http_store_send *send)
{
    struct sl_http_store *store = http_store_of(call);
    char path[HTTP_STORE_PATH];
    http_store_path(store, send->path, path);
    const struct sl_upstream_request request = {
        .method = send->method,
        .path = path,
        .body = send->body,
        .max_response = HTTP_STORE_ANSWER_MAX,
        .bulk = send->bulk,
        .deadline_ms = send->deadline_ms,
        .permit = send->permit,
        .callbacks = send->callbacks,
        .ctx = call,
    };
    return sl_upstream_start(store->upstream, &request, &call->upstream);
}

int http_store_parse(struct sl_span body, struct sl_json_doc **ret, char *why, size_t why_size)
{
    int rv = sl_json_parse(body, ret, why, why_size);
    return rv == -SL_EBADMSG ? -SL_EPROTO : rv;
}

bool http_store_is_missing(const struct sl_http_store *store, int err, int status,
                           struct sl_span body)
{
    struct sl_json_doc *doc = NULL;
    if (err != -SL_EREJECTED || status != 404 || sl_json_parse(body, &doc, NULL, 0) != 0) {
        return false;
    }
    bool missing = store->kind->is_missing(sl_json_root(doc));
    sl_json_free(doc);
    return missing;
}

/* --- the end of a search --- */

static void destroy(struct search_call *call)
{
    http_store_of(&call->base)->calls--;
    free(call);
}

static void end(struct search_call *call, int err, struct sl_hit *hits, size_t len,
                const char *detail)
{
    call->cb(call->ctx, err, err == 0 ? hits : NULL, err == 0 ? len : 0, err == 0 ? "" : detail);
    destroy(call);
}

static void end_without_index(struct search_call *call)
{
    struct sl_http_store *store = http_store_of(&call->base);
    if (!store->told_missing) {
        sl_log(SL_LOG_WARN, "nothing is found before something is stored",
               SL_STR("missing", store->kind->noun), SL_STR("name", store->name));
        store->told_missing = true;
    }
    end(call, 0, NULL, 0, "");
}

static void end_with_answer(struct search_call *call, struct sl_span body)
{
    struct sl_hit *hits = NULL;
    size_t len = 0;
    char why[HTTP_STORE_DETAIL - 40] = "";
    char text[HTTP_STORE_DETAIL] = "";
    int err = http_hits_read(http_store_of(&call->base)->kind, &call->search, body, &hits, &len,
                             why, sizeof(why));
    if (err != 0) {
        snprintf(text, sizeof(text), "the answer cannot be used: %s",
                 why[0] != '\0' ? why : sl_error_text(err));
    }
    end(call, err, hits, len, text);
}

/* --- why a vector was refused --- */

static void on_looked(void *ctx, int err, int status, struct sl_span body, const char *detail,
                      uint32_t attempts)
{
    struct search_call *call = ctx;
    struct sl_http_store *store = http_store_of(&call->base);
    const struct sl_http_step look = {.method = "GET", .path = store->kind->look_path};
    char why[HTTP_STORE_DETAIL] = "";
    (void)attempts;
    err = http_shape_take(store, &look, err, status, body, detail, why, sizeof(why));
    if (err != 0 || !store->shape.exists) {
        end(call, call->err, NULL, 0, call->detail);
    } else if (store->shape.dim == 0 && store->shape.unfit[0] == '\0' &&
               store->shape.missing == 0) {
        end(call, 0, NULL, 0, ""); /* Of our making, and no vector came yet. */
    } else if (sl_store_check_dim(&store->store, (long long)call->search.dim, why, sizeof(why)) !=
               0) {
        end(call, -SL_EINVAL, NULL, 0, why);
    } else {
        end(call, call->err, NULL, 0, call->detail);
    }
}

static const struct sl_upstream_callbacks look_callbacks = {.on_end = on_looked};

static void look(struct search_call *call, int err, const char *detail)
{
    struct sl_http_store *store = http_store_of(&call->base);
    const struct http_store_send request = {.method = "GET",
                                            .path = store->kind->look_path,
                                            .deadline_ms = call->search.deadline_ms,
                                            .callbacks = &look_callbacks};
    call->err = err;
    snprintf(call->detail, sizeof(call->detail), "%s", detail);
    store->shape.known = false;
    if (http_store_send(&call->base, &request) != 0) {
        end(call, call->err, NULL, 0, call->detail);
    }
}

static void on_end(void *ctx, int err, int status, struct sl_span body, const char *detail,
                   uint32_t attempts)
{
    struct search_call *call = ctx;
    (void)attempts;
    call->base.upstream = NULL;
    if (err == 0) {
        end_with_answer(call, body);
    } else if (http_store_is_missing(http_store_of(&call->base), err, status, body)) {
        end_without_index(call);
    } else if (err == -SL_EREJECTED && status == 400 && call->by_vector) {
        look(call, err, detail);
    } else {
        end(call, err, NULL, 0, detail);
    }
}

static const struct sl_upstream_callbacks callbacks = {.on_end = on_end};

/* --- the start of a search --- */

static int start_call(struct search_call *call, const struct sl_store_search *search)
{
    struct sl_http_store *store = http_store_of(&call->base);
    struct sl_buf body;
    struct sl_json_writer w = {.out = &body};
    sl_buf_init(&body, BODY_MAX);
    store->kind->write_body(&w, search);
    const struct http_store_send request = {.method = "POST",
                                            .path = store->kind->path,
                                            .body = sl_buf_span(&body),
                                            .permit = search->permit,
                                            .deadline_ms = search->deadline_ms,
                                            .callbacks = &callbacks};
    int rv = sl_buf_error(&body);
    rv = rv != 0 ? rv : http_store_send(&call->base, &request);
    sl_buf_fini(&body);
    return rv;
}

static void cancel_search(struct http_store_call *base)
{
    struct search_call *call = (struct search_call *)base;
    sl_upstream_cancel(base->upstream);
    destroy(call);
}

int sl_http_store_search(struct sl_store *base, const struct sl_store_search *search,
                         sl_store_hits_cb *cb, void *ctx, struct sl_store_call **ret)
{
    struct sl_http_store *store = (struct sl_http_store *)base;
    if (search->vector != NULL ? !sl_store_has_direction(search->vector, search->dim)
                               : !store->kind->keyword) {
        return -SL_EINVAL;
    }
    struct search_call *call = calloc(1, sizeof(*call));
    if (call == NULL) {
        return -SL_ENOMEM;
    }
    *call = (struct search_call){
        .base = {.base.store = base, .cancel = cancel_search},
        .search = {.scope = search->scope,
                   .dim = search->dim,
                   .top_k = search->top_k,
                   .deadline_ms = search->deadline_ms,
                   .arena = search->arena},
        .by_vector = search->vector != NULL,
        .cb = cb,
        .ctx = ctx,
    };
    int rv = sl_store_copy_search(search->arena, &call->search);
    rv = rv != 0 ? rv : start_call(call, search);
    if (rv != 0) {
        free(call);
        return rv;
    }
    store->calls++;
    *ret = &call->base.base;
    return 0;
}

void sl_http_store_cancel(struct sl_store_call *base)
{
    struct http_store_call *call = (struct http_store_call *)base;
    call->cancel(call);
}

/* --- opening and closing --- */

void sl_http_store_close(struct sl_store *base)
{
    struct sl_http_store *store = (struct sl_http_store *)base;
    assert(store->calls == 0);
    sl_upstream_destroy(store->upstream);
    free(store->base);
    free(store->name);
    free(store);
}

/* "qdrant+http://host:6333/name" into "http://host:6333" and "name". */
static int split_url(const char *url, char **ret_base, char **ret_name)
{
    const char *base = strchr(url, '+') + 1;
    const char *host = strstr(base, "://") + 3;
    const char *slash = strrchr(host, '/');
    const char *const name_bytes = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                                   "._-*,";
    if (slash == NULL || slash == host || slash[1] == '\0' || strlen(slash + 1) > NAME_MAX_BYTES ||
        slash[1 + strspn(slash + 1, name_bytes)] != '\0') {
        return -SL_EINVAL;
    }
    *ret_base = strndup(base, (size_t)(slash - base));
    *ret_name = strdup(slash + 1);
    return *ret_base != NULL && *ret_name != NULL ? 0 : -SL_ENOMEM;
}

static int fill_store(struct sl_http_store *store, const char *url)
{
    const struct sl_store_env *env = &store->env;
    int rv = split_url(url, &store->base, &store->name);
    if (rv != 0) {
        return rv;
    }
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
    store->env = *env;
    if (strcmp(env->limit_name, "KEYWORD") == 0) {
        store->env.dim = 0; /* What vectors it holds besides is nobody's concern. */
    }
    int rv = fill_store(store, url);
    if (rv != 0) {
        snprintf(why, why_size, "%s",
                 rv == -SL_EINVAL ? "host, port and a name belong here, as in "
                                    "opensearch+http://127.0.0.1:9200/chunks"
                                  : sl_error_text(rv));
    } else if (env->write || store->env.dim > 0) {
        rv = http_shape_open(store, why, why_size);
    }
    if (rv != 0) {
        sl_http_store_close(&store->store);
        return rv;
    }
    *ret = &store->store;
    return 0;
}
