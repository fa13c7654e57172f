/*
 * What the files of the embed stage share: embed.c (the stage: gathering questions, jobs, options),
 * call.c (one call to the embedding API and its tries) and member.c (what each text's job gets).
 */
#ifndef SLUICE_WORKERS_EMBED_CALL_H
#define SLUICE_WORKERS_EMBED_CALL_H

#include "common/backoff.h"
#include "common/job.h"
#include "common/upstream.h"

enum { EMBED_MEMBERS_MAX = 256 };

struct embed_config {
    struct sl_upstream_config upstream;
    long long query_limit, reserve, batch, window_ms;
};
extern struct embed_config embed_config;

struct embed_stage {
    struct sl_worker *worker;
    struct sl_upstream *upstream;
    struct sl_list gathered; /* Questions that wait for a call. */
    size_t gathered_len;
    size_t calls; /* Of questions, under way. */
    struct sl_timer window;
    struct sl_task flush;
};

/* One text of a job: a question, or one chunk. */
struct embed_member {
    struct sl_job *job; /* NULL: it has left. */
    struct sl_span text;
    size_t index; /* Of the chunk in its batch. */
};

struct embed_call {
    struct embed_stage *stage;
    struct sl_upstream_call *upstream;
    bool bulk;
    struct sl_timer retry; /* Bulk work that waits to be tried again; then upstream is NULL. */
    struct sl_backoff backoff;
    size_t len, present;
    struct embed_member members[];
};

/* Of a job. */
struct embed_state {
    struct sl_job *job;
    struct sl_list in_gathered;
    struct embed_call *call;  /* A question's. */
    struct embed_call **bulk; /* The calls of a chunk batch, NULL where ended. */
    size_t bulk_len, bulk_cap, bulk_open;
    float *vectors; /* Of the batch, in the job's arena. */
    size_t dim;
    char failure[256];
};

/* embed.c: a call of questions has ended, others may go out. */
void embed_flush_soon(struct embed_stage *stage);

/* call.c. members is copied. Not 0: no call was started, and nobody was told. */
int embed_call_start(struct embed_stage *stage, const struct embed_member *members, size_t len,
                     bool bulk) SL_CHECKED;
void embed_call_close(struct embed_call *call); /* Nobody is told. */
/* The job wants nothing of it any more; the last one that leaves closes the call. */
void embed_call_leave(struct embed_call *call, const struct sl_job *job);

/* member.c. A question is settled by either; a chunk's job when its last call has ended. */
void embed_member_done(const struct embed_member *member, bool bulk, const float *vector,
                       size_t dim);
void embed_member_failed(const struct embed_member *member, bool bulk, int err, const char *why);
void embed_batch_lost(struct sl_job *job, const char *why); /* In place of its calls. */
void embed_batch_call_ended(struct sl_job *job, const struct embed_call *call);

#endif
