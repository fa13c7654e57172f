/* How a job ends when the broker, Redis or other workers do not play along. */
#include "tests/support/runtime/worker_fixture.h"
#include "tests/support/test.h"

/* --- a claim that is lost --- */

TEST(a_claim_lost_while_it_runs_stops_the_job_and_asks_again)
{
    fx_create(SL_STAGE_embed);
    struct sl_position position = fx_ask("q1");
    fx_grant("q1");
    fake_lose(fake_granted_to("q1"));
    fx_turn();
    CHECK_INT(fx_cancels, 1);
    CHECK_INT(fake_permits_held(), 0);
    CHECK_INT(fx_worker.slots_used[CLASS_QUERY], 1);
    fx_verdict("q1", SL_VERDICT_PARKED);
    fake_retry(fake_parked(0));
    fx_turn();
    fx_verdict("q1", SL_VERDICT_DONE);
    CHECK(fake_ended(&position) && fake_sent_count() == 0);
    fx_check_idle();
    fx_destroy();
}

TEST(a_claim_lost_while_it_flushes_waits_for_the_reports_first)
{
    fx_create(SL_STAGE_generate);
    fx_ask("q1");
    fx_grant("q1");
    fx_emit("q1", "delta");
    fx_finish("q1", "delta");
    fake_lose(fake_granted_to("q1"));
    fx_turn();
    CHECK_INT(fake_waiting_count(), 0);
    fx_ack("replies");
    CHECK_INT(fake_written(FAKE_END), 0);
    fx_verdict("q1", SL_VERDICT_ENDED);
    fx_check_idle();
    fx_destroy();
}

TEST(a_claim_lost_while_its_ending_is_stored_asks_what_became_of_it)
{
    static const int answers[] = {0, -SL_ELOST, -SL_EEXIST, -SL_ECONN};
    for (size_t i = 0; i < sizeof(answers) / sizeof(answers[0]); i++) {
        fx_create(SL_STAGE_generate);
        struct sl_position position = fx_ask("q1");
        fx_grant("q1");
        fx_finish("q1", "yes");
        fake_lose(fake_granted_to("q1"));
        fx_turn();
        CHECK_INT(fake_waiting_count(), 0); /* Redis owes an answer still. */
        struct sl_buf ending;
        sl_buf_init(&ending, 1 << 20);
        sl_buf_append_span(&ending, sl_buf_span(&fake_op(FAKE_END, 0)->ending));
        fx_answer(FAKE_END, answers[i]);
        CHECK_INT(fake_sent_count(), 0);
        fake_verdict(fake_waiting("q1"), SL_VERDICT_ENDING, 1, 0, sl_buf_span(&ending));
        sl_buf_fini(&ending); /* It was borrowed. */
        fx_turn();
        fx_finish_all();
        CHECK(fx_last_has("results", "\"answer\":\"yes\"") && fake_ended(&position));
        CHECK_INT(fake_written(FAKE_ENDED), 1);
        CHECK_INT(fx_counted(OUTCOME_moved), 1);
        fx_check_idle();
        fx_destroy();
    }
}

TEST(a_claim_lost_while_output_is_on_its_way_changes_nothing)
{
    fx_create(SL_STAGE_embed);
    struct sl_position position = fx_ask("q1");
    fx_grant("q1");
    fx_forward("q1");
    fake_lose(fake_granted_to("q1"));
    fx_turn();
    CHECK_INT(fake_waiting_count(), 0);
    fx_ack("retrieve");
    CHECK(fake_ended(&position));
    CHECK_INT(fake_written(FAKE_DONE), 0);
    fx_check_idle();
    fx_destroy();
}

TEST(a_mark_that_comes_too_late_ends_the_job_all_the_same)
{
    fx_create(SL_STAGE_embed);
    struct sl_position position = fx_ask("q1");
    fx_grant("q1");
    fx_forward("q1");
    fx_ack("retrieve");
    fx_answer(FAKE_DONE, -SL_ELOST);
    CHECK(fake_ended(&position));
    fx_check_idle();
    fx_destroy();
}

