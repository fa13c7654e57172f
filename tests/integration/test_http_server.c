/*
 * The HTTP server over loopback sockets: every raw case in one send, keep-alive, half-close and
 * disconnect in each state, a stalled reader, a thousand connections, drain.
 */
#include "common/http_server.h"
#include "tests/support/http_cases.h"
#include "tests/support/http_peer.h"

#include <sys/resource.h>

#define GET_ECHO "GET /echo HTTP/1.1\r\nHost: a\r\n\r\n"
#define GET_KEPT "GET /kept HTTP/1.1\r\nHost: a\r\n\r\n"

static struct sl_loop *loop;
static struct sl_http_server *server;
static struct sl_http_exchange *kept;
static int kept_count, completed, aborted;

static size_t max_body(void *ctx, struct sl_span method, struct sl_span path)
{
    (void)ctx;
    (void)method;
    return sl_span_is(path, "/large") ? 64 << 20 : HTTP_CASE_MAX_BODY;
}

static void on_gone(void *ctx, bool complete)
{
    (void)ctx;
    completed += complete;
    aborted += !complete;
    kept = NULL;
}

static void on_request(void *ctx, struct sl_http_exchange *exchange)
{
    char text[512];
    (void)ctx;
    struct sl_span body = sl_http_body(exchange);
    if (sl_span_is(sl_http_path(exchange), "/kept")) {
        kept = exchange;
        kept_count++;
        sl_http_on_gone(exchange, on_gone, NULL);
        return;
    }
    if (sl_span_is(sl_http_path(exchange), "/large")) {
        sl_http_respond(exchange, 200, NULL, NULL, 0, body);
        return;
    }
    int len = snprintf(text, sizeof(text), "%.*s %.*s %.*s %.*s",
                       SL_SPAN_ARG(sl_http_method(exchange)), SL_SPAN_ARG(sl_http_path(exchange)),
                       SL_SPAN_ARG(sl_http_query(exchange)), SL_SPAN_ARG(body));
    sl_http_respond(exchange, 200, "text/plain", NULL, 0, (struct sl_span){text, (size_t)len});
}

static void error_body(void *ctx, int status, const char *why, struct sl_buf *body)
{
    (void)ctx;
    sl_buf_printf(body, "%d: %s\n", status, why);
}

static void begin(void)
{
    const struct sl_http_server_config config = {
        .address = "127.0.0.1:0",
        .max_connections = 2000,
        .max_header_bytes = HTTP_CASE_MAX_HEAD,
        .header_timeout_ms = 60000,
        .body_timeout_ms = 60000,
        .idle_timeout_ms = 60000,
        .stall_timeout_ms = 60000,
        .max_write_queue = 64 * 1024,
    };
    const struct sl_http_server_callbacks callbacks = {
        .max_body = max_body, .on_request = on_request, .error_body = error_body};
    char why[64];
    kept = NULL;
    kept_count = completed = aborted = 0;
    CHECK(sl_loop_create(&loop) == 0);
    CHECK(sl_http_server_create(loop, &config, &callbacks, NULL, &server, why, sizeof(why)) == 0);
}

static void connected(struct peer *peer)
{
    begin();
    peer_open(peer, sl_http_server_port(server));
}

static void finish(struct peer *peer)
{
    peer_close(peer);
    sl_http_server_destroy(server);
    sl_loop_destroy(loop);
}

static bool answered(struct peer *peer, const struct http_case *c)
{
    char got[64];
    peer_read(peer);
    http_case_summary(peer_text(peer), peer->ended, got, sizeof(got));
    return strcmp(got, c->want != NULL ? c->want : "200") == 0;
}

TEST(each_case_is_answered_over_a_socket)
{
    for (int i = 0; i < HTTP_CASES; i++) {
        struct peer peer;
        fprintf(stderr, "  %s\n", http_cases[i].name);
        connected(&peer);
        peer_send(&peer, http_cases[i].raw);
        PEER_WAIT(loop, answered(&peer, &http_cases[i]));
        CHECK(!peer.reset);
        CHECK(http_cases[i].text == NULL || strstr(peer_text(&peer), http_cases[i].text) != NULL);
        finish(&peer);
    }
}

