/* The SQLite store's calls: permits, deadlines, cancelling, and other processes at the same file.
 */
#include "tests/support/alloc_fail.h"
#include "tests/support/soon.h"
#include "tests/support/store_fixture.h"

#include "common/sqlite.h"
#include "common/store_sqlite_tables.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { DIM = 4, LEASES = 200, WRITERS = 3, BATCHES = 20, BATCH = 10 };

static struct store_fixture fixture;
static struct sl_store *store;
static const float east[DIM] = {1, 0, 0, 0};

static void start(void)
{
    store_fixture_start(&fixture);
    store = store_fixture_open(&fixture, fixture.sqlite_url);
}

static void stop(void)
{
    sl_store_close(store);
    store_fixture_stop(&fixture);
}

/* A batch of chunks with the same text, from one document. */
static struct sl_batch many(const char *doc_id, size_t len)
{
    static struct sl_span texts[LEASES];
    static float vectors[LEASES * DIM];
    CHECK(len <= LEASES);
    for (size_t i = 0; i < len; i++) {
        texts[i] = SL_SPAN("a lease");
        vectors[i * DIM] = 1;
    }
    return store_batch(doc_id, texts, len, vectors, DIM);
}

static void write_many(const char *doc_id, size_t len)
{
    struct sl_batch batch = many(doc_id, len);
    CHECK_INT(store_write(&fixture, store, &batch).err, 0);
}

static size_t count_text(const char *text, uint32_t top_k)
{
    struct sl_store_search search = store_search_text(&fixture, text);
    search.top_k = top_k;
    struct store_end end = store_find(&fixture, store, &search);
    CHECK_INT(end.err, 0);
    return end.len;
}

/* --- permits --- */

TEST(searches_take_turns_with_the_permits_there_are)
{
    enum { SEARCHES = 12 };
    struct store_end ends[SEARCHES];
    int ended = 0;
    start();
    write_many("d", LEASES);
    struct sl_store_search search = store_search_text(&fixture, "lease");
    for (size_t i = 0; i < SEARCHES; i++) {
        store_start(store, &search, &ends[i]);
    }
    while (ended < SEARCHES) {
        sl_loop_turn(fixture.cluster.loop, 100);
        CHECK(sl_permit_held(fixture.coord, LIMIT_CHAT) <= 2);
        ended = 0;
        for (size_t i = 0; i < SEARCHES; i++) {
            ended += ends[i].calls;
        }
    }
    for (size_t i = 0; i < SEARCHES; i++) {
        CHECK_INT(ends[i].err, 0);
        CHECK_INT(ends[i].len, 10);
    }
    stop();
}

TEST(the_permit_of_the_admission_is_used_and_given_back)
{
    struct test_permit own, other[2];
    struct store_end end;
    start();
    write_many("d", 3);
    test_permit_init(&own, fixture.coord, LIMIT_CHAT, false);
    test_permit_request(&own, 20000);
    SOON(fixture.cluster.loop, own.granted == 1);
    test_permit_init(&other[0], fixture.coord, LIMIT_CHAT, false);
    test_permit_request(&other[0], 20000);
    SOON(fixture.cluster.loop, other[0].granted == 1); /* Now none is left. */
    struct sl_store_search search = store_search_text(&fixture, "lease");
    search.permit = &own.permit;
    store_start(store, &search, &end);
    SOON(fixture.cluster.loop, end.calls == 1);
    CHECK_INT(end.len, 3);
    CHECK_INT(own.permit.state, SL_PERMIT_NONE);
    CHECK_INT(sl_permit_held(fixture.coord, LIMIT_CHAT), 1);
    sl_permit_release(fixture.coord, &other[0].permit);
    stop();
}

TEST(a_search_without_a_permit_by_its_deadline_expires)
{
    struct test_permit others[2];
    struct store_end end;
    start();
    for (size_t i = 0; i < 2; i++) {
        test_permit_init(&others[i], fixture.coord, LIMIT_CHAT, false);
        test_permit_request(&others[i], 20000);
        SOON(fixture.cluster.loop, others[i].granted == 1);
    }
    struct sl_store_search search = store_search_text(&fixture, "lease");
    search.deadline_ms = sl_coord_now_ms(fixture.coord) + 50;
    store_start(store, &search, &end);
    SOON(fixture.cluster.loop, end.calls == 1);
    CHECK_INT(end.err, -SL_EEXPIRED);
    for (size_t i = 0; i < 2; i++) {
        sl_permit_release(fixture.coord, &others[i].permit);
    }
    stop();
}

