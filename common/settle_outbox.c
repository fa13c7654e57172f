/*
 * What a job sends: records of the stage's own while it runs, and the outbox.
 *
 * A record of the outbox that is not delivered is sent again, with backoff, for as long as the
 * process lives: dropping it would lose a question. The exceptions can never arrive: what is too
 * large for its topic, an event whose reply topic or partition does not exist, a forwarded query
 * whose deadline passed (then the query ends here instead). Deltas are different: one that failed
 * fails its attempt, since the stream may not have a hole, and what comes after it is an ending.
 */
#include "common/worker_internal.h"

#include "common/backoff.h"
#include "common/clock.h"
#include "common/log.h"

#include <assert.h>
#include <stdio.h>

enum { RETRY_BASE_MS = 100, RETRY_CAP_MS = 2000, REPLY_TRIES = 5, EARLY_DELAY_MS = 1 };

/* Generation numbers its events by attempt; before it the attempt is 0. */
static bool generates(const struct sl_job *job)
{
    return job->worker->stage->index == SL_STAGE_COUNT - 1;
}

uint32_t settle_attempt(const struct sl_job *job)
{
    return generates(job) ? job->admission.attempt : 0;
}

/* --- what stages send while they run --- */

void settle_reported(struct sl_job *job, int err)
{
    job->unacked--;
    if (err != 0 && job->delivery_err == 0) {
        job->delivery_err = err;
        sl_log(SL_LOG_WARN, "a record of a job was not delivered", SL_SPANF("id", job->id),
               SL_ERR(err));
        if (job_runs(job) && !job->input->bulk && !job->worker->closing) {
            job_end(job, SL_FAILED, SL_QERR_INTERNAL,
                    "a part of the answer could not be delivered to its reply topic");
        }
    }
    job_next(job);
}

static void on_stage_record(void *ctx, int err, int32_t partition, int64_t offset)
{
    (void)partition;
    (void)offset;
    settle_reported(ctx, err);
}

/* What sending came to: it is waited for, or for room. */
static int count_sent(struct sl_job *job, int rv)
{
    if (rv == 0) {
        job->unacked++;
    } else if (rv == -SL_EAGAIN) {
        sl_list_remove(&job->in_sending);
        sl_list_push(&job->worker->blocked, &job->in_sending);
    }
    return rv;
}

static int send_counted(struct sl_job *job, const struct sl_outgoing *record)
{
    return count_sent(job, sl_producer_send(job->worker->producer, record, on_stage_record, job));
}

struct outbox_item *settle_add(struct sl_job *job, enum outbox_kind kind,
                               const struct sl_outgoing *record)
{
    size_t i = job->outbox_count++;
    assert(i < OUTBOX_MAX);
    snprintf(job->topics[i], TOPIC_MAX, "%s", record->topic);
    job->outbox[i] = (struct outbox_item){
        .job = job, .kind = kind, .record = *record, .partition = -1, .offset = -1};
    job->outbox[i].record.topic = job->topics[i];
    return &job->outbox[i];
}

