/*
 * What the conformance suite does not ask of the Redis store: a server that is away, dies, stands
 * still, wants a password or has no Query Engine, and indexes that other programs made.
 */
#include "tests/support/alloc_fail.h"
#include "tests/support/soon.h"
#include "tests/support/store_fixture.h"

enum { DIM = 4 };

static struct store_fixture fixture;
static struct redis_fixture *server;
static struct sl_store *store;
static const float east[DIM] = {1}, north[DIM] = {0, 1};

static void start_server(const char *password)
{
    store_fixture_start(&fixture);
    server = redis_fixture_create(
        &(struct redis_fixture_options){.query_engine = true, .password = password});
    redis_fixture_start(server);
}

static const char *url(const char *name)
{
    static char text[256];
    snprintf(text, sizeof(text), "%s/%s", redis_fixture_url(server), name);
    return text;
}

static void start(void)
{
    start_server(NULL);
    store = store_fixture_open(&fixture, url("chunks"));
}

static void stop(void)
{
    sl_store_close(store);
    store = NULL;
    redis_fixture_destroy(server);
    store_fixture_stop(&fixture);
}

/* A command of words with spaces between; "%b" is the bytes of `east`. */
static void say(const char *line)
{
    char copy[512];
    struct sl_span argv[64];
    size_t argc = 0;
    snprintf(copy, sizeof(copy), "%s", line);
    for (char *rest = copy, *word; (word = strsep(&rest, " ")) != NULL;) {
        CHECK(argc < 64);
        argv[argc++] = strcmp(word, "%b") == 0 ? (struct sl_span){(const char *)east, sizeof(east)}
                                               : sl_span_of(word);
    }
    redis_say(redis_fixture_port(server), argc, argv);
}

static struct sl_batch one(const char *doc_id, const char *text)
{
    static struct sl_span texts[1];
    texts[0] = sl_span_of(text);
    return store_batch(doc_id, texts, 1, east, DIM);
}

static struct store_end write_one(const char *doc_id, const char *text)
{
    const struct sl_batch batch = one(doc_id, text);
    return store_write(&fixture, store, &batch);
}

static struct store_end find(struct sl_store_search search)
{
    return store_find(&fixture, store, &search);
}

static struct store_end find_vector(void)
{
    return find(store_search_vector(&fixture, east, DIM));
}

static struct store_end find_text(const char *text)
{
    return find(store_search_text(&fixture, text));
}

/* Searches until the server is there again. */
static void soon_found(size_t count)
{
    struct store_end end = {.calls = 0};
    for (int tries = 0; tries < 300 && (end.calls == 0 || end.err != 0); tries++) {
        end = find_vector();
        if (end.err != 0) {
            MEANWHILE(fixture.cluster.loop, 50);
        }
    }
    CHECK_INT(end.err, 0);
    CHECK_INT(end.len, count);
}

/* --- the server --- */

TEST(a_server_that_is_away_fails_calls_for_another_try_and_is_found_when_it_comes)
{
    start_server(NULL);
    redis_fixture_stop(server);
    store = store_fixture_open(&fixture, url("chunks"));
    struct store_end end = write_one("d", "lease");
    CHECK_INT(sl_error_class(end.err), SL_CLASS_RETRY);
    CHECK(strstr(end.detail, "refused") != NULL);
    CHECK_INT(sl_error_class(find_vector().err), SL_CLASS_RETRY);
    redis_fixture_start(server);
    soon_found(0);
    CHECK_INT(write_one("d", "lease").err, 0);
    soon_found(1);
    stop();
}

TEST(a_server_that_dies_fails_what_is_on_its_way_and_gets_its_index_again)
{
    enum { WRITES = 8 };
    struct store_end ends[WRITES] = {{.calls = 0}};
    struct sl_store_call *calls[WRITES];
    int ended = 0;
    start();
    CHECK_INT(write_one("d", "lease").err, 0);
    int64_t deadline_ms = sl_coord_now_ms(fixture.coord) + 20000;
    redis_fixture_pause(server);
    for (size_t i = 0; i < WRITES; i++) {
        const struct sl_batch batch = one("d", "lease");
        CHECK(sl_store_upsert(store, &batch, deadline_ms, store_on_done, &ends[i], &calls[i]) == 0);
    }
    MEANWHILE(fixture.cluster.loop, 50);
    redis_fixture_kill(server);
    for (size_t i = 0; i < WRITES; i++) {
        SOON(fixture.cluster.loop, ends[i].calls == 1);
        ended += ends[i].calls;
        CHECK_INT(ends[i].err, -SL_ECONN);
    }
    CHECK_INT(ended, WRITES);
    redis_fixture_start(server); /* Without its data. */
    soon_found(0);
    CHECK_INT(write_one("e", "lease").err, 0);
    soon_found(1);
    stop();
}

