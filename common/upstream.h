/*
 * Calls to the models and stores that answer over HTTP: the permit, the deadline, the cool-down
 * that all workers keep, retries within their budget, and the time-outs of one upstream in one
 * place.
 */
#ifndef SLUICE_COMMON_UPSTREAM_H
#define SLUICE_COMMON_UPSTREAM_H

#include "common/http_client.h"
#include "common/options.h"
#include "common/permit.h"

/* Filled from the options of SL_UPSTREAM_OPTIONS. */
struct sl_upstream_config {
    const char *url;     /* Base, without a slash at the end: "http://127.0.0.1:8000/v1" */
    const char *model;   /* "" where there is none. */
    const char *api_key; /* "": none. Sent as `Authorization: Bearer`. */
    long long limit;
    long long connect_timeout_ms, first_byte_timeout_ms, idle_timeout_ms, timeout_ms;
    long long attempts; /* At most, the first one too. */
};

struct sl_upstream;

/* name: "CHAT", static; it is also the coord's limit. */
int sl_upstream_create(struct sl_loop *loop, struct sl_http_client *http, struct sl_coord *coord,
                       struct sl_metrics *metrics, const char *name,
                       const struct sl_upstream_config *config,
                       struct sl_upstream **ret) SL_CHECKED;
void sl_upstream_destroy(struct sl_upstream *upstream); /* Its calls have ended. Takes NULL. */
const struct sl_upstream_config *sl_upstream_config(const struct sl_upstream *upstream);

struct sl_upstream_call;

struct sl_upstream_callbacks {
    /* Body bytes of a 2xx response as they come; NULL: collected for on_end. Not 0 ends the call.
     */
    int (*on_data)(void *ctx, struct sl_span bytes);
    /* A new attempt begins: forget what on_data brought. May be NULL. */
    void (*on_retry)(void *ctx);
    /* Once, last. err 0: a whole 2xx response. Else -SL_E* of the last attempt: -SL_EREJECTED (4xx;
     * status and body are set), -SL_EUPSTREAM, -SL_ERATE, -SL_ECONN, -SL_ETIMEDOUT, -SL_ECUT,
     * -SL_EEXPIRED (the deadline came first), what on_data returned. detail: one line. attempts:
     * calls that were started. */
    void (*on_end)(void *ctx, int err, int status, struct sl_span body, const char *detail,
                   uint32_t attempts);
};

struct sl_upstream_request {
    const char *method;  /* "POST" */
    const char *path;    /* Behind the base: "/embeddings". */
    struct sl_span body; /* JSON; copied. */
    size_t max_response; /* Bytes collected. */
    uint32_t timeout_ms; /* In place of the upstream's first-byte, idle and total time-outs; 0:
                          * those. */
    bool bulk;
    bool once;                /* One attempt: who makes the call tries again itself. */
    int64_t deadline_ms;      /* Redis's clock: no call starts after it, none goes on after it. */
    struct sl_permit *permit; /* One that came with the admission, held or not; NULL: the call has
                               * its own. It is asked for when it is not held, and given back after
                               * each attempt, at once, on every path. */
    struct sl_permit *lease; /* With permit NULL: one that is held and becomes the call's own, whose
                              * holder need not live as long as the call; NULL: there is none. */
    const struct sl_upstream_callbacks *callbacks;
    void *ctx;
};

/* Callbacks come later, never inside. -SL_ENOMEM: none comes. */
int sl_upstream_start(struct sl_upstream *upstream, const struct sl_upstream_request *request,
                      struct sl_upstream_call **ret) SL_CHECKED;
/* From now on nothing is retried, since something of the answer has been passed on, and what comes
 * may come together with that of other calls (sl_http_relax). Inside on_data. */
void sl_upstream_commit(struct sl_upstream_call *call);
void sl_upstream_pause(struct sl_upstream_call *call, bool paused); /* Back-pressure. */
/* Ends it at once, closes the connection, gives back the permit; no callback comes. */
void sl_upstream_cancel(struct sl_upstream_call *call);

