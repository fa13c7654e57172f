/* Claims among members that live, die, cancel and end, on a real Redis. A "second" of the
 * coordination is 60 ms here. */
#include "tests/support/coord_fixture.h"

enum { TTL_MS = 900 };

static struct cluster cluster;
static struct sl_coord *a, *b;

static void start(void)
{
    cluster_start(&cluster, TTL_MS);
    cluster_skip_quarantine(&cluster);
    a = cluster_join(&cluster, "a");
    b = cluster_join(&cluster, "b");
}

static void admit(struct test_job *job, struct sl_coord *coord, const char *id,
                  enum sl_verdict expected)
{
    test_job_init(job, coord, id);
    test_job_admit(job);
    CHECK_INT(test_job_verdict(&cluster, job), expected);
}

static void retry(struct test_job *job, int retries, enum sl_verdict expected)
{
    UNTIL(&cluster, job->retries == retries);
    test_job_admit(job);
    CHECK_INT(test_job_verdict(&cluster, job), expected);
}

static void note_err(void *ctx, int err)
{
    *(int *)ctx = err;
}

/* --- parking --- */

TEST(a_parked_job_is_told_when_its_owner_finished)
{
    struct test_job mine, parked;
    start();
    admit(&mine, a, "q1", SL_VERDICT_GRANTED);
    admit(&parked, b, "q1", SL_VERDICT_PARKED);
    cluster_run(&cluster, 20 * TTL_MS / 15); /* Longer than it takes to see a death. */
    CHECK_INT(parked.retries, 0);
    test_job_done(&mine);
    retry(&parked, 1, SL_VERDICT_DONE);
    CHECK_INT(cluster_commands(&cluster, "publish"), 1);
    cluster_stop(&cluster);
}

TEST(a_parked_job_is_tried_again_also_when_the_hint_is_lost)
{
    struct test_job mine, parked;
    start();
    admit(&mine, a, "q1", SL_VERDICT_GRANTED);
    admit(&parked, b, "q1", SL_VERDICT_PARKED);
    cluster_say(&cluster, "HDEL t:query:q1 .watched"); /* Then nothing is published. */
    sl_claim_give_back(a, &mine.admission);
    retry(&parked, 1, SL_VERDICT_GRANTED);
    CHECK_INT(parked.admission.attempt, 1);
    cluster_stop(&cluster);
}

TEST(a_dead_owners_claim_is_taken_over_with_the_next_attempt)
{
    struct test_job mine, parked;
    start();
    admit(&mine, a, "q1", SL_VERDICT_GRANTED);
    admit(&parked, b, "q1", SL_VERDICT_PARKED);
    int64_t died = sl_coord_now_ms(b);
    cluster_crash(&cluster, a);
    retry(&parked, 1, SL_VERDICT_GRANTED);
    CHECK(sl_coord_now_ms(b) - died >= 10 * TTL_MS / 15); /* Old after 6 units, seen for 5. */
    CHECK_INT(parked.admission.attempt, 2);
    CHECK(parked.admission.fence > mine.admission.fence);
    cluster_stop(&cluster);
}

static int streamed(struct test_job *job)
{
    int err = 1;
    CHECK(sl_claim_stream(job->coord, &job->admission, note_err, &err) == 0);
    UNTIL(&cluster, err != 1);
    return err;
}

TEST(what_a_dead_owner_had_begun_to_show_is_told_as_that)
{
    struct test_job mine, parked;
    start();
    admit(&mine, a, "q1", SL_VERDICT_GRANTED);
    CHECK_INT(streamed(&mine), 0);
    admit(&parked, b, "q1", SL_VERDICT_PARKED);
    cluster_crash(&cluster, a);
    retry(&parked, 1, SL_VERDICT_STREAMED);
    CHECK_INT(parked.admission.attempt, 2);
    CHECK(parked.admission.fence > mine.admission.fence);
    cluster_stop(&cluster);
}

