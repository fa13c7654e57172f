/*
 * The group consumer: membership, rebalances, leaving, metrics. kafka_assignment.c holds what is
 * assigned.
 *
 * librdkafka's threads fetch ahead into one queue a partition and put everything else (rebalances,
 * errors) into the consumer's own queue. All these queues write to one descriptor when they become
 * non-empty. A wake-up serves the consumer's queue, then reads the partitions' queues as far as
 * there is room, at most 256 records a turn; the rest comes in the next turn. A kick after a slot
 * became free scans all partitions, because a queue that was left half read does not write again.
 * A timer of one second does the same whatever was heard: the consumer's queue must be polled even
 * if nothing comes, or librdkafka takes the process for stuck and leaves the group.
 *
 * Ends come in any order. Offsets that became committable in a turn are stored in one call at its
 * end; librdkafka commits what is stored each second and on a revoke.
 *
 * Rebalances are eager: a revoke takes all partitions, an assignment names all of them. On a revoke
 * what is finished is stored first, then epochs end, then librdkafka hears of it and commits. Lost
 * partitions (the group went on without us) take the same way; the store is refused, and the new
 * owner starts from the last commit.
 *
 * Leaving: reading stops, the close is started on a queue of its own that the same descriptor
 * tells, and on_left comes when librdkafka has left, or after five seconds in which it has not.
 */
#include "common/kafka_assignment.h"

#include "common/clock.h"
#include "common/log.h"
#include "common/metrics.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum { RECORDS_A_TURN = 256, EVENTS_A_TURN = 64, TICK_MS = 1000, LEAVE_LIMIT_MS = 5000 };

enum state { ACTIVE, LEAVING, LEFT };

struct topic_metrics {
    struct sl_gauge *lag;
    struct sl_gauge *in_flight;
    struct sl_gauge *assigned;
    struct sl_counter *full;
    uint64_t full_counted;
};

struct sl_consumer {
    struct sl_loop *loop;
    struct sl_consumer_config config; /* Its pointers are not kept, but the callbacks' ctx. */
    struct sl_kafka_client *client;
    rd_kafka_queue_t *queue; /* The consumer's own; while leaving, the closing queue. */
    struct sl_kafka_assignment assignment;
    struct topic_metrics *metrics; /* One a topic; NULL without metrics. */
    enum state state;
    bool joined;
    bool busy; /* A callback may be running: destroy must not be called. */
    struct sl_timer tick;
    struct sl_task scan;
    struct sl_task store;
    struct sl_task left;
    uint64_t leave_end_ms;
    void (*on_left)(void *ctx);
    void *left_ctx;
};

static void on_scan(struct sl_task *task);

/* --- events of the consumer's queue --- */

static void assign(struct sl_consumer *consumer, const rd_kafka_topic_partition_list_t *partitions)
{
    for (int i = 0; i < partitions->cnt; i++) {
        int rc = sl_kafka_assignment_add(&consumer->assignment, partitions->elems[i].topic,
                                         partitions->elems[i].partition);
        if (rc != 0) {
            consumer->config.on_error(consumer->config.ctx, true, sl_error_text(rc));
        }
    }
}

static void on_rebalance(struct sl_consumer *consumer, rd_kafka_event_t *event)
{
    const rd_kafka_topic_partition_list_t *partitions = rd_kafka_event_topic_partition_list(event);
    bool assigned = rd_kafka_event_error(event) == RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS &&
                    consumer->state == ACTIVE;
    sl_kafka_assignment_store(&consumer->assignment);
    sl_kafka_assignment_clear(&consumer->assignment);
    consumer->joined = assigned;
    if (assigned) {
        assign(consumer, partitions);
    }
    sl_log(SL_LOG_INFO, assigned ? "partitions assigned" : "partitions revoked",
           SL_INT("count", partitions != NULL ? partitions->cnt : 0),
           SL_INT("lost", rd_kafka_assignment_lost(consumer->client->rk)));
    rd_kafka_resp_err_t err = rd_kafka_assign(consumer->client->rk, assigned ? partitions : NULL);
    if (err != RD_KAFKA_RESP_ERR_NO_ERROR) {
        consumer->config.on_error(consumer->config.ctx, err == RD_KAFKA_RESP_ERR__FATAL,
                                  rd_kafka_err2str(err));
    }
}

static void on_error_event(struct sl_consumer *consumer, rd_kafka_event_t *event)
{
    rd_kafka_resp_err_t err = rd_kafka_event_error(event);
    if (sl_kafka_event_is_fatal(event)) {
        char text[256] = "";
        rd_kafka_fatal_error(consumer->client->rk, text, sizeof(text));
        consumer->config.on_error(consumer->config.ctx, true,
                                  text[0] != '\0' ? text : rd_kafka_event_error_string(event));
    } else if (!sl_kafka_error_is_transient(err)) {
        consumer->config.on_error(consumer->config.ctx, false, rd_kafka_event_error_string(event));
    }
}

