/*
 * Spans and growing buffers. Growth doubles, so that appending is linear in total; the maximum is
 * part of the buf, so that no input can make a process grow without a bound that someone chose.
 */
#include "common/buf.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c + ('a' - 'A')) : c;
}

bool sl_span_equal_nocase(struct sl_span a, struct sl_span b)
{
    if (a.len != b.len) {
        return false;
    }
    for (size_t i = 0; i < a.len; i++) {
        if (lower(a.data[i]) != lower(b.data[i])) {
            return false;
        }
    }
    return true;
}

int sl_span_to_int(struct sl_span text, long long min, long long max, long long *ret)
{
    bool negative = text.len > 0 && text.data[0] == '-';
    size_t i = negative ? 1 : 0;
    long long value = 0;
    if (i == text.len || text.len > 20) {
        return -SL_EINVAL;
    }
    for (; i < text.len; i++) {
        int digit = text.data[i] - '0';
        if (digit < 0 || digit > 9 || __builtin_mul_overflow(value, 10, &value) ||
            __builtin_add_overflow(value, negative ? -digit : digit, &value)) {
            return -SL_EINVAL;
        }
    }
    if (value < min || value > max) {
        return -SL_EINVAL;
    }
    *ret = value;
    return 0;
}

void sl_buf_init(struct sl_buf *buf, size_t max)
{
    *buf = (struct sl_buf){.max = max};
}

void sl_buf_fini(struct sl_buf *buf)
{
    free(buf->data);
    *buf = (struct sl_buf){.max = buf->max};
}

void sl_buf_clear(struct sl_buf *buf)
{
    buf->len = 0;
    buf->err = 0;
}

char *sl_buf_grow(struct sl_buf *buf, size_t len)
{
    if (buf->err != 0) {
        return NULL;
    }
    if (len > buf->max - buf->len) {
        buf->err = -SL_ETOOBIG;
        return NULL;
    }
    if (buf->len + len > buf->cap) {
        size_t cap = buf->cap > 0 ? buf->cap * 2 : 256;
        cap = cap < buf->len + len ? buf->len + len : cap;
        cap = cap > buf->max ? buf->max : cap;
        char *data = realloc(buf->data, cap);
        if (data == NULL) {
            buf->err = -SL_ENOMEM;
            return NULL;
        }
        buf->data = data;
        buf->cap = cap;
    }
    return buf->data + buf->len;
}

void sl_buf_append_uint(struct sl_buf *buf, uint64_t value)
{
    char digits[20]; /* As many as 2^64 has. */
    size_t at = sizeof(digits);
    do {
        digits[--at] = (char)('0' + value % 10);
        value /= 10;
    } while (value > 0);
    sl_buf_append(buf, digits + at, sizeof(digits) - at);
}

void sl_buf_append_int(struct sl_buf *buf, int64_t value)
{
    if (value < 0) {
        sl_buf_append(buf, "-", 1);
    }
    sl_buf_append_uint(buf, value < 0 ? 0 - (uint64_t)value : (uint64_t)value);
}

void sl_buf_vprintf(struct sl_buf *buf, const char *format, va_list args)
{
    char small[512];
    va_list again;
    va_copy(again, args);
    int len = vsnprintf(small, sizeof(small), format, args);
    assert(len >= 0);
    if ((size_t)len < sizeof(small)) {
        sl_buf_append(buf, small, (size_t)len);
    } else if ((size_t)len >= buf->max - buf->len) {
        buf->err = buf->err != 0 ? buf->err : -SL_ETOOBIG;
    } else {
        char *to = sl_buf_reserve(buf, (size_t)len + 1); /* vsnprintf ends its text with a zero. */
        if (to != NULL) {
            vsnprintf(to, (size_t)len + 1, format, again);
            buf->len += (size_t)len;
        }
    }
    va_end(again);
}

void sl_buf_printf(struct sl_buf *buf, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    sl_buf_vprintf(buf, format, args);
    va_end(args);
}

void sl_buf_consume(struct sl_buf *buf, size_t len)
{
    assert(len <= buf->len);
    if (len > 0) {
        buf->len -= len;
        memmove(buf->data, buf->data + len, buf->len);
    }
}

struct sl_span sl_buf_span(const struct sl_buf *buf)
{
    return (struct sl_span){buf->data, buf->len};
}

int sl_buf_error(const struct sl_buf *buf)
{
    return buf->err;
}
