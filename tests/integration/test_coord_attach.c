/* Gateways that come to a query and leave it, on a real Redis: who is the last, what Redis knows of
 * a query, and what is left of it when Redis forgets. A "second" of the coordination is 60 ms here.
 */
#include "common/attach.h"
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

static void settle(void)
{
    UNTIL(&cluster, sl_coord_idle(a) && sl_coord_idle(b));
}

static void attach(struct sl_coord *coord, struct sl_attachment *attachment, const char *id,
                   int64_t policy_ms)
{
    *attachment = (struct sl_attachment){.id = sl_span_of(id),
                                         .place = {.partition = 7,
                                                   .offset = 5000000000,
                                                   .deadline_ms = sl_coord_now_ms(coord) + 60000,
                                                   .policy_ms = policy_ms}};
    sl_attach(coord, attachment);
}

static const char *field(const char *name)
{
    return cluster_say(&cluster, "HGET t:query:q1 %s", name);
}

static bool is_cancelled(void)
{
    return strcmp(field(".cancelled"), "1") == 0;
}

static void admit(struct test_job *job, struct sl_coord *coord, const char *stage,
                  enum sl_verdict expected)
{
    test_job_init(job, coord, "q1");
    job->admission.stage = stage;
    test_job_admit(job);
    CHECK_INT(test_job_verdict(&cluster, job), expected);
}

/* --- what is known --- */

struct seen {
    int calls, err;
    struct sl_query_state state;
};

static void on_state(void *ctx, int err, const struct sl_query_state *state)
{
    struct seen *seen = ctx;
    seen->calls++;
    seen->err = err;
    CHECK((state != NULL) == (err == 0));
    if (state != NULL) {
        seen->state = *state; /* The texts are static. */
    }
}

static struct seen look(struct sl_coord *coord, const char *id)
{
    struct seen seen = {0};
    CHECK(sl_query_look(coord, sl_span_of(id), on_state, &seen) == 0);
    CHECK_INT(seen.calls, 0);
    UNTIL(&cluster, seen.calls == 1);
    return seen;
}

TEST(a_look_tells_how_far_a_query_has_come)
{
    struct sl_attachment mine;
    struct test_job embed, generate;
    start();
    CHECK(!look(b, "q1").state.known);
    attach(a, &mine, "q1", 30000);
    settle();
    struct seen seen = look(b, "q1");
    CHECK(seen.state.known && seen.state.attached && !seen.state.cancelled && !seen.state.ended);
    CHECK_INT(seen.state.place.partition, 7);
    CHECK_INT(seen.state.place.offset, 5000000000);
    CHECK_INT(seen.state.place.deadline_ms, mine.place.deadline_ms);
    CHECK_INT(seen.state.place.policy_ms, 30000);
    CHECK_STR(seen.state.stage, "");
    admit(&embed, b, "embed", SL_VERDICT_GRANTED);
    CHECK_STR(look(a, "q1").state.stage, "embed");
    admit(&generate, b, "generate", SL_VERDICT_GRANTED);
    CHECK_STR(look(a, "q1").state.stage, "generate");
    CHECK(sl_coord_cancel(b, SL_SPAN("q1"), NULL, NULL) == 0);
    settle();
    CHECK(look(a, "q1").state.cancelled);
    sl_detach(a, &mine);
    cluster_stop(&cluster);
}

TEST(a_look_tells_how_a_query_ended_and_where_its_result_is)
{
    struct test_job job;
    start();
    admit(&job, b, "generate", SL_VERDICT_GRANTED);
    CHECK(sl_claim_end(b, SL_SPAN("q1"), "generate", job.admission.fence, "expired",
                       SL_SPAN("the end"), NULL, NULL) == 0);
    settle();
    struct seen seen = look(a, "q1");
    CHECK(seen.state.ended && !seen.state.end_acked);
    CHECK_STR(seen.state.outcome, "expired");
    CHECK_STR(seen.state.stage, "");
    CHECK_INT(seen.state.result_partition, -1);
    sl_claim_ended(b, SL_SPAN("q1"), 3, 5000000000);
    settle();
    seen = look(a, "q1");
    CHECK(seen.state.ended && seen.state.end_acked);
    CHECK_INT(seen.state.result_partition, 3);
    CHECK_INT(seen.state.result_offset, 5000000000);
    cluster_stop(&cluster);
}

TEST(a_query_without_a_gateway_is_known_without_a_place)
{
    struct test_job job;
    start();
    admit(&job, b, "retrieve", SL_VERDICT_GRANTED);
    struct seen seen = look(a, "q1");
    CHECK(seen.state.known && !seen.state.attached);
    CHECK_STR(seen.state.stage, "retrieve");
    cluster_stop(&cluster);
}