static void on_event(struct sl_consumer *consumer, rd_kafka_event_t *event)
{
    switch (rd_kafka_event_type(event)) {
    case RD_KAFKA_EVENT_REBALANCE:
        on_rebalance(consumer, event);
        break;
    case RD_KAFKA_EVENT_ERROR:
        on_error_event(consumer, event);
        break;
    case RD_KAFKA_EVENT_FETCH: /* It would be committed past without having been seen. */
        consumer->config.on_error(consumer->config.ctx, true,
                                  "a record came outside its partition's queue");
        break;
    default:
        break;
    }
}

static void finish_leaving(struct sl_consumer *consumer);

/* The queue's events, a bounded number; true when there may be more. */
static bool serve_events(struct sl_consumer *consumer)
{
    unsigned count = 0;
    while (count < EVENTS_A_TURN) {
        rd_kafka_event_t *event = rd_kafka_queue_poll(consumer->queue, 0);
        if (event == NULL) {
            break;
        }
        on_event(consumer, event);
        rd_kafka_event_destroy(event);
        count++;
    }
    if (consumer->state == LEAVING && (rd_kafka_consumer_closed(consumer->client->rk) ||
                                       sl_clock_now_ms() >= consumer->leave_end_ms)) {
        finish_leaving(consumer);
    }
    return count == EVENTS_A_TURN;
}

static void serve(struct sl_consumer *consumer)
{
    consumer->busy = true;
    bool more = serve_events(consumer);
    more = sl_kafka_assignment_read(&consumer->assignment, RECORDS_A_TURN) || more;
    consumer->busy = false;
    if (more && consumer->state != LEFT) {
        sl_task_defer(consumer->loop, &consumer->scan, on_scan);
    }
}

static void on_scan(struct sl_task *task)
{
    serve(SL_ITEM(task, struct sl_consumer, scan));
}

static void on_wake(void *ctx, int events)
{
    struct sl_consumer *consumer = ctx;
    (void)events;
    sl_kafka_wake_clear(consumer->client);
    if (consumer->state != LEFT) {
        sl_kafka_assignment_look(&consumer->assignment, false);
        serve(consumer);
    }
}

/* --- metrics --- */

static void update_metrics(struct sl_consumer *consumer)
{
    for (size_t i = 0; consumer->metrics != NULL && i < consumer->assignment.topic_count; i++) {
        struct topic_metrics *metrics = &consumer->metrics[i];
        const struct sl_kafka_topic *topic = &consumer->assignment.topics[i];
        struct sl_kafka_load load = sl_kafka_assignment_load(&consumer->assignment, i);
        sl_gauge_set(metrics->lag, (double)load.lag);
        sl_gauge_set(metrics->in_flight, (double)load.in_flight);
        sl_gauge_set(metrics->assigned, (double)topic->assigned);
        sl_counter_add(metrics->full, topic->full_total - metrics->full_counted);
        metrics->full_counted = topic->full_total;
    }
}

static int make_topic_metrics(struct topic_metrics *ret, struct sl_metrics *metrics,
                              const char *topic)
{
    struct sl_buf labels;
    sl_buf_init(&labels, 1024);
    sl_buf_append_text(&labels, "topic=\"");
    sl_metrics_escape(&labels, sl_span_of(topic));
    sl_buf_append(&labels, "\"", 2); /* With the final zero. */
    int rc = sl_buf_error(&labels);
    if (rc == 0) {
        const char *text = labels.data;
        ret->lag = sl_metrics_gauge(metrics, "sluice_consumer_lag",
                                    "Records not finished, of the assigned partitions", text);
        ret->in_flight = sl_metrics_gauge(metrics, "sluice_window_in_flight",
                                          "Records taken and not finished", text);
        ret->assigned = sl_metrics_gauge(metrics, "sluice_assigned_partitions",
                                         "Partitions assigned to this process", text);
        ret->full = sl_metrics_counter(metrics, "sluice_window_full_total",
                                       "How often a partition waited for its oldest record", text);
    }
    sl_buf_fini(&labels);
    return rc;
}

static int make_metrics(struct sl_consumer *consumer)
{
    const struct sl_consumer_config *config = &consumer->config;
    if (config->metrics == NULL) {
        return 0;
    }
    consumer->metrics = calloc(config->topic_count, sizeof(*consumer->metrics));
    int rc = consumer->metrics != NULL ? 0 : -SL_ENOMEM;
    for (size_t i = 0; rc == 0 && i < config->topic_count; i++) {
        rc = make_topic_metrics(&consumer->metrics[i], config->metrics, config->topics[i].name);
    }
    return rc;
}

