/* The hash that says whether a document is unchanged: over its text and metadata, and over all else
 * that what is stored of it depends on. */
#ifndef SLUICE_WORKERS_INGEST_HASH_H
#define SLUICE_WORKERS_INGEST_HASH_H

#include "common/digest.h"
#include "common/loop.h"
#include "common/message.h"

enum { INGEST_HASH_HEX = 2 * SL_DIGEST_SIZE };

struct ingest_hasher {
    struct sl_loop *loop;
    /* What it depends on besides the document: the chunker's settings, the model of the vectors,
     * and the stores, since in another store it is not there yet. Borrowed. */
    struct sl_span settings;
};

/* A member of its owner; zeroed is idle. One at a time. */
struct ingest_hash {
    char hex[INGEST_HASH_HEX + 1];
    void (*on_hash)(struct ingest_hash *hash);
    struct ingest_hashing *running; /* Of hash.c. */
    struct sl_task task;
};

/* on_hash comes later, once, with hex. The document is borrowed only for the call. */
void ingest_hash_start(const struct ingest_hasher *hasher, struct ingest_hash *hash,
                       const struct sl_document *document,
                       void (*on_hash)(struct ingest_hash *hash));
void ingest_hash_cancel(struct ingest_hash *hash); /* Also when idle. */

#endif
