/* Waits grow within their bounds and spread; retries stay a tenth of the calls. */
#include "common/backoff.h"
#include "tests/support/test.h"

TEST(waits_stay_between_half_the_base_and_the_doubled_one)
{
    for (uint64_t seed = 0; seed < 200; seed++) {
        struct sl_backoff b;
        sl_backoff_init(&b, 100, 5000, seed);
        for (uint32_t n = 0; n < 100; n++) {
            uint32_t high = n < 6 ? 100u << n : 5000u;
            uint32_t wait = sl_backoff_next_ms(&b);
            CHECK(wait >= 50 && wait <= high);
        }
        sl_backoff_reset(&b);
        CHECK(sl_backoff_next_ms(&b) <= 100);
    }
}

TEST(waits_are_spread)
{
    uint64_t sum = 0;
    uint32_t least = UINT32_MAX, most = 0;
    for (uint64_t seed = 0; seed < 1000; seed++) {
        struct sl_backoff b;
        sl_backoff_init(&b, 1000, 1000, seed);
        uint32_t wait = sl_backoff_next_ms(&b);
        sum += wait;
        least = wait < least ? wait : least;
        most = wait > most ? wait : most;
    }
    CHECK(least < 520 && most > 980);
    CHECK(sum > 730 * 1000 && sum < 770 * 1000);
}

TEST(odd_sizes_do_not_overflow)
{
    struct sl_backoff b;
    sl_backoff_init(&b, UINT32_MAX, UINT32_MAX, 1);
    for (int i = 0; i < 100; i++) {
        CHECK(sl_backoff_next_ms(&b) >= UINT32_MAX / 2);
    }
    sl_backoff_init(&b, 0, 0, 1);
    CHECK_INT(sl_backoff_next_ms(&b), 0);
    sl_backoff_init(&b, 1000, 10, 1); /* The cap is below half the base. */
    CHECK_INT(sl_backoff_next_ms(&b), 10);
}

static int take_all(struct sl_retry_budget *budget)
{
    int taken = 0;
    while (sl_retry_budget_take(budget)) {
        taken++;
    }
    return taken;
}

TEST(retries_are_a_tenth_of_the_calls_and_a_floor)
{
    struct sl_retry_budget budget;
    sl_retry_budget_init(&budget, 10);
    CHECK_INT(take_all(&budget), 10);
    for (int i = 0; i < 9; i++) {
        sl_retry_budget_call(&budget);
    }
    CHECK_INT(take_all(&budget), 0);
    sl_retry_budget_call(&budget);
    CHECK_INT(take_all(&budget), 1);
    for (int i = 0; i < 500; i++) {
        sl_retry_budget_call(&budget);
    }
    CHECK_INT(take_all(&budget), 50);
    for (int i = 0; i < 100000; i++) {
        sl_retry_budget_call(&budget);
    }
    CHECK_INT(take_all(&budget), 100); /* Ten floors at most. */
}

int main(int argc, char **argv)
{
    const struct test_case cases[] = {
        {"waits_stay_between_half_the_base_and_the_doubled_one",
         waits_stay_between_half_the_base_and_the_doubled_one},
        {"waits_are_spread", waits_are_spread},
        {"odd_sizes_do_not_overflow", odd_sizes_do_not_overflow},
        {"retries_are_a_tenth_of_the_calls_and_a_floor",
         retries_are_a_tenth_of_the_calls_and_a_floor},
        {NULL, NULL},
    };
    return run_tests(cases, argc, argv);
}
