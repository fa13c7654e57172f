/* What becomes of a record: taking it, admission, running, and what stops it. */
#include "tests/support/runtime/worker_fixture.h"
#include "tests/support/test.h"

/* --- before the start --- */

TEST(a_query_is_prepared_with_its_admission_and_told_when_it_does_not_begin)
{
    fx_create(SL_STAGE_embed);
    fx_ask("q1");
    CHECK_INT(fx_prepared, 1);
    fx_verdict("q1", SL_VERDICT_PARKED);
    CHECK_INT(fx_prepared, 0);
    fake_retry(fake_parked(0));
    fx_turn();
    CHECK_INT(fx_prepared, 1);
    fx_verdict("q1", SL_VERDICT_DONE);
    fx_turn();
    CHECK_INT(fx_prepared, 0);
    fx_ask("q2");
    fx_grant("q2");
    CHECK_INT(fx_prepared, 0);
    fake_lose(fake_granted_to("q2")); /* Stopped, and to begin anew. */
    fx_turn();
    CHECK_INT(fx_prepared, 1);
    fx_verdict("q2", SL_VERDICT_ENDED);
    struct sl_position chunk = fx_chunk("d1");
    CHECK_INT(fx_prepared, 0); /* Bulk work is not prepared. */
    fx_verdict(fx_bulk_id(&chunk), SL_VERDICT_DONE);
    CHECK_INT(fx_destroy(), 0);
}

/* --- the happy paths --- */

TEST(a_forwarded_query_ends_after_its_acknowledgement_and_its_mark)
{
    fx_create(SL_STAGE_embed);
    struct sl_position position = fx_ask("q1");
    CHECK_INT(fx_worker.slots_used[CLASS_QUERY], 1);
    struct sl_job *job = fx_grant("q1");
    CHECK(sl_job_permit(job, 0)->state == SL_PERMIT_HELD);
    fx_forward("q1");
    CHECK_INT(fake_permits_held(), 0);
    CHECK_INT(fake_count("retrieve"), 1);
    CHECK_STR(fake_open("retrieve")->key, "q1");
    CHECK(fake_op_count(FAKE_DONE) == 0 && !fake_ended(&position));
    fx_ack("retrieve");
    CHECK_INT(fx_worker.slots_used[CLASS_QUERY], 0);
    CHECK(fake_op_count(FAKE_DONE) == 1 && !fake_ended(&position));
    fx_answer(FAKE_DONE, 0);
    CHECK(fake_ended(&position));
    CHECK_INT(fx_counted(OUTCOME_done), 1);
    fx_check_idle();
    CHECK_INT(fx_destroy(), 0);
}

TEST(an_answered_query_is_stored_then_produced_then_marked)
{
    fx_create(SL_STAGE_generate);
    struct sl_position position = fx_ask("q1");
    fx_grant("q1");
    CHECK_INT(fx_emit("q1", "yes"), 0);
    fx_finish("q1", "yes");
    CHECK_INT(fake_written(FAKE_END), 0); /* A delta is not acknowledged yet. */
    fx_ack("replies");
    CHECK_INT(fake_op_count(FAKE_END), 1);
    CHECK_STR(fake_op(FAKE_END, 0)->outcome, "done");
    CHECK_INT(fake_count("results"), 0);
    fx_answer(FAKE_END, 0);
    CHECK(fx_last_has("replies", "\"type\":\"done\"") && fx_last_has("replies", "\"seq\":1"));
    CHECK_INT(fake_open("replies")->partition, 3);
    CHECK(fx_last_has("results", "\"answer\":\"yes\""));
    CHECK_STR(fake_open("results")->type, "application/json");
    fx_fail("results", -SL_ETIMEDOUT);
    fx_sleep(1000); /* Sent again. */
    const struct fake_sent *result = fake_open("results");
    fx_ack("results");
    CHECK_INT(fake_written(FAKE_ENDED), 0);
    fx_ack("replies");
    CHECK(fake_written(FAKE_ENDED) == 1 && !fake_ended(&position));
    CHECK_INT(fake_op(FAKE_ENDED, 0)->partition, 7);
    CHECK_INT(fake_op(FAKE_ENDED, 0)->offset, result->offset);
    fx_answer(FAKE_DONE, 0);
    CHECK(fake_ended(&position));
    CHECK_INT(fx_counted(OUTCOME_done), 1);
    fx_check_idle();
    CHECK_INT(fx_destroy(), 0);
}

