/* The fake Redis. Replies are written as Redis would and read by the real reader. */
#include "tests/support/stage/fake_redis.h"

#include "common/coord.h"
#include "common/redis_reply.h"
#include "tests/support/test.h"

enum { KEYS_MAX = 64, COMMANDS_MAX = 1024, BYTES_MAX = 8 << 20, KEY_MAX = 100 };

static struct kept {
    char key[KEY_MAX];
    struct sl_buf value;
} kept[KEYS_MAX];
static size_t kept_len;

static struct command {
    sl_redis_cb *cb;
    void *ctx;
    struct sl_buf reply;
} commands[COMMANDS_MAX];
static size_t first, len, sent;

int fake_redis_refusal;
const char *(*fake_redis_script)(size_t argc, const struct sl_span *argv);

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

/* NULL: there is none. */
static struct kept *find(struct sl_span key)
{
    for (size_t i = 0; i < kept_len; i++) {
        if (sl_span_is(key, kept[i].key)) {
            return &kept[i];
        }
    }
    return NULL;
}

static void get(struct sl_span key, struct sl_buf *reply)
{
    const struct kept *found = find(key);
    if (found == NULL) {
        sl_buf_append_text(reply, "$-1\r\n");
        return;
    }
    sl_buf_printf(reply, "$%zu\r\n", found->value.len);
    sl_buf_append_span(reply, sl_buf_span(&found->value));
    sl_buf_append_text(reply, "\r\n");
}

static void set(struct sl_span key, struct sl_span value)
{
    struct kept *found = find(key);
    if (found == NULL) {
        CHECK(kept_len < KEYS_MAX && key.len < KEY_MAX);
        found = &kept[kept_len++];
        snprintf(found->key, sizeof(found->key), SL_SPAN_FMT, SL_SPAN_ARG(key));
        sl_buf_init(&found->value, BYTES_MAX);
    }
    sl_buf_clear(&found->value);
    sl_buf_append_span(&found->value, value);
}

static void run(size_t argc, const struct sl_span *argv, struct sl_buf *reply)
{
    if (sl_span_is(argv[0], "SET")) {
        CHECK(argc == 5 && sl_span_is(argv[3], "PX") && sl_span_is(argv[4], "60000"));
        set(argv[1], argv[2]);
        sl_buf_append_text(reply, "+OK\r\n");
        return;
    }
    CHECK(sl_span_is(argv[0], argc == 2 ? "GET" : "MGET"));
    if (argc > 2) {
        sl_buf_printf(reply, "*%zu\r\n", argc - 1);
    }
    for (size_t i = 1; i < argc; i++) {
        get(argv[i], reply);
    }
}

static struct sl_buf *add_command(sl_redis_cb *cb, void *ctx)
{
    CHECK(first + len < COMMANDS_MAX);
    struct command *command = &commands[first + len++];
    *command = (struct command){.cb = cb, .ctx = ctx};
    sl_buf_init(&command->reply, BYTES_MAX);
    sent++;
    return &command->reply;
}

int sl_redis_command(struct sl_redis *redis, size_t argc, const struct sl_span *argv,
                     sl_redis_cb *cb, void *ctx)
{
    (void)redis;
    if (fake_redis_refusal != 0) {
        return fake_redis_refusal;
    }
    run(argc, argv, add_command(cb, ctx));
    return 0;
}

int sl_redis_eval(struct sl_redis *redis, struct sl_redis_script *script, size_t key_count,
                  size_t argc, const struct sl_span *argv, sl_redis_cb *cb, void *ctx)
{
    (void)redis;
    (void)script;
    (void)key_count;
    if (fake_redis_script == NULL || fake_redis_refusal != 0) {
        return -SL_ECONN;
    }
    sl_buf_append_text(add_command(cb, ctx), fake_redis_script(argc, argv));
    return 0;
}

size_t fake_redis_sent(void)
{
    return sent;
}

size_t fake_redis_open(void)
{
    return len;
}

void fake_redis_answer(int err)
{
    const char *why;
    struct redisReply *reply = NULL;
    CHECK(len > 0);
    struct command command = commands[first++];
    len--;
    first = len == 0 ? 0 : first;
    struct redisReader *reader = sl_redis_reader_create();
    CHECK(reader != NULL && sl_redis_reader_feed(reader, sl_buf_span(&command.reply)));
    CHECK(sl_redis_reader_next(reader, &reply, &why) == 1);
    command.cb(command.ctx, err, err == 0 ? reply : NULL);
    sl_redis_reply_destroy(reply);
    sl_redis_reader_destroy(reader);
    sl_buf_fini(&command.reply);
}

size_t fake_redis_keys(void)
{
    return kept_len;
}

const char *fake_redis_key(size_t i)
{
    CHECK(i < kept_len);
    return kept[i].key;
}

struct sl_span fake_redis_value(size_t i)
{
    CHECK(i < kept_len);
    return sl_buf_span(&kept[i].value);
}

void fake_redis_set(size_t i, struct sl_span value)
{
    CHECK(i < kept_len);
    set(sl_span_of(kept[i].key), value);
}

void fake_redis_close(void)
{
    while (len > 0) {
        fake_redis_answer(-SL_ECLOSED);
    }
    for (size_t i = 0; i < kept_len; i++) {
        sl_buf_fini(&kept[i].value);
    }
    kept_len = sent = 0;
    fake_redis_refusal = 0;
}
