/* Dead letters: which are meant, how they are shown, and what goes back to their origin. */
#include "tests/support/test.h"
#include "workers/cli/cli.h"
#include "workers/cli/dead.h"

#define H(name, value) ((struct sl_kafka_header){SL_SPAN(name), sl_span_of(value)})

static const int64_t NOW = 1769000000000;

static struct sl_kafka_header headers[DEAD_HEADERS_MAX];
static struct sl_record record;
static struct dead_letter letter;

/* A query that a worker gave up 90 s ago, after it was tried so often. */
static void make_letter(const char *topic, const char *origin, const char *attempt)
{
    const struct sl_kafka_header all[] = {
        H("content-type", "application/json"),
        H("sluice-id", "no id!"),
        H("sluice-tenant", "acme"),
        H("sluice-deadline", "1768999000000"),
        H("reply-to", "sluice.replies:3"),
        H("traceparent", "00-a-b-01"),
        H("__connect.errors.topic", origin),
        H("__connect.errors.partition", "2"),
        H("__connect.errors.offset", "41"),
        H("__connect.errors.stage", "embed"),
        H("__connect.errors.exception.class.name", "BADMSG"),
        H("__connect.errors.exception.message", "no JSON:\n at byte 3"),
        H("sluice-attempt", attempt),
    };
    memcpy(headers, all, sizeof(all));
    record = (struct sl_record){.topic = topic,
                                .partition = 0,
                                .offset = 7,
                                .timestamp_ms = NOW - 90000,
                                .key = SL_SPAN("k"),
                                .value = SL_SPAN("{}"),
                                .headers = headers,
                                .header_count = sizeof(all) / sizeof(all[0])};
    dead_read(&record, &letter);
}

static bool text_is(struct sl_buf *buf, const char *want)
{
    bool same = sl_buf_error(buf) == 0 && sl_span_is(sl_buf_span(buf), want);
    if (!same) {
        fprintf(stderr, "got:\n" SL_SPAN_FMT "\n", SL_SPAN_ARG(sl_buf_span(buf)));
    }
    sl_buf_fini(buf);
    return same;
}

/* --- choosing --- */

TEST(topics_are_named_as_people_write_them)
{
    static const char *const words[] = {"queries", "queries.dlq", "sluice.queries",
                                        "sluice.queries.dlq"};
    char name[DEAD_TOPIC_MAX];
    for (size_t i = 0; i < 4; i++) {
        dead_topic_name(words[i], name);
        CHECK_STR(name, "sluice.queries.dlq");
    }
}

TEST(filters_choose_by_topic_reason_and_age)
{
    static const struct {
        struct dead_filter filter;
        bool matches;
    } cases[] = {
        {{NULL, NULL, -1, -1, 0}, true},
        {{"queries", NULL, -1, -1, 0}, true},
        {{"documents", NULL, -1, -1, 0}, false},
        {{NULL, "badmsg", -1, -1, 0}, true},
        {{NULL, "BAD", -1, -1, 0}, false},
        {{NULL, NULL, 90000, -1, 0}, true},
        {{NULL, NULL, 90001, -1, 0}, false},
        {{NULL, NULL, -1, 90001, 0}, true},
        {{NULL, NULL, -1, 90000, 0}, false},
        {{"queries", "BADMSG", 60000, 120000, 0}, true},
        {{"queries", "TOOBIG", 60000, 120000, 0}, false},
    };
    make_letter("sluice.queries.dlq", "sluice.queries", "0");
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct dead_filter filter = cases[i].filter;
        filter.now_ms = NOW;
        CHECK_INT(dead_filter_matches(&filter, &letter), cases[i].matches);
    }
}

TEST(a_letter_that_no_worker_wrote_is_never_sent)
{
    static const char *const origins[] = {"", "other.queries", "sluice", "sluice.",
                                          "sluice.queries.dlq"};
    for (size_t i = 0; i < sizeof(origins) / sizeof(origins[0]); i++) {
        make_letter("sluice.queries.dlq", origins[i], "0");
        CHECK_INT(dead_judge(&letter), DEAD_FOREIGN);
    }
    make_letter("sluice.queries.dlq", "sluice.queries", "0");
    headers[8].value = sl_span_of("4x");
    dead_read(&record, &letter);
    CHECK_INT(dead_judge(&letter), DEAD_FOREIGN);
}

