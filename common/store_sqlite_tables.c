/*
 * Chunks in one SQLite file, for both searches.
 *
 *   scopes      a number for each pair of tenant and collection
 *   chunks      the chunks; its row id is the key of the two indexes
 *   chunks_fts  FTS5 over the text, kept up to date by triggers. The scope is a column of its own
 *               with weight 0, so that a search reads only its own tenant's part of the index
 *   chunks_vec  sqlite-vec, partitioned by scope. Created by the first upsert, since only then the
 *               number of dimensions is known; meta holds it. Until then searches find nothing
 *
 * A chunk's key is (scope, document, version, index): writing it again changes its row, and all
 * three tables change in one transaction. A metadata filter restricts what the vector index looks
 * at (row ids IN), so the best top_k of those that fit are found, however few fit.
 *
 * What can go wrong: another writer holds the lock (waited for), a batch whose vectors have another
 * length than those in the file (refused: the embedding model was changed), vectors that are not
 * finite or zero, which have no direction (refused), a file that some other program made (refused).
 */

#include "common/fts_query.h"
#include "common/store_sqlite_internal.h"

#include <stdio.h>
#include <stdlib.h>

enum { SCHEMA_VERSION = 1, BUSY_MS = 5000 };
enum { KNN_MAX = 4096, SQL_MAX = 16384 }; /* sqlite-vec's own limit on k. */

static const char schema[] =
    "CREATE TABLE meta(key TEXT PRIMARY KEY, value) WITHOUT ROWID;"
    "CREATE TABLE scopes(id INTEGER PRIMARY KEY, tenant TEXT NOT NULL, collection TEXT NOT NULL,"
    " UNIQUE(tenant, collection));"
    "CREATE TABLE chunks(id INTEGER PRIMARY KEY, scope INTEGER NOT NULL REFERENCES scopes(id),"
    " doc_id TEXT NOT NULL, version INTEGER NOT NULL, chunk_index INTEGER NOT NULL,"
    " chunk_id TEXT GENERATED ALWAYS AS (doc_id || '_' || chunk_index) VIRTUAL,"
    " text TEXT NOT NULL, metadata TEXT NOT NULL CHECK (json_valid(metadata)),"
    " UNIQUE(scope, doc_id, version, chunk_index));"
    "CREATE VIRTUAL TABLE chunks_fts USING fts5(scope, text, content='chunks', content_rowid='id',"
    " tokenize='porter unicode61 remove_diacritics 2');"
    "INSERT INTO chunks_fts(chunks_fts, rank) VALUES('rank', 'bm25(0.0, 1.0)');"
    "CREATE TRIGGER chunks_added AFTER INSERT ON chunks BEGIN"
    " INSERT INTO chunks_fts(rowid, scope, text) VALUES(new.id, new.scope, new.text); END;"
    "CREATE TRIGGER chunks_removed AFTER DELETE ON chunks BEGIN"
    " INSERT INTO chunks_fts(chunks_fts, rowid, scope, text)"
    "  VALUES('delete', old.id, old.scope, old.text); END;"
    "CREATE TRIGGER chunks_changed AFTER UPDATE OF text ON chunks WHEN old.text <> new.text BEGIN"
    " INSERT INTO chunks_fts(chunks_fts, rowid, scope, text)"
    "  VALUES('delete', old.id, old.scope, old.text);"
    " INSERT INTO chunks_fts(rowid, scope, text) VALUES(new.id, new.scope, new.text); END;"
    "PRAGMA user_version = 1;";

#define HIT "SELECT c.doc_id, c.chunk_id, c.chunk_index, c.text, c.metadata, c.version, "
/* Metadata values compare as text: "2024" is found where the document says 2024. Through json_each,
 * since a key may hold quotes and dots that mean something in a JSON path. */
#define FILTER                                                                                     \
    " AND EXISTS (SELECT 1 FROM json_each(c.metadata) j WHERE j.key = ?%zu AND"                    \
    " CASE j.type WHEN 'true' THEN 'true' WHEN 'false' THEN 'false'"                               \
    " ELSE CAST(j.atom AS TEXT) END = ?%zu)"
enum { FIRST_FILTER_PARAMETER = 4 };

/* --- small statements --- */

