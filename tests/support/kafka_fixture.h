/*
 * A real Kafka broker for tests: SLUICE_TEST_BROKERS names one that runs, or one is started from
 * the jars in .local/kafka/libs, on free loopback ports, with its data in a temporary directory.
 * It is stopped and its data removed when the test program ends, however it ends.
 */
#ifndef TESTS_SUPPORT_KAFKA_FIXTURE_H
#define TESTS_SUPPORT_KAFKA_FIXTURE_H

#include <stdint.h>

/* Starts it at the first call, in some seconds, and ends the test when it cannot. */
const char *kafka_fixture_brokers(void);
/* A topic of a name that nothing else uses; valid until the program ends. */
const char *kafka_fixture_topic(const char *prefix, int32_t partitions);

#endif
