/*
 * HTTP connections: bytes in, requests to the handler, the life of a connection and its time-outs.
 *
 * The story: a connection is IDLE until a byte comes, reads the HEAD, reads the BODY, and then
 * hands its exchange to the handler (WAITING, STREAM) until the answer is given (FLUSH) and taken
 * by the kernel. Then on_gone comes, and the connection is IDLE again or closed. Each phase before
 * WAITING has a time-out; from WAITING on the one timer watches for a peer that takes nothing while
 * bytes wait. Reading never stops: bytes that come while an exchange is open wait in `pipelined`,
 * and the end of the stream is noticed in every phase.
 *
 * Safety rests on one rule: a connection is freed only by reap(), which only the entry points at
 * the bottom of the stack call (on_data, on_end, on_drain, on_timer, on_task, drain and destroy),
 * as their last act. Everything deeper marks: `closing` here, `broken` where a handler may be on
 * the stack. So a failing write, inside a parser callback or a handler, frees nothing that is in
 * use.
 *
 * The parser callbacks write nothing and call no handler but max_body. A whole request pauses the
 * parser; the next one starts with a fresh parser state, so nothing leaks from one to the other,
 * and an Upgrade header has no effect.
 *
 * All of llhttp's lenient flags stay off. What it still accepts and we do not: line feeds without a
 * carriage return before a request (skip_empty_lines), other versions, forms of targets and
 * transfer codings (http_server_request.c).
 */
#include "common/http_server_internal.h"

#include <assert.h>
#include <llhttp.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    PIPELINED_MAX = 64 * 1024,
    SMALL_BODY = 64 * 1024, /* Allocated at once when the length is known. */
};

enum closing { OPEN, CLOSE_NOW, CLOSE_AFTER_WRITE };

struct connection {
    struct sl_http_exchange exchange;
    llhttp_t parser;
    struct sl_buf pipelined;
    enum closing closing;
    int refusal; /* The status that a parser callback wants to answer with; 0: none. */
    const char *refusal_why;
    size_t length;   /* Content-Length. */
    size_t overhead; /* Bytes of chunk extensions and trailers. */
    bool seen_cr;    /* Of an empty line before a request. */
};

static void on_timer(struct sl_timer *timer);
static void on_task(struct sl_task *task);

static void start_timer(struct connection *conn, uint32_t timeout_ms)
{
    sl_timer_start(conn->exchange.server->loop, &conn->exchange.timer, timeout_ms, on_timer);
}

/* --- the end of an exchange and of a connection --- */

static void gone(struct sl_http_exchange *exchange, bool complete)
{
    void (*on_gone)(void *ctx, bool complete) = exchange->on_gone;
    exchange->on_gone = NULL;
    if (on_gone != NULL) {
        on_gone(exchange->gone_ctx, complete);
    }
}

static void reap(struct connection *conn)
{
    struct sl_http_exchange *exchange = &conn->exchange;
    struct sl_http_server *server = exchange->server;
    if (conn->closing == OPEN) {
        return;
    }
    sl_timer_stop(server->loop, &exchange->timer);
    sl_list_remove(&exchange->node);
    server->connection_count--;
    gone(exchange, false);
    sl_task_cancel(&exchange->task); /* After on_gone: nothing can defer it any more. */
    if (conn->closing == CLOSE_NOW) {
        sl_tcp_destroy(exchange->tcp);
    } else {
        sl_tcp_close_after_write(exchange->tcp, SL_HTTP_LINGER_MS);
    }
    sl_http_body_uncount(exchange);
    sl_http_incoming_clear(&exchange->request);
    sl_buf_fini(&conn->pipelined);
    free(conn);
}

static void refuse(struct connection *conn, int status, const char *why)
{
    struct sl_http_exchange *exchange = &conn->exchange;
    assert(exchange->phase < SL_HTTP_WAITING);
    int err =
        sl_http_refuse(exchange->server, exchange->tcp, !exchange->request.is_head, status, why);
    conn->closing = err == 0 ? CLOSE_AFTER_WRITE : CLOSE_NOW;
}

/* The response is with the kernel. */
static void finish(struct connection *conn)
{
    struct sl_http_exchange *exchange = &conn->exchange;
    sl_timer_stop(exchange->server->loop, &exchange->timer);
    gone(exchange, true);
    bool keep_alive = exchange->request.keep_alive && !exchange->server->draining;
    sl_http_body_uncount(exchange);
    sl_http_incoming_clear(&exchange->request);
    exchange->phase = SL_HTTP_IDLE;
    if (keep_alive) {
        start_timer(conn, exchange->server->config.idle_timeout_ms);
    } else {
        conn->closing = CLOSE_AFTER_WRITE;
    }
}

