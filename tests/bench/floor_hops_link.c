/*
 * One process's place in the chain: a member of a consumer group and an idempotent producer, with
 * the settings of Sluice's own clients (floor_hops_conf.c), and nothing else. librdkafka's queues
 * write to two eventfds when they become non-empty; an epoll waits for these and for what the
 * caller added. Nothing polls.
 *
 * A record is read, given to the caller, who sends the next one, and is finished when the broker
 * has acknowledged that one. Acknowledgements come in any order over partitions, so the records of
 * a partition stand in a list, and the offset of its finished beginning is stored; librdkafka
 * commits what is stored each second.
 *
 * What can go wrong: a record is not acknowledged, its offset is never stored and link_failed says
 * so; the broker goes away, and librdkafka connects again while the records wait.
 */
#include "tests/bench/floor_hops_conf.h"
#include "tests/bench/measure_clock.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { EVENTS = 8, FLUSH_MS = 5000, POLL_MS = 100 };

struct record {
    struct record *next;
    struct partition *partition;
    int64_t offset;
    bool done;
};

struct partition {
    struct record *first, *last;
    int64_t next; /* The first offset that is not finished. */
    bool dirty;
    rd_kafka_queue_t *queue; /* NULL: not assigned, or read through the consumer's. */
};

struct link {
    struct link_config config;
    char source[NAME_SIZE];
    rd_kafka_t *consumer, *producer;
    rd_kafka_topic_t *target;
    rd_kafka_queue_t *records; /* The consumer's queue. */
    rd_kafka_queue_t *reports;
    int consumer_fd, producer_fd, epoll_fd;
    size_t assigned, unacknowledged;
    bool dirty, failed;
    struct partition partitions[PARTITIONS_MAX];
};

static void tell(const char *what, const char *why)
{
    fprintf(stderr, "bench_floor_hops: %s: %s\n", what, why);
}

static void wake_by(rd_kafka_queue_t *queue, int fd)
{
    static const uint64_t one = 1;
    rd_kafka_queue_io_event_enable(queue, fd, &one, sizeof(one));
}

/* --- records and their offsets --- */

static void finish_record(struct link *link, struct record *record)
{
    struct partition *partition = record->partition;
    record->done = true;
    while (partition->first != NULL && partition->first->done) {
        struct record *first = partition->first;
        partition->next = first->offset + 1;
        partition->first = first->next;
        partition->dirty = link->dirty = true;
        free(first);
    }
}

void link_finish(struct link *link, struct record *record)
{
    finish_record(link, record);
}

static void store_offsets(struct link *link)
{
    if (!link->dirty) {
        return;
    }
    link->dirty = false;
    rd_kafka_topic_partition_list_t *offsets = rd_kafka_topic_partition_list_new(1);
    for (int i = 0; i < (int)link->config.options->partitions; i++) {
        if (link->partitions[i].dirty) {
            link->partitions[i].dirty = false;
            rd_kafka_topic_partition_list_add(offsets, link->source, i)->offset =
                link->partitions[i].next;
        }
    }
    (void)rd_kafka_offsets_store(link->consumer, offsets); /* Refused once the partition is gone. */
    rd_kafka_topic_partition_list_destroy(offsets);
}

static void on_message(struct link *link, const rd_kafka_message_t *message)
{
    if (message->err != RD_KAFKA_RESP_ERR_NO_ERROR) {
        tell(link->source, rd_kafka_message_errstr(message));
        return;
    }
    struct record *record = malloc(sizeof(*record));
    if (record == NULL) {
        link->failed = true;
        return;
    }
    struct partition *partition = &link->partitions[message->partition];
    *record = (struct record){.partition = partition, .offset = message->offset};
    if (partition->first == NULL) {
        partition->first = record;
    } else {
        partition->last->next = record;
    }
    partition->last = record;
    link->config.on_record(link->config.ctx, link, message->payload, message->len, record);
}

/* --- the consumer's events --- */

static void close_queues(struct link *link)
{
    for (size_t i = 0; i < PARTITIONS_MAX; i++) {
        struct partition *partition = &link->partitions[i];
        if (partition->queue != NULL) {
            rd_kafka_queue_io_event_enable(partition->queue, -1, NULL, 0);
            rd_kafka_queue_destroy(partition->queue);
            partition->queue = NULL;
        }
    }
}

static void open_queue(struct link *link, int32_t id)
{
    rd_kafka_queue_t *queue = rd_kafka_queue_get_partition(link->consumer, link->source, id);
    if (queue == NULL) {
        link->failed = true;
        return;
    }
    rd_kafka_queue_forward(queue, NULL);
    wake_by(queue, link->consumer_fd);
    link->partitions[id].queue = queue;
}

