/* store_opensearch.c's half that writes: the hooks of struct sl_http_store_kind. */
#ifndef SLUICE_COMMON_STORE_OPENSEARCH_WRITE_H
#define SLUICE_COMMON_STORE_OPENSEARCH_WRITE_H

#include "common/store_http.h"

#define OPENSEARCH_UPSERT_PATH                                                                     \
    "/%s/_bulk?filter_path=errors,items.*.status,items.*.error,items.*._seq_no"
#define OPENSEARCH_DELETE_PATH "/%s/_delete_by_query?conflicts=proceed&refresh=true"

bool opensearch_is_missing(const struct sl_json *answer);
int opensearch_read_shape(const struct sl_json *answer, struct sl_http_shape *ret, char *why,
                          size_t why_size);
bool opensearch_make(const struct sl_http_shape *shape, const struct sl_store_env *env,
                     uint32_t dim, struct sl_http_step *step);
void opensearch_write_upsert(struct sl_buf *out, const struct sl_batch *batch);
int opensearch_read_upsert(const struct sl_json *answer, size_t len, char *why, size_t why_size);
void opensearch_write_delete(struct sl_json_writer *w, const struct sl_batch *document,
                             int64_t version, enum sl_http_deletion deletion);
int opensearch_read_delete(const struct sl_json *answer, char *why, size_t why_size);

#endif
