/*
 * Reading requests: the head by a small strict parser (CRLF line ends, Content-Length only, no
 * chunked bodies, no folded headers), the body by stepping over its top level.
 *
 * A request that came whole is read where recv put it; nothing is copied. One that comes in pieces
 * has its head read again with each piece: heads are short and pieces large.
 */
#include "upstream_request.h"

#include "upstream_json.h"

#include "common/http_text.h"

enum { HITS_DEFAULT = 20, INPUTS_MAX = 4096 };

static int bad(const char **why, const char *reason)
{
    *why = reason;
    return -SL_EBADMSG;
}

/* --- the head --- */

/* The text before the next separator, and over it; false when there is none. */
static bool cut(struct sl_span *text, const char *separator, struct sl_span *before)
{
    const char *found = memmem(text->data, text->len, separator, strlen(separator));
    if (found == NULL) {
        return false;
    }
    *before = (struct sl_span){text->data, (size_t)(found - text->data)};
    size_t used = before->len + strlen(separator);
    *text = (struct sl_span){text->data + used, text->len - used};
    return true;
}

static int read_first_line(struct sl_span line, struct upstream_request *request, const char **why)
{
    struct sl_span target;
    if (!cut(&line, " ", &request->method) || !cut(&line, " ", &target)) {
        return bad(why, "bad request line");
    }
    if (!sl_http_is_token(request->method) || target.len == 0 || target.data[0] != '/') {
        return bad(why, "bad method or target");
    }
    if (!sl_span_is(line, "HTTP/1.1") && !sl_span_is(line, "HTTP/1.0")) {
        return bad(why, "only HTTP/1.1 and HTTP/1.0 are spoken");
    }
    request->keep_alive = line.data[line.len - 1] == '1';
    request->path = target;
    const char *query = memchr(target.data, '?', target.len);
    if (query != NULL) {
        request->path.len = (size_t)(query - target.data);
    }
    return 0;
}

static int read_header(struct sl_span line, struct upstream_request *request, long long *body_len,
                       const char **why)
{
    struct sl_span name;
    if (!cut(&line, ":", &name) || !sl_http_is_token(name)) {
        return bad(why, "bad header");
    }
    struct sl_span value = sl_http_trim(line);
    if (sl_span_equal_nocase(name, SL_SPAN("content-length"))) {
        if (*body_len >= 0 || sl_span_to_int(value, 0, UPSTREAM_BODY_MAX, body_len) != 0) {
            return bad(why, "bad, repeated or too large Content-Length");
        }
    } else if (sl_span_equal_nocase(name, SL_SPAN("transfer-encoding"))) {
        return bad(why, "bodies need a Content-Length here");
    } else if (sl_span_equal_nocase(name, SL_SPAN("connection"))) {
        request->keep_alive = request->keep_alive
                                  ? !sl_span_equal_nocase(value, SL_SPAN("close"))
                                  : sl_span_equal_nocase(value, SL_SPAN("keep-alive"));
    } else if (sl_span_equal_nocase(name, SL_SPAN("expect"))) {
        request->wants_continue = true;
    }
    return 0;
}

int upstream_request_read(struct sl_span bytes, struct upstream_request *request, const char **why)
{
    *request = (struct upstream_request){.len = 0};
    struct sl_span rest = {bytes.data,
                           bytes.len < UPSTREAM_HEAD_MAX ? bytes.len : UPSTREAM_HEAD_MAX};
    struct sl_span line;
    long long body_len = -1;
    if (!cut(&rest, "\r\n\r\n", &line)) {
        return bytes.len < UPSTREAM_HEAD_MAX ? -SL_EAGAIN : bad(why, "the head is too long");
    }
    size_t head_len = (size_t)(rest.data - bytes.data);
    struct sl_span head = {bytes.data, head_len - 2}; /* Each line with its end. */
    int rv = cut(&head, "\r\n", &line) ? read_first_line(line, request, why) : -SL_EBADMSG;
    while (rv == 0 && cut(&head, "\r\n", &line)) {
        rv = read_header(line, request, &body_len, why);
    }
    if (rv != 0) {
        return rv;
    }
    size_t len = body_len > 0 ? (size_t)body_len : 0;
    request->len = head_len + len;
    if (bytes.len < request->len) {
        request->wants_continue = request->wants_continue && bytes.len == head_len;
        return -SL_EAGAIN;
    }
    request->body = (struct sl_span){bytes.data + head_len, len};
    return 0;
}

/* --- the body --- */

static int not_an_object(const char **why)
{
    return bad(why, "the body is not a JSON object");
}

