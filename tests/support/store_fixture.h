/*
 * What tests of the stores share: a coord on a real Redis, an arena for hits, a temporary
 * directory, and searches and writes that a test can wait for. What fails here ends the program.
 */
#ifndef TESTS_SUPPORT_STORE_FIXTURE_H
#define TESTS_SUPPORT_STORE_FIXTURE_H

#include "common/store.h"
#include "tests/support/coord_fixture.h"

struct store_fixture {
    struct cluster cluster;
    struct sl_coord *coord;
    struct sl_http_client *http;
    struct sl_arena arena;
    char dir[64];
    char sqlite_url[128]; /* Of a file in dir that is not there yet. */
};

/* How a call ended. */
struct store_end {
    int calls; /* Of the callback. */
    int err;
    struct sl_hit *hits;
    size_t len;
    char detail[256];
};

void store_fixture_start(struct store_fixture *fixture);
void store_fixture_stop(struct store_fixture *fixture); /* Checks that no permit is held. */
/* The limit is CHAT of coord_fixture.h: 2 permits. */
struct sl_store_env store_fixture_env(struct store_fixture *fixture);
struct sl_store *store_fixture_open(struct store_fixture *fixture, const char *url);
/* SLUICE_SQLITE_VEC, else the one that deploy/setup installs. */
const char *store_fixture_sqlite_vec(void);

/* A scope of tenant "default" and collection "default"; deadline in 20 s, top 10, hits to the
 * fixture's arena. */
struct sl_store_search store_search_text(struct store_fixture *fixture, const char *text);
struct sl_store_search store_search_vector(struct store_fixture *fixture, const float *vector,
                                           size_t dim);
/* The first version of a document of the default scope. */
struct sl_batch store_batch(const char *doc_id, struct sl_span *texts, size_t len,
                            const float *vectors, uint32_t dim);

struct sl_store_call *store_start(struct sl_store *store, const struct sl_store_search *search,
                                  struct store_end *end);
/* These wait for the end. */
struct store_end store_find(struct store_fixture *fixture, struct sl_store *store,
                            const struct sl_store_search *search);
struct store_end store_write(struct store_fixture *fixture, struct sl_store *store,
                             const struct sl_batch *batch);
struct store_end store_delete_below(struct store_fixture *fixture, struct sl_store *store,
                                    const struct sl_batch *document, int64_t version);
struct store_end store_delete_version(struct store_fixture *fixture, struct sl_store *store,
                                      const struct sl_batch *document, int64_t version);

void store_on_hits(void *ctx, int err, struct sl_hit *hits, size_t len, const char *detail);
void store_on_done(void *ctx, int err, const char *detail);

#endif
