/* Memory that a burst needed goes back to the system when the burst is over. */
#ifndef SLUICE_COMMON_TRIM_H
#define SLUICE_COMMON_TRIM_H

#include "common/loop.h"

struct sl_trim { /* Zeroed at first. One a process, since the heap is. */
    struct sl_loop *loop;
    struct sl_timer timer;
    size_t (*busy)(void *ctx);
    void *ctx;
    size_t kept;    /* Bytes in memory after the last time. */
    bool gave_much; /* The last time. */
    bool was_busy;  /* With something that may have ended since. */
};

/* Looks once a second. busy says on how many jobs or connections the process works now: free memory
 * is given back, which takes some milliseconds for 100 MB, when few are left of many. */
void sl_trim_start(struct sl_trim *trim, struct sl_loop *loop, size_t (*busy)(void *ctx),
                   void *ctx);
void sl_trim_stop(struct sl_trim *trim); /* Also when it was never started. */

#endif
