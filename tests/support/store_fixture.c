/* See store_fixture.h. */
#include "tests/support/store_fixture.h"

#include "tests/support/soon.h"

#include <ftw.h>
#include <unistd.h>

enum { LEASE_MS = 3000, DEADLINE_MS = 20000, ARENA_MAX = 16 << 20 };

/* The dynamic linker keeps a list of what it has loaded for as long as the process lives. The leak
 * check knows the linker's memory by who calls malloc, which alloc_fail.c hides. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
    return "leak:add_to_global_resize\n";
}

static const struct sl_http_client_config http_config = {.max_connections = 64};

void store_fixture_start(struct store_fixture *fixture)
{
    *fixture = (struct store_fixture){.dir = "/tmp/sluice-store-XXXXXX"};
    cluster_start(&fixture->cluster, LEASE_MS);
    cluster_skip_quarantine(&fixture->cluster);
    fixture->coord = cluster_join(&fixture->cluster, "stores");
    CHECK(sl_http_client_create(fixture->cluster.loop, &http_config, &fixture->http) == 0);
    sl_arena_init(&fixture->arena, ARENA_MAX);
    CHECK(mkdtemp(fixture->dir) != NULL);
    snprintf(fixture->sqlite_url, sizeof(fixture->sqlite_url), "sqlite://%s/chunks.db",
             fixture->dir);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *at)
{
    (void)st;
    (void)type;
    (void)at;
    return remove(path);
}

void store_fixture_stop(struct store_fixture *fixture)
{
    CHECK_INT(sl_permit_held(fixture->coord, LIMIT_CHAT), 0);
    SOON(fixture->cluster.loop, sl_coord_idle(fixture->coord));
    sl_arena_fini(&fixture->arena);
    sl_http_client_destroy(fixture->http);
    cluster_stop(&fixture->cluster);
    CHECK(nftw(fixture->dir, remove_one, 8, FTW_DEPTH | FTW_PHYS) == 0);
}

const char *store_fixture_sqlite_vec(void)
{
    const char *path = getenv("SLUICE_SQLITE_VEC");
    path = path != NULL ? path : ".local/lib/vec0.so";
    if (access(path, R_OK) != 0) {
        fprintf(stderr, "%s is not there: run deploy/setup, or set SLUICE_SQLITE_VEC\n", path);
        exit(1);
    }
    return path;
}

struct sl_store_env store_fixture_env(struct store_fixture *fixture)
{
    return (struct sl_store_env){
        .loop = fixture->cluster.loop,
        .http = fixture->http,
        .coord = fixture->coord,
        .metrics = fixture->cluster.metrics,
        .limit_name = "CHAT",
        .sqlite_vec_path = store_fixture_sqlite_vec(),
        .timeout_ms = 10000,
    };
}

struct sl_store *store_fixture_open(struct store_fixture *fixture, const char *url)
{
    const struct sl_store_env env = store_fixture_env(fixture);
    struct sl_store *store = NULL;
    char why[300] = "";
    if (sl_store_open(url, &env, &store, why, sizeof(why)) != 0) {
        fprintf(stderr, "%s: %s\n", url, why);
        abort();
    }
    return store;
}

static const struct sl_store_scope default_scope = {.tenant = {"default", 7},
                                                    .collection = {"default", 7}};

static struct sl_store_search search_of(struct store_fixture *fixture)
{
    return (struct sl_store_search){
        .scope = default_scope,
        .top_k = 10,
        .deadline_ms = sl_coord_now_ms(fixture->coord) + DEADLINE_MS,
        .arena = &fixture->arena,
    };
}

struct sl_store_search store_search_text(struct store_fixture *fixture, const char *text)
{
    struct sl_store_search search = search_of(fixture);
    search.text = sl_span_of(text);
    return search;
}

struct sl_store_search store_search_vector(struct store_fixture *fixture, const float *vector,
                                           size_t dim)
{
    struct sl_store_search search = search_of(fixture);
    search.vector = vector;
    search.dim = dim;
    return search;
}

struct sl_batch store_batch(const char *doc_id, struct sl_span *texts, size_t len,
                            const float *vectors, uint32_t dim)
{
    return (struct sl_batch){
        .doc_id = sl_span_of(doc_id),
        .tenant = default_scope.tenant,
        .collection = default_scope.collection,
        .version = 1,
        .total_chunks = (uint32_t)len,
        .texts = texts,
        .len = len,
        .vectors = vectors,
        .dim = dim,
    };
}

void store_on_hits(void *ctx, int err, struct sl_hit *hits, size_t len, const char *detail)
{
    struct store_end *end = ctx;
    CHECK(detail != NULL && (err == 0 || detail[0] != '\0') && (err == 0 || len == 0));
    end->calls++;
    end->err = err;
    end->hits = hits;
    end->len = len;
    snprintf(end->detail, sizeof(end->detail), "%s", detail);
}

void store_on_done(void *ctx, int err, const char *detail)
{
    store_on_hits(ctx, err, NULL, 0, detail);
}

struct sl_store_call *store_start(struct sl_store *store, const struct sl_store_search *search,
                                  struct store_end *end)
{
    struct sl_store_call *call = NULL;
    *end = (struct store_end){.calls = 0};
    CHECK(sl_store_search(store, search, store_on_hits, end, &call) == 0);
    CHECK(call != NULL && end->calls == 0);
    return call;
}

struct store_end store_find(struct store_fixture *fixture, struct sl_store *store,
                            const struct sl_store_search *search)
{
    struct store_end end;
    store_start(store, search, &end);
    SOON(fixture->cluster.loop, end.calls > 0);
    return end;
}

struct store_end store_write(struct store_fixture *fixture, struct sl_store *store,
                             const struct sl_batch *batch)
{
    struct sl_store_call *call = NULL;
    struct store_end end = {.calls = 0};
    int64_t deadline_ms = sl_coord_now_ms(fixture->coord) + DEADLINE_MS;
    CHECK(sl_store_upsert(store, batch, deadline_ms, store_on_done, &end, &call) == 0);
    CHECK(call != NULL && end.calls == 0);
    SOON(fixture->cluster.loop, end.calls > 0);
    return end;
}

typedef int delete_fn(struct sl_store *store, const struct sl_batch *document, int64_t version,
                      int64_t deadline_ms, sl_store_done_cb *cb, void *ctx,
                      struct sl_store_call **ret);

static struct store_end delete_as(struct store_fixture *fixture, struct sl_store *store,
                                  const struct sl_batch *document, int64_t version,
                                  delete_fn *start)
{
    struct sl_store_call *call = NULL;
    struct store_end end = {.calls = 0};
    int64_t deadline_ms = sl_coord_now_ms(fixture->coord) + DEADLINE_MS;
    CHECK(start(store, document, version, deadline_ms, store_on_done, &end, &call) == 0);
    SOON(fixture->cluster.loop, end.calls > 0);
    return end;
}

struct store_end store_delete_below(struct store_fixture *fixture, struct sl_store *store,
                                    const struct sl_batch *document, int64_t version)
{
    return delete_as(fixture, store, document, version, sl_store_delete_below);
}

struct store_end store_delete_version(struct store_fixture *fixture, struct sl_store *store,
                                      const struct sl_batch *document, int64_t version)
{
    return delete_as(fixture, store, document, version, sl_store_delete_version);
}
