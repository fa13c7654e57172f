/*
 * A model's judgement of an answer: is it grounded in its sources, does it meet the question. Under
 * the permits of the chat model (CHAT), as bulk work.
 */
#ifndef SLUICE_WORKERS_OBSERVE_JUDGE_H
#define SLUICE_WORKERS_OBSERVE_JUDGE_H

#include "common/upstream.h"
#include "workers/observe/quality.h"

struct sl_worker;
struct judge;

/* Borrows config, whose model is one name. -SL_ENOMEM. */
int judge_create(struct sl_worker *worker, const struct sl_upstream_config *config,
                 struct judge **ret) SL_CHECKED;
void judge_destroy(struct judge *judge); /* Its calls have ended. Takes NULL. */
const char *judge_model(const struct judge *judge);

/* One judgement, a member of its owner; zeroed is not begun. */
struct judge_call {
    struct judge *judge;
    struct sl_upstream_call *call;
    struct quality *quality;
    void (*on_judged)(struct judge_call *call);
};

/* on_judged comes once, later: quality has the judgement, or why it is missing, which is counted.
 * false: it does not come, for want of memory or because too many wait: quality says so already. */
bool judge_start(struct judge *judge, struct judge_call *call, const struct sl_ended *ended,
                 struct quality *quality, void (*on_judged)(struct judge_call *call)) SL_CHECKED;
void judge_cancel(struct judge_call *call); /* No callback comes. Also of one that is not begun. */

/* The request's body: a chat completion that is not streamed. */
void judge_write(const struct sl_ended *ended, const char *model, struct sl_buf *out);
/* The response's body: a chat completion whose text is the judgement, perhaps in a fence. 0, or
 * -SL_EBADMSG, -SL_ENOMEM with quality untouched. */
int judge_read(struct sl_span body, struct quality *quality) SL_CHECKED;

#endif
