/*
 * The commands. Each gets its arguments without its own name, already counted against the table,
 * and appends its reply. A command of another type than the key's is refused, as Redis does.
 *
 * To add one: a function, and a line in the table with the flags that `COMMAND INFO` shows.
 */
#include "tests/support/redis_emulator/emulator_internal.h"
#include "tests/support/test.h"

#include <math.h>
#include <strings.h>

enum { WRITES = 1, DENY_OOM = 2 };

struct call {
    struct emulator *emulator;
    size_t argc;
    const struct sl_span *argv;
    struct sl_buf *reply;
};

/* --- replies --- */

void reply_error(struct sl_buf *reply, const char *text)
{
    sl_buf_printf(reply, "-%s\r\n", text);
}

void reply_int(struct sl_buf *reply, long long value)
{
    sl_buf_printf(reply, ":%lld\r\n", value);
}

void reply_bulk(struct sl_buf *reply, struct sl_span bytes)
{
    sl_buf_printf(reply, "$%zu\r\n", bytes.len);
    sl_buf_append_span(reply, bytes);
    sl_buf_append(reply, "\r\n", 2);
}

void reply_nil(struct sl_buf *reply)
{
    sl_buf_append_text(reply, "$-1\r\n");
}

void reply_array(struct sl_buf *reply, size_t len)
{
    sl_buf_printf(reply, "*%zu\r\n", len);
}

static void reply_score(struct sl_buf *reply, double score)
{
    char text[64];
    snprintf(text, sizeof(text), "%.17g", score);
    reply_bulk(reply, sl_span_of(text));
}

/* --- arguments --- */

/* False: refused, the reply says so. *ret NULL: there is no such key. */
static bool find(struct call *call, enum value_type type, struct value **ret)
{
    *ret = value_find(call->emulator, call->argv[0]);
    if (*ret != NULL && (*ret)->type != type) {
        reply_error(call->reply,
                    "WRONGTYPE Operation against a key holding the wrong kind of value");
        return false;
    }
    return true;
}

static bool find_or_make(struct call *call, enum value_type type, struct value **ret)
{
    if (!find(call, type, ret)) {
        return false;
    }
    if (*ret == NULL) {
        *ret = value_make(call->emulator, call->argv[0], type);
    }
    return true;
}

static void delete_if_empty(struct call *call, struct value *value)
{
    if (value != NULL && value->len == 0) {
        value_delete(call->emulator, value);
    }
}

static bool to_int(struct call *call, struct sl_span text, long long *ret)
{
    if (sl_span_to_int(text, INT64_MIN, INT64_MAX, ret) != 0) {
        reply_error(call->reply, "ERR value is not an integer or out of range");
        return false;
    }
    return true;
}

static bool to_score(struct call *call, struct sl_span text, double *ret)
{
    char copy[64], *end;
    snprintf(copy, sizeof(copy), SL_SPAN_FMT, SL_SPAN_ARG(text));
    *ret = strtod(copy, &end);
    if (*end != '\0' || end == copy || isnan(*ret)) {
        reply_error(call->reply, "ERR value is not a valid float");
        return false;
    }
    return true;
}

/* One end of a range of scores: `(` before it leaves it out. */
struct bound {
    double score;
    bool open;
};

static bool to_bound(struct call *call, struct sl_span text, struct bound *ret)
{
    ret->open = text.len > 0 && text.data[0] == '(';
    if (ret->open) {
        text.data++;
        text.len--;
    }
    return to_score(call, text, &ret->score);
}

static bool is_within(double score, const struct bound *least, const struct bound *most)
{
    return (least->open ? score > least->score : score >= least->score) &&
           (most->open ? score < most->score : score <= most->score);
}

static bool is_word(struct sl_span text, const char *word)
{
    return sl_span_equal_nocase(text, sl_span_of(word));
}

/* --- keys --- */

static void cmd_del(struct call *call)
{
    long long count = 0;
    for (size_t i = 0; i < call->argc; i++) {
        struct value *value = value_find(call->emulator, call->argv[i]);
        if (value != NULL) {
            value_delete(call->emulator, value);
            count++;
        }
    }
    reply_int(call->reply, count);
}

static void cmd_exists(struct call *call)
{
    long long count = 0;
    for (size_t i = 0; i < call->argc; i++) {
        count += value_find(call->emulator, call->argv[i]) != NULL ? 1 : 0;
    }
    reply_int(call->reply, count);
}

