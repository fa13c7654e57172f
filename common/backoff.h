/*
 * Exponential backoff with full jitter (Brooker, "Exponential Backoff and Jitter", 2015): the wait
 * before try n is uniform in [base / 2, min(cap, base * 2^n)]. And the retry budget: retries are at
 * most a tenth of the calls, with a floor.
 */
#ifndef SLUICE_COMMON_BACKOFF_H
#define SLUICE_COMMON_BACKOFF_H

#include <stdbool.h>
#include <stdint.h>

struct sl_backoff {
    uint32_t base_ms, cap_ms;
    uint32_t tries;  /* So far; 0 resets. */
    uint64_t random; /* State of the generator; seed it with anything. */
};

void sl_backoff_init(struct sl_backoff *backoff, uint32_t base_ms, uint32_t cap_ms, uint64_t seed);
uint32_t sl_backoff_next_ms(struct sl_backoff *backoff); /* Counts a try. */
void sl_backoff_reset(struct sl_backoff *backoff);

/* Token bucket: each call adds a tenth of a token, each retry takes one; it starts at the floor and
 * never exceeds ten times the floor. */
struct sl_retry_budget {
    double tenths; /* Of a token. */
    double floor;
};
void sl_retry_budget_init(struct sl_retry_budget *budget, double floor); /* 10 by default. */
void sl_retry_budget_call(struct sl_retry_budget *budget);
bool sl_retry_budget_take(struct sl_retry_budget *budget); /* false: no retry now. */

#endif
