/*
 * The ingest stage, documents and batches with vectors, with everything around it failing in turn.
 * Its stores and its account in Redis are played here, in the place of store.c and redis.c: a call
 * waits until the driver answers it.
 */
#include "common/redis_reply.h"
#include "common/store.h"
#include "tests/support/alloc_fail.h"
#include "tests/support/test.h"
#include "tests/support/torture/torture.h"
#include "workers/ingest/ingest.h"

#include <stdlib.h>

enum { DOCUMENTS, VECTORS, CALLS_MAX = 8 };

/* --- Redis --- */

static struct question {
    sl_redis_cb *cb;
    void *ctx;
    char state[16];
} questions[CALLS_MAX];
static size_t question_count;

struct sl_redis *sl_coord_redis(const struct sl_coord *coord)
{
    (void)coord;
    return NULL;
}

const char *sl_coord_prefix(const struct sl_coord *coord)
{
    (void)coord;
    return "sluice";
}

uint64_t sl_coord_result_ttl_ms(const struct sl_coord *coord)
{
    (void)coord;
    return 60000;
}

int sl_redis_eval(struct sl_redis *redis, struct sl_redis_script *script, size_t key_count,
                  size_t argc, const struct sl_span *argv, sl_redis_cb *cb, void *ctx)
{
    (void)redis;
    (void)script;
    (void)key_count;
    if (torture_strike(TORTURE_OTHER) != 0) {
        return -SL_EAGAIN;
    }
    CHECK(question_count < CALLS_MAX && argc > 6);
    bool batch = sl_span_is(argv[6], "batch") || sl_span_is(argv[6], "remove");
    struct question *question = &questions[question_count++];
    *question = (struct question){.cb = cb, .ctx = ctx};
    snprintf(question->state, sizeof(question->state), "%s", batch ? "complete" : "open");
    return 0;
}

static void reply(const struct question *question, const char *text)
{
    const char *why;
    struct redisReply *reply = NULL;
    long paused = sl_test_pause_alloc();
    struct redisReader *reader = sl_redis_reader_create();
    CHECK(reader != NULL && sl_redis_reader_feed(reader, sl_span_of(text)));
    CHECK(sl_redis_reader_next(reader, &reply, &why) == 1);
    sl_test_resume_alloc(paused);
    question->cb(question->ctx, 0, reply);
    sl_redis_reply_destroy(reply);
    sl_redis_reader_destroy(reader);
}

static void reply_state(const struct question *question, const char *state, int accepted)
{
    char text[80];
    snprintf(text, sizeof(text), "*4\r\n$%zu\r\n%s\r\n:7\r\n:%d\r\n$0\r\n\r\n", strlen(state),
             state, accepted);
    reply(question, text);
}

static bool answer_question(void)
{
    if (question_count == 0) {
        return false;
    }
    struct question question = questions[0];
    memmove(questions, questions + 1, --question_count * sizeof(questions[0]));
    switch (torture_strike(TORTURE_OTHER)) {
    case 0:
        reply_state(&question, question.state, 7);
        break;
    case 1:
        question.cb(question.ctx, -SL_ECONN, NULL);
        break;
    case 2:
        reply(&question, "*1\r\n:3\r\n");
        break;
    case 3:
        reply_state(&question, "failed", 0);
        break;
    default:
        reply_state(&question, "old", 9);
    }
    return true;
}

/* --- stores --- */

struct write {
    struct sl_store_call base;
    sl_store_done_cb *cb;
    void *ctx;
};

static struct sl_store stores[2];
static struct write *writes[CALLS_MAX];
static size_t write_count;

int sl_store_open(const char *url, const struct sl_store_env *env, struct sl_store **ret, char *why,
                  size_t why_size)
{
    (void)why;
    (void)why_size;
    *ret = &stores[strcmp(env->limit_name, "VECTOR") == 0];
    return url != NULL && torture_strike(TORTURE_OTHER) == 0 ? 0 : -SL_EIO;
}

void sl_store_close(struct sl_store *store)
{
    (void)store;
    CHECK(write_count == 0);
}

bool sl_store_writable(const struct sl_store *store)
{
    return store != NULL;
}

static int start_write(struct sl_store *store, sl_store_done_cb *cb, void *ctx,
                       struct sl_store_call **ret)
{
    if (torture_strike(TORTURE_OTHER) != 0) {
        return -SL_EAGAIN;
    }
    long paused = sl_test_pause_alloc();
    struct write *write = calloc(1, sizeof(*write));
    sl_test_resume_alloc(paused);
    CHECK(write != NULL && write_count < CALLS_MAX);
    *write = (struct write){{store}, cb, ctx};
    writes[write_count++] = write;
    *ret = &write->base;
    return 0;
}

