/* Results as work: they need no claim, end after what was made of them is acknowledged, and what is
 * no result is a dead letter. */
#include "tests/support/runtime/worker_fixture.h"
#include "tests/support/test.h"

static struct sl_job *running;
static size_t starts, cancels;

static void start(struct sl_job *job)
{
    running = job;
    starts++;
}

static void cancel(struct sl_job *job)
{
    CHECK(job == running);
    running = NULL;
    cancels++;
}

static const char *const outputs[] = {"analytics", NULL};
static const struct sl_stage stage = {
    .name = "test",
    .synopsis = "",
    .index = SL_STAGE_COUNT,
    .inputs = {{.topic = "results", .kind = SL_INPUT_RESULT, .bulk = true, .public = true}},
    .outputs = outputs,
    .state_size = 8,
    .start = start,
    .cancel = cancel,
};

static void create(void)
{
    running = NULL;
    starts = cancels = 0;
    CHECK_INT(fx_start_stage(&stage), 0);
    fx_turn();
}

static struct sl_position take(const char *value)
{
    const struct fake_record record = {.type = "application/json",
                                       .timestamp_ms = 77,
                                       .key = SL_SPAN("q1"),
                                       .value = sl_span_of(value)};
    return fx_take(&record);
}

static void send_and_settle(void)
{
    struct sl_job *job = running;
    running = NULL;
    CHECK_INT(sl_job_send_json(job, "analytics", SL_SPAN("q1"), SL_SPAN("{}")), 0);
    sl_job_done(job);
    fx_turn();
}

TEST(a_result_runs_without_a_word_to_redis_and_ends_when_its_record_arrived)
{
    create();
    struct sl_position position = take("{\"id\":\"q1\",\"answer\":\"yes\"}");
    CHECK(starts == 1 && fake_waiting_count() == 0);
    CHECK(sl_span_is(sl_job_result(running)->query.id, "q1"));
    CHECK(sl_span_is(sl_job_result(running)->result.answer, "yes"));
    CHECK_INT(sl_job_timestamp_ms(running), 77);
    CHECK(sl_job_query(running) == NULL && sl_job_bulk(running));
    send_and_settle();
    CHECK(!fake_ended(&position));
    CHECK_STR(fake_open("analytics")->type, "application/json");
    CHECK_STR(fake_open("analytics")->key, "q1");
    fx_ack("analytics");
    CHECK(fake_ended(&position));
    CHECK_INT(fake_written(FAKE_DONE), 0);
    CHECK_INT(fx_counted(OUTCOME_done), 1);
    fx_check_idle();
    CHECK_INT(fx_destroy(), 0);
}

TEST(a_record_that_did_not_arrive_is_made_again)
{
    create();
    struct sl_position position = take("{\"id\":\"q1\"}");
    send_and_settle();
    fx_fail("analytics", -SL_ETIMEDOUT);
    CHECK(starts == 2 && !fake_ended(&position));
    send_and_settle();
    fx_ack("analytics");
    CHECK(fake_ended(&position));
    fx_check_idle();
    CHECK_INT(fx_destroy(), 0);
}

TEST(what_is_no_result_is_a_dead_letter_as_it_came)
{
    static const char *const values[] = {"\x01nonsense", "{\"id\":7}", "{\"answer\":\"yes\"}"};
    for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
        create();
        struct sl_position position = take(values[i]);
        CHECK_INT(starts, 0);
        CHECK_STR(fx_last("results.dlq"), values[i]);
        fx_ack("results.dlq");
        CHECK(fake_ended(&position));
        CHECK_INT(fx_counted(OUTCOME_dead), 1);
        fx_check_idle();
        CHECK_INT(fx_destroy(), 0);
    }
}

TEST(no_more_run_than_there_are_slots)
{
    create();
    struct sl_position position;
    struct sl_job *jobs[FX_BULK_SLOTS];
    for (int i = 0; i < FX_BULK_SLOTS; i++) {
        take("{\"id\":\"q1\"}");
        jobs[i] = running;
    }
    const struct fake_record more = {.timestamp_ms = 1, .value = SL_SPAN("{}")};
    CHECK(!fake_consume(&more, &position));
    for (int i = 0; i < FX_BULK_SLOTS; i++) {
        sl_job_done(jobs[i]);
    }
    fx_turn();
    CHECK(fake_consume(&more, &position));
    fx_finish_all();
    fx_check_idle();
    CHECK_INT(fx_destroy(), 0);
}

TEST(what_still_runs_when_the_process_ends_is_stopped_and_read_again)
{
    create();
    struct sl_position position = take("{\"id\":\"q1\"}");
    fx_signal();
    fx_signal();
    fx_turn();
    CHECK(cancels == 1 && !fake_ended(&position));
    CHECK_INT(fx_destroy(), 1);
}

int main(int argc, char **argv)
{
    const struct test_case cases[] = {
        {"a_result_runs_without_a_word_to_redis_and_ends_when_its_record_arrived",
         a_result_runs_without_a_word_to_redis_and_ends_when_its_record_arrived},
        {"a_record_that_did_not_arrive_is_made_again", a_record_that_did_not_arrive_is_made_again},
        {"what_is_no_result_is_a_dead_letter_as_it_came",
         what_is_no_result_is_a_dead_letter_as_it_came},
        {"no_more_run_than_there_are_slots", no_more_run_than_there_are_slots},
        {"what_still_runs_when_the_process_ends_is_stopped_and_read_again",
         what_still_runs_when_the_process_ends_is_stopped_and_read_again},
        {NULL, NULL},
    };
    return run_tests(cases, argc, argv);
}