TEST(a_search_whose_permit_is_lost_fails)
{
    struct test_permit own;
    struct store_end end;
    start();
    write_many("d", LEASES);
    test_permit_init(&own, fixture.coord, LIMIT_CHAT, false);
    test_permit_request(&own, 20000);
    SOON(fixture.cluster.loop, own.granted == 1);
    struct sl_store_search search = store_search_text(&fixture, "lease");
    search.permit = &own.permit;
    store_start(store, &search, &end);
    sl_permit_release(fixture.coord, &own.permit); /* As the coord does when a lease runs out. */
    own.permit.on_lost(&own.permit);
    CHECK_INT(end.calls, 0);
    SOON(fixture.cluster.loop, end.calls == 1);
    CHECK_INT(end.err, -SL_ELOST);
    CHECK_INT(end.len, 0);
    stop();
}

/* --- ends that come early --- */

TEST(a_passed_deadline_starts_nothing)
{
    struct store_end end;
    struct store_end wrote = {.calls = 0};
    struct sl_store_call *call;
    start();
    struct sl_store_search search = store_search_text(&fixture, "lease");
    search.deadline_ms = sl_coord_now_ms(fixture.coord) - 1;
    store_start(store, &search, &end);
    struct sl_batch batch = many("d", 3);
    CHECK(sl_store_upsert(store, &batch, search.deadline_ms, store_on_done, &wrote, &call) == 0);
    SOON(fixture.cluster.loop, end.calls == 1 && wrote.calls == 1);
    CHECK_INT(end.err, -SL_EEXPIRED);
    CHECK_INT(wrote.err, -SL_EEXPIRED);
    CHECK_INT(count_text("lease", 10), 0);
    stop();
}

/* Holds the file's only write lock until it is released. */
static struct sl_sqlite *lock_file(void)
{
    struct sl_sqlite *db = NULL;
    char why[200];
    CHECK(sl_sqlite_open(fixture.sqlite_url + strlen("sqlite://"), 1000, &db, why, sizeof(why)) ==
          0);
    CHECK(sl_sqlite_exec(db, "BEGIN IMMEDIATE") == 0);
    return db;
}

static void unlock_file(struct sl_sqlite *db)
{
    CHECK(sl_sqlite_exec(db, "ROLLBACK") == 0);
    sl_sqlite_close(db);
}

TEST(a_write_that_waits_for_the_lock_ends_at_its_deadline)
{
    struct store_end wrote = {.calls = 0};
    struct sl_store_call *call;
    start();
    write_many("before", 1);
    struct sl_sqlite *lock = lock_file();
    struct sl_batch batch = many("d", 3);
    int64_t deadline_ms = sl_coord_now_ms(fixture.coord) + 50;
    CHECK(sl_store_upsert(store, &batch, deadline_ms, store_on_done, &wrote, &call) == 0);
    SOON(fixture.cluster.loop, wrote.calls == 1);
    CHECK_INT(wrote.err, -SL_EEXPIRED);
    CHECK_INT(count_text("lease", 10), 1); /* Readers do not wait for writers. */
    unlock_file(lock);
    write_many("after", 1); /* Waits until the thread has given up the other one. */
    CHECK_INT(count_text("lease", 10), 2);
    stop();
}

TEST(writes_beyond_a_bounded_number_are_refused)
{
    enum { WRITES = 200 };
    static struct store_end ends[WRITES];
    struct sl_store_call *calls[WRITES];
    size_t started = 0;
    int rv = 0;
    start();
    write_many("before", 1);
    struct sl_sqlite *lock = lock_file();
    struct sl_batch batch = many("d", 1);
    int64_t deadline_ms = sl_coord_now_ms(fixture.coord) + 20000;
    while (rv == 0 && started < WRITES) {
        ends[started] = (struct store_end){.calls = 0};
        rv = sl_store_upsert(store, &batch, deadline_ms, store_on_done, &ends[started],
                             &calls[started]);
        started += rv == 0;
    }
    CHECK_INT(rv, -SL_EAGAIN);
    unlock_file(lock);
    for (size_t i = 0; i < started; i++) {
        SOON(fixture.cluster.loop, ends[i].calls == 1);
        CHECK_INT(ends[i].err, 0);
    }
    stop();
}

