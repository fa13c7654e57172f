/*
 * What a job sends, and how it ends. A job that no longer runs goes through these steps:
 *
 *   FLUSH  the stage's own records (deltas, batches) are acknowledged by the broker
 *   STORE  a query's ending is put in Redis, where the first one counts
 *   SEND   the outbox is acknowledged: the next stage's record, or the event and the result
 *   MARK   the claim is marked done
 *
 * and then its positions end. Which steps there are depends on how it ended: a forwarded query
 * skips STORE, bulk work has FLUSH and MARK, a dead letter SEND alone where there is no claim.
 *
 * A record of the outbox that is not delivered is sent again, with backoff, for as long as the
 * process lives: dropping it would lose a question. Deltas are different: one that failed fails its
 * attempt, since the stream may not have a hole, and what comes after it is an ending.
 */
#include "common/worker_internal.h"

#include "common/backoff.h"
#include "common/clock.h"
#include "common/log.h"

#include <assert.h>
#include <stdio.h>

enum { RETRY_BASE_MS = 100, RETRY_CAP_MS = 2000 };

static void finish_job(struct sl_job *job);
static void send_item(struct outbox_item *item);

/* Generation numbers its events by attempt; before it the attempt is 0. */
static bool generates(const struct sl_job *job)
{
    return job->worker->stage->index == SL_STAGE_COUNT - 1;
}

static uint32_t event_attempt(const struct sl_job *job)
{
    return generates(job) ? job->admission.attempt : 0;
}

/* --- what stages send while they run --- */

static void on_stage_record(void *ctx, int err, int32_t partition, int64_t offset)
{
    struct sl_job *job = ctx;
    (void)partition;
    (void)offset;
    job->unacked--;
    if (err != 0 && job->delivery_err == 0) {
        job->delivery_err = err;
        sl_log(SL_LOG_WARN, "a record of a job was not delivered", SL_SPANF("id", job->id),
               SL_ERR(err));
        if (job->state == JOB_RUNNING && !job->input->bulk) {
            job_stop(job);
            settle_query(job, &job->partial);
            return;
        }
    }
    job_maybe_restart(job);
    if (job->state == JOB_SETTLING && job->step == SETTLE_FLUSH) {
        settle_continue(job);
    }
}

static int send_counted(struct sl_job *job, const struct sl_outgoing *record)
{
    int rv = sl_producer_send(job->worker->producer, record, on_stage_record, job);
    if (rv == 0) {
        job->unacked++;
    } else if (rv == -SL_EAGAIN) {
        sl_list_remove(&job->in_blocked);
        sl_list_push(&job->worker->blocked, &job->in_blocked);
    }
    return rv;
}

/* Events before generation are single: they wait in the outbox and are sent until they arrive. */
static int emit_early(struct sl_job *job, const struct sl_outgoing *record)
{
    struct outbox_item *item = &job->outbox[job->outbox_count];
    assert(job->outbox_count == 0);
    snprintf(job->topics[0], TOPIC_MAX, "%s", record->topic);
    *item = (struct outbox_item){.job = job, .record = *record};
    item->record.topic = job->topics[0];
    job->outbox_count = 1;
    send_item(item);
    return 0;
}

int sl_job_emit(struct sl_job *job, struct sl_event *event)
{
    const struct sl_query *query = job->query;
    assert(job->state == JOB_RUNNING && query != NULL);
    if (query->reply_topic.len == 0) {
        return 0;
    }
    event->id = query->id;
    event->attempt = event_attempt(job);
    event->seq = job->seq;
    event->fence = job->admission.fence;
    sl_buf_clear(&job->early);
    sl_event_encode(event, query->json, &job->early);
    int rv = sl_buf_error(&job->early);
    if (rv != 0) {
        return rv;
    }
    char topic[TOPIC_MAX];
    snprintf(topic, sizeof(topic), SL_SPAN_FMT, SL_SPAN_ARG(query->reply_topic));
    struct sl_query about = {.id = query->id, .traceparent = query->traceparent};
    sl_route_write(&job->early_route, &about, query->json);
    struct sl_outgoing record = {.topic = topic,
                                 .partition = query->reply_partition,
                                 .key = query->id,
                                 .value = sl_buf_span(&job->early),
                                 .headers = job->early_route.headers,
                                 .header_count = job->early_route.count};
    rv = generates(job) ? send_counted(job, &record) : emit_early(job, &record);
    if (rv == 0) {
        job->seq++;
    }
    return rv;
}

