/*
 * What one caller gets.
 *
 *   accepted   the query is known to be in the log: a stream's head goes out
 *   events     the sources first (early.h), through the reader's rules (order.h), to the caller's
 *              format
 *   ended      the first terminal event in the log, or a broken sequence, or the gateway's own
 *              ending: the last bytes are written, the line in the log says how it went
 *
 * A caller that comes back names the last event that it has. The events up to that one are taken,
 * since the rules need them, and not written; where the log ends without it, a second is waited (an
 * event that was seen elsewhere may not have come this far), then it is an unknown one. The rules
 * are pure, so a caller that comes back sees what it would have seen, errors of this side included.
 *
 * A caller that leaves before the end gets nothing more and tells its query, which decides what
 * that means. The one that opened the query goes on taking events all the same, because its order
 * is how the query's end is known.
 */
#include "workers/gateway/caller.h"

#include "common/clock.h"
#include "common/log.h"
#include "common/sse.h"
#include "workers/gateway/open_query.h"
#include "workers/gateway/query_id.h"
#include "workers/gateway/replay.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    ARENA_MAX = 4 << 20,
    OUT_MAX = 16 << 20,
    OUT_KEPT = 2048, /* Of an empty buffer, from one flush to the next. */
    KEEP_ALIVE_MS = 15000,
    UNREAD_MS = 10000, /* Until anything of the log was there. */
    UNKNOWN_MS = 1000, /* From its end on. */
    HELD_MAX = 4 << 20,
    HELD_MS = 10,
    EARLY_MS = 2000, /* That tokens wait for sources that they have overtaken. */
};

static void on_idle(struct sl_timer *timer);
static void on_held(struct sl_timer *timer);
static void give_early(struct caller *caller);

/* --- the ledger: what callers were given, for those who check it --- */

static void note(const struct caller *caller, const char *message)
{
    if (sl_log_wants(SL_LOG_DEBUG)) {
        sl_log(SL_LOG_DEBUG, message, SL_SPANF("id", caller->q->query.id),
               SL_STR("request_id", caller->request.request_id),
               SL_STR("fed", caller->replayed ? "replay" : "live"),
               SL_INT("mono_ns", sl_clock_now_us() * 1000));
    }
}

static void note_event(const struct caller *caller, const struct sl_event *event)
{
    if (sl_log_wants(SL_LOG_DEBUG)) {
        sl_log(SL_LOG_DEBUG, "event", SL_SPANF("id", caller->q->query.id),
               SL_STR("request_id", caller->request.request_id), SL_INT("attempt", event->attempt),
               SL_INT("seq", event->seq), SL_STR("type", sl_event_type_text(event->type)),
               SL_STR("fed", caller->replayed ? "replay" : "live"),
               SL_INT("mono_ns", sl_clock_now_us() * 1000));
    }
}

/* --- writing --- */

/* An event could not be put together: a stream may not have a hole, so it ends here. */
static void break_off(struct caller *caller)
{
    const struct sl_span last =
        SL_SPAN("event: error\ndata: {\"error\":{\"message\":\"the stream could not be written\","
                "\"type\":\"server_error\",\"param\":null,\"code\":\"internal\"}}\n\n"
                "data: [DONE]\n\n");
    caller->cut = true;
    if (sl_http_stream_write(caller->request.exchange, last) == 0) {
        sl_http_stream_end(caller->request.exchange);
    }
}

/* A log that is read again comes faster than many a reader takes it: what a live caller would be
 * closed for is held for a while instead. */
static bool hold(struct caller *caller)
{
    if (!caller->replayed || caller->cut || caller->out.len == 0 || caller->out.len > HELD_MAX ||
        sl_http_write_queue(caller->request.exchange) == 0) {
        return false;
    }
    sl_timer_start(caller->gateway->loop, &caller->held, HELD_MS, on_held);
    return true;
}

static void flush(struct caller *caller)
{
    sl_task_cancel(&caller->flush);
    sl_timer_stop(caller->gateway->loop, &caller->held); /* Else the end could come twice. */
    if (sl_buf_error(&caller->out) != 0 && !caller->cut) {
        break_off(caller);
    } else if (hold(caller)) {
        return;
    } else if (caller->out.len > 0 && !caller->cut) {
        caller->cut =
            sl_http_stream_write(caller->request.exchange, sl_buf_span(&caller->out)) != 0;
        caller->written_ms = sl_loop_now_ms(caller->gateway->loop);
    }
    if (caller->ended && !caller->cut) {
        sl_http_stream_end(caller->request.exchange);
    }
    if (caller->out.cap > OUT_KEPT) {
        sl_buf_fini(&caller->out);
        sl_buf_init(&caller->out, OUT_MAX);
    }
    sl_buf_clear(&caller->out);
}

