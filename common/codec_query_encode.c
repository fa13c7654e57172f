/*
 * Queries out: the MessagePack map that goes from stage to stage. What is empty or has not happened
 * yet is left out, so that a job which no stage has had can be read as a caller's. The counts of
 * members stand next to the members. Unknown pairs that a newer version's message brought are
 * appended as they came.
 */
#include "common/codec_parts.h"

#include <math.h>
#include <stdio.h>

static void put_history(struct sl_sink *sink, const struct sl_query *query)
{
    sl_sink_key(sink, "history");
    sl_sink_list(sink, query->history_len);
    for (size_t i = 0; i < query->history_len; i++) {
        const struct sl_turn *turn = &query->history[i];
        sl_sink_map(sink, 2);
        sl_sink_text_at(sink, "role", sl_span_of(turn->assistant ? "assistant" : "user"));
        sl_sink_text_at(sink, "content", turn->content);
        sl_sink_map_end(sink);
    }
    sl_sink_list_end(sink);
}

static void put_filter(struct sl_sink *sink, const struct sl_query *query)
{
    sl_sink_key(sink, "filter");
    sl_sink_map(sink, query->filter_len);
    for (size_t i = 0; i < query->filter_len; i++) {
        sl_sink_text(sink, query->filter[i].key);
        sl_sink_text(sink, query->filter[i].value);
    }
    sl_sink_map_end(sink);
}

static void put_source(struct sl_sink *sink, const struct sl_query *query)
{
    sl_sink_key(sink, "source");
    sl_sink_list(sink, 3);
    sl_sink_text(sink, query->source_topic);
    sl_sink_int(sink, query->source_partition);
    sl_sink_int(sink, query->source_offset);
    sl_sink_list_end(sink);
}

static void put_hits(struct sl_sink *sink, const struct sl_query *query)
{
    sl_sink_key(sink, "hits");
    sl_sink_list(sink, query->hits_len);
    for (size_t i = 0; i < query->hits_len; i++) {
        const struct sl_hit *hit = &query->hits[i];
        sl_sink_map(sink, 6);
        sl_sink_text_at(sink, "doc_id", hit->doc_id);
        sl_sink_text_at(sink, "chunk_id", hit->chunk_id);
        sl_sink_int_at(sink, "chunk_index", hit->chunk_index);
        sl_sink_text_at(sink, "text", hit->text);
        sl_sink_text_at(sink, "metadata", hit->metadata);
        sl_sink_key(sink, "score");
        sl_sink_number(sink, isfinite(hit->score) ? hit->score : 0);
        sl_sink_map_end(sink);
    }
    sl_sink_list_end(sink);
}

static bool any_stage_reached(const struct sl_query *query)
{
    for (size_t i = 0; i < SL_STAGE_COUNT; i++) {
        if (sl_stage_reached(&query->stages[i])) {
            return true;
        }
    }
    return false;
}

static void put_stages(struct sl_sink *sink, const struct sl_query *query)
{
    sl_sink_key(sink, "stages");
    sl_sink_list(sink, SL_STAGE_COUNT);
    for (size_t i = 0; i < SL_STAGE_COUNT; i++) {
        const struct sl_stage_time *time = &query->stages[i];
        if (!sl_stage_reached(time)) {
            sl_sink_null(sink);
            continue;
        }
        sl_sink_list(sink, 4);
        sl_sink_int(sink, time->queue_ms);
        sl_sink_int(sink, time->wait_ms);
        sl_sink_int(sink, time->work_ms);
        sl_sink_int(sink, time->attempts);
        sl_sink_list_end(sink);
    }
    sl_sink_list_end(sink);
}

