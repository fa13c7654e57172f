/*
 * `sluice status`: how each program is, from its admin port, and what waits for it, from Kafka.
 *
 * Programs are looked for where they listen by default, or where SLUICE_ADMIN_HOSTS says. Lag is
 * asked of Kafka and not of the programs, since a program that is away has the most of it; nothing
 * there ever needs the programs to run.
 */
#include "workers/cli/cli.h"
#include "workers/cli/scrape.h"
#include "workers/cli/table.h"

#include "common/json.h"
#include "common/kafka.h"

#include <inttypes.h>
#include <stdlib.h>

static const char help[] =
    "usage: sluice status [--json]\n\n"
    "Shows whether each program is ready (from its admin port), and how many records wait in each\n"
    "topic (from Kafka).\n\n"
    "variables: SLUICE_ADMIN_HOSTS (host:port,...; else the default ports on this machine),\n"
    "SLUICE_KAFKA_BROKERS, SLUICE_TOPIC_PREFIX, NO_COLOR\n\n"
    "examples:\n"
    "  sluice status\n"
    "  SLUICE_ADMIN_HOSTS=10.0.0.7:9101,10.0.0.8:9101 sluice status --json\n\n"
    "exit status: 0 all is ready, 1 something is not, 2 wrong usage or configuration\n";

enum { TIMEOUT_MS = 3000, NAME_BYTES = 256 };

static const struct {
    const char *program;
    int port;
} programs[] = {
    {"sluice-gateway", 9100}, {"sluice-embed", 9101},    {"sluice-retrieve", 9102},
    {"sluice-rerank", 9103},  {"sluice-generate", 9104}, {"sluice-ingest", 9105},
    {"sluice-observe", 9106},
};

/* Who waits for what, without prefix. */
static const struct {
    const char *group, *topic;
} groups[] = {
    {"embed", "queries"},     {"retrieve", "retrieve"}, {"rerank", "rerank"},
    {"generate", "generate"}, {"ingest", "documents"},  {"embed", "chunks"},
    {"ingest", "vectors"},    {"observe", "results"},
};
enum {
    PROGRAMS = sizeof(programs) / sizeof(programs[0]),
    GROUPS = sizeof(groups) / sizeof(groups[0])
};

struct status {
    struct cli_host hosts[CLI_HOSTS_MAX];
    size_t host_count;
    int64_t lags[GROUPS]; /* Or -SL_E*. */
    bool ready;
};

/* --- finding out --- */

static void default_hosts(struct status *status)
{
    for (size_t i = 0; i < PROGRAMS; i++) {
        struct cli_host *host = &status->hosts[status->host_count++];
        *host = (struct cli_host){.in_flight = -1};
        snprintf(host->address, sizeof(host->address), "127.0.0.1:%d", programs[i].port);
        snprintf(host->program, sizeof(host->program), "%s", programs[i].program);
    }
}

/* What should be there, by the port: one that does not run cannot say it. */
static void guess_program(struct cli_host *host)
{
    const char *port = strrchr(host->address, ':') + 1;
    for (size_t i = 0; i < PROGRAMS; i++) {
        if (strtol(port, NULL, 10) == programs[i].port) {
            snprintf(host->program, sizeof(host->program), "%s", programs[i].program);
        }
    }
}

/* -SL_EINVAL: the list. */
static int listed_hosts(struct status *status, const char *list)
{
    while (*list != '\0') {
        size_t len = strcspn(list, ", ");
        struct cli_host *host = &status->hosts[status->host_count];
        if (len > 0 && (status->host_count == CLI_HOSTS_MAX || len >= sizeof(host->address) ||
                        memchr(list, ':', len) == NULL)) {
            return -SL_EINVAL;
        }
        if (len > 0) {
            *host = (struct cli_host){.reason = ""};
            memcpy(host->address, list, len);
            guess_program(host);
            status->host_count++;
        }
        list += len + (list[len] != '\0' ? 1 : 0);
    }
    return 0;
}

