/*
 * A socket in three states. It is registered with epoll once, edge-triggered for both directions:
 * no system call then changes what is waited for, and after each event one recv() that fills less
 * than the buffer is enough.
 */
#include "tests/bench/load_conn.h"

#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <unistd.h>

static int start(struct load_conn *conn, const struct load_request *request, int epoll_fd)
{
    const int on = 1;
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET,
                                .data.ptr = conn};
    if (setsockopt(conn->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) != 0 ||
        epoll_ctl(epoll_fd, EPOLL_CTL_ADD, conn->fd, &event) != 0) {
        return -1;
    }
    int rv = connect(conn->fd, (const struct sockaddr *)&request->address, request->address_len);
    return rv == 0 || errno == EINPROGRESS ? 0 : -1;
}

int load_conn_open(struct load_conn *conn, const struct load_request *request, int epoll_fd)
{
    assert(conn->state == LOAD_CONN_CLOSED);
    conn->fd = socket(request->address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (conn->fd < 0) {
        return -1;
    }
    conn->state = LOAD_CONN_CONNECTING;
    if (start(conn, request, epoll_fd) != 0) {
        load_conn_close(conn);
        return -1;
    }
    return 0;
}

int load_conn_check(struct load_conn *conn)
{
    int err = 0;
    socklen_t len = sizeof(err);
    assert(conn->state == LOAD_CONN_CONNECTING);
    if (getsockopt(conn->fd, SOL_SOCKET, SO_ERROR, &err, &len) != 0 || err != 0) {
        return -1;
    }
    conn->state = LOAD_CONN_READY;
    return 0;
}

void load_conn_close(struct load_conn *conn)
{
    if (conn->state != LOAD_CONN_CLOSED) {
        (void)close(conn->fd); /* Nothing is left to be written. */
        conn->state = LOAD_CONN_CLOSED;
    }
}

void load_conn_begin(struct load_conn *conn, uint64_t number)
{
    conn->has_call = true;
    conn->reused = conn->state == LOAD_CONN_READY;
    conn->answered = false;
    conn->number = number;
    conn->sent = 0;
    load_http_init(&conn->http);
    load_sse_init(&conn->sse);
}

int load_conn_send(struct load_conn *conn, struct load_request *request)
{
    struct sl_span text = load_request_text(request, conn->number);
    while (conn->sent < text.len) {
        ssize_t sent = send(conn->fd, text.data + conn->sent, text.len - conn->sent, MSG_NOSIGNAL);
        if (sent < 0) {
            return errno == EAGAIN ? 0 : -1; /* Non-blocking calls know no EINTR. */
        }
        conn->sent += (size_t)sent;
    }
    return 0;
}
