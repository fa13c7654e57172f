/* What the benchmark measures with: times that are due, percentiles, and the book of a run. */
#include "common/buf.h"
#include "common/json.h"
#include "tests/bench/measure_clock.h"
#include "tests/bench/measure_report.h"
#include "tests/support/test.h"

#include <math.h>

static const uint64_t START_NS = 5 * MEASURE_S_NS;

TEST(quantiles_are_nearly_exact)
{
    static struct measure_histogram histogram;
    CHECK_INT(measure_histogram_quantile(&histogram, 0.5), 0);
    enum { COUNT = 100000 };
    for (uint64_t i = 1; i <= COUNT; i++) {
        measure_histogram_add(&histogram, i * 7919);
    }
    const double quantiles[] = {0.001, 0.01, 0.5, 0.9, 0.99, 0.999};
    for (size_t i = 0; i < sizeof(quantiles) / sizeof(quantiles[0]); i++) {
        double exact = ceil(quantiles[i] * COUNT) * 7919;
        double got = (double)measure_histogram_quantile(&histogram, quantiles[i]);
        CHECK(fabs(got - exact) <= exact * 0.0005);
    }
    CHECK_INT(histogram.max, UINT64_C(7919) * COUNT);
    CHECK_INT(measure_histogram_quantile(&histogram, 1), histogram.max);
    CHECK(fabs(measure_histogram_mean(&histogram) - 7919.0 * (COUNT + 1) / 2) < 1);
}

TEST(each_value_alone_is_its_own_quantile)
{
    static struct measure_histogram histogram;
    for (int bit = 0; bit < 41; bit++) {
        for (int off = -1; off <= 1; off++) {
            uint64_t value = (UINT64_C(1) << bit) + (uint64_t)off;
            histogram = (struct measure_histogram){0};
            measure_histogram_add(&histogram, value);
            measure_histogram_add(&histogram, UINT64_C(1) << 60); /* Over the range. */
            double got = (double)measure_histogram_quantile(&histogram, 0.5);
            CHECK(fabs(got - (double)value) <= (double)value * 0.0005);
            CHECK(measure_histogram_quantile(&histogram, 0.99) == UINT64_C(1) << 60);
        }
    }
}

/* Takes all arrivals; their number. */
static int take_all(struct measure_schedule *schedule, uint64_t *dues, int max)
{
    int taken = 0;
    while (taken < max && measure_schedule_take(schedule, MEASURE_NEVER - 1, &dues[taken])) {
        taken++;
    }
    CHECK(measure_schedule_next(schedule) == MEASURE_NEVER);
    return taken;
}

TEST(poisson_arrivals_have_the_rate_and_its_spread)
{
    enum { MAX = 20000 };
    static uint64_t dues[MAX], same[MAX];
    struct measure_schedule schedule;
    uint64_t end_ns = START_NS + 100 * MEASURE_S_NS;
    CHECK_INT(measure_schedule_open(&schedule, 100, true, 1, START_NS, end_ns), 0);
    int taken = take_all(&schedule, dues, MAX);
    measure_schedule_fini(&schedule);
    CHECK(taken > 9500 && taken < 10500);
    int short_gaps = 0; /* Below the mean: 1 - 1/e of them. */
    for (int i = 1; i < taken; i++) {
        CHECK(dues[i] >= dues[i - 1] && dues[i] >= START_NS && dues[i] < end_ns);
        short_gaps += dues[i] - dues[i - 1] < 10 * MEASURE_MS_NS ? 1 : 0;
    }
    CHECK(short_gaps > taken * 0.61 && short_gaps < taken * 0.65);
    CHECK_INT(measure_schedule_open(&schedule, 100, true, 1, START_NS, end_ns), 0);
    CHECK_INT(take_all(&schedule, same, MAX), taken);
    CHECK(memcmp(dues, same, (size_t)taken * sizeof(*dues)) == 0);
    measure_schedule_fini(&schedule);
    CHECK_INT(measure_schedule_open(&schedule, 100, true, 2, START_NS, end_ns), 0);
    CHECK(take_all(&schedule, same, MAX) > 0 && same[0] != dues[0]);
    measure_schedule_fini(&schedule);
}

