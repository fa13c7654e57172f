/*
 * Where a text is cut.
 *
 * A chunk starts at the first character that is no white space, and reaches `size` units far at
 * most (chunk_measure.c). It is cut at the last place in its last third where a reader would: a
 * paragraph end, else a sentence end, a line end, a space, a word end (in a script without spaces);
 * and where there is none, one long word, between two characters as a reader sees them
 * (chunk_icu.c). After a cut inside a paragraph the next chunk starts `overlap` units earlier, at a
 * word start if one is near, so that a sentence cut in two is whole in one of them; a new paragraph
 * starts clean.
 *
 * In Markdown (chunk_markdown.c) the best cut is before a heading, of the highest level, the last
 * of those, anywhere behind the first third: a section that is not tiny gets chunks of its own. Two
 * rules come before the size of a chunk. No chunk ends with a heading: the cut moves before it. And
 * fenced code that fits into a chunk is not cut: the cut moves before its fence; code that does not
 * fit, not even alone or not with the heading above it, is cut at the end of a line. Overlaps do
 * not reach back over a heading or out of code.
 *
 * Progress: but for a move to a heading or a fence, after which nothing overlaps, a cut lies at
 * least two thirds of `size` after the start and an overlap is less than half of it, so each chunk
 * starts after the one before; after a cut that had to come earlier yet, nothing overlaps. White
 * space at the text's end is dropped at the start, so that what follows a cut always holds
 * something new.
 *
 * What it does not do: it knows no abbreviations ("Mr. Smith"), and takes a character of more than
 * `size` code points apart, since a chunk may not be longer.
 */
#include "common/chunk_internal.h"

#include <assert.h>
#include <stdlib.h>

enum { HEADINGS_BYTES = 64 << 20, CONTEXT = 64, SPACE_MAX = 4096, LEVELS = 6 };

struct sl_chunker {
    struct chunk_meter meter;
    struct chunk_blocks blocks;
    size_t at;    /* Where the next chunk starts, or white space before it. */
    size_t block; /* The first that ends after that. */
    /* Headings above it: the block of each level, or SIZE_MAX. */
    size_t above[LEVELS];
    size_t next_heading; /* Blocks up to here are in `above`. */
    struct sl_span headings;
    struct sl_arena arena; /* Holds all headings. */
};

/* --- cuts in plain text --- */

/* The last blank line whose white space starts in [low, high]: that place; 0: none. */
static size_t last_paragraph(struct sl_span text, size_t low, size_t high)
{
    size_t end = sl_chunk_skip_space(text, high);
    while (end > low) {
        const char *newline = memrchr(text.data + low, '\n', end - low);
        if (newline == NULL) {
            return 0;
        }
        size_t at = (size_t)(newline - text.data);
        size_t begin = sl_chunk_trim_end(text, low > 0 ? low - 1 : 0, at);
        if (begin >= low && begin < at &&
            memchr(newline - (at - begin), '\n', at - begin) != NULL) {
            return begin;
        }
        end = begin < at ? begin : at;
    }
    return 0;
}

static size_t last_line(struct sl_span text, size_t low, size_t high)
{
    size_t end = sl_chunk_skip_space(text, high);
    const char *newline = memrchr(text.data + low, '\n', end - low);
    if (newline == NULL) {
        return 0;
    }
    size_t at = sl_chunk_trim_end(text, low > 0 ? low - 1 : 0, (size_t)(newline - text.data));
    return at >= low && at <= high ? at : 0;
}

static size_t last_space(struct sl_span text, size_t low, size_t high)
{
    bool space = high < text.len && sl_chunk_space(text, high);
    for (size_t at = high;; at = sl_chunk_previous(text, at)) {
        bool before = at > 0 && sl_chunk_space(text, sl_chunk_previous(text, at));
        if (space && !before) {
            return at;
        }
        if (at <= low) {
            return 0;
        }
        space = before;
    }
}

