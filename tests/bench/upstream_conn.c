/*
 * A connection: one request at a time, and its answer when it is due.
 *
 * The happy path: the bytes of a request are read into the server's buffer and understood there;
 * what is left of it is a few numbers and a reference to the answers of its time, and one timer.
 * When the timer fires the answer is written, or the first token, which starts the timer again for
 * the next, always counted from the request so that late writes do not add up. Then the next
 * request, which may have come already.
 *
 * What can go wrong: the client closes, also its sending half alone, whatever is under way: reading
 * is always on, so the call ends at once and counts as aborted. The client does not read: what the
 * kernel does not take waits, up to OUT_MAX. A connection that is closed is freed after the turn,
 * since an event for it may still be to come.
 */
#include "upstream_server.h"

#include "common/clock.h"

#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    TOKEN_GRID_US = 250, /* Tokens of many streams that share a wake-up. */
    LINGER_MS = 2000,    /* For the peer to close after `Connection: close`. */
    PIPELINED_MAX = 64 << 10,
    OUT_MAX = 64 << 20,
    IN_MAX = UPSTREAM_HEAD_MAX + UPSTREAM_BODY_MAX + UPSTREAM_READ_MAX,
};

struct upstream_call {
    bool open;
    bool keep_alive;
    enum upstream_kind kind;
    struct upstream_asked asked;
    struct upstream_answers *answers;
    size_t tokens; /* Sent so far. */
};

struct upstream_conn {
    struct upstream_watch watch;
    struct upstream_server *server;
    struct sl_list node;
    int fd; /* -1: closed. */
    bool wants_room, ending, continued;
    struct sl_buf in, out; /* Only what cannot be handled yet. */
    struct upstream_timer timer;
    struct upstream_call call;
};

/* --- closing --- */

static void end_call(struct upstream_conn *conn, bool aborted)
{
    struct upstream_call *call = &conn->call;
    assert(call->open);
    upstream_stats_end(&conn->server->stats, call->kind, aborted);
    upstream_answers_unref(call->answers);
    call->answers = NULL;
    call->open = false;
}

static void close_conn(struct upstream_conn *conn)
{
    if (conn->fd < 0) {
        return;
    }
    if (conn->call.open) {
        end_call(conn, true);
    }
    upstream_timer_stop(&conn->server->timers, &conn->timer);
    close(conn->fd);
    conn->fd = -1;
    conn->server->connections--;
    sl_list_remove(&conn->node);
    sl_list_push(&conn->server->closed, &conn->node);
}

void upstream_conns_close_all(struct upstream_server *server)
{
    SL_LIST_EACH_SAFE(node, &server->open)
    {
        close_conn(SL_ITEM(node, struct upstream_conn, node));
    }
    upstream_conns_free_closed(server);
}

void upstream_conns_free_closed(struct upstream_server *server)
{
    SL_LIST_EACH_SAFE(node, &server->closed)
    {
        struct upstream_conn *conn = SL_ITEM(node, struct upstream_conn, node);
        sl_list_remove(node);
        sl_buf_fini(&conn->in);
        sl_buf_fini(&conn->out);
        free(conn);
    }
}

/* --- writing --- */

static void watch_room(struct upstream_conn *conn, bool wants_room)
{
    struct epoll_event event = {.events = EPOLLIN | (wants_room ? EPOLLOUT : 0u),
                                .data.ptr = &conn->watch};
    if (conn->wants_room != wants_room) {
        conn->wants_room = wants_room;
        if (epoll_ctl(conn->server->epoll, EPOLL_CTL_MOD, conn->fd, &event) != 0) {
            close_conn(conn);
        }
    }
}

/* The end of file goes out when all is written; the peer's, or the timer, closes. */
static void end_if_written(struct upstream_conn *conn)
{
    if (conn->fd >= 0 && conn->ending && conn->out.len == 0) {
        shutdown(conn->fd, SHUT_WR);
        upstream_timer_start(&conn->server->timers, &conn->timer,
                             sl_clock_now_us() + LINGER_MS * 1000, 1);
    }
}

/* How many bytes the kernel took; the connection is closed when it has failed. */
static size_t send_now(struct upstream_conn *conn, struct sl_span bytes)
{
    ssize_t sent = send(conn->fd, bytes.data, bytes.len, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0 && errno != EAGAIN && errno != EINTR) {
        close_conn(conn);
    }
    return sent > 0 ? (size_t)sent : 0;
}

static void send_bytes(struct upstream_conn *conn, struct sl_span bytes)
{
    size_t sent = conn->fd >= 0 && conn->out.len == 0 ? send_now(conn, bytes) : 0;
    if (conn->fd < 0 || sent == bytes.len) {
        return;
    }
    sl_buf_append(&conn->out, bytes.data + sent, bytes.len - sent);
    if (sl_buf_error(&conn->out) != 0) {
        close_conn(conn);
    } else {
        watch_room(conn, true);
    }
}

