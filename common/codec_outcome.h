/*
 * What a result and the event that ends a query have in common. Internal to the codec.
 */
#ifndef SLUICE_COMMON_CODEC_OUTCOME_H
#define SLUICE_COMMON_CODEC_OUTCOME_H

#include "common/codec_parts.h"

/* The members from "outcome" to "source", for a map that the caller has begun with room for
 * sl_outcome_members(). texts: with "query", "answer" and each chunk's "text". */
void sl_sink_outcome(struct sl_sink *sink, const struct sl_query *query,
                     const struct sl_result *result, bool texts);
size_t sl_outcome_members(bool texts);
/* The query's hits as "source_chunks" shows them: a list. */
void sl_sink_sources(struct sl_sink *sink, const struct sl_query *query, bool texts);

/* Readers of its members; the target begins with a struct sl_ended. */
sl_field_read sl_read_degraded, sl_read_usage, sl_read_error, sl_read_source;

enum { SL_OUTCOME_LINE_MAX = 1 << 20 };

/* Entries of a table whose target is a TYPE with a struct sl_ended named MEMBER as its first. */
/* clang-format off */
#define SL_OUTCOME_FIELD(TYPE, name, member, reader, high) \
    {name, reader, offsetof(TYPE, member), 0, high, NULL, false}
#define SL_OUTCOME_FIELDS(TYPE, MEMBER) \
    {"outcome", sl_read_choice, offsetof(TYPE, MEMBER.result.outcome), 0, 0, sl_outcome_names, false}, \
    SL_OUTCOME_FIELD(TYPE, "source_chunks", MEMBER.query, sl_read_hits, 0), \
    SL_OUTCOME_FIELD(TYPE, "retrieval_latency_ms", MEMBER.result.retrieval_latency_ms, sl_read_u32, UINT32_MAX), \
    SL_OUTCOME_FIELD(TYPE, "generation_latency_ms", MEMBER.result.generation_latency_ms, sl_read_u32, UINT32_MAX), \
    SL_OUTCOME_FIELD(TYPE, "ttft_ms", MEMBER.result.ttft_ms, sl_read_u32, UINT32_MAX), \
    SL_OUTCOME_FIELD(TYPE, "total_ms", MEMBER.result.total_ms, sl_read_u32, UINT32_MAX), \
    SL_OUTCOME_FIELD(TYPE, "stages", MEMBER.query, sl_read_stages_map, 0), \
    SL_OUTCOME_FIELD(TYPE, "degraded", MEMBER.query, sl_read_degraded, 0), \
    SL_OUTCOME_FIELD(TYPE, "usage", MEMBER.query, sl_read_usage, 0), \
    SL_OUTCOME_FIELD(TYPE, "error", MEMBER.query, sl_read_error, 0), \
    SL_OUTCOME_FIELD(TYPE, "tenant", MEMBER.query.tenant, sl_read_text, SL_OUTCOME_LINE_MAX), \
    SL_OUTCOME_FIELD(TYPE, "collection", MEMBER.query.collection, sl_read_text, SL_OUTCOME_LINE_MAX), \
    SL_OUTCOME_FIELD(TYPE, "model", MEMBER.result.model, sl_read_text, SL_OUTCOME_LINE_MAX), \
    SL_OUTCOME_FIELD(TYPE, "source", MEMBER.query, sl_read_source, 0)
/* clang-format on */

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
