/*
 * Due times in a heap. The closed loop keeps there the next start of each stream that does not run;
 * the open loop only its next arrival, and each one that is taken draws the next. A client that
 * comes late takes all that have become due meanwhile, each with the time at which it was due, and
 * counts from then: a stall of the system or of the client itself then shows in every request that
 * it delayed.
 *
 * Arrivals add up in seconds as a double from the start: a rounding error of 1e-13 s in an hour.
 * What can go wrong: no memory at the beginning. The heap never grows later, since a closed loop
 * has no more starts ahead than streams.
 */
#include "tests/bench/measure_schedule.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>

/* splitmix64 (Steele, Lea, Flood 2014); a number in [0, 1). */
static double draw(struct measure_schedule *schedule)
{
    uint64_t z = schedule->random += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return (double)((z ^ (z >> 31)) >> 11) * 0x1p-53;
}

static void push(struct measure_schedule *schedule, uint64_t due_ns)
{
    if (due_ns >= schedule->end_ns) {
        return;
    }
    assert(schedule->len < schedule->cap);
    size_t at = schedule->len++;
    while (at > 0 && schedule->dues[(at - 1) / 2] > due_ns) {
        schedule->dues[at] = schedule->dues[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    schedule->dues[at] = due_ns;
}

static uint64_t pop(struct measure_schedule *schedule)
{
    uint64_t *dues = schedule->dues, first = dues[0], last = dues[--schedule->len];
    size_t at = 0;
    for (size_t child = 1; child < schedule->len; child = 2 * at + 1) {
        child += child + 1 < schedule->len && dues[child + 1] < dues[child] ? 1 : 0;
        if (dues[child] >= last) {
            break;
        }
        dues[at] = dues[child];
        at = child;
    }
    dues[at] = last;
    return first;
}

static int init(struct measure_schedule *schedule, size_t cap, uint64_t start_ns, uint64_t end_ns)
{
    *schedule = (struct measure_schedule){.start_ns = start_ns, .end_ns = end_ns, .cap = cap};
    schedule->dues = calloc(cap, sizeof(*schedule->dues));
    return schedule->dues == NULL ? -SL_ENOMEM : 0;
}

static void push_arrival(struct measure_schedule *schedule)
{
    double mean_s = 1 / schedule->rate;
    schedule->arrival_s += schedule->poisson ? -log1p(-draw(schedule)) * mean_s : mean_s;
    push(schedule, schedule->start_ns + (uint64_t)(schedule->arrival_s * 1e9));
}

int measure_schedule_open(struct measure_schedule *schedule, double rate, bool poisson,
                          uint64_t seed, uint64_t start_ns, uint64_t end_ns)
{
    assert(rate > 0);
    int rv = init(schedule, 1, start_ns, end_ns);
    if (rv == 0) {
        schedule->rate = rate;
        schedule->poisson = poisson;
        schedule->random = seed;
        push_arrival(schedule);
    }
    return rv;
}

int measure_schedule_closed(struct measure_schedule *schedule, size_t streams, uint64_t spread_ns,
                            uint64_t start_ns, uint64_t end_ns)
{
    assert(streams > 0);
    int rv = init(schedule, streams, start_ns, end_ns);
    for (size_t i = 0; rv == 0 && i < streams; i++) {
        push(schedule, start_ns + (uint64_t)((double)spread_ns * (double)i / (double)streams));
    }
    return rv;
}

void measure_schedule_fini(struct measure_schedule *schedule)
{
    free(schedule->dues);
    *schedule = (struct measure_schedule){0};
}

uint64_t measure_schedule_next(const struct measure_schedule *schedule)
{
    return schedule->len > 0 ? schedule->dues[0] : MEASURE_NEVER;
}

bool measure_schedule_take(struct measure_schedule *schedule, uint64_t now_ns, uint64_t *ret_due)
{
    if (measure_schedule_next(schedule) > now_ns || schedule->len == 0) {
        return false;
    }
    *ret_due = pop(schedule);
    if (schedule->rate > 0) {
        push_arrival(schedule);
    }
    return true;
}

void measure_schedule_again(struct measure_schedule *schedule, uint64_t due_ns)
{
    if (schedule->rate <= 0) {
        push(schedule, due_ns);
    }
}
