/*
 * What the stores that answer over HTTP share: the address, the call through its upstream, and the
 * check that each hit is one of the scope. A backend gives the request and reads the answer.
 */
#ifndef SLUICE_COMMON_STORE_HTTP_H
#define SLUICE_COMMON_STORE_HTTP_H

#include "common/json.h"
#include "common/store.h"
#include "common/upstream.h"

struct sl_http_store;

struct sl_http_store_kind {
    const struct sl_store_backend *backend;
    const char *path; /* Of a search: with one %s for the name at the end of the store's address. */
    bool keyword;     /* Can search for text. */
    /* The body of a search, whose vector is finite where it has one. */
    void (*write_body)(struct sl_json_writer *w, const struct sl_store_search *search);
    /* The array of hits in an answer; NULL and one line in why when there is none. */
    const struct sl_json *(*find_hits)(const struct sl_json *answer, char *why, size_t why_size);
    /* Names of a hit's members: its fields, its id, its score. */
    const char *fields, *id, *score;
};

/* The url is SCHEME://host:port/NAME; as sl_store_open. */
int sl_http_store_open(const struct sl_http_store_kind *kind, const char *url,
                       const struct sl_store_env *env, struct sl_store **ret, char *why,
                       size_t why_size) SL_CHECKED;
/* For the backend's table. */
void sl_http_store_close(struct sl_store *store);
int sl_http_store_search(struct sl_store *store, const struct sl_store_search *search,
                         sl_store_hits_cb *cb, void *ctx, struct sl_store_call **ret);
void sl_http_store_cancel(struct sl_store_call *call);

/* An array of the search's vector, with as many digits as a float has. */
void sl_http_store_put_vector(struct sl_json_writer *w, const struct sl_store_search *search);

#endif
