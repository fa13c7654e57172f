/*
 * One producer a test is enough, so the count is one for all.
 */
#include "tests/support/kafka_reports.h"

#include "tests/support/test.h"

#include <stdio.h>

int kafka_reports;

void kafka_on_report(void *ctx, int err, int32_t partition, int64_t offset)
{
    (void)ctx;
    (void)partition;
    (void)offset;
    CHECK_INT(err, 0);
    kafka_reports++;
}

void kafka_on_fatal(void *ctx, const char *why)
{
    (void)ctx;
    fprintf(stderr, "producer: %s\n", why);
    CHECK(0);
}