TEST(what_is_given_back_after_it_was_shown_is_told_as_that)
{
    struct test_job mine, next;
    start();
    admit(&mine, a, "q1", SL_VERDICT_GRANTED);
    CHECK_INT(streamed(&mine), 0);
    sl_claim_give_back(a, &mine.admission);
    UNTIL(&cluster, sl_coord_idle(a));
    CHECK_INT(streamed(&mine), -SL_ELOST); /* It is nobody's now. */
    admit(&next, b, "q1", SL_VERDICT_STREAMED);
    CHECK_INT(next.admission.attempt, 1);
    CHECK_INT(streamed(&mine), -SL_ELOST); /* It is another's. */
    cluster_stop(&cluster);
}

TEST(three_deaths_wear_a_job_out)
{
    struct test_job job, parked;
    start();
    cluster_say(&cluster, "HSET t:query:q1 test \"s dead 3 1700000000000000\"");
    admit(&parked, b, "q1", SL_VERDICT_PARKED);
    retry(&parked, 1, SL_VERDICT_WORN_OUT);
    CHECK(parked.admission.fence > 0); /* Ours, to write the ending. */
    cluster_say(&cluster, "HSET t:query:q2 test \"s dead 2 1700000000000000\"");
    test_job_init(&job, b, "q2");
    test_job_admit(&job);
    UNTIL(&cluster, job.suspected == 1); /* Known to be dead: no second wait. */
    sl_admit_hold(b, true, &job.admission);
    CHECK_INT(test_job_verdict(&cluster, &job), SL_VERDICT_GRANTED);
    CHECK_INT(job.admission.attempt, 3);
    CHECK_INT(job.retries, 0);
    cluster_stop(&cluster);
}

TEST(a_death_is_observed_before_anything_of_the_dead_owner_arrives)
{
    struct test_job mine, arrived;
    start();
    admit(&mine, a, "q1", SL_VERDICT_GRANTED);
    cluster_crash(&cluster, a);
    cluster_run(&cluster, 13 * TTL_MS / 15); /* Nothing of a's is parked anywhere. */
    admit(&arrived, b, "q1", SL_VERDICT_GRANTED);
    CHECK_INT(arrived.retries, 0);
    CHECK_INT(arrived.admission.attempt, 2);
    cluster_stop(&cluster);
}

TEST(the_latest_deaths_are_observed_among_hundreds)
{
    struct test_job arrived;
    start();
    long long now = sl_coord_now_ms(b);
    for (int i = 0; i < 300; i++) { /* An earlier loss of a whole rack. */
        cluster_say(&cluster, "ZADD t:owners %lld old%d", now - 30000 - i, i);
    }
    cluster_say(&cluster, "ZADD t:owners %lld last", now);
    cluster_say(&cluster, "HSET t:query:q1 test \"s last 1 1700000000000000\"");
    cluster_run(&cluster, 13 * TTL_MS / 15);
    admit(&arrived, b, "q1", SL_VERDICT_GRANTED);
    CHECK_INT(arrived.retries, 0);
    cluster_stop(&cluster);
}

TEST(heartbeats_of_those_long_dead_are_forgotten)
{
    start();
    long long now = sl_coord_now_ms(b);
    cluster_say(&cluster, "ZADD t:owners %lld old %lld older", now - 60500, now - 61000);
    UNTIL(&cluster, atoll(cluster_say(&cluster, "ZCARD t:owners")) == 2); /* a and b. */
    cluster_stop(&cluster);
}

TEST(nothing_is_taken_over_in_the_quarantine)
{
    struct test_job parked;
    cluster_start(&cluster, TTL_MS);
    b = cluster_join(&cluster, "b"); /* Never used before: in quarantine. */
    long long since = atoll(cluster_say(&cluster, "HGET t:epoch since"));
    cluster_say(&cluster, "HSET t:query:q1 test \"s dead 1 1700000000000000\"");
    admit(&parked, b, "q1", SL_VERDICT_PARKED);
    for (int retries = 1; parked.verdict != SL_VERDICT_GRANTED; retries++) {
        UNTIL(&cluster, parked.retries == retries);
        test_job_admit(&parked);
        (void)test_job_verdict(&cluster, &parked);
    }
    CHECK(sl_coord_now_ms(b) >= since + TTL_MS);
    CHECK_INT(parked.admission.attempt, 2);
    cluster_stop(&cluster);
}

