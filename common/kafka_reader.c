/*
 * A reader of one partition from an offset: a client of its own, assigned by hand. Nothing is ever
 * committed and no group is joined; librdkafka only wants a group's name for rd_kafka_assign.
 *
 * The partition's queue wakes the loop and is read to its end, 256 records a turn. Where reading
 * starts is known from the first thing that the queue brings: a record, or the end of the
 * partition, which librdkafka tells with its offset when a fetch finds nothing. The reader has
 * caught up at the first end, or at the high watermark that stood when the first record came: a
 * partition that is written without pause may never show its end.
 *
 * A callback may destroy the reader: it is then freed when the callback has returned.
 */
#include "common/kafka_internal.h"

#include <stdlib.h>

enum { RECORDS_A_TURN = 256, EVENTS_A_TURN = 64 };

struct sl_reader {
    struct sl_loop *loop;
    struct sl_kafka_client *client;
    rd_kafka_queue_t *events;  /* The consumer's own: errors. */
    rd_kafka_queue_t *records; /* The partition's. */
    struct sl_reader_callbacks callbacks;
    void *ctx;
    int64_t target; /* Caught up when the record before it came; -1: not known yet. */
    bool started;
    bool caught_up;
    bool busy;    /* In a callback. */
    bool closing; /* Destroyed by it. */
    struct sl_task scan;
};

static void on_scan(struct sl_task *task);

static void catch_up(struct sl_reader *reader)
{
    if (reader->caught_up || reader->closing) {
        return;
    }
    reader->caught_up = true;
    if (reader->callbacks.on_caught_up != NULL) {
        reader->callbacks.on_caught_up(reader->ctx);
    }
}

static void start_at(struct sl_reader *reader, const rd_kafka_message_t *message)
{
    if (reader->started) {
        return;
    }
    int64_t low = 0;
    reader->started = true;
    if (rd_kafka_get_watermark_offsets(reader->client->rk, rd_kafka_topic_name(message->rkt),
                                       message->partition, &low,
                                       &reader->target) != RD_KAFKA_RESP_ERR_NO_ERROR) {
        reader->target = -1;
    }
    if (reader->callbacks.on_started != NULL) {
        reader->callbacks.on_started(reader->ctx, message->offset);
    }
}

static void on_message(struct sl_reader *reader, const rd_kafka_message_t *message)
{
    if (message->err == RD_KAFKA_RESP_ERR__PARTITION_EOF) {
        start_at(reader, message);
        catch_up(reader);
        return;
    }
    if (message->err != RD_KAFKA_RESP_ERR_NO_ERROR) {
        if (!sl_kafka_error_is_transient(message->err)) {
            reader->callbacks.on_error(reader->ctx, false, rd_kafka_message_errstr(message));
        }
        return;
    }
    start_at(reader, message);
    if (reader->closing) {
        return;
    }
    struct sl_kafka_view view;
    sl_kafka_view_init(&view, message);
    reader->callbacks.on_record(reader->ctx, &view.record);
    if (reader->target >= 0 && message->offset + 1 >= reader->target) {
        catch_up(reader);
    }
}

static void on_error_event(struct sl_reader *reader, rd_kafka_event_t *event)
{
    if (sl_kafka_event_matters(event)) {
        reader->callbacks.on_error(reader->ctx, sl_kafka_event_is_fatal(event),
                                   rd_kafka_event_error_string(event));
    }
}

static bool read_events(struct sl_reader *reader)
{
    unsigned count = 0;
    while (count < EVENTS_A_TURN && !reader->closing) {
        rd_kafka_event_t *event = rd_kafka_queue_poll(reader->events, 0);
        if (event == NULL) {
            break;
        }
        if (rd_kafka_event_type(event) == RD_KAFKA_EVENT_ERROR) {
            on_error_event(reader, event);
        }
        rd_kafka_event_destroy(event);
        count++;
    }
    return count == EVENTS_A_TURN;
}

static bool read_records(struct sl_reader *reader)
{
    unsigned count = 0;
    while (count < RECORDS_A_TURN && !reader->closing) {
        rd_kafka_message_t *message = rd_kafka_consume_queue(reader->records, 0);
        if (message == NULL) {
            break;
        }
        on_message(reader, message);
        rd_kafka_message_destroy(message);
        count++;
    }
    return count == RECORDS_A_TURN;
}

static void serve(struct sl_reader *reader)
{
    reader->busy = true;
    bool more = read_events(reader);
    more = read_records(reader) || more;
    reader->busy = false;
    if (reader->closing) {
        sl_reader_destroy(reader);
    } else if (more) {
        sl_task_defer(reader->loop, &reader->scan, on_scan);
    }
}

