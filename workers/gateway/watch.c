/*
 * Watching a run of ingestion.
 *
 * All who watch one run share a watch, which reads the run's account four times a second and counts
 * its changes. Each watcher knows which change it was given last, and is given the present state
 * when that is another one and its connection has taken what was written before: who reads slowly
 * gets fewer events, each of them whole, and memory does not grow. The last state comes as `done`.
 *
 * Failures are read once each and kept by the watch, so that a run with many of them does not cost
 * Redis more the longer it runs.
 *
 * What can go wrong: there is no such run (404, as long as nothing was written to that watcher); it
 * is forgotten while it is watched (an event `error`, and the end); Redis is away (503 before the
 * first event; later the stream is kept alive and goes on). A watch that nobody wants any more is
 * freed when what it asked Redis has been answered.
 */
#include "workers/gateway/watch.h"

#include "common/sse.h"
#include "workers/gateway/ingests.h"

#include <stdlib.h>

enum {
    WATCHERS_MAX = 256,
    READ_MS = 250,
    KEEP_ALIVE_MS = 15000,
    FAILURES_MAX = 1000,
    FAILURES_BYTES = 4 << 20,
    STATE_MAX = 16 << 20,
};

struct watch {
    struct gateway *gateway;
    struct sl_list node; /* In gateway->watches. */
    struct sl_list watchers;
    char id[65];
    bool reading;     /* Redis has not answered. */
    bool ended;       /* state is the last. */
    bool forgotten;   /* Redis does not know the run any more. */
    uint64_t changes; /* 0: nothing is known yet. */
    struct sl_buf state, next;
    struct sl_arena arena; /* Of the failures. */
    struct sl_ingest_failure *failures;
    size_t failure_count, known; /* known: to the account. */
    struct sl_timer timer;
};

struct watcher {
    struct watch *watch;
    struct sl_list node;    /* In the watch's watchers. */
    struct request request; /* exchange NULL: has gone. */
    bool begun, ended;
    uint64_t given; /* The change. */
    uint64_t written_ms;
};

static void read_run(struct watch *watch);

/* --- life --- */

static void free_watch(struct watch *watch)
{
    sl_timer_stop(watch->gateway->loop, &watch->timer);
    sl_list_remove(&watch->node);
    sl_arena_fini(&watch->arena);
    sl_buf_fini(&watch->state);
    sl_buf_fini(&watch->next);
    free(watch);
}

static void maybe_free(struct watch *watch)
{
    if (sl_list_empty(&watch->watchers) && !watch->reading) {
        free_watch(watch);
    }
}

/* The exchange is over for the watch. */
static void let_go(struct watcher *watcher)
{
    sl_list_remove(&watcher->node);
    watcher->watch->gateway->watchers--;
    free(watcher);
}

static void on_gone(void *ctx, bool complete)
{
    struct watcher *watcher = ctx;
    struct watch *watch = watcher->watch;
    (void)complete;
    let_go(watcher);
    maybe_free(watch);
}

/* --- what a watcher is given --- */

static void write_out(struct watcher *watcher, struct sl_buf *out)
{
    watcher->written_ms = sl_loop_now_ms(watcher->watch->gateway->loop);
    if (sl_buf_error(out) != 0 ||
        sl_http_stream_write(watcher->request.exchange, sl_buf_span(out)) != 0) {
        watcher->ended = true; /* Is being closed. */
        if (sl_buf_error(out) != 0) {
            sl_http_stream_end(watcher->request.exchange);
        }
    }
    sl_buf_fini(out);
}

static void write_end(struct watcher *watcher, struct sl_buf *out)
{
    sl_sse_write(out, NULL, NULL, SL_SPAN("[DONE]"));
    write_out(watcher, out);
    if (!watcher->ended) {
        watcher->ended = true;
        sl_http_stream_end(watcher->request.exchange);
    }
}

static void give_state(struct watcher *watcher)
{
    struct watch *watch = watcher->watch;
    struct sl_buf out;
    if (!watcher->begun) {
        watcher->begun = true;
        respond_stream(&watcher->request);
    }
    watcher->given = watch->changes;
    sl_buf_init(&out, STATE_MAX + 1024);
    sl_sse_write(&out, NULL, watch->ended ? "done" : "progress", sl_buf_span(&watch->state));
    if (watch->ended) {
        write_end(watcher, &out);
    } else {
        write_out(watcher, &out);
    }
}

