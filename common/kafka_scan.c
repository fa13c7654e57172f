/*
 * Reading a partition from end to end, for commands that look at all that a topic holds.
 *
 * A scan is one consumer that is assigned one partition after another by hand. Where to stop is
 * asked before reading starts, so that a topic which is written meanwhile still has an end. The
 * last offsets of a partition may hold no record (deleted ones, markers of transactions): the end
 * of the partition, which librdkafka tells with its offset, then counts as well.
 *
 * librdkafka repairs connections by itself; a scan waits for it, and gives up when nothing came for
 * the time-out. Errors that do not pass end the scan with the broker's words.
 */
#include "common/kafka_scan.h"

#include "common/clock.h"
#include "common/kafka_internal.h"

#include <stdlib.h>
#include <unistd.h>

enum { RETRY_US = 100000, TOPIC_NAME_MAX = 250 };

struct sl_scan {
    struct sl_kafka_client *client;
    int timeout_ms;
    char *why;
    size_t why_size;
    char topic[TOPIC_NAME_MAX];
    int32_t partition;
    int64_t next, end;           /* The offset to read next, and where to stop. */
    rd_kafka_message_t *message; /* The one that view shows. */
    struct sl_kafka_view view;
    struct sl_kafka_header *headers; /* In place of the view's, for a record that has more. */
};

static int fail(struct sl_scan *scan, rd_kafka_resp_err_t err)
{
    sl_kafka_why(scan->why, scan->why_size, "%s", rd_kafka_err2str(err));
    return sl_kafka_map_error(err);
}

static int left_ms(uint64_t end_ms)
{
    uint64_t now = sl_clock_now_ms();
    return now < end_ms ? (int)(end_ms - now) : 1;
}

static void forget_message(struct sl_scan *scan)
{
    if (scan->message != NULL) {
        rd_kafka_message_destroy(scan->message);
        scan->message = NULL;
    }
}

/* --- life --- */

int sl_scan_create(const struct sl_kafka_config *config, int timeout_ms, char *why, size_t why_size,
                   struct sl_scan **ret)
{
    /* clang-format off */
    static const char *const properties[] = {
        "group.id", "sluice.scan", /* A name only: it is never joined. */
        "enable.auto.commit", "false",
        "enable.auto.offset.store", "false",
        "enable.partition.eof", "true",
        "auto.offset.reset", "earliest",
        "fetch.wait.max.ms", "100",
        "fetch.error.backoff.ms", "100",
        "queued.max.messages.kbytes", "4096",
        NULL,
    };
    /* clang-format on */
    struct sl_scan *scan = calloc(1, sizeof(*scan));
    if (scan == NULL) {
        sl_kafka_why(why, why_size, "%s", sl_error_text(-SL_ENOMEM));
        return -SL_ENOMEM;
    }
    scan->timeout_ms = timeout_ms;
    scan->why = why;
    scan->why_size = why_size;
    int rv = sl_kafka_client_create(RD_KAFKA_CONSUMER, config, properties, 0, &scan->client, why,
                                    why_size);
    if (rv == 0) {
        rd_kafka_resp_err_t err = rd_kafka_poll_set_consumer(scan->client->rk);
        rv = err == RD_KAFKA_RESP_ERR_NO_ERROR ? 0 : fail(scan, err);
    }
    if (rv != 0) {
        sl_scan_destroy(scan);
        return rv;
    }
    *ret = scan;
    return 0;
}

void sl_scan_destroy(struct sl_scan *scan)
{
    if (scan == NULL) {
        return;
    }
    forget_message(scan);
    free(scan->headers);
    sl_kafka_client_destroy(scan->client, RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE);
    free(scan);
}

/* --- topics --- */

static bool ends_with(const char *name, const char *suffix)
{
    size_t len = strlen(name), end = strlen(suffix);
    return len >= end && strcmp(name + len - end, suffix) == 0;
}

int sl_scan_topics(struct sl_scan *scan, const char *prefix, const char *suffix,
                   void (*on_topic)(void *ctx, const char *name, int32_t partitions), void *ctx)
{
    const struct rd_kafka_metadata *metadata = NULL;
    rd_kafka_resp_err_t err =
        rd_kafka_metadata(scan->client->rk, 1, NULL, &metadata, scan->timeout_ms);
    if (err != RD_KAFKA_RESP_ERR_NO_ERROR) {
        return fail(scan, err);
    }
    for (int i = 0; i < metadata->topic_cnt; i++) {
        const struct rd_kafka_metadata_topic *topic = &metadata->topics[i];
        if (sl_span_begins(sl_span_of(topic->topic), prefix) && ends_with(topic->topic, suffix)) {
            on_topic(ctx, topic->topic, topic->partition_cnt);
        }
    }
    rd_kafka_metadata_destroy(metadata);
    return 0;
}

