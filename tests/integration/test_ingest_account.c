/* The account of documents, on a real Redis: versions, batches, endings, and the run's counts. */
#include "common/coord.h"
#include "common/ingest_account.h"
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

static struct ingest_ask open_hash(const char *doc_id, const char *message, const char *hash)
{
    struct question question = about(doc_id, 0);
    question.ask.message = sl_span_of(message);
    question.ask.hash = sl_span_of(hash);
    question.ask.size = 32;
    question.ask.bytes = 100;
    question.ask.place = INGEST_DOCUMENT;
    return ask(question, INGEST_OPEN);
}

/* Each message has a content of its own. */
static int64_t open_version(const char *doc_id, const char *message)
{
    struct ingest_ask opened = open_hash(doc_id, message, message);
    CHECK_INT(opened.state, INGEST_STATE_OPEN);
    return opened.version;
}

static struct ingest_ask remove_document(const char *doc_id, const char *message)
{
    struct question question = about(doc_id, 0);
    question.ask.message = sl_span_of(message);
    question.ask.place = INGEST_DOCUMENT;
    return ask(question, INGEST_REMOVE);
}

static struct ingest_ask open_from(const char *doc_id, const char *message, const char *source)
{
    struct question question = about(doc_id, 0);
    question.ask.message = question.ask.hash = sl_span_of(message);
    question.ask.source = sl_span_of(source);
    question.ask.size = 32;
    question.ask.place = INGEST_DOCUMENT;
    return ask(question, INGEST_OPEN);
}

static struct ingest_ask look(const char *doc_id, int64_t version, uint32_t first)
{
    struct question question = about(doc_id, version);
    question.ask.place = first;
    return ask(question, INGEST_LOOK);
}

static struct ingest_ask cut(const char *doc_id, int64_t version, uint32_t total)
{
    struct question question = about(doc_id, version);
    question.ask.total = total;
    return ask(question, INGEST_CUT);
}

static struct ingest_ask end_cleaned(const char *doc_id, int64_t version, int64_t place)
{
    struct question question = about(doc_id, version);
    question.ask.place = place;
    return ask(question, INGEST_CLEANED);
}

/* Documents whose store may hold more than what can be found. */
static const char *changing(void)
{
    return cluster_say(&cluster, "SCARD %s:ingest:changing", account.prefix);
}

