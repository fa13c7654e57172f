/*
 * Readers of a query, as Redis knows them: which gateways are attached, and what is known of it.
 *
 * The story of an attachment: its gateway lets a query in, or goes on with one whose stream was
 * broken; it joins the query's set in the same script as whatever else this turn writes, and nobody
 * waits for the answer. It stays in the coord's list until its gateway detaches it. In a quarantine
 * the renewals carry the whole list (coord_renew.c), so that a Redis that lost its state knows
 * places, gateways and cancellations again. A cancellation that Redis did not hear in time goes
 * with the next renewal too.
 *
 * Leaving is decided in Redis (settle.lua): the last one out cancels the query. In the quarantine
 * it only leaves, since others may not have told yet that they are there; a query that nobody is
 * attached to any more is an orphan afterwards.
 *
 * A look (coord_question.h) that finds no gateway is repeated while a quarantine may hide one that
 * is about to tell of its query again, be it after the query's worker: else a caller who comes back
 * would be told that the query never was, or has no stream.
 */
#include "common/attach.h"

#include "common/codec.h"
#include "common/codec_parts.h"
#include "common/coord_internal.h"

#include <stdlib.h>

enum { TRIED_MS = 10000 }; /* At least, also behind the deadline. */

/* Positions in the answer of look.lua. */
enum {
    AT_QUARANTINE = 1,
    AT_OPEN,
    AT_CANCELLED,
    AT_END_OWNER,
    AT_END_ACKED,
    AT_OUTCOME,
    AT_STAGES
};

struct look {
    struct coord_question question;
    sl_query_state_cb *cb;
    void *ctx;
    size_t id_len;
    char id[];
};

/* --- attachments --- */

static struct sl_op *new_op(struct sl_coord *coord, const struct sl_attachment *attachment)
{
    struct sl_op *op = coord_op_new(coord);
    if (op != NULL && coord_op_name(op, attachment->id, "") != 0) {
        coord_op_free(coord, op);
        op = NULL;
    }
    if (op != NULL) {
        op->place = attachment->place;
    }
    return op;
}

/* As long as the query can still run. */
static uint64_t left_ms(const struct sl_coord *coord, const struct sl_attachment *attachment)
{
    int64_t left = attachment->place.deadline_ms - sl_coord_now_ms(coord);
    return left > TRIED_MS ? (uint64_t)left : TRIED_MS;
}

void sl_attach(struct sl_coord *coord, struct sl_attachment *attachment)
{
    struct sl_op *op = coord->op_count < COORD_OPS_MAX ? new_op(coord, attachment) : NULL;
    attachment->cancelled = false;
    attachment->told = op != NULL;
    attachment->renewal = coord->renewal + 1;
    sl_list_init(&attachment->node);
    sl_list_push(&coord->attached, &attachment->node);
    if (op != NULL) {
        coord_op_queue(coord, op, OP_ATTACH, left_ms(coord, attachment));
    }
}

void sl_detach(struct sl_coord *coord, struct sl_attachment *attachment)
{
    (void)coord;
    sl_list_remove(&attachment->node);
}

void sl_detach_leave(struct sl_coord *coord, struct sl_attachment *attachment)
{
    struct sl_op *op = new_op(coord, attachment); /* No more of them than attachments. */
    sl_detach(coord, attachment);
    if (op != NULL) {
        coord_op_queue(coord, op, OP_LEAVE, left_ms(coord, attachment));
    }
}

void coord_attach_cancelled(struct sl_coord *coord, struct sl_span id, bool here)
{
    SL_LIST_EACH(node, &coord->attached)
    {
        struct sl_attachment *attachment = SL_ITEM(node, struct sl_attachment, node);
        if (!sl_span_equal(attachment->id, id) || attachment->cancelled) {
            continue;
        }
        attachment->cancelled = true;
        if (here) { /* A renewal that is out does not carry it. */
            attachment->told = false;
            attachment->renewal = coord->renewal + 1;
        }
    }
}

/* --- looking at a query --- */

