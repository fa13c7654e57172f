/* A follower gives each partition's records from where it was told to, again after it was told to
 * go back, and none of a partition that it was told to leave. */
#include "common/kafka_follow.h"
#include "tests/support/kafka_mock.h"
#include "tests/support/kafka_reports.h"
#include "tests/support/soon.h"

enum { PARTITIONS = 4, CASES_MAX = 16, RECORDS = 40 };

static struct sl_loop *loop;
static struct sl_follower *follower;
static struct sl_producer *producer;
static const char *topic;
static int32_t base = -PARTITIONS; /* Each case has partitions of its own from here on. */
static int errors;

/* What came of each partition. */
static struct {
    int64_t last, end; /* -1: nothing yet. */
    int count, ends;
} seen[PARTITIONS];
static struct {
    int count;
    int32_t partition;
    int64_t offset, low;
} missed;

/* What on_record does when the record of this offset comes; once. */
static struct {
    int64_t at;
    bool remove;
    int64_t go_back_to; /* -1: does not. */
} reaction;

static void react(const struct sl_record *record)
{
    if (record->offset != reaction.at) {
        return;
    }
    reaction.at = -1;
    if (reaction.remove) {
        sl_follower_remove(follower, topic, record->partition);
    }
    if (reaction.go_back_to >= 0) {
        CHECK_INT(sl_follower_add(follower, topic, record->partition, reaction.go_back_to), 0);
        seen[record->partition - base].last = reaction.go_back_to - 1;
    }
}

static void on_record(void *ctx, const struct sl_record *record)
{
    int32_t i = record->partition - base;
    (void)ctx;
    CHECK(i >= 0 && i < PARTITIONS);
    CHECK_STR(record->topic, topic);
    CHECK(sl_follower_position(follower, topic, record->partition) == record->offset + 1);
    if (seen[i].last >= 0 || record->offset == 0) {
        CHECK_INT(record->offset, seen[i].last + 1);
    }
    seen[i].last = record->offset;
    seen[i].count++;
    react(record);
}

static void on_end(void *ctx, const char *name, int32_t partition, int64_t next)
{
    (void)ctx;
    CHECK_STR(name, topic);
    CHECK(sl_follower_position(follower, topic, partition) == next);
    CHECK(partition >= base && partition < base + PARTITIONS);
    seen[partition - base].end = next;
    seen[partition - base].ends++;
}

static void on_out_of_range(void *ctx, const char *name, int32_t partition, int64_t offset,
                            int64_t low)
{
    (void)ctx;
    CHECK_STR(name, topic);
    CHECK_INT(sl_follower_position(follower, topic, partition), -1);
    missed.count++;
    missed.partition = partition - base;
    missed.offset = offset;
    missed.low = low;
}

static void on_error(void *ctx, bool fatal, const char *why)
{
    (void)ctx;
    fprintf(stderr, "follower: %s\n", why);
    CHECK(!fatal);
    errors++;
}

static void set_up(void)
{
    static const char *const quick[] = {"fetch.wait.max.ms", "5", NULL};
    static const struct sl_follower_callbacks callbacks = {on_record, on_end, on_out_of_range,
                                                           on_error};
    char why[256] = "";
    base += PARTITIONS;
    CHECK(base < CASES_MAX * PARTITIONS);
    if (loop == NULL) {
        topic = kafka_mock_topic("replies", CASES_MAX * PARTITIONS);
    }
    const struct sl_kafka_config config = {kafka_mock_brokers(), "test", quick};
    const struct sl_kafka_config producing = {kafka_mock_brokers(), "test", NULL};
    for (int i = 0; i < PARTITIONS; i++) {
        seen[i].last = seen[i].end = -1;
        seen[i].count = seen[i].ends = 0;
    }
    missed.count = kafka_reports = errors = 0;
    reaction.at = -1;
    reaction.go_back_to = -1;
    reaction.remove = false;
    if (loop == NULL) { /* One of each for all cases: their ends can take a second. */
        CHECK_INT(sl_loop_create(&loop), 0);
        CHECK_INT(
            sl_producer_create(loop, &producing, kafka_on_fatal, NULL, &producer, why, sizeof(why)),
            0);
        CHECK_INT(sl_follower_create(loop, &config, &callbacks, NULL, &follower, why, sizeof(why)),
                  0);
    }
}

static void tear_down(void)
{
    for (int i = 0; i < PARTITIONS; i++) {
        sl_follower_remove(follower, topic, base + i);
    }
}

static void put(int32_t partition, int count)
{
    int wanted = kafka_reports + count;
    const struct sl_outgoing outgoing = {
        .topic = topic, .partition = base + partition, .value = SL_SPAN("{}")};
    for (int i = 0; i < count; i++) {
        CHECK_INT(sl_producer_send(producer, &outgoing, kafka_on_report, NULL), 0);
    }
    SOON(loop, kafka_reports == wanted);
}

