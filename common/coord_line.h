/*
 * The line for the next round trip to Redis: everything of this process that waits for admission or
 * for a permit, queries before bulk work, each by deadline. Which of it to ask now is decided here,
 * so that a full limit costs a few questions a second and not one for each that waits. Pure: time
 * comes in.
 */
#ifndef SLUICE_COMMON_COORD_LINE_H
#define SLUICE_COMMON_COORD_LINE_H

#include "common/permit.h"

enum {
    SL_LINE_BATCH = 128, /* The most in one round trip. */
    SL_LINE_HEADS = 8,   /* Of those who wait for one limit, so many are asked for when it moves. */
};

struct sl_line {
    struct sl_list tickets;
    size_t len;
    uint16_t moved; /* Limits, as in sl_ticket.wants, that may have a free permit. */
};

/* The bits of a limit, of both classes. */
static inline uint16_t sl_line_limit(size_t limit)
{
    return (uint16_t)(3U << (2 * limit));
}

void sl_line_init(struct sl_line *line);
void sl_line_add(struct sl_line *line, struct sl_ticket *ticket);
void sl_line_remove(struct sl_line *line,
                    struct sl_ticket *ticket); /* Also one that is not in it. */
/* A permit of these limits may be free: the first in line for them are asked for again. */
void sl_line_move(struct sl_line *line, uint16_t wants);
/* Those to ask now, in order, without those that are asked already: at most SL_LINE_BATCH. A new
 * ticket brings the first in line for its limits with it, so that it does not overtake them. They
 * stay in the line. */
size_t sl_line_collect(struct sl_line *line, uint64_t now_ms, struct sl_ticket **ret);
/* When the next is to be asked; UINT64_MAX: none, before something is added or moves. */
uint64_t sl_line_next(const struct sl_line *line);

#endif
