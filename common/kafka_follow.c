/*
 * A follower: one client, assigned by hand, whose partitions come and go. No group is joined and
 * nothing is committed; librdkafka only wants a group's name for an assignment.
 *
 * All partitions feed the consumer's one queue, so that what is fetched ahead has one limit however
 * many they are. The queue wakes the loop and is read to its end, 256 events a turn: records, the
 * ends of partitions, errors.
 *
 * Adding and removing are incremental assignments: each is a word with librdkafka's main thread,
 * which does no I/O (about 50 us), and from its answer on librdkafka drops what it had fetched of
 * the partition before, in flight or queued. So going back is a removal and a new addition, and no
 * check of ours could do better: the log has gaps, so that any offset from the one asked for may be
 * the first. Only records before the position are dropped here.
 *
 * librdkafka finds a client's first topic as soon as it is connected, some 50 ms after the first
 * addition, and each further topic when it next looks at all, within a second.
 *
 * An offset that is not in the log is told as an error without the log's bounds. Asking for them
 * would block, so the partition is read from its beginning instead: its first record, or its end,
 * comes with the bounds that the broker told along with it. They also tell an error that was meant
 * for an earlier position and came late: then reading goes on where it should.
 */
#include "common/kafka_follow.h"

#include "common/kafka_internal.h"
#include "common/log.h"
#include "common/map.h"

#include <assert.h>
#include <stdlib.h>

enum { EVENTS_A_TURN = 256, TOPIC_NAME_MAX = 249, KEY_MAX = TOPIC_NAME_MAX + 1 + 4, WHY_MAX = 256 };

struct followed {
    struct sl_map_node by_key;
    int64_t position; /* Of the next record. */
    bool checking;    /* Read from its beginning, to learn the log's bounds. */
    char key[KEY_MAX];
};

struct sl_follower {
    struct sl_loop *loop;
    struct sl_kafka_config config;
    struct sl_follower_callbacks callbacks;
    void *ctx;
    struct sl_kafka_client *client; /* NULL until the first partition. */
    rd_kafka_queue_t *queue;        /* The consumer's own, and that of all partitions. */
    struct sl_map followed;
    bool busy; /* In a callback: destroy must not be called. */
    struct sl_task scan;
};

/* --- partitions --- */

/* The name with its zero, then the number; len 0: no topic has such a name. */
static struct sl_span key_of(char key[KEY_MAX], const char *topic, int32_t partition)
{
    size_t len = strlen(topic) + 1;
    if (len > TOPIC_NAME_MAX + 1) {
        return (struct sl_span){key, 0};
    }
    memcpy(key, topic, len);
    memcpy(key + len, &partition, sizeof(partition));
    return (struct sl_span){key, len + sizeof(partition)};
}

static struct followed *find(const struct sl_follower *follower, const char *topic,
                             int32_t partition)
{
    char key[KEY_MAX];
    struct sl_map_node *node = sl_map_find(&follower->followed, key_of(key, topic, partition));
    return node != NULL ? SL_ITEM(node, struct followed, by_key) : NULL;
}

static rd_kafka_topic_partition_list_t *list_of(const struct followed *followed, int64_t offset)
{
    int32_t partition;
    memcpy(&partition, followed->key + strlen(followed->key) + 1, sizeof(partition));
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
    rd_kafka_topic_partition_list_add(list, followed->key, partition)->offset = offset;
    return list;
}

static int settle(rd_kafka_error_t *error)
{
    int rc = error != NULL ? sl_kafka_map_error(rd_kafka_error_code(error)) : 0;
    if (error != NULL) { /* librdkafka has logged it. */
        rd_kafka_error_destroy(error);
    }
    return rc;
}

static int start(struct sl_follower *follower, const struct followed *followed, int64_t offset)
{
    rd_kafka_topic_partition_list_t *list = list_of(followed, offset);
    rd_kafka_error_t *error = rd_kafka_incremental_assign(follower->client->rk, list);
    rd_kafka_topic_partition_list_destroy(list);
    return settle(error);
}

static int stop(struct sl_follower *follower, const struct followed *followed)
{
    rd_kafka_topic_partition_list_t *list = list_of(followed, RD_KAFKA_OFFSET_INVALID);
    rd_kafka_error_t *error = rd_kafka_incremental_unassign(follower->client->rk, list);
    rd_kafka_topic_partition_list_destroy(list);
    return settle(error);
}

static int restart(struct sl_follower *follower, const struct followed *followed, int64_t offset)
{
    int rc = stop(follower, followed);
    return rc != 0 ? rc : start(follower, followed, offset);
}

static void forget(struct sl_follower *follower, struct followed *followed)
{
    sl_map_remove(&follower->followed, &followed->by_key);
    free(followed);
}

/* --- what the queue brings --- */

static void tell_error(struct sl_follower *follower, bool fatal, const char *why)
{
    follower->callbacks.on_error(follower->ctx, fatal, why);
}

