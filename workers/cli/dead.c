/*
 * `sluice dead`: what could not be processed, on the dead-letter topics. This file finds and reads
 * them, and has the subcommands that only look; dead_move.c has those that change something.
 *
 * Topics are read one partition after another, from the first record to the last that is there when
 * the reading begins, and each record is shown as it comes: however many there are, one is kept.
 */
#include "workers/cli/dead.h"

#include "common/clock.h"
#include "workers/cli/cli.h"

#include <inttypes.h>
#include <stdlib.h>
#include <time.h>

enum { TIMEOUT_MS = 10000, ROW_MAX = 4096, JSON_MAX = 256 << 20, VALUE_MAX = 256 << 20 };
#define AGE_MAX_MS (3650.0 * 86400 * 1000)

/* --- the dead-letter topics --- */

static void on_topic(void *ctx, const char *name, int32_t partitions)
{
    struct dead_source *source = ctx;
    if (source->count == DEAD_TOPICS_MAX) {
        source->too_many = true;
        return;
    }
    size_t at = source->count++;
    while (at > 0 && strcmp(source->topics[at - 1], name) > 0) {
        memcpy(source->topics[at], source->topics[at - 1], DEAD_TOPIC_MAX);
        source->partitions[at] = source->partitions[at - 1];
        at--;
    }
    snprintf(source->topics[at], DEAD_TOPIC_MAX, "%s", name);
    source->partitions[at] = partitions;
}

static int keep_only(struct dead_source *source, const char *word)
{
    char wanted[DEAD_TOPIC_MAX];
    dead_topic_name(word, wanted);
    for (size_t i = 0; i < source->count; i++) {
        if (strcmp(source->topics[i], wanted) == 0) {
            memcpy(source->topics[0], wanted, sizeof(wanted));
            source->partitions[0] = source->partitions[i];
            source->count = 1;
            return CLI_DONE;
        }
    }
    fprintf(stderr, "sluice %s: there is no topic %s\n", source->command, wanted);
    return CLI_FAILED;
}

int dead_open(const char *command, const char *topic, struct dead_source *source)
{
    const struct sl_kafka_config kafka = {.brokers = cli_options.brokers, .client_id = "sluice"};
    char prefix[DEAD_TOPIC_MAX];
    *source = (struct dead_source){.command = command};
    snprintf(prefix, sizeof(prefix), "%s.", cli_options.topic_prefix);
    int rv = sl_scan_create(&kafka, TIMEOUT_MS, source->why, sizeof(source->why), &source->scan);
    rv = rv != 0 ? rv : sl_scan_topics(source->scan, prefix, ".dlq", on_topic, source);
    if (rv != 0) {
        return dead_scan_failed(source, "the topics");
    }
    if (source->too_many) {
        fprintf(stderr, "sluice %s: more than %d topics begin with %s and end with .dlq\n", command,
                DEAD_TOPICS_MAX, prefix);
        return CLI_FAILED;
    }
    if (source->count == 0) {
        fprintf(stderr, "sluice %s: no topic %s*.dlq exists: sluice topics create makes them\n",
                command, prefix);
        return CLI_FAILED;
    }
    return topic != NULL ? keep_only(source, topic) : CLI_DONE;
}

void dead_close(struct dead_source *source)
{
    sl_scan_destroy(source->scan);
    source->scan = NULL;
}

int dead_scan_failed(const struct dead_source *source, const char *topic)
{
    fprintf(stderr, "sluice %s: %s cannot be read at %s (SLUICE_KAFKA_BROKERS): %s\n",
            source->command, topic, cli_options.brokers, source->why);
    return CLI_FAILED;
}

/* --- arguments --- */

static int parse(const char *command, const char *help, const struct cli_arg *args, int argc,
                 char **argv, size_t words_wanted, struct cli_list *words,
                 struct sl_options **options)
{
    int code = cli_parse(command, help, args, argc, argv, words);
    if (code != CLI_GO_ON) {
        return code;
    }
    if (words->len > words_wanted) {
        return cli_usage_error(command, "unexpected '%s'", words->items[words_wanted]);
    }
    if (words->len < words_wanted) {
        return cli_usage_error(command, "expected TOPIC PARTITION:OFFSET");
    }
    *options = cli_load_options();
    return *options != NULL ? CLI_GO_ON : CLI_USAGE;
}

#define FILTER_ARGS(filter)                                                                        \
    {"--topic", CLI_TEXT, &(filter).topic, 0, 0}, {"--reason", CLI_TEXT, &(filter).reason, 0, 0},  \
        {"--older", CLI_DURATION, &(filter).older_ms, 0, AGE_MAX_MS},                              \
    {                                                                                              \
        "--newer", CLI_DURATION, &(filter).newer_ms, 0, AGE_MAX_MS                                 \
    }

