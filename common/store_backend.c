/*
 * What the backends of stores share. Copies of a call's arguments go into the arena of the call;
 * what does not fit into it counts as out of memory: a batch is bounded by what a record of Kafka
 * carries, far below.
 */
#include "common/store_backend.h"

#include <float.h>
#include <math.h>
#include <stdio.h>

int sl_store_check_dim(const struct sl_store *store, long long dim, char *why, size_t why_size)
{
    if (dim == 0 || store->dim == 0 || dim == (long long)store->dim) {
        return 0;
    }
    snprintf(why, why_size,
             "the store holds vectors of %u numbers, this one has %lld: it comes from another "
             "embedding model",
             store->dim, dim);
    return -SL_EINVAL;
}

bool sl_store_has_direction(const float *vector, size_t dim)
{
    float sum = 0;
    for (size_t i = 0; i < dim; i++) {
        sum += vector[i] * vector[i];
    }
    return isfinite(sum) && sum >= FLT_MIN;
}

static bool copy_span(struct sl_arena *arena, struct sl_span *span)
{
    *span = sl_arena_copy(arena, *span);
    return span->data != NULL;
}

/* *spans: len of them, replaced by the copy. */
static bool copy_spans(struct sl_arena *arena, const struct sl_span **spans, size_t len)
{
    struct sl_span *copy = sl_arena_alloc(arena, (len + 1) * sizeof(*copy));
    bool whole = copy != NULL;
    for (size_t i = 0; whole && i < len; i++) {
        copy[i] = (*spans)[i];
        whole = copy_span(arena, &copy[i]);
    }
    *spans = copy;
    return whole;
}

/* *items: len of them of size bytes, or NULL; replaced by the copy. */
static bool copy_array(struct sl_arena *arena, const void **items, size_t len, size_t size)
{
    if (*items == NULL) {
        return true;
    }
    void *copy = len < arena->max / size ? sl_arena_alloc(arena, len * size + 1) : NULL;
    if (copy != NULL && len > 0) {
        memcpy(copy, *items, len * size);
    }
    *items = copy;
    return copy != NULL;
}

static bool copy_floats(struct sl_arena *arena, const float **floats, size_t len)
{
    const void *items = *floats;
    bool whole = copy_array(arena, &items, len, sizeof(**floats));
    *floats = items;
    return whole;
}

static bool copy_filter(struct sl_arena *arena, struct sl_store_scope *scope)
{
    const void *items = scope->filter;
    bool whole = copy_array(arena, &items, scope->filter_len, sizeof(*scope->filter));
    struct sl_pair *filter = (struct sl_pair *)items;
    for (size_t i = 0; whole && i < scope->filter_len; i++) {
        whole = copy_span(arena, &filter[i].key) && copy_span(arena, &filter[i].value);
    }
    scope->filter = filter;
    return whole;
}

int sl_store_copy_search(struct sl_arena *arena, struct sl_store_search *search)
{
    struct sl_store_scope *scope = &search->scope;
    bool whole = copy_filter(arena, scope) && copy_span(arena, &scope->tenant) &&
                 copy_span(arena, &scope->collection) && copy_span(arena, &search->text) &&
                 copy_floats(arena, &search->vector, search->dim);
    return whole ? 0 : -SL_ENOMEM;
}

int sl_store_copy_document(struct sl_arena *arena, const struct sl_batch *document,
                           struct sl_batch *ret)
{
    *ret = (struct sl_batch){
        .doc_id = document->doc_id, .tenant = document->tenant, .collection = document->collection};
    bool whole = copy_span(arena, &ret->doc_id) && copy_span(arena, &ret->tenant) &&
                 copy_span(arena, &ret->collection);
    return whole ? 0 : -SL_ENOMEM;
}

int sl_store_copy_batch(struct sl_arena *arena, struct sl_batch *batch)
{
    const struct sl_span *texts = batch->texts;
    const void *indexes = batch->indexes;
    bool whole = copy_spans(arena, &texts, batch->len) && copy_span(arena, &batch->doc_id) &&
                 copy_span(arena, &batch->tenant) && copy_span(arena, &batch->collection) &&
                 copy_span(arena, &batch->metadata) &&
                 copy_array(arena, &indexes, batch->len, sizeof(*batch->indexes)) &&
                 copy_floats(arena, &batch->vectors, batch->len * batch->dim) &&
                 (batch->metadatas == NULL || copy_spans(arena, &batch->metadatas, batch->len));
    batch->texts = (struct sl_span *)texts;
    batch->indexes = indexes;
    batch->headings = NULL;
    batch->ingest_id = batch->failure = (struct sl_span){NULL, 0};
    return whole ? 0 : -SL_ENOMEM;
}
