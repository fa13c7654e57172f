/*
 * Permits, as their users see them: waiting in the line (coord_admit.c), held and renewed
 * (coord_renew.c), given back (coord_settle.c).
 */
#include "common/permit.h"

#include "common/coord_internal.h"

#include <assert.h>

enum { COOL_DOWN_MAX_MS = 600000 };

void sl_permit_init(struct sl_permit *permit, size_t limit, bool bulk,
                    void (*on_granted)(struct sl_permit *permit, int err),
                    void (*on_lost)(struct sl_permit *permit))
{
    assert(on_lost != NULL);
    *permit = (struct sl_permit){
        .limit = limit, .bulk = bulk, .on_granted = on_granted, .on_lost = on_lost};
    sl_list_init(&permit->held);
    sl_list_init(&permit->ticket.node);
}

void sl_permit_request(struct sl_coord *coord, struct sl_permit *permit, int64_t deadline_ms)
{
    assert(permit->state == SL_PERMIT_NONE && permit->on_granted != NULL);
    assert(permit->limit < coord->limit_count);
    permit->state = SL_PERMIT_WAITING;
    permit->ticket = (struct sl_ticket){
        .deadline_ms = deadline_ms,
        .wants = (uint16_t)(1U << (2 * permit->limit + permit->bulk)),
        .bulk = permit->bulk,
    };
    sl_list_init(&permit->ticket.node);
    sl_line_add(&coord->line, &permit->ticket);
    coord_ask(coord);
}

void sl_permit_move(struct sl_permit *from, struct sl_permit *to)
{
    assert(from->state == SL_PERMIT_HELD && to->state == SL_PERMIT_NONE);
    assert(from->limit == to->limit && from->bulk == to->bulk);
    to->state = SL_PERMIT_HELD;
    to->probe = from->probe;
    to->serial = from->serial;
    to->lease_end_ms = from->lease_end_ms;
    to->renewal = from->renewal;
    sl_list_push(&from->held, &to->held); /* In its place. */
    sl_list_remove(&from->held);
    from->state = SL_PERMIT_NONE;
}

bool sl_permit_awaited(const struct sl_coord *coord, size_t limit)
{
    SL_LIST_EACH(node, &coord->line.tickets)
    {
        if (SL_ITEM(node, struct sl_ticket, node)->wants & sl_line_limit(limit)) {
            return true;
        }
    }
    return false;
}

void sl_permit_release(struct sl_coord *coord, struct sl_permit *permit)
{
    if (permit->state == SL_PERMIT_WAITING) {
        coord_leave_line(coord, &permit->ticket);
        permit->state = SL_PERMIT_NONE;
    } else if (permit->state == SL_PERMIT_HELD) {
        coord_release(coord, permit->limit, permit->bulk, permit->serial);
        coord_drop(coord, permit);
    }
}

void sl_permit_cool_down(struct sl_coord *coord, size_t limit, uint32_t delay_ms)
{
    assert(limit < coord->limit_count);
    struct sl_op *op = delay_ms > 0 ? coord_op_new(coord) : NULL;
    if (op != NULL) {
        op->limit = limit;
        coord_op_queue(coord, op, OP_COOL,
                       delay_ms < COOL_DOWN_MAX_MS ? delay_ms : COOL_DOWN_MAX_MS);
    }
}

void sl_permit_heal(struct sl_coord *coord, struct sl_permit *permit)
{
    assert(permit->state == SL_PERMIT_HELD);
    struct sl_op *op = permit->probe ? coord_op_new(coord) : NULL;
    if (op != NULL) {
        permit->probe = false;
        op->limit = permit->limit;
        op->serial = permit->serial;
        coord_op_queue(coord, op, OP_HEAL, coord->ttl_ms);
    }
}

uint32_t sl_permit_held(const struct sl_coord *coord, size_t limit)
{
    return limit < coord->limit_count ? coord->held_count[limit] : 0;
}
