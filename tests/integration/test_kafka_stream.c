/*
 * Producer, reader and administration on a real broker, and what a hop through it takes: printed,
 * not judged, since it depends on the machine.
 */
#include "common/kafka.h"
#include "tests/support/kafka_fixture.h"
#include "tests/support/kafka_reports.h"
#include "tests/support/soon.h"

enum { HOPS = 500, ASK_MS = 30000, DOCUMENT = 24 << 20 };

static struct sl_loop *loop;
static struct sl_producer *producer;
static const char *topic;
static int reports, failures;

struct seen {
    int64_t start, next;
    unsigned records, caught_up, started;
    size_t bytes;
    uint64_t arrived_us;
};

static void on_record(void *ctx, const struct sl_record *record)
{
    struct seen *seen = ctx;
    CHECK(seen->started == 1 && (seen->records == 0 || record->offset == seen->next));
    seen->next = record->offset + 1;
    seen->records++;
    seen->bytes += record->value.len;
    seen->arrived_us = sl_clock_now_us();
}

static void on_started(void *ctx, int64_t offset)
{
    struct seen *seen = ctx;
    seen->start = offset;
    seen->started++;
}

static void on_caught_up(void *ctx)
{
    ((struct seen *)ctx)->caught_up++;
}

static void on_error(void *ctx, bool fatal, const char *why)
{
    (void)ctx;
    fprintf(stderr, "reader: %s\n", why);
    CHECK(!fatal);
}

static void on_report(void *ctx, int err, int32_t partition, int64_t offset)
{
    (void)ctx;
    (void)partition;
    (void)offset;
    reports++;
    failures += err != 0;
}

static struct sl_reader *read_from(struct seen *seen, int64_t offset)
{
    char why[256] = "";
    struct sl_reader *reader = NULL;
    const struct sl_kafka_config config = {kafka_fixture_brokers(), "test", NULL};
    const struct sl_reader_callbacks callbacks = {on_record, on_started, on_caught_up, on_error};
    CHECK_INT(sl_reader_create(loop, &config, topic, 0, offset, &callbacks, seen, &reader, why,
                               sizeof(why)),
              0);
    return reader;
}

static void put(int count)
{
    const struct sl_outgoing outgoing = {.topic = topic, .partition = 0, .value = SL_SPAN("{}")};
    int wanted = reports + count;
    for (int i = 0; i < count; i++) {
        CHECK_INT(sl_producer_send(producer, &outgoing, on_report, NULL), 0);
    }
    SOON(loop, reports == wanted);
    CHECK_INT(failures, 0);
}

static void set_up(void)
{
    char why[256] = "";
    const struct sl_kafka_config config = {kafka_fixture_brokers(), "test", NULL};
    topic = kafka_fixture_topic("replies", 1);
    reports = failures = 0;
    CHECK_INT(sl_loop_create(&loop), 0);
    CHECK_INT(sl_producer_create(loop, &config, kafka_on_fatal, NULL, &producer, why, sizeof(why)),
              0);
}

static void tear_down(void)
{
    sl_producer_destroy(producer, 5000);
    sl_loop_destroy(loop);
}

TEST(a_reader_follows_from_the_end)
{
    struct seen seen = {0};
    set_up();
    put(100);
    struct sl_reader *reader = read_from(&seen, SL_OFFSET_END);
    SOON(loop, seen.started == 1);
    CHECK_INT(seen.start, 100);
    put(20);
    SOON(loop, seen.records == 20);
    CHECK_INT(seen.next, 120);
    CHECK_INT(seen.caught_up, 1);
    sl_reader_destroy(reader);
    tear_down();
}

TEST(a_reader_replays_from_an_offset)
{
    struct seen seen = {0}, all = {0};
    set_up();
    put(100);
    struct sl_reader *reader = read_from(&seen, 90);
    struct sl_reader *whole = read_from(&all, SL_OFFSET_BEGINNING);
    SOON(loop, seen.caught_up == 1 && all.caught_up == 1);
    CHECK(seen.start == 90 && seen.records == 10);
    CHECK(all.start == 0 && all.records == 100);
    put(5);
    SOON(loop, seen.records == 15 && all.records == 105);
    CHECK(seen.caught_up == 1 && all.caught_up == 1);
    sl_reader_destroy(reader);
    sl_reader_destroy(whole);
    tear_down();
}

