/*
 * The whole gateway, but for its sockets, Kafka and Redis, which are played here: one run with
 * callers of every kind, repeated with each allocation failing, each record not taken or not
 * delivered, each answer of Redis failing. Every caller gets a whole answer, an error or the end of
 * the connection, none waits for ever, and nothing is left when the gateway has ended.
 */
#include "common/attach.h"
#include "common/bundle.h"
#include "common/claim.h"
#include "common/clock.h"
#include "common/codec.h"
#include "common/ingest_account.h"
#include "common/log.h"
#include "common/process.h"
#include "common/redis.h"
#include "tests/support/alloc_fail.h"
#include "tests/support/fake_admin.h"
#include "tests/support/fake_follower.h"
#include "tests/support/fake_tcp.h"
#include "tests/support/test.h"
#include "workers/gateway/gateway.h"

#include <signal.h>

enum { PENDING_MAX = 64, OUT_MAX = 1 << 18, ROUNDS = 4000, STEP_MS = 50 };

/* In the place of common/log.c. */
void sl_log_write(enum sl_log_level level, const char *message, ...)
{
    (void)level;
    (void)message;
}

bool sl_log_wants(enum sl_log_level level)
{
    (void)level;
    return false;
}

/* --- what goes wrong --- */

#define KINDS(X)                                                                                   \
    X(ALLOCATION, "allocations", 1)                                                                \
    X(SEND, "records that Kafka does not take", 3)                                                 \
    X(REPORT, "records that are not delivered", 3)                                                 \
    X(ASKED, "questions to Redis that are not taken", 2)                                           \
    X(ANSWER, "answers of Redis", 2)
enum kind {
#define X(kind, name, ways) FAIL_##kind,
    KINDS(X)
#undef X
        KIND_COUNT
};
static const struct {
    const char *name;
    int ways;
} kinds[] = {
#define X(kind, name, ways) {name, ways},
    KINDS(X)
#undef X
};

static enum kind failing;
static int way;
static long failing_k, met[KIND_COUNT];
static bool struck;
static unsigned runs_read; /* The run that is watched moves with each reading. */

static int strike(enum kind kind)
{
    if (++met[kind] != failing_k || kind != failing) {
        return 0;
    }
    struck = true;
    return way;
}

/* --- things that wait for the driver --- */

static struct gateway *gateway;
static uint64_t now_us;

static struct pending {
    enum { REPORT, NOTED, LOOKED, KEY, REDIS, RUN, DOCUMENTS, DONE } type;
    void *ctx;
    sl_delivery_cb *on_report;
    void (*on_noted)(void *ctx, int err);
    sl_query_state_cb *on_looked;
    void (*on_key)(void *ctx, int err, enum sl_idempotent answer);
    sl_redis_cb *on_redis;
    sl_ingest_run_cb *on_run;
    sl_ingest_documents_cb *on_documents;
    char query[65];  /* A job's id. */
    bool is_account; /* NOTED by the account of ingestion, which tells of its end too. */
} pendings[PENDING_MAX];
static size_t pending_count;

static void add(const struct pending *pending)
{
    CHECK(pending_count < PENDING_MAX);
    pendings[pending_count++] = *pending;
}

/* --- the process --- */

static void (*on_drain)(void *ctx);

int sl_signals_create(struct sl_loop *loop, long long drain_ms, void (*drain)(void *ctx),
                      void (*on_stop)(void *ctx), void *ctx, struct sl_signals **ret)
{
    (void)loop, (void)drain_ms, (void)on_stop;
    on_drain = drain;
    gateway = ctx;
    *ret = NULL;
    return 0;
}

void sl_signals_destroy(struct sl_signals *signals)
{
    (void)signals;
}

/* Linked in place of the loop's: the pool's work is done at once, its end told later. */
static struct work {
    struct sl_task task;
    void (*done)(void *ctx);
    void *ctx;
} work;

static void on_work_done(struct sl_task *task)
{
    (void)task;
    work.done(work.ctx);
}

int __wrap_sl_work_submit(struct sl_loop *loop, void (*run)(void *ctx), void (*done)(void *ctx),
                          void *ctx);
