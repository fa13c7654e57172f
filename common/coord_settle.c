/*
 * What this process writes: permits given back, claims done or given back, endings, cancellations.
 * Each is an op. The ops of one turn of the loop travel in one script, releases first (they succeed
 * on a Redis that is full, and somebody waits for them); while it is out, the next ones gather.
 *
 * An op that nobody waits for (can_wait) gives others up to 2 ms to come along, since a script
 * costs Redis far more than an op in it: a permit comes back when a call has ended, and a moment
 * later, when the broker has the output, the same job's claim is done. A release goes at once where
 * somebody waits for its limit, in this process's line or elsewhere: a full limit is told by the
 * answers to admissions, somebody elsewhere by the answer to the last release.
 *
 * An op whose answer was lost is sent again, which changes nothing the second time (settle.lua):
 * when the link comes back, or a second later if Redis answered an error. An op that nobody needs
 * for ever has an end (until_ms): a release ends with its lease, an ending after 60 s.
 *
 * An admission that runs keeps an op with a copy of its id from the moment it is asked for, so that
 * what must be written at its end never fails for want of memory. Ops come from a pool that grows
 * to the most that were in use at a time.
 */
#include "common/coord_internal.h"

#include "common/clock.h"
#include "common/log.h"

#include <assert.h>
#include <stdlib.h>

enum { OP_BYTES_MAX = 64 << 20, OP_BYTES_KEPT = 1024, SETTLE_BYTES = 4 << 20 };
enum { COMPANY_MS = 2, SPARE_MAX = 256 };
enum { ANSWER_EXISTS = 1, ANSWER_WANTED = 3 };

struct sl_op *coord_op_new(struct sl_coord *coord)
{
    struct sl_list *node = sl_list_first(&coord->spare);
    if (node != NULL) {
        sl_list_remove(node);
        coord->spare_len--;
        return SL_ITEM(node, struct sl_op, node);
    }
    struct sl_op *op = calloc(1, sizeof(*op));
    if (op != NULL) {
        sl_list_init(&op->node);
        sl_buf_init(&op->bytes, OP_BYTES_MAX);
        sl_list_init(&op->in_made);
        sl_list_push(&coord->made, &op->in_made);
    }
    return op;
}

int coord_op_name(struct sl_op *op, struct sl_span id, const char *stage)
{
    sl_buf_append_span(&op->bytes, id);
    sl_buf_append_text(&op->bytes, stage);
    op->id_len = id.len;
    op->stage_len = strlen(stage);
    return sl_buf_error(&op->bytes);
}

int coord_op_about(struct sl_coord *coord, struct sl_span id, const char *stage,
                   struct sl_span bytes, struct sl_op **ret)
{
    if (coord->op_count >= COORD_OPS_MAX) {
        return -SL_EAGAIN;
    }
    struct sl_op *op = coord_op_new(coord);
    if (op == NULL) {
        return -SL_ENOMEM;
    }
    int err = coord_op_name(op, id, stage);
    sl_buf_append_span(&op->bytes, bytes);
    err = err != 0 ? err : sl_buf_error(&op->bytes);
    if (err != 0) {
        coord_op_free(coord, op);
        return err;
    }
    *ret = op;
    return 0;
}

static void destroy_op(struct sl_op *op)
{
    sl_list_remove(&op->in_made);
    sl_buf_fini(&op->bytes);
    free(op);
}

/* Those that a burst needed would each hold a page of the heap for ever: only some are kept. */
void coord_op_free(struct sl_coord *coord, struct sl_op *op)
{
    if (op == NULL) {
        return;
    }
    if (coord->spare_len >= SPARE_MAX) {
        destroy_op(op);
        return;
    }
    if (op->bytes.cap > OP_BYTES_KEPT) {
        sl_buf_fini(&op->bytes);
        sl_buf_init(&op->bytes, OP_BYTES_MAX);
    }
    sl_buf_clear(&op->bytes);
    const struct sl_buf bytes = op->bytes;
    const struct sl_list in_made = op->in_made; /* Its neighbours know where it is: it stays. */
    *op = (struct sl_op){.in_made = in_made, .bytes = bytes};
    sl_list_push(coord->spare.next, &op->node); /* In front: the one used last is warm. */
    coord->spare_len++;
}

void coord_settle_fini(struct sl_coord *coord)
{
    struct sl_list *node;
    while ((node = sl_list_first(&coord->made)) != NULL) {
        destroy_op(SL_ITEM(node, struct sl_op, in_made));
    }
}

/* --- sending --- */

static uint64_t left_ms(const struct sl_op *op)
{
    uint64_t now = sl_clock_now_ms();
    return op->until_ms > now ? op->until_ms - now : 1;
}

static struct sl_span id_of(const struct sl_op *op)
{
    return (struct sl_span){op->bytes.data, op->id_len};
}

static struct sl_span stage_of(const struct sl_op *op)
{
    return (struct sl_span){op->bytes.data + op->id_len, op->stage_len};
}

