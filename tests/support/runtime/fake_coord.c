/*
 * The fake coordination. Redis's clock is this process's, plus an offset that makes mixing them up
 * visible.
 */
#include "tests/support/runtime/fake_coord.h"

#include "common/clock.h"
#include "tests/support/alloc_fail.h"
#include "tests/support/runtime/worker_fixture.h"
#include "tests/support/test.h"

#include <assert.h>

enum { CLOCK_OFFSET_MS = 1700000000 };

struct sl_coord {
    const struct sl_limit *limits;
    size_t limit_count;
    struct sl_list waiting, parked, granted; /* sl_admission.node */
    struct sl_list held, asking;             /* sl_permit.held */
    struct sl_list ops;
    uint64_t fence, serial;
    size_t written[FAKE_OPS], released;
    int refusal;
    bool busy, hold;
    const struct sl_admission *only;
};

static struct sl_coord *coord_now;

int (*fake_on_write)(enum fake_op_type type);

/* --- the process --- */

int sl_coord_create(struct sl_loop *loop, const struct sl_coord_config *config,
                    struct sl_coord **ret, char *why, size_t why_size)
{
    int err = fx_part_err();
    if (err != 0) {
        return err;
    }
    long paused = sl_test_pause_alloc();
    struct sl_coord *coord = calloc(1, sizeof(*coord));
    sl_test_resume_alloc(paused);
    (void)loop;
    (void)why;
    (void)why_size;
    CHECK(coord != NULL);
    coord->limits = config->limits;
    coord->limit_count = config->limit_count;
    struct sl_list *lists[] = {&coord->waiting, &coord->parked, &coord->granted,
                               &coord->held,    &coord->asking, &coord->ops};
    for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++) {
        sl_list_init(lists[i]);
    }
    *ret = coord_now = coord;
    return 0;
}

static void free_op(struct fake_op *op)
{
    sl_list_remove(&op->node);
    sl_buf_fini(&op->ending);
    free(op);
}

void sl_coord_destroy(struct sl_coord *coord)
{
    if (coord == NULL) {
        return;
    }
    CHECK(sl_list_empty(&coord->waiting) && sl_list_empty(&coord->parked));
    CHECK(sl_list_empty(&coord->granted));
    CHECK(sl_list_empty(&coord->held) && sl_list_empty(&coord->asking));
    while (!sl_list_empty(&coord->ops)) {
        free_op(SL_ITEM(sl_list_first(&coord->ops), struct fake_op, node));
    }
    free(coord);
    coord_now = NULL;
}

bool sl_coord_idle(const struct sl_coord *coord)
{
    return !coord->busy && sl_list_empty(&coord->ops);
}

void fake_idle(bool idle)
{
    coord_now->busy = !idle;
}

const char *sl_coord_owner(const struct sl_coord *coord)
{
    (void)coord;
    return "fake";
}

uint64_t sl_coord_quarantine_ms(const struct sl_coord *coord)
{
    (void)coord;
    return 0;
}

int64_t sl_coord_now_ms(const struct sl_coord *coord)
{
    (void)coord;
    return (int64_t)sl_clock_now_ms() + CLOCK_OFFSET_MS;
}

size_t sl_coord_limit(const struct sl_coord *coord, const char *name)
{
    for (size_t i = 0; i < coord->limit_count; i++) {
        if (strcmp(coord->limits[i].name, name) == 0) {
            return i;
        }
    }
    return SL_LIMITS_MAX;
}

static size_t length(const struct sl_list *list)
{
    size_t len = 0;
    SL_LIST_EACH(node, list)
    {
        len++;
    }
    return len;
}

static struct sl_list *nth(struct sl_list *list, size_t i)
{
    SL_LIST_EACH(node, list)
    {
        if (i-- == 0) {
            return node;
        }
    }
    CHECK(false && "not so many");
    return NULL;
}

/* --- admissions --- */

static struct sl_admission *admission_at(struct sl_list *list, size_t i)
{
    return SL_ITEM(nth(list, i), struct sl_admission, node);
}

static struct sl_admission *find(struct sl_list *list, const char *id)
{
    SL_LIST_EACH(node, list)
    {
        struct sl_admission *admission = SL_ITEM(node, struct sl_admission, node);
        if (sl_span_is(admission->id, id)) {
            return admission;
        }
    }
    return NULL;
}

