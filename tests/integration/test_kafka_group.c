/*
 * Members of a group on a real broker: no record is lost or given twice without a reason, however
 * jobs end and whoever joins or leaves; only what is finished is committed.
 */
#include "common/kafka.h"
#include "tests/support/kafka_fixture.h"
#include "tests/support/kafka_reports.h"
#include "tests/support/soon.h"

enum { PARTITIONS = 4, OFFSETS = 70000, TOPICS = 2, ASK_MS = 30000 };

/* A group member: ends what it gets at once, or holds it. */
struct member {
    struct sl_consumer *consumer;
    size_t room[TOPICS];
    bool holds; /* Everything; else only offset holds_offset of each partition. */
    int64_t holds_offset;
    struct sl_position held[1000];
    size_t held_count;
    int64_t first_offset; /* Of the first record that it was given. */
    unsigned records[TOPICS];
    unsigned assigned, revoked; /* Partitions, in all. */
    bool left;
};

static struct sl_loop *loop;
static struct sl_producer *producer;
static struct sl_metrics *metrics;
static struct sl_consumer_topic topics[TOPICS];
static char group[64];
/* How often each record was given, and ended under an epoch that lasted. */
static unsigned char given[PARTITIONS][OFFSETS], ended[PARTITIONS][OFFSETS];
static unsigned ended_count;

static size_t room(void *ctx, uint32_t class)
{
    return ((struct member *)ctx)->room[class];
}

static void end(struct member *member, const struct sl_position *position)
{
    if (sl_consumer_owns(member->consumer, position) && position->topic == 0) {
        ended_count += ended[position->partition][position->offset] == 0;
        ended[position->partition][position->offset]++;
    }
    sl_consumer_end(member->consumer, position);
}

static void on_record(void *ctx, const struct sl_record *record, const struct sl_position *position)
{
    struct member *member = ctx;
    CHECK(member->room[position->topic] > 0 && record->offset == position->offset);
    CHECK_STR(record->topic, topics[position->topic].name);
    CHECK(sl_consumer_owns(member->consumer, position));
    member->room[position->topic]--;
    member->first_offset = member->first_offset < 0 ? record->offset : member->first_offset;
    member->records[position->topic]++;
    if (position->topic == 0) {
        given[record->partition][record->offset]++;
    }
    if (member->holds || record->offset == member->holds_offset) {
        CHECK(member->held_count < sizeof(member->held) / sizeof(member->held[0]));
        member->held[member->held_count++] = *position;
    } else {
        end(member, position);
    }
}

static void on_partition(void *ctx, uint32_t topic, int32_t partition, bool assigned)
{
    struct member *member = ctx;
    CHECK(topic < TOPICS && partition < PARTITIONS);
    member->assigned += assigned;
    member->revoked += !assigned;
}

static void on_error(void *ctx, bool fatal, const char *why)
{
    (void)ctx;
    fprintf(stderr, "consumer: %s\n", why);
    CHECK(!fatal);
}

static void on_left(void *ctx)
{
    struct member *member = ctx;
    member->left = true;
    sl_consumer_destroy(member->consumer);
    member->consumer = NULL;
}

static void join(struct member *member, size_t topic_count, const char *const *extra)
{
    char why[256] = "";
    const struct sl_consumer_config config = {
        .kafka = {kafka_fixture_brokers(), "test", extra},
        .group = group,
        .topics = topics,
        .topic_count = topic_count,
        .metrics = metrics,
        .room = room,
        .on_record = on_record,
        .on_partition = on_partition,
        .on_error = on_error,
        .ctx = member,
    };
    *member = (struct member){.room = {100000, 100000}, .holds_offset = -1, .first_offset = -1};
    CHECK_INT(sl_consumer_create(loop, &config, &member->consumer, why, sizeof(why)), 0);
}

static void leave(struct member *member)
{
    sl_consumer_leave(member->consumer, on_left, member);
    SOON(loop, member->left);
}

static void end_held(struct member *member)
{
    for (size_t i = 0; i < member->held_count; i++) {
        end(member, &member->held[i]);
    }
    member->held_count = 0;
}

/* Puts count records on the topic, round the partitions, and waits for the broker to have them. */
static void put(const char *topic, unsigned count, int32_t partitions)
{
    int wanted = kafka_reports + (int)count;
    for (unsigned i = 0; i < count; i++) {
        struct sl_outgoing outgoing = {
            .topic = topic,
            .partition = (int32_t)i % partitions,
            .value = SL_SPAN("{}"),
        };
        int rc;
        while ((rc = sl_producer_send(producer, &outgoing, kafka_on_report, NULL)) == -SL_EAGAIN) {
            sl_loop_turn(loop, 10);
        }
        CHECK_INT(rc, 0);
    }
    SOON(loop, kafka_reports == wanted);
}