static void add(int32_t partition, int64_t offset)
{
    CHECK_INT(sl_follower_add(follower, topic, base + partition, offset), 0);
}

TEST(each_partition_is_read_from_its_offset)
{
    set_up();
    for (int i = 0; i < PARTITIONS; i++) {
        put(i, RECORDS);
        add(i, i * 10);
        CHECK_INT(sl_follower_position(follower, topic, base + i), i * 10);
    }
    for (int i = 0; i < PARTITIONS; i++) {
        SOON(loop, seen[i].ends == 1);
        CHECK(seen[i].count == RECORDS - i * 10 && seen[i].end == RECORDS);
    }
    put(2, 3);
    SOON(loop, seen[2].count == RECORDS - 20 + 3 && seen[2].ends == 2);
    CHECK(seen[2].end == RECORDS + 3 && errors == 0);
    tear_down();
}

TEST(the_end_of_the_log_is_a_place_to_begin)
{
    set_up();
    put(1, 5);
    add(0, 0);
    add(1, 5);
    SOON(loop, seen[0].ends == 1 && seen[1].ends == 1);
    CHECK(seen[0].end == 0 && seen[1].end == 5);
    put(1, 1);
    SOON(loop, seen[1].last == 5);
    tear_down();
}

TEST(going_back_gives_records_again)
{
    set_up();
    put(1, RECORDS);
    add(1, 30);
    SOON(loop, seen[1].ends == 1);
    CHECK_INT(seen[1].count, RECORDS - 30);
    add(1, 20);
    CHECK_INT(sl_follower_position(follower, topic, base + 1), 20);
    seen[1].last = 19;
    SOON(loop, seen[1].ends == 2);
    CHECK_INT(seen[1].count, RECORDS - 30 + RECORDS - 20);
    add(1, RECORDS);
    put(1, 1);
    SOON(loop, seen[1].last == RECORDS);
    tear_down();
}

static void restart_at_25(void)
{
    seen[1].last = 24;
    seen[1].count = 0;
    add(1, 25);
}

TEST(an_offset_ahead_of_the_position_changes_nothing)
{
    set_up();
    put(1, RECORDS);
    add(1, 10);
    add(1, 30);
    CHECK_INT(sl_follower_position(follower, topic, base + 1), 10);
    SOON(loop, seen[1].ends == 1);
    CHECK_INT(seen[1].count, RECORDS - 10);
    tear_down();
}

TEST(a_partition_that_was_removed_is_silent_until_it_is_added_again)
{
    set_up();
    put(1, RECORDS);
    put(2, 1);
    add(1, 0);
    add(2, 0);
    SOON(loop, seen[1].ends == 1);
    sl_follower_remove(follower, topic, base + 1);
    sl_follower_remove(follower, topic, base + 1);
    CHECK_INT(sl_follower_position(follower, topic, base + 1), -1);
    put(1, 5);
    put(2, 1);
    SOON(loop, seen[2].count == 2);
    MEANWHILE(loop, 30);
    CHECK_INT(seen[1].count, RECORDS);
    restart_at_25();
    SOON(loop, seen[1].ends == 2);
    CHECK_INT(seen[1].count, RECORDS + 5 - 25);
    tear_down();
}

TEST(removing_a_partition_drops_its_records_that_are_queued)
{
    set_up();
    put(1, RECORDS);
    reaction.at = 7;
    reaction.remove = true;
    add(1, 0);
    SOON(loop, reaction.at == -1);
    MEANWHILE(loop, 50);
    CHECK(seen[1].count == 8 && seen[1].ends == 0);
    restart_at_25();
    SOON(loop, seen[1].ends == 1);
    CHECK_INT(seen[1].count, RECORDS - 25);
    tear_down();
}

TEST(after_going_back_in_the_midst_of_reading_the_record_asked_for_is_next)
{
    set_up();
    put(1, RECORDS);
    reaction.at = 20;
    reaction.go_back_to = 3;
    add(1, 0);
    SOON(loop, seen[1].ends == 1);
    CHECK_INT(seen[1].count, 21 + RECORDS - 3);
    tear_down();
}

TEST(a_partition_may_be_left_and_joined_again_in_one_turn)
{
    set_up();
    put(1, RECORDS);
    reaction.at = 5;
    reaction.remove = true;
    reaction.go_back_to = 30;
    add(1, 0);
    SOON(loop, seen[1].ends == 1);
    CHECK_INT(seen[1].count, 6 + RECORDS - 30);
    for (int i = 0; i < 200; i++) {
        sl_follower_remove(follower, topic, base + 1);
        add(1, 10);
    }
    seen[1].last = 9;
    seen[1].count = 0;
    SOON(loop, seen[1].count == RECORDS - 10);
    tear_down();
}

