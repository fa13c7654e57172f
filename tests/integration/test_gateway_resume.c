/*
 * Streams that go on: callers who come back, or come twice, with a pipeline that the test plays.
 * What each sees, when a query counts as left, and what is answered where there is nothing to go on
 * with.
 */
#include "tests/support/gateway_fixture.h"
#include "tests/support/soon.h"

#include <signal.h>

static struct peer peer, second;

static struct asked *ask(const char *fields)
{
    char body[512];
    size_t n = gateway.asked_count + 1;
    snprintf(body, sizeof(body), "{\"query\":\"what?\"%s%s}", fields[0] != '\0' ? "," : "", fields);
    gateway_post(&peer, "/v1/query", "Accept: text/event-stream\r\n", body);
    return gateway_asked(n);
}

/* last: of Last-Event-ID; NULL: no such header. */
static void resume(struct peer *by, const char *id, const char *last)
{
    char request[512];
    snprintf(request, sizeof(request),
             "GET /v1/queries/%s/events HTTP/1.1\r\nHost: a\r\n%s%s%s\r\n", id,
             last != NULL ? "Last-Event-ID: " : "", last != NULL ? last : "",
             last != NULL ? "\r\n" : "");
    peer_send_text(by, request);
}

/* The ids of the events that the peer got, in order, by spaces. */
static const char *ids(struct peer *of)
{
    static char text[512];
    size_t len = 0;
    text[0] = '\0';
    peer_read(of);
    for (const char *at = strstr(peer_text(of), "\nid: "); at != NULL;
         at = strstr(at + 1, "\nid: ")) {
        len += (size_t)snprintf(text + len, sizeof(text) - len, "%s%.*s", len > 0 ? " " : "",
                                (int)strcspn(at + 5, "\n"), at + 5);
    }
    return text;
}

/* --- what is seen --- */

TEST(a_stream_goes_on_behind_the_last_event_that_was_seen)
{
    gateway_start_pair(&peer, &second);
    struct asked *asked = ask("\"on_disconnect\":\"continue\"");
    emit_sources(asked, 10);
    emit_delta(asked, 1, 0, 20, "one");
    emit_delta(asked, 1, 1, 20, "two");
    GATEWAY_WAIT(peer_has(&peer, "two"));
    gateway_reconnect(&peer);
    emit_delta(asked, 1, 2, 20, "three");
    resume(&peer, asked->id, "1:0");
    GATEWAY_WAIT(peer_has(&peer, "three"));
    CHECK_STR(ids(&peer), "1:1 1:2");
    CHECK(peer_has(&peer, "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"));
    CHECK(peer_has(&peer, asked->id));
    resume(&second, asked->id, NULL); /* And one from the beginning. */
    GATEWAY_WAIT(peer_has(&second, "three"));
    emit_delta(asked, 1, 3, 20, "four");
    GATEWAY_WAIT(peer_has(&peer, "four") && peer_has(&second, "four"));
    gateway_reconnect(&peer); /* With nothing new between two connections. */
    resume(&peer, asked->id, "1:3");
    GATEWAY_WAIT(peer_has(&peer, "\r\n\r\n"));
    emit_done(asked, 1, 4, 20);
    GATEWAY_WAIT(peer_has(&peer, "[DONE]") && peer_has(&second, "[DONE]"));
    CHECK_STR(ids(&peer), "1:4");
    CHECK_STR(ids(&second), "0:0 1:0 1:1 1:2 1:3 1:4");
    CHECK(!gateway_cancelled(asked));
    gateway_stop_pair(&peer, &second);
}

TEST(a_query_that_has_ended_is_told_again)
{
    gateway_start_pair(&peer, &second);
    struct asked *asked = ask("");
    emit_sources(asked, 10);
    emit_delta(asked, 1, 0, 20, "one");
    emit_done(asked, 1, 1, 20);
    GATEWAY_WAIT(peer_has(&peer, "[DONE]"));
    resume(&second, asked->id, NULL);
    GATEWAY_WAIT(peer_has(&second, "[DONE]"));
    CHECK_STR(ids(&second), "0:0 1:0 1:1");
    sl_buf_clear(&second.in);
    resume(&second, asked->id, "1:1"); /* The end itself: there is nothing behind it. */
    GATEWAY_WAIT(peer_has(&second, "data: [DONE]\n\n"));
    CHECK(peer_has(&second, "HTTP/1.1 200 "));
    CHECK_STR(ids(&second), "");
    gateway_stop_pair(&peer, &second);
}

