/*
 * A document's text is cut on the thread pool.
 *
 * The pool's thread works on a copy of the text, and cannot be stopped: a cut that is destroyed
 * meanwhile is left behind, and goes when the thread is done with it.
 */
#include "workers/ingest/cut.h"

#include "common/chunk.h"

#include <stdio.h>
#include <stdlib.h>

struct ingest_cut {
    void (*on_cut)(void *ctx, const struct ingest_cut_result *result); /* NULL: destroyed. */
    void *ctx;
    bool running;
    char *text;
    size_t len, size, overlap;
    struct ingest_cut_result result;
    uint32_t cap;
    char reason[64];
};

static void destroy(struct ingest_cut *cut)
{
    free(cut->text);
    free(cut->result.texts);
    free(cut);
}

void ingest_cut_destroy(struct ingest_cut *cut)
{
    if (cut != NULL && cut->running) {
        cut->on_cut = NULL;
    } else if (cut != NULL) {
        destroy(cut);
    }
}

/* --- on the thread pool --- */

static int add_chunk(struct ingest_cut *cut, struct sl_span chunk)
{
    struct ingest_cut_result *result = &cut->result;
    if (result->count == cut->cap) {
        uint32_t cap = cut->cap > 0 ? cut->cap * 2 : 64;
        struct sl_span *texts = realloc(result->texts, cap * sizeof(*texts));
        if (texts == NULL) {
            return -SL_ENOMEM;
        }
        result->texts = texts;
        cut->cap = cap;
    }
    result->texts[result->count++] = chunk;
    return 0;
}

static int cut_all(struct ingest_cut *cut, struct sl_chunker *chunker)
{
    struct sl_span chunk;
    int rv = 0;
    while (rv == 0 && sl_chunker_next(chunker, &chunk)) {
        rv = add_chunk(cut, chunk);
    }
    if (rv != 0) {
        cut->result.reason = sl_error_text(rv);
    } else if (cut->result.count == 0) {
        cut->result.reason = "it holds nothing but white space";
        rv = -SL_EINVAL;
    }
    return rv;
}

static void work(void *ctx)
{
    struct ingest_cut *cut = ctx;
    struct sl_chunker chunker;
    size_t bad = 0;
    cut->result.err = sl_chunker_init(&chunker, (struct sl_span){cut->text, cut->len}, cut->size,
                                      cut->overlap, &bad);
    if (cut->result.err == 0) {
        cut->result.err = cut_all(cut, &chunker);
    } else {
        snprintf(cut->reason, sizeof(cut->reason), "its text is not UTF-8 at byte %zu", bad);
        cut->result.reason = cut->reason;
    }
}

/* --- on the loop --- */

static void on_work_done(void *ctx)
{
    struct ingest_cut *cut = ctx;
    cut->running = false;
    if (cut->on_cut == NULL) {
        destroy(cut);
    } else {
        cut->on_cut(cut->ctx, &cut->result);
    }
}

int ingest_cut_start(struct ingest_cutter *cutter, const struct sl_document *document,
                     void (*on_cut)(void *ctx, const struct ingest_cut_result *result), void *ctx,
                     struct ingest_cut **ret)
{
    struct sl_span text = document->text;
    struct ingest_cut *cut = calloc(1, sizeof(*cut));
    if (cut == NULL) {
        return -SL_ENOMEM;
    }
    *cut = (struct ingest_cut){.on_cut = on_cut,
                               .ctx = ctx,
                               .running = true,
                               .text = malloc(text.len + 1),
                               .len = text.len,
                               .size = (size_t)cutter->config->size,
                               .overlap = (size_t)cutter->config->overlap};
    int rv = cut->text == NULL ? -SL_ENOMEM : 0;
    if (rv == 0 && text.len > 0) {
        memcpy(cut->text, text.data, text.len);
    }
    rv = rv != 0 ? rv : sl_work_submit(cutter->loop, work, on_work_done, cut);
    if (rv != 0) {
        destroy(cut);
        return rv;
    }
    *ret = cut;
    return 0;
}

int ingest_cutter_init(struct ingest_cutter *cutter, struct sl_loop *loop,
                       const struct ingest_cut_config *config, char *why, size_t why_size)
{
    if (config->overlap * 2 >= config->size) {
        snprintf(why, why_size, "SLUICE_CHUNK_OVERLAP must be less than half of SLUICE_CHUNK_SIZE");
        return -SL_EINVAL;
    }
    *cutter = (struct ingest_cutter){.loop = loop, .config = config};
    snprintf(cutter->settings, sizeof(cutter->settings), "1 characters %lld %lld", config->size,
             config->overlap);
    return 0;
}

#define AT(field) offsetof(struct ingest_cut_config, field)
const struct sl_option ingest_cut_option_table[] = {
    {.name = "SLUICE_CHUNK_SIZE",
     .type = SL_OPT_INT,
     .offset = AT(size),
     .fallback = "500",
     .min = 20,
     .max = 8000,
     .help = "Characters of a chunk at most."},
    {.name = "SLUICE_CHUNK_OVERLAP",
     .type = SL_OPT_INT,
     .offset = AT(overlap),
     .fallback = "50",
     .min = 0,
     .max = 4000,
     .help = "Characters that a chunk repeats of the one before; less than half of its size."},
    {.name = NULL},
};
