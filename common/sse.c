/*
 * Server-sent events, reading and writing.
 *
 * The reader: bytes are split into lines, a line into field and value; "data" lines gather until an
 * empty line completes the event and calls back. A line that lies whole in the bytes at hand is
 * used in place; only one that is cut is copied to reader->line. A \r ends a line at once, and the
 * \n that may follow in the next bytes is then skipped. An event without data calls nobody, and an
 * event cut by the end of the stream is never delivered: that is the standard's, and callers rely
 * on it to see that a stream was cut.
 *
 * What can go wrong: more than max bytes in one line or one event, which ends the reader: what
 * comes after cannot be read in step.
 */
#include "common/sse.h"

#include <assert.h>

void sl_sse_reader_init(struct sl_sse_reader *reader, size_t max, sl_sse_cb *cb, void *ctx)
{
    *reader = (struct sl_sse_reader){.cb = cb, .ctx = ctx};
    sl_buf_init(&reader->line, max);
    sl_buf_init(&reader->data, max);
    sl_buf_init(&reader->type, max);
    sl_buf_init(&reader->id, max);
}

void sl_sse_reader_fini(struct sl_sse_reader *reader)
{
    sl_buf_fini(&reader->line);
    sl_buf_fini(&reader->data);
    sl_buf_fini(&reader->type);
    sl_buf_fini(&reader->id);
}

/* After the callback has stopped the feed, the reader may be gone: it is not touched. */
static int dispatch(struct sl_sse_reader *reader)
{
    struct sl_sse_event event = {
        .type = reader->type.len > 0 ? sl_buf_span(&reader->type) : SL_SPAN("message"),
        .data = sl_buf_span(&reader->data),
        .id = sl_buf_span(&reader->id),
    };
    if (event.data.len > 0) {
        event.data.len--; /* The newline of the last line. */
        int rv = reader->cb(reader->ctx, &event);
        if (rv != 0) {
            return rv;
        }
    }
    sl_buf_clear(&reader->data);
    sl_buf_clear(&reader->type);
    return 0;
}

static void set(struct sl_buf *buf, struct sl_span value)
{
    sl_buf_clear(buf);
    sl_buf_append_span(buf, value);
}

static int take_field(struct sl_sse_reader *reader, struct sl_span field, struct sl_span value)
{
    if (sl_span_is(field, "data")) {
        if (reader->type.len + reader->data.len + value.len >= reader->data.max) {
            return -SL_ETOOBIG;
        }
        sl_buf_append_span(&reader->data, value);
        sl_buf_append(&reader->data, "\n", 1);
        return sl_buf_error(&reader->data);
    }
    if (sl_span_is(field, "event")) {
        set(&reader->type, value);
        return sl_buf_error(&reader->type);
    }
    if (sl_span_is(field, "id") &&
        (value.len == 0 || memchr(value.data, '\0', value.len) == NULL)) {
        set(&reader->id, value);
        return sl_buf_error(&reader->id);
    }
    return 0; /* "retry" is the caller's business, and others are ignored. */
}

static int take_line(struct sl_sse_reader *reader, struct sl_span line)
{
    if (!reader->started) {
        reader->started = true;
        if (line.len >= 3 && memcmp(line.data, "\xef\xbb\xbf", 3) == 0) {
            line = (struct sl_span){line.data + 3, line.len - 3};
        }
    }
    if (line.len == 0) {
        return dispatch(reader);
    }
    const char *colon = memchr(line.data, ':', line.len);
    if (colon == NULL) {
        return take_field(reader, line, (struct sl_span){NULL, 0});
    }
    struct sl_span field = {line.data, (size_t)(colon - line.data)};
    struct sl_span value = {colon + 1, line.len - field.len - 1};
    if (value.len > 0 && value.data[0] == ' ') {
        value = (struct sl_span){value.data + 1, value.len - 1};
    }
    return take_field(reader, field, value); /* A comment's field is empty. */
}

/* The rest of a line: the bytes before its end. */
static int end_line(struct sl_sse_reader *reader, struct sl_span rest)
{
    if (reader->line.len == 0) {
        return rest.len > reader->line.max ? -SL_ETOOBIG : take_line(reader, rest);
    }
    sl_buf_append_span(&reader->line, rest);
    int rv = sl_buf_error(&reader->line);
    if (rv == 0) {
        rv = take_line(reader, sl_buf_span(&reader->line));
    }
    if (rv == 0) {
        sl_buf_clear(&reader->line);
    }
    return rv;
}

