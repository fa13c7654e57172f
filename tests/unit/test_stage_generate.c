/* What the generate stage does with the model's stream, on a fake runtime. */
#include "tests/support/stage/fake_runtime.h"
#include "tests/support/test.h"
#include "workers/generate/generate.h"

#define DELTA(text) "data: {\"choices\":[{\"delta\":{\"content\":\"" text "\"}}]}\n\n"
#define FINISH "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n"
#define USAGE                                                                                      \
    "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":2}}\n\n"           \
    "data: [DONE]\n\n"

static struct sl_worker *worker;
static struct sl_job *job;

static void setup(void)
{
    setenv("SLUICE_CHAT_URL", "http://127.0.0.1:1/v1", 1);
    setenv("SLUICE_CHAT_MODEL", "first,second", 1);
    worker = fake_worker_create(&generate_stage);
    job = fake_job_create(worker, "What is a permit?");
    static struct sl_hit hit = {.text = {"A permit is a lease.", 20}};
    job->query.hits = &hit;
    job->query.hits_len = 1;
}

static void teardown(void)
{
    fake_job_destroy(job);
    fake_worker_destroy(worker);
}

static void start(void)
{
    fake_start(job);
    CHECK_INT(fake_call_count(worker), 1);
}

/* The claim says that the answer is being sent. */
static void let_stream(void)
{
    CHECK(job->on_streaming != NULL && job->event_count == 0);
    job->on_streaming(job);
}

TEST(streams_each_piece_and_finishes_with_usage)
{
    setup();
    start();
    struct sl_upstream_call *call = fake_call(worker, 0);
    CHECK_STR(call->path, "/chat/completions");
    CHECK(strstr(call->body.data, "\"model\":\"first\"") != NULL);
    CHECK(strstr(call->body.data, "[1] A permit is a lease.") != NULL);
    CHECK(strstr(call->body.data, "Question: What is a permit?") != NULL);
    CHECK(fake_call_data(call, DELTA("A ")) == 0 && call->committed);
    let_stream();
    CHECK(fake_call_data(call, DELTA("lease") FINISH USAGE) == 0);
    fake_call_end(call, 0, 200, "");
    CHECK_INT(job->settled, FAKE_FINISHED);
    CHECK_INT(job->event_count, 2);
    CHECK_STR(job->events[1].text, "lease");
    CHECK_STR(job->answer, "A lease");
    CHECK_INT(job->result.usage.prompt_tokens, 7);
    CHECK(!job->result.usage.estimated);
    teardown();
}

/* Every character of it may need an escape in JSON. */
TEST(the_longest_history_of_a_query_reaches_the_model)
{
    enum { CONTENT = 131072 };
    static char content[CONTENT];
    static struct sl_turn turns[SL_HISTORY_MAX];
    memset(content, '\n', sizeof(content));
    for (size_t i = 0; i < SL_HISTORY_MAX; i++) {
        turns[i] = (struct sl_turn){.assistant = i % 2 == 1, .content = {content, CONTENT}};
    }
    setup();
    job->query.history = turns;
    job->query.history_len = SL_HISTORY_MAX;
    start();
    CHECK(fake_call_data(fake_call(worker, 0), DELTA("x")) == 0);
    let_stream();
    CHECK(fake_call_data(fake_call(worker, 0), FINISH USAGE) == 0);
    fake_call_end(fake_call(worker, 0), 0, 200, "");
    CHECK_INT(job->settled, FAKE_FINISHED);
    teardown();
}

TEST(a_stream_without_its_finish_is_an_error_with_a_partial_answer)
{
    setup();
    start();
    CHECK(fake_call_data(fake_call(worker, 0), DELTA("half")) == 0);
    let_stream();
    fake_call_end(fake_call(worker, 0), 0, 200, "");
    CHECK_INT(job->settled, FAKE_FAILED);
    CHECK_INT(job->code, SL_QERR_UPSTREAM_ERROR);
    CHECK_STR(job->partial_answer, "half");
    CHECK(job->partial.usage.estimated && job->partial.usage.completion_tokens == 1);
    teardown();
}

TEST(an_error_inside_the_stream_ends_it)
{
    setup();
    start();
    CHECK(fake_call_data(fake_call(worker, 0), DELTA("x")) == 0);
    int rv =
        fake_call_data(fake_call(worker, 0), "data: {\"error\":{\"message\":\"no memory\"}}\n\n");
    CHECK_INT(rv, -SL_EUPSTREAM);
    fake_call_end(fake_call(worker, 0), rv, 200, "");
    CHECK_INT(job->settled, FAKE_FAILED);
    CHECK(strstr(job->message, "no memory") != NULL);
    teardown();
}

TEST(text_that_waits_for_a_flush_is_sent_before_the_error)
{
    static const struct {
        int err, status;
    } ends[] = {{-SL_ECONN, 0}, {-SL_EEXPIRED, 0}, {0, 200}};
    for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); i++) {
        setup();
        start();
        struct sl_upstream_call *call = fake_call(worker, 0);
        CHECK(fake_call_data(call, DELTA("one")) == 0);
        let_stream();
        CHECK(call->request.callbacks->on_data(job, SL_SPAN(DELTA("two"))) == 0);
        CHECK_INT(job->event_count, 1);
        fake_call_end(call, ends[i].err, ends[i].status, "");
        CHECK_INT(job->settled, FAKE_FAILED);
        CHECK_INT(job->event_count, 2);
        CHECK_STR(job->events[1].text, "two");
        CHECK_STR(job->partial_answer, "onetwo");
        teardown();
    }
}

