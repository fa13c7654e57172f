/*
 * Claims: one process at a time runs a stage of a query, and a stage that is done is not run again.
 * An admission asks, for one job, everything at once: has the query ended, is it cancelled or
 * expired, is the stage done or running elsewhere, and are there permits. Admissions of one turn
 * travel in one round trip (common/lua/admit.lua).
 */
#ifndef SLUICE_COMMON_CLAIM_H
#define SLUICE_COMMON_CLAIM_H

#include "common/permit.h"

enum sl_verdict {
    SL_VERDICT_GRANTED, /* The claim is ours; fence, attempt and the permits that were free are set.
                         */
    SL_VERDICT_PARKED,  /* Another process that may be alive runs it. Being watched: on_retry
                           follows. */
    SL_VERDICT_DONE,    /* The stage is done and its output acknowledged: nothing is left to do. */
    SL_VERDICT_ENDED,   /* The query has its ending, acknowledged: nothing is left to do. */
    SL_VERDICT_ENDING,  /* It has an ending that nobody alive is producing: produce it (ending is
                           set). */
    SL_VERDICT_CANCELLED, /* The claim is ours, to write the ending. */
    SL_VERDICT_EXPIRED,   /* Likewise. */
    SL_VERDICT_WORN_OUT,  /* Likewise: its owners died too often (three attempts). */
    SL_VERDICT_STREAMED,  /* Its owner died after sl_claim_stream. The claim is ours, to end the
                           * query  or, where its caller wishes, to begin it again. */
};

enum { SL_ADMIT_PERMITS = 2 };

struct sl_admission {
    /* Set by the owner before sl_admit; id and stage stay valid until settled. */
    struct sl_span id;
    const char *stage;   /* "retrieve" */
    int64_t deadline_ms; /* Redis's clock; 0: none. */
    bool bulk;           /* The claim goes when it is settled; no ending, no cancellation. */
    bool no_claim;       /* Only checks (ended, cancelled, expired) and permits. */
    bool restarts;       /* STREAMED would begin it again, and is held back like GRANTED. */
    /* Permits wanted, initialised; NULL: none. Granted only when at least one of those wanted is
     * free, or none is wanted: until then the admission waits without a claim. */
    struct sl_permit *permits[SL_ADMIT_PERMITS];
    void (*on_verdict)(struct sl_admission *admission, enum sl_verdict verdict);
    void (*on_retry)(struct sl_admission *admission); /* Parked: something changed; admit again. */
    void (*on_cancelled)(
        struct sl_admission *admission); /* Granted: the query was cancelled. Once. */
    void (*on_lost)(
        struct sl_admission *admission); /* Granted: the claim is gone; stop, end nothing. */
    /* Waiting: two of its owners died. Without a claim until sl_admit_hold names it. Once. NULL:
     * nobody is told. */
    void (*on_suspect)(struct sl_admission *admission);
    /* Answers. */
    uint64_t fence;
    uint32_t attempt; /* From 1. */
    struct sl_span
        ending; /* SL_VERDICT_ENDING: as given to sl_claim_end; borrowed in on_verdict. */
    /* The coord's. */
    enum {
        SL_ADMIT_IDLE,
        SL_ADMIT_WAITING,
        SL_ADMIT_ASKED,
        SL_ADMIT_PARKED,
        SL_ADMIT_GRANTED
    } state;
    char dead_owner[20];     /* Proved dead while it held this up. */
    bool unsure;             /* An answer was lost: the claim may be ours. */
    bool suspect;            /* on_suspect came. */
    bool streams;            /* Something of it was shown: renewals say so. */
    bool cancelled;          /* on_cancelled came, or needs not come. */
    bool cancel_seen;        /* A message said so while the answer was out. */
    uint64_t serial;         /* Names it in renewals. */
    uint64_t renewal;        /* The last that carried it. */
    uint64_t look;           /* The last round of looks at parked jobs that carried it. */
    uint16_t look_slot;      /* 1 + its place in the look that is out; 0: none. */
    struct sl_op *op;        /* What will settle it, with a copy of id and stage. */
    struct sl_list node;     /* Parked or granted. */
    struct sl_ticket ticket; /* Waiting or asked. */
};