static void put_op(struct sl_coord *coord, const struct sl_op *op)
{
    switch (op->type) {
    case OP_NONE:
        assert(false && "an op without a type");
        break;
    case OP_RELEASE:
        coord_args_text(coord, "release");
        coord_args_text(coord, coord->limits[op->limit].name);
        coord_args_text(coord, op->bulk ? "bulk" : "query");
        coord_args_int(coord, op->serial);
        break;
    case OP_COOL:
        coord_args_text(coord, "cool");
        coord_args_text(coord, coord->limits[op->limit].name);
        coord_args_int(coord, left_ms(op));
        break;
    case OP_HEAL:
        coord_args_text(coord, "heal");
        coord_args_text(coord, coord->limits[op->limit].name);
        coord_args_int(coord, op->serial);
        break;
    case OP_DONE:
    case OP_STREAM:
    case OP_GIVE_BACK:
        coord_args_text(coord, op->type == OP_DONE     ? "done"
                               : op->type == OP_STREAM ? "stream"
                                                       : "give_back");
        coord_args_work(coord, op);
        coord_args_int(coord, op->fence);
        coord_args_int(coord, op->attempt);
        if (op->type == OP_GIVE_BACK) {
            coord_args_int(coord, op->shown ? 1 : 0);
        }
        break;
    case OP_END:
        coord_args_text(coord, "end");
        coord_args_span(coord, id_of(op));
        coord_args_span(coord, stage_of(op));
        coord_args_int(coord, op->fence);
        coord_args_text(coord, op->outcome);
        coord_args_span(coord, (struct sl_span){op->bytes.data + op->id_len + op->stage_len,
                                                op->bytes.len - op->id_len - op->stage_len});
        break;
    case OP_ENDED:
        coord_args_text(coord, "ended");
        coord_args_span(coord, id_of(op));
        coord_args_position(coord, &op->place);
        break;
    case OP_CANCEL:
        coord_args_text(coord, "cancel");
        coord_args_span(coord, id_of(op));
        break;
    case OP_ATTACH:
    case OP_LEAVE:
        coord_args_text(coord, op->type == OP_ATTACH ? "attach" : "leave");
        coord_args_span(coord, id_of(op));
        coord_args_place(coord, &op->place);
        break;
    case OP_IDEMPOTENT:
        coord_args_text(coord, "idempotent");
        coord_args_span(coord, id_of(op));
        coord_args_int(coord, op->serial);
        coord_args_span(coord, stage_of(op));
        break;
    }
}

/* The op is written, or given up. */
static void finish(struct sl_coord *coord, struct sl_op *op, int err)
{
    void (*cb)(void *ctx, int err) = op->cb;
    void *ctx = op->ctx;
    sl_list_remove(&op->node);
    coord->op_count--;
    coord->undo_count -= op->type == OP_GIVE_BACK ? 1 : 0;
    coord_op_free(coord, op);
    if (cb != NULL) {
        cb(ctx, err);
    }
}

static void expire(struct sl_coord *coord, struct sl_list *list)
{
    struct sl_list old;
    sl_list_init(&old);
    SL_LIST_EACH_SAFE(node, list)
    {
        if (SL_ITEM(node, struct sl_op, node)->until_ms <= sl_clock_now_ms()) {
            sl_list_remove(node);
            sl_list_push(&old, node);
        }
    }
    while (!sl_list_empty(&old)) {
        finish(coord, SL_ITEM(sl_list_first(&old), struct sl_op, node), -SL_ECONN);
    }
}

void coord_settle_expire(struct sl_coord *coord)
{
    expire(coord, &coord->releases);
    expire(coord, &coord->ops);
}

/* How many of a list go into one script. */
static size_t gather(struct sl_list *list, size_t *bytes)
{
    size_t len = 0;
    SL_LIST_EACH(node, list)
    {
        const struct sl_op *op = SL_ITEM(node, struct sl_op, node);
        if (len == COORD_SETTLE_MAX || (*bytes > 0 && *bytes + op->bytes.len > SETTLE_BYTES)) {
            break;
        }
        *bytes += op->bytes.len;
        len++;
    }
    return len;
}

static void put_first(struct sl_coord *coord, struct sl_list *list, size_t len)
{
    for (; len > 0; len--) {
        struct sl_list *node = sl_list_first(list);
        sl_list_remove(node);
        sl_list_push(&coord->sent, node);
        put_op(coord, SL_ITEM(node, struct sl_op, node));
    }
}

/* What was out goes back to where it came from, in its order. */
static void unsend(struct sl_coord *coord)
{
    while (!sl_list_empty(&coord->sent)) {
        struct sl_list *node = coord->sent.prev;
        sl_list_remove(node);
        struct sl_list *list =
            SL_ITEM(node, struct sl_op, node)->releases ? &coord->releases : &coord->ops;
        sl_list_push(list->next, node); /* In front. */
    }
}