TEST(even_arrivals_do_not_wait_for_a_late_client)
{
    struct measure_schedule schedule;
    uint64_t due = 0, end_ns = START_NS + MEASURE_S_NS;
    CHECK_INT(measure_schedule_open(&schedule, 50, false, 1, START_NS, end_ns), 0);
    uint64_t first_ns = measure_schedule_next(&schedule);
    CHECK(first_ns >= START_NS && !measure_schedule_take(&schedule, first_ns - 1, &due));
    /* The client slept through half a second: all of it is due, each at its own time. */
    int taken = 0;
    while (measure_schedule_take(&schedule, START_NS + MEASURE_S_NS / 2 + 1000, &due)) {
        uint64_t exact = START_NS + (uint64_t)++taken * 20 * MEASURE_MS_NS;
        CHECK(due + 1000 > exact && due < exact + 1000);
    }
    CHECK_INT(taken, 25);
    measure_schedule_again(&schedule, START_NS); /* An open loop knows no ends. */
    CHECK(measure_schedule_next(&schedule) > START_NS + MEASURE_S_NS / 2);
    measure_schedule_fini(&schedule);
}

TEST(streams_start_spread_and_again_when_they_end)
{
    struct measure_schedule schedule;
    enum { STREAMS = 64 };
    uint64_t due = 0, end_ns = START_NS + 100 * MEASURE_S_NS, spread_ns = 2 * MEASURE_S_NS;
    CHECK_INT(measure_schedule_closed(&schedule, STREAMS, spread_ns, START_NS, end_ns), 0);
    for (uint64_t i = 0; i < STREAMS; i++) {
        CHECK_INT(measure_schedule_next(&schedule), START_NS + i * spread_ns / STREAMS);
        CHECK(measure_schedule_take(&schedule, MEASURE_NEVER - 1, &due));
    }
    CHECK(measure_schedule_next(&schedule) == MEASURE_NEVER);
    for (uint64_t i = 0; i < STREAMS; i++) { /* In another order. */
        measure_schedule_again(&schedule, START_NS + (4 + i * 37 % STREAMS) * MEASURE_S_NS);
    }
    for (uint64_t s = 4; s < 4 + STREAMS; s++) {
        CHECK(measure_schedule_take(&schedule, START_NS + s * MEASURE_S_NS, &due));
        CHECK_INT(due, START_NS + s * MEASURE_S_NS);
    }
    measure_schedule_again(&schedule, end_ns);
    CHECK(measure_schedule_next(&schedule) == MEASURE_NEVER);
    measure_schedule_fini(&schedule);
}

static struct measure_options even_load(double rate, double warmup_s, double seconds)
{
    return (struct measure_options){.rate = rate,
                                    .warmup_s = warmup_s,
                                    .seconds = seconds,
                                    .ideal_ms = 30,
                                    .timeout_ms = 1000,
                                    .tokens = 3,
                                    .max_open = 2};
}

TEST(a_run_counts_from_the_due_time_and_not_the_warm_up)
{
    static struct measure_run run;
    struct measure_options options = even_load(10, 1, 0.35);
    struct measure_call call;
    CHECK_INT(measure_run_init(&run, &options, START_NS), 0);
    int started = 0;
    for (uint64_t at = measure_run_wake(&run); at != MEASURE_NEVER; at = measure_run_wake(&run)) {
        uint64_t sent = at + 7 * MEASURE_MS_NS; /* The client was busy. */
        CHECK(measure_run_start(&run, &call, sent));
        measure_run_tokens(&run, &call, 1, 1, sent + 40 * MEASURE_MS_NS);
        measure_run_tokens(&run, &call, 2, 1, sent + 55 * MEASURE_MS_NS);
        measure_run_end(&run, &call, sent + 60 * MEASURE_MS_NS);
        started++;
    }
    CHECK_INT(started, 13);
    CHECK(run.due >= 3 && run.due <= 4 && run.answered == run.due && run.failed == 0);
    CHECK_INT(run.tokens, 3 * run.due);
    CHECK_INT(run.events, 2 * run.due);
    CHECK_INT(run.gap.count, run.due);
    CHECK_INT(run.ttft.max, 47 * MEASURE_MS_NS);
    CHECK_INT(run.total.max, 67 * MEASURE_MS_NS);
    CHECK_INT(run.gap.max, 15 * MEASURE_MS_NS);
    CHECK_INT(run.start_late.max, 7 * MEASURE_MS_NS);
    measure_run_fini(&run);
}

TEST(failures_have_kinds_and_no_times)
{
    static struct measure_run run;
    struct measure_options options = even_load(1000, 0, 1);
    struct measure_call short_call, late, none;
    CHECK_INT(measure_run_init(&run, &options, START_NS), 0);
    uint64_t now = START_NS + 2 * MEASURE_MS_NS + 1000;
    CHECK(measure_run_start(&run, &short_call, now) && measure_run_start(&run, &late, now));
    measure_run_tokens(&run, &short_call, 2, 2, now);
    now += 3 * MEASURE_MS_NS;
    CHECK(!measure_run_start(&run, &none, now)); /* Three more are due; two may be open. */
    CHECK_INT(run.failures[MEASURE_LIMIT], 3);
    measure_run_end(&run, &short_call, now);
    CHECK_INT(run.failures[MEASURE_SHORT], 1);
    uint64_t timeout_ns = late.due_ns + 1000 * MEASURE_MS_NS;
    CHECK(measure_run_overdue(&run, timeout_ns - 1) == NULL);
    CHECK(measure_run_overdue(&run, timeout_ns) == &late);
    measure_run_fail(&run, &late, MEASURE_TIMEOUT, timeout_ns);
    CHECK(measure_run_overdue(&run, MEASURE_NEVER - 1) == NULL);
    CHECK_INT(run.failed, 5);
    CHECK_INT(run.answered + run.ttft.count + run.total.count, 0);
    CHECK_INT(run.peak_open, 2);
    measure_run_fini(&run);
}

