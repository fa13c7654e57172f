/* Writing to the stores: the vector store, and the keyword store where it is another one. */
#ifndef SLUICE_WORKERS_INGEST_WRITE_H
#define SLUICE_WORKERS_INGEST_WRITE_H

#include "common/backoff.h"
#include "common/store_options.h"

enum { INGEST_STORES = SL_STORE_ROLES };

struct ingest_stores {
    struct sl_loop *loop;
    struct sl_coord *coord;
    struct sl_store *store[INGEST_STORES]; /* [0] vectors and texts; [1] texts, or NULL. */
    uint64_t budget_ms;                    /* How long a write is tried. */
};

/* A member of its owner; zeroed is idle. One write at a time. */
struct ingest_write {
    /* Of write.c. */
    struct ingest_stores *stores;
    struct leg {
        struct ingest_write *write;
        struct sl_store_call *call;
        struct sl_timer retry;
        struct sl_backoff backoff;
        struct sl_batch batch; /* As this store takes it. */
        bool open;
    } legs[INGEST_STORES];
    enum ingest_write_kind { INGEST_UPSERT, INGEST_DELETE_BELOW, INGEST_DELETE_VERSION } kind;
    int64_t version; /* Of a delete. */
    uint64_t end_ms;
    int err;
    char detail[256];
    void (*on_done)(struct ingest_write *write, int err, const char *detail);
};

/* Puts the batch's chunks into all stores. It is borrowed until on_done, which comes later, once:
 * err 0, or the last error of a store that refused them, or that failed for the whole budget. */
void ingest_write_upsert(struct ingest_stores *stores, struct ingest_write *write,
                         const struct sl_batch *batch,
                         void (*on_done)(struct ingest_write *write, int err, const char *detail));
/* Deletes from all stores the chunks of the batch's document with lower versions. Likewise. */
void ingest_write_delete_below(struct ingest_stores *stores, struct ingest_write *write,
                               const struct sl_batch *batch, int64_t version,
                               void (*on_done)(struct ingest_write *write, int err,
                                               const char *detail));
/* Deletes from all stores the chunks of the batch's document with exactly this version. Likewise.
 */
void ingest_write_delete_version(struct ingest_stores *stores, struct ingest_write *write,
                                 const struct sl_batch *batch, int64_t version,
                                 void (*on_done)(struct ingest_write *write, int err,
                                                 const char *detail));
void ingest_write_cancel(struct ingest_write *write); /* Also when idle. */

#endif
