/*
 * HTTP/1.1 server on tcp.h and llhttp, strict about what it accepts (RFC 9112): conflicting or
 * repeated lengths, Content-Length with Transfer-Encoding, folded headers, bare line feeds and bad
 * chunk sizes are refused with 400 and the connection closed. Reads stay on while a response is
 * under way, so that a disconnect (also a half-close) is seen at once. One request at a time a
 * connection; what is pipelined waits, up to 64 KiB, and a connection that sends more is closed.
 * HTTP/1.0 is answered and closed.
 */
#ifndef SLUICE_COMMON_HTTP_SERVER_H
#define SLUICE_COMMON_HTTP_SERVER_H

#include "common/buf.h"
#include "common/http_client.h" /* struct sl_http_header */

struct sl_http_server;
struct sl_http_exchange; /* One request and its response. */

struct sl_http_server_config {
    const char *address;        /* "127.0.0.1:8080"; port 0 takes a free one. */
    size_t max_connections;     /* More are answered 503 and closed. */
    size_t max_header_bytes;    /* 431; all headers and the target; 16 KiB. */
    uint32_t header_timeout_ms; /* From the first byte to the last header: 408; 10 s. */
    uint32_t body_timeout_ms;   /* From then to the last byte of the body: 408; 30 s. */
    uint32_t idle_timeout_ms;   /* Between requests: closed; 60 s. */
    uint32_t stall_timeout_ms;  /* A reader that takes nothing for so long while bytes wait: closed,
                                 * at the latest after twice this; 30 s. */
    size_t max_write_queue;     /* Bytes not yet taken by the peer: closed beyond; 64 KiB. Does not
                                 * count the body of sl_http_respond, nor one write that found the
                                 * queue empty. */
    size_t large_body;          /* Bodies larger than this share max_large_bodies. */
    size_t max_large_bodies;    /* Bytes of them that the server holds; more: 503. 0: no limit. */
};

struct sl_http_server_callbacks {
    /* The head is there: how large a body may this request have? Bigger: 413 by the server, as soon
     * as it is known. Path without the query string. Comes from inside the parser: it may call
     * nothing of this server. */
    size_t (*max_body)(void *ctx, struct sl_span method, struct sl_span path);
    /* The request is whole. The handler answers now or later with sl_http_respond or _stream_begin.
     */
    void (*on_request)(void *ctx, struct sl_http_exchange *exchange);
    /* The server itself answers with this status (400, 408, 413, 414, 431, 501, 503 ...): append
     * the body. */
    void (*error_body)(void *ctx, int status, const char *why, struct sl_buf *body);
    /* For the same answer: append header lines, each ended by \r\n, among them the content-type.
     * NULL: text/plain. */
    void (*error_head)(void *ctx, int status, struct sl_buf *head);
};

/* Copies config and callbacks. 0, -SL_ENOMEM, -SL_EINVAL (address), -SL_EIO (cannot listen: taken,
 * not allowed); the reason in why. */
int sl_http_server_create(struct sl_loop *loop, const struct sl_http_server_config *config,
                          const struct sl_http_server_callbacks *callbacks, void *ctx,
                          struct sl_http_server **ret, char *why, size_t why_size) SL_CHECKED;
int sl_http_server_port(const struct sl_http_server *server);
size_t sl_http_server_connections(const struct sl_http_server *server);
/* Stops listening, closes idle connections, answers `Connection: close` from now on. */
void sl_http_server_drain(struct sl_http_server *server);
/* Closes everything; on_gone of open exchanges comes inside. Not from the server's own callbacks.
 * Takes NULL. */
void sl_http_server_destroy(struct sl_http_server *server);

/* The request: borrowed, valid as long as the exchange. */
struct sl_span sl_http_method(const struct sl_http_exchange *exchange);
struct sl_span sl_http_path(const struct sl_http_exchange *exchange);  /* Not decoded, no query. */
struct sl_span sl_http_query(const struct sl_http_exchange *exchange); /* After '?', or empty. */
struct sl_span sl_http_body(const struct sl_http_exchange *exchange);
/* Frees the body early: a stream may live long after its request was understood. */
void sl_http_body_release(struct sl_http_exchange *exchange);
/* The body becomes the caller's, who ends it with sl_buf_fini; ret's earlier content is lost. */
void sl_http_body_take(struct sl_http_exchange *exchange, struct sl_buf *ret);
/* The first header of that name (any case); data NULL when there is none. */
struct sl_span sl_http_request_header(const struct sl_http_exchange *exchange, const char *name);

/* Owner's data, and the call that says the exchange is gone: the response was written out (complete
 * true), or the peer left, a time-out or the write limit closed it. Comes exactly once, after
 * on_request returned or inside sl_http_server_destroy; afterwards the exchange may not be touched.
 */
void sl_http_on_gone(struct sl_http_exchange *exchange, void (*on_gone)(void *ctx, bool complete),
                     void *ctx);

/* One whole response. Copies. status is 200 to 599; content_type may be NULL, and so may headers,
 * which name neither lengths nor Connection: the server adds those, and leaves the body out for
 * HEAD, 204 and 304. Control characters in header values become '?'. No Date. */
void sl_http_respond(struct sl_http_exchange *exchange, int status, const char *content_type,
                     const struct sl_http_header *headers, size_t header_count,
                     struct sl_span body);
/* A response of unknown length, chunked: begin, any number of writes, end. */
void sl_http_stream_begin(struct sl_http_exchange *exchange, int status, const char *content_type,
                          const struct sl_http_header *headers, size_t header_count);
/* Copies. Not 0: the bytes were not taken, the connection is being closed and on_gone follows.
 * -SL_EAGAIN: the write queue is over its limit (a stalled reader); -SL_ECONN: the peer has gone;
 * -SL_ENOMEM. */
int sl_http_stream_write(struct sl_http_exchange *exchange, struct sl_span bytes) SL_CHECKED;
void sl_http_stream_end(struct sl_http_exchange *exchange);
size_t sl_http_write_queue(const struct sl_http_exchange *exchange); /* Bytes not yet taken. */

#endif
