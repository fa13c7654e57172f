/*
 * redis://host:port/INDEX: chunks as hashes, searched by Redis's Query Engine (Redis 8, or a Redis
 * or Valkey with the search module). It may be the server that Sluice coordinates through, but has
 * a connection of its own: what is written in bulk must not stand before a permit.
 *
 * A search: copied with all its arguments, given a permit (the one that came with the job's
 * admission when that is held), begun when the index is known (store_redis_index.c), sent as one
 * FT.SEARCH (store_redis_search.c). A write is the same without a permit: no other process's limit
 * is at stake; WRITES_MAX of them go on at a time, and further ones are refused so that the caller
 * feels it.
 *
 * What was sent cannot be called back. A call that ends early (cancelled, deadline passed, permit
 * lost) gives its permit back and calls its callback or not, at once; its memory goes with the last
 * reply. Until the first attempt to connect has ended calls wait for it, within their time; while
 * the link is down they fail at once with -SL_ECONN, which is worth another try.
 *
 * sl_store_open looks at the index over a connection on a loop of its own, for PROBE_MS at most: a
 * server that is away is no reason not to start, one without the Query Engine is.
 */
#include "common/store_redis_internal.h"

#include "common/clock.h"
#include "common/coord.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

enum { WRITES_MAX = 64, PROBE_MS = 2000, TURN_MS = 50 };
enum { ARENA_MAX = 64 << 20, URL_MAX = 2048 };

/* --- what calls need --- */

void redis_arg(struct redis_args *args, struct sl_span arg)
{
    assert(args->len < REDIS_ARGS_MAX);
    args->argv[args->len++] = arg;
}

void redis_error_text(int err, const struct redisReply *reply, char *ret, size_t size)
{
    struct sl_span text = sl_reply_span(reply);
    bool said = sl_reply_type(reply) == SL_REPLY_ERROR && text.len > 0;
    snprintf(ret, size, "%s" SL_SPAN_FMT, said ? "Redis: " : "",
             SL_SPAN_ARG(said ? text : sl_span_of(sl_error_text(err))));
}

static bool says(const struct redisReply *reply, const char *words)
{
    struct sl_span text = sl_reply_span(reply);
    return sl_reply_type(reply) == SL_REPLY_ERROR && text.len > 0 &&
           memmem(text.data, text.len, words, strlen(words)) != NULL;
}

bool redis_says_no_index(const struct redisReply *reply)
{
    return says(reply, "no such index") || says(reply, "No such index") ||
           says(reply, "Unknown index name") || says(reply, "Unknown Index name");
}

/* --- how a call ends --- */

static void maybe_destroy(struct redis_call *call)
{
    if (call->ended && call->sent == 0 && !call->busy) {
        sl_arena_fini(&call->arena);
        free(call);
    }
}

/* Nothing that it stands in knows it any more but the replies on their way. */
static void leave(struct redis_call *call)
{
    struct redis_store *store = redis_store_of(call);
    sl_timer_stop(store->env.loop, &call->timer);
    sl_list_remove(&call->node);
    if (call->permit != NULL) {
        sl_permit_release(store->env.coord, call->permit);
    } else {
        store->writes--;
    }
    store->calls--;
    call->ended = true;
}