static int64_t group_lag(void)
{
    const struct sl_kafka_config config = {kafka_fixture_brokers(), "test", NULL};
    return sl_kafka_group_lag(&config, group, topics[0].name, ASK_MS);
}

static double lag_gauge(size_t topic)
{
    char labels[128];
    snprintf(labels, sizeof(labels), "topic=\"%s\"", topics[topic].name);
    return sl_gauge_value(sl_metrics_gauge(metrics, "sluice_consumer_lag",
                                           "Records not finished, of the assigned partitions",
                                           labels));
}

static void set_up(int32_t partitions)
{
    char why[256] = "";
    const struct sl_kafka_config config = {kafka_fixture_brokers(), "test", NULL};
    memset(given, 0, sizeof(given));
    memset(ended, 0, sizeof(ended));
    kafka_reports = 0;
    ended_count = 0;
    topics[0] = (struct sl_consumer_topic){kafka_fixture_topic("queries", partitions), 0, 1024};
    topics[1] = (struct sl_consumer_topic){kafka_fixture_topic("chunks", 1), 1, 1024};
    snprintf(group, sizeof(group), "group.%s", topics[0].name);
    CHECK_INT(sl_loop_create(&loop), 0);
    CHECK_INT(sl_metrics_create(100, &metrics), 0);
    CHECK_INT(sl_producer_create(loop, &config, kafka_on_fatal, NULL, &producer, why, sizeof(why)),
              0);
}

static void tear_down(void)
{
    sl_producer_destroy(producer, 5000);
    sl_loop_destroy(loop);
    sl_metrics_destroy(metrics);
}

TEST(two_members_share_the_records_and_each_comes_once)
{
    static struct member a, b;
    set_up(PARTITIONS);
    join(&a, 1, NULL);
    join(&b, 1, NULL);
    SOON(loop, sl_consumer_assigned(a.consumer) == 2 && sl_consumer_assigned(b.consumer) == 2);
    put(topics[0].name, 2000, PARTITIONS);
    SOON(loop, ended_count == 2000);
    CHECK(a.records[0] == 1000 && b.records[0] == 1000);
    for (int partition = 0; partition < PARTITIONS; partition++) {
        for (int offset = 0; offset < 500; offset++) {
            CHECK_INT(given[partition][offset], 1);
        }
    }
    leave(&a);
    leave(&b);
    CHECK_INT(group_lag(), 0);
    tear_down();
}

TEST(only_the_finished_prefix_is_committed)
{
    static struct member first, second;
    set_up(1);
    put(topics[0].name, 10, 1);
    join(&first, 1, NULL);
    first.holds_offset = 3;
    SOON(loop, first.records[0] == 10);
    SOON(loop, lag_gauge(0) == 7);
    SOON(loop, group_lag() == 7); /* Committed while it runs, not only at its end. */
    leave(&first);
    CHECK_INT(group_lag(), 7);
    join(&second, 1, NULL);
    SOON(loop, second.records[0] == 7);
    CHECK_INT(second.first_offset, 3);
    SOON(loop, lag_gauge(0) == 0);
    leave(&second);
    CHECK_INT(group_lag(), 0);
    tear_down();
}

TEST(a_member_that_joins_while_records_are_in_flight_loses_none)
{
    static struct member a, b;
    set_up(PARTITIONS);
    put(topics[0].name, 200, PARTITIONS);
    join(&a, 1, NULL);
    a.holds_offset = 10; /* Of each partition; the 39 records after it end. */
    SOON(loop, a.records[0] == 200);
    CHECK_INT(a.held_count, PARTITIONS);
    join(&b, 1, NULL);
    b.holds = true;
    SOON(loop, sl_consumer_assigned(a.consumer) == 2 && sl_consumer_assigned(b.consumer) == 2);
    for (size_t i = 0; i < PARTITIONS; i++) {
        CHECK(!sl_consumer_owns(a.consumer, &a.held[i]));
    }
    SOON(loop, a.held_count == PARTITIONS + 2 && b.records[0] == 80);
    int64_t lag = group_lag();
    CHECK_INT(lag, 4 * 40); /* Ten of each partition were finished when it began. */
    end_held(&a);           /* The four old ones change nothing; its two partitions finish. */
    SOON(loop, group_lag() == 2 * 40);
    end_held(&b);
    SOON(loop, group_lag() == 0);
    CHECK_INT(ended_count, 200);
    leave(&a);
    leave(&b);
    CHECK_INT(group_lag(), 0);
    tear_down();
}

