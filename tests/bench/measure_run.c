/*
 * The book of one run. measure_run_start() opens requests, measure_run_tokens() times them,
 * measure_run_end() or measure_run_fail() closes them; the program asks measure_run_wake() how long
 * it may sleep. Open calls stand in a list by due time, which is also the order of their time-outs.
 *
 * The first token's time and the total count for answered requests alone: a failure has a line of
 * its own, and no request that failed fast may make the median better. Gaps count as they come.
 *
 * The CPU time is that of this process from the first counted start on, so that the report tells
 * whether the client itself was too busy to be trusted.
 */
#include "tests/bench/measure_run.h"

#include "tests/bench/measure_clock.h"

#include <assert.h>

static const uint64_t PAUSE_NS = 100 * MEASURE_MS_NS; /* After a failure, in the closed loop. */

int measure_run_init(struct measure_run *run, const struct measure_options *options,
                     uint64_t now_ns)
{
    *run = (struct measure_run){.options = options};
    sl_list_init(&run->open);
    run->count_from_ns = now_ns + (uint64_t)(options->warmup_s * 1e9);
    uint64_t end_ns = run->count_from_ns + (uint64_t)(options->seconds * 1e9);
    if (options->rate > 0) {
        return measure_schedule_open(&run->schedule, options->rate, options->poisson,
                                     (uint64_t)options->seed, now_ns, end_ns);
    }
    return measure_schedule_closed(&run->schedule, (size_t)options->streams,
                                   (uint64_t)(options->spread_s * 1e9), now_ns, end_ns);
}

void measure_run_fini(struct measure_run *run)
{
    measure_schedule_fini(&run->schedule);
}

static void count_failure(struct measure_run *run, enum measure_failure failure)
{
    run->failed++;
    run->failures[failure]++;
}

static void count_start(struct measure_run *run, uint64_t due_ns, uint64_t now_ns)
{
    if (run->due++ == 0) {
        run->cpu_from_ns = measure_cpu_ns();
    }
    measure_histogram_add(&run->start_late, now_ns - due_ns);
}

bool measure_run_start(struct measure_run *run, struct measure_call *call, uint64_t now_ns)
{
    uint64_t due_ns = 0;
    while (measure_schedule_take(&run->schedule, now_ns, &due_ns)) {
        bool counted = due_ns >= run->count_from_ns;
        if (counted) {
            count_start(run, due_ns, now_ns);
        }
        if (run->open_len < (size_t)run->options->max_open) {
            *call = (struct measure_call){.due_ns = due_ns, .counted = counted};
            sl_list_push(&run->open, &call->node);
            run->open_len++;
            run->peak_open = run->open_len > run->peak_open ? run->open_len : run->peak_open;
            return true;
        }
        if (counted) {
            count_failure(run, MEASURE_LIMIT);
        }
    }
    return false;
}

void measure_run_tokens(struct measure_run *run, struct measure_call *call, long tokens,
                        long events, uint64_t now_ns)
{
    assert(tokens >= 0 && events >= 0);
    if (call->counted) {
        run->tokens += (uint64_t)tokens;
        run->events += (uint64_t)events;
    }
    if (tokens == 0) {
        return;
    }
    if (call->first_ns == 0) {
        call->first_ns = now_ns;
    } else if (call->counted) {
        measure_histogram_add(&run->gap, now_ns - call->last_ns);
    }
    call->last_ns = now_ns;
    call->tokens += tokens;
}

static void close_call(struct measure_run *run, struct measure_call *call, uint64_t again_ns)
{
    assert(run->open_len > 0);
    sl_list_remove(&call->node);
    run->open_len--;
    measure_schedule_again(&run->schedule, again_ns);
    if (run->due > 0) {
        run->cpu_ns = measure_cpu_ns() - run->cpu_from_ns;
    }
}

/* The overhead has a histogram of its own: at 770 ms the buckets of the other one are too wide for
 * what is above the ideal. */
static void count_first(struct measure_run *run, uint64_t ttft_ns)
{
    uint64_t ideal_ns = (uint64_t)(run->options->ideal_ms * 1e6);
    measure_histogram_add(&run->ttft, ttft_ns);
    measure_histogram_add(&run->overhead, ttft_ns > ideal_ns ? ttft_ns - ideal_ns : 0);
}

void measure_run_end(struct measure_run *run, struct measure_call *call, uint64_t now_ns)
{
    if (call->tokens != run->options->tokens) {
        measure_run_fail(run, call, MEASURE_SHORT, now_ns);
        return;
    }
    if (call->counted) {
        run->answered++;
        measure_histogram_add(&run->total, now_ns - call->due_ns);
        if (call->first_ns > 0) {
            count_first(run, call->first_ns - call->due_ns);
        }
    }
    close_call(run, call, now_ns);
}

void measure_run_fail(struct measure_run *run, struct measure_call *call,
                      enum measure_failure failure, uint64_t now_ns)
{
    assert(failure < MEASURE_FAILURE_KINDS);
    if (call->counted) {
        count_failure(run, failure);
    }
    close_call(run, call, now_ns + PAUSE_NS);
}

static uint64_t timeout_of(const struct measure_run *run, const struct measure_call *call)
{
    return call->due_ns + (uint64_t)run->options->timeout_ms * MEASURE_MS_NS;
}

static struct measure_call *first_open(const struct measure_run *run)
{
    return run->open_len > 0 ? SL_ITEM(run->open.next, struct measure_call, node) : NULL;
}

struct measure_call *measure_run_overdue(const struct measure_run *run, uint64_t now_ns)
{
    struct measure_call *call = first_open(run);
    return call != NULL && timeout_of(run, call) <= now_ns ? call : NULL;
}

uint64_t measure_run_wake(const struct measure_run *run)
{
    uint64_t start_ns = measure_schedule_next(&run->schedule);
    const struct measure_call *call = first_open(run);
    uint64_t timeout_ns = call != NULL ? timeout_of(run, call) : MEASURE_NEVER;
    return start_ns < timeout_ns ? start_ns : timeout_ns;
}
