/*
 * A thin cover over SQLite; the only file that includes its header.
 *
 * A statement that runs for long has to end when nobody wants its result any more. SQLite asks the
 * progress handler every PROGRESS_OPS steps of its machine, also for the inner statements of FTS5
 * and sqlite-vec, and the busy handler while it waits for a lock; both ask the owner's stop. So no
 * other thread ever touches a connection.
 *
 * What can go wrong: a file that is locked (waited for, then -SL_ETIMEDOUT), full, damaged or no
 * database (-SL_EIO), an extension that is not there. Two processes that open a new file at the
 * same time both switch it to WAL; one of them may be told that the file is busy without its busy
 * handler being asked, so the switch is tried again here.
 */
#include "common/sqlite.h"

#include "common/clock.h"

#include <assert.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { PROGRESS_OPS = 100, BUSY_STEP_MAX_MS = 10 };

struct sl_sqlite {
    sqlite3 *db;
    uint32_t busy_ms;
    uint64_t busy_since_ms;
    bool (*stop)(void *ctx);
    void *stop_ctx;
};

struct sl_sqlite_stmt {
    struct sl_sqlite *db;
    sqlite3_stmt *stmt;
    int bind_rc; /* The first bind that failed. */
};

static bool stopped(const struct sl_sqlite *db)
{
    return db->stop != NULL && db->stop(db->stop_ctx);
}

static int map_code(const struct sl_sqlite *db, int rc)
{
    switch (rc & 0xff) {
    case SQLITE_OK:
    case SQLITE_ROW:
    case SQLITE_DONE:
        return 0;
    case SQLITE_NOMEM:
        return -SL_ENOMEM;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return stopped(db) ? -SL_ECANCELLED : -SL_ETIMEDOUT;
    case SQLITE_INTERRUPT:
        return -SL_ECANCELLED;
    case SQLITE_CONSTRAINT:
        return -SL_EINVAL;
    case SQLITE_FULL:
    case SQLITE_IOERR:
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
    case SQLITE_CANTOPEN:
    case SQLITE_READONLY:
    case SQLITE_PERM:
    case SQLITE_AUTH:
        return -SL_EIO;
    default: /* Virtual tables turn an interrupt inside into an error of their own. */
        return stopped(db) ? -SL_ECANCELLED : -SL_EINTERNAL;
    }
}

static int on_progress(void *ctx)
{
    return stopped(ctx);
}

static void pause_ms(int ms)
{
    const struct timespec step = {.tv_nsec = ms * 1000000L};
    nanosleep(&step, NULL);
}

static int on_busy(void *ctx, int count)
{
    struct sl_sqlite *db = ctx;
    uint64_t now_ms = sl_clock_now_ms();
    if (count == 0) {
        db->busy_since_ms = now_ms;
    }
    if (stopped(db) || now_ms - db->busy_since_ms >= db->busy_ms) {
        return 0;
    }
    pause_ms(count < BUSY_STEP_MAX_MS ? count + 1 : BUSY_STEP_MAX_MS);
    return 1;
}

/* --- connections --- */

static int switch_to_wal(struct sl_sqlite *db)
{
    const char *sql = "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;";
    uint64_t until_ms = sl_clock_now_ms() + db->busy_ms;
    int rv = sl_sqlite_exec(db, sql);
    while (rv == -SL_ETIMEDOUT && sl_clock_now_ms() < until_ms) {
        pause_ms(BUSY_STEP_MAX_MS);
        rv = sl_sqlite_exec(db, sql);
    }
    return rv;
}

int sl_sqlite_open(const char *path, uint32_t busy_ms, struct sl_sqlite **ret, char *why,
                   size_t why_size)
{
    struct sl_sqlite *db = calloc(1, sizeof(*db));
    if (db == NULL) {
        snprintf(why, why_size, "out of memory");
        return -SL_ENOMEM;
    }
    db->busy_ms = busy_ms;
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX;
    int rv = map_code(db, sqlite3_open_v2(path, &db->db, flags, NULL));
    if (rv == 0) {
        sqlite3_extended_result_codes(db->db, 1);
        sqlite3_busy_handler(db->db, on_busy, db);
        sqlite3_progress_handler(db->db, PROGRESS_OPS, on_progress, db);
        rv = switch_to_wal(db);
    }
    if (rv != 0) {
        snprintf(why, why_size, "%s: %s", path,
                 db->db != NULL ? sqlite3_errmsg(db->db) : "out of memory");
        sl_sqlite_close(db);
        return rv == -SL_ENOMEM ? rv : -SL_EIO;
    }
    *ret = db;
    return 0;
}

void sl_sqlite_close(struct sl_sqlite *db)
{
    if (db != NULL) {
        int rc = sqlite3_close(db->db);
        assert(rc == SQLITE_OK); /* Else a statement was left. */
        (void)rc;
        free(db);
    }
}

