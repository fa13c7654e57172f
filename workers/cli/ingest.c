/*
 * `sluice ingest DIR`: the text files below a directory become documents. This file finds them and
 * says at the end what came of each; ingest_run.c does the work between.
 *
 * The last line on stdout is for programs, everything for people goes to stderr.
 */
#include "workers/cli/cli.h"
#include "workers/cli/ingest_run.h"
#include "workers/cli/terminal.h"

#include <inttypes.h>

static const char help[] =
    "usage: sluice ingest DIR [OPTION...]\n\n"
    "Puts the text files below DIR into the store: each is a document whose name is its path in\n"
    "DIR. One that is there already is replaced. Ends with {\"processed\", \"failed\",\n"
    "\"total_chunks\"} on stdout; what failed is listed on stderr with the reason.\n\n"
    "  --collection C   where the documents belong                 (default)\n"
    "  --pattern P      files to take; may be given several times  (**/*.txt, **/*.md)\n"
    "  --timeout T      how long nothing may move                  (60s)\n\n"
    "Patterns are those of the shell; ** stands for any number of folders, and a leading dot must\n"
    "be written. Links are followed when they stay below DIR.\n\n"
    "variables: SLUICE_KAFKA_BROKERS, SLUICE_REDIS_URL, SLUICE_TOPIC_PREFIX, NO_COLOR\n\n"
    "examples:\n"
    "  sluice ingest ./docs\n"
    "  sluice ingest ./docs --pattern '**/*.rst' --collection manual\n\n"
    "exit status: 0 all stored, 1 something failed, 2 wrong usage or configuration,\n"
    "130 interrupted (what was sent is stored all the same)\n";

static const char *const default_patterns[] = {"**/*.txt", "**/*.md"};

static void print_failures(const struct cli_ingest_run *run)
{
    struct cli_terminal err;
    cli_terminal_init(&err, stderr);
    for (size_t i = 0; i < run->failure_count; i++) {
        fprintf(stderr, "%sfailed%s  ", cli_style(&err, CLI_RED), cli_style(&err, CLI_PLAIN));
        cli_put_text(&err, sl_span_of(run->failures[i].doc_id));
        fputs(": ", stderr);
        cli_put_text(&err, sl_span_of(run->failures[i].reason));
        fputc('\n', stderr);
    }
    if (run->failed > run->failure_count) {
        fprintf(stderr, "and %" PRIu64 " more\n", run->failed - run->failure_count);
    }
}

static int ingest(struct cli_ingest_run *run)
{
    int code = cli_ingest_run(run);
    print_failures(run);
    if (code == CLI_INTERRUPTED) {
        fprintf(stderr, "sluice ingest: interrupted; what was sent is stored all the same\n");
    } else if (code == CLI_FAILED) {
        fprintf(stderr, "sluice ingest: %s\n", run->why);
    }
    printf("{\"processed\":%" PRIu64 ",\"failed\":%" PRIu64 ",\"total_chunks\":%" PRIu64 "}\n",
           run->processed, run->failed, run->total_chunks);
    return code == CLI_DONE && run->failed > 0 ? CLI_FAILED : code;
}

static int find_and_ingest(struct cli_ingest_run *run, const struct cli_list *patterns)
{
    struct cli_files files;
    int rv = cli_walk(run->root, patterns->items, patterns->len, &files);
    int code = CLI_FAILED;
    if (rv == -SL_ETOOBIG) {
        fprintf(stderr, "sluice ingest: more than %d files in %s\n", CLI_FILES_MAX, run->root);
    } else if (rv != 0) {
        fprintf(stderr, "sluice ingest: %s cannot be read: %s\n", run->root,
                rv == -SL_EINVAL ? "not a directory"
                : rv == -SL_EIO  ? "no permission"
                                 : sl_error_text(rv));
    } else if (files.len == 0) {
        fprintf(stderr, "sluice ingest: no file in %s fits %s%s\n", run->root, patterns->items[0],
                patterns->len > 1 ? " or the other patterns" : "");
    } else {
        run->files = &files;
        code = ingest(run);
    }
    cli_files_fini(&files);
    cli_ingest_run_fini(run);
    return code;
}

int cli_ingest(int argc, char **argv)
{
    struct cli_ingest_run run = {.root = NULL};
    struct cli_list words = {.len = 0}, patterns = {.len = 0};
    long long timeout_ms = 60000;
    const struct cli_arg args[] = {
        {"--collection", CLI_TEXT, &run.collection, 0, 0},
        {"--pattern", CLI_LIST, &patterns, 0, 0},
        {"--timeout", CLI_DURATION, &timeout_ms, 1000, 86400000},
        {.name = NULL},
    };
    int code = cli_parse("ingest", help, args, argc, argv, &words);
    if (code != CLI_GO_ON) {
        return code;
    }
    if (words.len != 1) {
        return cli_usage_error("ingest", words.len == 0 ? "the directory is missing"
                                                        : "expected one directory");
    }
    for (size_t i = 0; patterns.len == 0 && i < 2; i++) {
        patterns.items[i] = default_patterns[i];
    }
    patterns.len = patterns.len > 0 ? patterns.len : 2;
    struct sl_options *options = cli_load_options();
    if (options == NULL) {
        return CLI_USAGE;
    }
    run.root = words.items[0];
    run.timeout_ms = (uint64_t)timeout_ms;
    code = find_and_ingest(&run, &patterns);
    sl_options_fini(options);
    return code;
}
