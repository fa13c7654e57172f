/* What the coordination keeps while Redis loses its state, hangs, restarts or is full: no more
 * holders than the limit, no claim that two run, nothing settled that is forgotten. A "second" of
 * the coordination is 60 ms here. */
#include "tests/support/coord_fixture.h"

enum { TTL_MS = 900, UNIT_MS = TTL_MS / 15 };

static struct cluster cluster;
static struct sl_coord *a, *b;

static void start(void)
{
    cluster_start(&cluster, TTL_MS);
    cluster_skip_quarantine(&cluster);
    a = cluster_join(&cluster, "a");
    b = cluster_join(&cluster, "b");
}

static void restart(void)
{
    redis_fixture_kill(cluster.redis);
    redis_fixture_start(cluster.redis);
    UNTIL(&cluster, !sl_coord_ready(a) || !sl_coord_ready(b));
    UNTIL(&cluster, sl_coord_ready(a) && sl_coord_ready(b));
}

static void admit(struct test_job *job, struct sl_coord *coord, const char *id,
                  enum sl_verdict expected)
{
    test_job_init(job, coord, id);
    test_job_admit(job);
    CHECK_INT(test_job_verdict(&cluster, job), expected);
}

/* --- leases and claims, one by one --- */

TEST(what_runs_survives_that_redis_forgets_it)
{
    struct test_job running, same, other;
    start();
    test_job_init(&running, a, "q1");
    test_job_want(&running, LIMIT_CHAT);
    test_job_admit(&running);
    CHECK_INT(test_job_verdict(&cluster, &running), SL_VERDICT_GRANTED);
    cluster_say(&cluster, "FLUSHALL");
    test_job_init(&same, b, "q1");
    test_job_init(&other, b, "q2");
    test_job_admit(&same);
    test_job_admit(&other);
    cluster_run(&cluster, 6 * UNIT_MS);           /* A renewal, in the quarantine. */
    CHECK_INT(same.verdicts + other.verdicts, 1); /* The claim is back; the rest waits. */
    UNTIL(&cluster, same.verdicts + other.verdicts == 2);
    CHECK_INT(same.verdict, SL_VERDICT_PARKED);
    CHECK_INT(other.verdict, SL_VERDICT_GRANTED);
    CHECK_STR(cluster_say(&cluster, "ZCARD t:permits:CHAT:query"), "1");
    CHECK_INT(running.lost + running.permits[0].lost, 0);
    cluster_stop(&cluster);
}

TEST(what_is_being_shown_stays_so_when_redis_forgets_it)
{
    struct test_job running;
    start();
    admit(&running, a, "q1", SL_VERDICT_GRANTED);
    CHECK(sl_claim_stream(a, &running.admission, NULL, NULL) == 0);
    UNTIL(&cluster, sl_coord_idle(a));
    cluster_say(&cluster, "FLUSHALL");
    UNTIL(&cluster, strncmp(cluster_say(&cluster, "HGET t:query:q1 test"), "t a", 3) == 0);
    CHECK(atoll(cluster_say(&cluster, "PTTL t:query:q1")) > 0);
    CHECK_INT(running.lost, 0);
    cluster_stop(&cluster);
}

static void check_claim(const char *id, const char *state, const struct test_job *job)
{
    char expected[64];
    snprintf(expected, sizeof(expected), "%s a 1 %llu", state,
             (unsigned long long)job->admission.fence);
    CHECK_STR(cluster_say(&cluster, "HGET t:query:%s test", id), expected);
    CHECK(atoll(cluster_say(&cluster, "PTTL t:query:%s", id)) > 0);
}

TEST(what_redis_forgot_can_still_be_given_back)
{
    struct test_job shown, quiet, older, newer, next;
    start();
    admit(&shown, a, "shown", SL_VERDICT_GRANTED);
    admit(&quiet, a, "quiet", SL_VERDICT_GRANTED);
    admit(&older, a, "older", SL_VERDICT_GRANTED);
    admit(&newer, a, "newer", SL_VERDICT_GRANTED);
    CHECK(sl_claim_stream(a, &shown.admission, NULL, NULL) == 0);
    UNTIL(&cluster, sl_coord_idle(a));
    cluster_say(&cluster, "FLUSHALL");
    cluster_say(&cluster, "HSET t:query:older test \"s z 1 1700000000000000\"");
    cluster_say(&cluster, "EXPIRE t:query:older 100");
    cluster_say(&cluster, "HSET t:query:newer test \"s z 2 %llu\"",
                (unsigned long long)newer.admission.fence + 1);
    sl_claim_give_back(a, &shown.admission);
    sl_claim_give_back(a, &quiet.admission);
    sl_claim_give_back(a, &older.admission);
    sl_claim_give_back(a, &newer.admission);
    UNTIL(&cluster, sl_coord_idle(a));
    check_claim("shown", "g", &shown);
    check_claim("quiet", "f", &quiet);
    check_claim("older", "f", &older);
    CHECK(strncmp(cluster_say(&cluster, "HGET t:query:newer test"), "s z 2 ", 6) == 0);
    admit(&next, b, "shown", SL_VERDICT_STREAMED); /* Not begun again unasked. */
    cluster_stop(&cluster);
}