TEST(a_letter_is_sent_until_it_was_tried_often_enough)
{
    static const char *const attempts[] = {"0", "2", "", "x"};
    for (size_t i = 0; i < 4; i++) {
        make_letter("sluice.queries.dlq", "sluice.queries", attempts[i]);
        CHECK_INT(dead_judge(&letter), DEAD_SEND);
    }
    make_letter("sluice.queries.dlq", "sluice.queries", "3");
    CHECK_INT(dead_judge(&letter), DEAD_WORN_OUT);
}

/* --- sending again --- */

static const char *restored_header(const struct dead_restored *restored, const char *name)
{
    static char text[64];
    const char *found = NULL;
    for (size_t i = 0; i < restored->header_count; i++) {
        if (sl_span_is(restored->headers[i].name, name)) {
            CHECK(found == NULL); /* Once. */
            snprintf(text, sizeof(text), SL_SPAN_FMT, SL_SPAN_ARG(restored->headers[i].value));
            found = text;
        }
    }
    return found;
}

TEST(a_query_goes_back_with_a_new_id_and_no_deadline)
{
    struct dead_restored restored, again;
    make_letter("sluice.queries.dlq", "sluice.queries", "1");
    dead_restore(&letter, false, &restored);
    CHECK_STR(restored.topic, "sluice.queries");
    CHECK_INT(restored.header_count, 5);
    CHECK_STR(restored_header(&restored, "content-type"), "application/json");
    CHECK_STR(restored_header(&restored, "sluice-tenant"), "acme");
    CHECK_STR(restored_header(&restored, "traceparent"), "00-a-b-01");
    CHECK_STR(restored_header(&restored, "sluice-attempt"), "2");
    CHECK_STR(restored_header(&restored, "sluice-id"), restored.id);
    CHECK_INT(strlen(restored.id), 36);
    record.offset = 1000; /* Moved on its own topic. */
    dead_restore(&letter, true, &again);
    CHECK_STR(again.id, restored.id);
    CHECK_STR(restored_header(&again, "reply-to"), "sluice.replies:3");
    headers[8].value = sl_span_of("42"); /* Another one. */
    dead_read(&record, &letter);
    dead_restore(&letter, false, &again);
    CHECK(strcmp(again.id, restored.id) != 0);
}

TEST(a_query_between_stages_gets_a_new_id_too)
{
    struct dead_restored restored;
    make_letter("sluice.rerank.dlq", "sluice.rerank", "0");
    dead_restore(&letter, false, &restored);
    CHECK_STR(restored_header(&restored, "sluice-id"), restored.id);
    CHECK(restored_header(&restored, "sluice-deadline") == NULL);
}

TEST(what_is_no_query_keeps_its_headers)
{
    struct dead_restored restored;
    make_letter("sluice.results.dlq", "sluice.results", "0");
    dead_restore(&letter, false, &restored);
    CHECK_STR(restored.id, "");
    CHECK_INT(restored.header_count, 7);
    CHECK_STR(restored_header(&restored, "sluice-id"), "no id!");
    CHECK_STR(restored_header(&restored, "reply-to"), "sluice.replies:3");
    CHECK_STR(restored_header(&restored, "sluice-attempt"), "1");
}

TEST(a_letter_with_more_headers_than_fit_is_not_sent)
{
    struct dead_restored restored;
    make_letter("sluice.queries.dlq", "sluice.queries", "0");
    for (size_t i = record.header_count; i < DEAD_HEADERS_MAX; i++) {
        headers[i] = H("more", "x");
    }
    record.header_count = DEAD_HEADERS_MAX - 2;
    CHECK_INT(dead_judge(&letter), DEAD_SEND);
    dead_restore(&letter, false, &restored);
    CHECK_INT(restored.header_count, DEAD_HEADERS_MAX - 2 - 10 + 2);
    record.header_count = DEAD_HEADERS_MAX - 1;
    CHECK_INT(dead_judge(&letter), DEAD_FOREIGN);
}

/* --- showing --- */

TEST(ages_are_short)
{
    static const struct {
        int64_t ms;
        const char *text;
    } cases[] = {{-5, "0s"},       {999, "0s"},     {59999, "59s"},     {60000, "1m"},
                 {3599999, "59m"}, {3600000, "1h"}, {172799999, "47h"}, {172800000, "2d"}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct sl_buf out;
        sl_buf_init(&out, 64);
        dead_put_age(cases[i].ms, &out);
        CHECK(text_is(&out, cases[i].text));
    }
}

