/*
 * The emulated Redis of the simulation against a real one: the same commands, the same conversions,
 * and the script calls of whole schedules, with the same replies byte by byte. Of an error only the
 * first word is compared.
 *
 * Calls are those that the simulation (tests/unit/test_sim.c) makes with some seeds. Redis's clock
 * cannot be set, so that scripts get the simulation's time as two more arguments; keys expire by
 * real time on both.
 */
#include "tests/support/redis_emulator/emulator.h"
#include "tests/support/redis_fixture.h"
#include "tests/support/test.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdint.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { BYTES_MAX = 64 << 20, WORDS_MAX = 16, SEEDS = 6, ARGS_MAX = 4096 };

static struct redis_fixture *fixture;
static int fd = -1;
static struct emulator *emulator;

/* --- the real one --- */

static void start(void)
{
    struct sockaddr_in in = {.sin_family = AF_INET};
    fixture = redis_fixture_create(NULL);
    redis_fixture_start(fixture);
    in.sin_port = htons((uint16_t)redis_fixture_port(fixture));
    in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(fd >= 0 && connect(fd, (struct sockaddr *)&in, sizeof(in)) == 0);
    emulator = emulator_create();
}

static void stop(void)
{
    emulator_destroy(emulator);
    close(fd);
    redis_fixture_destroy(fixture);
}

/* The length of the reply at the beginning; 0: not all of it is there. */
static size_t reply_len(struct sl_span bytes)
{
    const char *end = bytes.len > 0 ? memchr(bytes.data, '\n', bytes.len) : NULL;
    if (end == NULL) {
        return 0;
    }
    size_t line = (size_t)(end - bytes.data) + 1;
    long long number = atoll(bytes.data + 1);
    if (bytes.data[0] == '$' && number >= 0) {
        size_t len = line + (size_t)number + 2;
        return len <= bytes.len ? len : 0;
    }
    size_t at = line;
    for (long long i = 0; bytes.data[0] == '*' && i < number; i++) {
        size_t len = reply_len((struct sl_span){bytes.data + at, bytes.len - at});
        if (len == 0) {
            return 0;
        }
        at += len;
    }
    return at;
}

static void ask_real(size_t argc, const struct sl_span *argv, struct sl_buf *reply)
{
    struct sl_buf out;
    sl_buf_init(&out, BYTES_MAX);
    sl_buf_printf(&out, "*%zu\r\n", argc);
    for (size_t i = 0; i < argc; i++) {
        sl_buf_printf(&out, "$%zu\r\n", argv[i].len);
        sl_buf_append_span(&out, argv[i]);
        sl_buf_append(&out, "\r\n", 2);
    }
    CHECK(sl_buf_error(&out) == 0);
    CHECK(send(fd, out.data, out.len, MSG_NOSIGNAL) == (ssize_t)out.len);
    while (reply_len(sl_buf_span(reply)) == 0) {
        char bytes[1 << 16];
        ssize_t len = recv(fd, bytes, sizeof(bytes), 0);
        CHECK(len > 0);
        sl_buf_append(reply, bytes, (size_t)len);
        CHECK(sl_buf_error(reply) == 0);
    }
    sl_buf_fini(&out);
}

/* --- both --- */

static struct sl_span first_word(struct sl_span reply)
{
    const char *space = memchr(reply.data, ' ', reply.len);
    return (struct sl_span){reply.data, space != NULL ? (size_t)(space - reply.data) : reply.len};
}

static void compare(const char *what, struct sl_span real, struct sl_span ours)
{
    bool errors = real.data[0] == '-' && ours.data[0] == '-';
    bool same =
        errors ? sl_span_equal(first_word(real), first_word(ours)) : sl_span_equal(real, ours);
    if (!same) {
        fprintf(stderr, "%s\nreal:\n" SL_SPAN_FMT "\nemulated:\n" SL_SPAN_FMT "\n", what,
                SL_SPAN_ARG(real), SL_SPAN_ARG(ours));
        abort();
    }
}

