/*
 * How a job ends. A job that no longer runs goes through these steps:
 *
 *   FLUSH  the stage's own records (deltas, batches) are acknowledged by the broker
 *   STORE  a query's ending is put in Redis, where the first one counts
 *   SEND   the outbox is acknowledged: the next stage's record, or the event and the result
 *   MARK   the claim is marked done
 *
 * and then its positions end. Which steps there are depends on how it ended: a forwarded query
 * skips FLUSH and STORE, bulk work has FLUSH and MARK, a dead letter SEND alone where there is no
 * claim. What three workers died of has a dead letter besides, acknowledged in FLUSH: who finds the
 * query's ending stored does not write the letter.
 *
 * Somebody else may have ended the query: a gateway, or another worker. Whether that ending was
 * produced is for Redis to say, so the job is admitted anew and does what the verdict says.
 */
#include "common/worker_internal.h"

#include "common/clock.h"
#include "common/log.h"

#include <assert.h>
#include <stdio.h>

enum { STORE_AGAIN_MS = 2000, BULK_REPEATS = 3, ATTEMPT_MAX = 1000000 };

/* --- the ways to end --- */

static void enter_settling(struct sl_job *job, bool forwards)
{
    job_release_permits(job);
    if (job->state != JOB_SETTLING) {
        job->settled_us = sl_clock_now_us();
        if (job->granted_us != 0) {
            job->time.reached = true;
            job->time.work_ms = (uint32_t)((job->settled_us - job->granted_us) / 1000);
        }
        if (job->query != NULL && job->worker->stage->index < SL_STAGE_COUNT) {
            job->query->stages[job->worker->stage->index] = job->time;
        }
        job_set_state(job, JOB_SETTLING);
    }
    settle_send_early(job, forwards);
    job->step = SETTLE_FLUSH;
    job_next(job);
}

void settle_forward(struct sl_job *job, const char *topic)
{
    char name[TOPIC_MAX];
    enter_settling(job, true);
    worker_topic(job->worker, topic, name);
    sl_buf_clear(&job->bytes);
    sl_query_encode(job->query, &job->bytes);
    job->encode_us = sl_clock_now_us() - job->settled_us;
    if (sl_buf_error(&job->bytes) != 0) {
        job_end(job, SL_FAILED, SL_QERR_INTERNAL, "the message for the next stage is too large");
        return;
    }
    sl_route_write(&job->route, job->query, false);
    struct sl_outgoing record = {.topic = name,
                                 .partition = -1,
                                 .key = job->id,
                                 .value = sl_buf_span(&job->bytes),
                                 .headers = job->route.headers,
                                 .header_count = job->route.count};
    job->outcome = OUTCOME_done;
    settle_add(job, OUTBOX_FORWARD, &record);
    settle_send_outbox(job);
}

void settle_bulk(struct sl_job *job)
{
    assert(job->query == NULL);
    enter_settling(job, false);
    job->outcome = job->is_dead ? OUTCOME_dead : OUTCOME_done;
}

/* Copies, or says that it could not. */
static bool keep(struct sl_job *job, struct sl_span *span)
{
    *span = sl_arena_copy(&job->arena, *span);
    return span->data != NULL;
}

void settle_query(struct sl_job *job, const struct sl_result *result)
{
    assert(job->query != NULL);
    struct sl_result copy = *result;
    if (copy.code != SL_QERR_NONE && copy.stage.len == 0) {
        copy.stage = sl_span_of(job->worker->stage->name);
    }
    if (!keep(job, &copy.message) || !keep(job, &copy.answer) || !keep(job, &copy.model) ||
        !keep(job, &copy.finish_reason) || !keep(job, &copy.stage)) {
        copy = (struct sl_result){.outcome = SL_FAILED,
                                  .code = SL_QERR_INTERNAL,
                                  .message = SL_SPAN("out of memory"),
                                  .stage = sl_span_of(job->worker->stage->name)};
    }
    job->result = copy;
    job->packed = false;
    enter_settling(job, false);
}

static void put_ending_in_outbox(struct sl_job *job, const struct sl_ending *ending)
{
    struct sl_outgoing records[2];
    char reply[TOPIC_MAX];
    size_t count =
        sl_ending_records(ending, job->worker->results_topic, &job->route, reply, records);
    for (size_t i = 0; i < count; i++) {
        settle_add(job, i + 1 < count ? OUTBOX_EVENT : OUTBOX_RESULT, &records[i]);
    }
    job->is_ending = true;
}