static void give_error(struct watcher *watcher)
{
    struct sl_buf out, body;
    sl_buf_init(&out, 4096);
    sl_buf_init(&body, 2048);
    write_failure(&body, 404, "not_found", "id",
                  SL_SPAN("the run is not known any more: Redis has forgotten it"));
    sl_sse_write(&out, NULL, "error", sl_buf_span(&body));
    sl_buf_fini(&body);
    write_end(watcher, &out);
}

static void keep_alive(struct watcher *watcher)
{
    struct sl_buf out;
    sl_buf_init(&out, 64);
    sl_sse_write_comment(&out, "keep-alive");
    write_out(watcher, &out);
}

static void give(struct watcher *watcher)
{
    struct watch *watch = watcher->watch;
    if (watcher->ended || (watcher->begun && sl_http_write_queue(watcher->request.exchange) > 0)) {
        return;
    }
    if (watch->forgotten) {
        give_error(watcher);
    } else if (watcher->given != watch->changes) {
        give_state(watcher);
    } else if (watcher->begun &&
               sl_loop_now_ms(watch->gateway->loop) - watcher->written_ms >= KEEP_ALIVE_MS) {
        keep_alive(watcher);
    }
}

/* Before anything is known: an answer like any other. */
static void fail_waiting(struct watch *watch, int err)
{
    SL_LIST_EACH_SAFE(node, &watch->watchers)
    {
        struct watcher *watcher = SL_ITEM(node, struct watcher, node);
        if (!watcher->begun) {
            struct request request = watcher->request;
            sl_http_on_gone(request.exchange, NULL, NULL);
            let_go(watcher);
            ingests_respond_missing(&request, err);
        }
    }
}

static void on_tick(struct sl_timer *timer)
{
    struct watch *watch = SL_ITEM(timer, struct watch, timer);
    if (!watch->ended && !watch->forgotten) {
        read_run(watch);
        return;
    }
    SL_LIST_EACH(node, &watch->watchers)
    {
        give(SL_ITEM(node, struct watcher, node));
    }
    sl_timer_start(watch->gateway->loop, &watch->timer, READ_MS, on_tick);
}

/* --- the account --- */

static int keep_failures(struct watch *watch, const struct sl_ingest_run *run)
{
    if (watch->failures == NULL && run->failure_count > 0) {
        watch->failures = sl_arena_alloc(&watch->arena, FAILURES_MAX * sizeof(*watch->failures));
    }
    for (size_t i = 0; i < run->failure_count && watch->failure_count < FAILURES_MAX; i++) {
        if (watch->failures == NULL) {
            return -SL_ENOMEM;
        }
        struct sl_ingest_failure kept = {
            .doc_id = sl_arena_copy(&watch->arena, run->failures[i].doc_id),
            .reason = sl_arena_copy(&watch->arena, run->failures[i].reason)};
        if (watch->arena.full) { /* No more are kept, nor asked for. */
            watch->known = FAILURES_MAX;
            return 0;
        }
        if (kept.doc_id.data == NULL || kept.reason.data == NULL) {
            return -SL_ENOMEM;
        }
        watch->failures[watch->failure_count++] = kept;
        watch->known = watch->failure_count;
    }
    return 0;
}

static void take_run(struct watch *watch, const struct sl_ingest_run *run)
{
    struct sl_ingest_run whole = *run;
    if (keep_failures(watch, run) != 0) {
        return; /* Tried again with the next reading. */
    }
    whole.failures = watch->failures;
    whole.failure_count = watch->failure_count;
    sl_buf_clear(&watch->next);
    sl_ingest_run_json(&whole, &watch->next);
    if (sl_buf_error(&watch->next) != 0 ||
        (watch->changes > 0 &&
         sl_span_equal(sl_buf_span(&watch->next), sl_buf_span(&watch->state)))) {
        return;
    }
    struct sl_buf old = watch->state;
    watch->state = watch->next;
    watch->next = old;
    watch->changes++;
    watch->ended = run->ended;
}

