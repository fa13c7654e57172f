/* One call at a time is all that the tests of upstream.c need. */
#include "tests/support/runtime/fake_http.h"

#include "tests/support/runtime/worker_fixture.h"
#include "tests/support/test.h"

struct sl_http_call {
    struct sl_http_request request;
    bool paused;
};

struct sl_http_client {
    struct sl_http_call *open;
    size_t started, cancelled;
    int refusal;
};

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
    *ret = client_now = calloc(1, sizeof(**ret));
    CHECK(*ret != NULL);
    return 0;
}

void sl_http_client_destroy(struct sl_http_client *client)
{
    CHECK(client == NULL || client->open == NULL);
    free(client);
    client_now = NULL;
}

int sl_http_start(struct sl_http_client *client, const struct sl_http_request *request,
                  struct sl_http_call **ret)
{
    if (client->refusal != 0) {
        return client->refusal;
    }
    struct sl_http_call *call = calloc(1, sizeof(*call));
    CHECK(call != NULL && client->open == NULL && request->total_timeout_ms > 0);
    call->request = *request;
    client->open = call;
    client->started++;
    *ret = call;
    return 0;
}

static void close_call(struct sl_http_call *call)
{
    CHECK(client_now->open == call);
    client_now->open = NULL;
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

struct sl_http_call *fake_http_call(void)
{
    return client_now->open;
}

const struct sl_http_request *fake_http_request(void)
{
    CHECK(client_now->open != NULL);
    return &client_now->open->request;
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
    return client_now->open->paused;
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
    CHECK(request->callbacks->on_head(request->ctx, &response) == 0);
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
    close_call(client_now->open);
    request.callbacks->on_end(request.ctx, end->err, &response,
                              sl_span_of(end->body != NULL ? end->body : ""),
                              end->err != 0 ? sl_error_text(end->err) : "");
}