static void tell_time(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    emulator_set_time(emulator, (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000);
}

static void ask_both(const char *what, size_t argc, const struct sl_span *argv)
{
    struct sl_buf real, ours;
    sl_buf_init(&real, BYTES_MAX);
    sl_buf_init(&ours, BYTES_MAX);
    tell_time();
    ask_real(argc, argv, &real);
    if (sl_span_is(argv[0], "EVAL")) {
        emulator_eval(emulator, argv[1], (size_t)atoll(argv[2].data), argc - 3, argv + 3, &ours);
    } else {
        emulator_command(emulator, argc, argv, &ours);
    }
    compare(what, sl_buf_span(&real), sl_buf_span(&ours));
    sl_buf_fini(&real);
    sl_buf_fini(&ours);
}

/* In words, which are separated by single spaces; a word of two quotes is empty. */
static void say_both(const char *words)
{
    struct sl_span argv[WORDS_MAX];
    size_t argc = 0;
    for (const char *at = words; *at != '\0';) {
        size_t len = strcspn(at, " ");
        CHECK(argc < WORDS_MAX);
        argv[argc++] = len == 2 && at[0] == '"' ? SL_SPAN("") : (struct sl_span){at, len};
        at += len + (at[len] == ' ' ? 1 : 0);
    }
    ask_both(words, argc, argv);
}

static void flush_both(void)
{
    struct sl_buf reply;
    const struct sl_span argv[] = {SL_SPAN("FLUSHALL")};
    sl_buf_init(&reply, 1000);
    ask_real(1, argv, &reply);
    sl_buf_fini(&reply);
    emulator_flush(emulator);
}

/* --- cases --- */

/* In this order: each builds on what the ones before left. */
static const char *const commands[] = {
    "GET none",
    "SET s v",
    "GET s",
    "SET s w NX",
    "GET s",
    "SET s x PX 100000",
    "SET s x PX 0",
    "SET s x PX y",
    "SET s x OR",
    "GET",
    "GET s t",
    "HGET s f",
    "ZADD s 1 m",
    "SADD s m",
    "RPUSH s m",
    "EXISTS s",
    "EXISTS none",
    "EXISTS s s none",
    "PTTL none",
    "PTTL z",
    "PEXPIRE none 10",
    "DEL s none",
    "DEL none",
    "HSET h a 1 b 2",
    "HSET h a 3 c 4",
    "HSET h a",
    "HGET h a",
    "HGET h z",
    "HGET none a",
    "HMGET h a z b",
    "HMGET none a b",
    "HDEL h b z",
    "HEXISTS h a",
    "HEXISTS h b",
    "HEXISTS none b",
    "HSETNX h a 9",
    "HSETNX h n 9",
    "HINCRBY h a 4",
    "HINCRBY h new -4",
    "HINCRBY h a x",
    "HSET h text t",
    "HINCRBY h text 1",
    "HGETALL h",
    "HGETALL none",
    "HDEL h a c n new text",
    "PTTL h",
    "ZADD z 2 b",
    "ZADD z 1 c",
    "ZADD z 2 a",
    "ZADD z 3 b",
    "ZADD z x b",
    "ZADD z 1700000000000 t",
    "ZCARD z",
    "ZCARD none",
    "ZSCORE z t",
    "ZSCORE z x",
    "ZSCORE none x",
    "ZRANGE z 0 0 WITHSCORES",
    "ZRANGE z 0 -1",
    "ZRANGE z -2 -1 WITHSCORES",
    "ZRANGE z 5 9",
    "ZRANGE z 3 1",
    "ZRANGE none 0 0",
    "ZRANGE z 0 x",
    "ZRANGE z 0 0 WORDS",
    "ZREMRANGEBYSCORE z -inf 1",
    "ZRANGE z 0 -1",
    "ZREMRANGEBYSCORE z (2 (3",
    "ZRANGE z 0 -1",
    "ZREVRANGEBYSCORE z +inf -inf WITHSCORES",
    "ZREVRANGEBYSCORE z (3 -inf WITHSCORES LIMIT 0 5",
    "ZREVRANGEBYSCORE z +inf -inf LIMIT 1 1",
    "ZREVRANGEBYSCORE none +inf -inf",
    "ZREMRANGEBYSCORE z 0 x",
    "ZREM z a b x",
    "ZREM none a",
    "ZRANGE z 0 -1",
    "ZREMRANGEBYSCORE z -inf +inf",
    "ZCARD z",
    "PTTL z",
    "RPUSH l a b",
    "RPUSH l c",
    "LLEN l",
    "LLEN none",
    "LRANGE l 0 -1",
    "LRANGE l 1 1",
    "LRANGE l -1 -1",
    "LRANGE none 0 -1",
    "LRANGE l 5 6",
    "SADD t a b a",
    "SADD t a",
    "SCARD t",
    "SCARD none",
    "SREM t a x",
    "SMEMBERS t",
    "SREM t b",
    "SMEMBERS t",
    "PUBLISH c m",
    "HGET l a",
    "LLEN h2",
    "GET l",
    "ZCARD l",
    "SCARD l",
    "PEXPIRE l 0",
    "LLEN l",
    "PEXPIRE l x",
};

static const char *const conversions[] = {
    "return 3.99",
    "return -3.99",
    "return 1700000000000123",
    "return '1700000000000123'",
    "return nil",
    "return false",
    "return true",
    "return {}",
    "return {1, 'a', {2, false}}",
    "return {1, nil, 3}",
    "return {1, 2.5, n = 3}",
    "return {err = 'MINE is wrong'}",
    "return {ok = 'fine'}",
    "return function() end",
    "return 0/0 == 0/0",
    "return redis.call('GET', 'none') == false",
    "return redis.call('HMGET', 'none', 'a', 'b')",
    "return redis.call('SET', 'n', 1700000000000)",
    "return redis.call('GET', 'n')",
    "return redis.call('SET', 'n', 1700000000000123)",
    "return redis.call('GET', 'n')",
    "return redis.call('SET', 'n', 0.1)",
    "return redis.call('GET', 'n')",
    "return redis.call('SET', 'n', 2^60)",
    "return redis.call('GET', 'n')",
    "return 1700000000000123 .. ''",
    "return string.format('%.0f', 1700000000000123)",
    "return type(redis.call('SET', 'n', 'x').ok)",
    "return redis.call('ZADD', 'z', 1.5, 'm')",
    "return redis.call('ZSCORE', 'z', 'm')",
    "return redis.call('ZADD', 'z', 1e13 + 1, 'm')",
    "return redis.call('ZRANGE', 'z', 0, 0, 'WITHSCORES')[2] - 1",
    "return tonumber(redis.call('ZSCORE', 'z', 'none') or nil)",
    "return redis.call('GET', 'z')",
    "redis.call('SET', 'before', '1') redis.call('GET', 'z')",
    "return redis.call('GET', 'before')",
    "return redis.call('GET')",
    "return redis.call('SET', 'n', {})",
    "return redis.call('SET', 'n', nil)",
    "x = 1",
    "return unknown",
    "return nil + 1",
    "error('mine')",
    "return {KEYS[1], ARGV[1], ARGV[2]}",
    "return #ARGV",
    "return redis.call('HGETALL', 'none')",
    "return {redis.call('TIME')[3]}",
    "return {1, {err = 'IN an array'}}",
    "return -0.0",
    "return 1e100 > 1",
};

TEST(commands_are_answered_alike)
{
    for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
        say_both(commands[i]);
    }
}

