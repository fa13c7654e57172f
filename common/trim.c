/*
 * glibc keeps what was freed, unless it lies at the very end of the heap: after a thousand streams
 * a worker would hold a hundred times of what it needs, for ever. malloc_trim() gives back every
 * free page wherever it lies, but walks the whole heap for it, so it is called only while nearly
 * nothing is under way, and only when the process has grown since the last time.
 *
 * What can go wrong: memory that is really in use, such as a cache, is not given back; it counts as
 * what is kept from then on. Without /proc nothing is given back.
 */
#include "common/trim.h"

#include <malloc.h>
#include <stdio.h>
#include <unistd.h>

enum { TICK_MS = 1000, BUSY_MAX = 32, GROWN_BYTES = 2 << 20 };

/* What of this process is in memory, without the pages of files; 0: not known. */
static size_t resident_bytes(void)
{
    unsigned long size = 0, resident = 0, shared = 0;
    FILE *statm = fopen("/proc/self/statm", "re");
    if (statm == NULL) {
        return 0;
    }
    int read = fscanf(statm, "%lu %lu %lu", &size, &resident, &shared);
    fclose(statm);
    return read == 3 && resident > shared ? (resident - shared) * (size_t)getpagesize() : 0;
}

static void give_back(struct sl_trim *trim, size_t busy)
{
    size_t before = resident_bytes();
    bool idle_now = trim->was_busy && busy == 0;
    if (before > trim->kept + GROWN_BYTES || trim->gave_much || idle_now) {
        malloc_trim(0);
        trim->kept = resident_bytes();
        trim->gave_much = before > trim->kept + GROWN_BYTES;
        trim->was_busy = busy > 0;
    }
    trim->kept = before < trim->kept ? before : trim->kept;
}

static void on_tick(struct sl_timer *timer)
{
    struct sl_trim *trim = SL_ITEM(timer, struct sl_trim, timer);
    size_t busy = trim->busy(trim->ctx);
    if (busy <= BUSY_MAX) {
        give_back(trim, busy);
    }
    sl_timer_start(trim->loop, timer, TICK_MS, on_tick);
}

void sl_trim_start(struct sl_trim *trim, struct sl_loop *loop, size_t (*busy)(void *ctx), void *ctx)
{
    trim->loop = loop;
    trim->busy = busy;
    trim->ctx = ctx;
    sl_timer_start(loop, &trim->timer, TICK_MS, on_tick);
}

void sl_trim_stop(struct sl_trim *trim)
{
    if (trim->loop != NULL) {
        sl_timer_stop(trim->loop, &trim->timer);
    }
}