TEST(a_line_that_is_not_json_ends_it)
{
    setup();
    start();
    int rv = fake_call_data(fake_call(worker, 0), "data: {\"choices\":[{]\n\n");
    CHECK_INT(rv, -SL_EPROTO);
    fake_call_end(fake_call(worker, 0), rv, 200, "");
    CHECK_INT(job->settled, FAKE_FAILED);
    teardown();
}

TEST(a_retry_forgets_what_came_before_the_first_token)
{
    setup();
    start();
    struct sl_upstream_call *call = fake_call(worker, 0);
    CHECK(fake_call_data(
              call, "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\"}}]}\n\ndata: {\"ch") ==
          0);
    CHECK(!call->committed);
    fake_call_retry(call);
    CHECK(fake_call_data(call, DELTA("yes") FINISH USAGE) == 0);
    fake_call_end(call, 0, 200, "");
    CHECK_INT(job->settled, FAKE_OPEN); /* Nothing is sent before the claim says so. */
    let_stream();
    CHECK_STR(job->answer, "yes");
    teardown();
}

TEST(a_slow_reply_topic_pauses_the_model_and_loses_nothing)
{
    setup();
    start();
    struct sl_upstream_call *call = fake_call(worker, 0);
    job->emit_err = -SL_EAGAIN;
    CHECK(fake_call_data(call, DELTA("a")) == 0);
    let_stream();
    CHECK(fake_call_data(call, DELTA("b")) == 0);
    CHECK(call->paused && job->event_count == 0 && job->on_room != NULL);
    CHECK(fake_call_data(call, DELTA("c") FINISH USAGE) == 0);
    fake_call_end(call, 0, 200, "");
    CHECK_INT(job->settled, FAKE_OPEN); /* Not before its text is out. */
    job->emit_err = 0;
    job->on_room(job);
    CHECK_INT(job->event_count, 1);
    CHECK_STR(job->events[0].text, "abc");
    CHECK_INT(job->settled, FAKE_FINISHED);
    teardown();
}

TEST(a_cancel_closes_the_call_and_keeps_the_partial)
{
    setup();
    start();
    CHECK(fake_call_data(fake_call(worker, 0), DELTA("some")) == 0);
    fake_cancel(job);
    CHECK(fake_call(worker, 0)->cancelled);
    CHECK_STR(job->partial_answer, "some");
    teardown();
}

TEST(the_callers_own_fields_reach_the_model)
{
    setup();
    job->query.model = SL_SPAN("second");
    job->query.extra = SL_SPAN("{\"stop\":[\"x\"],\"seed\":3}");
    start();
    const char *body = fake_call(worker, 0)->body.data;
    CHECK(strstr(body, "\"model\":\"second\"") != NULL);
    CHECK(strstr(body, ",\"stop\":[\"x\"],\"seed\":3}") != NULL);
    fake_cancel(job);
    teardown();
}

TEST(the_alias_is_the_first_model_for_a_job_without_a_gateway_too)
{
    setup();
    job->query.model = SL_SPAN("sluice");
    start();
    CHECK(strstr(fake_call(worker, 0)->body.data, "\"model\":\"first\"") != NULL);
    fake_cancel(job);
    teardown();
}

int main(int argc, char **argv)
{
    const struct test_case cases[] = {
        {"streams_each_piece_and_finishes_with_usage", streams_each_piece_and_finishes_with_usage},
        {"the_longest_history_of_a_query_reaches_the_model",
         the_longest_history_of_a_query_reaches_the_model},
        {"a_stream_without_its_finish_is_an_error_with_a_partial_answer",
         a_stream_without_its_finish_is_an_error_with_a_partial_answer},
        {"an_error_inside_the_stream_ends_it", an_error_inside_the_stream_ends_it},
        {"text_that_waits_for_a_flush_is_sent_before_the_error",
         text_that_waits_for_a_flush_is_sent_before_the_error},
        {"a_line_that_is_not_json_ends_it", a_line_that_is_not_json_ends_it},
        {"a_retry_forgets_what_came_before_the_first_token",
         a_retry_forgets_what_came_before_the_first_token},
        {"a_slow_reply_topic_pauses_the_model_and_loses_nothing",
         a_slow_reply_topic_pauses_the_model_and_loses_nothing},
        {"a_cancel_closes_the_call_and_keeps_the_partial",
         a_cancel_closes_the_call_and_keeps_the_partial},
        {"the_alias_is_the_first_model_for_a_job_without_a_gateway_too",
         the_alias_is_the_first_model_for_a_job_without_a_gateway_too},
        {"the_callers_own_fields_reach_the_model", the_callers_own_fields_reach_the_model},
        {NULL, NULL},
    };
    return run_tests(cases, argc, argv);
}
