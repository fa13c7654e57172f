/*
 * Counting a model's tokens by the server that runs it: llama.cpp's POST /tokenize, at the root of
 * the embedding server's address.
 */
#ifndef SLUICE_WORKERS_INGEST_TOKENS_H
#define SLUICE_WORKERS_INGEST_TOKENS_H

#include "common/backoff.h"
#include "common/http_client.h"
#include "common/loop.h"
#include "common/options.h"

struct ingest_tokens_config {
    const char *url; /* Of the embedding server; "": none. */
    const char *api_key;
};
extern const struct sl_option ingest_tokens_option_table[];

struct ingest_tokenizer {
    struct sl_loop *loop;
    struct sl_http_client *http; /* Borrowed. */
    char url[512], authorization[512];
};

/* 0, or -SL_EINVAL with why. */
int ingest_tokenizer_init(struct ingest_tokenizer *tokenizer, struct sl_loop *loop,
                          struct sl_http_client *http, const struct ingest_tokens_config *config,
                          char *why, size_t why_size) SL_CHECKED;

/* A member of its owner; zeroed is idle. */
struct ingest_count {
    /* Set by the owner; called from the loop, on_end once and last, never inside start. */
    bool (*next)(void *ctx, struct sl_span *ret); /* The next text, borrowed; false: no more. */
    void (*take)(void *ctx, uint32_t tokens);     /* Of the texts, in their order. */
    void (*on_end)(void *ctx, int err, const char *reason); /* 0, or why not in one line. */
    void *ctx;
    /* Of tokens.c. */
    struct ingest_tokenizer *tokenizer;
    struct sl_http_call *call;
    struct sl_timer timer; /* The first part, and each further try of one. */
    struct sl_backoff backoff;
    struct sl_buf part; /* The request's body. */
    uint32_t texts;     /* In it. */
    uint64_t end_ms;    /* Of the part's tries. */
    char reason[256];
};

void ingest_count_start(struct ingest_tokenizer *tokenizer, struct ingest_count *count);
void ingest_count_cancel(struct ingest_count *count); /* Also when idle. */

#endif
