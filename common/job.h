/*
 * A job: one record on its way through a stage. Its states:
 *
 *   ADMITTING -> RUNNING -> SETTLING -> gone        (the way of most)
 *   ADMITTING -> PARKED -> ADMITTING                (another worker has it)
 *   ADMITTING -> SETTLING                           (ended, cancelled, expired: nothing to run)
 *   RUNNING   -> ADMITTING                          (the claim was lost)
 *
 * A stage sees jobs in RUNNING only and settles each with one call below. A position of the log is
 * ended only after what the job sent is acknowledged by the broker and its claim is marked.
 */
#ifndef SLUICE_COMMON_JOB_H
#define SLUICE_COMMON_JOB_H

#include "common/arena.h"
#include "common/codec.h"
#include "common/stage.h"

/* What came in; exactly one is set, in the job's arena. A stage may change the query as its output.
 */
struct sl_query *sl_job_query(struct sl_job *job);
struct sl_document *sl_job_document(struct sl_job *job);
struct sl_batch *sl_job_batch(struct sl_job *job);
const struct sl_ended *sl_job_result(struct sl_job *job);
int64_t sl_job_timestamp_ms(const struct sl_job *job); /* Of its record: when it was appended. */
int32_t sl_job_partition(const struct sl_job *job);    /* Likewise: where it stands. */
int64_t sl_job_offset(const struct sl_job *job);
const char *sl_job_input(const struct sl_job *job); /* The topic, without prefix. */

struct sl_worker *sl_job_worker(struct sl_job *job);
void *sl_job_state(struct sl_job *job); /* The stage's state_size bytes. */
struct sl_arena *sl_job_arena(struct sl_job *job);
struct sl_span sl_job_id(const struct sl_job *job);
uint32_t sl_job_attempt(const struct sl_job *job); /* From 1. */
bool sl_job_bulk(const struct sl_job *job);
int64_t sl_job_deadline_ms(const struct sl_job *job);  /* Redis's clock. */
int64_t sl_job_remaining_ms(const struct sl_job *job); /* 0 when it has passed. */
/* The permit of the stage's i-th limit, i < admission_permits; the call that uses it may be refused
 * it (state NONE) and then asks for it. on_lost is the job's: it aborts the job's calls by cancel.
 */
struct sl_permit *sl_job_permit(struct sl_job *job, size_t i);
/* Upstream calls made so far, for the stage's times. */
void sl_job_count_attempts(struct sl_job *job, uint32_t calls);

/* --- Sending while running --- */

/* Something is about to be sent of work that costs: ready comes when the claim says so, so that
 * nobody begins it again silently should this worker die. Once a job, before the first delta. Not 0
 * (-SL_ENOMEM, -SL_EAGAIN): ready does not come. */
int sl_job_stream(struct sl_job *job, void (*ready)(struct sl_job *job)) SL_CHECKED;
/* An event of the query's stream; type, text, query are the caller's, the rest is filled in. 0;
 * -SL_EAGAIN: stop reading the upstream until on_room (job state is kept), the event was not taken.
 * No reply topic: nothing is sent. Deliveries are watched: one that fails, fails the attempt. */
int sl_job_emit(struct sl_job *job, struct sl_event *event) SL_CHECKED;
/* on_room(job) comes when an emit or send that answered -SL_EAGAIN may be tried again. */
void sl_job_on_room(struct sl_job *job, void (*on_room)(struct sl_job *job));
/* flush(job) comes while the job runs: at the end of this turn, or within 10 ms together with that
 * of other jobs, whose records then share one request to the broker. Takes the place of on_room. */
void sl_job_on_flush(struct sl_job *job, void (*flush)(struct sl_job *job));
/* A record of the stage's own for another topic (without prefix), keyed by key. -SL_EAGAIN as
 * above. */
int sl_job_send(struct sl_job *job, const char *topic, struct sl_span key,
                struct sl_span value) SL_CHECKED;
/* The same with a value that is JSON. */
int sl_job_send_json(struct sl_job *job, const char *topic, struct sl_span key,
                     struct sl_span value) SL_CHECKED;

/* --- Settling: one of these, once --- */

/* The query goes on to the next stage's topic. */
void sl_job_forward(struct sl_job *job, const char *topic);
/* Bulk work is done: what was sent is waited for. */
void sl_job_done(struct sl_job *job);
/* The query ends well. result's spans are copied. */
void sl_job_finish(struct sl_job *job, const struct sl_result *result);
/* The job ends in an error: a query gets its error event and result; bulk work goes to the
 * dead-letter topic. message: one line for the caller, copied. */
void sl_job_fail(struct sl_job *job, enum sl_query_error code, const char *message);

/* What there is so far, should the query be cancelled, expire or fail now: answer, usage, model,
 * finish_reason, ttft are kept (copied) for its ending. */
void sl_job_partial(struct sl_job *job, const struct sl_result *partial);

#endif
