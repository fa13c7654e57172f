/*
 * A caller comes back. Redis is asked where the query's events are; then the caller joins the
 * query, and the log tells what it has missed and whatever is written from then on. What was asked
 * for is not needed for that: the stream is /v1/query's, whichever way the query was opened.
 *
 * The exchange may go before Redis answers; the lookup is freed when the answer has come, which it
 * does in any case.
 */
#include "workers/gateway/resume.h"

#include "workers/gateway/query_id.h"

#include <stdlib.h>

struct lookup {
    struct gateway *gateway;
    struct request request; /* exchange NULL: the caller has gone. */
    struct resume_point point;
};

static const char redis_away[] = "Redis could not be asked about the query";

int resume_point_read(struct sl_span header, struct resume_point *ret)
{
    const char *colon = header.len > 0 ? memchr(header.data, ':', header.len) : NULL;
    long long attempt, seq;
    if (colon == NULL) {
        return -SL_EINVAL;
    }
    size_t before = (size_t)(colon - header.data);
    const struct sl_span first = {header.data, before};
    const struct sl_span second = {colon + 1, header.len - before - 1};
    if (sl_span_to_int(first, 0, UINT32_MAX, &attempt) != 0 ||
        sl_span_to_int(second, 0, UINT32_MAX, &seq) != 0) {
        return -SL_EINVAL;
    }
    *ret = (struct resume_point){.given = true, .attempt = (uint32_t)attempt, .seq = (uint32_t)seq};
    return 0;
}

static void on_gone(void *ctx, bool complete)
{
    struct lookup *lookup = ctx;
    (void)complete;
    lookup->request.exchange = NULL;
    lookup->gateway->callers--;
    gateway_caller_gone(lookup->gateway);
}

static void answer(struct lookup *lookup, int err, const struct sl_query_state *state)
{
    static const struct failure not_streamed = {
        .status = 404,
        .code = "no_events",
        .param = "id",
        .message = "no gateway opened this query: GET /v1/queries/{id} has its result"};
    const struct request *request = &lookup->request;
    if (err != 0) {
        respond_overloaded(request, redis_away);
    } else if (!state->known) {
        query_id_respond_unknown(lookup->gateway, request);
    } else if (!state->attached) {
        respond_failure(request, &not_streamed);
    } else {
        const struct intake intake = {.request = *request, .format = &format_query_stream};
        open_query_join(lookup->gateway, &intake, &state->place, &lookup->point);
    }
}

static void on_state(void *ctx, int err, const struct sl_query_state *state)
{
    struct lookup *lookup = ctx;
    if (lookup->request.exchange != NULL) {
        sl_http_on_gone(lookup->request.exchange, NULL, NULL);
        lookup->gateway->callers--;
        answer(lookup, err, state);
        gateway_caller_gone(lookup->gateway);
    }
    free(lookup);
}

void resume_start(struct gateway *gateway, const struct request *request)
{
    static const struct failure invalid = {
        .status = 400,
        .code = "invalid_event_id",
        .param = "Last-Event-ID",
        .message = "Last-Event-ID must be ATTEMPT:SEQ, the id of an event of the stream"};
    struct resume_point point = {.given = false};
    struct sl_span given = sl_http_request_header(request->exchange, "last-event-id");
    if (given.data != NULL && resume_point_read(given, &point) != 0) {
        respond_failure(request, &invalid);
        return;
    }
    struct lookup *lookup = malloc(sizeof(*lookup));
    if (lookup != NULL) {
        *lookup = (struct lookup){.gateway = gateway, .request = *request, .point = point};
    }
    if (lookup == NULL ||
        sl_query_look(gateway->coord, sl_span_of(request->id), on_state, lookup) != 0) {
        free(lookup);
        respond_overloaded(request, redis_away);
        return;
    }
    gateway->callers++;
    sl_http_on_gone(request->exchange, on_gone, lookup);
}
