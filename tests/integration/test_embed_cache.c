/* The cache of vectors on a real redis-server: what is put is found, for as long as it should be,
 * before what was asked behind it, and a Redis that forgets, hangs or ends is only a miss. */
#include "common/clock.h"
#include "tests/support/redis_fixture.h"
#include "tests/support/test.h"
#include "workers/embed/cache.h"

enum { BOUND_MS = 10000, COMMAND_MS = 300, TTL_MS = 60000, DIM = 384, ENTRIES = 1000 };

static struct redis_fixture *fixture;
static struct sl_loop *loop;
static struct sl_redis *redis;
static struct sl_metrics *metrics;
static struct embed_cache *cache;
static bool up;

static void on_link(void *ctx, const char *run_id, const char *why)
{
    (void)ctx, (void)why;
    up = run_id != NULL;
}

#define WAIT(cond)                                                                                 \
    do {                                                                                           \
        uint64_t until_ = sl_clock_now_ms() + BOUND_MS;                                            \
        while (!(cond)) {                                                                          \
            CHECK(sl_clock_now_ms() < until_ && "waiting for " #cond);                             \
            sl_loop_turn(loop, 20);                                                                \
        }                                                                                          \
    } while (0)

static void setup(void)
{
    char why[200];
    fixture = redis_fixture_create(NULL);
    redis_fixture_start(fixture);
    CHECK(sl_loop_create(&loop) == 0 && sl_metrics_create(100, &metrics) == 0);
    const struct sl_redis_config config = {
        .url = redis_fixture_url(fixture), .command_timeout_ms = COMMAND_MS, .on_link = on_link};
    CHECK(sl_redis_create(loop, &config, &redis, why, sizeof(why)) == 0);
    const struct embed_cache_config cached = {
        .prefix = "sluice", .model = "small", .entries = ENTRIES, .ttl_ms = TTL_MS};
    CHECK(embed_cache_create(loop, redis, metrics, &cached, &cache) == 0);
    WAIT(up);
}

static void teardown(void)
{
    embed_cache_destroy(cache);
    sl_redis_destroy(redis); /* Answers what is still out: to the cache, too. */
    sl_metrics_destroy(metrics);
    sl_loop_destroy(loop);
    redis_fixture_destroy(fixture);
    up = false;
}

/* --- commands of the test's own --- */

static struct {
    bool done;
    int err;
    long long number;
    char text[100];
} said;

static void on_said(void *ctx, int err, const struct redisReply *reply)
{
    (void)ctx;
    said.done = true;
    said.err = err;
    said.number = sl_reply_int(reply);
    snprintf(said.text, sizeof(said.text), SL_SPAN_FMT, SL_SPAN_ARG(sl_reply_span(reply)));
}

static void command(const char *a, const char *b, const char *c)
{
    const struct sl_span argv[] = {sl_span_of(a), sl_span_of(b), sl_span_of(c)};
    said.done = false;
    CHECK(sl_redis_command(redis, c != NULL ? 3 : b != NULL ? 2 : 1, argv, on_said, NULL) == 0);
    WAIT(said.done);
}

/* --- look-ups --- */

static struct {
    bool done, hit[EMBED_ASK_MAX];
    bool before_command;
} found;
static struct embed_key keys[EMBED_ASK_MAX];
static float made[DIM];

static void on_found(void *ctx, const struct sl_span *entries, size_t len)
{
    float vector[DIM];
    (void)ctx;
    found.done = true;
    found.before_command = !said.done;
    for (size_t i = 0; i < len; i++) {
        found.hit[i] = embed_cache_read(entries[i], &keys[i], DIM, vector) &&
                       memcmp(vector, made, sizeof(made)) == 0;
    }
}

static void look_up(enum embed_kind kind, size_t len)
{
    struct embed_cache_ask *asked;
    memset(&found, 0, sizeof(found));
    CHECK(embed_cache_get(cache, kind, keys, len, on_found, NULL, &asked) == 0);
    CHECK(!found.done);
    WAIT(found.done);
}

static void put(enum embed_kind kind, const char *text)
{
    embed_cache_key(cache, sl_span_of(text), &keys[0]);
    for (size_t i = 0; i < DIM; i++) {
        made[i] = (float)i / 7;
    }
    embed_cache_put(cache, kind, &keys[0], made, DIM);
    command("DBSIZE", NULL, NULL);
    for (long long before = said.number; said.number == before;) {
        sl_loop_turn(loop, 5);
        command("DBSIZE", NULL, NULL);
    }
}

TEST(what_was_put_is_found_under_its_kind_alone)
{
    setup();
    put(EMBED_QUESTION, "why?");
    look_up(EMBED_QUESTION, 1);
    CHECK(found.hit[0]);
    look_up(EMBED_CHUNK, 1);
    CHECK(!found.hit[0]);
    command("KEYS", "sluice:embedding:*", NULL);
    CHECK(said.err == 0);
    command("RANDOMKEY", NULL, NULL);
    char key[100];
    memcpy(key, said.text, sizeof(key));
    CHECK(strncmp(key, "sluice:embedding:", 17) == 0);
    command("PTTL", key, NULL);
    CHECK(said.number > TTL_MS - BOUND_MS && said.number <= TTL_MS);
    command("STRLEN", key, NULL);
    CHECK_INT(said.number, SL_DIGEST_SIZE + 4 * DIM);
    command("APPEND", key, "more"); /* Somebody else's bytes. */
    look_up(EMBED_QUESTION, 1);
    CHECK(!found.hit[0]);
    command("DEL", key, NULL);
    command("LPUSH", key, "no string");
    look_up(EMBED_QUESTION, 1);
    CHECK(!found.hit[0]);
    teardown();
}

TEST(of_many_keys_each_has_its_own_answer)
{
    setup();
    put(EMBED_CHUNK, "one");
    for (size_t i = 0; i < EMBED_ASK_MAX; i++) {
        char text[16];
        snprintf(text, sizeof(text), "text %zu", i);
        embed_cache_key(cache, i == 20 ? SL_SPAN("one") : sl_span_of(text), &keys[i]);
    }
    look_up(EMBED_CHUNK, EMBED_ASK_MAX);
    for (size_t i = 0; i < EMBED_ASK_MAX; i++) {
        CHECK_INT(found.hit[i], i == 20);
    }
    teardown();
}

TEST(a_look_up_is_answered_before_what_was_sent_behind_it)
{
    setup();
    put(EMBED_QUESTION, "why?");
    struct embed_cache_ask *asked;
    memset(&found, 0, sizeof(found));
    CHECK(embed_cache_get(cache, EMBED_QUESTION, keys, 1, on_found, NULL, &asked) == 0);
    command("PING", NULL, NULL); /* In the place of an admission. */
    CHECK(found.done && found.hit[0] && found.before_command);
    teardown();
}

TEST(a_redis_that_forgot_hangs_or_ended_is_a_miss)
{
    setup();
    put(EMBED_QUESTION, "why?");
    command("FLUSHALL", NULL, NULL);
    look_up(EMBED_QUESTION, 1);
    CHECK(!found.hit[0]);
    redis_fixture_pause(fixture);
    look_up(EMBED_QUESTION, 1);
    CHECK(!found.hit[0]);
    redis_fixture_kill(fixture);
    WAIT(!up);
    struct embed_cache_ask *asked;
    CHECK_INT(embed_cache_get(cache, EMBED_QUESTION, keys, 1, on_found, NULL, &asked), -SL_ECONN);
    embed_cache_put(cache, EMBED_QUESTION, &keys[0], made, DIM);
    for (int i = 0; i < 20; i++) {
        sl_loop_turn(loop, 1);
    }
    teardown();
}

TEST(what_is_out_when_everything_ends_is_nobodys)
{
    setup();
    put(EMBED_QUESTION, "why?");
    struct embed_cache_ask *asked;
    memset(&found, 0, sizeof(found));
    CHECK(embed_cache_get(cache, EMBED_QUESTION, keys, 1, on_found, NULL, &asked) == 0);
    embed_cache_put(cache, EMBED_QUESTION, &keys[0], made, DIM);
    embed_cache_cancel(asked);
    teardown();
    CHECK(!found.done);
}

#define CASE(name)                                                                                 \
    {                                                                                              \
#name, name                                                                                \
    }

int main(int argc, char **argv)
{
    const struct test_case cases[] = {
        CASE(what_was_put_is_found_under_its_kind_alone),
        CASE(of_many_keys_each_has_its_own_answer),
        CASE(a_look_up_is_answered_before_what_was_sent_behind_it),
        CASE(a_redis_that_forgot_hangs_or_ended_is_a_miss),
        CASE(what_is_out_when_everything_ends_is_nobodys),
        {NULL, NULL},
    };
    return run_tests(cases, argc, argv);
}
