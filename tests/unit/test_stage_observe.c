/* What the observe stage makes of results: the record, what is left out of it, who is judged, and
 * what a judge's words come to. On a fake runtime, without a database. */
#include "tests/support/stage/fake_runtime.h"
#include "tests/support/test.h"
#include "workers/observe/judge.h"
#include "workers/observe/observe.h"
#include "workers/observe/record.h"

#include <math.h>

static struct sl_worker *worker;
static struct sl_job *job;
static struct sl_ended ended;

static struct sl_hit hits[] = {
    {.doc_id = {"d.md", 4},
     .chunk_id = {"d.md_0", 6},
     .text = {"A lease ends after fifteen seconds.", 35},
     .score = 0.5},
    {.doc_id = {"e.md", 4}, .chunk_id = {"e.md_1", 6}, .text = {"Permits are leases.", 19}},
};

static void set(const char *share, const char *redact)
{
    setenv("SLUICE_CHAT_URL", "http://127.0.0.1:1/v1", 1);
    setenv("SLUICE_CHAT_MODEL", "first,second", 1);
    setenv("SLUICE_QUALITY_SHARE", share, 1);
    setenv("SLUICE_ANALYTICS_REDACT", redact, 1);
    ended =
        (struct sl_ended){.query = {.query = SL_SPAN("When does a lease end?"),
                                    .id = SL_SPAN("q-1"),
                                    .tenant = SL_SPAN("acme"),
                                    .collection = SL_SPAN("faq"),
                                    .hits = hits,
                                    .hits_len = 2,
                                    .degraded = SL_DEGRADED_RERANK,
                                    .stages = {[SL_STAGE_embed] = {true, 1, 2, 3, 1},
                                               [SL_STAGE_generate] = {true, 4, 5, 600, 1}}},
                          .result = {.answer = SL_SPAN("A lease ends after fifteen minutes [1]."),
                                     .model = SL_SPAN("m"),
                                     .usage = {10, 5, false},
                                     .retrieval_latency_ms = 20,
                                     .generation_latency_ms = 610,
                                     .ttft_ms = 120,
                                     .total_ms = 630}};
}

static void start(void)
{
    worker = fake_worker_create(&observe_stage);
    job = fake_result_create(worker, &ended);
    fake_start(job);
}

static void stop(void)
{
    fake_job_destroy(job);
    fake_worker_destroy(worker);
}

/* What was sent, as text. */
static const char *sent(void)
{
    sl_buf_append(&job->sent, "", 1);
    return job->sent.data;
}

static void check_holds(const char *text, const char *part)
{
    if (strstr(text, part) == NULL) {
        fprintf(stderr, "not in it: %s\n%s\n", part, text);
    }
    CHECK(strstr(text, part) != NULL);
}

/* --- the record --- */

TEST(a_query_becomes_one_record_with_all_its_members)
{
    set("0", "none");
    start();
    CHECK(job->settled == FAKE_DONE && fake_call_count(worker) == 0);
    CHECK_STR(job->topic, "analytics");
    CHECK_STR(sent(),
              "{\"query_id\":\"q-1\",\"tenant\":\"acme\",\"collection\":\"faq\","
              "\"time\":1700000000123,\"query\":\"When does a lease end?\","
              "\"response_preview\":\"A lease ends after fifteen minutes [1].\","
              "\"outcome\":\"done\",\"error_code\":\"\",\"error_stage\":\"\",\"model\":\"m\","
              "\"latency_ms\":630,\"ttft_ms\":120,\"retrieval_latency_ms\":20,"
              "\"generation_latency_ms\":610,\"stages\":{"
              "\"embed\":{\"queue_ms\":1,\"wait_ms\":2,\"work_ms\":3,\"attempts\":1},"
              "\"generate\":{\"queue_ms\":4,\"wait_ms\":5,\"work_ms\":600,\"attempts\":1}},"
              "\"usage\":{\"prompt_tokens\":10,\"completion_tokens\":5,\"total_tokens\":15,"
              "\"estimated\":false},\"degraded\":[\"rerank\"],\"sources\":["
              "{\"doc_id\":\"d.md\",\"chunk_id\":\"d.md_0\",\"score\":0.5},"
              "{\"doc_id\":\"e.md\",\"chunk_id\":\"e.md_1\",\"score\":0}],"
              "\"quality\":{\"words\":6,\"characters\":39,\"source_count\":2,\"cited_sources\":1,"
              "\"citation_share\":0.5,\"word_overlap\":0.833,\"trigram_overlap\":0.75,"
              "\"empty\":false,\"refusal\":false,\"sampled\":false,\"groundedness\":null,"
              "\"relevance\":null,\"groundedness_reason\":\"\",\"relevance_reason\":\"\","
              "\"judge_model\":\"\",\"judge_missing\":\"\"}}");
    stop();
}

