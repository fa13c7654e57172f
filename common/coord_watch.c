/*
 * Once a second: the heartbeat, a look at all owners that have fallen silent, and one at what is
 * parked here because other owners hold it. One script does it all; more than 256 parked jobs take
 * several, one after another.
 *
 * Silent owners are watched whether they hold anything up here or not: the jobs of a worker that
 * was killed come here when its consumer group has noticed, ten seconds later, and by then most of
 * the proof that it is dead has been gathered.
 *
 * A parked job is tried again when nobody holds it any more, or when its holder is dead (see
 * coord_observer.h); the admission then carries that owner's name, and the script that admits it
 * checks again. Between the looks a hint over pub/sub does the same at once, when the holder
 * settles it.
 *
 * The first heartbeat that Redis acknowledges after the link came up makes this process ready; one
 * that Redis answers with an error (it is full, or a replica) makes it unready.
 */
#include "common/coord_internal.h"

#include "common/clock.h"

#include <assert.h>

void coord_park(struct sl_coord *coord, struct sl_admission *admission)
{
    admission->state = SL_ADMIT_PARKED;
    admission->look = coord->look;
    admission->look_slot = 0;
    sl_list_push(&coord->parked, &admission->node);
}

void coord_unpark(struct sl_coord *coord, struct sl_admission *admission)
{
    assert(admission->state == SL_ADMIT_PARKED);
    if (admission->look_slot != 0) {
        coord->looked[admission->look_slot - 1] = NULL;
        admission->look_slot = 0;
    }
    sl_list_remove(&admission->node);
    admission->state = SL_ADMIT_IDLE;
}

static void retry(struct sl_coord *coord, struct sl_admission *admission)
{
    coord_unpark(coord, admission);
    admission->on_retry(admission);
}

static struct sl_admission *find_parked(struct sl_coord *coord, struct sl_span id)
{
    SL_LIST_EACH(node, &coord->parked)
    {
        struct sl_admission *admission = SL_ITEM(node, struct sl_admission, node);
        if (sl_span_equal(admission->id, id)) {
            return admission;
        }
    }
    return NULL;
}

void coord_retry_parked(struct sl_coord *coord, struct sl_span id)
{
    for (struct sl_admission *a = find_parked(coord, id); a != NULL; a = find_parked(coord, id)) {
        retry(coord, a);
    }
}

/* --- the script --- */

static void look_at_parked(struct sl_coord *coord)
{
    coord->look_count = 0;
    SL_LIST_EACH(node, &coord->parked)
    {
        struct sl_admission *admission = SL_ITEM(node, struct sl_admission, node);
        if (coord->look_count == COORD_WATCH_MAX) {
            break;
        }
        if (admission->look != coord->look) {
            admission->look = coord->look;
            coord->looked[coord->look_count++] = admission;
            admission->look_slot = (uint16_t)coord->look_count;
        }
    }
}

static void beat(struct sl_coord *coord)
{
    look_at_parked(coord);
    coord_args_begin(coord);
    coord_args_int(coord, coord->heartbeat_ttl_ms);
    coord_args_int(coord, coord->look_count);
    for (size_t i = 0; i < coord->look_count; i++) {
        coord_args_work(coord, coord->looked[i]->op);
    }
    int err = coord_script_run(&coord->beat);
    if (err != 0) {
        coord_on_beaten(coord, err, NULL);
    }
}

static void on_beat_timer(struct sl_timer *timer)
{
    struct sl_coord *coord = SL_ITEM(timer, struct sl_coord, beat_timer);
    coord_settle_expire(coord);
    coord_ask(coord); /* A claim to give back may have held it up. */
    coord_beat_now(coord);
}

void coord_beat_now(struct sl_coord *coord)
{
    sl_timer_start(coord->loop, &coord->beat_timer, coord->unit_ms, on_beat_timer);
    if (coord->linked && !coord->beat.out) {
        coord->look++;
        beat(coord);
    }
}

static void judge(struct sl_coord *coord, struct sl_admission *admission, struct sl_span owner,
                  int64_t heartbeat_ms)
{
    if (owner.len == 0) {
        retry(coord, admission);
    } else if (sl_observer_look(&coord->observer, owner, heartbeat_ms)) {
        memcpy(admission->dead_owner, owner.data, owner.len);
        admission->dead_owner[owner.len] = '\0';
        retry(coord, admission);
    }
}

static void look_at_silent(struct sl_coord *coord, const struct redisReply *silent)
{
    for (size_t i = 0; i + 1 < sl_reply_len(silent); i += 2) {
        (void)sl_observer_look(&coord->observer, sl_reply_span(sl_reply_at(silent, i)),
                               sl_reply_int(sl_reply_at(silent, i + 1)));
    }
}

void coord_on_beaten(struct sl_coord *coord, int err, const struct redisReply *reply)
{
    size_t count = coord->look_count;
    if (err == 0) {
        look_at_silent(coord, sl_reply_at(reply, 2));
    }
    for (size_t i = 0; i < count; i++) {
        struct sl_admission *admission = coord->looked[i];
        if (admission == NULL) {
            continue; /* Withdrawn or retried meanwhile. */
        }
        admission->look_slot = 0;
        if (err == 0) {
            judge(coord, admission, sl_reply_span(sl_reply_at(reply, 3 + 2 * i)),
                  sl_reply_int(sl_reply_at(reply, 4 + 2 * i)));
        }
    }
    coord->look_count = 0;
    if (err == -SL_EUPSTREAM || err == -SL_EPROTO) {
        coord_set_ready(coord, false, "Redis answers errors; the log has them");
    }
    if (err != 0) {
        return; /* A link that went down says so itself. */
    }
    coord_set_ready(coord, true, NULL);
    if (count == COORD_WATCH_MAX && coord->linked && !coord->beat.out) {
        beat(coord); /* There may be more to look at. */
    }
}
