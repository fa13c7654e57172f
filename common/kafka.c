/*
 * What all librdkafka clients of a process share: configuration, the way in which librdkafka's
 * threads wake the loop, its log lines, its errors, and its end.
 *
 * A client's queues write to one eventfd when they go from empty to non-empty; the loop polls it.
 * Whoever wakes clears the eventfd first and then reads the queues until they are empty, so that
 * nothing can come in unseen between the two.
 *
 * librdkafka logs from its own threads. Lines about connections that fail come for each broker and
 * each try; one in ten seconds is written, with the number of those left out.
 *
 * rd_kafka_destroy joins librdkafka's threads and hangs if a message, list or queue was not given
 * back, or by a fault of some versions. It runs on a thread of its own, which is waited for with a
 * bound and else left behind with what it still uses: a stuck client must not keep a process from
 * ending.
 */
#include "common/kafka_internal.h"

#include "common/clock.h"
#include "common/kafka_security.h"
#include "common/log.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

enum { QUIET_MS = 10000, DESTROY_LIMIT_MS = 5000 };

/* For every client; the caller's properties and the configuration's extra ones come after. */
/* clang-format off */
static const char *const common_properties[] = {
    "socket.nagle.disable", "true",
    "socket.keepalive.enable", "true",
    "socket.timeout.ms", "10000",
    "reconnect.backoff.ms", "50",
    "reconnect.backoff.max.ms", "1000", /* The default leaves a restarted broker alone for 10 s. */
    "log.connection.close", "false",
    "topic.metadata.refresh.interval.ms", "10000", /* Finds topics created after a subscription. */
    NULL,
};
/* clang-format on */

void sl_kafka_why(char *why, size_t why_size, const char *format, ...)
{
    if (why == NULL || why_size == 0) {
        return;
    }
    va_list args;
    va_start(args, format);
    vsnprintf(why, why_size, format, args);
    va_end(args);
}

int sl_kafka_map_error(rd_kafka_resp_err_t err)
{
    switch (err) {
    case RD_KAFKA_RESP_ERR_NO_ERROR:
        return 0;
    case RD_KAFKA_RESP_ERR__QUEUE_FULL:
        return -SL_EAGAIN;
    case RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE:
    case RD_KAFKA_RESP_ERR_RECORD_LIST_TOO_LARGE:
    case RD_KAFKA_RESP_ERR_INVALID_MSG_SIZE:
        return -SL_ETOOBIG;
    case RD_KAFKA_RESP_ERR__MSG_TIMED_OUT:
    case RD_KAFKA_RESP_ERR__TIMED_OUT:
    case RD_KAFKA_RESP_ERR__TIMED_OUT_QUEUE:
    case RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT:
    case RD_KAFKA_RESP_ERR__PURGE_QUEUE: /* Only sl_producer_destroy purges, after its time. */
    case RD_KAFKA_RESP_ERR__PURGE_INFLIGHT:
        return -SL_ETIMEDOUT;
    case RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC:
    case RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION:
    case RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART:
    case RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION:
        return -SL_ENOENT;
    case RD_KAFKA_RESP_ERR_TOPIC_ALREADY_EXISTS:
        return -SL_EEXIST;
    case RD_KAFKA_RESP_ERR__TRANSPORT:
    case RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN:
    case RD_KAFKA_RESP_ERR__RESOLVE:
        return -SL_ECONN;
    case RD_KAFKA_RESP_ERR__CRIT_SYS_RESOURCE:
        return -SL_ENOMEM;
    case RD_KAFKA_RESP_ERR__INVALID_ARG:
    case RD_KAFKA_RESP_ERR_INVALID_PARTITIONS:
    case RD_KAFKA_RESP_ERR_INVALID_REPLICATION_FACTOR:
    case RD_KAFKA_RESP_ERR_INVALID_CONFIG:
        return -SL_EINVAL;
    default:
        return -SL_EIO;
    }
}

bool sl_kafka_error_is_transient(rd_kafka_resp_err_t err)
{
    switch (err) {
    case RD_KAFKA_RESP_ERR__TRANSPORT:
    case RD_KAFKA_RESP_ERR__TIMED_OUT:
    case RD_KAFKA_RESP_ERR__PARTITION_EOF:
    case RD_KAFKA_RESP_ERR__WAIT_COORD:
    case RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS:
    case RD_KAFKA_RESP_ERR_COORDINATOR_NOT_AVAILABLE:
    case RD_KAFKA_RESP_ERR_NOT_COORDINATOR:
    case RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION:
    case RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE:
    case RD_KAFKA_RESP_ERR_REPLICA_NOT_AVAILABLE:
    case RD_KAFKA_RESP_ERR_REBALANCE_IN_PROGRESS:
        return true;
    default:
        return false;
    }
}

bool sl_kafka_event_is_fatal(rd_kafka_event_t *event)
{
    return rd_kafka_event_error_is_fatal(event) != 0 ||
           rd_kafka_event_error(event) == RD_KAFKA_RESP_ERR__FATAL;
}

