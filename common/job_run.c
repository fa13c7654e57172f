/*
 * Admission, running, and what ends it.
 *
 * The happy path: job_admit asks for the claim and the permits; GRANTED runs the stage's start; the
 * stage settles the job (job_stage.c), which takes it out of RUNNING here.
 *
 * Besides: PARKED gives the slot back and waits (another worker has the claim). A cancellation or
 * the deadline while it runs first stops the stage (job_stop), then ends the query with what there
 * is. A lost claim ends nothing: somebody else has the job, so it is stopped, admitted anew and
 * will find out. A claim whose deadline passed on the way from Redis is not begun.
 *
 * Results need no claim: whoever reads one may run it, so it runs a turn after it came, whatever
 * Redis says or does.
 *
 * A generation marks its claim before it shows anything (sl_job_stream). Whoever is granted such a
 * claim gets STREAMED instead, and ends the query, or says `restart` and begins, as its caller
 * wished.
 */
#include "common/worker_internal.h"

#include "common/clock.h"
#include "common/log.h"

#include <assert.h>

static void on_verdict(struct sl_admission *admission, enum sl_verdict verdict);
static void on_retry(struct sl_admission *admission);
static void on_cancelled(struct sl_admission *admission);
static void on_claim_lost(struct sl_admission *admission);
static void on_suspect(struct sl_admission *admission);

/* --- admission --- */

static bool wants_restart(const struct sl_job *job)
{
    return job->query != NULL && job->query->on_worker_lost == SL_WORKER_LOST_RESTART;
}

/* A lease that ends before a call took it up: the call asks for another. */
static void on_permit_lost(struct sl_permit *permit)
{
    (void)permit;
}

/* Where the stage does not always want them: of those that come together only the first does. */
static bool brings_permits(struct sl_worker *worker)
{
    const struct sl_stage *stage = worker->stage;
    return stage->wants_permits == NULL ||
           (stage->wants_permits(worker) &&
            !sl_permit_awaited(worker->coord,
                               sl_coord_limit(worker->coord, worker->limits[0].name)));
}

void job_admit(struct sl_job *job)
{
    struct sl_worker *worker = job->worker;
    bool asks = !job->input->bulk && job->fault_err == 0 && brings_permits(worker);
    assert(job->state == JOB_ADMITTING);
    if (job->input->kind == SL_INPUT_RESULT) {
        job_next(job);
        return;
    }
    job->admission.id = job->id;
    job->admission.stage = worker->stage->name;
    job->admission.bulk = job->input->bulk;
    job->admission.deadline_ms = job->input->bulk ? 0 : sl_job_deadline_ms(job);
    job->admission.on_verdict = on_verdict;
    job->admission.on_retry = on_retry;
    job->admission.on_cancelled = on_cancelled;
    job->admission.on_lost = on_claim_lost;
    job->admission.on_suspect = on_suspect;
    job->admission.restarts = wants_restart(job);
    for (size_t i = 0; i < worker->stage->admission_permits; i++) {
        size_t limit = sl_coord_limit(worker->coord, worker->limits[i].name);
        sl_permit_init(&job->permits[i], limit, job->input->bulk, NULL, on_permit_lost);
        job->admission.permits[i] = asks ? &job->permits[i] : NULL;
    }
    sl_admit(worker->coord, &job->admission);
    if (!job->input->bulk && job->fault_err == 0 && worker->stage->prepare != NULL) {
        job->prepared = true; /* The admission goes out at the end of the turn: behind this. */
        worker->stage->prepare(job);
    }
}

void job_unprepare(struct sl_job *job)
{
    if (job->prepared) {
        job->prepared = false;
        job->worker->stage->unprepare(job);
    }
}

/* Those that no call has taken up, or has given back. */
void job_release_permits(struct sl_job *job)
{
    for (size_t i = 0; i < job->worker->stage->admission_permits; i++) {
        sl_permit_release(job->worker->coord, &job->permits[i]);
    }
}

/* --- running --- */

bool job_runs(const struct sl_job *job)
{
    return job->state == JOB_RUNNING && !job->restarting;
}

