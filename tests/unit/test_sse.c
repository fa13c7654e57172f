/* The reader gives the same events however the stream is cut; the writer's events read back. */
#include "common/sse.h"
#include "tests/support/test.h"

static struct sl_buf seen; /* One "type|data|id" line per event; newlines in data as \n. */
static int stop_after;     /* Events until the callback refuses; 0: never. */

static int on_event(void *ctx, const struct sl_sse_event *event)
{
    CHECK(ctx == &seen);
    sl_buf_printf(&seen, SL_SPAN_FMT "|", SL_SPAN_ARG(event->type));
    for (size_t i = 0; i < event->data.len; i++) {
        if (event->data.data[i] == '\n') {
            sl_buf_append_text(&seen, "\\n");
        } else {
            sl_buf_append(&seen, event->data.data + i, 1);
        }
    }
    sl_buf_printf(&seen, "|" SL_SPAN_FMT "\n", SL_SPAN_ARG(event->id));
    return stop_after > 0 && --stop_after == 0 ? -SL_ECANCELLED : 0;
}

static void check_seen(const char *want)
{
    sl_buf_append(&seen, "", 1);
    CHECK_STR(seen.data, want);
    sl_buf_clear(&seen);
}

/* Feeds text in pieces of step bytes, each in memory of its own so that overreads show. */
static int feed(struct sl_span text, size_t step, size_t max)
{
    struct sl_sse_reader reader;
    int rv = 0;
    sl_sse_reader_init(&reader, max, on_event, &seen);
    for (size_t at = 0; at < text.len && rv == 0; at += step) {
        size_t len = text.len - at < step ? text.len - at : step;
        char *piece = malloc(len);
        CHECK(piece != NULL);
        memcpy(piece, text.data + at, len);
        rv = sl_sse_reader_feed(&reader, (struct sl_span){piece, len});
        free(piece);
    }
    sl_sse_reader_fini(&reader);
    return rv;
}

TEST(events_do_not_depend_on_the_cuts)
{
    static const struct {
        struct sl_span text;
        const char *want;
    } cases[] = {
        {{"data: a\n\ndata: b\n\n", 18}, "message|a|\nmessage|b|\n"},
        {{"data: a\r\n\r\ndata: b\r\n\r\n", 22}, "message|a|\nmessage|b|\n"},
        {{"data: a\r\rdata: b\r\r", 18}, "message|a|\nmessage|b|\n"},
        {{"data: a\r\n\ndata: b\n\r\n", 20}, "message|a|\nmessage|b|\n"},
        {{"\xef\xbb\xbf"
          "data: a\n\n",
          12},
         "message|a|\n"},
        {{"data:a\ndata:  b\ndata\n\n", 22}, "message|a\\n b\\n|\n"},
        {{"data\n\n", 6}, "message||\n"},
        {{"event: x\n\ndata: a\n\n", 19}, "message|a|\n"}, /* No data: no event, type gone. */
        {{"event: x\nid: 7\ndata: a\n\ndata: b\n\n", 33}, "x|a|7\nmessage|b|7\n"},
        {{"id: 7\nid\ndata: a\n\n", 18}, "message|a|\n"},
        {{"id: 7\nid: 8\0\ndata: a\n\n", 22}, "message|a|7\n"}, /* An id with a zero is ignored. */
        {{": ping\n\nretry: 10\nother: x\ndata: a: b\n\n", 39}, "message|a: b|\n"},
        {{"data: a\n", 8}, ""}, /* Cut before its end. */
        {{"\n\n\r\n", 4}, ""},
        {{"id: 1\r\ndata: a\r\ndata: b\r\n\r\n", 27}, "message|a\\nb|1\n"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        for (size_t step = 1; step <= cases[i].text.len; step++) {
            CHECK_INT(feed(cases[i].text, step, 100), 0);
            check_seen(cases[i].want);
        }
    }
}

TEST(too_long_lines_and_events_are_refused)
{
    const struct sl_span event = SL_SPAN("data: 0123456789\ndata: 0123456789\n\n");
    for (size_t step = 1; step <= event.len; step++) {
        CHECK_INT(feed(event, step, 22), 0);
        check_seen("message|0123456789\\n0123456789|\n");
        CHECK_INT(feed(event, step, 21), -SL_ETOOBIG);
        CHECK_INT(feed(SL_SPAN(":01234567890123456789\n\n"), step, 20), -SL_ETOOBIG);
        CHECK_INT(feed(SL_SPAN("0123456789012345678901234567890123456789"), step, 20), -SL_ETOOBIG);
        check_seen("");
    }
}

TEST(the_callback_can_stop_the_feed)
{
    for (size_t step = 1; step < 20; step++) {
        stop_after = 2;
        CHECK_INT(feed(SL_SPAN("data: a\n\ndata: b\n\ndata: c\n\n"), step, 100), -SL_ECANCELLED);
        check_seen("message|a|\nmessage|b|\n");
    }
}

static int on_event_fini(void *ctx, const struct sl_sse_event *event)
{
    struct sl_sse_reader *reader = ctx;
    CHECK(sl_span_is(event->data, "a"));
    sl_sse_reader_fini(reader);
    free(reader);
    return -SL_ECLOSED;
}

TEST(the_callback_that_stops_may_free_the_reader)
{
    struct sl_sse_reader *reader = malloc(sizeof(*reader));
    CHECK(reader != NULL);
    sl_sse_reader_init(reader, 100, on_event_fini, reader);
    CHECK_INT(sl_sse_reader_feed(reader, SL_SPAN("data")), 0);
    CHECK_INT(sl_sse_reader_feed(reader, SL_SPAN(": a\n\ndata: b\n\n")), -SL_ECLOSED);
}

TEST(what_is_written_reads_back)
{
    struct sl_buf out;
    sl_buf_init(&out, 1000);
    sl_sse_write(&out, "1:0", "delta", SL_SPAN("one\ntwo\r\nthree\rfour\n"));
    sl_sse_write_comment(&out, "keep-alive");
    sl_sse_write(&out, NULL, NULL, SL_SPAN("[DONE]"));
    sl_sse_write(&out, NULL, NULL, (struct sl_span){NULL, 0});
    CHECK(sl_buf_error(&out) == 0);
    CHECK(sl_span_is(sl_buf_span(&out),
                     "id: 1:0\nevent: delta\ndata: one\ndata: two\ndata: three\ndata: four\n"
                     "data: \n\n: keep-alive\n\ndata: [DONE]\n\ndata: \n\n"));
    CHECK_INT(feed(sl_buf_span(&out), 3, 1000), 0);
    check_seen("delta|one\\ntwo\\nthree\\nfour\\n|1:0\nmessage|[DONE]|1:0\nmessage||1:0\n");
    sl_buf_fini(&out);
}

int main(int argc, char **argv)
{
    const struct test_case cases[] = {
        {"events_do_not_depend_on_the_cuts", events_do_not_depend_on_the_cuts},
        {"too_long_lines_and_events_are_refused", too_long_lines_and_events_are_refused},
        {"the_callback_can_stop_the_feed", the_callback_can_stop_the_feed},
        {"the_callback_that_stops_may_free_the_reader",
         the_callback_that_stops_may_free_the_reader},
        {"what_is_written_reads_back", what_is_written_reads_back},
        {NULL, NULL},
    };
    sl_buf_init(&seen, 100000);
    int rv = run_tests(cases, argc, argv);
    sl_buf_fini(&seen);
    return rv;
}
