/*
 * The producer. A record is handed to librdkafka with a small struct of ours as its opaque; the
 * broker's answer comes back as a delivery report on librdkafka's main queue, whose descriptor
 * wakes the loop. Reports are read to the end of the queue, a bounded number a turn, the rest in
 * the next turn by a deferred task: one burst of reports must not hold up everything else.
 *
 * The happy path is send, report, callback. What can go wrong:
 * - librdkafka's queue is full (100,000 records or 64 MiB without an answer): -SL_EAGAIN, and
 *   on_room after the next reports. Room exists only once a report's event has been destroyed.
 * - No answer within message.timeout.ms: the report says so, and the caller may send again.
 * - A fatal error (the idempotent producer was fenced, or lost its sequence): nothing can be sent
 *   any more, on_fatal fires once and the process ends.
 * - Destroyed with records unanswered: they are waited for, then purged, and their callbacks come
 *   with -SL_ETIMEDOUT. Every delivery is in a list until its report, so that each callback comes
 *   exactly once even if librdkafka gives no report.
 *
 * The first record to a topic waits for its metadata, for up to a second: topics are warmed, which
 * is no more than making librdkafka's topic handle, because that asks for the metadata.
 */
#include "common/kafka_internal.h"

#include "common/clock.h"
#include "common/log.h"
#include "common/map.h"

#include <assert.h>
#include <stdlib.h>

enum { REPORTS_A_TURN = 1024, PURGE_LIMIT_MS = 1000, POLL_MS = 100 };

/* Limits that producers and brokers share: documents of 24 MiB pass, the queue stays bounded. */
/* clang-format off */
static const char *const properties[] = {
    "acks", "all",
    "enable.idempotence", "true",
    "linger.ms", "0",
    "message.timeout.ms", "30000",
    "message.max.bytes", "26214400",
    "queue.buffering.max.messages", "100000",
    "queue.buffering.max.kbytes", "65536",
    "partitioner", "murmur2_random",
    NULL,
};
/* clang-format on */

struct sl_producer {
    struct sl_loop *loop;
    struct sl_kafka_client *client;
    rd_kafka_queue_t *queue;
    rd_kafka_event_t *event; /* The delivery event being read, across turns. */
    struct sl_task drain;
    struct sl_map topics;      /* By name, of struct topic. */
    struct sl_list deliveries; /* Sent with a callback, no report yet. */
    size_t queued;             /* Sent, no report yet. */
    void (*on_fatal)(void *ctx, const char *why);
    void *fatal_ctx;
    void (*on_room)(void *ctx);
    void *room_ctx;
    bool full;  /* -SL_EAGAIN was returned since on_room last fired. */
    bool freed; /* Reports were given back in this turn, and with them their room. */
    bool fatal;
    bool closing;
};

struct topic {
    struct sl_map_node node;
    rd_kafka_topic_t *rkt;
    char name[];
};

struct delivery {
    struct sl_list node;
    sl_delivery_cb *cb;
    void *ctx;
};

/* --- reports --- */

static void finish_delivery(struct delivery *delivery, int err, int32_t partition, int64_t offset)
{
    sl_list_remove(&delivery->node);
    sl_delivery_cb *cb = delivery->cb;
    void *ctx = delivery->ctx;
    free(delivery);
    cb(ctx, err, partition, offset);
}

static void on_report(struct sl_producer *producer, const rd_kafka_message_t *message)
{
    assert(producer->queued > 0);
    producer->queued--;
    if (message->_private == NULL) {
        return;
    }
    int err = sl_kafka_map_error(message->err);
    finish_delivery(message->_private, err, message->partition, err == 0 ? message->offset : -1);
}

static void on_error_event(struct sl_producer *producer, rd_kafka_event_t *event)
{
    rd_kafka_resp_err_t err = rd_kafka_event_error(event);
    if (!sl_kafka_event_is_fatal(event)) {
        if (!sl_kafka_error_is_transient(err)) {
            sl_log(SL_LOG_WARN, "kafka producer",
                   SL_STR("error", rd_kafka_event_error_string(event)));
        }
        return;
    }
    if (!producer->fatal) {
        char text[256] = "";
        rd_kafka_fatal_error(producer->client->rk, text, sizeof(text));
        producer->fatal = true;
        producer->on_fatal(producer->fatal_ctx,
                           text[0] != '\0' ? text : rd_kafka_event_error_string(event));
    }
}

/* Reads at most `limit` reports, waiting for the first for at most timeout_ms; how many it read,
 * other events counted too. */
