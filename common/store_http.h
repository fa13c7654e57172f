/*
 * What the stores that answer over HTTP share: the address, the calls through its upstream, the
 * check that each hit is one of the scope, and the order of requests that makes an index and writes
 * to it. A backend gives the requests and reads the answers.
 */
#ifndef SLUICE_COMMON_STORE_HTTP_H
#define SLUICE_COMMON_STORE_HTTP_H

#include "common/json.h"
#include "common/store.h"
#include "common/upstream.h"
#include "common/uuid.h"

/* Of the index or collection, as the server last described it. */
struct sl_http_shape {
    bool known; /* The server was asked, and nothing says that it has changed since. */
    bool exists;
    uint32_t dim;     /* Of its vectors; 0: it holds none yet. */
    uint32_t missing; /* What it lacks for writing: bits of the backend's. */
    char unfit[160];  /* Why it cannot be written to; "": it can. */
};

/* A request of the backend's. */
struct sl_http_step {
    const char *method;
    const char *path; /* With one %s for the name at the end of the store's address. */
    struct sl_buf body;
};

/* Of read_upsert: all is written, and something of it as the first in (a shard of) an index. */
enum { SL_HTTP_WRITTEN_FIRST = 1 };

enum sl_http_deletion { SL_HTTP_DELETE_BELOW, SL_HTTP_DELETE_VERSION };

struct sl_http_store_kind {
    const struct sl_store_backend *backend;
    const char *noun; /* "index" */
    bool keyword;     /* Can search for text; else texts without vectors cannot be stored either. */

    /* Searching: a POST to path, one %s for the name. The body has a vector that is finite, where
     * it has one. */
    const char *path;
    void (*write_body)(struct sl_json_writer *w, const struct sl_store_search *search);
    /* The array of hits in an answer; NULL and one line in why when there is none. */
    const struct sl_json *(*find_hits)(const struct sl_json *answer, char *why, size_t why_size);
    /* Names of a hit's members: its fields, its id, its score. */
    const char *fields, *id, *score;
    /* Whether a 404 with this body says that there is no such index. */
    bool (*is_missing)(const struct sl_json *answer);

    /* Making: a GET of look_path describes what is there; 0, or -SL_EPROTO and why. *ret is zeroed
     * and said to exist before. */
    const char *look_path;
    int (*read_shape)(const struct sl_json *answer, struct sl_http_shape *ret, char *why,
                      size_t why_size);
    /* The next request towards an index that takes vectors of dim (0: texts only); false: nothing
     * is missing. The body is initialised. */
    bool (*make)(const struct sl_http_shape *shape, const struct sl_store_env *env, uint32_t dim,
                 struct sl_http_step *step);

    /* Writing: a body for all of a batch, which runs on a thread, and what the server says about
     * it: 0, SL_HTTP_WRITTEN_FIRST, -SL_EREJECTED, -SL_ERATE, -SL_EUPSTREAM or -SL_EPROTO, and
     * why. */
    const char *upsert_method, *upsert_path;
    void (*write_upsert)(struct sl_buf *out, const struct sl_batch *batch);
    int (*read_upsert)(const struct sl_json *answer, size_t len, char *why, size_t why_size);

    /* Deleting: a POST to delete_path, before it one to refresh_path (NULL: none is needed), so
     * that it sees all that was written. -SL_EAGAIN: both once more. */
    const char *refresh_path, *delete_path;
    void (*write_delete)(struct sl_json_writer *w, const struct sl_batch *document, int64_t version,
                         enum sl_http_deletion deletion);
    int (*read_delete)(const struct sl_json *answer, char *why, size_t why_size);
};

/* The url is SCHEME://host:port/NAME; as sl_store_open. With env->write or env->dim it asks the
 * server, for at most some seconds; a server that is away does not fail it. */
int sl_http_store_open(const struct sl_http_store_kind *kind, const char *url,
                       const struct sl_store_env *env, struct sl_store **ret, char *why,
                       size_t why_size) SL_CHECKED;
/* For the backend's table. */
void sl_http_store_close(struct sl_store *store);
int sl_http_store_search(struct sl_store *store, const struct sl_store_search *search,
                         sl_store_hits_cb *cb, void *ctx, struct sl_store_call **ret);
int sl_http_store_upsert(struct sl_store *store, const struct sl_batch *batch, int64_t deadline_ms,
                         sl_store_done_cb *cb, void *ctx, struct sl_store_call **ret);
int sl_http_store_delete_below(struct sl_store *store, const struct sl_batch *document,
                               int64_t version, int64_t deadline_ms, sl_store_done_cb *cb,
                               void *ctx, struct sl_store_call **ret);
int sl_http_store_delete_version(struct sl_store *store, const struct sl_batch *document,
                                 int64_t version, int64_t deadline_ms, sl_store_done_cb *cb,
                                 void *ctx, struct sl_store_call **ret);
void sl_http_store_cancel(struct sl_store_call *call);

/* What bodies are made of. A vector is an array with as many digits as a float has. */
void sl_http_store_put_vector(struct sl_json_writer *w, const float *vector, size_t dim);
/* tenant ... version of chunk i, as members of an object that has been begun. */
void sl_http_store_put_fields(struct sl_json_writer *w, const struct sl_batch *batch, size_t i);
/* The id of chunk i, the same whenever it is written. 0, -SL_ENOMEM or -SL_ETOOBIG. */
int sl_http_store_chunk_id(const struct sl_batch *batch, size_t i,
                           char ret[SL_UUID_TEXT]) SL_CHECKED;

#endif