static struct ingest_ask note(const char *doc_id, int64_t version, uint32_t first, uint32_t chunks,
                              uint32_t total)
{
    struct question question = about(doc_id, version);
    question.ask.place = first;
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

/* --- the run's account, as others read it --- */

static char told[1024];

static struct sl_ingest_env env(void)
{
    return (struct sl_ingest_env){.redis = account.redis,
                                  .prefix = account.prefix,
                                  .ttl_ms = KEPT_MS,
                                  .tenant = SL_SPAN("t:1")};
}

struct outcome {
    bool came;
    int err;
};

static void on_done(void *ctx, int err)
{
    *(struct outcome *)ctx = (struct outcome){true, err};
}

static int begin(const char *run)
{
    struct outcome outcome = {0};
    const struct sl_ingest_env e = env();
    CHECK_INT(sl_ingest_begin(&e, sl_span_of(run), SL_SPAN("c"), SL_SPAN("DIR"), on_done, &outcome),
              0);
    UNTIL(&cluster, outcome.came);
    return outcome.err;
}

static int close_run(const char *run, uint64_t documents)
{
    struct outcome outcome = {0};
    const struct sl_ingest_env e = env();
    CHECK_INT(sl_ingest_close(&e, sl_span_of(run), documents, on_done, &outcome), 0);
    UNTIL(&cluster, outcome.came);
    return outcome.err;
}

static int refuse(const char *run, const char *doc_id)
{
    struct outcome outcome = {0};
    const struct sl_ingest_env e = env();
    CHECK_INT(sl_ingest_refuse(&e, sl_span_of(run), sl_span_of(doc_id), SL_SPAN("unreadable"),
                               on_done, &outcome),
              0);
    UNTIL(&cluster, outcome.came);
    return outcome.err;
}

static void on_run(void *ctx, int err, const struct sl_ingest_run *run)
{
    size_t at = 0;
    if (err == 0) {
        at += (size_t)snprintf(told, sizeof(told), "%d %d %d %d %d ", (int)run->processed,
                               (int)run->failed, (int)run->skipped, (int)run->total_chunks,
                               (int)run->stored_chunks);
    }
    for (size_t i = 0; err == 0 && i < run->failure_count; i++) {
        at += (size_t)snprintf(told + at, sizeof(told) - at, SL_SPAN_FMT " " SL_SPAN_FMT " ",
                               SL_SPAN_ARG(run->failures[i].doc_id),
                               SL_SPAN_ARG(run->failures[i].reason));
    }
    *(struct outcome *)ctx = (struct outcome){true, err};
}

/* "processed failed skipped total_chunks stored [doc_id reason]..." */
static const char *read_run(size_t known)
{
    struct outcome outcome = {0};
    const struct sl_ingest_env e = env();
    snprintf(told, sizeof(told), "none");
    CHECK_INT(sl_ingest_read(&e, SL_SPAN("run"), known, on_run, &outcome), 0);
    UNTIL(&cluster, outcome.came);
    CHECK(outcome.err == 0 || outcome.err == -SL_ENOENT);
    return told;
}

static void on_json(void *ctx, int err, const struct sl_ingest_run *run)
{
    struct sl_buf out;
    CHECK_INT(err, 0);
    sl_buf_init(&out, sizeof(told) - 1);
    sl_ingest_run_json(run, &out);
    CHECK_INT(sl_buf_error(&out), 0);
    snprintf(told, sizeof(told), SL_SPAN_FMT, SL_SPAN_ARG(sl_buf_span(&out)));
    sl_buf_fini(&out);
    *(struct outcome *)ctx = (struct outcome){true, err};
}

static const char *run_json(void)
{
    struct outcome outcome = {0};
    const struct sl_ingest_env e = env();
    CHECK_INT(sl_ingest_read(&e, SL_SPAN("run"), 0, on_json, &outcome), 0);
    UNTIL(&cluster, outcome.came);
    return told;
}

static void on_runs(void *ctx, int err, const struct sl_ingest_run *runs, size_t len)
{
    size_t at = 0;
    CHECK_INT(err, 0);
    told[0] = '\0';
    for (size_t i = 0; i < len; i++) {
        at += (size_t)snprintf(told + at, sizeof(told) - at, SL_SPAN_FMT "%s ",
                               SL_SPAN_ARG(runs[i].ingest_id), runs[i].ended ? "!" : "");
    }
    *(struct outcome *)ctx = (struct outcome){true, err};
}

static const char *list_runs(size_t max)
{
    struct outcome outcome = {0};
    const struct sl_ingest_env e = env();
    CHECK_INT(sl_ingest_runs(&e, max, on_runs, &outcome), 0);
    UNTIL(&cluster, outcome.came);
    return told;
}

static void on_documents(void *ctx, int err, const struct sl_ingest_document *documents, size_t len,
                         bool more)
{
    size_t at = 0;
    CHECK_INT(err, 0);
    told[0] = '\0';
    for (size_t i = 0; i < len; i++) {
        CHECK(documents[i].version > 0 && documents[i].stored_ms > 0);
        at += (size_t)snprintf(told + at, sizeof(told) - at, SL_SPAN_FMT ":%d%s ",
                               SL_SPAN_ARG(documents[i].doc_id), (int)documents[i].chunks,
                               documents[i].changing ? "~" : "");
    }
    snprintf(told + at, sizeof(told) - at, "%s", more ? "..." : "");
    *(struct outcome *)ctx = (struct outcome){true, err};
}

static const char *list_documents(const char *after, size_t max)
{
    struct outcome outcome = {0};
    const struct sl_ingest_env e = env();
    CHECK_INT(sl_ingest_documents(&e, SL_SPAN("c"), sl_span_of(after), max, on_documents, &outcome),
              0);
    UNTIL(&cluster, outcome.came);
    return told;
}

/* A cluster of one, and a run that has begun. */
static void start(void)
{
    cluster_start(&cluster, TTL_MS);
    struct sl_coord *coord = cluster_join(&cluster, "a");
    account = (struct ingest_account){.loop = cluster.loop,
                                      .redis = sl_coord_redis(coord),
                                      .prefix = sl_coord_prefix(coord),
                                      .ttl_ms = KEPT_MS};
    CHECK_INT(begin("run"), 0);
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
    CHECK_STR(read_run(0), "0 0 0 0 32 ");
    struct ingest_ask last = note("a", version, 32, 8, 40);
    CHECK_INT(last.state, INGEST_STATE_COMPLETE);
    CHECK_INT(last.accepted, version);
    CHECK_INT(note("a", version, 32, 8, 40).state, INGEST_STATE_COMPLETE); /* Not counted yet. */
    CHECK_STR(read_run(0), "0 0 0 0 40 ");
    CHECK_INT(end_done("a", version, 40).state, INGEST_STATE_DONE);
    CHECK_INT(end_done("a", version, 40).state, INGEST_STATE_DONE);
    CHECK_INT(note("a", version, 0, 32, 40).state, INGEST_STATE_DONE);
    CHECK_INT(end_failed("a", version, "late").state, INGEST_STATE_DONE);
    CHECK_INT(look("a", version, 0).state, INGEST_STATE_DONE);
    CHECK_STR(changing(), "0");
    CHECK_STR(read_run(0), "1 0 0 40 40 ");
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
    CHECK_STR(read_run(0), "0 2 0 0 1 a too long b bad ");
    CHECK_STR(read_run(1), "0 2 0 0 1 b bad ");
    CHECK_STR(read_run(2), "0 2 0 0 1 ");
    cluster_stop(&cluster);
}

TEST(an_old_version_learns_of_a_newer_one)
{
    start();
    int64_t old = open_version("a", "m1"), new = open_version("a", "m2");
    CHECK_INT(look("a", old, 0).state, INGEST_STATE_OPEN);
    CHECK_INT(note("a", new, 0, 1, 1).state, INGEST_STATE_COMPLETE);
    struct ingest_ask late = note("a", old, 0, 1, 2);
    CHECK_INT(late.state, INGEST_STATE_OLD);
    CHECK_INT(late.accepted, new);
    CHECK_INT(look("a", old, 1).state, INGEST_STATE_OLD);
    CHECK_INT(end_done("a", new, 1).state, INGEST_STATE_DONE);
    CHECK_STR(changing(), "1"); /* The old one's first batch is in the store. */
    CHECK_INT(end_cleaned("a", old, 1).state, INGEST_STATE_DONE);
    CHECK_STR(changing(), "1");
    end_cleaned("a", old, 0);
    CHECK_STR(changing(), "0");
    CHECK_STR(read_run(0), "2 0 0 1 1 ");
    CHECK_STR(list_documents("", 10), "a:1 ");
    cluster_stop(&cluster);
}

/* A document does not stay among those that change for the sake of a batch that came twice. */
TEST(a_batch_that_comes_again_around_the_end_leaves_nothing_behind)
{
    start();
    int64_t version = open_version("a", "m1");
    look("a", version, 0);
    CHECK_INT(note("a", version, 0, 1, 1).state, INGEST_STATE_COMPLETE);
    CHECK_INT(look("a", version, 0).state, INGEST_STATE_COMPLETE); /* It is written again. */
    CHECK_INT(end_cleaned("a", version, INGEST_DOCUMENT).state, INGEST_STATE_DONE);
    CHECK_STR(changing(), "1");
    CHECK_INT(note("a", version, 0, 1, 1).state, INGEST_STATE_DONE);
    CHECK_STR(changing(), "0");
    int64_t next = open_version("a", "m2");
    note("a", next, 0, 1, 1);
    look("a", next, 0); /* Whoever writes it dies. */
    end_cleaned("a", next, INGEST_DOCUMENT);
    CHECK_STR(changing(), "1");
    CHECK_INT(look("a", next, 0).state, INGEST_STATE_DONE);
    CHECK_STR(changing(), "0");
    cluster_stop(&cluster);
}

TEST(an_unchanged_document_is_skipped)
{
    start();
    int64_t first = open_hash("a", "m1", "A").version;
    note("a", first, 0, 1, 1);
    CHECK_INT(open_hash("a", "m2", "A").state, INGEST_STATE_OPEN); /* Lower ones may be there. */
    end_done("a", first, 1);
    int64_t again = open_hash("a", "m2", "A").version;
    end_failed("a", again, "bad");
    end_cleaned("a", again, INGEST_DOCUMENT);
    struct ingest_ask skipped = open_hash("a", "m3", "A");
    CHECK_INT(skipped.state, INGEST_STATE_SKIPPED);
    CHECK_INT(skipped.accepted, first);
    CHECK_INT(open_hash("a", "m3", "A").state, INGEST_STATE_SKIPPED); /* Delivered again. */
    CHECK_STR(read_run(1), "1 1 1 1 1 ");
    CHECK_INT(open_hash("b", "m4", "A").state, INGEST_STATE_OPEN);
    struct question anew = about("a", 0); /* Its store may have lost it. */
    anew.ask.message = SL_SPAN("m5");
    anew.ask.hash = SL_SPAN("A");
    anew.ask.size = 32;
    anew.ask.place = INGEST_DOCUMENT;
    anew.ask.again = true;
    CHECK_INT(ask(anew, INGEST_OPEN).state, INGEST_STATE_OPEN);
    cluster_stop(&cluster);
}

TEST(the_way_there_and_back_ends_at_the_first)
{
    start();
    int64_t a = open_hash("a", "m1", "A").version;
    note("a", a, 0, 1, 1);
    end_done("a", a, 1);
    int64_t b = open_hash("a", "m2", "B").version;
    struct ingest_ask back = open_hash("a", "m3", "A"); /* B is on its way. */
    CHECK_INT(back.state, INGEST_STATE_OPEN);
    CHECK(back.version > b);
    CHECK_STR(list_documents("", 10), "a:1~ ");
    CHECK_INT(note("a", back.version, 0, 2, 2).state, INGEST_STATE_COMPLETE);
    end_done("a", back.version, 2);
    CHECK_INT(note("a", b, 0, 1, 1).state, INGEST_STATE_OLD); /* Its end changes nothing. */
    end_cleaned("a", b, 0);
    CHECK_STR(list_documents("", 10), "a:2 ");
    CHECK_STR(changing(), "0");
    CHECK_INT(open_hash("a", "m4", "A").state, INGEST_STATE_SKIPPED);
    cluster_stop(&cluster);
}

TEST(a_removed_document_is_gone_at_once_and_can_come_back)
{
    start();
    int64_t first = open_hash("a", "m1", "A").version;
    note("a", first, 0, 1, 1);
    end_done("a", first, 1);
    struct ingest_ask removed = remove_document("a", "m2");
    CHECK_INT(removed.state, INGEST_STATE_COMPLETE);
    CHECK_INT(removed.accepted, removed.version);
    CHECK_INT(remove_document("a", "m2").version, removed.version);
    CHECK_STR(list_documents("", 10), "");
    CHECK_STR(changing(), "1");
    struct question done = about("a", removed.version);
    done.ask.place = INGEST_DOCUMENT;
    CHECK_INT(ask(done, INGEST_DONE).state, INGEST_STATE_DONE);
    CHECK_STR(changing(), "0");
    CHECK_INT(remove_document("a", "m2").state, INGEST_STATE_DONE);
    CHECK(atoi(cluster_say(&cluster, "PTTL %s:ingest:doc:t%%3A1:c:a", account.prefix)) > 0);
    struct ingest_ask back = open_hash("a", "m3", "A");
    CHECK_INT(back.state, INGEST_STATE_OPEN);
    note("a", back.version, 0, 1, 1);
    end_done("a", back.version, 1);
    CHECK_STR(list_documents("", 10), "a:1 ");
    CHECK_STR(cluster_say(&cluster, "PTTL %s:ingest:doc:t%%3A1:c:a", account.prefix), "-1");
    CHECK_STR(read_run(0), "3 0 0 2 2 ");
    cluster_stop(&cluster);
}

/* Whoever had taken up the first one died before it had a version. */
TEST(a_message_that_comes_behind_later_ones_changes_nothing)
{
    start();
    int64_t version = open_from("a", "m2", "3 11 1000").version;
    struct ingest_ask late = open_from("a", "m1", "3 10 1000");
    CHECK_INT(late.state, INGEST_STATE_SKIPPED);
    CHECK_INT(open_from("a", "m1", "3 10 1000").state, INGEST_STATE_SKIPPED);
    note("a", version, 0, 1, 1);
    end_done("a", version, 1);
    CHECK_STR(read_run(0), "2 0 0 1 1 ");
    CHECK_INT(open_from("a", "m2", "3 12 2000").state, INGEST_STATE_DONE); /* That very one. */
    struct question removal = about("a", 0);
    removal.ask.message = SL_SPAN("m3");
    removal.ask.source = SL_SPAN("3 9 900");
    removal.ask.place = INGEST_DOCUMENT;
    CHECK_INT(ask(removal, INGEST_REMOVE).state, INGEST_STATE_SKIPPED);
    CHECK_INT(ask(removal, INGEST_REMOVE).state, INGEST_STATE_SKIPPED);
    CHECK_STR(list_documents("", 10), "a:1 ");
    removal.ask.message = SL_SPAN("m5");
    removal.ask.source = SL_SPAN("3 14 4000");
    CHECK_INT(ask(removal, INGEST_REMOVE).state, INGEST_STATE_COMPLETE);
    CHECK_INT(open_from("a", "m4", "3 13 3000").state, INGEST_STATE_SKIPPED);
    CHECK_STR(list_documents("", 10), "");
    CHECK_INT(open_from("a", "m6", "3 0 5000").state, INGEST_STATE_OPEN); /* Of a new topic. */
    CHECK_INT(open_from("a", "m7", "2 0 0").state, INGEST_STATE_OPEN);
    cluster_stop(&cluster);
}

TEST(a_document_taken_up_again_with_other_settings_begins_anew)
{
    start();
    int64_t first = open_hash("a", "m1", "A 500").version;
    note("a", first, 0, 1, 2);
    int64_t second = open_hash("a", "m1", "A 600").version;
    CHECK(second > first);
    CHECK_INT(open_hash("a", "m1", "A 600").version, second);
    CHECK_INT(look("a", first, 1).state, INGEST_STATE_FAILED);
    CHECK_INT(note("a", second, 0, 1, 1).state, INGEST_STATE_COMPLETE);
    end_done("a", second, 1);
    CHECK_STR(changing(), "0"); /* The first one's chunks went with all lower ones. */
    CHECK_STR(read_run(0), "1 0 0 1 2 ");
    cluster_stop(&cluster);
}

TEST(chunks_wait_from_the_cut_to_the_store)
{
    start();
    int64_t version = open_version("a", "m1");
    CHECK_INT(cut("a", version, 40).state, INGEST_STATE_OPEN);
    CHECK_INT(cut("a", version, 40).state, INGEST_STATE_OPEN); /* Delivered again. */
    note("a", version, 0, 32, 40);
    CHECK(strstr(run_json(), "8 chunks wait for vectors or the store") != NULL);
    end_failed("a", version, "bad");
    CHECK(strstr(run_json(), "chunks wait") == NULL);
    CHECK_INT(cut("a", version, 40).state, INGEST_STATE_FAILED);
    cluster_stop(&cluster);
}

TEST(a_version_that_redis_lost_is_told_so)
{
    start();
    int64_t version = open_version("a", "m1");
    cluster_say(&cluster, "FLUSHALL");
    CHECK_INT(cut("a", version, 1).state, INGEST_STATE_LOST);
    CHECK_INT(look("a", version, 0).state, INGEST_STATE_LOST);
    CHECK_INT(note("a", version, 0, 1, 1).state, INGEST_STATE_LOST);
    CHECK_STR(changing(), "0");
    int64_t again = open_version("a", "m1");
    CHECK(again > version);
    note("a", again, 0, 1, 1);
    CHECK_INT(look("a", version, 0).state, INGEST_STATE_OLD);
    cluster_stop(&cluster);
}

TEST(a_failure_that_no_run_counts_is_for_somebody_else)
{
    start();
    struct question question = about("a", open_version("a", "m1"));
    question.ask.ingest_id = SL_SPAN("");
    question.ask.place = 32;
    question.ask.reason = SL_SPAN("too long");
    CHECK_STR(ask(question, INGEST_FAILED).uncounted, "too long");
    CHECK_STR(ask(question, INGEST_LOOK).uncounted, "too long"); /* It was told, perhaps. */
    question.ask.place = 64;
    CHECK_STR(ask(question, INGEST_LOOK).uncounted, "");
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
    CHECK_INT(ask(other, INGEST_LOOK).state, INGEST_STATE_LOST);
    struct question alone = about("b", version); /* No run counts it. */
    alone.ask.ingest_id = SL_SPAN("");
    alone.ask.reason = SL_SPAN("x");
    CHECK_INT(ask(alone, INGEST_FAILED).state, INGEST_STATE_FAILED);
    CHECK_STR(read_run(0), "0 0 0 0 1 ");
    /* All but the documents and the lists of them and of runs. */
    static const char keys_without_ttl[] =
        "EVAL \"local n=0 for _,k in ipairs(redis.call('KEYS','*:ingest:*')) do "
        "if redis.call('PTTL',k)<0 and not (string.find(k,':ingest:docs?:') or "
        "string.find(k,':ingest:runs:') or string.find(k,':changing')) then n=n+1 end end return "
        "n\" 0";
    CHECK_STR(cluster_say(&cluster, "%s", keys_without_ttl), "0");
    cluster_stop(&cluster);
}

TEST(a_run_is_listed_behind_hundreds_that_are_forgotten)
{
    static const char forgotten[] =
        "EVAL \"for _,k in ipairs(redis.call('KEYS','*:ingest:runs:*')) do "
        "for i=1,%d do redis.call('ZADD',k,'9e15','gone'..i) end end return 'added'\" 0";
    start();
    open_version("a", "m1");
    for (int count = 100; count <= 250; count += 50) { /* Whole pages, too. */
        CHECK_STR(cluster_say(&cluster, forgotten, count), "added");
        CHECK_STR(list_runs(1), "run ");
        CHECK_STR(list_runs(10), "run ");
    }
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

TEST(only_a_run_that_was_begun_is_counted)
{
    start();
    struct question other = about("a", 0);
    other.ask.ingest_id = SL_SPAN("other");
    other.ask.message = SL_SPAN("m1");
    other.ask.reason = SL_SPAN("bad");
    CHECK_INT(ask(other, INGEST_OPEN).state, INGEST_STATE_OPEN);
    CHECK_INT(close_run("other", 1), -SL_ENOENT);
    CHECK_INT(refuse("other", "x"), -SL_ENOENT);
    CHECK_STR(list_runs(10), "run ");
    cluster_say(&cluster, "DEL %s:ingest:run:t%%3A1:run", account.prefix); /* Redis lost it. */
    CHECK_STR(read_run(0), "none");
    CHECK_STR(list_runs(10), "");
    cluster_stop(&cluster);
}

TEST(a_run_ends_when_all_its_documents_are_counted)
{
    start();
    CHECK_INT(begin("run"), 0);
    CHECK_INT(refuse("run", "x"), 0);
    CHECK_INT(refuse("run", "x"), 0);
    int64_t version = open_version("a", "m1");
    note("a", version, 0, 1, 1);
    CHECK_STR(run_json(),
              "{\"ingest_id\":\"run\",\"state\":\"running\",\"processed\":0,\"failed\":1,"
              "\"skipped\":0,\"total_chunks\":0,\"failures\":[{\"doc_id\":\"x\",\"reason\":"
              "\"unreadable\"}],\"documents\":null,\"stored_chunks\":1,\"source\":\"DIR\","
              "\"waiting_for\":\"not all documents are sent; 1 documents are being worked on\"}");
    CHECK_INT(close_run("run", 2), 0);
    end_done("a", version, 1);
    CHECK(strstr(run_json(), "\"waiting_for\":\"1 of 2 documents are not taken up\"") != NULL);
    CHECK_STR(list_runs(10), "run ");
    end_failed("b", open_version("b", "m2"), "bad");
    CHECK(strstr(run_json(), "\"state\":\"done\"") != NULL);
    CHECK(strstr(run_json(), "\"waiting_for\":null") != NULL);
    begin("later:1");
    CHECK_STR(list_runs(10), "later:1 run! ");
    CHECK_STR(list_runs(1), "later:1 ");
    cluster_stop(&cluster);
}

TEST(documents_are_listed_in_byte_order)
{
    start();
    CHECK_STR(list_documents("", 10), "");
    static const char *const ids[] = {"b", "a:c", "\xc3\xa4", "B"};
    for (size_t i = 0; i < 4; i++) {
        int64_t version = open_version(ids[i], ids[i]);
        note(ids[i], version, 0, 3, 3);
        end_done(ids[i], version, 3);
    }
    open_version("never", "m1"); /* Cannot be found yet. */
    CHECK_STR(list_documents("", 10), "B:3 a:c:3 b:3 \xc3\xa4:3 ");
    CHECK_STR(list_documents("", 2), "B:3 a:c:3 ...");
    CHECK_STR(list_documents("a:c", 2), "b:3 \xc3\xa4:3 ");
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
    {"a_batch_that_comes_again_around_the_end_leaves_nothing_behind",
     a_batch_that_comes_again_around_the_end_leaves_nothing_behind},
    {"an_unchanged_document_is_skipped", an_unchanged_document_is_skipped},
    {"the_way_there_and_back_ends_at_the_first", the_way_there_and_back_ends_at_the_first},
    {"a_removed_document_is_gone_at_once_and_can_come_back",
     a_removed_document_is_gone_at_once_and_can_come_back},
    {"a_message_that_comes_behind_later_ones_changes_nothing",
     a_message_that_comes_behind_later_ones_changes_nothing},
    {"a_document_taken_up_again_with_other_settings_begins_anew",
     a_document_taken_up_again_with_other_settings_begins_anew},
    {"chunks_wait_from_the_cut_to_the_store", chunks_wait_from_the_cut_to_the_store},
    {"a_version_that_redis_lost_is_told_so", a_version_that_redis_lost_is_told_so},
    {"a_failure_that_no_run_counts_is_for_somebody_else",
     a_failure_that_no_run_counts_is_for_somebody_else},
    {"tenants_and_runs_are_apart_and_everything_ends",
     tenants_and_runs_are_apart_and_everything_ends},
    {"a_run_is_listed_behind_hundreds_that_are_forgotten",
     a_run_is_listed_behind_hundreds_that_are_forgotten},
    {"a_redis_that_was_away_is_asked_again", a_redis_that_was_away_is_asked_again},
    {"a_cancelled_question_is_not_answered", a_cancelled_question_is_not_answered},
    {"only_a_run_that_was_begun_is_counted", only_a_run_that_was_begun_is_counted},
    {"a_run_ends_when_all_its_documents_are_counted",
     a_run_ends_when_all_its_documents_are_counted},
    {"documents_are_listed_in_byte_order", documents_are_listed_in_byte_order},
    {NULL, NULL},
};

int main(int argc, char **argv)
{
    return run_tests(cases, argc, argv);
}