/* --- the one ending --- */

TEST(somebody_elses_ending_is_asked_about_not_taken_for_produced)
{
    fx_create(SL_STAGE_embed);
    struct sl_position position = fx_ask("q1");
    fx_grant("q1");
    sl_job_fail(fx_settle("q1"), SL_QERR_UPSTREAM_ERROR, "no");
    fx_turn();
    fx_answer(FAKE_END, -SL_EEXIST);
    CHECK(!fake_ended(&position));
    fx_verdict("q1", SL_VERDICT_PARKED); /* Its owner lives, and has not produced it yet. */
    CHECK(!fake_ended(&position));
    fake_retry(fake_parked(0));
    fx_turn();
    fx_verdict("q1", SL_VERDICT_ENDED);
    CHECK(fake_ended(&position) && fake_sent_count() == 0);
    CHECK_INT(fx_counted(OUTCOME_moved), 1);
    CHECK_INT(fx_counted(OUTCOME_failed), 0);
    fx_check_idle();
    fx_destroy();
}

TEST(an_ending_is_stored_as_soon_as_redis_takes_it)
{
    static const int refusals[] = {-SL_EAGAIN, -SL_ENOMEM};
    for (size_t i = 0; i < 2; i++) {
        fx_create(SL_STAGE_embed);
        struct sl_position position = fx_ask("q1");
        fx_grant("q1");
        fake_refuse_ops(refusals[i]);
        sl_job_fail(fx_settle("q1"), SL_QERR_UPSTREAM_ERROR, "no");
        fx_turn();
        CHECK_INT(fake_written(FAKE_END), 0);
        fake_refuse_ops(0);
        fx_sleep(3000);
        CHECK_INT(fake_op_count(FAKE_END), 1);
        struct sl_buf first; /* What Redis may have by now is what it must get again. */
        sl_buf_init(&first, 1 << 20);
        sl_buf_append_span(&first, sl_buf_span(&fake_op(FAKE_END, 0)->ending));
        fx_sleep(5000);
        fx_answer(FAKE_END, -SL_ECONN); /* After a minute without Redis. */
        CHECK(sl_span_equal(sl_buf_span(&first), sl_buf_span(&fake_op(FAKE_END, 0)->ending)));
        sl_buf_fini(&first);
        fx_finish_all();
        CHECK(fake_ended(&position));
        CHECK_INT(fake_count("results"), 1);
        fx_check_idle();
        fx_destroy();
    }
}

TEST(a_dead_workers_ending_is_produced_unchanged)
{
    fx_create(SL_STAGE_embed);
    struct sl_position position = fx_ask("q1");
    const struct sl_query query = {.id = SL_SPAN("q1"),
                                   .tenant = SL_SPAN("default"),
                                   .query = SL_SPAN("why?"),
                                   .json = true,
                                   .reply_topic = SL_SPAN("acme.answers"),
                                   .reply_partition = 2};
    const struct sl_result result = {.outcome = SL_DONE, .answer = SL_SPAN("as stored")};
    struct sl_buf ending;
    sl_buf_init(&ending, 1 << 20);
    sl_ending_pack(&query, &result, 1, 7, 99, fx_now(), &ending);
    fake_verdict(fake_waiting("q1"), SL_VERDICT_ENDING, 0, 0, sl_buf_span(&ending));
    sl_buf_fini(&ending);
    fx_turn();
    CHECK(fx_last_has("results", "as stored"));
    CHECK_STR(fake_sent(0)->topic, "acme.answers");
    CHECK_INT(fake_sent(0)->partition, 2);
    CHECK(strstr(fake_sent(0)->value.data, "\"fence\":99") != NULL);
    fx_finish_all();
    CHECK(fake_ended(&position) && fake_written(FAKE_ENDED) == 1 && fake_written(FAKE_DONE) == 0);
    fx_check_idle();
    fx_destroy();
}