static void find_lags(struct status *status)
{
    const struct sl_kafka_config kafka = {.brokers = cli_options.brokers, .client_id = "sluice"};
    for (size_t i = 0; i < GROUPS; i++) {
        char group[NAME_BYTES], topic[NAME_BYTES];
        snprintf(group, sizeof(group), "%s.%s", cli_options.topic_prefix, groups[i].group);
        snprintf(topic, sizeof(topic), "%s.%s", cli_options.topic_prefix, groups[i].topic);
        /* Once it did not answer, waiting for the others would only take longer. */
        bool away =
            i > 0 && (status->lags[i - 1] == -SL_ETIMEDOUT || status->lags[i - 1] == -SL_ECONN);
        status->lags[i] =
            away ? status->lags[i - 1] : sl_kafka_group_lag(&kafka, group, topic, TIMEOUT_MS);
    }
}

static void judge(struct status *status)
{
    status->ready = true;
    for (size_t i = 0; i < status->host_count; i++) {
        const struct cli_host *host = &status->hosts[i];
        status->ready = status->ready && host->ready;
    }
    for (size_t i = 0; i < GROUPS; i++) {
        status->ready = status->ready && status->lags[i] >= 0;
    }
}

/* --- showing --- */

static int print_programs(const struct status *status, const struct cli_terminal *out)
{
    struct cli_table table;
    cli_table_init(&table, "lllr");
    cli_table_cell(&table, CLI_PLAIN, "program");
    cli_table_cell(&table, CLI_PLAIN, "address");
    cli_table_cell(&table, CLI_PLAIN, "health");
    cli_table_cell(&table, CLI_PLAIN, "in flight");
    for (size_t i = 0; i < status->host_count; i++) {
        const struct cli_host *host = &status->hosts[i];
        enum cli_style style = host->ready ? CLI_GREEN : CLI_RED;
        cli_table_cell(&table, CLI_PLAIN, "%s", host->program[0] != '\0' ? host->program : "?");
        cli_table_cell(&table, CLI_PLAIN, "%s", host->address);
        cli_table_cell(&table, style, "%s", host->ready ? "ready" : host->reason);
        if (host->in_flight >= 0) {
            cli_table_cell(&table, CLI_PLAIN, "%" PRId64, host->in_flight);
        } else {
            cli_table_cell(&table, CLI_PLAIN, "-");
        }
    }
    int rv = cli_table_print(&table, out);
    cli_table_fini(&table);
    return rv;
}

static int print_lags(const struct status *status, const struct cli_terminal *out)
{
    struct cli_table table;
    cli_table_init(&table, "llr");
    cli_table_cell(&table, CLI_PLAIN, "topic");
    cli_table_cell(&table, CLI_PLAIN, "read by");
    cli_table_cell(&table, CLI_PLAIN, "waiting");
    for (size_t i = 0; i < GROUPS; i++) {
        cli_table_cell(&table, CLI_PLAIN, "%s.%s", cli_options.topic_prefix, groups[i].topic);
        cli_table_cell(&table, CLI_PLAIN, "%s.%s", cli_options.topic_prefix, groups[i].group);
        if (status->lags[i] >= 0) {
            cli_table_cell(&table, CLI_PLAIN, "%" PRId64, status->lags[i]);
        } else {
            cli_table_cell(&table, CLI_RED, "%s", sl_error_text((int)status->lags[i]));
        }
    }
    fputc('\n', out->out);
    int rv = cli_table_print(&table, out);
    cli_table_fini(&table);
    return rv;
}

static void print_hints(const struct status *status)
{
    if (status->lags[0] == -SL_ENOENT) {
        fprintf(stderr, "sluice status: there are no topics: sluice topics create makes them\n");
    } else if (status->lags[0] == -SL_ETIMEDOUT || status->lags[0] == -SL_ECONN) {
        fprintf(stderr, "sluice status: Kafka does not answer at %s (SLUICE_KAFKA_BROKERS)\n",
                cli_options.brokers);
    }
}

static void put_field(struct sl_json_writer *w, const char *key, const char *text)
{
    sl_json_key(w, key);
    sl_json_put_string(w, sl_span_of(text));
}

