/*
 * sqlite:///path: the store that needs no server. SQLite blocks, so it has threads of its own
 * (store_threads.c): one that writes, since SQLite has one writer at a time anyway, and two that
 * search. Each has its own connection (store_sqlite_tables.c).
 *
 * A search: copied with all its arguments, given a permit (the one that came with the job's
 * admission when that is held), put into the readers' queue, run, returned to the loop, its hits
 * copied to the caller's arena. A write is the same without a permit: no other process's limit is
 * at stake, and its queue is short so that the caller feels it. Writes that wait are taken together
 * and return when all of them are committed.
 *
 * A call belongs to the loop but while a thread runs it. One that ends early then (cancelled,
 * deadline passed, permit lost) is only abandoned: its permit is given back and its callback called
 * or not, at once, the thread is told to stop by a flag that SQLite asks for every few
 * microseconds, and the call's memory goes when the thread has returned it. That is why it borrows
 * nothing.
 */
#include "common/clock.h"
#include "common/coord.h"
#include "common/store_backend.h"
#include "common/store_sqlite_tables.h"
#include "common/store_threads.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

enum { READERS = 2, READS_MAX = 1024, WRITERS = 1, WRITES_MAX = 64 };
enum { ARENA_MAX = 64 << 20, DETAIL_MAX = 256 };

struct sqlite_store {
    struct sl_store store;
    struct sl_store_env env;
    char *path, *vec_path;
    size_t limit; /* Of the coord. */
    struct sl_histogram *seconds;
    size_t calls; /* That have not ended. */
    struct sl_threads *readers, *writers;
};

struct call {
    struct sl_store_call base;
    struct sl_threads_item item;
    struct sl_arena arena; /* The arguments, then the hits. */
    int (*run)(struct call *call, struct sl_tables *tables);
    struct sl_store_search search;
    struct sl_batch batch;
    int64_t version;
    atomic_bool stop;
    /* What came of it. */
    int err;
    uint32_t dim; /* Of the vectors in the file, as far as its thread knew; 0: it did not. */
    struct sl_hit *hits;
    size_t len;
    char detail[DETAIL_MAX];
    /* The loop's at all times. */
    sl_store_hits_cb *on_hits;
    sl_store_done_cb *on_done;
    void *ctx;
    struct sl_arena *out;
    int64_t deadline_ms;
    struct sl_permit own_permit;
    struct sl_permit *permit; /* NULL: a write. */
    struct sl_timer timer;    /* Time-out, or an end that must not come inside another call. */
    int late_err;
    uint64_t began_us;
    bool abandoned;
};

static struct sqlite_store *store_of(const struct call *call)
{
    return (struct sqlite_store *)call->base.store;
}

static struct sl_threads *threads_of(const struct call *call)
{
    return call->permit != NULL ? store_of(call)->readers : store_of(call)->writers;
}

/* --- on the threads --- */

static int run_search(struct call *call, struct sl_tables *tables)
{
    return sl_tables_search(tables, &call->search, &call->arena, &call->hits, &call->len,
                            call->detail, sizeof(call->detail));
}

/* What is told of the model goes before what a new file would take from its first vector. */
static int run_upsert(struct call *call, struct sl_tables *tables)
{
    const struct sl_store told = {.dim = (uint32_t)store_of(call)->env.dim};
    long long dim = call->batch.vectors != NULL ? call->batch.dim : 0;
    int rv = sl_store_check_dim(&told, dim, call->detail, sizeof(call->detail));
    if (rv != 0) {
        return rv;
    }
    return sl_tables_upsert(tables, &call->batch, call->detail, sizeof(call->detail));
}

static int run_delete_below(struct call *call, struct sl_tables *tables)
{
    return sl_tables_delete_below(tables, &call->batch, call->version, call->detail,
                                  sizeof(call->detail));
}