static void on_rebalance(struct link *link, rd_kafka_event_t *event)
{
    const rd_kafka_topic_partition_list_t *list = rd_kafka_event_topic_partition_list(event);
    bool assigned = rd_kafka_event_error(event) == RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
    store_offsets(link);
    close_queues(link);
    link->assigned = assigned ? (size_t)list->cnt : 0;
    for (int i = 0; assigned && link->config.options->partition_queues && i < list->cnt; i++) {
        open_queue(link, list->elems[i].partition);
    }
    rd_kafka_resp_err_t err = rd_kafka_assign(link->consumer, assigned ? list : NULL);
    if (err != RD_KAFKA_RESP_ERR_NO_ERROR) {
        tell("assign", rd_kafka_err2str(err));
        link->failed = true;
    }
}

static void on_error(struct link *link, rd_kafka_event_t *event)
{
    tell(link->source, rd_kafka_event_error_string(event));
    link->failed = link->failed || rd_kafka_event_error_is_fatal(event) != 0 ||
                   rd_kafka_event_error(event) == RD_KAFKA_RESP_ERR__FATAL;
}

static void read_consumer(struct link *link)
{
    rd_kafka_event_t *event;
    while ((event = rd_kafka_queue_poll(link->records, 0)) != NULL) {
        const rd_kafka_message_t *message;
        switch (rd_kafka_event_type(event)) {
        case RD_KAFKA_EVENT_REBALANCE:
            on_rebalance(link, event);
            break;
        case RD_KAFKA_EVENT_ERROR:
            on_error(link, event);
            break;
        case RD_KAFKA_EVENT_FETCH:
            while ((message = rd_kafka_event_message_next(event)) != NULL) {
                on_message(link, message);
            }
            break;
        default:
            break;
        }
        rd_kafka_event_destroy(event);
    }
    for (unsigned i = 0; i < link->config.options->partitions; i++) {
        rd_kafka_queue_t *queue = link->partitions[i].queue;
        rd_kafka_message_t *message;
        while (queue != NULL && (message = rd_kafka_consume_queue(queue, 0)) != NULL) {
            on_message(link, message);
            rd_kafka_message_destroy(message);
        }
    }
}

/* --- the producer --- */

static void on_report(struct link *link, const rd_kafka_message_t *message)
{
    link->unacknowledged--;
    if (message->err != RD_KAFKA_RESP_ERR_NO_ERROR) {
        tell("a record is not acknowledged", rd_kafka_err2str(message->err));
        link->failed = true;
    } else if (message->_private != NULL) {
        finish_record(link, message->_private);
    }
}

static void read_producer(struct link *link, int limit_ms)
{
    rd_kafka_event_t *event;
    while ((event = rd_kafka_queue_poll(link->reports, limit_ms)) != NULL) {
        const rd_kafka_message_t *message;
        if (rd_kafka_event_type(event) == RD_KAFKA_EVENT_ERROR) {
            on_error(link, event);
        }
        while ((message = rd_kafka_event_message_next(event)) != NULL) {
            on_report(link, message);
        }
        rd_kafka_event_destroy(event);
        limit_ms = 0;
    }
}

void link_send(struct link *link, const void *data, size_t len, struct record *record)
{
    uint64_t key = measure_now_ns(); /* Another partition for each, as ids are. */
    if (rd_kafka_produce(link->target, RD_KAFKA_PARTITION_UA, RD_KAFKA_MSG_F_COPY,
                         (void *)(uintptr_t)data, len, &key, sizeof(key), record) != 0) {
        tell("produce", rd_kafka_err2str(rd_kafka_last_error()));
        link->failed = true;
        return;
    }
    link->unacknowledged++;
}

/* --- life --- */

bool link_assigned(const struct link *link)
{
    return link->assigned == link->config.options->partitions;
}

bool link_failed(const struct link *link)
{
    return link->failed;
}

int link_epoll(const struct link *link)
{
    return link->epoll_fd;
}

int link_wait(struct link *link, int limit_ms)
{
    struct epoll_event events[EVENTS];
    int count = epoll_wait(link->epoll_fd, events, EVENTS, limit_ms);
    int other = -1;
    if (count <= 0) { /* librdkafka takes a process that never looks for stuck. */
        read_consumer(link);
        read_producer(link, 0);
    }
    for (int i = 0; i < count; i++) {
        uint64_t wakes;
        int fd = events[i].data.fd;
        if (fd == link->consumer_fd) {
            (void)!read(fd, &wakes, sizeof(wakes)); /* Before the queues, or a wake-up is lost. */
            read_consumer(link);
        } else if (fd == link->producer_fd) {
            (void)!read(fd, &wakes, sizeof(wakes));
            read_producer(link, 0);
        } else {
            other = other < 0 ? fd : other;
        }
    }
    store_offsets(link);
    return other;
}

