/*
 * The report. Milliseconds with three decimals in both forms. The overhead is the time to the first
 * token less the ideal, at least 0.
 */
#include "tests/bench/measure_report.h"

#include "common/json.h"
#include "tests/bench/measure_clock.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>

enum { REPORT_MAX_BYTES = 65536 };

static const char *const FAILURE_NAMES[] = {
#define X(name, text) text,
    MEASURE_FAILURES(X)
#undef X
};

static double ms_of(uint64_t ns)
{
    return (double)ns / 1e6;
}

static double quantile_ms(const struct measure_histogram *histogram, double quantile)
{
    return ms_of(measure_histogram_quantile(histogram, quantile));
}

static void put_number(struct sl_json_writer *w, const char *key, double value)
{
    sl_json_key(w, key);
    sl_json_put_number(w, round(value * 1000) / 1000);
}

static void put_count(struct sl_json_writer *w, const char *key, uint64_t value)
{
    sl_json_key(w, key);
    sl_json_put_int(w, (int64_t)value);
}

/* Nothing measured is an empty object, not a row of zeros. */
static void put_times(struct sl_json_writer *w, const char *key,
                      const struct measure_histogram *histogram)
{
    sl_json_key(w, key);
    sl_json_begin_object(w);
    if (histogram->count > 0) {
        put_number(w, "p50", quantile_ms(histogram, 0.5));
        put_number(w, "p90", quantile_ms(histogram, 0.9));
        put_number(w, "p99", quantile_ms(histogram, 0.99));
        put_number(w, "max", ms_of(histogram->max));
        put_number(w, "mean", measure_histogram_mean(histogram) / 1e6);
    }
    sl_json_end_object(w);
}

static void put_failures(struct sl_json_writer *w, const struct measure_run *run)
{
    sl_json_key(w, "failures");
    sl_json_begin_object(w);
    for (int i = 0; i < MEASURE_FAILURE_KINDS; i++) {
        if (run->failures[i] > 0) {
            put_count(w, FAILURE_NAMES[i], run->failures[i]);
        }
    }
    sl_json_end_object(w);
}

static double answered_per_s(const struct measure_run *run)
{
    return (double)run->answered / run->options->seconds;
}

void measure_report_json(const struct measure_run *run, struct sl_buf *out)
{
    const struct measure_options *options = run->options;
    struct sl_json_writer w = {.out = out};
    sl_json_begin_object(&w);
    sl_json_key(&w, "mode");
    sl_json_put_string(&w, sl_span_of(options->rate > 0 ? "open" : "closed"));
    put_number(&w, "rate", options->rate);
    put_count(&w, "streams", (uint64_t)options->streams);
    put_number(&w, "seconds", options->seconds);
    put_number(&w, "ideal_ms", options->ideal_ms);
    put_count(&w, "due", run->due);
    put_count(&w, "answered", run->answered);
    put_count(&w, "failed", run->failed);
    put_failures(&w, run);
    put_times(&w, "ttft_ms", &run->ttft);
    put_times(&w, "overhead_ms", &run->overhead);
    put_times(&w, "total_ms", &run->total);
    put_times(&w, "gap_ms", &run->gap);
    put_times(&w, "start_late_ms", &run->start_late);
    put_count(&w, "events", run->events);
    put_count(&w, "tokens", run->tokens);
    put_number(&w, "answered_per_s", answered_per_s(run));
    put_count(&w, "peak_open", run->peak_open);
    put_number(&w, "cpu_seconds", (double)run->cpu_ns / 1e9);
    sl_json_end_object(&w);
}

static void print_times(const char *name, const struct measure_histogram *histogram)
{
    if (histogram->count == 0) {
        return;
    }
    fprintf(stderr, "%-16s %10.3f %10.3f %10.3f %10.3f %10.3f\n", name, quantile_ms(histogram, 0.5),
            quantile_ms(histogram, 0.9), quantile_ms(histogram, 0.99), ms_of(histogram->max),
            measure_histogram_mean(histogram) / 1e6);
}

static void print_summary(const struct measure_run *run)
{
    const struct measure_options *options = run->options;
    fprintf(stderr, "%llu due, %llu answered, %llu failed", (unsigned long long)run->due,
            (unsigned long long)run->answered, (unsigned long long)run->failed);
    for (int i = 0; i < MEASURE_FAILURE_KINDS; i++) {
        if (run->failures[i] > 0) {
            fprintf(stderr, ", %s %llu", FAILURE_NAMES[i], (unsigned long long)run->failures[i]);
        }
    }
    fprintf(stderr,
            "; %.1f answered/s, %zu open at most; %llu tokens in %llu events; "
            "%.3f s CPU of this client\n",
            answered_per_s(run), run->peak_open, (unsigned long long)run->tokens,
            (unsigned long long)run->events, (double)run->cpu_ns / 1e9);
    fprintf(stderr, "%-16s %10s %10s %10s %10s %10s\n", "ms", "p50", "p90", "p99", "max", "mean");
    print_times("first token", &run->ttft);
    if (options->ideal_ms > 0) {
        print_times("above the ideal", &run->overhead);
    }
    print_times("whole answer", &run->total);
    print_times("gap", &run->gap);
    print_times("started late", &run->start_late);
}

static int write_out(FILE *file, struct sl_span text)
{
    if (fwrite(text.data, 1, text.len, file) != text.len || fputc('\n', file) == EOF) {
        return -1;
    }
    return fflush(file) == 0 ? 0 : -1;
}

static int write_json(const struct measure_run *run, const char *path)
{
    struct sl_buf out;
    sl_buf_init(&out, REPORT_MAX_BYTES);
    measure_report_json(run, &out);
    int rv = -1;
    if (sl_buf_error(&out) != 0) {
        errno = ENOMEM;
    } else if (sl_span_is(sl_span_of(path), "-")) {
        rv = write_out(stdout, sl_buf_span(&out));
    } else {
        FILE *file = fopen(path, "we");
        if (file != NULL) {
            rv = write_out(file, sl_buf_span(&out));
            rv = fclose(file) == 0 ? rv : -1;
        }
    }
    sl_buf_fini(&out);
    return rv;
}

int measure_report(const struct measure_run *run, const struct measure_program *program)
{
    print_summary(run);
    if (run->options->json != NULL && write_json(run, run->options->json) != 0) {
        fprintf(stderr, "%s: %s could not be written: %s\n", program->name, run->options->json,
                strerror(errno));
        return 1;
    }
    return 0;
}
