/* Idempotency keys among gateways that produce, fail and die, on a real Redis. A "second" of the
 * coordination is 60 ms here. */
#include "common/attach.h"
#include "tests/support/coord_fixture.h"

enum { TTL_MS = 900, UNIT_MS = TTL_MS / 15, NO_ANSWER = 99 };
#define DEADLINE_MS 4102444800000 /* Far away. */

static struct cluster cluster;
static struct sl_coord *a, *b;
static int64_t deadline_ms;

static void start(void)
{
    cluster_start(&cluster, TTL_MS);
    cluster_skip_quarantine(&cluster);
    deadline_ms = DEADLINE_MS;
    a = cluster_join(&cluster, "a");
    b = cluster_join(&cluster, "b");
}

static void settle(void)
{
    UNTIL(&cluster, sl_coord_idle(a) && sl_coord_idle(b));
}

struct asked {
    struct sl_idempotency idempotency;
    int calls, err;
    enum sl_idempotent answer;
};

static void on_answer(void *ctx, int err, enum sl_idempotent answer)
{
    struct asked *asked = ctx;
    asked->calls++;
    asked->err = err;
    asked->answer = answer;
}

static void begin(struct asked *asked, struct sl_coord *coord, const char *key, const char *body,
                  const char *id)
{
    *asked = (struct asked){.idempotency = {.tenant = SL_SPAN("ten:ant"),
                                            .key = sl_span_of(key),
                                            .body = sl_span_of(body),
                                            .place = {.partition = id[1] - '0',
                                                      .offset = 10 * (id[1] - '0'),
                                                      .deadline_ms = deadline_ms,
                                                      .policy_ms = -1}}};
    snprintf(asked->idempotency.id, sizeof(asked->idempotency.id), "%s", id);
    CHECK(sl_idempotent_open(coord, &asked->idempotency, on_answer, asked) == 0);
    CHECK_INT(asked->calls, 0);
}

static struct asked open_key(struct sl_coord *coord, const char *key, const char *body,
                             const char *id)
{
    static struct asked asked;
    begin(&asked, coord, key, body, id);
    UNTIL(&cluster, asked.calls == 1);
    CHECK_INT(asked.err, 0);
    return asked;
}

static void expect(const struct asked *asked, enum sl_idempotent answer, const char *id)
{
    CHECK_INT(asked->answer, answer);
    CHECK_STR(asked->idempotency.id, id);
    CHECK_INT(asked->idempotency.place.partition, id[1] - '0');
    CHECK_INT(asked->idempotency.place.offset, 10 * (id[1] - '0'));
    CHECK_INT(asked->idempotency.place.deadline_ms, deadline_ms);
    CHECK_INT(asked->idempotency.place.policy_ms, -1);
}

TEST(the_second_request_waits_and_then_attaches)
{
    start();
    struct asked first = open_key(a, "k", "body", "q1");
    expect(&first, SL_IDEMPOTENT_NEW, "q1");
    struct asked second = open_key(b, "k", "body", "q2");
    expect(&second, SL_IDEMPOTENT_WAIT, "q1");
    second = open_key(a, "k", "body", "q3"); /* Its own gateway does not differ. */
    expect(&second, SL_IDEMPOTENT_WAIT, "q1");
    sl_idempotent_settle(a, &first.idempotency, true);
    settle();
    second = open_key(b, "k", "body", "q4");
    expect(&second, SL_IDEMPOTENT_ATTACH, "q1");
    long long ttl = atoll(cluster_say(&cluster, "PTTL t:idem:ten%%3Aant:k"));
    CHECK(ttl > 500000 && ttl <= 600000);
    cluster_stop(&cluster);
}

TEST(of_requests_at_the_same_instant_one_is_first)
{
    struct asked asked[20];
    char ids[20][16];
    int new = 0;
    start();
    for (int i = 0; i < 20; i++) {
        snprintf(ids[i], sizeof(ids[i]), "q%d", i);
        begin(&asked[i], i % 2 == 0 ? a : b, "k", "body", ids[i]);
    }
    for (int i = 0; i < 20; i++) {
        UNTIL(&cluster, asked[i].calls == 1);
        CHECK(asked[i].err == 0);
        new += asked[i].answer == SL_IDEMPOTENT_NEW ? 1 : 0;
        CHECK(asked[i].answer == SL_IDEMPOTENT_NEW || asked[i].answer == SL_IDEMPOTENT_WAIT);
        CHECK_STR(asked[i].idempotency.id, asked[0].idempotency.id);
    }
    CHECK_INT(new, 1);
    cluster_stop(&cluster);
}