/* After anything that may have written. */
static void settle(struct connection *conn)
{
    struct sl_http_exchange *exchange = &conn->exchange;
    size_t queued = sl_tcp_queued(exchange->tcp);
    sl_task_cancel(&exchange->task);
    if (exchange->broken) {
        conn->closing = CLOSE_NOW;
    } else if (exchange->phase == SL_HTTP_FLUSH && queued == 0) {
        finish(conn);
    } else if (queued > 0 && !sl_timer_active(&exchange->timer)) {
        exchange->taken = exchange->written - queued;
        start_timer(conn, exchange->server->config.stall_timeout_ms);
    }
}

void sl_http_exchange_changed(struct sl_http_exchange *exchange)
{
    sl_task_defer(exchange->server->loop, &exchange->task, on_task);
}

/* --- what the parser tells --- */

static struct connection *conn_of(llhttp_t *parser)
{
    return parser->data;
}

static int refuse_later(struct connection *conn, int status, const char *why)
{
    conn->refusal = status;
    conn->refusal_why = why;
    return -1;
}

static int append(struct connection *conn, struct sl_buf *buf, const char *data, size_t len,
                  int too_big, const char *why)
{
    sl_buf_append(buf, data, len);
    switch (sl_buf_error(buf)) {
    case 0:
        return 0;
    case -SL_ETOOBIG:
        return refuse_later(conn, too_big, why);
    default:
        return refuse_later(conn, 503, "out of memory");
    }
}

static int refuse_large(struct connection *conn, size_t max)
{
    struct sl_http_server *server = conn->exchange.server;
    snprintf(server->why, sizeof(server->why),
             "the body is larger than %zu bytes, the most that is taken here", max);
    return refuse_later(conn, 413, server->why);
}

/* Large bodies share a limit, so that many at once cannot take all memory. */
static int count_large(struct connection *conn)
{
    struct sl_http_exchange *exchange = &conn->exchange;
    struct sl_http_server *server = exchange->server;
    size_t len = exchange->request.body.len;
    if (server->config.max_large_bodies == 0 || len <= server->config.large_body) {
        return 0;
    }
    server->large += len - exchange->large;
    exchange->large = len;
    return server->large <= server->config.max_large_bodies
               ? 0
               : refuse_later(conn, 503, "too many large bodies are being received");
}

static int on_url(llhttp_t *parser, const char *data, size_t len)
{
    struct connection *conn = conn_of(parser);
    struct sl_http_incoming *request = &conn->exchange.request;
    int rv = append(conn, &request->head, data, len, 414, "the request target is too long");
    request->target_len = request->head.len;
    return rv;
}

/* Extensions and trailers are read and forgotten, but not without end. */
static int on_overhead(llhttp_t *parser, const char *data, size_t len)
{
    struct connection *conn = conn_of(parser);
    (void)data;
    conn->overhead += len;
    return conn->overhead <= conn->exchange.server->config.max_header_bytes
               ? 0
               : refuse_later(conn, 431, "the chunk extensions or trailers are too long");
}

static int on_header(llhttp_t *parser, const char *data, size_t len)
{
    struct connection *conn = conn_of(parser);
    if (conn->exchange.phase == SL_HTTP_BODY) {
        return on_overhead(parser, data, len);
    }
    return append(conn, &conn->exchange.request.head, data, len, 431, "the headers are too long");
}

static int on_header_field_complete(llhttp_t *parser)
{
    return on_header(parser, ":", 1);
}

static int on_header_value_complete(llhttp_t *parser)
{
    struct connection *conn = conn_of(parser);
    struct sl_buf *head = &conn->exchange.request.head;
    while (conn->exchange.phase == SL_HTTP_HEAD &&
           (head->data[head->len - 1] == ' ' || head->data[head->len - 1] == '\t')) {
        head->len--; /* Ends at the colon at the latest. */
    }
    return on_header(parser, "\n", 1);
}

static int on_headers_complete(llhttp_t *parser)
{
    struct connection *conn = conn_of(parser);
    struct sl_http_exchange *exchange = &conn->exchange;
    struct sl_http_incoming *request = &exchange->request;
    struct sl_http_server *server = exchange->server;
    const char *why = "";
    request->method = llhttp_method_name((llhttp_method_t)parser->method);
    request->keep_alive = parser->http_minor == 1 && (parser->flags & F_CONNECTION_CLOSE) == 0;
    int status = sl_http_incoming_check(request, parser->http_major, parser->http_minor,
                                        (parser->flags & F_CHUNKED) != 0, &why);
    if (status != 0) {
        return refuse_later(conn, status, why);
    }
    size_t max =
        server->callbacks.max_body(server->ctx, sl_http_method(exchange), sl_http_path(exchange));
    if (parser->content_length > max) {
        return refuse_large(conn, max);
    }
    conn->length = (size_t)parser->content_length;
    sl_buf_init(&request->body, max);
    exchange->phase = SL_HTTP_BODY;
    start_timer(conn, server->config.body_timeout_ms);
    return 0;
}

