/* `sluice config`: the effective configuration of the command line, and where the programs print
 * theirs, which only they know. */
#include "workers/cli/cli.h"

#include <stdio.h>

static const char help[] =
    "usage: sluice config [--markdown]\n\n"
    "Prints the configuration of this command line: names, values and where they come from;\n"
    "secrets are hidden. --markdown prints a table of all its variables with their meaning.\n\n"
    "Each program prints its own: sluice-gateway --print-config, sluice-embed --print-config "
    "...\n\n"
    "examples:\n"
    "  sluice config\n"
    "  SLUICE_KAFKA_BROKERS=10.0.0.5:9092 sluice config | grep KAFKA\n";

static const char programs[] =
    "\n# The programs print theirs, for the environment that they are started with:\n"
    "#   sluice-gateway --print-config, sluice-embed --print-config ...\n"
    "# and say with --help what each variable means.\n";

int cli_config(int argc, char **argv)
{
    bool markdown = false;
    struct cli_list words = {.len = 0};
    const struct cli_arg args[] = {
        {"--markdown", CLI_SWITCH, &markdown, 0, 0},
        {.name = NULL},
    };
    int code = cli_parse("config", help, args, argc, argv, &words);
    if (code != CLI_GO_ON) {
        return code;
    }
    if (words.len > 0) {
        return cli_usage_error("config", "unexpected '%s'", words.items[0]);
    }
    if (markdown) {
        sl_options_markdown(cli_option_sets, CLI_OPTION_SETS, stdout);
        return CLI_DONE;
    }
    struct sl_options *options = cli_load_options();
    if (options == NULL) {
        return CLI_USAGE;
    }
    sl_options_print(options, stdout);
    fputs(programs, stdout);
    sl_options_fini(options);
    return CLI_DONE;
}
