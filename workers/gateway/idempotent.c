/*
 * A request with an idempotency key.
 *
 *   asked      Redis says who has the key; this is awaited, by requests with a key alone
 *   new        ours: the query is opened as any other, and what became of its produce is told
 *   attach     another request's: its answer is given here too, from the log, in this caller's
 *              format
 *   wait       another request's, which is not produced yet: asked again, until it is. If the key
 *              is free then, or has another query, the one that was waited for was never in the
 *              log: the client may try again
 *   taken over another request's, whose gateway died before it was sure of its produce: produced
 *              again, with the same id. If it was in the log already, the second record finds the
 *              claims of the first and does nothing
 *   conflict   another body's
 *
 * The exchange may go while Redis is asked. Then the answer is waited for all the same, since a key
 * that turns out to be ours must be given back.
 */
#include "workers/gateway/idempotent.h"

#include "common/clock.h"
#include "common/log.h"
#include "workers/gateway/open_query.h"

#include <stdio.h>
#include <stdlib.h>

enum {
    KEY_MAX = 255,
    SAME_MAX = 2 << 20, /* Path, body and headers, which have limits of their own. */
    FIRST_WAIT_MS = 100,
    WAIT_MS = 1000,
    GIVE_UP_MS = 40000, /* A produce is given up after 30 s. */
};

struct idempotent {
    struct gateway *gateway;
    struct intake intake; /* Its request's exchange NULL: the caller has gone. */
    struct sl_idempotency ask;
    struct sl_timer again;
    bool asking;
    char waited_for[65]; /* The id of another request's query; empty: none. */
    uint64_t began_ms, wait_ms;
    char key[KEY_MAX + 1];
};

static void ask(struct idempotent *key);

bool idempotent_key_valid(struct sl_span key)
{
    for (size_t i = 0; i < key.len; i++) {
        if (key.data[i] <= ' ' || key.data[i] > '~') {
            return false;
        }
    }
    return key.len >= 1 && key.len <= KEY_MAX;
}

const struct sl_place *idempotent_place(const struct idempotent *key)
{
    return &key->ask.place;
}

void idempotent_free(struct idempotent *key)
{
    if (key != NULL) {
        sl_timer_stop(key->gateway->loop, &key->again);
        sl_arena_fini(&key->intake.arena);
        free(key);
    }
}

void idempotent_settle(struct idempotent *key, bool produced)
{
    if (key != NULL) {
        sl_idempotent_settle(key->gateway->coord, &key->ask, produced);
        idempotent_free(key);
    }
}

/* --- the exchange --- */

static void on_gone(void *ctx, bool complete)
{
    struct idempotent *key = ctx;
    struct gateway *gateway = key->gateway;
    (void)complete;
    key->intake.request.exchange = NULL;
    gateway->callers--;
    if (!key->asking) {
        idempotent_free(key);
    }
    gateway_caller_gone(gateway);
}

/* The exchange is about to be answered, or to be another's. */
static void release(struct idempotent *key)
{
    sl_http_on_gone(key->intake.request.exchange, NULL, NULL);
    key->gateway->callers--;
}

static void fail(struct idempotent *key, int status, const char *code, const char *message)
{
    const struct failure failure = {.status = status,
                                    .code = code,
                                    .param = status == 409 ? "Idempotency-Key" : NULL,
                                    .message = message};
    struct gateway *gateway = key->gateway;
    release(key);
    respond_failure(&key->intake.request, &failure);
    idempotent_free(key);
    gateway_caller_gone(gateway);
}

/* --- what Redis answers --- */

/* From now on the query's id is the request's. */
static void take_id(struct idempotent *key)
{
    snprintf(key->intake.request.id, sizeof(key->intake.request.id), "%s", key->ask.id);
    release(key);
}

static void begin(struct idempotent *key, enum sl_idempotent answer)
{
    struct gateway *gateway = key->gateway;
    take_id(key);
    struct intake intake = key->intake;
    sl_arena_init(&key->intake.arena, 0);
    if (answer == SL_IDEMPOTENT_ATTACH) {
        open_query_join(gateway, &intake, &key->ask.place, NULL);
        idempotent_free(key);
    } else if (answer == SL_IDEMPOTENT_NEW) {
        open_query_start(gateway, &intake, key);
    } else {
        open_query_take_over(gateway, &intake, key);
    }
    sl_arena_fini(&intake.arena);
    gateway_caller_gone(gateway);
}

