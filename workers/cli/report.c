/*
 * `sluice report`: how much was asked in a span of time, how it ended, how long it took and what is
 * known of the answers' quality. From the analytics database where there is one, which knows all
 * that it was ever told, else from the topic, which knows what it still keeps.
 */
#include "workers/cli/report.h"

#include "common/clock.h"
#include "common/json.h"
#include "workers/cli/cli.h"
#include "workers/cli/table.h"

#include <inttypes.h>
#include <stdio.h>
#include <time.h>

static const char help[] =
    "usage: sluice report [--hour | --day | --since SPAN] [--json]\n\n"
    "Shows how many queries ended in the last hour (or day, or so long), how, how long they took,\n"
    "and what is known of the quality of their answers. Times are milliseconds.\n\n"
    "  --hour         the last hour (the default)\n"
    "  --day          the last 24 hours\n"
    "  --since SPAN   such as 15m or 36h\n"
    "  --json         one JSON object\n\n"
    "It reads the analytics database where SLUICE_ANALYTICS_URL names it, else the topic\n"
    "sluice.analytics, which sluice-observe fills and which keeps SLUICE_RESULT_TTL.\n\n"
    "variables: SLUICE_ANALYTICS_URL, SLUICE_KAFKA_BROKERS, SLUICE_TOPIC_PREFIX, NO_COLOR\n\n"
    "examples:\n"
    "  sluice report\n"
    "  sluice report --since 15m --json\n\n"
    "exit status: 0 done, 1 it cannot be read, 2 wrong usage or configuration\n";

enum { HOUR_MS = 3600000, DAY_MS = 24 * HOUR_MS, NAME_BYTES = 256 };

static const char *const outcome_names[] = {"done", "failed", "cancelled", "expired"};
static const char *const part_names[] = {"vector", "keyword", "rerank"};

const char *report_time_name(enum report_time time)
{
    static const char *const names[] = {
#define X(name, text, key) text,
        REPORT_TIMES(X)
#undef X
    };
    return names[time];
}

/* --- for people --- */

static void put_time(FILE *out, int64_t unix_ms)
{
    time_t seconds = (time_t)(unix_ms / 1000);
    struct tm utc;
    char text[32];
    if (gmtime_r(&seconds, &utc) != NULL &&
        strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%S", &utc) > 0) {
        fputs(text, out);
    }
}

static int print_table(struct cli_table *table, const struct cli_terminal *out)
{
    fputc('\n', out->out);
    int rv = cli_table_print(table, out);
    cli_table_fini(table);
    return rv;
}

static int print_volume(const struct report *report, const struct cli_terminal *out)
{
    struct cli_table table;
    cli_table_init(&table, "lr");
    cli_table_cell(&table, CLI_PLAIN, "queries");
    cli_table_cell(&table, CLI_PLAIN, "%" PRIu64, report->queries);
    for (size_t i = 0; i < REPORT_OUTCOMES; i++) {
        cli_table_cell(&table, CLI_PLAIN, "%s", outcome_names[i]);
        cli_table_cell(&table, i != SL_DONE && report->outcomes[i] > 0 ? CLI_YELLOW : CLI_PLAIN,
                       "%" PRIu64, report->outcomes[i]);
    }
    cli_table_cell(&table, CLI_PLAIN, "degraded");
    cli_table_cell(&table, CLI_PLAIN, "%" PRIu64, report->degraded);
    for (size_t i = 0; i < 3; i++) {
        if (report->degraded_parts[i] > 0) {
            cli_table_cell(&table, CLI_PLAIN, "  without %s", part_names[i]);
            cli_table_cell(&table, CLI_PLAIN, "%" PRIu64, report->degraded_parts[i]);
        }
    }
    cli_table_cell(&table, CLI_PLAIN, "tokens in");
    cli_table_cell(&table, CLI_PLAIN, "%" PRIu64, report->prompt_tokens);
    cli_table_cell(&table, CLI_PLAIN, "tokens out");
    cli_table_cell(&table, CLI_PLAIN, "%" PRIu64, report->completion_tokens);
    return print_table(&table, out);
}

