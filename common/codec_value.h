/*
 * One way to look at a decoded message, whether it came as JSON or as MessagePack, so that what is
 * checked and read of a message is written once. Values are views: of MessagePack bytes that were
 * checked as a whole first, or of a parsed JSON document. Internal to the codec.
 */
#ifndef SLUICE_COMMON_CODEC_VALUE_H
#define SLUICE_COMMON_CODEC_VALUE_H

#include "common/buf.h"
#include "common/json.h"

enum {
    SL_VALUE_DEPTH = 32,   /* Containers inside one another, at most. */
    SL_METADATA_DEPTH = 24 /* Of metadata, so that there is room for what carries it. */
};

enum sl_value_type {
    SL_VALUE_NULL,
    SL_VALUE_BOOL,
    SL_VALUE_INT,    /* Fits in 64 bits, signed. */
    SL_VALUE_NUMBER, /* Any other number. */
    SL_VALUE_TEXT,   /* Of MessagePack: not checked to be UTF-8. */
    SL_VALUE_BYTES,  /* MessagePack only. */
    SL_VALUE_LIST,
    SL_VALUE_MAP,
    SL_VALUE_EXTENSION /* MessagePack only. */
};

struct sl_value {
    enum sl_value_type type;
    bool boolean;
    int64_t integer;
    double number;              /* Of INT and NUMBER. */
    struct sl_span text;        /* Of TEXT and BYTES. */
    size_t len;                 /* Of LIST: values; of MAP: pairs. */
    const struct sl_json *json; /* NULL: MessagePack, with */
    struct sl_span raw;         /* all its bytes, and */
    size_t head;                /* how many of them come before the first child. */
};

/* Exactly one whole value, its lengths and depth checked: 0 or -SL_EBADMSG. Borrows bytes. */
int sl_value_of_msgpack(struct sl_span bytes, struct sl_value *ret) SL_CHECKED;
void sl_value_of_json(const struct sl_json *json, struct sl_value *ret);

struct sl_value_iter { /* Starts with only the container set: a LIST or a MAP. */
    const struct sl_value *container;
    size_t at;
    size_t done;
};
/* false at the end. key stays untouched for a LIST. */
bool sl_value_next(struct sl_value_iter *iter, struct sl_value *key, struct sl_value *value);

/* For a message to whoever sent it: `0`, `"a long te..."`, `a list`. Ended with a zero. */
void sl_value_describe(const struct sl_value *value, char *out, size_t size);

/* Containers inside one another: 0 for a scalar, 1 for a flat container. */
size_t sl_value_depth(const struct sl_value *value);

/* UTF-8 without a zero character. */
bool sl_text_valid(struct sl_span text);
bool sl_text_has_control(struct sl_span text); /* Of ASCII. */

#endif