int sl_job_send(struct sl_job *job, const char *topic, struct sl_span key, struct sl_span value)
{
    char name[TOPIC_MAX];
    assert(job->state == JOB_RUNNING);
    worker_topic(job->worker, topic, name);
    const struct sl_kafka_header type = {SL_SPAN("content-type"), SL_SPAN("application/msgpack")};
    struct sl_outgoing record = {.topic = name,
                                 .partition = -1,
                                 .key = key,
                                 .value = value,
                                 .headers = &type,
                                 .header_count = 1};
    return send_counted(job, &record);
}

/* --- the outbox --- */

static void on_retry_timer(struct sl_timer *timer)
{
    send_item(SL_ITEM(timer, struct outbox_item, retry));
}

static void on_given_up(struct sl_timer *timer)
{
    settle_continue(SL_ITEM(timer, struct outbox_item, retry)->job);
}

static void retry_later(struct outbox_item *item, int err)
{
    struct sl_job *job = item->job;
    struct sl_backoff backoff;
    sl_backoff_init(&backoff, RETRY_BASE_MS, RETRY_CAP_MS, sl_clock_now_us());
    backoff.tries = item->tries < 8 ? item->tries : 8;
    if (item->tries++ % 8 == 0) {
        sl_log(SL_LOG_WARN, "record not delivered, sending it again", SL_SPANF("id", job->id),
               SL_STR("topic", item->record.topic), SL_ERR(err));
    }
    sl_timer_start(job->worker->loop, &item->retry, sl_backoff_next_ms(&backoff), on_retry_timer);
}

/* It can never be delivered: a forwarded query fails instead, the rest is said and given up. */
static void give_up(struct outbox_item *item, int err)
{
    struct sl_job *job = item->job;
    sl_log(SL_LOG_ERROR, "record cannot be delivered", SL_SPANF("id", job->id),
           SL_STR("topic", item->record.topic), SL_INT("bytes", item->record.value.len),
           SL_ERR(err));
    item->done = true;
    if (job->state == JOB_SETTLING && job->step == SETTLE_SEND && !job->is_ending &&
        job->fault_err == 0 && job->query != NULL) {
        struct sl_result result = job->partial;
        result.outcome = SL_FAILED;
        result.code = SL_QERR_INTERNAL;
        result.message = SL_SPAN("the message for the next stage is too large for its topic");
        settle_query(job, &result);
    }
}

static void on_delivery(void *ctx, int err, int32_t partition, int64_t offset)
{
    struct outbox_item *item = ctx;
    (void)partition;
    (void)offset;
    item->pending = false;
    if (item->job->restarting) {
        job_maybe_restart(item->job);
        return;
    }
    if (err == -SL_ETOOBIG) {
        give_up(item, err);
    } else if (err != 0) {
        retry_later(item, err);
        return;
    }
    item->done = true;
    settle_continue(item->job);
}

static void send_item(struct outbox_item *item)
{
    struct sl_job *job = item->job;
    int rv = sl_producer_send(job->worker->producer, &item->record, on_delivery, item);
    if (rv == 0) {
        item->pending = true;
    } else if (rv == -SL_ETOOBIG) {
        sl_timer_start(job->worker->loop, &item->retry, 0, on_given_up);
        give_up(item, rv);
    } else {
        retry_later(item, rv);
    }
}

