/*
 * The commands of the program `sluice`, one file each, and what all of them share: options from the
 * environment, arguments, and how a wrong call is told. A command takes its own arguments, argv[0]
 * being its name, and returns the exit code.
 */
#ifndef SLUICE_WORKERS_CLI_H
#define SLUICE_WORKERS_CLI_H

#include "common/kafka_security.h"

enum { CLI_DONE = 0, CLI_FAILED = 1, CLI_USAGE = 2, CLI_INTERRUPTED = 130 };

struct cli_command {
    const char *name;
    const char *summary; /* For `sluice --help`. */
    int (*run)(int argc, char **argv);
};

int cli_ask(int argc, char **argv);
int cli_result(int argc, char **argv);
int cli_ingest(int argc, char **argv);
int cli_ingest_status(int argc, char **argv); /* Of cli_ingest. */
int cli_documents(int argc, char **argv);
int cli_status(int argc, char **argv);
int cli_report(int argc, char **argv);
int cli_dead(int argc, char **argv);
int cli_topics(int argc, char **argv);
int cli_config(int argc, char **argv);

/* Where things are: read by every command from the environment. */
struct cli_options {
    const char *url, *api_key;
    const char *brokers, *topic_prefix, *reply_topics, *redis_url, *admin_hosts, *analytics_url;
    const char *no_color, *term;
    long long replication, partitions, result_ttl_ms, dead_attempts;
    struct sl_kafka_security kafka;
};
extern struct cli_options cli_options;
enum { CLI_OPTION_SETS = 2 };
extern const struct sl_option_set cli_option_sets[CLI_OPTION_SETS];

/* Reads the environment into cli_options; what was wrong is on stderr. NULL: exit with CLI_USAGE.
 * The caller frees it with sl_options_fini. */
struct sl_options *cli_load_options(void);

/* --- arguments: `--name VALUE`, `--name=VALUE`, `--switch`; `--` ends them --- */

enum { CLI_LIST_MAX = 4096, CLI_GO_ON = -1 }; /* A shell may name that many files. */

struct cli_list {
    const char *items[CLI_LIST_MAX]; /* Borrowed from argv. */
    size_t len;
};

struct cli_arg {
    const char *name; /* "--top-n"; NULL ends a table. */
    enum {
        CLI_SWITCH,   /* bool */
        CLI_TEXT,     /* const char * */
        CLI_NUMBER,   /* long long */
        CLI_DURATION, /* long long, ms */
        CLI_LIST,     /* struct cli_list: may be given several times. */
    } type;
    void *value; /* Untouched when the argument is not given. */
    double min, max;
};

/* Fills the values; what is no argument goes to words. CLI_GO_ON, or the code to exit with: --help
 * (prints help) and --version were served, or something was wrong and told. */
int cli_parse(const char *command, const char *help, const struct cli_arg *args, int argc,
              char **argv, struct cli_list *words);

/* "sluice COMMAND: text", then CLI_USAGE. */
int cli_usage_error(const char *command, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#endif
