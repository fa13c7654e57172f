/* A run of `sluice ingest`: files to Kafka, and the run's account in Redis until all are counted.
 */
#ifndef SLUICE_WORKERS_CLI_INGEST_RUN_H
#define SLUICE_WORKERS_CLI_INGEST_RUN_H

#include "workers/cli/walk.h"

#include <stdint.h>

struct cli_failure {
    char *doc_id, *reason;
};

struct cli_ingest_run {
    /* Set by the caller. */
    const char *root;
    const struct cli_files *files;
    const char *collection; /* NULL: the default. */
    uint64_t timeout_ms;    /* Without any progress. */
    /* What came of it. */
    uint64_t processed, failed, total_chunks;
    struct cli_failure *failures; /* Perhaps fewer than failed: the account keeps 1000. */
    size_t failure_count, failure_cap;
    char why[512]; /* Why it ended early; empty: every file is counted. */
};

/* Runs until all files are counted, shows progress on stderr. CLI_DONE, CLI_FAILED (run->why is
 * set) or CLI_INTERRUPTED. */
int cli_ingest_run(struct cli_ingest_run *run);
void cli_ingest_run_fini(struct cli_ingest_run *run); /* What came of it. */

#endif
