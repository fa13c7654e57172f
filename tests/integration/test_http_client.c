/* The HTTP client's requests and responses: whole, cut, too large, refused, streamed, paused. */
#include "tests/integration/http_calls.h"

enum { MANY = 100 };

/* --- whole responses --- */

static char seen_request[4096];

static void serve_and_remember(struct http_script_conn *conn)
{
    CHECK(http_script_read(conn));
    snprintf(seen_request, sizeof(seen_request), "%.4000s", conn->request);
    http_script_send(conn, OK_HELLO);
}

TEST(sends_the_request_and_nothing_that_was_not_asked_for)
{
    static const struct sl_http_header headers[] = {
        {{"x-key", 5}, {"secret", 6}},
        {{"x-empty", 7}, {NULL, 0}},
    };
    struct result r = {0};
    setenv("http_proxy", "http://127.0.0.1:1/", 1);
    up(serve_and_remember);
    struct sl_http_request request = request_for("POST", &r);
    request.headers = headers;
    request.header_count = 2;
    request.body = SL_SPAN("{\"a\": 1}");
    run(&request);
    unsetenv("http_proxy");
    CHECK_INT(r.err, 0);
    CHECK_INT(r.status, 200);
    CHECK_STR(r.body, "hello");
    CHECK_STR(r.type, "text/plain");
    CHECK_STR(r.detail, "");
    CHECK_INT(r.heads, 1);
    CHECK_INT(r.retry_after_ms, -1);
    CHECK(r.connected);
    CHECK(strstr(seen_request, "POST /v1/x HTTP/1.1\r\n") == seen_request);
    CHECK(strstr(seen_request, "\r\nUser-Agent: sluice/" SLUICE_VERSION "\r\n") != NULL);
    CHECK(strstr(seen_request, "\r\nx-key: secret\r\nx-empty:\r\n") != NULL);
    CHECK(strstr(seen_request, "\r\nContent-Length: 8\r\n") != NULL);
    CHECK(strstr(seen_request, "\r\n\r\n{\"a\": 1}") != NULL);
    CHECK(strcasestr(seen_request, "expect:") == NULL);
    CHECK(strcasestr(seen_request, "content-type:") == NULL);
    down();
}

/* Answers with the method and how long the body was. */
static void serve_body_length(struct http_script_conn *conn)
{
    char text[64], head[128];
    while (http_script_read(conn)) {
        CHECK(strcasestr(conn->request, "expect:") == NULL);
        int len = snprintf(text, sizeof(text), "%.3s %zu", conn->request, conn->body_len);
        snprintf(head, sizeof(head), OK_HEAD "Content-Length: %d\r\n\r\n", len);
        http_script_send(conn, head);
        if (strncmp(conn->request, "HEAD", 4) != 0) {
            http_script_send(conn, text);
        }
    }
}

TEST(any_method_with_and_without_a_large_body)
{
    static const char *const methods[] = {"GET", "PUT", "DELETE", "POST", "HEAD"};
    size_t large = 3 << 20;
    char *zeros = calloc(1, large);
    CHECK(zeros != NULL);
    up(serve_body_length);
    for (size_t i = 0; i < 9; i++) {
        const char *method = methods[i / 2];
        size_t len = i % 2 == 1 ? large : 0;
        struct result r = {0};
        char want[64];
        struct sl_http_request request = request_for(method, &r);
        request.body = (struct sl_span){zeros, len};
        run(&request);
        snprintf(want, sizeof(want), "%.3s %zu", method, len);
        CHECK_INT(r.err, 0);
        CHECK_STR(r.body, strcmp(method, "HEAD") == 0 ? "" : want);
    }
    CHECK_INT(http_script_accepted(script), 1);
    down();
    free(zeros);
}

