/*
 * A queue, threads that wait for it, and a list of what they have done, under one lock; the loop is
 * woken when that list grows. Threads are started as work needs them, so that a process that only
 * writes has none that read. They block all signals, which are the loop's.
 *
 * What can go wrong: a thread that cannot be started leaves its work to the others; without any,
 * items stay queued until a later one starts a thread or their owner takes them back.
 */
#include "common/store_threads.h"

#include <assert.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>

enum { THREADS_MAX = 8 };

struct sl_threads {
    struct sl_threads_config config;
    struct sl_async *async;
    pthread_t ids[THREADS_MAX];
    size_t len;
    pthread_mutex_t lock;
    pthread_cond_t work;
    /* Under the lock. */
    struct sl_list queue, done;
    size_t queue_len;
    size_t idle; /* Threads that wait for work. */
    bool closing;
};

/* --- on the threads --- */

/* The next items, or 0 when all is to end. Under the lock. */
static size_t next_items(struct sl_threads *threads, struct sl_threads_item **items)
{
    size_t max = threads->config.group_max > 0 ? threads->config.group_max : 1, count = 0;
    threads->idle++;
    while (sl_list_empty(&threads->queue) && !threads->closing) {
        pthread_cond_wait(&threads->work, &threads->lock);
    }
    threads->idle--;
    while (count < max && !sl_list_empty(&threads->queue)) {
        struct sl_list *node = sl_list_first(&threads->queue);
        items[count] = SL_ITEM(node, struct sl_threads_item, node);
        sl_list_remove(node);
        threads->queue_len--;
        items[count++]->state = SL_ITEM_RUNNING;
    }
    return count;
}

static void *run_thread(void *ctx)
{
    struct sl_threads *threads = ctx;
    struct sl_threads_item *items[SL_THREADS_GROUP];
    size_t count;
    void *state = NULL;
    pthread_mutex_lock(&threads->lock);
    while ((count = next_items(threads, items)) > 0) {
        pthread_mutex_unlock(&threads->lock);
        threads->config.run(items, count, &state);
        pthread_mutex_lock(&threads->lock);
        for (size_t i = 0; i < count; i++) {
            sl_list_push(&threads->done, &items[i]->node);
        }
        sl_async_send(threads->async);
    }
    pthread_mutex_unlock(&threads->lock);
    threads->config.fini(state);
    return NULL;
}

/* --- on the loop --- */

static void start_thread(struct sl_threads *threads)
{
    sigset_t all;
    sigset_t before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    if (pthread_create(&threads->ids[threads->len], NULL, run_thread, threads) == 0) {
        threads->len++;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

int sl_threads_add(struct sl_threads *threads, struct sl_threads_item *item)
{
    pthread_mutex_lock(&threads->lock);
    bool full = threads->queue_len >= threads->config.queue_max;
    bool busy = threads->queue_len >= threads->idle;
    if (!full) {
        item->state = SL_ITEM_QUEUED;
        sl_list_push(&threads->queue, &item->node);
        threads->queue_len++;
        pthread_cond_signal(&threads->work);
    }
    pthread_mutex_unlock(&threads->lock);
    if (!full && busy && threads->len < threads->config.max) {
        start_thread(threads);
    }
    return full ? -SL_EAGAIN : 0;
}

bool sl_threads_take_back(struct sl_threads *threads, struct sl_threads_item *item)
{
    pthread_mutex_lock(&threads->lock);
    if (item->state == SL_ITEM_QUEUED) {
        sl_list_remove(&item->node);
        threads->queue_len--;
        item->state = SL_ITEM_OURS;
    }
    bool ours = item->state == SL_ITEM_OURS;
    pthread_mutex_unlock(&threads->lock);
    return ours;
}

static struct sl_threads_item *next_done(struct sl_threads *threads)
{
    pthread_mutex_lock(&threads->lock);
    struct sl_list *node = sl_list_first(&threads->done);
    struct sl_threads_item *item =
        node != NULL ? SL_ITEM(node, struct sl_threads_item, node) : NULL;
    if (item != NULL) {
        sl_list_remove(node);
        item->state = SL_ITEM_OURS;
    }
    pthread_mutex_unlock(&threads->lock);
    return item;
}

static void on_async(void *ctx)
{
    struct sl_threads *threads = ctx;
    struct sl_threads_item *item;
    while ((item = next_done(threads)) != NULL) {
        threads->config.on_returned(item);
    }
}

/* --- from birth to death --- */

int sl_threads_create(struct sl_loop *loop, const struct sl_threads_config *config,
                      struct sl_threads **ret)
{
    assert(config->max <= THREADS_MAX && config->group_max <= SL_THREADS_GROUP);
    struct sl_threads *threads = calloc(1, sizeof(*threads));
    if (threads == NULL) {
        return -SL_ENOMEM;
    }
    threads->config = *config;
    if (sl_async_create(loop, on_async, threads, &threads->async) != 0) {
        free(threads);
        return -SL_ENOMEM;
    }
    sl_list_init(&threads->queue);
    sl_list_init(&threads->done);
    pthread_mutex_init(&threads->lock, NULL); /* Neither ever fails on Linux. */
    pthread_cond_init(&threads->work, NULL);
    *ret = threads;
    return 0;
}

void sl_threads_destroy(struct sl_threads *threads)
{
    if (threads == NULL) {
        return;
    }
    pthread_mutex_lock(&threads->lock);
    assert(sl_list_empty(&threads->queue));
    threads->closing = true;
    pthread_cond_broadcast(&threads->work);
    pthread_mutex_unlock(&threads->lock);
    for (size_t i = 0; i < threads->len; i++) {
        pthread_join(threads->ids[i], NULL);
    }
    on_async(threads);
    sl_async_destroy(threads->async);
    pthread_cond_destroy(&threads->work);
    pthread_mutex_destroy(&threads->lock);
    free(threads);
}