static void on_run(void *ctx, int err, const struct sl_ingest_run *run)
{
    struct watch *watch = ctx;
    watch->reading = false;
    if (sl_list_empty(&watch->watchers)) {
        free_watch(watch);
        return;
    }
    if (err == 0) {
        take_run(watch, run);
    } else {
        watch->forgotten = err == -SL_ENOENT && watch->changes > 0;
        fail_waiting(watch, err);
    }
    SL_LIST_EACH(node, &watch->watchers)
    {
        give(SL_ITEM(node, struct watcher, node));
    }
    if (sl_list_empty(&watch->watchers)) {
        free_watch(watch);
    } else {
        sl_timer_start(watch->gateway->loop, &watch->timer, READ_MS, on_tick);
    }
}

static void read_run(struct watch *watch)
{
    const struct sl_ingest_env env = ingests_env(watch->gateway);
    watch->reading = sl_ingest_read(&env, sl_span_of(watch->id), watch->known, on_run, watch) == 0;
    if (!watch->reading) { /* Redis is away: those who have begun wait for it. */
        fail_waiting(watch, -SL_ECONN);
        SL_LIST_EACH(node, &watch->watchers)
        {
            give(SL_ITEM(node, struct watcher, node));
        }
        sl_timer_start(watch->gateway->loop, &watch->timer, READ_MS, on_tick);
    }
}

/* --- who watches --- */

static struct watch *find(struct gateway *gateway, const char *id)
{
    SL_LIST_EACH(node, &gateway->watches)
    {
        struct watch *watch = SL_ITEM(node, struct watch, node);
        if (strcmp(watch->id, id) == 0 && !watch->forgotten) {
            return watch;
        }
    }
    return NULL;
}

static struct watch *create(struct gateway *gateway, const char *id)
{
    struct watch *watch = calloc(1, sizeof(*watch));
    if (watch == NULL) {
        return NULL;
    }
    watch->gateway = gateway;
    memcpy(watch->id, id, strlen(id) + 1);
    sl_list_init(&watch->watchers);
    sl_arena_init(&watch->arena, FAILURES_BYTES);
    sl_buf_init(&watch->state, STATE_MAX);
    sl_buf_init(&watch->next, STATE_MAX);
    sl_list_push(&gateway->watches, &watch->node);
    return watch;
}

void watch_start(struct gateway *gateway, const struct request *request)
{
    struct watcher *watcher = NULL;
    if (gateway->watchers < WATCHERS_MAX && !gateway->draining) {
        watcher = calloc(1, sizeof(*watcher));
    }
    struct watch *watch = watcher != NULL ? find(gateway, request->id) : NULL;
    bool is_new = watcher != NULL && watch == NULL;
    watch = is_new ? create(gateway, request->id) : watch;
    if (watch == NULL) {
        free(watcher);
        respond_overloaded(request, "as many as this gateway can serve watch runs of ingestion");
        return;
    }
    *watcher = (struct watcher){.watch = watch, .request = *request};
    sl_list_push(&watch->watchers, &watcher->node);
    gateway->watchers++;
    sl_http_on_gone(request->exchange, on_gone, watcher);
    if (is_new) {
        read_run(watch);
        if (sl_list_empty(&watch->watchers)) {
            free_watch(watch);
        }
    } else if (watch->changes > 0) {
        give_state(watcher);
    }
}

/* --- the gateway ends --- */

void watches_drain(struct gateway *gateway)
{
    SL_LIST_EACH(node, &gateway->watches)
    {
        struct watch *watch = SL_ITEM(node, struct watch, node);
        SL_LIST_EACH(at, &watch->watchers)
        {
            struct watcher *watcher = SL_ITEM(at, struct watcher, node);
            if (watcher->begun && !watcher->ended) {
                watcher->ended = true;
                sl_http_stream_end(watcher->request.exchange);
            }
        }
    }
}

void watches_free_all(struct gateway *gateway)
{
    SL_LIST_EACH_SAFE(node, &gateway->watches)
    {
        free_watch(SL_ITEM(node, struct watch, node));
    }
}
