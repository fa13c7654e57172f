/*
 * Responses. A head is built in the server's scratch buffer and goes to the kernel together with
 * the body, or with the first bytes of a stream's framing, in one writev; nothing is allocated
 * unless the kernel does not take it all. How long the body is, whether there is one, and whether
 * the connection lives on is decided here alone, so that no handler can answer with a wrong length
 * or with a header that breaks out of its line.
 *
 * Nothing here closes a connection or calls back: the caller may be using the exchange, so what
 * went wrong is noted (`broken`) and http_server.c looks at it after the caller's turn.
 */
#include "common/http_server_internal.h"

#include <assert.h>
#include <stdio.h>

enum { LENGTH_CHUNKED = -1, LENGTH_UNTIL_CLOSE = -2, LENGTH_NONE = -3 };

static const char *reason_phrase(int status)
{
    static const struct {
        int status;
        const char *text;
    } phrases[] = {
        {200, "OK"},
        {201, "Created"},
        {202, "Accepted"},
        {204, "No Content"},
        {304, "Not Modified"},
        {400, "Bad Request"},
        {401, "Unauthorized"},
        {403, "Forbidden"},
        {404, "Not Found"},
        {405, "Method Not Allowed"},
        {406, "Not Acceptable"},
        {408, "Request Timeout"},
        {409, "Conflict"},
        {410, "Gone"},
        {411, "Length Required"},
        {413, "Content Too Large"},
        {414, "URI Too Long"},
        {415, "Unsupported Media Type"},
        {417, "Expectation Failed"},
        {422, "Unprocessable Content"},
        {429, "Too Many Requests"},
        {431, "Request Header Fields Too Large"},
        {500, "Internal Server Error"},
        {501, "Not Implemented"},
        {502, "Bad Gateway"},
        {503, "Service Unavailable"},
        {504, "Gateway Timeout"},
        {505, "HTTP Version Not Supported"},
    };
    for (size_t i = 0; i < sizeof(phrases) / sizeof(phrases[0]); i++) {
        if (phrases[i].status == status) {
            return phrases[i].text;
        }
    }
    return "";
}

static bool token_ok(struct sl_span name)
{
    for (size_t i = 0; i < name.len; i++) {
        if (name.data[i] <= ' ' || name.data[i] > '~' ||
            strchr("\"(),/:;<=>?@[\\]{}", name.data[i])) {
            return false;
        }
    }
    return name.len > 0;
}

static bool ours(struct sl_span name)
{
    return sl_span_equal_nocase(name, SL_SPAN("content-length")) ||
           sl_span_equal_nocase(name, SL_SPAN("transfer-encoding")) ||
           sl_span_equal_nocase(name, SL_SPAN("connection"));
}

/* A value may echo what a client sent: no byte of it ends the line. */
static void append_header(struct sl_buf *head, struct sl_span name, struct sl_span value)
{
    assert(token_ok(name) && !ours(name));
    sl_buf_append_span(head, name);
    sl_buf_append(head, ": ", 2);
    size_t start = head->len;
    sl_buf_append_span(head, value);
    for (size_t i = start; i < head->len; i++) {
        unsigned char c = (unsigned char)head->data[i];
        if ((c < ' ' && c != '\t') || c == 0x7f) {
            head->data[i] = '?';
        }
    }
    sl_buf_append(head, "\r\n", 2);
}

static void begin_head(struct sl_buf *head, int status)
{
    assert(status >= 200 && status <= 599);
    sl_buf_clear(head);
    sl_buf_printf(head, "HTTP/1.1 %d %s\r\n", status, reason_phrase(status));
}

static void end_head(struct sl_buf *head, long long length, bool close)
{
    if (length >= 0) {
        sl_buf_printf(head, "content-length: %lld\r\n", length);
    } else if (length == LENGTH_CHUNKED) {
        sl_buf_append_text(head, "transfer-encoding: chunked\r\n");
    }
    sl_buf_append_text(head, close ? "connection: close\r\n\r\n" : "\r\n");
}

static void write_spans(struct sl_http_exchange *exchange, const struct sl_span *spans,
                        size_t count)
{
    for (size_t i = 0; i < count; i++) {
        exchange->written += spans[i].len;
    }
    exchange->broken = exchange->broken || sl_tcp_write(exchange->tcp, spans, count) != 0;
    if (exchange->broken ||
        (sl_tcp_queued(exchange->tcp) > 0 && !sl_timer_active(&exchange->timer))) {
        sl_http_exchange_changed(exchange);
    }
}