static void count(struct redis_call *call, int err)
{
    struct redis_store *store = redis_store_of(call);
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

void redis_call_end(struct redis_call *call, int err, struct sl_hit *hits, size_t len,
                    const char *detail)
{
    assert(!call->ended);
    count(call, err);
    leave(call); /* The permit first: whoever is told of the end may ask for one. */
    bool busy = call->busy;
    call->busy = true; /* detail may be the call's. */
    detail = err == 0 ? "" : detail;
    if (call->on_hits != NULL) {
        call->on_hits(call->ctx, err, hits, len, detail);
    } else {
        call->on_done(call->ctx, err, detail);
    }
    call->busy = busy;
    maybe_destroy(call);
}

static void on_timer(struct sl_timer *timer)
{
    struct redis_call *call = SL_ITEM(timer, struct redis_call, timer);
    int err = call->err;
    if (!call->late) {
        bool expired = sl_coord_now_ms(redis_store_of(call)->env.coord) >= call->deadline_ms;
        err = expired ? -SL_EEXPIRED : -SL_ETIMEDOUT;
        call->detail[0] = '\0';
    }
    redis_call_end(call, err, NULL, 0, call->detail[0] != '\0' ? call->detail : sl_error_text(err));
}

void redis_call_end_later(struct redis_call *call, int err, const char *detail)
{
    sl_list_remove(&call->node);
    call->late = true;
    call->err = err;
    if (detail != call->detail) {
        snprintf(call->detail, sizeof(call->detail), "%s", detail);
    }
    sl_timer_start(redis_store_of(call)->env.loop, &call->timer, 0, on_timer);
}

static void cancel_redis(struct sl_store_call *base)
{
    struct redis_call *call = (struct redis_call *)base;
    leave(call);
    maybe_destroy(call);
}

/* --- commands --- */

static void on_reply(void *ctx, int err, const struct redisReply *reply)
{
    struct redis_call *call = ctx;
    call->sent--;
    call->busy = true;
    if (!call->ended && !call->late) {
        call->on_reply(call, err, reply);
    }
    call->busy = false;
    maybe_destroy(call);
}

int redis_call_send(struct redis_call *call, const struct redis_args *args)
{
    int rv = sl_redis_try(redis_store_of(call)->redis, args->len, args->argv, on_reply, call);
    call->sent += rv == 0;
    return rv;
}

long long redis_call_left_ms(const struct redis_call *call)
{
    const struct sl_store_env *env = &redis_store_of(call)->env;
    long long left_ms = call->deadline_ms - sl_coord_now_ms(env->coord);
    left_ms = left_ms < env->timeout_ms ? left_ms : env->timeout_ms;
    return left_ms > 0 ? left_ms : 1;
}

/* --- how a call begins --- */

static struct redis_call *create_call(struct sl_store *base, void (*begin)(struct redis_call *call),
                                      void *ctx, int64_t deadline_ms)
{
    struct redis_call *call = calloc(1, sizeof(*call));
    if (call != NULL) {
        call->base.store = base;
        call->begin = begin;
        call->ctx = ctx;
        call->deadline_ms = deadline_ms;
        sl_list_init(&call->node);
        sl_arena_init(&call->arena, ARENA_MAX);
    }
    return call;
}

static void destroy_unstarted(struct redis_call *call)
{
    sl_arena_fini(&call->arena);
    free(call);
}

/* With its time-out, to where calls wait for the index. */
static void submit(struct redis_call *call)
{
    struct redis_store *store = redis_store_of(call);
    if (call->deadline_ms <= sl_coord_now_ms(store->env.coord)) {
        redis_call_end_later(call, -SL_EEXPIRED, "");
        return;
    }
    call->began_us = sl_clock_now_us();
    sl_timer_start(store->env.loop, &call->timer, (uint64_t)redis_call_left_ms(call), on_timer);
    redis_index_await(store, call);
}

static void on_granted(struct sl_permit *permit, int err)
{
    struct redis_call *call = permit->owner;
    if (err == 0) {
        submit(call);
    } else {
        redis_call_end_later(call, err, "");
    }
}

static void on_lost(struct sl_permit *permit)
{
    redis_call_end_later(permit->owner, -SL_ELOST, "");
}

static void take_permit(struct redis_call *call, struct sl_permit *permit)
{
    call->permit = permit;
    if (permit == NULL) {
        call->permit = &call->own_permit;
        sl_permit_init(call->permit, redis_store_of(call)->limit, false, on_granted, on_lost);
    }
    call->permit->owner = call;
    call->permit->on_granted = on_granted;
    call->permit->on_lost = on_lost;
}

static int search_redis(struct sl_store *base, const struct sl_store_search *search,
                        sl_store_hits_cb *cb, void *ctx, struct sl_store_call **ret)
{
    struct redis_store *store = (struct redis_store *)base;
    struct redis_call *call = create_call(base, redis_begin_search, ctx, search->deadline_ms);
    if (call == NULL) {
        return -SL_ENOMEM;
    }
    call->search = *search;
    call->on_hits = cb;
    call->out = search->arena;
    int rv = sl_store_copy_search(&call->arena, &call->search);
    if (rv != 0) {
        destroy_unstarted(call);
        return rv;
    }
    take_permit(call, search->permit);
    store->calls++;
    *ret = &call->base;
    if (call->permit->state == SL_PERMIT_HELD) {
        submit(call);
    } else {
        sl_permit_request(store->env.coord, call->permit, call->deadline_ms);
    }
    return 0;
}

/* rv: how the copy of its arguments went. */
static int start_write(struct redis_call *call, int rv, sl_store_done_cb *cb,
                       struct sl_store_call **ret)
{
    struct redis_store *store = redis_store_of(call);
    struct sl_buf key;
    sl_buf_init(&key, ARENA_MAX);
    redis_put_document_key(&key, store->name, &call->batch);
    rv = rv != 0 ? rv : sl_buf_error(&key);
    if (rv == 0) {
        call->key = sl_arena_copy(&call->arena, sl_buf_span(&key));
        rv = call->key.data != NULL ? 0 : -SL_ENOMEM;
    }
    sl_buf_fini(&key);
    rv = rv == 0 && store->writes == WRITES_MAX ? -SL_EAGAIN : rv;
    if (rv != 0) {
        destroy_unstarted(call);
        return rv;
    }
    call->on_done = cb;
    store->calls++;
    store->writes++;
    *ret = &call->base;
    submit(call);
    return 0;
}

static int upsert_redis(struct sl_store *base, const struct sl_batch *batch, int64_t deadline_ms,
                        sl_store_done_cb *cb, void *ctx, struct sl_store_call **ret)
{
    struct redis_call *call = create_call(base, redis_begin_upsert, ctx, deadline_ms);
    if (call == NULL) {
        return -SL_ENOMEM;
    }
    call->batch = *batch;
    return start_write(call, sl_store_copy_batch(&call->arena, &call->batch), cb, ret);
}

static int start_delete(struct sl_store *base, const struct sl_batch *document, int64_t version,
                        bool below, int64_t deadline_ms, sl_store_done_cb *cb, void *ctx,
                        struct sl_store_call **ret)
{
    struct redis_call *call = create_call(base, redis_begin_delete, ctx, deadline_ms);
    if (call == NULL) {
        return -SL_ENOMEM;
    }
    call->version = version;
    call->below = below;
    return start_write(call, sl_store_copy_document(&call->arena, document, &call->batch), cb, ret);
}

static int delete_below_redis(struct sl_store *base, const struct sl_batch *document,
                              int64_t version, int64_t deadline_ms, sl_store_done_cb *cb, void *ctx,
                              struct sl_store_call **ret)
{
    return start_delete(base, document, version, true, deadline_ms, cb, ctx, ret);
}

static int delete_version_redis(struct sl_store *base, const struct sl_batch *document,
                                int64_t version, int64_t deadline_ms, sl_store_done_cb *cb,
                                void *ctx, struct sl_store_call **ret)
{
    return start_delete(base, document, version, false, deadline_ms, cb, ctx, ret);
}

/* --- opening and closing --- */

static void on_link(void *ctx, const char *run_id, const char *why)
{
    struct redis_store *store = ctx;
    store->link = run_id != NULL ? REDIS_LINK_UP : REDIS_LINK_DOWN;
    snprintf(store->why, sizeof(store->why), "%s", why != NULL ? why : "");
    redis_index_link(store);
}

/* The look at the index before the loop runs. */
struct probe {
    struct redis_store *store;
    struct sl_redis *redis;
    bool done;
    int err;
    char why[REDIS_DETAIL_MAX];
};

static void on_probed(void *ctx, int err, const struct redisReply *reply)
{
    struct probe *probe = ctx;
    struct redis_store *store = probe->store;
    probe->done = true;
    if (err == 0) {
        redis_index_read(reply, store->name, &store->index);
        store->store.dim = store->index.dim;
    } else if (says(reply, "unknown command")) {
        probe->err = -SL_EINVAL;
        snprintf(probe->why, sizeof(probe->why),
                 "this Redis has no Query Engine (FT.INFO): Redis 8 has, or one with the search "
                 "module");
    }
}

static void on_probe_link(void *ctx, const char *run_id, const char *why)
{
    struct probe *probe = ctx;
    const struct sl_span info[] = {SL_SPAN("FT.INFO"), sl_span_of(probe->store->name)};
    (void)why; /* It was logged. */
    probe->done = run_id == NULL || sl_redis_try(probe->redis, 2, info, on_probed, probe) != 0;
}

static int look_at_index(struct redis_store *store, const char *url, char *why, size_t why_size)
{
    struct probe probe = {.store = store};
    struct sl_loop *loop = NULL;
    const struct sl_redis_config config = {.url = url,
                                           .connect_timeout_ms = PROBE_MS,
                                           .command_timeout_ms = PROBE_MS,
                                           .on_link = on_probe_link,
                                           .ctx = &probe};
    uint64_t end_ms = sl_clock_now_ms() + PROBE_MS;
    int rv = sl_loop_create(&loop);
    if (rv != 0) {
        snprintf(why, why_size, "%s", sl_error_text(rv));
        return rv;
    }
    rv = sl_redis_create(loop, &config, &probe.redis, why, why_size);
    while (rv == 0 && !probe.done && sl_clock_now_ms() < end_ms) {
        sl_loop_turn(loop, TURN_MS);
    }
    sl_redis_destroy(rv == 0 ? probe.redis : NULL);
    sl_loop_destroy(loop);
    if (rv == 0 && probe.err != 0) {
        snprintf(why, why_size, "%s", probe.why);
        rv = probe.err;
    }
    return rv != 0 ? rv : sl_store_check_dim(&store->store, store->env.dim, why, why_size);
}

/* "redis://user:password@host:6379/NAME" into what precedes the last slash, and the name. */
static int split_url(const char *url, char *server, struct redis_store *store, char *why,
                     size_t why_size)
{
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                                  "._-";
    const char *host = strstr(url, "://") + 3;
    const char *slash = strrchr(host, '/');
    size_t len = slash != NULL ? strlen(slash + 1) : 0;
    if (len == 0 || len >= sizeof(store->name) || strspn(slash + 1, allowed) != len) {
        snprintf(why, why_size,
                 "redis://host:port/INDEX is meant, an index of letters, digits, '.', '_' and '-'");
        return -SL_EINVAL;
    }
    if ((size_t)(slash - url) >= URL_MAX) {
        snprintf(why, why_size, "the address is too long");
        return -SL_EINVAL;
    }
    memcpy(server, url, (size_t)(slash - url));
    server[slash - url] = '\0';
    memcpy(store->name, slash + 1, len + 1);
    return 0;
}

static int connect_store(struct redis_store *store, const char *url, char *why, size_t why_size)
{
    const struct sl_redis_config config = {
        .url = url,
        .command_timeout_ms = (uint32_t)store->env.timeout_ms,
        .on_link = on_link,
        .ctx = store,
    };
    char labels[64];
    int rv = look_at_index(store, url, why, why_size);
    rv = rv != 0 ? rv : sl_redis_create(store->env.loop, &config, &store->redis, why, why_size);
    snprintf(labels, sizeof(labels), "upstream=\"%s\"", store->env.limit_name);
    store->seconds = sl_metrics_histogram(store->env.metrics, "sluice_upstream_seconds",
                                          "Time of one call to an upstream.", labels);
    return rv;
}

static int open_redis(const char *url, const struct sl_store_env *env, struct sl_store **ret,
                      char *why, size_t why_size)
{
    char server[URL_MAX];
    struct redis_store *store = calloc(1, sizeof(*store));
    if (store == NULL) {
        snprintf(why, why_size, "out of memory");
        return -SL_ENOMEM;
    }
    store->store.backend = &sl_store_redis;
    store->env = *env;
    store->limit = sl_coord_limit(env->coord, env->limit_name);
    sl_list_init(&store->waiting);
    int rv = split_url(url, server, store, why, why_size);
    rv = rv != 0 ? rv : connect_store(store, server, why, why_size);
    explicit_bzero(server, sizeof(server));
    if (rv != 0) {
        free(store);
        return rv;
    }
    *ret = &store->store;
    return 0;
}

static void close_redis(struct sl_store *base)
{
    struct redis_store *store = (struct redis_store *)base;
    assert(store->calls == 0);
    sl_redis_destroy(store->redis);
    free(store);
}

const struct sl_store_backend sl_store_redis = {
    .scheme = "redis",
    .open = open_redis,
    .close = close_redis,
    .search = search_redis,
    .upsert = upsert_redis,
    .delete_below = delete_below_redis,
    .delete_version = delete_version_redis,
    .cancel = cancel_redis,
};
