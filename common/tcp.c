/*
 * TCP on libuv. The listener owns the one read buffer of all its connections (on_data borrows it,
 * and there is one thread), so an idle connection costs its handle and nothing else; the listener's
 * memory lives until the last connection has closed.
 *
 * A write first goes to the kernel with uv_try_write. What is left is copied into a queue that
 * exists only while something waits: one buffer is being written by libuv and a second one gathers
 * what comes meanwhile, then they swap. So many small writes to a slow reader cost their bytes and
 * no request each.
 *
 * A connection ends in one of two ways. sl_tcp_destroy closes it. sl_tcp_close_after_write lets it
 * linger: queue written, end of file sent, whatever comes read and dropped until the peer closes or
 * the time is over. Lingering connections have no owner: the listener lists them, closes the oldest
 * beyond LINGER_MAX and all of them when it is destroyed.
 *
 * What can go wrong: a write that fails may have been called by code that is still using the
 * connection, so on_end then comes from a deferred task; the peer resets (reads fail: on_end); no
 * memory for an accepted connection (the accept is tried again soon; libuv asks for no further ones
 * until then).
 */
#include "common/tcp.h"

#include <assert.h>
#include <netdb.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <uv.h>

enum {
    READ_SIZE = 64 * 1024,
    BACKLOG = 1024,
    LINGER_MAX = 256,
    ACCEPT_RETRY_MS = 100,
    TRY_SPANS = 8,
};

struct sl_tcp_listener {
    uv_tcp_t uv;
    struct sl_loop *loop;
    void (*on_accept)(void *ctx, struct sl_tcp *tcp);
    void *ctx;
    struct sl_timer accept_retry;
    struct sl_list lingering; /* sl_tcp.node, oldest first. */
    size_t lingering_count;
    size_t refs; /* The owner, the uv handle and each connection. */
    int port;
    char read_buffer[READ_SIZE];
};

struct queue {
    uv_write_t req;
    struct sl_buf flying; /* libuv is writing it. */
    struct sl_buf waiting;
};

struct sl_tcp {
    uv_tcp_t uv;
    struct sl_tcp_listener *listener;
    const struct sl_tcp_callbacks *callbacks;
    void *ctx;
    struct queue *queue;    /* NULL while nothing waits. */
    struct sl_task failure; /* Tells of a failed write, after the caller's turn. */
    bool failed;            /* Written no more. */
    bool ended;             /* The peer's end of file or an error has come. */
    bool lingering;
    bool shut; /* Our end of file is sent. */
    uv_shutdown_t shutdown;
    struct sl_timer linger_end;
    struct sl_list node;
};

static void listener_unref(struct sl_tcp_listener *listener)
{
    assert(listener->refs > 0);
    if (--listener->refs == 0) {
        free(listener);
    }
}

static void on_tcp_closed(uv_handle_t *handle)
{
    struct sl_tcp *tcp = handle->data;
    if (tcp->queue != NULL) {
        sl_buf_fini(&tcp->queue->flying);
        sl_buf_fini(&tcp->queue->waiting);
        free(tcp->queue);
    }
    listener_unref(tcp->listener);
    free(tcp);
}

void sl_tcp_destroy(struct sl_tcp *tcp)
{
    if (tcp == NULL) {
        return;
    }
    assert(!uv_is_closing((uv_handle_t *)&tcp->uv));
    if (tcp->lingering) {
        sl_list_remove(&tcp->node);
        tcp->listener->lingering_count--;
    }
    sl_timer_stop(tcp->listener->loop, &tcp->linger_end);
    sl_task_cancel(&tcp->failure);
    uv_close((uv_handle_t *)&tcp->uv, on_tcp_closed);
}

/* --- reading --- */

static void end(struct sl_tcp *tcp)
{
    if (!tcp->ended) {
        tcp->ended = true;
        uv_read_stop((uv_stream_t *)&tcp->uv);
        tcp->callbacks->on_end(tcp->ctx);
    }
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
    struct sl_tcp *tcp = handle->data;
    (void)suggested;
    *buf = uv_buf_init(tcp->listener->read_buffer, READ_SIZE);
}

static void on_read(uv_stream_t *stream, ssize_t count, const uv_buf_t *buf)
{
    struct sl_tcp *tcp = stream->data;
    if (count > 0) {
        tcp->callbacks->on_data(tcp->ctx, (struct sl_span){buf->base, (size_t)count});
    } else if (count < 0) {
        tcp->failed = tcp->failed || count != UV_EOF;
        end(tcp);
    }
}