TEST(what_vanished_for_another_reason_is_not_given_back)
{
    struct test_job job;
    start();
    admit(&job, a, "q1", SL_VERDICT_GRANTED);
    cluster_say(&cluster, "DEL t:query:q1"); /* It may have ended, long ago. */
    sl_claim_give_back(a, &job.admission);
    UNTIL(&cluster, sl_coord_idle(a));
    CHECK_STR(cluster_say(&cluster, "EXISTS t:query:q1"), "0");
    cluster_stop(&cluster);
}

TEST(in_the_quarantine_the_highest_fence_wins)
{
    struct test_job old, new;
    start();
    admit(&old, a, "q1", SL_VERDICT_GRANTED);
    cluster_say(&cluster, "SAVE");
    sl_claim_give_back(a, &old.admission);
    UNTIL(&cluster, sl_coord_idle(a));
    admit(&new, b, "q1", SL_VERDICT_GRANTED);
    restart(); /* As it was at the SAVE: a's claim. */
    UNTIL(&cluster, strncmp(cluster_say(&cluster, "HGET t:query:q1 test"), "s b", 3) == 0);
    cluster_run(&cluster, TTL_MS);
    CHECK_INT(new.lost, 0);
    cluster_stop(&cluster);
}

TEST(an_ending_in_the_quarantine_is_stored)
{
    struct test_job job;
    start();
    admit(&job, a, "q1", SL_VERDICT_GRANTED);
    cluster_say(&cluster, "FLUSHALL");
    CHECK(sl_claim_end(a, SL_SPAN("q1"), "test", job.admission.fence, "done", SL_SPAN("the end"),
                       NULL, NULL) == 0);
    test_job_done(&job);
    UNTIL(&cluster, job.done_calls == 1);
    CHECK_INT(job.done_err, 0);
    CHECK_STR(cluster_say(&cluster, "HGET t:query:q1 .end"), "the end");
    cluster_stop(&cluster);
}

TEST(a_claim_or_lease_that_vanished_is_lost)
{
    struct test_job job;
    start();
    test_job_init(&job, a, "q1");
    test_job_want(&job, LIMIT_CHAT);
    test_job_admit(&job);
    CHECK_INT(test_job_verdict(&cluster, &job), SL_VERDICT_GRANTED);
    cluster_say(&cluster, "DEL t:query:q1 t:permits:CHAT:query");
    UNTIL(&cluster, job.lost == 1 && job.permits[0].lost == 1);
    CHECK_INT(sl_permit_held(a, LIMIT_CHAT), 0);
    sl_admit_withdraw(a, &job.admission);
    cluster_stop(&cluster);
}

TEST(a_lease_that_ended_on_redis_is_not_revived)
{
    struct test_permit p;
    start();
    test_permit_init(&p, a, LIMIT_CHAT, false);
    test_permit_request(&p, 60000);
    UNTIL(&cluster, p.granted == 1);
    cluster_say(&cluster, "ZADD t:permits:CHAT:query 1 a:%llu",
                (unsigned long long)p.permit.serial);
    UNTIL(&cluster, p.lost == 1);
    cluster_stop(&cluster);
}

TEST(a_lease_that_cannot_be_renewed_ends_here_before_it_ends_on_redis)
{
    struct test_permit p;
    start();
    test_permit_init(&p, a, LIMIT_CHAT, false);
    test_permit_request(&p, 60000);
    UNTIL(&cluster, p.granted == 1);
    cluster_run(&cluster, 6 * UNIT_MS); /* Renewed once. */
    char member[40];
    snprintf(member, sizeof(member), "a:%llu", (unsigned long long)p.permit.serial);
    long long ends = atoll(cluster_say(&cluster, "ZSCORE t:permits:CHAT:query %s", member));
    redis_fixture_pause(cluster.redis);
    UNTIL(&cluster, p.lost == 1);
    CHECK(p.permit.lease_end_ms + UNIT_MS <=
          (uint64_t)(ends - sl_coord_now_ms(a)) + sl_clock_now_ms() + 2);
    redis_fixture_resume(cluster.redis);
    cluster_stop(&cluster);
}

