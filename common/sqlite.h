/*
 * SQLite: connections and statements, with errors mapped to ours. A connection belongs to one
 * thread at a time; all of it may block, so it is used off the loop. Strings and blobs of a row are
 * borrowed until the next step, reset or finalize.
 */
#ifndef SLUICE_COMMON_SQLITE_H
#define SLUICE_COMMON_SQLITE_H

#include "common/buf.h"

#include <stdint.h>

struct sl_sqlite;
struct sl_sqlite_stmt;

/* Creates the file when it is missing, in WAL mode with synchronous=NORMAL. 0, -SL_EIO or
 * -SL_ENOMEM, and one line in why. Another connection's lock is waited for, for at most busy_ms,
 * here and in all later calls. */
int sl_sqlite_open(const char *path, uint32_t busy_ms, struct sl_sqlite **ret, char *why,
                   size_t why_size) SL_CHECKED;
/* Its statements are finalized. Takes NULL. */
void sl_sqlite_close(struct sl_sqlite *db);
int sl_sqlite_load_extension(struct sl_sqlite *db, const char *path, char *why,
                             size_t why_size) SL_CHECKED;
/* While stop(ctx) says true, statements and waits for locks end with -SL_ECANCELLED. Asked now and
 * then while a statement runs, on its thread. NULL: never. */
void sl_sqlite_set_stop(struct sl_sqlite *db, bool (*stop)(void *ctx), void *ctx);

/* Of the last call that failed; never NULL. */
const char *sl_sqlite_error(const struct sl_sqlite *db);
/* Rows that the last INSERT, UPDATE or DELETE changed itself, without its triggers. */
int64_t sl_sqlite_changes(const struct sl_sqlite *db);
bool sl_sqlite_in_transaction(const struct sl_sqlite *db);

/* Some statements without parameters or rows that matter. Errors here and below: -SL_ETIMEDOUT (the
 * lock was not free within busy_ms), -SL_ECANCELLED (stop), -SL_EINVAL (a constraint), -SL_ENOMEM,
 * -SL_EIO (the file: full, damaged, not readable ...), -SL_EINTERNAL. */
int sl_sqlite_exec(struct sl_sqlite *db, const char *sql) SL_CHECKED;

int sl_sqlite_prepare(struct sl_sqlite *db, struct sl_span sql,
                      struct sl_sqlite_stmt **ret) SL_CHECKED;
void sl_sqlite_finalize(struct sl_sqlite_stmt *stmt); /* Takes NULL. */
void sl_sqlite_reset(struct sl_sqlite_stmt *stmt);    /* Forgets what is bound. */
/* Parameters count from 1. Bytes are borrowed until the statement is bound anew, reset or
 * finalized. What fails here shows in the next step. */
void sl_sqlite_bind_int(struct sl_sqlite_stmt *stmt, int at, int64_t value);
void sl_sqlite_bind_text(struct sl_sqlite_stmt *stmt, int at, struct sl_span text);
void sl_sqlite_bind_blob(struct sl_sqlite_stmt *stmt, int at, struct sl_span bytes);
/* *row: there is one. Errors as above. */
int sl_sqlite_step(struct sl_sqlite_stmt *stmt, bool *row) SL_CHECKED;
/* Columns count from 0. */
int64_t sl_sqlite_int(struct sl_sqlite_stmt *stmt, int at);
double sl_sqlite_number(struct sl_sqlite_stmt *stmt, int at);
bool sl_sqlite_is_null(struct sl_sqlite_stmt *stmt, int at);
struct sl_span sl_sqlite_text(struct sl_sqlite_stmt *stmt, int at);

#endif