static void on_tick(struct sl_timer *timer)
{
    struct sl_consumer *consumer = SL_ITEM(timer, struct sl_consumer, tick);
    sl_timer_start(consumer->loop, timer, TICK_MS, on_tick);
    sl_kafka_assignment_look(&consumer->assignment, true);
    serve(consumer);
    update_metrics(consumer);
}

/* --- offsets --- */

static void on_store(struct sl_task *task)
{
    sl_kafka_assignment_store(&SL_ITEM(task, struct sl_consumer, store)->assignment);
}

void sl_consumer_kick(struct sl_consumer *consumer)
{
    if (consumer->state == ACTIVE) {
        sl_task_defer(consumer->loop, &consumer->scan, on_scan);
    }
}

void sl_consumer_end(struct sl_consumer *consumer, const struct sl_position *position)
{
    if (sl_kafka_assignment_end(&consumer->assignment, position)) {
        sl_task_defer(consumer->loop, &consumer->store, on_store);
    }
}

bool sl_consumer_owns(const struct sl_consumer *consumer, const struct sl_position *position)
{
    return sl_kafka_assignment_find(&consumer->assignment, position) != NULL;
}

size_t sl_consumer_assigned(const struct sl_consumer *consumer)
{
    return consumer->assignment.count;
}

bool sl_consumer_joined(const struct sl_consumer *consumer)
{
    return consumer->joined;
}

/* --- leaving --- */

static void on_left(struct sl_task *task)
{
    struct sl_consumer *consumer = SL_ITEM(task, struct sl_consumer, left);
    if (consumer->on_left != NULL) {
        consumer->on_left(consumer->left_ctx); /* May destroy the consumer. */
    }
}

static void finish_leaving(struct sl_consumer *consumer)
{
    if (!rd_kafka_consumer_closed(consumer->client->rk)) {
        sl_log(SL_LOG_WARN, "leaving the consumer group takes too long; going on without");
    }
    consumer->state = LEFT;
    sl_timer_stop(consumer->loop, &consumer->tick);
    sl_task_cancel(&consumer->scan);
    sl_kafka_assignment_clear(&consumer->assignment);
    update_metrics(consumer);
    sl_task_defer(consumer->loop, &consumer->left, on_left);
}

/* The queue that serves the close takes over what the consumer's own still holds. */
static bool start_closing(struct sl_consumer *consumer)
{
    rd_kafka_queue_t *closing = rd_kafka_queue_new(consumer->client->rk);
    rd_kafka_error_t *error = rd_kafka_consumer_close_queue(consumer->client->rk, closing);
    if (error != NULL) { /* After a fatal error there is nothing to close. */
        sl_log(SL_LOG_WARN, "cannot leave the consumer group",
               SL_STR("error", rd_kafka_error_string(error)));
        rd_kafka_error_destroy(error);
        rd_kafka_queue_destroy(closing);
        return false;
    }
    rd_kafka_queue_destroy(consumer->queue);
    consumer->queue = closing;
    sl_kafka_wake_by(consumer->client, closing);
    return true;
}

void sl_consumer_leave(struct sl_consumer *consumer, void (*callback)(void *ctx), void *ctx)
{
    assert(consumer->state == ACTIVE);
    consumer->on_left = callback;
    consumer->left_ctx = ctx;
    consumer->assignment.stopped = true;
    sl_kafka_assignment_store(&consumer->assignment);
    consumer->state = LEAVING;
    consumer->leave_end_ms = sl_clock_now_ms() + LEAVE_LIMIT_MS;
    if (!start_closing(consumer)) {
        consumer->leave_end_ms = 0;
    }
    sl_task_defer(consumer->loop, &consumer->scan, on_scan);
}

/* --- life --- */

static int subscribe(struct sl_consumer *consumer, char *why, size_t why_size)
{
    rd_kafka_t *rk = consumer->client->rk;
    rd_kafka_topic_partition_list_t *topics =
        rd_kafka_topic_partition_list_new((int)consumer->config.topic_count);
    for (size_t i = 0; i < consumer->config.topic_count; i++) {
        rd_kafka_topic_partition_list_add(topics, consumer->config.topics[i].name,
                                          RD_KAFKA_PARTITION_UA);
    }
    rd_kafka_resp_err_t err = rd_kafka_poll_set_consumer(rk);
    if (err == RD_KAFKA_RESP_ERR_NO_ERROR) {
        err = rd_kafka_subscribe(rk, topics);
    }
    rd_kafka_topic_partition_list_destroy(topics);
    if (err != RD_KAFKA_RESP_ERR_NO_ERROR) {
        sl_kafka_why(why, why_size, "%s", rd_kafka_err2str(err));
    }
    return sl_kafka_map_error(err);
}

