/*
 * The life of an open query.
 *
 *   start      encoded, produced, in the map
 *   accepted   the broker's acknowledgement, or an event that overtook it: a stream's head goes out
 *   events     through the reader's rules (order.h) to the caller's format
 *   ended      the first terminal event in the log, which 250 ms after the deadline is the
 *              gateway's own if nobody else stored an ending (expiry.c); a second later without
 *              one; or a broken sequence; or a failed produce. Out of the map, logged, counted
 *   freed      when the exchange is over and the producer has reported
 *
 * A caller who leaves before the end changes none of this: the query is cancelled at once, after
 * its grace or never, as it asked, and stays in the map until its ending comes, since until then it
 * is work in flight that this gateway has let in.
 */
#include "workers/gateway/open_query.h"

#include "common/clock.h"
#include "common/ending.h"
#include "common/log.h"
#include "common/sse.h"
#include "workers/gateway/expiry.h"
#include "workers/gateway/replies.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    ARENA_MAX = 4 << 20,
    OUT_MAX = 16 << 20,
    OUT_KEPT = 2048,   /* Of an empty buffer, from one flush to the next. */
    LATE_MS = 250,     /* After the deadline: workers that live were faster. */
    OVERDUE_MS = 1000, /* From there: for an ending to be stored and to come through the log. */
    KEEP_ALIVE_MS = 15000,
};

static void end_query(struct open_query *q, const struct sl_event *event);
static void on_idle(struct sl_timer *timer);

/* --- the end of it all --- */

static void free_query(struct open_query *q)
{
    struct gateway *gateway = q->gateway;
    sl_timer_stop(gateway->loop, &q->deadline);
    sl_timer_stop(gateway->loop, &q->idle);
    sl_task_cancel(&q->flush);
    sl_list_remove(&q->in_settled);
    sl_buf_fini(&q->out);
    sl_buf_fini(&q->citations);
    sl_arena_fini(&q->arena);
    free(q);
}

static void maybe_free(struct open_query *q)
{
    if (q->ended && !q->producing && q->request.exchange == NULL) {
        free_query(q);
    }
}

void open_query_free_all(struct gateway *gateway)
{
    struct sl_map_node *node = sl_map_next(&gateway->open, NULL);
    while (node != NULL) {
        struct sl_map_node *next = sl_map_next(&gateway->open, node);
        sl_map_remove(&gateway->open, node);
        free_query(SL_ITEM(node, struct open_query, by_id));
        node = next;
    }
    SL_LIST_EACH_SAFE(settled, &gateway->settled)
    {
        free_query(SL_ITEM(settled, struct open_query, in_settled));
    }
}

/* --- writing --- */

/* An event could not be put together: a stream may not have a hole, so it ends here. */
static void break_off(struct open_query *q)
{
    const struct sl_span last =
        SL_SPAN("event: error\ndata: {\"error\":{\"message\":\"the stream could not be written\","
                "\"type\":\"server_error\",\"param\":null,\"code\":\"internal\"}}\n\n"
                "data: [DONE]\n\n");
    q->cut = true;
    if (sl_http_stream_write(q->request.exchange, last) == 0) {
        sl_http_stream_end(q->request.exchange);
    }
}

static void flush(struct open_query *q)
{
    sl_task_cancel(&q->flush);
    if (sl_buf_error(&q->out) != 0 && !q->cut) {
        break_off(q);
    } else if (q->out.len > 0 && !q->cut) {
        q->cut = sl_http_stream_write(q->request.exchange, sl_buf_span(&q->out)) != 0;
        q->written_ms = sl_loop_now_ms(q->gateway->loop);
    }
    if (q->out.cap > OUT_KEPT) {
        sl_buf_fini(&q->out);
        sl_buf_init(&q->out, OUT_MAX);
    }
    sl_buf_clear(&q->out);
}

static void on_flush(struct sl_task *task)
{
    flush(SL_ITEM(task, struct open_query, flush));
}

