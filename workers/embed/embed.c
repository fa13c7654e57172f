/*
 * The embed stage: questions and document chunks become vectors.
 *
 * Questions are gathered: one that finds no call under way goes out at once (with those that came
 * in the same turn); while calls are under way, others wait for at most SLUICE_EMBED_WINDOW or
 * until SLUICE_EMBED_BATCH of them are there, and share a call and its permit. A batch of chunks is
 * a call of its own, as bulk work.
 *
 * A member that is cancelled or expires leaves its call; the call is closed when its last member
 * leaves. When a call fails for several texts, some server's answer to one text that is too long,
 * each half is tried by itself, so that only the text that is at fault fails. A chunk at fault
 * fails its document: the batch goes on to ingestion with the reason in place of vectors.
 */
#include "workers/embed/embed.h"

#include "common/backoff.h"
#include "common/clock.h"
#include "common/job.h"
#include "common/upstream.h"
#include "common/worker.h"
#include "workers/embed/vectors.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

enum { BULK_TRIES = 6, BULK_BACKOFF_MS = 1000, BULK_BACKOFF_CAP_MS = 30000 };
enum { REQUEST_MAX = 16 << 20, RESPONSE_MAX = 64 << 20, MEMBERS_MAX = 256, BATCH_BYTES = 64 << 20 };

static struct config {
    struct sl_upstream_config upstream;
    long long query_limit, reserve, batch, window_ms;
} config;

struct stage {
    struct sl_worker *worker;
    struct sl_upstream *upstream;
    struct sl_list gathered; /* Questions that wait for a call. */
    size_t gathered_len;
    size_t calls; /* Of questions, under way. */
    struct sl_timer window;
    struct sl_task flush;
};

/* One text of a job: a question, or one chunk. */
struct member {
    struct sl_job *job; /* NULL: it has left. */
    struct sl_span text;
    size_t index; /* Of the chunk in its batch. */
};

struct call {
    struct stage *stage;
    struct sl_upstream_call *upstream;
    bool bulk;
    struct sl_timer retry; /* Bulk work that waits to be tried again; then upstream is NULL. */
    struct sl_backoff backoff;
    size_t len, present;
    struct member members[];
};

struct state {
    struct sl_job *job;
    struct sl_list in_gathered;
    struct call *call;  /* A question's. */
    struct call **bulk; /* The calls of a chunk batch, NULL where ended. */
    size_t bulk_len, bulk_cap, bulk_open;
    float *vectors; /* Of the batch, in the job's arena. */
    size_t dim;
    char failure[256];
};

static int start_call(struct stage *stage, const struct member *members, size_t len, bool bulk);

/* --- what members get --- */

static void question_done(struct sl_job *job, const float *vector, size_t dim)
{
    struct sl_query *query = sl_job_query(job);
    float *copy = sl_arena_alloc(sl_job_arena(job), dim * sizeof(float));
    ((struct state *)sl_job_state(job))->call = NULL;
    if (copy == NULL) {
        sl_job_fail(job, SL_QERR_INTERNAL, sl_error_text(-SL_ENOMEM));
        return;
    }
    memcpy(copy, vector, dim * sizeof(float));
    query->vector = copy;
    query->vector_len = dim;
    sl_job_forward(job, "retrieve");
}

static void question_failed(struct sl_job *job, int err, const char *why)
{
    ((struct state *)sl_job_state(job))->call = NULL;
    sl_job_fail(job,
                err == -SL_EEXPIRED ? SL_QERR_TIMEOUT
                : err == -SL_ENOMEM ? SL_QERR_INTERNAL
                                    : SL_QERR_UPSTREAM_ERROR,
                why);
}

