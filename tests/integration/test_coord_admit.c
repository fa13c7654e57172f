/* Admission and permits among members of a small cluster on a real Redis. */
#include "tests/support/coord_fixture.h"

enum { TTL_MS = 3000 };

static struct cluster cluster;
static struct sl_coord *a, *b;

static void start(void)
{
    cluster_start(&cluster, TTL_MS);
    cluster_skip_quarantine(&cluster);
    a = cluster_join(&cluster, "a");
    b = cluster_join(&cluster, "b");
}

static void hold(struct test_permit *p, struct sl_coord *coord, size_t limit)
{
    test_permit_init(p, coord, limit, false);
    test_permit_request(p, 60000);
    UNTIL(&cluster, p->granted == 1);
}

TEST(a_job_runs_once_and_is_done_for_all)
{
    struct test_job first, again, other;
    start();
    test_job_init(&first, a, "q1");
    test_job_admit(&first);
    CHECK_INT(first.verdicts, 0); /* Never inside the call. */
    CHECK_INT(test_job_verdict(&cluster, &first), SL_VERDICT_GRANTED);
    CHECK_INT(first.admission.attempt, 1);
    CHECK(first.admission.fence > 1000000000000000ULL);
    test_job_done(&first);
    UNTIL(&cluster, first.done_calls == 1);
    CHECK_INT(first.done_err, 0);
    test_job_init(&again, a, "q1");
    test_job_admit(&again);
    CHECK_INT(test_job_verdict(&cluster, &again), SL_VERDICT_DONE);
    test_job_init(&other, b, "q1");
    test_job_admit(&other);
    CHECK_INT(test_job_verdict(&cluster, &other), SL_VERDICT_DONE);
    cluster_stop(&cluster);
}

TEST(a_claim_that_was_given_back_is_granted_again_with_a_higher_fence)
{
    struct test_job first, second;
    start();
    test_job_init(&first, a, "q1");
    test_job_admit(&first);
    CHECK_INT(test_job_verdict(&cluster, &first), SL_VERDICT_GRANTED);
    sl_claim_give_back(a, &first.admission);
    UNTIL(&cluster, sl_coord_idle(a));
    test_job_init(&second, b, "q1");
    test_job_admit(&second);
    CHECK_INT(test_job_verdict(&cluster, &second), SL_VERDICT_GRANTED);
    CHECK_INT(second.admission.attempt, 1);
    CHECK(second.admission.fence > first.admission.fence);
    cluster_stop(&cluster);
}

TEST(bulk_work_leaves_no_claim_when_it_is_done)
{
    struct test_job job;
    start();
    for (int i = 0; i < 2; i++) {
        test_job_init(&job, a, "batch");
        job.admission.bulk = true;
        job.admission.deadline_ms = 0;
        test_job_admit(&job);
        CHECK_INT(test_job_verdict(&cluster, &job), SL_VERDICT_GRANTED);
        CHECK_STR(cluster_say(&cluster, "EXISTS t:bulk:batch"), "1");
        test_job_done(&job);
        UNTIL(&cluster, job.done_calls == 1);
        CHECK_STR(cluster_say(&cluster, "EXISTS t:bulk:batch"), "0");
    }
    cluster_stop(&cluster);
}

TEST(what_expired_or_was_cancelled_is_claimed_to_be_ended)
{
    struct test_job late, cancelled;
    start();
    test_job_init(&late, a, "late");
    late.admission.deadline_ms = sl_coord_now_ms(a) - 1;
    test_job_want(&late, LIMIT_CHAT);
    test_job_admit(&late);
    CHECK_INT(test_job_verdict(&cluster, &late), SL_VERDICT_EXPIRED);
    CHECK(late.admission.fence > 0);
    CHECK_INT(sl_permit_held(a, LIMIT_CHAT), 0);
    CHECK(sl_coord_cancel(b, SL_SPAN("gone"), NULL, NULL) == 0);
    UNTIL(&cluster, sl_coord_idle(b));
    test_job_init(&cancelled, a, "gone");
    test_job_admit(&cancelled);
    CHECK_INT(test_job_verdict(&cluster, &cancelled), SL_VERDICT_CANCELLED);
    CHECK_INT(cancelled.cancelled, 0); /* Once is enough. */
    cluster_run(&cluster, TTL_MS / 2);
    CHECK_INT(cancelled.cancelled, 0);
    cluster_stop(&cluster);
}

