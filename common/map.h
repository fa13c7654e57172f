/*
 * A hash map from byte strings to nodes that are members of what is mapped (intrusive chains). Keys
 * are borrowed: they live in the item, unchanged, for as long as it is in the map. Hashed with
 * SipHash-1-3 (Aumasson and Bernstein, 2012) under a random key, since ids come from outside.
 */
#ifndef SLUICE_COMMON_MAP_H
#define SLUICE_COMMON_MAP_H

#include "common/buf.h"

#include <stdint.h>

struct sl_map_node {
    struct sl_map_node *next;
    uint64_t hash;
    struct sl_span key;
};

struct sl_map {
    struct sl_map_node **slots;
    size_t slot_count; /* A power of two. */
    size_t len;
    uint64_t seed[2];
};

int sl_map_init(struct sl_map *map) SL_CHECKED; /* 0 or -SL_ENOMEM. */
void sl_map_fini(struct sl_map *map);           /* Does not touch the items. */
struct sl_map_node *sl_map_find(const struct sl_map *map, struct sl_span key);
/* Sets node->key and adds it; the key must not be in the map. Never fails: a table that cannot grow
 * only gets slower. */
void sl_map_add(struct sl_map *map, struct sl_map_node *node, struct sl_span key);
void sl_map_remove(struct sl_map *map, struct sl_map_node *node); /* It must be in the map. */
/* Iteration: NULL starts, NULL ends. The current node may be removed after the next was asked for.
 */
struct sl_map_node *sl_map_next(const struct sl_map *map, const struct sl_map_node *node);

uint64_t sl_siphash(const uint64_t seed[2], struct sl_span data);

#endif
