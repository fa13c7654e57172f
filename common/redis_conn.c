/*
 * A connection of the Redis client, on a link that reconnects by itself.
 *
 * The order of events: the link opens; a greeting is sent in one piece (AUTH, CLIENT SETNAME,
 * SELECT, INFO, CLIENT ID, CONFIG GET, PING) and answered step by step; the answer to the PING,
 * which a server that still loads its data refuses, makes the connection ready. From then on
 * commands are appended to link.out and sent together at the end of the turn. Replies pair with
 * waiting commands in order; on a connection for subscriptions a `message` is taken out first, and
 * everything else pairs too, since it sends commands with one reply each.
 *
 * A connection that was given up may live on: what was sent on it is still on its way, and the
 * server would run it after what is said on the next one. So the next one ends it (CLIENT KILL)
 * before it is ready, unless the server is another one by then.
 *
 * What can go wrong:
 * - No answer: one timer looks at the oldest waiting command. Because our own process may have been
 *   the one that stood still, it reads what has arrived before it gives up. An idle connection is
 *   tried with a PING, so that a dead one does not go unnoticed.
 * - The link closes, for whatever reason: all waiting commands fail in order while up is already
 *   false, so that callbacks that send again are refused and do not refill the list.
 * - The server refuses a step of the greeting (a wrong password, too many clients): the link is
 *   closed with the server's words and tried again later. What users may be denied is optional.
 * - A server that sends garbage, a reply to nothing or one without end: the link is closed.
 */
#include "common/redis_conn.h"

#include "common/clock.h"
#include "common/log.h"
#include "common/redis_reply.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum { MAX_REPLY = 64 << 20 }; /* Bytes of one reply. */

static bool is_sub(const struct sl_redis_conn *conn)
{
    return conn->callbacks->on_message != NULL;
}

static bool is_error(const struct redisReply *reply)
{
    return sl_reply_type(reply) == SL_REPLY_ERROR;
}

/* --- sending --- */

struct sl_redis_sent *sl_redis_sent_new(sl_redis_finish *finish, sl_redis_cb *cb, void *ctx)
{
    struct sl_redis_sent *sent = calloc(1, sizeof(*sent));
    if (sent != NULL) {
        sl_list_init(&sent->node);
        sl_buf_init(&sent->tail, SL_REDIS_MAX_OUT);
        sent->finish = finish;
        sent->cb = cb;
        sent->ctx = ctx;
    }
    return sent;
}

void sl_redis_sent_free(struct sl_redis_sent *sent)
{
    sl_buf_fini(&sent->tail);
    free(sent);
}

/* One reservation an argument: a command has dozens. */
void sl_redis_put_arg(struct sl_buf *out, struct sl_span arg)
{
    enum { FRAME_MAX = 32 };
    char *to = sl_buf_reserve(out, arg.len + FRAME_MAX);
    if (to == NULL) {
        return;
    }
    char digits[24];
    size_t at = sizeof(digits), len = arg.len;
    do {
        digits[--at] = (char)('0' + len % 10);
        len /= 10;
    } while (len > 0);
    *to++ = '$';
    memcpy(to, digits + at, sizeof(digits) - at);
    to += sizeof(digits) - at;
    memcpy(to, "\r\n", 2);
    to += 2;
    if (arg.len > 0) {
        memcpy(to, arg.data, arg.len);
        to += arg.len;
    }
    memcpy(to, "\r\n", 2);
    out->len = (size_t)(to + 2 - out->data);
}

static void on_expiry(struct sl_timer *timer);

int sl_redis_conn_commit(struct sl_redis_conn *conn, struct sl_redis_sent *sent, size_t before)
{
    struct sl_buf *out = &conn->link.out;
    int err = sl_buf_error(out);
    if (err != 0) {
        out->len = before;
        out->err = 0;
        return err == -SL_ETOOBIG ? -SL_EAGAIN : err;
    }
    sent->sent_ms = sl_clock_now_ms();
    sl_list_push(&conn->waiting, &sent->node);
    conn->waiting_len++;
    if (!sl_timer_active(&conn->expiry)) {
        sl_timer_start(conn->loop, &conn->expiry, conn->command_timeout_ms, on_expiry);
    }
    sl_redis_link_flush(&conn->link);
    return 0;
}

int sl_redis_conn_send(struct sl_redis_conn *conn, struct sl_redis_sent *sent, size_t argc,
                       const struct sl_span *argv)
{
    if (sent == NULL) {
        return -SL_ENOMEM;
    }
    struct sl_buf *out = &conn->link.out;
    size_t before = out->len;
    sl_buf_printf(out, "*%zu\r\n", argc);
    for (size_t i = 0; i < argc; i++) {
        sl_redis_put_arg(out, argv[i]);
    }
    int rv = sl_redis_conn_commit(conn, sent, before);
    if (rv != 0) {
        sl_redis_sent_free(sent);
    }
    return rv;
}

