/* How a worker ends: signals, drains, versions that are not known, and want of memory. */
#include "tests/support/alloc_fail.h"
#include "tests/support/runtime/worker_fixture.h"
#include "tests/support/test.h"

/* One job in each state: q0 admitting, q1 parked, q2 running, q3 settling (its record is out). */
static void one_in_each_state(void)
{
    fx_create(SL_STAGE_embed);
    fx_ask("q0");
    fx_ask("q1");
    fx_verdict("q1", SL_VERDICT_PARKED);
    fx_ask("q2");
    fx_grant("q2");
    fx_ask("q3");
    fx_grant("q3");
    fx_forward("q3");
}

static void leave(void)
{
    CHECK(fake_leaving());
    fake_left();
    fx_turn();
}

TEST(a_drain_leaves_what_waits_and_finishes_what_runs)
{
    one_in_each_state();
    fx_signal();
    fx_turn();
    CHECK(!fx_ready("kafka"));
    CHECK_INT(fake_waiting_count() + fake_parked_count(), 0);
    CHECK_INT(intake_room(&fx_worker, CLASS_QUERY), 0);
    leave();
    CHECK(fx_running("q2") != NULL);
    fx_ack("retrieve");
    fx_answer(FAKE_DONE, 0);
    fx_forward("q2");
    fx_sleep(2000);
    CHECK(!fx_stopped());
    fx_ack("retrieve");
    fx_sleep(500);
    CHECK(!fx_stopped()); /* Its mark is on the way. */
    fx_answer(FAKE_DONE, 0);
    fx_sleep(100);
    CHECK(fx_stopped());
    CHECK_INT(fx_destroy(), 0);
}

TEST(a_drain_ends_when_the_group_is_left)
{
    fx_create(SL_STAGE_embed);
    fx_signal();
    fx_sleep(100);
    CHECK(!fx_stopped());
    leave();
    fx_sleep(100);
    CHECK(fx_stopped());
    CHECK_INT(fx_destroy(), 0);
}

TEST(a_drain_waits_a_second_for_redis_and_no_longer)
{
    fx_create(SL_STAGE_embed);
    fake_idle(false);
    fx_signal();
    fx_turn();
    leave();
    fx_sleep(900);
    CHECK(!fx_stopped());
    fx_sleep(200);
    CHECK(fx_stopped());
    CHECK_INT(fx_destroy(), 0);
}

TEST(a_drain_that_takes_too_long_gives_its_claims_back)
{
    one_in_each_state();
    fx_signal();
    fx_turn();
    leave();
    fx_sleep(FX_DRAIN_MS * 4 / 5);
    CHECK_INT(fx_cancels, 1);
    CHECK_STR(fake_op(FAKE_GIVE_BACK, 0)->id, "q2");
    fx_answer(FAKE_GIVE_BACK, 0);
    fx_ack("retrieve"); /* q3's, just in time. */
    fx_answer(FAKE_DONE, 0);
    fx_sleep(100);
    CHECK(fx_stopped());
    CHECK_INT(fx_destroy(), 1);
}

TEST(a_drain_does_not_admit_anew)
{
    one_in_each_state();
    fx_signal();
    fx_turn();
    leave();
    fake_lose(fake_granted_to("q2")); /* Whoever has it now finishes it. */
    fx_turn();
    CHECK_INT(fx_worker.counts[JOB_RUNNING] + fake_waiting_count(), 0);
    fx_finish_all();
    fx_sleep(100);
    CHECK(fx_stopped());
    CHECK_INT(fx_destroy(), 0);
}

TEST(a_stream_that_a_drain_stops_waits_for_its_deltas)
{
    for (int lost = 0; lost < 2; lost++) {
        fx_create(SL_STAGE_generate);
        fx_ask("q1");
        fx_grant("q1");
        fx_emit("q1", "delta");
        fx_signal();
        fx_turn();
        leave();
        fx_sleep(FX_DRAIN_MS * 4 / 5);
        CHECK(fx_cancels == 1 && fake_written(FAKE_GIVE_BACK) == 0);
        (lost != 0 ? fake_lose : fake_cancel)(fake_granted_to("q1")); /* It is stopped already. */
        fx_turn();
        CHECK_INT(fx_worker.counts[JOB_RUNNING], 1);
        fx_ack("replies");
        CHECK_INT(fx_worker.counts[JOB_RUNNING], 0);
        CHECK_INT(fx_cancels, 1);
        CHECK_INT(fake_written(FAKE_GIVE_BACK), lost != 0 ? 0 : 1);
        CHECK_INT(fx_destroy(), 1);
    }
}

