/* What the stub counts: calls of each kind, and how late its own writes were. */
#ifndef SLUICE_BENCH_UPSTREAM_STATS_H
#define SLUICE_BENCH_UPSTREAM_STATS_H

#include "measure_histogram.h"
#include "upstream_answers.h"

struct upstream_count {
    uint64_t calls, in_flight, peak, aborted;
};

struct upstream_stats {
    struct upstream_count kinds[UPSTREAM_KINDS];
    uint64_t tokens; /* Written to streams. */
    struct measure_histogram late;
};

void upstream_stats_begin(struct upstream_stats *stats, enum upstream_kind kind);
void upstream_stats_end(struct upstream_stats *stats, enum upstream_kind kind, bool aborted);
/* A write that was due at due_us is out. */
void upstream_stats_written(struct upstream_stats *stats, uint64_t due_us);
/* Counts from zero; what is in flight stays so. */
void upstream_stats_reset(struct upstream_stats *stats);
/* As a JSON object. */
void upstream_stats_write(const struct upstream_stats *stats, size_t connections,
                          struct sl_buf *out);

#endif
