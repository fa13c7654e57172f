/*
 * The two stages. The first has queries and chunks, a limit that comes with admission and another
 * that a call asks for by itself, and sends an early event; the second streams. A call is a time
 * that passes while a permit is held: it begins and ends here as an HTTP request would in
 * common/upstream.c, also by the rules for a permit that is lost, which asks for another as long as
 * nothing came.
 */
#include "tests/support/sim/sim_check.h"

enum { TRIES = 3, TOKENS_MAX = 12 };

const struct sl_limit sim_limits[SIM_LIMITS] = {
    {.name = "FIRST", .limit = 2, .bulk_max = 1},
    {.name = "EXTRA", .limit = 1},
    {.name = "CHAT", .limit = 2},
};

/* A job's state. */
struct work {
    struct sl_job *job;
    struct sl_permit own; /* When none came with admission, and for EXTRA. */
    struct sl_permit *permit;
    struct sl_timer timer;
    enum sim_limit limit;
    bool open, extra_next, fails, running, failing;
    bool committed;           /* The first token came: it is not tried again. */
    enum sl_query_error code; /* Of what fails. */
    unsigned tries, tokens, sent;
};

static void begin_call(struct work *work);
static void on_called(struct sl_timer *timer);

static struct sl_coord *coord_of(struct work *work)
{
    return sl_worker_coord(sl_job_worker(work->job));
}

static void after(struct work *work, uint64_t ms, void (*fire)(struct sl_timer *timer))
{
    sl_timer_start(sl_worker_loop(sl_job_worker(work->job)), &work->timer, ms, fire);
}

/* --- the end of a job --- */

static void close_call(struct work *work)
{
    if (work->open) {
        work->open = false;
        sim_check_call(work->job, work->limit, false);
    }
    sl_timer_stop(sl_worker_loop(sl_job_worker(work->job)), &work->timer);
    if (work->permit != NULL) {
        sl_permit_release(coord_of(work), work->permit);
        work->permit = NULL;
    }
}

static void stop(struct work *work)
{
    close_call(work);
    CHECK(work->running);
    work->running = false;
    sim_check_stopped(work->job);
}

static struct sl_result result_of(struct work *work, char answer[32])
{
    snprintf(answer, 32, "%llu", (unsigned long long)work->job->admission.fence);
    return (struct sl_result){.outcome = SL_DONE,
                              .answer = sl_span_of(answer),
                              .finish_reason = SL_SPAN("stop"),
                              .usage = {.completion_tokens = work->sent}};
}

static void on_failed(struct sl_timer *timer)
{
    struct work *work = SL_ITEM(timer, struct work, timer);
    char answer[32];
    const struct sl_result partial = result_of(work, answer);
    stop(work);
    sl_job_partial(work->job, &partial);
    sl_job_fail(work->job, work->code, "the call failed");
}

static void fail_later(struct work *work, enum sl_query_error code)
{
    close_call(work);
    work->failing = true;
    work->code = code;
    after(work, 0, on_failed);
}

/* --- calls --- */

static uint64_t call_ms(void)
{
    return sim_percent(6) ? sim_between(2000, 18000) : sim_between(2, 800);
}

static void open_call(struct work *work)
{
    if (!sl_job_bulk(work->job) && sl_job_remaining_ms(work->job) == 0) {
        fail_later(work, SL_QERR_TIMEOUT);
        return;
    }
    work->open = true;
    sim_counts.calls++;
    sim_check_call(work->job, work->limit, true);
    after(work, call_ms(), on_called);
}

static void on_granted(struct sl_permit *permit, int err)
{
    struct work *work = permit->owner;
    if (err != 0) {
        fail_later(work, SL_QERR_TIMEOUT);
    } else {
        open_call(work);
    }
}

static void on_permit_lost(struct sl_permit *permit)
{
    struct work *work = permit->owner;
    if (!work->open) {
        return; /* It will ask for another. */
    }
    close_call(work);
    if (work->committed || ++work->tries == TRIES) {
        fail_later(work, SL_QERR_UPSTREAM_ERROR);
    } else {
        begin_call(work);
    }
}

static void begin_call(struct work *work)
{
    bool with_admission = work->limit != SIM_LIMIT_EXTRA && !sl_job_bulk(work->job);
    work->permit = with_admission ? sl_job_permit(work->job, 0) : &work->own;
    if (!with_admission) {
        size_t limit = sl_coord_limit(coord_of(work), sim_limits[work->limit].name);
        sl_permit_init(&work->own, limit, sl_job_bulk(work->job), on_granted, on_permit_lost);
    }
    work->permit->owner = work;
    work->permit->on_granted = on_granted;
    work->permit->on_lost = on_permit_lost;
    if (work->permit->state == SL_PERMIT_HELD) {
        open_call(work);
    } else {
        sl_permit_request(coord_of(work), work->permit, sl_job_deadline_ms(work->job));
    }
}

/* --- the first stage --- */

static void finish_bulk(struct sl_job *job)
{
    struct work *work = sl_job_state(job);
    int rv = sl_job_send(job, "vectors", sl_job_id(job), SL_SPAN("v"));
    if (rv == -SL_EAGAIN) {
        sl_job_on_room(job, finish_bulk);
        return;
    }
    CHECK_INT(rv, 0);
    stop(work);
    sl_job_done(job);
}

static void finish_first(struct sl_job *job)
{
    struct work *work = sl_job_state(job);
    struct sl_event event = {.type = SL_EVENT_SOURCES, .query = sl_job_query(job)};
    int rv = sl_job_emit(job, &event);
    if (rv == -SL_EAGAIN) {
        sl_job_on_room(job, finish_first);
        return;
    }
    CHECK_INT(rv, 0);
    stop(work);
    sl_job_forward(job, "generate");
}