/* An exit is not a death: who takes the jobs over does not count it against them. */
TEST(a_second_signal_gives_back_what_is_held_and_ends_it)
{
    one_in_each_state();
    fx_chunk("doc");
    fx_signal();
    fx_turn();
    fx_signal();
    fx_turn();
    CHECK(!fx_stopped());
    CHECK_INT(fake_granted_count() + fake_permits_held(), 0);
    CHECK_INT(fake_op_count(FAKE_GIVE_BACK), 2);
    CHECK_STR(fake_op(FAKE_GIVE_BACK, 0)->id, "q3");
    CHECK_STR(fake_op(FAKE_GIVE_BACK, 1)->id, "q2");
    fx_answer(FAKE_GIVE_BACK, 0);
    fx_answer(FAKE_GIVE_BACK, 0);
    fx_sleep(50);
    CHECK(fx_stopped());
    CHECK_INT(fx_destroy(), 1);
}

TEST(a_second_signal_waits_for_redis_half_a_second_and_no_longer)
{
    one_in_each_state();
    fx_signal();
    fx_turn();
    fx_signal();
    fx_sleep(400);
    CHECK(!fx_stopped());
    fx_sleep(200);
    CHECK(fx_stopped());
    CHECK_INT(fx_destroy(), 1);
}

TEST(a_producer_that_cannot_go_on_ends_it_and_gives_back_what_is_held)
{
    one_in_each_state();
    fake_producer_dies();
    fx_turn();
    CHECK_INT(fake_op_count(FAKE_GIVE_BACK), 2);
    fx_finish_all();
    fx_sleep(50);
    CHECK(fx_stopped());
    CHECK_INT(fx_destroy(), 1);
}

/* The broker is away: what was to be sent is left to others as well. */
TEST(a_drain_that_takes_too_long_gives_back_also_what_it_cannot_send)
{
    one_in_each_state();
    fx_signal();
    fx_turn();
    leave();
    fx_sleep(FX_DRAIN_MS * 4 / 5);
    fx_answer(FAKE_GIVE_BACK, 0);
    CHECK_INT(fake_written(FAKE_GIVE_BACK), 1);
    fx_sleep(700);
    CHECK_STR(fake_op(FAKE_GIVE_BACK, 0)->id, "q3");
    CHECK(!fx_stopped());
    fx_answer(FAKE_GIVE_BACK, 0);
    fx_sleep(50);
    CHECK(fx_stopped());
    CHECK_INT(fx_destroy(), 1);
}

TEST(what_has_arrived_when_everything_is_left_is_finished)
{
    struct sl_position position;
    fx_create(SL_STAGE_generate);
    position = fx_ask("q1");
    fx_grant("q1");
    fx_finish("q1", "yes");
    fx_answer(FAKE_END, 0);
    fx_signal();
    fake_flushes = true;
    fx_signal();
    fx_turn();
    CHECK_INT(fake_written(FAKE_GIVE_BACK), 0);
    CHECK_INT(fake_written(FAKE_ENDED) + fake_written(FAKE_DONE), 2);
    CHECK(fake_ended(&position));
    CHECK_INT(fx_destroy(), 1);
}

TEST(sources_that_wait_behind_their_question_go_out_when_everything_is_left)
{
    struct sl_position position;
    fx_create(SL_STAGE_rerank);
    position = fx_ask("q1");
    fx_grant("q1");
    CHECK_INT(fx_emit("q1", ""), 0);
    fx_forward("q1");
    CHECK(fake_count("retrieve") == 1 && fake_count("replies") == 0);
    fx_signal();
    fake_flushes = true;
    fx_signal();
    fx_turn();
    CHECK_INT(fake_written(FAKE_GIVE_BACK), 0); /* All that it sent has arrived. */
    CHECK(fake_ended(&position));
    CHECK_INT(fx_destroy(), 1);
}

/* The producer's last reports come while everything is taken down. */
TEST(an_exit_in_the_middle_of_everything_leaves_nothing)
{
    fx_create(SL_STAGE_generate);
    fx_ask("running");
    fx_grant("running");
    fx_emit("running", "delta");
    fx_ask("flushing");
    fx_grant("flushing");
    fx_emit("flushing", "delta");
    fx_finish("flushing", "delta");
    fx_ask("storing");
    fx_grant("storing");
    fx_finish("storing", "yes");
    fx_ask("marking");
    CHECK_INT(sl_job_stream(fx_grant("marking"), NULL), 0);
    fx_chunk("doc");
    fx_destroy();
}

TEST(a_consumer_that_dies_ends_the_process_after_what_runs)
{
    one_in_each_state();
    fake_consumer_dies();
    fx_turn();
    leave();
    fx_forward("q2");
    fx_finish_all();
    fx_sleep(100);
    CHECK(fx_stopped());
    CHECK_INT(fx_destroy(), 1);
}

TEST(a_part_that_fails_at_the_start_leaves_nothing)
{
    enum { STAGE = 5, PARTS = 7 };
    for (int part = 1; part <= PARTS; part++) {
        fx_failing_part = part;
        CHECK_INT(fx_start(SL_STAGE_embed), part == STAGE ? 2 : 1);
    }
}

/* --- versions --- */