static void on_flush(struct sl_task *task)
{
    flush(SL_ITEM(task, struct caller, flush));
}

static void on_held(struct sl_timer *timer)
{
    flush(SL_ITEM(timer, struct caller, held));
}

struct sl_buf *caller_out(struct caller *caller)
{
    assert(caller->format->stream && caller->request.exchange != NULL);
    sl_task_defer(caller->gateway->loop, &caller->flush, on_flush);
    return &caller->out;
}

static void keep_alive_later(struct caller *caller)
{
    uint64_t idle_ms = sl_loop_now_ms(caller->gateway->loop) - caller->written_ms;
    uint64_t wait_ms = idle_ms < KEEP_ALIVE_MS ? KEEP_ALIVE_MS - idle_ms : KEEP_ALIVE_MS;
    sl_timer_start(caller->gateway->loop, &caller->idle, wait_ms, on_idle);
}

/* The caller was silent for a while: a comment keeps proxies from closing the connection. */
static void on_idle(struct sl_timer *timer)
{
    struct caller *caller = SL_ITEM(timer, struct caller, idle);
    if (sl_loop_now_ms(caller->gateway->loop) - caller->written_ms >= KEEP_ALIVE_MS) {
        sl_sse_write_comment(&caller->out, "keep-alive");
        flush(caller);
    }
    keep_alive_later(caller);
}

/* --- the caller leaves --- */

static void on_gone(void *ctx, bool complete)
{
    struct caller *caller = ctx;
    struct gateway *gateway = caller->gateway;
    (void)complete;
    caller->request.exchange = NULL;
    gateway->callers--;
    sl_timer_stop(gateway->loop, &caller->held);
    sl_task_cancel(&caller->flush);
    if (!caller->ended) {
        note(caller, "leave");
        caller->left = true;
        caller->ended = caller->replayed;
        sl_timer_stop(gateway->loop, &caller->idle);
        sl_buf_fini(&caller->out);
        sl_buf_fini(&caller->citations);
        replay_remove(gateway->replay, caller);
    }
    open_query_caller_gone(caller->q, caller);
    gateway_caller_gone(gateway);
}

static void on_unread(struct sl_timer *timer)
{
    static const struct failure unread = {.status = 503,
                                          .code = "overloaded",
                                          .message =
                                              "the query's events could not be read in time"};
    struct caller *caller = SL_ITEM(timer, struct caller, idle);
    struct open_query *q = caller->q;
    caller_fail(caller, &unread);
    open_query_tidy(q);
}

void caller_listen(struct caller *caller)
{
    if (caller->replayed) {
        sl_timer_start(caller->gateway->loop, &caller->idle, UNREAD_MS, on_unread);
    }
    caller->gateway->callers++;
    sl_http_body_release(caller->request.exchange);
    sl_http_on_gone(caller->request.exchange, on_gone, caller);
}

/* --- acceptance --- */

void caller_accept(struct caller *caller)
{
    if (caller->accepted || caller->ended) {
        return;
    }
    caller->accepted = true;
    sl_timer_stop(caller->gateway->loop, &caller->idle);
    note(caller, "accept");
    if (caller->listening) {
        open_query_attach(caller->q);
    }
    if (caller->request.exchange != NULL && caller->format->stream) {
        respond_stream(&caller->request);
        caller->written_ms = sl_loop_now_ms(caller->gateway->loop);
        keep_alive_later(caller);
    }
}

/* --- the end --- */

static void stop(struct caller *caller)
{
    caller->ended = caller->order.ended = true;
    sl_timer_stop(caller->gateway->loop, &caller->idle);
    replay_remove(caller->gateway->replay, caller);
}

static void note_end(struct caller *caller, const struct sl_result *result)
{
    uint64_t total_us = sl_clock_now_us() - caller->opened_us;
    uint64_t ttft_us = caller->first_text_us > 0 ? caller->first_text_us - caller->opened_us : 0;
    sl_log(SL_LOG_INFO, "query", SL_SPANF("id", caller->q->query.id),
           SL_STR("request_id", caller->request.request_id),
           SL_STR("path", route_path(caller->request.route)),
           SL_STR("outcome", sl_outcome_text(result->outcome)),
           SL_STR("code", sl_query_error_text(result->code)),
           SL_INT("status", caller->left                                 ? 499
                            : caller->format->stream && caller->accepted ? 200
                                                                         : status_of(result->code)),
           SL_INT("total_ms", total_us / 1000), SL_INT("ttft_ms", ttft_us / 1000),
           SL_STR("client", caller->left ? "left" : "there"));
}

