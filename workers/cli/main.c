/*
 * The program `sluice`: a command line for people, one file a command. This one only finds the
 * command. What they share: options.c (the environment), args.c (their arguments), terminal.c (the
 * screen) and table.c.
 */
#include "workers/cli/cli.h"

#include "common/log.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const struct cli_command commands[] = {
    {"ask", "ask a question and stream the answer", cli_ask},
    {"result", "what became of a query: how far it is, or its result", cli_result},
    {"ingest", "put texts into the store; how runs of it went", cli_ingest},
    {"documents", "list the documents that can be found, delete some", cli_documents},
    {"status", "what runs, how it is, and what waits", cli_status},
    {"report", "what was asked in the last hour or day, and how it went", cli_report},
    {"dead", "look at what could not be processed, send it again or drop it", cli_dead},
    {"topics", "create the Kafka topics", cli_topics},
    {"config", "the configuration of this command line", cli_config},
    {NULL, NULL, NULL},
};

static void print_help(FILE *out)
{
    fprintf(out, "usage: sluice COMMAND [ARGUMENT...]\n\ncommands:\n");
    for (const struct cli_command *c = commands; c->name != NULL; c++) {
        fprintf(out, "  %-10s %s\n", c->name, c->summary);
    }
    fprintf(out,
            "\nexamples:\n"
            "  sluice topics create\n"
            "  sluice ingest ./docs\n"
            "  sluice ask \"How do I rotate the keys?\"\n"
            "  sluice status\n"
            "\n`sluice COMMAND --help` says more. `sluice --version` prints the version.\n"
            "\nexit status: 0 done, 1 failed, 2 wrong usage or configuration, 130 interrupted\n");
}

/* What was printed may not have got out, for instance to a full disk. */
static int finish(int code)
{
    if (fflush(stdout) != 0 || ferror(stdout)) {
        fprintf(stderr, "sluice: the output cannot be written\n");
        return code == CLI_DONE ? CLI_FAILED : code;
    }
    return code;
}

/* To a command a connection that is refused looks like a Kafka that does not answer. */
static void say_trouble(int code)
{
    char why[512];
    if (code != CLI_DONE && sl_kafka_trouble(why, sizeof(why))) {
        fprintf(stderr, "sluice: %s\n", why);
    }
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        print_help(stderr);
        return CLI_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        print_help(stdout);
        return finish(CLI_DONE);
    }
    if (strcmp(argv[1], "--version") == 0) {
        printf("sluice %s\n", SLUICE_VERSION);
        return finish(CLI_DONE);
    }
    for (const struct cli_command *c = commands; c->name != NULL; c++) {
        if (strcmp(argv[1], c->name) == 0) {
            /* Commands say themselves what went wrong; the libraries' warnings would say it twice.
             */
            int log_err = sl_log_start("sluice", SL_LOG_ERROR, SL_LOG_TEXT, STDERR_FILENO);
            int code = c->run(argc - 1, argv + 1);
            if (log_err == 0) {
                sl_log_stop();
            }
            say_trouble(code);
            return finish(code);
        }
    }
    fprintf(stderr, "sluice: unknown command '%s' (sluice --help lists them)\n", argv[1]);
    return CLI_USAGE;
}
