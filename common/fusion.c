/*
 * Rank fusion: all rankings' ids go through one map in order of appearance, each with its sum of
 * scores, and are then sorted by score. An id that a ranking repeats keeps its better rank there;
 * the repeats still take up their ranks, since that is where the other items were found.
 */
#include "common/fusion.h"

#include "common/list.h"
#include "common/map.h"

#include <stdint.h>
#include <stdlib.h>

struct item {
    struct sl_map_node node;
    struct sl_fused fused;
    size_t order;        /* Of first appearance. */
    size_t last_ranking; /* The last one that counted it. */
};

static int compare(const void *a, const void *b)
{
    const struct item *x = a, *y = b;
    if (x->fused.score != y->fused.score) {
        return x->fused.score > y->fused.score ? -1 : 1;
    }
    return x->order < y->order ? -1 : 1;
}

/* Adds one ranking to items, of which there are len so far; returns how many there are then. */
static size_t add_ranking(struct sl_map *map, struct item *items, size_t len,
                          const struct sl_ranking *ranking, size_t number, double k)
{
    for (size_t i = 0; i < ranking->len; i++) {
        struct sl_map_node *node = sl_map_find(map, ranking->ids[i]);
        struct item *item = node != NULL ? SL_ITEM(node, struct item, node) : NULL;
        if (item != NULL && item->last_ranking == number) {
            continue;
        }
        if (item == NULL) {
            item = &items[len];
            *item = (struct item){.order = len};
            item->fused = (struct sl_fused){.id = ranking->ids[i], .ranking = number, .index = i};
            sl_map_add(map, &item->node, ranking->ids[i]);
            len++;
        }
        item->last_ranking = number;
        item->fused.score += ranking->weight / (k + (double)(i + 1));
    }
    return len;
}

int sl_fuse(const struct sl_ranking *rankings, size_t count, double k, struct sl_fused *out,
            size_t max, size_t *ret_len)
{
    struct sl_map map;
    size_t total = 0, len = 0;
    for (size_t i = 0; i < count; i++) {
        total += rankings[i].len;
    }
    struct item *items = calloc(total + 1, sizeof(*items));
    if (items == NULL) {
        return -SL_ENOMEM;
    }
    int rv = sl_map_init(&map);
    if (rv != 0) {
        goto err_items;
    }
    for (size_t i = 0; i < count; i++) {
        len = add_ranking(&map, items, len, &rankings[i], i, k);
    }
    sl_map_fini(&map);
    qsort(items, len, sizeof(*items), compare); /* After the map, whose nodes it moves. */
    *ret_len = len < max ? len : max;
    for (size_t i = 0; i < *ret_len; i++) {
        out[i] = items[i].fused;
    }

err_items:
    free(items);
    return rv;
}
