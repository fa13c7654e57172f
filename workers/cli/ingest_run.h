/* A run of ingestion: documents, or their deletions, to Kafka, and the run's account in Redis until
 * all of them are counted. */
#ifndef SLUICE_WORKERS_CLI_INGEST_RUN_H
#define SLUICE_WORKERS_CLI_INGEST_RUN_H

#include "workers/cli/ingest_plan.h"

#include <stdint.h>

struct cli_failure {
    char *doc_id, *reason;
};

struct cli_ingest_run {
    /* Set by the caller, borrowed. */
    const char *command; /* "ingest", for what is said on stderr. */
    const struct cli_plan *plan;
    const char *collection;
    bool again;              /* Unchanged documents are stored anew, too. */
    struct sl_span metadata; /* JSON; empty: none. */
    struct sl_span source;   /* Of the run, for the account. */
    bool remove;             /* The documents are to go; nothing is read. */
    uint64_t timeout_ms;     /* Without any progress. */
    /* What came of it. */
    char ingest_id[37];
    uint64_t sent; /* Documents on the topic. */
    uint64_t processed, failed, skipped, total_chunks;
    struct cli_failure *failures; /* Perhaps fewer than failed: the account keeps 1000. */
    size_t failure_count, failure_cap;
    char why[512]; /* Why it ended early; empty: every document is counted. */
    bool begun;    /* The account knows the run. */
    bool stuck;    /* A file is still being read, perhaps for ever: exit by _exit. */
};

/* Runs until all documents are counted, shows progress on stderr. CLI_DONE, CLI_FAILED (run->why is
 * set) or CLI_INTERRUPTED: then what was sent is stored all the same, and the account knows that no
 * more will come. A second interrupt ends the process. */
int cli_ingest_run(struct cli_ingest_run *run);
void cli_ingest_run_fini(struct cli_ingest_run *run); /* What came of it. */

/* What failed, as a table, why it ended early, what was skipped; to stderr. */
void cli_ingest_report(const struct cli_ingest_run *run, int code);

#endif
