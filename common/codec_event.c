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

enum { LINE_MAX_BYTES = 1 << 20, TOPIC_MAX = 249 };

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

/* The target of the fields; the query comes first, as the readers of its parts expect. */
struct decoded {
    struct sl_query query;
    struct sl_result result;
    struct sl_event event;
};

static bool check_map(struct sl_decoder *decoder, const struct sl_field *field,
                      const struct sl_value *value)
{
    if (value->type != SL_VALUE_MAP) {
        sl_decoder_refuse(decoder, field->name, "must be an object");
    }
    return value->type == SL_VALUE_MAP;
}

static void read_degraded(struct sl_decoder *decoder, const struct sl_field *field,
                          const struct sl_value *value, void *target)
{
    struct decoded *decoded = target;
    struct sl_value_iter iter = {.container = value};
    struct sl_value key, name;
    if (!sl_check_list(decoder, field->name, value, SL_FIELDS_MAX, "names")) {
        return;
    }
    while (sl_value_next(&iter, &key, &name)) {
        for (size_t i = 0; name.type == SL_VALUE_TEXT && i < SL_DEGRADED_COUNT; i++) {
            if (sl_span_is(name.text, sl_degraded_names[i].name)) {
                decoded->query.degraded |= sl_degraded_names[i].bit;
            }
        }
    }
}

static const struct sl_field usage_fields[] = {
    {.name = "prompt_tokens",
     .read = sl_read_u32,
     .offset = offsetof(struct sl_usage, prompt_tokens),
     .max = UINT32_MAX},
    {.name = "completion_tokens",
     .read = sl_read_u32,
     .offset = offsetof(struct sl_usage, completion_tokens),
     .max = UINT32_MAX},
    {.name = "estimated", .read = sl_read_bool, .offset = offsetof(struct sl_usage, estimated)},
};

static const struct sl_field error_fields[] = {
    {.name = "code",
     .read = sl_read_choice,
     .offset = offsetof(struct sl_result, code),
     .names = sl_query_error_names},
    {.name = "message",
     .read = sl_read_text,
     .offset = offsetof(struct sl_result, message),
     .max = LINE_MAX_BYTES},
    {.name = "stage",
     .read = sl_read_text,
     .offset = offsetof(struct sl_result, stage),
     .max = LINE_MAX_BYTES},
};

struct source {
    struct sl_span topic;
    int64_t partition, offset;
};
static const struct sl_field source_fields[] = {
    {.name = "topic",
     .read = sl_read_text,
     .offset = offsetof(struct source, topic),
     .max = TOPIC_MAX},
    {.name = "partition",
     .read = sl_read_i64,
     .offset = offsetof(struct source, partition),
     .max = INT32_MAX},
    {.name = "offset",
     .read = sl_read_i64,
     .offset = offsetof(struct source, offset),
     .max = INT64_MAX},
};

static void read_inside(struct sl_decoder *decoder, const struct sl_field *field,
                        const struct sl_field *table, size_t count, const struct sl_value *value,
                        void *target)
{
    struct sl_fields fields = {table, count, false};
    size_t left = sl_decoder_enter(decoder, field->name, -1);
    sl_decoder_read(decoder, &fields, value, target);
    sl_decoder_leave(decoder, left);
}

static void read_usage(struct sl_decoder *decoder, const struct sl_field *field,
                       const struct sl_value *value, void *target)
{
    struct decoded *decoded = target;
    if (check_map(decoder, field, value)) {
        read_inside(decoder, field, usage_fields, SL_FIELDS_COUNT(usage_fields), value,
                    &decoded->result.usage);
    }
}

static void read_error(struct sl_decoder *decoder, const struct sl_field *field,
                       const struct sl_value *value, void *target)
{
    struct decoded *decoded = target;
    if (value->type != SL_VALUE_NULL && check_map(decoder, field, value)) {
        read_inside(decoder, field, error_fields, SL_FIELDS_COUNT(error_fields), value,
                    &decoded->result);
    }
}

static void read_source(struct sl_decoder *decoder, const struct sl_field *field,
                        const struct sl_value *value, void *target)
{
    struct decoded *decoded = target;
    struct source source = {.partition = 0};
    if (value->type != SL_VALUE_NULL && check_map(decoder, field, value)) {
        read_inside(decoder, field, source_fields, SL_FIELDS_COUNT(source_fields), value, &source);
        decoded->query.source_topic = source.topic;
        decoded->query.source_partition = (int32_t)source.partition;
        decoded->query.source_offset = source.offset;
    }
}

/* clang-format off */
#define FIELD(name, member, reader, low, high) \
    {name, reader, offsetof(struct decoded, member), low, high, NULL, false}
static const struct sl_field fields[] = {
    {"id", sl_read_text, offsetof(struct decoded, event.id), 1, 64, NULL, true},
    {"type", sl_read_choice, offsetof(struct decoded, event.type), 0, 0, type_names, true},
    {.name = "v", .read = sl_read_pass},
    FIELD("attempt", event.attempt, sl_read_u32, 0, UINT32_MAX),
    FIELD("seq", event.seq, sl_read_u32, 0, UINT32_MAX),
    FIELD("fence", event.fence, sl_read_i64, 0, INT64_MAX),
    FIELD("text", event.text, sl_read_text, 0, LINE_MAX_BYTES),
    FIELD("source_chunks", query, sl_read_hits, 0, 0),
    {"outcome", sl_read_choice, offsetof(struct decoded, result.outcome), 0, 0, sl_outcome_names,
     false},
    FIELD("retrieval_latency_ms", result.retrieval_latency_ms, sl_read_u32, 0, UINT32_MAX),
    FIELD("generation_latency_ms", result.generation_latency_ms, sl_read_u32, 0, UINT32_MAX),
    FIELD("ttft_ms", result.ttft_ms, sl_read_u32, 0, UINT32_MAX),
    FIELD("total_ms", result.total_ms, sl_read_u32, 0, UINT32_MAX),
    FIELD("stages", query, sl_read_stages_map, 0, 0),
    FIELD("degraded", query, read_degraded, 0, 0),
    FIELD("usage", result.usage, read_usage, 0, 0),
    FIELD("error", result, read_error, 0, 0),
    FIELD("tenant", query.tenant, sl_read_text, 0, LINE_MAX_BYTES),
    FIELD("collection", query.collection, sl_read_text, 0, LINE_MAX_BYTES),
    FIELD("model", result.model, sl_read_text, 0, LINE_MAX_BYTES),
    FIELD("source", query, read_source, 0, 0),
    FIELD("finish_reason", result.finish_reason, sl_read_text, 0, LINE_MAX_BYTES),
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
        decoded->query.id = event->id;
        event->query = &decoded->query;
        event->result = &decoded->result;
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
