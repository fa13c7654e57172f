/*
 * What a result and the event that ends a query have in common. Internal to the codec.
 */
#ifndef SLUICE_COMMON_CODEC_OUTCOME_H
#define SLUICE_COMMON_CODEC_OUTCOME_H

#include "common/codec_sink.h"
#include "common/message.h"

/* The members from "outcome" to "source", for a map that the caller has begun with room for
 * sl_outcome_members(). texts: with "query", "answer" and each chunk's "text". */
void sl_sink_outcome(struct sl_sink *sink, const struct sl_query *query,
                     const struct sl_result *result, bool texts);
size_t sl_outcome_members(bool texts);
/* The query's hits as "source_chunks" shows them: a list. */
void sl_sink_sources(struct sl_sink *sink, const struct sl_query *query, bool texts);

/* By number, NULL at the end. */
extern const char *const sl_outcome_names[];
extern const char *const sl_query_error_names[];
struct sl_degraded_name {
    uint32_t bit;
    const char *name;
};
enum { SL_DEGRADED_COUNT = 3 };
extern const struct sl_degraded_name sl_degraded_names[SL_DEGRADED_COUNT];

#endif
