/*
 * The answers of the models and stores: OpenAI's embeddings and chat completions, the rerank of
 * Jina and llama.cpp, Qdrant's query and OpenSearch's search. They depend on the behaviour alone:
 * every text has the same vector, every search the same hits, best first, of which the keyword
 * search shares half with the vector search, so that fusion has something to do; rerank prefers
 * the last document, so that it has an effect.
 *
 * Single embeddings, hits and tokens are made once and copied or written from here.
 */
#include "upstream_answers.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { HITS = 20, SHARED = 10, ANSWERS_MAX = 64 << 20 };

#define CHAT_ID "\"id\":\"chatcmpl-bench\",\"created\":1700000000,\"model\":\"stub-chat\","
#define CHUNK_BEGIN "{" CHAT_ID "\"object\":\"chat.completion.chunk\",\"choices\":["

/* --- vectors --- */

static void put_base64(struct sl_buf *out, const unsigned char *bytes, size_t len)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < len; i += 3) {
        uint32_t word = (uint32_t)bytes[i] << 16;
        word |= i + 1 < len ? (uint32_t)bytes[i + 1] << 8 : 0;
        word |= i + 2 < len ? bytes[i + 2] : 0;
        const char quad[4] = {digits[word >> 18], digits[word >> 12 & 63],
                              i + 1 < len ? digits[word >> 6 & 63] : '=',
                              i + 2 < len ? digits[word & 63] : '='};
        sl_buf_append(out, quad, sizeof(quad));
    }
}

/* A unit vector of pseudo-random numbers, in both forms. */
static int make_vector(struct upstream_answers *answers)
{
    uint32_t dim = answers->behaviour.dimensions, seed = 1;
    unsigned char *bytes = malloc((size_t)dim * 4);
    if (bytes == NULL) {
        return -SL_ENOMEM;
    }
    sl_buf_append_text(&answers->vector_list, "[");
    for (uint32_t i = 0; i < dim; i++) {
        seed = seed * 1664525u + 1013904223u;
        float value = ((float)(seed >> 8) / 8388608.0f - 1.0f) / sqrtf((float)dim / 3.0f);
        uint32_t word;
        memcpy(&word, &value, 4);
        for (unsigned byte = 0; byte < 4; byte++) {
            bytes[i * 4 + byte] = (unsigned char)(word >> (8 * byte));
        }
        sl_buf_printf(&answers->vector_list, "%s%.8f", i > 0 ? "," : "", (double)value);
    }
    sl_buf_append_text(&answers->vector_list, "]");
    sl_buf_append_text(&answers->vector_base64, "\"");
    put_base64(&answers->vector_base64, bytes, (size_t)dim * 4);
    sl_buf_append_text(&answers->vector_base64, "\"");
    free(bytes);
    int rv = sl_buf_error(&answers->vector_list);
    return rv != 0 ? rv : sl_buf_error(&answers->vector_base64);
}

/* --- hits --- */

static void put_text(struct sl_buf *out, unsigned number, size_t len)
{
    static const char words[] =
        "the worker that owns the partition keeps its place, and a consumer "
        "that takes over reads on from the committed offset; ";
    char begin[32];
    int begin_len = snprintf(begin, sizeof(begin), "Passage %u: ", number);
    size_t put = (size_t)begin_len < len ? (size_t)begin_len : len;
    sl_buf_append(out, begin, put);
    while (put < len) {
        size_t part = len - put < sizeof(words) - 1 ? len - put : sizeof(words) - 1;
        sl_buf_append(out, words, part);
        put += part;
    }
}

static void put_fields(struct sl_buf *out, unsigned number, size_t chunk_bytes)
{
    sl_buf_printf(out,
                  "{\"doc_id\":\"doc-%04u\",\"chunk_id\":\"doc-%04u_%u\",\"chunk_index\":%u,"
                  "\"tenant\":\"default\",\"collection\":\"default\",\"version\":1,"
                  "\"metadata\":{\"topic\":\"permits\",\"page\":%u},\"text\":\"",
                  number / 2, number / 2, number % 2, number % 2, number);
    put_text(out, number, chunk_bytes);
    sl_buf_append_text(out, "\"}");
}

static int make_hits(struct upstream_answers *answers, bool keyword)
{
    struct sl_buf *out = &answers->hits[keyword];
    size_t *ends = calloc(HITS + 1, sizeof(*ends));
    answers->hit_ends[keyword] = ends;
    if (ends == NULL) {
        return -SL_ENOMEM;
    }
    for (unsigned i = 0; i < HITS; i++) {
        unsigned number = keyword ? i + SHARED : i;
        sl_buf_append_text(out, i > 0 ? "," : "");
        if (keyword) {
            sl_buf_printf(out,
                          "{\"_index\":\"docs\",\"_id\":\"00000000-0000-5000-8000-%012u\","
                          "\"_score\":%.4f,\"_source\":",
                          number, 12.0 - 0.25 * i);
        } else {
            sl_buf_printf(out,
                          "{\"id\":\"00000000-0000-5000-8000-%012u\",\"version\":1,"
                          "\"score\":%.6f,\"payload\":",
                          number, 0.95 - 0.02 * i);
        }
        put_fields(out, number, answers->behaviour.chunk_bytes);
        sl_buf_append_text(out, "}");
        ends[i + 1] = out->len;
    }
    return sl_buf_error(out);
}