static void on_again(struct sl_timer *timer)
{
    ask(SL_ITEM(timer, struct idempotent, again));
}

static void wait_for_it(struct idempotent *key)
{
    uint64_t now_ms = sl_clock_now_ms();
    if (now_ms - key->began_ms >= GIVE_UP_MS) {
        fail(key, 503, "overloaded", "another request with this key is still on its way to Kafka");
        return;
    }
    snprintf(key->waited_for, sizeof(key->waited_for), "%s", key->ask.id);
    sl_timer_start(key->gateway->loop, &key->again, key->wait_ms, on_again);
    key->wait_ms = WAIT_MS;
}

static bool is_ours(enum sl_idempotent answer)
{
    return answer == SL_IDEMPOTENT_NEW || answer == SL_IDEMPOTENT_TAKEN_OVER;
}

static void on_answer(void *ctx, int err, enum sl_idempotent answer)
{
    struct idempotent *key = ctx;
    key->asking = false;
    if (key->intake.request.exchange == NULL) {
        if (err == 0 && is_ours(answer)) {
            idempotent_settle(key, false);
        } else {
            idempotent_free(key);
        }
    } else if (err != 0) {
        fail(key, 503, "overloaded", "Redis could not be asked about the Idempotency-Key");
    } else if (answer == SL_IDEMPOTENT_CONFLICT) {
        fail(key, 409, "idempotency_conflict",
             "this Idempotency-Key was used with another request");
    } else if (key->waited_for[0] != '\0' && strcmp(key->waited_for, key->ask.id) != 0) {
        if (is_ours(answer)) {
            sl_idempotent_settle(key->gateway->coord, &key->ask, false);
        }
        fail(key, 503, "overloaded", "the first request with this key was not accepted");
    } else if (answer == SL_IDEMPOTENT_WAIT) {
        wait_for_it(key);
    } else {
        begin(key, answer);
    }
}

/* --- asking --- */

/* Everything that makes two requests the same. */
static void put_same(const struct request *request, struct sl_buf *out)
{
    static const char *const names[] = {"sluice-collection", "sluice-timeout-ms",
                                        "sluice-on-disconnect"};
    sl_buf_append_text(out, route_path(request->route));
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        sl_buf_append(out, "\n", 1);
        sl_buf_append_span(out, sl_http_request_header(request->exchange, names[i]));
    }
    sl_buf_append(out, "\n", 1);
    sl_buf_append_span(out, sl_http_body(request->exchange));
}

static void ask(struct idempotent *key)
{
    struct sl_buf same;
    sl_buf_init(&same, SAME_MAX);
    put_same(&key->intake.request, &same);
    key->ask = (struct sl_idempotency){
        .tenant = SL_SPAN("default"),
        .key = sl_span_of(key->key),
        .body = sl_buf_span(&same),
        .place = open_query_place(key->gateway, &key->intake.query),
    };
    snprintf(key->ask.id, sizeof(key->ask.id), "%s", key->intake.request.id);
    int err = sl_buf_error(&same);
    err = err != 0 ? err : sl_idempotent_open(key->gateway->coord, &key->ask, on_answer, key);
    sl_buf_fini(&same);
    key->asking = err == 0;
    if (err != 0) {
        sl_log(SL_LOG_WARN, "an idempotency key was not asked about",
               SL_STR("id", key->intake.request.id), SL_ERR(err));
        fail(key, 503, "overloaded", "the query could not be accepted now");
    }
}

void idempotent_start(struct gateway *gateway, struct intake *intake, struct sl_span name)
{
    struct idempotent *key = calloc(1, sizeof(*key));
    if (key == NULL) {
        respond_overloaded(&intake->request, "the query could not be accepted now");
        return;
    }
    key->gateway = gateway;
    key->intake = *intake;
    sl_arena_init(&intake->arena, 0);
    key->began_ms = sl_clock_now_ms();
    key->wait_ms = FIRST_WAIT_MS;
    snprintf(key->key, sizeof(key->key), SL_SPAN_FMT, SL_SPAN_ARG(name));
    gateway->callers++;
    sl_http_on_gone(key->intake.request.exchange, on_gone, key);
    ask(key);
}
