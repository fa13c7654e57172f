/*
 * A question as it is at each place of the pipeline: 384 numbers of its vector, 20 hits of 600
 * bytes, of which 5 are left after the rerank stage.
 */
#ifndef TESTS_INSTRUCTIONS_SAMPLE_H
#define TESTS_INSTRUCTIONS_SAMPLE_H

#include "common/message.h"

#include <stdio.h>

enum { SAMPLE_DIM = 384, SAMPLE_HITS = 20, SAMPLE_BEST = 5, SAMPLE_TEXT = 600, SAMPLE_TOKENS = 50 };
enum sample_place { SAMPLE_ACCEPTED, SAMPLE_EMBEDDED, SAMPLE_RETRIEVED, SAMPLE_RERANKED };

#define SAMPLE_ID SL_SPAN("01932c07-2b5c-7cc3-98f1-8f0d6f2c1a77")

static inline const float *sample_vector(void)
{
    static float vector[SAMPLE_DIM];
    unsigned state = 1;
    for (size_t i = 0; i < SAMPLE_DIM; i++) {
        state = state * 1103515245U + 12345U;
        vector[i] = ((float)(state >> 8 & 0xffff) - 32768.0f) / 655360.0f;
    }
    return vector;
}

/* English, a quote, a line end and a letter of two bytes in it; cut at a character. */
static inline struct sl_span sample_text(void)
{
    static const char sentence[] =
        "A permit is a lease: \"caf\xc3\xa9\" calls it a ticket, and who "
        "holds one may call the model until it ends.\n";
    static char text[SAMPLE_TEXT];
    for (size_t i = 0; i < SAMPLE_TEXT; i++) {
        text[i] = sentence[i % (sizeof(sentence) - 1)];
    }
    return (struct sl_span){text, SAMPLE_TEXT};
}

static inline struct sl_hit *sample_hits(void)
{
    static struct sl_hit hits[SAMPLE_HITS];
    static char ids[SAMPLE_HITS][2][32];
    for (int i = 0; i < SAMPLE_HITS; i++) {
        snprintf(ids[i][0], sizeof(ids[i][0]), "handbook/permits-%d.md", 100 + i);
        snprintf(ids[i][1], sizeof(ids[i][1]), "handbook/permits-%d.md_%d", 100 + i, i % 4);
        hits[i] = (struct sl_hit){.doc_id = sl_span_of(ids[i][0]),
                                  .chunk_id = sl_span_of(ids[i][1]),
                                  .chunk_index = i % 4,
                                  .text = sample_text(),
                                  .metadata = SL_SPAN("{\"lang\":\"en\",\"title\":\"Permits\"}"),
                                  .score = 0.9 - 0.0123 * i};
    }
    return hits;
}

static inline struct sl_query sample_query(enum sample_place place)
{
    static const struct sl_stage_time ran = {true, 2, 1, 120, 1};
    struct sl_query query = {.query = SL_SPAN("Question 17: how long may a worker hold a permit?"),
                             .collection = SL_SPAN("default"),
                             .top_n = SAMPLE_BEST,
                             .timeout_ms = 60000,
                             .max_tokens = 512,
                             .id = SAMPLE_ID,
                             .tenant = SL_SPAN("default"),
                             .key = SAMPLE_ID,
                             .deadline_ms = 1700000060000,
                             .reply_topic = SL_SPAN("sluice.replies"),
                             .reply_partition = 3};
    if (place >= SAMPLE_EMBEDDED) {
        query.accepted_ms = 1700000000000;
        query.source_topic = SL_SPAN("sluice.queries");
        query.source_partition = 5;
        query.source_offset = 123456;
        query.stages[SL_STAGE_embed] = ran;
    }
    if (place == SAMPLE_EMBEDDED) {
        query.vector = sample_vector();
        query.vector_len = SAMPLE_DIM;
    }
    if (place >= SAMPLE_RETRIEVED) {
        query.hits = sample_hits();
        query.hits_len = place == SAMPLE_RETRIEVED ? SAMPLE_HITS : SAMPLE_BEST;
        query.stages[SL_STAGE_retrieve] = ran;
    }
    if (place == SAMPLE_RERANKED) {
        query.retrieved_ms = 1700000000400;
        query.stages[SL_STAGE_rerank] = ran;
    }
    return query;
}

#endif
