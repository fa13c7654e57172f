/*
 * A histogram of durations with a relative error below 0.05 %, in fixed memory (256 KiB) whatever
 * it counts: log-linear buckets, 1024 to each power of two. Adding costs a few instructions.
 */
#ifndef TESTS_BENCH_MEASURE_HISTOGRAM_H
#define TESTS_BENCH_MEASURE_HISTOGRAM_H

#include <stdint.h>

enum {
    MEASURE_SUB_BITS = 10,
    MEASURE_MAX_BITS = 41, /* 2^41 ns are 36 minutes; longer ones count as the largest. */
    MEASURE_BUCKETS = (MEASURE_MAX_BITS - MEASURE_SUB_BITS + 1) << MEASURE_SUB_BITS,
};

/* All zero is an empty one. */
struct measure_histogram {
    uint64_t count;
    uint64_t max; /* Exact. */
    double sum;   /* Exact but for rounding. */
    uint64_t buckets[MEASURE_BUCKETS];
};

void measure_histogram_add(struct measure_histogram *histogram, uint64_t ns);

/* The value that the fraction `quantile` (0 to 1) of all values does not exceed: the middle of its
 * bucket, or the exact maximum. 0 for an empty histogram. */
uint64_t measure_histogram_quantile(const struct measure_histogram *histogram, double quantile);

double measure_histogram_mean(const struct measure_histogram *histogram); /* 0 when empty. */

#endif
