/* The Redis client on a real redis-server: what it does when the server is there, goes away, hangs,
 * forgets and comes back. */
#include "common/redis.h"
#include "tests/support/redis_fixture.h"
#include "tests/support/test.h"

#include "common/clock.h"

#include <errno.h>

enum { BOUND_MS = 10000, COMMAND_MS = 300, PING_MS = 200 };

/* A loop, a client and what it was told. */
struct client {
    struct sl_loop *loop;
    struct sl_redis *redis;
    uint32_t ping_ms; /* 0: PING_MS. */
    int ups, downs;
    char run_id[64];
    char why[600];
    int subscribed;
    char message[100];
    int messages;
    void (*on_up)(struct client *client);
};

static void on_link(void *ctx, const char *run_id, const char *why)
{
    struct client *client = ctx;
    CHECK((run_id != NULL) != (why != NULL));
    CHECK_INT(sl_redis_up(client->redis), run_id != NULL);
    if (run_id != NULL) {
        client->ups++;
        snprintf(client->run_id, sizeof(client->run_id), "%s", run_id);
        if (client->on_up != NULL) {
            client->on_up(client);
        }
    } else {
        client->downs++;
        snprintf(client->why, sizeof(client->why), "%s", why);
    }
}

static void on_message(void *ctx, struct sl_span channel, struct sl_span message)
{
    struct client *client = ctx;
    client->messages++;
    snprintf(client->message, sizeof(client->message), SL_SPAN_FMT "=" SL_SPAN_FMT,
             SL_SPAN_ARG(channel), SL_SPAN_ARG(message));
}

static void on_subscribed(void *ctx)
{
    ((struct client *)ctx)->subscribed++;
}

static void client_start(struct client *client, const char *url)
{
    struct sl_redis_config config = {
        .url = url,
        .connect_timeout_ms = 500,
        .command_timeout_ms = COMMAND_MS,
        .ping_interval_ms = client->ping_ms != 0 ? client->ping_ms : PING_MS,
        .on_link = on_link,
        .on_message = on_message,
        .on_subscribed = on_subscribed,
        .ctx = client,
    };
    char why[200];
    CHECK(sl_loop_create(&client->loop) == 0);
    CHECK(sl_redis_create(client->loop, &config, &client->redis, why, sizeof(why)) == 0);
}

static void client_end(struct client *client)
{
    sl_redis_destroy(client->redis);
    sl_loop_destroy(client->loop);
}

