/*
 * Messages on the topics: reading and writing a query as each stage gets it and passes it on, the
 * events of its stream, and its result. The buffer and the arena are made and given back with each
 * message, as the runtime does.
 */
#include "common/codec.h"
#include "tests/instructions/count.h"
#include "tests/instructions/sample.h"

enum { MESSAGE_MAX = 4 << 20 };

static void encode_query(void *ctx)
{
    struct sl_buf out;
    sl_buf_init(&out, MESSAGE_MAX);
    sl_query_encode(ctx, &out);
    CHECK(sl_buf_error(&out) == 0);
    sl_buf_fini(&out);
}

static void decode_query(void *ctx)
{
    const struct sl_buf *bytes = ctx;
    struct sl_arena arena;
    struct sl_query query = {.top_n = 0};
    struct sl_fault fault;
    sl_arena_init(&arena, MESSAGE_MAX);
    CHECK(sl_query_decode_internal(sl_buf_span(bytes), &arena, &query, &fault) == 0);
    sl_arena_fini(&arena);
}

static void decode_job(void *ctx)
{
    const struct sl_span *bytes = ctx;
    struct sl_arena arena;
    struct sl_query query = {.top_n = 0};
    struct sl_fault fault;
    sl_arena_init(&arena, MESSAGE_MAX);
    CHECK(sl_query_decode(*bytes, bytes->data[0] == '{', &arena, &query, &fault) == 0);
    sl_arena_fini(&arena);
}

static unsigned encode(enum sample_place place)
{
    struct sl_query query = sample_query(place);
    return measure(encode_query, &query);
}

static unsigned decode(enum sample_place place)
{
    struct sl_query query = sample_query(place);
    struct sl_buf bytes;
    sl_buf_init(&bytes, MESSAGE_MAX);
    sl_query_encode(&query, &bytes);
    unsigned operations = measure(decode_query, &bytes);
    sl_buf_fini(&bytes);
    return operations;
}

static unsigned encode_accepted(void)
{
    return encode(SAMPLE_ACCEPTED);
}

static unsigned encode_embedded(void)
{
    return encode(SAMPLE_EMBEDDED);
}

static unsigned encode_retrieved(void)
{
    return encode(SAMPLE_RETRIEVED);
}

static unsigned encode_reranked(void)
{
    return encode(SAMPLE_RERANKED);
}

static unsigned decode_embedded(void)
{
    return decode(SAMPLE_EMBEDDED);
}

static unsigned decode_retrieved(void)
{
    return decode(SAMPLE_RETRIEVED);
}

static unsigned decode_reranked(void)
{
    return decode(SAMPLE_RERANKED);
}

static unsigned decode_accepted(void)
{
    struct sl_query query = sample_query(SAMPLE_ACCEPTED);
    struct sl_buf bytes;
    sl_buf_init(&bytes, MESSAGE_MAX);
    sl_query_encode(&query, &bytes);
    struct sl_span span = sl_buf_span(&bytes);
    unsigned operations = measure(decode_job, &span);
    sl_buf_fini(&bytes);
    return operations;
}

static unsigned decode_json(void)
{
    struct sl_span json =
        SL_SPAN("{\"query\": \"Question 17: how long may a worker hold a permit?\", "
                "\"collection\": \"default\", \"top_n\": 5, \"timeout_ms\": 60000, \"history\": "
                "[{\"role\": \"user\", \"content\": \"What is a permit?\"}, {\"role\": "
                "\"assistant\", \"content\": \"A lease on a call to a model.\"}]}");
    return measure(decode_job, &json);
}

/* --- events and results --- */

static void encode_event(void *ctx)
{
    struct sl_buf out;
    sl_buf_init(&out, MESSAGE_MAX);
    sl_event_encode(ctx, false, &out);
    CHECK(sl_buf_error(&out) == 0);
    sl_buf_fini(&out);
}

