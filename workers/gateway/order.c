/*
 * The reader's rules.
 *
 * The first terminal event in log order ends the stream, and whatever comes after it is dropped.
 * Before that, two kinds of events are told apart by their attempt:
 *
 *   attempt 0    Before generation: the sources, and the endings of whoever ended the query without
 *                generating. Each stage numbers its own, so there is no sequence to check: sources
 *                count once, an ending always. The sources are sent just after the next stage's
 *                record, so where the broker is slow the first delta may overtake them.
 *   attempt 1..  Generation. Its owner's fence only grows. Lower fences are dropped, as are
 *                sequence numbers seen already. A gap means that text is missing. A higher fence is
 *                a new owner, who begins at 0: welcome as long as no text was taken, else only with
 *                an explicit restart.
 *
 * An error ends the stream whatever is missing before it: it says itself that the answer is not
 * whole, and it is what the query's result says.
 */
#include "workers/gateway/order.h"

static bool is_terminal(const struct sl_event *event)
{
    return event->type == SL_EVENT_DONE || event->type == SL_EVENT_ERROR;
}

static enum order_verdict end(struct order *order, enum order_verdict verdict)
{
    order->ended = true;
    return verdict;
}

static enum order_verdict take_early(struct order *order, const struct sl_event *event)
{
    if (is_terminal(event)) {
        return end(order, ORDER_TAKE);
    }
    if (event->type != SL_EVENT_SOURCES || order->has_sources) {
        return ORDER_DROP;
    }
    order->has_sources = true;
    return ORDER_TAKE;
}

/* Is this what must come next? Moves to a new owner's attempt. */
static bool follows(struct order *order, const struct sl_event *event)
{
    if (event->fence > order->fence) {
        if (order->has_text && event->type != SL_EVENT_RESTART) {
            return false;
        }
        order->fence = event->fence;
        order->attempt = event->attempt;
        order->next_seq = 0;
    }
    return event->seq == order->next_seq;
}

enum order_verdict order_take(struct order *order, const struct sl_event *event)
{
    if (order->ended) {
        return ORDER_DROP;
    }
    if (event->attempt == 0) {
        return take_early(order, event);
    }
    if (event->fence < order->fence) {
        return ORDER_DROP;
    }
    if (event->type == SL_EVENT_ERROR) {
        return end(order, ORDER_TAKE);
    }
    if (event->fence == order->fence && event->seq < order->next_seq) {
        return ORDER_DROP;
    }
    if (!follows(order, event)) {
        return end(order, ORDER_LOST);
    }
    order->next_seq++;
    if (event->type == SL_EVENT_DONE) {
        return end(order, ORDER_TAKE);
    }
    order->has_text =
        event->type == SL_EVENT_DELTA || (order->has_text && event->type != SL_EVENT_RESTART);
    return ORDER_TAKE;
}
