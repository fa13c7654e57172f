/*
 * Events that came before their turn. The sources and the next stage's record are sent at the same
 * time, so a slow broker lets the first tokens overtake the sources; callers get them in order. One
 * struct early a caller that is streamed to.
 */
#ifndef SLUICE_GATEWAY_EARLY_H
#define SLUICE_GATEWAY_EARLY_H

#include "workers/gateway/order.h"

struct early {
    struct sl_buf records; /* Values as they came, each behind its length. */
    bool over;             /* Nothing is kept any more: the sources came, or will not. */
};

void early_init(struct early *early);
void early_fini(struct early *early);
/* Should the event wait for the sources? Then a copy of its record's value is kept. */
bool early_keep(struct early *early, const struct order *order, const struct sl_event *event,
                struct sl_span value);
/* Whether anything waits. */
bool early_any(const struct early *early);
/* From now on nothing waits; what did is given in order, decoded, until take returns false. */
void early_give(struct early *early,
                bool (*take)(void *ctx, const struct sl_event *event, struct sl_span value),
                void *ctx);

#endif