static bool outbox_done(const struct sl_job *job)
{
    for (size_t i = 0; i < job->outbox_count; i++) {
        if (!job->outbox[i].done) {
            return false;
        }
    }
    return true;
}

static void add_to_outbox(struct sl_job *job, const struct sl_outgoing *record)
{
    size_t i = job->outbox_count++;
    assert(i < OUTBOX_MAX);
    if (record->topic != job->topics[i]) {
        snprintf(job->topics[i], TOPIC_MAX, "%s", record->topic);
    }
    job->outbox[i] = (struct outbox_item){.job = job, .record = *record};
    job->outbox[i].record.topic = job->topics[i];
}

static void send_outbox(struct sl_job *job, size_t from)
{
    size_t count = job->outbox_count;
    job->step = SETTLE_SEND;
    for (size_t i = from; i < count && job->step == SETTLE_SEND; i++) {
        send_item(&job->outbox[i]);
    }
}

/* The producer has room again: the stage may go on. */
void settle_on_room(struct sl_job *job)
{
    if (job->state == JOB_RUNNING && job->on_room != NULL) {
        void (*on_room)(struct sl_job * job) = job->on_room;
        job->on_room = NULL;
        on_room(job);
    }
}

/* --- the ways to end --- */

static void note_time(struct sl_job *job)
{
    struct sl_worker *worker = job->worker;
    uint64_t now = sl_clock_now_us();
    if (job->granted_us != 0) {
        job->time.reached = true;
        job->time.work_ms = (uint32_t)((now - job->granted_us) / 1000);
        sl_histogram_observe(worker->parts[0], (double)job->time.queue_ms / 1000);
        sl_histogram_observe(worker->parts[1], (double)(job->granted_us - job->taken_us) / 1e6);
        sl_histogram_observe(worker->parts[2], (double)(now - job->granted_us) / 1e6);
    }
    if (job->query != NULL && worker->stage->index < SL_STAGE_COUNT) {
        job->query->stages[worker->stage->index] = job->time;
    }
}

static void enter_settling(struct sl_job *job)
{
    if (job->state != JOB_SETTLING) {
        note_time(job);
        job_set_state(job, JOB_SETTLING);
    }
    job->step = SETTLE_FLUSH;
}

void settle_forward(struct sl_job *job, const char *topic)
{
    char name[TOPIC_MAX];
    enter_settling(job);
    worker_topic(job->worker, topic, name);
    sl_buf_clear(&job->bytes);
    sl_query_encode(job->query, &job->bytes);
    if (sl_buf_error(&job->bytes) != 0) {
        struct sl_result result = {.outcome = SL_FAILED,
                                   .code = SL_QERR_INTERNAL,
                                   .message =
                                       SL_SPAN("the message for the next stage is too large")};
        settle_query(job, &result);
        return;
    }
    sl_route_write(&job->route, job->query, false);
    struct sl_outgoing record = {.topic = name,
                                 .partition = -1,
                                 .key = job->id,
                                 .value = sl_buf_span(&job->bytes),
                                 .headers = job->route.headers,
                                 .header_count = job->route.count};
    job_count(job, "done");
    size_t from = job->outbox_count;
    add_to_outbox(job, &record);
    send_outbox(job, from);
}

void settle_bulk(struct sl_job *job)
{
    enter_settling(job);
    settle_continue(job);
}

static struct sl_span keep_span(struct sl_job *job, struct sl_span span, const char *otherwise)
{
    struct sl_span copy = span.len > 0 ? sl_arena_copy(&job->arena, span) : span;
    return copy.data != NULL && copy.len > 0 ? copy : sl_span_of(otherwise);
}