TEST(a_query_without_a_reply_topic_gets_a_result_and_is_measured_here)
{
    fx_create(SL_STAGE_generate);
    const struct fake_record record = {.id = "q1",
                                       .type = "application/json",
                                       .timestamp_ms = fx_now(),
                                       .value = SL_SPAN("{\"query\": \"why?\"}")};
    fx_take(&record);
    fx_grant("q1");
    CHECK_INT(fx_emit("q1", "unheard"), 0);
    fx_finish("q1", "yes");
    fx_finish_all();
    CHECK(fake_count("replies") == 0 && fake_count("results") == 1);
    struct sl_buf text;
    sl_buf_init(&text, 1 << 20);
    sl_metrics_write(fx_worker.metrics, &text);
    sl_buf_append(&text, "", 1);
    CHECK(strstr(text.data, "sluice_ttft_seconds_count 1") != NULL);
    CHECK(strstr(text.data, "sluice_query_seconds_count 1") != NULL);
    CHECK(strstr(text.data, "sluice_overhead_seconds_count 1") != NULL);
    sl_buf_fini(&text);
    fx_check_idle();
    fx_destroy();
}

TEST(bulk_work_ends_after_what_it_sent_is_acknowledged)
{
    fx_create(SL_STAGE_embed);
    struct sl_position position = fx_chunk("doc");
    char id[64];
    snprintf(id, sizeof(id), "%s", fx_bulk_id(&position));
    fx_grant(id);
    CHECK_INT(fx_send(id), 0);
    sl_job_done(fx_settle(id));
    fx_turn();
    CHECK_INT(fake_written(FAKE_DONE), 0);
    fx_ack("vectors");
    fx_answer(FAKE_DONE, 0);
    CHECK(fake_ended(&position));
    fx_check_idle();
    fx_destroy();
}

/* --- what is no job, or no good one --- */

TEST(bytes_that_are_no_message_become_a_dead_letter_as_they_came)
{
    fx_create(SL_STAGE_embed);
    const struct fake_record record = {
        .id = "q1", .key = SL_SPAN("k"), .value = SL_SPAN("\x01not a query"), .timestamp_ms = 1};
    struct sl_position position = fx_take(&record);
    CHECK_INT(fake_waiting_count(), 0);
    CHECK(memcmp(fx_last("queries.dlq"), "\x01not a query", 12) == 0);
    CHECK_STR(fake_open("queries.dlq")->key, "k");
    CHECK_STR(fake_open("queries.dlq")->error, "BADMSG");
    CHECK(!fake_ended(&position));
    fx_ack("queries.dlq");
    CHECK(fake_ended(&position));
    CHECK_INT(fx_counted(OUTCOME_dead), 1);
    fx_check_idle();
    fx_destroy();
}

TEST(a_record_without_a_value_is_a_dead_letter)
{
    fx_create(SL_STAGE_embed);
    const struct fake_record record = {.timestamp_ms = 1};
    fx_take(&record);
    fx_finish_all();
    CHECK_INT(fake_count("queries.dlq"), 1);
    fx_check_idle();
    fx_destroy();
}

TEST(each_record_with_a_bad_id_has_its_own_dead_letter)
{
    fx_create(SL_STAGE_embed);
    for (int i = 0; i < 2; i++) {
        const struct fake_record record = {.id = "no id!",
                                           .type = "application/json",
                                           .timestamp_ms = fx_now(),
                                           .value = SL_SPAN("{\"query\": \"why?\"}")};
        fx_take(&record);
    }
    CHECK_INT(fake_count("queries.dlq"), 2);
    fx_finish_all();
    fx_check_idle();
    fx_destroy();
}

