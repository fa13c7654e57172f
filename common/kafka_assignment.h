/*
 * The partitions that a group consumer owns at the moment: their queues, windows and offsets. Part
 * of kafka_consumer.c, which decides when partitions come and go.
 */
#ifndef SLUICE_COMMON_KAFKA_ASSIGNMENT_H
#define SLUICE_COMMON_KAFKA_ASSIGNMENT_H

#include "common/kafka_internal.h"
#include "common/list.h"
#include "common/window.h"

struct sl_kafka_partition {
    struct sl_list node; /* In the assignment's ring. */
    uint32_t topic;
    int32_t id;
    uint64_t epoch;
    rd_kafka_queue_t *queue;
    rd_kafka_message_t *held; /* Read and not given yet: the window had no place, or to learn the
                                 position while there is no room. */
    struct sl_window window;
    bool ready; /* The queue may hold something. */
    bool dirty; /* The window's base moved and is not stored yet. */
    bool full;  /* The window is, and has been counted. */
};

struct sl_kafka_topic {
    char *name; /* Owned. */
    uint32_t class;
    struct sl_kafka_partition **slots; /* By partition id; NULL: not assigned. */
    size_t slot_count;
    size_t assigned;
    uint64_t full_total; /* How often a window was found full. */
};

struct sl_kafka_assignment {
    struct sl_kafka_client *client;          /* Borrowed. */
    const struct sl_consumer_config *config; /* Borrowed: callbacks. */
    struct sl_kafka_topic *topics;           /* In the config's order. */
    size_t topic_count;
    struct sl_list ring; /* Partitions; the first is read next. */
    size_t count;
    uint64_t last_epoch;
    bool stopped; /* Nothing more is read. */
    bool dirty;   /* Some partition is. */
};

/* What a topic's partitions have ahead of them and in hand. */
struct sl_kafka_load {
    int64_t lag;
    uint64_t in_flight;
};

int sl_kafka_assignment_init(struct sl_kafka_assignment *assignment, struct sl_kafka_client *client,
                             const struct sl_consumer_config *config) SL_CHECKED;
void sl_kafka_assignment_fini(struct sl_kafka_assignment *assignment);
/* Takes the partition's queue; to be called before rd_kafka_assign. 0, -SL_ENOMEM, -SL_EINVAL for
 * a topic that was not asked for. */
int sl_kafka_assignment_add(struct sl_kafka_assignment *assignment, const char *topic,
                            int32_t partition) SL_CHECKED;
/* Ends all epochs and gives the queues back; what is unstored is lost: store before. */
void sl_kafka_assignment_clear(struct sl_kafka_assignment *assignment);
/* Asks librdkafka's queues which hold something. all: assumes that each does, and reads one message
 * where the position is not known yet. */
void sl_kafka_assignment_look(struct sl_kafka_assignment *assignment, bool all);
/* Gives records while there is room, at most budget of them; true when it stopped at the budget. */
bool sl_kafka_assignment_read(struct sl_kafka_assignment *assignment, unsigned budget);
/* True when there is something new to store. */
bool sl_kafka_assignment_end(struct sl_kafka_assignment *assignment,
                             const struct sl_position *position);
/* Gives librdkafka the offsets to commit. */
void sl_kafka_assignment_store(struct sl_kafka_assignment *assignment);
/* NULL when the position's epoch is over. */
struct sl_kafka_partition *sl_kafka_assignment_find(const struct sl_kafka_assignment *assignment,
                                                    const struct sl_position *position);
struct sl_kafka_load sl_kafka_assignment_load(const struct sl_kafka_assignment *assignment,
                                              size_t topic);

#endif
