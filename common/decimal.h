/*
 * Numbers as decimal text where many are written: vectors have hundreds, and printf takes its
 * digits one by one from numbers of any length.
 */
#ifndef SLUICE_COMMON_DECIMAL_H
#define SLUICE_COMMON_DECIMAL_H

#include <stddef.h>

enum { SL_FLOAT_TEXT_MAX = 16 };

/* A finite number as printf's %.9g has it, but for the last of nine digits where two are about
 * equally near: the text reads back as the same float. Returns its length; not ended with a zero.
 */
size_t sl_float_text(float value, char ret[SL_FLOAT_TEXT_MAX]);

#endif