static void begin_check(struct sl_follower *follower, struct followed *followed)
{
    int rc = restart(follower, followed, RD_KAFKA_OFFSET_BEGINNING);
    followed->checking = true;
    if (rc != 0) {
        tell_error(follower, false, sl_error_text(rc));
    }
}

/* first: the offset at which the log was seen to begin. */
static void finish_check(struct sl_follower *follower, struct followed *followed, const char *topic,
                         int32_t partition, int64_t first)
{
    int64_t low = -1, high = -1, offset = followed->position;
    if (rd_kafka_get_watermark_offsets(follower->client->rk, topic, partition, &low, &high) !=
            RD_KAFKA_RESP_ERR_NO_ERROR ||
        low < 0) {
        low = first;
    }
    followed->checking = false;
    if (low <= offset && offset <= high) {
        int rc = restart(follower, followed, offset);
        if (rc != 0) {
            tell_error(follower, false, sl_error_text(rc));
        }
        return;
    }
    sl_follower_remove(follower, topic, partition);
    follower->callbacks.on_out_of_range(follower->ctx, topic, partition, offset, low);
}

static void on_message(struct sl_follower *follower, const rd_kafka_message_t *message)
{
    const char *topic = rd_kafka_topic_name(message->rkt);
    struct followed *followed = find(follower, topic, message->partition);
    if (followed == NULL) {
        return;
    }
    if (followed->checking) {
        finish_check(follower, followed, topic, message->partition, message->offset);
    } else if (message->offset >= followed->position) {
        struct sl_kafka_view view;
        sl_kafka_view_init(&view, message);
        followed->position = message->offset + 1;
        follower->callbacks.on_record(follower->ctx, &view.record);
    }
}

static void on_end(struct sl_follower *follower, struct followed *followed,
                   const rd_kafka_topic_partition_t *place)
{
    if (followed->checking) {
        finish_check(follower, followed, place->topic, place->partition, place->offset);
    } else if (place->offset >= followed->position) {
        followed->position = place->offset;
        follower->callbacks.on_end(follower->ctx, place->topic, place->partition, place->offset);
    }
}

static void on_partition_error(struct sl_follower *follower, rd_kafka_event_t *event,
                               const rd_kafka_topic_partition_t *place)
{
    rd_kafka_resp_err_t err = rd_kafka_event_error(event);
    struct followed *followed = find(follower, place->topic, place->partition);
    if (followed == NULL) {
        return;
    }
    if (err == RD_KAFKA_RESP_ERR__PARTITION_EOF) {
        on_end(follower, followed, place);
    } else if (err == RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET) {
        begin_check(follower, followed);
    } else if (!sl_kafka_error_is_transient(err)) {
        tell_error(follower, false, rd_kafka_event_error_string(event));
    }
}

static void on_error_event(struct sl_follower *follower, rd_kafka_event_t *event)
{
    bool fatal = sl_kafka_event_is_fatal(event);
    rd_kafka_topic_partition_t *place = fatal ? NULL : rd_kafka_event_topic_partition(event);
    if (place != NULL) {
        on_partition_error(follower, event, place);
        rd_kafka_topic_partition_destroy(place);
    } else if (sl_kafka_event_matters(event)) {
        tell_error(follower, fatal, rd_kafka_event_error_string(event));
    }
}

static void on_event(struct sl_follower *follower, rd_kafka_event_t *event)
{
    if (rd_kafka_event_type(event) == RD_KAFKA_EVENT_ERROR) {
        on_error_event(follower, event);
    } else if (rd_kafka_event_type(event) == RD_KAFKA_EVENT_FETCH) {
        const rd_kafka_message_t *message;
        while ((message = rd_kafka_event_message_next(event)) != NULL) {
            on_message(follower, message);
        }
    }
}

static void on_scan(struct sl_task *task)
{
    struct sl_follower *follower = SL_ITEM(task, struct sl_follower, scan);
    unsigned count = 0;
    follower->busy = true;
    while (count < EVENTS_A_TURN) {
        rd_kafka_event_t *event = rd_kafka_queue_poll(follower->queue, 0);
        if (event == NULL) {
            break;
        }
        on_event(follower, event);
        rd_kafka_event_destroy(event);
        count++;
    }
    follower->busy = false;
    if (count == EVENTS_A_TURN) {
        sl_task_defer(follower->loop, &follower->scan, on_scan);
    }
}

static void on_wake(void *ctx, int events)
{
    struct sl_follower *follower = ctx;
    (void)events;
    sl_kafka_wake_clear(follower->client);
    on_scan(&follower->scan);
}

/* --- life --- */

static void close_client(struct sl_follower *follower)
{
    sl_task_cancel(&follower->scan);
    if (follower->queue != NULL) {
        rd_kafka_queue_destroy(follower->queue);
        follower->queue = NULL;
    }
    sl_kafka_client_destroy(follower->client, RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE);
    follower->client = NULL;
}

