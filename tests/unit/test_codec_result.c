/* Results are read as they were written, whichever way, and what is none is refused. */
#include "common/codec.h"
#include "tests/support/test.h"

#include <stdlib.h>

static struct sl_arena arena;
static struct sl_buf buf;
static struct sl_fault fault;
static struct sl_ended ended;

static void setup(void)
{
    sl_arena_init(&arena, 8 << 20);
    sl_buf_init(&buf, 8 << 20);
    ended = (struct sl_ended){.query = {.top_n = 7}};
}

static void teardown(void)
{
    sl_arena_fini(&arena);
    sl_buf_fini(&buf);
}

static int read_text(const char *text)
{
    return sl_result_decode(sl_span_of(text), true, &arena, &ended, &fault);
}

static void write_one(bool json, bool failed)
{
    static struct sl_hit hit = {.doc_id = {"d", 1},
                                .chunk_id = {"d_3", 3},
                                .chunk_index = 3,
                                .text = {"passage", 7},
                                .metadata = {"{\"a\":1}", 7},
                                .score = 0.25};
    const struct sl_query query = {.query = SL_SPAN("why \xc3\xa9?"),
                                   .id = SL_SPAN("id-1"),
                                   .tenant = SL_SPAN("acme"),
                                   .collection = SL_SPAN("faq"),
                                   .source_topic = SL_SPAN("q"),
                                   .source_partition = 3,
                                   .source_offset = 42,
                                   .hits = &hit,
                                   .hits_len = 1,
                                   .degraded = SL_DEGRADED_KEYWORD,
                                   .stages = {[SL_STAGE_generate] = {true, 1, 2, 3, 4}}};
    const struct sl_result result = {.outcome = failed ? SL_FAILED : SL_DONE,
                                     .code = failed ? SL_QERR_UPSTREAM_ERROR : SL_QERR_NONE,
                                     .message = sl_span_of(failed ? "the model is away" : ""),
                                     .stage = sl_span_of(failed ? "generate" : ""),
                                     .answer = SL_SPAN("because"),
                                     .model = SL_SPAN("m"),
                                     .usage = {100, 7, true},
                                     .retrieval_latency_ms = 1,
                                     .generation_latency_ms = 2,
                                     .ttft_ms = 3,
                                     .total_ms = 4};
    sl_buf_clear(&buf);
    sl_result_encode(&query, &result, json, &buf);
}

static void check_common(void)
{
    const struct sl_query *query = &ended.query;
    const struct sl_result *result = &ended.result;
    CHECK(sl_span_is(query->id, "id-1") && sl_span_is(query->query, "why \xc3\xa9?"));
    CHECK(sl_span_is(query->tenant, "acme") && sl_span_is(query->collection, "faq"));
    CHECK(sl_span_is(result->answer, "because") && sl_span_is(result->model, "m"));
    CHECK_INT(query->hits_len, 1);
    CHECK(sl_span_is(query->hits[0].text, "passage") && query->hits[0].score == 0.25);
    CHECK_INT(query->degraded, SL_DEGRADED_KEYWORD);
    CHECK(query->stages[SL_STAGE_generate].reached && !query->stages[SL_STAGE_embed].reached);
    CHECK_INT(query->stages[SL_STAGE_generate].work_ms, 3);
    CHECK(result->usage.prompt_tokens == 100 && result->usage.estimated);
    CHECK(result->retrieval_latency_ms == 1 && result->generation_latency_ms == 2);
    CHECK(result->ttft_ms == 3 && result->total_ms == 4);
    CHECK(sl_span_is(query->source_topic, "q") && query->source_offset == 42);
    CHECK_INT(query->source_partition, 3);
}

TEST(what_was_written_is_read_whichever_way)
{
    setup();
    for (int i = 0; i < 4; i++) {
        bool json = i % 2 == 0, failed = i >= 2;
        write_one(json, failed);
        CHECK_INT(sl_result_decode(sl_buf_span(&buf), json, &arena, &ended, &fault), 0);
        check_common();
        CHECK_INT(ended.query.json, json);
        CHECK_INT(ended.result.outcome, failed ? SL_FAILED : SL_DONE);
        CHECK_INT(ended.result.code, failed ? SL_QERR_UPSTREAM_ERROR : SL_QERR_NONE);
        CHECK(sl_span_is(ended.result.stage, failed ? "generate" : ""));
        CHECK(sl_span_is(ended.result.message, failed ? "the model is away" : ""));
    }
    teardown();
}

TEST(members_may_be_absent_or_unknown)
{
    setup();
    CHECK_INT(read_text("{\"id\":\"a\",\"later\":[1,{\"x\":null}]}"), 0);
    CHECK(sl_span_is(ended.query.id, "a") && ended.result.outcome == SL_DONE);
    CHECK_INT(ended.query.hits_len, 0);
    teardown();
}

TEST(what_is_no_result_is_refused_and_says_why)
{
    static const struct {
        const char *text;
        int err;
    } cases[] = {
        {"", -SL_EBADMSG},
        {"[]", -SL_EBADMSG},
        {"{\"id\":\"a\"", -SL_EBADMSG},
        {"{}", -SL_EINVAL},
        {"{\"id\":\"\"}", -SL_EINVAL},
        {"{\"id\":7}", -SL_EINVAL},
        {"{\"id\":\"a\",\"outcome\":\"perhaps\"}", -SL_EINVAL},
        {"{\"id\":\"a\",\"total_ms\":-1}", -SL_EINVAL},
        {"{\"id\":\"a\",\"source_chunks\":{}}", -SL_EINVAL},
        {"{\"id\":\"a\",\"usage\":[]}", -SL_EINVAL},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        setup();
        CHECK_INT(read_text(cases[i].text), cases[i].err);
        CHECK(fault.message[0] != '\0');
        CHECK_INT(ended.query.top_n, 7); /* Untouched. */
        teardown();
    }
}

int main(int argc, char **argv)
{
    const struct test_case cases[] = {
        {"what_was_written_is_read_whichever_way", what_was_written_is_read_whichever_way},
        {"members_may_be_absent_or_unknown", members_may_be_absent_or_unknown},
        {"what_is_no_result_is_refused_and_says_why", what_is_no_result_is_refused_and_says_why},
        {NULL, NULL},
    };
    return run_tests(cases, argc, argv);
}