/* Redis came back with an older snapshot: both live, but only one still runs what it says. */
TEST(a_claim_that_its_owner_does_not_know_is_nobodys)
{
    struct test_job mine, stale, kept;
    start();
    admit(&mine, a, "q1", SL_VERDICT_GRANTED);
    long long fence = (long long)mine.admission.fence;
    cluster_say(&cluster, "HDEL t:epoch run");
    cluster_say(&cluster, "HSET t:query:q2 test \"s a 1 %lld\"", fence);
    cluster_say(&cluster, "HSET t:query:q3 .end x .end_owner a .end_epoch 1");
    UNTIL(&cluster, sl_coord_quarantine_ms(b) > 0);
    admit(&stale, b, "q2", SL_VERDICT_PARKED);
    UNTIL(&cluster, stale.retries == 1); /* The quarantine is over. */
    admit(&stale, b, "q2", SL_VERDICT_GRANTED);
    admit(&kept, b, "q1", SL_VERDICT_PARKED);
    sl_admit_withdraw(b, &kept.admission);
    admit(&kept, b, "q3", SL_VERDICT_ENDING);
    CHECK_STR(kept.ending, "x");
    cluster_stop(&cluster);
}

TEST(a_redis_that_paused_does_not_look_like_an_owner_that_died)
{
    struct test_job mine, parked;
    start();
    admit(&mine, a, "q1", SL_VERDICT_GRANTED);
    admit(&parked, b, "q1", SL_VERDICT_PARKED);
    cluster_run(&cluster, 3 * TTL_MS / 15);
    redis_fixture_pause(cluster.redis);
    cluster_run(&cluster, TTL_MS);
    redis_fixture_resume(cluster.redis);
    UNTIL(&cluster, sl_coord_ready(a) && sl_coord_ready(b));
    cluster_run(&cluster, 3 * TTL_MS / 15);
    CHECK_INT(parked.retries, 0);
    CHECK_INT(mine.lost, 0);
    cluster_stop(&cluster);
}

/* --- cancelling --- */

TEST(a_cancellation_reaches_who_runs_and_who_waits)
{
    struct test_job running, waiting;
    struct test_permit held[2];
    start();
    for (int i = 0; i < 2; i++) {
        test_permit_init(&held[i], b, LIMIT_CHAT, false);
        test_permit_request(&held[i], 60000);
        UNTIL(&cluster, held[i].granted == 1);
    }
    admit(&running, a, "q1", SL_VERDICT_GRANTED);
    test_job_init(&waiting, a, "q2");
    test_job_want(&waiting, LIMIT_CHAT);
    test_job_admit(&waiting);
    cluster_run(&cluster, 50);
    CHECK(sl_coord_cancel(b, SL_SPAN("q1"), NULL, NULL) == 0);
    CHECK(sl_coord_cancel(b, SL_SPAN("q2"), NULL, NULL) == 0);
    UNTIL(&cluster, running.cancelled == 1 && waiting.verdicts == 1);
    CHECK_INT(waiting.verdict, SL_VERDICT_CANCELLED);
    cluster_run(&cluster, 6 * TTL_MS / 15); /* A renewal says it again. */
    CHECK_INT(running.cancelled, 1);
    cluster_stop(&cluster);
}

TEST(a_cancellation_that_was_not_published_comes_with_the_renewal)
{
    struct test_job running;
    start();
    admit(&running, a, "q1", SL_VERDICT_GRANTED);
    cluster_say(&cluster, "HSET t:query:q1 .cancelled 1");
    UNTIL(&cluster, running.cancelled == 1);
    cluster_stop(&cluster);
}

/* --- endings --- */

static int end(struct sl_coord *coord, const char *id, uint64_t fence, const char *bytes)
{
    int result = 1;
    CHECK(sl_claim_end(coord, sl_span_of(id), fence != 0 ? "test" : NULL, fence, "failed",
                       sl_span_of(bytes), note_err, &result) == 0);
    CHECK_INT(result, 1);
    UNTIL(&cluster, result != 1);
    return result;
}

