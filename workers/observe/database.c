/*
 * Rows for PostgreSQL. One statement is under way at a time; rows that come meanwhile wait, and are
 * the next statement together: alone they are stored at once, under load in batches.
 *
 * After each connection the tables are looked at first. Where they are missing or of an older
 * version they are made, step by step, in one transaction under an advisory lock, so that of
 * several workers that start together one makes them and the others find them made. Tables of a
 * newer version are left alone, and nothing is written until this worker is upgraded.
 *
 * A batch is one INSERT whose only parameter is a JSON array of the records: it is its own
 * transaction, and what is stored already by (tenant, query_id) it passes over. So a batch of which
 * nobody knows whether it was committed is simply sent again.
 *
 * What can go wrong: the server is away, slow or refuses (rows wait, and with them the jobs that
 * own them, of which there are no more than slots); a batch has a row that the server cannot store
 * (its rows are tried one by one, and the one at fault is reported).
 *
 * To change the tables: a further step at the end of `steps`, and its columns in `insert`.
 */
#include "workers/observe/database.h"

#include "common/admin.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/postgres.h"
#include "common/worker.h"

#include <stdio.h>
#include <stdlib.h>

enum {
    BATCH_ROWS = 500,
    BATCH_BYTES = 8 << 20, /* At which no further row joins; one alone may be larger. */
    BUF_MAX = 64 << 20,
    STATEMENT_MS = 30000,
    SCHEMA_MS = 120000, /* Another worker may hold the lock meanwhile. */
    AGAIN_MS = 1000,
};

struct database {
    struct sl_worker *worker;
    struct sl_loop *loop;
    struct sl_postgres *postgres;
    struct sl_condition *condition;
    struct sl_list waiting, flying;
    size_t waiting_count, flying_count;
    size_t alone; /* So many of the next rows are each a batch. */
    bool usable;  /* Connected, and the tables are there. */
    struct sl_task next;
    struct sl_timer again;
    uint64_t began_us;
    struct sl_counter *inserted, *repeated, *refused, *failures;
    struct sl_gauge *rows_waiting;
    struct sl_histogram *seconds;
};

/* --- the tables --- */

static const char *const steps[] = {
    "CREATE TABLE sluice_queries ("
    " tenant text NOT NULL,"
    " query_id text NOT NULL,"
    " collection text NOT NULL,"
    " time timestamptz NOT NULL,"
    " query text NOT NULL,"
    " response_preview text NOT NULL,"
    " outcome text NOT NULL,"
    " error_code text NOT NULL,"
    " error_stage text NOT NULL,"
    " model text NOT NULL,"
    " latency_ms bigint NOT NULL,"
    " ttft_ms bigint NOT NULL,"
    " retrieval_latency_ms bigint NOT NULL,"
    " generation_latency_ms bigint NOT NULL,"
    " prompt_tokens bigint NOT NULL,"
    " completion_tokens bigint NOT NULL,"
    " tokens_estimated boolean NOT NULL,"
    " degraded text[] NOT NULL,"
    " stages jsonb NOT NULL,"
    " sources jsonb NOT NULL,"
    " quality jsonb,"
    " PRIMARY KEY (tenant, query_id))",
    "CREATE INDEX sluice_queries_time ON sluice_queries (time)",
};
enum { VERSION = sizeof(steps) / sizeof(steps[0]) };

static const char read_version[] = "SELECT coalesce(max(version), 0) FROM sluice_schema";

/* The lock's number is any that nobody else uses; it goes with the transaction. */
static const char begin_schema[] =
    "BEGIN;"
    "SELECT pg_advisory_xact_lock(7308332045);"
    "CREATE TABLE IF NOT EXISTS sluice_schema"
    " (version integer PRIMARY KEY, applied timestamptz NOT NULL DEFAULT now());"
    "SELECT coalesce(max(version), 0) FROM sluice_schema";

