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

struct sl_store_env { /* Copied; what it points to is borrowed while the store is open. */
    struct sl_loop *loop;
    struct sl_http_client *http;
    struct sl_coord *coord;
    struct sl_metrics *metrics;
    const char *limit_name; /* "VECTOR" or "KEYWORD", static: the searches that it is for, and the
                             * limit of the coord that each of them takes a permit of. */
    const char *sqlite_vec_path; /* SLUICE_SQLITE_VEC */
    long long dim;               /* SLUICE_EMBED_DIMENSIONS: of the model's vectors; 0: not told. A
                                  * store that holds others is refused by open. */
    const char *analyzer;        /* SLUICE_OPENSEARCH_ANALYZER, of an index that is made; NULL: the
                                  * default. */
    bool write;                  /* Upserts will come: what is missing of the index is made. */
    long long timeout_ms;        /* Of one call at most, the wait for its permit not counted. */
};

/* For start-up: may block for some milliseconds, or seconds where a server does not answer. 0;
 * -SL_EINVAL: the URL, a store that cannot do the searches that it is for, or cannot be written to;
 * -SL_EIO, -SL_EVERSION: cannot be opened; -SL_ENOMEM. why says what. */
int sl_store_open(const char *url, const struct sl_store_env *env, struct sl_store **ret, char *why,
                  size_t why_size) SL_CHECKED;
/* Its calls have ended or were cancelled. Not from one of its callbacks. Takes NULL. */
void sl_store_close(struct sl_store *store);
bool sl_store_writable(const struct sl_store *store); /* Whether it takes upserts and deletes. */

struct sl_store_scope {
    struct sl_span tenant, collection;
    const struct sl_pair *filter; /* Equality on document metadata. */
    size_t filter_len;
};

/* Once, last. err 0 and hits best first (in the arena of the search), or -SL_E*: -SL_EEXPIRED (the
 * deadline), -SL_ETIMEDOUT (timeout_ms), -SL_EAGAIN (too many calls wait here), -SL_ELOST (the
 * permit), -SL_EINVAL (a vector of the wrong length ...), what upstream.h and sqlite.h name.
 * detail: one line, never NULL. */
typedef void sl_store_hits_cb(void *ctx, int err, struct sl_hit *hits, size_t len,
                              const char *detail);
/* Once, last. err 0: written. Else some of it may be. */
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

/* Of the arguments only the permit and the arena are used after the call has returned. Callbacks
 * never come inside. Not 0: none comes, the permit is as it was. -SL_EINVAL: vector or text is what
 * this store cannot search for; -SL_ENOMEM. */
int sl_store_search(struct sl_store *store, const struct sl_store_search *search,
                    sl_store_hits_cb *cb, void *ctx, struct sl_store_call **ret) SL_CHECKED;
/* Chunks of one document and version: batch->texts and, unless NULL, vectors; what index and what
 * metadata each has say sl_batch_index and sl_batch_metadata. The same key (tenant, collection,
 * document, version, index) written twice stays one. -SL_EINVAL: the store is read-only
 * here; -SL_EAGAIN: too many calls wait here, try again when one has ended; -SL_ENOMEM. */
int sl_store_upsert(struct sl_store *store, const struct sl_batch *batch, int64_t deadline_ms,
                    sl_store_done_cb *cb, void *ctx, struct sl_store_call **ret) SL_CHECKED;
/* All chunks of a document with a version below this one. */
int sl_store_delete_below(struct sl_store *store, const struct sl_batch *document, int64_t version,
                          int64_t deadline_ms, sl_store_done_cb *cb, void *ctx,
                          struct sl_store_call **ret) SL_CHECKED;
/* All chunks of a document with exactly this version: one that failed or came too late. */
int sl_store_delete_version(struct sl_store *store, const struct sl_batch *document,
                            int64_t version, int64_t deadline_ms, sl_store_done_cb *cb, void *ctx,
                            struct sl_store_call **ret) SL_CHECKED;
/* How many numbers its vectors have, as known when it was opened or since; 0: not known. */
uint32_t sl_store_dim(const struct sl_store *store);
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
    /* As delete_below, of exactly one version. */
    int (*delete_version)(struct sl_store *store, const struct sl_batch *document, int64_t version,
                          int64_t deadline_ms, sl_store_done_cb *cb, void *ctx,
                          struct sl_store_call **ret);
    void (*cancel)(struct sl_store_call *call);
};

extern const struct sl_store_backend sl_store_sqlite, sl_store_redis, sl_store_qdrant,
    sl_store_opensearch;

struct sl_store {
    const struct sl_store_backend *backend;
    uint32_t dim; /* Set by the backend once it is known; 0 before. On the loop. */
};
/* Each backend's call begins with this, so that sl_store_cancel finds the backend. */
struct sl_store_call {
    struct sl_store *store;
};

#endif