bool sl_kafka_event_matters(rd_kafka_event_t *event)
{
    rd_kafka_resp_err_t err = rd_kafka_event_error(event);
    return sl_kafka_event_is_fatal(event) || (!sl_kafka_error_is_transient(err) &&
                                              err != RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED);
}

/* --- log lines, from librdkafka's threads --- */

static enum sl_log_level log_level(int syslog_level)
{
    if (syslog_level <= LOG_ERR) {
        return SL_LOG_ERROR;
    }
    if (syslog_level == LOG_WARNING) {
        return SL_LOG_WARN;
    }
    return syslog_level == LOG_DEBUG ? SL_LOG_DEBUG : SL_LOG_INFO;
}

/* Whether this failure is to be written, and how many before it were not. */
static bool log_failure(struct sl_kafka_client *client, uint32_t *unlogged)
{
    if (atomic_load(&client->closing)) {
        return false;
    }
    uint64_t now = sl_clock_now_ms();
    uint64_t quiet_end = atomic_load(&client->quiet_end_ms);
    if (now < quiet_end ||
        !atomic_compare_exchange_strong(&client->quiet_end_ms, &quiet_end, now + QUIET_MS)) {
        atomic_fetch_add(&client->unlogged, 1);
        return false;
    }
    *unlogged = atomic_exchange(&client->unlogged, 0);
    return true;
}

static void on_log(const rd_kafka_t *rk, int level, const char *facility, const char *text)
{
    enum sl_log_level ours = log_level(level);
    bool failure = strcmp(facility, "FAIL") == 0 || strcmp(facility, "ERROR") == 0;
    uint32_t unlogged = 0;
    const char *variable = "SLUICE_KAFKA_BROKERS";
    if (failure) { /* A connection that fails is repaired; what does not last is no error. */
        ours = SL_LOG_WARN;
        struct sl_kafka_client *client = rk != NULL ? rd_kafka_opaque(rk) : NULL;
        if ((client == NULL || !atomic_load(&client->closing)) && sl_kafka_note_trouble(text)) {
            variable = sl_kafka_variable(text);
        }
        if (client != NULL && !log_failure(client, &unlogged)) {
            return;
        }
    }
    if (failure) {
        sl_log(ours, "kafka", SL_STR("facility", facility), SL_STR("text", text),
               SL_STR("variable", variable), SL_INT("left_out", unlogged));
    } else {
        sl_log(ours, "kafka", SL_STR("facility", facility), SL_STR("text", text));
    }
}

/* --- a client's life --- */

static int set_properties(rd_kafka_conf_t *conf, const char *const *properties, char *why,
                          size_t why_size)
{
    for (size_t i = 0; properties != NULL && properties[i] != NULL; i += 2) {
        bool optional = properties[i][0] == '?';
        char text[256] = "";
        rd_kafka_conf_res_t result = rd_kafka_conf_set(conf, properties[i] + (optional ? 1 : 0),
                                                       properties[i + 1], text, sizeof(text));
        if (result != RD_KAFKA_CONF_OK && !(optional && result == RD_KAFKA_CONF_UNKNOWN)) {
            sl_kafka_why(why, why_size, "%s", text);
            return -SL_EINVAL;
        }
    }
    return 0;
}

static int make_conf(const struct sl_kafka_config *config, const char *const *properties,
                     rd_kafka_conf_t **ret, char *why, size_t why_size)
{
    const char *const identity[] = {
        "bootstrap.servers",
        config->brokers,
        "client.id",
        config->client_id != NULL ? config->client_id : "sluice",
        NULL,
    };
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    int rc = set_properties(conf, common_properties, why, why_size);
    if (rc == 0) {
        rc = set_properties(conf, identity, why, why_size);
    }
    if (rc == 0) {
        rc = set_properties(conf, sl_kafka_security_properties(), why, why_size);
    }
    if (rc == 0) {
        rc = set_properties(conf, properties, why, why_size);
    }
    if (rc == 0) {
        rc = set_properties(conf, config->extra, why, why_size);
    }
    if (rc != 0) {
        rd_kafka_conf_destroy(conf);
        return rc;
    }
    *ret = conf;
    return 0;
}

/* Until 2.6.1 librdkafka answers with a wrong nonce, which Kafka refuses since 4.0 as if it were a
 * wrong password. */
static void warn_of_scram(void)
{
    static atomic_bool warned;
    enum { FIRST_RIGHT = 0x020601ff };
    if (sl_kafka_security_scram() && rd_kafka_version() < FIRST_RIGHT &&
        !atomic_exchange(&warned, true)) {
        sl_log(SL_LOG_WARN, "brokers of Kafka 4 refuse SCRAM by librdkafka before 2.6.1",
               SL_STR("librdkafka", rd_kafka_version_str()),
               SL_STR("variable", "SLUICE_KAFKA_SASL_MECHANISM"));
        sl_kafka_scram_hint(rd_kafka_version_str());
    }
}

