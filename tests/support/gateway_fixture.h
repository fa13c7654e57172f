/*
 * sluice-gateway as a process of its own, on a real Kafka and Redis, and in front of it a pipeline
 * that the test plays: it sees the jobs that the gateway produces and writes whatever events it
 * likes. What fails here ends the test.
 */
#ifndef TESTS_SUPPORT_GATEWAY_FIXTURE_H
#define TESTS_SUPPORT_GATEWAY_FIXTURE_H

#include "common/clock.h"
#include "common/codec.h"
#include "common/loop.h"
#include "tests/support/http_peer.h"
#include "tests/support/redis_fixture.h"

/* A job on the queries topic. */
struct asked {
    struct asked *next;
    struct sl_arena arena;
    struct sl_query query; /* With its routing. */
    char id[65];
};

struct gateway_fixture {
    struct sl_loop *loop;
    struct redis_fixture *redis;
    int port, admin_port;
    struct asked *asked; /* The newest first. */
    size_t asked_count;
    size_t results;    /* Records on the results topic. */
    struct sl_buf log; /* The gateway's standard error, ended with a zero. */
};
extern struct gateway_fixture gateway;

/* Starts Redis and the gateway, with these environment variables besides (NAME=VALUE, NULL at the
 * end; NULL: none), and waits until it reads replies; with SLUICE_KAFKA_BROKERS as the first, only
 * until it listens. Kafka is kept from test to test. */
void gateway_start(const char *const *environment);
/* SIGTERM; the gateway must end with this exit code, without a complaint of a sanitizer. */
void gateway_stop(int exit_code);
void gateway_signal(int signum);
bool gateway_ended(void);
bool gateway_logged(const char *text);
const char *gateway_results_topic(void);   /* Of one partition. */
const char *gateway_documents_topic(void); /* As that. */
const char *gateway_prefix(void);          /* Of topics and keys. */

/* The same, with two connections to it, which the end closes first; exit code 0. */
void gateway_start_pair(struct peer *first, struct peer *second);
void gateway_stop_pair(struct peer *first, struct peer *second);
void gateway_reconnect(struct peer *peer); /* Leaves, and comes back. */

/* Sends a POST with a JSON body; headers: lines that end with \r\n. */
void gateway_post(struct peer *peer, const char *path, const char *headers, const char *body);
/* Waits until n jobs have come in all, and returns the newest. */
struct asked *gateway_asked(size_t n);

/* Events of a job, on its reply partition. fence decides who wrote it. */
void emit_sources(const struct asked *asked, uint64_t fence);
void emit_delta(const struct asked *asked, uint32_t attempt, uint32_t seq, uint64_t fence,
                const char *text);
void emit_restart(const struct asked *asked, uint32_t attempt, uint32_t seq, uint64_t fence);
void emit_done(const struct asked *asked, uint32_t attempt, uint32_t seq, uint64_t fence);
void emit_error(const struct asked *asked, uint32_t attempt, uint32_t seq, uint64_t fence,
                enum sl_query_error code, const char *message);

/* Events until the end are kept, and go as one record to this job's reply partition. */
void emit_bundle_begin(void);
/* tail: what follows the events, which is no event. */
void emit_bundle_end(const struct asked *asked, struct sl_span tail);

/* The field of the query's hash in Redis, or "" when it has none; until the next call. */
const char *gateway_redis_field(const char *id, const char *field);
bool gateway_cancelled(const struct asked *asked); /* So it is noted in Redis. */
/* Sets it. */
void gateway_redis_set(const char *id, const char *field, const char *value);
/* Of the hash of this name, which the prefix goes before; as above. */
const char *gateway_redis_get(const char *name, const char *field);
/* Sets or, value NULL, deletes a field of the hash of this name, which the prefix goes before. */
void gateway_redis_put(const char *name, const char *field, const char *value);

#define GATEWAY_WAIT(cond) PEER_WAIT(gateway.loop, cond)

#endif
