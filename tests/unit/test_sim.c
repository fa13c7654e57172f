/*
 * Thousands of schedules of a whole cluster in virtual time (tests/support/sim/sim.h): workers of
 * two stages on one Redis that runs the real scripts and one Kafka, and whatever can go wrong with
 * all of them, drawn from a seed. After each step what must hold is checked, and when the faults
 * are over everything must come to its end within a bounded time.
 *
 *   unit_sim [SEED [COUNT [TRACE [CALLS]]]]
 *
 * runs COUNT schedules (1) from SEED on, and without arguments those of CI; writes all steps to the
 * file TRACE, and what Redis ran to CALLS.
 *
 * A failure prints its seed and the last steps. The same seed is the same schedule.
 */
#include "common/attach.h"
#include "tests/support/redis_emulator/emulator.h"
#include "tests/support/sim/sim_check.h"
#include "tests/support/sim/sim_gateway.h"

#include <signal.h>
#include <unistd.h>

enum { SCHEDULES = 2000, QUERIES_MAX = 12, DEADLINE_MS = 60000, HEAL_US = 240 * SIM_S };

static uint64_t seed;
static size_t query_count;
static size_t poison; /* The number of the query that kills whoever runs it; 0: none. */
static bool saves;    /* Redis does, now and then. */
static bool asks;
static int64_t deadlines[QUERIES_MAX + 1];
static bool restarts[QUERIES_MAX + 1];
static unsigned faults; /* How likely, in percent a second. */

static void on_failure(int signum)
{
    signal(signum, SIG_DFL);
    sim_trace_print(stderr);
    fprintf(stderr, "schedule of seed %llu\n", (unsigned long long)seed);
    raise(signum);
}

/* --- load --- */

struct call {
    const char *id;
    int64_t deadline_ms, policy_ms;
};

static void call_open(const void *ctx)
{
    const struct call *call = ctx;
    sim_gateway_open(call->id, call->deadline_ms, call->policy_ms);
}

static void call_leave(const void *ctx)
{
    sim_gateway_leave(((const struct call *)ctx)->id);
}

static void call_cancel(const void *ctx)
{
    sim_gateway_cancel(((const struct call *)ctx)->id);
}

/* One that can be asked now; NULL: none. */
static struct sim_process *gateway(void)
{
    size_t first = sim_below(sim_process_count);
    for (size_t i = 0; i < sim_process_count; i++) {
        struct sim_process *process = &sim_processes[(first + i) % sim_process_count];
        if (process->stage == SIM_GATEWAY && process->alive && !process->paused &&
            sim_gateway_ready(process)) {
            return process;
        }
    }
    return NULL;
}

static void open_at_gateway(const char *id, int64_t deadline_ms)
{
    static const int64_t policies[] = {0, 0, 5000, SL_POLICY_CONTINUE};
    const struct call call = {id, deadline_ms, policies[sim_below(4)]};
    struct sim_process *process = gateway();
    if (process != NULL && sim_percent(80)) {
        sim_run(process, call_open, &call);
    }
}

/* A caller leaves, cancels, or comes back through some gateway. */
static void move_caller(void)
{
    char id[32];
    size_t number = query_count > 0 ? sim_below(query_count) + 1 : 0;
    struct sim_process *process = number > 0 ? gateway() : NULL;
    if (process == NULL) {
        return;
    }
    snprintf(id, sizeof(id), "q%zu", number);
    const struct call call = {id, deadlines[number], SL_POLICY_CONTINUE};
    if (!sim_gateway_has(process, id)) {
        if (sim_percent(30) && !sim_check_ended(id)) {
            sim_run(process, call_open, &call);
        }
    } else {
        sim_run(process, sim_percent(50) ? call_leave : call_cancel, &call);
    }
}