static void end_first(struct work *work)
{
    close_call(work);
    if (work->extra_next) {
        work->extra_next = false;
        work->limit = SIM_LIMIT_EXTRA;
        begin_call(work);
    } else if (work->fails) {
        fail_later(work, SL_QERR_RETRIEVAL_FAILED);
    } else if (sl_job_bulk(work->job)) {
        finish_bulk(work->job);
    } else {
        finish_first(work->job);
    }
}

/* --- the second stage --- */

static void on_token(struct sl_timer *timer);
static void send_token(struct sl_job *job);

/* Models send in bursts, so that tokens of several streams, and several of one, come together. */
static uint64_t token_ms(void)
{
    enum { BEAT_MS = 20 };
    uint64_t beat = BEAT_MS - sl_clock_now_ms() % BEAT_MS;
    return sim_percent(5)    ? sim_between(500, 6000)
           : sim_percent(30) ? 0
                             : beat + BEAT_MS * sim_below(4);
}

/* False: it was not taken; what is to happen then will. */
static bool emit_token(struct work *work)
{
    char text[48];
    struct sl_job *job = work->job;
    snprintf(text, sizeof(text), "%llu:%u", (unsigned long long)job->admission.fence, work->sent);
    struct sl_event event = {.type = SL_EVENT_DELTA, .text = sl_span_of(text)};
    int rv = sl_job_emit(job, &event);
    if (rv == -SL_EAGAIN) {
        sl_job_on_room(job, send_token);
    } else if (rv != 0) {
        fail_later(work, SL_QERR_INTERNAL);
    } else {
        work->sent++;
        sim_check_shown(job);
    }
    return rv == 0;
}

static void send_token(struct sl_job *job)
{
    struct work *work = sl_job_state(job);
    if (work->failing || !emit_token(work)) {
        return;
    }
    while (work->sent < work->tokens && sim_percent(30)) {
        if (!emit_token(work)) {
            return;
        }
    }
    after(work, token_ms(), on_token);
}

static void on_token(struct sl_timer *timer)
{
    struct work *work = SL_ITEM(timer, struct work, timer);
    if (work->sent < work->tokens) {
        sl_job_on_flush(work->job, send_token);
        return;
    }
    char answer[32];
    const struct sl_result result = result_of(work, answer);
    stop(work);
    sl_job_finish(work->job, &result);
}

static void end_second(struct work *work)
{
    work->committed = true;
    if (work->fails) {
        fail_later(work, SL_QERR_UPSTREAM_ERROR);
    } else if (work->tokens == 0) {
        on_token(&work->timer);
    } else if (sl_job_stream(work->job, send_token) != 0) {
        fail_later(work, SL_QERR_INTERNAL);
    }
}

static void on_called(struct sl_timer *timer)
{
    struct work *work = SL_ITEM(timer, struct work, timer);
    if (work->limit == SIM_LIMIT_CHAT) {
        end_second(work); /* The first token; the call goes on. */
    } else {
        end_first(work);
    }
}

/* --- the hooks --- */

static void start(struct sl_job *job)
{
    struct work *work = sl_job_state(job);
    bool second = sl_job_worker(job)->stage == &sim_stages[SIM_SECOND];
    *work = (struct work){.job = job,
                          .running = true,
                          .limit = second ? SIM_LIMIT_CHAT : SIM_LIMIT_FIRST,
                          .extra_next = !second && sim_percent(40),
                          .fails = !sl_job_bulk(job) && sim_percent(4),
                          .tokens = (unsigned)sim_below(TOKENS_MAX + 1)};
    sim_check_started(job);
    begin_call(work);
}

static void cancel(struct sl_job *job)
{
    struct work *work = sl_job_state(job);
    char answer[32];
    const struct sl_result partial = result_of(work, answer);
    stop(work);
    sl_job_partial(job, &partial);
}

static size_t first_limits(struct sl_limit ret[SL_STAGE_LIMITS])
{
    ret[0] = sim_limits[SIM_LIMIT_FIRST];
    ret[1] = sim_limits[SIM_LIMIT_EXTRA];
    return 2;
}

static size_t second_limits(struct sl_limit ret[SL_STAGE_LIMITS])
{
    ret[0] = sim_limits[SIM_LIMIT_CHAT];
    return 1;
}

static const char *const first_outputs[] = {"generate", "vectors", "replies", "results", NULL};
static const char *const second_outputs[] = {"replies", "results", NULL};

const struct sl_stage sim_stages[SIM_STAGES] = {
    {
        .name = "rerank",
        .synopsis = "",
        .index = SL_STAGE_rerank,
        .inputs = {{.topic = "queries", .kind = SL_INPUT_QUERY, .public = true},
                   {.topic = "chunks", .kind = SL_INPUT_BATCH, .bulk = true}},
        .outputs = first_outputs,
        .limits = first_limits,
        .admission_permits = 1,
        .state_size = sizeof(struct work),
        .start = start,
        .cancel = cancel,
    },
    {
        .name = "generate",
        .synopsis = "",
        .index = SL_STAGE_generate,
        .inputs = {{.topic = "generate", .kind = SL_INPUT_QUERY}},
        .outputs = second_outputs,
        .limits = second_limits,
        .admission_permits = 1,
        .state_size = sizeof(struct work),
        .start = start,
        .cancel = cancel,
    },
};
