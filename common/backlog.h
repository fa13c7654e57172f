/*
 * Back-pressure from what waits behind a stage: whether more than so many records wait on the
 * topics that its work goes to. Nothing new should be begun then; it would only wait there.
 */
#ifndef SLUICE_COMMON_BACKLOG_H
#define SLUICE_COMMON_BACKLOG_H

#include "common/kafka.h"
#include "common/loop.h"

enum { SL_BACKLOG_TOPICS = 2 };

struct sl_backlog_topic {
    const char *topic, *group; /* NULL topic: none. */
};

struct sl_backlog;

/* on_room(ctx) when it is not full any more. max: records in all. */
int sl_backlog_create(struct sl_loop *loop, const struct sl_kafka_config *kafka,
                      const struct sl_backlog_topic topics[SL_BACKLOG_TOPICS], long long max,
                      void (*on_room)(void *ctx), void *ctx, struct sl_backlog **ret) SL_CHECKED;
/* What it asks goes on and ends by itself. Takes NULL. */
void sl_backlog_destroy(struct sl_backlog *backlog);
/* Work was begun: the topics are looked at, once a second while there is any, never on the loop. */
void sl_backlog_begun(struct sl_backlog *backlog);
bool sl_backlog_full(const struct sl_backlog *backlog); /* As of the last look. */

#endif
