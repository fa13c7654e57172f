/*
 * The settings of the chain's clients: those of Sluice's own (common/kafka.c, kafka_consumer.c and
 * kafka_producer.c beside it), then what the command line says. They are written down again here,
 * since Sluice's are private to its clients; whoever changes them there changes them here, or the
 * floor is another one. A setting that librdkafka does not take ends the program with its reason.
 */
#include "tests/bench/floor_hops_conf.h"

#include <stdio.h>
#include <string.h>

/* clang-format off */
static const char *const common_properties[] = {
    "socket.nagle.disable=true",
    "socket.keepalive.enable=true",
    "socket.timeout.ms=10000",
    "reconnect.backoff.ms=50",
    "reconnect.backoff.max.ms=1000",
    "log.connection.close=false",
    "topic.metadata.refresh.interval.ms=10000",
    NULL,
};

static const char *const consumer_properties[] = {
    "partition.assignment.strategy=range",
    "enable.auto.offset.store=false",
    "enable.auto.commit=true",
    "auto.commit.interval.ms=1000",
    "auto.offset.reset=earliest",
    "session.timeout.ms=10000",
    "heartbeat.interval.ms=1000",
    "max.poll.interval.ms=60000",
    "fetch.min.bytes=1",
    "fetch.wait.max.ms=100",
    "fetch.error.backoff.ms=100",
    "queued.max.messages.kbytes=8192",
    NULL,
};

static const char *const producer_properties[] = {
    "acks=all",
    "enable.idempotence=true",
    "linger.ms=0",
    "message.timeout.ms=30000",
    "message.max.bytes=26214400",
    "queue.buffering.max.messages=100000",
    "queue.buffering.max.kbytes=65536",
    "partitioner=murmur2_random",
    NULL,
};
/* clang-format on */

static void tell(const char *what, const char *why)
{
    fprintf(stderr, "bench_floor_hops: %s: %s\n", what, why);
}

static bool set(rd_kafka_conf_t *conf, const char *name, const char *value)
{
    char why[256] = "";
    if (rd_kafka_conf_set(conf, name, value, why, sizeof(why)) != RD_KAFKA_CONF_OK) {
        tell(name, why);
        return false;
    }
    return true;
}

static bool set_all(rd_kafka_conf_t *conf, const char *const *properties)
{
    for (size_t i = 0; properties[i] != NULL; i++) {
        char name[NAME_SIZE] = "";
        size_t len = strcspn(properties[i], "=");
        if (len >= sizeof(name) || properties[i][len] != '=') {
            tell(properties[i], "is not name=value");
            return false;
        }
        memcpy(name, properties[i], len);
        if (!set(conf, name, properties[i] + len + 1)) {
            return false;
        }
    }
    return true;
}

static rd_kafka_conf_t *make_conf(const struct hops_options *options, rd_kafka_type_t type)
{
    bool consumer = type == RD_KAFKA_CONSUMER;
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    if (set(conf, "bootstrap.servers", options->brokers) && set_all(conf, common_properties) &&
        set_all(conf, consumer ? consumer_properties : producer_properties) &&
        set_all(conf, consumer ? options->consumer : options->producer)) {
        return conf;
    }
    rd_kafka_conf_destroy(conf);
    return NULL;
}

bool hops_conf_check(const struct hops_options *options)
{
    rd_kafka_conf_t *consumer = make_conf(options, RD_KAFKA_CONSUMER);
    rd_kafka_conf_t *producer = make_conf(options, RD_KAFKA_PRODUCER);
    bool good = consumer != NULL && producer != NULL;
    if (consumer != NULL) {
        rd_kafka_conf_destroy(consumer);
    }
    if (producer != NULL) {
        rd_kafka_conf_destroy(producer);
    }
    return good;
}

rd_kafka_t *hops_client_create(const struct hops_options *options, rd_kafka_type_t type,
                               const char *group)
{
    rd_kafka_conf_t *conf = make_conf(options, type);
    if (conf == NULL) {
        return NULL;
    }
    if (group != NULL && !set(conf, "group.id", group)) {
        rd_kafka_conf_destroy(conf);
        return NULL;
    }
    rd_kafka_conf_set_events(conf, type == RD_KAFKA_CONSUMER
                                       ? RD_KAFKA_EVENT_REBALANCE | RD_KAFKA_EVENT_ERROR
                                       : RD_KAFKA_EVENT_DR | RD_KAFKA_EVENT_ERROR);
    char why[256] = "";
    rd_kafka_t *rk = rd_kafka_new(type, conf, why, sizeof(why));
    if (rk == NULL) {
        tell("rd_kafka_new", why);
        rd_kafka_conf_destroy(conf);
    }
    return rk;
}
