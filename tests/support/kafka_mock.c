/* The mock cluster belongs to a librdkafka client that does nothing else. */
#include "tests/support/kafka_mock.h"

#include "tests/support/test.h"

#include <librdkafka/rdkafka.h>
#include <librdkafka/rdkafka_mock.h>

enum { BROKER = 1, API_PRODUCE = 0 };

struct kafka_mock {
    rd_kafka_t *rk;
    rd_kafka_mock_cluster_t *cluster;
};

struct kafka_mock *kafka_mock_start(void)
{
    char why[256];
    struct kafka_mock *mock = calloc(1, sizeof(*mock));
    CHECK(mock != NULL);
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    CHECK(rd_kafka_conf_set(conf, "log_level", "3", why, sizeof(why)) == RD_KAFKA_CONF_OK);
    mock->rk = rd_kafka_new(RD_KAFKA_PRODUCER, conf, why, sizeof(why));
    CHECK(mock->rk != NULL);
    mock->cluster = rd_kafka_mock_cluster_new(mock->rk, 1);
    CHECK(mock->cluster != NULL);
    return mock;
}

void kafka_mock_stop(struct kafka_mock *mock)
{
    rd_kafka_mock_cluster_destroy(mock->cluster);
    rd_kafka_destroy(mock->rk);
    free(mock);
}

const char *kafka_mock_brokers(const struct kafka_mock *mock)
{
    return rd_kafka_mock_cluster_bootstraps(mock->cluster);
}

void kafka_mock_topic(struct kafka_mock *mock, const char *topic, int partitions)
{
    CHECK(rd_kafka_mock_topic_create(mock->cluster, topic, partitions, 1) ==
          RD_KAFKA_RESP_ERR_NO_ERROR);
}

void kafka_mock_set_up(struct kafka_mock *mock, int up)
{
    CHECK((up ? rd_kafka_mock_broker_set_up(mock->cluster, BROKER)
              : rd_kafka_mock_broker_set_down(mock->cluster, BROKER)) ==
          RD_KAFKA_RESP_ERR_NO_ERROR);
}

void kafka_mock_fail_produce(struct kafka_mock *mock, int error, int count)
{
    for (int i = 0; i < count; i++) {
        rd_kafka_mock_push_request_errors(mock->cluster, API_PRODUCE, 1,
                                          (rd_kafka_resp_err_t)error);
    }
}
