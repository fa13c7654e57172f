/* The registry's text is what Prometheus reads, and labels from outside cannot grow it for ever. */
#include "common/metrics.h"
#include "tests/support/test.h"

static void check_text(const struct sl_metrics *metrics, const char *want)
{
    struct sl_buf out;
    sl_buf_init(&out, 1 << 20);
    sl_metrics_write(metrics, &out);
    sl_buf_append(&out, "", 1);
    CHECK(sl_buf_error(&out) == 0);
    CHECK_STR(out.data, want);
    sl_buf_fini(&out);
}

TEST(families_stand_together_in_order_of_creation)
{
    struct sl_metrics *metrics;
    CHECK(sl_metrics_create(100, &metrics) == 0);
    struct sl_counter *done = sl_metrics_counter(metrics, "jobs_total", "Jobs.", "stage=\"embed\"");
    struct sl_gauge *plain = sl_metrics_gauge(metrics, "in_flight", "Running.", NULL);
    struct sl_counter *other =
        sl_metrics_counter(metrics, "jobs_total", "Jobs.", "stage=\"rerank\"");
    CHECK(sl_metrics_counter(metrics, "jobs_total", "Jobs.", "stage=\"embed\"") == done);
    sl_counter_add(done, 2);
    sl_counter_add(other, 18446744073709551610u);
    sl_gauge_set(plain, 12345678);
    check_text(metrics, "# HELP jobs_total Jobs.\n# TYPE jobs_total counter\n"
                        "jobs_total{stage=\"embed\"} 2\n"
                        "jobs_total{stage=\"rerank\"} 18446744073709551610\n"
                        "# HELP in_flight Running.\n# TYPE in_flight gauge\n"
                        "in_flight 12345678\n");
    CHECK_INT(sl_counter_value(done), 2);
    sl_metrics_destroy(metrics);
}

TEST(gauges_print_any_number)
{
    struct sl_metrics *metrics;
    CHECK(sl_metrics_create(100, &metrics) == 0);
    const double values[] = {
        -3, 0.1, 1e15, 1e300, __builtin_inf(), -__builtin_inf(), __builtin_nan("")};
    char labels[16];
    for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
        snprintf(labels, sizeof(labels), "i=\"%zu\"", i);
        sl_gauge_set(sl_metrics_gauge(metrics, "g", "G.", labels), values[i]);
    }
    struct sl_gauge *sum = sl_metrics_gauge(metrics, "g", "G.", "i=\"sum\"");
    sl_gauge_add(sum, 2.5);
    sl_gauge_add(sum, -4);
    CHECK(sl_gauge_value(sum) == -1.5);
    check_text(metrics, "# HELP g G.\n# TYPE g gauge\n"
                        "g{i=\"0\"} -3\ng{i=\"1\"} 0.1\ng{i=\"2\"} 1000000000000000\n"
                        "g{i=\"3\"} 1e+300\ng{i=\"4\"} +Inf\ng{i=\"5\"} -Inf\ng{i=\"6\"} NaN\n"
                        "g{i=\"sum\"} -1.5\n");
    sl_metrics_destroy(metrics);
}

