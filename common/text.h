/* Is it a text? For what comes from outside as bytes that should be one. Pure. */
#ifndef SLUICE_COMMON_TEXT_H
#define SLUICE_COMMON_TEXT_H

#include "common/buf.h"

/* Drops the byte order mark of UTF-8 that some editors put in front. 0, or -SL_EINVAL with one line
 * in why that goes on behind the text's name: "is not UTF-8 at byte 17: it looks like Latin-1 or
 * Windows-1252", "is empty" (also of white space alone), "holds a zero character at byte 3". */
int sl_text_check(struct sl_span *text, char *why, size_t why_size) SL_CHECKED;

#endif