static const char insert[] =
    "INSERT INTO sluice_queries (tenant, query_id, collection, time, query, response_preview,"
    " outcome, error_code, error_stage, model, latency_ms, ttft_ms, retrieval_latency_ms,"
    " generation_latency_ms, prompt_tokens, completion_tokens, tokens_estimated, degraded, stages,"
    " sources, quality) "
    "SELECT tenant, query_id, collection, to_timestamp(time / 1000.0), query, response_preview,"
    " outcome, error_code, error_stage, model, latency_ms, ttft_ms, retrieval_latency_ms,"
    " generation_latency_ms, (usage->>'prompt_tokens')::bigint,"
    " (usage->>'completion_tokens')::bigint, (usage->>'estimated')::boolean, degraded, stages,"
    " sources, quality "
    "FROM jsonb_to_recordset($1::jsonb) AS r(tenant text, query_id text, collection text,"
    " time bigint, query text, response_preview text, outcome text, error_code text,"
    " error_stage text, model text, latency_ms bigint, ttft_ms bigint,"
    " retrieval_latency_ms bigint, generation_latency_ms bigint, usage jsonb, degraded text[],"
    " stages jsonb, sources jsonb, quality jsonb) "
    "ON CONFLICT (tenant, query_id) DO NOTHING";

static void go_on(struct database *database);

static void set_usable(struct database *database, bool usable, const char *why)
{
    if (usable && !database->usable) {
        sl_log(SL_LOG_INFO, "the database is usable", SL_STR("variable", "SLUICE_ANALYTICS_URL"));
    } else if (!usable) {
        sl_counter_add(database->failures, 1);
        sl_log(SL_LOG_WARN, "the database is not usable",
               SL_STR("variable", "SLUICE_ANALYTICS_URL"), SL_STR("why", why));
    }
    database->usable = usable;
    sl_condition_set(database->condition, usable, usable ? "" : why);
}

/* Something about the tables did not work: all of it is begun again with a new connection. */
static void drop(struct database *database, const char *why)
{
    database->usable = false;
    sl_postgres_drop(database->postgres, why);
}

/* The next statement about the tables. */
static void ask(struct database *database, const char *sql, sl_postgres_cb *cb)
{
    if (sl_postgres_query(database->postgres, sql, NULL, 0, SCHEMA_MS, cb, database) != 0) {
        database->usable = false; /* on_down follows. */
    }
}

static long long version_of(const struct sl_postgres_result *result)
{
    long long version;
    return sl_span_to_int(sl_postgres_value(result, 0, 0), 0, 1000000, &version) == 0 ? version
                                                                                      : -1;
}

static void on_tables(struct database *database, long long version)
{
    char why[160];
    if (version == VERSION) {
        sl_postgres_settled(database->postgres);
        set_usable(database, true, "");
        go_on(database);
        return;
    }
    snprintf(why, sizeof(why),
             "its tables are of version %lld, and this program knows those up to %d: upgrade it",
             version, VERSION);
    drop(database, why);
}

static void on_committed(void *ctx, const struct sl_postgres_result *result)
{
    if (result->err == 0) {
        on_tables(ctx, VERSION);
    } else {
        drop(ctx, result->why);
    }
}

/* Under the lock: what is missing, and the end of the transaction. */
static void on_locked(void *ctx, const struct sl_postgres_result *result)
{
    struct database *database = ctx;
    struct sl_buf sql;
    if (result->err != 0) {
        drop(database, result->why);
        return;
    }
    long long version = version_of(result);
    if (version < 0 || version > VERSION) {
        on_tables(database, version);
        return;
    }
    sl_buf_init(&sql, 1 << 16);
    for (long long i = version; i < VERSION; i++) {
        sl_buf_printf(&sql, "%s;INSERT INTO sluice_schema (version) VALUES (%lld);", steps[i],
                      i + 1);
    }
    sl_buf_append(&sql, "COMMIT", sizeof("COMMIT"));
    if (sl_buf_error(&sql) == 0) {
        ask(database, sql.data, on_committed);
    } else {
        drop(database, sl_error_text(sl_buf_error(&sql)));
    }
    sl_buf_fini(&sql);
}