/* Turns the loop until the condition holds. */
#define WAIT(client, cond)                                                                         \
    do {                                                                                           \
        uint64_t until_ = sl_clock_now_ms() + BOUND_MS;                                            \
        while (!(cond)) {                                                                          \
            CHECK(sl_clock_now_ms() < until_ && "waiting for " #cond);                             \
            sl_loop_turn((client)->loop, 20);                                                      \
        }                                                                                          \
    } while (0)

/* What a command was answered. */
struct answer {
    int calls, err;
    char text[200];
    long long number;
    int *order; /* A counter shared by several, and the value that it had here. */
    int at;
};

static void on_answer(void *ctx, int err, const struct redisReply *reply)
{
    struct answer *answer = ctx;
    CHECK((err == 0) == (reply != NULL));
    answer->calls++;
    answer->err = err;
    if (reply != NULL) {
        struct sl_span text = sl_reply_span(reply);
        answer->number = sl_reply_int(reply);
        snprintf(answer->text, sizeof(answer->text), SL_SPAN_FMT, SL_SPAN_ARG(text));
    }
    if (answer->order != NULL) {
        answer->at = (*answer->order)++;
    }
}

/* Sends words, which are separated by single spaces. */
static int send_words(struct client *client, const char *words, struct answer *answer)
{
    struct sl_span argv[16];
    size_t argc = 0;
    while (*words != '\0') {
        size_t len = strcspn(words, " ");
        CHECK(argc < 16);
        argv[argc++] = (struct sl_span){words, len};
        words += len + (words[len] == ' ');
    }
    return sl_redis_command(client->redis, argc, argv, on_answer, answer);
}

static struct answer ask(struct client *client, const char *words)
{
    struct answer answer = {0};
    CHECK_INT(send_words(client, words, &answer), 0);
    CHECK_INT(answer.calls, 0); /* Never inside the call. */
    WAIT(client, answer.calls > 0);
    return answer;
}

static void check_array(void *ctx, int err, const struct redisReply *reply)
{
    CHECK_INT(err, 0);
    CHECK_INT(sl_reply_type(reply), SL_REPLY_ARRAY);
    CHECK_INT(sl_reply_len(reply), 3);
    CHECK(sl_span_is(sl_reply_span(sl_reply_at(reply, 0)), "7"));
    CHECK_INT(sl_reply_int(sl_reply_at(reply, 0)), 7);
    CHECK_INT(sl_reply_type(sl_reply_at(reply, 1)), SL_REPLY_NIL);
    CHECK(sl_span_is(sl_reply_span(sl_reply_at(reply, 2)), "x"));
    CHECK(sl_reply_at(reply, 3) == NULL);
    CHECK_INT(sl_reply_int(sl_reply_at(reply, 2)), 0);
    *(bool *)ctx = true;
}

TEST(commands_are_answered_in_order)
{
    struct redis_fixture *server = redis_fixture_create(NULL);
    struct client client = {0};
    redis_fixture_start(server);
    client_start(&client, redis_fixture_url(server));
    CHECK_INT(send_words(&client, "PING", NULL), -SL_ECONN);
    WAIT(&client, client.ups == 1);
    CHECK_INT(strlen(client.run_id), 40);
    int order = 0;
    struct answer set = {.order = &order}, error = set, incr = set;
    CHECK_INT(send_words(&client, "SET n 6", &set), 0);
    CHECK_INT(send_words(&client, "LPUSH n 6", &error), 0);
    CHECK_INT(send_words(&client, "INCR n", &incr), 0);
    WAIT(&client, incr.calls == 1);
    CHECK_STR(set.text, "OK");
    CHECK_INT(error.err, -SL_EUPSTREAM);
    CHECK_INT(incr.number, 7);
    CHECK_INT(set.at * 100 + error.at * 10 + incr.at, 12);
    bool checked = false;
    CHECK(ask(&client, "SET s x").err == 0);
    struct sl_span argv[] = {SL_SPAN("MGET"), SL_SPAN("n"), SL_SPAN("none"), SL_SPAN("s")};
    CHECK_INT(sl_redis_command(client.redis, 4, argv, check_array, &checked), 0);
    CHECK_INT(sl_redis_command(client.redis, 4, argv, NULL, NULL), 0);
    WAIT(&client, checked);
    CHECK_STR(ask(&client, "CLIENT GETNAME").text, program_invocation_short_name);
    client_end(&client);
    redis_fixture_destroy(server);
}

TEST(the_database_of_the_url_is_used_for_any_bytes)
{
    struct redis_fixture *server = redis_fixture_create(NULL);
    struct client client = {0};
    char url[100];
    redis_fixture_start(server);
    snprintf(url, sizeof(url), "redis://localhost:%d/3", redis_fixture_port(server));
    client_start(&client, url);
    WAIT(&client, client.ups == 1);
    struct answer set = {0};
    struct sl_span argv[] = {SL_SPAN("SET"), SL_SPAN("a\r\n\0b"), {NULL, 0}};
    CHECK_INT(sl_redis_command(client.redis, 3, argv, on_answer, &set), 0);
    WAIT(&client, set.calls == 1);
    CHECK_INT(ask(&client, "DBSIZE").number, 1);
    CHECK_STR(ask(&client, "SELECT 0").text, "OK");
    CHECK_INT(ask(&client, "DBSIZE").number, 0);
    client_end(&client);
    redis_fixture_destroy(server);
}

static void run_script(struct client *client, struct sl_redis_script *script, const char *key,
                       const char *arg, struct answer *answer)
{
    struct sl_span argv[] = {sl_span_of(key), sl_span_of(arg)};
    CHECK_INT(sl_redis_eval(client->redis, script, 1, 2, argv, on_answer, answer), 0);
}

static void check_evalsha(void *ctx, int err, const struct redisReply *reply)
{
    static const char once[] = "cmdstat_evalsha:calls=1,";
    struct sl_span text = sl_reply_span(reply);
    CHECK_INT(err, 0);
    *(bool *)ctx = memmem(text.data, text.len, once, sizeof(once) - 1) != NULL;
}

TEST(scripts_run_also_when_the_server_forgot_them)
{
    static struct sl_redis_script script = {.text =
                                                "return redis.call('incrby', KEYS[1], ARGV[1])"};
    static struct sl_redis_script wrong = {.text = "return redis.call('no such thing')"};
    struct redis_fixture *server = redis_fixture_create(NULL);
    struct client client = {0};
    redis_fixture_start(server);
    client_start(&client, redis_fixture_url(server));
    WAIT(&client, client.ups == 1);
    struct answer first = {0}, second = {0}, by_sha = {0}, bad = {0};
    run_script(&client, &script, "n", "5", &first);
    run_script(&client, &script, "n", "2", &second);
    WAIT(&client, second.calls == 1);
    CHECK_INT(first.number * 100 + second.number, 507);
    CHECK_INT(strlen(script.sha), 40);
    run_script(&client, &script, "n", "1", &by_sha);
    WAIT(&client, by_sha.calls == 1);
    CHECK_INT(by_sha.number, 8);
    bool by_sha_once = false;
    struct sl_span info[] = {SL_SPAN("INFO"), SL_SPAN("commandstats")};
    CHECK_INT(sl_redis_command(client.redis, 2, info, check_evalsha, &by_sha_once), 0);
    WAIT(&client, by_sha_once);

    CHECK(ask(&client, "SCRIPT FLUSH").err == 0);
    struct answer again[3] = {{0}};
    for (int i = 0; i < 3; i++) {
        run_script(&client, &script, "n", "10", &again[i]);
    }
    WAIT(&client, again[0].calls + again[1].calls + again[2].calls == 3);
    CHECK_INT(again[0].number + again[1].number + again[2].number, 18 + 28 + 38);

    redis_fixture_kill(server); /* A fresh server does not know it either. */
    WAIT(&client, client.downs > 0);
    redis_fixture_start(server);
    WAIT(&client, client.ups == 2);
    struct answer fresh = {0};
    run_script(&client, &script, "n", "4", &fresh);
    run_script(&client, &wrong, "n", "4", &bad);
    WAIT(&client, fresh.calls == 1 && bad.calls == 1);
    CHECK_INT(fresh.number, 4);
    CHECK_INT(bad.err, -SL_EUPSTREAM);
    client_end(&client);
    redis_fixture_destroy(server);
}

TEST(a_server_that_appears_later_is_found)
{
    struct redis_fixture *server = redis_fixture_create(NULL);
    struct client client = {0};
    client_start(&client, redis_fixture_url(server));
    WAIT(&client, client.downs == 2);
    CHECK(strstr(client.why, "Connection refused") != NULL);
    CHECK_INT(client.ups, 0);
    redis_fixture_start(server);
    WAIT(&client, client.ups == 1);
    CHECK_STR(ask(&client, "PING").text, "PONG");
    client_end(&client);
    redis_fixture_destroy(server);
}

TEST(a_killed_server_fails_each_command_once)
{
    enum { N = 100 };
    struct redis_fixture *server = redis_fixture_create(NULL);
    struct client client = {0};
    static struct answer answers[N];
    memset(answers, 0, sizeof(answers));
    int order = 0, sum = 0;
    redis_fixture_start(server);
    client_start(&client, redis_fixture_url(server));
    WAIT(&client, client.ups == 1);
    char run_id[64];
    strcpy(run_id, client.run_id);
    for (int i = 0; i < N; i++) {
        answers[i].order = &order;
        CHECK_INT(send_words(&client, "BLPOP none 0", &answers[i]), 0);
    }
    sl_loop_turn(client.loop, 20);
    redis_fixture_kill(server);
    WAIT(&client, client.downs > 0);
    CHECK_INT(order, N);
    for (int i = 0; i < N; i++) {
        CHECK_INT(answers[i].err, -SL_ECONN);
        CHECK_INT(answers[i].at, i);
    }
    CHECK_INT(send_words(&client, "PING", NULL), -SL_ECONN);
    redis_fixture_start(server);
    WAIT(&client, client.ups == 2);
    CHECK_STR(ask(&client, "PING").text, "PONG");
    CHECK(strcmp(client.run_id, run_id) != 0);
    for (int i = 0; i < N; i++) {
        sum += answers[i].calls;
    }
    CHECK_INT(sum, N);
    client_end(&client);
    redis_fixture_destroy(server);
}

TEST(what_was_written_to_an_append_only_file_survives_a_kill)
{
    struct redis_fixture *server = redis_fixture_create(
        &(struct redis_fixture_options){.appendonly = true, .policy = "allkeys-lru"});
    struct client client = {0};
    redis_fixture_start(server);
    client_start(&client, redis_fixture_url(server));
    WAIT(&client, client.ups == 1);
    CHECK_STR(ask(&client, "SET k v").text, "OK");
    redis_fixture_kill(server);
    redis_fixture_start(server);
    WAIT(&client, client.ups == 2);
    CHECK_STR(ask(&client, "GET k").text, "v");
    client_end(&client);
    redis_fixture_destroy(server);
}

TEST(a_server_that_hangs_times_out_and_recovers)
{
    struct redis_fixture *server = redis_fixture_create(NULL);
    struct client client = {0};
    redis_fixture_start(server);
    client_start(&client, redis_fixture_url(server));
    WAIT(&client, client.ups == 1);
    redis_fixture_pause(server);
    struct answer answer = {0};
    CHECK_INT(send_words(&client, "SET k v", &answer), 0);
    WAIT(&client, answer.calls == 1);
    CHECK_INT(answer.err, -SL_ETIMEDOUT);
    WAIT(&client, client.downs == 2); /* The kernel still accepts: the greeting times out, too. */
    CHECK(strstr(client.why, "did not answer for 300 ms") != NULL);
    redis_fixture_resume(server);
    WAIT(&client, client.ups == 2);
    CHECK_STR(ask(&client, "PING").text, "PONG");
    CHECK_INT(answer.calls, 1);
    client_end(&client);
    redis_fixture_destroy(server);
}

TEST(an_idle_client_notices_a_server_that_hangs)
{
    struct redis_fixture *server = redis_fixture_create(NULL);
    struct client client = {0};
    redis_fixture_start(server);
    client_start(&client, redis_fixture_url(server));
    CHECK_INT(sl_redis_subscribe(client.redis, SL_SPAN("news")), 0);
    WAIT(&client, client.ups == 1 && client.subscribed == 1);
    redis_fixture_pause(server);
    WAIT(&client, client.downs == 1);
    redis_fixture_resume(server);
    WAIT(&client, client.ups == 2 && client.subscribed == 2);
    client_end(&client);
    redis_fixture_destroy(server);
}

TEST(subscriptions_survive_a_restart)
{
    struct redis_fixture *server = redis_fixture_create(NULL);
    struct client client = {0};
    client_start(&client, redis_fixture_url(server));
    CHECK_INT(sl_redis_subscribe(client.redis, SL_SPAN("news")), 0); /* Before it is up, */
    CHECK_INT(sl_redis_subscribe(client.redis, SL_SPAN("news")), 0);
    redis_fixture_start(server);
    WAIT(&client, client.ups == 1 && client.subscribed == 1);
    CHECK_INT(ask(&client, "PUBLISH news one").number, 1);
    WAIT(&client, client.messages == 1);
    CHECK_STR(client.message, "news=one");
    CHECK_INT(sl_redis_subscribe(client.redis, SL_SPAN("more")), 0); /* and after. */
    WAIT(&client, client.subscribed == 2);
    CHECK_INT(ask(&client, "PUBLISH more two").number, 1);
    WAIT(&client, client.messages == 2);
    CHECK_STR(client.message, "more=two");

    redis_fixture_stop(server);
    WAIT(&client, client.downs > 1);
    redis_fixture_start(server);
    WAIT(&client, client.ups == 2 && client.subscribed == 3);
    CHECK_INT(ask(&client, "PUBLISH news three").number, 1);
    WAIT(&client, client.messages == 3);
    CHECK_STR(client.message, "news=three");
    CHECK_INT(ask(&client, "PUBLISH more four").number, 1);
    WAIT(&client, client.messages == 4);
    client_end(&client);
    redis_fixture_destroy(server);
}

TEST(messages_flow_while_the_connection_is_tried)
{
    enum { N = 2000 };
    struct redis_fixture *server = redis_fixture_create(NULL);
    struct client client = {.ping_ms = 1};
    struct answer published = {0};
    redis_fixture_start(server);
    client_start(&client, redis_fixture_url(server));
    CHECK_INT(sl_redis_subscribe(client.redis, SL_SPAN("news")), 0);
    WAIT(&client, client.ups == 1 && client.subscribed == 1);
    for (int sent = 0; sent < N; sent += 20) {
        for (int i = 0; i < 20; i++) {
            CHECK_INT(send_words(&client, "PUBLISH news x", &published), 0);
        }
        CHECK_STR(ask(&client, "PING").text, "PONG");
    }
    WAIT(&client, client.messages == N);
    CHECK_INT(published.calls, N);
    CHECK_INT(client.subscribed, 1);
    CHECK_INT(client.downs, 0);
    client_end(&client);
    redis_fixture_destroy(server);
}

TEST(passwords_are_sent_and_a_wrong_one_is_named)
{
    struct redis_fixture *server =
        redis_fixture_create(&(struct redis_fixture_options){.password = "sesame"});
    struct client right = {0}, none = {0}, wrong = {0};
    char url[100];
    redis_fixture_start(server);
    client_start(&right, redis_fixture_url(server));
    CHECK_INT(sl_redis_subscribe(right.redis, SL_SPAN("news")), 0);
    WAIT(&right, right.ups == 1 && right.subscribed == 1);
    client_end(&right);
    snprintf(url, sizeof(url), "redis://default:thyme@127.0.0.1:%d", redis_fixture_port(server));
    client_start(&wrong, url);
    WAIT(&wrong, wrong.downs == 2);
    CHECK_INT(wrong.ups, 0);
    CHECK(strstr(wrong.why, "refused AUTH: WRONGPASS") != NULL);
    CHECK(strstr(wrong.why, "thyme") == NULL);
    client_end(&wrong);
    snprintf(url, sizeof(url), "redis://127.0.0.1:%d", redis_fixture_port(server));
    client_start(&none, url);
    WAIT(&none, none.downs == 1);
    CHECK(strstr(none.why, "NOAUTH") != NULL);
    client_end(&none);
    redis_fixture_destroy(server);
}

TEST(ten_thousand_commands_wait_and_no_more)
{
    enum { N = 10000 };
    static struct answer answers[N];
    memset(answers, 0, sizeof(answers));
    int order = 0;
    struct redis_fixture *server = redis_fixture_create(NULL);
    struct client client = {0};
    redis_fixture_start(server);
    client_start(&client, redis_fixture_url(server));
    WAIT(&client, client.ups == 1);
    for (int i = 0; i < N; i++) {
        answers[i].order = &order;
        CHECK_INT(send_words(&client, "PING", &answers[i]), 0);
    }
    CHECK_INT(send_words(&client, "PING", NULL), -SL_EAGAIN);
    WAIT(&client, order == N);
    for (int i = 0; i < N; i++) {
        CHECK(answers[i].calls == 1 && answers[i].err == 0 && answers[i].at == i);
    }
    CHECK_STR(ask(&client, "PING").text, "PONG");
    client_end(&client);
    redis_fixture_destroy(server);
}

TEST(large_values_come_back_whole)
{
    enum { SIZE = 8 << 20 };
    struct redis_fixture *server = redis_fixture_create(NULL);
    struct client client = {0};
    struct answer set = {0};
    char *value = malloc(SIZE);
    CHECK(value != NULL);
    memset(value, 'v', SIZE);
    redis_fixture_start(server);
    client_start(&client, redis_fixture_url(server));
    WAIT(&client, client.ups == 1);
    struct sl_span argv[] = {SL_SPAN("SET"), SL_SPAN("big"), {value, SIZE}};
    CHECK_INT(sl_redis_command(client.redis, 3, argv, on_answer, &set), 0);
    WAIT(&client, set.calls == 1);
    CHECK_INT(set.err, 0);
    CHECK_INT(ask(&client, "STRLEN big").number, SIZE);
    CHECK_INT(strlen(ask(&client, "GET big").text), sizeof(set.text) - 1);
    free(value);
    client_end(&client);
    redis_fixture_destroy(server);
}

static void send_again(void *ctx, int err, const struct redisReply *reply)
{
    struct client *client = ctx;
    CHECK(reply == NULL);
    CHECK_INT(err, -SL_ECLOSED);
    CHECK_INT(send_words(client, "PING", NULL), -SL_ECONN);
    CHECK_INT(sl_redis_subscribe(client->redis, SL_SPAN("late")), 0);
    client->messages++;
}

TEST(destroy_fails_what_waits)
{
    struct redis_fixture *server = redis_fixture_create(NULL);
    struct client client = {0};
    redis_fixture_start(server);
    client_start(&client, redis_fixture_url(server));
    WAIT(&client, client.ups == 1);
    struct sl_span argv[] = {SL_SPAN("PING")};
    CHECK_INT(sl_redis_command(client.redis, 1, argv, send_again, &client), 0);
    CHECK_INT(sl_redis_command(client.redis, 1, argv, send_again, &client), 0);
    client_end(&client);
    CHECK_INT(client.messages, 2);
    CHECK_INT(client.downs, 0);
    redis_fixture_destroy(server);
}

static void greet_again(struct client *client)
{
    static struct answer answer;
    CHECK_INT(send_words(client, "INCR greeted", &answer), 0);
}

TEST(commands_may_be_sent_when_the_link_comes_up)
{
    struct redis_fixture *server = redis_fixture_create(NULL);
    struct client client = {.on_up = greet_again};
    redis_fixture_start(server);
    client_start(&client, redis_fixture_url(server));
    WAIT(&client, client.ups == 1);
    CHECK_STR(ask(&client, "GET greeted").text, "1");
    client_end(&client);
    redis_fixture_destroy(server);
}

TEST(a_name_that_does_not_resolve_is_named)
{
    /* A label longer than 63 characters fails without asking a name server. */
    static const char url[] =
        "redis://aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
        "aaaaaaaa.invalid";
    struct client client = {0};
    client_start(&client, url);
    WAIT(&client, client.downs == 2);
    CHECK(strstr(client.why, "looking up aaa") != NULL);
    sl_loop_turn(client.loop, 0);
    client_end(&client); /* Also while a look-up is under way. */
    client = (struct client){0};
    client_start(&client, url);
    sl_loop_turn(client.loop, 2);
    client_end(&client);
    CHECK_INT(client.downs, 0);
}

int main(int argc, char **argv)
{
    const struct test_case cases[] = {
        {"commands_are_answered_in_order", commands_are_answered_in_order},
        {"the_database_of_the_url_is_used_for_any_bytes",
         the_database_of_the_url_is_used_for_any_bytes},
        {"scripts_run_also_when_the_server_forgot_them",
         scripts_run_also_when_the_server_forgot_them},
        {"a_server_that_appears_later_is_found", a_server_that_appears_later_is_found},
        {"a_killed_server_fails_each_command_once", a_killed_server_fails_each_command_once},
        {"what_was_written_to_an_append_only_file_survives_a_kill",
         what_was_written_to_an_append_only_file_survives_a_kill},
        {"a_server_that_hangs_times_out_and_recovers", a_server_that_hangs_times_out_and_recovers},
        {"an_idle_client_notices_a_server_that_hangs", an_idle_client_notices_a_server_that_hangs},
        {"subscriptions_survive_a_restart", subscriptions_survive_a_restart},
        {"messages_flow_while_the_connection_is_tried",
         messages_flow_while_the_connection_is_tried},
        {"passwords_are_sent_and_a_wrong_one_is_named",
         passwords_are_sent_and_a_wrong_one_is_named},
        {"ten_thousand_commands_wait_and_no_more", ten_thousand_commands_wait_and_no_more},
        {"large_values_come_back_whole", large_values_come_back_whole},
        {"destroy_fails_what_waits", destroy_fails_what_waits},
        {"commands_may_be_sent_when_the_link_comes_up",
         commands_may_be_sent_when_the_link_comes_up},
        {"a_name_that_does_not_resolve_is_named", a_name_that_does_not_resolve_is_named},
        {NULL, NULL},
    };
    return run_tests(cases, argc, argv);
}
