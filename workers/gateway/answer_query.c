/*
 * The answers of /v1/query and /v1/search: the events as they are, or the result as one object.
 *
 * The stream passes on what the workers sent, without keeping anything. The result is put together
 * from the sources event, the deltas and the done event, which brings the rest; a restart forgets
 * the deltas.
 */
#include "common/sse.h"
#include "workers/gateway/open_query.h"

enum { EVENT_MAX = 4 << 20, RESULT_MAX = 32 << 20 };

/* --- the stream --- */

static void write_event(struct caller *caller, const struct sl_event *event)
{
    char memory[24]; /* Two numbers of ten digits. */
    struct sl_buf id = {.data = memory, .cap = sizeof(memory), .max = sizeof(memory)};
    struct sl_buf *out = caller_out(caller);
    size_t before = out->len;
    sl_buf_append_uint(&id, event->attempt);
    sl_buf_append(&id, ":", 1);
    sl_buf_append_uint(&id, event->seq);
    sl_sse_begin(out, sl_buf_span(&id), sl_span_of(sl_event_type_text(event->type)));
    sl_event_json(event, out);
    sl_sse_end(out);
    if (out->len - before > EVENT_MAX && out->err == 0) {
        out->err = -SL_ETOOBIG; /* The stream is cut: it may not have a hole. */
    }
}

static void on_stream_event(struct caller *caller, const struct sl_event *event,
                            struct sl_span value)
{
    (void)value;
    write_event(caller, event);
}

const struct format format_query_stream = {true, on_stream_event, write_event};

/* --- the result --- */

/* The sources are kept as they were decoded, in the query's own arena. */
static void keep_sources(struct caller *caller, struct sl_span value)
{
    struct sl_event event;
    if (sl_event_decode(value, &caller->arena, &event) == 0 && event.query != NULL) {
        caller->hits = event.query->hits;
        caller->hits_len = event.query->hits_len;
    }
}

static void on_json_event(struct caller *caller, const struct sl_event *event, struct sl_span value)
{
    switch (event->type) {
    case SL_EVENT_SOURCES:
        keep_sources(caller, value);
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
    struct sl_query query = *event->query;
    struct sl_result result = *event->result;
    struct sl_buf body;
    result.answer = sl_buf_span(&caller->out);
    query.id = caller->q->query.id;
    query.query = caller->question;
    query.hits = caller->hits;
    query.hits_len = caller->hits_len;
    sl_buf_init(&body, RESULT_MAX);
    sl_result_encode(&query, &result, true, &body);
    respond_answer(&caller->request, sl_buf_error(&caller->out), &body);
}

const struct format format_query_json = {false, on_json_event, end_json};
