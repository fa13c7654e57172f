/*
 * Documents are hashed with BLAKE2b-256 (digest.h): a small one at once, a large one on the thread
 * pool, since that takes longer than the loop may wait.
 *
 * The pool's thread works on a copy and cannot be stopped: a hash that is cancelled leaves the copy
 * behind, which goes when the thread is done with it. Where there is no memory for a copy, the loop
 * waits.
 */
#include "workers/ingest/hash.h"

#include <stdio.h>
#include <stdlib.h>

enum { AT_ONCE = 64 << 10, PARTS = 3 };

struct ingest_hashing {
    struct ingest_hash *hash; /* NULL: cancelled. */
    struct sl_span parts[PARTS];
    char hex[INGEST_HASH_HEX + 1];
    char bytes[];
};

static void write_hash(const struct sl_span parts[PARTS], char hex[INGEST_HASH_HEX + 1])
{
    unsigned char digest[SL_DIGEST_SIZE];
    sl_digest(parts, PARTS, digest);
    for (size_t i = 0; i < SL_DIGEST_SIZE; i++) {
        snprintf(hex + 2 * i, 3, "%02x", digest[i]);
    }
}

static void work(void *ctx)
{
    struct ingest_hashing *hashing = ctx;
    write_hash(hashing->parts, hashing->hex);
}

static void on_work_done(void *ctx)
{
    struct ingest_hashing *hashing = ctx;
    struct ingest_hash *hash = hashing->hash;
    if (hash != NULL) {
        memcpy(hash->hex, hashing->hex, sizeof(hash->hex));
        hash->running = NULL;
    }
    free(hashing);
    if (hash != NULL) {
        hash->on_hash(hash);
    }
}

static void on_task(struct sl_task *task)
{
    struct ingest_hash *hash = SL_ITEM(task, struct ingest_hash, task);
    hash->on_hash(hash);
}

static int start_on_pool(const struct ingest_hasher *hasher, struct ingest_hash *hash,
                         const struct sl_span parts[PARTS])
{
    size_t len = 0;
    for (size_t i = 0; i < PARTS; i++) {
        len += parts[i].len;
    }
    struct ingest_hashing *hashing = malloc(sizeof(*hashing) + len);
    if (hashing == NULL) {
        return -SL_ENOMEM;
    }
    char *at = hashing->bytes;
    hashing->hash = hash;
    for (size_t i = 0; i < PARTS; i++) {
        hashing->parts[i] = (struct sl_span){at, parts[i].len};
        if (parts[i].len > 0) {
            memcpy(at, parts[i].data, parts[i].len);
        }
        at += parts[i].len;
    }
    int rv = sl_work_submit(hasher->loop, work, on_work_done, hashing);
    if (rv != 0) {
        free(hashing);
        return rv;
    }
    hash->running = hashing;
    return 0;
}

void ingest_hash_start(const struct ingest_hasher *hasher, struct ingest_hash *hash,
                       const struct sl_document *document,
                       void (*on_hash)(struct ingest_hash *hash))
{
    const struct sl_span parts[PARTS] = {document->text, document->metadata, hasher->settings};
    hash->on_hash = on_hash;
    if (document->text.len > AT_ONCE && start_on_pool(hasher, hash, parts) == 0) {
        return;
    }
    write_hash(parts, hash->hex);
    sl_task_defer(hasher->loop, &hash->task, on_task);
}

void ingest_hash_cancel(struct ingest_hash *hash)
{
    if (hash->running != NULL) {
        hash->running->hash = NULL;
        hash->running = NULL;
    }
    sl_task_cancel(&hash->task);
}
