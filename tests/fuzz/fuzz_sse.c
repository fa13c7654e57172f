/*
 * The event-stream reader under arbitrary bytes: the same events whatever the cuts, and events that
 * are written out again read back as they were. The first byte says how the rest is cut.
 */
#include "common/sse.h"

#include <stdint.h>
#include <stdlib.h>

enum { MAX_EVENT = 4096 };

struct seen {
    struct sl_buf text;    /* All parts of all events, each ended by a byte that UTF-8 lacks. */
    struct sl_buf written; /* The events, written out again. */
};

static void put_part(struct sl_buf *text, struct sl_span part)
{
    sl_buf_append_span(text, part);
    sl_buf_append(text, "\xff", 1);
}

static int on_event(void *ctx, const struct sl_sse_event *event)
{
    struct seen *seen = ctx;
    char type[MAX_EVENT + 1], id[MAX_EVENT + 1];
    put_part(&seen->text, event->type);
    put_part(&seen->text, event->data);
    put_part(&seen->text, event->id);
    memcpy(type, event->type.data, event->type.len);
    type[event->type.len] = '\0';
    if (event->id.len > 0) {
        memcpy(id, event->id.data, event->id.len);
    }
    id[event->id.len] = '\0';
    if (memchr(type, '\0', event->type.len) == NULL) { /* The writer takes C strings. */
        sl_sse_write(&seen->written, id, type, event->data);
    }
    return 0;
}

static int read_all(struct sl_span bytes, size_t step, struct seen *seen)
{
    struct sl_sse_reader reader;
    int rv = 0;
    sl_sse_reader_init(&reader, MAX_EVENT, on_event, seen);
    while (bytes.len > 0 && rv == 0) {
        size_t len = bytes.len < step ? bytes.len : step;
        rv = sl_sse_reader_feed(&reader, (struct sl_span){bytes.data, len});
        bytes = (struct sl_span){bytes.data + len, bytes.len - len};
    }
    sl_sse_reader_fini(&reader);
    return rv;
}

static void seen_init(struct seen *seen)
{
    sl_buf_init(&seen->text, 64 << 20);
    sl_buf_init(&seen->written, 64 << 20);
}

static void seen_fini(struct seen *seen)
{
    sl_buf_fini(&seen->text);
    sl_buf_fini(&seen->written);
}

static void check(bool good)
{
    if (!good) {
        abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct seen whole, cut, again;
    if (size < 1) {
        return 0;
    }
    struct sl_span bytes = {(const char *)data + 1, size - 1};
    seen_init(&whole);
    seen_init(&cut);
    seen_init(&again);
    int rv = read_all(bytes, bytes.len + 1, &whole);
    check(read_all(bytes, 1 + data[0] % 16u, &cut) == rv);
    check(sl_span_equal(sl_buf_span(&whole.text), sl_buf_span(&cut.text)));
    if (memchr(data, '\0', size) == NULL) {
        /* Written anew an event can be longer by "data: " a line: such a one may be refused. */
        rv = read_all(sl_buf_span(&whole.written), bytes.len + 1, &again);
        check(rv == -SL_ETOOBIG ||
              sl_span_equal(sl_buf_span(&whole.text), sl_buf_span(&again.text)));
    }
    seen_fini(&whole);
    seen_fini(&cut);
    seen_fini(&again);
    return 0;
}