TEST(what_is_settled_while_redis_is_away_is_written_when_it_is_back)
{
    struct test_job job, next, again;
    start();
    admit(&job, a, "q1", SL_VERDICT_GRANTED);
    redis_fixture_kill(cluster.redis);
    UNTIL(&cluster, !sl_coord_ready(a));
    test_job_done(&job);
    test_job_init(&next, b, "q2"); /* Waits for it, too. */
    test_job_admit(&next);
    cluster_run(&cluster, 3 * UNIT_MS);
    CHECK_INT(job.done_calls + next.verdicts, 0);
    redis_fixture_start(cluster.redis);
    UNTIL(&cluster, job.done_calls == 1 && next.verdicts == 1);
    CHECK_INT(job.done_err, 0);
    CHECK_INT(next.verdict, SL_VERDICT_GRANTED);
    admit(&again, b, "q1", SL_VERDICT_DONE);
    cluster_stop(&cluster);
}

TEST(an_admission_withdrawn_after_its_answer_was_lost_leaves_no_claim)
{
    struct test_job lost, next;
    start();
    redis_fixture_pause(cluster.redis);
    test_job_init(&lost, a, "q1");
    test_job_admit(&lost);
    UNTIL(&cluster, lost.admission.state == SL_ADMIT_ASKED);
    UNTIL(&cluster, lost.admission.state == SL_ADMIT_WAITING);
    sl_admit_withdraw(a, &lost.admission);
    redis_fixture_resume(cluster.redis); /* Which now reads what was asked. */
    UNTIL(&cluster, sl_coord_idle(a));
    CHECK_STR(cluster_say(&cluster, "EXISTS t:query:q1"), "1");
    admit(&next, b, "q1", SL_VERDICT_GRANTED);
    cluster_stop(&cluster);
}

TEST(a_redis_that_is_full_grants_nothing_and_takes_permits_back)
{
    struct test_permit held, waiting;
    start();
    test_permit_init(&held, a, LIMIT_CHAT, false);
    test_permit_request(&held, 60000);
    UNTIL(&cluster, held.granted == 1);
    cluster_say(&cluster, "CONFIG SET maxmemory 1");
    UNTIL(&cluster, !sl_coord_ready(a));
    test_permit_init(&waiting, a, LIMIT_CHAT, false);
    test_permit_request(&waiting, 60000);
    sl_permit_release(a, &held.permit);
    UNTIL(&cluster, sl_coord_idle(a));
    CHECK_STR(cluster_say(&cluster, "ZCARD t:permits:CHAT:query"), "0");
    CHECK_INT(waiting.granted, 0);
    cluster_say(&cluster, "CONFIG SET maxmemory 0");
    UNTIL(&cluster, waiting.granted == 1);
    cluster_stop(&cluster);
}

/* --- forty competitors for eight permits --- */

enum { HOLDERS = 40, LIMIT = 8, WARM_MS = 300, GRANTS_AFTER = 40 };

struct holder {
    struct sl_permit permit;
    struct sl_coord *coord;
    struct sl_timer timer;
    uint32_t random;
};

static struct holder holders[HOLDERS];
static int grants, losses;

static void ask(struct holder *holder)
{
    sl_permit_request(holder->coord, &holder->permit, sl_coord_now_ms(holder->coord) + 60000);
}

static void on_hold_over(struct sl_timer *timer)
{
    struct holder *holder = SL_ITEM(timer, struct holder, timer);
    sl_permit_release(holder->coord, &holder->permit);
    ask(holder);
}

/* The ledger: who holds, by each holder's own word. A lease that is over by now counts no more,
 * though its holder's timer may only be the next thing on this loop that all share. */
static void check_holders(void)
{
    int holding = 0;
    for (int i = 0; i < HOLDERS; i++) {
        holding += holders[i].permit.state == SL_PERMIT_HELD &&
                   holders[i].permit.lease_end_ms > sl_clock_now_ms();
    }
    CHECK(holding <= LIMIT);
}

static void on_granted(struct sl_permit *permit, int err)
{
    struct holder *holder = SL_ITEM(permit, struct holder, permit);
    CHECK_INT(err, 0);
    grants++;
    check_holders();
    holder->random = holder->random * 1664525 + 1013904223;
    uint32_t draw = holder->random >> 16;
    uint64_t hold_ms = draw % 8 == 0 ? TTL_MS + draw % TTL_MS : 5 + draw % 50;
    sl_timer_start(cluster.loop, &holder->timer, hold_ms, on_hold_over);
}