static void on_settle_timer(struct sl_timer *timer)
{
    struct sl_coord *coord = SL_ITEM(timer, struct sl_coord, settle_timer);
    coord_settle_soon(coord);
}

static void settle(struct sl_task *task)
{
    struct sl_coord *coord = SL_ITEM(task, struct sl_coord, settle_task);
    if (!coord->linked || coord->settle.out || sl_timer_active(&coord->settle_timer)) {
        return; /* The link, the reply or the timer starts it again. */
    }
    coord_settle_expire(coord);
    sl_timer_stop(coord->loop, &coord->company_timer);
    size_t bytes = 0;
    size_t releases = gather(&coord->releases, &bytes);
    size_t others = gather(&coord->ops, &bytes);
    if (releases + others == 0) {
        coord->settle_due = false;
        return;
    }
    coord_args_begin(coord);
    coord_args_int(coord, releases + others);
    put_first(coord, &coord->releases, releases);
    put_first(coord, &coord->ops, others);
    coord->settle_due = !sl_list_empty(&coord->releases) || !sl_list_empty(&coord->ops);
    int err = coord_script_run(&coord->settle);
    if (err != 0) {
        coord_on_settled(coord, err, NULL);
    }
}

void coord_settle_soon(struct sl_coord *coord)
{
    if (coord->op_count > 0) {
        coord->settle_due = true;
        sl_task_defer(coord->loop, &coord->settle_task, settle);
    }
}

void coord_wanted(struct sl_coord *coord, uint16_t wants)
{
    for (size_t i = 0; i < coord->limit_count; i++) {
        if (wants & sl_line_limit(i)) {
            coord->wanted_until_ms[i] = sl_clock_now_ms() + 2 * (uint64_t)coord->unit_ms;
        }
    }
    if (wants != 0 && !sl_list_empty(&coord->releases)) {
        coord_settle_soon(coord);
    }
}

static void on_company_timer(struct sl_timer *timer)
{
    coord_settle_soon(SL_ITEM(timer, struct sl_coord, company_timer));
}

static bool can_wait(const struct sl_coord *coord, const struct sl_op *op)
{
    return op->type == OP_DONE || op->type == OP_ENDED ||
           (op->type == OP_RELEASE && coord->wanted_until_ms[op->limit] <= sl_clock_now_ms());
}

static int map_answer(struct sl_coord *coord, const struct sl_op *op, long long answer)
{
    if (op->type == OP_RELEASE && answer == ANSWER_WANTED) {
        coord_wanted(coord, sl_line_limit(op->limit));
        return 0;
    }
    return answer == 0 ? 0 : answer == ANSWER_EXISTS ? -SL_EEXIST : -SL_ELOST;
}

void coord_on_settled(struct sl_coord *coord, int err, const struct redisReply *reply)
{
    if (err != 0) {
        unsend(coord);
        sl_timer_start(coord->loop, &coord->settle_timer, coord->unit_ms, on_settle_timer);
        return;
    }
    struct sl_list sent;
    sl_list_init(&sent);
    while (!sl_list_empty(&coord->sent)) {
        struct sl_list *node = sl_list_first(&coord->sent);
        sl_list_remove(node);
        sl_list_push(&sent, node);
    }
    for (size_t i = 2; !sl_list_empty(&sent); i++) {
        struct sl_op *op = SL_ITEM(sl_list_first(&sent), struct sl_op, node);
        finish(coord, op, map_answer(coord, op, sl_reply_int(sl_reply_at(reply, i))));
    }
    if (coord->settle_due) {
        coord_settle_soon(coord);
    }
    coord_ask(coord);
}

/* --- what others queue --- */

void coord_op_queue(struct sl_coord *coord, struct sl_op *op, enum op_type type, uint64_t for_ms)
{
    op->type = type;
    op->releases = type == OP_RELEASE;
    op->until_ms = for_ms == UINT64_MAX ? UINT64_MAX : sl_clock_now_ms() + for_ms;
    sl_list_push(op->releases ? &coord->releases : &coord->ops, &op->node);
    coord->op_count++;
    coord->undo_count += type == OP_GIVE_BACK ? 1 : 0;
    if (coord->settle_due || !can_wait(coord, op)) {
        coord_settle_soon(coord);
    } else if (!sl_timer_active(&coord->company_timer)) {
        sl_timer_start(coord->loop, &coord->company_timer, COMPANY_MS, on_company_timer);
    }
}

void coord_release(struct sl_coord *coord, size_t limit, bool bulk, uint64_t serial)
{
    struct sl_op *op = coord_op_new(coord);
    if (op == NULL) {
        return; /* The lease ends by itself. */
    }
    op->limit = limit;
    op->bulk = bulk;
    op->serial = serial;
    coord_op_queue(coord, op, OP_RELEASE, coord->ttl_ms);
}

void coord_give_back(struct sl_coord *coord, struct sl_op *op, uint64_t fence)
{
    op->fence = fence;
    coord_op_queue(coord, op, OP_GIVE_BACK, 60000);
}