static void write_head(struct sl_http_exchange *exchange, int status, const char *content_type,
                       const struct sl_http_header *headers, size_t header_count, long long length,
                       struct sl_span body)
{
    struct sl_http_server *server = exchange->server;
    struct sl_http_incoming *request = &exchange->request;
    struct sl_buf *head = &server->scratch;
    assert(exchange->phase == SL_HTTP_WAITING);
    request->keep_alive = request->keep_alive && !server->draining && length != LENGTH_UNTIL_CLOSE;
    begin_head(head, status);
    if (content_type != NULL) {
        append_header(head, SL_SPAN("content-type"), sl_span_of(content_type));
    }
    for (size_t i = 0; i < header_count; i++) {
        append_header(head, headers[i].name, headers[i].value);
    }
    end_head(head, length, !request->keep_alive);
    if (sl_buf_error(head) != 0) {
        exchange->broken = true;
        sl_http_exchange_changed(exchange);
        return;
    }
    write_spans(exchange, (struct sl_span[]){sl_buf_span(head), body}, body.len > 0 ? 2 : 1);
}

void sl_http_respond(struct sl_http_exchange *exchange, int status, const char *content_type,
                     const struct sl_http_header *headers, size_t header_count, struct sl_span body)
{
    bool bodiless = status == 204 || status == 304;
    struct sl_span sent = bodiless || exchange->request.is_head ? (struct sl_span){NULL, 0} : body;
    write_head(exchange, status, content_type, headers, header_count,
               bodiless ? LENGTH_NONE : (long long)body.len, sent);
    exchange->phase = SL_HTTP_FLUSH;
    sl_http_exchange_changed(exchange);
}

void sl_http_stream_begin(struct sl_http_exchange *exchange, int status, const char *content_type,
                          const struct sl_http_header *headers, size_t header_count)
{
    write_head(exchange, status, content_type, headers, header_count,
               exchange->request.http10 ? LENGTH_UNTIL_CLOSE : LENGTH_CHUNKED,
               (struct sl_span){NULL, 0});
    exchange->uncounted = sl_tcp_queued(exchange->tcp);
    exchange->phase = SL_HTTP_STREAM;
}

int sl_http_stream_write(struct sl_http_exchange *exchange, struct sl_span bytes)
{
    assert(exchange->phase == SL_HTTP_STREAM);
    size_t queued = sl_tcp_queued(exchange->tcp);
    char size[24];
    if (bytes.len == 0 || exchange->request.is_head) {
        return 0; /* An empty chunk would be the end. */
    }
    if (exchange->broken) {
        return -SL_ECONN;
    }
    if (queued > 0 &&
        queued + bytes.len > exchange->uncounted + exchange->server->config.max_write_queue) {
        exchange->broken = true;
        sl_http_exchange_changed(exchange);
        return -SL_EAGAIN;
    }
    int len = snprintf(size, sizeof(size), "%zx\r\n", bytes.len);
    const struct sl_span chunk[] = {{size, (size_t)len}, bytes, SL_SPAN("\r\n")};
    write_spans(exchange, exchange->request.http10 ? chunk + 1 : chunk,
                exchange->request.http10 ? 1 : 3);
    if (queued == 0) {
        exchange->uncounted = sl_tcp_queued(exchange->tcp);
    }
    return exchange->broken ? -SL_ECONN : 0;
}

void sl_http_stream_end(struct sl_http_exchange *exchange)
{
    assert(exchange->phase == SL_HTTP_STREAM);
    if (!exchange->request.http10 && !exchange->request.is_head) {
        write_spans(exchange, &SL_SPAN("0\r\n\r\n"), 1);
    }
    exchange->phase = SL_HTTP_FLUSH;
    sl_http_exchange_changed(exchange);
}

size_t sl_http_write_queue(const struct sl_http_exchange *exchange)
{
    return sl_tcp_queued(exchange->tcp);
}

void sl_http_on_gone(struct sl_http_exchange *exchange, void (*on_gone)(void *ctx, bool complete),
                     void *ctx)
{
    exchange->on_gone = on_gone;
    exchange->gone_ctx = ctx;
}

int sl_http_refuse(struct sl_http_server *server, struct sl_tcp *tcp, bool with_body, int status,
                   const char *why)
{
    struct sl_buf *head = &server->scratch;
    struct sl_buf body;
    sl_buf_init(&body, 16 * 1024);
    server->callbacks.error_body(server->ctx, status, why, &body);
    begin_head(head, status);
    if (server->callbacks.error_head != NULL) {
        server->callbacks.error_head(server->ctx, status, head);
    } else {
        append_header(head, SL_SPAN("content-type"), SL_SPAN("text/plain; charset=utf-8"));
    }
    end_head(head, (long long)body.len, true);
    int err = sl_buf_error(&body) != 0 ? sl_buf_error(&body) : sl_buf_error(head);
    if (err == 0) {
        err = sl_tcp_write(tcp, (struct sl_span[]){sl_buf_span(head), sl_buf_span(&body)},
                           with_body ? 2 : 1);
    }
    sl_buf_fini(&body);
    return err;
}
