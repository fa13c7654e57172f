/*
 * A follower on a real broker: many partitions that come, go and are read again while they are
 * written, and what retention has removed. What a step of it takes is printed, not judged.
 */
#include "common/kafka_follow.h"
#include "tests/support/kafka_fixture.h"
#include "tests/support/kafka_reports.h"
#include "tests/support/kafka_trim.h"
#include "tests/support/soon.h"

enum { PARTITIONS = 24, RECORDS = 200, STEPS = 3000 };

static struct sl_loop *loop;
static struct sl_follower *follower;
static struct sl_producer *producer;
static const char *topic;
static int sent, reports;

/* The test's own idea of each partition. */
static struct {
    bool followed;
    int64_t next; /* -1: any. */
    int64_t written;
    int64_t missed, low; /* -1: not out of range. */
    int count;
} parts[PARTITIONS];
static uint64_t given, longest_us;

static void on_record(void *ctx, const struct sl_record *record)
{
    (void)ctx;
    CHECK(parts[record->partition].followed);
    CHECK_INT(record->offset, parts[record->partition].next);
    parts[record->partition].next++;
    parts[record->partition].count++;
    given++;
}

static void on_end(void *ctx, const char *name, int32_t partition, int64_t next)
{
    (void)ctx;
    CHECK_STR(name, topic);
    CHECK(parts[partition].followed);
    CHECK_INT(next, parts[partition].next);
}

static void on_out_of_range(void *ctx, const char *name, int32_t partition, int64_t offset,
                            int64_t low)
{
    (void)ctx;
    CHECK_STR(name, topic);
    CHECK(parts[partition].followed);
    parts[partition].followed = false;
    parts[partition].missed = offset;
    parts[partition].low = low;
}

static void on_error(void *ctx, bool fatal, const char *why)
{
    (void)ctx;
    (void)fatal;
    fprintf(stderr, "follower: %s\n", why);
    CHECK(0);
}

static void on_report(void *ctx, int err, int32_t partition, int64_t offset)
{
    (void)ctx;
    CHECK_INT(err, 0);
    parts[partition].written = offset + 1;
    reports++;
}

static void set_up(void)
{
    static const struct sl_follower_callbacks callbacks = {on_record, on_end, on_out_of_range,
                                                           on_error};
    char why[256] = "";
    topic = kafka_fixture_topic("follow", PARTITIONS);
    const struct sl_kafka_config config = {kafka_fixture_brokers(), "test", NULL};
    memset(parts, 0, sizeof(parts));
    for (int i = 0; i < PARTITIONS; i++) {
        parts[i].missed = parts[i].low = -1;
    }
    sent = reports = 0;
    given = longest_us = 0;
    CHECK_INT(sl_loop_create(&loop), 0);
    CHECK_INT(sl_producer_create(loop, &config, kafka_on_fatal, NULL, &producer, why, sizeof(why)),
              0);
    CHECK_INT(sl_follower_create(loop, &config, &callbacks, NULL, &follower, why, sizeof(why)), 0);
}

static void tear_down(void)
{
    sl_follower_destroy(follower);
    sl_producer_destroy(producer, 1000);
    sl_loop_destroy(loop);
}

static void send_some(int32_t partition, int count)
{
    static const char value[1000] = {0};
    const struct sl_outgoing outgoing = {
        .topic = topic, .partition = partition, .value = {value, sizeof(value)}};
    for (int i = 0; i < count; i++) {
        CHECK_INT(sl_producer_send(producer, &outgoing, on_report, NULL), 0);
        sent++;
    }
}

static void put_everywhere(int count)
{
    for (int i = 0; i < PARTITIONS; i++) {
        send_some(i, count);
    }
    SOON(loop, reports == sent);
}

/* As the header says it: not followed yet, or back. */
static void add(int32_t partition, int64_t offset)
{
    uint64_t begin_us = sl_clock_now_us();
    CHECK_INT(sl_follower_add(follower, topic, partition, offset), 0);
    uint64_t took_us = sl_clock_now_us() - begin_us;
    longest_us = took_us > longest_us ? took_us : longest_us;
    if (!parts[partition].followed || offset < parts[partition].next) {
        parts[partition].next = offset;
    }
    parts[partition].followed = true;
    CHECK_INT(sl_follower_position(follower, topic, partition), parts[partition].next);
}

static void leave(int32_t partition)
{
    sl_follower_remove(follower, topic, partition);
    parts[partition].followed = false;
}

static bool all_read(void)
{
    for (int i = 0; i < PARTITIONS; i++) {
        if (parts[i].followed && parts[i].next != parts[i].written) {
            return false;
        }
    }
    return true;
}

