/*
 * HTTP calls: what a caller sees of a request, on top of the transfers of http_curl.c.
 *
 * The story: sl_http_start checks and copies the request, opens a transfer and starts the
 * first-byte and total time-outs. While curl resolves and connects the connect time-out runs; it
 * starts when a name is looked up or a socket opened, so that the time that a call waits for a free
 * connection does not count. The head stops the first-byte time-out and is given to on_head; from
 * then on the idle time-out runs from one piece of the body to the next, and rests while the call
 * is paused. A body goes to on_data piece by piece, or into a buffer up to max_body.
 * on_transfer_end is the only end: it tells on_end, unless the call was cancelled, and frees the
 * call.
 *
 * What can go wrong: a time-out or a cancel closes the connection under the transfer; inside a
 * callback this happens when curl has returned, and meanwhile nothing is called any more. A paused
 * call whose response is already read to its end still ends: there is nothing left to hold back.
 */
#include "common/http_client.h"

#include "common/clock.h"
#include "common/http_curl.h"
#include "common/http_text.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

struct sl_http_client {
    struct sl_loop *loop;
    struct sl_curl *curl;
    size_t in_flight;
};

struct sl_http_call {
    struct sl_curl_transfer transfer;
    struct sl_http_client *client;
    struct sl_http_callbacks callbacks; /* Zeroed when cancelled: nothing is called any more. */
    void *ctx;
    const char *why; /* The time-out that ended it, or NULL. */
    bool no_body;    /* The answer to HEAD. */
    bool paused;
    long retry_after_ms;
    struct sl_buf body; /* Of the response, when it is collected. */
    uint64_t started_ms;
    uint32_t connect_timeout_ms;
    uint32_t idle_timeout_ms;
    struct sl_timer connect_timer, first_byte_timer, idle_timer, total_timer;
    char peer[128]; /* host:port, perhaps cut. */
    char request_body[];
};

static struct sl_http_call *call_of(struct sl_curl_transfer *transfer)
{
    return SL_ITEM(transfer, struct sl_http_call, transfer);
}

/* --- the four time-outs --- */

static void expire(struct sl_http_call *call, const char *why)
{
    call->why = why;
    sl_curl_abort(&call->transfer, -SL_ETIMEDOUT);
}

static void on_connect_timeout(struct sl_timer *timer)
{
    expire(SL_ITEM(timer, struct sl_http_call, connect_timer), "connect time-out");
}

static void on_first_byte_timeout(struct sl_timer *timer)
{
    expire(SL_ITEM(timer, struct sl_http_call, first_byte_timer), "first-byte time-out");
}

static void on_idle_timeout(struct sl_timer *timer)
{
    expire(SL_ITEM(timer, struct sl_http_call, idle_timer), "idle time-out");
}

static void on_total_timeout(struct sl_timer *timer)
{
    expire(SL_ITEM(timer, struct sl_http_call, total_timer), "total time-out");
}

static void start_timer(struct sl_http_call *call, struct sl_timer *timer, uint32_t ms,
                        void (*fire)(struct sl_timer *timer))
{
    if (ms > 0) {
        sl_timer_start(call->client->loop, timer, ms, fire);
    }
}

static void start_idle_timer(struct sl_http_call *call)
{
    if (call->transfer.head_done && !call->paused) {
        start_timer(call, &call->idle_timer, call->idle_timeout_ms, on_idle_timeout);
    }
}

static void stop_timers(struct sl_http_call *call)
{
    struct sl_loop *loop = call->client->loop;
    sl_timer_stop(loop, &call->connect_timer);
    sl_timer_stop(loop, &call->first_byte_timer);
    sl_timer_stop(loop, &call->idle_timer);
    sl_timer_stop(loop, &call->total_timer);
}

/* --- what comes from the transfer --- */

static struct sl_http_response response_of(const struct sl_http_call *call)
{
    struct sl_curl_info info = sl_curl_info(&call->transfer);
    return (struct sl_http_response){
        .status = info.status,
        .retry_after_ms = call->transfer.head_done ? call->retry_after_ms : -1,
        .type = sl_span_of(info.type),
        .connected = info.sent,
    };
}