/* First without the lock: who may only insert can do this. */
static void on_version(void *ctx, const struct sl_postgres_result *result)
{
    struct database *database = ctx;
    bool missing = result->err != 0 && strcmp(result->sqlstate, "42P01") == 0;
    long long version = result->err == 0 ? version_of(result) : 0;
    if (result->err != 0 && !missing) {
        drop(database, result->why);
    } else if (version >= VERSION) {
        on_tables(database, version);
    } else {
        ask(database, begin_schema, on_locked);
    }
}

static void on_up(void *ctx)
{
    ask(ctx, read_version, on_version);
}

static void on_down(void *ctx, const char *why)
{
    set_usable(ctx, false, why);
}

/* --- batches --- */

static void count_waiting(struct database *database)
{
    sl_gauge_set(database->rows_waiting,
                 (double)(database->waiting_count + database->flying_count));
}

static struct database_row *row_of(struct sl_list *node)
{
    return SL_ITEM(node, struct database_row, node);
}

/* In the order in which they came, before those that came later. */
static void put_back(struct database *database)
{
    struct sl_list later;
    sl_list_init(&later);
    struct sl_list *node;
    while ((node = sl_list_first(&database->waiting)) != NULL) {
        sl_list_remove(node);
        sl_list_push(&later, node);
    }
    while ((node = sl_list_first(&database->flying)) != NULL) {
        sl_list_remove(node);
        sl_list_push(&database->waiting, node);
    }
    while ((node = sl_list_first(&later)) != NULL) {
        sl_list_remove(node);
        sl_list_push(&database->waiting, node);
    }
    database->waiting_count += database->flying_count;
    database->flying_count = 0;
}

static void report(struct database *database, int err, const char *why)
{
    struct sl_list *node;
    while ((node = sl_list_first(&database->flying)) != NULL) {
        sl_list_remove(node);
        database->flying_count--;
        struct database_row *row = row_of(node);
        row->on_stored(row, err, why);
    }
}

static void on_again(struct sl_timer *timer)
{
    go_on(SL_ITEM(timer, struct database, again));
}

static void on_refused(struct database *database, const struct sl_postgres_result *result)
{
    bool data = result->err == -SL_EINVAL;
    if (data && database->flying_count <= 1) {
        sl_counter_add(database->refused, database->flying_count);
        report(database, -SL_EINVAL, result->why);
        return;
    }
    database->alone = data ? database->flying_count : database->alone;
    put_back(database);
    if (!data) {
        sl_counter_add(database->failures, 1);
        sl_log(SL_LOG_WARN, "rows not stored, trying again", SL_STR("why", result->why),
               SL_INT("rows", database->waiting_count));
    }
    if (result->err == -SL_EREJECTED) { /* The tables may be gone. */
        drop(database, result->why);
    } else if (result->err == -SL_EUPSTREAM) {
        sl_timer_start(database->loop, &database->again, AGAIN_MS, on_again);
    }
}

static void on_inserted(void *ctx, const struct sl_postgres_result *result)
{
    struct database *database = ctx;
    sl_histogram_observe(database->seconds, (double)(sl_clock_now_us() - database->began_us) / 1e6);
    if (result->err == 0) {
        uint64_t rows = database->flying_count;
        uint64_t stored = (uint64_t)result->affected;
        sl_counter_add(database->inserted, stored);
        sl_counter_add(database->repeated, rows > stored ? rows - stored : 0);
        report(database, 0, "");
    } else {
        on_refused(database, result);
    }
    count_waiting(database);
    go_on(database);
}

/* Moves the next rows to `flying`, and writes them as one array. */
static void gather(struct database *database, struct sl_buf *json)
{
    size_t most = database->alone > 0 ? 1 : BATCH_ROWS;
    struct sl_list *node;
    database->alone -= database->alone > 0 ? 1 : 0;
    sl_buf_append_text(json, "[");
    while (database->flying_count < most && json->len < BATCH_BYTES &&
           (node = sl_list_first(&database->waiting)) != NULL) {
        sl_list_remove(node);
        sl_list_push(&database->flying, node);
        database->waiting_count--;
        database->flying_count++;
        sl_buf_append_text(json, database->flying_count > 1 ? "," : "");
        sl_buf_append_span(json, row_of(node)->json);
    }
    sl_buf_append_text(json, "]");
}

