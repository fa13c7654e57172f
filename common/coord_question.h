/*
 * Questions to Redis of which any number may be out: each is asked again, once a unit, until there
 * is an answer or 5 units have passed.
 */
#ifndef SLUICE_COMMON_COORD_QUESTION_H
#define SLUICE_COMMON_COORD_QUESTION_H

#include "common/loop.h"

enum { COORD_QUESTIONS_MAX = 10000 };

struct redisReply;
struct sl_coord;
struct coord_script;

/* A member of what is asked; its owner sets the first part. */
struct coord_question {
    struct coord_script *script;
    void (*put)(struct coord_question *question); /* The arguments behind the prelude's. */
    /* The raw reply; NULL: there was none. False, unless it is the last: ask again. With true or
     * the last the question is over and may be freed. */
    bool (*on_answer)(struct coord_question *question, const struct redisReply *reply, bool last);
    struct sl_coord *coord;
    struct sl_list node; /* In coord->questions. */
    struct sl_timer retry;
    uint64_t until_ms; /* This process's monotonic clock. */
};

/* on_answer comes later, inside sl_coord_destroy at the latest. -SL_EAGAIN: 10,000 are asked. */
int coord_question_ask(struct sl_coord *coord, struct coord_question *question) SL_CHECKED;
void coord_question_end_all(struct sl_coord *coord); /* Redis is gone. */

#endif
