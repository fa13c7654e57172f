/* The generate stage with everything around it failing in turn. */
#include "tests/support/torture/torture.h"
#include "workers/generate/generate.h"

#include <stdlib.h>

#define DELTA(text) "data: {\"choices\":[{\"delta\":{\"content\":\"" text "\"}}]}\n\n"

static void feed(void)
{
    static struct sl_hit hit = {.doc_id = {"d", 1}, .chunk_id = {"a", 1}, .text = {"one", 3}};
    struct sl_query query = {.query = SL_SPAN("why?"),
                             .collection = SL_SPAN("default"),
                             .top_n = 2,
                             .timeout_ms = FX_TIMEOUT_MS,
                             .max_tokens = 100,
                             .accepted_ms = fx_now(),
                             .hits = &hit,
                             .hits_len = 1};
    torture_feed_query(0, "answer", &query);
    query.on_worker_lost = SL_WORKER_LOST_RESTART;
    query.extra = SL_SPAN("{\"seed\":7}");
    torture_feed_query(0, "again", &query);
    torture_feed(
        &(struct fake_record){.topic = 0, .key = SL_SPAN("bad"), .value = SL_SPAN("\xc1")});
}

static const char *answer(const char *url, const char *body)
{
    (void)url;
    (void)body;
    return DELTA("Because ") DELTA("it is.") "data: {\"choices\":[{\"delta\":{},\"finish_reason\":"
                                             "\"stop\"}]}\n\n"
                                             "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":7,"
                                             "\"completion_tokens\":2}}\n\ndata: [DONE]\n\n";
}

int main(void)
{
    const struct torture torture = {.stage = &generate_stage, .feed = feed, .answer = answer};
    setenv("SLUICE_CHAT_URL", "http://127.0.0.1:1/v1", 1);
    return torture_run(&torture);
}
