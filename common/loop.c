/*
 * The loop on libuv. Timers are a binary heap of our own behind one uv timer: a timer is then a
 * plain member of its owner that can be stopped and freed at once, with no close callback to wait
 * for, and a thousand of them cost one timerfd-free wait. Everything else is a thin cover over a uv
 * handle that is freed in its close callback.
 *
 * A turn: uv callbacks (descriptors, wake-ups, due timers), then the deferred tasks from a uv check
 * handle; an idle handle keeps uv from waiting while tasks are pending.
 */
#include "common/loop.h"

#include "common/clock.h"

#include <assert.h>
#include <stdlib.h>
#include <uv.h>

enum { HEAP_FIRST = 64 }; /* So many timers need no memory of their own. */

struct sl_loop {
    uv_loop_t uv;
    uv_timer_t timer;
    uv_check_t check;
    uv_prepare_t prepare;
    uv_idle_t idle;
    struct sl_timer **heap; /* heap[1 .. heap_len], earliest first. */
    size_t heap_len;
    size_t heap_cap;
    struct sl_list tasks;
    uint64_t now_ms;
    bool stopped;
};

struct sl_poll {
    uv_poll_t uv;
    sl_poll_cb *cb;
    void *ctx;
};

struct sl_async {
    uv_async_t uv;
    void (*cb)(void *ctx);
    void *ctx;
};

struct sl_signal {
    uv_signal_t uv;
    void (*cb)(void *ctx, int signum);
    void *ctx;
};

struct work {
    uv_work_t uv;
    void (*work)(void *ctx);
    void (*done)(void *ctx);
    void *ctx;
};

static int map_uv(int rv)
{
    switch (rv) {
    case 0:
        return 0;
    case UV_ENOMEM:
        return -SL_ENOMEM;
    case UV_EINVAL:
    case UV_EBADF:
        return -SL_EINVAL;
    case UV_EEXIST:
        return -SL_EEXIST;
    default:
        return -SL_EIO;
    }
}

/* --- timers --- */

static void heap_put(struct sl_loop *loop, size_t i, struct sl_timer *timer)
{
    loop->heap[i] = timer;
    timer->heap_index = i;
}

static void heap_up(struct sl_loop *loop, size_t i)
{
    struct sl_timer *timer = loop->heap[i];
    while (i > 1 && loop->heap[i / 2]->due_ms > timer->due_ms) {
        heap_put(loop, i, loop->heap[i / 2]);
        i /= 2;
    }
    heap_put(loop, i, timer);
}

static void heap_down(struct sl_loop *loop, size_t i)
{
    struct sl_timer *timer = loop->heap[i];
    for (;;) {
        size_t child = i * 2;
        if (child > loop->heap_len) {
            break;
        }
        if (child < loop->heap_len && loop->heap[child + 1]->due_ms < loop->heap[child]->due_ms) {
            child++;
        }
        if (loop->heap[child]->due_ms >= timer->due_ms) {
            break;
        }
        heap_put(loop, i, loop->heap[child]);
        i = child;
    }
    heap_put(loop, i, timer);
}

static void heap_remove(struct sl_loop *loop, struct sl_timer *timer)
{
    size_t i = timer->heap_index;
    struct sl_timer *last = loop->heap[loop->heap_len--];
    timer->heap_index = 0;
    if (last != timer) {
        heap_put(loop, i, last);
        heap_up(loop, i);
        heap_down(loop, last->heap_index);
    }
}

static void on_uv_timer(uv_timer_t *uv)
{
    struct sl_loop *loop = uv->data;
    loop->now_ms = sl_clock_now_ms();
    uint64_t until = loop->now_ms; /* A timer that restarts itself at 0 waits for the next turn. */
    while (loop->heap_len > 0 && loop->heap[1]->due_ms <= until) {
        struct sl_timer *timer = loop->heap[1];
        heap_remove(loop, timer);
        timer->fire(timer);
    }
}

/* Before each wait: the one uv timer is set to the earliest of ours. */
static void on_prepare(uv_prepare_t *uv)
{
    struct sl_loop *loop = uv->data;
    if (loop->heap_len == 0) {
        uv_timer_stop(&loop->timer);
        return;
    }
    uint64_t now = sl_clock_now_ms();
    uint64_t due = loop->heap[1]->due_ms;
    uv_update_time(&loop->uv);
    uv_timer_start(&loop->timer, on_uv_timer, due > now ? due - now : 0, 0);
}

