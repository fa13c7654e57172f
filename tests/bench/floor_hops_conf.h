/* Makes the clients of bench_floor_hops; the header that brings librdkafka into its parts. */
#ifndef TESTS_BENCH_FLOOR_HOPS_CONF_H
#define TESTS_BENCH_FLOOR_HOPS_CONF_H

#include "tests/bench/floor_hops.h"

#include <librdkafka/rdkafka.h>

/* A client with the settings of Sluice's and the options' own; group: of a consumer, else NULL.
 * NULL after a line on standard error. */
rd_kafka_t *hops_client_create(const struct hops_options *options, rd_kafka_type_t type,
                               const char *group);

#endif
