/*
 * Spans are borrowed bytes; a buf is owned bytes that grow up to a mandatory maximum. A buf that
 * could not grow remembers it: later appends do nothing, and sl_buf_error() tells once, at the end.
 */
#ifndef SLUICE_COMMON_BUF_H
#define SLUICE_COMMON_BUF_H

#include "common/error.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct sl_span {
    const char *data; /* Not terminated. May be NULL when len is 0. */
    size_t len;
};

#define SL_SPAN(literal) ((struct sl_span){"" literal, sizeof(literal) - 1})
#define SL_SPAN_FMT "%.*s"
#define SL_SPAN_ARG(span) (int)(span).len, (span).data

static inline struct sl_span sl_span_of(const char *text)
{
    return (struct sl_span){text, text != NULL ? strlen(text) : 0};
}

static inline bool sl_span_equal(struct sl_span a, struct sl_span b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
}

static inline bool sl_span_is(struct sl_span a, const char *text)
{
    return sl_span_equal(a, sl_span_of(text));
}

static inline bool sl_span_begins(struct sl_span text, const char *prefix)
{
    size_t len = strlen(prefix);
    return text.len >= len && (len == 0 || memcmp(text.data, prefix, len) == 0);
}

/* len bytes from the front of rest into ret; false: there are not so many, nothing changed. */
static inline bool sl_span_take(struct sl_span *rest, size_t len, struct sl_span *ret)
{
    if (rest->len < len) {
        return false;
    }
    *ret = (struct sl_span){rest->data, len};
    rest->data += len;
    rest->len -= len;
    return true;
}

/* ASCII only. */
bool sl_span_equal_nocase(struct sl_span a, struct sl_span b);

/* A whole decimal number in [min, max]: 0, or -SL_EINVAL with ret untouched. */
int sl_span_to_int(struct sl_span text, long long min, long long max, long long *ret) SL_CHECKED;

struct sl_buf {
    char *data; /* Not terminated; NULL while cap is 0. */
    size_t len;
    size_t cap;
    size_t max; /* As sl_buf_init was told. */
    int err; /* 0, -SL_ENOMEM or -SL_ETOOBIG; sticky until sl_buf_clear. */
};

void sl_buf_init(struct sl_buf *buf, size_t max); /* Allocates nothing. */
void sl_buf_fini(struct sl_buf *buf);
void sl_buf_clear(struct sl_buf *buf); /* Keeps the memory, forgets the error. */
/* In decimal; what is written often has no need of sl_buf_printf. */
void sl_buf_append_uint(struct sl_buf *buf, uint64_t value);
void sl_buf_append_int(struct sl_buf *buf, int64_t value);
void sl_buf_printf(struct sl_buf *buf, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void sl_buf_vprintf(struct sl_buf *buf, const char *format, va_list args)
    __attribute__((format(printf, 2, 0)));
void sl_buf_consume(struct sl_buf *buf, size_t len); /* Drops len bytes from the front. */
struct sl_span sl_buf_span(const struct sl_buf *buf);
int sl_buf_error(const struct sl_buf *buf) SL_CHECKED;
char *sl_buf_grow(struct sl_buf *buf, size_t len); /* sl_buf_reserve where there is no room yet. */

/* Room for len more bytes at data + len, or NULL with the error set. The caller adds to buf->len.
 */
static inline char *sl_buf_reserve(struct sl_buf *buf, size_t len)
{
    return buf->err == 0 && len < buf->cap - buf->len ? buf->data + buf->len
                                                      : sl_buf_grow(buf, len);
}

static inline void sl_buf_append(struct sl_buf *buf, const void *data, size_t len) /* Copies. */
{
    char *to = len > 0 ? sl_buf_reserve(buf, len) : NULL;
    if (to != NULL) {
        memcpy(to, data, len);
        buf->len += len;
    }
}

static inline void sl_buf_append_span(struct sl_buf *buf, struct sl_span span)
{
    sl_buf_append(buf, span.data, span.len);
}

static inline void sl_buf_append_text(struct sl_buf *buf, const char *text)
{
    sl_buf_append(buf, text, strlen(text));
}

#endif
