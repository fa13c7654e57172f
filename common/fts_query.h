/* The words of a question, and a query of SQLite's FTS5 made of them: pure text to text. */
#ifndef SLUICE_COMMON_FTS_QUERY_H
#define SLUICE_COMMON_FTS_QUERY_H

#include "common/buf.h"

enum { SL_FTS_WORDS_MAX = 64 };

/* The first SL_FTS_WORDS_MAX different words of any bytes: each a run of ASCII letters and digits,
 * of non-ASCII characters that are not punctuation, and of those of `also` (""; "_"); valid UTF-8,
 * borrowed from text. Words differ when their bytes do, apart from ASCII case. */
size_t sl_fts_words(struct sl_span text, const char *also, struct sl_span words[SL_FTS_WORDS_MAX]);

/* Appends `"word" OR "word"` with those words to out, and returns their number; 0: nothing was
 * appended, nothing can match. The result is always a valid expression: no byte of the text acts as
 * an operator. */
size_t sl_fts_query(struct sl_span text, struct sl_buf *out);

#endif
