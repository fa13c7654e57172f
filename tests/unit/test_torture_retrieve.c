/* The retrieve stage on Qdrant and OpenSearch, with everything around it failing in turn. */
#include "common/redis_reply.h"
#include "tests/support/alloc_fail.h"
#include "tests/support/test.h"
#include "tests/support/torture/torture.h"
#include "workers/retrieve/retrieve.h"

#include <stdlib.h>
#include <string.h>

/* --- Redis, which says that a document changes, and that each hit but the first is visible --- */

enum { CALLS_MAX = 16 };

static struct question {
    sl_redis_cb *cb;
    void *ctx;
    size_t hits; /* 0: whether something changes. */
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

int sl_redis_eval(struct sl_redis *redis, struct sl_redis_script *script, size_t key_count,
                  size_t argc, const struct sl_span *argv, sl_redis_cb *cb, void *ctx)
{
    (void)redis;
    (void)script;
    (void)key_count;
    (void)argv;
    if (torture_strike(TORTURE_OTHER) != 0) {
        return -SL_EAGAIN;
    }
    CHECK(question_count < CALLS_MAX);
    questions[question_count++] = (struct question){cb, ctx, argc > 2 ? (argc - 4) / 2 : 0};
    return 0;
}

/* What else the linker finds in redis.c: the stores here are others. */

int sl_redis_create(struct sl_loop *loop, const struct sl_redis_config *config,
                    struct sl_redis **ret, char *why, size_t why_size)
{
    (void)loop;
    (void)config;
    (void)ret;
    (void)why;
    (void)why_size;
    return -SL_EINVAL;
}

void sl_redis_destroy(struct sl_redis *redis)
{
    CHECK(redis == NULL);
}

bool sl_redis_up(const struct sl_redis *redis)
{
    return redis != NULL;
}

int sl_redis_command(struct sl_redis *redis, size_t argc, const struct sl_span *argv,
                     sl_redis_cb *cb, void *ctx)
{
    (void)redis;
    (void)argc;
    (void)argv;
    (void)cb;
    (void)ctx;
    return -SL_ECONN;
}

int sl_redis_try(struct sl_redis *redis, size_t argc, const struct sl_span *argv, sl_redis_cb *cb,
                 void *ctx)
{
    return sl_redis_command(redis, argc, argv, cb, ctx);
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

static bool drive(void)
{
    char text[64];
    if (question_count == 0) {
        return false;
    }
    struct question question = questions[0];
    memmove(questions, questions + 1, --question_count * sizeof(questions[0]));
    switch (torture_strike(TORTURE_OTHER)) {
    case 0:
        snprintf(text, sizeof(text), "$%zu\r\n0%.*s\r\n", question.hits, (int)question.hits - 1,
                 "1111111");
        reply(&question, question.hits == 0 ? "*2\r\n:1\r\n$1\r\n5\r\n" : text);
        break;
    case 1:
        question.cb(question.ctx, -SL_ECONN, NULL);
        break;
    default:
        reply(&question, "*1\r\n:3\r\n");
    }
    return true;
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

static void feed(void)
{
    static const float vector[] = {1, 2};
    static struct sl_pair filter = {{"lang", 4}, {"en", 2}};
    struct sl_query query = {.query = SL_SPAN("why?"),
                             .collection = SL_SPAN("default"),
                             .top_n = 2,
                             .timeout_ms = FX_TIMEOUT_MS,
                             .max_tokens = 100,
                             .accepted_ms = fx_now(),
                             .vector = vector,
                             .vector_len = 2};
    torture_feed_query(0, "plain", &query);
    query.filter = &filter;
    query.filter_len = 1;
    torture_feed_query(0, "filtered", &query);
    torture_feed(
        &(struct fake_record){.topic = 0, .key = SL_SPAN("bad"), .value = SL_SPAN("\xc1")});
}

static const char *answer(const char *url, const char *body)
{
    (void)body;
    return strstr(url, "/points/query") != NULL
               ? "{\"result\":{\"points\":[{\"id\":1,\"score\":0.9,\"payload\":{\"text\":\"one\","
                 "\"doc_id\":\"d\",\"version\":7,\"chunk_index\":3,\"metadata\":{\"lang\":\"en\"}}}"
                 ","
                 "{\"id\":2,\"score\":0.8,\"payload\":{\"text\":\"two\",\"metadata\":{}}}]}}"
               : "{\"_shards\":{\"failed\":0},\"hits\":{\"hits\":[{\"_id\":\"d_3\",\"_score\":3.5,"
                 "\"_source\":{\"text\":\"one\",\"chunk_id\":\"d_3\",\"doc_id\":\"d\","
                 "\"metadata\":{\"lang\":\"en\"}}}]}}";
}

int main(void)
{
    const struct torture torture = {
        .stage = &retrieve_stage, .feed = feed, .answer = answer, .drive = drive, .end = end};
    setenv("SLUICE_VECTOR_URL", "qdrant+http://127.0.0.1:1/c", 1);
    setenv("SLUICE_KEYWORD_URL", "opensearch+http://127.0.0.1:1/c", 1);
    return torture_run(&torture);
}
