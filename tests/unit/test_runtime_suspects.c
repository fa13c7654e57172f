/* Jobs of which two workers died: they run alone, and a third death ends them for good. */
#include "tests/support/runtime/worker_fixture.h"
#include "tests/support/test.h"

enum { BOTH = 3 };

static void suspect(const char *id)
{
    fake_suspect(fake_waiting(id));
    fx_turn();
}

static bool may_run(const char *id)
{
    fx_turn();
    return fake_may_run(fake_waiting(id));
}

static void grant_suspect(const char *id)
{
    CHECK(may_run(id));
    fake_verdict(fake_waiting(id), SL_VERDICT_GRANTED, 3, BOTH, SL_SPAN(""));
    fx_turn();
    CHECK(fx_running(id) != NULL);
}

static size_t room(void)
{
    return intake_room(&fx_worker, CLASS_QUERY) + intake_room(&fx_worker, CLASS_BULK);
}

static uint64_t told(void)
{
    return sl_counter_value(fx_worker.suspected);
}

/* --- alone --- */

TEST(a_suspect_waits_until_what_runs_has_been_settled)
{
    fx_create(SL_STAGE_embed);
    fx_ask("running");
    fx_grant("running");
    fx_ask("settling");
    fx_grant("settling");
    fx_forward("settling");
    fx_ask("suspect");
    suspect("suspect");
    CHECK_INT(told(), 1);
    CHECK(!may_run("suspect"));
    fx_forward("running");
    CHECK(!may_run("suspect")); /* Their records are not out yet. */
    fx_ack("retrieve");
    fx_ack("retrieve");
    CHECK(!may_run("suspect")); /* Their claims would lose an owner still. */
    fx_answer(FAKE_DONE, 0);
    CHECK(!may_run("suspect"));
    fx_answer(FAKE_DONE, 0);
    CHECK_INT(fake_permits_held() + fake_granted_count(),
              0); /* It holds nothing that others need. */
    grant_suspect("suspect");
    fx_forward("suspect");
    fx_finish_all();
    fx_check_idle();
    CHECK_INT(fx_destroy(), 0);
}

TEST(nothing_else_begins_before_a_suspect_is_settled)
{
    fx_create(SL_STAGE_embed);
    fx_ask("running");
    fx_grant("running");
    fx_ask("waiting");
    struct sl_position chunk = fx_chunk("doc");
    const char *bulk = fx_bulk_id(&chunk);
    fx_ask("suspect");
    suspect("suspect");
    CHECK(!may_run("waiting") && !may_run(bulk));
    CHECK_INT(room(), 0);
    fx_forward("running");
    fx_finish_all();
    CHECK(!may_run("waiting") && !may_run(bulk));
    grant_suspect("suspect");
    CHECK(!may_run("waiting") && !may_run(bulk));
    CHECK_INT(room(), 0);
    fx_forward("suspect");
    fx_ack("retrieve");
    CHECK(!may_run("waiting") && !may_run(bulk)); /* Its claim is not marked. */
    size_t kicks = fake_kicks;
    fx_answer(FAKE_DONE, 0);
    CHECK(may_run("waiting") && may_run(bulk));
    CHECK(room() > 0 && fake_kicks > kicks);
    fx_verdict("waiting", SL_VERDICT_DONE);
    fx_verdict(bulk, SL_VERDICT_DONE);
    fx_check_idle();
    CHECK_INT(fx_destroy(), 0);
}

/* Its verdict was on the way when the suspect was found. */
TEST(a_suspect_waits_also_for_what_is_granted_meanwhile)
{
    fx_create(SL_STAGE_embed);
    fx_ask("late");
    fx_ask("suspect");
    suspect("suspect");
    CHECK(may_run("suspect"));
    fx_grant("late");
    CHECK(!may_run("suspect"));
    fx_forward("late");
    fx_finish_all();
    CHECK(may_run("suspect"));
    fx_verdict("suspect", SL_VERDICT_DONE);
    fx_check_idle();
    CHECK_INT(fx_destroy(), 0);
}

TEST(suspects_run_one_after_another)
{
    fx_create(SL_STAGE_embed);
    struct sl_position chunk = fx_chunk("doc");
    const char *bulk = fx_bulk_id(&chunk);
    fx_ask("first");
    fx_ask("second");
    suspect("first");
    suspect(bulk);
    suspect("second");
    CHECK(!may_run(bulk) && !may_run("second"));
    grant_suspect("first");
    CHECK(!may_run(bulk) && !may_run("second"));
    fx_forward("first");
    fx_finish_all();
    CHECK(!may_run("second"));
    grant_suspect(bulk);
    CHECK(!may_run("second"));
    sl_job_done(fx_settle(bulk));
    fx_finish_all();
    grant_suspect("second");
    fx_forward("second");
    fx_finish_all();
    CHECK_INT(told(), 3);
    CHECK(room() > 0);
    fx_check_idle();
    CHECK_INT(fx_destroy(), 0);
}

