/*
 * The logs that callers are fed from.
 *
 * A partition is followed while it has a caller. What callers want is collected until the end of
 * the turn, so that many who come at once, as they do when a gateway has died, make the follower go
 * back once, to the lowest of their positions. Until then
 * a caller is given nothing, since what comes is from where the others are. Going back gives the
 * others records that they have had: each caller knows its position, and a record that nobody wants
 * is not decoded.
 *
 * The follower tells when a partition's end is reached. A caller that begins at that end would hear
 * of it only after the next record, so the end is remembered and told to it at once.
 *
 * Where the log does not reach back to a position any more, the query is older than the log is
 * kept: its caller is told that it is gone. The others of that partition go on.
 */
#include "workers/gateway/replay.h"

#include "common/bundle.h"
#include "common/kafka_follow.h"
#include "common/log.h"
#include "workers/gateway/open_query.h"

#include <stdlib.h>

enum { CALLERS_MAX = 1024 };
#define NOT_WANTED INT64_MAX

struct replay_log {
    struct sl_list node;
    struct sl_list callers;
    int32_t partition;
    int64_t wanted; /* The lowest position of those who came this turn; NOT_WANTED: none did. */
    int64_t end;    /* The position at which the end was reached; -1: not yet. */
    bool followed;
};

struct replay {
    struct gateway *gateway;
    struct sl_follower *follower;
    struct sl_list logs;
    struct sl_task collect;
    size_t callers;
};

static void on_collect(struct sl_task *task);

static const struct failure gone = {
    .status = 410, .code = "gone", .message = "the events of this query are not kept any more"};
static const struct failure unreadable = {
    .status = 503, .code = "overloaded", .message = "the query's events cannot be read now"};

/* --- callers --- */

static struct replay_log *find(struct replay *replay, int32_t partition)
{
    SL_LIST_EACH(node, &replay->logs)
    {
        struct replay_log *log = SL_ITEM(node, struct replay_log, node);
        if (log->partition == partition) {
            return log;
        }
    }
    return NULL;
}

int replay_add(struct replay *replay, struct caller *caller, int32_t partition)
{
    struct replay_log *log = find(replay, partition);
    if (replay->callers == CALLERS_MAX) {
        return -SL_EAGAIN;
    }
    if (log == NULL) {
        log = calloc(1, sizeof(*log));
        if (log == NULL) {
            return -SL_ENOMEM;
        }
        log->partition = partition;
        log->end = -1;
        log->wanted = NOT_WANTED;
        sl_list_init(&log->callers);
        sl_list_push(&replay->logs, &log->node);
    }
    log->wanted = caller->position < log->wanted ? caller->position : log->wanted;
    caller->log = log;
    caller->fed = false;
    sl_list_push(&log->callers, &caller->in_log);
    replay->callers++;
    sl_task_defer(replay->gateway->loop, &replay->collect, on_collect);
    return 0;
}

void replay_remove(struct replay *replay, struct caller *caller)
{
    if (caller->log == NULL) {
        return;
    }
    sl_list_remove(&caller->in_log);
    replay->callers--;
    if (sl_list_empty(&caller->log->callers)) { /* Not from inside the follower's callbacks. */
        sl_task_defer(replay->gateway->loop, &replay->collect, on_collect);
    }
    caller->log = NULL;
}

int32_t replay_partition(const struct replay_log *log)
{
    return log->partition;
}

/* --- asking the follower --- */

static const char *topic(const struct replay *replay)
{
    return replay->gateway->replies_topic;
}

static int64_t lowest(const struct replay_log *log)
{
    int64_t offset = NOT_WANTED;
    SL_LIST_EACH(node, &log->callers)
    {
        const struct caller *caller = SL_ITEM(node, struct caller, in_log);
        offset = caller->position < offset ? caller->position : offset;
    }
    return offset;
}

static void fail(struct caller *caller, const struct failure *failure)
{
    struct open_query *q = caller->q;
    caller_fail(caller, failure);
    open_query_tidy(q);
}

static void follow(struct replay *replay, struct replay_log *log, int64_t offset)
{
    int err = sl_follower_add(replay->follower, topic(replay), log->partition, offset);
    log->followed = err == 0;
    if (err == 0) {
        return;
    }
    sl_log(SL_LOG_WARN, "replies cannot be read again", SL_INT("partition", log->partition),
           SL_ERR(err));
    SL_LIST_EACH_SAFE(node, &log->callers)
    {
        fail(SL_ITEM(node, struct caller, in_log), &unreadable);
    }
}

/* Nothing stands behind the follower's position: who begins there is at the end. */
static void tell_end(struct replay_log *log)
{
    SL_LIST_EACH_SAFE(node, &log->callers)
    {
        struct caller *caller = SL_ITEM(node, struct caller, in_log);
        if (!caller->caught_up && caller->position >= log->end) {
            open_query_caught_up(caller->q, caller);
        }
    }
}

/* What comes from now on is all that stands behind the callers' positions. */
static void feed(struct replay_log *log)
{
    SL_LIST_EACH(node, &log->callers)
    {
        SL_ITEM(node, struct caller, in_log)->fed = true;
    }
}

