/*
 * Writing the record. All members are there in every record, so that whoever reads the topic needs
 * no case for an absent one; what is not known is 0, "", null or empty.
 *
 * Redacted texts are empty rather than hashed: most questions are short enough to be found again
 * from their hash by trying.
 */
#include "workers/observe/record.h"

#include "common/codec.h"
#include "common/json.h"

/* --- the preview --- */

/* The character at the front of text, its length in *len; what is no UTF-8 is one byte long. */
static uint32_t take_character(struct sl_span text, size_t *len)
{
    unsigned char c = (unsigned char)text.data[0];
    size_t size = c < 0xc2 ? 1 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
    uint32_t value = size == 1 ? c : c & (0x7fu >> size);
    if (size > text.len) {
        *len = 1;
        return c;
    }
    for (size_t i = 1; i < size; i++) {
        value = value << 6 | ((unsigned char)text.data[i] & 0x3f);
    }
    *len = size;
    return value;
}

enum { JOINER = 0x200d };

/* What belongs to the character before it: accents, variations, skin tones, tags. */
static bool extends(uint32_t c)
{
    static const struct {
        uint32_t first, last;
    } ranges[] = {{0x0300, 0x036f},  {0x0483, 0x0489}, {0x0591, 0x05bd},   {0x064b, 0x065f},
                  {0x093a, 0x094f},  {0x0e31, 0x0e3a}, {0x0e47, 0x0e4e},   {0x1ab0, 0x1aff},
                  {0x1dc0, 0x1dff},  {JOINER, JOINER}, {0x20d0, 0x20ff},   {0x3099, 0x309a},
                  {0xfe00, 0xfe0f},  {0xfe20, 0xfe2f}, {0x1f3fb, 0x1f3ff}, {0xe0020, 0xe007f},
                  {0xe0100, 0xe01ef}};
    for (size_t i = 0; i < sizeof(ranges) / sizeof(ranges[0]); i++) {
        if (c >= ranges[i].first && c <= ranges[i].last) {
            return true;
        }
    }
    return false;
}

struct sl_span record_preview(struct sl_span text, size_t characters)
{
    size_t at = 0, whole = 0, count = 0, len;
    uint32_t before = 0;
    while (at < text.len) {
        uint32_t c = take_character((struct sl_span){text.data + at, text.len - at}, &len);
        if (before != JOINER && !extends(c)) {
            whole = at;
        }
        if (count == characters) {
            return (struct sl_span){text.data, whole};
        }
        before = c;
        at += len;
        count++;
    }
    return text;
}

/* --- members --- */

static void put_text(struct sl_json_writer *w, const char *key, struct sl_span text)
{
    sl_json_key(w, key);
    sl_json_put_string(w, text);
}

static void put_int(struct sl_json_writer *w, const char *key, int64_t value)
{
    sl_json_key(w, key);
    sl_json_put_int(w, value);
}

static void put_bool(struct sl_json_writer *w, const char *key, bool value)
{
    sl_json_key(w, key);
    sl_json_put_bool(w, value);
}

/* Three digits are more than these measures mean. */
static void put_share(struct sl_json_writer *w, const char *key, double value)
{
    sl_json_key(w, key);
    sl_json_put_number(w, (double)(int64_t)(value * 1000 + 0.5) / 1000);
}

static void put_stages(struct sl_json_writer *w, const struct sl_query *query)
{
#define X(name) #name,
    static const char *const names[] = {SL_STAGES(X)};
#undef X
    sl_json_key(w, "stages");
    sl_json_begin_object(w);
    for (size_t i = 0; i < SL_STAGE_COUNT; i++) {
        const struct sl_stage_time *time = &query->stages[i];
        if (!time->reached) {
            continue;
        }
        sl_json_key(w, names[i]);
        sl_json_begin_object(w);
        put_int(w, "queue_ms", time->queue_ms);
        put_int(w, "wait_ms", time->wait_ms);
        put_int(w, "work_ms", time->work_ms);
        put_int(w, "attempts", time->attempts);
        sl_json_end_object(w);
    }
    sl_json_end_object(w);
}

static void put_usage(struct sl_json_writer *w, const struct sl_usage *usage)
{
    sl_json_key(w, "usage");
    sl_json_begin_object(w);
    put_int(w, "prompt_tokens", usage->prompt_tokens);
    put_int(w, "completion_tokens", usage->completion_tokens);
    put_int(w, "total_tokens", (int64_t)usage->prompt_tokens + usage->completion_tokens);
    put_bool(w, "estimated", usage->estimated);
    sl_json_end_object(w);
}