static int print_errors(const struct report *report, const struct cli_terminal *out)
{
    struct cli_table table;
    if (report->error_count == 0) {
        return 0;
    }
    cli_table_init(&table, "llr");
    cli_table_cell(&table, CLI_PLAIN, "error");
    cli_table_cell(&table, CLI_PLAIN, "stage");
    cli_table_cell(&table, CLI_PLAIN, "queries");
    for (size_t i = 0; i < report->error_count; i++) {
        cli_table_cell(&table, CLI_PLAIN, "%s", report->errors[i].code);
        cli_table_cell(&table, CLI_PLAIN, "%s", report->errors[i].stage);
        cli_table_cell(&table, CLI_PLAIN, "%" PRIu64, report->errors[i].count);
    }
    return print_table(&table, out);
}

static int print_times(const struct report *report, const struct cli_terminal *out)
{
    struct cli_table table;
    cli_table_init(&table, "lrrrr");
    cli_table_cell(&table, CLI_PLAIN, "milliseconds");
    cli_table_cell(&table, CLI_PLAIN, "queries");
    cli_table_cell(&table, CLI_PLAIN, "p50");
    cli_table_cell(&table, CLI_PLAIN, "p95");
    cli_table_cell(&table, CLI_PLAIN, "p99");
    for (size_t i = 0; i < REPORT_TIME_COUNT; i++) {
        const struct report_times *times = &report->times[i];
        if (times->count > 0) {
            cli_table_cell(&table, CLI_PLAIN, "%s", report_time_name((enum report_time)i));
            cli_table_cell(&table, CLI_PLAIN, "%" PRIu64, times->count);
            cli_table_cell(&table, CLI_PLAIN, "%.0f", times->p50);
            cli_table_cell(&table, CLI_PLAIN, "%.0f", times->p95);
            cli_table_cell(&table, CLI_PLAIN, "%.0f", times->p99);
        }
    }
    return print_table(&table, out);
}

static void add_mean(struct cli_table *table, const char *name, const struct report_mean *mean)
{
    if (mean->count > 0) {
        cli_table_cell(table, CLI_PLAIN, "%s", name);
        cli_table_cell(table, CLI_PLAIN, "%" PRIu64, mean->count);
        cli_table_cell(table, CLI_PLAIN, "%.2f", mean->mean);
    }
}

static void add_share(struct cli_table *table, const char *name, uint64_t count, uint64_t of)
{
    cli_table_cell(table, CLI_PLAIN, "%s", name);
    cli_table_cell(table, CLI_PLAIN, "%" PRIu64, count);
    cli_table_cell(table, CLI_PLAIN, "%.2f", (double)count / (double)of);
}

static int print_quality(const struct report *report, const struct cli_terminal *out)
{
    struct cli_table table;
    if (report->answers == 0) {
        return 0;
    }
    cli_table_init(&table, "lrr");
    cli_table_cell(&table, CLI_PLAIN, "quality");
    cli_table_cell(&table, CLI_PLAIN, "answers");
    cli_table_cell(&table, CLI_PLAIN, "mean or share");
    add_mean(&table, "words found in the sources", &report->word_overlap);
    add_mean(&table, "runs of three words found there", &report->trigram_overlap);
    add_mean(&table, "sources that are cited", &report->citation_share);
    add_share(&table, "says that it does not know", report->refusals, report->answers);
    add_share(&table, "empty", report->empty, report->answers);
    add_mean(&table, "groundedness, judged", &report->groundedness);
    add_mean(&table, "relevance, judged", &report->relevance);
    if (report->sampled > report->judged) {
        add_share(&table, "sampled and not judged", report->sampled - report->judged,
                  report->sampled);
    }
    return print_table(&table, out);
}

