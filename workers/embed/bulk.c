/*
 * The calls of chunks. Chunks of all documents wait in one line; SLUICE_EMBED_BULK_BATCH of them
 * share a call, and fewer when the first has waited for SLUICE_EMBED_BULK_WINDOW. There are never
 * more calls than bulk work has permits, so that what must wait waits here, where batches fill.
 *
 * A call owns its pieces and makes requests until none is left, one at a time: the first with all
 * of them. What it does with an answer:
 *
 * - vectors: those pieces are done; the next request takes twice as many.
 * - refused (4xx, or 500, which is what llama.cpp says of a whole batch of which one text is too
 *   long): half as many are tried; a single piece is cut in two (batch.c), and when it is too short
 *   for that its document fails.
 * - busy, away, lost: the same request again after a backoff, BULK_TRIES times; then its documents
 *   fail.
 *
 * A server that refuses everything is told from texts that are too long by a probe: the first time
 * that a single piece is refused, and again after every REFUSALS_MAX refusals in a row, one short
 * word is sent. When that is refused too, the server is at fault: a 500 is then waited for like one
 * that is busy, and anything else fails the documents at once. So a broken server costs a request
 * for each halving and then one a try, and no chunk is cut for its sake.
 *
 * A document that is cancelled or fails takes its pieces back at any moment, also out of a request
 * that is out: its place there stays empty. The last one closes the call.
 */
#include "common/clock.h"
#include "common/log.h"
#include "common/worker.h"
#include "workers/embed/embed_internal.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

enum { BULK_TRIES = 8, BULK_BACKOFF_MS = 1000, BULK_BACKOFF_CAP_MS = 30000, REFUSALS_MAX = 32 };
enum { BYTES_MAX = 512 << 10, WHY_MAX = 200 }; /* Of the texts of one request, if it has several. */

struct embed_bulk {
    struct embed_stage *stage;
    struct embed_request request;
    struct sl_timer retry;
    struct sl_backoff backoff;
    struct sl_list pieces;
    size_t take;                              /* Pieces of the next request, at most. */
    struct embed_piece *out[EMBED_TEXTS_MAX]; /* Of this one; NULL: taken back. */
    size_t out_len;
    bool busy; /* In on_answer: it is not closed inside. */
    /* Refusals: */
    size_t refusals; /* In a row. */
    bool proved;     /* The server works. */
    bool probing;
    struct embed_piece *suspect; /* Refused by itself; NULL: taken back. */
    char why[WHY_MAX];           /* So it was refused. */
};

static void go_on(struct embed_bulk *call);

/* --- the call's end --- */

static void close_call(struct embed_bulk *call)
{
    struct embed_stage *stage = call->stage;
    embed_request_cancel(&call->request);
    sl_timer_stop(sl_worker_loop(stage->worker), &call->retry);
    stage->bulk_calls--;
    free(call);
    if (!sl_list_empty(&stage->chunks)) {
        embed_bulk_add(stage, NULL);
    }
}

/* A document that fails takes all its pieces along. */
static void give_up(struct embed_bulk *call, const char *why)
{
    while (!sl_list_empty(&call->pieces)) {
        embed_piece_failed(SL_ITEM(sl_list_first(&call->pieces), struct embed_piece, node), why);
    }
}

/* --- what comes back --- */

static void forget_out(struct embed_bulk *call)
{
    for (size_t i = 0; i < call->out_len; i++) {
        if (call->out[i] != NULL) {
            call->out[i]->slot = 0;
            call->out[i] = NULL;
        }
    }
}

static void count_attempts(const struct embed_bulk *call, uint32_t attempts)
{
    struct sl_job *last = NULL; /* A job's pieces stand together: it is counted once. */
    for (size_t i = 0; i < call->out_len; i++) {
        if (call->out[i] != NULL && call->out[i]->job != last) {
            last = call->out[i]->job;
            sl_job_count_attempts(last, attempts);
        }
    }
}

static void deliver(struct embed_bulk *call, const struct embed_answer *answer)
{
    for (size_t i = 0; i < call->out_len; i++) {
        struct embed_piece *piece = call->out[i];
        if (piece != NULL) {
            embed_bulk_remove(call->stage, piece);
            embed_piece_done(piece, answer->vectors + i * answer->dim, answer->dim);
        }
    }
    call->take = 2 * call->take < EMBED_TEXTS_MAX ? 2 * call->take : EMBED_TEXTS_MAX;
}

