/*
 * One call to the embedding API: the texts of questions that share it, or of one batch's chunks.
 *
 * A member that is cancelled or expires leaves its call; the call is closed when its last member
 * leaves. When a call fails for several texts, some server's answer to one text that is too long,
 * each half is tried by itself, so that only the text that is at fault fails.
 *
 * What an upstream that is busy or away does to questions is upstream.c's matter; bulk work is
 * tried again here, since nobody waits for it.
 */
#include "workers/embed/call.h"

#include "common/clock.h"
#include "common/log.h"
#include "common/worker.h"
#include "workers/embed/vectors.h"

#include <assert.h>
#include <stdlib.h>

enum { BULK_TRIES = 6, BULK_BACKOFF_MS = 1000, BULK_BACKOFF_CAP_MS = 30000 };
enum { REQUEST_MAX = 16 << 20, RESPONSE_MAX = 64 << 20 };

/* --- how it ends --- */

static void count_attempts(struct embed_call *call, uint32_t attempts)
{
    struct sl_job *last = NULL; /* A bulk job's members stand together: it is counted once. */
    for (size_t i = 0; i < call->len; i++) {
        if (call->members[i].job != NULL && call->members[i].job != last) {
            last = call->members[i].job;
            sl_job_count_attempts(last, attempts);
        }
    }
}

static void fail_members(struct embed_call *call, int err, const char *why)
{
    for (size_t i = 0; i < call->len; i++) {
        if (call->members[i].job != NULL) {
            embed_member_failed(&call->members[i], call->bulk, err, why);
        }
    }
}

static void deliver(struct embed_call *call, struct sl_span body)
{
    float *vectors = NULL;
    size_t dim = 0;
    char why[160];
    int rv = vectors_read_response(body, call->len, &vectors, &dim, why, sizeof(why));
    if (rv != 0) {
        fail_members(call, rv, why);
        return;
    }
    for (size_t i = 0; i < call->len; i++) {
        if (call->members[i].job != NULL) {
            embed_member_done(&call->members[i], call->bulk, vectors + i * dim, dim);
        }
    }
    free(vectors);
}

/* Those that are still here, in halves. false: not a case for halves, or out of memory. */
static bool split(struct embed_call *call, int err, int status)
{
    struct embed_member present[EMBED_MEMBERS_MAX];
    size_t len = 0;
    bool at_fault = err == -SL_EREJECTED || (err == -SL_EUPSTREAM && status == 500);
    for (size_t i = 0; i < call->len; i++) {
        if (call->members[i].job != NULL) {
            present[len++] = call->members[i];
        }
    }
    if (!at_fault || len < 2) {
        return false;
    }
    size_t half = len / 2;
    if (embed_call_start(call->stage, present, half, call->bulk) != 0) {
        return false;
    }
    if (embed_call_start(call->stage, present + half, len - half, call->bulk) != 0) {
        for (size_t i = half; i < len; i++) {
            embed_member_failed(&present[i], call->bulk, -SL_ENOMEM, sl_error_text(-SL_ENOMEM));
        }
    }
    return true;
}

static int request_vectors(struct embed_call *call);
static void on_end(void *ctx, int err, int status, struct sl_span body, const char *detail,
                   uint32_t attempts);

static void on_bulk_retry(struct sl_timer *timer)
{
    struct embed_call *call = SL_ITEM(timer, struct embed_call, retry);
    int rv = request_vectors(call);
    if (rv != 0) {
        on_end(call, rv, 0, SL_SPAN(""), sl_error_text(rv), 0);
    }
}

/* What an upstream that is busy or away did to bulk work is no fault of a text: nobody waits for
 * it, so it is tried again, for about a minute in all. A 500 may be a text's fault (see split). */
static bool try_bulk_again(struct embed_call *call, int err, int status, const char *detail)
{
    bool transient = sl_error_class(err) == SL_CLASS_RETRY || err == -SL_ECUT || err == -SL_ELOST ||
                     err == -SL_EEXPIRED;
    if (!call->bulk || !transient || status == 500 || call->backoff.tries + 1 >= BULK_TRIES) {
        return false;
    }
    call->upstream = NULL;
    sl_log(SL_LOG_WARN, "a call for chunks failed, it is made again", SL_STR("upstream", "EMBED"),
           SL_ERR(err), SL_INT("status", status), SL_STR("why", detail),
           SL_INT("tries", call->backoff.tries + 1));
    sl_timer_start(sl_worker_loop(call->stage->worker), &call->retry,
                   sl_backoff_next_ms(&call->backoff), on_bulk_retry);
    return true;
}

