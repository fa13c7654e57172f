/*
 * The admission line's round trips. One script is out at a time; it carries what coord_line.c says
 * is to be asked now, admissions and permit requests together, by deadline. What is answered `wait`
 * stays in the line and is asked again when a hint says that a permit came back, when the time has
 * come that the script named (a lease, a cool-down or the quarantine ends), or a second later.
 *
 * The story of an admission: sl_admit puts its ticket into the line and defers the asking, so that
 * what one turn of the loop gathers travels together. When it is asked, each permit that it wants
 * gets a serial of its own. The reply tells the verdicts one by one; a callback may withdraw others
 * of the same batch: their slots remember what to clean up.
 *
 * What can go wrong: the reply is lost. Redis may have granted what was asked: the permits asked
 * for are released by their serials, and the claims are asked for again under the same owner, who
 * gets them anew; one that is withdrawn before that is given back, and nothing is asked until Redis
 * has that. An answer that is seconds old, because this process stood still, counts as lost too.
 */
#include "common/coord_internal.h"

#include "common/clock.h"
#include "common/log.h"

#include <assert.h>

enum { STALE_UNITS = 5 }; /* Less than it takes to be thought dead. */
enum answer { ANSWER_WAIT = SL_VERDICT_STREAMED + 1, ANSWER_HELD }; /* Before, the verdicts. */

static struct sl_admission *job_of(struct sl_ticket *ticket)
{
    assert(ticket->job);
    return SL_ITEM(ticket, struct sl_admission, ticket);
}

/* --- asking --- */

static void put_limits(struct sl_coord *coord)
{
    coord_args_int(coord, coord->limit_count);
    for (size_t i = 0; i < coord->limit_count; i++) {
        const struct sl_limit *limit = &coord->limits[i];
        coord_args_text(coord, limit->name);
        coord_args_int(coord, limit->limit);
        coord_args_int(coord, limit->query_max != 0 ? limit->query_max : limit->limit);
        coord_args_int(coord, limit->bulk_max != 0 ? limit->bulk_max : limit->limit);
    }
}

static void put_want(struct sl_coord *coord, struct coord_slot *slot,
                     const struct sl_permit *permit)
{
    size_t i = slot->permits++;
    slot->permit[i].serial = ++coord->serial;
    slot->permit[i].limit = (uint8_t)permit->limit;
    slot->permit[i].bulk = permit->bulk;
    coord_args_int(coord, permit->limit + 1);
    coord_args_text(coord, permit->bulk ? "bulk" : "query");
    coord_args_int(coord, slot->permit[i].serial);
}

/* What may be granted: nothing, all but suspects, or suspects too. */
static unsigned may_run(const struct sl_coord *coord, const struct sl_admission *admission)
{
    return admission == coord->only ? 2 : coord->hold ? 0 : 1;
}

static void put_job(struct sl_coord *coord, struct coord_slot *slot, struct sl_admission *admission)
{
    admission->state = SL_ADMIT_ASKED;
    admission->serial = ++coord->serial;
    coord_args_text(coord, "job");
    coord_args_work(coord, admission->op);
    coord_args_int(coord, admission->deadline_ms > 0 ? (uint64_t)admission->deadline_ms : 0);
    coord_args_int(coord, admission->no_claim ? 0 : 1);
    coord_args_int(coord, may_run(coord, admission));
    coord_args_int(coord, admission->restarts ? 1 : 0);
    coord_args_text(coord, admission->dead_owner);
    size_t wanted = 0;
    for (size_t i = 0; i < SL_ADMIT_PERMITS; i++) {
        wanted += admission->permits[i] != NULL ? 1 : 0;
    }
    coord_args_int(coord, wanted);
    for (size_t i = 0; i < SL_ADMIT_PERMITS; i++) {
        if (admission->permits[i] != NULL) {
            put_want(coord, slot, admission->permits[i]);
        }
    }
}

/* The op that will settle a job; without memory for it the job is not asked for now. */
static bool has_op(struct sl_coord *coord, struct sl_ticket *ticket)
{
    if (!ticket->job || job_of(ticket)->op != NULL) {
        return true;
    }
    struct sl_admission *admission = job_of(ticket);
    struct sl_op *op = coord_op_new(coord);
    if (op == NULL || coord_op_name(op, admission->id, admission->stage) != 0) {
        coord_op_free(coord, op);
        ticket->ask_ms = sl_clock_now_ms() + coord->unit_ms;
        return false;
    }
    op->bulk = admission->bulk;
    admission->op = op;
    return true;
}

