/*
 * A connection that keeps itself up. One try goes: resolve the name, on the thread pool unless it
 * is an address; connect to its addresses in turn; open. One timer serves all waits: in
 * SL_LINK_WAITING it starts the next try, before SL_LINK_OPEN it is the time-out of the step.
 *
 * What can go wrong:
 * - A refused connection: the poll reports a failed descriptor, SO_ERROR says why, and the next
 *   address is tried, or the try has failed.
 * - A name server that hangs: getaddrinfo cannot be cancelled, so the try times out and the look-up
 *   stays in flight. The next try waits for that one and submits no second, so that a link never
 *   holds more than one thread of the pool; a link that is gone leaves it an orphan.
 * - A write fails because the peer has closed: what the peer said before is still to be read (Redis
 *   tells why it refuses a client, then closes), so reading goes first and reports the end.
 * - The owner closes the link inside on_bytes: each loop here looks at the state after a callback.
 *   A closed link opens again from the timer only, so the state alone tells.
 */
#include "common/redis_link.h"

#include "common/clock.h"

#include <assert.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    BACKOFF_BASE_MS = 50,
    BACKOFF_CAP_MS = 2000,
    READ_SIZE = 65536,
    READS_A_TURN = 16, /* Then others have their turn. */
    COMPACT_SIZE = 65536,
};

/* A name being looked up. Everything but link is the pool's thread's until it is done. */
struct sl_redis_resolve {
    struct sl_redis_link *link; /* NULL: the link is gone. */
    char host[256];
    char port[8];
    int rv;
    struct addrinfo *addresses;
};

static void on_retry(struct sl_timer *timer);

/* --- closing --- */

static void close_socket(struct sl_redis_link *link)
{
    sl_poll_destroy(link->poll);
    link->poll = NULL;
    link->events = 0;
    if (link->fd >= 0) {
        close(link->fd);
        link->fd = -1;
    }
}

static void forget_addresses(struct sl_redis_link *link)
{
    if (link->addresses != NULL) {
        freeaddrinfo(link->addresses);
    }
    link->addresses = link->next_address = NULL;
}

void sl_redis_link_close(struct sl_redis_link *link, const char *format, ...)
{
    if (link->state <= SL_LINK_WAITING) {
        return;
    }
    char why[512];
    va_list args;
    va_start(args, format);
    vsnprintf(why, sizeof(why), format, args);
    va_end(args);
    for (char *c = why; *c != '\0'; c++) { /* It may hold the server's words. */
        *c = (unsigned char)*c < ' ' ? ' ' : *c;
    }

    close_socket(link);
    forget_addresses(link);
    sl_task_cancel(&link->flush);
    sl_buf_fini(&link->out);
    link->out_pos = 0;
    link->state = SL_LINK_WAITING;
    sl_timer_start(link->loop, &link->timer, sl_backoff_next_ms(&link->backoff), on_retry);
    link->callbacks->on_closed(link, why);
}

/* --- reading and writing --- */

static int set_events(struct sl_redis_link *link, int events)
{
    if (events == link->events) {
        return 0;
    }
    link->events = events;
    return sl_poll_set(link->poll, events);
}

void sl_redis_link_read(struct sl_redis_link *link)
{
    /* The release's flags would have it zeroed at each read, which costs more than the read. */
    char bytes[READ_SIZE] __attribute__((uninitialized));
    for (int i = 0; i < READS_A_TURN && link->state == SL_LINK_OPEN; i++) {
        ssize_t len = recv(link->fd, bytes, sizeof(bytes), 0);
        if (len > 0) {
            link->callbacks->on_bytes(link, (struct sl_span){bytes, (size_t)len});
        } else if (len == 0) {
            sl_redis_link_close(link, "%s closed the connection", link->name);
        } else if (errno == EAGAIN) {
            return;
        } else if (errno != EINTR) {
            sl_redis_link_close(link, "reading from %s: %s", link->name, strerror(errno));
        }
    }
}

