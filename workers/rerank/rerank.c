/*
 * The rerank stage: the fused hits are put in the order that a reranking model gives them, and the
 * best top_n of them are the answer's sources, which the caller gets here, before the first token.
 *
 * A search ends with this stage. A rerank that fails or takes too long loses nothing: the fused
 * order is kept, and the answer says `degraded: ["rerank"]`.
 */
#include "workers/rerank/rerank.h"

#include "common/job.h"
#include "common/json.h"
#include "common/log.h"
#include "common/upstream.h"
#include "common/worker.h"

#include <math.h>
#include <stdlib.h>

enum { REQUEST_MAX = 8 << 20, RESPONSE_MAX = 1 << 20 };

struct state {
    struct sl_upstream_call *call;
};

static struct sl_upstream_config config;

/* --- ending --- */

/* The sources are settled: tell the caller, and go on to generation. */
static void on_ranked(struct sl_job *job)
{
    struct sl_query *query = sl_job_query(job);
    query->hits_len = query->hits_len < query->top_n ? query->hits_len : query->top_n;
    query->retrieved_ms = sl_coord_now_ms(sl_worker_coord(sl_job_worker(job)));
    struct sl_event event = {.type = SL_EVENT_SOURCES, .query = query};
    int rv = sl_job_emit(job, &event);
    if (rv != 0) {
        sl_job_fail(job, SL_QERR_INTERNAL, sl_error_text(rv));
    } else if (query->mode == SL_MODE_SEARCH) {
        struct sl_result result = {.outcome = SL_DONE};
        sl_job_finish(job, &result);
    } else {
        sl_job_forward(job, "generate");
    }
}

static void keep_fused_order(struct sl_job *job, const char *why)
{
    sl_log(SL_LOG_WARN, "rerank failed, keeping the fused order", SL_SPANF("id", sl_job_id(job)),
           SL_STR("why", why));
    sl_job_query(job)->degraded |= SL_DEGRADED_RERANK;
    on_ranked(job);
}

/* --- the response --- */

static int by_score(const void *a, const void *b)
{
    const struct sl_hit *x = a, *y = b;
    return x->score < y->score ? 1 : x->score > y->score ? -1 : 0;
}

/* Scores by index into ranked; how many, or -1 where the response is not one. */
static long read_results(const struct sl_json *results, const struct sl_query *query,
                         struct sl_hit *ranked, bool *seen)
{
    const struct sl_json *item;
    size_t at = 0;
    long count = 0;
    while (sl_json_each(results, &at, NULL, &item)) {
        const struct sl_json *index = sl_json_get(item, "index");
        const struct sl_json *score = sl_json_get(item, "relevance_score");
        if (index == NULL || sl_json_type(index) != SL_JSON_INT || score == NULL ||
            (sl_json_type(score) != SL_JSON_NUMBER && sl_json_type(score) != SL_JSON_INT)) {
            return -1;
        }
        int64_t i = sl_json_int(index);
        if (i < 0 || (uint64_t)i >= query->hits_len || seen[i] ||
            !isfinite(sl_json_number(score))) {
            return -1;
        }
        seen[i] = true;
        ranked[count] = query->hits[i];
        ranked[count++].score = sl_json_number(score);
    }
    return count;
}

/* Puts the hits in the order of the response; false where it cannot be used. */
static bool apply(struct sl_job *job, struct sl_span body)
{
    struct sl_query *query = sl_job_query(job);
    struct sl_hit *ranked = sl_arena_alloc(sl_job_arena(job), query->hits_len * sizeof(*ranked));
    bool *seen = sl_arena_alloc(sl_job_arena(job), query->hits_len);
    struct sl_json_doc *doc;
    if (ranked == NULL || seen == NULL || sl_json_parse(body, &doc, NULL, 0) != 0) {
        return false;
    }
    const struct sl_json *results = sl_json_get(sl_json_root(doc), "results");
    long count = results != NULL && sl_json_type(results) == SL_JSON_ARRAY
                     ? read_results(results, query, ranked, seen)
                     : -1;
    sl_json_free(doc);
    if (count <= 0) {
        return false;
    }
    qsort(ranked, (size_t)count, sizeof(*ranked), by_score);
    query->hits = ranked;
    query->hits_len = (size_t)count;
    return true;
}

