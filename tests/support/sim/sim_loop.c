/*
 * The loop of a process that is played: timers and deferred tasks, no descriptors. The world calls
 * it when its next timer is due, and after whatever happened in the process.
 */
#include "tests/support/sim/sim.h"

enum { TURNS_MAX = 10000 };

struct sl_loop {
    struct sl_list tasks;
    struct sl_timer **timers; /* In no order; heap_index is the place, from 1. */
    size_t len, cap;
    struct sim_process *process;
};

int sl_loop_create(struct sl_loop **ret)
{
    struct sl_loop *loop = calloc(1, sizeof(*loop));
    CHECK(loop != NULL && sim_self != NULL);
    sl_list_init(&loop->tasks);
    loop->process = sim_self;
    sim_self->loop = *ret = loop;
    return 0;
}

void sl_loop_destroy(struct sl_loop *loop)
{
    CHECK_INT(loop->len, 0);
    loop->process->loop = NULL;
    free(loop->timers);
    free(loop);
}

void sl_loop_stop(struct sl_loop *loop)
{
    loop->process->stopped = true;
}

/* --- timers --- */

void sl_timer_start(struct sl_loop *loop, struct sl_timer *timer, uint64_t delay_ms,
                    void (*fire)(struct sl_timer *timer))
{
    sl_timer_stop(loop, timer);
    if (loop->len == loop->cap) {
        loop->cap = loop->cap > 0 ? loop->cap * 2 : 32;
        loop->timers = realloc(loop->timers, loop->cap * sizeof(struct sl_timer *));
        CHECK(loop->timers != NULL);
    }
    timer->fire = fire;
    timer->due_ms = sl_clock_now_ms() + delay_ms + (delay_ms == 0 ? 1 : 0);
    loop->timers[loop->len++] = timer;
    timer->heap_index = loop->len;
}

void sl_timer_stop(struct sl_loop *loop, struct sl_timer *timer)
{
    if (timer->heap_index == 0) {
        return;
    }
    struct sl_timer *last = loop->timers[--loop->len];
    CHECK(loop->timers[timer->heap_index - 1] == timer || last == timer);
    loop->timers[timer->heap_index - 1] = last;
    last->heap_index = timer->heap_index;
    timer->heap_index = 0;
}

bool sl_timer_active(const struct sl_timer *timer)
{
    return timer->heap_index != 0;
}

static struct sl_timer *earliest(const struct sl_loop *loop)
{
    struct sl_timer *first = NULL;
    for (size_t i = 0; i < loop->len; i++) {
        if (first == NULL || loop->timers[i]->due_ms < first->due_ms) {
            first = loop->timers[i];
        }
    }
    return first;
}

uint64_t sim_loop_next_ms(const struct sl_loop *loop)
{
    const struct sl_timer *first = earliest(loop);
    return first != NULL ? first->due_ms : UINT64_MAX;
}

void sim_loop_timers(struct sl_loop *loop)
{
    uint64_t now = sl_clock_now_ms();
    for (int i = 0; i < TURNS_MAX; i++) {
        struct sl_timer *timer = earliest(loop);
        if (timer == NULL || timer->due_ms > now) {
            return;
        }
        sl_timer_stop(loop, timer);
        timer->fire(timer);
    }
    SIM_FAIL("process %zu: timers without end", loop->process->index);
}

/* --- tasks --- */

void sl_task_defer(struct sl_loop *loop, struct sl_task *task, void (*run)(struct sl_task *task))
{
    if (!task->pending) {
        task->pending = true;
        task->run = run;
        sl_list_push(&loop->tasks, &task->node);
    }
}

void sl_task_cancel(struct sl_task *task)
{
    if (task->pending) {
        task->pending = false;
        sl_list_remove(&task->node);
    }
}

void sim_loop_tasks(struct sl_loop *loop)
{
    for (int i = 0; i < TURNS_MAX; i++) {
        struct sl_list *node = sl_list_first(&loop->tasks);
        if (node == NULL) {
            return;
        }
        struct sl_task *task = SL_ITEM(node, struct sl_task, node);
        sl_task_cancel(task);
        task->run(task);
    }
    SIM_FAIL("process %zu: tasks without end", loop->process->index);
}
