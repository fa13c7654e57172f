/*
 * Reciprocal rank fusion (Cormack, Clarke and Buettcher, SIGIR 2009): the score of an item is the
 * sum over rankings of weight / (k + rank), rank from 1. Ties keep the order of first appearance.
 */
#ifndef SLUICE_COMMON_FUSION_H
#define SLUICE_COMMON_FUSION_H

#include "common/buf.h"

struct sl_ranking {
    const struct sl_span *ids; /* Best first. An id seen again in the same ranking is ignored. */
    size_t len;
    double weight;
};

struct sl_fused {
    struct sl_span id; /* Borrowed from the ranking. */
    double score;
    size_t ranking, index; /* Where it first appeared. */
};

enum { SL_FUSION_K = 60 };

/* Fuses count rankings into out (room for max), best first; *ret_len is how many. 0 or -SL_ENOMEM.
 */
int sl_fuse(const struct sl_ranking *rankings, size_t count, double k, struct sl_fused *out,
            size_t max, size_t *ret_len) SL_CHECKED;

#endif
