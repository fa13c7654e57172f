/*
 * The runtime's own view of a job, shared by intake.c (records become jobs), job.c (a job's life),
 * job_run.c (admission, running), job_suspect.c (who runs alone), job_stage.c (what stages call),
 * settle.c (how it ends), settle_outbox.c (what it sends) and settle_bundle.c (when text goes out).
 */
#ifndef SLUICE_COMMON_JOB_INTERNAL_H
#define SLUICE_COMMON_JOB_INTERNAL_H

#include "common/ending.h"
#include "common/job.h"
#include "common/kafka.h"
#include "common/map.h"

enum { CLASS_QUERY, CLASS_BULK, CLASS_COUNT };

enum job_state { JOB_ADMITTING, JOB_PARKED, JOB_UNPARKED, JOB_RUNNING, JOB_SETTLING, JOB_STATES };

/* What remains to be done for a job that no longer runs. */
enum settle_step {
    SETTLE_NONE,
    SETTLE_FLUSH, /* What the stage sent is not acknowledged yet. */
    SETTLE_STORE, /* The ending is being stored in Redis. */
    SETTLE_SEND,  /* The outbox is not acknowledged yet. */
    SETTLE_MARK,  /* The claim is being marked. */
};

/* The first four are those of enum sl_outcome. MOVED: another worker did it, or does. */
#define JOB_OUTCOMES(X) X(done) X(failed) X(cancelled) X(expired) X(dead) X(moved)
enum job_outcome {
#define X(name) OUTCOME_##name,
    JOB_OUTCOMES(X)
#undef X
        OUTCOME_COUNT
};

/* The parts of sluice_stage_seconds. wait: for admission, decoding included; ack: the broker's. */
#define JOB_PARTS(X) X(queue) X(wait) X(decode) X(work) X(encode) X(ack) X(mark)
enum job_part {
#define X(name) PART_##name,
    JOB_PARTS(X)
#undef X
        PART_COUNT
};

enum outbox_kind {
    OUTBOX_EARLY,   /* The event before generation. */
    OUTBOX_FORWARD, /* The query, for the next stage. */
    OUTBOX_EVENT,   /* Of the ending. */
    OUTBOX_RESULT,  /* Likewise. */
    OUTBOX_DEAD,    /* A dead letter. */
};

/* A record that must reach the broker, however often it takes. */
struct outbox_item {
    struct sl_job *job;
    enum outbox_kind kind;
    struct sl_outgoing record; /* Bytes live in the job. */
    struct sl_timer retry;
    uint32_t tries;
    bool pending; /* With the producer. */
    bool done;
    int32_t partition; /* Where it came to stand; -1: not delivered, or not known. */
    int64_t offset;
};

enum { OUTBOX_MAX = 4, TOPIC_MAX = 256, JOB_KEY_MAX = 80 };

struct sl_job {
    struct sl_worker *worker;
    enum job_state state;
    struct sl_list in_state;   /* In worker->states[state]. */
    struct sl_list in_sending; /* In blocked or gathered: on_room is to be called. */
    struct sl_list in_suspects;
    struct sl_map_node by_key;
    char key[JOB_KEY_MAX];
    const struct sl_stage_input *input;
    struct sl_task next;     /* Something came that it may have waited for: job_next. */
    struct sl_arena arena;   /* What decoding and the stage made of the record. */
    bool has_slot, prepared; /* prepared: stage.prepare came; neither start nor unprepare did. */
    bool started;            /* The stage has begun with it and has not settled it. */
    bool restarting; /* Stopped, and admitted anew once nothing is in flight: the claim was lost, or
                      * somebody else ended the query, or bulk work could not be delivered. */
    bool marking;    /* sl_claim_stream is under way. */
    uint32_t repeats; /* Of bulk work that could not be delivered. */

    /* The record, its bytes behind this struct, and every position at which it was seen. */
    size_t size; /* Of this struct with what is behind it. */
    struct sl_record record;
    struct sl_position first_position;
    struct sl_position *positions;
    size_t position_count, position_cap;

    struct sl_query *query;
    struct sl_document *document;
    struct sl_batch *batch;
    struct sl_ended *ended;
    struct sl_span id;
    struct sl_fault fault;
    int fault_err; /* -SL_EINVAL: a query that is not valid, to be told so; 0: none. */

    struct sl_admission admission;
    struct sl_permit permits[SL_ADMIT_PERMITS];
    struct sl_timer deadline;
    uint64_t taken_us, granted_us, settled_us, sent_us, acked_us; /* When; 0: not yet. */
    uint64_t decode_us, encode_us;                                /* How long. */
    struct sl_stage_time time;

    uint32_t seq;     /* Of the next event. */
    bool early_seen;  /* An earlier attempt here sent the event before generation. */
    uint32_t unacked; /* Deltas and bulk records that the broker has not acknowledged. */
    int delivery_err; /* The first that failed. */
    void (*on_room)(struct sl_job *job);
    void (*on_streaming)(struct sl_job *job);
    struct sl_result partial;
    struct sl_buf partial_text;

