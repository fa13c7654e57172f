/* What the files of the gateway share: its connections, its options, its open queries. */
#ifndef SLUICE_GATEWAY_GATEWAY_H
#define SLUICE_GATEWAY_GATEWAY_H

#include "common/admin.h"
#include "common/coord.h"
#include "common/http_server.h"
#include "common/kafka.h"
#include "common/map.h"
#include "common/process.h"
#include "common/trim.h"

#include "workers/gateway/http.h"

enum { TOPIC_MAX = 256 };

struct gateway_options {
    const char *listen, *models;
    long long max_inflight, max_connections, history_bytes;
};

/* Outcomes in the order of enum sl_outcome. */
struct gateway_metrics {
    struct sl_counter *outcomes[4];
    struct sl_gauge *in_flight, *callers, *connections;
    struct sl_histogram *ttft, *total, *overhead, *reply_lag;
};

struct replies;
struct replay;
struct status;

struct gateway {
    const struct sl_process_options *process;
    const struct gateway_options *options;
    struct sl_loop *loop;
    struct sl_metrics *registry;
    struct gateway_metrics metrics;
    struct http_counts http_counts;
    struct sl_admin *admin;
    struct sl_condition *kafka_ready, *redis_ready;
    struct sl_producer *producer;
    struct sl_producer *document_producer; /* NULL before the first document. */
    struct sl_coord *coord;
    struct sl_http_server *server;
    struct replies *replies;
    struct replay *replay;
    struct status *status;
    struct sl_signals *signals;
    struct sl_trim trim;

    char queries_topic[TOPIC_MAX], replies_topic[TOPIC_MAX], results_topic[TOPIC_MAX];
    char documents_topic[TOPIC_MAX];
    struct sl_map open;           /* Open queries by id (open_query.h), */
    size_t in_flight;             /* those of them that have not ended, */
    size_t listening;             /* and the callers who are not at the end. */
    size_t callers;               /* Exchanges that wait for an answer or read it. */
    struct sl_list endings;       /* Being stored or produced (expiry.h). */
    struct sl_list cancellations; /* On their way to Redis (cancel.h). */
    struct sl_list uploads;       /* Documents on their way to Kafka (upload.h), */
    size_t upload_count, upload_bytes;
    struct sl_list watches; /* and runs of ingestion with watchers (watch.h), */
    size_t watchers;        /* all together. */
    struct sl_buf scratch;  /* A record that is being built. */
    int64_t started_s;      /* Unix seconds. */

    bool draining, stopping;
    struct sl_timer drain_timer, stop_timer;
    uint64_t stop_by_ms;
    int exit_code;
};

/* A query's caller has gone or has its answer: when draining, the last one lets the process end. */
void gateway_caller_gone(struct gateway *gateway);
/* Something that cannot be mended: the process ends with exit code 1. */
void gateway_fail(struct gateway *gateway);

/* The whole of the process between options and exit. ctx: struct gateway_options. */
int gateway_run(void *ctx, const struct sl_process_options *process);
extern struct gateway_options gateway_options;
extern const struct sl_option gateway_option_table[];

#endif
