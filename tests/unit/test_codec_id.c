/* Ids: ordered, valid, and the same for one record on every machine. */
#include "common/codec.h"
#include "tests/support/test.h"

static unsigned long long time_of(const char *id)
{
    unsigned high, low;
    CHECK(sscanf(id, "%8x-%4x", &high, &low) == 2);
    return (unsigned long long)high << 16 | low;
}

static void check_layout(const char *id)
{
    CHECK_INT(strlen(id), 36);
    CHECK(id[8] == '-' && id[13] == '-' && id[18] == '-' && id[23] == '-');
    CHECK(id[14] == '7');
    CHECK(strchr("89ab", id[19]) != NULL);
    CHECK_INT(strspn(id, "0123456789abcdef-"), 36);
    CHECK(sl_id_valid(sl_span_of(id)));
}

TEST(new_ids_are_ordered_within_a_millisecond_and_when_the_clock_steps_back)
{
    char last[37] = "", id[37];
    for (int i = 0; i < 20000; i++) { /* More than one millisecond has numbers for. */
        sl_id_new(1700000000000 - i % 3, id);
        check_layout(id);
        CHECK(strcmp(last, id) < 0);
        memcpy(last, id, sizeof(id));
    }
    CHECK(time_of(id) >= 1700000000000 && time_of(id) < 1700000000020);
    sl_id_new(1800000000000, id);
    CHECK(time_of(id) == 1800000000000);
    CHECK(strcmp(last, id) < 0);
}

TEST(a_clock_that_was_far_wrong_is_forgotten)
{
    char id[37];
    sl_id_new(4000000000000, id);
    sl_id_new(1800000000000, id);
    CHECK(time_of(id) == 1800000000000);
}

TEST(a_record_has_one_id)
{
    char id[37], other[37];
    sl_id_derive("sluice.queries", 3, 42, 1700000000000, id);
    CHECK_STR(id, "018bcfe5-6800-7805-a750-82b52c6c6cfa"); /* Part of the wire format. */
    check_layout(id);
    CHECK(time_of(id) == 1700000000000);
    sl_id_derive("sluice.queries", 3, 43, 1700000000000, other);
    CHECK(strcmp(id, other) != 0);
    sl_id_derive("sluice.queries", 4, 42, 1700000000000, other);
    CHECK(strcmp(id, other) != 0);
    sl_id_derive("sluice.querie", 3, 42, 1700000000000, other);
    CHECK(strcmp(id, other) != 0);
    sl_id_derive("sluice.queries", -1, 42, -1, other); /* No timestamp: Kafka says -1. */
    check_layout(other);
}

TEST(a_producers_id_has_few_characters)
{
    static const char longest[] =
        "0123456789012345678901234567890123456789012345678901234567890123";
    CHECK(sl_id_valid(SL_SPAN("a")));
    CHECK(sl_id_valid(SL_SPAN("Az09._-")));
    CHECK(sl_id_valid(sl_span_of(longest)));
    CHECK(
        !sl_id_valid((struct sl_span){"01234567890123456789012345678901234567890123456789012345678"
                                      "901234",
                                      65}));
    static const char *const bad[] = {"", "a b", "a/b", "a:b", "\xc3\xa9", "a\n", "*", "a,b"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        CHECK(!sl_id_valid(sl_span_of(bad[i])));
    }
    CHECK(!sl_id_valid((struct sl_span){"a\0", 2}));
}

static const struct test_case cases[] = {
    {"new_ids_are_ordered", new_ids_are_ordered_within_a_millisecond_and_when_the_clock_steps_back},
    {"a_clock_that_was_far_wrong_is_forgotten", a_clock_that_was_far_wrong_is_forgotten},
    {"a_record_has_one_id", a_record_has_one_id},
    {"a_producers_id_has_few_characters", a_producers_id_has_few_characters},
    {NULL, NULL},
};

int main(int argc, char **argv)
{
    return run_tests(cases, argc, argv);
}
