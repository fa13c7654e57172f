/* How the stub answers: latencies and sizes, from the command line or PUT /behaviour. */
#ifndef SLUICE_BENCH_UPSTREAM_BEHAVIOUR_H
#define SLUICE_BENCH_UPSTREAM_BEHAVIOUR_H

#include "common/buf.h"

#include <stdint.h>

/* name, default, least, most, what --help says */
#define UPSTREAM_FIELDS(X)                                                                         \
    X(embed_ms, 120, 0, 600000, "latency of embeddings")                                           \
    X(vector_ms, 150, 0, 600000, "latency of vector searches")                                     \
    X(keyword_ms, 100, 0, 600000, "latency of keyword searches")                                   \
    X(rerank_ms, 200, 0, 600000, "latency of rerank")                                              \
    X(chat_ms, 300, 0, 600000, "latency of the first token")                                       \
    X(tokens, 50, 1, 20000, "of each answer")                                                      \
    X(interval_ms, 30, 0, 600000, "between two tokens; 0: all at once")                            \
    X(dimensions, 384, 1, 8192, "of each vector")                                                  \
    X(chunk_bytes, 600, 1, 262144, "text of each hit")

struct upstream_behaviour {
#define X(name, preset, min, max, help) uint32_t name;
    UPSTREAM_FIELDS(X)
#undef X
};

void upstream_behaviour_init(struct upstream_behaviour *behaviour);
/* name with '_' or '-'. 0, -SL_ENOENT (no such name) or -SL_EINVAL (not a number in range), the
 * reason in why. */
int upstream_behaviour_set(struct upstream_behaviour *behaviour, struct sl_span name,
                           struct sl_span value, char *why, size_t why_size) SL_CHECKED;
/* A JSON object of any of the names; all of it or nothing. 0 or -SL_EINVAL, the reason in why. */
int upstream_behaviour_apply(struct upstream_behaviour *behaviour, struct sl_span json, char *why,
                             size_t why_size) SL_CHECKED;
void upstream_behaviour_write(const struct upstream_behaviour *behaviour, struct sl_buf *out);
/* A line for each option. */
void upstream_behaviour_help(struct sl_buf *out);

#endif