/* The record of a query, as a client makes it; the same each time. */
static void produce(size_t number)
{
    char id[32], deadline[24];
    struct sl_buf value;
    const struct sl_query query = {.query = SL_SPAN("why?"),
                                   .collection = SL_SPAN("default"),
                                   .top_n = 5,
                                   .timeout_ms = 60000,
                                   .max_tokens = 100,
                                   .on_worker_lost = restarts[number] ? SL_WORKER_LOST_RESTART
                                                                      : SL_WORKER_LOST_ERROR};
    snprintf(id, sizeof(id), "q%zu", number);
    snprintf(deadline, sizeof(deadline), "%lld", (long long)deadlines[number]);
    const struct sl_kafka_header headers[] = {
        {SL_SPAN("sluice-id"), sl_span_of(id)},
        {SL_SPAN("content-type"), SL_SPAN("application/msgpack")},
        {SL_SPAN("reply-to"), SL_SPAN("sluice.replies:0")},
        {SL_SPAN("sluice-deadline"), sl_span_of(deadline)},
        {SL_SPAN("reply-bundles"), SL_SPAN("1")},
    };
    sl_buf_init(&value, 1 << 16);
    sl_query_encode(&query, &value);
    CHECK(sl_buf_error(&value) == 0);
    sim_kafka_produce("sluice.queries", (int32_t)sim_below(3), sl_span_of(id), sl_buf_span(&value),
                      headers, number % 4 != 0 ? 5 : 4);
    sl_buf_fini(&value);
}

/* A query of a client; perhaps twice, for two processes at once. */
static void ask(void)
{
    char id[32];
    size_t number = ++query_count;
    snprintf(id, sizeof(id), "q%zu", number);
    deadlines[number] =
        sim_redis_now_ms() + (int64_t)(sim_percent(20) ? sim_between(500, 10000) : DEADLINE_MS);
    restarts[number] = sim_percent(30);
    open_at_gateway(id, deadlines[number]);
    sim_trace("%s is asked%s", id, restarts[number] ? ", to begin again if it must" : "");
    sim_check_query(id, restarts[number], deadlines[number]);
    if (number == poison) {
        sim_check_poison(id);
    }
    produce(number);
    if (sim_percent(25)) {
        produce(number);
    }
}

/* Long after, the same record once more. */
static void ask_again(void)
{
    if (query_count > 0) {
        size_t number = sim_below(query_count) + 1;
        sim_trace("q%zu is produced once more", number);
        produce(number);
    }
}

static void put_chunks(void)
{
    struct sl_span text = SL_SPAN("a chunk");
    const struct sl_batch batch = {.doc_id = SL_SPAN("doc"),
                                   .tenant = SL_SPAN("default"),
                                   .collection = SL_SPAN("default"),
                                   .version = 1,
                                   .total_chunks = 1,
                                   .texts = &text,
                                   .len = 1};
    struct sl_buf value;
    sl_buf_init(&value, 1 << 16);
    sl_batch_encode(&batch, &value);
    sim_kafka_produce("sluice.chunks", (int32_t)sim_below(2), SL_SPAN("doc"), sl_buf_span(&value),
                      NULL, 0);
    sl_buf_fini(&value);
}

/* --- faults --- */

static void on_resume(struct sim_event *event)
{
    struct sim_process *process = *(struct sim_process **)(void *)(event + 1);
    if (process->alive && process->paused && process->incarnation == event->incarnation) {
        sim_resume(process);
    }
}

static void on_start(struct sim_event *event)
{
    struct sim_process *process = *(struct sim_process **)(void *)(event + 1);
    if (!process->alive) {
        sim_start(process);
    }
}

static void later(struct sim_process *process, void (*run)(struct sim_event *event),
                  uint64_t delay_us)
{
    struct sim_event *event = sim_event_new(sizeof(*event) + sizeof(void *), run);
    memcpy(event + 1, &process, sizeof(void *));
    event->incarnation = process->incarnation;
    sim_happen(event, delay_us);
}

static void on_room_again(struct sim_event *event)
{
    (void)event;
    sim_redis_full(false);
}

/* Mostly short, seldom past every lease and session. */
static uint64_t fault_time_us(void)
{
    return sim_percent(30) ? sim_between(8 * SIM_S, 40 * SIM_S)
                           : sim_between(10 * SIM_MS, 8 * SIM_S);
}

