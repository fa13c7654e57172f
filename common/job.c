/*
 * Jobs: their states, and what stages may call.
 *
 * The happy path: intake.c creates a job from a record and takes a slot; job_admit asks for its
 * claim; GRANTED runs the stage's start; the stage settles the job; settle.c delivers, marks the
 * claim, ends the positions and destroys the job.
 *
 * Besides: PARKED gives the slot back and waits (another worker has the claim). A cancellation, the
 * deadline or a lost lease while it runs first stops the stage (job_stop), then ends the query with
 * what there is; a lost claim ends nothing: somebody else has the job, so it is admitted anew and
 * will find out. Nothing is freed while the producer still owes a report for it (unacked), or Redis
 * an answer.
 */
#include "common/worker_internal.h"

#include "common/clock.h"
#include "common/log.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

enum { QUERY_ARENA_MAX = 64 << 20, BULK_ARENA_MAX = 192 << 20 };

static void on_verdict(struct sl_admission *admission, enum sl_verdict verdict);
static void leave_running(struct sl_job *job);
static void release_permits(struct sl_job *job);
static void on_retry(struct sl_admission *admission);
static void on_cancelled(struct sl_admission *admission);
static void on_claim_lost(struct sl_admission *admission);

/* --- creating --- */

static int copy_headers(struct sl_job *job, const struct sl_record *record)
{
    struct sl_kafka_header *headers =
        sl_arena_alloc(&job->arena, (record->header_count + 1) * sizeof(*headers));
    if (headers == NULL) {
        return -SL_ENOMEM;
    }
    for (size_t i = 0; i < record->header_count; i++) {
        headers[i].name = sl_arena_copy(&job->arena, record->headers[i].name);
        headers[i].value = record->headers[i].value;
        if (headers[i].value.data != NULL) {
            headers[i].value = sl_arena_copy(&job->arena, record->headers[i].value);
        }
    }
    job->record.headers = headers;
    return 0;
}

static int copy_record(struct sl_job *job, const struct sl_record *record)
{
    job->record = *record;
    job->record.topic = sl_arena_string(&job->arena, sl_span_of(record->topic));
    job->record.key = sl_arena_copy(&job->arena, record->key);
    job->record.value = sl_arena_copy(&job->arena, record->value);
    if (job->record.topic == NULL || job->record.key.data == NULL ||
        job->record.value.data == NULL) {
        return -SL_ENOMEM;
    }
    return copy_headers(job, record);
}

struct sl_job *job_create(struct sl_worker *worker, const struct sl_record *record,
                          const struct sl_position *position)
{
    struct sl_job *job = calloc(1, sizeof(*job));
    if (job == NULL) {
        return NULL;
    }
    job->worker = worker;
    job->input = &worker->stage->inputs[position->topic];
    job->taken_us = sl_clock_now_us();
    sl_list_init(&job->in_state);
    sl_list_init(&job->in_blocked);
    sl_arena_init(&job->arena, job->input->bulk ? BULK_ARENA_MAX : QUERY_ARENA_MAX);
    sl_buf_init(&job->bytes, 32u << 20);
    sl_buf_init(&job->early, 32u << 20);
    job->state_data = calloc(1, worker->stage->state_size > 0 ? worker->stage->state_size : 1);
    if (job->state_data == NULL || copy_record(job, record) != 0 ||
        job_add_position(job, position) != 0) {
        sl_arena_fini(&job->arena);
        free(job->positions);
        free(job->state_data);
        free(job);
        return NULL;
    }
    job->state = JOB_ADMITTING;
    sl_list_push(&worker->states[JOB_ADMITTING], &job->in_state);
    worker->counts[JOB_ADMITTING]++;
    return job;
}

int job_add_position(struct sl_job *job, const struct sl_position *position)
{
    if (job->position_count == job->position_cap) {
        size_t cap = job->position_cap > 0 ? job->position_cap * 2 : 1;
        struct sl_position *positions = realloc(job->positions, cap * sizeof(*positions));
        if (positions == NULL) {
            return -SL_ENOMEM;
        }
        job->positions = positions;
        job->position_cap = cap;
    }
    job->positions[job->position_count++] = *position;
    return 0;
}

void job_set_state(struct sl_job *job, enum job_state state)
{
    static const bool legal[JOB_STATES][JOB_STATES] = {
        [JOB_ADMITTING] = {[JOB_PARKED] = true, [JOB_RUNNING] = true, [JOB_SETTLING] = true},
        [JOB_PARKED] = {[JOB_UNPARKED] = true},
        [JOB_UNPARKED] = {[JOB_ADMITTING] = true},
        [JOB_RUNNING] = {[JOB_ADMITTING] = true, [JOB_SETTLING] = true},
        [JOB_SETTLING] = {[JOB_ADMITTING] = true}, /* The claim was lost while it ended. */
    };
    struct sl_worker *worker = job->worker;
    assert(legal[job->state][state]);
    sl_list_remove(&job->in_state);
    worker->counts[job->state]--;
    job->state = state;
    sl_list_push(&worker->states[state], &job->in_state);
    worker->counts[state]++;
}