static int on_body(llhttp_t *parser, const char *data, size_t len)
{
    struct connection *conn = conn_of(parser);
    struct sl_buf *body = &conn->exchange.request.body;
    if (body->cap == 0 && conn->length > 0 && conn->length <= SMALL_BODY) {
        (void)sl_buf_reserve(body, conn->length); /* An error stays until the append below. */
    }
    if (len > body->max - body->len) {
        return refuse_large(conn, body->max);
    }
    int rv = append(conn, body, data, len, 413, "");
    return rv != 0 ? rv : count_large(conn);
}

static int on_message_complete(llhttp_t *parser)
{
    (void)parser;
    return HPE_PAUSED; /* The handler runs outside the parser. */
}

static const llhttp_settings_t settings = {
    .on_url = on_url,
    .on_header_field = on_header,
    .on_header_field_complete = on_header_field_complete,
    .on_header_value = on_header,
    .on_header_value_complete = on_header_value_complete,
    .on_headers_complete = on_headers_complete,
    .on_body = on_body,
    .on_chunk_extension_name = on_overhead,
    .on_chunk_extension_value = on_overhead,
    .on_message_complete = on_message_complete,
};

/* --- from bytes to requests --- */

/* The status for what the parser itself refused. */
static int parser_status(const llhttp_t *parser)
{
    const char *at = llhttp_get_error_pos(parser);
    switch (llhttp_get_errno(parser)) {
    case HPE_INVALID_METHOD: /* A letter: some other method. Else not HTTP at all, TLS perhaps. */
        return at != NULL && ((*at >= 'A' && *at <= 'Z') || (*at >= 'a' && *at <= 'z')) ? 501 : 400;
    case HPE_INVALID_VERSION: /* Also comes for what follows a good version. */
        return parser->http_major == 1 && parser->http_minor <= 1 ? 400 : 505;
    case HPE_PAUSED_H2_UPGRADE:
        return 505;
    default:
        return 400;
    }
}

static void begin_request(struct connection *conn)
{
    struct sl_http_exchange *exchange = &conn->exchange;
    llhttp_init(&conn->parser, HTTP_REQUEST, &settings);
    conn->parser.data = conn;
    conn->length = conn->overhead = 0;
    exchange->written = exchange->taken = exchange->uncounted = 0;
    exchange->phase = SL_HTTP_HEAD;
    start_timer(conn, exchange->server->config.header_timeout_ms);
}

static void shrink(struct sl_buf *buf)
{
    char *data = buf->len > 0 && buf->len < buf->cap ? realloc(buf->data, buf->len) : NULL;
    if (data != NULL) {
        buf->data = data;
        buf->cap = buf->len;
    }
}

static void deliver(struct connection *conn)
{
    struct sl_http_exchange *exchange = &conn->exchange;
    struct sl_http_server *server = exchange->server;
    sl_timer_stop(server->loop, &exchange->timer);
    shrink(&exchange->request.head);
    shrink(&exchange->request.body);
    exchange->phase = SL_HTTP_WAITING;
    server->callbacks.on_request(server->ctx, exchange);
    settle(conn);
}

static void continue_if_expected(struct connection *conn)
{
    static const struct sl_span line = {"HTTP/1.1 100 Continue\r\n\r\n", 25};
    struct sl_http_exchange *exchange = &conn->exchange;
    if (exchange->phase == SL_HTTP_BODY && exchange->request.wants_continue) {
        exchange->request.wants_continue = false;
        if (exchange->request.body.len == 0) { /* Else the client has not waited. */
            exchange->written += line.len;
            conn->closing = sl_tcp_write(exchange->tcp, &line, 1) != 0 ? CLOSE_NOW : OPEN;
        }
    }
}

/* Gives bytes to the parser; returns how many it used. */
static size_t parse(struct connection *conn, struct sl_span bytes)
{
    switch (llhttp_execute(&conn->parser, bytes.data, bytes.len)) {
    case HPE_OK:
        continue_if_expected(conn);
        return bytes.len;
    case HPE_PAUSED: {
        size_t used = (size_t)(llhttp_get_error_pos(&conn->parser) - bytes.data);
        deliver(conn);
        return used;
    }
    default:
        if (conn->refusal != 0) {
            refuse(conn, conn->refusal, conn->refusal_why);
        } else {
            refuse(conn, parser_status(&conn->parser), llhttp_get_error_reason(&conn->parser));
        }
        return bytes.len;
    }
}

/* Empty lines before a request are ignored (RFC 9112, 2.2), bare line feeds and carriage returns
 * are not. Returns how many bytes that was. */
