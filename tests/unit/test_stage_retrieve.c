/* What the retrieve stage does with two searches, on a fake runtime. */
#include "tests/support/stage/fake_redis.h"
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

/* --- what is visible --- */

static bool changes;        /* Some document is on its way. */
static const char *visible; /* What a look-up is told, a character a hit. */
static char looked[256];    /* What it asked. */

static const char *answer_script(size_t argc, const struct sl_span *argv)
{
    static char reply[64];
    if (sl_span_is(argv[1], "changing")) {
        snprintf(reply, sizeof(reply), "*2\r\n:%d\r\n$4\r\n5000\r\n", changes);
        return reply;
    }
    looked[0] = '\0';
    for (size_t i = 2; i < argc; i++) {
        size_t at = strlen(looked);
        snprintf(looked + at, sizeof(looked) - at, SL_SPAN_FMT " ", SL_SPAN_ARG(argv[i]));
    }
    snprintf(reply, sizeof(reply), "$%zu\r\n%s\r\n", strlen(visible), visible);
    return reply;
}

/* Until Redis is asked. */
static void await_question(void)
{
    for (int i = 0; fake_redis_open() == 0; i++) {
        CHECK(i < 1000);
        sl_loop_turn(fake_loop(worker), 20);
    }
}

/* Redis has told whether something changes. */
static void setup_visible(bool now_changes)
{
    changes = now_changes;
    fake_redis_script = answer_script;
    setup();
    await_question();
    fake_redis_answer(0);
}

static void teardown_visible(void)
{
    teardown();
    fake_redis_close();
    fake_redis_script = NULL;
}

TEST(nothing_is_asked_on_a_questions_way_while_nothing_changes)
{
    static const char *const old[] = {"x@4000", "y@5000"}, *const foreign[] = {"z"};
    setup_visible(false);
    fake_start(job);
    CHECK_INT(fake_search(worker, 0)->search.top_k, 20);
    fake_search_end(fake_search(worker, 0), 0, old, 2);
    fake_search_end(fake_search(worker, 1), 0, foreign, 1);
    CHECK_INT(job->settled, FAKE_FORWARDED);
    CHECK_INT(job->query.hits_len, 3);
    CHECK_INT(fake_redis_sent(), 1);
    teardown_visible();
}

TEST(what_is_not_visible_is_left_out_and_more_is_asked_for)
{
    static const char *const near_hits[] = {"x@4000", "y@4001", "f"};
    static const char *const word_hits[] = {"y@4001", "z@4002"};
    setup_visible(true);
    fake_start(job);
    CHECK_INT(fake_search(worker, 0)->search.top_k, 40);
    fake_search_end(fake_search(worker, 0), 0, near_hits, 3);
    fake_search_end(fake_search(worker, 1), 0, word_hits, 2);
    CHECK_INT(job->settled, FAKE_OPEN);
    visible = "0101";
    await_question();
    CHECK_STR(looked, "default default x 4000 y 4001 y 4001 z 4002 ");
    fake_redis_answer(0);
    CHECK_INT(job->settled, FAKE_FORWARDED);
    CHECK_INT(job->query.hits_len, 3);
    for (size_t i = 0; i < 3; i++) {
        CHECK(!sl_span_is(job->query.hits[i].chunk_id, "x"));
    }
    teardown_visible();
}

TEST(what_is_left_is_cut_to_what_was_wanted)
{
    enum { FOUND = 40 };
    const char *ids[FOUND];
    char names[FOUND][16];
    for (size_t i = 0; i < FOUND; i++) {
        snprintf(names[i], sizeof(names[i]), "c%zu@4000", i);
        ids[i] = names[i];
    }
    setup_visible(true);
    fake_start(job);
    fake_search_end(fake_search(worker, 0), 0, ids, FOUND);
    fake_search_end(fake_search(worker, 1), 0, NULL, 0);
    visible = "0111111111111111111111111111111111111111";
    await_question();
    fake_redis_answer(0);
    CHECK_INT(job->query.hits_len, 20);
    CHECK(sl_span_is(job->query.hits[0].chunk_id, "c1"));
    teardown_visible();
}

