/* Which versions of a document can be found while it changes, on a real Redis. */
#include "common/lua_scripts.h"
#include "tests/support/coord_fixture.h"
#include "workers/ingest/account.h"

enum { TTL_MS = 3000 };

static struct cluster cluster;
static struct ingest_account account;

static void start(void)
{
    cluster_start(&cluster, TTL_MS);
    struct sl_coord *coord = cluster_join(&cluster, "a");
    account = (struct ingest_account){.loop = cluster.loop,
                                      .redis = sl_coord_redis(coord),
                                      .prefix = sl_coord_prefix(coord),
                                      .ttl_ms = 60000};
}

/* --- the worker's side --- */

struct question {
    struct ingest_ask ask;
    bool answered;
};

static void on_answer(struct ingest_ask *ask)
{
    SL_ITEM(ask, struct question, ask)->answered = true;
}

static int64_t tell(enum ingest_question kind, const char *message, int64_t version)
{
    struct question question = {.ask = {.tenant = SL_SPAN("t:1"),
                                        .collection = SL_SPAN("c"),
                                        .doc_id = SL_SPAN("a"),
                                        .message = sl_span_of(message),
                                        .hash = sl_span_of(message),
                                        .reason = SL_SPAN("bad"),
                                        .place = INGEST_DOCUMENT,
                                        .chunks = 1,
                                        .total = 1,
                                        .version = version,
                                        .on_answer = on_answer}};
    ingest_ask(&account, &question.ask, kind);
    UNTIL(&cluster, question.answered);
    return question.ask.version;
}

/* --- the question's side --- */

struct outcome {
    bool came;
    char text[32];
};

static void on_reply(void *ctx, int err, const struct redisReply *reply)
{
    struct outcome *outcome = ctx;
    CHECK_INT(err, 0);
    outcome->came = true;
    if (sl_reply_type(reply) == SL_REPLY_ARRAY) {
        CHECK(sl_reply_int(sl_reply_at(reply, 1)) > 1000000000000000);
        reply = sl_reply_at(reply, 0);
    }
    if (sl_reply_type(reply) == SL_REPLY_INT) {
        snprintf(outcome->text, sizeof(outcome->text), "%lld", sl_reply_int(reply));
    } else {
        snprintf(outcome->text, sizeof(outcome->text), SL_SPAN_FMT,
                 SL_SPAN_ARG(sl_reply_span(reply)));
    }
}

static const char *run(size_t argc, const struct sl_span *argv)
{
    static struct sl_redis_script script = {.text = sl_lua_ingest_visible};
    static struct outcome outcome;
    outcome.came = false;
    CHECK_INT(sl_redis_eval(account.redis, &script, 1, argc, argv, on_reply, &outcome), 0);
    UNTIL(&cluster, outcome.came);
    return outcome.text;
}

/* One flag for each of two versions. */
static const char *visible(int64_t first, int64_t second)
{
    char numbers[2][24];
    snprintf(numbers[0], sizeof(numbers[0]), "%lld", (long long)first);
    snprintf(numbers[1], sizeof(numbers[1]), "%lld", (long long)second);
    const struct sl_span argv[] = {sl_span_of(account.prefix),
                                   SL_SPAN("look"),
                                   SL_SPAN("t:1"),
                                   SL_SPAN("c"),
                                   SL_SPAN("a"),
                                   sl_span_of(numbers[0]),
                                   SL_SPAN("a"),
                                   sl_span_of(numbers[1])};
    return run(8, argv);
}

static const char *changing(void)
{
    const struct sl_span argv[] = {sl_span_of(account.prefix), SL_SPAN("changing")};
    return run(2, argv);
}

TEST(a_new_document_is_visible_when_it_is_whole)
{
    start();
    CHECK_STR(changing(), "0");
    CHECK_STR(visible(5, 6), "11"); /* Nothing is known of it. */
    int64_t first = tell(INGEST_OPEN, "m1", 0);
    CHECK_STR(changing(), "1");
    CHECK_STR(visible(first - 1, first), "10"); /* Older ones are from before Redis's time. */
    tell(INGEST_BATCH, "", first);
    CHECK_STR(visible(first - 1, first), "01");
    CHECK_STR(changing(), "1"); /* Older ones are not deleted yet. */
    tell(INGEST_DONE, "", first);
    CHECK_STR(changing(), "0");
    cluster_stop(&cluster);
}

TEST(the_old_version_serves_until_the_new_one_is_whole)
{
    start();
    int64_t old = tell(INGEST_OPEN, "m1", 0);
    tell(INGEST_BATCH, "", old);
    tell(INGEST_DONE, "", old);
    int64_t new = tell(INGEST_OPEN, "m2", 0);
    CHECK_STR(visible(old, new), "10");
    tell(INGEST_FAILED, "", new);
    CHECK_STR(visible(old, new), "10");
    CHECK_STR(changing(), "1");
    tell(INGEST_CLEANED, "", new);
    CHECK_STR(changing(), "0");
    int64_t newest = tell(INGEST_OPEN, "m3", 0);
    tell(INGEST_BATCH, "", newest);
    CHECK_STR(visible(old, newest), "01");
    CHECK_STR(visible(new, newest + 1), "01"); /* Redis has forgotten one that is higher. */
    cluster_stop(&cluster);
}

TEST(a_removed_document_is_not_visible)
{
    start();
    int64_t old = tell(INGEST_OPEN, "m1", 0);
    tell(INGEST_BATCH, "", old);
    tell(INGEST_DONE, "", old);
    int64_t removed = tell(INGEST_REMOVE, "m2", 0);
    CHECK_STR(visible(old, removed - 1), "00");
    CHECK_STR(changing(), "1");
    tell(INGEST_DONE, "", removed);
    CHECK_STR(changing(), "0");
    CHECK_STR(visible(old, old), "00");
    cluster_stop(&cluster);
}

static const struct test_case cases[] = {
    {"a_new_document_is_visible_when_it_is_whole", a_new_document_is_visible_when_it_is_whole},
    {"the_old_version_serves_until_the_new_one_is_whole",
     the_old_version_serves_until_the_new_one_is_whole},
    {"a_removed_document_is_not_visible", a_removed_document_is_not_visible},
    {NULL, NULL},
};

int main(int argc, char **argv)
{
    return run_tests(cases, argc, argv);
}