static size_t skip_empty_lines(struct connection *conn, struct sl_span bytes)
{
    for (size_t i = 0; i < bytes.len; i++) {
        if (conn->seen_cr != (bytes.data[i] == '\n')) {
            refuse(conn, 400, "bare carriage return or line feed");
            return bytes.len;
        }
        if (!conn->seen_cr && bytes.data[i] != '\r') {
            return i;
        }
        conn->seen_cr = !conn->seen_cr;
    }
    return bytes.len;
}

/* While an exchange is open; nothing more is wanted from a connection that will be closed. */
static void keep_pipelined(struct connection *conn, struct sl_span bytes)
{
    if (conn->exchange.request.keep_alive && !conn->exchange.server->draining) {
        sl_buf_append_span(&conn->pipelined, bytes);
        conn->closing = sl_buf_error(&conn->pipelined) != 0 ? CLOSE_NOW : conn->closing;
    }
}

static void feed(struct connection *conn, struct sl_span bytes)
{
    while (bytes.len > 0 && conn->closing == OPEN) {
        size_t used = bytes.len;
        if (conn->exchange.phase == SL_HTTP_IDLE) {
            used = skip_empty_lines(conn, bytes);
            if (used < bytes.len) {
                begin_request(conn);
            }
        } else if (conn->exchange.phase < SL_HTTP_WAITING) {
            used = parse(conn, bytes);
        } else {
            keep_pipelined(conn, bytes);
        }
        bytes.data += used;
        bytes.len -= used;
    }
}

/* The exchange may have ended: the next request may have come already. */
static void feed_pipelined(struct connection *conn)
{
    if (conn->exchange.phase == SL_HTTP_IDLE && conn->pipelined.len > 0) {
        struct sl_buf bytes = conn->pipelined;
        sl_buf_init(&conn->pipelined, PIPELINED_MAX);
        feed(conn, sl_buf_span(&bytes));
        sl_buf_fini(&bytes);
    }
}

/* --- the entry points: each ends with reap --- */

static void on_data(void *ctx, struct sl_span bytes)
{
    struct connection *conn = ctx;
    feed(conn, bytes);
    reap(conn);
}

static void on_end(void *ctx)
{
    struct connection *conn = ctx;
    settle(conn); /* The answer may have been taken, and only the look at it be missing. */
    conn->closing = CLOSE_NOW;
    reap(conn);
}

static void look_again(struct connection *conn)
{
    settle(conn);
    feed_pipelined(conn);
    reap(conn);
}

static void on_drain(void *ctx)
{
    struct connection *conn = ctx;
    if (conn->exchange.phase >= SL_HTTP_WAITING) {
        sl_timer_stop(conn->exchange.server->loop, &conn->exchange.timer);
        look_again(conn);
    }
}

static void on_task(struct sl_task *task)
{
    look_again((struct connection *)SL_ITEM(task, struct sl_http_exchange, task));
}

static void on_stall_timeout(struct connection *conn)
{
    struct sl_http_exchange *exchange = &conn->exchange;
    uint64_t taken = exchange->written - sl_tcp_queued(exchange->tcp);
    if (taken == exchange->taken) {
        conn->closing = CLOSE_NOW;
    } else {
        exchange->taken = taken;
        start_timer(conn, exchange->server->config.stall_timeout_ms);
    }
}

static void on_timer(struct sl_timer *timer)
{
    struct connection *conn = (struct connection *)SL_ITEM(timer, struct sl_http_exchange, timer);
    switch (conn->exchange.phase) {
    case SL_HTTP_IDLE:
        conn->closing = CLOSE_NOW;
        break;
    case SL_HTTP_HEAD:
        refuse(conn, 408, "the headers took too long");
        break;
    case SL_HTTP_BODY:
        refuse(conn, 408, "the body took too long");
        break;
    default:
        on_stall_timeout(conn);
    }
    reap(conn);
}

void sl_http_connection_open(struct sl_http_server *server, struct sl_tcp *tcp)
{
    static const struct sl_tcp_callbacks callbacks = {on_data, on_end, on_drain};
    struct connection *conn = calloc(1, sizeof(*conn));
    if (conn == NULL) {
        sl_tcp_destroy(tcp);
        return;
    }
    conn->exchange.server = server;
    conn->exchange.tcp = tcp;
    sl_buf_init(&conn->exchange.request.head, server->config.max_header_bytes);
    sl_buf_init(&conn->pipelined, PIPELINED_MAX);
    sl_list_push(&server->connections, &conn->exchange.node);
    server->connection_count++;
    start_timer(conn, server->config.idle_timeout_ms);
    sl_tcp_start(tcp, &callbacks, conn);
}

void sl_http_connection_close(struct sl_http_exchange *exchange)
{
    struct connection *conn = (struct connection *)exchange;
    conn->closing = CLOSE_NOW;
    reap(conn);
}
