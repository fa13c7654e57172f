/* Most tests have one call at a time and need not choose. */
#include "tests/support/runtime/fake_http.h"

#include "tests/support/alloc_fail.h"
#include "tests/support/runtime/worker_fixture.h"
#include "tests/support/test.h"

enum { OPEN_MAX = 8 };

struct sl_http_call {
    struct sl_http_request request;
    char url[256];
    char *body;
    bool paused;
};

struct sl_http_client {
    struct sl_http_call *open[OPEN_MAX];
    size_t open_count, chosen;
    size_t started, cancelled;
    int refusal;
};

int (*fake_http_on_start)(void);

static struct sl_http_client *client_now;

int sl_http_client_create(struct sl_loop *loop, const struct sl_http_client_config *config,
                          struct sl_http_client **ret)
{
    (void)loop;
    (void)config;
    int err = fx_part_err();
    if (err != 0) {
        return err;
    }
    long paused = sl_test_pause_alloc();
    *ret = client_now = calloc(1, sizeof(**ret));
    sl_test_resume_alloc(paused);
    CHECK(*ret != NULL);
    return 0;
}

void sl_http_client_destroy(struct sl_http_client *client)
{
    CHECK(client == NULL || client->open_count == 0);
    free(client);
    client_now = NULL;
}

static struct sl_http_call *new_call(const struct sl_http_request *request)
{
    long paused = sl_test_pause_alloc();
    struct sl_http_call *call = calloc(1, sizeof(*call));
    CHECK(call != NULL);
    call->request = *request;
    snprintf(call->url, sizeof(call->url), "%s", request->url);
    call->body = strndup(request->body.data != NULL ? request->body.data : "", request->body.len);
    CHECK(call->body != NULL);
    call->request.url = call->url;
    call->request.body.data = call->body;
    sl_test_resume_alloc(paused);
    return call;
}

int sl_http_start(struct sl_http_client *client, const struct sl_http_request *request,
                  struct sl_http_call **ret)
{
    int err = fake_http_on_start != NULL ? fake_http_on_start() : client->refusal;
    if (err != 0) {
        return err;
    }
    CHECK(client->open_count < OPEN_MAX && request->total_timeout_ms > 0);
    *ret = client->open[client->open_count++] = new_call(request);
    client->started++;
    return 0;
}

static void close_call(struct sl_http_call *call)
{
    size_t at = 0;
    while (at < client_now->open_count && client_now->open[at] != call) {
        at++;
    }
    CHECK(at < client_now->open_count);
    client_now->open_count--;
    for (; at < client_now->open_count; at++) {
        client_now->open[at] = client_now->open[at + 1];
    }
    client_now->chosen = 0;
    free(call->body);
    free(call);
}

void sl_http_cancel(struct sl_http_call *call)
{
    client_now->cancelled++;
    close_call(call);
}

void sl_http_pause(struct sl_http_call *call, bool paused)
{
    call->paused = paused;
}

void sl_http_relax(struct sl_http_call *call)
{
    (void)call;
}

struct sl_http_call *fake_http_call(void)
{
    return client_now->open_count > 0 ? client_now->open[client_now->chosen] : NULL;
}

size_t fake_http_open(void)
{
    return client_now->open_count;
}

void fake_http_choose(size_t i)
{
    CHECK(i < client_now->open_count);
    client_now->chosen = i;
}

const struct sl_http_request *fake_http_request(void)
{
    CHECK(client_now->open_count > 0);
    return &fake_http_call()->request;
}

size_t fake_http_started(void)
{
    return client_now->started;
}

size_t fake_http_cancelled(void)
{
    return client_now->cancelled;
}

bool fake_http_paused(void)
{
    return fake_http_call()->paused;
}

void fake_http_refuse(int err)
{
    client_now->refusal = err;
}

void fake_http_head(int status)
{
    const struct sl_http_response response = {
        .status = status, .retry_after_ms = -1, .connected = true};
    const struct sl_http_request *request = fake_http_request();
    CHECK(request->callbacks->on_head == NULL ||
          request->callbacks->on_head(request->ctx, &response) == 0);
}

int fake_http_data(const char *bytes)
{
    const struct sl_http_request *request = fake_http_request();
    return request->callbacks->on_data(request->ctx, sl_span_of(bytes));
}

void fake_http_end(const struct fake_http_end *end)
{
    const struct sl_http_response response = {
        .status = end->status,
        .retry_after_ms = end->retry_after_ms != 0 ? end->retry_after_ms : -1,
        .connected = end->connected};
    struct sl_http_request request = *fake_http_request();
    close_call(fake_http_call());
    request.callbacks->on_end(request.ctx, end->err, &response,
                              sl_span_of(end->body != NULL ? end->body : ""),
                              end->err != 0 ? sl_error_text(end->err) : "");
}
