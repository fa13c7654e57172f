/*
 * Torture: one run of a stage on the real runtime, repeated with one thing going wrong each time:
 * the k-th allocation, call to an upstream, reply of Redis, record for Kafka ..., in each way that
 * it can go wrong; and then with three of them at once, drawn from a seed. Kafka, Redis and HTTP
 * are those of tests/support/runtime. After each run:
 *
 *   each record that ended has come to exactly one of: forwarded, a result, a dead letter (bulk
 *   work: done), or Redis had said that nothing was left to do
 *   a record that did not end was handed back: the worker was told to end
 *   no job, slot, permit, claim, call or timer is left
 *
 * and the leak check at the end of the program finds nothing.
 */
#ifndef TESTS_SUPPORT_TORTURE_H
#define TESTS_SUPPORT_TORTURE_H

#include "tests/support/runtime/fake_http.h"
#include "tests/support/runtime/worker_fixture.h"

/* What can go wrong, and how many ways it has. X(enum, name, ways) */
#define TORTURE_KINDS(X)                                                                           \
    X(ALLOCATION, "allocations", 1)                                                                \
    X(ANY_ALLOCATION, "allocations, libraries' too", 1)                                            \
    X(VERDICT, "admissions", 12)                                                                   \
    X(PERMIT, "permits", 2)                                                                        \
    X(WRITE, "writes to Redis", 2)                                                                 \
    X(REFUSED_WRITE, "writes that are not taken", 2)                                               \
    X(HTTP_START, "HTTP calls that cannot begin", 1)                                               \
    X(HTTP, "HTTP calls", 10)                                                                      \
    X(SEND, "records that Kafka does not take", 3)                                                 \
    X(REPORT, "records that are not delivered", 4)                                                 \
    X(OTHER, "calls of the stage's own", 4)                                                        \
    X(MOVE, "moments to move the partitions", 2)                                                   \
    X(END, "moments to end the process", 2)
enum torture_kind {
#define X(kind, name, ways) TORTURE_##kind,
    TORTURE_KINDS(X)
#undef X
        TORTURE_KIND_COUNT
};

struct torture {
    const struct sl_stage *stage;
    void (*feed)(void); /* Gives the worker its records, by torture_feed. */
    /* The body of a whole answer to a call; static. */
    const char *(*answer)(const char *url, const char *body);
    /* Answers what the stage has asked elsewhere, each thing after torture_strike(OTHER); whether
     * there was anything. NULL: it asks nothing. */
    bool (*drive)(void);
    const char *bulk_output; /* The topic of what bulk work is done with; NULL: none. */
    void (*end)(void);       /* The worker is gone. May be NULL. */
};

/* A record for an input; id is also its key. bulk and undecodable ones have their own ways to end.
 */
void torture_feed(const struct fake_record *record);
/* The same for a value that is encoded here. */
void torture_feed_query(uint32_t topic, const char *id, const struct sl_query *query);
void torture_feed_batch(uint32_t topic, const char *id, const struct sl_batch *batch);

/* Something of this kind happens now: 0, or the way in which it is to go wrong, from 1. */
int torture_strike(enum torture_kind kind);

/* Runs it without a failure, then with each, then with three at a time; prints how many there were.
 * The exit code. */
int torture_run(const struct torture *torture);

#endif
