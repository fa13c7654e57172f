/*
 * Whether hits are visible, mostly without asking.
 *
 * Once a second Redis is asked whether any document changes. While none does, a store holds exactly
 * what can be found; so hits whose versions all began before that moment (a version is its
 * beginning in microseconds, on Redis's clock) are visible, and a question costs no round trip.
 * Where one hit is younger, or something changed when its searches began, all hits of the question
 * are looked up by one script. What is replaced or removed may so be shown for about a second
 * longer; two versions of a document are never shown together.
 *
 * Hits of version 0 come from a store that others fill: they are always visible.
 *
 * A look-up that fails is tried again while the searches' time lasts. Then the question fails:
 * hits of which nobody knows whether they are whole are no answer.
 */
#include "workers/retrieve/visible.h"

#include "common/lua_scripts.h"
#include "common/redis.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum { EVERY_MS = 1000, FIRST_MS = 50, RETRY_MS = 50, NUMBER = 24, LISTS = 2, FIXED = 4 };

static struct sl_redis_script script = {.text = sl_lua_ingest_visible};

/* What the client knows: its owner may go before the reply comes. */
struct visible_call {
    struct retrieve_visible *visible; /* Both NULL: cancelled. */
    struct retrieve_look *look;
};

static int64_t now_ms(const struct retrieve_visible *visible)
{
    return sl_coord_now_ms(visible->coord);
}

/* --- does anything change? --- */

static void ask(struct retrieve_visible *visible);

static void on_timer(struct sl_timer *timer)
{
    ask(SL_ITEM(timer, struct retrieve_visible, timer));
}

static void ask_later(struct retrieve_visible *visible)
{
    uint64_t ms = visible->word.checked_us > 0 ? EVERY_MS : FIRST_MS;
    sl_timer_start(visible->loop, &visible->timer, ms, on_timer);
}

static void on_told(void *ctx, int err, const struct redisReply *reply)
{
    struct visible_call *call = ctx;
    struct retrieve_visible *visible = call->visible;
    free(call);
    if (visible == NULL) {
        return;
    }
    visible->asking = NULL;
    if (err == 0 && sl_reply_len(reply) == 2) {
        visible->word.changing = sl_reply_int(sl_reply_at(reply, 0)) != 0;
        visible->word.checked_us = sl_reply_int(sl_reply_at(reply, 1));
    }
    ask_later(visible);
}

static void ask(struct retrieve_visible *visible)
{
    const struct sl_span argv[] = {sl_span_of(sl_coord_prefix(visible->coord)),
                                   SL_SPAN("changing")};
    struct visible_call *call = calloc(1, sizeof(*call));
    if (call != NULL) {
        call->visible = visible;
        if (sl_redis_eval(sl_coord_redis(visible->coord), &script, 1, 2, argv, on_told, call) ==
            0) {
            visible->asking = call;
            return;
        }
        free(call);
    }
    ask_later(visible);
}

void retrieve_visible_start(struct retrieve_visible *visible, struct sl_loop *loop,
                            struct sl_coord *coord)
{
    *visible = (struct retrieve_visible){.loop = loop, .coord = coord};
    sl_timer_start(loop, &visible->timer, 0, on_timer);
}

void retrieve_visible_stop(struct retrieve_visible *visible)
{
    if (visible->loop != NULL) {
        sl_timer_stop(visible->loop, &visible->timer);
    }
    if (visible->asking != NULL) {
        visible->asking->visible = NULL;
        visible->asking = NULL;
    }
}

bool retrieve_visible_all(const struct retrieve_word *word, const struct sl_hit *hits, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (hits[i].version != 0 && (word->changing || hits[i].version > word->checked_us)) {
            return false;
        }
    }
    return true;
}

/* --- a look-up --- */

static void look(struct retrieve_look *look);

static void on_retry(struct sl_timer *timer)
{
    look(SL_ITEM(timer, struct retrieve_look, retry));
}