void sl_admit(struct sl_coord *coord, struct sl_admission *admission)
{
    CHECK(admission->state == SL_ADMIT_IDLE && admission->on_verdict != NULL);
    CHECK(admission->id.len > 0 && find(&coord->waiting, "") == NULL);
    for (size_t i = 0; i < SL_ADMIT_PERMITS; i++) {
        CHECK(admission->permits[i] == NULL || admission->permits[i]->state == SL_PERMIT_NONE);
    }
    admission->state = SL_ADMIT_WAITING;
    admission->suspect = false;
    sl_list_init(&admission->node);
    sl_list_push(&coord->waiting, &admission->node);
}

void sl_admit_withdraw(struct sl_coord *coord, struct sl_admission *admission)
{
    CHECK(coord == coord_now);
    coord->only = coord->only == admission ? NULL : coord->only;
    if (admission->state != SL_ADMIT_IDLE) {
        sl_list_remove(&admission->node);
        admission->state = SL_ADMIT_IDLE;
    }
}

void sl_admit_hold(struct sl_coord *coord, bool hold, const struct sl_admission *only)
{
    CHECK(hold || only == NULL);
    CHECK(only == NULL || (only->suspect && only->state == SL_ADMIT_WAITING));
    coord->hold = hold;
    coord->only = only;
}

void fake_suspect(struct sl_admission *admission)
{
    CHECK(admission->state == SL_ADMIT_WAITING && !admission->suspect);
    admission->suspect = true;
    admission->on_suspect(admission);
}

bool fake_may_run(const struct sl_admission *admission)
{
    return coord_now->hold ? admission == coord_now->only : !admission->suspect;
}

struct sl_admission *fake_waiting(const char *id)
{
    return find(&coord_now->waiting, id);
}

size_t fake_waiting_count(void)
{
    return length(&coord_now->waiting);
}

struct sl_admission *fake_nth_waiting(size_t i)
{
    return admission_at(&coord_now->waiting, i);
}

static void hold(struct sl_permit *permit)
{
    CHECK(permit->state != SL_PERMIT_HELD);
    permit->state = SL_PERMIT_HELD;
    permit->serial = ++coord_now->serial;
    sl_list_remove(&permit->held);
    sl_list_push(&coord_now->held, &permit->held);
}

void fake_verdict(struct sl_admission *admission, enum sl_verdict verdict, uint32_t attempt,
                  unsigned bits, struct sl_span ending)
{
    CHECK(admission != NULL && admission->state == SL_ADMIT_WAITING);
    sl_list_remove(&admission->node);
    switch (verdict) {
    case SL_VERDICT_PARKED:
        admission->state = SL_ADMIT_PARKED;
        sl_list_push(&coord_now->parked, &admission->node);
        break;
    case SL_VERDICT_DONE:
    case SL_VERDICT_ENDED:
    case SL_VERDICT_ENDING:
        admission->state = SL_ADMIT_IDLE;
        admission->ending = ending;
        break;
    default:
        admission->state = SL_ADMIT_GRANTED;
        admission->fence = ++coord_now->fence;
        admission->attempt = attempt;
        sl_list_push(&coord_now->granted, &admission->node);
        for (size_t i = 0; i < SL_ADMIT_PERMITS; i++) {
            if (admission->permits[i] != NULL && (bits >> i & 1) != 0) {
                hold(admission->permits[i]);
            }
        }
        break;
    }
    admission->on_verdict(admission, verdict);
}

size_t fake_parked_count(void)
{
    return length(&coord_now->parked);
}

struct sl_admission *fake_parked(size_t i)
{
    return admission_at(&coord_now->parked, i);
}

void fake_retry(struct sl_admission *admission)
{
    CHECK(admission->state == SL_ADMIT_PARKED);
    sl_list_remove(&admission->node);
    admission->state = SL_ADMIT_IDLE;
    admission->on_retry(admission);
}

size_t fake_granted_count(void)
{
    return length(&coord_now->granted);
}

struct sl_admission *fake_granted(size_t i)
{
    return admission_at(&coord_now->granted, i);
}

struct sl_admission *fake_granted_to(const char *id)
{
    return find(&coord_now->granted, id);
}

