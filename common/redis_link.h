/*
 * A byte stream to one server that keeps itself up: it resolves the name on the thread pool,
 * connects without blocking, and after a failure or a loss tries again with backoff. It knows
 * nothing of Redis's protocol; used by redis.c alone.
 */
#ifndef SLUICE_COMMON_REDIS_LINK_H
#define SLUICE_COMMON_REDIS_LINK_H

#include "common/backoff.h"
#include "common/buf.h"
#include "common/loop.h"

struct addrinfo;
struct sl_redis_link;
struct sl_redis_resolve;

struct sl_redis_link_callbacks {
    void (*on_open)(struct sl_redis_link *link);
    void (*on_bytes)(struct sl_redis_link *link, struct sl_span bytes); /* Borrowed. */
    /* It was lost, or a try to connect failed; the next try is already planned. why is one line. */
    void (*on_closed)(struct sl_redis_link *link, const char *why);
};

enum sl_redis_link_state {
    SL_LINK_STOPPED,
    SL_LINK_WAITING, /* For the next try. */
    SL_LINK_RESOLVING,
    SL_LINK_CONNECTING,
    SL_LINK_OPEN,
};

/* A member of its owner. Callbacks fire from the loop, and on_closed also inside close. */
struct sl_redis_link {
    struct sl_buf out; /* While open: append here, then call flush. */
    enum sl_redis_link_state state;

    struct sl_loop *loop;
    const struct sl_redis_link_callbacks *callbacks;
    const char *host; /* Borrowed until stop. */
    uint16_t port;
    char name[300]; /* host:port */
    uint32_t connect_timeout_ms;

    int fd; /* -1: none. */
    int events;
    int connect_errno; /* Of the last address tried. */
    struct sl_poll *poll;
    size_t out_pos; /* What of out is sent. */
    struct addrinfo *addresses, *next_address;
    struct sl_redis_resolve *resolve; /* In flight; outlives a try that timed out. */
    struct sl_timer timer;            /* The next try, or the time-out of this one. */
    struct sl_task flush;
    struct sl_backoff backoff;
};

/* Begins to connect. connect_timeout_ms is for the name and for each of its addresses; out_max is
 * the limit of link->out in bytes. */
void sl_redis_link_start(struct sl_redis_link *link, struct sl_loop *loop,
                         const struct sl_redis_link_callbacks *callbacks, const char *host,
                         uint16_t port, uint32_t connect_timeout_ms, size_t out_max);
/* No callback comes any more. Not inside one. Also when never started (zeroed). */
void sl_redis_link_stop(struct sl_redis_link *link);

void sl_redis_link_flush(struct sl_redis_link *link); /* Sends out at the end of this turn. */
/* Reads now what has arrived: on_bytes and on_closed may fire inside. */
void sl_redis_link_read(struct sl_redis_link *link);
/* Closes, calls on_closed and tries again after the backoff. Nothing while waiting for a try. */
void sl_redis_link_close(struct sl_redis_link *link, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* The other end works: the next backoff begins at its base. */
void sl_redis_link_settled(struct sl_redis_link *link);

#endif
