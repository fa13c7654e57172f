/*
 * A worker process: its parts, from the first to the last, and what they report.
 *
 * Start: options, log, loop, metrics, admin port, producer, Redis, HTTP client, the stage's own
 * init, and last the consumer, so that the first record finds everything there. Kafka or Redis that
 * is away is no reason to end: /readyz says what is missing, and the parts keep trying.
 *
 * How it ends is in worker_drain.c. The parts go in the order in which they use each other: jobs
 * first, with the producer's last reports, then the consumer, the stage, HTTP, Redis.
 */
#include "common/worker_internal.h"

#include "common/admin.h"
#include "common/clock.h"
#include "common/log.h"

#include <stdio.h>
#include <stdlib.h>

enum { MAX_SERIES = 2000, WHY_MAX = 256, REPLY_TOPICS_MAX = 32 };

/* --- names --- */

void worker_topic(const struct sl_worker *worker, const char *topic, char ret[TOPIC_MAX])
{
    snprintf(ret, TOPIC_MAX, "%s.%s", worker->process->topic_prefix, topic);
}

/* Events there would be taken for work, or for results. */
static bool is_internal(const struct sl_worker *worker, const char *topic)
{
    static const char *const ours[] = {"queries",   "retrieve", "rerank",  "generate", "results",
                                       "documents", "chunks",   "vectors", "analytics"};
    for (size_t i = 0; i < sizeof(ours) / sizeof(ours[0]); i++) {
        char name[TOPIC_MAX];
        worker_topic(worker, ours[i], name);
        size_t len = strlen(name);
        if (strncmp(topic, name, len) == 0 && (topic[len] == 0 || !strcmp(topic + len, ".dlq"))) {
            return true;
        }
    }
    return false;
}

/* The replies topic and those that SLUICE_REPLY_TOPICS lists, in worker->reply_topics. */
static int list_reply_topics(struct sl_worker *worker, char *why, size_t why_size)
{
    char first[TOPIC_MAX];
    worker_topic(worker, "replies", first);
    size_t at = 0;
    char *list = strdup(worker->options.reply_topics);
    worker->reply_topics = calloc(REPLY_TOPICS_MAX + 2, sizeof(char *));
    if (list == NULL || worker->reply_topics == NULL) {
        free(list);
        return -SL_ENOMEM;
    }
    worker->reply_topics[at++] = strdup(first);
    char *rest = list, *name;
    while ((name = strsep(&rest, ", ")) != NULL && at <= REPLY_TOPICS_MAX) {
        if (*name != '\0') {
            worker->reply_topics[at++] = strdup(name);
        }
    }
    free(list);
    for (size_t i = 0; i < at; i++) {
        if (worker->reply_topics[i] == NULL) {
            return -SL_ENOMEM;
        }
        if (is_internal(worker, worker->reply_topics[i])) {
            snprintf(why, why_size, "SLUICE_REPLY_TOPICS=%s: a topic of the pipeline's own",
                     worker->reply_topics[i]);
            return -SL_EINVAL;
        }
    }
    return 0;
}

/* --- what the connections report --- */

static void on_coord_ready(void *ctx, bool ready, const char *why)
{
    struct sl_worker *worker = ctx;
    sl_condition_set(worker->redis_ready, ready, ready ? "" : why);
    sl_log(ready ? SL_LOG_INFO : SL_LOG_WARN, ready ? "redis is usable" : "redis is not usable",
           SL_STR("variable", "SLUICE_REDIS_URL"), SL_STR("why", why != NULL ? why : ""));
}

static void on_producer_fatal(void *ctx, const char *why)
{
    sl_log(SL_LOG_ERROR, "the producer cannot go on", SL_STR("why", why));
    worker_stop(ctx);
}

/* Without the consumer nothing new comes, but what runs can be finished. */
static void on_consumer_error(void *ctx, bool fatal, const char *why)
{
    struct sl_worker *worker = ctx;
    sl_log(fatal ? SL_LOG_ERROR : SL_LOG_WARN, "kafka", SL_STR("why", why),
           SL_STR("variable", sl_kafka_variable(why)));
    sl_condition_set(worker->kafka_ready, false, why);
    if (fatal) {
        worker_fail(worker, "the consumer cannot go on");
    }
}