/* What the caller gets when nothing of the answer was written. */
static void answer_failure(struct caller *caller, const struct sl_result *result)
{
    struct failure failure = {.status = status_of(result->code),
                              .code = sl_query_error_text(result->code),
                              .ran = caller->accepted};
    char message[512];
    snprintf(message, sizeof(message), SL_SPAN_FMT "%s" SL_SPAN_FMT, SL_SPAN_ARG(result->stage),
             result->stage.len > 0 ? ": " : "", SL_SPAN_ARG(result->message));
    failure.message = message;
    respond_failure(&caller->request, &failure);
}

/* has_it: the caller had the terminal event before. */
static void finish(struct caller *caller, const struct sl_event *event, bool has_it)
{
    stop(caller);
    note_end(caller, event->result);
    if (caller->request.exchange != NULL) {
        if (!has_it) {
            note_event(caller, event);
        }
        if (caller->format->stream && caller->accepted) {
            if (!has_it) {
                caller->format->end(caller, event);
            }
            sl_sse_write(&caller->out, NULL, NULL, SL_SPAN("[DONE]"));
            flush(caller);
        } else if (event->type == SL_EVENT_ERROR) {
            answer_failure(caller, event->result);
        } else {
            caller->format->end(caller, event);
        }
    }
    open_query_caller_ended(caller->q, caller, event);
}

void caller_fail(struct caller *caller, const struct failure *failure)
{
    stop(caller);
    if (caller->request.exchange != NULL && caller->accepted && caller->format->stream) {
        if (!caller->cut) {
            break_off(caller);
        }
    } else if (caller->request.exchange != NULL) {
        respond_failure(&caller->request, failure);
    }
    open_query_caller_ended(caller->q, caller, NULL);
}

static void fail_unknown(struct caller *caller)
{
    static const struct failure failure = {.status = 400,
                                           .code = "unknown_event_id",
                                           .param = "Last-Event-ID",
                                           .message = "the query has no event of this id"};
    caller_fail(caller, &failure);
}

/* --- events --- */

/* True: the event is one that the caller has already. */
static bool has(struct caller *caller, const struct sl_event *event)
{
    bool had = caller->seeking;
    if (had && event->attempt == caller->last_attempt && event->seq == caller->last_seq) {
        caller->seeking = false;
    }
    return had;
}

static void show(struct caller *caller, const struct sl_event *event, struct sl_span value)
{
    bool had = has(caller, event);
    if (!caller->seeking) {
        caller_accept(caller);
    }
    if (event->type == SL_EVENT_DELTA && caller->first_text_us == 0) {
        caller->first_text_us = sl_clock_now_us();
        if (!caller->replayed) {
            sl_histogram_observe(caller->gateway->metrics.ttft,
                                 (double)(caller->first_text_us - caller->opened_us) / 1e6);
        }
    }
    if (!had && caller->request.exchange != NULL && !caller->cut) {
        note_event(caller, event);
        caller->format->event(caller, event, value);
    }
}

static void show_end(struct caller *caller, const struct sl_event *event)
{
    bool had = has(caller, event);
    if (caller->seeking) {
        fail_unknown(caller);
        return;
    }
    if (caller->replayed) {
        caller_accept(caller);
    }
    finish(caller, event, had);
}

void caller_end(struct caller *caller, const struct sl_result *given)
{
    struct sl_result result = *given;
    give_early(caller);
    if (caller->ended) {
        return;
    }
    result.total_ms = (uint32_t)((sl_clock_now_us() - caller->opened_us) / 1000);
    struct sl_event event = {.type = SL_EVENT_ERROR,
                             .id = caller->q->query.id,
                             .attempt = caller->order.attempt,
                             .seq = caller->order.next_seq,
                             .query = &caller->q->query,
                             .result = &result};
    if (event.attempt == 0) { /* The sources were 0:0. */
        event.seq = caller->order.has_sources ? 1 : 0;
    }
    show_end(caller, &event);
}

/* An error ends the stream whoever sends it, at times a worker that took over and counts from 0 in
 * an attempt of its own. Its caller sees it where it stands: behind what was read. */
static struct sl_event in_place(const struct order *order, const struct sl_event *event)
{
    struct sl_event shown = *event;
    if (event->type != SL_EVENT_ERROR) {
        return shown;
    }
    if (order->attempt > 0) {
        shown.attempt = order->attempt;
        shown.seq = order->next_seq;
    } else if (event->attempt == 0) {
        shown.seq = order->has_sources ? 1 : 0;
    } else {
        shown.seq = 0;
    }
    return shown;
}

