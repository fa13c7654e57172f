/*
 * What the files of the HTTP server share: http_server_listen.c (the server as a whole),
 * http_server.c (connections, parsing, time-outs), http_server_request.c (what a request's head
 * says and whether it may) and http_server_response.c (what is written). For no one else.
 */
#ifndef SLUICE_COMMON_HTTP_SERVER_INTERNAL_H
#define SLUICE_COMMON_HTTP_SERVER_INTERNAL_H

#include "common/http_server.h"
#include "common/tcp.h"

enum { SL_HTTP_LINGER_MS = 2000 }; /* How long a closed connection waits for its peer to close. */

/* In the order in which a connection runs through them. */
enum sl_http_phase {
    SL_HTTP_IDLE,    /* Nothing of the next request has come. */
    SL_HTTP_HEAD,    /* From its first byte on. */
    SL_HTTP_BODY,    /* The head is accepted. */
    SL_HTTP_WAITING, /* The handler has the exchange and has not begun to answer. */
    SL_HTTP_STREAM,  /* Between stream_begin and stream_end. */
    SL_HTTP_FLUSH,   /* Answered; on_gone comes when the last byte is taken. */
};

struct sl_http_incoming {
    const char *method; /* Static. */
    struct sl_buf head; /* The target, then "name:value\n" for each header. */
    struct sl_buf body;
    size_t target_len;
    size_t path_at, path_len; /* In head; length 0 stands for "/". */
    size_t query_at, query_len;
    bool http10;
    bool is_head; /* The method is HEAD: the response has no body. */
    bool keep_alive;
    bool wants_continue; /* Expect: 100-continue. */
};

/* The part of a connection that the other files use, and its first member; the rest is
 * http_server.c's. */
struct sl_http_exchange {
    struct sl_http_server *server;
    struct sl_list node; /* In server->connections. */
    struct sl_tcp *tcp;
    struct sl_http_incoming request;
    enum sl_http_phase phase;
    bool broken;           /* To be closed as soon as no caller is on the stack. */
    uint64_t written;      /* Bytes given to tcp. */
    uint64_t taken;        /* Of those, taken by the kernel when the stall timer was started. */
    size_t uncounted;      /* Waiting bytes that do not count for max_write_queue. */
    size_t large;          /* Of the body, what counts for max_large_bodies. */
    struct sl_task task;   /* Looks at the exchange after the caller's turn. */
    struct sl_timer timer; /* Of the phase; from WAITING on: of a stalled reader. */
    void (*on_gone)(void *ctx, bool complete);
    void *gone_ctx;
};

struct sl_http_server {
    struct sl_loop *loop;
    struct sl_http_server_config config;
    struct sl_http_server_callbacks callbacks;
    void *ctx;
    struct sl_tcp_listener *listener;
    struct sl_list connections; /* sl_http_exchange.node */
    size_t connection_count;
    size_t large;          /* Bytes of large bodies, all exchanges together. */
    char why[96];          /* A refusal's reason that is put together. */
    struct sl_buf scratch; /* The head that is being written. */
    bool draining;
};

/* http_server.c: takes over the connection. */
void sl_http_connection_open(struct sl_http_server *server, struct sl_tcp *tcp);
/* Closes it now; on_gone comes inside. Not while one of its callbacks is on the stack. */
void sl_http_connection_close(struct sl_http_exchange *exchange);
/* Something about the exchange changed; it is looked at after this turn. */
void sl_http_exchange_changed(struct sl_http_exchange *exchange);

/* http_server_request.c: the head is complete; what llhttp found in it is in major, minor and
 * chunked. Finds path and query and refuses what must not be: 0, or the status to answer with and
 * the reason (static) in why. */
int sl_http_incoming_check(struct sl_http_incoming *request, int major, int minor, bool chunked,
                           const char **why) SL_CHECKED;
/* Frees all of it; it can be used again. */
void sl_http_incoming_clear(struct sl_http_incoming *request);

/* The body's bytes do not count any more. */
void sl_http_body_uncount(struct sl_http_exchange *exchange);

/* http_server_response.c: the server's own answer on a connection that will be closed. */
int sl_http_refuse(struct sl_http_server *server, struct sl_tcp *tcp, bool with_body, int status,
                   const char *why) SL_CHECKED;

#endif