/* Once a second: is the group joined (an assignment may be empty), and does Redis admit work. */
static void on_tick(struct sl_timer *timer)
{
    struct sl_worker *worker = SL_ITEM(timer, struct sl_worker, tick);
    if (!worker->draining && !worker->leaving) {
        char why[WHY_MAX] = "has not joined its consumer group (SLUICE_KAFKA_BROKERS)";
        bool joined = sl_consumer_joined(worker->consumer);
        sl_kafka_trouble(why, sizeof(why));
        sl_condition_set(worker->kafka_ready, joined, why);
    }
    bool admits = sl_coord_quarantine_ms(worker->coord) == 0;
    sl_condition_set(worker->admission_ready, admits,
                     admits ? ""
                            : "Redis lost its state: nothing is admitted for one lease's time");
    sl_timer_start(worker->loop, timer, 1000, on_tick);
}

static size_t jobs_in_flight(void *ctx)
{
    const struct sl_worker *worker = ctx;
    return worker->counts[JOB_ADMITTING] + worker->counts[JOB_RUNNING] +
           worker->counts[JOB_SETTLING];
}

static void on_scrape(void *ctx)
{
    struct sl_worker *worker = ctx;
    sl_gauge_set(worker->in_flight, (double)jobs_in_flight(worker));
    sl_gauge_set(worker->waiting, (double)worker->counts[JOB_ADMITTING]);
    sl_gauge_set(worker->parked,
                 (double)(worker->counts[JOB_PARKED] + worker->counts[JOB_UNPARKED]));
    sl_gauge_set(worker->parked_size,
                 (double)(worker->parked_bytes[CLASS_QUERY] + worker->parked_bytes[CLASS_BULK]));
}

static void on_room(void *ctx)
{
    struct sl_worker *worker = ctx;
    settle_bundles_go_on(worker);
    settle_go_on(&worker->blocked);
}

static struct sl_counter *dead_letters(struct sl_worker *worker, const char *topic)
{
    char labels[TOPIC_MAX + 16];
    snprintf(labels, sizeof(labels), "topic=\"%s\"", topic);
    return sl_metrics_counter(worker->metrics, "sluice_dead_letters_total",
                              "Records that went to a dead-letter topic.", labels);
}

void worker_count_dead(struct sl_worker *worker, const char *topic)
{
    sl_counter_add(dead_letters(worker, topic), 1);
}

/* --- creating the parts --- */

static void create_job_metrics(struct sl_worker *worker, const char *stage)
{
    struct sl_metrics *metrics = worker->metrics;
    const struct sl_stage_input *input = worker->stage->inputs;
    for (; input->topic != NULL; input++) { /* From 0, or an alert would miss the first. */
        char topic[TOPIC_MAX];
        worker_topic(worker, input->topic, topic);
        dead_letters(worker, topic);
    }
    worker->in_flight = sl_metrics_gauge(metrics, "sluice_jobs_in_flight",
                                         "Jobs that hold or wait for a claim here.", stage);
    worker->waiting = sl_metrics_gauge(metrics, "sluice_jobs_waiting",
                                       "Jobs that wait for a claim or a permit.", stage);
    worker->parked =
        sl_metrics_gauge(metrics, "sluice_jobs_parked", "Jobs that another worker runs.", stage);
    worker->parked_size = sl_metrics_gauge(metrics, "sluice_parked_bytes",
                                           "Memory of the jobs that are parked.", stage);
    worker->suspected = sl_metrics_counter(
        metrics, "sluice_suspects_total",
        "Jobs that ran alone because two workers had died while they ran them.", stage);
    worker->parked_full = sl_metrics_counter(
        metrics, "sluice_parked_full_total",
        "How often no more was taken because too much was parked (SLUICE_PARKED_MAX).", stage);
    if (worker->stage->index == SL_STAGE_COUNT - 1) {
        worker->ttft = sl_metrics_histogram(metrics, "sluice_ttft_seconds",
                                            "From acceptance to the first token.", NULL);
        worker->total = sl_metrics_histogram(metrics, "sluice_query_seconds",
                                             "Time of a query in all, of those done.", NULL);
        worker->overhead = sl_metrics_histogram(
            metrics, "sluice_overhead_seconds",
            "Time of a query in all, less the time that its stages were at work.", NULL);
    }
}