int __wrap_sl_work_submit(struct sl_loop *loop, void (*run)(void *ctx), void (*done)(void *ctx),
                          void *ctx)
{
    run(ctx);
    work.done = done;
    work.ctx = ctx;
    sl_task_defer(loop, &work.task, on_work_done);
    return 0;
}

/* --- Kafka --- */

static const struct sl_reader_callbacks *reader;
static void *reader_ctx;
static bool reader_started;
static int64_t next_offset;

int sl_kafka_partition_count(const struct sl_kafka_config *config, const char *topic,
                             int timeout_ms)
{
    (void)config, (void)topic, (void)timeout_ms;
    return 3;
}

int sl_producer_create(struct sl_loop *loop, const struct sl_kafka_config *config,
                       void (*on_fatal)(void *ctx, const char *why), void *ctx,
                       struct sl_producer **ret, char *why, size_t why_size)
{
    static char producer;
    (void)loop, (void)config, (void)on_fatal, (void)ctx, (void)why, (void)why_size;
    *ret = (struct sl_producer *)(void *)&producer;
    return 0;
}

void sl_producer_warm(struct sl_producer *producer, const char *topic)
{
    (void)producer, (void)topic;
}

int sl_producer_send(struct sl_producer *producer, const struct sl_outgoing *outgoing,
                     sl_delivery_cb *cb, void *ctx)
{
    static const int errs[] = {0, -SL_EAGAIN, -SL_ENOMEM, -SL_ETOOBIG};
    struct pending pending = {.type = REPORT, .ctx = ctx, .on_report = cb};
    (void)producer;
    int err = errs[strike(FAIL_SEND)];
    if (err != 0) {
        return err;
    }
    if (strcmp(outgoing->topic, "sluice.queries") == 0) {
        CHECK(outgoing->key.len < sizeof(pending.query));
        memcpy(pending.query, outgoing->key.data, outgoing->key.len);
    }
    add(&pending);
    return 0;
}

size_t sl_producer_queued(const struct sl_producer *producer)
{
    size_t queued = 0;
    (void)producer;
    for (size_t i = 0; i < pending_count; i++) {
        queued += pendings[i].type == REPORT;
    }
    return queued;
}

void sl_producer_destroy(struct sl_producer *producer, uint32_t flush_ms)
{
    (void)producer, (void)flush_ms;
    for (size_t i = 0; i < pending_count; i++) {
        if (pendings[i].type == REPORT && pendings[i].on_report != NULL) {
            pendings[i].on_report(pendings[i].ctx, -SL_ETIMEDOUT, -1, -1);
        }
        pendings[i].type = pendings[i].type == REPORT ? DONE : pendings[i].type;
    }
}

int sl_reader_create(struct sl_loop *loop, const struct sl_kafka_config *config, const char *topic,
                     int32_t partition, int64_t offset, const struct sl_reader_callbacks *callbacks,
                     void *ctx, struct sl_reader **ret, char *why, size_t why_size)
{
    (void)loop, (void)config, (void)topic, (void)partition, (void)offset, (void)why, (void)why_size;
    reader = callbacks;
    reader_ctx = ctx;
    reader_started = false;
    *ret = NULL;
    return 0;
}

void sl_reader_destroy(struct sl_reader *old)
{
    (void)old;
    reader = NULL;
}

/* --- Redis --- */

static struct sl_coord_config coord_config;
static struct sl_redis_config redis_config;
static bool linked;
static int asked_errs[] = {0, -SL_ENOMEM, -SL_EAGAIN};

int sl_coord_create(struct sl_loop *loop, const struct sl_coord_config *config,
                    struct sl_coord **ret, char *why, size_t why_size)
{
    static char coord;
    (void)loop, (void)why, (void)why_size;
    coord_config = *config;
    *ret = (struct sl_coord *)(void *)&coord;
    return 0;
}

