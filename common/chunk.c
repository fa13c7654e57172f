/*
 * The chunker. One pass over the next `size` characters notes the last paragraph end, sentence end
 * and space in the last third; the chunk is cut at the best of them, and hard at `size` where none
 * lies there (one long word, or a script without spaces). After a cut inside a paragraph the next
 * chunk starts `overlap` characters earlier, at a word start if one is near, so that a sentence cut
 * in two is whole in one of them; a new paragraph starts clean.
 *
 * Progress: a cut lies at least two thirds of `size` after the start, an overlap is less than half
 * of it, so each chunk starts after the one before. White space at the text's end is dropped at the
 * start, so that what follows a cut always holds something new.
 *
 * What it does not do: it knows no abbreviations ("e.g. this") and keeps no combining mark with its
 * base when it has to cut hard.
 */
#include "common/chunk.h"

#include <endian.h>
#include <stdint.h>

/* The length of the valid sequence at p (at most left bytes), or 0. Table 3-7 of Unicode 15. */
static size_t sequence_length(const unsigned char *p, size_t left)
{
    size_t len = p[0] < 0x80 ? 1 : p[0] < 0xc2 ? 0 : p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : 4;
    if (len == 0 || len > left || p[0] > 0xf4) {
        return 0;
    }
    for (size_t i = 1; i < len; i++) {
        if ((p[i] & 0xc0) != 0x80) {
            return 0;
        }
    }
    if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) ||
        (p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f)) {
        return 0; /* Longer than needed, a surrogate, or over U+10FFFF. */
    }
    return len;
}

size_t sl_utf8_sequence(struct sl_span text)
{
    return text.len > 0 ? sequence_length((const unsigned char *)text.data, text.len) : 0;
}

/* How many bytes at the start are ASCII. */
static size_t ascii_run(const unsigned char *data, size_t len)
{
    const uint64_t tops = 0x8080808080808080u;
    uint64_t words[4];
    size_t at = 0;
    for (; len - at >= sizeof(words); at += sizeof(words)) {
        memcpy(words, data + at, sizeof(words));
        if (((words[0] | words[1] | words[2] | words[3]) & tops) != 0) {
            break;
        }
    }
    for (; len - at >= sizeof(words[0]); at += sizeof(words[0])) {
        memcpy(words, data + at, sizeof(words[0]));
        uint64_t others = le64toh(words[0]) & tops;
        if (others != 0) {
            return at + (size_t)__builtin_ctzll(others) / 8;
        }
    }
    while (at < len && data[at] < 0x80) {
        at++;
    }
    return at;
}

size_t sl_utf8_valid(struct sl_span text)
{
    const unsigned char *data = (const unsigned char *)text.data;
    size_t at = 0;
    while (at < text.len) {
        at += ascii_run(data + at, text.len - at);
        while (at < text.len && data[at] >= 0x80) {
            size_t len = sequence_length(data + at, text.len - at);
            if (len == 0) {
                return at;
            }
            at += len;
        }
    }
    return at;
}

/* The text is known to be valid from here on. */
static size_t length_at(struct sl_span text, size_t at)
{
    unsigned char c = (unsigned char)text.data[at];
    return c < 0x80 ? 1 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
}

static uint32_t code_point_at(struct sl_span text, size_t at)
{
    size_t len = length_at(text, at);
    unsigned char first = (unsigned char)text.data[at];
    uint32_t cp = len == 1 ? first : first & (0x7fu >> len);
    for (size_t i = 1; i < len; i++) {
        cp = cp << 6 | ((unsigned char)text.data[at + i] & 0x3f);
    }
    return cp;
}

static size_t previous(struct sl_span text, size_t at)
{
    do {
        at--;
    } while (((unsigned char)text.data[at] & 0xc0) == 0x80);
    return at;
}

static bool is_space(uint32_t cp) /* Unicode's White_Space. */
{
    return cp == ' ' || (cp >= '\t' && cp <= '\r') || cp == 0x85 || cp == 0xa0 || cp == 0x1680 ||
           (cp >= 0x2000 && cp <= 0x200a) || cp == 0x2028 || cp == 0x2029 || cp == 0x202f ||
           cp == 0x205f || cp == 0x3000;
}

static bool ends_sentence(uint32_t cp)
{
    return cp == '.' || cp == '!' || cp == '?' || cp == 0x2026;
}

