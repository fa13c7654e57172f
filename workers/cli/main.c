/*
 * The program `sluice`: a command line for people, one file a command. This one only finds the
 * command and keeps what all of them share: the options and the way to say that a call was wrong.
 */
#include "workers/cli/cli.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const struct cli_command commands[] = {
    {"topics", "create the Kafka topics", cli_topics},
    {NULL, NULL, NULL},
};

static void print_help(FILE *out)
{
    fprintf(out, "usage: sluice COMMAND [ARGUMENT...]\n\ncommands:\n");
    for (const struct cli_command *c = commands; c->name != NULL; c++) {
        fprintf(out, "  %-10s %s\n", c->name, c->summary);
    }
    fprintf(out,
            "\n`sluice COMMAND --help` says more. `sluice --version` prints the version.\n"
            "\nexit status: 0 done, 1 failed, 2 wrong usage or configuration, 130 interrupted\n");
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        print_help(stderr);
        return CLI_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        print_help(stdout);
        return CLI_DONE;
    }
    if (strcmp(argv[1], "--version") == 0) {
        printf("sluice %s\n", SLUICE_VERSION);
        return CLI_DONE;
    }
    for (const struct cli_command *c = commands; c->name != NULL; c++) {
        if (strcmp(argv[1], c->name) == 0) {
            return c->run(argc - 1, argv + 1);
        }
    }
    fprintf(stderr, "sluice: unknown command '%s' (sluice --help lists them)\n", argv[1]);
    return CLI_USAGE;
}
