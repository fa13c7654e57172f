/* The two clocks, and the switch to virtual time. */
#include "common/clock.h"

#include <stddef.h>
#include <time.h>

static const uint64_t *virtual_us;

static uint64_t read_us(clockid_t id)
{
    struct timespec ts;
    clock_gettime(id, &ts);
    return (uint64_t)ts.tv_sec * 1000000u + (uint64_t)ts.tv_nsec / 1000u;
}

uint64_t sl_clock_now_us(void)
{
    return virtual_us != NULL ? *virtual_us : read_us(CLOCK_MONOTONIC);
}

uint64_t sl_clock_now_ms(void)
{
    return sl_clock_now_us() / 1000u;
}

int64_t sl_clock_unix_ms(void)
{
    return (int64_t)((virtual_us != NULL ? *virtual_us : read_us(CLOCK_REALTIME)) / 1000u);
}

void sl_clock_use(const uint64_t *now_us)
{
    virtual_us = now_us;
}
