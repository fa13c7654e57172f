/* Retention at once: removes a partition's records, as the broker does with old ones. */
#ifndef TESTS_SUPPORT_KAFKA_TRIM_H
#define TESTS_SUPPORT_KAFKA_TRIM_H

#include <stdint.h>

/* The partition's log begins at low from now on; ends the test when it cannot. */
void kafka_trim(const char *brokers, const char *topic, int32_t partition, int64_t low);

#endif
