/*
 * Hits, stage times and vectors, as queries, results and events carry them.
 *
 * A hit is the same map wherever it travels but for its metadata, which is text between the stages
 * (nobody there looks into it) and an object for everyone else; the reader takes both.
 */
#include "common/codec_parts.h"

#include <endian.h>
#include <math.h>

enum { HIT_TEXT_MAX = 1 << 20, STAGE_TIME_FIELDS = 4 };

const char *const sl_stage_names[SL_STAGE_COUNT + 1] = {
#define X(name) #name,
    SL_STAGES(X)
#undef X
};

bool sl_check_list(struct sl_decoder *decoder, const char *name, const struct sl_value *value,
                   size_t max, const char *of_what)
{
    char shown[64];
    if (value->type != SL_VALUE_LIST) {
        sl_value_describe(value, shown, sizeof(shown));
        sl_decoder_refuse(decoder, name, "must be a list of at most %zu %s, not %s", max, of_what,
                          shown);
        return false;
    }
    if (value->len > max) {
        sl_decoder_refuse(decoder, name, "must be a list of at most %zu %s, not of %zu", max,
                          of_what, value->len);
        return false;
    }
    return true;
}

struct sl_span sl_read_element(struct sl_decoder *decoder, const char *name, long long i,
                               long long max, const struct sl_value *value)
{
    const struct sl_field field = {.name = "", .min = 0, .max = max};
    struct sl_span text = {0};
    size_t left = sl_decoder_enter(decoder, name, i);
    sl_read_text(decoder, &field, value, &text);
    sl_decoder_leave(decoder, left);
    return text;
}

const float *sl_decoder_floats(struct sl_decoder *decoder, struct sl_span bytes)
{
    float *floats = sl_decoder_alloc(decoder, bytes.len > 0 ? bytes.len : 1);
    for (size_t i = 0; floats != NULL && i < bytes.len / sizeof(float); i++) {
        uint32_t bits;
        memcpy(&bits, bytes.data + i * sizeof(bits), sizeof(bits));
        bits = le32toh(bits);
        memcpy(&floats[i], &bits, sizeof(bits));
    }
    return floats;
}

/* --- hits --- */

static void read_hit_metadata(struct sl_decoder *decoder, const struct sl_field *field,
                              const struct sl_value *value, void *target)
{
    if (value->type == SL_VALUE_MAP) {
        sl_read_metadata(decoder, field, value, target);
    } else {
        sl_read_text(decoder, field, value, target);
    }
}

/* A store's own scale: any number. */
static void read_score(struct sl_decoder *decoder, const struct sl_field *field,
                       const struct sl_value *value, void *target)
{
    struct sl_hit *hit = target;
    if ((value->type != SL_VALUE_INT && value->type != SL_VALUE_NUMBER) ||
        !isfinite(value->number)) {
        sl_decoder_refuse(decoder, field->name, "must be a number");
        return;
    }
    hit->score = value->number;
}

#define HIT(name, member, reader, low, high)                                                       \
    {                                                                                              \
        name, reader, offsetof(struct sl_hit, member), low, high, NULL, false                      \
    }
static const struct sl_field hit_fields[] = {
    HIT("doc_id", doc_id, sl_read_text, 0, HIT_TEXT_MAX),
    HIT("chunk_id", chunk_id, sl_read_text, 0, HIT_TEXT_MAX),
    HIT("chunk_index", chunk_index, sl_read_i64, INT64_MIN, INT64_MAX),
    HIT("text", text, sl_read_text, 0, HIT_TEXT_MAX),
    HIT("metadata", metadata, read_hit_metadata, 0, HIT_TEXT_MAX),
    HIT("score", score, read_score, 0, 0),
};