TEST(an_offset_that_never_was_is_told_and_not_followed)
{
    set_up();
    put(1, RECORDS);
    add(0, 0);
    add(1, RECORDS + 1);
    SOON(loop, missed.count == 1);
    CHECK(missed.partition == 1 && missed.offset == RECORDS + 1 && missed.low == 0);
    put(0, 1);
    SOON(loop, seen[0].count == 1);
    CHECK_INT(seen[1].count, 0);
    seen[1].last = 37;
    add(1, 38);
    SOON(loop, seen[1].ends == 1);
    CHECK(seen[1].count == 2 && missed.count == 1);
    tear_down();
}

/* At any moment of the looking: the log's bounds are asked for when the broker has refused. */
TEST(going_back_while_an_offset_is_looked_for_reads_from_there)
{
    set_up();
    put(1, RECORDS);
    for (int turns = 0; turns < 24; turns++) {
        int missed_before = missed.count;
        seen[1].last = 4;
        seen[1].count = 0;
        add(1, RECORDS + 5);
        for (int i = 0; i < turns; i++) {
            sl_loop_turn(loop, 1);
        }
        if (sl_follower_position(follower, topic, base + 1) < 0) {
            CHECK_INT(missed.count, missed_before + 1);
            continue;
        }
        add(1, 5);
        SOON(loop, seen[1].count == RECORDS - 5);
        CHECK_INT(missed.count, missed_before);
        sl_follower_remove(follower, topic, base + 1);
    }
    tear_down();
}

TEST(reading_goes_on_when_the_broker_is_back)
{
    set_up();
    put(1, 5);
    add(1, 0);
    SOON(loop, seen[1].ends == 1);
    kafka_mock_set_up(false);
    add(2, 0);
    MEANWHILE(loop, 50);
    kafka_mock_set_up(true);
    put(1, 5);
    put(2, 5);
    SOON(loop, seen[1].count == 10 && seen[2].count == 5);
    tear_down();
}

TEST(a_follower_of_nothing_costs_nothing)
{
    char why[256] = "";
    struct sl_follower *idle;
    const struct sl_kafka_config config = {"none.invalid:1", "test", NULL};
    const struct sl_follower_callbacks callbacks = {on_record, on_end, on_out_of_range, on_error};
    set_up();
    CHECK_INT(sl_follower_create(loop, &config, &callbacks, NULL, &idle, why, sizeof(why)), 0);
    sl_follower_remove(idle, topic, base + 0);
    CHECK_INT(sl_follower_position(idle, topic, base + 0), -1);
    MEANWHILE(loop, 50);
    CHECK_INT(errors, 0); /* It looked for no broker. */
    sl_follower_destroy(idle);
    tear_down();
}

int main(int argc, char **argv)
{
    const struct test_case cases[] = {
        {"each_partition_is_read_from_its_offset", each_partition_is_read_from_its_offset},
        {"the_end_of_the_log_is_a_place_to_begin", the_end_of_the_log_is_a_place_to_begin},
        {"going_back_gives_records_again", going_back_gives_records_again},
        {"an_offset_ahead_of_the_position_changes_nothing",
         an_offset_ahead_of_the_position_changes_nothing},
        {"a_partition_that_was_removed_is_silent_until_it_is_added_again",
         a_partition_that_was_removed_is_silent_until_it_is_added_again},
        {"removing_a_partition_drops_its_records_that_are_queued",
         removing_a_partition_drops_its_records_that_are_queued},
        {"after_going_back_in_the_midst_of_reading_the_record_asked_for_is_next",
         after_going_back_in_the_midst_of_reading_the_record_asked_for_is_next},
        {"a_partition_may_be_left_and_joined_again_in_one_turn",
         a_partition_may_be_left_and_joined_again_in_one_turn},
        {"an_offset_that_never_was_is_told_and_not_followed",
         an_offset_that_never_was_is_told_and_not_followed},
        {"going_back_while_an_offset_is_looked_for_reads_from_there",
         going_back_while_an_offset_is_looked_for_reads_from_there},
        {"reading_goes_on_when_the_broker_is_back", reading_goes_on_when_the_broker_is_back},
        {"a_follower_of_nothing_costs_nothing", a_follower_of_nothing_costs_nothing},
        {NULL, NULL},
    };
    int code = run_tests(cases, argc, argv);
    if (loop != NULL) {
        sl_follower_destroy(follower);
        sl_producer_destroy(producer, 1000);
        sl_loop_destroy(loop);
    }
    return code;
}
