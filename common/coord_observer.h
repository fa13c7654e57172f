/*
 * Which owners are dead. An owner is dead only when this observer saw the same heartbeat, older
 * than 6 units, at two looks 5 units apart, with no gap over 2 units between Redis's replies: a
 * Redis that paused must not look like a cluster that died. A unit is a second outside tests. Pure:
 * time comes in.
 */
#ifndef SLUICE_COMMON_COORD_OBSERVER_H
#define SLUICE_COMMON_COORD_OBSERVER_H

#include "common/buf.h"

#include <stdint.h>

enum { SL_OWNER_MAX = 20, SL_OBSERVED_MAX = 256 };

struct sl_observed {
    char owner[SL_OWNER_MAX];
    int64_t heartbeat_ms; /* 0: it has none. */
    int64_t first_ms;     /* The first look that counts; 0: none yet. Redis's clock, as all here. */
    int64_t look_ms;      /* The last look. */
};

struct sl_observer {
    uint32_t unit_ms;
    uint64_t reply_local_ms;  /* The last reply: when it came, */
    int64_t reply_redis_ms;   /* and when it was made. 0: none yet. */
    uint64_t steady_local_ms; /* The first reply after the last gap. */
    size_t len;
    struct sl_observed owners[SL_OBSERVED_MAX]; /* When full, the one not looked at longest goes. */
};

void sl_observer_init(struct sl_observer *observer, uint32_t unit_ms);
/* For each reply of Redis, before the looks that it allows. After a gap, on either clock, all
 * observations begin anew. */
void sl_observer_reply(struct sl_observer *observer, uint64_t local_ms, int64_t redis_ms);
/* A heartbeat as the last reply told it. True when its owner is dead. */
bool sl_observer_look(struct sl_observer *observer, struct sl_span owner, int64_t heartbeat_ms);
/* Redis has answered without a gap for 5 units, up to now: who lives had the time to say so. */
bool sl_observer_steady(const struct sl_observer *observer, uint64_t local_ms);

#endif
