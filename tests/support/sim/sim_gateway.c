/*
 * A gateway as the workers know it: it is attached to its queries (attach.h), ends those whose
 * deadline has passed (workers/gateway/expiry.c), cancels, and leaves when its callers do. Its
 * callers read what the reader of sim_check.c takes; one whose deadline has passed and who has
 * heard nothing two seconds later is told by the gateway itself.
 */
#include "tests/support/sim/sim_gateway.h"
#include "common/attach.h"
#include "common/claim.h"
#include "common/ending.h"
#include "tests/support/sim/sim_check.h"

enum { AFTER_DEADLINE_MS = 250, TELL_MS = 2000, RETRY_MS = 1000, TRIES_MAX = 60 };

struct sim_gateway {
    struct sl_loop *loop;
    struct sl_metrics *metrics;
    struct sl_producer *producer;
    struct sl_coord *coord;
    struct sl_list open;    /* caller */
    struct sl_list endings; /* ending */
};

/* The callers of one query here. */
struct caller {
    struct sl_list node;
    struct sim_gateway *gateway;
    char id[32];
    struct sl_attachment attachment;
    struct sl_timer timer;
    bool late; /* Its deadline has passed. */
};

struct ending {
    struct sl_list node;
    struct sim_gateway *gateway;
    char id[32];
    struct sl_buf bytes;
    struct sl_timer retry;
    unsigned waiting, tries;
    bool failed;
};

static struct caller *find(const struct sim_gateway *gateway, const char *id)
{
    SL_LIST_EACH(node, &gateway->open)
    {
        struct caller *caller = SL_ITEM(node, struct caller, node);
        if (strcmp(caller->id, id) == 0) {
            return caller;
        }
    }
    return NULL;
}

static void forget(struct caller *caller)
{
    sl_timer_stop(caller->gateway->loop, &caller->timer);
    sl_list_remove(&caller->node);
    free(caller);
}

/* --- the ending of a query whose deadline has passed --- */

static void produce(struct ending *ending);

static void free_ending(struct ending *ending)
{
    sl_timer_stop(ending->gateway->loop, &ending->retry);
    sl_list_remove(&ending->node);
    sl_buf_fini(&ending->bytes);
    free(ending);
}

static void on_retry(struct sl_timer *timer)
{
    produce(SL_ITEM(timer, struct ending, retry));
}

static void finish_try(struct ending *ending)
{
    if (ending->failed && ++ending->tries < TRIES_MAX) {
        ending->failed = false;
        sl_timer_start(ending->gateway->loop, &ending->retry, RETRY_MS, on_retry);
        return;
    }
    if (!ending->failed) {
        sl_claim_ended(ending->gateway->coord, sl_span_of(ending->id), -1, -1);
    }
    free_ending(ending);
}

static void on_delivery(void *ctx, int err, int32_t partition, int64_t offset)
{
    struct ending *ending = ctx;
    (void)partition, (void)offset;
    ending->failed = ending->failed || err != 0;
    if (--ending->waiting == 0) {
        finish_try(ending);
    }
}

static void produce(struct ending *ending)
{
    struct sl_ending unpacked;
    struct sl_route route;
    struct sl_outgoing records[2];
    char reply[TOPIC_MAX];
    CHECK_INT(sl_ending_unpack(sl_buf_span(&ending->bytes), &unpacked), 0);
    size_t count = sl_ending_records(&unpacked, "sluice.results", &route, reply, records);
    ending->waiting = 1;
    for (size_t i = 0; i < count; i++) {
        if (sl_producer_send(ending->gateway->producer, &records[i], on_delivery, ending) == 0) {
            ending->waiting++;
        } else {
            ending->failed = true;
        }
    }
    if (--ending->waiting == 0) {
        finish_try(ending);
    }
}

static void on_stored(void *ctx, int err)
{
    struct ending *ending = ctx;
    sim_trace("the gateway's ending of %s: %s", ending->id, sl_error_text(err));
    if (err == 0) {
        produce(ending);
    } else {
        free_ending(ending);
    }
}

static void end_query(struct sim_gateway *gateway, const struct caller *caller)
{
    struct ending *ending = calloc(1, sizeof(*ending));
    CHECK(ending != NULL);
    ending->gateway = gateway;
    snprintf(ending->id, sizeof(ending->id), "%s", caller->id);
    sl_list_push(&gateway->endings, &ending->node);
    const struct sl_query query = {.id = sl_span_of(ending->id),
                                   .query = SL_SPAN("why?"),
                                   .tenant = SL_SPAN("default"),
                                   .reply_topic = SL_SPAN("sluice.replies"),
                                   .reply_partition = 0};
    const struct sl_result result = {.outcome = SL_EXPIRED,
                                     .code = SL_QERR_TIMEOUT,
                                     .message = SL_SPAN("the deadline passed"),
                                     .stage = SL_SPAN("gateway")};
    sl_buf_init(&ending->bytes, 1 << 16);
    sl_ending_pack(&query, &result, 0, 1, 0, sl_coord_now_ms(gateway->coord), &ending->bytes);
    CHECK(sl_buf_error(&ending->bytes) == 0);
    int err = sl_claim_end(gateway->coord, query.id, NULL, 0, "expired",
                           sl_buf_span(&ending->bytes), on_stored, ending);
    if (err != 0) {
        free_ending(ending);
    }
}

/* --- callers --- */

static void on_timer(struct sl_timer *timer)
{
    struct caller *caller = SL_ITEM(timer, struct caller, timer);
    struct sim_gateway *gateway = caller->gateway;
    if (!caller->late) {
        caller->late = true;
        end_query(gateway, caller);
        sl_timer_start(gateway->loop, timer, TELL_MS, on_timer);
        return;
    }
    sim_check_told(caller->id);
    sl_detach(gateway->coord, &caller->attachment);
    forget(caller);
}

