/* What may be committed is the prefix in which every offset has ended, whatever the order. */
#include "common/window.h"
#include "tests/support/test.h"

TEST(ends_in_order_move_the_base)
{
    struct sl_window w;
    sl_window_init(&w);
    CHECK_INT(w.base, -1);
    CHECK_INT(sl_window_take(&w, 100), 0);
    CHECK_INT(w.base, 100);
    CHECK(sl_window_end(&w, 100));
    CHECK_INT(w.base, 101);
    CHECK(w.done == NULL); /* No bitmap for a window of one. */
    sl_window_fini(&w);
}

TEST(a_gap_is_not_committed_past)
{
    struct sl_window w;
    sl_window_init(&w);
    for (int64_t i = 10; i < 14; i++) {
        CHECK_INT(sl_window_take(&w, i), 0);
    }
    CHECK(!sl_window_end(&w, 11));
    CHECK(!sl_window_end(&w, 13));
    CHECK_INT(w.base, 10);
    CHECK(sl_window_end(&w, 10));
    CHECK_INT(w.base, 12);
    CHECK(sl_window_end(&w, 12));
    CHECK_INT(w.base, 14);
    CHECK_INT(w.in_flight, 0);
    sl_window_fini(&w);
}

TEST(offsets_that_the_log_skips_count_as_ended)
{
    struct sl_window w;
    sl_window_init(&w);
    CHECK_INT(sl_window_take(&w, 5), 0);
    CHECK_INT(sl_window_take(&w, 500), 0);
    CHECK(sl_window_end(&w, 5));
    CHECK_INT(w.base, 500);
    CHECK(sl_window_end(&w, 500));
    CHECK_INT(sl_window_take(&w, 1000000), 0); /* Nothing in flight: any distance. */
    CHECK_INT(w.base, 1000000);
    sl_window_fini(&w);
}

TEST(an_offset_delivered_twice_is_refused)
{
    struct sl_window w;
    sl_window_init(&w);
    CHECK_INT(sl_window_take(&w, 7), 0);
    CHECK_INT(sl_window_take(&w, 7), -SL_EINVAL);
    CHECK(sl_window_end(&w, 7));
    CHECK_INT(sl_window_take(&w, 3), -SL_EINVAL);
    CHECK_INT(w.in_flight, 0);
    sl_window_fini(&w);
}

TEST(a_full_window_takes_no_more_until_its_base_moves)
{
    struct sl_window w;
    sl_window_init(&w);
    for (int64_t i = 0; i < SL_WINDOW_SIZE; i++) {
        CHECK(!sl_window_full(&w, i));
        CHECK_INT(sl_window_take(&w, i), 0);
    }
    CHECK(sl_window_full(&w, SL_WINDOW_SIZE));
    CHECK_INT(sl_window_take(&w, SL_WINDOW_SIZE), -SL_EAGAIN);
    for (int64_t i = SL_WINDOW_SIZE - 1; i > 0; i--) {
        CHECK(!sl_window_end(&w, i));
    }
    CHECK_INT(sl_window_take(&w, SL_WINDOW_SIZE), -SL_EAGAIN);
    CHECK(sl_window_end(&w, 0));
    CHECK_INT(w.base, SL_WINDOW_SIZE);
    CHECK_INT(sl_window_take(&w, SL_WINDOW_SIZE), 0);
    sl_window_fini(&w);
}

/* The naive model: a list of offsets in flight, in order; the base is its first. */
enum { MOST = 3000 };
static int64_t in_flight[MOST];
static size_t count;

static uint32_t random_state;

static uint32_t random_below(uint32_t n)
{
    random_state = random_state * 1664525u + 1013904223u;
    return (uint32_t)((uint64_t)(random_state >> 8) * n >> 24);
}

static void end_one(struct sl_window *w)
{
    size_t i = random_below(4) == 0 ? 0 : random_below((uint32_t)count);
    int64_t offset = in_flight[i];
    memmove(&in_flight[i], &in_flight[i + 1], (count - i - 1) * sizeof(in_flight[0]));
    count--;
    CHECK(sl_window_end(w, offset) == (i == 0));
}

static void run_random(uint32_t seed)
{
    struct sl_window w;
    random_state = seed;
    count = 0;
    int64_t next = random_below(1000000);
    bool was_full = false;
    sl_window_init(&w);
    for (int step = 0; step < 20000; step++) {
        if (count < MOST && random_below(100) < (step / 2000 % 2 == 0 ? 70 : 40)) {
            int64_t oldest = count > 0 ? in_flight[0] : next;
            int rv = sl_window_take(&w, next);
            CHECK_INT(rv, next - oldest >= SL_WINDOW_SIZE ? -SL_EAGAIN : 0);
            was_full = was_full || rv != 0;
            if (rv == 0) {
                in_flight[count++] = next;
                next += random_below(10) == 0 ? 1 + random_below(1000) : 1;
            }
        } else if (count > 0) {
            end_one(&w);
        }
        CHECK_INT(w.in_flight, count);
        if (count > 0) {
            CHECK_INT(w.base, in_flight[0]);
        }
    }
    while (count > 0) {
        end_one(&w);
    }
    CHECK_INT(w.base, w.end);
    CHECK(was_full); /* Else the test has not seen the edge. */
    sl_window_fini(&w);
}

TEST(any_order_gives_what_a_naive_set_gives)
{
    for (uint32_t seed = 1; seed <= 20; seed++) {
        fprintf(stderr, "  seed %u\n", seed);
        run_random(seed);
    }
}

int main(int argc, char **argv)
{
    const struct test_case cases[] = {
        {"ends_in_order_move_the_base", ends_in_order_move_the_base},
        {"a_gap_is_not_committed_past", a_gap_is_not_committed_past},
        {"offsets_that_the_log_skips_count_as_ended", offsets_that_the_log_skips_count_as_ended},
        {"an_offset_delivered_twice_is_refused", an_offset_delivered_twice_is_refused},
        {"a_full_window_takes_no_more_until_its_base_moves",
         a_full_window_takes_no_more_until_its_base_moves},
        {"any_order_gives_what_a_naive_set_gives", any_order_gives_what_a_naive_set_gives},
        {NULL, NULL},
    };
    return run_tests(cases, argc, argv);
}
