/*
 * OpenAI's /v1/embeddings. base64 is asked for, since it is a third of the bytes and needs no
 * parsing of decimals; servers that ignore the wish answer with lists, which are read as well. Each
 * element names its index: the order of the response is not relied on.
 */
#include "workers/embed/vectors.h"

#include "common/json.h"

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

enum { DIM_MAX = 8192, NO_DIGIT = 0x80 };

void vectors_write_request(const char *model, const struct sl_span *texts, size_t count,
                           struct sl_buf *out)
{
    struct sl_json_writer w = {.out = out};
    sl_json_begin_object(&w);
    if (model[0] != '\0') {
        sl_json_key(&w, "model");
        sl_json_put_string(&w, sl_span_of(model));
    }
    sl_json_key(&w, "input");
    sl_json_begin_array(&w);
    for (size_t i = 0; i < count; i++) {
        sl_json_put_string(&w, texts[i]);
    }
    sl_json_end_array(&w);
    sl_json_key(&w, "encoding_format");
    sl_json_put_string(&w, SL_SPAN("base64"));
    sl_json_end_object(&w);
}

/* --- one vector --- */

/* What each character stands for; NO_DIGIT: none. */
/* clang-format off */
static const unsigned char base64_digits[256] = {
    0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80,
    0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80,
    0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x3e, 0x80, 0x80, 0x80, 0x3f,
    0x34, 0x35, 0x36, 0x37, 0x38, 0x39, 0x3a, 0x3b, 0x3c, 0x3d, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80,
    0x80, 0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x09, 0x0a, 0x0b, 0x0c, 0x0d, 0x0e,
    0x0f, 0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18, 0x19, 0x80, 0x80, 0x80, 0x80, 0x80,
    0x80, 0x1a, 0x1b, 0x1c, 0x1d, 0x1e, 0x1f, 0x20, 0x21, 0x22, 0x23, 0x24, 0x25, 0x26, 0x27, 0x28,
    0x29, 0x2a, 0x2b, 0x2c, 0x2d, 0x2e, 0x2f, 0x30, 0x31, 0x32, 0x33, 0x80, 0x80, 0x80, 0x80, 0x80,
    0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80,
    0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80,
    0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80,
    0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80,
    0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80,
    0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80,
    0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80,
    0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80,
};
/* clang-format on */

/* How many bytes were decoded into out (room for max), or -1. */
static long base64_decode(struct sl_span text, unsigned char *out, size_t max)
{
    const unsigned char *digits = base64_digits, *in = (const unsigned char *)text.data;
    unsigned seen = 0; /* All digits, for the bit that none has. */
    while (text.len > 0 && text.data[text.len - 1] == '=') {
        text.len--;
    }
    size_t len = text.len / 4 * 3, rest = text.len % 4, at = 0;
    if (len + rest * 3 / 4 > max) {
        return -1;
    }
    for (size_t i = 0; i + 4 <= text.len; i += 4) {
        unsigned a = digits[in[i]], b = digits[in[i + 1]], c = digits[in[i + 2]],
                 d = digits[in[i + 3]];
        seen |= a | b | c | d;
        out[at++] = (unsigned char)(a << 2 | b >> 4);
        out[at++] = (unsigned char)(b << 4 | c >> 2);
        out[at++] = (unsigned char)(c << 6 | d);
    }
    uint32_t bits = 0;
    for (size_t i = text.len - rest; i < text.len; i++) {
        seen |= digits[in[i]];
        bits = bits << 6 | digits[in[i]];
    }
    for (size_t have = 6 * rest; have >= 8; have -= 8) {
        out[at++] = (unsigned char)(bits >> (have - 8));
    }
    return (seen & NO_DIGIT) != 0 ? -1 : (long)at;
}

static size_t dim_of(const struct sl_json *embedding)
{
    if (embedding == NULL) {
        return 0;
    }
    if (sl_json_type(embedding) == SL_JSON_ARRAY) {
        return sl_json_len(embedding);
    }
    if (sl_json_type(embedding) != SL_JSON_STRING) {
        return 0;
    }
    struct sl_span text = sl_json_string(embedding);
    while (text.len > 0 && text.data[text.len - 1] == '=') {
        text.len--;
    }
    return text.len * 3 / 4 % 4 == 0 ? text.len * 3 / 4 / 4 : 0;
}

