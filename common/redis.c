/*
 * The Redis client: two connections (redis_conn.c), one for commands and, from the first
 * sl_redis_subscribe on, one for subscriptions, since a subscribed connection takes no other
 * commands.
 *
 * Scripts: the first run of a script asks for its SHA1 (SCRIPT LOAD) and sends the text along
 * (EVAL); once the SHA1 is known, runs are EVALSHA. A server forgets scripts when it restarts,
 * after a failover or by SCRIPT FLUSH and then answers NOSCRIPT: each run keeps its encoded
 * arguments until the reply, and goes out once more as an EVAL, which loads it again.
 *
 * Subscriptions: a list of channels, sent whenever the second connection gets ready. on_subscribed
 * comes when none of the SUBSCRIBEs that were sent lacks its answer.
 *
 * What can go wrong is told in redis_conn.c (a connection) and redis_link.c (connecting). Here: the
 * link is down or too much waits, and a command is refused at once; Redis answers an error, which
 * is logged, though not each of a thousand.
 */
#include "common/redis.h"

#include "common/clock.h"
#include "common/log.h"
#include "common/redis_conn.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

enum { MAX_WAITING = 10000, MAX_CHANNELS = 1000, ERROR_LOG_MS = 1000 };

struct channel {
    struct sl_list node;
    size_t len;
    char name[];
};

struct sl_redis {
    struct sl_redis_config config; /* Its url is not kept. */
    struct sl_redis_url url;
    struct sl_redis_conn main, sub;
    struct sl_list channels;
    size_t channels_len;
    size_t unconfirmed; /* SUBSCRIBEs without an answer. */
    uint64_t error_logged_ms;
    uint64_t errors_unlogged;
};

/* --- commands --- */

static int may_send(const struct sl_redis *redis)
{
    if (!redis->main.up) {
        return -SL_ECONN;
    }
    return redis->main.waiting_len < MAX_WAITING ? 0 : -SL_EAGAIN;
}

static void log_error_reply(struct sl_redis *redis, const struct redisReply *reply)
{
    uint64_t now = sl_clock_now_ms();
    if (redis->error_logged_ms != 0 && now - redis->error_logged_ms < ERROR_LOG_MS) {
        redis->errors_unlogged++;
        return;
    }
    sl_log(SL_LOG_WARN, "redis answered an error", SL_STR("server", redis->main.link.name),
           SL_SPANF("reply", sl_reply_span(reply)), SL_INT("unlogged", redis->errors_unlogged));
    redis->error_logged_ms = now;
    redis->errors_unlogged = 0;
}

static void finish_command(struct sl_redis_conn *conn, struct sl_redis_sent *sent, int err,
                           const struct redisReply *reply)
{
    if (sl_reply_type(reply) == SL_REPLY_ERROR) {
        log_error_reply(SL_ITEM(conn, struct sl_redis, main), reply);
        err = -SL_EUPSTREAM;
        reply = NULL;
    }
    if (sent->cb != NULL) {
        sent->cb(sent->ctx, err, reply);
    }
}

static void finish_try(struct sl_redis_conn *conn, struct sl_redis_sent *sent, int err,
                       const struct redisReply *reply)
{
    (void)conn;
    sent->cb(sent->ctx, sl_reply_type(reply) == SL_REPLY_ERROR ? -SL_EUPSTREAM : err, reply);
}

static int send_command(struct sl_redis *redis, sl_redis_finish *finish, size_t argc,
                        const struct sl_span *argv, sl_redis_cb *cb, void *ctx)
{
    assert(argc > 0);
    int rv = may_send(redis);
    if (rv != 0) {
        return rv;
    }
    struct sl_redis_sent *sent = sl_redis_sent_new(finish, cb, ctx);
    return sl_redis_conn_send(&redis->main, sent, argc, argv);
}

int sl_redis_command(struct sl_redis *redis, size_t argc, const struct sl_span *argv,
                     sl_redis_cb *cb, void *ctx)
{
    return send_command(redis, finish_command, argc, argv, cb, ctx);
}

int sl_redis_try(struct sl_redis *redis, size_t argc, const struct sl_span *argv, sl_redis_cb *cb,
                 void *ctx)
{
    assert(cb != NULL);
    return send_command(redis, finish_try, argc, argv, cb, ctx);
}

/* --- scripts --- */

