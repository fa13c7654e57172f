/*
 * A group consumer's partitions. Each has librdkafka's queue of fetched messages, taken away from
 * the consumer's own queue so that a message leaves it only when there is a slot for it; a window
 * over the offsets that were given; and an epoch, a number that no other assignment of this process
 * ever had, by which a job that ends after its partition went away is recognised and ignored.
 *
 * Reading goes round: up to sixteen records of one partition, then the next, so that none starves
 * behind a long queue, and a class without room is passed over without holding up another.
 *
 * What is stored is the window's base: the first offset that has not ended. librdkafka commits it
 * each second and when the partition is revoked, and refuses it once the partition has gone; there
 * is no other commit, because one of an explicit list would be accepted from a member that lost the
 * partition and would take the new owner's position back.
 *
 * What can go wrong: the window is full, or there is no memory for it: the message that was read
 * waits in `held`. The log starts over (a topic made anew, a truncation) and offsets come a second
 * time: the partition gets a new epoch and window, as though it had been assigned again. A consume
 * error stands in the queue like a message: librdkafka goes on by itself, and we only tell.
 */
#include "common/kafka_assignment.h"

#include <assert.h>
#include <stdlib.h>

enum { BURST = 16, PARTITIONS_MAX = 100000 };

/* --- partitions come and go --- */

static struct sl_kafka_topic *find_topic(struct sl_kafka_assignment *assignment, const char *name)
{
    for (size_t i = 0; i < assignment->topic_count; i++) {
        if (strcmp(assignment->topics[i].name, name) == 0) {
            return &assignment->topics[i];
        }
    }
    return NULL;
}

static int grow_slots(struct sl_kafka_topic *topic, int32_t partition)
{
    if (partition < 0 || partition >= PARTITIONS_MAX) {
        return -SL_EINVAL;
    }
    size_t wanted = (size_t)partition + 1;
    if (wanted <= topic->slot_count) {
        return 0;
    }
    struct sl_kafka_partition **slots =
        realloc(topic->slots, wanted * sizeof(struct sl_kafka_partition *));
    if (slots == NULL) {
        return -SL_ENOMEM;
    }
    for (size_t i = topic->slot_count; i < wanted; i++) {
        slots[i] = NULL;
    }
    topic->slots = slots;
    topic->slot_count = wanted;
    return 0;
}

int sl_kafka_assignment_add(struct sl_kafka_assignment *assignment, const char *topic_name,
                            int32_t id)
{
    struct sl_kafka_topic *topic = find_topic(assignment, topic_name);
    if (topic == NULL) {
        return -SL_EINVAL;
    }
    int rc = grow_slots(topic, id);
    if (rc != 0) {
        return rc;
    }
    assert(topic->slots[id] == NULL);
    struct sl_kafka_partition *partition = calloc(1, sizeof(*partition));
    if (partition == NULL) {
        return -SL_ENOMEM;
    }
    partition->queue = rd_kafka_queue_get_partition(assignment->client->rk, topic_name, id);
    if (partition->queue == NULL) {
        free(partition);
        return -SL_ENOMEM;
    }
    rd_kafka_queue_forward(partition->queue, NULL);
    sl_kafka_wake_by(assignment->client, partition->queue);
    partition->topic = (uint32_t)(topic - assignment->topics);
    partition->id = id;
    partition->epoch = ++assignment->last_epoch;
    partition->ready = true;
    sl_window_init(&partition->window);
    sl_list_push(&assignment->ring, &partition->node);
    topic->slots[id] = partition;
    topic->assigned++;
    assignment->count++;
    if (assignment->config->on_partition != NULL) {
        assignment->config->on_partition(assignment->config->ctx, partition->topic, id, true);
    }
    return 0;
}

static void remove_partition(struct sl_kafka_assignment *assignment,
                             struct sl_kafka_partition *partition)
{
    struct sl_kafka_topic *topic = &assignment->topics[partition->topic];
    uint32_t topic_index = partition->topic;
    int32_t id = partition->id;
    sl_list_remove(&partition->node);
    topic->slots[id] = NULL;
    topic->assigned--;
    assignment->count--;
    if (partition->held != NULL) {
        rd_kafka_message_destroy(partition->held);
    }
    rd_kafka_queue_io_event_enable(partition->queue, -1, NULL, 0);
    rd_kafka_queue_destroy(partition->queue);
    sl_window_fini(&partition->window);
    free(partition);
    if (assignment->config->on_partition != NULL) {
        assignment->config->on_partition(assignment->config->ctx, topic_index, id, false);
    }
}

void sl_kafka_assignment_clear(struct sl_kafka_assignment *assignment)
{
    struct sl_list *node;
    while ((node = sl_list_first(&assignment->ring)) != NULL) {
        remove_partition(assignment, SL_ITEM(node, struct sl_kafka_partition, node));
    }
    assignment->dirty = false;
}