/* --- what ends the wait --- */

TEST(a_suspect_that_is_cancelled_or_expires_while_it_waits_lets_others_go_on)
{
    static const enum sl_verdict verdicts[] = {SL_VERDICT_CANCELLED, SL_VERDICT_EXPIRED,
                                               SL_VERDICT_DONE, SL_VERDICT_PARKED};
    for (size_t i = 0; i < sizeof(verdicts) / sizeof(verdicts[0]); i++) {
        fx_create(SL_STAGE_embed);
        fx_ask("running");
        fx_grant("running");
        fx_ask("waiting");
        fx_ask("suspect");
        suspect("suspect");
        fx_verdict("suspect", verdicts[i]);
        fx_finish_all();
        CHECK(fx_running("running") != NULL && may_run("waiting") && room() > 0);
        fx_verdict("waiting", SL_VERDICT_DONE);
        fx_forward("running");
        fx_finish_all();
        if (verdicts[i] == SL_VERDICT_PARKED) { /* Its next owner died of it, or not. */
            fake_retry(fake_parked(0));
            fx_turn();
            fx_verdict("suspect", SL_VERDICT_DONE);
        }
        CHECK_INT(fx_starts, 1);
        fx_check_idle();
        CHECK_INT(fx_destroy(), 0);
    }
}

TEST(a_suspect_that_runs_is_cancelled_and_expires_like_any_job)
{
    for (int expires = 0; expires < 2; expires++) {
        fx_create(SL_STAGE_embed);
        fx_ask("suspect");
        suspect("suspect");
        grant_suspect("suspect");
        if (expires != 0) {
            fx_sleep(FX_TIMEOUT_MS);
        } else {
            fake_cancel(fake_granted_to("suspect"));
        }
        fx_finish_all();
        CHECK(fx_last_has("results", expires != 0 ? "\"timeout\"" : "\"cancelled\""));
        CHECK_INT(fx_cancels, 1);
        CHECK(room() > 0);
        fx_check_idle();
        CHECK_INT(fx_destroy(), 0);
    }
}

TEST(a_suspect_whose_claim_is_lost_asks_anew_and_lets_others_go_on)
{
    fx_create(SL_STAGE_embed);
    fx_ask("waiting");
    fx_ask("suspect");
    suspect("suspect");
    grant_suspect("suspect");
    CHECK(!may_run("waiting"));
    fake_lose(fake_granted_to("suspect"));
    fx_turn();
    CHECK(fx_running_count() == 0 && may_run("waiting") && room() > 0);
    suspect("suspect"); /* As Redis says again. */
    CHECK(!may_run("waiting"));
    grant_suspect("suspect");
    fx_verdict("waiting", SL_VERDICT_DONE);
    fx_forward("suspect");
    fx_finish_all();
    fx_check_idle();
    CHECK_INT(fx_destroy(), 0);
}

TEST(a_drain_leaves_a_suspect_that_waits_to_others)
{
    fx_create(SL_STAGE_embed);
    fx_ask("running");
    fx_grant("running");
    fx_ask("suspect");
    suspect("suspect");
    fx_signal();
    fx_turn();
    CHECK(fake_leaving());
    fake_left();
    CHECK_INT(fake_waiting_count() + fake_written(FAKE_GIVE_BACK), 0);
    fx_forward("running");
    fx_finish_all();
    fx_sleep(100);
    CHECK(fx_stopped());
    CHECK_INT(fx_destroy(), 0);
}

TEST(a_drain_finishes_a_suspect_that_runs)
{
    fx_create(SL_STAGE_embed);
    fx_ask("suspect");
    suspect("suspect");
    grant_suspect("suspect");
    fx_signal();
    fx_turn();
    CHECK(fake_leaving());
    fake_left();
    CHECK(fx_running("suspect") != NULL);
    fx_forward("suspect");
    fx_finish_all();
    fx_sleep(100);
    CHECK(fx_stopped());
    CHECK_INT(fx_destroy(), 0);
}

/* --- streams --- */