static void cut(struct embed_bulk *call, struct embed_piece *piece)
{
    char why[WHY_MAX + 64];
    struct embed_piece *second;
    int rv = embed_piece_split(piece, &second);
    if (rv != 0) {
        snprintf(why, sizeof(why), "%s%s",
                 rv == -SL_ETOOBIG ? "refused by itself, and too short to be cut: " : "",
                 rv == -SL_ETOOBIG ? call->why : sl_error_text(rv));
        embed_piece_failed(piece, why);
        return;
    }
    second->call = call;
    sl_list_push(piece->node.next, &second->node); /* Behind the first part. */
    call->take = 2;
}

static void on_vectors(struct embed_bulk *call, const struct embed_answer *answer)
{
    sl_backoff_init(&call->backoff, BULK_BACKOFF_MS, BULK_BACKOFF_CAP_MS, sl_clock_now_us());
    call->proved = true;
    call->refusals = 0;
    if (!call->probing) {
        deliver(call, answer);
        return;
    }
    call->probing = false;
    if (call->suspect != NULL) {
        cut(call, call->suspect);
    }
}

static void on_retry(struct sl_timer *timer)
{
    go_on(SL_ITEM(timer, struct embed_bulk, retry));
}

static void try_later(struct embed_bulk *call, const struct embed_answer *answer)
{
    if (call->backoff.tries + 1 >= BULK_TRIES) {
        give_up(call, answer->why);
        return;
    }
    sl_log(SL_LOG_WARN, "a call for chunks failed, it is made again", SL_STR("upstream", "EMBED"),
           SL_ERR(answer->err), SL_INT("status", answer->status), SL_STR("why", answer->why),
           SL_INT("tries", call->backoff.tries + 1));
    sl_timer_start(sl_worker_loop(call->stage->worker), &call->retry,
                   sl_backoff_next_ms(&call->backoff), on_retry);
}

/* Perhaps one text's fault. */
static bool is_refusal(const struct embed_answer *answer)
{
    return answer->err == -SL_EREJECTED || (answer->err == -SL_EUPSTREAM && answer->status == 500);
}

static void on_probe_refused(struct embed_bulk *call, const struct embed_answer *answer)
{
    char why[WHY_MAX + 64];
    struct embed_answer broken = *answer;
    snprintf(why, sizeof(why), "every text is refused, however short: %.*s", WHY_MAX, answer->why);
    broken.why = why;
    if (answer->err == -SL_EREJECTED) {
        give_up(call, why);
    } else {
        try_later(call, &broken);
    }
}

static void on_refusal(struct embed_bulk *call, const struct embed_answer *answer)
{
    if (call->probing) {
        on_probe_refused(call, answer);
        return;
    }
    call->proved = call->proved && ++call->refusals % REFUSALS_MAX != 0;
    if (call->out_len > 1) {
        call->take = (call->out_len + 1) / 2;
        return;
    }
    call->suspect = call->out[0];
    if (call->suspect == NULL) {
        return;
    }
    snprintf(call->why, sizeof(call->why), "%s", answer->why);
    if (call->proved) {
        cut(call, call->suspect);
    } else {
        call->probing = true;
    }
}

static bool is_transient(int err)
{
    return sl_error_class(err) == SL_CLASS_RETRY || err == -SL_ECUT || err == -SL_ELOST ||
           err == -SL_EEXPIRED || err == -SL_ENOMEM;
}

static void take_answer(struct embed_bulk *call, const struct embed_answer *answer)
{
    call->busy = true;
    if (answer->err == 0) {
        on_vectors(call, answer);
    } else if (is_refusal(answer)) {
        on_refusal(call, answer);
    } else if (is_transient(answer->err)) {
        try_later(call, answer);
    } else {
        give_up(call, answer->why);
    }
    forget_out(call);
    call->busy = false;
}

static void on_answer(struct embed_request *request, const struct embed_answer *answer)
{
    struct embed_bulk *call = SL_ITEM(request, struct embed_bulk, request);
    count_attempts(call, answer->attempts);
    take_answer(call, answer);
    go_on(call);
}

/* --- what goes out --- */

