/*
 * Looks at the lags of two topics once a second, on the thread pool, since a look blocks.
 *
 * Only while there is something to know: after work was begun, and while it is full. A look that
 * fails changes nothing; whoever cannot reach the broker gets no new work either.
 *
 * The pool's thread cannot be stopped: a backlog that is destroyed meanwhile goes when the thread
 * is done with it.
 */
#include "common/backlog.h"

#include "common/kafka_lag.h"
#include "common/log.h"

#include <stdlib.h>

enum { EVERY_MS = 1000, READ_MS = 1500 };

struct sl_backlog {
    struct sl_loop *loop;
    struct sl_kafka_lag *lags[SL_BACKLOG_TOPICS];
    long long max;
    void (*on_room)(void *ctx); /* NULL: destroyed. */
    void *ctx;
    struct sl_timer timer;
    bool looking, full, begun;
    int64_t records; /* Of the look that ended; or -SL_E*. */
};

static void destroy(struct sl_backlog *backlog)
{
    for (size_t i = 0; i < SL_BACKLOG_TOPICS; i++) {
        sl_kafka_lag_close(backlog->lags[i]);
    }
    free(backlog);
}

/* On the thread pool. */
static void work(void *ctx)
{
    struct sl_backlog *backlog = ctx;
    backlog->records = 0;
    for (size_t i = 0; i < SL_BACKLOG_TOPICS && backlog->records >= 0; i++) {
        int64_t lag = backlog->lags[i] != NULL ? sl_kafka_lag_read(backlog->lags[i], READ_MS) : 0;
        backlog->records = lag < 0 ? lag : backlog->records + lag;
    }
}

static void on_timer(struct sl_timer *timer);

static void on_looked(void *ctx)
{
    struct sl_backlog *backlog = ctx;
    backlog->looking = false;
    if (backlog->on_room == NULL) {
        destroy(backlog);
        return;
    }
    bool was_full = backlog->full;
    if (backlog->records >= 0) {
        backlog->full = backlog->records > backlog->max;
    }
    if (was_full != backlog->full) {
        sl_log(SL_LOG_INFO,
               backlog->full ? "too much waits behind this stage: nothing new is taken"
                             : "what waits behind this stage has become less",
               SL_INT("records", backlog->records), SL_INT("limit", backlog->max));
    }
    if (backlog->full || backlog->begun) {
        sl_timer_start(backlog->loop, &backlog->timer, EVERY_MS, on_timer);
    }
    if (was_full && !backlog->full) {
        backlog->on_room(backlog->ctx);
    }
}

static void on_timer(struct sl_timer *timer)
{
    struct sl_backlog *backlog = SL_ITEM(timer, struct sl_backlog, timer);
    backlog->begun = false;
    backlog->looking = sl_work_submit(backlog->loop, work, on_looked, backlog) == 0;
    if (!backlog->looking) {
        sl_timer_start(backlog->loop, timer, EVERY_MS, on_timer);
    }
}

int sl_backlog_create(struct sl_loop *loop, const struct sl_kafka_config *kafka,
                      const struct sl_backlog_topic topics[SL_BACKLOG_TOPICS], long long max,
                      void (*on_room)(void *ctx), void *ctx, struct sl_backlog **ret)
{
    struct sl_backlog *backlog = calloc(1, sizeof(*backlog));
    int rv = backlog == NULL ? -SL_ENOMEM : 0;
    for (size_t i = 0; i < SL_BACKLOG_TOPICS && rv == 0; i++) {
        if (topics[i].topic != NULL) {
            rv = sl_kafka_lag_open(kafka, topics[i].group, topics[i].topic, &backlog->lags[i]);
        }
    }
    if (rv != 0) {
        if (backlog != NULL) {
            destroy(backlog);
        }
        return rv;
    }
    backlog->loop = loop;
    backlog->max = max;
    backlog->on_room = on_room;
    backlog->ctx = ctx;
    *ret = backlog;
    return 0;
}

void sl_backlog_destroy(struct sl_backlog *backlog)
{
    if (backlog == NULL) {
        return;
    }
    sl_timer_stop(backlog->loop, &backlog->timer);
    if (backlog->looking) {
        backlog->on_room = NULL;
    } else {
        destroy(backlog);
    }
}

void sl_backlog_begun(struct sl_backlog *backlog)
{
    backlog->begun = true;
    if (!backlog->looking && !sl_timer_active(&backlog->timer)) {
        sl_timer_start(backlog->loop, &backlog->timer, 0, on_timer);
    }
}

bool sl_backlog_full(const struct sl_backlog *backlog)
{
    return backlog->full;
}
