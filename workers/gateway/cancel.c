/*
 * A cancellation on its way to Redis. Whether there is such a query is known to the worker that
 * runs it, not here, so any valid id is answered alike: 202 says that it will be cancelled if it
 * has not ended.
 *
 * The exchange may go before Redis answers; the cancellation is freed when both are over.
 */
#include "workers/gateway/cancel.h"

#include <stdio.h>
#include <stdlib.h>

struct cancellation {
    struct request request;
    struct sl_list node; /* In gateway->cancellations. */
    bool answered;       /* By Redis. */
};

static void free_cancellation(struct cancellation *cancellation)
{
    sl_list_remove(&cancellation->node);
    free(cancellation);
}

static void on_gone(void *ctx, bool complete)
{
    struct cancellation *cancellation = ctx;
    (void)complete;
    cancellation->request.exchange = NULL;
    if (cancellation->answered) {
        free_cancellation(cancellation);
    }
}

static const char untold[] = "Redis could not be told of the cancellation";

static void on_cancelled(void *ctx, int err)
{
    struct cancellation *cancellation = ctx;
    const struct request *request = &cancellation->request;
    char body[128];
    cancellation->answered = true;
    if (request->exchange == NULL) {
        free_cancellation(cancellation);
    } else if (err != 0) {
        respond_overloaded(request, untold);
    } else { /* An id has nothing to escape. */
        snprintf(body, sizeof(body), "{\"id\":\"%s\",\"state\":\"cancelling\"}", request->id);
        respond_json(request, 202, sl_span_of(body));
    }
}

void cancel_start(struct gateway *gateway, const struct request *request)
{
    struct cancellation *cancellation = calloc(1, sizeof(*cancellation));
    if (cancellation == NULL) {
        respond_overloaded(request, untold);
        return;
    }
    cancellation->request = *request;
    sl_list_push(&gateway->cancellations, &cancellation->node);
    if (sl_coord_cancel(gateway->coord, sl_span_of(request->id), on_cancelled, cancellation) != 0) {
        free_cancellation(cancellation);
        respond_overloaded(request, untold);
        return;
    }
    sl_http_on_gone(request->exchange, on_gone, cancellation);
}

void cancel_free_all(struct gateway *gateway)
{
    SL_LIST_EACH_SAFE(node, &gateway->cancellations)
    {
        free_cancellation(SL_ITEM(node, struct cancellation, node));
    }
}
