/*
 * A document's text is cut on the thread pool.
 *
 * By a model's own tokens that takes four steps: the text is divided into pieces (on the pool), the
 * model's server counts the tokens of each (tokens.c), the text is cut by these counts (on the
 * pool), and the server counts each chunk as it will be embedded. Where pieces do not add up, since
 * some tokenizers join what the pieces part, a chunk can come out too long: then the text is cut
 * again with as much less, at most ROUNDS times. So a chunk never has more tokens than it may.
 *
 * The pool's thread works on a copy of the text, and cannot be stopped: a cut that is destroyed
 * meanwhile is left behind, and goes when the thread is done with it.
 */
#include "workers/ingest/cut.h"

#include "common/json.h"

#include <stdio.h>
#include <stdlib.h>

enum {
    CUT_VERSION = 2, /* Another: the same text is cut otherwise than before. */
    ROUNDS = 4,
};

static const char *const unit_names[] = {"characters", "words", "tokens", "model-tokens", NULL};

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
    struct sl_loop *loop;
    struct ingest_tokenizer *tokenizer; /* By a model's own tokens. */
    struct ingest_count count;
    uint8_t *counts;     /* Of the pieces. */
    size_t asked, taken; /* Byte of the text, or index of the chunk; of counts, or of the chunk. */
    uint32_t longest;    /* Tokens. */
    size_t size;         /* As configured; options has less after a round. */
    int rounds;
};

static void destroy(struct ingest_cut *cut)
{
    sl_chunker_destroy(cut->chunker);
    free(cut->counts);
    free((char *)cut->text.data);
    free(cut->result.texts);
    free(cut->headings);
    free(cut);
}

