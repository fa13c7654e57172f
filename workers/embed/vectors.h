/* The embeddings API: writing a request for several texts, and reading the vectors of its response.
 */
#ifndef SLUICE_WORKERS_EMBED_VECTORS_H
#define SLUICE_WORKERS_EMBED_VECTORS_H

#include "common/arena.h"

/* Appends `{"model":..., "input":[...], "encoding_format":"base64"}`. Errors are in out. */
void vectors_write_request(const char *model, const struct sl_span *texts, size_t count,
                           struct sl_buf *out);

/* Reads count vectors of one dimension into *ret_vectors, malloc'ed, count * *ret_dim floats in the
 * order of the request. Numbers may come as lists or as base64 of little-endian float32. 0,
 * -SL_ENOMEM, or -SL_EPROTO with one line in why. */
int vectors_read_response(struct sl_span body, size_t count, float **ret_vectors, size_t *ret_dim,
                          char *why, size_t why_size) SL_CHECKED;

#endif