/* All chunks of a batch have their vectors, or one its failure. */
static void send_batch(struct sl_job *job)
{
    struct state *state = sl_job_state(job);
    struct sl_batch *batch = sl_job_batch(job);
    struct sl_buf out;
    sl_buf_init(&out, BATCH_BYTES);
    batch->vectors = state->failure[0] == '\0' ? state->vectors : NULL;
    batch->dim = batch->vectors != NULL ? (uint32_t)state->dim : 0;
    batch->failure = sl_span_of(state->failure);
    sl_batch_encode(batch, &out);
    int rv = sl_buf_error(&out);
    rv = rv != 0 ? rv : sl_job_send(job, "vectors", batch->doc_id, sl_buf_span(&out));
    sl_buf_fini(&out);
    free(state->bulk);
    state->bulk = NULL;
    if (rv == -SL_EAGAIN) {
        sl_job_on_room(job, send_batch);
    } else if (rv != 0) {
        sl_job_fail(job, SL_QERR_INTERNAL, "the vectors are larger than their topic takes");
    } else {
        sl_job_done(job);
    }
}

static void chunk_done(struct sl_job *job, size_t index, const float *vector, size_t dim)
{
    struct state *state = sl_job_state(job);
    struct sl_batch *batch = sl_job_batch(job);
    if (state->vectors == NULL) {
        state->dim = dim;
        state->vectors = sl_arena_alloc(sl_job_arena(job), batch->len * dim * sizeof(float));
    }
    if (state->vectors == NULL || dim != state->dim) {
        snprintf(state->failure, sizeof(state->failure), "embedding: %s",
                 state->vectors == NULL ? sl_error_text(-SL_ENOMEM)
                                        : "the model's dimension changed within a document");
        return;
    }
    memcpy(state->vectors + index * dim, vector, dim * sizeof(float));
}

static void chunk_failed(struct sl_job *job, size_t index, const char *why)
{
    struct state *state = sl_job_state(job);
    const struct sl_batch *batch = sl_job_batch(job);
    snprintf(state->failure, sizeof(state->failure), "chunk %zu: %s", batch->first + index, why);
}

static void bulk_call_ended(struct sl_job *job, const struct call *call)
{
    struct state *state = sl_job_state(job);
    for (size_t i = 0; i < state->bulk_len; i++) {
        if (state->bulk[i] == call) {
            state->bulk[i] = NULL;
            state->bulk_open--;
        }
    }
    if (state->bulk_open == 0) {
        send_batch(job);
    }
}

/* --- one call --- */

static void count_attempts(struct call *call, uint32_t attempts)
{
    struct sl_job *last = NULL; /* A bulk job's members stand together: it is counted once. */
    for (size_t i = 0; i < call->len; i++) {
        if (call->members[i].job != NULL && call->members[i].job != last) {
            last = call->members[i].job;
            sl_job_count_attempts(last, attempts);
        }
    }
}

static void deliver(struct call *call, struct sl_span body)
{
    float *vectors = NULL;
    size_t dim = 0;
    char why[160];
    int rv = vectors_read_response(body, call->len, &vectors, &dim, why, sizeof(why));
    for (size_t i = 0; i < call->len; i++) {
        struct member *member = &call->members[i];
        if (member->job == NULL) {
            continue;
        }
        if (call->bulk && rv == 0) {
            chunk_done(member->job, member->index, vectors + i * dim, dim);
        } else if (call->bulk) {
            chunk_failed(member->job, member->index, why);
        } else if (rv == 0) {
            question_done(member->job, vectors + i * dim, dim);
        } else {
            question_failed(member->job, rv, why);
        }
    }
    free(vectors);
}

/* Those that are still here, in halves. false: not a case for halves, or out of memory. */
static bool split(struct call *call, int err, int status)
{
    struct member present[MEMBERS_MAX];
    size_t len = 0;
    bool at_fault = err == -SL_EREJECTED || (err == -SL_EUPSTREAM && status == 500);
    for (size_t i = 0; i < call->len; i++) {
        if (call->members[i].job != NULL) {
            present[len++] = call->members[i];
        }
    }
    if (!at_fault || len < 2) {
        return false;
    }
    size_t half = len / 2;
    if (start_call(call->stage, present, half, call->bulk) != 0) {
        return false;
    }
    if (start_call(call->stage, present + half, len - half, call->bulk) != 0) {
        for (size_t i = half; i < len; i++) {
            if (call->bulk) {
                chunk_failed(present[i].job, present[i].index, sl_error_text(-SL_ENOMEM));
            } else {
                question_failed(present[i].job, -SL_ENOMEM, sl_error_text(-SL_ENOMEM));
            }
        }
    }
    return true;
}

