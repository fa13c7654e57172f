/* The commands of the program `sluice`. Each takes its own arguments, argv[0] being its name, and
 * returns the exit code: 0 done, 1 failed, 2 wrong usage or configuration, 130 interrupted. */
#ifndef SLUICE_WORKERS_CLI_H
#define SLUICE_WORKERS_CLI_H

#include "common/options.h"

enum { CLI_DONE = 0, CLI_FAILED = 1, CLI_USAGE = 2, CLI_INTERRUPTED = 130 };

struct cli_command {
    const char *name;
    const char *summary; /* For `sluice --help`. */
    int (*run)(int argc, char **argv);
};

int cli_topics(int argc, char **argv);

/* Where things are: read by every command from the environment. */
struct cli_options {
    const char *url, *api_key;
    const char *brokers, *topic_prefix, *redis_url;
    long long replication, partitions, result_ttl_ms;
};
extern struct cli_options cli_options;
extern const struct sl_option_set cli_option_set;

/* Reads the environment into cli_options; what was wrong is on stderr. NULL: exit with CLI_USAGE.
 * The caller frees it with sl_options_fini. */
struct sl_options *cli_load_options(void);

/* "sluice COMMAND: text", then CLI_USAGE. */
int cli_usage_error(const char *command, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#endif