static void write_out(struct sl_redis_link *link)
{
    int error = 0;
    while (error == 0 && link->out_pos < link->out.len) {
        ssize_t len = send(link->fd, link->out.data + link->out_pos, link->out.len - link->out_pos,
                           MSG_NOSIGNAL);
        link->out_pos += len > 0 ? (size_t)len : 0;
        error = len < 0 && errno != EINTR ? errno : 0;
    }
    if (error != 0 && error != EAGAIN) {
        sl_redis_link_read(link);
        sl_redis_link_close(link, "writing to %s: %s", link->name, strerror(error));
        return;
    }
    if (link->out_pos == link->out.len) {
        sl_buf_clear(&link->out);
        link->out_pos = 0;
    } else if (link->out_pos > COMPACT_SIZE && link->out_pos > link->out.len / 2) {
        sl_buf_consume(&link->out, link->out_pos);
        link->out_pos = 0;
    }
    if (set_events(link, SL_READABLE | (link->out.len > 0 ? SL_WRITABLE : 0)) != 0) {
        sl_redis_link_close(link, "cannot watch the connection to %s", link->name);
    }
}

static void on_flush(struct sl_task *task)
{
    struct sl_redis_link *link = SL_ITEM(task, struct sl_redis_link, flush);
    assert(link->state == SL_LINK_OPEN);
    write_out(link);
}

void sl_redis_link_flush(struct sl_redis_link *link)
{
    assert(link->state == SL_LINK_OPEN);
    sl_task_defer(link->loop, &link->flush, on_flush);
}

void sl_redis_link_settled(struct sl_redis_link *link)
{
    sl_backoff_reset(&link->backoff);
}

/* --- connecting --- */

static void connect_next(struct sl_redis_link *link);

static void on_connected(struct sl_redis_link *link)
{
    sl_timer_stop(link->loop, &link->timer);
    forget_addresses(link);
    link->state = SL_LINK_OPEN;
    if (set_events(link, SL_READABLE) != 0) {
        sl_redis_link_close(link, "cannot watch the connection to %s", link->name);
        return;
    }
    link->callbacks->on_open(link);
}

static void on_ready(void *ctx, int events)
{
    struct sl_redis_link *link = ctx;
    if (link->state == SL_LINK_CONNECTING) {
        socklen_t size = sizeof(link->connect_errno);
        int rv = getsockopt(link->fd, SOL_SOCKET, SO_ERROR, &link->connect_errno, &size);
        link->connect_errno = rv != 0 ? errno : link->connect_errno;
        if (link->connect_errno != 0) {
            connect_next(link);
        } else {
            on_connected(link);
        }
        return;
    }
    if (events & SL_READABLE) {
        sl_redis_link_read(link);
    }
    if (link->state == SL_LINK_OPEN && (events & SL_WRITABLE)) {
        write_out(link);
    }
}