TEST(only_a_stream_that_would_begin_again_is_held_back)
{
    static const char *const values[] = {"{\"query\": \"why?\"}",
                                         "{\"query\": \"why?\", \"on_worker_lost\": \"restart\"}"};
    fx_create(SL_STAGE_generate);
    for (int i = 0; i < 2; i++) {
        const struct fake_record record = {.id = "q1",
                                           .type = "application/json",
                                           .reply_to = "sluice.replies:3",
                                           .timestamp_ms = fx_now(),
                                           .value = sl_span_of(values[i])};
        fx_take(&record);
        CHECK(fake_waiting("q1")->restarts == (i == 1));
        fx_verdict("q1", SL_VERDICT_DONE);
    }
    CHECK_INT(fx_destroy(), 0);
}

/* --- worn out --- */

TEST(a_query_that_three_workers_died_of_is_a_dead_letter_and_ends_with_worker_lost)
{
    fx_create(SL_STAGE_generate);
    struct sl_position position = fx_ask("q1");
    fake_verdict(fake_waiting("q1"), SL_VERDICT_WORN_OUT, 4, 0, SL_SPAN(""));
    fx_turn();
    struct fake_sent *letter = fake_open("queries.dlq");
    CHECK(letter != NULL);
    CHECK_STR(letter->error, "LOST");
    CHECK_STR(letter->id, "q1");
    CHECK_STR(letter->value.data, "{\"query\": \"why?\"}");
    CHECK_INT(fake_written(FAKE_END), 0); /* Whoever finds an ending does not write the letter. */
    fx_fail("queries.dlq", -SL_ETIMEDOUT);
    fx_sleep(1000);
    CHECK_INT(fake_written(FAKE_END), 0);
    fx_ack("queries.dlq");
    fx_answer(FAKE_END, 0);
    CHECK_INT(fake_count("queries.dlq"), 2); /* The one that failed, and again. */
    fx_ack("replies");
    CHECK(fx_last_has("results", "\"code\":\"worker_lost\"") && !fake_ended(&position));
    fx_ack("results");
    fx_answer(FAKE_DONE, 0);
    CHECK(fake_ended(&position));
    CHECK_INT(fx_counted(OUTCOME_failed), 1);
    CHECK_INT(fx_starts, 0);
    fx_finish_all();
    fx_check_idle();
    CHECK_INT(fx_destroy(), 0);
}

/* A stage that has somebody to tell does so; the letter is on its way meanwhile. */
TEST(bulk_work_that_three_workers_died_of_is_told_and_a_dead_letter)
{
    fx_hears_losses = true;
    fx_create(SL_STAGE_embed);
    fx_hears_losses = false;
    struct sl_position position = fx_chunk("doc");
    char id[64];
    snprintf(id, sizeof(id), "%s", fx_bulk_id(&position));
    fake_verdict(fake_waiting(id), SL_VERDICT_WORN_OUT, 4, 0, SL_SPAN(""));
    fx_turn();
    CHECK_STR(fake_open("chunks.dlq")->error, "LOST");
    CHECK_INT(fx_send(id), 0);
    sl_job_done(fx_settle(id));
    fx_ack("vectors");
    CHECK_INT(fake_written(FAKE_DONE), 0);
    fx_ack("chunks.dlq");
    CHECK(!fake_ended(&position));
    fx_answer(FAKE_DONE, 0);
    CHECK(fake_ended(&position));
    CHECK_INT(fx_counted(OUTCOME_dead), 1);
    CHECK_INT(fake_count("chunks.dlq"), 1);
    fx_check_idle();
    CHECK_INT(fx_destroy(), 0);
}

#define CASE(name)                                                                                 \
    {                                                                                              \
#name, name                                                                                \
    }

int main(int argc, char **argv)
{
    static const struct test_case cases[] = {
        CASE(a_suspect_waits_until_what_runs_has_been_settled),
        CASE(nothing_else_begins_before_a_suspect_is_settled),
        CASE(a_suspect_waits_also_for_what_is_granted_meanwhile),
        CASE(suspects_run_one_after_another),
        CASE(a_suspect_that_is_cancelled_or_expires_while_it_waits_lets_others_go_on),
        CASE(a_suspect_that_runs_is_cancelled_and_expires_like_any_job),
        CASE(a_suspect_whose_claim_is_lost_asks_anew_and_lets_others_go_on),
        CASE(a_drain_leaves_a_suspect_that_waits_to_others),
        CASE(a_drain_finishes_a_suspect_that_runs),
        CASE(only_a_stream_that_would_begin_again_is_held_back),
        CASE(a_query_that_three_workers_died_of_is_a_dead_letter_and_ends_with_worker_lost),
        CASE(bulk_work_that_three_workers_died_of_is_told_and_a_dead_letter),
        {NULL, NULL},
    };
    return run_tests(cases, argc, argv);
}
