/*
 * Kafka: one producer, one group consumer and plain partition readers, each a librdkafka client
 * whose events arrive on the loop through descriptors. This file's users see records, positions and
 * errors; windows and offsets are kept inside. Section 4 of docs/ARCHITECTURE.md is its
 * specification.
 */
#ifndef SLUICE_COMMON_KAFKA_H
#define SLUICE_COMMON_KAFKA_H

#include "common/buf.h"
#include "common/loop.h"
#include "common/metrics.h"

struct sl_kafka_config {
    const char *brokers;
    const char *client_id;
    /* Further librdkafka properties, name and value in turn, NULL at the end; may be NULL. */
    const char *const *extra;
};

struct sl_kafka_header {
    struct sl_span name, value;
};

enum { SL_KAFKA_HEADERS_MAX = 32 };

/* A record, borrowed until the callback that brings it returns. */
struct sl_record {
    const char *topic;
    int32_t partition;
    int64_t offset;
    int64_t timestamp_ms; /* LogAppendTime where the topic has it. */
    struct sl_span key, value;
    const struct sl_kafka_header *headers; /* More than the maximum: the rest is not shown. */
    size_t header_count;
};
/* The last header of that name, data NULL when there is none. */
struct sl_span sl_record_header(const struct sl_record *record, const char *name);

/* --- Producing: acks=all, idempotent, linger 0, message.timeout.ms 30000. --- */

struct sl_producer;

/* on_fatal: the producer cannot go on (fenced, fatal error): the process must end. topics: warmed
 * at start, NULL at the end. */
int sl_producer_create(struct sl_loop *loop, const struct sl_kafka_config *config,
                       void (*on_fatal)(void *ctx, const char *why), void *ctx,
                       struct sl_producer **ret, char *why, size_t why_size) SL_CHECKED;
/* Flushes for at most flush_ms; reports that have not come by then come inside with -SL_ETIMEDOUT.
 */
void sl_producer_destroy(struct sl_producer *producer, uint32_t flush_ms);
/* Fetches the topic's metadata ahead of the first record, which would wait for it. */
void sl_producer_warm(struct sl_producer *producer, const char *topic);

/* The broker has the record (err 0, its offset), or never will (-SL_ETIMEDOUT, -SL_ETOOBIG,
 * -SL_ENOENT for an unknown topic or partition, -SL_EIO). */
typedef void sl_delivery_cb(void *ctx, int err, int32_t partition, int64_t offset);

struct sl_outgoing {
    const char *topic;
    int32_t partition;         /* -1: by the key (murmur2, as Java's default). */
    struct sl_span key, value; /* Copied. */
    const struct sl_kafka_header *headers;
    size_t header_count;
    int64_t timestamp_ms; /* 0: now. The topic may put its own in its place. */
};

/* 0: cb comes once, later (may be NULL: nobody cares). Else cb does not come: -SL_EAGAIN: the queue
 * is full, try again when on_room fires; -SL_ETOOBIG, -SL_ENOENT (it is known already that there is
 * no such topic or partition), -SL_ECLOSED (inside destroy), -SL_ENOMEM, -SL_EIO. */
int sl_producer_send(struct sl_producer *producer, const struct sl_outgoing *outgoing,
                     sl_delivery_cb *cb, void *ctx) SL_CHECKED;
/* Fires (once a turn) when reports made room after an -SL_EAGAIN. */
void sl_producer_on_room(struct sl_producer *producer, void (*on_room)(void *ctx), void *ctx);
size_t sl_producer_queued(const struct sl_producer *producer);

/* --- Consuming in a group --- */

struct sl_consumer;

/* Where a record came from. Positions of an assignment that has ended are ignored when they end. */
struct sl_position {
    uint32_t topic; /* Index in the config's topics. */
    int32_t partition;
    int64_t offset;
    uint64_t epoch; /* Of the assignment. */
};

struct sl_consumer_topic {
    const char *name;
    uint32_t class; /* 0 queries, 1 bulk: how many records may be taken is asked by class. */
    uint32_t fetch_queue_kb; /* queued.max.messages.kbytes is one setting: the largest is used. */
};