/* Where the next of each line end lies; what was found ahead is not looked for again, or bytes with
 * many of one kind and none of the other would be searched through for each. */
struct line_ends {
    const char *lf, *cr; /* The bytes' end: there is none. NULL: not looked for yet. */
};

static const char *next_of(const char *known, struct sl_span bytes, char c)
{
    if (known != NULL && known >= bytes.data) {
        return known;
    }
    const char *found = memchr(bytes.data, c, bytes.len);
    return found != NULL ? found : bytes.data + bytes.len;
}

/* The length of the line at the start of bytes, which is not empty; theirs: it has no end. */
static size_t find_line_end(struct line_ends *ends, struct sl_span bytes)
{
    ends->lf = next_of(ends->lf, bytes, '\n');
    ends->cr = next_of(ends->cr, bytes, '\r');
    return (size_t)((ends->lf < ends->cr ? ends->lf : ends->cr) - bytes.data);
}

int sl_sse_reader_feed(struct sl_sse_reader *reader, struct sl_span bytes)
{
    struct line_ends ends = {NULL, NULL};
    while (bytes.len > 0) {
        if (reader->after_cr) {
            reader->after_cr = false;
            size_t skip = bytes.data[0] == '\n' ? 1 : 0;
            bytes = (struct sl_span){bytes.data + skip, bytes.len - skip};
            continue;
        }
        size_t len = find_line_end(&ends, bytes);
        if (len == bytes.len) {
            sl_buf_append_span(&reader->line, bytes);
            return sl_buf_error(&reader->line);
        }
        reader->after_cr = bytes.data[len] == '\r';
        int rv = end_line(reader, (struct sl_span){bytes.data, len});
        if (rv != 0) {
            return rv;
        }
        bytes = (struct sl_span){bytes.data + len + 1, bytes.len - len - 1};
    }
    return 0;
}

/* --- writing --- */

static bool is_one_line(struct sl_span text)
{
    return text.len == 0 ||
           (memchr(text.data, '\n', text.len) == NULL && memchr(text.data, '\r', text.len) == NULL);
}

static void put_field(struct sl_buf *out, struct sl_span name, struct sl_span value)
{
    char *to = sl_buf_reserve(out, name.len + value.len + 3);
    if (to != NULL) {
        memcpy(to, name.data, name.len);
        memcpy(to + name.len, ": ", 2);
        if (value.len > 0) {
            memcpy(to + name.len + 2, value.data, value.len);
        }
        to[name.len + 2 + value.len] = '\n';
        out->len += name.len + value.len + 3;
    }
}

static void put_head(struct sl_buf *out, struct sl_span id, struct sl_span type)
{
    assert(is_one_line(id) && is_one_line(type));
    if (id.data != NULL) {
        put_field(out, SL_SPAN("id"), id);
    }
    if (type.data != NULL) {
        put_field(out, SL_SPAN("event"), type);
    }
}

void sl_sse_begin(struct sl_buf *out, struct sl_span id, struct sl_span type)
{
    put_head(out, id, type);
    sl_buf_append(out, "data: ", 6);
}

void sl_sse_end(struct sl_buf *out)
{
    sl_buf_append(out, "\n\n", 2);
}

void sl_sse_write(struct sl_buf *out, const char *id, const char *type, struct sl_span data)
{
    struct line_ends ends = {NULL, NULL};
    put_head(out, sl_span_of(id), sl_span_of(type));
    while (data.len > 0) {
        size_t len = find_line_end(&ends, data);
        if (len == data.len) {
            break;
        }
        put_field(out, SL_SPAN("data"), (struct sl_span){data.data, len});
        size_t skip = len + 1;
        skip += data.data[len] == '\r' && skip < data.len && data.data[skip] == '\n' ? 1 : 0;
        data = (struct sl_span){data.data + skip, data.len - skip};
    }
    put_field(out, SL_SPAN("data"), data);
    sl_buf_append(out, "\n", 1);
}

void sl_sse_write_comment(struct sl_buf *out, const char *text)
{
    assert(is_one_line(sl_span_of(text)));
    sl_buf_append(out, ": ", 2);
    sl_buf_append_text(out, text);
    sl_sse_end(out);
}