/* --- reading --- */

/* Whether to ask again, after a moment: a leader that moves refuses meanwhile. */
static bool asks_again(rd_kafka_resp_err_t err, uint64_t end_ms)
{
    if (!sl_kafka_error_is_transient(err) || sl_clock_now_ms() + RETRY_US / 1000 >= end_ms) {
        return false;
    }
    usleep(RETRY_US);
    return true;
}

static rd_kafka_resp_err_t ask_offsets(struct sl_scan *scan, const char *topic, int32_t partition,
                                       int64_t *low, int64_t *high)
{
    uint64_t end_ms = sl_clock_now_ms() + (uint64_t)scan->timeout_ms;
    rd_kafka_resp_err_t err;
    do {
        err = rd_kafka_query_watermark_offsets(scan->client->rk, topic, partition, low, high,
                                               left_ms(end_ms));
    } while (asks_again(err, end_ms));
    return err;
}

/* found: negative where no record is so late. */
static rd_kafka_resp_err_t ask_time(struct sl_scan *scan, const char *topic, int32_t partition,
                                    int64_t time_ms, int64_t *found)
{
    uint64_t end_ms = sl_clock_now_ms() + (uint64_t)scan->timeout_ms;
    rd_kafka_resp_err_t err;
    do {
        rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
        rd_kafka_topic_partition_list_add(list, topic, partition)->offset = time_ms;
        err = rd_kafka_offsets_for_times(scan->client->rk, list, left_ms(end_ms));
        err = err == RD_KAFKA_RESP_ERR_NO_ERROR ? list->elems[0].err : err;
        *found = list->elems[0].offset;
        rd_kafka_topic_partition_list_destroy(list);
    } while (asks_again(err, end_ms));
    return err;
}

int sl_scan_find_time(struct sl_scan *scan, const char *topic, int32_t partition, int64_t time_ms,
                      int64_t *ret)
{
    int64_t low, high = 0, found;
    rd_kafka_resp_err_t err = ask_time(scan, topic, partition, time_ms, &found);
    if (err == RD_KAFKA_RESP_ERR_NO_ERROR && found < 0) {
        err = ask_offsets(scan, topic, partition, &low, &high);
        found = high;
    }
    if (err != RD_KAFKA_RESP_ERR_NO_ERROR) {
        return fail(scan, err);
    }
    *ret = found;
    return 0;
}

int sl_scan_begin(struct sl_scan *scan, const char *topic, int32_t partition, int64_t from)
{
    int64_t low = 0, high = 0;
    forget_message(scan);
    if (strlen(topic) >= sizeof(scan->topic)) {
        return fail(scan, RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION);
    }
    memcpy(scan->topic, topic, strlen(topic) + 1);
    scan->partition = partition;
    scan->next = scan->end = 0;
    rd_kafka_resp_err_t err = ask_offsets(scan, scan->topic, partition, &low, &high);
    if (err != RD_KAFKA_RESP_ERR_NO_ERROR) {
        return fail(scan, err);
    }
    from = from > low ? from : low;
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
    rd_kafka_topic_partition_list_add(list, topic, partition)->offset = from;
    err = rd_kafka_assign(scan->client->rk, list);
    rd_kafka_topic_partition_list_destroy(list);
    if (err != RD_KAFKA_RESP_ERR_NO_ERROR) {
        return fail(scan, err);
    }
    scan->next = from;
    scan->end = high;
    return 0;
}

static bool is_of_this_partition(const struct sl_scan *scan, const rd_kafka_message_t *message)
{
    return message->rkt != NULL && message->partition == scan->partition &&
           strcmp(rd_kafka_topic_name(message->rkt), scan->topic) == 0;
}

/* 1: a record; 0: nothing to show, read on; -SL_E*. Takes the message over. */
static int take(struct sl_scan *scan, rd_kafka_message_t *message)
{
    rd_kafka_resp_err_t err = message->err;
    int rv = 0;
    if (err == RD_KAFKA_RESP_ERR_NO_ERROR && is_of_this_partition(scan, message)) {
        scan->next = message->offset + 1;
        if (message->offset < scan->end) {
            scan->message = message;
            return 1;
        }
    } else if (err == RD_KAFKA_RESP_ERR__PARTITION_EOF && is_of_this_partition(scan, message)) {
        scan->next = message->offset;
    } else if (err != RD_KAFKA_RESP_ERR_NO_ERROR && !sl_kafka_error_is_transient(err) &&
               err != RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN &&
               err != RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED) {
        rv = fail(scan, err);
    }
    rd_kafka_message_destroy(message);
    return rv;
}

