/* Jobs whose owners died twice, on a real Redis: when they are granted, and what they hold before.
 * A "second" of the coordination is 60 ms here. */
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

static void ask(struct test_job *job, struct sl_coord *coord, const char *id)
{
    test_job_init(job, coord, id);
    test_job_admit(job);
}

static void admit(struct test_job *job, struct sl_coord *coord, const char *id,
                  enum sl_verdict expected)
{
    ask(job, coord, id);
    CHECK_INT(test_job_verdict(&cluster, job), expected);
}

/* As if two workers had died with it, and a third had been told to end. */
static void make_suspect(const char *id)
{
    cluster_say(&cluster, "HSET t:query:%s test \"f gone 3 1700000000000000\"", id);
}

TEST(a_suspect_is_granted_only_by_its_name)
{
    struct test_job job;
    start();
    make_suspect("q1");
    ask(&job, a, "q1");
    UNTIL(&cluster, job.suspected == 1);
    cluster_run(&cluster, 3 * UNIT_MS);
    CHECK(job.suspected == 1 && job.verdicts == 0);
    CHECK_STR(cluster_say(&cluster, "HGET t:query:q1 test"), "f gone 3 1700000000000000");
    sl_admit_hold(a, true, &job.admission);
    CHECK_INT(test_job_verdict(&cluster, &job), SL_VERDICT_GRANTED);
    CHECK_INT(job.admission.attempt, 3);
    cluster_stop(&cluster);
}

TEST(nothing_else_is_granted_while_all_is_held)
{
    struct test_job other, suspect, permitted;
    struct test_permit permit;
    start();
    make_suspect("q1");
    sl_admit_hold(a, true, NULL);
    ask(&other, a, "q2");
    ask(&suspect, a, "q1");
    test_job_init(&permitted, a, "q3");
    test_job_want(&permitted, LIMIT_CHAT);
    test_job_admit(&permitted);
    UNTIL(&cluster, suspect.suspected == 1);
    sl_admit_hold(a, true, &suspect.admission);
    CHECK_INT(test_job_verdict(&cluster, &suspect), SL_VERDICT_GRANTED);
    test_permit_init(&permit, a, LIMIT_CHAT, false);
    test_permit_request(&permit, 60000);
    UNTIL(&cluster, permit.granted == 1); /* What runs gets what it needs. */
    CHECK_INT(other.verdicts + permitted.verdicts, 0);
    CHECK_STR(cluster_say(&cluster, "EXISTS t:query:q2 t:query:q3"), "0");
    sl_admit_hold(a, false, NULL);
    CHECK_INT(test_job_verdict(&cluster, &other), SL_VERDICT_GRANTED);
    UNTIL(&cluster, permitted.verdicts == 1);
    CHECK_INT(permitted.verdict, SL_VERDICT_GRANTED);
    cluster_stop(&cluster);
}

TEST(what_is_held_is_told_that_it_was_cancelled_or_has_expired)
{
    struct test_job cancelled, expired;
    start();
    make_suspect("q1");
    sl_admit_hold(a, true, NULL);
    ask(&cancelled, a, "q1");
    test_job_init(&expired, a, "q2");
    expired.admission.deadline_ms = sl_coord_now_ms(a) + 3 * UNIT_MS;
    test_job_admit(&expired);
    cluster_run(&cluster, UNIT_MS);
    CHECK(sl_coord_cancel(b, SL_SPAN("q1"), NULL, NULL) == 0);
    CHECK_INT(test_job_verdict(&cluster, &cancelled), SL_VERDICT_CANCELLED);
    UNTIL(&cluster, expired.verdicts == 1);
    CHECK_INT(expired.verdict, SL_VERDICT_EXPIRED);
    cluster_stop(&cluster);
}

/* Two suspects on one worker, one of which kills it. */
TEST(a_suspect_that_waits_loses_nothing_when_its_worker_dies)
{
    struct test_job killer, waiting, killer_again, waiting_again;
    start();
    make_suspect("q1");
    make_suspect("q2");
    ask(&killer, a, "q1");
    ask(&waiting, a, "q2");
    UNTIL(&cluster, killer.suspected + waiting.suspected == 2);
    sl_admit_hold(a, true, &killer.admission);
    CHECK_INT(test_job_verdict(&cluster, &killer), SL_VERDICT_GRANTED);
    cluster_run(&cluster, 2 * UNIT_MS);
    cluster_crash(&cluster, a);
    ask(&waiting_again, b, "q2");
    UNTIL(&cluster, waiting_again.suspected == 1);
    admit(&killer_again, b, "q1", SL_VERDICT_PARKED);
    UNTIL(&cluster, killer_again.retries == 1);
    test_job_admit(&killer_again);
    CHECK_INT(test_job_verdict(&cluster, &killer_again), SL_VERDICT_WORN_OUT);
    sl_admit_hold(b, true, &waiting_again.admission);
    CHECK_INT(test_job_verdict(&cluster, &waiting_again), SL_VERDICT_GRANTED);
    CHECK_INT(waiting_again.admission.attempt, 3);
    cluster_stop(&cluster);
}

