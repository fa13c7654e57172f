/*
 * Queries through the gateway, with a pipeline that the test plays: what the caller sees of each
 * log of events, what happens when the caller leaves, and how a query ends that nobody ends.
 */
#include "tests/support/gateway_fixture.h"
#include "tests/support/soon.h"

#include <signal.h>

static struct peer peer;

static void begin(const char *const *environment)
{
    gateway_start(environment);
    peer_open(&peer, gateway.port);
}

static void finish(void)
{
    peer_close(&peer);
    gateway_stop(0);
}

static void ask(struct peer *by, const char *fields)
{
    char body[512];
    snprintf(body, sizeof(body), "{\"query\":\"what?\"%s%s}", fields[0] != '\0' ? "," : "", fields);
    gateway_post(by, "/v1/query", "Accept: text/event-stream\r\n", body);
}

/* How often text is in what the peer got. */
/* A marker that comes after all that was emitted before it, on the same partition. */
static void catch_up(void)
{
    struct peer marker;
    size_t n = gateway.asked_count + 1;
    peer_open(&marker, gateway.port);
    ask(&marker, "");
    emit_done(gateway_asked(n), 1, 0, 20);
    GATEWAY_WAIT(peer_has(&marker, "[DONE]"));
    peer_close(&marker);
}

static void again(void)
{
    sl_buf_clear(&peer.in);
}

/* --- streams --- */

TEST(a_stream_is_what_the_workers_sent_in_order)
{
    begin(NULL);
    gateway_post(&peer, "/v1/query",
                 "accept: text/html, text/event-stream;q=0.9\r\nX-Request-Id: mine-1\r\n"
                 "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n",
                 "{\"query\":\"what?\",\"top_n\":3,\"history\":[{\"role\":\"user\",\"content\":"
                 "\"before\"}],\"timeout_ms\":30000,\"filter\":{\"a\":\"b\"}}");
    struct asked *asked = gateway_asked(1);
    CHECK(sl_span_is(asked->query.query, "what?") && asked->query.top_n == 3);
    CHECK_INT(asked->query.history_len, 1);
    CHECK_INT(asked->query.filter_len, 1);
    CHECK(sl_span_is(asked->query.tenant, "default"));
    CHECK(sl_span_begins(asked->query.traceparent, "00-0af7"));
    CHECK(asked->query.deadline_ms > sl_clock_unix_ms() &&
          asked->query.deadline_ms < sl_clock_unix_ms() + 31000);
    GATEWAY_WAIT(peer_has(&peer, "\r\n\r\n"));
    CHECK(peer_has(&peer, "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"));
    CHECK(peer_has(&peer, "x-request-id: mine-1\r\n"));
    CHECK(peer_has(&peer, asked->id));
    emit_sources(asked, 10);
    emit_delta(asked, 1, 0, 20, "one\n");
    emit_delta(asked, 1, 1, 20, "two");
    emit_done(asked, 1, 2, 20);
    GATEWAY_WAIT(peer_has(&peer, "data: [DONE]\n\n"));
    CHECK(peer_has(&peer, "id: 0:0\nevent: sources\ndata: {"));
    CHECK(peer_has(&peer, "\"doc_id\":\"guide.md\",\"chunk_id\":\"guide.md_3\",\"chunk_index\":3,"
                          "\"text\":\"a passage\",\"score\":0.5,\"metadata\":{\"lang\":\"en\"}"));
    CHECK(peer_has(&peer, "id: 1:0\nevent: delta\ndata: {"));
    CHECK(peer_has(&peer, "\"text\":\"one\\n\""));
    CHECK(peer_has(&peer, "id: 1:2\nevent: done\ndata: {"));
    CHECK(peer_has(&peer, "\"outcome\":\"done\""));
    CHECK_INT(peer_count(&peer, "fence"), 0);
    /* The connection serves the next request. */
    again();
    ask(&peer, "");
    emit_error(gateway_asked(2), 0, 0, 5, SL_QERR_RETRIEVAL_FAILED, "no search");
    GATEWAY_WAIT(peer_has(&peer, "data: [DONE]\n\n"));
    CHECK(peer_has(&peer, "\"error\":{\"code\":\"retrieval_failed\",\"message\":\"no search\","
                          "\"stage\":\"generate\"}"));
    finish();
}

