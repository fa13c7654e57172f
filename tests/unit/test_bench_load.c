/* How bench_load reads answers: cut at every byte, and what it refuses. */
#include "tests/bench/load_http.h"
#include "tests/bench/load_sse.h"
#include "tests/support/test.h"

#define HEAD "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
#define DONE "id: 1:9\nevent: done\ndata: {\"type\":\"done\",\"text\":\"no words\"}\n\n"
#define DELTA(text)                                                                                \
    "id: 1:0\nevent: delta\ndata: {\"id\":\"q\",\"seq\":0,\"text\":\"" text "\"}\n\n"
#define MARK "data: [DONE]\n\n"

/* Feeds in pieces of `step` bytes. */
static int feed(struct load_sse *sse, const char *text, size_t step)
{
    size_t len = strlen(text);
    load_sse_init(sse);
    for (size_t at = 0; at < len; at += step) {
        size_t piece = len - at < step ? len - at : step;
        char *copy = malloc(piece); /* So that a sanitizer sees a byte too many. */
        CHECK(copy != NULL);
        memcpy(copy, text + at, piece);
        int rv = load_sse_feed(sse, (struct sl_span){copy, piece});
        free(copy);
        if (rv != 0) {
            return rv;
        }
    }
    return 0;
}

TEST(words_are_counted_wherever_the_bytes_are_cut)
{
    static const struct {
        const char *text;
        long tokens, events;
        enum load_ending ending;
        bool complete;
    } cases[] = {
        {DELTA("token-1 ") DELTA("token-2 ") DONE MARK, 2, 2, LOAD_DONE, true},
        {DELTA("token-1 token-2 token-3 ") DONE MARK, 3, 1, LOAD_DONE, true},
        {DELTA("to") DELTA("ken-1") DELTA(" token-2") DONE MARK, 2, 3, LOAD_DONE, true},
        {DELTA("") DONE MARK, 0, 1, LOAD_DONE, true},
        {DELTA("one\\ntwo\\u00e9x \\\"three\\\\\\\" four") DONE MARK, 4, 1, LOAD_DONE, true},
        {"event: sources\ndata: {\"text\":\"a b c\"}\n\n" DELTA("one ") DONE MARK, 1, 1, LOAD_DONE,
         true},
        {": keep-alive\n\n" DELTA("one ") ":\n\n" DELTA("two "), 2, 2, LOAD_OPEN, false},
        {DELTA("one ") "event: error\ndata: {\"error\":{}}\n\n" MARK, 1, 1, LOAD_ERROR, true},
        {"event: delta\r\ndata: {\"a\":{\"text\":\"x "
         "y\"},\"b\":[\"text\",\"z\"],\"text\":\"one\"}\r\n"
         "\r\n",
         1, 1, LOAD_OPEN, false},
        {"event:delta\ndata:{\"texts\":\"x y\",\"tex\":\"z\",\"\\u0074ext\":\"w\",\"text\":\"one\"}"
         "\n\n",
         1, 1, LOAD_OPEN, false},
        {DELTA("lost words ") "event: restart\ndata: {}\n\n" DELTA("one "), 1, 2, LOAD_OPEN, false},
        {DELTA("one ") "event: delta\ndata: {\"text\":\"cut off", 1, 1, LOAD_OPEN, false},
        {DELTA("one ") DONE, 1, 1, LOAD_DONE, false},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        for (size_t step = 1; step <= strlen(cases[i].text); step++) {
            struct load_sse sse;
            CHECK_INT(feed(&sse, cases[i].text, step), 0);
            CHECK_INT(sse.tokens, cases[i].tokens);
            CHECK_INT(sse.events, cases[i].events);
            CHECK_INT(sse.ending, cases[i].ending);
            CHECK_INT(sse.complete, cases[i].complete);
        }
    }
}

TEST(what_is_no_answer_is_refused)
{
    static const char *const cases[] = {
        MARK,
        DELTA("one ") MARK,
        DONE DELTA("one "),
        DONE DONE,
        DONE MARK MARK,
        DONE "data: [DONE]x\n\n",
        "event: surprise\ndata: {}\n\n",
        "event: deltas\ndata: {\"text\":\"x\"}\n\n",
        "data: {\"text\":\"no type\"}\n\n",
        "event: delta\ndata: {}\n\n",
        "event: delta\ndata: {\"text\":1}\n\n",
        "event: delta\ndata: {\"text\":\"x\"\n\n",
        "event: delta\ndata: {\"text\":\"x\"}}\n\n",
        "event: delta\ndata: {\"text\":\"x\",\"text\":\"y\"}\n\n",
        "event: delta\ndata: {\"text\":\"x\n\n",
        "event: delta\ndata: \"text\"\n\n",
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        for (size_t step = 1; step <= strlen(cases[i]); step++) {
            struct load_sse sse;
            CHECK_INT(feed(&sse, cases[i], step), -SL_EBADMSG);
        }
    }
}