TEST(another_body_is_a_conflict)
{
    start();
    open_key(a, "k", "body", "q1");
    struct asked other = open_key(b, "k", "another body", "q2");
    CHECK_INT(other.answer, SL_IDEMPOTENT_CONFLICT);
    cluster_stop(&cluster);
}

TEST(keys_and_tenants_do_not_mix)
{
    struct asked other = {0};
    start();
    open_key(a, "k", "body", "q1");
    struct asked second = open_key(b, "k\n 2", "another body", "q2");
    expect(&second, SL_IDEMPOTENT_NEW, "q2");
    other.idempotency = second.idempotency;
    other.idempotency.tenant = SL_SPAN("ten");
    other.idempotency.key = SL_SPAN("ant:k");
    CHECK(sl_idempotent_open(b, &other.idempotency, on_answer, &other) == 0);
    UNTIL(&cluster, other.calls == 1);
    CHECK_INT(other.answer, SL_IDEMPOTENT_NEW);
    cluster_stop(&cluster);
}

TEST(a_key_whose_job_could_not_be_produced_is_free)
{
    start();
    struct asked first = open_key(a, "k", "body", "q1");
    sl_idempotent_settle(a, &first.idempotency, false);
    settle();
    struct asked second = open_key(b, "k", "body", "q2");
    expect(&second, SL_IDEMPOTENT_NEW, "q2");
    sl_idempotent_settle(a, &first.idempotency, false); /* Not its key any more. */
    settle();
    struct asked third = open_key(a, "k", "body", "q3");
    expect(&third, SL_IDEMPOTENT_WAIT, "q2");
    cluster_stop(&cluster);
}

TEST(a_key_whose_query_was_cancelled_is_free)
{
    start();
    struct asked first = open_key(a, "k", "body", "q1");
    sl_idempotent_settle(a, &first.idempotency, true);
    CHECK(sl_coord_cancel(b, SL_SPAN("q1"), NULL, NULL) == 0);
    settle();
    struct asked second = open_key(b, "k", "another body", "q2");
    expect(&second, SL_IDEMPOTENT_NEW, "q2");
    sl_idempotent_settle(b, &second.idempotency, true);
    settle();
    cluster_say(&cluster, "HSET t:query:q2 .outcome done .cancelled 1"); /* Too late. */
    struct asked third = open_key(a, "k", "another body", "q3");
    expect(&third, SL_IDEMPOTENT_ATTACH, "q2");
    cluster_say(&cluster, "HSET t:query:q2 .outcome cancelled");
    third = open_key(a, "k", "body", "q4");
    expect(&third, SL_IDEMPOTENT_NEW, "q4");
    cluster_stop(&cluster);
}

TEST(a_key_of_a_gateway_that_died_is_taken_over_with_its_query)
{
    start();
    open_key(a, "k", "body", "q1");
    cluster_crash(&cluster, a);
    struct asked second = open_key(b, "k", "body", "q2");
    expect(&second, SL_IDEMPOTENT_WAIT, "q1"); /* It may live. */
    for (int i = 0; i < 100 && second.answer == SL_IDEMPOTENT_WAIT; i++) {
        cluster_run(&cluster, UNIT_MS);
        second = open_key(b, "k", "body", "q3");
    }
    expect(&second, SL_IDEMPOTENT_TAKEN_OVER, "q1");
    struct asked third = open_key(b, "k", "body", "q4");
    expect(&third, SL_IDEMPOTENT_WAIT, "q1");
    sl_idempotent_settle(b, &second.idempotency, true);
    UNTIL(&cluster, sl_coord_idle(b));
    third = open_key(b, "k", "body", "q5");
    expect(&third, SL_IDEMPOTENT_ATTACH, "q1");
    cluster_stop(&cluster);
}

/* a has the key and dies; b's answer to whoever asks next. */
static struct asked ask_after_a_death(void)
{
    open_key(a, "k", "body", "q1");
    cluster_crash(&cluster, a);
    struct asked next = open_key(b, "k", "body", "q2");
    for (int i = 0; i < 100 && next.answer == SL_IDEMPOTENT_WAIT; i++) {
        cluster_run(&cluster, UNIT_MS);
        next = open_key(b, "k", "body", "q3");
    }
    return next;
}

TEST(a_take_over_that_failed_leaves_the_query_to_the_next_one)
{
    start();
    struct asked second = ask_after_a_death();
    expect(&second, SL_IDEMPOTENT_TAKEN_OVER, "q1");
    sl_idempotent_settle(b, &second.idempotency, false); /* Its first gateway may have done it. */
    UNTIL(&cluster, sl_coord_idle(b));
    struct asked third = open_key(b, "k", "body", "q4");
    expect(&third, SL_IDEMPOTENT_TAKEN_OVER, "q1");
    struct asked fourth = open_key(b, "k", "body", "q5");
    expect(&fourth, SL_IDEMPOTENT_WAIT, "q1");
    cluster_stop(&cluster);
}

