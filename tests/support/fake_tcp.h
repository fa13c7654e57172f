/*
 * common/tcp.h without sockets: defines all its functions, so that a program that includes this
 * once links no common/tcp.c. A test plays the kernel and the peer: it connects, sends, takes
 * bytes, hangs up, and lets writes fail.
 */
#ifndef TESTS_SUPPORT_FAKE_TCP_H
#define TESTS_SUPPORT_FAKE_TCP_H

#include "common/tcp.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

struct sl_tcp {
    const struct sl_tcp_callbacks *callbacks;
    void *ctx;
    struct sl_buf out; /* All that was written. */
    size_t taken;      /* Of out, by the peer. */
    size_t room;       /* What the kernel takes at once; it shrinks as it is used. */
    bool destroyed;
    bool closing; /* sl_tcp_close_after_write */
};

struct sl_tcp_listener {
    void (*on_accept)(void *ctx, struct sl_tcp *tcp);
    void *ctx;
    bool stopped;
};

static struct sl_tcp_listener fake_listener;
static const char *fake_taken;  /* Why nobody can listen; NULL: anybody can. */
static long fake_failing_write; /* Counts down; the write that reaches 0 fails. 0: none. */

/* --- the peer --- */

static inline struct sl_tcp *fake_connect(void)
{
    struct sl_tcp *tcp = calloc(1, sizeof(*tcp));
    assert(tcp != NULL && !fake_listener.stopped);
    sl_buf_init(&tcp->out, SIZE_MAX / 2);
    tcp->room = SIZE_MAX / 2;
    fake_listener.on_accept(fake_listener.ctx, tcp);
    return tcp;
}

static inline bool fake_open(const struct sl_tcp *tcp)
{
    return !tcp->destroyed && !tcp->closing;
}

static inline void fake_send(struct sl_tcp *tcp, struct sl_span bytes)
{
    /* A copy of its own, so that reading past the end is noticed. */
    char *copy = malloc(bytes.len > 0 ? bytes.len : 1);
    assert(copy != NULL);
    memcpy(copy, bytes.data, bytes.len);
    if (fake_open(tcp) && bytes.len > 0) {
        tcp->callbacks->on_data(tcp->ctx, (struct sl_span){copy, bytes.len});
    }
    free(copy);
}

static inline void fake_take(struct sl_tcp *tcp, size_t len)
{
    size_t waiting = tcp->out.len - tcp->taken;
    size_t now = len < waiting ? len : waiting;
    tcp->taken += now;
    tcp->room += len - now;
    if (now > 0 && now == waiting && fake_open(tcp) && tcp->callbacks->on_drain != NULL) {
        tcp->callbacks->on_drain(tcp->ctx);
    }
}

static inline void fake_hang_up(struct sl_tcp *tcp)
{
    if (fake_open(tcp)) {
        tcp->callbacks->on_end(tcp->ctx);
    }
}

/* When the server has let go of it. */
static inline void fake_free(struct sl_tcp *tcp)
{
    assert(!fake_open(tcp));
    sl_buf_fini(&tcp->out);
    free(tcp);
}

/* --- tcp.h --- */

int sl_tcp_listen(struct sl_loop *loop, const char *address,
                  void (*on_accept)(void *ctx, struct sl_tcp *tcp), void *ctx,
                  struct sl_tcp_listener **ret, char *why, size_t why_size)
{
    (void)loop;
    (void)address;
    if (fake_taken != NULL) {
        snprintf(why, why_size, "%s", fake_taken);
        return -SL_EIO;
    }
    fake_listener = (struct sl_tcp_listener){on_accept, ctx, false};
    *ret = &fake_listener;
    return 0;
}

int sl_tcp_listener_port(const struct sl_tcp_listener *listener)
{
    (void)listener;
    return 1;
}

void sl_tcp_listener_stop(struct sl_tcp_listener *listener)
{
    listener->stopped = true;
}

void sl_tcp_listener_destroy(struct sl_tcp_listener *listener)
{
    listener->stopped = true;
}

void sl_tcp_start(struct sl_tcp *tcp, const struct sl_tcp_callbacks *callbacks, void *ctx)
{
    tcp->callbacks = callbacks;
    tcp->ctx = ctx;
}

int sl_tcp_write(struct sl_tcp *tcp, const struct sl_span *spans, size_t count)
{
    assert(fake_open(tcp));
    if (fake_failing_write > 0 && --fake_failing_write == 0) {
        return -SL_ECONN; /* The test calls fake_hang_up. */
    }
    for (size_t i = 0; i < count; i++) {
        size_t now = tcp->taken == tcp->out.len ? tcp->room : 0;
        now = now < spans[i].len ? now : spans[i].len;
        sl_buf_append_span(&tcp->out, spans[i]);
        tcp->taken += now;
        tcp->room -= now;
    }
    assert(sl_buf_error(&tcp->out) == 0);
    return 0;
}

size_t sl_tcp_queued(const struct sl_tcp *tcp)
{
    return tcp->out.len - tcp->taken;
}

void sl_tcp_destroy(struct sl_tcp *tcp)
{
    if (tcp != NULL) {
        assert(fake_open(tcp));
        tcp->destroyed = true;
    }
}

void sl_tcp_close_after_write(struct sl_tcp *tcp, uint32_t timeout_ms)
{
    (void)timeout_ms;
    assert(fake_open(tcp));
    tcp->closing = true;
}

#endif