/* Reads a response in pieces of `step` bytes; the bodies joined in body. The last step. */
static enum load_http_step read_response(struct load_http *http, const char *text, size_t step,
                                         struct sl_buf *body, size_t *ret_left)
{
    size_t len = strlen(text);
    enum load_http_step last = LOAD_HTTP_MORE;
    load_http_init(http);
    sl_buf_clear(body);
    for (size_t at = 0; at < len && last == LOAD_HTTP_MORE; at += step) {
        size_t size = len - at < step ? len - at : step;
        char *copy = malloc(size);
        CHECK(copy != NULL);
        memcpy(copy, text + at, size);
        struct sl_span bytes = {copy, size}, piece = {NULL, 0};
        while ((last = load_http_next(http, &bytes, &piece)) == LOAD_HTTP_BODY) {
            sl_buf_append_span(body, piece);
        }
        *ret_left = bytes.len + (len - at - size);
        free(copy);
    }
    CHECK_INT(sl_buf_error(body), 0);
    return last;
}

TEST(responses_are_read_wherever_they_are_cut)
{
    static const struct {
        const char *text;
        enum load_http_step last;
        int status;
        const char *body;
        bool keep_alive;
        size_t left;
    } cases[] = {
        {HEAD "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nA;x=1\r\n, answers!\r\n0\r\n\r\n",
         LOAD_HTTP_END, 200, "hello, answers!", true, 0},
        {HEAD "transfer-encoding:chunked\r\nConnection: Close\r\n\r\n0\r\nTrailer: 1\r\n\r\n",
         LOAD_HTTP_END, 200, "", false, 0},
        {"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 4\r\n\r\nbusy", LOAD_HTTP_END, 503,
         "busy", true, 0},
        {"HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\nmore", LOAD_HTTP_END, 204, "", true,
         4},
        {HEAD "Transfer-Encoding: chunked\r\n\r\n5\r\nhell", LOAD_HTTP_MORE, 200, "hell", true, 0},
        {HEAD "Transfer-Encoding: chunked\r\n\r\n5\r\nhellox\r\n", LOAD_HTTP_BROKEN, 200, "hello",
         true, 0},
        {HEAD "Transfer-Encoding: chunked\r\n\r\nx\r\n", LOAD_HTTP_BROKEN, 200, "", true, 0},
        {HEAD "Transfer-Encoding: chunked\r\n\r\n\r\n", LOAD_HTTP_BROKEN, 200, "", true, 0},
        {HEAD "Transfer-Encoding: chunked\r\n\r\n5\nhello\n", LOAD_HTTP_BROKEN, 200, "", true, 6},
        {HEAD "\r\nuntil the end", LOAD_HTTP_BROKEN, 200, "", true, 13},
        {HEAD "Content-Length: 5, 5\r\n\r\nhello", LOAD_HTTP_BROKEN, 200, "", true, 9},
        {"HTTP/1.0 200 OK\r\n", LOAD_HTTP_BROKEN, 0, "", true, 0},
        {"nonsense\r\n\r\n", LOAD_HTTP_BROKEN, 0, "", true, 2},
    };
    struct sl_buf body;
    sl_buf_init(&body, 1000);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        for (size_t step = 1; step <= strlen(cases[i].text); step++) {
            struct load_http http;
            size_t left = 0;
            CHECK_INT(read_response(&http, cases[i].text, step, &body, &left), cases[i].last);
            CHECK_INT(http.status, cases[i].status);
            CHECK(sl_span_is(sl_buf_span(&body), cases[i].body));
            if (cases[i].last != LOAD_HTTP_BROKEN) {
                CHECK_INT(http.keep_alive, cases[i].keep_alive);
                CHECK_INT(left, cases[i].left);
            }
        }
    }
    sl_buf_fini(&body);
}

TEST(a_line_without_end_is_refused)
{
    struct load_http http;
    struct sl_buf body;
    size_t left = 0;
    char text[LOAD_LINE_MAX + 40] = "HTTP/1.1 200 OK\r\n";
    size_t len = strlen(text);
    memset(text + len, 'a', sizeof(text) - len - 1);
    text[sizeof(text) - 1] = '\0';
    sl_buf_init(&body, 100);
    CHECK_INT(read_response(&http, text, 7, &body, &left), LOAD_HTTP_BROKEN);
    sl_buf_fini(&body);
}

int main(int argc, char **argv)
{
    const struct test_case cases[] = {
        {"words_are_counted_wherever_the_bytes_are_cut",
         words_are_counted_wherever_the_bytes_are_cut},
        {"what_is_no_answer_is_refused", what_is_no_answer_is_refused},
        {"responses_are_read_wherever_they_are_cut", responses_are_read_wherever_they_are_cut},
        {"a_line_without_end_is_refused", a_line_without_end_is_refused},
        {NULL, NULL},
    };
    return run_tests(cases, argc, argv);
}
