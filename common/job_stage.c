/*
 * What stages see of a job, but for the sending, which is in settle.c.
 */
#include "common/worker_internal.h"

#include <assert.h>

enum { BULK_BUDGET_MS = 600000 };

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

const struct sl_ended *sl_job_result(struct sl_job *job)
{
    return job->ended;
}

int64_t sl_job_timestamp_ms(const struct sl_job *job)
{
    return job->record.timestamp_ms;
}

int32_t sl_job_partition(const struct sl_job *job)
{
    return job->record.partition;
}

int64_t sl_job_offset(const struct sl_job *job)
{
    return job->record.offset;
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

/* The partial result's texts are kept one behind the other; without memory for them there is none.
 */
void sl_job_partial(struct sl_job *job, const struct sl_result *partial)
{
    struct sl_buf *text = &job->partial_text;
    sl_buf_clear(text);
    sl_buf_append_span(text, partial->answer);
    sl_buf_append_span(text, partial->model);
    sl_buf_append_span(text, partial->finish_reason);
    bool whole = sl_buf_error(text) == 0;
    const char *at = text->data != NULL ? text->data : "";
    job->partial = *partial;
    job->partial.answer = (struct sl_span){at, whole ? partial->answer.len : 0};
    at += job->partial.answer.len;
    job->partial.model = (struct sl_span){at, whole ? partial->model.len : 0};
    at += job->partial.model.len;
    job->partial.finish_reason = (struct sl_span){at, whole ? partial->finish_reason.len : 0};
    job->partial.message = (struct sl_span){0};
    job->partial.stage = (struct sl_span){0};
}

void sl_job_forward(struct sl_job *job, const char *topic)
{
    job_leave_running(job);
    settle_forward(job, topic);
}

void sl_job_done(struct sl_job *job)
{
    job_leave_running(job);
    settle_bulk(job);
}

void sl_job_finish(struct sl_job *job, const struct sl_result *result)
{
    job_leave_running(job);
    settle_query(job, result);
}

void sl_job_fail(struct sl_job *job, enum sl_query_error code, const char *message)
{
    job_leave_running(job);
    job_end(job, code == SL_QERR_TIMEOUT ? SL_EXPIRED : SL_FAILED, code, message);
}