int tables_failed(struct sl_tables *tables, int rv, char *why, size_t why_size)
{
    const char *text =
        rv == -SL_ECANCELLED || rv == -SL_ENOMEM ? sl_error_text(rv) : sl_sqlite_error(tables->db);
    snprintf(why, why_size, "SQLite: %s", text);
    return rv;
}

int tables_query_int(struct sl_tables *tables, const char *sql, const struct sl_span *params,
                     size_t count, int64_t *ret)
{
    struct sl_sqlite_stmt *stmt = NULL;
    bool row = false;
    int rv = sl_sqlite_prepare(tables->db, sl_span_of(sql), &stmt);
    if (rv != 0) {
        return rv;
    }
    for (size_t i = 0; i < count; i++) {
        sl_sqlite_bind_text(stmt, (int)i + 1, params[i]);
    }
    rv = sl_sqlite_step(stmt, &row);
    if (row) {
        *ret = sl_sqlite_int(stmt, 0);
    }
    sl_sqlite_finalize(stmt);
    return rv;
}

int tables_find_scope(struct sl_tables *tables, struct sl_span tenant, struct sl_span collection,
                      int64_t *ret)
{
    const struct sl_span params[] = {tenant, collection};
    *ret = 0;
    return tables_query_int(tables, "SELECT id FROM scopes WHERE tenant = ?1 AND collection = ?2",
                            params, 2, ret);
}

int tables_find_dim(struct sl_tables *tables)
{
    int64_t dim = 0;
    int rv = tables->dim != 0 ? 0
                              : tables_query_int(tables, "SELECT value FROM meta WHERE key = 'dim'",
                                                 NULL, 0, &dim);
    if (dim != 0) {
        tables->dim = (uint32_t)dim;
    }
    return rv;
}

int sl_tables_look(struct sl_tables *tables, char *why, size_t why_size)
{
    int rv = tables_find_dim(tables);
    return rv != 0 ? tables_failed(tables, rv, why, why_size) : 0;
}

uint32_t sl_tables_dim(const struct sl_tables *tables)
{
    return tables->dim;
}

void tables_roll_back(struct sl_tables *tables)
{
    if (sl_sqlite_in_transaction(tables->db)) {
        (void)!sl_sqlite_exec(tables->db, "ROLLBACK"); /* It ends with the connection at last. */
    }
}

/* --- opening --- */

static int create_schema(struct sl_tables *tables, char *why, size_t why_size)
{
    int64_t version = 0;
    int64_t others = 0;
    int rv = sl_sqlite_exec(tables->db, "BEGIN IMMEDIATE");
    rv = rv != 0 ? rv : tables_query_int(tables, "PRAGMA user_version", NULL, 0, &version);
    rv = rv != 0 ? rv
                 : tables_query_int(tables, "SELECT count(*) FROM sqlite_master", NULL, 0, &others);
    if (rv == 0 && version == 0 && others > 0) {
        snprintf(why, why_size, "the file is a SQLite database of another program");
        rv = -SL_EIO;
    } else {
        if (rv == 0 && version == 0) {
            rv = sl_sqlite_exec(tables->db, schema);
        }
        rv = rv != 0 ? rv : sl_sqlite_exec(tables->db, "COMMIT");
        rv = rv != 0 ? tables_failed(tables, rv, why, why_size) : 0;
    }
    tables_roll_back(tables);
    return rv;
}

static int open_schema(struct sl_tables *tables, char *why, size_t why_size)
{
    int64_t version = 0;
    int rv = tables_query_int(tables, "PRAGMA user_version", NULL, 0, &version);
    if (rv != 0) {
        return tables_failed(tables, rv, why, why_size);
    }
    if (version > SCHEMA_VERSION) {
        snprintf(why, why_size, "the file has schema %lld, this program knows %d",
                 (long long)version, SCHEMA_VERSION);
        return -SL_EVERSION;
    }
    return version == SCHEMA_VERSION ? 0 : create_schema(tables, why, why_size);
}