static unsigned read_reports(struct sl_producer *producer, unsigned limit, int timeout_ms)
{
    unsigned count = 0;
    while (count < limit) {
        if (producer->event == NULL) {
            producer->event = rd_kafka_queue_poll(producer->queue, count == 0 ? timeout_ms : 0);
        }
        if (producer->event == NULL) {
            break;
        }
        const rd_kafka_message_t *message = NULL;
        if (rd_kafka_event_type(producer->event) == RD_KAFKA_EVENT_DR) {
            message = rd_kafka_event_message_next(producer->event);
        } else if (rd_kafka_event_type(producer->event) == RD_KAFKA_EVENT_ERROR) {
            on_error_event(producer, producer->event);
        }
        count++;
        if (message != NULL) {
            on_report(producer, message);
        } else {
            rd_kafka_event_destroy(producer->event);
            producer->event = NULL;
            producer->freed = true;
        }
    }
    return count;
}

static void on_drain(struct sl_task *task)
{
    struct sl_producer *producer = SL_ITEM(task, struct sl_producer, drain);
    producer->freed = false;
    unsigned count = read_reports(producer, REPORTS_A_TURN, 0);
    if (count == REPORTS_A_TURN) {
        sl_task_defer(producer->loop, &producer->drain, on_drain);
    }
    if (producer->full && producer->freed) {
        producer->full = false;
        if (producer->on_room != NULL) {
            producer->on_room(producer->room_ctx);
        }
    }
}

static void on_wake(void *ctx, int events)
{
    struct sl_producer *producer = ctx;
    (void)events;
    sl_kafka_wake_clear(producer->client);
    sl_task_cancel(&producer->drain);
    on_drain(&producer->drain);
}

/* --- topics --- */

static rd_kafka_topic_t *topic_of(struct sl_producer *producer, const char *name)
{
    struct sl_map_node *node = sl_map_find(&producer->topics, sl_span_of(name));
    if (node != NULL) {
        return SL_ITEM(node, struct topic, node)->rkt;
    }
    size_t size = strlen(name) + 1;
    struct topic *topic = malloc(sizeof(*topic) + size);
    if (topic == NULL) {
        return NULL;
    }
    memcpy(topic->name, name, size);
    topic->rkt = rd_kafka_topic_new(producer->client->rk, name, NULL);
    if (topic->rkt == NULL) {
        free(topic);
        return NULL;
    }
    sl_map_add(&producer->topics, &topic->node, sl_span_of(topic->name));
    return topic->rkt;
}

static void free_topics(struct sl_producer *producer)
{
    struct sl_map_node *node = sl_map_next(&producer->topics, NULL);
    while (node != NULL) {
        struct topic *topic = SL_ITEM(node, struct topic, node);
        node = sl_map_next(&producer->topics, node);
        sl_map_remove(&producer->topics, &topic->node);
        rd_kafka_topic_destroy(topic->rkt);
        free(topic);
    }
    sl_map_fini(&producer->topics);
}

void sl_producer_warm(struct sl_producer *producer, const char *topic)
{
    if (topic_of(producer, topic) == NULL) {
        sl_log(SL_LOG_WARN, "a topic cannot be warmed", SL_STR("topic", topic));
    }
}

/* --- sending --- */

static int make_headers(const struct sl_outgoing *outgoing, rd_kafka_headers_t **ret)
{
    rd_kafka_headers_t *headers = rd_kafka_headers_new(outgoing->header_count);
    if (headers == NULL) {
        return -SL_ENOMEM;
    }
    for (size_t i = 0; i < outgoing->header_count; i++) {
        const struct sl_kafka_header *header = &outgoing->headers[i];
        if (rd_kafka_header_add(headers, header->name.data, (ssize_t)header->name.len,
                                header->value.data,
                                (ssize_t)header->value.len) != RD_KAFKA_RESP_ERR_NO_ERROR) {
            rd_kafka_headers_destroy(headers);
            return -SL_ENOMEM;
        }
    }
    *ret = headers;
    return 0;
}

static int produce(struct sl_producer *producer, rd_kafka_topic_t *rkt,
                   const struct sl_outgoing *outgoing, struct delivery *delivery)
{
    rd_kafka_headers_t *headers = NULL;
    int rc = make_headers(outgoing, &headers);
    if (rc != 0) {
        return rc;
    }
    rd_kafka_vu_t parts[] = {
        {.vtype = RD_KAFKA_VTYPE_RKT, .u.rkt = rkt},
        {.vtype = RD_KAFKA_VTYPE_PARTITION, .u.i32 = outgoing->partition},
        {.vtype = RD_KAFKA_VTYPE_KEY,
         .u.mem = {(void *)(uintptr_t)outgoing->key.data, outgoing->key.len}},
        {.vtype = RD_KAFKA_VTYPE_VALUE,
         .u.mem = {(void *)(uintptr_t)outgoing->value.data, outgoing->value.len}},
        {.vtype = RD_KAFKA_VTYPE_TIMESTAMP, .u.i64 = outgoing->timestamp_ms},
        {.vtype = RD_KAFKA_VTYPE_MSGFLAGS, .u.i = RD_KAFKA_MSG_F_COPY},
        {.vtype = RD_KAFKA_VTYPE_OPAQUE, .u.ptr = delivery},
        {.vtype = RD_KAFKA_VTYPE_HEADERS, .u.headers = headers}, /* Taken over, if it works. */
    };
    rd_kafka_error_t *error =
        rd_kafka_produceva(producer->client->rk, parts, sizeof(parts) / sizeof(parts[0]));
    if (error == NULL) {
        return 0;
    }
    rc = sl_kafka_map_error(rd_kafka_error_code(error));
    rd_kafka_error_destroy(error);
    rd_kafka_headers_destroy(headers);
    return rc;
}