TEST(a_server_that_stands_still_is_waited_for_until_the_deadline)
{
    start();
    CHECK_INT(write_one("d", "lease").err, 0);
    redis_fixture_pause(server);
    struct sl_store_search search = store_search_vector(&fixture, east, DIM);
    search.deadline_ms = sl_coord_now_ms(fixture.coord) + 300;
    CHECK_INT(find(search).err, -SL_EEXPIRED);
    CHECK_INT(sl_permit_held(fixture.coord, LIMIT_CHAT), 0);
    struct store_end end;
    struct sl_store_call *call = store_start(store, &search, &end);
    sl_store_cancel(call);
    redis_fixture_resume(server);
    soon_found(1);
    CHECK_INT(end.calls, 0);
    stop();
}

TEST(a_store_closes_while_what_was_cancelled_has_no_answer_yet)
{
    struct store_end end;
    start();
    CHECK_INT(write_one("d", "lease").err, 0);
    redis_fixture_pause(server);
    struct sl_store_search search = store_search_text(&fixture, "lease");
    struct sl_store_call *call = store_start(store, &search, &end);
    MEANWHILE(fixture.cluster.loop, 50); /* It has its permit and is sent. */
    sl_store_cancel(call);
    stop();
    CHECK_INT(end.calls, 0);
}

TEST(writes_beyond_a_bounded_number_are_refused)
{
    enum { MANY = 200 };
    struct store_end ends[MANY] = {{.calls = 0}};
    struct sl_store_call *calls[MANY];
    size_t started = 0;
    int rv = 0;
    start();
    int64_t deadline_ms = sl_coord_now_ms(fixture.coord) + 20000;
    while (rv == 0 && started < MANY) {
        const struct sl_batch batch = one("d", "lease");
        rv = sl_store_upsert(store, &batch, deadline_ms, store_on_done, &ends[started],
                             &calls[started]);
        started += rv == 0;
    }
    CHECK_INT(rv, -SL_EAGAIN);
    for (size_t i = 0; i < started; i++) {
        SOON(fixture.cluster.loop, ends[i].calls == 1);
        CHECK_INT(ends[i].err, 0);
    }
    CHECK_INT(write_one("d", "lease").err, 0);
    stop();
}

/* --- what cannot be opened --- */

static int open_error(const char *address, char *why, size_t why_size)
{
    const struct sl_store_env env = store_fixture_env(&fixture);
    struct sl_store *opened = NULL;
    int rv = sl_store_open(address, &env, &opened, why, why_size);
    sl_store_close(rv == 0 ? opened : NULL);
    return rv;
}

TEST(what_cannot_be_opened_is_refused_with_a_reason_and_without_the_password)
{
    static const struct {
        const char *url, *says;
    } cases[] = {
        {"redis://:hush@127.0.0.1:1", "INDEX"},
        {"redis://:hush@127.0.0.1:1/", "INDEX"},
        {"redis://:hush@127.0.0.1:1/a:b", "INDEX"},
        {"redis://:hush@127.0.0.1:1/a*", "INDEX"},
        {"redis://:hush@127.0.0.1:x/chunks", "port"},
        {"redis://hush@127.0.0.1:1/chunks", "password"},
        {"rediss://:hush@127.0.0.1:1/chunks", "scheme"},
    };
    store_fixture_start(&fixture);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char why[300] = "";
        CHECK_INT(open_error(cases[i].url, why, sizeof(why)), -SL_EINVAL);
        if (strstr(why, cases[i].says) == NULL || strstr(why, "hush") != NULL) {
            fprintf(stderr, "%s: \"%s\" does not say \"%s\"\n", cases[i].url, why, cases[i].says);
            abort();
        }
    }
    store_fixture_stop(&fixture);
}

