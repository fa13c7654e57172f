/*
 * Values of JSON and of MessagePack behind one view.
 *
 * MessagePack comes from outside, and a length in it is a claim: five bytes can announce an array
 * of four thousand million values. So a message is measured before anything is read from it:
 * measure() walks it once with a counter for each open container, allocates nothing, and refuses a
 * length that the bytes left cannot hold, a nesting over SL_VALUE_DEPTH and the one tag that has no
 * meaning. What it has accepted can then be walked without further checks, value by value, where it
 * lies: a container's children begin behind its head, and each is measured again to find the next.
 * That is linear for each level, and levels are few; measuring reads nothing but heads.
 *
 * A tag's meaning and the width of the number behind it come from one table (the MessagePack
 * specification, "Formats"). An unsigned number that does not fit in 64 signed bits is a NUMBER, as
 * it is in JSON.
 */
#include "common/codec_value.h"

#include "common/chunk.h"
#include "common/codec.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>

enum kind { BAD, NIL, NO, YES, BIN, EXT, F32, F64, UINT, INT, FIXEXT, STR, ARRAY, MAP };

/* Tags 0xc0 to 0xdf. */
static const struct tag {
    unsigned char kind;
    unsigned char width; /* Bytes of the number that follows; FIXEXT: of the payload. */
} tags[32] = {
    {NIL, 0},     {BAD, 0}, {NO, 0},  {YES, 0}, {BIN, 1},    {BIN, 2},    {BIN, 4},    {EXT, 1},
    {EXT, 2},     {EXT, 4}, {F32, 4}, {F64, 8}, {UINT, 1},   {UINT, 2},   {UINT, 4},   {UINT, 8},
    {INT, 1},     {INT, 2}, {INT, 4}, {INT, 8}, {FIXEXT, 1}, {FIXEXT, 2}, {FIXEXT, 4}, {FIXEXT, 8},
    {FIXEXT, 16}, {STR, 1}, {STR, 2}, {STR, 4}, {ARRAY, 2},  {ARRAY, 4},  {MAP, 2},    {MAP, 4},
};

static bool is_container(const struct sl_value *value)
{
    return value->type == SL_VALUE_LIST || value->type == SL_VALUE_MAP;
}

static bool set_int(struct sl_value *value, int64_t integer)
{
    value->type = SL_VALUE_INT;
    value->integer = integer;
    value->number = (double)integer;
    return true;
}

static bool set_number(struct sl_value *value, double number)
{
    value->type = SL_VALUE_NUMBER;
    value->number = number;
    return true;
}

/* len bytes behind the head that ends at value->head. */
static bool set_bytes(struct sl_value *value, enum sl_value_type type, struct sl_span in,
                      uint64_t len)
{
    if (len > in.len - value->head) {
        return false;
    }
    value->type = type;
    value->text = (struct sl_span){in.data + value->head, (size_t)len};
    value->head += (size_t)len;
    return true;
}

/* Each child takes a byte at least. */
static bool set_container(struct sl_value *value, enum sl_value_type type, struct sl_span in,
                          uint64_t len)
{
    value->type = type;
    value->len = (size_t)len;
    return len <= (in.len - value->head) / (type == SL_VALUE_MAP ? 2 : 1);
}

static bool set_signed(struct sl_value *value, uint64_t bits, size_t width)
{
    unsigned shift = 64 - 8 * (unsigned)width;
    return set_int(value, (int64_t)(bits << shift) >> shift);
}

static bool set_float(struct sl_value *value, uint64_t bits, size_t width)
{
    double number;
    if (width == 4) {
        float single;
        uint32_t low = (uint32_t)bits;
        memcpy(&single, &low, sizeof(single));
        number = (double)single;
    } else {
        memcpy(&number, &bits, sizeof(number));
    }
    return set_number(value, number);
}

/* The head at p, of which left bytes are there. */
struct head {
    enum kind kind; /* BAD also where bytes are missing. */
    size_t len;
    uint64_t n; /* The number behind the tag, or in it; of FIXEXT: the payload's length. */
};