/* What was asked is answered inside. */
void sl_coord_destroy(struct sl_coord *coord)
{
    if (coord == NULL) {
        return;
    }
    for (size_t i = 0; i < pending_count; i++) {
        struct pending pending = pendings[i];
        if (pending.type == LOOKED) {
            pending.on_looked(pending.ctx, -SL_ECONN, NULL);
        } else if (pending.type == KEY) {
            pending.on_key(pending.ctx, -SL_ECONN, SL_IDEMPOTENT_WAIT);
        } else if (pending.type == NOTED && pending.is_account) {
            pending.on_noted(pending.ctx, -SL_ECLOSED);
        } else if (pending.type == RUN) {
            pending.on_run(pending.ctx, -SL_ECLOSED, NULL);
        } else if (pending.type == DOCUMENTS) {
            pending.on_documents(pending.ctx, -SL_ECLOSED, NULL, 0, false);
        }
    }
    pending_count = 0;
}

bool sl_coord_idle(const struct sl_coord *coord)
{
    (void)coord;
    return pending_count == 0;
}

const char *sl_coord_owner(const struct sl_coord *coord)
{
    (void)coord;
    return "me";
}

int64_t sl_coord_now_ms(const struct sl_coord *coord)
{
    (void)coord;
    return sl_clock_unix_ms();
}

int sl_coord_cancel(struct sl_coord *coord, struct sl_span id, void (*cb)(void *ctx, int err),
                    void *ctx)
{
    (void)coord, (void)id;
    int err = asked_errs[strike(FAIL_ASKED)];
    if (err == 0 && cb != NULL) {
        add(&(struct pending){.type = NOTED, .ctx = ctx, .on_noted = cb});
    }
    return err;
}

int sl_claim_end(struct sl_coord *coord, struct sl_span id, const char *stage, uint64_t fence,
                 const char *outcome, struct sl_span ending, void (*cb)(void *ctx, int err),
                 void *ctx)
{
    (void)coord, (void)id, (void)stage, (void)fence, (void)outcome, (void)ending;
    int err = asked_errs[strike(FAIL_ASKED)];
    if (err == 0) {
        add(&(struct pending){.type = NOTED, .ctx = ctx, .on_noted = cb});
    }
    return err;
}

void sl_claim_ended(struct sl_coord *coord, struct sl_span id, int32_t partition, int64_t offset)
{
    (void)coord, (void)id, (void)partition, (void)offset;
}

void sl_attach(struct sl_coord *coord, struct sl_attachment *attachment)
{
    (void)coord;
    sl_list_init(&attachment->node);
}

void sl_detach(struct sl_coord *coord, struct sl_attachment *attachment)
{
    (void)coord, (void)attachment;
}

void sl_detach_leave(struct sl_coord *coord, struct sl_attachment *attachment)
{
    (void)coord, (void)attachment;
}

int sl_query_look(struct sl_coord *coord, struct sl_span id, sl_query_state_cb *cb, void *ctx)
{
    (void)coord, (void)id;
    int err = asked_errs[strike(FAIL_ASKED)];
    if (err == 0) {
        add(&(struct pending){.type = LOOKED, .ctx = ctx, .on_looked = cb});
    }
    return err;
}

int sl_idempotent_open(struct sl_coord *coord, struct sl_idempotency *idempotency,
                       void (*cb)(void *ctx, int err, enum sl_idempotent answer), void *ctx)
{
    (void)coord, (void)idempotency;
    int err = asked_errs[strike(FAIL_ASKED)];
    if (err == 0) {
        add(&(struct pending){.type = KEY, .ctx = ctx, .on_key = cb});
    }
    return err;
}

void sl_idempotent_settle(struct sl_coord *coord, const struct sl_idempotency *idempotency,
                          bool produced)
{
    (void)coord, (void)idempotency, (void)produced;
}

/* --- the account of ingestion --- */

struct sl_redis *sl_coord_redis(const struct sl_coord *coord)
{
    (void)coord;
    return NULL;
}

static int note(sl_ingest_done_cb *cb, void *ctx)
{
    int err = asked_errs[strike(FAIL_ASKED)];
    if (err == 0) {
        add(&(struct pending){.type = NOTED, .ctx = ctx, .on_noted = cb, .is_account = true});
    }
    return err;
}

