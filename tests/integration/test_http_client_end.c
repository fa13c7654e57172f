/* How calls of the HTTP client end early: time-outs and cancelling, which the server must see; and
 * what becomes of connections, of names that do not resolve, and of calls when memory runs out. */
#include "tests/integration/http_calls.h"
#include "tests/support/alloc_fail.h"

#include <netdb.h>

/* --- time-outs --- */

TEST(the_connect_timeout)
{
    struct result r = {0};
    struct result cancelled = {0};
    int fds[4];
    up(serve_hello);
    struct sl_http_request request = request_for("POST", &r);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    address.sin_port = htons((uint16_t)bound_port(0, &fds[0]));
    for (int i = 1; i < 4; i++) { /* Its queue is full. */
        fds[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        CHECK(connect(fds[i], (struct sockaddr *)&address, sizeof(address)) < 0);
    }
    snprintf(url, sizeof(url), "http://127.0.0.1:%d/", ntohs(address.sin_port));
    request.connect_timeout_ms = 60;
    request.first_byte_timeout_ms = request.total_timeout_ms = 5000;
    run(&request);
    CHECK_INT(r.err, -SL_ETIMEDOUT);
    CHECK(strstr(r.detail, "connect time-out (127.0.0.1:") == r.detail);
    CHECK(!r.connected);
    request.ctx = &cancelled;
    start(&request);
    run_for(5);
    cancel(&cancelled); /* While it connects. */
    for (int i = 0; i < 4; i++) {
        close(fds[i]);
    }
    down();
    CHECK_INT(cancelled.ended, 0);
}

/* Then waits for the client to close. */
static void serve_reply_and_wait(struct http_script_conn *conn)
{
    if (http_script_read(conn)) {
        http_script_send(conn, reply);
        http_script_await_close(conn);
    }
}

static void check_timeout(const char *sent, uint32_t first_byte, uint32_t idle, uint32_t total,
                          const char *detail)
{
    struct result r = {0};
    reply = sent;
    up(serve_reply_and_wait);
    struct sl_http_request request = request_for("POST", &r);
    request.connect_timeout_ms = 50;
    request.first_byte_timeout_ms = first_byte;
    request.idle_timeout_ms = idle;
    request.total_timeout_ms = total;
    run(&request);
    CHECK_INT(r.err, -SL_ETIMEDOUT);
    CHECK(strstr(r.detail, detail) == r.detail);
    CHECK(r.connected);
    RUN_UNTIL(http_script_peer_closed(script) == 1);
    down();
}

TEST(the_other_three_timeouts)
{
    const char *half = OK_HEAD "Content-Length: 5\r\n\r\nhe";
    check_timeout("", 150, 50, 5000, "first-byte time-out (127.0.0.1:");
    check_timeout("HTTP/1.1 200 OK\r\n", 150, 50, 5000, "first-byte time-out (127.0.0.1:");
    check_timeout(half, 5000, 50, 5000, "idle time-out (127.0.0.1:");
    check_timeout(half, 100, 5000, 200, "total time-out (127.0.0.1:");
}

/* --- cancelling --- */

TEST(cancelled_before_it_is_sent)
{
    struct result r = {0};
    up(serve_hello);
    stream(&r);
    cancel(&r);
    CHECK_INT(sl_http_client_in_flight(client), 0);
    run_for(10);
    CHECK_INT(http_script_accepted(script), 0);
    down();
    CHECK_INT(r.heads + r.ended, 0);
}

enum where { OUTSIDE, IN_HEAD, IN_DATA, HEAD_FAILS, DATA_FAILS };

/* The server goes on waiting in the middle of a body until it sees the connection close. */
static void check_server_sees_close(enum where where)
{
    struct result r = {.in_head = where == IN_HEAD ? cancel : NULL,
                       .in_data = where == IN_DATA ? cancel : NULL,
                       .head_rv = where == HEAD_FAILS ? -SL_EREJECTED : 0,
                       .data_rv = where == DATA_FAILS ? -SL_EBADMSG : 0};
    reply = CHUNKED "2\r\np1\r\n2\r\np2\r\n";
    up(serve_reply_and_wait);
    stream(&r);
    if (where == OUTSIDE) {
        RUN_UNTIL(r.body_len == 4);
        cancel(&r);
    }
    RUN_UNTIL(http_script_peer_closed(script) == 1);
    CHECK_INT(r.ended, where == HEAD_FAILS || where == DATA_FAILS);
    CHECK_INT(r.err, where == HEAD_FAILS ? -SL_EREJECTED : where == DATA_FAILS ? -SL_EBADMSG : 0);
    CHECK_INT(r.pieces == 0, where == IN_HEAD || where == HEAD_FAILS);
    CHECK(r.pieces <= 1 || where == OUTSIDE);
    down();
}

TEST(the_server_sees_the_connection_close)
{
    check_server_sees_close(OUTSIDE);
    check_server_sees_close(IN_HEAD);
    check_server_sees_close(IN_DATA);
    check_server_sees_close(HEAD_FAILS);
    check_server_sees_close(DATA_FAILS);
}

TEST(cancelled_while_the_server_thinks)
{
    struct result r = {0};
    reply = "";
    up(serve_reply_and_wait);
    stream(&r);
    RUN_UNTIL(http_script_requests(script) == 1);
    cancel(&r);
    RUN_UNTIL(http_script_peer_closed(script) == 1);
    down();
}

TEST(a_paused_call_can_be_cancelled)
{
    struct result r = {.in_data = pause_call};
    up(serve_eight_megabytes);
    stream(&r);
    RUN_UNTIL(r.pieces == 1);
    run_for(20);
    sl_http_pause(r.call, false);
    cancel(&r); /* With a resume pending. */
    run_for(5);
    CHECK_INT(r.pieces, 1);
    down();
}

static struct result *victim;

static void cancel_victim(struct result *r)
{
    (void)r;
    if (!victim->ended && victim->call != NULL) {
        cancel(victim);
    }
}

TEST(one_call_cancels_another_inside_its_callbacks)
{
    for (int i = 0; i < 3; i++) {
        struct result other = {0};
        struct result r = {.in_head = i == 0 ? cancel_victim : NULL,
                           .in_data = i == 1 ? cancel_victim : NULL,
                           .in_end = i == 2 ? cancel_victim : NULL};
        victim = &other;
        atomic_store(&may_send, 0);
        up(serve_pieces);
        stream(&other);
        RUN_UNTIL(other.heads == 1);
        stream(&r);
        RUN_UNTIL(r.heads == 1);
        atomic_store(&may_send, 5);
        RUN_UNTIL(r.ended);
        CHECK_INT(r.err, 0);
        CHECK(other.call == NULL || other.ended);
        CHECK(i > 0 || other.pieces == 0);
        CHECK_INT(sl_http_client_in_flight(client), 0);
        down();
    }
}

static struct result second;

static void start_second(struct result *r)
{
    (void)r;
    if (second.call == NULL) {
        stream(&second);
    }
}

TEST(a_callback_starts_another_call)
{
    for (int i = 0; i < 3; i++) {
        struct result r = {.in_head = i == 0 ? start_second : NULL,
                           .in_data = i == 1 ? start_second : NULL,
                           .in_end = i == 2 ? start_second : NULL};
        second = (struct result){0};
        up(serve_hello);
        stream(&r);
        RUN_UNTIL(r.ended && second.ended);
        CHECK_INT(r.err, 0);
        CHECK_INT(second.err, 0);
        down();
    }
}

/* --- connections --- */

TEST(calls_beyond_the_limit_wait_without_their_connect_timeout)
{
    static const struct sl_http_client_config config = {.max_connections_per_host = 2};
    struct result r[6] = {{0}};
    atomic_store(&may_send, 0);
    up_with(&config, serve_pieces);
    for (int i = 0; i < 6; i++) {
        struct sl_http_request request = request_for("POST", &r[i]);
        request.connect_timeout_ms = 100;
        start(&request);
    }
    run_for(200);
    CHECK_INT(http_script_requests(script), 2);
    atomic_store(&may_send, 5);
    for (int i = 0; i < 6; i++) {
        RUN_UNTIL(r[i].ended);
        CHECK_INT(r[i].err, 0);
    }
    CHECK_INT(http_script_accepted(script), 2);
    down();
}

TEST(an_idle_connection_that_the_server_closed_costs_nothing)
{
    up(serve_reply_and_close);
    reply = OK_HELLO;
    for (int i = 1; i <= 3; i++) {
        struct result r = {0};
        struct sl_http_request request = request_for("POST", &r);
        run(&request);
        CHECK_INT(r.err, 0);
        CHECK_INT(http_script_requests(script), i);
        RUN_UNTIL(http_script_closed(script) == i);
    }
    down();
}

/* The first connection answers once and dies with the second request. */
static void serve_once(struct http_script_conn *conn)
{
    if (http_script_read(conn)) {
        http_script_send(conn, conn->number == 1 ? OK_HELLO : reply);
        if (conn->number == 1) {
            http_script_read(conn);
        }
    }
}

TEST(a_request_is_not_sent_again_when_its_connection_dies)
{
    static const char *const methods[] = {"POST", "GET"};
    for (int method = 0; method < 2; method++) {
        struct result r[3] = {{0}};
        reply = OK_HELLO;
        up(serve_once);
        for (int i = 0; i < 3; i++) {
            struct sl_http_request request = request_for(methods[method], &r[i]);
            request.body = method == 0 ? SL_SPAN("{}") : SL_SPAN("");
            run(&request);
        }
        CHECK_INT(r[0].err, 0);
        CHECK_INT(r[1].err, -SL_ECONN); /* The server may be at work on it. */
        CHECK(r[1].connected);
        CHECK_INT(r[2].err, 0);
        CHECK_INT(http_script_requests(script), 3);
        down();
    }
}

/* --- names that do not resolve, memory that runs out --- */

static atomic_int resolving, may_resolve;

/* libcurl calls this one instead of the C library's. */
int getaddrinfo(const char *restrict name, const char *restrict service,
                const struct addrinfo *restrict hints, struct addrinfo **restrict ret)
{
    (void)name;
    (void)service;
    (void)hints;
    (void)ret;
    atomic_fetch_add(&resolving, 1);
    await(&may_resolve, 1);
    atomic_fetch_add(&resolving, 1);
    return EAI_NONAME;
}

TEST(a_resolver_that_hangs_holds_up_nobody)
{
    struct result slow = {0}, r = {0}, unknown = {0};
    up(serve_hello);
    struct sl_http_request request = request_for("POST", &slow);
    request.url = "http://slow.test/";
    request.connect_timeout_ms = 50;
    run(&request);
    CHECK_INT(slow.err, -SL_ETIMEDOUT);
    CHECK(strstr(slow.detail, "connect time-out (slow.test:80") == slow.detail);
    CHECK(!slow.connected);
    CHECK_INT(atomic_load(&resolving), 1); /* Still there. */
    request = request_for("POST", &r);
    run(&request);
    CHECK_INT(r.err, 0);
    atomic_store(&may_resolve, 1);
    RUN_UNTIL(atomic_load(&resolving) == 2);
    request.ctx = &unknown;
    request.url = "http://unknown.test/";
    run(&request);
    CHECK_INT(unknown.err, -SL_ECONN);
    CHECK(!unknown.connected);
    run_for(20); /* The thread that was left behind frees what it had. */
    down();
}

static void serve_pieces_once(struct http_script_conn *conn)
{
    if (http_script_read(conn)) {
        send_pieces(conn, CHUNKED_CLOSE); /* Each call makes a connection of its own. */
    }
}

/* A call whose k-th allocation fails, amid good ones. Was there a k-th? */
static bool fail_one(http_script_fn *serve, void (*fail)(long k), long k, bool only_ours)
{
    struct result warm = {0}, r = {0}, after = {0};
    atomic_store(&may_send, 5);
    up(serve);
    struct sl_http_request request = request_for("POST", &warm);
    run(&request); /* What grows once, grows now: the loop's own heap may not fail. */
    atomic_store(&may_send, 0);
    request.ctx = &r;
    request.body = SL_SPAN("{}");
    fail(k);
    int rv = sl_http_start(client, &request, &r.call);
    if (rv == 0) {
        RUN_UNTIL(r.heads == 1 || r.ended);
        atomic_store(&may_send, 5);
        RUN_UNTIL(r.ended);
        rv = r.err;
    }
    bool failed = sl_test_alloc_failed();
    atomic_store(&may_send, 5);
    CHECK(rv == 0 || failed);
    CHECK(rv == 0 || rv == -SL_ENOMEM || !only_ours);
    request.ctx = &after;
    run(&request);
    CHECK_INT(after.err, 0);
    down();
    return failed;
}

TEST(a_failed_allocation_fails_one_call)
{
    long k;
    for (k = 1; fail_one(serve_pieces, sl_test_fail_alloc, k, true); k++) {
    }
    CHECK(k > 4); /* The call, a socket, its poll, the body. */
    for (k = 1; fail_one(serve_pieces, sl_test_fail_any_alloc, k, false); k++) {
    }
    CHECK(k > 10);
    for (k = 1; fail_one(serve_pieces_once, sl_test_fail_any_alloc, k, false); k++) {
    }
    CHECK(k > 10);
}

int main(int argc, char **argv)
{
    static const struct test_case cases[] = {
        {"the_connect_timeout", the_connect_timeout},
        {"the_other_three_timeouts", the_other_three_timeouts},
        {"cancelled_before_it_is_sent", cancelled_before_it_is_sent},
        {"the_server_sees_the_connection_close", the_server_sees_the_connection_close},
        {"cancelled_while_the_server_thinks", cancelled_while_the_server_thinks},
        {"a_paused_call_can_be_cancelled", a_paused_call_can_be_cancelled},
        {"one_call_cancels_another_inside_its_callbacks",
         one_call_cancels_another_inside_its_callbacks},
        {"a_callback_starts_another_call", a_callback_starts_another_call},
        {"calls_beyond_the_limit_wait_without_their_connect_timeout",
         calls_beyond_the_limit_wait_without_their_connect_timeout},
        {"an_idle_connection_that_the_server_closed_costs_nothing",
         an_idle_connection_that_the_server_closed_costs_nothing},
        {"a_request_is_not_sent_again_when_its_connection_dies",
         a_request_is_not_sent_again_when_its_connection_dies},
        {"a_resolver_that_hangs_holds_up_nobody", a_resolver_that_hangs_holds_up_nobody},
        {"a_failed_allocation_fails_one_call", a_failed_allocation_fails_one_call},
        {NULL, NULL},
    };
    return run_tests(cases, argc, argv);
}
