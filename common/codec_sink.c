/*
 * Messages out, as JSON or as MessagePack; the only file that includes msgpack-c, whose packer
 * calls back with the bytes of each piece. A buf that is full or out of memory keeps its error and
 * takes nothing more, so the packer is always told that its piece was taken and nothing here fails.
 *
 * Text is made whole on the way out: a reader in another language may refuse a whole message for
 * one byte that is not UTF-8, and our own decoder refuses a zero character.
 */
#include "common/codec_sink.h"

#include "common/chunk.h"

#include <assert.h>
#include <endian.h>
#include <math.h>
#include <msgpack.h>

static int on_piece(void *data, const char *piece, size_t len)
{
    sl_buf_append(data, piece, len);
    return 0;
}

static msgpack_packer packer_of(struct sl_sink *sink)
{
    return (msgpack_packer){sink->out, on_piece};
}

void sl_sink_init(struct sl_sink *sink, struct sl_buf *out, bool json)
{
    *sink = (struct sl_sink){.out = out, .json = json, .writer = {.out = out}};
}

void sl_sink_map(struct sl_sink *sink, size_t pairs)
{
    msgpack_packer packer = packer_of(sink);
    if (sink->json) {
        sl_json_begin_object(&sink->writer);
    } else {
        msgpack_pack_map(&packer, pairs);
    }
}

void sl_sink_map_end(struct sl_sink *sink)
{
    if (sink->json) {
        sl_json_end_object(&sink->writer);
    }
}

void sl_sink_list(struct sl_sink *sink, size_t values)
{
    msgpack_packer packer = packer_of(sink);
    if (sink->json) {
        sl_json_begin_array(&sink->writer);
    } else {
        msgpack_pack_array(&packer, values);
    }
}

void sl_sink_list_end(struct sl_sink *sink)
{
    if (sink->json) {
        sl_json_end_array(&sink->writer);
    }
}

void sl_sink_key(struct sl_sink *sink, const char *key)
{
    msgpack_packer packer = packer_of(sink);
    if (sink->json) {
        sl_json_key(&sink->writer, key);
    } else {
        msgpack_pack_str_with_body(&packer, key, strlen(key));
    }
}

void sl_sink_null(struct sl_sink *sink)
{
    msgpack_packer packer = packer_of(sink);
    if (sink->json) {
        sl_json_put_null(&sink->writer);
    } else {
        msgpack_pack_nil(&packer);
    }
}

void sl_sink_bool(struct sl_sink *sink, bool value)
{
    msgpack_packer packer = packer_of(sink);
    if (sink->json) {
        sl_json_put_bool(&sink->writer, value);
    } else if (value) {
        msgpack_pack_true(&packer);
    } else {
        msgpack_pack_false(&packer);
    }
}

void sl_sink_int(struct sl_sink *sink, int64_t value)
{
    msgpack_packer packer = packer_of(sink);
    if (sink->json) {
        sl_json_put_int(&sink->writer, value);
    } else {
        msgpack_pack_int64(&packer, value);
    }
}

/* What is not finite is null, in both. */
void sl_sink_number(struct sl_sink *sink, double value)
{
    msgpack_packer packer = packer_of(sink);
    if (sink->json) {
        sl_json_put_number(&sink->writer, value);
    } else if (isfinite(value)) {
        msgpack_pack_double(&packer, value);
    } else {
        msgpack_pack_nil(&packer);
    }
}

/* How much of the start of text is UTF-8 without a zero character. */
static size_t clean_run(struct sl_span text)
{
    const char *zero = text.len > 0 ? memchr(text.data, 0, text.len) : NULL;
    if (zero != NULL) {
        text.len = (size_t)(zero - text.data);
    }
    return sl_utf8_valid(text);
}

/* Writes text with U+FFFD for each byte that does not belong in it; returns the length of that.
 * packer NULL: only counts. */
static size_t replace(struct sl_span text, msgpack_packer *packer)
{
    static const char replacement[] = "\xef\xbf\xbd";
    size_t total = 0;
    while (text.len > 0) {
        size_t run = clean_run(text);
        size_t skipped = run < text.len ? 1 : 0;
        if (packer != NULL) {
            msgpack_pack_str_body(packer, text.data, run);
            msgpack_pack_str_body(packer, replacement, 3 * skipped);
        }
        total += run + 3 * skipped;
        text = (struct sl_span){text.data + run + skipped, text.len - run - skipped};
    }
    return total;
}

