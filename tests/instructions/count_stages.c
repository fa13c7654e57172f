/*
 * What the stages make of upstreams' answers, and their requests: on the fake runtime, which costs
 * next to nothing beside them.
 */
#include "common/json.h"
#include "tests/instructions/count.h"
#include "tests/instructions/sample.h"
#include "tests/support/stage/fake_runtime.h"
#include "workers/embed/vectors.h"
#include "workers/generate/generate.h"
#include "workers/rerank/rerank.h"

enum { BODY_MAX = 4 << 20 };

static struct sl_worker *worker;
static struct sl_buf body; /* What the upstream answers, terminated. */

static void begin(const struct sl_stage *stage)
{
    worker = fake_worker_create(stage);
    sl_buf_init(&body, BODY_MAX);
}

static void end(void)
{
    fake_worker_destroy(worker);
    sl_buf_fini(&body);
}

static void terminate(void)
{
    sl_buf_append(&body, "", 1);
    CHECK(sl_buf_error(&body) == 0);
    body.len--;
}

/* --- embed --- */

static void write_embed_request(void *ctx)
{
    const struct sl_span *text = ctx;
    struct sl_buf out;
    sl_buf_init(&out, BODY_MAX);
    vectors_write_request("small-embedding", text, 1, &out);
    CHECK(sl_buf_error(&out) == 0);
    sl_buf_fini(&out);
}

static unsigned embed_request(void)
{
    struct sl_span text = SL_SPAN("Question 17: how long may a worker hold a permit?");
    return measure(write_embed_request, &text);
}

static void read_vector(void *ctx)
{
    float *vectors;
    size_t dim = 0;
    char why[160];
    (void)ctx;
    CHECK(vectors_read_response(sl_buf_span(&body), 1, &vectors, &dim, why, sizeof(why)) == 0);
    CHECK(dim == SAMPLE_DIM);
    free(vectors);
}

static void put_base64(const unsigned char *bytes, size_t len)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    CHECK(len % 3 == 0);
    for (size_t i = 0; i < len; i += 3) {
        unsigned group = (unsigned)bytes[i] << 16 | (unsigned)bytes[i + 1] << 8 | bytes[i + 2];
        sl_buf_printf(&body, "%c%c%c%c", digits[group >> 18], digits[group >> 12 & 63],
                      digits[group >> 6 & 63], digits[group & 63]);
    }
}

static unsigned read_embedding(bool base64)
{
    const float *vector = sample_vector();
    sl_buf_init(&body, BODY_MAX);
    sl_buf_append_text(&body, "{\"object\":\"list\",\"data\":[{\"object\":\"embedding\","
                              "\"index\":0,\"embedding\":");
    if (base64) {
        sl_buf_append_text(&body, "\"");
        put_base64((const unsigned char *)vector, SAMPLE_DIM * sizeof(*vector));
        sl_buf_append_text(&body, "\"");
    } else {
        for (size_t i = 0; i < SAMPLE_DIM; i++) {
            sl_buf_printf(&body, "%c%.9g", i == 0 ? '[' : ',', (double)vector[i]);
        }
        sl_buf_append_text(&body, "]");
    }
    sl_buf_append_text(&body, "}],\"model\":\"small-embedding\",\"usage\":{\"prompt_tokens\":12,"
                              "\"total_tokens\":12}}");
    unsigned operations = measure(read_vector, NULL);
    sl_buf_fini(&body);
    return operations;
}

static unsigned embed_answer_base64(void)
{
    return read_embedding(true);
}

static unsigned embed_answer_list(void)
{
    return read_embedding(false);
}

/* --- retrieve --- */

static size_t hits_read;

static void on_hits(void *ctx, int err, struct sl_hit *hits, size_t len, const char *detail)
{
    (void)ctx;
    (void)hits;
    (void)detail;
    CHECK(err == 0);
    hits_read = len;
}

