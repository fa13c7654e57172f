/*
 * Queries in: as callers send them, and as they travel between the stages.
 *
 * Both are read with tables of fields (codec_decoder.h), and the caller's fields are the same lines
 * in both: what a caller may not say, no later stage accepts either. The difference is in what else
 * may be there. A caller's unknown field is refused by its name, since a misspelt option that is
 * ignored is worse than an error. Between stages an unknown key comes from a newer version: it is
 * kept as the bytes that it is and sent on.
 *
 * Routing (id, tenant, deadline, reply topic, trace) is not in the body but in the record's headers
 * (ending.h); those members are left as they are here, so that the two can be read in either order.
 */
#include "common/codec_parts.h"

#include <stdio.h>

enum {
    NAME_MAX_BYTES = 128,
    CONTENT_MAX = 131072, /* Of a turn: an answer may be longer than any question. */
    FILTER_VALUE_MAX = 1024,
    EXTRA_MAX = 65536,
    GRACE_MAX_S = 3600,
    TOPIC_MAX = 249
};

static const char *const modes[] = {"answer", "search", NULL};
static const char *const worker_lost[] = {"error", "restart", NULL};
static const char *const roles[] = {"user", "assistant", NULL};

/* --- what a caller says --- */

static void read_role(struct sl_decoder *decoder, const struct sl_field *field,
                      const struct sl_value *value, void *target)
{
    unsigned role = 0;
    struct sl_field choice = {.name = field->name, .names = roles};
    sl_read_choice(decoder, &choice, value, &role);
    ((struct sl_turn *)target)->assistant = role == 1;
}

static const struct sl_field turn_fields[] = {
    {.name = "role", .read = read_role, .required = true},
    {.name = "content",
     .read = sl_read_text,
     .offset = offsetof(struct sl_turn, content),
     .max = CONTENT_MAX,
     .required = true},
};

static void read_history(struct sl_decoder *decoder, const struct sl_field *field,
                         const struct sl_value *value, void *target)
{
    static const struct sl_fields fields = {turn_fields, SL_FIELDS_COUNT(turn_fields), true};
    struct sl_query *query = target;
    struct sl_value_iter iter = {.container = value};
    struct sl_value key, element;
    if (!sl_check_list(decoder, field->name, value, SL_HISTORY_MAX, "turns") || value->len == 0) {
        return;
    }
    query->history = sl_decoder_alloc(decoder, value->len * sizeof(*query->history));
    while (decoder->err != -SL_ENOMEM && sl_value_next(&iter, &key, &element)) {
        size_t left = sl_decoder_enter(decoder, field->name, (long long)query->history_len);
        if (element.type == SL_VALUE_MAP) {
            sl_decoder_read(decoder, &fields, &element, &query->history[query->history_len++]);
        } else {
            sl_decoder_refuse(decoder, "", "must be an object with role and content");
        }
        sl_decoder_leave(decoder, left);
    }
}

static bool has_pair(const struct sl_query *query, struct sl_span key)
{
    for (size_t i = 0; i < query->filter_len; i++) {
        if (sl_span_equal(query->filter[i].key, key)) {
            return true;
        }
    }
    return false;
}

/* One pair; it counts when it is right. */
static void read_pair(struct sl_decoder *decoder, const struct sl_value *key,
                      const struct sl_value *value, struct sl_query *query)
{
    struct sl_pair *pair = &query->filter[query->filter_len];
    struct sl_field name = {.name = "(key)", .min = 1, .max = NAME_MAX_BYTES};
    char shown[64];
    sl_read_name(decoder, &name, key, &pair->key);
    if (pair->key.data == NULL) {
        return;
    }
    snprintf(shown, sizeof(shown), SL_SPAN_FMT, SL_SPAN_ARG(pair->key));
    if (has_pair(query, pair->key)) {
        sl_decoder_refuse(decoder, shown, "is there twice");
        return;
    }
    struct sl_field field = {.name = shown, .min = 0, .max = FILTER_VALUE_MAX};
    sl_read_text(decoder, &field, value, &pair->value);
    query->filter_len += pair->value.data != NULL ? 1 : 0;
}

static void read_filter(struct sl_decoder *decoder, const struct sl_field *field,
                        const struct sl_value *value, void *target)
{
    struct sl_query *query = target;
    struct sl_value_iter iter = {.container = value};
    struct sl_value key, element;
    if (value->type != SL_VALUE_MAP || value->len > SL_FILTER_MAX) {
        sl_decoder_refuse(decoder, field->name, "must be an object of at most %d pairs",
                          SL_FILTER_MAX);
        return;
    }
    if (value->len == 0) {
        return;
    }
    query->filter = sl_decoder_alloc(decoder, value->len * sizeof(*query->filter));
    size_t left = sl_decoder_enter(decoder, field->name, -1);
    while (decoder->err != -SL_ENOMEM && sl_value_next(&iter, &key, &element)) {
        read_pair(decoder, &key, &element, query);
    }
    sl_decoder_leave(decoder, left);
}

