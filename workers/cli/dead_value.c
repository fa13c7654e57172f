/*
 * A record's value for people to read. What it claims to be is not asked: a dead letter may be dead
 * because it lies. JSON and MessagePack are tried, then text; the rest is shown as bytes. A lone
 * MessagePack scalar is not taken for MessagePack, since almost any byte is one.
 */
#include "common/codec_value.h"
#include "workers/cli/dead.h"

#include <ctype.h>
#include <inttypes.h>

enum { DUMP_MAX = 1024, DUMP_ROW = 16, BYTES_SHOWN = 16 };

static void put_value(struct sl_buf *out, const struct sl_value *value, int depth);

static void put_line(struct sl_buf *out, int depth)
{
    sl_buf_printf(out, "\n%*s", 2 * depth, "");
}

/* As a JSON string, where it is text. */
static void put_bytes(struct sl_buf *out, struct sl_span bytes)
{
    if (sl_text_valid(bytes)) {
        struct sl_json_writer w = {.out = out};
        sl_json_put_string(&w, bytes);
        return;
    }
    sl_buf_printf(out, "<%zu bytes:", bytes.len);
    for (size_t i = 0; i < bytes.len && i < BYTES_SHOWN; i++) {
        sl_buf_printf(out, " %02x", (unsigned)(unsigned char)bytes.data[i]);
    }
    sl_buf_append_text(out, bytes.len > BYTES_SHOWN ? " ...>" : ">");
}

static void put_container(struct sl_buf *out, const struct sl_value *value, int depth)
{
    bool map = value->type == SL_VALUE_MAP;
    struct sl_value_iter iter = {.container = value};
    struct sl_value key, child;
    size_t count = 0;
    sl_buf_append_text(out, map ? "{" : "[");
    while (sl_value_next(&iter, &key, &child)) {
        sl_buf_append_text(out, count++ > 0 ? "," : "");
        put_line(out, depth + 1);
        if (map) {
            put_value(out, &key, depth + 1);
            sl_buf_append_text(out, ": ");
        }
        put_value(out, &child, depth + 1);
    }
    if (count > 0) {
        put_line(out, depth);
    }
    sl_buf_append_text(out, map ? "}" : "]");
}

static void put_value(struct sl_buf *out, const struct sl_value *value, int depth)
{
    struct sl_json_writer w = {.out = out};
    switch (value->type) {
    case SL_VALUE_NULL:
        sl_json_put_null(&w);
        break;
    case SL_VALUE_BOOL:
        sl_json_put_bool(&w, value->boolean);
        break;
    case SL_VALUE_INT:
        sl_json_put_int(&w, value->integer);
        break;
    case SL_VALUE_NUMBER:
        sl_json_put_number(&w, value->number);
        break;
    case SL_VALUE_TEXT:
    case SL_VALUE_BYTES:
        put_bytes(out, value->text);
        break;
    case SL_VALUE_EXTENSION:
        sl_buf_append_text(out, "<an extension>");
        break;
    case SL_VALUE_LIST:
    case SL_VALUE_MAP:
        put_container(out, value, depth);
        break;
    }
}

static bool put_json(struct sl_span bytes, struct sl_buf *out)
{
    struct sl_json_doc *doc = NULL;
    struct sl_value value;
    if (sl_json_parse(bytes, &doc, NULL, 0) != 0) {
        return false;
    }
    sl_value_of_json(sl_json_root(doc), &value);
    put_value(out, &value, 0);
    sl_json_free(doc);
    return true;
}

static bool put_msgpack(struct sl_span bytes, struct sl_buf *out)
{
    struct sl_value value;
    if (sl_value_of_msgpack(bytes, &value) != 0 ||
        (value.type != SL_VALUE_MAP && value.type != SL_VALUE_LIST)) {
        return false;
    }
    put_value(out, &value, 0);
    return true;
}

static bool is_text(struct sl_span bytes)
{
    for (size_t i = 0; i < bytes.len; i++) {
        if (iscntrl((unsigned char)bytes.data[i]) && !isspace((unsigned char)bytes.data[i])) {
            return false;
        }
    }
    return sl_text_valid(bytes);
}

static void put_dump(struct sl_span bytes, struct sl_buf *out)
{
    size_t shown = bytes.len < DUMP_MAX ? bytes.len : DUMP_MAX;
    for (size_t row = 0; row < shown; row += DUMP_ROW) {
        sl_buf_printf(out, "%s%08zx ", row > 0 ? "\n" : "", row);
        for (size_t i = row; i < row + DUMP_ROW; i++) {
            if (i < shown) {
                sl_buf_printf(out, " %02x", (unsigned)(unsigned char)bytes.data[i]);
            } else {
                sl_buf_append_text(out, "   ");
            }
        }
        sl_buf_append_text(out, "  |");
        for (size_t i = row; i < row + DUMP_ROW && i < shown; i++) {
            unsigned char c = (unsigned char)bytes.data[i];
            sl_buf_append(out, c >= 0x20 && c < 0x7f ? &bytes.data[i] : ".", 1);
        }
        sl_buf_append_text(out, "|");
    }
    if (shown < bytes.len) {
        sl_buf_printf(out, "\n... %zu more bytes; --raw writes them all", bytes.len - shown);
    }
}

const char *dead_put_value(struct sl_span value, struct sl_buf *out)
{
    if (put_json(value, out)) {
        return "JSON";
    }
    if (put_msgpack(value, out)) {
        return "MessagePack";
    }
    if (is_text(value)) {
        sl_buf_append_span(out, value);
        return "text";
    }
    put_dump(value, out);
    return "binary";
}
