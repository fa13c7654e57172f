/* What the retrieve stage does with two searches, on a fake runtime. */
#include "tests/support/stage/fake_runtime.h"
#include "tests/support/test.h"
#include "workers/retrieve/retrieve.h"

static struct sl_worker *worker;
static struct sl_job *job;
static const char *const near[] = {"x", "y"}, *const words[] = {"y", "z"};
static const float vector[2] = {1, 0};

static void setup(void)
{
    setenv("SLUICE_VECTOR_URL", "sqlite:///tmp/none.db", 1);
    setenv("SLUICE_KEYWORD_URL", "sqlite:///tmp/none.db", 1);
    worker = fake_worker_create(&retrieve_stage);
    job = fake_job_create(worker, "q");
    job->query.vector = vector;
    job->query.vector_len = 2;
}

static void teardown(void)
{
    fake_job_destroy(job);
    fake_worker_destroy(worker);
}

TEST(both_searches_run_at_once_and_are_fused)
{
    setup();
    fake_start(job);
    CHECK_INT(fake_search_count(worker), 2);
    CHECK(fake_search(worker, 0)->vector && !fake_search(worker, 1)->vector);
    CHECK_INT(fake_search(worker, 0)->search.top_k, 20);
    fake_search_end(fake_search(worker, 1), 0, words, 2);
    CHECK_INT(job->settled, FAKE_OPEN);
    fake_search_end(fake_search(worker, 0), 0, near, 2);
    CHECK_INT(job->settled, FAKE_FORWARDED);
    CHECK_STR(job->topic, "rerank");
    CHECK_INT(job->query.hits_len, 3);
    CHECK(sl_span_is(job->query.hits[0].chunk_id, "y")); /* In both rankings. */
    CHECK_INT(job->query.degraded, 0);
    CHECK_INT(job->query.vector_len, 0);
    teardown();
}

TEST(a_query_that_asks_for_more_sources_than_usual_gets_them)
{
    enum { WANTED = 30 };
    const char *ids[WANTED];
    char names[WANTED][8];
    for (size_t i = 0; i < WANTED; i++) {
        snprintf(names[i], sizeof(names[i]), "c%zu", i);
        ids[i] = names[i];
    }
    setup();
    job->query.top_n = WANTED;
    fake_start(job);
    CHECK_INT(fake_search(worker, 0)->search.top_k, WANTED);
    CHECK_INT(fake_search(worker, 1)->search.top_k, WANTED);
    fake_search_end(fake_search(worker, 0), 0, ids, WANTED);
    fake_search_end(fake_search(worker, 1), 0, NULL, 0);
    CHECK_INT(job->query.hits_len, WANTED);
    teardown();
}

TEST(one_failure_degrades)
{
    for (size_t failing = 0; failing < 2; failing++) {
        setup();
        fake_start(job);
        fake_search_end(fake_search(worker, failing), -SL_ETIMEDOUT, NULL, 0);
        fake_search_end(fake_search(worker, 1 - failing), 0, words, 2);
        CHECK_INT(job->settled, FAKE_FORWARDED);
        CHECK_INT(job->query.degraded, failing == 0 ? SL_DEGRADED_VECTOR : SL_DEGRADED_KEYWORD);
        CHECK_INT(job->query.hits_len, 2);
        teardown();
    }
}

TEST(two_failures_end_the_query)
{
    setup();
    fake_start(job);
    fake_search_end(fake_search(worker, 0), -SL_ECONN, NULL, 0);
    fake_search_end(fake_search(worker, 1), -SL_ETIMEDOUT, NULL, 0);
    CHECK_INT(job->settled, FAKE_FAILED);
    CHECK_INT(job->code, SL_QERR_RETRIEVAL_FAILED);
    teardown();
}

TEST(a_query_without_a_vector_is_searched_by_words)
{
    setup();
    job->query.vector_len = 0;
    fake_start(job);
    CHECK_INT(fake_search_count(worker), 1);
    fake_search_end(fake_search(worker, 0), 0, words, 2);
    CHECK_INT(job->settled, FAKE_FORWARDED);
    CHECK_INT(job->query.degraded, SL_DEGRADED_VECTOR);
    teardown();
}

TEST(a_cancel_stops_both_searches)
{
    setup();
    fake_start(job);
    fake_cancel(job);
    CHECK(fake_search(worker, 0)->cancelled && fake_search(worker, 1)->cancelled);
    teardown();
}

int main(int argc, char **argv)
{
    const struct test_case cases[] = {
        {"both_searches_run_at_once_and_are_fused", both_searches_run_at_once_and_are_fused},
        {"a_query_that_asks_for_more_sources_than_usual_gets_them",
         a_query_that_asks_for_more_sources_than_usual_gets_them},
        {"one_failure_degrades", one_failure_degrades},
        {"two_failures_end_the_query", two_failures_end_the_query},
        {"a_query_without_a_vector_is_searched_by_words",
         a_query_without_a_vector_is_searched_by_words},
        {"a_cancel_stops_both_searches", a_cancel_stops_both_searches},
        {NULL, NULL},
    };
    return run_tests(cases, argc, argv);
}
