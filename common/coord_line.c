/*
 * The line is one sorted list. Deadlines mostly come in order, so that a new ticket is placed from
 * the end in a few steps. A ticket is due when its own time has come: at once when it is new, then
 * at the time that the script named, at the latest a second later. When a limit moves (a permit
 * came back, or all who were asked for got one), only the first few that want it are asked for; if
 * they are all served, it has moved again.
 */
#include "common/coord_line.h"

void sl_line_init(struct sl_line *line)
{
    *line = (struct sl_line){0};
    sl_list_init(&line->tickets);
}

static bool comes_before(const struct sl_ticket *a, const struct sl_ticket *b)
{
    if (a->bulk != b->bulk) {
        return b->bulk;
    }
    int64_t deadline_a = a->deadline_ms > 0 ? a->deadline_ms : INT64_MAX;
    int64_t deadline_b = b->deadline_ms > 0 ? b->deadline_ms : INT64_MAX;
    return deadline_a < deadline_b;
}

void sl_line_add(struct sl_line *line, struct sl_ticket *ticket)
{
    struct sl_list *after = line->tickets.prev;
    while (after != &line->tickets &&
           comes_before(ticket, SL_ITEM(after, struct sl_ticket, node))) {
        after = after->prev;
    }
    sl_list_push(after->next, &ticket->node); /* Before the one that follows. */
    line->len++;
}

void sl_line_remove(struct sl_line *line, struct sl_ticket *ticket)
{
    if (ticket->node.next != &ticket->node) {
        sl_list_remove(&ticket->node);
        line->len--;
    }
}

void sl_line_move(struct sl_line *line, uint16_t wants)
{
    line->moved |= wants;
}

/* Of the limits in wants, the bits of both classes. */
static uint16_t both_classes(uint16_t wants)
{
    return (uint16_t)(wants | (wants & 0x5555) << 1 | (wants & 0xaaaa) >> 1);
}

/* Whether it is among the first of those who want one of the limits that moved. */
static bool is_head(const struct sl_ticket *ticket, uint16_t moved, uint32_t *heads)
{
    bool head = false;
    for (uint16_t bits = ticket->wants & moved; bits != 0; bits &= (uint16_t)(bits - 1)) {
        head = ++heads[__builtin_ctz(bits)] <= SL_LINE_HEADS || head;
    }
    return head;
}

size_t sl_line_collect(struct sl_line *line, uint64_t now_ms, struct sl_ticket **ret)
{
    uint16_t moved = line->moved;
    SL_LIST_EACH(node, &line->tickets)
    {
        const struct sl_ticket *ticket = SL_ITEM(node, struct sl_ticket, node);
        if (ticket->slot == 0 && ticket->ask_ms <= now_ms) {
            moved |= ticket->wants;
        }
    }
    moved = both_classes(moved);
    uint32_t heads[16] = {0};
    size_t len = 0;
    SL_LIST_EACH(node, &line->tickets)
    {
        struct sl_ticket *ticket = SL_ITEM(node, struct sl_ticket, node);
        if (len == SL_LINE_BATCH) {
            break;
        }
        if (ticket->slot == 0 && (ticket->ask_ms <= now_ms || is_head(ticket, moved, heads))) {
            ret[len++] = ticket;
        }
    }
    line->moved = len == SL_LINE_BATCH ? moved : 0;
    return len;
}

uint64_t sl_line_next(const struct sl_line *line)
{
    uint64_t next = UINT64_MAX;
    SL_LIST_EACH(node, &line->tickets)
    {
        const struct sl_ticket *ticket = SL_ITEM(node, struct sl_ticket, node);
        if (ticket->slot == 0 && ticket->ask_ms < next) {
            next = ticket->ask_ms;
        }
    }
    return next;
}
