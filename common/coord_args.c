/*
 * How a script is called. Arguments are gathered one by one: text is borrowed until the call,
 * numbers are written into one buffer and found by offset, since the buffer moves when it grows.
 * Each call begins with what the prelude takes, and each reply with what the prelude answers:
 * Redis's time, from which the process knows Redis's clock, and the observer that Redis answered
 * without a gap.
 *
 * A script has at most one call out; whoever has more to say gathers it meanwhile. All scripts
 * share one set of arguments: nothing between coord_args_begin and coord_script_run returns to the
 * loop.
 */
#include "common/coord_internal.h"

#include "common/clock.h"
#include "common/lua_scripts.h"

#include <assert.h>
#include <stdlib.h>

enum { ARGS_TEXT_MAX = 1 << 20, SCRIPT_MAX = 1 << 16 };
#define TIME_MAX_MS                                                                                \
    ((int64_t)1 << 48) /* Some thousand years: sums of times stay far from 2^63.                   \
                        */

void coord_args_init(struct coord_args *args)
{
    *args = (struct coord_args){0};
    sl_buf_init(&args->text, ARGS_TEXT_MAX);
}

void coord_args_fini(struct coord_args *args)
{
    free(args->spans);
    free(args->offsets);
    sl_buf_fini(&args->text);
}

static bool has_room(struct coord_args *args)
{
    if (args->len < args->cap) {
        return true;
    }
    size_t cap = args->cap > 0 ? args->cap * 2 : 64;
    struct sl_span *spans = realloc(args->spans, cap * sizeof(*spans));
    if (spans != NULL) {
        args->spans = spans;
    }
    size_t *offsets = realloc(args->offsets, cap * sizeof(*offsets));
    if (offsets != NULL) {
        args->offsets = offsets;
    }
    if (spans == NULL || offsets == NULL) {
        args->err = -SL_ENOMEM;
        return false;
    }
    args->cap = cap;
    return true;
}

void coord_args_span(struct sl_coord *coord, struct sl_span span)
{
    struct coord_args *args = &coord->args;
    if (has_room(args)) {
        args->offsets[args->len] = SIZE_MAX;
        args->spans[args->len++] = span;
    }
}

void coord_args_text(struct sl_coord *coord, const char *text)
{
    coord_args_span(coord, sl_span_of(text));
}

/* What was appended to the text from offset on. */
static void take_text(struct coord_args *args, size_t offset)
{
    if (has_room(args)) {
        args->offsets[args->len] = offset;
        args->spans[args->len++] = (struct sl_span){NULL, args->text.len - offset};
    }
}

void coord_args_int(struct sl_coord *coord, uint64_t value)
{
    size_t offset = coord->args.text.len;
    sl_buf_append_uint(&coord->args.text, value);
    take_text(&coord->args, offset);
}

void coord_args_place(struct sl_coord *coord, const struct sl_place *place)
{
    struct sl_buf *text = &coord->args.text;
    const int64_t numbers[] = {place->partition, place->offset, place->deadline_ms,
                               place->policy_ms};
    size_t offset = text->len;
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        sl_buf_append(text, " ", i > 0 ? 1 : 0);
        sl_buf_append_int(text, numbers[i]);
    }
    take_text(&coord->args, offset);
}

void coord_args_work(struct sl_coord *coord, const struct sl_op *op)
{
    coord_args_text(coord, op->bulk ? "bulk" : "query");
    coord_args_span(coord, (struct sl_span){op->bytes.data, op->id_len});
    coord_args_span(coord, (struct sl_span){op->bytes.data + op->id_len, op->stage_len});
}

