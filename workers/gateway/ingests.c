/*
 * What Redis knows of documents and of runs of ingestion. Each request is one question to Redis
 * (common/ingest_account.h); its lookup holds what is needed for the answer.
 *
 * The exchange may go before Redis answers; the lookup is freed when the answer has come, which it
 * does in any case.
 */
#include "workers/gateway/ingests.h"

#include "common/json.h"
#include "workers/gateway/document_request.h"
#include "workers/gateway/parameters.h"

#include <stdlib.h>

enum { BODY_MAX = 16 << 20, RUNS_MAX = 100, LIST_MAX = 1000, LIST_DEFAULT = 100, SMALL = 8192 };

static const char redis_away[] = "Redis could not be asked about documents";

struct lookup {
    struct gateway *gateway;
    struct request request; /* exchange NULL: the caller has gone. */
    struct sl_arena arena;
    struct sl_span doc_id; /* Of one document. */
};

struct sl_ingest_env ingests_env(const struct gateway *gateway)
{
    return (struct sl_ingest_env){.redis = sl_coord_redis(gateway->coord),
                                  .prefix = gateway->process->topic_prefix,
                                  .ttl_ms = (uint64_t)gateway->process->result_ttl_ms,
                                  .tenant = SL_SPAN("default")};
}

struct sl_span ingests_path_rest(const struct request *request)
{
    const char *pattern = route_path(request->route);
    struct sl_span path = sl_http_path(request->exchange);
    size_t before = strcspn(pattern, "{");
    return (struct sl_span){path.data + before, path.len - before};
}

void ingests_respond_fault(const struct request *request, int err, const struct sl_fault *fault)
{
    char message[sizeof(fault->message) + 16];
    struct failure failure = {
        .status = 400, .code = "invalid_value", .param = fault->param, .message = fault->message};
    switch (err) {
    case -SL_EBADMSG:
        snprintf(message, sizeof(message), "the body %s", fault->message);
        failure.code = "invalid_json";
        failure.message = message;
        break;
    case -SL_EINVAL:
        break;
    case -SL_ETOOBIG:
        failure.status = 413;
        failure.code = "request_too_large";
        break;
    default:
        respond_overloaded(request, sl_error_text(err));
        return;
    }
    respond_failure(request, &failure);
}

void ingests_respond_missing(const struct request *request, int err)
{
    static const struct failure missing = {
        .status = 404,
        .code = "not_found",
        .param = "id",
        .message = "there is no such run of ingestion: it never began, or nothing has moved in it "
                   "for SLUICE_RESULT_TTL"};
    if (err == -SL_ENOENT) {
        respond_failure(request, &missing);
    } else {
        respond_overloaded(request, redis_away);
    }
}

/* --- lookups --- */

static void on_gone(void *ctx, bool complete)
{
    struct lookup *lookup = ctx;
    (void)complete;
    lookup->request.exchange = NULL;
    lookup->gateway->callers--;
    gateway_caller_gone(lookup->gateway);
}

static struct lookup *begin(struct gateway *gateway, const struct request *request)
{
    struct lookup *lookup = calloc(1, sizeof(*lookup));
    if (lookup == NULL) {
        respond_overloaded(request, redis_away);
        return NULL;
    }
    lookup->gateway = gateway;
    lookup->request = *request;
    sl_arena_init(&lookup->arena, 1 << 20);
    return lookup;
}

static void free_lookup(struct lookup *lookup)
{
    sl_arena_fini(&lookup->arena);
    free(lookup);
}

/* rv: of the question to Redis. */
static void asked(struct lookup *lookup, int rv)
{
    if (rv != 0) {
        respond_overloaded(&lookup->request, redis_away);
        free_lookup(lookup);
        return;
    }
    lookup->gateway->callers++;
    sl_http_on_gone(lookup->request.exchange, on_gone, lookup);
}

/* The answer has come: the exchange is no longer watched. False: there is none any more. */
static bool is_there(struct lookup *lookup)
{
    if (lookup->request.exchange == NULL) {
        return false;
    }
    sl_http_on_gone(lookup->request.exchange, NULL, NULL);
    lookup->gateway->callers--;
    return true;
}

/* body NULL: it was answered. Frees both. */
static void finish(struct lookup *lookup, bool was_there, struct sl_buf *body)
{
    struct gateway *gateway = lookup->gateway;
    if (was_there && body != NULL) {
        respond_answer(&lookup->request, 0, body);
    } else if (body != NULL) {
        sl_buf_fini(body);
    }
    free_lookup(lookup);
    if (was_there) {
        gateway_caller_gone(gateway);
    }
}