int sl_ingest_begin(const struct sl_ingest_env *env, struct sl_span ingest_id,
                    struct sl_span collection, struct sl_span source, sl_ingest_done_cb *cb,
                    void *ctx)
{
    (void)env, (void)ingest_id, (void)collection, (void)source;
    return note(cb, ctx);
}

int sl_ingest_close(const struct sl_ingest_env *env, struct sl_span ingest_id, uint64_t documents,
                    sl_ingest_done_cb *cb, void *ctx)
{
    (void)env, (void)ingest_id, (void)documents;
    return note(cb, ctx);
}

int sl_ingest_refuse(const struct sl_ingest_env *env, struct sl_span ingest_id,
                     struct sl_span doc_id, struct sl_span reason, sl_ingest_done_cb *cb, void *ctx)
{
    (void)env, (void)ingest_id, (void)doc_id, (void)reason;
    return note(cb, ctx);
}

int sl_ingest_read(const struct sl_ingest_env *env, struct sl_span ingest_id, size_t known,
                   sl_ingest_run_cb *cb, void *ctx)
{
    (void)env, (void)ingest_id, (void)known;
    int err = asked_errs[strike(FAIL_ASKED)];
    if (err == 0) {
        add(&(struct pending){.type = RUN, .ctx = ctx, .on_run = cb});
    }
    return err;
}

int sl_ingest_runs(const struct sl_ingest_env *env, size_t max, sl_ingest_runs_cb *cb, void *ctx)
{
    (void)env, (void)max, (void)cb, (void)ctx;
    return -SL_EAGAIN;
}

int sl_ingest_documents(const struct sl_ingest_env *env, struct sl_span collection,
                        struct sl_span after, size_t max, sl_ingest_documents_cb *cb, void *ctx)
{
    (void)env, (void)collection, (void)after, (void)max;
    int err = asked_errs[strike(FAIL_ASKED)];
    if (err == 0) {
        add(&(struct pending){.type = DOCUMENTS, .ctx = ctx, .on_documents = cb});
    }
    return err;
}

void sl_ingest_run_json(const struct sl_ingest_run *run, struct sl_buf *out)
{
    sl_buf_printf(out, "{\"processed\":%d}", (int)run->processed);
}

static void give_run(const struct pending *pending, int err)
{
    static const struct sl_ingest_failure failure = {{"a.md", 4}, {"empty", 5}};
    struct sl_ingest_run run = {.processed = runs_read, .failures = &failure};
    run.failure_count = runs_read == 1;
    run.ended = runs_read >= 2;
    runs_read += err == 0;
    pending->on_run(pending->ctx, err, err == 0 ? &run : NULL);
}

int sl_redis_create(struct sl_loop *loop, const struct sl_redis_config *config,
                    struct sl_redis **ret, char *why, size_t why_size)
{
    (void)loop, (void)why, (void)why_size;
    redis_config = *config;
    linked = false;
    *ret = NULL;
    return 0;
}

void sl_redis_destroy(struct sl_redis *redis)
{
    (void)redis;
}

bool sl_redis_up(const struct sl_redis *redis)
{
    (void)redis;
    return linked;
}

int sl_redis_command(struct sl_redis *redis, size_t argc, const struct sl_span *argv,
                     sl_redis_cb *cb, void *ctx)
{
    (void)redis, (void)argc, (void)argv;
    if (cb != NULL) {
        add(&(struct pending){.type = REDIS, .ctx = ctx, .on_redis = cb});
    }
    return 0;
}

/* --- the pipeline --- */

/* In place of an event: a bundle of it, with another query's before it and half a one behind. */
static void make_bundle(const char *id, struct sl_buf *bytes)
{
    struct sl_buf event = *bytes;
    sl_buf_init(bytes, 1 << 16);
    sl_bundle_add(bytes, SL_SPAN("of-another"), sl_buf_span(&event));
    sl_bundle_add(bytes, sl_span_of(id), sl_buf_span(&event));
    sl_buf_append_text(bytes, "\xd9");
    sl_buf_fini(&event);
}

