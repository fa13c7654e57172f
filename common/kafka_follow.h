/*
 * Following partitions from offsets, without a group: one client for any number of partitions,
 * which come and go while it runs. For readers who want to see again what was written.
 */
#ifndef SLUICE_COMMON_KAFKA_FOLLOW_H
#define SLUICE_COMMON_KAFKA_FOLLOW_H

#include "common/kafka.h"

struct sl_follower;

struct sl_follower_callbacks {
    void (*on_record)(void *ctx, const struct sl_record *record);
    /* Everything that stood in the partition was given: next is the offset that the next record
     * will have. Comes each time that the end is reached. */
    void (*on_end)(void *ctx, const char *topic, int32_t partition, int64_t next);
    /* offset, as asked for, is not in the log: below low it was removed by retention, else it was
     * never there. The partition is not followed any more. */
    void (*on_out_of_range)(void *ctx, const char *topic, int32_t partition, int64_t offset,
                            int64_t low);
    void (*on_error)(void *ctx, bool fatal, const char *why);
};

/* The client connects when the first partition is followed. The strings of config must last until
 * destroy. */
int sl_follower_create(struct sl_loop *loop, const struct sl_kafka_config *config,
                       const struct sl_follower_callbacks *callbacks, void *ctx,
                       struct sl_follower **ret, char *why, size_t why_size) SL_CHECKED;
/* Reads topic's partition from offset on. One that is followed already goes back to offset where
 * that lies before its position, and then gives records again that were given before; else nothing
 * changes. -SL_ENOMEM, -SL_EIO: the partition is not followed. Does not block. */
int sl_follower_add(struct sl_follower *follower, const char *topic, int32_t partition,
                    int64_t offset) SL_CHECKED;
/* No record of it comes any more, from the next turn at the latest. Does not block. */
void sl_follower_remove(struct sl_follower *follower, const char *topic, int32_t partition);
/* The offset of the next record that will be given; -1: not followed. */
int64_t sl_follower_position(const struct sl_follower *follower, const char *topic,
                             int32_t partition);
/* Takes NULL. May block for some 100 ms; for the end of the process, and from no callback. */
void sl_follower_destroy(struct sl_follower *follower);

#endif