TEST(values_are_converted_alike)
{
    for (size_t i = 0; i < sizeof(conversions) / sizeof(conversions[0]); i++) {
        const struct sl_span argv[] = {SL_SPAN("EVAL"), sl_span_of(conversions[i]), SL_SPAN("1"),
                                       SL_SPAN("key"), SL_SPAN("")};
        ask_both(conversions[i], 5, argv);
    }
}

static void limit_memory(bool full)
{
    struct sl_buf reply;
    const struct sl_span argv[] = {SL_SPAN("CONFIG"), SL_SPAN("SET"), SL_SPAN("maxmemory"),
                                   full ? SL_SPAN("1") : SL_SPAN("0")};
    sl_buf_init(&reply, 1000);
    ask_real(4, argv, &reply);
    CHECK(sl_span_is(sl_buf_span(&reply), "+OK\r\n"));
    sl_buf_fini(&reply);
    emulator_set_full(emulator, full);
}

TEST(a_full_redis_refuses_alike)
{
    static const char *const scripts[] = {
        "return redis.call('SET', 'a', '2')",
        "return {redis.call('GET', 'a'), redis.call('ZREM', 'z', 'm'), redis.call('PTTL', 'a')}",
        "redis.call('ZREM', 'z', 'none') return redis.call('SET', 'b', '1')",
        "redis.call('PEXPIRE', 'a', 100000) return redis.call('HSET', 'h', 'f', '1')",
        "redis.call('PUBLISH', 'c', 'm') return redis.call('HSET', 'h', 'f', '2')",
        "redis.call('GET', 'a') return redis.call('ZADD', 'z', 1, 'm')",
        "redis.call('HDEL', 'h', 'none') return redis.call('RPUSH', 'l', '1')",
    };
    say_both("SET a 1");
    say_both("ZADD z 1 m");
    limit_memory(true);
    for (size_t i = 0; i < sizeof(scripts) / sizeof(scripts[0]); i++) {
        const struct sl_span argv[] = {SL_SPAN("EVAL"), sl_span_of(scripts[i]), SL_SPAN("0")};
        ask_both(scripts[i], 3, argv);
    }
    say_both("HGETALL h");
    say_both("GET b");
    say_both("SET c 1");
    limit_memory(false);
}