void sl_tcp_start(struct sl_tcp *tcp, const struct sl_tcp_callbacks *callbacks, void *ctx)
{
    tcp->callbacks = callbacks;
    tcp->ctx = ctx;
    int rv = uv_read_start((uv_stream_t *)&tcp->uv, on_alloc, on_read);
    assert(rv == 0); /* The handle is connected, open and not reading yet. */
    (void)rv;
}

/* --- writing --- */

static void on_failure(struct sl_task *task)
{
    struct sl_tcp *tcp = SL_ITEM(task, struct sl_tcp, failure);
    if (tcp->lingering) {
        sl_tcp_destroy(tcp);
    } else {
        end(tcp);
    }
}

static void fail(struct sl_tcp *tcp)
{
    tcp->failed = true;
    sl_task_defer(tcp->listener->loop, &tcp->failure, on_failure);
}

static void on_shutdown(uv_shutdown_t *req, int status)
{
    struct sl_tcp *tcp = req->data;
    if (status != UV_ECANCELED) { /* Cancelled: it is being closed already. */
        tcp->shut = true;
        if (tcp->ended || status != 0) {
            sl_tcp_destroy(tcp);
        }
    }
}

/* The queue of a lingering connection is empty. */
static void shut(struct sl_tcp *tcp)
{
    tcp->shutdown.data = tcp;
    if (uv_shutdown(&tcp->shutdown, (uv_stream_t *)&tcp->uv, on_shutdown) != 0) {
        sl_tcp_destroy(tcp);
    }
}

static void write_flying(struct sl_tcp *tcp);

static void on_written(uv_write_t *req, int status)
{
    struct sl_tcp *tcp = req->data;
    struct queue *queue = tcp->queue;
    if (uv_is_closing((uv_handle_t *)&tcp->uv)) {
        return; /* on_tcp_closed frees the queue. */
    }
    if (status != 0) {
        fail(tcp);
        return;
    }
    sl_buf_clear(&queue->flying);
    if (queue->waiting.len > 0) {
        struct sl_buf next = queue->waiting;
        queue->waiting = queue->flying;
        queue->flying = next;
        write_flying(tcp);
        return;
    }
    sl_buf_fini(&queue->flying);
    sl_buf_fini(&queue->waiting);
    free(queue);
    tcp->queue = NULL;
    if (tcp->lingering) {
        shut(tcp);
    } else if (tcp->callbacks->on_drain != NULL && !tcp->ended) {
        tcp->callbacks->on_drain(tcp->ctx);
    }
}

static void write_flying(struct sl_tcp *tcp)
{
    struct queue *queue = tcp->queue;
    uv_buf_t buf = {.base = queue->flying.data, .len = queue->flying.len};
    queue->req.data = tcp;
    if (uv_write(&queue->req, (uv_stream_t *)&tcp->uv, &buf, 1, on_written) != 0) {
        fail(tcp);
    }
}

/* Queues what follows the first `skip` bytes of the spans. */
static int enqueue(struct sl_tcp *tcp, const struct sl_span *spans, size_t count, size_t skip)
{
    bool idle = tcp->queue == NULL;
    if (idle) {
        tcp->queue = calloc(1, sizeof(*tcp->queue));
        if (tcp->queue == NULL) {
            return -SL_ENOMEM;
        }
        sl_buf_init(&tcp->queue->flying, SIZE_MAX / 2); /* Who writes sets the limit. */
        sl_buf_init(&tcp->queue->waiting, SIZE_MAX / 2);
    }
    struct sl_buf *buf = idle ? &tcp->queue->flying : &tcp->queue->waiting;
    size_t before = buf->len;
    for (size_t i = 0; i < count; i++) {
        size_t skipped = skip < spans[i].len ? skip : spans[i].len;
        skip -= skipped;
        if (spans[i].len > skipped) {
            sl_buf_append(buf, spans[i].data + skipped, spans[i].len - skipped);
        }
    }
    if (buf->err == 0) {
        if (idle) {
            write_flying(tcp);
        }
        return 0;
    }
    buf->len = before; /* Nothing of this write stays. */
    buf->err = 0;
    if (idle) {
        sl_buf_fini(buf);
        free(tcp->queue);
        tcp->queue = NULL;
    }
    return -SL_ENOMEM;
}