static void on_deadline(struct sl_timer *timer)
{
    struct sl_job *job = SL_ITEM(timer, struct sl_job, deadline);
    int64_t remaining = sl_job_remaining_ms(job);
    if (remaining > 0) { /* Redis's clock is a little behind what it was thought to be. */
        sl_timer_start(job->worker->loop, timer, (uint64_t)remaining, on_deadline);
        return;
    }
    job_end(job, SL_EXPIRED, SL_QERR_TIMEOUT, "the deadline passed before the answer was complete");
}

static void begin_running(struct sl_job *job)
{
    struct sl_worker *worker = job->worker;
    job_set_state(job, JOB_RUNNING);
    job->granted_us = sl_clock_now_us();
    job->time.wait_ms = (uint32_t)((job->granted_us - job->taken_us) / 1000);
    if (!job->input->bulk) {
        sl_timer_start(worker->loop, &job->deadline, (uint64_t)sl_job_remaining_ms(job),
                       on_deadline);
    }
}

static void start(struct sl_job *job)
{
    job->started = true;
    job->prepared = false;
    job->worker->stage->start(job);
}

static void run(struct sl_job *job)
{
    if (job->fault_err != 0) {
        job_end(job, SL_FAILED, SL_QERR_BAD_REQUEST, job->fault.message);
    } else if (!job->input->bulk && sl_job_remaining_ms(job) == 0) {
        job_end(job, SL_EXPIRED, SL_QERR_TIMEOUT,
                "the deadline passed before this stage could begin");
    } else {
        begin_running(job);
        start(job);
    }
}

void job_begin_unclaimed(struct sl_job *job)
{
    if (job->input->kind == SL_INPUT_RESULT && job->worker->draining) {
        job_abandon(job);
    } else if (job->input->kind == SL_INPUT_RESULT) {
        job->admission.attempt = 1;
        run(job);
    }
}

/* The stream begins again, as its caller wished. */
static void start_again(struct sl_job *job)
{
    struct sl_event restart = {.type = SL_EVENT_RESTART};
    int rv = sl_job_emit(job, &restart);
    if (rv == -SL_EAGAIN) {
        sl_job_on_room(job, start_again);
    } else if (rv != 0) {
        job_end(job, SL_FAILED, SL_QERR_WORKER_LOST,
                "the worker that was sending the answer was lost, and it cannot be begun again");
    } else {
        start(job);
    }
}

/* The worker that was sending the answer is dead. Nothing is paid for twice unasked. */
static void on_streamed(struct sl_job *job)
{
    if (job->fault_err == 0 && wants_restart(job) && sl_job_remaining_ms(job) > 0) {
        begin_running(job);
        start_again(job);
    } else {
        job_end(job, SL_FAILED, SL_QERR_WORKER_LOST,
                "the worker that was sending the answer was lost");
    }
}

static void on_worn_out(struct sl_job *job)
{
    static const char why[] = "three workers died while they ran this job";
    const struct sl_stage *stage = job->worker->stage;
    if (!job->input->bulk) {
        settle_worn_out(job, why);
    } else if (stage->worn_out == NULL) {
        settle_dead_letter(job, -SL_ELOST, why);
    } else {
        begin_running(job);
        settle_worn_out(job, why);
        job->started = true;
        stage->worn_out(job, why);
    }
}

void job_leave_running(struct sl_job *job)
{
    assert(job_runs(job));
    job->started = false;
    sl_timer_stop(job->worker->loop, &job->deadline);
    sl_list_remove(&job->in_sending);
    job->on_room = NULL;
    job_release_permits(job);
}

void job_stop(struct sl_job *job)
{
    if (job->started && job->worker->stage->cancel != NULL) {
        job->worker->stage->cancel(job);
    }
    job_leave_running(job);
}