static void send_batch(struct sl_coord *coord)
{
    struct sl_ticket *due[SL_LINE_BATCH];
    size_t count = sl_line_collect(&coord->line, sl_clock_now_ms(), due);
    coord->slot_count = 0;
    for (size_t i = 0; i < count; i++) {
        if (has_op(coord, due[i])) {
            coord->slots[coord->slot_count++] = (struct coord_slot){.ticket = due[i]};
        }
    }
    if (coord->slot_count == 0) {
        return;
    }
    coord_args_begin(coord);
    put_limits(coord);
    coord_args_int(coord, coord->slot_count);
    for (size_t i = 0; i < coord->slot_count; i++) {
        struct coord_slot *slot = &coord->slots[i];
        slot->ticket->slot = (uint16_t)(i + 1);
        if (slot->ticket->job) {
            put_job(coord, slot, job_of(slot->ticket));
        } else {
            coord_args_text(coord, "permit");
            put_want(coord, slot, SL_ITEM(slot->ticket, struct sl_permit, ticket));
        }
    }
    int err = coord_script_run(&coord->admit);
    if (err != 0) {
        coord_on_admitted(coord, err, NULL);
    }
}

/* --- when to ask --- */

static bool permit_expired(const struct sl_coord *coord, const struct sl_ticket *ticket)
{
    return !ticket->job && ticket->deadline_ms > 0 && sl_coord_now_ms(coord) >= ticket->deadline_ms;
}

static struct sl_permit *find_expired(struct sl_coord *coord)
{
    SL_LIST_EACH(node, &coord->line.tickets)
    {
        struct sl_ticket *ticket = SL_ITEM(node, struct sl_ticket, node);
        if (permit_expired(coord, ticket)) {
            return SL_ITEM(ticket, struct sl_permit, ticket);
        }
    }
    return NULL;
}

/* By this process's clock: nobody needs Redis to know that the deadline has passed. */
static void expire_permits(struct sl_coord *coord)
{
    for (struct sl_permit *p = find_expired(coord); p != NULL; p = find_expired(coord)) {
        coord_leave_line(coord, &p->ticket);
        p->state = SL_PERMIT_NONE;
        p->on_granted(p, -SL_EEXPIRED);
    }
}

static void on_line_timer(struct sl_timer *timer)
{
    coord_ask(SL_ITEM(timer, struct sl_coord, line_timer));
}

static void schedule(struct sl_coord *coord)
{
    bool may_ask = coord->ready && !coord->admit.out && coord->undo_count == 0;
    uint64_t next = may_ask ? sl_line_next(&coord->line) : UINT64_MAX;
    SL_LIST_EACH(node, &coord->line.tickets)
    {
        const struct sl_ticket *ticket = SL_ITEM(node, struct sl_ticket, node);
        if (!ticket->job && ticket->deadline_ms > 0) {
            uint64_t end = coord_local_ms(coord, ticket->deadline_ms);
            next = end < next ? end : next;
        }
    }
    uint64_t now = sl_clock_now_ms();
    if (next == UINT64_MAX) {
        sl_timer_stop(coord->loop, &coord->line_timer);
    } else {
        sl_timer_start(coord->loop, &coord->line_timer, next > now ? next - now : 0, on_line_timer);
    }
}

static void ask(struct sl_task *task)
{
    struct sl_coord *coord = SL_ITEM(task, struct sl_coord, ask_task);
    expire_permits(coord);
    if (coord->ready && !coord->admit.out && coord->undo_count == 0) {
        send_batch(coord);
    }
    schedule(coord);
}

void coord_ask(struct sl_coord *coord)
{
    if (coord->line.len > 0) {
        sl_task_defer(coord->loop, &coord->ask_task, ask);
    }
}

void coord_ask_all(struct sl_coord *coord)
{
    SL_LIST_EACH(node, &coord->line.tickets)
    {
        SL_ITEM(node, struct sl_ticket, node)->ask_ms = 0;
    }
    coord_ask(coord);
}

void coord_ask_about(struct sl_coord *coord, struct sl_span id)
{
    SL_LIST_EACH(node, &coord->line.tickets)
    {
        struct sl_ticket *ticket = SL_ITEM(node, struct sl_ticket, node);
        if (ticket->job && sl_span_equal(job_of(ticket)->id, id)) {
            ticket->ask_ms = 0;
            job_of(ticket)->cancel_seen = ticket->slot != 0; /* The answer may be older. */
        }
    }
    coord_ask(coord);
}

void coord_leave_line(struct sl_coord *coord, struct sl_ticket *ticket)
{
    if (ticket->slot != 0) {
        coord->slots[ticket->slot - 1].ticket = NULL;
        ticket->slot = 0;
    }
    sl_line_remove(&coord->line, ticket);
}

/* --- answers --- */