int sl_tcp_write(struct sl_tcp *tcp, const struct sl_span *spans, size_t count)
{
    assert(count <= TRY_SPANS && !tcp->lingering);
    size_t total = 0;
    size_t taken = 0;
    uv_buf_t bufs[TRY_SPANS];
    if (tcp->failed) {
        return -SL_ECONN;
    }
    for (size_t i = 0; i < count; i++) {
        bufs[i] = (uv_buf_t){.base = (char *)(uintptr_t)spans[i].data, .len = spans[i].len};
        total += spans[i].len;
    }
    if (tcp->queue == NULL && total > 0) {
        int rv = uv_try_write((uv_stream_t *)&tcp->uv, bufs, (unsigned)count);
        if (rv < 0 && rv != UV_EAGAIN) {
            fail(tcp);
            return -SL_ECONN;
        }
        taken = rv > 0 ? (size_t)rv : 0;
    }
    if (taken == total) {
        return 0;
    }
    int err = enqueue(tcp, spans, count, taken);
    if (err != 0 && taken > 0) {
        fail(tcp); /* Half a write is on the wire: nothing sensible can follow it. */
    }
    return err;
}

size_t sl_tcp_queued(const struct sl_tcp *tcp)
{
    if (tcp->queue == NULL) {
        return 0;
    }
    /* Of what libuv is writing, some may be taken already; after a failure it forgets the rest. */
    size_t flying = tcp->failed ? tcp->queue->flying.len
                                : uv_stream_get_write_queue_size((const uv_stream_t *)&tcp->uv);
    return flying + tcp->queue->waiting.len;
}

/* --- lingering --- */

static void on_linger_data(void *ctx, struct sl_span bytes)
{
    (void)ctx;
    (void)bytes; /* Sent to a connection that has been given up. */
}

static void on_linger_end(void *ctx)
{
    struct sl_tcp *tcp = ctx;
    if (tcp->failed || tcp->shut) { /* Else the peer still reads, and our queue is on its way. */
        sl_tcp_destroy(tcp);
    }
}

static void on_linger_timeout(struct sl_timer *timer)
{
    sl_tcp_destroy(SL_ITEM(timer, struct sl_tcp, linger_end));
}

void sl_tcp_close_after_write(struct sl_tcp *tcp, uint32_t timeout_ms)
{
    static const struct sl_tcp_callbacks linger = {on_linger_data, on_linger_end, NULL};
    struct sl_tcp_listener *listener = tcp->listener;
    if (tcp->failed) {
        sl_tcp_destroy(tcp);
        return;
    }
    bool started = tcp->callbacks != NULL;
    tcp->callbacks = &linger;
    tcp->ctx = tcp;
    tcp->lingering = true;
    if (++listener->lingering_count > LINGER_MAX) {
        sl_tcp_destroy(SL_ITEM(sl_list_first(&listener->lingering), struct sl_tcp, node));
    }
    sl_list_push(&listener->lingering, &tcp->node);
    sl_timer_start(listener->loop, &tcp->linger_end, timeout_ms, on_linger_timeout);
    if (!started) {
        sl_tcp_start(tcp, &linger, tcp);
    }
    if (tcp->queue == NULL) {
        shut(tcp);
    }
}

/* --- listening --- */

static void on_accept_retry(struct sl_timer *timer);

static void accept_one(struct sl_tcp_listener *listener)
{
    struct sl_tcp *tcp = calloc(1, sizeof(*tcp));
    if (tcp == NULL) {
        sl_timer_start(listener->loop, &listener->accept_retry, ACCEPT_RETRY_MS, on_accept_retry);
        return;
    }
    int rv = uv_tcp_init(sl_loop_uv(listener->loop), &tcp->uv);
    assert(rv == 0); /* Makes no system call without a family. */
    tcp->uv.data = tcp;
    tcp->listener = listener;
    sl_list_init(&tcp->node);
    listener->refs++;
    rv = uv_accept((uv_stream_t *)&listener->uv, (uv_stream_t *)&tcp->uv);
    if (rv != 0) {
        sl_tcp_destroy(tcp);
        return;
    }
    uv_tcp_nodelay(&tcp->uv, 1); /* Fails only where the peer has gone, which shows soon. */
    listener->on_accept(listener->ctx, tcp);
}

