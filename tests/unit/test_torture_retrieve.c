/* The retrieve stage on Qdrant and OpenSearch, with everything around it failing in turn. */
#include "tests/support/torture/torture.h"
#include "workers/retrieve/retrieve.h"

#include <stdlib.h>
#include <string.h>

static void feed(void)
{
    static const float vector[] = {1, 2};
    static struct sl_pair filter = {{"lang", 4}, {"en", 2}};
    struct sl_query query = {.query = SL_SPAN("why?"),
                             .collection = SL_SPAN("default"),
                             .top_n = 2,
                             .timeout_ms = FX_TIMEOUT_MS,
                             .max_tokens = 100,
                             .accepted_ms = fx_now(),
                             .vector = vector,
                             .vector_len = 2};
    torture_feed_query(0, "plain", &query);
    query.filter = &filter;
    query.filter_len = 1;
    torture_feed_query(0, "filtered", &query);
    torture_feed(
        &(struct fake_record){.topic = 0, .key = SL_SPAN("bad"), .value = SL_SPAN("\xc1")});
}

static const char *answer(const char *url, const char *body)
{
    (void)body;
    return strstr(url, "/points/query") != NULL
               ? "{\"result\":{\"points\":[{\"id\":1,\"score\":0.9,\"payload\":{\"text\":\"one\","
                 "\"doc_id\":\"d\",\"chunk_index\":3,\"metadata\":{\"lang\":\"en\"}}},"
                 "{\"id\":2,\"score\":0.8,\"payload\":{\"text\":\"two\",\"metadata\":{}}}]}}"
               : "{\"_shards\":{\"failed\":0},\"hits\":{\"hits\":[{\"_id\":\"d_3\",\"_score\":3.5,"
                 "\"_source\":{\"text\":\"one\",\"chunk_id\":\"d_3\",\"doc_id\":\"d\","
                 "\"metadata\":{\"lang\":\"en\"}}}]}}";
}

int main(void)
{
    const struct torture torture = {.stage = &retrieve_stage, .feed = feed, .answer = answer};
    setenv("SLUICE_VECTOR_URL", "qdrant+http://127.0.0.1:1/c", 1);
    setenv("SLUICE_KEYWORD_URL", "opensearch+http://127.0.0.1:1/c", 1);
    return torture_run(&torture);
}
