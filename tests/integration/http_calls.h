/*
 * What the tests of the HTTP client share: a scripted server, a client on a loop, and calls that
 * note what their callbacks brought. Each case starts its own with up() and ends it with down(),
 * and runs the loop until what it waits for has come.
 */
#ifndef TESTS_INTEGRATION_HTTP_CALLS_H
#define TESTS_INTEGRATION_HTTP_CALLS_H

#include "common/clock.h"
#include "common/http_client.h"
#include "tests/integration/http_scripts.h"
#include "tests/support/test.h"

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#define RUN_UNTIL(cond)                                                                            \
    do {                                                                                           \
        uint64_t until_ = sl_clock_now_ms() + BOUND_MS;                                            \
        while (!(cond)) {                                                                          \
            CHECK(sl_clock_now_ms() < until_);                                                     \
            sl_loop_turn(loop, 10);                                                                \
        }                                                                                          \
    } while (0)

static struct sl_loop *loop;
static struct sl_http_client *client;
static struct http_script *script;

/* What a call brought, and what its callbacks are to do. */
struct result {
    struct sl_http_call *call;
    int ended, heads, pieces;
    int err, status;
    long retry_after_ms;
    bool connected;
    char type[64], note[64], detail[512]; /* note: the header X-Note. */
    size_t body_len;
    char body[64]; /* The first bytes. */
    int head_rv, data_rv;
    void (*in_head)(struct result *result);
    void (*in_data)(struct result *result);
    void (*in_end)(struct result *result);
};

static inline void keep(struct result *r, struct sl_span bytes)
{
    size_t room = r->body_len < sizeof(r->body) - 1 ? sizeof(r->body) - 1 - r->body_len : 0;
    size_t take = bytes.len < room ? bytes.len : room;
    if (take > 0) {
        memcpy(r->body + r->body_len, bytes.data, take);
    }
    r->body_len += bytes.len;
}

static inline void on_header(void *ctx, struct sl_span name, struct sl_span value)
{
    struct result *r = ctx;
    if (sl_span_equal_nocase(name, SL_SPAN("x-note"))) {
        snprintf(r->note, sizeof(r->note), SL_SPAN_FMT, SL_SPAN_ARG(value));
    }
}

static inline int on_head(void *ctx, const struct sl_http_response *response)
{
    struct result *r = ctx;
    CHECK(r->ended == 0 && response->connected);
    r->heads++;
    r->status = response->status;
    if (r->in_head != NULL) {
        r->in_head(r);
    }
    return r->head_rv;
}

static inline int on_data(void *ctx, struct sl_span bytes)
{
    struct result *r = ctx;
    CHECK(r->ended == 0 && r->heads == 1);
    r->pieces++;
    keep(r, bytes);
    if (r->in_data != NULL) {
        r->in_data(r);
    }
    return r->data_rv;
}

static inline void on_end(void *ctx, int err, const struct sl_http_response *response,
                          struct sl_span body, const char *detail)
{
    struct result *r = ctx;
    CHECK(r->ended == 0 && r->call != NULL); /* Never inside sl_http_start. */
    r->ended = 1;
    r->err = err;
    r->status = response->status;
    r->retry_after_ms = response->retry_after_ms;
    r->connected = response->connected;
    snprintf(r->type, sizeof(r->type), SL_SPAN_FMT, SL_SPAN_ARG(response->type));
    snprintf(r->detail, sizeof(r->detail), "%s", detail);
    keep(r, body);
    if (r->in_end != NULL) {
        r->in_end(r);
    }
}

static const struct sl_http_callbacks collecting = {.on_head = on_head, .on_end = on_end};
static const struct sl_http_callbacks streaming = {on_header, on_head, on_data, on_end};

static char url[128];

static inline struct sl_http_request request_for(const char *method, struct result *r)
{
    snprintf(url, sizeof(url), "http://127.0.0.1:%d/v1/x", http_script_port(script));
    return (struct sl_http_request){
        .method = method, .url = url, .max_body = 1 << 20, .callbacks = &collecting, .ctx = r};
}

static inline void start(const struct sl_http_request *request)
{
    struct result *r = request->ctx;
    CHECK_INT(sl_http_start(client, request, &r->call), 0);
}

static inline void run(const struct sl_http_request *request)
{
    const struct result *r = request->ctx;
    start(request);
    RUN_UNTIL(r->ended);
}

static inline void stream(struct result *r)
{
    struct sl_http_request request = request_for("POST", r);
    request.callbacks = &streaming;
    request.body = SL_SPAN("{}");
    start(&request);
}

static inline void cancel(struct result *r)
{
    sl_http_cancel(r->call);
    r->call = NULL;
}

static bool tick;

static inline void on_tick(struct sl_timer *timer)
{
    (void)timer;
    tick = true;
}

static inline void run_for(uint64_t ms) /* For what must not happen. */
{
    struct sl_timer timer = {0};
    tick = false;
    sl_timer_start(loop, &timer, ms, on_tick);
    RUN_UNTIL(tick);
}

static inline void up_with(const struct sl_http_client_config *config, http_script_fn *serve)
{
    script = http_script_start(serve);
    CHECK_INT(sl_loop_create(&loop), 0);
    CHECK_INT(sl_http_client_create(loop, config, &client), 0);
}

static inline void up(http_script_fn *serve)
{
    static const struct sl_http_client_config config = {0};
    up_with(&config, serve);
}

static inline void down(void)
{
    CHECK_INT(sl_http_client_in_flight(client), 0);
    sl_http_client_destroy(client);
    sl_loop_destroy(loop);
    http_script_stop(script);
}

/* A bound port; with a backlog of -1 it refuses, otherwise connections beyond it hang. */
static inline int bound_port(int backlog, int *ret_fd)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t len = sizeof(address);
    *ret_fd = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(bind(*ret_fd, (struct sockaddr *)&address, len) == 0);
    CHECK(backlog < 0 || listen(*ret_fd, backlog) == 0);
    CHECK(getsockname(*ret_fd, (struct sockaddr *)&address, &len) == 0);
    return ntohs(address.sin_port);
}

static inline void pause_call(struct result *r)
{
    sl_http_pause(r->call, true);
}

#endif
