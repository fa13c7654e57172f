/*
 * What several streams have to send to a gateway at one moment: in one record, in order, and with
 * no job gone before what names it is acknowledged.
 */
#include "common/bundle.h"
#include "common/clock.h"
#include "common/codec.h"
#include "tests/support/runtime/worker_fixture.h"
#include "tests/support/test.h"

enum { HERE = 3, THERE = 4, TEXT_MAX = 2000 }; /* Partitions of two gateways. */

/* --- queries of a gateway --- */

static struct sl_position ask(const char *id, int32_t partition, bool bundles)
{
    const struct sl_query query = {.query = SL_SPAN("why?"),
                                   .collection = SL_SPAN("default"),
                                   .top_n = 2,
                                   .timeout_ms = FX_TIMEOUT_MS,
                                   .max_tokens = 100};
    char reply_to[40];
    struct sl_buf value;
    sl_buf_init(&value, 1 << 16);
    sl_query_encode(&query, &value);
    snprintf(reply_to, sizeof(reply_to), "sluice.replies:%d", (int)partition);
    const struct fake_record record = {.topic = FX_QUERIES,
                                       .id = id,
                                       .reply_to = reply_to,
                                       .bundles = bundles,
                                       .timestamp_ms = fx_now(),
                                       .value = sl_buf_span(&value)};
    struct sl_position position = fx_take(&record);
    sl_buf_fini(&value);
    return position;
}

static struct sl_job *run(const char *id, int32_t partition)
{
    ask(id, partition, true);
    return fx_grant(id);
}

/* q1 and q2 here, q3 there. */
static void three_streams(void)
{
    fx_create(SL_STAGE_generate);
    run("q1", HERE);
    run("q2", HERE);
    run("q3", THERE);
}

/* Within this turn. */
static int emit(const char *id, const char *text)
{
    struct sl_event event = {.type = SL_EVENT_DELTA, .text = sl_span_of(text)};
    return sl_job_emit(fx_running(id), &event);
}

static void send_more(struct sl_job *job)
{
    struct sl_event event = {.type = SL_EVENT_DELTA, .text = SL_SPAN("more")};
    int rv = sl_job_emit(job, &event);
    CHECK(rv == 0 || rv == -SL_EAGAIN);
    if (rv == -SL_EAGAIN) {
        sl_job_on_room(job, send_more);
    }
}

static void gather(const char *id)
{
    sl_job_on_flush(fx_running(id), send_more);
}

/* --- what was sent --- */

static char texts[TEXT_MAX];

static void append(const char *format, const char *a, unsigned long long b)
{
    size_t len = strlen(texts);
    snprintf(texts + len, TEXT_MAX - len, format, a, b);
}

static void note(void *ctx, struct sl_span id, struct sl_span bytes)
{
    struct sl_arena arena;
    struct sl_event event;
    char text[80];
    sl_arena_init(&arena, 1 << 20);
    CHECK_INT(sl_event_decode(bytes, &arena, &event), 0);
    CHECK(sl_span_equal(id, event.id));
    if (event.type == SL_EVENT_DELTA) {
        snprintf(text, sizeof(text), SL_SPAN_FMT " %.8s", SL_SPAN_ARG(id), event.text.data);
        text[strcspn(text, " ") + 1 + (event.text.len < 8 ? event.text.len : 8)] = '\0';
        append(" %s.%llu", text, event.seq);
    } else {
        append(" %s%.0llu", sl_event_type_text(event.type), 0);
    }
    *(bool *)ctx = true;
    sl_arena_fini(&arena);
}

/* All records of replies, each as "|partition" and its events as " id text.seq". */
static const char *sent(void)
{
    texts[0] = '\0';
    for (size_t i = 0; i < fake_sent_count(); i++) {
        const struct fake_sent *sent = fake_sent(i);
        bool found = false;
        const struct sl_kafka_header headers[] = {{SL_SPAN("content-type"), sl_span_of(sent->type)},
                                                  {SL_SPAN("sluice-id"), sl_span_of(sent->id)}};
        const struct sl_record record = {.value = sl_buf_span(&sent->value),
                                         .headers = headers,
                                         .header_count = sent->id[0] != '\0' ? 2 : 1};
        if (strcmp(sent->topic, "sluice.replies") == 0) {
            append("%s|%llu", texts[0] != '\0' ? " " : "", (unsigned long long)sent->partition);
            CHECK_INT(sl_record_events(&record, note, &found), 0);
            CHECK(found);
        }
    }
    return texts;
}