/* Somebody else stored it, and died before it was out. */
void settle_stored_ending(struct sl_job *job, struct sl_span stored)
{
    struct sl_ending ending;
    sl_buf_clear(&job->bytes);
    sl_buf_append_span(&job->bytes, stored);
    int rv = sl_buf_error(&job->bytes);
    rv = rv != 0 ? rv : sl_ending_unpack(sl_buf_span(&job->bytes), &ending);
    if (rv == -SL_EVERSION) {
        worker_version_unknown(job->worker, &job->record);
        job_abandon(job);
    } else if (rv == -SL_ENOMEM) {
        worker_fail(job->worker, "out of memory: an ending cannot be produced");
        job_abandon(job);
    } else if (rv != 0) {
        settle_dead_letter(job, rv, "the query's stored ending is not readable");
    } else {
        enter_settling(job, false);
        put_ending_in_outbox(job, &ending);
        job->outcome = OUTCOME_moved;
        settle_send_outbox(job);
    }
}

void settle_nothing(struct sl_job *job)
{
    enter_settling(job, false);
    job->outcome = OUTCOME_moved;
    job->step = SETTLE_SEND;
}

/* --- dead letters --- */

static struct sl_span format_number(struct sl_job *job, long long value)
{
    char *text = sl_arena_printf(&job->arena, "%lld", value);
    return sl_span_of(text != NULL ? text : "");
}

/* A dead letter that was sent again says itself how often it was tried. */
static long long attempts_of(const struct sl_job *job)
{
    long long before = 0, now = job->admission.attempt;
    struct sl_span text = sl_record_header(&job->record, "sluice-attempt");
    return sl_span_to_int(text, 0, ATTEMPT_MAX, &before) == 0 && before > now ? before : now;
}

static struct sl_kafka_header *dead_headers(struct sl_job *job, int err, const char *message,
                                            size_t *ret_count)
{
    const struct sl_record *record = &job->record;
    const struct sl_kafka_header more[] = {
        {SL_SPAN("__connect.errors.topic"), sl_span_of(record->topic)},
        {SL_SPAN("__connect.errors.partition"), format_number(job, record->partition)},
        {SL_SPAN("__connect.errors.offset"), format_number(job, record->offset)},
        {SL_SPAN("__connect.errors.stage"), sl_span_of(job->worker->stage->name)},
        {SL_SPAN("__connect.errors.exception.class.name"), sl_span_of(sl_error_name(err))},
        {SL_SPAN("__connect.errors.exception.message"),
         sl_span_of(sl_arena_printf(&job->arena, "%s", message))},
        {SL_SPAN("sluice-attempt"), format_number(job, attempts_of(job))},
    };
    size_t count = record->header_count, extra = sizeof(more) / sizeof(more[0]);
    struct sl_kafka_header *headers =
        sl_arena_alloc(&job->arena, (count + extra) * sizeof(*headers));
    *ret_count = 0;
    if (headers == NULL) {
        return NULL;
    }
    for (size_t i = 0; i < count; i++) {
        if (!sl_span_is(record->headers[i].name, "sluice-attempt")) {
            headers[(*ret_count)++] = record->headers[i];
        }
    }
    memcpy(headers + *ret_count, more, sizeof(more));
    *ret_count += extra;
    return headers;
}

static struct outbox_item *add_dead_letter(struct sl_job *job, int err, const char *message)
{
    size_t header_count;
    struct sl_kafka_header *headers = dead_headers(job, err, message, &header_count);
    char topic[TOPIC_MAX + 8];
    snprintf(topic, sizeof(topic), "%s.dlq", job->record.topic);
    sl_log(SL_LOG_WARN, "dead letter", SL_SPANF("id", job->id), SL_STR("topic", job->record.topic),
           SL_INT("partition", job->record.partition), SL_INT("offset", job->record.offset),
           SL_STR("why", message));
    worker_count_dead(job->worker, job->record.topic);
    job->is_dead = true;
    struct sl_outgoing record = {.topic = topic,
                                 .partition = -1,
                                 .key = job->record.key,
                                 .value = job->record.value,
                                 .headers = headers,
                                 .header_count = header_count};
    return settle_add(job, OUTBOX_DEAD, &record);
}

void settle_dead_letter(struct sl_job *job, int err, const char *message)
{
    enter_settling(job, false);
    job->outcome = OUTCOME_dead;
    add_dead_letter(job, err, message);
    settle_send_outbox(job);
}

