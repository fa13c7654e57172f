/*
 * The gateway's process.
 *
 * Start: everything is made at once, and nothing has to be there: until Kafka has told where the
 * replies come from, queries are answered 503 and /readyz says what is missing.
 *
 * SIGTERM: no new connections and no new queries; callers who are there get the rest of their
 * answers. When the last one has it, or the drain time is nearly over, the server is closed, which
 * cancels the queries of callers who are still there as any disconnect does; then Redis and Kafka
 * get up to a second for what they have to be told, and the loop stops.
 */
#include "workers/gateway/gateway.h"

#include "common/clock.h"
#include "common/log.h"
#include "workers/gateway/cancel.h"
#include "workers/gateway/expiry.h"
#include "workers/gateway/open_query.h"
#include "workers/gateway/replay.h"
#include "workers/gateway/replies.h"
#include "workers/gateway/routes.h"
#include "workers/gateway/status.h"
#include "workers/gateway/upload.h"
#include "workers/gateway/watch.h"

#include <stdio.h>
#include <sys/resource.h>

enum {
    MAX_SERIES = 1000,
    WHY_MAX = 256,
    SCRATCH_MAX = 16 << 20,
    FLUSH_MS = 500,
    STOP_MS = 1000,
    STOP_LOOK_MS = 10,
    OTHER_FILES = 256, /* Besides connections. */
};

struct gateway_options gateway_options;

#define FIELD(name) offsetof(struct gateway_options, name)
const struct sl_option gateway_option_table[] = {
    {.name = "SLUICE_LISTEN",
     .type = SL_OPT_ADDRESS,
     .offset = FIELD(listen),
     .fallback = "127.0.0.1:8080",
     .help = "Where the HTTP API is served; port 0 takes a free one."},
    {.name = "SLUICE_MAX_INFLIGHT",
     .type = SL_OPT_INT,
     .offset = FIELD(max_inflight),
     .fallback = "4096",
     .min = 1,
     .max = 1000000,
     .help = "Queries open at once, and callers of them; more are answered 503."},
    {.name = "SLUICE_MAX_CONNECTIONS",
     .type = SL_OPT_INT,
     .offset = FIELD(max_connections),
     .fallback = "10000",
     .min = 1,
     .max = 1000000,
     .help = "Client connections at once; more are answered 503 and closed."},
    {.name = "SLUICE_HISTORY_BYTES",
     .type = SL_OPT_BYTES,
     .offset = FIELD(history_bytes),
     .fallback = "8k",
     .min = 0,
     .max = 262144,
     .help = "Of a chat's earlier messages, how much goes into the prompt, the newest first."},
    {.name = "SLUICE_CHAT_MODEL",
     .type = SL_OPT_STRING,
     .offset = FIELD(models),
     .fallback = "",
     .help = "Models that callers may name, separated by commas; `sluice` means the first."},
    {.name = NULL},
};

/* --- ending --- */

static void on_look(struct sl_timer *timer)
{
    struct gateway *gateway = SL_ITEM(timer, struct gateway, stop_timer);
    bool told = sl_coord_idle(gateway->coord) && sl_list_empty(&gateway->endings) &&
                uploads_idle(gateway) && sl_producer_queued(gateway->producer) == 0;
    if (told || sl_clock_now_ms() >= gateway->stop_by_ms) {
        sl_loop_stop(gateway->loop);
        return;
    }
    sl_timer_start(gateway->loop, timer, STOP_LOOK_MS, on_look);
}

static void on_stop_now(struct sl_timer *timer)
{
    struct gateway *gateway = SL_ITEM(timer, struct gateway, stop_timer);
    sl_http_server_destroy(gateway->server);
    gateway->server = NULL;
    gateway->stop_by_ms = sl_clock_now_ms() + STOP_MS;
    on_look(timer);
}

/* Not from inside the server's callbacks. */
static void stop_soon(struct gateway *gateway)
{
    if (!gateway->stopping) {
        gateway->stopping = true;
        sl_timer_start(gateway->loop, &gateway->stop_timer, 0, on_stop_now);
    }
}

