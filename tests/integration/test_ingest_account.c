/* The account of documents, on a real Redis: versions, batches, endings, and the run's counts. */
#include "common/coord.h"
#include "common/lua_scripts.h"
#include "tests/support/coord_fixture.h"
#include "workers/ingest/account.h"

enum { TTL_MS = 3000, KEPT_MS = 60000 };

static struct cluster cluster;
static struct ingest_account account;

struct question {
    struct ingest_ask ask;
    int answers;
};

static void on_answer(struct ingest_ask *ask)
{
    SL_ITEM(ask, struct question, ask)->answers++;
}

static void start(void)
{
    cluster_start(&cluster, TTL_MS);
    struct sl_coord *coord = cluster_join(&cluster, "a");
    account = (struct ingest_account){.loop = cluster.loop,
                                      .redis = sl_coord_redis(coord),
                                      .prefix = sl_coord_prefix(coord),
                                      .ttl_ms = KEPT_MS};
}

static struct question about(const char *doc_id, int64_t version)
{
    return (struct question){.ask = {.tenant = SL_SPAN("t:1"),
                                     .collection = SL_SPAN("c"),
                                     .doc_id = sl_span_of(doc_id),
                                     .ingest_id = SL_SPAN("run"),
                                     .version = version,
                                     .on_answer = on_answer}};
}

static struct ingest_ask ask(struct question question, enum ingest_question kind)
{
    ingest_ask(&account, &question.ask, kind);
    CHECK_INT(question.answers, 0); /* Never inside the call. */
    UNTIL(&cluster, question.answers == 1);
    return question.ask;
}

static int64_t open_version(const char *doc_id, const char *message)
{
    struct question question = about(doc_id, 0);
    question.ask.message = sl_span_of(message);
    return ask(question, INGEST_OPEN).version;
}

static struct ingest_ask note(const char *doc_id, int64_t version, uint32_t first, uint32_t chunks,
                              uint32_t total)
{
    struct question question = about(doc_id, version);
    question.ask.first = first;
    question.ask.chunks = chunks;
    question.ask.total = total;
    return ask(question, INGEST_BATCH);
}

static struct ingest_ask end_done(const char *doc_id, int64_t version, uint32_t total)
{
    struct question question = about(doc_id, version);
    question.ask.total = total;
    return ask(question, INGEST_DONE);
}

static struct ingest_ask end_failed(const char *doc_id, int64_t version, const char *reason)
{
    struct question question = about(doc_id, version);
    question.ask.reason = sl_span_of(reason);
    return ask(question, INGEST_FAILED);
}

/* --- the run's account, as the command line reads it --- */

static char told[512];

static void on_read(void *ctx, int err, const struct redisReply *reply)
{
    size_t at = 0;
    CHECK_INT(err, 0);
    for (size_t i = 0; i < sl_reply_len(reply); i++) {
        const struct redisReply *item = sl_reply_at(reply, i);
        struct sl_span text = sl_reply_span(item);
        at += (size_t)(sl_reply_type(item) == SL_REPLY_INT
                           ? snprintf(told + at, sizeof(told) - at, "%lld ", sl_reply_int(item))
                           : snprintf(told + at, sizeof(told) - at, SL_SPAN_FMT " ",
                                      SL_SPAN_ARG(text)));
    }
    *(bool *)ctx = true;
}

/* "processed failed total_chunks stored [doc_id reason]..." */
static const char *read_run(const char *known)
{
    static struct sl_redis_script script = {.text = sl_lua_ingest_account};
    bool done = false;
    const struct sl_span args[] = {sl_span_of(account.prefix),
                                   SL_SPAN("1000"),
                                   SL_SPAN("t:1"),
                                   SL_SPAN(""),
                                   SL_SPAN(""),
                                   SL_SPAN("run"),
                                   SL_SPAN("read"),
                                   sl_span_of(known)};
    told[0] = '\0';
    CHECK_INT(sl_redis_eval(account.redis, &script, 1, 8, args, on_read, &done), 0);
    UNTIL(&cluster, done);
    return told;
}

TEST(a_message_keeps_its_version_and_a_new_one_is_higher)
{
    start();
    int64_t first = open_version("a", "m1");
    CHECK(first > 1000000000000000);
    CHECK_INT(open_version("a", "m1"), first);
    int64_t second = open_version("a", "m2");
    CHECK(second > first);
    CHECK_INT(open_version("a", "m1"), first);
    /* A clock that went back does not make a version lower. */
    cluster_say(&cluster, "HSET %s:ingest:doc:t%%3A1:c:a version 9000000000000000", account.prefix);
    CHECK_INT(open_version("a", "m3"), 9000000000000001);
    cluster_stop(&cluster);
}

TEST(a_document_is_complete_once_however_often_its_batches_come)
{
    start();
    int64_t version = open_version("a", "m1");
    CHECK_INT(note("a", version, 0, 32, 40).state, INGEST_STATE_OPEN);
    CHECK_INT(note("a", version, 0, 32, 40).state, INGEST_STATE_OPEN);
    CHECK_STR(read_run("0"), "0 0 0 32 ");
    struct ingest_ask last = note("a", version, 32, 8, 40);
    CHECK_INT(last.state, INGEST_STATE_COMPLETE);
    CHECK_INT(last.accepted, version);
    CHECK_INT(note("a", version, 32, 8, 40).state, INGEST_STATE_COMPLETE); /* Not counted yet. */
    CHECK_STR(read_run("0"), "0 0 0 40 ");
    CHECK_INT(end_done("a", version, 40).state, INGEST_STATE_DONE);
    CHECK_INT(end_done("a", version, 40).state, INGEST_STATE_DONE);
    CHECK_INT(note("a", version, 0, 32, 40).state, INGEST_STATE_DONE);
    CHECK_INT(end_failed("a", version, "late").state, INGEST_STATE_DONE);
    CHECK_INT(ask(about("a", version), INGEST_LOOK).state, INGEST_STATE_DONE);
    CHECK_STR(read_run("0"), "1 0 40 40 ");
    cluster_stop(&cluster);
}

