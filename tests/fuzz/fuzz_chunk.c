/*
 * Documents for the chunker: three bytes say unit, Markdown, size and overlap, the rest is the
 * text. Chunks are whole characters, within their size, each further on than the one before, and
 * leave nothing out but white space. The ends of sentences are where ICU sees them.
 */
#include "common/chunk_internal.h"
#include "tests/support/test.h"

#include <stdlib.h>

static size_t characters(struct sl_span text)
{
    size_t count = 0;
    for (size_t i = 0; i < text.len; i++) {
        count += ((unsigned char)text.data[i] & 0xc0) != 0x80;
    }
    return count;
}

/* What each piece counts, where the server of a model would have said it. */
static uint8_t *count_pieces(struct sl_span text, size_t *ret_most)
{
    uint8_t *counts = calloc(text.len + 1, 1);
    CHECK(counts != NULL);
    text.len = sl_chunk_end(text);
    size_t i = 0, end;
    for (size_t at = 0; at < text.len; at = end) {
        end = sl_chunk_piece(text, at);
        CHECK(end > at && end - at <= 20 && end <= text.len);
        counts[i++] = (uint8_t)(1 + (end - at) % 5);
    }
    *ret_most = 5;
    return counts;
}

static size_t count_of(struct sl_span text, const uint8_t *counts, size_t from, size_t to)
{
    size_t sum = 0, i = 0, end;
    text.len = sl_chunk_end(text);
    for (size_t at = 0; at < text.len && at < to; at = end, i++) {
        end = sl_chunk_piece(text, at);
        sum += end > from ? counts[i] : 0;
    }
    return sum;
}

/* No boundary of a chunk lies in what is one character to a reader, unless that alone is too long.
 */
static void check_boundary(struct chunk_breaks *breaks, struct sl_span text, size_t at, size_t size)
{
    size_t from = sl_chunk_cluster_start(breaks, text, 0, at);
    size_t to = sl_chunk_cluster_end(breaks, text, 0, at);
    CHECK(from == at || characters((struct sl_span){text.data + from, to - from}) > size);
}

/* Nothing but headings and white space. */
static bool only_headings(struct sl_span text, const struct chunk_blocks *blocks, size_t from,
                          size_t to)
{
    for (size_t i = 0; i < blocks->len && from < to; i++) {
        if (blocks->list[i].level > 0 && blocks->list[i].to > from &&
            blocks->list[i].from <= sl_chunk_skip_space(text, from)) {
            from = blocks->list[i].to;
        }
    }
    return from >= to || sl_chunk_skip_space(text, from) >= to;
}

/* What a chunk that is not the last may not end with. */
static void check_end(struct sl_span text, const struct chunk_blocks *blocks, size_t from,
                      size_t to, const struct sl_chunk_options *options)
{
    for (size_t i = 0; i < blocks->len; i++) {
        const struct chunk_block *block = &blocks->list[i];
        size_t end = sl_chunk_trim_end(text, block->from, block->to);
        if (block->from <= from || block->from >= to || to > end) {
            continue;
        }
        struct sl_span whole = {text.data + block->from, end - block->from};
        if (block->level > 0) {
            CHECK(only_headings(text, blocks, from, block->from));
        } else if (options->unit == SL_CHUNK_CHARACTERS && to < end) {
            CHECK(characters(whole) > options->size ||
                  only_headings(text, blocks, from, block->from));
        }
    }
}

static uint64_t cut(struct sl_span text, const struct sl_chunk_options *options, size_t most)
{
    struct sl_chunker *chunker = NULL;
    struct sl_chunk chunk;
    size_t bad = 0, covered = 0, last = 0, last_to = 0, count = 0;
    uint64_t hash = 1;
    size_t valid = sl_utf8_valid(text);
    int rv = sl_chunker_create(text, options, &chunker, &bad);
    CHECK(rv == 0 || rv == -SL_EINVAL);
    CHECK(rv != 0 || valid == text.len);
    if (rv != 0) {
        return 0;
    }
    struct chunk_breaks *breaks = sl_chunk_breaks_create();
    struct sl_span trimmed = {text.data, sl_chunk_end(text)};
    CHECK(breaks != NULL);
    struct chunk_blocks blocks = {0};
    CHECK(!options->markdown || sl_chunk_markdown(trimmed, &blocks) == 0);
    for (; (rv = sl_chunker_next(chunker, &chunk)) == 1; count++) {
        size_t from = (size_t)(chunk.text.data - text.data), to = from + chunk.text.len;
        CHECK(chunk.text.len > 0 && to <= text.len && count <= text.len);
        CHECK(sl_utf8_valid(chunk.text) == chunk.text.len);
        CHECK(count == 0 || from > last);
        if (options->unit == SL_CHUNK_CHARACTERS) {
            CHECK(characters(chunk.text) <= options->size);
            check_boundary(breaks, text, from, options->size);
            check_boundary(breaks, text, to, options->size);
        } else if (options->unit == SL_CHUNK_COUNTED) {
            CHECK(count_of(text, options->counts, from, to) <= options->size + most);
        }
        for (size_t i = covered; i < from; i += sl_chunk_length(text, i)) {
            CHECK(sl_chunk_space(text, i));
        }
        if (last_to > 0) {
            check_end(text, &blocks, last, last_to, options);
        }
        last = from;
        last_to = to;
        covered = to > covered ? to : covered;
        CHECK(chunk.headings.len <= SL_HEADINGS_MAX &&
              sl_utf8_valid(chunk.headings) == chunk.headings.len);
        hash = hash * 31 + from * 7 + to + chunk.headings.len;
    }
    CHECK(rv == 0);
    for (size_t i = covered; i < text.len; i += sl_chunk_length(text, i)) {
        CHECK(sl_chunk_space(text, i));
    }
    free(blocks.list);
    sl_chunk_breaks_destroy(breaks);
    sl_chunker_destroy(chunker);
    return hash;
}

/* ASCII: the chunker's own rules against ICU's. */
static void compare_sentences(struct sl_span text)
{
    if (sl_chunk_ascii(text.data, text.len) < text.len || text.len < 3) {
        return;
    }
    struct chunk_breaks *breaks = sl_chunk_breaks_create();
    CHECK(breaks != NULL);
    size_t high = text.len - 1, low = text.len / 3;
    CHECK(sl_chunk_sentence(breaks, text, 0, text.len, low, high) ==
          sl_chunk_sentence_icu(breaks, text, 0, text.len, low, high));
    sl_chunk_breaks_destroy(breaks);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 3) {
        return 0;
    }
    struct sl_span text = {(const char *)data + 3, size - 3};
    struct sl_chunk_options options = {.unit = (enum sl_chunk_unit)(data[0] & 3),
                                       .markdown = (data[0] & 4) != 0,
                                       .size = data[1],
                                       .overlap = data[2]};
    uint8_t *counts = NULL;
    size_t most = 0;
    if (sl_utf8_valid(text) == text.len && options.unit == SL_CHUNK_COUNTED) {
        options.counts = counts = count_pieces(text, &most);
    }
    CHECK(cut(text, &options, most) == cut(text, &options, most));
    compare_sentences(text);
    free(counts);
    return 0;
}
