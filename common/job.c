/*
 * A job's life: created with its record, moved from state to state, begun anew, gone.
 *
 * A job is one piece of memory with the record's bytes behind it, and an arena for what is made of
 * them. A job that is parked or begins anew gives the arena back and is decoded again later: what
 * waits costs no more than its record.
 *
 * Reports come at any moment, also inside calls that a job makes. They only write down what came
 * and ask for job_next; what follows from it, up to the end of the job, is done by a deferred task
 * at the end of the turn. So no call on a job can free it, but job_destroy itself.
 *
 * To restart: a job whose work is somebody else's now, or must be done again, is stopped, waits
 * until nothing of it is in flight (the producer's reports, Redis's answers), forgets all but its
 * record and asks for admission like one that just came. While the process drains it is left to
 * others instead, and its claim is given back so that they need not wait.
 */
#include "common/worker_internal.h"

#include "common/clock.h"
#include "common/log.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

/* BYTES_MAX: with its headers such a record fits into a topic's 24 MiB. */
enum { QUERY_ARENA_MAX = 64 << 20, BULK_ARENA_MAX = 192 << 20, BYTES_MAX = 23 << 20 };

static uint32_t class_of(const struct sl_job *job)
{
    return class_of_input(job->input);
}

/* --- creating --- */

