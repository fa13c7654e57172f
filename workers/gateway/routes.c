/*
 * The table of paths, and what each does with its request.
 *
 * A request is looked at in the order in which a client can put it right: the path (404), the
 * method (405), the content type (415), the body (400), and last what has nothing to do with it,
 * whether the gateway can take a query now (503). A query that passes becomes an open query, which
 * owns the exchange from then on.
 */
#include "workers/gateway/routes.h"

#include "common/clock.h"
#include "workers/gateway/cancel.h"
#include "workers/gateway/chat_request.h"
#include "workers/gateway/open_query.h"
#include "workers/gateway/replies.h"

#include <stdio.h>

enum { BODY_MAX = 1 << 20, REQUEST_ARENA_MAX = 32 << 20, MODELS_MAX = 65536 };

static void on_query(struct gateway *gateway, struct request *request);
static void on_chat(struct gateway *gateway, struct request *request);
static void on_models(struct gateway *gateway, struct request *request);
static void on_delete(struct gateway *gateway, struct request *request);
static void on_openapi(struct gateway *gateway, struct request *request);

static const struct {
    const char *path;
    bool is_prefix; /* An id follows. */
    enum route route;
    const char *methods; /* For Allow; GET brings HEAD. */
    bool has_body;
    void (*handle)(struct gateway *gateway, struct request *request);
} table[] = {
    {"/v1/query", false, ROUTE_QUERY, "POST", true, on_query},
    {"/v1/search", false, ROUTE_SEARCH, "POST", true, on_query},
    {"/v1/chat/completions", false, ROUTE_CHAT, "POST", true, on_chat},
    {"/v1/models", false, ROUTE_MODELS, "GET, HEAD", false, on_models},
    {"/v1/queries/", true, ROUTE_QUERIES, "DELETE", false, on_delete},
    {"/openapi.json", false, ROUTE_OPENAPI, "GET, HEAD", false, on_openapi},
};
enum { TABLE_LEN = sizeof(table) / sizeof(table[0]) };

static void fail(const struct request *request, int status, const char *code, const char *param,
                 const char *message)
{
    const struct failure failure = {
        .status = status, .code = code, .param = param, .message = message};
    respond_failure(request, &failure);
}

/* --- finding the handler --- */

static struct sl_span id_of(struct sl_span path)
{
    size_t prefix = strlen("/v1/queries/");
    return (struct sl_span){path.data + prefix, path.len - prefix};
}

static size_t find(struct sl_span path)
{
    size_t i = 0;
    for (; i < TABLE_LEN; i++) {
        if (table[i].is_prefix ? sl_span_begins(path, table[i].path) && sl_id_valid(id_of(path))
                               : sl_span_is(path, table[i].path)) {
            break;
        }
    }
    return i;
}

/* "GET" among "GET, HEAD". */
static bool allows(const char *methods, struct sl_span method)
{
    for (const char *at = methods; *at != '\0'; at += strspn(at, ", ")) {
        size_t len = strcspn(at, ",");
        if (sl_span_equal((struct sl_span){at, len}, method)) {
            return true;
        }
        at += len;
    }
    return false;
}

void routes_on_request(void *ctx, struct sl_http_exchange *exchange)
{
    struct gateway *gateway = ctx;
    struct request request;
    size_t i = find(sl_http_path(exchange));
    request_init(&request, exchange, &gateway->http_counts,
                 i < TABLE_LEN ? table[i].route : ROUTE_OTHER);
    if (i == TABLE_LEN) {
        fail(&request, 404, "not_found", NULL,
             "there is nothing at this path: GET /openapi.json tells what there is");
    } else if (!allows(table[i].methods, sl_http_method(exchange))) {
        char message[64];
        snprintf(message, sizeof(message), "this path takes %s", table[i].methods);
        const struct failure failure = {.status = 405,
                                        .code = "method_not_allowed",
                                        .message = message,
                                        .allow = table[i].methods};
        respond_failure(&request, &failure);
    } else if (table[i].has_body && !request_has_json(exchange)) {
        fail(&request, 415, "unsupported_media_type", "content-type",
             "content-type must be application/json");
    } else {
        table[i].handle(gateway, &request);
    }
}

size_t routes_max_body(void *ctx, struct sl_span method, struct sl_span path)
{
    (void)ctx;
    (void)method;
    (void)path;
    return BODY_MAX;
}

void routes_error_body(void *ctx, int status, const char *why, struct sl_buf *body)
{
    struct gateway *gateway = ctx;
    http_error_body(&gateway->http_counts, status, why, body);
}

void routes_error_head(void *ctx, int status, struct sl_buf *head)
{
    (void)ctx;
    (void)status;
    http_error_head(head);
}

/* --- queries --- */

static void fail_by_fault(const struct request *request, int err, const struct sl_fault *fault)
{
    char message[sizeof(fault->message) + 16];
    switch (err) {
    case -SL_EBADMSG:
        snprintf(message, sizeof(message), "the body %s", fault->message);
        fail(request, 400, "invalid_json", NULL, message);
        break;
    case -SL_EINVAL:
        fail(request, 400, "invalid_value", fault->param, fault->message);
        break;
    case -SL_ETOOBIG:
        fail(request, 413, "request_too_large", NULL, fault->message);
        break;
    default:
        fail(request, 503, "overloaded", NULL, sl_error_text(err));
    }
}

