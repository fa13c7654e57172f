/*
 * Plain HTTP, the part of the gateway that knows nothing of queries.
 *
 * Every response names two ids: sluice-id, which is the query's where there is one, and
 * x-request-id, which is the caller's own if it is short and printable. Errors have OpenAI's shape,
 * so that its client libraries raise them with message, param and code.
 *
 * Those libraries also repeat requests that failed with 409, 429 or 5xx. For a query that was never
 * accepted that is right. One that was accepted and then failed has been paid for, and a repetition
 * would be paid again: its error says x-should-retry: false, which the libraries obey.
 */
#include "workers/gateway/http.h"

#include "common/clock.h"
#include "common/codec.h"
#include "common/json.h"

#include <stdio.h>

enum { ERROR_MAX = 16384 };

const char *route_path(enum route route)
{
    static const char *const paths[] = {
#define X(name, path) path,
        ROUTES(X)
#undef X
    };
    return paths[route];
}

void http_count(struct http_counts *counts, enum route route, int status)
{
    char labels[96];
    size_t i = 0;
    while (i < HTTP_STATUSES - 1 && counts->counts[route][i].counter != NULL &&
           counts->counts[route][i].status != status) {
        i++;
    }
    if (counts->counts[route][i].counter == NULL) {
        snprintf(labels, sizeof(labels), "path=\"%s\",status=\"%d\"", route_path(route), status);
        counts->counts[route][i].status = status;
        counts->counts[route][i].counter =
            sl_metrics_counter(counts->registry, "sluice_http_requests_total",
                               "Responses of the gateway, by path and status.", labels);
    }
    sl_counter_add(counts->counts[route][i].counter, 1);
}

/* --- ids --- */

static bool is_sane(struct sl_span id)
{
    if (id.len == 0 || id.len > REQUEST_ID_MAX) {
        return false;
    }
    for (size_t i = 0; i < id.len; i++) {
        if (id.data[i] <= ' ' || id.data[i] > '~') {
            return false;
        }
    }
    return true;
}

void request_init(struct request *request, struct sl_http_exchange *exchange,
                  struct http_counts *counts, enum route route)
{
    struct sl_span given = sl_http_request_header(exchange, "x-request-id");
    char id[37];
    sl_id_new(sl_clock_unix_ms(), id);
    *request = (struct request){.exchange = exchange, .counts = counts, .route = route};
    snprintf(request->id, sizeof(request->id), "%s", id);
    snprintf(request->request_id, sizeof(request->request_id), SL_SPAN_FMT,
             SL_SPAN_ARG(is_sane(given) ? given : sl_span_of(id)));
}

/* --- responses --- */

void write_failure(struct sl_buf *out, int status, const char *code, const char *param,
                   struct sl_span message)
{
    struct sl_json_writer w = {.out = out};
    sl_json_begin_object(&w);
    sl_json_key(&w, "error");
    sl_json_begin_object(&w);
    sl_json_key(&w, "message");
    sl_json_put_string(&w, message);
    sl_json_key(&w, "type");
    sl_json_put_string(&w,
                       status < 500 ? SL_SPAN("invalid_request_error") : SL_SPAN("server_error"));
    sl_json_key(&w, "param");
    if (param != NULL && param[0] != '\0') {
        sl_json_put_string(&w, sl_span_of(param));
    } else {
        sl_json_put_null(&w);
    }
    sl_json_key(&w, "code");
    sl_json_put_string(&w, sl_span_of(code));
    sl_json_end_object(&w);
    sl_json_end_object(&w);
}

int status_of(enum sl_query_error code)
{
    static const int statuses[] = {
        [SL_QERR_NONE] = 200,
        [SL_QERR_BAD_REQUEST] = 400,
        [SL_QERR_TIMEOUT] = 504,
        [SL_QERR_CANCELLED] = 409,
        [SL_QERR_WORKER_LOST] = 502,
        [SL_QERR_UPSTREAM_ERROR] = 502,
        [SL_QERR_RETRIEVAL_FAILED] = 502,
        [SL_QERR_OVERLOADED] = 503,
        [SL_QERR_INTERNAL] = 500,
    };
    return statuses[code];
}

enum { IDS = 2, HEADERS_MAX = 6 };

static size_t put_ids(const struct request *request, struct sl_http_header headers[HEADERS_MAX])
{
    headers[0] = (struct sl_http_header){SL_SPAN("sluice-id"), sl_span_of(request->id)};
    headers[1] = (struct sl_http_header){SL_SPAN("x-request-id"), sl_span_of(request->request_id)};
    return IDS;
}

void respond_overloaded(const struct request *request, const char *message)
{
    const struct failure failure = {.status = 503, .code = "overloaded", .message = message};
    respond_failure(request, &failure);
}

void respond_json(const struct request *request, int status, struct sl_span body)
{
    struct sl_http_header headers[HEADERS_MAX];
    size_t count = put_ids(request, headers);
    http_count(request->counts, request->route, status);
    sl_http_respond(request->exchange, status, "application/json", headers, count, body);
}