static void collect(struct replay *replay, struct replay_log *log)
{
    int64_t wanted = log->wanted;
    log->wanted = NOT_WANTED;
    if (sl_list_empty(&log->callers)) {
        if (log->followed) {
            sl_follower_remove(replay->follower, topic(replay), log->partition);
        }
        sl_list_remove(&log->node);
        free(log);
        return;
    }
    if (wanted == NOT_WANTED) {
        return;
    }
    int64_t at =
        log->followed ? sl_follower_position(replay->follower, topic(replay), log->partition) : -1;
    if (at < 0 || wanted < at) {
        follow(replay, log, wanted);
    }
    feed(log);
    if (at >= 0 && at == log->end) {
        tell_end(log);
    }
}

static void on_collect(struct sl_task *task)
{
    struct replay *replay = SL_ITEM(task, struct replay, collect);
    SL_LIST_EACH_SAFE(node, &replay->logs)
    {
        collect(replay, SL_ITEM(node, struct replay_log, node));
    }
}

/* --- what the follower tells --- */

struct reading {
    struct gateway *gateway;
    const struct sl_record *record;
};

static void on_event(void *ctx, struct sl_span id, struct sl_span event)
{
    const struct reading *reading = ctx;
    struct sl_map_node *node = sl_map_find(&reading->gateway->open, id);
    if (node != NULL) {
        open_query_replayed(SL_ITEM(node, struct open_query, by_id), reading->record, event);
    }
}

/* Those that wanted this record have had it. */
static void pass(struct replay *replay, const struct sl_record *record)
{
    struct replay_log *log = find(replay, record->partition);
    if (log != NULL) {
        SL_LIST_EACH(node, &log->callers)
        {
            struct caller *caller = SL_ITEM(node, struct caller, in_log);
            if (caller->fed && caller->position <= record->offset) {
                caller->position = record->offset + 1;
            }
        }
    }
}

static void on_record(void *ctx, const struct sl_record *record)
{
    struct replay *replay = ctx;
    struct reading reading = {replay->gateway, record};
    int err = sl_record_events(record, on_event, &reading);
    if (err != 0) {
        sl_log(SL_LOG_WARN, "a bundle of events is not readable",
               SL_INT("partition", record->partition), SL_INT("offset", record->offset),
               SL_ERR(err));
    }
    pass(replay, record);
}

static void on_end(void *ctx, const char *name, int32_t partition, int64_t next)
{
    struct replay *replay = ctx;
    struct replay_log *log = find(replay, partition);
    (void)name;
    if (log == NULL) {
        return;
    }
    log->end = next;
    SL_LIST_EACH_SAFE(node, &log->callers)
    {
        struct caller *caller = SL_ITEM(node, struct caller, in_log);
        if (caller->fed && caller->position <= next) {
            caller->position = next;
            open_query_caught_up(caller->q, caller);
        }
    }
}

static void on_out_of_range(void *ctx, const char *name, int32_t partition, int64_t offset,
                            int64_t low)
{
    struct replay *replay = ctx;
    struct replay_log *log = find(replay, partition);
    (void)name;
    if (log == NULL) {
        return;
    }
    log->end = -1;
    log->followed = false;
    SL_LIST_EACH_SAFE(node, &log->callers)
    {
        struct caller *caller = SL_ITEM(node, struct caller, in_log);
        if (caller->position < low || caller->position == offset) {
            fail(caller, &gone);
        } else {
            caller->fed = false;
        }
    }
    log->wanted = lowest(log);
    sl_task_defer(replay->gateway->loop, &replay->collect, on_collect);
}

static void on_error(void *ctx, bool fatal, const char *why)
{
    struct replay *replay = ctx;
    sl_log(fatal ? SL_LOG_ERROR : SL_LOG_WARN, "kafka", SL_STR("why", why),
           SL_STR("variable", sl_kafka_variable(why)));
    if (fatal) {
        gateway_fail(replay->gateway);
    }
}

/* --- life --- */

int replay_create(struct gateway *gateway, struct replay **ret, char *why, size_t why_size)
{
    static const struct sl_follower_callbacks callbacks = {.on_record = on_record,
                                                           .on_end = on_end,
                                                           .on_out_of_range = on_out_of_range,
                                                           .on_error = on_error};
    const struct sl_kafka_config config = {.brokers = gateway->process->brokers,
                                           .client_id = "gateway"};
    struct replay *replay = calloc(1, sizeof(*replay));
    if (replay == NULL) {
        return -SL_ENOMEM;
    }
    replay->gateway = gateway;
    sl_list_init(&replay->logs);
    int rv = sl_follower_create(gateway->loop, &config, &callbacks, replay, &replay->follower, why,
                                why_size);
    if (rv != 0) {
        free(replay);
        return rv;
    }
    *ret = replay;
    return 0;
}

void replay_destroy(struct replay *replay)
{
    if (replay == NULL) {
        return;
    }
    sl_follower_destroy(replay->follower);
    SL_LIST_EACH_SAFE(log_node, &replay->logs)
    {
        struct replay_log *log = SL_ITEM(log_node, struct replay_log, node);
        SL_LIST_EACH_SAFE(node, &log->callers)
        {
            replay_remove(replay, SL_ITEM(node, struct caller, in_log));
        }
        free(log);
    }
    sl_task_cancel(&replay->collect);
    free(replay);
}
