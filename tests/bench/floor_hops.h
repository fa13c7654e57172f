/*
 * The parts of bench_floor_hops: a chain of processes with a topic between each two. Topic 0 is
 * written by the first process and read by the second; the last topic is read by the first again.
 */
#ifndef TESTS_BENCH_FLOOR_HOPS_H
#define TESTS_BENCH_FLOOR_HOPS_H

#include "common/error.h"
#include "tests/bench/measure_histogram.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum { HOPS_MAX = 16, PROPERTIES_MAX = 64, PARTITIONS_MAX = 256, NAME_SIZE = 64 };

struct hops_options {
    const char *brokers;
    unsigned hops, partitions;
    double rate, seconds, warmup;
    bool poisson;
    uint64_t seed;
    size_t bytes;          /* Of a record's value. */
    bool partition_queues; /* One queue a partition; else the consumer's own for all. */
    const char *json;      /* NULL: none; "-": standard output. */
    pid_t broker;          /* Whose CPU to report; 0: none. */
    const char *consumer[PROPERTIES_MAX]; /* "name=value", NULL at the end. */
    const char *producer[PROPERTIES_MAX];
    char prefix[NAME_SIZE / 2]; /* Of the topics and groups of this run. */
};

/* The name of topic `hop`, and of the group that reads it. */
void hops_name(const struct hops_options *options, unsigned hop, char ret[NAME_SIZE]);

/* --- floor_hops_topics.c --- */

/* Creates the topics and waits until each partition has a leader, or deletes topics and groups.
 * 0 or -SL_EIO with a line on standard error. Both block for at most some seconds. */
int hops_topics_create(const struct hops_options *options) SL_CHECKED;
int hops_topics_delete(const struct hops_options *options) SL_CHECKED;

/* --- floor_hops_conf.c --- */

/* Whether librdkafka takes the options' properties; else a line on standard error. */
bool hops_conf_check(const struct hops_options *options);

/* --- floor_hops_link.c --- */

struct link;   /* A consumer of one topic and a producer to another. */
struct record; /* One that was read and whose offset must not be committed yet. */

struct link_config {
    const struct hops_options *options;
    unsigned source, target; /* Topics. */
    /* A record; data may be written to until the return. link_send or link_finish must follow. */
    void (*on_record)(void *ctx, struct link *link, void *data, size_t len, struct record *record);
    void *ctx;
};

/* 0, -SL_ENOMEM or -SL_EIO with a line on standard error. */
int link_create(const struct link_config *config, struct link **ret) SL_CHECKED;
/* Leaves the group and commits; waits for what is not acknowledged. Blocks for some seconds at most
 * unless librdkafka hangs. Takes NULL. */
void link_destroy(struct link *link);
/* The epoll descriptor that link_wait waits on: more can be added to it, with data.fd set. */
int link_epoll(const struct link *link);
/* Waits for at most limit_ms, reads what came, and returns the first of the descriptors that the
 * caller added and that is ready, or -1. */
int link_wait(struct link *link, int limit_ms);
bool link_assigned(const struct link *link); /* All partitions. */
bool link_failed(const struct link *link);   /* A record was not acknowledged, or a fatal error. */
/* Copies. The offset of `record` is stored once the new record is acknowledged; NULL: none. */
void link_send(struct link *link, const void *data, size_t len, struct record *record);
void link_finish(struct link *link, struct record *record);

/* --- floor_hops_chain.c --- */

/* The beginning of each record's value. Each process adds its own times, so that the last hop knows
 * all of them. Nanoseconds of CLOCK_MONOTONIC, which all processes of a machine share. */
struct chain_record {
    uint64_t due_ns;
    uint64_t counted; /* 0: of the warm-up. */
    struct {
        uint64_t sent_ns, received_ns;
    } hops[HOPS_MAX];
};

struct chain_result {
    struct measure_histogram chain; /* Due to received at the end. */
    struct measure_histogram hop;   /* Sent to received, of all hops. */
    struct measure_histogram late;  /* Due to sent by the first process. */
    uint64_t due, answered, cpu_ns, broker_cpu_ns;
    double counted_s;
    bool stopped; /* SIGTERM or SIGINT. */
};

/* The processes but the first: one for each hop but the last. */
struct chain;

/* Forks them; to be called before anything of librdkafka. They wait for chain_run, and end when
 * this process does. 0, -SL_ENOMEM or -SL_EIO with a line on standard error. */
int chain_fork(const struct hops_options *options, struct chain **ret) SL_CHECKED;
/* Starts them, is the first process itself, and measures. The topics exist. 0 or -SL_E* with a line
 * on standard error. */
int chain_run(struct chain *chain, struct chain_result *ret) SL_CHECKED;
/* Ends them and waits for that, 10 s at most. Takes NULL. */
void chain_join(struct chain *chain);

#endif