#define FILTER_HELP                                                                                \
    "  --topic T     only of this topic: queries, retrieve, documents ...\n"                       \
    "  --reason R    only of this class: BADMSG, TOOBIG, TIMEDOUT ...\n"                           \
    "  --older AGE   only at least so old: 90s, 15m, 24h\n"                                        \
    "  --newer AGE   only younger than that\n"

static struct dead_filter new_filter(void)
{
    return (struct dead_filter){.older_ms = -1, .newer_ms = -1, .now_ms = sl_clock_unix_ms()};
}

/* --- list --- */

struct listing {
    struct dead_filter filter;
    bool json;
    struct cli_terminal terminal;
    struct sl_buf line;
    uint64_t count;
};

static void list_one(struct listing *listing, const struct dead_letter *letter)
{
    const struct cli_terminal *terminal = &listing->terminal;
    int width = terminal->tty ? terminal->width : 0;
    sl_buf_clear(&listing->line);
    if (listing->json) {
        dead_put_json(letter, listing->filter.now_ms, &listing->line);
    } else {
        if (listing->count == 0) {
            dead_put_row(NULL, 0, NULL, 0, &listing->line);
            printf("%s" SL_SPAN_FMT "%s\n", cli_style(terminal, CLI_FAINT),
                   SL_SPAN_ARG(sl_buf_span(&listing->line)), cli_style(terminal, CLI_PLAIN));
            sl_buf_clear(&listing->line);
        }
        dead_put_row(letter, listing->filter.now_ms, NULL, width, &listing->line);
    }
    cli_put_text(terminal, sl_buf_span(&listing->line));
    fputc('\n', stdout);
    listing->count++;
}

static int list_partition(struct dead_source *source, struct listing *listing, const char *topic,
                          int32_t partition)
{
    const struct sl_record *record;
    int rv = sl_scan_begin(source->scan, topic, partition, SL_OFFSET_BEGINNING);
    while (rv == 0 && (rv = sl_scan_next(source->scan, &record)) > 0) {
        struct dead_letter letter;
        dead_read(record, &letter);
        if (dead_filter_matches(&listing->filter, &letter)) {
            list_one(listing, &letter);
        }
        rv = 0;
    }
    return rv;
}

static int list_all(struct listing *listing)
{
    struct dead_source source;
    int code = dead_open("dead list", listing->filter.topic, &source);
    for (size_t i = 0; code == CLI_DONE && i < source.count; i++) {
        for (int32_t p = 0; code == CLI_DONE && p < source.partitions[i]; p++) {
            if (list_partition(&source, listing, source.topics[i], p) != 0) {
                fflush(stdout);
                code = dead_scan_failed(&source, source.topics[i]);
            }
        }
    }
    dead_close(&source);
    if (code == CLI_DONE && !listing->json) {
        printf(listing->count == 0   ? "no dead letters\n"
               : listing->count == 1 ? "%" PRIu64 " dead letter\n"
                                     : "%" PRIu64 " dead letters\n",
               listing->count);
    }
    return code;
}

static const char list_help[] =
    "usage: sluice dead list [OPTION...]\n\n"
    "Lists the records that could not be processed, oldest first for each topic.\n\n" FILTER_HELP
    "  --json        a JSON object a line, with all that is known\n\n"
    "variables: SLUICE_KAFKA_BROKERS, SLUICE_TOPIC_PREFIX, NO_COLOR\n\n"
    "examples:\n"
    "  sluice dead list\n"
    "  sluice dead list --topic queries --newer 1h\n"
    "  sluice dead list --json | jq -r .message | sort | uniq -c\n";

static int run_list(int argc, char **argv)
{
    struct listing listing = {.filter = new_filter()};
    struct cli_list words = {.len = 0};
    struct sl_options *options = NULL;
    const struct cli_arg args[] = {
        FILTER_ARGS(listing.filter),
        {"--json", CLI_SWITCH, &listing.json, 0, 0},
        {.name = NULL},
    };
    int code = parse("dead list", list_help, args, argc, argv, 0, &words, &options);
    if (code != CLI_GO_ON) {
        return code;
    }
    cli_terminal_init(&listing.terminal, stdout);
    sl_buf_init(&listing.line, listing.json ? JSON_MAX : ROW_MAX);
    code = list_all(&listing);
    sl_buf_fini(&listing.line);
    sl_options_fini(options);
    return code;
}

/* --- show --- */

static void show_text(const struct cli_terminal *terminal, const char *name, struct sl_span text)
{
    printf("%-10s ", name);
    cli_put_text(terminal, text);
    fputc('\n', stdout);
}