void respond_failure(const struct request *request, const struct failure *failure)
{
    struct sl_http_header headers[HEADERS_MAX];
    size_t count = put_ids(request, headers);
    struct sl_buf body;
    if (failure->allow != NULL) {
        headers[count++] = (struct sl_http_header){SL_SPAN("allow"), sl_span_of(failure->allow)};
    }
    if (failure->ran) {
        headers[count++] = (struct sl_http_header){SL_SPAN("x-should-retry"), SL_SPAN("false")};
    } else if (failure->status == 503) {
        headers[count++] = (struct sl_http_header){SL_SPAN("retry-after"), SL_SPAN("1")};
    }
    sl_buf_init(&body, ERROR_MAX);
    write_failure(&body, failure->status, failure->code, failure->param,
                  sl_span_of(failure->message));
    if (sl_buf_error(&body) != 0) { /* No memory: the status must do. */
        sl_buf_clear(&body);
    }
    http_count(request->counts, request->route, failure->status);
    sl_http_respond(request->exchange, failure->status, "application/json", headers, count,
                    sl_buf_span(&body));
    sl_buf_fini(&body);
}

void respond_answer(const struct request *request, int err, struct sl_buf *body)
{
    static const struct failure failure = {.status = 500,
                                           .code = "internal",
                                           .message = "the answer is too large to be given whole",
                                           .ran = true};
    if (err == 0 && sl_buf_error(body) == 0) {
        respond_json(request, 200, sl_buf_span(body));
    } else {
        respond_failure(request, &failure);
    }
    sl_buf_fini(body);
}

void respond_stream(const struct request *request)
{
    struct sl_http_header headers[HEADERS_MAX];
    size_t count = put_ids(request, headers);
    headers[count++] = (struct sl_http_header){SL_SPAN("cache-control"), SL_SPAN("no-cache")};
    headers[count++] = (struct sl_http_header){SL_SPAN("x-accel-buffering"), SL_SPAN("no")};
    http_count(request->counts, request->route, 200);
    sl_http_stream_begin(request->exchange, 200, "text/event-stream", headers, count);
}

/* --- what the request says --- */

/* The part of text up to the separator, without spaces around it; text moves behind it. */
static struct sl_span next_part(struct sl_span *text, char separator)
{
    const char *end = text->len > 0 ? memchr(text->data, separator, text->len) : NULL;
    struct sl_span part = {text->data, end != NULL ? (size_t)(end - text->data) : text->len};
    size_t used = part.len + (end != NULL ? 1 : 0);
    *text = (struct sl_span){text->data + used, text->len - used};
    while (part.len > 0 && (*part.data == ' ' || *part.data == '\t')) {
        part.data++;
        part.len--;
    }
    while (part.len > 0 && (part.data[part.len - 1] == ' ' || part.data[part.len - 1] == '\t')) {
        part.len--;
    }
    return part;
}

bool request_has_type(const struct sl_http_exchange *exchange, const char *type)
{
    struct sl_span given = sl_http_request_header(exchange, "content-type");
    return sl_span_equal_nocase(next_part(&given, ';'), sl_span_of(type));
}

bool request_has_json(const struct sl_http_exchange *exchange)
{
    return request_has_type(exchange, "application/json");
}

/* "q=0", "q=0.0": not acceptable. */
static bool is_refused(struct sl_span parameters)
{
    while (parameters.len > 0) {
        struct sl_span parameter = next_part(&parameters, ';');
        if (parameter.len >= 3 && (parameter.data[0] | 0x20) == 'q' && parameter.data[1] == '=') {
            for (size_t i = 2; i < parameter.len; i++) {
                if (parameter.data[i] != '0' && parameter.data[i] != '.') {
                    return false;
                }
            }
            return true;
        }
    }
    return false;
}

bool request_wants_events(const struct sl_http_exchange *exchange)
{
    struct sl_span accept = sl_http_request_header(exchange, "accept");
    while (accept.len > 0) {
        struct sl_span range = next_part(&accept, ',');
        struct sl_span type = next_part(&range, ';');
        if (sl_span_equal_nocase(type, SL_SPAN("text/event-stream")) && !is_refused(range)) {
            return true;
        }
    }
    return false;
}

/* --- the server's own refusals --- */

static const char *code_of(int status)
{
    switch (status) {
    case 408:
        return "request_timeout";
    case 413:
        return "request_too_large";
    case 414:
        return "uri_too_long";
    case 431:
        return "headers_too_large";
    case 503:
        return "overloaded";
    default:
        return "bad_http";
    }
}

void http_error_body(struct http_counts *counts, int status, const char *why, struct sl_buf *body)
{
    http_count(counts, ROUTE_OTHER, status);
    write_failure(body, status, code_of(status), NULL, sl_span_of(why));
}

void http_error_head(int status, struct sl_buf *head)
{
    char id[37];
    sl_id_new(sl_clock_unix_ms(), id);
    sl_buf_printf(head, "content-type: application/json\r\nsluice-id: %s\r\nx-request-id: %s\r\n",
                  id, id);
    if (status == 503) {
        sl_buf_append_text(head, "retry-after: 1\r\n");
    }
}