/* Up to count numbers separated by blanks; how many there are. */
static size_t read_numbers(struct sl_span text, int64_t *ret, size_t count)
{
    size_t len = 0;
    while (len < count && text.len > 0) {
        const char *blank = memchr(text.data, ' ', text.len);
        size_t word = blank != NULL ? (size_t)(blank - text.data) : text.len;
        long long value;
        if (sl_span_to_int((struct sl_span){text.data, word}, INT64_MIN, INT64_MAX, &value) != 0) {
            break;
        }
        ret[len++] = value;
        word += blank != NULL ? 1 : 0;
        text = (struct sl_span){text.data + word, text.len - word};
    }
    return len;
}

bool coord_read_place(struct sl_span text, struct sl_place *ret)
{
    int64_t numbers[4];
    if (read_numbers(text, numbers, 4) != 4) {
        return false;
    }
    *ret = (struct sl_place){(int32_t)numbers[0], numbers[1], numbers[2], numbers[3]};
    return true;
}

static const char *read_outcome(struct sl_span text)
{
    const char *found = "";
    for (int i = SL_DONE; i <= SL_EXPIRED; i++) {
        found = sl_span_is(text, sl_outcome_text((enum sl_outcome)i))
                    ? sl_outcome_text((enum sl_outcome)i)
                    : found;
    }
    return found;
}

static void read_state(const struct redisReply *reply, struct sl_query_state *ret)
{
    int64_t result[2];
    *ret = (struct sl_query_state){
        .result_partition = -1, .result_offset = -1, .outcome = "", .stage = ""};
    for (size_t i = AT_OPEN; i < sl_reply_len(reply); i++) {
        ret->known = ret->known || sl_reply_type(sl_reply_at(reply, i)) != SL_REPLY_NIL;
    }
    ret->attached = coord_read_place(sl_reply_span(sl_reply_at(reply, AT_OPEN)), &ret->place);
    ret->cancelled = sl_reply_type(sl_reply_at(reply, AT_CANCELLED)) != SL_REPLY_NIL;
    ret->ended = sl_reply_type(sl_reply_at(reply, AT_END_OWNER)) != SL_REPLY_NIL;
    ret->end_acked = sl_reply_type(sl_reply_at(reply, AT_END_ACKED)) != SL_REPLY_NIL;
    if (read_numbers(sl_reply_span(sl_reply_at(reply, AT_END_ACKED)), result, 2) == 2) {
        ret->result_partition = (int32_t)result[0];
        ret->result_offset = result[1];
    }
    if (ret->ended) {
        ret->outcome = read_outcome(sl_reply_span(sl_reply_at(reply, AT_OUTCOME)));
        return;
    }
    for (size_t i = 0; i < SL_STAGE_COUNT; i++) {
        if (sl_reply_type(sl_reply_at(reply, AT_STAGES + i)) != SL_REPLY_NIL) {
            ret->stage = sl_stage_names[i];
        }
    }
}

static bool on_looked(struct coord_question *question, const struct redisReply *reply, bool last)
{
    struct look *look = SL_ITEM(question, struct look, question);
    struct sl_query_state state;
    if (reply == NULL) {
        look->cb(look->ctx, -SL_ECONN, NULL);
    } else {
        read_state(reply, &state);
        bool hidden = !state.attached && !state.ended;
        if (hidden && !last && sl_reply_int(sl_reply_at(reply, AT_QUARANTINE)) > 0) {
            return false;
        }
        look->cb(look->ctx, 0, &state);
    }
    free(look);
    return true;
}

static void put_look(struct coord_question *question)
{
    const struct look *look = SL_ITEM(question, struct look, question);
    coord_args_span(question->coord, (struct sl_span){look->id, look->id_len});
    for (size_t i = 0; i < SL_STAGE_COUNT; i++) {
        coord_args_text(question->coord, sl_stage_names[i]);
    }
}

int sl_query_look(struct sl_coord *coord, struct sl_span id, sl_query_state_cb *cb, void *ctx)
{
    struct look *look = malloc(sizeof(*look) + id.len);
    if (look == NULL) {
        return -SL_ENOMEM;
    }
    *look = (struct look){
        .question = {.script = &coord->look_at_query, .put = put_look, .on_answer = on_looked},
        .cb = cb,
        .ctx = ctx,
        .id_len = id.len};
    memcpy(look->id, id.data, id.len);
    int err = coord_question_ask(coord, &look->question);
    if (err != 0) {
        free(look);
    }
    return err;
}