static void show_time(int64_t ms)
{
    struct sl_buf age;
    struct tm tm;
    time_t seconds = (time_t)(ms / 1000);
    char text[32] = "-";
    if (gmtime_r(&seconds, &tm) != NULL) {
        strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &tm);
    }
    sl_buf_init(&age, 32);
    dead_put_age(sl_clock_unix_ms() - ms, &age);
    printf("%-10s %s (" SL_SPAN_FMT " ago)\n", "time", text, SL_SPAN_ARG(sl_buf_span(&age)));
    sl_buf_fini(&age);
}

static void show_record(const struct sl_record *record)
{
    struct cli_terminal terminal;
    struct sl_buf text;
    cli_terminal_init(&terminal, stdout);
    show_text(&terminal, "topic", sl_span_of(record->topic));
    printf("%-10s %" PRId32 ":%" PRId64 "\n", "at", record->partition, record->offset);
    show_time(record->timestamp_ms);
    show_text(&terminal, "key", record->key);
    printf("headers\n");
    for (size_t i = 0; i < record->header_count; i++) {
        printf("  ");
        cli_put_text(&terminal, record->headers[i].name);
        printf(": ");
        cli_put_text(&terminal, record->headers[i].value);
        fputc('\n', stdout);
    }
    sl_buf_init(&text, VALUE_MAX);
    const char *kind = dead_put_value(record->value, &text);
    printf("value      %zu bytes, %s\n", record->value.len, kind);
    if (sl_buf_error(&text) == 0) {
        cli_put_text(&terminal, sl_buf_span(&text));
        fputc('\n', stdout);
    } else {
        printf("too large to be shown; --raw writes it\n");
    }
    sl_buf_fini(&text);
}

static int show(const char *topic, int32_t partition, int64_t offset, bool raw)
{
    struct dead_source source;
    const struct sl_record *record = NULL;
    int code = dead_open("dead show", topic, &source), rv = 0;
    if (code == CLI_DONE && partition < source.partitions[0]) {
        rv = sl_scan_begin(source.scan, source.topics[0], partition, offset);
        rv = rv != 0 ? rv : sl_scan_next(source.scan, &record);
    }
    if (rv < 0) {
        code = dead_scan_failed(&source, source.topics[0]);
    } else if (code == CLI_DONE && (record == NULL || record->offset != offset)) {
        fprintf(stderr, "sluice dead show: %s has no record at %" PRId32 ":%" PRId64 "\n",
                source.topics[0], partition, offset);
        code = CLI_FAILED;
    } else if (code == CLI_DONE && raw) {
        fwrite(record->value.data, 1, record->value.len, stdout);
    } else if (code == CLI_DONE) {
        show_record(record);
    }
    dead_close(&source);
    return code;
}

static const char show_help[] =
    "usage: sluice dead show TOPIC PARTITION:OFFSET [--raw]\n\n"
    "Shows one dead letter: its headers, and its value as far as it can be read, as JSON, as\n"
    "MessagePack written like JSON, as text, or as a hex dump of its first bytes.\n\n"
    "  --raw   the value's bytes as they are, and nothing else\n\n"
    "variables: SLUICE_KAFKA_BROKERS, SLUICE_TOPIC_PREFIX, NO_COLOR\n\n"
    "examples:\n"
    "  sluice dead show queries 0:17\n"
    "  sluice dead show documents 0:3 --raw > document.json\n";

static bool read_position(const char *text, long long *partition, long long *offset)
{
    size_t colon = strcspn(text, ":");
    return text[colon] == ':' &&
           sl_span_to_int((struct sl_span){text, colon}, 0, INT32_MAX, partition) == 0 &&
           sl_span_to_int(sl_span_of(text + colon + 1), 0, INT64_MAX, offset) == 0;
}

static int run_show(int argc, char **argv)
{
    bool raw = false;
    long long partition, offset;
    struct cli_list words = {.len = 0};
    struct sl_options *options = NULL;
    const struct cli_arg args[] = {
        {"--raw", CLI_SWITCH, &raw, 0, 0},
        {.name = NULL},
    };
    int code = parse("dead show", show_help, args, argc, argv, 2, &words, &options);
    if (code != CLI_GO_ON) {
        return code;
    }
    if (read_position(words.items[1], &partition, &offset)) {
        code = show(words.items[0], (int32_t)partition, offset, raw);
    } else {
        code = cli_usage_error("dead show", "expected PARTITION:OFFSET, such as 0:17, not '%s'",
                               words.items[1]);
    }
    sl_options_fini(options);
    return code;
}

/* --- redrive and drop --- */

#define MOVE_HELP                                                                                  \
    "  --dry-run     only says what would be done (the default)\n"                                 \
    "  --yes         does it\n"

/* What both do to the topic. */
#define STAY_HELP                                                                                  \
    "Kafka cannot delete a single record, only all before an offset. So each partition is "        \
    "worked\n"                                                                                     \
    "through from its beginning to the last record that is meant; those in between that stay "     \
    "are\n"                                                                                        \
    "written once more at its end, with the same bytes, headers and time, under a new offset.\n"   \
    "What is interrupted can be begun again; do not run two of them at once.\n\n"

