/*
 * The life of an open query.
 *
 *   start      open_start.c: produced, in the map, Redis knows that this gateway is attached to it
 *   accepted   the broker's acknowledgement, or an event that overtook it
 *   events     decoded once, given to each caller that is fed from where they came
 *   ended      the live caller has its end (caller.c), which 250 ms after the deadline is the
 *              gateway's own if nobody else stored an ending (expiry.c); a second later without
 *              one; or a failed produce
 *   freed      when no caller is left and the producer has reported
 *
 * A caller that comes from elsewhere, or a second time, joins: the query that is in the map, or one
 * that is made for it. Such a query is not this gateway's. It has no live caller, so it is over
 * when its callers are, and an ending that does not come is told to them and not stored. All that
 * join are fed by a replay (replay.h) from the place that was noted before the job was produced.
 *
 * When the last caller has left before the end the query is cancelled at once, after its grace or
 * never, as it asked; Redis knows whether other gateways have callers for it. One that this gateway
 * let in stays in the map until its ending comes, since until then it is work in flight.
 */
#include "workers/gateway/open_query.h"

#include "common/clock.h"
#include "common/log.h"
#include "workers/gateway/expiry.h"
#include "workers/gateway/idempotent.h"
#include "workers/gateway/replay.h"

#include <assert.h>
#include <stdlib.h>

enum {
    ARENA_MAX = 4 << 20,
    LATE_MS = 250,     /* After the deadline: workers that live were faster. */
    OVERDUE_MS = 200,  /* From there: for an ending to be stored and to come through the log. */
    UNREAD_MS = 10000, /* From there: for a log to be read again that Kafka does not give. */
};

/* --- the end of it all --- */

static void detach(struct open_query *q)
{
    if (q->attached) {
        q->attached = false;
        sl_detach(q->gateway->coord, &q->attachment);
    }
}

static void note_ended(struct open_query *q)
{
    if (!q->ended) {
        q->ended = true;
        q->gateway->in_flight--;
        sl_timer_stop(q->gateway->loop, &q->grace);
        detach(q);
    }
}

void open_query_free(struct open_query *q)
{
    struct gateway *gateway = q->gateway;
    note_ended(q);
    SL_LIST_EACH_SAFE(node, &q->callers)
    {
        caller_free(SL_ITEM(node, struct caller, in_query));
    }
    sl_timer_stop(gateway->loop, &q->deadline);
    sl_map_remove(&gateway->open, &q->by_id);
    idempotent_free(q->key);
    sl_arena_fini(&q->arena);
    free(q);
}

void open_query_tidy(struct open_query *q)
{
    SL_LIST_EACH_SAFE(node, &q->callers)
    {
        struct caller *caller = SL_ITEM(node, struct caller, in_query);
        if (caller->ended && caller->request.exchange == NULL) {
            q->live = caller == q->live ? NULL : q->live;
            caller_free(caller);
        }
    }
    if (sl_list_empty(&q->callers) && !q->producing && !sl_timer_active(&q->grace)) {
        open_query_free(q);
    }
}

void open_query_free_all(struct gateway *gateway)
{
    struct sl_map_node *node = sl_map_next(&gateway->open, NULL);
    while (node != NULL) {
        struct sl_map_node *next = sl_map_next(&gateway->open, node);
        open_query_free(SL_ITEM(node, struct open_query, by_id));
        node = next;
    }
}

/* --- callers leave --- */

static void cancel(struct open_query *q)
{
    int err = sl_coord_cancel(q->gateway->coord, q->query.id, NULL, NULL);
    if (err != 0) {
        sl_log(SL_LOG_WARN, "a query could not be cancelled", SL_SPANF("id", q->query.id),
               SL_ERR(err));
    }
}

/* For good: cancels it unless another gateway has callers for it. */
static void leave(struct open_query *q)
{
    if (q->attached) {
        q->attached = false;
        sl_detach_leave(q->gateway->coord, &q->attachment);
    }
}

static void on_grace(struct sl_timer *timer)
{
    struct open_query *q = SL_ITEM(timer, struct open_query, grace);
    leave(q);
    open_query_tidy(q);
}