TEST(of_writes_that_wait_together_only_those_at_fault_fail)
{
    enum { WRITES = 5, AT_FAULT = 2, CANCELLED = 3 };
    static const char *const names[WRITES] = {"first", "a", "b", "c", "d"};
    struct store_end ends[WRITES] = {{.calls = 0}};
    struct sl_store_call *calls[WRITES];
    start();
    write_many("before", 1);
    struct sl_sqlite *lock = lock_file();
    int64_t deadline_ms = sl_coord_now_ms(fixture.coord) + 20000;
    for (size_t i = 0; i < WRITES; i++) { /* The first is with the thread, the others wait. */
        struct sl_batch batch = many(names[i], 3);
        batch.dim = i == AT_FAULT ? DIM - 1 : DIM;
        CHECK(sl_store_upsert(store, &batch, deadline_ms, store_on_done, &ends[i], &calls[i]) == 0);
    }
    sl_store_cancel(calls[CANCELLED]);
    unlock_file(lock);
    SOON(fixture.cluster.loop,
         ends[0].calls + ends[1].calls + ends[AT_FAULT].calls + ends[4].calls == 4);
    CHECK_INT(ends[CANCELLED].calls, 0);
    for (size_t i = 0; i < WRITES; i++) {
        CHECK_INT(ends[i].err, i == AT_FAULT ? -SL_EINVAL : 0);
    }
    CHECK_INT(count_text("lease", 100), 1 + 3 * 3);
    stop();
}

TEST(a_write_that_is_cancelled_in_its_thread_leaves_those_beside_it)
{
    enum { WRITES = 5, CANCELLED = 3 };
    static const char *const names[WRITES] = {"first", "a", "b", "c", "d"};
    struct store_end ends[WRITES] = {{.calls = 0}};
    struct sl_store_call *calls[WRITES];
    start();
    write_many("before", 1);
    struct sl_sqlite *lock = lock_file();
    int64_t deadline_ms = sl_coord_now_ms(fixture.coord) + 20000;
    for (size_t i = 0; i < WRITES; i++) {
        struct sl_batch batch = many(names[i], 3);
        CHECK(sl_store_upsert(store, &batch, deadline_ms, store_on_done, &ends[i], &calls[i]) == 0);
    }
    sl_store_cancel(calls[0]); /* The thread that waited with it takes the others together. */
    MEANWHILE(fixture.cluster.loop, 100);
    sl_store_cancel(calls[CANCELLED]);
    unlock_file(lock);
    SOON(fixture.cluster.loop, ends[1].calls + ends[2].calls + ends[4].calls == 3);
    for (size_t i = 0; i < WRITES; i++) {
        CHECK_INT(ends[i].err, 0);
    }
    CHECK_INT(ends[0].calls + ends[CANCELLED].calls, 0);
    CHECK_INT(count_text("lease", 100), 1 + 3 * 3);
    stop();
}

TEST(a_cancelled_call_says_nothing_and_gives_its_permit_back)
{
    enum { ROUNDS = 20, CALLS = 6 };
    struct store_end ends[CALLS];
    struct sl_store_call *calls[CALLS];
    start();
    write_many("d", LEASES);
    for (int round = 0; round < ROUNDS; round++) {
        struct sl_store_search search = round % 2 == 0 ? store_search_text(&fixture, "lease")
                                                       : store_search_vector(&fixture, east, DIM);
        for (size_t i = 0; i < CALLS; i++) {
            calls[i] = store_start(store, &search, &ends[i]);
        }
        for (int turn = 0; turn < round; turn++) { /* Each round at another moment. */
            sl_loop_turn(fixture.cluster.loop, 1);
        }
        for (size_t i = 0; i < CALLS; i++) {
            if (ends[i].calls == 0) {
                sl_store_cancel(calls[i]);
                ends[i].calls = -1;
            }
        }
        CHECK_INT(sl_permit_held(fixture.coord, LIMIT_CHAT), 0);
        CHECK_INT(count_text("lease", 10), 10);
        for (size_t i = 0; i < CALLS; i++) {
            CHECK(ends[i].calls == -1 || ends[i].calls == 1);
        }
    }
    stop();
}

