/*
 * What is assigned, without a group: records are given only where there is room, each partition
 * gets its turn, what is stored is the finished prefix, and an epoch that is over no longer counts.
 */
#include "common/kafka_assignment.h"
#include "tests/support/kafka_mock.h"
#include "tests/support/kafka_reports.h"
#include "tests/support/soon.h"

enum { PARTITIONS = 3, RECORDS = 100, BUDGET = 256 };

static struct sl_loop *loop;
static struct sl_kafka_client *client;
static struct sl_kafka_assignment assignment;
static size_t rooms[2];
static struct sl_position given[1000];
static size_t given_count;
static int errors;

static size_t room(void *ctx, uint32_t class)
{
    (void)ctx;
    return rooms[class];
}

static void on_record(void *ctx, const struct sl_record *record, const struct sl_position *position)
{
    (void)ctx;
    CHECK(given_count < sizeof(given) / sizeof(given[0]) && record->offset == position->offset);
    given[given_count++] = *position;
    rooms[position->topic]--;
}

static void on_error(void *ctx, bool fatal, const char *why)
{
    (void)ctx;
    (void)fatal;
    fprintf(stderr, "consumer: %s\n", why);
    errors++;
}

static struct sl_consumer_topic topics[2];
static const struct sl_consumer_config config = {
    .topics = topics,
    .topic_count = 2,
    .room = room,
    .on_record = on_record,
    .on_error = on_error,
};

static void put_all(void)
{
    char why[256] = "";
    struct sl_producer *producer = NULL;
    const struct sl_kafka_config kafka = {kafka_mock_brokers(), "test", NULL};
    CHECK_INT(sl_producer_create(loop, &kafka, NULL, NULL, &producer, why, sizeof(why)), 0);
    kafka_reports = 0;
    for (int i = 0; i < RECORDS * PARTITIONS; i++) {
        struct sl_outgoing outgoing = {
            .topic = topics[0].name, .partition = i % PARTITIONS, .value = SL_SPAN("{}")};
        CHECK_INT(sl_producer_send(producer, &outgoing, kafka_on_report, NULL), 0);
        outgoing.topic = topics[1].name;
        CHECK_INT(sl_producer_send(producer, &outgoing, kafka_on_report, NULL), 0);
    }
    SOON(loop, kafka_reports == 2 * RECORDS * PARTITIONS);
    sl_producer_destroy(producer, 1000);
}

static void assign_all(void)
{
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(2 * PARTITIONS);
    for (int32_t i = 0; i < PARTITIONS; i++) {
        for (size_t topic = 0; topic < 2; topic++) {
            CHECK_INT(sl_kafka_assignment_add(&assignment, topics[topic].name, i), 0);
            rd_kafka_topic_partition_list_add(list, topics[topic].name, i)->offset = 0;
        }
    }
    CHECK(rd_kafka_assign(client->rk, list) == RD_KAFKA_RESP_ERR_NO_ERROR);
    rd_kafka_topic_partition_list_destroy(list);
}

static void on_wake(void *ctx, int events)
{
    (void)ctx;
    (void)events;
    sl_kafka_wake_clear(client);
    sl_kafka_assignment_look(&assignment, false);
}

static void set_up(void)
{
    char why[256] = "";
    const char *const properties[] = {"group.id",
                                      "test",
                                      "fetch.wait.max.ms",
                                      "5",
                                      "enable.auto.offset.store",
                                      "false",
                                      "enable.auto.commit",
                                      "false",
                                      NULL};
    topics[0] = (struct sl_consumer_topic){kafka_mock_topic("queries", PARTITIONS), 0, 1024};
    topics[1] = (struct sl_consumer_topic){kafka_mock_topic("chunks", PARTITIONS), 1, 1024};
    rooms[0] = rooms[1] = given_count = 0;
    errors = 0;
    CHECK_INT(sl_loop_create(&loop), 0);
    put_all();
    const struct sl_kafka_config kafka = {kafka_mock_brokers(), "test", NULL};
    CHECK_INT(
        sl_kafka_client_create(RD_KAFKA_CONSUMER, &kafka, properties, 0, &client, why, sizeof(why)),
        0);
    CHECK_INT(sl_kafka_client_watch(client, loop, on_wake, NULL), 0);
    CHECK_INT(sl_kafka_assignment_init(&assignment, client, &config), 0);
    assign_all();
}

