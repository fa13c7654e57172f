/*
 * What every long-running program has: the options of the runtime, the log, signals, and an end
 * that cannot hang. The program itself is one function between options and exit.
 */
#ifndef SLUICE_COMMON_PROCESS_H
#define SLUICE_COMMON_PROCESS_H

#include "common/kafka_security.h"
#include "common/loop.h"
#include "common/options.h"

struct sl_process_options {
    const char *brokers, *topic_prefix, *redis_url, *admin_listen;
    long long result_ttl_ms, orphan_grace_ms, drain_ms;
    int log_level, log_format;
    struct sl_kafka_security kafka;
};

struct sl_process {
    const char *program;                     /* "sluice-gateway" */
    const char *synopsis;                    /* One sentence for --help. */
    const char *admin_address;               /* Default of SLUICE_ADMIN_LISTEN. */
    long long drain_ms;                      /* Default of SLUICE_DRAIN_TIMEOUT. */
    const struct sl_option_set *option_sets; /* Its own. */
    size_t option_set_count;                 /* At most 7. */
    /* Everything between options and exit; returns the exit code. */
    int (*run)(void *ctx, const struct sl_process_options *options);
    void *ctx;
};

/* Reads options, starts the log, runs. Returns the exit code, 2 for wrong options. */
int sl_process_main(const struct sl_process *process, int argc, char **argv);

/* SIGTERM and SIGINT. The first calls on_drain, and from then on a watchdog ends the process when
 * drain_ms have passed; the second calls on_stop: end now. SIGPIPE is ignored. */
struct sl_signals;
int sl_signals_create(struct sl_loop *loop, long long drain_ms, void (*on_drain)(void *ctx),
                      void (*on_stop)(void *ctx), void *ctx, struct sl_signals **ret) SL_CHECKED;
void sl_signals_destroy(struct sl_signals *signals); /* Takes NULL. */

#endif