TEST(a_store_closes_while_cancelled_calls_are_still_in_its_threads)
{
    struct store_end ends[4];
    start();
    write_many("d", LEASES);
    for (int round = 0; round < 10; round++) {
        struct sl_store_call *calls[4];
        struct sl_batch batch = many("e", LEASES);
        struct sl_store_search search = store_search_text(&fixture, "lease");
        int64_t deadline_ms = search.deadline_ms;
        for (size_t i = 0; i < 3; i++) {
            calls[i] = store_start(store, &search, &ends[i]);
        }
        CHECK(sl_store_upsert(store, &batch, deadline_ms, store_on_done, &ends[3], &calls[3]) == 0);
        SOON(fixture.cluster.loop, sl_permit_held(fixture.coord, LIMIT_CHAT) > 0);
        for (size_t i = 0; i < 4; i++) {
            if (i == 3 || ends[i].calls == 0) {
                sl_store_cancel(calls[i]);
            }
        }
        sl_store_close(store);
        store = store_fixture_open(&fixture, fixture.sqlite_url);
    }
    stop();
}

static bool always(void *ctx)
{
    (void)ctx;
    return true;
}

TEST(what_is_stopped_leaves_the_tables_as_they_were)
{
    struct sl_tables *tables = NULL;
    struct sl_hit *hits;
    size_t len;
    char why[200];
    start();
    write_many("d", LEASES);
    CHECK(sl_tables_open(fixture.sqlite_url + strlen("sqlite://"), store_fixture_sqlite_vec(),
                         &tables, why, sizeof(why)) == 0);
    sl_tables_set_stop(tables, always, NULL);
    struct sl_store_search search = store_search_text(&fixture, "lease");
    CHECK_INT(sl_tables_search(tables, &search, &fixture.arena, &hits, &len, why, sizeof(why)),
              -SL_ECANCELLED);
    search = store_search_vector(&fixture, east, DIM);
    search.top_k = LEASES;
    CHECK_INT(sl_tables_search(tables, &search, &fixture.arena, &hits, &len, why, sizeof(why)),
              -SL_ECANCELLED);
    struct sl_batch batch = many("e", LEASES);
    CHECK_INT(sl_tables_upsert(tables, &batch, why, sizeof(why)), -SL_ECANCELLED);
    sl_tables_set_stop(tables, NULL, NULL);
    search = store_search_text(&fixture, "lease");
    search.top_k = 2 * LEASES;
    CHECK(sl_tables_search(tables, &search, &fixture.arena, &hits, &len, why, sizeof(why)) == 0);
    CHECK_INT(len, LEASES);
    search = store_search_vector(&fixture, east, DIM);
    search.top_k = 2 * LEASES;
    CHECK(sl_tables_search(tables, &search, &fixture.arena, &hits, &len, why, sizeof(why)) == 0);
    CHECK_INT(len, LEASES);
    sl_tables_close(tables);
    stop();
}

/* --- allocations that fail --- */

static int use_tables(struct sl_tables *tables, struct sl_arena *arena)
{
    struct sl_store_search search = store_search_text(&fixture, "lease");
    struct sl_batch batch = many("d", 5);
    struct sl_hit *hits;
    size_t len = 0;
    char why[200];
    int rv = sl_tables_upsert(tables, &batch, why, sizeof(why));
    rv = rv != 0 ? rv : sl_tables_search(tables, &search, arena, &hits, &len, why, sizeof(why));
    CHECK(rv != 0 || len == 5);
    search = store_search_vector(&fixture, east, DIM);
    rv = rv != 0 ? rv : sl_tables_search(tables, &search, arena, &hits, &len, why, sizeof(why));
    CHECK(rv != 0 || len == 5);
    return rv != 0 ? rv : sl_tables_delete_below(tables, &batch, 2, why, sizeof(why));
}