TEST(a_query_that_failed_says_why_and_has_no_quality)
{
    set("1", "none");
    ended.result.outcome = SL_EXPIRED;
    ended.result.code = SL_QERR_TIMEOUT;
    ended.result.stage = SL_SPAN("generate");
    start();
    CHECK_INT(job->settled, FAKE_DONE);
    check_holds(sent(), "\"outcome\":\"expired\",\"error_code\":\"timeout\","
                        "\"error_stage\":\"generate\"");
    check_holds(sent(), "\"quality\":null");
    stop();
}

TEST(a_search_has_no_quality)
{
    set("1", "none");
    ended.query.stages[SL_STAGE_generate].reached = false;
    ended.result.answer = SL_SPAN("");
    start();
    check_holds(sent(), "\"quality\":null");
    stop();
}

TEST(texts_are_left_out_as_the_option_says)
{
    static const struct {
        const char *word;
        bool query, answer;
    } cases[] = {{"none", true, true},
                 {"query", false, true},
                 {"answer", true, false},
                 {"all", false, false}};
    for (size_t i = 0; i < 4; i++) {
        set("0", cases[i].word);
        start();
        CHECK_INT(strstr(sent(), "When does") != NULL, cases[i].query);
        CHECK_INT(strstr(sent(), "fifteen") != NULL, cases[i].answer);
        check_holds(sent(), "\"word_overlap\":0.833");
        stop();
    }
}

TEST(a_full_queue_is_waited_for)
{
    set("0", "none");
    worker = fake_worker_create(&observe_stage);
    job = fake_result_create(worker, &ended);
    job->emit_err = -SL_EAGAIN;
    fake_start(job);
    CHECK_INT(job->settled, FAKE_OPEN);
    job->emit_err = 0;
    job->on_room(job);
    CHECK_INT(job->settled, FAKE_DONE);
    check_holds(sent(), "\"query_id\":\"q-1\"");
    stop();
}

static void check_preview(const char *text, size_t characters, size_t want)
{
    CHECK_INT(record_preview(sl_span_of(text), characters).len, want);
}

TEST(a_preview_never_ends_inside_a_character)
{
    check_preview("", 3, 0);
    check_preview("abc", 3, 3);
    check_preview("abcd", 3, 3);
    check_preview("a\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80z", 4, 10); /* 1 to 4 bytes. */
    check_preview("abe\xcc\x81", 3, 2);                             /* e and its accent. */
    check_preview("ab\xe2\x9d\xa4\xef\xb8\x8f", 3, 2);              /* A heart and its colour. */
    check_preview("a\xf0\x9f\x91\xa9\xe2\x80\x8d\xf0\x9f\x9a\x80", 2, 1); /* Joined by 200D. */
    check_preview("a\xf0\x9f\x91\xa9\xe2\x80\x8d\xf0\x9f\x9a\x80", 3, 1);
    check_preview("a\xf0\x9f", 1, 1); /* What is no UTF-8 cannot lead it astray. */
}

/* --- measures --- */

static struct quality measure(const char *answer)
{
    struct quality quality;
    set("0", "none");
    ended.result.answer = sl_span_of(answer);
    quality_measure(&ended, &quality);
    CHECK(quality.measured);
    return quality;
}