static bool parse_disconnect(struct sl_span text, struct sl_query *query)
{
    long long seconds;
    if (sl_span_is(text, "cancel")) {
        query->on_disconnect = SL_DISCONNECT_CANCEL;
        return true;
    }
    if (sl_span_is(text, "continue")) {
        query->on_disconnect = SL_DISCONNECT_CONTINUE;
        return true;
    }
    if (text.len > 6 && memcmp(text.data, "grace:", 6) == 0 &&
        sl_span_to_int((struct sl_span){text.data + 6, text.len - 6}, 1, GRACE_MAX_S, &seconds) ==
            0) {
        query->on_disconnect = SL_DISCONNECT_GRACE;
        query->grace_ms = (uint32_t)seconds * 1000;
        return true;
    }
    return false;
}

static void read_disconnect(struct sl_decoder *decoder, const struct sl_field *field,
                            const struct sl_value *value, void *target)
{
    char shown[64];
    bool texty = value->type == SL_VALUE_TEXT || value->type == SL_VALUE_BYTES;
    if (!texty || !parse_disconnect(value->text, target)) {
        sl_value_describe(value, shown, sizeof(shown));
        sl_decoder_refuse(decoder, field->name,
                          "must be \"cancel\", \"continue\" or \"grace:SECONDS\" with 1 to %d "
                          "seconds, not %s",
                          GRACE_MAX_S, shown);
    }
}

/* It becomes part of the request to the model, so it has to be what it says. */
static void read_extra(struct sl_decoder *decoder, const struct sl_field *field,
                       const struct sl_value *value, void *target)
{
    struct sl_query *query = target;
    struct sl_json_doc *doc = NULL;
    sl_read_text(decoder, field, value, target);
    if (query->extra.len == 0) {
        return;
    }
    int rv = sl_json_parse(query->extra, &doc, NULL, 0);
    if (rv != 0 || sl_json_type(sl_json_root(doc)) != SL_JSON_OBJECT) {
        sl_decoder_refuse(decoder, field->name, "must be the text of a JSON object");
    }
    sl_json_free(doc);
}

/* --- what the pipeline adds --- */

static void read_source(struct sl_decoder *decoder, const struct sl_field *field,
                        const struct sl_value *value, void *target)
{
    struct sl_query *query = target;
    struct sl_value_iter iter = {.container = value};
    struct sl_value key, part[3];
    int64_t partition = 0;
    if (value->type != SL_VALUE_LIST || value->len != 3) {
        sl_decoder_refuse(decoder, field->name, "must be [topic, partition, offset]");
        return;
    }
    for (size_t i = 0; i < 3 && sl_value_next(&iter, &key, &part[i]); i++) {
    }
    struct sl_field number = {.name = field->name, .max = INT32_MAX};
    query->source_topic = sl_read_element(decoder, field->name, 0, TOPIC_MAX, &part[0]);
    sl_read_i64(decoder, &number, &part[1], &partition);
    number.max = INT64_MAX;
    sl_read_i64(decoder, &number, &part[2], &query->source_offset);
    query->source_partition = (int32_t)partition;
}

static void read_vector(struct sl_decoder *decoder, const struct sl_field *field,
                        const struct sl_value *value, void *target)
{
    struct sl_query *query = target;
    if (value->type != SL_VALUE_BYTES || value->text.len % sizeof(float) != 0 ||
        value->text.len > SL_VECTOR_MAX * sizeof(float)) {
        sl_decoder_refuse(decoder, field->name, "must be at most %d float32 numbers as bytes",
                          SL_VECTOR_MAX);
        return;
    }
    query->vector = sl_decoder_floats(decoder, value->text);
    query->vector_len = query->vector != NULL ? value->text.len / sizeof(float) : 0;
}

/* --- tables --- */

/* clang-format off */
#define FIELD(name, member, reader, low, high) \
    {name, reader, offsetof(struct sl_query, member), low, high, NULL, false}
#define CALLER_FIELDS                                                                              \
    {"query", sl_read_text, offsetof(struct sl_query, query), 1, SL_QUERY_MAX, NULL, true},        \
    FIELD("collection", collection, sl_read_name, 1, NAME_MAX_BYTES),                              \
    FIELD("history", history, read_history, 0, 0),                                                 \
    {"mode", sl_read_choice, offsetof(struct sl_query, mode), 0, 0, modes, false},                 \
    FIELD("top_n", top_n, sl_read_u32, 1, SL_TOP_N_MAX),                                           \
    FIELD("timeout_ms", timeout_ms, sl_read_u32, 100, 600000),                                     \
    FIELD("max_tokens", max_tokens, sl_read_u32, 1, 32768),                                        \
    FIELD("model", model, sl_read_name, 0, NAME_MAX_BYTES),                                        \
    FIELD("temperature", temperature, sl_read_number, 0, 2),                                       \
    FIELD("on_disconnect", on_disconnect, read_disconnect, 0, 0),                                  \
    {"on_worker_lost", sl_read_choice, offsetof(struct sl_query, on_worker_lost), 0, 0,            \
     worker_lost, false},                                                                          \
    FIELD("filter", filter, read_filter, 0, 0)