static void fail_members(struct call *call, int err, const char *why)
{
    for (size_t i = 0; i < call->len; i++) {
        struct member *member = &call->members[i];
        if (member->job != NULL && call->bulk) {
            chunk_failed(member->job, member->index, why);
        } else if (member->job != NULL) {
            question_failed(member->job, err, why);
        }
    }
}

static int request_vectors(struct call *call);
static void flush_soon(struct stage *stage);
static void on_end(void *ctx, int err, int status, struct sl_span body, const char *detail,
                   uint32_t attempts);

static void on_bulk_retry(struct sl_timer *timer)
{
    struct call *call = SL_ITEM(timer, struct call, retry);
    int rv = request_vectors(call);
    if (rv != 0) {
        on_end(call, rv, 0, SL_SPAN(""), sl_error_text(rv), 0);
    }
}

/* What an upstream that is busy or away did to bulk work is no fault of a text: nobody waits for
 * it, so it is tried again, for about a minute in all. A 500 may be a text's fault (see split). */
static bool try_bulk_again(struct call *call, int err, int status)
{
    bool transient = sl_error_class(err) == SL_CLASS_RETRY || err == -SL_ECUT || err == -SL_ELOST ||
                     err == -SL_EEXPIRED;
    if (!call->bulk || !transient || status == 500 || call->backoff.tries + 1 >= BULK_TRIES) {
        return false;
    }
    call->upstream = NULL;
    sl_timer_start(sl_worker_loop(call->stage->worker), &call->retry,
                   sl_backoff_next_ms(&call->backoff), on_bulk_retry);
    return true;
}

static void on_end(void *ctx, int err, int status, struct sl_span body, const char *detail,
                   uint32_t attempts)
{
    struct call *call = ctx;
    struct stage *stage = call->stage;
    struct sl_job *bulk_job = call->bulk ? call->members[0].job : NULL;
    count_attempts(call, attempts);
    if (err != 0 && try_bulk_again(call, err, status)) {
        return;
    }
    if (err == 0) {
        deliver(call, body);
    } else if (!split(call, err, status)) {
        fail_members(call, err, detail);
    }
    if (bulk_job != NULL) {
        bulk_call_ended(bulk_job, call);
    } else if (!call->bulk) {
        stage->calls--;
        flush_soon(stage);
    }
    free(call);
}

/* Bulk jobs know their calls, questions the one that they are in. */
static int enter(struct call *call)
{
    if (!call->bulk) {
        for (size_t i = 0; i < call->len; i++) {
            ((struct state *)sl_job_state(call->members[i].job))->call = call;
        }
        call->stage->calls++;
        return 0;
    }
    struct state *state = sl_job_state(call->members[0].job);
    if (state->bulk_len == state->bulk_cap) {
        size_t cap = state->bulk_cap > 0 ? state->bulk_cap * 2 : 4;
        struct call **calls = realloc(state->bulk, cap * sizeof(struct call *));
        if (calls == NULL) {
            return -SL_ENOMEM;
        }
        state->bulk = calls;
        state->bulk_cap = cap;
    }
    state->bulk[state->bulk_len++] = call;
    state->bulk_open++;
    return 0;
}

static int64_t latest_deadline(const struct call *call)
{
    int64_t latest = 0;
    for (size_t i = 0; i < call->len; i++) {
        int64_t deadline = sl_job_deadline_ms(call->members[i].job);
        latest = deadline > latest ? deadline : latest;
    }
    return latest;
}

static int request_vectors(struct call *call)
{
    static const struct sl_upstream_callbacks callbacks = {.on_end = on_end};
    struct sl_span texts[MEMBERS_MAX];
    struct sl_buf body;
    for (size_t i = 0; i < call->len; i++) {
        texts[i] = call->members[i].text;
    }
    sl_buf_init(&body, REQUEST_MAX);
    vectors_write_request(config.upstream.model, texts, call->len, &body);
    const struct sl_upstream_request request = {
        .method = "POST",
        .path = "/embeddings",
        .body = sl_buf_span(&body),
        .max_response = RESPONSE_MAX,
        .bulk = call->bulk,
        .deadline_ms = latest_deadline(call),
        .callbacks = &callbacks,
        .ctx = call,
    };
    int rv = sl_buf_error(&body);
    rv = rv != 0 ? rv : sl_upstream_start(call->stage->upstream, &request, &call->upstream);
    sl_buf_fini(&body);
    return rv;
}

