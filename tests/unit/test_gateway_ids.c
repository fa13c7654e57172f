/* What callers name in headers: ids of events, and idempotency keys. */
#include "tests/support/test.h"
#include "workers/gateway/idempotent.h"
#include "workers/gateway/resume.h"

TEST(event_ids_are_two_numbers)
{
    static const struct {
        const char *text;
        bool valid;
        uint32_t attempt, seq;
    } rows[] = {
        {"0:0", true, 0, 0},
        {"1:17", true, 1, 17},
        {"4294967295:4294967295", true, UINT32_MAX, UINT32_MAX},
        {"", false, 0, 0},
        {":", false, 0, 0},
        {"1", false, 0, 0},
        {"1:", false, 0, 0},
        {":1", false, 0, 0},
        {"1:2:3", false, 0, 0},
        {" 1:2", false, 0, 0},
        {"1: 2", false, 0, 0},
        {"+1:2", false, 0, 0},
        {"1:-2", false, 0, 0},
        {"1:2x", false, 0, 0},
        {"0x1:2", false, 0, 0},
        {"4294967296:0", false, 0, 0},
        {"0:4294967296", false, 0, 0},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct resume_point point = {.given = false};
        int rv = resume_point_read(sl_span_of(rows[i].text), &point);
        fprintf(stderr, "  '%s'\n", rows[i].text);
        CHECK_INT(rv, rows[i].valid ? 0 : -SL_EINVAL);
        CHECK(point.given == rows[i].valid);
        CHECK(!rows[i].valid || (point.attempt == rows[i].attempt && point.seq == rows[i].seq));
    }
}

TEST(keys_are_visible_characters)
{
    char longest[257];
    memset(longest, '~', 256);
    longest[256] = '\0';
    CHECK(!idempotent_key_valid(sl_span_of(longest)));
    longest[255] = '\0';
    CHECK(idempotent_key_valid(sl_span_of(longest)));
    CHECK(idempotent_key_valid(SL_SPAN("!order:17\"")));
    CHECK(!idempotent_key_valid(SL_SPAN("")));
    CHECK(!idempotent_key_valid(SL_SPAN("a b")));
    CHECK(!idempotent_key_valid(SL_SPAN("a\tb")));
    CHECK(!idempotent_key_valid(SL_SPAN("a\x7f")));
    CHECK(!idempotent_key_valid(SL_SPAN("\xc3\xa9")));
}

int main(int argc, char **argv)
{
    static const struct test_case cases[] = {
        {"event_ids_are_two_numbers", event_ids_are_two_numbers},
        {"keys_are_visible_characters", keys_are_visible_characters},
        {NULL, NULL},
    };
    return run_tests(cases, argc, argv);
}
