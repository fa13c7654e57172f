/*
 * Writes to a store over HTTP.
 *
 * An upsert: the batch is copied, its body written on the thread pool (256 chunks of 1536 numbers
 * take tens of milliseconds to print), the index looked at and made where it is not known to be
 * there (store_http_shape.c), the body sent. Where the server makes an index by itself for whatever
 * comes, one that was dropped comes back without our fields: when the batch was the first in what
 * took it, that is looked at before the write is called done. A deletion: the index looked at;
 * where the server deletes only what its searches see, a refresh; the deletion itself, again when
 * something changed under it. An index that is not there has nothing to delete.
 *
 * Each request has a permit of its own, as bulk work, and gives it back when it ends: a write that
 * waits holds none. What can go wrong: what upstream.h names; chunks that the server refuses
 * (-SL_EREJECTED) or has no room for now (-SL_ERATE); an index that cannot hold them or a vector
 * that nothing can be measured against (-SL_EINVAL); an index that vanished meanwhile
 * (-SL_EUPSTREAM: the next try makes it again).
 *
 * The pool's thread works on the call's copy and cannot be stopped: a call that is cancelled
 * meanwhile is only left behind, and goes when the thread is done with it.
 */
#include "common/store_backend.h"
#include "common/store_http_internal.h"

#include <stdio.h>
#include <stdlib.h>

enum { BATCH_MAX = 128 << 20, BODY_MAX = 96 << 20, CALLS_MAX = 64, DELETIONS = 5 };

struct write_call {
    struct http_store_call base;
    const struct sl_http_store_kind *kind; /* The thread does not look at the store. */
    bool upsert;
    struct sl_timer
        timer; /* Of a deletion: what fails at once must not be told inside its start. */
    struct sl_arena arena; /* Of the batch. */
    struct sl_batch batch;
    enum sl_http_deletion deletion;
    int64_t version, deadline_ms;
    sl_store_done_cb *cb;
    void *ctx;
    bool on_pool, cancelled;
    int body_err;
    struct sl_buf body;       /* Of an upsert. */
    struct sl_http_step step; /* The one that is out, of the shape's. */
    unsigned steps, tries;
    bool looked;  /* Because the batch does not fit what is remembered. */
    bool written; /* What is left to do is to look at what took it. */
    char detail[HTTP_STORE_DETAIL];
};

static void prepare(struct write_call *call);

/* --- the end --- */

static void destroy(struct write_call *call)
{
    sl_arena_fini(&call->arena);
    sl_buf_fini(&call->body);
    sl_buf_fini(&call->step.body);
    free(call);
}

static void leave(struct write_call *call)
{
    http_store_of(&call->base)->calls--;
    http_store_of(&call->base)->writes--;
}

static void end(struct write_call *call, int err, const char *detail)
{
    leave(call);
    call->cb(call->ctx, err, err == 0 ? "" : detail[0] != '\0' ? detail : sl_error_text(err));
    destroy(call);
}

static void cancel_write(struct http_store_call *base)
{
    struct write_call *call = (struct write_call *)base;
    leave(call);
    if (call->on_pool) {
        call->cancelled = true;
        return;
    }
    sl_timer_stop(http_store_of(base)->env.loop, &call->timer);
    if (base->upstream != NULL) {
        sl_upstream_cancel(base->upstream);
    }
    destroy(call);
}

static void send(struct write_call *call, const char *method, const char *path, struct sl_span body,
                 const struct sl_upstream_callbacks *callbacks)
{
    const struct http_store_send request = {.method = method,
                                            .path = path,
                                            .body = body,
                                            .bulk = true,
                                            .deadline_ms = call->deadline_ms,
                                            .callbacks = callbacks};
    int rv = http_store_send(&call->base, &request);
    if (rv != 0) {
        end(call, rv, "");
    }
}

/* What the server said about the index is not true any more. */
static bool has_vanished(struct write_call *call, int err, int status, struct sl_span body)
{
    struct sl_http_store *store = http_store_of(&call->base);
    if (!http_store_is_missing(store, err, status, body)) {
        return false;
    }
    store->shape.known = false;
    return true;
}

/* Of an answer of 2xx, by the backend's reader. */
static int read_answer(struct write_call *call, struct sl_span body)
{
    const struct sl_http_store_kind *kind = call->kind;
    struct sl_json_doc *doc = NULL;
    char *why = call->detail;
    int rv = http_store_parse(body, &doc, why, sizeof(call->detail));
    if (rv == 0) {
        const struct sl_json *root = sl_json_root(doc);
        rv = call->upsert ? kind->read_upsert(root, call->batch.len, why, sizeof(call->detail))
                          : kind->read_delete(root, why, sizeof(call->detail));
        sl_json_free(doc);
    }
    return rv;
}

/* --- deleting --- */

static void refresh(struct write_call *call);

