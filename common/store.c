/*
 * Which backend a store's address names, and the way to it. A new backend is a file of its own with
 * a struct sl_store_backend at its end, named in store.h and listed here.
 */
#include "common/store.h"

#include <assert.h>
#include <stdio.h>

static const struct sl_store_backend *const backends[] = {&sl_store_sqlite, &sl_store_redis,
                                                          &sl_store_qdrant, &sl_store_opensearch};

enum { BACKENDS = sizeof(backends) / sizeof(backends[0]) };

static const struct sl_store_backend *find_backend(struct sl_span url)
{
    for (size_t i = 0; i < BACKENDS; i++) {
        size_t len = strlen(backends[i]->scheme);
        if (sl_span_begins(url, backends[i]->scheme) &&
            sl_span_begins((struct sl_span){url.data + len, url.len - len}, "://")) {
            return backends[i];
        }
    }
    return NULL;
}

int sl_store_open(const char *url, const struct sl_store_env *env, struct sl_store **ret, char *why,
                  size_t why_size)
{
    const struct sl_store_backend *backend = find_backend(sl_span_of(url));
    if (backend == NULL) {
        /* The rest may hold a password. */
        snprintf(why, why_size, "%.*s: no store has this scheme", (int)strcspn(url, ":"), url);
        return -SL_EINVAL;
    }
    int rv = backend->open(url, env, ret, why, why_size);
    if (rv == 0) {
        assert((*ret)->backend == backend);
    }
    return rv;
}

void sl_store_close(struct sl_store *store)
{
    if (store != NULL) {
        store->backend->close(store);
    }
}

bool sl_store_writable(const struct sl_store *store)
{
    return store->backend->upsert != NULL;
}

int sl_store_search(struct sl_store *store, const struct sl_store_search *search,
                    sl_store_hits_cb *cb, void *ctx, struct sl_store_call **ret)
{
    return store->backend->search(store, search, cb, ctx, ret);
}

int sl_store_upsert(struct sl_store *store, const struct sl_batch *batch, int64_t deadline_ms,
                    sl_store_done_cb *cb, void *ctx, struct sl_store_call **ret)
{
    if (!sl_store_writable(store)) {
        return -SL_EINVAL;
    }
    return store->backend->upsert(store, batch, deadline_ms, cb, ctx, ret);
}

int sl_store_delete_below(struct sl_store *store, const struct sl_batch *document, int64_t version,
                          int64_t deadline_ms, sl_store_done_cb *cb, void *ctx,
                          struct sl_store_call **ret)
{
    if (!sl_store_writable(store)) {
        return -SL_EINVAL;
    }
    return store->backend->delete_below(store, document, version, deadline_ms, cb, ctx, ret);
}

int sl_store_delete_version(struct sl_store *store, const struct sl_batch *document,
                            int64_t version, int64_t deadline_ms, sl_store_done_cb *cb, void *ctx,
                            struct sl_store_call **ret)
{
    if (!sl_store_writable(store)) {
        return -SL_EINVAL;
    }
    return store->backend->delete_version(store, document, version, deadline_ms, cb, ctx, ret);
}

uint32_t sl_store_dim(const struct sl_store *store)
{
    return store->dim;
}

void sl_store_cancel(struct sl_store_call *call)
{
    call->store->backend->cancel(call);
}