TEST(headers_come_before_the_head)
{
    static const struct {
        const char *reply, *note;
    } cases[] = {
        {"HTTP/1.1 200 OK\r\nX-NOTE: \t one two \t\r\nContent-Length: 0\r\n\r\n", "one two"},
        {"HTTP/1.1 200 OK\r\nx-note:\r\nContent-Length: 0\r\n\r\n", ""},
        {"HTTP/1.1 200 OK\r\nx-note:a:b\r\nContent-Length: 0\r\n\r\n", "a:b"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct result r = {.note = "none"};
        reply = cases[i].reply;
        up(serve_reply_and_close);
        struct sl_http_request request = request_for("POST", &r);
        request.callbacks = &streaming;
        run(&request);
        CHECK_INT(r.err, 0);
        CHECK_STR(r.note, cases[i].note);
        down();
    }
}

TEST(responses_whole_cut_and_broken)
{
    static const struct {
        const char *reply;
        int err, status;
        long retry_after_ms;
        const char *body;
    } cases[] = {
        {CHUNKED "3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", 0, 200, -1, "abcde"},
        {CHUNKED "1\r\na\r\n0\r\nRetry-After: 3\r\n\r\n", 0, 200, -1, "a"},
        {"HTTP/1.1 103 Early\r\nRetry-After: 9\r\n\r\n" OK_HELLO, 0, 200, -1, "hello"},
        {"HTTP/1.0 200 OK\r\n\r\nuntil the close", 0, 200, -1, "until the close"},
        {"HTTP/1.1 204 No Content\r\n\r\n", 0, 204, -1, ""},
        {"HTTP/1.1 302 Found\r\nLocation: /y\r\nContent-Length: 0\r\n\r\n", 0, 302, -1, ""},
        {"HTTP/1.1 503 Busy\r\nretry-after: 2\r\nContent-Length: 2\r\n\r\nno", 0, 503, 2000, "no"},
        {"HTTP/1.1 429 Slow\r\nRetry-After: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
         "Content-Length: 0\r\n\r\n",
         0, 429, 0, ""},
        {OK_HEAD "Content-Length: 10\r\n\r\nhello", -SL_ECUT, 200, -1, ""},
        {OK_HEAD "Content-Length: 10\r\n\r\n", -SL_ECUT, 200, -1, ""},
        {CHUNKED "3\r\nabc\r\n", -SL_ECUT, 200, -1, ""},
        {CHUNKED "5\r\nab", -SL_ECUT, 200, -1, ""},
        {CHUNKED "zz\r\n", -SL_ECUT, 200, -1, ""},
        {"", -SL_ECONN, 0, -1, ""},
        {"HTTP/1.1 20", -SL_ECONN, 0, -1, ""},
        {OK_HEAD, -SL_ECONN, 0, -1, ""},
        {"SSH-2.0-OpenSSH\r\n", -SL_EPROTO, 0, -1, ""},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct result r = {0};
        reply = cases[i].reply;
        up(serve_reply_and_close);
        struct sl_http_request request = request_for("POST", &r);
        run(&request);
        if (r.err != cases[i].err) {
            fprintf(stderr, "case %zu: %d %s\n", i, r.err, r.detail);
        }
        CHECK_INT(r.err, cases[i].err);
        CHECK_INT(r.status, cases[i].status);
        CHECK_INT(r.retry_after_ms, cases[i].retry_after_ms);
        CHECK_STR(r.body, cases[i].body);
        CHECK(r.connected);
        CHECK_INT(http_script_requests(script), 1);
        CHECK((r.detail[0] == '\0') == (r.err == 0));
        down();
    }
}

static void serve_reset(struct http_script_conn *conn)
{
    CHECK(http_script_read(conn));
    http_script_send(conn, CHUNKED "3\r\nabc\r\n");
    await(&may_send, 1);
    http_script_reset(conn);
}

TEST(a_body_that_is_reset_is_cut)
{
    struct result r = {0};
    atomic_store(&may_send, 0);
    up(serve_reset);
    stream(&r);
    RUN_UNTIL(r.pieces == 1);
    atomic_store(&may_send, 1);
    RUN_UNTIL(r.ended);
    CHECK_INT(r.err, -SL_ECUT);
    CHECK_STR(r.body, "abc");
    down();
}

/* --- limits and refusals --- */

TEST(a_collected_body_has_a_limit)
{
    static const char *const replies[] = {OK_HELLO, CHUNKED "5\r\nhello\r\n0\r\n\r\n"};
    for (size_t i = 0; i < 4; i++) {
        struct result r = {0};
        reply = replies[i / 2];
        up(serve_reply_and_close);
        struct sl_http_request request = request_for("GET", &r);
        request.max_body = i % 2 == 0 ? 4 : 5;
        run(&request);
        CHECK_INT(r.err, i % 2 == 0 ? -SL_ETOOBIG : 0);
        CHECK_INT(r.status, 200);
        down();
    }
}

static void serve_endless_head(struct http_script_conn *conn)
{
    CHECK(http_script_read(conn));
    http_script_send(conn, "HTTP/1.1 200 OK\r\n");
    for (int i = 0; i < 10000; i++) {
        http_script_send(conn, "X-Filler: 0123456789012345678901234567890123456789\r\n");
    }
}

TEST(a_head_has_a_limit)
{
    struct result r = {0};
    up(serve_endless_head);
    struct sl_http_request request = request_for("GET", &r);
    run(&request);
    CHECK_INT(r.err, -SL_EPROTO);
    CHECK_INT(r.status, 0);
    down();
}

TEST(refuses_a_request_that_cannot_be_sent)
{
    struct sl_http_header bad_value = {{"x", 1}, {"a\r\nb: c", 7}};
    struct sl_http_header bad_name = {{"x y", 3}, {"a", 1}};
    struct result r = {0};
    up(serve_hello);
    struct sl_http_request good = request_for("GET", &r);
    for (int i = 0; i < 5; i++) {
        struct sl_http_request request = good;
        struct sl_http_call *call = NULL;
        request.url = i == 0 ? "file:///etc/passwd" : i == 1 ? "http://a b/" : good.url;
        request.method = i == 2 ? "GET / HTTP/1.1\r\nX:" : good.method;
        request.headers = i == 3 ? &bad_value : &bad_name;
        request.header_count = i >= 3 ? 1 : 0;
        CHECK_INT(sl_http_start(client, &request, &call), -SL_EINVAL);
        CHECK(call == NULL);
    }
    down();
    CHECK_INT(r.ended, 0);
}

TEST(a_refused_connection_never_reached_the_peer)
{
    struct result r = {0};
    int fd;
    up(serve_hello);
    struct sl_http_request request = request_for("POST", &r);
    snprintf(url, sizeof(url), "http://me:secret@127.0.0.1:%d/?key=secret", bound_port(-1, &fd));
    run(&request);
    CHECK_INT(r.err, -SL_ECONN);
    CHECK(!r.connected);
    CHECK_INT(r.heads, 0);
    CHECK(strstr(r.detail, "127.0.0.1:") != NULL && strstr(r.detail, "secret") == NULL);
    close(fd);

    down();
}

static void serve_before_asked(struct http_script_conn *conn)
{
    http_script_send(conn, OK_HELLO);
    http_script_await_close(conn);
}

TEST(a_server_without_tls_gets_no_request)
{
    struct result r = {0};
    up(serve_before_asked);
    struct sl_http_request request = request_for("POST", &r);
    snprintf(url, sizeof(url), "https://127.0.0.1:%d/", http_script_port(script));
    run(&request);
    CHECK_INT(r.err, -SL_ECONN);
    CHECK(!r.connected);
    RUN_UNTIL(http_script_peer_closed(script) == 1);
    down();
}

/* --- streaming --- */

TEST(pieces_come_as_they_are_sent)
{
    struct result r = {0};
    atomic_store(&may_send, 0);
    up(serve_pieces);
    stream(&r);
    RUN_UNTIL(r.heads == 1);
    CHECK_INT(r.status, 200);
    for (int i = 1; i <= 5; i++) {
        atomic_store(&may_send, i);
        RUN_UNTIL(r.pieces == i);
    }
    RUN_UNTIL(r.ended);
    CHECK_INT(r.err, 0);
    CHECK_STR(r.body, "p1p2p3p4p5");
    down();
}

TEST(a_hundred_streams_at_once_and_their_connections_reused)
{
    static struct result r[MANY];
    up(serve_pieces);
    for (int round = 1; round <= 2; round++) {
        memset(r, 0, sizeof(r));
        atomic_store(&may_send, 0);
        for (int i = 0; i < MANY; i++) {
            stream(&r[i]);
        }
        CHECK_INT(sl_http_client_in_flight(client), MANY);
        RUN_UNTIL(http_script_requests(script) == MANY * round);
        atomic_store(&may_send, 5);
        for (int i = 0; i < MANY; i++) {
            RUN_UNTIL(r[i].ended);
            CHECK_INT(r[i].err, 0);
            CHECK_STR(r[i].body, "p1p2p3p4p5");
        }
    }
    CHECK_INT(http_script_accepted(script), MANY);
    down();
}

static void relax_call(struct result *r)
{
    sl_http_relax(r->call);
}

/* Read late, in any order with pauses, by a connection that serves others before and after. */
TEST(relaxed_streams_bring_all_their_pieces)
{
    struct result *r = calloc(MANY, sizeof(*r));
    CHECK(r != NULL);
    up(serve_pieces);
    for (int round = 1; round <= 2; round++) {
        memset(r, 0, MANY * sizeof(*r));
        atomic_store(&may_send, 0);
        for (int i = 0; i < MANY; i++) {
            r[i].in_data = i % 2 == 0 ? relax_call : NULL;
            stream(&r[i]);
        }
        RUN_UNTIL(http_script_requests(script) == MANY * round);
        atomic_store(&may_send, 1);
        for (int i = 0; i < MANY; i++) {
            RUN_UNTIL(r[i].pieces == 1);
        }
        sl_http_pause(r[0].call, true);
        atomic_store(&may_send, 3);
        for (int i = 1; i < MANY; i++) {
            RUN_UNTIL(strncmp(r[i].body, "p1p2p3", 6) == 0);
        }
        CHECK_STR(r[0].body, "p1");
        sl_http_pause(r[0].call, false);
        RUN_UNTIL(strcmp(r[0].body, "p1p2p3") == 0);
        atomic_store(&may_send, 5);
        for (int i = 0; i < MANY; i++) {
            RUN_UNTIL(r[i].ended);
            CHECK_INT(r[i].err, 0);
            CHECK_STR(r[i].body, "p1p2p3p4p5");
        }
    }
    CHECK_INT(http_script_accepted(script), MANY);
    down();
    free(r);
}

TEST(a_relaxed_stream_that_is_cancelled_is_gone)
{
    struct result r[4] = {{0}};
    up(serve_pieces);
    atomic_store(&may_send, 1);
    for (int i = 0; i < 4; i++) {
        r[i].in_data = relax_call;
        stream(&r[i]);
    }
    for (int i = 0; i < 4; i++) {
        RUN_UNTIL(r[i].pieces == 1);
    }
    cancel(&r[1]);
    r[2].in_data = cancel;
    atomic_store(&may_send, 5);
    RUN_UNTIL(r[0].ended && r[3].ended && r[2].call == NULL);
    CHECK_INT(r[0].err, 0);
    CHECK_STR(r[3].body, "p1p2p3p4p5");
    CHECK_INT(r[1].ended + r[2].ended, 0);
    down();
}

static void pause_and_resume(struct result *r)
{
    sl_http_pause(r->call, true);
    sl_http_pause(r->call, false);
}

TEST(a_paused_call_gets_no_bytes_and_does_not_time_out)
{
    struct result r = {.in_data = pause_call};
    up(serve_eight_megabytes);
    struct sl_http_request request = request_for("GET", &r);
    request.callbacks = &streaming;
    request.idle_timeout_ms = 100;
    start(&request);
    for (int i = 1; i <= 3; i++) {
        RUN_UNTIL(r.pieces == i);
        run_for(i == 1 ? 250 : 1);
        CHECK_INT(r.pieces, i);
        CHECK_INT(r.ended, 0);
        sl_http_pause(r.call, false);
        if (i == 2) { /* Changes its mind before anything could come. */
            sl_http_pause(r.call, true);
            run_for(5);
            CHECK_INT(r.pieces, 2);
            sl_http_pause(r.call, false);
        }
    }
    r.in_data = pause_and_resume;
    sl_http_pause(r.call, false);
    RUN_UNTIL(r.ended);
    CHECK_INT(r.err, 0);
    CHECK_INT(r.body_len, 8388608);
    down();
}

TEST(a_call_paused_in_its_head_waits)
{
    struct result r = {.in_head = pause_call};
    up(serve_hello);
    stream(&r);
    RUN_UNTIL(r.heads == 1);
    run_for(20);
    CHECK_INT(r.pieces, 0);
    sl_http_pause(r.call, false);
    RUN_UNTIL(r.ended);
    CHECK_STR(r.body, "hello");
    down();
}

int main(int argc, char **argv)
{
    static const struct test_case cases[] = {
        {"sends_the_request_and_nothing_that_was_not_asked_for",
         sends_the_request_and_nothing_that_was_not_asked_for},
        {"any_method_with_and_without_a_large_body", any_method_with_and_without_a_large_body},
        {"headers_come_before_the_head", headers_come_before_the_head},
        {"responses_whole_cut_and_broken", responses_whole_cut_and_broken},
        {"a_body_that_is_reset_is_cut", a_body_that_is_reset_is_cut},
        {"a_collected_body_has_a_limit", a_collected_body_has_a_limit},
        {"a_head_has_a_limit", a_head_has_a_limit},
        {"refuses_a_request_that_cannot_be_sent", refuses_a_request_that_cannot_be_sent},
        {"a_refused_connection_never_reached_the_peer",
         a_refused_connection_never_reached_the_peer},
        {"a_server_without_tls_gets_no_request", a_server_without_tls_gets_no_request},
        {"pieces_come_as_they_are_sent", pieces_come_as_they_are_sent},
        {"a_hundred_streams_at_once_and_their_connections_reused",
         a_hundred_streams_at_once_and_their_connections_reused},
        {"relaxed_streams_bring_all_their_pieces", relaxed_streams_bring_all_their_pieces},
        {"a_relaxed_stream_that_is_cancelled_is_gone", a_relaxed_stream_that_is_cancelled_is_gone},
        {"a_paused_call_gets_no_bytes_and_does_not_time_out",
         a_paused_call_gets_no_bytes_and_does_not_time_out},
        {"a_call_paused_in_its_head_waits", a_call_paused_in_its_head_waits},
        {NULL, NULL},
    };
    return run_tests(cases, argc, argv);
}
