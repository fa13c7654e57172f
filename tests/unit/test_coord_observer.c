/* Who is taken for dead, in virtual time: only an owner whose heartbeat stood still while Redis
 * answered without a gap. */
#include "common/coord_observer.h"
#include "tests/support/test.h"

enum { UNIT = 1000, START = 1000000 };

static struct sl_observer observer;
static uint64_t local;
static int64_t redis_now;

static void start(void)
{
    sl_observer_init(&observer, UNIT);
    local = 5000;
    redis_now = START;
    sl_observer_reply(&observer, local, redis_now);
}

/* A reply after ms on both clocks, and a look at the owner in it. */
static bool look_after(int64_t ms, int64_t heartbeat_ms)
{
    local += (uint64_t)ms;
    redis_now += ms;
    sl_observer_reply(&observer, local, redis_now);
    return sl_observer_look(&observer, SL_SPAN("owner"), heartbeat_ms);
}

TEST(an_owner_is_dead_after_two_looks_five_seconds_apart_at_an_old_heartbeat)
{
    start();
    for (int second = 1; second <= 11; second++) { /* Old after 6, seen for 5 more. */
        CHECK(!look_after(UNIT, START));
    }
    CHECK(look_after(UNIT, START));
    CHECK(look_after(UNIT, START));
}

TEST(an_owner_that_beats_lives)
{
    start();
    for (int second = 1; second <= 60; second++) {
        CHECK(!look_after(UNIT, START + second / 10 * 10 * UNIT));
    }
}

TEST(an_owner_without_a_heartbeat_is_dead_five_seconds_later)
{
    start();
    for (int second = 1; second <= 5; second++) {
        CHECK(!look_after(UNIT, 0));
    }
    CHECK(!look_after(UNIT - 1, 0));
    CHECK(look_after(1, 0));
}

TEST(a_gap_between_replies_begins_all_anew)
{
    start();
    for (int second = 1; second <= 10; second++) {
        CHECK(!look_after(UNIT, START));
    }
    CHECK(!look_after(2 * UNIT + 1, START)); /* Redis, or this process, paused. */
    for (int second = 1; second <= 4; second++) {
        CHECK(!look_after(UNIT, START));
    }
    CHECK(look_after(UNIT, START));
}

TEST(a_gap_on_the_clock_of_redis_alone_counts_too)
{
    start();
    for (int second = 1; second <= 10; second++) {
        CHECK(!look_after(UNIT, START));
    }
    redis_now += 3 * UNIT;
    CHECK(!look_after(UNIT, START));
    CHECK(!look_after(UNIT, START));
}

static bool steady_after(int64_t local_ms, int64_t redis_ms)
{
    local += (uint64_t)local_ms;
    redis_now += redis_ms;
    sl_observer_reply(&observer, local, redis_now);
    return sl_observer_steady(&observer, local);
}

TEST(redis_is_steady_when_it_answered_for_five_seconds_without_a_gap)
{
    sl_observer_init(&observer, UNIT);
    CHECK(!sl_observer_steady(&observer, 100 * UNIT));
    start();
    CHECK(!sl_observer_steady(&observer, local));
    for (int second = 1; second <= 4; second++) {
        CHECK(!steady_after(UNIT, UNIT));
    }
    CHECK(steady_after(UNIT, UNIT));
    CHECK(steady_after(2 * UNIT, 2 * UNIT));
    CHECK(!sl_observer_steady(&observer, local + 2 * UNIT + 1)); /* It may have paused since. */
    CHECK(!steady_after(UNIT, 3 * UNIT));
    for (int second = 1; second <= 4; second++) {
        CHECK(!steady_after(UNIT, UNIT));
    }
    CHECK(steady_after(UNIT, UNIT));
    CHECK(!steady_after(3 * UNIT, UNIT));
}

TEST(an_owner_that_beats_again_is_alive_again)
{
    start();
    for (int second = 1; second <= 12; second++) {
        (void)look_after(UNIT, START);
    }
    CHECK(look_after(UNIT, START));
    CHECK(!look_after(UNIT, redis_now));
    CHECK(!look_after(UNIT, redis_now - UNIT));
}

TEST(more_owners_than_fit_cost_only_the_one_not_seen_longest)
{
    char name[SL_OWNER_MAX];
    start();
    for (int i = 0; i <= SL_OBSERVED_MAX; i++) {
        redis_now++;
        sl_observer_reply(&observer, ++local, redis_now);
        snprintf(name, sizeof(name), "o%d", i);
        CHECK(!sl_observer_look(&observer, sl_span_of(name), 0));
    }
    local += 5000 - SL_OBSERVED_MAX + 1;
    redis_now += 5000 - SL_OBSERVED_MAX + 1;
    observer.reply_local_ms = local; /* No gap: others were looked at meanwhile. */
    observer.reply_redis_ms = redis_now;
    CHECK(sl_observer_look(&observer, SL_SPAN("o1"), 0));
    CHECK(!sl_observer_look(&observer, SL_SPAN("o0"), 0));
}

int main(int argc, char **argv)
{
    const struct test_case cases[] = {
        {"an_owner_is_dead_after_two_looks_five_seconds_apart_at_an_old_heartbeat",
         an_owner_is_dead_after_two_looks_five_seconds_apart_at_an_old_heartbeat},
        {"an_owner_that_beats_lives", an_owner_that_beats_lives},
        {"an_owner_without_a_heartbeat_is_dead_five_seconds_later",
         an_owner_without_a_heartbeat_is_dead_five_seconds_later},
        {"a_gap_between_replies_begins_all_anew", a_gap_between_replies_begins_all_anew},
        {"a_gap_on_the_clock_of_redis_alone_counts_too",
         a_gap_on_the_clock_of_redis_alone_counts_too},
        {"redis_is_steady_when_it_answered_for_five_seconds_without_a_gap",
         redis_is_steady_when_it_answered_for_five_seconds_without_a_gap},
        {"an_owner_that_beats_again_is_alive_again", an_owner_that_beats_again_is_alive_again},
        {"more_owners_than_fit_cost_only_the_one_not_seen_longest",
         more_owners_than_fit_cost_only_the_one_not_seen_longest},
        {NULL, NULL},
    };
    return run_tests(cases, argc, argv);
}