/* By SHA1 when it is known, else with the text. On failure sent stays the caller's. */
static int send_eval(struct sl_redis_conn *conn, struct sl_redis_sent *sent)
{
    struct sl_buf *out = &conn->link.out;
    size_t before = out->len;
    sent->with_text = sent->with_text || sent->script->sha[0] == '\0';
    sl_buf_printf(out, "*%zu\r\n", sent->argc + 3); /* The command, the script, the key count. */
    sl_redis_put_arg(out, sl_span_of(sent->with_text ? "EVAL" : "EVALSHA"));
    sl_redis_put_arg(out, sl_span_of(sent->with_text ? sent->script->text : sent->script->sha));
    sl_buf_append_span(out, sl_buf_span(&sent->tail));
    return sl_redis_conn_commit(conn, sent, before);
}

static void finish_eval(struct sl_redis_conn *conn, struct sl_redis_sent *sent, int err,
                        const struct redisReply *reply)
{
    if (sl_reply_type(reply) == SL_REPLY_ERROR && !sent->with_text &&
        sl_span_begins(sl_reply_span(reply), "NOSCRIPT")) {
        sent->with_text = true;
        err = send_eval(conn, sent);
        if (err == 0) {
            return;
        }
        reply = NULL;
    }
    finish_command(conn, sent, err, reply);
}

static void finish_load(struct sl_redis_conn *conn, struct sl_redis_sent *sent, int err,
                        const struct redisReply *reply)
{
    (void)conn, (void)err;
    struct sl_redis_script *script = sent->script;
    struct sl_span sha = sl_reply_span(reply);
    if (sl_reply_type(reply) == SL_REPLY_STRING && sha.len == sizeof(script->sha) - 1) {
        memcpy(script->sha, sha.data, sha.len);
        script->sha[sha.len] = '\0';
    }
}

/* Asks for the SHA1. Until the reply each run carries the text. */
static int load_script(struct sl_redis *redis, struct sl_redis_script *script)
{
    struct sl_redis_sent *sent = sl_redis_sent_new(finish_load, NULL, NULL);
    if (sent == NULL) {
        return -SL_ENOMEM;
    }
    sent->script = script;
    const struct sl_span argv[] = {SL_SPAN("SCRIPT"), SL_SPAN("LOAD"), sl_span_of(script->text)};
    return sl_redis_conn_send(&redis->main, sent, 3, argv);
}

int sl_redis_eval(struct sl_redis *redis, struct sl_redis_script *script, size_t key_count,
                  size_t argc, const struct sl_span *argv, sl_redis_cb *cb, void *ctx)
{
    assert(key_count <= argc);
    int rv = may_send(redis);
    if (rv == 0 && script->sha[0] == '\0') {
        rv = load_script(redis, script);
    }
    if (rv != 0) {
        return rv;
    }
    struct sl_redis_sent *sent = sl_redis_sent_new(finish_eval, cb, ctx);
    if (sent == NULL) {
        return -SL_ENOMEM;
    }
    char number[24];
    snprintf(number, sizeof(number), "%zu", key_count);
    sl_redis_put_arg(&sent->tail, sl_span_of(number));
    for (size_t i = 0; i < argc; i++) {
        sl_redis_put_arg(&sent->tail, argv[i]);
    }
    sent->script = script;
    sent->argc = argc;
    rv = sl_buf_error(&sent->tail);
    if (rv == 0) {
        rv = send_eval(&redis->main, sent);
    }
    if (rv != 0) {
        sl_redis_sent_free(sent);
    }
    return rv == -SL_ETOOBIG ? -SL_EAGAIN : rv;
}

/* --- subscriptions --- */

static void finish_subscribe(struct sl_redis_conn *conn, struct sl_redis_sent *sent, int err,
                             const struct redisReply *reply)
{
    (void)err;
    struct sl_redis *redis = SL_ITEM(conn, struct sl_redis, sub);
    redis->unconfirmed--;
    if (reply == NULL) {
        return;
    }
    if (!sl_span_is(sl_reply_span(sl_reply_at(reply, 0)), "subscribe")) {
        sl_redis_conn_refuse(conn, sent, reply);
    } else if (redis->unconfirmed == 0 && redis->config.on_subscribed != NULL) {
        redis->config.on_subscribed(redis->config.ctx);
    }
}

/* One channel a command, so that each command has one reply here too. */
static int send_subscribe(struct sl_redis *redis, const struct channel *channel)
{
    struct sl_redis_sent *sent = sl_redis_sent_new(finish_subscribe, NULL, NULL);
    if (sent == NULL) {
        return -SL_ENOMEM;
    }
    sent->name = "SUBSCRIBE";
    const struct sl_span argv[] = {SL_SPAN("SUBSCRIBE"), {channel->name, channel->len}};
    int rv = sl_redis_conn_send(&redis->sub, sent, 2, argv);
    redis->unconfirmed += rv == 0 ? 1 : 0;
    return rv;
}

