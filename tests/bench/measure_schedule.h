/*
 * When requests are due. Open loop: at a rate, whatever the answers do; the same seed gives the
 * same times. Closed loop: a number of streams, each of which starts again when it has ended. All
 * times are nanoseconds of CLOCK_MONOTONIC; no clock is read here.
 */
#ifndef TESTS_BENCH_MEASURE_SCHEDULE_H
#define TESTS_BENCH_MEASURE_SCHEDULE_H

#include "common/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MEASURE_NEVER UINT64_MAX

struct measure_schedule {
    uint64_t start_ns, end_ns; /* Nothing is due at end_ns or later. */
    double rate;               /* Per second; 0 for the closed loop. */
    bool poisson;
    uint64_t random;  /* State of the random numbers. */
    double arrival_s; /* Of the arrival in dues. */
    uint64_t *dues;   /* A binary heap, the earliest first. */
    size_t len, cap;
};

/* Arrivals from start_ns to end_ns, by a Poisson process or evenly, `rate` (> 0) each second.
 * 0 or -SL_ENOMEM. */
int measure_schedule_open(struct measure_schedule *schedule, double rate, bool poisson,
                          uint64_t seed, uint64_t start_ns, uint64_t end_ns) SL_CHECKED;

/* `streams` (> 0) whose first starts are spread evenly over spread_ns. 0 or -SL_ENOMEM. */
int measure_schedule_closed(struct measure_schedule *schedule, size_t streams, uint64_t spread_ns,
                            uint64_t start_ns, uint64_t end_ns) SL_CHECKED;

void measure_schedule_fini(struct measure_schedule *schedule); /* Also of a zeroed one. */

/* The earliest due time, or MEASURE_NEVER: then nothing is due any more, but for streams of a
 * closed loop that start again. */
uint64_t measure_schedule_next(const struct measure_schedule *schedule);

/* Takes the earliest due time if it is not after now_ns. */
bool measure_schedule_take(struct measure_schedule *schedule, uint64_t now_ns, uint64_t *ret_due);

/* Closed loop: a stream that was taken has ended and is due again at due_ns. Nothing in the open
 * loop, or at or after the end. */
void measure_schedule_again(struct measure_schedule *schedule, uint64_t due_ns);

#endif
