/*
 * Events of a query's stream. A stage writes them to the reply topic, a gateway reads them there
 * and shows them to its caller as JSON; what a caller sees is written by the same code as what a
 * consumer of the topic sees, but for the fence, which is of use only to those who read the log.
 *
 * Reading makes a query and a result that hold what the event says, so that writing them again
 * gives the same members. Their texts are not there: "done" and "error" come without the answer,
 * the question and the chunks' texts, which the caller has had before.
 *
 * Deltas are mostly read and written by codec_delta.c, to the same effect.
 */
#include "common/codec_delta.h"
#include "common/codec_outcome.h"
#include "common/codec_parts.h"

#include <assert.h>

static const char *const type_names[] = {"sources", "delta", "restart", "done", "error", NULL};

const char *sl_event_type_text(enum sl_event_type type)
{
    assert(type <= SL_EVENT_ERROR);
    return type_names[type];
}

/* --- writing --- */

static bool ends(const struct sl_event *event)
{
    return event->type == SL_EVENT_DONE || event->type == SL_EVENT_ERROR;
}

static size_t count_members(const struct sl_event *event)
{
    switch (event->type) {
    case SL_EVENT_SOURCES:
    case SL_EVENT_DELTA:
        return 1;
    case SL_EVENT_RESTART:
        return 0;
    default:
        return sl_outcome_members(false) + (event->result->finish_reason.len > 0);
    }
}

static void put_event(struct sl_sink *sink, const struct sl_event *event, bool fence)
{
    sl_sink_map(sink, count_members(event) + (fence ? 5 : 4));
    sl_sink_text_at(sink, "id", event->id);
    sl_sink_text_at(sink, "type", sl_span_of(sl_event_type_text(event->type)));
    sl_sink_int_at(sink, "attempt", event->attempt);
    sl_sink_int_at(sink, "seq", event->seq);
    if (fence) {
        sl_sink_int_at(sink, "fence", (int64_t)event->fence);
    }
    if (event->type == SL_EVENT_SOURCES) {
        sl_sink_key(sink, "source_chunks");
        sl_sink_sources(sink, event->query, true);
    } else if (event->type == SL_EVENT_DELTA) {
        sl_sink_text_at(sink, "text", event->text);
    } else if (ends(event)) {
        sl_sink_outcome(sink, event->query, event->result, false);
        if (event->result->finish_reason.len > 0) {
            sl_sink_text_at(sink, "finish_reason", event->result->finish_reason);
        }
    }
    sl_sink_map_end(sink);
}

void sl_event_encode(const struct sl_event *event, bool json, struct sl_buf *out)
{
    struct sl_sink sink;
    if (event->type == SL_EVENT_DELTA && !json && sl_delta_write(event, out)) {
        return;
    }
    sl_sink_init(&sink, out, json);
    put_event(&sink, event, true);
}

void sl_event_json(const struct sl_event *event, struct sl_buf *out)
{
    struct sl_sink sink;
    if (event->type == SL_EVENT_DELTA) {
        sl_delta_json(event, out);
        return;
    }
    sl_sink_init(&sink, out, true);
    put_event(&sink, event, false);
}

/* --- reading --- */

struct decoded {
    struct sl_ended outcome; /* First, as its readers expect. */
    struct sl_event event;
};

/* clang-format off */
static const struct sl_field fields[] = {
    {"id", sl_read_text, offsetof(struct decoded, event.id), 1, 64, NULL, true},
    {"type", sl_read_choice, offsetof(struct decoded, event.type), 0, 0, type_names, true},
    {.name = "v", .read = sl_read_pass},
    {"attempt", sl_read_u32, offsetof(struct decoded, event.attempt), 0, UINT32_MAX, NULL, false},
    {"seq", sl_read_u32, offsetof(struct decoded, event.seq), 0, UINT32_MAX, NULL, false},
    {"fence", sl_read_i64, offsetof(struct decoded, event.fence), 0, INT64_MAX, NULL, false},
    {"text", sl_read_text, offsetof(struct decoded, event.text), 0, SL_OUTCOME_LINE_MAX, NULL, false},
    {"finish_reason", sl_read_text, offsetof(struct decoded, outcome.result.finish_reason), 0,
     SL_OUTCOME_LINE_MAX, NULL, false},
    SL_OUTCOME_FIELDS(struct decoded, outcome)
};
/* clang-format on */

static int decode_any(struct sl_span bytes, struct sl_arena *arena, struct sl_event *event)
{
    static const struct sl_fields event_fields = {fields, SL_FIELDS_COUNT(fields), false};
    struct sl_fault fault;
    struct sl_decoder decoder = {.arena = arena, .fault = &fault};
    struct sl_json_doc *doc;
    struct sl_value root;
    int rv = sl_decoder_open(&decoder, bytes, false, &doc, &root);
    if (rv != 0) {
        return rv == -SL_EINVAL ? -SL_EBADMSG : rv;
    }
    struct decoded *decoded = sl_arena_alloc(arena, sizeof(*decoded));
    if (decoded == NULL) {
        return -SL_ENOMEM;
    }
    sl_decoder_read(&decoder, &event_fields, &root, decoded);
    if (decoder.err != 0) {
        return decoder.err == -SL_EINVAL ? -SL_EBADMSG : decoder.err;
    }
    *event = decoded->event;
    if (event->type != SL_EVENT_DELTA) {
        decoded->outcome.query.id = event->id;
        event->query = &decoded->outcome.query;
        event->result = &decoded->outcome.result;
    }
    return 0;
}

int sl_event_decode(struct sl_span bytes, struct sl_arena *arena, struct sl_event *event)
{
    struct sl_event delta;
    if (!sl_delta_read(bytes, &delta)) {
        return decode_any(bytes, arena, event);
    }
    delta.id = sl_arena_copy(arena, delta.id);
    delta.text = sl_arena_copy(arena, delta.text);
    if (delta.id.data == NULL || delta.text.data == NULL) {
        return -SL_ENOMEM;
    }
    *event = delta;
    return 0;
}