TEST(an_ending_that_nobody_can_read_is_a_dead_letter)
{
    fx_create(SL_STAGE_embed);
    struct sl_position position = fx_ask("q1");
    fake_verdict(fake_waiting("q1"), SL_VERDICT_ENDING, 0, 0, SL_SPAN("\x01\x00"));
    fx_turn();
    CHECK_INT(fake_count("queries.dlq"), 1);
    fx_finish_all();
    CHECK(fake_ended(&position));
    fx_check_idle();
    fx_destroy();
}

/* --- records that are not delivered --- */

TEST(a_forwarded_query_is_sent_until_it_arrives)
{
    fx_create(SL_STAGE_embed);
    struct sl_position position = fx_ask("q1");
    fx_grant("q1");
    fx_forward("q1");
    for (int i = 0; i < 4; i++) {
        fx_fail("retrieve", i < 2 ? -SL_ETIMEDOUT : -SL_ENOENT);
        CHECK(fake_open("retrieve") == NULL && !fake_ended(&position));
        fx_sleep(2500);
    }
    fx_ack("retrieve");
    fx_finish_all();
    CHECK(fake_ended(&position));
    CHECK_INT(fx_counted(OUTCOME_done), 1);
    fx_check_idle();
    fx_destroy();
}

TEST(a_full_queue_holds_up_but_loses_nothing)
{
    fx_create(SL_STAGE_embed);
    fx_ask("q1");
    fx_grant("q1");
    fake_refuse(NULL, -SL_EAGAIN);
    fx_forward("q1");
    CHECK_INT(fake_sent_count(), 0);
    fake_refuse(NULL, 0);
    fx_sleep(2500);
    CHECK_INT(fake_count("retrieve"), 1);
    fx_finish_all();
    fx_check_idle();
    fx_destroy();
}

TEST(a_query_too_large_for_the_next_topic_fails)
{
    for (int sync = 0; sync < 2; sync++) {
        fx_create(SL_STAGE_embed);
        struct sl_position position = fx_ask("q1");
        fx_grant("q1");
        fake_refuse("retrieve", sync != 0 ? -SL_ETOOBIG : 0);
        fx_forward("q1");
        if (sync == 0) {
            fx_fail("retrieve", -SL_ETOOBIG);
        }
        fx_answer(FAKE_END, 0);
        CHECK(fx_last_has("results", "too large"));
        fx_finish_all();
        CHECK(fake_ended(&position));
        CHECK_INT(fx_counted(OUTCOME_failed), 1);
        CHECK_INT(fx_counted(OUTCOME_done), 0);
        fx_check_idle();
        fx_destroy();
    }
}

TEST(a_query_that_reaches_nobody_expires)
{
    fx_create(SL_STAGE_embed);
    struct sl_position position = fx_ask("q1");
    fx_grant("q1");
    fake_refuse("retrieve", -SL_ENOENT);
    fx_forward("q1");
    fx_sleep(FX_TIMEOUT_MS + 3000);
    fx_finish_all();
    CHECK(fx_last_has("results", "\"outcome\":\"expired\"") && fake_ended(&position));
    fx_check_idle();
    fx_destroy();
}

TEST(an_event_that_nobody_can_get_does_not_hold_up_the_result)
{
    fx_create(SL_STAGE_rerank);
    struct sl_position position = fx_ask("q1");
    fx_grant("q1");
    fake_refuse("replies", -SL_ENOENT); /* A partition that does not exist. */
    CHECK_INT(fx_emit("q1", ""), 0);
    fx_finish("q1", "");
    fx_sleep(20000);
    fx_finish_all();
    CHECK_INT(fake_count("results"), 1);
    fx_sleep(20000);
    fx_finish_all();
    CHECK(fake_ended(&position));
    fx_check_idle();
    fx_destroy();
}

TEST(a_result_too_large_for_its_topic_is_given_up_loudly)
{
    fx_create(SL_STAGE_generate);
    struct sl_position position = fx_ask("q1");
    fx_grant("q1");
    fx_finish("q1", "yes");
    fx_answer(FAKE_END, 0);
    fx_fail("results", -SL_ETOOBIG);
    fx_finish_all();
    CHECK(fake_ended(&position));
    fx_check_idle();
    fx_destroy();
}

