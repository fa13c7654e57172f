/* Between the files of store_http. */
#ifndef SLUICE_COMMON_STORE_HTTP_INTERNAL_H
#define SLUICE_COMMON_STORE_HTTP_INTERNAL_H

#include "common/store_http.h"

enum { HTTP_STORE_ANSWER_MAX = 32 << 20, HTTP_STORE_DETAIL = 256, HTTP_STORE_PATH = 400 };

struct sl_http_store {
    struct sl_store store;
    const struct sl_http_store_kind *kind;
    struct sl_store_env env;
    struct sl_upstream_config config;
    struct sl_upstream *upstream;
    char *base, *name; /* "http://host:port" and what follows it. */
    struct sl_http_shape shape;
    bool told_missing;    /* That the index is not there. */
    size_t calls, writes; /* That have not ended; writes among them. */
};

/* Each call begins with it. */
struct http_store_call {
    struct sl_store_call base;
    struct sl_upstream_call *upstream; /* The request that is out, or NULL. */
    void (*cancel)(struct http_store_call *call);
};

static inline struct sl_http_store *http_store_of(const struct http_store_call *call)
{
    return (struct sl_http_store *)call->base.store;
}

/* Sends a request of the call's. permit: as in upstream.h; NULL: one of its own, bulk or not. */
struct http_store_send {
    const char *method, *path; /* With one %s. */
    struct sl_span body;
    struct sl_permit *permit;
    bool bulk;
    int64_t deadline_ms;
    const struct sl_upstream_callbacks *callbacks;
};
int http_store_send(struct http_store_call *call, const struct http_store_send *send) SL_CHECKED;

/* path with the store's name. */
void http_store_path(const struct sl_http_store *store, const char *path,
                     char ret[HTTP_STORE_PATH]);
/* As sl_json_parse, but what is not JSON is -SL_EPROTO. */
int http_store_parse(struct sl_span body, struct sl_json_doc **ret, char *why,
                     size_t why_size) SL_CHECKED;
/* Whether the upstream's answer says that there is no such index. */
bool http_store_is_missing(const struct sl_http_store *store, int err, int status,
                           struct sl_span body);

/* --- store_http_hits.c --- */

/* Those hits of an answer that fit the scope, in the arena; 0, -SL_ENOMEM, or -SL_EPROTO and why.
 */
int http_hits_read(const struct sl_http_store_kind *kind, const struct sl_store_search *search,
                   struct sl_span body, struct sl_hit **ret, size_t *len, char *why,
                   size_t why_size) SL_CHECKED;

/* --- store_http_shape.c --- */

enum { HTTP_SHAPE_STEPS = 16 };

/* What it is to be good for: with UPSERT what is missing is made. */
enum http_shape_use { HTTP_SHAPE_SEARCH, HTTP_SHAPE_DELETE, HTTP_SHAPE_UPSERT };

/* Which request is next so that the shape is known and fits the use, with vectors of dim (0: none
 * or not known). 1: this step, whose body the caller frees; 0: none; -SL_EINVAL and why: it does
 * not fit; -SL_ENOMEM. */
int http_shape_next(struct sl_http_store *store, enum http_shape_use use, uint32_t dim,
                    struct sl_http_step *ret, char *why, size_t why_size) SL_CHECKED;
/* Takes the answer to that step, err and status as sl_upstream's on_end. 0: ask for the next one;
 * else what went wrong, with why set. */
int http_shape_take(struct sl_http_store *store, const struct sl_http_step *step, int err,
                    int status, struct sl_span body, const char *detail, char *why,
                    size_t why_size) SL_CHECKED;
/* At start-up: asks and makes with requests that this thread waits for. What the server cannot be
 * asked now is asked again when it is needed. As sl_store_open. */
int http_shape_open(struct sl_http_store *store, char *why, size_t why_size) SL_CHECKED;

#endif
