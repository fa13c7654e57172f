/*
 * What became of a query.
 *
 *   LOOKING   Redis is asked. Unless the query has ended and its result is in the log, what it says
 *             is the answer
 *   READING   the result's record is read, at the offset that the worker noted who wrote it
 *   ANSWERED  until the exchange is over
 *
 * All that read share one follower of the results topic, which has a client only once it is needed
 * and follows a partition only while somebody waits for a record of it. Who came first decides
 * where a partition is read; others get their record if it comes along, else when it is their turn.
 *
 * What can go wrong: retention was faster (410); the log does not hold what Redis says, because one
 * of them was restored from an older state (410 too: asking again does not help); Kafka does not
 * give it in time, or too many ask (503). A caller who leaves is forgotten at once, or, if Redis
 * has not answered, when it has.
 */
#include "workers/gateway/status.h"

#include "common/attach.h"
#include "common/codec_sink.h"
#include "common/ending.h"
#include "common/kafka_follow.h"
#include "common/log.h"
#include "workers/gateway/query_id.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    WAITING_MAX = 256,
    READ_MS = 5000,
    AHEAD_MAX = 64, /* Records that are read past rather than left out by a new start. */
    BODY_MAX = 32 << 20,
};

struct status {
    struct gateway *gateway;
    struct sl_follower *follower;
    struct sl_list reading; /* Lookups, in the order in which they came. */
    size_t count;           /* Lookups that are not answered. */
    bool giving;            /* A record is given to who wants it: no steering in between. */
};

struct lookup {
    struct status *status;
    struct request request; /* exchange NULL: the caller has gone, or has everything. */
    enum { LOOKING, READING, ANSWERED } state;
    int32_t partition; /* READING: where the result is. */
    int64_t offset;
    bool missing; /* The log has ended before it once. */
    struct sl_timer timeout;
    struct sl_list node; /* READING: in the status' list. */
};

static void steer(struct status *status, int32_t partition);

/* --- the end of a lookup --- */

/* It waits for nothing any more. The partition that was read for it may be left. */
static void settle(struct lookup *lookup)
{
    struct status *status = lookup->status;
    bool was_reading = lookup->state == READING;
    lookup->state = ANSWERED;
    status->count--;
    sl_timer_stop(status->gateway->loop, &lookup->timeout);
    sl_list_remove(&lookup->node);
    if (was_reading && !status->giving) {
        steer(status, lookup->partition);
    }
}

static void on_gone(void *ctx, bool complete)
{
    struct lookup *lookup = ctx;
    struct gateway *gateway = lookup->status->gateway;
    (void)complete;
    lookup->request.exchange = NULL;
    gateway->callers--;
    if (lookup->state == READING) {
        settle(lookup);
    }
    if (lookup->state == ANSWERED) { /* Else Redis still has to answer. */
        free(lookup);
    }
    gateway_caller_gone(gateway);
}

/* --- the result --- */

/* MessagePack as JSON text. */
static int convert(struct sl_span bytes, struct sl_buf *out)
{
    struct sl_value value;
    struct sl_sink sink;
    int err = sl_value_of_msgpack(bytes, &value);
    if (err == 0) {
        sl_sink_init(&sink, out, true);
        err = sl_sink_value(&sink, &value);
    }
    return err != 0 ? err : sl_buf_error(out);
}

static void respond_result(const struct request *request, const struct sl_record *record)
{
    const struct failure failure = {
        .status = 500, .code = "internal", .message = "the result cannot be read", .ran = true};
    struct sl_buf body;
    if (sl_route_json(record)) {
        respond_json(request, 200, record->value);
        return;
    }
    sl_buf_init(&body, BODY_MAX);
    if (convert(record->value, &body) == 0) {
        respond_json(request, 200, sl_buf_span(&body));
    } else {
        respond_failure(request, &failure);
    }
    sl_buf_fini(&body);
}

static void answer(struct lookup *lookup, const struct sl_record *record)
{
    struct request request = lookup->request;
    settle(lookup);
    struct sl_span id = record != NULL ? sl_record_header(record, "sluice-id") : SL_SPAN("");
    if (sl_span_is(id, request.id)) {
        respond_result(&request, record);
    } else {
        query_id_respond_gone(&request);
    }
}

/* Who decides where the partition is read: the first whose record should be there. */
static struct lookup *first_of(struct status *status, int32_t partition)
{
    struct lookup *first = NULL;
    SL_LIST_EACH(node, &status->reading)
    {
        struct lookup *lookup = SL_ITEM(node, struct lookup, node);
        if (lookup->partition == partition && (first == NULL || !lookup->missing)) {
            first = lookup;
            if (!lookup->missing) {
                break;
            }
        }
    }
    return first;
}

static void steer(struct status *status, int32_t partition)
{
    const char *topic = status->gateway->results_topic;
    struct lookup *first = first_of(status, partition);
    if (first == NULL) {
        sl_follower_remove(status->follower, topic, partition);
        return;
    }
    int64_t position = sl_follower_position(status->follower, topic, partition);
    if (position >= 0 && first->offset - position > AHEAD_MAX) {
        sl_follower_remove(status->follower, topic, partition);
    }
    if (sl_follower_add(status->follower, topic, partition, first->offset) != 0) {
        struct request request = first->request;
        settle(first); /* Tries again for the next. */
        respond_overloaded(&request, "the result could not be read from Kafka");
    }
}

/* --- what the follower tells --- */