TEST(an_answer_too_large_for_any_topic_ends_as_a_failure)
{
    fx_create(SL_STAGE_generate);
    fx_ask("q1");
    fx_grant("q1");
    size_t len = 5 << 20;
    char *answer = malloc(len + 1);
    CHECK(answer != NULL);
    memset(answer, '\x02', len); /* Six bytes each in JSON. */
    answer[len] = '\0';
    fx_finish("q1", answer);
    free(answer);
    CHECK(fake_op(FAKE_END, 0)->ending.len < 100000);
    fx_finish_all();
    CHECK(fx_last_has("results", "larger than its topic"));
    CHECK_INT(fx_counted(OUTCOME_failed), 1);
    fx_check_idle();
    fx_destroy();
}

TEST(a_dead_letter_too_large_for_its_topic_goes_without_its_bytes)
{
    fx_create(SL_STAGE_embed);
    const struct fake_record record = {.id = "q1", .value = SL_SPAN("\x01"), .timestamp_ms = 1};
    struct sl_position position = fx_take(&record);
    fx_fail("queries.dlq", -SL_ETOOBIG);
    fx_sleep(1000);
    CHECK_INT(fake_open("queries.dlq")->value.len, 0);
    fx_finish_all();
    CHECK(fake_ended(&position));
    fx_check_idle();
    fx_destroy();
}

/* --- events --- */

TEST(sources_that_do_not_arrive_do_not_fail_a_query_that_went_on)
{
    fx_create(SL_STAGE_rerank);
    struct sl_position position = fx_ask("q1");
    fx_grant("q1");
    CHECK_INT(fx_emit("q1", ""), 0);
    fx_forward("q1");
    CHECK(fake_count("retrieve") == 1 && fake_count("replies") == 0); /* It goes first. */
    fx_sleep(5);
    fx_fail("replies", -SL_ETOOBIG);
    fx_ack("retrieve");
    CHECK_INT(fake_written(FAKE_END), 0);
    fx_finish_all();
    CHECK(fake_ended(&position));
    CHECK_INT(fx_counted(OUTCOME_done), 1);
    fx_check_idle();
    fx_destroy();
}

TEST(sources_are_sent_again_also_while_the_query_ends)
{
    fx_create(SL_STAGE_rerank);
    struct sl_position position = fx_ask("q1");
    fx_grant("q1");
    CHECK_INT(fx_emit("q1", ""), 0);
    fake_cancel(fake_granted_to("q1"));
    fx_turn();
    fx_fail("replies", -SL_ETIMEDOUT);
    fx_sleep(1000);
    CHECK_INT(fake_written(FAKE_END), 0);
    fx_ack("replies");
    fx_answer(FAKE_END, 0);
    CHECK(fx_last_has("replies", "\"seq\":1"));
    fx_finish_all();
    CHECK(fake_ended(&position));
    fx_check_idle();
    fx_destroy();
}

TEST(sources_of_an_attempt_that_was_lost_are_not_sent_again_by_it)
{
    fx_create(SL_STAGE_rerank);
    fx_ask("q1");
    fx_grant("q1");
    CHECK_INT(fx_emit("q1", ""), 0);
    fx_finish("q1", "");
    fake_lose(fake_granted_to("q1"));
    fx_turn();
    CHECK_INT(fake_waiting_count(), 0);
    fx_fail("replies", -SL_ETIMEDOUT);
    fx_sleep(5000);
    CHECK_INT(fake_count("replies"), 1);
    fx_verdict("q1", SL_VERDICT_CANCELLED);
    fx_answer(FAKE_END, 0);
    CHECK(fx_last_has("replies", "\"seq\":1")); /* The sources may have been seen. */
    fx_finish_all();
    fx_check_idle();
    fx_destroy();
}