static void on_room(struct upstream_conn *conn)
{
    size_t sent = conn->out.len > 0 ? send_now(conn, sl_buf_span(&conn->out)) : 0;
    if (conn->fd < 0) {
        return;
    }
    sl_buf_consume(&conn->out, sent);
    if (conn->out.len == 0) {
        sl_buf_fini(&conn->out);
        watch_room(conn, false);
        end_if_written(conn);
    }
}

/* What is in the server's buffer. */
static void send_out(struct upstream_conn *conn)
{
    struct sl_buf *out = &conn->server->out;
    if (sl_buf_error(out) != 0) {
        close_conn(conn); /* An answer beyond all limits, or no memory for it. */
    } else {
        send_bytes(conn, sl_buf_span(out));
    }
    sl_buf_clear(out);
}

/* A whole response; its body is in the server's buffer. */
static void send_json(struct upstream_conn *conn, int status)
{
    struct upstream_server *server = conn->server;
    upstream_answers_json(&server->out, status, sl_buf_span(&server->body));
    server->out.err = server->out.err != 0 ? server->out.err : server->body.err;
    sl_buf_clear(&server->body);
    send_out(conn);
}

/* --- the answer --- */

static void answered(struct upstream_conn *conn)
{
    if (conn->fd >= 0) {
        conn->ending = !conn->call.keep_alive;
        end_call(conn, false);
        end_if_written(conn);
    }
}

/* The next token, or all of them where no time lies between; after the last the end. */
static void send_tokens(struct upstream_conn *conn)
{
    struct upstream_server *server = conn->server;
    struct upstream_call *call = &conn->call;
    const struct upstream_behaviour *behaviour = &call->answers->behaviour;
    bool at_once = behaviour->interval_ms == 0;
    size_t from = call->tokens, to = at_once ? behaviour->tokens : from + 1;
    struct sl_span bytes = upstream_answers_tokens(call->answers, from, to);
    call->tokens = to;
    server->stats.tokens += to - from;
    if (at_once) {
        sl_buf_append_span(&server->out, bytes);
        upstream_answers_tail(call->answers, &call->asked, &server->out);
        send_out(conn);
    } else {
        send_bytes(conn, bytes);
    }
    upstream_stats_written(&server->stats, conn->timer.due_us);
    if (conn->fd < 0) {
        return;
    }
    if (to < behaviour->tokens) {
        upstream_timer_start(&server->timers, &conn->timer,
                             conn->timer.due_us + behaviour->interval_ms * UINT64_C(1000),
                             TOKEN_GRID_US);
        return;
    }
    if (!at_once) {
        upstream_answers_tail(call->answers, &call->asked, &server->out);
        send_out(conn);
    }
    answered(conn);
}

static void perform(struct upstream_conn *conn)
{
    struct upstream_server *server = conn->server;
    struct upstream_call *call = &conn->call;
    if (call->kind == UPSTREAM_CHAT && call->asked.stream) {
        send_tokens(conn);
        return;
    }
    upstream_answers_write(call->answers, call->kind, &call->asked, &server->body);
    send_json(conn, 200);
    upstream_stats_written(&server->stats, conn->timer.due_us);
    answered(conn);
}

static void serve_waiting(struct upstream_conn *conn);

static void on_timer(struct upstream_timer *timer)
{
    struct upstream_conn *conn = SL_ITEM(timer, struct upstream_conn, timer);
    if (!conn->call.open) {
        close_conn(conn); /* It lingered for long enough. */
        return;
    }
    perform(conn);
    serve_waiting(conn);
}

/* --- the request --- */

/* The body is in the server's buffer. */
static void answer_now(struct upstream_conn *conn, int status, bool keep_alive)
{
    send_json(conn, status);
    conn->ending = !keep_alive;
    end_if_written(conn);
}

static void refuse(struct upstream_conn *conn, int status, const char *why, bool keep_alive)
{
    upstream_put_error(&conn->server->body, why);
    answer_now(conn, status, keep_alive);
}

static void start_call(struct upstream_conn *conn, enum upstream_kind kind,
                       const struct upstream_asked *asked, bool keep_alive)
{
    struct upstream_server *server = conn->server;
    uint64_t now = sl_clock_now_us();
    conn->call = (struct upstream_call){.open = true,
                                        .keep_alive = keep_alive,
                                        .kind = kind,
                                        .asked = *asked,
                                        .answers = upstream_answers_ref(server->answers)};
    upstream_stats_begin(&server->stats, kind);
    uint64_t latency = upstream_answers_latency_us(server->answers, kind, asked);
    if (latency > 0) {
        upstream_timer_start(&server->timers, &conn->timer, now + latency, 1);
    } else {
        conn->timer.due_us = now;
        perform(conn);
    }
}