void sl_timer_start(struct sl_loop *loop, struct sl_timer *timer, uint64_t delay_ms,
                    void (*fire)(struct sl_timer *timer))
{
    timer->fire = fire;
    timer->due_ms = sl_clock_now_ms() + delay_ms + (delay_ms == 0 ? 1 : 0);
    if (timer->heap_index != 0) { /* Mostly a time-out that begins again: it moves down a little. */
        heap_up(loop, timer->heap_index);
        heap_down(loop, timer->heap_index);
        return;
    }
    if (loop->heap_len + 2 > loop->heap_cap) {
        size_t cap = loop->heap_cap * 2;
        struct sl_timer **heap = realloc(loop->heap, cap * sizeof(struct sl_timer *));
        if (heap == NULL) {
            abort(); /* No wait may go without its time-out: ending is the honest way out. */
        }
        loop->heap = heap;
        loop->heap_cap = cap;
    }
    heap_put(loop, ++loop->heap_len, timer);
    heap_up(loop, loop->heap_len);
}

void sl_timer_stop(struct sl_loop *loop, struct sl_timer *timer)
{
    if (timer->heap_index != 0) {
        heap_remove(loop, timer);
    }
}

bool sl_timer_active(const struct sl_timer *timer)
{
    return timer->heap_index != 0;
}

/* --- deferred tasks --- */

static void on_idle(uv_idle_t *uv)
{
    (void)uv; /* Its presence alone keeps the loop from waiting. */
}

static void on_check(uv_check_t *uv)
{
    struct sl_loop *loop = uv->data;
    struct sl_list todo;
    sl_list_init(&todo);
    loop->now_ms = sl_clock_now_ms();
    while (!sl_list_empty(&loop->tasks)) { /* What tasks defer runs in the next turn. */
        struct sl_list *node = sl_list_first(&loop->tasks);
        sl_list_remove(node);
        sl_list_push(&todo, node);
    }
    uv_idle_stop(&loop->idle);
    while (!sl_list_empty(&todo)) {
        struct sl_list *node = sl_list_first(&todo);
        struct sl_task *task = SL_ITEM(node, struct sl_task, node);
        sl_list_remove(node);
        task->pending = false;
        task->run(task);
    }
}

void sl_task_defer(struct sl_loop *loop, struct sl_task *task, void (*run)(struct sl_task *task))
{
    if (task->pending) {
        return;
    }
    task->run = run;
    task->pending = true;
    sl_list_push(&loop->tasks, &task->node);
    uv_idle_start(&loop->idle, on_idle);
}

void sl_task_cancel(struct sl_task *task)
{
    if (task->pending) {
        task->pending = false;
        sl_list_remove(&task->node);
    }
}

/* --- the loop itself --- */

int sl_loop_create(struct sl_loop **ret)
{
    struct sl_loop *loop = calloc(1, sizeof(*loop));
    if (loop == NULL) {
        return -SL_ENOMEM;
    }
    loop->heap_cap = HEAP_FIRST;
    loop->heap = calloc(HEAP_FIRST, sizeof(struct sl_timer *));
    if (loop->heap == NULL || uv_loop_init(&loop->uv) != 0) {
        free(loop->heap);
        free(loop);
        return -SL_ENOMEM;
    }
    uv_timer_init(&loop->uv, &loop->timer);
    uv_check_init(&loop->uv, &loop->check);
    uv_prepare_init(&loop->uv, &loop->prepare);
    uv_idle_init(&loop->uv, &loop->idle);
    loop->timer.data = loop->check.data = loop->prepare.data = loop->idle.data = loop;
    uv_check_start(&loop->check, on_check);
    uv_prepare_start(&loop->prepare, on_prepare);
    sl_list_init(&loop->tasks);
    loop->now_ms = sl_clock_now_ms();
    *ret = loop;
    return 0;
}

void sl_loop_destroy(struct sl_loop *loop)
{
    if (loop == NULL) {
        return;
    }
    uv_close((uv_handle_t *)&loop->timer, NULL);
    uv_close((uv_handle_t *)&loop->check, NULL);
    uv_close((uv_handle_t *)&loop->prepare, NULL);
    uv_close((uv_handle_t *)&loop->idle, NULL);
    uv_run(&loop->uv, UV_RUN_DEFAULT);
    int rv = uv_loop_close(&loop->uv);
    assert(rv == 0);
    (void)rv;
    free(loop->heap);
    free(loop);
}

void sl_loop_run(struct sl_loop *loop)
{
    loop->stopped = false;
    while (!loop->stopped) {
        uv_run(&loop->uv, UV_RUN_ONCE);
        loop->now_ms = sl_clock_now_ms();
    }
}

void sl_loop_stop(struct sl_loop *loop)
{
    loop->stopped = true;
    uv_stop(&loop->uv);
}

static void on_turn_timeout(struct sl_timer *timer)
{
    (void)timer; /* Ends the wait of sl_loop_turn. */
}

void sl_loop_turn(struct sl_loop *loop, int timeout_ms)
{
    struct sl_timer timer = {0};
    if (timeout_ms > 0) {
        sl_timer_start(loop, &timer, (uint64_t)timeout_ms, on_turn_timeout);
    }
    uv_run(&loop->uv, timeout_ms > 0 ? UV_RUN_ONCE : UV_RUN_NOWAIT);
    sl_timer_stop(loop, &timer);
    loop->now_ms = sl_clock_now_ms();
}