static bool read_list(const struct sl_json *list, float *out)
{
    const struct sl_json *number;
    size_t at = 0, i = 0;
    while (sl_json_each(list, &at, NULL, &number)) {
        enum sl_json_type type = sl_json_type(number);
        if (type != SL_JSON_NUMBER && type != SL_JSON_INT) {
            return false;
        }
        out[i++] = (float)sl_json_number(number);
    }
    return true;
}

static bool read_base64(struct sl_span text, size_t dim, float *out)
{
    unsigned char *bytes = (unsigned char *)out;
    if (base64_decode(text, bytes, dim * 4) != (long)(dim * 4)) {
        return false;
    }
    for (size_t i = 0; i < dim; i++) { /* Little-endian on the wire, whatever this machine is. */
        uint32_t word = (uint32_t)bytes[i * 4] | (uint32_t)bytes[i * 4 + 1] << 8 |
                        (uint32_t)bytes[i * 4 + 2] << 16 | (uint32_t)bytes[i * 4 + 3] << 24;
        memcpy(&out[i], &word, 4);
    }
    return true;
}

static bool read_vector(const struct sl_json *embedding, size_t dim, float *out)
{
    bool ok = sl_json_type(embedding) == SL_JSON_ARRAY
                  ? read_list(embedding, out)
                  : read_base64(sl_json_string(embedding), dim, out);
    for (size_t i = 0; i < dim && ok; i++) {
        ok = isfinite(out[i]) != 0;
    }
    return ok;
}

/* --- the response --- */

static int fault(char *why, size_t why_size, const char *text)
{
    snprintf(why, why_size, "the embeddings response %s", text);
    return -SL_EPROTO;
}

static int read_data(const struct sl_json *data, size_t count, float **ret, size_t *ret_dim,
                     char *why, size_t why_size)
{
    const struct sl_json *item;
    size_t at = 0, dim = 0;
    float *vectors = NULL;
    bool *seen = calloc(count, sizeof(bool));
    int rv = seen == NULL ? -SL_ENOMEM : 0;
    while (rv == 0 && sl_json_each(data, &at, NULL, &item)) {
        const struct sl_json *index = sl_json_get(item, "index");
        const struct sl_json *embedding = sl_json_get(item, "embedding");
        int64_t i = index != NULL && sl_json_type(index) == SL_JSON_INT ? sl_json_int(index) : -1;
        if (vectors == NULL) {
            dim = dim_of(embedding) <= DIM_MAX ? dim_of(embedding) : 0;
            vectors = calloc(count * dim + 1, sizeof(float));
        }
        if (vectors == NULL) {
            rv = -SL_ENOMEM;
        } else if (dim == 0 || i < 0 || (uint64_t)i >= count || seen[i] ||
                   dim_of(embedding) != dim ||
                   !read_vector(embedding, dim, vectors + (size_t)i * dim)) {
            rv = fault(why, why_size, "has an element with a wrong index, dimension or number");
        } else {
            seen[i] = true;
        }
    }
    free(seen);
    if (rv != 0) {
        free(vectors);
        return rv;
    }
    *ret = vectors;
    *ret_dim = dim;
    return 0;
}

int vectors_read_response(struct sl_span body, size_t count, float **ret_vectors, size_t *ret_dim,
                          char *why, size_t why_size)
{
    struct sl_json_doc *doc;
    int rv = sl_json_parse(body, &doc, NULL, 0);
    snprintf(why, why_size, "%s", sl_error_text(-SL_ENOMEM)); /* Unless it is something else. */
    if (rv != 0) {
        return rv == -SL_EBADMSG ? fault(why, why_size, "is not JSON") : rv;
    }
    const struct sl_json *data = sl_json_get(sl_json_root(doc), "data");
    if (data == NULL || sl_json_type(data) != SL_JSON_ARRAY || sl_json_len(data) != count) {
        rv = fault(why, why_size, "has not one element for each text");
    } else {
        rv = read_data(data, count, ret_vectors, ret_dim, why, why_size);
    }
    sl_json_free(doc);
    return rv;
}