static void take_newer(const char *id)
{
    /* A query as MessagePack: {"v": 2, "query": "why?"}. */
    const struct fake_record record = {
        .id = id, .timestamp_ms = fx_now(), .value = SL_SPAN("\x82\xa1v\x02\xa5query\xa4why?")};
    fx_take(&record);
}

TEST(a_newer_version_turns_the_worker_unready_and_out_of_the_group)
{
    one_in_each_state();
    fx_verdict("q0", SL_VERDICT_DONE);
    CHECK(fx_ready("version"));
    take_newer("q9");
    CHECK(!fx_ready("version") && fake_leaving());
    CHECK_INT(fake_count("queries.dlq"), 0);
    CHECK_INT(fake_waiting_count() + fake_parked_count(), 0);
    CHECK_INT(intake_room(&fx_worker, CLASS_QUERY), 0);
    leave();
    fx_forward("q2");
    fx_finish_all();
    CHECK(!fx_stopped()); /* It stays, unready, for whoever upgrades it. */
    fx_signal();
    fx_sleep(100);
    CHECK(fx_stopped());
    CHECK_INT(fx_destroy(), 0);
}

TEST(a_signal_while_the_group_is_being_left_leaves_it_once)
{
    fx_create(SL_STAGE_embed);
    take_newer("q1");
    fx_signal();
    fx_turn();
    leave();
    fx_sleep(100);
    CHECK(fx_stopped());
    CHECK_INT(fx_destroy(), 0);
}

TEST(an_ending_of_a_newer_format_is_left_to_a_newer_worker)
{
    fx_create(SL_STAGE_embed);
    fx_ask("q1");
    fx_ask("q2");
    fake_verdict(fake_waiting("q1"), SL_VERDICT_ENDING, 0, 0, SL_SPAN("\x09 whatever"));
    fx_turn();
    CHECK(!fx_ready("version") && fake_leaving());
    CHECK_INT(fake_sent_count(), 0);
    leave();
    fx_destroy();
}

/* --- memory --- */

/* Each allocation of taking a record fails once: it is taken, or the process ends with 1 so that
 * the record comes again. It is never a dead letter, and never forgotten. */
TEST(want_of_memory_ends_the_process_and_loses_nothing)
{
    bool failed = true;
    for (long k = 1; failed; k++) {
        fx_create(SL_STAGE_embed);
        const struct fake_record record = {.id = "q1",
                                           .type = "application/json",
                                           .timestamp_ms = fx_now(),
                                           .reply_to = "sluice.replies:3",
                                           .value = SL_SPAN("{\"query\": \"why?\"}")};
        sl_test_fail_alloc(k + 3); /* The first three are the fakes'. */
        CHECK(fake_consume(&record, NULL));
        failed = sl_test_alloc_failed();
        fx_turn();
        CHECK_INT(fake_count("queries.dlq"), 0);
        if (fake_waiting_count() == 0) {
            CHECK(failed && fake_leaving() && fake_unended() == 1);
            leave();
            fx_sleep(100);
            CHECK(fx_stopped());
            CHECK_INT(fx_destroy(), 1);
        } else {
            fx_verdict("q1", SL_VERDICT_DONE);
            fx_check_idle();
            CHECK_INT(fx_destroy(), 0);
        }
    }
}

#define CASE(name)                                                                                 \
    {                                                                                              \
#name, name                                                                                \
    }

int main(int argc, char **argv)
{
    static const struct test_case cases[] = {
        CASE(a_drain_leaves_what_waits_and_finishes_what_runs),
        CASE(a_drain_ends_when_the_group_is_left),
        CASE(a_drain_waits_a_second_for_redis_and_no_longer),
        CASE(a_drain_that_takes_too_long_gives_its_claims_back),
        CASE(a_drain_does_not_admit_anew),
        CASE(a_stream_that_a_drain_stops_waits_for_its_deltas),
        CASE(a_second_signal_gives_back_what_is_held_and_ends_it),
        CASE(a_second_signal_waits_for_redis_half_a_second_and_no_longer),
        CASE(a_producer_that_cannot_go_on_ends_it_and_gives_back_what_is_held),
        CASE(a_drain_that_takes_too_long_gives_back_also_what_it_cannot_send),
        CASE(what_has_arrived_when_everything_is_left_is_finished),
        CASE(sources_that_wait_behind_their_question_go_out_when_everything_is_left),
        CASE(an_exit_in_the_middle_of_everything_leaves_nothing),
        CASE(a_consumer_that_dies_ends_the_process_after_what_runs),
        CASE(a_part_that_fails_at_the_start_leaves_nothing),
        CASE(a_newer_version_turns_the_worker_unready_and_out_of_the_group),
        CASE(a_signal_while_the_group_is_being_left_leaves_it_once),
        CASE(an_ending_of_a_newer_format_is_left_to_a_newer_worker),
        CASE(want_of_memory_ends_the_process_and_loses_nothing),
        {NULL, NULL},
    };
    return run_tests(cases, argc, argv);
}
