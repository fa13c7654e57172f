/*
 * The retrieve stage: a vector search and a keyword search at the same time, each for the best
 * top_k, and their rankings fused into one. A query that asks for more sources than that gets them.
 * Hits of documents that change are looked up before that (visible.c), and while something changes
 * twice as many are asked for, since some may have to be left out.
 *
 * Both searches share a budget (SLUICE_RETRIEVE_TIMEOUT, within the query's deadline). When one
 * fails or its time runs out, the other's hits are the answer and `degraded` names what is missing;
 * when both do, the query ends with retrieval_failed.
 */
#include "workers/retrieve/retrieve.h"

#include "common/fusion.h"
#include "common/job.h"
#include "common/log.h"
#include "common/store_options.h"
#include "common/worker.h"
#include "workers/retrieve/visible.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

enum { VECTOR = SL_STORE_VECTOR, KEYWORD = SL_STORE_KEYWORD, LEGS = SL_STORE_ROLES };

static struct config {
    struct sl_store_options stores;
    long long timeout_ms, top_k, fusion_k;
    double vector_weight, keyword_weight;
} config;

struct stage {
    struct sl_store *stores[LEGS];
    struct retrieve_visible visible;
};

struct leg {
    struct sl_job *job;
    struct sl_store_call *call;
    struct sl_hit *hits;
    size_t len;
    bool ended;
    int err;
    char detail[160];
};

struct state {
    struct leg legs[LEGS];
    struct sl_job *job;
    struct retrieve_word word; /* When the searches began. */
    struct retrieve_look look;
    int64_t end_ms; /* Of the searches and the look-up. */
};

static const uint32_t degraded_bits[LEGS] = {SL_DEGRADED_VECTOR, SL_DEGRADED_KEYWORD};
static const char *const leg_names[LEGS] = {"vector", "keyword"};

static size_t top_k_of(const struct sl_query *query)
{
    return query->top_n > config.top_k ? query->top_n : (size_t)config.top_k;
}

/* --- fusing --- */

static int ranking_of(struct sl_job *job, const struct leg *leg, double weight,
                      struct sl_ranking *ret)
{
    struct sl_span *ids = sl_arena_alloc(sl_job_arena(job), (leg->len + 1) * sizeof(*ids));
    if (ids == NULL) {
        return -SL_ENOMEM;
    }
    size_t max = top_k_of(sl_job_query(job)), len = leg->len < max ? leg->len : max;
    for (size_t i = 0; i < len; i++) {
        ids[i] = leg->hits[i].chunk_id;
    }
    *ret = (struct sl_ranking){.ids = ids, .len = len, .weight = weight};
    return 0;
}

static int fuse(struct sl_job *job)
{
    struct state *state = sl_job_state(job);
    struct sl_query *query = sl_job_query(job);
    struct sl_ranking rankings[LEGS];
    const double weights[LEGS] = {config.vector_weight, config.keyword_weight};
    size_t max = top_k_of(query);
    struct sl_fused *fused = sl_arena_alloc(sl_job_arena(job), max * sizeof(*fused));
    struct sl_hit *hits = sl_arena_alloc(sl_job_arena(job), max * sizeof(*hits));
    int rv = fused == NULL || hits == NULL ? -SL_ENOMEM : 0;
    for (size_t i = 0; i < LEGS && rv == 0; i++) {
        rv = ranking_of(job, &state->legs[i], weights[i], &rankings[i]);
    }
    size_t len = 0;
    rv = rv != 0 ? rv : sl_fuse(rankings, LEGS, (double)config.fusion_k, fused, max, &len);
    for (size_t i = 0; i < len && rv == 0; i++) {
        hits[i] = state->legs[fused[i].ranking].hits[fused[i].index];
        hits[i].score = fused[i].score;
    }
    query->hits = hits;
    query->hits_len = len;
    return rv;
}

static void finish(struct sl_job *job)
{
    struct sl_query *query = sl_job_query(job);
    int rv = fuse(job);
    query->vector = NULL; /* Nobody behind this stage needs it. */
    query->vector_len = 0;
    if (rv != 0) {
        sl_job_fail(job, SL_QERR_INTERNAL, sl_error_text(rv));
    } else {
        sl_job_forward(job, "rerank");
    }
}

/* --- what is visible --- */