static void on_lost(struct caller *caller)
{
    const struct sl_result result = {
        .outcome = SL_FAILED,
        .code = SL_QERR_WORKER_LOST,
        .message = SL_SPAN("a part of the answer was lost with the worker that wrote it"),
        .stage = SL_SPAN("generate")};
    caller->broken = true;
    open_query_caller_lost(caller->q, caller);
    caller_end(caller, &result);
}

static bool take(void *ctx, const struct sl_event *event, struct sl_span value)
{
    struct caller *caller = ctx;
    switch (order_take(&caller->order, event)) {
    case ORDER_DROP:
        return true;
    case ORDER_LOST:
        on_lost(caller);
        return false;
    case ORDER_TAKE:
        break;
    }
    if (caller->order.ended) {
        struct sl_event shown = in_place(&caller->order, event);
        show_end(caller, &shown);
    } else {
        show(caller, event, value);
    }
    return !caller->ended;
}

/* What waits for the sources is given, whether they have come or not. */
static void give_early(struct caller *caller)
{
    sl_timer_stop(caller->gateway->loop, &caller->early_timer);
    if (early_any(&caller->early)) {
        early_give(&caller->early, take, caller);
    }
}

static void on_early(struct sl_timer *timer)
{
    struct caller *caller = SL_ITEM(timer, struct caller, early_timer);
    struct open_query *q = caller->q;
    give_early(caller);
    open_query_tidy(q);
}

void caller_take(struct caller *caller, const struct sl_event *event, struct sl_span value)
{
    if (caller->format->stream && early_keep(&caller->early, &caller->order, event, value)) {
        if (!sl_timer_active(&caller->early_timer)) {
            sl_timer_start(caller->gateway->loop, &caller->early_timer, EARLY_MS, on_early);
        }
        return;
    }
    if (event->type != SL_EVENT_SOURCES) {
        give_early(caller);
    }
    if (!caller->ended && take(caller, event, value)) {
        give_early(caller);
    }
}

static void on_unknown(struct sl_timer *timer)
{
    struct caller *caller = SL_ITEM(timer, struct caller, idle);
    struct open_query *q = caller->q;
    give_early(caller);
    if (caller->seeking && !caller->ended) {
        fail_unknown(caller);
    }
    open_query_tidy(q);
}

void caller_caught_up(struct caller *caller)
{
    bool first = !caller->caught_up;
    caller->caught_up = true;
    if (!caller->seeking) {
        caller_accept(caller);
    } else if (first) {
        sl_timer_start(caller->gateway->loop, &caller->idle, UNKNOWN_MS, on_unknown);
    }
}

/* --- life --- */

struct caller *caller_create(struct open_query *q, const struct intake *intake)
{
    struct caller *caller = calloc(1, sizeof(*caller));
    if (caller == NULL) {
        return NULL;
    }
    caller->gateway = q->gateway;
    caller->q = q;
    caller->request = intake->request;
    caller->format = intake->format;
    caller->opened_us = sl_clock_now_us();
    sl_list_init(&caller->in_query);
    sl_list_init(&caller->in_log);
    sl_arena_init(&caller->arena, ARENA_MAX);
    early_init(&caller->early);
    sl_buf_init(&caller->out, OUT_MAX);
    sl_buf_init(&caller->citations, OUT_MAX);
    if (intake->is_chat) {
        int64_t time_ms = query_id_time_ms(q->query.id); /* The same for all callers. */
        caller->chat = intake->chat;
        caller->chat.created_s = (time_ms >= 0 ? time_ms : sl_clock_unix_ms()) / 1000;
        caller->chat.id = q->query.id;
        caller->chat.model = sl_arena_copy(&caller->arena, intake->chat.model);
    } else if (!intake->format->stream) {
        caller->question = sl_arena_copy(&caller->arena, intake->query.query);
    }
    if (intake->is_chat ? caller->chat.model.data == NULL
                        : !intake->format->stream && caller->question.data == NULL) {
        caller_free(caller);
        return NULL;
    }
    return caller;
}

void caller_free(struct caller *caller)
{
    replay_remove(caller->gateway->replay, caller);
    sl_timer_stop(caller->gateway->loop, &caller->idle);
    sl_timer_stop(caller->gateway->loop, &caller->held);
    sl_timer_stop(caller->gateway->loop, &caller->early_timer);
    early_fini(&caller->early);
    sl_task_cancel(&caller->flush);
    sl_list_remove(&caller->in_query);
    sl_buf_fini(&caller->out);
    sl_buf_fini(&caller->citations);
    sl_arena_fini(&caller->arena);
    free(caller);
}
