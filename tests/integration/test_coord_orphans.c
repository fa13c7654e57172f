/* Queries whose gateways have died, on a real Redis: which are cancelled, when, and which are not.
 * A "second" of the coordination is 60 ms here, the orphan grace one true second. */
#include "common/attach.h"
#include "tests/support/coord_fixture.h"

enum { TTL_MS = 900, GRACE_MS = 1000 };

static struct cluster cluster;
static struct sl_coord *gateway, *worker;
static struct sl_attachment attachment;
static struct test_job job;

static void start(uint32_t ttl_ms)
{
    cluster_start(&cluster, ttl_ms);
    cluster_skip_quarantine(&cluster);
    gateway = cluster_join(&cluster, "gateway");
    worker = cluster_join(&cluster, "worker");
}

static void attach(struct sl_coord *coord, struct sl_attachment *to, int64_t policy_ms)
{
    *to = (struct sl_attachment){
        .id = SL_SPAN("q1"),
        .place = {.deadline_ms = sl_coord_now_ms(coord) + 60000, .policy_ms = policy_ms}};
    sl_attach(coord, to);
    UNTIL(&cluster, sl_coord_idle(coord));
}

/* A query of the gateway's that the worker runs. */
static void run(int64_t policy_ms)
{
    attach(gateway, &attachment, policy_ms);
    test_job_init(&job, worker, "q1");
    test_job_admit(&job);
    CHECK_INT(test_job_verdict(&cluster, &job), SL_VERDICT_GRANTED);
}

static int64_t kill_gateway(void)
{
    sl_detach(gateway, &attachment);
    cluster_crash(&cluster, gateway);
    return sl_coord_now_ms(worker);
}

static bool is_cancelled(void)
{
    return cluster_say(&cluster, "HGET t:query:q1 .cancelled")[0] != '\0';
}

TEST(what_runs_for_a_dead_gateway_is_cancelled_after_the_grace)
{
    start(TTL_MS);
    run(0);
    int64_t died_ms = kill_gateway();
    UNTIL(&cluster, job.cancelled == 1);
    CHECK(sl_coord_now_ms(worker) - died_ms >= GRACE_MS - 2 * TTL_MS / 15); /* Its last beat. */
    CHECK(is_cancelled());
    cluster_stop(&cluster);
}

TEST(what_is_queued_for_a_dead_gateway_is_dropped)
{
    start(TTL_MS);
    attach(gateway, &attachment, 0);
    kill_gateway();
    cluster_run(&cluster, GRACE_MS + TTL_MS / 15);
    test_job_init(&job, worker, "q1");
    test_job_admit(&job);
    CHECK_INT(test_job_verdict(&cluster, &job), SL_VERDICT_CANCELLED);
    CHECK(is_cancelled());
    cluster_stop(&cluster);
}

TEST(a_query_is_no_orphan_while_one_of_its_gateways_lives)
{
    struct sl_attachment second;
    start(TTL_MS);
    run(0);
    struct sl_coord *other = cluster_join(&cluster, "other");
    attach(other, &second, 0);
    kill_gateway();
    cluster_run(&cluster, GRACE_MS + TTL_MS);
    CHECK_INT(job.cancelled, 0);
    sl_detach(other, &second);
    cluster_crash(&cluster, other);
    UNTIL(&cluster, job.cancelled == 1);
    cluster_stop(&cluster);
}

TEST(the_leaving_of_the_last_who_lives_leaves_an_orphan)
{
    struct sl_attachment second;
    start(TTL_MS);
    run(0);
    struct sl_coord *other = cluster_join(&cluster, "other");
    attach(other, &second, 0);
    kill_gateway();
    sl_detach_leave(other, &second);
    UNTIL(&cluster, sl_coord_idle(other));
    CHECK(!is_cancelled());
    UNTIL(&cluster, job.cancelled == 1);
    cluster_stop(&cluster);
}

TEST(a_query_that_continues_is_no_orphan)
{
    start(TTL_MS);
    run(SL_POLICY_CONTINUE);
    kill_gateway();
    cluster_run(&cluster, GRACE_MS + TTL_MS);
    CHECK_INT(job.cancelled, 0);
    CHECK(!is_cancelled());
    cluster_stop(&cluster);
}