/* The request, and the hits of its answer. */
static void search(void *ctx)
{
    struct sl_store *store = ctx;
    struct sl_store_call *call;
    struct sl_arena arena;
    bool keyword = store->backend == &sl_store_opensearch;
    sl_arena_init(&arena, BODY_MAX);
    const struct sl_store_search wanted = {
        .scope = {.tenant = SL_SPAN("default"), .collection = SL_SPAN("default")},
        .vector = keyword ? NULL : sample_vector(),
        .dim = keyword ? 0 : SAMPLE_DIM,
        .text = SL_SPAN("Question 17: how long may a worker hold a permit?"),
        .top_k = SAMPLE_HITS,
        .arena = &arena};
    CHECK(store->backend->search(store, &wanted, on_hits, NULL, &call) == 0);
    fake_call_end(fake_call(worker, 0), 0, 200, body.data);
    CHECK(hits_read == SAMPLE_HITS);
    fake_forget_calls(worker);
    sl_arena_fini(&arena);
}

/* begin, each hit's own members, its fields. */
static void put_hits(const char *hit)
{
    const struct sl_hit *hits = sample_hits();
    struct sl_json_writer w = {.out = &body};
    for (int i = 0; i < SAMPLE_HITS; i++) {
        sl_buf_printf(&body, hit, i == 0 ? "" : ",", i, hits[i].score);
        w.comma = false;
        sl_json_begin_object(&w);
        sl_json_key(&w, "doc_id");
        sl_json_put_string(&w, hits[i].doc_id);
        sl_json_key(&w, "chunk_id");
        sl_json_put_string(&w, hits[i].chunk_id);
        sl_json_key(&w, "chunk_index");
        sl_json_put_int(&w, hits[i].chunk_index);
        sl_json_key(&w, "text");
        sl_json_put_string(&w, hits[i].text);
        sl_json_key(&w, "tenant");
        sl_json_put_string(&w, SL_SPAN("default"));
        sl_json_key(&w, "collection");
        sl_json_put_string(&w, SL_SPAN("default"));
        sl_json_key(&w, "metadata");
        sl_json_put_raw(&w, hits[i].metadata);
        sl_json_end_object(&w);
        sl_buf_append_text(&body, "}");
    }
}

static unsigned run_search(const struct sl_store_backend *backend, const char *url)
{
    const struct sl_store_env env = {.loop = fake_loop(worker), .limit_name = "VECTOR"};
    struct sl_store *store = NULL;
    char why[200];
    terminate();
    CHECK(backend->open(url, &env, &store, why, sizeof(why)) == 0);
    unsigned operations = measure(search, store);
    backend->close(store);
    end();
    return operations;
}

static unsigned qdrant_20_hits(void)
{
    begin(&rerank_stage); /* Any: the store's calls are made with its worker. */
    sl_buf_append_text(&body, "{\"result\":{\"points\":[");
    put_hits("%s{\"id\":%d,\"version\":3,\"score\":%.6f,\"payload\":");
    sl_buf_append_text(&body, "]},\"status\":\"ok\",\"time\":0.002}");
    return run_search(&sl_store_qdrant, "qdrant+http://127.0.0.1:1/chunks");
}

static unsigned opensearch_20_hits(void)
{
    begin(&rerank_stage);
    sl_buf_append_text(&body, "{\"took\":2,\"timed_out\":false,\"_shards\":{\"total\":1,"
                              "\"failed\":0},\"hits\":{\"max_score\":3.5,\"hits\":[");
    put_hits("%s{\"_index\":\"chunks\",\"_id\":\"%d\",\"_score\":%.6f,\"_source\":");
    sl_buf_append_text(&body, "]}}");
    return run_search(&sl_store_opensearch, "opensearch+http://127.0.0.1:1/chunks");
}

/* --- rerank --- */

static void rerank(void *ctx)
{
    struct sl_job *job = ctx;
    fake_start(job);
    fake_call_end(fake_call(worker, 0), 0, 200, body.data);
}

