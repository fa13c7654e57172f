/*
 * What is known of the index behind an HTTP store, and how it comes to be what writing needs.
 *
 * It is a sequence of small requests whose next one follows from what is known: look; make what is
 * missing; look again, because another process may have made it meanwhile, or somebody may have
 * made it otherwise. The same sequence runs at two times: when the store is opened, where this
 * thread waits for it, so that a program that cannot do its work says so at once; and before a
 * write where it is not settled yet, because the server was away then, or because the vectors'
 * length is known only now.
 *
 * What can go wrong: the index cannot hold chunks, or holds vectors of another length (-SL_EINVAL);
 * the server refuses to make it (the same, with its words); it does not answer: at start-up that is
 * left for later, before a write it is the write's error.
 */
#include "common/store_backend.h"
#include "common/store_http_internal.h"

#include <stdio.h>
#include <stdlib.h>

enum { OPEN_TIMEOUT_MS = 3000, OPEN_ANSWER_MAX = 4 << 20, OPEN_TURN_MS = 100, REASON_MAX = 160 };

/* --- the sequence --- */

int http_shape_next(struct sl_http_store *store, enum http_shape_use use, uint32_t dim,
                    struct sl_http_step *ret, char *why, size_t why_size)
{
    const struct sl_http_shape *shape = &store->shape;
    struct sl_http_step step = {.method = "GET", .path = store->kind->look_path};
    if (shape->known && shape->unfit[0] != '\0' && use != HTTP_SHAPE_SEARCH) {
        snprintf(why, why_size, "the %s %s cannot be written to: %s", store->kind->noun,
                 store->name, shape->unfit);
        return -SL_EINVAL;
    }
    if (shape->known && sl_store_check_dim(&store->store, dim, why, why_size) != 0) {
        return -SL_EINVAL;
    }
    sl_buf_init(&step.body, OPEN_ANSWER_MAX);
    if (shape->known &&
        (use != HTTP_SHAPE_UPSERT || !store->kind->make(shape, &store->env, dim, &step))) {
        return 0;
    }
    int rv = sl_buf_error(&step.body);
    if (rv != 0) {
        sl_buf_fini(&step.body);
        snprintf(why, why_size, "%s", sl_error_text(rv));
        return rv;
    }
    *ret = step;
    return 1;
}

/* --- the answers --- */

/* What is made may have the same path. */
static bool is_look(const struct sl_http_step *step)
{
    return strcmp(step->method, "GET") == 0;
}

static int take_look(struct sl_http_store *store, struct sl_span body, char *why, size_t why_size)
{
    struct sl_json_doc *doc = NULL;
    struct sl_http_shape shape = {.known = true, .exists = true};
    char reason[REASON_MAX] = "";
    int rv = http_store_parse(body, &doc, reason, sizeof(reason));
    if (rv == 0) {
        rv = store->kind->read_shape(sl_json_root(doc), &shape, reason, sizeof(reason));
        sl_json_free(doc);
    }
    if (rv != 0) {
        snprintf(why, why_size, "the answer about the %s cannot be used: %s", store->kind->noun,
                 reason[0] != '\0' ? reason : sl_error_text(rv));
        return rv;
    }
    if (shape.unfit[0] == '\0' && strpbrk(store->name, "*,") != NULL) {
        snprintf(shape.unfit, sizeof(shape.unfit), "this name stands for several");
    }
    store->shape = shape;
    store->store.dim = shape.dim;
    return 0;
}

static bool says(struct sl_span body, const char *text)
{
    return memmem(body.data, body.len, text, strlen(text)) != NULL;
}

int http_shape_take(struct sl_http_store *store, const struct sl_http_step *step, int err,
                    int status, struct sl_span body, const char *detail, char *why, size_t why_size)
{
    if (err == 0 && is_look(step)) {
        return take_look(store, body, why, why_size);
    }
    if (is_look(step) && http_store_is_missing(store, err, status, body)) {
        store->shape = (struct sl_http_shape){.known = true};
        store->store.dim = 0;
        return 0;
    }
    store->shape.known = false;
    if (err == 0 || (err == -SL_EREJECTED && says(body, "already exists"))) {
        return 0;
    }
    snprintf(why, why_size, "%s", detail);
    return err == -SL_EREJECTED && !is_look(step) ? -SL_EINVAL : err;
}

