/* The clocks of the benchmark's programs. */
#ifndef TESTS_BENCH_MEASURE_CLOCK_H
#define TESTS_BENCH_MEASURE_CLOCK_H

#include <stdint.h>
#include <time.h>

#define MEASURE_MS_NS UINT64_C(1000000)
#define MEASURE_S_NS UINT64_C(1000000000)

static inline uint64_t measure_clock_read(clockid_t clock)
{
    struct timespec t = {0};
    (void)clock_gettime(clock, &t); /* Fails for unknown clocks alone. */
    return (uint64_t)t.tv_sec * MEASURE_S_NS + (uint64_t)t.tv_nsec;
}

/* Nanoseconds of CLOCK_MONOTONIC. */
static inline uint64_t measure_now_ns(void)
{
    return measure_clock_read(CLOCK_MONOTONIC);
}

/* Nanoseconds of CPU that all threads of this process have used, user and system. */
static inline uint64_t measure_cpu_ns(void)
{
    return measure_clock_read(CLOCK_PROCESS_CPUTIME_ID);
}

#endif