static void stop_listening(struct open_query *q, struct caller *caller)
{
    if (!caller->listening) {
        return;
    }
    int64_t policy_ms = q->attachment.place.policy_ms;
    caller->listening = false;
    q->listening--;
    q->gateway->listening--;
    if (q->listening > 0 || q->ended || !q->attached) {
        return;
    }
    if (policy_ms == 0) {
        leave(q);
    } else if (policy_ms > 0) {
        sl_timer_start(q->gateway->loop, &q->grace, (uint64_t)policy_ms, on_grace);
    }
}

void open_query_caller_gone(struct open_query *q, struct caller *caller)
{
    stop_listening(q, caller);
    open_query_tidy(q);
}

void open_query_caller_lost(struct open_query *q, struct caller *caller)
{
    if (caller == q->live && !caller->left && q->attachment.place.policy_ms == 0) {
        cancel(q); /* Nobody will see the rest. */
    }
}

/* How long the query took, and how much longer than its stages worked. */
static void note_times(struct open_query *q, const struct sl_event *event)
{
    double work_s = 0, total_s = (double)(sl_clock_now_us() - q->live->opened_us) / 1e6;
    if (event->type == SL_EVENT_DONE && event->query != NULL) {
        for (size_t i = 0; i < SL_STAGE_COUNT; i++) {
            work_s += (double)event->query->stages[i].work_ms / 1000;
        }
        sl_histogram_observe(q->gateway->metrics.total, total_s);
        sl_histogram_observe(q->gateway->metrics.overhead, total_s > work_s ? total_s - work_s : 0);
    }
}

/* The end of a caller that is fed by a replay is the query's only where it was in the log, or where
 * nothing more is to be expected: a stream that broke is still being written. */
void open_query_caller_ended(struct open_query *q, struct caller *caller,
                             const struct sl_event *event)
{
    if (caller == q->live) {
        sl_counter_add(q->gateway->metrics.outcomes[event->result->outcome], 1);
        note_times(q, event);
        note_ended(q);
    } else if (q->live == NULL && event != NULL && !caller->broken) {
        note_ended(q);
    }
    stop_listening(q, caller);
}

/* --- acceptance --- */

void open_query_attach(struct open_query *q)
{
    if (q->attached || q->ended) {
        return;
    }
    q->attached = true;
    sl_attach(q->gateway->coord, &q->attachment);
}

/* The job never came into the log, as far as is known. A report of failure may be wrong (the
 * acknowledgement was lost), so the query is cancelled too. */
static void fail_produce(struct open_query *q, int err)
{
    static const char why[] = "Kafka did not take the query";
    const struct sl_result result = {
        .outcome = SL_FAILED, .code = SL_QERR_OVERLOADED, .message = sl_span_of(why)};
    const struct failure failure = {.status = 503, .code = "overloaded", .message = why};
    bool accepted = false;
    SL_LIST_EACH(node, &q->callers)
    {
        accepted = accepted || SL_ITEM(node, struct caller, in_query)->accepted;
    }
    if (accepted || q->ended || q->gateway->stopping) {
        return;
    }
    sl_log(SL_LOG_WARN, "a query was not produced", SL_SPANF("id", q->query.id), SL_ERR(err));
    cancel(q);
    SL_LIST_EACH(each, &q->callers)
    {
        struct caller *caller = SL_ITEM(each, struct caller, in_query);
        if (caller == q->live) {
            caller_end(caller, &result);
        } else if (!caller->ended) {
            caller_fail(caller, &failure);
        }
    }
}

void open_query_delivered(void *ctx, int err, int32_t partition, int64_t offset)
{
    struct open_query *q = ctx;
    q->producing = false;
    idempotent_settle(q->key, err == 0);
    q->key = NULL;
    if (err != 0) {
        fail_produce(q, err);
    } else {
        q->query.source_topic = sl_span_of(q->gateway->queries_topic);
        q->query.source_partition = partition;
        q->query.source_offset = offset;
        if (q->live != NULL) {
            caller_accept(q->live);
        }
    }
    open_query_tidy(q);
}

/* --- the deadline --- */

static struct sl_result expired(void)
{
    return (struct sl_result){.outcome = SL_EXPIRED,
                              .code = SL_QERR_TIMEOUT,
                              .message = SL_SPAN("the deadline passed before the query ended"),
                              .stage = SL_SPAN("gateway")};
}

