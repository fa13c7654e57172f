/*
 * Results, and what the event that ends a query has in common with them. Every member is there in
 * every result, whatever the outcome, so that a consumer needs no case for its absence: what is not
 * known is 0, "", null or empty. Only "stages" shows just the stages that the query reached.
 */
#include "common/codec.h"
#include "common/codec_outcome.h"
#include "common/codec_parts.h"

#include <assert.h>
#include <math.h>

enum { MEMBERS = 14, TEXT_MEMBERS = 2 };

const char *const sl_outcome_names[] = {"done", "failed", "cancelled", "expired", NULL};
const char *const sl_query_error_names[] = {
#define X(name, text) text,
    SL_QUERY_ERRORS(X)
#undef X
        NULL};
const struct sl_degraded_name sl_degraded_names[SL_DEGRADED_COUNT] = {
    {SL_DEGRADED_VECTOR, "vector"},
    {SL_DEGRADED_KEYWORD, "keyword"},
    {SL_DEGRADED_RERANK, "rerank"},
};

const char *sl_outcome_text(enum sl_outcome outcome)
{
    assert(outcome <= SL_EXPIRED);
    return sl_outcome_names[outcome];
}

const char *sl_query_error_text(enum sl_query_error code)
{
    assert(code <= SL_QERR_INTERNAL);
    return sl_query_error_names[code];
}

void sl_sink_sources(struct sl_sink *sink, const struct sl_query *query, bool texts)
{
    sl_sink_list(sink, query->hits_len);
    for (size_t i = 0; i < query->hits_len; i++) {
        const struct sl_hit *hit = &query->hits[i];
        sl_sink_map(sink, texts ? 7 : 6);
        sl_sink_int_at(sink, "n", (int64_t)i + 1);
        sl_sink_text_at(sink, "doc_id", hit->doc_id);
        sl_sink_text_at(sink, "chunk_id", hit->chunk_id);
        sl_sink_int_at(sink, "chunk_index", hit->chunk_index);
        if (texts) {
            sl_sink_text_at(sink, "text", hit->text);
        }
        sl_sink_key(sink, "score");
        sl_sink_number(sink, isfinite(hit->score) ? hit->score : 0);
        sl_sink_key(sink, "metadata");
        sl_sink_object(sink, hit->metadata);
        sl_sink_map_end(sink);
    }
    sl_sink_list_end(sink);
}

static void put_stages(struct sl_sink *sink, const struct sl_query *query)
{
    size_t reached = 0;
    for (size_t i = 0; i < SL_STAGE_COUNT; i++) {
        reached += sl_stage_reached(&query->stages[i]) ? 1 : 0;
    }
    sl_sink_key(sink, "stages");
    sl_sink_map(sink, reached);
    for (size_t i = 0; i < SL_STAGE_COUNT; i++) {
        const struct sl_stage_time *time = &query->stages[i];
        if (sl_stage_reached(time)) {
            sl_sink_key(sink, sl_stage_names[i]);
            sl_sink_map(sink, 4);
            sl_sink_int_at(sink, "queue_ms", time->queue_ms);
            sl_sink_int_at(sink, "wait_ms", time->wait_ms);
            sl_sink_int_at(sink, "work_ms", time->work_ms);
            sl_sink_int_at(sink, "attempts", time->attempts);
            sl_sink_map_end(sink);
        }
    }
    sl_sink_map_end(sink);
}

static void put_degraded(struct sl_sink *sink, const struct sl_query *query)
{
    size_t count = 0;
    for (size_t i = 0; i < SL_DEGRADED_COUNT; i++) {
        count += (query->degraded & sl_degraded_names[i].bit) != 0 ? 1 : 0;
    }
    sl_sink_key(sink, "degraded");
    sl_sink_list(sink, count);
    for (size_t i = 0; i < SL_DEGRADED_COUNT; i++) {
        if ((query->degraded & sl_degraded_names[i].bit) != 0) {
            sl_sink_text(sink, sl_span_of(sl_degraded_names[i].name));
        }
    }
    sl_sink_list_end(sink);
}

static void put_usage(struct sl_sink *sink, const struct sl_usage *usage)
{
    sl_sink_key(sink, "usage");
    sl_sink_map(sink, 4);
    sl_sink_int_at(sink, "prompt_tokens", usage->prompt_tokens);
    sl_sink_int_at(sink, "completion_tokens", usage->completion_tokens);
    sl_sink_int_at(sink, "total_tokens",
                   (int64_t)usage->prompt_tokens + (int64_t)usage->completion_tokens);
    sl_sink_key(sink, "estimated");
    sl_sink_bool(sink, usage->estimated);
    sl_sink_map_end(sink);
}

