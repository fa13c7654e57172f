/*
 * When the text of streams goes out: gathered for a few milliseconds, in bundles.
 *
 * A model sends each token by itself, and a worker has hundreds of streams. A record for each would
 * cost a request, an acknowledgement and three wake-ups; so a stage asks to be called when the next
 * flush is (sl_job_on_flush), and sends then what has come since. The flush is at the end of this
 * turn if the last one was some time ago: a stream by itself, and the first after a pause, wait for
 * nothing. What gateways are to get of several streams at one moment is one record (bundle.h).
 *
 * No more than four bundles are without an acknowledgement: librdkafka's idempotent producer keeps
 * five messages of a partition in flight, and with a sixth in its queue its thread does not sleep
 * until the broker answers (2.0.2: rd_kafka_toppar_producer_serve asks to be woken at once). What
 * comes meanwhile waits here, where it is joined, and goes with the next report.
 *
 * A bundle that the producer has no room for stays, and with it all later ones, so that the order
 * holds; those who want to send are told -SL_EAGAIN. Every job of a bundle counts it as a record of
 * its own that is not acknowledged, so none is gone while a bundle names it.
 */
#include "common/bundle.h"
#include "common/clock.h"
#include "common/worker_internal.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

enum { GATHER_MS = 10, BUNDLES_IN_FLIGHT = 4, BUNDLE_FULL = 128 << 10, BUNDLE_MAX = 24 << 20 };

struct bundle {
    struct sl_list node; /* In worker->bundles, until it is sent. */
    struct sl_worker *worker;
    char topic[TOPIC_MAX];
    int32_t partition;
    struct sl_buf bytes;
    struct sl_job **jobs; /* One for each event. */
    size_t count, cap;
};

static void plan(struct sl_worker *worker, bool now);

/* --- one bundle --- */

static void report(struct bundle *bundle, int err)
{
    for (size_t i = 0; i < bundle->count; i++) {
        settle_reported(bundle->jobs[i], err);
    }
    sl_list_remove(&bundle->node);
    sl_buf_fini(&bundle->bytes);
    free(bundle->jobs);
    free(bundle);
}

static void on_delivery(void *ctx, int err, int32_t partition, int64_t offset)
{
    struct bundle *bundle = ctx;
    struct sl_worker *worker = bundle->worker;
    (void)partition;
    (void)offset;
    worker->bundles_sent--;
    report(bundle, err);
    if (!sl_list_empty(&worker->gathered) || !sl_list_empty(&worker->bundles)) {
        plan(worker, !sl_list_empty(&worker->bundles));
    }
}

static int send(struct bundle *bundle)
{
    const struct sl_kafka_header type = {SL_SPAN("content-type"), SL_SPAN(SL_BUNDLE_TYPE)};
    const struct sl_outgoing record = {.topic = bundle->topic,
                                       .partition = bundle->partition,
                                       .value = sl_buf_span(&bundle->bytes),
                                       .headers = &type,
                                       .header_count = 1};
    int rv = sl_buf_error(&bundle->bytes);
    return rv != 0 ? rv : sl_producer_send(bundle->worker->producer, &record, on_delivery, bundle);
}

static void send_bundles(struct sl_worker *worker)
{
    struct sl_list *node;
    worker->bundles_blocked = false;
    while ((node = sl_list_first(&worker->bundles)) != NULL) {
        struct bundle *bundle = SL_ITEM(node, struct bundle, node);
        int rv = send(bundle);
        if (rv == -SL_EAGAIN) {
            worker->bundles_blocked = true;
            return;
        }
        if (rv != 0) {
            report(bundle, rv);
        } else {
            sl_list_remove(&bundle->node);
            sl_buf_fini(&bundle->bytes); /* The producer has a copy. */
            worker->bundles_sent++;
        }
    }
}

/* --- filling --- */