TEST(sources_that_the_first_delta_overtook_stand_before_it)
{
    gateway_start_pair(&peer, &second);
    struct asked *asked = ask("");
    emit_delta(asked, 1, 0, 20, "one");
    emit_sources(asked, 10);
    emit_done(asked, 1, 1, 20);
    GATEWAY_WAIT(peer_has(&peer, "[DONE]"));
    CHECK_STR(ids(&peer), "0:0 1:0 1:1");
    resume(&second, asked->id, "0:0");
    GATEWAY_WAIT(peer_has(&second, "[DONE]"));
    CHECK_STR(ids(&second), "1:0 1:1");
    sl_buf_clear(&second.in);
    resume(&second, asked->id, "1:0");
    GATEWAY_WAIT(peer_has(&second, "[DONE]"));
    CHECK_STR(ids(&second), "1:1");
    gateway_stop_pair(&peer, &second);
}

TEST(a_broken_stream_ends_alike_for_all)
{
    gateway_start_pair(&peer, &second);
    struct asked *asked = ask("");
    emit_delta(asked, 1, 0, 20, "one");
    emit_delta(asked, 1, 2, 20, "three");
    GATEWAY_WAIT(peer_has(&peer, "[DONE]"));
    resume(&second, asked->id, "1:0");
    GATEWAY_WAIT(peer_has(&second, "[DONE]"));
    CHECK_STR(ids(&second), "1:1");
    CHECK(peer_has(&second, "\"code\":\"worker_lost\""));
    sl_buf_clear(&second.in);
    resume(&second, asked->id, "1:1"); /* The error was seen. */
    GATEWAY_WAIT(peer_has(&second, "[DONE]"));
    CHECK_STR(ids(&second), "");
    gateway_stop_pair(&peer, &second);
}

/* --- who counts as there --- */

TEST(a_query_is_cancelled_when_its_last_caller_leaves)
{
    gateway_start_pair(&peer, &second);
    struct asked *asked = ask("");
    emit_delta(asked, 1, 0, 20, "one");
    resume(&second, asked->id, NULL);
    GATEWAY_WAIT(peer_has(&second, "one"));
    peer_close(&peer);
    emit_delta(asked, 1, 1, 20, "two");
    GATEWAY_WAIT(peer_has(&second, "two"));
    CHECK(!gateway_cancelled(asked));
    peer_close(&second);
    GATEWAY_WAIT(gateway_cancelled(asked));
    emit_error(asked, 1, 2, 20, SL_QERR_CANCELLED, "cancelled");
    GATEWAY_WAIT(gateway_logged("client=left"));
    gateway_stop_pair(&peer, &second);
}

TEST(a_caller_that_comes_back_within_its_grace_stops_the_cancellation)
{
    gateway_start_pair(&peer, &second);
    struct asked *asked = ask("\"on_disconnect\":\"grace:2\"");
    emit_delta(asked, 1, 0, 20, "one");
    GATEWAY_WAIT(peer_has(&peer, "one"));
    gateway_reconnect(&peer);
    resume(&peer, asked->id, "1:0");
    GATEWAY_WAIT(peer_has(&peer, "\r\n\r\n"));
    MEANWHILE(gateway.loop, 2500);
    CHECK(!gateway_cancelled(asked));
    peer_close(&peer); /* And now for good. */
    GATEWAY_WAIT(gateway_cancelled(asked));
    emit_error(asked, 1, 1, 20, SL_QERR_CANCELLED, "cancelled");
    gateway_stop_pair(&peer, &second);
}

