/* A reader gives a partition's records as they were sent, from where it was told to, and says where
 * that was and when it has caught up. */
#include "common/kafka.h"
#include "tests/support/kafka_mock.h"
#include "tests/support/kafka_reports.h"
#include "tests/support/soon.h"

enum { RECORDS_MAX = 64 };

static struct sl_loop *loop;
static const char *topic;
static struct sl_producer *producer;

struct seen {
    struct sl_reader *reader;
    int64_t offsets[RECORDS_MAX];
    int count, started, caught_up, count_at_catch_up, errors;
    int64_t start;
    int destroy_at; /* Destroys its reader in the callback of that many records. */
};

static void on_record(void *ctx, const struct sl_record *record)
{
    struct seen *seen = ctx;
    CHECK(seen->started == 1 && seen->count < RECORDS_MAX);
    seen->offsets[seen->count++] = record->offset;
    if (seen->destroy_at == seen->count) {
        sl_reader_destroy(seen->reader);
        seen->reader = NULL;
    }
}

static void on_started(void *ctx, int64_t offset)
{
    struct seen *seen = ctx;
    seen->started++;
    seen->start = offset;
}

static void on_caught_up(void *ctx)
{
    struct seen *seen = ctx;
    seen->caught_up++;
    seen->count_at_catch_up = seen->count;
}

static void on_error(void *ctx, bool fatal, const char *why)
{
    struct seen *seen = ctx;
    fprintf(stderr, "reader: %s\n", why);
    seen->errors++;
    CHECK(!fatal);
}

static const char *const quick[] = {"fetch.wait.max.ms", "5", NULL};

static void set_up(void)
{
    char why[256] = "";
    topic = kafka_mock_topic("replies", 2);
    kafka_reports = 0;
    CHECK_INT(sl_loop_create(&loop), 0);
    const struct sl_kafka_config config = {kafka_mock_brokers(), "test", NULL};
    CHECK_INT(sl_producer_create(loop, &config, kafka_on_fatal, NULL, &producer, why, sizeof(why)),
              0);
}

static void tear_down(void)
{
    sl_producer_destroy(producer, 1000);
    sl_loop_destroy(loop);
}

static void put(int count)
{
    int wanted = kafka_reports + count;
    struct sl_outgoing outgoing = {.topic = topic, .partition = 1, .value = SL_SPAN("{}")};
    for (int i = 0; i < count; i++) {
        CHECK_INT(sl_producer_send(producer, &outgoing, kafka_on_report, NULL), 0);
    }
    SOON(loop, kafka_reports == wanted);
}

static void read_from(struct seen *seen, int64_t offset,
                      void (*record_cb)(void *, const struct sl_record *))
{
    char why[256] = "";
    const struct sl_kafka_config config = {kafka_mock_brokers(), "test", quick};
    const struct sl_reader_callbacks callbacks = {record_cb, on_started, on_caught_up, on_error};
    CHECK_INT(sl_reader_create(loop, &config, topic, 1, offset, &callbacks, seen, &seen->reader,
                               why, sizeof(why)),
              0);
}

TEST(reading_begins_at_the_offset_asked_for)
{
    struct seen seen = {0};
    set_up();
    put(10);
    read_from(&seen, 7, on_record);
    SOON(loop, seen.caught_up == 1);
    CHECK_INT(seen.start, 7);
    CHECK_INT(seen.count_at_catch_up, 3);
    CHECK(seen.offsets[0] == 7 && seen.offsets[1] == 8 && seen.offsets[2] == 9);
    put(2);
    SOON(loop, seen.count == 5);
    CHECK(seen.caught_up == 1 && seen.started == 1);
    sl_reader_destroy(seen.reader);
    tear_down();
}

TEST(the_end_is_where_the_next_record_will_be)
{
    struct seen seen = {0};
    set_up();
    put(10);
    read_from(&seen, SL_OFFSET_END, on_record);
    SOON(loop, seen.started == 1);
    CHECK_INT(seen.start, 10);
    SOON(loop, seen.caught_up == 1);
    CHECK_INT(seen.count, 0);
    put(3);
    SOON(loop, seen.count == 3);
    CHECK_INT(seen.offsets[0], 10);
    sl_reader_destroy(seen.reader);
    tear_down();
}

