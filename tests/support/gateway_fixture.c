/*
 * The gateway is a child with its standard error on a pipe, which the test's loop reads: there it
 * says its ports, and that it is ready. It dies with the test.
 */
#include "tests/support/gateway_fixture.h"

#include "common/bundle.h"
#include "common/ending.h"
#include "common/redis.h"
#include "tests/support/kafka_fixture.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

enum { REPLY_PARTITIONS = 3, TOPICS_MS = 30000, ENVIRONMENT_MAX = 32, EVENT_MAX = 1 << 20 };

struct gateway_fixture gateway;

static char prefix[64];
enum { TOPICS = 4 };
static char topics[TOPICS][80]; /* queries, replies, results, documents */
static pid_t child;
static int log_fd;
static struct sl_poll *log_poll;
static struct sl_producer *producer;
static struct sl_reader *queries, *results;
static struct sl_redis *redis;
static unsigned started;
static char redis_run[64]; /* Its run id, once it is up. */

/* --- the pipeline --- */

static void on_error(void *ctx, bool fatal, const char *why)
{
    (void)ctx;
    fprintf(stderr, "reader: %s\n", why);
    CHECK(!fatal);
}

static void on_fatal(void *ctx, const char *why)
{
    (void)ctx;
    fprintf(stderr, "producer: %s\n", why);
    abort();
}

static void on_started(void *ctx, int64_t offset)
{
    (void)ctx;
    (void)offset;
    started++;
}

/* Jobs are read as any worker reads them. */
static void on_query(void *ctx, const struct sl_record *record)
{
    struct asked *asked = calloc(1, sizeof(*asked));
    struct sl_fault fault;
    const char *const allowed[] = {topics[1], NULL};
    (void)ctx;
    CHECK(asked != NULL);
    sl_arena_init(&asked->arena, 8 << 20);
    int rv =
        sl_query_decode(record->value, sl_route_json(record), &asked->arena, &asked->query, &fault);
    rv = rv != 0 ? rv : sl_route_read(record, allowed, &asked->arena, &asked->query, &fault);
    if (rv != 0) {
        fprintf(stderr, "not a job: %s (%s)\n", fault.message, fault.param);
    }
    CHECK_INT(rv, 0);
    snprintf(asked->id, sizeof(asked->id), SL_SPAN_FMT, SL_SPAN_ARG(asked->query.id));
    asked->next = gateway.asked;
    gateway.asked = asked;
    gateway.asked_count++;
}

static void on_result(void *ctx, const struct sl_record *record)
{
    (void)ctx;
    (void)record;
    gateway.results++;
}

static struct sl_buf bundle;
static bool bundling;

static void send_record(const struct asked *asked, struct sl_outgoing *record)
{
    char topic[80];
    snprintf(topic, sizeof(topic), SL_SPAN_FMT, SL_SPAN_ARG(asked->query.reply_topic));
    record->topic = topic;
    record->partition = asked->query.reply_partition;
    CHECK_INT(sl_producer_send(producer, record, NULL, NULL), 0);
}

void emit_bundle_begin(void)
{
    CHECK(!bundling);
    sl_buf_init(&bundle, EVENT_MAX);
    bundling = true;
}

void emit_bundle_end(const struct asked *asked, struct sl_span tail)
{
    const struct sl_kafka_header type = {SL_SPAN("content-type"), SL_SPAN(SL_BUNDLE_TYPE)};
    CHECK(bundling && asked->query.reply_bundles);
    sl_buf_append_span(&bundle, tail);
    CHECK_INT(sl_buf_error(&bundle), 0);
    struct sl_outgoing record = {
        .value = sl_buf_span(&bundle), .headers = &type, .header_count = 1};
    send_record(asked, &record);
    sl_buf_fini(&bundle);
    bundling = false;
}

static void emit(const struct asked *asked, struct sl_event *event)
{
    struct sl_buf bytes;
    struct sl_route route;
    const struct sl_query about = {.id = asked->query.id};
    sl_buf_init(&bytes, EVENT_MAX);
    event->id = asked->query.id;
    sl_event_encode(event, false, &bytes);
    CHECK_INT(sl_buf_error(&bytes), 0);
    sl_route_write(&route, &about, false);
    struct sl_outgoing record = {.key = asked->query.id,
                                 .value = sl_buf_span(&bytes),
                                 .headers = route.headers,
                                 .header_count = route.count};
    if (bundling) {
        sl_bundle_add(&bundle, asked->query.id, record.value);
    } else {
        send_record(asked, &record);
    }
    sl_buf_fini(&bytes);
}

