/*
 * One call to an upstream, through its attempts.
 *
 * The happy path: the permit that came with the job's admission is held, the request goes out at
 * once, its body is passed on or collected, the permit goes back the moment the response ends,
 * on_end says 0.
 *
 * What can go wrong, and what is then done:
 * - No permit: wait for one, up to the deadline.
 * - Refused, reset, cut short, 408, 429, 5xx before anything was passed on: try again after a
 *   backoff with jitter, while attempts, budget and deadline allow.
 * - Retry-After: a cool-down for all workers. Permits are not granted until it is over, and this
 *   call does not wait for one that its deadline comes before. Then one call at a time probes,
 *   until the head of a response other than 408, 429 and 5xx says that the others may follow.
 * - A time-out after the request was sent: no retry, since the upstream may still be at work on it,
 *   and be paid for it.
 * - Another 4xx: no retry, it would answer the same.
 * - The lease lost: the connection is closed at once, since somebody else may have the permit now.
 *
 * A call ends exactly once, through finish(); cancel is the same without the callback. The permit
 * may be the job's, and the job may be gone when on_end returns: it is given back before, and not
 * looked at after.
 */
#include "common/upstream.h"

#include "common/backoff.h"
#include "common/clock.h"
#include "common/log.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

enum { ERROR_BODY_MAX = 16384, DETAIL_MAX = 320, BACKOFF_BASE_MS = 100, BACKOFF_CAP_MS = 5000 };
enum { RETRY_FLOOR = 10, COOL_DOWN_MAX_MS = 600000 };
enum { CLOCK_SLACK_MS = 20 }; /* Between a timer of ours and what is thought to be Redis's time. */

const char *const sl_upstream_schemes[] = {"http", "https", NULL};

struct sl_upstream {
    struct sl_loop *loop;
    struct sl_http_client *http;
    struct sl_coord *coord;
    struct sl_metrics *metrics;
    const char *name;
    size_t limit;
    const struct sl_upstream_config *config;
    struct sl_retry_budget budget;
    struct sl_histogram *seconds;
    struct sl_counter *retries;
    char *authorization; /* "Bearer ...", or NULL. */
    size_t calls;
};

struct sl_upstream_call {
    struct sl_upstream *upstream;
    struct sl_upstream_request request; /* body and strings are ours. */
    char *url;
    char *body;
    struct sl_permit own_permit;
    struct sl_permit *permit;
    struct sl_http_call *http;
    struct sl_timer timer; /* Backoff, or an end that must not come inside start. */
    struct sl_backoff backoff;
    struct sl_buf error_body; /* Of a streamed call that was answered with an error. */
    uint32_t attempts;
    bool committed;
    uint64_t began_us;
    int status;
    int end_err;
    char detail[DETAIL_MAX];
};

static void begin_attempt(struct sl_upstream_call *call);

int sl_upstream_create(struct sl_loop *loop, struct sl_http_client *http, struct sl_coord *coord,
                       struct sl_metrics *metrics, const char *name,
                       const struct sl_upstream_config *config, struct sl_upstream **ret)
{
    char labels[64];
    struct sl_upstream *upstream = calloc(1, sizeof(*upstream));
    if (upstream == NULL) {
        return -SL_ENOMEM;
    }
    *upstream = (struct sl_upstream){.loop = loop,
                                     .http = http,
                                     .coord = coord,
                                     .metrics = metrics,
                                     .name = name,
                                     .limit = sl_coord_limit(coord, name),
                                     .config = config};
    if (config->api_key[0] != '\0' &&
        asprintf(&upstream->authorization, "Bearer %s", config->api_key) < 0) {
        free(upstream);
        return -SL_ENOMEM;
    }
    sl_retry_budget_init(&upstream->budget, RETRY_FLOOR);
    snprintf(labels, sizeof(labels), "upstream=\"%s\"", name);
    upstream->seconds = sl_metrics_histogram(metrics, "sluice_upstream_seconds",
                                             "Time of one call to an upstream.", labels);
    upstream->retries = sl_metrics_counter(metrics, "sluice_upstream_retries_total",
                                           "Calls that repeat a failed one.", labels);
    *ret = upstream;
    return 0;
}

void sl_upstream_destroy(struct sl_upstream *upstream)
{
    if (upstream != NULL) {
        assert(upstream->calls == 0);
        free(upstream->authorization);
        free(upstream);
    }
}

const struct sl_upstream_config *sl_upstream_config(const struct sl_upstream *upstream)
{
    return upstream->config;
}