static void on_deleted(void *ctx, int err, int status, struct sl_span body, const char *detail,
                       uint32_t attempts)
{
    struct write_call *call = ctx;
    (void)attempts;
    call->base.upstream = NULL;
    if (has_vanished(call, err, status, body)) {
        end(call, 0, "");
        return;
    }
    if (err != 0) {
        end(call, err, detail);
        return;
    }
    int rv = read_answer(call, body);
    if (rv == -SL_EAGAIN && ++call->tries < DELETIONS) {
        refresh(call);
    } else {
        end(call, rv, call->detail);
    }
}

static const struct sl_upstream_callbacks delete_callbacks = {.on_end = on_deleted};

static void delete_chunks(struct write_call *call)
{
    const struct sl_http_store_kind *kind = call->kind;
    struct sl_json_writer w = {.out = &call->body};
    sl_buf_clear(&call->body);
    kind->write_delete(&w, &call->batch, call->version, call->deletion);
    int rv = sl_buf_error(&call->body);
    if (rv != 0) {
        end(call, rv, "");
    } else {
        send(call, "POST", kind->delete_path, sl_buf_span(&call->body), &delete_callbacks);
    }
}

static void on_refreshed(void *ctx, int err, int status, struct sl_span body, const char *detail,
                         uint32_t attempts)
{
    struct write_call *call = ctx;
    (void)attempts;
    call->base.upstream = NULL;
    if (has_vanished(call, err, status, body)) {
        end(call, 0, "");
    } else if (err != 0) {
        end(call, err, detail);
    } else {
        delete_chunks(call);
    }
}

static const struct sl_upstream_callbacks refresh_callbacks = {.on_end = on_refreshed};

static void refresh(struct write_call *call)
{
    const char *path = call->kind->refresh_path;
    if (path == NULL) {
        delete_chunks(call);
    } else {
        send(call, "POST", path, SL_SPAN(""), &refresh_callbacks);
    }
}

/* --- upserting --- */

/* The batch is in something. What was made since it was last looked at need not be of our making.
 */
static void on_answer(struct write_call *call, int rv)
{
    struct sl_http_store *store = http_store_of(&call->base);
    bool is_first = rv == SL_HTTP_WRITTEN_FIRST;
    if (rv == -SL_EUPSTREAM || is_first) {
        store->shape.known = false; /* It may have vanished. */
    }
    if (is_first) {
        call->written = true;
        prepare(call);
    } else {
        end(call, rv, call->detail);
    }
}

static void on_upserted(void *ctx, int err, int status, struct sl_span body, const char *detail,
                        uint32_t attempts)
{
    struct write_call *call = ctx;
    (void)attempts;
    call->base.upstream = NULL;
    if (has_vanished(call, err, status, body)) {
        end(call, -SL_EUPSTREAM, detail);
    } else if (err != 0) {
        end(call, err, detail);
    } else {
        on_answer(call, read_answer(call, body));
    }
}

static const struct sl_upstream_callbacks upsert_callbacks = {.on_end = on_upserted};

static void go_on(struct write_call *call)
{
    const struct sl_http_store *store = http_store_of(&call->base);
    if (call->written) {
        end(call, 0, "");
    } else if (call->upsert) {
        send(call, call->kind->upsert_method, call->kind->upsert_path, sl_buf_span(&call->body),
             &upsert_callbacks);
    } else if (!store->shape.exists) {
        end(call, 0, "");
    } else {
        refresh(call);
    }
}

/* --- the index --- */

static void on_prepared(void *ctx, int err, int status, struct sl_span body, const char *detail,
                        uint32_t attempts)
{
    struct write_call *call = ctx;
    (void)attempts;
    call->base.upstream = NULL;
    err = http_shape_take(http_store_of(&call->base), &call->step, err, status, body, detail,
                          call->detail, sizeof(call->detail));
    sl_buf_fini(&call->step.body);
    if (err != 0) {
        end(call, err, call->detail);
    } else {
        prepare(call);
    }
}

static const struct sl_upstream_callbacks prepare_callbacks = {.on_end = on_prepared};

/* An index that was made again may have another length than the one that is remembered, or be fit
 * where that was not. */
static void forget_misfit(struct write_call *call)
{
    struct sl_http_shape *shape = &http_store_of(&call->base)->shape;
    bool other = call->batch.dim != 0 && shape->dim != 0 && shape->dim != call->batch.dim;
    if (!call->looked && (other || shape->unfit[0] != '\0')) {
        shape->known = false;
    }
    call->looked = true;
}

static void prepare(struct write_call *call)
{
    struct sl_http_store *store = http_store_of(&call->base);
    forget_misfit(call);
    if (call->written && store->shape.known && !store->shape.exists) {
        store->shape.known = false;
        end(call, -SL_EUPSTREAM, "what took the chunks has vanished");
        return;
    }
    int rv = http_shape_next(store, call->upsert ? HTTP_SHAPE_UPSERT : HTTP_SHAPE_DELETE,
                             call->batch.dim, &call->step, call->detail, sizeof(call->detail));
    if (rv < 0) {
        end(call, rv, call->detail);
    } else if (rv == 0) {
        go_on(call);
    } else if (++call->steps > HTTP_SHAPE_STEPS) {
        end(call, -SL_EUPSTREAM, "what was made is not there");
    } else {
        send(call, call->step.method, call->step.path, sl_buf_span(&call->step.body),
             &prepare_callbacks);
    }
}