static void finish_all(void)
{
    static const char *const ids[] = {"q1", "q2", "q3", "q4"};
    for (size_t i = 0; i < 4; i++) {
        if (fx_running(ids[i]) != NULL) {
            fx_finish(ids[i], "yes");
        }
    }
    fx_finish_all();
    fx_check_idle();
    CHECK(sl_list_empty(&fx_worker.lanes) && sl_list_empty(&fx_worker.gathered));
    CHECK_INT(fx_destroy(), 0);
}

/* --- one record --- */

TEST(texts_of_several_streams_are_one_record_for_each_gateway)
{
    three_streams();
    CHECK_INT(emit("q1", "a") | emit("q2", "b") | emit("q3", "c") | emit("q1", "d"), 0);
    CHECK_INT(fake_count("replies"), 0);
    fx_turn();
    CHECK_STR(sent(), "|3 q1 a.0 q2 b.0 q1 d.1 |4 q3 c.0");
    CHECK_STR(fake_open("replies")->type, SL_BUNDLE_TYPE);
    CHECK(fake_open("replies")->id[0] == '\0' && fake_open("replies")->key[0] == '\0');
    finish_all();
}

TEST(who_does_not_ask_for_bundles_gets_each_event_by_itself)
{
    fx_create(SL_STAGE_generate);
    ask("q1", HERE, false);
    fx_grant("q1");
    run("q2", HERE);
    CHECK_INT(emit("q1", "a") | emit("q2", "b") | emit("q1", "c"), 0);
    fx_turn();
    CHECK_STR(sent(), "|3 q1 a.0 |3 q1 c.1 |3 q2 b.0");
    CHECK_STR(fake_open("replies")->id, "q1");
    finish_all();
}

TEST(the_end_comes_after_all_texts)
{
    three_streams();
    emit("q1", "a");
    emit("q2", "b");
    fx_finish("q1", "a");
    CHECK_INT(fake_written(FAKE_END), 0);
    fx_ack("replies");
    fx_answer(FAKE_END, 0);
    CHECK_STR(sent(), "|3 q1 a.0 q2 b.0 |3 done");
    finish_all();
}

TEST(what_is_large_goes_by_itself_and_in_order)
{
    static char large[200000];
    memset(large, 'x', sizeof(large) - 1);
    three_streams();
    CHECK_INT(emit("q1", "a") | emit("q2", large) | emit("q1", "b") | emit("q2", "c"), 0);
    fx_turn();
    CHECK_STR(sent(), "|3 q1 a.0 |3 q2 xxxxxxxx.0 |3 q1 b.1 q2 c.1");
    finish_all();
}

/* --- when --- */

TEST(the_first_text_waits_for_nothing_and_what_follows_is_gathered)
{
    three_streams();
    gather("q1");
    fx_turn();
    CHECK_STR(sent(), "|3 q1 more.0");
    gather("q1");
    gather("q2");
    fx_turn();
    CHECK_INT(fake_count("replies"), 1);
    fx_sleep(50);
    CHECK_STR(sent(), "|3 q1 more.0 |3 q1 more.1 q2 more.0");
    gather("q2");
    emit("q1", "now"); /* And takes along what is there. */
    fx_turn();
    CHECK_STR(sent(), "|3 q1 more.0 |3 q1 more.1 q2 more.0 |3 q1 now.2 q2 more.1");
    finish_all();
}

static uint64_t clock_us;

static void ask_again(struct sl_job *job)
{
    clock_us += 50000; /* The flush takes its time. */
    send_more(job);
    sl_job_on_flush(job, send_more);
}