void job_free_slot(struct sl_job *job)
{
    if (job->has_slot) {
        job->has_slot = false;
        job->worker->slots_used[job->input->bulk ? CLASS_BULK : CLASS_QUERY]--;
        sl_task_defer(job->worker->loop, &job->worker->unpark, intake_unpark);
        if (job->worker->consumer != NULL) {
            sl_consumer_kick(job->worker->consumer);
        }
    }
}

void job_destroy(struct sl_job *job)
{
    struct sl_worker *worker = job->worker;
    assert(job->unacked == 0);
    job_free_slot(job);
    sl_timer_stop(worker->loop, &job->deadline);
    for (size_t i = 0; i < OUTBOX_MAX; i++) {
        sl_timer_stop(worker->loop, &job->outbox[i].retry);
        assert(!job->outbox[i].pending);
    }
    if (job->by_key.key.len > 0) {
        sl_map_remove(&worker->jobs, &job->by_key);
    }
    sl_list_remove(&job->in_state);
    sl_list_remove(&job->in_blocked);
    worker->counts[job->state]--;
    sl_buf_fini(&job->bytes);
    sl_buf_fini(&job->early);
    sl_arena_fini(&job->arena);
    free(job->positions);
    free(job->state_data);
    free(job);
    worker_job_gone(worker);
}

void job_count(struct sl_job *job, const char *outcome)
{
    static const char *const names[] = {"done", "failed", "cancelled", "expired", "dead", "moved"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (strcmp(names[i], outcome) == 0) {
            sl_counter_add(job->worker->outcomes[i], 1);
            return;
        }
    }
    assert(false && "an outcome that the table lacks");
}

/* --- admission --- */

/* A lease that ends before a call took it up: the call asks for another. */
static void on_permit_lost(struct sl_permit *permit)
{
    (void)permit;
}

void job_admit(struct sl_job *job)
{
    struct sl_worker *worker = job->worker;
    assert(job->state == JOB_ADMITTING);
    job->admission.id = job->id;
    job->admission.stage = worker->stage->name;
    job->admission.bulk = job->input->bulk;
    job->admission.deadline_ms = job->input->bulk ? 0 : sl_job_deadline_ms(job);
    job->admission.on_verdict = on_verdict;
    job->admission.on_retry = on_retry;
    job->admission.on_cancelled = on_cancelled;
    job->admission.on_lost = on_claim_lost;
    size_t wanted = job->input->bulk || job->fault_err != 0 ? 0 : worker->stage->admission_permits;
    for (size_t i = 0; i < wanted; i++) {
        size_t limit = sl_coord_limit(worker->coord, worker->limits[i].name);
        sl_permit_init(&job->permits[i], limit, false, NULL, on_permit_lost);
        job->admission.permits[i] = &job->permits[i];
    }
    sl_admit(worker->coord, &job->admission);
}