TEST(the_report_is_json_with_the_overhead_above_the_ideal)
{
    static struct measure_run run;
    struct measure_options options = even_load(10, 0, 0.25);
    struct measure_call call;
    CHECK_INT(measure_run_init(&run, &options, START_NS), 0);
    uint64_t now = START_NS + 200 * MEASURE_MS_NS + 1000;
    CHECK(measure_run_start(&run, &call, now));
    measure_run_tokens(&run, &call, 3, 1, call.due_ns + 32 * MEASURE_MS_NS);
    measure_run_end(&run, &call, call.due_ns + 32 * MEASURE_MS_NS);
    CHECK(measure_run_start(&run, &call, now));
    measure_run_fail(&run, &call, MEASURE_STATUS_503, now);
    struct sl_buf out;
    sl_buf_init(&out, 65536);
    measure_report_json(&run, &out);
    CHECK_INT(sl_buf_error(&out), 0);
    struct sl_json_doc *doc = NULL;
    CHECK_INT(sl_json_parse(sl_buf_span(&out), &doc, NULL, 0), 0);
    const struct sl_json *root = sl_json_root(doc);
    CHECK_INT(sl_json_int(sl_json_get(root, "due")), 2);
    CHECK_INT(sl_json_int(sl_json_get(root, "answered")), 1);
    CHECK_INT(sl_json_int(sl_json_get(sl_json_get(root, "failures"), "status_503")), 1);
    const struct sl_json *overhead = sl_json_get(root, "overhead_ms");
    CHECK(fabs(sl_json_number(sl_json_get(overhead, "max")) - 2) < 0.001);
    CHECK(fabs(sl_json_number(sl_json_get(overhead, "p50")) - 2) < 0.002);
    CHECK(fabs(sl_json_number(sl_json_get(root, "answered_per_s")) - 4) < 0.001);
    CHECK_INT(sl_json_len(sl_json_get(root, "gap_ms")), 0);
    sl_json_free(doc);
    sl_buf_fini(&out);
    measure_run_fini(&run);
}

TEST(a_stream_that_failed_pauses_before_it_starts_again)
{
    static struct measure_run run;
    struct measure_options options = even_load(0, 0, 10);
    options.streams = 1;
    struct measure_call call;
    CHECK_INT(measure_run_init(&run, &options, START_NS), 0);
    CHECK(measure_run_start(&run, &call, START_NS));
    measure_run_tokens(&run, &call, 3, 3, START_NS);
    measure_run_end(&run, &call, START_NS);
    CHECK(measure_run_start(&run, &call, START_NS));
    measure_run_fail(&run, &call, MEASURE_CONNECT, START_NS);
    CHECK_INT(measure_run_wake(&run), START_NS + 100 * MEASURE_MS_NS);
    measure_run_fini(&run);
}

int main(int argc, char **argv)
{
    const struct test_case cases[] = {
        {"quantiles_are_nearly_exact", quantiles_are_nearly_exact},
        {"each_value_alone_is_its_own_quantile", each_value_alone_is_its_own_quantile},
        {"poisson_arrivals_have_the_rate_and_its_spread",
         poisson_arrivals_have_the_rate_and_its_spread},
        {"even_arrivals_do_not_wait_for_a_late_client",
         even_arrivals_do_not_wait_for_a_late_client},
        {"streams_start_spread_and_again_when_they_end",
         streams_start_spread_and_again_when_they_end},
        {"a_run_counts_from_the_due_time_and_not_the_warm_up",
         a_run_counts_from_the_due_time_and_not_the_warm_up},
        {"failures_have_kinds_and_no_times", failures_have_kinds_and_no_times},
        {"the_report_is_json_with_the_overhead_above_the_ideal",
         the_report_is_json_with_the_overhead_above_the_ideal},
        {"a_stream_that_failed_pauses_before_it_starts_again",
         a_stream_that_failed_pauses_before_it_starts_again},
        {NULL, NULL},
    };
    return run_tests(cases, argc, argv);
}