TEST(doubles_latecomers_and_foreign_records_are_not_seen)
{
    begin(NULL);
    ask(&peer, "");
    struct asked *asked = gateway_asked(1);
    struct asked foreign = *asked;
    foreign.query.id = SL_SPAN("some-other-query");
    emit_sources(asked, 10);
    emit_sources(asked, 11);
    emit_delta(&foreign, 1, 0, 20, "foreign");
    emit_delta(asked, 1, 0, 20, "one");
    emit_delta(asked, 1, 0, 20, "one");
    emit_delta(asked, 1, 1, 19, "stale");
    emit_done(asked, 1, 1, 20);
    emit_error(asked, 1, 2, 20, SL_QERR_INTERNAL, "behind");
    GATEWAY_WAIT(peer_has(&peer, "[DONE]"));
    catch_up();
    peer_read(&peer);
    CHECK_INT(peer_count(&peer, "event: sources"), 1);
    CHECK_INT(peer_count(&peer, "event: delta"), 1);
    CHECK_INT(
        peer_count(&peer, "stale") + peer_count(&peer, "foreign") + peer_count(&peer, "behind"), 0);
    CHECK_INT(peer_count(&peer, "[DONE]"), 1);
    finish();
}

TEST(sources_that_tokens_have_overtaken_come_first)
{
    begin(NULL);
    ask(&peer, "");
    struct asked *asked = gateway_asked(1);
    emit_delta(asked, 1, 0, 20, "one");
    emit_delta(asked, 1, 1, 20, "two");
    emit_sources(asked, 10);
    emit_done(asked, 1, 2, 20);
    GATEWAY_WAIT(peer_has(&peer, "[DONE]"));
    sl_buf_append(&peer.in, "", 1);
    const char *sources = strstr(peer.in.data, "id: 0:0"), *one = strstr(peer.in.data, "id: 1:0");
    const char *two = strstr(peer.in.data, "id: 1:1"), *done = strstr(peer.in.data, "id: 1:2");
    CHECK(sources != NULL && sources < one && one < two && two < done);
    finish();
}

TEST(an_answer_whose_sources_do_not_come_is_given_without_them)
{
    begin(NULL);
    ask(&peer, "");
    struct asked *asked = gateway_asked(1);
    emit_delta(asked, 1, 0, 20, "one");
    GATEWAY_WAIT(peer_has(&peer, "id: 1:0"));
    emit_done(asked, 1, 1, 20);
    GATEWAY_WAIT(peer_has(&peer, "[DONE]"));
    CHECK(peer_has(&peer, "\"outcome\":\"done\""));
    finish();
}

TEST(a_hole_in_the_answer_is_an_error_and_the_query_is_cancelled)
{
    begin(NULL);
    ask(&peer, "");
    struct asked *asked = gateway_asked(1);
    emit_delta(asked, 1, 0, 20, "one");
    emit_delta(asked, 1, 2, 20, "three");
    GATEWAY_WAIT(peer_has(&peer, "[DONE]"));
    CHECK(peer_has(&peer, "\"code\":\"worker_lost\""));
    CHECK_INT(peer_count(&peer, "three"), 0);
    GATEWAY_WAIT(gateway_cancelled(asked));
    finish();
}

TEST(a_new_owner_begins_again_only_with_a_restart)
{
    begin(NULL);
    ask(&peer, "\"on_worker_lost\":\"restart\"");
    struct asked *asked = gateway_asked(1);
    emit_delta(asked, 1, 0, 20, "one");
    emit_restart(asked, 2, 0, 30);
    emit_delta(asked, 2, 1, 30, "two");
    emit_done(asked, 2, 2, 30);
    GATEWAY_WAIT(peer_has(&peer, "[DONE]"));
    CHECK(peer_has(&peer, "id: 2:0\nevent: restart\n"));
    CHECK(peer_has(&peer, "event: done"));
    again();
    ask(&peer, "");
    asked = gateway_asked(2);
    emit_delta(asked, 1, 0, 20, "one");
    emit_delta(asked, 2, 0, 30, "two");
    GATEWAY_WAIT(peer_has(&peer, "[DONE]"));
    CHECK(peer_has(&peer, "\"code\":\"worker_lost\""));
    finish();
}

/* --- whole answers --- */