void emit_sources(const struct asked *asked, uint64_t fence)
{
    struct sl_hit hit = {.doc_id = SL_SPAN("guide.md"),
                         .chunk_id = SL_SPAN("guide.md_3"),
                         .chunk_index = 3,
                         .text = SL_SPAN("a passage"),
                         .metadata = SL_SPAN("{\"lang\":\"en\"}"),
                         .score = 0.5};
    struct sl_query query = {.hits = &hit, .hits_len = 1};
    struct sl_event event = {.type = SL_EVENT_SOURCES, .fence = fence, .query = &query};
    emit(asked, &event);
}

void emit_delta(const struct asked *asked, uint32_t attempt, uint32_t seq, uint64_t fence,
                const char *text)
{
    struct sl_event event = {.type = SL_EVENT_DELTA,
                             .attempt = attempt,
                             .seq = seq,
                             .fence = fence,
                             .text = sl_span_of(text)};
    emit(asked, &event);
}

void emit_restart(const struct asked *asked, uint32_t attempt, uint32_t seq, uint64_t fence)
{
    struct sl_event event = {
        .type = SL_EVENT_RESTART, .attempt = attempt, .seq = seq, .fence = fence};
    emit(asked, &event);
}

static void emit_end(const struct asked *asked, struct sl_event *event, struct sl_result *result)
{
    struct sl_query query = asked->query;
    query.hits_len = 0;
    query.source_topic = sl_span_of(topics[0]);
    query.stages[SL_STAGE_embed] = (struct sl_stage_time){.reached = true, .work_ms = 1};
    event->query = &query;
    event->result = result;
    emit(asked, event);
}

void emit_done(const struct asked *asked, uint32_t attempt, uint32_t seq, uint64_t fence)
{
    struct sl_result result = {.outcome = SL_DONE,
                               .model = SL_SPAN("model-a"),
                               .finish_reason = SL_SPAN("stop"),
                               .usage = {.prompt_tokens = 11, .completion_tokens = 7},
                               .ttft_ms = 5,
                               .total_ms = 9};
    struct sl_event event = {.type = SL_EVENT_DONE, .attempt = attempt, .seq = seq, .fence = fence};
    emit_end(asked, &event, &result);
}

void emit_error(const struct asked *asked, uint32_t attempt, uint32_t seq, uint64_t fence,
                enum sl_query_error code, const char *message)
{
    struct sl_result result = {.outcome = code == SL_QERR_CANCELLED ? SL_CANCELLED
                                          : code == SL_QERR_TIMEOUT ? SL_EXPIRED
                                                                    : SL_FAILED,
                               .code = code,
                               .message = sl_span_of(message),
                               .stage = SL_SPAN("generate")};
    struct sl_event event = {
        .type = SL_EVENT_ERROR, .attempt = attempt, .seq = seq, .fence = fence};
    emit_end(asked, &event, &result);
}

/* --- the process --- */

static const char *log_text(void)
{
    sl_buf_append(&gateway.log, "", 1);
    gateway.log.len--;
    return gateway.log.data;
}

static void on_log(void *ctx, int events)
{
    char bytes[4096];
    ssize_t n = read(log_fd, bytes, sizeof(bytes));
    (void)ctx;
    (void)events;
    if (n > 0) {
        sl_buf_append(&gateway.log, bytes, (size_t)n);
        CHECK(write(STDERR_FILENO, bytes, (size_t)n) == n);
    } else if (n == 0) {
        CHECK_INT(sl_poll_set(log_poll, 0), 0);
    }
}

bool gateway_logged(const char *text)
{
    return strstr(log_text(), text) != NULL;
}

static int logged_port(const char *name)
{
    const char *at = strstr(log_text(), name);
    return at != NULL ? atoi(at + strlen(name)) : 0;
}

static void run_gateway(const char *const *environment, pid_t parent, int err)
{
    char program[1024], brokers[160], url[160], topic_prefix[96];
    const char *const own[] = {brokers,
                               url,
                               topic_prefix,
                               "SLUICE_LISTEN=127.0.0.1:0",
                               "SLUICE_ADMIN_LISTEN=127.0.0.1:0",
                               "SLUICE_CHAT_MODEL=model-a,model-b"};
    const char *all[ENVIRONMENT_MAX + sizeof(own) / sizeof(own[0]) + 1] = {NULL};
    size_t count = 0;
    ssize_t len = readlink("/proc/self/exe", program, sizeof(program) - 32);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (len < 0 || getppid() != parent || dup2(err, STDERR_FILENO) < 0) {
        _exit(1);
    }
    program[len] = '\0';
    char *slash = memrchr(program, '/', (size_t)len);
    strcpy(slash, "/../sluice-gateway");
    snprintf(brokers, sizeof(brokers), "SLUICE_KAFKA_BROKERS=%s", kafka_fixture_brokers());
    snprintf(url, sizeof(url), "SLUICE_REDIS_URL=%s", redis_fixture_url(gateway.redis));
    snprintf(topic_prefix, sizeof(topic_prefix), "SLUICE_TOPIC_PREFIX=%s", prefix);
    while (environment != NULL && *environment != NULL && count < ENVIRONMENT_MAX) {
        all[count++] = *environment++; /* Of a name that is there twice, the first counts. */
    }
    memcpy(all + count, own, sizeof(own));
    const char *const argv[] = {program, NULL};
    execve(program, (char *const *)argv, (char *const *)all);
    _exit(127);
}

