/*
 * Log-linear buckets. A value below 1024 has a bucket of its own; above, a value with n bits falls
 * by its top eleven bits (the first is always one) into one of 1024 buckets, each 2^(n-11) wide. So
 * the middle of a bucket is never further from a value in it than 1/2048 of the value.
 *
 * What can go wrong: nothing. A value over the range counts in the last bucket; maximum and mean
 * stay exact.
 */
#include "tests/bench/measure_histogram.h"

#include <assert.h>
#include <math.h>

static unsigned bucket_of(uint64_t ns)
{
    if (ns >= UINT64_C(1) << MEASURE_MAX_BITS) {
        return MEASURE_BUCKETS - 1;
    }
    if (ns < UINT64_C(1) << MEASURE_SUB_BITS) {
        return (unsigned)ns;
    }
    unsigned shift = 63U - (unsigned)__builtin_clzll(ns) - MEASURE_SUB_BITS;
    return (shift << MEASURE_SUB_BITS) + (unsigned)(ns >> shift);
}

static uint64_t middle_of(unsigned bucket)
{
    if (bucket < 2U << MEASURE_SUB_BITS) {
        return bucket; /* One value wide. */
    }
    unsigned shift = (bucket >> MEASURE_SUB_BITS) - 1;
    uint64_t low = (uint64_t)(bucket - (shift << MEASURE_SUB_BITS)) << shift;
    return low + (UINT64_C(1) << shift) / 2;
}

void measure_histogram_add(struct measure_histogram *histogram, uint64_t ns)
{
    histogram->count++;
    histogram->sum += (double)ns;
    histogram->max = ns > histogram->max ? ns : histogram->max;
    histogram->buckets[bucket_of(ns)]++;
}

uint64_t measure_histogram_quantile(const struct measure_histogram *histogram, double quantile)
{
    assert(quantile >= 0 && quantile <= 1);
    uint64_t rank = (uint64_t)ceil(quantile * (double)histogram->count);
    if (rank == histogram->count) {
        return histogram->max;
    }
    uint64_t seen = 0;
    for (unsigned bucket = 0; bucket < MEASURE_BUCKETS; bucket++) {
        seen += histogram->buckets[bucket];
        if (seen > 0 && seen >= rank) {
            uint64_t middle = middle_of(bucket);
            return middle < histogram->max ? middle : histogram->max;
        }
    }
    return histogram->max;
}

double measure_histogram_mean(const struct measure_histogram *histogram)
{
    return histogram->count > 0 ? histogram->sum / (double)histogram->count : 0;
}
