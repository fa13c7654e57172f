/* The mock cluster belongs to a librdkafka client that does nothing else. */
#include "tests/support/kafka_mock.h"

#include "tests/support/test.h"

#include <librdkafka/rdkafka.h>
#include <librdkafka/rdkafka_mock.h>

enum { BROKER = 1, API_PRODUCE = 0, TOPICS_MAX = 64 };

static rd_kafka_t *rk;
static rd_kafka_mock_cluster_t *cluster;

static void stop(void)
{
    rd_kafka_mock_cluster_destroy(cluster);
    rd_kafka_destroy(rk);
}

static void start(void)
{
    char why[256];
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    CHECK(rd_kafka_conf_set(conf, "log_level", "3", why, sizeof(why)) == RD_KAFKA_CONF_OK);
    rk = rd_kafka_new(RD_KAFKA_PRODUCER, conf, why, sizeof(why));
    CHECK(rk != NULL);
    cluster = rd_kafka_mock_cluster_new(rk, 1);
    CHECK(cluster != NULL);
    atexit(stop);
}

const char *kafka_mock_brokers(void)
{
    if (cluster == NULL) {
        start();
    }
    kafka_mock_set_up(true);
    return rd_kafka_mock_cluster_bootstraps(cluster);
}

const char *kafka_mock_topic(const char *prefix, int partitions)
{
    static char names[TOPICS_MAX][64];
    static int used;
    kafka_mock_brokers();
    CHECK(used < TOPICS_MAX);
    char *name = names[used++];
    snprintf(name, sizeof(names[0]), "%s.%d", prefix, used);
    CHECK(rd_kafka_mock_topic_create(cluster, name, partitions, 1) == RD_KAFKA_RESP_ERR_NO_ERROR);
    return name;
}

void kafka_mock_set_up(bool up)
{
    CHECK((up ? rd_kafka_mock_broker_set_up(cluster, BROKER)
              : rd_kafka_mock_broker_set_down(cluster, BROKER)) == RD_KAFKA_RESP_ERR_NO_ERROR);
}

void kafka_mock_fail_produce(int error, int count)
{
    for (int i = 0; i < count; i++) {
        rd_kafka_mock_push_request_errors(cluster, API_PRODUCE, 1, (rd_kafka_resp_err_t)error);
    }
}