static bool ends_wide_sentence(uint32_t cp) /* Of scripts that put no space after it. */
{
    return cp == 0x3002 || cp == 0xff01 || cp == 0xff1f || cp == 0xff61;
}

static bool closes(uint32_t cp) /* What may stand between a full stop and the space. */
{
    return cp == '"' || cp == '\'' || cp == ')' || cp == ']' || cp == 0xbb || cp == 0x2019 ||
           cp == 0x201d;
}

static size_t skip_space(struct sl_span text, size_t at)
{
    while (at < text.len && is_space(code_point_at(text, at))) {
        at += length_at(text, at);
    }
    return at;
}

static size_t trim_end(struct sl_span text, size_t from, size_t to)
{
    while (to > from) {
        size_t before = previous(text, to);
        if (!is_space(code_point_at(text, before))) {
            break;
        }
        to = before;
    }
    return to;
}

int sl_chunker_init(struct sl_chunker *chunker, struct sl_span text, size_t size, size_t overlap,
                    size_t *ret_bad)
{
    if (size == 0 || overlap > (size - 1) / 2) {
        return -SL_EINVAL;
    }
    size_t valid = sl_utf8_valid(text);
    if (valid < text.len) {
        *ret_bad = valid;
        return -SL_EINVAL;
    }
    text.len = trim_end(text, 0, text.len);
    *chunker = (struct sl_chunker){.text = text, .size = size, .overlap = overlap};
    return 0;
}

static bool blank_line_at(struct sl_span text, size_t at)
{
    size_t newlines = 0;
    while (at < text.len && newlines < 2 && is_space(code_point_at(text, at))) {
        newlines += text.data[at] == '\n' ? 1 : 0;
        at += length_at(text, at);
    }
    return newlines >= 2;
}

/* Where a chunk may be cut, as bytes; 0: nowhere (a cut is never at byte 0). */
struct cuts {
    size_t paragraph, sentence, space, hard;
};

/* Looks at the characters from start on; false when the text ends within size of them. */
static bool find_cuts(const struct sl_chunker *chunker, size_t start, struct cuts *ret)
{
    struct sl_span text = chunker->text;
    size_t earliest = chunker->size - chunker->size / 3;
    bool in_space = false, ended = false;
    size_t at = start;
    *ret = (struct cuts){0};
    for (size_t i = 0; i <= chunker->size; i++) {
        if (at >= text.len) {
            return false;
        }
        uint32_t cp = code_point_at(text, at);
        bool space = is_space(cp);
        if (space && !in_space && i >= earliest) {
            ret->space = at;
            ret->sentence = ended ? at : ret->sentence;
            ret->paragraph = blank_line_at(text, at) ? at : ret->paragraph;
        }
        in_space = space;
        ended = ends_sentence(cp) || (ended && closes(cp));
        ret->hard = i < chunker->size ? at + length_at(text, at) : ret->hard;
        at += length_at(text, at);
        if (ends_wide_sentence(cp) && i + 1 >= earliest && i < chunker->size) {
            ret->sentence = at;
        }
    }
    return true;
}

/* The start of the next chunk after a cut inside a paragraph. */
static size_t overlap_start(const struct sl_chunker *chunker, size_t cut)
{
    struct sl_span text = chunker->text;
    size_t from = cut;
    for (size_t i = 0; i < chunker->overlap; i++) {
        from = previous(text, from);
    }
    bool after_space = from == 0 || is_space(code_point_at(text, previous(text, from)));
    for (size_t at = from; at < cut; at += length_at(text, at)) {
        bool space = is_space(code_point_at(text, at));
        if (!space && after_space) {
            return at;
        }
        after_space = space;
    }
    return from;
}

bool sl_chunker_next(struct sl_chunker *chunker, struct sl_span *ret)
{
    struct sl_span text = chunker->text;
    struct cuts cuts;
    size_t start = skip_space(text, chunker->at);
    if (start >= text.len) {
        return false;
    }
    size_t cut = text.len;
    if (!find_cuts(chunker, start, &cuts)) {
        chunker->at = text.len;
    } else if (cuts.paragraph > 0) {
        cut = chunker->at = cuts.paragraph;
    } else {
        cut = cuts.sentence > 0 ? cuts.sentence : cuts.space > 0 ? cuts.space : cuts.hard;
        chunker->at = overlap_start(chunker, cut);
    }
    *ret = (struct sl_span){text.data + start, trim_end(text, start, cut) - start};
    return true;
}
