/*
 * librdkafka's mock brokers, inside the test process: they speak the protocol on loopback ports, so
 * that the code under test runs unchanged. Joining a group takes them three seconds; what needs
 * groups is tested on a real broker.
 */
#ifndef TESTS_SUPPORT_KAFKA_MOCK_H
#define TESTS_SUPPORT_KAFKA_MOCK_H

struct kafka_mock;

struct kafka_mock *kafka_mock_start(void); /* One broker; ends the test when it cannot. */
void kafka_mock_stop(struct kafka_mock *mock);
const char *kafka_mock_brokers(const struct kafka_mock *mock);
void kafka_mock_topic(struct kafka_mock *mock, const char *topic, int partitions);
/* The broker drops its connections and takes no new ones, or does again. */
void kafka_mock_set_up(struct kafka_mock *mock, int up);
/* Fails the next produce requests with this error of the protocol. */
void kafka_mock_fail_produce(struct kafka_mock *mock, int error, int count);

#endif
