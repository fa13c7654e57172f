/*
 * The life of an exchange in virtual time, without sockets: what is written, when on_gone comes,
 * each time-out, the limits, drain, and every write failing in turn.
 */
#include "common/clock.h"
#include "common/http_server.h"
#include "tests/support/fake_tcp.h"
#include "tests/support/test.h"

#define GET "GET / HTTP/1.1\r\nHost: a\r\n\r\n"

static struct sl_loop *loop;
static struct sl_http_server *server;
static struct sl_tcp *tcp;
static struct sl_http_exchange *open_exchange; /* The last one that the handler kept. */
static uint64_t now_us;
static int requests, completed, aborted;

static void on_gone(void *ctx, bool complete)
{
    CHECK(ctx == &server);
    completed += complete;
    aborted += !complete;
    open_exchange = NULL;
}

static size_t max_body(void *ctx, struct sl_span method, struct sl_span path)
{
    (void)ctx;
    (void)method;
    (void)path;
    return 100;
}

static void keep(void *ctx, struct sl_http_exchange *exchange)
{
    (void)ctx;
    requests++;
    open_exchange = exchange;
    sl_http_on_gone(exchange, on_gone, &server);
}

static void answer_at_once(void *ctx, struct sl_http_exchange *exchange)
{
    keep(ctx, exchange);
    sl_http_respond(exchange, 200, NULL, NULL, 0, sl_http_body(exchange));
    CHECK_INT(completed + aborted, requests - 1); /* Never inside. */
}

static void error_body(void *ctx, int status, const char *why, struct sl_buf *body)
{
    (void)ctx;
    (void)why;
    sl_buf_printf(body, "%d", status);
}

static void error_head(void *ctx, int status, struct sl_buf *head)
{
    (void)ctx;
    (void)status;
    sl_buf_append_text(head, "content-type: a/b\r\nx-mine: 1\r\n");
}

static void begin(void (*on_request)(void *ctx, struct sl_http_exchange *exchange))
{
    const struct sl_http_server_config config = {
        .address = "fake",
        .max_connections = 2,
        .max_header_bytes = 1000,
        .header_timeout_ms = 10000,
        .body_timeout_ms = 30000,
        .idle_timeout_ms = 60000,
        .stall_timeout_ms = 20000,
        .max_write_queue = 1000,
    };
    const struct sl_http_server_callbacks callbacks = {max_body, on_request, error_body,
                                                       error_head};
    char why[64];
    now_us = 1000000;
    sl_clock_use(&now_us);
    requests = completed = aborted = 0;
    open_exchange = NULL;
    fake_failing_write = 0;
    CHECK(sl_loop_create(&loop) == 0);
    CHECK(sl_http_server_create(loop, &config, &callbacks, NULL, &server, why, sizeof(why)) == 0);
    tcp = fake_connect();
}

static void finish(void)
{
    sl_http_server_destroy(server);
    sl_loop_destroy(loop);
    sl_clock_use(NULL);
    fake_free(tcp);
}

static void turn(void)
{
    sl_loop_turn(loop, 0);
    sl_loop_turn(loop, 0);
}

static void pass_ms(uint64_t ms)
{
    now_us += ms * 1000;
    turn();
}

static const char *written(void)
{
    sl_buf_append(&tcp->out, "", 1);
    tcp->out.len--;
    return tcp->out.data;
}

static void check_written(const char *text)
{
    CHECK_STR(written(), text);
    sl_buf_clear(&tcp->out);
    tcp->taken = 0;
}

/* --- responses --- */

TEST(a_response_has_its_length_and_harmless_headers)
{
    const struct sl_http_header headers[] = {{SL_SPAN("x-echo"), SL_SPAN("a\r\nevil: b\x7f\tc")},
                                             {SL_SPAN("retry-after"), SL_SPAN("1")}};
    begin(keep);
    fake_send(tcp, SL_SPAN(GET));
    sl_http_respond(open_exchange, 503, "text/plain", headers, 2, SL_SPAN("no\n"));
    CHECK_INT(completed, 0);
    turn();
    CHECK_INT(completed, 1);
    check_written("HTTP/1.1 503 Service Unavailable\r\ncontent-type: text/plain\r\n"
                  "x-echo: a??evil: b?\tc\r\nretry-after: 1\r\ncontent-length: 3\r\n\r\nno\n");
    CHECK(fake_open(tcp));
    finish();
}