/* Asked again at the time named, within a second, and when the deadline comes. */
static void keep_waiting(struct sl_coord *coord, struct sl_ticket *ticket, long long ms)
{
    uint64_t now = sl_clock_now_ms(), least = 2;
    uint64_t delay = ms < (long long)least ? least : (uint64_t)ms;
    ticket->ask_ms = now + (delay < coord->unit_ms ? delay : coord->unit_ms);
    if (ticket->deadline_ms > 0) {
        uint64_t end = coord_local_ms(coord, ticket->deadline_ms) + 1;
        ticket->ask_ms = end > now && end < ticket->ask_ms ? end : ticket->ask_ms;
    }
    if (ticket->job) {
        struct sl_admission *admission = job_of(ticket);
        admission->state = SL_ADMIT_WAITING;
        if (admission->cancel_seen) {
            admission->cancel_seen = false;
            ticket->ask_ms = now;
        }
    }
}

static bool is_claimed(long long code)
{
    return code == SL_VERDICT_GRANTED || code == SL_VERDICT_CANCELLED ||
           code == SL_VERDICT_EXPIRED || code == SL_VERDICT_WORN_OUT || code == SL_VERDICT_STREAMED;
}

/* The permits whose bits are set go back; with ~0, all that were asked for. */
static void release_slot(struct sl_coord *coord, const struct coord_slot *slot, unsigned bits)
{
    for (size_t i = 0; i < slot->permits; i++) {
        if (bits >> i & 1) {
            coord_release(coord, slot->permit[i].limit, slot->permit[i].bulk,
                          slot->permit[i].serial);
        }
    }
}

/* Whoever asked has withdrawn. */
static void clean_up(struct sl_coord *coord, const struct coord_slot *slot, long long code,
                     const struct redisReply *answer)
{
    if (is_claimed(code)) {
        release_slot(coord, slot, (unsigned)sl_reply_int(sl_reply_at(answer, 3)));
    }
    if (slot->op != NULL && is_claimed(code)) {
        slot->op->attempt = (uint32_t)sl_reply_int(sl_reply_at(answer, 2));
        slot->op->shown = code == SL_VERDICT_STREAMED;
        coord_give_back(coord, slot->op, (uint64_t)sl_reply_int(sl_reply_at(answer, 1)));
    } else {
        coord_op_free(coord, slot->op);
    }
}

static void grant_permits(struct sl_coord *coord, struct sl_admission *admission,
                          const struct coord_slot *slot, unsigned bits, unsigned probes)
{
    for (size_t i = 0, asked = 0; i < SL_ADMIT_PERMITS; i++) {
        if (admission->permits[i] != NULL) {
            if (bits >> asked & 1) {
                coord_hold(coord, admission->permits[i], slot->permit[asked].serial,
                           probes >> asked & 1, coord->admit.sent_ms);
            }
            asked++;
        }
    }
}

static void claimed(struct sl_coord *coord, struct sl_admission *admission,
                    const struct coord_slot *slot, long long code, const struct redisReply *answer)
{
    admission->state = SL_ADMIT_GRANTED;
    admission->fence = (uint64_t)sl_reply_int(sl_reply_at(answer, 1));
    admission->attempt = (uint32_t)sl_reply_int(sl_reply_at(answer, 2));
    admission->renewal = coord->renewal + 1;
    admission->cancelled = code == SL_VERDICT_CANCELLED;
    admission->streams = code == SL_VERDICT_STREAMED;
    admission->op->fence = admission->fence;
    admission->op->attempt = admission->attempt;
    if (admission->dead_owner[0] != '\0') {
        sl_counter_add(coord->takeovers, 1);
        admission->dead_owner[0] = '\0';
    }
    sl_list_push(&coord->granted, &admission->node);
    if (is_claimed(code)) {
        grant_permits(coord, admission, slot, (unsigned)sl_reply_int(sl_reply_at(answer, 3)),
                      (unsigned)sl_reply_int(sl_reply_at(answer, 4)));
    }
}

/* Another owner holds it. Known to be dead already: asked again at once, with its name; once, since
 * the script may see it otherwise. */
static bool is_known_dead(struct sl_coord *coord, struct sl_admission *admission,
                          const struct redisReply *answer)
{
    struct sl_span owner = sl_reply_span(sl_reply_at(answer, 1));
    if (!sl_observer_look(&coord->observer, owner, sl_reply_int(sl_reply_at(answer, 2))) ||
        sl_span_is(owner, admission->dead_owner)) {
        return false;
    }
    memcpy(admission->dead_owner, owner.data, owner.len);
    admission->dead_owner[owner.len] = '\0';
    return true;
}