TEST(a_dead_letter_does_not_stand_for_the_query_of_its_id)
{
    fx_create(SL_STAGE_embed);
    const struct fake_record garbage = {.id = "q1", .value = SL_SPAN("\x01"), .timestamp_ms = 1};
    struct sl_position first = fx_take(&garbage);
    struct sl_position second = fx_ask("q1");
    CHECK(fake_waiting("q1") != NULL);
    fake_rebalance();
    CHECK(fake_consume_again(&first, &first)); /* The letter is on its way still. */
    fx_turn();
    CHECK_INT(fake_count("queries.dlq"), 1);
    CHECK(fake_consume_again(&second, &second));
    fx_grant("q1");
    fx_forward("q1");
    fx_finish_all();
    CHECK(fake_ended(&first) && fake_ended(&second));
    fx_check_idle();
    fx_destroy();
}

TEST(an_invalid_query_gets_its_result_once)
{
    fx_create(SL_STAGE_embed);
    const struct fake_record record = {.id = "q1",
                                       .type = "application/json",
                                       .timestamp_ms = fx_now(),
                                       .reply_to = "sluice.replies:1",
                                       .deadline = "soon",
                                       .value = SL_SPAN("{\"query\": \"why?\"}")};
    fx_take(&record);
    fx_verdict("q1", SL_VERDICT_GRANTED);
    CHECK_INT(fx_starts, 0);
    fx_answer(FAKE_END, 0);
    CHECK(fx_last_has("results", "bad_request") && fx_last_has("results", "sluice-deadline"));
    CHECK_INT(fake_open("replies")->partition, 1);
    fx_finish_all();
    CHECK_INT(fx_counted(OUTCOME_failed), 1);
    fx_check_idle();
    fx_destroy();
}

/* --- deadlines --- */

TEST(a_deadline_is_at_most_what_may_be_asked_for_from_now)
{
    fx_create(SL_STAGE_embed);
    static const struct {
        int64_t timestamp_ms; /* From now; INT64_MIN: none. */
        int64_t deadline_ms;  /* From now; 0: none. */
        int64_t left_ms;
    } cases[] = {
        {0, 0, 60000},   {-10000, 0, 50000},   {3600000, 0, 60000}, {INT64_MIN, 0, 60000},
        {0, 1000, 1000}, {0, 3600000, 600000}, {0, -5, 0},          {-86400000, 0, 0},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char id[16], deadline[32];
        snprintf(id, sizeof(id), "q%zu", i);
        snprintf(deadline, sizeof(deadline), "%lld", (long long)(fx_now() + cases[i].deadline_ms));
        const struct fake_record record = {.id = id,
                                           .type = "application/json",
                                           .timestamp_ms = cases[i].timestamp_ms == INT64_MIN
                                                               ? -1
                                                               : fx_now() + cases[i].timestamp_ms,
                                           .deadline = cases[i].deadline_ms != 0 ? deadline : NULL,
                                           .value = SL_SPAN("{\"query\": \"why?\"}")};
        fx_take(&record);
        int64_t left = fake_waiting(id)->deadline_ms - fx_now();
        CHECK_INT(left > 0 ? left : 0, cases[i].left_ms);
        fx_verdict(id, SL_VERDICT_ENDED);
        fx_finish_all();
    }
    fx_check_idle();
    fx_destroy();
}

TEST(the_deadline_ends_a_query_with_what_there_is)
{
    fx_create(SL_STAGE_generate);
    fx_ask("q1");
    fx_grant("q1");
    fx_partial = "half an ans";
    fx_sleep(FX_TIMEOUT_MS + 100);
    CHECK_INT(fx_cancels, 1);
    fx_answer(FAKE_END, 0);
    CHECK(fx_last_has("results", "\"outcome\":\"expired\"") &&
          fx_last_has("results", "half an ans"));
    fx_finish_all();
    CHECK_INT(fx_counted(OUTCOME_expired), 1);
    fx_check_idle();
    fx_destroy();
}

TEST(a_claim_that_comes_after_the_deadline_is_not_begun)
{
    fx_create(SL_STAGE_embed);
    fx_ask("q1");
    fx_sleep(FX_TIMEOUT_MS);
    fx_verdict("q1", SL_VERDICT_GRANTED);
    CHECK_INT(fx_starts + fx_cancels, 0);
    CHECK_INT(fake_permits_held(), 0);
    fx_finish_all();
    CHECK_INT(fx_counted(OUTCOME_expired), 1);
    fx_check_idle();
    fx_destroy();
}