static int print_report(const struct report *report, const char *from)
{
    struct cli_terminal out;
    cli_terminal_init(&out, stdout);
    put_time(stdout, report->from_ms);
    fputs(" to ", stdout);
    put_time(stdout, report->to_ms);
    printf(" UTC, from %s\n", from);
    if (report->queries == 0) {
        printf("\nNo query ended in this time, or sluice-observe has not seen it yet.\n");
        return 0;
    }
    int rv = print_volume(report, &out);
    rv = rv != 0 ? rv : print_errors(report, &out);
    rv = rv != 0 ? rv : print_times(report, &out);
    rv = rv != 0 ? rv : print_quality(report, &out);
    if (report->cut) {
        printf("\nThere were more records than are read from a topic: this is a part of them.\n");
    }
    return rv;
}

/* --- for programs --- */

static void put_count(struct sl_json_writer *w, const char *key, uint64_t value)
{
    sl_json_key(w, key);
    sl_json_put_int(w, (int64_t)value);
}

static void put_mean(struct sl_json_writer *w, const char *key, const struct report_mean *mean)
{
    sl_json_key(w, key);
    if (mean->count > 0) {
        sl_json_put_number(w, mean->mean);
    } else {
        sl_json_put_null(w);
    }
}

static void put_errors(struct sl_json_writer *w, const struct report *report)
{
    sl_json_key(w, "errors");
    sl_json_begin_array(w);
    for (size_t i = 0; i < report->error_count; i++) {
        sl_json_begin_object(w);
        sl_json_key(w, "code");
        sl_json_put_string(w, sl_span_of(report->errors[i].code));
        sl_json_key(w, "stage");
        sl_json_put_string(w, sl_span_of(report->errors[i].stage));
        put_count(w, "count", report->errors[i].count);
        sl_json_end_object(w);
    }
    sl_json_end_array(w);
}

static void put_times(struct sl_json_writer *w, const struct report *report)
{
    static const char *const keys[] = {
#define X(name, text, key) key,
        REPORT_TIMES(X)
#undef X
    };
    sl_json_key(w, "times_ms");
    sl_json_begin_object(w);
    for (size_t i = 0; i < REPORT_TIME_COUNT; i++) {
        const struct report_times *times = &report->times[i];
        sl_json_key(w, keys[i]);
        sl_json_begin_object(w);
        put_count(w, "count", times->count);
        put_count(w, "p50", (uint64_t)times->p50);
        put_count(w, "p95", (uint64_t)times->p95);
        put_count(w, "p99", (uint64_t)times->p99);
        sl_json_end_object(w);
    }
    sl_json_end_object(w);
}

static void put_quality(struct sl_json_writer *w, const struct report *report)
{
    sl_json_key(w, "quality");
    sl_json_begin_object(w);
    put_count(w, "answers", report->answers);
    put_count(w, "refusals", report->refusals);
    put_count(w, "empty", report->empty);
    put_count(w, "sampled", report->sampled);
    put_count(w, "judged", report->judged);
    put_mean(w, "word_overlap", &report->word_overlap);
    put_mean(w, "trigram_overlap", &report->trigram_overlap);
    put_mean(w, "citation_share", &report->citation_share);
    put_mean(w, "groundedness", &report->groundedness);
    put_mean(w, "relevance", &report->relevance);
    sl_json_end_object(w);
}

static void put_degraded(struct sl_json_writer *w, const struct report *report)
{
    put_count(w, "degraded", report->degraded);
    sl_json_key(w, "degraded_parts");
    sl_json_begin_object(w);
    for (size_t i = 0; i < 3; i++) {
        put_count(w, part_names[i], report->degraded_parts[i]);
    }
    sl_json_end_object(w);
}