/* A command of our own. words ends with NULL. */
static int ask(struct sl_redis_conn *conn, sl_redis_finish *finish, const char *const *words)
{
    struct sl_span argv[4];
    size_t argc = 0;
    for (; words[argc] != NULL; argc++) {
        assert(argc < sizeof(argv) / sizeof(argv[0]));
        argv[argc] = sl_span_of(words[argc]);
    }
    struct sl_redis_sent *sent = sl_redis_sent_new(finish, NULL, NULL);
    if (sent != NULL) {
        sent->name = words[0];
    }
    return sl_redis_conn_send(conn, sent, argc, argv);
}

#define ASK(conn, finish, ...) ask(conn, finish, (const char *const[]){__VA_ARGS__, NULL})

/* --- the greeting --- */

void sl_redis_conn_refuse(struct sl_redis_conn *conn, const struct sl_redis_sent *sent,
                          const struct redisReply *reply)
{
    struct sl_span text = is_error(reply) ? sl_reply_span(reply) : SL_SPAN("unexpected reply");
    int len = text.len < 200 ? (int)text.len : 200;
    sl_redis_link_close(&conn->link, "%s refused %s: %.*s", conn->link.name, sent->name, len,
                        text.data);
}

static void finish_required(struct sl_redis_conn *conn, struct sl_redis_sent *sent, int err,
                            const struct redisReply *reply)
{
    (void)err;
    if (is_error(reply)) {
        sl_redis_conn_refuse(conn, sent, reply);
    }
}

/* A step that users may be denied, or that a server of another make may not know. */
static void finish_optional(struct sl_redis_conn *conn, struct sl_redis_sent *sent, int err,
                            const struct redisReply *reply)
{
    (void)err;
    if (!is_error(reply)) {
        return;
    }
    struct sl_span text = sl_reply_span(reply);
    if (sl_span_begins(text, "NOPERM") || sl_span_begins(text, "ERR unknown")) {
        sl_log(SL_LOG_DEBUG, "redis denied a command", SL_STR("server", conn->link.name),
               SL_STR("command", sent->name), SL_SPANF("reply", text));
    } else {
        sl_redis_conn_refuse(conn, sent, reply);
    }
}

/* The value of a `key:value` line; empty when there is none. */
static struct sl_span info_value(struct sl_span info, const char *key)
{
    while (info.len > 0) {
        const char *end = memchr(info.data, '\n', info.len);
        size_t len = end != NULL ? (size_t)(end - info.data) : info.len;
        struct sl_span line = {info.data, len > 0 && info.data[len - 1] == '\r' ? len - 1 : len};
        if (sl_span_begins(line, key)) {
            return (struct sl_span){line.data + strlen(key), line.len - strlen(key)};
        }
        len += end != NULL ? 1 : 0;
        info = (struct sl_span){info.data + len, info.len - len};
    }
    return info;
}

static void finish_info(struct sl_redis_conn *conn, struct sl_redis_sent *sent, int err,
                        const struct redisReply *reply)
{
    (void)err;
    if (reply == NULL) {
        return;
    }
    struct sl_span run_id = info_value(sl_reply_span(reply), "run_id:");
    if (run_id.len == 0 || run_id.len >= sizeof(conn->run_id)) {
        sl_redis_conn_refuse(conn, sent, reply);
        return;
    }
    if (!sl_span_is(run_id, conn->run_id)) {
        conn->id_before = 0;
    }
    memcpy(conn->run_id, run_id.data, run_id.len);
    conn->run_id[run_id.len] = '\0';
}

static void finish_policy(struct sl_redis_conn *conn, struct sl_redis_sent *sent, int err,
                          const struct redisReply *reply)
{
    struct sl_span policy = sl_reply_span(sl_reply_at(reply, 1));
    if (policy.len > 0 && !sl_span_is(policy, "noeviction")) {
        sl_log(SL_LOG_WARN, "redis may evict keys: set maxmemory-policy to noeviction",
               SL_STR("server", conn->link.name), SL_SPANF("maxmemory_policy", policy));
    }
    finish_optional(conn, sent, err, reply);
}

static void finish_id(struct sl_redis_conn *conn, struct sl_redis_sent *sent, int err,
                      const struct redisReply *reply)
{
    conn->id = sl_reply_int(reply);
    finish_optional(conn, sent, err, reply);
}

static void on_ping(struct sl_timer *timer);

