/*
 * Counters, and a histogram of lateness: from when a write was due to when it was done, with the
 * write itself and the grid of the tokens. A benchmark whose late_ms_p99 is not far below what it
 * reports has measured the stub or a busy machine.
 */
#include "upstream_stats.h"

#include "common/clock.h"
#include "common/json.h"

#include <time.h>

enum { BUCKET_US = 10 };

void upstream_stats_begin(struct upstream_stats *stats, enum upstream_kind kind)
{
    struct upstream_count *count = &stats->kinds[kind];
    count->calls++;
    count->in_flight++;
    count->peak = count->in_flight > count->peak ? count->in_flight : count->peak;
}

void upstream_stats_end(struct upstream_stats *stats, enum upstream_kind kind, bool aborted)
{
    stats->kinds[kind].in_flight--;
    stats->kinds[kind].aborted += aborted;
}

void upstream_stats_written(struct upstream_stats *stats, uint64_t due_us)
{
    uint64_t now = sl_clock_now_us();
    uint64_t late = now > due_us ? now - due_us : 0;
    uint64_t bucket = late / BUCKET_US;
    stats->late[bucket < UPSTREAM_LATE_BUCKETS ? bucket : UPSTREAM_LATE_BUCKETS - 1]++;
    stats->late_count++;
    stats->late_max_us = late > stats->late_max_us ? late : stats->late_max_us;
}

void upstream_stats_reset(struct upstream_stats *stats)
{
    struct upstream_stats fresh = {.tokens = 0};
    for (size_t i = 0; i < UPSTREAM_KINDS; i++) {
        fresh.kinds[i].in_flight = fresh.kinds[i].peak = stats->kinds[i].in_flight;
    }
    *stats = fresh;
}

static double percentile_ms(const struct upstream_stats *stats, double share)
{
    uint64_t wanted = (uint64_t)(share * (double)stats->late_count), seen = 0;
    for (uint64_t i = 0; i + 1 < UPSTREAM_LATE_BUCKETS; i++) {
        seen += stats->late[i];
        if (seen > wanted || (seen == stats->late_count && seen > 0)) {
            uint64_t end = (i + 1) * BUCKET_US;
            return (double)(end < stats->late_max_us ? end : stats->late_max_us) / 1000;
        }
    }
    return (double)stats->late_max_us / 1000; /* None, or beyond the buckets. */
}

static double cpu_seconds(void)
{
    struct timespec ts = {0};
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void put_count(struct sl_json_writer *w, const char *name,
                      const struct upstream_count *count)
{
    sl_json_key(w, name);
    sl_json_begin_object(w);
    sl_json_key(w, "calls");
    sl_json_put_int(w, (int64_t)count->calls);
    sl_json_key(w, "in_flight");
    sl_json_put_int(w, (int64_t)count->in_flight);
    sl_json_key(w, "peak");
    sl_json_put_int(w, (int64_t)count->peak);
    sl_json_key(w, "aborted");
    sl_json_put_int(w, (int64_t)count->aborted);
    sl_json_end_object(w);
}

void upstream_stats_write(const struct upstream_stats *stats, size_t connections,
                          struct sl_buf *out)
{
    static const char *const names[UPSTREAM_KINDS] = {"embed",  "vector", "keyword",
                                                      "rerank", "chat",   "write"};
    struct sl_json_writer w = {.out = out};
    sl_json_begin_object(&w);
    for (size_t i = 0; i < UPSTREAM_KINDS; i++) {
        put_count(&w, names[i], &stats->kinds[i]);
    }
    sl_json_key(&w, "tokens");
    sl_json_put_int(&w, (int64_t)stats->tokens);
    sl_json_key(&w, "late_ms_p50");
    sl_json_put_number(&w, percentile_ms(stats, 0.5));
    sl_json_key(&w, "late_ms_p99");
    sl_json_put_number(&w, percentile_ms(stats, 0.99));
    sl_json_key(&w, "late_ms_max");
    sl_json_put_number(&w, (double)stats->late_max_us / 1000);
    sl_json_key(&w, "cpu_seconds");
    sl_json_put_number(&w, cpu_seconds());
    sl_json_key(&w, "connections");
    sl_json_put_int(&w, (int64_t)connections);
    sl_json_end_object(&w);
}
