/*
 * How a worker process ends.
 *
 * SIGTERM or SIGINT: leave the group at once, so that what was only queued here moves to other
 * workers within their next fetch; jobs that wait are left to them too; jobs that run are finished
 * (their new owners park them). What still runs after four fifths of SLUICE_DRAIN_TIMEOUT is
 * stopped, and its claim given back so that a new owner need not wait for this process's death.
 * When no job is left, what was written for Redis (permits given back, claims marked) has up to a
 * second to get there. A watchdog ends an exit that hangs.
 *
 * A second signal, a drain that is at its end with jobs that still send, a producer that cannot go
 * on: every job is left where it is. The producer ends, and with it whatever else could report on a
 * job; what it has delivered is marked, all other claims are given back, and Redis has up to a
 * second to be told. For an exit is not a death: an owner that dies is counted against its jobs
 * (job_suspect.c).
 *
 * A record of an unknown major version: this worker is older than the one that wrote it. It turns
 * unready, says so and leaves the group, so that the record goes to a worker that knows it; what it
 * has begun it finishes.
 *
 * Out of memory for a record that was taken: nothing that is left undone may be forgotten, and a
 * window with a hole never ends. The process drains and ends with 1; the records come again.
 */
#include "common/worker_internal.h"

#include "common/admin.h"
#include "common/clock.h"
#include "common/log.h"

#include <assert.h>

enum { LINGER_MS = 1000, LINGER_STEP_MS = 10 };

static void on_close(struct sl_task *task);

/* --- when nothing is left --- */

static size_t job_count(const struct sl_worker *worker)
{
    size_t jobs = 0;
    for (int i = 0; i < JOB_STATES; i++) {
        jobs += worker->counts[i];
    }
    return jobs;
}

static bool all_gone(const struct sl_worker *worker)
{
    return (worker->left || worker->closing) && job_count(worker) == 0;
}

/* A share of the time to drain, at most a second. */
static uint64_t share_ms(const struct sl_worker *worker, long long share)
{
    long long most = worker->process->drain_ms / share;
    return (uint64_t)(most < LINGER_MS ? most : LINGER_MS);
}

static void on_linger(struct sl_timer *timer)
{
    struct sl_worker *worker = SL_ITEM(timer, struct sl_worker, linger_timer);
    bool over = sl_clock_now_ms() >= worker->linger_end_ms;
    if (over && job_count(worker) > 0) {
        sl_task_defer(worker->loop, &worker->close, on_close);
    } else if (over || (all_gone(worker) && sl_coord_idle(worker->coord))) {
        sl_loop_stop(worker->loop);
    } else {
        sl_timer_start(worker->loop, timer, LINGER_STEP_MS, on_linger);
    }
}

static void linger(struct sl_worker *worker, uint64_t most_ms)
{
    if (worker->linger_end_ms == 0) {
        worker->linger_end_ms = sl_clock_now_ms() + most_ms;
        sl_timer_start(worker->loop, &worker->linger_timer, 0, on_linger);
    }
}

void worker_job_gone(struct sl_worker *worker)
{
    if (worker->draining && !worker->closing && all_gone(worker)) {
        linger(worker, share_ms(worker, 10));
    }
}

/* --- leaving --- */

static void on_left(void *ctx)
{
    struct sl_worker *worker = ctx;
    worker->left = true;
    worker_job_gone(worker);
}

static void abandon_each(struct sl_worker *worker, enum job_state state)
{
    SL_LIST_EACH_SAFE(node, &worker->states[state])
    {
        job_abandon(SL_ITEM(node, struct sl_job, in_state));
    }
}

/* Deferred: whoever asks for it may stand in the middle of a job, or of the consumer's records. */
static void on_leave(struct sl_task *task)
{
    struct sl_worker *worker = SL_ITEM(task, struct sl_worker, leave);
    abandon_each(worker, JOB_ADMITTING);
    abandon_each(worker, JOB_PARKED);
    abandon_each(worker, JOB_UNPARKED);
    if (!worker->leaving) {
        worker->leaving = true;
        sl_consumer_leave(worker->consumer, on_left, worker);
    }
    worker_job_gone(worker);
}