int sl_redis_subscribe(struct sl_redis *redis, struct sl_span name)
{
    SL_LIST_EACH(node, &redis->channels)
    {
        const struct channel *known = SL_ITEM(node, struct channel, node);
        if (sl_span_equal((struct sl_span){known->name, known->len}, name)) {
            return 0;
        }
    }
    if (redis->channels_len == MAX_CHANNELS) {
        return -SL_EAGAIN;
    }
    struct channel *channel = malloc(sizeof(*channel) + name.len);
    if (channel == NULL) {
        return -SL_ENOMEM;
    }
    channel->len = name.len;
    memcpy(channel->name, name.data, name.len);
    int rv = redis->sub.up ? send_subscribe(redis, channel) : 0;
    if (rv != 0) {
        free(channel);
        return rv;
    }
    sl_list_push(&redis->channels, &channel->node);
    redis->channels_len++;
    if (!sl_redis_conn_started(&redis->sub)) {
        sl_redis_conn_start(&redis->sub);
    }
    return 0;
}

static void on_sub_ready(struct sl_redis_conn *conn)
{
    struct sl_redis *redis = SL_ITEM(conn, struct sl_redis, sub);
    SL_LIST_EACH(node, &redis->channels)
    {
        int rv = send_subscribe(redis, SL_ITEM(node, struct channel, node));
        if (rv != 0) {
            sl_redis_link_close(&conn->link, "subscribing: %s", sl_error_text(rv));
            return;
        }
    }
}

static void on_sub_down(struct sl_redis_conn *conn, const char *why)
{
    (void)conn, (void)why; /* It was logged; what matters to users is on_subscribed. */
}

static void on_sub_message(struct sl_redis_conn *conn, const struct redisReply *reply)
{
    const struct sl_redis_config *config = &SL_ITEM(conn, struct sl_redis, sub)->config;
    if (config->on_message != NULL && sl_reply_len(reply) == 3) {
        config->on_message(config->ctx, sl_reply_span(sl_reply_at(reply, 1)),
                           sl_reply_span(sl_reply_at(reply, 2)));
    }
}

/* --- beginning and end --- */

static void on_main_ready(struct sl_redis_conn *conn)
{
    const struct sl_redis_config *config = &SL_ITEM(conn, struct sl_redis, main)->config;
    config->on_link(config->ctx, conn->run_id, NULL);
}

static void on_main_down(struct sl_redis_conn *conn, const char *why)
{
    const struct sl_redis_config *config = &SL_ITEM(conn, struct sl_redis, main)->config;
    config->on_link(config->ctx, NULL, why);
}

static const struct sl_redis_conn_callbacks main_callbacks = {on_main_ready, on_main_down, NULL};
static const struct sl_redis_conn_callbacks sub_callbacks = {on_sub_ready, on_sub_down,
                                                             on_sub_message};

static uint32_t or_default(uint32_t ms, uint32_t default_ms)
{
    return ms != 0 ? ms : default_ms;
}

int sl_redis_create(struct sl_loop *loop, const struct sl_redis_config *config,
                    struct sl_redis **ret, char *why, size_t why_size)
{
    struct sl_redis *redis = calloc(1, sizeof(*redis));
    if (redis == NULL) {
        return -SL_ENOMEM;
    }
    int rv = sl_redis_url_parse(config->url, &redis->url, why, why_size);
    if (rv != 0) {
        free(redis);
        return rv;
    }
    redis->config = *config;
    redis->config.url = NULL;
    redis->main = (struct sl_redis_conn){
        .loop = loop,
        .callbacks = &main_callbacks,
        .url = &redis->url,
        .connect_timeout_ms = or_default(config->connect_timeout_ms, 2000),
        .command_timeout_ms = or_default(config->command_timeout_ms, 1000),
        .ping_interval_ms = or_default(config->ping_interval_ms, 5000),
    };
    redis->sub = redis->main;
    redis->sub.callbacks = &sub_callbacks;
    sl_list_init(&redis->channels);
    sl_redis_conn_start(&redis->main);
    *ret = redis;
    return 0;
}

void sl_redis_destroy(struct sl_redis *redis)
{
    if (redis == NULL) {
        return;
    }
    sl_redis_conn_stop(&redis->main);
    sl_redis_conn_stop(&redis->sub); /* A callback may have started it a moment ago. */
    while (!sl_list_empty(&redis->channels)) {
        struct sl_list *node = sl_list_first(&redis->channels);
        sl_list_remove(node);
        free(SL_ITEM(node, struct channel, node));
    }
    explicit_bzero(&redis->url, sizeof(redis->url));
    free(redis);
}

bool sl_redis_up(const struct sl_redis *redis)
{
    return redis->main.up;
}
