/*
 * A stage: what one worker program does with one job. A stage is a table of hooks and options at
 * the end of its file; the runtime (worker.h, job.h) alone owns topics, offsets, claims, deadlines,
 * drain, metrics and endings. Hooks run on the loop's thread and return at once.
 */
#ifndef SLUICE_COMMON_STAGE_H
#define SLUICE_COMMON_STAGE_H

#include "common/claim.h"
#include "common/message.h"
#include "common/options.h"

struct sl_worker;
struct sl_job;

/* A result's record is asked of Redis for nothing: no claim, no cancellation, no attempts. What is
 * made of it must bear being made twice. */
enum sl_input_kind { SL_INPUT_QUERY, SL_INPUT_DOCUMENT, SL_INPUT_BATCH, SL_INPUT_RESULT };

struct sl_stage_input {
    const char *topic; /* Without prefix: "retrieve"; NULL ends the inputs. */
    enum sl_input_kind kind;
    bool bulk;   /* Slots of its own, so that it never takes a query's. */
    bool public; /* From outside: fields are checked strictly, content-type may be JSON. */
};

enum { SL_STAGE_INPUTS = 2, SL_STAGE_LIMITS = 4 };

/* A topic that the stage's work goes to, and the stage that reads it. */
struct sl_stage_behind {
    const char *topic, *stage; /* Without prefix. */
};
enum { SL_STAGE_BEHIND = 2 };

struct sl_stage {
    const char *name;          /* "rerank"; the program is sluice-rerank. */
    const char *synopsis;      /* One sentence for --help. */
    enum sl_stage_index index; /* Its place in struct sl_query.stages; SL_STAGE_COUNT: none. */
    struct sl_stage_input inputs[SL_STAGE_INPUTS + 1];
    const char *const *outputs; /* Topics without prefix that it sends to; NULL at the end. */
    /* The limits that its calls count against, from its options; how many. NULL: none. */
    size_t (*limits)(struct sl_limit ret[SL_STAGE_LIMITS]);
    size_t admission_permits; /* One of each of the first so many comes with a query's admission. */
    /* Whether a query that is admitted now asks for them; not while another one here waits for the
     * first. NULL: always. */
    bool (*wants_permits)(struct sl_worker *worker);
    const char *admin_address; /* Default of SLUICE_ADMIN_LISTEN. */
    long long drain_ms;        /* Default of SLUICE_DRAIN_TIMEOUT. */
    /* Documents are not taken while more than *behind_max records wait behind the stage in all. */
    struct sl_stage_behind behind[SL_STAGE_BEHIND];
    const long long *behind_max;             /* An option's value. NULL: whatever waits. */
    long long max_inflight;                  /* Default of SLUICE_MAX_INFLIGHT; 0: 1024. */
    long long max_inflight_bulk;             /* Default of SLUICE_MAX_INFLIGHT_BULK; 0: 64. */
    size_t state_size;                       /* Of a job's state, zeroed. */
    const struct sl_option_set *option_sets; /* Its own options; static values. */
    size_t option_set_count;

    /* Before the first job. *ret is given back by sl_worker_stage. 0, or -SL_E* with one line in
     * why. */
    int (*init)(struct sl_worker *worker, void **ret, char *why, size_t why_size);
    void (*fini)(void *stage_state); /* After the last. */
    /* A query was decoded and is about to be admitted: what start would have to wait for may be
     * asked of Redis now, on the same connection, and is answered before the admission is. The
     * job's arena stays until cancel or unprepare. Its state is as it was left; nothing settles the
     * job. May come again after unprepare. NULL: nothing to prepare. */
    void (*prepare)(struct sl_job *job);
    /* Prepared, and it does not start now, or never: nothing calls back into the job. */
    void (*unprepare)(struct sl_job *job);
    /* The job is ours and its permits (sl_job_permit) are held where they were free. Exactly one of
     * the sl_job_* calls that settle it must follow, now or later. */
    void (*start)(struct sl_job *job);
    /* Stop: close its calls, let nothing call back into the job. The runtime ends it afterwards;
     * the stage may call sl_job_partial first, and must not settle it. NULL: nothing to stop. */
    void (*cancel)(struct sl_job *job);
    /* In place of start: bulk work that three workers died of. Its record goes to the dead letters;
     * the stage tells whoever waits for the work that it failed, and why, and settles it with
     * sl_job_done. NULL: nobody waits. */
    void (*worn_out)(struct sl_job *job, const char *why);
};

#endif