static inline struct head head_at(const unsigned char *p, size_t left)
{
    unsigned char c = p[0];
    if (c <= 0x7f || c >= 0xe0) {
        return (struct head){INT, 1, (uint64_t)(int64_t)(signed char)c};
    }
    if (c < 0xc0) {
        return c >= 0xa0   ? (struct head){STR, 1, c & 0x1f}
               : c >= 0x90 ? (struct head){ARRAY, 1, c & 0x0f}
                           : (struct head){MAP, 1, c & 0x0f};
    }
    const struct tag tag = tags[c - 0xc0];
    if (tag.kind == FIXEXT) {
        return (struct head){FIXEXT, 1, tag.width};
    }
    struct head head = {tag.kind, 1u + tag.width, 0};
    if (left < head.len) {
        return (struct head){BAD, 1, 0};
    }
    for (size_t i = 1; i < head.len; i++) {
        head.n = head.n << 8 | p[i];
    }
    return head;
}

/* The bytes behind a head that belong to it, but for a container's children. */
static inline uint64_t payload_of(const struct head *head)
{
    switch (head->kind) {
    case STR:
    case BIN:
        return head->n;
    case EXT: /* A byte for its type comes before the payload. */
    case FIXEXT:
        return head->n + 1;
    default:
        return 0;
    }
}

/* The value at the start of in: a scalar whole, a container's head. value->head: bytes read. */
static inline bool read_head(struct sl_span in, struct sl_value *value)
{
    if (in.len == 0) {
        return false;
    }
    const struct head head = head_at((const unsigned char *)in.data, in.len);
    *value = (struct sl_value){.head = head.len};
    switch (head.kind) {
    case NIL:
        return true;
    case NO:
    case YES:
        value->type = SL_VALUE_BOOL;
        value->boolean = head.kind == YES;
        return true;
    case BIN:
        return set_bytes(value, SL_VALUE_BYTES, in, payload_of(&head));
    case EXT:
    case FIXEXT:
        return set_bytes(value, SL_VALUE_EXTENSION, in, payload_of(&head));
    case F32:
    case F64:
        return set_float(value, head.n, head.len - 1);
    case UINT:
        return head.n <= INT64_MAX ? set_int(value, (int64_t)head.n)
                                   : set_number(value, (double)head.n);
    case INT:
        return head.len == 1 ? set_int(value, (int64_t)head.n)
                             : set_signed(value, head.n, head.len - 1);
    case STR:
        return set_bytes(value, SL_VALUE_TEXT, in, payload_of(&head));
    case ARRAY:
        return set_container(value, SL_VALUE_LIST, in, head.n);
    case MAP:
        return set_container(value, SL_VALUE_MAP, in, head.n);
    case BAD:
        break;
    }
    return false;
}

/* The length of the whole value at the start of in; 0: there is none. */
static size_t measure(struct sl_span in)
{
    size_t outer[SL_VALUE_DEPTH]; /* Values still to come in each open container but the last. */
    size_t depth = 0, at = 0;
    for (uint64_t to_come = 1;;) {
        while (to_come == 0) {
            if (depth == 0) {
                return at;
            }
            to_come = outer[--depth];
        }
        to_come--;
        if (at == in.len) {
            return 0;
        }
        const struct head head = head_at((const unsigned char *)in.data + at, in.len - at);
        at += head.len;
        uint64_t left = in.len - at, payload = payload_of(&head);
        if (head.kind == BAD || payload > left) {
            return 0;
        }
        at += (size_t)payload;
        if (head.kind == ARRAY || head.kind == MAP) { /* Each child takes a byte at least. */
            uint64_t children = head.kind == MAP ? 2 * head.n : head.n;
            if (depth == SL_VALUE_DEPTH || children > left) {
                return 0;
            }
            outer[depth++] = (size_t)to_come;
            to_come = children;
        }
    }
}

int sl_msgpack_check(struct sl_span bytes)
{
    return bytes.len > 0 && measure(bytes) == bytes.len ? 0 : -SL_EBADMSG;
}

/* The next value of bytes that were measured. */
static void take(struct sl_span in, struct sl_value *value)
{
    bool ok = read_head(in, value);
    assert(ok);
    value->raw = (struct sl_span){in.data, is_container(value) ? measure(in) : value->head};
}

int sl_value_of_msgpack(struct sl_span bytes, struct sl_value *ret)
{
    if (sl_msgpack_check(bytes) != 0) {
        return -SL_EBADMSG;
    }
    bool ok = read_head(bytes, ret);
    assert(ok);
    ret->raw = bytes;
    return 0;
}

