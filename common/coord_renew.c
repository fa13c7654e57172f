/*
 * Leases. Every 4 s one round of renewals carries all permits that this process holds and all
 * claims that it runs, 256 a script, one script after another. The answer names only what is lost
 * and which queries were cancelled; everything else that the script carried is renewed. In a
 * quarantine the round also carries what has readers here, and at any time those of them of which
 * Redis has not heard all.
 *
 * A permit's lease ends here, by this process's clock, one second before it can end on Redis: 14 s
 * after the last acknowledged script that carried it was sent. Whether the reply was lost, Redis is
 * away or this process was held up makes no difference: on_lost comes then, and the call is closed
 * before Redis gives the place to somebody else. Claims have no such end: nobody takes one over
 * before its owner was seen dead, and fences order what two runners send.
 *
 * A round is also begun when the link comes up (after a restart of Redis it writes down again what
 * was lost, see the prelude's quarantine) and after each resubscription (a cancellation may have
 * been missed).
 */
#include "common/coord_internal.h"

#include "common/clock.h"
#include "common/log.h"

/* --- permits that are held --- */

static void on_lease_timer(struct sl_timer *timer);

static void watch_lease(struct sl_coord *coord, uint64_t end_ms)
{
    if (!sl_timer_active(&coord->lease_timer) || coord->lease_timer.due_ms > end_ms) {
        uint64_t now = sl_clock_now_ms();
        sl_timer_start(coord->loop, &coord->lease_timer, end_ms > now ? end_ms - now : 0,
                       on_lease_timer);
    }
}

static uint64_t lease_end(const struct sl_coord *coord, uint64_t sent_ms)
{
    return sent_ms + coord->ttl_ms - coord->unit_ms;
}

void coord_hold(struct sl_coord *coord, struct sl_permit *permit, uint64_t serial, bool probe,
                uint64_t sent_ms)
{
    permit->state = SL_PERMIT_HELD;
    permit->probe = probe;
    permit->serial = serial;
    permit->lease_end_ms = lease_end(coord, sent_ms);
    permit->renewal = coord->renewal + 1;
    sl_list_push(&coord->held, &permit->held);
    coord->held_count[permit->limit]++;
    sl_gauge_set(coord->gauge_held[permit->limit], coord->held_count[permit->limit]);
    watch_lease(coord, permit->lease_end_ms);
}

void coord_drop(struct sl_coord *coord, struct sl_permit *permit)
{
    permit->state = SL_PERMIT_NONE;
    sl_list_remove(&permit->held);
    coord->held_count[permit->limit]--;
    sl_gauge_set(coord->gauge_held[permit->limit], coord->held_count[permit->limit]);
}

static void lose_permit(struct sl_coord *coord, struct sl_permit *permit)
{
    sl_log(SL_LOG_WARN, "permit lost", SL_STR("upstream", coord->limits[permit->limit].name));
    sl_counter_add(coord->lost_permits, 1);
    coord_drop(coord, permit);
    permit->on_lost(permit);
}

static void on_lease_timer(struct sl_timer *timer)
{
    struct sl_coord *coord = SL_ITEM(timer, struct sl_coord, lease_timer);
    struct sl_permit *over;
    do {
        uint64_t next = UINT64_MAX;
        over = NULL;
        SL_LIST_EACH(node, &coord->held)
        {
            struct sl_permit *permit = SL_ITEM(node, struct sl_permit, held);
            if (permit->lease_end_ms <= sl_clock_now_ms()) {
                over = permit;
                break;
            }
            next = permit->lease_end_ms < next ? permit->lease_end_ms : next;
        }
        if (over != NULL) {
            coord_release(coord, over->limit, over->bulk, over->serial);
            lose_permit(coord, over); /* It may change the list: start again. */
        } else if (next != UINT64_MAX) {
            watch_lease(coord, next);
        }
    } while (over != NULL);
}

/* --- renewals --- */

static size_t put_permits(struct sl_coord *coord, size_t max, bool count_only)
{
    size_t len = 0;
    SL_LIST_EACH(node, &coord->held)
    {
        struct sl_permit *permit = SL_ITEM(node, struct sl_permit, held);
        if (len == max) {
            break;
        }
        if (permit->renewal >= coord->round) {
            continue;
        }
        len++;
        if (!count_only) {
            permit->renewal = coord->renewal;
            coord_args_text(coord, "permit");
            coord_args_text(coord, coord->limits[permit->limit].name);
            coord_args_text(coord, permit->bulk ? "bulk" : "query");
            coord_args_int(coord, permit->serial);
        }
    }
    return len;
}

static size_t put_claims(struct sl_coord *coord, size_t max, bool count_only)
{
    size_t len = 0;
    SL_LIST_EACH(node, &coord->granted)
    {
        struct sl_admission *admission = SL_ITEM(node, struct sl_admission, node);
        if (len == max) {
            break;
        }
        if (admission->renewal >= coord->round) {
            continue;
        }
        len++;
        if (!count_only) {
            admission->renewal = coord->renewal;
            coord_args_text(coord, "claim");
            coord_args_int(coord, admission->serial);
            coord_args_work(coord, admission->op);
            coord_args_int(coord, admission->fence);
            coord_args_int(coord, admission->attempt);
            coord_args_text(coord, admission->streams ? "t" : "s");
        }
    }
    return len;
}