static size_t last_sentence(struct sl_chunker *chunker, size_t start, struct chunk_window window)
{
    struct sl_span text = chunker->meter.text;
    size_t from = sl_chunk_back(text, start, window.earliest, CONTEXT);
    size_t end = sl_chunk_skip_space(text, window.limit);
    end = end - window.limit < SPACE_MAX ? end : window.limit;
    size_t to = sl_chunk_forward(text, end, CONTEXT);
    return sl_chunk_sentence(chunker->meter.breaks, text, from, to, window.earliest, window.limit);
}

/* No place is good. */
static size_t hard_cut(struct sl_chunker *chunker, size_t start, struct chunk_window window)
{
    struct sl_span text = chunker->meter.text;
    struct chunk_breaks *breaks = chunker->meter.breaks;
    size_t at = sl_chunk_word(breaks, text, start, window.earliest, window.limit);
    at = sl_chunk_cluster_start(breaks, text, start, at > 0 ? at : window.limit);
    return at > start ? at : window.limit;
}

struct cut {
    size_t at;
    bool clean; /* What follows has no need of what is before. */
};

static struct cut plain_cut(struct sl_chunker *chunker, size_t start, struct chunk_window window)
{
    struct sl_span text = chunker->meter.text;
    size_t at = last_paragraph(text, window.earliest, window.limit);
    if (at > 0) {
        return (struct cut){at, true};
    }
    at = last_sentence(chunker, start, window);
    at = at > 0 ? at : last_line(text, window.earliest, window.limit);
    at = at > 0 ? at : last_space(text, window.earliest, window.limit);
    if (at > 0) {
        at = sl_chunk_cluster_start(chunker->meter.breaks, text, start, at);
    }
    return (struct cut){at > start ? at : hard_cut(chunker, start, window), false};
}

/* --- cuts in Markdown --- */

static bool only_space(struct sl_span text, size_t from, size_t to)
{
    return sl_chunk_skip_space(text, from) >= to;
}

/* The first block behind `at`, from the chunk's first on. */
static size_t block_behind(const struct sl_chunker *chunker, size_t at)
{
    size_t i = chunker->block;
    while (i < chunker->blocks.len && chunker->blocks.list[i].from < at) {
        i++;
    }
    return i;
}

/* Before a heading that follows text, behind the first third. 0: there is none. */
static size_t heading_cut(const struct sl_chunker *chunker, size_t start,
                          struct chunk_window window)
{
    const struct chunk_blocks *blocks = &chunker->blocks;
    size_t low = start + (window.earliest - start) / 2, best = 0;
    uint32_t level = LEVELS + 1;
    for (size_t i = chunker->block; i < blocks->len; i++) {
        const struct chunk_block *block = &blocks->list[i];
        if (block->from > window.limit) {
            break;
        }
        bool follows_heading = i > 0 && blocks->list[i - 1].level > 0 &&
                               only_space(chunker->meter.text, blocks->list[i - 1].to, block->from);
        if (block->level > 0 && block->from > low && !follows_heading && block->level <= level) {
            best = block->from;
            level = block->level;
        }
    }
    return best;
}

/* The cut, or before the headings that it would leave at the chunk's end. At most start: that would
 * leave nothing. */
static size_t before_headings(const struct sl_chunker *chunker, size_t cut)
{
    const struct chunk_blocks *blocks = &chunker->blocks;
    for (size_t i = block_behind(chunker, cut); i > chunker->block; i--) {
        const struct chunk_block *block = &blocks->list[i - 1];
        bool inside = block->from < cut && cut < block->to;
        if (block->level == 0 || !(inside || only_space(chunker->meter.text, block->to, cut))) {
            break;
        }
        cut = block->from;
    }
    return cut;
}

static bool fits(const struct sl_chunker *chunker, const struct chunk_block *block)
{
    struct sl_span text = chunker->meter.text;
    struct chunk_window window = sl_chunk_measure(&chunker->meter, block->from);
    return window.ends || sl_chunk_trim_end(text, block->from, block->to) <= window.limit;
}

