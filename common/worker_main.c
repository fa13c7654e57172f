/*
 * A worker's main(): its options, and those that every worker has, then the log, then worker.c.
 */
#include "common/log.h"
#include "common/worker_internal.h"

#include <assert.h>
#include <stdio.h>
#include <unistd.h>

static const char *const log_levels[] = {"debug", "info", "warn", "error", NULL};
static const char *const log_formats[] = {"text", "json", NULL};
static const char *const redis_schemes[] = {"redis", NULL};

#define FIELD(name) offsetof(struct worker_options, name)
static struct sl_option runtime_options[] = {
    {.name = "SLUICE_KAFKA_BROKERS",
     .type = SL_OPT_STRING,
     .offset = FIELD(brokers),
     .fallback = "127.0.0.1:9092",
     .help = "Kafka's brokers, host:port, separated by commas."},
    {.name = "SLUICE_TOPIC_PREFIX",
     .type = SL_OPT_STRING,
     .offset = FIELD(topic_prefix),
     .fallback = "sluice",
     .help = "Prefix of topics, consumer groups and Redis keys."},
    {.name = "SLUICE_REPLY_TOPICS",
     .type = SL_OPT_STRING,
     .offset = FIELD(reply_topics),
     .fallback = "",
     .help = "Further topics that a job may name in reply-to, separated by commas."},
    {.name = "SLUICE_REDIS_URL",
     .type = SL_OPT_URL,
     .offset = FIELD(redis_url),
     .fallback = "redis://127.0.0.1:6379",
     .choices = redis_schemes,
     .secret = true,
     .help = "Redis, as redis://[user[:password]@]host[:port][/db]."},
    {.name = "SLUICE_ADMIN_LISTEN",
     .type = SL_OPT_ADDRESS,
     .offset = FIELD(admin_listen),
     .fallback = "127.0.0.1:0",
     .help = "Where /metrics, /healthz and /readyz are served; port 0 takes a free one."},
    {.name = "SLUICE_MAX_INFLIGHT",
     .type = SL_OPT_INT,
     .offset = FIELD(max_inflight),
     .fallback = "1024",
     .min = 1,
     .max = 60000,
     .help = "Queries that this process works on at once."},
    {.name = "SLUICE_MAX_INFLIGHT_BULK",
     .type = SL_OPT_INT,
     .offset = FIELD(max_inflight_bulk),
     .fallback = "64",
     .min = 1,
     .max = 60000,
     .help = "Pieces of bulk work (documents, chunks) that this process works on at once."},
    {.name = "SLUICE_RESULT_TTL",
     .type = SL_OPT_DURATION,
     .offset = FIELD(result_ttl_ms),
     .fallback = "24h",
     .min = 60000,
     .max = 2592000000.0,
     .help = "How long a query's ending is known."},
    {.name = "SLUICE_ORPHAN_GRACE",
     .type = SL_OPT_DURATION,
     .offset = FIELD(orphan_grace_ms),
     .fallback = "15s",
     .min = 1000,
     .max = 3600000,
     .help = "How long a query outlives its gateway before it counts as disconnected."},
    {.name = "SLUICE_DRAIN_TIMEOUT",
     .type = SL_OPT_DURATION,
     .offset = FIELD(drain_ms),
     .fallback = "10s",
     .min = 1000,
     .max = 3600000,
     .help = "How long running jobs may take to end after SIGTERM."},
    {.name = "SLUICE_HTTP2",
     .type = SL_OPT_BOOL,
     .offset = FIELD(http2),
     .fallback = "false",
     .help = "Offer HTTP/2 to https upstreams."},
    {.name = "SLUICE_CA_FILE",
     .type = SL_OPT_STRING,
     .offset = FIELD(ca_file),
     .fallback = "",
     .help = "Certificates to trust for https upstreams instead of the system's."},
    {.name = "SLUICE_LOG_LEVEL",
     .type = SL_OPT_CHOICE,
     .offset = FIELD(log_level),
     .fallback = "info",
     .choices = log_levels,
     .help = "The least level that is logged."},
    {.name = "SLUICE_LOG_FORMAT",
     .type = SL_OPT_CHOICE,
     .offset = FIELD(log_format),
     .fallback = "text",
     .choices = log_formats,
     .help = "Log lines as key=value text or as JSON."},
    {.name = NULL},
};

int sl_worker_main(const struct sl_stage *stage, int argc, char **argv)
{
    enum { SETS_MAX = 8 };
    struct sl_worker worker = {.stage = stage};
    struct sl_option_set sets[SETS_MAX] = {{"Runtime", runtime_options, &worker.options}};
    struct sl_options *options = NULL;
    char program[64], drain[32];
    assert(stage->option_set_count < SETS_MAX);
    memcpy(sets + 1, stage->option_sets, stage->option_set_count * sizeof(sets[0]));
    snprintf(program, sizeof(program), "sluice-%s", stage->name);
    snprintf(drain, sizeof(drain), "%lldms", stage->drain_ms);
    for (struct sl_option *option = runtime_options; option->name != NULL; option++) {
        if (option->offset == FIELD(admin_listen)) {
            option->fallback = stage->admin_address;
        } else if (option->offset == FIELD(drain_ms)) {
            option->fallback = drain;
        }
    }
    enum sl_options_result result =
        sl_options_load(program, stage->synopsis, sets, stage->option_set_count + 1, argc, argv,
                        stdout, stderr, &options);
    if (result != SL_OPTIONS_RUN) {
        sl_options_fini(options);
        return result == SL_OPTIONS_EXIT ? 0 : 2;
    }
    for (int i = 0; i < JOB_STATES; i++) {
        sl_list_init(&worker.states[i]);
    }
    sl_list_init(&worker.blocked);
    worker.slots_max[CLASS_QUERY] = (size_t)worker.options.max_inflight;
    worker.slots_max[CLASS_BULK] = (size_t)worker.options.max_inflight_bulk;
    int code = 1;
    if (sl_log_start(program, (enum sl_log_level)worker.options.log_level,
                     (enum sl_log_format)worker.options.log_format, STDERR_FILENO) == 0) {
        code = worker_run(&worker);
        sl_log_stop();
    }
    sl_options_fini(options);
    return code;
}