static void on_connecting(struct sl_curl_transfer *transfer)
{
    struct sl_http_call *call = call_of(transfer);
    if (!sl_timer_active(&call->connect_timer)) {
        start_timer(call, &call->connect_timer, call->connect_timeout_ms, on_connect_timeout);
    }
}

static void on_connected(struct sl_curl_transfer *transfer)
{
    struct sl_http_call *call = call_of(transfer);
    sl_timer_stop(call->client->loop, &call->connect_timer);
}

static int on_header(struct sl_curl_transfer *transfer, struct sl_span line)
{
    struct sl_http_call *call = call_of(transfer);
    if (line.len > 5 && memcmp(line.data, "HTTP/", 5) == 0) {
        call->retry_after_ms = -1; /* What an interim head said does not count. */
        return 0;
    }
    const char *colon = line.len > 0 ? memchr(line.data, ':', line.len) : NULL;
    if (colon == NULL) {
        return 0;
    }
    struct sl_span name = {line.data, (size_t)(colon - line.data)};
    struct sl_span value = sl_http_trim((struct sl_span){colon + 1, line.len - name.len - 1});
    if (sl_span_equal_nocase(name, SL_SPAN("retry-after"))) {
        call->retry_after_ms = sl_http_retry_after_ms(value, sl_clock_unix_ms());
    }
    if (call->callbacks.on_header != NULL) {
        call->callbacks.on_header(call->ctx, name, value);
    }
    return 0;
}

static int on_head(struct sl_curl_transfer *transfer)
{
    struct sl_http_call *call = call_of(transfer);
    struct sl_http_response response = response_of(call);
    bool collected = call->callbacks.on_data == NULL && !call->no_body;
    long long length = sl_curl_info(transfer).length;
    sl_timer_stop(call->client->loop, &call->first_byte_timer);
    start_idle_timer(call);
    int err = call->callbacks.on_head != NULL ? call->callbacks.on_head(call->ctx, &response) : 0;
    if (err == 0 && collected && length > 0 && (unsigned long long)length > call->body.max) {
        err = -SL_ETOOBIG; /* Known before a byte of it is read. */
    }
    return err;
}

static int on_body(struct sl_curl_transfer *transfer, struct sl_span bytes)
{
    struct sl_http_call *call = call_of(transfer);
    if (call->paused) {
        return -SL_EAGAIN;
    }
    start_idle_timer(call);
    if (call->callbacks.on_data == NULL) {
        sl_buf_append_span(&call->body, bytes);
        return sl_buf_error(&call->body);
    }
    int err = call->callbacks.on_data(call->ctx, bytes);
    return err == -SL_EAGAIN ? -SL_EINTERNAL : err; /* Below it means pause; callers call pause. */
}

/* "connect time-out (127.0.0.1:8000, after 1001 ms)", one line. */
static void describe(const struct sl_http_call *call, int err, char *text, size_t size)
{
    const char *what = sl_error_text(err);
    if (call->why != NULL) {
        what = call->why;
    } else if (call->transfer.err == 0 && call->transfer.error[0] != '\0') {
        what = call->transfer.error;
    }
    snprintf(text, size, "%s (%s, after %llu ms)", what, call->peer,
             (unsigned long long)(sl_clock_now_ms() - call->started_ms));
    for (char *c = text; *c != '\0'; c++) {
        *c = (unsigned char)*c < ' ' ? ' ' : *c;
    }
}

static void on_transfer_end(struct sl_curl_transfer *transfer, int err)
{
    struct sl_http_call *call = call_of(transfer);
    stop_timers(call);
    if (call->callbacks.on_end != NULL) {
        struct sl_http_response response = response_of(call);
        struct sl_span body = err == 0 ? sl_buf_span(&call->body) : (struct sl_span){NULL, 0};
        char detail[sizeof(transfer->error) + sizeof(call->peer) + 64] = "";
        if (err != 0) {
            describe(call, err, detail, sizeof(detail));
        }
        call->client->in_flight--;
        call->callbacks.on_end(call->ctx, err, &response, body, detail);
    }
    sl_curl_close(transfer);
    sl_buf_fini(&call->body);
    free(call);
}