static void on_deadline(struct sl_timer *timer)
{
    struct sl_job *job = SL_ITEM(timer, struct sl_job, deadline);
    int64_t remaining = sl_job_remaining_ms(job);
    if (remaining > 0) { /* Redis's clock is a little behind what it was thought to be. */
        sl_timer_start(job->worker->loop, timer, (uint64_t)remaining, on_deadline);
        return;
    }
    struct sl_result result = job->partial;
    result.outcome = SL_EXPIRED;
    result.code = SL_QERR_TIMEOUT;
    result.message = SL_SPAN("the deadline passed before the answer was complete");
    job_stop(job);
    settle_query(job, &result);
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

static void run(struct sl_job *job)
{
    begin_running(job);
    if (job->fault_err != 0) {
        sl_job_fail(job, SL_QERR_BAD_REQUEST, job->fault.message);
    } else {
        job->worker->stage->start(job);
    }
}

/* Permits that came with the verdict are not needed. */
static void end_before_running(struct sl_job *job, enum sl_outcome outcome,
                               enum sl_query_error code, const char *message)
{
    for (size_t i = 0; i < job->worker->stage->admission_permits; i++) {
        sl_permit_release(job->worker->coord, &job->permits[i]);
    }
    struct sl_result result = job->partial;
    release_permits(job);
    result.outcome = outcome;
    result.code = code;
    result.message = sl_span_of(message);
    settle_query(job, &result);
}

/* The worker that was sending the answer is dead. Nothing is paid for twice unasked. */
static void on_streamed(struct sl_job *job)
{
    struct sl_event restart = {.type = SL_EVENT_RESTART};
    if (job->query->on_worker_lost == SL_WORKER_LOST_RESTART) {
        begin_running(job);
        if (sl_job_emit(job, &restart) == 0) {
            job->worker->stage->start(job);
            return;
        }
        leave_running(job);
    }
    end_before_running(job, SL_FAILED, SL_QERR_WORKER_LOST,
                       "the worker that was sending the answer was lost");
}

static void on_verdict(struct sl_admission *admission, enum sl_verdict verdict)
{
    struct sl_job *job = SL_ITEM(admission, struct sl_job, admission);
    switch (verdict) {
    case SL_VERDICT_GRANTED:
        run(job);
        break;
    case SL_VERDICT_PARKED:
        job_set_state(job, JOB_PARKED);
        job_free_slot(job);
        break;
    case SL_VERDICT_DONE:
    case SL_VERDICT_ENDED:
        settle_nothing(job);
        break;
    case SL_VERDICT_ENDING:
        sl_buf_clear(&job->bytes);
        sl_buf_append_span(&job->bytes, admission->ending);
        settle_stored_ending(job);
        break;
    case SL_VERDICT_CANCELLED:
        end_before_running(job, SL_CANCELLED, SL_QERR_CANCELLED, "the query was cancelled");
        break;
    case SL_VERDICT_EXPIRED:
        end_before_running(job, SL_EXPIRED, SL_QERR_TIMEOUT,
                           "the deadline passed before this stage could begin");
        break;
    case SL_VERDICT_STREAMED:
        on_streamed(job);
        break;
    case SL_VERDICT_WORN_OUT:
        end_before_running(job, SL_FAILED, SL_QERR_WORKER_LOST,
                           "three workers were lost while they ran this stage");
        break;
    }
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
    if (job->state != JOB_RUNNING) {
        return; /* It ends anyway; the ending that is stored first counts. */
    }
    job_stop(job);
    struct sl_result result = job->partial;
    result.outcome = SL_CANCELLED;
    result.code = SL_QERR_CANCELLED;
    result.message = SL_SPAN("the query was cancelled");
    settle_query(job, &result);
}

static void on_claim_lost(struct sl_admission *admission)
{
    struct sl_job *job = SL_ITEM(admission, struct sl_job, admission);
    sl_log(SL_LOG_WARN, "claim lost", SL_SPANF("id", job->id),
           SL_INT("attempt", admission->attempt));
    if (job->state == JOB_RUNNING) {
        job_stop(job);
        job->restarting = true;
        job_maybe_restart(job);
    } else if (job->state == JOB_SETTLING && job->step < SETTLE_SEND) {
        job->restarting = true;
        job_maybe_restart(job);
    } /* Otherwise its output is on the way already, and marking the claim will change nothing. */
}

/* Those that came with the admission and that no call took up. */
static void release_permits(struct sl_job *job)
{
    for (size_t i = 0; i < job->worker->stage->admission_permits; i++) {
        sl_permit_release(job->worker->coord, &job->permits[i]);
    }
}

/* From RUNNING on: no time-out, no call-back, and what permits no call took up go back. */
static void leave_running(struct sl_job *job)
{
    assert(job->state == JOB_RUNNING);
    sl_timer_stop(job->worker->loop, &job->deadline);
    sl_list_remove(&job->in_blocked);
    job->on_room = NULL;
    release_permits(job);
}

void job_stop(struct sl_job *job)
{
    if (job->worker->stage->cancel != NULL && job->fault_err == 0) {
        job->worker->stage->cancel(job);
    }
    leave_running(job);
}

static void on_stream_marked(void *ctx, int err)
{
    struct sl_job *job = ctx;
    struct sl_result failed = {.outcome = SL_FAILED,
                               .code = SL_QERR_INTERNAL,
                               .message = SL_SPAN("Redis was away when the answer began")};
    job->unacked--;
    if (job->state != JOB_RUNNING) {
        job_maybe_restart(job);
        settle_continue(job);
    } else if (err == 0) {
        job->on_streaming(job);
    } else if (err == -SL_ELOST) {
        on_claim_lost(&job->admission);
    } else {
        job_stop(job);
        settle_query(job, &failed);
    }
}

int sl_job_stream(struct sl_job *job, void (*ready)(struct sl_job *job))
{
    assert(job->state == JOB_RUNNING);
    int rv = sl_claim_stream(job->worker->coord, &job->admission, on_stream_marked, job);
    if (rv == 0) {
        job->on_streaming = ready;
        job->unacked++;
    }
    return rv;
}

/* Once nothing of the old attempt is in flight, the job asks for admission like one that just came.
 */
void job_maybe_restart(struct sl_job *job)
{
    if (!job->restarting || !settle_quiet(job)) {
        return;
    }
    job->restarting = false;
    sl_admit_withdraw(job->worker->coord, &job->admission);
    job->admission = (struct sl_admission){0};
    job->step = SETTLE_NONE;
    job->seq = 0;
    job->delivery_err = 0;
    job->outbox_count = 0;
    job->partial = (struct sl_result){0};
    job->time = (struct sl_stage_time){0};
    memset(job->state_data, 0, job->worker->stage->state_size);
    sl_buf_clear(&job->bytes);
    sl_buf_clear(&job->early);
    job_set_state(job, JOB_ADMITTING);
    int rv = intake_decode(job);
    assert(rv != -SL_EBADMSG); /* The same bytes were decoded before. */
    if (rv == 0) {
        job_admit(job);
    } else { /* No memory: the record is redelivered after the process has ended. */
        sl_log(SL_LOG_ERROR, "job dropped until redelivery", SL_SPANF("id", job->id), SL_ERR(rv));
        job_destroy(job);
    }
}

/* --- what stages see --- */

struct sl_query *sl_job_query(struct sl_job *job)
{
    return job->query;
}

struct sl_document *sl_job_document(struct sl_job *job)
{
    return job->document;
}

struct sl_batch *sl_job_batch(struct sl_job *job)
{
    return job->batch;
}

const char *sl_job_input(const struct sl_job *job)
{
    return job->input->topic;
}

struct sl_worker *sl_job_worker(struct sl_job *job)
{
    return job->worker;
}

void *sl_job_state(struct sl_job *job)
{
    return job->state_data;
}

struct sl_arena *sl_job_arena(struct sl_job *job)
{
    return &job->arena;
}

struct sl_span sl_job_id(const struct sl_job *job)
{
    return job->id;
}

uint32_t sl_job_attempt(const struct sl_job *job)
{
    return job->admission.attempt;
}

bool sl_job_bulk(const struct sl_job *job)
{
    return job->input->bulk;
}

int64_t sl_job_deadline_ms(const struct sl_job *job)
{
    enum { BULK_BUDGET_MS = 600000 };
    return job->query != NULL ? job->query->deadline_ms
                              : sl_coord_now_ms(job->worker->coord) + BULK_BUDGET_MS;
}

int64_t sl_job_remaining_ms(const struct sl_job *job)
{
    int64_t remaining = sl_job_deadline_ms(job) - sl_coord_now_ms(job->worker->coord);
    return remaining > 0 ? remaining : 0;
}

struct sl_permit *sl_job_permit(struct sl_job *job, size_t i)
{
    assert(i < job->worker->stage->admission_permits);
    return &job->permits[i];
}

void sl_job_count_attempts(struct sl_job *job, uint32_t calls)
{
    job->time.attempts += calls;
}

void sl_job_on_room(struct sl_job *job, void (*on_room)(struct sl_job *job))
{
    job->on_room = on_room;
}

static struct sl_span keep(struct sl_job *job, struct sl_span span)
{
    struct sl_span copy = sl_arena_copy(&job->arena, span);
    return copy.data != NULL ? copy : (struct sl_span){"", 0};
}

void sl_job_partial(struct sl_job *job, const struct sl_result *partial)
{
    job->partial = *partial;
    job->partial.answer = keep(job, partial->answer);
    job->partial.model = keep(job, partial->model);
    job->partial.finish_reason = keep(job, partial->finish_reason);
    job->partial.message = (struct sl_span){0};
    job->partial.stage = (struct sl_span){0};
}

void sl_job_forward(struct sl_job *job, const char *topic)
{
    leave_running(job);
    settle_forward(job, topic);
}

void sl_job_done(struct sl_job *job)
{
    leave_running(job);
    settle_bulk(job);
}

void sl_job_finish(struct sl_job *job, const struct sl_result *result)
{
    leave_running(job);
    settle_query(job, result);
}

void sl_job_fail(struct sl_job *job, enum sl_query_error code, const char *message)
{
    leave_running(job);
    if (job->input->bulk) {
        settle_dead_letter(job, -SL_EREJECTED, message);
        return;
    }
    struct sl_result result = job->partial;
    result.outcome = code == SL_QERR_TIMEOUT ? SL_EXPIRED : SL_FAILED;
    result.code = code;
    result.message = sl_span_of(message);
    settle_query(job, &result);
}