/* --- the body --- */

/* On a thread of the pool. */
static void write_body(void *ctx)
{
    struct write_call *call = ctx;
    const struct sl_batch *batch = &call->batch;
    for (size_t i = 0; batch->vectors != NULL && i < batch->len; i++) {
        if (!sl_store_has_direction(batch->vectors + i * batch->dim, batch->dim)) {
            snprintf(call->detail, sizeof(call->detail),
                     "the vector of chunk %u is zero or not finite", sl_batch_index(batch, i));
            call->body_err = -SL_EINVAL;
            return;
        }
    }
    call->kind->write_upsert(&call->body, batch);
    call->body_err = sl_buf_error(&call->body);
}

static void on_body(void *ctx)
{
    struct write_call *call = ctx;
    call->on_pool = false;
    if (call->cancelled) {
        destroy(call);
    } else if (call->body_err != 0) {
        end(call, call->body_err, call->detail);
    } else {
        prepare(call);
    }
}

/* --- the start --- */

static struct write_call *create(struct sl_store *store, const struct sl_batch *batch,
                                 int64_t deadline_ms, sl_store_done_cb *cb, void *ctx)
{
    struct write_call *call = calloc(1, sizeof(*call));
    if (call != NULL) {
        call->base = (struct http_store_call){.base.store = store, .cancel = cancel_write};
        call->kind = ((struct sl_http_store *)store)->kind;
        call->batch = *batch;
        call->deadline_ms = deadline_ms;
        call->cb = cb;
        call->ctx = ctx;
        sl_arena_init(&call->arena, BATCH_MAX);
        sl_buf_init(&call->body, BODY_MAX);
    }
    return call;
}

static void enter(struct write_call *call, struct sl_store_call **ret)
{
    http_store_of(&call->base)->calls++;
    http_store_of(&call->base)->writes++;
    *ret = &call->base.base;
}

static bool is_full(const struct sl_store *store)
{
    return ((const struct sl_http_store *)store)->writes >= CALLS_MAX;
}

int sl_http_store_upsert(struct sl_store *base, const struct sl_batch *batch, int64_t deadline_ms,
                         sl_store_done_cb *cb, void *ctx, struct sl_store_call **ret)
{
    struct sl_http_store *store = (struct sl_http_store *)base;
    if (batch->vectors == NULL && !store->kind->keyword) {
        return -SL_EINVAL;
    }
    if (is_full(base)) {
        return -SL_EAGAIN;
    }
    struct write_call *call = create(base, batch, deadline_ms, cb, ctx);
    if (call == NULL) {
        return -SL_ENOMEM;
    }
    call->upsert = true;
    call->batch.dim = batch->vectors != NULL ? batch->dim : 0;
    int rv = sl_store_copy_batch(&call->arena, &call->batch);
    rv = rv != 0 ? rv : sl_work_submit(store->env.loop, write_body, on_body, call);
    if (rv != 0) {
        destroy(call);
        return rv;
    }
    call->on_pool = true;
    enter(call, ret);
    return 0;
}

static void on_begin(struct sl_timer *timer)
{
    prepare(SL_ITEM(timer, struct write_call, timer));
}

static int start_deletion(struct sl_store *base, const struct sl_batch *document, int64_t version,
                          enum sl_http_deletion deletion, int64_t deadline_ms, sl_store_done_cb *cb,
                          void *ctx, struct sl_store_call **ret)
{
    if (is_full(base)) {
        return -SL_EAGAIN;
    }
    struct write_call *call = create(base, document, deadline_ms, cb, ctx);
    if (call == NULL) {
        return -SL_ENOMEM;
    }
    if (sl_store_copy_document(&call->arena, document, &call->batch) != 0) {
        destroy(call);
        return -SL_ENOMEM;
    }
    call->version = version;
    call->deletion = deletion;
    enter(call, ret);
    sl_timer_start(http_store_of(&call->base)->env.loop, &call->timer, 0, on_begin);
    return 0;
}

int sl_http_store_delete_below(struct sl_store *store, const struct sl_batch *document,
                               int64_t version, int64_t deadline_ms, sl_store_done_cb *cb,
                               void *ctx, struct sl_store_call **ret)
{
    return start_deletion(store, document, version, SL_HTTP_DELETE_BELOW, deadline_ms, cb, ctx,
                          ret);
}

int sl_http_store_delete_version(struct sl_store *store, const struct sl_batch *document,
                                 int64_t version, int64_t deadline_ms, sl_store_done_cb *cb,
                                 void *ctx, struct sl_store_call **ret)
{
    return start_deletion(store, document, version, SL_HTTP_DELETE_VERSION, deadline_ms, cb, ctx,
                          ret);
}
