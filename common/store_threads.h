/*
 * Threads for a library that blocks: items go into a bounded queue, a thread runs them, one or
 * several at a time, the loop gets them back. An item is a member of its owner. All functions are
 * the loop's; run alone is called on a thread.
 */
#ifndef SLUICE_COMMON_STORE_THREADS_H
#define SLUICE_COMMON_STORE_THREADS_H

#include "common/loop.h"

struct sl_threads;

enum { SL_THREADS_GROUP = 16 };

struct sl_threads_item { /* Zeroed at first. */
    struct sl_list node;
    enum { SL_ITEM_OURS, SL_ITEM_QUEUED, SL_ITEM_RUNNING } state; /* Under the threads' lock. */
};

struct sl_threads_config {
    size_t max; /* Threads; each is started when there is work for it, and stays. */
    size_t queue_max;
    size_t group_max; /* Items that a thread takes at once, at most SL_THREADS_GROUP; 0 is 1. */
    /* Items in the order in which they were added. *state is the thread's own, NULL at first; fini
     * gets what is left of it. */
    void (*run)(struct sl_threads_item *const *items, size_t count, void **state);
    void (*fini)(void *state); /* Takes NULL. On the thread. */
    /* On the loop: the item has been run, and is the owner's again. */
    void (*on_returned)(struct sl_threads_item *item);
};

int sl_threads_create(struct sl_loop *loop, const struct sl_threads_config *config,
                      struct sl_threads **ret) SL_CHECKED; /* 0 or -SL_ENOMEM. */
/* Nothing is queued any more. Waits for what runs, and returns it inside. Takes NULL. */
void sl_threads_destroy(struct sl_threads *threads);

/* 0, and on_returned comes later; -SL_EAGAIN: the queue is full. */
int sl_threads_add(struct sl_threads *threads, struct sl_threads_item *item) SL_CHECKED;
/* Takes an item out of the queue. False: it runs or has run, and on_returned will come. */
bool sl_threads_take_back(struct sl_threads *threads, struct sl_threads_item *item);

#endif