TEST(a_row_has_its_columns_under_the_header)
{
    struct sl_buf out;
    make_letter("sluice.queries.dlq", "sluice.queries", "0");
    sl_buf_init(&out, 4096);
    dead_put_row(NULL, 0, NULL, 0, &out);
    sl_buf_append_text(&out, "\n");
    dead_put_row(&letter, NOW, NULL, 0, &out);
    CHECK(text_is(&out, "topic       at        age   id or key                             stage   "
                        "  reason    message\n"
                        "queries     0:7       1m    no id!                                embed   "
                        "  BADMSG    no JSON:"));
}

TEST(a_row_on_a_screen_ends_at_its_edge)
{
    struct sl_buf out;
    make_letter("sluice.queries.dlq", "sluice.queries", "0");
    letter.message = SL_SPAN("0123456789012345678901234567890123456789");
    sl_buf_init(&out, 4096);
    dead_put_row(&letter, NOW, NULL, 120, &out);
    CHECK_INT(cli_text_width(sl_buf_span(&out)), 120);
    sl_buf_fini(&out);
}

TEST(json_holds_all_that_is_known)
{
    struct sl_buf out;
    make_letter("sluice.queries.dlq", "sluice.queries", "2");
    sl_buf_init(&out, 4096);
    dead_put_json(&letter, NOW, &out);
    CHECK(text_is(&out,
                  "{\"topic\":\"sluice.queries.dlq\",\"partition\":0,\"offset\":7,"
                  "\"timestamp_ms\":1768999910000,\"age_ms\":90000,\"id\":\"no id!\",\"key\":\"k\","
                  "\"origin\":{\"topic\":\"sluice.queries\",\"partition\":2,\"offset\":41},"
                  "\"stage\":\"embed\",\"reason\":\"BADMSG\",\"message\":\"no JSON:\\n at byte 3\","
                  "\"attempt\":2,\"bytes\":2}"));
}

TEST(values_are_shown_as_far_as_they_can_be_read)
{
    const struct {
        struct sl_span value;
        const char *kind, *text;
    } cases[] = {
        {SL_SPAN("{\"a\": [1, 2.5], \"b\": {}}"), "JSON",
         "{\n  \"a\": [\n    1,\n    2.5\n  ],\n  \"b\": {}\n}"},
        {SL_SPAN("\x82\xa1q\xa2hi\xa1v\xc4\x02\xff\x00"), "MessagePack",
         "{\n  \"q\": \"hi\",\n  \"v\": <2 bytes: ff 00>\n}"},
        {SL_SPAN("{\"broken\": "), "text", "{\"broken\": "},
        {SL_SPAN(""), "text", ""},
        {SL_SPAN("\x01\xff"), "binary",
         "00000000  01 ff                                            |..|"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct sl_buf out;
        sl_buf_init(&out, 4096);
        CHECK_STR(dead_put_value(cases[i].value, &out), cases[i].kind);
        CHECK(text_is(&out, cases[i].text));
    }
}

TEST(a_long_dump_is_cut_and_says_so)
{
    char value[1030];
    struct sl_buf out;
    memset(value, '\xff', sizeof(value));
    sl_buf_init(&out, 1 << 16);
    CHECK_STR(dead_put_value((struct sl_span){value, sizeof(value)}, &out), "binary");
    const char *end = "\n... 6 more bytes; --raw writes them all";
    CHECK(out.len > strlen(end) && memcmp(out.data + out.len - strlen(end), end, strlen(end)) == 0);
    sl_buf_fini(&out);
}

#define CASE(name)                                                                                 \
    {                                                                                              \
#name, name                                                                                \
    }

static const struct test_case cases[] = {
    CASE(topics_are_named_as_people_write_them),
    CASE(filters_choose_by_topic_reason_and_age),
    CASE(a_letter_that_no_worker_wrote_is_never_sent),
    CASE(a_letter_is_sent_until_it_was_tried_often_enough),
    CASE(a_query_goes_back_with_a_new_id_and_no_deadline),
    CASE(a_query_between_stages_gets_a_new_id_too),
    CASE(what_is_no_query_keeps_its_headers),
    CASE(a_letter_with_more_headers_than_fit_is_not_sent),
    CASE(ages_are_short),
    CASE(a_row_has_its_columns_under_the_header),
    CASE(a_row_on_a_screen_ends_at_its_edge),
    CASE(json_holds_all_that_is_known),
    CASE(values_are_shown_as_far_as_they_can_be_read),
    CASE(a_long_dump_is_cut_and_says_so),
    {NULL, NULL},
};

int main(int argc, char **argv)
{
    cli_options.topic_prefix = "sluice";
    cli_options.dead_attempts = 3;
    return run_tests(cases, argc, argv);
}
