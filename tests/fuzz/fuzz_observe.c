/*
 * What the observe stage reads of others: results in JSON, of which it makes a record, and what a
 * judge says. Whatever is read, the record is JSON, its shares are shares, and its preview ends
 * between characters.
 */
#include "common/codec.h"
#include "common/json.h"
#include "workers/observe/judge.h"
#include "workers/observe/record.h"

#include <stdlib.h>

enum { MEMORY_MAX = 64 << 20, PREVIEW = 20 };

static void require(bool holds)
{
    if (!holds) {
        abort();
    }
}

static bool is_share(double value)
{
    return value >= 0 && value <= 1;
}

static void require_json(const struct sl_buf *text)
{
    struct sl_json_doc *doc = NULL;
    require(sl_buf_error(text) == 0 && sl_json_parse(sl_buf_span(text), &doc, NULL, 0) == 0);
    sl_json_free(doc);
}

static void try_preview(struct sl_span text)
{
    struct sl_span preview = record_preview(text, PREVIEW);
    require(preview.len <= text.len && preview.len <= PREVIEW * 4);
    require(preview.len == 0 || preview.data == text.data);
}

static void try_result(struct sl_span text, struct sl_arena *arena, struct sl_buf *out)
{
    struct sl_ended ended, again;
    struct sl_fault fault;
    struct quality quality;
    int rv = sl_result_decode(text, true, arena, &ended, &fault);
    require(rv == 0 || fault.message[0] != '\0');
    if (rv != 0) {
        return;
    }
    quality_measure(&ended, &quality);
    require(is_share(quality.citation_share) && is_share(quality.word_overlap) &&
            is_share(quality.trigram_overlap));
    record_write(&ended, 1, RECORD_REDACT_NONE, &quality, "judge", out);
    require_json(out);
    sl_buf_clear(out);
    judge_write(&ended, "judge", out);
    require_json(out);
    sl_buf_clear(out);
    sl_result_encode(&ended.query, &ended.result, true, out);
    require(sl_result_decode(sl_buf_span(out), true, arena, &again, &fault) == 0);
    sl_buf_clear(out);
    try_preview(ended.result.answer);
}

static void try_judgement(struct sl_span body)
{
    struct quality quality = {.measured = true};
    if (judge_read(body, &quality) == 0) {
        require(quality.judged == QUALITY_JUDGED && is_share(quality.groundedness) &&
                is_share(quality.relevance));
        require(strlen(quality.groundedness_reason) < QUALITY_REASON &&
                strlen(quality.relevance_reason) < QUALITY_REASON);
    } else {
        require(quality.judged == QUALITY_NOT_SAMPLED);
    }
}

/* The bytes as what the model said. */
static void try_words(struct sl_span text, struct sl_buf *out)
{
    struct sl_json_writer w = {.out = out};
    sl_buf_append_text(out, "{\"choices\":[{\"message\":{\"content\":");
    sl_json_put_string(&w, text);
    sl_buf_append_text(out, "}}]}");
    try_judgement(sl_buf_span(out));
    sl_buf_clear(out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct sl_span text = {(const char *)data, size};
    struct sl_arena arena;
    struct sl_buf out;
    sl_arena_init(&arena, MEMORY_MAX);
    sl_buf_init(&out, MEMORY_MAX);
    try_result(text, &arena, &out);
    try_judgement(text);
    try_words(text, &out);
    try_preview(text);
    sl_arena_fini(&arena);
    sl_buf_fini(&out);
    return 0;
}
