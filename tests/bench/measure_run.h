/*
 * One run of load: which requests are due, which are open, what became of them. The program does
 * the talking and tells; no clock is read here, and no callback exists. All times are nanoseconds
 * of CLOCK_MONOTONIC and never decrease from call to call.
 *
 * Of each request all times count from when it was due, not from when it was sent. Requests due in
 * the warm-up are sent, but counted nowhere.
 */
#ifndef TESTS_BENCH_MEASURE_RUN_H
#define TESTS_BENCH_MEASURE_RUN_H

#include "common/list.h"
#include "tests/bench/measure_histogram.h"
#include "tests/bench/measure_options.h"
#include "tests/bench/measure_schedule.h"

/* clang-format off */
#define MEASURE_FAILURES(X)                                              \
    X(CONNECT,      "connect")      /* No connection. */                 \
    X(STATUS_503,   "status_503")   /* Refused. */                       \
    X(STATUS_OTHER, "status_other")                                      \
    X(ERROR_EVENT,  "error_event")  /* The answer ended with an error. */\
    X(SHORT,        "short")        /* Ended without all its tokens. */  \
    X(TIMEOUT,      "timeout")                                           \
    X(RESET,        "reset")        /* The connection was closed. */     \
    X(GARBLED,      "garbled")      /* Not what the protocol allows. */  \
    X(LIMIT,        "limit")        /* Never sent: --max-open. */
/* clang-format on */

enum measure_failure {
#define X(name, text) MEASURE_##name,
    MEASURE_FAILURES(X)
#undef X
        MEASURE_FAILURE_KINDS
};

/* One request that is open; the caller's memory, in it from start to end. */
struct measure_call {
    struct sl_list node;
    uint64_t due_ns;
    uint64_t first_ns, last_ns; /* The first and the latest tokens; 0: none yet. */
    long tokens;
    bool counted;
};

/* Larger than 1 MiB, for its histograms. */
struct measure_run {
    const struct measure_options *options;
    struct measure_schedule schedule;
    struct sl_list open; /* Of measure_call, by due time. */
    uint64_t count_from_ns;
    size_t open_len, peak_open;
    uint64_t due, answered, failed, failures[MEASURE_FAILURE_KINDS]; /* Of the counted. */
    uint64_t tokens, events;
    uint64_t cpu_from_ns, cpu_ns; /* Of this process, since the counted phase began. */
    struct measure_histogram ttft, overhead, total, gap, start_late;
};

/* The first request may be due at now_ns. options is borrowed. 0 or -SL_ENOMEM. */
int measure_run_init(struct measure_run *run, const struct measure_options *options,
                     uint64_t now_ns) SL_CHECKED;
void measure_run_fini(struct measure_run *run); /* Also of a zeroed one. */

/* Opens `call` for the earliest request that is due by now; false: none is, and call is untouched.
 * The caller takes them until false. One that --max-open forbids is counted as failed instead. */
bool measure_run_start(struct measure_run *run, struct measure_call *call, uint64_t now_ns);

/* Some tokens of the call arrived together, in `events` events. */
void measure_run_tokens(struct measure_run *run, struct measure_call *call, long tokens,
                        long events, uint64_t now_ns);

/* The answer came to its proper end; it is short unless all tokens came. The call is closed. */
void measure_run_end(struct measure_run *run, struct measure_call *call, uint64_t now_ns);

/* The call is closed. In a closed loop its stream starts again 100 ms later. */
void measure_run_fail(struct measure_run *run, struct measure_call *call,
                      enum measure_failure failure, uint64_t now_ns);

/* An open call whose time is over, to be failed with MEASURE_TIMEOUT; or NULL. */
struct measure_call *measure_run_overdue(const struct measure_run *run, uint64_t now_ns);

/* When something is due next, a start or a time-out; MEASURE_NEVER when the run is over. */
uint64_t measure_run_wake(const struct measure_run *run);

#endif
