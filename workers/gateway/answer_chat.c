/*
 * The answers of /v1/chat/completions.
 *
 * A stream's first chunk has the role and the citations, so it is sent when the sources come; a
 * query that sent none has an empty list. An ending other than done is an error object as a data
 * event, which OpenAI's clients raise as an exception, wherever in the stream it comes.
 */
#include "common/sse.h"
#include "workers/gateway/caller.h"

enum { CHUNK_MAX = 4 << 20, ANSWER_MAX = 32 << 20 };

/* --- the stream --- */

/* json becomes a data event; a chunk that could not be written cuts the stream. */
static void put_chunk(struct caller *caller, struct sl_buf *json)
{
    struct sl_buf *out = caller_out(caller);
    if (sl_buf_error(json) == 0) {
        sl_sse_write(out, NULL, NULL, sl_buf_span(json));
    } else {
        out->err = sl_buf_error(json);
    }
    sl_buf_fini(json);
}

static void write_first(struct caller *caller, const struct sl_query *sources)
{
    struct sl_buf json, citations;
    if (caller->chat_begun) {
        return;
    }
    caller->chat_begun = true;
    sl_buf_init(&json, CHUNK_MAX);
    sl_buf_init(&citations, CHUNK_MAX);
    if (sources != NULL) {
        sl_sources_json(sources, &citations);
    } else {
        sl_buf_append_text(&citations, "[]");
    }
    chat_write_first(&json, &caller->chat, sl_buf_span(&citations));
    json.err = json.err != 0 ? json.err : citations.err;
    sl_buf_fini(&citations);
    put_chunk(caller, &json);
}

static void on_stream_event(struct caller *caller, const struct sl_event *event,
                            struct sl_span value)
{
    (void)value;
    write_first(caller, event->type == SL_EVENT_SOURCES ? event->query : NULL);
    if (event->type == SL_EVENT_DELTA) {
        struct sl_buf *out = caller_out(caller);
        sl_sse_begin(out, (struct sl_span){NULL, 0}, (struct sl_span){NULL, 0});
        chat_write_delta(out, &caller->chat, event->text);
        sl_sse_end(out);
    }
}

static void write_error(struct caller *caller, const struct sl_result *result)
{
    struct sl_buf json;
    sl_buf_init(&json, CHUNK_MAX);
    write_failure(&json, status_of(result->code), sl_query_error_text(result->code), NULL,
                  result->message);
    put_chunk(caller, &json);
}

static void end_stream(struct caller *caller, const struct sl_event *event)
{
    struct sl_buf json;
    if (event->type == SL_EVENT_ERROR) {
        write_error(caller, event->result);
        return;
    }
    write_first(caller, NULL);
    sl_buf_init(&json, CHUNK_MAX);
    chat_write_finish(&json, &caller->chat, event->result->finish_reason);
    put_chunk(caller, &json);
    if (caller->chat.include_usage) {
        sl_buf_init(&json, CHUNK_MAX);
        chat_write_usage(&json, &caller->chat, &event->result->usage);
        put_chunk(caller, &json);
    }
}

const struct format format_chat_stream = {true, on_stream_event, end_stream};

/* --- the whole answer --- */

static void on_json_event(struct caller *caller, const struct sl_event *event, struct sl_span value)
{
    (void)value;
    switch (event->type) {
    case SL_EVENT_SOURCES:
        sl_sources_json(event->query, &caller->citations);
        break;
    case SL_EVENT_RESTART:
        sl_buf_clear(&caller->out);
        break;
    default:
        sl_buf_append_span(&caller->out, event->text);
    }
}

static void end_json(struct caller *caller, const struct sl_event *event)
{
    struct sl_result result = *event->result;
    struct sl_span citations = sl_buf_span(&caller->citations);
    struct sl_buf body;
    result.answer = sl_buf_span(&caller->out);
    sl_buf_init(&body, ANSWER_MAX);
    chat_write_answer(&body, &caller->chat, &result, citations.len > 0 ? citations : SL_SPAN("[]"));
    int err = sl_buf_error(&caller->out) != 0 ? sl_buf_error(&caller->out)
                                              : sl_buf_error(&caller->citations);
    respond_answer(&caller->request, err, &body);
}

const struct format format_chat_json = {false, on_json_event, end_json};