struct sl_buf *open_query_out(struct open_query *q)
{
    assert(q->format->stream && q->request.exchange != NULL);
    sl_task_defer(q->gateway->loop, &q->flush, on_flush);
    return &q->out;
}

static void keep_alive_later(struct open_query *q)
{
    uint64_t idle_ms = sl_loop_now_ms(q->gateway->loop) - q->written_ms;
    uint64_t wait_ms = idle_ms < KEEP_ALIVE_MS ? KEEP_ALIVE_MS - idle_ms : KEEP_ALIVE_MS;
    sl_timer_start(q->gateway->loop, &q->idle, wait_ms, on_idle);
}

/* --- the caller leaves --- */

static void cancel(struct open_query *q)
{
    int err = sl_coord_cancel(q->gateway->coord, q->query.id, NULL, NULL);
    if (err != 0) {
        sl_log(SL_LOG_WARN, "a query could not be cancelled", SL_SPANF("id", q->query.id),
               SL_ERR(err));
    }
}

static void leave(struct open_query *q)
{
    q->left = true;
    sl_timer_stop(q->gateway->loop, &q->idle);
    sl_task_cancel(&q->flush);
    sl_buf_fini(&q->out);
    sl_buf_fini(&q->citations);
    switch (q->query.on_disconnect) {
    case SL_DISCONNECT_CANCEL:
        cancel(q);
        break;
    case SL_DISCONNECT_GRACE:
        sl_timer_start(q->gateway->loop, &q->idle, q->query.grace_ms, on_idle);
        break;
    case SL_DISCONNECT_CONTINUE:
        break;
    }
}

/* The caller was silent for a while: a comment keeps proxies from closing the connection. Or it has
 * left, and its grace is over. */
static void on_idle(struct sl_timer *timer)
{
    struct open_query *q = SL_ITEM(timer, struct open_query, idle);
    if (q->left) {
        cancel(q);
        return;
    }
    if (sl_loop_now_ms(q->gateway->loop) - q->written_ms >= KEEP_ALIVE_MS) {
        sl_sse_write_comment(&q->out, "keep-alive");
        flush(q);
    }
    keep_alive_later(q);
}

static void on_gone(void *ctx, bool complete)
{
    struct open_query *q = ctx;
    (void)complete;
    q->request.exchange = NULL;
    q->gateway->callers--;
    if (!q->ended) {
        leave(q);
    }
    gateway_caller_gone(q->gateway);
    maybe_free(q);
}

/* --- acceptance --- */

static void accept_query(struct open_query *q)
{
    if (q->accepted || q->ended) {
        return;
    }
    q->accepted = true;
    if (q->request.exchange != NULL && q->format->stream) {
        respond_stream(&q->request);
        q->written_ms = sl_loop_now_ms(q->gateway->loop);
        keep_alive_later(q);
    }
}

/* What the caller gets when nothing of the answer was written. */
static void answer_failure(struct open_query *q, const struct sl_result *result)
{
    struct failure failure = {.status = status_of(result->code),
                              .code = sl_query_error_text(result->code),
                              .ran = q->accepted};
    char message[512];
    snprintf(message, sizeof(message), SL_SPAN_FMT "%s" SL_SPAN_FMT, SL_SPAN_ARG(result->stage),
             result->stage.len > 0 ? ": " : "", SL_SPAN_ARG(result->message));
    failure.message = message;
    respond_failure(&q->request, &failure);
}

static void end_by_gateway(struct open_query *q, const struct sl_result *given)
{
    struct sl_result result = *given;
    result.total_ms = (uint32_t)((sl_clock_now_us() - q->opened_us) / 1000);
    struct sl_event event = {.type = SL_EVENT_ERROR,
                             .id = q->query.id,
                             .attempt = q->order.attempt,
                             .seq = q->order.next_seq,
                             .query = &q->query,
                             .result = &result};
    if (event.attempt == 0) { /* The sources were 0:0. */
        event.seq = q->order.has_sources ? 1 : 0;
    }
    end_query(q, &event);
}

