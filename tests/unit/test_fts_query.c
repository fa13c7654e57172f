/* Any text becomes a valid FTS5 query of its words. */
#include "common/fts_query.h"
#include "tests/support/test.h"

static char *query_of(struct sl_span text, size_t *words)
{
    static char result[SL_FTS_WORDS_MAX * 64];
    struct sl_buf out;
    sl_buf_init(&out, sizeof(result) - 1);
    *words = sl_fts_query(text, &out);
    CHECK(sl_buf_error(&out) == 0);
    CHECK(out.len > 0 || *words == 0);
    memcpy(result, out.len > 0 ? out.data : "", out.len);
    result[out.len] = '\0';
    sl_buf_fini(&out);
    return result;
}

TEST(words_are_quoted_and_joined)
{
    static const struct {
        const char *text, *query;
    } cases[] = {
        {"back-pressure", "\"back\" OR \"pressure\""},
        {"What is a lease?", "\"What\" OR \"is\" OR \"a\" OR \"lease\""},
        {"a AND b NOT c", "\"a\" OR \"AND\" OR \"b\" OR \"NOT\" OR \"c\""},
        {"NEAR(one two, 3)", "\"NEAR\" OR \"one\" OR \"two\" OR \"3\""},
        {"text:secret* ^x", "\"text\" OR \"secret\" OR \"x\""},
        {"say \"no\"; DROP TABLE chunks--", "\"say\" OR \"no\" OR \"DROP\" OR \"TABLE\" OR "
                                            "\"chunks\""},
        {"naïve Über", "\"naïve\" OR \"Über\""},
        {"“curly”—dash…", "\"curly\" OR \"dash\""},
        {"«guillemets» 3×4÷2", "\"guillemets\" OR \"3\" OR \"4\" OR \"2\""},
        {"日本語、テスト。", "\"日本語\" OR \"テスト\""},
        {"lease Lease LEASE leases", "\"lease\" OR \"leases\""},
        {"cut\xff\xfe short\xe2\x82", "\"cut\" OR \"short\""},
        {"over\xc0\xafl\xed\xa0\x80ong\xf5\x80\x80\x80x", "\"over\" OR \"l\" OR \"ong\" OR \"x\""},
        {NULL, NULL},
    };
    for (size_t i = 0; cases[i].text != NULL; i++) {
        size_t words;
        CHECK_STR(query_of(sl_span_of(cases[i].text), &words), cases[i].query);
    }
}

TEST(a_text_without_words_gives_nothing)
{
    static const char *const texts[] = {"", " ", "\"'*():^-+", "…—“”", "\xff\xff", "\n\t\r", NULL};
    size_t words;
    for (size_t i = 0; texts[i] != NULL; i++) {
        CHECK_STR(query_of(sl_span_of(texts[i]), &words), "");
        CHECK_INT(words, 0);
    }
    CHECK_STR(query_of((struct sl_span){NULL, 0}, &words), "");
}

TEST(a_zero_byte_separates_words)
{
    size_t words;
    CHECK_STR(query_of(SL_SPAN("a\0b"), &words), "\"a\" OR \"b\"");
    CHECK_INT(words, 2);
}

TEST(the_number_of_words_is_limited)
{
    char text[4096];
    size_t len = 0;
    for (int i = 0; i < 500; i++) {
        len += (size_t)snprintf(text + len, sizeof(text) - len, "w%d ", i);
    }
    size_t words;
    query_of((struct sl_span){text, len}, &words);
    CHECK_INT(words, SL_FTS_WORDS_MAX);
}

TEST(words_can_hold_further_characters)
{
    struct sl_span words[SL_FTS_WORDS_MAX];
    CHECK_INT(sl_fts_words(SL_SPAN("max_poll-time Max_Poll"), "_", words), 2);
    CHECK(sl_span_is(words[0], "max_poll") && sl_span_is(words[1], "time"));
    CHECK_INT(sl_fts_words(SL_SPAN("max_poll"), "", words), 2);
}

static const struct test_case cases[] = {
    {"words_can_hold_further_characters", words_can_hold_further_characters},
    {"words_are_quoted_and_joined", words_are_quoted_and_joined},
    {"a_text_without_words_gives_nothing", a_text_without_words_gives_nothing},
    {"a_zero_byte_separates_words", a_zero_byte_separates_words},
    {"the_number_of_words_is_limited", the_number_of_words_is_limited},
    {NULL, NULL},
};

int main(int argc, char **argv)
{
    return run_tests(cases, argc, argv);
}