static void cmd_pttl(struct call *call)
{
    const struct value *value = value_find(call->emulator, call->argv[0]);
    if (value == NULL) {
        reply_int(call->reply, -2);
    } else {
        reply_int(call->reply, value->expires_ms != 0
                                   ? value->expires_ms - emulator_now_ms(call->emulator)
                                   : -1);
    }
}

static void cmd_pexpire(struct call *call)
{
    long long ms;
    struct value *value = value_find(call->emulator, call->argv[0]);
    if (!to_int(call, call->argv[1], &ms)) {
        return;
    }
    if (value != NULL && ms <= 0) {
        value_delete(call->emulator, value);
    } else if (value != NULL) {
        value->expires_ms = emulator_now_ms(call->emulator) + ms;
    }
    reply_int(call->reply, value != NULL ? 1 : 0);
}

static void cmd_time(struct call *call)
{
    char text[24];
    reply_array(call->reply, 2);
    snprintf(text, sizeof(text), "%lld", (long long)(call->emulator->now_us / 1000000));
    reply_bulk(call->reply, sl_span_of(text));
    snprintf(text, sizeof(text), "%lld", (long long)(call->emulator->now_us % 1000000));
    reply_bulk(call->reply, sl_span_of(text));
}

static void cmd_publish(struct call *call)
{
    if (call->emulator->on_publish != NULL) {
        call->emulator->on_publish(call->emulator->publish_ctx, call->argv[0], call->argv[1]);
    }
    reply_int(call->reply, 0); /* Nobody asks how many heard it. */
}

/* --- strings --- */

static void cmd_get(struct call *call)
{
    struct value *value;
    if (!find(call, VALUE_STRING, &value)) {
        return;
    }
    if (value == NULL) {
        reply_nil(call->reply);
    } else {
        reply_bulk(call->reply, bytes_span(value->items[0].value));
    }
}

/* key value [NX] [PX ms] */
static void cmd_set(struct call *call)
{
    long long ms = 0;
    bool only_new = false;
    for (size_t i = 2; i < call->argc; i++) {
        if (is_word(call->argv[i], "NX")) {
            only_new = true;
        } else if (is_word(call->argv[i], "PX") && i + 1 < call->argc) {
            if (!to_int(call, call->argv[++i], &ms)) {
                return;
            }
            if (ms <= 0) {
                reply_error(call->reply, "ERR invalid expire time in 'set' command");
                return;
            }
        } else {
            reply_error(call->reply, "ERR syntax error");
            return;
        }
    }
    struct value *value = value_find(call->emulator, call->argv[0]);
    if (value != NULL && only_new) {
        reply_nil(call->reply);
        return;
    }
    if (value != NULL) {
        value_delete(call->emulator, value);
    }
    value = value_make(call->emulator, call->argv[0], VALUE_STRING);
    item_insert(value, 0, SL_SPAN(""), call->argv[1]);
    value->expires_ms = ms > 0 ? emulator_now_ms(call->emulator) + ms : 0;
    sl_buf_append_text(call->reply, "+OK\r\n");
}

/* --- hashes --- */

static void cmd_hset(struct call *call)
{
    struct value *value;
    long long added = 0;
    if (call->argc % 2 == 0) {
        reply_error(call->reply, "ERR wrong number of arguments for 'hset' command");
        return;
    }
    if (!find_or_make(call, VALUE_HASH, &value)) {
        return;
    }
    for (size_t i = 1; i < call->argc; i += 2) {
        struct item *item = item_find(value, call->argv[i]);
        if (item != NULL) {
            item_set(item, call->argv[i + 1]);
        } else {
            item_insert(value, value->len, call->argv[i], call->argv[i + 1]);
            added++;
        }
    }
    reply_int(call->reply, added);
}

static void cmd_hsetnx(struct call *call)
{
    struct value *value;
    if (!find_or_make(call, VALUE_HASH, &value)) {
        return;
    }
    bool is_new = item_find(value, call->argv[1]) == NULL;
    if (is_new) {
        item_insert(value, value->len, call->argv[1], call->argv[2]);
    }
    reply_int(call->reply, is_new ? 1 : 0);
}

static void put_field(struct call *call, const struct value *value, struct sl_span field)
{
    const struct item *item = value != NULL ? item_find(value, field) : NULL;
    if (item == NULL) {
        reply_nil(call->reply);
    } else {
        reply_bulk(call->reply, bytes_span(item->value));
    }
}

static void cmd_hget(struct call *call)
{
    struct value *value;
    if (find(call, VALUE_HASH, &value)) {
        put_field(call, value, call->argv[1]);
    }
}