static int run_delete_version(struct call *call, struct sl_tables *tables)
{
    return sl_tables_delete_version(tables, &call->batch, call->version, call->detail,
                                    sizeof(call->detail));
}

static bool is_stopped(void *ctx)
{
    return atomic_load_explicit(&((struct call *)ctx)->stop, memory_order_relaxed);
}

/* One call by itself. *state: the connection, which is opened when there is none. */
static void run_one(struct call *call, struct sl_tables **state)
{
    struct sqlite_store *store = store_of(call);
    if (*state == NULL) {
        call->err =
            sl_tables_open(store->path, store->vec_path, state, call->detail, sizeof(call->detail));
        if (call->err != 0) {
            *state = NULL;
            return;
        }
    }
    sl_tables_set_stop(*state, is_stopped, call);
    call->err = call->run(call, *state);
    call->dim = sl_tables_dim(*state);
    sl_tables_set_stop(*state, NULL, NULL);
    if (call->err == -SL_EIO) { /* Another connection may fare better. */
        sl_tables_close(*state);
        *state = NULL;
    }
}

static struct call *call_of(struct sl_threads_item *item)
{
    return SL_ITEM(item, struct call, item);
}

/* Several writes share transactions, which saves most of what a transaction costs. Those that
 * nobody waits for any more are left out: one that is told to stop would roll back what it shares
 * with the others. False: not all of them are written. */
static bool run_together(struct sl_threads_item *const *items, size_t count,
                         struct sl_tables *tables)
{
    char why[DETAIL_MAX];
    int rv = 0;
    sl_tables_begin(tables);
    for (size_t i = 0; i < count && rv == 0; i++) {
        struct call *call = call_of(items[i]);
        if (is_stopped(call)) {
            continue;
        }
        sl_tables_set_stop(tables, is_stopped, call);
        rv = call->run(call, tables);
        sl_tables_set_stop(tables, NULL, NULL);
        call->err = rv;
        call->dim = sl_tables_dim(tables);
    }
    int committed = sl_tables_commit(tables, why, sizeof(why)); /* Also ends the sharing. */
    return rv == 0 && committed == 0;
}

/* When writes fail together, each is tried by itself: what is written twice is there once, and only
 * those that are at fault fail. */
static void run(struct sl_threads_item *const *items, size_t count, void **state)
{
    struct sl_tables *tables = *state;
    if (count < 2 || tables == NULL || !run_together(items, count, tables)) {
        for (size_t i = 0; i < count; i++) {
            if (!is_stopped(call_of(items[i]))) {
                run_one(call_of(items[i]), &tables);
            }
        }
    }
    *state = tables;
}

static void close_tables(void *state)
{
    sl_tables_close(state);
}

/* --- how a call ends --- */

static void destroy(struct call *call)
{
    sl_arena_fini(&call->arena);
    free(call);
}

/* The loop has done with it. True: the caller destroys it; false: its thread's return does. */
static bool leave(struct call *call)
{
    struct sqlite_store *store = store_of(call);
    sl_timer_stop(store->env.loop, &call->timer);
    if (call->permit != NULL) {
        sl_permit_release(store->env.coord, call->permit);
    }
    store->calls--;
    atomic_store_explicit(&call->stop, true, memory_order_relaxed);
    call->abandoned = true;
    return sl_threads_take_back(threads_of(call), &call->item);
}

static void count(struct call *call, int err)
{
    struct sqlite_store *store = store_of(call);
    char labels[96];
    if (call->began_us == 0) {
        return;
    }
    snprintf(labels, sizeof(labels), "upstream=\"%s\",status=\"%s\"", store->env.limit_name,
             sl_error_name(err));
    sl_counter_add(sl_metrics_counter(store->env.metrics, "sluice_upstream_requests_total",
                                      "Calls to upstreams by the status of their response.",
                                      labels),
                   1);
    sl_histogram_observe(store->seconds, (double)(sl_clock_now_us() - call->began_us) / 1e6);
}

