/*
 * The table of paths, and what each does with its request.
 *
 * A request is looked at in the order in which a client can put it right: the path (404), the
 * method (405), the content type (415), the id or the body (400), and last what has nothing to do
 * with it, whether the gateway can take a query now (503). A query that passes becomes an open
 * query, which owns the exchange from then on.
 */
#include "workers/gateway/routes.h"

#include "workers/gateway/cancel.h"
#include "workers/gateway/chat_request.h"
#include "workers/gateway/document_request.h"
#include "workers/gateway/idempotent.h"
#include "workers/gateway/ingests.h"
#include "workers/gateway/open_query.h"
#include "workers/gateway/parameters.h"
#include "workers/gateway/replies.h"
#include "workers/gateway/resume.h"
#include "workers/gateway/status.h"
#include "workers/gateway/upload.h"
#include "workers/gateway/watch.h"

#include <stdio.h>

enum {
    BODY_MAX = 1 << 20,
    REQUEST_ARENA_MAX = 32 << 20,
    MODELS_MAX = 65536,
    MODEL_NAME_MAX = 256,
    ALLOWED_MAX = 64, /* All methods of one path. */
};

static void on_query(struct gateway *gateway, struct request *request);
static void on_chat(struct gateway *gateway, struct request *request);
static void on_models(struct gateway *gateway, struct request *request);
static void on_delete(struct gateway *gateway, struct request *request);
static void on_status(struct gateway *gateway, struct request *request);
static void on_events(struct gateway *gateway, struct request *request);
static void on_openapi(struct gateway *gateway, struct request *request);
static void on_model(struct gateway *gateway, struct request *request);
static void on_ingest(struct gateway *gateway, struct request *request);

/* What may stand in the place of {id}. */
enum id_kind {
    ID_OURS, /* That of a query or a run of ingestion, which is then the request's. */
    ID_REST, /* A name that the handler reads: all that follows, with what is a "/" in it. */
};

