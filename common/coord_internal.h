/*
 * The coordination's own view of itself, shared by coord.c (link, clock, messages), coord_args.c
 * (how a script is called), coord_admit.c (the line and its round trips), coord_settle.c (what is
 * written), coord_renew.c (leases), coord_watch.c (heartbeat, parked jobs), coord_question.c (what
 * is asked beside the line), permit.c, claim.c, attach.c and attach_idempotent.c.
 */
#ifndef SLUICE_COMMON_COORD_INTERNAL_H
#define SLUICE_COMMON_COORD_INTERNAL_H

#include "common/attach.h"
#include "common/claim.h"
#include "common/coord_line.h"
#include "common/coord_observer.h"
#include "common/coord_question.h"
#include "common/redis.h"

enum {
    COORD_RENEW_MAX = 256,
    COORD_WATCH_MAX = 256,
    COORD_SETTLE_MAX = 128,
    COORD_OPS_MAX = 10000
};

/* The arguments of a script; the memory is used again. */
struct coord_args {
    struct sl_span *spans;
    size_t *offsets; /* Into text; SIZE_MAX: the span is borrowed. */
    size_t len, cap;
    struct sl_buf text;
    int err;
};

/* A script with the prelude in front, and its one call that may be out (a question's: any number,
 * and what is behind the text is not used). */
struct coord_script {
    struct sl_coord *coord;
    struct sl_redis_script script;
    struct sl_buf text;
    uint64_t sent_ms;
    bool out;
    /* err: 0 and the reply; its first two values have been taken in already. */
    void (*on_reply)(struct sl_coord *coord, int err, const struct redisReply *reply);
};

enum op_type {
    OP_NONE, /* Kept for an admission that runs. */
    OP_RELEASE,
    OP_COOL,
    OP_HEAL,
    OP_DONE,
    OP_STREAM,
    OP_GIVE_BACK,
    OP_END,
    OP_ENDED,
    OP_CANCEL,
    OP_ATTACH,
    OP_LEAVE,
    OP_IDEMPOTENT,
};

/* Something to be written; see common/lua/settle.lua. From a pool. */
struct sl_op {
    struct sl_list node;
    struct sl_list in_made;
    enum op_type type;
    bool bulk;
    bool releases;       /* Goes first. */
    bool shown;          /* Given back after something of it was shown. */
    struct sl_buf bytes; /* id, stage, ending. */
    size_t id_len, stage_len;
    size_t limit;
    uint64_t serial, fence;
    uint32_t attempt;
    struct sl_place place; /* Of who attaches or leaves; of an ending's result. */
    const char *outcome;   /* Of an ending. */
    uint64_t until_ms;     /* This process's monotonic clock; then it is given up. */
    void (*cb)(void *ctx, int err);
    void *ctx;
};

/* What is out of the line, by place in the batch. */
struct coord_slot {
    struct sl_ticket *ticket; /* NULL: withdrawn meanwhile; then the rest says how to clean up. */
    struct sl_op *op;         /* Of a withdrawn admission. */
    size_t permits;
    struct {
        uint64_t serial;
        uint8_t limit;
        bool bulk;
    } permit[SL_ADMIT_PERMITS];
};

struct sl_coord {
    struct sl_loop *loop;
    struct sl_redis *redis;
    char *prefix;
    char owner[SL_OWNER_MAX];
    struct sl_limit limits[SL_LIMITS_MAX];
    size_t limit_count;
    uint32_t ttl_ms, unit_ms; /* A unit is a fifteenth of the TTL: a second. */
    uint64_t result_ttl_ms, heartbeat_ttl_ms, orphan_grace_ms;
    void (*on_ready)(void *ctx, bool ready, const char *why);
    void *ctx;

    /* The link and the clock. */
    bool linked, ready, closing;
    char run_id[64];
    bool clock_known;
    int64_t clock_offset_ms;    /* Redis's clock minus ours. */
    uint64_t quarantine_end_ms; /* This process's monotonic clock. */
    struct sl_observer observer;
    struct coord_args args;
    struct coord_script admit, settle, renew, beat;
    uint64_t serial;

    /* The line. */
    struct sl_line line;
    struct coord_slot slots[SL_LINE_BATCH];
    size_t slot_count;
    struct sl_task ask_task;
    struct sl_timer line_timer;
    bool hold; /* Nothing is granted but `only`. */
    const struct sl_admission *only;

    /* What is held. */
    struct sl_list held;    /* sl_permit */
    struct sl_list granted; /* sl_admission */
    uint32_t held_count[SL_LIMITS_MAX];
    struct sl_timer lease_timer, renew_timer;
    /* The last script of renewals, and the first of the round that is going on (0: none). Scripts
     * have even numbers; what is got during one bears the odd number after it, so that the round
     * passes it by and no reply renews it. */
    uint64_t renewal, round;
    bool renew_again;

    /* What has readers here, and what is asked beside the line. */
    struct sl_list attached;  /* sl_attachment */
    struct sl_list questions; /* coord_question */
    size_t question_count;
    struct coord_script look_at_query, idempotent;

    /* What is parked. */
    struct sl_list parked;                        /* sl_admission */
    uint64_t look;                                /* The round of looks. */
    struct sl_admission *looked[COORD_WATCH_MAX]; /* Those in the script that is out. */
    size_t look_count;
    struct sl_timer beat_timer;