void gateway_caller_gone(struct gateway *gateway)
{
    if (gateway->draining && gateway->callers == 0) {
        stop_soon(gateway);
    }
}

void gateway_fail(struct gateway *gateway)
{
    gateway->exit_code = 1;
    stop_soon(gateway);
}

static void on_drain_timeout(struct sl_timer *timer)
{
    struct gateway *gateway = SL_ITEM(timer, struct gateway, drain_timer);
    sl_log(SL_LOG_WARN, "drain timed out", SL_INT("callers", gateway->callers));
    gateway_fail(gateway);
}

static void on_drain(void *ctx)
{
    struct gateway *gateway = ctx;
    gateway->draining = true;
    sl_condition_set(gateway->kafka_ready, false, "draining");
    sl_http_server_drain(gateway->server);
    watches_drain(gateway);
    sl_timer_start(gateway->loop, &gateway->drain_timer,
                   (uint64_t)gateway->process->drain_ms * 19 / 20 - STOP_MS / 2, on_drain_timeout);
    gateway_caller_gone(gateway);
}

static void on_stop(void *ctx)
{
    gateway_fail(ctx);
}

/* --- what the connections report --- */

static void on_coord_ready(void *ctx, bool ready, const char *why)
{
    struct gateway *gateway = ctx;
    sl_condition_set(gateway->redis_ready, ready, why);
    sl_log(ready ? SL_LOG_INFO : SL_LOG_WARN, ready ? "redis is usable" : "redis is not usable",
           SL_STR("variable", "SLUICE_REDIS_URL"), SL_STR("why", why != NULL ? why : ""));
}

static void on_producer_fatal(void *ctx, const char *why)
{
    struct gateway *gateway = ctx;
    sl_log(SL_LOG_ERROR, "the producer cannot go on", SL_STR("why", why));
    gateway_fail(gateway);
}

static void on_scrape(void *ctx)
{
    struct gateway *gateway = ctx;
    sl_gauge_set(gateway->metrics.in_flight, (double)gateway->in_flight);
    sl_gauge_set(gateway->metrics.callers, (double)gateway->callers);
    if (gateway->server != NULL) {
        sl_gauge_set(gateway->metrics.connections,
                     (double)sl_http_server_connections(gateway->server));
    }
}

/* --- creating the parts --- */

static int create_metrics(struct gateway *gateway)
{
    struct gateway_metrics *metrics = &gateway->metrics;
    char labels[64];
    int rv = sl_metrics_create(MAX_SERIES, &gateway->registry);
    if (rv != 0) {
        return rv;
    }
    gateway->http_counts.registry = gateway->registry;
    for (int i = SL_DONE; i <= SL_EXPIRED; i++) {
        snprintf(labels, sizeof(labels), "stage=\"gateway\",outcome=\"%s\"",
                 sl_outcome_text((enum sl_outcome)i));
        metrics->outcomes[i] =
            sl_metrics_counter(gateway->registry, "sluice_jobs_total",
                               "Jobs that this stage finished, by outcome.", labels);
    }
    metrics->in_flight = sl_metrics_gauge(gateway->registry, "sluice_jobs_in_flight",
                                          "Queries open at this gateway.", "stage=\"gateway\"");
    metrics->callers = sl_metrics_gauge(gateway->registry, "sluice_gateway_callers",
                                        "Callers who wait for an answer or read it.", NULL);
    metrics->connections = sl_metrics_gauge(gateway->registry, "sluice_gateway_connections",
                                            "Client connections.", NULL);
    metrics->ttft = sl_metrics_histogram(gateway->registry, "sluice_ttft_seconds",
                                         "From the request to the first token.", NULL);
    metrics->total = sl_metrics_histogram(gateway->registry, "sluice_query_seconds",
                                          "Time of a query in all, of those done.", NULL);
    metrics->overhead = sl_metrics_histogram(
        gateway->registry, "sluice_overhead_seconds",
        "Of a query that is done: its whole time without the time that its stages worked.", NULL);
    metrics->reply_lag =
        sl_metrics_histogram(gateway->registry, "sluice_reply_lag_seconds",
                             "From a reply's append to its taking, by the wall clocks.", NULL);
    return 0;
}

