/* When too much waits behind a stage; the lags are the test's. */
#include "common/backlog.h"
#include "common/kafka_lag.h"
#include "tests/support/test.h"

#include <stdatomic.h>
#include <stdlib.h>

static _Atomic int64_t waiting; /* On each topic; or an error. */
static atomic_int looks;
static int opened, closed, rooms;

struct sl_kafka_lag {
    char group[16];
};

int sl_kafka_lag_open(const struct sl_kafka_config *config, const char *group, const char *topic,
                      struct sl_kafka_lag **ret)
{
    CHECK_STR(config->brokers, "b:1");
    CHECK(topic != NULL);
    struct sl_kafka_lag *lag = calloc(1, sizeof(*lag));
    CHECK(lag != NULL);
    snprintf(lag->group, sizeof(lag->group), "%s", group);
    *ret = lag;
    opened++;
    return 0;
}

int64_t sl_kafka_lag_read(struct sl_kafka_lag *lag, int timeout_ms)
{
    CHECK(timeout_ms > 0);
    looks += strcmp(lag->group, "p.embed") == 0;
    return waiting;
}

void sl_kafka_lag_close(struct sl_kafka_lag *lag)
{
    closed += lag != NULL;
    free(lag);
}

static void on_room(void *ctx)
{
    (void)ctx;
    rooms++;
}

static struct sl_backlog *create(struct sl_loop *loop)
{
    const struct sl_kafka_config kafka = {.brokers = "b:1"};
    const struct sl_backlog_topic topics[SL_BACKLOG_TOPICS] = {{"p.chunks", "p.embed"},
                                                               {"p.vectors", "p.ingest"}};
    struct sl_backlog *backlog = NULL;
    opened = closed = rooms = 0;
    looks = 0;
    CHECK_INT(sl_backlog_create(loop, &kafka, topics, 10, on_room, NULL, &backlog), 0);
    CHECK_INT(opened, 2);
    return backlog;
}

static void until_looks(struct sl_loop *loop, int count)
{
    for (int i = 0; looks < count; i++) {
        CHECK(i < 1000);
        sl_loop_turn(loop, 20);
    }
    sl_loop_turn(loop, 20); /* Its end. */
}

TEST(more_than_the_limit_of_both_topics_is_full_until_it_is_less)
{
    struct sl_loop *loop;
    CHECK_INT(sl_loop_create(&loop), 0);
    struct sl_backlog *backlog = create(loop);
    sl_loop_turn(loop, 0);
    CHECK_INT(looks, 0); /* Nothing was begun. */
    waiting = 5;
    sl_backlog_begun(backlog);
    until_looks(loop, 1);
    CHECK(!sl_backlog_full(backlog));
    waiting = 6;
    sl_backlog_begun(backlog);
    for (int i = 0; !sl_backlog_full(backlog); i++) {
        CHECK(i < 1000);
        sl_loop_turn(loop, 20);
    }
    CHECK_INT(rooms, 0);
    waiting = -SL_ECONN; /* Changes nothing. */
    until_looks(loop, looks + 1);
    CHECK(sl_backlog_full(backlog));
    waiting = 0;
    for (int i = 0; rooms == 0; i++) { /* Looked at though nothing was begun. */
        CHECK(i < 1000);
        sl_loop_turn(loop, 20);
    }
    CHECK(!sl_backlog_full(backlog));
    sl_backlog_destroy(backlog);
    CHECK_INT(closed, 2);
    sl_loop_destroy(loop);
}

TEST(one_that_is_destroyed_while_it_looks_ends_by_itself)
{
    struct sl_loop *loop;
    CHECK_INT(sl_loop_create(&loop), 0);
    struct sl_backlog *backlog = create(loop);
    sl_backlog_begun(backlog);
    while (looks == 0) {
        sl_loop_turn(loop, 0);
    }
    sl_backlog_destroy(backlog);
    sl_loop_destroy(loop);
    CHECK_INT(closed, 2);
    CHECK_INT(rooms, 0);
}

static const struct test_case cases[] = {
    {"more_than_the_limit_of_both_topics_is_full_until_it_is_less",
     more_than_the_limit_of_both_topics_is_full_until_it_is_less},
    {"one_that_is_destroyed_while_it_looks_ends_by_itself",
     one_that_is_destroyed_while_it_looks_ends_by_itself},
    {NULL, NULL},
};

int main(int argc, char **argv)
{
    return run_tests(cases, argc, argv);
}
