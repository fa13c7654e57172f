/*
 * What kafka.c gives to the files beside it: a librdkafka client with its configuration, log lines,
 * wake-up descriptor and bounded destruction. The one file of Sluice that includes rdkafka.h, and
 * only common/kafka*.{c,h} include it.
 */
#ifndef SLUICE_COMMON_KAFKA_INTERNAL_H
#define SLUICE_COMMON_KAFKA_INTERNAL_H

#include "common/kafka.h"

#include <librdkafka/rdkafka.h>
#include <stdatomic.h>

/* A client and all that its threads touch: it outlives the owner while they end. */
struct sl_kafka_client {
    rd_kafka_t *rk;
    struct sl_poll *poll;          /* On wake_fd; NULL without a loop. */
    int wake_fd;                   /* An eventfd that librdkafka's queues write to. */
    _Atomic uint64_t quiet_end_ms; /* Until then connection failures are counted, not logged. */
    _Atomic uint32_t unlogged;
    atomic_bool closing; /* Connections that end are no failures any more. */
};

/* A client with the properties given (name and value in turn, NULL at the end), then config->extra;
 * a property that this librdkafka does not know is an error, unless its name starts with '?'.
 * events: RD_KAFKA_EVENT_*. why gets the reason. 0, -SL_EINVAL, -SL_ENOMEM or -SL_EIO. */
int sl_kafka_client_create(rd_kafka_type_t type, const struct sl_kafka_config *config,
                           const char *const *properties, int events, struct sl_kafka_client **ret,
                           char *why, size_t why_size) SL_CHECKED;
/* on_wake(ctx) when a queue given to sl_kafka_wake_by had been empty and is not. */
int sl_kafka_client_watch(struct sl_kafka_client *client, struct sl_loop *loop, sl_poll_cb *on_wake,
                          void *ctx) SL_CHECKED;
/* The queue may hold something already: read it once after this. */
void sl_kafka_wake_by(struct sl_kafka_client *client, rd_kafka_queue_t *queue);
void sl_kafka_wake_clear(struct sl_kafka_client *client); /* Before the queues are read. */
/* Every queue, topic, list and message of the client must have been given back. Blocks for at most
 * some seconds; a client that hangs is then left to its threads. flags: of
 * rd_kafka_destroy_flags. Takes NULL. */
void sl_kafka_client_destroy(struct sl_kafka_client *client, int flags);

/* Partitions of a topic: >= 1, -SL_ENOENT, or what went wrong. Blocks. */
int sl_kafka_count_partitions(rd_kafka_t *rk, const char *topic, int timeout_ms);

int sl_kafka_map_error(rd_kafka_resp_err_t err); /* 0 or -SL_E*. */
/* Errors that librdkafka repairs by itself and has logged. */
bool sl_kafka_error_is_transient(rd_kafka_resp_err_t err);
bool sl_kafka_event_is_fatal(rd_kafka_event_t *event); /* Of an error event. */
/* An error event of a client that reads without a group, which librdkafka wants a name of all the
 * same: should it be told of? Not being allowed to use the name does no harm. */
bool sl_kafka_event_matters(rd_kafka_event_t *event);
void sl_kafka_why(char *why, size_t why_size, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* A message as a record that borrows from it. */
struct sl_kafka_view {
    struct sl_record record;
    struct sl_kafka_header headers[SL_KAFKA_HEADERS_MAX];
};
void sl_kafka_view_init(struct sl_kafka_view *view, const rd_kafka_message_t *message);

#endif