static int make_client(struct sl_consumer *consumer, char *why, size_t why_size)
{
    const struct sl_consumer_config *config = &consumer->config;
    uint32_t fetch_queue_kb = 1;
    for (size_t i = 0; i < config->topic_count; i++) {
        if (config->topics[i].fetch_queue_kb > fetch_queue_kb) {
            fetch_queue_kb = config->topics[i].fetch_queue_kb;
        }
    }
    char fetch_queue[16];
    snprintf(fetch_queue, sizeof(fetch_queue), "%" PRIu32, fetch_queue_kb);
    /* fetch.wait.max.ms: a record is answered at once, but a partition that comes back to the fetch
     * after its queue was full waits for the request under way. */
    /* clang-format off */
    const char *const properties[] = {
        "group.id", config->group,
        "partition.assignment.strategy", "range",
        "enable.auto.offset.store", "false",
        "enable.auto.commit", "true",
        "auto.commit.interval.ms", "1000",
        "auto.offset.reset", "earliest",
        "session.timeout.ms", "10000",
        "heartbeat.interval.ms", "1000",
        "max.poll.interval.ms", "60000",
        "fetch.min.bytes", "1",
        "fetch.wait.max.ms", "250",
        "fetch.error.backoff.ms", "100",
        "?fetch.queue.backoff.ms", "100", /* Not in 2.0.2, which has no such wait. */
        "queued.max.messages.kbytes", fetch_queue,
        NULL,
    };
    /* clang-format on */
    return sl_kafka_client_create(RD_KAFKA_CONSUMER, &config->kafka, properties,
                                  RD_KAFKA_EVENT_REBALANCE | RD_KAFKA_EVENT_ERROR,
                                  &consumer->client, why, why_size);
}

static int start(struct sl_consumer *consumer, char *why, size_t why_size)
{
    int rc = make_client(consumer, why, why_size);
    if (rc != 0) {
        return rc;
    }
    rc = sl_kafka_assignment_init(&consumer->assignment, consumer->client, &consumer->config);
    if (rc == 0) {
        rc = make_metrics(consumer);
    }
    if (rc == 0) {
        rc = sl_kafka_client_watch(consumer->client, consumer->loop, on_wake, consumer);
    }
    if (rc != 0) {
        sl_kafka_why(why, why_size, "%s", sl_error_text(rc));
        return rc;
    }
    consumer->queue = rd_kafka_queue_get_consumer(consumer->client->rk);
    sl_kafka_wake_by(consumer->client, consumer->queue);
    return subscribe(consumer, why, why_size);
}

int sl_consumer_create(struct sl_loop *loop, const struct sl_consumer_config *config,
                       struct sl_consumer **ret, char *why, size_t why_size)
{
    struct sl_consumer *consumer = calloc(1, sizeof(*consumer));
    if (consumer == NULL) {
        sl_kafka_why(why, why_size, "%s", sl_error_text(-SL_ENOMEM));
        return -SL_ENOMEM;
    }
    consumer->loop = loop;
    consumer->config = *config;
    int rc = start(consumer, why, why_size);
    if (rc != 0) {
        sl_consumer_destroy(consumer);
        return rc;
    }
    consumer->config.topics = NULL;
    sl_timer_start(loop, &consumer->tick, TICK_MS, on_tick);
    sl_task_defer(loop, &consumer->scan, on_scan);
    *ret = consumer;
    return 0;
}

void sl_consumer_destroy(struct sl_consumer *consumer)
{
    if (consumer == NULL) {
        return;
    }
    assert(!consumer->busy);
    sl_timer_stop(consumer->loop, &consumer->tick);
    sl_task_cancel(&consumer->scan);
    sl_task_cancel(&consumer->store);
    sl_task_cancel(&consumer->left);
    consumer->config.on_partition = NULL; /* No callback comes from here. */
    sl_kafka_assignment_clear(&consumer->assignment);
    sl_kafka_assignment_fini(&consumer->assignment);
    if (consumer->queue != NULL) {
        rd_kafka_queue_destroy(consumer->queue);
    }
    /* Without a leave the group notices at the session time-out, as if the process had died. */
    bool closed = consumer->client != NULL && rd_kafka_consumer_closed(consumer->client->rk);
    sl_kafka_client_destroy(consumer->client, closed ? 0 : RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE);
    free(consumer->metrics);
    free(consumer);
}
