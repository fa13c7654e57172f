/* What store_sqlite_tables.c and store_sqlite_write.c share. */
#ifndef SLUICE_COMMON_STORE_SQLITE_INTERNAL_H
#define SLUICE_COMMON_STORE_SQLITE_INTERNAL_H

#include "common/sqlite.h"
#include "common/store_backend.h"
#include "common/store_sqlite_tables.h"

enum tables_write {
    TABLES_ADD_CHUNK,
    TABLES_CHANGE_CHUNK,
    TABLES_ADD_VECTOR,
    TABLES_CHANGE_VECTOR,
    TABLES_WRITES
};

struct sl_tables {
    struct sl_sqlite *db;
    uint32_t dim; /* Of the vectors in the file; 0: none yet. Never changes once set. */
    struct sl_sqlite_stmt *writes[TABLES_WRITES]; /* NULL until they are needed. */
    bool shared;         /* Between sl_tables_begin and sl_tables_commit. */
    uint64_t written_ms; /* When the transaction that is open began to write. */
};

/* Says the error rv of the last call in why, and returns rv. */
int tables_failed(struct sl_tables *tables, int rv, char *why, size_t why_size) SL_CHECKED;
void tables_roll_back(struct sl_tables *tables); /* Also when nothing is open. */
/* The first column of the first row as a number; untouched when there is no row. */
int tables_query_int(struct sl_tables *tables, const char *sql, const struct sl_span *params,
                     size_t count, int64_t *ret) SL_CHECKED;
int tables_find_scope(struct sl_tables *tables, struct sl_span tenant, struct sl_span collection,
                      int64_t *ret) SL_CHECKED;           /* 0: there is none. */
int tables_find_dim(struct sl_tables *tables) SL_CHECKED; /* Sets tables->dim once it is known. */

struct sl_span tables_vector_bytes(const float *vector, size_t dim);
int tables_check_dim(const struct sl_tables *tables, size_t dim, char *why,
                     size_t why_size) SL_CHECKED;

#endif
