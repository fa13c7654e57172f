/* Timers fire in order and can stop each other; deferred tasks run once; work comes back to the
 * loop. */
#include "common/clock.h"
#include "common/loop.h"
#include "tests/support/test.h"

static char fired[8];
static struct sl_timer a, b, c;
static struct sl_loop *loop;

static void on_a(struct sl_timer *timer)
{
    (void)timer;
    strcat(fired, "a");
    sl_timer_stop(loop, &c);
}

static void on_b(struct sl_timer *timer)
{
    (void)timer;
    strcat(fired, "b");
}

TEST(timers_fire_in_order_in_virtual_time)
{
    uint64_t now = 1000000;
    sl_clock_use(&now);
    CHECK(sl_loop_create(&loop) == 0);
    fired[0] = '\0';
    sl_timer_start(loop, &b, 50, on_b);
    sl_timer_start(loop, &c, 60, on_b);
    sl_timer_start(loop, &a, 20, on_a);
    sl_loop_turn(loop, 0);
    CHECK_STR(fired, "");
    now += 100000;
    sl_loop_turn(loop, 0); /* Sets the wait, */
    sl_loop_turn(loop, 0); /* which is over. */
    CHECK_STR(fired, "ab");
    CHECK(!sl_timer_active(&c));
    sl_loop_destroy(loop);
    sl_clock_use(NULL);
}

static int runs;

static void on_task(struct sl_task *task)
{
    runs++;
    if (runs == 1) {
        sl_task_defer(loop, task, on_task);
    }
}

TEST(deferred_tasks_run_once_a_turn)
{
    struct sl_task task = {0};
    CHECK(sl_loop_create(&loop) == 0);
    runs = 0;
    sl_task_defer(loop, &task, on_task);
    sl_task_defer(loop, &task, on_task);
    sl_loop_turn(loop, 0);
    CHECK_INT(runs, 1);
    sl_loop_turn(loop, 0);
    sl_loop_turn(loop, 0);
    CHECK_INT(runs, 2);
    sl_loop_destroy(loop);
}

static void on_work(void *ctx)
{
    *(int *)ctx += 1;
}

static void on_done(void *ctx)
{
    *(int *)ctx += 10;
    sl_loop_stop(loop);
}

TEST(work_comes_back_to_the_loop)
{
    int value = 0;
    CHECK(sl_loop_create(&loop) == 0);
    CHECK(sl_work_submit(loop, on_work, on_done, &value) == 0);
    sl_loop_run(loop);
    CHECK_INT(value, 11);
    sl_loop_destroy(loop);
}

int main(int argc, char **argv)
{
    const struct test_case cases[] = {
        {"timers_fire_in_order_in_virtual_time", timers_fire_in_order_in_virtual_time},
        {"deferred_tasks_run_once_a_turn", deferred_tasks_run_once_a_turn},
        {"work_comes_back_to_the_loop", work_comes_back_to_the_loop},
        {NULL, NULL},
    };
    return run_tests(cases, argc, argv);
}