    /* What is written. */
    struct sl_list releases, ops, sent; /* sl_op */
    struct sl_list spare;               /* sl_op */
    struct sl_list made;                /* All sl_op, wherever they are. */
    size_t spare_len;
    size_t op_count;   /* In releases, ops and sent. */
    size_t undo_count; /* Of them, claims that are given back: nothing is admitted before. */
    struct sl_task settle_task;
    struct sl_timer settle_timer;
    bool settle_due; /* What is to be written goes now; else company_timer runs. */
    struct sl_timer company_timer;
    uint64_t wanted_until_ms[SL_LIMITS_MAX]; /* Somebody waits: releases go at once. */

    struct sl_gauge *gauge_ready, *gauge_held[SL_LIMITS_MAX];
    struct sl_counter *lost_permits, *lost_claims, *takeovers;
};

/* coord.c */
uint64_t coord_local_ms(const struct sl_coord *coord, int64_t redis_ms); /* On our clock. */
void coord_set_ready(struct sl_coord *coord, bool ready, const char *why);
/* Tells on_cancelled to those who run and have seen a cancellation. */
void coord_tell_cancelled(struct sl_coord *coord);

/* coord_args.c */
void coord_args_init(struct coord_args *args);
void coord_args_fini(struct coord_args *args);
void coord_args_begin(struct sl_coord *coord); /* With what the prelude takes. */
void coord_args_span(struct sl_coord *coord, struct sl_span span); /* Borrowed until the call. */
void coord_args_text(struct sl_coord *coord, const char *text);    /* Likewise. */
void coord_args_int(struct sl_coord *coord, uint64_t value);
void coord_args_place(struct sl_coord *coord, const struct sl_place *place);
void coord_args_position(struct sl_coord *coord, const struct sl_place *place); /* Half of it. */
void coord_args_work(struct sl_coord *coord, const struct sl_op *op); /* kind, id, stage */
int coord_script_init(struct sl_coord *coord, struct coord_script *script, const char *text,
                      void (*on_reply)(struct sl_coord *, int,
                                       const struct redisReply *)) SL_CHECKED;
void coord_script_fini(struct coord_script *script);
/* Runs it with the arguments gathered. 0: on_reply comes. */
int coord_script_run(struct coord_script *script) SL_CHECKED;
int coord_args_eval(struct sl_coord *coord, struct sl_redis_script *script, sl_redis_cb *cb,
                    void *ctx) SL_CHECKED; /* The same, with the raw reply. */

/* coord_admit.c */
void coord_ask(struct sl_coord *coord); /* Soon, if something is due. */
void coord_ask_all(struct sl_coord *coord);
void coord_ask_about(struct sl_coord *coord, struct sl_span id); /* What waits for this query. */
void coord_on_admitted(struct sl_coord *coord, int err, const struct redisReply *reply);
void coord_leave_line(struct sl_coord *coord, struct sl_ticket *ticket);

/* coord_settle.c */
struct sl_op *coord_op_new(struct sl_coord *coord); /* NULL: out of memory. */
int coord_op_name(struct sl_op *op, struct sl_span id, const char *stage) SL_CHECKED; /* Copies. */
/* One that names a query, for who can be told that it is not to be had: -SL_ENOMEM, -SL_EAGAIN. */
int coord_op_about(struct sl_coord *coord, struct sl_span id, const char *stage,
                   struct sl_span bytes, struct sl_op **ret) SL_CHECKED;
void coord_op_free(struct sl_coord *coord, struct sl_op *op); /* Takes NULL. */
/* Takes over the op and sends it with the others of this turn, or of the next 2 ms. */
void coord_op_queue(struct sl_coord *coord, struct sl_op *op, enum op_type type, uint64_t for_ms);
void coord_release(struct sl_coord *coord, size_t limit, bool bulk, uint64_t serial);
void coord_give_back(struct sl_coord *coord, struct sl_op *op, uint64_t fence); /* Takes it over. */
void coord_settle_soon(struct sl_coord *coord); /* All that waits to be written. */
/* Somebody waits for these limits, as in sl_ticket.wants: for some time releases go at once. */
void coord_wanted(struct sl_coord *coord, uint16_t wants);
void coord_settle_expire(struct sl_coord *coord);
void coord_on_settled(struct sl_coord *coord, int err, const struct redisReply *reply);
void coord_settle_fini(struct sl_coord *coord);

/* coord_renew.c */
void coord_renew_now(struct sl_coord *coord);
void coord_on_renewed(struct sl_coord *coord, int err, const struct redisReply *reply);
void coord_hold(struct sl_coord *coord, struct sl_permit *permit, uint64_t serial, bool probe,
                uint64_t sent_ms);
void coord_drop(struct sl_coord *coord, struct sl_permit *permit); /* No longer held. */

/* attach.c */
bool coord_read_place(struct sl_span text, struct sl_place *ret);
/* Cancelled, by whom ever: noted for the quarantine. Here: Redis may not have it yet. */
void coord_attach_cancelled(struct sl_coord *coord, struct sl_span id, bool here);

/* coord_watch.c */
void coord_park(struct sl_coord *coord, struct sl_admission *admission);
void coord_unpark(struct sl_coord *coord, struct sl_admission *admission); /* Without a word. */
void coord_beat_now(struct sl_coord *coord);
void coord_on_beaten(struct sl_coord *coord, int err, const struct redisReply *reply);
void coord_retry_parked(struct sl_coord *coord, struct sl_span id);

#endif