int sl_job_emit(struct sl_job *job, struct sl_event *event)
{
    const struct sl_query *query = job->query;
    assert(job_runs(job) && query != NULL);
    if (query->reply_topic.len == 0) {
        return 0;
    }
    /* Events before generation are single: they wait in the outbox and are sent until they arrive.
     */
    assert(generates(job) || job->outbox_count == 0);
    event->id = query->id;
    event->attempt = settle_attempt(job);
    event->seq = job->seq;
    event->fence = job->admission.fence;
    sl_buf_clear(&job->early);
    sl_event_encode(event, query->json, &job->early);
    int rv = sl_buf_error(&job->early);
    if (rv != 0) {
        return rv;
    }
    if (query->reply_bundles && event->type == SL_EVENT_DELTA) {
        rv = count_sent(job, settle_bundle_add(job, sl_buf_span(&job->early)));
        job->seq += rv == 0 ? 1 : 0;
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
    if (generates(job)) {
        rv = send_counted(job, &record);
    } else {
        settle_add(job, OUTBOX_EARLY, &record); /* Goes out when the job settles. */
    }
    job->seq += rv == 0 ? 1 : 0;
    return rv;
}

static int send_typed(struct sl_job *job, const char *topic, struct sl_span key,
                      struct sl_span value, struct sl_span content_type)
{
    char name[TOPIC_MAX];
    assert(job_runs(job));
    worker_topic(job->worker, topic, name);
    const struct sl_kafka_header type = {SL_SPAN("content-type"), content_type};
    struct sl_outgoing record = {.topic = name,
                                 .partition = -1,
                                 .key = key,
                                 .value = value,
                                 .headers = &type,
                                 .header_count = 1};
    return send_counted(job, &record);
}

int sl_job_send(struct sl_job *job, const char *topic, struct sl_span key, struct sl_span value)
{
    return send_typed(job, topic, key, value, SL_SPAN("application/msgpack"));
}

int sl_job_send_json(struct sl_job *job, const char *topic, struct sl_span key,
                     struct sl_span value)
{
    return send_typed(job, topic, key, value, SL_SPAN("application/json"));
}

void settle_go_on(struct sl_list *jobs)
{
    struct sl_list todo, *node;
    sl_list_init(&todo);
    while ((node = sl_list_first(jobs)) != NULL) {
        sl_list_remove(node);
        sl_list_push(&todo, node);
    }
    while ((node = sl_list_first(&todo)) != NULL) {
        struct sl_job *job = SL_ITEM(node, struct sl_job, in_sending);
        sl_list_remove(node);
        if (job_runs(job) && job->on_room != NULL) {
            void (*on_room)(struct sl_job * job) = job->on_room;
            job->on_room = NULL;
            on_room(job);
        }
    }
}

/* --- the outbox --- */

static uint32_t backoff_ms(uint32_t tries)
{
    struct sl_backoff backoff;
    sl_backoff_init(&backoff, RETRY_BASE_MS, RETRY_CAP_MS, sl_clock_now_us());
    backoff.tries = tries < 8 ? tries : 8;
    return sl_backoff_next_ms(&backoff);
}

static void on_retry_timer(struct sl_timer *timer)
{
    settle_send(SL_ITEM(timer, struct outbox_item, retry));
}

static void retry_later(struct outbox_item *item, int err)
{
    struct sl_job *job = item->job;
    if (item->tries++ % 8 == 0) {
        sl_log(SL_LOG_WARN, "record not delivered, sending it again", SL_SPANF("id", job->id),
               SL_STR("topic", item->record.topic), SL_ERR(err));
    }
    if (!job->worker->closing) {
        sl_timer_start(job->worker->loop, &item->retry, backoff_ms(item->tries), on_retry_timer);
    }
}

/* It can never be delivered, or it is too late for it. */
static void give_up(struct outbox_item *item, int err)
{
    struct sl_job *job = item->job;
    sl_log(SL_LOG_ERROR, "record cannot be delivered", SL_SPANF("id", job->id),
           SL_STR("topic", item->record.topic), SL_INT("bytes", item->record.value.len),
           SL_ERR(err));
    if (item->kind == OUTBOX_DEAD && item->record.value.len > 0) {
        item->record.value = (struct sl_span){0}; /* Where it came from is better than nothing. */
        retry_later(item, err);
        return;
    }
    item->done = true;
    if (item->kind == OUTBOX_FORWARD && err == -SL_ETOOBIG) {
        job_end(job, SL_FAILED, SL_QERR_INTERNAL,
                "the message for the next stage is too large for its topic");
    } else if (item->kind == OUTBOX_FORWARD) {
        job_end(job, SL_EXPIRED, SL_QERR_TIMEOUT,
                "the deadline passed before the next stage could be reached");
    }
    job_next(job);
}

static bool is_hopeless(const struct outbox_item *item, int err)
{
    switch (item->kind) {
    case OUTBOX_EARLY:
    case OUTBOX_EVENT: /* reply-to is the caller's word, and may name what does not exist. */
        return err == -SL_ETOOBIG || (err == -SL_ENOENT && item->tries >= REPLY_TRIES);
    case OUTBOX_FORWARD:
        return err == -SL_ETOOBIG || sl_job_remaining_ms(item->job) == 0;
    case OUTBOX_RESULT:
    case OUTBOX_DEAD:
        break;
    }
    return err == -SL_ETOOBIG;
}

static void on_not_sent(struct outbox_item *item, int err)
{
    if (is_hopeless(item, err) && !item->job->worker->closing) {
        give_up(item, err);
    } else {
        retry_later(item, err);
    }
}

static void on_delivery(void *ctx, int err, int32_t partition, int64_t offset)
{
    struct outbox_item *item = ctx;
    item->pending = false;
    item->done = err == 0;
    if (err == 0) {
        item->partition = partition;
        item->offset = offset;
    }
    if (err != 0 && !item->job->restarting) {
        on_not_sent(item, err);
    }
    job_next(item->job);
}

void settle_send(struct outbox_item *item)
{
    int rv = sl_producer_send(item->job->worker->producer, &item->record, on_delivery, item);
    if (rv == 0) {
        item->pending = true;
    } else {
        on_not_sent(item, rv);
    }
}

bool settle_sent(const struct sl_job *job)
{
    if (job->unacked > 0 || job->marking) {
        return false;
    }
    for (size_t i = 0; i < job->outbox_count; i++) {
        if (!job->outbox[i].done) {
            return false;
        }
    }
    return true;
}

/* The event before generation, while it is alone in the outbox. A broker takes one request after
 * the other of a connection, and the sources have until the first token, so the next stage's record
 * goes first. */
void settle_send_early(struct sl_job *job, bool forwards)
{
    struct outbox_item *item = &job->outbox[0];
    if (job->outbox_count == 0 || item->done || item->pending || sl_timer_active(&item->retry)) {
        return;
    }
    if (forwards) {
        sl_timer_start(job->worker->loop, &item->retry, EARLY_DELAY_MS, on_retry_timer);
    } else {
        settle_send(item);
    }
}

void settle_send_late(struct sl_job *job)
{
    struct outbox_item *item = &job->outbox[0];
    if (job->outbox_count > 0 && item->kind == OUTBOX_EARLY && !item->done && !item->pending) {
        sl_timer_stop(job->worker->loop, &item->retry);
        settle_send(item);
    }
}

void settle_send_outbox(struct sl_job *job)
{
    job->sent_us = job->sent_us != 0 ? job->sent_us : sl_clock_now_us();
    size_t count = job->outbox_count;
    job->step = SETTLE_SEND;
    for (size_t i = 0; i < count && job->step == SETTLE_SEND; i++) {
        struct outbox_item *item = &job->outbox[i];
        if (!item->done && !item->pending && !sl_timer_active(&item->retry)) {
            settle_send(item);
        }
    }
    job_next(job);
}

/* --- stopping --- */

void settle_stop_retries(struct sl_job *job)
{
    sl_timer_stop(job->worker->loop, &job->again);
    for (size_t i = 0; i < job->outbox_count; i++) {
        sl_timer_stop(job->worker->loop, &job->outbox[i].retry);
    }
}

bool settle_quiet(const struct sl_job *job)
{
    bool quiet =
        job->unacked == 0 && !job->marking && job->step != SETTLE_STORE && job->step != SETTLE_MARK;
    for (size_t i = 0; i < job->outbox_count; i++) {
        quiet = quiet && !job->outbox[i].pending;
    }
    return quiet;
}