/* The broker's answer. A report of failure may be wrong (the acknowledgement was lost), so the
 * query is cancelled too. */
static void on_delivery(void *ctx, int err, int32_t partition, int64_t offset)
{
    struct open_query *q = ctx;
    q->producing = false;
    if (err == 0) {
        q->query.source_topic = sl_span_of(q->gateway->queries_topic);
        q->query.source_partition = partition;
        q->query.source_offset = offset;
        accept_query(q);
    } else if (!q->accepted && !q->ended && !q->gateway->stopping) {
        const struct sl_result result = {.outcome = SL_FAILED,
                                         .code = SL_QERR_OVERLOADED,
                                         .message = SL_SPAN("Kafka did not take the query")};
        sl_log(SL_LOG_WARN, "a query was not produced", SL_SPANF("id", q->query.id), SL_ERR(err));
        cancel(q);
        end_by_gateway(q, &result);
        return;
    }
    maybe_free(q);
}

/* --- the end --- */

static void note_end(struct open_query *q, const struct sl_result *result)
{
    const struct gateway_metrics *metrics = &q->gateway->metrics;
    uint64_t total_us = sl_clock_now_us() - q->opened_us;
    uint64_t ttft_us = q->first_text_us > 0 ? q->first_text_us - q->opened_us : 0;
    sl_counter_add(metrics->outcomes[result->outcome], 1);
    sl_log(SL_LOG_INFO, "query", SL_SPANF("id", q->query.id),
           SL_STR("request_id", q->request.request_id),
           SL_STR("path", route_path(q->request.route)),
           SL_STR("outcome", sl_outcome_text(result->outcome)),
           SL_STR("code", sl_query_error_text(result->code)),
           SL_INT("status", q->left                            ? 499
                            : q->format->stream && q->accepted ? 200
                                                               : status_of(result->code)),
           SL_INT("total_ms", total_us / 1000), SL_INT("ttft_ms", ttft_us / 1000),
           SL_STR("client", q->left ? "left" : "there"));
}

/* How much longer the query took than its stages worked. */
static void note_overhead(struct open_query *q, const struct sl_event *event)
{
    double work_s = 0, total_s = (double)(sl_clock_now_us() - q->opened_us) / 1e6;
    if (event->type == SL_EVENT_DONE && event->query != NULL) {
        for (size_t i = 0; i < SL_STAGE_COUNT; i++) {
            work_s += (double)event->query->stages[i].work_ms / 1000;
        }
        sl_histogram_observe(q->gateway->metrics.overhead, total_s > work_s ? total_s - work_s : 0);
    }
}

static void end_query(struct open_query *q, const struct sl_event *event)
{
    struct gateway *gateway = q->gateway;
    assert(!q->ended && event->result != NULL);
    q->ended = q->order.ended = true;
    sl_map_remove(&gateway->open, &q->by_id);
    sl_list_push(&gateway->settled, &q->in_settled);
    sl_timer_stop(gateway->loop, &q->deadline);
    sl_timer_stop(gateway->loop, &q->idle);
    note_overhead(q, event);
    note_end(q, event->result);
    if (q->request.exchange == NULL) {
        maybe_free(q);
    } else if (q->format->stream && q->accepted) {
        q->format->end(q, event);
        sl_sse_write(&q->out, NULL, NULL, SL_SPAN("[DONE]"));
        flush(q);
        if (!q->cut) {
            sl_http_stream_end(q->request.exchange);
        }
    } else if (event->type == SL_EVENT_ERROR) {
        answer_failure(q, event->result);
    } else {
        q->format->end(q, event);
    }
}

static struct sl_result expired(void)
{
    return (struct sl_result){.outcome = SL_EXPIRED,
                              .code = SL_QERR_TIMEOUT,
                              .message = SL_SPAN("the deadline passed before the query ended"),
                              .stage = SL_SPAN("gateway")};
}

