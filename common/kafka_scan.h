/*
 * Reading topics from end to end without a loop or a group, and deleting what was read: for the
 * command line. Every call blocks, for about its time-out at most.
 */
#ifndef SLUICE_COMMON_KAFKA_SCAN_H
#define SLUICE_COMMON_KAFKA_SCAN_H

#include "common/kafka.h"

/* One Kafka client; reads one partition at a time. */
struct sl_scan;

/* timeout_ms: of each call below. why: also where those put the reason when they fail; it must
 * outlive the scan. 0, -SL_EINVAL, -SL_ENOMEM, -SL_EIO. */
int sl_scan_create(const struct sl_kafka_config *config, int timeout_ms, char *why, size_t why_size,
                   struct sl_scan **ret) SL_CHECKED;
void sl_scan_destroy(struct sl_scan *scan); /* Takes NULL. */

/* Calls on_topic, inside, for each topic whose name begins and ends so, in the broker's order; the
 * name is borrowed. 0 or -SL_E*. */
int sl_scan_topics(struct sl_scan *scan, const char *prefix, const char *suffix,
                   void (*on_topic)(void *ctx, const char *name, int32_t partitions),
                   void *ctx) SL_CHECKED;

/* The first offset of the partition whose record was appended at time_ms (Unix) or later; its end
 * where there is none. 0 or -SL_E*. */
int sl_scan_find_time(struct sl_scan *scan, const char *topic, int32_t partition, int64_t time_ms,
                      int64_t *ret) SL_CHECKED;
/* Begins at offset from (SL_OFFSET_BEGINNING: the first there is; one that is gone: likewise) and
 * goes up to the partition's end at this moment. 0 or -SL_E*. */
int sl_scan_begin(struct sl_scan *scan, const char *topic, int32_t partition,
                  int64_t from) SL_CHECKED;
/* 1: a record with all its headers, valid until the next call on the scan. 0: the end was reached.
 * -SL_ETIMEDOUT: Kafka does not answer; or another -SL_E*. */
int sl_scan_next(struct sl_scan *scan, const struct sl_record **ret) SL_CHECKED;
/* Deletes the records before this offset from the partition that was begun; that cannot be undone.
 * 0 or -SL_E*: then they may be deleted all the same. */
int sl_scan_delete(struct sl_scan *scan, int64_t before) SL_CHECKED;

#endif
