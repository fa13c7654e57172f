/*
 * Requests and plain responses: the ids that every response carries, OpenAI's shape of errors, and
 * the counts by path and status.
 */
#ifndef SLUICE_GATEWAY_HTTP_H
#define SLUICE_GATEWAY_HTTP_H

#include "common/http_server.h"
#include "common/message.h"
#include "common/metrics.h"

enum { REQUEST_ID_MAX = 128, HTTP_STATUSES = 24 };

/* X(enum, path as it is counted and logged) */
#define ROUTES(X)                                                                                  \
    X(QUERY, "/v1/query")                                                                          \
    X(SEARCH, "/v1/search")                                                                        \
    X(CHAT, "/v1/chat/completions")                                                                \
    X(MODELS, "/v1/models")                                                                        \
    X(MODEL, "/v1/models/{id}")                                                                    \
    X(QUERIES, "/v1/queries/{id}")                                                                 \
    X(EVENTS, "/v1/queries/{id}/events")                                                           \
    X(DOCUMENTS, "/v1/documents")                                                                  \
    X(DOCUMENT, "/v1/documents/{id}")                                                              \
    X(INGESTS, "/v1/ingests")                                                                      \
    X(INGEST, "/v1/ingests/{id}")                                                                  \
    X(OPENAPI, "/openapi.json")                                                                    \
    X(OTHER, "other")
enum route {
#define X(name, path) ROUTE_##name,
    ROUTES(X)
#undef X
        ROUTE_COUNT
};
const char *route_path(enum route route);

/* sluice_http_requests_total by path and status; a series is made when its status first appears. */
struct http_counts {
    struct sl_metrics *registry;
    struct {
        int status;
        struct sl_counter *counter;
    } counts[ROUTE_COUNT][HTTP_STATUSES];
};
void http_count(struct http_counts *counts, enum route route, int status);

struct request {
    struct sl_http_exchange *exchange;
    struct http_counts *counts;
    enum route route;
    char id[65];                         /* sluice-id: the query's, or a new one. */
    char request_id[REQUEST_ID_MAX + 1]; /* The caller's where it is sane, else the id. */
};

/* Gives the request its ids. */
void request_init(struct request *request, struct sl_http_exchange *exchange,
                  struct http_counts *counts, enum route route);

struct failure {
    int status;
    const char *code;    /* "unknown_field" */
    const char *param;   /* NULL: none. */
    const char *message; /* One line. */
    const char *allow;   /* Of a 405. */
    bool ran; /* The query was accepted and has ended: a client may not repeat it by itself. */
};
/* {"error": {...}}: a whole response. 503 says Retry-After. */
void respond_failure(const struct request *request, const struct failure *failure);
/* 503: it may work soon. */
void respond_overloaded(const struct request *request, const char *message);
void respond_json(const struct request *request, int status, struct sl_span body);
/* An answer that was put together from a query's events; err: why that went wrong, or 0. Frees
 * body. */
void respond_answer(const struct request *request, int err, struct sl_buf *body);
/* The headers of an event stream, status 200. */
void respond_stream(const struct request *request);

/* The error object alone, with its outer braces. */
void write_failure(struct sl_buf *out, int status, const char *code, const char *param,
                   struct sl_span message);
/* The status that a query's error has when it is not streamed. */
int status_of(enum sl_query_error code);

/* The content types that the request says: its body's, and whether it accepts an event stream. */
bool request_has_type(const struct sl_http_exchange *exchange, const char *type);
bool request_has_json(const struct sl_http_exchange *exchange);
bool request_wants_events(const struct sl_http_exchange *exchange);

/* For requests that the server itself refuses: callbacks of struct sl_http_server_callbacks, with
 * counts as their context's. */
void http_error_body(struct http_counts *counts, int status, const char *why, struct sl_buf *body);
void http_error_head(int status, struct sl_buf *head);

#endif
