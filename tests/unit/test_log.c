/* Log lines have the promised form, come whole from any thread, and never hold up the caller. */
#include "common/clock.h"
#include "common/json.h"
#include "common/log.h"
#include "tests/support/test.h"

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

/* A pipe and a thread that collects what comes out of it. */
static int ends[2];
static pthread_t reader;
static struct sl_buf got;

static void *collect(void *arg)
{
    (void)arg;
    ssize_t n;
    do {
        char *room = sl_buf_reserve(&got, 65536);
        CHECK(room != NULL);
        n = read(ends[0], room, 65536);
        CHECK(n >= 0);
        got.len += (size_t)n;
    } while (n > 0);
    return NULL;
}

static void start(enum sl_log_level level, enum sl_log_format format)
{
    sl_buf_init(&got, 64 << 20);
    CHECK(pipe(ends) == 0);
    CHECK(sl_log_start("sluice-embed", level, format, ends[1]) == 0);
}

static void start_reader(void)
{
    CHECK(pthread_create(&reader, NULL, collect, NULL) == 0);
}

static void finish(void) /* Stops; got then holds all lines, as a C string. */
{
    sl_log_stop();
    close(ends[1]);
    CHECK(pthread_join(reader, NULL) == 0);
    close(ends[0]);
    sl_buf_append(&got, "", 1);
    CHECK(sl_buf_error(&got) == 0);
}

TEST(text_lines_quote_what_needs_it)
{
    uint64_t now = 1795446245123456u;
    sl_clock_use(&now);
    start(SL_LOG_INFO, SL_LOG_TEXT);
    start_reader();
    sl_log(SL_LOG_INFO, "took over", SL_STR("id", "a-1"), SL_INT("attempt", 2));
    sl_log(SL_LOG_DEBUG, "not shown");
    sl_log(SL_LOG_WARN, "odd", SL_STR("a", "two words"), SL_STR("b", "say \"x\"\n\x1b[1m"),
           SL_STR("c", ""), SL_NUM("d", 0.25),
           SL_SPANF("e", ((struct sl_span){"\xff\xc3\xa9", 3})));
    sl_log(SL_LOG_ERROR, "gone", SL_ERR(-SL_ETIMEDOUT));
    finish();
    sl_clock_use(NULL);
    CHECK_STR(got.data,
              "2026-11-23T15:04:05.123Z info sluice-embed \"took over\" id=a-1 attempt=2\n"
              "2026-11-23T15:04:05.123Z warn sluice-embed \"odd\" a=\"two words\" "
              "b=\"say \\\"x\\\"\\n\\u001b[1m\" c=\"\" d=0.25 e=\"\xef\xbf\xbd\xc3\xa9\"\n"
              "2026-11-23T15:04:05.123Z error sluice-embed \"gone\" error=\"timed out\"\n");
    sl_buf_fini(&got);
}

TEST(json_lines_are_json_however_long_the_values)
{
    char *big = malloc(200001);
    CHECK(big != NULL);
    memset(big, '\x01', 200000);
    big[200000] = '\0';
    start(SL_LOG_INFO, SL_LOG_JSON);
    start_reader();
    sl_log(SL_LOG_INFO, "m", SL_STR("k", "v\n"), SL_INT("n", -7));
    sl_log(SL_LOG_INFO, "big", SL_STR("a", big), SL_STR("b", big), SL_STR("c", big),
           SL_INT("n", 1));
    finish();
    char *second = strchr(got.data, '\n') + 1;
    struct sl_json_doc *doc;
    CHECK(sl_json_parse((struct sl_span){got.data, (size_t)(second - got.data)}, &doc, NULL, 0) ==
          0);
    const struct sl_json *root = sl_json_root(doc);
    CHECK(sl_span_is(sl_json_string(sl_json_get(root, "program")), "sluice-embed"));
    CHECK(sl_span_is(sl_json_string(sl_json_get(root, "level")), "info"));
    CHECK(sl_span_is(sl_json_string(sl_json_get(root, "message")), "m"));
    CHECK_INT(sl_json_string(sl_json_get(root, "time")).len, 24);
    CHECK(sl_span_is(sl_json_string(sl_json_get(root, "k")), "v\n"));
    CHECK_INT(sl_json_int(sl_json_get(root, "n")), -7);
    sl_json_free(doc);
    CHECK(strlen(second) < 16384);
    CHECK(sl_json_parse(sl_span_of(second), &doc, NULL, 0) == 0);
    CHECK_INT(sl_json_string(sl_json_get(sl_json_root(doc), "a")).len, 1027);
    CHECK(sl_json_get(sl_json_root(doc), "c") == NULL); /* Left out: no room. */
    CHECK_INT(sl_json_int(sl_json_get(sl_json_root(doc), "n")), 1);
    sl_json_free(doc);
    sl_buf_fini(&got);
    free(big);
}

