/*
 * The smallest reader of server-sent events that serves OpenAI's streams: lines that begin with
 * `data: `, each one JSON object, until `[DONE]`. Whole lines are read where they lie; only one
 * that a read cut in two is copied. What can go wrong: JSON that is none, a line without end (the
 * limit of the buf), a text that goes on after `[DONE]`.
 */
#include "tests/bench/floor_calls.h"

#include <string.h>

static bool read_line(struct calls_stream *stream, struct sl_span line, long *tokens, long *events)
{
    static const char begin[] = "data: ";
    size_t begin_len = sizeof(begin) - 1;
    if (line.len > 0 && line.data[line.len - 1] == '\r') {
        line.len--;
    }
    if (line.len < begin_len || memcmp(line.data, begin, begin_len) != 0) {
        return true; /* An empty line, a comment, another field. */
    }
    struct sl_span data = {line.data + begin_len, line.len - begin_len};
    if (stream->done) {
        return false;
    }
    if (sl_span_is(data, "[DONE]")) {
        stream->done = true;
        return true;
    }
    long count = calls_count_tokens(data);
    *tokens += count > 0 ? count : 0;
    *events += count > 0 ? 1 : 0;
    return count >= 0;
}

bool calls_stream_read(struct calls_stream *stream, struct sl_span bytes, long *tokens,
                       long *events)
{
    bool good = true;
    while (good && bytes.len > 0) {
        const char *end = memchr(bytes.data, '\n', bytes.len);
        struct sl_span line = {bytes.data, end == NULL ? bytes.len : (size_t)(end - bytes.data)};
        size_t used = line.len + (end == NULL ? 0 : 1);
        bytes = (struct sl_span){bytes.data + used, bytes.len - used};
        bool partial = end == NULL || stream->line.len > 0;
        if (partial) {
            sl_buf_append_span(&stream->line, line);
            line = sl_buf_span(&stream->line);
            good = sl_buf_error(&stream->line) == 0;
        }
        if (good && end != NULL) {
            good = read_line(stream, line, tokens, events);
            sl_buf_clear(&stream->line);
        }
    }
    return good;
}
