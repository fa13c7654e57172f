/*
 * `sluice ingest status`: the runs that the account in Redis knows, or one of them with what
 * failed. Runs of other command lines and of POST /v1/documents are among them.
 */
#include "workers/cli/account.h"
#include "workers/cli/cli.h"
#include "workers/cli/dead.h"
#include "workers/cli/table.h"

#include "common/clock.h"

#include <inttypes.h>

static const char command[] = "ingest status";
static const char help[] =
    "usage: sluice ingest status [ID] [--watch] [--json]\n\n"
    "Shows the latest runs of ingestion, of the command line and of POST /v1/documents, or one of\n"
    "them with what failed. Runs are kept for SLUICE_RESULT_TTL after they last moved.\n\n"
    "  --watch   follows the run ID until it has ended\n"
    "  --json    a JSON object a run, one a line\n\n"
    "variables: SLUICE_REDIS_URL, SLUICE_TOPIC_PREFIX, SLUICE_RESULT_TTL, NO_COLOR\n\n"
    "examples:\n"
    "  sluice ingest status\n"
    "  sluice ingest status 01981c3e-5d2c-7c6a-9f10-2f4ac0c1a1d5 --watch\n\n"
    "exit status: 0 shown, 1 no such run, failed or (--watch) documents of it failed,\n"
    "2 wrong usage or configuration, 130 interrupted\n";

enum { RUNS_MAX = 100, WAIT_MS = 500, JSON_MAX = 16 << 20, WORDS = 512, AGE = 32 };

struct status {
    struct cli_account account;
    struct sl_span id;
    bool json, watch;
    struct cli_terminal out;
    struct cli_progress_line line;
    int err;
    bool ended, any_failed;
};

/* --- words --- */

static void put_age(char ret[AGE], int64_t since_ms)
{
    struct sl_buf text;
    sl_buf_init(&text, AGE);
    dead_put_age(sl_clock_unix_ms() - since_ms, &text);
    snprintf(ret, AGE, SL_SPAN_FMT, SL_SPAN_ARG(sl_buf_span(&text)));
    sl_buf_fini(&text);
}

static void put_waiting(char ret[WORDS], const struct sl_ingest_run *run)
{
    struct sl_buf text;
    sl_buf_init(&text, WORDS);
    sl_ingest_run_waiting(run, &text);
    snprintf(ret, WORDS, SL_SPAN_FMT, (int)text.len, text.len > 0 ? text.data : "");
    sl_buf_fini(&text);
}

static void put_documents(char ret[AGE], const struct sl_ingest_run *run)
{
    snprintf(ret, AGE, run->closed ? "%" PRId64 : "?", run->documents);
}

static int print_json(const struct sl_ingest_run *run)
{
    struct sl_buf text;
    sl_buf_init(&text, JSON_MAX);
    sl_ingest_run_json(run, &text);
    int rv = sl_buf_error(&text);
    if (rv == 0) {
        printf(SL_SPAN_FMT "\n", SL_SPAN_ARG(sl_buf_span(&text)));
    }
    sl_buf_fini(&text);
    return rv;
}

/* --- all runs --- */

static void add_row(struct cli_table *table, const struct sl_ingest_run *run)
{
    char age[AGE], waiting[WORDS], documents[AGE];
    put_age(age, run->began_ms);
    put_waiting(waiting, run);
    put_documents(documents, run);
    cli_table_cell(table, CLI_PLAIN, SL_SPAN_FMT, SL_SPAN_ARG(run->ingest_id));
    cli_table_cell(table, run->ended ? CLI_GREEN : CLI_YELLOW, run->ended ? "done" : "running");
    cli_table_cell(table, CLI_PLAIN, "%" PRIu64, run->processed);
    cli_table_cell(table, run->failed > 0 ? CLI_RED : CLI_PLAIN, "%" PRIu64, run->failed);
    cli_table_cell(table, CLI_PLAIN, "%" PRIu64, run->skipped);
    cli_table_cell(table, CLI_PLAIN, "%s", documents);
    cli_table_cell(table, CLI_PLAIN, "%" PRIu64, run->stored_chunks);
    cli_table_cell(table, CLI_PLAIN, "%s", age);
    cli_table_cell(table, CLI_PLAIN, SL_SPAN_FMT, SL_SPAN_ARG(run->collection));
    cli_table_cell(table, CLI_PLAIN, SL_SPAN_FMT, SL_SPAN_ARG(run->source));
    cli_table_cell(table, CLI_PLAIN, "%s", waiting);
}

static int print_table(const struct status *status, const struct sl_ingest_run *runs, size_t len)
{
    static const char *const header[] = {"run",        "state",  "processed", "failed",
                                         "skipped",    "sent",   "chunks",    "age",
                                         "collection", "source", "waits for"};
    struct cli_table table;
    cli_table_init(&table, "llrrrrrrlll");
    for (size_t i = 0; i < sizeof(header) / sizeof(header[0]); i++) {
        cli_table_cell(&table, CLI_PLAIN, "%s", header[i]);
    }
    for (size_t i = 0; i < len; i++) {
        add_row(&table, &runs[i]);
    }
    int rv = cli_table_print(&table, &status->out);
    cli_table_fini(&table);
    return rv;
}

static void on_runs(void *ctx, int err, const struct sl_ingest_run *runs, size_t len)
{
    struct status *status = ctx;
    status->err = err;
    for (size_t i = 0; i < len && status->json && status->err == 0; i++) {
        status->err = print_json(&runs[i]);
    }
    if (err == 0 && !status->json && len > 0) {
        status->err = print_table(status, runs, len);
    } else if (err == 0 && !status->json) {
        puts("no runs of ingestion");
    }
    cli_account_answered(&status->account);
}