static int create_metrics(struct sl_worker *worker)
{
#define X(name) #name,
    static const char *const outcomes[] = {JOB_OUTCOMES(X)};
#undef X
    static const char *const parts[] = {
#define X(name) #name,
        JOB_PARTS(X)
#undef X
    };
    char labels[128];
    int rv = sl_metrics_create(MAX_SERIES, &worker->metrics);
    if (rv != 0) {
        return rv;
    }
    for (size_t i = 0; i < OUTCOME_COUNT; i++) {
        snprintf(labels, sizeof(labels), "stage=\"%s\",outcome=\"%s\"", worker->stage->name,
                 outcomes[i]);
        worker->outcomes[i] =
            sl_metrics_counter(worker->metrics, "sluice_jobs_total",
                               "Jobs that this stage finished, by outcome.", labels);
    }
    for (size_t i = 0; i < PART_COUNT; i++) {
        snprintf(labels, sizeof(labels), "stage=\"%s\",part=\"%s\"", worker->stage->name, parts[i]);
        worker->parts[i] = sl_metrics_histogram(worker->metrics, "sluice_stage_seconds",
                                                "Time of a job in this stage, by part.", labels);
    }
    snprintf(labels, sizeof(labels), "stage=\"%s\"", worker->stage->name);
    create_job_metrics(worker, labels);
    return 0;
}

static int create_admin(struct sl_worker *worker, char *why, size_t why_size)
{
    int rv = sl_admin_create(worker->loop, worker->process->admin_listen, worker->metrics,
                             &worker->admin, why, why_size);
    if (rv != 0) {
        return rv;
    }
    worker->kafka_ready = sl_admin_condition(worker->admin, "kafka");
    worker->redis_ready = sl_admin_condition(worker->admin, "redis");
    worker->admission_ready = sl_admin_condition(worker->admin, "admission");
    worker->version_ready = sl_admin_condition(worker->admin, "version");
    if (worker->kafka_ready == NULL || worker->redis_ready == NULL ||
        worker->admission_ready == NULL || worker->version_ready == NULL) {
        return -SL_ENOMEM;
    }
    sl_condition_set(worker->kafka_ready, false, "starting");
    sl_condition_set(worker->redis_ready, false, "starting");
    sl_condition_set(worker->admission_ready, false, "starting");
    sl_condition_set(worker->version_ready, true, "");
    sl_admin_on_scrape(worker->admin, on_scrape, worker);
    return 0;
}

static int create_producer(struct sl_worker *worker, char *why, size_t why_size)
{
    char topic[TOPIC_MAX];
    const struct sl_kafka_config config = {.brokers = worker->process->brokers,
                                           .client_id = worker->stage->name};
    int rv = sl_producer_create(worker->loop, &config, on_producer_fatal, worker, &worker->producer,
                                why, why_size);
    if (rv != 0) {
        return rv;
    }
    sl_producer_on_room(worker->producer, on_room, worker);
    for (const char *const *output = worker->stage->outputs; *output != NULL; output++) {
        worker_topic(worker, *output, topic);
        sl_producer_warm(worker->producer, topic);
    }
    worker_topic(worker, "results", worker->results_topic);
    return 0;
}

static int create_coord(struct sl_worker *worker, char *why, size_t why_size)
{
    worker->limit_count = worker->stage->limits != NULL ? worker->stage->limits(worker->limits) : 0;
    const struct sl_coord_config config = {
        .redis_url = worker->process->redis_url,
        .prefix = worker->process->topic_prefix,
        .limits = worker->limits,
        .limit_count = worker->limit_count,
        .result_ttl_ms = (uint64_t)worker->process->result_ttl_ms,
        .orphan_grace_ms = (uint64_t)worker->process->orphan_grace_ms,
        .metrics = worker->metrics,
        .on_ready = on_coord_ready,
        .ctx = worker,
    };
    return sl_coord_create(worker->loop, &config, &worker->coord, why, why_size);
}

