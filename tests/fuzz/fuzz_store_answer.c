/*
 * What Qdrant and OpenSearch answer to a search, as a broken or malicious server may, chosen by the
 * first byte. Hits that are taken are whole, no more than were asked for, and of the caller's
 * tenant and collection; what cannot be used says why.
 */
#include "tests/support/stage/fake_runtime.h"
#include "tests/support/test.h"
#include "workers/rerank/rerank.h"

#include <stdint.h>

enum { TOP_K = 3, ARENA_MAX = 16 << 20 };

static struct sl_worker *worker;
static struct sl_store *stores[2];
static long answers;

static void on_hits(void *ctx, int err, struct sl_hit *hits, size_t len, const char *detail)
{
    (void)ctx;
    answers++;
    CHECK(err == 0 || err == -SL_EPROTO || err == -SL_ENOMEM || err == -SL_EUPSTREAM);
    CHECK(err == 0 || (detail[0] != '\0' && len == 0));
    CHECK(len <= TOP_K);
    for (size_t i = 0; i < len; i++) {
        CHECK(hits[i].doc_id.data != NULL && hits[i].chunk_id.data != NULL);
        CHECK(hits[i].text.data != NULL && hits[i].metadata.data != NULL);
    }
}

static struct sl_store *open_store(const struct sl_store_backend *backend, const char *url)
{
    const struct sl_store_env env = {.loop = fake_loop(worker), .limit_name = "VECTOR"};
    struct sl_store *store = NULL;
    char why[200];
    CHECK(backend->open(url, &env, &store, why, sizeof(why)) == 0);
    return store;
}

static void search(struct sl_store *store, bool scoped, const char *body)
{
    static const float vector[2] = {1, 2};
    static const struct sl_pair filter = {{"lang", 4}, {"7", 1}};
    struct sl_store_call *call;
    struct sl_arena arena;
    sl_arena_init(&arena, ARENA_MAX);
    const struct sl_store_search wanted = {
        .scope = {.tenant = scoped ? SL_SPAN("acme") : SL_SPAN("default"),
                  .collection = SL_SPAN("default"),
                  .filter = &filter,
                  .filter_len = scoped ? 1 : 0},
        .vector = vector,
        .dim = 2,
        .top_k = TOP_K,
        .arena = &arena};
    long before = answers;
    CHECK(store->backend->search(store, &wanted, on_hits, NULL, &call) == 0);
    fake_call_end(fake_call(worker, 0), 0, 200, body);
    CHECK_INT(answers, before + 1);
    fake_forget_calls(worker);
    sl_arena_fini(&arena);
}

static void begin(void)
{
    setenv("SLUICE_RERANK_URL", "http://127.0.0.1:1/v1", 1);
    worker = fake_worker_create(&rerank_stage);
    stores[0] = open_store(&sl_store_qdrant, "qdrant+http://127.0.0.1:1/c");
    stores[1] = open_store(&sl_store_opensearch, "opensearch+http://127.0.0.1:1/c");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *body = size > 0 ? strndup((const char *)data + 1, size - 1) : NULL;
    if (body == NULL) {
        return 0;
    }
    if (worker == NULL) {
        begin();
    }
    search(stores[data[0] & 1], (data[0] & 2) != 0, body);
    free(body);
    return 0;
}
