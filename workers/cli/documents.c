/*
 * `sluice documents`: those that can be found, as the account of ingestion in Redis knows them, and
 * their deletion. A deletion is a message on the documents topic like any other, and a run that is
 * followed until it is counted: then no chunk of the documents is left in the store.
 */
#include "workers/cli/account.h"
#include "workers/cli/dead.h"
#include "workers/cli/ingest_run.h"
#include "workers/cli/read.h"
#include "workers/cli/terminal.h"

#include "common/clock.h"
#include "common/json.h"

#include <inttypes.h>
#include <unistd.h>

static const char help[] =
    "usage: sluice documents [list|show|delete] ...\n\n"
    "  list         the documents of a collection (also without a word)\n"
    "  show ID      one of them\n"
    "  delete ID... takes documents out of the store\n\n"
    "`sluice documents COMMAND --help` says more.\n\n"
    "examples:\n"
    "  sluice documents --collection manual\n"
    "  sluice documents delete guide/old.md\n\n"
    "exit status: 0 done, 1 failed, 2 wrong usage or configuration, 130 interrupted\n";

#define COLLECTION_HELP "  --collection C   of this collection                (default)\n"
#define VARIABLES_HELP "variables: SLUICE_REDIS_URL, SLUICE_TOPIC_PREFIX"

enum { PAGE = 1000, LINE_MAX_BYTES = 16384, AGE = 32 };

/* --- looking --- */

struct looking {
    struct cli_account account;
    struct cli_terminal out;
    const char *command, *collection;
    bool json, one; /* one: the first must be the document `wanted`. */
    const char *wanted;
    uint64_t left, shown;
    struct sl_buf after; /* The last one that came. */
    bool more;
    int err;
};

static void put_json(const struct sl_ingest_document *document, struct sl_buf *out)
{
    struct sl_json_writer w = {.out = out};
    sl_json_begin_object(&w);
    sl_json_key(&w, "doc_id");
    sl_json_put_string(&w, document->doc_id);
    sl_json_key(&w, "version");
    sl_json_put_int(&w, document->version);
    sl_json_key(&w, "chunks");
    sl_json_put_int(&w, (int64_t)document->chunks);
    sl_json_key(&w, "bytes");
    sl_json_put_int(&w, (int64_t)document->bytes);
    sl_json_key(&w, "stored_ms");
    sl_json_put_int(&w, document->stored_ms);
    sl_json_key(&w, "changing");
    sl_json_put_bool(&w, document->changing);
    sl_json_end_object(&w);
}

static void put_age(char ret[AGE], const struct sl_ingest_document *document)
{
    struct sl_buf text;
    sl_buf_init(&text, AGE);
    dead_put_age(sl_clock_unix_ms() - document->stored_ms, &text);
    snprintf(ret, AGE, SL_SPAN_FMT, SL_SPAN_ARG(sl_buf_span(&text)));
    sl_buf_fini(&text);
}

static int show(struct looking *looking, const struct sl_ingest_document *document)
{
    struct sl_buf line;
    char age[AGE];
    sl_buf_init(&line, LINE_MAX_BYTES);
    put_age(age, document);
    if (looking->json) {
        put_json(document, &line);
    } else if (looking->one) {
        sl_buf_printf(&line,
                      "document    " SL_SPAN_FMT "\ncollection  %s\nversion     %" PRId64
                      "\nchunks      %" PRIu64 "\nbytes       %" PRIu64 "\nstored      %s ago%s",
                      SL_SPAN_ARG(document->doc_id), looking->collection, document->version,
                      document->chunks, document->bytes, age,
                      document->changing ? "\nchanging    a newer version, or its deletion, is on "
                                           "its way"
                                         : "");
    } else {
        if (looking->shown == 0) {
            printf("%s%7s  %10s  %5s  document%s\n", cli_style(&looking->out, CLI_FAINT), "chunks",
                   "bytes", "age", cli_style(&looking->out, CLI_PLAIN));
        }
        sl_buf_printf(&line, "%7" PRIu64 "  %10" PRIu64 "  %5s  " SL_SPAN_FMT "%s",
                      document->chunks, document->bytes, age, SL_SPAN_ARG(document->doc_id),
                      document->changing ? "  (changing)" : "");
    }
    cli_put_text(&looking->out, sl_buf_span(&line));
    fputc('\n', stdout);
    looking->shown++;
    int rv = sl_buf_error(&line);
    sl_buf_fini(&line);
    return rv;
}