TEST(whoever_asks_for_an_event_that_is_not_there_changes_nothing)
{
    gateway_start_pair(&peer, &second);
    struct asked *asked = ask("");
    emit_delta(asked, 1, 0, 20, "one");
    resume(&second, asked->id, "1:7");
    GATEWAY_WAIT(peer_has(&second, "\"code\":\"unknown_event_id\""));
    CHECK(peer_has(&second, "HTTP/1.1 400 ") && peer_has(&second, "\"param\":\"Last-Event-ID\""));
    emit_done(asked, 1, 1, 20);
    GATEWAY_WAIT(peer_has(&peer, "[DONE]"));
    CHECK(peer_has(&peer, "event: done"));
    CHECK(!gateway_cancelled(asked));
    sl_buf_clear(&second.in);
    resume(&second, asked->id, "2:0"); /* The end comes without it. */
    GATEWAY_WAIT(peer_has(&second, "\"code\":\"unknown_event_id\""));
    gateway_stop_pair(&peer, &second);
}

/* --- another gateway's query --- */

/* As if another gateway had opened it: its place is in Redis, its events on that partition. */
static struct asked foreign(const struct asked *real, const char *id, long long left_ms,
                            int policy_ms)
{
    struct asked asked = *real;
    char open[96];
    snprintf(asked.id, sizeof(asked.id), "%s", id);
    asked.query.id = sl_span_of(id);
    asked.query.reply_partition = (real->query.reply_partition + 1) % 3;
    snprintf(open, sizeof(open), "%d 0 %lld %d", asked.query.reply_partition,
             (long long)sl_clock_unix_ms() + left_ms, policy_ms);
    gateway_redis_set(id, ".open", open);
    return asked;
}

TEST(a_query_of_another_gateway_is_read_from_its_partition)
{
    gateway_start_pair(&peer, &second);
    struct asked *real = ask("");
    struct asked asked = foreign(real, "of.another", 30000, 0);
    emit_delta(&asked, 1, 0, 20, "one");
    resume(&second, "of.another", NULL);
    GATEWAY_WAIT(peer_has(&second, "one"));
    emit_delta(&asked, 1, 1, 20, "two");
    GATEWAY_WAIT(peer_has(&second, "two"));
    gateway_reconnect(&second); /* Nobody else reads it. */
    GATEWAY_WAIT(gateway_cancelled(&asked));
    emit_error(&asked, 1, 2, 20, SL_QERR_CANCELLED, "cancelled");
    resume(&second, "of.another", "1:1");
    GATEWAY_WAIT(peer_has(&second, "[DONE]"));
    CHECK_STR(ids(&second), "1:2");
    emit_done(real, 1, 0, 20);
    GATEWAY_WAIT(peer_has(&peer, "[DONE]"));
    gateway_stop_pair(&peer, &second);
}

TEST(a_query_of_another_gateway_that_nobody_ends_times_out_here_only)
{
    gateway_start_pair(&peer, &second);
    struct asked *real = ask("");
    struct asked asked = foreign(real, "of.another", 300, -1);
    emit_delta(&asked, 1, 0, 20, "one");
    resume(&second, "of.another", NULL);
    GATEWAY_WAIT(peer_has(&second, "[DONE]"));
    CHECK_STR(ids(&second), "1:0 1:1");
    CHECK(peer_has(&second, "\"code\":\"timeout\""));
    CHECK_STR(gateway_redis_field("of.another", ".end_owner"), "");
    emit_done(real, 1, 0, 20);
    GATEWAY_WAIT(peer_has(&peer, "[DONE]"));
    CHECK_INT(gateway.results, 0);
    gateway_stop_pair(&peer, &second);
}

/* --- nothing to go on with --- */

static void check_refused(const char *id, const char *last, int status, const char *code)
{
    char line[32], member[64];
    snprintf(line, sizeof(line), "HTTP/1.1 %d ", status);
    snprintf(member, sizeof(member), "\"code\":\"%s\"", code);
    sl_buf_clear(&peer.in);
    resume(&peer, id, last);
    GATEWAY_WAIT(peer_has(&peer, "\r\n\r\n{"));
    if (!peer_has(&peer, line) || !peer_has(&peer, member)) {
        fprintf(stderr, "%s %s: expected %d %s in\n%s\n", id, last != NULL ? last : "", status,
                code, peer_text(&peer));
        abort();
    }
}