TEST(a_delta_that_is_lost_fails_the_answer)
{
    for (int late = 0; late < 2; late++) {
        fx_create(SL_STAGE_generate);
        fx_ask("q1");
        fx_grant("q1");
        fx_emit("q1", "one");
        fx_emit("q1", "two");
        if (late != 0) {
            fx_finish("q1", "onetwo");
        }
        fx_fail("replies", -SL_ETIMEDOUT);
        CHECK_INT(fx_cancels, late != 0 ? 0 : 1);
        CHECK_INT(fake_written(FAKE_END), 0);
        fx_ack("replies");
        fx_answer(FAKE_END, 0);
        CHECK(fx_last_has("results", "\"outcome\":\"failed\"") &&
              fx_last_has("results", "could not be delivered"));
        fx_finish_all();
        fx_check_idle();
        fx_destroy();
    }
}

TEST(a_cancelled_query_stays_cancelled_when_a_delta_is_lost)
{
    fx_create(SL_STAGE_generate);
    fx_ask("q1");
    fx_grant("q1");
    fx_emit("q1", "one");
    fake_cancel(fake_granted_to("q1"));
    fx_turn();
    fx_fail("replies", -SL_ETIMEDOUT);
    fx_finish_all();
    CHECK(fx_last_has("results", "\"outcome\":\"cancelled\""));
    fx_check_idle();
    fx_destroy();
}

static int rooms;

static void on_room(struct sl_job *job)
{
    struct sl_event event = {.type = SL_EVENT_DELTA, .text = SL_SPAN("late")};
    rooms++;
    if (sl_job_emit(job, &event) == -SL_EAGAIN) {
        sl_job_on_room(job, on_room);
    }
}

TEST(a_stage_hears_of_room_and_may_wait_again)
{
    fx_create(SL_STAGE_generate);
    fx_ask("q1");
    struct sl_job *job = fx_grant("q1");
    rooms = 0;
    fake_refuse("replies", -SL_EAGAIN);
    CHECK_INT(fx_emit("q1", "late"), -SL_EAGAIN);
    sl_job_on_room(job, on_room);
    fake_make_room();
    CHECK(rooms == 1 && fake_sent_count() == 0);
    fake_refuse("replies", 0);
    fake_make_room();
    CHECK(rooms == 2 && fx_last_has("replies", "\"seq\":0"));
    fake_refuse("replies", -SL_EAGAIN);
    CHECK_INT(fx_emit("q1", "never"), -SL_EAGAIN);
    sl_job_on_room(job, on_room);
    fake_cancel(fake_granted_to("q1"));
    fake_refuse("replies", 0);
    fake_make_room();
    CHECK_INT(rooms, 2); /* A job that was stopped is not called. */
    fx_finish_all();
    fx_check_idle();
    fx_destroy();
}

/* --- bulk work that is not delivered --- */

/* The id that claims have for it. */
static const char *chunk(char id[64])
{
    struct sl_position position = fx_chunk("doc");
    snprintf(id, 64, "%s", fx_bulk_id(&position));
    return id;
}

static void run_once(const char *id, int err)
{
    fx_grant(id);
    CHECK_INT(fx_send(id), 0);
    sl_job_done(fx_settle(id));
    fx_turn();
    fx_fail("vectors", err);
}

TEST(bulk_work_that_the_broker_did_not_get_is_done_again)
{
    char id[64];
    fx_create(SL_STAGE_embed);
    chunk(id);
    for (int i = 0; i < 10; i++) {
        run_once(id, -SL_ETIMEDOUT);
    }
    fx_grant(id);
    sl_job_done(fx_settle(id));
    fx_finish_all();
    CHECK_INT(fake_count("chunks.dlq"), 0);
    CHECK_INT(fx_counted(OUTCOME_done), 1);
    fx_check_idle();
    fx_destroy();
}

TEST(bulk_work_that_can_never_be_delivered_is_a_dead_letter)
{
    static const struct {
        int err, times;
    } cases[] = {{-SL_ETOOBIG, 1}, {-SL_ENOENT, 4}, {-SL_EIO, 4}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char id[64];
        fx_create(SL_STAGE_embed);
        chunk(id);
        for (int k = 0; k < cases[i].times; k++) {
            CHECK_INT(fake_count("chunks.dlq"), 0);
            run_once(id, cases[i].err);
        }
        CHECK_INT(fake_count("chunks.dlq"), 1);
        fx_finish_all();
        CHECK_INT(fx_counted(OUTCOME_dead), 1);
        fx_check_idle();
        fx_destroy();
    }
}