/* --- reading --- */

static bool window_is_full(struct sl_kafka_assignment *assignment,
                           struct sl_kafka_partition *partition)
{
    const struct sl_window *window = &partition->window;
    int64_t next = partition->held != NULL ? partition->held->offset : window->end;
    bool full = window->base >= 0 && sl_window_full(window, next);
    if (full && !partition->full) {
        assignment->topics[partition->topic].full_total++;
    }
    partition->full = full;
    return full;
}

static void tell_error(struct sl_kafka_assignment *assignment, const rd_kafka_message_t *message)
{
    if (!sl_kafka_error_is_transient(message->err)) {
        assignment->config->on_error(assignment->config->ctx, false,
                                     rd_kafka_message_errstr(message));
    }
}

/* Takes the offset into the window; false when the message has to wait. */
static bool take_offset(struct sl_kafka_assignment *assignment,
                        struct sl_kafka_partition *partition, int64_t offset)
{
    int rc = sl_window_take(&partition->window, offset);
    if (rc == -SL_EINVAL) { /* The log started over. */
        sl_window_fini(&partition->window);
        sl_window_init(&partition->window);
        partition->epoch = ++assignment->last_epoch;
        rc = sl_window_take(&partition->window, offset);
    }
    return rc == 0;
}

static void give(struct sl_kafka_assignment *assignment, const struct sl_kafka_partition *partition,
                 const rd_kafka_message_t *message)
{
    struct sl_kafka_view view;
    struct sl_position position = {
        .topic = partition->topic,
        .partition = partition->id,
        .offset = message->offset,
        .epoch = partition->epoch,
    };
    sl_kafka_view_init(&view, message);
    assignment->config->on_record(assignment->config->ctx, &view.record, &position);
}

/* Reads the next message into `held`; false when the queue has none. */
static bool hold_next(struct sl_kafka_assignment *assignment, struct sl_kafka_partition *partition)
{
    while (partition->held == NULL && partition->ready) {
        rd_kafka_message_t *message = rd_kafka_consume_queue(partition->queue, 0);
        if (message == NULL) {
            partition->ready = false;
        } else if (message->err != RD_KAFKA_RESP_ERR_NO_ERROR) {
            tell_error(assignment, message);
            rd_kafka_message_destroy(message);
        } else {
            partition->held = message;
        }
    }
    return partition->held != NULL;
}

/* False when the partition has nothing to give now. */
static bool read_one(struct sl_kafka_assignment *assignment, struct sl_kafka_partition *partition)
{
    if (window_is_full(assignment, partition) || !hold_next(assignment, partition) ||
        !take_offset(assignment, partition, partition->held->offset)) {
        return false;
    }
    rd_kafka_message_t *message = partition->held;
    partition->held = NULL;
    give(assignment, partition, message);
    rd_kafka_message_destroy(message);
    return true;
}

static unsigned read_some(struct sl_kafka_assignment *assignment,
                          struct sl_kafka_partition *partition, unsigned limit)
{
    const struct sl_consumer_config *config = assignment->config;
    uint32_t class = assignment->topics[partition->topic].class;
    unsigned count = 0;
    while (count < limit && !assignment->stopped && config->room(config->ctx, class) > 0 &&
           read_one(assignment, partition)) {
        count++;
    }
    return count;
}

bool sl_kafka_assignment_read(struct sl_kafka_assignment *assignment, unsigned budget)
{
    size_t empty = 0; /* Partitions in a row that gave nothing. */
    while (empty < assignment->count && budget > 0 && !assignment->stopped) {
        struct sl_list *node = sl_list_first(&assignment->ring);
        sl_list_remove(node);
        sl_list_push(&assignment->ring, node);
        unsigned count = read_some(assignment, SL_ITEM(node, struct sl_kafka_partition, node),
                                   budget < BURST ? budget : BURST);
        budget -= count;
        empty = count > 0 ? 0 : empty + 1;
    }
    return budget == 0;
}

void sl_kafka_assignment_look(struct sl_kafka_assignment *assignment, bool all)
{
    SL_LIST_EACH(node, &assignment->ring)
    {
        struct sl_kafka_partition *partition = SL_ITEM(node, struct sl_kafka_partition, node);
        partition->ready = partition->ready || all || rd_kafka_queue_length(partition->queue) > 0;
        if (all && partition->window.base < 0) {
            hold_next(assignment, partition); /* Its offset is where the partition stands. */
        }
    }
}

/* --- offsets --- */