/* The one that is being filled for the query's gateway; NULL: no memory. */
static struct bundle *open_bundle(struct sl_worker *worker, const struct sl_query *query)
{
    SL_LIST_EACH(node, &worker->bundles)
    {
        struct bundle *bundle = SL_ITEM(node, struct bundle, node);
        if (bundle->partition == query->reply_partition && bundle->bytes.len < BUNDLE_FULL &&
            sl_span_is(query->reply_topic, bundle->topic)) {
            return bundle;
        }
    }
    struct bundle *bundle = calloc(1, sizeof(*bundle));
    if (bundle == NULL) {
        return NULL;
    }
    bundle->worker = worker;
    bundle->partition = query->reply_partition;
    snprintf(bundle->topic, TOPIC_MAX, SL_SPAN_FMT, SL_SPAN_ARG(query->reply_topic));
    sl_buf_init(&bundle->bytes, BUNDLE_MAX);
    sl_list_push(&worker->bundles, &bundle->node);
    return bundle;
}

static int add_job(struct bundle *bundle, struct sl_job *job)
{
    if (bundle->count == bundle->cap) {
        size_t cap = bundle->cap == 0 ? 16 : bundle->cap * 2;
        struct sl_job **jobs = realloc(bundle->jobs, cap * sizeof(struct sl_job *));
        if (jobs == NULL) {
            return -SL_ENOMEM;
        }
        bundle->jobs = jobs;
        bundle->cap = cap;
    }
    bundle->jobs[bundle->count++] = job;
    return 0;
}

int settle_bundle_add(struct sl_job *job, struct sl_span event)
{
    struct sl_worker *worker = job->worker;
    if (worker->bundles_blocked) {
        return -SL_EAGAIN;
    }
    struct bundle *bundle = open_bundle(worker, job->query);
    int rv = bundle != NULL ? add_job(bundle, job) : -SL_ENOMEM;
    if (rv == 0) {
        sl_bundle_add(&bundle->bytes, job->query->id, event);
        plan(worker, true);
    }
    return rv;
}

/* --- flushing --- */

static void flush(struct sl_worker *worker)
{
    if (worker->bundles_sent < BUNDLES_IN_FLIGHT && worker->producer != NULL) {
        sl_timer_stop(worker->loop, &worker->flush_timer);
        worker->flushed_ms = sl_clock_now_ms();
        settle_go_on(&worker->gathered);
        send_bundles(worker);
        sl_task_cancel(&worker->flush_task); /* They asked for what was just done. */
    }                                        /* Else the next report asks again. */
}

static void on_flush_task(struct sl_task *task)
{
    flush(SL_ITEM(task, struct sl_worker, flush_task));
}

static void on_flush_timer(struct sl_timer *timer)
{
    flush(SL_ITEM(timer, struct sl_worker, flush_timer));
}

/* The next flush: at the end of this turn, or when the last one is long enough ago. */
static void plan(struct sl_worker *worker, bool now)
{
    uint64_t since_ms = sl_clock_now_ms() - worker->flushed_ms;
    if (now || since_ms >= GATHER_MS) {
        sl_task_defer(worker->loop, &worker->flush_task, on_flush_task);
    } else if (!sl_timer_active(&worker->flush_timer)) {
        sl_timer_start(worker->loop, &worker->flush_timer, GATHER_MS - since_ms, on_flush_timer);
    }
}

void sl_job_on_flush(struct sl_job *job, void (*on_flush)(struct sl_job *job))
{
    assert(job_runs(job));
    job->on_room = on_flush;
    sl_list_remove(&job->in_sending);
    sl_list_push(&job->worker->gathered, &job->in_sending);
    plan(job->worker, false);
}

void settle_bundles_go_on(struct sl_worker *worker)
{
    if (worker->bundles_blocked) {
        send_bundles(worker);
    }
}

void settle_bundles_drop(struct sl_worker *worker)
{
    struct sl_list *node;
    while ((node = sl_list_first(&worker->bundles)) != NULL) {
        report(SL_ITEM(node, struct bundle, node), -SL_ECLOSED);
    }
}