TEST(bulk_work_that_fails_is_a_dead_letter)
{
    char id[64];
    fx_create(SL_STAGE_embed);
    chunk(id);
    fx_grant(id);
    fx_send(id);
    sl_job_fail(fx_settle(id), SL_QERR_INTERNAL, "no");
    fx_turn();
    CHECK_STR(fake_open("chunks.dlq")->error, "REJECTED");
    fx_finish_all();
    fx_check_idle();
    fx_destroy();
}

/* --- texts --- */

TEST(a_partial_result_told_often_costs_its_last_text_only)
{
    enum { TIMES = 100, LEN = 1 << 20 };
    fx_create(SL_STAGE_generate);
    fx_ask("q1");
    struct sl_job *job = fx_grant("q1");
    char *answer = calloc(1, LEN + 1);
    CHECK(answer != NULL);
    memset(answer, 'x', LEN);
    for (int i = 0; i < TIMES; i++) {
        const struct sl_result partial = {.answer = {answer, LEN}, .model = SL_SPAN("m")};
        sl_job_partial(job, &partial);
    }
    free(answer);
    fake_cancel(fake_granted_to("q1"));
    fx_finish_all();
    CHECK(strlen(fx_last("results")) > LEN && fx_last_has("results", "\"model\":\"m\""));
    fx_check_idle();
    fx_destroy();
}

#define CASE(name)                                                                                 \
    {                                                                                              \
#name, name                                                                                \
    }

int main(int argc, char **argv)
{
    static const struct test_case cases[] = {
        CASE(a_claim_lost_while_it_runs_stops_the_job_and_asks_again),
        CASE(a_claim_lost_while_it_flushes_waits_for_the_reports_first),
        CASE(a_claim_lost_while_its_ending_is_stored_asks_what_became_of_it),
        CASE(a_claim_lost_while_output_is_on_its_way_changes_nothing),
        CASE(a_mark_that_comes_too_late_ends_the_job_all_the_same),
        CASE(somebody_elses_ending_is_asked_about_not_taken_for_produced),
        CASE(an_ending_is_stored_as_soon_as_redis_takes_it),
        CASE(a_dead_workers_ending_is_produced_unchanged),
        CASE(an_ending_that_nobody_can_read_is_a_dead_letter),
        CASE(a_forwarded_query_is_sent_until_it_arrives),
        CASE(a_full_queue_holds_up_but_loses_nothing),
        CASE(a_query_too_large_for_the_next_topic_fails),
        CASE(a_query_that_reaches_nobody_expires),
        CASE(an_event_that_nobody_can_get_does_not_hold_up_the_result),
        CASE(a_result_too_large_for_its_topic_is_given_up_loudly),
        CASE(an_answer_too_large_for_any_topic_ends_as_a_failure),
        CASE(a_dead_letter_too_large_for_its_topic_goes_without_its_bytes),
        CASE(sources_that_do_not_arrive_do_not_fail_a_query_that_went_on),
        CASE(sources_are_sent_again_also_while_the_query_ends),
        CASE(sources_of_an_attempt_that_was_lost_are_not_sent_again_by_it),
        CASE(a_delta_that_is_lost_fails_the_answer),
        CASE(a_cancelled_query_stays_cancelled_when_a_delta_is_lost),
        CASE(a_stage_hears_of_room_and_may_wait_again),
        CASE(bulk_work_that_the_broker_did_not_get_is_done_again),
        CASE(bulk_work_that_can_never_be_delivered_is_a_dead_letter),
        CASE(bulk_work_that_fails_is_a_dead_letter),
        CASE(a_partial_result_told_often_costs_its_last_text_only),
        {NULL, NULL},
    };
    return run_tests(cases, argc, argv);
}
