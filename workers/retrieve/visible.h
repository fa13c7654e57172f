/*
 * Which hits can be shown: a document's new version is on its way into the stores while the old one
 * serves, and only one of them may be seen. The account of ingestion in Redis knows which
 * (docs/INGESTION.md).
 */
#ifndef SLUICE_WORKERS_RETRIEVE_VISIBLE_H
#define SLUICE_WORKERS_RETRIEVE_VISIBLE_H

#include "common/coord.h"
#include "common/message.h"

struct visible_call;

struct retrieve_word {  /* What Redis told last. */
    bool changing;      /* Some document was. */
    int64_t checked_us; /* When that was, Redis's clock; 0: it never told. */
};

struct retrieve_visible { /* A member of its owner. */
    struct sl_loop *loop;
    struct sl_coord *coord;
    struct sl_timer timer;
    struct visible_call *asking;
    struct retrieve_word word;
};

/* Asks Redis once a second from now on. */
void retrieve_visible_start(struct retrieve_visible *visible, struct sl_loop *loop,
                            struct sl_coord *coord);
void retrieve_visible_stop(struct retrieve_visible *visible);
/* These are all visible, by the word that was known before they were searched for: what ended
 * since may be among them. */
bool retrieve_visible_all(const struct retrieve_word *word, const struct sl_hit *hits, size_t len);

/* One look-up: of all hits of a question. A member of its owner; zeroed is idle. */
struct retrieve_look {
    struct sl_span tenant, collection;
    struct retrieve_look_hits {
        struct sl_hit *hits; /* Those that are not visible are taken out. */
        size_t len;
    } lists[2];
    int64_t end_ms; /* Redis's clock: tried until then. */
    void (*on_looked)(struct retrieve_look *look, int err);
    /* Of visible.c. */
    struct retrieve_visible *visible;
    struct visible_call *call;
    struct sl_timer retry;
    uint32_t tries;
};

/* on_looked comes later, once: err 0, or what the last try said. */
void retrieve_look_start(struct retrieve_visible *visible, struct retrieve_look *look);
void retrieve_look_cancel(struct retrieve_look *look); /* Also when idle. */

#endif
