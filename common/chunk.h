/*
 * Cuts a text into overlapping chunks of at most `size` units: at a paragraph end, else a sentence
 * end, a line end, a space, a word end, when one lies in the last third of the chunk. Never inside
 * a UTF-8 sequence, nor inside what a reader takes for one character. Knows Markdown's headings and
 * fenced code. The same text and options give the same chunks everywhere.
 */
#ifndef SLUICE_COMMON_CHUNK_H
#define SLUICE_COMMON_CHUNK_H

#include "common/buf.h"

#include <stdbool.h>
#include <stdint.h>

enum sl_chunk_unit {
    SL_CHUNK_CHARACTERS, /* Code points. */
    SL_CHUNK_WORDS,      /* What white space separates; in scripts without it, a dictionary's. */
    SL_CHUNK_TOKENS,     /* Of a model, estimated. */
    SL_CHUNK_COUNTED,    /* What `counts` says of each piece. */
};

struct sl_chunk_options {
    enum sl_chunk_unit unit;
    size_t size;    /* Units; at least 1. */
    size_t overlap; /* Units, less than half of size. */
    bool markdown;
    const uint8_t *counts; /* COUNTED: of each piece (sl_chunk_piece), borrowed. */
};

struct sl_chunk {
    struct sl_span text;     /* Without white space at either end; of the chunker's text. */
    struct sl_span headings; /* Markdown: those above it, "A > B", up to SL_HEADINGS_MAX bytes; the
                              * chunker's. Empty: none. */
};
enum { SL_HEADINGS_MAX = 256 };

/* Loads what there is to load of the Unicode library's data, so that nothing can go wrong with it
 * later but memory. 0 or -SL_EIO, -SL_ENOMEM. Any thread; not needed, but then the first chunker
 * does it. */
int sl_chunk_setup(void) SL_CHECKED;

struct sl_chunker;

/* Borrows text and options' counts. 0; -SL_EINVAL when text is not UTF-8 (*ret_bad is the byte) or
 * sizes are wrong; -SL_ETOOBIG: Markdown of more than a million headings and code blocks;
 * -SL_ENOMEM. Each chunker belongs to one thread. */
int sl_chunker_create(struct sl_span text, const struct sl_chunk_options *options,
                      struct sl_chunker **ret, size_t *ret_bad) SL_CHECKED;
/* The next chunk: 1; 0 after the last (a text of white space alone has none); -SL_ENOMEM, or
 * -SL_ETOOBIG when the headings of all chunks together take more than 64 MiB. */
int sl_chunker_next(struct sl_chunker *chunker, struct sl_chunk *ret) SL_CHECKED;
void sl_chunker_destroy(struct sl_chunker *chunker); /* Takes NULL. */

/* Where the piece ends that starts at byte `at` < text.len of valid text: the pieces that counts
 * are about follow one another from byte 0 to the end of the text, without white space at its end
 * (sl_chunk_end). A piece is up to 4 bytes of white space and up to 16 bytes of other characters.
 */
size_t sl_chunk_piece(struct sl_span text, size_t at);
size_t sl_chunk_end(struct sl_span text); /* Bytes without the white space at the end. */

/* The length in bytes of the valid UTF-8 at the start of text. */
size_t sl_utf8_valid(struct sl_span text);
/* The length of the character at the start of text, or 0: there is none. */
size_t sl_utf8_sequence(struct sl_span text);

#endif
