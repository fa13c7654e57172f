/*
 * The embed stage: questions and document chunks become vectors.
 *
 * A question that was embedded lately has its vector in Redis. It is looked up before the admission
 * is asked for, on the same connection, so the answer is there when the job starts, and a vector
 * that was found goes on at once, with the permit given back unused. Nothing waits for a look-up.
 *
 * The others are gathered: while the calls under way leave half of the questions' permits free, one
 * goes out at once (with those that came in the same turn). From there on permits are worth more
 * than milliseconds: others wait for at most SLUICE_EMBED_WINDOW or until SLUICE_EMBED_BATCH of
 * them are there, and share a call and its permit.
 *
 * Chunks are bulk work: batch.c has their jobs, bulk.c their calls. They share nothing with the
 * questions but the loop and the upstream.
 */
#include "workers/embed/embed.h"

#include "common/log.h"
#include "common/worker.h"
#include "workers/embed/embed_internal.h"

#include <stdlib.h>

struct embed_config embed_config;

/* --- gathering questions --- */

static long long query_max(void)
{
    long long limit = embed_config.upstream.limit;
    return embed_config.query_limit < limit ? embed_config.query_limit : limit;
}

static void flush(struct embed_stage *stage)
{
    struct sl_job *jobs[EMBED_TEXTS_MAX];
    while (!sl_list_empty(&stage->gathered)) {
        size_t len = 0;
        while (len < (size_t)embed_config.batch && !sl_list_empty(&stage->gathered)) {
            struct sl_list *node = sl_list_first(&stage->gathered);
            struct embed_state *state = SL_ITEM(node, struct embed_state, in_gathered);
            sl_list_remove(node);
            stage->gathered_len--;
            jobs[len++] = state->job;
        }
        int rv = embed_call_start(stage, jobs, len);
        for (size_t i = 0; i < len && rv != 0; i++) {
            embed_question_failed(jobs[i], rv, sl_error_text(rv));
        }
    }
    sl_timer_stop(sl_worker_loop(stage->worker), &stage->window);
}

static void on_window(struct sl_timer *timer)
{
    flush(SL_ITEM(timer, struct embed_stage, window));
}

/* Of the questions' permits only half are free. */
static bool is_scarce(const struct embed_stage *stage)
{
    return stage->calls > 0 && (long long)stage->calls >= query_max() / 2;
}

/* A question that will probably have a call of its own brings the permit along. */
static bool wants_permits(struct sl_worker *worker)
{
    return !is_scarce(sl_worker_stage(worker));
}

static void on_flush(struct sl_task *task)
{
    struct embed_stage *stage = SL_ITEM(task, struct embed_stage, flush);
    if (!is_scarce(stage) || stage->gathered_len >= (size_t)embed_config.batch) {
        flush(stage);
    }
}

void embed_flush_soon(struct embed_stage *stage)
{
    if (!sl_list_empty(&stage->gathered)) {
        sl_task_defer(sl_worker_loop(stage->worker), &stage->flush, on_flush);
    }
}

/* --- questions --- */

static void go_on_with(struct sl_job *job, const float *vector, size_t dim)
{
    struct sl_query *query = sl_job_query(job);
    query->vector = vector;
    query->vector_len = dim;
    sl_job_forward(job, "retrieve");
}

void embed_question_done(struct sl_job *job, const float *vector, size_t dim)
{
    float *copy = sl_arena_alloc(sl_job_arena(job), dim * sizeof(float));
    if (copy == NULL) {
        sl_job_fail(job, SL_QERR_INTERNAL, sl_error_text(-SL_ENOMEM));
        return;
    }
    memcpy(copy, vector, dim * sizeof(float));
    go_on_with(job, copy, dim);
}

void embed_question_failed(struct sl_job *job, int err, const char *why)
{
    sl_job_fail(job,
                err == -SL_EEXPIRED ? SL_QERR_TIMEOUT
                : err == -SL_ENOMEM ? SL_QERR_INTERNAL
                                    : SL_QERR_UPSTREAM_ERROR,
                why);
}

static void on_found(void *ctx, const struct sl_span *entries, size_t len)
{
    struct embed_state *state = ctx;
    struct embed_stage *stage = sl_worker_stage(sl_job_worker(state->job));
    (void)len;
    state->ask = NULL;
    if (entries[0].len > 0 && stage->dim > 0) {
        float *vector = sl_arena_alloc(sl_job_arena(state->job), stage->dim * sizeof(float));
        if (vector != NULL && embed_cache_read(entries[0], &state->key, stage->dim, vector)) {
            state->vector = vector;
            state->dim = stage->dim;
        }
    }
    embed_cache_count(stage->cache, EMBED_QUESTION, state->vector != NULL);
}