static void put_host(struct sl_json_writer *w, const struct cli_host *host)
{
    sl_json_begin_object(w);
    put_field(w, "program", host->program);
    put_field(w, "address", host->address);
    sl_json_key(w, "ready");
    sl_json_put_bool(w, host->ready);
    put_field(w, "reason", host->ready ? "" : host->reason);
    sl_json_key(w, "in_flight");
    if (host->in_flight >= 0) {
        sl_json_put_int(w, host->in_flight);
    } else {
        sl_json_put_null(w);
    }
    sl_json_end_object(w);
}

static void put_lag(struct sl_json_writer *w, size_t i, int64_t lag)
{
    char name[NAME_BYTES];
    sl_json_begin_object(w);
    snprintf(name, sizeof(name), "%s.%s", cli_options.topic_prefix, groups[i].topic);
    put_field(w, "topic", name);
    snprintf(name, sizeof(name), "%s.%s", cli_options.topic_prefix, groups[i].group);
    put_field(w, "group", name);
    sl_json_key(w, "lag");
    if (lag >= 0) {
        sl_json_put_int(w, lag);
    } else {
        sl_json_put_null(w);
        put_field(w, "error", sl_error_text((int)lag));
    }
    sl_json_end_object(w);
}

static int print_json(const struct status *status)
{
    struct sl_buf text;
    sl_buf_init(&text, 1 << 20);
    struct sl_json_writer w = {.out = &text};
    sl_json_begin_object(&w);
    sl_json_key(&w, "ready");
    sl_json_put_bool(&w, status->ready);
    sl_json_key(&w, "programs");
    sl_json_begin_array(&w);
    for (size_t i = 0; i < status->host_count; i++) {
        put_host(&w, &status->hosts[i]);
    }
    sl_json_end_array(&w);
    sl_json_key(&w, "topics");
    sl_json_begin_array(&w);
    for (size_t i = 0; i < GROUPS; i++) {
        put_lag(&w, i, status->lags[i]);
    }
    sl_json_end_array(&w);
    sl_json_end_object(&w);
    printf(SL_SPAN_FMT "\n", SL_SPAN_ARG(sl_buf_span(&text)));
    int rv = sl_buf_error(&text);
    sl_buf_fini(&text);
    return rv;
}

/* --- the command --- */

static int show(struct status *status, bool json)
{
    struct cli_terminal out;
    int rv = cli_scrape(status->hosts, status->host_count, TIMEOUT_MS);
    if (rv == -SL_ECANCELLED) {
        return CLI_INTERRUPTED;
    }
    if (rv == 0) {
        find_lags(status);
        judge(status);
        cli_terminal_init(&out, stdout);
        rv = json ? print_json(status) : print_programs(status, &out);
        rv = rv != 0 || json ? rv : print_lags(status, &out);
    }
    if (rv != 0) {
        fprintf(stderr, "sluice status: %s\n", sl_error_text(rv));
        return CLI_FAILED;
    }
    fflush(stdout);
    if (!json) {
        print_hints(status);
    }
    return status->ready ? CLI_DONE : CLI_FAILED;
}

int cli_status(int argc, char **argv)
{
    static struct status status;
    bool json = false;
    struct cli_list words = {.len = 0};
    const struct cli_arg args[] = {{"--json", CLI_SWITCH, &json, 0, 0}, {.name = NULL}};
    int code = cli_parse("status", help, args, argc, argv, &words);
    if (code != CLI_GO_ON) {
        return code;
    }
    if (words.len > 0) {
        return cli_usage_error("status", "unexpected '%s'", words.items[0]);
    }
    struct sl_options *options = cli_load_options();
    if (options == NULL) {
        return CLI_USAGE;
    }
    if (cli_options.admin_hosts[0] == '\0') {
        default_hosts(&status);
        code = show(&status, json);
    } else if (listed_hosts(&status, cli_options.admin_hosts) != 0) {
        fprintf(stderr, "sluice status: SLUICE_ADMIN_HOSTS must be host:port,... (at most %d)\n",
                CLI_HOSTS_MAX);
        code = CLI_USAGE;
    } else {
        code = show(&status, json);
    }
    sl_options_fini(options);
    return code;
}
