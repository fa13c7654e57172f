/*
 * `sluice ingest`: texts become documents. This file has its arguments; ingest_plan.c finds what
 * they mean, ingest_run.c sends it and follows it, ingest_dry.c only says what would be sent, and
 * ingest_status.c shows runs, of this command line and others.
 *
 * The last line on stdout is for programs, everything for people goes to stderr.
 */
#include "workers/cli/ingest_dry.h"
#include "workers/cli/ingest_run.h"
#include "workers/cli/terminal.h"

#include <inttypes.h>
#include <signal.h>
#include <unistd.h>

static const char help[] =
    "usage: sluice ingest DIR|FILE|- ... [OPTION...]\n"
    "       sluice ingest status [ID] [--watch] [--json]\n\n"
    "Puts texts into the store: UTF-8, at most 16 MiB each. The text files below DIR become\n"
    "documents whose names are their paths in DIR; FILE becomes one of its base name; - is the\n"
    "standard input and needs --id. A document that is there already is replaced, one that has\n"
    "not changed is skipped. So an interrupted run is finished by running it again.\n\n"
    "Ends with {\"processed\", \"failed\", \"skipped\", \"total_chunks\"} on stdout; what\n"
    "failed is listed on stderr with the reason, and stops no others.\n\n"
    "  --collection C   where the documents belong                 (default)\n"
    "  --metadata K=V   goes with each document, found again in sources and usable as a filter;\n"
    "                   may be given several times\n"
    "  --pattern P      files of directories to take; may be given several times\n"
    "                   (**/*.txt, **/*.md)\n"
    "  --exclude P      files and folders to leave out; may be given several times\n"
    "  --id NAME        the document that - becomes\n"
    "  --again          stores unchanged documents anew, for a store that has lost some\n"
    "  --dry-run        lists what would be sent and what would fail; needs no server\n"
    "  --timeout T      how long nothing may move                  (60s)\n\n"
    "Patterns are those of the shell; ** stands for any number of folders, and a leading dot must\n"
    "be written. Links are followed when they stay below DIR. Two arguments that lead to the same\n"
    "name are refused. Two directories that are ingested into one collection one after the other\n"
    "replace each other's documents of the same path: there is a warning, and --collection keeps\n"
    "them apart.\n\n"
    "variables: SLUICE_KAFKA_BROKERS, SLUICE_REDIS_URL, SLUICE_TOPIC_PREFIX, SLUICE_RESULT_TTL,\n"
    "NO_COLOR\n\n"
    "examples:\n"
    "  sluice ingest ./docs\n"
    "  sluice ingest ./docs --pattern '**/*.rst' --collection manual --metadata version=2\n"
    "  sluice ingest ./docs --exclude '**/drafts' --dry-run\n"
    "  pdftotext report.pdf - | sluice ingest - --id report.pdf\n\n"
    "exit status: 0 all stored or unchanged, 1 something failed, 2 wrong usage or configuration,\n"
    "130 interrupted (what was sent is stored all the same; a second ctrl-C ends at once)\n";

enum { METADATA_MAX = 1 << 20, SOURCE_MAX = 8192 };

struct ingest_args {
    struct cli_list words, take, exclude, metadata;
    const char *collection, *id;
    long long timeout_ms;
    bool dry_run, again;
};

static int run_plan(const struct ingest_args *args, const struct cli_plan *plan,
                    struct sl_span metadata)
{
    struct sl_buf source;
    sl_buf_init(&source, SOURCE_MAX);
    cli_plan_put_source(plan, &source);
    struct cli_ingest_run run = {
        .command = "ingest",
        .plan = plan,
        .collection = args->collection,
        .again = args->again,
        .metadata = metadata,
        .source = sl_buf_span(&source),
        .timeout_ms = (uint64_t)args->timeout_ms,
    };
    int code = cli_ingest_run(&run);
    cli_ingest_report(&run, code);
    printf("{\"processed\":%" PRIu64 ",\"failed\":%" PRIu64 ",\"skipped\":%" PRIu64
           ",\"total_chunks\":%" PRIu64 "}\n",
           run.processed, run.failed, run.skipped, run.total_chunks);
    code = code == CLI_DONE && run.failed > 0 ? CLI_FAILED : code;
    if (run.stuck) {
        fflush(stdout);
        _exit(code);
    }
    cli_ingest_run_fini(&run);
    sl_buf_fini(&source);
    return code;
}

/* Until a run begins, which has its own: then nothing was sent. */
static void on_early_interrupt(int signum)
{
    (void)signum;
    _exit(CLI_INTERRUPTED);
}

static int ingest(const struct ingest_args *args)
{
    struct cli_plan plan;
    struct sl_buf metadata;
    const struct cli_patterns patterns = {&args->take, &args->exclude};
    sl_buf_init(&metadata, METADATA_MAX);
    signal(SIGINT, on_early_interrupt);
    int code = cli_metadata(&args->metadata, &metadata);
    if (code == CLI_GO_ON) {
        code = cli_plan_make(&plan, &args->words, &patterns, args->id);
        if (code == CLI_GO_ON) {
            code = args->dry_run ? cli_ingest_dry_run(&plan)
                                 : run_plan(args, &plan, sl_buf_span(&metadata));
        }
        cli_plan_fini(&plan);
    }
    sl_buf_fini(&metadata);
    return code;
}

int cli_ingest(int argc, char **argv)
{
    static struct ingest_args a = {
        .collection = "default",
        .timeout_ms = 60000,
    };
    const struct cli_arg args[] = {
        {"--collection", CLI_TEXT, &a.collection, 0, 0},
        {"--metadata", CLI_LIST, &a.metadata, 0, 0},
        {"--pattern", CLI_LIST, &a.take, 0, 0},
        {"--exclude", CLI_LIST, &a.exclude, 0, 0},
        {"--id", CLI_TEXT, &a.id, 0, 0},
        {"--again", CLI_SWITCH, &a.again, 0, 0},
        {"--dry-run", CLI_SWITCH, &a.dry_run, 0, 0},
        {"--timeout", CLI_DURATION, &a.timeout_ms, 1000, 86400000},
        {.name = NULL},
    };
    if (argc > 1 && strcmp(argv[1], "status") == 0) {
        return cli_ingest_status(argc - 1, argv + 1);
    }
    int code = cli_parse("ingest", help, args, argc, argv, &a.words);
    if (code != CLI_GO_ON) {
        return code;
    }
    if (a.words.len == 0) {
        return cli_usage_error("ingest", "a directory, a file or - is missing");
    }
    if (a.take.len == 0) {
        a.take = (struct cli_list){.items = {"**/*.txt", "**/*.md"}, .len = 2};
    }
    struct sl_options *options = cli_load_options();
    if (options == NULL) {
        return CLI_USAGE;
    }
    code = ingest(&a);
    sl_options_fini(options);
    return code;
}