/* A cut that would lie in code. */
static struct cut code_cut(struct sl_chunker *chunker, size_t start, struct chunk_window window,
                           const struct chunk_block *code)
{
    size_t before = before_headings(chunker, code->from);
    if (before > start && (code->from >= window.earliest || fits(chunker, code))) {
        return (struct cut){before, true};
    }
    size_t low = code->from > window.earliest ? code->from + 1 : window.earliest;
    size_t end = sl_chunk_trim_end(chunker->meter.text, code->from, code->to);
    size_t at = last_line(chunker->meter.text, low, end < window.limit ? end : window.limit);
    return at > start ? (struct cut){at, false} : plain_cut(chunker, start, window);
}

static struct cut markdown_cut(struct sl_chunker *chunker, size_t start, struct chunk_window window)
{
    size_t heading = heading_cut(chunker, start, window);
    if (heading > start) {
        return (struct cut){heading, true};
    }
    struct cut cut = plain_cut(chunker, start, window);
    size_t i = block_behind(chunker, cut.at);
    const struct chunk_block *block = i > chunker->block ? &chunker->blocks.list[i - 1] : NULL;
    if (block != NULL && block->level == 0 &&
        cut.at < sl_chunk_trim_end(chunker->meter.text, block->from, block->to)) {
        return code_cut(chunker, start, window, block);
    }
    size_t before = before_headings(chunker, cut.at);
    return before < cut.at && before > start ? (struct cut){before, true} : cut;
}

/* --- the next start --- */

/* The end of the last block before cut, or the start of the code that cut lies in. */
static size_t overlap_floor(const struct sl_chunker *chunker, size_t start, size_t cut,
                            bool *ret_code)
{
    size_t i = block_behind(chunker, cut);
    const struct chunk_block *block = i > chunker->block ? &chunker->blocks.list[i - 1] : NULL;
    *ret_code = block != NULL && block->level == 0 && cut < block->to;
    if (block == NULL || block->to <= start) {
        return start;
    }
    size_t floor = *ret_code ? block->from : block->to < cut ? block->to : cut;
    return floor > start ? floor : start;
}

/* The start of the next chunk after a cut inside a paragraph. */
static size_t overlap_start(struct sl_chunker *chunker, size_t start, size_t cut)
{
    struct sl_span text = chunker->meter.text;
    bool code, after_space;
    size_t floor = overlap_floor(chunker, start, cut, &code);
    size_t from = sl_chunk_overlap(&chunker->meter, start, cut);
    from = from > floor ? from : floor;
    if (code) { /* A whole line, or nothing. */
        const char *newline = memchr(text.data + from, '\n', cut - from);
        return newline != NULL ? (size_t)(newline + 1 - text.data) : cut;
    }
    after_space = from == 0 || sl_chunk_space(text, sl_chunk_previous(text, from));
    for (size_t at = from; at < cut; at += sl_chunk_length(text, at)) {
        bool space = sl_chunk_space(text, at);
        if (!space && after_space) {
            return at;
        }
        after_space = space;
    }
    from = sl_chunk_cluster_end(chunker->meter.breaks, text, start, from);
    return from < cut ? from : cut;
}

/* --- headings --- */

static int join_headings(struct sl_chunker *chunker)
{
    struct sl_buf path;
    sl_buf_init(&path, (size_t)4 * SL_HEADINGS_MAX); /* A title ends soon behind the maximum. */
    for (size_t level = 0; level < LEVELS && path.len < SL_HEADINGS_MAX; level++) {
        size_t before = path.len;
        if (chunker->above[level] == SIZE_MAX) {
            continue;
        }
        sl_buf_append_text(&path, before > 0 ? " > " : "");
        size_t title = path.len;
        sl_chunk_title(chunker->meter.text, &chunker->blocks.list[chunker->above[level]], &path);
        path.len = path.len == title ? before : path.len; /* "#" alone. */
    }
    struct sl_span joined = sl_buf_span(&path);
    int rv = sl_buf_error(&path);
    if (joined.len > SL_HEADINGS_MAX) {
        joined.len = SL_HEADINGS_MAX;
        while (((unsigned char)joined.data[joined.len] & 0xc0) == 0x80) {
            joined.len--;
        }
        joined.len = sl_chunk_trim_end(joined, 0, joined.len);
    }
    chunker->headings = (struct sl_span){NULL, 0};
    if (rv == 0 && joined.len > 0) {
        chunker->headings = sl_arena_copy(&chunker->arena, joined);
        rv = chunker->headings.data != NULL ? 0 : chunker->arena.full ? -SL_ETOOBIG : -SL_ENOMEM;
    }
    sl_buf_fini(&path);
    return rv;
}

