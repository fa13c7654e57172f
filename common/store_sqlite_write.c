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
    int rv = sl_sqlite_in_transaction(tables->db) ? sl_sqlite_exec(tables->db, "COMMIT") : 0;
    rv = rv != 0 ? rv : sl_sqlite_exec(tables->db, "BEGIN IMMEDIATE");
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
        if (!sl_store_has_direction(batch->vectors + i * batch->dim, batch->dim)) {
            snprintf(why, why_size, "the vector of chunk %u is zero or not finite",
                     sl_batch_index(batch, i));
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

/* They stay with the connection: preparing them takes as long as writing some chunks. */
static int prepare_statements(struct sl_tables *tables, bool with_vectors)
{
    static const char *const texts[TABLES_WRITES] = {
        [TABLES_ADD_CHUNK] =
            "INSERT INTO chunks(scope, doc_id, version, chunk_index, text, metadata)"
            " VALUES(?1, ?2, ?3, ?4, ?5, ?6)"
            " ON CONFLICT(scope, doc_id, version, chunk_index) DO NOTHING RETURNING id",
        [TABLES_CHANGE_CHUNK] =
            ("UPDATE chunks SET text = ?5, metadata = ?6 WHERE scope = ?1 AND doc_id = ?2"
             " AND version = ?3 AND chunk_index = ?4 RETURNING id"),
        [TABLES_ADD_VECTOR] = "INSERT INTO chunks_vec(rowid, embedding, scope) VALUES(?1, ?2, ?3)",
        [TABLES_CHANGE_VECTOR] = "UPDATE chunks_vec SET embedding = ?2 WHERE rowid = ?1",
    };
    int rv = 0;
    for (int i = 0; i < (with_vectors ? TABLES_WRITES : TABLES_ADD_VECTOR) && rv == 0; i++) {
        if (tables->writes[i] == NULL) {
            rv = sl_sqlite_prepare(tables->db, sl_span_of(texts[i]), &tables->writes[i]);
        }
    }
    return rv;
}

/* Runs to its end; *id is what it returns, where it returns something. */
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

/* *id: its row; 0: there is none. */
static int run_chunk(struct sl_sqlite_stmt *stmt, const struct upsert *u, size_t i, int64_t *id)
{
    const struct sl_batch *batch = u->batch;
    struct sl_span metadata = sl_batch_metadata(batch, i);
    sl_sqlite_bind_int(stmt, 1, u->scope);
    sl_sqlite_bind_text(stmt, 2, batch->doc_id);
    sl_sqlite_bind_int(stmt, 3, batch->version);
    sl_sqlite_bind_int(stmt, 4, sl_batch_index(batch, i));
    sl_sqlite_bind_text(stmt, 5, batch->texts[i]);
    sl_sqlite_bind_text(stmt, 6, metadata.len > 0 ? metadata : SL_SPAN("{}"));
    *id = 0;
    return run_to_end(stmt, id);
}

static int change_vector(struct sl_tables *tables, int64_t id, struct sl_span bytes, bool *changed)
{
    struct sl_sqlite_stmt *stmt = tables->writes[TABLES_CHANGE_VECTOR];
    sl_sqlite_bind_int(stmt, 1, id);
    sl_sqlite_bind_blob(stmt, 2, bytes);
    int rv = run_to_end(stmt, NULL);
    *changed = rv == 0 && sl_sqlite_changes(tables->db) > 0;
    return rv;
}

static int write_vector(struct sl_tables *tables, const struct upsert *u, size_t i, int64_t id,
                        bool added)
{
    struct sl_span bytes =
        tables_vector_bytes(u->batch->vectors + i * u->batch->dim, u->batch->dim);
    bool changed = false;
    int rv = added ? 0 : change_vector(tables, id, bytes, &changed);
    if (rv != 0 || changed) {
        return rv;
    }
    struct sl_sqlite_stmt *stmt = tables->writes[TABLES_ADD_VECTOR];
    sl_sqlite_bind_int(stmt, 1, id);
    sl_sqlite_bind_blob(stmt, 2, bytes);
    sl_sqlite_bind_int(stmt, 3, u->scope);
    return run_to_end(stmt, NULL);
}

/* Nearly every chunk is new: its row is tried first, and a new row has no vector yet. */
static int write_chunk(struct sl_tables *tables, const struct upsert *u, size_t i)
{
    int64_t id = 0;
    int rv = run_chunk(tables->writes[TABLES_ADD_CHUNK], u, i, &id);
    bool added = id != 0;
    if (rv == 0 && !added) {
        rv = run_chunk(tables->writes[TABLES_CHANGE_CHUNK], u, i, &id);
    }
    return rv != 0 || u->batch->vectors == NULL ? rv : write_vector(tables, u, i, id, added);
}

/* --- transactions --- */

static int open_transaction(struct sl_tables *tables)
{
    if (sl_sqlite_in_transaction(tables->db)) {
        return 0;
    }
    tables->written_ms = sl_clock_now_ms();
    return sl_sqlite_exec(tables->db, "BEGIN IMMEDIATE");
}

static bool is_due(const struct sl_tables *tables)
{
    return sl_clock_now_ms() - tables->written_ms >= TRANSACTION_MS;
}

/* Unless others may still join it. */
static int close_transaction(struct sl_tables *tables)
{
    bool joinable = tables->shared && !is_due(tables);
    return joinable || !sl_sqlite_in_transaction(tables->db) ? 0
                                                             : sl_sqlite_exec(tables->db, "COMMIT");
}

void sl_tables_begin(struct sl_tables *tables)
{
    tables->shared = true;
}

int sl_tables_commit(struct sl_tables *tables, char *why, size_t why_size)
{
    tables->shared = false;
    int rv = close_transaction(tables);
    rv = rv != 0 ? tables_failed(tables, rv, why, why_size) : 0;
    tables_roll_back(tables);
    return rv;
}

/* After a call: what it leaves open belongs to others only when it went well. */
static void leave(struct sl_tables *tables, int rv)
{
    if (rv != 0) {
        tables->shared = false;
    }
    if (!tables->shared) {
        tables_roll_back(tables);
    }
}

/* One transaction, from *at on. */
static int write_some(struct sl_tables *tables, const struct upsert *u, size_t *at)
{
    int rv = open_transaction(tables);
    while (rv == 0 && *at < u->batch->len) {
        rv = write_chunk(tables, u, (*at)++);
        if (is_due(tables)) {
            break;
        }
    }
    return rv != 0 ? rv : close_transaction(tables);
}

int sl_tables_upsert(struct sl_tables *tables, const struct sl_batch *batch, char *why,
                     size_t why_size)
{
    struct upsert u = {.batch = batch};
    size_t at = 0;
    int rv = batch->vectors != NULL ? prepare_vectors(tables, batch, why, why_size) : 0;
    if (rv != 0) {
        leave(tables, rv);
        return rv;
    }
    rv = make_scope(tables, batch->tenant, batch->collection, &u.scope);
    rv = rv != 0 ? rv : prepare_statements(tables, batch->vectors != NULL);
    while (rv == 0 && at < batch->len) {
        rv = write_some(tables, &u, &at);
    }
    rv = rv != 0 ? tables_failed(tables, rv, why, why_size)
                 : 0; /* Before another call changes the text. */
    leave(tables, rv);
    return rv;
}

/* which: of the versions. */
static int delete_versions(struct sl_tables *tables, const struct sl_batch *document,
                           const char *which, int64_t version, char *why, size_t why_size)
{
    struct sl_sqlite_stmt *stmt = NULL;
    int64_t scope = 0;
    int rv = tables_find_scope(tables, document->tenant, document->collection, &scope);
    if (rv == 0 && scope != 0) {
        char sql[200];
        snprintf(sql, sizeof(sql),
                 "DELETE FROM chunks WHERE id IN (SELECT id FROM chunks"
                 " WHERE scope = ?1 AND doc_id = ?2 AND version %s ?3 LIMIT ?4)",
                 which);
        rv = sl_sqlite_prepare(tables->db, sl_span_of(sql), &stmt);
    }
    if (rv == 0 && scope != 0) {
        do {
            sl_sqlite_bind_int(stmt, 1, scope);
            sl_sqlite_bind_text(stmt, 2, document->doc_id);
            sl_sqlite_bind_int(stmt, 3, version);
            sl_sqlite_bind_int(stmt, 4, DELETE_ROWS);
            rv = run_to_end(stmt, NULL);
            rv = rv != 0 || !sl_sqlite_in_transaction(tables->db) ? rv : close_transaction(tables);
        } while (rv == 0 && sl_sqlite_changes(tables->db) == DELETE_ROWS);
    }
    rv = rv != 0 ? tables_failed(tables, rv, why, why_size) : 0;
    sl_sqlite_finalize(stmt);
    leave(tables, rv);
    return rv;
}

int sl_tables_delete_below(struct sl_tables *tables, const struct sl_batch *document,
                           int64_t version, char *why, size_t why_size)
{
    return delete_versions(tables, document, "<", version, why, why_size);
}

int sl_tables_delete_version(struct sl_tables *tables, const struct sl_batch *document,
                             int64_t version, char *why, size_t why_size)
{
    return delete_versions(tables, document, "=", version, why, why_size);
}