static int create_admin(struct gateway *gateway, char *why, size_t why_size)
{
    int rv = sl_admin_create(gateway->loop, gateway->process->admin_listen, gateway->registry,
                             &gateway->admin, why, why_size);
    if (rv != 0) {
        return rv;
    }
    gateway->kafka_ready = sl_admin_condition(gateway->admin, "kafka");
    gateway->redis_ready = sl_admin_condition(gateway->admin, "redis");
    sl_admin_on_scrape(gateway->admin, on_scrape, gateway);
    return gateway->kafka_ready != NULL && gateway->redis_ready != NULL ? 0 : -SL_ENOMEM;
}

static int create_producer(struct gateway *gateway, char *why, size_t why_size)
{
    const struct sl_kafka_config config = {.brokers = gateway->process->brokers,
                                           .client_id = "gateway"};
    int rv = sl_producer_create(gateway->loop, &config, on_producer_fatal, gateway,
                                &gateway->producer, why, why_size);
    if (rv == 0) {
        sl_producer_warm(gateway->producer, gateway->queries_topic);
    }
    return rv;
}

static int create_coord(struct gateway *gateway, char *why, size_t why_size)
{
    const struct sl_coord_config config = {
        .redis_url = gateway->process->redis_url,
        .prefix = gateway->process->topic_prefix,
        .result_ttl_ms = (uint64_t)gateway->process->result_ttl_ms,
        .orphan_grace_ms = (uint64_t)gateway->process->orphan_grace_ms,
        .metrics = gateway->registry,
        .on_ready = on_coord_ready,
        .ctx = gateway,
    };
    return sl_coord_create(gateway->loop, &config, &gateway->coord, why, why_size);
}

/* As many descriptors as there may be connections, as far as the system lets us. */
static void raise_file_limit(const struct gateway *gateway)
{
    rlim_t wanted = (rlim_t)gateway->options->max_connections + OTHER_FILES;
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= wanted) {
        return;
    }
    limit.rlim_cur = limit.rlim_max < wanted ? limit.rlim_max : wanted;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur < wanted) {
        sl_log(SL_LOG_WARN, "fewer files than SLUICE_MAX_CONNECTIONS needs may be open",
               SL_INT("limit", limit.rlim_cur));
    }
}

static int create_server(struct gateway *gateway, char *why, size_t why_size)
{
    const struct sl_http_server_config config = {
        .address = gateway->options->listen,
        .max_connections = (size_t)gateway->options->max_connections,
        .max_header_bytes = 16384,
        .header_timeout_ms = 10000,
        .body_timeout_ms = 30000,
        .idle_timeout_ms = 60000,
        .stall_timeout_ms = 30000,
        .max_write_queue = 65536,
        .large_body = 1 << 20,
        .max_large_bodies = 96 << 20,
    };
    const struct sl_http_server_callbacks callbacks = {
        .max_body = routes_max_body,
        .on_request = routes_on_request,
        .error_body = routes_error_body,
        .error_head = routes_error_head,
    };
    char reason[128] = "";
    raise_file_limit(gateway);
    int rv = sl_http_server_create(gateway->loop, &config, &callbacks, gateway, &gateway->server,
                                   reason, sizeof(reason));
    if (rv != 0) {
        snprintf(why, why_size, "SLUICE_LISTEN=%s: %s", config.address, reason);
    }
    return rv;
}

static void name_topics(struct gateway *gateway)
{
    const char *prefix = gateway->process->topic_prefix;
    snprintf(gateway->queries_topic, TOPIC_MAX, "%s.queries", prefix);
    snprintf(gateway->replies_topic, TOPIC_MAX, "%s.replies", prefix);
    snprintf(gateway->results_topic, TOPIC_MAX, "%s.results", prefix);
    snprintf(gateway->documents_topic, TOPIC_MAX, "%s.documents", prefix);
}

