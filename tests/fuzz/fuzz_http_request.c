/*
 * A connection of the HTTP server, driven by the input as a peer, a kernel and a handler would: the
 * first byte seeds where the rest is cut into reads; some reads are followed by an answer, a
 * stream, a peer that takes bytes or that leaves, a write that fails, time passing, a drain.
 *
 * Checked besides memory: each exchange is told gone exactly once; and the same bytes cut otherwise
 * give the same requests and leave the connection in the same state. (A request that is wrong in
 * two ways may be refused for either.)
 */
#include "common/clock.h"
#include "common/http_server.h"
#include "tests/support/fake_tcp.h"

#include <stdint.h>
#include <stdio.h>

static struct sl_loop *loop;
static struct sl_http_server *server;
static struct sl_http_exchange *open_exchange;
static bool streaming, at_once;
static struct sl_buf *seen; /* With at_once: the requests. */
static long requests, gone;
static uint64_t now_us, seed;

static uint64_t next(uint64_t limit)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (seed >> 33) % limit;
}

static size_t max_body(void *ctx, struct sl_span method, struct sl_span path)
{
    (void)ctx;
    (void)method;
    return path.len > 2 ? 64 : 8;
}

static void on_gone(void *ctx, bool complete)
{
    (void)ctx;
    (void)complete;
    gone++;
    open_exchange = NULL;
    streaming = false;
}

static void on_request(void *ctx, struct sl_http_exchange *exchange)
{
    (void)ctx;
    assert(open_exchange == NULL);
    requests++;
    open_exchange = exchange;
    sl_http_on_gone(exchange, on_gone, NULL);
    struct sl_span path = sl_http_path(exchange);
    assert(path.len > 0 && (path.data[0] == '/' || sl_span_is(path, "*")));
    assert(sl_http_body(exchange).len <= 64);
    (void)sl_http_request_header(exchange, "none");
    if (at_once) {
        const struct sl_http_header echo = {SL_SPAN("x-query"), sl_http_query(exchange)};
        sl_buf_printf(seen, SL_SPAN_FMT " " SL_SPAN_FMT "?" SL_SPAN_FMT " " SL_SPAN_FMT "\n",
                      SL_SPAN_ARG(sl_http_method(exchange)), SL_SPAN_ARG(path),
                      SL_SPAN_ARG(echo.value), SL_SPAN_ARG(sl_http_body(exchange)));
        sl_http_respond(exchange, 200, NULL, &echo, 1, sl_http_body(exchange));
    }
}

static void error_body(void *ctx, int status, const char *why, struct sl_buf *body)
{
    (void)ctx;
    sl_buf_printf(body, "%d %s", status, why);
}

static void begin(void)
{
    const struct sl_http_server_config config = {.address = "fake",
                                                 .max_connections = 4,
                                                 .max_header_bytes = 256,
                                                 .header_timeout_ms = 100,
                                                 .body_timeout_ms = 100,
                                                 .idle_timeout_ms = 100,
                                                 .stall_timeout_ms = 100,
                                                 .max_write_queue = 64};
    const struct sl_http_server_callbacks callbacks = {
        .max_body = max_body, .on_request = on_request, .error_body = error_body};
    char why[64];
    requests = gone = 0;
    streaming = false;
    open_exchange = NULL;
    fake_failing_write = 0;
    now_us = 1000000;
    sl_clock_use(&now_us);
    if (sl_loop_create(&loop) != 0 ||
        sl_http_server_create(loop, &config, &callbacks, NULL, &server, why, sizeof(why)) != 0) {
        abort();
    }
}

static void finish(struct sl_tcp *tcp)
{
    sl_http_server_destroy(server);
    assert(requests == gone);
    sl_loop_destroy(loop);
    fake_free(tcp);
}

static void answer(struct sl_tcp *tcp)
{
    tcp->room = next(4) == 0 ? next(100) : tcp->room;
    fake_failing_write = next(16) == 0 ? (long)next(3) : fake_failing_write;
    if (open_exchange == NULL) {
        return;
    }
    if (streaming) {
        int err = 0;
        for (uint64_t n = next(8); n > 0 && err == 0; n--) {
            err = sl_http_stream_write(open_exchange, SL_SPAN("data: hello\n\n"));
        }
        if (next(2) == 0) {
            sl_http_stream_end(open_exchange);
            open_exchange = NULL;
        }
    } else if (next(2) == 0) {
        sl_http_stream_begin(open_exchange, 200, "text/event-stream", NULL, 0);
        streaming = true;
    } else {
        sl_http_respond(open_exchange, 200, NULL, NULL, 0, sl_http_body(open_exchange));
        open_exchange = NULL;
    }
}

static void something_happens(struct sl_tcp *tcp)
{
    switch (next(12)) {
    case 0:
    case 1:
    case 2:
    case 3:
        answer(tcp);
        break;
    case 4:
        fake_take(tcp, next(200));
        break;
    case 5:
        now_us += next(200) * 1000;
        break;
    case 6:
        if (next(20) == 0) {
            fake_hang_up(tcp);
        } else if (next(20) == 0) {
            sl_http_server_drain(server);
        }
        break;
    default:
        break;
    }
    if (next(2) == 0) {
        sl_loop_turn(loop, 0);
    }
}

static void run_wild(const char *data, size_t size)
{
    begin();
    at_once = false;
    struct sl_tcp *tcp = fake_connect();
    for (size_t at = 0; at < size && fake_open(tcp);) {
        size_t len = next(4) == 0 ? next(200) + 1 : next(8) + 1;
        len = len < size - at ? len : size - at;
        fake_send(tcp, (struct sl_span){data + at, len});
        at += len;
        something_happens(tcp);
    }
    finish(tcp);
}

/* Appends the requests that the server finds to `out`. */
static void run_cut(const char *data, size_t size, bool cut, struct sl_buf *out)
{
    begin();
    at_once = true;
    seen = out;
    struct sl_tcp *tcp = fake_connect();
    for (size_t at = 0; at < size && fake_open(tcp);) {
        size_t len = cut ? next(5) + 1 : size;
        len = len < size - at ? len : size - at;
        fake_send(tcp, (struct sl_span){data + at, len});
        at += len;
    }
    sl_buf_append_text(out, fake_open(tcp) ? "open" : "closed");
    finish(tcp);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    const char *data = (const char *)bytes + 1;
    if (size < 2) {
        return 0;
    }
    seed = bytes[0];
    run_wild(data, size - 1);
    struct sl_buf whole, cut;
    sl_buf_init(&whole, SIZE_MAX / 2);
    sl_buf_init(&cut, SIZE_MAX / 2);
    run_cut(data, size - 1, false, &whole);
    run_cut(data, size - 1, true, &cut);
    if (!sl_span_equal(sl_buf_span(&whole), sl_buf_span(&cut))) {
        fprintf(stderr, "whole: " SL_SPAN_FMT "\ncut: " SL_SPAN_FMT "\n",
                SL_SPAN_ARG(sl_buf_span(&whole)), SL_SPAN_ARG(sl_buf_span(&cut)));
        abort();
    }
    sl_buf_fini(&whole);
    sl_buf_fini(&cut);
    return 0;
}
