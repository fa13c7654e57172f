/*
 * HTTP client: libcurl's multi interface on the loop. HTTP/1.1 keep-alive pools a host; a cancelled
 * call closes its connection, which is how an upstream learns of it. One client a process.
 */
#ifndef SLUICE_COMMON_HTTP_CLIENT_H
#define SLUICE_COMMON_HTTP_CLIENT_H

#include "common/buf.h"
#include "common/loop.h"

struct sl_http_client;
struct sl_http_call;

struct sl_http_client_config {
    size_t max_connections;          /* In all; 0: no limit. Calls over it wait inside curl. */
    size_t max_connections_per_host; /* 0: no limit. */
    bool http2;                      /* Offer HTTP/2 to https upstreams; false: HTTP/1.1. */
    const char *ca_file;             /* NULL: the system's. Verification is always on. */
};

int sl_http_client_create(struct sl_loop *loop, const struct sl_http_client_config *config,
                          struct sl_http_client **ret) SL_CHECKED;
/* All calls must have ended or been cancelled; not inside a callback. Takes NULL. */
void sl_http_client_destroy(struct sl_http_client *client);

struct sl_http_header {
    struct sl_span name, value;
};

struct sl_http_response {
    int status;          /* 0 before there is one. */
    long retry_after_ms; /* From Retry-After (seconds or date), else -1. */
    struct sl_span type; /* Content-Type; borrowed. */
    bool connected;      /* Some byte of the request may have reached the upstream. */
};

struct sl_http_callbacks {
    /* A header of the response, before on_head; one of an interim response (1xx) comes as well.
     * Borrowed. May be NULL. */
    void (*on_header)(void *ctx, struct sl_span name, struct sl_span value);
    /* The status and headers of the final response are there. Not 0 (-SL_E*) ends the call with it.
     * May be NULL. */
    int (*on_head)(void *ctx, const struct sl_http_response *response);
    /* Body bytes, borrowed. Not 0 ends the call with it. NULL: the body is collected up to max_body
     * and given to on_end. */
    int (*on_data)(void *ctx, struct sl_span bytes);
    /* Once, last. err: 0 when the response is whole, whatever its status; else -SL_ECONN,
     * -SL_ETIMEDOUT (connect, first byte, idle or total: detail says which), -SL_EPROTO,
     * -SL_ETOOBIG, -SL_ECUT (body shorter than declared), -SL_ENOMEM, -SL_EINVAL (a URL that only
     * curl finds wrong) or what a callback returned. body: what was collected, when err is 0.
     * detail: one line, never NULL, without secrets. The call is gone when it returns. */
    void (*on_end)(void *ctx, int err, const struct sl_http_response *response, struct sl_span body,
                   const char *detail);
};

struct sl_http_request {
    const char *method;                   /* "POST" */
    const char *url;                      /* http:// or https:// */
    const struct sl_http_header *headers; /* Besides Host, Content-Length, User-Agent. */
    size_t header_count;
    struct sl_span body;
    uint32_t connect_timeout_ms;    /* 0: none, here and below. */
    uint32_t first_byte_timeout_ms; /* From the start to the response's head. */
    uint32_t idle_timeout_ms;       /* Between two pieces of the body. */
    uint32_t total_timeout_ms;
    size_t max_body; /* Of a collected body. */
    const struct sl_http_callbacks *callbacks;
    void *ctx;
};

/* Copies the request (URL, headers, body). 0, or -SL_E* and then no callback comes. Callbacks come
 * from the loop, never inside this call. */
int sl_http_start(struct sl_http_client *client, const struct sl_http_request *request,
                  struct sl_http_call **ret) SL_CHECKED;
/* Ends the call now and closes its connection; no callback comes any more. Legal at any moment
 * before on_end, inside on_head and on_data too. */
void sl_http_cancel(struct sl_http_call *call);
/* Stops and resumes reading the body (back-pressure); the idle time-out rests meanwhile. No on_data
 * comes while paused, but on_end may. Legal at any moment before on_end, inside callbacks too. */
void sl_http_pause(struct sl_http_call *call, bool paused);
/* From now on its bytes may come some milliseconds late, together with those of other such calls
 * (relaxed.h says when): many streams of small pieces cost far fewer wake-ups. Inside on_data.
 * Nothing over HTTP/2. */
void sl_http_relax(struct sl_http_call *call);
size_t sl_http_client_in_flight(const struct sl_http_client *client);

#endif