/* Opens, writes, searches and deletes once for each of their allocations, which fails. */
static void fail_each_allocation(void (*fail)(long k))
{
    bool failed = true;
    for (long k = 1; failed; k++) {
        struct sl_tables *tables = NULL;
        struct sl_arena arena;
        char why[200] = "";
        sl_arena_init(&arena, 1 << 20);
        fail(k);
        int rv = sl_tables_open(fixture.sqlite_url + strlen("sqlite://"),
                                store_fixture_sqlite_vec(), &tables, why, sizeof(why));
        rv = rv != 0 ? rv : use_tables(tables, &arena);
        failed = sl_test_alloc_failed();
        CHECK(failed || rv == 0);
        sl_tables_close(tables);
        sl_arena_fini(&arena);
    }
}

TEST(a_failed_allocation_of_ours_leaves_nothing_behind)
{
    start();
    fail_each_allocation(sl_test_fail_alloc);
    CHECK_INT(count_text("lease", 10), 0);
    write_many("d", 5);
    CHECK_INT(count_text("lease", 10), 5);
    stop();
}

TEST(a_call_that_cannot_be_started_for_want_of_memory_is_not_started)
{
    bool failed = true;
    start();
    write_many("d", 3);
    for (long k = 1; failed; k++) {
        struct store_end end = {.calls = 0};
        struct sl_store_call *call = NULL;
        struct sl_store_search search = store_search_text(&fixture, "lease");
        sl_test_fail_alloc(k);
        int rv = sl_store_search(store, &search, store_on_hits, &end, &call);
        failed = sl_test_alloc_failed();
        CHECK(failed || rv == 0);
        if (rv == 0) {
            SOON(fixture.cluster.loop, end.calls == 1);
            CHECK_INT(end.len, 3);
        } else {
            CHECK_INT(rv, -SL_ENOMEM);
        }
    }
    stop();
}

/* --- other processes --- */

/* The child's life: opens the file, which may not be there, and writes; both as the others do. */
static void write_as_process(const char *path, int number)
{
    struct sl_tables *tables = NULL;
    char why[200] = "";
    char doc_id[32];
    int rv = sl_tables_open(path, store_fixture_sqlite_vec(), &tables, why, sizeof(why));
    for (int i = 0; i < BATCHES && rv == 0; i++) {
        snprintf(doc_id, sizeof(doc_id), "w%d-%d", number, i);
        struct sl_batch batch = many(doc_id, BATCH);
        rv = sl_tables_upsert(tables, &batch, why, sizeof(why));
    }
    sl_tables_close(tables);
    if (rv != 0) {
        fprintf(stderr, "writer %d: %s\n", number, why);
    }
    _exit(rv == 0 ? 0 : 1);
}

TEST(processes_that_open_a_missing_file_and_write_at_once_all_succeed)
{
    pid_t pids[WRITERS];
    int gate[2];
    store_fixture_start(&fixture);
    CHECK(pipe2(gate, O_CLOEXEC) == 0);
    for (int i = 0; i < WRITERS; i++) {
        pids[i] = fork();
        CHECK(pids[i] >= 0);
        if (pids[i] == 0) {
            char byte;
            close(gate[1]);
            (void)!read(gate[0], &byte, 1); /* Until all are there. */
            write_as_process(fixture.sqlite_url + strlen("sqlite://"), i);
        }
    }
    close(gate[0]);
    close(gate[1]);
    store = store_fixture_open(&fixture, fixture.sqlite_url);
    for (int i = 0; i < WRITERS; i++) {
        int status = -1;
        CHECK(waitpid(pids[i], &status, 0) == pids[i]);
        CHECK_INT(status, 0);
    }
    CHECK_INT(count_text("lease", 2000), WRITERS * BATCHES * BATCH);
    struct sl_store_search search = store_search_vector(&fixture, east, DIM);
    search.top_k = 2000;
    CHECK_INT(store_find(&fixture, store, &search).len, WRITERS * BATCHES * BATCH);
    stop();
}

/* --- opening --- */