void sl_sink_text(struct sl_sink *sink, struct sl_span text)
{
    msgpack_packer packer = packer_of(sink);
    if (sink->json) {
        sl_json_put_string(&sink->writer, text);
    } else if (sl_text_valid(text)) {
        msgpack_pack_str_with_body(&packer, text.data, text.len);
    } else {
        msgpack_pack_str(&packer, replace(text, NULL));
        replace(text, &packer);
    }
}

void sl_sink_floats(struct sl_sink *sink, const float *values, size_t len)
{
    msgpack_packer packer = packer_of(sink);
    assert(!sink->json);
    msgpack_pack_bin(&packer, len * sizeof(float));
    char *to = sl_buf_reserve(sink->out, len * sizeof(float));
    if (to == NULL) {
        return;
    }
    for (size_t i = 0; i < len; i++) {
        uint32_t bits;
        memcpy(&bits, &values[i], sizeof(bits));
        bits = htole32(bits);
        memcpy(to + i * sizeof(bits), &bits, sizeof(bits));
    }
    sink->out->len += len * sizeof(float);
}

void sl_sink_text_at(struct sl_sink *sink, const char *key, struct sl_span text)
{
    sl_sink_key(sink, key);
    sl_sink_text(sink, text);
}

void sl_sink_int_at(struct sl_sink *sink, const char *key, int64_t value)
{
    sl_sink_key(sink, key);
    sl_sink_int(sink, value);
}

static bool is_text(const struct sl_value *value)
{
    return value->type == SL_VALUE_TEXT && sl_text_valid(value->text);
}

static void put_key(struct sl_sink *sink, struct sl_span key)
{
    if (sink->json) {
        sl_json_key_span(&sink->writer, key);
    } else {
        sl_sink_text(sink, key);
    }
}

/* Recursion ends: whatever made the value refused what is nested deeper than SL_VALUE_DEPTH. */
static int put_children(struct sl_sink *sink, const struct sl_value *container)
{
    struct sl_value_iter iter = {.container = container};
    struct sl_value key, value;
    while (sl_value_next(&iter, &key, &value)) {
        if (container->type == SL_VALUE_MAP) {
            if (!is_text(&key)) {
                return -SL_EINVAL;
            }
            put_key(sink, key.text);
        }
        int rv = sl_sink_value(sink, &value);
        if (rv != 0) {
            return rv;
        }
    }
    return 0;
}

static int put_container(struct sl_sink *sink, const struct sl_value *value)
{
    bool map = value->type == SL_VALUE_MAP;
    if (map) {
        sl_sink_map(sink, value->len);
    } else {
        sl_sink_list(sink, value->len);
    }
    int rv = put_children(sink, value);
    if (map) {
        sl_sink_map_end(sink);
    } else {
        sl_sink_list_end(sink);
    }
    return rv;
}

int sl_sink_value(struct sl_sink *sink, const struct sl_value *value)
{
    switch (value->type) {
    case SL_VALUE_NULL:
        sl_sink_null(sink);
        return 0;
    case SL_VALUE_BOOL:
        sl_sink_bool(sink, value->boolean);
        return 0;
    case SL_VALUE_INT:
        sl_sink_int(sink, value->integer);
        return 0;
    case SL_VALUE_NUMBER:
        sl_sink_number(sink, value->number);
        return 0;
    case SL_VALUE_TEXT:
        if (!is_text(value)) {
            return -SL_EINVAL;
        }
        sl_sink_text(sink, value->text);
        return 0;
    case SL_VALUE_LIST:
    case SL_VALUE_MAP:
        return put_container(sink, value);
    default:
        return -SL_EINVAL;
    }
}

void sl_sink_object(struct sl_sink *sink, struct sl_span json)
{
    struct sl_json_doc *doc = NULL;
    struct sl_value value = {.type = SL_VALUE_NULL};
    if (json.len > 0 && sl_json_parse(json, &doc, NULL, 0) == 0) {
        sl_value_of_json(sl_json_root(doc), &value);
    }
    if (value.type == SL_VALUE_MAP && sl_value_depth(&value) <= SL_METADATA_DEPTH) {
        int rv = sl_sink_value(sink, &value);
        assert(rv == 0); /* What came from JSON can be written. */
    } else {
        sl_sink_map(sink, 0);
        sl_sink_map_end(sink);
    }
    sl_json_free(doc);
}
