/*
 * Time, events, processes.
 *
 * A step is whatever comes next: an event of the world, an event inside a process, or a process's
 * timer. Time goes from one to the next. Each process has a clock of its own that runs a little
 * faster or slower than the world's. After what happened in a process its deferred tasks run, as
 * the real loop's do before it waits again.
 *
 * A process that is paused (SIGSTOP, a machine that stands still) gets nothing and its timers do
 * not fire; what comes for it waits. When it goes on, all of that happens in one step: its clock
 * has gone on, so that everything due is due at once, timers before or after what waited.
 *
 * A process that is killed says nothing more. What the network has of it already may still arrive.
 */
#include "tests/support/sim/sim_check.h"
#include "tests/support/sim/sim_gateway.h"

#include <math.h>

enum { START_US = 10 * SIM_S, HEAP_MAX = 1 << 20, TRACE_LINES = 120, TRACE_WIDTH = 160 };

struct sim_process sim_processes[SIM_PROCESSES];
size_t sim_process_count;
struct sim_process *sim_self;
struct sim_counts sim_counts;

static uint64_t random_state, random_bytes, world_us, event_number, incarnations;
static struct sim_event **heap; /* heap[0] is the next. */
static size_t heap_len, heap_cap;
static char trace[TRACE_LINES][TRACE_WIDTH];
static size_t trace_len;
FILE *sim_trace_to;

/* --- chance --- */

void sim_seed(uint64_t seed)
{
    random_state = seed;
    random_bytes = seed << 20;
}

