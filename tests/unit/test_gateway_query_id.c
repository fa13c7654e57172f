/* Only a UUID of version 7 tells its own time. */
#include "common/codec.h"
#include "tests/support/test.h"
#include "workers/gateway/query_id.h"

TEST(an_id_of_ours_tells_when_it_was_made)
{
    char id[37];
    int64_t now_ms = 1764000000000;
    sl_id_new(now_ms, id);
    CHECK_INT(query_id_time_ms(sl_span_of(id)), now_ms);
    sl_id_derive("sluice.queries", 3, 42, now_ms + 7, id);
    CHECK_INT(query_id_time_ms(sl_span_of(id)), now_ms + 7);
    CHECK_INT(query_id_time_ms(SL_SPAN("018F1B2C-0000-7ABC-8DEF-0123456789AB")), 0x018f1b2c0000);
}

TEST(other_ids_have_no_time)
{
    static const char *const ids[] = {
        "",
        "order-17",
        "018f1b2c-0000-4abc-8def-0123456789ab", /* Version 4. */
        "018f1b2c-0000-7abc-cdef-0123456789ab", /* Another variant. */
        "018f1b2c-0000-7abc-8def-0123456789a",
        "018f1b2c-0000-7abc-8def-0123456789abc",
        "018f1b2c-0000-7abc-8def-0123456789ag",
        "018f1b2c0-000-7abc-8def-0123456789ab",
        "018f1b2c.0000.7abc.8def.0123456789ab",
    };
    for (size_t i = 0; i < sizeof(ids) / sizeof(ids[0]); i++) {
        CHECK_INT(query_id_time_ms(sl_span_of(ids[i])), -1);
    }
}

int main(int argc, char **argv)
{
    const struct test_case cases[] = {
        {"an_id_of_ours_tells_when_it_was_made", an_id_of_ours_tells_when_it_was_made},
        {"other_ids_have_no_time", other_ids_have_no_time},
        {NULL, NULL},
    };
    return run_tests(cases, argc, argv);
}