static const struct sl_curl_events transfer_events = {
    .on_connecting = on_connecting,
    .on_connected = on_connected,
    .on_header = on_header,
    .on_head = on_head,
    .on_body = on_body,
    .on_end = on_transfer_end,
};

/* --- what callers ask for --- */

static struct sl_http_call *create_call(struct sl_http_client *client,
                                        const struct sl_http_request *request)
{
    struct sl_http_call *call = calloc(1, sizeof(*call) + request->body.len);
    if (call == NULL) {
        return NULL;
    }
    call->client = client;
    call->callbacks = *request->callbacks;
    call->ctx = request->ctx;
    call->no_body = strcmp(request->method, "HEAD") == 0;
    call->retry_after_ms = -1;
    call->connect_timeout_ms = request->connect_timeout_ms;
    call->idle_timeout_ms = request->idle_timeout_ms;
    sl_buf_init(&call->body, request->max_body);
    if (request->body.len > 0) {
        memcpy(call->request_body, request->body.data, request->body.len);
    }
    return call;
}

int sl_http_start(struct sl_http_client *client, const struct sl_http_request *request,
                  struct sl_http_call **ret)
{
    assert(request->callbacks->on_end != NULL);
    struct sl_http_call *call = create_call(client, request);
    if (call == NULL) {
        return -SL_ENOMEM;
    }
    struct sl_http_request copied = *request;
    copied.body.data = call->request_body;
    int rv = sl_http_is_token(sl_span_of(request->method))
                 ? sl_http_url_peer(request->url, call->peer, sizeof(call->peer))
                 : -SL_EINVAL;
    if (rv == 0) {
        rv = sl_curl_open(client->curl, &call->transfer, &transfer_events, &copied);
    }
    if (rv != 0) {
        free(call);
        return rv;
    }
    client->in_flight++;
    call->started_ms = sl_clock_now_ms();
    start_timer(call, &call->first_byte_timer, request->first_byte_timeout_ms,
                on_first_byte_timeout);
    start_timer(call, &call->total_timer, request->total_timeout_ms, on_total_timeout);
    sl_curl_start(&call->transfer);
    *ret = call;
    return 0;
}

void sl_http_cancel(struct sl_http_call *call)
{
    assert(call->callbacks.on_end != NULL); /* Neither cancelled twice nor inside its on_end. */
    call->callbacks = (struct sl_http_callbacks){0};
    call->client->in_flight--;
    stop_timers(call);
    sl_curl_abort(&call->transfer, -SL_ECANCELLED);
}

void sl_http_pause(struct sl_http_call *call, bool paused)
{
    call->paused = paused;
    if (paused) {
        sl_timer_stop(call->client->loop, &call->idle_timer);
    } else {
        if (!sl_timer_active(&call->idle_timer)) {
            start_idle_timer(call);
        }
        sl_curl_resume(&call->transfer);
    }
}

void sl_http_relax(struct sl_http_call *call)
{
    sl_curl_relax(&call->transfer);
}

size_t sl_http_client_in_flight(const struct sl_http_client *client)
{
    return client->in_flight;
}

int sl_http_client_create(struct sl_loop *loop, const struct sl_http_client_config *config,
                          struct sl_http_client **ret)
{
    struct sl_http_client *client = calloc(1, sizeof(*client));
    if (client == NULL) {
        return -SL_ENOMEM;
    }
    client->loop = loop;
    int rv = sl_curl_create(loop, config, &client->curl);
    if (rv != 0) {
        free(client);
        return rv;
    }
    *ret = client;
    return 0;
}

void sl_http_client_destroy(struct sl_http_client *client)
{
    if (client != NULL) {
        assert(client->in_flight == 0);
        sl_curl_destroy(client->curl);
        free(client);
    }
}