TEST(the_result_has_the_text_and_the_sources_of_its_events)
{
    begin(NULL);
    gateway_post(&peer, "/v1/query", "", "{\"query\":\"what?\"}");
    struct asked *asked = gateway_asked(1);
    emit_sources(asked, 10);
    emit_delta(asked, 1, 0, 20, "thrown away");
    emit_restart(asked, 2, 0, 30);
    emit_delta(asked, 2, 1, 30, "one ");
    emit_delta(asked, 2, 2, 30, "two");
    emit_done(asked, 2, 3, 30);
    GATEWAY_WAIT(peer_has(&peer, "\"total_ms\""));
    CHECK(peer_has(&peer, "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"));
    CHECK(peer_has(&peer, "\"outcome\":\"done\",\"query\":\"what?\",\"answer\":\"one two\""));
    CHECK(peer_has(&peer, "\"text\":\"a passage\""));
    CHECK(peer_has(&peer, "\"total_tokens\":18"));
    CHECK(peer_has(&peer, "\"error\":null"));
    finish();
}

TEST(each_failure_has_its_status)
{
    static const struct {
        enum sl_query_error code;
        const char *status, *member;
    } rows[] = {
        {SL_QERR_BAD_REQUEST, "400", "\"code\":\"bad_request\""},
        {SL_QERR_TIMEOUT, "504", "\"code\":\"timeout\""},
        {SL_QERR_CANCELLED, "409", "\"code\":\"cancelled\""},
        {SL_QERR_WORKER_LOST, "502", "\"code\":\"worker_lost\""},
        {SL_QERR_UPSTREAM_ERROR, "502", "\"code\":\"upstream_error\""},
        {SL_QERR_RETRIEVAL_FAILED, "502", "\"code\":\"retrieval_failed\""},
        {SL_QERR_OVERLOADED, "503", "\"code\":\"overloaded\""},
        {SL_QERR_INTERNAL, "500", "\"code\":\"internal\""},
    };
    begin(NULL);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char head[32];
        gateway_post(&peer, i % 2 == 0 ? "/v1/query" : "/v1/chat/completions", "",
                     i % 2 == 0 ? "{\"query\":\"what?\"}"
                                : "{\"model\":\"model-b\",\"messages\":[{\"role\":\"user\","
                                  "\"content\":\"what?\"}]}");
        struct asked *asked = gateway_asked(i + 1);
        emit_error(asked, 1, 0, 20, rows[i].code, "it broke");
        snprintf(head, sizeof(head), "HTTP/1.1 %s ", rows[i].status);
        GATEWAY_WAIT(peer_has(&peer, "it broke"));
        CHECK(peer_has(&peer, head));
        CHECK(peer_has(&peer, rows[i].member));
        CHECK(peer_has(&peer, "\"message\":\"generate: it broke\""));
        CHECK(peer_has(&peer, asked->id));
        /* It was paid for: no client may repeat it by itself. */
        CHECK(peer_has(&peer, "x-should-retry: false\r\n"));
        again();
    }
    finish();
}

TEST(a_search_ends_with_its_sources)
{
    begin(NULL);
    gateway_post(&peer, "/v1/search", "", "{\"query\":\"what?\"}");
    struct asked *asked = gateway_asked(1);
    CHECK_INT(asked->query.mode, SL_MODE_SEARCH);
    emit_sources(asked, 10);
    emit_done(asked, 0, 1, 10);
    GATEWAY_WAIT(peer_has(&peer, "\"total_ms\""));
    CHECK(peer_has(&peer, "\"text\":\"a passage\"") && peer_has(&peer, "\"answer\":\"\""));
    finish();
}

/* --- chat --- */

static void chat(const char *more)
{
    char body[512];
    snprintf(body, sizeof(body),
             "{\"model\":\"sluice\",\"messages\":[{\"role\":\"user\",\"content\":\"what?\"}]%s}",
             more);
    gateway_post(&peer, "/v1/chat/completions", "", body);
}