void worker_version_unknown(struct sl_worker *worker, const struct sl_record *record)
{
    if (worker->version_blocked) {
        return;
    }
    worker->version_blocked = true;
    sl_log(SL_LOG_ERROR, "a record has a newer major version than this worker: upgrade it",
           SL_STR("topic", record->topic), SL_INT("partition", record->partition),
           SL_INT("offset", record->offset));
    sl_condition_set(worker->version_ready, false,
                     "a record has a newer major version than this worker: upgrade it");
    sl_task_defer(worker->loop, &worker->leave, on_leave);
}

/* --- draining --- */

static void on_drain_timeout(struct sl_timer *timer)
{
    struct sl_worker *worker = SL_ITEM(timer, struct sl_worker, drain_timer);
    sl_log(SL_LOG_WARN, "drain timed out", SL_INT("running", worker->counts[JOB_RUNNING]),
           SL_INT("settling", worker->counts[JOB_SETTLING]));
    worker->exit_code = 1;
    SL_LIST_EACH(node, &worker->states[JOB_RUNNING])
    {
        struct sl_job *job = SL_ITEM(node, struct sl_job, in_state);
        if (job_runs(job)) {
            job_stop(job);
            job_restart(job); /* Which now means: it is left to others. */
        }
    }
    linger(worker, share_ms(worker, 20));
}

void worker_on_drain(void *ctx)
{
    struct sl_worker *worker = ctx;
    if (worker->draining) {
        return;
    }
    worker->draining = true;
    sl_condition_set(worker->kafka_ready, false, "draining");
    sl_timer_start(worker->loop, &worker->drain_timer, (uint64_t)worker->process->drain_ms * 4 / 5,
                   on_drain_timeout);
    sl_task_defer(worker->loop, &worker->leave, on_leave);
}

/* --- leaving everything --- */

/* Deferred, as on_leave is. */
static void on_close(struct sl_task *task)
{
    struct sl_worker *worker = SL_ITEM(task, struct sl_worker, close);
    worker->draining = true;
    worker_abandon_all(worker);
    sl_claim_forget_callers(worker->coord);
    worker->linger_end_ms = 0;
    linger(worker, share_ms(worker, 20));
}

void worker_stop(struct sl_worker *worker)
{
    worker->exit_code = 1;
    if (!worker->closing) {
        sl_task_defer(worker->loop, &worker->close, on_close);
    }
}

void worker_on_stop(void *ctx)
{
    worker_stop(ctx);
}

void worker_fail(struct sl_worker *worker, const char *why)
{
    sl_log(SL_LOG_ERROR, "cannot go on", SL_STR("why", why));
    worker->exit_code = 1;
    worker_on_drain(worker);
}

void worker_abandon_all(struct sl_worker *worker)
{
    worker->closing = true;
    SL_LIST_EACH(node, &worker->states[JOB_RUNNING])
    {
        struct sl_job *job = SL_ITEM(node, struct sl_job, in_state);
        if (job_runs(job)) {
            job_stop(job);
        }
    }
    SL_LIST_EACH(node, &worker->states[JOB_SETTLING])
    {
        settle_send_late(SL_ITEM(node, struct sl_job, in_state));
    }
    /* Every report comes inside: afterwards nothing holds a job any more. */
    settle_bundles_drop(worker);
    sl_producer_destroy(worker->producer, (uint32_t)share_ms(worker, 20));
    worker->producer = NULL;
    assert(sl_list_empty(&worker->lanes));
    SL_LIST_EACH_SAFE(node, &worker->states[JOB_SETTLING])
    {
        settle_leave(SL_ITEM(node, struct sl_job, in_state));
    }
    for (int state = 0; state < JOB_STATES; state++) {
        abandon_each(worker, (enum job_state)state);
    }
}