/* The options of one upstream: SLUICE_<NAME>_URL, _LIMIT, _API_KEY ... into a struct
 * sl_upstream_config; expands to entries of a struct sl_option table. NAME and defaults are
 * literals. */
#define SL_UPSTREAM_OPTIONS(NAME, LIMIT, FIRST_BYTE, IDLE, TOTAL)                                  \
    {.name = "SLUICE_" NAME "_URL",                                                                \
     .type = SL_OPT_URL,                                                                           \
     .fallback = NULL,                                                                             \
     .offset = offsetof(struct sl_upstream_config, url),                                           \
     .choices = sl_upstream_schemes,                                                               \
     .help = "Base address of the API, such as http://127.0.0.1:8000/v1."},                        \
        {.name = "SLUICE_" NAME "_MODEL",                                                          \
         .type = SL_OPT_STRING,                                                                    \
         .fallback = "",                                                                           \
         .offset = offsetof(struct sl_upstream_config, model),                                     \
         .help = "Model name sent with each call."},                                               \
        {.name = "SLUICE_" NAME "_API_KEY",                                                        \
         .type = SL_OPT_STRING,                                                                    \
         .fallback = "",                                                                           \
         .secret = true,                                                                           \
         .offset = offsetof(struct sl_upstream_config, api_key),                                   \
         .help = "Sent as a bearer token."},                                                       \
        {.name = "SLUICE_" NAME "_LIMIT",                                                          \
         .type = SL_OPT_INT,                                                                       \
         .fallback = LIMIT,                                                                        \
         .min = 1,                                                                                 \
         .max = 100000,                                                                            \
         .offset = offsetof(struct sl_upstream_config, limit),                                     \
         .help = "Calls in flight at most, in the whole cluster."},                                \
        {.name = "SLUICE_" NAME "_CONNECT_TIMEOUT",                                                \
         .type = SL_OPT_DURATION,                                                                  \
         .fallback = "2s",                                                                         \
         .min = 1,                                                                                 \
         .max = 600000,                                                                            \
         .offset = offsetof(struct sl_upstream_config, connect_timeout_ms),                        \
         .help = "For a connection to come about."},                                               \
        {.name = "SLUICE_" NAME "_FIRST_BYTE_TIMEOUT",                                             \
         .type = SL_OPT_DURATION,                                                                  \
         .fallback = FIRST_BYTE,                                                                   \
         .min = 1,                                                                                 \
         .max = 600000,                                                                            \
         .offset = offsetof(struct sl_upstream_config, first_byte_timeout_ms),                     \
         .help = "From the start of a call to the head of its response."},                         \
        {.name = "SLUICE_" NAME "_IDLE_TIMEOUT",                                                   \
         .type = SL_OPT_DURATION,                                                                  \
         .fallback = IDLE,                                                                         \
         .min = 1,                                                                                 \
         .max = 600000,                                                                            \
         .offset = offsetof(struct sl_upstream_config, idle_timeout_ms),                           \
         .help = "Between two pieces of a response."},                                             \
        {.name = "SLUICE_" NAME "_TIMEOUT",                                                        \
         .type = SL_OPT_DURATION,                                                                  \
         .fallback = TOTAL,                                                                        \
         .min = 1,                                                                                 \
         .max = 600000,                                                                            \
         .offset = offsetof(struct sl_upstream_config, timeout_ms),                                \
         .help = "For one attempt in all."},                                                       \
    {                                                                                              \
        .name = "SLUICE_" NAME "_ATTEMPTS", .type = SL_OPT_INT, .fallback = "3", .min = 1,         \
        .max = 10, .offset = offsetof(struct sl_upstream_config, attempts),                        \
        .help = "Calls at most for one piece of work, the first one too."                          \
    }

extern const char *const sl_upstream_schemes[];

#endif
