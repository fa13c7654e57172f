/*
 * The frame of a program: options, log, run, exit; and the way to its end.
 *
 * SIGTERM or SIGINT asks for a drain: the program finishes what it has begun and stops its loop. A
 * watchdog thread ends it when that takes longer than SLUICE_DRAIN_TIMEOUT, wherever it hangs; the
 * process's own time-outs should be shorter. A second signal asks to end at once.
 */
#include "common/process.h"

#include "common/log.h"

#include <assert.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum { SETS_MAX = 9, OWN_SETS = 2 };

static const char *const log_levels[] = {"debug", "info", "warn", "error", NULL};
static const char *const log_formats[] = {"text", "json", NULL};
static const char *const redis_schemes[] = {"redis", NULL};

#define FIELD(name) offsetof(struct sl_process_options, name)
static const struct sl_option process_options[] = {
    {.name = "SLUICE_KAFKA_BROKERS",
     .type = SL_OPT_STRING,
     .offset = FIELD(brokers),
     .fallback = "127.0.0.1:9092",
     .help = "Kafka's brokers, host:port, separated by commas."},
    {.name = "SLUICE_TOPIC_PREFIX",
     .type = SL_OPT_PREFIX,
     .offset = FIELD(topic_prefix),
     .fallback = "sluice",
     .help = "Prefix of topics, consumer groups and Redis keys."},
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
     .help = "Where /metrics, /healthz and /readyz are served; port 0 takes a free one."},
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
     .help = "After so long without a sign of life from its gateway a query is treated as its "
             "on_disconnect says; under 6s is 6s."},
    {.name = "SLUICE_DRAIN_TIMEOUT",
     .type = SL_OPT_DURATION,
     .offset = FIELD(drain_ms),
     .min = 1000,
     .max = 3600000,
     .help = "How long what runs may take to end after SIGTERM."},
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
enum { OPTION_COUNT = sizeof(process_options) / sizeof(process_options[0]) };

/* The table with this program's defaults. */
static void fill_table(const struct sl_process *process, char drain[32],
                       struct sl_option table[OPTION_COUNT])
{
    snprintf(drain, 32, "%llds", process->drain_ms / 1000);
    memcpy(table, process_options, sizeof(process_options));
    for (struct sl_option *option = table; option->name != NULL; option++) {
        if (option->offset == FIELD(admin_listen)) {
            option->fallback = process->admin_address;
        } else if (option->offset == FIELD(drain_ms)) {
            option->fallback = drain;
        }
    }
}

int sl_process_main(const struct sl_process *process, int argc, char **argv)
{
    struct sl_process_options values = {0};
    struct sl_option table[OPTION_COUNT];
    struct sl_option_set sets[SETS_MAX] = {
        {"Runtime", table, &values},
        {"Kafka's security", sl_kafka_security_options, &values.kafka}};
    struct sl_options *options = NULL;
    char drain[32], why[512];
    int code = 1;
    assert(process->option_set_count <= SETS_MAX - OWN_SETS);
    fill_table(process, drain, table);
    memcpy(sets + OWN_SETS, process->option_sets, process->option_set_count * sizeof(sets[0]));
    enum sl_options_result result =
        sl_options_load(process->program, process->synopsis, sets,
                        process->option_set_count + OWN_SETS, argc, argv, stdout, stderr, &options);
    if (result != SL_OPTIONS_RUN) {
        return result == SL_OPTIONS_EXIT ? 0 : 2;
    }
    if (sl_kafka_secure(&values.kafka, why, sizeof(why)) != 0) {
        fprintf(stderr, "%s: %s\n", process->program, why);
        sl_options_fini(options);
        return 2;
    }
    if (sl_log_start(process->program, (enum sl_log_level)values.log_level,
                     (enum sl_log_format)values.log_format, STDERR_FILENO) == 0) {
        code = process->run(process->ctx, &values);
        sl_log_stop();
    }
    sl_options_fini(options);
    return code;
}

/* --- signals --- */

enum { SIGNALS = 2 };

struct sl_signals {
    struct sl_signal *signals[SIGNALS];
    long long drain_ms;
    void (*on_drain)(void *ctx);
    void (*on_stop)(void *ctx);
    void *ctx;
    bool draining;
};

static void *watch(void *arg)
{
    static const char text[] = "exit hung past SLUICE_DRAIN_TIMEOUT, ending now\n";
    long long ms = (long long)(intptr_t)arg;
    struct timespec wait = {ms / 1000, ms % 1000 * 1000000};
    nanosleep(&wait, NULL);
    ssize_t written = write(STDERR_FILENO, text, sizeof(text) - 1);
    (void)written;
    _exit(1);
}

static void start_watchdog(long long ms)
{
    pthread_t thread;
    if (pthread_create(&thread, NULL, watch, (void *)(intptr_t)ms) == 0) {
        pthread_detach(thread);
    }
}

static void on_signal(void *ctx, int signum)
{
    struct sl_signals *signals = ctx;
    if (signals->draining) {
        signals->on_stop(signals->ctx);
        return;
    }
    sl_log(SL_LOG_INFO, "draining", SL_INT("signal", signum));
    signals->draining = true;
    start_watchdog(signals->drain_ms);
    signals->on_drain(signals->ctx);
}

int sl_signals_create(struct sl_loop *loop, long long drain_ms, void (*on_drain)(void *ctx),
                      void (*on_stop)(void *ctx), void *ctx, struct sl_signals **ret)
{
    static const int signums[SIGNALS] = {SIGTERM, SIGINT};
    struct sl_signals *signals = calloc(1, sizeof(*signals));
    if (signals == NULL) {
        return -SL_ENOMEM;
    }
    *signals = (struct sl_signals){
        .drain_ms = drain_ms, .on_drain = on_drain, .on_stop = on_stop, .ctx = ctx};
    signal(SIGPIPE, SIG_IGN);
    for (size_t i = 0; i < SIGNALS; i++) {
        int rv = sl_signal_create(loop, signums[i], on_signal, signals, &signals->signals[i]);
        if (rv != 0) {
            sl_signals_destroy(signals);
            return rv;
        }
    }
    *ret = signals;
    return 0;
}

void sl_signals_destroy(struct sl_signals *signals)
{
    if (signals == NULL) {
        return;
    }
    for (size_t i = 0; i < SIGNALS; i++) {
        sl_signal_destroy(signals->signals[i]);
    }
    free(signals);
}