void settle_worn_out(struct sl_job *job, const char *why)
{
    const struct sl_result result = {
        .outcome = SL_FAILED, .code = SL_QERR_WORKER_LOST, .message = sl_span_of(why)};
    if (job->query != NULL) {
        settle_query(job, &result);
    }
    settle_send(add_dead_letter(job, -SL_ELOST, why));
}

/* --- the steps --- */

static void observe_us(struct sl_histogram *part, uint64_t us)
{
    sl_histogram_observe(part, (double)us / 1e6);
}

static void observe(struct sl_job *job)
{
    struct sl_worker *worker = job->worker;
    sl_counter_add(worker->outcomes[job->outcome], 1);
    if (job->granted_us != 0) {
        sl_histogram_observe(worker->parts[PART_queue], (double)job->time.queue_ms / 1000);
        observe_us(worker->parts[PART_wait], job->granted_us - job->taken_us);
        observe_us(worker->parts[PART_decode], job->decode_us);
        observe_us(worker->parts[PART_work], job->settled_us - job->granted_us);
    }
    if (job->granted_us != 0 && job->acked_us != 0) {
        observe_us(worker->parts[PART_encode], job->encode_us);
        observe_us(worker->parts[PART_ack], job->acked_us - job->sent_us);
        observe_us(worker->parts[PART_mark], sl_clock_now_us() - job->acked_us);
    }
}

static void finish_job(struct sl_job *job)
{
    observe(job);
    for (size_t i = 0; i < job->position_count; i++) {
        sl_consumer_end(job->worker->consumer, &job->positions[i]);
    }
    job_destroy(job);
}

static void on_marked(void *ctx, int err)
{
    struct sl_job *job = ctx;
    (void)err; /* A claim that is no longer ours changes nothing: the output is out. */
    job->step = SETTLE_NONE;
    finish_job(job);
}

static void tell_ended(struct sl_job *job)
{
    for (size_t i = 0; job->is_ending && i < job->outbox_count; i++) {
        const struct outbox_item *item = &job->outbox[i];
        if (item->kind == OUTBOX_RESULT) {
            sl_claim_ended(job->worker->coord, job->id, item->partition, item->offset);
        }
    }
}

static void mark(struct sl_job *job)
{
    struct sl_coord *coord = job->worker->coord;
    job->acked_us = job->sent_us != 0 ? sl_clock_now_us() : 0;
    job_free_slot(job);
    tell_ended(job);
    if (job->admission.state == SL_ADMIT_GRANTED) {
        job->step = SETTLE_MARK;
        sl_claim_done(coord, &job->admission, on_marked, job);
    } else {
        finish_job(job);
    }
}

void settle_leave(struct sl_job *job)
{
    struct sl_coord *coord = job->worker->coord;
    if (job->step != SETTLE_SEND || job->restarting || !settle_sent(job)) {
        job_abandon(job);
        return;
    }
    tell_ended(job);
    if (job->admission.state == SL_ADMIT_GRANTED) {
        sl_claim_done(coord, &job->admission, NULL, NULL);
    }
    finish_job(job);
}

/* Queries that only Kafka knows; a gateway measures its own. */
static void observe_answer(struct sl_job *job)
{
    const struct sl_query *query = job->query;
    int64_t total_ms = sl_coord_now_ms(job->worker->coord) - query->accepted_ms, work_ms = 0;
    if (job->worker->ttft == NULL || query->reply_topic.len > 0 || job->result.outcome != SL_DONE) {
        return;
    }
    for (size_t i = 0; i < SL_STAGE_COUNT; i++) {
        work_ms += query->stages[i].work_ms;
    }
    sl_histogram_observe(job->worker->ttft, (double)job->result.ttft_ms / 1000);
    sl_histogram_observe(job->worker->total, total_ms > 0 ? (double)total_ms / 1000 : 0);
    sl_histogram_observe(job->worker->overhead,
                         total_ms > work_ms ? (double)(total_ms - work_ms) / 1000 : 0);
}

static void on_again(struct sl_timer *timer)
{
    job_next(SL_ITEM(timer, struct sl_job, again));
}

