/* Event streams: reading a model's 50 tokens, each in a piece of its own or all at once, and
 * writing as many events. */
#include "common/sse.h"
#include "tests/instructions/count.h"
#include "tests/instructions/sample.h"

enum { STREAM_MAX = 1 << 20 };

static struct sl_buf pieces[SAMPLE_TOKENS], whole;
static size_t events;

static int on_event(void *ctx, const struct sl_sse_event *event)
{
    (void)ctx;
    events += event->data.len > 0;
    return 0;
}

static void make_stream(void)
{
    sl_buf_init(&whole, STREAM_MAX);
    for (int i = 0; i < SAMPLE_TOKENS; i++) {
        sl_buf_init(&pieces[i], STREAM_MAX);
        sl_buf_printf(&pieces[i],
                      "data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\","
                      "\"created\":1700000000,\"model\":\"small-chat\",\"choices\":[{\"index\":0,"
                      "\"delta\":{\"content\":\"token-%d \"},\"finish_reason\":null}]}\n\n",
                      i);
        sl_buf_append_span(&whole, sl_buf_span(&pieces[i]));
    }
}

static void free_stream(void)
{
    sl_buf_fini(&whole);
    for (int i = 0; i < SAMPLE_TOKENS; i++) {
        sl_buf_fini(&pieces[i]);
    }
}

static void read_pieces(void *ctx)
{
    struct sl_sse_reader reader;
    (void)ctx;
    events = 0;
    sl_sse_reader_init(&reader, STREAM_MAX, on_event, NULL);
    for (int i = 0; i < SAMPLE_TOKENS; i++) {
        CHECK(sl_sse_reader_feed(&reader, sl_buf_span(&pieces[i])) == 0);
    }
    CHECK(events == SAMPLE_TOKENS);
    sl_sse_reader_fini(&reader);
}

static void read_whole(void *ctx)
{
    struct sl_sse_reader reader;
    (void)ctx;
    events = 0;
    sl_sse_reader_init(&reader, STREAM_MAX, on_event, NULL);
    CHECK(sl_sse_reader_feed(&reader, sl_buf_span(&whole)) == 0);
    CHECK(events == SAMPLE_TOKENS);
    sl_sse_reader_fini(&reader);
}

static void write_events(void *ctx)
{
    struct sl_buf out;
    (void)ctx;
    sl_buf_init(&out, STREAM_MAX);
    for (int i = 0; i < SAMPLE_TOKENS; i++) {
        sl_sse_write(&out, "1:17", "delta", SL_SPAN("{\"text\":\"token-17 \"}"));
    }
    CHECK(sl_buf_error(&out) == 0);
    sl_buf_fini(&out);
}

static unsigned read_stream(void (*step)(void *ctx))
{
    make_stream();
    unsigned operations = measure(step, NULL);
    free_stream();
    return operations;
}

static unsigned read_50_pieces(void)
{
    return read_stream(read_pieces);
}

static unsigned read_50_at_once(void)
{
    return read_stream(read_whole);
}

static unsigned write_50(void)
{
    return measure(write_events, NULL);
}

int main(int argc, char **argv)
{
    static const struct count_case cases[] = {
        {"read_50_pieces", read_50_pieces},
        {"read_50_at_once", read_50_at_once},
        {"write_50", write_50},
        {NULL, NULL},
    };
    return count_main(cases, argc, argv);
}