static void cmd_hmget(struct call *call)
{
    struct value *value;
    if (!find(call, VALUE_HASH, &value)) {
        return;
    }
    reply_array(call->reply, call->argc - 1);
    for (size_t i = 1; i < call->argc; i++) {
        put_field(call, value, call->argv[i]);
    }
}

static void cmd_hexists(struct call *call)
{
    struct value *value;
    if (find(call, VALUE_HASH, &value)) {
        reply_int(call->reply, value != NULL && item_find(value, call->argv[1]) != NULL ? 1 : 0);
    }
}

/* Of a hash, a set or a sorted set. */
static void remove_items(struct call *call, enum value_type type)
{
    struct value *value;
    long long count = 0;
    if (!find(call, type, &value)) {
        return;
    }
    for (size_t i = 1; value != NULL && i < call->argc; i++) {
        struct item *item = item_find(value, call->argv[i]);
        if (item != NULL) {
            item_remove(value, (size_t)(item - value->items));
            count++;
        }
    }
    delete_if_empty(call, value);
    reply_int(call->reply, count);
}

static void cmd_hdel(struct call *call)
{
    remove_items(call, VALUE_HASH);
}

static void cmd_hincrby(struct call *call)
{
    struct value *value;
    long long by, now = 0;
    char text[24];
    if (!to_int(call, call->argv[2], &by) || !find_or_make(call, VALUE_HASH, &value)) {
        return;
    }
    struct item *item = item_find(value, call->argv[1]);
    if (item != NULL && sl_span_to_int(bytes_span(item->value), INT64_MIN, INT64_MAX, &now) != 0) {
        reply_error(call->reply, "ERR hash value is not an integer");
        return;
    }
    snprintf(text, sizeof(text), "%lld", now + by);
    if (item != NULL) {
        item_set(item, sl_span_of(text));
    } else {
        item_insert(value, value->len, call->argv[1], sl_span_of(text));
    }
    reply_int(call->reply, now + by);
}

static void cmd_hgetall(struct call *call)
{
    struct value *value;
    if (!find(call, VALUE_HASH, &value)) {
        return;
    }
    reply_array(call->reply, value != NULL ? 2 * value->len : 0);
    for (size_t i = 0; value != NULL && i < value->len; i++) {
        reply_bulk(call->reply, bytes_span(value->items[i].name));
        reply_bulk(call->reply, bytes_span(value->items[i].value));
    }
}

/* --- sorted sets --- */

/* Where it stands in order of score, and of bytes among equal scores. */
static void insert_sorted(struct value *value, struct sl_span name, double score)
{
    size_t i = 0;
    for (; i < value->len; i++) {
        const struct item *item = &value->items[i];
        size_t least = item->name.len < name.len ? item->name.len : name.len;
        int order = memcmp(item->name.data, name.data, least);
        order = order != 0 ? order : (item->name.len < name.len ? -1 : 1);
        if (item->score > score || (item->score == score && order > 0)) {
            break;
        }
    }
    item_insert(value, i, name, SL_SPAN(""))->score = score;
}

static void cmd_zadd(struct call *call)
{
    struct value *value;
    double score;
    if (call->argc != 3) {
        reply_error(call->reply, "ERR syntax error"); /* Its options are not needed here. */
        return;
    }
    if (!to_score(call, call->argv[1], &score) || !find_or_make(call, VALUE_ZSET, &value)) {
        return;
    }
    struct item *item = item_find(value, call->argv[2]);
    if (item != NULL) {
        item_remove(value, (size_t)(item - value->items));
    }
    insert_sorted(value, call->argv[2], score);
    reply_int(call->reply, item == NULL ? 1 : 0);
}

static void cmd_zrem(struct call *call)
{
    remove_items(call, VALUE_ZSET);
}

static void cmd_zcard(struct call *call)
{
    struct value *value;
    if (find(call, VALUE_ZSET, &value)) {
        reply_int(call->reply, value != NULL ? (long long)value->len : 0);
    }
}

static void cmd_zscore(struct call *call)
{
    struct value *value;
    if (!find(call, VALUE_ZSET, &value)) {
        return;
    }
    const struct item *item = value != NULL ? item_find(value, call->argv[1]) : NULL;
    if (item == NULL) {
        reply_nil(call->reply);
    } else {
        reply_score(call->reply, item->score);
    }
}