static void fault_in(struct sim_process *process)
{
    switch (process->alive && !process->paused ? sim_below(5) : 5) {
    case 0:
        sim_kill(process);
        later(process, on_start, sim_between(100 * SIM_MS, 25 * SIM_S));
        break;
    case 1:
        sim_pause(process);
        later(process, on_resume, fault_time_us());
        break;
    case 2:
        if (process->stage == SIM_GATEWAY) {
            break;
        }
        sim_drain(process);
        later(process, on_start, sim_between(21 * SIM_S, 30 * SIM_S));
        break;
    case 3:
        sim_redis_cut(process, fault_time_us());
        break;
    case 4:
        sim_trace("process %zu: connections to redis break", process->index);
        sim_redis_drop(process);
        break;
    default:
        break;
    }
}

static void fault(void)
{
    switch (sim_below(24)) {
    case 0:
        sim_redis_flush();
        break;
    case 1:
        sim_redis_snapshot();
        break;
    case 2:
        sim_redis_restart(sim_percent(70), sim_between(10 * SIM_MS, 5 * SIM_S));
        break;
    case 3:
        sim_redis_pause(fault_time_us());
        break;
    case 4:
        sim_kafka_away(fault_time_us());
        break;
    case 5:
        sim_redis_full(true);
        sim_happen(sim_event_new(sizeof(struct sim_event), on_room_again), fault_time_us());
        break;
    default:
        fault_in(&sim_processes[sim_below(sim_process_count)]);
    }
}

static void on_poisoned(struct sim_event *event)
{
    struct sim_process *process = *(struct sim_process **)(void *)(event + 1);
    if (process->alive && process->incarnation == event->incarnation) {
        sim_kill(process);
        later(process, on_start, sim_between(100 * SIM_MS, 10 * SIM_S));
    }
}

static void on_poison(struct sim_process *process)
{
    later(process, on_poisoned, sim_below(300 * SIM_MS));
}

/* What is most likely to hurt comes right after something has begun. */
static void on_aimed(struct sim_event *event)
{
    struct sim_process *process = *(struct sim_process **)(void *)(event + 1);
    if (faults > 0 && sim_percent(70)) {
        fault_in(process);
    } else if (faults > 0) {
        fault();
    }
}

static void on_moment(struct sim_process *process)
{
    if (process->alive && !process->paused && sim_below(800) < faults) {
        later(process, on_aimed, sim_percent(50) ? 0 : sim_below(20 * SIM_MS));
    }
}

/* --- a schedule --- */

static void on_second(struct sim_event *event)
{
    (void)event;
    if (asks && query_count < QUERIES_MAX && sim_percent(35)) {
        ask();
    }
    if (asks && sim_percent(6)) {
        ask_again();
    }
    if (asks && sim_percent(8)) {
        move_caller();
    }
    if (asks && sim_percent(10)) {
        put_chunks();
    }
    if (saves && sim_percent(15)) {
        sim_redis_snapshot();
    }
    if (sim_percent(faults)) {
        fault();
    }
    sim_happen(sim_event_new(sizeof(struct sim_event), on_second), sim_between(1, 2 * SIM_S));
}

static void run_until(uint64_t until_us)
{
    while (sim_now_us() < until_us && sim_step()) {
    }
}

static void revive(void)
{
    for (size_t i = 0; i < sim_process_count; i++) {
        if (sim_processes[i].paused) {
            sim_resume(&sim_processes[i]);
        }
        if (!sim_processes[i].alive) {
            sim_start(&sim_processes[i]);
        }
    }
}

/* Everything is well again: whatever is open must end. */
static void heal(void)
{
    sim_trace("the faults are over");
    faults = 0;
    asks = false;
    sim_redis_full(false);
    sim_kafka_refuse(0);
    revive();
    uint64_t until = sim_now_us() + HEAL_US;
    while (!sim_check_done()) {
        run_until(sim_now_us() + SIM_S);
        revive(); /* What was told to end has ended. */
        if (sim_now_us() > until) {
            sim_check_undone();
            SIM_FAIL("not everything has come to its end");
        }
    }
}