static size_t put_attached(struct sl_coord *coord, size_t max, bool all, bool count_only)
{
    size_t len = 0;
    SL_LIST_EACH(node, &coord->attached)
    {
        struct sl_attachment *attachment = SL_ITEM(node, struct sl_attachment, node);
        if (len == max) {
            break;
        }
        if (attachment->renewal >= coord->round || (attachment->told && !all)) {
            continue;
        }
        len++;
        if (!count_only) {
            attachment->renewal = coord->renewal;
            coord_args_text(coord, "attached");
            coord_args_span(coord, attachment->id);
            coord_args_place(coord, &attachment->place);
            coord_args_int(coord, attachment->cancelled ? 1 : 0);
        }
    }
    return len;
}

static void end_round(struct sl_coord *coord)
{
    coord->round = 0;
    if (coord->renew_again) {
        coord->renew_again = false;
        coord_renew_now(coord);
    }
}

/* The next script of a round; the round ends when nothing is left that it has not carried. */
static void renew_next(struct sl_coord *coord)
{
    size_t permits = put_permits(coord, COORD_RENEW_MAX, true);
    size_t claims = put_claims(coord, COORD_RENEW_MAX - permits, true);
    bool all = sl_coord_quarantine_ms(coord) > 0; /* Once: it must not end in between. */
    size_t attached = put_attached(coord, COORD_RENEW_MAX - permits - claims, all, true);
    if (!coord->linked || permits + claims + attached == 0) {
        end_round(coord);
        return;
    }
    coord->renewal += 2;
    coord_args_begin(coord);
    coord_args_int(coord, permits + claims + attached);
    put_permits(coord, permits, false);
    put_claims(coord, claims, false);
    put_attached(coord, attached, all, false);
    int err = coord_script_run(&coord->renew);
    if (err != 0) {
        coord_on_renewed(coord, err, NULL);
    }
}

static void on_renew_timer(struct sl_timer *timer)
{
    struct sl_coord *coord = SL_ITEM(timer, struct sl_coord, renew_timer);
    coord_renew_now(coord);
}

void coord_renew_now(struct sl_coord *coord)
{
    sl_timer_start(coord->loop, &coord->renew_timer, 4 * (uint64_t)coord->unit_ms, on_renew_timer);
    if (coord->renew.out) {
        coord->renew_again = true;
        return;
    }
    coord->round = coord->renewal + 2;
    renew_next(coord);
}

static struct sl_permit *find_held(struct sl_coord *coord, uint64_t serial)
{
    SL_LIST_EACH(node, &coord->held)
    {
        struct sl_permit *permit = SL_ITEM(node, struct sl_permit, held);
        if (permit->serial == serial) {
            return permit;
        }
    }
    return NULL;
}

static struct sl_admission *find_granted(struct sl_coord *coord, uint64_t serial)
{
    SL_LIST_EACH(node, &coord->granted)
    {
        struct sl_admission *admission = SL_ITEM(node, struct sl_admission, node);
        if (admission->serial == serial) {
            return admission;
        }
    }
    return NULL;
}

static void tell_claim(struct sl_coord *coord, struct sl_admission *admission, long long what)
{
    enum { CLAIM_CANCELLED = 1, CLAIM_LOST = 2 };
    if (what == CLAIM_CANCELLED) {
        admission->cancel_seen = true;
    } else if (what == CLAIM_LOST) {
        sl_list_remove(&admission->node);
        admission->state = SL_ADMIT_IDLE;
        sl_counter_add(coord->lost_claims, 1);
        admission->on_lost(admission);
    }
}

void coord_on_renewed(struct sl_coord *coord, int err, const struct redisReply *reply)
{
    if (err != 0) {
        end_round(
            coord); /* The next comes with the link or with the timer; leases end meanwhile. */
        return;
    }
    const struct redisReply *lost = sl_reply_at(reply, 2), *told = sl_reply_at(reply, 3);
    for (size_t i = 0; i < sl_reply_len(lost); i++) {
        struct sl_permit *permit = find_held(coord, (uint64_t)sl_reply_int(sl_reply_at(lost, i)));
        if (permit != NULL) {
            lose_permit(coord, permit);
        }
    }
    SL_LIST_EACH(node, &coord->held)
    {
        struct sl_permit *permit = SL_ITEM(node, struct sl_permit, held);
        if (permit->renewal == coord->renewal) {
            permit->lease_end_ms = lease_end(coord, coord->renew.sent_ms);
        }
    }
    SL_LIST_EACH(node, &coord->attached)
    {
        struct sl_attachment *attachment = SL_ITEM(node, struct sl_attachment, node);
        attachment->told = attachment->told || attachment->renewal == coord->renewal;
    }
    for (size_t i = 0; i + 1 < sl_reply_len(told); i += 2) {
        struct sl_admission *admission =
            find_granted(coord, (uint64_t)sl_reply_int(sl_reply_at(told, i)));
        if (admission != NULL) {
            tell_claim(coord, admission, sl_reply_int(sl_reply_at(told, i + 1)));
        }
    }
    coord_tell_cancelled(coord);
    if (!coord->renew.out) { /* A callback above may have begun a round of its own. */
        renew_next(coord);
    }
}