/* False: it was answered that no query can be taken now. */
static bool has_room(const struct gateway *gateway, const struct request *request)
{
    if (gateway->draining) {
        fail(request, 503, "overloaded", NULL, "this gateway is about to end");
    } else if (!replies_ready(gateway->replies)) {
        fail(request, 503, "overloaded", NULL, "this gateway is not ready: it waits for Kafka");
    } else if (gateway->open.len >= (size_t)gateway->options->max_inflight) {
        fail(request, 503, "overloaded", NULL,
             "as many queries as this gateway takes are in flight");
    } else {
        return true;
    }
    return false;
}

static bool is_listed(const char *models, struct sl_span wanted)
{
    struct sl_span name;
    while (chat_next_model(&models, &name)) {
        if (sl_span_equal(name, wanted)) {
            return true;
        }
    }
    return false;
}

/* Makes the alias the model that it means: empty, the first that the generate workers know. False:
 * it was answered that there is no such model. A gateway that was told of no models lets /v1/query
 * name any. */
static bool resolve_model(const struct gateway *gateway, const struct request *request,
                          struct sl_query *query)
{
    const char *models = gateway->options->models;
    char message[256];
    if (sl_span_is(query->model, "sluice")) {
        query->model = SL_SPAN("");
    }
    if (query->model.len == 0 || is_listed(models, query->model) ||
        (models[0] == '\0' && request->route != ROUTE_CHAT)) {
        return true;
    }
    snprintf(message, sizeof(message),
             "the model " SL_SPAN_FMT " does not exist: GET /v1/models lists those that do",
             SL_SPAN_ARG(query->model));
    fail(request, 404, "model_not_found", "model", message);
    return false;
}

/* W3C Trace Context: 00-<32 hex>-<16 hex>-<2 hex>. */
static struct sl_span trace_of(const struct sl_http_exchange *exchange)
{
    struct sl_span trace = sl_http_request_header(exchange, "traceparent");
    static const char shape[] = "hh-hhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhh-hhhhhhhhhhhhhhhh-hh";
    if (trace.len != sizeof(shape) - 1) {
        return SL_SPAN("");
    }
    for (size_t i = 0; i < trace.len; i++) {
        bool is_hex = strchr("0123456789abcdef", trace.data[i]) != NULL;
        if (shape[i] == 'h' ? !is_hex : trace.data[i] != '-') {
            return SL_SPAN("");
        }
    }
    return trace;
}

static void start(struct gateway *gateway, struct request *request, const struct format *format,
                  struct sl_query *query, const struct chat_head *chat)
{
    if (resolve_model(gateway, request, query) && has_room(gateway, request)) {
        query->traceparent = trace_of(request->exchange);
        open_query_start(gateway, request, format, query, chat);
    }
}

static void on_query(struct gateway *gateway, struct request *request)
{
    struct sl_arena arena;
    struct sl_query query = {0};
    struct sl_fault fault = {{0}, {0}};
    sl_arena_init(&arena, REQUEST_ARENA_MAX);
    int err = sl_query_decode(sl_http_body(request->exchange), true, &arena, &query, &fault);
    if (err == 0 && request->route == ROUTE_SEARCH) {
        query.mode = SL_MODE_SEARCH;
    }
    if (err == 0) {
        bool stream = request_wants_events(request->exchange);
        start(gateway, request, stream ? &format_query_stream : &format_query_json, &query, NULL);
    } else {
        fail_by_fault(request, err, &fault);
    }
    sl_arena_fini(&arena);
}

static void on_chat(struct gateway *gateway, struct request *request)
{
    const struct chat_headers headers = {
        .collection = sl_http_request_header(request->exchange, "sluice-collection"),
        .timeout_ms = sl_http_request_header(request->exchange, "sluice-timeout-ms"),
        .on_disconnect = sl_http_request_header(request->exchange, "sluice-on-disconnect"),
    };
    struct sl_arena arena;
    struct chat_request chat;
    struct sl_fault fault;
    sl_arena_init(&arena, REQUEST_ARENA_MAX);
    int err = chat_request_read(sl_http_body(request->exchange), &headers,
                                (size_t)gateway->options->history_bytes, &arena, &chat, &fault);
    if (err == 0) {
        const struct chat_head head = {.created_s = sl_clock_unix_ms() / 1000,
                                       .model = chat.query.model,
                                       .include_usage = chat.include_usage};
        start(gateway, request, chat.stream ? &format_chat_stream : &format_chat_json, &chat.query,
              &head);
    } else {
        fail_by_fault(request, err, &fault);
    }
    sl_arena_fini(&arena);
}

/* --- the rest --- */

static void on_models(struct gateway *gateway, struct request *request)
{
    struct sl_buf body;
    sl_buf_init(&body, MODELS_MAX);
    chat_write_models(&body, gateway->options->models, gateway->started_s);
    if (sl_buf_error(&body) == 0) {
        respond_json(request, 200, sl_buf_span(&body));
    } else {
        fail(request, 500, "internal", NULL, "the list of models is too long");
    }
    sl_buf_fini(&body);
}

static void on_openapi(struct gateway *gateway, struct request *request)
{
    (void)gateway;
    respond_json(request, 200, sl_span_of(gateway_openapi));
}

static void on_delete(struct gateway *gateway, struct request *request)
{
    cancel_start(gateway, request, id_of(sl_http_path(request->exchange)));
}