static void ready(struct sl_redis_conn *conn)
{
    conn->up = true;
    conn->id_before = conn->id;
    conn->last_why[0] = '\0';
    sl_redis_link_settled(&conn->link);
    sl_timer_start(conn->loop, &conn->ping, conn->ping_interval_ms, on_ping);
    sl_log(SL_LOG_INFO, is_sub(conn) ? "redis subscriptions up" : "redis up",
           SL_STR("server", conn->link.name));
    conn->callbacks->on_ready(conn);
}

/* Whether it was there still, or may not be ended, makes no difference. */
static void finish_kill(struct sl_redis_conn *conn, struct sl_redis_sent *sent, int err,
                        const struct redisReply *reply)
{
    (void)sent, (void)err;
    if (reply != NULL) {
        ready(conn);
    }
}

static void finish_greeting(struct sl_redis_conn *conn, struct sl_redis_sent *sent, int err,
                            const struct redisReply *reply)
{
    (void)err;
    if (reply == NULL) {
        return;
    }
    if (is_error(reply)) {
        sl_redis_conn_refuse(conn, sent, reply);
        return;
    }
    if (conn->id_before == 0) {
        ready(conn);
        return;
    }
    char id[24];
    snprintf(id, sizeof(id), "%lld", conn->id_before);
    int rv = ASK(conn, finish_kill, "CLIENT", "KILL", "ID", id);
    if (rv != 0) {
        sl_redis_link_close(&conn->link, "greeting %s: %s", conn->link.name, sl_error_text(rv));
    }
}

/* The name that CLIENT LIST shows: the program's, without what Redis does not allow there. */
static void client_name(char *name, size_t size)
{
    snprintf(name, size, "%s", program_invocation_short_name);
    for (char *c = name; *c != '\0'; c++) {
        *c = *c > ' ' && *c <= '~' ? *c : '_';
    }
}

static int greet(struct sl_redis_conn *conn)
{
    const struct sl_redis_url *url = conn->url;
    char name[64], database[16];
    client_name(name, sizeof(name));
    snprintf(database, sizeof(database), "%d", url->database);
    int rv = 0;
    if (url->user[0] != '\0') {
        rv = ASK(conn, finish_required, "AUTH", url->user, url->password);
    } else if (url->password[0] != '\0') {
        rv = ASK(conn, finish_required, "AUTH", url->password);
    }
    rv = rv != 0 ? rv : ASK(conn, finish_optional, "CLIENT", "SETNAME", name);
    if (!is_sub(conn)) {
        if (url->database != 0) {
            rv = rv != 0 ? rv : ASK(conn, finish_required, "SELECT", database);
        }
        rv = rv != 0 ? rv : ASK(conn, finish_info, "INFO", "server");
        rv = rv != 0 ? rv : ASK(conn, finish_id, "CLIENT", "ID");
        rv = rv != 0 ? rv : ASK(conn, finish_policy, "CONFIG", "GET", "maxmemory-policy");
    }
    return rv != 0 ? rv : ASK(conn, finish_greeting, "PING");
}

/* --- what the link says --- */

static void on_open(struct sl_redis_link *link)
{
    struct sl_redis_conn *conn = SL_ITEM(link, struct sl_redis_conn, link);
    conn->reader = sl_redis_reader_create();
    int rv = conn->reader != NULL ? greet(conn) : -SL_ENOMEM;
    if (rv != 0) {
        sl_redis_link_close(link, "greeting %s: %s", link->name, sl_error_text(rv));
    }
}

static struct sl_redis_sent *pop(struct sl_redis_conn *conn)
{
    struct sl_list *node = sl_list_first(&conn->waiting);
    if (node == NULL) {
        return NULL;
    }
    sl_list_remove(node);
    conn->waiting_len--;
    return SL_ITEM(node, struct sl_redis_sent, node);
}

static void finish(struct sl_redis_conn *conn, struct sl_redis_sent *sent, int err,
                   const struct redisReply *reply)
{
    sent->finish(conn, sent, err, reply);
    if (sl_list_empty(&sent->node)) { /* Not sent again. */
        sl_redis_sent_free(sent);
    }
}

static void on_reply(struct sl_redis_conn *conn, const struct redisReply *reply)
{
    if (is_sub(conn) && sl_span_is(sl_reply_span(sl_reply_at(reply, 0)), "message")) {
        conn->callbacks->on_message(conn, reply);
        return;
    }
    struct sl_redis_sent *sent = pop(conn);
    if (sent == NULL) {
        const struct sl_redis_sent unasked = {.name = "the connection"};
        sl_redis_conn_refuse(conn, &unasked, reply);
        return;
    }
    finish(conn, sent, 0, reply);
}

