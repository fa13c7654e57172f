/*
 * `sluice topics create`: the topics that the programs use, with the settings that they rely on.
 * What exists is left as it is, so that the command can be run again at any time.
 *
 * Queries and replies carry the broker's own append time, since deadlines count from it. Topics
 * between the stages are kept no longer than Redis knows a query's ending: an old record that is
 * read again then finds that it ended. Records of up to 24 MiB fit everywhere a document or a
 * result with its sources may travel. The topics of others that jobs may name in reply-to are made
 * like the replies topic: an event for a topic that does not exist is lost.
 */
#include "common/kafka.h"
#include "workers/cli/cli.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum {
    TOPIC_MAX = 256,
    TIMEOUT_MS = 30000,
    REPLIES_PARTITIONS = 32,
    DLQ_PARTITIONS = 1,
    REPLY_TOPICS_MAX = 32
};

static const struct {
    const char *name;
    int32_t partitions; /* 0: SLUICE_PARTITIONS. */
    bool dlq;           /* Has a dead-letter topic, which is kept a week. */
} topics[] = {
    {"queries", 0, true},    {"retrieve", 0, true},  {"rerank", 0, true},
    {"generate", 0, true},   {"documents", 0, true}, {"chunks", 0, true},
    {"vectors", 0, true},    {"results", 0, true},   {"replies", REPLIES_PARTITIONS, false},
    {"analytics", 0, false},
};
enum {
    TOPIC_COUNT = sizeof(topics) / sizeof(topics[0]),
    SPEC_MAX = 2 * TOPIC_COUNT + REPLY_TOPICS_MAX
};

struct specs {
    struct sl_topic_spec specs[SPEC_MAX];
    char names[SPEC_MAX][TOPIC_MAX];
    size_t count;
};

/* The topic whose name was put at names[count]. */
static void add_named(struct specs *all, int32_t partitions, const char *const *config)
{
    size_t i = all->count++;
    all->specs[i] = (struct sl_topic_spec){.name = all->names[i],
                                           .partitions = partitions,
                                           .replication = (int32_t)cli_options.replication,
                                           .config = config};
}

static void add(struct specs *all, const char *suffix, const char *end, int32_t partitions,
                const char *const *config)
{
    snprintf(all->names[all->count], TOPIC_MAX, "%s.%s%s", cli_options.topic_prefix, suffix, end);
    add_named(all, partitions, config);
}

/* Those of SLUICE_REPLY_TOPICS. -SL_EINVAL: a name is too long, or there are too many. */
static int add_reply_topics(struct specs *all, const char *const *config)
{
    const char *list = cli_options.reply_topics;
    for (size_t count = 0; *list != '\0';) {
        size_t len = strcspn(list, ", ");
        if (len >= TOPIC_MAX || (len > 0 && count++ == REPLY_TOPICS_MAX)) {
            return -SL_EINVAL;
        }
        if (len > 0) {
            snprintf(all->names[all->count], TOPIC_MAX, "%.*s", (int)len, list);
            add_named(all, (int32_t)cli_options.partitions, config);
        }
        list += len + (list[len] != '\0' ? 1 : 0);
    }
    return 0;
}

static int create(void)
{
    static const char *const dlq_config[] = {"retention.ms", "604800000", "max.message.bytes",
                                             "25165824", NULL};
    char retention[24];
    const char *const config[] = {"message.timestamp.type",
                                  "LogAppendTime",
                                  "retention.ms",
                                  retention,
                                  "max.message.bytes",
                                  "25165824",
                                  NULL};
    const struct sl_kafka_config kafka = {.brokers = cli_options.brokers, .client_id = "sluice"};
    struct specs all = {.count = 0};
    int errs[SPEC_MAX];
    char why[256] = "";
    snprintf(retention, sizeof(retention), "%lld", cli_options.result_ttl_ms);
    for (size_t i = 0; i < TOPIC_COUNT; i++) {
        int32_t partitions =
            topics[i].partitions != 0 ? topics[i].partitions : (int32_t)cli_options.partitions;
        add(&all, topics[i].name, "", partitions, config);
        if (topics[i].dlq) {
            add(&all, topics[i].name, ".dlq", DLQ_PARTITIONS, dlq_config);
        }
    }
    if (add_reply_topics(&all, config) != 0) {
        fprintf(stderr, "sluice topics: SLUICE_REPLY_TOPICS must be at most %d names of topics\n",
                REPLY_TOPICS_MAX);
        return CLI_USAGE;
    }
    int rv =
        sl_kafka_create_topics(&kafka, all.specs, all.count, TIMEOUT_MS, errs, why, sizeof(why));
    if (rv != 0) {
        fprintf(stderr, "sluice topics: %s (SLUICE_KAFKA_BROKERS=%s)\n", why, cli_options.brokers);
        return CLI_FAILED;
    }
    int code = CLI_DONE;
    for (size_t i = 0; i < all.count; i++) {
        bool failed = errs[i] != 0 && errs[i] != -SL_EEXIST;
        fprintf(failed ? stderr : stdout, "%-28s %3" PRId32 " partitions  %s\n", all.names[i],
                all.specs[i].partitions,
                errs[i] == 0 ? "created"
                : failed     ? sl_error_text(errs[i])
                             : "exists already");
        code = failed ? CLI_FAILED : code;
    }
    return code;
}

static const char help[] =
    "usage: sluice topics create\n\n"
    "Creates the Kafka topics that do not exist yet, those of SLUICE_REPLY_TOPICS too; those that\n"
    "do are left as they are.\n\n"
    "variables: SLUICE_KAFKA_BROKERS, SLUICE_TOPIC_PREFIX, SLUICE_PARTITIONS (12; replies 32),\n"
    "SLUICE_REPLICATION (-1: the broker's default), SLUICE_RESULT_TTL (24h), "
    "SLUICE_REPLY_TOPICS\n\n"
    "example:\n"
    "  SLUICE_KAFKA_BROKERS=127.0.0.1:9092 sluice topics create\n";

int cli_topics(int argc, char **argv)
{
    static const struct cli_arg no_args[] = {{.name = NULL}};
    struct cli_list words = {.len = 0};
    int code = cli_parse("topics", help, no_args, argc, argv, &words);
    if (code != CLI_GO_ON) {
        return code;
    }
    if (words.len != 1 || strcmp(words.items[0], "create") != 0) {
        return cli_usage_error("topics", "expected `create`");
    }
    struct sl_options *options = cli_load_options();
    if (options == NULL) {
        return CLI_USAGE;
    }
    code = create();
    sl_options_fini(options);
    return code;
}
