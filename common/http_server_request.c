/*
 * A request's head: where it is kept, how it is looked up, and which requests are refused although
 * their bytes are well-formed. The parser has refused what is not: repeated or conflicting lengths,
 * folded headers, bare line feeds, forbidden characters. What is left to RFC 9112 and to us is
 * below: the version, the form of the target, one Host, one transfer coding, expectations.
 *
 * The head is one buffer, the target first and then "name:value\n" for each header. Neither names
 * nor values can hold a line feed, names no colon either, so this form is exact, needs no index and
 * shrinks to one allocation while a long answer is under way.
 */
#include "common/http_server_internal.h"

void sl_http_incoming_clear(struct sl_http_incoming *request)
{
    sl_buf_fini(&request->head);
    sl_buf_fini(&request->body);
    *request = (struct sl_http_incoming){.head.max = request->head.max};
}

/* --- reading the head --- */

struct header {
    struct sl_span name, value;
};

/* The header at *at, which moves to the next one; false after the last. */
static bool next_header(const struct sl_http_incoming *request, size_t *at, struct header *ret)
{
    size_t left = request->head.len - *at;
    if (left == 0) {
        return false;
    }
    const char *line = request->head.data + *at;
    const char *end = memchr(line, '\n', left);
    const char *colon = memchr(line, ':', left);
    ret->name = (struct sl_span){line, (size_t)(colon - line)};
    ret->value = (struct sl_span){colon + 1, (size_t)(end - colon - 1)};
    *at += (size_t)(end - line) + 1;
    return true;
}

static struct sl_span part(const struct sl_http_incoming *request, size_t at, size_t len)
{
    return len > 0 ? (struct sl_span){request->head.data + at, len} : SL_SPAN("");
}

struct sl_span sl_http_method(const struct sl_http_exchange *exchange)
{
    return sl_span_of(exchange->request.method);
}

struct sl_span sl_http_path(const struct sl_http_exchange *exchange)
{
    const struct sl_http_incoming *request = &exchange->request;
    return request->path_len > 0 ? part(request, request->path_at, request->path_len)
                                 : SL_SPAN("/");
}

struct sl_span sl_http_query(const struct sl_http_exchange *exchange)
{
    return part(&exchange->request, exchange->request.query_at, exchange->request.query_len);
}

struct sl_span sl_http_body(const struct sl_http_exchange *exchange)
{
    return sl_buf_span(&exchange->request.body);
}

void sl_http_body_uncount(struct sl_http_exchange *exchange)
{
    exchange->server->large -= exchange->large;
    exchange->large = 0;
}

void sl_http_body_take(struct sl_http_exchange *exchange, struct sl_buf *ret)
{
    struct sl_buf *body = &exchange->request.body;
    *ret = *body;
    sl_buf_init(body, body->max);
    sl_http_body_uncount(exchange);
}

void sl_http_body_release(struct sl_http_exchange *exchange)
{
    sl_http_body_uncount(exchange);
    sl_buf_fini(&exchange->request.body);
}

struct sl_span sl_http_request_header(const struct sl_http_exchange *exchange, const char *name)
{
    struct header header;
    size_t at = exchange->request.target_len;
    while (next_header(&exchange->request, &at, &header)) {
        if (sl_span_equal_nocase(header.name, sl_span_of(name))) {
            return header.value;
        }
    }
    return (struct sl_span){NULL, 0};
}

/* --- what is refused --- */

static int refuse(const char **why, int status, const char *reason)
{
    *why = reason;
    return status;
}

/* The host and port of a target or of a Host header; user names belong into neither. */
static bool host_ok(struct sl_span host)
{
    for (size_t i = 0; i < host.len; i++) {
        char c = host.data[i];
        bool alnum = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        if (!alnum && (c == '\0' || strchr("-._~!$&'()*+,;=:[]%", c) == NULL)) {
            return false;
        }
    }
    return true;
}

/* "/path?query", or "http://host/path?query" whose path starts at *at. */
static bool find_path(struct sl_span target, size_t *at)
{
    const char *const schemes[] = {"http://", "https://"};
    if (target.len > 0 && target.data[0] == '/') {
        *at = 0;
        return true;
    }
    for (size_t i = 0; i < 2; i++) {
        size_t start = strlen(schemes[i]);
        if (target.len <= start ||
            !sl_span_equal_nocase((struct sl_span){target.data, start}, sl_span_of(schemes[i]))) {
            continue;
        }
        size_t end = start;
        while (end < target.len && target.data[end] != '/' && target.data[end] != '?') {
            end++;
        }
        *at = end;
        return end > start && host_ok((struct sl_span){target.data + start, end - start});
    }
    return false;
}

static int check_target(struct sl_http_incoming *request, const char **why)
{
    struct sl_span target = {request->head.data, request->target_len};
    size_t at = 0;
    bool asterisk = sl_span_is(target, "*");
    if (strcmp(request->method, "CONNECT") == 0) {
        return refuse(why, 501, "no proxy");
    }
    if (asterisk ? strcmp(request->method, "OPTIONS") != 0
                 : memchr(target.data, '#', target.len) != NULL || !find_path(target, &at)) {
        return refuse(why, 400, "bad request target");
    }
    const char *question = memchr(target.data + at, '?', target.len - at);
    size_t path_end = question != NULL ? (size_t)(question - target.data) : target.len;
    request->path_at = at;
    request->path_len = path_end - at;
    if (question != NULL) {
        request->query_at = path_end + 1;
        request->query_len = target.len - request->query_at;
    }
    return 0;
}

struct seen {
    unsigned hosts;
    unsigned codings;
};

static int check_header(struct sl_http_incoming *request, const struct header *header, bool chunked,
                        struct seen *seen, const char **why)
{
    if (sl_span_equal_nocase(header->name, SL_SPAN("host"))) {
        if (seen->hosts++ > 0 || !host_ok(header->value)) {
            return refuse(why, 400, "bad or repeated Host");
        }
    } else if (sl_span_equal_nocase(header->name, SL_SPAN("transfer-encoding"))) {
        if (request->http10) {
            return refuse(why, 400, "Transfer-Encoding in HTTP/1.0");
        }
        if (seen->codings++ > 0 || !sl_span_equal_nocase(header->value, SL_SPAN("chunked"))) {
            return refuse(why, 501, "only chunked is known as Transfer-Encoding");
        }
        if (!chunked) {
            return refuse(why, 400, "bad Transfer-Encoding");
        }
    } else if (sl_span_equal_nocase(header->name, SL_SPAN("expect")) && !request->http10) {
        if (!sl_span_equal_nocase(header->value, SL_SPAN("100-continue"))) {
            return refuse(why, 417, "only 100-continue can be expected");
        }
        request->wants_continue = true;
    }
    return 0;
}

int sl_http_incoming_check(struct sl_http_incoming *request, int major, int minor, bool chunked,
                           const char **why)
{
    if (major != 1) {
        return refuse(why, 505, "only HTTP/1.0 and HTTP/1.1 are spoken");
    }
    request->http10 = minor == 0;
    request->is_head = strcmp(request->method, "HEAD") == 0;
    int status = check_target(request, why);
    struct seen seen = {0};
    struct header header;
    size_t at = request->target_len;
    while (status == 0 && next_header(request, &at, &header)) {
        status = check_header(request, &header, chunked, &seen, why);
    }
    if (status == 0 && seen.hosts == 0 && !request->http10) {
        status = refuse(why, 400, "Host is missing");
    }
    return status;
}
