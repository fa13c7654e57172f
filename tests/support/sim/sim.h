/*
 * A cluster in virtual time: real workers (worker.c, job*.c, settle*.c, coord*.c, window.c) with
 * one loop and one clock each, on a network, a Redis and a Kafka that are played here. Redis runs
 * the real scripts (tests/support/redis_emulator); readers follow the real rules
 * (workers/gateway/order.c). Everything that is left to chance comes from one seed.
 *
 *   sim_world.c    time, events, processes and their clocks, chance, the trace of the last steps
 *   sim_loop.c     common/loop.h                 sim_redis.c    common/redis.h and the server
 *   sim_kafka.c    common/kafka.h's producer     sim_group.c    its consumer, and the group
 *   sim_gateway.c  a gateway, as workers know it
 *   sim_parts.c    log, admin port, signals, HTTP client
 *   sim_stage.c    the two stages, and their calls
 *   sim_check.c    what must hold
 */
#ifndef TESTS_SUPPORT_SIM_H
#define TESTS_SUPPORT_SIM_H

#include "common/clock.h"
#include "common/worker_internal.h"
#include "tests/support/test.h"

enum { SIM_PROCESSES = 7, SIM_STAGES = 2, SIM_MS = 1000, SIM_S = 1000000 };
enum sim_stage_of { SIM_FIRST, SIM_SECOND, SIM_GATEWAY };

extern const struct sl_stage sim_stages[SIM_STAGES];

/* --- chance (splitmix64) --- */

void sim_seed(uint64_t seed);
uint64_t sim_random(void);
uint64_t sim_below(uint64_t n); /* 0 .. n - 1 */
bool sim_percent(unsigned percent);
uint64_t sim_between(uint64_t from, uint64_t to); /* Both may come. */

/* --- time and events --- */

struct sim_process;

/* Something that happens later; a member at the beginning of what it needs. Freed after it ran, or
 * unrun when its process is gone. */
struct sim_event {
    uint64_t at_us, number;
    struct sim_process *process; /* NULL: happens in the world. */
    uint64_t incarnation;
    void (*run)(struct sim_event *event);
    void (*fini)(struct sim_event *event); /* Before it is freed; may be NULL. */
    struct sl_list node;                   /* In the inbox of a process that is paused. */
};

/* size: of the struct that begins with the event; zeroed. */
void *sim_event_new(size_t size, void (*run)(struct sim_event *event));
void sim_happen(struct sim_event *event, uint64_t delay_us);
/* On that process's loop: a process that is paused gets it when it goes on, one that is dead never.
 */
void sim_happen_in(struct sim_event *event, struct sim_process *process, uint64_t delay_us);
uint64_t sim_now_us(void); /* The world's own time, which no process knows. */

/* One line of what happened, of which a failure prints the last ones. */
void sim_trace(const char *format, ...) __attribute__((format(printf, 1, 2)));

extern FILE *sim_trace_to; /* Each line goes there too; NULL: nowhere. */
void sim_trace_print(FILE *out);

/* Ends the schedule as a failure. */
#define SIM_FAIL(...)                                                                              \
    do {                                                                                           \
        sim_trace(__VA_ARGS__);                                                                    \
        abort();                                                                                   \
    } while (0)

/* --- processes --- */

struct sim_process {
    size_t index;
    enum sim_stage_of stage; /* SIM_GATEWAY: it is no worker. */
    bool alive, paused;
    bool stopped; /* Its loop was told to end. */
    uint64_t incarnation;
    uint64_t now_us; /* Its clock, which runs at its own rate. */
    double rate;
    uint64_t world_base_us, local_base_us;
    uint64_t paused_at_us, died_at_us;
    struct sl_list inbox;
    struct sl_worker worker;
    struct sl_process_options options;
    struct sim_gateway *gateway;
    struct sl_loop *loop;
    struct sl_redis *redis;
    struct sl_producer *producer;
    struct sl_consumer *consumer;
    uint64_t cut_until_us;     /* Nothing passes between it and Redis. */
    uint64_t last_beat_us;     /* When Redis last had its heartbeat. */
    uint64_t last_silent_us;   /* When a heartbeat last came more than 5 s after the one before. */
    uint64_t last_troubled_us; /* When it last was paused, cut off, or got no answer. */
};

extern struct sim_process sim_processes[SIM_PROCESSES];
extern size_t sim_process_count;
extern struct sim_process *sim_self; /* Whose code runs; NULL: nobody's. */

void sim_world_begin(void);
void sim_world_end(void); /* Kills whoever is left. */
struct sim_process *sim_add(enum sim_stage_of stage);
void sim_start(struct sim_process *process);
void sim_kill(struct sim_process *process); /* Without a word. */
void sim_drain(struct sim_process *process);
/* Does something in it, as an event would. */
void sim_run(struct sim_process *process, void (*run)(const void *ctx), const void *ctx);
void sim_pause(struct sim_process *process);
void sim_resume(struct sim_process *process);
/* The next that happens; false: nothing is left. */
bool sim_step(void);

/* sim_loop.c: for the world. */
uint64_t sim_loop_next_ms(const struct sl_loop *loop); /* UINT64_MAX: no timer. */
void sim_loop_timers(struct sl_loop *loop);            /* Those that are due. */
void sim_loop_tasks(struct sl_loop *loop);             /* Until none is left. */

/* --- Redis --- */

extern struct emulator *sim_redis;
extern uint64_t sim_redis_losses;  /* How often it lost its state. */
extern uint64_t sim_redis_lost_us; /* When it did last. */

extern FILE *sim_calls_to; /* Each script that Redis runs goes there; NULL: nowhere. */
void sim_redis_begin(void);
void sim_redis_end(void);
void sim_redis_flush(void);
void sim_redis_snapshot(void);
void sim_redis_restart(bool old, uint64_t away_us); /* Empty, or with the last snapshot. */
void sim_redis_pause(uint64_t us);
void sim_redis_full(bool full);
void sim_redis_drop(struct sim_process *process);             /* Its connections break. */
void sim_redis_cut(struct sim_process *process, uint64_t us); /* From the server, for so long. */
int64_t sim_redis_now_ms(void);
bool sim_redis_quiet(void); /* Up, and nothing waits there. */

/* --- Kafka --- */

struct sim_record {
    char topic[64];
    int32_t partition;
    int64_t offset, timestamp_ms;
    struct sl_buf bytes; /* key, value, then the headers' texts */
    struct sl_span key, value;
    struct sl_kafka_header headers[16];
    size_t header_count;
};

void sim_kafka_begin(void);
void sim_kafka_end(void);
/* A record by a client outside; -1: any partition. */
void sim_kafka_produce(const char *topic, int32_t partition, struct sl_span key,
                       struct sl_span value, const struct sl_kafka_header *headers, size_t count);
void sim_kafka_away(uint64_t us);          /* No record and no report passes. */
void sim_kafka_refuse(unsigned per_mille); /* So many records fail; 0: none. */
struct sim_record *sim_kafka_record(const char *topic, int32_t partition, int64_t offset);
int64_t sim_kafka_end_offset(const char *topic, int32_t partition);
int32_t sim_kafka_partitions(const char *topic);
void sim_group_begin(void);
void sim_group_end(void);
void sim_group_appended(const struct sim_record *record);
int64_t sim_group_committed(size_t stage, const char *topic, int32_t partition);

#endif
