/*
 * Chained hashing with intrusive nodes. The table doubles when it is as full as it has slots; a
 * failed growth is no error, chains only become longer.
 */
#include "common/map.h"

#include <assert.h>
#include <endian.h>
#include <stdlib.h>
#include <sys/random.h>

enum { FIRST_SLOTS = 64 };

static uint64_t rotate(uint64_t x, int bits)
{
    return (x << bits) | (x >> (64 - bits));
}

static void sip_round(uint64_t v[4])
{
    v[0] += v[1];
    v[1] = rotate(v[1], 13) ^ v[0];
    v[0] = rotate(v[0], 32);
    v[2] += v[3];
    v[3] = rotate(v[3], 16) ^ v[2];
    v[0] += v[3];
    v[3] = rotate(v[3], 21) ^ v[0];
    v[2] += v[1];
    v[1] = rotate(v[1], 17) ^ v[2];
    v[2] = rotate(v[2], 32);
}

uint64_t sl_siphash(const uint64_t seed[2], struct sl_span data)
{
    uint64_t v[4] = {seed[0] ^ 0x736f6d6570736575u, seed[1] ^ 0x646f72616e646f6du,
                     seed[0] ^ 0x6c7967656e657261u, seed[1] ^ 0x7465646279746573u};
    uint64_t word = 0;
    size_t whole = data.len / 8 * 8;
    for (size_t i = 0; i < whole; i += 8) {
        memcpy(&word, data.data + i, 8);
        word = le64toh(word); /* Derived ids are the same on every machine. */
        v[3] ^= word;
        sip_round(v);
        v[0] ^= word;
    }
    word = (uint64_t)data.len << 56;
    for (size_t i = whole; i < data.len; i++) {
        word |= (uint64_t)(unsigned char)data.data[i] << (8 * (i - whole));
    }
    v[3] ^= word;
    sip_round(v);
    v[0] ^= word;
    v[2] ^= 0xff;
    sip_round(v);
    sip_round(v);
    sip_round(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

int sl_map_init(struct sl_map *map)
{
    *map = (struct sl_map){.slots = calloc(FIRST_SLOTS, sizeof(*map->slots))};
    if (map->slots == NULL) {
        return -SL_ENOMEM; /* An empty map for fini and next. */
    }
    map->slot_count = FIRST_SLOTS;
    if (getrandom(map->seed, sizeof(map->seed), 0) != (ssize_t)sizeof(map->seed)) {
        map->seed[0] = (uint64_t)(uintptr_t)map->slots; /* At boot; differs by process still. */
    }
    return 0;
}

void sl_map_fini(struct sl_map *map)
{
    free(map->slots);
    *map = (struct sl_map){0};
}

static struct sl_map_node **slot_of(const struct sl_map *map, uint64_t hash)
{
    return &map->slots[hash & (map->slot_count - 1)];
}

static struct sl_map_node *find(const struct sl_map *map, uint64_t hash, struct sl_span key)
{
    struct sl_map_node *node = *slot_of(map, hash);
    while (node != NULL && (node->hash != hash || !sl_span_equal(node->key, key))) {
        node = node->next;
    }
    return node;
}

struct sl_map_node *sl_map_find(const struct sl_map *map, struct sl_span key)
{
    return map->len == 0 ? NULL : find(map, sl_siphash(map->seed, key), key);
}

static void grow(struct sl_map *map)
{
    struct sl_map_node **old = map->slots;
    size_t old_count = map->slot_count;
    struct sl_map_node **slots = calloc(old_count * 2, sizeof(*slots));
    if (slots == NULL) {
        return;
    }
    map->slots = slots;
    map->slot_count = old_count * 2;
    for (size_t i = 0; i < old_count; i++) {
        while (old[i] != NULL) {
            struct sl_map_node *node = old[i];
            struct sl_map_node **slot = slot_of(map, node->hash);
            old[i] = node->next;
            node->next = *slot;
            *slot = node;
        }
    }
    free(old);
}

void sl_map_add(struct sl_map *map, struct sl_map_node *node, struct sl_span key)
{
    node->key = key;
    node->hash = sl_siphash(map->seed, key);
    assert(find(map, node->hash, key) == NULL);
    if (map->len >= map->slot_count) {
        grow(map);
    }
    struct sl_map_node **slot = slot_of(map, node->hash);
    node->next = *slot;
    *slot = node;
    map->len++;
}

void sl_map_remove(struct sl_map *map, struct sl_map_node *node)
{
    struct sl_map_node **at = slot_of(map, node->hash);
    while (*at != node) {
        assert(*at != NULL);
        at = &(*at)->next;
    }
    *at = node->next;
    node->next = NULL;
    map->len--;
}

struct sl_map_node *sl_map_next(const struct sl_map *map, const struct sl_map_node *node)
{
    if (node != NULL && node->next != NULL) {
        return node->next;
    }
    size_t i = node == NULL ? 0 : (node->hash & (map->slot_count - 1)) + 1;
    while (i < map->slot_count && map->slots[i] == NULL) {
        i++;
    }
    return i < map->slot_count ? map->slots[i] : NULL;
}