/* hits: in the caller's arena. */
static void settle(struct call *call, int err, struct sl_hit *hits, size_t len, const char *detail)
{
    count(call, err);
    bool ours = leave(call); /* The permit first: whoever is told of the end may ask for one. */
    char copy[DETAIL_MAX];   /* A call that is not ours any more may be gone at any callback. */
    snprintf(copy, sizeof(copy), "%s", err == 0 ? "" : detail);
    sl_store_hits_cb *on_hits = call->on_hits;
    sl_store_done_cb *on_done = call->on_done;
    void *ctx = call->ctx;
    if (ours) {
        destroy(call);
    }
    if (on_hits != NULL) {
        on_hits(ctx, err, hits, len, copy);
    } else {
        on_done(ctx, err, copy);
    }
}

static void on_timer(struct sl_timer *timer)
{
    struct call *call = SL_ITEM(timer, struct call, timer);
    int err = call->late_err;
    if (err == 0) {
        bool expired = sl_coord_now_ms(store_of(call)->env.coord) >= call->deadline_ms;
        err = expired ? -SL_EEXPIRED : -SL_ETIMEDOUT;
    }
    settle(call, err, NULL, 0, sl_error_text(err));
}

/* From inside start and the coord's callbacks. */
static void settle_later(struct call *call, int err)
{
    call->late_err = err;
    sl_timer_start(store_of(call)->env.loop, &call->timer, 0, on_timer);
}

static int copy_hits(const struct call *call, struct sl_hit **ret)
{
    struct sl_hit *hits = sl_arena_alloc(call->out, (call->len + 1) * sizeof(*hits));
    for (size_t i = 0; hits != NULL && i < call->len; i++) {
        hits[i] = call->hits[i];
        struct sl_span *const spans[] = {&hits[i].doc_id, &hits[i].chunk_id, &hits[i].text,
                                         &hits[i].metadata};
        for (size_t s = 0; s < sizeof(spans) / sizeof(spans[0]); s++) {
            *spans[s] = sl_arena_copy(call->out, *spans[s]);
            if (spans[s]->data == NULL) {
                return -SL_ENOMEM;
            }
        }
    }
    *ret = hits;
    return hits != NULL ? 0 : -SL_ENOMEM;
}

static void on_returned(struct sl_threads_item *item)
{
    struct call *call = SL_ITEM(item, struct call, item);
    struct sl_hit *hits = NULL;
    if (call->dim != 0) {
        call->base.store->dim = call->dim;
    }
    if (call->abandoned) {
        destroy(call);
        return;
    }
    if (call->late_err != 0) {
        return; /* Its timer will tell. */
    }
    int err = call->err;
    const char *detail = call->detail;
    if (err == 0 && call->on_hits != NULL) {
        err = copy_hits(call, &hits);
        detail = sl_error_text(err);
    }
    settle(call, err, hits, err == 0 ? call->len : 0, detail);
}

/* --- how a call begins --- */

static struct call *create_call(struct sl_store *base,
                                int (*run_fn)(struct call *call, struct sl_tables *tables))
{
    struct call *call = calloc(1, sizeof(*call));
    if (call != NULL) {
        call->base.store = base;
        call->run = run_fn;
        sl_list_init(&call->item.node);
        sl_arena_init(&call->arena, ARENA_MAX);
        atomic_init(&call->stop, false);
    }
    return call;
}

/* Into its queue, with its time-out. */
static int submit(struct call *call)
{
    struct sqlite_store *store = store_of(call);
    int64_t left_ms = call->deadline_ms - sl_coord_now_ms(store->env.coord);
    if (left_ms <= 0) {
        settle_later(call, -SL_EEXPIRED);
        return 0;
    }
    int rv = sl_threads_add(threads_of(call), &call->item);
    if (rv == 0) {
        call->began_us = sl_clock_now_us();
        left_ms = left_ms < store->env.timeout_ms ? left_ms : store->env.timeout_ms;
        sl_timer_start(store->env.loop, &call->timer, (uint64_t)left_ms, on_timer);
    }
    return rv;
}