void fake_cancel(struct sl_admission *admission)
{
    CHECK(admission->state == SL_ADMIT_GRANTED && !admission->cancelled);
    admission->cancelled = true;
    admission->on_cancelled(admission);
}

void fake_lose(struct sl_admission *admission)
{
    CHECK(admission->state == SL_ADMIT_GRANTED);
    sl_list_remove(&admission->node);
    admission->state = SL_ADMIT_IDLE;
    admission->on_lost(admission);
}

/* --- what is written --- */

static struct fake_op *put_op(enum fake_op_type type, struct sl_span id, uint64_t fence,
                              void (*cb)(void *ctx, int err), void *ctx)
{
    long paused = sl_test_pause_alloc();
    struct fake_op *op = calloc(1, sizeof(*op));
    sl_test_resume_alloc(paused);
    CHECK(op != NULL);
    op->type = type;
    op->fence = fence;
    op->cb = cb;
    op->ctx = ctx;
    sl_buf_init(&op->ending, 64 << 20);
    snprintf(op->id, sizeof(op->id), SL_SPAN_FMT, SL_SPAN_ARG(id));
    sl_list_push(&coord_now->ops, &op->node);
    coord_now->written[type]++;
    return op;
}

static int refusal_of(const struct sl_coord *coord, enum fake_op_type type)
{
    return fake_on_write != NULL ? fake_on_write(type) : coord->refusal;
}

void sl_claim_done(struct sl_coord *coord, struct sl_admission *admission,
                   void (*cb)(void *ctx, int err), void *ctx)
{
    CHECK(admission->state == SL_ADMIT_GRANTED);
    sl_admit_withdraw(coord, admission);
    put_op(FAKE_DONE, admission->id, admission->fence, cb, ctx);
}

int sl_claim_stream(struct sl_coord *coord, struct sl_admission *admission,
                    void (*cb)(void *ctx, int err), void *ctx)
{
    CHECK(admission->state == SL_ADMIT_GRANTED);
    int err = refusal_of(coord, FAKE_STREAM);
    if (err == 0) {
        put_op(FAKE_STREAM, admission->id, admission->fence, cb, ctx);
    }
    return err;
}

void sl_claim_give_back(struct sl_coord *coord, struct sl_admission *admission)
{
    if (admission->state == SL_ADMIT_GRANTED) {
        put_op(FAKE_GIVE_BACK, admission->id, admission->fence, NULL, NULL);
    }
    sl_admit_withdraw(coord, admission);
}

int sl_claim_end(struct sl_coord *coord, struct sl_span id, const char *stage, uint64_t fence,
                 const char *outcome, struct sl_span ending, void (*cb)(void *ctx, int err),
                 void *ctx)
{
    CHECK(stage != NULL && fence > 0);
    int err = refusal_of(coord, FAKE_END);
    if (err == 0) {
        struct fake_op *op = put_op(FAKE_END, id, fence, cb, ctx);
        op->outcome = outcome;
        long paused = sl_test_pause_alloc();
        sl_buf_append_span(&op->ending, ending);
        sl_test_resume_alloc(paused);
    }
    return err;
}

void sl_claim_ended(struct sl_coord *coord, struct sl_span id, int32_t partition, int64_t offset)
{
    (void)coord;
    struct fake_op *op = put_op(FAKE_ENDED, id, 0, NULL, NULL);
    op->partition = partition;
    op->offset = offset;
}

void sl_claim_forget_callers(struct sl_coord *coord)
{
    SL_LIST_EACH(node, &coord->ops)
    {
        SL_ITEM(node, struct fake_op, node)->cb = NULL;
    }
}

size_t fake_op_count(enum fake_op_type type)
{
    size_t count = 0;
    SL_LIST_EACH(node, &coord_now->ops)
    {
        count += SL_ITEM(node, struct fake_op, node)->type == type ? 1 : 0;
    }
    return count;
}

struct fake_op *fake_op(enum fake_op_type type, size_t i)
{
    SL_LIST_EACH(node, &coord_now->ops)
    {
        struct fake_op *op = SL_ITEM(node, struct fake_op, node);
        if (op->type == type && i-- == 0) {
            return op;
        }
    }
    CHECK(false && "no such op");
    return NULL;
}