static void on_documents(void *ctx, int err, const struct sl_ingest_document *documents, size_t len,
                         bool more)
{
    struct looking *looking = ctx;
    looking->err = err;
    if (err == 0 && looking->one &&
        (len == 0 || !sl_span_is(documents[0].doc_id, looking->wanted))) {
        looking->err = -SL_ENOENT;
    }
    for (size_t i = 0; i < len && looking->err == 0; i++) {
        looking->err = show(looking, &documents[i]);
        looking->left--;
        sl_buf_clear(&looking->after);
        sl_buf_append_span(&looking->after, documents[i].doc_id);
    }
    looking->more = more;
    cli_account_answered(&looking->account);
}

static int look(struct looking *looking)
{
    int rv = cli_account_open(&looking->account);
    looking->more = true;
    while (rv == 0 && looking->more && looking->left > 0) {
        uint64_t most = looking->left < PAGE ? looking->left : PAGE;
        rv = sl_ingest_documents(&looking->account.env, sl_span_of(looking->collection),
                                 sl_buf_span(&looking->after), (size_t)most, on_documents, looking);
        rv = rv != 0 ? rv : cli_account_wait(&looking->account);
        rv = rv != 0 ? rv : looking->err;
    }
    int code = CLI_DONE;
    if (rv == -SL_ENOENT) {
        fprintf(stderr, "sluice %s: there is no document %s in the collection %s\n",
                looking->command, looking->wanted, looking->collection);
        code = CLI_FAILED;
    } else if (rv != 0) {
        code = cli_account_failed(&looking->account, looking->command, rv);
    }
    cli_account_close(&looking->account);
    return code;
}

/* --- list --- */

static const char list_help[] =
    "usage: sluice documents [list] [OPTION...]\n\n"
    "Lists the documents that can be found, in byte order of their names.\n\n" COLLECTION_HELP
    "  --after ID       those behind this name\n"
    "  --limit N        so many                           (1000)\n"
    "  --json           a JSON object a line\n\n" VARIABLES_HELP "\n\n"
    "examples:\n"
    "  sluice documents --limit 20\n"
    "  sluice documents list --collection manual --json | jq -r .doc_id\n\n"
    "exit status: 0 done, 1 failed, 2 wrong usage or configuration, 130 interrupted\n";

static int run_list(int argc, char **argv)
{
    struct looking looking = {.command = "documents list", .collection = "default"};
    struct cli_list words = {.len = 0};
    long long limit = PAGE;
    const char *after = "";
    const struct cli_arg args[] = {
        {"--collection", CLI_TEXT, &looking.collection, 0, 0},
        {"--after", CLI_TEXT, &after, 0, 0},
        {"--limit", CLI_NUMBER, &limit, 1, 1e9},
        {"--json", CLI_SWITCH, &looking.json, 0, 0},
        {.name = NULL},
    };
    int code = cli_parse(looking.command, list_help, args, argc, argv, &words);
    if (code != CLI_GO_ON) {
        return code;
    }
    if (words.len > 0) {
        return cli_usage_error("documents", "unknown command '%s'", words.items[0]);
    }
    struct sl_options *options = cli_load_options();
    if (options == NULL) {
        return CLI_USAGE;
    }
    cli_terminal_init(&looking.out, stdout);
    sl_buf_init(&looking.after, LINE_MAX_BYTES);
    sl_buf_append_text(&looking.after, after);
    looking.left = (uint64_t)limit;
    code = look(&looking);
    if (code == CLI_DONE && looking.shown == 0 && !looking.json) {
        printf("no documents in the collection %s\n", looking.collection);
    } else if (code == CLI_DONE && looking.more) {
        fflush(stdout);
        fprintf(stderr, "there are more: --after '" SL_SPAN_FMT "'\n",
                SL_SPAN_ARG(sl_buf_span(&looking.after)));
    }
    sl_buf_fini(&looking.after);
    sl_options_fini(options);
    return code;
}

/* --- show --- */

static const char show_help[] =
    "usage: sluice documents show ID [OPTION...]\n\n"
    "Shows one document: its version, chunks, size and age.\n\n" COLLECTION_HELP
    "  --json           as a JSON object\n\n" VARIABLES_HELP "\n\n"
    "example:\n"
    "  sluice documents show guide/leases.md\n\n"
    "exit status: 0 shown, 1 no such document or failed, 2 wrong usage or configuration\n";

/* A place in the byte order of names just before id, so that nothing that is UTF-8 lies between. */
static void put_before(struct sl_buf *out, const char *id)
{
    sl_buf_append_text(out, id);
    unsigned char last = (unsigned char)out->data[out->len - 1];
    out->data[out->len - 1] = (char)(last - 1);
    sl_buf_append(out, "\xff", 1);
}

