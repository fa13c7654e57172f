/*
 * Reads maps into structs by tables of fields: a table says each field's name, place and range, and
 * is the one place where a message's rules stand, for JSON and MessagePack alike. What is wrong is
 * told for the sender, the first of it, and reading goes on, so that the rest is known. Internal to
 * the codec.
 */
#ifndef SLUICE_COMMON_CODEC_DECODER_H
#define SLUICE_COMMON_CODEC_DECODER_H

#include "common/codec.h"
#include "common/codec_value.h"

struct sl_decoder {
    struct sl_arena *arena;
    struct sl_fault *fault; /* Of the first that was wrong. */
    int err;                /* 0, -SL_EINVAL, or -SL_ENOMEM, which ends all reading. */
    bool borrow;            /* The input lies in the arena already: text need not be copied. */
    char path[64];          /* Of the container that is read: "history[2]."; "" at the top. */
    struct sl_buf *kept;    /* MessagePack pairs with unknown keys, at the top; NULL: not kept. */
    uint32_t kept_pairs;
};

struct sl_field;
/* Reads value, which is there, into the target's field or calls sl_decoder_refuse. */
typedef void sl_field_read(struct sl_decoder *decoder, const struct sl_field *field,
                           const struct sl_value *value, void *target);

struct sl_field {
    const char *name;
    sl_field_read *read;
    size_t offset;            /* In the target. */
    long long min, max;       /* Of a number; of a text's or list's length. */
    const char *const *names; /* sl_read_choice: by number, NULL at the end. */
    bool required;
};
enum { SL_FIELDS_MAX = 32 };

struct sl_fields {
    const struct sl_field *fields;
    size_t count; /* <= SL_FIELDS_MAX */
    bool strict;  /* Unknown keys are refused. */
};
#define SL_FIELDS_COUNT(table) (sizeof(table) / sizeof((table)[0]))

/* The message as one map: parses JSON, or checks MessagePack, copies it to the arena and reads its
 * version. 0; -SL_EBADMSG with the fault set; -SL_EVERSION; -SL_EINVAL: "v" is no whole number;
 * -SL_ENOMEM. *doc is what to free after reading, whatever came back; NULL: nothing. */
int sl_decoder_open(struct sl_decoder *decoder, struct sl_span bytes, bool json,
                    struct sl_json_doc **doc, struct sl_value *root) SL_CHECKED;
/* value must be a map; the key "v" in it, where there is one, was checked before. */
void sl_decoder_read(struct sl_decoder *decoder, const struct sl_fields *fields,
                     const struct sl_value *value, void *target);
/* "NAME <what>": name is put behind the path, what it must be comes from the format. */
void sl_decoder_refuse(struct sl_decoder *decoder, const char *name, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Goes into "name[i]." or (i < 0) "name."; returns what sl_decoder_leave needs. */
size_t sl_decoder_enter(struct sl_decoder *decoder, const char *name, long long i);
void sl_decoder_leave(struct sl_decoder *decoder, size_t left);
/* Zeroed memory, or NULL with the decoder's error set. */
void *sl_decoder_alloc(struct sl_decoder *decoder, size_t size);
/* The text as it stays: in the arena. */
struct sl_span sl_decoder_keep(struct sl_decoder *decoder, struct sl_span text);

sl_field_read sl_read_text;     /* struct sl_span: UTF-8, no zero character, min..max bytes. */
sl_field_read sl_read_name;     /* The same without control characters. */
sl_field_read sl_read_u32;      /* uint32_t */
sl_field_read sl_read_i64;      /* int64_t */
sl_field_read sl_read_number;   /* double */
sl_field_read sl_read_bool;     /* bool */
sl_field_read sl_read_choice;   /* An enum: one of the names. */
sl_field_read sl_read_metadata; /* struct sl_span: an object, kept as compact JSON text. */
sl_field_read sl_read_pass;     /* Nothing: read elsewhere. */

#endif