static void look_again(struct retrieve_look *look, int err)
{
    const struct retrieve_visible *visible = look->visible;
    uint64_t wait_ms = (uint64_t)RETRY_MS << (look->tries < 4 ? look->tries : 4);
    if (now_ms(visible) + (int64_t)wait_ms >= look->end_ms) {
        look->on_looked(look, err);
        return;
    }
    look->tries++;
    sl_timer_start(visible->loop, &look->retry, wait_ms, on_retry);
}

static size_t looked_up(const struct retrieve_look *look)
{
    size_t count = 0;
    for (size_t l = 0; l < LISTS; l++) {
        for (size_t i = 0; i < look->lists[l].len; i++) {
            count += look->lists[l].hits[i].version != 0;
        }
    }
    return count;
}

/* The flags stand in the order of the arguments. */
static void take_out(struct retrieve_look *look, const char *flags)
{
    for (size_t l = 0; l < LISTS; l++) {
        struct retrieve_look_hits *list = &look->lists[l];
        size_t kept = 0;
        for (size_t i = 0; i < list->len; i++) {
            if (list->hits[i].version == 0 || *flags++ == '1') {
                list->hits[kept++] = list->hits[i];
            }
        }
        list->len = kept;
    }
}

static void on_looked(void *ctx, int err, const struct redisReply *reply)
{
    struct visible_call *call = ctx;
    struct retrieve_look *look = call->look;
    free(call);
    if (look == NULL) {
        return;
    }
    look->call = NULL;
    struct sl_span flags = sl_reply_span(reply);
    if (err == 0 && flags.len == looked_up(look)) {
        take_out(look, flags.data);
        look->on_looked(look, 0);
    } else {
        look_again(look, err != 0 ? err : -SL_EPROTO);
    }
}

/* numbers: the versions' texts. */
static size_t write_args(const struct retrieve_look *look, struct sl_span *argv,
                         char (*numbers)[NUMBER])
{
    size_t argc = FIXED;
    argv[0] = sl_span_of(sl_coord_prefix(look->visible->coord));
    argv[1] = SL_SPAN("look");
    argv[2] = look->tenant;
    argv[3] = look->collection;
    for (size_t l = 0; l < LISTS; l++) {
        for (size_t i = 0; i < look->lists[l].len; i++) {
            const struct sl_hit *hit = &look->lists[l].hits[i];
            if (hit->version != 0) {
                snprintf(*numbers, NUMBER, "%" PRId64, hit->version);
                argv[argc++] = hit->doc_id.data != NULL ? hit->doc_id : SL_SPAN("");
                argv[argc++] = sl_span_of(*numbers++);
            }
        }
    }
    return argc;
}

static int send(struct retrieve_look *look, struct visible_call *call)
{
    size_t count = looked_up(look);
    struct sl_span *argv = malloc((FIXED + 2 * count) * sizeof(*argv));
    char(*numbers)[NUMBER] = malloc((count + 1) * NUMBER);
    int rv = argv == NULL || numbers == NULL ? -SL_ENOMEM : 0;
    if (rv == 0) {
        size_t argc = write_args(look, argv, numbers);
        rv = sl_redis_eval(sl_coord_redis(look->visible->coord), &script, 1, argc, argv, on_looked,
                           call);
    }
    free(argv);
    free(numbers);
    return rv;
}

static void look(struct retrieve_look *look)
{
    struct visible_call *call = calloc(1, sizeof(*call));
    int rv = call == NULL ? -SL_ENOMEM : 0;
    if (rv == 0) {
        call->look = look;
        rv = send(look, call);
    }
    if (rv != 0) {
        free(call);
        look_again(look, rv);
        return;
    }
    look->call = call;
}

void retrieve_look_start(struct retrieve_visible *visible, struct retrieve_look *look)
{
    look->visible = visible;
    look->tries = 0;
    sl_timer_start(visible->loop, &look->retry, 0, on_retry);
}

void retrieve_look_cancel(struct retrieve_look *look)
{
    if (look->visible != NULL) {
        sl_timer_stop(look->visible->loop, &look->retry);
    }
    if (look->call != NULL) {
        look->call->look = NULL;
        look->call = NULL;
    }
}
