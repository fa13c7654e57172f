/*
 * Backoff and the retry budget. Jitter comes from SplitMix64 (Steele, Lea and Flood, 2014): small,
 * and every seed is as good as any other. The budget counts in tenths of a token, so that ten calls
 * make exactly one retry.
 */
#include "common/backoff.h"

static uint64_t next_random(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

void sl_backoff_init(struct sl_backoff *backoff, uint32_t base_ms, uint32_t cap_ms, uint64_t seed)
{
    *backoff = (struct sl_backoff){.base_ms = base_ms, .cap_ms = cap_ms, .random = seed};
}

uint32_t sl_backoff_next_ms(struct sl_backoff *backoff)
{
    uint32_t shift = backoff->tries < 31 ? backoff->tries : 31;
    uint64_t high = (uint64_t)backoff->base_ms << shift;
    high = high < backoff->cap_ms ? high : backoff->cap_ms;
    uint64_t low = backoff->base_ms / 2;
    low = low < high ? low : high;
    backoff->tries += backoff->tries < UINT32_MAX ? 1 : 0;
    /* The remainder favours small values by less than 2^-31. */
    return (uint32_t)(low + next_random(&backoff->random) % (high - low + 1));
}

void sl_backoff_reset(struct sl_backoff *backoff)
{
    backoff->tries = 0;
}

enum { TENTHS = 10, MOST_FLOORS = 10 };

void sl_retry_budget_init(struct sl_retry_budget *budget, double floor)
{
    *budget = (struct sl_retry_budget){.tenths = floor * TENTHS, .floor = floor};
}

void sl_retry_budget_call(struct sl_retry_budget *budget)
{
    double most = budget->floor * MOST_FLOORS * TENTHS;
    budget->tenths = budget->tenths + 1 < most ? budget->tenths + 1 : most;
}

bool sl_retry_budget_take(struct sl_retry_budget *budget)
{
    if (budget->tenths < TENTHS) {
        return false;
    }
    budget->tenths -= TENTHS;
    return true;
}
