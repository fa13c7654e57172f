/*
 * How many records of a topic a group has not committed: what is at the ends of its partitions less
 * what the group's commits say. That needs a client that bears the group's name, but that never
 * joins it. Each reading asks the coordinator once and each partition's leader once, and blocks.
 */
#include "common/kafka_lag.h"

#include "common/clock.h"
#include "common/kafka_internal.h"

#include <stdlib.h>
#include <unistd.h>

enum { RETRY_MS = 100 };

struct sl_kafka_lag {
    struct sl_kafka_client *client;
    char *topic;
};

/* What is left of a call's time; at least 1, so that librdkafka does not take it for a poll. */
static int left_ms(uint64_t end_ms)
{
    uint64_t now = sl_clock_now_ms();
    return now < end_ms ? (int)(end_ms - now) : 1;
}

/* Whether to ask again: a coordinator or leader that moves refuses for a moment. Waits for it. */
static bool ask_again(rd_kafka_resp_err_t err, uint64_t end_ms)
{
    if (!sl_kafka_error_is_transient(err) || sl_clock_now_ms() + RETRY_MS >= end_ms) {
        return false;
    }
    usleep(RETRY_MS * 1000);
    return true;
}

static int64_t partition_lag(rd_kafka_t *rk, const rd_kafka_topic_partition_t *committed,
                             uint64_t end_ms)
{
    int64_t low = 0, high = 0;
    rd_kafka_resp_err_t err;
    do {
        err = rd_kafka_query_watermark_offsets(rk, committed->topic, committed->partition, &low,
                                               &high, left_ms(end_ms));
    } while (ask_again(err, end_ms));
    if (err != RD_KAFKA_RESP_ERR_NO_ERROR) {
        return sl_kafka_map_error(err);
    }
    int64_t from = committed->offset > low ? committed->offset : low;
    return high > from ? high - from : 0;
}

/* A partition that has an error of its own makes the whole fail: its offset means nothing. */
static rd_kafka_resp_err_t ask_committed(rd_kafka_t *rk, rd_kafka_topic_partition_list_t *committed,
                                         uint64_t end_ms)
{
    rd_kafka_resp_err_t err = rd_kafka_committed(rk, committed, left_ms(end_ms));
    for (int i = 0; err == RD_KAFKA_RESP_ERR_NO_ERROR && i < committed->cnt; i++) {
        err = committed->elems[i].err;
    }
    return err;
}

static int64_t topic_lag(rd_kafka_t *rk, const char *topic, int partitions, uint64_t end_ms)
{
    rd_kafka_topic_partition_list_t *committed = rd_kafka_topic_partition_list_new(partitions);
    for (int32_t i = 0; i < partitions; i++) {
        rd_kafka_topic_partition_list_add(committed, topic, i);
    }
    rd_kafka_resp_err_t err;
    do {
        err = ask_committed(rk, committed, end_ms);
    } while (ask_again(err, end_ms));
    int64_t lag = sl_kafka_map_error(err);
    for (int i = 0; lag >= 0 && i < committed->cnt; i++) {
        int64_t more = partition_lag(rk, &committed->elems[i], end_ms);
        lag = more >= 0 ? lag + more : more;
    }
    rd_kafka_topic_partition_list_destroy(committed);
    return lag;
}

int sl_kafka_lag_open(const struct sl_kafka_config *config, const char *group, const char *topic,
                      struct sl_kafka_lag **ret)
{
    const char *const properties[] = {"group.id", group, "enable.auto.commit", "false", NULL};
    struct sl_kafka_lag *lag = calloc(1, sizeof(*lag));
    if (lag == NULL) {
        return -SL_ENOMEM;
    }
    lag->topic = strdup(topic);
    int rv = lag->topic == NULL ? -SL_ENOMEM : 0;
    rv = rv != 0 ? rv
                 : sl_kafka_client_create(RD_KAFKA_CONSUMER, config, properties, 0, &lag->client,
                                          NULL, 0);
    if (rv != 0) {
        sl_kafka_lag_close(lag);
        return rv;
    }
    *ret = lag;
    return 0;
}

int64_t sl_kafka_lag_read(struct sl_kafka_lag *lag, int timeout_ms)
{
    uint64_t end_ms = sl_clock_now_ms() + (uint64_t)(timeout_ms > 0 ? timeout_ms : 0);
    int count = sl_kafka_count_partitions(lag->client->rk, lag->topic, left_ms(end_ms));
    return count > 0 ? topic_lag(lag->client->rk, lag->topic, count, end_ms) : count;
}

void sl_kafka_lag_close(struct sl_kafka_lag *lag)
{
    if (lag == NULL) {
        return;
    }
    if (lag->client != NULL) {
        sl_kafka_client_destroy(lag->client, RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE);
    }
    free(lag->topic);
    free(lag);
}

int64_t sl_kafka_group_lag(const struct sl_kafka_config *config, const char *group,
                           const char *topic, int timeout_ms)
{
    struct sl_kafka_lag *lag = NULL;
    int rv = sl_kafka_lag_open(config, group, topic, &lag);
    if (rv != 0) {
        return rv;
    }
    int64_t records = sl_kafka_lag_read(lag, timeout_ms);
    sl_kafka_lag_close(lag);
    return records;
}
