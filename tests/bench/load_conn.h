/* One connection: opening, sending the request of its call, reading. It knows nothing of the pool
 * and of time. */
#ifndef TESTS_BENCH_LOAD_CONN_H
#define TESTS_BENCH_LOAD_CONN_H

#include "common/list.h"
#include "tests/bench/load_http.h"
#include "tests/bench/load_request.h"
#include "tests/bench/load_sse.h"
#include "tests/bench/measure_run.h"

enum load_conn_state { LOAD_CONN_CLOSED, LOAD_CONN_CONNECTING, LOAD_CONN_READY };

struct load_conn {
    struct measure_call call; /* While has_call. */
    struct sl_list link;      /* In the pool's list of its state. */
    enum load_conn_state state;
    int fd;
    bool has_call;
    bool reused;     /* The call has begun on a connection that was open before. */
    bool answered;   /* Bytes of the answer have come. */
    uint64_t number; /* Of the request. */
    size_t sent;     /* Bytes of it. */
    struct load_http http;
    struct load_sse sse;
};

/* Starts to connect and lets epoll tell, edge-triggered, with the connection as data. 0, or -1 with
 * the connection closed. */
int load_conn_open(struct load_conn *conn, const struct load_request *request, int epoll_fd);
/* The descriptor is writable: 0 connected, -1 failed. */
int load_conn_check(struct load_conn *conn);
void load_conn_close(struct load_conn *conn); /* Also a closed one. */

/* The next call begins; its state is fresh. */
void load_conn_begin(struct load_conn *conn, uint64_t number);
/* Sends as much as goes. 0, or -1 when the connection is broken. */
int load_conn_send(struct load_conn *conn, struct load_request *request);

#endif
