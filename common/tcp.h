/*
 * TCP listeners and connections on the loop. Reading is always on; writes that the kernel takes at
 * once copy nothing. SIGPIPE is ignored from the first sl_tcp_listen on.
 */
#ifndef SLUICE_COMMON_TCP_H
#define SLUICE_COMMON_TCP_H

#include "common/buf.h"
#include "common/loop.h"

struct sl_tcp_listener;
struct sl_tcp;

/* address "host:port", IPv4, [IPv6] or a name of this host; port 0: a free one. on_accept gets each
 * connection, which then belongs to the callee, who calls sl_tcp_start or sl_tcp_destroy in it. 0,
 * -SL_ENOMEM, -SL_EINVAL, -SL_EIO (taken or not allowed); the reason, such as "address already in
 * use", in why. */
int sl_tcp_listen(struct sl_loop *loop, const char *address,
                  void (*on_accept)(void *ctx, struct sl_tcp *tcp), void *ctx,
                  struct sl_tcp_listener **ret, char *why, size_t why_size) SL_CHECKED;
int sl_tcp_listener_port(const struct sl_tcp_listener *listener);
/* Accepts no more; its connections live on. Also when stopped. */
void sl_tcp_listener_stop(struct sl_tcp_listener *listener);
/* Also closes at once the connections that wait in sl_tcp_close_after_write; all others live on.
 * Takes NULL. */
void sl_tcp_listener_destroy(struct sl_tcp_listener *listener);

struct sl_tcp_callbacks {
    void (*on_data)(void *ctx, struct sl_span bytes); /* Borrowed. */
    /* End of file or an error, once; the connection is still to be destroyed. */
    void (*on_end)(void *ctx);
    void (*on_drain)(void *ctx); /* The write queue became empty. May be NULL. */
};

void sl_tcp_start(struct sl_tcp *tcp, const struct sl_tcp_callbacks *callbacks, void *ctx);
/* Takes all of it or fails; copies what the kernel does not take at once. -SL_ECONN: the peer has
 * gone, on_end follows (or came). -SL_ENOMEM: not taken; if it was taken in part, on_end follows.
 */
int sl_tcp_write(struct sl_tcp *tcp, const struct sl_span *spans, size_t count) SL_CHECKED;
size_t sl_tcp_queued(const struct sl_tcp *tcp); /* Bytes that the kernel has not taken. */
/* Closes now, whatever waits; no callback comes any more. Legal inside the callbacks. Takes NULL.
 */
void sl_tcp_destroy(struct sl_tcp *tcp);
/* Writes the queue, sends the end of file, and closes when the peer has closed too, at most
 * timeout_ms later: a close with unread bytes would reset the connection, and the peer might never
 * read the answer. What it still sends is dropped; no callback comes any more. Legal inside the
 * callbacks. */
void sl_tcp_close_after_write(struct sl_tcp *tcp, uint32_t timeout_ms);

#endif
