/*
 * Writing to the tables of a SQLite store. The rows of a batch go in transactions of
 * TRANSACTION_MS, so that several processes that write, and the checkpoints, get their turns; each
 * chunk is in all three tables or in none. The vector table is made by whoever writes first.
 */
#include "common/clock.h"
#include "common/store_sqlite_internal.h"

#include <stdio.h>

enum { TRANSACTION_MS = 25, DELETE_ROWS = 64 };

/* With two gaps for the number of dimensions. chunk_size is the number of vectors that a partition
 * makes room for at a time: the default of 1024 would cost a small tenant 1.5 MB. */
#define VECTOR_SCHEMA                                                                              \
    "CREATE VIRTUAL TABLE chunks_vec USING vec0(scope INTEGER PARTITION KEY,"                      \
    " embedding FLOAT[%u] DISTANCE_METRIC=cosine, chunk_size=256);"                                \
    "CREATE TRIGGER chunks_vec_removed AFTER DELETE ON chunks BEGIN"                               \
    " DELETE FROM chunks_vec WHERE rowid = old.id; END;"                                           \
    "INSERT INTO meta(key, value) VALUES('dim', %u);"

struct upsert {
    const struct sl_batch *batch;
    int64_t scope;
    struct sl_sqlite_stmt *chunk, *change_vector, *add_vector;
};

static int make_scope(struct sl_tables *tables, struct sl_span tenant, struct sl_span collection,
                      int64_t *ret)
{
    const struct sl_span params[] = {tenant, collection};
    int64_t unused = 0;
    int rv = tables_find_scope(tables, tenant, collection, ret);
    if (rv != 0 || *ret != 0) {
        return rv;
    }
    rv = tables_query_int(tables, "INSERT OR IGNORE INTO scopes(tenant, collection) VALUES(?1, ?2)",
                          params, 2, &unused);
    return rv != 0 ? rv : tables_find_scope(tables, tenant, collection, ret);
}

static int create_vectors(struct sl_tables *tables, uint32_t dim)
{
    char sql[sizeof(VECTOR_SCHEMA) + 32];
    snprintf(sql, sizeof(sql), VECTOR_SCHEMA, dim, dim);
    int rv = sl_sqlite_exec(tables->db, "BEGIN IMMEDIATE");
    rv = rv != 0 ? rv : tables_find_dim(tables); /* Another process may have been first. */
    if (rv == 0 && tables->dim == 0) {
        rv = sl_sqlite_exec(tables->db, sql);
    }
    rv = rv != 0 ? rv : sl_sqlite_exec(tables->db, "COMMIT");
    return rv != 0 ? rv : tables_find_dim(tables);
}

static int prepare_vectors(struct sl_tables *tables, const struct sl_batch *batch, char *why,
                           size_t why_size)
{
    for (size_t i = 0; i < batch->len; i++) {
        if (!tables_has_direction(batch->vectors + i * batch->dim, batch->dim)) {
            snprintf(why, why_size, "the vector of chunk %zu is zero or not finite",
                     batch->first + i);
            return -SL_EINVAL;
        }
    }
    int rv = tables_find_dim(tables);
    if (rv == 0 && tables->dim == 0) {
        rv = create_vectors(tables, batch->dim);
    }
    if (rv != 0) {
        return tables_failed(tables, rv, why, why_size);
    }
    return tables_check_dim(tables, batch->dim, why, why_size);
}

static int prepare_statements(struct sl_tables *tables, struct upsert *u)
{
    const struct sl_batch *batch = u->batch;
    int rv = sl_sqlite_prepare(
        tables->db,
        SL_SPAN("INSERT INTO chunks(scope, doc_id, version, chunk_index, text, metadata)"
                " VALUES(?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT(scope, doc_id, version, chunk_index)"
                " DO UPDATE SET text = excluded.text, metadata = excluded.metadata RETURNING id"),
        &u->chunk);
    if (rv == 0 && batch->vectors != NULL) {
        rv = sl_sqlite_prepare(tables->db,
                               SL_SPAN("UPDATE chunks_vec SET embedding = ?2 WHERE rowid = ?1"),
                               &u->change_vector);
    }
    if (rv == 0 && batch->vectors != NULL) {
        rv = sl_sqlite_prepare(
            tables->db,
            SL_SPAN("INSERT INTO chunks_vec(rowid, embedding, scope) VALUES(?1, ?2, ?3)"),
            &u->add_vector);
    }
    if (rv == 0) {
        sl_sqlite_bind_int(u->chunk, 1, u->scope);
        sl_sqlite_bind_text(u->chunk, 2, batch->doc_id);
        sl_sqlite_bind_int(u->chunk, 3, batch->version);
        sl_sqlite_bind_text(u->chunk, 6, batch->metadata.len > 0 ? batch->metadata : SL_SPAN("{}"));
    }
    return rv;
}