static void fail_lookup(struct lookup *lookup, const struct failure *failure)
{
    if (failure != NULL) {
        respond_failure(&lookup->request, failure);
    } else {
        respond_overloaded(&lookup->request, redis_away);
    }
    finish(lookup, true, NULL);
}

static void begin_list(struct sl_json_writer *w, struct sl_buf *body)
{
    sl_buf_init(body, BODY_MAX);
    *w = (struct sl_json_writer){.out = body};
    sl_json_begin_object(w);
    sl_json_key(w, "object");
    sl_json_put_string(w, SL_SPAN("list"));
    sl_json_key(w, "data");
    sl_json_begin_array(w);
}

/* Answered that the query string is wrong: false. */
static bool read_parameters(struct lookup *lookup, struct parameter *table, size_t count)
{
    struct sl_fault fault;
    int rv = parameters_read(sl_http_query(lookup->request.exchange), table, count, &lookup->arena,
                             &fault);
    if (rv != 0) {
        ingests_respond_fault(&lookup->request, rv, &fault);
        free_lookup(lookup);
    }
    return rv == 0;
}

static bool read_limit(struct lookup *lookup, const struct parameter *limit, long long max,
                       long long fallback, long long *ret)
{
    struct sl_fault fault;
    int rv = parameter_number(limit, 1, max, fallback, ret, &fault);
    if (rv != 0) {
        ingests_respond_fault(&lookup->request, rv, &fault);
        free_lookup(lookup);
    }
    return rv == 0;
}

/* --- runs --- */

static void on_runs(void *ctx, int err, const struct sl_ingest_run *runs, size_t len)
{
    struct lookup *lookup = ctx;
    struct sl_json_writer w;
    struct sl_buf body, one;
    bool there = is_there(lookup);
    if (there && err != 0) {
        fail_lookup(lookup, NULL);
        return;
    }
    begin_list(&w, &body);
    sl_buf_init(&one, BODY_MAX);
    for (size_t i = 0; i < len && err == 0; i++) {
        sl_buf_clear(&one);
        sl_ingest_run_json(&runs[i], &one);
        sl_json_put_raw(&w, sl_buf_span(&one));
    }
    body.err = sl_buf_error(&one) != 0 ? sl_buf_error(&one) : body.err;
    sl_buf_fini(&one);
    sl_json_end_array(&w);
    sl_json_end_object(&w);
    finish(lookup, there, &body);
}

void ingests_list(struct gateway *gateway, struct request *request)
{
    struct parameter limit = {.name = "limit", .max = 8};
    struct lookup *lookup = begin(gateway, request);
    const struct sl_ingest_env env = ingests_env(gateway);
    long long max;
    if (lookup != NULL && read_parameters(lookup, &limit, 1) &&
        read_limit(lookup, &limit, RUNS_MAX, 20, &max)) {
        asked(lookup, sl_ingest_runs(&env, (size_t)max, on_runs, lookup));
    }
}

static void on_run(void *ctx, int err, const struct sl_ingest_run *run)
{
    struct lookup *lookup = ctx;
    struct sl_buf body;
    bool there = is_there(lookup);
    if (there && err != 0) {
        ingests_respond_missing(&lookup->request, err);
        finish(lookup, true, NULL);
        return;
    }
    sl_buf_init(&body, BODY_MAX);
    if (err == 0) {
        sl_ingest_run_json(run, &body);
    }
    finish(lookup, there, &body);
}

void ingests_get(struct gateway *gateway, struct request *request)
{
    struct lookup *lookup = begin(gateway, request);
    const struct sl_ingest_env env = ingests_env(gateway);
    if (lookup != NULL) {
        asked(lookup, sl_ingest_read(&env, sl_span_of(request->id), 0, on_run, lookup));
    }
}

/* --- documents --- */

static void put_document(struct sl_json_writer *w, const struct sl_ingest_document *document)
{
    sl_json_begin_object(w);
    sl_json_key(w, "object");
    sl_json_put_string(w, SL_SPAN("document"));
    sl_json_key(w, "doc_id");
    sl_json_put_string(w, document->doc_id);
    sl_json_key(w, "version");
    sl_json_put_int(w, document->version);
    sl_json_key(w, "chunks");
    sl_json_put_int(w, (int64_t)document->chunks);
    sl_json_key(w, "bytes");
    sl_json_put_int(w, (int64_t)document->bytes);
    sl_json_key(w, "stored_at");
    sl_json_put_int(w, document->stored_ms);
    sl_json_key(w, "changing");
    sl_json_put_bool(w, document->changing);
    sl_json_end_object(w);
}