static void give(const char *id, struct sl_event *event)
{
    struct sl_buf bytes;
    struct sl_kafka_header header = {SL_SPAN("sluice-id"), sl_span_of(id)};
    long paused = sl_test_pause_alloc();
    sl_buf_init(&bytes, 1 << 16);
    event->id = sl_span_of(id);
    sl_event_encode(event, false, &bytes);
    if (event->type == SL_EVENT_DELTA) {
        make_bundle(id, &bytes);
        header = (struct sl_kafka_header){SL_SPAN("content-type"), SL_SPAN(SL_BUNDLE_TYPE)};
    }
    CHECK(sl_buf_error(&bytes) == 0);
    sl_test_resume_alloc(paused);
    const struct sl_record record = {.topic = "sluice.replies",
                                     .offset = next_offset++,
                                     .timestamp_ms = sl_clock_unix_ms(),
                                     .key = sl_span_of(id),
                                     .value = sl_buf_span(&bytes),
                                     .headers = &header,
                                     .header_count = 1};
    if (reader != NULL) {
        reader->on_record(reader_ctx, &record);
    }
    sl_buf_fini(&bytes);
}

/* As the stages do for a query that was produced. */
static void answer_query(const char *id)
{
    struct sl_hit hit = {
        .doc_id = SL_SPAN("guide.md"), .chunk_id = SL_SPAN("guide.md_3"), .text = SL_SPAN("text")};
    struct sl_query query = {.id = sl_span_of(id), .hits = &hit, .hits_len = 1};
    struct sl_result result = {.outcome = SL_DONE,
                               .answer = SL_SPAN("Because."),
                               .model = SL_SPAN("m"),
                               .finish_reason = SL_SPAN("stop")};
    give(id, &(struct sl_event){.type = SL_EVENT_SOURCES, .fence = 1, .query = &query});
    give(id, &(struct sl_event){
                 .type = SL_EVENT_DELTA, .attempt = 1, .fence = 2, .text = SL_SPAN("Because.")});
    give(id, &(struct sl_event){.type = SL_EVENT_DONE,
                                .attempt = 1,
                                .seq = 1,
                                .fence = 2,
                                .query = &query,
                                .result = &result});
}

static void report(const struct pending *pending)
{
    static const int errs[] = {0, -SL_ETIMEDOUT, -SL_ETOOBIG, -SL_ENOENT};
    int err = errs[strike(FAIL_REPORT)];
    if (pending->on_report != NULL) {
        pending->on_report(pending->ctx, err, 0, next_offset++);
    }
    if (err == 0 && pending->query[0] != '\0') {
        answer_query(pending->query);
    }
}

static bool answer_one(void)
{
    static const struct sl_query_state unknown = {.outcome = "", .stage = ""};
    static const struct sl_ingest_document stored = {.doc_id = {"a.md", 4}, .chunks = 3};
    if (pending_count == 0) {
        return false;
    }
    struct pending pending = pendings[0];
    memmove(pendings, pendings + 1, --pending_count * sizeof(pendings[0]));
    int how = pending.type == REPORT ? 0 : strike(FAIL_ANSWER);
    int err = how == 0 ? 0 : how == 1 ? -SL_ECONN : -SL_EEXIST;
    switch (pending.type) {
    case REPORT:
        report(&pending);
        break;
    case NOTED:
        pending.on_noted(pending.ctx, err);
        break;
    case LOOKED:
        pending.on_looked(pending.ctx, err, err == 0 ? &unknown : NULL);
        break;
    case KEY:
        pending.on_key(pending.ctx, how == 1 ? -SL_ECONN : 0,
                       how == 2 ? SL_IDEMPOTENT_CONFLICT : SL_IDEMPOTENT_NEW);
        break;
    case REDIS:
        pending.on_redis(pending.ctx, err, NULL);
        break;
    case RUN:
        give_run(&pending, how == 2 ? -SL_ENOENT : err);
        break;
    case DOCUMENTS:
        pending.on_documents(pending.ctx, err, &stored, err == 0 ? 1 : 0, false);
        break;
    case DONE:
        break;
    }
    return true;
}

/* --- callers --- */