/* --- verdicts --- */

TEST(a_claim_with_an_end_ends_the_query)
{
    static const struct {
        enum sl_verdict verdict;
        enum job_outcome outcome;
        const char *code;
    } cases[] = {
        {SL_VERDICT_CANCELLED, OUTCOME_cancelled, "\"code\":\"cancelled\""},
        {SL_VERDICT_EXPIRED, OUTCOME_expired, "\"code\":\"timeout\""},
        {SL_VERDICT_WORN_OUT, OUTCOME_failed, "\"code\":\"worker_lost\""},
        {SL_VERDICT_STREAMED, OUTCOME_failed, "\"code\":\"worker_lost\""},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        fx_create(SL_STAGE_generate);
        struct sl_position position = fx_ask("q1");
        fx_verdict("q1", cases[i].verdict);
        CHECK_INT(fake_permits_held(), 0);
        fx_finish_all();
        CHECK(fx_last_has("results", cases[i].code) && fake_ended(&position));
        CHECK_INT(fx_counted(cases[i].outcome), 1);
        CHECK_INT(fx_starts, 0);
        fx_check_idle();
        fx_destroy();
    }
}

TEST(what_another_worker_did_is_only_passed_by)
{
    static const enum sl_verdict verdicts[] = {SL_VERDICT_DONE, SL_VERDICT_ENDED};
    fx_create(SL_STAGE_embed);
    for (size_t i = 0; i < 2; i++) {
        struct sl_position position = fx_ask("q1");
        fx_verdict("q1", verdicts[i]);
        CHECK(fake_ended(&position));
        fx_check_idle();
    }
    CHECK_INT(fake_sent_count(), 0);
    CHECK_INT(fx_counted(OUTCOME_moved), 2);
    fx_destroy();
}

TEST(bulk_work_that_wore_out_its_workers_is_a_dead_letter)
{
    fx_create(SL_STAGE_embed);
    struct sl_position position = fx_chunk("doc");
    fake_verdict(fake_nth_waiting(0), SL_VERDICT_WORN_OUT, 4, 0, SL_SPAN(""));
    fx_turn();
    CHECK_STR(fake_open("chunks.dlq")->error, "LOST");
    CHECK(!fake_ended(&position));
    fx_finish_all();
    CHECK(fake_ended(&position));
    fx_check_idle();
    fx_destroy();
}

TEST(a_parked_job_gives_its_slot_back_and_comes_in_again)
{
    fx_create(SL_STAGE_embed);
    struct sl_position position = fx_ask("q1");
    fx_verdict("q1", SL_VERDICT_PARKED);
    CHECK_INT(fx_worker.slots_used[CLASS_QUERY], 0);
    CHECK(fx_worker.parked_bytes[CLASS_QUERY] > 0);
    fake_retry(fake_parked(0));
    fx_turn();
    CHECK_INT(fx_worker.slots_used[CLASS_QUERY], 1);
    CHECK_INT(fx_worker.parked_bytes[CLASS_QUERY], 0);
    struct sl_job *job = fx_grant("q1");
    CHECK(sl_span_is(sl_job_query(job)->query, "why?"));
    fx_forward("q1");
    fx_finish_all();
    CHECK(fake_ended(&position));
    fx_check_idle();
    fx_destroy();
}

/* --- redelivery --- */

TEST(a_record_that_comes_again_is_adopted_in_every_state)
{
    for (int state = 0; state < 5; state++) {
        fx_create(SL_STAGE_embed);
        struct sl_position old = fx_ask("q1"), again;
        if (state == 1) {
            fx_verdict("q1", SL_VERDICT_PARKED);
        } else if (state > 1) {
            fx_grant("q1");
        }
        if (state > 2) {
            fx_forward("q1");
        }
        if (state > 3) {
            fx_ack("retrieve");
        }
        fake_rebalance();
        CHECK(fake_consume_again(&old, &again));
        fx_turn();
        CHECK_INT(fx_worker.jobs.len, 1);
        if (state == 1) {
            fake_retry(fake_parked(0));
            fx_turn();
        }
        if (state < 2) {
            fx_grant("q1");
        }
        if (state < 3) {
            fx_forward("q1");
        }
        fx_finish_all();
        CHECK(fake_ended(&again));
        CHECK_INT(fake_count("retrieve"), 1);
        fx_check_idle();
        fx_destroy();
    }
}

