/*
 * Kafka without a broker, in the test's hand: a producer whose records wait until the test says
 * what became of them, and a consumer that is given records one by one. Replaces kafka_producer.c
 * and kafka_consumer.c at link time. What users of kafka.h must not do ends the test: end a
 * position twice, end one that was never given, leave twice.
 */
#ifndef TESTS_SUPPORT_FAKE_KAFKA_H
#define TESTS_SUPPORT_FAKE_KAFKA_H

#include "common/kafka.h"

enum { FAKE_SENT_MAX = 512, FAKE_TOPIC_MAX = 64 };

/* A record that was sent. */
struct fake_sent {
    bool open; /* No report yet. */
    bool acked;
    int64_t offset; /* Acked: in partition 7; no two have the same. */
    char topic[FAKE_TOPIC_MAX];
    char key[128];
    int32_t partition;
    struct sl_buf value; /* Terminated beyond its length. */
    char error[64];      /* Header __connect.errors.exception.class.name. */
    char type[40];       /* Header content-type. */
    char id[80];         /* Header sluice-id. */
    sl_delivery_cb *cb;
    void *ctx;
};

/* All records since the start, or the last fake_forget. */
size_t fake_sent_count(void);
struct fake_sent *fake_sent(size_t i);
/* The first open one to this topic (without prefix), NULL: none. */
struct fake_sent *fake_open(const char *topic);
size_t fake_count(const char *topic); /* All that were sent to it. */
size_t fake_open_count(void);
void fake_report(struct fake_sent *sent, int err);
void fake_forget(void); /* Those with reports. */
/* What sends to this topic (without prefix) are refused with, 0: taken. NULL: every topic. */
void fake_refuse(const char *topic, int err);
/* Asked at each send: 0, or what it is refused with. NULL: nothing is. */
extern int (*fake_on_send)(const char *topic);
void fake_make_room(void);     /* on_room fires. */
void fake_producer_dies(void); /* A fatal error. */
extern bool fake_flushes;      /* What is open when the producer ends arrives just so. */
/* Called at each report with err 0, before its callback. */
extern void (*fake_on_ack)(const struct fake_sent *sent);

/* A record for the worker, at the next offset of its partition; whether there was room for it. */
struct fake_record {
    uint32_t topic;
    int32_t partition;
    const char *id;       /* Header sluice-id; NULL: none. */
    const char *type;     /* Header content-type; NULL: none. */
    const char *reply_to; /* NULL: none. */
    const char *deadline; /* NULL: none. */
    bool bundles;         /* Header reply-bundles: 1. */
    int64_t timestamp_ms;
    struct sl_span key, value;
};
bool fake_consume(const struct fake_record *record, struct sl_position *ret);
/* The same record again, as after a rebalance. */
bool fake_consume_again(const struct sl_position *old, struct sl_position *ret);
/* All partitions are taken away and given back: positions so far are of no use any more. */
void fake_rebalance(void);
bool fake_ended(const struct sl_position *position);
size_t fake_unended(void); /* Positions of the assignment that lasts. */
/* Called when a position of the current assignment ends. */
extern void (*fake_on_end)(const struct sl_position *position);
extern size_t fake_kicks;
void fake_consumer_dies(void); /* A fatal error. */
bool fake_leaving(void);
void fake_left(void); /* The group was left. */

#endif