TEST(a_chat_stream_begins_with_citations_and_ends_with_usage)
{
    begin(NULL);
    chat(",\"stream\":true,\"stream_options\":{\"include_usage\":true},\"seed\":7");
    struct asked *asked = gateway_asked(1);
    CHECK(sl_span_is(asked->query.extra, "{\"seed\":7}"));
    CHECK_INT(asked->query.model.len, 0); /* The alias. */
    emit_sources(asked, 10);
    GATEWAY_WAIT(peer_has(&peer, "\"citations\":[{\"n\":1,\"doc_id\":\"guide.md\""));
    CHECK(peer_has(&peer, "data: {\"id\":\"chatcmpl-"));
    emit_delta(asked, 1, 0, 20, "one");
    emit_done(asked, 1, 1, 20);
    GATEWAY_WAIT(peer_has(&peer, "data: [DONE]\n\n"));
    CHECK(peer_has(&peer, "\"delta\":{\"content\":\"one\"}"));
    CHECK(peer_has(&peer, "\"delta\":{},\"logprobs\":null,\"finish_reason\":\"stop\""));
    CHECK(peer_has(&peer, "\"choices\":[],\"usage\":{\"prompt_tokens\":11"));
    CHECK_INT(peer_count(&peer, "event:") + peer_count(&peer, "\nid:"), 0);
    CHECK_INT(peer_count(&peer, "citations"), 1);
    again();
    chat(",\"stream\":true");
    asked = gateway_asked(2);
    emit_delta(asked, 1, 0, 20, "one");
    emit_error(asked, 1, 1, 20, SL_QERR_UPSTREAM_ERROR, "it broke");
    GATEWAY_WAIT(peer_has(&peer, "data: [DONE]\n\n"));
    CHECK(peer_has(&peer, "\"citations\":[]")); /* Always there. */
    CHECK(peer_has(&peer, "data: {\"error\":{\"message\":\"it broke\",\"type\":\"server_error\","
                          "\"param\":null,\"code\":\"upstream_error\"}}\n\n"));
    CHECK_INT(peer_count(&peer, "\"finish_reason\":\"stop\""), 0);
    finish();
}

TEST(a_chat_answer_is_one_object)
{
    begin(NULL);
    chat("");
    struct asked *asked = gateway_asked(1);
    emit_sources(asked, 10);
    emit_delta(asked, 1, 0, 20, "one ");
    emit_delta(asked, 1, 1, 20, "two");
    emit_done(asked, 1, 2, 20);
    GATEWAY_WAIT(peer_has(&peer, "\"citations\":[{\"n\":1,"));
    CHECK(peer_has(&peer, "\"object\":\"chat.completion\""));
    CHECK(peer_has(&peer, "\"model\":\"sluice\""));
    CHECK(peer_has(&peer, "\"message\":{\"role\":\"assistant\",\"content\":\"one two\","
                          "\"refusal\":null}"));
    finish();
}

/* --- callers who leave --- */

TEST(a_caller_that_leaves_cancels_as_it_asked)
{
    static const struct {
        const char *fields;
        bool cancels;
    } rows[] = {{"", true},
                {"\"on_disconnect\":\"cancel\"", true},
                {"\"on_disconnect\":\"grace:1\"", true},
                {"\"on_disconnect\":\"continue\"", false}};
    begin(NULL);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        size_t n = gateway.asked_count + 1;
        struct peer leaver;
        peer_open(&leaver, gateway.port);
        ask(&leaver, rows[i].fields);
        struct asked *asked = gateway_asked(n);
        emit_delta(asked, 1, 0, 20, "one");
        GATEWAY_WAIT(peer_has(&leaver, "one"));
        peer_close(&leaver);
        if (rows[i].cancels) {
            GATEWAY_WAIT(gateway_cancelled(asked));
        } else {
            catch_up();
            CHECK_STR(gateway_redis_field(asked->id, ".cancelled"), "");
        }
        emit_done(asked, 1, 1, 20);
    }
    GATEWAY_WAIT(gateway_logged("client=left"));
    finish();
}

TEST(a_caller_of_a_whole_answer_may_leave_too)
{
    struct peer leaver;
    begin(NULL);
    peer_open(&leaver, gateway.port);
    gateway_post(&leaver, "/v1/query", "", "{\"query\":\"what?\"}");
    struct asked *asked = gateway_asked(1);
    shutdown(leaver.fd, SHUT_WR); /* A half-close counts. */
    GATEWAY_WAIT(gateway_cancelled(asked));
    emit_error(asked, 0, 0, 5, SL_QERR_CANCELLED, "cancelled");
    peer_close(&leaver);
    finish();
}

TEST(a_caller_that_does_not_read_counts_as_gone)
{
    enum { TEXT = 100000, TEXTS = 120 }; /* More than the kernel keeps for a socket. */
    char *text = malloc(TEXT + 1);
    CHECK(text != NULL);
    memset(text, 'x', TEXT);
    text[TEXT] = '\0';
    begin(NULL);
    ask(&peer, "");
    struct asked *asked = gateway_asked(1);
    for (uint32_t i = 0; i < TEXTS; i++) {
        emit_delta(asked, 1, i, 20, text);
    }
    GATEWAY_WAIT(gateway_cancelled(asked));
    emit_error(asked, 1, TEXTS, 20, SL_QERR_CANCELLED, "cancelled");
    GATEWAY_WAIT(gateway_logged("client=left"));
    free(text);
    finish();
}