/* --- ending --- */

static void destroy(struct sl_upstream_call *call)
{
    struct sl_upstream *upstream = call->upstream;
    sl_timer_stop(upstream->loop, &call->timer);
    sl_buf_fini(&call->error_body);
    upstream->calls--;
    free(call->url);
    free(call->body);
    free(call);
}

static void finish(struct sl_upstream_call *call, int err, struct sl_span body)
{
    const struct sl_upstream_callbacks *callbacks = call->request.callbacks;
    void *ctx = call->request.ctx;
    uint32_t attempts = call->attempts;
    int status = call->status;
    char detail[DETAIL_MAX];
    memcpy(detail, call->detail, sizeof(detail));
    /* The permit first: whoever is told of the end may ask for one. */
    sl_permit_release(call->upstream->coord, call->permit);
    call->permit = NULL;
    callbacks->on_end(ctx, err, status, body, detail, attempts);
    destroy(call);
}

static void on_late_end(struct sl_timer *timer)
{
    struct sl_upstream_call *call = SL_ITEM(timer, struct sl_upstream_call, timer);
    finish(call, call->end_err, SL_SPAN(""));
}

/* From places that may run inside start or a callback of another part. */
static void finish_later(struct sl_upstream_call *call, int err, const char *detail)
{
    call->end_err = err;
    if (detail != call->detail) {
        snprintf(call->detail, sizeof(call->detail), "%s", detail);
    }
    sl_timer_start(call->upstream->loop, &call->timer, 0, on_late_end);
}

/* --- retrying --- */

static void on_backoff(struct sl_timer *timer)
{
    begin_attempt(SL_ITEM(timer, struct sl_upstream_call, timer));
}

static bool may_retry(const struct sl_upstream_call *call, int err, bool connected)
{
    if (call->committed || call->request.once ||
        call->attempts >= (uint32_t)call->upstream->config->attempts) {
        return false;
    }
    if (err == -SL_ETIMEDOUT) {
        return !connected;
    }
    return err == -SL_ECUT || err == -SL_ELOST || sl_error_class(err) == SL_CLASS_RETRY;
}

/* least_ms: what the upstream asked for. The backoff comes on top, so that others in line are the
 * next to probe, and no call is refused until its attempts are used up while they wait. */
static bool try_again(struct sl_upstream_call *call, int err, bool connected, uint32_t least_ms)
{
    struct sl_upstream *upstream = call->upstream;
    if (!may_retry(call, err, connected)) {
        return false;
    }
    uint32_t wait_ms = least_ms + sl_backoff_next_ms(&call->backoff);
    if (sl_coord_now_ms(upstream->coord) + wait_ms >= call->request.deadline_ms ||
        !sl_retry_budget_take(&upstream->budget)) {
        return false;
    }
    sl_counter_add(upstream->retries, 1);
    sl_log(SL_LOG_DEBUG, "upstream call repeated", SL_STR("upstream", upstream->name),
           SL_INT("attempt", call->attempts), SL_STR("why", call->detail),
           SL_INT("wait_ms", wait_ms));
    if (call->request.callbacks->on_retry != NULL) {
        call->request.callbacks->on_retry(call->request.ctx);
    }
    sl_buf_clear(&call->error_body);
    sl_timer_start(upstream->loop, &call->timer, wait_ms, on_backoff);
    return true;
}

/* --- one attempt --- */

static void count_attempt(struct sl_upstream_call *call, int err)
{
    struct sl_upstream *upstream = call->upstream;
    char labels[96];
    if (call->status > 0) {
        snprintf(labels, sizeof(labels), "upstream=\"%s\",status=\"%d\"", upstream->name,
                 call->status);
    } else {
        snprintf(labels, sizeof(labels), "upstream=\"%s\",status=\"%s\"", upstream->name,
                 sl_error_name(err));
    }
    sl_counter_add(sl_metrics_counter(upstream->metrics, "sluice_upstream_requests_total",
                                      "Calls to upstreams by the status of their response.",
                                      labels),
                   1);
    sl_histogram_observe(upstream->seconds, (double)(sl_clock_now_us() - call->began_us) / 1e6);
}

static int status_error(int status)
{
    if (status >= 200 && status < 300) {
        return 0;
    }
    if (status == 429) {
        return -SL_ERATE;
    }
    return status == 408 || status >= 500 ? -SL_EUPSTREAM : -SL_EREJECTED;
}

