/*
 * What the chunker's files share: chunk.c (where to cut), chunk_measure.c (how long), chunk_icu.c
 * (Unicode's boundaries), chunk_markdown.c (headings and code), chunk_utf8.c. All texts here are
 * valid UTF-8, and all positions are bytes.
 */
#ifndef SLUICE_COMMON_CHUNK_INTERNAL_H
#define SLUICE_COMMON_CHUNK_INTERNAL_H

#include "common/arena.h"
#include "common/chunk.h"

/* --- characters --- */

size_t sl_chunk_ascii(const char *bytes, size_t len); /* How many bytes at the start are ASCII. */

static inline size_t sl_chunk_length(struct sl_span text, size_t at)
{
    unsigned char c = (unsigned char)text.data[at];
    return c < 0x80 ? 1 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
}

static inline uint32_t sl_chunk_code_point(struct sl_span text, size_t at)
{
    size_t len = sl_chunk_length(text, at);
    unsigned char first = (unsigned char)text.data[at];
    uint32_t cp = len == 1 ? first : first & (0x7fu >> len);
    for (size_t i = 1; i < len; i++) {
        cp = cp << 6 | ((unsigned char)text.data[at + i] & 0x3f);
    }
    return cp;
}

static inline size_t sl_chunk_previous(struct sl_span text, size_t at)
{
    do {
        at--;
    } while (((unsigned char)text.data[at] & 0xc0) == 0x80);
    return at;
}

static inline bool sl_chunk_ascii_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

bool sl_chunk_wide_space(struct sl_span text, size_t at); /* Of sl_chunk_space. */

/* Unicode's white space, unless a mark stands on it. */
static inline bool sl_chunk_space(struct sl_span text, size_t at)
{
    unsigned char c = (unsigned char)text.data[at];
    unsigned char next = at + 1 < text.len ? (unsigned char)text.data[at + 1] : 0;
    return c < 0x80 && next < 0x80 ? sl_chunk_ascii_space((char)c) : sl_chunk_wide_space(text, at);
}

size_t sl_chunk_skip_space(struct sl_span text, size_t at);
size_t sl_chunk_trim_end(struct sl_span text, size_t from, size_t to);

/* n characters on, or back. */
size_t sl_chunk_forward(struct sl_span text, size_t at, size_t n);
size_t sl_chunk_back(struct sl_span text, size_t from, size_t at, size_t n); /* Not before from. */

/* --- boundaries --- */

struct chunk_breaks;

/* For questions about one text. NULL: out of memory. */
struct chunk_breaks *sl_chunk_breaks_create(void);
void sl_chunk_breaks_destroy(struct chunk_breaks *breaks); /* Takes NULL. */
/* Sticky: -SL_ENOMEM or -SL_EIO. The answers below are then of no use, but in their ranges. */
int sl_chunk_breaks_error(const struct chunk_breaks *breaks) SL_CHECKED;

/* The last sentence end of text[from, to) whose white space starts in [low, high], as that place; a
 * line's end alone ends no sentence. 0: none. */
size_t sl_chunk_sentence(struct chunk_breaks *breaks, struct sl_span text, size_t from, size_t to,
                         size_t low, size_t high);
/* The same by ICU, whatever text is. For the test that compares them. */
size_t sl_chunk_sentence_icu(struct chunk_breaks *breaks, struct sl_span text, size_t from,
                             size_t to, size_t low, size_t high);
/* The last word boundary in [low, high], with text known from `from` on; 0: none. */
size_t sl_chunk_word(struct chunk_breaks *breaks, struct sl_span text, size_t from, size_t low,
                     size_t high);
/* How many words of scripts without spaces begin in [from, to). */
size_t sl_chunk_words(struct chunk_breaks *breaks, struct sl_span text, size_t from, size_t to);
/* The start of the grapheme cluster that `at` is inside, or `at` where it is a boundary; the text
 * from `from`, a boundary, on is looked at. */
size_t sl_chunk_cluster_start(struct chunk_breaks *breaks, struct sl_span text, size_t from,
                              size_t at);
size_t sl_chunk_cluster_end(struct chunk_breaks *breaks, struct sl_span text, size_t from,
                            size_t at);
bool sl_chunk_joins(uint32_t cp);    /* To the character before it. */
bool sl_chunk_unspaced(uint32_t cp); /* Of a script that puts no spaces between words. */

/* --- measuring --- */

struct chunk_meter {
    struct sl_span text;
    struct sl_chunk_options options;
    struct chunk_breaks *breaks;
    size_t piece_at, piece_index; /* Of the piece that holds the chunk's start. */
};

/* A chunk that starts somewhere: its last third, and whether the text ends in it. */
struct chunk_window {
    size_t earliest, limit;
    bool ends;
};

void sl_chunk_meter_move(struct chunk_meter *meter, size_t start); /* Forward only. */
struct chunk_window sl_chunk_measure(const struct chunk_meter *meter, size_t start);
/* `overlap` units before cut; start is where the meter was moved to. */
size_t sl_chunk_overlap(const struct chunk_meter *meter, size_t start, size_t cut);

/* --- Markdown --- */

struct chunk_block {
    uint32_t from, to; /* Whole lines. */
    uint8_t level;     /* 1 to 6: a heading; 0: fenced code. */
    bool underlined;   /* The heading. */
};

struct chunk_blocks {
    struct chunk_block *list; /* In order, apart. */
    size_t len, cap;
};

/* Headings outside of lists and quotations, and all fenced code. 0, -SL_ENOMEM, -SL_ETOOBIG;
 * ret is to be freed (free(ret->list)) in any case. */
int sl_chunk_markdown(struct sl_span text, struct chunk_blocks *ret) SL_CHECKED;
/* Appends the heading's text, white space as one space, until out has more than SL_HEADINGS_MAX. */
void sl_chunk_title(struct sl_span text, const struct chunk_block *heading, struct sl_buf *out);

#endif
