/* The rerank stage with everything around it failing in turn. */
#include "tests/support/torture/torture.h"
#include "workers/rerank/rerank.h"

#include <stdlib.h>

static void feed(void)
{
    static struct sl_hit hits[] = {{.doc_id = {"d", 1}, .chunk_id = {"a", 1}, .text = {"one", 3}},
                                   {.doc_id = {"d", 1}, .chunk_id = {"b", 1}, .text = {"two", 3}}};
    struct sl_query query = {.query = SL_SPAN("why?"),
                             .collection = SL_SPAN("default"),
                             .top_n = 2,
                             .timeout_ms = FX_TIMEOUT_MS,
                             .max_tokens = 100,
                             .accepted_ms = fx_now(),
                             .hits = hits,
                             .hits_len = 2};
    torture_feed_query(0, "answer", &query);
    query.mode = SL_MODE_SEARCH;
    torture_feed_query(0, "search", &query);
    torture_feed(
        &(struct fake_record){.topic = 0, .key = SL_SPAN("bad"), .value = SL_SPAN("\xc1")});
}

static const char *answer(const char *url, const char *body)
{
    (void)url;
    (void)body;
    return "{\"results\":[{\"index\":0,\"relevance_score\":0.1},"
           "{\"index\":1,\"relevance_score\":0.9}]}";
}

int main(void)
{
    const struct torture torture = {.stage = &rerank_stage, .feed = feed, .answer = answer};
    setenv("SLUICE_RERANK_URL", "http://127.0.0.1:1/v1", 1);
    return torture_run(&torture);
}