int sl_store_upsert(struct sl_store *store, const struct sl_batch *batch, int64_t deadline_ms,
                    sl_store_done_cb *cb, void *ctx, struct sl_store_call **ret)
{
    CHECK(batch->len > 0 && deadline_ms > fx_now());
    return start_write(store, cb, ctx, ret);
}

int sl_store_delete_below(struct sl_store *store, const struct sl_batch *document, int64_t version,
                          int64_t deadline_ms, sl_store_done_cb *cb, void *ctx,
                          struct sl_store_call **ret)
{
    CHECK(document->doc_id.len > 0 && version > 0 && deadline_ms > fx_now());
    return start_write(store, cb, ctx, ret);
}

int sl_store_delete_version(struct sl_store *store, const struct sl_batch *document,
                            int64_t version, int64_t deadline_ms, sl_store_done_cb *cb, void *ctx,
                            struct sl_store_call **ret)
{
    CHECK(document->doc_id.len > 0 && version > 0 && deadline_ms > fx_now());
    return start_write(store, cb, ctx, ret);
}

static struct write take_write(const struct write *write)
{
    struct write copy = *write;
    size_t at = 0;
    while (writes[at] != write) {
        CHECK(++at < write_count);
    }
    free(writes[at]);
    memmove(writes + at, writes + at + 1, (--write_count - at) * sizeof(struct write *));
    return copy;
}

void sl_store_cancel(struct sl_store_call *call)
{
    (void)take_write((struct write *)call);
}

static bool answer_write(void)
{
    static const int errs[] = {0, -SL_ETIMEDOUT, -SL_EINVAL, -SL_ENOMEM, -SL_EIO};
    if (write_count == 0) {
        return false;
    }
    int err = errs[torture_strike(TORTURE_OTHER)];
    struct write write = take_write(writes[0]);
    write.cb(write.ctx, err, err != 0 ? "the store failed" : "");
    return true;
}

static bool drive(void)
{
    return answer_question() || answer_write();
}

/* As the client does when it goes. */
static void end(void)
{
    for (size_t i = 0; i < question_count; i++) {
        questions[i].cb(questions[i].ctx, -SL_ECLOSED, NULL);
    }
    question_count = 0;
}

/* --- records --- */

static void feed_document(const char *id, const char *json)
{
    torture_feed(&(struct fake_record){.topic = DOCUMENTS,
                                       .type = "application/json",
                                       .timestamp_ms = fx_now(),
                                       .key = sl_span_of(id),
                                       .value = sl_span_of(json)});
}

static void feed(void)
{
    static struct sl_span texts[] = {{"one", 3}, {"two", 3}};
    static const struct sl_span headings[] = {{"A > B", 5}, {"", 0}};
    static const float vectors[] = {1, 2, 3, 4};
    struct sl_batch batch = {.doc_id = SL_SPAN("doc"),
                             .tenant = SL_SPAN("default"),
                             .collection = SL_SPAN("default"),
                             .version = 7,
                             .total_chunks = 2,
                             .texts = texts,
                             .len = 2,
                             .headings = headings,
                             .vectors = vectors,
                             .dim = 2};
    feed_document("document", "{\"doc_id\": \"d\", \"text\": \"One two three four five six. Seven "
                              "eight nine ten eleven twelve.\", \"ingest_id\": \"run\"}");
    feed_document("removal", "{\"doc_id\": \"d\", \"delete\": true}");
    torture_feed_batch(VECTORS, "vectors", &batch);
}

/* Five tokens for each text of the body. */
static const char *answer(const char *url, const char *body)
{
    static char tokens[4096];
    CHECK(strcmp(url, "http://embed/tokenize") == 0);
    size_t len = (size_t)snprintf(tokens, sizeof(tokens), "{\"tokens\":[");
    for (; (body = strstr(body, "\",-1")) != NULL; body++) {
        len += (size_t)snprintf(tokens + len, sizeof(tokens) - len, "1,2,3,4,5,-1,");
        CHECK(len + 3 < sizeof(tokens));
    }
    snprintf(tokens + len - 1, 3, "]}");
    return tokens;
}

int main(void)
{
    const struct torture torture = {
        .stage = &ingest_stage, .feed = feed, .answer = answer, .drive = drive, .end = end};
    setenv("SLUICE_CHUNK_UNIT", "model-tokens", 1);
    setenv("SLUICE_EMBED_URL", "http://embed/v1", 1);
    setenv("SLUICE_CHUNK_SIZE", "20", 1);
    setenv("SLUICE_CHUNK_OVERLAP", "5", 1);
    setenv("SLUICE_INGEST_BATCH", "2", 1);
    setenv("SLUICE_VECTOR_URL", "sqlite:///vectors", 1);
    setenv("SLUICE_KEYWORD_URL", "sqlite:///words", 1);
    return torture_run(&torture);
}