TEST(who_asks_during_a_flush_is_called_at_the_next)
{
    three_streams();
    clock_us = sl_clock_now_us();
    sl_clock_use(&clock_us);
    sl_job_on_flush(fx_running("q1"), ask_again);
    fx_turn();
    CHECK_STR(sent(), "|3 q1 more.0 |3 q1 more.1");
    finish_all();
}

/* --- limits --- */

static void fill_a_lane(void)
{
    for (int i = 0; i < 4; i++) {
        CHECK_INT(emit("q1", "a"), 0);
        fx_turn();
    }
    CHECK_INT(fake_count("replies"), 4);
}

TEST(a_gateway_whose_partition_is_away_holds_back_no_other)
{
    three_streams();
    fill_a_lane();
    emit("q1", "b");
    gather("q2");
    emit("q3", "c");
    fx_turn();
    gather("q3");
    fx_sleep(50);
    gather("q3");
    fx_sleep(3000);
    CHECK_INT(fx_running("q2")->unacked, 0); /* Not called: what comes meanwhile joins it. */
    CHECK_STR(sent(), "|3 q1 a.0 |3 q1 a.1 |3 q1 a.2 |3 q1 a.3"
                      " |4 q3 c.0 |4 q3 more.1 |4 q3 more.2");
    fx_ack("replies"); /* One of those. */
    CHECK_STR(sent(), "|3 q1 a.0 |3 q1 a.1 |3 q1 a.2 |3 q1 a.3"
                      " |4 q3 c.0 |4 q3 more.1 |4 q3 more.2 |3 q1 b.4 q2 more.0");
    finish_all();
}

TEST(what_was_held_back_goes_after_the_next_report)
{
    three_streams();
    fill_a_lane();
    gather("q2");
    fx_sleep(50);
    CHECK_INT(fake_count("replies"), 4);
    fx_ack("replies");
    fx_sleep(50);
    CHECK_STR(sent(), "|3 q1 a.0 |3 q1 a.1 |3 q1 a.2 |3 q1 a.3 |3 q2 more.0");
    finish_all();
}

TEST(without_room_nothing_is_lost_and_the_order_holds)
{
    three_streams();
    fake_refuse("replies", -SL_EAGAIN);
    CHECK_INT(emit("q1", "a"), 0);
    fx_turn();
    CHECK_INT(emit("q1", "b"), -SL_EAGAIN);
    sl_job_on_room(fx_running("q1"), send_more);
    gather("q2");
    fx_sleep(50); /* Called, and refused. */
    CHECK_INT(emit("q3", "c"), -SL_EAGAIN);
    sl_job_on_room(fx_running("q3"), send_more);
    fake_make_room(); /* For others. */
    fx_turn();
    CHECK_STR(sent(), "");
    fake_refuse("replies", 0);
    fake_make_room();
    fx_turn();
    CHECK_STR(sent(), "|3 q1 a.0 |3 q1 more.1 q2 more.0 |4 q3 more.0");
    finish_all();
}

/* --- jobs that go while a bundle names them --- */

/* q1 and q2 have something in a bundle for which there is no room. */
static void blocked_streams(void)
{
    three_streams();
    fake_refuse("replies", -SL_EAGAIN);
    CHECK_INT(emit("q1", "a") | emit("q2", "b"), 0);
    fx_turn();
    CHECK_INT(fake_count("replies"), 0);
}

static void make_room(void)
{
    fake_refuse("replies", 0);
    fake_make_room();
    fx_turn();
    CHECK_STR(sent(), "|3 q1 a.0 q2 b.0");
}

TEST(a_cancelled_query_ends_when_its_bundle_is_acknowledged)
{
    blocked_streams();
    fake_cancel(fake_granted_to("q1"));
    fx_turn();
    CHECK(fx_cancels == 1 && fake_written(FAKE_END) == 0);
    make_room();
    CHECK_INT(fake_written(FAKE_END), 0);
    fx_ack("replies");
    CHECK_INT(fake_op_count(FAKE_END), 1);
    CHECK_STR(fake_op(FAKE_END, 0)->id, "q1");
    CHECK(fx_running("q2") != NULL);
    finish_all();
}