static void submit_search(struct call *call)
{
    int rv = submit(call);
    if (rv != 0) {
        settle_later(call, rv);
    }
}

static void on_granted(struct sl_permit *permit, int err)
{
    struct call *call = permit->owner;
    if (err == 0) {
        submit_search(call);
    } else {
        settle_later(call, err);
    }
}

static void on_lost(struct sl_permit *permit)
{
    struct call *call = permit->owner;
    atomic_store_explicit(&call->stop, true, memory_order_relaxed);
    settle_later(call, -SL_ELOST);
}

static void take_permit(struct call *call, struct sl_permit *permit)
{
    call->permit = permit;
    if (permit == NULL) {
        call->permit = &call->own_permit;
        sl_permit_init(call->permit, store_of(call)->limit, false, on_granted, on_lost);
    }
    call->permit->owner = call;
    call->permit->on_granted = on_granted;
    call->permit->on_lost = on_lost;
}

static int search_sqlite(struct sl_store *base, const struct sl_store_search *search,
                         sl_store_hits_cb *cb, void *ctx, struct sl_store_call **ret)
{
    struct sqlite_store *store = (struct sqlite_store *)base;
    struct call *call = create_call(base, run_search);
    if (call == NULL) {
        return -SL_ENOMEM;
    }
    call->search = *search;
    call->on_hits = cb;
    call->ctx = ctx;
    call->out = search->arena;
    call->deadline_ms = search->deadline_ms;
    if (sl_store_copy_search(&call->arena, &call->search) != 0) {
        destroy(call);
        return -SL_ENOMEM;
    }
    take_permit(call, search->permit);
    store->calls++;
    *ret = &call->base;
    if (call->permit->state == SL_PERMIT_HELD) {
        submit_search(call);
    } else {
        sl_permit_request(store->env.coord, call->permit, call->deadline_ms);
    }
    return 0;
}

/* copied: how the copy of its arguments went. */
static int start_write(struct call *call, int copied, int64_t deadline_ms, sl_store_done_cb *cb,
                       void *ctx, struct sl_store_call **ret)
{
    call->on_done = cb;
    call->ctx = ctx;
    call->deadline_ms = deadline_ms;
    int rv = copied != 0 ? copied : submit(call);
    if (rv != 0) {
        destroy(call);
        return rv;
    }
    store_of(call)->calls++;
    *ret = &call->base;
    return 0;
}

static int upsert_sqlite(struct sl_store *base, const struct sl_batch *batch, int64_t deadline_ms,
                         sl_store_done_cb *cb, void *ctx, struct sl_store_call **ret)
{
    struct call *call = create_call(base, run_upsert);
    if (call == NULL) {
        return -SL_ENOMEM;
    }
    call->batch = *batch;
    return start_write(call, sl_store_copy_batch(&call->arena, &call->batch), deadline_ms, cb, ctx,
                       ret);
}

static int start_delete(struct call *call, const struct sl_batch *document, int64_t version,
                        int64_t deadline_ms, sl_store_done_cb *cb, void *ctx,
                        struct sl_store_call **ret)
{
    if (call == NULL) {
        return -SL_ENOMEM;
    }
    call->version = version;
    return start_write(call, sl_store_copy_document(&call->arena, document, &call->batch),
                       deadline_ms, cb, ctx, ret);
}

static int delete_below_sqlite(struct sl_store *base, const struct sl_batch *document,
                               int64_t version, int64_t deadline_ms, sl_store_done_cb *cb,
                               void *ctx, struct sl_store_call **ret)
{
    struct call *call = create_call(base, run_delete_below);
    return start_delete(call, document, version, deadline_ms, cb, ctx, ret);
}