#define POST(path, headers, body)                                                                  \
    "POST " path " HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n" headers, body
#define GET(method, path) method " " path " HTTP/1.1\r\nHost: x\r\n", ""
#define CHAT(more)                                                                                 \
    "{\"model\":\"sluice\",\"messages\":[{\"role\":\"user\",\"content\":\"why?\"}]" more "}"

static const struct {
    const char *head, *body;
    const char *gets; /* Where nothing goes wrong. */
    bool leaves;
} callers[] = {
    {POST("/v1/query", "Accept: text/event-stream\r\n", "{\"query\":\"why?\"}"), "event: done",
     false},
    {POST("/v1/query", "", "{\"query\":\"why?\"}"), "\"Because.\"", false},
    {POST("/v1/query", "Idempotency-Key: k\r\n", "{\"query\":\"why?\"}"), "\"Because.\"", false},
    {POST("/v1/search", "", "{\"query\":\"why?\"}"), "HTTP/1.1 200", false},
    {POST("/v1/chat/completions", "", CHAT("")), "\"Because.\"", false},
    {POST("/v1/chat/completions", "", CHAT(",\"stream\":true")), "data: [DONE]", false},
    {POST("/v1/query", "Accept: text/event-stream\r\n", "{\"query\":\"why?\"}"), "", true},
    {POST("/v1/query", "", "{\"query\":1}"), "HTTP/1.1 400", false},
    {GET("DELETE", "/v1/queries/abc"), "HTTP/1.1 202", false},
    {GET("GET", "/v1/queries/abc"), "HTTP/1.1 404", false},
    {GET("GET", "/v1/queries/abc/events"), "HTTP/1.1 404", false},
    {GET("GET", "/v1/models"), "HTTP/1.1 200", false},
    {POST("/v1/documents", "", "{\"doc_id\":\"a\",\"text\":\"t\"}"), "{\"ingest_id\":", false},
    {POST("/v1/documents", "",
          "{\"documents\":[{\"doc_id\":\"a\",\"text\":\"t\"},{\"doc_id\":\"b\",\"text\":\"u\"}]}"),
     "", true},
    {GET("DELETE", "/v1/documents/a/b.md"), "HTTP/1.1 202", false},
    {GET("GET", "/v1/documents/a.md?collection=c"), "\"chunks\":3", false},
    {GET("GET", "/v1/documents"), "\"last_id\":\"a.md\"", false},
    {GET("GET", "/v1/ingests/run-1"), "\"processed\":0", false},
    {"GET /v1/ingests/run-1 HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n", "",
     "event: done", false},
};
enum { CALLERS = sizeof(callers) / sizeof(callers[0]) };

static struct sl_tcp *peers[CALLERS];

static void call(size_t i)
{
    char request[1024];
    long paused = sl_test_pause_alloc();
    snprintf(request, sizeof(request), "%sContent-Length: %zu\r\n\r\n%s", callers[i].head,
             strlen(callers[i].body), callers[i].body);
    struct sl_tcp *tcp = calloc(1, sizeof(*tcp));
    CHECK(tcp != NULL);
    sl_buf_init(&tcp->out, OUT_MAX);
    CHECK(sl_buf_reserve(&tcp->out, OUT_MAX - 1) != NULL); /* Writing there needs no memory. */
    tcp->room = SIZE_MAX / 2;
    peers[i] = tcp;
    sl_test_resume_alloc(paused);
    fake_listener.on_accept(fake_listener.ctx, tcp);
    if (fake_open(tcp)) {
        tcp->callbacks->on_data(tcp->ctx, sl_span_of(request));
    }
    if (callers[i].leaves) {
        fake_hang_up(tcp);
    }
}

static void check_answer(size_t i)
{
    struct sl_span got = sl_buf_span(&peers[i]->out);
    bool whole = got.len > 12 && sl_span_begins(got, "HTTP/1.1 ");
    if (!struck && !sl_test_alloc_failed() && !callers[i].leaves) {
        CHECK(memmem(got.data, got.len, callers[i].gets, strlen(callers[i].gets)) != NULL);
    }
    CHECK(whole || !fake_open(peers[i]) || callers[i].leaves);
    fake_free(peers[i]);
    peers[i] = NULL;
}