/* One row a path and method. A GET also answers HEAD unless it is a stream. */
static const struct row {
    enum route route; /* Its text is the path. */
    const char *methods;
    bool has_body; /* JSON, and nothing else. */
    void (*handle)(struct gateway *gateway, struct request *request);
    enum id_kind id;
} table[] = {
    {ROUTE_QUERY, "POST", true, on_query, ID_OURS},
    {ROUTE_SEARCH, "POST", true, on_query, ID_OURS},
    {ROUTE_CHAT, "POST", true, on_chat, ID_OURS},
    {ROUTE_MODELS, "GET, HEAD", false, on_models, ID_OURS},
    {ROUTE_QUERIES, "GET, HEAD", false, on_status, ID_OURS},
    {ROUTE_QUERIES, "DELETE", false, on_delete, ID_OURS},
    {ROUTE_EVENTS, "GET", false, on_events, ID_OURS},
    {ROUTE_MODEL, "GET, HEAD", false, on_model, ID_REST},
    {ROUTE_DOCUMENTS, "POST", false, upload_start, ID_OURS},
    {ROUTE_DOCUMENTS, "GET, HEAD", false, documents_list, ID_OURS},
    {ROUTE_DOCUMENT, "GET, HEAD", false, documents_get, ID_REST},
    {ROUTE_DOCUMENT, "DELETE", false, upload_remove, ID_REST},
    {ROUTE_INGESTS, "GET, HEAD", false, ingests_list, ID_OURS},
    {ROUTE_INGEST, "GET, HEAD", false, on_ingest, ID_OURS},
    {ROUTE_OPENAPI, "GET, HEAD", false, on_openapi, ID_OURS},
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

/* Is path the row's? id: what stands for {id}, data NULL where the row has none. */
static bool matches(const struct row *row, struct sl_span path, struct sl_span *id)
{
    const char *pattern = route_path(row->route), *hole = strstr(pattern, "{id}");
    *id = (struct sl_span){0};
    if (hole == NULL) {
        return sl_span_is(path, pattern);
    }
    size_t before = (size_t)(hole - pattern), after = strlen(hole + strlen("{id}"));
    if (path.len <= before + after || memcmp(path.data, pattern, before) != 0 ||
        memcmp(path.data + path.len - after, hole + strlen("{id}"), after) != 0) {
        return false;
    }
    *id = (struct sl_span){path.data + before, path.len - before - after};
    return row->id == ID_REST || memchr(id->data, '/', id->len) == NULL;
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

/* The row of path and method; NULL with allowed empty: there is no such path, else no such method.
 */
static const struct row *find(struct sl_span path, struct sl_span method, struct sl_span *id,
                              enum route *route, char *allowed, size_t size)
{
    size_t len = 0;
    *route = ROUTE_OTHER;
    allowed[0] = '\0';
    for (size_t i = 0; i < TABLE_LEN; i++) {
        struct sl_span found;
        if (!matches(&table[i], path, &found)) {
            continue;
        }
        *id = found;
        *route = table[i].route;
        if (allows(table[i].methods, method)) {
            return &table[i];
        }
        len += (size_t)snprintf(allowed + len, size - len, "%s%s", len > 0 ? ", " : "",
                                table[i].methods);
    }
    return NULL;
}

static void fail_method(const struct request *request, const char *allowed)
{
    char message[ALLOWED_MAX + 32];
    snprintf(message, sizeof(message), "this path takes %s", allowed);
    const struct failure failure = {
        .status = 405, .code = "method_not_allowed", .message = message, .allow = allowed};
    respond_failure(request, &failure);
}

void routes_on_request(void *ctx, struct sl_http_exchange *exchange)
{
    struct gateway *gateway = ctx;
    struct request request;
    struct sl_span id;
    enum route route;
    char allowed[ALLOWED_MAX];
    const struct row *row = find(sl_http_path(exchange), sl_http_method(exchange), &id, &route,
                                 allowed, sizeof(allowed));
    request_init(&request, exchange, &gateway->http_counts, route);
    if (row == NULL && allowed[0] == '\0') {
        fail(&request, 404, "not_found", NULL,
             "there is nothing at this path: GET /openapi.json tells what there is");
    } else if (row == NULL) {
        fail_method(&request, allowed);
    } else if (row->has_body && !request_has_json(exchange)) {
        fail(&request, 415, "unsupported_media_type", "content-type",
             "content-type must be application/json");
    } else if (id.data != NULL && row->id == ID_OURS && !sl_id_valid(id)) {
        fail(&request, 400, "invalid_id", "id",
             "the id of a query or a run is 1 to 64 characters of A-Z a-z 0-9 . _ -");
    } else {
        if (id.data != NULL && row->id == ID_OURS) {
            snprintf(request.id, sizeof(request.id), SL_SPAN_FMT, SL_SPAN_ARG(id));
        }
        row->handle(gateway, &request);
    }
}

size_t routes_max_body(void *ctx, struct sl_span method, struct sl_span path)
{
    (void)ctx;
    bool is_upload = sl_span_is(method, "POST") && sl_span_is(path, route_path(ROUTE_DOCUMENTS));
    return is_upload ? DOCUMENT_BODY_MAX : BODY_MAX;
}

void routes_error_body(void *ctx, int status, const char *why, struct sl_buf *body)
{
    struct gateway *gateway = ctx;
    http_error_body(&gateway->http_counts, status, why, body);
}

void routes_error_head(void *ctx, int status, struct sl_buf *head)
{
    (void)ctx;
    http_error_head(status, head);
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
        respond_overloaded(request, sl_error_text(err));
    }
}

/* False: it was answered that no caller can be taken now. */
static bool has_room(const struct gateway *gateway, const struct request *request)
{
    size_t max = (size_t)gateway->options->max_inflight;
    if (gateway->draining) {
        respond_overloaded(request, "this gateway is about to end");
    } else if (!replies_ready(gateway->replies)) {
        respond_overloaded(request, "this gateway is not ready: it waits for Kafka");
    } else if (gateway->in_flight >= max || gateway->listening >= max) {
        respond_overloaded(request, "as many queries as this gateway takes are in flight");
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

static void start(struct gateway *gateway, struct intake *intake)
{
    const struct request *request = &intake->request;
    struct sl_span key = sl_http_request_header(request->exchange, "idempotency-key");
    if (key.data != NULL && !idempotent_key_valid(key)) {
        fail(request, 400, "invalid_value", "Idempotency-Key",
             "Idempotency-Key must be 1 to 255 visible ASCII characters");
    } else if (resolve_model(gateway, request, &intake->query) && has_room(gateway, request)) {
        intake->query.traceparent = trace_of(request->exchange);
        if (key.data != NULL) {
            idempotent_start(gateway, intake, key);
        } else {
            open_query_start(gateway, intake, NULL);
        }
    }
}

static void on_query(struct gateway *gateway, struct request *request)
{
    struct intake intake = {.request = *request};
    struct sl_fault fault = {{0}, {0}};
    sl_arena_init(&intake.arena, REQUEST_ARENA_MAX);
    int err = sl_query_decode(sl_http_body(request->exchange), true, &intake.arena, &intake.query,
                              &fault);
    if (err == 0 && request->route == ROUTE_SEARCH) {
        intake.query.mode = SL_MODE_SEARCH;
    }
    if (err == 0) {
        bool stream = request_wants_events(request->exchange);
        intake.format = stream ? &format_query_stream : &format_query_json;
        start(gateway, &intake);
    } else {
        fail_by_fault(request, err, &fault);
    }
    sl_arena_fini(&intake.arena);
}

static void on_chat(struct gateway *gateway, struct request *request)
{
    const struct chat_headers headers = {
        .collection = sl_http_request_header(request->exchange, "sluice-collection"),
        .timeout_ms = sl_http_request_header(request->exchange, "sluice-timeout-ms"),
        .on_disconnect = sl_http_request_header(request->exchange, "sluice-on-disconnect"),
    };
    struct intake intake = {.request = *request, .is_chat = true};
    struct chat_request chat;
    struct sl_fault fault;
    sl_arena_init(&intake.arena, REQUEST_ARENA_MAX);
    int err =
        chat_request_read(sl_http_body(request->exchange), &headers,
                          (size_t)gateway->options->history_bytes, &intake.arena, &chat, &fault);
    if (err == 0) {
        intake.query = chat.query;
        intake.format = chat.stream ? &format_chat_stream : &format_chat_json;
        intake.chat =
            (struct chat_head){.model = chat.query.model, .include_usage = chat.include_usage};
        start(gateway, &intake);
    } else {
        fail_by_fault(request, err, &fault);
    }
    sl_arena_fini(&intake.arena);
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

static void on_model(struct gateway *gateway, struct request *request)
{
    char message[512];
    struct sl_fault fault;
    struct sl_arena arena;
    struct sl_buf body;
    struct sl_span name;
    sl_arena_init(&arena, MODELS_MAX);
    sl_buf_init(&body, MODELS_MAX);
    int rv =
        path_part_read(ingests_path_rest(request), "model", MODEL_NAME_MAX, &arena, &name, &fault);
    if (rv != 0) {
        ingests_respond_fault(request, rv, &fault);
    } else if (sl_span_is(name, "sluice") || is_listed(gateway->options->models, name)) {
        chat_write_model(&body, name, gateway->started_s);
        respond_answer(request, sl_buf_error(&body), &body);
    } else {
        snprintf(message, sizeof(message), "The model '" SL_SPAN_FMT "' does not exist",
                 SL_SPAN_ARG(name));
        fail(request, 404, "model_not_found", "model", message);
    }
    sl_buf_fini(&body);
    sl_arena_fini(&arena);
}

static void on_ingest(struct gateway *gateway, struct request *request)
{
    if (request_wants_events(request->exchange) &&
        sl_span_is(sl_http_method(request->exchange), "GET")) {
        watch_start(gateway, request);
    } else {
        ingests_get(gateway, request);
    }
}

static void on_openapi(struct gateway *gateway, struct request *request)
{
    (void)gateway;
    respond_json(request, 200, sl_span_of(gateway_openapi));
}

static void on_delete(struct gateway *gateway, struct request *request)
{
    cancel_start(gateway, request);
}

static void on_status(struct gateway *gateway, struct request *request)
{
    status_start(gateway->status, request);
}

static void on_events(struct gateway *gateway, struct request *request)
{
    if (has_room(gateway, request)) {
        resume_start(gateway, request);
    }
}
