/*
 * Redis: one pipelined connection on the loop, and one for subscriptions. It connects by itself,
 * again and again with backoff; each command has a time-out; what cannot be sent fails at once
 * instead of waiting. Replies come in order, never inside the call.
 */
#ifndef SLUICE_COMMON_REDIS_H
#define SLUICE_COMMON_REDIS_H

#include "common/buf.h"
#include "common/loop.h"

struct sl_redis;
struct redisReply;

/* Copied. A number that is 0 takes the value named here. */
struct sl_redis_config {
    const char *url;             /* redis://[[user]:password@]host[:port][/db] */
    uint32_t connect_timeout_ms; /* 2000: for looking up the name, and for each of its addresses. */
    uint32_t command_timeout_ms; /* 1000: then the connection counts as dead and is closed. */
    uint32_t ping_interval_ms;   /* 5000: each connection is tried so often when nothing waits. */
    /* Each time the link comes up, after AUTH, SELECT, INFO server (run_id: the server's,
     * terminated, valid until it goes down) and the check of maxmemory-policy; and when it goes
     * down or a try to connect fails (run_id NULL, why one line; several may follow each other).
     * Commands may be sent inside. */
    void (*on_link)(void *ctx, const char *run_id, const char *why);
    /* A message on a subscribed channel. May be NULL, as may on_subscribed. */
    void (*on_message)(void *ctx, struct sl_span channel, struct sl_span message);
    /* The subscriptions are in place (again): what was published before may have been missed. */
    void (*on_subscribed)(void *ctx);
    void *ctx;
};

/* Starts to connect; a server that is not there is no error, nor is one that loads its data. All
 * callbacks come from the loop. -SL_EINVAL: the URL (why says what); -SL_ENOMEM. */
int sl_redis_create(struct sl_loop *loop, const struct sl_redis_config *config,
                    struct sl_redis **ret, char *why, size_t why_size) SL_CHECKED;
/* Pending callbacks get -SL_ECLOSED inside, in order; on_link does not come. Not inside a callback
 * of this client. Takes NULL. */
void sl_redis_destroy(struct sl_redis *redis);
bool sl_redis_up(const struct sl_redis *redis); /* Commands can be sent. */

/* A reply, borrowed until the callback returns. */
enum sl_reply_type { SL_REPLY_NIL, SL_REPLY_INT, SL_REPLY_STRING, SL_REPLY_ARRAY, SL_REPLY_ERROR };
enum sl_reply_type sl_reply_type(const struct redisReply *reply);
long long sl_reply_int(const struct redisReply *reply); /* Also of a decimal string; else 0. */
struct sl_span sl_reply_span(const struct redisReply *reply); /* Of a string or error; or empty. */
size_t sl_reply_len(const struct redisReply *reply);          /* Of an array; else 0. */
const struct redisReply *sl_reply_at(const struct redisReply *reply, size_t i); /* NULL outside. */

/* err: 0 and a reply that is no error (inside an array there may be some); or reply NULL and
 * -SL_ECONN or -SL_ETIMEDOUT (link lost; the command may or may not have run), -SL_ECLOSED,
 * -SL_ENOMEM, -SL_EUPSTREAM (Redis answered an error; it was logged once a second at most). */
typedef void sl_redis_cb(void *ctx, int err, const struct redisReply *reply);

/* cb may be NULL. 0; -SL_ECONN when the link is down, -SL_EAGAIN when 10,000 commands wait or 64
 * MiB are not sent yet, -SL_ENOMEM: then cb does not come. Arguments are copied. */
int sl_redis_command(struct sl_redis *redis, size_t argc, const struct sl_span *argv,
                     sl_redis_cb *cb, void *ctx) SL_CHECKED;

/* The same, but an error that Redis answers is the caller's to read: err -SL_EUPSTREAM and the reply,
 * of type SL_REPLY_ERROR; it is not logged. */
int sl_redis_try(struct sl_redis *redis, size_t argc, const struct sl_span *argv, sl_redis_cb *cb,
                 void *ctx) SL_CHECKED;

/* A script, run by its SHA1 and loaded when the server does not know it. It must live as long as
 * the client; several clients may share it. */
struct sl_redis_script {
    const char *text;
    char sha[41]; /* Empty, then filled from the reply to the first run. */
};
/* As sl_redis_command. A script that the server has forgotten is sent again by itself; its run then
 * comes after what was sent meanwhile. */
int sl_redis_eval(struct sl_redis *redis, struct sl_redis_script *script, size_t key_count,
                  size_t argc, const struct sl_span *argv /* Keys first. */, sl_redis_cb *cb,
                  void *ctx) SL_CHECKED;

/* Before or after the link is up; renewed at each reconnect; a channel twice is one. channel is
 * copied. 0, -SL_EAGAIN (1000 channels), -SL_ENOMEM. */
int sl_redis_subscribe(struct sl_redis *redis, struct sl_span channel) SL_CHECKED;

#endif