static void tear_down(void)
{
    sl_kafka_assignment_clear(&assignment);
    sl_kafka_assignment_fini(&assignment);
    sl_kafka_client_destroy(client, RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE);
    sl_loop_destroy(loop);
}

static bool fetched(const struct sl_kafka_partition *partition)
{
    return rd_kafka_queue_length(partition->queue) >= RECORDS;
}

/* All that was put has come into the partitions' queues. */
static void await_fetch(void)
{
    for (size_t topic = 0; topic < 2; topic++) {
        for (size_t i = 0; i < PARTITIONS; i++) {
            SOON(loop, fetched(assignment.topics[topic].slots[i]));
        }
    }
    sl_kafka_assignment_look(&assignment, true);
}

/* How many have been given in all. */
static size_t read_all(void)
{
    sl_kafka_assignment_look(&assignment, true);
    sl_kafka_assignment_read(&assignment, 1000);
    return given_count;
}

static size_t count_of(uint32_t topic, int32_t partition)
{
    size_t count = 0;
    for (size_t i = 0; i < given_count; i++) {
        count += given[i].topic == topic && given[i].partition == partition;
    }
    return count;
}

TEST(records_are_given_only_where_there_is_room)
{
    set_up();
    await_fetch();
    CHECK(!sl_kafka_assignment_read(&assignment, BUDGET));
    CHECK_INT(given_count, 0);
    rooms[0] = 7;
    CHECK(!sl_kafka_assignment_read(&assignment, BUDGET));
    CHECK_INT(given_count, 7);
    for (size_t i = 0; i < 7; i++) {
        CHECK_INT(given[i].topic, 0);
    }
    rooms[1] = 1000;
    CHECK(!sl_kafka_assignment_read(&assignment, 1000));
    CHECK_INT(given_count, 7 + RECORDS * PARTITIONS);
    CHECK_INT(rooms[0], 0);
    CHECK_INT(errors, 0);
    tear_down();
}

TEST(a_turn_is_bounded_and_each_partition_gets_its_part)
{
    set_up();
    await_fetch();
    rooms[0] = rooms[1] = 1000;
    CHECK(sl_kafka_assignment_read(&assignment, 96));
    CHECK_INT(given_count, 96);
    for (uint32_t topic = 0; topic < 2; topic++) {
        for (int32_t partition = 0; partition < PARTITIONS; partition++) {
            CHECK_INT(count_of(topic, partition), 16);
        }
    }
    for (size_t i = 0; i < given_count; i++) { /* In order within a partition. */
        struct sl_position *position = &given[i];
        CHECK(i == 0 || given[i - 1].partition != position->partition ||
              given[i - 1].topic != position->topic || given[i - 1].offset == position->offset - 1);
    }
    tear_down();
}

TEST(ends_out_of_order_move_the_base_to_the_oldest_unfinished)
{
    set_up();
    await_fetch();
    rooms[0] = 1000;
    CHECK(!sl_kafka_assignment_read(&assignment, 1000));
    struct sl_position position = {0, 1, 0, assignment.topics[0].slots[1]->epoch};
    struct sl_window *window = &assignment.topics[0].slots[1]->window;
    for (int64_t offset = RECORDS - 1; offset >= 0; offset--) {
        position.offset = offset;
        if (offset != 40 && offset != 0) {
            CHECK(!sl_kafka_assignment_end(&assignment, &position));
        }
    }
    position.offset = 0;
    CHECK(sl_kafka_assignment_end(&assignment, &position));
    CHECK_INT(window->base, 40);
    struct sl_kafka_load load = sl_kafka_assignment_load(&assignment, 0);
    CHECK_INT(load.lag, 60 + 2 * RECORDS);
    CHECK_INT(load.in_flight, 1 + 2 * RECORDS);
    position.offset = 40;
    CHECK(sl_kafka_assignment_end(&assignment, &position));
    CHECK_INT(window->base, RECORDS);
    sl_kafka_assignment_store(&assignment);
    CHECK_INT(errors, 0);
    tear_down();
}