void settle_query(struct sl_job *job, const struct sl_result *result)
{
    assert(job->query != NULL);
    job->result = *result;
    job->result.message = keep_span(job, result->message, "");
    job->result.answer = keep_span(job, result->answer, "");
    job->result.model = keep_span(job, result->model, "");
    job->result.finish_reason = keep_span(job, result->finish_reason, "");
    if (result->code != SL_QERR_NONE) {
        job->result.stage = keep_span(job, result->stage, job->worker->stage->name);
    }
    enter_settling(job);
    settle_continue(job);
}

static void put_ending_in_outbox(struct sl_job *job)
{
    struct sl_ending ending;
    struct sl_outgoing records[2];
    if (sl_ending_unpack(sl_buf_span(&job->bytes), &ending) != 0) {
        sl_log(SL_LOG_ERROR, "stored ending is not readable", SL_SPANF("id", job->id));
        return;
    }
    char reply[TOPIC_MAX];
    size_t count =
        sl_ending_records(&ending, job->worker->results_topic, &job->route, reply, records);
    for (size_t i = 0; i < count; i++) {
        add_to_outbox(job, &records[i]);
    }
    job->is_ending = true;
}

void settle_stored_ending(struct sl_job *job)
{
    enter_settling(job);
    put_ending_in_outbox(job);
    job_count(job, "moved");
    send_outbox(job, 0);
}

void settle_nothing(struct sl_job *job)
{
    enter_settling(job);
    job_count(job, "moved");
    finish_job(job);
}

/* --- dead letters --- */

static struct sl_span format_number(struct sl_job *job, long long value)
{
    char *text = sl_arena_printf(&job->arena, "%lld", value);
    return sl_span_of(text != NULL ? text : "");
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
        {SL_SPAN("sluice-attempt"), format_number(job, job->admission.attempt)},
    };
    size_t count = record->header_count, extra = sizeof(more) / sizeof(more[0]);
    struct sl_kafka_header *headers =
        sl_arena_alloc(&job->arena, (count + extra) * sizeof(*headers));
    if (headers == NULL) {
        *ret_count = 0;
        return NULL;
    }
    *ret_count = 0;
    for (size_t i = 0; i < count; i++) {
        if (!sl_span_is(record->headers[i].name, "sluice-attempt")) {
            headers[(*ret_count)++] = record->headers[i];
        }
    }
    memcpy(headers + *ret_count, more, sizeof(more));
    *ret_count += extra;
    return headers;
}

void settle_dead_letter(struct sl_job *job, int err, const char *message)
{
    size_t header_count;
    struct sl_kafka_header *headers = dead_headers(job, err, message, &header_count);
    char topic[TOPIC_MAX + 8];
    snprintf(topic, sizeof(topic), "%s.dlq", job->record.topic);
    topic[TOPIC_MAX - 1] = '\0';
    enter_settling(job);
    job->fault_err = err;
    sl_log(SL_LOG_WARN, "dead letter", SL_STR("topic", job->record.topic),
           SL_INT("partition", job->record.partition), SL_INT("offset", job->record.offset),
           SL_STR("why", message));
    worker_count_dead(job->worker, job->record.topic);
    job_count(job, "dead");
    struct sl_outgoing record = {.topic = topic,
                                 .partition = -1,
                                 .key = job->record.key,
                                 .value = job->record.value,
                                 .headers = headers,
                                 .header_count = header_count};
    size_t from = job->outbox_count;
    add_to_outbox(job, &record);
    send_outbox(job, from);
}

/* --- the steps --- */

static void finish_job(struct sl_job *job)
{
    for (size_t i = 0; i < job->position_count && job->worker->consumer != NULL; i++) {
        sl_consumer_end(job->worker->consumer, &job->positions[i]);
    }
    job_destroy(job);
}

static void on_marked(void *ctx, int err)
{
    (void)err; /* A claim that is no longer ours changes nothing: the output is out. */
    finish_job(ctx);
}

