/*
 * TCP listeners and connections on the loop. Reading is always on; writes that the kernel takes at
 * once copy nothing.
 */
#ifndef SLUICE_COMMON_TCP_H
#define SLUICE_COMMON_TCP_H

#include "common/buf.h"
#include "common/loop.h"

struct sl_tcp_listener;
struct sl_tcp;

/* address "host:port", IPv4, [IPv6] or a name of this host; port 0: a free one. on_accept gets each
 * connection, which then belongs to the callee. 0, -SL_EINVAL, -SL_EIO (taken or not allowed; the
 * reason, such as "address already in use", in why). */
int sl_tcp_listen(struct sl_loop *loop, const char *address,
                  void (*on_accept)(void *ctx, struct sl_tcp *tcp), void *ctx,
                  struct sl_tcp_listener **ret, char *why, size_t why_size) SL_CHECKED;
int sl_tcp_listener_port(const struct sl_tcp_listener *listener);
void sl_tcp_listener_destroy(struct sl_tcp_listener *listener); /* Takes NULL. */

struct sl_tcp_callbacks {
    void (*on_data)(void *ctx, struct sl_span bytes); /* Borrowed. */
    /* End of file or an error, once; the connection is still to be destroyed. */
    void (*on_end)(void *ctx);
    void (*on_drain)(void *ctx); /* The write queue became empty. May be NULL. */
};

void sl_tcp_start(struct sl_tcp *tcp, const struct sl_tcp_callbacks *callbacks, void *ctx);
/* Copies what is not taken at once. A failed write shows as on_end, later. -SL_ENOMEM: not taken.
 */
int sl_tcp_write(struct sl_tcp *tcp, const struct sl_span *spans, size_t count) SL_CHECKED;
size_t sl_tcp_queued(const struct sl_tcp *tcp); /* Bytes waiting. */
void sl_tcp_pause(struct sl_tcp *tcp,
                  bool paused); /* Reading; a disconnect is not seen meanwhile. */
/* Closes now, whatever waits; no callback comes any more. Legal inside the callbacks. Takes NULL.
 */
void sl_tcp_destroy(struct sl_tcp *tcp);
/* Closes after the queue is written, at most timeout_ms later; no callback comes any more. */
void sl_tcp_close_after_write(struct sl_tcp *tcp, uint32_t timeout_ms);

#endif