    enum settle_step step;
    enum job_outcome outcome;
    struct sl_result result; /* Of a query that is ending. */
    struct sl_timer again;   /* To store it, when it was refused. */
    struct sl_buf bytes;     /* The ending, or the record that is forwarded. */
    struct sl_buf early;     /* The event sent before generation (sources), and each delta. */
    struct sl_route route, early_route;
    char topics[OUTBOX_MAX][TOPIC_MAX];
    struct outbox_item outbox[OUTBOX_MAX];
    size_t outbox_count;
    bool packed;    /* bytes holds the ending. */
    bool is_dead;   /* A dead letter is in the outbox. */
    bool is_ending; /* The outbox is an ending: tell Redis when it is acknowledged. */

    void *state_data;
};

/* intake.c */
void intake_record(void *ctx, const struct sl_record *record, const struct sl_position *position);
size_t intake_room(void *ctx, uint32_t class);
void intake_unpark(struct sl_task *task); /* Parked jobs that want a slot again. */
int intake_decode(struct sl_job *job) SL_CHECKED;

/* job.c */
struct sl_job *job_create(struct sl_worker *worker, const struct sl_record *record,
                          const struct sl_position *position, const char *key);
void job_set_state(struct sl_job *job, enum job_state state);
void job_next(struct sl_job *job); /* At the end of this turn: what it waited for may be there. */
int job_add_position(struct sl_job *job, const struct sl_position *position) SL_CHECKED;
void job_free_slot(struct sl_job *job);
void job_forget(struct sl_job *job); /* All but the record: as if it had just come. */
void job_restart(struct sl_job *job);
void job_abandon(struct sl_job *job); /* Left to whoever reads the record next. */
void job_destroy(struct sl_job *job);

/* job_run.c */
void job_admit(struct sl_job *job);
void job_begin_unclaimed(struct sl_job *job); /* job_admit asked for it; a turn later. */
bool job_runs(const struct sl_job *job);
void job_stop(struct sl_job *job); /* Running: calls closed, permits back. */
void job_end(struct sl_job *job, enum sl_outcome outcome, enum sl_query_error code,
             const char *message);
void job_leave_running(struct sl_job *job);
void job_unprepare(struct sl_job *job); /* Also one that is not prepared. */
void job_release_permits(struct sl_job *job);

/* job_suspect.c */
void suspects_add(struct sl_job *job);          /* Two of its owners died: it is to run alone. */
void suspects_remove(struct sl_job *job);       /* Also one that is none. */
void suspects_review(struct sl_worker *worker); /* After a job changed its state or is gone. */

/* settle.c */
void settle_forward(struct sl_job *job, const char *topic);
void settle_bulk(struct sl_job *job);
void settle_query(struct sl_job *job, const struct sl_result *result);
void settle_stored_ending(struct sl_job *job, struct sl_span ending);
void settle_dead_letter(struct sl_job *job, int err, const char *message);
/* Its workers die of it: its record is a dead letter. A query then ends with worker_lost. */
void settle_worn_out(struct sl_job *job, const char *why);
void settle_nothing(struct sl_job *job); /* The record is finished with. */
/* The process ends, its producer is gone: finished if all that was sent arrived, else left. */
void settle_leave(struct sl_job *job);
void settle_advance(struct sl_job *job); /* What came allows: perhaps the job's end. */

/* settle_outbox.c */
uint32_t settle_attempt(const struct sl_job *job); /* That its events bear: 0 before generation. */
struct outbox_item *settle_add(struct sl_job *job, enum outbox_kind kind,
                               const struct sl_outgoing *record);
void settle_send(struct outbox_item *item);
void settle_send_outbox(struct sl_job *job);               /* What was added; step SEND. */
void settle_send_early(struct sl_job *job, bool forwards); /* Soon, or now. */
void settle_send_late(struct sl_job *job);   /* The same event, should it still wait: now. */
bool settle_sent(const struct sl_job *job);  /* All that it sent is acknowledged. */
bool settle_quiet(const struct sl_job *job); /* Neither the producer nor Redis owes an answer. */
void settle_stop_retries(struct sl_job *job);
/* The stage may send for each job of the list, blocked or gathered, which is empty then but for
 * those that still have no room. */
void settle_go_on(struct sl_list *jobs);
void settle_reported(struct sl_job *job, int err); /* Of what it sent while it ran, one record. */

/* settle_bundle.c: an event for a gateway. 0: settle_reported comes; -SL_EAGAIN, -SL_ENOMEM. */
int settle_bundle_add(struct sl_job *job, struct sl_span event) SL_CHECKED;
void settle_bundles_go_on(struct sl_worker *worker); /* The producer has room. */
void settle_bundles_drop(struct sl_worker *worker);  /* Those that it has not been given. */

#endif
