/*
 * One connection of the Redis client: a link, the greeting, the pairing of replies with the
 * commands that wait for them, and the time-outs. Used by redis.c alone.
 */
#ifndef SLUICE_COMMON_REDIS_CONN_H
#define SLUICE_COMMON_REDIS_CONN_H

#include "common/redis.h"
#include "common/redis_link.h"
#include "common/redis_url.h"

enum { SL_REDIS_MAX_OUT = 64 << 20 }; /* Bytes not sent yet. */

struct redisReader;
struct sl_redis_conn;
struct sl_redis_sent;

/* err 0 and a reply, which may be an error; or reply NULL. May send `sent` again; else it is freed
 * afterwards. */
typedef void sl_redis_finish(struct sl_redis_conn *conn, struct sl_redis_sent *sent, int err,
                             const struct redisReply *reply);

/* A command that waits for its reply. */
struct sl_redis_sent {
    struct sl_list node;
    uint64_t sent_ms;
    sl_redis_finish *finish;
    const char *name; /* For messages about it. */
    /* The rest is for finish. */
    sl_redis_cb *cb;
    void *ctx;
    struct sl_redis_script *script; /* An eval's, and these: */
    bool with_text;                 /* Sent as EVAL, which does not fail for want of the script. */
    size_t argc;
    struct sl_buf tail; /* The encoded arguments after the script. */
};

struct sl_redis_conn_callbacks {
    void (*on_ready)(struct sl_redis_conn *conn); /* Greeted; conn->up from now on. */
    /* Lost, or a try failed; all waiting commands have failed. */
    void (*on_down)(struct sl_redis_conn *conn, const char *why);
    /* Subscriptions' only (then not NULL): a reply that answers no command. */
    void (*on_message)(struct sl_redis_conn *conn, const struct redisReply *reply);
};

/* A member of its owner, who zeroes it and sets the first part. Callbacks fire from the loop. */
struct sl_redis_conn {
    struct sl_loop *loop;
    const struct sl_redis_conn_callbacks *callbacks;
    const struct sl_redis_url *url;
    uint32_t connect_timeout_ms, command_timeout_ms, ping_interval_ms;

    struct sl_redis_link link;
    struct redisReader *reader; /* While the link is open. */
    struct sl_list waiting;     /* struct sl_redis_sent, oldest first. */
    size_t waiting_len;
    size_t unparsed; /* Bytes since the last whole reply. */
    struct sl_timer expiry, ping;
    bool up;
    unsigned busy; /* Depth of callbacks: stop is not allowed. */
    /* Not of a connection for subscriptions: */
    char run_id[64];
    long long id;        /* The server's number for this connection; 0: not known. */
    long long id_before; /* For the last one that was up, if that was this server; 0: not known. */
    char last_why[256];  /* As logged; a reason that stays is logged once. */
};

void sl_redis_conn_start(struct sl_redis_conn *conn);
/* Waiting commands get -SL_ECLOSED inside; no callback comes any more. Also when never started. */
void sl_redis_conn_stop(struct sl_redis_conn *conn);
bool sl_redis_conn_started(const struct sl_redis_conn *conn);

struct sl_redis_sent *sl_redis_sent_new(sl_redis_finish *finish, sl_redis_cb *cb, void *ctx);
void sl_redis_sent_free(struct sl_redis_sent *sent);

/* While up. Takes sent over, also on failure; NULL is -SL_ENOMEM. Else 0, -SL_EAGAIN, -SL_ENOMEM.
 */
int sl_redis_conn_send(struct sl_redis_conn *conn, struct sl_redis_sent *sent, size_t argc,
                       const struct sl_span *argv) SL_CHECKED;
/* The same for who appended the command to conn->link.out, which was `before` bytes long. On
 * failure what was appended is taken back and sent stays the caller's. */
int sl_redis_conn_commit(struct sl_redis_conn *conn, struct sl_redis_sent *sent,
                         size_t before) SL_CHECKED;
void sl_redis_put_arg(struct sl_buf *out, struct sl_span arg); /* Encodes one argument. */

/* Closes the link, because this reply to sent makes it useless. */
void sl_redis_conn_refuse(struct sl_redis_conn *conn, const struct sl_redis_sent *sent,
                          const struct redisReply *reply);

#endif