TEST(histogram_buckets_are_cumulative_and_include_their_bound)
{
    struct sl_metrics *metrics;
    CHECK(sl_metrics_create(100, &metrics) == 0);
    struct sl_histogram *h = sl_metrics_histogram(metrics, "s", "Seconds.", "part=\"work\"");
    sl_histogram_observe(h, 0.001); /* On its bound. */
    sl_histogram_observe(h, 0.3);
    sl_histogram_observe(h, 100);
    check_text(metrics, "# HELP s Seconds.\n# TYPE s histogram\n"
                        "s_bucket{part=\"work\",le=\"0.0001\"} 0\n"
                        "s_bucket{part=\"work\",le=\"0.00025\"} 0\n"
                        "s_bucket{part=\"work\",le=\"0.0005\"} 0\n"
                        "s_bucket{part=\"work\",le=\"0.001\"} 1\n"
                        "s_bucket{part=\"work\",le=\"0.0025\"} 1\n"
                        "s_bucket{part=\"work\",le=\"0.005\"} 1\n"
                        "s_bucket{part=\"work\",le=\"0.01\"} 1\n"
                        "s_bucket{part=\"work\",le=\"0.025\"} 1\n"
                        "s_bucket{part=\"work\",le=\"0.05\"} 1\n"
                        "s_bucket{part=\"work\",le=\"0.1\"} 1\n"
                        "s_bucket{part=\"work\",le=\"0.25\"} 1\n"
                        "s_bucket{part=\"work\",le=\"0.5\"} 2\n"
                        "s_bucket{part=\"work\",le=\"1\"} 2\n"
                        "s_bucket{part=\"work\",le=\"2.5\"} 2\n"
                        "s_bucket{part=\"work\",le=\"5\"} 2\n"
                        "s_bucket{part=\"work\",le=\"10\"} 2\n"
                        "s_bucket{part=\"work\",le=\"25\"} 2\n"
                        "s_bucket{part=\"work\",le=\"50\"} 2\n"
                        "s_bucket{part=\"work\",le=\"60\"} 2\n"
                        "s_bucket{part=\"work\",le=\"+Inf\"} 3\n"
                        "s_sum{part=\"work\"} 100.301\n"
                        "s_count{part=\"work\"} 3\n");
    sl_metrics_destroy(metrics);
}

TEST(a_histogram_without_labels_has_only_the_bound)
{
    struct sl_metrics *metrics;
    CHECK(sl_metrics_create(100, &metrics) == 0);
    sl_metrics_histogram(metrics, "s", "Seconds.", NULL);
    struct sl_buf out;
    sl_buf_init(&out, 1 << 20);
    sl_metrics_write(metrics, &out);
    sl_buf_append(&out, "", 1);
    CHECK(strstr(out.data, "\ns_bucket{le=\"0.001\"} 0\n") != NULL);
    CHECK(strstr(out.data, "\ns_sum 0\ns_count 0\n") != NULL);
    sl_buf_fini(&out);
    sl_metrics_destroy(metrics);
}

TEST(series_past_the_limit_share_one)
{
    struct sl_metrics *metrics;
    CHECK(sl_metrics_create(2, &metrics) == 0);
    char labels[32];
    for (int i = 0; i < 50; i++) {
        snprintf(labels, sizeof(labels), "topic=\"%d\"", i);
        sl_counter_add(sl_metrics_counter(metrics, "c", "C.", labels), 1);
    }
    check_text(metrics, "# HELP c C.\n# TYPE c counter\n"
                        "c{topic=\"0\"} 1\nc{topic=\"1\"} 1\nc{overflow=\"true\"} 48\n");
    sl_metrics_destroy(metrics);
}

TEST(label_values_are_escaped)
{
    struct sl_buf out;
    sl_buf_init(&out, 100);
    sl_metrics_escape(&out, SL_SPAN("a\"b\\c\nd"));
    CHECK(sl_span_is(sl_buf_span(&out), "a\\\"b\\\\c\\nd"));
    sl_buf_fini(&out);
}

int main(int argc, char **argv)
{
    const struct test_case cases[] = {
        {"families_stand_together_in_order_of_creation",
         families_stand_together_in_order_of_creation},
        {"gauges_print_any_number", gauges_print_any_number},
        {"histogram_buckets_are_cumulative_and_include_their_bound",
         histogram_buckets_are_cumulative_and_include_their_bound},
        {"a_histogram_without_labels_has_only_the_bound",
         a_histogram_without_labels_has_only_the_bound},
        {"series_past_the_limit_share_one", series_past_the_limit_share_one},
        {"label_values_are_escaped", label_values_are_escaped},
        {NULL, NULL},
    };
    return run_tests(cases, argc, argv);
}
