/* How the embed stage gathers questions into calls, and what a text at fault does, on a fake
 * runtime. */
#include "common/clock.h"
#include "tests/support/alloc_fail.h"
#include "tests/support/stage/fake_runtime.h"
#include "tests/support/test.h"
#include "workers/embed/embed.h"
#include "workers/embed/vectors.h"

static struct sl_worker *worker;
static uint64_t now_us = 1000000000;

#define ONE "{\"data\":[{\"index\":0,\"embedding\":[1,2]}]}"
#define TWO                                                                                        \
    "{\"data\":[{\"index\":1,\"embedding\":[3,4]},{\"index\":0,\"embedding\":\"AACAPwAAAEA=\"}]}"

static void setup(void)
{
    sl_clock_use(&now_us);
    setenv("SLUICE_EMBED_QUERY_LIMIT", "4", 1);
    setenv("SLUICE_EMBED_CACHE", "0", 1);
    setenv("SLUICE_EMBED_URL", "http://127.0.0.1:1/v1", 1);
    worker = fake_worker_create(&embed_stage);
}

static void teardown(void)
{
    fake_worker_destroy(worker);
    sl_clock_use(NULL);
}

static void turn(void)
{
    fake_settle_loop(worker);
}

TEST(an_idle_stage_calls_at_once_with_what_came_together)
{
    setup();
    struct sl_job *a = fake_job_create(worker, "a"), *b = fake_job_create(worker, "b");
    fake_start(a);
    fake_start(b);
    CHECK_INT(fake_call_count(worker), 0);
    turn();
    CHECK_INT(fake_call_count(worker), 1);
    CHECK(strstr(fake_call(worker, 0)->body.data, "\"input\":[\"a\",\"b\"]") != NULL);
    fake_call_end(fake_call(worker, 0), 0, 200, TWO);
    CHECK_INT(a->settled, FAKE_FORWARDED);
    CHECK_STR(a->topic, "retrieve");
    CHECK(a->query.vector_len == 2 && a->query.vector[1] == 2.0F && b->query.vector[0] == 3.0F);
    fake_job_destroy(a);
    fake_job_destroy(b);
    teardown();
}

TEST(questions_wait_for_the_window_when_half_of_the_permits_are_in_use)
{
    setup();
    struct sl_job *a = fake_job_create(worker, "a"), *b = fake_job_create(worker, "b");
    struct sl_job *c = fake_job_create(worker, "c");
    fake_start(a);
    turn();
    fake_start(b);
    turn();
    CHECK_INT(fake_call_count(worker), 2); /* Of four. */
    fake_start(c);
    turn();
    CHECK_INT(fake_call_count(worker), 2);
    now_us += 20000;
    turn();
    CHECK_INT(fake_call_count(worker), 3);
    fake_call_end(fake_call(worker, 2), 0, 200, ONE);
    fake_call_end(fake_call(worker, 1), 0, 200, ONE);
    fake_call_end(fake_call(worker, 0), 0, 200, ONE);
    CHECK(a->settled == FAKE_FORWARDED && b->settled == FAKE_FORWARDED);
    CHECK_INT(c->settled, FAKE_FORWARDED);
    fake_job_destroy(a);
    fake_job_destroy(b);
    fake_job_destroy(c);
    teardown();
}

TEST(the_permit_that_came_with_a_question_is_its_calls)
{
    setup();
    struct sl_job *a = fake_job_create(worker, "a"), *b = fake_job_create(worker, "b");
    CHECK(embed_stage.wants_permits(worker));
    b->permits[0].state = SL_PERMIT_HELD;
    fake_start(a);
    fake_start(b);
    turn();
    CHECK_INT(fake_call_count(worker), 1);
    CHECK(fake_call(worker, 0)->request.lease == &b->permits[0]);
    b->permits[0].state = SL_PERMIT_NONE; /* The call has it. */
    struct sl_job *c = fake_job_create(worker, "c");
    fake_start(c);
    turn();
    CHECK(fake_call(worker, 1)->request.lease == NULL);
    CHECK(!embed_stage.wants_permits(worker)); /* Two of four are in use. */
    fake_call_end(fake_call(worker, 1), 0, 200, ONE);
    fake_call_end(fake_call(worker, 0), 0, 200, TWO);
    CHECK(embed_stage.wants_permits(worker));
    fake_job_destroy(a);
    fake_job_destroy(b);
    fake_job_destroy(c);
    teardown();
}

