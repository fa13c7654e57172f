/* A digest of 256 bits by which texts are told apart, also such as were made to be taken for
 * another: BLAKE2b (RFC 7693), which costs a few instructions a byte. */
#ifndef SLUICE_COMMON_DIGEST_H
#define SLUICE_COMMON_DIGEST_H

#include "common/buf.h"

enum { SL_DIGEST_SIZE = 32 };

/* Of one text alone it is its BLAKE2b-256. With several, the length of each stands before it, so
 * that ("ab", "c") and ("a", "bc") differ. */
void sl_digest(const struct sl_span *parts, size_t count, unsigned char ret[SL_DIGEST_SIZE]);

#endif