TEST(a_connection_serves_many_requests_byte_by_byte)
{
    struct peer peer;
    connected(&peer);
    for (int i = 0; i < 10; i++) {
        for (const char *c = GET_ECHO; *c != '\0'; c++) {
            peer_send(&peer, (struct sl_span){c, 1});
            sl_loop_turn(loop, 1);
        }
        PEER_WAIT(loop, peer_has(&peer, "GET /echo"));
        sl_buf_clear(&peer.in);
    }
    CHECK_INT(sl_http_server_connections(server), 1);
    finish(&peer);
}

TEST(a_large_body_comes_back_whole)
{
    enum { SIZE = 20 << 20 };
    struct peer peer;
    char head[128];
    char *body = malloc(SIZE);
    CHECK(body != NULL);
    for (size_t i = 0; i < SIZE; i++) {
        body[i] = (char)(i * 31 + (i >> 12));
    }
    connected(&peer);
    int len = snprintf(head, sizeof(head),
                       "POST /large HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n", SIZE);
    peer_send(&peer, (struct sl_span){head, (size_t)len});
    for (size_t at = 0; at < SIZE;) {
        ssize_t n = send(peer.fd, body + at, SIZE - at, MSG_DONTWAIT | MSG_NOSIGNAL);
        CHECK(n > 0 || errno == EAGAIN);
        at += n > 0 ? (size_t)n : 0;
        sl_loop_turn(loop, 1);
    }
    len = snprintf(head, sizeof(head), "HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n", SIZE);
    PEER_WAIT(loop, (peer_read(&peer), peer.in.len >= (size_t)len + SIZE));
    CHECK_INT(peer.in.len, len + SIZE);
    CHECK(memcmp(peer.in.data, head, (size_t)len) == 0);
    CHECK(memcmp(peer.in.data + len, body, SIZE) == 0);
    free(body);
    finish(&peer);
}