static void on_documents(void *ctx, int err, const struct sl_ingest_document *documents, size_t len,
                         bool more)
{
    struct lookup *lookup = ctx;
    struct sl_json_writer w;
    struct sl_buf body;
    bool there = is_there(lookup);
    if (there && err != 0) {
        fail_lookup(lookup, NULL);
        return;
    }
    begin_list(&w, &body);
    for (size_t i = 0; i < len && err == 0; i++) {
        put_document(&w, &documents[i]);
    }
    sl_json_end_array(&w);
    sl_json_key(&w, "has_more");
    sl_json_put_bool(&w, more);
    sl_json_key(&w, "last_id");
    if (err == 0 && len > 0) {
        sl_json_put_string(&w, documents[len - 1].doc_id);
    } else {
        sl_json_put_null(&w);
    }
    sl_json_end_object(&w);
    finish(lookup, there, &body);
}

void documents_list(struct gateway *gateway, struct request *request)
{
    struct parameter table[] = {{.name = "collection", .max = COLLECTION_MAX},
                                {.name = "after", .max = DOCUMENT_ID_MAX},
                                {.name = "limit", .max = 8}};
    struct lookup *lookup = begin(gateway, request);
    const struct sl_ingest_env env = ingests_env(gateway);
    long long max;
    if (lookup == NULL || !read_parameters(lookup, table, 3) ||
        !read_limit(lookup, &table[2], LIST_MAX, LIST_DEFAULT, &max)) {
        return;
    }
    struct sl_span collection = table[0].value.data != NULL ? table[0].value : SL_SPAN("default");
    struct sl_span after = table[1].value.data != NULL ? table[1].value : SL_SPAN("");
    asked(lookup, sl_ingest_documents(&env, collection, after, (size_t)max, on_documents, lookup));
}

static void on_document(void *ctx, int err, const struct sl_ingest_document *documents, size_t len,
                        bool more)
{
    static const struct failure missing = {
        .status = 404,
        .code = "not_found",
        .param = "id",
        .message = "the collection has no such document that can be found"};
    struct lookup *lookup = ctx;
    struct sl_buf body;
    bool there = is_there(lookup);
    bool found = err == 0 && len > 0 && sl_span_equal(documents[0].doc_id, lookup->doc_id);
    (void)more;
    if (there && !found) {
        fail_lookup(lookup, err == 0 ? &missing : NULL);
        return;
    }
    sl_buf_init(&body, SMALL);
    struct sl_json_writer w = {.out = &body};
    if (found) {
        put_document(&w, &documents[0]);
    }
    finish(lookup, there, &body);
}

/* The list begins behind a name; what stands directly before an id, among names that are UTF-8, is
 * the id with its last byte lowered by one and a byte behind it that no UTF-8 has. */
static struct sl_span name_before(struct sl_arena *arena, struct sl_span id)
{
    char *name = sl_arena_alloc(arena, id.len + 1);
    if (name == NULL) {
        return (struct sl_span){NULL, 0};
    }
    memcpy(name, id.data, id.len);
    name[id.len - 1] = (char)((unsigned char)name[id.len - 1] - 1);
    name[id.len] = '\xff';
    return (struct sl_span){name, id.len + 1};
}

void documents_get(struct gateway *gateway, struct request *request)
{
    struct parameter collection = {.name = "collection", .max = COLLECTION_MAX};
    struct lookup *lookup = begin(gateway, request);
    const struct sl_ingest_env env = ingests_env(gateway);
    struct sl_fault fault;
    if (lookup == NULL || !read_parameters(lookup, &collection, 1)) {
        return;
    }
    int rv = path_part_read(ingests_path_rest(request), "id", DOCUMENT_ID_MAX, &lookup->arena,
                            &lookup->doc_id, &fault);
    if (rv != 0) {
        ingests_respond_fault(request, rv, &fault);
        free_lookup(lookup);
        return;
    }
    struct sl_span before = name_before(&lookup->arena, lookup->doc_id);
    rv = before.data == NULL ? -SL_ENOMEM : 0;
    asked(lookup, rv != 0 ? rv
                          : sl_ingest_documents(&env,
                                                collection.value.data != NULL ? collection.value
                                                                              : SL_SPAN("default"),
                                                before, 1, on_document, lookup));
}
