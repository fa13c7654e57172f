/*
 * The tables of a SQLite store, on one connection: between store_sqlite.c, which has the threads,
 * and store_sqlite_tables.c, which has the SQL. Everything here blocks, and is called by one thread
 * at a time. Errors: what sqlite.h names, -SL_EINVAL for vectors that cannot be compared,
 * -SL_EVERSION for a file of a newer schema; why has one line.
 */
#ifndef SLUICE_COMMON_STORE_SQLITE_TABLES_H
#define SLUICE_COMMON_STORE_SQLITE_TABLES_H

#include "common/store.h"

struct sl_tables;

/* Creates what is missing of file and tables; two that do so at once both succeed. */
int sl_tables_open(const char *path, const char *vec_path, struct sl_tables **ret, char *why,
                   size_t why_size) SL_CHECKED;
void sl_tables_close(struct sl_tables *tables); /* Takes NULL. */
/* Asks the file for the number of dimensions of its vectors; and what is known of it, 0: there are
 * none yet. */
int sl_tables_look(struct sl_tables *tables, char *why, size_t why_size) SL_CHECKED;
uint32_t sl_tables_dim(const struct sl_tables *tables);
/* As sl_sqlite_set_stop; what was not committed then is rolled back. */
void sl_tables_set_stop(struct sl_tables *tables, bool (*stop)(void *ctx), void *ctx);

/* Hits go to the arena, best first. Of search only what is asked for is read. */
int sl_tables_search(struct sl_tables *tables, const struct sl_store_search *search,
                     struct sl_arena *arena, struct sl_hit **hits, size_t *len, char *why,
                     size_t why_size) SL_CHECKED;
/* Until the commit, what is written shares transactions of some 25 ms each; without, every call
 * commits what it wrote. When a call in between fails, that is over: some of it may be there. */
void sl_tables_begin(struct sl_tables *tables);
int sl_tables_commit(struct sl_tables *tables, char *why, size_t why_size) SL_CHECKED;
/* In transactions of some 25 ms: when it fails, some chunks may be there. */
int sl_tables_upsert(struct sl_tables *tables, const struct sl_batch *batch, char *why,
                     size_t why_size) SL_CHECKED;
int sl_tables_delete_below(struct sl_tables *tables, const struct sl_batch *document,
                           int64_t version, char *why, size_t why_size) SL_CHECKED;
int sl_tables_delete_version(struct sl_tables *tables, const struct sl_batch *document,
                             int64_t version, char *why, size_t why_size) SL_CHECKED;

#endif
