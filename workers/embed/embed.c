/*
 * The embed stage: questions and document chunks become vectors.
 *
 * Questions are gathered: while the calls under way leave half of the questions' permits free, one
 * goes out at once (with those that came in the same turn). From there on permits are worth more
 * than milliseconds: others wait for at most SLUICE_EMBED_WINDOW or until SLUICE_EMBED_BATCH of
 * them are there, and share a call and its permit. A batch of chunks is a call of its own, as bulk
 * work; a chunk at fault fails its document: the batch goes on to ingestion with the reason in place
 * of vectors.
 *
 * The calls are in call.c, what becomes of each text in member.c.
 */
#include "workers/embed/embed.h"

#include "common/worker.h"
#include "workers/embed/call.h"

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
    struct embed_member members[EMBED_MEMBERS_MAX];
    while (!sl_list_empty(&stage->gathered)) {
        size_t len = 0;
        while (len < (size_t)embed_config.batch && !sl_list_empty(&stage->gathered)) {
            struct sl_list *node = sl_list_first(&stage->gathered);
            struct embed_state *state = SL_ITEM(node, struct embed_state, in_gathered);
            sl_list_remove(node);
            stage->gathered_len--;
            members[len++] =
                (struct embed_member){.job = state->job, .text = sl_job_query(state->job)->query};
        }
        int rv = embed_call_start(stage, members, len, false);
        for (size_t i = 0; i < len && rv != 0; i++) {
            embed_member_failed(&members[i], false, rv, sl_error_text(rv));
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

/* --- jobs --- */

static void start_batch(struct embed_stage *stage, struct sl_job *job)
{
    const struct sl_batch *batch = sl_job_batch(job);
    struct embed_member members[EMBED_MEMBERS_MAX];
    int rv = 0;
    if (batch->len == 0 || batch->len > EMBED_MEMBERS_MAX) {
        sl_job_fail(job, SL_QERR_BAD_REQUEST, "a batch must have 1 to 256 texts");
        return;
    }
    for (size_t i = 0; i < batch->len; i++) {
        members[i] = (struct embed_member){.job = job, .text = batch->texts[i], .index = i};
    }
    rv = embed_call_start(stage, members, batch->len, true);
    if (rv != 0) {
        sl_job_fail(job, SL_QERR_INTERNAL, sl_error_text(rv));
    }
}

static void start(struct sl_job *job)
{
    struct embed_stage *stage = sl_worker_stage(sl_job_worker(job));
    struct embed_state *state = sl_job_state(job);
    state->job = job;
    sl_list_init(&state->in_gathered);
    if (sl_job_bulk(job)) {
        start_batch(stage, job);
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

static void cancel(struct sl_job *job)
{
    struct embed_stage *stage = sl_worker_stage(sl_job_worker(job));
    struct embed_state *state = sl_job_state(job);
    if (!sl_list_empty(&state->in_gathered)) {
        sl_list_remove(&state->in_gathered);
        stage->gathered_len--;
    }
    if (state->call != NULL) {
        embed_call_leave(state->call, job);
        state->call = NULL;
    }
    for (size_t i = 0; i < state->bulk_len && state->bulk != NULL; i++) {
        if (state->bulk[i] != NULL) {
            embed_call_close(state->bulk[i]);
        }
    }
    free(state->bulk);
    state->bulk = NULL;
}

/* Ingestion says which document it was. */
static void worn_out(struct sl_job *job, const char *why)
{
    struct embed_state *state = sl_job_state(job);
    state->job = job;
    sl_list_init(&state->in_gathered);
    embed_batch_lost(job, why);
}

/* --- the stage --- */

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
    *ret = stage;
    return sl_upstream_create(sl_worker_loop(worker), sl_worker_http(worker),
                              sl_worker_coord(worker), sl_worker_metrics(worker), "EMBED",
                              &embed_config.upstream, &stage->upstream);
}

static void fini(void *stage_state)
{
    struct embed_stage *stage = stage_state;
    sl_timer_stop(sl_worker_loop(stage->worker), &stage->window);
    sl_task_cancel(&stage->flush);
    sl_upstream_destroy(stage->upstream);
    free(stage);
}

/* A small limit bounds what is set apart from it: one call of each kind can always be made. */
static size_t limits(struct sl_limit ret[SL_STAGE_LIMITS])
{
    long long limit = embed_config.upstream.limit;
    long long bulk = limit > embed_config.reserve ? limit - embed_config.reserve : 1;
    ret[0] = (struct sl_limit){.name = "EMBED",
                               .limit = (uint32_t)limit,
                               .query_max = (uint32_t)query_max(),
                               .bulk_max = (uint32_t)bulk};
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
     .max = EMBED_MEMBERS_MAX,
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
    .state_size = sizeof(struct embed_state),
    .option_sets = option_sets,
    .option_set_count = 2,
    .init = init,
    .fini = fini,
    .start = start,
    .cancel = cancel,
    .worn_out = worn_out,
};