TEST(a_document_of_the_largest_size_passes)
{
    struct seen seen = {0};
    char why[256] = "";
    static char document[DOCUMENT];
    const char *const limits[] = {"max.message.bytes", "26214400", NULL};
    const struct sl_kafka_config config = {kafka_fixture_brokers(), "test", NULL};
    char name[64];
    set_up();
    snprintf(name, sizeof(name), "%s.large", topic);
    const struct sl_topic_spec spec = {name, 1, 1, limits};
    int result = -1;
    CHECK_INT(sl_kafka_create_topics(&config, &spec, 1, ASK_MS, &result, why, sizeof(why)), 0);
    CHECK_INT(result, 0);
    topic = name;
    const struct sl_outgoing outgoing = {
        .topic = topic, .partition = 0, .value = {document, sizeof(document)}};
    CHECK_INT(sl_producer_send(producer, &outgoing, on_report, NULL), 0);
    struct sl_reader *reader = read_from(&seen, SL_OFFSET_BEGINNING);
    SOON(loop, seen.records == 1 && reports == 1);
    CHECK_INT(seen.bytes, DOCUMENT);
    CHECK_INT(failures, 0);
    sl_reader_destroy(reader);
    tear_down();
}

TEST(administration_tells_what_exists)
{
    char why[256] = "";
    int results[2] = {-1, -1};
    set_up();
    const struct sl_kafka_config config = {kafka_fixture_brokers(), "test", NULL};
    char name[64];
    snprintf(name, sizeof(name), "%s.more", topic);
    const struct sl_topic_spec specs[] = {{topic, 1, 1, NULL}, {name, 7, -1, NULL}};
    CHECK_INT(sl_kafka_create_topics(&config, specs, 2, ASK_MS, results, why, sizeof(why)), 0);
    CHECK_INT(results[0], -SL_EEXIST);
    CHECK_INT(results[1], 0);
    CHECK_INT(sl_kafka_partition_count(&config, name, ASK_MS), 7);
    CHECK_INT(sl_kafka_partition_count(&config, "no.such.topic", ASK_MS), -SL_ENOENT);
    put(12);
    CHECK_INT(sl_kafka_group_lag(&config, "nobody", topic, ASK_MS), 12);
    CHECK_INT(sl_kafka_group_lag(&config, "nobody", "no.such.topic", ASK_MS), -SL_ENOENT);
    const struct sl_topic_spec wrong = {"wrong", 0, 1, NULL};
    CHECK(sl_kafka_create_topics(&config, &wrong, 1, ASK_MS, results, why, sizeof(why)) < 0);
    CHECK(why[0] != '\0');
    tear_down();
}

TEST(administration_does_not_wait_for_ever)
{
    const char *const quiet[] = {"log_level", "0", NULL};
    const struct sl_kafka_config config = {"127.0.0.1:1", "test", quiet};
    int rc = sl_kafka_partition_count(&config, "any", 300);
    CHECK(rc == -SL_ETIMEDOUT || rc == -SL_ECONN);
    CHECK(sl_kafka_group_lag(&config, "nobody", "any", 300) < 0);
}

static int compare(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;
    return left < right ? -1 : left > right;
}

TEST(what_a_hop_takes)
{
    static uint64_t took[HOPS];
    struct seen seen = {0};
    uint64_t begin = sl_clock_now_us();
    set_up();
    sl_producer_warm(producer, topic);
    uint64_t created = sl_clock_now_us();
    put(1);
    uint64_t first = sl_clock_now_us();
    struct sl_reader *reader = read_from(&seen, 0);
    SOON(loop, seen.records == 1);
    uint64_t read = sl_clock_now_us();
    for (int i = 0; i < HOPS; i++) {
        const struct sl_outgoing outgoing = {
            .topic = topic, .partition = 0, .value = SL_SPAN("{}")};
        uint64_t sent = sl_clock_now_us();
        CHECK_INT(sl_producer_send(producer, &outgoing, on_report, NULL), 0);
        SOON(loop, seen.records == (unsigned)i + 2);
        took[i] = seen.arrived_us - sent;
        SOON(loop, reports == i + 2);
    }
    qsort(took, HOPS, sizeof(took[0]), compare);
    fprintf(stderr,
            "hop: p50 %.2f ms, p99 %.2f ms; create %.0f ms, first record %.0f ms, first "
            "read %.0f ms\n",
            (double)took[HOPS / 2] / 1e3, (double)took[HOPS * 99 / 100] / 1e3,
            (double)(created - begin) / 1e3, (double)(first - created) / 1e3,
            (double)(read - first) / 1e3);
    sl_reader_destroy(reader);
    tear_down();
}

int main(int argc, char **argv)
{
    const struct test_case cases[] = {
        {"a_reader_follows_from_the_end", a_reader_follows_from_the_end},
        {"a_reader_replays_from_an_offset", a_reader_replays_from_an_offset},
        {"a_document_of_the_largest_size_passes", a_document_of_the_largest_size_passes},
        {"administration_tells_what_exists", administration_tells_what_exists},
        {"administration_does_not_wait_for_ever", administration_does_not_wait_for_ever},
        {"what_a_hop_takes", what_a_hop_takes},
        {NULL, NULL},
    };
    return run_tests(cases, argc, argv);
}