/* Those above the first text of the chunk [start, end): headings that it begins with, too. */
static int find_headings(struct sl_chunker *chunker, size_t start, size_t end)
{
    const struct chunk_blocks *blocks = &chunker->blocks;
    bool changed = false;
    for (; chunker->next_heading < blocks->len; chunker->next_heading++) {
        const struct chunk_block *block = &blocks->list[chunker->next_heading];
        if (block->from > start) {
            break;
        }
        if (block->level == 0) {
            continue;
        }
        chunker->above[block->level - 1] = chunker->next_heading;
        for (size_t level = block->level; level < LEVELS; level++) {
            chunker->above[level] = SIZE_MAX;
        }
        changed = true;
        if (block->to > start && block->to < end) {
            start = sl_chunk_skip_space(chunker->meter.text, block->to);
        }
    }
    return changed ? join_headings(chunker) : 0;
}

/* --- chunks --- */

int sl_chunker_create(struct sl_span text, const struct sl_chunk_options *options,
                      struct sl_chunker **ret, size_t *ret_bad)
{
    if (options->size == 0 || options->overlap > (options->size - 1) / 2) {
        return -SL_EINVAL;
    }
    size_t valid = sl_utf8_valid(text);
    if (valid < text.len) {
        *ret_bad = valid;
        return -SL_EINVAL;
    }
    struct sl_chunker *chunker = calloc(1, sizeof(*chunker));
    if (chunker == NULL) {
        return -SL_ENOMEM;
    }
    text.len = sl_chunk_end(text);
    chunker->meter =
        (struct chunk_meter){.text = text, .options = *options, .breaks = sl_chunk_breaks_create()};
    memset(chunker->above, 0xff, sizeof(chunker->above));
    sl_arena_init(&chunker->arena, HEADINGS_BYTES);
    int rv = chunker->meter.breaks == NULL ? -SL_ENOMEM : 0;
    if (rv == 0 && options->markdown) {
        rv = sl_chunk_markdown(text, &chunker->blocks);
    }
    if (rv != 0) {
        sl_chunker_destroy(chunker);
        return rv;
    }
    *ret = chunker;
    return 0;
}

void sl_chunker_destroy(struct sl_chunker *chunker)
{
    if (chunker == NULL) {
        return;
    }
    sl_chunk_breaks_destroy(chunker->meter.breaks);
    free(chunker->blocks.list);
    sl_arena_fini(&chunker->arena);
    free(chunker);
}

int sl_chunker_next(struct sl_chunker *chunker, struct sl_chunk *ret)
{
    struct sl_span text = chunker->meter.text;
    size_t start = sl_chunk_skip_space(text, chunker->at);
    if (start >= text.len) {
        return 0;
    }
    while (chunker->block < chunker->blocks.len &&
           chunker->blocks.list[chunker->block].to <= start) {
        chunker->block++;
    }
    sl_chunk_meter_move(&chunker->meter, start);
    struct chunk_window window = sl_chunk_measure(&chunker->meter, start);
    struct cut cut = {text.len, true};
    if (!window.ends) {
        cut = chunker->blocks.len > 0 ? markdown_cut(chunker, start, window)
                                      : plain_cut(chunker, start, window);
    }
    chunker->at = cut.clean ? cut.at : overlap_start(chunker, start, cut.at);
    chunker->at = chunker->at > start ? chunker->at : cut.at;
    int rv = sl_chunk_breaks_error(chunker->meter.breaks);
    rv = rv != 0 ? rv : find_headings(chunker, start, cut.at);
    if (rv != 0) {
        return rv;
    }
    assert(chunker->at > start && cut.at > start && cut.at <= text.len);
    size_t end = sl_chunk_trim_end(text, start, cut.at);
    *ret = (struct sl_chunk){{text.data + start, end - start}, chunker->headings};
    return 1;
}
