/* common/kafka_follow.h where no partition can be read: defines its functions. */
#ifndef TESTS_SUPPORT_FAKE_FOLLOWER_H
#define TESTS_SUPPORT_FAKE_FOLLOWER_H

#include "common/kafka_follow.h"

int sl_follower_create(struct sl_loop *loop, const struct sl_kafka_config *config,
                       const struct sl_follower_callbacks *callbacks, void *ctx,
                       struct sl_follower **ret, char *why, size_t why_size)
{
    (void)loop, (void)config, (void)callbacks, (void)ctx, (void)why, (void)why_size;
    *ret = NULL;
    return 0;
}

int sl_follower_add(struct sl_follower *follower, const char *topic, int32_t partition,
                    int64_t offset)
{
    (void)follower, (void)topic, (void)partition, (void)offset;
    return -SL_EIO;
}

void sl_follower_remove(struct sl_follower *follower, const char *topic, int32_t partition)
{
    (void)follower, (void)topic, (void)partition;
}

int64_t sl_follower_position(const struct sl_follower *follower, const char *topic,
                             int32_t partition)
{
    (void)follower, (void)topic, (void)partition;
    return -1;
}

void sl_follower_destroy(struct sl_follower *follower)
{
    (void)follower;
}

#endif
