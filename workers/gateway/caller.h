/*
 * A caller: one exchange that gets the answer of a query, in its own format, from its own place in
 * the log. A query may have several: those of its idempotency key, and those that came back.
 */
#ifndef SLUICE_GATEWAY_CALLER_H
#define SLUICE_GATEWAY_CALLER_H

#include "workers/gateway/early.h"
#include "workers/gateway/gateway.h"
#include "workers/gateway/intake.h"
#include "workers/gateway/order.h"

struct open_query;
struct replay_log;

struct caller {
    struct gateway *gateway;
    struct open_query *q;
    struct sl_list in_query;
    struct request request; /* exchange NULL: the caller has gone, or has everything. */
    const struct format *format;
    struct order order;
    struct early early;
    struct sl_timer early_timer; /* What waits for the sources waits no longer. */

    /* Of one that is fed by a replay (replay.h). */
    struct replay_log *log; /* NULL: fed by the live reader, or by nothing any more. */
    struct sl_list in_log;
    int64_t position; /* The offset from which records are still to be taken. */
    bool fed;         /* The log is read from there or from before it. */
    bool replayed;
    bool caught_up; /* It has seen everything that stood in the log. */
    bool seeking;   /* It has seen the events up to this one: they are taken, not written. */
    uint32_t last_attempt, last_seq;

    bool accepted;  /* The query is known to be in the log: a stream's head is out. */
    bool broken;    /* Its sequence is: something was missing in the log. */
    bool ended;     /* It gets nothing more: it was given the end, or has left. */
    bool left;      /* Before the end. */
    bool cut;       /* Nothing more is written: a write was not taken, or could not be made. */
    bool listening; /* There and not at the end; counted by the query. */
    uint64_t opened_us, first_text_us;
    uint64_t written_ms;  /* The last write, for keep-alives. */
    struct sl_timer idle; /* Keep-alives; of a replay, before it has its first event: a bound. */
    struct sl_timer held; /* What is written when the reader has taken what was before it. */
    struct sl_task flush;
    struct sl_buf out; /* Stream: to be written. Else: the text so far. */

    struct sl_arena arena; /* Of what an answer that is not streamed collects. */
    struct sl_span question;
    struct sl_hit *hits;
    size_t hits_len;
    struct chat_head chat;
    struct sl_buf citations; /* Chat, not streamed: a JSON array. */
    bool chat_begun;         /* The first chunk is written. */
};

/* A caller of q, told apart by its format and its ids. Nothing of the exchange is touched until
 * caller_listen. Copies; NULL: no memory. */
struct caller *caller_create(struct open_query *q, const struct intake *intake);
/* Takes over the exchange: its end is the caller's from now on. */
void caller_listen(struct caller *caller);
void caller_free(struct caller *caller);

/* The query is in the log. Also when it was accepted before, or has ended. */
void caller_accept(struct caller *caller);
/* The next event of the query in log order. */
void caller_take(struct caller *caller, const struct sl_event *event, struct sl_span value);
/* Everything that stood in the log was given. */
void caller_caught_up(struct caller *caller);
/* The gateway's own ending, behind what was read. */
void caller_end(struct caller *caller, const struct sl_result *result);
/* Nothing of an answer can be given. A stream whose head is out is broken off. */
void caller_fail(struct caller *caller, const struct failure *failure);

/* For formats: appends to the stream; written at the end of this turn. */
struct sl_buf *caller_out(struct caller *caller);

#endif