TEST(a_long_value_is_cut_at_a_character)
{
    char text[1200];
    for (size_t i = 0; i < sizeof(text); i += 3) {
        memcpy(text + i, "\xe2\x82\xac", 3);
    }
    start(SL_LOG_INFO, SL_LOG_TEXT);
    start_reader();
    sl_log(SL_LOG_INFO, "m", SL_SPANF("k", ((struct sl_span){text, sizeof(text)})));
    finish();
    CHECK(strstr(got.data, "\xe2\x82\xac...\"\n") != NULL);
    CHECK(strstr(got.data, "\xef\xbf\xbd") == NULL);
    sl_buf_fini(&got);
}

static size_t count(const char *text, const char *what)
{
    size_t n = 0;
    for (const char *at = strstr(text, what); at != NULL; at = strstr(at + 1, what)) {
        n++;
    }
    return n;
}

static void *log_much(void *arg)
{
    for (int i = 0; i < 500; i++) {
        sl_log(SL_LOG_INFO, "from a thread", SL_STR("who", (const char *)arg), SL_INT("i", i));
    }
    return NULL;
}

TEST(lines_of_several_threads_arrive_whole)
{
    pthread_t threads[4];
    static const char *const names[] = {"a", "b", "c", "d"};
    start(SL_LOG_INFO, SL_LOG_TEXT);
    start_reader();
    for (size_t i = 0; i < 4; i++) {
        CHECK(pthread_create(&threads[i], NULL, log_much, (void *)(uintptr_t)names[i]) == 0);
    }
    for (size_t i = 0; i < 4; i++) {
        CHECK(pthread_join(threads[i], NULL) == 0);
    }
    finish();
    CHECK_INT(count(got.data, "\n"), 2000);
    CHECK_INT(count(got.data, "info sluice-embed \"from a thread\" who="), 2000);
    CHECK_INT(count(got.data, " i=499\n"), 4);
    sl_buf_fini(&got);
}

TEST(a_full_ring_drops_and_says_how_many)
{
    char filler[1000];
    uint64_t before = sl_log_dropped();
    size_t sent = 0;
    memset(filler, 'x', sizeof(filler));
    start(SL_LOG_INFO, SL_LOG_TEXT);
    while (sl_log_dropped() < before + 10 && sent < 10000) { /* Nobody reads yet. */
        sl_log(SL_LOG_INFO, "fill", SL_SPANF("k", ((struct sl_span){filler, sizeof(filler)})));
        sent++;
    }
    CHECK_INT(sl_log_dropped() - before, 10);
    start_reader();
    /* There is room once the reader has begun; until then these are dropped too. */
    for (uint64_t dropped = 0; dropped != sl_log_dropped();) {
        dropped = sl_log_dropped();
        sl_log(SL_LOG_INFO, "fill");
        sent++;
    }
    finish();
    uint64_t dropped = sl_log_dropped() - before;
    char want[64];
    snprintf(want, sizeof(want), "\"log lines were dropped\" count=%d\n", (int)dropped);
    CHECK_INT(count(got.data, "\"fill\""), sent - dropped);
    CHECK_INT(count(got.data, want), 1);
    sl_buf_fini(&got);
}

TEST(a_pipe_that_nobody_reads_does_not_hold_up_the_stop)
{
    uint64_t before = sl_log_dropped();
    start(SL_LOG_INFO, SL_LOG_TEXT);
    for (int i = 0; i < 4000; i++) {
        sl_log(SL_LOG_INFO, "a line of some length that nobody will read", SL_INT("i", i));
    }
    sl_log_stop(); /* Returns: ctest's time-out is the check. */
    CHECK(sl_log_dropped() > before);
    close(ends[0]);
    close(ends[1]);
}

TEST(a_closed_pipe_drops_lines_without_a_signal)
{
    uint64_t before = sl_log_dropped();
    signal(SIGPIPE, SIG_DFL);
    start(SL_LOG_INFO, SL_LOG_TEXT);
    close(ends[0]);
    sl_log(SL_LOG_INFO, "into the void");
    sl_log_stop();
    CHECK_INT(sl_log_dropped() - before, 1);
    close(ends[1]);
}

int main(int argc, char **argv)
{
    const struct test_case cases[] = {
        {"text_lines_quote_what_needs_it", text_lines_quote_what_needs_it},
        {"json_lines_are_json_however_long_the_values",
         json_lines_are_json_however_long_the_values},
        {"a_long_value_is_cut_at_a_character", a_long_value_is_cut_at_a_character},
        {"lines_of_several_threads_arrive_whole", lines_of_several_threads_arrive_whole},
        {"a_full_ring_drops_and_says_how_many", a_full_ring_drops_and_says_how_many},
        {"a_pipe_that_nobody_reads_does_not_hold_up_the_stop",
         a_pipe_that_nobody_reads_does_not_hold_up_the_stop},
        {"a_closed_pipe_drops_lines_without_a_signal", a_closed_pipe_drops_lines_without_a_signal},
        {NULL, NULL},
    };
    return run_tests(cases, argc, argv);
}
