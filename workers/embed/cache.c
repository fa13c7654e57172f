/*
 * The cache. An entry is the digest of the model's name and the text (32 bytes), then the vector as
 * little-endian float32. Whoever reads one compares the digest, and the length with the dimension
 * of the model as it is now: a slot that holds another text, a cut entry, or a vector from before
 * the model was exchanged is a miss.
 *
 * Look-ups are one command each, GET or MGET, and only appended to what the connection sends at the
 * end of this turn. Entries are gathered for a few milliseconds, since nobody waits for them, and
 * then written with what else goes out; more than WRITES_MAX or WRITE_BYTES_MAX of them that Redis
 * has not acknowledged are not kept, so that the commands that matter never wait behind them.
 *
 * Redis answers a command even when it was given up, so a look-up that is cancelled lives on until
 * then, and so does the cache's own memory: answers may come as late as the connection's end.
 */
#include "workers/embed/cache.h"

#include <assert.h>
#include <endian.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { WRITE_WINDOW_MS = 5, WRITES_MAX = 512, WRITE_BYTES_MAX = 4 << 20 };
enum { KINDS = 2, NUMBER_MAX = 24, PREFIX_MAX = 276, KEY_MAX = PREFIX_MAX + NUMBER_MAX };

struct entry {
    struct sl_list node;
    enum embed_kind kind;
    size_t len;
    unsigned char bytes[]; /* The digest first. */
};

struct embed_cache {
    struct sl_loop *loop;
    struct sl_redis *redis;
    struct embed_cache_config config;
    char prefix[PREFIX_MAX]; /* Of the keys, up to their numbers. */
    size_t prefix_len;
    char ttl[NUMBER_MAX];
    struct sl_list entries; /* To be written. */
    struct sl_timer window;
    size_t writes, write_bytes; /* Waiting here, and with Redis. */
    size_t users;               /* Commands whose answers are due, and the owner. */
    struct sl_counter *counts[KINDS][2];
};

struct embed_cache_ask {
    struct embed_cache *cache;
    size_t len;
    embed_cache_cb *cb; /* NULL: cancelled. */
    void *ctx;
    char names[]; /* KEY_MAX each. */
};

struct sent_write {
    struct embed_cache *cache;
    size_t bytes;
};

int embed_cache_create(struct sl_loop *loop, struct sl_redis *redis, struct sl_metrics *metrics,
                       const struct embed_cache_config *config, struct embed_cache **ret)
{
    static const char *const labels[KINDS][2] = {
        {"kind=\"question\",result=\"miss\"", "kind=\"question\",result=\"hit\""},
        {"kind=\"chunk\",result=\"miss\"", "kind=\"chunk\",result=\"hit\""}};
    struct embed_cache *cache = calloc(1, sizeof(*cache));
    assert(config->entries >= KINDS);
    if (cache == NULL) {
        return -SL_ENOMEM;
    }
    *cache = (struct embed_cache){.loop = loop, .redis = redis, .config = *config, .users = 1};
    sl_list_init(&cache->entries);
    snprintf(cache->ttl, sizeof(cache->ttl), "%llu", (unsigned long long)config->ttl_ms);
    int len = snprintf(cache->prefix, sizeof(cache->prefix), "%s:embedding:", config->prefix);
    assert(len > 0 && len < PREFIX_MAX);
    cache->prefix_len = (size_t)len;
    for (size_t kind = 0; kind < KINDS; kind++) {
        for (size_t hit = 0; hit < 2; hit++) {
            cache->counts[kind][hit] = sl_metrics_counter(
                metrics, "sluice_embed_cache_total",
                "Texts that were looked up before they were embedded.", labels[kind][hit]);
        }
    }
    *ret = cache;
    return 0;
}

static void leave(struct embed_cache *cache)
{
    if (--cache->users == 0) {
        free(cache);
    }
}

void embed_cache_destroy(struct embed_cache *cache)
{
    if (cache == NULL) {
        return;
    }
    sl_timer_stop(cache->loop, &cache->window);
    SL_LIST_EACH_SAFE(node, &cache->entries)
    {
        free(SL_ITEM(node, struct entry, node));
    }
    sl_list_init(&cache->entries);
    leave(cache);
}

void embed_cache_count(struct embed_cache *cache, enum embed_kind kind, bool hit)
{
    sl_counter_add(cache->counts[kind][hit], 1);
}

/* --- keys --- */

void embed_cache_key(const struct embed_cache *cache, struct sl_span text, struct embed_key *ret)
{
    const struct sl_span parts[] = {sl_span_of(cache->config.model), text};
    sl_digest(parts, 2, ret->digest);
}

/* Half of the slots are for questions, the others for chunks. Without printf: each question has its
 * key. */
static struct sl_span write_key(const struct embed_cache *cache, enum embed_kind kind,
                                const unsigned char *digest, char to[KEY_MAX])
{
    uint64_t questions = (cache->config.entries + 1) / 2, number;
    size_t at = KEY_MAX;
    memcpy(&number, digest, sizeof(number));
    number = le64toh(number);
    uint64_t slot = kind == EMBED_QUESTION
                        ? number % questions
                        : questions + number % (cache->config.entries - questions);
    do {
        to[--at] = (char)('0' + slot % 10);
        slot /= 10;
    } while (slot > 0);
    at -= cache->prefix_len;
    memcpy(to + at, cache->prefix, cache->prefix_len);
    return (struct sl_span){to + at, KEY_MAX - at};
}