TEST(a_stream_is_chunked_and_the_connection_is_used_again)
{
    begin(keep);
    for (int i = 1; i <= 2; i++) {
        fake_send(tcp, SL_SPAN(GET));
        CHECK_INT(requests, i);
        sl_http_stream_begin(open_exchange, 200, "text/event-stream", NULL, 0);
        CHECK(sl_http_stream_write(open_exchange, SL_SPAN("data: hello\n\n")) == 0);
        CHECK(sl_http_stream_write(open_exchange, SL_SPAN("")) == 0);
        turn();
        CHECK_INT(completed, i - 1);
        sl_http_stream_end(open_exchange);
        turn();
        CHECK_INT(completed, i);
        check_written("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
                      "transfer-encoding: chunked\r\n\r\nd\r\ndata: hello\n\n\r\n0\r\n\r\n");
        CHECK(fake_open(tcp));
    }
    finish();
}

TEST(a_stream_for_old_clients_ends_with_the_connection)
{
    begin(keep);
    fake_send(tcp, SL_SPAN("GET / HTTP/1.0\r\n\r\n"));
    sl_http_stream_begin(open_exchange, 200, NULL, NULL, 0);
    CHECK(sl_http_stream_write(open_exchange, SL_SPAN("hello")) == 0);
    sl_http_stream_end(open_exchange);
    turn();
    check_written("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nhello");
    CHECK(tcp->closing);
    CHECK_INT(completed, 1);
    finish();
}