static void serve(struct upstream_conn *conn, const struct upstream_request *request)
{
    const struct upstream_route *route = upstream_route_find(request->method, request->path);
    struct upstream_server *server = conn->server;
    struct upstream_asked asked = {.count = 0};
    const char *why = "";
    if (route == NULL) {
        refuse(conn, 404, "no such endpoint", request->keep_alive);
    } else if (route->read != NULL) {
        if (route->read(request->body, &asked, &why) != 0) {
            refuse(conn, 400, why, request->keep_alive);
        } else {
            start_call(conn, route->kind, &asked, request->keep_alive);
        }
    } else if (route->handle != NULL) {
        int status = route->handle(server, request->body, &server->body);
        answer_now(conn, status, request->keep_alive);
    } else {
        if (route->kind != UPSTREAM_KINDS) {
            upstream_stats_begin(&server->stats, route->kind);
            upstream_stats_end(&server->stats, route->kind, false);
        }
        sl_buf_append_text(&server->body, route->body);
        answer_now(conn, 200, request->keep_alive);
    }
}

/* Serves what is whole in bytes as long as nothing is to be waited for; how much was used. */
static size_t serve_bytes(struct upstream_conn *conn, struct sl_span bytes)
{
    size_t used = 0;
    while (conn->fd >= 0 && !conn->ending && !conn->call.open && used < bytes.len) {
        struct sl_span rest = {bytes.data + used, bytes.len - used};
        struct upstream_request request;
        const char *why = "";
        int rv = upstream_request_read(rest, &request, &why);
        if (rv == -SL_EAGAIN) {
            if (request.wants_continue && !conn->continued) {
                conn->continued = true;
                send_bytes(conn, SL_SPAN("HTTP/1.1 100 Continue\r\n\r\n"));
            }
            break;
        }
        if (rv != 0) {
            refuse(conn, 400, why, false);
            break;
        }
        conn->continued = false;
        serve(conn, &request);
        used += request.len;
    }
    return used;
}

static void serve_waiting(struct upstream_conn *conn)
{
    if (conn->fd < 0 || conn->in.len == 0) {
        return;
    }
    sl_buf_consume(&conn->in, serve_bytes(conn, sl_buf_span(&conn->in)));
    if (conn->in.len == 0) {
        sl_buf_fini(&conn->in);
    }
}

/* Most requests come whole, with nothing before or behind them: they are served where they are. */
static void on_bytes(struct upstream_conn *conn, struct sl_span bytes)
{
    bool served = conn->in.len == 0;
    if (served) {
        size_t used = serve_bytes(conn, bytes);
        bytes = (struct sl_span){bytes.data + used, bytes.len - used};
    }
    if (conn->fd < 0 || conn->ending || bytes.len == 0) {
        return;
    }
    sl_buf_append_span(&conn->in, bytes);
    if (sl_buf_error(&conn->in) != 0 || (conn->call.open && conn->in.len > PIPELINED_MAX)) {
        close_conn(conn);
    } else if (!served) {
        serve_waiting(conn);
    }
}

static void on_ready(struct upstream_watch *watch, uint32_t events)
{
    struct upstream_conn *conn = SL_ITEM(watch, struct upstream_conn, watch);
    if (conn->fd >= 0 && (events & EPOLLOUT) != 0) {
        on_room(conn);
    }
    if (conn->fd < 0 || (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) == 0) {
        return;
    }
    ssize_t len = recv(conn->fd, conn->server->in, UPSTREAM_READ_MAX, MSG_DONTWAIT);
    if (len > 0) {
        on_bytes(conn, (struct sl_span){conn->server->in, (size_t)len});
    } else if (len == 0 || (errno != EAGAIN && errno != EINTR)) {
        close_conn(conn);
    }
}

/* --- opening --- */

int upstream_conn_open(struct upstream_server *server, int fd)
{
    struct upstream_conn *conn = calloc(1, sizeof(*conn));
    int on = 1;
    if (conn == NULL || upstream_timers_reserve(&server->timers, server->connections + 1) != 0) {
        free(conn);
        return -SL_ENOMEM;
    }
    conn->watch.ready = on_ready;
    conn->timer.fire = on_timer;
    conn->server = server;
    conn->fd = fd;
    sl_buf_init(&conn->in, IN_MAX);
    sl_buf_init(&conn->out, OUT_MAX);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = &conn->watch};
    if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) != 0 ||
        epoll_ctl(server->epoll, EPOLL_CTL_ADD, fd, &event) != 0) {
        free(conn);
        return -SL_EIO;
    }
    server->connections++;
    sl_list_push(&server->open, &conn->node);
    return 0;
}
