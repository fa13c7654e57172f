/* Events of several queries in one record, there and back; and records that are not that. */
#include "common/bundle.h"
#include "tests/support/test.h"

enum { GIVEN_MAX = 8, TEXT_MAX = 300 };

/* What was given, copied. */
static struct given {
    char id[TEXT_MAX];
    struct sl_span event;
} given[GIVEN_MAX];
static size_t given_count;

static void note(void *ctx, struct sl_span id, struct sl_span event)
{
    CHECK(ctx == given && given_count < GIVEN_MAX && id.len < TEXT_MAX);
    snprintf(given[given_count].id, TEXT_MAX, SL_SPAN_FMT, SL_SPAN_ARG(id));
    given[given_count++].event = event;
}

/* name NULL: without headers. */
static int read_as(struct sl_span value, const char *name, const char *text)
{
    const struct sl_kafka_header header = {sl_span_of(name), sl_span_of(text)};
    const struct sl_record record = {.topic = "sluice.replies",
                                     .value = value,
                                     .headers = &header,
                                     .header_count = name != NULL ? 1 : 0};
    given_count = 0;
    return sl_record_events(&record, note, given);
}

static int read_bundle(struct sl_span value)
{
    return read_as(value, "content-type", SL_BUNDLE_TYPE);
}

static void add(struct sl_buf *out, const char *id, struct sl_span event)
{
    size_t before = out->len;
    sl_bundle_add(out, sl_span_of(id), event);
    CHECK(sl_buf_error(out) == 0);
    CHECK_INT(out->len - before, sl_bundle_len(sl_span_of(id), event));
}

TEST(events_come_back_in_order)
{
    struct sl_buf bytes;
    sl_buf_init(&bytes, 1 << 20);
    add(&bytes, "q1", SL_SPAN("first"));
    add(&bytes, "q2", SL_SPAN("a\0b"));
    add(&bytes, "q1", SL_SPAN(""));
    CHECK_INT(read_bundle(sl_buf_span(&bytes)), 0);
    CHECK_INT(given_count, 3);
    CHECK(strcmp(given[0].id, "q1") == 0 && sl_span_is(given[0].event, "first"));
    CHECK(strcmp(given[1].id, "q2") == 0 && sl_span_equal(given[1].event, SL_SPAN("a\0b")));
    CHECK(strcmp(given[2].id, "q1") == 0 && given[2].event.len == 0);
    sl_buf_fini(&bytes);
}

TEST(pairs_are_messagepack)
{
    struct sl_buf bytes;
    sl_buf_init(&bytes, 1 << 20);
    add(&bytes, "q1", SL_SPAN("abc"));
    CHECK(sl_span_equal(sl_buf_span(&bytes), SL_SPAN("\xd9\x02q1\xc6\0\0\0\x03"
                                                     "abc")));
    sl_buf_fini(&bytes);
}

TEST(the_longest_id_and_a_long_event_come_back)
{
    enum { LONG = 70000 }; /* More than two bytes count. */
    static char id[256], text[LONG];
    struct sl_buf bytes;
    memset(id, 'x', 255);
    memset(text, 'y', LONG);
    sl_buf_init(&bytes, 1 << 20);
    add(&bytes, id, (struct sl_span){text, LONG});
    add(&bytes, "", SL_SPAN("z"));
    CHECK_INT(read_bundle(sl_buf_span(&bytes)), 0);
    CHECK_INT(given_count, 2);
    CHECK_STR(given[0].id, id);
    CHECK(sl_span_equal(given[0].event, (struct sl_span){text, LONG}));
    CHECK(given[1].id[0] == '\0' && sl_span_is(given[1].event, "z"));
    sl_buf_fini(&bytes);
}

/* From memory of its own, so that a read behind the end is found. */
static int read_cut(const struct sl_buf *bytes, size_t len)
{
    char *cut = malloc(len > 0 ? len : 1);
    CHECK(cut != NULL);
    memcpy(cut, bytes->data, len);
    int rv = read_bundle((struct sl_span){cut, len});
    free(cut);
    return rv;
}

TEST(a_bundle_that_ends_early_gives_what_is_whole)
{
    struct sl_buf bytes;
    size_t whole[4] = {0}, pairs = 0;
    sl_buf_init(&bytes, 1 << 20);
    for (size_t i = 0; i < 3; i++) {
        add(&bytes, "query", SL_SPAN("event"));
        whole[i + 1] = bytes.len;
    }
    for (size_t len = 0; len <= bytes.len; len++) {
        pairs += pairs < 3 && len == whole[pairs + 1] ? 1 : 0;
        CHECK_INT(read_cut(&bytes, len), len == whole[pairs] ? 0 : -SL_EBADMSG);
        CHECK_INT(given_count, pairs);
    }
    sl_buf_fini(&bytes);
}

TEST(what_follows_the_pairs_is_told)
{
    const struct sl_span tails[] = {
        SL_SPAN("\xa2q2\xc6\0\0\0\0"),           /* A str of another size. */
        SL_SPAN("\xd9\x02q2\xc4\0"),             /* A bin of another size. */
        SL_SPAN("\xd9\x02q2\xc6\xff\xff\xff\xff" /* Longer than anything. */
                "abc"),
        SL_SPAN("\0"),
    };
    for (size_t i = 0; i < sizeof(tails) / sizeof(tails[0]); i++) {
        struct sl_buf bytes;
        sl_buf_init(&bytes, 1 << 20);
        add(&bytes, "q1", SL_SPAN("yes"));
        sl_buf_append_span(&bytes, tails[i]);
        CHECK_INT(read_bundle(sl_buf_span(&bytes)), -SL_EBADMSG);
        CHECK_INT(given_count, 1);
        sl_buf_fini(&bytes);
    }
}

TEST(a_record_of_one_query_is_its_event)
{
    CHECK_INT(read_as(SL_SPAN("\xd9\x02q1\xc6"), "sluice-id", "q7"), 0);
    CHECK_INT(given_count, 1);
    CHECK_STR(given[0].id, "q7");
    CHECK(sl_span_is(given[0].event, "\xd9\x02q1\xc6"));
}

TEST(foreign_records_have_no_events)
{
    struct sl_buf bytes;
    sl_buf_init(&bytes, 1 << 20);
    add(&bytes, "q1", SL_SPAN("yes"));
    struct sl_span value = sl_buf_span(&bytes);
    CHECK(read_as(value, NULL, NULL) == 0 && given_count == 0);
    CHECK(read_as(value, "content-type", "application/msgpack") == 0 && given_count == 0);
    CHECK(read_as(value, "sluice-id", "") == 0 && given_count == 0);
    CHECK(read_as(SL_SPAN(""), "content-type", SL_BUNDLE_TYPE) == 0 && given_count == 0);
    sl_buf_fini(&bytes);
}

int main(int argc, char **argv)
{
    static const struct test_case cases[] = {
        {"events_come_back_in_order", events_come_back_in_order},
        {"pairs_are_messagepack", pairs_are_messagepack},
        {"the_longest_id_and_a_long_event_come_back", the_longest_id_and_a_long_event_come_back},
        {"a_bundle_that_ends_early_gives_what_is_whole",
         a_bundle_that_ends_early_gives_what_is_whole},
        {"what_follows_the_pairs_is_told", what_follows_the_pairs_is_told},
        {"a_record_of_one_query_is_its_event", a_record_of_one_query_is_its_event},
        {"foreign_records_have_no_events", foreign_records_have_no_events},
        {NULL, NULL},
    };
    return run_tests(cases, argc, argv);
}