/* Both ways: numbers of four bytes, little-endian on one side. */
static void copy_numbers(void *to, const void *from, size_t count)
{
    memcpy(to, from, count * sizeof(uint32_t));
    for (size_t i = 0; i < count && htole32(1) != 1; i++) {
        uint32_t word;
        memcpy(&word, (char *)to + i * sizeof(word), sizeof(word));
        word = htole32(word);
        memcpy((char *)to + i * sizeof(word), &word, sizeof(word));
    }
}

/* --- reading --- */

bool embed_cache_read(struct sl_span entry, const struct embed_key *key, size_t dim, float *ret)
{
    struct sl_span digest;
    if (dim == 0 || !sl_span_take(&entry, sizeof(key->digest), &digest) ||
        memcmp(digest.data, key->digest, sizeof(key->digest)) != 0 ||
        entry.len / sizeof(uint32_t) != dim || entry.len % sizeof(uint32_t) != 0) {
        return false;
    }
    copy_numbers(ret, entry.data, dim);
    bool finite = true;
    for (size_t i = 0; i < dim; i++) {
        finite = finite && isfinite(ret[i]) != 0;
    }
    return finite;
}

static void on_found(void *ctx, int err, const struct redisReply *reply)
{
    struct embed_cache_ask *ask = ctx;
    struct sl_span entries[EMBED_ASK_MAX];
    bool many = sl_reply_type(reply) == SL_REPLY_ARRAY;
    for (size_t i = 0; i < ask->len && ask->cb != NULL; i++) {
        const struct redisReply *one = many ? sl_reply_at(reply, i) : i == 0 ? reply : NULL;
        bool found = err == 0 && sl_reply_type(one) == SL_REPLY_STRING;
        entries[i] = found ? sl_reply_span(one) : SL_SPAN("");
    }
    if (ask->cb != NULL) {
        ask->cb(ask->ctx, entries, ask->len);
    }
    leave(ask->cache);
    free(ask);
}

int embed_cache_get(struct embed_cache *cache, enum embed_kind kind, const struct embed_key *keys,
                    size_t len, embed_cache_cb *cb, void *ctx, struct embed_cache_ask **ret)
{
    struct sl_span argv[EMBED_ASK_MAX + 1] = {len == 1 ? SL_SPAN("GET") : SL_SPAN("MGET")};
    assert(len > 0 && len <= EMBED_ASK_MAX);
    struct embed_cache_ask *ask = malloc(sizeof(*ask) + len * KEY_MAX);
    if (ask == NULL) {
        return -SL_ENOMEM;
    }
    *ask = (struct embed_cache_ask){.cache = cache, .len = len, .cb = cb, .ctx = ctx};
    for (size_t i = 0; i < len; i++) {
        argv[i + 1] = write_key(cache, kind, keys[i].digest, ask->names + i * KEY_MAX);
    }
    int rv = sl_redis_command(cache->redis, len + 1, argv, on_found, ask);
    if (rv != 0) {
        free(ask);
        return rv;
    }
    cache->users++;
    *ret = ask;
    return 0;
}

void embed_cache_cancel(struct embed_cache_ask *ask)
{
    ask->cb = NULL;
}

/* --- writing --- */

static void on_written(void *ctx, int err, const struct redisReply *reply)
{
    struct sent_write *sent = ctx;
    (void)err, (void)reply; /* Then it is embedded again some day. */
    sent->cache->writes--;
    sent->cache->write_bytes -= sent->bytes;
    leave(sent->cache);
    free(sent);
}

static void write_entry(struct embed_cache *cache, const struct entry *entry)
{
    char name[KEY_MAX];
    struct sent_write *sent = malloc(sizeof(*sent));
    const struct sl_span argv[] = {SL_SPAN("SET"),
                                   write_key(cache, entry->kind, entry->bytes, name),
                                   {(const char *)entry->bytes, entry->len},
                                   SL_SPAN("PX"),
                                   sl_span_of(cache->ttl)};
    if (sent != NULL) {
        *sent = (struct sent_write){cache, entry->len};
        if (sl_redis_command(cache->redis, sizeof(argv) / sizeof(argv[0]), argv, on_written,
                             sent) == 0) {
            cache->users++;
            return;
        }
    }
    free(sent);
    cache->writes--;
    cache->write_bytes -= entry->len;
}

static void on_window(struct sl_timer *timer)
{
    struct embed_cache *cache = SL_ITEM(timer, struct embed_cache, window);
    SL_LIST_EACH_SAFE(node, &cache->entries)
    {
        struct entry *entry = SL_ITEM(node, struct entry, node);
        sl_list_remove(node);
        write_entry(cache, entry);
        free(entry);
    }
}

void embed_cache_put(struct embed_cache *cache, enum embed_kind kind, const struct embed_key *key,
                     const float *vector, size_t dim)
{
    size_t len = sizeof(key->digest) + dim * sizeof(uint32_t);
    if (cache->writes >= WRITES_MAX || cache->write_bytes + len > WRITE_BYTES_MAX) {
        return;
    }
    struct entry *entry = malloc(sizeof(*entry) + len);
    if (entry == NULL) {
        return;
    }
    entry->kind = kind;
    entry->len = len;
    memcpy(entry->bytes, key->digest, sizeof(key->digest));
    copy_numbers(entry->bytes + sizeof(key->digest), vector, dim);
    cache->writes++;
    cache->write_bytes += len;
    sl_list_push(&cache->entries, &entry->node);
    if (!sl_timer_active(&cache->window)) {
        sl_timer_start(cache->loop, &cache->window, WRITE_WINDOW_MS, on_window);
    }
}
