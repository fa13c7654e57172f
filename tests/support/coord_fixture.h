/*
 * A small cluster on one loop: a redis-server and any number of members, each a coord with a
 * connection of its own, as processes would have. Also jobs and permits that note what happened to
 * them. What fails here ends the program.
 */
#ifndef TESTS_SUPPORT_COORD_FIXTURE_H
#define TESTS_SUPPORT_COORD_FIXTURE_H

#include "common/claim.h"
#include "tests/support/redis_fixture.h"
#include "tests/support/test.h"

#include "common/clock.h"

enum { CLUSTER_BOUND_MS = 15000, CLUSTER_MEMBERS = 64 };

struct cluster {
    struct sl_loop *loop;
    struct redis_fixture *redis;
    struct sl_metrics *metrics;
    uint32_t ttl_ms;
    struct sl_coord *members[CLUSTER_MEMBERS];
    size_t member_count;
};

/* Turns the loop until the condition holds. */
#define UNTIL(cluster, condition)                                                                  \
    do {                                                                                           \
        uint64_t until_ = sl_clock_now_ms() + CLUSTER_BOUND_MS;                                    \
        while (!(condition)) {                                                                     \
            if (sl_clock_now_ms() > until_) {                                                      \
                fprintf(stderr, "%s:%d: waited in vain for %s\n", __FILE__, __LINE__, #condition); \
                abort();                                                                           \
            }                                                                                      \
            sl_loop_turn((cluster)->loop, 20);                                                     \
        }                                                                                          \
    } while (0)

/* Starts Redis; members come by cluster_join. ttl_ms: of leases. */
void cluster_start(struct cluster *cluster, uint32_t ttl_ms);
void cluster_stop(struct cluster *cluster);
/* A Redis that nobody used before is known to hold no leases: no quarantine. */
void cluster_skip_quarantine(struct cluster *cluster);
/* A member with the limits CHAT 2, EMBED 4 (queries 3, bulk 2) and WIDE 8; returns when it is
 * ready. */
struct sl_coord *cluster_join(struct cluster *cluster, const char *name);
/* As if its process had died: nothing more is said to Redis. */
void cluster_crash(struct cluster *cluster, struct sl_coord *coord);
void cluster_run(struct cluster *cluster, uint64_t ms); /* Lets so much time pass. */
/* A command on a connection of its own, in one line; the reply's text, static, "" for nil. */
const char *cluster_say(struct cluster *cluster, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
long long cluster_commands(struct cluster *cluster, const char *name); /* Calls so far. */

enum { LIMIT_CHAT, LIMIT_EMBED, LIMIT_WIDE };

struct test_permit {
    struct sl_permit permit;
    struct sl_coord *coord;
    int granted, expired, lost;
};

void test_permit_init(struct test_permit *p, struct sl_coord *coord, size_t limit, bool bulk);
void test_permit_request(struct test_permit *p, int64_t in_ms); /* The deadline, from now. */

struct test_job {
    struct sl_admission admission;
    struct test_permit permits[SL_ADMIT_PERMITS];
    struct sl_coord *coord;
    int verdicts, retries, cancelled, lost, suspected;
    enum sl_verdict verdict; /* The last. */
    char ending[64];
    int done_calls, done_err;
};

/* Asks for admission to the stage "test", with a deadline in 60 s. */
void test_job_init(struct test_job *job, struct sl_coord *coord, const char *id);
void test_job_want(struct test_job *job, size_t limit);
void test_job_admit(struct test_job *job);
void test_job_done(struct test_job *job);
/* Until it has a new verdict, which is returned. */
enum sl_verdict test_job_verdict(struct cluster *cluster, struct test_job *job);

#endif