static void put_disconnect(struct sl_sink *sink, const struct sl_query *query)
{
    char text[32];
    switch (query->on_disconnect) {
    case SL_DISCONNECT_CANCEL:
        snprintf(text, sizeof(text), "cancel");
        break;
    case SL_DISCONNECT_GRACE: /* Whole seconds; less than one would mean none. */
        snprintf(text, sizeof(text), "grace:%u", (query->grace_ms + 999) / 1000);
        break;
    case SL_DISCONNECT_CONTINUE:
        snprintf(text, sizeof(text), "continue");
        break;
    }
    sl_sink_text_at(sink, "on_disconnect", sl_span_of(text));
}

static void put_caller(struct sl_sink *sink, const struct sl_query *query)
{
    sl_sink_text_at(sink, "query", query->query);
    sl_sink_text_at(sink, "collection", query->collection);
    sl_sink_text_at(sink, "mode", sl_span_of(query->mode == SL_MODE_SEARCH ? "search" : "answer"));
    sl_sink_int_at(sink, "top_n", query->top_n);
    sl_sink_int_at(sink, "timeout_ms", query->timeout_ms);
    sl_sink_int_at(sink, "max_tokens", query->max_tokens);
    sl_sink_key(sink, "temperature");
    sl_sink_number(sink, query->temperature);
    put_disconnect(sink, query);
    bool restart = query->on_worker_lost == SL_WORKER_LOST_RESTART;
    sl_sink_text_at(sink, "on_worker_lost", sl_span_of(restart ? "restart" : "error"));
}

static void put_optional(struct sl_sink *sink, const struct sl_query *query)
{
    if (query->history_len > 0) {
        put_history(sink, query);
    }
    if (query->filter_len > 0) {
        put_filter(sink, query);
    }
    if (query->model.len > 0) {
        sl_sink_text_at(sink, "model", query->model);
    }
    if (query->extra.len > 0) {
        sl_sink_text_at(sink, "extra", query->extra);
    }
    if (query->source_topic.len > 0) {
        put_source(sink, query);
    }
    if (query->vector_len > 0) {
        sl_sink_key(sink, "vector");
        sl_sink_floats(sink, query->vector, query->vector_len);
    }
    if (query->hits_len > 0) {
        put_hits(sink, query);
    }
}

/* What the pipeline adds. A job that no stage has had yet has none of it: it is a caller's. */
static void put_progress(struct sl_sink *sink, const struct sl_query *query)
{
    if (query->json) {
        sl_sink_key(sink, "json");
        sl_sink_bool(sink, true);
    }
    if (query->accepted_ms != 0) {
        sl_sink_int_at(sink, "accepted", query->accepted_ms);
    }
    if (query->degraded != 0) {
        sl_sink_int_at(sink, "degraded", query->degraded);
    }
    if (query->retrieved_ms != 0) {
        sl_sink_int_at(sink, "retrieved", query->retrieved_ms);
    }
    if (any_stage_reached(query)) {
        put_stages(sink, query);
    }
}

static size_t count_progress(const struct sl_query *query)
{
    return (size_t)query->json + (query->accepted_ms != 0) + (query->degraded != 0) +
           (query->retrieved_ms != 0) + any_stage_reached(query);
}

static size_t count_optional(const struct sl_query *query)
{
    const size_t lengths[] = {query->history_len, query->filter_len,       query->model.len,
                              query->extra.len,   query->source_topic.len, query->vector_len,
                              query->hits_len};
    size_t count = 0;
    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        count += lengths[i] > 0 ? 1 : 0;
    }
    return count;
}

void sl_query_encode(const struct sl_query *query, struct sl_buf *out)
{
    enum { FIXED = 1 + 9 }; /* "v", the caller's. */
    struct sl_sink sink;
    sl_sink_init(&sink, out, false);
    sl_sink_map(&sink,
                FIXED + count_progress(query) + count_optional(query) + query->unknown_pairs);
    sl_sink_int_at(&sink, "v", SL_MESSAGE_MAJOR);
    put_caller(&sink, query);
    put_progress(&sink, query);
    put_optional(&sink, query);
    sl_sink_map_end(&sink);
    sl_buf_append_span(out, query->unknown);
}