static void on_record(void *ctx, const struct sl_record *record)
{
    struct status *status = ctx;
    const struct lookup *first = first_of(status, record->partition);
    bool moves = false;
    status->giving = true;
    SL_LIST_EACH_SAFE(node, &status->reading)
    {
        struct lookup *lookup = SL_ITEM(node, struct lookup, node);
        bool is_its = lookup->partition == record->partition && lookup->offset == record->offset;
        if (is_its || (lookup == first && lookup->offset < record->offset)) {
            moves = moves || lookup == first;
            answer(lookup, is_its ? record : NULL); /* Passed: the log does not hold its record. */
        }
    }
    status->giving = false;
    if (moves) {
        steer(status, record->partition);
    }
}

/* What is noted is in the log, so what is missing at its end may still come into sight. Meanwhile
 * it holds nobody up. */
static void on_end(void *ctx, const char *topic, int32_t partition, int64_t next)
{
    struct status *status = ctx;
    (void)topic;
    SL_LIST_EACH(node, &status->reading)
    {
        struct lookup *lookup = SL_ITEM(node, struct lookup, node);
        lookup->missing =
            lookup->missing || (lookup->partition == partition && lookup->offset >= next);
    }
    steer(status, partition);
}

static void on_out_of_range(void *ctx, const char *topic, int32_t partition, int64_t offset,
                            int64_t low)
{
    struct status *status = ctx;
    struct lookup *first = first_of(status, partition);
    (void)topic;
    (void)low;
    if (first != NULL && first->offset == offset) {
        answer(first, NULL);
    } else {
        steer(status, partition);
    }
}

static void on_error(void *ctx, bool fatal, const char *why)
{
    const struct status *status = ctx;
    sl_log(fatal ? SL_LOG_ERROR : SL_LOG_WARN, "kafka", SL_STR("why", why),
           SL_STR("variable", sl_kafka_variable(why)));
    if (fatal) {
        gateway_fail(status->gateway);
    }
}

static void on_timeout(struct sl_timer *timer)
{
    struct lookup *lookup = SL_ITEM(timer, struct lookup, timeout);
    struct request request = lookup->request;
    settle(lookup);
    respond_overloaded(&request, "the result did not come from Kafka in time");
}

static void read_result(struct lookup *lookup, int32_t partition, int64_t offset)
{
    struct status *status = lookup->status;
    lookup->state = READING;
    lookup->partition = partition;
    lookup->offset = offset;
    sl_list_push(&status->reading, &lookup->node);
    sl_timer_start(status->gateway->loop, &lookup->timeout, READ_MS, on_timeout);
    steer(status, partition);
}

/* --- what Redis knows --- */

/* An id, a state and the name of a stage or an outcome have nothing to escape. */
static void respond_state(const struct request *request, const struct sl_query_state *state)
{
    char body[256], stage[32] = "null";
    const char *word = state->end_acked          ? "ended"
                       : state->ended            ? "ending"
                       : state->cancelled        ? "cancelling"
                       : state->stage[0] != '\0' ? "running"
                                                 : "queued";
    if (state->stage[0] != '\0') {
        snprintf(stage, sizeof(stage), "\"%s\"", state->stage);
    }
    snprintf(body, sizeof(body), "{\"id\":\"%s\",\"state\":\"%s\",\"stage\":%s}", request->id, word,
             stage);
    respond_json(request, 200, sl_span_of(body));
}

static void on_state(void *ctx, int err, const struct sl_query_state *state)
{
    struct lookup *lookup = ctx;
    struct request request = lookup->request;
    struct gateway *gateway = lookup->status->gateway;
    if (request.exchange == NULL) {
        settle(lookup);
        free(lookup);
        return;
    }
    if (err == 0 && state->ended && state->end_acked && state->result_partition >= 0) {
        read_result(lookup, state->result_partition, state->result_offset);
        return;
    }
    settle(lookup);
    if (err != 0) {
        respond_overloaded(&request, "Redis does not say what became of this query");
    } else if (state->known) {
        respond_state(&request, state);
    } else {
        query_id_respond_unknown(gateway, &request);
    }
}

void status_start(struct status *status, const struct request *request)
{
    struct gateway *gateway = status->gateway;
    struct lookup *lookup = status->count < WAITING_MAX ? calloc(1, sizeof(*lookup)) : NULL;
    if (lookup == NULL) {
        respond_overloaded(request,
                           "as many queries as this gateway looks up at once are being looked up");
        return;
    }
    lookup->status = status;
    lookup->request = *request;
    sl_list_init(&lookup->node);
    if (sl_query_look(gateway->coord, sl_span_of(request->id), on_state, lookup) != 0) {
        free(lookup);
        respond_overloaded(request, "Redis could not be asked what became of this query");
        return;
    }
    status->count++;
    gateway->callers++;
    sl_http_on_gone(request->exchange, on_gone, lookup);
}

/* --- life --- */

int status_create(struct gateway *gateway, struct status **ret, char *why, size_t why_size)
{
    /* One record is wanted at a time: what is fetched behind it is fetched in vain, and a fetch
     * that waits at the end of the log holds up the next lookup. */
    static const char *const extra[] = {"fetch.message.max.bytes", "65536", "fetch.wait.max.ms",
                                        "5", NULL};
    static const struct sl_follower_callbacks callbacks = {on_record, on_end, on_out_of_range,
                                                           on_error};
    const struct sl_kafka_config config = {
        .brokers = gateway->process->brokers, .client_id = "gateway", .extra = extra};
    struct status *status = calloc(1, sizeof(*status));
    if (status == NULL) {
        return -SL_ENOMEM;
    }
    status->gateway = gateway;
    sl_list_init(&status->reading);
    int rv = sl_follower_create(gateway->loop, &config, &callbacks, status, &status->follower, why,
                                why_size);
    if (rv != 0) {
        free(status);
        return rv;
    }
    *ret = status;
    return 0;
}

void status_destroy(struct status *status)
{
    if (status == NULL) {
        return;
    }
    assert(status->count == 0);
    sl_follower_destroy(status->follower);
    free(status);
}
