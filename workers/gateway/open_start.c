/*
 * How a query comes to be open here: a request of its own, which is produced (start); another
 * gateway's, which died with it before it was produced for certain (take over); or one that runs or
 * has ended anywhere (join).
 *
 * What is told to Redis is not awaited. A query is produced with its deadline and with the place
 * where its events will be: the live reader's next position, since no event of a job that is not
 * yet written can lie before it.
 */
#include "workers/gateway/open_query.h"

#include "common/ending.h"
#include "common/log.h"
#include "workers/gateway/idempotent.h"
#include "workers/gateway/replay.h"
#include "workers/gateway/replies.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

enum { ARENA_MAX = 4 << 20 };

struct sl_place open_query_place(const struct gateway *gateway, const struct sl_query *parsed)
{
    static const int64_t policies[] = {
        [SL_DISCONNECT_CANCEL] = 0, [SL_DISCONNECT_CONTINUE] = SL_POLICY_CONTINUE};
    return (struct sl_place){.partition = replies_partition(gateway->replies),
                             .offset = replies_next(gateway->replies),
                             .deadline_ms = sl_coord_now_ms(gateway->coord) + parsed->timeout_ms,
                             .policy_ms = parsed->on_disconnect == SL_DISCONNECT_GRACE
                                              ? parsed->grace_ms
                                              : policies[parsed->on_disconnect]};
}

static const struct failure cannot_accept = {
    .status = 503, .code = "overloaded", .message = "the query could not be accepted now"};
static const struct failure too_large = {
    .status = 413, .code = "request_too_large", .message = "the query is too large for its topic"};

static void refuse(const struct request *request, int err)
{
    sl_log(SL_LOG_WARN, "a query was not accepted", SL_STR("id", request->id), SL_ERR(err));
    respond_failure(request, err == -SL_ETOOBIG ? &too_large : &cannot_accept);
}

/* In the map, without callers; NULL: no memory. */
static struct open_query *create(struct gateway *gateway, const char *id,
                                 const struct sl_place *place)
{
    struct open_query *q = calloc(1, sizeof(*q));
    if (q == NULL) {
        return NULL;
    }
    sl_arena_init(&q->arena, ARENA_MAX);
    struct sl_span kept = sl_arena_copy(&q->arena, sl_span_of(id));
    if (kept.data == NULL) {
        sl_arena_fini(&q->arena);
        free(q);
        return NULL;
    }
    q->gateway = gateway;
    sl_list_init(&q->callers);
    q->query.id = kept;
    q->query.tenant = SL_SPAN("default");
    q->query.deadline_ms = place->deadline_ms;
    q->query.reply_topic = sl_span_of(gateway->replies_topic);
    q->query.reply_partition = place->partition;
    q->attachment.id = kept;
    q->attachment.place = *place;
    gateway->in_flight++;
    sl_map_add(&gateway->open, &q->by_id, kept);
    open_query_watch(q);
    return q;
}

/* What an ending needs of the query, if this gateway has to write one. */
static int keep(struct open_query *q, const struct sl_query *parsed)
{
    struct sl_query *query = &q->query;
    const struct sl_query routed = *query;
    *query = *parsed;
    query->history = NULL;
    query->history_len = 0;
    query->filter = NULL;
    query->filter_len = 0;
    query->extra = (struct sl_span){0};
    query->query = sl_arena_copy(&q->arena, parsed->query);
    query->collection = sl_arena_copy(&q->arena, parsed->collection);
    query->model = sl_arena_copy(&q->arena, parsed->model);
    query->traceparent = sl_arena_copy(&q->arena, parsed->traceparent);
    query->id = routed.id;
    query->tenant = routed.tenant;
    query->json = false;
    query->accepted_ms = routed.deadline_ms - parsed->timeout_ms;
    query->deadline_ms = routed.deadline_ms;
    query->reply_topic = routed.reply_topic;
    query->reply_partition = routed.reply_partition;
    q->ours = true;
    return query->query.data == NULL || query->collection.data == NULL ||
                   query->model.data == NULL || query->traceparent.data == NULL
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
    job.reply_bundles = true;
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
    err = err != 0 ? err : sl_producer_send(gateway->producer, &record, open_query_delivered, q);
    q->producing = err == 0;
    return err;
}