TEST(positions_of_old_assignments_do_not_pile_up)
{
    fx_create(SL_STAGE_embed);
    struct sl_position position = fx_ask("q1");
    fx_verdict("q1", SL_VERDICT_PARKED);
    for (int i = 0; i < 100; i++) {
        fake_rebalance();
        CHECK(fake_consume_again(&position, &position));
    }
    struct sl_job *job = SL_ITEM(fake_parked(0), struct sl_job, admission);
    CHECK(job->position_count <= 4);
    fake_retry(fake_parked(0));
    fx_turn();
    fx_verdict("q1", SL_VERDICT_DONE);
    CHECK(fake_ended(&position));
    fx_check_idle();
    fx_destroy();
}

/* --- room --- */

TEST(slots_bound_what_is_taken_and_parked_jobs_take_none)
{
    fx_create(SL_STAGE_embed);
    char id[16];
    for (int i = 0; i < FX_SLOTS; i++) {
        snprintf(id, sizeof(id), "q%d", i);
        fx_ask(id);
    }
    CHECK_INT(intake_room(&fx_worker, CLASS_QUERY), 0);
    CHECK_INT(intake_room(&fx_worker, CLASS_BULK), FX_BULK_SLOTS);
    fx_verdict("q0", SL_VERDICT_PARKED);
    CHECK_INT(intake_room(&fx_worker, CLASS_QUERY), 1);
    fx_ask("q9");
    fake_retry(fake_parked(0)); /* It waits for a slot, before anything new. */
    fx_turn();
    CHECK_INT(fx_worker.counts[JOB_UNPARKED], 1);
    fx_verdict("q1", SL_VERDICT_DONE);
    CHECK_INT(fx_worker.counts[JOB_UNPARKED], 0);
    CHECK(fake_waiting("q0") != NULL);
    CHECK_INT(intake_room(&fx_worker, CLASS_QUERY), 0);
    fx_destroy();
}

TEST(bulk_work_that_waits_for_a_slot_leaves_queries_their_room)
{
    fx_create(SL_STAGE_embed);
    char id[16];
    for (int i = 0; i < FX_SLOTS + FX_BULK_SLOTS; i++) {
        snprintf(id, sizeof(id), "doc%d", i);
        fx_chunk(id);
        if (i < FX_SLOTS) {
            fake_verdict(fake_nth_waiting(0), SL_VERDICT_PARKED, 1, 0, SL_SPAN(""));
            fx_turn();
        }
    }
    while (fake_parked_count() > 0) {
        fake_retry(fake_parked(0));
    }
    fx_turn();
    CHECK_INT(fx_worker.unparked[CLASS_BULK], FX_SLOTS);
    CHECK_INT(intake_room(&fx_worker, CLASS_BULK), 0);
    CHECK_INT(intake_room(&fx_worker, CLASS_QUERY), FX_SLOTS);
    fx_destroy();
}

TEST(what_is_parked_has_a_limit_in_bytes)
{
    fx_create(SL_STAGE_embed);
    char id[16];
    int taken = 0;
    for (; intake_room(&fx_worker, CLASS_QUERY) > 0; taken++) {
        snprintf(id, sizeof(id), "q%d", taken);
        fx_ask(id);
        fx_verdict(id, SL_VERDICT_PARKED);
        CHECK(taken < 1000);
    }
    CHECK(fx_worker.parked_bytes[CLASS_QUERY] >= (size_t)fx_worker.options.parked_max);
    CHECK_INT(sl_counter_value(fx_worker.parked_full), 1);
    CHECK(intake_room(&fx_worker, CLASS_BULK) > 0);
    size_t kicks = fake_kicks;
    fake_retry(fake_parked(0));
    fx_turn();
    CHECK(intake_room(&fx_worker, CLASS_QUERY) > 0 && fake_kicks > kicks);
    fx_destroy();
}

