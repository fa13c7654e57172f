/* A group consumer that never reached a broker can still leave and be destroyed, in bounded time.
 */
#include "common/kafka.h"
#include "tests/support/soon.h"

static struct sl_loop *loop;
static struct sl_consumer *consumer;
static bool left;

static size_t room(void *ctx, uint32_t class)
{
    (void)ctx;
    (void)class;
    return 1;
}

static void on_record(void *ctx, const struct sl_record *record, const struct sl_position *position)
{
    (void)ctx;
    (void)record;
    (void)position;
    CHECK(false);
}

static void on_error(void *ctx, bool fatal, const char *why)
{
    (void)ctx;
    CHECK(!fatal && why != NULL);
}

static void on_left(void *ctx)
{
    (void)ctx;
    left = true;
    sl_consumer_destroy(consumer);
}

static void set_up(void)
{
    char why[256] = "";
    const struct sl_consumer_topic topics[] = {{"queries", 0, 1024}, {"chunks", 1, 20480}};
    const char *const extra[] = {"log_level", "0", NULL};
    const struct sl_consumer_config config = {
        .kafka = {"127.0.0.1:1", "test", extra},
        .group = "group",
        .topics = topics,
        .topic_count = 2,
        .room = room,
        .on_record = on_record,
        .on_error = on_error,
    };
    left = false;
    CHECK_INT(sl_loop_create(&loop), 0);
    CHECK_INT(sl_consumer_create(loop, &config, &consumer, why, sizeof(why)), 0);
    CHECK_INT(sl_consumer_assigned(consumer), 0);
    MEANWHILE(loop, 100);
}

TEST(leaving_without_a_broker_comes_to_an_end)
{
    set_up();
    sl_consumer_leave(consumer, on_left, NULL);
    CHECK(!left); /* Never inside the call. */
    SOON(loop, left);
    sl_loop_destroy(loop);
}

TEST(a_consumer_can_be_dropped_without_leaving)
{
    set_up();
    sl_consumer_kick(consumer);
    sl_consumer_destroy(consumer);
    sl_loop_destroy(loop);
}

TEST(a_wrong_property_is_named)
{
    char why[256] = "";
    const char *const extra[] = {"session.timeout.ms", "soon", NULL};
    const struct sl_consumer_topic topic = {"queries", 0, 1024};
    const struct sl_consumer_config config = {
        .kafka = {"127.0.0.1:1", "test", extra},
        .group = "group",
        .topics = &topic,
        .topic_count = 1,
        .room = room,
        .on_record = on_record,
        .on_error = on_error,
    };
    CHECK_INT(sl_loop_create(&loop), 0);
    CHECK_INT(sl_consumer_create(loop, &config, &consumer, why, sizeof(why)), -SL_EINVAL);
    CHECK(strstr(why, "session.timeout.ms") != NULL);
    sl_loop_destroy(loop);
}

int main(int argc, char **argv)
{
    const struct test_case cases[] = {
        {"leaving_without_a_broker_comes_to_an_end", leaving_without_a_broker_comes_to_an_end},
        {"a_consumer_can_be_dropped_without_leaving", a_consumer_can_be_dropped_without_leaving},
        {"a_wrong_property_is_named", a_wrong_property_is_named},
        {NULL, NULL},
    };
    return run_tests(cases, argc, argv);
}
