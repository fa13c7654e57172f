/*
 * Reading what a result and the event that ends a query have in common: the members that
 * sl_sink_outcome writes. A member that is absent keeps its zero, and one that is not known is left
 * out, so that versions that write more or less can be read.
 */
#include "common/codec_outcome.h"

enum { TOPIC_MAX = 249 };

static bool check_map(struct sl_decoder *decoder, const struct sl_field *field,
                      const struct sl_value *value)
{
    if (value->type != SL_VALUE_MAP) {
        sl_decoder_refuse(decoder, field->name, "must be an object");
    }
    return value->type == SL_VALUE_MAP;
}

void sl_read_degraded(struct sl_decoder *decoder, const struct sl_field *field,
                      const struct sl_value *value, void *target)
{
    struct sl_ended *decoded = target;
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
     .max = SL_OUTCOME_LINE_MAX},
    {.name = "stage",
     .read = sl_read_text,
     .offset = offsetof(struct sl_result, stage),
     .max = SL_OUTCOME_LINE_MAX},
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

void sl_read_usage(struct sl_decoder *decoder, const struct sl_field *field,
                   const struct sl_value *value, void *target)
{
    struct sl_ended *decoded = target;
    if (check_map(decoder, field, value)) {
        read_inside(decoder, field, usage_fields, SL_FIELDS_COUNT(usage_fields), value,
                    &decoded->result.usage);
    }
}

void sl_read_error(struct sl_decoder *decoder, const struct sl_field *field,
                   const struct sl_value *value, void *target)
{
    struct sl_ended *decoded = target;
    if (value->type != SL_VALUE_NULL && check_map(decoder, field, value)) {
        read_inside(decoder, field, error_fields, SL_FIELDS_COUNT(error_fields), value,
                    &decoded->result);
    }
}

void sl_read_source(struct sl_decoder *decoder, const struct sl_field *field,
                    const struct sl_value *value, void *target)
{
    struct sl_ended *decoded = target;
    struct source source = {.partition = 0};
    if (value->type != SL_VALUE_NULL && check_map(decoder, field, value)) {
        read_inside(decoder, field, source_fields, SL_FIELDS_COUNT(source_fields), value, &source);
        decoded->query.source_topic = source.topic;
        decoded->query.source_partition = (int32_t)source.partition;
        decoded->query.source_offset = source.offset;
    }
}