/* --- at start-up, waiting --- */

struct asking {
    struct sl_http_store *store;
    const struct sl_http_step *step;
    bool ended;
    int rv;
    char *why;
    size_t why_size;
};

static int status_error(int status)
{
    bool whole = status >= 200 && status < 300;
    return whole                                             ? 0
           : status == 429 || status == 408 || status >= 500 ? -SL_EUPSTREAM
                                                             : -SL_EREJECTED;
}

static void on_answer(void *ctx, int err, const struct sl_http_response *response,
                      struct sl_span body, const char *detail)
{
    struct asking *asking = ctx;
    char text[HTTP_STORE_DETAIL];
    if (err == 0) {
        err = status_error(response->status);
        snprintf(text, sizeof(text), "it answers %d: %.*s", response->status,
                 (int)(body.len < REASON_MAX ? body.len : REASON_MAX), body.data);
        detail = text;
    }
    asking->rv = http_shape_take(asking->store, asking->step, err, response->status, body, detail,
                                 asking->why, asking->why_size);
    asking->ended = true;
}

static const struct sl_http_callbacks answer_callbacks = {.on_end = on_answer};

/* One request, on a loop of its own: nothing else of this process runs meanwhile. */
static int ask(struct sl_http_store *store, struct sl_loop *loop, struct sl_http_client *http,
               const struct sl_http_step *step, char *why, size_t why_size)
{
    struct asking asking = {.store = store, .step = step, .why = why, .why_size = why_size};
    const struct sl_http_header headers[] = {
        {SL_SPAN("Content-Type"), SL_SPAN("application/json")},
        {SL_SPAN("Accept"), SL_SPAN("application/json")},
    };
    char path[HTTP_STORE_PATH];
    char *url = NULL;
    struct sl_http_call *call = NULL;
    http_store_path(store, step->path, path);
    if (asprintf(&url, "%s%s", store->base, path) < 0) {
        return -SL_ENOMEM;
    }
    const struct sl_http_request request = {.method = step->method,
                                            .url = url,
                                            .headers = headers,
                                            .header_count = 2,
                                            .body = sl_buf_span(&step->body),
                                            .total_timeout_ms = OPEN_TIMEOUT_MS,
                                            .max_body = OPEN_ANSWER_MAX,
                                            .callbacks = &answer_callbacks,
                                            .ctx = &asking};
    int rv = sl_http_start(http, &request, &call);
    while (rv == 0 && !asking.ended) {
        sl_loop_turn(loop, OPEN_TURN_MS);
    }
    free(url);
    return rv != 0 ? rv : asking.rv;
}

/* One sequence; a step that cannot be asked now ends it as if all were well. */
static int settle(struct sl_http_store *store, struct sl_loop *loop, struct sl_http_client *http,
                  char *why, size_t why_size)
{
    const struct sl_store_env *env = &store->env;
    enum http_shape_use use = env->write ? HTTP_SHAPE_UPSERT : HTTP_SHAPE_SEARCH;
    struct sl_http_step step;
    int rv = 1;
    for (int i = 0; i < HTTP_SHAPE_STEPS && rv == 1; i++) {
        rv = http_shape_next(store, use, (uint32_t)env->dim, &step, why, why_size);
        if (rv == 1) {
            int err = ask(store, loop, http, &step, why, why_size);
            sl_buf_fini(&step.body);
            rv = err == 0 ? 1 : err;
        }
    }
    if (rv == 1 || rv == -SL_ECONN || rv == -SL_ETIMEDOUT || rv == -SL_EUPSTREAM ||
        rv == -SL_ECUT) {
        why[0] = '\0';
        return 0; /* Later. */
    }
    return rv == -SL_EREJECTED || rv == -SL_EPROTO ? -SL_EIO : rv;
}

int http_shape_open(struct sl_http_store *store, char *why, size_t why_size)
{
    const struct sl_http_client_config config = {.max_connections = 1};
    struct sl_http_client *http = NULL;
    struct sl_loop *loop = NULL;
    int rv = sl_loop_create(&loop);
    if (rv == 0) {
        rv = sl_http_client_create(loop, &config, &http);
        rv = rv != 0 ? rv : settle(store, loop, http, why, why_size);
        sl_http_client_destroy(http);
        sl_loop_destroy(loop);
    }
    return rv;
}