void sl_value_of_json(const struct sl_json *json, struct sl_value *ret)
{
    *ret = (struct sl_value){.json = json};
    switch (sl_json_type(json)) {
    case SL_JSON_NULL:
        break;
    case SL_JSON_BOOL:
        ret->type = SL_VALUE_BOOL;
        ret->boolean = sl_json_bool(json);
        break;
    case SL_JSON_INT:
        set_int(ret, sl_json_int(json));
        break;
    case SL_JSON_NUMBER:
        set_number(ret, sl_json_number(json));
        break;
    case SL_JSON_STRING:
        ret->type = SL_VALUE_TEXT;
        ret->text = sl_json_string(json);
        break;
    case SL_JSON_ARRAY:
    case SL_JSON_OBJECT:
        ret->type = sl_json_type(json) == SL_JSON_ARRAY ? SL_VALUE_LIST : SL_VALUE_MAP;
        ret->len = sl_json_len(json);
        break;
    }
}

static bool next_json(struct sl_value_iter *iter, struct sl_value *key, struct sl_value *value)
{
    struct sl_span name = {0};
    const struct sl_json *json;
    if (!sl_json_each(iter->container->json, &iter->at, &name, &json)) {
        return false;
    }
    if (iter->container->type == SL_VALUE_MAP) {
        *key = (struct sl_value){.type = SL_VALUE_TEXT, .text = name};
    }
    sl_value_of_json(json, value);
    return true;
}

bool sl_value_next(struct sl_value_iter *iter, struct sl_value *key, struct sl_value *value)
{
    const struct sl_value *container = iter->container;
    assert(is_container(container));
    if (container->json != NULL) {
        return next_json(iter, key, value);
    }
    if (iter->done == container->len) {
        return false;
    }
    struct sl_span rest = {container->raw.data + container->head,
                           container->raw.len - container->head};
    if (container->type == SL_VALUE_MAP) {
        take((struct sl_span){rest.data + iter->at, rest.len - iter->at}, key);
        iter->at += key->raw.len;
    }
    take((struct sl_span){rest.data + iter->at, rest.len - iter->at}, value);
    iter->at += value->raw.len;
    iter->done++;
    return true;
}

/* Recursion ends: nothing is nested deeper than SL_VALUE_DEPTH. */
size_t sl_value_depth(const struct sl_value *value)
{
    struct sl_value_iter iter = {.container = value};
    struct sl_value key, child;
    size_t deepest = 0;
    if (!is_container(value)) {
        return 0;
    }
    while (sl_value_next(&iter, &key, &child)) {
        size_t depth = sl_value_depth(&child);
        deepest = depth > deepest ? depth : deepest;
    }
    return deepest + 1;
}

static void describe_text(struct sl_span text, char *out, size_t size)
{
    enum { SHOWN = 40 };
    size_t len = text.len;
    if (len > SHOWN) {
        for (len = SHOWN; len > 0 && ((unsigned char)text.data[len] & 0xc0) == 0x80; len--) {
        }
    }
    snprintf(out, size, "\"%.*s%s\"", (int)len, text.data, len < text.len ? "..." : "");
}

void sl_value_describe(const struct sl_value *value, char *out, size_t size)
{
    static const char *const names[] = {
        [SL_VALUE_NULL] = "null",
        [SL_VALUE_BYTES] = "bytes",
        [SL_VALUE_LIST] = "a list",
        [SL_VALUE_MAP] = "an object",
        [SL_VALUE_EXTENSION] = "an extension value",
    };
    switch (value->type) {
    case SL_VALUE_BOOL:
        snprintf(out, size, "%s", value->boolean ? "true" : "false");
        break;
    case SL_VALUE_INT:
        snprintf(out, size, "%" PRId64, value->integer);
        break;
    case SL_VALUE_NUMBER:
        snprintf(out, size, "%.15g", value->number);
        break;
    case SL_VALUE_TEXT:
        describe_text(value->text, out, size);
        break;
    default:
        snprintf(out, size, "%s", names[value->type]);
    }
}

bool sl_text_has_control(struct sl_span text)
{
    for (size_t i = 0; i < text.len; i++) {
        unsigned char c = (unsigned char)text.data[i];
        if (c < 0x20 || c == 0x7f) {
            return true;
        }
    }
    return false;
}

bool sl_text_valid(struct sl_span text)
{
    return text.len == 0 ||
           (memchr(text.data, 0, text.len) == NULL && sl_utf8_valid(text) == text.len);
}