void sim_gateway_open(const char *id, int64_t deadline_ms, int64_t policy_ms)
{
    struct sim_gateway *gateway = sim_self->gateway;
    struct caller *caller = calloc(1, sizeof(*caller));
    CHECK(caller != NULL && find(gateway, id) == NULL);
    sim_trace("has callers for %s", id);
    caller->gateway = gateway;
    snprintf(caller->id, sizeof(caller->id), "%s", id);
    caller->attachment.id = sl_span_of(caller->id);
    caller->attachment.place =
        (struct sl_place){.deadline_ms = deadline_ms, .policy_ms = policy_ms};
    sl_list_push(&gateway->open, &caller->node);
    sl_attach(gateway->coord, &caller->attachment);
    int64_t left = deadline_ms + AFTER_DEADLINE_MS - sl_coord_now_ms(gateway->coord);
    sl_timer_start(gateway->loop, &caller->timer, left > 0 ? (uint64_t)left : 0, on_timer);
}

bool sim_gateway_has(const struct sim_process *process, const char *id)
{
    return find(process->gateway, id) != NULL;
}

bool sim_gateway_ready(const struct sim_process *process)
{
    return sl_coord_ready(process->gateway->coord);
}

void sim_gateway_leave(const char *id)
{
    struct caller *caller = find(sim_self->gateway, id);
    if (caller != NULL) {
        sim_trace("the last caller of %s leaves", id);
        sl_detach_leave(sim_self->gateway->coord, &caller->attachment);
        forget(caller);
    }
}

void sim_gateway_cancel(const char *id)
{
    sim_trace("cancels %s", id);
    CHECK_INT(sl_coord_cancel(sim_self->gateway->coord, sl_span_of(id), NULL, NULL), 0);
}

struct ended {
    struct sim_event event;
    char id[64];
};

static void on_ended(struct sim_event *event)
{
    struct caller *caller = find(sim_self->gateway, ((struct ended *)(void *)event)->id);
    if (caller != NULL) {
        sl_detach(sim_self->gateway->coord, &caller->attachment);
        forget(caller);
    }
}

void sim_gateway_ended(const char *id)
{
    for (size_t i = 0; i < sim_process_count; i++) {
        struct sim_process *process = &sim_processes[i];
        if (process->alive && process->gateway != NULL && find(process->gateway, id) != NULL) {
            struct ended *ended = sim_event_new(sizeof(*ended), on_ended);
            snprintf(ended->id, sizeof(ended->id), "%s", id);
            sim_happen_in(&ended->event, process, sim_between(SIM_MS, 20 * SIM_MS));
        }
    }
}

void sim_gateway_trace(const struct sim_process *process)
{
    const struct sim_gateway *gateway = process->gateway;
    SL_LIST_EACH(node, &gateway->open)
    {
        sim_trace("gateway %zu has callers for %s", process->index,
                  SL_ITEM(node, struct caller, node)->id);
    }
    SL_LIST_EACH(node, &gateway->endings)
    {
        sim_trace("gateway %zu ends %s", process->index, SL_ITEM(node, struct ending, node)->id);
    }
    if (!sl_coord_idle(gateway->coord)) {
        sim_trace("gateway %zu has something to say to Redis", process->index);
    }
}

bool sim_gateway_idle(const struct sim_process *process)
{
    const struct sim_gateway *gateway = process->gateway;
    return sl_list_empty(&gateway->open) && sl_list_empty(&gateway->endings) &&
           sl_coord_idle(gateway->coord);
}

/* --- beginning and end --- */

static void on_fatal(void *ctx, const char *why)
{
    (void)ctx;
    SIM_FAIL("%s", why);
}

void sim_gateway_start(void)
{
    struct sim_gateway *gateway = calloc(1, sizeof(*gateway));
    char why[200];
    CHECK(gateway != NULL);
    sl_list_init(&gateway->open);
    sl_list_init(&gateway->endings);
    CHECK_INT(sl_loop_create(&gateway->loop), 0);
    CHECK_INT(sl_metrics_create(100, &gateway->metrics), 0);
    const struct sl_kafka_config kafka = {.brokers = ""};
    CHECK_INT(sl_producer_create(gateway->loop, &kafka, on_fatal, NULL, &gateway->producer, why,
                                 sizeof(why)),
              0);
    const struct sl_coord_config config = {.redis_url = "",
                                           .prefix = "sluice",
                                           .result_ttl_ms = 86400000,
                                           .orphan_grace_ms = 15000,
                                           .metrics = gateway->metrics};
    CHECK_INT(sl_coord_create(gateway->loop, &config, &gateway->coord, why, sizeof(why)), 0);
    sim_self->gateway = gateway;
}

/* Its callers are cut off. */
void sim_gateway_finish(void)
{
    struct sim_gateway *gateway = sim_self->gateway;
    SL_LIST_EACH_SAFE(node, &gateway->open)
    {
        struct caller *caller = SL_ITEM(node, struct caller, node);
        sl_detach(gateway->coord, &caller->attachment);
        forget(caller);
    }
    SL_LIST_EACH(node, &gateway->endings)
    {
        SL_ITEM(node, struct ending, node)->tries = TRIES_MAX; /* Not again. */
    }
    sl_producer_destroy(gateway->producer, 0);
    sl_coord_destroy(gateway->coord);
    SL_LIST_EACH_SAFE(node, &gateway->endings)
    {
        free_ending(SL_ITEM(node, struct ending, node));
    }
    sl_loop_destroy(gateway->loop);
    sl_metrics_destroy(gateway->metrics);
    free(gateway);
    sim_self->gateway = NULL;
}
