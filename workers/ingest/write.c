/*
 * Writes go to all stores at once, and each store's is tried until it succeeds, is refused for good
 * or has used up the budget. A store that is away or overloaded is waited for: the documents behind
 * it wait too, which is the back-pressure that it needs. What was written twice is the same once.
 */
#include "workers/ingest/write.h"

#include "common/clock.h"
#include "common/log.h"

#include <assert.h>
#include <stdio.h>

enum { RETRY_BASE_MS = 200, RETRY_CAP_MS = 10000 };

static void start_leg(struct leg *leg);

static void leg_ended(struct leg *leg, int err, const char *detail)
{
    struct ingest_write *write = leg->write;
    leg->open = false;
    if (err != 0) {
        write->err = err;
        snprintf(write->detail, sizeof(write->detail), "%s",
                 detail[0] != '\0' ? detail : sl_error_text(err));
    }
    for (size_t i = 0; i < INGEST_STORES; i++) {
        if (write->legs[i].open) {
            return;
        }
    }
    write->on_done(write, write->err, write->detail);
}

static void on_retry(struct sl_timer *timer)
{
    start_leg(SL_ITEM(timer, struct leg, retry));
}

/* What the store says of these very chunks will be said again. */
static bool is_final(int err)
{
    return sl_error_class(err) == SL_CLASS_BAD_INPUT || err == -SL_EREJECTED;
}

static void leg_failed(struct leg *leg, int err, const char *detail)
{
    const struct ingest_stores *stores = leg->write->stores;
    if (is_final(err) || sl_clock_now_ms() >= leg->write->end_ms) {
        leg_ended(leg, err, detail);
        return;
    }
    if (leg->backoff.tries % 8 == 0) {
        sl_log(SL_LOG_WARN, "not written to the store, trying again",
               SL_SPANF("doc_id", leg->batch.doc_id), SL_ERR(err), SL_STR("why", detail));
    }
    sl_timer_start(stores->loop, &leg->retry, sl_backoff_next_ms(&leg->backoff), on_retry);
}

static void on_written(void *ctx, int err, const char *detail)
{
    struct leg *leg = ctx;
    leg->call = NULL;
    if (err == 0) {
        leg_ended(leg, 0, "");
    } else {
        leg_failed(leg, err, detail);
    }
}

static void start_leg(struct leg *leg)
{
    struct ingest_write *write = leg->write;
    struct ingest_stores *stores = write->stores;
    struct sl_store *store = stores->store[leg - write->legs];
    int64_t deadline_ms = sl_coord_now_ms(stores->coord) + (int64_t)stores->budget_ms;
    int rv = 0;
    switch (write->kind) {
    case INGEST_UPSERT:
        rv = sl_store_upsert(store, &leg->batch, deadline_ms, on_written, leg, &leg->call);
        break;
    case INGEST_DELETE_BELOW:
        rv = sl_store_delete_below(store, &leg->batch, write->version, deadline_ms, on_written, leg,
                                   &leg->call);
        break;
    case INGEST_DELETE_VERSION:
        rv = sl_store_delete_version(store, &leg->batch, write->version, deadline_ms, on_written,
                                     leg, &leg->call);
        break;
    }
    if (rv != 0) {
        leg->call = NULL;
        leg_failed(leg, rv, sl_error_text(rv));
    }
}

static void start(struct ingest_stores *stores, struct ingest_write *write,
                  const struct sl_batch *batch)
{
    write->stores = stores;
    write->end_ms = sl_clock_now_ms() + stores->budget_ms;
    write->err = 0;
    for (size_t i = 0; i < INGEST_STORES; i++) {
        struct leg *leg = &write->legs[i];
        assert(leg->call == NULL && !sl_timer_active(&leg->retry));
        leg->write = write;
        leg->batch = *batch;
        leg->open = stores->store[i] != NULL;
        if (i > 0) {
            leg->batch.vectors = NULL;
            leg->batch.dim = 0;
        }
        sl_backoff_init(&leg->backoff, RETRY_BASE_MS, RETRY_CAP_MS, sl_clock_now_us() + i);
        if (leg->open) {
            sl_timer_start(stores->loop, &leg->retry, 0, on_retry);
        }
    }
}

void ingest_write_upsert(struct ingest_stores *stores, struct ingest_write *write,
                         const struct sl_batch *batch,
                         void (*on_done)(struct ingest_write *write, int err, const char *detail))
{
    write->kind = INGEST_UPSERT;
    write->on_done = on_done;
    start(stores, write, batch);
}

static void start_delete(struct ingest_stores *stores, struct ingest_write *write,
                         enum ingest_write_kind kind, const struct sl_batch *batch, int64_t version,
                         void (*on_done)(struct ingest_write *write, int err, const char *detail))
{
    assert(version > 0);
    write->kind = kind;
    write->version = version;
    write->on_done = on_done;
    start(stores, write, batch);
}

void ingest_write_delete_below(struct ingest_stores *stores, struct ingest_write *write,
                               const struct sl_batch *batch, int64_t version,
                               void (*on_done)(struct ingest_write *write, int err,
                                               const char *detail))
{
    start_delete(stores, write, INGEST_DELETE_BELOW, batch, version, on_done);
}

void ingest_write_delete_version(struct ingest_stores *stores, struct ingest_write *write,
                                 const struct sl_batch *batch, int64_t version,
                                 void (*on_done)(struct ingest_write *write, int err,
                                                 const char *detail))
{
    start_delete(stores, write, INGEST_DELETE_VERSION, batch, version, on_done);
}

void ingest_write_cancel(struct ingest_write *write)
{
    for (size_t i = 0; i < INGEST_STORES && write->stores != NULL; i++) {
        struct leg *leg = &write->legs[i];
        sl_timer_stop(write->stores->loop, &leg->retry);
        if (leg->call != NULL) {
            sl_store_cancel(leg->call);
            leg->call = NULL;
        }
        leg->open = false;
    }
}