TEST(what_cannot_be_resumed_is_told_apart)
{
    char young[37];
    gateway_start_pair(&peer, &second);
    struct asked *asked = ask("");
    emit_done(asked, 1, 0, 20);
    GATEWAY_WAIT(peer_has(&peer, "[DONE]"));
    sl_id_new(sl_clock_unix_ms(), young);
    gateway_redis_set("a.kafka.job", "embed", "1 a-worker 1");
    check_refused("no%20id", NULL, 400, "invalid_id");
    check_refused(asked->id, "1", 400, "invalid_event_id");
    check_refused(asked->id, "1:x", 400, "invalid_event_id");
    check_refused(asked->id, "-1:0", 400, "invalid_event_id");
    check_refused(asked->id, "1:4294967296", 400, "invalid_event_id");
    check_refused(young, NULL, 404, "not_found");
    check_refused("never.heard.of", NULL, 404, "not_found");
    check_refused("00000000-0000-7000-8000-000000000000", NULL, 410, "gone");
    check_refused("a.kafka.job", NULL, 404, "no_events");
    gateway_stop_pair(&peer, &second);
}

TEST(without_redis_a_caller_is_to_try_again)
{
    gateway_start_pair(&peer, &second);
    redis_fixture_pause(gateway.redis);
    resume(&peer, "some-id", NULL);
    SOON(gateway.loop, peer_has(&peer, "\"code\":\"overloaded\""));
    CHECK(peer_has(&peer, "HTTP/1.1 503 ") && peer_has(&peer, "retry-after: 1\r\n"));
    redis_fixture_resume(gateway.redis);
    gateway_stop_pair(&peer, &second);
}

TEST(a_log_that_cannot_be_read_is_waited_for_a_while)
{
    gateway_start_pair(&peer, &second);
    gateway_redis_set("of.another", ".open", "99 0 9000000000000 0"); /* No such partition. */
    resume(&peer, "of.another", NULL);
    SOON(gateway.loop, peer_has(&peer, "\"code\":\"overloaded\""));
    CHECK(peer_has(&peer, "HTTP/1.1 503 ") && peer_has(&peer, "retry-after: 1\r\n"));
    gateway_stop_pair(&peer, &second);
}

TEST(many_callers_of_one_query_see_the_same)
{
    enum { CALLERS = 40 };
    static struct peer callers[CALLERS];
    gateway_start_pair(&peer, &second);
    struct asked *asked = ask("");
    emit_sources(asked, 10);
    emit_delta(asked, 1, 0, 20, "one");
    for (size_t i = 0; i < CALLERS; i++) {
        peer_open(&callers[i], gateway.port);
        resume(&callers[i], asked->id, i % 2 == 0 ? NULL : "0:0");
    }
    for (size_t i = 0; i < CALLERS; i++) {
        GATEWAY_WAIT(peer_has(&callers[i], "one"));
    }
    emit_delta(asked, 1, 1, 20, "two");
    emit_done(asked, 1, 2, 20);
    for (size_t i = 0; i < CALLERS; i++) {
        GATEWAY_WAIT(peer_has(&callers[i], "[DONE]"));
        CHECK_STR(ids(&callers[i]), i % 2 == 0 ? "0:0 1:0 1:1 1:2" : "1:0 1:1 1:2");
        CHECK_INT(peer_count(&callers[i], "[DONE]"), 1);
        peer_close(&callers[i]);
    }
    gateway_stop_pair(&peer, &second);
}

TEST(callers_who_come_while_events_do_miss_none)
{
    enum { CALLERS = 40, EACH = 50 };
    static struct peer callers[CALLERS];
    uint32_t seq = 0;
    gateway_start_pair(&peer, &second);
    struct asked *asked = ask("");
    for (size_t i = 0; i < CALLERS; i++) {
        peer_open(&callers[i], gateway.port);
        resume(&callers[i], asked->id, NULL);
        for (size_t j = 0; j < EACH; j++) {
            emit_delta(asked, 1, seq++, 20, "x");
            sl_loop_turn(gateway.loop, 0);
        }
    }
    emit_done(asked, 1, seq, 20);
    for (size_t i = 0; i < CALLERS; i++) {
        GATEWAY_WAIT(peer_has(&callers[i], "[DONE]"));
        CHECK_INT(peer_count(&callers[i], "event: delta"), CALLERS * EACH);
        CHECK_INT(peer_count(&callers[i], "event: done"), 1);
        peer_close(&callers[i]);
    }
    gateway_stop_pair(&peer, &second);
}

