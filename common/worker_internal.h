/*
 * The runtime's own view of workers and jobs, shared by worker.c (process), intake.c (records
 * become jobs), job.c (states and what stages call) and settle.c (what a job sends, its ending, its
 * offsets).
 */
#ifndef SLUICE_COMMON_WORKER_INTERNAL_H
#define SLUICE_COMMON_WORKER_INTERNAL_H

#include "common/ending.h"
#include "common/job.h"
#include "common/kafka.h"
#include "common/map.h"
#include "common/metrics.h"
#include "common/process.h"
#include "common/worker.h"

enum { CLASS_QUERY, CLASS_BULK, CLASS_COUNT };

enum job_state { JOB_ADMITTING, JOB_PARKED, JOB_UNPARKED, JOB_RUNNING, JOB_SETTLING, JOB_STATES };

/* What remains to be done for a job that no longer runs, in order of appearance. */
enum settle_step {
    SETTLE_NONE,
    SETTLE_FLUSH, /* What the stage sent is not acknowledged yet. */
    SETTLE_STORE, /* The ending is being stored in Redis. */
    SETTLE_SEND,  /* The outbox is not acknowledged yet. */
    SETTLE_MARK,  /* The claim is being marked. */
};

/* A record that must reach the broker, however often it takes. */
struct outbox_item {
    struct sl_job *job;
    struct sl_outgoing record; /* Bytes live in the job. */
    struct sl_timer retry;
    uint32_t tries;
    bool pending; /* With the producer. */
    bool done;
};

enum { OUTBOX_MAX = 4, TOPIC_MAX = 256 };

struct sl_job {
    struct sl_worker *worker;
    enum job_state state;
    struct sl_list in_state;   /* In worker->states[state]. */
    struct sl_list in_blocked; /* Waiting for room in the producer. */
    struct sl_map_node by_key;
    const struct sl_stage_input *input;
    struct sl_arena arena;
    bool has_slot;
    bool restarting; /* Admitted anew once nothing is in flight: the claim was lost, or bulk work
                      * could not be delivered. */

    /* The record, copied, and every position at which it was seen. */
    struct sl_record record;
    struct sl_position *positions;
    size_t position_count, position_cap;

    struct sl_query *query;
    struct sl_document *document;
    struct sl_batch *batch;
    struct sl_span id;
    struct sl_fault fault;
    int fault_err; /* Why the record is not a job: -SL_EBADMSG, -SL_EINVAL; 0 when it is one. */

    struct sl_admission admission;
    struct sl_permit permits[SL_ADMIT_PERMITS];
    struct sl_timer deadline;
    uint64_t taken_us, granted_us;
    struct sl_stage_time time;

    uint32_t seq;     /* Of the next event. */
    uint32_t unacked; /* Deltas and bulk records that the broker has not acknowledged. */
    int delivery_err; /* The first that failed. */
    void (*on_room)(struct sl_job *job);
    void (*on_streaming)(struct sl_job *job);
    struct sl_result partial;

    enum settle_step step;
    struct sl_result result; /* Of a query that is ending. */
    struct sl_buf bytes;     /* The ending, or the record that is forwarded. */
    struct sl_buf early;     /* The event sent before generation (sources). */
    struct sl_route route, early_route;
    char topics[OUTBOX_MAX][TOPIC_MAX];
    struct outbox_item outbox[OUTBOX_MAX];
    size_t outbox_count;
    bool is_ending; /* The outbox is an ending: tell Redis when it is acknowledged. */

    void *state_data;
};

/* Options that every worker has, besides those of every process. */
struct worker_options {
    const char *reply_topics;
    long long max_inflight, max_inflight_bulk;
    bool http2;
    const char *ca_file;
};

struct sl_worker {
    const struct sl_stage *stage;
    const struct sl_process_options *process;
    struct worker_options options;
    struct sl_loop *loop;
    struct sl_metrics *metrics;
    struct sl_producer *producer;
    struct sl_consumer *consumer;
    struct sl_coord *coord;
    struct sl_http_client *http;
    struct sl_admin *admin;
    struct sl_condition *kafka_ready, *redis_ready, *admission_ready, *version_ready;
    void *stage_state;
    struct sl_signals *signals;
    struct sl_limit limits[SL_STAGE_LIMITS];
    size_t limit_count;

    struct sl_map jobs; /* By "q<id>" or "b<id>". */
    struct sl_list states[JOB_STATES];
    size_t counts[JOB_STATES];
    struct sl_list blocked;
    size_t slots_used[CLASS_COUNT], slots_max[CLASS_COUNT];
    struct sl_task unpark;

    char topic_names[SL_STAGE_INPUTS][TOPIC_MAX]; /* With prefix. */
    char results_topic[TOPIC_MAX];
    const char **reply_topics; /* With the replies topic, NULL at the end. */

    bool draining, left, version_blocked;
    struct sl_timer drain_timer, tick;
    int exit_code;

    struct sl_counter *outcomes[6];
    struct sl_gauge *in_flight, *parked;
    struct sl_histogram *parts[3];
};

/* intake.c */
void intake_record(void *ctx, const struct sl_record *record, const struct sl_position *position);
size_t intake_room(void *ctx, uint32_t class);
void intake_unpark(struct sl_task *task); /* Parked jobs that want a slot again. */
int intake_decode(struct sl_job *job) SL_CHECKED;

/* job.c */
struct sl_job *job_create(struct sl_worker *worker, const struct sl_record *record,
                          const struct sl_position *position);
void job_set_state(struct sl_job *job, enum job_state state);
void job_admit(struct sl_job *job);
int job_add_position(struct sl_job *job, const struct sl_position *position) SL_CHECKED;
void job_stop(struct sl_job *job); /* Running: calls closed, permits back. */
void job_free_slot(struct sl_job *job);
void job_maybe_restart(struct sl_job *job);
void job_destroy(struct sl_job *job);
void job_count(struct sl_job *job, const char *outcome);

/* settle.c */
void settle_forward(struct sl_job *job, const char *topic);
void settle_bulk(struct sl_job *job);
void settle_query(struct sl_job *job, const struct sl_result *result);
void settle_stored_ending(struct sl_job *job); /* job->bytes holds one that somebody stored. */
void settle_dead_letter(struct sl_job *job, int err, const char *message);
void settle_nothing(struct sl_job *job); /* The record is finished with. */
void settle_continue(struct sl_job *job);
void settle_on_room(struct sl_job *job);
bool settle_quiet(struct sl_job *job);   /* Neither the producer nor Redis owes an answer. */
void settle_abandon(struct sl_job *job); /* At the end of the process: forget it. */

/* worker.c */
int worker_run(struct sl_worker *worker); /* From its options to its exit code. */
void worker_job_gone(struct sl_worker *worker);
void worker_version_unknown(struct sl_worker *worker, const struct sl_record *record);
void worker_count_dead(struct sl_worker *worker, const char *topic);
/* "<prefix>.<topic>" */
void worker_topic(const struct sl_worker *worker, const char *topic, char ret[TOPIC_MAX]);

#endif
