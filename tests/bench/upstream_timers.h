/* Timers of the stub, exact to some tens of microseconds: a heap behind one timerfd. Times are
 * sl_clock_now_us. */
#ifndef SLUICE_BENCH_UPSTREAM_TIMERS_H
#define SLUICE_BENCH_UPSTREAM_TIMERS_H

#include "common/error.h"

#include <stddef.h>
#include <stdint.h>

/* Members of their owner; zeroed is stopped. They fire once. */
struct upstream_timer {
    void (*fire)(struct upstream_timer *timer);
    uint64_t due_us;
    size_t place; /* 1-based, in the heap; 0: stopped. */
};

struct upstream_slot {
    uint64_t key;
    struct upstream_timer *timer;
};

struct upstream_timers {
    int fd; /* Readable when the first is due. */
    struct upstream_slot *heap;
    size_t len, cap;
    uint64_t armed_us;
};

int upstream_timers_init(struct upstream_timers *timers) SL_CHECKED; /* 0 or -SL_EIO. */
void upstream_timers_fini(struct upstream_timers *timers);
/* Room for so many timers: each owner reserves its own, so that a start never fails. 0 or
 * -SL_ENOMEM. */
int upstream_timers_reserve(struct upstream_timers *timers, size_t count) SL_CHECKED;

/* Starting a started timer moves it. Never fires inside. grid_us: fires at the next multiple of
 * this, so that many that are due almost together share one wake-up; 1: exactly. */
void upstream_timer_start(struct upstream_timers *timers, struct upstream_timer *timer,
                          uint64_t due_us, uint64_t grid_us);
void upstream_timer_stop(struct upstream_timers *timers, struct upstream_timer *timer);

void upstream_timers_run(struct upstream_timers *timers); /* Fires what is due at its begin. */
void upstream_timers_arm(struct upstream_timers *timers); /* Before each wait on fd. */

#endif
