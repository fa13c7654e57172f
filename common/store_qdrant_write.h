/* store_qdrant.c's half that writes: the hooks of struct sl_http_store_kind. */
#ifndef SLUICE_COMMON_STORE_QDRANT_WRITE_H
#define SLUICE_COMMON_STORE_QDRANT_WRITE_H

#include "common/store_http.h"

bool qdrant_is_missing(const struct sl_json *answer);
int qdrant_read_shape(const struct sl_json *answer, struct sl_http_shape *ret, char *why,
                      size_t why_size);
bool qdrant_make(const struct sl_http_shape *shape, const struct sl_store_env *env, uint32_t dim,
                 struct sl_http_step *step);
void qdrant_write_upsert(struct sl_buf *out, const struct sl_batch *batch);
int qdrant_read_upsert(const struct sl_json *answer, size_t len, char *why, size_t why_size);
void qdrant_write_delete(struct sl_json_writer *w, const struct sl_batch *document, int64_t version,
                         enum sl_http_deletion deletion);
int qdrant_read_delete(const struct sl_json *answer, char *why, size_t why_size);

#endif