static void prepare(struct sl_job *job)
{
    struct embed_stage *stage = sl_worker_stage(sl_job_worker(job));
    struct embed_state *state = sl_job_state(job);
    *state = (struct embed_state){.job = job};
    if (stage->cache == NULL) {
        return;
    }
    embed_cache_key(stage->cache, sl_job_query(job)->query, &state->key);
    if (embed_cache_get(stage->cache, EMBED_QUESTION, &state->key, 1, on_found, state,
                        &state->ask) != 0) {
        embed_cache_count(stage->cache, EMBED_QUESTION, false);
    }
}

static void unprepare(struct sl_job *job)
{
    struct embed_state *state = sl_job_state(job);
    if (state->ask != NULL) {
        embed_cache_cancel(state->ask);
        state->ask = NULL;
    }
}

static void start_question(struct embed_stage *stage, struct sl_job *job)
{
    struct embed_state *state = sl_job_state(job);
    if (state->ask != NULL) { /* Not there in time: it is not waited for. */
        embed_cache_count(stage->cache, EMBED_QUESTION, false);
        unprepare(job);
    }
    if (state->vector != NULL) {
        go_on_with(job, state->vector, state->dim);
        return;
    }
    sl_list_push(&stage->gathered, &state->in_gathered);
    stage->gathered_len++;
    embed_flush_soon(stage);
    if (!sl_timer_active(&stage->window)) {
        sl_timer_start(sl_worker_loop(stage->worker), &stage->window,
                       (uint64_t)embed_config.window_ms, on_window);
    }
}

static void cancel_question(struct embed_stage *stage, struct sl_job *job)
{
    struct embed_state *state = sl_job_state(job);
    if (!sl_list_empty(&state->in_gathered)) {
        sl_list_remove(&state->in_gathered);
        stage->gathered_len--;
    }
    if (state->call != NULL) {
        embed_call_leave(state->call, job);
        state->call = NULL;
    }
}

/* --- jobs --- */

static void start(struct sl_job *job)
{
    struct embed_stage *stage = sl_worker_stage(sl_job_worker(job));
    struct embed_state *state = sl_job_state(job);
    state->job = job;
    sl_list_init(&state->in_gathered);
    if (sl_job_bulk(job)) {
        embed_batch_start(stage, job);
    } else {
        start_question(stage, job);
    }
}

static void cancel(struct sl_job *job)
{
    if (sl_job_bulk(job)) {
        embed_batch_cancel(job);
    } else {
        cancel_question(sl_worker_stage(sl_job_worker(job)), job);
    }
}

/* Ingestion says which document it was. */
static void worn_out(struct sl_job *job, const char *why)
{
    struct embed_state *state = sl_job_state(job);
    state->job = job;
    embed_batch_lost(job, why);
}

/* --- the stage --- */

void embed_saw_dim(struct embed_stage *stage, size_t dim)
{
    if (stage->dim != dim) {
        sl_log(SL_LOG_INFO, "the embedding model's vectors", SL_INT("dimensions", dim),
               SL_INT("before", stage->dim), SL_STR("model", embed_config.upstream.model));
        stage->dim = dim;
        sl_gauge_set(stage->dimensions, (double)dim);
    }
}

/* A server that is asked for no model by name is one by its address. */
static int open_cache(struct embed_stage *stage)
{
    struct sl_coord *coord = sl_worker_coord(stage->worker);
    const struct sl_upstream_config *upstream = &embed_config.upstream;
    if (embed_config.cache == 0) {
        return 0;
    }
    const struct embed_cache_config config = {
        .prefix = sl_coord_prefix(coord),
        .model = upstream->model[0] != '\0' ? upstream->model : upstream->url,
        .entries = embed_config.cache > 1 ? (size_t)embed_config.cache : 2,
        .ttl_ms = sl_coord_result_ttl_ms(coord)};
    return embed_cache_create(sl_worker_loop(stage->worker), sl_coord_redis(coord),
                              sl_worker_metrics(stage->worker), &config, &stage->cache);
}

static int init(struct sl_worker *worker, void **ret, char *why, size_t why_size)
{
    (void)why;
    (void)why_size;
    struct embed_stage *stage = calloc(1, sizeof(*stage));
    if (stage == NULL) {
        return -SL_ENOMEM;
    }
    stage->worker = worker;
    sl_list_init(&stage->gathered);
    sl_list_init(&stage->chunks);
    *ret = stage;
    stage->dimensions =
        sl_metrics_gauge(sl_worker_metrics(worker), "sluice_embed_dimensions",
                         "Numbers of the last vector that the model made; 0: none yet.", NULL);
    int rv = open_cache(stage);
    return rv != 0 ? rv
                   : sl_upstream_create(sl_worker_loop(worker), sl_worker_http(worker),
                                        sl_worker_coord(worker), sl_worker_metrics(worker), "EMBED",
                                        &embed_config.upstream, &stage->upstream);
}