static void on_looked(struct retrieve_look *look, int err)
{
    struct state *state = SL_ITEM(look, struct state, look);
    if (err != 0) {
        char message[128];
        snprintf(message, sizeof(message), "Redis does not say which hits are visible: %s",
                 sl_error_text(err));
        sl_job_fail(state->job, SL_QERR_RETRIEVAL_FAILED, message);
        return;
    }
    for (size_t i = 0; i < LEGS; i++) {
        state->legs[i].len = look->lists[i].len;
    }
    finish(state->job);
}

static void check_visible(struct sl_job *job)
{
    struct stage *stage = sl_worker_stage(sl_job_worker(job));
    struct state *state = sl_job_state(job);
    const struct sl_query *query = sl_job_query(job);
    bool all = true;
    for (size_t i = 0; i < LEGS; i++) {
        const struct leg *leg = &state->legs[i];
        all = all && retrieve_visible_all(&state->word, leg->hits, leg->len);
        state->look.lists[i].hits = leg->hits;
        state->look.lists[i].len = leg->len;
    }
    if (all) {
        finish(job);
        return;
    }
    state->look.tenant = query->tenant;
    state->look.collection = query->collection;
    state->look.end_ms = state->end_ms;
    state->look.on_looked = on_looked;
    retrieve_look_start(&stage->visible, &state->look);
}

static void on_both_ended(struct sl_job *job)
{
    struct state *state = sl_job_state(job);
    struct sl_query *query = sl_job_query(job);
    for (size_t i = 0; i < LEGS; i++) {
        if (state->legs[i].err != 0) {
            query->degraded |= degraded_bits[i];
            sl_log(SL_LOG_WARN, "search failed", SL_SPANF("id", sl_job_id(job)),
                   SL_STR("search", leg_names[i]), SL_STR("why", state->legs[i].detail));
        }
    }
    if (state->legs[VECTOR].err != 0 && state->legs[KEYWORD].err != 0) {
        char message[512];
        snprintf(message, sizeof(message), "both searches failed: vector: %s; keyword: %s",
                 state->legs[VECTOR].detail, state->legs[KEYWORD].detail);
        sl_job_fail(job, SL_QERR_RETRIEVAL_FAILED, message);
        return;
    }
    check_visible(job);
}

/* --- searching --- */

static void leg_ended(struct leg *leg, int err, const char *detail)
{
    struct state *state = sl_job_state(leg->job);
    leg->call = NULL;
    leg->ended = true;
    leg->err = err;
    snprintf(leg->detail, sizeof(leg->detail), "%s", detail);
    if (state->legs[VECTOR].ended && state->legs[KEYWORD].ended) {
        on_both_ended(leg->job);
    }
}

static void on_hits(void *ctx, int err, struct sl_hit *hits, size_t len, const char *detail)
{
    struct leg *leg = ctx;
    leg->hits = hits;
    leg->len = err == 0 ? len : 0;
    sl_job_count_attempts(leg->job, 1);
    leg_ended(leg, err, detail);
}

static int64_t budget_end(struct sl_job *job)
{
    int64_t end = sl_coord_now_ms(sl_worker_coord(sl_job_worker(job))) + config.timeout_ms;
    return end < sl_job_deadline_ms(job) ? end : sl_job_deadline_ms(job);
}

static void start(struct sl_job *job)
{
    struct stage *stage = sl_worker_stage(sl_job_worker(job));
    struct state *state = sl_job_state(job);
    const struct sl_query *query = sl_job_query(job);
    int errs[LEGS];
    state->job = job;
    state->word = stage->visible.word;
    size_t top_k = top_k_of(query) * (state->word.changing ? 2 : 1); /* Some may be left out. */
    state->end_ms = budget_end(job);
    for (size_t i = 0; i < LEGS; i++) {
        struct leg *leg = &state->legs[i];
        leg->job = job;
        const struct sl_store_search search = {
            .scope = {.tenant = query->tenant,
                      .collection = query->collection,
                      .filter = query->filter,
                      .filter_len = query->filter_len},
            .vector = i == VECTOR ? query->vector : NULL,
            .dim = i == VECTOR ? query->vector_len : 0,
            .text = query->query,
            .top_k = (uint32_t)top_k,
            .deadline_ms = state->end_ms,
            .permit = sl_job_permit(job, i),
            .arena = sl_job_arena(job),
        };
        errs[i] = i == VECTOR && query->vector_len == 0
                      ? -SL_ENOENT
                      : sl_store_search(stage->stores[i], &search, on_hits, leg, &leg->call);
    }
    for (size_t i = 0; i < LEGS; i++) { /* The last of these may settle the job. */
        if (errs[i] != 0) {
            leg_ended(&state->legs[i], errs[i],
                      errs[i] == -SL_ENOENT ? "the query has no vector" : sl_error_text(errs[i]));
        }
    }
}