static void start_process(const char *const *environment)
{
    int fds[2];
    pid_t parent = getpid();
    (void)kafka_fixture_brokers(); /* Not for the first time in the child. */
    CHECK(pipe2(fds, O_CLOEXEC) == 0);
    child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        run_gateway(environment, parent, fds[1]);
    }
    close(fds[1]);
    log_fd = fds[0];
    CHECK_INT(sl_poll_create(gateway.loop, log_fd, on_log, NULL, &log_poll), 0);
    CHECK_INT(sl_poll_set(log_poll, SL_READABLE), 0);
}

static void on_link(void *ctx, const char *run_id, const char *why)
{
    (void)ctx;
    (void)why;
    snprintf(redis_run, sizeof(redis_run), "%s", run_id != NULL ? run_id : "");
}

static void create_topics(void)
{
    static unsigned number;
    static const char *const plain[] = {NULL};
    static const char *const large[] = {"max.message.bytes", "25165824", NULL};
    static const char *const names[] = {"queries", "replies", "results", "documents"};
    struct sl_topic_spec specs[TOPICS];
    int errors[TOPICS];
    char why[256] = "";
    const struct sl_kafka_config config = {.brokers = kafka_fixture_brokers(), .client_id = "test"};
    snprintf(prefix, sizeof(prefix), "gateway-%d-%u", (int)getpid(), number++);
    for (size_t i = 0; i < TOPICS; i++) {
        snprintf(topics[i], sizeof(topics[i]), "%s.%s", prefix, names[i]);
        specs[i] = (struct sl_topic_spec){.name = topics[i],
                                          .partitions = i == 1 ? REPLY_PARTITIONS : 1,
                                          .replication = 1,
                                          .config = i == 3 ? large : plain};
    }
    if (sl_kafka_create_topics(&config, specs, TOPICS, TOPICS_MS, errors, why, sizeof(why)) != 0) {
        fprintf(stderr, "topics: %s\n", why);
        abort();
    }
}

static void start_pipeline(void)
{
    static const struct sl_reader_callbacks on_queries = {
        .on_record = on_query, .on_started = on_started, .on_error = on_error};
    static const struct sl_reader_callbacks on_results = {
        .on_record = on_result, .on_started = on_started, .on_error = on_error};
    const struct sl_kafka_config config = {.brokers = kafka_fixture_brokers(), .client_id = "test"};
    const struct sl_redis_config redis_config = {.url = redis_fixture_url(gateway.redis),
                                                 .on_link = on_link};
    char why[256];
    CHECK_INT(
        sl_producer_create(gateway.loop, &config, on_fatal, NULL, &producer, why, sizeof(why)), 0);
    sl_producer_warm(producer, topics[1]);
    CHECK_INT(sl_reader_create(gateway.loop, &config, topics[0], 0, SL_OFFSET_BEGINNING,
                               &on_queries, NULL, &queries, why, sizeof(why)),
              0);
    CHECK_INT(sl_reader_create(gateway.loop, &config, topics[2], 0, SL_OFFSET_BEGINNING,
                               &on_results, NULL, &results, why, sizeof(why)),
              0);
    CHECK_INT(sl_redis_create(gateway.loop, &redis_config, &redis, why, sizeof(why)), 0);
}

/* As if this Redis had been in use for long: it has lost nothing, so there is no quarantine. */
static void age_redis(void)
{
    char key[80];
    GATEWAY_WAIT(redis_run[0] != '\0');
    snprintf(key, sizeof(key), "%s:epoch", prefix);
    const struct sl_span argv[] = {SL_SPAN("HSET"), sl_span_of(key), SL_SPAN("since"),
                                   SL_SPAN("1"),    SL_SPAN("run"),  sl_span_of(redis_run)};
    CHECK_INT(sl_redis_command(redis, 6, argv, NULL, NULL), 0);
}

void gateway_start(const char *const *environment)
{
    gateway = (struct gateway_fixture){0};
    started = 0;
    redis_run[0] = '\0';
    sl_buf_init(&gateway.log, 64 << 20);
    create_topics();
    gateway.redis = redis_fixture_create(NULL);
    redis_fixture_start(gateway.redis);
    CHECK_INT(sl_loop_create(&gateway.loop), 0);
    start_pipeline();
    age_redis();
    start_process(environment);
    bool has_kafka = environment == NULL || *environment == NULL ||
                     strncmp(*environment, "SLUICE_KAFKA_BROKERS=", 21) != 0;
    GATEWAY_WAIT(started == 2 && gateway_logged(has_kafka ? "reading replies" : " port="));
    gateway.port = logged_port(" port=");
    gateway.admin_port = logged_port("admin_port=");
    CHECK(gateway.port > 0 && gateway.admin_port > 0);
}

