/*
 * One way to write a message, as JSON or as MessagePack. Containers are told how many members they
 * get, which MessagePack needs first; that the count is kept is the caller's to see to. Errors stay
 * in the buf. Internal to the codec.
 */
#ifndef SLUICE_COMMON_CODEC_SINK_H
#define SLUICE_COMMON_CODEC_SINK_H

#include "common/codec_value.h"

struct sl_sink {
    struct sl_buf *out;
    bool json;
    struct sl_json_writer writer; /* JSON. */
};

void sl_sink_init(struct sl_sink *sink, struct sl_buf *out, bool json); /* Appends to out. */
void sl_sink_map(struct sl_sink *sink, size_t pairs);
void sl_sink_map_end(struct sl_sink *sink);
void sl_sink_list(struct sl_sink *sink, size_t values);
void sl_sink_list_end(struct sl_sink *sink);
void sl_sink_key(struct sl_sink *sink, const char *key);
void sl_sink_null(struct sl_sink *sink);
void sl_sink_bool(struct sl_sink *sink, bool value);
void sl_sink_int(struct sl_sink *sink, int64_t value);
void sl_sink_number(struct sl_sink *sink, double value);
/* What is not UTF-8, and a zero character, becomes U+FFFD (JSON: the zero is escaped). */
void sl_sink_text(struct sl_sink *sink, struct sl_span text);
void sl_sink_floats(struct sl_sink *sink, const float *values, size_t len); /* MessagePack only. */

/* A key and its value. */
void sl_sink_text_at(struct sl_sink *sink, const char *key, struct sl_span text);
void sl_sink_int_at(struct sl_sink *sink, const char *key, int64_t value);

/* A whole value, of either kind. 0, or -SL_EINVAL with a part written: it holds something that JSON
 * has no word for (bytes, an extension, a key that is no text, text that is no UTF-8). */
int sl_sink_value(struct sl_sink *sink, const struct sl_value *value) SL_CHECKED;
/* A JSON object given as text, such as metadata; what is none, or is nested deeper than
 * SL_METADATA_DEPTH, counts as {}. */
void sl_sink_object(struct sl_sink *sink, struct sl_span json);

#endif