/* members is copied. Not 0: no call was started, and nobody was told. */
static int start_call(struct stage *stage, const struct member *members, size_t len, bool bulk)
{
    assert(len > 0 && len <= MEMBERS_MAX);
    struct call *call = calloc(1, sizeof(*call) + len * sizeof(*members));
    if (call == NULL) {
        return -SL_ENOMEM;
    }
    call->stage = stage;
    call->bulk = bulk;
    sl_backoff_init(&call->backoff, BULK_BACKOFF_MS, BULK_BACKOFF_CAP_MS, sl_clock_now_us());
    call->len = call->present = len;
    memcpy(call->members, members, len * sizeof(*members));
    int rv = request_vectors(call);
    if (rv == 0) {
        rv = enter(call);
        if (rv != 0) {
            sl_upstream_cancel(call->upstream);
        }
    }
    if (rv != 0) {
        free(call);
    }
    return rv;
}

/* --- gathering questions --- */

static void flush(struct stage *stage)
{
    struct member members[MEMBERS_MAX];
    while (!sl_list_empty(&stage->gathered)) {
        size_t len = 0;
        while (len < (size_t)config.batch && !sl_list_empty(&stage->gathered)) {
            struct sl_list *node = sl_list_first(&stage->gathered);
            struct state *state = SL_ITEM(node, struct state, in_gathered);
            sl_list_remove(node);
            stage->gathered_len--;
            members[len++] =
                (struct member){.job = state->job, .text = sl_job_query(state->job)->query};
        }
        int rv = start_call(stage, members, len, false);
        for (size_t i = 0; i < len && rv != 0; i++) {
            question_failed(members[i].job, rv, sl_error_text(rv));
        }
    }
    sl_timer_stop(sl_worker_loop(stage->worker), &stage->window);
}

static void on_window(struct sl_timer *timer)
{
    flush(SL_ITEM(timer, struct stage, window));
}

static void on_flush(struct sl_task *task)
{
    struct stage *stage = SL_ITEM(task, struct stage, flush);
    if (stage->calls == 0 || stage->gathered_len >= (size_t)config.batch) {
        flush(stage);
    }
}

static void flush_soon(struct stage *stage)
{
    if (!sl_list_empty(&stage->gathered)) {
        sl_task_defer(sl_worker_loop(stage->worker), &stage->flush, on_flush);
    }
}

/* --- jobs --- */

static void start_batch(struct stage *stage, struct sl_job *job)
{
    const struct sl_batch *batch = sl_job_batch(job);
    struct member members[MEMBERS_MAX];
    int rv = 0;
    if (batch->len == 0 || batch->len > MEMBERS_MAX) {
        sl_job_fail(job, SL_QERR_BAD_REQUEST, "a batch must have 1 to 256 texts");
        return;
    }
    for (size_t i = 0; i < batch->len; i++) {
        members[i] = (struct member){.job = job, .text = batch->texts[i], .index = i};
    }
    rv = start_call(stage, members, batch->len, true);
    if (rv != 0) {
        sl_job_fail(job, SL_QERR_INTERNAL, sl_error_text(rv));
    }
}

static void start(struct sl_job *job)
{
    struct stage *stage = sl_worker_stage(sl_job_worker(job));
    struct state *state = sl_job_state(job);
    state->job = job;
    sl_list_init(&state->in_gathered);
    if (sl_job_bulk(job)) {
        start_batch(stage, job);
        return;
    }
    sl_list_push(&stage->gathered, &state->in_gathered);
    stage->gathered_len++;
    flush_soon(stage);
    if (!sl_timer_active(&stage->window)) {
        sl_timer_start(sl_worker_loop(stage->worker), &stage->window, (uint64_t)config.window_ms,
                       on_window);
    }
}