TEST(a_redis_without_the_query_engine_is_refused)
{
    char address[300], why[300] = "";
    store_fixture_start(&fixture);
    snprintf(address, sizeof(address), "%s/chunks", redis_fixture_url(fixture.cluster.redis));
    CHECK_INT(open_error(address, why, sizeof(why)), -SL_EINVAL);
    CHECK(strstr(why, "Query Engine") != NULL);
    store_fixture_stop(&fixture);
}

TEST(a_password_opens_a_server_that_wants_one)
{
    start_server("hush");
    store = store_fixture_open(&fixture, url("chunks"));
    CHECK_INT(write_one("d", "lease").err, 0);
    soon_found(1);
    stop();
}

/* --- indexes of other programs --- */

TEST(an_index_of_another_program_is_searched_and_not_written_to)
{
    const struct sl_pair filter = {SL_SPAN("lang"), SL_SPAN("de")};
    start_server(NULL);
    say("FT.CREATE theirs ON HASH PREFIX 1 doc: SCHEMA tenant TAG collection TAG text TEXT "
        "embedding VECTOR FLAT 6 TYPE FLOAT32 DIM 4 DISTANCE_METRIC COSINE");
    say("HSET doc:1 text lease embedding %b metadata {\"lang\":\"en\"}");
    say("HSET doc:2 text lease embedding %b metadata {\"lang\":\"de\"} chunk_index 3 doc_id two");
    say("HSET doc:3 text lease embedding %b tenant acme");
    say("HSET doc:4 text lease embedding %b tenant acme,default collection manuals");
    store = store_fixture_open(&fixture, url("theirs"));
    CHECK_INT(sl_store_dim(store), DIM);
    CHECK_INT(find_vector().len, 2);
    CHECK_INT(find_text("lease").len, 2);
    struct sl_store_search searches[] = {store_search_vector(&fixture, east, DIM),
                                         store_search_text(&fixture, "leases")};
    for (size_t i = 0; i < 2; i++) {
        searches[i].scope.filter = &filter;
        searches[i].scope.filter_len = 1;
        struct store_end end = find(searches[i]);
        CHECK_INT(end.len, 1);
        CHECK(sl_span_is(end.hits[0].doc_id, "two") && sl_span_is(end.hits[0].chunk_id, "two_3"));
        CHECK_INT(end.hits[0].version, 0);
        searches[i].scope.filter_len = 0;
        searches[i].scope.tenant = SL_SPAN("acme");
        end = find(searches[i]);
        CHECK_INT(end.len, 1);
        CHECK(sl_span_is(end.hits[0].doc_id, "doc:3"));
    }
    struct store_end end = write_one("d", "lease");
    CHECK_INT(end.err, -SL_EREJECTED);
    CHECK(strstr(end.detail, "theirs:") != NULL);
    const struct sl_batch document = one("two", "");
    CHECK_INT(store_delete_below(&fixture, store, &document, 9).err, 0);
    CHECK_INT(find_vector().len, 2);
    stop();
}

TEST(an_index_without_scopes_is_the_default_one)
{
    start_server(NULL);
    say("FT.CREATE plain ON HASH PREFIX 1 doc: SCHEMA text TEXT "
        "embedding VECTOR HNSW 6 TYPE FLOAT32 DIM 4 DISTANCE_METRIC COSINE");
    say("HSET doc:1 text lease embedding %b");
    store = store_fixture_open(&fixture, url("plain"));
    CHECK_INT(find_vector().len, 1);
    CHECK_INT(find_text("lease").len, 1);
    struct sl_store_search search = store_search_vector(&fixture, east, DIM);
    search.scope.tenant = SL_SPAN("acme");
    CHECK_INT(find(search).len, 0);
    stop();
}

TEST(words_without_meaning_to_redis_find_nothing)
{
    start();
    CHECK_INT(write_one("d", "the lease of max_poll_interval").err, 0);
    soon_found(1);
    CHECK_INT(find_text("the of").len, 0);
    CHECK_INT(find_text("the nothing").len, 0);
    CHECK_INT(find_text("what is the max_poll_interval?").len, 1);
    stop();
}

TEST(an_index_that_is_dropped_is_noticed_by_searches)
{
    start();
    CHECK_INT(write_one("d", "lease").err, 0);
    soon_found(1);
    say("FT.DROPINDEX chunks DD");
    CHECK_INT(find_vector().err, 0);
    CHECK_INT(write_one("d", "lease").err, 0);
    soon_found(1);
    stop();
}

