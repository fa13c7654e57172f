/*
 * The account of documents in Redis (common/lua/ingest_account.lua): a question to it is asked
 * until it is answered, however long Redis is away, so that nothing that was done goes uncounted.
 */
#ifndef SLUICE_WORKERS_INGEST_ACCOUNT_H
#define SLUICE_WORKERS_INGEST_ACCOUNT_H

#include "common/backoff.h"
#include "common/loop.h"
#include "common/redis.h"

struct ingest_account {
    struct sl_loop *loop;
    struct sl_redis *redis;
    const char *prefix; /* Borrowed. */
    uint64_t ttl_ms;    /* How long what was written is kept after the last word. */
};

enum ingest_question {
    INGEST_OPEN,    /* A document's message is taken up: which version is it? */
    INGEST_REMOVE,  /* Likewise of one that says that the document is to go. */
    INGEST_CUT,     /* It was cut into so many chunks. */
    INGEST_LOOK,    /* What is known of this version? A batch of it will be written. */
    INGEST_BATCH,   /* These chunks are in the store. */
    INGEST_DONE,    /* All are, and lower versions are gone. */
    INGEST_CLEANED, /* The store holds nothing of this version any more. */
    INGEST_FAILED,  /* It will not be stored. */
};

enum ingest_state {
    INGEST_STATE_OPEN,
    INGEST_STATE_COMPLETE, /* It was accepted, and was not counted yet. */
    INGEST_STATE_OLD,      /* A higher one was accepted before it. */
    INGEST_STATE_DONE,
    INGEST_STATE_FAILED,
    INGEST_STATE_SKIPPED, /* OPEN: nothing has changed since the accepted version. */
    INGEST_STATE_LOST,    /* Redis has lost what it knew of it. */
};

enum { INGEST_DOCUMENT = -1, INGEST_REASON = 256 };

struct ingest_call;

/* A member of its owner. One question at a time. */
struct ingest_ask {
    /* Set by the owner, valid until on_answer or cancel. */
    struct sl_span tenant, collection, doc_id;
    struct sl_span ingest_id; /* Empty: no run counts it. */
    struct sl_span message;   /* OPEN, REMOVE: what names it, the same for each delivery. */
    struct sl_span source;    /* OPEN, REMOVE: "PARTITION OFFSET TIME" of the message. */
    struct sl_span hash;      /* OPEN: all that its chunks depend on; empty: it is only to fail. */
    uint32_t size;            /* OPEN: chunks of a batch. */
    uint64_t bytes;           /* OPEN: of the text. */
    bool again;               /* OPEN: it is wanted also if it is unchanged. */
    struct sl_span reason;    /* FAILED: one line. */
    int64_t place;            /* Who asks: a batch's first index, or INGEST_DOCUMENT. */
    uint32_t chunks;          /* BATCH: how many of the total are in it. */
    uint32_t total;           /* CUT, BATCH, DONE: chunks of the document. */
    int64_t version;          /* All but OPEN and REMOVE, which set it. */
    void (*on_answer)(struct ingest_ask *ask);
    /* The answer. */
    enum ingest_state state;
    int64_t accepted;              /* The version that can be found; 0: none is known. */
    char uncounted[INGEST_REASON]; /* FAILED: the reason, if it was this place that noted it, and no
                                    * run counts it: then somebody else is to be told. */
    /* Of account.c. */
    struct ingest_account *account;
    enum ingest_question question;
    struct ingest_call *call;
    struct sl_timer retry;
    struct sl_backoff backoff;
};

/* on_answer comes later, once. */
void ingest_ask(struct ingest_account *account, struct ingest_ask *ask,
                enum ingest_question question);
/* on_answer does not come; Redis may have heard the question. Also when nothing is asked. */
void ingest_ask_cancel(struct ingest_ask *ask);

#endif
