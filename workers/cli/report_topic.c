/*
 * A report from the topic sluice.analytics: each partition is read from the first record that was
 * appended in the span, which can be no earlier than the result that it is about.
 */
#include "workers/cli/report.h"

#include "common/kafka_scan.h"

#include <stdio.h>

enum { TIMEOUT_MS = 10000 };

static int read_partition(struct sl_scan *scan, const char *topic, int32_t partition,
                          struct report_gather *gather, const struct report *span)
{
    const struct sl_record *record;
    int64_t from;
    int rv = sl_scan_find_time(scan, topic, partition, span->from_ms, &from);
    rv = rv != 0 ? rv : sl_scan_begin(scan, topic, partition, from);
    while (rv == 0 && (rv = sl_scan_next(scan, &record)) > 0) {
        rv = report_gather_add(gather, span, record->value);
    }
    return rv;
}

static int read_all(struct sl_scan *scan, const char *topic, int32_t partitions,
                    struct report *report, char why[REPORT_WHY])
{
    struct report_gather *gather;
    int rv = report_gather_create(&gather);
    if (rv != 0) {
        snprintf(why, REPORT_WHY, "%s", sl_error_text(rv));
        return rv;
    }
    for (int32_t i = 0; i < partitions && rv == 0; i++) {
        rv = read_partition(scan, topic, i, gather, report);
    }
    bool cut = rv == -SL_ETOOBIG;
    if (rv == 0 || cut) {
        report_gather_finish(gather, report);
        report->cut = cut;
        rv = 0;
    } else if (why[0] == '\0') {
        snprintf(why, REPORT_WHY, "%s", sl_error_text(rv));
    }
    report_gather_destroy(gather);
    return rv;
}

int report_from_topic(const char *brokers, const char *topic, struct report *report,
                      char why[REPORT_WHY])
{
    const struct sl_kafka_config kafka = {.brokers = brokers, .client_id = "sluice"};
    struct sl_scan *scan;
    why[0] = '\0';
    int partitions = sl_kafka_partition_count(&kafka, topic, TIMEOUT_MS);
    if (partitions < 0) {
        snprintf(why, REPORT_WHY, "%s", sl_error_text(partitions));
        return partitions;
    }
    int rv = sl_scan_create(&kafka, TIMEOUT_MS, why, REPORT_WHY, &scan);
    if (rv == 0) {
        rv = read_all(scan, topic, partitions, report, why);
        sl_scan_destroy(scan);
    }
    return rv;
}
