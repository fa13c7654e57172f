/*
 * Server-sent events (WHATWG HTML, section 9.2): a reader for streams cut at any byte, with \n,
 * \r\n or \r line ends, a byte order mark and comments; and a writer.
 */
#ifndef SLUICE_COMMON_SSE_H
#define SLUICE_COMMON_SSE_H

#include "common/buf.h"

#include <stdbool.h>

struct sl_sse_event {
    struct sl_span type; /* "message" when the stream names none. */
    struct sl_span data; /* Lines joined by \n. Borrowed until the callback returns. */
    struct sl_span id;   /* The last id seen; may be empty. */
};

/* Not 0 stops the feed, which then returns it. */
typedef int sl_sse_cb(void *ctx, const struct sl_sse_event *event);

struct sl_sse_reader {
    struct sl_buf line, data, type, id;
    sl_sse_cb *cb;
    void *ctx;
    bool after_cr, started;
};

/* max: bytes of one event, and of one line; more is -SL_ETOOBIG. */
void sl_sse_reader_init(struct sl_sse_reader *reader, size_t max, sl_sse_cb *cb, void *ctx);
void sl_sse_reader_fini(struct sl_sse_reader *reader);
/* Calls back inside, once for each event that the bytes complete. 0, -SL_ETOOBIG, -SL_ENOMEM or
 * what the callback returned; feed no more after that. The callback may fini the reader if it
 * returns not 0. */
int sl_sse_reader_feed(struct sl_sse_reader *reader, struct sl_span bytes) SL_CHECKED;

/* Appends an event; id and type may be NULL and hold no newline. Newlines in data become several
 * data lines. */
void sl_sse_write(struct sl_buf *out, const char *id, const char *type, struct sl_span data);
/* The same around one line of data that the caller appends between the two. No data in a span: the
 * event has none of it. */
void sl_sse_begin(struct sl_buf *out, struct sl_span id, struct sl_span type);
void sl_sse_end(struct sl_buf *out);
void sl_sse_write_comment(struct sl_buf *out, const char *text);

#endif
