/*
 * Questions to Redis whose answers do not depend on each other, so that none waits for another's
 * round trip. One that got no answer is asked again by a timer, also when it could not even be
 * sent; so no answer comes inside the call that asks.
 */
#include "common/coord_question.h"

#include "common/clock.h"
#include "common/coord_internal.h"

enum { ASKED_FOR_UNITS = 5 };

static void ask(struct coord_question *question);

static void on_retry(struct sl_timer *timer)
{
    ask(SL_ITEM(timer, struct coord_question, retry));
}

static void take(struct coord_question *question, const struct redisReply *reply)
{
    struct sl_coord *coord = question->coord;
    bool last = coord->closing || sl_clock_now_ms() + coord->unit_ms > question->until_ms;
    if (reply == NULL && !last) {
        sl_timer_start(coord->loop, &question->retry, coord->unit_ms, on_retry);
        return;
    }
    sl_list_remove(&question->node);
    coord->question_count--;
    if (!question->on_answer(question, reply, last) && !last) {
        sl_list_push(&coord->questions, &question->node);
        coord->question_count++;
        sl_timer_start(coord->loop, &question->retry, coord->unit_ms, on_retry);
    }
}

static void on_reply(void *ctx, int err, const struct redisReply *reply)
{
    take(ctx, err == 0 && sl_reply_len(reply) >= 2 ? reply : NULL);
}

static void ask(struct coord_question *question)
{
    struct sl_coord *coord = question->coord;
    coord_args_begin(coord);
    question->put(question);
    if (coord_args_eval(coord, &question->script->script, on_reply, question) != 0) {
        take(question, NULL);
    }
}

int coord_question_ask(struct sl_coord *coord, struct coord_question *question)
{
    if (coord->closing || coord->question_count >= COORD_QUESTIONS_MAX) {
        return -SL_EAGAIN;
    }
    question->coord = coord;
    question->until_ms = sl_clock_now_ms() + ASKED_FOR_UNITS * (uint64_t)coord->unit_ms;
    sl_list_init(&question->node);
    sl_list_push(&coord->questions, &question->node);
    coord->question_count++;
    ask(question);
    return 0;
}

void coord_question_end_all(struct sl_coord *coord)
{
    for (struct sl_list *node = sl_list_first(&coord->questions); node != NULL;
         node = sl_list_first(&coord->questions)) {
        struct coord_question *question = SL_ITEM(node, struct coord_question, node);
        sl_timer_stop(coord->loop, &question->retry);
        take(question, NULL); /* The last: the coord is closing. */
    }
}