void coord_args_begin(struct sl_coord *coord)
{
    coord->args.len = 0;
    coord->args.err = 0;
    sl_buf_clear(&coord->args.text);
    coord_args_text(coord, coord->prefix);
    coord_args_text(coord, coord->owner);
    coord_args_text(coord, coord->run_id);
    coord_args_int(coord, coord->ttl_ms);
    coord_args_int(coord, coord->result_ttl_ms);
    coord_args_int(coord, coord->orphan_grace_ms);
    coord_args_int(coord, sl_observer_steady(&coord->observer, sl_clock_now_ms())
                              ? (uint64_t)sl_coord_now_ms(coord)
                              : 0);
}

int coord_script_init(struct sl_coord *coord, struct coord_script *script, const char *text,
                      void (*on_reply)(struct sl_coord *, int, const struct redisReply *))
{
    script->coord = coord;
    script->on_reply = on_reply;
    sl_buf_init(&script->text, SCRIPT_MAX);
    sl_buf_append_text(&script->text, sl_lua_prelude);
    sl_buf_append_text(&script->text, text);
    sl_buf_append(&script->text, "", 1);
    script->script.text = script->text.data;
    return sl_buf_error(&script->text);
}

void coord_script_fini(struct coord_script *script)
{
    sl_buf_fini(&script->text);
}

/* Redis's time lay somewhere between the sending and the reply: what is known of its clock is only
 * corrected where it contradicts that. */
static void take_time(struct sl_coord *coord, uint64_t sent_ms, int64_t redis_ms)
{
    uint64_t now = sl_clock_now_ms();
    int64_t least = redis_ms - (int64_t)now, most = redis_ms - (int64_t)sent_ms;
    if (!coord->clock_known) {
        coord->clock_offset_ms = least + (most - least) / 2;
        coord->clock_known = true;
    } else if (coord->clock_offset_ms < least) {
        coord->clock_offset_ms = least;
    } else if (coord->clock_offset_ms > most) {
        coord->clock_offset_ms = most;
    }
    sl_observer_reply(&coord->observer, now, redis_ms);
}

static void on_reply(void *ctx, int err, const struct redisReply *reply)
{
    struct coord_script *script = ctx;
    struct sl_coord *coord = script->coord;
    script->out = false;
    if (coord->closing) {
        return;
    }
    int64_t redis_ms = sl_reply_int(sl_reply_at(reply, 0));
    int64_t quarantine_ms = sl_reply_int(sl_reply_at(reply, 1));
    if (err == 0 && (sl_reply_len(reply) < 2 || redis_ms <= 0 || redis_ms > TIME_MAX_MS ||
                     quarantine_ms < 0 || quarantine_ms > TIME_MAX_MS)) {
        err = -SL_EPROTO;
    }
    if (err == 0) {
        take_time(coord, script->sent_ms, redis_ms);
        coord->quarantine_end_ms = sl_clock_now_ms() + (uint64_t)quarantine_ms;
    }
    script->on_reply(coord, err, err == 0 ? reply : NULL);
}

void coord_args_position(struct sl_coord *coord, const struct sl_place *place)
{
    size_t offset = coord->args.text.len;
    sl_buf_append_int(&coord->args.text, place->partition);
    sl_buf_append(&coord->args.text, " ", 1);
    sl_buf_append_int(&coord->args.text, place->offset);
    take_text(&coord->args, offset);
}

int coord_args_eval(struct sl_coord *coord, struct sl_redis_script *script, sl_redis_cb *cb,
                    void *ctx)
{
    struct coord_args *args = &coord->args;
    int err = args->err != 0 ? args->err : sl_buf_error(&args->text);
    if (err != 0) {
        return err;
    }
    for (size_t i = 0; i < args->len; i++) {
        if (args->offsets[i] != SIZE_MAX) {
            args->spans[i].data = args->text.data + args->offsets[i];
        }
    }
    return sl_redis_eval(coord->redis, script, 1, args->len, args->spans, cb, ctx);
}

int coord_script_run(struct coord_script *script)
{
    assert(!script->out);
    script->sent_ms = sl_clock_now_ms();
    int err = coord_args_eval(script->coord, &script->script, on_reply, script);
    script->out = err == 0;
    return err;
}
