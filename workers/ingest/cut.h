/*
 * Cutting a document's text into chunks, on the thread pool: a large one takes longer than the loop
 * may wait. What document.c knows of chunking is here.
 */
#ifndef SLUICE_WORKERS_INGEST_CUT_H
#define SLUICE_WORKERS_INGEST_CUT_H

#include "common/chunk.h"
#include "common/loop.h"
#include "common/message.h"
#include "common/options.h"
#include "workers/ingest/tokens.h"

struct ingest_cut_config {
    long long size, overlap;
    int unit; /* The index of its name. */
    struct ingest_tokens_config tokens;
};
extern const struct sl_option ingest_cut_option_table[]; /* Of a struct ingest_cut_config. */

/* A member of its owner. */
struct ingest_cutter {
    struct sl_loop *loop;
    struct sl_chunk_options options;
    struct ingest_tokenizer tokenizer; /* By a model's own tokens. */
    char settings[96]; /* One line, printable: what the same text must be cut by to come out the
                        * same. For the hash that says whether a document is unchanged. */
};

/* 0, or -SL_EINVAL with what is wrong with the options in why. */
int ingest_cutter_init(struct ingest_cutter *cutter, struct sl_loop *loop,
                       struct sl_http_client *http, const struct ingest_cut_config *config,
                       char *why, size_t why_size) SL_CHECKED;

/* What became of a text. */
struct ingest_cut_result {
    int err;            /* 0: there is at least one chunk. */
    const char *reason; /* With err: one line. */
    struct sl_span *texts;
    const struct sl_span *headings; /* Those above each text, "A > B"; empty: none. NULL: of no
                                     * text. */
    uint32_t count;
};

struct ingest_cut;

/* Copies what it needs of document. on_cut(ctx) comes later, once; what it is given is the cut's.
 * -SL_ENOMEM: it does not come. */
int ingest_cut_start(struct ingest_cutter *cutter, const struct sl_document *document,
                     void (*on_cut)(void *ctx, const struct ingest_cut_result *result), void *ctx,
                     struct ingest_cut **ret) SL_CHECKED;
/* Also before on_cut, which then does not come, and inside it. Takes NULL. */
void ingest_cut_destroy(struct ingest_cut *cut);

#endif