static int print_json(const struct report *report, const char *from)
{
    struct sl_buf out;
    struct sl_json_writer w = {.out = &out};
    sl_buf_init(&out, 1 << 20);
    sl_json_begin_object(&w);
    sl_json_key(&w, "from");
    sl_json_put_string(&w, sl_span_of(from));
    put_count(&w, "from_ms", (uint64_t)report->from_ms);
    put_count(&w, "to_ms", (uint64_t)report->to_ms);
    put_count(&w, "queries", report->queries);
    sl_json_key(&w, "outcomes");
    sl_json_begin_object(&w);
    for (size_t i = 0; i < REPORT_OUTCOMES; i++) {
        put_count(&w, outcome_names[i], report->outcomes[i]);
    }
    sl_json_end_object(&w);
    put_errors(&w, report);
    put_degraded(&w, report);
    put_count(&w, "prompt_tokens", report->prompt_tokens);
    put_count(&w, "completion_tokens", report->completion_tokens);
    put_times(&w, report);
    put_quality(&w, report);
    sl_json_key(&w, "cut");
    sl_json_put_bool(&w, report->cut);
    sl_json_end_object(&w);
    int rv = sl_buf_error(&out);
    if (rv == 0) {
        printf(SL_SPAN_FMT "\n", SL_SPAN_ARG(sl_buf_span(&out)));
    }
    sl_buf_fini(&out);
    return rv;
}

/* --- the command --- */

static int run(struct report *report, bool json)
{
    char topic[NAME_BYTES], why[REPORT_WHY] = "";
    bool database = cli_options.analytics_url[0] != '\0';
    snprintf(topic, sizeof(topic), "%s.analytics", cli_options.topic_prefix);
    int rv = database ? report_from_database(cli_options.analytics_url, report, why)
                      : report_from_topic(cli_options.brokers, topic, report, why);
    const char *variable = database ? "SLUICE_ANALYTICS_URL" : "SLUICE_KAFKA_BROKERS";
    if (rv == -SL_ENOENT) {
        fprintf(stderr,
                database
                    ? "sluice report: the database has no analytics yet: sluice-observe makes its "
                      "tables (%s)\n"
                    : "sluice report: there is no topic %s: sluice topics create makes it\n",
                database ? variable : topic);
        return CLI_FAILED;
    }
    if (rv != 0) {
        fprintf(stderr, "sluice report: %s (%s)\n", why, variable);
        return rv == -SL_EINVAL ? CLI_USAGE : CLI_FAILED;
    }
    const char *from = database ? "the analytics database" : topic;
    rv = json ? print_json(report, from) : print_report(report, from);
    if (rv != 0) {
        fprintf(stderr, "sluice report: %s\n", sl_error_text(rv));
    }
    return rv == 0 ? CLI_DONE : CLI_FAILED;
}

int cli_report(int argc, char **argv)
{
    bool hour = false, day = false, json = false;
    long long since_ms = 0;
    struct cli_list words = {.len = 0};
    const struct cli_arg args[] = {
        {"--hour", CLI_SWITCH, &hour, 0, 0},
        {"--day", CLI_SWITCH, &day, 0, 0},
        {"--since", CLI_DURATION, &since_ms, 1000, 366.0 * DAY_MS},
        {"--json", CLI_SWITCH, &json, 0, 0},
        {.name = NULL},
    };
    int code = cli_parse("report", help, args, argc, argv, &words);
    if (code != CLI_GO_ON) {
        return code;
    }
    if (words.len > 0) {
        return cli_usage_error("report", "unexpected '%s'", words.items[0]);
    }
    if ((hour ? 1 : 0) + (day ? 1 : 0) + (since_ms > 0 ? 1 : 0) > 1) {
        return cli_usage_error("report", "--hour, --day and --since exclude each other");
    }
    struct sl_options *options = cli_load_options();
    if (options == NULL) {
        return CLI_USAGE;
    }
    struct report report = {.to_ms = sl_clock_unix_ms() + 1};
    report.from_ms = report.to_ms - (since_ms > 0 ? since_ms : day ? DAY_MS : HOUR_MS);
    code = run(&report, json);
    sl_options_fini(options);
    return code;
}
