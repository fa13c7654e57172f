/*
 * What the conformance suite and the tests of one kind of store share: a kind of store to run them
 * on, a store of it under a name that nobody used before, and searches that wait until what was
 * written is visible, with a bound. What fails here ends the program.
 */
#ifndef TESTS_SUPPORT_CONFORMANCE_H
#define TESTS_SUPPORT_CONFORMANCE_H

#include "tests/support/soon.h"
#include "tests/support/store_fixture.h"

struct conformance_kind {
    const char *name;
    bool keyword; /* It searches by words too. */
    /* Where stores of this kind are, to which a name is added: "redis://127.0.0.1:6379/". Called
     * for each case; starts a server where one is needed. SLUICE_TEST_STORE goes before. */
    const char *(*start)(struct store_fixture *fixture);
    void (*stop)(void); /* May be NULL. */
    /* Writes a record of other programs, "raw", without tenant and collection, with the text and
     * the vector, to the store at url, which exists. NULL: its records cannot lack a field. */
    void (*put_raw)(const char *url, const char *text, const float *vector, size_t dim);
};

extern const struct conformance_kind conformance_redis, conformance_qdrant, conformance_opensearch;

struct conformance {
    const struct conformance_kind *kind;
    struct store_fixture fixture;
    struct sl_store *store;
    char url[256];
};

/* A fixture, and a store opened for writing under a new name. dim: as in sl_store_env. */
void conformance_start(struct conformance *c, const struct conformance_kind *kind, long long dim);
void conformance_stop(struct conformance *c);
/* Another one of the same name. */
struct sl_store *conformance_open(struct conformance *c, long long dim);

/* A document of one chunk, of the default scope, in static memory. */
struct sl_batch conformance_one(const char *doc_id, const char *text, const float *vector,
                                uint32_t dim);
void conformance_write(struct conformance *c, const struct sl_batch *batch);
/* How a write ends that need not succeed; refusals at the start count as ends. */
struct store_end conformance_try(struct conformance *c, const struct sl_batch *batch);
struct store_end conformance_try_search(struct conformance *c,
                                        const struct sl_store_search *search);

/* The chunk ids of all hits, in order, with spaces between. Static. */
const char *conformance_ids(struct store_end end);
/* Searches, again and again, until these are the hits. They are valid until the next search. */
struct store_end conformance_soon(struct conformance *c, struct sl_store_search search,
                                  const char *ids);
/* The same by number. */
struct store_end conformance_soon_count(struct conformance *c, struct sl_store_search search,
                                        size_t count);

#endif