int sl_tables_open(const char *path, const char *vec_path, struct sl_tables **ret, char *why,
                   size_t why_size)
{
    struct sl_tables *tables = calloc(1, sizeof(*tables));
    if (tables == NULL) {
        snprintf(why, why_size, "out of memory");
        return -SL_ENOMEM;
    }
    char reason[200] = "";
    int rv = sl_sqlite_open(path, BUSY_MS, &tables->db, why, why_size);
    if (rv == 0) {
        rv = sl_sqlite_load_extension(tables->db, vec_path, reason, sizeof(reason));
        if (rv != 0) {
            snprintf(why, why_size, "sqlite-vec cannot be loaded from \"%s\": %s", vec_path,
                     reason);
        }
    }
    rv = rv != 0 ? rv : open_schema(tables, why, why_size);
    if (rv != 0) {
        sl_tables_close(tables);
        return rv;
    }
    *ret = tables;
    return 0;
}

void sl_tables_close(struct sl_tables *tables)
{
    if (tables != NULL) {
        for (int i = 0; i < TABLES_WRITES; i++) {
            sl_sqlite_finalize(tables->writes[i]);
        }
        sl_sqlite_close(tables->db);
        free(tables);
    }
}

void sl_tables_set_stop(struct sl_tables *tables, bool (*stop)(void *ctx), void *ctx)
{
    sl_sqlite_set_stop(tables->db, stop, ctx);
}

/* --- vectors --- */

struct sl_span tables_vector_bytes(const float *vector, size_t dim)
{
    return (struct sl_span){(const char *)vector, dim * sizeof(*vector)};
}

int tables_check_dim(const struct sl_tables *tables, size_t dim, char *why, size_t why_size)
{
    const struct sl_store store = {.dim = tables->dim};
    return sl_store_check_dim(&store, (long long)dim, why, why_size);
}

/* --- searching --- */

static void add_filter(struct sl_buf *sql, size_t filter_len)
{
    for (size_t i = 0; i < filter_len; i++) {
        size_t at = FIRST_FILTER_PARAMETER + 2 * i;
        sl_buf_printf(sql, FILTER, at, at + 1);
    }
}

static void write_vector_sql(struct sl_buf *sql, const struct sl_store_scope *scope)
{
    sl_buf_append_text(sql, "WITH v AS MATERIALIZED (SELECT rowid AS id, distance FROM chunks_vec"
                            " WHERE embedding MATCH ?1 AND k = ?2 AND scope = ?3");
    if (scope->filter_len > 0) {
        sl_buf_append_text(sql, " AND rowid IN (SELECT c.id FROM chunks c WHERE c.scope = ?3");
        add_filter(sql, scope->filter_len);
        sl_buf_append_text(sql, ")");
    }
    sl_buf_append_text(sql, ") " HIT "1 - v.distance FROM v CROSS JOIN chunks c ON c.id = v.id"
                            " ORDER BY v.distance");
}

static void write_keyword_sql(struct sl_buf *sql, const struct sl_store_scope *scope)
{
    sl_buf_append_text(sql, HIT "-chunks_fts.rank FROM chunks_fts CROSS JOIN chunks c"
                                " ON c.id = chunks_fts.rowid"
                                " WHERE chunks_fts MATCH ?1 AND c.scope = ?3");
    add_filter(sql, scope->filter_len);
    sl_buf_append_text(sql, " ORDER BY chunks_fts.rank LIMIT ?2");
}

static int read_hit(struct sl_sqlite_stmt *stmt, struct sl_arena *arena, struct sl_hit *ret)
{
    *ret = (struct sl_hit){
        .doc_id = sl_arena_copy(arena, sl_sqlite_text(stmt, 0)),
        .chunk_id = sl_arena_copy(arena, sl_sqlite_text(stmt, 1)),
        .chunk_index = sl_sqlite_int(stmt, 2),
        .text = sl_arena_copy(arena, sl_sqlite_text(stmt, 3)),
        .metadata = sl_arena_copy(arena, sl_sqlite_text(stmt, 4)),
        .version = sl_sqlite_int(stmt, 5),
        .score = sl_sqlite_number(stmt, 6),
    };
    bool whole = ret->doc_id.data != NULL && ret->chunk_id.data != NULL && ret->text.data != NULL &&
                 ret->metadata.data != NULL;
    return whole ? 0 : -SL_ENOMEM;
}

static int read_hits(struct sl_sqlite_stmt *stmt, size_t max, struct sl_arena *arena,
                     struct sl_hit **hits, size_t *len)
{
    struct sl_hit *found = sl_arena_alloc(arena, max * sizeof(*found));
    size_t count = 0;
    bool row = true;
    int rv = found == NULL ? -SL_ENOMEM : 0;
    while (rv == 0 && row && count < max) {
        rv = sl_sqlite_step(stmt, &row);
        if (row) {
            rv = read_hit(stmt, arena, &found[count++]);
        }
    }
    *hits = found;
    *len = count;
    return rv;
}

