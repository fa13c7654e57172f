/* See conformance.h. */
#include "tests/support/conformance.h"

#include <unistd.h>

enum { POLL_MS = 20 };

void conformance_start(struct conformance *c, const struct conformance_kind *kind, long long dim)
{
    static int number;
    *c = (struct conformance){.kind = kind};
    store_fixture_start(&c->fixture);
    const char *base = getenv("SLUICE_TEST_STORE");
    base = base != NULL ? base : kind->start(&c->fixture);
    snprintf(c->url, sizeof(c->url), "%st%d-%d", base, (int)getpid(), ++number);
    c->store = conformance_open(c, dim);
}

void conformance_stop(struct conformance *c)
{
    sl_store_close(c->store);
    store_fixture_stop(&c->fixture);
    if (c->kind->stop != NULL) {
        c->kind->stop();
    }
}

struct sl_store *conformance_open(struct conformance *c, long long dim)
{
    struct sl_store_env env = store_fixture_env(&c->fixture);
    struct sl_store *store = NULL;
    char why[300] = "";
    env.write = true;
    env.dim = dim;
    if (sl_store_open(c->url, &env, &store, why, sizeof(why)) != 0) {
        fprintf(stderr, "%s: %s\n", c->url, why);
        abort();
    }
    return store;
}

struct sl_batch conformance_one(const char *doc_id, const char *text, const float *vector,
                                uint32_t dim)
{
    static struct sl_span texts[1];
    texts[0] = sl_span_of(text);
    return store_batch(doc_id, texts, 1, vector, dim);
}

struct store_end conformance_try(struct conformance *c, const struct sl_batch *batch)
{
    struct sl_store_call *call = NULL;
    struct store_end end = {.calls = 0};
    int64_t deadline_ms = sl_coord_now_ms(c->fixture.coord) + 20000;
    int rv = sl_store_upsert(c->store, batch, deadline_ms, store_on_done, &end, &call);
    if (rv != 0) {
        return (struct store_end){.calls = 1, .err = rv};
    }
    CHECK(call != NULL && end.calls == 0);
    SOON(c->fixture.cluster.loop, end.calls > 0);
    return end;
}

struct store_end conformance_try_search(struct conformance *c, const struct sl_store_search *search)
{
    struct sl_store_call *call = NULL;
    struct store_end end = {.calls = 0};
    int rv = sl_store_search(c->store, search, store_on_hits, &end, &call);
    if (rv != 0) {
        return (struct store_end){.calls = 1, .err = rv};
    }
    SOON(c->fixture.cluster.loop, end.calls > 0);
    return end;
}

void conformance_write(struct conformance *c, const struct sl_batch *batch)
{
    struct store_end end = conformance_try(c, batch);
    CHECK_STR(end.detail, "");
    CHECK_INT(end.err, 0);
}

const char *conformance_ids(struct store_end end)
{
    static char text[1 << 16];
    size_t at = 0;
    text[0] = '\0';
    for (size_t i = 0; i < end.len; i++) {
        at += (size_t)snprintf(text + at, sizeof(text) - at, "%s" SL_SPAN_FMT, i > 0 ? " " : "",
                               SL_SPAN_ARG(end.hits[i].chunk_id));
        CHECK(at < sizeof(text));
    }
    return text;
}

/* ids NULL: only their number counts. */
static struct store_end soon(struct conformance *c, struct sl_store_search search, const char *ids,
                             size_t count)
{
    uint64_t end_ms = sl_clock_now_ms() + SOON_LIMIT_MS;
    for (;;) {
        struct sl_arena *arena = &c->fixture.arena;
        size_t max = arena->max;
        sl_arena_fini(arena);
        sl_arena_init(arena, max);
        search.arena = arena;
        search.deadline_ms = sl_coord_now_ms(c->fixture.coord) + 20000;
        struct store_end end = store_find(&c->fixture, c->store, &search);
        CHECK_STR(end.detail, "");
        CHECK_INT(end.err, 0);
        CHECK(end.len <= search.top_k);
        if (ids != NULL ? strcmp(conformance_ids(end), ids) == 0 : end.len == count) {
            return end;
        }
        if (sl_clock_now_ms() >= end_ms) {
            fprintf(stderr, "waited in vain for \"%s\" (%zu hits); found are: %s\n",
                    ids != NULL ? ids : "", count, conformance_ids(end));
            abort();
        }
        MEANWHILE(c->fixture.cluster.loop, POLL_MS);
    }
}

struct store_end conformance_soon(struct conformance *c, struct sl_store_search search,
                                  const char *ids)
{
    return soon(c, search, ids, 0);
}

struct store_end conformance_soon_count(struct conformance *c, struct sl_store_search search,
                                        size_t count)
{
    return soon(c, search, NULL, count);
}