static void leave(struct peer *peer, int how)
{
    struct linger hard = {1, 0};
    if (how == 0) {
        CHECK(shutdown(peer->fd, SHUT_WR) == 0);
        return;
    }
    if (how == 2) {
        setsockopt(peer->fd, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
    }
    close(peer->fd);
    peer->fd = -1;
}

/* Half-close, close and reset, while the handler waits and while it streams. */
TEST(leaving_is_seen_while_waiting_and_while_streaming)
{
    for (int how = 0; how < 6; how++) {
        struct peer peer;
        connected(&peer);
        peer_send_text(&peer, GET_KEPT);
        PEER_WAIT(loop, kept != NULL);
        if (how >= 3) {
            sl_http_stream_begin(kept, 200, "text/event-stream", NULL, 0);
            CHECK(sl_http_stream_write(kept, SL_SPAN("data: 1\n\n")) == 0);
            PEER_WAIT(loop, peer_has(&peer, "data: 1\n\n"));
        }
        leave(&peer, how % 3);
        PEER_WAIT(loop, aborted == 1);
        PEER_WAIT(loop, sl_http_server_connections(server) == 0);
        finish(&peer);
        CHECK_INT(aborted, 1);
        CHECK_INT(completed, 0);
    }
}

TEST(a_refused_upload_still_reads_its_answer)
{
    static char junk[1 << 20];
    struct peer peer;
    connected(&peer);
    peer_send_text(&peer, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n");
    peer_send(&peer, (struct sl_span){junk, sizeof(junk)});
    PEER_WAIT(loop, peer_ended(&peer));
    CHECK(!peer.reset);
    CHECK(strstr(peer_text(&peer), "HTTP/1.1 413 Content Too Large\r\n") == peer.in.data);
    finish(&peer);
}

TEST(a_stalled_reader_is_closed)
{
    static char event[10000];
    struct peer peer;
    int err = 0;
    connected(&peer);
    peer_send_text(&peer, GET_KEPT);
    PEER_WAIT(loop, kept != NULL);
    sl_http_stream_begin(kept, 200, "text/event-stream", NULL, 0);
    for (int i = 0; i < 100000 && err == 0; i++) {
        err = sl_http_stream_write(kept, (struct sl_span){event, sizeof(event)});
        CHECK(err != 0 || sl_http_write_queue(kept) <= 64 * 1024 + 2 * sizeof(event));
    }
    CHECK_INT(err, -SL_EAGAIN);
    CHECK_INT(aborted, 0);
    PEER_WAIT(loop, aborted == 1);
    CHECK_INT(sl_http_server_connections(server), 0);
    PEER_WAIT(loop, peer_ended(&peer));
    finish(&peer);
}

static struct sl_http_exchange *streams[1000];
static int stream_count;

static void on_stream_gone(void *ctx, bool complete)
{
    (void)ctx;
    completed += complete;
    aborted += !complete;
}

TEST(a_thousand_streams_at_once)
{
    enum { COUNT = 1000 };
    static struct peer peers[COUNT];
    struct rlimit files = {4096, 4096};
    (void)setrlimit(RLIMIT_NOFILE, &files);
    begin();
    stream_count = 0;
    for (int i = 0; i < COUNT; i++) {
        peer_open(&peers[i], sl_http_server_port(server));
        peer_send_text(&peers[i], GET_KEPT);
        PEER_WAIT(loop, kept_count == i + 1);
        streams[stream_count++] = kept;
        sl_http_on_gone(kept, on_stream_gone, NULL);
        sl_http_stream_begin(kept, 200, NULL, NULL, 0);
    }
    CHECK_INT(sl_http_server_connections(server), COUNT);
    for (int i = 0; i < COUNT; i++) {
        CHECK(sl_http_stream_write(streams[i], SL_SPAN("hello")) == 0);
    }
    for (int i = 0; i < COUNT; i += 2) { /* Half of them leave, the others get their end. */
        peer_close(&peers[i]);
    }
    PEER_WAIT(loop, aborted == COUNT / 2);
    for (int i = 1; i < COUNT; i += 2) {
        sl_http_stream_end(streams[i]);
    }
    PEER_WAIT(loop, completed == COUNT / 2);
    for (int i = 1; i < COUNT; i += 2) {
        PEER_WAIT(loop, peer_has(&peers[i], "5\r\nhello\r\n0\r\n\r\n"));
        peer_close(&peers[i]);
    }
    PEER_WAIT(loop, sl_http_server_connections(server) == 0);
    sl_http_server_destroy(server);
    sl_loop_destroy(loop);
}

TEST(drain_lets_an_open_stream_end)
{
    struct peer peer, idle;
    connected(&peer);
    peer_open(&idle, sl_http_server_port(server));
    peer_send_text(&peer, GET_KEPT);
    PEER_WAIT(loop, kept != NULL && sl_http_server_connections(server) == 2);
    sl_http_server_drain(server);
    PEER_WAIT(loop, peer_ended(&idle));
    sl_http_stream_begin(kept, 200, NULL, NULL, 0);
    CHECK(sl_http_stream_write(kept, SL_SPAN("last")) == 0);
    sl_http_stream_end(kept);
    PEER_WAIT(loop, peer_ended(&peer));
    CHECK(!peer.reset);
    CHECK(peer_has(&peer, "connection: close\r\n\r\n4\r\nlast\r\n0\r\n\r\n"));
    CHECK_INT(completed, 1);
    CHECK_INT(sl_http_server_connections(server), 0);
    peer_close(&idle);
    finish(&peer);
}

#define CASE(name)                                                                                 \
    {                                                                                              \
#name, name                                                                                \
    }

int main(int argc, char **argv)
{
    const struct test_case cases[] = {
        CASE(each_case_is_answered_over_a_socket),
        CASE(a_connection_serves_many_requests_byte_by_byte),
        CASE(a_large_body_comes_back_whole),
        CASE(leaving_is_seen_while_waiting_and_while_streaming),
        CASE(a_refused_upload_still_reads_its_answer),
        CASE(a_stalled_reader_is_closed),
        CASE(a_thousand_streams_at_once),
        CASE(drain_lets_an_open_stream_end),
        {NULL, NULL},
    };
    return run_tests(cases, argc, argv);
}
