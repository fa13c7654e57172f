/*
 * Deltas, which are nearly all events: read and written without the tables and values that serve
 * every message. Internal to the codec.
 */
#ifndef SLUICE_COMMON_CODEC_DELTA_H
#define SLUICE_COMMON_CODEC_DELTA_H

#include "common/message.h"

/* A delta whose members stand as sl_delta_write puts them; false: anything else, which may be a
 * delta all the same. Borrows bytes. */
bool sl_delta_read(struct sl_span bytes, struct sl_event *ret) SL_CHECKED;
/* MessagePack. false, with nothing written: its text or id is not what a reader takes as it is. */
bool sl_delta_write(const struct sl_event *event, struct sl_buf *out) SL_CHECKED;
/* What sl_event_json writes of a delta. */
void sl_delta_json(const struct sl_event *event, struct sl_buf *out);

#endif