static int open_descriptors(struct link *link)
{
    link->consumer_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    link->producer_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    link->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event consumer = {.events = EPOLLIN, .data.fd = link->consumer_fd};
    struct epoll_event producer = {.events = EPOLLIN, .data.fd = link->producer_fd};
    if (link->consumer_fd < 0 || link->producer_fd < 0 || link->epoll_fd < 0 ||
        epoll_ctl(link->epoll_fd, EPOLL_CTL_ADD, link->consumer_fd, &consumer) != 0 ||
        epoll_ctl(link->epoll_fd, EPOLL_CTL_ADD, link->producer_fd, &producer) != 0) {
        tell("epoll", strerror(errno));
        return -SL_EIO;
    }
    return 0;
}

static int open_clients(struct link *link)
{
    const struct hops_options *options = link->config.options;
    char target[NAME_SIZE];
    hops_name(options, link->config.target, target);
    link->consumer = hops_client_create(options, RD_KAFKA_CONSUMER, link->source);
    link->producer = hops_client_create(options, RD_KAFKA_PRODUCER, NULL);
    if (link->consumer == NULL || link->producer == NULL) {
        return -SL_EIO;
    }
    rd_kafka_poll_set_consumer(link->consumer);
    link->records = rd_kafka_queue_get_consumer(link->consumer);
    link->reports = rd_kafka_queue_get_main(link->producer);
    link->target = rd_kafka_topic_new(link->producer, target, NULL); /* Asks for its metadata. */
    rd_kafka_topic_partition_list_t *topics = rd_kafka_topic_partition_list_new(1);
    rd_kafka_topic_partition_list_add(topics, link->source, RD_KAFKA_PARTITION_UA);
    rd_kafka_resp_err_t err = rd_kafka_subscribe(link->consumer, topics);
    rd_kafka_topic_partition_list_destroy(topics);
    if (err != RD_KAFKA_RESP_ERR_NO_ERROR || link->target == NULL) {
        tell("subscribe", rd_kafka_err2str(err));
        return -SL_EIO;
    }
    wake_by(link->records, link->consumer_fd);
    wake_by(link->reports, link->producer_fd);
    return 0;
}

int link_create(const struct link_config *config, struct link **ret)
{
    struct link *link = calloc(1, sizeof(*link));
    if (link == NULL) {
        return -SL_ENOMEM;
    }
    link->config = *config;
    hops_name(config->options, config->source, link->source);
    int rc = open_descriptors(link);
    if (rc == 0) {
        rc = open_clients(link);
    }
    if (rc != 0) {
        link_destroy(link);
        return rc;
    }
    *ret = link;
    return 0;
}

static void close_producer(struct link *link)
{
    uint64_t until = measure_now_ns() + FLUSH_MS * MEASURE_MS_NS;
    while (link->unacknowledged > 0 && measure_now_ns() < until) {
        read_producer(link, POLL_MS);
    }
    if (link->reports != NULL) {
        rd_kafka_queue_destroy(link->reports);
    }
    if (link->target != NULL) {
        rd_kafka_topic_destroy(link->target);
    }
    rd_kafka_destroy(link->producer);
}

static void close_consumer(struct link *link)
{
    store_offsets(link);
    close_queues(link);
    if (link->records != NULL) {
        rd_kafka_queue_destroy(link->records);
    }
    (void)rd_kafka_consumer_close(link->consumer);
    rd_kafka_destroy(link->consumer);
}

static void free_records(struct link *link)
{
    for (size_t i = 0; i < PARTITIONS_MAX; i++) {
        while (link->partitions[i].first != NULL) {
            struct record *first = link->partitions[i].first;
            link->partitions[i].first = first->next;
            free(first);
        }
    }
}

void link_destroy(struct link *link)
{
    if (link == NULL) {
        return;
    }
    if (link->producer != NULL) {
        close_producer(link);
    }
    if (link->consumer != NULL) {
        close_consumer(link);
    }
    free_records(link);
    const int fds[] = {link->consumer_fd, link->producer_fd, link->epoll_fd};
    for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++) {
        if (fds[i] > 0) {
            close(fds[i]);
        }
    }
    free(link);
}