void job_end(struct sl_job *job, enum sl_outcome outcome, enum sl_query_error code,
             const char *message)
{
    if (job->state == JOB_RUNNING) {
        job_stop(job);
    }
    if (job->input->bulk) {
        settle_dead_letter(job, code == SL_QERR_WORKER_LOST ? -SL_ELOST : -SL_EREJECTED, message);
        return;
    }
    struct sl_result result = job->partial; /* After the stop, which may have completed it. */
    result.outcome = outcome;
    result.code = code;
    result.message = sl_span_of(message);
    settle_query(job, &result);
}

/* --- what Redis says --- */

/* Another worker runs it: only the record is kept meanwhile. */
static void park(struct sl_job *job)
{
    if (job->worker->draining || job->worker->version_blocked) {
        job_abandon(job);
        return;
    }
    job_set_state(job, JOB_PARKED);
    job_free_slot(job);
    job_unprepare(job);
    sl_arena_fini(&job->arena);
    job->query = NULL;
    job->document = NULL;
    job->batch = NULL;
}

static void on_verdict(struct sl_admission *admission, enum sl_verdict verdict)
{
    struct sl_job *job = SL_ITEM(admission, struct sl_job, admission);
    switch (verdict) {
    case SL_VERDICT_GRANTED:
        run(job);
        break;
    case SL_VERDICT_PARKED:
        park(job);
        break;
    case SL_VERDICT_DONE:
    case SL_VERDICT_ENDED:
        settle_nothing(job);
        break;
    case SL_VERDICT_ENDING:
        settle_stored_ending(job, admission->ending);
        break;
    case SL_VERDICT_CANCELLED:
        job_end(job, SL_CANCELLED, SL_QERR_CANCELLED, "the query was cancelled");
        break;
    case SL_VERDICT_EXPIRED:
        job_end(job, SL_EXPIRED, SL_QERR_TIMEOUT,
                "the deadline passed before this stage could begin");
        break;
    case SL_VERDICT_STREAMED:
        on_streamed(job);
        break;
    case SL_VERDICT_WORN_OUT:
        on_worn_out(job);
        break;
    }
}

static void on_suspect(struct sl_admission *admission)
{
    suspects_add(SL_ITEM(admission, struct sl_job, admission));
}

static void on_retry(struct sl_admission *admission)
{
    struct sl_job *job = SL_ITEM(admission, struct sl_job, admission);
    job_set_state(job, JOB_UNPARKED);
    sl_task_defer(job->worker->loop, &job->worker->unpark, intake_unpark);
}

static void on_cancelled(struct sl_admission *admission)
{
    struct sl_job *job = SL_ITEM(admission, struct sl_job, admission);
    if (job_runs(job)) { /* Else it ends anyway; the ending that is stored first counts. */
        job_end(job, SL_CANCELLED, SL_QERR_CANCELLED, "the query was cancelled");
    }
}

static void on_claim_lost(struct sl_admission *admission)
{
    struct sl_job *job = SL_ITEM(admission, struct sl_job, admission);
    sl_log(SL_LOG_WARN, "claim lost", SL_SPANF("id", job->id),
           SL_INT("attempt", admission->attempt));
    if (job_runs(job)) {
        job_stop(job);
        job_restart(job);
    } else if (job->state == JOB_SETTLING && job->step < SETTLE_SEND) {
        job_restart(job);
    } /* Otherwise its output is on the way already, and marking the claim will change nothing. */
}

/* --- the mark of a stream --- */

static void on_stream_marked(void *ctx, int err)
{
    struct sl_job *job = ctx;
    job->marking = false;
    job_next(job);
    if (!job_runs(job)) {
        return;
    }
    if (err == 0) {
        job->on_streaming(job);
    } else if (err == -SL_ELOST) {
        on_claim_lost(&job->admission);
    } else {
        job_end(job, SL_FAILED, SL_QERR_INTERNAL, "Redis was away when the answer began");
    }
}

int sl_job_stream(struct sl_job *job, void (*ready)(struct sl_job *job))
{
    assert(job_runs(job) && !job->marking);
    int rv = sl_claim_stream(job->worker->coord, &job->admission, on_stream_marked, job);
    if (rv == 0) {
        job->on_streaming = ready;
        job->marking = true;
    }
    return rv;
}
