/*
 * Cuts a text into overlapping chunks: size and overlap in characters (code points), never inside a
 * UTF-8 sequence, at a paragraph end, else a sentence end, else a space, when one lies in the last
 * third of the chunk. Deterministic.
 */
#ifndef SLUICE_COMMON_CHUNK_H
#define SLUICE_COMMON_CHUNK_H

#include "common/buf.h"

#include <stdbool.h>

struct sl_chunker {
    struct sl_span text;
    size_t at;      /* Byte where the next chunk starts. */
    size_t size;    /* Characters; 500. */
    size_t overlap; /* Characters, less than half of size; 50. */
};

/* 0, -SL_EINVAL when text is not UTF-8 (*ret_bad is the byte) or sizes are wrong. Borrows text. */
int sl_chunker_init(struct sl_chunker *chunker, struct sl_span text, size_t size, size_t overlap,
                    size_t *ret_bad) SL_CHECKED;
/* The next chunk, borrowed, without white space at either end; false after the last. A text of
 * white space alone has none. */
bool sl_chunker_next(struct sl_chunker *chunker, struct sl_span *ret);

/* The length in bytes of the valid UTF-8 at the start of text. */
size_t sl_utf8_valid(struct sl_span text);
/* The length of the character at the start of text, or 0: there is none. */
size_t sl_utf8_sequence(struct sl_span text);

#endif