/* All headers, however many: what a command writes again must lose none. */
static int show(struct sl_scan *scan)
{
    rd_kafka_headers_t *headers = NULL;
    struct sl_record *record = &scan->view.record;
    sl_kafka_view_init(&scan->view, scan->message);
    if (rd_kafka_message_headers(scan->message, &headers) != RD_KAFKA_RESP_ERR_NO_ERROR ||
        rd_kafka_header_cnt(headers) <= SL_KAFKA_HEADERS_MAX) {
        return 1;
    }
    free(scan->headers);
    scan->headers = calloc(rd_kafka_header_cnt(headers), sizeof(*scan->headers));
    if (scan->headers == NULL) {
        sl_kafka_why(scan->why, scan->why_size, "%s", sl_error_text(-SL_ENOMEM));
        return -SL_ENOMEM;
    }
    const char *name;
    const void *value;
    size_t size;
    record->headers = scan->headers;
    record->header_count = 0;
    while (rd_kafka_header_get_all(headers, record->header_count, &name, &value, &size) ==
           RD_KAFKA_RESP_ERR_NO_ERROR) {
        scan->headers[record->header_count++] =
            (struct sl_kafka_header){sl_span_of(name), {value, size}};
    }
    return 1;
}

int sl_scan_next(struct sl_scan *scan, const struct sl_record **ret)
{
    uint64_t end_ms = sl_clock_now_ms() + (uint64_t)scan->timeout_ms;
    forget_message(scan);
    while (scan->next < scan->end) {
        rd_kafka_message_t *message = rd_kafka_consumer_poll(scan->client->rk, left_ms(end_ms));
        int rv = message != NULL ? take(scan, message) : 0;
        if (rv > 0) {
            rv = show(scan);
            *ret = &scan->view.record;
        }
        if (rv != 0) {
            return rv;
        }
        if (scan->next < scan->end && sl_clock_now_ms() >= end_ms) {
            return fail(scan, RD_KAFKA_RESP_ERR__TIMED_OUT);
        }
    }
    return 0;
}

/* --- deleting --- */

static rd_kafka_resp_err_t deletion_error(rd_kafka_event_t *event)
{
    if (rd_kafka_event_error(event) != RD_KAFKA_RESP_ERR_NO_ERROR) {
        return rd_kafka_event_error(event);
    }
    const rd_kafka_DeleteRecords_result_t *result = rd_kafka_event_DeleteRecords_result(event);
    const rd_kafka_topic_partition_list_t *offsets =
        result != NULL ? rd_kafka_DeleteRecords_result_offsets(result) : NULL;
    return offsets == NULL || offsets->cnt == 0 ? RD_KAFKA_RESP_ERR__BAD_MSG
                                                : offsets->elems[0].err;
}

int sl_scan_delete(struct sl_scan *scan, int64_t before)
{
    rd_kafka_t *rk = scan->client->rk;
    char text[256] = "";
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
    rd_kafka_topic_partition_list_add(list, scan->topic, scan->partition)->offset = before;
    rd_kafka_DeleteRecords_t *records = rd_kafka_DeleteRecords_new(list);
    rd_kafka_topic_partition_list_destroy(list);
    rd_kafka_AdminOptions_t *options =
        rd_kafka_AdminOptions_new(rk, RD_KAFKA_ADMIN_OP_DELETERECORDS);
    rd_kafka_queue_t *queue = rd_kafka_queue_new(rk);
    rd_kafka_event_t *event = NULL;
    rd_kafka_resp_err_t err =
        rd_kafka_AdminOptions_set_request_timeout(options, scan->timeout_ms, text, sizeof(text));
    if (err == RD_KAFKA_RESP_ERR_NO_ERROR) {
        err = rd_kafka_AdminOptions_set_operation_timeout(options, scan->timeout_ms, text,
                                                          sizeof(text));
    }
    if (err == RD_KAFKA_RESP_ERR_NO_ERROR) {
        rd_kafka_DeleteRecords(rk, &records, 1, options, queue);
        event = rd_kafka_queue_poll(queue, 2 * scan->timeout_ms);
        err = event != NULL ? deletion_error(event) : RD_KAFKA_RESP_ERR__TIMED_OUT;
    }
    if (event != NULL) {
        rd_kafka_event_destroy(event);
    }
    rd_kafka_queue_destroy(queue);
    rd_kafka_AdminOptions_destroy(options);
    rd_kafka_DeleteRecords_destroy(records);
    return err == RD_KAFKA_RESP_ERR_NO_ERROR ? 0 : fail(scan, err);
}