static void mark(struct sl_job *job)
{
    struct sl_coord *coord = job->worker->coord;
    job->step = SETTLE_MARK;
    job_free_slot(job);
    if (job->is_ending) {
        sl_claim_ended(coord, job->id);
    }
    if (job->admission.state == SL_ADMIT_GRANTED) {
        sl_claim_done(coord, &job->admission, on_marked, job);
    } else {
        finish_job(job);
    }
}

static void on_stored(void *ctx, int err)
{
    struct sl_job *job = ctx;
    static const char *const texts[] = {"done", "failed", "cancelled", "expired"};
    job->step = SETTLE_FLUSH;
    if (job->restarting || err == -SL_ELOST) {
        job->restarting = true;
        job_maybe_restart(job);
        return;
    }
    if (err == -SL_EEXIST) { /* Somebody else ended it, with an ending of their own. */
        job_count(job, "moved");
        mark(job);
        return;
    }
    if (err != 0) { /* Redis has been away for long; without it no ending is the only one. */
        sl_log(SL_LOG_WARN, "ending not stored, trying again", SL_SPANF("id", job->id),
               SL_ERR(err));
        settle_continue(job);
        return;
    }
    job_count(job, texts[job->result.outcome]);
    size_t from = job->outbox_count;
    put_ending_in_outbox(job);
    send_outbox(job, from);
}

static void store_ending(struct sl_job *job)
{
    struct sl_worker *worker = job->worker;
    if (job->delivery_err != 0) {
        job->result.outcome = SL_FAILED;
        job->result.code = SL_QERR_INTERNAL;
        job->result.message =
            SL_SPAN("a part of the answer could not be delivered to its reply topic");
        job->result.stage = sl_span_of(worker->stage->name);
    }
    /* Earlier attempts before generation may have sent their one event already. */
    uint32_t seq = !generates(job) && job->seq == 0 && job->admission.attempt > 1 &&
                           worker->stage->index == SL_STAGE_COUNT - 2
                       ? 1
                       : job->seq;
    sl_buf_clear(&job->bytes);
    sl_ending_pack(job->query, &job->result, event_attempt(job), seq, job->admission.fence,
                   sl_coord_now_ms(worker->coord), &job->bytes);
    int rv = sl_buf_error(&job->bytes);
    job->step = SETTLE_STORE;
    if (rv == 0) {
        rv = sl_claim_end(worker->coord, job->id, worker->stage->name, job->admission.fence,
                          sl_buf_span(&job->bytes), on_stored, job);
    }
    if (rv != 0) {
        sl_log(SL_LOG_ERROR, "ending not stored", SL_SPANF("id", job->id), SL_ERR(rv));
        settle_abandon(job); /* Out of memory: the record is redelivered to whoever comes next. */
    }
}

/* One step further, when what the current one waits for is there. */
void settle_continue(struct sl_job *job)
{
    if (job->state != JOB_SETTLING || job->restarting) {
        return;
    }
    if (job->step == SETTLE_FLUSH && job->unacked == 0 && outbox_done(job)) {
        if (job->query != NULL) {
            store_ending(job);
        } else if (job->delivery_err != 0) { /* Bulk work may repeat. */
            job->restarting = true;
            job_maybe_restart(job);
        } else {
            job_count(job, "done");
            mark(job);
        }
    } else if (job->step == SETTLE_SEND && job->unacked == 0 && outbox_done(job)) {
        mark(job);
    }
}

bool settle_quiet(struct sl_job *job)
{
    bool quiet = job->unacked == 0 && job->step != SETTLE_STORE;
    for (size_t i = 0; i < job->outbox_count; i++) {
        quiet = quiet && !job->outbox[i].pending;
    }
    for (size_t i = 0; i < job->outbox_count && quiet; i++) {
        sl_timer_stop(job->worker->loop, &job->outbox[i].retry);
    }
    return quiet;
}

void settle_abandon(struct sl_job *job)
{
    if (job->admission.state != SL_ADMIT_IDLE) {
        sl_admit_withdraw(job->worker->coord, &job->admission);
    }
    job_destroy(job);
}