TEST(a_look_at_a_redis_that_is_away_says_so)
{
    struct seen seen = {0}, late = {0};
    start();
    redis_fixture_kill(cluster.redis);
    CHECK(sl_query_look(a, SL_SPAN("q1"), on_state, &seen) == 0);
    UNTIL(&cluster, seen.calls == 1);
    CHECK_INT(seen.err, -SL_ECONN);
    CHECK(sl_query_look(a, SL_SPAN("q1"), on_state, &late) == 0);
    cluster_crash(&cluster, a);
    CHECK_INT(late.calls, 1);
    CHECK_INT(late.err, -SL_ECONN);
    cluster_stop(&cluster);
}

/* --- coming and leaving --- */

TEST(the_last_gateway_that_leaves_cancels)
{
    struct sl_attachment first, second;
    struct test_job running;
    start();
    attach(a, &first, "q1", 0);
    attach(b, &second, "q1", 0);
    admit(&running, b, "embed", SL_VERDICT_GRANTED);
    sl_detach_leave(a, &first);
    settle();
    CHECK_STR(field(".gateways"), "b");
    CHECK(!is_cancelled());
    sl_detach_leave(b, &second);
    settle();
    CHECK(is_cancelled());
    UNTIL(&cluster, running.cancelled == 1);
    cluster_stop(&cluster);
}

TEST(a_query_that_continues_is_not_cancelled_by_the_last_who_leaves)
{
    struct sl_attachment mine;
    start();
    attach(a, &mine, "q1", SL_POLICY_CONTINUE);
    sl_detach_leave(a, &mine);
    settle();
    CHECK_STR(field(".gateways"), "");
    CHECK(!is_cancelled());
    cluster_stop(&cluster);
}

TEST(the_first_place_counts)
{
    struct sl_attachment first, second;
    start();
    attach(a, &first, "q1", 0);
    settle();
    attach(b, &second, "q1", SL_POLICY_CONTINUE);
    settle();
    CHECK_INT(look(b, "q1").state.place.policy_ms, 0);
    CHECK_STR(field(".gateways"), "a b");
    sl_detach(a, &first);
    sl_detach(b, &second);
    cluster_stop(&cluster);
}

TEST(attaching_shares_the_round_trip_of_its_turn)
{
    struct sl_attachment mine[20];
    char ids[20][16];
    start();
    attach(a, &mine[0], "q0", 0); /* The script is loaded. */
    settle();
    sl_detach(a, &mine[0]);
    long long before = cluster_commands(&cluster, "evalsha");
    for (int i = 0; i < 20; i++) {
        snprintf(ids[i], sizeof(ids[i]), "r%d", i);
        attach(a, &mine[i], ids[i], 0);
    }
    settle();
    CHECK(cluster_commands(&cluster, "evalsha") - before < 10); /* Heartbeats too. */
    for (int i = 0; i < 20; i++) {
        CHECK(look(b, ids[i]).state.attached);
        sl_detach(a, &mine[i]);
    }
    cluster_stop(&cluster);
}

TEST(what_is_known_of_a_reader_has_an_end)
{
    struct sl_attachment mine;
    start();
    attach(a, &mine, "q1", 0);
    settle();
    long long ttl = atoll(cluster_say(&cluster, "PTTL t:query:q1"));
    CHECK(ttl > 60000 && ttl <= 600000);
    cluster_say(&cluster, "HSET t:query:q1 .gateways \"1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\"");
    sl_detach(a, &mine);
    attach(a, &mine, "q1", 0);
    settle();
    CHECK_STR(field(".gateways"), "2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 a");
    sl_detach(a, &mine);
    cluster_stop(&cluster);
}

/* --- a Redis that forgets --- */

TEST(a_redis_that_forgot_knows_readers_and_cancellation_again)
{
    struct sl_attachment first, second, other;
    start();
    attach(a, &first, "q1", 30000);
    attach(b, &second, "q1", 30000);
    attach(a, &other, "q2", 0);
    settle();
    CHECK(sl_coord_cancel(a, SL_SPAN("q1"), NULL, NULL) == 0);
    settle();
    cluster_say(&cluster, "FLUSHALL");
    struct seen seen = look(b, "q1"); /* Waits for those who know. */
    CHECK(seen.state.known && seen.state.cancelled);
    CHECK_INT(seen.state.place.offset, 5000000000);
    UNTIL(&cluster,
          strcmp(field(".gateways"), "a b") == 0 || strcmp(field(".gateways"), "b a") == 0);
    CHECK(look(b, "q2").state.attached && !look(b, "q2").state.cancelled);
    CHECK(!look(b, "q3").state.known);
    sl_detach(a, &first);
    sl_detach(b, &second);
    sl_detach(a, &other);
    cluster_stop(&cluster);
}