TEST(an_old_owner_never_takes_a_position_back)
{
    static struct member a, b;
    int64_t lag = INT64_MAX;
    set_up(PARTITIONS);
    put(topics[0].name, 400, PARTITIONS);
    join(&a, 1, NULL);
    a.holds = true;
    SOON(loop, a.records[0] == 400);
    join(&b, 1, NULL); /* Ends all that it gets. */
    a.holds = false;
    SOON(loop, b.records[0] == 200 && ended_count == 400);
    SOON(loop, (lag = group_lag()) == 0);
    end_held(&a);
    MEANWHILE(loop, 1500); /* Longer than the commit interval. */
    CHECK_INT(group_lag(), 0);
    leave(&a);
    CHECK_INT(group_lag(), 0);
    leave(&b);
    tear_down();
}

TEST(an_idle_member_keeps_its_partitions)
{
    static struct member a;
    static const char *const extra[] = {"session.timeout.ms", "6000", "max.poll.interval.ms",
                                        "6000", NULL};
    set_up(1);
    join(&a, 1, extra);
    a.room[0] = 0;
    SOON(loop, sl_consumer_assigned(a.consumer) == 1);
    put(topics[0].name, 5, 1);
    MEANWHILE(loop, 8000);
    CHECK(a.assigned == 1 && a.revoked == 0 && a.records[0] == 0);
    SOON(loop, lag_gauge(0) == 5); /* They wait, and it shows. */
    a.room[0] = 1;
    sl_consumer_kick(a.consumer);
    SOON(loop, a.records[0] == 1);
    MEANWHILE(loop, 50);
    CHECK_INT(a.records[0], 1);
    a.room[0] = 10;
    sl_consumer_kick(a.consumer);
    SOON(loop, a.records[0] == 5);
    CHECK(a.assigned == 1 && a.revoked == 0);
    leave(&a);
    tear_down();
}

TEST(a_member_that_leaves_hands_over_at_once)
{
    static struct member a, b;
    static const char *const extra[] = {"session.timeout.ms", "60000", NULL};
    set_up(2);
    put(topics[0].name, 20, 2);
    join(&a, 1, extra);
    a.holds = true;
    SOON(loop, a.records[0] == 20);
    join(&b, 1, extra);
    SOON(loop, b.records[0] == 10);
    SOON(loop, a.records[0] == 30); /* It was given its ten again by the rebalance. */
    leave(&a);
    SOON(loop, b.records[0] == 20); /* Sooner than the group would miss a dead member. */
    leave(&b);
    CHECK_INT(group_lag(), 0);
    tear_down();
}

TEST(bulk_records_without_room_hold_up_no_query)
{
    static struct member a;
    set_up(1);
    put(topics[1].name, 3000, 1);
    join(&a, 2, NULL);
    a.room[1] = 0;
    SOON(loop, sl_consumer_assigned(a.consumer) == 2);
    put(topics[0].name, 100, 1);
    SOON(loop, a.records[0] == 100);
    CHECK_INT(a.records[1], 0);
    a.room[1] = 3000;
    sl_consumer_kick(a.consumer);
    SOON(loop, a.records[1] == 3000);
    SOON(loop, lag_gauge(0) == 0 && lag_gauge(1) == 0);
    leave(&a);
    tear_down();
}

TEST(a_full_window_waits_for_its_oldest_record)
{
    static struct member a;
    char labels[128];
    set_up(1);
    put(topics[0].name, 65540, 1);
    join(&a, 1, NULL);
    a.holds_offset = 0;
    SOON(loop, a.records[0] == 65536);
    MEANWHILE(loop, 1200); /* A tick, too. */
    CHECK_INT(a.records[0], 65536);
    snprintf(labels, sizeof(labels), "topic=\"%s\"", topics[0].name);
    CHECK_INT(sl_counter_value(
                  sl_metrics_counter(metrics, "sluice_window_full_total",
                                     "How often a partition waited for its oldest record", labels)),
              1);
    end_held(&a);
    sl_consumer_kick(a.consumer);
    SOON(loop, a.records[0] == 65540);
    leave(&a);
    CHECK_INT(group_lag(), 0);
    tear_down();
}

int main(int argc, char **argv)
{
    const struct test_case cases[] = {
        {"two_members_share_the_records_and_each_comes_once",
         two_members_share_the_records_and_each_comes_once},
        {"only_the_finished_prefix_is_committed", only_the_finished_prefix_is_committed},
        {"a_member_that_joins_while_records_are_in_flight_loses_none",
         a_member_that_joins_while_records_are_in_flight_loses_none},
        {"an_old_owner_never_takes_a_position_back", an_old_owner_never_takes_a_position_back},
        {"an_idle_member_keeps_its_partitions", an_idle_member_keeps_its_partitions},
        {"a_member_that_leaves_hands_over_at_once", a_member_that_leaves_hands_over_at_once},
        {"bulk_records_without_room_hold_up_no_query", bulk_records_without_room_hold_up_no_query},
        {"a_full_window_waits_for_its_oldest_record", a_full_window_waits_for_its_oldest_record},
        {NULL, NULL},
    };
    return run_tests(cases, argc, argv);
}
