/*
 * One request to the embedding API: texts go out, and its response is read into vectors.
 *
 * Reading a response takes one millisecond a megabyte where it is base64, nearly two where it is
 * decimal numbers, and a batch's may have several. That would hold up every question of this worker,
 * so a large one is copied and read by the thread pool; its permit has gone back by then. Whoever
 * cancels meanwhile hears nothing, and what the pool still reads is thrown away when it is done.
 */
#include "common/worker.h"
#include "workers/embed/embed_internal.h"
#include "workers/embed/vectors.h"

#include <assert.h>
#include <stdlib.h>

/* POOLED_FROM: a quarter of a millisecond as base64, less than half of one as decimal numbers. */
enum { REQUEST_MAX = 16 << 20, RESPONSE_MAX = 64 << 20, POOLED_FROM = 256 << 10, WHY_MAX = 160 };

struct embed_reading {
    struct embed_request *request; /* NULL: cancelled. */
    size_t count;
    struct sl_span body; /* Behind this struct. */
    int err;
    float *vectors;
    size_t dim;
    char why[WHY_MAX];
};

static void read_body(void *ctx)
{
    struct embed_reading *reading = ctx;
    reading->err = vectors_read_response(reading->body, reading->count, &reading->vectors,
                                         &reading->dim, reading->why, sizeof(reading->why));
}

static void tell(struct embed_request *request, const struct embed_reading *reading)
{
    const struct embed_answer answer = {.err = reading->err,
                                        .status = request->status,
                                        .vectors = reading->vectors,
                                        .dim = reading->dim,
                                        .why = reading->why,
                                        .attempts = request->attempts};
    if (reading->err == 0) {
        embed_saw_dim(request->stage, reading->dim);
    }
    request->on_answer(request, &answer);
}

static void on_read(void *ctx)
{
    struct embed_reading *reading = ctx;
    if (reading->request != NULL) {
        reading->request->reading = NULL;
        tell(reading->request, reading);
    }
    free(reading->vectors);
    free(reading);
}

/* false: then it is read here. */
static bool read_in_pool(struct embed_request *request, struct sl_span body)
{
    struct embed_reading *reading = malloc(sizeof(*reading) + body.len);
    if (reading == NULL) {
        return false;
    }
    *reading = (struct embed_reading){.request = request, .count = request->len};
    memcpy(reading + 1, body.data, body.len);
    reading->body = (struct sl_span){(const char *)(reading + 1), body.len};
    if (sl_work_submit(sl_worker_loop(request->stage->worker), read_body, on_read, reading) != 0) {
        free(reading);
        return false;
    }
    request->reading = reading;
    return true;
}

static void on_end(void *ctx, int err, int status, struct sl_span body, const char *detail,
                   uint32_t attempts)
{
    struct embed_request *request = ctx;
    request->call = NULL;
    request->status = status;
    request->attempts = attempts;
    if (err != 0) {
        const struct embed_answer answer = {
            .err = err, .status = status, .why = detail, .attempts = attempts};
        request->on_answer(request, &answer);
    } else if (body.len < POOLED_FROM || !read_in_pool(request, body)) {
        struct embed_reading reading = {.count = request->len, .body = body};
        read_body(&reading);
        tell(request, &reading);
        free(reading.vectors);
    }
}

int embed_request_start(struct embed_request *request, const struct embed_wanted *wanted)
{
    static const struct sl_upstream_callbacks callbacks = {.on_end = on_end};
    struct sl_buf body;
    assert(request->call == NULL && request->reading == NULL);
    assert(wanted->len > 0 && wanted->len <= EMBED_TEXTS_MAX);
    sl_buf_init(&body, REQUEST_MAX);
    vectors_write_request(embed_config.upstream.model, wanted->texts, wanted->len, &body);
    const struct sl_upstream_request upstream = {
        .method = "POST",
        .path = "/embeddings",
        .body = sl_buf_span(&body),
        .max_response = RESPONSE_MAX,
        .timeout_ms = wanted->bulk ? (uint32_t)embed_config.bulk_timeout_ms : 0,
        .bulk = wanted->bulk,
        .once = wanted->bulk,
        .deadline_ms = wanted->deadline_ms,
        .lease = wanted->lease,
        .callbacks = &callbacks,
        .ctx = request,
    };
    request->len = wanted->len;
    int rv = sl_buf_error(&body);
    rv = rv != 0 ? rv : sl_upstream_start(request->stage->upstream, &upstream, &request->call);
    sl_buf_fini(&body);
    return rv;
}

void embed_request_cancel(struct embed_request *request)
{
    if (request->call != NULL) {
        sl_upstream_cancel(request->call);
        request->call = NULL;
    }
    if (request->reading != NULL) {
        request->reading->request = NULL;
        request->reading = NULL;
    }
}
