/*
 * What the files of the embed stage share: embed.c (the stage: gathering questions, options),
 * call.c (the call of questions), batch.c (the job of a batch of chunks), bulk.c (the calls of
 * chunks), request.c (one request to the embedding API) and cache.c (vectors that Redis keeps).
 */
#ifndef SLUICE_WORKERS_EMBED_INTERNAL_H
#define SLUICE_WORKERS_EMBED_INTERNAL_H

#include "common/backoff.h"
#include "common/job.h"
#include "common/metrics.h"
#include "common/upstream.h"
#include "workers/embed/cache.h"

enum { EMBED_TEXTS_MAX = 256 }; /* Of one request, and of one batch of chunks. */

struct embed_config {
    struct sl_upstream_config upstream;
    long long query_limit, reserve, batch, window_ms, bulk_batch, bulk_window_ms, bulk_timeout_ms,
        cache;
};
extern struct embed_config embed_config;

struct embed_stage {
    struct sl_worker *worker;
    struct sl_upstream *upstream;
    struct embed_cache *cache; /* NULL: off. */
    size_t dim;                /* Of the last vectors that the model made; 0: none yet. */
    struct sl_gauge *dimensions;
    struct sl_list gathered; /* Questions that wait for a call. */
    size_t gathered_len;
    size_t calls; /* Of questions, under way. */
    struct sl_timer window;
    struct sl_task flush;
    struct sl_list chunks; /* struct embed_piece: they wait for a call. */
    size_t chunks_len;
    size_t bulk_calls;
    bool chunks_due; /* The window is over: what waits goes out, be it few. */
    struct sl_timer bulk_window;
    struct sl_task bulk_flush;
};

/* --- request.c: texts to the API, vectors back --- */

/* The vectors, or why there are none. */
struct embed_answer {
    int err; /* As sl_upstream_callbacks.on_end says; -SL_EPROTO: no vectors in it; -SL_ENOMEM. */
    int status;
    const float *vectors; /* One behind the other in the order of the texts; borrowed. */
    size_t dim;
    const char *why; /* One line. */
    uint32_t attempts;
};

/* A member of its owner; zeroed is not under way. */
struct embed_request {
    struct embed_stage *stage;
    /* Once; the request is not under way then and its owner may be freed. */
    void (*on_answer)(struct embed_request *request, const struct embed_answer *answer);
    size_t len;
    int status;
    uint32_t attempts;
    struct sl_upstream_call *call;
    struct embed_reading *reading; /* A large response, with the thread pool. */
};
struct embed_wanted {
    const struct sl_span *texts;
    size_t len;
    bool bulk;
    int64_t deadline_ms;
    struct sl_permit *lease; /* As in sl_upstream_request. */
};
/* stage and on_answer are set. Not 0: it is not under way, and nobody was told. */
int embed_request_start(struct embed_request *request,
                        const struct embed_wanted *wanted) SL_CHECKED;
void embed_request_cancel(struct embed_request *request); /* Also one that is not under way. */

/* --- questions: embed.c, call.c --- */

/* Of a job. */
struct embed_state {
    struct sl_job *job;
    struct embed_cache_ask *ask; /* A look-up whose answer has not come. */
    /* A question's: */
    struct embed_key key;
    struct sl_list in_gathered;
    struct embed_call *call;
    float *vector; /* That was kept; NULL: none. */
    size_t dim;    /* Of this, and of a batch's vectors. */
    /* A batch's, in the job's arena: */
    struct embed_piece *pieces; /* One for each chunk; their further parts hang on them. */
    float *vectors;             /* One for each chunk. */
    size_t len;                 /* Chunks. */
    size_t looked;              /* So many of them were looked up. */
    size_t open;                /* Pieces without a vector. */
    size_t added;               /* Further parts. */
    char failure[256];
};

void embed_flush_soon(struct embed_stage *stage); /* A call has ended, others may go out. */
void embed_saw_dim(struct embed_stage *stage, size_t dim);
void embed_question_done(struct sl_job *job, const float *vector, size_t dim);
void embed_question_failed(struct sl_job *job, int err, const char *why);

/* jobs is copied. Not 0: no call was started, and nobody was told. */
int embed_call_start(struct embed_stage *stage, struct sl_job *const *jobs, size_t len) SL_CHECKED;
/* The job wants nothing of it any more; the last one that leaves closes the call. */
void embed_call_leave(struct embed_call *call, const struct sl_job *job);

/* --- chunks: batch.c, bulk.c --- */

/* A chunk, or a part of one that was too long for the model; in the job's arena. */
struct embed_piece {
    struct sl_job *job;
    struct sl_list node;      /* In what waits, or in its call; in none: done, or not begun. */
    bool waits;               /* For a call. */
    struct embed_bulk *call;  /* NULL: in none. */
    size_t slot;              /* 1 + its place in the request that is out; 0: in none. */
    struct embed_piece *next; /* The next part of the same chunk. */
    size_t chunk;             /* In the batch. */
    struct sl_span text;
    const float *vector; /* NULL: not there yet. */
    bool kept;           /* The vector came from the cache. */
    bool whole;          /* It is all of its chunk, so its key is. */
    struct embed_key key;
};

void embed_batch_start(struct embed_stage *stage, struct sl_job *job);
void embed_batch_cancel(struct sl_job *job);
void embed_batch_lost(struct sl_job *job, const char *why); /* In place of its start. */
/* The piece, which is in no list, has its vector (copied). The job may be settled inside. */
void embed_piece_done(struct embed_piece *piece, const float *vector, size_t dim);
/* The document cannot be embedded: all its pieces are taken back, the job is settled. */
void embed_piece_failed(struct embed_piece *piece, const char *why);
/* It becomes the first half of its text. *ret is the second one, in no list. -SL_ETOOBIG: so short
 * a text is not cut, -SL_ENOMEM; then nothing has changed. */
int embed_piece_split(struct embed_piece *piece, struct embed_piece **ret) SL_CHECKED;

/* It waits for a call from now on. */
void embed_bulk_add(struct embed_stage *stage, struct embed_piece *piece);
/* Out of what waits, or of its call, which is closed with the last one. Also one in neither. */
void embed_bulk_remove(struct embed_stage *stage, struct embed_piece *piece);
size_t embed_bulk_max(void); /* Calls of chunks at once. */

#endif