static void on_end(void *ctx, int err, int status, struct sl_span body, const char *detail,
                   uint32_t attempts)
{
    struct embed_call *call = ctx;
    struct embed_stage *stage = call->stage;
    struct sl_job *bulk_job = call->bulk ? call->members[0].job : NULL;
    count_attempts(call, attempts);
    if (err != 0 && try_bulk_again(call, err, status, detail)) {
        return;
    }
    if (err == 0) {
        deliver(call, body);
    } else if (!split(call, err, status)) {
        fail_members(call, err, detail);
    }
    if (bulk_job != NULL) {
        embed_batch_call_ended(bulk_job, call);
    } else if (!call->bulk) {
        stage->calls--;
        embed_flush_soon(stage);
    }
    free(call);
}

/* --- how it begins --- */

/* Bulk jobs know their calls, questions the one that they are in. */
static int enter(struct embed_call *call)
{
    if (!call->bulk) {
        for (size_t i = 0; i < call->len; i++) {
            ((struct embed_state *)sl_job_state(call->members[i].job))->call = call;
        }
        call->stage->calls++;
        return 0;
    }
    struct embed_state *state = sl_job_state(call->members[0].job);
    if (state->bulk_len == state->bulk_cap) {
        size_t cap = state->bulk_cap > 0 ? state->bulk_cap * 2 : 4;
        struct embed_call **calls = realloc(state->bulk, cap * sizeof(struct embed_call *));
        if (calls == NULL) {
            return -SL_ENOMEM;
        }
        state->bulk = calls;
        state->bulk_cap = cap;
    }
    state->bulk[state->bulk_len++] = call;
    state->bulk_open++;
    return 0;
}

static int64_t latest_deadline(const struct embed_call *call)
{
    int64_t latest = 0;
    for (size_t i = 0; i < call->len; i++) {
        int64_t deadline = sl_job_deadline_ms(call->members[i].job);
        latest = deadline > latest ? deadline : latest;
    }
    return latest;
}

/* The permit that came with one of the questions; NULL: the call asks for one. */
static struct sl_permit *find_lease(const struct embed_call *call)
{
    for (size_t i = 0; i < call->len && !call->bulk; i++) {
        struct sl_permit *permit = sl_job_permit(call->members[i].job, 0);
        if (permit->state == SL_PERMIT_HELD) {
            return permit;
        }
    }
    return NULL;
}

static int request_vectors(struct embed_call *call)
{
    static const struct sl_upstream_callbacks callbacks = {.on_end = on_end};
    struct sl_span texts[EMBED_MEMBERS_MAX];
    struct sl_buf body;
    for (size_t i = 0; i < call->len; i++) {
        texts[i] = call->members[i].text;
    }
    sl_buf_init(&body, REQUEST_MAX);
    vectors_write_request(embed_config.upstream.model, texts, call->len, &body);
    const struct sl_upstream_request request = {
        .method = "POST",
        .path = "/embeddings",
        .body = sl_buf_span(&body),
        .max_response = RESPONSE_MAX,
        .bulk = call->bulk,
        .deadline_ms = latest_deadline(call),
        .lease = find_lease(call),
        .callbacks = &callbacks,
        .ctx = call,
    };
    int rv = sl_buf_error(&body);
    rv = rv != 0 ? rv : sl_upstream_start(call->stage->upstream, &request, &call->upstream);
    sl_buf_fini(&body);
    return rv;
}

int embed_call_start(struct embed_stage *stage, const struct embed_member *members, size_t len,
                     bool bulk)
{
    assert(len > 0 && len <= EMBED_MEMBERS_MAX);
    struct embed_call *call = calloc(1, sizeof(*call) + len * sizeof(*members));
    if (call == NULL) {
        return -SL_ENOMEM;
    }
    call->stage = stage;
    call->bulk = bulk;
    sl_backoff_init(&call->backoff, BULK_BACKOFF_MS, BULK_BACKOFF_CAP_MS, sl_clock_now_us());
    call->len = call->present = len;
    memcpy(call->members, members, len * sizeof(*members));
    int rv = request_vectors(call);
    if (rv == 0) {
        rv = enter(call);
        if (rv != 0) {
            sl_upstream_cancel(call->upstream);
        }
    }
    if (rv != 0) {
        free(call);
    }
    return rv;
}

/* --- leaving --- */

void embed_call_close(struct embed_call *call)
{
    if (call->upstream != NULL) {
        sl_upstream_cancel(call->upstream);
    }
    sl_timer_stop(sl_worker_loop(call->stage->worker), &call->retry);
    if (!call->bulk) {
        call->stage->calls--;
        embed_flush_soon(call->stage);
    }
    free(call);
}

void embed_call_leave(struct embed_call *call, const struct sl_job *job)
{
    for (size_t i = 0; i < call->len; i++) {
        if (call->members[i].job == job) {
            call->members[i].job = NULL;
            call->present--;
        }
    }
    if (call->present == 0) {
        embed_call_close(call);
    }
}