TEST(the_beginning_of_an_empty_partition_is_caught_up)
{
    struct seen seen = {0};
    set_up();
    read_from(&seen, SL_OFFSET_BEGINNING, on_record);
    SOON(loop, seen.caught_up == 1);
    CHECK(seen.start == 0 && seen.count == 0);
    sl_reader_destroy(seen.reader);
    tear_down();
}

TEST(a_callback_may_destroy_its_reader)
{
    struct seen seen = {.destroy_at = 4};
    set_up();
    put(10);
    read_from(&seen, SL_OFFSET_BEGINNING, on_record);
    SOON(loop, seen.reader == NULL);
    MEANWHILE(loop, 30);
    CHECK_INT(seen.count, 4);
    CHECK_INT(seen.caught_up, 0);
    tear_down();
}

static void on_whole_record(void *ctx, const struct sl_record *record)
{
    struct seen *seen = ctx;
    seen->count++;
    CHECK_STR(record->topic, topic);
    CHECK(record->partition == 1 && record->timestamp_ms > 0);
    CHECK(sl_span_is(record->key, "id-1"));
    CHECK(sl_span_equal(record->value, SL_SPAN("a\0b")));
    CHECK_INT(record->header_count, 4);
    CHECK(sl_span_is(sl_record_header(record, "sluice-id"), "second"));
    CHECK(sl_span_is(sl_record_header(record, "empty"), ""));
    CHECK(sl_record_header(record, "empty").data != NULL);
    CHECK(sl_record_header(record, "null").data == NULL);
    CHECK(sl_record_header(record, "absent").data == NULL);
}

TEST(a_record_arrives_as_it_was_sent)
{
    struct seen seen = {0};
    const struct sl_kafka_header headers[] = {
        {SL_SPAN("sluice-id"), SL_SPAN("first")},
        {SL_SPAN("empty"), SL_SPAN("")},
        {SL_SPAN("null"), {NULL, 0}},
        {SL_SPAN("sluice-id"), SL_SPAN("second")},
    };
    set_up();
    const struct sl_outgoing outgoing = {
        .topic = topic,
        .partition = 1,
        .key = SL_SPAN("id-1"),
        .value = SL_SPAN("a\0b"),
        .headers = headers,
        .header_count = 4,
    };
    CHECK_INT(sl_producer_send(producer, &outgoing, kafka_on_report, NULL), 0);
    read_from(&seen, SL_OFFSET_BEGINNING, on_whole_record);
    SOON(loop, seen.count == 1);
    sl_reader_destroy(seen.reader);
    tear_down();
}

TEST(more_headers_than_the_maximum_are_left_out)
{
    struct sl_kafka_header headers[SL_KAFKA_HEADERS_MAX + 5];
    for (size_t i = 0; i < SL_KAFKA_HEADERS_MAX + 5; i++) {
        headers[i] = (struct sl_kafka_header){SL_SPAN("h"), SL_SPAN("v")};
    }
    set_up();
    const struct sl_outgoing outgoing = {.topic = topic,
                                         .partition = 1,
                                         .headers = headers,
                                         .header_count = SL_KAFKA_HEADERS_MAX + 5};
    struct seen seen = {0};
    CHECK_INT(sl_producer_send(producer, &outgoing, kafka_on_report, NULL), 0);
    read_from(&seen, SL_OFFSET_BEGINNING, on_record);
    SOON(loop, seen.count == 1);
    sl_reader_destroy(seen.reader);
    tear_down();
}

int main(int argc, char **argv)
{
    const struct test_case cases[] = {
        {"reading_begins_at_the_offset_asked_for", reading_begins_at_the_offset_asked_for},
        {"the_end_is_where_the_next_record_will_be", the_end_is_where_the_next_record_will_be},
        {"the_beginning_of_an_empty_partition_is_caught_up",
         the_beginning_of_an_empty_partition_is_caught_up},
        {"a_callback_may_destroy_its_reader", a_callback_may_destroy_its_reader},
        {"a_record_arrives_as_it_was_sent", a_record_arrives_as_it_was_sent},
        {"more_headers_than_the_maximum_are_left_out", more_headers_than_the_maximum_are_left_out},
        {NULL, NULL},
    };
    return run_tests(cases, argc, argv);
}