static void put_degraded(struct sl_json_writer *w, uint32_t degraded)
{
    static const struct {
        uint32_t bit;
        const char *name;
    } parts[] = {{SL_DEGRADED_VECTOR, "vector"},
                 {SL_DEGRADED_KEYWORD, "keyword"},
                 {SL_DEGRADED_RERANK, "rerank"}};
    sl_json_key(w, "degraded");
    sl_json_begin_array(w);
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
        if ((degraded & parts[i].bit) != 0) {
            sl_json_put_string(w, sl_span_of(parts[i].name));
        }
    }
    sl_json_end_array(w);
}

static void put_sources(struct sl_json_writer *w, const struct sl_query *query)
{
    sl_json_key(w, "sources");
    sl_json_begin_array(w);
    for (size_t i = 0; i < query->hits_len; i++) {
        sl_json_begin_object(w);
        put_text(w, "doc_id", query->hits[i].doc_id);
        put_text(w, "chunk_id", query->hits[i].chunk_id);
        sl_json_key(w, "score");
        sl_json_put_number(w, query->hits[i].score);
        sl_json_end_object(w);
    }
    sl_json_end_array(w);
}

static void put_judgement(struct sl_json_writer *w, const struct quality *quality, bool reasons,
                          const char *judge_model)
{
    bool judged = quality->judged == QUALITY_JUDGED;
    put_bool(w, "sampled", quality->judged != QUALITY_NOT_SAMPLED);
    if (!judged) {
        sl_json_key(w, "groundedness");
        sl_json_put_null(w);
        sl_json_key(w, "relevance");
        sl_json_put_null(w);
    } else {
        put_share(w, "groundedness", quality->groundedness);
        put_share(w, "relevance", quality->relevance);
    }
    put_text(w, "groundedness_reason",
             sl_span_of(judged && reasons ? quality->groundedness_reason : ""));
    put_text(w, "relevance_reason", sl_span_of(judged && reasons ? quality->relevance_reason : ""));
    put_text(w, "judge_model",
             sl_span_of(quality->judged != QUALITY_NOT_SAMPLED ? judge_model : ""));
    put_text(w, "judge_missing",
             sl_span_of(quality->judged == QUALITY_MISSING ? quality->missing : ""));
}

static void put_quality(struct sl_json_writer *w, const struct quality *quality, bool reasons,
                        const char *judge_model)
{
    sl_json_key(w, "quality");
    if (!quality->measured) {
        sl_json_put_null(w);
        return;
    }
    sl_json_begin_object(w);
    put_int(w, "words", (int64_t)quality->words);
    put_int(w, "characters", (int64_t)quality->characters);
    put_int(w, "source_count", (int64_t)quality->sources);
    put_int(w, "cited_sources", (int64_t)quality->cited);
    put_share(w, "citation_share", quality->citation_share);
    put_share(w, "word_overlap", quality->word_overlap);
    put_share(w, "trigram_overlap", quality->trigram_overlap);
    put_bool(w, "empty", quality->empty);
    put_bool(w, "refusal", quality->refusal);
    put_judgement(w, quality, reasons, judge_model);
    sl_json_end_object(w);
}

void record_write(const struct sl_ended *ended, int64_t time_ms, enum record_redact redact,
                  const struct quality *quality, const char *judge_model, struct sl_buf *out)
{
    const struct sl_query *query = &ended->query;
    const struct sl_result *result = &ended->result;
    bool hide_query = redact == RECORD_REDACT_QUERY || redact == RECORD_REDACT_ALL;
    bool hide_answer = redact == RECORD_REDACT_ANSWER || redact == RECORD_REDACT_ALL;
    struct sl_json_writer w = {.out = out};
    sl_json_begin_object(&w);
    put_text(&w, "query_id", query->id);
    put_text(&w, "tenant", query->tenant);
    put_text(&w, "collection", query->collection);
    put_int(&w, "time", time_ms);
    put_text(&w, "query", hide_query ? SL_SPAN("") : query->query);
    put_text(&w, "response_preview",
             hide_answer ? SL_SPAN("") : record_preview(result->answer, RECORD_PREVIEW));
    put_text(&w, "outcome", sl_span_of(sl_outcome_text(result->outcome)));
    put_text(&w, "error_code", sl_span_of(sl_query_error_text(result->code)));
    put_text(&w, "error_stage", result->stage);
    put_text(&w, "model", result->model);
    put_int(&w, "latency_ms", result->total_ms);
    put_int(&w, "ttft_ms", result->ttft_ms);
    put_int(&w, "retrieval_latency_ms", result->retrieval_latency_ms);
    put_int(&w, "generation_latency_ms", result->generation_latency_ms);
    put_stages(&w, query);
    put_usage(&w, &result->usage);
    put_degraded(&w, query->degraded);
    put_sources(&w, query);
    put_quality(&w, quality, redact == RECORD_REDACT_NONE, judge_model);
    sl_json_end_object(&w);
}
