/*
 * The account of ingestion, as gateway and command line read it: runs (a directory, a request) with
 * what became of their documents, and the documents that there are. The workers' side, which
 * counts, is workers/ingest/account.h; the keys are in docs/REDIS.md.
 *
 * All calls are one run of common/lua/ingest_read.lua. Callbacks come later, once, never inside;
 * they may come as late as inside sl_redis_destroy, with -SL_ECLOSED. What they bring is borrowed
 * until they return. err: as sl_redis_cb, or -SL_ENOENT where that is named. A call returns 0, or
 * -SL_ECONN, -SL_EAGAIN, -SL_ENOMEM: then no callback comes.
 */
#ifndef SLUICE_COMMON_INGEST_ACCOUNT_H
#define SLUICE_COMMON_INGEST_ACCOUNT_H

#include "common/redis.h"

struct sl_ingest_env { /* Borrowed by each call until it returns. */
    struct sl_redis *redis;
    const char *prefix;
    uint64_t ttl_ms; /* SLUICE_RESULT_TTL: how long a run is kept after the last word. */
    struct sl_span tenant;
};

typedef void sl_ingest_done_cb(void *ctx, int err);

/* A run begins; source: for people, "DIR on HOST" or "POST /v1/documents". Documents that name it
 * may be produced from now on. Nothing if it has begun before. */
int sl_ingest_begin(const struct sl_ingest_env *env, struct sl_span ingest_id,
                    struct sl_span collection, struct sl_span source, sl_ingest_done_cb *cb,
                    void *ctx) SL_CHECKED;
/* So many of its documents are on the topic, and no more will come; the run ends when they are
 * counted. -SL_ENOENT, also below: the run is not known; Redis lost it, or nothing moved in it for
 * ttl_ms. */
int sl_ingest_close(const struct sl_ingest_env *env, struct sl_span ingest_id, uint64_t documents,
                    sl_ingest_done_cb *cb, void *ctx) SL_CHECKED;
/* A document that never came to the topic (unreadable, too large) counts as failed, once for each
 * doc_id; it is not one of those of sl_ingest_close. -SL_ENOENT. */
int sl_ingest_refuse(const struct sl_ingest_env *env, struct sl_span ingest_id,
                     struct sl_span doc_id, struct sl_span reason, sl_ingest_done_cb *cb,
                     void *ctx) SL_CHECKED;

struct sl_ingest_failure {
    struct sl_span doc_id, reason;
};

struct sl_ingest_run {
    struct sl_span ingest_id, collection, source;
    bool ended;        /* "state": "done", else "running". */
    bool closed;       /* sl_ingest_close was heard. */
    int64_t documents; /* On the topic, as sl_ingest_close said; -1 while it is not closed. */
    uint64_t processed, failed, skipped;
    uint64_t refused;        /* Of those that failed: never on the topic. */
    uint64_t taken;          /* Of the documents: how many a worker has taken up, ended ones too. */
    uint64_t total_chunks;   /* Of those processed. */
    uint64_t stored_chunks;  /* So far, of all. */
    uint64_t waiting_chunks; /* Cut and not stored yet. */
    int64_t began_ms, moved_ms; /* Redis's clock; moved: the last change. */
    const struct sl_ingest_failure
        *failures; /* Those behind the known ones; 1000 in all are kept. */
    size_t failure_count;
};

/* cb: err 0 and the run, or -SL_ENOENT (run NULL). known: how many failures the caller has seen. */
typedef void sl_ingest_run_cb(void *ctx, int err, const struct sl_ingest_run *run);
int sl_ingest_read(const struct sl_ingest_env *env, struct sl_span ingest_id, size_t known,
                   sl_ingest_run_cb *cb, void *ctx) SL_CHECKED;
/* The tenant's runs, the latest first, at most max (100); without failures. */
typedef void sl_ingest_runs_cb(void *ctx, int err, const struct sl_ingest_run *runs, size_t len);
int sl_ingest_runs(const struct sl_ingest_env *env, size_t max, sl_ingest_runs_cb *cb,
                   void *ctx) SL_CHECKED;

struct sl_ingest_document {
    struct sl_span doc_id;
    int64_t version;
    uint64_t chunks, bytes; /* Of the text. */
    int64_t stored_ms;      /* When its version became visible; Redis's clock. */
    bool changing;          /* A newer version, or its deletion, is on its way. */
};

/* Documents of a collection that can be found, in byte order of their ids behind `after` (empty:
 * from the first), at most max (1000); more: there are others behind. */
typedef void sl_ingest_documents_cb(void *ctx, int err, const struct sl_ingest_document *documents,
                                    size_t len, bool more);
int sl_ingest_documents(const struct sl_ingest_env *env, struct sl_span collection,
                        struct sl_span after, size_t max, sl_ingest_documents_cb *cb,
                        void *ctx) SL_CHECKED;

/* The run as INTERFACES has it, one JSON object: ingest_id, state, processed, failed, skipped,
 * total_chunks, failures; and documents (null while not closed), stored_chunks, source, and
 * waiting_for, one line, null when it has ended. */
void sl_ingest_run_json(const struct sl_ingest_run *run, struct sl_buf *out);
/* What an unfinished run waits for, one line such as "3 of 12 documents are not taken up; 40 chunks
 * wait for vectors". */
void sl_ingest_run_waiting(const struct sl_ingest_run *run, struct sl_buf *out);

#endif