TEST(a_reader_that_tells_of_a_query_later_than_others_is_waited_for)
{
    struct sl_attachment mine;
    start();
    attach(a, &mine, "q1", 30000);
    settle();
    cluster_say(&cluster, "FLUSHALL");
    cluster_say(&cluster, "HSET t:query:q1 .cancelled 1");
    CHECK(look(b, "q1").state.attached);
    sl_detach(a, &mine);
    cluster_stop(&cluster);
}

TEST(who_heard_of_a_cancellation_remembers_it_for_a_redis_that_forgot)
{
    struct sl_attachment mine;
    start();
    attach(a, &mine, "q1", 0);
    settle();
    CHECK(sl_coord_cancel(b, SL_SPAN("q1"), NULL, NULL) == 0);
    UNTIL(&cluster, mine.cancelled);
    cluster_say(&cluster, "FLUSHALL");
    UNTIL(&cluster, is_cancelled());
    sl_detach(a, &mine);
    cluster_stop(&cluster);
}

TEST(a_cancellation_outlives_the_time_that_it_is_tried)
{
    struct sl_attachment mine;
    start();
    attach(a, &mine, "q1", 0);
    settle();
    redis_fixture_pause(cluster.redis);
    UNTIL(&cluster, !sl_coord_ready(a));
    CHECK(sl_coord_cancel(a, SL_SPAN("q1"), NULL, NULL) == 0);
    UNTIL(&cluster, sl_coord_idle(a)); /* Given up. */
    redis_fixture_resume(cluster.redis);
    UNTIL(&cluster, is_cancelled());
    sl_detach(a, &mine);
    cluster_stop(&cluster);
}

TEST(who_detached_is_not_told_again)
{
    struct sl_attachment first, second;
    start();
    attach(a, &first, "q1", 0);
    attach(b, &second, "q1", 0);
    settle();
    sl_detach(a, &first);
    cluster_say(&cluster, "FLUSHALL");
    UNTIL(&cluster, field(".gateways")[0] != '\0');
    cluster_run(&cluster, 5 * UNIT_MS);
    CHECK_STR(field(".gateways"), "b");
    sl_detach(b, &second);
    cluster_stop(&cluster);
}

TEST(in_the_quarantine_the_last_of_whom_redis_knows_does_not_cancel)
{
    struct sl_attachment first, second;
    start();
    attach(a, &first, "q1", 0);
    attach(b, &second, "q1", 0);
    settle();
    cluster_say(&cluster, "FLUSHALL");
    sl_detach_leave(a, &first);
    UNTIL(&cluster, sl_coord_idle(a));
    UNTIL(&cluster, strcmp(field(".gateways"), "b") == 0);
    CHECK(!is_cancelled());
    sl_detach(b, &second);
    cluster_stop(&cluster);
}

int main(int argc, char **argv)
{
    const struct test_case cases[] = {
        {"a_look_tells_how_far_a_query_has_come", a_look_tells_how_far_a_query_has_come},
        {"a_look_tells_how_a_query_ended_and_where_its_result_is",
         a_look_tells_how_a_query_ended_and_where_its_result_is},
        {"a_query_without_a_gateway_is_known_without_a_place",
         a_query_without_a_gateway_is_known_without_a_place},
        {"a_reader_that_tells_of_a_query_later_than_others_is_waited_for",
         a_reader_that_tells_of_a_query_later_than_others_is_waited_for},
        {"a_look_at_a_redis_that_is_away_says_so", a_look_at_a_redis_that_is_away_says_so},
        {"the_last_gateway_that_leaves_cancels", the_last_gateway_that_leaves_cancels},
        {"a_query_that_continues_is_not_cancelled_by_the_last_who_leaves",
         a_query_that_continues_is_not_cancelled_by_the_last_who_leaves},
        {"the_first_place_counts", the_first_place_counts},
        {"attaching_shares_the_round_trip_of_its_turn",
         attaching_shares_the_round_trip_of_its_turn},
        {"what_is_known_of_a_reader_has_an_end", what_is_known_of_a_reader_has_an_end},
        {"a_redis_that_forgot_knows_readers_and_cancellation_again",
         a_redis_that_forgot_knows_readers_and_cancellation_again},
        {"who_heard_of_a_cancellation_remembers_it_for_a_redis_that_forgot",
         who_heard_of_a_cancellation_remembers_it_for_a_redis_that_forgot},
        {"a_cancellation_outlives_the_time_that_it_is_tried",
         a_cancellation_outlives_the_time_that_it_is_tried},
        {"who_detached_is_not_told_again", who_detached_is_not_told_again},
        {"in_the_quarantine_the_last_of_whom_redis_knows_does_not_cancel",
         in_the_quarantine_the_last_of_whom_redis_knows_does_not_cancel},
        {NULL, NULL},
    };
    return run_tests(cases, argc, argv);
}
