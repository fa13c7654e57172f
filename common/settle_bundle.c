/*
 * When the text of streams goes out: gathered for a few milliseconds, in bundles.
 *
 * A model sends each token by itself, and a worker has hundreds of streams. A record for each would
 * cost a request, an acknowledgement and three wake-ups; so a stage asks to be called when the next
 * flush is (sl_job_on_flush), and sends then what has come since. The flush is at the end of this
 * turn if the last one was some time ago: a stream by itself, and the first after a pause, wait for
 * nothing. What a gateway is to get of several streams at one moment is one record (bundle.h).
 *
 * No more than four bundles of a partition are without an acknowledgement: librdkafka's idempotent
 * producer keeps five messages of a partition in flight, and with a sixth in its queue its thread
 * does not sleep until the broker answers (2.0.2: rd_kafka_toppar_producer_serve asks to be woken
 * at once). What comes meanwhile waits here, where it is joined, and goes with the next report. A
 * partition that is away (its leader, or one that never was) so stops its own streams and no
 * others: each has a lane, which is there while it has bundles.
 *
 * A bundle that the producer has no room for stays, and with it all later ones, so that the order
 * holds; those who want to send are told -SL_EAGAIN. Every job of a bundle counts it as a record of
 * its own that is not acknowledged, so none is gone while a bundle names it. A bundle that fails
 * fails the attempts of all its jobs, so what is too large for small ones goes by itself.
 */
#include "common/bundle.h"
#include "common/clock.h"
#include "common/worker_internal.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

/* BUNDLE_MAX: one event of the largest size that jobs make, and its id; it fits into the topic's 24
 * MiB. */
enum {
    GATHER_MS = 8,
    BUNDLES_IN_FLIGHT = 4,
    BUNDLE_FULL = 128 << 10,
    BUNDLE_MAX = (23 << 20) + 1024,
};

/* A partition of replies. */
struct lane {
    struct sl_list node; /* In worker->lanes. */
    struct sl_worker *worker;
    char topic[TOPIC_MAX];
    int32_t partition;
    struct sl_list bundles; /* Not sent yet, in order; the last is being filled. */
    size_t sent;            /* Bundles that are not acknowledged yet. */
};

struct bundle {
    struct sl_list node; /* In lane->bundles, until it is sent. */
    struct lane *lane;
    struct sl_buf bytes;
    struct sl_job **jobs; /* One for each event. */
    size_t count, cap;
};

static void plan(struct sl_worker *worker, bool now);

/* --- lanes --- */

/* The lane of the query's gateway; NULL: it has nothing under way. */
static struct lane *find_lane(const struct sl_worker *worker, const struct sl_query *query)
{
    SL_LIST_EACH(node, &worker->lanes)
    {
        struct lane *lane = SL_ITEM(node, struct lane, node);
        if (lane->partition == query->reply_partition &&
            sl_span_is(query->reply_topic, lane->topic)) {
            return lane;
        }
    }
    return NULL;
}

static struct lane *create_lane(struct sl_worker *worker, const struct sl_query *query)
{
    struct lane *lane = calloc(1, sizeof(*lane));
    if (lane != NULL) {
        lane->worker = worker;
        lane->partition = query->reply_partition;
        snprintf(lane->topic, TOPIC_MAX, SL_SPAN_FMT, SL_SPAN_ARG(query->reply_topic));
        sl_list_init(&lane->bundles);
        sl_list_push(&worker->lanes, &lane->node);
    }
    return lane;
}

static void release_lane(struct lane *lane)
{
    if (sl_list_empty(&lane->bundles) && lane->sent == 0) {
        sl_list_remove(&lane->node);
        free(lane);
    }
}

static bool is_full(const struct lane *lane)
{
    return lane->sent >= BUNDLES_IN_FLIGHT;
}

/* --- sending --- */

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
    struct lane *lane = bundle->lane;
    struct sl_worker *worker = lane->worker;
    (void)partition;
    (void)offset;
    lane->sent--;
    report(bundle, err);
    while (err == -SL_ETIMEDOUT && !sl_list_empty(&lane->bundles)) { /* They would wait as long. */
        report(SL_ITEM(sl_list_first(&lane->bundles), struct bundle, node), err);
    }
    bool more = !sl_list_empty(&lane->bundles);
    release_lane(lane);
    if (more || !sl_list_empty(&worker->gathered)) {
        plan(worker, more);
    }
}

static int send(struct bundle *bundle)
{
    const struct lane *lane = bundle->lane;
    const struct sl_kafka_header type = {SL_SPAN("content-type"), SL_SPAN(SL_BUNDLE_TYPE)};
    const struct sl_outgoing record = {.topic = lane->topic,
                                       .partition = lane->partition,
                                       .value = sl_buf_span(&bundle->bytes),
                                       .headers = &type,
                                       .header_count = 1};
    return sl_producer_send(lane->worker->producer, &record, on_delivery, bundle);
}