static void on_end(void *ctx, int err, int status, struct sl_span body, const char *detail,
                   uint32_t attempts)
{
    struct sl_job *job = ctx;
    struct state *state = sl_job_state(job);
    (void)status;
    state->call = NULL;
    sl_job_count_attempts(job, attempts);
    if (err != 0) {
        keep_fused_order(job, detail);
    } else if (!apply(job, body)) {
        keep_fused_order(job, "the response has no usable results");
    } else {
        on_ranked(job);
    }
}

/* --- the request --- */

static void write_request(const struct sl_query *query, struct sl_buf *out)
{
    struct sl_json_writer w = {.out = out};
    sl_json_begin_object(&w);
    if (config.model[0] != '\0') {
        sl_json_key(&w, "model");
        sl_json_put_string(&w, sl_span_of(config.model));
    }
    sl_json_key(&w, "query");
    sl_json_put_string(&w, query->query);
    sl_json_key(&w, "documents");
    sl_json_begin_array(&w);
    for (size_t i = 0; i < query->hits_len; i++) {
        sl_json_put_string(&w, query->hits[i].text);
    }
    sl_json_end_array(&w);
    sl_json_key(&w, "top_n");
    sl_json_put_int(&w, query->top_n < query->hits_len ? query->top_n : (int64_t)query->hits_len);
    sl_json_end_object(&w);
}

static void start(struct sl_job *job)
{
    static const struct sl_upstream_callbacks callbacks = {.on_end = on_end};
    const struct sl_query *query = sl_job_query(job);
    struct sl_upstream *upstream = sl_worker_stage(sl_job_worker(job));
    struct state *state = sl_job_state(job);
    struct sl_buf body;
    if (query->hits_len == 0) { /* Nothing was found: the answer will say so. */
        on_ranked(job);
        return;
    }
    sl_buf_init(&body, REQUEST_MAX);
    write_request(query, &body);
    const struct sl_upstream_request request = {
        .method = "POST",
        .path = "/rerank",
        .body = sl_buf_span(&body),
        .max_response = RESPONSE_MAX,
        .deadline_ms = sl_job_deadline_ms(job),
        .permit = sl_job_permit(job, 0),
        .callbacks = &callbacks,
        .ctx = job,
    };
    int rv = sl_buf_error(&body);
    rv = rv != 0 ? rv : sl_upstream_start(upstream, &request, &state->call);
    sl_buf_fini(&body);
    if (rv != 0) {
        keep_fused_order(job, sl_error_text(rv));
    }
}

static void cancel(struct sl_job *job)
{
    struct state *state = sl_job_state(job);
    if (state->call != NULL) {
        sl_upstream_cancel(state->call);
        state->call = NULL;
    }
}

/* --- the stage --- */

/* What the stage keeps is its upstream. */
static int init(struct sl_worker *worker, void **ret, char *why, size_t why_size)
{
    struct sl_upstream *upstream = NULL;
    (void)why;
    (void)why_size;
    int rv =
        sl_upstream_create(sl_worker_loop(worker), sl_worker_http(worker), sl_worker_coord(worker),
                           sl_worker_metrics(worker), "RERANK", &config, &upstream);
    *ret = upstream;
    return rv;
}

static void fini(void *stage_state)
{
    sl_upstream_destroy(stage_state);
}

static size_t limits(struct sl_limit ret[SL_STAGE_LIMITS])
{
    ret[0] = (struct sl_limit){.name = "RERANK", .limit = (uint32_t)config.limit};
    return 1;
}

static const struct sl_option options[] = {
    SL_UPSTREAM_OPTIONS("RERANK", "10", "5s", "5s", "5s"),
    {.name = NULL},
};
static const struct sl_option_set option_sets[] = {{"Rerank model", options, &config}};
static const char *const outputs[] = {"generate", "replies", "results", NULL};

const struct sl_stage rerank_stage = {
    .name = "rerank",
    .synopsis = "Puts search hits in a reranking model's order and sends the sources.",
    .index = SL_STAGE_rerank,
    .inputs = {{.topic = "rerank", .kind = SL_INPUT_QUERY}},
    .outputs = outputs,
    .limits = limits,
    .admission_permits = 1,
    .admin_address = "127.0.0.1:9103",
    .drain_ms = 10000,
    .state_size = sizeof(struct state),
    .option_sets = option_sets,
    .option_set_count = 1,
    .init = init,
    .fini = fini,
    .start = start,
    .cancel = cancel,
};