/* clang-format on */

/* Jobs; in JSON "v" and "extra" are unknown fields. */
static const struct sl_field caller_fields[] = {CALLER_FIELDS};
static const struct sl_field caller_msgpack_fields[] = {
    CALLER_FIELDS,
    {.name = "v", .read = sl_read_pass},
    FIELD("extra", extra, read_extra, 0, EXTRA_MAX),
};
static const struct sl_field stage_fields[] = {
    CALLER_FIELDS,
    {.name = "v", .read = sl_read_pass},
    FIELD("extra", extra, sl_read_text, 0, EXTRA_MAX),
    FIELD("json", json, sl_read_bool, 0, 0),
    FIELD("accepted", accepted_ms, sl_read_i64, 0, INT64_MAX),
    FIELD("source", source_topic, read_source, 0, 0),
    FIELD("vector", vector, read_vector, 0, 0),
    FIELD("hits", hits, sl_read_hits, 0, 0),
    FIELD("degraded", degraded, sl_read_u32, 0, UINT32_MAX),
    FIELD("retrieved", retrieved_ms, sl_read_i64, 0, INT64_MAX),
    FIELD("stages", stages, sl_read_stages_list, 0, 0),
};
static const struct sl_fields from_caller = {caller_fields, SL_FIELDS_COUNT(caller_fields), true};
static const struct sl_fields from_caller_msgpack = {caller_msgpack_fields,
                                                     SL_FIELDS_COUNT(caller_msgpack_fields), true};
static const struct sl_fields from_stage = {stage_fields, SL_FIELDS_COUNT(stage_fields), false};

/* --- decoding --- */

static void set_defaults(struct sl_query *query)
{
    *query = (struct sl_query){
        .collection = SL_SPAN("default"),
        .mode = SL_MODE_ANSWER,
        .top_n = 5,
        .timeout_ms = 60000,
        .max_tokens = 512,
        .on_disconnect = SL_DISCONNECT_CANCEL,
        .on_worker_lost = SL_WORKER_LOST_ERROR,
        /* Routing stays. */
        .id = query->id,
        .tenant = query->tenant,
        .key = query->key,
        .deadline_ms = query->deadline_ms,
        .reply_topic = query->reply_topic,
        .reply_partition = query->reply_partition,
        .reply_bundles = query->reply_bundles,
        .traceparent = query->traceparent,
    };
}

int sl_query_decode(struct sl_span bytes, bool json, struct sl_arena *arena, struct sl_query *query,
                    struct sl_fault *fault)
{
    struct sl_decoder decoder = {.arena = arena, .fault = fault};
    struct sl_json_doc *doc;
    struct sl_value root;
    set_defaults(query);
    int rv = sl_decoder_open(&decoder, bytes, json, &doc, &root);
    if (rv == 0 || rv == -SL_EINVAL) {
        sl_decoder_read(&decoder, json ? &from_caller : &from_caller_msgpack, &root, query);
        rv = decoder.err;
    }
    query->json = json;
    sl_json_free(doc);
    return rv;
}

static int keep_unknown(struct sl_decoder *decoder, struct sl_query *query)
{
    if (sl_buf_error(decoder->kept) != 0) {
        return -SL_ENOMEM; /* It cannot be too big: it is part of the input. */
    }
    if (decoder->kept_pairs > 0) {
        query->unknown = sl_arena_copy(decoder->arena, sl_buf_span(decoder->kept));
        query->unknown_pairs = decoder->kept_pairs;
    }
    return decoder->kept_pairs > 0 && query->unknown.data == NULL ? -SL_ENOMEM : 0;
}

int sl_query_decode_internal(struct sl_span bytes, struct sl_arena *arena, struct sl_query *query,
                             struct sl_fault *fault)
{
    struct sl_buf kept;
    struct sl_decoder decoder = {.arena = arena, .fault = fault, .kept = &kept};
    struct sl_json_doc *doc;
    struct sl_value root;
    set_defaults(query);
    sl_buf_init(&kept, bytes.len);
    int rv = sl_decoder_open(&decoder, bytes, false, &doc, &root);
    if (rv == 0) {
        sl_decoder_read(&decoder, &from_stage, &root, query);
        rv = decoder.err != 0 ? decoder.err : keep_unknown(&decoder, query);
    }
    sl_buf_fini(&kept);
    return rv == -SL_EINVAL ? -SL_EBADMSG : rv;
}
