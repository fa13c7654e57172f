/* A question as a query of SQLite's FTS5: pure text to text. */
#ifndef SLUICE_COMMON_FTS_QUERY_H
#define SLUICE_COMMON_FTS_QUERY_H

#include "common/buf.h"

enum { SL_FTS_WORDS_MAX = 64 };

/* Appends `"word" OR "word"` with the first SL_FTS_WORDS_MAX different words of any bytes to out,
 * and returns their number; 0: nothing was appended, nothing can match. The result is always a
 * valid expression: no byte of the text acts as an operator. Words differ when their bytes do,
 * apart from ASCII case. */
size_t sl_fts_query(struct sl_span text, struct sl_buf *out);

#endif
