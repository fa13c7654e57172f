/*
 * Permits: leases on a cluster-wide limit of calls in flight. A permit is a member of its owner. It
 * is asked for alone (sl_permit_request) or with an admission (claim.h), renewed by the coord while
 * held, and given back by sl_permit_release. When its lease cannot be kept, on_lost says so before
 * it ends, by this process's own clock, so that the call can be closed in time.
 */
#ifndef SLUICE_COMMON_PERMIT_H
#define SLUICE_COMMON_PERMIT_H

#include "common/coord.h"

enum sl_permit_state { SL_PERMIT_NONE, SL_PERMIT_WAITING, SL_PERMIT_HELD };

/* A place in the line for the next round trip; a member of what waits. The coord's alone. */
struct sl_ticket {
    struct sl_list node;
    int64_t deadline_ms; /* Redis's clock; 0: none. */
    uint64_t ask_ms;     /* This process's monotonic clock: when to ask (again). */
    uint16_t wants;      /* Bits 2 * limit + bulk. */
    uint16_t slot;       /* 1 + its place in the batch that is out; 0: not asked now. */
    bool bulk;
    bool job; /* Of an admission, else of a permit. */
};

struct sl_permit {
    /* Set by sl_permit_init. */
    size_t limit; /* sl_coord_limit */
    bool bulk;
    void (*on_granted)(struct sl_permit *permit, int err); /* See sl_permit_request. */
    void (*on_lost)(struct sl_permit *permit);             /* Then the state is NONE already. */
    void *owner; /* For the callbacks; the coord never looks at it. */
    /* The coord's. */
    enum sl_permit_state state;
    bool probe;              /* Held, and the one that its limit grants after a cool-down. */
    uint64_t serial;         /* Names the lease among those of this process. */
    uint64_t lease_end_ms;   /* This process's monotonic clock. */
    uint64_t renewal;        /* The last that carried it. */
    struct sl_list held;     /* While held. */
    struct sl_ticket ticket; /* While waiting. */
};

void sl_permit_init(struct sl_permit *permit, size_t limit, bool bulk,
                    void (*on_granted)(struct sl_permit *permit, int err),
                    void (*on_lost)(struct sl_permit *permit));
/* on_granted comes later: 0 and the permit is held, or -SL_EEXPIRED at deadline_ms (Redis's clock).
 * Waits through cool-downs, quarantine and a Redis that is away; served in order of deadlines. */
void sl_permit_request(struct sl_coord *coord, struct sl_permit *permit, int64_t deadline_ms);
/* One that is held goes on as `to`, which is initialised, of the same limit and class, and neither
 * held nor waiting. `from` then is as before it was asked for. */
void sl_permit_move(struct sl_permit *from, struct sl_permit *to);
/* Whether somebody in this process waits for a permit of this limit, or asks for one now. */
bool sl_permit_awaited(const struct sl_coord *coord, size_t limit);
/* Gives back a held permit, withdraws a waiting one; nothing on one that is neither. Never fails:
 * what Redis does not hear of ends with the lease. */
void sl_permit_release(struct sl_coord *coord, struct sl_permit *permit);

/* No process starts a call on this limit for so long (429 or 503 with Retry-After). At most 10 min.
 * Then one permit at a time is granted, as a probe, until the call of one is told to have
 * succeeded. */
void sl_permit_cool_down(struct sl_coord *coord, size_t limit, uint32_t delay_ms);
/* The call of this permit, which is held, succeeded: if it was a probe its limit is open again. */
void sl_permit_heal(struct sl_coord *coord, struct sl_permit *permit);
/* Held by this process. */
uint32_t sl_permit_held(const struct sl_coord *coord, size_t limit);

#endif