/* Callers that are not at the end of the log may still find the ending in it, but not for ever. */
static void expire(struct open_query *q, bool all)
{
    const struct sl_result result = expired();
    SL_LIST_EACH(node, &q->callers)
    {
        struct caller *caller = SL_ITEM(node, struct caller, in_query);
        if (!caller->ended && !caller->seeking && (caller == q->live || caller->caught_up || all)) {
            caller_end(caller, &result);
        }
    }
}

static void on_unread(struct sl_timer *timer)
{
    struct open_query *q = SL_ITEM(timer, struct open_query, deadline);
    expire(q, true);
    open_query_tidy(q);
}

/* The ending that counts did not come from the log: Kafka or Redis is away. */
static void on_overdue(struct sl_timer *timer)
{
    struct open_query *q = SL_ITEM(timer, struct open_query, deadline);
    q->overdue = true;
    sl_timer_start(q->gateway->loop, &q->deadline, UNREAD_MS, on_unread);
    expire(q, false);
    open_query_tidy(q);
}

/* 250 ms after the deadline: nobody else seems to have ended it, so the gateway that produced it
 * does. Callers are told what comes back in the log, since somebody may have been faster by a
 * little. */
static void on_deadline(struct sl_timer *timer)
{
    struct open_query *q = SL_ITEM(timer, struct open_query, deadline);
    const struct sl_result result = expired();
    if (q->ours && !q->ended) {
        expiry_start(q->gateway, &q->query, &result);
    }
    sl_timer_start(q->gateway->loop, &q->deadline, OVERDUE_MS, on_overdue);
}

void open_query_watch(struct open_query *q)
{
    int64_t left_ms = q->attachment.place.deadline_ms - sl_coord_now_ms(q->gateway->coord);
    sl_timer_start(q->gateway->loop, &q->deadline, (left_ms > 0 ? (uint64_t)left_ms : 0) + LATE_MS,
                   on_deadline);
}

void open_query_caught_up(struct open_query *q, struct caller *caller)
{
    const struct sl_result result = expired();
    caller_caught_up(caller);
    if (q->overdue && !caller->ended && !caller->seeking) {
        caller_end(caller, &result);
    }
    open_query_tidy(q);
}

/* --- records --- */

static int decode(const struct open_query *q, struct sl_span bytes, struct sl_arena *arena,
                  struct sl_event *event)
{
    sl_arena_init(arena, ARENA_MAX);
    int err = sl_event_decode(bytes, arena, event);
    err = err == 0 && !sl_span_equal(event->id, q->query.id) ? -SL_EBADMSG : err;
    if (err != 0) {
        sl_log(SL_LOG_WARN, "an event is not readable", SL_SPANF("id", q->query.id), SL_ERR(err));
    }
    return err;
}

void open_query_live(struct open_query *q, struct sl_span bytes)
{
    struct sl_arena arena;
    struct sl_event event;
    if (q->live == NULL || q->live->ended) {
        return;
    }
    if (decode(q, bytes, &arena, &event) == 0) {
        caller_accept(q->live); /* It may have overtaken the acknowledgement. */
        caller_take(q->live, &event, bytes);
    }
    sl_arena_fini(&arena);
    open_query_tidy(q);
}

static bool wants(const struct caller *caller, const struct sl_record *record)
{
    return caller->log != NULL && caller->fed &&
           record->partition == replay_partition(caller->log) && record->offset >= caller->position;
}

void open_query_replayed(struct open_query *q, const struct sl_record *record, struct sl_span bytes)
{
    struct sl_arena arena;
    struct sl_event event;
    bool decoded = false;
    int err = 0;
    SL_LIST_EACH(node, &q->callers)
    {
        struct caller *caller = SL_ITEM(node, struct caller, in_query);
        if (!wants(caller, record)) { /* Which ends when all of the record was given: replay.c. */
            continue;
        }
        err = decoded ? err : decode(q, bytes, &arena, &event);
        decoded = true;
        if (err == 0) {
            caller_take(caller, &event, bytes);
        }
    }
    if (decoded) {
        sl_arena_fini(&arena);
        open_query_tidy(q);
    }
}