/* The admission is zero but for what the owner set, or came back by on_retry. Queued for the next
 * round trip, in order of deadlines, bulk work last; on_verdict comes later. A permit that was
 * wanted with it and not free at a grant has the state NONE; the owner may ask for it then. While
 * Redis is away it waits, up to the deadline and then as long as needed: an ending needs Redis. */
void sl_admit(struct sl_coord *coord, struct sl_admission *admission);
/* hold: from the next round trip on nothing is granted but `only` (NULL: nothing); the other
 * verdicts come as always, and permits for what runs. An admission whose owners died twice, a
 * suspect, is granted only while it is named here: its process may die of it, and what that process
 * holds then has lost an owner too. In effect until the next call. */
void sl_admit_hold(struct sl_coord *coord, bool hold, const struct sl_admission *only);
/* Takes it back in any state, without a word to Redis about a claim that is granted (its lease as
 * an owner goes on until sl_claim_settle or the process ends). Held permits stay with their owner.
 * The runner of a claim that was lost must withdraw or settle it. */
void sl_admit_withdraw(struct sl_coord *coord, struct sl_admission *admission);

/* The stage's output is acknowledged: the claim is marked done (bulk: removed); not for
 * one without a claim. cb: 0, or -SL_ELOST
 * when the claim is no longer ours, which changes nothing for the caller: its output is out.
 * Retried while Redis is away, until it answers. Withdrawn by sl_coord_destroy. Ends the admission.
 */
void sl_claim_done(struct sl_coord *coord, struct sl_admission *admission,
                   void (*cb)(void *ctx, int err), void *ctx);
/* Something of the work is about to be shown: from now on nobody begins it again unasked. cb: 0, or
 * -SL_ELOST when the claim is no longer ours, -SL_ECONN when Redis was away for 60 s. The claim
 * stays granted. Returns -SL_ENOMEM, or -SL_EAGAIN when 10,000 such requests wait: then cb does not
 * come. */
int sl_claim_stream(struct sl_coord *coord, struct sl_admission *admission,
                    void (*cb)(void *ctx, int err), void *ctx) SL_CHECKED;
/* Gives the claim back undone, so that whoever reads the record next runs it (drain, VERSION). */
void sl_claim_give_back(struct sl_coord *coord, struct sl_admission *admission);

/* The one ending of a query: the first to store it wins; it is then produced by the winner, and
 * acknowledged with sl_claim_ended. ending: the caller's bytes, all that producing needs (copied).
 * outcome: "done", "failed", "cancelled" or "expired", so that it is known without them; static.
 * fence 0: the caller has no claim (a gateway); else only the claim's owner wins. cb: 0 won (also
 * when the same owner stored it before), -SL_EEXIST (there is another: it counts), -SL_ELOST (claim
 * lost). Retried while Redis is away for 60 s, then -SL_ECONN. stage may be NULL when fence is 0.
 * Returns -SL_ENOMEM, or -SL_EAGAIN when 10,000 such requests wait. */
int sl_claim_end(struct sl_coord *coord, struct sl_span id, const char *stage, uint64_t fence,
                 const char *outcome, struct sl_span ending, void (*cb)(void *ctx, int err),
                 void *ctx) SL_CHECKED;
/* The ending was produced and acknowledged, its result at this place of the results topic (-1, -1:
 * not known). Of several places the first known one stays. Best effort, without an answer. */
void sl_claim_ended(struct sl_coord *coord, struct sl_span id, int32_t partition, int64_t offset);
/* Those who asked for something to be written are gone: it is written, and no cb comes. */
void sl_claim_forget_callers(struct sl_coord *coord);

#endif