/* --- what stops a running job --- */

TEST(a_cancelled_query_ends_with_what_there_is)
{
    fx_create(SL_STAGE_generate);
    fx_ask("q1");
    fx_grant("q1");
    fx_partial = "so far";
    fx_emit("q1", "so far");
    fake_cancel(fake_granted_to("q1"));
    fx_turn();
    CHECK_INT(fx_cancels, 1);
    CHECK_INT(fake_permits_held(), 0);
    fx_ack("replies");
    fx_answer(FAKE_END, 0);
    CHECK(fx_last_has("results", "\"outcome\":\"cancelled\"") && fx_last_has("results", "so far"));
    fx_finish_all();
    CHECK_INT(fx_counted(OUTCOME_cancelled), 1);
    fx_check_idle();
    fx_destroy();
}

TEST(a_cancellation_changes_nothing_for_a_query_that_ends)
{
    fx_create(SL_STAGE_embed);
    fx_ask("q1");
    fx_grant("q1");
    fx_forward("q1");
    fake_cancel(fake_granted_to("q1"));
    fx_finish_all();
    CHECK(fx_cancels == 0 && fake_written(FAKE_END) == 0);
    fx_check_idle();
    fx_destroy();
}

TEST(a_lease_that_ends_before_a_call_took_it_up_is_no_concern)
{
    fx_create(SL_STAGE_embed);
    fx_ask("q1");
    struct sl_job *job = fx_grant("q1");
    fake_permit_lose(fake_permit_held(0));
    CHECK(sl_job_permit(job, 0)->state == SL_PERMIT_NONE);
    fx_forward("q1");
    fx_finish_all();
    fx_check_idle();
    fx_destroy();
}

/* --- the mark of a stream --- */

static int streaming;

static void on_streaming(struct sl_job *job)
{
    (void)job;
    streaming++;
}

TEST(a_stream_begins_when_its_mark_is_written)
{
    fx_create(SL_STAGE_generate);
    fx_ask("q1");
    streaming = 0;
    CHECK_INT(sl_job_stream(fx_grant("q1"), on_streaming), 0);
    fx_turn();
    CHECK_INT(streaming, 0);
    fx_answer(FAKE_STREAM, 0);
    CHECK_INT(streaming, 1);
    fx_finish("q1", "yes");
    fx_finish_all();
    fx_check_idle();
    fx_destroy();
}

TEST(a_stream_whose_mark_fails_shows_nothing)
{
    static const int errs[] = {-SL_ELOST, -SL_ECONN};
    for (size_t i = 0; i < 2; i++) {
        fx_create(SL_STAGE_generate);
        fx_ask("q1");
        streaming = 0;
        CHECK_INT(sl_job_stream(fx_grant("q1"), on_streaming), 0);
        fx_answer(FAKE_STREAM, errs[i]);
        CHECK(streaming == 0 && fx_cancels == 1);
        if (errs[i] == -SL_ELOST) {
            fx_verdict("q1", SL_VERDICT_ENDED);
        }
        fx_finish_all();
        CHECK_INT(fake_written(FAKE_END), errs[i] == -SL_ELOST ? 0 : 1);
        fx_check_idle();
        fx_destroy();
    }
}

TEST(a_query_that_ends_during_the_mark_waits_for_it)
{
    fx_create(SL_STAGE_generate);
    fx_ask("q1");
    streaming = 0;
    CHECK_INT(sl_job_stream(fx_grant("q1"), on_streaming), 0);
    fake_cancel(fake_granted_to("q1"));
    fx_turn();
    CHECK_INT(fake_written(FAKE_END), 0);
    fx_answer(FAKE_STREAM, 0);
    CHECK(streaming == 0 && fake_op_count(FAKE_END) == 1);
    fx_finish_all();
    fx_check_idle();
    fx_destroy();
}