static int make_client(struct sl_follower *follower, char *why, size_t why_size)
{
    /* clang-format off */
    static const char *const properties[] = {
        "group.id", "sluice.follower",
        "enable.auto.commit", "false",
        "enable.auto.offset.store", "false",
        "enable.partition.eof", "true",
        "auto.offset.reset", "error",
        "fetch.min.bytes", "1",
        "fetch.wait.max.ms", "50", /* So long a partition that is added may wait for the others. */
        "fetch.error.backoff.ms", "100",
        "?fetch.queue.backoff.ms", "100",
        "queued.max.messages.kbytes", "4096",
        NULL,
    };
    /* clang-format on */
    return sl_kafka_client_create(RD_KAFKA_CONSUMER, &follower->config, properties,
                                  RD_KAFKA_EVENT_ERROR | RD_KAFKA_EVENT_FETCH, &follower->client,
                                  why, why_size);
}

static int open_client(struct sl_follower *follower)
{
    char why[WHY_MAX] = "";
    int rc = make_client(follower, why, sizeof(why));
    if (rc == 0) {
        rc = sl_kafka_map_error(rd_kafka_poll_set_consumer(follower->client->rk));
    }
    if (rc == 0) {
        follower->queue = rd_kafka_queue_get_consumer(follower->client->rk);
        rc = follower->queue != NULL ? 0 : -SL_ENOMEM;
    }
    if (rc == 0) {
        rc = sl_kafka_client_watch(follower->client, follower->loop, on_wake, follower);
    }
    if (rc != 0) {
        sl_log(SL_LOG_ERROR, "no kafka client to follow with", SL_STR("why", why), SL_ERR(rc));
        close_client(follower);
        return rc == -SL_ENOMEM ? rc : -SL_EIO;
    }
    sl_kafka_wake_by(follower->client, follower->queue);
    sl_task_defer(follower->loop, &follower->scan, on_scan); /* What came before the wake-up. */
    return 0;
}

static int go_back(struct sl_follower *follower, struct followed *followed, int64_t offset)
{
    if (offset >= followed->position) {
        return 0;
    }
    followed->position = offset;
    if (followed->checking) { /* Its end looks at the position. */
        return 0;
    }
    int rc = restart(follower, followed, offset);
    if (rc != 0) {
        forget(follower, followed);
    }
    return rc == 0 || rc == -SL_ENOMEM ? rc : -SL_EIO;
}

int sl_follower_add(struct sl_follower *follower, const char *topic, int32_t partition,
                    int64_t offset)
{
    assert(partition >= 0 && offset >= 0);
    struct followed *followed = find(follower, topic, partition);
    if (followed != NULL) {
        return go_back(follower, followed, offset);
    }
    int rc = follower->client != NULL ? 0 : open_client(follower);
    if (rc != 0) {
        return rc;
    }
    followed = calloc(1, sizeof(*followed));
    if (followed == NULL) {
        return -SL_ENOMEM;
    }
    struct sl_span key = key_of(followed->key, topic, partition);
    followed->position = offset;
    rc = key.len > 0 ? start(follower, followed, offset) : -SL_EIO;
    if (rc != 0) {
        free(followed);
        return rc == -SL_ENOMEM ? rc : -SL_EIO;
    }
    sl_map_add(&follower->followed, &followed->by_key, key);
    return 0;
}

void sl_follower_remove(struct sl_follower *follower, const char *topic, int32_t partition)
{
    struct followed *followed = find(follower, topic, partition);
    if (followed != NULL) {
        /* Refused: librdkafka has logged it, and records that still come are dropped. */
        (void)(stop(follower, followed) == 0);
        forget(follower, followed);
    }
}

int64_t sl_follower_position(const struct sl_follower *follower, const char *topic,
                             int32_t partition)
{
    const struct followed *followed = find(follower, topic, partition);
    return followed != NULL ? followed->position : -1;
}

int sl_follower_create(struct sl_loop *loop, const struct sl_kafka_config *config,
                       const struct sl_follower_callbacks *callbacks, void *ctx,
                       struct sl_follower **ret, char *why, size_t why_size)
{
    struct sl_follower *follower = calloc(1, sizeof(*follower));
    if (follower == NULL || sl_map_init(&follower->followed) != 0) {
        free(follower);
        sl_kafka_why(why, why_size, "%s", sl_error_text(-SL_ENOMEM));
        return -SL_ENOMEM;
    }
    follower->loop = loop;
    follower->config = *config;
    follower->callbacks = *callbacks;
    follower->ctx = ctx;
    *ret = follower;
    return 0;
}

void sl_follower_destroy(struct sl_follower *follower)
{
    if (follower == NULL) {
        return;
    }
    assert(!follower->busy);
    struct sl_map_node *node;
    while ((node = sl_map_next(&follower->followed, NULL)) != NULL) {
        forget(follower, SL_ITEM(node, struct followed, by_key));
    }
    sl_map_fini(&follower->followed);
    close_client(follower);
    free(follower);
}
