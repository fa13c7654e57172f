/* The embed stage, questions and chunks, with everything around it failing in turn. Its cache in
 * Redis is played here, in the place of redis.c: a command waits until the driver answers it. */
#include "common/redis_reply.h"
#include "tests/support/alloc_fail.h"
#include "tests/support/test.h"
#include "tests/support/torture/torture.h"
#include "workers/embed/embed.h"

#include <stdlib.h>
#include <string.h>

enum { QUERIES, CHUNKS, COMMANDS_MAX = 64, KEPT_MAX = 8, VALUE_MAX = 100, REPLY_MAX = 400 };

/* --- Redis --- */

static struct command {
    sl_redis_cb *cb;
    void *ctx;
    char reply[REPLY_MAX];
    size_t len;
} commands[COMMANDS_MAX];
static size_t command_count;

static struct {
    char key[40];
    char value[VALUE_MAX];
    size_t len;
} kept[KEPT_MAX];
static size_t kept_count;

struct sl_redis *sl_coord_redis(const struct sl_coord *coord)
{
    (void)coord;
    return NULL;
}

const char *sl_coord_prefix(const struct sl_coord *coord)
{
    (void)coord;
    return "sluice";
}

uint64_t sl_coord_result_ttl_ms(const struct sl_coord *coord)
{
    (void)coord;
    return 60000;
}

static size_t place_of(struct sl_span key)
{
    size_t i = 0;
    while (i < kept_count && !sl_span_is(key, kept[i].key)) {
        i++;
    }
    return i;
}

static void set(struct sl_span key, struct sl_span value)
{
    size_t i = place_of(key);
    CHECK(i < KEPT_MAX && key.len < sizeof(kept[i].key) && value.len <= VALUE_MAX);
    kept_count = i == kept_count ? i + 1 : kept_count;
    memcpy(kept[i].key, key.data, key.len);
    kept[i].key[key.len] = '\0';
    memcpy(kept[i].value, value.data, value.len);
    kept[i].len = value.len;
}

static void put(struct command *command, const char *text, size_t len)
{
    CHECK(command->len + len < sizeof(command->reply));
    memcpy(command->reply + command->len, text, len);
    command->len += len;
}

static void get(struct command *command, struct sl_span key)
{
    char head[16];
    size_t i = place_of(key);
    if (i == kept_count) {
        put(command, "$-1\r\n", 5);
        return;
    }
    put(command, head, (size_t)snprintf(head, sizeof(head), "$%zu\r\n", kept[i].len));
    put(command, kept[i].value, kept[i].len);
    put(command, "\r\n", 2);
}

int sl_redis_command(struct sl_redis *redis, size_t argc, const struct sl_span *argv,
                     sl_redis_cb *cb, void *ctx)
{
    (void)redis;
    if (torture_strike(TORTURE_OTHER) != 0) {
        return -SL_EAGAIN;
    }
    CHECK(command_count < COMMANDS_MAX);
    struct command *command = &commands[command_count++];
    *command = (struct command){.cb = cb, .ctx = ctx};
    if (sl_span_is(argv[0], "SET")) {
        set(argv[1], argv[2]);
        put(command, "+OK\r\n", 5);
        return 0;
    }
    if (argc > 2) {
        char head[16];
        put(command, head, (size_t)snprintf(head, sizeof(head), "*%zu\r\n", argc - 1));
    }
    for (size_t i = 1; i < argc; i++) {
        get(command, argv[i]);
    }
    return 0;
}

static void reply(const struct command *command, struct sl_span text)
{
    const char *why;
    struct redisReply *value = NULL;
    long paused = sl_test_pause_alloc();
    struct redisReader *reader = sl_redis_reader_create();
    CHECK(reader != NULL && sl_redis_reader_feed(reader, text));
    CHECK(sl_redis_reader_next(reader, &value, &why) == 1);
    sl_test_resume_alloc(paused);
    command->cb(command->ctx, 0, value);
    sl_redis_reply_destroy(value);
    sl_redis_reader_destroy(reader);
}

static struct command take_command(void)
{
    struct command command = commands[0];
    memmove(commands, commands + 1, --command_count * sizeof(commands[0]));
    return command;
}

static bool answer_command(void)
{
    if (command_count == 0) {
        return false;
    }
    struct command command = take_command();
    switch (torture_strike(TORTURE_OTHER)) {
    case 0:
        reply(&command, (struct sl_span){command.reply, command.len});
        break;
    case 1:
        command.cb(command.ctx, -SL_ECONN, NULL);
        break;
    case 2:
        reply(&command, SL_SPAN(":3\r\n"));
        break;
    case 3:
        reply(&command, SL_SPAN("*2\r\n$3\r\nabc\r\n*0\r\n"));
        break;
    default:
        reply(&command, SL_SPAN("$40\r\n0123456789012345678901234567890123456789\r\n"));
    }
    return true;
}

static void end_redis(void)
{
    while (command_count > 0) {
        struct command command = take_command();
        command.cb(command.ctx, -SL_ECLOSED, NULL);
    }
    kept_count = 0;
}

/* --- what comes in, and the model --- */

static void ask(const char *id, const char *json)
{
    torture_feed(&(struct fake_record){.topic = QUERIES,
                                       .id = id,
                                       .type = "application/json",
                                       .reply_to = "sluice.replies:3",
                                       .timestamp_ms = fx_now(),
                                       .key = sl_span_of(id),
                                       .value = sl_span_of(json)});
}

static void feed(void)
{
    static const char text[] = "One sentence that is longer than what is not cut any more. Two.";
    static struct sl_span texts[] = {{text, sizeof(text) - 1}, {"two", 3}};
    const struct sl_batch batch = {.doc_id = SL_SPAN("doc"),
                                   .tenant = SL_SPAN("default"),
                                   .collection = SL_SPAN("default"),
                                   .version = 1,
                                   .total_chunks = 2,
                                   .texts = texts,
                                   .len = 2};
    ask("first", "{\"query\": \"why?\"}");
    ask("second", "{\"query\": \"why not?\", \"filter\": {\"lang\": \"en\"}}");
    ask("invalid", "{\"query\": 1}");
    ask("bad", "{");
    torture_feed_batch(CHUNKS, "doc", &batch);
}

/* As many vectors as there are texts. */
static const char *answer(const char *url, const char *body)
{
    static const char *const answers[] = {
        "{\"data\":[{\"index\":0,\"embedding\":[1,2]}]}",
        "{\"data\":[{\"index\":1,\"embedding\":[3,4]},{\"index\":0,\"embedding\":"
        "\"AACAPwAAAEA=\"}]}",
        "{\"data\":[{\"index\":0,\"embedding\":[1,2]},{\"index\":1,\"embedding\":[3,4]},"
        "{\"index\":2,\"embedding\":[5,6]}]}"};
    size_t texts = 1;
    (void)url;
    for (const char *at = strstr(body, "\",\""); at != NULL; at = strstr(at + 1, "\",\"")) {
        texts++;
    }
    CHECK(texts <= sizeof(answers) / sizeof(answers[0]));
    return answers[texts - 1];
}

int main(void)
{
    const struct torture torture = {.stage = &embed_stage,
                                    .feed = feed,
                                    .answer = answer,
                                    .drive = answer_command,
                                    .bulk_output = "vectors",
                                    .end = end_redis};
    setenv("SLUICE_EMBED_URL", "http://127.0.0.1:1/v1", 1);
    setenv("SLUICE_EMBED_BATCH", "2", 1);
    return torture_run(&torture);
}