static void on_accept_retry(struct sl_timer *timer)
{
    accept_one(SL_ITEM(timer, struct sl_tcp_listener, accept_retry));
}

static void on_connection(uv_stream_t *stream, int status)
{
    if (status == 0) { /* Else the peer left, or there is no descriptor: libuv tries again. */
        accept_one(stream->data);
    }
}

/* "host:port" or "[host]:port" into a socket address. */
static int resolve(const char *address, struct sockaddr_storage *ret, char *why, size_t why_size)
{
    char host[256];
    const char *colon = strrchr(address, ':');
    long long port = 0;
    size_t len = colon != NULL ? (size_t)(colon - address) : 0;
    if (len == 0 || len >= sizeof(host) || sl_span_to_int(sl_span_of(colon + 1), 0, 65535, &port)) {
        snprintf(why, why_size, "not of the form host:port");
        return -SL_EINVAL;
    }
    bool bracket = address[0] == '[' && address[len - 1] == ']';
    snprintf(host, sizeof(host), "%.*s", (int)(bracket ? len - 2 : len), address + bracket);
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
    struct addrinfo *found = NULL;
    int rv = getaddrinfo(host, colon + 1, &hints, &found);
    if (rv != 0) {
        snprintf(why, why_size, "%s", gai_strerror(rv));
        return rv == EAI_MEMORY ? -SL_ENOMEM : -SL_EINVAL;
    }
    memcpy(ret, found->ai_addr, found->ai_addrlen);
    freeaddrinfo(found);
    return 0;
}

static int listener_port(const uv_tcp_t *uv)
{
    struct sockaddr_storage at = {0};
    int len = sizeof(at);
    if (uv_tcp_getsockname(uv, (struct sockaddr *)&at, &len) != 0) {
        return 0;
    }
    return ntohs(at.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&at)->sin6_port
                                          : ((struct sockaddr_in *)&at)->sin_port);
}

int sl_tcp_listen(struct sl_loop *loop, const char *address,
                  void (*on_accept)(void *ctx, struct sl_tcp *tcp), void *ctx,
                  struct sl_tcp_listener **ret, char *why, size_t why_size)
{
    struct sockaddr_storage at;
    int err = resolve(address, &at, why, why_size);
    if (err != 0) {
        return err;
    }
    signal(SIGPIPE, SIG_IGN); /* libuv writes with write(2), to peers that may have gone. */
    struct sl_tcp_listener *listener = calloc(1, sizeof(*listener));
    if (listener == NULL) {
        snprintf(why, why_size, "%s", sl_error_text(-SL_ENOMEM));
        return -SL_ENOMEM;
    }
    listener->loop = loop;
    listener->on_accept = on_accept;
    listener->ctx = ctx;
    listener->refs = 2;
    sl_list_init(&listener->lingering);
    int rv = uv_tcp_init(sl_loop_uv(loop), &listener->uv);
    assert(rv == 0);
    listener->uv.data = listener;
    rv = uv_tcp_bind(&listener->uv, (const struct sockaddr *)&at, 0);
    if (rv == 0) {
        rv = uv_listen((uv_stream_t *)&listener->uv, BACKLOG, on_connection);
    }
    if (rv != 0) {
        snprintf(why, why_size, "%s", uv_strerror(rv));
        sl_tcp_listener_destroy(listener);
        return rv == UV_ENOMEM ? -SL_ENOMEM : -SL_EIO;
    }
    listener->port = listener_port(&listener->uv);
    *ret = listener;
    return 0;
}

int sl_tcp_listener_port(const struct sl_tcp_listener *listener)
{
    return listener->port;
}

static void on_listener_closed(uv_handle_t *handle)
{
    listener_unref(handle->data);
}

void sl_tcp_listener_stop(struct sl_tcp_listener *listener)
{
    if (!uv_is_closing((uv_handle_t *)&listener->uv)) {
        sl_timer_stop(listener->loop, &listener->accept_retry);
        uv_close((uv_handle_t *)&listener->uv, on_listener_closed);
    }
}

void sl_tcp_listener_destroy(struct sl_tcp_listener *listener)
{
    if (listener == NULL) {
        return;
    }
    sl_tcp_listener_stop(listener);
    SL_LIST_EACH_SAFE(node, &listener->lingering)
    {
        sl_tcp_destroy(SL_ITEM(node, struct sl_tcp, node));
    }
    listener_unref(listener);
}