TEST(a_silent_stream_is_kept_alive)
{
    begin(NULL);
    ask(&peer, "");
    struct asked *asked = gateway_asked(1);
    GATEWAY_WAIT(peer_has(&peer, "\r\n\r\n"));
    SOON(gateway.loop, peer_has(&peer, ": keep-alive\n\n")); /* After 15 s. */
    emit_done(asked, 1, 0, 20);
    GATEWAY_WAIT(peer_has(&peer, "[DONE]"));
    CHECK_INT(peer_count(&peer, "keep-alive"), 1);
    finish();
}

TEST(a_delete_cancels_any_query)
{
    begin(NULL);
    peer_send_text(&peer, "DELETE /v1/queries/of.another-gateway HTTP/1.1\r\nHost: a\r\n\r\n");
    GATEWAY_WAIT(peer_has(&peer, "{\"id\":\"of.another-gateway\",\"state\":\"cancelling\"}"));
    CHECK(peer_has(&peer, "HTTP/1.1 202 "));
    CHECK(peer_has(&peer, "sluice-id: of.another-gateway\r\n"));
    CHECK(gateway_redis_field("of.another-gateway", ".cancelled")[0] != '\0');
    finish();
}

/* --- the gateway's own endings --- */

TEST(a_query_that_nobody_ends_is_ended_after_its_deadline)
{
    begin(NULL);
    ask(&peer, "\"timeout_ms\":500");
    struct asked *asked = gateway_asked(1);
    emit_delta(asked, 1, 0, 20, "one");
    GATEWAY_WAIT(peer_has(&peer, "[DONE]"));
    CHECK(peer_has(&peer, "event: error\n"));
    CHECK(peer_has(&peer, "\"outcome\":\"expired\""));
    CHECK(peer_has(&peer, "\"error\":{\"code\":\"timeout\""));
    /* Stored, produced and acknowledged, once for all. */
    GATEWAY_WAIT(gateway.results == 1);
    GATEWAY_WAIT(gateway_redis_field(asked->id, ".end_acked")[0] != '\0');
    CHECK_STR(gateway_redis_field(asked->id, ".outcome"), "expired");
    CHECK(strncmp(gateway_redis_field(asked->id, ".end_acked"), "0 ", 2) == 0); /* Partition 0. */
    again();
    gateway_post(&peer, "/v1/query", "", "{\"query\":\"what?\",\"timeout_ms\":300}");
    gateway_asked(2);
    GATEWAY_WAIT(peer_has(&peer, "\"code\":\"timeout\""));
    CHECK(peer_has(&peer, "HTTP/1.1 504 "));
    finish();
}

TEST(an_ending_that_was_a_little_faster_is_what_the_caller_gets)
{
    begin(NULL);
    ask(&peer, "\"timeout_ms\":300");
    struct asked *asked = gateway_asked(1);
    emit_delta(asked, 1, 0, 20, "one");
    gateway_redis_set(asked->id, ".end_owner", "a worker's");
    GATEWAY_WAIT(gateway_logged("another ending was first"));
    CHECK(!peer_has(&peer, "event: error\n"));
    emit_done(asked, 1, 1, 20);
    GATEWAY_WAIT(peer_has(&peer, "[DONE]"));
    CHECK(peer_has(&peer, "event: done\n"));
    CHECK(!peer_has(&peer, "event: error\n"));
    again();
    ask(&peer, "\"timeout_ms\":300"); /* And one that does not come. */
    gateway_redis_set(gateway_asked(2)->id, ".end_owner", "a worker's");
    GATEWAY_WAIT(peer_has(&peer, "[DONE]"));
    CHECK(peer_has(&peer, "\"code\":\"timeout\""));
    finish();
}

TEST(without_redis_the_caller_still_gets_its_error)
{
    begin(NULL);
    ask(&peer, "\"timeout_ms\":500");
    gateway_asked(1);
    redis_fixture_pause(gateway.redis);
    GATEWAY_WAIT(peer_has(&peer, "[DONE]"));
    CHECK(peer_has(&peer, "\"code\":\"timeout\""));
    redis_fixture_resume(gateway.redis);
    GATEWAY_WAIT(gateway.results == 1);
    finish();
}