void ingest_cut_destroy(struct ingest_cut *cut)
{
    if (cut != NULL && cut->running) {
        cut->on_cut = NULL; /* The cutter, too, may be gone when the thread is done. */
    } else if (cut != NULL) {
        ingest_count_cancel(&cut->count);
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

/* Room for the counts of all pieces. */
static int count_pieces(struct ingest_cut *cut)
{
    size_t pieces = 0;
    cut->text.len = sl_chunk_end(cut->text);
    for (size_t at = 0; at < cut->text.len; pieces++) {
        at = sl_chunk_piece(cut->text, at);
    }
    cut->counts = calloc(pieces + 1, 1);
    cut->options.counts = cut->counts;
    return cut->counts != NULL ? 0 : -SL_ENOMEM;
}

static void prepare(void *ctx)
{
    struct ingest_cut *cut = ctx;
    size_t valid = sl_utf8_valid(cut->text);
    int rv = valid == cut->text.len ? count_pieces(cut) : -SL_EINVAL;
    if (rv == -SL_EINVAL) {
        snprintf(cut->reason, sizeof(cut->reason), "its text is not UTF-8 at byte %zu", valid);
    }
    cut->result.reason = rv == -SL_EINVAL ? cut->reason : sl_error_text(rv);
    cut->result.err = rv;
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

static void finish(struct ingest_cut *cut)
{
    cut->on_cut(cut->ctx, &cut->result);
}

static void fail(struct ingest_cut *cut, int err, const char *reason)
{
    cut->result.err = err;
    cut->result.reason = reason;
    finish(cut);
}

static void on_work_done(void *ctx)
{
    struct ingest_cut *cut = ctx;
    cut->running = false;
    if (cut->on_cut == NULL) {
        destroy(cut);
    } else {
        finish(cut);
    }
}

/* --- by a model's tokens --- */

static int cut_by_counts(struct ingest_cut *cut);

static bool next_chunk(void *ctx, struct sl_span *ret)
{
    struct ingest_cut *cut = ctx;
    if (cut->asked == cut->result.count) {
        return false;
    }
    *ret = cut->result.texts[cut->asked++];
    return true;
}

static void take_chunk(void *ctx, uint32_t tokens)
{
    struct ingest_cut *cut = ctx;
    cut->longest = tokens > cut->longest ? tokens : cut->longest;
}

static void on_chunks_counted(void *ctx, int err, const char *reason)
{
    struct ingest_cut *cut = ctx;
    size_t size = cut->size;
    if (err == 0 && cut->longest > size) {
        size_t less = cut->options.size * size / cut->longest;
        cut->options.size = less < cut->options.size ? less : less - 1;
        size_t most = (cut->options.size - 1) / 2;
        cut->options.overlap = cut->options.overlap < most ? cut->options.overlap : most;
        err = ++cut->rounds < ROUNDS ? cut_by_counts(cut) : -SL_ETOOBIG;
        if (err == 0) {
            return;
        }
        reason = err == -SL_ETOOBIG ? "the model takes its pieces for more tokens than they are"
                                    : sl_error_text(err);
    }
    if (err != 0) {
        fail(cut, err, reason);
    } else {
        finish(cut);
    }
}

static void on_cut_by_counts(void *ctx)
{
    struct ingest_cut *cut = ctx;
    if (cut->on_cut == NULL || cut->result.err != 0) {
        on_work_done(ctx);
        return;
    }
    cut->running = false;
    cut->asked = cut->longest = 0;
    cut->count = (struct ingest_count){
        .next = next_chunk, .take = take_chunk, .on_end = on_chunks_counted, .ctx = cut};
    ingest_count_start(cut->tokenizer, &cut->count);
}

static int cut_by_counts(struct ingest_cut *cut)
{
    sl_chunker_destroy(cut->chunker);
    cut->chunker = NULL;
    cut->result.count = 0;
    cut->result.headings = NULL;
    int rv = sl_work_submit(cut->loop, work, on_cut_by_counts, cut);
    cut->running = rv == 0;
    return rv;
}

static bool next_piece(void *ctx, struct sl_span *ret)
{
    struct ingest_cut *cut = ctx;
    if (cut->asked >= cut->text.len) {
        return false;
    }
    size_t end = sl_chunk_piece(cut->text, cut->asked);
    *ret = (struct sl_span){cut->text.data + cut->asked, end - cut->asked};
    cut->asked = end;
    return true;
}

static void take_piece(void *ctx, uint32_t tokens)
{
    struct ingest_cut *cut = ctx;
    cut->counts[cut->taken++] = tokens < UINT8_MAX ? (uint8_t)tokens : UINT8_MAX;
}

static void on_pieces_counted(void *ctx, int err, const char *reason)
{
    struct ingest_cut *cut = ctx;
    int rv = err == 0 ? cut_by_counts(cut) : err;
    if (rv != 0) {
        fail(cut, rv, err != 0 ? reason : sl_error_text(rv));
    }
}

static void on_prepared(void *ctx)
{
    struct ingest_cut *cut = ctx;
    if (cut->on_cut == NULL || cut->result.err != 0) {
        on_work_done(ctx);
        return;
    }
    cut->running = false;
    cut->count = (struct ingest_count){
        .next = next_piece, .take = take_piece, .on_end = on_pieces_counted, .ctx = cut};
    ingest_count_start(cut->tokenizer, &cut->count);
}

/* --- from outside --- */

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
                               .loop = cutter->loop,
                               .tokenizer = &cutter->tokenizer,
                               .text = {copy, text.len},
                               .size = cutter->options.size,
                               .options = cutter->options};
    cut->options.markdown = is_markdown(document);
    int rv = copy == NULL ? -SL_ENOMEM : 0;
    if (rv == 0 && text.len > 0) {
        memcpy(copy, text.data, text.len);
    }
    if (rv == 0 && cutter->options.unit == SL_CHUNK_COUNTED) {
        rv = sl_work_submit(cutter->loop, prepare, on_prepared, cut);
    } else if (rv == 0) {
        rv = sl_work_submit(cutter->loop, work, on_work_done, cut);
    }
    if (rv != 0) {
        destroy(cut);
        return rv;
    }
    *ret = cut;
    return 0;
}

int ingest_cutter_init(struct ingest_cutter *cutter, struct sl_loop *loop,
                       struct sl_http_client *http, const struct ingest_cut_config *config,
                       char *why, size_t why_size)
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
    static const enum sl_chunk_unit units[] = {SL_CHUNK_CHARACTERS, SL_CHUNK_WORDS, SL_CHUNK_TOKENS,
                                               SL_CHUNK_COUNTED};
    *cutter = (struct ingest_cutter){.loop = loop,
                                     .options = {.unit = units[config->unit],
                                                 .size = (size_t)config->size,
                                                 .overlap = (size_t)config->overlap}};
    snprintf(cutter->settings, sizeof(cutter->settings), "%d %s %lld %lld", CUT_VERSION,
             unit_names[config->unit], config->size, config->overlap);
    return units[config->unit] == SL_CHUNK_COUNTED
               ? ingest_tokenizer_init(&cutter->tokenizer, loop, http, &config->tokens, why,
                                       why_size)
               : 0;
}

#define AT(field) offsetof(struct ingest_cut_config, field)
const struct sl_option ingest_cut_option_table[] = {
    {.name = "SLUICE_CHUNK_UNIT",
     .type = SL_OPT_CHOICE,
     .offset = AT(unit),
     .fallback = "characters",
     .choices = unit_names,
     .help =
         "What a chunk is measured in. tokens: a model's, estimated; model-tokens: exact, by the "
         "embedding server."},
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