static void cmd_zremrangebyscore(struct call *call)
{
    struct value *value;
    struct bound least, most;
    long long count = 0;
    if (!to_bound(call, call->argv[1], &least) || !to_bound(call, call->argv[2], &most) ||
        !find(call, VALUE_ZSET, &value)) {
        return;
    }
    for (size_t i = 0; value != NULL && i < value->len;) {
        if (is_within(value->items[i].score, &least, &most)) {
            item_remove(value, i);
            count++;
        } else {
            i++;
        }
    }
    delete_if_empty(call, value);
    reply_int(call->reply, count);
}

/* [WITHSCORES] [LIMIT first count], from argument 3 on. */
static bool read_range_options(struct call *call, bool *scores, long long *first, long long *count)
{
    *scores = false;
    *first = 0;
    *count = INT64_MAX;
    for (size_t i = 3; i < call->argc; i++) {
        if (is_word(call->argv[i], "WITHSCORES")) {
            *scores = true;
        } else if (is_word(call->argv[i], "LIMIT") && i + 2 < call->argc) {
            if (!to_int(call, call->argv[i + 1], first) ||
                !to_int(call, call->argv[i + 2], count)) {
                return false;
            }
            i += 2;
        } else {
            reply_error(call->reply, "ERR syntax error");
            return false;
        }
    }
    return true;
}

static void cmd_zrevrangebyscore(struct call *call)
{
    struct value *value;
    struct bound least, most;
    bool scores;
    long long first, count;
    if (!read_range_options(call, &scores, &first, &count) ||
        !to_bound(call, call->argv[1], &most) || !to_bound(call, call->argv[2], &least) ||
        !find(call, VALUE_ZSET, &value)) {
        return;
    }
    struct sl_buf found;
    size_t len = 0;
    sl_buf_init(&found, 1 << 20);
    for (size_t i = value != NULL ? value->len : 0; i-- > 0 && count > 0;) {
        const struct item *item = &value->items[i];
        if (!is_within(item->score, &least, &most) || first-- > 0) {
            continue;
        }
        count--;
        len += scores ? 2 : 1;
        reply_bulk(&found, bytes_span(item->name));
        if (scores) {
            reply_score(&found, item->score);
        }
    }
    reply_array(call->reply, len);
    sl_buf_append_span(call->reply, sl_buf_span(&found));
    sl_buf_fini(&found);
}

/* From and to of a range by place, which may count from the end. */
static bool to_range(struct call *call, size_t len, size_t *from, size_t *to)
{
    long long first, last, most = (long long)len;
    if (!to_int(call, call->argv[1], &first) || !to_int(call, call->argv[2], &last)) {
        return false;
    }
    first = first < 0 ? first + most : first;
    last = last < 0 ? last + most : last;
    first = first < 0 ? 0 : first;
    last = last >= most ? most - 1 : last;
    *from = first <= last ? (size_t)first : 0;
    *to = first <= last ? (size_t)last + 1 : 0;
    return true;
}

static void cmd_zrange(struct call *call)
{
    struct value *value;
    size_t from, to;
    bool scores = call->argc == 4 && is_word(call->argv[3], "WITHSCORES");
    if (call->argc > 3 && !scores) {
        reply_error(call->reply, "ERR syntax error");
        return;
    }
    if (!find(call, VALUE_ZSET, &value) ||
        !to_range(call, value != NULL ? value->len : 0, &from, &to)) {
        return;
    }
    reply_array(call->reply, (to - from) * (scores ? 2 : 1));
    for (size_t i = from; i < to; i++) {
        reply_bulk(call->reply, bytes_span(value->items[i].name));
        if (scores) {
            reply_score(call->reply, value->items[i].score);
        }
    }
}

/* --- lists and sets --- */

static void cmd_rpush(struct call *call)
{
    struct value *value;
    if (!find_or_make(call, VALUE_LIST, &value)) {
        return;
    }
    for (size_t i = 1; i < call->argc; i++) {
        item_insert(value, value->len, SL_SPAN(""), call->argv[i]);
    }
    reply_int(call->reply, (long long)value->len);
}

static void cmd_llen(struct call *call)
{
    struct value *value;
    if (find(call, VALUE_LIST, &value)) {
        reply_int(call->reply, value != NULL ? (long long)value->len : 0);
    }
}

static void cmd_lrange(struct call *call)
{
    struct value *value;
    size_t from, to;
    if (!find(call, VALUE_LIST, &value) ||
        !to_range(call, value != NULL ? value->len : 0, &from, &to)) {
        return;
    }
    reply_array(call->reply, to - from);
    for (size_t i = from; i < to; i++) {
        reply_bulk(call->reply, bytes_span(value->items[i].value));
    }
}

