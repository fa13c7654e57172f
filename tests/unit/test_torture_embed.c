/* The embed stage, questions and chunks, with everything around it failing in turn. */
#include "tests/support/torture/torture.h"
#include "workers/embed/embed.h"

#include <stdlib.h>
#include <string.h>

enum { QUERIES, CHUNKS };

static void ask(const char *id, const char *json)
{
    torture_feed(&(struct fake_record){.topic = QUERIES,
                                       .id = id,
                                       .type = "application/json",
                                       .reply_to = "sluice.replies:3",
                                       .timestamp_ms = fx_now(),
                                       .key = sl_span_of(id),
                                       .value = sl_span_of(json)});
}

static void feed(void)
{
    static struct sl_span texts[] = {{"one", 3}, {"two", 3}};
    const struct sl_batch batch = {.doc_id = SL_SPAN("doc"),
                                   .tenant = SL_SPAN("default"),
                                   .collection = SL_SPAN("default"),
                                   .version = 1,
                                   .total_chunks = 2,
                                   .texts = texts,
                                   .len = 2};
    ask("first", "{\"query\": \"why?\"}");
    ask("second", "{\"query\": \"why not?\", \"filter\": {\"lang\": \"en\"}}");
    ask("invalid", "{\"query\": 1}");
    ask("bad", "{");
    torture_feed_batch(CHUNKS, "doc", &batch);
}

/* As many vectors as there are texts. */
static const char *answer(const char *url, const char *body)
{
    (void)url;
    return strstr(body, "\",\"") != NULL
               ? "{\"data\":[{\"index\":1,\"embedding\":[3,4]},{\"index\":0,\"embedding\":"
                 "\"AACAPwAAAEA=\"}]}"
               : "{\"data\":[{\"index\":0,\"embedding\":[1,2]}]}";
}

int main(void)
{
    const struct torture torture = {
        .stage = &embed_stage, .feed = feed, .answer = answer, .bulk_output = "vectors"};
    setenv("SLUICE_EMBED_URL", "http://127.0.0.1:1/v1", 1);
    setenv("SLUICE_EMBED_BATCH", "2", 1);
    return torture_run(&torture);
}
