/*
 * A report from records, each read once by tenant and query id. Times are kept as numbers, four
 * bytes each, and ranked at the end; what is kept at all is bounded, so that a day of a busy
 * cluster fills the report and not the memory.
 */
#include "workers/cli/report.h"

#include "common/json.h"
#include "common/list.h"
#include "common/map.h"

#include <stdlib.h>

enum { RECORDS_MAX = 300000, ERRORS_MAX = 64, TEXT_MAX = 256 };

struct seen {
    struct sl_map_node node;
    char key[]; /* Tenant, zero, query id. */
};

struct values {
    uint32_t *at;
    size_t len, cap;
};

struct sum {
    uint64_t count;
    double sum;
};

struct report_gather {
    struct sl_map seen;
    struct report report; /* Its counts so far. */
    struct values times[REPORT_TIME_COUNT];
    struct report_error errors[ERRORS_MAX];
    size_t error_count;
    struct sum citation_share, word_overlap, trigram_overlap, groundedness, relevance;
    int err;
};

/* --- reading --- */

static struct sl_span text_at(const struct sl_json *object, const char *key)
{
    const struct sl_json *value = sl_json_get(object, key);
    return value != NULL && sl_json_type(value) == SL_JSON_STRING ? sl_json_string(value)
                                                                  : SL_SPAN("");
}

/* A whole number that is not negative; else -1. */
static int64_t int_at(const struct sl_json *object, const char *key)
{
    const struct sl_json *value = sl_json_get(object, key);
    int64_t n = value != NULL && sl_json_type(value) == SL_JSON_INT ? sl_json_int(value) : -1;
    return n >= 0 ? n : -1;
}

static bool true_at(const struct sl_json *object, const char *key)
{
    const struct sl_json *value = sl_json_get(object, key);
    return value != NULL && sl_json_type(value) == SL_JSON_BOOL && sl_json_bool(value);
}

static void add_share(struct sum *sum, const struct sl_json *object, const char *key)
{
    const struct sl_json *value = sl_json_get(object, key);
    enum sl_json_type type = value != NULL ? sl_json_type(value) : SL_JSON_NULL;
    if (type == SL_JSON_INT || type == SL_JSON_NUMBER) {
        sum->count++;
        sum->sum += sl_json_number(value);
    }
}

static void add_time(struct report_gather *gather, enum report_time time, int64_t ms)
{
    struct values *values = &gather->times[time];
    if (ms < 0) {
        return;
    }
    if (values->len == values->cap) {
        size_t cap = values->cap > 0 ? values->cap * 2 : 1024;
        uint32_t *at = realloc(values->at, cap * sizeof(*at));
        if (at == NULL) {
            gather->err = -SL_ENOMEM;
            return;
        }
        values->at = at;
        values->cap = cap;
    }
    values->at[values->len++] = ms < UINT32_MAX ? (uint32_t)ms : UINT32_MAX;
}

/* --- one record --- */

static enum sl_outcome outcome_of(const struct sl_json *root)
{
    static const char *const names[] = {"done", "failed", "cancelled", "expired"};
    struct sl_span text = text_at(root, "outcome");
    for (size_t i = 0; i < REPORT_OUTCOMES; i++) {
        if (sl_span_is(text, names[i])) {
            return (enum sl_outcome)i;
        }
    }
    return SL_FAILED;
}

static void copy_text(char *to, size_t size, struct sl_span text)
{
    text.len = text.len < size ? text.len : size - 1;
    if (text.len > 0) {
        memcpy(to, text.data, text.len);
    }
    to[text.len] = '\0';
}

static void add_error(struct report_gather *gather, const struct sl_json *root)
{
    struct report_error error = {.count = 1};
    copy_text(error.code, sizeof(error.code), text_at(root, "error_code"));
    copy_text(error.stage, sizeof(error.stage), text_at(root, "error_stage"));
    for (size_t i = 0; i < gather->error_count; i++) {
        struct report_error *known = &gather->errors[i];
        if (strcmp(known->code, error.code) == 0 && strcmp(known->stage, error.stage) == 0) {
            known->count++;
            return;
        }
    }
    if (gather->error_count < ERRORS_MAX) {
        gather->errors[gather->error_count++] = error;
    }
}