TEST(a_stream_for_head_is_its_head)
{
    begin(keep);
    fake_send(tcp, SL_SPAN("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n"));
    sl_http_stream_begin(open_exchange, 200, NULL, NULL, 0);
    CHECK(sl_http_stream_write(open_exchange, SL_SPAN("hello")) == 0);
    sl_http_stream_end(open_exchange);
    turn();
    check_written("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
    CHECK(fake_open(tcp));
    finish();
}

TEST(errors_of_the_server_have_the_head_and_body_of_the_owner)
{
    begin(keep);
    fake_send(tcp, SL_SPAN("HEAD / HTTP/1.1\r\n\r\n"));
    check_written("HTTP/1.1 400 Bad Request\r\ncontent-type: a/b\r\nx-mine: 1\r\n"
                  "content-length: 3\r\nconnection: close\r\n\r\n");
    CHECK(tcp->closing);
    fake_free(tcp);
    tcp = fake_connect();
    fake_send(tcp, SL_SPAN("GET / HTTP/1.1\r\n\r\n"));
    check_written("HTTP/1.1 400 Bad Request\r\ncontent-type: a/b\r\nx-mine: 1\r\n"
                  "content-length: 3\r\nconnection: close\r\n\r\n400");
    CHECK_INT(requests, 0);
    finish();
}

TEST(the_continue_line_comes_before_the_answer)
{
    begin(answer_at_once);
    fake_send(tcp, SL_SPAN("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n"
                           "Content-Length: 2\r\n\r\n"));
    check_written("HTTP/1.1 100 Continue\r\n\r\n");
    fake_send(tcp, SL_SPAN("h"));
    fake_send(tcp, SL_SPAN("i"));
    check_written("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi");
    finish();
}

/* --- pipelining --- */

TEST(what_is_pipelined_waits_for_the_answer_before)
{
    begin(keep);
    fake_send(tcp, SL_SPAN(GET GET "GET / HT"));
    fake_send(tcp, SL_SPAN("TP/1.1\r\nHost: a\r\n\r\n"));
    for (int i = 1; i <= 3; i++) {
        CHECK_INT(requests, i);
        sl_http_respond(open_exchange, 200, NULL, NULL, 0, SL_SPAN("x"));
        turn();
        CHECK_INT(completed, i);
    }
    CHECK_INT(requests, 3);
    CHECK(fake_open(tcp));
    finish();
}

TEST(too_much_pipelined_closes)
{
    static char lines[64 * 1024];
    begin(keep);
    memset(lines, 'x', sizeof(lines));
    fake_send(tcp, SL_SPAN(GET));
    fake_send(tcp, (struct sl_span){lines, sizeof(lines)});
    CHECK(fake_open(tcp));
    CHECK_INT(aborted, 0);
    fake_send(tcp, SL_SPAN("x"));
    CHECK(tcp->destroyed);
    CHECK_INT(aborted, 1);
    finish();
}

TEST(after_the_last_request_bytes_are_dropped)
{
    static char junk[64 * 1024];
    begin(keep);
    fake_send(tcp, SL_SPAN("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" GET));
    for (int i = 0; i < 100; i++) {
        fake_send(tcp, (struct sl_span){junk, sizeof(junk)});
    }
    CHECK_INT(requests, 1);
    sl_http_respond(open_exchange, 200, NULL, NULL, 0, SL_SPAN("x"));
    turn();
    CHECK(tcp->closing);
    CHECK_INT(completed, 1);
    finish();
}

/* --- the peer leaves --- */

TEST(leaving_is_told_once_in_every_state)
{
    for (int state = 0; state < 6; state++) {
        begin(keep);
        fake_send(tcp, state == 0 ? SL_SPAN("") : state == 1 ? SL_SPAN("GET /") : SL_SPAN(GET));
        if (state == 3 || state == 4) {
            sl_http_stream_begin(open_exchange, 200, NULL, NULL, 0);
        }
        if (state == 4) {
            tcp->room = 3;
            CHECK(sl_http_stream_write(open_exchange, SL_SPAN("some bytes wait")) == 0);
            turn();
        }
        if (state == 5) {
            tcp->room = 0;
            sl_http_respond(open_exchange, 200, NULL, NULL, 0, SL_SPAN("some bytes wait"));
            turn();
        }
        fake_hang_up(tcp);
        CHECK(tcp->destroyed);
        CHECK_INT(aborted, state >= 2);
        CHECK_INT(sl_http_server_connections(server), 0);
        turn();
        finish();
        CHECK_INT(aborted, state >= 2);
        CHECK_INT(completed, 0);
    }
}

TEST(a_peer_that_leaves_with_its_answer_is_complete)
{
    begin(keep);
    fake_send(tcp, SL_SPAN(GET));
    sl_http_respond(open_exchange, 200, NULL, NULL, 0, SL_SPAN("x"));
    fake_hang_up(tcp); /* Before the loop has turned. */
    CHECK_INT(completed, 1);
    CHECK_INT(aborted, 0);
    finish();
}

TEST(destroying_the_server_tells_open_exchanges)
{
    begin(keep);
    fake_send(tcp, SL_SPAN(GET));
    finish();
    CHECK_INT(aborted, 1);
}

/* Each write fails in turn; the peer's end is told after it, as tcp.c does. */
TEST(any_write_may_fail)
{
    bool all_passed = false;
    for (long k = 1; !all_passed; k++) {
        begin(keep);
        fake_failing_write = k;
        fake_send(tcp, SL_SPAN("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n"
                               "Content-Length: 2\r\n\r\n"));
        fake_send(tcp, SL_SPAN("hi" GET));
        if (open_exchange != NULL) {
            sl_http_respond(open_exchange, 200, NULL, NULL, 0, SL_SPAN("x"));
            turn();
        }
        if (open_exchange != NULL) {
            sl_http_stream_begin(open_exchange, 200, NULL, NULL, 0);
            int err = sl_http_stream_write(open_exchange, SL_SPAN("hello"));
            CHECK(err == 0 || err == -SL_ECONN);
            sl_http_stream_end(open_exchange);
            turn();
        }
        if (fake_open(tcp)) {
            fake_send(tcp, SL_SPAN("GET / HTTP/1.1\r\n\r\n")); /* 400, which may fail too. */
        }
        CHECK_INT(completed + aborted, requests);
        CHECK(aborted <= 1);
        all_passed = fake_failing_write > 0;
        CHECK(!all_passed || completed == 2);
        CHECK(tcp->destroyed == !all_passed);
        finish();
        CHECK(k < 20);
    }
}

/* --- limits and time-outs --- */

TEST(a_stalled_reader_is_closed_by_the_queue_limit)
{
    char bytes[400] = {0};
    const struct sl_span piece = {bytes, sizeof(bytes)};
    begin(keep);
    fake_send(tcp, SL_SPAN(GET));
    sl_http_stream_begin(open_exchange, 200, NULL, NULL, 0);
    tcp->room = 0;
    CHECK(sl_http_stream_write(open_exchange, piece) == 0); /* Found the queue empty. */
    CHECK(sl_http_stream_write(open_exchange, piece) == 0);
    CHECK(sl_http_stream_write(open_exchange, piece) == 0);
    CHECK(sl_http_write_queue(open_exchange) > 1200);
    CHECK_INT(sl_http_stream_write(open_exchange, piece), -SL_EAGAIN);
    CHECK(sl_http_stream_write(open_exchange, piece) != 0);
    CHECK_INT(aborted, 0); /* Never inside. */
    turn();
    CHECK_INT(aborted, 1);
    CHECK(tcp->destroyed);
    finish();
}

TEST(a_slow_reader_is_not_closed)
{
    char bytes[900] = {0};
    begin(keep);
    fake_send(tcp, SL_SPAN(GET));
    sl_http_stream_begin(open_exchange, 200, NULL, NULL, 0);
    tcp->room = 0;
    for (int i = 0; i < 20; i++) {
        CHECK(sl_http_stream_write(open_exchange, (struct sl_span){bytes, sizeof(bytes)}) == 0);
        pass_ms(10000);
        fake_take(tcp, 905);
        CHECK(fake_open(tcp));
    }
    sl_http_stream_end(open_exchange);
    pass_ms(10000);
    CHECK_INT(completed, 0); /* Bytes wait. */
    fake_take(tcp, 100000);
    CHECK_INT(completed, 1);
    finish();
}

TEST(a_reader_that_takes_nothing_is_closed_in_time)
{
    begin(keep);
    fake_send(tcp, SL_SPAN(GET));
    pass_ms(10000000); /* The handler takes as long as it likes. */
    CHECK(fake_open(tcp));
    tcp->room = 10;
    sl_http_respond(open_exchange, 200, NULL, NULL, 0, SL_SPAN("a body"));
    turn();
    pass_ms(19000);
    CHECK(fake_open(tcp));
    pass_ms(1001);
    CHECK(tcp->destroyed);
    CHECK_INT(aborted, 1);
    finish();
}

TEST(each_phase_has_its_time_out)
{
    const struct {
        const char *sent;
        uint64_t ms;
        const char *status; /* NULL: closed without a word. */
    } cases[] = {
        {"", 60000, NULL},
        {"\r\n", 60000, NULL},
        {"G", 10000, "HTTP/1.1 408 "},
        {"GET / HTTP/1.1\r\nHost: a\r\n", 10000, "HTTP/1.1 408 "},
        {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhi", 30000, "HTTP/1.1 408 "},
        {GET, 60000, "HTTP/1.1 200 "}, /* And then idle. */
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        begin(answer_at_once);
        fake_send(tcp, sl_span_of(cases[i].sent));
        turn();
        pass_ms(cases[i].ms - 1);
        CHECK(fake_open(tcp));
        pass_ms(2);
        CHECK(!fake_open(tcp));
        CHECK(cases[i].status == NULL ? tcp->out.len == 0
                                      : strstr(written(), cases[i].status) != NULL);
        finish();
    }
}

/* A byte now and then does not move the limit. */
TEST(a_slow_head_times_out_from_its_first_byte)
{
    begin(keep);
    fake_send(tcp, SL_SPAN("G"));
    const char *rest = "ET / HTTP/1.1\r\n";
    for (int i = 0; i < 10; i++) {
        pass_ms(999);
        CHECK(fake_open(tcp));
        fake_send(tcp, (struct sl_span){rest + i, 1});
    }
    pass_ms(11);
    CHECK(tcp->closing);
    CHECK(strstr(written(), " 408 ") != NULL);
    finish();
}

TEST(connections_over_the_limit_get_503)
{
    begin(keep);
    struct sl_tcp *second = fake_connect();
    struct sl_tcp *first = tcp;
    CHECK_INT(sl_http_server_connections(server), 2);
    tcp = fake_connect();
    CHECK(tcp->closing);
    CHECK(strstr(written(), "HTTP/1.1 503 ") == tcp->out.data);
    fake_free(tcp);
    fake_hang_up(second);
    fake_free(second);
    tcp = fake_connect();
    CHECK(fake_open(tcp));
    finish();
    fake_free(first);
}

TEST(drain_closes_idle_connections_and_finishes_the_others)
{
    begin(keep);
    struct sl_tcp *idle = fake_connect();
    fake_send(tcp, SL_SPAN(GET GET));
    sl_http_stream_begin(open_exchange, 200, NULL, NULL, 0);
    sl_http_server_drain(server);
    CHECK(idle->destroyed);
    CHECK(fake_listener.stopped);
    CHECK(fake_open(tcp));
    CHECK(sl_http_stream_write(open_exchange, SL_SPAN("x")) == 0);
    sl_http_stream_end(open_exchange);
    turn();
    CHECK_INT(completed, 1);
    CHECK_INT(requests, 1); /* What was pipelined is for another server. */
    CHECK(tcp->closing);
    CHECK_INT(sl_http_server_connections(server), 0);
    finish();
    fake_free(idle);
}

TEST(a_request_that_has_begun_is_answered_while_draining)
{
    begin(answer_at_once);
    fake_send(tcp, SL_SPAN("GET / HT"));
    sl_http_server_drain(server);
    fake_send(tcp, SL_SPAN("TP/1.1\r\nHost: a\r\n\r\n"));
    check_written("HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    CHECK(tcp->closing);
    finish();
}

#define CASE(name)                                                                                 \
    {                                                                                              \
#name, name                                                                                \
    }

int main(int argc, char **argv)
{
    const struct test_case cases[] = {
        CASE(a_response_has_its_length_and_harmless_headers),
        CASE(a_stream_is_chunked_and_the_connection_is_used_again),
        CASE(a_stream_for_old_clients_ends_with_the_connection),
        CASE(a_stream_for_head_is_its_head),
        CASE(errors_of_the_server_have_the_head_and_body_of_the_owner),
        CASE(the_continue_line_comes_before_the_answer),
        CASE(what_is_pipelined_waits_for_the_answer_before),
        CASE(too_much_pipelined_closes),
        CASE(after_the_last_request_bytes_are_dropped),
        CASE(leaving_is_told_once_in_every_state),
        CASE(a_peer_that_leaves_with_its_answer_is_complete),
        CASE(destroying_the_server_tells_open_exchanges),
        CASE(any_write_may_fail),
        CASE(a_stalled_reader_is_closed_by_the_queue_limit),
        CASE(a_slow_reader_is_not_closed),
        CASE(a_reader_that_takes_nothing_is_closed_in_time),
        CASE(each_phase_has_its_time_out),
        CASE(a_slow_head_times_out_from_its_first_byte),
        CASE(connections_over_the_limit_get_503),
        CASE(drain_closes_idle_connections_and_finishes_the_others),
        CASE(a_request_that_has_begun_is_answered_while_draining),
        {NULL, NULL},
    };
    return run_tests(cases, argc, argv);
}