/* What a delete does not find stays for ever. */
TEST(a_delete_waits_until_an_index_is_built_over_what_was_there)
{
    static const char *const ids[] = {"a", "b", "c", "d", "e", "f", "g", "h"};
    enum { IDS = sizeof(ids) / sizeof(ids[0]), TRIES = 600 };
    start();
    for (size_t i = 0; i < IDS; i++) {
        CHECK_INT(write_one(ids[i], "lease").err, 0);
    }
    say("EVAL for\ti=1,30000\tdo\tredis.call('HSET','chunks:'..i,'text','permit'..i)\tend 0");
    say("FT.DROPINDEX chunks");
    CHECK_INT(find_vector().err, 0);               /* It notices. */
    CHECK_INT(write_one("other", "lease").err, 0); /* The index is made again. */
    for (size_t i = 0; i < IDS; i++) {
        const struct sl_batch document = one(ids[i], "");
        struct store_end end = {.err = -SL_EUPSTREAM};
        for (int tries = 0; tries < TRIES && end.err == -SL_EUPSTREAM; tries++) {
            end = store_delete_below(&fixture, store, &document, document.version + 1);
            if (end.err != 0) {
                MEANWHILE(fixture.cluster.loop, 20);
            }
        }
        CHECK_STR(end.detail, "");
        CHECK_INT(end.err, 0);
    }
    say("EVAL if\t#redis.call('KEYS','*,7:default,?:*')>0\tthen\terror('left')\tend 0");
    soon_found(1);
    stop();
}

/* --- memory --- */

/* Each of a call's own allocations fails once: it is not started, or ends with an error. */
TEST(a_failed_allocation_fails_the_call_and_nothing_else)
{
    bool failed = true;
    start();
    CHECK_INT(write_one("d", "lease").err, 0);
    soon_found(1);
    for (long k = 1; failed; k++) {
        struct store_end ends[3] = {{.calls = 0}};
        struct sl_store_call *call = NULL;
        struct sl_store_search search = store_search_vector(&fixture, north, DIM);
        const struct sl_batch batch = one("d", "lease");
        int64_t deadline_ms = search.deadline_ms;
        sl_test_fail_alloc(k);
        int rvs[] = {
            sl_store_search(store, &search, store_on_hits, &ends[0], &call),
            sl_store_upsert(store, &batch, deadline_ms, store_on_done, &ends[1], &call),
            sl_store_delete_version(store, &batch, 9, deadline_ms, store_on_done, &ends[2], &call)};
        failed = sl_test_alloc_failed();
        for (size_t i = 0; i < 3; i++) {
            CHECK(rvs[i] == 0 || rvs[i] == -SL_ENOMEM);
            SOON(fixture.cluster.loop, rvs[i] != 0 || ends[i].calls == 1);
            CHECK(ends[i].calls == (rvs[i] == 0));
            CHECK(ends[i].err == 0 || ends[i].err == -SL_ENOMEM);
            CHECK(failed || (rvs[i] == 0 && ends[i].err == 0));
        }
    }
    soon_found(1);
    stop();
}

#define CASE(name)                                                                                 \
    {                                                                                              \
#name, name                                                                                \
    }
static const struct test_case cases[] = {
    CASE(a_server_that_is_away_fails_calls_for_another_try_and_is_found_when_it_comes),
    CASE(a_server_that_dies_fails_what_is_on_its_way_and_gets_its_index_again),
    CASE(a_server_that_stands_still_is_waited_for_until_the_deadline),
    CASE(a_store_closes_while_what_was_cancelled_has_no_answer_yet),
    CASE(writes_beyond_a_bounded_number_are_refused),
    CASE(what_cannot_be_opened_is_refused_with_a_reason_and_without_the_password),
    CASE(a_redis_without_the_query_engine_is_refused),
    CASE(a_password_opens_a_server_that_wants_one),
    CASE(an_index_of_another_program_is_searched_and_not_written_to),
    CASE(an_index_without_scopes_is_the_default_one),
    CASE(words_without_meaning_to_redis_find_nothing),
    CASE(an_index_that_is_dropped_is_noticed_by_searches),
    CASE(a_delete_waits_until_an_index_is_built_over_what_was_there),
    CASE(a_failed_allocation_fails_the_call_and_nothing_else),
    {NULL, NULL},
};

int main(int argc, char **argv)
{
    return run_tests(cases, argc, argv);
}
