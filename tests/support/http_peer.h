/*
 * The other end of a server under test, in the same thread: a socket that sends and reads raw
 * bytes, and PEER_WAIT, which turns the loop until a condition holds or the bound is reached.
 */
#ifndef TESTS_SUPPORT_HTTP_PEER_H
#define TESTS_SUPPORT_HTTP_PEER_H

#include "common/buf.h"
#include "common/loop.h"
#include "tests/support/test.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

struct peer {
    int fd;
    struct sl_buf in; /* Ends with a zero that does not count. */
    bool ended;       /* The server has closed; `reset` tells how. */
    bool reset;
};

static inline void peer_open(struct peer *peer, int port)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int one = 1;
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    *peer = (struct peer){.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    CHECK(peer->fd >= 0);
    sl_buf_init(&peer->in, 64 * 1024 * 1024);
    setsockopt(peer->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    /* Fixed, or the kernel takes many megabytes for a peer that does not read. */
    const int room = 1 << 18;
    CHECK(setsockopt(peer->fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof(room)) == 0);
    CHECK(connect(peer->fd, (struct sockaddr *)&at, sizeof(at)) == 0);
}

static inline void peer_close(struct peer *peer)
{
    if (peer->fd >= 0) {
        close(peer->fd);
        peer->fd = -1;
    }
    sl_buf_fini(&peer->in);
}

/* A server that has closed already may refuse the rest. */
static inline void peer_send(struct peer *peer, struct sl_span bytes)
{
    while (bytes.len > 0) {
        ssize_t n = send(peer->fd, bytes.data, bytes.len, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0) {
            return;
        }
        bytes.data += n;
        bytes.len -= (size_t)n;
    }
}

static inline void peer_send_text(struct peer *peer, const char *text)
{
    peer_send(peer, sl_span_of(text));
}

static inline const char *peer_text(struct peer *peer)
{
    char *end = sl_buf_reserve(&peer->in, 1);
    CHECK(end != NULL);
    *end = '\0';
    return peer->in.data;
}

/* Reads what is there; true, so that it can stand in conditions. */
static inline bool peer_read(struct peer *peer)
{
    while (!peer->ended) {
        char *to = sl_buf_reserve(&peer->in, 65536);
        CHECK(to != NULL);
        ssize_t n = recv(peer->fd, to, 65536, MSG_DONTWAIT);
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
            break;
        }
        peer->reset = n < 0;
        peer->ended = n <= 0;
        peer->in.len += n > 0 ? (size_t)n : 0;
    }
    return true;
}

static inline bool peer_has(struct peer *peer, const char *text)
{
    peer_read(peer);
    return strstr(peer_text(peer), text) != NULL;
}

/* How often the text stands in what was read before. */
static inline int peer_count(struct peer *peer, const char *text)
{
    int count = 0;
    for (const char *at = strstr(peer_text(peer), text); at != NULL; at = strstr(at + 1, text)) {
        count++;
    }
    return count;
}

static inline bool peer_ended(struct peer *peer)
{
    peer_read(peer);
    return peer->ended;
}

#define PEER_WAIT(loop, cond)                                                                      \
    do {                                                                                           \
        for (int turn_ = 0; turn_ < 2000 && !(cond); turn_++) {                                    \
            sl_loop_turn(loop, 5);                                                                 \
        }                                                                                          \
        CHECK(cond);                                                                               \
    } while (0)

#endif
