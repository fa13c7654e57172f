/* What `sluice ingest` is to send, from its arguments: the files, their documents' names, the
 * metadata. Nothing is read but folders and standard input. */
#ifndef SLUICE_WORKERS_CLI_INGEST_PLAN_H
#define SLUICE_WORKERS_CLI_INGEST_PLAN_H

#include "workers/cli/walk.h"

struct cli_plan {
    struct cli_files files; /* By id. */
    char **roots;           /* The directories that ids are relative to, as given, each once. */
    size_t root_count;
    struct sl_buf input; /* Standard input, where "-" is named; else empty. */
    char input_why[192]; /* Why that is no document; empty: it is one. */
};

/* words: directories, files and "-". input_id: the document's id that "-" becomes, NULL: none was
 * given. CLI_GO_ON, or the code to exit with: then one line was written to stderr. The caller calls
 * cli_plan_fini on every path. */
int cli_plan_make(struct cli_plan *plan, const struct cli_list *words,
                  const struct cli_patterns *patterns, const char *input_id) SL_CHECKED;
void cli_plan_fini(struct cli_plan *plan);

/* Where the documents come from, "DIR, DIR on HOST", for people and to compare runs. Appended. */
void cli_plan_put_source(const struct cli_plan *plan, struct sl_buf *out);

/* A JSON object of pairs "key=value", into out (cleared first). CLI_GO_ON, or CLI_USAGE when one is
 * wrong, which was told. */
int cli_metadata(const struct cli_list *pairs, struct sl_buf *out) SL_CHECKED;

#endif
