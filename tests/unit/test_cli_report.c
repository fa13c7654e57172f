/* What `sluice report` makes of records that it reads from their topic. */
#include "tests/support/test.h"
#include "workers/cli/report.h"

#include <stdio.h>

static struct report report;
static struct report_gather *gather;

static void setup(void)
{
    report = (struct report){.from_ms = 1000, .to_ms = 2000};
    CHECK_INT(report_gather_create(&gather), 0);
}

static void add(const char *text)
{
    CHECK_INT(report_gather_add(gather, &report, sl_span_of(text)), 0);
}

static void finish(void)
{
    report_gather_finish(gather, &report);
    report_gather_destroy(gather);
}

#define RECORD(tenant, id, more)                                                                   \
    "{\"tenant\":\"" tenant "\",\"query_id\":\"" id "\",\"time\":1500," more "}"

TEST(each_query_counts_once_by_tenant_and_id)
{
    setup();
    for (int i = 0; i < 3; i++) {
        add(RECORD("a", "1", "\"outcome\":\"done\",\"latency_ms\":10"));
        add(RECORD("b", "1", "\"outcome\":\"done\",\"latency_ms\":30"));
    }
    finish();
    CHECK_INT(report.queries, 2);
    CHECK_INT(report.times[REPORT_TOTAL].count, 2);
    CHECK(report.times[REPORT_TOTAL].p50 == 10 && report.times[REPORT_TOTAL].p99 == 30);
}

TEST(only_what_ended_in_the_span_counts)
{
    setup();
    for (int ms = 998; ms <= 2002; ms++) {
        char text[128];
        snprintf(text, sizeof(text), "{\"query_id\":\"%d\",\"time\":%d,\"outcome\":\"failed\"}", ms,
                 ms);
        add(text);
    }
    finish();
    CHECK_INT(report.queries, 1000);
    CHECK_INT(report.outcomes[SL_FAILED], 1000);
}

TEST(ranks_are_of_values_that_there_were)
{
    setup();
    for (int i = 1; i <= 200; i++) {
        char text[256];
        snprintf(text, sizeof(text),
                 RECORD("a", "%d",
                        "\"outcome\":\"done\",\"latency_ms\":%d,\"ttft_ms\":0,"
                        "\"stages\":{\"rerank\":{\"queue_ms\":%d,\"wait_ms\":1,\"work_ms\":2}}"),
                 i, i, i);
        add(text);
    }
    finish();
    const struct report_times *total = &report.times[REPORT_TOTAL];
    CHECK(total->p50 == 100 && total->p95 == 190 && total->p99 == 198);
    CHECK_INT(report.times[REPORT_TTFT].count, 0); /* 0: none, not a fast one. */
    CHECK(report.times[REPORT_RERANK_WAIT].p50 == 101 && report.times[REPORT_RERANK_WORK].p99 == 2);
    CHECK_INT(report.times[REPORT_EMBED_WORK].count, 0);
}

TEST(errors_come_most_frequent_first_and_means_over_those_that_have_the_measure)
{
    setup();
    add(RECORD("a", "1", "\"outcome\":\"failed\",\"error_code\":\"x\",\"error_stage\":\"embed\""));
    add(RECORD("a", "2", "\"outcome\":\"expired\",\"error_code\":\"y\",\"error_stage\":\"embed\""));
    add(RECORD("a", "3", "\"outcome\":\"expired\",\"error_code\":\"y\",\"error_stage\":\"embed\""));
    add(RECORD("a", "4",
               "\"outcome\":\"done\",\"degraded\":[\"vector\",\"rerank\"],"
               "\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":2},"
               "\"quality\":{\"word_overlap\":0.5,\"groundedness\":null,"
               "\"sampled\":true,\"refusal\":true}"));
    add(RECORD("a", "5",
               "\"outcome\":\"done\",\"quality\":{\"word_overlap\":1,"
               "\"groundedness\":0.25,\"sampled\":true}"));
    add(RECORD("a", "6", "\"outcome\":\"done\",\"quality\":null"));
    finish();
    CHECK_INT(report.error_count, 2);
    CHECK_STR(report.errors[0].code, "y");
    CHECK_INT(report.errors[0].count, 2);
    CHECK(report.degraded == 1 && report.degraded_parts[0] == 1 && report.degraded_parts[1] == 0);
    CHECK(report.prompt_tokens == 7 && report.completion_tokens == 2);
    CHECK(report.answers == 2 && report.refusals == 1 && report.sampled == 2 && report.judged == 1);
    CHECK(report.word_overlap.mean == 0.75 && report.groundedness.mean == 0.25);
}

TEST(what_is_no_record_is_passed_over)
{
    static const char *const texts[] = {"",
                                        "x",
                                        "[]",
                                        "null",
                                        "{}",
                                        "{\"time\":1500}",
                                        "{\"query_id\":7,\"time\":1500}",
                                        "{\"query_id\":\"a\"}",
                                        "{\"query_id\":\"a\",\"time\":\"1500\"}"};
    setup();
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        add(texts[i]);
    }
    add(RECORD("a", "odd",
               "\"outcome\":[],\"stages\":[1],\"usage\":7,\"degraded\":{},\"quality\":[]"));
    finish();
    CHECK_INT(report.queries, 1);
    CHECK_INT(report.times[REPORT_TOTAL].count, 0);
}

int main(int argc, char **argv)
{
    const struct test_case cases[] = {
        {"each_query_counts_once_by_tenant_and_id", each_query_counts_once_by_tenant_and_id},
        {"only_what_ended_in_the_span_counts", only_what_ended_in_the_span_counts},
        {"ranks_are_of_values_that_there_were", ranks_are_of_values_that_there_were},
        {"errors_come_most_frequent_first_and_means_over_those_that_have_the_measure",
         errors_come_most_frequent_first_and_means_over_those_that_have_the_measure},
        {"what_is_no_record_is_passed_over", what_is_no_record_is_passed_over},
        {NULL, NULL},
    };
    return run_tests(cases, argc, argv);
}