/* --- the run --- */

static bool go_on(struct sl_loop *loop)
{
    sl_loop_turn(loop, 0);
    sl_loop_turn(loop, 0);
    bool happened = answer_one();
    if (!linked) {
        linked = happened = true;
        coord_config.on_ready(coord_config.ctx, true, "");
        redis_config.on_link(redis_config.ctx, "run", NULL);
    }
    if (reader != NULL && !reader_started) {
        reader_started = happened = true;
        reader->on_started(reader_ctx, next_offset);
    }
    now_us += happened ? 0 : STEP_MS * 1000;
    return happened;
}

static bool loop_stopped;

void __wrap_sl_loop_stop(struct sl_loop *loop);
void __wrap_sl_loop_stop(struct sl_loop *loop)
{
    (void)loop;
    loop_stopped = true;
}

/* Linked in place of sl_loop_run. */
void __wrap_sl_loop_run(struct sl_loop *loop);
void __wrap_sl_loop_run(struct sl_loop *loop)
{
    for (int i = 0; i < 200 && !(conditions[0].met && !go_on(loop)); i++) {
        go_on(loop);
    }
    for (size_t i = 0; i < CALLERS && !gateway->stopping; i++) {
        call(i);
        go_on(loop);
    }
    for (int round = 0;
         gateway->callers + gateway->in_flight + gateway->watchers > 0 || pending_count > 0;
         round++) {
        CHECK(round < ROUNDS && "a caller who waits for ever");
        go_on(loop);
    }
    if (!gateway->stopping) {
        on_drain(gateway);
    }
    for (int round = 0; !loop_stopped; round++) {
        CHECK(round < ROUNDS && "a gateway that does not end");
        go_on(loop);
    }
}

static void run_once(enum kind kind, int how, long k)
{
    static struct gateway_options options = {.listen = "fake",
                                             .models = "m",
                                             .max_inflight = 100,
                                             .max_connections = 100,
                                             .history_bytes = 1000};
    const struct sl_process_options process = {.brokers = "",
                                               .topic_prefix = "sluice",
                                               .redis_url = "",
                                               .admin_listen = "",
                                               .result_ttl_ms = 86400000,
                                               .orphan_grace_ms = 60000,
                                               .drain_ms = 10000};
    failing = kind;
    way = how;
    failing_k = k;
    memset(met, 0, sizeof(met));
    struck = loop_stopped = false;
    pending_count = 0;
    next_offset = 0;
    runs_read = 0;
    work = (struct work){.done = NULL};
    now_us = 1000000;
    sl_clock_use(&now_us);
    sl_test_fail_alloc(kind == FAIL_ALLOCATION ? k : 0);
    (void)gateway_run(&options, &process);
    struck = sl_test_alloc_failed() || struck;
    for (size_t i = 0; i < CALLERS; i++) {
        if (peers[i] != NULL) {
            check_answer(i);
        }
    }
    sl_clock_use(NULL);
}

static void on_failure(int signum)
{
    fprintf(stderr, "when the %ld. of the %s went wrong in way %d\n", failing_k,
            failing < KIND_COUNT ? kinds[failing].name : "(none)", way);
    signal(signum, SIG_DFL);
    raise(signum);
}

int main(void)
{
    long total = 0;
    signal(SIGABRT, on_failure);
    run_once(KIND_COUNT, 0, 0);
    for (int kind = 0; kind < KIND_COUNT; kind++) {
        long runs = 0, most = 0;
        for (int how = 1; how <= kinds[kind].ways; how++) {
            long k = 0;
            do {
                run_once((enum kind)kind, how, ++k);
            } while (struck);
            runs += k - 1;
            most = k - 1 > most ? k - 1 : most;
        }
        printf("%-38s %5ld, %d ways: %5ld runs\n", kinds[kind].name, most, kinds[kind].ways, runs);
        total += runs;
    }
    printf("gateway: %ld failed one by one\n", total);
    return total > 0 ? 0 : 1;
}
