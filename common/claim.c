/*
 * Claims, as their owners see them: an admission is put into the line (coord_admit.c), is parked
 * (coord_watch.c) or granted (renewed by coord_renew.c), and is settled (coord_settle.c). This file
 * moves it between these lists; the state says in which it is:
 *
 *   IDLE -> WAITING <-> ASKED -> GRANTED -> IDLE     (settled, lost or withdrawn)
 *                             -> PARKED -> IDLE      (to be admitted again)
 *                             -> IDLE                (done or ended)
 *
 * A claim that is lost keeps its op until the runner says what became of its work.
 */
#include "common/claim.h"

#include "common/clock.h"
#include "common/coord_internal.h"

#include <assert.h>
#include <stdlib.h>

enum { TRY_MS = 60000 }; /* An ending, and word that it is out. */
enum { CANCEL_UNITS = 10 };

void sl_admit(struct sl_coord *coord, struct sl_admission *admission)
{
    assert(admission->state == SL_ADMIT_IDLE && admission->on_verdict != NULL);
    coord_op_free(coord, admission->op);
    admission->op = NULL;
    admission->state = SL_ADMIT_WAITING;
    admission->unsure = admission->cancelled = admission->cancel_seen = false;
    admission->suspect = false;
    admission->ticket = (struct sl_ticket){
        .deadline_ms = admission->deadline_ms, .bulk = admission->bulk, .job = true};
    sl_list_init(&admission->ticket.node);
    sl_list_init(&admission->node);
    for (size_t i = 0; i < SL_ADMIT_PERMITS; i++) {
        const struct sl_permit *permit = admission->permits[i];
        if (permit != NULL) {
            assert(permit->state == SL_PERMIT_NONE && permit->limit < coord->limit_count);
            admission->ticket.wants |= (uint16_t)(1U << (2 * permit->limit + permit->bulk));
        }
    }
    sl_line_add(&coord->line, &admission->ticket);
    coord_ask(coord);
}

void sl_admit_hold(struct sl_coord *coord, bool hold, const struct sl_admission *only)
{
    assert(hold || only == NULL);
    if (coord->hold != hold || coord->only != only) {
        coord->hold = hold;
        coord->only = only;
        coord_ask_all(coord);
    }
}

static void leave_line(struct sl_coord *coord, struct sl_admission *admission)
{
    struct sl_op *undo = admission->no_claim ? NULL : admission->op;
    if (admission->state == SL_ADMIT_ASKED) { /* The answer's business. */
        coord->slots[admission->ticket.slot - 1].op = undo;
        admission->op = admission->no_claim ? admission->op : NULL;
    } else if (admission->unsure && undo != NULL) {
        coord_give_back(coord, undo, 0);
        admission->op = NULL;
    }
    coord_leave_line(coord, &admission->ticket);
}

void sl_admit_withdraw(struct sl_coord *coord, struct sl_admission *admission)
{
    coord->only = coord->only == admission ? NULL : coord->only;
    switch (admission->state) {
    case SL_ADMIT_IDLE:
        break;
    case SL_ADMIT_WAITING:
    case SL_ADMIT_ASKED:
        leave_line(coord, admission);
        break;
    case SL_ADMIT_PARKED:
        coord_unpark(coord, admission);
        break;
    case SL_ADMIT_GRANTED:
        sl_list_remove(&admission->node);
        break;
    }
    coord_op_free(coord, admission->op);
    admission->op = NULL;
    admission->state = SL_ADMIT_IDLE;
}

/* The op with the claim's name. One that ended otherwise has none; it gets one. */
static struct sl_op *take_op(struct sl_coord *coord, struct sl_admission *admission)
{
    assert(admission->state == SL_ADMIT_GRANTED || admission->state == SL_ADMIT_IDLE);
    if (admission->state == SL_ADMIT_GRANTED) {
        sl_list_remove(&admission->node);
        admission->state = SL_ADMIT_IDLE;
    }
    struct sl_op *op = admission->op;
    admission->op = NULL;
    if (op == NULL) {
        op = coord_op_new(coord);
        if (op == NULL || coord_op_name(op, admission->id, admission->stage) != 0) {
            abort(); /* The caller waits for an answer that could not come. */
        }
        op->bulk = admission->bulk;
        op->fence = admission->fence;
        op->attempt = admission->attempt;
    }
    return op;
}

void sl_claim_done(struct sl_coord *coord, struct sl_admission *admission,
                   void (*cb)(void *ctx, int err), void *ctx)
{
    assert(!admission->no_claim);
    struct sl_op *op = take_op(coord, admission);
    op->cb = cb;
    op->ctx = ctx;
    coord_op_queue(coord, op, OP_DONE, UINT64_MAX);
}

void sl_claim_give_back(struct sl_coord *coord, struct sl_admission *admission)
{
    if (admission->state != SL_ADMIT_GRANTED || admission->no_claim) {
        sl_admit_withdraw(coord, admission);
        return;
    }
    struct sl_op *op = take_op(coord, admission);
    op->shown = admission->streams;
    coord_give_back(coord, op, admission->fence);
}

int sl_claim_end(struct sl_coord *coord, struct sl_span id, const char *stage, uint64_t fence,
                 const char *outcome, struct sl_span ending, void (*cb)(void *ctx, int err),
                 void *ctx)
{
    struct sl_op *op;
    int err = coord_op_about(coord, id, stage != NULL ? stage : "", ending, &op);
    if (err != 0) {
        return err;
    }
    op->fence = fence;
    op->outcome = outcome;
    op->cb = cb;
    op->ctx = ctx;
    coord_op_queue(coord, op, OP_END, TRY_MS);
    return 0;
}

int sl_claim_stream(struct sl_coord *coord, struct sl_admission *admission,
                    void (*cb)(void *ctx, int err), void *ctx)
{
    struct sl_op *op;
    int err = coord_op_about(coord, admission->id, admission->stage, (struct sl_span){0}, &op);
    if (err != 0) {
        return err;
    }
    op->bulk = admission->bulk;
    op->fence = admission->fence;
    op->attempt = admission->attempt;
    op->cb = cb;
    op->ctx = ctx;
    admission->streams = true;
    coord_op_queue(coord, op, OP_STREAM, TRY_MS);
    return 0;
}

void sl_claim_ended(struct sl_coord *coord, struct sl_span id, int32_t partition, int64_t offset)
{
    struct sl_op *op;
    if (coord_op_about(coord, id, "", (struct sl_span){0}, &op) == 0) {
        op->place.partition = partition;
        op->place.offset = offset;
        coord_op_queue(coord, op, OP_ENDED, TRY_MS);
    }
}

static void forget_callers(struct sl_list *ops)
{
    SL_LIST_EACH(node, ops)
    {
        SL_ITEM(node, struct sl_op, node)->cb = NULL;
    }
}

void sl_claim_forget_callers(struct sl_coord *coord)
{
    forget_callers(&coord->ops);
    forget_callers(&coord->sent);
}

int sl_coord_cancel(struct sl_coord *coord, struct sl_span query_id, void (*cb)(void *ctx, int err),
                    void *ctx)
{
    struct sl_op *op;
    int err = coord_op_about(coord, query_id, "", (struct sl_span){0}, &op);
    if (err != 0) {
        return err;
    }
    coord_attach_cancelled(coord, query_id, true);
    op->cb = cb;
    op->ctx = ctx;
    coord_op_queue(coord, op, OP_CANCEL, CANCEL_UNITS * (uint64_t)coord->unit_ms);
    return 0;
}