/* --- limits and the end --- */

TEST(beyond_its_limit_the_gateway_takes_no_query)
{
    const char *const one[] = {"SLUICE_MAX_INFLIGHT=1", NULL};
    struct peer other;
    begin(one);
    peer_open(&other, gateway.port);
    ask(&peer, "");
    struct asked *asked = gateway_asked(1);
    ask(&other, "");
    GATEWAY_WAIT(peer_has(&other, "\"code\":\"overloaded\""));
    CHECK(peer_has(&other, "HTTP/1.1 503 ") && peer_has(&other, "retry-after: 1\r\n"));
    emit_done(asked, 1, 0, 20);
    GATEWAY_WAIT(peer_has(&peer, "[DONE]"));
    sl_buf_clear(&other.in);
    ask(&other, "");
    emit_done(gateway_asked(2), 1, 0, 20);
    GATEWAY_WAIT(peer_has(&other, "[DONE]"));
    peer_close(&other);
    finish();
}

TEST(draining_lets_open_streams_finish)
{
    struct peer late;
    begin(NULL);
    ask(&peer, "");
    struct asked *asked = gateway_asked(1);
    emit_delta(asked, 1, 0, 20, "one");
    GATEWAY_WAIT(peer_has(&peer, "one"));
    gateway_signal(SIGTERM);
    peer_open(&late, gateway.admin_port);
    GATEWAY_WAIT(gateway_logged("draining"));
    peer_send_text(&late, "GET /readyz HTTP/1.1\r\nHost: a\r\n\r\n");
    GATEWAY_WAIT(peer_has(&late, "draining"));
    CHECK(peer_has(&late, "HTTP/1.1 503 "));
    CHECK(!gateway_ended());
    emit_delta(asked, 1, 1, 20, "two");
    emit_done(asked, 1, 2, 20);
    GATEWAY_WAIT(peer_has(&peer, "data: [DONE]\n\n"));
    CHECK(peer_has(&peer, "\"text\":\"two\""));
    GATEWAY_WAIT(gateway_ended());
    peer_close(&late);
    finish();
}

TEST(a_drain_that_takes_too_long_cancels_what_is_left)
{
    const char *const fast[] = {"SLUICE_DRAIN_TIMEOUT=3s", NULL};
    begin(fast);
    ask(&peer, "");
    struct asked *asked = gateway_asked(1);
    gateway_signal(SIGTERM);
    GATEWAY_WAIT(gateway_ended());
    CHECK(peer_ended(&peer));
    CHECK(gateway_cancelled(asked));
    peer_close(&peer);
    gateway_stop(1);
}

int main(int argc, char **argv)
{
#define CASE(name)                                                                                 \
    {                                                                                              \
#name, name                                                                                \
    }
    static const struct test_case cases[] = {
        CASE(a_stream_is_what_the_workers_sent_in_order),
        CASE(doubles_latecomers_and_foreign_records_are_not_seen),
        CASE(sources_that_tokens_have_overtaken_come_first),
        CASE(an_answer_whose_sources_do_not_come_is_given_without_them),
        CASE(a_hole_in_the_answer_is_an_error_and_the_query_is_cancelled),
        CASE(a_new_owner_begins_again_only_with_a_restart),
        CASE(the_result_has_the_text_and_the_sources_of_its_events),
        CASE(each_failure_has_its_status),
        CASE(a_search_ends_with_its_sources),
        CASE(a_chat_stream_begins_with_citations_and_ends_with_usage),
        CASE(a_chat_answer_is_one_object),
        CASE(a_caller_that_leaves_cancels_as_it_asked),
        CASE(a_caller_of_a_whole_answer_may_leave_too),
        CASE(a_caller_that_does_not_read_counts_as_gone),
        CASE(a_silent_stream_is_kept_alive),
        CASE(a_delete_cancels_any_query),
        CASE(a_query_that_nobody_ends_is_ended_after_its_deadline),
        CASE(an_ending_that_was_a_little_faster_is_what_the_caller_gets),
        CASE(without_redis_the_caller_still_gets_its_error),
        CASE(beyond_its_limit_the_gateway_takes_no_query),
        CASE(draining_lets_open_streams_finish),
        CASE(a_drain_that_takes_too_long_cancels_what_is_left),
        {NULL, NULL},
    };
    return run_tests(cases, argc, argv);
}
