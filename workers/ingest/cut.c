/*
 * A document's text is cut on the thread pool.
 *
 * The pool's thread works on a copy of the text, and cannot be stopped: a cut that is destroyed
 * meanwhile is left behind, and goes when the thread is done with it.
 */
#include "workers/ingest/cut.h"

#include "common/json.h"

#include <stdio.h>
#include <stdlib.h>

enum { CUT_VERSION = 2 }; /* Another: the same text is cut otherwise than before. */

static const char *const unit_names[] = {"characters", "words", "tokens", NULL};

struct ingest_cut {
    void (*on_cut)(void *ctx, const struct ingest_cut_result *result); /* NULL: destroyed. */
    void *ctx;
    bool running;
    struct sl_span text; /* Our copy. */
    struct sl_chunk_options options;
    struct sl_chunker *chunker; /* Holds the headings. */
    struct ingest_cut_result result;
    struct sl_span *headings;
    uint32_t cap;
    char reason[64];
};

static void destroy(struct ingest_cut *cut)
{
    sl_chunker_destroy(cut->chunker);
    free((char *)cut->text.data);
    free(cut->result.texts);
    free(cut->headings);
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

static int grow(struct ingest_cut *cut)
{
    uint32_t cap = cut->cap > 0 ? cut->cap * 2 : 64;
    struct sl_span *texts = realloc(cut->result.texts, cap * sizeof(*texts));
    cut->result.texts = texts != NULL ? texts : cut->result.texts;
    struct sl_span *headings = NULL;
    if (cut->options.markdown) {
        headings = realloc(cut->headings, cap * sizeof(*headings));
        cut->headings = headings != NULL ? headings : cut->headings;
    }
    if (texts == NULL || (cut->options.markdown && headings == NULL)) {
        return -SL_ENOMEM;
    }
    cut->cap = cap;
    return 0;
}

static int add_chunk(struct ingest_cut *cut, const struct sl_chunk *chunk)
{
    struct ingest_cut_result *result = &cut->result;
    int rv = result->count == cut->cap ? grow(cut) : 0;
    if (rv != 0) {
        return rv;
    }
    if (cut->options.markdown) {
        cut->headings[result->count] = chunk->headings;
        result->headings = chunk->headings.len > 0 ? cut->headings : result->headings;
    }
    result->texts[result->count++] = chunk->text;
    return 0;
}

static int cut_all(struct ingest_cut *cut)
{
    struct sl_chunk chunk;
    int rv, added = 0;
    while (added == 0 && (rv = sl_chunker_next(cut->chunker, &chunk)) == 1) {
        added = add_chunk(cut, &chunk);
    }
    rv = added != 0 ? added : rv;
    if (rv == 0 && cut->result.count == 0) {
        cut->result.reason = "it holds nothing but white space";
        return -SL_EINVAL;
    }
    cut->result.reason = rv == -SL_ETOOBIG ? "its headings are too many" : sl_error_text(rv);
    return rv;
}

static void work(void *ctx)
{
    struct ingest_cut *cut = ctx;
    size_t bad = 0;
    int rv = sl_chunker_create(cut->text, &cut->options, &cut->chunker, &bad);
    if (rv == 0) {
        rv = cut_all(cut);
    } else if (rv == -SL_EINVAL) {
        snprintf(cut->reason, sizeof(cut->reason), "its text is not UTF-8 at byte %zu", bad);
        cut->result.reason = cut->reason;
    } else {
        cut->result.reason =
            rv == -SL_ETOOBIG ? "its headings and code blocks are too many" : sl_error_text(rv);
    }
    cut->result.err = rv;
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

/* "text/markdown", with parameters or without. */
static bool is_markdown_type(struct sl_span type)
{
    struct sl_span markdown = SL_SPAN("text/markdown");
    bool ends = type.len == markdown.len ||
                (type.len > markdown.len &&
                 (type.data[markdown.len] == ';' || type.data[markdown.len] == ' '));
    type.len = type.len < markdown.len ? type.len : markdown.len;
    return ends && sl_span_equal_nocase(type, markdown);
}

/* By its name, or by what its metadata says it is. */
static bool is_markdown(const struct sl_document *document)
{
    static const char *const endings[] = {".md", ".markdown"};
    struct sl_span id = document->doc_id;
    for (size_t i = 0; i < sizeof(endings) / sizeof(endings[0]); i++) {
        struct sl_span ending = sl_span_of(endings[i]);
        if (id.len > ending.len &&
            sl_span_equal_nocase((struct sl_span){id.data + id.len - ending.len, ending.len},
                                 ending)) {
            return true;
        }
    }
    struct sl_json_doc *json = NULL;
    bool markdown = false;
    if (document->metadata.len > 0 &&
        memmem(document->metadata.data, document->metadata.len, "content_type", 12) != NULL &&
        sl_json_parse(document->metadata, &json, NULL, 0) == 0) {
        const struct sl_json *type = sl_json_get(sl_json_root(json), "content_type");
        markdown = type != NULL && sl_json_type(type) == SL_JSON_STRING &&
                   is_markdown_type(sl_json_string(type));
    }
    sl_json_free(json);
    return markdown;
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
    char *copy = malloc(text.len + 1);
    *cut = (struct ingest_cut){.on_cut = on_cut,
                               .ctx = ctx,
                               .running = true,
                               .text = {copy, text.len},
                               .options = cutter->options};
    cut->options.markdown = is_markdown(document);
    int rv = copy == NULL ? -SL_ENOMEM : 0;
    if (rv == 0 && text.len > 0) {
        memcpy(copy, text.data, text.len);
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
    int rv = sl_chunk_setup();
    if (rv != 0) {
        snprintf(why, why_size, "the Unicode library cannot be used: %s", sl_error_text(rv));
        return rv;
    }
    static const enum sl_chunk_unit units[] = {SL_CHUNK_CHARACTERS, SL_CHUNK_WORDS,
                                               SL_CHUNK_TOKENS};
    *cutter = (struct ingest_cutter){.loop = loop,
                                     .options = {.unit = units[config->unit],
                                                 .size = (size_t)config->size,
                                                 .overlap = (size_t)config->overlap}};
    snprintf(cutter->settings, sizeof(cutter->settings), "%d %s %lld %lld", CUT_VERSION,
             unit_names[config->unit], config->size, config->overlap);
    return 0;
}

#define AT(field) offsetof(struct ingest_cut_config, field)
const struct sl_option ingest_cut_option_table[] = {
    {.name = "SLUICE_CHUNK_UNIT",
     .type = SL_OPT_CHOICE,
     .offset = AT(unit),
     .fallback = "characters",
     .choices = unit_names,
     .help = "What a chunk is measured in. tokens: of a model, estimated."},
    {.name = "SLUICE_CHUNK_SIZE",
     .type = SL_OPT_INT,
     .offset = AT(size),
     .fallback = "500",
     .min = 20,
     .max = 8000,
     .help = "Units of a chunk at most."},
    {.name = "SLUICE_CHUNK_OVERLAP",
     .type = SL_OPT_INT,
     .offset = AT(overlap),
     .fallback = "50",
     .min = 0,
     .max = 4000,
     .help = "Units that a chunk repeats of the one before; less than half of its size."},
    {.name = NULL},
};