static void on_lost(struct sl_permit *permit)
{
    struct holder *holder = SL_ITEM(permit, struct holder, permit);
    losses++;
    sl_timer_stop(cluster.loop, &holder->timer);
    ask(holder);
}

static void compete(void)
{
    cluster_start(&cluster, TTL_MS);
    cluster_skip_quarantine(&cluster);
    grants = losses = 0;
    memset(holders, 0, sizeof(holders));
    for (uint32_t i = 0; i < HOLDERS; i++) {
        holders[i] = (struct holder){.coord = cluster_join(&cluster, NULL), .random = i};
        sl_permit_init(&holders[i].permit, LIMIT_WIDE, i % 2 == 1, on_granted, on_lost);
        ask(&holders[i]);
    }
    cluster_run(&cluster, WARM_MS);
    CHECK(grants > LIMIT);
}

/* It goes on after the fault. */
static void conclude(void)
{
    grants = 0;
    UNTIL(&cluster, grants >= GRANTS_AFTER);
    for (int i = 0; i < HOLDERS; i++) {
        sl_timer_stop(cluster.loop, &holders[i].timer);
    }
    cluster_stop(&cluster);
}

TEST(the_limit_holds_when_redis_is_flushed)
{
    compete();
    cluster_say(&cluster, "FLUSHALL");
    conclude();
    CHECK_INT(losses, 0);
}

TEST(the_limit_holds_when_redis_restarts_empty)
{
    compete();
    redis_fixture_kill(cluster.redis);
    redis_fixture_start(cluster.redis);
    conclude();
}

TEST(the_limit_holds_when_redis_restarts_from_an_older_snapshot)
{
    compete();
    cluster_say(&cluster, "SAVE");
    cluster_run(&cluster, TTL_MS); /* Whoever held then has renewed or gone. */
    redis_fixture_kill(cluster.redis);
    redis_fixture_start(cluster.redis);
    conclude();
}

TEST(the_limit_holds_when_redis_pauses_for_longer_than_a_lease)
{
    compete();
    redis_fixture_pause(cluster.redis);
    cluster_run(&cluster, TTL_MS + 3 * UNIT_MS);
    CHECK(losses > 0);
    redis_fixture_resume(cluster.redis);
    conclude();
}

int main(int argc, char **argv)
{
    const struct test_case cases[] = {
        {"what_runs_survives_that_redis_forgets_it", what_runs_survives_that_redis_forgets_it},
        {"what_is_being_shown_stays_so_when_redis_forgets_it",
         what_is_being_shown_stays_so_when_redis_forgets_it},
        {"what_redis_forgot_can_still_be_given_back", what_redis_forgot_can_still_be_given_back},
        {"what_vanished_for_another_reason_is_not_given_back",
         what_vanished_for_another_reason_is_not_given_back},
        {"in_the_quarantine_the_highest_fence_wins", in_the_quarantine_the_highest_fence_wins},
        {"an_ending_in_the_quarantine_is_stored", an_ending_in_the_quarantine_is_stored},
        {"a_claim_or_lease_that_vanished_is_lost", a_claim_or_lease_that_vanished_is_lost},
        {"a_lease_that_ended_on_redis_is_not_revived", a_lease_that_ended_on_redis_is_not_revived},
        {"a_lease_that_cannot_be_renewed_ends_here_before_it_ends_on_redis",
         a_lease_that_cannot_be_renewed_ends_here_before_it_ends_on_redis},
        {"what_is_settled_while_redis_is_away_is_written_when_it_is_back",
         what_is_settled_while_redis_is_away_is_written_when_it_is_back},
        {"an_admission_withdrawn_after_its_answer_was_lost_leaves_no_claim",
         an_admission_withdrawn_after_its_answer_was_lost_leaves_no_claim},
        {"a_redis_that_is_full_grants_nothing_and_takes_permits_back",
         a_redis_that_is_full_grants_nothing_and_takes_permits_back},
        {"the_limit_holds_when_redis_is_flushed", the_limit_holds_when_redis_is_flushed},
        {"the_limit_holds_when_redis_restarts_empty", the_limit_holds_when_redis_restarts_empty},
        {"the_limit_holds_when_redis_restarts_from_an_older_snapshot",
         the_limit_holds_when_redis_restarts_from_an_older_snapshot},
        {"the_limit_holds_when_redis_pauses_for_longer_than_a_lease",
         the_limit_holds_when_redis_pauses_for_longer_than_a_lease},
        {NULL, NULL},
    };
    return run_tests(cases, argc, argv);
}