static void cancel(struct sl_job *job)
{
    struct state *state = sl_job_state(job);
    retrieve_look_cancel(&state->look);
    for (size_t i = 0; i < LEGS; i++) {
        if (state->legs[i].call != NULL) {
            sl_store_cancel(state->legs[i].call);
            state->legs[i].call = NULL;
        }
    }
}

/* --- the stage --- */

static void fini(void *stage_state)
{
    struct stage *stage = stage_state;
    retrieve_visible_stop(&stage->visible);
    for (size_t i = 0; i < LEGS; i++) {
        sl_store_close(stage->stores[i]);
    }
    free(stage);
}

static int init(struct sl_worker *worker, void **ret, char *why, size_t why_size)
{
    struct stage *stage = calloc(1, sizeof(*stage));
    int rv = stage == NULL ? -SL_ENOMEM : 0;
    for (size_t i = 0; i < LEGS && rv == 0; i++) {
        rv = sl_store_open_role(worker, &config.stores, (enum sl_store_role)i, config.timeout_ms,
                                &stage->stores[i], why, why_size);
    }
    *ret = stage;
    if (rv == 0) {
        retrieve_visible_start(&stage->visible, sl_worker_loop(worker), sl_worker_coord(worker));
    }
    return rv;
}

static size_t limits(struct sl_limit ret[SL_STAGE_LIMITS])
{
    return sl_store_limits(&config.stores, ret);
}

#define AT(field) offsetof(struct config, field)
static const struct sl_option options[] = {
    {.name = "SLUICE_RETRIEVE_TIMEOUT",
     .type = SL_OPT_DURATION,
     .offset = AT(timeout_ms),
     .fallback = "5s",
     .min = 1,
     .max = 600000,
     .help = "Budget of both searches together."},
    {.name = "SLUICE_RETRIEVE_TOP_K",
     .type = SL_OPT_INT,
     .offset = AT(top_k),
     .fallback = "20",
     .min = 1,
     .max = 100,
     .help =
         "Hits taken from each search, and kept after fusion; a query's top_n where it is more."},
    {.name = "SLUICE_VECTOR_WEIGHT",
     .type = SL_OPT_NUMBER,
     .offset = AT(vector_weight),
     .fallback = "1",
     .min = 0,
     .max = 100,
     .help = "Weight of the vector ranking in the fusion."},
    {.name = "SLUICE_KEYWORD_WEIGHT",
     .type = SL_OPT_NUMBER,
     .offset = AT(keyword_weight),
     .fallback = "1",
     .min = 0,
     .max = 100,
     .help = "Weight of the keyword ranking in the fusion."},
    {.name = "SLUICE_FUSION_K",
     .type = SL_OPT_INT,
     .offset = AT(fusion_k),
     .fallback = "60",
     .min = 1,
     .max = 10000,
     .help = "The k of reciprocal rank fusion: the smaller, the more the first places count."},
    {.name = NULL},
};
static const struct sl_option_set option_sets[] = {
    {"Stores", sl_store_option_table, &config.stores},
    {"Searches", options, &config},
};
static const char *const outputs[] = {"rerank", "replies", "results", NULL};

const struct sl_stage retrieve_stage = {
    .name = "retrieve",
    .synopsis = "Searches by vector and by keyword at the same time, and fuses the rankings.",
    .index = SL_STAGE_retrieve,
    .inputs = {{.topic = "retrieve", .kind = SL_INPUT_QUERY}},
    .outputs = outputs,
    .limits = limits,
    .admission_permits = LEGS,
    .admin_address = "127.0.0.1:9102",
    .drain_ms = 10000,
    .state_size = sizeof(struct state),
    .option_sets = option_sets,
    .option_set_count = 2,
    .init = init,
    .fini = fini,
    .start = start,
    .cancel = cancel,
};