static int open_error(const char *url, const char *vec, char *why, size_t why_size)
{
    struct sl_store *opened = NULL;
    struct sl_store_env env = store_fixture_env(&fixture);
    env.sqlite_vec_path = vec;
    why[0] = '\0';
    int rv = sl_store_open(url, &env, &opened, why, why_size);
    CHECK(rv != 0 && why[0] != '\0' && opened == NULL);
    return rv;
}

static void write_file(const char *path, const char *bytes)
{
    FILE *file = fopen(path, "w");
    CHECK(file != NULL && fputs(bytes, file) >= 0 && fclose(file) == 0);
}

TEST(what_cannot_be_opened_is_refused_with_a_reason)
{
    char why[300];
    char path[128];
    char url[160];
    struct sl_sqlite *db = NULL;
    store_fixture_start(&fixture);
    const char *vec = store_fixture_sqlite_vec();
    CHECK_INT(open_error("sqlite://relative.db", vec, why, sizeof(why)), -SL_EINVAL);
    CHECK_INT(open_error("sqlite:///", vec, why, sizeof(why)), -SL_EINVAL);
    CHECK_INT(open_error("mysql://host/x", vec, why, sizeof(why)), -SL_EINVAL);
    CHECK_INT(open_error("sqlite:///nowhere/at/all.db", vec, why, sizeof(why)), -SL_EIO);
    CHECK(strstr(why, "/nowhere/at/all.db") != NULL);
    CHECK_INT(open_error(fixture.sqlite_url, "./no-such-extension", why, sizeof(why)), -SL_EIO);
    CHECK(strstr(why, "sqlite-vec") != NULL && strstr(why, "no-such-extension") != NULL);

    snprintf(path, sizeof(path), "%s/text.db", fixture.dir);
    snprintf(url, sizeof(url), "sqlite://%s", path);
    write_file(path,
               "This is no database, however long one looks at it. It is a text. It is. ....."
               "............................................................................");
    CHECK_INT(open_error(url, vec, why, sizeof(why)), -SL_EIO);

    snprintf(path, sizeof(path), "%s/other.db", fixture.dir);
    snprintf(url, sizeof(url), "sqlite://%s", path);
    CHECK(sl_sqlite_open(path, 1000, &db, why, sizeof(why)) == 0);
    CHECK(sl_sqlite_exec(db, "CREATE TABLE bookmarks(url)") == 0);
    CHECK_INT(open_error(url, vec, why, sizeof(why)), -SL_EIO);
    CHECK(strstr(why, "another program") != NULL);
    CHECK(sl_sqlite_exec(db, "PRAGMA user_version = 99") == 0);
    CHECK_INT(open_error(url, vec, why, sizeof(why)), -SL_EVERSION);
    sl_sqlite_close(db);
    store_fixture_stop(&fixture);
}

#define CASE(name)                                                                                 \
    {                                                                                              \
#name, name                                                                                \
    }
static const struct test_case cases[] = {
    CASE(searches_take_turns_with_the_permits_there_are),
    CASE(the_permit_of_the_admission_is_used_and_given_back),
    CASE(a_search_without_a_permit_by_its_deadline_expires),
    CASE(a_search_whose_permit_is_lost_fails),
    CASE(a_passed_deadline_starts_nothing),
    CASE(a_write_that_waits_for_the_lock_ends_at_its_deadline),
    CASE(writes_beyond_a_bounded_number_are_refused),
    CASE(of_writes_that_wait_together_only_those_at_fault_fail),
    CASE(a_write_that_is_cancelled_in_its_thread_leaves_those_beside_it),
    CASE(a_cancelled_call_says_nothing_and_gives_its_permit_back),
    CASE(a_store_closes_while_cancelled_calls_are_still_in_its_threads),
    CASE(what_is_stopped_leaves_the_tables_as_they_were),
    CASE(a_failed_allocation_of_ours_leaves_nothing_behind),
    CASE(a_call_that_cannot_be_started_for_want_of_memory_is_not_started),
    CASE(processes_that_open_a_missing_file_and_write_at_once_all_succeed),
    CASE(what_cannot_be_opened_is_refused_with_a_reason),
    {NULL, NULL},
};

int main(int argc, char **argv)
{
    return run_tests(cases, argc, argv);
}
