/* `sluice ingest --dry-run`. */
#ifndef SLUICE_WORKERS_CLI_INGEST_DRY_H
#define SLUICE_WORKERS_CLI_INGEST_DRY_H

#include "workers/cli/ingest_plan.h"

#include <stdint.h>

/* Reads every file of the plan; writes a line for each document that would be sent to stdout, one
 * for each that would fail to stderr, and the sums as a JSON object to stdout. The exit code. */
int cli_ingest_dry_run(const struct cli_plan *plan);

/* About how many chunks sluice-ingest makes of a text of so many characters, by its defaults. */
uint64_t cli_estimate_chunks(uint64_t characters);

#endif
