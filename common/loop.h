/*
 * The event loop of a process: timers, file descriptors, wake-ups from other threads, deferred
 * tasks and work for the thread pool. One loop, one thread; everything here is called on that
 * thread but sl_async_send. Callbacks fire from sl_loop_run only, never inside the call that asks
 * for them.
 */
#ifndef SLUICE_COMMON_LOOP_H
#define SLUICE_COMMON_LOOP_H

#include "common/error.h"
#include "common/list.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct sl_loop;
struct uv_loop_s;

int sl_loop_create(struct sl_loop **ret) SL_CHECKED; /* 0 or -SL_ENOMEM. */
/* Everything created on it must be destroyed before; runs the loop until its handles have closed.
 */
void sl_loop_destroy(struct sl_loop *loop);
void sl_loop_run(struct sl_loop *loop); /* Until sl_loop_stop. */
void sl_loop_stop(struct sl_loop *loop);
/* One turn: waits for an event for at most timeout_ms (0: does not wait). For tests. */
void sl_loop_turn(struct sl_loop *loop, int timeout_ms);
uint64_t sl_loop_now_ms(const struct sl_loop *loop); /* sl_clock_now_ms at the start of the turn. */
struct uv_loop_s *sl_loop_uv(struct sl_loop *loop);  /* For tcp.c alone. */

/* Timers are members of their owner; zeroed is stopped. They fire once; start again to repeat. */
struct sl_timer {
    void (*fire)(struct sl_timer *timer);
    uint64_t due_ms;
    size_t heap_index; /* 1-based; 0: not started. */
};
/* Starting a started timer moves it. May abort when out of memory: 16 bytes a timer. */
void sl_timer_start(struct sl_loop *loop, struct sl_timer *timer, uint64_t delay_ms,
                    void (*fire)(struct sl_timer *timer));
void sl_timer_stop(struct sl_loop *loop, struct sl_timer *timer); /* Also when stopped. */
bool sl_timer_active(const struct sl_timer *timer);

/* Deferred tasks run once, after the callbacks of this turn, before the loop waits again. */
struct sl_task {
    void (*run)(struct sl_task *task);
    struct sl_list node;
    bool pending;
};
void sl_task_defer(struct sl_loop *loop, struct sl_task *task, void (*run)(struct sl_task *task));
void sl_task_cancel(struct sl_task *task);

/* File descriptors. The descriptor stays the caller's. No callback comes after destroy. */
enum { SL_READABLE = 1, SL_WRITABLE = 2 };
struct sl_poll;
typedef void sl_poll_cb(void *ctx,
                        int events); /* events: what is ready; both when the fd failed. */
int sl_poll_create(struct sl_loop *loop, int fd, sl_poll_cb *cb, void *ctx,
                   struct sl_poll **ret) SL_CHECKED;
int sl_poll_set(struct sl_poll *poll, int events) SL_CHECKED; /* 0 pauses. */
void sl_poll_destroy(struct sl_poll *poll); /* Before the fd is closed. Takes NULL. */

/* A wake-up from any thread; several sends may come as one. */
struct sl_async;
int sl_async_create(struct sl_loop *loop, void (*cb)(void *ctx), void *ctx,
                    struct sl_async **ret) SL_CHECKED;
void sl_async_send(struct sl_async *async);
void sl_async_destroy(struct sl_async *async); /* Takes NULL. */

/* Runs work(ctx) on the thread pool, then done(ctx) on the loop; done always comes. */
int sl_work_submit(struct sl_loop *loop, void (*work)(void *ctx), void (*done)(void *ctx),
                   void *ctx) SL_CHECKED;

/* The signal is caught from now on and given to cb on the loop. */
struct sl_signal;
int sl_signal_create(struct sl_loop *loop, int signum, void (*cb)(void *ctx, int signum), void *ctx,
                     struct sl_signal **ret) SL_CHECKED;
void sl_signal_destroy(struct sl_signal *signal); /* Takes NULL. */

#endif