TEST(a_key_whose_query_had_no_time_left_when_its_gateway_died_is_free)
{
    start();
    deadline_ms = 1000; /* Long ago. */
    struct asked second = ask_after_a_death();
    expect(&second, SL_IDEMPOTENT_NEW, "q3");
    cluster_stop(&cluster);
}

TEST(a_query_that_ended_was_produced_whatever_became_of_its_gateway)
{
    start();
    deadline_ms = 1000;
    cluster_say(&cluster, "HSET t:query:q1 .outcome done");
    struct asked second = ask_after_a_death();
    expect(&second, SL_IDEMPOTENT_ATTACH, "q1");
    cluster_stop(&cluster);
}

TEST(what_was_produced_is_not_produced_again_when_its_gateway_died)
{
    start();
    struct asked first = open_key(a, "k", "body", "q1");
    sl_idempotent_settle(a, &first.idempotency, true);
    settle();
    cluster_crash(&cluster, a);
    cluster_run(&cluster, 8 * UNIT_MS);
    struct asked second = open_key(b, "k", "body", "q2");
    expect(&second, SL_IDEMPOTENT_ATTACH, "q1");
    cluster_stop(&cluster);
}

TEST(a_question_that_was_given_up_is_undone)
{
    struct asked lost;
    start();
    open_key(a, "another", "body", "q1"); /* Redis knows the script. */
    redis_fixture_pause(cluster.redis);
    begin(&lost, a, "k", "body", "q2"); /* Sent, and not answered before its time is up. */
    UNTIL(&cluster, lost.calls == 1);
    CHECK_INT(lost.err, -SL_ECONN);
    CHECK(!sl_coord_idle(a)); /* Redis will run it all the same. */
    redis_fixture_resume(cluster.redis);
    settle();
    struct asked second = open_key(b, "k", "body", "q3");
    expect(&second, SL_IDEMPOTENT_NEW, "q3");
    cluster_stop(&cluster);
}

/* With a "second" that is longer than Redis may take for a reply, so that there is time to ask
 * again. */
TEST(a_question_whose_answer_was_lost_gets_the_same_answer)
{
    struct asked lost;
    cluster_start(&cluster, 15000);
    cluster_skip_quarantine(&cluster);
    deadline_ms = DEADLINE_MS;
    a = cluster_join(&cluster, "a");
    open_key(a, "another", "body", "q1");
    redis_fixture_pause(cluster.redis);
    begin(&lost, a, "k", "body", "q2");
    UNTIL(&cluster, !sl_coord_ready(a));
    redis_fixture_resume(cluster.redis);
    UNTIL(&cluster, lost.calls == 1);
    CHECK_INT(lost.err, 0);
    expect(&lost, SL_IDEMPOTENT_NEW, "q2");
    cluster_stop(&cluster);
}

int main(int argc, char **argv)
{
    const struct test_case cases[] = {
        {"the_second_request_waits_and_then_attaches", the_second_request_waits_and_then_attaches},
        {"of_requests_at_the_same_instant_one_is_first",
         of_requests_at_the_same_instant_one_is_first},
        {"another_body_is_a_conflict", another_body_is_a_conflict},
        {"keys_and_tenants_do_not_mix", keys_and_tenants_do_not_mix},
        {"a_key_whose_job_could_not_be_produced_is_free",
         a_key_whose_job_could_not_be_produced_is_free},
        {"a_key_whose_query_was_cancelled_is_free", a_key_whose_query_was_cancelled_is_free},
        {"a_key_of_a_gateway_that_died_is_taken_over_with_its_query",
         a_key_of_a_gateway_that_died_is_taken_over_with_its_query},
        {"a_take_over_that_failed_leaves_the_query_to_the_next_one",
         a_take_over_that_failed_leaves_the_query_to_the_next_one},
        {"a_key_whose_query_had_no_time_left_when_its_gateway_died_is_free",
         a_key_whose_query_had_no_time_left_when_its_gateway_died_is_free},
        {"a_query_that_ended_was_produced_whatever_became_of_its_gateway",
         a_query_that_ended_was_produced_whatever_became_of_its_gateway},
        {"what_was_produced_is_not_produced_again_when_its_gateway_died",
         what_was_produced_is_not_produced_again_when_its_gateway_died},
        {"a_question_that_was_given_up_is_undone", a_question_that_was_given_up_is_undone},
        {"a_question_whose_answer_was_lost_gets_the_same_answer",
         a_question_whose_answer_was_lost_gets_the_same_answer},
        {NULL, NULL},
    };
    return run_tests(cases, argc, argv);
}