static struct caller *add_caller(struct open_query *q, const struct intake *intake)
{
    struct caller *caller = caller_create(q, intake);
    if (caller != NULL) {
        sl_list_push(&q->callers, &caller->in_query);
    }
    return caller;
}

static void listen(struct open_query *q, struct caller *caller)
{
    caller->listening = true;
    q->listening++;
    q->gateway->listening++;
    sl_timer_stop(q->gateway->loop, &q->grace);
    caller_listen(caller);
}

void open_query_start(struct gateway *gateway, const struct intake *intake, struct idempotent *key)
{
    const struct sl_place place =
        key != NULL ? *idempotent_place(key) : open_query_place(gateway, &intake->query);
    struct open_query *q = create(gateway, intake->request.id, &place);
    struct caller *caller = q != NULL ? add_caller(q, intake) : NULL;
    int err = caller == NULL ? -SL_ENOMEM : keep(q, &intake->query);
    err = err != 0 ? err : produce(q, &intake->query);
    if (err != 0) {
        refuse(&intake->request, err);
        idempotent_settle(key, false);
        if (q != NULL) {
            open_query_free(q);
        }
        return;
    }
    q->key = key;
    q->live = caller;
    open_query_attach(q);
    listen(q, caller);
}

/* --- those that are read from the log --- */

static struct open_query *find(const struct gateway *gateway, const char *id)
{
    struct sl_map_node *node = sl_map_find(&gateway->open, sl_span_of(id));
    return node != NULL ? SL_ITEM(node, struct open_query, by_id) : NULL;
}

/* A caller of q that begins at the query's place; or it was answered that there is no room. */
static struct caller *replay_to(struct open_query *q, const struct intake *intake)
{
    struct caller *caller = add_caller(q, intake);
    if (caller == NULL) {
        return NULL;
    }
    caller->replayed = true;
    caller->position = q->attachment.place.offset;
    if (replay_add(q->gateway->replay, caller, q->attachment.place.partition) != 0) {
        caller_free(caller);
        return NULL;
    }
    listen(q, caller);
    return caller;
}

void open_query_join(struct gateway *gateway, const struct intake *intake,
                     const struct sl_place *place, const struct resume_point *point)
{
    struct open_query *q = find(gateway, intake->request.id);
    q = q != NULL ? q : create(gateway, intake->request.id, place);
    struct caller *caller = q != NULL ? replay_to(q, intake) : NULL;
    if (caller == NULL) {
        refuse(&intake->request, -SL_ENOMEM);
    } else if (point == NULL) {
        open_query_attach(q);
    } else if (point->given) {
        caller->seeking = true;
        caller->last_attempt = point->attempt;
        caller->last_seq = point->seq;
    }
    if (q != NULL) {
        open_query_tidy(q);
    }
}

void open_query_take_over(struct gateway *gateway, const struct intake *intake,
                          struct idempotent *key)
{
    struct open_query *q = find(gateway, intake->request.id);
    q = q != NULL ? q : create(gateway, intake->request.id, idempotent_place(key));
    struct caller *caller = q != NULL ? replay_to(q, intake) : NULL;
    bool done = q != NULL && (q->producing || q->live != NULL); /* By an earlier request here. */
    int err = caller == NULL ? -SL_ENOMEM : 0;
    if (err == 0 && !done) {
        err = keep(q, &intake->query);
        err = err != 0 ? err : produce(q, &intake->query);
    }
    if (err == 0) {
        open_query_attach(q);
    } else if (caller != NULL) {
        caller_fail(caller, &cannot_accept);
    } else {
        refuse(&intake->request, err);
    }
    if (err == 0 && !done) {
        q->key = key;
    } else {
        idempotent_settle(key, err == 0);
    }
    if (q != NULL) {
        open_query_tidy(q);
    }
}