/* False: the producer has no room. */
static bool send_lane(struct lane *lane)
{
    struct sl_list *node;
    while (!is_full(lane) && (node = sl_list_first(&lane->bundles)) != NULL) {
        struct bundle *bundle = SL_ITEM(node, struct bundle, node);
        int rv = send(bundle);
        if (rv == -SL_EAGAIN) {
            return false;
        }
        if (rv != 0) {
            report(bundle, rv);
        } else {
            sl_list_remove(&bundle->node);
            sl_buf_fini(&bundle->bytes); /* The producer has a copy. */
            lane->sent++;
        }
    }
    return true;
}

static void send_bundles(struct sl_worker *worker)
{
    worker->bundles_blocked = false;
    SL_LIST_EACH_SAFE(node, &worker->lanes)
    {
        struct lane *lane = SL_ITEM(node, struct lane, node);
        if (!send_lane(lane)) {
            worker->bundles_blocked = true;
            return;
        }
        release_lane(lane);
    }
}

/* --- filling --- */

/* The one to fill, which has room for so many bytes more, or none yet; NULL: no memory. Only the
 * last is filled, or a stream's events would overtake each other. */
static struct bundle *open_bundle(struct lane *lane, size_t len)
{
    struct sl_list *last = lane->bundles.prev;
    struct bundle *bundle = SL_ITEM(last, struct bundle, node);
    if (last != &lane->bundles && bundle->bytes.len + len <= BUNDLE_FULL) {
        return bundle;
    }
    bundle = calloc(1, sizeof(*bundle));
    if (bundle != NULL) {
        bundle->lane = lane;
        sl_buf_init(&bundle->bytes, BUNDLE_MAX);
        sl_list_push(&lane->bundles, &bundle->node);
    }
    return bundle;
}

/* Room for one job more, and so many bytes. */
static int make_room(struct bundle *bundle, size_t len)
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
    if (sl_buf_reserve(&bundle->bytes, len) == NULL) {
        int rv = bundle->bytes.err;
        bundle->bytes.err = 0; /* What the others have in it is whole. */
        return rv;
    }
    return 0;
}

static int add_event(struct lane *lane, struct sl_job *job, struct sl_span event)
{
    size_t len = sl_bundle_len(job->query->id, event);
    struct bundle *bundle = open_bundle(lane, len);
    int rv = bundle != NULL ? make_room(bundle, len) : -SL_ENOMEM;
    if (rv == 0) {
        sl_bundle_add(&bundle->bytes, job->query->id, event);
        bundle->jobs[bundle->count++] = job;
    } else if (bundle != NULL && bundle->count == 0) {
        report(bundle, rv);
    }
    return rv;
}

int settle_bundle_add(struct sl_job *job, struct sl_span event)
{
    struct sl_worker *worker = job->worker;
    if (worker->bundles_blocked) {
        return -SL_EAGAIN;
    }
    struct lane *lane = find_lane(worker, job->query);
    lane = lane != NULL ? lane : create_lane(worker, job->query);
    if (lane == NULL) {
        return -SL_ENOMEM;
    }
    int rv = add_event(lane, job, event);
    if (rv != 0) {
        release_lane(lane);
    } else if (!is_full(lane)) { /* Else the next report says when. */
        plan(worker, true);
    }
    return rv;
}

/* --- flushing --- */

/* Of those that are gathered, the ones that would only fill bundles that cannot go yet. */
static void hold_back(struct sl_worker *worker, struct sl_list *held)
{
    SL_LIST_EACH_SAFE(node, &worker->gathered)
    {
        const struct sl_query *query = SL_ITEM(node, struct sl_job, in_sending)->query;
        const struct lane *lane = query->reply_bundles ? find_lane(worker, query) : NULL;
        if (lane != NULL && is_full(lane)) {
            sl_list_remove(node);
            sl_list_push(held, node);
        }
    }
}

static void flush(struct sl_worker *worker)
{
    struct sl_list held, *node;
    if (worker->producer == NULL) {
        return;
    }
    sl_timer_stop(worker->loop, &worker->flush_timer);
    worker->flushed_ms = sl_clock_now_ms();
    sl_list_init(&held);
    hold_back(worker, &held);
    settle_go_on(&worker->gathered);
    send_bundles(worker);
    sl_task_cancel(&worker->flush_task);     /* They asked for what was just done. */
    if (!sl_list_empty(&worker->gathered)) { /* Again, by what came meanwhile. */
        plan(worker, false);
    }
    while ((node = sl_list_first(&held)) != NULL) { /* Until the next report of their lane. */
        sl_list_remove(node);
        sl_list_push(&worker->gathered, node);
    }
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
    assert(job_runs(job) && job->query != NULL);
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
    SL_LIST_EACH_SAFE(each, &worker->lanes)
    {
        struct lane *lane = SL_ITEM(each, struct lane, node);
        while ((node = sl_list_first(&lane->bundles)) != NULL) {
            report(SL_ITEM(node, struct bundle, node), -SL_ECLOSED);
        }
        release_lane(lane);
    }
}