TEST(a_failure_is_counted_once_and_ends_the_version)
{
    start();
    int64_t version = open_version("a", "m1");
    note("a", version, 0, 1, 3);
    CHECK_INT(end_failed("a", version, "too long").state, INGEST_STATE_FAILED);
    CHECK_INT(end_failed("a", version, "again").state, INGEST_STATE_FAILED);
    CHECK_INT(note("a", version, 1, 2, 3).state, INGEST_STATE_FAILED);
    CHECK_INT(end_done("a", version, 3).state, INGEST_STATE_FAILED);
    int64_t other = open_version("b", "m2");
    end_failed("b", other, "bad");
    CHECK_STR(read_run("0"), "0 2 0 1 a too long b bad ");
    CHECK_STR(read_run("1"), "0 2 0 1 b bad ");
    CHECK_STR(read_run("2"), "0 2 0 1 ");
    cluster_stop(&cluster);
}

TEST(an_old_version_learns_of_a_newer_one)
{
    start();
    int64_t old = open_version("a", "m1"), new = open_version("a", "m2");
    CHECK_INT(ask(about("a", old), INGEST_LOOK).accepted, 0);
    CHECK_INT(note("a", new, 0, 1, 1).accepted, new);
    CHECK_INT(ask(about("a", old), INGEST_LOOK).accepted, new);
    struct ingest_ask late = note("a", old, 0, 1, 2);
    CHECK_INT(late.state, INGEST_STATE_OPEN);
    CHECK_INT(late.accepted, new);
    CHECK_INT(note("a", old, 1, 1, 2).accepted, new); /* Completing it changes nothing. */
    cluster_stop(&cluster);
}

TEST(tenants_and_runs_are_apart_and_everything_ends)
{
    start();
    int64_t version = open_version("a", "m1");
    note("a", version, 0, 1, 1);
    struct question other = about("a", version);
    other.ask.tenant = SL_SPAN("t");
    other.ask.collection = SL_SPAN("1:c");
    CHECK_INT(ask(other, INGEST_LOOK).accepted, 0);
    struct question alone = about("b", version); /* No run counts it. */
    alone.ask.ingest_id = SL_SPAN("");
    alone.ask.reason = SL_SPAN("x");
    CHECK_INT(ask(alone, INGEST_FAILED).state, INGEST_STATE_FAILED);
    CHECK_STR(read_run("0"), "0 0 0 1 ");
    static const char keys_with_ttl[] =
        "EVAL \"local n=0 for _,k in ipairs(redis.call('KEYS','*:ingest:*')) do "
        "if redis.call('PTTL',k)>0 then n=n+1 else n=n+1000 end end return n\" 0";
    CHECK_STR(cluster_say(&cluster, "%s", keys_with_ttl), "5");
    cluster_stop(&cluster);
}

TEST(a_redis_that_was_away_is_asked_again)
{
    start();
    struct question question = about("a", 0);
    question.ask.message = SL_SPAN("m1");
    redis_fixture_pause(cluster.redis);
    ingest_ask(&account, &question.ask, INGEST_OPEN);
    cluster_run(&cluster, 1500);
    CHECK_INT(question.answers, 0);
    redis_fixture_resume(cluster.redis);
    UNTIL(&cluster, question.answers == 1);
    CHECK(question.ask.version > 0);
    cluster_stop(&cluster);
}

TEST(a_cancelled_question_is_not_answered)
{
    start();
    struct question sent = about("a", 5), waiting = about("a", 6);
    ingest_ask(&account, &sent.ask, INGEST_LOOK);
    ingest_ask_cancel(&sent.ask);
    ingest_ask_cancel(&sent.ask);
    CHECK_INT(ask(about("a", 7), INGEST_LOOK).version, 7);
    redis_fixture_kill(cluster.redis);
    cluster_run(&cluster, 200);
    ingest_ask(&account, &waiting.ask, INGEST_LOOK); /* Waits to be sent. */
    ingest_ask_cancel(&waiting.ask);
    redis_fixture_start(cluster.redis);
    cluster_run(&cluster, 500);
    CHECK_INT(sent.answers + waiting.answers, 0);
    cluster_stop(&cluster);
}

static const struct test_case cases[] = {
    {"a_message_keeps_its_version_and_a_new_one_is_higher",
     a_message_keeps_its_version_and_a_new_one_is_higher},
    {"a_document_is_complete_once_however_often_its_batches_come",
     a_document_is_complete_once_however_often_its_batches_come},
    {"a_failure_is_counted_once_and_ends_the_version",
     a_failure_is_counted_once_and_ends_the_version},
    {"an_old_version_learns_of_a_newer_one", an_old_version_learns_of_a_newer_one},
    {"tenants_and_runs_are_apart_and_everything_ends",
     tenants_and_runs_are_apart_and_everything_ends},
    {"a_redis_that_was_away_is_asked_again", a_redis_that_was_away_is_asked_again},
    {"a_cancelled_question_is_not_answered", a_cancelled_question_is_not_answered},
    {NULL, NULL},
};

int main(int argc, char **argv)
{
    return run_tests(cases, argc, argv);
}