struct sl_kafka_partition *sl_kafka_assignment_find(const struct sl_kafka_assignment *assignment,
                                                    const struct sl_position *position)
{
    assert(position->topic < assignment->topic_count && position->partition >= 0);
    const struct sl_kafka_topic *topic = &assignment->topics[position->topic];
    size_t id = (size_t)position->partition;
    struct sl_kafka_partition *partition = id < topic->slot_count ? topic->slots[id] : NULL;
    return partition != NULL && partition->epoch == position->epoch ? partition : NULL;
}

bool sl_kafka_assignment_end(struct sl_kafka_assignment *assignment,
                             const struct sl_position *position)
{
    struct sl_kafka_partition *partition = sl_kafka_assignment_find(assignment, position);
    if (partition == NULL || !sl_window_end(&partition->window, position->offset)) {
        return false;
    }
    partition->dirty = true;
    assignment->dirty = true;
    return true;
}

static void tell_store_error(struct sl_kafka_assignment *assignment,
                             const rd_kafka_topic_partition_list_t *offsets)
{
    for (int i = 0; i < offsets->cnt; i++) {
        rd_kafka_resp_err_t err = offsets->elems[i].err;
        /* _STATE: the partition is going away, and its new owner starts from the last commit. */
        if (err != RD_KAFKA_RESP_ERR_NO_ERROR && err != RD_KAFKA_RESP_ERR__STATE) {
            assignment->config->on_error(assignment->config->ctx, false, rd_kafka_err2str(err));
            return;
        }
    }
}

void sl_kafka_assignment_store(struct sl_kafka_assignment *assignment)
{
    if (!assignment->dirty) {
        return;
    }
    assignment->dirty = false;
    rd_kafka_topic_partition_list_t *offsets =
        rd_kafka_topic_partition_list_new((int)assignment->count);
    SL_LIST_EACH(node, &assignment->ring)
    {
        struct sl_kafka_partition *partition = SL_ITEM(node, struct sl_kafka_partition, node);
        if (partition->dirty) {
            partition->dirty = false;
            rd_kafka_topic_partition_list_add(offsets, assignment->topics[partition->topic].name,
                                              partition->id)
                ->offset = partition->window.base;
        }
    }
    if (rd_kafka_offsets_store(assignment->client->rk, offsets) != RD_KAFKA_RESP_ERR_NO_ERROR) {
        tell_store_error(assignment, offsets);
    }
    rd_kafka_topic_partition_list_destroy(offsets);
}

/* Before the first record nothing tells the position, and there is nothing that waits. */
static int64_t partition_lag(const struct sl_kafka_assignment *assignment,
                             const struct sl_kafka_partition *partition)
{
    const char *topic = assignment->topics[partition->topic].name;
    int64_t low = 0, high = 0, from = partition->window.base, known = partition->window.end;
    if (partition->held != NULL) {
        from = from < 0 ? partition->held->offset : from;
        known = partition->held->offset + 1;
    }
    if (from < 0) {
        return 0;
    }
    if (rd_kafka_get_watermark_offsets(assignment->client->rk, topic, partition->id, &low, &high) !=
            RD_KAFKA_RESP_ERR_NO_ERROR ||
        high < known) {
        high = known; /* The watermark is older than the records. */
    }
    return high - from;
}

struct sl_kafka_load sl_kafka_assignment_load(const struct sl_kafka_assignment *assignment,
                                              size_t topic)
{
    struct sl_kafka_load load = {0, 0};
    for (size_t i = 0; i < assignment->topics[topic].slot_count; i++) {
        const struct sl_kafka_partition *partition = assignment->topics[topic].slots[i];
        if (partition != NULL) {
            load.lag += partition_lag(assignment, partition);
            load.in_flight += partition->window.in_flight;
        }
    }
    return load;
}

/* --- life --- */

int sl_kafka_assignment_init(struct sl_kafka_assignment *assignment, struct sl_kafka_client *client,
                             const struct sl_consumer_config *config)
{
    *assignment = (struct sl_kafka_assignment){.client = client, .config = config};
    sl_list_init(&assignment->ring);
    assignment->topics = calloc(config->topic_count, sizeof(*assignment->topics));
    if (assignment->topics == NULL) {
        return -SL_ENOMEM;
    }
    assignment->topic_count = config->topic_count;
    for (size_t i = 0; i < config->topic_count; i++) {
        assignment->topics[i].class = config->topics[i].class;
        assignment->topics[i].name = strdup(config->topics[i].name);
        if (assignment->topics[i].name == NULL) {
            return -SL_ENOMEM;
        }
    }
    return 0;
}

void sl_kafka_assignment_fini(struct sl_kafka_assignment *assignment)
{
    assert(assignment->count == 0);
    for (size_t i = 0; i < assignment->topic_count; i++) {
        free(assignment->topics[i].name);
        free(assignment->topics[i].slots);
    }
    free(assignment->topics);
    *assignment = (struct sl_kafka_assignment){0};
}
