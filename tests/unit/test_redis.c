/* The Redis client against a server that the test plays itself, in virtual time: answers in pieces,
 * no answers, wrong answers. */
#include "common/clock.h"
#include "common/redis.h"
#include "tests/support/test.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

enum { TURNS = 5000, CONNECT_MS = 2000, COMMAND_MS = 1000, PING_MS = 5000 };

#define NAMED "+OK\r\n"
/* And the number of the connection. */
#define INFO "$24\r\n# Server\r\nrun_id:abc12\r\n\r\n:7\r\n"
#define OTHER_INFO "$24\r\n# Server\r\nrun_id:xyz98\r\n\r\n:8\r\n"
#define POLICY "*2\r\n$16\r\nmaxmemory-policy\r\n$10\r\nnoeviction\r\n"
#define PONG "+PONG\r\n"
#define DENIED "-NOPERM this user has no permissions\r\n"

static uint64_t now_us;
static struct sl_loop *loop;
static struct sl_redis *redis;
static int listener, peer; /* The server's sockets. */
static int ups, downs, subscribed;
static char run_id[64], why[600], messages[64];

static void on_link(void *ctx, const char *id, const char *reason)
{
    (void)ctx;
    ups += id != NULL;
    downs += id == NULL;
    snprintf(run_id, sizeof(run_id), "%s", id != NULL ? id : "");
    snprintf(why, sizeof(why), "%s", reason != NULL ? reason : "");
}

static void on_message(void *ctx, struct sl_span channel, struct sl_span message)
{
    (void)ctx;
    CHECK(sl_span_is(channel, "news"));
    strncat(messages, message.data, message.len);
}

static void on_subscribed(void *ctx)
{
    (void)ctx;
    subscribed++;
}

#define WAIT(cond)                                                                                 \
    for (int turn_ = 0; !(cond); turn_++) {                                                        \
        CHECK(turn_ < TURNS && "waiting for " #cond);                                              \
        sl_loop_turn(loop, 1);                                                                     \
    }

static void pass_ms(uint64_t ms)
{
    now_us += ms * 1000;
    sl_loop_turn(loop, 0); /* Sets the wait, */
    sl_loop_turn(loop, 0); /* which is over. */
}

static void start(int backlog)
{
    struct sockaddr_in in = {.sin_family = AF_INET};
    socklen_t len = sizeof(in);
    char url[64], reason[200];
    now_us = 1000000;
    sl_clock_use(&now_us);
    ups = downs = subscribed = 0;
    run_id[0] = why[0] = messages[0] = '\0';
    in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    peer = -1;
    CHECK(bind(listener, (struct sockaddr *)&in, sizeof(in)) == 0);
    CHECK(getsockname(listener, (struct sockaddr *)&in, &len) == 0);
    CHECK(backlog < 0 || listen(listener, backlog) == 0);
    snprintf(url, sizeof(url), "redis://127.0.0.1:%d", ntohs(in.sin_port));
    struct sl_redis_config config = {
        .url = url,
        .on_link = on_link,
        .on_message = on_message,
        .on_subscribed = on_subscribed,
    };
    CHECK(sl_loop_create(&loop) == 0);
    CHECK(sl_redis_create(loop, &config, &redis, reason, sizeof(reason)) == 0);
}

static void end(void)
{
    sl_redis_destroy(redis);
    sl_loop_destroy(loop);
    close(listener);
    if (peer >= 0) {
        close(peer);
    }
    sl_clock_use(NULL);
}

static bool accepted(void)
{
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0 && peer >= 0) {
        close(peer);
    }
    peer = fd >= 0 ? fd : peer;
    return fd >= 0;
}

static void say(const char *text)
{
    CHECK(send(peer, text, strlen(text), MSG_NOSIGNAL) == (ssize_t)strlen(text));
}

/* Waits until the client has sent something that ends with this; returns all of it. */
static const char *hear(const char *tail)
{
    static char heard[4096];
    size_t len = 0;
    for (int i = 0; len < strlen(tail) || strcmp(heard + len - strlen(tail), tail) != 0; i++) {
        CHECK(i < TURNS);
        sl_loop_turn(loop, 1);
        ssize_t n = recv(peer, heard + len, sizeof(heard) - 1 - len, 0);
        CHECK(n > 0 || (n < 0 && errno == EAGAIN));
        len += n > 0 ? (size_t)n : 0;
        heard[len] = '\0';
    }
    return heard;
}

