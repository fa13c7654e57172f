/*
 * What `sluice report` knows of a span of time, and the two places that it can know it from: the
 * analytics database and the topic sluice.analytics. Both count and rank alike.
 */
#ifndef SLUICE_WORKERS_CLI_REPORT_H
#define SLUICE_WORKERS_CLI_REPORT_H

#include "common/message.h"

enum { REPORT_ERRORS = 16, REPORT_OUTCOMES = SL_EXPIRED + 1 };

/* X(enum, name, JSON key): times in milliseconds, in the order in which they are shown. The first
 * four are of queries that are done; those of a stage are of all queries that reached it. */
/* clang-format off */
#define REPORT_TIMES(X)                                                                            \
    X(TOTAL, "total", "total") X(TTFT, "first token", "ttft")                                      \
    X(RETRIEVAL, "retrieval", "retrieval") X(GENERATION, "generation", "generation")               \
    X(EMBED_WAIT, "embed, waiting", "embed_waiting") X(EMBED_WORK, "embed", "embed")               \
    X(RETRIEVE_WAIT, "retrieve, waiting", "retrieve_waiting")                                      \
    X(RETRIEVE_WORK, "retrieve", "retrieve")                                                       \
    X(RERANK_WAIT, "rerank, waiting", "rerank_waiting") X(RERANK_WORK, "rerank", "rerank")         \
    X(GENERATE_WAIT, "generate, waiting", "generate_waiting")                                      \
    X(GENERATE_WORK, "generate", "generate")
/* clang-format on */
enum report_time {
#define X(name, text, key) REPORT_##name,
    REPORT_TIMES(X)
#undef X
        REPORT_TIME_COUNT
};
const char *report_time_name(enum report_time time);

struct report_times {
    uint64_t count;
    double p50, p95, p99; /* By nearest rank. */
};

struct report_error {
    char code[32], stage[32];
    uint64_t count;
};

/* Means over the answers that have the measure; count 0: there are none. */
struct report_mean {
    uint64_t count;
    double mean;
};

struct report {
    int64_t from_ms, to_ms; /* Unix ms. */
    uint64_t queries, outcomes[REPORT_OUTCOMES];
    uint64_t degraded, degraded_parts[3]; /* vector, keyword, rerank */
    uint64_t prompt_tokens, completion_tokens;
    struct report_times times[REPORT_TIME_COUNT];
    struct report_error errors[REPORT_ERRORS]; /* Most frequent first. */
    size_t error_count;
    uint64_t answers, refusals, empty, sampled, judged;
    struct report_mean citation_share, word_overlap, trigram_overlap, groundedness, relevance;
    bool cut; /* There was more than could be read. */
};

enum { REPORT_WHY = 320 };

/* Fill all but from_ms and to_ms. 0, or -SL_E* with one line in why; -SL_EINVAL: the URL;
 * -SL_ENOENT: there is no such table or topic yet. Block for as long as it takes, each step with a
 * time-out. */
int report_from_database(const char *url, struct report *report, char why[REPORT_WHY]) SL_CHECKED;
int report_from_topic(const char *brokers, const char *topic, struct report *report,
                      char why[REPORT_WHY]) SL_CHECKED;

/* --- from records, for report_from_topic --- */

struct report_gather;
int report_gather_create(struct report_gather **ret) SL_CHECKED; /* -SL_ENOMEM. */
void report_gather_destroy(struct report_gather *gather);        /* Takes NULL. */
/* One record's bytes. What is no record, is outside of the span, or was there before by tenant and
 * id is passed over. 0, -SL_ENOMEM, or -SL_ETOOBIG: it is full. */
int report_gather_add(struct report_gather *gather, const struct report *span,
                      struct sl_span record) SL_CHECKED;
void report_gather_finish(struct report_gather *gather, struct report *report);

#endif
