/* A buf never passes its maximum and remembers what went wrong; numbers are read whole or not. */
#include "common/buf.h"
#include "tests/support/test.h"

#include <stdint.h>

TEST(appends_up_to_the_maximum)
{
    struct sl_buf buf;
    sl_buf_init(&buf, 10);
    sl_buf_append_text(&buf, "01234");
    sl_buf_append_span(&buf, SL_SPAN("56789"));
    CHECK_INT(sl_buf_error(&buf), 0);
    CHECK(sl_span_is(sl_buf_span(&buf), "0123456789"));
    sl_buf_append(&buf, "x", 1);
    CHECK_INT(sl_buf_error(&buf), -SL_ETOOBIG);
    sl_buf_consume(&buf, 9);
    sl_buf_append(&buf, "y", 1); /* The error stays although there is room. */
    CHECK(sl_span_is(sl_buf_span(&buf), "9"));
    CHECK_INT(sl_buf_error(&buf), -SL_ETOOBIG);
    sl_buf_clear(&buf);
    sl_buf_append(&buf, "z", 1);
    CHECK_INT(sl_buf_error(&buf), 0);
    CHECK(sl_span_is(sl_buf_span(&buf), "z"));
    sl_buf_fini(&buf);
}

TEST(prints_short_and_long_texts)
{
    struct sl_buf buf;
    char big[2000];
    memset(big, 'x', sizeof(big) - 1);
    big[sizeof(big) - 1] = '\0';
    sl_buf_init(&buf, 2100);
    sl_buf_printf(&buf, "%d-%s", 7, "a");
    CHECK(sl_span_is(sl_buf_span(&buf), "7-a"));
    sl_buf_printf(&buf, "%s", big);
    CHECK_INT(sl_buf_error(&buf), 0);
    CHECK_INT(buf.len, 3 + 1999);
    CHECK(buf.data[3] == 'x' && buf.data[buf.len - 1] == 'x');
    sl_buf_printf(&buf, "%s", big);
    CHECK_INT(sl_buf_error(&buf), -SL_ETOOBIG);
    CHECK_INT(buf.len, 3 + 1999);
    sl_buf_fini(&buf);
}

TEST(reserved_room_is_there)
{
    struct sl_buf buf;
    sl_buf_init(&buf, 1 << 20);
    for (size_t i = 0; i < 1000; i++) {
        char *room = sl_buf_reserve(&buf, 1000);
        CHECK(room != NULL);
        memset(room, 'r', 1000);
        buf.len += 1000;
    }
    CHECK(sl_buf_reserve(&buf, 1 << 20) == NULL);
    CHECK_INT(sl_buf_error(&buf), -SL_ETOOBIG);
    sl_buf_fini(&buf);
}

TEST(numbers_are_read_whole_or_not_at_all)
{
    static const struct {
        const char *text;
        long long want; /* -1: refused. */
    } cases[] = {
        {"0", 0},
        {"007", 7},
        {"100", 100},
        {"101", -1},
        {"", -1},
        {"-", -1},
        {"-0", 0},
        {"-1", -1},
        {"+1", -1},
        {"1 ", -1},
        {"1a", -1},
        {"9223372036854775808", -1},
        {"99999999999999999999999", -1},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        long long value = 42;
        int rv = sl_span_to_int(sl_span_of(cases[i].text), 0, 100, &value);
        CHECK_INT(rv, cases[i].want >= 0 ? 0 : -SL_EINVAL);
        CHECK_INT(value, cases[i].want >= 0 ? cases[i].want : 42);
    }
    long long value;
    CHECK_INT(sl_span_to_int(SL_SPAN("-9223372036854775808"), INT64_MIN, 0, &value), 0);
    CHECK(value == INT64_MIN);
}

TEST(spans_compare_by_bytes)
{
    CHECK(sl_span_equal(SL_SPAN("a\0b"), (struct sl_span){"a\0b", 3}));
    CHECK(!sl_span_equal(SL_SPAN("a\0b"), SL_SPAN("a\0c")));
    CHECK(sl_span_equal((struct sl_span){NULL, 0}, SL_SPAN("")));
    CHECK(sl_span_equal_nocase(SL_SPAN("Content-TYPE"), SL_SPAN("content-type")));
    CHECK(!sl_span_equal_nocase(SL_SPAN("\xc4"), SL_SPAN("\xe4"))); /* ASCII only. */
    CHECK(!sl_span_equal_nocase(SL_SPAN("@"), SL_SPAN("`")));
}

TEST(numbers_are_written_in_decimal)
{
    struct sl_buf buf;
    sl_buf_init(&buf, 100);
    sl_buf_append_int(&buf, 0);
    sl_buf_append(&buf, " ", 1);
    sl_buf_append_int(&buf, -1);
    sl_buf_append(&buf, " ", 1);
    sl_buf_append_int(&buf, INT64_MIN);
    sl_buf_append(&buf, " ", 1);
    sl_buf_append_uint(&buf, UINT64_MAX);
    CHECK(sl_span_is(sl_buf_span(&buf), "0 -1 -9223372036854775808 18446744073709551615"));
    CHECK_INT(sl_buf_error(&buf), 0);
    sl_buf_fini(&buf);
}

int main(int argc, char **argv)
{
    const struct test_case cases[] = {
        {"appends_up_to_the_maximum", appends_up_to_the_maximum},
        {"prints_short_and_long_texts", prints_short_and_long_texts},
        {"reserved_room_is_there", reserved_room_is_there},
        {"numbers_are_read_whole_or_not_at_all", numbers_are_read_whole_or_not_at_all},
        {"spans_compare_by_bytes", spans_compare_by_bytes},
        {"numbers_are_written_in_decimal", numbers_are_written_in_decimal},
        {NULL, NULL},
    };
    return run_tests(cases, argc, argv);
}