static void fini(void *stage_state)
{
    struct embed_stage *stage = stage_state;
    struct sl_loop *loop = sl_worker_loop(stage->worker);
    sl_timer_stop(loop, &stage->window);
    sl_timer_stop(loop, &stage->bulk_window);
    sl_task_cancel(&stage->flush);
    sl_task_cancel(&stage->bulk_flush);
    sl_upstream_destroy(stage->upstream);
    embed_cache_destroy(stage->cache);
    free(stage);
}

size_t embed_bulk_max(void)
{
    long long limit = embed_config.upstream.limit;
    return limit > embed_config.reserve ? (size_t)(limit - embed_config.reserve) : 1;
}

/* A small limit bounds what is set apart from it: one call of each kind can always be made. */
static size_t limits(struct sl_limit ret[SL_STAGE_LIMITS])
{
    ret[0] = (struct sl_limit){.name = "EMBED",
                               .limit = (uint32_t)embed_config.upstream.limit,
                               .query_max = (uint32_t)query_max(),
                               .bulk_max = (uint32_t)embed_bulk_max()};
    return 1;
}

static const struct sl_option upstream_options[] = {
    SL_UPSTREAM_OPTIONS("EMBED", "50", "10s", "10s", "30s"),
    {.name = NULL},
};

static const struct sl_option batch_options[] = {
    {.name = "SLUICE_EMBED_QUERY_LIMIT",
     .type = SL_OPT_INT,
     .fallback = "10",
     .min = 1,
     .max = 100000,
     .offset = offsetof(struct embed_config, query_limit),
     .help = "The most EMBED permits that queries hold; never more than SLUICE_EMBED_LIMIT."},
    {.name = "SLUICE_EMBED_RESERVE",
     .type = SL_OPT_INT,
     .fallback = "10",
     .min = 0,
     .max = 100000,
     .offset = offsetof(struct embed_config, reserve),
     .help = "EMBED permits that bulk work leaves free; it always has one."},
    {.name = "SLUICE_EMBED_BATCH",
     .type = SL_OPT_INT,
     .fallback = "32",
     .min = 1,
     .max = EMBED_TEXTS_MAX,
     .offset = offsetof(struct embed_config, batch),
     .help = "Questions that share one call at most."},
    {.name = "SLUICE_EMBED_WINDOW",
     .type = SL_OPT_DURATION,
     .fallback = "5ms",
     .min = 1,
     .max = 1000,
     .offset = offsetof(struct embed_config, window_ms),
     .help =
         "How long a question waits for others when half of the permits for questions are in use."},
    {.name = "SLUICE_EMBED_BULK_BATCH",
     .type = SL_OPT_INT,
     .fallback = "32",
     .min = 1,
     .max = EMBED_TEXTS_MAX,
     .offset = offsetof(struct embed_config, bulk_batch),
     .help = "Chunks, of one or several documents, that share one call at most."},
    {.name = "SLUICE_EMBED_BULK_TIMEOUT",
     .type = SL_OPT_DURATION,
     .fallback = "2m",
     .min = 100,
     .max = 3600000,
     .offset = offsetof(struct embed_config, bulk_timeout_ms),
     .help = "For a call with chunks, which may wait long in a server that answers one after the "
             "other; in place of the time-outs of calls with questions."},
    {.name = "SLUICE_EMBED_BULK_WINDOW",
     .type = SL_OPT_DURATION,
     .fallback = "20ms",
     .min = 1,
     .max = 10000,
     .offset = offsetof(struct embed_config, bulk_window_ms),
     .help = "How long a chunk waits for others that share its call."},
    {.name = "SLUICE_EMBED_CACHE",
     .type = SL_OPT_INT,
     .fallback = "10000",
     .min = 0,
     .max = 100000000,
     .offset = offsetof(struct embed_config, cache),
     .help = "Vectors that Redis keeps for SLUICE_RESULT_TTL, half of them of questions; 0: none."},
    {.name = NULL},
};
static const struct sl_option_set option_sets[] = {
    {"Embedding model", upstream_options, &embed_config.upstream},
    {"Embedding batches", batch_options, &embed_config},
};
static const char *const outputs[] = {"retrieve", "vectors", "replies", "results", NULL};

const struct sl_stage embed_stage = {
    .name = "embed",
    .synopsis = "Turns questions and document chunks into vectors, several to a call.",
    .index = SL_STAGE_embed,
    .inputs = {{.topic = "queries", .kind = SL_INPUT_QUERY, .public = true},
               {.topic = "chunks", .kind = SL_INPUT_BATCH, .bulk = true}},
    .outputs = outputs,
    .limits = limits,
    .admission_permits = 1,
    .wants_permits = wants_permits,
    .admin_address = "127.0.0.1:9101",
    .drain_ms = 10000,
    .max_inflight_bulk = 256, /* Of small documents several dozen share a call. */
    .state_size = sizeof(struct embed_state),
    .option_sets = option_sets,
    .option_set_count = 2,
    .init = init,
    .fini = fini,
    .prepare = prepare,
    .unprepare = unprepare,
    .start = start,
    .cancel = cancel,
    .worn_out = worn_out,
};