/* 0 or an errno. */
static int connect_to(struct sl_redis_link *link, const struct addrinfo *address)
{
    int on = 1;
    link->fd = socket(address->ai_family, address->ai_socktype | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (link->fd < 0 || setsockopt(link->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) != 0 ||
        (connect(link->fd, address->ai_addr, address->ai_addrlen) != 0 && errno != EINPROGRESS)) {
        return errno;
    }
    if (sl_poll_create(link->loop, link->fd, on_ready, link, &link->poll) != 0 ||
        set_events(link, SL_WRITABLE) != 0) {
        return ENOMEM;
    }
    return 0;
}

static void on_step_timeout(struct sl_timer *timer)
{
    struct sl_redis_link *link = SL_ITEM(timer, struct sl_redis_link, timer);
    if (link->state == SL_LINK_RESOLVING) {
        sl_redis_link_close(link, "looking up %s timed out after %u ms", link->host,
                            link->connect_timeout_ms);
    } else {
        assert(link->state == SL_LINK_CONNECTING);
        link->connect_errno = ETIMEDOUT;
        connect_next(link);
    }
}

/* To the next address, or the try has failed. */
static void connect_next(struct sl_redis_link *link)
{
    link->state = SL_LINK_CONNECTING;
    while (link->next_address != NULL) {
        const struct addrinfo *address = link->next_address;
        link->next_address = address->ai_next;
        close_socket(link);
        int error = connect_to(link, address);
        if (error == 0) {
            sl_timer_start(link->loop, &link->timer, link->connect_timeout_ms, on_step_timeout);
            return;
        }
        link->connect_errno = error;
    }
    sl_redis_link_close(link, "connecting to %s: %s", link->name, strerror(link->connect_errno));
}

/* --- resolving --- */

static int look_up(const char *host, const char *port, int flags, struct addrinfo **ret)
{
    const struct addrinfo hints = {
        .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = flags | AI_NUMERICSERV};
    return getaddrinfo(host, port, &hints, ret);
}

static void resolve_on_pool(void *ctx)
{
    struct sl_redis_resolve *resolve = ctx;
    resolve->rv = look_up(resolve->host, resolve->port, 0, &resolve->addresses);
}

static void on_resolved(void *ctx)
{
    struct sl_redis_resolve *resolve = ctx;
    struct sl_redis_link *link = resolve->link;
    if (link != NULL) {
        link->resolve = NULL;
    }
    if (link == NULL || link->state != SL_LINK_RESOLVING) { /* Too late. */
        if (resolve->addresses != NULL) {
            freeaddrinfo(resolve->addresses);
        }
    } else if (resolve->rv != 0) {
        sl_redis_link_close(link, "looking up %s: %s", link->host, gai_strerror(resolve->rv));
    } else {
        link->addresses = link->next_address = resolve->addresses;
        connect_next(link);
    }
    free(resolve);
}

static void submit_resolve(struct sl_redis_link *link)
{
    struct sl_redis_resolve *resolve = calloc(1, sizeof(*resolve));
    if (resolve != NULL) {
        resolve->link = link;
        snprintf(resolve->host, sizeof(resolve->host), "%s", link->host);
        snprintf(resolve->port, sizeof(resolve->port), "%u", link->port);
        if (sl_work_submit(link->loop, resolve_on_pool, on_resolved, resolve) == 0) {
            link->resolve = resolve;
            return;
        }
        free(resolve);
    }
    sl_redis_link_close(link, "looking up %s: out of memory", link->host);
}

static void on_retry(struct sl_timer *timer)
{
    struct sl_redis_link *link = SL_ITEM(timer, struct sl_redis_link, timer);
    assert(link->state == SL_LINK_WAITING && link->fd < 0);
    char port[8];
    snprintf(port, sizeof(port), "%u", link->port);
    if (look_up(link->host, port, AI_NUMERICHOST, &link->addresses) == 0) {
        link->next_address = link->addresses;
        connect_next(link);
        return;
    }
    link->addresses = NULL;
    link->state = SL_LINK_RESOLVING;
    sl_timer_start(link->loop, &link->timer, link->connect_timeout_ms, on_step_timeout);
    if (link->resolve == NULL) {
        submit_resolve(link);
    }
}

/* --- beginning and end --- */

void sl_redis_link_start(struct sl_redis_link *link, struct sl_loop *loop,
                         const struct sl_redis_link_callbacks *callbacks, const char *host,
                         uint16_t port, uint32_t connect_timeout_ms, size_t out_max)
{
    *link = (struct sl_redis_link){
        .state = SL_LINK_WAITING,
        .loop = loop,
        .callbacks = callbacks,
        .host = host,
        .port = port,
        .connect_timeout_ms = connect_timeout_ms,
        .fd = -1,
    };
    bool brackets = strchr(host, ':') != NULL;
    snprintf(link->name, sizeof(link->name), "%s%s%s:%u", brackets ? "[" : "", host,
             brackets ? "]" : "", port);
    sl_buf_init(&link->out, out_max);
    uint64_t seed = sl_clock_now_us() ^ (uint64_t)getpid() << 32 ^ (uintptr_t)link;
    sl_backoff_init(&link->backoff, BACKOFF_BASE_MS, BACKOFF_CAP_MS, seed);
    sl_timer_start(loop, &link->timer, 0, on_retry);
}

void sl_redis_link_stop(struct sl_redis_link *link)
{
    if (link->state == SL_LINK_STOPPED) {
        return;
    }
    if (link->resolve != NULL) {
        link->resolve->link = NULL;
    }
    close_socket(link);
    forget_addresses(link);
    sl_timer_stop(link->loop, &link->timer);
    sl_task_cancel(&link->flush);
    sl_buf_fini(&link->out);
    link->state = SL_LINK_STOPPED;
}
