/*
 * librdkafka's mock brokers, inside the test process: they speak the protocol on loopback ports, so
 * that the code under test runs unchanged. Joining a group takes them three seconds; what needs
 * groups is tested on a real broker.
 */
#ifndef TESTS_SUPPORT_KAFKA_MOCK_H
#define TESTS_SUPPORT_KAFKA_MOCK_H

#include <stdbool.h>

/* One broker for the whole program, since stopping one can take a second: started by the first
 * call, up again by each, and stopped at exit. Its address; ends the test when it cannot. */
const char *kafka_mock_brokers(void);
/* A topic of a name of its own; valid until the program ends. */
const char *kafka_mock_topic(const char *prefix, int partitions);
/* Down: the broker drops its connections and takes no new ones. */
void kafka_mock_set_up(bool up);
/* Fails the next produce requests with this error of the protocol. */
void kafka_mock_fail_produce(int error, int count);

#endif