static int create_consumer(struct sl_worker *worker, char *why, size_t why_size)
{
    enum { DOCUMENTS_QUEUE_KB = 20480, QUEUE_KB = 1024 };
    struct sl_consumer_topic topics[SL_STAGE_INPUTS];
    char group[TOPIC_MAX];
    size_t count = 0;
    for (; worker->stage->inputs[count].topic != NULL; count++) {
        const struct sl_stage_input *input = &worker->stage->inputs[count];
        worker_topic(worker, input->topic, worker->topic_names[count]);
        topics[count] = (struct sl_consumer_topic){
            .name = worker->topic_names[count],
            .class = class_of_input(input),
            .fetch_queue_kb = input->kind == SL_INPUT_DOCUMENT ? DOCUMENTS_QUEUE_KB : QUEUE_KB,
        };
    }
    worker_topic(worker, worker->stage->name, group);
    const struct sl_consumer_config config = {
        .kafka = {.brokers = worker->process->brokers, .client_id = worker->stage->name},
        .group = group,
        .topics = topics,
        .topic_count = count,
        .metrics = worker->metrics,
        .room = intake_room,
        .on_record = intake_record,
        .on_error = on_consumer_error,
        .ctx = worker,
    };
    return sl_consumer_create(worker->loop, &config, &worker->consumer, why, why_size);
}

static void on_backlog_room(void *ctx)
{
    struct sl_worker *worker = ctx;
    if (worker->consumer != NULL) {
        sl_consumer_kick(worker->consumer);
    }
}

static int create_backlog(struct sl_worker *worker)
{
    const struct sl_stage *stage = worker->stage;
    struct sl_backlog_topic topics[SL_BACKLOG_TOPICS] = {{NULL, NULL}};
    char names[SL_STAGE_BEHIND][TOPIC_MAX], groups[SL_STAGE_BEHIND][TOPIC_MAX];
    const struct sl_kafka_config kafka = {.brokers = worker->process->brokers,
                                          .client_id = stage->name};
    if (stage->behind_max == NULL) {
        return 0;
    }
    for (size_t i = 0; i < SL_STAGE_BEHIND && stage->behind[i].topic != NULL; i++) {
        worker_topic(worker, stage->behind[i].topic, names[i]);
        worker_topic(worker, stage->behind[i].stage, groups[i]);
        topics[i] = (struct sl_backlog_topic){names[i], groups[i]};
    }
    return sl_backlog_create(worker->loop, &kafka, topics, *stage->behind_max, on_backlog_room,
                             worker, &worker->backlog);
}

static int create_http(struct sl_worker *worker)
{
    const struct sl_http_client_config config = {
        .http2 = worker->options.http2,
        .ca_file = worker->options.ca_file[0] != '\0' ? worker->options.ca_file : NULL};
    return sl_http_client_create(worker->loop, &config, &worker->http);
}

static int create_parts(struct sl_worker *worker, char *why, size_t why_size)
{
    int rv = sl_loop_create(&worker->loop);
    rv = rv != 0 ? rv : sl_map_init(&worker->jobs);
    rv = rv != 0 ? rv : list_reply_topics(worker, why, why_size);
    rv = rv != 0 ? rv : create_metrics(worker);
    rv = rv != 0 ? rv : create_admin(worker, why, why_size);
    rv = rv != 0 ? rv : create_producer(worker, why, why_size);
    rv = rv != 0 ? rv : create_coord(worker, why, why_size);
    rv = rv != 0 ? rv : create_http(worker);
    if (rv == 0 && worker->stage->init != NULL) {
        rv = worker->stage->init(worker, &worker->stage_state, why, why_size);
    }
    rv = rv != 0 ? rv : create_backlog(worker);
    rv = rv != 0 ? rv : create_consumer(worker, why, why_size);
    rv = rv != 0 ? rv
                 : sl_signals_create(worker->loop, worker->process->drain_ms, worker_on_drain,
                                     worker_on_stop, worker, &worker->signals);
    if (rv == 0) {
        sl_timer_start(worker->loop, &worker->tick, 100, on_tick);
        sl_trim_start(&worker->trim, worker->loop, jobs_in_flight, worker);
    }
    return rv;
}