static int run_show(int argc, char **argv)
{
    struct looking looking = {
        .command = "documents show", .collection = "default", .one = true, .left = 1};
    struct cli_list words = {.len = 0};
    const struct cli_arg args[] = {
        {"--collection", CLI_TEXT, &looking.collection, 0, 0},
        {"--json", CLI_SWITCH, &looking.json, 0, 0},
        {.name = NULL},
    };
    int code = cli_parse(looking.command, show_help, args, argc, argv, &words);
    if (code != CLI_GO_ON) {
        return code;
    }
    if (words.len != 1 || words.items[0][0] == '\0') {
        return cli_usage_error(looking.command, "expected the name of one document");
    }
    struct sl_options *options = cli_load_options();
    if (options == NULL) {
        return CLI_USAGE;
    }
    looking.wanted = words.items[0];
    cli_terminal_init(&looking.out, stdout);
    sl_buf_init(&looking.after, LINE_MAX_BYTES);
    put_before(&looking.after, looking.wanted);
    code = look(&looking);
    sl_buf_fini(&looking.after);
    sl_options_fini(options);
    return code;
}

/* --- delete --- */

static const char delete_help[] =
    "usage: sluice documents delete ID... [OPTION...]\n\n"
    "Takes documents out of the store, and ends when all their chunks are gone. Ends with\n"
    "{\"deleted\", \"failed\"} on stdout; what is not there counts as deleted.\n\n" COLLECTION_HELP
    "  --timeout T      how long nothing may move         (60s)\n\n" VARIABLES_HELP
    ", SLUICE_KAFKA_BROKERS\n\n"
    "example:\n"
    "  sluice documents delete guide/old.md guide/older.md\n\n"
    "exit status: 0 all are gone, 1 something failed, 2 wrong usage or configuration,\n"
    "130 interrupted (what was sent is deleted all the same)\n";

static int delete_plan(const struct cli_plan *plan, const char *collection, uint64_t timeout_ms)
{
    char host[256] = "", source[300];
    if (gethostname(host, sizeof(host) - 1) != 0) {
        host[0] = '\0';
    }
    snprintf(source, sizeof(source), "sluice documents delete on %s", host);
    struct cli_ingest_run run = {.command = "documents delete",
                                 .plan = plan,
                                 .collection = collection,
                                 .source = sl_span_of(source),
                                 .remove = true,
                                 .timeout_ms = timeout_ms};
    int code = cli_ingest_run(&run);
    cli_ingest_report(&run, code);
    printf("{\"deleted\":%" PRIu64 ",\"failed\":%" PRIu64 "}\n", run.processed, run.failed);
    code = code == CLI_DONE && run.failed > 0 ? CLI_FAILED : code;
    cli_ingest_run_fini(&run);
    return code;
}

static int run_delete(int argc, char **argv)
{
    const char *collection = "default";
    long long timeout_ms = 60000;
    struct cli_list words = {.len = 0};
    struct cli_plan plan = {.roots = NULL};
    const struct cli_arg args[] = {
        {"--collection", CLI_TEXT, &collection, 0, 0},
        {"--timeout", CLI_DURATION, &timeout_ms, 1000, 86400000},
        {.name = NULL},
    };
    int code = cli_parse("documents delete", delete_help, args, argc, argv, &words);
    if (code != CLI_GO_ON) {
        return code;
    }
    if (words.len == 0) {
        return cli_usage_error("documents delete", "the name of a document is missing");
    }
    struct sl_options *options = cli_load_options();
    if (options == NULL) {
        return CLI_USAGE;
    }
    int rv = 0;
    for (size_t i = 0; i < words.len && rv == 0; i++) {
        rv = cli_files_add(&plan.files, NULL, words.items[i], NULL);
    }
    if (rv != 0) {
        fprintf(stderr, "sluice documents delete: %s\n", sl_error_text(rv));
        code = CLI_FAILED;
    } else {
        code = delete_plan(&plan, collection, (uint64_t)timeout_ms);
    }
    cli_plan_fini(&plan);
    sl_options_fini(options);
    return code;
}

int cli_documents(int argc, char **argv)
{
    static const struct cli_command commands[] = {
        {"list", "", run_list}, {"show", "", run_show}, {"delete", "", run_delete}};
    const char *word = argc > 1 ? argv[1] : "";
    for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
        if (strcmp(word, commands[i].name) == 0) {
            return commands[i].run(argc - 1, argv + 1);
        }
    }
    if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0) {
        fputs(help, stdout);
        return CLI_DONE;
    }
    return run_list(argc, argv);
}
