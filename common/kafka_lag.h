/* A group's lag on a topic, again and again. */
#ifndef SLUICE_COMMON_KAFKA_LAG_H
#define SLUICE_COMMON_KAFKA_LAG_H

#include "common/kafka.h"

struct sl_kafka_lag;

/* Copies group and topic; connects when it is read. 0, -SL_EINVAL, -SL_ENOMEM or -SL_EIO. */
int sl_kafka_lag_open(const struct sl_kafka_config *config, const char *group, const char *topic,
                      struct sl_kafka_lag **ret) SL_CHECKED;
/* Records of all partitions that the group has not committed, or -SL_E*. Blocks; any thread, one at
 * a time. */
int64_t sl_kafka_lag_read(struct sl_kafka_lag *lag, int timeout_ms);
void sl_kafka_lag_close(
    struct sl_kafka_lag *lag); /* Takes NULL. Blocks for some seconds at most. */

#endif