static const char redrive_help[] =
    "usage: sluice dead redrive [OPTION...] [--yes]\n\n"
    "Sends dead letters to the topic they came from, as they were, and takes them from the\n"
    "dead-letter topic. Do it when what was wrong is put right.\n\n" FILTER_HELP MOVE_HELP
    "  --keep-reply-to   queries answer to the reply-to that they had, if anyone reads there\n\n"
    "A query gets a new id, which is printed, and its whole timeout_ms anew; without a reply-to\n"
    "its answer is on the results topic only. The same dead letter always gets the same new id, "
    "so\n"
    "that a query which is sent twice within SLUICE_RESULT_TTL runs once.\n\n"
    "What was tried SLUICE_DEAD_ATTEMPTS times (3) is not sent again and stays, as does what no\n"
    "worker wrote; a higher number sends it all the same.\n\n" STAY_HELP
    "variables: SLUICE_KAFKA_BROKERS, SLUICE_TOPIC_PREFIX, SLUICE_DEAD_ATTEMPTS\n\n"
    "examples:\n"
    "  sluice dead redrive --topic documents\n"
    "  sluice dead redrive --topic documents --reason TIMEDOUT --yes\n\n"
    "exit status: 0 done, 1 failed, 2 wrong usage or configuration, 130 interrupted\n";

static const char drop_help[] =
    "usage: sluice dead drop [OPTION...] [--yes]\n\n"
    "Deletes dead letters for good.\n\n" FILTER_HELP MOVE_HELP "\n" STAY_HELP
    "variables: SLUICE_KAFKA_BROKERS, SLUICE_TOPIC_PREFIX\n\n"
    "examples:\n"
    "  sluice dead drop --older 48h\n"
    "  sluice dead drop --topic queries --reason BADMSG --yes\n\n"
    "exit status: 0 done, 1 failed, 2 wrong usage or configuration, 130 interrupted\n";

static int run_move(bool drop, int argc, char **argv)
{
    struct dead_move move = {.filter = new_filter(), .drop = drop};
    bool dry_run = false;
    const char *command = drop ? "dead drop" : "dead redrive";
    struct cli_list words = {.len = 0};
    struct sl_options *options = NULL;
    const struct cli_arg args[] = {
        FILTER_ARGS(move.filter),
        {"--dry-run", CLI_SWITCH, &dry_run, 0, 0},
        {"--yes", CLI_SWITCH, &move.yes, 0, 0},
        {drop ? NULL : "--keep-reply-to", CLI_SWITCH, &move.keep_reply_to, 0, 0},
        {.name = NULL},
    };
    int code =
        parse(command, drop ? drop_help : redrive_help, args, argc, argv, 0, &words, &options);
    if (code != CLI_GO_ON) {
        return code;
    }
    code = dry_run && move.yes ? cli_usage_error(command, "--dry-run and --yes exclude each other")
                               : dead_move(&move);
    sl_options_fini(options);
    return code;
}

static int run_redrive(int argc, char **argv)
{
    return run_move(false, argc, argv);
}

static int run_drop(int argc, char **argv)
{
    return run_move(true, argc, argv);
}

/* --- the command --- */

static const struct cli_command subcommands[] = {
    {"list", "what could not be processed, and why", run_list},
    {"show", "one of them, with its headers and its value", run_show},
    {"redrive", "send them to where they came from", run_redrive},
    {"drop", "delete them", run_drop},
    {NULL, NULL, NULL},
};

static void print_help(FILE *out)
{
    fprintf(out, "usage: sluice dead COMMAND [ARGUMENT...]\n\n"
                 "Dead letters: records that could not be processed, kept on the topics *.dlq.\n\n"
                 "commands:\n");
    for (const struct cli_command *c = subcommands; c->name != NULL; c++) {
        fprintf(out, "  %-10s %s\n", c->name, c->summary);
    }
    fprintf(out, "\nexamples:\n"
                 "  sluice dead list\n"
                 "  sluice dead show queries 0:17\n"
                 "  sluice dead redrive --topic queries\n"
                 "  sluice dead drop --older 48h --yes\n"
                 "\n`sluice dead COMMAND --help` says more.\n");
}

int cli_dead(int argc, char **argv)
{
    if (argc > 1 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) {
        print_help(stdout);
        return CLI_DONE;
    }
    for (const struct cli_command *c = subcommands; argc > 1 && c->name != NULL; c++) {
        if (strcmp(argv[1], c->name) == 0) {
            return c->run(argc - 1, argv + 1);
        }
    }
    return cli_usage_error("dead", "expected list, show, redrive or drop%s%s%s",
                           argc > 1 ? ", not '" : "", argc > 1 ? argv[1] : "", argc > 1 ? "'" : "");
}