static unsigned rerank_20_hits(void)
{
    begin(&rerank_stage);
    sl_buf_append_text(&body, "{\"model\":\"small-rerank\",\"results\":[");
    for (int i = 0; i < SAMPLE_HITS; i++) {
        sl_buf_printf(&body, "%s{\"index\":%d,\"relevance_score\":%.6f}", i == 0 ? "" : ",",
                      i * 7 % SAMPLE_HITS, 0.95 - 0.041 * i);
    }
    sl_buf_append_text(&body, "],\"usage\":{\"total_tokens\":3000}}");
    terminate();
    for (int i = 0; i < COUNT_OPERATIONS; i++) {
        struct sl_job *job = fake_job_create(worker, "How long may a worker hold a permit?");
        job->query.hits = sample_hits();
        job->query.hits_len = SAMPLE_HITS;
        measure_one(i, rerank, job);
        CHECK(job->settled == FAKE_FORWARDED && job->query.degraded == 0);
        CHECK(job->query.hits_len == SAMPLE_BEST);
        fake_job_destroy(job);
        fake_forget_calls(worker);
    }
    end();
    return COUNT_ROUNDS;
}

/* --- generate --- */

static char chunks[SAMPLE_TOKENS][256];

static void start_job(void *ctx)
{
    fake_start(ctx);
}

static void stream(void *ctx)
{
    struct sl_job *job = ctx;
    struct sl_upstream_call *call = fake_call(worker, 0);
    for (int i = 0; i < SAMPLE_TOKENS; i++) {
        CHECK(fake_call_data(call, chunks[i]) == 0);
        if (i == 0) {
            job->on_streaming(job);
        }
    }
    CHECK(fake_call_data(call, body.data) == 0);
    fake_call_end(call, 0, 200, "");
}

static unsigned generate(bool prompt)
{
    begin(&generate_stage);
    for (int i = 0; i < SAMPLE_TOKENS; i++) {
        snprintf(chunks[i], sizeof(chunks[i]),
                 "data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":"
                 "1700000000,\"model\":\"small-chat\",\"choices\":[{\"index\":0,\"delta\":"
                 "{\"content\":\"token-%d \"},\"finish_reason\":null}]}\n\n",
                 i);
    }
    sl_buf_append_text(&body,
                       "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}"
                       "\n\ndata: {\"choices\":[],\"usage\":{\"prompt_tokens\":900,"
                       "\"completion_tokens\":50}}\n\ndata: [DONE]\n\n");
    terminate();
    for (int i = 0; i < COUNT_OPERATIONS; i++) {
        struct sl_job *job = fake_job_create(worker, "How long may a worker hold a permit?");
        job->query.hits = sample_hits();
        job->query.hits_len = SAMPLE_BEST;
        measure_one(prompt ? i : 0, start_job, job);
        measure_one(prompt ? 0 : i, stream, job);
        CHECK(job->settled == FAKE_FINISHED && job->event_count == SAMPLE_TOKENS);
        fake_job_destroy(job);
        fake_forget_calls(worker);
    }
    end();
    return COUNT_ROUNDS;
}

static unsigned generate_prompt(void)
{
    return generate(true);
}

static unsigned generate_50_tokens(void)
{
    return generate(false);
}

int main(int argc, char **argv)
{
    static const struct count_case cases[] = {
        {"embed_request", embed_request},
        {"embed_answer_base64", embed_answer_base64},
        {"embed_answer_list", embed_answer_list},
        {"qdrant_20_hits", qdrant_20_hits},
        {"opensearch_20_hits", opensearch_20_hits},
        {"rerank_20_hits", rerank_20_hits},
        {"generate_prompt", generate_prompt},
        {"generate_50_tokens", generate_50_tokens},
        {NULL, NULL},
    };
    setenv("SLUICE_RERANK_URL", "http://127.0.0.1:1/v1", 1);
    setenv("SLUICE_CHAT_URL", "http://127.0.0.1:1/v1", 1);
    setenv("SLUICE_CHAT_MODEL", "small-chat", 1);
    return count_main(cases, argc, argv);
}
