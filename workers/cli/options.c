/* What the commands read from the environment. */
#include "workers/cli/cli.h"

#include <stdio.h>

struct cli_options cli_options;

#define AT(field) offsetof(struct cli_options, field)
static const char *const http_schemes[] = {"http", "https", NULL};
static const char *const redis_schemes[] = {"redis", NULL};
static const char *const database_schemes[] = {"postgresql", "postgres", NULL};

static const struct sl_option options[] = {
    {.name = "SLUICE_URL",
     .type = SL_OPT_URL,
     .offset = AT(url),
     .choices = http_schemes,
     .fallback = "http://127.0.0.1:8080",
     .help = "The gateway."},
    {.name = "SLUICE_API_KEY",
     .type = SL_OPT_STRING,
     .offset = AT(api_key),
     .fallback = "",
     .secret = true,
     .help = "Sent to the gateway as a bearer token."},
    {.name = "SLUICE_KAFKA_BROKERS",
     .type = SL_OPT_STRING,
     .offset = AT(brokers),
     .fallback = "127.0.0.1:9092",
     .help = "Kafka's brokers, host:port, separated by commas."},
    {.name = "SLUICE_TOPIC_PREFIX",
     .type = SL_OPT_PREFIX,
     .offset = AT(topic_prefix),
     .fallback = "sluice",
     .help = "Prefix of topics, consumer groups and Redis keys."},
    {.name = "SLUICE_REDIS_URL",
     .type = SL_OPT_URL,
     .offset = AT(redis_url),
     .choices = redis_schemes,
     .fallback = "redis://127.0.0.1:6379",
     .secret = true,
     .help = "Redis, as redis://[user[:password]@]host[:port][/db]."},
    {.name = "SLUICE_ADMIN_HOSTS",
     .type = SL_OPT_STRING,
     .offset = AT(admin_hosts),
     .fallback = "",
     .help = "Admin ports that `sluice status` asks, host:port, separated by commas; empty: one of "
             "each program on this machine."},
    {.name = "SLUICE_PARTITIONS",
     .type = SL_OPT_INT,
     .offset = AT(partitions),
     .fallback = "12",
     .min = 1,
     .max = 1000,
     .help = "Partitions of the topics that `sluice topics create` makes."},
    {.name = "SLUICE_REPLICATION",
     .type = SL_OPT_INT,
     .offset = AT(replication),
     .fallback = "-1",
     .min = -1,
     .max = 10,
     .help = "Their replication factor; -1: the broker's default."},
    {.name = "SLUICE_REPLY_TOPICS",
     .type = SL_OPT_STRING,
     .offset = AT(reply_topics),
     .fallback = "",
     .help = "Further topics that a job may name in reply-to, separated by commas; `sluice topics "
             "create` makes them too."},
    {.name = "SLUICE_RESULT_TTL",
     .type = SL_OPT_DURATION,
     .offset = AT(result_ttl_ms),
     .fallback = "24h",
     .min = 60000,
     .max = 2592000000.0,
     .help = "How long results, replies and what is between the stages are kept."},
    {.name = "SLUICE_DEAD_ATTEMPTS",
     .type = SL_OPT_INT,
     .offset = AT(dead_attempts),
     .fallback = "3",
     .min = 1,
     .max = 1000000,
     .help = "A dead letter that was tried so often is not sent again by `sluice dead redrive`."},
    {.name = "SLUICE_ANALYTICS_URL",
     .type = SL_OPT_URL,
     .offset = AT(analytics_url),
     .choices = database_schemes,
     .fallback = "",
     .secret = true,
     .help = "The analytics database that `sluice report` reads, as postgresql://...; empty: it "
             "reads the analytics topic."},
    {.name = "NO_COLOR",
     .type = SL_OPT_STRING,
     .offset = AT(no_color),
     .fallback = "",
     .help = "Anything: no colours."},
    {.name = "TERM",
     .type = SL_OPT_STRING,
     .offset = AT(term),
     .fallback = "dumb",
     .help = "The kind of terminal; dumb: no colours and no progress bar."},
    {.name = NULL},
};

const struct sl_option_set cli_option_sets[CLI_OPTION_SETS] = {
    {"Command line", options, &cli_options},
    {"Kafka's security", sl_kafka_security_options, &cli_options.kafka},
};

struct sl_options *cli_load_options(void)
{
    struct sl_options *loaded = NULL;
    char name[] = "sluice";
    char *argv[] = {name, NULL}, why[512];
    if (sl_options_load("sluice", "", cli_option_sets, CLI_OPTION_SETS, 1, argv, stdout, stderr,
                        &loaded) != SL_OPTIONS_RUN) {
        sl_options_fini(loaded);
        return NULL;
    }
    if (sl_kafka_secure(&cli_options.kafka, why, sizeof(why)) != 0) {
        fprintf(stderr, "sluice: %s\n", why);
        sl_options_fini(loaded);
        return NULL;
    }
    return loaded;
}
