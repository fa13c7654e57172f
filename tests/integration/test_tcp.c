/* TCP over loopback: bytes both ways, the write queue, ends of every kind, and what lingers. */
#include "common/tcp.h"

#include "tests/support/http_peer.h"

static struct sl_loop *loop;
static struct sl_tcp_listener *listener;
static struct sl_tcp *accepted;
static struct sl_buf received;
static int ends, drains;

static void on_data(void *ctx, struct sl_span bytes)
{
    (void)ctx;
    sl_buf_append_span(&received, bytes);
}

static void on_end(void *ctx)
{
    (void)ctx;
    ends++;
}

static void on_drain(void *ctx)
{
    (void)ctx;
    drains++;
}

static const struct sl_tcp_callbacks callbacks = {on_data, on_end, on_drain};

static void on_accept(void *ctx, struct sl_tcp *tcp)
{
    (void)ctx;
    accepted = tcp;
    sl_tcp_start(tcp, &callbacks, NULL);
}

static void begin(const char *address)
{
    char why[128] = "";
    CHECK(sl_loop_create(&loop) == 0);
    CHECK(sl_tcp_listen(loop, address, on_accept, NULL, &listener, why, sizeof(why)) == 0);
    CHECK(sl_tcp_listener_port(listener) > 0);
    sl_buf_init(&received, 1 << 20);
    accepted = NULL;
    ends = drains = 0;
}

static void connected(struct peer *peer)
{
    begin("127.0.0.1:0");
    peer_open(peer, sl_tcp_listener_port(listener));
    PEER_WAIT(loop, accepted != NULL);
}

static void finish(void)
{
    sl_tcp_listener_destroy(listener);
    sl_loop_destroy(loop);
    sl_buf_fini(&received);
}