/* Accepts the client's next try and answers its greeting with this. */
static void greet(const char *answers)
{
    pass_ms(2000); /* The backoff, or the first try. */
    WAIT(accepted());
    hear("$4\r\nPING\r\n");
    say(answers);
}

static void start_up(void)
{
    start(8);
    greet(NAMED INFO POLICY PONG);
    WAIT(ups == 1);
    CHECK_STR(run_id, "abc12");
}

struct answer {
    int calls, err;
    long long sum;
};

static void on_answer(void *ctx, int err, const struct redisReply *reply)
{
    struct answer *answer = ctx;
    answer->calls++;
    answer->err = err;
    answer->sum = sl_reply_int(reply);
    for (size_t i = 0; i < sl_reply_len(reply); i++) {
        answer->sum += sl_reply_int(sl_reply_at(reply, i));
    }
}

static void ask(struct answer *answer)
{
    const struct sl_span argv[] = {SL_SPAN("ASK")};
    CHECK_INT(sl_redis_command(redis, 1, argv, on_answer, answer), 0);
}

TEST(a_reply_may_come_byte_by_byte)
{
    start_up();
    struct answer first = {0}, second = {0};
    ask(&first);
    ask(&second);
    hear("ASK\r\n*1\r\n$3\r\nASK\r\n"); /* Both in one piece. */
    for (const char *c = "*3\r\n:1\r\n$2\r\n20\r\n*-1\r\n:5\r\n"; *c != '\0'; c++) {
        CHECK_INT(second.calls, 0);
        say((char[]){*c, '\0'});
        sl_loop_turn(loop, 1);
    }
    WAIT(second.calls == 1);
    CHECK_INT(first.calls, 1);
    CHECK_INT(first.sum, 21);
    CHECK_INT(second.sum, 5);
    end();
}

TEST(what_is_no_reply_closes_the_connection)
{
    static const char *const wrong[] = {"HTTP/1.1 400 Bad Request\r\n", "*1\r\n$-7\r\n", ":x\r\n"};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        start_up();
        struct answer answer = {0};
        ask(&answer);
        hear("ASK\r\n");
        say(wrong[i]);
        WAIT(answer.calls == 1);
        CHECK_INT(answer.err, -SL_ECONN);
        CHECK_INT(downs, 1);
        CHECK(strstr(why, "reading replies of 127.0.0.1") != NULL);
        greet(NAMED INFO POLICY PONG ":1\r\n");
        WAIT(ups == 2);
        end();
    }
}

/* What is still on its way there must not come behind what is said on the next one. */
TEST(a_connection_that_was_given_up_is_ended_by_the_next)
{
    start_up();
    say("-ERR\r\n");
    WAIT(downs == 1);
    greet(NAMED INFO POLICY PONG);
    hear("CLIENT\r\n$4\r\nKILL\r\n$2\r\nID\r\n$1\r\n7\r\n");
    CHECK_INT(ups, 1); /* Not before that is done. */
    say("-ERR No such client\r\n");
    WAIT(ups == 2);
    end();
}

TEST(on_another_server_nothing_is_ended)
{
    start_up();
    say("-ERR\r\n");
    WAIT(downs == 1);
    greet(NAMED OTHER_INFO POLICY "-LOADING Redis is loading\r\n");
    WAIT(downs == 2);
    greet(NAMED OTHER_INFO POLICY PONG);
    WAIT(ups == 2);
    end();
}

TEST(a_reply_to_nothing_closes_the_connection)
{
    start_up();
    say("-ERR you have been\tdisconnected\r\n");
    WAIT(downs == 1);
    CHECK(strstr(why, "ERR you have been disconnected") != NULL);
    end();
}