/* Looks at the last bytes only: what came before is long. */
static bool has_end(struct peer *of)
{
    peer_read(of);
    return of->in.len > 64 && strstr(peer_text(of) + of->in.len - 64, "[DONE]") != NULL;
}

static void wait_for_end(struct peer *of)
{
    for (int turn = 0; turn < 6000 && !has_end(of); turn++) {
        sl_loop_turn(gateway.loop, 5);
    }
    CHECK(has_end(of));
}

TEST(a_slow_reader_of_a_long_answer_gets_all_of_it)
{
    /* Faster than it is taken, more than a queue takes, and less than is held for a reader. */
    enum { TEXT = 8000, TEXTS = 480 };
    char text[TEXT + 1];
    int small = 32768;
    memset(text, 'x', TEXT);
    text[TEXT] = '\0';
    gateway_start_pair(&peer, &second);
    struct asked *asked = ask("");
    for (uint32_t i = 0; i < TEXTS; i++) {
        emit_delta(asked, 1, i, 20, text);
    }
    emit_done(asked, 1, TEXTS, 20);
    wait_for_end(&peer);
    gateway_reconnect(&peer);
    CHECK(setsockopt(second.fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small)) == 0);
    resume(&second, asked->id, NULL);
    resume(&peer, asked->id, NULL); /* When this one has all, the other was offered all. */
    wait_for_end(&peer);
    wait_for_end(&second);
    CHECK_INT(peer_count(&second, "event: delta"), TEXTS);
    gateway_stop_pair(&peer, &second);
}

TEST(draining_waits_for_callers_who_came_back)
{
    gateway_start_pair(&peer, &second);
    struct asked *asked = ask("\"on_disconnect\":\"continue\"");
    emit_delta(asked, 1, 0, 20, "one");
    resume(&second, asked->id, NULL);
    GATEWAY_WAIT(peer_has(&second, "one"));
    gateway_reconnect(&peer);
    gateway_signal(SIGTERM);
    GATEWAY_WAIT(gateway_logged("draining"));
    emit_delta(asked, 1, 1, 20, "two");
    emit_done(asked, 1, 2, 20);
    GATEWAY_WAIT(peer_has(&second, "[DONE]"));
    CHECK_STR(ids(&second), "1:0 1:1 1:2");
    GATEWAY_WAIT(gateway_ended());
    gateway_stop_pair(&peer, &second);
}

int main(int argc, char **argv)
{
#define CASE(name)                                                                                 \
    {                                                                                              \
#name, name                                                                                \
    }
    static const struct test_case cases[] = {
        CASE(a_stream_goes_on_behind_the_last_event_that_was_seen),
        CASE(a_query_that_has_ended_is_told_again),
        CASE(sources_that_the_first_delta_overtook_stand_before_it),
        CASE(a_broken_stream_ends_alike_for_all),
        CASE(a_query_is_cancelled_when_its_last_caller_leaves),
        CASE(a_caller_that_comes_back_within_its_grace_stops_the_cancellation),
        CASE(whoever_asks_for_an_event_that_is_not_there_changes_nothing),
        CASE(a_query_of_another_gateway_is_read_from_its_partition),
        CASE(a_query_of_another_gateway_that_nobody_ends_times_out_here_only),
        CASE(what_cannot_be_resumed_is_told_apart),
        CASE(without_redis_a_caller_is_to_try_again),
        CASE(a_log_that_cannot_be_read_is_waited_for_a_while),
        CASE(many_callers_of_one_query_see_the_same),
        CASE(callers_who_come_while_events_do_miss_none),
        CASE(a_slow_reader_of_a_long_answer_gets_all_of_it),
        CASE(draining_waits_for_callers_who_came_back),
        {NULL, NULL},
    };
    return run_tests(cases, argc, argv);
}