static void on_scan(struct sl_task *task)
{
    serve(SL_ITEM(task, struct sl_reader, scan));
}

static void on_wake(void *ctx, int events)
{
    struct sl_reader *reader = ctx;
    (void)events;
    sl_kafka_wake_clear(reader->client);
    serve(reader);
}

/* --- life --- */

static int make_client(struct sl_reader *reader, const struct sl_kafka_config *config, char *why,
                       size_t why_size)
{
    /* clang-format off */
    static const char *const properties[] = {
        "group.id", "sluice.reader",
        "enable.auto.commit", "false",
        "enable.auto.offset.store", "false",
        "enable.partition.eof", "true",
        "auto.offset.reset", "earliest",
        "fetch.min.bytes", "1",
        "fetch.wait.max.ms", "250",
        "fetch.error.backoff.ms", "100",
        "?fetch.queue.backoff.ms", "100",
        "queued.max.messages.kbytes", "4096",
        NULL,
    };
    /* clang-format on */
    return sl_kafka_client_create(RD_KAFKA_CONSUMER, config, properties, RD_KAFKA_EVENT_ERROR,
                                  &reader->client, why, why_size);
}

static rd_kafka_resp_err_t assign(struct sl_reader *reader, const char *topic, int32_t partition,
                                  int64_t offset)
{
    rd_kafka_t *rk = reader->client->rk;
    rd_kafka_resp_err_t err = rd_kafka_poll_set_consumer(rk);
    if (err != RD_KAFKA_RESP_ERR_NO_ERROR) {
        return err;
    }
    reader->events = rd_kafka_queue_get_consumer(rk);
    reader->records = rd_kafka_queue_get_partition(rk, topic, partition);
    if (reader->events == NULL || reader->records == NULL) {
        return RD_KAFKA_RESP_ERR__CRIT_SYS_RESOURCE;
    }
    rd_kafka_queue_forward(reader->records, NULL);
    sl_kafka_wake_by(reader->client, reader->events);
    sl_kafka_wake_by(reader->client, reader->records);
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
    /* Asked for by its name the beginning takes librdkafka half a second, before it knows the
     * partition's leader. Offset 0 does not, and where it is gone the reset finds the earliest. */
    rd_kafka_topic_partition_list_add(list, topic, partition)->offset =
        offset == SL_OFFSET_END         ? RD_KAFKA_OFFSET_END
        : offset == SL_OFFSET_BEGINNING ? 0
                                        : offset;
    err = rd_kafka_assign(rk, list);
    rd_kafka_topic_partition_list_destroy(list);
    return err;
}

int sl_reader_create(struct sl_loop *loop, const struct sl_kafka_config *config, const char *topic,
                     int32_t partition, int64_t offset, const struct sl_reader_callbacks *callbacks,
                     void *ctx, struct sl_reader **ret, char *why, size_t why_size)
{
    struct sl_reader *reader = calloc(1, sizeof(*reader));
    if (reader == NULL) {
        sl_kafka_why(why, why_size, "%s", sl_error_text(-SL_ENOMEM));
        return -SL_ENOMEM;
    }
    reader->loop = loop;
    reader->callbacks = *callbacks;
    reader->ctx = ctx;
    reader->target = -1;
    int rc = make_client(reader, config, why, why_size);
    if (rc != 0) {
        goto fail;
    }
    rc = sl_kafka_client_watch(reader->client, loop, on_wake, reader);
    if (rc == 0) {
        rc = sl_kafka_map_error(assign(reader, topic, partition, offset));
    }
    if (rc != 0) {
        sl_kafka_why(why, why_size, "%s", sl_error_text(rc));
        goto fail;
    }
    sl_task_defer(loop, &reader->scan, on_scan); /* What came before the wake-up was set. */
    *ret = reader;
    return 0;

fail:
    sl_reader_destroy(reader);
    return rc;
}

void sl_reader_destroy(struct sl_reader *reader)
{
    if (reader == NULL) {
        return;
    }
    if (reader->busy) {
        reader->closing = true;
        return;
    }
    sl_task_cancel(&reader->scan);
    if (reader->records != NULL) {
        rd_kafka_queue_destroy(reader->records);
    }
    if (reader->events != NULL) {
        rd_kafka_queue_destroy(reader->events);
    }
    sl_kafka_client_destroy(reader->client, RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE);
    free(reader);
}