/* --- one run --- */

static void show_text(const struct status *status, const char *name, struct sl_span text)
{
    printf("%-11s ", name);
    cli_put_text(&status->out, text);
    fputc('\n', stdout);
}

static void show(const struct status *status, const struct sl_ingest_run *run)
{
    char began[AGE], moved[AGE], waiting[WORDS], documents[AGE];
    put_age(began, run->began_ms);
    put_age(moved, run->moved_ms);
    put_waiting(waiting, run);
    put_documents(documents, run);
    show_text(status, "run", run->ingest_id);
    show_text(status, "source", run->source);
    show_text(status, "collection", run->collection);
    printf("%-11s %s, began %s ago, moved %s ago\n", "state", run->ended ? "done" : "running",
           began, moved);
    printf("%-11s %" PRIu64 " processed, %" PRIu64 " failed, %" PRIu64 " skipped; %s sent\n",
           "documents", run->processed, run->failed, run->skipped, documents);
    printf("%-11s %" PRIu64 " stored, %" PRIu64 " waiting\n", "chunks", run->stored_chunks,
           run->waiting_chunks);
    if (!run->ended) {
        show_text(status, "waits for", sl_span_of(waiting));
    }
    for (size_t i = 0; i < run->failure_count; i++) {
        printf("%s%-11s%s ", cli_style(&status->out, CLI_RED), "failed",
               cli_style(&status->out, CLI_PLAIN));
        cli_put_text(&status->out, run->failures[i].doc_id);
        fputs(": ", stdout);
        cli_put_text(&status->out, run->failures[i].reason);
        fputc('\n', stdout);
    }
    if (run->failed > run->failure_count) {
        printf("%-11s and %" PRIu64 " more\n", "failed", run->failed - run->failure_count);
    }
}

static void draw(struct status *status, const struct sl_ingest_run *run)
{
    uint64_t seen = run->processed + run->failed + run->skipped;
    const struct cli_progress progress = {
        .done = run->processed,
        .failed = run->failed,
        .skipped = run->skipped,
        .total = run->closed ? (uint64_t)run->documents + run->refused : seen,
        .chunks = run->stored_chunks,
        .elapsed_ms = run->moved_ms > run->began_ms ? (uint64_t)(run->moved_ms - run->began_ms) : 0,
    };
    cli_progress_draw(&status->line, &progress, sl_clock_now_ms());
}

static void on_run(void *ctx, int err, const struct sl_ingest_run *run)
{
    struct status *status = ctx;
    status->err = err;
    if (err == 0) {
        status->ended = run->ended;
        status->any_failed = run->failed > 0;
        if (status->watch && !run->ended) {
            draw(status, run);
        } else {
            cli_progress_end(&status->line);
            status->err = status->json ? print_json(run) : 0;
            if (!status->json) {
                show(status, run);
            }
        }
    }
    cli_account_answered(&status->account);
}

/* --- the command --- */

static int ask(struct status *status)
{
    const struct sl_ingest_env *env = &status->account.env;
    int rv = status->id.len == 0 ? sl_ingest_runs(env, RUNS_MAX, on_runs, status)
                                 : sl_ingest_read(env, status->id, 0, on_run, status);
    rv = rv != 0 ? rv : cli_account_wait(&status->account);
    return rv != 0 ? rv : status->err;
}

static int run(struct status *status)
{
    int rv = cli_account_open(&status->account);
    rv = rv != 0 ? rv : ask(status);
    while (rv == 0 && status->watch && !status->ended) {
        rv = cli_account_pause(&status->account, WAIT_MS);
        rv = rv != 0 ? rv : ask(status);
    }
    cli_progress_end(&status->line);
    int code = CLI_DONE;
    if (rv == -SL_ENOENT) {
        fprintf(stderr, "sluice %s: there is no run " SL_SPAN_FMT ", or none any more\n", command,
                SL_SPAN_ARG(status->id));
        code = CLI_FAILED;
    } else if (rv != 0) {
        code = cli_account_failed(&status->account, command, rv);
    } else if (status->watch && status->any_failed) {
        code = CLI_FAILED;
    }
    cli_account_close(&status->account);
    return code;
}

int cli_ingest_status(int argc, char **argv)
{
    struct status status = {.json = false};
    struct cli_list words = {.len = 0};
    const struct cli_arg args[] = {
        {"--json", CLI_SWITCH, &status.json, 0, 0},
        {"--watch", CLI_SWITCH, &status.watch, 0, 0},
        {.name = NULL},
    };
    int code = cli_parse(command, help, args, argc, argv, &words);
    if (code != CLI_GO_ON) {
        return code;
    }
    if (words.len > 1) {
        return cli_usage_error(command, "unexpected '%s'", words.items[1]);
    }
    if (status.watch && words.len == 0) {
        return cli_usage_error(command, "--watch needs the ID of a run");
    }
    struct sl_options *options = cli_load_options();
    if (options == NULL) {
        return CLI_USAGE;
    }
    status.id = sl_span_of(words.len > 0 ? words.items[0] : NULL);
    cli_terminal_init(&status.out, stdout);
    cli_progress_init(&status.line, stderr, sl_clock_now_ms());
    code = run(&status);
    sl_options_fini(options);
    return code;
}
