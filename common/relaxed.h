/*
 * Descriptors that are looked at together, every few milliseconds, instead of waking the loop each
 * by itself: for streams of small pieces whose bytes may come a little late. An entry is a member
 * of its owner, zeroed at first. All functions are the loop's.
 */
#ifndef SLUICE_COMMON_RELAXED_H
#define SLUICE_COMMON_RELAXED_H

#include "common/loop.h"

struct sl_relaxed;

struct sl_relaxed_entry {
    int fd;                                           /* Set by the owner; stays its own. */
    void (*on_ready)(struct sl_relaxed_entry *entry); /* Readable, or it failed. */
    bool added;
};

/* 10 ms lie between two looks, more (up to 50) where there are more than 200 descriptors. */
int sl_relaxed_create(struct sl_loop *loop, struct sl_relaxed **ret) SL_CHECKED; /* -SL_ENOMEM. */
void sl_relaxed_destroy(struct sl_relaxed *relaxed); /* Nothing may be added. Takes NULL. */

/* on_ready comes as long as there is something to read. 0; -SL_ENOMEM; -SL_EINVAL: the descriptor
 * cannot be waited for. */
int sl_relaxed_add(struct sl_relaxed *relaxed, struct sl_relaxed_entry *entry) SL_CHECKED;
/* on_ready does not come any more. Also of one that is not added; before the fd is closed. */
void sl_relaxed_remove(struct sl_relaxed *relaxed, struct sl_relaxed_entry *entry);

#endif
