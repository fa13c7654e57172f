/*
 * A binary heap of due times and one timerfd that is armed for the first of them, in absolute time.
 * libuv's and epoll_wait's own timers count whole milliseconds: on five calls in a row that would
 * look like overhead of the pipeline under test.
 *
 * Arming takes back the fd's readiness, so it is never read; and it is done once before each wait,
 * only when the first due time changed, so a batch of tokens costs one call.
 */
#include "upstream_timers.h"

#include "common/clock.h"

#include <assert.h>
#include <stdlib.h>
#include <sys/timerfd.h>
#include <unistd.h>

enum { FIRST_CAP = 64 };

int upstream_timers_init(struct upstream_timers *timers)
{
    *timers = (struct upstream_timers){0};
    timers->fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    return timers->fd >= 0 ? 0 : -SL_EIO;
}

void upstream_timers_fini(struct upstream_timers *timers)
{
    if (timers->fd >= 0) {
        close(timers->fd);
    }
    free(timers->heap);
}

int upstream_timers_reserve(struct upstream_timers *timers, size_t count)
{
    size_t cap = timers->cap > 0 ? timers->cap : FIRST_CAP;
    while (cap < count) {
        cap *= 2;
    }
    if (cap == timers->cap) {
        return 0;
    }
    struct upstream_slot *heap = realloc(timers->heap, cap * sizeof(*heap));
    if (heap == NULL) {
        return -SL_ENOMEM;
    }
    timers->heap = heap;
    timers->cap = cap;
    return 0;
}

static void put(struct upstream_timers *timers, size_t at, struct upstream_slot slot)
{
    timers->heap[at] = slot;
    slot.timer->place = at + 1;
}

static void sift_up(struct upstream_timers *timers, size_t at, struct upstream_slot slot)
{
    while (at > 0) {
        size_t parent = (at - 1) / 2;
        if (timers->heap[parent].key <= slot.key) {
            break;
        }
        put(timers, at, timers->heap[parent]);
        at = parent;
    }
    put(timers, at, slot);
}

static void sift_down(struct upstream_timers *timers, size_t at, struct upstream_slot slot)
{
    for (;;) {
        size_t child = 2 * at + 1;
        if (child >= timers->len) {
            break;
        }
        if (child + 1 < timers->len && timers->heap[child + 1].key < timers->heap[child].key) {
            child++;
        }
        if (slot.key <= timers->heap[child].key) {
            break;
        }
        put(timers, at, timers->heap[child]);
        at = child;
    }
    put(timers, at, slot);
}

void upstream_timer_stop(struct upstream_timers *timers, struct upstream_timer *timer)
{
    if (timer->place == 0) {
        return;
    }
    size_t at = timer->place - 1;
    assert(timers->heap[at].timer == timer);
    timer->place = 0;
    struct upstream_slot last = timers->heap[--timers->len];
    if (at == timers->len) {
        return;
    }
    if (at > 0 && last.key < timers->heap[(at - 1) / 2].key) {
        sift_up(timers, at, last);
    } else {
        sift_down(timers, at, last);
    }
}

void upstream_timer_start(struct upstream_timers *timers, struct upstream_timer *timer,
                          uint64_t due_us, uint64_t grid_us)
{
    upstream_timer_stop(timers, timer);
    assert(timers->len < timers->cap && grid_us > 0);
    timer->due_us = due_us;
    uint64_t key = (due_us + grid_us - 1) / grid_us * grid_us;
    timers->len++;
    sift_up(timers, timers->len - 1, (struct upstream_slot){key, timer});
}

void upstream_timers_run(struct upstream_timers *timers)
{
    uint64_t now = timers->len > 0 ? sl_clock_now_us() : 0;
    while (timers->len > 0 && timers->heap[0].key <= now) {
        struct upstream_timer *timer = timers->heap[0].timer;
        upstream_timer_stop(timers, timer);
        timer->fire(timer);
    }
}

void upstream_timers_arm(struct upstream_timers *timers)
{
    uint64_t due = timers->len > 0 ? timers->heap[0].key : 0;
    if (due == timers->armed_us && (due == 0 || due > sl_clock_now_us())) {
        return; /* None, or still to come: the fd is not readable. */
    }
    /* All zero disarms it, which is right where there is no timer. */
    struct itimerspec spec = {
        .it_value = {.tv_sec = (time_t)(due / 1000000u), .tv_nsec = (long)(due % 1000000u) * 1000}};
    int rv = timerfd_settime(timers->fd, TFD_TIMER_ABSTIME, &spec, NULL);
    assert(rv == 0);
    (void)rv;
    timers->armed_us = due;
}
