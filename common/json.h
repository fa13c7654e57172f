/*
 * JSON. Reading covers yyjson and refuses what it lets through: a zero character in a string,
 * nesting over 32, bytes after the value, duplicate keys in one object. Writing appends to a buf.
 */
#ifndef SLUICE_COMMON_JSON_H
#define SLUICE_COMMON_JSON_H

#include "common/buf.h"

#include <stdbool.h>
#include <stdint.h>

struct sl_json_doc;
struct sl_json; /* A value inside a doc; valid as long as the doc. */

enum sl_json_type {
    SL_JSON_NULL,
    SL_JSON_BOOL,
    SL_JSON_INT,
    SL_JSON_NUMBER,
    SL_JSON_STRING,
    SL_JSON_ARRAY,
    SL_JSON_OBJECT
};

/* Copies what it needs of text. 0, -SL_ENOMEM, or -SL_EBADMSG with one line in why (NULL: not
 * wanted) that says what and at which byte. */
int sl_json_parse(struct sl_span text, struct sl_json_doc **ret, char *why,
                  size_t why_size) SL_CHECKED;
void sl_json_free(struct sl_json_doc *doc); /* Takes NULL. */
const struct sl_json *sl_json_root(const struct sl_json_doc *doc);

enum sl_json_type sl_json_type(const struct sl_json *value);
const char *sl_json_type_name(enum sl_json_type type); /* "string" */
bool sl_json_bool(const struct sl_json *value);        /* The type must fit, here and below. */
int64_t sl_json_int(const struct sl_json *value);      /* SL_JSON_INT: fits in 64 bits, signed. */
double sl_json_number(const struct sl_json *value);    /* SL_JSON_INT or SL_JSON_NUMBER. */
struct sl_span sl_json_string(const struct sl_json *value); /* UTF-8, borrowed from the doc. */
size_t sl_json_len(const struct sl_json *value);            /* Of an array or object. */
/* NULL when object is NULL, not an object, or has no such key: look-ups chain. */
const struct sl_json *sl_json_get(const struct sl_json *object, const char *key);
/* Iterates an array or object: start with *at = 0; false at the end. key may be NULL for arrays. */
bool sl_json_each(const struct sl_json *container, size_t *at, struct sl_span *key,
                  const struct sl_json **value);
/* The value as compact JSON text. */
void sl_json_dump(const struct sl_json *value, struct sl_buf *out);

/* Writing. The writer puts the commas; errors stay in the buf. Bytes that are not UTF-8 become
 * U+FFFD. */
struct sl_json_writer {
    struct sl_buf *out;
    bool comma;
};
void sl_json_begin_object(struct sl_json_writer *w);
void sl_json_end_object(struct sl_json_writer *w);
void sl_json_begin_array(struct sl_json_writer *w);
void sl_json_end_array(struct sl_json_writer *w);
void sl_json_key(struct sl_json_writer *w, const char *key); /* Of our own: nothing to escape. */
void sl_json_key_span(struct sl_json_writer *w, struct sl_span key);
void sl_json_put_string(struct sl_json_writer *w, struct sl_span value);
void sl_json_put_int(struct sl_json_writer *w, int64_t value);
void sl_json_put_number(struct sl_json_writer *w,
                        double value); /* Shortest exact; not finite: null. */
void sl_json_put_float(struct sl_json_writer *w, float value); /* Nine digits; the same else. */
void sl_json_put_bool(struct sl_json_writer *w, bool value);
void sl_json_put_null(struct sl_json_writer *w);
void sl_json_put_raw(struct sl_json_writer *w, struct sl_span json); /* Is JSON already. */

#endif