TEST(hits_younger_than_the_last_word_are_looked_up)
{
    static const char *const young[] = {"x@5001"};
    setup_visible(false);
    fake_start(job);
    fake_search_end(fake_search(worker, 0), 0, young, 1);
    fake_search_end(fake_search(worker, 1), 0, NULL, 0);
    CHECK_INT(job->settled, FAKE_OPEN);
    visible = "0";
    await_question();
    fake_redis_answer(-SL_ECONN); /* Asked again. */
    CHECK_INT(job->settled, FAKE_OPEN);
    await_question();
    fake_redis_answer(0);
    CHECK_INT(job->settled, FAKE_FORWARDED);
    CHECK_INT(job->query.hits_len, 0);
    teardown_visible();
}

/* What ended while the searches ran may be among the hits. */
TEST(what_changed_when_the_searches_began_is_looked_up)
{
    static const char *const found[] = {"old@4000", "new@4001"};
    setup_visible(true);
    fake_start(job);
    changes = false;
    await_question(); /* A second later. */
    fake_redis_answer(0);
    fake_search_end(fake_search(worker, 0), 0, found, 2);
    fake_search_end(fake_search(worker, 1), 0, NULL, 0);
    CHECK_INT(job->settled, FAKE_OPEN);
    visible = "01";
    await_question();
    CHECK_STR(looked, "default default old 4000 new 4001 ");
    fake_redis_answer(0);
    CHECK_INT(job->settled, FAKE_FORWARDED);
    CHECK_INT(job->query.hits_len, 1);
    teardown_visible();
}

TEST(a_cancel_ends_a_look_up)
{
    static const char *const young[] = {"x@5001"};
    setup_visible(false);
    fake_start(job);
    fake_search_end(fake_search(worker, 0), 0, young, 1);
    fake_search_end(fake_search(worker, 1), 0, NULL, 0);
    visible = "1";
    await_question();
    fake_cancel(job);
    fake_redis_answer(0);
    CHECK_INT(job->settled, FAKE_OPEN);
    teardown_visible();
}

TEST(without_redis_the_question_fails_when_its_time_is_over)
{
    static const char *const young[] = {"x@5001"};
    setup_visible(false);
    job->deadline_ms = 1; /* Over already. */
    fake_start(job);
    fake_search_end(fake_search(worker, 0), 0, young, 1);
    fake_search_end(fake_search(worker, 1), 0, NULL, 0);
    visible = "1";
    await_question();
    fake_redis_answer(-SL_ETIMEDOUT);
    CHECK_INT(job->settled, FAKE_FAILED);
    CHECK_INT(job->code, SL_QERR_RETRIEVAL_FAILED);
    teardown_visible();
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
        {"nothing_is_asked_on_a_questions_way_while_nothing_changes",
         nothing_is_asked_on_a_questions_way_while_nothing_changes},
        {"what_is_not_visible_is_left_out_and_more_is_asked_for",
         what_is_not_visible_is_left_out_and_more_is_asked_for},
        {"what_is_left_is_cut_to_what_was_wanted", what_is_left_is_cut_to_what_was_wanted},
        {"hits_younger_than_the_last_word_are_looked_up",
         hits_younger_than_the_last_word_are_looked_up},
        {"what_changed_when_the_searches_began_is_looked_up",
         what_changed_when_the_searches_began_is_looked_up},
        {"a_cancel_ends_a_look_up", a_cancel_ends_a_look_up},
        {"without_redis_the_question_fails_when_its_time_is_over",
         without_redis_the_question_fails_when_its_time_is_over},
        {NULL, NULL},
    };
    return run_tests(cases, argc, argv);
}