int sl_producer_send(struct sl_producer *producer, const struct sl_outgoing *outgoing,
                     sl_delivery_cb *cb, void *ctx)
{
    if (producer->closing) {
        return -SL_ECLOSED;
    }
    rd_kafka_topic_t *rkt = topic_of(producer, outgoing->topic);
    if (rkt == NULL) {
        return -SL_ENOMEM;
    }
    struct delivery *delivery = NULL;
    if (cb != NULL) {
        delivery = malloc(sizeof(*delivery));
        if (delivery == NULL) {
            return -SL_ENOMEM;
        }
        delivery->cb = cb;
        delivery->ctx = ctx;
    }
    int rc = produce(producer, rkt, outgoing, delivery);
    if (rc != 0) {
        producer->full = producer->full || rc == -SL_EAGAIN;
        free(delivery);
        return rc;
    }
    if (delivery != NULL) {
        sl_list_push(&producer->deliveries, &delivery->node);
    }
    producer->queued++;
    return 0;
}

void sl_producer_on_room(struct sl_producer *producer, void (*on_room)(void *ctx), void *ctx)
{
    producer->on_room = on_room;
    producer->room_ctx = ctx;
}

size_t sl_producer_queued(const struct sl_producer *producer)
{
    return producer->queued;
}

/* --- life --- */

int sl_producer_create(struct sl_loop *loop, const struct sl_kafka_config *config,
                       void (*on_fatal)(void *ctx, const char *why), void *ctx,
                       struct sl_producer **ret, char *why, size_t why_size)
{
    struct sl_producer *producer = calloc(1, sizeof(*producer));
    if (producer == NULL || sl_map_init(&producer->topics) != 0) {
        sl_kafka_why(why, why_size, "%s", sl_error_text(-SL_ENOMEM));
        free(producer);
        return -SL_ENOMEM;
    }
    producer->loop = loop;
    producer->on_fatal = on_fatal;
    producer->fatal_ctx = ctx;
    sl_list_init(&producer->deliveries);
    int rc = sl_kafka_client_create(RD_KAFKA_PRODUCER, config, properties,
                                    RD_KAFKA_EVENT_DR | RD_KAFKA_EVENT_ERROR, &producer->client,
                                    why, why_size);
    if (rc != 0) {
        goto fail;
    }
    rc = sl_kafka_client_watch(producer->client, loop, on_wake, producer);
    if (rc != 0) {
        sl_kafka_why(why, why_size, "%s", sl_error_text(rc));
        goto fail;
    }
    producer->queue = rd_kafka_queue_get_main(producer->client->rk);
    sl_kafka_wake_by(producer->client, producer->queue);
    sl_task_defer(loop, &producer->drain, on_drain); /* What came before the wake-up was set. */
    *ret = producer;
    return 0;

fail:
    sl_kafka_client_destroy(producer->client, 0);
    sl_map_fini(&producer->topics);
    free(producer);
    return rc;
}

/* Reads reports until all have come or the time is over. */
static void await_reports(struct sl_producer *producer, uint32_t limit_ms)
{
    uint64_t until = sl_clock_now_ms() + limit_ms;
    while (producer->queued > 0) {
        uint64_t now = sl_clock_now_ms();
        if (now >= until) {
            break;
        }
        uint64_t left = until - now;
        read_reports(producer, REPORTS_A_TURN, left < POLL_MS ? (int)left : POLL_MS);
    }
}

void sl_producer_destroy(struct sl_producer *producer, uint32_t flush_ms)
{
    if (producer == NULL) {
        return;
    }
    producer->closing = true;
    sl_task_cancel(&producer->drain);
    await_reports(producer, flush_ms);
    if (producer->queued > 0) {
        sl_log(SL_LOG_WARN, "records are not acknowledged at the end",
               SL_INT("count", producer->queued));
        rd_kafka_purge(producer->client->rk, RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT);
        await_reports(producer, PURGE_LIMIT_MS);
    }
    struct sl_list *node;
    while ((node = sl_list_first(&producer->deliveries)) != NULL) {
        finish_delivery(SL_ITEM(node, struct delivery, node), -SL_ETIMEDOUT, -1, -1);
    }
    if (producer->event != NULL) {
        rd_kafka_event_destroy(producer->event);
    }
    rd_kafka_queue_destroy(producer->queue);
    free_topics(producer);
    sl_kafka_client_destroy(producer->client, 0);
    free(producer);
}