static int read_count(struct sl_span value, long long max, uint32_t *ret, const char **why)
{
    long long number = 0;
    if (sl_span_to_int(value, 0, max, &number) != 0) {
        return bad(why, "a number is wrong or too large");
    }
    *ret = (uint32_t)number;
    return 0;
}

static int count_elements(struct sl_span array, uint32_t *ret, const char **why)
{
    size_t at = 0;
    uint32_t count = 0;
    struct sl_span value;
    enum upstream_step step;
    while ((step = upstream_json_element(array, &at, &value)) == UPSTREAM_ITEM) {
        count++;
    }
    if (step == UPSTREAM_BAD || count == 0 || count > INPUTS_MAX) {
        return bad(why, "not a list of 1 to 4096 elements");
    }
    *ret = count;
    return 0;
}

int upstream_read_embeddings(struct sl_span body, struct upstream_asked *asked, const char **why)
{
    struct sl_span key, value;
    size_t at = 0;
    enum upstream_step step;
    int rv = 0;
    while (rv == 0 && (step = upstream_json_member(body, &at, &key, &value)) != UPSTREAM_END) {
        if (step == UPSTREAM_BAD) {
            rv = not_an_object(why);
        } else if (sl_span_is(key, "input") && value.data[0] == '"') {
            asked->count = 1;
        } else if (sl_span_is(key, "input")) {
            rv = count_elements(value, &asked->count, why);
        } else if (sl_span_is(key, "encoding_format")) {
            asked->base64 = sl_span_is(value, "\"base64\"");
        }
    }
    return rv != 0 || asked->count > 0 ? rv : bad(why, "no input");
}

int upstream_read_search(struct sl_span body, struct upstream_asked *asked, const char **why)
{
    struct sl_span key, value;
    size_t at = 0;
    enum upstream_step step;
    int rv = 0;
    asked->count = HITS_DEFAULT;
    while (rv == 0 && (step = upstream_json_member(body, &at, &key, &value)) != UPSTREAM_END) {
        if (step == UPSTREAM_BAD) {
            rv = not_an_object(why);
        } else if (sl_span_is(key, "limit") || sl_span_is(key, "size")) {
            rv = read_count(value, UINT32_MAX, &asked->count, why);
        }
    }
    return rv;
}

int upstream_read_rerank(struct sl_span body, struct upstream_asked *asked, const char **why)
{
    struct sl_span key, value;
    size_t at = 0;
    enum upstream_step step;
    int rv = 0;
    asked->top = UINT32_MAX;
    while (rv == 0 && (step = upstream_json_member(body, &at, &key, &value)) != UPSTREAM_END) {
        if (step == UPSTREAM_BAD) {
            rv = not_an_object(why);
        } else if (sl_span_is(key, "documents")) {
            rv = count_elements(value, &asked->count, why);
        } else if (sl_span_is(key, "top_n") && !sl_span_is(value, "null")) {
            rv = read_count(value, UINT32_MAX, &asked->top, why);
        }
    }
    asked->top = asked->top < asked->count ? asked->top : asked->count;
    return rv != 0 || asked->count > 0 ? rv : bad(why, "no documents");
}

static int read_stream_options(struct sl_span options, struct upstream_asked *asked,
                               const char **why)
{
    struct sl_span key, value;
    size_t at = 0;
    enum upstream_step step;
    if (sl_span_is(options, "null")) {
        return 0;
    }
    while ((step = upstream_json_member(options, &at, &key, &value)) == UPSTREAM_ITEM) {
        if (sl_span_is(key, "include_usage")) {
            asked->usage = sl_span_is(value, "true");
        }
    }
    return step == UPSTREAM_END ? 0 : bad(why, "stream_options is not an object");
}

int upstream_read_chat(struct sl_span body, struct upstream_asked *asked, const char **why)
{
    struct sl_span key, value;
    size_t at = 0;
    enum upstream_step step;
    int rv = 0;
    bool messages = false;
    while (rv == 0 && (step = upstream_json_member(body, &at, &key, &value)) != UPSTREAM_END) {
        if (step == UPSTREAM_BAD) {
            rv = not_an_object(why);
        } else if (sl_span_is(key, "messages")) {
            messages = value.data[0] == '[';
            asked->prompt = (uint32_t)(value.len / 4);
        } else if (sl_span_is(key, "stream")) {
            asked->stream = sl_span_is(value, "true");
        } else if (sl_span_is(key, "stream_options")) {
            rv = read_stream_options(value, asked, why);
        }
    }
    return rv != 0 || messages ? rv : bad(why, "no messages");
}