TEST(the_first_ending_wins_and_the_same_owner_wins_again)
{
    struct test_job job;
    start();
    admit(&job, a, "q1", SL_VERDICT_GRANTED);
    CHECK_INT(end(a, "q1", job.admission.fence, "first"), 0);
    CHECK_INT(end(b, "q1", 0, "second"), -SL_EEXIST);
    CHECK_INT(end(a, "q1", job.admission.fence, "first"), 0);
    CHECK_STR(cluster_say(&cluster, "HGET t:query:q1 .end"), "first");
    cluster_stop(&cluster);
}

TEST(only_the_owner_of_a_claim_ends_with_its_fence)
{
    struct test_job job;
    start();
    admit(&job, a, "q1", SL_VERDICT_GRANTED);
    CHECK_INT(end(b, "q1", job.admission.fence, "not mine"), -SL_ELOST);
    CHECK_INT(end(b, "q1", 0, "the deadline passed"), 0);
    CHECK_INT(end(a, "q1", job.admission.fence, "too late"), -SL_EEXIST);
    UNTIL(&cluster, job.lost == 1); /* Who still runs it hears that it is over. */
    cluster_stop(&cluster);
}

TEST(an_acknowledged_ending_ends_what_comes_later)
{
    struct test_job job, again, parked;
    start();
    admit(&job, a, "q1", SL_VERDICT_GRANTED);
    CHECK_INT(end(a, "q1", job.admission.fence, "the end"), 0);
    admit(&parked, b, "q1", SL_VERDICT_PARKED); /* Its owner lives and produces it. */
    sl_claim_ended(a, SL_SPAN("q1"), 3, 5000000000);
    retry(&parked, 1, SL_VERDICT_ENDED);
    CHECK_STR(cluster_say(&cluster, "HEXISTS t:query:q1 .end"), "0");
    CHECK_STR(cluster_say(&cluster, "HGET t:query:q1 .outcome"), "failed");
    admit(&again, a, "q1", SL_VERDICT_ENDED);
    cluster_stop(&cluster);
}

TEST(of_several_places_of_a_result_the_first_known_one_stays)
{
    static const struct {
        int32_t partition;
        int64_t offset;
        const char *expected;
    } cases[] = {{-1, -1, "-1 -1"}, {3, 5000000000, "3 5000000000"}, {4, 1, "3 5000000000"}};
    struct test_job job;
    start();
    admit(&job, a, "q1", SL_VERDICT_GRANTED);
    CHECK_INT(end(a, "q1", job.admission.fence, "the end"), 0);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        sl_claim_ended(a, SL_SPAN("q1"), cases[i].partition, cases[i].offset);
        UNTIL(&cluster, sl_coord_idle(a));
        CHECK_STR(cluster_say(&cluster, "HGET t:query:q1 .end_acked"), cases[i].expected);
    }
    cluster_stop(&cluster);
}

TEST(an_ending_of_a_dead_owner_is_produced_by_who_finds_it)
{
    struct test_job job, parked, own;
    start();
    admit(&job, a, "q1", SL_VERDICT_GRANTED);
    CHECK_INT(end(a, "q1", job.admission.fence, "the end"), 0);
    admit(&parked, b, "q1", SL_VERDICT_PARKED);
    cluster_crash(&cluster, a);
    retry(&parked, 1, SL_VERDICT_ENDING);
    CHECK_STR(parked.ending, "the end");
    admit(&own, b, "q1", SL_VERDICT_ENDING); /* Taken over: ours until it is acknowledged. */
    sl_claim_ended(b, SL_SPAN("q1"), 3, 5000000000);
    UNTIL(&cluster, sl_coord_idle(b));
    admit(&own, b, "q1", SL_VERDICT_ENDED);
    cluster_stop(&cluster);
}