TEST(an_end_of_an_epoch_that_is_over_is_ignored)
{
    set_up();
    await_fetch();
    rooms[0] = 1;
    CHECK(!sl_kafka_assignment_read(&assignment, BUDGET));
    CHECK_INT(given_count, 1);
    struct sl_position position = given[0];
    CHECK(sl_kafka_assignment_find(&assignment, &position) != NULL);
    CHECK(rd_kafka_assign(client->rk, NULL) == RD_KAFKA_RESP_ERR_NO_ERROR);
    sl_kafka_assignment_clear(&assignment);
    CHECK(!sl_kafka_assignment_end(&assignment, &position));
    assign_all();
    CHECK(sl_kafka_assignment_find(&assignment, &position) == NULL);
    rooms[0] = 1000;
    SOON(loop, read_all() == 1 + RECORDS * PARTITIONS); /* From the start, under the new epoch. */
    CHECK(!sl_kafka_assignment_end(&assignment, &position));
    tear_down();
}

TEST(a_log_that_starts_over_starts_a_new_epoch)
{
    set_up();
    await_fetch();
    rooms[0] = 1000;
    CHECK(!sl_kafka_assignment_read(&assignment, 1000));
    struct sl_position old = {0, 0, 0, assignment.topics[0].slots[0]->epoch};
    rd_kafka_topic_t *rkt = rd_kafka_topic_new(client->rk, topics[0].name, NULL);
    CHECK(rd_kafka_seek(rkt, 0, 0, 5000) == RD_KAFKA_RESP_ERR_NO_ERROR);
    rd_kafka_topic_destroy(rkt);
    SOON(loop, read_all() == RECORDS * (PARTITIONS + 1));
    CHECK_INT(count_of(0, 0), 2 * RECORDS);
    CHECK(sl_kafka_assignment_find(&assignment, &old) == NULL);
    CHECK(!sl_kafka_assignment_end(&assignment, &old));
    CHECK_INT(assignment.topics[0].slots[0]->window.base, 0);
    tear_down();
}

TEST(the_lag_is_known_before_there_is_room)
{
    set_up();
    CHECK_INT(sl_kafka_assignment_load(&assignment, 1).lag, 0);
    await_fetch();
    CHECK_INT(sl_kafka_assignment_load(&assignment, 1).lag, RECORDS * PARTITIONS);
    CHECK_INT(sl_kafka_assignment_load(&assignment, 1).in_flight, 0);
    rooms[1] = 1000;
    CHECK(!sl_kafka_assignment_read(&assignment, 1000));
    CHECK_INT(given_count, RECORDS * PARTITIONS);
    CHECK_INT(given[0].offset, 0);
    tear_down();
}

int main(int argc, char **argv)
{
    const struct test_case cases[] = {
        {"records_are_given_only_where_there_is_room", records_are_given_only_where_there_is_room},
        {"a_turn_is_bounded_and_each_partition_gets_its_part",
         a_turn_is_bounded_and_each_partition_gets_its_part},
        {"ends_out_of_order_move_the_base_to_the_oldest_unfinished",
         ends_out_of_order_move_the_base_to_the_oldest_unfinished},
        {"an_end_of_an_epoch_that_is_over_is_ignored", an_end_of_an_epoch_that_is_over_is_ignored},
        {"a_log_that_starts_over_starts_a_new_epoch", a_log_that_starts_over_starts_a_new_epoch},
        {"the_lag_is_known_before_there_is_room", the_lag_is_known_before_there_is_room},
        {NULL, NULL},
    };
    return run_tests(cases, argc, argv);
}
