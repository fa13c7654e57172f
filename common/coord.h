/*
 * This process among the others, through Redis: who it is (a random boot id with a heartbeat), what
 * time it is on Redis's clock, and whether Redis can be relied on. Claims (claim.h) and permits
 * (permit.h) stand on it. Section 5 of docs/ARCHITECTURE.md is the specification of all three.
 */
#ifndef SLUICE_COMMON_COORD_H
#define SLUICE_COMMON_COORD_H

#include "common/buf.h"
#include "common/loop.h"
#include "common/metrics.h"

struct sl_coord;

/* A limit on calls in flight in the whole cluster. */
struct sl_limit {
    const char *name;   /* "CHAT"; static. */
    uint32_t limit;     /* All together. */
    uint32_t query_max; /* The most that queries hold; 0: limit. */
    uint32_t bulk_max;  /* The most that bulk work holds; 0: limit. */
};

enum { SL_LIMITS_MAX = 8 };

struct sl_coord_config {
    const char *redis_url;
    const char *prefix;  /* Of every key: "sluice" gives "sluice:...". */
    const char *boot_id; /* NULL: random, 16 hex digits. For tests. */
    const struct sl_limit *limits;
    size_t limit_count;
    uint64_t
        result_ttl_ms; /* SLUICE_RESULT_TTL: of claims that are done, endings and cancellations. */
    /* SLUICE_ORPHAN_GRACE: after so long without a heartbeat of its gateways a query is as if they
     * had left it. Heartbeats are kept this + 60 s. */
    uint64_t orphan_grace_ms;
    struct sl_metrics *metrics; /* sluice_permits_in_use, sluice_permit_limit, ... */
    void (*on_ready)(void *ctx, bool ready, const char *why); /* Redis usable or not; on changes. */
    void *ctx;
    /* Of a lease; 0: 15000. All other times here are fractions of it (a fifteenth is "a second"),
     * so that tests can run them faster. All processes of a cluster must agree. */
    uint32_t ttl_ms;
};

int sl_coord_create(struct sl_loop *loop, const struct sl_coord_config *config,
                    struct sl_coord **ret, char *why, size_t why_size) SL_CHECKED;
/* Every admission and permit must be settled or withdrawn before, every attachment detached. What
 * Redis has not acknowledged is forgotten (see sl_coord_idle), callbacks that are due do not come.
 * Takes NULL. */
void sl_coord_destroy(struct sl_coord *coord);
/* Nothing that was settled, released or cancelled here is still on its way to Redis. */
bool sl_coord_idle(const struct sl_coord *coord);

const char *sl_coord_owner(const struct sl_coord *coord); /* The boot id. */
/* Linked to Redis, its clock known. New upstream calls start only while it is. */
bool sl_coord_ready(const struct sl_coord *coord);
/* How long nothing new is admitted because Redis lost its state; 0: not now. From the last reply.
 */
uint64_t sl_coord_quarantine_ms(const struct sl_coord *coord);
/* Redis's clock, Unix ms, from the last reply and this process's monotonic clock; costs no round
 * trip. Before the first reply: the machine's wall clock. */
int64_t sl_coord_now_ms(const struct sl_coord *coord);
/* The index of a limit by name; SL_LIMITS_MAX when there is none. */
size_t sl_coord_limit(const struct sl_coord *coord, const char *name);
const char *sl_coord_prefix(const struct sl_coord *coord);
/* The same connection, for scripts of a stage's own. Their callbacks may come as late as inside
 * sl_coord_destroy. */
struct sl_redis;
struct sl_redis *sl_coord_redis(const struct sl_coord *coord);
uint64_t sl_coord_result_ttl_ms(const struct sl_coord *coord); /* As configured. */

/* Cancels a query: notes it in Redis and tells every process. Also without any claim. cb (may be
 * NULL): 0 when Redis has it; tried for 10 s, then -SL_ECONN. That of a query that is attached here
 * (attach.h) is told later all the same. Returns -SL_ENOMEM, or -SL_EAGAIN when 10,000 such
 * requests wait. */
int sl_coord_cancel(struct sl_coord *coord, struct sl_span query_id, void (*cb)(void *ctx, int err),
                    void *ctx) SL_CHECKED;

#endif