void sl_read_hits(struct sl_decoder *decoder, const struct sl_field *field,
                  const struct sl_value *value, void *target)
{
    static const struct sl_fields fields = {hit_fields, SL_FIELDS_COUNT(hit_fields), false};
    struct sl_query *query = target;
    struct sl_value_iter iter = {.container = value};
    struct sl_value key, element;
    if (!sl_check_list(decoder, field->name, value, SL_HITS_MAX, "hits") || value->len == 0) {
        return;
    }
    query->hits = sl_decoder_alloc(decoder, value->len * sizeof(*query->hits));
    while (decoder->err != -SL_ENOMEM && sl_value_next(&iter, &key, &element)) {
        size_t left = sl_decoder_enter(decoder, field->name, (long long)query->hits_len);
        if (element.type == SL_VALUE_MAP) {
            sl_decoder_read(decoder, &fields, &element, &query->hits[query->hits_len++]);
        } else {
            sl_decoder_refuse(decoder, "", "must be an object");
        }
        sl_decoder_leave(decoder, left);
    }
}

/* --- stage times --- */

bool sl_stage_reached(const struct sl_stage_time *time)
{
    return time->reached || time->queue_ms > 0 || time->wait_ms > 0 || time->work_ms > 0 ||
           time->attempts > 0;
}

#define TIME(member)                                                                               \
    {                                                                                              \
#member, sl_read_u32, offsetof(struct sl_stage_time, member), 0, UINT32_MAX, NULL, false   \
    }
static const struct sl_field time_fields[STAGE_TIME_FIELDS] = {TIME(queue_ms), TIME(wait_ms),
                                                               TIME(work_ms), TIME(attempts)};

static void read_time_list(struct sl_decoder *decoder, const struct sl_value *value,
                           struct sl_stage_time *time)
{
    struct sl_value_iter iter = {.container = value};
    struct sl_value key, number;
    for (size_t i = 0; i < STAGE_TIME_FIELDS && sl_value_next(&iter, &key, &number); i++) {
        sl_read_u32(decoder, &time_fields[i], &number, time);
    }
    time->reached = true;
}

void sl_read_stages_list(struct sl_decoder *decoder, const struct sl_field *field,
                         const struct sl_value *value, void *target)
{
    struct sl_query *query = target;
    struct sl_value_iter iter = {.container = value};
    struct sl_value key, element;
    if (!sl_check_list(decoder, field->name, value, SL_FIELDS_MAX, "stages")) {
        return;
    }
    /* A later version may have more stages, and more numbers to each. */
    for (size_t i = 0; i < SL_STAGE_COUNT && sl_value_next(&iter, &key, &element); i++) {
        size_t left = sl_decoder_enter(decoder, field->name, (long long)i);
        if (element.type == SL_VALUE_LIST) {
            read_time_list(decoder, &element, &query->stages[i]);
        } else if (element.type != SL_VALUE_NULL) {
            sl_decoder_refuse(decoder, "", "must be a list or null");
        }
        sl_decoder_leave(decoder, left);
    }
}

static void read_time_map(struct sl_decoder *decoder, const struct sl_field *field,
                          const struct sl_value *value, void *target)
{
    static const struct sl_fields fields = {time_fields, STAGE_TIME_FIELDS, false};
    struct sl_stage_time *time = (struct sl_stage_time *)target + field->offset;
    if (value->type != SL_VALUE_MAP) {
        sl_decoder_refuse(decoder, field->name, "must be an object");
        return;
    }
    size_t left = sl_decoder_enter(decoder, field->name, -1);
    sl_decoder_read(decoder, &fields, value, time);
    sl_decoder_leave(decoder, left);
    time->reached = true;
}

void sl_read_stages_map(struct sl_decoder *decoder, const struct sl_field *field,
                        const struct sl_value *value, void *target)
{
#define X(name) {#name, read_time_map, SL_STAGE_##name, 0, 0, NULL, false}, /* offset: which. */
    static const struct sl_field stage_fields[] = {SL_STAGES(X)};
#undef X
    static const struct sl_fields fields = {stage_fields, SL_FIELDS_COUNT(stage_fields), false};
    struct sl_query *query = target;
    if (value->type != SL_VALUE_MAP) {
        sl_decoder_refuse(decoder, field->name, "must be an object");
        return;
    }
    size_t left = sl_decoder_enter(decoder, field->name, -1);
    sl_decoder_read(decoder, &fields, value, query->stages);
    sl_decoder_leave(decoder, left);
}