static void on_next(struct sl_task *task)
{
    struct database *database = SL_ITEM(task, struct database, next);
    if (!database->usable || database->flying_count > 0 || database->waiting_count == 0 ||
        sl_timer_active(&database->again) || !sl_postgres_ready(database->postgres)) {
        return;
    }
    struct sl_buf json;
    sl_buf_init(&json, BUF_MAX);
    gather(database, &json);
    struct sl_span param = sl_buf_span(&json);
    int rv = sl_buf_error(&json);
    database->began_us = sl_clock_now_us();
    rv = rv != 0 ? rv
                 : sl_postgres_query(database->postgres, insert, &param, 1, STATEMENT_MS,
                                     on_inserted, database);
    sl_buf_fini(&json);
    if (rv != 0) {
        put_back(database);
        sl_timer_start(database->loop, &database->again, AGAIN_MS, on_again);
    }
}

static void go_on(struct database *database)
{
    sl_task_defer(database->loop, &database->next, on_next);
}

void database_add(struct database *database, struct database_row *row)
{
    sl_list_push(&database->waiting, &row->node);
    database->waiting_count++;
    count_waiting(database);
    go_on(database);
}

static bool is_in(const struct sl_list *list, const struct database_row *row)
{
    SL_LIST_EACH(node, list)
    {
        if (node == &row->node) {
            return true;
        }
    }
    return false;
}

void database_withdraw(struct database *database, struct database_row *row)
{
    if (is_in(&database->flying, row)) {
        database->flying_count--;
        sl_list_remove(&row->node);
    } else if (is_in(&database->waiting, row)) {
        database->waiting_count--;
        sl_list_remove(&row->node);
    }
    count_waiting(database);
}

/* --- life --- */

static void create_metrics(struct database *database)
{
    static const char rows[] = "sluice_analytics_rows_total";
    static const char about_rows[] =
        "Records that the database answered for: inserted, there already, or refused.";
    struct sl_metrics *metrics = sl_worker_metrics(database->worker);
    database->inserted = sl_metrics_counter(metrics, rows, about_rows, "result=\"inserted\"");
    database->repeated = sl_metrics_counter(metrics, rows, about_rows, "result=\"repeated\"");
    database->refused = sl_metrics_counter(metrics, rows, about_rows, "result=\"refused\"");
    database->failures = sl_metrics_counter(
        metrics, "sluice_analytics_failures_total",
        "Connections and statements of the analytics database that failed.", NULL);
    database->rows_waiting = sl_metrics_gauge(metrics, "sluice_analytics_rows_waiting",
                                              "Records that are not committed yet.", NULL);
    database->seconds = sl_metrics_histogram(metrics, "sluice_analytics_batch_seconds",
                                             "Time of one statement that stores records.", NULL);
}

int database_create(struct sl_worker *worker, const char *url, struct database **ret, char *why,
                    size_t why_size)
{
    char wrong[256] = "";
    struct database *database = calloc(1, sizeof(*database));
    if (database == NULL) {
        return -SL_ENOMEM;
    }
    database->worker = worker;
    database->loop = sl_worker_loop(worker);
    sl_list_init(&database->waiting);
    sl_list_init(&database->flying);
    create_metrics(database);
    database->condition = sl_worker_condition(worker, "database");
    const struct sl_postgres_config config = {.url = url,
                                              .application = "sluice-observe",
                                              .on_up = on_up,
                                              .on_down = on_down,
                                              .ctx = database};
    int rv = database->condition == NULL
                 ? -SL_ENOMEM
                 : sl_postgres_create(database->loop, &config, &database->postgres, wrong,
                                      sizeof(wrong));
    if (rv != 0) {
        snprintf(why, why_size, "SLUICE_ANALYTICS_URL: %s",
                 wrong[0] != '\0' ? wrong : sl_error_text(rv));
        free(database);
        return rv;
    }
    *ret = database;
    return 0;
}

void database_destroy(struct database *database)
{
    if (database == NULL) {
        return;
    }
    sl_task_cancel(&database->next);
    sl_timer_stop(database->loop, &database->again);
    sl_postgres_destroy(database->postgres);
    free(database);
}