TEST(a_member_leaves_and_the_last_closes_the_call)
{
    setup();
    struct sl_job *a = fake_job_create(worker, "a"), *b = fake_job_create(worker, "b");
    struct sl_job *waiting = fake_job_create(worker, "w");
    fake_start(a);
    fake_start(b);
    turn();
    fake_start(waiting);
    fake_cancel(waiting);
    fake_cancel(a);
    CHECK(!fake_call(worker, 0)->cancelled);
    fake_cancel(b);
    CHECK(fake_call(worker, 0)->cancelled);
    turn();
    CHECK_INT(fake_call_count(worker), 1);
    fake_job_destroy(a);
    fake_job_destroy(b);
    fake_job_destroy(waiting);
    teardown();
}

TEST(only_the_text_at_fault_fails)
{
    setup();
    struct sl_job *a = fake_job_create(worker, "a"), *b = fake_job_create(worker, "b");
    fake_start(a);
    fake_start(b);
    turn();
    fake_call_end(fake_call(worker, 0), -SL_EUPSTREAM, 500, "too long");
    CHECK_INT(fake_call_count(worker), 3);
    fake_call_end(fake_call(worker, 1), -SL_EUPSTREAM, 500, "too long");
    fake_call_end(fake_call(worker, 2), 0, 200, ONE);
    CHECK(a->settled == FAKE_FAILED && a->code == SL_QERR_UPSTREAM_ERROR);
    CHECK_INT(b->settled, FAKE_FORWARDED);
    fake_job_destroy(a);
    fake_job_destroy(b);
    teardown();
}

TEST(responses_that_do_not_fit_are_refused)
{
    static const char *const bodies[] = {
        "",
        "{}",
        "{\"data\":[]}",
        "{\"data\":[{\"index\":0}]}",
        "{\"data\":[{\"index\":1,\"embedding\":[1]}]}",
        "{\"data\":[{\"index\":0,\"embedding\":[]}]}",
        "{\"data\":[{\"index\":0,\"embedding\":\"AAA\"}]}",
        "{\"data\":[{\"index\":0,\"embedding\":\"AACAf!==\"}]}",
        "{\"data\":[{\"index\":0,\"embedding\":\"AADAfw==\"}]}"}; /* Not a number. */
    for (size_t i = 0; i < sizeof(bodies) / sizeof(bodies[0]); i++) {
        float *vectors;
        size_t dim;
        char why[100];
        CHECK_INT(vectors_read_response(sl_span_of(bodies[i]), 1, &vectors, &dim, why, sizeof(why)),
                  -SL_EPROTO);
    }
}

TEST(a_response_that_memory_runs_out_for_is_told_as_that)
{
    bool failed = true;
    for (long k = 1; failed; k++) {
        float *vectors = NULL;
        size_t dim = 0;
        char why[100] = "";
        sl_test_fail_alloc(k);
        int rv = vectors_read_response(SL_SPAN(ONE), 1, &vectors, &dim, why, sizeof(why));
        failed = sl_test_alloc_failed();
        CHECK_INT(rv, failed ? -SL_ENOMEM : 0);
        CHECK(!failed || strcmp(why, sl_error_text(-SL_ENOMEM)) == 0);
        free(vectors);
    }
}

int main(int argc, char **argv)
{
    const struct test_case cases[] = {
        {"an_idle_stage_calls_at_once_with_what_came_together",
         an_idle_stage_calls_at_once_with_what_came_together},
        {"questions_wait_for_the_window_when_half_of_the_permits_are_in_use",
         questions_wait_for_the_window_when_half_of_the_permits_are_in_use},
        {"the_permit_that_came_with_a_question_is_its_calls",
         the_permit_that_came_with_a_question_is_its_calls},
        {"a_member_leaves_and_the_last_closes_the_call",
         a_member_leaves_and_the_last_closes_the_call},
        {"only_the_text_at_fault_fails", only_the_text_at_fault_fails},
        {"responses_that_do_not_fit_are_refused", responses_that_do_not_fit_are_refused},
        {"a_response_that_memory_runs_out_for_is_told_as_that",
         a_response_that_memory_runs_out_for_is_told_as_that},
        {NULL, NULL},
    };
    return run_tests(cases, argc, argv);
}