/* --- streams --- */

/* A piece of text whose length is not known before as a chunk of the response. */
static void put_event(struct sl_buf *out, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static void put_event(struct sl_buf *out, const char *format, ...)
{
    char text[400];
    va_list args;
    va_start(args, format);
    int len = vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    sl_buf_printf(out, "%x\r\ndata: %s\n\n\r\n", (unsigned)len + 8, text);
}

static int make_stream(struct upstream_answers *answers)
{
    static const char head[] = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
                               "Cache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n";
    uint32_t tokens = answers->behaviour.tokens;
    struct sl_buf *out = &answers->stream;
    answers->token_ends = calloc((size_t)tokens + 1, sizeof(size_t));
    if (answers->token_ends == NULL) {
        return -SL_ENOMEM;
    }
    sl_buf_append_text(out, head);
    put_event(out, CHUNK_BEGIN "{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},"
                               "\"finish_reason\":null}]}");
    for (uint32_t i = 0; i < tokens; i++) {
        put_event(out,
                  CHUNK_BEGIN "{\"index\":0,\"delta\":{\"content\":\"token-%u \"},"
                              "\"finish_reason\":null}]}",
                  i);
        answers->token_ends[i + 1] = out->len;
    }
    return sl_buf_error(out);
}

struct sl_span upstream_answers_tokens(const struct upstream_answers *answers, size_t from,
                                       size_t to)
{
    size_t begin = answers->token_ends[from];
    return (struct sl_span){answers->stream.data + begin, answers->token_ends[to] - begin};
}

static void put_usage(const struct upstream_answers *answers, const struct upstream_asked *asked,
                      char *ret, size_t size)
{
    uint32_t tokens = answers->behaviour.tokens;
    snprintf(ret, size, "{\"prompt_tokens\":%u,\"completion_tokens\":%u,\"total_tokens\":%u}",
             asked->prompt, tokens, asked->prompt + tokens);
}

void upstream_answers_tail(const struct upstream_answers *answers,
                           const struct upstream_asked *asked, struct sl_buf *out)
{
    char usage[120];
    put_event(out, CHUNK_BEGIN "{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}");
    if (asked->usage) {
        put_usage(answers, asked, usage, sizeof(usage));
        put_event(out, CHUNK_BEGIN "],\"usage\":%s}", usage);
    }
    put_event(out, "[DONE]");
    sl_buf_append_text(out, "0\r\n\r\n");
}

/* --- whole responses --- */

static const char *reason_of(int status)
{
    return status == 200 ? "OK" : status == 404 ? "Not Found" : "Bad Request";
}

static void put_head(struct sl_buf *out, int status, size_t body_len)
{
    sl_buf_printf(out,
                  "HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n",
                  status, reason_of(status), body_len);
}

void upstream_answers_json(struct sl_buf *out, int status, struct sl_span body)
{
    put_head(out, status, body.len);
    sl_buf_append_span(out, body);
}

static void write_embeddings(const struct upstream_answers *answers,
                             const struct upstream_asked *asked, struct sl_buf *out)
{
    struct sl_span vector =
        sl_buf_span(asked->base64 ? &answers->vector_base64 : &answers->vector_list);
    sl_buf_append_text(out, "{\"object\":\"list\",\"model\":\"stub-embed\",\"data\":[");
    for (uint32_t i = 0; i < asked->count; i++) {
        sl_buf_printf(
            out, "%s{\"object\":\"embedding\",\"index\":%u,\"embedding\":", i > 0 ? "," : "", i);
        sl_buf_append_span(out, vector);
        sl_buf_append_text(out, "}");
    }
    sl_buf_append_text(out, "],\"usage\":{\"prompt_tokens\":16,\"total_tokens\":16}}");
}

static void write_hits(const struct upstream_answers *answers, bool keyword, uint32_t count,
                       struct sl_buf *out)
{
    count = count < HITS ? count : HITS;
    if (keyword) {
        sl_buf_append_text(out, "{\"took\":1,\"timed_out\":false,\"_shards\":{\"total\":1,"
                                "\"successful\":1,\"skipped\":0,\"failed\":0},\"hits\":{\"total\":"
                                "{\"value\":1000,\"relation\":\"eq\"},\"max_score\":12.0,"
                                "\"hits\":[");
    } else {
        sl_buf_append_text(out, "{\"result\":{\"points\":[");
    }
    sl_buf_append(out, answers->hits[keyword].data, answers->hit_ends[keyword][count]);
    sl_buf_append_text(out, keyword ? "]}}" : "]},\"status\":\"ok\",\"time\":0.0004}");
}

/* The last document is the best. */
static void write_rerank(const struct upstream_asked *asked, struct sl_buf *out)
{
    sl_buf_append_text(out, "{\"model\":\"stub-rerank\",\"object\":\"list\",\"results\":[");
    for (uint32_t i = 0; i < asked->top; i++) {
        sl_buf_printf(out, "%s{\"index\":%u,\"relevance_score\":%.6f}", i > 0 ? "," : "",
                      asked->count - 1 - i, 1.0 / (i + 1));
    }
    sl_buf_append_text(out, "],\"usage\":{\"prompt_tokens\":3000,\"total_tokens\":3000}}");
}

static void write_completion(const struct upstream_answers *answers,
                             const struct upstream_asked *asked, struct sl_buf *out)
{
    char usage[120];
    sl_buf_append_text(out, "{" CHAT_ID "\"object\":\"chat.completion\",\"choices\":[{\"index\":0,"
                            "\"finish_reason\":\"stop\",\"message\":{\"role\":\"assistant\","
                            "\"content\":\"");
    for (uint32_t i = 0; i < answers->behaviour.tokens; i++) {
        sl_buf_printf(out, "token-%u ", i);
    }
    put_usage(answers, asked, usage, sizeof(usage));
    sl_buf_printf(out, "\"}}],\"usage\":%s}", usage);
}

void upstream_answers_write(const struct upstream_answers *answers, enum upstream_kind kind,
                            const struct upstream_asked *asked, struct sl_buf *body)
{
    switch (kind) {
    case UPSTREAM_EMBED:
        write_embeddings(answers, asked, body);
        break;
    case UPSTREAM_VECTOR:
    case UPSTREAM_KEYWORD:
        write_hits(answers, kind == UPSTREAM_KEYWORD, asked->count, body);
        break;
    case UPSTREAM_RERANK:
        write_rerank(asked, body);
        break;
    case UPSTREAM_CHAT:
        write_completion(answers, asked, body);
        break;
    case UPSTREAM_WRITE:
    case UPSTREAM_KINDS:
        break;
    }
}

uint64_t upstream_answers_latency_us(const struct upstream_answers *answers,
                                     enum upstream_kind kind, const struct upstream_asked *asked)
{
    const struct upstream_behaviour *b = &answers->behaviour;
    const uint64_t ms[UPSTREAM_KINDS] = {b->embed_ms,  b->vector_ms, b->keyword_ms,
                                         b->rerank_ms, b->chat_ms,   0};
    bool whole = kind == UPSTREAM_CHAT && !asked->stream;
    return (ms[kind] + (whole ? (uint64_t)(b->tokens - 1) * b->interval_ms : 0)) * 1000;
}

/* --- the set --- */

int upstream_answers_create(const struct upstream_behaviour *behaviour,
                            struct upstream_answers **ret)
{
    struct upstream_answers *answers = calloc(1, sizeof(*answers));
    if (answers == NULL) {
        return -SL_ENOMEM;
    }
    answers->refs = 1;
    answers->behaviour = *behaviour;
    sl_buf_init(&answers->vector_base64, ANSWERS_MAX);
    sl_buf_init(&answers->vector_list, ANSWERS_MAX);
    sl_buf_init(&answers->hits[0], ANSWERS_MAX);
    sl_buf_init(&answers->hits[1], ANSWERS_MAX);
    sl_buf_init(&answers->stream, ANSWERS_MAX);
    int rv = make_vector(answers);
    rv = rv != 0 ? rv : make_hits(answers, false);
    rv = rv != 0 ? rv : make_hits(answers, true);
    rv = rv != 0 ? rv : make_stream(answers);
    if (rv != 0) {
        upstream_answers_unref(answers);
        return rv;
    }
    *ret = answers;
    return 0;
}

struct upstream_answers *upstream_answers_ref(struct upstream_answers *answers)
{
    answers->refs++;
    return answers;
}

void upstream_answers_unref(struct upstream_answers *answers)
{
    if (answers == NULL || --answers->refs > 0) {
        return;
    }
    sl_buf_fini(&answers->vector_base64);
    sl_buf_fini(&answers->vector_list);
    sl_buf_fini(&answers->stream);
    for (size_t i = 0; i < 2; i++) {
        sl_buf_fini(&answers->hits[i]);
        free(answers->hit_ends[i]);
    }
    free(answers->token_ends);
    free(answers);
}