static int delete_version_sqlite(struct sl_store *base, const struct sl_batch *document,
                                 int64_t version, int64_t deadline_ms, sl_store_done_cb *cb,
                                 void *ctx, struct sl_store_call **ret)
{
    struct call *call = create_call(base, run_delete_version);
    return start_delete(call, document, version, deadline_ms, cb, ctx, ret);
}

static void cancel_sqlite(struct sl_store_call *base)
{
    struct call *call = (struct call *)base;
    if (leave(call)) {
        destroy(call);
    }
}

/* --- opening and closing --- */

static void free_store(struct sqlite_store *store)
{
    sl_threads_destroy(store->readers);
    sl_threads_destroy(store->writers);
    free(store->path);
    free(store->vec_path);
    free(store);
}

static void close_sqlite(struct sl_store *base)
{
    struct sqlite_store *store = (struct sqlite_store *)base;
    assert(store->calls == 0);
    free_store(store);
}

/* The file and the extension are there and fit, and the tables exist. */
static int try_to_open(struct sqlite_store *store, char *why, size_t why_size)
{
    struct sl_tables *tables = NULL;
    int rv = sl_tables_open(store->path, store->vec_path, &tables, why, why_size);
    if (rv != 0) {
        return rv;
    }
    rv = sl_tables_look(tables, why, why_size);
    store->store.dim = sl_tables_dim(tables);
    sl_tables_close(tables);
    return rv != 0 ? rv : sl_store_check_dim(&store->store, store->env.dim, why, why_size);
}

static struct sqlite_store *create_store(const char *path, const struct sl_store_env *env)
{
    struct sqlite_store *store = calloc(1, sizeof(*store));
    if (store == NULL) {
        return NULL;
    }
    store->store.backend = &sl_store_sqlite;
    store->env = *env;
    store->limit = sl_coord_limit(env->coord, env->limit_name);
    store->path = strdup(path);
    store->vec_path = strdup(env->sqlite_vec_path);
    struct sl_threads_config config = {.max = READERS,
                                       .queue_max = READS_MAX,
                                       .run = run,
                                       .fini = close_tables,
                                       .on_returned = on_returned};
    int rv = sl_threads_create(env->loop, &config, &store->readers);
    config.max = WRITERS;
    config.group_max = SL_THREADS_GROUP;
    config.queue_max = WRITES_MAX;
    rv = rv != 0 ? rv : sl_threads_create(env->loop, &config, &store->writers);
    if (rv != 0 || store->path == NULL || store->vec_path == NULL) {
        free_store(store);
        return NULL;
    }
    return store;
}

static int open_sqlite(const char *url, const struct sl_store_env *env, struct sl_store **ret,
                       char *why, size_t why_size)
{
    const char *path = url + strlen("sqlite://");
    if (path[0] != '/' || path[1] == '\0') {
        snprintf(why, why_size, "%s: an absolute path belongs here: sqlite:///dir/file", url);
        return -SL_EINVAL;
    }
    struct sqlite_store *store = create_store(path, env);
    if (store == NULL) {
        snprintf(why, why_size, "out of memory");
        return -SL_ENOMEM;
    }
    int rv = try_to_open(store, why, why_size);
    if (rv != 0) {
        free_store(store);
        return rv;
    }
    char labels[64];
    snprintf(labels, sizeof(labels), "upstream=\"%s\"", env->limit_name);
    store->seconds = sl_metrics_histogram(env->metrics, "sluice_upstream_seconds",
                                          "Time of one call to an upstream.", labels);
    *ret = &store->store;
    return 0;
}

const struct sl_store_backend sl_store_sqlite = {
    .scheme = "sqlite",
    .open = open_sqlite,
    .close = close_sqlite,
    .search = search_sqlite,
    .upsert = upsert_sqlite,
    .delete_below = delete_below_sqlite,
    .delete_version = delete_version_sqlite,
    .cancel = cancel_sqlite,
};
