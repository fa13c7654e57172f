/*
 * The offsets of one partition that were taken and not yet committed: a bitmap of 65,536 over the
 * first unfinished one. Jobs end in any order; what may be committed is the prefix in which all
 * ended. Offsets that the log skips (compaction, transactions) count as ended.
 */
#ifndef SLUICE_COMMON_WINDOW_H
#define SLUICE_COMMON_WINDOW_H

#include "common/error.h"

#include <stdbool.h>
#include <stdint.h>

enum { SL_WINDOW_SIZE = 65536 };

struct sl_window {
    int64_t
        base;    /* The first offset that is not ended: what to commit. -1 before the first take. */
    int64_t end; /* One past the last offset taken. */
    uint64_t *done; /* SL_WINDOW_SIZE bits, a ring; made when a second offset is in flight. */
    uint32_t in_flight;
};

void sl_window_init(struct sl_window *window);
void sl_window_fini(struct sl_window *window);
/* The next offset of the log, greater than all before. 0, -SL_EAGAIN when full or -SL_ENOMEM (the
 * offset was not taken: read no further), -SL_EINVAL when it is below end (delivered twice in one
 * assignment). */
int sl_window_take(struct sl_window *window, int64_t offset) SL_CHECKED;
/* Marks a taken offset as ended; true when base moved. Ending twice is a mistake of ours: asserted.
 * Cannot fail: when memory for the bitmap is missing, take has failed before. */
bool sl_window_end(struct sl_window *window, int64_t offset);
bool sl_window_full(const struct sl_window *window, int64_t next_offset);

#endif