/* The ending that counts did not come from the log: Kafka or Redis is away. */
static void on_overdue(struct sl_timer *timer)
{
    const struct sl_result result = expired();
    end_by_gateway(SL_ITEM(timer, struct open_query, deadline), &result);
}

/* 250 ms after the deadline: nobody else seems to have ended it, so the gateway does. The caller is
 * told what comes back in the log, since somebody may have been faster by a little. */
static void on_deadline(struct sl_timer *timer)
{
    struct open_query *q = SL_ITEM(timer, struct open_query, deadline);
    const struct sl_result result = expired();
    expiry_start(q->gateway, &q->query, &result);
    sl_timer_start(q->gateway->loop, &q->deadline, OVERDUE_MS, on_overdue);
}

/* --- events --- */

static void on_lost(struct open_query *q)
{
    const struct sl_result result = {
        .outcome = SL_FAILED,
        .code = SL_QERR_WORKER_LOST,
        .message = SL_SPAN("a part of the answer was lost with the worker that wrote it"),
        .stage = SL_SPAN("generate")};
    if (!q->left && q->query.on_disconnect == SL_DISCONNECT_CANCEL) {
        cancel(q); /* Nobody will see the rest. */
    }
    end_by_gateway(q, &result);
}

/* An error ends the stream whoever sends it, at times a worker that took over and counts from 0 in
 * an attempt of its own. Its caller sees it where it stands: behind what was read. */
static struct sl_event in_place(const struct open_query *q, const struct sl_event *event)
{
    struct sl_event shown = *event;
    if (event->type != SL_EVENT_ERROR) {
        return shown;
    }
    if (q->order.attempt > 0) {
        shown.attempt = q->order.attempt;
        shown.seq = q->order.next_seq;
    } else if (event->attempt == 0) {
        shown.seq = q->order.has_sources ? 1 : 0;
    } else {
        shown.seq = 0;
    }
    return shown;
}

static void on_event(struct open_query *q, const struct sl_event *event, struct sl_span value)
{
    switch (order_take(&q->order, event)) {
    case ORDER_DROP:
        return;
    case ORDER_LOST:
        on_lost(q);
        return;
    case ORDER_TAKE:
        break;
    }
    if (event->type == SL_EVENT_DELTA && q->first_text_us == 0) {
        q->first_text_us = sl_clock_now_us();
        sl_histogram_observe(q->gateway->metrics.ttft,
                             (double)(q->first_text_us - q->opened_us) / 1e6);
    }
    if (q->order.ended) {
        struct sl_event shown = in_place(q, event);
        end_query(q, &shown);
    } else if (q->request.exchange != NULL && !q->cut) {
        q->format->event(q, event, value);
    }
}

void open_query_record(struct open_query *q, const struct sl_record *record)
{
    struct sl_arena arena;
    struct sl_event event;
    sl_arena_init(&arena, ARENA_MAX);
    int err = sl_event_decode(record->value, &arena, &event);
    if (err == 0 && sl_span_equal(event.id, q->query.id)) {
        accept_query(q); /* It may have overtaken the acknowledgement. */
        on_event(q, &event, record->value);
    } else {
        sl_log(SL_LOG_WARN, "an event is not readable", SL_SPANF("id", q->query.id),
               SL_INT("offset", record->offset), SL_ERR(err != 0 ? err : -SL_EBADMSG));
    }
    sl_arena_fini(&arena);
}

/* --- the beginning --- */