TEST(measures_say_how_an_answer_relates_to_its_sources)
{
    struct quality quality = measure("Permits are leases.");
    CHECK(quality.word_overlap == 1 && quality.trigram_overlap == 1 && !quality.refusal);
    quality = measure("PERMITS, are: Leases! [2] [1, 2] [9] [x] [1");
    CHECK(quality.trigram_overlap < 1 && quality.cited == 2 && quality.citation_share == 1);
    quality = measure("Bananas grow somewhere else.");
    CHECK(quality.word_overlap == 0 && quality.trigram_overlap == 0 && quality.words == 4);
    quality = measure("The documents do not say.");
    CHECK(quality.refusal && !quality.empty);
    quality = measure(" \n\t");
    CHECK(quality.empty && quality.words == 0 && quality.word_overlap == 0);
    quality = measure("\xe6\x97\xa5\xe6\x9c\xac\xe3\x80\x82 \xc3\xa9t\xc3\xa9");
    CHECK(quality.words == 3 && quality.characters == 7);
}

/* --- sampling --- */

TEST(a_share_is_sampled_and_the_same_queries_each_time)
{
    size_t count = 0;
    for (int i = 0; i < 10000; i++) {
        char id[32];
        snprintf(id, sizeof(id), "query-%d", i);
        bool sampled = observe_samples(sl_span_of(id), 0.1);
        CHECK(observe_samples(sl_span_of(id), 0.1) == sampled);
        CHECK(!sampled || observe_samples(sl_span_of(id), 0.2)); /* More is more. */
        CHECK(!observe_samples(sl_span_of(id), 0) && observe_samples(sl_span_of(id), 1));
        count += sampled ? 1 : 0;
    }
    CHECK(count > 850 && count < 1150);
}

/* --- the judge --- */

#define JUDGEMENT                                                                                  \
    "{\\\"groundedness\\\": 0.25, \\\"groundedness_reason\\\": \\\"minutes are wrong\\\", "        \
    "\\\"relevance\\\": 1, \\\"relevance_reason\\\": \\\"on topic\\\"}"
#define CONTENT(text)                                                                              \
    "{\"choices\":[{\"message\":{\"role\":\"assistant\",\"content\":\"" text "\"}}]}"

TEST(a_sampled_answer_is_judged_before_its_record_is_written)
{
    set("1", "none");
    start();
    CHECK(job->settled == FAKE_OPEN && fake_call_count(worker) == 1);
    const struct sl_upstream_call *call = fake_call(worker, 0);
    CHECK_STR(call->path, "/chat/completions");
    CHECK(call->request.bulk && call->request.permit == NULL);
    check_holds(call->body.data, "\"model\":\"first\"");
    check_holds(call->body.data, "[1] A lease ends after fifteen seconds.");
    check_holds(call->body.data, "Question: When does a lease end?");
    check_holds(call->body.data, "Answer: A lease ends after fifteen minutes");
    check_holds(call->body.data, "\"stream\":false");
    fake_call_end(fake_call(worker, 0), 0, 200, CONTENT(JUDGEMENT));
    CHECK_INT(job->settled, FAKE_DONE);
    check_holds(sent(), "\"sampled\":true,\"groundedness\":0.25,\"relevance\":1,"
                        "\"groundedness_reason\":\"minutes are wrong\","
                        "\"relevance_reason\":\"on topic\",\"judge_model\":\"first\","
                        "\"judge_missing\":\"\"");
    stop();
}

TEST(reasons_go_with_the_texts_that_they_may_quote)
{
    set("1", "query");
    start();
    fake_call_end(fake_call(worker, 0), 0, 200, CONTENT(JUDGEMENT));
    check_holds(sent(), "\"groundedness\":0.25");
    check_holds(sent(), "\"groundedness_reason\":\"\"");
    stop();
}