uint64_t sl_loop_now_ms(const struct sl_loop *loop)
{
    return loop->now_ms;
}

struct uv_loop_s *sl_loop_uv(struct sl_loop *loop)
{
    return &loop->uv;
}

/* --- descriptors, wake-ups, signals, work --- */

static void on_handle_closed(uv_handle_t *handle)
{
    free(handle); /* The uv handle is the first member of each of these structs. */
}

static void on_poll(uv_poll_t *uv, int status, int events)
{
    struct sl_poll *poll = uv->data;
    int ready =
        ((events & UV_READABLE) ? SL_READABLE : 0) | ((events & UV_WRITABLE) ? SL_WRITABLE : 0);
    poll->cb(poll->ctx, status != 0 ? SL_READABLE | SL_WRITABLE : ready);
}

int sl_poll_create(struct sl_loop *loop, int fd, sl_poll_cb *cb, void *ctx, struct sl_poll **ret)
{
    struct sl_poll *poll = calloc(1, sizeof(*poll));
    if (poll == NULL) {
        return -SL_ENOMEM;
    }
    int rv = uv_poll_init(&loop->uv, &poll->uv, fd);
    if (rv != 0) {
        free(poll);
        return map_uv(rv);
    }
    poll->uv.data = poll;
    poll->cb = cb;
    poll->ctx = ctx;
    *ret = poll;
    return 0;
}

int sl_poll_set(struct sl_poll *poll, int events)
{
    int wanted =
        ((events & SL_READABLE) ? UV_READABLE : 0) | ((events & SL_WRITABLE) ? UV_WRITABLE : 0);
    return map_uv(wanted == 0 ? uv_poll_stop(&poll->uv)
                              : uv_poll_start(&poll->uv, wanted, on_poll));
}

void sl_poll_destroy(struct sl_poll *poll)
{
    if (poll != NULL) {
        uv_close((uv_handle_t *)&poll->uv, on_handle_closed);
    }
}

static void on_async(uv_async_t *uv)
{
    struct sl_async *async = uv->data;
    async->cb(async->ctx);
}

int sl_async_create(struct sl_loop *loop, void (*cb)(void *ctx), void *ctx, struct sl_async **ret)
{
    struct sl_async *async = calloc(1, sizeof(*async));
    if (async == NULL) {
        return -SL_ENOMEM;
    }
    int rv = uv_async_init(&loop->uv, &async->uv, on_async);
    if (rv != 0) {
        free(async);
        return map_uv(rv);
    }
    async->uv.data = async;
    async->cb = cb;
    async->ctx = ctx;
    *ret = async;
    return 0;
}

void sl_async_send(struct sl_async *async)
{
    uv_async_send(&async->uv);
}

void sl_async_destroy(struct sl_async *async)
{
    if (async != NULL) {
        uv_close((uv_handle_t *)&async->uv, on_handle_closed);
    }
}

static void on_signal(uv_signal_t *uv, int signum)
{
    struct sl_signal *sig = uv->data;
    sig->cb(sig->ctx, signum);
}

int sl_signal_create(struct sl_loop *loop, int signum, void (*cb)(void *ctx, int signum), void *ctx,
                     struct sl_signal **ret)
{
    struct sl_signal *sig = calloc(1, sizeof(*sig));
    if (sig == NULL) {
        return -SL_ENOMEM;
    }
    int rv = uv_signal_init(&loop->uv, &sig->uv);
    if (rv != 0) {
        free(sig);
        return map_uv(rv);
    }
    sig->uv.data = sig;
    sig->cb = cb;
    sig->ctx = ctx;
    rv = uv_signal_start(&sig->uv, on_signal, signum);
    if (rv != 0) {
        sl_signal_destroy(sig);
        return map_uv(rv);
    }
    *ret = sig;
    return 0;
}

void sl_signal_destroy(struct sl_signal *signal)
{
    if (signal != NULL) {
        uv_close((uv_handle_t *)&signal->uv, on_handle_closed);
    }
}

static void on_work(uv_work_t *uv)
{
    struct work *work = uv->data;
    work->work(work->ctx);
}

static void on_work_done(uv_work_t *uv, int status)
{
    struct work *work = uv->data;
    assert(status == 0); /* Nothing here cancels work. */
    (void)status;
    work->done(work->ctx);
    free(work);
}

int sl_work_submit(struct sl_loop *loop, void (*work_fn)(void *ctx), void (*done)(void *ctx),
                   void *ctx)
{
    struct work *work = calloc(1, sizeof(*work));
    if (work == NULL) {
        return -SL_ENOMEM;
    }
    *work = (struct work){.work = work_fn, .done = done, .ctx = ctx};
    work->uv.data = work;
    int rv = uv_queue_work(&loop->uv, &work->uv, on_work, on_work_done);
    if (rv != 0) {
        free(work);
    }
    return map_uv(rv);
}