TEST(a_stream_is_held_only_where_it_would_begin_again)
{
    struct test_job ends, restarts;
    start();
    sl_admit_hold(a, true, NULL);
    cluster_say(&cluster, "HSET t:query:q1 test \"g gone 3 1700000000000000\"");
    cluster_say(&cluster, "HSET t:query:q2 test \"g gone 3 1700000000000000\"");
    test_job_init(&restarts, a, "q2");
    restarts.admission.restarts = true;
    test_job_admit(&restarts);
    admit(&ends, a, "q1", SL_VERDICT_STREAMED);
    UNTIL(&cluster, restarts.suspected == 1);
    CHECK_INT(restarts.verdicts, 0);
    sl_admit_hold(a, true, &restarts.admission);
    CHECK_INT(test_job_verdict(&cluster, &restarts), SL_VERDICT_STREAMED);
    cluster_stop(&cluster);
}

TEST(a_stream_that_begins_again_counts_its_deaths)
{
    struct test_job job;
    start();
    cluster_say(&cluster, "HSET t:query:q1 test \"t gone 3 1700000000000000\"");
    test_job_init(&job, a, "q1");
    job.admission.restarts = true;
    test_job_admit(&job);
    CHECK_INT(test_job_verdict(&cluster, &job), SL_VERDICT_PARKED);
    UNTIL(&cluster, job.retries == 1);
    test_job_admit(&job);
    CHECK_INT(test_job_verdict(&cluster, &job), SL_VERDICT_WORN_OUT);
    CHECK_INT(job.suspected, 0);
    cluster_stop(&cluster);
}

/* Deaths must be counted also of workers that are started again minutes later. */
TEST(bulk_works_deaths_are_remembered_while_nobody_runs_it)
{
    struct test_job job, suspect;
    start();
    test_job_init(&job, a, "b1");
    job.admission.bulk = true;
    job.admission.deadline_ms = 0;
    test_job_admit(&job);
    CHECK_INT(test_job_verdict(&cluster, &job), SL_VERDICT_GRANTED);
    CHECK(atoll(cluster_say(&cluster, "PTTL t:bulk:b1")) > 30 * TTL_MS);
    cluster_say(&cluster, "HSET t:bulk:b2 test \"f gone 3 1700000000000000\"");
    cluster_say(&cluster, "PEXPIRE t:bulk:b2 %d", TTL_MS);
    test_job_init(&suspect, a, "b2");
    suspect.admission.bulk = true;
    suspect.admission.deadline_ms = 0;
    test_job_admit(&suspect);
    UNTIL(&cluster, suspect.suspected == 1);
    CHECK(atoll(cluster_say(&cluster, "PTTL t:bulk:b2")) > 30 * TTL_MS);
    cluster_stop(&cluster);
}

int main(int argc, char **argv)
{
    const struct test_case cases[] = {
        {"a_suspect_is_granted_only_by_its_name", a_suspect_is_granted_only_by_its_name},
        {"nothing_else_is_granted_while_all_is_held", nothing_else_is_granted_while_all_is_held},
        {"what_is_held_is_told_that_it_was_cancelled_or_has_expired",
         what_is_held_is_told_that_it_was_cancelled_or_has_expired},
        {"a_suspect_that_waits_loses_nothing_when_its_worker_dies",
         a_suspect_that_waits_loses_nothing_when_its_worker_dies},
        {"a_stream_is_held_only_where_it_would_begin_again",
         a_stream_is_held_only_where_it_would_begin_again},
        {"a_stream_that_begins_again_counts_its_deaths",
         a_stream_that_begins_again_counts_its_deaths},
        {"bulk_works_deaths_are_remembered_while_nobody_runs_it",
         bulk_works_deaths_are_remembered_while_nobody_runs_it},
        {NULL, NULL},
    };
    return run_tests(cases, argc, argv);
}
