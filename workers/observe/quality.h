/*
 * What can be said of an answer's quality: measures that need no model, of every answer, and a
 * model's judgement, of a sampled share.
 */
#ifndef SLUICE_WORKERS_OBSERVE_QUALITY_H
#define SLUICE_WORKERS_OBSERVE_QUALITY_H

#include "common/message.h"

enum { QUALITY_REASON = 320 };

enum quality_judged {
    QUALITY_NOT_SAMPLED,
    QUALITY_JUDGED,
    QUALITY_MISSING, /* Sampled, and the judge had no usable answer. */
};

struct quality {
    bool measured; /* It was answered; else nothing here is set. */
    bool empty;    /* Nothing but white space. */
    bool refusal;  /* It says that it does not know. */
    size_t words, characters, sources;
    size_t cited;           /* Sources that it names as [n]. */
    double citation_share;  /* Those, of all its sources. */
    double word_overlap;    /* Share of its words that stand in its sources. */
    double trigram_overlap; /* Share of its runs of three words that do; 0 where it has fewer. */

    enum quality_judged judged;
    double groundedness, relevance; /* 0 .. 1 */
    char groundedness_reason[QUALITY_REASON], relevance_reason[QUALITY_REASON];
    const char *missing; /* Why there is no judgement: one word. Static. */
};

/* Fills all but what a judge says. Only a query that is done and went through generation has an
 * answer to measure. Takes some MiB for the time of the call; without them the overlaps are 0. */
void quality_measure(const struct sl_ended *ended, struct quality *ret);

#endif