static void put_error(struct sl_sink *sink, const struct sl_result *result)
{
    sl_sink_key(sink, "error");
    if (result->code == SL_QERR_NONE) {
        sl_sink_null(sink);
        return;
    }
    sl_sink_map(sink, 3);
    sl_sink_text_at(sink, "code", sl_span_of(sl_query_error_text(result->code)));
    sl_sink_text_at(sink, "message", result->message);
    sl_sink_text_at(sink, "stage", result->stage);
    sl_sink_map_end(sink);
}

/* A query that no log has kept a job of (refused before) has no source. */
static void put_source(struct sl_sink *sink, const struct sl_query *query)
{
    sl_sink_key(sink, "source");
    if (query->source_topic.len == 0) {
        sl_sink_null(sink);
        return;
    }
    sl_sink_map(sink, 3);
    sl_sink_text_at(sink, "topic", query->source_topic);
    sl_sink_int_at(sink, "partition", query->source_partition);
    sl_sink_int_at(sink, "offset", query->source_offset);
    sl_sink_map_end(sink);
}

size_t sl_outcome_members(bool texts)
{
    return texts ? MEMBERS + TEXT_MEMBERS : MEMBERS;
}

void sl_sink_outcome(struct sl_sink *sink, const struct sl_query *query,
                     const struct sl_result *result, bool texts)
{
    sl_sink_text_at(sink, "outcome", sl_span_of(sl_outcome_text(result->outcome)));
    if (texts) {
        sl_sink_text_at(sink, "query", query->query);
        sl_sink_text_at(sink, "answer", result->answer);
    }
    sl_sink_key(sink, "source_chunks");
    sl_sink_sources(sink, query, texts);
    sl_sink_int_at(sink, "retrieval_latency_ms", result->retrieval_latency_ms);
    sl_sink_int_at(sink, "generation_latency_ms", result->generation_latency_ms);
    sl_sink_int_at(sink, "ttft_ms", result->ttft_ms);
    sl_sink_int_at(sink, "total_ms", result->total_ms);
    put_stages(sink, query);
    put_degraded(sink, query);
    put_usage(sink, &result->usage);
    put_error(sink, result);
    sl_sink_text_at(sink, "tenant", query->tenant);
    sl_sink_text_at(sink, "collection", query->collection);
    sl_sink_text_at(sink, "model", result->model.len > 0 ? result->model : query->model);
    put_source(sink, query);
}

void sl_result_encode(const struct sl_query *query, const struct sl_result *result, bool json,
                      struct sl_buf *out)
{
    struct sl_sink sink;
    sl_sink_init(&sink, out, json);
    sl_sink_map(&sink, 1 + sl_outcome_members(true));
    sl_sink_text_at(&sink, "id", query->id);
    sl_sink_outcome(&sink, query, result, true);
    sl_sink_map_end(&sink);
}

void sl_sources_json(const struct sl_query *query, struct sl_buf *out)
{
    struct sl_sink sink;
    sl_sink_init(&sink, out, true);
    sl_sink_sources(&sink, query, true);
}

/* --- reading --- */

enum { ID_MAX = 64, ANSWER_MAX = 8 << 20 };

struct decoded {
    struct sl_ended ended; /* First, as the readers of its parts expect. */
};

/* clang-format off */
static const struct sl_field fields[] = {
    {.name = "v", .read = sl_read_pass},
    {"id", sl_read_text, offsetof(struct decoded, ended.query.id), 1, ID_MAX, NULL, true},
    {"query", sl_read_text, offsetof(struct decoded, ended.query.query), 0, ANSWER_MAX, NULL, false},
    {"answer", sl_read_text, offsetof(struct decoded, ended.result.answer), 0, ANSWER_MAX, NULL, false},
    SL_OUTCOME_FIELDS(struct decoded, ended)
};
/* clang-format on */

int sl_result_decode(struct sl_span bytes, bool json, struct sl_arena *arena,
                     struct sl_ended *ended, struct sl_fault *fault)
{
    static const struct sl_fields result_fields = {fields, SL_FIELDS_COUNT(fields), false};
    struct sl_decoder decoder = {.arena = arena, .fault = fault};
    struct sl_json_doc *doc;
    struct sl_value root;
    struct decoded decoded = {.ended = {.query = {.json = json}}};
    *fault = (struct sl_fault){{0}, {0}};
    int rv = sl_decoder_open(&decoder, bytes, json, &doc, &root);
    if (rv == 0) {
        sl_decoder_read(&decoder, &result_fields, &root, &decoded);
        rv = decoder.err;
    }
    sl_json_free(doc);
    if (rv == 0) {
        *ended = decoded.ended;
    }
    return rv;
}