struct sl_consumer_config {
    struct sl_kafka_config kafka;
    const char *group;
    const struct sl_consumer_topic *topics;
    size_t topic_count;
    struct sl_metrics *metrics; /* sluice_consumer_lag{topic} and window gauges. May be NULL. */
    /* How many records of this class may be given now. */
    size_t (*room)(void *ctx, uint32_t class);
    /* One record; the window has taken its offset. sl_consumer_end must follow, now or later. */
    void (*on_record)(void *ctx, const struct sl_record *record,
                      const struct sl_position *position);
    /* A partition came or went (epoch ended). For hints only; may be NULL. */
    void (*on_partition)(void *ctx, uint32_t topic, int32_t partition, bool assigned);
    void (*on_error)(void *ctx, bool fatal, const char *why);
    void *ctx;
};

int sl_consumer_create(struct sl_loop *loop, const struct sl_consumer_config *config,
                       struct sl_consumer **ret, char *why, size_t why_size) SL_CHECKED;
/* Room has grown: scan the queues in this turn's deferred tasks. Cheap, may be called often. */
void sl_consumer_kick(struct sl_consumer *consumer);
/* The record is finished with: its offset may be committed once all before it are. */
void sl_consumer_end(struct sl_consumer *consumer, const struct sl_position *position);
/* True while the assignment that the position belongs to lasts. */
bool sl_consumer_owns(const struct sl_consumer *consumer, const struct sl_position *position);
/* Partitions that are assigned now, of all topics. */
size_t sl_consumer_assigned(const struct sl_consumer *consumer);
/* A member of the group with an assignment, which may be empty. */
bool sl_consumer_joined(const struct sl_consumer *consumer);
/* Leaves the group: stops giving records, commits what is stored. on_left comes when done (closing
 * can take seconds and does not block the loop). Then destroy. */
void sl_consumer_leave(struct sl_consumer *consumer, void (*on_left)(void *ctx), void *ctx);
/* Takes NULL. Also from on_left, but from no other callback. Without a leave before, the group
 * notices after the session time-out, as if the process had died. */
void sl_consumer_destroy(struct sl_consumer *consumer);

/* --- Reading a partition from an offset, without a group --- */

struct sl_reader;
enum { SL_OFFSET_END = -1, SL_OFFSET_BEGINNING = -2 };

/* on_started tells the offset at which reading starts, before any record (that of SL_OFFSET_END
 * takes about half a second); on_record as they come; on_caught_up once, when the end offset of the
 * moment of creation is reached. */
struct sl_reader_callbacks {
    void (*on_record)(void *ctx, const struct sl_record *record);
    void (*on_started)(void *ctx, int64_t offset); /* May be NULL. */
    void (*on_caught_up)(void *ctx);               /* May be NULL. */
    void (*on_error)(void *ctx, bool fatal, const char *why);
};
int sl_reader_create(struct sl_loop *loop, const struct sl_kafka_config *config, const char *topic,
                     int32_t partition, int64_t offset, const struct sl_reader_callbacks *callbacks,
                     void *ctx, struct sl_reader **ret, char *why, size_t why_size) SL_CHECKED;
/* Takes NULL. May block for some 100 ms. Also from the reader's own callbacks. */
void sl_reader_destroy(struct sl_reader *reader);

/* --- Administration; blocks, for the command line --- */

struct sl_topic_spec {
    const char *name;
    int32_t partitions;
    int32_t replication;       /* -1: the broker's default. */
    const char *const *config; /* Name and value in turn, NULL at the end. */
};
/* Creates what does not exist; existing topics are left alone (result_err[i] -SL_EEXIST). 0 when
 * all exist now; else the first error, with the reason in why. */
int sl_kafka_create_topics(const struct sl_kafka_config *config, const struct sl_topic_spec *specs,
                           size_t count, int timeout_ms, int *result_err, char *why,
                           size_t why_size) SL_CHECKED;
/* Partitions of a topic: >= 1, -SL_ENOENT, -SL_ETIMEDOUT. */
int sl_kafka_partition_count(const struct sl_kafka_config *config, const char *topic,
                             int timeout_ms);
/* Lag of a group on a topic, all partitions: >= 0, or -SL_E*. Committed offset missing: from the
 * start. */
int64_t sl_kafka_group_lag(const struct sl_kafka_config *config, const char *group,
                           const char *topic, int timeout_ms);

#endif