/* --- ending --- */

static void destroy_parts(struct sl_worker *worker)
{
    if (worker->loop == NULL) {
        return;
    }
    if (worker->producer != NULL) {
        worker_abandon_all(worker);
    }
    sl_consumer_destroy(worker->consumer);
    worker->consumer = NULL;
    sl_backlog_destroy(worker->backlog);
    worker->backlog = NULL;
    if (worker->stage->fini != NULL && worker->stage_state != NULL) {
        worker->stage->fini(worker->stage_state);
    }
    sl_http_client_destroy(worker->http);
    sl_coord_destroy(worker->coord);
    sl_admin_destroy(worker->admin);
    sl_signals_destroy(worker->signals);
    sl_timer_stop(worker->loop, &worker->drain_timer);
    sl_timer_stop(worker->loop, &worker->linger_timer);
    sl_timer_stop(worker->loop, &worker->tick);
    sl_trim_stop(&worker->trim);
    sl_timer_stop(worker->loop, &worker->flush_timer);
    sl_task_cancel(&worker->flush_task);
    sl_task_cancel(&worker->unpark);
    sl_task_cancel(&worker->leave);
    sl_task_cancel(&worker->close);
    sl_loop_destroy(worker->loop);
    sl_metrics_destroy(worker->metrics);
    sl_map_fini(&worker->jobs);
    for (size_t i = 0; worker->reply_topics != NULL && worker->reply_topics[i] != NULL; i++) {
        free((void *)(uintptr_t)worker->reply_topics[i]);
    }
    free(worker->reply_topics);
}

int worker_start(struct sl_worker *worker)
{
    char why[WHY_MAX] = "";
    sl_list_init(&worker->blocked);
    sl_list_init(&worker->gathered);
    sl_list_init(&worker->lanes);
    sl_list_init(&worker->suspects);
    for (int i = 0; i < JOB_STATES; i++) {
        sl_list_init(&worker->states[i]);
    }
    worker->slots_max[CLASS_QUERY] = (size_t)worker->options.max_inflight;
    worker->slots_max[CLASS_BULK] = (size_t)worker->options.max_inflight_bulk;
    int rv = create_parts(worker, why, sizeof(why));
    if (rv != 0) {
        sl_log(SL_LOG_ERROR, "cannot start", SL_STR("why", why), SL_ERR(rv));
        destroy_parts(worker);
        return rv == -SL_EINVAL ? 2 : 1;
    }
    sl_log(SL_LOG_INFO, "started", SL_STR("owner", sl_coord_owner(worker->coord)),
           SL_STR("version", SLUICE_VERSION), SL_INT("admin_port", sl_admin_port(worker->admin)));
    return 0;
}

int worker_finish(struct sl_worker *worker)
{
    destroy_parts(worker);
    sl_log(SL_LOG_INFO, "stopped", SL_INT("exit_code", worker->exit_code));
    return worker->exit_code;
}

/* --- what stages see --- */

void *sl_worker_stage(struct sl_worker *worker)
{
    return worker->stage_state;
}

struct sl_loop *sl_worker_loop(struct sl_worker *worker)
{
    return worker->loop;
}

struct sl_metrics *sl_worker_metrics(struct sl_worker *worker)
{
    return worker->metrics;
}

struct sl_coord *sl_worker_coord(struct sl_worker *worker)
{
    return worker->coord;
}

struct sl_http_client *sl_worker_http(struct sl_worker *worker)
{
    return worker->http;
}

struct sl_condition *sl_worker_condition(struct sl_worker *worker, const char *name)
{
    return sl_admin_condition(worker->admin, name);
}