TEST(everything_of_a_query_has_an_end_in_redis)
{
    struct test_job job;
    char keys[2000];
    start();
    test_job_init(&job, a, "q1");
    test_job_want(&job, LIMIT_CHAT);
    test_job_admit(&job);
    CHECK_INT(test_job_verdict(&cluster, &job), SL_VERDICT_GRANTED);
    CHECK(atoll(cluster_say(&cluster, "PTTL t:query:q1")) > 60000);
    CHECK_INT(end(a, "q1", job.admission.fence, "the end"), 0);
    sl_claim_ended(a, SL_SPAN("q1"), 3, 5000000000);
    test_job_done(&job);
    CHECK(sl_coord_cancel(b, SL_SPAN("q2"), NULL, NULL) == 0);
    UNTIL(&cluster, sl_coord_idle(a) && sl_coord_idle(b));
    snprintf(keys, sizeof(keys), "%s", cluster_say(&cluster, "KEYS *"));
    int count = 0;
    for (char *line = strtok(keys, "\r\n"); line != NULL; line = strtok(NULL, "\r\n")) {
        if (line[0] == 't') {
            long long ttl = atoll(cluster_say(&cluster, "PTTL %s", line));
            CHECK(strcmp(line, "t:epoch") == 0 ? ttl == -1 : ttl > 0 && ttl <= 600000);
            count++;
        }
    }
    CHECK_INT(count, 5); /* Epoch, owners, two queries, one limit's leases. */
    cluster_stop(&cluster);
}

int main(int argc, char **argv)
{
    const struct test_case cases[] = {
        {"a_parked_job_is_told_when_its_owner_finished",
         a_parked_job_is_told_when_its_owner_finished},
        {"a_parked_job_is_tried_again_also_when_the_hint_is_lost",
         a_parked_job_is_tried_again_also_when_the_hint_is_lost},
        {"a_dead_owners_claim_is_taken_over_with_the_next_attempt",
         a_dead_owners_claim_is_taken_over_with_the_next_attempt},
        {"what_a_dead_owner_had_begun_to_show_is_told_as_that",
         what_a_dead_owner_had_begun_to_show_is_told_as_that},
        {"what_is_given_back_after_it_was_shown_is_told_as_that",
         what_is_given_back_after_it_was_shown_is_told_as_that},
        {"three_deaths_wear_a_job_out", three_deaths_wear_a_job_out},
        {"a_death_is_observed_before_anything_of_the_dead_owner_arrives",
         a_death_is_observed_before_anything_of_the_dead_owner_arrives},
        {"the_latest_deaths_are_observed_among_hundreds",
         the_latest_deaths_are_observed_among_hundreds},
        {"heartbeats_of_those_long_dead_are_forgotten",
         heartbeats_of_those_long_dead_are_forgotten},
        {"nothing_is_taken_over_in_the_quarantine", nothing_is_taken_over_in_the_quarantine},
        {"a_claim_that_its_owner_does_not_know_is_nobodys",
         a_claim_that_its_owner_does_not_know_is_nobodys},
        {"a_redis_that_paused_does_not_look_like_an_owner_that_died",
         a_redis_that_paused_does_not_look_like_an_owner_that_died},
        {"a_cancellation_reaches_who_runs_and_who_waits",
         a_cancellation_reaches_who_runs_and_who_waits},
        {"a_cancellation_that_was_not_published_comes_with_the_renewal",
         a_cancellation_that_was_not_published_comes_with_the_renewal},
        {"the_first_ending_wins_and_the_same_owner_wins_again",
         the_first_ending_wins_and_the_same_owner_wins_again},
        {"only_the_owner_of_a_claim_ends_with_its_fence",
         only_the_owner_of_a_claim_ends_with_its_fence},
        {"an_acknowledged_ending_ends_what_comes_later",
         an_acknowledged_ending_ends_what_comes_later},
        {"of_several_places_of_a_result_the_first_known_one_stays",
         of_several_places_of_a_result_the_first_known_one_stays},
        {"an_ending_of_a_dead_owner_is_produced_by_who_finds_it",
         an_ending_of_a_dead_owner_is_produced_by_who_finds_it},
        {"everything_of_a_query_has_an_end_in_redis", everything_of_a_query_has_an_end_in_redis},
        {NULL, NULL},
    };
    return run_tests(cases, argc, argv);
}