TEST(the_callers_own_grace_comes_on_top)
{
    start(TTL_MS);
    run(1500);
    int64_t died_ms = kill_gateway();
    UNTIL(&cluster, job.cancelled == 1);
    CHECK(sl_coord_now_ms(worker) - died_ms >= GRACE_MS + 1500 - 2 * TTL_MS / 15);
    cluster_stop(&cluster);
}

TEST(a_query_without_a_gateway_is_no_orphan)
{
    start(TTL_MS);
    test_job_init(&job, worker, "q1");
    test_job_admit(&job);
    CHECK_INT(test_job_verdict(&cluster, &job), SL_VERDICT_GRANTED);
    cluster_crash(&cluster, gateway);
    cluster_run(&cluster, GRACE_MS + TTL_MS);
    CHECK_INT(job.cancelled, 0);
    cluster_stop(&cluster);
}

TEST(who_left_in_a_quarantine_leaves_an_orphan_behind_it)
{
    start(TTL_MS);
    run(0);
    cluster_say(&cluster, "FLUSHALL");
    sl_detach_leave(gateway, &attachment);
    UNTIL(&cluster, sl_coord_idle(gateway));
    CHECK(!is_cancelled());
    UNTIL(&cluster, job.cancelled == 1);
    CHECK_INT(sl_coord_quarantine_ms(worker), 0);
    cluster_stop(&cluster);
}

/* The gateway here is only a heartbeat, so that it can be as late as wanted. A "second" is 200 ms.
 */
TEST(a_redis_that_paused_leaves_no_orphans)
{
    start(3000);
    run(0);
    cluster_say(&cluster, "HSET t:query:q1 .gateways late");
    cluster_say(&cluster, "ZADD t:owners %lld late", (long long)sl_coord_now_ms(worker));
    redis_fixture_pause(cluster.redis);
    cluster_run(&cluster, GRACE_MS + 1000);
    UNTIL(&cluster, !sl_coord_ready(worker));
    redis_fixture_resume(cluster.redis);
    UNTIL(&cluster, sl_coord_ready(worker));
    cluster_run(&cluster, 400); /* Renewed, and still no sign of life of the gateway's. */
    CHECK_INT(job.cancelled, 0);
    cluster_say(&cluster, "ZADD t:owners %lld late", (long long)sl_coord_now_ms(worker));
    cluster_run(&cluster, 900);
    CHECK_INT(job.cancelled, 0);
    UNTIL(&cluster, job.cancelled == 1); /* It beat only once. */
    sl_detach(gateway, &attachment);
    cluster_stop(&cluster);
}

int main(int argc, char **argv)
{
    const struct test_case cases[] = {
        {"what_runs_for_a_dead_gateway_is_cancelled_after_the_grace",
         what_runs_for_a_dead_gateway_is_cancelled_after_the_grace},
        {"what_is_queued_for_a_dead_gateway_is_dropped",
         what_is_queued_for_a_dead_gateway_is_dropped},
        {"a_query_is_no_orphan_while_one_of_its_gateways_lives",
         a_query_is_no_orphan_while_one_of_its_gateways_lives},
        {"the_leaving_of_the_last_who_lives_leaves_an_orphan",
         the_leaving_of_the_last_who_lives_leaves_an_orphan},
        {"a_query_that_continues_is_no_orphan", a_query_that_continues_is_no_orphan},
        {"the_callers_own_grace_comes_on_top", the_callers_own_grace_comes_on_top},
        {"a_query_without_a_gateway_is_no_orphan", a_query_without_a_gateway_is_no_orphan},
        {"who_left_in_a_quarantine_leaves_an_orphan_behind_it",
         who_left_in_a_quarantine_leaves_an_orphan_behind_it},
        {"a_redis_that_paused_leaves_no_orphans", a_redis_that_paused_leaves_no_orphans},
        {NULL, NULL},
    };
    return run_tests(cases, argc, argv);
}
