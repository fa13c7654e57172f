/* What the rerank stage does with the model's scores, on a fake runtime. */
#include "tests/support/stage/fake_runtime.h"
#include "tests/support/test.h"
#include "workers/rerank/rerank.h"

static struct sl_worker *worker;
static struct sl_job *job;
static struct sl_hit hits[3];

static void setup(size_t count)
{
    static const char *const names[] = {"a", "b", "c"};
    setenv("SLUICE_RERANK_URL", "http://127.0.0.1:1/v1", 1);
    worker = fake_worker_create(&rerank_stage);
    job = fake_job_create(worker, "q");
    for (size_t i = 0; i < count; i++) {
        hits[i] = (struct sl_hit){.chunk_id = sl_span_of(names[i]), .text = sl_span_of(names[i])};
    }
    job->query.hits = hits;
    job->query.hits_len = count;
    job->query.top_n = 2;
    fake_start(job);
}

static void teardown(void)
{
    fake_job_destroy(job);
    fake_worker_destroy(worker);
}

TEST(orders_by_score_and_sends_the_sources_before_going_on)
{
    setup(3);
    CHECK_STR(fake_call(worker, 0)->path, "/rerank");
    fake_call_end(fake_call(worker, 0), 0, 200,
                  "{\"results\":[{\"index\":0,\"relevance_score\":0.1},"
                  "{\"index\":2,\"relevance_score\":0.9},{\"index\":1,\"relevance_score\":0.5}]}");
    CHECK_INT(job->settled, FAKE_FORWARDED);
    CHECK_STR(job->topic, "generate");
    CHECK_INT(job->event_count, 1);
    CHECK_INT(job->events[0].hits, 2);
    CHECK(sl_span_is(job->query.hits[0].chunk_id, "c"));
    CHECK(sl_span_is(job->query.hits[1].chunk_id, "b"));
    CHECK_INT(job->query.degraded, 0);
    teardown();
}

static void expect_fused_order(void)
{
    CHECK_INT(job->settled, FAKE_FORWARDED);
    CHECK_INT(job->query.degraded, SL_DEGRADED_RERANK);
    CHECK_INT(job->query.hits_len, 2);
    CHECK(sl_span_is(job->query.hits[0].chunk_id, "a"));
}

TEST(a_failure_keeps_the_fused_order)
{
    setup(3);
    fake_call_end(fake_call(worker, 0), -SL_EUPSTREAM, 503, "");
    expect_fused_order();
    teardown();
}

TEST(unusable_results_keep_the_fused_order)
{
    static const char *const bodies[] = {
        "",
        "{}",
        "{\"results\":[]}",
        "{\"results\":[{\"index\":3,\"relevance_score\":1}]}",
        "{\"results\":[{\"index\":-1,\"relevance_score\":1}]}",
        "{\"results\":[{\"index\":0,\"relevance_score\":\"x\"}]}",
        "{\"results\":[{\"index\":0,\"relevance_score\":1},{\"index\":0,\"relevance_score\":1}]}"};
    for (size_t i = 0; i < sizeof(bodies) / sizeof(bodies[0]); i++) {
        setup(3);
        fake_call_end(fake_call(worker, 0), 0, 200, bodies[i]);
        expect_fused_order();
        teardown();
    }
}

TEST(a_search_ends_here)
{
    setup(0); /* No hits: no call either. */
    CHECK_INT(job->settled, FAKE_FORWARDED);
    CHECK_INT(fake_call_count(worker), 0);
    fake_job_destroy(job);
    job = fake_job_create(worker, "q");
    job->query.mode = SL_MODE_SEARCH;
    fake_start(job);
    CHECK_INT(job->settled, FAKE_FINISHED);
    CHECK_INT(job->event_count, 1);
    teardown();
}

TEST(a_cancel_closes_the_call)
{
    setup(3);
    fake_cancel(job);
    CHECK(fake_call(worker, 0)->cancelled);
    teardown();
}

int main(int argc, char **argv)
{
    const struct test_case cases[] = {
        {"orders_by_score_and_sends_the_sources_before_going_on",
         orders_by_score_and_sends_the_sources_before_going_on},
        {"a_failure_keeps_the_fused_order", a_failure_keeps_the_fused_order},
        {"unusable_results_keep_the_fused_order", unusable_results_keep_the_fused_order},
        {"a_search_ends_here", a_search_ends_here},
        {"a_cancel_closes_the_call", a_cancel_closes_the_call},
        {NULL, NULL},
    };
    return run_tests(cases, argc, argv);
}