int sl_kafka_client_create(rd_kafka_type_t type, const struct sl_kafka_config *config,
                           const char *const *properties, int events, struct sl_kafka_client **ret,
                           char *why, size_t why_size)
{
    struct sl_kafka_client *client = calloc(1, sizeof(*client));
    if (client == NULL) {
        sl_kafka_why(why, why_size, "%s", sl_error_text(-SL_ENOMEM));
        return -SL_ENOMEM;
    }
    rd_kafka_conf_t *conf = NULL;
    int rc = make_conf(config, properties, &conf, why, why_size);
    if (rc != 0) {
        goto free_client;
    }
    warn_of_scram();
    client->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (client->wake_fd < 0) {
        sl_kafka_why(why, why_size, "eventfd: %s", strerror(errno));
        rc = -SL_EIO;
        goto destroy_conf;
    }
    rd_kafka_conf_set_opaque(conf, client);
    rd_kafka_conf_set_log_cb(conf, on_log);
    rd_kafka_conf_set_events(conf, events);
    char text[256] = "";
    client->rk = rd_kafka_new(type, conf, text, sizeof(text)); /* Takes conf over, if it works. */
    if (client->rk == NULL) { /* A file that holds no certificate, for one. */
        sl_kafka_why(why, why_size, "%s (%s)", text, sl_kafka_variable(text));
        rc = -SL_EINVAL;
        goto close_fd;
    }
    *ret = client;
    return 0;

close_fd:
    close(client->wake_fd);
destroy_conf:
    rd_kafka_conf_destroy(conf);
free_client:
    free(client);
    return rc;
}

int sl_kafka_client_watch(struct sl_kafka_client *client, struct sl_loop *loop, sl_poll_cb *on_wake,
                          void *ctx)
{
    assert(client->poll == NULL);
    int rc = sl_poll_create(loop, client->wake_fd, on_wake, ctx, &client->poll);
    return rc == 0 ? sl_poll_set(client->poll, SL_READABLE) : rc;
}

void sl_kafka_wake_by(struct sl_kafka_client *client, rd_kafka_queue_t *queue)
{
    static const uint64_t one = 1;
    rd_kafka_queue_io_event_enable(queue, client->wake_fd, &one, sizeof(one));
}

void sl_kafka_wake_clear(struct sl_kafka_client *client)
{
    uint64_t count;
    while (read(client->wake_fd, &count, sizeof(count)) < 0 && errno == EINTR) {
    }
}

struct destruction {
    struct sl_kafka_client *client;
    int flags;
};

static void *destroy(void *arg)
{
    struct destruction *destruction = arg;
    struct sl_kafka_client *client = destruction->client;
    rd_kafka_destroy_flags(client->rk, destruction->flags);
    close(client->wake_fd); /* Only now does no thread write to it any more. */
    free(client);
    free(destruction);
    return NULL;
}

void sl_kafka_client_destroy(struct sl_kafka_client *client, int flags)
{
    if (client == NULL) {
        return;
    }
    sl_poll_destroy(client->poll);
    client->poll = NULL;
    atomic_store(&client->closing, true);
    struct destruction *destruction = malloc(sizeof(*destruction));
    pthread_t thread;
    if (destruction != NULL) {
        *destruction = (struct destruction){client, flags};
    }
    if (destruction == NULL || pthread_create(&thread, NULL, destroy, destruction) != 0) {
        sl_log(SL_LOG_ERROR, "no thread to close a kafka client with; it is left open");
        free(destruction);
        return;
    }
    int64_t until_ms = sl_clock_unix_ms() + DESTROY_LIMIT_MS;
    struct timespec until = {.tv_sec = (time_t)(until_ms / 1000),
                             .tv_nsec = (long)(until_ms % 1000) * 1000000};
    if (pthread_timedjoin_np(thread, NULL, &until) != 0) {
        sl_log(SL_LOG_ERROR, "a kafka client does not close; it is left behind");
        pthread_detach(thread);
    }
}

/* --- records --- */

void sl_kafka_view_init(struct sl_kafka_view *view, const rd_kafka_message_t *message)
{
    rd_kafka_timestamp_type_t timestamp_type;
    struct sl_record *record = &view->record;
    *record = (struct sl_record){
        .topic = rd_kafka_topic_name(message->rkt),
        .partition = message->partition,
        .offset = message->offset,
        .timestamp_ms = rd_kafka_message_timestamp(message, &timestamp_type),
        .key = {message->key, message->key_len},
        .value = {message->payload, message->len},
        .headers = view->headers,
    };
    rd_kafka_headers_t *headers = NULL;
    if (rd_kafka_message_headers(message, &headers) != RD_KAFKA_RESP_ERR_NO_ERROR) {
        return;
    }
    const char *name;
    const void *value;
    size_t size;
    while (record->header_count < SL_KAFKA_HEADERS_MAX &&
           rd_kafka_header_get_all(headers, record->header_count, &name, &value, &size) ==
               RD_KAFKA_RESP_ERR_NO_ERROR) {
        view->headers[record->header_count++] =
            (struct sl_kafka_header){sl_span_of(name), {value, size}};
    }
}

struct sl_span sl_record_header(const struct sl_record *record, const char *name)
{
    for (size_t i = record->header_count; i > 0; i--) {
        if (sl_span_is(record->headers[i - 1].name, name)) {
            return record->headers[i - 1].value;
        }
    }
    return (struct sl_span){NULL, 0};
}