TEST(without_a_claim_only_checks_and_permits_count)
{
    struct test_job one, two;
    start();
    test_job_init(&one, a, "q1");
    test_job_init(&two, b, "q1");
    one.admission.no_claim = two.admission.no_claim = true;
    test_job_want(&one, LIMIT_CHAT);
    test_job_want(&two, LIMIT_CHAT);
    test_job_admit(&one);
    test_job_admit(&two);
    CHECK_INT(test_job_verdict(&cluster, &one), SL_VERDICT_GRANTED);
    UNTIL(&cluster, two.verdicts == 1);
    CHECK_INT(two.verdict, SL_VERDICT_GRANTED);
    CHECK_STR(cluster_say(&cluster, "EXISTS t:query:q1"), "0");
    CHECK_INT(sl_permit_held(a, LIMIT_CHAT) + sl_permit_held(b, LIMIT_CHAT), 2);
    cluster_stop(&cluster);
}

TEST(an_admission_waits_without_a_claim_until_a_permit_is_free)
{
    struct test_permit held[2];
    struct test_job job;
    start();
    hold(&held[0], b, LIMIT_CHAT);
    hold(&held[1], b, LIMIT_CHAT);
    test_job_init(&job, a, "q1");
    test_job_want(&job, LIMIT_CHAT);
    test_job_admit(&job);
    cluster_run(&cluster, TTL_MS / 10);
    CHECK_INT(job.verdicts, 0);
    CHECK_STR(cluster_say(&cluster, "EXISTS t:query:q1"), "0");
    sl_permit_release(b, &held[0].permit);
    CHECK_INT(test_job_verdict(&cluster, &job), SL_VERDICT_GRANTED);
    CHECK_INT(job.permits[0].permit.state, SL_PERMIT_HELD);
    sl_permit_release(a, &job.permits[0].permit);
    CHECK_INT(sl_permit_held(a, LIMIT_CHAT), 0);
    cluster_stop(&cluster);
}

TEST(one_of_two_wanted_permits_is_enough)
{
    struct test_permit held[2];
    struct test_job job;
    start();
    hold(&held[0], b, LIMIT_CHAT);
    hold(&held[1], b, LIMIT_CHAT);
    test_job_init(&job, a, "q1");
    test_job_want(&job, LIMIT_CHAT);
    test_job_want(&job, LIMIT_WIDE);
    test_job_admit(&job);
    CHECK_INT(test_job_verdict(&cluster, &job), SL_VERDICT_GRANTED);
    CHECK_INT(job.permits[0].permit.state, SL_PERMIT_NONE);
    CHECK_INT(job.permits[1].permit.state, SL_PERMIT_HELD);
    cluster_stop(&cluster);
}

TEST(a_permit_that_comes_back_goes_to_the_earliest_deadline)
{
    struct test_permit held[2], late, early, bulk;
    start();
    hold(&held[0], b, LIMIT_CHAT);
    hold(&held[1], b, LIMIT_CHAT);
    test_permit_init(&bulk, a, LIMIT_CHAT, true);
    test_permit_init(&late, a, LIMIT_CHAT, false);
    test_permit_init(&early, a, LIMIT_CHAT, false);
    test_permit_request(&bulk, 10000);
    test_permit_request(&late, 40000);
    test_permit_request(&early, 20000);
    cluster_run(&cluster, TTL_MS / 15);
    sl_permit_release(b, &held[0].permit);
    UNTIL(&cluster, early.granted + late.granted + bulk.granted == 1);
    CHECK_INT(early.granted, 1);
    sl_permit_release(b, &held[1].permit);
    UNTIL(&cluster, late.granted == 1);
    CHECK_INT(bulk.granted, 0);
    sl_permit_release(a, &late.permit);
    UNTIL(&cluster, bulk.granted == 1);
    cluster_stop(&cluster);
}

TEST(queries_and_bulk_work_have_their_own_most)
{
    struct test_permit query[4], bulk[3];
    int queries = 0, bulks = 0;
    start();
    for (int i = 0; i < 3; i++) {
        test_permit_init(&bulk[i], b, LIMIT_EMBED, true);
        test_permit_request(&bulk[i], 60000);
    }
    UNTIL(&cluster, bulk[0].granted + bulk[1].granted + bulk[2].granted == 2);
    for (int i = 0; i < 4; i++) {
        test_permit_init(&query[i], a, LIMIT_EMBED, false);
        test_permit_request(&query[i], 60000);
    }
    UNTIL(&cluster, query[0].granted + query[1].granted == 2);
    cluster_run(&cluster, TTL_MS / 10);
    for (int i = 0; i < 4; i++) {
        queries += query[i].granted;
        bulks += i < 3 ? bulk[i].granted : 0;
    }
    CHECK_INT(queries, 2); /* 4 in all. */
    CHECK_INT(bulks, 2);
    for (int i = 0; i < 3; i++) {
        sl_permit_release(b, &bulk[i].permit);
    }
    UNTIL(&cluster, query[2].granted == 1);
    cluster_run(&cluster, TTL_MS / 10);
    CHECK_INT(query[3].granted, 0); /* 3 of queries. */
    cluster_stop(&cluster);
}