static void on_bytes(struct sl_redis_link *link, struct sl_span bytes)
{
    struct sl_redis_conn *conn = SL_ITEM(link, struct sl_redis_conn, link);
    const char *why = "out of memory";
    int rv = sl_redis_reader_feed(conn->reader, bytes) ? 1 : -SL_ENOMEM;
    conn->unparsed += bytes.len;
    conn->busy++;
    while (rv > 0) {
        struct redisReply *reply = NULL;
        rv = sl_redis_reader_next(conn->reader, &reply, &why);
        if (rv > 0) {
            conn->unparsed = 0;
            on_reply(conn, reply);
            sl_redis_reply_destroy(reply);
            rv = conn->reader != NULL ? 1 : 0; /* NULL: closed inside. */
        }
    }
    if (rv < 0) {
        sl_redis_link_close(link, "reading replies of %s: %s", link->name, why);
    } else if (conn->unparsed > MAX_REPLY) {
        sl_redis_link_close(link, "%s sent a reply of more than %d bytes", link->name, MAX_REPLY);
    }
    conn->busy--;
}

/* Everything but the link. */
static void take_down(struct sl_redis_conn *conn, int err)
{
    conn->up = false;
    conn->unparsed = 0;
    sl_redis_reader_destroy(conn->reader);
    conn->reader = NULL;
    sl_timer_stop(conn->loop, &conn->expiry);
    sl_timer_stop(conn->loop, &conn->ping);
    uint64_t now = sl_clock_now_ms();
    for (struct sl_redis_sent *sent = pop(conn); sent != NULL; sent = pop(conn)) {
        bool expired = err == -SL_ECONN && now - sent->sent_ms >= conn->command_timeout_ms;
        finish(conn, sent, expired ? -SL_ETIMEDOUT : err, NULL);
    }
}

static void on_closed(struct sl_redis_link *link, const char *why)
{
    struct sl_redis_conn *conn = SL_ITEM(link, struct sl_redis_conn, link);
    conn->busy++;
    take_down(conn, -SL_ECONN);
    if (strncmp(conn->last_why, why, sizeof(conn->last_why) - 1) != 0) {
        snprintf(conn->last_why, sizeof(conn->last_why), "%s", why);
        sl_log(SL_LOG_WARN, is_sub(conn) ? "redis subscriptions down" : "redis down",
               SL_STR("server", link->name), SL_STR("why", why));
    }
    conn->callbacks->on_down(conn, why);
    conn->busy--;
}

/* --- time-outs --- */

/* How long until the oldest waiting command expires; 0: now; -1: none waits. */
static int64_t until_expiry_ms(struct sl_redis_conn *conn)
{
    struct sl_list *oldest = sl_list_first(&conn->waiting);
    if (oldest == NULL) {
        return -1;
    }
    uint64_t age = sl_clock_now_ms() - SL_ITEM(oldest, struct sl_redis_sent, node)->sent_ms;
    return age < conn->command_timeout_ms ? (int64_t)(conn->command_timeout_ms - age) : 0;
}

static void on_expiry(struct sl_timer *timer)
{
    struct sl_redis_conn *conn = SL_ITEM(timer, struct sl_redis_conn, expiry);
    int64_t rest_ms = until_expiry_ms(conn);
    if (rest_ms == 0) {
        sl_redis_link_read(&conn->link);
        rest_ms = until_expiry_ms(conn);
    }
    if (rest_ms == 0) {
        sl_redis_link_close(&conn->link, "%s did not answer for %" PRIu32 " ms", conn->link.name,
                            conn->command_timeout_ms);
    } else if (rest_ms > 0) {
        sl_timer_start(conn->loop, timer, (uint64_t)rest_ms, on_expiry);
    }
}

static void on_ping(struct sl_timer *timer)
{
    struct sl_redis_conn *conn = SL_ITEM(timer, struct sl_redis_conn, ping);
    sl_timer_start(conn->loop, timer, conn->ping_interval_ms, on_ping);
    if (conn->waiting_len == 0) {
        int rv = ASK(conn, finish_required, "PING");
        if (rv != 0) {
            sl_redis_link_close(&conn->link, "PING: %s", sl_error_text(rv));
        }
    }
}

/* --- beginning and end --- */

void sl_redis_conn_start(struct sl_redis_conn *conn)
{
    static const struct sl_redis_link_callbacks callbacks = {on_open, on_bytes, on_closed};
    sl_list_init(&conn->waiting);
    sl_redis_link_start(&conn->link, conn->loop, &callbacks, conn->url->host, conn->url->port,
                        conn->connect_timeout_ms, SL_REDIS_MAX_OUT);
}

bool sl_redis_conn_started(const struct sl_redis_conn *conn)
{
    return conn->link.state != SL_LINK_STOPPED;
}

void sl_redis_conn_stop(struct sl_redis_conn *conn)
{
    if (sl_redis_conn_started(conn)) {
        assert(conn->busy == 0);
        take_down(conn, -SL_ECLOSED);
        sl_redis_link_stop(&conn->link);
    }
}