TEST(a_judge_that_fails_is_recorded_as_missing)
{
    static const struct {
        int err;
        const char *body, *missing;
    } cases[] = {
        {-SL_EUPSTREAM, "", "upstream"},
        {-SL_EEXPIRED, "", "expired"},
        {0, CONTENT("I would say 7 out of 10"), "malformed"},
        {0, CONTENT("{\\\"groundedness\\\": 2, \\\"relevance\\\": 1}"), "malformed"},
        {0, "no JSON", "malformed"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char want[64];
        set("1", "none");
        start();
        fake_call_end(fake_call(worker, 0), cases[i].err, 200, cases[i].body);
        CHECK_INT(job->settled, FAKE_DONE);
        snprintf(want, sizeof(want), "\"judge_missing\":\"%s\"", cases[i].missing);
        check_holds(sent(), want);
        check_holds(sent(), "\"groundedness\":null");
        stop();
    }
}

TEST(a_cancelled_job_closes_its_judge_s_call)
{
    set("1", "none");
    start();
    fake_cancel(job);
    CHECK(fake_call(worker, 0)->cancelled);
    stop();
}

static int judge(const char *body)
{
    struct quality quality = {.measured = true};
    int rv = judge_read(sl_span_of(body), &quality);
    CHECK_INT(quality.judged == QUALITY_JUDGED, rv == 0);
    return rv;
}

TEST(a_judgement_is_read_strictly_but_for_its_fence)
{
    CHECK_INT(judge(CONTENT(JUDGEMENT)), 0);
    CHECK_INT(judge(CONTENT(" \\n```json\\n" JUDGEMENT "\\n```\\n")), 0);
    CHECK_INT(judge(CONTENT("```\\n" JUDGEMENT "```")), 0);
    CHECK_INT(judge(CONTENT("```\\n" JUDGEMENT)), 0);
    CHECK_INT(judge(CONTENT("{\\\"groundedness\\\":0,\\\"relevance\\\":0.5}")), 0);
    CHECK_INT(judge(CONTENT("Here it is: " JUDGEMENT)), -SL_EBADMSG);
    CHECK_INT(judge(CONTENT(JUDGEMENT " I hope this helps")), -SL_EBADMSG);
    CHECK_INT(judge(CONTENT("{\\\"groundedness\\\":\\\"1\\\",\\\"relevance\\\":1}")), -SL_EBADMSG);
    CHECK_INT(judge(CONTENT("{\\\"groundedness\\\":-0.1,\\\"relevance\\\":1}")), -SL_EBADMSG);
    CHECK_INT(judge(CONTENT("{\\\"groundedness\\\":1}")), -SL_EBADMSG);
    CHECK_INT(judge(CONTENT("[1,1]")), -SL_EBADMSG);
    CHECK_INT(judge(CONTENT("")), -SL_EBADMSG);
    CHECK_INT(judge(CONTENT("```")), -SL_EBADMSG);
    CHECK_INT(judge("{}"), -SL_EBADMSG);
    CHECK_INT(judge("{\"choices\":[]}"), -SL_EBADMSG);
    CHECK_INT(judge("{\"choices\":[{\"message\":{\"content\":null}}]}"), -SL_EBADMSG);
    CHECK_INT(judge("[]"), -SL_EBADMSG);
}

int main(int argc, char **argv)
{
    const struct test_case cases[] = {
        {"a_query_becomes_one_record_with_all_its_members",
         a_query_becomes_one_record_with_all_its_members},
        {"a_query_that_failed_says_why_and_has_no_quality",
         a_query_that_failed_says_why_and_has_no_quality},
        {"a_search_has_no_quality", a_search_has_no_quality},
        {"texts_are_left_out_as_the_option_says", texts_are_left_out_as_the_option_says},
        {"a_full_queue_is_waited_for", a_full_queue_is_waited_for},
        {"a_preview_never_ends_inside_a_character", a_preview_never_ends_inside_a_character},
        {"measures_say_how_an_answer_relates_to_its_sources",
         measures_say_how_an_answer_relates_to_its_sources},
        {"a_share_is_sampled_and_the_same_queries_each_time",
         a_share_is_sampled_and_the_same_queries_each_time},
        {"a_sampled_answer_is_judged_before_its_record_is_written",
         a_sampled_answer_is_judged_before_its_record_is_written},
        {"reasons_go_with_the_texts_that_they_may_quote",
         reasons_go_with_the_texts_that_they_may_quote},
        {"a_judge_that_fails_is_recorded_as_missing", a_judge_that_fails_is_recorded_as_missing},
        {"a_cancelled_job_closes_its_judge_s_call", a_cancelled_job_closes_its_judge_s_call},
        {"a_judgement_is_read_strictly_but_for_its_fence",
         a_judgement_is_read_strictly_but_for_its_fence},
        {NULL, NULL},
    };
    return run_tests(cases, argc, argv);
}