void fake_answer(struct fake_op *op, int err)
{
    void (*cb)(void *ctx, int err) = op->cb;
    void *ctx = op->ctx;
    free_op(op);
    if (cb != NULL) {
        cb(ctx, err);
    }
}

size_t fake_written(enum fake_op_type type)
{
    return coord_now->written[type];
}

void fake_refuse_ops(int err)
{
    coord_now->refusal = err;
}

/* --- permits --- */

void sl_permit_init(struct sl_permit *permit, size_t limit, bool bulk,
                    void (*on_granted)(struct sl_permit *permit, int err),
                    void (*on_lost)(struct sl_permit *permit))
{
    CHECK(on_lost != NULL && permit->state == SL_PERMIT_NONE);
    *permit = (struct sl_permit){
        .limit = limit, .bulk = bulk, .on_granted = on_granted, .on_lost = on_lost};
    sl_list_init(&permit->held);
}

void sl_permit_request(struct sl_coord *coord, struct sl_permit *permit, int64_t deadline_ms)
{
    CHECK(permit->state == SL_PERMIT_NONE && permit->on_granted != NULL);
    permit->state = SL_PERMIT_WAITING;
    permit->ticket.deadline_ms = deadline_ms;
    sl_list_push(&coord->asking, &permit->held);
}

void sl_permit_release(struct sl_coord *coord, struct sl_permit *permit)
{
    CHECK(coord == coord_now);
    if (permit->state != SL_PERMIT_NONE) {
        coord->released += permit->state == SL_PERMIT_HELD ? 1 : 0;
        permit->state = SL_PERMIT_NONE;
        sl_list_remove(&permit->held);
    }
}

void sl_permit_move(struct sl_permit *from, struct sl_permit *to)
{
    CHECK(from->state == SL_PERMIT_HELD && to->state == SL_PERMIT_NONE);
    to->state = from->state;
    sl_list_push(&from->held, &to->held);
    sl_list_remove(&from->held);
    from->state = SL_PERMIT_NONE;
}

/* Nobody but a call: what is admitted is not in the list. */
bool sl_permit_awaited(const struct sl_coord *coord, size_t limit)
{
    SL_LIST_EACH(node, &coord->asking)
    {
        if (SL_ITEM(node, struct sl_permit, held)->limit == limit) {
            return true;
        }
    }
    return false;
}

void sl_permit_cool_down(struct sl_coord *coord, size_t limit, uint32_t delay_ms)
{
    (void)coord;
    (void)limit;
    put_op(FAKE_COOL_DOWN, SL_SPAN(""), 0, NULL, NULL)->ms = delay_ms;
}

void sl_permit_heal(struct sl_coord *coord, struct sl_permit *permit)
{
    CHECK(coord == coord_now && permit->state == SL_PERMIT_HELD);
    if (permit->probe) {
        permit->probe = false;
        put_op(FAKE_HEAL, SL_SPAN(""), 0, NULL, NULL);
    }
}

size_t fake_permits_held(void)
{
    return length(&coord_now->held);
}

size_t fake_permits_waiting(void)
{
    return length(&coord_now->asking);
}

struct sl_permit *fake_permit_waiting(size_t i)
{
    return SL_ITEM(nth(&coord_now->asking, i), struct sl_permit, held);
}

struct sl_permit *fake_permit_held(size_t i)
{
    return SL_ITEM(nth(&coord_now->held, i), struct sl_permit, held);
}

void fake_permit_grant(struct sl_permit *permit)
{
    CHECK(permit->state == SL_PERMIT_WAITING);
    hold(permit);
    permit->on_granted(permit, 0);
}

void fake_permit_expire(struct sl_permit *permit)
{
    CHECK(permit->state == SL_PERMIT_WAITING);
    sl_list_remove(&permit->held);
    permit->state = SL_PERMIT_NONE;
    permit->on_granted(permit, -SL_EEXPIRED);
}

void fake_permit_lose(struct sl_permit *permit)
{
    CHECK(permit->state == SL_PERMIT_HELD);
    sl_list_remove(&permit->held);
    permit->state = SL_PERMIT_NONE;
    permit->on_lost(permit);
}

size_t fake_permits_released(void)
{
    return coord_now->released;
}