TEST(a_cool_down_is_kept_by_every_member)
{
    struct test_permit p;
    start();
    sl_permit_cool_down(b, LIMIT_CHAT, 600);
    UNTIL(&cluster, sl_coord_idle(b));
    int64_t from = sl_coord_now_ms(a);
    test_permit_init(&p, a, LIMIT_CHAT, false);
    test_permit_request(&p, 60000);
    UNTIL(&cluster, p.granted == 1);
    CHECK(sl_coord_now_ms(a) - from > 400); /* Less what passed before. */
    cluster_stop(&cluster);
}

/* --- after a cool-down --- */

enum { ASKING = 6 };

static struct test_permit asking[ASKING]; /* Half of them a's, half b's. */

static int count_granted(void)
{
    int count = 0;
    for (int i = 0; i < ASKING; i++) {
        count += asking[i].granted;
    }
    return count;
}

static struct test_permit *find_probe(void)
{
    for (int i = 0; i < ASKING; i++) {
        if (asking[i].permit.state == SL_PERMIT_HELD && asking[i].permit.probe) {
            return &asking[i];
        }
    }
    return NULL;
}

/* Those who ask for one of WIDE's eight permits meet a cool-down that ends soon. */
static void ask_in_cool_down(void)
{
    sl_permit_cool_down(b, LIMIT_WIDE, 200);
    UNTIL(&cluster, sl_coord_idle(b));
    for (int i = 0; i < ASKING; i++) {
        test_permit_init(&asking[i], i % 2 == 0 ? a : b, LIMIT_WIDE, i % 3 == 0);
        test_permit_request(&asking[i], 60000);
    }
    UNTIL(&cluster, count_granted() == 1);
}

TEST(after_a_cool_down_one_at_a_time_probes_until_one_succeeds)
{
    struct test_permit later;
    start();
    ask_in_cool_down();
    for (int probes = 1; probes < 4; probes++) {
        cluster_run(&cluster, TTL_MS / 10); /* Longer than anybody waits to ask again. */
        CHECK_INT(count_granted(), probes);
        struct test_permit *probe = find_probe();
        CHECK(probe != NULL);
        sl_permit_release(probe->coord, &probe->permit); /* It failed. */
        UNTIL(&cluster, count_granted() == probes + 1);
    }
    struct test_permit *probe = find_probe();
    sl_permit_heal(probe->coord, &probe->permit);
    UNTIL(&cluster, count_granted() == ASKING);
    CHECK(find_probe() == NULL);
    CHECK_STR(cluster_say(&cluster, "EXISTS t:cool:WIDE"), "0");
    test_permit_init(&later, b, LIMIT_WIDE, false);
    test_permit_request(&later, 60000);
    UNTIL(&cluster, later.granted == 1);
    CHECK(!later.permit.probe);
    cluster_stop(&cluster);
}

TEST(a_probe_whose_process_died_is_followed_by_another)
{
    start();
    ask_in_cool_down();
    struct sl_coord *dead = find_probe()->coord;
    for (int i = 0; i < ASKING; i++) {
        if (asking[i].coord == dead) { /* As far as Redis knows it holds its lease. */
            asking[i].permit.probe = false;
            asking[i].granted = 0;
        }
    }
    cluster_crash(&cluster, dead);
    cluster_run(&cluster, TTL_MS / 2);
    CHECK_INT(count_granted(), 0);
    UNTIL(&cluster, count_granted() == 1 && find_probe() != NULL);
    cluster_stop(&cluster);
}

TEST(a_new_cool_down_is_not_ended_by_the_probe_before_it)
{
    start();
    ask_in_cool_down();
    struct test_permit *probe = find_probe();
    sl_permit_cool_down(b, LIMIT_WIDE, 600); /* A call that began long ago was refused. */
    UNTIL(&cluster, sl_coord_idle(b));
    sl_permit_heal(probe->coord, &probe->permit);
    sl_permit_release(probe->coord, &probe->permit);
    UNTIL(&cluster, sl_coord_idle(a) && sl_coord_idle(b));
    cluster_run(&cluster, 200);
    CHECK_INT(count_granted(), 1);
    UNTIL(&cluster, count_granted() == 2);
    cluster_run(&cluster, TTL_MS / 10);
    CHECK_INT(count_granted(), 2);
    cluster_stop(&cluster);
}