static void reset(struct peer *peer)
{
    struct linger hard = {1, 0};
    setsockopt(peer->fd, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
    peer_close(peer);
}

TEST(bytes_go_both_ways)
{
    struct peer peer;
    connected(&peer);
    peer_send_text(&peer, "question");
    PEER_WAIT(loop, sl_span_is(sl_buf_span(&received), "question"));
    const struct sl_span spans[] = {SL_SPAN("ans"), {NULL, 0}, SL_SPAN("wer")};
    CHECK(sl_tcp_write(accepted, spans, 3) == 0);
    CHECK_INT(sl_tcp_queued(accepted), 0);
    PEER_WAIT(loop, peer_has(&peer, "answer"));
    sl_tcp_destroy(accepted);
    PEER_WAIT(loop, peer_ended(&peer));
    CHECK_INT(ends, 0);
    peer_close(&peer);
    finish();
}

TEST(a_slow_reader_gets_every_byte_in_order)
{
    enum { LINES = 400000 };
    struct peer peer;
    struct sl_buf all;
    char line[32];
    connected(&peer);
    sl_buf_init(&all, 16 << 20);
    for (int i = 0; i < LINES; i++) { /* More than the kernel holds, in small writes. */
        int len = snprintf(line, sizeof(line), "line %d of many\n", i);
        const struct sl_span spans[] = {{line, 5}, {line + 5, (size_t)len - 5}};
        CHECK(sl_tcp_write(accepted, spans, 2) == 0);
        sl_buf_append(&all, line, (size_t)len);
        if (i % 1000 == 0) {
            sl_loop_turn(loop, 0);
        }
    }
    CHECK(sl_tcp_queued(accepted) > 0);
    drains = 0;
    PEER_WAIT(loop, (peer_read(&peer), peer.in.len == all.len));
    CHECK(sl_span_equal(sl_buf_span(&peer.in), sl_buf_span(&all)));
    PEER_WAIT(loop, drains == 1);
    CHECK_INT(sl_tcp_queued(accepted), 0);
    sl_tcp_destroy(accepted);
    sl_buf_fini(&all);
    peer_close(&peer);
    finish();
}

TEST(each_way_to_leave_ends_once)
{
    for (int how = 0; how < 3; how++) { /* Half-close, close, reset. */
        struct peer peer;
        connected(&peer);
        if (how == 0) {
            CHECK(shutdown(peer.fd, SHUT_WR) == 0);
        } else if (how == 1) {
            peer_close(&peer);
        } else {
            reset(&peer);
        }
        PEER_WAIT(loop, ends == 1);
        sl_loop_turn(loop, 1);
        CHECK_INT(ends, 1);
        sl_tcp_destroy(accepted);
        peer_close(&peer);
        finish();
    }
}

TEST(a_write_to_a_peer_that_left_fails_and_ends_later)
{
    struct peer peer;
    connected(&peer);
    reset(&peer);
    CHECK_INT(sl_tcp_write(accepted, &SL_SPAN("x"), 1), -SL_ECONN);
    CHECK_INT(ends, 0); /* Never inside the write. */
    PEER_WAIT(loop, ends == 1);
    CHECK_INT(sl_tcp_write(accepted, &SL_SPAN("x"), 1), -SL_ECONN);
    sl_loop_turn(loop, 1);
    CHECK_INT(ends, 1);
    sl_tcp_destroy(accepted);
    finish();
}

TEST(a_destroyed_connection_calls_back_no_more)
{
    struct peer peer;
    char *big = calloc(1, 16 << 20);
    CHECK(big != NULL);
    connected(&peer);
    CHECK(sl_tcp_write(accepted, &(struct sl_span){big, 16 << 20}, 1) == 0);
    CHECK(sl_tcp_queued(accepted) > 0);
    peer_send_text(&peer, "more");
    sl_tcp_destroy(accepted);
    PEER_WAIT(loop, peer_ended(&peer));
    CHECK_INT(ends + drains + (int)received.len, 0);
    free(big);
    peer_close(&peer);
    finish();
}

/* Closing with unread bytes would reset the connection and lose the answer. */
TEST(close_after_write_delivers_the_answer_before_unread_bytes)
{
    struct peer peer;
    char *big = calloc(1, 16 << 20);
    CHECK(big != NULL);
    connected(&peer);
    CHECK(sl_tcp_write(accepted, &(struct sl_span){big, 16 << 20}, 1) == 0);
    peer_send(&peer, (struct sl_span){big, 100000});
    sl_tcp_close_after_write(accepted, 60000);
    PEER_WAIT(loop, (peer_send(&peer, (struct sl_span){big, 1000}), peer_ended(&peer)));
    CHECK(!peer.reset);
    CHECK_INT(peer.in.len, 16 << 20);
    CHECK_INT(ends, 0);
    peer_close(&peer);
    free(big);
    finish();
}

TEST(a_lingering_connection_ends_with_its_time_or_its_listener)
{
    for (int with_listener = 0; with_listener < 2; with_listener++) {
        struct peer peer;
        char *big = calloc(1, 16 << 20);
        CHECK(big != NULL);
        connected(&peer);
        CHECK(sl_tcp_write(accepted, &(struct sl_span){big, 16 << 20}, 1) == 0);
        sl_tcp_close_after_write(accepted, with_listener ? 600000 : 1);
        free(big);
        if (with_listener) {
            sl_tcp_listener_destroy(listener);
            listener = NULL;
        }
        sl_loop_turn(loop, 20); /* The peer reads nothing until the time is over. */
        sl_loop_turn(loop, 20);
        PEER_WAIT(loop, peer_ended(&peer));
        CHECK(peer.in.len < 16 << 20);
        peer_close(&peer);
        finish();
    }
}

TEST(a_stopped_listener_refuses_and_its_connections_live_on)
{
    struct peer peer;
    connected(&peer);
    int port = sl_tcp_listener_port(listener);
    sl_tcp_listener_stop(listener);
    sl_loop_turn(loop, 0);
    sl_tcp_listener_destroy(listener);
    listener = NULL;
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(connect(fd, (struct sockaddr *)&at, sizeof(at)) != 0);
    close(fd);
    peer_send_text(&peer, "still here");
    PEER_WAIT(loop, sl_span_is(sl_buf_span(&received), "still here"));
    sl_tcp_destroy(accepted);
    peer_close(&peer);
    finish();
}

TEST(addresses_are_checked)
{
    const struct {
        const char *address;
        int err;
    } cases[] = {
        {"127.0.0.1:0", 0},          {"localhost:0", 0},         {"127.0.0.1", -SL_EINVAL},
        {":80", -SL_EINVAL},         {"127.0.0.1:", -SL_EINVAL}, {"127.0.0.1:65536", -SL_EINVAL},
        {"127.0.0.1:x", -SL_EINVAL}, {"203.0.113.1:0", -SL_EIO}, /* No address of this machine. */
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char why[128] = "";
        struct sl_tcp_listener *it = NULL;
        CHECK(sl_loop_create(&loop) == 0);
        fprintf(stderr, "  %s\n", cases[i].address);
        CHECK_INT(sl_tcp_listen(loop, cases[i].address, on_accept, NULL, &it, why, sizeof(why)),
                  cases[i].err);
        CHECK((why[0] != '\0') == (cases[i].err != 0));
        sl_tcp_listener_destroy(it);
        sl_loop_destroy(loop);
    }
}

TEST(a_taken_port_says_so)
{
    char address[32];
    char why[128] = "";
    struct sl_tcp_listener *second = NULL;
    begin("127.0.0.1:0");
    snprintf(address, sizeof(address), "127.0.0.1:%d", sl_tcp_listener_port(listener));
    CHECK_INT(sl_tcp_listen(loop, address, on_accept, NULL, &second, why, sizeof(why)), -SL_EIO);
    CHECK_STR(why, "address already in use");
    finish();
}

int main(int argc, char **argv)
{
    const struct test_case cases[] = {
        {"bytes_go_both_ways", bytes_go_both_ways},
        {"a_slow_reader_gets_every_byte_in_order", a_slow_reader_gets_every_byte_in_order},
        {"each_way_to_leave_ends_once", each_way_to_leave_ends_once},
        {"a_write_to_a_peer_that_left_fails_and_ends_later",
         a_write_to_a_peer_that_left_fails_and_ends_later},
        {"a_destroyed_connection_calls_back_no_more", a_destroyed_connection_calls_back_no_more},
        {"close_after_write_delivers_the_answer_before_unread_bytes",
         close_after_write_delivers_the_answer_before_unread_bytes},
        {"a_lingering_connection_ends_with_its_time_or_its_listener",
         a_lingering_connection_ends_with_its_time_or_its_listener},
        {"a_stopped_listener_refuses_and_its_connections_live_on",
         a_stopped_listener_refuses_and_its_connections_live_on},
        {"addresses_are_checked", addresses_are_checked},
        {"a_taken_port_says_so", a_taken_port_says_so},
        {NULL, NULL},
    };
    return run_tests(cases, argc, argv);
}
