/*
 * Lines and blocks. The status line, headers, sizes of chunks and trailers are lines; what lies
 * between is a block whose length is known. A line that is whole in the bytes at hand is read in
 * place, one that is cut is gathered in http->line.
 *
 * Of the headers those count that tell where the body ends and whether the connection lives on.
 * What can go wrong: lines over 512 bytes, a body that would end with the connection, sizes that
 * are no numbers. All are LOAD_HTTP_BROKEN, since nothing after can be read in step.
 */
#include "tests/bench/load_http.h"

#include "common/http_text.h"

#include <assert.h>

enum { STATUS_LINE, HEADER, CHUNK_SIZE, CHUNK_DATA, CHUNK_END, TRAILER, LENGTH_DATA, ENDED };

static const long long BODY_MAX = 1LL << 40;

void load_http_init(struct load_http *http)
{
    http->state = STATUS_LINE;
    http->status = 0;
    http->keep_alive = true;
    http->chunked = http->has_length = false;
    http->left = 0;
    http->line_len = 0;
}

/* A line without its end, which is CR LF. 1: there it is; 0: it is still cut; -1: too long, or it
 * ends otherwise. The line borrows from bytes or from http->line. */
static int next_line(struct load_http *http, struct sl_span *bytes, struct sl_span *ret_line)
{
    const char *end = bytes->len > 0 ? memchr(bytes->data, '\n', bytes->len) : NULL;
    size_t len = end != NULL ? (size_t)(end - bytes->data) + 1 : bytes->len;
    struct sl_span line = {bytes->data, len};
    if (http->line_len > 0 || end == NULL) {
        if (len > sizeof(http->line) - http->line_len) {
            return -1;
        }
        if (len > 0) {
            memcpy(http->line + http->line_len, bytes->data, len);
        }
        http->line_len += len;
        line = (struct sl_span){http->line, http->line_len};
    }
    *bytes = (struct sl_span){bytes->data + len, bytes->len - len};
    if (end == NULL) {
        return 0;
    }
    http->line_len = 0;
    if (line.len < 2 || line.data[line.len - 2] != '\r') {
        return -1;
    }
    *ret_line = (struct sl_span){line.data, line.len - 2};
    return 1;
}

static bool take_status(struct load_http *http, struct sl_span line)
{
    long long status = 0;
    if (!sl_span_begins(line, "HTTP/1.1 ") || line.len < 12 ||
        sl_span_to_int((struct sl_span){line.data + 9, 3}, 100, 599, &status) != 0) {
        return false;
    }
    http->status = (int)status;
    http->state = HEADER;
    return true;
}

static bool take_header(struct load_http *http, struct sl_span line)
{
    const char *colon = memchr(line.data, ':', line.len);
    if (colon == NULL) {
        return false;
    }
    struct sl_span name = {line.data, (size_t)(colon - line.data)};
    struct sl_span value = sl_http_trim((struct sl_span){colon + 1, line.len - name.len - 1});
    if (sl_span_equal_nocase(name, SL_SPAN("transfer-encoding"))) {
        http->chunked = true;
        return sl_span_equal_nocase(value, SL_SPAN("chunked"));
    }
    if (sl_span_equal_nocase(name, SL_SPAN("content-length"))) {
        long long length = 0;
        http->has_length = true;
        bool known = sl_span_to_int(value, 0, BODY_MAX, &length) == 0;
        http->left = (uint64_t)length;
        return known;
    }
    if (sl_span_equal_nocase(name, SL_SPAN("connection"))) {
        http->keep_alive = !sl_span_equal_nocase(value, SL_SPAN("close"));
    }
    return true;
}

/* The empty line after the headers. */
static bool end_head(struct load_http *http)
{
    if (http->chunked == http->has_length) {
        return false;
    }
    http->state = http->chunked ? CHUNK_SIZE : http->left > 0 ? LENGTH_DATA : ENDED;
    return true;
}

static bool take_chunk_size(struct load_http *http, struct sl_span line)
{
    uint64_t size = 0;
    size_t at = 0;
    for (; at < line.len && line.data[at] != ';'; at++) {
        const char *digits = "0123456789abcdef";
        char lower = (char)(line.data[at] >= 'A' ? line.data[at] | 0x20 : line.data[at]);
        const char *digit = memchr(digits, lower, 16);
        if (digit == NULL || at >= 10) {
            return false;
        }
        size = size * 16 + (uint64_t)(digit - digits);
    }
    http->left = size;
    http->state = size > 0 ? CHUNK_DATA : TRAILER;
    return at > 0;
}

static bool take_line(struct load_http *http, struct sl_span line)
{
    switch (http->state) {
    case STATUS_LINE:
        return take_status(http, line);
    case HEADER:
        return line.len > 0 ? take_header(http, line) : end_head(http);
    case CHUNK_SIZE:
        return take_chunk_size(http, line);
    case CHUNK_END:
        http->state = CHUNK_SIZE;
        return line.len == 0;
    default:
        assert(http->state == TRAILER);
        http->state = line.len == 0 ? ENDED : TRAILER;
        return true;
    }
}

static bool in_block(const struct load_http *http)
{
    return http->state == CHUNK_DATA || http->state == LENGTH_DATA;
}

static struct sl_span take_block(struct load_http *http, struct sl_span *bytes)
{
    size_t len = http->left < bytes->len ? (size_t)http->left : bytes->len;
    struct sl_span body = {bytes->data, len};
    *bytes = (struct sl_span){bytes->data + len, bytes->len - len};
    http->left -= len;
    if (http->left == 0) {
        http->state = http->state == CHUNK_DATA ? CHUNK_END : ENDED;
    }
    return body;
}

enum load_http_step load_http_next(struct load_http *http, struct sl_span *bytes,
                                   struct sl_span *ret_body)
{
    while (http->state != ENDED && bytes->len > 0) {
        if (in_block(http)) {
            *ret_body = take_block(http, bytes);
            return LOAD_HTTP_BODY;
        }
        struct sl_span line = {NULL, 0};
        int rv = next_line(http, bytes, &line);
        if (rv < 0 || (rv > 0 && !take_line(http, line))) {
            return LOAD_HTTP_BROKEN;
        }
    }
    return http->state == ENDED ? LOAD_HTTP_END : LOAD_HTTP_MORE;
}