TEST(a_permit_that_comes_with_a_job_can_be_the_probe)
{
    struct test_job first, second;
    start();
    sl_permit_cool_down(b, LIMIT_WIDE, 100);
    UNTIL(&cluster, sl_coord_idle(b));
    test_job_init(&first, a, "q1");
    test_job_want(&first, LIMIT_CHAT);
    test_job_want(&first, LIMIT_WIDE);
    cluster_run(&cluster, 150);
    test_job_admit(&first);
    CHECK_INT(test_job_verdict(&cluster, &first), SL_VERDICT_GRANTED);
    CHECK(!first.permits[0].permit.probe && first.permits[1].permit.probe);
    test_job_init(&second, b, "q2");
    test_job_want(&second, LIMIT_WIDE);
    test_job_admit(&second);
    cluster_run(&cluster, TTL_MS / 10);
    CHECK_INT(second.verdicts, 0);
    sl_permit_heal(a, &first.permits[0].permit); /* Its limit never cooled: nothing. */
    sl_permit_heal(a, &first.permits[1].permit);
    CHECK_INT(test_job_verdict(&cluster, &second), SL_VERDICT_GRANTED);
    CHECK(!second.permits[0].permit.probe);
    cluster_stop(&cluster);
}

TEST(waiting_costs_no_polling)
{
    struct test_permit held[2], waiting[20];
    start();
    hold(&held[0], b, LIMIT_CHAT);
    hold(&held[1], b, LIMIT_CHAT);
    for (int i = 0; i < 20; i++) {
        test_permit_init(&waiting[i], a, LIMIT_CHAT, false);
        test_permit_request(&waiting[i], 60000);
    }
    cluster_run(&cluster, TTL_MS / 15);
    long long before = cluster_commands(&cluster, "evalsha");
    cluster_run(&cluster, TTL_MS / 3); /* 5 "seconds": as many questions, 5 beats each, renewals. */
    long long calls = cluster_commands(&cluster, "evalsha") - before;
    CHECK(calls >= 5 && calls <= 25);
    cluster_stop(&cluster);
}

/* Leases of a process that died are found out when their limit seems to be full, without a wait. */
TEST(a_lease_that_ended_holds_up_nobody)
{
    struct test_permit p[2];
    start();
    cluster_say(&cluster, "ZADD t:permits:CHAT:query 1 dead:1 2 dead:2");
    hold(&p[0], a, LIMIT_CHAT);
    hold(&p[1], b, LIMIT_CHAT);
    CHECK_STR(cluster_say(&cluster, "ZCARD t:permits:CHAT:query"), "2");
    CHECK_STR(cluster_say(&cluster, "EXISTS t:wanted:CHAT"), "0");
    cluster_stop(&cluster);
}

/* A release finds its way although nothing else is written, and one that somebody waits for goes
 * on. */
TEST(what_waits_for_company_goes_alone_in_the_end)
{
    struct test_permit p[2], waiting;
    start();
    hold(&p[0], a, LIMIT_CHAT);
    hold(&p[1], a, LIMIT_CHAT);
    sl_permit_release(a, &p[0].permit);
    CHECK(!sl_coord_idle(a));
    UNTIL(&cluster, sl_coord_idle(a));
    CHECK_STR(cluster_say(&cluster, "ZCARD t:permits:CHAT:query"), "1");
    hold(&p[0], b, LIMIT_CHAT);
    test_permit_init(&waiting, b, LIMIT_CHAT, false);
    test_permit_request(&waiting, 60000);
    UNTIL(&cluster, strcmp(cluster_say(&cluster, "EXISTS t:wanted:CHAT"), "1") == 0);
    sl_permit_release(a, &p[1].permit);
    UNTIL(&cluster, waiting.granted == 1);
    cluster_stop(&cluster);
}

TEST(permits_expire_by_the_local_clock_while_redis_hangs)
{
    struct test_permit p;
    start();
    redis_fixture_pause(cluster.redis);
    test_permit_init(&p, a, LIMIT_CHAT, false);
    test_permit_request(&p, 200);
    UNTIL(&cluster, p.expired == 1);
    CHECK_INT(p.permit.state, SL_PERMIT_NONE);
    redis_fixture_resume(cluster.redis);
    UNTIL(&cluster, sl_coord_ready(a));
    cluster_stop(&cluster);
}