static void cmd_sadd(struct call *call)
{
    struct value *value;
    long long added = 0;
    if (!find_or_make(call, VALUE_SET, &value)) {
        return;
    }
    for (size_t i = 1; i < call->argc; i++) {
        if (item_find(value, call->argv[i]) == NULL) {
            item_insert(value, value->len, call->argv[i], SL_SPAN(""));
            added++;
        }
    }
    reply_int(call->reply, added);
}

static void cmd_srem(struct call *call)
{
    remove_items(call, VALUE_SET);
}

static void cmd_scard(struct call *call)
{
    struct value *value;
    if (find(call, VALUE_SET, &value)) {
        reply_int(call->reply, value != NULL ? (long long)value->len : 0);
    }
}

static void cmd_smembers(struct call *call)
{
    struct value *value;
    if (!find(call, VALUE_SET, &value)) {
        return;
    }
    reply_array(call->reply, value != NULL ? value->len : 0);
    for (size_t i = 0; value != NULL && i < value->len; i++) {
        reply_bulk(call->reply, bytes_span(value->items[i].name));
    }
}

/* --- the table --- */

static const struct command {
    const char *name;
    size_t least, most; /* Arguments; most 0: any number. */
    int flags;
    void (*run)(struct call *call);
} commands[] = {
    {"DEL", 1, 0, WRITES, cmd_del},
    {"EXISTS", 1, 0, 0, cmd_exists},
    {"GET", 1, 1, 0, cmd_get},
    {"HDEL", 2, 0, WRITES, cmd_hdel},
    {"HEXISTS", 2, 2, 0, cmd_hexists},
    {"HGET", 2, 2, 0, cmd_hget},
    {"HGETALL", 1, 1, 0, cmd_hgetall},
    {"HINCRBY", 3, 3, WRITES | DENY_OOM, cmd_hincrby},
    {"HMGET", 2, 0, 0, cmd_hmget},
    {"HSET", 3, 0, WRITES | DENY_OOM, cmd_hset},
    {"HSETNX", 3, 3, WRITES | DENY_OOM, cmd_hsetnx},
    {"LLEN", 1, 1, 0, cmd_llen},
    {"LRANGE", 3, 3, 0, cmd_lrange},
    {"PEXPIRE", 2, 2, WRITES, cmd_pexpire},
    {"PTTL", 1, 1, 0, cmd_pttl},
    {"PUBLISH", 2, 2, 0, cmd_publish},
    {"RPUSH", 2, 0, WRITES | DENY_OOM, cmd_rpush},
    {"SADD", 2, 0, WRITES | DENY_OOM, cmd_sadd},
    {"SCARD", 1, 1, 0, cmd_scard},
    {"SET", 2, 0, WRITES | DENY_OOM, cmd_set},
    {"SMEMBERS", 1, 1, 0, cmd_smembers},
    {"SREM", 2, 0, WRITES, cmd_srem},
    {"TIME", 0, 0, 0, cmd_time},
    {"ZADD", 3, 0, WRITES | DENY_OOM, cmd_zadd},
    {"ZCARD", 1, 1, 0, cmd_zcard},
    {"ZRANGE", 3, 0, 0, cmd_zrange},
    {"ZREM", 2, 0, WRITES, cmd_zrem},
    {"ZREMRANGEBYSCORE", 3, 3, WRITES, cmd_zremrangebyscore},
    {"ZREVRANGEBYSCORE", 3, 0, 0, cmd_zrevrangebyscore},
    {"ZSCORE", 2, 2, 0, cmd_zscore},
};

static const struct command *command_of(struct sl_span name)
{
    for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
        if (is_word(name, commands[i].name)) {
            return &commands[i];
        }
    }
    fprintf(stderr, "the emulated Redis has no " SL_SPAN_FMT "\n", SL_SPAN_ARG(name));
    abort();
}

void emulator_command(struct emulator *emulator, size_t argc, const struct sl_span *argv,
                      struct sl_buf *reply)
{
    const struct command *command = command_of(argv[0]);
    struct call call = {emulator, argc - 1, argv + 1, reply};
    if (call.argc < command->least || (command->most > 0 && call.argc > command->most)) {
        sl_buf_printf(reply, "-ERR wrong number of arguments for '%s' command\r\n", command->name);
    } else if (emulator->full && (command->flags & DENY_OOM) != 0 && !emulator->dirty) {
        reply_error(reply, "OOM command not allowed when used memory > 'maxmemory'.");
    } else {
        emulator->dirty =
            emulator->in_script && (emulator->dirty || (command->flags & WRITES) != 0);
        command->run(&call);
    }
}