/* Runs to its end; the id that it returns, where it returns one. */
static int run_to_end(struct sl_sqlite_stmt *stmt, int64_t *id)
{
    bool row = true;
    int rv = 0;
    while (rv == 0 && row) {
        rv = sl_sqlite_step(stmt, &row);
        if (row && id != NULL) {
            *id = sl_sqlite_int(stmt, 0);
        }
    }
    sl_sqlite_reset(stmt);
    return rv;
}

static int write_vector(struct sl_tables *tables, struct upsert *u, size_t i, int64_t id)
{
    struct sl_span bytes =
        tables_vector_bytes(u->batch->vectors + i * u->batch->dim, u->batch->dim);
    sl_sqlite_bind_int(u->change_vector, 1, id);
    sl_sqlite_bind_blob(u->change_vector, 2, bytes);
    int rv = run_to_end(u->change_vector, NULL);
    if (rv != 0 || sl_sqlite_changes(tables->db) > 0) {
        return rv;
    }
    sl_sqlite_bind_int(u->add_vector, 1, id);
    sl_sqlite_bind_blob(u->add_vector, 2, bytes);
    sl_sqlite_bind_int(u->add_vector, 3, u->scope);
    return run_to_end(u->add_vector, NULL);
}

static int write_chunk(struct sl_tables *tables, struct upsert *u, size_t i)
{
    int64_t id = 0;
    sl_sqlite_bind_int(u->chunk, 4, (int64_t)u->batch->first + (int64_t)i);
    sl_sqlite_bind_text(u->chunk, 5, u->batch->texts[i]);
    int rv = run_to_end(u->chunk, &id);
    return rv != 0 || u->batch->vectors == NULL ? rv : write_vector(tables, u, i, id);
}

/* One transaction, from *at on. */
static int write_some(struct sl_tables *tables, struct upsert *u, size_t *at)
{
    int rv = sl_sqlite_exec(tables->db, "BEGIN IMMEDIATE");
    uint64_t began_ms = sl_clock_now_ms();
    while (rv == 0 && *at < u->batch->len && sl_clock_now_ms() - began_ms < TRANSACTION_MS) {
        rv = write_chunk(tables, u, (*at)++);
    }
    return rv != 0 ? rv : sl_sqlite_exec(tables->db, "COMMIT");
}

int sl_tables_upsert(struct sl_tables *tables, const struct sl_batch *batch, char *why,
                     size_t why_size)
{
    struct upsert u = {.batch = batch};
    size_t at = 0;
    int rv = batch->vectors != NULL ? prepare_vectors(tables, batch, why, why_size) : 0;
    if (rv != 0) {
        tables_roll_back(tables);
        return rv;
    }
    rv = make_scope(tables, batch->tenant, batch->collection, &u.scope);
    rv = rv != 0 ? rv : prepare_statements(tables, &u);
    while (rv == 0 && at < batch->len) {
        rv = write_some(tables, &u, &at);
    }
    rv = rv != 0 ? tables_failed(tables, rv, why, why_size)
                 : 0; /* Before another call changes the text. */
    sl_sqlite_finalize(u.chunk);
    sl_sqlite_finalize(u.change_vector);
    sl_sqlite_finalize(u.add_vector);
    tables_roll_back(tables);
    return rv;
}

int sl_tables_delete_below(struct sl_tables *tables, const struct sl_batch *document,
                           int64_t version, char *why, size_t why_size)
{
    struct sl_sqlite_stmt *stmt = NULL;
    int64_t scope = 0;
    int rv = tables_find_scope(tables, document->tenant, document->collection, &scope);
    if (rv == 0 && scope != 0) {
        rv = sl_sqlite_prepare(
            tables->db,
            SL_SPAN("DELETE FROM chunks WHERE id IN (SELECT id FROM chunks"
                    " WHERE scope = ?1 AND doc_id = ?2 AND version < ?3 LIMIT ?4)"),
            &stmt);
    }
    if (rv == 0 && scope != 0) {
        sl_sqlite_bind_int(stmt, 1, scope);
        sl_sqlite_bind_text(stmt, 2, document->doc_id);
        sl_sqlite_bind_int(stmt, 3, version);
        sl_sqlite_bind_int(stmt, 4, DELETE_ROWS);
        do {
            rv = run_to_end(stmt, NULL);
        } while (rv == 0 && sl_sqlite_changes(tables->db) == DELETE_ROWS);
    }
    rv = rv != 0 ? tables_failed(tables, rv, why, why_size) : 0;
    sl_sqlite_finalize(stmt);
    return rv;
}
