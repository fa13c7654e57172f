/*
 * The runtime's own view of a worker process: worker.c (its parts) and worker_drain.c (its end).
 * Its jobs are in job_internal.h.
 */
#ifndef SLUICE_COMMON_WORKER_INTERNAL_H
#define SLUICE_COMMON_WORKER_INTERNAL_H

#include "common/backlog.h"
#include "common/job_internal.h"
#include "common/metrics.h"
#include "common/process.h"
#include "common/trim.h"
#include "common/worker.h"

/* Slots: documents have those of queries, which they never meet, so that they and the batches that
 * come of them never wait for each other's. */
static inline uint32_t class_of_input(const struct sl_stage_input *input)
{
    return input->bulk && input->kind != SL_INPUT_DOCUMENT ? CLASS_BULK : CLASS_QUERY;
}

/* Options that every worker has. */
struct worker_options {
    const char *reply_topics;
    long long max_inflight, max_inflight_bulk, parked_max;
    bool http2;
    const char *ca_file;
};

struct sl_worker {
    const struct sl_stage *stage;
    struct worker_options options;
    const struct sl_process_options *process;
    struct sl_loop *loop;
    struct sl_metrics *metrics;
    struct sl_producer *producer;
    struct sl_consumer *consumer;
    struct sl_backlog *backlog; /* NULL: the stage has no bound on what waits behind it. */
    struct sl_coord *coord;
    struct sl_http_client *http;
    struct sl_admin *admin;
    struct sl_condition *kafka_ready, *redis_ready, *admission_ready, *version_ready;
    void *stage_state;
    struct sl_signals *signals;
    struct sl_trim trim;
    struct sl_limit limits[SL_STAGE_LIMITS];
    size_t limit_count;

    struct sl_map jobs; /* By kind of work and id: job_key. */
    struct sl_list states[JOB_STATES];
    size_t counts[JOB_STATES];
    struct sl_list blocked;  /* Jobs that wait for room in the producer. */
    struct sl_list gathered; /* Jobs that wait for the next flush. */
    struct sl_list lanes;    /* Of bundles: settle_bundle.c. */
    bool bundles_blocked;    /* One waits for room in the producer. */
    struct sl_task flush_task;
    struct sl_timer flush_timer;
    uint64_t flushed_ms;     /* When the last flush was. */
    struct sl_list suspects; /* Wait to run alone, or one of them does. */
    bool holds;              /* There are some: nothing else begins. */
    size_t slots_used[CLASS_COUNT], slots_max[CLASS_COUNT];
    size_t unparked[CLASS_COUNT];     /* Waiting for a slot. */
    size_t parked_bytes[CLASS_COUNT]; /* Of jobs without a slot. */
    struct sl_task unpark;

    char topic_names[SL_STAGE_INPUTS][TOPIC_MAX]; /* With prefix. */
    char results_topic[TOPIC_MAX];
    const char **reply_topics; /* With the replies topic, NULL at the end. */

    bool draining, leaving, left, version_blocked;
    bool closing; /* All jobs are being left: whoever reports now is only written down. */
    struct sl_task leave, close;
    struct sl_timer drain_timer, linger_timer, tick;
    uint64_t linger_end_ms;
    int exit_code;

    struct sl_counter *outcomes[OUTCOME_COUNT], *parked_full, *suspected;
    bool parked_is_full[CLASS_COUNT];
    struct sl_gauge *in_flight, *waiting, *parked, *parked_size;
    struct sl_histogram *parts[PART_COUNT];
    struct sl_histogram *ttft, *total, *overhead; /* Of the stage that generates; else NULL. */
};

/* worker.c */
/* All parts, from the options; 0, or the exit code, with all given back. */
int worker_start(struct sl_worker *worker) SL_CHECKED;
int worker_finish(struct sl_worker *worker); /* After the loop has turned; the exit code. */
void worker_count_dead(struct sl_worker *worker, const char *topic);
/* "<prefix>.<topic>" */
void worker_topic(const struct sl_worker *worker, const char *topic, char ret[TOPIC_MAX]);

/* worker_drain.c */
void worker_on_drain(void *ctx);
void worker_on_stop(void *ctx);
/* Ends it with 1, as soon as Redis knows what is left to others, or a second later. */
void worker_stop(struct sl_worker *worker);
void worker_job_gone(struct sl_worker *worker);
/* The process cannot keep what it has taken: it ends with 1, as if it had been told to. */
void worker_fail(struct sl_worker *worker, const char *why);
void worker_version_unknown(struct sl_worker *worker, const struct sl_record *record);
void worker_abandon_all(struct sl_worker *worker); /* Ends the producer; no job is left. */

#endif