/* what: the vector's bytes or the FTS5 query. */
static int run_search(struct sl_tables *tables, const struct sl_store_search *search, int64_t scope,
                      struct sl_span what, struct sl_arena *arena, struct sl_hit **hits,
                      size_t *len)
{
    struct sl_sqlite_stmt *stmt = NULL;
    struct sl_buf sql;
    size_t k = search->top_k < KNN_MAX ? search->top_k : KNN_MAX;
    sl_buf_init(&sql, SQL_MAX);
    if (search->vector != NULL) {
        write_vector_sql(&sql, &search->scope);
    } else {
        write_keyword_sql(&sql, &search->scope);
    }
    int rv = sl_buf_error(&sql);
    rv = rv != 0 ? rv : sl_sqlite_prepare(tables->db, sl_buf_span(&sql), &stmt);
    if (rv == 0) {
        if (search->vector != NULL) {
            sl_sqlite_bind_blob(stmt, 1, what);
        } else {
            sl_sqlite_bind_text(stmt, 1, what);
        }
        sl_sqlite_bind_int(stmt, 2, (int64_t)k);
        sl_sqlite_bind_int(stmt, 3, scope);
        for (size_t i = 0; i < search->scope.filter_len; i++) {
            int at = FIRST_FILTER_PARAMETER + 2 * (int)i;
            sl_sqlite_bind_text(stmt, at, search->scope.filter[i].key);
            sl_sqlite_bind_text(stmt, at + 1, search->scope.filter[i].value);
        }
        rv = read_hits(stmt, k, arena, hits, len);
    }
    sl_sqlite_finalize(stmt);
    sl_buf_fini(&sql);
    return rv;
}

static int search_vector(struct sl_tables *tables, const struct sl_store_search *search,
                         int64_t scope, struct sl_arena *arena, struct sl_hit **hits, size_t *len,
                         char *why, size_t why_size)
{
    int rv = tables_find_dim(tables);
    if (rv != 0) {
        return tables_failed(tables, rv, why, why_size);
    }
    if (tables->dim == 0) {
        return 0;
    }
    rv = tables_check_dim(tables, search->dim, why, why_size);
    if (rv != 0) {
        return rv;
    }
    if (!sl_store_has_direction(search->vector, search->dim)) {
        snprintf(why, why_size, "the query's vector is zero or not finite");
        return -SL_EINVAL;
    }
    rv = run_search(tables, search, scope, tables_vector_bytes(search->vector, search->dim), arena,
                    hits, len);
    return rv != 0 ? tables_failed(tables, rv, why, why_size) : 0;
}

static int search_keyword(struct sl_tables *tables, const struct sl_store_search *search,
                          int64_t scope, struct sl_arena *arena, struct sl_hit **hits, size_t *len,
                          char *why, size_t why_size)
{
    struct sl_buf query;
    sl_buf_init(&query, search->text.len * 2 + SQL_MAX);
    sl_buf_printf(&query, "scope : \"%lld\" AND text : (", (long long)scope);
    size_t words = sl_fts_query(search->text, &query);
    sl_buf_append_text(&query, ")");
    int rv = sl_buf_error(&query);
    if (rv == 0 && words > 0) {
        rv = run_search(tables, search, scope, sl_buf_span(&query), arena, hits, len);
    }
    sl_buf_fini(&query);
    return rv != 0 ? tables_failed(tables, rv, why, why_size) : 0;
}

int sl_tables_search(struct sl_tables *tables, const struct sl_store_search *search,
                     struct sl_arena *arena, struct sl_hit **hits, size_t *len, char *why,
                     size_t why_size)
{
    int64_t scope = 0;
    *hits = NULL;
    *len = 0;
    int rv = tables_find_scope(tables, search->scope.tenant, search->scope.collection, &scope);
    if (rv != 0) {
        return tables_failed(tables, rv, why, why_size);
    }
    if (scope == 0 || search->top_k == 0) {
        return 0;
    }
    return search->vector != NULL
               ? search_vector(tables, search, scope, arena, hits, len, why, why_size)
               : search_keyword(tables, search, scope, arena, hits, len, why, why_size);
}
