/*
 * Parts that several messages have: hits, stage times, vectors. Internal to the codec.
 */
#ifndef SLUICE_COMMON_CODEC_PARTS_H
#define SLUICE_COMMON_CODEC_PARTS_H

#include "common/codec_decoder.h"
#include "common/codec_sink.h"

enum { SL_HITS_MAX = 200, SL_VECTOR_MAX = 8192, SL_METADATA_MAX = 65536 };

/* Field readers whose target is a struct sl_query. */
sl_field_read sl_read_hits; /* "hits", "source_chunks" */
sl_field_read
    sl_read_stages_list;          /* "stages" between stages: [[queue, wait, work, attempts], ..] */
sl_field_read sl_read_stages_map; /* "stages" of a result: {"embed": {...}} */

/* Little-endian float32 in bytes, count of them checked to be there: aligned and in this machine's
 * order, in the arena. NULL: out of memory, the decoder's error is set. */
const float *sl_decoder_floats(struct sl_decoder *decoder, struct sl_span bytes);

/* One text as the field says, by itself: an element of a list. */
struct sl_span sl_read_element(struct sl_decoder *decoder, const char *name, long long i,
                               long long max, const struct sl_value *value);
/* value is a LIST of at most max, else refused. */
bool sl_check_list(struct sl_decoder *decoder, const char *name, const struct sl_value *value,
                   size_t max, const char *of_what);

bool sl_stage_reached(const struct sl_stage_time *time);
extern const char *const sl_stage_names[SL_STAGE_COUNT + 1];

#endif
