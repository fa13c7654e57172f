/*
 * Stores: where chunks live and are searched. One small interface, one file a backend, chosen by
 * the scheme of its URL. Tenant and collection are part of every call and filtered inside the
 * index.
 */
#ifndef SLUICE_COMMON_STORE_H
#define SLUICE_COMMON_STORE_H

#include "common/arena.h"
#include "common/http_client.h"
#include "common/message.h"
#include "common/permit.h"

struct sl_store;
struct sl_store_call;

struct sl_store_env {
    struct sl_loop *loop;
    struct sl_http_client *http;
    struct sl_coord *coord;
    struct sl_metrics *metrics;
    const char *limit_name;      /* "VECTOR" or "KEYWORD": what its calls count against. */
    const char *sqlite_vec_path; /* SLUICE_SQLITE_VEC */
    long long timeout_ms;        /* Of one call at most. */
};

/* 0; -SL_EINVAL: the URL; -SL_EIO: cannot be opened; why says what. */
int sl_store_open(const char *url, const struct sl_store_env *env, struct sl_store **ret, char *why,
                  size_t why_size) SL_CHECKED;
void sl_store_close(struct sl_store *store); /* Its calls have ended. Takes NULL. */

struct sl_store_scope {
    struct sl_span tenant, collection;
    const struct sl_pair *filter; /* Equality on document metadata. */
    size_t filter_len;
};

/* Once. err 0 and hits best first (in the arena of the call), or -SL_E* and one line. */
typedef void sl_store_hits_cb(void *ctx, int err, struct sl_hit *hits, size_t len,
                              const char *detail);
/* err 0: written. */
typedef void sl_store_done_cb(void *ctx, int err, const char *detail);

struct sl_store_search {
    struct sl_store_scope scope;
    const float *vector; /* Vector search, dim numbers; NULL: keyword search for text. */
    size_t dim;
    struct sl_span text;
    uint32_t top_k;
    int64_t deadline_ms;      /* Redis's clock. */
    struct sl_permit *permit; /* As in upstream.h. */
    struct sl_arena *arena;   /* Where hits go; must outlive the call. */
};

/* Borrow the arguments until the callback (which never comes inside) or sl_store_cancel. */
int sl_store_search(struct sl_store *store, const struct sl_store_search *search,
                    sl_store_hits_cb *cb, void *ctx, struct sl_store_call **ret) SL_CHECKED;
/* Chunks of one document and version: batch->texts and vectors. The same key written twice stays
 * one. */
int sl_store_upsert(struct sl_store *store, const struct sl_batch *batch, int64_t deadline_ms,
                    sl_store_done_cb *cb, void *ctx, struct sl_store_call **ret) SL_CHECKED;
/* All chunks of a document with a version below this one. */
int sl_store_delete_below(struct sl_store *store, const struct sl_batch *document, int64_t version,
                          int64_t deadline_ms, sl_store_done_cb *cb, void *ctx,
                          struct sl_store_call **ret) SL_CHECKED;
void sl_store_cancel(struct sl_store_call *call); /* No callback comes; the permit is given back. */

/* The backend seam: what a file like store_sqlite.c offers. A backend's store begins with sl_store.
 */
struct sl_store_backend {
    const char *scheme; /* "sqlite", "qdrant+http" */
    int (*open)(const char *url, const struct sl_store_env *env, struct sl_store **ret, char *why,
                size_t why_size);
    void (*close)(struct sl_store *store);
    int (*search)(struct sl_store *store, const struct sl_store_search *search,
                  sl_store_hits_cb *cb, void *ctx, struct sl_store_call **ret);
    int (*upsert)(struct sl_store *store, const struct sl_batch *batch, int64_t deadline_ms,
                  sl_store_done_cb *cb, void *ctx,
                  struct sl_store_call **ret); /* NULL: search only. */
    int (*delete_below)(struct sl_store *store, const struct sl_batch *document, int64_t version,
                        int64_t deadline_ms, sl_store_done_cb *cb, void *ctx,
                        struct sl_store_call **ret);
    void (*cancel)(struct sl_store_call *call);
};

struct sl_store {
    const struct sl_store_backend *backend;
};
/* Each backend's call begins with this, so that sl_store_cancel finds the backend. */
struct sl_store_call {
    struct sl_store *store;
};

#endif