TEST(a_stream_of_a_dead_worker_begins_again_where_its_caller_asks_for_it)
{
    fx_create(SL_STAGE_generate);
    const struct fake_record record = {
        .id = "q1",
        .type = "application/json",
        .reply_to = "sluice.replies:3",
        .timestamp_ms = fx_now(),
        .value = SL_SPAN("{\"query\": \"why?\", \"on_worker_lost\": \"restart\"}")};
    fx_take(&record);
    fake_refuse("replies", -SL_EAGAIN);
    fake_verdict(fake_waiting("q1"), SL_VERDICT_STREAMED, 2, 3, SL_SPAN(""));
    fx_turn();
    CHECK_INT(fx_starts, 0);
    fake_refuse("replies", 0);
    fake_make_room();
    fx_turn();
    CHECK_INT(fx_starts, 1);
    CHECK(fx_last_has("replies", "\"type\":\"restart\"") && fx_last_has("replies", "\"seq\":0"));
    fx_emit("q1", "again");
    CHECK(fx_last_has("replies", "\"attempt\":2") && fx_last_has("replies", "\"seq\":1"));
    fx_finish("q1", "again");
    fx_finish_all();
    fx_check_idle();
    fx_destroy();
}

TEST(a_restart_that_waits_for_room_can_be_cancelled)
{
    fx_create(SL_STAGE_generate);
    const struct fake_record record = {
        .id = "q1",
        .type = "application/json",
        .reply_to = "sluice.replies:3",
        .timestamp_ms = fx_now(),
        .value = SL_SPAN("{\"query\": \"why?\", \"on_worker_lost\": \"restart\"}")};
    fx_take(&record);
    fake_refuse("replies", -SL_EAGAIN);
    fake_verdict(fake_waiting("q1"), SL_VERDICT_STREAMED, 2, 3, SL_SPAN(""));
    fake_cancel(fake_granted_to("q1"));
    fx_turn();
    CHECK(fx_starts == 0 && fx_cancels == 0);
    fake_refuse("replies", 0);
    fake_make_room();
    fx_finish_all();
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
        CASE(a_query_is_prepared_with_its_admission_and_told_when_it_does_not_begin),
        CASE(a_forwarded_query_ends_after_its_acknowledgement_and_its_mark),
        CASE(an_answered_query_is_stored_then_produced_then_marked),
        CASE(a_query_without_a_reply_topic_gets_a_result_and_is_measured_here),
        CASE(bulk_work_ends_after_what_it_sent_is_acknowledged),
        CASE(bytes_that_are_no_message_become_a_dead_letter_as_they_came),
        CASE(a_record_without_a_value_is_a_dead_letter),
        CASE(each_record_with_a_bad_id_has_its_own_dead_letter),
        CASE(a_dead_letter_does_not_stand_for_the_query_of_its_id),
        CASE(an_invalid_query_gets_its_result_once),
        CASE(a_deadline_is_at_most_what_may_be_asked_for_from_now),
        CASE(the_deadline_ends_a_query_with_what_there_is),
        CASE(a_claim_that_comes_after_the_deadline_is_not_begun),
        CASE(a_claim_with_an_end_ends_the_query),
        CASE(what_another_worker_did_is_only_passed_by),
        CASE(bulk_work_that_wore_out_its_workers_is_a_dead_letter),
        CASE(a_parked_job_gives_its_slot_back_and_comes_in_again),
        CASE(a_record_that_comes_again_is_adopted_in_every_state),
        CASE(positions_of_old_assignments_do_not_pile_up),
        CASE(slots_bound_what_is_taken_and_parked_jobs_take_none),
        CASE(bulk_work_that_waits_for_a_slot_leaves_queries_their_room),
        CASE(what_is_parked_has_a_limit_in_bytes),
        CASE(a_cancelled_query_ends_with_what_there_is),
        CASE(a_cancellation_changes_nothing_for_a_query_that_ends),
        CASE(a_lease_that_ends_before_a_call_took_it_up_is_no_concern),
        CASE(a_stream_begins_when_its_mark_is_written),
        CASE(a_stream_whose_mark_fails_shows_nothing),
        CASE(a_query_that_ends_during_the_mark_waits_for_it),
        CASE(a_stream_of_a_dead_worker_begins_again_where_its_caller_asks_for_it),
        CASE(a_restart_that_waits_for_room_can_be_cancelled),
        {NULL, NULL},
    };
    return run_tests(cases, argc, argv);
}
