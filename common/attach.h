/*
 * Readers of a query. A gateway that has callers for a query is attached to it: Redis keeps the set
 * of attached gateways, where the query's events are in the log, and what its caller wished for the
 * case that he leaves. So another gateway can go on with a stream, a query whose gateways have all
 * died is an orphan (claim.h treats it as its on_disconnect says), and of several callers only the
 * last one's leaving cancels.
 */
#ifndef SLUICE_COMMON_ATTACH_H
#define SLUICE_COMMON_ATTACH_H

#include "common/coord.h"

/* What to do when all callers have gone; else how many ms later to cancel (0: at once). */
enum { SL_POLICY_CONTINUE = -1 };

/* Where a query's events are, and until when it may run. */
struct sl_place {
    int32_t partition;   /* Of the replies topic. */
    int64_t offset;      /* No event of the query lies before it. */
    int64_t deadline_ms; /* Redis's clock. */
    int64_t policy_ms;
};

/* A query that this gateway has callers for. The owner sets id (valid until detached) and place. */
struct sl_attachment {
    struct sl_span id;
    struct sl_place place;
    /* The coord's. */
    bool cancelled;   /* Told again in the quarantine, as the rest is. */
    bool told;        /* Redis has all of this, or an op is on its way. */
    uint64_t renewal; /* The last that carried it. */
    struct sl_list node;
};

/* Joins the query's gateways, and notes its place where none is noted yet. Never fails, and is not
 * awaited: sent in this turn (if 10,000 requests wait: within 4 s), and again in each renewal of a
 * quarantine until detached, so that a Redis that lost its state knows it again, also that the
 * query was cancelled. The attachment is zero but for what the owner set, or was detached. */
void sl_attach(struct sl_coord *coord, struct sl_attachment *attachment);
/* The query has ended or is not this gateway's any more: nothing is said to Redis. */
void sl_detach(struct sl_coord *coord, struct sl_attachment *attachment);
/* The last caller here has gone for good (after his grace): detaches, leaves the query's gateways,
 * and if no other is left cancels the query, unless its policy is to continue. Best effort: tried
 * until the query's deadline. */
void sl_detach_leave(struct sl_coord *coord, struct sl_attachment *attachment);

/* What Redis knows of a query. */
struct sl_query_state {
    bool known;    /* False: nothing; then the rest is not set. */
    bool attached; /* A gateway opened it: place is set. */
    struct sl_place place;
    bool cancelled;
    bool ended;               /* It has its ending, */
    bool end_acked;           /* which is in the log, */
    int32_t result_partition; /* and there on the results topic; -1: not known. */
    int64_t result_offset;
    const char *outcome; /* Ended: "done", "failed", "cancelled", "expired"; else "". */
    const char *stage;   /* Not ended: the last stage that took it up; "" queued. */
};
/* Asks Redis; id is copied, cb's state is borrowed. err: 0, or -SL_ECONN when Redis did not answer
 * for 5 s. In a quarantine a query without a gateway or an end is asked about for as long, since
 * its gateways tell of it again. Returns -SL_ENOMEM, or -SL_EAGAIN when 10,000 are asked about:
 * then cb does not come. It comes inside sl_coord_destroy at the latest. */
typedef void sl_query_state_cb(void *ctx, int err, const struct sl_query_state *state);
int sl_query_look(struct sl_coord *coord, struct sl_span id, sl_query_state_cb *cb,
                  void *ctx) SL_CHECKED;

/* --- Idempotency keys --- */

enum sl_idempotent {
    SL_IDEMPOTENT_NEW,        /* The key is ours: produce, then say sl_idempotent_settle. */
    SL_IDEMPOTENT_ATTACH,     /* Another request has it: attach to its id at its place. */
    SL_IDEMPOTENT_WAIT,       /* It has, but its job is not produced yet: attach, and ask again in a
                               * second; NEW or a changed id then means that it failed. */
    SL_IDEMPOTENT_TAKEN_OVER, /* Its gateway died before the job was produced for certain: produce
                               * again with its id and place; the key is ours now. */
    SL_IDEMPOTENT_CONFLICT,   /* The key was used with another body. */
};
struct sl_idempotency {
    struct sl_span tenant, key; /* key: 1 to 255 bytes as the caller sent it. */
    struct sl_span body;        /* Hashed here: everything that makes two requests the same. */
    char id[65];                /* In: the id of a new query. Out: the id that counts. */
    struct sl_place place;      /* Likewise. */
    uint64_t request;           /* The coord's. */
};
/* Notes the key or finds who has it; kept for the result TTL. A key whose query was cancelled is
 * free again, whatever its body: nobody got its answer (unless it had ended before). A dead owner
 * is one whose heartbeat is older than 6 s (the worst that a wrong guess does is a second record
 * with the same id, which claims drop). Who asks again after WAIT gives a new id and place. answer
 * is valid when err is 0, idempotency is then the caller's own struct updated; it must stay valid
 * until cb, body only during this call. err: 0, or -SL_ECONN when Redis did not answer for 5 s.
 * Returns -SL_ENOMEM, or -SL_EAGAIN when 10,000 questions wait: then cb does not come. It comes
 * inside sl_coord_destroy at the latest. */
int sl_idempotent_open(struct sl_coord *coord, struct sl_idempotency *idempotency,
                       void (*cb)(void *ctx, int err, enum sl_idempotent answer),
                       void *ctx) SL_CHECKED;
/* After NEW or TAKEN_OVER, and only then: the broker has the job (produced), or never will: then
 * the key goes. Best effort, without an answer, in the same script as what else this turn writes.
 */
void sl_idempotent_settle(struct sl_coord *coord, const struct sl_idempotency *idempotency,
                          bool produced);

#endif