static int on_head(void *ctx, const struct sl_http_response *response)
{
    struct sl_upstream_call *call = ctx;
    call->status = response->status;
    int err = status_error(call->status);
    if (err == 0 || err == -SL_EREJECTED) { /* Whoever refuses one request takes others. */
        sl_permit_heal(call->upstream->coord, call->permit);
    }
    return 0;
}

static int on_data(void *ctx, struct sl_span bytes)
{
    struct sl_upstream_call *call = ctx;
    if (status_error(call->status) == 0) {
        return call->request.callbacks->on_data(call->request.ctx, bytes);
    }
    sl_buf_append_span(&call->error_body, bytes); /* What is beyond the limit is not missed. */
    return 0;
}

/* One line about an error response: its status and the start of its body. */
static void describe(struct sl_upstream_call *call, struct sl_span body)
{
    char text[160];
    size_t len = body.len < sizeof(text) - 1 ? body.len : sizeof(text) - 1;
    for (size_t i = 0; i < len; i++) {
        text[i] = (unsigned char)body.data[i] < 0x20 ? ' ' : body.data[i];
    }
    text[len] = '\0';
    snprintf(call->detail, sizeof(call->detail), "%s answered %d: %s", call->upstream->name,
             call->status, text);
}

/* Tells all workers of a Retry-After; how long it is. */
static uint32_t cool_down(struct sl_upstream_call *call, long ms)
{
    if ((call->status != 429 && call->status != 503) || ms <= 0) {
        return 0;
    }
    ms = ms < COOL_DOWN_MAX_MS ? ms : COOL_DOWN_MAX_MS;
    sl_permit_cool_down(call->upstream->coord, call->upstream->limit, (uint32_t)ms);
    return (uint32_t)ms;
}

static void on_end(void *ctx, int err, const struct sl_http_response *response, struct sl_span body,
                   const char *detail)
{
    struct sl_upstream_call *call = ctx;
    struct sl_upstream *upstream = call->upstream;
    call->http = NULL;
    call->status = response->status;
    sl_permit_release(upstream->coord, call->permit);
    count_attempt(call, err);
    if (err == 0) {
        err = status_error(call->status);
        body = call->error_body.len > 0 ? sl_buf_span(&call->error_body) : body;
        describe(call, body);
    } else {
        snprintf(call->detail, sizeof(call->detail), "%s: %s", upstream->name, detail);
    }
    if (err == 0) {
        call->detail[0] = '\0';
        finish(call, 0, body);
        return;
    }
    uint32_t least_ms = cool_down(call, response->retry_after_ms);
    int64_t remaining = call->request.deadline_ms - sl_coord_now_ms(upstream->coord);
    if (err == -SL_ETIMEDOUT && remaining <= CLOCK_SLACK_MS) {
        err = -SL_EEXPIRED; /* The deadline had set this time-out. */
    }
    if (!try_again(call, err, response->connected, least_ms)) {
        finish(call, err, body);
    }
}

static const struct sl_http_callbacks streaming = {
    .on_head = on_head, .on_data = on_data, .on_end = on_end};
static const struct sl_http_callbacks collecting = {.on_head = on_head, .on_end = on_end};

/* A time-out of the upstream, or the request's own in its place; never beyond the deadline. */
static uint32_t bounded(const struct sl_upstream_call *call, long long ms, int64_t remaining)
{
    ms = call->request.timeout_ms > 0 ? call->request.timeout_ms : ms;
    return (uint32_t)(ms < remaining ? ms : remaining);
}

static int start_http(struct sl_upstream_call *call, int64_t remaining)
{
    const struct sl_upstream_config *config = call->upstream->config;
    const struct sl_upstream_request *request = &call->request;
    bool stream = request->callbacks->on_data != NULL;
    struct sl_http_header headers[3] = {
        {SL_SPAN("Content-Type"), SL_SPAN("application/json")},
        {SL_SPAN("Accept"), stream ? SL_SPAN("text/event-stream") : SL_SPAN("application/json")},
        {SL_SPAN("Authorization"), sl_span_of(call->upstream->authorization)},
    };
    const struct sl_http_request http = {
        .method = request->method,
        .url = call->url,
        .headers = headers,
        .header_count = call->upstream->authorization != NULL ? 3 : 2,
        .body = {call->body, request->body.len},
        .connect_timeout_ms =
            (uint32_t)(config->connect_timeout_ms < remaining ? config->connect_timeout_ms
                                                              : remaining),
        .first_byte_timeout_ms = bounded(call, config->first_byte_timeout_ms, remaining),
        .idle_timeout_ms = bounded(call, config->idle_timeout_ms, remaining),
        .total_timeout_ms = bounded(call, config->timeout_ms, remaining),
        .max_body = request->max_response,
        .callbacks = stream ? &streaming : &collecting,
        .ctx = call,
    };
    return sl_http_start(call->upstream->http, &http, &call->http);
}