TEST(many_partitions_are_read_by_one_client)
{
    set_up();
    put_everywhere(RECORDS);
    uint64_t begin_us = sl_clock_now_us();
    add(0, 0);
    SOON(loop, all_read());
    uint64_t first_us = sl_clock_now_us() - begin_us;
    begin_us = sl_clock_now_us();
    for (int i = 1; i < PARTITIONS; i++) {
        add(i, i);
    }
    uint64_t adding_us = sl_clock_now_us() - begin_us;
    SOON(loop, all_read());
    for (int i = 0; i < PARTITIONS; i++) {
        CHECK_INT(parts[i].count, RECORDS - i);
    }
    fprintf(stderr, "first partition %lld us, %d more: adding %lld us each, read in %lld us\n",
            (long long)first_us, PARTITIONS - 1, (long long)adding_us / (PARTITIONS - 1),
            (long long)(sl_clock_now_us() - begin_us));
    tear_down();
}

/* One of the things that owners do, by chance, whatever is under way. */
static void take_a_step(unsigned *seed)
{
    int32_t partition = (int32_t)(rand_r(seed) % PARTITIONS);
    int64_t offset = rand_r(seed) % parts[partition].written;
    switch (rand_r(seed) % 4) {
    case 0:
        send_some(partition, 3);
        break;
    case 1:
        leave(partition);
        break;
    default:
        add(partition, offset);
        break;
    }
    if (rand_r(seed) % 8 == 0) {
        sl_loop_turn(loop, 5);
    }
}

TEST(partitions_come_go_and_go_back_while_they_are_read_and_written)
{
    unsigned seed = (unsigned)sl_clock_unix_ms();
    fprintf(stderr, "seed %u\n", seed);
    set_up();
    put_everywhere(RECORDS);
    for (int i = 0; i < STEPS; i++) {
        take_a_step(&seed);
    }
    for (int i = 0; i < PARTITIONS; i++) {
        add(i, parts[i].written - 1);
    }
    SOON(loop, reports == sent && all_read());
    fprintf(stderr, "%llu records given, the longest addition took %llu us\n",
            (unsigned long long)given, (unsigned long long)longest_us);
    tear_down();
}

TEST(what_retention_removed_is_out_of_range_with_the_lowest_offset)
{
    set_up();
    put_everywhere(50);
    add(0, 0); /* The client knows the topic; other partitions are being read. */
    kafka_trim(kafka_fixture_brokers(), topic, 1, 30);
    add(1, 29);
    add(2, 51);
    SOON(loop, parts[1].missed >= 0 && parts[2].missed >= 0);
    CHECK(parts[1].missed == 29 && parts[1].low == 30);
    CHECK(parts[2].missed == 51 && parts[2].low == 0);
    CHECK_INT(sl_follower_position(follower, topic, 1), -1);
    add(1, 30);
    SOON(loop, all_read());
    CHECK(parts[1].count == 20 && parts[2].count == 0);
    tear_down();
}

TEST(a_partition_with_nothing_left_is_out_of_range_too)
{
    set_up();
    put_everywhere(10);
    kafka_trim(kafka_fixture_brokers(), topic, 3, 10);
    add(3, 4);
    SOON(loop, parts[3].missed >= 0);
    CHECK(parts[3].missed == 4 && parts[3].low == 10);
    tear_down();
}

TEST(going_back_to_what_was_removed_since_is_out_of_range)
{
    set_up();
    put_everywhere(50);
    add(5, 0);
    SOON(loop, all_read());
    kafka_trim(kafka_fixture_brokers(), topic, 5, 20);
    add(5, 10);
    SOON(loop, parts[5].missed >= 0);
    CHECK(parts[5].missed == 10 && parts[5].low == 20 && parts[5].count == 50);
    tear_down();
}

int main(int argc, char **argv)
{
    const struct test_case cases[] = {
        {"many_partitions_are_read_by_one_client", many_partitions_are_read_by_one_client},
        {"partitions_come_go_and_go_back_while_they_are_read_and_written",
         partitions_come_go_and_go_back_while_they_are_read_and_written},
        {"what_retention_removed_is_out_of_range_with_the_lowest_offset",
         what_retention_removed_is_out_of_range_with_the_lowest_offset},
        {"a_partition_with_nothing_left_is_out_of_range_too",
         a_partition_with_nothing_left_is_out_of_range_too},
        {"going_back_to_what_was_removed_since_is_out_of_range",
         going_back_to_what_was_removed_since_is_out_of_range},
        {NULL, NULL},
    };
    return run_tests(cases, argc, argv);
}
