/* Each record sent is reported once, whatever becomes of it; a full queue says so and says when it
 * has room again. */
#include "common/kafka.h"
#include "tests/support/kafka_mock.h"
#include "tests/support/soon.h"

enum { OUT_OF_ORDER_SEQUENCE_NUMBER = 45 };

static struct sl_loop *loop;
static const char *topic;
static struct sl_producer *producer;
static int reports, failures, last_err, rooms, fatals;
static int64_t last_offset;

static void on_report(void *ctx, int err, int32_t partition, int64_t offset)
{
    int *count = ctx;
    (*count)++;
    reports++;
    failures += err != 0;
    last_err = err;
    last_offset = offset;
    CHECK(err != 0 || (partition >= 0 && offset >= 0));
}

static void on_fatal(void *ctx, const char *why)
{
    (void)ctx;
    CHECK(why != NULL && why[0] != '\0');
    fatals++;
}

static void on_room(void *ctx)
{
    (void)ctx;
    rooms++;
}

static void set_up(const char *const *extra)
{
    char why[256] = "";
    reports = failures = last_err = rooms = fatals = 0;
    topic = kafka_mock_topic("jobs", 4);
    CHECK_INT(sl_loop_create(&loop), 0);
    struct sl_kafka_config config = {kafka_mock_brokers(), "test", extra};
    CHECK_INT(sl_producer_create(loop, &config, on_fatal, NULL, &producer, why, sizeof(why)), 0);
    sl_producer_on_room(producer, on_room, NULL);
    sl_producer_warm(producer, topic);
}

static void tear_down(uint32_t flush_ms)
{
    sl_producer_destroy(producer, flush_ms);
    sl_loop_destroy(loop);
}

static int send_to(int32_t partition, size_t size, int *count)
{
    static char body[30 << 20];
    struct sl_outgoing outgoing = {
        .topic = topic,
        .partition = partition,
        .key = SL_SPAN("key"),
        .value = {body, size},
    };
    return sl_producer_send(producer, &outgoing, on_report, count);
}

TEST(each_record_is_reported_once)
{
    int counts[200] = {0};
    set_up(NULL);
    for (int i = 0; i < 200; i++) {
        CHECK_INT(send_to(i % 4, 100, &counts[i]), 0);
    }
    CHECK_INT(sl_producer_queued(producer), 200);
    CHECK_INT(reports, 0); /* Never inside the call. */
    SOON(loop, reports == 200);
    CHECK_INT(failures, 0);
    CHECK_INT(sl_producer_queued(producer), 0);
    for (int i = 0; i < 200; i++) {
        CHECK_INT(counts[i], 1);
    }
    tear_down(1000);
    CHECK_INT(reports, 200);
}

TEST(a_key_chooses_the_partition_as_java_does)
{
    int count = 0;
    set_up(NULL);
    for (int i = 0; i < 10; i++) {
        CHECK_INT(send_to(-1, 1, &count), 0);
    }
    SOON(loop, reports == 10);
    CHECK_INT(last_offset, 9); /* All in one partition. */
    tear_down(1000);
}

TEST(a_full_queue_says_when_it_has_room)
{
    int count = 0, sent = 0, rc;
    const char *const extra[] = {"queue.buffering.max.messages", "10", NULL};
    set_up(extra);
    while ((rc = send_to(0, 10, &count)) == 0) {
        sent++;
        CHECK(sent <= 10);
    }
    CHECK_INT(rc, -SL_EAGAIN);
    CHECK_INT(sent, 10);
    SOON(loop, rooms > 0);
    CHECK_INT(send_to(0, 10, &count), 0);
    SOON(loop, reports == 11);
    CHECK_INT(rooms, 1);
    CHECK_INT(count, 11);
    tear_down(1000);
}

TEST(what_can_never_be_sent_is_refused)
{
    int count = 0;
    set_up(NULL);
    CHECK_INT(send_to(0, 30 << 20, &count), -SL_ETOOBIG);
    int rc = send_to(17, 1, &count); /* Refused at once only if the topic is known. */
    CHECK(rc == 0 || rc == -SL_ENOENT);
    SOON(loop, rc != 0 || reports == 1);
    CHECK_INT(rc != 0 ? rc : last_err, -SL_ENOENT);
    CHECK_INT(sl_producer_queued(producer), 0);
    tear_down(1000);
}

TEST(a_record_without_an_answer_times_out)
{
    int count = 0;
    const char *const extra[] = {"message.timeout.ms", "300", NULL};
    set_up(extra);
    kafka_mock_set_up(false);
    CHECK_INT(send_to(0, 1, &count), 0);
    SOON(loop, reports == 1);
    CHECK_INT(last_err, -SL_ETIMEDOUT);
    tear_down(1000);
    CHECK_INT(count, 1);
}

TEST(destroy_reports_what_is_still_on_its_way)
{
    int counts[5] = {0};
    set_up(NULL);
    kafka_mock_set_up(false);
    for (int i = 0; i < 5; i++) {
        CHECK_INT(send_to(i % 4, 10, &counts[i]), 0);
    }
    tear_down(50);
    CHECK_INT(failures, 5);
    CHECK_INT(last_err, -SL_ETIMEDOUT);
    for (int i = 0; i < 5; i++) {
        CHECK_INT(counts[i], 1);
    }
}

TEST(a_fatal_error_is_told_once)
{
    int count = 0;
    set_up(NULL);
    CHECK_INT(send_to(0, 1, &count), 0);
    SOON(loop, reports == 1);
    kafka_mock_fail_produce(OUT_OF_ORDER_SEQUENCE_NUMBER, 1);
    CHECK_INT(send_to(0, 1, &count), 0);
    SOON(loop, fatals == 1 && reports == 2);
    CHECK_INT(failures, 1);
    CHECK_INT(send_to(0, 1, &count), -SL_EIO);
    tear_down(100);
    CHECK_INT(fatals, 1);
}

TEST(a_wrong_property_is_named)
{
    char why[256] = "";
    const char *const extra[] = {"no.such.property", "1", NULL};
    struct sl_kafka_config config = {"127.0.0.1:1", NULL, extra};
    struct sl_producer *none = NULL;
    CHECK_INT(sl_loop_create(&loop), 0);
    CHECK_INT(sl_producer_create(loop, &config, on_fatal, NULL, &none, why, sizeof(why)),
              -SL_EINVAL);
    CHECK(strstr(why, "no.such.property") != NULL);
    sl_loop_destroy(loop);
}

int main(int argc, char **argv)
{
    const struct test_case cases[] = {
        {"each_record_is_reported_once", each_record_is_reported_once},
        {"a_key_chooses_the_partition_as_java_does", a_key_chooses_the_partition_as_java_does},
        {"a_full_queue_says_when_it_has_room", a_full_queue_says_when_it_has_room},
        {"what_can_never_be_sent_is_refused", what_can_never_be_sent_is_refused},
        {"a_record_without_an_answer_times_out", a_record_without_an_answer_times_out},
        {"destroy_reports_what_is_still_on_its_way", destroy_reports_what_is_still_on_its_way},
        {"a_fatal_error_is_told_once", a_fatal_error_is_told_once},
        {"a_wrong_property_is_named", a_wrong_property_is_named},
        {NULL, NULL},
    };
    return run_tests(cases, argc, argv);
}
