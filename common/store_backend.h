/* What the backends of stores share: checks of vectors, and copies of what a call was given, for
 * those whose calls outlive it. */
#ifndef SLUICE_COMMON_STORE_BACKEND_H
#define SLUICE_COMMON_STORE_BACKEND_H

#include "common/store.h"

/* -SL_EINVAL, and why says so, when the store is known to hold vectors of another length than dim;
 * dim 0: not known. */
int sl_store_check_dim(const struct sl_store *store, long long dim, char *why,
                       size_t why_size) SL_CHECKED;
/* Whether a cosine can be computed with it, in floats. */
bool sl_store_has_direction(const float *vector, size_t dim);

/* Each replaces what *search, *batch points to by a copy in the arena; -SL_ENOMEM: some of it is
 * not. The permit, the arena and the headings of a batch, which stores do not read, are not copied.
 */
int sl_store_copy_search(struct sl_arena *arena, struct sl_store_search *search) SL_CHECKED;
int sl_store_copy_batch(struct sl_arena *arena, struct sl_batch *batch) SL_CHECKED;
/* What names a document, of a batch; the rest of *ret is empty. */
int sl_store_copy_document(struct sl_arena *arena, const struct sl_batch *document,
                           struct sl_batch *ret) SL_CHECKED;

#endif