static int keep(struct open_query *q, const struct sl_query *parsed, const struct chat_head *chat)
{
    struct gateway *gateway = q->gateway;
    int64_t now_ms = sl_coord_now_ms(gateway->coord);
    q->query = *parsed;
    q->query.history = NULL;
    q->query.history_len = 0;
    q->query.filter = NULL;
    q->query.filter_len = 0;
    q->query.extra = (struct sl_span){0};
    q->query.query = sl_arena_copy(&q->arena, parsed->query);
    q->query.collection = sl_arena_copy(&q->arena, parsed->collection);
    q->query.model = sl_arena_copy(&q->arena, parsed->model);
    q->query.traceparent = sl_arena_copy(&q->arena, parsed->traceparent);
    q->query.id = sl_span_of(q->request.id);
    q->query.tenant = SL_SPAN("default");
    q->query.json = false;
    q->query.accepted_ms = now_ms;
    q->query.deadline_ms = now_ms + parsed->timeout_ms;
    q->query.reply_topic = sl_span_of(gateway->replies_topic);
    q->query.reply_partition = replies_partition(gateway->replies);
    if (chat != NULL) {
        q->chat = *chat;
        q->chat.id = q->query.id;
        q->chat.model = sl_arena_copy(&q->arena, chat->model);
    }
    return q->query.query.data == NULL || q->query.collection.data == NULL ||
                   q->query.model.data == NULL || q->query.traceparent.data == NULL ||
                   (chat != NULL && q->chat.model.data == NULL)
               ? -SL_ENOMEM
               : 0;
}

static int produce(struct open_query *q, const struct sl_query *parsed)
{
    struct gateway *gateway = q->gateway;
    struct sl_query job = *parsed;
    struct sl_route route;
    job.id = q->query.id;
    job.tenant = q->query.tenant;
    job.deadline_ms = q->query.deadline_ms;
    job.reply_topic = q->query.reply_topic;
    job.reply_partition = q->query.reply_partition;
    job.json = false;
    sl_buf_clear(&gateway->scratch);
    sl_query_encode(&job, &gateway->scratch);
    sl_route_write(&route, &job, false);
    const struct sl_outgoing record = {.topic = gateway->queries_topic,
                                       .partition = -1,
                                       .key = job.id,
                                       .value = sl_buf_span(&gateway->scratch),
                                       .headers = route.headers,
                                       .header_count = route.count};
    int err = sl_buf_error(&gateway->scratch);
    return err != 0 ? err : sl_producer_send(gateway->producer, &record, on_delivery, q);
}

static void refuse(const struct request *request, int err)
{
    const struct failure failure = {.status = err == -SL_ETOOBIG ? 413 : 503,
                                    .code = err == -SL_ETOOBIG ? "request_too_large" : "overloaded",
                                    .message = err == -SL_ETOOBIG
                                                   ? "the query is too large for its topic"
                                                   : "the query could not be accepted now"};
    sl_log(SL_LOG_WARN, "a query was not accepted", SL_STR("id", request->id), SL_ERR(err));
    respond_failure(request, &failure);
}

void open_query_start(struct gateway *gateway, const struct request *request,
                      const struct format *format, const struct sl_query *parsed,
                      const struct chat_head *chat)
{
    struct open_query *q = calloc(1, sizeof(*q));
    if (q == NULL) {
        refuse(request, -SL_ENOMEM);
        return;
    }
    q->gateway = gateway;
    q->request = *request;
    q->format = format;
    q->opened_us = sl_clock_now_us();
    sl_list_init(&q->in_settled);
    sl_arena_init(&q->arena, ARENA_MAX);
    sl_buf_init(&q->out, OUT_MAX);
    sl_buf_init(&q->citations, OUT_MAX);
    int err = keep(q, parsed, chat);
    err = err != 0 ? err : produce(q, parsed);
    if (err != 0) {
        free_query(q);
        refuse(request, err);
        return;
    }
    q->producing = true;
    sl_map_add(&gateway->open, &q->by_id, q->query.id);
    gateway->callers++;
    sl_http_body_release(request->exchange);
    sl_http_on_gone(request->exchange, on_gone, q);
    sl_timer_start(gateway->loop, &q->deadline, q->query.timeout_ms + LATE_MS, on_deadline);
}
