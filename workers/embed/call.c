/*
 * One call to the embedding API for the questions that share it.
 *
 * A question that is cancelled or expires leaves its call; the call is closed when the last one
 * leaves. When a call fails for several questions, some server's answer to one text that is too
 * long, each half is tried by itself, so that only the question that is at fault fails. What an
 * upstream that is busy or away does to questions is upstream.c's matter.
 */
#include "workers/embed/embed_internal.h"

#include <assert.h>
#include <stdlib.h>

struct embed_call {
    struct embed_stage *stage;
    struct embed_request request;
    size_t len, present;
    struct sl_job *jobs[]; /* NULL: it has left. */
};

static void set_call(struct sl_job *job, struct embed_call *call)
{
    ((struct embed_state *)sl_job_state(job))->call = call;
}

/* --- how it ends --- */

static void fail_all(struct embed_call *call, int err, const char *why)
{
    for (size_t i = 0; i < call->len; i++) {
        if (call->jobs[i] != NULL) {
            embed_question_failed(call->jobs[i], err, why);
        }
    }
}

static void deliver(struct embed_call *call, const struct embed_answer *answer)
{
    struct embed_cache *cache = call->stage->cache;
    for (size_t i = 0; i < call->len; i++) {
        struct sl_job *job = call->jobs[i];
        if (job != NULL) {
            const float *vector = answer->vectors + i * answer->dim;
            const struct embed_state *state = sl_job_state(job);
            if (cache != NULL) {
                embed_cache_put(cache, EMBED_QUESTION, &state->key, vector, answer->dim);
            }
            embed_question_done(job, vector, answer->dim);
        }
    }
}

/* Those that are still here, in halves. false: not a case for halves, or out of memory. */
static bool split(struct embed_call *call, const struct embed_answer *answer)
{
    struct sl_job *present[EMBED_TEXTS_MAX];
    size_t len = 0;
    bool at_fault =
        answer->err == -SL_EREJECTED || (answer->err == -SL_EUPSTREAM && answer->status == 500);
    for (size_t i = 0; i < call->len; i++) {
        if (call->jobs[i] != NULL) {
            present[len++] = call->jobs[i];
        }
    }
    if (!at_fault || len < 2) {
        return false;
    }
    size_t half = len / 2;
    if (embed_call_start(call->stage, present, half) != 0) {
        return false;
    }
    if (embed_call_start(call->stage, present + half, len - half) != 0) {
        for (size_t i = half; i < len; i++) {
            embed_question_failed(present[i], -SL_ENOMEM, sl_error_text(-SL_ENOMEM));
        }
    }
    return true;
}

static void on_answer(struct embed_request *request, const struct embed_answer *answer)
{
    struct embed_call *call = SL_ITEM(request, struct embed_call, request);
    struct embed_stage *stage = call->stage;
    for (size_t i = 0; i < call->len; i++) {
        if (call->jobs[i] != NULL) {
            sl_job_count_attempts(call->jobs[i], answer->attempts);
            set_call(call->jobs[i], NULL);
        }
    }
    if (answer->err == 0) {
        deliver(call, answer);
    } else if (!split(call, answer)) {
        fail_all(call, answer->err, answer->why);
    }
    stage->calls--;
    embed_flush_soon(stage);
    free(call);
}

/* --- how it begins --- */

static int64_t latest_deadline(const struct embed_call *call)
{
    int64_t latest = 0;
    for (size_t i = 0; i < call->len; i++) {
        int64_t deadline = sl_job_deadline_ms(call->jobs[i]);
        latest = deadline > latest ? deadline : latest;
    }
    return latest;
}

/* The permit that came with one of the questions; NULL: the call asks for one. */
static struct sl_permit *find_lease(const struct embed_call *call)
{
    for (size_t i = 0; i < call->len; i++) {
        struct sl_permit *permit = sl_job_permit(call->jobs[i], 0);
        if (permit->state == SL_PERMIT_HELD) {
            return permit;
        }
    }
    return NULL;
}

int embed_call_start(struct embed_stage *stage, struct sl_job *const *jobs, size_t len)
{
    struct sl_span texts[EMBED_TEXTS_MAX];
    assert(len > 0 && len <= EMBED_TEXTS_MAX);
    struct embed_call *call = malloc(sizeof(*call) + len * sizeof(*jobs));
    if (call == NULL) {
        return -SL_ENOMEM;
    }
    *call = (struct embed_call){.stage = stage,
                                .request = {.stage = stage, .on_answer = on_answer},
                                .len = len,
                                .present = len};
    memcpy(call->jobs, jobs, len * sizeof(*jobs));
    for (size_t i = 0; i < len; i++) {
        texts[i] = sl_job_query(jobs[i])->query;
    }
    const struct embed_wanted wanted = {.texts = texts,
                                        .len = len,
                                        .deadline_ms = latest_deadline(call),
                                        .lease = find_lease(call)};
    int rv = embed_request_start(&call->request, &wanted);
    if (rv != 0) {
        free(call);
        return rv;
    }
    for (size_t i = 0; i < len; i++) {
        set_call(jobs[i], call);
    }
    stage->calls++;
    return 0;
}

/* --- leaving --- */

void embed_call_leave(struct embed_call *call, const struct sl_job *job)
{
    for (size_t i = 0; i < call->len; i++) {
        if (call->jobs[i] == job) {
            call->jobs[i] = NULL;
            call->present--;
        }
    }
    if (call->present == 0) {
        embed_request_cancel(&call->request);
        call->stage->calls--;
        embed_flush_soon(call->stage);
        free(call);
    }
}
