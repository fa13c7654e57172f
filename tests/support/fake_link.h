/*
 * common/redis_link.h without sockets: defines all its functions, so that a program that includes
 * this once links no common/redis_link.c. A test plays the network and the server of one client:
 * its first link carries commands, its second subscriptions; what they send gathers in link->out.
 */
#ifndef TESTS_SUPPORT_FAKE_LINK_H
#define TESTS_SUPPORT_FAKE_LINK_H

#include "common/redis_link.h"

#include <stdarg.h>
#include <stdio.h>

static struct sl_redis_link *fake_links[2]; /* The test forgets them when the client is gone. */

void sl_redis_link_start(struct sl_redis_link *link, struct sl_loop *loop,
                         const struct sl_redis_link_callbacks *callbacks, const char *host,
                         uint16_t port, uint32_t connect_timeout_ms, size_t out_max)
{
    (void)connect_timeout_ms;
    link->loop = loop;
    link->callbacks = callbacks;
    link->state = SL_LINK_WAITING;
    snprintf(link->name, sizeof(link->name), "%s:%u", host, port);
    sl_buf_init(&link->out, out_max);
    fake_links[fake_links[0] != NULL] = link;
}

void sl_redis_link_stop(struct sl_redis_link *link)
{
    sl_buf_fini(&link->out);
    link->state = SL_LINK_STOPPED;
}

void sl_redis_link_flush(struct sl_redis_link *link)
{
    (void)link;
}

void sl_redis_link_read(struct sl_redis_link *link)
{
    (void)link;
}

void sl_redis_link_settled(struct sl_redis_link *link)
{
    (void)link;
}

void sl_redis_link_close(struct sl_redis_link *link, const char *format, ...)
{
    char why[512];
    va_list args;
    if (link->state <= SL_LINK_WAITING) {
        return;
    }
    va_start(args, format);
    vsnprintf(why, sizeof(why), format, args);
    va_end(args);
    link->state = SL_LINK_WAITING;
    sl_buf_clear(&link->out);
    link->callbacks->on_closed(link, why);
}

static inline bool fake_link_is(size_t i, enum sl_redis_link_state state)
{
    return fake_links[i] != NULL && fake_links[i]->state == state;
}

/* Where it waits: the next try succeeds. */
static inline void fake_link_open(size_t i)
{
    if (fake_link_is(i, SL_LINK_WAITING)) {
        fake_links[i]->state = SL_LINK_OPEN;
        fake_links[i]->callbacks->on_open(fake_links[i]);
    }
}

/* Where it is open. */
static inline void fake_link_feed(size_t i, struct sl_span bytes)
{
    if (fake_link_is(i, SL_LINK_OPEN) && bytes.len > 0) {
        fake_links[i]->callbacks->on_bytes(fake_links[i], bytes);
    }
}

#endif