uint64_t sim_random(void)
{
    uint64_t z = random_state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

uint64_t sim_below(uint64_t n)
{
    return sim_random() % n;
}

bool sim_percent(unsigned percent)
{
    return sim_below(100) < percent;
}

uint64_t sim_between(uint64_t from, uint64_t to)
{
    return from + sim_below(to - from + 1);
}

/* Linked in place of getrandom, so that a schedule is its seed's alone; apart from the chance of
 * the schedule, since some ask once in a program's life. */
ssize_t __wrap_getrandom(void *bytes, size_t len, unsigned flags);
ssize_t __wrap_getrandom(void *bytes, size_t len, unsigned flags)
{
    (void)flags;
    for (size_t i = 0; i < len; i++) {
        ((unsigned char *)bytes)[i] = (unsigned char)(++random_bytes * 0x9e3779b97f4a7c15u >> 56);
    }
    return (ssize_t)len;
}

/* --- the trace --- */

void sim_trace(const char *format, ...)
{
    char *line = trace[trace_len++ % TRACE_LINES];
    int at = snprintf(line, TRACE_WIDTH, "%10.4f ", (double)world_us / SIM_S);
    if (sim_self != NULL) {
        at += snprintf(line + at, TRACE_WIDTH - (size_t)at, "[%zu] ", sim_self->index);
    }
    va_list args;
    va_start(args, format);
    vsnprintf(line + at, TRACE_WIDTH - (size_t)at, format, args);
    va_end(args);
    if (sim_trace_to != NULL) {
        fprintf(sim_trace_to, "%s\n", line);
    }
}

void sim_trace_print(FILE *out)
{
    size_t first = trace_len > TRACE_LINES ? trace_len - TRACE_LINES : 0;
    for (size_t i = first; i < trace_len; i++) {
        fprintf(out, "%s\n", trace[i % TRACE_LINES]);
    }
}

/* --- events --- */

uint64_t sim_now_us(void)
{
    return world_us;
}

void *sim_event_new(size_t size, void (*run)(struct sim_event *event))
{
    struct sim_event *event = calloc(1, size);
    CHECK(event != NULL);
    event->run = run;
    sl_list_init(&event->node);
    return event;
}

static bool comes_before(const struct sim_event *a, const struct sim_event *b)
{
    return a->at_us != b->at_us ? a->at_us < b->at_us : a->number < b->number;
}

void sim_happen(struct sim_event *event, uint64_t delay_us)
{
    if (heap_len == heap_cap) {
        heap_cap = heap_cap > 0 ? heap_cap * 2 : 256;
        CHECK(heap_cap <= HEAP_MAX);
        heap = realloc(heap, heap_cap * sizeof(struct sim_event *));
        CHECK(heap != NULL);
    }
    event->at_us = world_us + delay_us;
    event->number = ++event_number;
    size_t i = heap_len++;
    while (i > 0 && comes_before(event, heap[(i - 1) / 2])) {
        heap[i] = heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    heap[i] = event;
}

void sim_happen_in(struct sim_event *event, struct sim_process *process, uint64_t delay_us)
{
    event->process = process;
    event->incarnation = process->incarnation;
    sim_happen(event, delay_us);
}

static struct sim_event *pop(void)
{
    struct sim_event *first = heap[0], *last = heap[--heap_len];
    size_t i = 0;
    for (size_t child = 1; child < heap_len; child = 2 * i + 1) {
        child += child + 1 < heap_len && comes_before(heap[child + 1], heap[child]) ? 1 : 0;
        if (!comes_before(heap[child], last)) {
            break;
        }
        heap[i] = heap[child];
        i = child;
    }
    heap[i] = last;
    return first;
}

static void free_event(struct sim_event *event)
{
    if (event->fini != NULL) {
        event->fini(event);
    }
    free(event);
}

/* --- the clock of a process --- */

static uint64_t local_us(const struct sim_process *process)
{
    double passed = (double)(world_us - process->world_base_us);
    return process->local_base_us + (uint64_t)(passed * process->rate);
}

/* When its clock says so. */
static uint64_t world_of(const struct sim_process *process, uint64_t us)
{
    uint64_t since = us > process->local_base_us ? us - process->local_base_us : 0;
    return process->world_base_us + (uint64_t)ceil((double)since / process->rate);
}

static void enter(struct sim_process *process)
{
    uint64_t now = local_us(process);
    CHECK(sim_self == NULL);
    sim_self = process;
    process->now_us = now > process->now_us ? now : process->now_us;
    sl_clock_use(&process->now_us);
}

static void leave(void)
{
    sim_self = NULL;
    sl_clock_use(&world_us);
}

/* --- the life of a process --- */

static void drop_inbox(struct sim_process *process)
{
    struct sl_list *node;
    while ((node = sl_list_first(&process->inbox)) != NULL) {
        sl_list_remove(node);
        free_event(SL_ITEM(node, struct sim_event, node));
    }
}

static void end_worker(struct sim_process *process)
{
    process->alive = false;
    process->died_at_us = world_us;
    drop_inbox(process);
    enter(process);
    if (process->stage == SIM_GATEWAY) {
        sim_gateway_finish();
    } else {
        worker_finish(&process->worker);
    }
    leave();
    CHECK(process->loop == NULL);
    sim_check_died(process);
}

static void after_turn(struct sim_process *process)
{
    sim_loop_tasks(process->loop);
    leave();
    if (process->stopped) {
        sim_trace("process %zu has ended", process->index);
        end_worker(process);
    }
}

struct sim_process *sim_add(enum sim_stage_of stage)
{
    CHECK(sim_process_count < SIM_PROCESSES);
    struct sim_process *process = &sim_processes[sim_process_count];
    *process = (struct sim_process){.index = sim_process_count++, .stage = stage};
    sl_list_init(&process->inbox);
    return process;
}

void sim_start(struct sim_process *process)
{
    CHECK(!process->alive);
    process->alive = true;
    process->paused = process->stopped = false;
    process->incarnation = ++incarnations;
    random_bytes = process->incarnation << 24;
    sim_counts.starts++;
    process->rate = 1.0 + ((double)sim_below(4001) - 2000.0) / 1e6; /* 0.2 % at most. */
    process->world_base_us = world_us;
    process->local_base_us = process->now_us = START_US + sim_below(1000) * SIM_S;
    process->cut_until_us = 0;
    process->last_beat_us = process->last_silent_us = process->last_troubled_us = world_us;
    process->options = (struct sl_process_options){.brokers = "",
                                                   .topic_prefix = "sluice",
                                                   .redis_url = "",
                                                   .admin_listen = "",
                                                   .result_ttl_ms = 86400000,
                                                   .orphan_grace_ms = 15000,
                                                   .drain_ms = 20000};
    enter(process);
    if (process->stage == SIM_GATEWAY) {
        sim_trace("process %zu starts: gateway", process->index);
        sim_gateway_start();
        after_turn(process);
        return;
    }
    process->worker = (struct sl_worker){.stage = &sim_stages[process->stage],
                                         .process = &process->options,
                                         .options = {.reply_topics = "",
                                                     .max_inflight = (long long)sim_between(1, 6),
                                                     .max_inflight_bulk = 1,
                                                     .parked_max = 1 << 20,
                                                     .ca_file = ""}};
    sim_trace("process %zu starts: %s", process->index, sim_stages[process->stage].name);
    CHECK_INT(worker_start(&process->worker), 0);
    after_turn(process);
}

void sim_kill(struct sim_process *process)
{
    sim_trace("process %zu is killed", process->index);
    process->paused = false;
    end_worker(process);
}

void sim_drain(struct sim_process *process)
{
    sim_trace("process %zu is told to end", process->index);
    enter(process);
    worker_on_drain(&process->worker);
    after_turn(process);
}

void sim_run(struct sim_process *process, void (*run)(const void *ctx), const void *ctx)
{
    enter(process);
    run(ctx);
    after_turn(process);
}

void sim_pause(struct sim_process *process)
{
    sim_trace("process %zu stands still", process->index);
    process->paused = true;
    process->paused_at_us = process->last_troubled_us = world_us;
}

static void run_inbox(struct sim_process *process)
{
    struct sl_list *node;
    while (process->alive && (node = sl_list_first(&process->inbox)) != NULL) {
        struct sim_event *event = SL_ITEM(node, struct sim_event, node);
        sl_list_remove(node);
        event->run(event);
        free_event(event);
        if (sim_percent(50)) {
            sim_loop_tasks(process->loop);
        }
    }
}

void sim_resume(struct sim_process *process)
{
    sim_trace("process %zu goes on", process->index);
    process->paused = false;
    process->last_troubled_us = world_us;
    enter(process);
    bool timers_first = sim_percent(50);
    if (timers_first) {
        sim_loop_timers(process->loop);
    }
    run_inbox(process);
    sim_loop_timers(process->loop);
    after_turn(process);
}

/* --- steps --- */

static void run_event(struct sim_event *event)
{
    struct sim_process *process = event->process;
    if (process == NULL) {
        event->run(event);
    } else if (!process->alive || process->incarnation != event->incarnation) {
        ; /* Nobody is there any more. */
    } else if (process->paused) {
        sl_list_push(&process->inbox, &event->node);
        return;
    } else {
        enter(process);
        event->run(event);
        after_turn(process);
    }
    free_event(event);
}

/* The process whose timer is due first; its time in *at. */
static struct sim_process *next_process(uint64_t *at)
{
    struct sim_process *first = NULL;
    *at = UINT64_MAX;
    for (size_t i = 0; i < sim_process_count; i++) {
        struct sim_process *process = &sim_processes[i];
        if (!process->alive || process->paused) {
            continue;
        }
        uint64_t due_ms = sim_loop_next_ms(process->loop);
        if (due_ms == UINT64_MAX) {
            continue;
        }
        uint64_t due = world_of(process, due_ms * SIM_MS);
        if (due < *at) {
            *at = due;
            first = process;
        }
    }
    return first;
}

bool sim_step(void)
{
    uint64_t at;
    struct sim_process *process = next_process(&at);
    if (heap_len > 0 && heap[0]->at_us <= at) {
        struct sim_event *event = pop();
        world_us = event->at_us > world_us ? event->at_us : world_us;
        run_event(event);
    } else if (process != NULL) {
        world_us = at > world_us ? at : world_us;
        enter(process);
        uint64_t due_us = sim_loop_next_ms(process->loop) * SIM_MS;
        process->now_us = due_us > process->now_us ? due_us : process->now_us;
        sim_loop_timers(process->loop);
        after_turn(process);
    } else {
        return false;
    }
    sim_counts.steps++;
    sim_check_step();
    return true;
}

/* --- beginning and end --- */

void sim_world_begin(void)
{
    world_us = START_US;
    event_number = incarnations = 0;
    sim_process_count = 0;
    trace_len = 0;
    sim_self = NULL;
    sl_clock_use(&world_us);
}

void sim_world_end(void)
{
    for (size_t i = 0; i < sim_process_count; i++) {
        if (sim_processes[i].alive) {
            sim_kill(&sim_processes[i]);
        }
    }
    while (heap_len > 0) {
        free_event(pop());
    }
    free(heap);
    heap = NULL;
    heap_cap = 0;
}
