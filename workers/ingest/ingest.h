/*
 * The ingest stage, and what its files share: ingest.c (the stage), document.c, hash.c and cut.c
 * (documents become chunks), batch.c (chunks with vectors go to the stores), end.c (how either
 * ends), account.c and write.c (Redis and stores).
 */
#ifndef SLUICE_WORKERS_INGEST_H
#define SLUICE_WORKERS_INGEST_H

#include "common/job.h"
#include "common/store_options.h"
#include "workers/ingest/account.h"
#include "workers/ingest/cut.h"
#include "workers/ingest/hash.h"
#include "workers/ingest/write.h"

extern const struct sl_stage ingest_stage;

struct ingest_config {
    struct sl_store_options stores;
    long long timeout_ms;
    long long batch, backlog;
    const char *model;
    struct ingest_cut_config cut;
};
extern struct ingest_config ingest_config;

struct ingest {
    struct sl_worker *worker;
    struct ingest_account account;
    struct ingest_stores stores;
    struct ingest_cutter cutter;
    struct ingest_hasher hasher;
    struct sl_buf settings; /* Of the hasher. */
    struct sl_list
        opening; /* Documents that have no version yet, in the order in which they came. */
    /* What happened here; a message that is delivered again counts again. */
    struct sl_counter *processed, *failed, *skipped, *stored_chunks;
};

/* The state of a job, of either input. */
struct ingest_job {
    struct sl_job *job;
    struct ingest *ingest;
    struct ingest_ask ask;
    char source[64]; /* Of a document. */
    struct ingest_write write;
    bool worn_out;                          /* The runtime has told the dead letters already. */
    const char *why;                        /* Of one that is worn out; static. */
    struct sl_list in_opening;              /* Of a document. */
    bool is_opening;                        /* It asks for its version; else it waits for others. */
    struct ingest_hash hash;                /* Of a document. */
    struct ingest_cut *cut;                 /* Of a document. */
    const struct ingest_cut_result *chunks; /* Once it is cut. */
    uint32_t next;                          /* The first chunk that was not sent yet. */
    struct sl_timer pause;
    char reason[INGEST_REASON];
};

/* Document and batch, as far as the account wants to know them. */
void ingest_ask_about(struct ingest_job *state, enum ingest_question question,
                      void (*on_answer)(struct ingest_ask *ask));
/* end.c. Each settles the job, later. */

/* The document will not be stored: noted in its run's account; one that no run counts goes to the
 * dead letters, so that somebody learns of it. Nothing of it stays in the stores. */
void ingest_fail(struct ingest_job *state, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* The version has ended, or is not wanted any more, as the answer (ask) says: what the stores hold
 * of it goes, unless it is the accepted one. */
void ingest_pass_over(struct ingest_job *state);
/* It was accepted: lower ones are deleted, and it counts as processed. */
void ingest_complete(struct ingest_job *state);

void ingest_document_start(struct ingest_job *state);
void ingest_document_cancel(struct ingest_job *state);
void ingest_batch_start(struct ingest_job *state);

#endif