static size_t choose(struct embed_bulk *call, struct sl_span texts[EMBED_TEXTS_MAX])
{
    size_t bytes = 0;
    call->out_len = 0;
    SL_LIST_EACH(node, &call->pieces)
    {
        struct embed_piece *piece = SL_ITEM(node, struct embed_piece, node);
        bytes += piece->text.len;
        if (call->out_len == call->take || (call->out_len > 0 && bytes > BYTES_MAX)) {
            break;
        }
        texts[call->out_len] = piece->text;
        call->out[call->out_len++] = piece;
        piece->slot = call->out_len;
    }
    return call->out_len;
}

static int send_request(struct embed_bulk *call)
{
    struct sl_span texts[EMBED_TEXTS_MAX] = {SL_SPAN("probe")};
    struct sl_list *first = sl_list_first(&call->pieces);
    const struct embed_wanted wanted = {
        .texts = texts,
        .len = call->probing ? 1 : choose(call, texts),
        .bulk = true,
        .deadline_ms = sl_job_deadline_ms(SL_ITEM(first, struct embed_piece, node)->job)};
    return embed_request_start(&call->request, &wanted);
}

/* The next request, unless one waits to be tried again; or the end. */
static void go_on(struct embed_bulk *call)
{
    if (!sl_list_empty(&call->pieces) && !sl_timer_active(&call->retry)) {
        int rv = send_request(call);
        if (rv != 0) {
            take_answer(call, &(struct embed_answer){.err = rv, .why = sl_error_text(rv)});
        }
    }
    if (sl_list_empty(&call->pieces)) {
        close_call(call);
    }
}

/* --- gathering --- */

static bool start_call(struct embed_stage *stage)
{
    struct embed_bulk *call = calloc(1, sizeof(*call));
    if (call == NULL) {
        return false;
    }
    call->stage = stage;
    call->request = (struct embed_request){.stage = stage, .on_answer = on_answer};
    call->take = (size_t)embed_config.bulk_batch;
    sl_backoff_init(&call->backoff, BULK_BACKOFF_MS, BULK_BACKOFF_CAP_MS, sl_clock_now_us());
    sl_list_init(&call->pieces);
    for (size_t i = 0; i < call->take && !sl_list_empty(&stage->chunks); i++) {
        struct embed_piece *piece =
            SL_ITEM(sl_list_first(&stage->chunks), struct embed_piece, node);
        sl_list_remove(&piece->node);
        stage->chunks_len--;
        piece->waits = false;
        piece->call = call;
        sl_list_push(&call->pieces, &piece->node);
    }
    stage->bulk_calls++;
    go_on(call);
    return true;
}

static void on_window(struct sl_timer *timer)
{
    struct embed_stage *stage = SL_ITEM(timer, struct embed_stage, bulk_window);
    stage->chunks_due = true;
    embed_bulk_add(stage, NULL);
}

static void on_flush(struct sl_task *task)
{
    struct embed_stage *stage = SL_ITEM(task, struct embed_stage, bulk_flush);
    struct sl_loop *loop = sl_worker_loop(stage->worker);
    bool started = true;
    while (started && stage->bulk_calls < embed_bulk_max() && stage->chunks_len > 0 &&
           (stage->chunks_due || stage->chunks_len >= (size_t)embed_config.bulk_batch)) {
        started = start_call(stage);
    }
    if (stage->chunks_len == 0) {
        stage->chunks_due = false;
        sl_timer_stop(loop, &stage->bulk_window);
    } else if (!started || (!stage->chunks_due && !sl_timer_active(&stage->bulk_window))) {
        sl_timer_start(loop, &stage->bulk_window, (uint64_t)embed_config.bulk_window_ms, on_window);
    }
}

void embed_bulk_add(struct embed_stage *stage, struct embed_piece *piece)
{
    if (piece != NULL) {
        assert(sl_list_empty(&piece->node));
        sl_list_push(&stage->chunks, &piece->node);
        stage->chunks_len++;
        piece->waits = true;
    }
    sl_task_defer(sl_worker_loop(stage->worker), &stage->bulk_flush, on_flush);
}

void embed_bulk_remove(struct embed_stage *stage, struct embed_piece *piece)
{
    struct embed_bulk *call = piece->call;
    sl_list_remove(&piece->node);
    stage->chunks_len -= piece->waits ? 1 : 0;
    piece->waits = false;
    piece->call = NULL;
    if (call == NULL) {
        return;
    }
    if (piece->slot > 0) {
        call->out[piece->slot - 1] = NULL;
        piece->slot = 0;
    }
    call->suspect = call->suspect == piece ? NULL : call->suspect;
    if (sl_list_empty(&call->pieces) && !call->busy) {
        close_call(call);
    }
}
