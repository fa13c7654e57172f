/*
 * Counters, and a histogram of lateness: from when a write was due to when it was done, with the
 * write itself and the grid of the tokens. A benchmark whose late_ms_p99 is not far below what it
 * reports has measured the stub or a busy machine.
 */
#include "upstream_stats.h"

#include "common/clock.h"
#include "common/json.h"

#include <time.h>

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
    measure_histogram_add(&stats->late, late * 1000);
}

void upstream_stats_reset(struct upstream_stats *stats)
{
    for (size_t i = 0; i < UPSTREAM_KINDS; i++) {
        uint64_t open = stats->kinds[i].in_flight;
        stats->kinds[i] = (struct upstream_count){.in_flight = open, .peak = open};
    }
    stats->tokens = 0;
    memset(&stats->late, 0, sizeof(stats->late));
}

static double late_ms(const struct upstream_stats *stats, double quantile)
{
    return (double)measure_histogram_quantile(&stats->late, quantile) / 1e6;
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
    sl_json_put_number(&w, late_ms(stats, 0.5));
    sl_json_key(&w, "late_ms_p99");
    sl_json_put_number(&w, late_ms(stats, 0.99));
    sl_json_key(&w, "late_ms_max");
    sl_json_put_number(&w, late_ms(stats, 1));
    sl_json_key(&w, "cpu_seconds");
    sl_json_put_number(&w, cpu_seconds());
    sl_json_key(&w, "connections");
    sl_json_put_int(&w, (int64_t)connections);
    sl_json_end_object(&w);
}
