/* Where a text that is too long is cut in two. */
#ifndef SLUICE_WORKERS_EMBED_SPLIT_H
#define SLUICE_WORKERS_EMBED_SPLIT_H

#include "common/buf.h"

/* The byte at which the second part begins: behind the sentence's end, else the space, nearest to
 * the middle, within the middle half; else in the middle, between two characters. The same for the
 * same text. 0: it has fewer than min characters. */
size_t split_at(struct sl_span text, size_t min);
/* The length of the first part without the white space at its end. */
size_t split_trim(struct sl_span text, size_t at);

#endif