static size_t callers(void *ctx)
{
    return ((const struct gateway *)ctx)->callers;
}

static int create_parts(struct gateway *gateway, char *why, size_t why_size)
{
    int rv = sl_loop_create(&gateway->loop);
    rv = rv != 0 ? rv : sl_map_init(&gateway->open);
    rv = rv != 0 ? rv : create_metrics(gateway);
    rv = rv != 0 ? rv : create_admin(gateway, why, why_size);
    rv = rv != 0 ? rv : create_producer(gateway, why, why_size);
    rv = rv != 0 ? rv : create_coord(gateway, why, why_size);
    rv = rv != 0 ? rv : replies_create(gateway, &gateway->replies, why, why_size);
    rv = rv != 0 ? rv : replay_create(gateway, &gateway->replay, why, why_size);
    rv = rv != 0 ? rv : status_create(gateway, &gateway->status, why, why_size);
    rv = rv != 0 ? rv : create_server(gateway, why, why_size);
    rv = rv != 0 ? rv
                 : sl_signals_create(gateway->loop, gateway->process->drain_ms, on_drain, on_stop,
                                     gateway, &gateway->signals);
    if (rv == 0) {
        sl_trim_start(&gateway->trim, gateway->loop, callers, gateway);
    }
    return rv;
}

/* From what calls to what is called: the producer's reports still find their queries. */
static void destroy_parts(struct gateway *gateway)
{
    gateway->stopping = true;
    if (gateway->loop != NULL) {
        sl_signals_destroy(gateway->signals);
        sl_http_server_destroy(gateway->server);
        replies_destroy(gateway->replies);
        replay_destroy(gateway->replay);
        gateway->replay = NULL;
        if (gateway->producer != NULL) {
            sl_producer_destroy(gateway->producer, FLUSH_MS);
        }
        uploads_stop(gateway, FLUSH_MS);
        open_query_free_all(gateway);
        sl_coord_destroy(gateway->coord);
        status_destroy(gateway->status);
        expiry_free_all(gateway);
        cancel_free_all(gateway);
        uploads_free_all(gateway);
        watches_free_all(gateway);
        sl_admin_destroy(gateway->admin);
        sl_timer_stop(gateway->loop, &gateway->drain_timer);
        sl_timer_stop(gateway->loop, &gateway->stop_timer);
        sl_trim_stop(&gateway->trim);
        sl_loop_destroy(gateway->loop);
    }
    sl_metrics_destroy(gateway->registry);
    sl_map_fini(&gateway->open);
    sl_buf_fini(&gateway->scratch);
}

int gateway_run(void *ctx, const struct sl_process_options *process)
{
    struct gateway gateway = {.process = process, .options = ctx};
    char why[WHY_MAX] = "";
    sl_list_init(&gateway.endings);
    sl_list_init(&gateway.cancellations);
    sl_list_init(&gateway.uploads);
    sl_list_init(&gateway.watches);
    sl_buf_init(&gateway.scratch, SCRATCH_MAX);
    gateway.started_s = sl_clock_unix_ms() / 1000;
    name_topics(&gateway);
    int rv = create_parts(&gateway, why, sizeof(why));
    if (rv != 0) {
        sl_log(SL_LOG_ERROR, "cannot start", SL_STR("why", why), SL_ERR(rv));
        destroy_parts(&gateway);
        return rv == -SL_EINVAL ? 2 : 1;
    }
    sl_log(SL_LOG_INFO, "started", SL_STR("owner", sl_coord_owner(gateway.coord)),
           SL_STR("version", SLUICE_VERSION), SL_INT("port", sl_http_server_port(gateway.server)),
           SL_INT("admin_port", sl_admin_port(gateway.admin)));
    sl_loop_run(gateway.loop);
    destroy_parts(&gateway);
    sl_log(SL_LOG_INFO, "stopped", SL_INT("exit_code", gateway.exit_code));
    return gateway.exit_code;
}