TEST(what_is_withdrawn_while_it_is_asked_leaves_nothing_behind)
{
    struct test_job job, next;
    struct test_permit p[2];
    start();
    test_job_init(&job, a, "q1");
    test_job_want(&job, LIMIT_CHAT);
    test_job_admit(&job);
    test_permit_init(&p[0], a, LIMIT_CHAT, false);
    test_permit_request(&p[0], 60000);
    UNTIL(&cluster, job.admission.state == SL_ADMIT_ASKED);
    sl_admit_withdraw(a, &job.admission);
    sl_permit_release(a, &p[0].permit);
    UNTIL(&cluster, strcmp(cluster_say(&cluster, "EXISTS t:query:q1"), "1") == 0);
    hold(&p[0], b, LIMIT_CHAT);
    hold(&p[1], b, LIMIT_CHAT);
    test_job_init(&next, b, "q1");
    test_job_admit(&next);
    CHECK_INT(test_job_verdict(&cluster, &next), SL_VERDICT_GRANTED);
    CHECK_INT(job.verdicts, 0);
    cluster_stop(&cluster);
}

TEST(hundreds_of_jobs_of_one_turn_share_their_round_trips)
{
    enum { JOBS = 300 };
    static struct test_job jobs[JOBS];
    static char ids[JOBS][16];
    int granted = 0, done = 0;
    start();
    long long before = cluster_commands(&cluster, "evalsha");
    for (int i = 0; i < JOBS; i++) {
        snprintf(ids[i], sizeof(ids[i]), "j%d", i);
        test_job_init(&jobs[i], a, ids[i]);
        test_job_admit(&jobs[i]);
    }
    for (; granted < JOBS;) {
        UNTIL(&cluster, jobs[granted].verdicts == 1);
        CHECK_INT(jobs[granted++].verdict, SL_VERDICT_GRANTED);
    }
    for (int i = 0; i < JOBS; i++) {
        test_job_done(&jobs[i]);
    }
    for (; done < JOBS; done++) {
        UNTIL(&cluster, jobs[done].done_calls == 1);
    }
    CHECK(cluster_commands(&cluster, "evalsha") - before < 30);
    cluster_stop(&cluster);
}

int main(int argc, char **argv)
{
    const struct test_case cases[] = {
        {"a_job_runs_once_and_is_done_for_all", a_job_runs_once_and_is_done_for_all},
        {"a_claim_that_was_given_back_is_granted_again_with_a_higher_fence",
         a_claim_that_was_given_back_is_granted_again_with_a_higher_fence},
        {"bulk_work_leaves_no_claim_when_it_is_done", bulk_work_leaves_no_claim_when_it_is_done},
        {"what_expired_or_was_cancelled_is_claimed_to_be_ended",
         what_expired_or_was_cancelled_is_claimed_to_be_ended},
        {"without_a_claim_only_checks_and_permits_count",
         without_a_claim_only_checks_and_permits_count},
        {"an_admission_waits_without_a_claim_until_a_permit_is_free",
         an_admission_waits_without_a_claim_until_a_permit_is_free},
        {"one_of_two_wanted_permits_is_enough", one_of_two_wanted_permits_is_enough},
        {"a_permit_that_comes_back_goes_to_the_earliest_deadline",
         a_permit_that_comes_back_goes_to_the_earliest_deadline},
        {"queries_and_bulk_work_have_their_own_most", queries_and_bulk_work_have_their_own_most},
        {"a_cool_down_is_kept_by_every_member", a_cool_down_is_kept_by_every_member},
        {"after_a_cool_down_one_at_a_time_probes_until_one_succeeds",
         after_a_cool_down_one_at_a_time_probes_until_one_succeeds},
        {"a_probe_whose_process_died_is_followed_by_another",
         a_probe_whose_process_died_is_followed_by_another},
        {"a_new_cool_down_is_not_ended_by_the_probe_before_it",
         a_new_cool_down_is_not_ended_by_the_probe_before_it},
        {"a_permit_that_comes_with_a_job_can_be_the_probe",
         a_permit_that_comes_with_a_job_can_be_the_probe},
        {"waiting_costs_no_polling", waiting_costs_no_polling},
        {"a_lease_that_ended_holds_up_nobody", a_lease_that_ended_holds_up_nobody},
        {"what_waits_for_company_goes_alone_in_the_end",
         what_waits_for_company_goes_alone_in_the_end},
        {"permits_expire_by_the_local_clock_while_redis_hangs",
         permits_expire_by_the_local_clock_while_redis_hangs},
        {"what_is_withdrawn_while_it_is_asked_leaves_nothing_behind",
         what_is_withdrawn_while_it_is_asked_leaves_nothing_behind},
        {"hundreds_of_jobs_of_one_turn_share_their_round_trips",
         hundreds_of_jobs_of_one_turn_share_their_round_trips},
        {NULL, NULL},
    };
    return run_tests(cases, argc, argv);
}
