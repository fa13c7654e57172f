/*
 * The stub as a server on epoll, and what its files share: upstream_server.c (listening, accepting,
 * the turns of the loop), upstream_conn.c (a connection and its call) and upstream_routes.c (which
 * request is which). One thread.
 */
#ifndef SLUICE_BENCH_UPSTREAM_SERVER_H
#define SLUICE_BENCH_UPSTREAM_SERVER_H

#include "upstream_answers.h"
#include "upstream_request.h"
#include "upstream_stats.h"
#include "upstream_timers.h"

#include "common/list.h"

enum { UPSTREAM_READ_MAX = 256 << 10 };

/* What epoll's event points to: the first member of what is watched. */
struct upstream_watch {
    void (*ready)(struct upstream_watch *watch, uint32_t events);
};

struct upstream_server {
    struct upstream_watch accept_watch, timer_watch, signal_watch;
    int epoll, listener, signals;
    bool accepting; /* Not while as many connections are open as there may be. */
    bool stopping;
    struct upstream_timers timers;
    struct upstream_stats stats;
    struct upstream_behaviour behaviour;
    struct upstream_answers *answers; /* Of new requests. */
    struct sl_list open, closed; /* upstream_conn.node; closed ones are freed after the turn. */
    size_t connections, connections_max;
    struct sl_buf out, body;    /* The answer that is being written, and its body before it. */
    char in[UPSTREAM_READ_MAX]; /* What is being read. */
};

/* Listens. SIGTERM and SIGINT are caught from here on. 0 or -SL_E*, the reason in why; destroy it
 * in both cases. */
int upstream_server_init(struct upstream_server *server, const char *address,
                         const struct upstream_behaviour *behaviour, char *why,
                         size_t why_size) SL_CHECKED;
int upstream_server_port(const struct upstream_server *server);
/* Until a signal. 0, or -SL_EIO where epoll failed. */
int upstream_server_run(struct upstream_server *server) SL_CHECKED;
void upstream_server_fini(struct upstream_server *server);

/* --- between the files --- */

/* Takes over the fd. 0, -SL_ENOMEM or -SL_EIO: the fd is still the caller's. */
int upstream_conn_open(struct upstream_server *server, int fd) SL_CHECKED;
void upstream_conns_close_all(struct upstream_server *server);
void upstream_conns_free_closed(struct upstream_server *server);

struct upstream_route {
    const char *method, *path; /* A segment '*' is any that does not begin with '_'. */
    enum upstream_kind kind;   /* UPSTREAM_KINDS: not counted as a call. */
    upstream_read_cb *read;    /* A call that takes its time; else it is answered at once: */
    const char *body;          /* by this, */
    int (*handle)(struct upstream_server *server, struct sl_span request_body,
                  struct sl_buf *body); /* or by what this appends; returns the status. */
};

/* NULL: there is none. */
const struct upstream_route *upstream_route_find(struct sl_span method, struct sl_span path);
/* Appends {"error":{"message":...}}. */
void upstream_put_error(struct sl_buf *body, const char *message);

#endif
