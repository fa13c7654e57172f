/*
 * Callbacks for the producer of a test: what it sends has to arrive.
 */
#ifndef TESTS_SUPPORT_KAFKA_REPORTS_H
#define TESTS_SUPPORT_KAFKA_REPORTS_H

#include "common/kafka.h"

/* How many records the broker has acknowledged; the test sets it back. */
extern int kafka_reports;
/* Counts; a record that is not delivered ends the test. */
void kafka_on_report(void *ctx, int err, int32_t partition, int64_t offset);
/* Ends the test. */
void kafka_on_fatal(void *ctx, const char *why);

#endif
