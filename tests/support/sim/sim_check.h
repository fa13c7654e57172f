/* The calls of the simulated stages, and what must hold; see sim.h. */
#ifndef TESTS_SUPPORT_SIM_CHECK_H
#define TESTS_SUPPORT_SIM_CHECK_H

#include "tests/support/sim/sim.h"

enum sim_limit { SIM_LIMIT_FIRST, SIM_LIMIT_EXTRA, SIM_LIMIT_CHAT, SIM_LIMITS };
extern const struct sl_limit sim_limits[SIM_LIMITS];

void sim_check_begin(void);
void sim_check_end(void);
/* A new query, or a batch of chunks; the index names it. */
size_t sim_check_query(const char *id, bool restart, int64_t deadline_ms);
void sim_check_started(struct sl_job *job);
void sim_check_stopped(struct sl_job *job);
void sim_check_call(struct sl_job *job, enum sim_limit limit, bool open);
bool sim_check_ended(const char *id);     /* For its reader. */
void sim_check_told(const char *id);      /* A gateway has told its callers the end by itself. */
void sim_check_shown(struct sl_job *job); /* A delta was handed to the producer. */
void sim_check_record(const struct sim_record *record);
void sim_check_commit(const char *topic, int32_t partition, int64_t from, int64_t to);
void sim_check_redis(void); /* After each command that Redis ran. */
void sim_check_step(void);
void sim_check_died(const struct sim_process *process);
bool sim_check_done(void);   /* Every query has ended, and nothing is held anywhere. */
void sim_check_undone(void); /* Traces what is not. */

/* This one kills each process that begins with it; sim_on_poison is told, to do so. */
void sim_check_poison(const char *id);
extern void (*sim_on_poison)(struct sim_process *process);

/* Called when something has just begun in a process: a call, a stream, a settling. May be NULL. */
extern void (*sim_on_moment)(struct sim_process *process);

extern struct sim_counts {
    uint64_t steps, scripts, queries, calls, done, failed, takeovers, restarts, lost, dead, told,
        cancelled, starts, flushes, bundled;
} sim_counts;

#endif