/* --- the calls of the simulation --- */

/* With the last two arguments in place of Redis's clock. */
static void put_script(struct sl_buf *out, const char *text)
{
    static const char clock[] = "redis.call('TIME')";
    const char *at;
    while ((at = strstr(text, clock)) != NULL) {
        sl_buf_append(out, text, (size_t)(at - text));
        sl_buf_append_text(out, "{ARGV[#ARGV - 1], ARGV[#ARGV]}");
        text = at + strlen(clock);
    }
    sl_buf_append_text(out, text);
    CHECK(sl_buf_error(out) == 0);
}

static char *read_bytes(FILE *file, size_t len)
{
    char *bytes = malloc(len + 1);
    CHECK(bytes != NULL && fread(bytes, 1, len, file) == len);
    bytes[len] = '\0';
    return bytes;
}

static void replay_call(FILE *file, long long us, size_t keys, size_t argc, size_t text_len)
{
    static struct sl_span argv[ARGS_MAX + 5];
    char *texts[ARGS_MAX], number[24], seconds[24], rest[24];
    char *text = read_bytes(file, text_len);
    struct sl_buf script;
    CHECK(argc <= ARGS_MAX);
    sl_buf_init(&script, BYTES_MAX);
    put_script(&script, text);
    snprintf(number, sizeof(number), "%zu", keys);
    argv[0] = SL_SPAN("EVAL");
    argv[1] = sl_buf_span(&script);
    argv[2] = sl_span_of(number);
    for (size_t i = 0; i < argc; i++) {
        size_t len;
        CHECK(fscanf(file, "%zu", &len) == 1 && fgetc(file) == '\n');
        texts[i] = read_bytes(file, len);
        argv[3 + i] = (struct sl_span){texts[i], len};
    }
    snprintf(seconds, sizeof(seconds), "%lld", us / 1000000);
    snprintf(rest, sizeof(rest), "%lld", us % 1000000);
    argv[3 + argc] = sl_span_of(seconds);
    argv[4 + argc] = sl_span_of(rest);
    ask_both(text, argc + 5, argv);
    for (size_t i = 0; i < argc; i++) {
        free(texts[i]);
    }
    sl_buf_fini(&script);
    free(text);
}

static size_t replay(const char *path)
{
    FILE *file = fopen(path, "r");
    long long us;
    size_t keys, argc, text_len, count = 0;
    CHECK(file != NULL);
    while (fscanf(file, "%lld %zu %zu %zu", &us, &keys, &argc, &text_len) == 4) {
        CHECK(fgetc(file) == '\n');
        replay_call(file, us, keys, argc, text_len);
        count++;
    }
    CHECK(feof(file));
    fclose(file);
    return count;
}

TEST(the_calls_of_a_cluster_are_answered_alike)
{
    char path[] = "/tmp/sluice-calls-XXXXXX", command[600];
    int file = mkstemp(path);
    CHECK(file >= 0);
    close(file);
    for (int seed = 1; seed <= SEEDS; seed++) {
        snprintf(command, sizeof(command), "%s %d 1 /dev/null %s >/dev/null", SIM_PROGRAM, seed,
                 path);
        CHECK_INT(system(command), 0);
        flush_both();
        size_t calls = replay(path);
        fprintf(stderr, "  seed %d: %zu calls\n", seed, calls);
        CHECK(calls > 50);
    }
    unlink(path);
}

int main(int argc, char **argv)
{
    static const struct test_case cases[] = {
        {"commands_are_answered_alike", commands_are_answered_alike},
        {"values_are_converted_alike", values_are_converted_alike},
        {"a_full_redis_refuses_alike", a_full_redis_refuses_alike},
        {"the_calls_of_a_cluster_are_answered_alike", the_calls_of_a_cluster_are_answered_alike},
        {NULL, NULL},
    };
    start();
    int rv = run_tests(cases, argc, argv);
    stop();
    return rv;
}
