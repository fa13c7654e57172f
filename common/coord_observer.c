/*
 * Observing heartbeats. Each owner that is silent, or holds somebody up, has an entry; a look with
 * another heartbeat than the entry's, or with one that is not old yet, starts it over. The proof is
 * repeated at each look rather than kept, so that an owner that beats again is alive again at once.
 */
#include "common/coord_observer.h"

#include <assert.h>

void sl_observer_init(struct sl_observer *observer, uint32_t unit_ms)
{
    *observer = (struct sl_observer){.unit_ms = unit_ms};
}

void sl_observer_reply(struct sl_observer *observer, uint64_t local_ms, int64_t redis_ms)
{
    int64_t gap = 2 * (int64_t)observer->unit_ms;
    if (observer->reply_redis_ms != 0 &&
        ((int64_t)(local_ms - observer->reply_local_ms) > gap ||
         redis_ms - observer->reply_redis_ms > gap || redis_ms < observer->reply_redis_ms - gap)) {
        observer->len = 0;
        observer->steady_local_ms = local_ms;
    }
    if (observer->reply_redis_ms == 0) {
        observer->steady_local_ms = local_ms;
    }
    observer->reply_local_ms = local_ms;
    observer->reply_redis_ms = redis_ms;
}

static struct sl_observed *find_or_add(struct sl_observer *observer, struct sl_span owner)
{
    struct sl_observed *oldest = &observer->owners[0];
    for (size_t i = 0; i < observer->len; i++) {
        struct sl_observed *o = &observer->owners[i];
        if (sl_span_is(owner, o->owner)) {
            return o;
        }
        if (o->look_ms < oldest->look_ms) {
            oldest = o;
        }
    }
    if (observer->len < SL_OBSERVED_MAX) {
        oldest = &observer->owners[observer->len++];
    }
    *oldest = (struct sl_observed){.heartbeat_ms = -1};
    memcpy(oldest->owner, owner.data, owner.len);
    return oldest;
}

bool sl_observer_look(struct sl_observer *observer, struct sl_span owner, int64_t heartbeat_ms)
{
    assert(observer->reply_redis_ms != 0);
    if (owner.len == 0 || owner.len >= SL_OWNER_MAX) {
        return false; /* Not an owner that any process here can be. */
    }
    heartbeat_ms = heartbeat_ms > 0 ? heartbeat_ms : 0; /* Else it is no time. */
    int64_t now = observer->reply_redis_ms;
    struct sl_observed *o = find_or_add(observer, owner);
    o->look_ms = now;
    if (o->heartbeat_ms != heartbeat_ms) {
        o->heartbeat_ms = heartbeat_ms;
        o->first_ms = 0;
    }
    if (now - heartbeat_ms <= 6 * (int64_t)observer->unit_ms) {
        o->first_ms = 0;
        return false;
    }
    if (o->first_ms == 0) {
        o->first_ms = now;
    }
    return now - o->first_ms >= 5 * (int64_t)observer->unit_ms;
}

bool sl_observer_steady(const struct sl_observer *observer, uint64_t local_ms)
{
    return observer->reply_redis_ms != 0 &&
           local_ms - observer->reply_local_ms <= 2 * (uint64_t)observer->unit_ms &&
           local_ms - observer->steady_local_ms >= 5 * (uint64_t)observer->unit_ms;
}