static void answer_job(struct sl_coord *coord, struct sl_admission *admission,
                       const struct coord_slot *slot, long long code,
                       const struct redisReply *answer)
{
    admission->unsure = false;
    if (code == SL_VERDICT_PARKED && is_known_dead(coord, admission, answer)) {
        keep_waiting(coord, &admission->ticket, 0);
        return;
    }
    sl_line_remove(&coord->line, &admission->ticket);
    if (is_claimed(code)) {
        claimed(coord, admission, slot, code, answer);
    } else if (code == SL_VERDICT_PARKED) {
        coord_park(coord, admission);
    } else {
        coord_op_free(coord, admission->op);
        admission->op = NULL;
        admission->state = SL_ADMIT_IDLE;
        admission->ending =
            code == SL_VERDICT_ENDING ? sl_reply_span(sl_reply_at(answer, 1)) : (struct sl_span){0};
    }
    admission->on_verdict(admission, (enum sl_verdict)code);
}

/* Asked again when something else may run; a cancellation and its deadline end it meanwhile. */
static void held(struct sl_coord *coord, struct sl_ticket *ticket, bool suspect)
{
    struct sl_admission *admission = job_of(ticket);
    bool may = may_run(coord, admission) > (suspect ? 1 : 0); /* Since it was asked. */
    admission->unsure = false;
    keep_waiting(coord, ticket, may ? 0 : coord->unit_ms);
    if (suspect && !admission->suspect) {
        admission->suspect = true;
        if (admission->on_suspect != NULL) {
            admission->on_suspect(admission);
        }
    }
}

/* The limits that this answer says are full, or not. */
struct outcome {
    uint16_t granted, waited;
};

static void answer_slot(struct sl_coord *coord, const struct coord_slot *slot,
                        const struct redisReply *answer, struct outcome *outcome)
{
    struct sl_ticket *ticket = slot->ticket;
    long long code = sl_reply_len(answer) > 0 ? sl_reply_int(sl_reply_at(answer, 0)) : ANSWER_WAIT;
    if (ticket == NULL) {
        clean_up(coord, slot, code, answer);
        return;
    }
    ticket->slot = 0;
    if (code == ANSWER_HELD && ticket->job) {
        held(coord, ticket, sl_reply_int(sl_reply_at(answer, 1)) != 0);
        return;
    }
    if (code < 0 || code >= ANSWER_WAIT) {
        outcome->waited |= ticket->wants;
        keep_waiting(coord, ticket, sl_reply_int(sl_reply_at(answer, 1)));
        return;
    }
    outcome->granted |= code == SL_VERDICT_GRANTED ? ticket->wants : 0;
    if (ticket->job) {
        answer_job(coord, job_of(ticket), slot, code, answer);
    } else {
        struct sl_permit *permit = SL_ITEM(ticket, struct sl_permit, ticket);
        sl_line_remove(&coord->line, ticket);
        coord_hold(coord, permit, slot->permit[0].serial, sl_reply_int(sl_reply_at(answer, 4)) != 0,
                   coord->admit.sent_ms);
        permit->on_granted(permit, 0);
    }
}

/* No answer: whatever was asked may have been granted. */
static void fail_slot(struct sl_coord *coord, const struct coord_slot *slot)
{
    release_slot(coord, slot, ~0U);
    if (slot->ticket == NULL) {
        if (slot->op != NULL) {
            coord_give_back(coord, slot->op, 0);
        }
        return;
    }
    slot->ticket->slot = 0;
    keep_waiting(coord, slot->ticket, coord->unit_ms);
    if (slot->ticket->job) {
        job_of(slot->ticket)->unsure = true;
    }
}

/* So old that this process stood still meanwhile: what was granted may be somebody else's by now.
 */
static bool is_stale(const struct sl_coord *coord)
{
    return sl_clock_now_ms() - coord->admit.sent_ms > STALE_UNITS * (uint64_t)coord->unit_ms;
}

void coord_on_admitted(struct sl_coord *coord, int err, const struct redisReply *reply)
{
    struct outcome outcome = {0};
    err = err == 0 && is_stale(coord) ? -SL_ETIMEDOUT : err;
    for (size_t i = 0; i < coord->slot_count; i++) {
        struct coord_slot *slot = &coord->slots[i];
        if (err != 0) {
            fail_slot(coord, slot);
        } else {
            answer_slot(coord, slot, sl_reply_at(reply, i + 2), &outcome);
        }
        slot->ticket = NULL;
    }
    coord->slot_count = 0;
    if (err == 0) {
        sl_line_move(&coord->line, outcome.granted & (uint16_t)~outcome.waited);
        coord_wanted(coord, outcome.waited);
        coord_tell_cancelled(coord);
    }
    coord_ask(coord);
}