static void decode_event(void *ctx)
{
    const struct sl_buf *bytes = ctx;
    struct sl_arena arena;
    struct sl_event event;
    sl_arena_init(&arena, MESSAGE_MAX);
    CHECK(sl_event_decode(sl_buf_span(bytes), &arena, &event) == 0);
    sl_arena_fini(&arena);
}

static struct sl_query query;
static struct sl_result result;

static struct sl_event sample_event(enum sl_event_type type)
{
    query = sample_query(SAMPLE_RERANKED);
    result = (struct sl_result){.outcome = SL_DONE,
                                .answer = sample_text(),
                                .model = SL_SPAN("small-chat"),
                                .finish_reason = SL_SPAN("stop"),
                                .usage = {.prompt_tokens = 900, .completion_tokens = 50},
                                .retrieval_latency_ms = 400,
                                .generation_latency_ms = 1800,
                                .ttft_ms = 770,
                                .total_ms = 2240};
    struct sl_event event = {.type = type, .id = SAMPLE_ID, .attempt = 1, .seq = 7, .fence = 4711};
    if (type == SL_EVENT_DELTA) {
        event.text = SL_SPAN("token-17 ");
    } else {
        event.query = &query;
        event.result = type == SL_EVENT_DONE ? &result : NULL;
    }
    return event;
}

static unsigned encode_one_event(enum sl_event_type type)
{
    struct sl_event event = sample_event(type);
    return measure(encode_event, &event);
}

static unsigned decode_one_event(enum sl_event_type type)
{
    struct sl_event event = sample_event(type);
    struct sl_buf bytes;
    sl_buf_init(&bytes, MESSAGE_MAX);
    sl_event_encode(&event, false, &bytes);
    unsigned operations = measure(decode_event, &bytes);
    sl_buf_fini(&bytes);
    return operations;
}

static unsigned encode_delta(void)
{
    return encode_one_event(SL_EVENT_DELTA);
}

static unsigned decode_delta(void)
{
    return decode_one_event(SL_EVENT_DELTA);
}

static unsigned encode_sources(void)
{
    return encode_one_event(SL_EVENT_SOURCES);
}

static unsigned decode_sources(void)
{
    return decode_one_event(SL_EVENT_SOURCES);
}

static unsigned encode_done(void)
{
    return encode_one_event(SL_EVENT_DONE);
}

static unsigned decode_done(void)
{
    return decode_one_event(SL_EVENT_DONE);
}

static void write_result(void *ctx)
{
    const bool *json = ctx;
    struct sl_buf out;
    sl_buf_init(&out, MESSAGE_MAX);
    sl_result_encode(&query, &result, *json, &out);
    CHECK(sl_buf_error(&out) == 0);
    sl_buf_fini(&out);
}

static unsigned encode_result(void)
{
    bool json = false;
    (void)sample_event(SL_EVENT_DONE);
    return measure(write_result, &json);
}

static unsigned encode_result_json(void)
{
    bool json = true;
    (void)sample_event(SL_EVENT_DONE);
    return measure(write_result, &json);
}

int main(int argc, char **argv)
{
    static const struct count_case cases[] = {
        {"decode_json", decode_json},
        {"encode_accepted", encode_accepted},
        {"decode_accepted", decode_accepted},
        {"encode_embedded", encode_embedded},
        {"decode_embedded", decode_embedded},
        {"encode_retrieved", encode_retrieved},
        {"decode_retrieved", decode_retrieved},
        {"encode_reranked", encode_reranked},
        {"decode_reranked", decode_reranked},
        {"encode_sources", encode_sources},
        {"decode_sources", decode_sources},
        {"encode_delta", encode_delta},
        {"decode_delta", decode_delta},
        {"encode_done", encode_done},
        {"decode_done", decode_done},
        {"encode_result", encode_result},
        {"encode_result_json", encode_result_json},
        {NULL, NULL},
    };
    return count_main(cases, argc, argv);
}