void gateway_signal(int signum)
{
    CHECK(kill(child, signum) == 0);
}

static int exit_status;

bool gateway_ended(void)
{
    pid_t pid = child > 0 ? waitpid(child, &exit_status, WNOHANG) : 0;
    child = pid > 0 ? 0 : child;
    return child == 0;
}

void gateway_stop(int exit_code)
{
    if (!gateway_ended()) {
        gateway_signal(SIGTERM);
    }
    GATEWAY_WAIT(gateway_ended());
    on_log(NULL, SL_READABLE);
    CHECK(WIFEXITED(exit_status));
    CHECK_INT(WEXITSTATUS(exit_status), exit_code);
    sl_poll_destroy(log_poll);
    close(log_fd);
    sl_reader_destroy(queries);
    sl_reader_destroy(results);
    sl_producer_destroy(producer, 1000);
    sl_redis_destroy(redis);
    sl_loop_destroy(gateway.loop);
    redis_fixture_destroy(gateway.redis);
    while (gateway.asked != NULL) {
        struct asked *asked = gateway.asked;
        gateway.asked = asked->next;
        sl_arena_fini(&asked->arena);
        free(asked);
    }
    sl_buf_fini(&gateway.log);
}

void gateway_start_pair(struct peer *first, struct peer *second)
{
    gateway_start(NULL);
    peer_open(first, gateway.port);
    peer_open(second, gateway.port);
}

void gateway_stop_pair(struct peer *first, struct peer *second)
{
    peer_close(first);
    peer_close(second);
    gateway_stop(0);
}

void gateway_reconnect(struct peer *peer)
{
    peer_close(peer);
    peer_open(peer, gateway.port);
}

/* --- what tests call --- */

const char *gateway_results_topic(void)
{
    return topics[2];
}

const char *gateway_documents_topic(void)
{
    return topics[3];
}

const char *gateway_prefix(void)
{
    return prefix;
}

void gateway_post(struct peer *peer, const char *path, const char *headers, const char *body)
{
    struct sl_buf request;
    sl_buf_init(&request, 8 << 20);
    sl_buf_printf(&request,
                  "POST %s HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
                  "Content-Length: %zu\r\n%s\r\n",
                  path, strlen(body), headers);
    sl_buf_append_text(&request, body);
    peer_send(peer, sl_buf_span(&request));
    sl_buf_fini(&request);
}

struct asked *gateway_asked(size_t n)
{
    GATEWAY_WAIT(gateway.asked_count >= n);
    CHECK_INT(gateway.asked_count, n);
    return gateway.asked;
}

static char field_value[256];
static bool field_came;

static void on_field(void *ctx, int err, const struct redisReply *reply)
{
    struct sl_span value = sl_reply_span(reply);
    (void)ctx;
    CHECK_INT(err, 0);
    snprintf(field_value, sizeof(field_value), "%.*s", value.len < 200 ? (int)value.len : 200,
             value.len > 0 ? value.data : "");
    field_came = true;
}

const char *gateway_redis_get(const char *name, const char *field)
{
    char key[400];
    snprintf(key, sizeof(key), "%s:%s", prefix, name);
    const struct sl_span argv[] = {SL_SPAN("HGET"), sl_span_of(key), sl_span_of(field)};
    field_came = false;
    CHECK_INT(sl_redis_command(redis, 3, argv, on_field, NULL), 0);
    GATEWAY_WAIT(field_came);
    return field_value;
}

const char *gateway_redis_field(const char *id, const char *field)
{
    char name[200];
    snprintf(name, sizeof(name), "query:%s", id);
    return gateway_redis_get(name, field);
}

bool gateway_cancelled(const struct asked *asked)
{
    return gateway_redis_field(asked->id, ".cancelled")[0] != '\0';
}

void gateway_redis_put(const char *name, const char *field, const char *value)
{
    char key[400];
    snprintf(key, sizeof(key), "%s:%s", prefix, name);
    const struct sl_span argv[] = {value != NULL ? SL_SPAN("HSET") : SL_SPAN("HDEL"),
                                   sl_span_of(key), sl_span_of(field), sl_span_of(value)};
    field_came = false;
    CHECK_INT(sl_redis_command(redis, value != NULL ? 4 : 3, argv, on_field, NULL), 0);
    GATEWAY_WAIT(field_came);
}

void gateway_redis_set(const char *id, const char *field, const char *value)
{
    char name[200];
    snprintf(name, sizeof(name), "query:%s", id);
    gateway_redis_put(name, field, value);
}