static void close_call(struct call *call)
{
    if (call->upstream != NULL) {
        sl_upstream_cancel(call->upstream);
    }
    sl_timer_stop(sl_worker_loop(call->stage->worker), &call->retry);
    if (!call->bulk) {
        call->stage->calls--;
        flush_soon(call->stage);
    }
    free(call);
}

static void leave(struct call *call, const struct sl_job *job)
{
    for (size_t i = 0; i < call->len; i++) {
        if (call->members[i].job == job) {
            call->members[i].job = NULL;
            call->present--;
        }
    }
    if (call->present == 0) {
        close_call(call);
    }
}

static void cancel(struct sl_job *job)
{
    struct stage *stage = sl_worker_stage(sl_job_worker(job));
    struct state *state = sl_job_state(job);
    if (!sl_list_empty(&state->in_gathered)) {
        sl_list_remove(&state->in_gathered);
        stage->gathered_len--;
    }
    if (state->call != NULL) {
        leave(state->call, job);
        state->call = NULL;
    }
    for (size_t i = 0; i < state->bulk_len && state->bulk != NULL; i++) {
        if (state->bulk[i] != NULL) {
            close_call(state->bulk[i]);
        }
    }
    free(state->bulk);
    state->bulk = NULL;
}

/* --- the stage --- */

static int init(struct sl_worker *worker, void **ret, char *why, size_t why_size)
{
    (void)why;
    (void)why_size;
    struct stage *stage = calloc(1, sizeof(*stage));
    if (stage == NULL) {
        return -SL_ENOMEM;
    }
    stage->worker = worker;
    sl_list_init(&stage->gathered);
    *ret = stage;
    return sl_upstream_create(sl_worker_loop(worker), sl_worker_http(worker),
                              sl_worker_coord(worker), sl_worker_metrics(worker), "EMBED",
                              &config.upstream, &stage->upstream);
}

static void fini(void *stage_state)
{
    struct stage *stage = stage_state;
    sl_timer_stop(sl_worker_loop(stage->worker), &stage->window);
    sl_task_cancel(&stage->flush);
    sl_upstream_destroy(stage->upstream);
    free(stage);
}

/* A small limit bounds what is set apart from it: one call of each kind can always be made. */
static size_t limits(struct sl_limit ret[SL_STAGE_LIMITS])
{
    long long limit = config.upstream.limit;
    long long bulk = limit > config.reserve ? limit - config.reserve : 1;
    ret[0] = (struct sl_limit){
        .name = "EMBED",
        .limit = (uint32_t)limit,
        .query_max = (uint32_t)(config.query_limit < limit ? config.query_limit : limit),
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
     .offset = offsetof(struct config, query_limit),
     .help = "The most EMBED permits that queries hold; never more than SLUICE_EMBED_LIMIT."},
    {.name = "SLUICE_EMBED_RESERVE",
     .type = SL_OPT_INT,
     .fallback = "10",
     .min = 0,
     .max = 100000,
     .offset = offsetof(struct config, reserve),
     .help = "EMBED permits that bulk work leaves free; it always has one."},
    {.name = "SLUICE_EMBED_BATCH",
     .type = SL_OPT_INT,
     .fallback = "32",
     .min = 1,
     .max = MEMBERS_MAX,
     .offset = offsetof(struct config, batch),
     .help = "Questions that share one call at most."},
    {.name = "SLUICE_EMBED_WINDOW",
     .type = SL_OPT_DURATION,
     .fallback = "5ms",
     .min = 1,
     .max = 1000,
     .offset = offsetof(struct config, window_ms),
     .help = "How long a question waits for others while calls are under way."},
    {.name = NULL},
};
static const struct sl_option_set option_sets[] = {
    {"Embedding model", upstream_options, &config.upstream},
    {"Embedding batches", batch_options, &config},
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
    .admin_address = "127.0.0.1:9101",
    .drain_ms = 10000,
    .state_size = sizeof(struct state),
    .option_sets = option_sets,
    .option_set_count = 2,
    .init = init,
    .fini = fini,
    .start = start,
    .cancel = cancel,
};