static void run_schedule(uint64_t of_seed)
{
    seed = of_seed;
    sim_seed(seed);
    sim_world_begin();
    sim_redis_begin();
    sim_kafka_begin();
    sim_check_begin();
    query_count = 0;
    asks = true;
    if (sim_percent(80)) { /* Redis is known to hold nothing: no quarantine at the beginning. */
        const struct sl_span epoch[] = {SL_SPAN("HSET"), SL_SPAN("sluice:epoch"), SL_SPAN("since"),
                                        SL_SPAN("1"),    SL_SPAN("run"),          SL_SPAN("run1")};
        struct sl_buf reply;
        sl_buf_init(&reply, 100);
        emulator_command(sim_redis, 6, epoch, &reply);
        sl_buf_fini(&reply);
    }
    sim_on_moment = on_moment;
    sim_on_poison = on_poison;
    poison = sim_percent(5) ? sim_between(1, QUERIES_MAX) : 0;
    faults = sim_percent(15) ? 0 : (unsigned)sim_between(2, 40);
    saves = faults > 0 && sim_percent(50);
    bool is_well = faults == 0 && poison == 0;
    uint64_t lost_before = sim_counts.lost;
    sim_kafka_refuse(faults > 0 && sim_percent(40) ? 10 : 0);
    size_t processes = sim_between(2, 5);
    for (size_t i = 0; i < processes; i++) {
        sim_start(sim_add(i == 0   ? SIM_FIRST
                          : i == 1 ? SIM_SECOND
                                   : (enum sim_stage_of)sim_below(SIM_STAGES)));
    }
    for (size_t i = sim_below(3); i > 0; i--) {
        sim_start(sim_add(SIM_GATEWAY));
    }
    sim_happen(sim_event_new(sizeof(struct sim_event), on_second), 0);
    run_until(sim_now_us() + sim_between(15 * SIM_S, 45 * SIM_S));
    heal();
    if (is_well && sim_counts.lost > lost_before) {
        SIM_FAIL("a stream is broken although nothing went wrong");
    }
    sim_world_end();
    sim_check_end();
    sim_kafka_end();
    sim_redis_end();
}

static FILE *open_file(const char *path)
{
    FILE *file = fopen(path, "w");
    CHECK(file != NULL);
    setlinebuf(file); /* A failure ends the program at once. */
    return file;
}

static void close_file(FILE *file)
{
    if (file != NULL) {
        fclose(file);
    }
}

static void print_counts(uint64_t schedules)
{
    const struct {
        const char *name;
        uint64_t count;
    } counts[] = {
        {"schedules", schedules},
        {"steps", sim_counts.steps},
        {"scripts", sim_counts.scripts},
        {"calls", sim_counts.calls},
        {"queries", sim_counts.queries},
        {"done", sim_counts.done},
        {"failed", sim_counts.failed},
        {"cancelled", sim_counts.cancelled},
        {"told by a gateway alone", sim_counts.told},
        {"streams found broken", sim_counts.lost},
        {"texts that shared a record", sim_counts.bundled},
        {"restarts", sim_counts.restarts},
        {"take-overs", sim_counts.takeovers},
        {"dead letters", sim_counts.dead},
        {"processes", sim_counts.starts},
        {"times that Redis forgot", sim_counts.flushes},
    };
    for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
        printf("%s%llu %s", i > 0 ? ", " : "", (unsigned long long)counts[i].count, counts[i].name);
    }
    printf("\n");
}

int main(int argc, char **argv)
{
    uint64_t from = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
    uint64_t count = argc > 2 ? strtoull(argv[2], NULL, 10) : argc > 1 ? 1 : SCHEDULES;
    sim_trace_to = argc > 3 ? open_file(argv[3]) : NULL;
    sim_calls_to = argc > 4 ? open_file(argv[4]) : NULL;
    signal(SIGABRT, on_failure);
    for (uint64_t i = 0; i < count; i++) {
        run_schedule(from + i);
    }
    print_counts(count);
    close_file(sim_trace_to);
    close_file(sim_calls_to);
    return 0;
}