static void add_stages(struct report_gather *gather, const struct sl_json *stages)
{
#define X(name) #name,
    static const char *const names[] = {SL_STAGES(X)};
#undef X
    for (size_t i = 0; i < SL_STAGE_COUNT; i++) {
        const struct sl_json *stage = sl_json_get(stages, names[i]);
        int64_t queue = int_at(stage, "queue_ms"), wait = int_at(stage, "wait_ms");
        if (queue >= 0 && wait >= 0) {
            add_time(gather, (enum report_time)(REPORT_EMBED_WAIT + 2 * i), queue + wait);
        }
        add_time(gather, (enum report_time)(REPORT_EMBED_WORK + 2 * i), int_at(stage, "work_ms"));
    }
}

static void add_degraded(struct report *report, const struct sl_json *list)
{
    static const char *const parts[] = {"vector", "keyword", "rerank"};
    const struct sl_json *value;
    size_t at = 0;
    if (list == NULL || sl_json_type(list) != SL_JSON_ARRAY) {
        return;
    }
    report->degraded += sl_json_len(list) > 0 ? 1 : 0;
    while (sl_json_each(list, &at, NULL, &value)) {
        for (size_t i = 0; sl_json_type(value) == SL_JSON_STRING && i < 3; i++) {
            report->degraded_parts[i] += sl_span_is(sl_json_string(value), parts[i]) ? 1 : 0;
        }
    }
}

static void add_quality(struct report_gather *gather, const struct sl_json *quality)
{
    struct report *report = &gather->report;
    if (quality == NULL || sl_json_type(quality) != SL_JSON_OBJECT) {
        return;
    }
    report->answers++;
    report->refusals += true_at(quality, "refusal") ? 1 : 0;
    report->empty += true_at(quality, "empty") ? 1 : 0;
    report->sampled += true_at(quality, "sampled") ? 1 : 0;
    add_share(&gather->citation_share, quality, "citation_share");
    add_share(&gather->word_overlap, quality, "word_overlap");
    add_share(&gather->trigram_overlap, quality, "trigram_overlap");
    add_share(&gather->groundedness, quality, "groundedness");
    add_share(&gather->relevance, quality, "relevance");
}

static void add_record(struct report_gather *gather, const struct sl_json *root)
{
    struct report *report = &gather->report;
    const struct sl_json *usage = sl_json_get(root, "usage");
    int64_t prompt = int_at(usage, "prompt_tokens"), out = int_at(usage, "completion_tokens");
    enum sl_outcome outcome = outcome_of(root);
    report->queries++;
    report->outcomes[outcome]++;
    report->prompt_tokens += prompt > 0 ? (uint64_t)prompt : 0;
    report->completion_tokens += out > 0 ? (uint64_t)out : 0;
    if (outcome == SL_DONE) {
        int64_t ttft = int_at(root, "ttft_ms"), generation = int_at(root, "generation_latency_ms");
        add_time(gather, REPORT_TOTAL, int_at(root, "latency_ms"));
        add_time(gather, REPORT_TTFT, ttft > 0 ? ttft : -1); /* A search has none. */
        add_time(gather, REPORT_RETRIEVAL, int_at(root, "retrieval_latency_ms"));
        add_time(gather, REPORT_GENERATION, generation > 0 ? generation : -1);
    } else {
        add_error(gather, root);
    }
    add_stages(gather, sl_json_get(root, "stages"));
    add_degraded(report, sl_json_get(root, "degraded"));
    add_quality(gather, sl_json_get(root, "quality"));
}