/* The permit is held. */
static void call_now(struct sl_upstream_call *call)
{
    struct sl_upstream *upstream = call->upstream;
    int64_t remaining = call->request.deadline_ms - sl_coord_now_ms(upstream->coord);
    if (remaining <= 0) {
        finish_later(call, -SL_EEXPIRED, "the deadline passed before the call could begin");
        return;
    }
    call->status = 0;
    call->began_us = sl_clock_now_us();
    int rv = start_http(call, remaining);
    if (rv != 0) {
        finish_later(call, rv, sl_error_text(rv));
        return;
    }
    call->attempts++;
    sl_retry_budget_call(&upstream->budget);
}

static void on_granted(struct sl_permit *permit, int err)
{
    struct sl_upstream_call *call = permit->owner;
    if (err == 0) {
        call_now(call);
    } else {
        finish_later(call, -SL_EEXPIRED, "the deadline passed while waiting for a permit");
    }
}

static void on_permit_lost(struct sl_permit *permit)
{
    struct sl_upstream_call *call = permit->owner;
    if (call->http == NULL) {
        return; /* It will ask for another. */
    }
    sl_http_cancel(call->http);
    call->http = NULL;
    count_attempt(call, -SL_ELOST);
    snprintf(call->detail, sizeof(call->detail), "%s: the permit's lease could not be renewed",
             call->upstream->name);
    if (!try_again(call, -SL_ELOST, true, 0)) {
        finish_later(call, -SL_ELOST, call->detail);
    }
}

static void begin_attempt(struct sl_upstream_call *call)
{
    struct sl_upstream *upstream = call->upstream;
    if (call->permit->state == SL_PERMIT_HELD) {
        call_now(call);
    } else {
        sl_permit_request(upstream->coord, call->permit, call->request.deadline_ms);
    }
}

/* --- the interface --- */

static void take_permit(struct sl_upstream_call *call, const struct sl_upstream_request *request)
{
    call->permit = request->permit;
    if (call->permit == NULL) {
        call->permit = &call->own_permit;
        sl_permit_init(call->permit, call->upstream->limit, request->bulk, on_granted,
                       on_permit_lost);
        if (request->lease != NULL) {
            sl_permit_move(request->lease, call->permit);
        }
    }
    call->permit->owner = call;
    call->permit->on_granted = on_granted;
    call->permit->on_lost = on_permit_lost;
}

int sl_upstream_start(struct sl_upstream *upstream, const struct sl_upstream_request *request,
                      struct sl_upstream_call **ret)
{
    struct sl_upstream_call *call = calloc(1, sizeof(*call));
    if (call == NULL) {
        return -SL_ENOMEM;
    }
    call->upstream = upstream;
    call->request = *request;
    sl_buf_init(&call->error_body, ERROR_BODY_MAX);
    call->body = malloc(request->body.len + 1);
    if (call->body == NULL ||
        asprintf(&call->url, "%s%s", upstream->config->url, request->path) < 0) {
        free(call->body);
        free(call);
        return -SL_ENOMEM;
    }
    if (request->body.len > 0) {
        memcpy(call->body, request->body.data, request->body.len);
    }
    sl_backoff_init(&call->backoff, BACKOFF_BASE_MS, BACKOFF_CAP_MS,
                    sl_clock_now_us() ^ (uint64_t)(uintptr_t)call);
    take_permit(call, request);
    upstream->calls++;
    *ret = call;
    begin_attempt(call);
    return 0;
}

void sl_upstream_commit(struct sl_upstream_call *call)
{
    call->committed = true;
    if (call->http != NULL) {
        sl_http_relax(call->http);
    }
}

void sl_upstream_pause(struct sl_upstream_call *call, bool paused)
{
    if (call->http != NULL) {
        sl_http_pause(call->http, paused);
    }
}

void sl_upstream_cancel(struct sl_upstream_call *call)
{
    if (call->http != NULL) {
        sl_http_cancel(call->http);
        call->http = NULL;
    }
    sl_permit_release(call->upstream->coord, call->permit);
    destroy(call);
}