int sl_sqlite_load_extension(struct sl_sqlite *db, const char *path, char *why, size_t why_size)
{
    char *message = NULL;
    int rc = sqlite3_db_config(db->db, SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION, 1, NULL);
    if (rc == SQLITE_OK) {
        rc = sqlite3_load_extension(db->db, path, NULL, &message);
        (void)sqlite3_db_config(db->db, SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION, 0, NULL);
    }
    if (rc != SQLITE_OK) {
        snprintf(why, why_size, "%s", message != NULL ? message : sqlite3_errmsg(db->db));
        sqlite3_free(message);
        return rc == SQLITE_NOMEM ? -SL_ENOMEM : -SL_EIO;
    }
    return 0;
}

void sl_sqlite_set_stop(struct sl_sqlite *db, bool (*stop)(void *ctx), void *ctx)
{
    db->stop = stop;
    db->stop_ctx = ctx;
}

const char *sl_sqlite_error(const struct sl_sqlite *db)
{
    return sqlite3_errmsg(db->db);
}

int64_t sl_sqlite_changes(const struct sl_sqlite *db)
{
    return sqlite3_changes(db->db);
}

bool sl_sqlite_in_transaction(const struct sl_sqlite *db)
{
    return sqlite3_get_autocommit(db->db) == 0;
}

int sl_sqlite_exec(struct sl_sqlite *db, const char *sql)
{
    return map_code(db, sqlite3_exec(db->db, sql, NULL, NULL, NULL));
}

/* --- statements --- */

int sl_sqlite_prepare(struct sl_sqlite *db, struct sl_span sql, struct sl_sqlite_stmt **ret)
{
    struct sl_sqlite_stmt *stmt = calloc(1, sizeof(*stmt));
    if (stmt == NULL) {
        return -SL_ENOMEM;
    }
    stmt->db = db;
    int rc = sqlite3_prepare_v2(db->db, sql.data, (int)sql.len, &stmt->stmt, NULL);
    if (rc != SQLITE_OK) {
        free(stmt);
        return map_code(db, rc);
    }
    *ret = stmt;
    return 0;
}

void sl_sqlite_finalize(struct sl_sqlite_stmt *stmt)
{
    if (stmt != NULL) {
        (void)sqlite3_finalize(stmt->stmt); /* Repeats the error of the last step. */
        free(stmt);
    }
}

void sl_sqlite_reset(struct sl_sqlite_stmt *stmt)
{
    (void)sqlite3_reset(stmt->stmt); /* The same. */
    (void)sqlite3_clear_bindings(stmt->stmt);
    stmt->bind_rc = SQLITE_OK;
}

static void note_bind(struct sl_sqlite_stmt *stmt, int rc)
{
    assert(rc != SQLITE_RANGE && rc != SQLITE_MISUSE);
    if (stmt->bind_rc == SQLITE_OK) {
        stmt->bind_rc = rc;
    }
}

void sl_sqlite_bind_int(struct sl_sqlite_stmt *stmt, int at, int64_t value)
{
    note_bind(stmt, sqlite3_bind_int64(stmt->stmt, at, value));
}

void sl_sqlite_bind_text(struct sl_sqlite_stmt *stmt, int at, struct sl_span text)
{
    note_bind(stmt, sqlite3_bind_text64(stmt->stmt, at, text.len > 0 ? text.data : "", text.len,
                                        SQLITE_STATIC, SQLITE_UTF8));
}

void sl_sqlite_bind_blob(struct sl_sqlite_stmt *stmt, int at, struct sl_span bytes)
{
    note_bind(stmt, sqlite3_bind_blob64(stmt->stmt, at, bytes.data, bytes.len, SQLITE_STATIC));
}

int sl_sqlite_step(struct sl_sqlite_stmt *stmt, bool *row)
{
    int rc = stmt->bind_rc != SQLITE_OK ? stmt->bind_rc : sqlite3_step(stmt->stmt);
    *row = rc == SQLITE_ROW;
    return map_code(stmt->db, rc);
}

int64_t sl_sqlite_int(struct sl_sqlite_stmt *stmt, int at)
{
    return sqlite3_column_int64(stmt->stmt, at);
}

double sl_sqlite_number(struct sl_sqlite_stmt *stmt, int at)
{
    return sqlite3_column_double(stmt->stmt, at);
}

bool sl_sqlite_is_null(struct sl_sqlite_stmt *stmt, int at)
{
    return sqlite3_column_type(stmt->stmt, at) == SQLITE_NULL;
}

struct sl_span sl_sqlite_text(struct sl_sqlite_stmt *stmt, int at)
{
    const char *text = (const char *)sqlite3_column_text(stmt->stmt, at);
    return (struct sl_span){text, text != NULL ? (size_t)sqlite3_column_bytes(stmt->stmt, at) : 0};
}
