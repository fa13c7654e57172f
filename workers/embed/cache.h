/*
 * Vectors that Redis keeps, so that a text that was embedded lately is not paid for again. The keys
 * are slots, which a text's digest chooses: there are never more than were configured, and what
 * comes later takes the place of what was there. A Redis that is away, slow or wrong is a miss.
 */
#ifndef SLUICE_WORKERS_EMBED_CACHE_H
#define SLUICE_WORKERS_EMBED_CACHE_H

#include "common/digest.h"
#include "common/loop.h"
#include "common/metrics.h"
#include "common/redis.h"

enum { EMBED_ASK_MAX = 32 }; /* Keys of one look-up. */

/* Slots apart, so that the chunks of an ingestion do not drive out the questions. */
enum embed_kind { EMBED_QUESTION, EMBED_CHUNK };

struct embed_key {
    unsigned char digest[SL_DIGEST_SIZE];
};

struct embed_cache_config {
    const char *prefix; /* Of the keys; lives as long as the cache, like model. */
    const char *model;  /* What made the vectors. */
    size_t entries;     /* Of both kinds, at least 2. */
    uint64_t ttl_ms;
};

struct embed_cache;

int embed_cache_create(struct sl_loop *loop, struct sl_redis *redis, struct sl_metrics *metrics,
                       const struct embed_cache_config *config,
                       struct embed_cache **ret) SL_CHECKED;
/* Every look-up is answered or cancelled. What is not written yet is forgotten. Takes NULL. */
void embed_cache_destroy(struct embed_cache *cache);

void embed_cache_key(const struct embed_cache *cache, struct sl_span text, struct embed_key *ret);

/* entries: what was found under each key, in their order, borrowed, for embed_cache_read. */
typedef void embed_cache_cb(void *ctx, const struct sl_span *entries, size_t len);
struct embed_cache_ask;
/* len up to EMBED_ASK_MAX; keys are copied. cb comes once, not inside. Not 0: it does not come. */
int embed_cache_get(struct embed_cache *cache, enum embed_kind kind, const struct embed_key *keys,
                    size_t len, embed_cache_cb *cb, void *ctx,
                    struct embed_cache_ask **ret) SL_CHECKED;
void embed_cache_cancel(struct embed_cache_ask *ask); /* cb does not come. */
/* Copies the vector; it is written within milliseconds, together with others, or not at all. */
void embed_cache_put(struct embed_cache *cache, enum embed_kind kind, const struct embed_key *key,
                     const float *vector, size_t dim);
/* To be counted. */
void embed_cache_count(struct embed_cache *cache, enum embed_kind kind, bool hit);

/* An entry of Redis into dim numbers; false: it is another text's, of another dimension, or no
 * vector at all. */
bool embed_cache_read(struct sl_span entry, const struct embed_key *key, size_t dim,
                      float *ret) SL_CHECKED;

#endif