static size_t aligned(size_t size)
{
    enum { ALIGNMENT = _Alignof(max_align_t) };
    return (size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

/* Copies to *at and moves it on; what is absent stays so. */
static struct sl_span put_span(char **at, struct sl_span span)
{
    struct sl_span copy = {span.data != NULL ? *at : NULL, span.len};
    if (span.len > 0) {
        memcpy(*at, span.data, span.len);
    }
    *at += span.len;
    return copy;
}

static size_t bytes_of(const struct sl_record *record)
{
    size_t bytes = record->key.len + record->value.len;
    for (size_t i = 0; i < record->header_count; i++) {
        bytes += record->headers[i].name.len + record->headers[i].value.len;
    }
    return bytes;
}

static void copy_record(struct sl_job *job, const struct sl_record *record, char *behind)
{
    struct sl_kafka_header *headers = (struct sl_kafka_header *)(void *)behind;
    char *at = behind + record->header_count * sizeof(*headers);
    job->record = *record;
    job->record.headers = headers;
    job->record.key = put_span(&at, record->key);
    job->record.value = put_span(&at, record->value);
    for (size_t i = 0; i < record->header_count; i++) {
        headers[i].name = put_span(&at, record->headers[i].name);
        headers[i].value = put_span(&at, record->headers[i].value);
    }
}

static void init_work(struct sl_job *job)
{
    sl_arena_init(&job->arena, job->input->bulk ? BULK_ARENA_MAX : QUERY_ARENA_MAX);
    sl_buf_init(&job->bytes, BYTES_MAX);
    sl_buf_init(&job->early, BYTES_MAX);
    sl_buf_init(&job->partial_text, BYTES_MAX);
}

struct sl_job *job_create(struct sl_worker *worker, const struct sl_record *record,
                          const struct sl_position *position, const char *key)
{
    size_t state_at = aligned(sizeof(struct sl_job));
    size_t record_at = state_at + aligned(worker->stage->state_size);
    size_t size = record_at + record->header_count * sizeof(*record->headers) + bytes_of(record);
    struct sl_job *job = malloc(size);
    if (job == NULL) {
        return NULL;
    }
    memset(job, 0, record_at);
    job->worker = worker;
    job->size = size;
    job->input = &worker->stage->inputs[position->topic];
    job->state_data = (char *)job + state_at;
    job->taken_us = sl_clock_now_us();
    sl_list_init(&job->in_sending);
    sl_list_init(&job->in_suspects);
    init_work(job);
    copy_record(job, record, (char *)job + record_at);
    job->record.topic = worker->topic_names[position->topic];
    job->first_position = *position;
    job->positions = &job->first_position;
    job->position_count = job->position_cap = 1;
    snprintf(job->key, sizeof(job->key), "%s", key);
    job->id = sl_span_of(job->key + 1);
    sl_map_add(&worker->jobs, &job->by_key, sl_span_of(job->key));
    job->state = JOB_ADMITTING;
    sl_list_push(&worker->states[JOB_ADMITTING], &job->in_state);
    worker->counts[JOB_ADMITTING]++;
    return job;
}

/* Those of assignments that are over are of no use any more. */
static void drop_old_positions(struct sl_job *job)
{
    size_t kept = 0;
    for (size_t i = 0; i < job->position_count; i++) {
        if (sl_consumer_owns(job->worker->consumer, &job->positions[i])) {
            job->positions[kept++] = job->positions[i];
        }
    }
    job->position_count = kept;
}

int job_add_position(struct sl_job *job, const struct sl_position *position)
{
    if (job->position_count == job->position_cap) {
        drop_old_positions(job);
    }
    if (job->position_count == job->position_cap) {
        size_t cap = job->position_cap * 2;
        struct sl_position *positions = malloc(cap * sizeof(*positions));
        if (positions == NULL) {
            return -SL_ENOMEM;
        }
        memcpy(positions, job->positions, job->position_count * sizeof(*positions));
        if (job->positions != &job->first_position) {
            free(job->positions);
        }
        job->positions = positions;
        job->position_cap = cap;
    }
    job->positions[job->position_count++] = *position;
    return 0;
}

/* --- states --- */

static bool waits_without_slot(enum job_state state)
{
    return state == JOB_PARKED || state == JOB_UNPARKED;
}

/* Adds the job to what its state counts, or takes it out (sign -1). */
static void count_state(struct sl_job *job, int sign)
{
    struct sl_worker *worker = job->worker;
    uint32_t class = class_of(job);
    worker->counts[job->state] += (size_t)sign;
    worker->unparked[class] += job->state == JOB_UNPARKED ? (size_t)sign : 0;
    if (waits_without_slot(job->state)) {
        worker->parked_bytes[class] += (size_t)sign * job->size;
    }
}

void job_set_state(struct sl_job *job, enum job_state state)
{
    static const bool legal[JOB_STATES][JOB_STATES] = {
        [JOB_ADMITTING] = {[JOB_PARKED] = true, [JOB_RUNNING] = true, [JOB_SETTLING] = true},
        [JOB_PARKED] = {[JOB_UNPARKED] = true},
        [JOB_UNPARKED] = {[JOB_ADMITTING] = true},
        [JOB_RUNNING] = {[JOB_ADMITTING] = true, [JOB_SETTLING] = true},
        [JOB_SETTLING] = {[JOB_ADMITTING] = true}, /* It begins anew. */
    };
    assert(legal[job->state][state]);
    sl_list_remove(&job->in_state);
    count_state(job, -1);
    job->state = state;
    sl_list_push(&job->worker->states[state], &job->in_state);
    count_state(job, 1);
    if (state == JOB_PARKED || state == JOB_ADMITTING) {
        suspects_remove(job); /* Whether it is one is for the next admission to say. */
    }
    suspects_review(job->worker);
}

void job_free_slot(struct sl_job *job)
{
    if (job->has_slot) {
        job->has_slot = false;
        job->worker->slots_used[class_of(job)]--;
        sl_task_defer(job->worker->loop, &job->worker->unpark, intake_unpark);
        if (job->worker->consumer != NULL) {
            sl_consumer_kick(job->worker->consumer);
        }
    }
}

/* --- going on, beginning anew --- */

void job_forget(struct sl_job *job)
{
    uint32_t queue_ms = job->time.queue_ms;
    assert(settle_quiet(job));
    job_release_permits(job);
    job_unprepare(job);
    sl_admit_withdraw(job->worker->coord, &job->admission);
    job->admission = (struct sl_admission){0};
    sl_arena_fini(&job->arena);
    sl_buf_fini(&job->bytes);
    sl_buf_fini(&job->early);
    sl_buf_fini(&job->partial_text);
    init_work(job);
    job->query = NULL;
    job->document = NULL;
    job->batch = NULL;
    job->ended = NULL;
    job->fault_err = 0;
    job->early_seen = job->early_seen || job->seq > 0;
    job->seq = 0;
    job->delivery_err = 0;
    job->partial = (struct sl_result){0};
    job->result = (struct sl_result){0};
    job->step = SETTLE_NONE;
    job->outbox_count = 0;
    job->packed = job->is_ending = job->is_dead = false;
    job->granted_us = job->sent_us = job->acked_us = 0;
    job->decode_us = job->encode_us = 0;
    job->time = (struct sl_stage_time){.queue_ms = queue_ms};
    memset(job->state_data, 0, job->worker->stage->state_size);
}

static void begin_anew(struct sl_job *job)
{
    struct sl_worker *worker = job->worker;
    job->restarting = false;
    if (worker->draining) {
        job_abandon(job);
        return;
    }
    job_forget(job);
    job_set_state(job, JOB_ADMITTING);
    if (intake_decode(job) == 0) {
        job_admit(job);
    } else { /* The same bytes were decoded before. */
        worker_fail(worker, "out of memory: a job cannot be decoded again");
        job_abandon(job);
    }
}

static void on_next(struct sl_task *task)
{
    struct sl_job *job = SL_ITEM(task, struct sl_job, next);
    if (job->state == JOB_ADMITTING) {
        job_begin_unclaimed(job);
    } else if (!job->restarting) {
        settle_advance(job);
    } else if (settle_quiet(job)) {
        begin_anew(job);
    }
}

void job_next(struct sl_job *job)
{
    if (!job->worker->closing) {
        sl_task_defer(job->worker->loop, &job->next, on_next);
    }
}

void job_restart(struct sl_job *job)
{
    job->restarting = true;
    settle_stop_retries(job);
    job_next(job);
}

/* --- the end --- */

void job_abandon(struct sl_job *job)
{
    sl_claim_give_back(job->worker->coord, &job->admission);
    job_destroy(job);
}

void job_destroy(struct sl_job *job)
{
    struct sl_worker *worker = job->worker;
    assert(job->unacked == 0 && (worker->closing || settle_quiet(job)));
    job_release_permits(job);
    job_unprepare(job);
    sl_admit_withdraw(worker->coord, &job->admission);
    job_free_slot(job);
    sl_task_cancel(&job->next);
    sl_timer_stop(worker->loop, &job->deadline);
    settle_stop_retries(job);
    sl_map_remove(&worker->jobs, &job->by_key);
    sl_list_remove(&job->in_state);
    sl_list_remove(&job->in_sending);
    count_state(job, -1);
    suspects_remove(job);
    suspects_review(worker);
    sl_buf_fini(&job->bytes);
    sl_buf_fini(&job->early);
    sl_buf_fini(&job->partial_text);
    sl_arena_fini(&job->arena);
    if (job->positions != &job->first_position) {
        free(job->positions);
    }
    free(job);
    worker_job_gone(worker);
}
