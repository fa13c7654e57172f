/*
 * A gateway's part in a stream: from a record of the replies topic to the bytes of the event that
 * are given to the connection at the end of the loop's turn. The connection is played.
 */
#include "common/codec.h"
#include "tests/instructions/count.h"
#include "tests/instructions/sample.h"
#include "workers/gateway/caller.h"
#include "workers/gateway/open_query.h"

enum { RECORD_MAX = 1 << 20 };

static struct gateway gateway;
static struct open_query q;
static struct caller *caller;
static size_t written;

int __wrap_sl_http_stream_write(struct sl_http_exchange *exchange, struct sl_span bytes);
int __wrap_sl_http_stream_write(struct sl_http_exchange *exchange, struct sl_span bytes)
{
    (void)exchange;
    written += bytes.len;
    return 0;
}

static void begin(const struct format *format)
{
    struct intake intake = {.format = format};
    intake.request.exchange = (struct sl_http_exchange *)&written; /* Only passed on. */
    intake.chat.model = SL_SPAN("small-chat");
    intake.is_chat = format == &format_chat_stream;
    q = (struct open_query){.gateway = &gateway, .query = sample_query(SAMPLE_ACCEPTED)};
    q.producing = true; /* Nobody frees it. */
    sl_list_init(&q.callers);
    caller = caller_create(&q, &intake);
    CHECK(caller != NULL);
    sl_list_push(&q.callers, &caller->in_query);
    caller->accepted = true;
    caller->first_text_us = 1; /* Observed already. */
    q.live = caller;
}

static void end(void)
{
    caller_free(caller);
}

/* A record that the generate stage, or before it the rerank stage, sends. */
static struct sl_record record_of(const struct sl_event *event, struct sl_buf *bytes)
{
    sl_buf_init(bytes, RECORD_MAX);
    sl_event_encode(event, false, bytes);
    CHECK(sl_buf_error(bytes) == 0);
    return (struct sl_record){.value = sl_buf_span(bytes)};
}

static void give(void *ctx)
{
    const struct sl_record *record = ctx;
    open_query_live(&q, record->value);
    sl_loop_turn(gateway.loop, 0);
}

static void give_sources(struct sl_record *record)
{
    struct sl_buf bytes;
    struct sl_query query = sample_query(SAMPLE_RERANKED);
    struct sl_event sources = {.type = SL_EVENT_SOURCES, .id = SAMPLE_ID, .query = &query};
    *record = record_of(&sources, &bytes);
    give(record);
    sl_buf_fini(&bytes);
}

static void give_all(void *ctx)
{
    struct sl_record *records = ctx;
    for (int i = 0; i < SAMPLE_TOKENS; i++) {
        give(&records[i]);
    }
}

/* Each token in a record and in a turn of its own. */
static unsigned deltas(const struct format *format)
{
    static struct sl_buf bytes[COUNT_OPERATIONS][SAMPLE_TOKENS];
    static struct sl_record records[COUNT_OPERATIONS][SAMPLE_TOKENS];
    struct sl_record sources;
    begin(format);
    give_sources(&sources);
    CHECK(written > SAMPLE_BEST * SAMPLE_TEXT || format == &format_chat_stream);
    for (uint32_t i = 0; i < COUNT_OPERATIONS * SAMPLE_TOKENS; i++) {
        struct sl_event event = {.type = SL_EVENT_DELTA,
                                 .id = SAMPLE_ID,
                                 .attempt = 1,
                                 .seq = i,
                                 .fence = 4711,
                                 .text = SL_SPAN("token-17 ")};
        records[i / SAMPLE_TOKENS][i % SAMPLE_TOKENS] =
            record_of(&event, &bytes[i / SAMPLE_TOKENS][i % SAMPLE_TOKENS]);
    }
    for (int i = 0; i < COUNT_OPERATIONS; i++) {
        size_t before = written;
        measure_one(i, give_all, records[i]);
        CHECK(written > before + SAMPLE_TOKENS * strlen("token-17 "));
        for (int t = 0; t < SAMPLE_TOKENS; t++) {
            sl_buf_fini(&bytes[i][t]);
        }
    }
    end();
    return COUNT_ROUNDS;
}

static unsigned stream_50_deltas(void)
{
    return deltas(&format_query_stream);
}

static unsigned chat_50_deltas(void)
{
    return deltas(&format_chat_stream);
}

static unsigned stream_sources(void)
{
    struct sl_buf bytes;
    struct sl_query query = sample_query(SAMPLE_RERANKED);
    struct sl_event event = {.type = SL_EVENT_SOURCES, .id = SAMPLE_ID, .query = &query};
    struct sl_record record = record_of(&event, &bytes);
    for (int i = 0; i < COUNT_OPERATIONS; i++) {
        size_t before = written;
        begin(&format_query_stream);
        measure_one(i, give, &record);
        CHECK(written > before + SAMPLE_BEST * SAMPLE_TEXT);
        end();
    }
    sl_buf_fini(&bytes);
    return COUNT_ROUNDS;
}

int main(int argc, char **argv)
{
    static const struct count_case cases[] = {
        {"stream_sources", stream_sources},
        {"stream_50_deltas", stream_50_deltas},
        {"chat_50_deltas", chat_50_deltas},
        {NULL, NULL},
    };
    CHECK(sl_loop_create(&gateway.loop) == 0);
    int rv = count_main(cases, argc, argv);
    sl_loop_destroy(gateway.loop);
    return rv;
}
