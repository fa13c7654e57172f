/*
 * Which events of a query's stream count. The reply topic is a log that several workers may have
 * written: one that was paused and comes back, one that took over, one that sends its ending again.
 * These rules make a single stream of it. Pure; one struct order a reader of a query.
 */
#ifndef SLUICE_GATEWAY_ORDER_H
#define SLUICE_GATEWAY_ORDER_H

#include "common/message.h"

/* Zeroed: nothing read yet. */
struct order {
    uint64_t fence;    /* Of the attempt of generation that is being read. */
    uint32_t attempt;  /* 0: generation has not sent anything. */
    uint32_t next_seq; /* Of that attempt. */
    bool has_sources;
    bool has_text; /* A delta was taken since the last restart. */
    bool ended;    /* The first terminal event was taken, or the stream was found broken. */
};

enum order_verdict {
    ORDER_DROP, /* Old, seen, or after the end. */
    ORDER_TAKE,
    ORDER_LOST, /* Something is missing: the stream ends with worker_lost. */
};

/* The next event in log order. */
enum order_verdict order_take(struct order *order, const struct sl_event *event);

#endif