TEST(a_greeting_that_fails_is_tried_again)
{
    static const struct {
        const char *answers, *says;
    } cases[] = {
        {"-ERR max number of clients reached\r\n", "refused CLIENT: ERR max number"},
        {NAMED "-NOPERM no\r\n" POLICY PONG, "refused INFO: NOPERM"},
        {NAMED "$10\r\n# Server\r\n\r\n" POLICY PONG, "refused INFO: unexpected"},
        {NAMED ":1\r\n" POLICY PONG, "refused INFO: unexpected"},
        {NAMED INFO POLICY "-LOADING Redis is loading\r\n", "refused PING: LOADING"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        start(8);
        greet(cases[i].answers);
        WAIT(downs == 1);
        if (strstr(why, cases[i].says) == NULL) {
            fprintf(stderr, "\"%s\" does not say \"%s\"\n", why, cases[i].says);
            abort();
        }
        greet(NAMED INFO POLICY PONG);
        WAIT(ups == 1);
        end();
    }
}

TEST(a_user_may_be_denied_the_optional_steps)
{
    start(8);
    greet(DENIED INFO DENIED PONG);
    WAIT(ups == 1);
    CHECK_INT(downs, 0);
    end();
}

TEST(no_answer_in_time_closes_the_connection)
{
    start_up();
    struct answer old = {0}, young = {0};
    ask(&old);
    pass_ms(1);
    ask(&young);
    pass_ms(COMMAND_MS - 2);
    CHECK_INT(old.calls, 0);
    pass_ms(1);
    CHECK_INT(old.err, -SL_ETIMEDOUT);
    CHECK_INT(young.err, -SL_ECONN);
    CHECK_INT(old.calls + young.calls, 2);
    CHECK_INT(downs, 1);
    CHECK(strstr(why, "did not answer for 1000 ms") != NULL);
    end();
}

TEST(an_answered_command_does_not_stop_the_watch_on_the_next)
{
    start_up();
    struct answer first = {0}, second = {0};
    ask(&first);
    pass_ms(600);
    ask(&second);
    hear("ASK\r\n*1\r\n$3\r\nASK\r\n");
    say(":1\r\n");
    WAIT(first.calls == 1);
    pass_ms(COMMAND_MS - 1);
    CHECK_INT(second.calls, 0);
    pass_ms(1);
    CHECK_INT(second.err, -SL_ETIMEDOUT);
    end();
}

TEST(a_pause_of_our_own_is_not_the_servers_fault)
{
    start_up();
    struct answer answer = {0};
    ask(&answer);
    hear("ASK\r\n");
    now_us += 10000ull * COMMAND_MS;
    sl_loop_turn(loop, 0); /* Sets the wait, which is over before the descriptors are looked at. */
    say(":7\r\n");
    WAIT(answer.calls == 1);
    CHECK_INT(answer.sum, 7);
    CHECK_INT(downs, 0);
    end();
}

TEST(an_idle_connection_is_tried)
{
    start_up();
    pass_ms(PING_MS);
    hear("PING\r\n");
    say(PONG);
    sl_loop_turn(loop, 1);
    pass_ms(PING_MS);
    CHECK_INT(downs, 0);
    hear("PING\r\n");
    pass_ms(COMMAND_MS);
    CHECK_INT(downs, 1);
    end();
}

TEST(a_message_may_come_before_the_pong)
{
    start_up();
    int main_peer = peer;
    peer = -1;
    CHECK_INT(sl_redis_subscribe(redis, SL_SPAN("news")), 0);
    pass_ms(1);
    WAIT(accepted());
    hear("$4\r\nPING\r\n");
    say(NAMED PONG);
    hear("news\r\n");
    say("*3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n");
    WAIT(subscribed == 1);
    pass_ms(PING_MS);
    hear("PING\r\n");
    say("*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$1\r\na\r\n*2\r\n$4\r\npong\r\n$0\r\n\r\n"
        "*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$1\r\nb\r\n");
    WAIT(strcmp(messages, "ab") == 0);
    say("*2\r\n$4\r\npong\r\n$0\r\n\r\n"); /* One too many: it must have paired before. */
    WAIT(recv(peer, (char[1]){0}, 1, 0) == 0);
    CHECK_INT(subscribed, 1);
    close(main_peer);
    end();
}

TEST(too_much_unsent_is_refused_and_taken_back)
{
    enum { SIZE = 15 << 20 };
    start_up();
    char *value = calloc(1, SIZE);
    CHECK(value != NULL);
    struct answer answers[5] = {{0}};
    const struct sl_span argv[] = {SL_SPAN("SET"), SL_SPAN("k"), {value, SIZE}};
    for (int i = 0; i < 4; i++) {
        CHECK_INT(sl_redis_command(redis, 3, argv, on_answer, &answers[i]), 0);
    }
    CHECK_INT(sl_redis_command(redis, 3, argv, on_answer, &answers[4]), -SL_EAGAIN);
    ask(&answers[4]);
    size_t rest = 4 * (SIZE + strlen("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$15728640\r\n\r\n"));
    for (int i = 0; rest > 0; i++) {
        CHECK(i < TURNS * 10);
        sl_loop_turn(loop, 1);
        ssize_t n = recv(peer, value, rest < SIZE ? rest : SIZE, 0);
        rest -= n > 0 ? (size_t)n : 0;
    }
    CHECK_STR(hear("ASK\r\n"), "*1\r\n$3\r\nASK\r\n");
    say("+OK\r\n+OK\r\n+OK\r\n+OK\r\n:9\r\n");
    WAIT(answers[4].calls == 1);
    CHECK_INT(answers[4].sum, 9);
    CHECK_INT(answers[0].calls + answers[3].calls, 2);
    free(value);
    end();
}

TEST(a_refused_connection_is_tried_again_soon_then_later)
{
    start(-1); /* Bound, not listening. */
    uint64_t last_us = now_us;
    for (int tries = 0; tries < 20; tries++) {
        for (int i = 0; downs == tries; i++) {
            CHECK(i < TURNS);
            pass_ms(1);
        }
        uint64_t gap_ms = (now_us - last_us) / 1000;
        CHECK(gap_ms <= (tries < 2 ? 110 : 2010));
        CHECK(strstr(why, "Connection refused") != NULL);
        last_us = now_us;
    }
    CHECK(listen(listener, 8) == 0);
    greet(NAMED INFO POLICY PONG);
    WAIT(ups == 1);
    end();
}

TEST(a_connection_that_hangs_times_out)
{
    start(0);
    struct sockaddr_in in;
    socklen_t len = sizeof(in);
    int fill[8];
    CHECK(getsockname(listener, (struct sockaddr *)&in, &len) == 0);
    for (int i = 0; i < 8; i++) { /* The queue of a listener that never accepts. */
        fill[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        CHECK(connect(fill[i], (struct sockaddr *)&in, sizeof(in)) == 0 || errno == EINPROGRESS);
    }
    pass_ms(1);
    sl_loop_turn(loop, 1);
    pass_ms(CONNECT_MS - 1);
    CHECK_INT(downs, 0);
    pass_ms(1);
    CHECK_INT(downs, 1);
    CHECK(strstr(why, "timed out") != NULL);
    for (int i = 0; i < 8; i++) {
        close(fill[i]);
    }
    end();
}

TEST(a_bad_url_is_refused_at_once)
{
    struct sl_redis_config config = {.url = "redis://cache:no", .on_link = on_link};
    char reason[100];
    struct sl_redis *none = NULL;
    CHECK(sl_loop_create(&loop) == 0);
    CHECK_INT(sl_redis_create(loop, &config, &none, reason, sizeof(reason)), -SL_EINVAL);
    CHECK(strstr(reason, "port") != NULL && none == NULL);
    sl_redis_destroy(none);
    sl_loop_destroy(loop);
}

int main(int argc, char **argv)
{
    const struct test_case cases[] = {
        {"a_reply_may_come_byte_by_byte", a_reply_may_come_byte_by_byte},
        {"what_is_no_reply_closes_the_connection", what_is_no_reply_closes_the_connection},
        {"a_connection_that_was_given_up_is_ended_by_the_next",
         a_connection_that_was_given_up_is_ended_by_the_next},
        {"on_another_server_nothing_is_ended", on_another_server_nothing_is_ended},
        {"a_reply_to_nothing_closes_the_connection", a_reply_to_nothing_closes_the_connection},
        {"a_greeting_that_fails_is_tried_again", a_greeting_that_fails_is_tried_again},
        {"a_user_may_be_denied_the_optional_steps", a_user_may_be_denied_the_optional_steps},
        {"no_answer_in_time_closes_the_connection", no_answer_in_time_closes_the_connection},
        {"an_answered_command_does_not_stop_the_watch_on_the_next",
         an_answered_command_does_not_stop_the_watch_on_the_next},
        {"a_pause_of_our_own_is_not_the_servers_fault",
         a_pause_of_our_own_is_not_the_servers_fault},
        {"an_idle_connection_is_tried", an_idle_connection_is_tried},
        {"a_message_may_come_before_the_pong", a_message_may_come_before_the_pong},
        {"too_much_unsent_is_refused_and_taken_back", too_much_unsent_is_refused_and_taken_back},
        {"a_refused_connection_is_tried_again_soon_then_later",
         a_refused_connection_is_tried_again_soon_then_later},
        {"a_connection_that_hangs_times_out", a_connection_that_hangs_times_out},
        {"a_bad_url_is_refused_at_once", a_bad_url_is_refused_at_once},
        {NULL, NULL},
    };
    return run_tests(cases, argc, argv);
}