static void on_stored(void *ctx, int err)
{
    struct sl_job *job = ctx;
    struct sl_ending ending;
    job->step = SETTLE_FLUSH;
    job_next(job);
    if (job->restarting) {
        return;
    }
    if (err == -SL_ELOST || err == -SL_EEXIST) {
        job_restart(job);
    } else if (err != 0) { /* Redis has been away for long; without it no ending is the only one. */
        sl_log(SL_LOG_WARN, "ending not stored, trying again", SL_SPANF("id", job->id),
               SL_ERR(err));
    } else {
        int rv = sl_ending_unpack(sl_buf_span(&job->bytes), &ending);
        assert(rv == 0); /* It was packed here. */
        (void)rv;
        observe_answer(job);
        job->outcome = (enum job_outcome)job->result.outcome;
        put_ending_in_outbox(job, &ending);
        settle_send_outbox(job);
    }
}

/* The number of its event. Before generation there is one other event, the sources, which an
 * earlier attempt may have sent. */
static uint32_t ending_seq(const struct sl_job *job)
{
    bool sends_sources = job->worker->stage->index == SL_STAGE_COUNT - 2;
    bool seen = sends_sources && (job->early_seen || job->admission.attempt > 1);
    return job->seq == 0 && seen ? 1 : job->seq;
}

static int pack_ending(struct sl_job *job)
{
    uint64_t began_us = sl_clock_now_us();
    sl_buf_clear(&job->bytes);
    sl_ending_pack(job->query, &job->result, settle_attempt(job), ending_seq(job),
                   job->admission.fence, sl_coord_now_ms(job->worker->coord), &job->bytes);
    job->encode_us = sl_clock_now_us() - began_us;
    return sl_buf_error(&job->bytes);
}

static void fail_result(struct sl_job *job, struct sl_span message)
{
    job->result.outcome = SL_FAILED;
    job->result.code = SL_QERR_INTERNAL;
    job->result.message = message;
    job->result.stage = sl_span_of(job->worker->stage->name);
}

/* Once: an answer that was lost may have stored it, and what is produced must be what is stored. */
static int make_ending(struct sl_job *job)
{
    if (job->packed) {
        return 0;
    }
    if (job->delivery_err != 0 && job->result.outcome == SL_DONE) {
        fail_result(job, SL_SPAN("a part of the answer could not be delivered to its reply topic"));
    }
    int rv = pack_ending(job);
    if (rv == -SL_ETOOBIG) { /* Whatever made it so large goes. */
        fail_result(job, SL_SPAN("the result is larger than its topic takes"));
        job->result.answer = (struct sl_span){0};
        job->query->hits_len = 0;
        rv = pack_ending(job);
    }
    job->packed = rv == 0;
    return rv;
}

static void store_ending(struct sl_job *job)
{
    struct sl_worker *worker = job->worker;
    int rv = make_ending(job);
    if (rv == 0) {
        rv = sl_claim_end(worker->coord, job->id, worker->stage->name, job->admission.fence,
                          sl_outcome_text(job->result.outcome), sl_buf_span(&job->bytes), on_stored,
                          job);
    }
    if (rv == 0) {
        job->step = SETTLE_STORE;
    } else { /* Out of memory, or Redis is away and too much waits for it. */
        sl_log(SL_LOG_WARN, "ending not stored, trying again", SL_SPANF("id", job->id), SL_ERR(rv));
        sl_timer_start(worker->loop, &job->again, STORE_AGAIN_MS, on_again);
    }
}

/* Bulk work may repeat. What the broker refuses again and again is at fault itself; a broker that
 * is away is not. */
static void repeat_bulk(struct sl_job *job)
{
    int err = job->delivery_err;
    bool refused = sl_error_class(err) != SL_CLASS_RETRY && job->repeats >= BULK_REPEATS;
    if (err == -SL_ETOOBIG || refused) {
        settle_dead_letter(job, err, "what it makes cannot be delivered");
    } else {
        job->repeats++;
        job_restart(job);
    }
}

static void after_flush(struct sl_job *job)
{
    if (job->query != NULL) {
        if (!sl_timer_active(&job->again)) {
            store_ending(job);
        }
    } else if (job->delivery_err != 0) {
        repeat_bulk(job);
    } else {
        mark(job);
    }
}

/* One step further, when what the current one waits for is there. May be the job's end. */
void settle_advance(struct sl_job *job)
{
    if (job->state != JOB_SETTLING || !settle_sent(job)) {
        return;
    }
    if (job->step == SETTLE_FLUSH) {
        after_flush(job);
    } else if (job->step == SETTLE_SEND) {
        mark(job);
    }
}