TEST(a_query_that_is_lost_begins_anew_when_its_bundle_is_acknowledged)
{
    blocked_streams();
    fake_lose(fake_granted_to("q1"));
    fx_turn();
    CHECK_INT(fake_waiting_count(), 0);
    make_room();
    CHECK_INT(fake_waiting_count(), 0);
    fx_ack("replies");
    fx_verdict("q1", SL_VERDICT_DONE);
    finish_all();
}

TEST(a_bundle_that_is_not_delivered_fails_those_that_it_names)
{
    three_streams();
    CHECK_INT(emit("q1", "a") | emit("q2", "b") | emit("q1", "c") | emit("q3", "d"), 0);
    fx_turn();
    fx_fail("replies", -SL_ETIMEDOUT);
    CHECK(fx_running("q1") == NULL && fx_running("q2") == NULL && fx_running("q3") != NULL);
    CHECK_INT(fake_op_count(FAKE_END), 2);
    fx_finish_all();
    CHECK_INT(fx_counted(OUTCOME_failed), 2);
    finish_all();
}

TEST(a_bundle_that_cannot_be_sent_fails_those_that_it_names)
{
    three_streams();
    fake_refuse("replies", -SL_ENOENT);
    CHECK_INT(emit("q1", "a") | emit("q2", "b"), 0);
    fx_turn();
    fake_refuse("replies", 0);
    CHECK(fx_running("q1") == NULL && fx_running("q2") == NULL);
    fx_finish_all();
    CHECK_INT(fx_counted(OUTCOME_failed), 2);
    finish_all();
}

TEST(a_drain_waits_for_what_is_in_bundles)
{
    blocked_streams();
    fx_signal();
    fx_turn();
    fake_left();
    fx_finish("q1", "a");
    fx_finish("q2", "b");
    fx_finish("q3", "");
    fx_sleep(1000);
    CHECK(!fx_stopped());
    fake_refuse("replies", 0);
    fake_make_room();
    fx_finish_all();
    fx_sleep(100);
    CHECK(fx_stopped());
    CHECK_INT(fx_counted(OUTCOME_done), 3);
    CHECK_INT(fx_destroy(), 0);
}

TEST(who_is_told_to_end_at_once_gives_back_what_bundles_name)
{
    three_streams();
    emit("q1", "a"); /* In flight. */
    fx_turn();
    fake_refuse("replies", -SL_EAGAIN);
    CHECK_INT(emit("q1", "b") | emit("q2", "c"), 0); /* Without room. */
    fx_turn();
    gather("q3");
    fx_signal();
    fx_turn();
    fx_signal();
    fx_turn();
    CHECK_INT(fake_granted_count(), 0);
    CHECK_INT(fake_op_count(FAKE_GIVE_BACK), 3);
    CHECK_INT(fake_written(FAKE_END), 0);
    CHECK_INT(fx_destroy(), 1);
}

int main(int argc, char **argv)
{
#define CASE(name)                                                                                 \
    {                                                                                              \
#name, name                                                                                \
    }
    static const struct test_case cases[] = {
        CASE(texts_of_several_streams_are_one_record_for_each_gateway),
        CASE(who_does_not_ask_for_bundles_gets_each_event_by_itself),
        CASE(the_end_comes_after_all_texts),
        CASE(what_is_large_goes_by_itself_and_in_order),
        CASE(the_first_text_waits_for_nothing_and_what_follows_is_gathered),
        CASE(who_asks_during_a_flush_is_called_at_the_next),
        CASE(a_gateway_whose_partition_is_away_holds_back_no_other),
        CASE(what_was_held_back_goes_after_the_next_report),
        CASE(without_room_nothing_is_lost_and_the_order_holds),
        CASE(a_cancelled_query_ends_when_its_bundle_is_acknowledged),
        CASE(a_query_that_is_lost_begins_anew_when_its_bundle_is_acknowledged),
        CASE(a_bundle_that_is_not_delivered_fails_those_that_it_names),
        CASE(a_bundle_that_cannot_be_sent_fails_those_that_it_names),
        CASE(a_drain_waits_for_what_is_in_bundles),
        CASE(who_is_told_to_end_at_once_gives_back_what_bundles_name),
        {NULL, NULL},
    };
    return run_tests(cases, argc, argv);
}