/* 1: it is new; 0: it was there; -SL_ENOMEM, -SL_ETOOBIG. */
static int note_seen(struct report_gather *gather, const struct sl_json *root)
{
    struct sl_span tenant = text_at(root, "tenant"), id = text_at(root, "query_id");
    size_t len = tenant.len + 1 + id.len;
    if (id.len == 0 || tenant.len > TEXT_MAX || id.len > TEXT_MAX) {
        return 0;
    }
    struct seen *seen = malloc(sizeof(*seen) + len);
    if (seen == NULL) {
        return -SL_ENOMEM;
    }
    memcpy(seen->key, tenant.data, tenant.len);
    seen->key[tenant.len] = '\0';
    memcpy(seen->key + tenant.len + 1, id.data, id.len);
    struct sl_span key = {seen->key, len};
    bool known = sl_map_find(&gather->seen, key) != NULL;
    if (known || gather->seen.len >= RECORDS_MAX) {
        free(seen);
        return known ? 0 : -SL_ETOOBIG;
    }
    sl_map_add(&gather->seen, &seen->node, key);
    return 1;
}

int report_gather_add(struct report_gather *gather, const struct report *span,
                      struct sl_span record)
{
    struct sl_json_doc *doc;
    int rv = sl_json_parse(record, &doc, NULL, 0);
    if (rv != 0) {
        return rv == -SL_ENOMEM ? rv : 0;
    }
    const struct sl_json *root = sl_json_root(doc);
    int64_t time_ms = int_at(root, "time");
    if (time_ms >= span->from_ms && time_ms < span->to_ms) {
        rv = note_seen(gather, root);
        if (rv > 0) {
            add_record(gather, root);
            rv = gather->err;
        }
    }
    sl_json_free(doc);
    return rv;
}

/* --- the end --- */

static int compare_values(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

/* The nearest rank: the smallest value that so many of a hundred do not exceed. */
static double rank(const struct values *values, size_t percent)
{
    size_t i = (values->len * percent + 99) / 100;
    return values->len > 0 ? (double)values->at[i > 0 ? i - 1 : 0] : 0;
}

static int compare_errors(const void *a, const void *b)
{
    const struct report_error *x = a, *y = b;
    return x->count != y->count ? (x->count > y->count ? -1 : 1) : strcmp(x->code, y->code);
}

static struct report_mean mean_of(const struct sum *sum)
{
    return (struct report_mean){sum->count, sum->count > 0 ? sum->sum / (double)sum->count : 0};
}

void report_gather_finish(struct report_gather *gather, struct report *report)
{
    struct report out = gather->report;
    out.from_ms = report->from_ms;
    out.to_ms = report->to_ms;
    for (size_t i = 0; i < REPORT_TIME_COUNT; i++) {
        struct values *values = &gather->times[i];
        if (values->len > 0) {
            qsort(values->at, values->len, sizeof(*values->at), compare_values);
        }
        out.times[i] = (struct report_times){values->len, rank(values, 50), rank(values, 95),
                                             rank(values, 99)};
    }
    qsort(gather->errors, gather->error_count, sizeof(gather->errors[0]), compare_errors);
    out.error_count =
        gather->error_count < REPORT_ERRORS ? gather->error_count : (size_t)REPORT_ERRORS;
    memcpy(out.errors, gather->errors, out.error_count * sizeof(out.errors[0]));
    out.citation_share = mean_of(&gather->citation_share);
    out.word_overlap = mean_of(&gather->word_overlap);
    out.trigram_overlap = mean_of(&gather->trigram_overlap);
    out.groundedness = mean_of(&gather->groundedness);
    out.relevance = mean_of(&gather->relevance);
    out.judged = out.groundedness.count;
    *report = out;
}

int report_gather_create(struct report_gather **ret)
{
    struct report_gather *gather = calloc(1, sizeof(*gather));
    if (gather == NULL || sl_map_init(&gather->seen) != 0) {
        free(gather);
        return -SL_ENOMEM;
    }
    *ret = gather;
    return 0;
}

void report_gather_destroy(struct report_gather *gather)
{
    if (gather == NULL) {
        return;
    }
    struct sl_map_node *next = sl_map_next(&gather->seen, NULL);
    while (next != NULL) {
        struct sl_map_node *node = next;
        next = sl_map_next(&gather->seen, node);
        free(SL_ITEM(node, struct seen, node));
    }
    sl_map_fini(&gather->seen);
    for (size_t i = 0; i < REPORT_TIME_COUNT; i++) {
        free(gather->times[i].at);
    }
    free(gather);
}
