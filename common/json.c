/*
 * JSON on yyjson, which is the only thing here that knows the library.
 *
 * Reading: yyjson parses without recursion into one flat array of values in document order, a
 * container's children right behind it. check_doc() walks that array once and refuses what yyjson
 * accepts but our callers must never see: nesting over MAX_DEPTH (later code may recurse), a zero
 * character in a string (C strings would be cut there), and an object with the same key twice
 * (which of the two counts would depend on the reader). yyjson itself refuses bad UTF-8, numbers
 * out of range and bytes after the value. The walk is linear but for objects of more than FEW_KEYS
 * keys, whose keys are sorted, so that no input takes quadratic time.
 *
 * Writing: text is appended straight to a buf; the buf keeps the error.
 */
#include "common/json.h"

#include "common/chunk.h"
#include "common/decimal.h"

#include <assert.h>
#include <endian.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <yyjson.h>

enum { MAX_DEPTH = 32, FEW_KEYS = 64 };

static const double MAX_EXACT = 9007199254740992; /* 2^53: whole numbers below are exact. */
/* Where printf's %g and yyjson write a number alike. */
static const double PLAIN_MIN = 1e-4, PLAIN_MAX = 1e15;

/* yyjson's readers take pointers without const, and change nothing. */
static yyjson_val *val_of(const struct sl_json *value)
{
    return (yyjson_val *)(uintptr_t)value;
}

static const struct sl_json *json_of(yyjson_val *val)
{
    return (const struct sl_json *)(void *)val;
}

static yyjson_doc *doc_of(const struct sl_json_doc *doc)
{
    return (yyjson_doc *)(uintptr_t)doc;
}

/* --- checks after parsing --- */

struct fault {
    int err;
    const char *what;
    yyjson_val *at; /* A string; NULL: look for the depth. */
};

static int compare_keys(const void *a, const void *b)
{
    yyjson_val *x = *(yyjson_val *const *)a, *y = *(yyjson_val *const *)b;
    size_t nx = unsafe_yyjson_get_len(x), ny = unsafe_yyjson_get_len(y);
    int order = memcmp(x->uni.str, y->uni.str, nx < ny ? nx : ny);
    if (order != 0) {
        return order;
    }
    return nx < ny ? -1 : nx > ny;
}

/* Finds two equal keys among count, of which the equal ones are neighbours. */
static yyjson_val *find_neighbours(yyjson_val **keys, size_t count)
{
    for (size_t i = 1; i < count; i++) {
        if (compare_keys(&keys[i - 1], &keys[i]) == 0) {
            return keys[i];
        }
    }
    return NULL;
}

static bool check_many_keys(yyjson_val *object, size_t count, struct fault *fault)
{
    yyjson_val **keys = malloc(count * sizeof(*keys));
    if (keys == NULL) {
        *fault = (struct fault){.err = -SL_ENOMEM};
        return false;
    }
    yyjson_val *key = object + 1;
    for (size_t i = 0; i < count; i++) {
        keys[i] = key;
        key = unsafe_yyjson_get_next(key + 1);
    }
    qsort(keys, count, sizeof(yyjson_val *), compare_keys);
    yyjson_val *twice = find_neighbours(keys, count);
    free(keys);
    if (twice != NULL) {
        *fault = (struct fault){-SL_EBADMSG, "the same key twice in one object", twice};
    }
    return twice == NULL;
}

static bool same_key(yyjson_val *a, yyjson_val *b)
{
    size_t len = unsafe_yyjson_get_len(a);
    return len == unsafe_yyjson_get_len(b) && a->uni.str[0] == b->uni.str[0] && /* Or its zero. */
           memcmp(a->uni.str, b->uni.str, len) == 0;
}

/* Whether a key before this one is the same; marks: of those before, by which most are told apart
 * without comparing them. */
static bool is_known(yyjson_val *object, yyjson_val *key, uint64_t *marks)
{
    size_t len = unsafe_yyjson_get_len(key);
    unsigned char first = (unsigned char)key->uni.str[0]; /* Or the zero behind an empty one. */
    unsigned char last = (unsigned char)key->uni.str[len > 0 ? len - 1 : 0];
    uint64_t mark = (uint64_t)1 << ((first + 7u * last + 31u * (unsigned)len) % 64);
    bool known = false;
    for (yyjson_val *other = object + 1; (*marks & mark) != 0 && other < key && !known;
         other = unsafe_yyjson_get_next(other + 1)) {
        known = same_key(key, other);
    }
    *marks |= mark;
    return known;
}

static bool check_few_keys(yyjson_val *object, size_t count, struct fault *fault)
{
    uint64_t marks = 0;
    yyjson_val *key = object + 1;
    for (size_t i = 0; i < count; i++, key = unsafe_yyjson_get_next(key + 1)) {
        if (is_known(object, key, &marks)) {
            *fault = (struct fault){-SL_EBADMSG, "the same key twice in one object", key};
            return false;
        }
    }
    return true;
}

static bool check_keys(yyjson_val *object, struct fault *fault)
{
    size_t count = unsafe_yyjson_get_len(object);
    return count > FEW_KEYS ? check_many_keys(object, count, fault)
                            : check_few_keys(object, count, fault);
}

/* escapes: the text has any, without which no string can hold a zero character. */
static bool check_doc(yyjson_doc *doc, bool escapes, struct fault *fault)
{
    const yyjson_val *ends[MAX_DEPTH]; /* Of the open containers: one past their last value. */
    size_t depth = 0;
    yyjson_val *val = yyjson_doc_get_root(doc);
    yyjson_val *end = val + yyjson_doc_get_val_count(doc);
    for (; val < end; val++) {
        while (depth > 0 && val >= ends[depth - 1]) {
            depth--;
        }
        if (escapes && yyjson_is_str(val) &&
            memchr(val->uni.str, 0, unsafe_yyjson_get_len(val)) != NULL) {
            *fault = (struct fault){-SL_EBADMSG, "a zero character in a string", val};
            return false;
        }
        if (!yyjson_is_ctn(val)) {
            continue;
        }
        if (depth == MAX_DEPTH) {
            *fault = (struct fault){-SL_EBADMSG, "nested deeper than 32", NULL};
            return false;
        }
        ends[depth++] = unsafe_yyjson_get_next(val);
        if (yyjson_is_obj(val) && !check_keys(val, fault)) {
            return false;
        }
    }
    return true;
}

/* The byte of the bracket that is one too deep, in a text that has parsed. */
static size_t find_depth(struct sl_span text)
{
    size_t depth = 0, at = 0;
    bool quoted = false;
    for (; at < text.len; at++) {
        char c = text.data[at];
        if (quoted && c == '\\') {
            at++;
        } else if (c == '"') {
            quoted = !quoted;
        } else if (!quoted && (c == '[' || c == '{') && ++depth > MAX_DEPTH) {
            break;
        } else if (!quoted && (c == ']' || c == '}')) {
            depth--;
        }
    }
    return at;
}

static void explain(char *why, size_t why_size, const char *what, size_t at)
{
    if (why != NULL && why_size > 0) {
        snprintf(why, why_size, "%s at byte %zu", what, at);
    }
}

int sl_json_parse(struct sl_span text, struct sl_json_doc **ret, char *why, size_t why_size)
{
    yyjson_read_err err = {0};
    if (text.len == 0) {
        explain(why, why_size, "no JSON value", 0);
        return -SL_EBADMSG;
    }
    yyjson_doc *doc =
        yyjson_read_opts((char *)(uintptr_t)text.data, text.len, YYJSON_READ_NOFLAG, NULL, &err);
    if (doc == NULL) {
        explain(why, why_size, err.msg, err.pos);
        return err.code == YYJSON_READ_ERROR_MEMORY_ALLOCATION ? -SL_ENOMEM : -SL_EBADMSG;
    }
    struct fault fault = {0};
    bool escapes = memchr(text.data, '\\', text.len) != NULL;
    if (!check_doc(doc, escapes, &fault)) {
        /* Strings lie where they were in yyjson's copy of the text. */
        if (fault.err == -SL_EBADMSG) {
            size_t at =
                fault.at != NULL ? (size_t)(fault.at->uni.str - doc->str_pool) : find_depth(text);
            explain(why, why_size, fault.what, at);
        }
        yyjson_doc_free(doc);
        return fault.err;
    }
    *ret = (struct sl_json_doc *)(void *)doc;
    return 0;
}

void sl_json_free(struct sl_json_doc *doc)
{
    yyjson_doc_free(doc_of(doc));
}

const struct sl_json *sl_json_root(const struct sl_json_doc *doc)
{
    return json_of(yyjson_doc_get_root(doc_of(doc)));
}

/* --- values --- */

enum sl_json_type sl_json_type(const struct sl_json *value)
{
    yyjson_val *val = val_of(value);
    switch (unsafe_yyjson_get_type(val)) {
    case YYJSON_TYPE_BOOL:
        return SL_JSON_BOOL;
    case YYJSON_TYPE_NUM:
        return unsafe_yyjson_is_sint(val) ||
                       (unsafe_yyjson_is_uint(val) && val->uni.u64 <= INT64_MAX)
                   ? SL_JSON_INT
                   : SL_JSON_NUMBER;
    case YYJSON_TYPE_STR:
        return SL_JSON_STRING;
    case YYJSON_TYPE_ARR:
        return SL_JSON_ARRAY;
    case YYJSON_TYPE_OBJ:
        return SL_JSON_OBJECT;
    default:
        return SL_JSON_NULL;
    }
}

const char *sl_json_type_name(enum sl_json_type type)
{
    static const char *const names[] = {"null",   "boolean", "integer", "number",
                                        "string", "array",   "object"};
    return names[type];
}

bool sl_json_bool(const struct sl_json *value)
{
    assert(sl_json_type(value) == SL_JSON_BOOL);
    return unsafe_yyjson_get_bool(val_of(value));
}

int64_t sl_json_int(const struct sl_json *value)
{
    assert(sl_json_type(value) == SL_JSON_INT);
    return val_of(value)->uni.i64;
}

double sl_json_number(const struct sl_json *value)
{
    assert(yyjson_is_num(val_of(value)));
    return yyjson_get_num(val_of(value));
}

struct sl_span sl_json_string(const struct sl_json *value)
{
    assert(sl_json_type(value) == SL_JSON_STRING);
    return (struct sl_span){val_of(value)->uni.str, unsafe_yyjson_get_len(val_of(value))};
}

size_t sl_json_len(const struct sl_json *value)
{
    assert(yyjson_is_ctn(val_of(value)));
    return unsafe_yyjson_get_len(val_of(value));
}

const struct sl_json *sl_json_get(const struct sl_json *object, const char *key)
{
    return json_of(yyjson_obj_get(val_of(object), key));
}

/* *at counts values from the container, which is value 0 of its own run in the flat array. */
bool sl_json_each(const struct sl_json *container, size_t *at, struct sl_span *key,
                  const struct sl_json **value)
{
    yyjson_val *ctn = val_of(container);
    assert(yyjson_is_ctn(ctn));
    yyjson_val *val = ctn + (*at == 0 ? 1 : *at);
    if (val >= unsafe_yyjson_get_next(ctn)) {
        return false;
    }
    if (yyjson_is_obj(ctn)) {
        if (key != NULL) {
            *key = sl_json_string(json_of(val));
        }
        val++;
    }
    *value = json_of(val);
    *at = (size_t)(unsafe_yyjson_get_next(val) - ctn);
    return true;
}

void sl_json_dump(const struct sl_json *value, struct sl_buf *out)
{
    size_t len;
    char *text = yyjson_val_write_opts(val_of(value), YYJSON_WRITE_NOFLAG, NULL, &len, NULL);
    if (text == NULL) { /* What was parsed can be written; only memory can be missing. */
        out->err = out->err != 0 ? out->err : -SL_ENOMEM;
        return;
    }
    sl_buf_append(out, text, len);
    free(text);
}

/* --- writing --- */

static void separate(struct sl_json_writer *w)
{
    if (w->comma) {
        sl_buf_append(w->out, ",", 1);
    }
    w->comma = true;
}

static void open_container(struct sl_json_writer *w, const char *bracket)
{
    separate(w);
    sl_buf_append(w->out, bracket, 1);
    w->comma = false;
}

static void close_container(struct sl_json_writer *w, const char *bracket)
{
    sl_buf_append(w->out, bracket, 1);
    w->comma = true;
}

void sl_json_begin_object(struct sl_json_writer *w)
{
    open_container(w, "{");
}

void sl_json_end_object(struct sl_json_writer *w)
{
    close_container(w, "}");
}

void sl_json_begin_array(struct sl_json_writer *w)
{
    open_container(w, "[");
}

void sl_json_end_array(struct sl_json_writer *w)
{
    close_container(w, "]");
}

static bool is_plain(unsigned char c)
{
    return c >= 0x20 && c < 0x7f && c != '"' && c != '\\';
}

/* The top bit of each byte that is not plain, exact up to the first of them. The top bit of a sum
 * says what its byte is, and plain bytes do not carry into the next. */
static uint64_t not_plain(uint64_t eight)
{
    const uint64_t ones = 0x0101010101010101u, tops = 0x8080808080808080u;
    uint64_t printable = eight + 0x60 * ones;
    uint64_t no_quote = (eight ^ '"' * ones) + 0x7f * ones;
    uint64_t no_backslash = (eight ^ '\\' * ones) + 0x7f * ones;
    uint64_t not_ascii_or_del = eight | (eight + ones);
    return (~(printable & no_quote & no_backslash) | not_ascii_or_del) & tops;
}

/* How many bytes at the start stand for themselves, but for those that are not ASCII. */
static size_t plain_run(struct sl_span text)
{
    size_t at = 0;
    uint64_t eight;
    for (; text.len - at >= sizeof(eight); at += sizeof(eight)) {
        memcpy(&eight, text.data + at, sizeof(eight));
        uint64_t others = not_plain(le64toh(eight));
        if (others != 0) {
            return at + (size_t)__builtin_ctzll(others) / 8;
        }
    }
    while (at < text.len && is_plain((unsigned char)text.data[at])) {
        at++;
    }
    return at;
}

static void put_escape(struct sl_buf *out, unsigned char c)
{
    static const char letters[] = "\"\"\\\\\bb\ff\nn\rr\tt";
    for (size_t i = 0; i + 1 < sizeof(letters); i += 2) {
        if ((unsigned char)letters[i] == c) {
            sl_buf_append(out, (const char[]){'\\', letters[i + 1]}, 2);
            return;
        }
    }
    const char hex[] = "0123456789abcdef";
    sl_buf_append(out, (const char[]){'\\', 'u', '0', '0', hex[c >> 4], hex[c & 0xf]}, 6);
}

/* Copies each run of bytes that stay as they are, and between them writes what does not. */
static void put_quoted(struct sl_buf *out, struct sl_span text)
{
    size_t from = 0, at = 0; /* The run so far. */
    sl_buf_append(out, "\"", 1);
    while (at < text.len) {
        at += plain_run((struct sl_span){text.data + at, text.len - at});
        if (at == text.len) {
            break;
        }
        unsigned char c = (unsigned char)text.data[at];
        size_t len = sl_utf8_sequence((struct sl_span){text.data + at, text.len - at});
        if (c >= 0x80 && len > 0) {
            at += len;
            continue;
        }
        sl_buf_append(out, text.data + from, at - from);
        if (c < 0x80) {
            put_escape(out, c);
        } else {
            sl_buf_append(out, "\xef\xbf\xbd", 3);
        }
        from = ++at;
    }
    if (from < at) {
        sl_buf_append(out, text.data + from, at - from);
    }
    sl_buf_append(out, "\"", 1);
}

void sl_json_key(struct sl_json_writer *w, const char *key)
{
    size_t len = strlen(key);
    char *to = sl_buf_reserve(w->out, len + 4); /* Comma, quotes, colon. */
    if (to != NULL) {
        char *at = to;
        *at = ',';
        at += w->comma ? 1 : 0;
        *at++ = '"';
        memcpy(at, key, len);
        memcpy(at + len, "\":", 2);
        w->out->len += (size_t)(at - to) + len + 2;
    }
    w->comma = false;
}

void sl_json_key_span(struct sl_json_writer *w, struct sl_span key)
{
    separate(w);
    put_quoted(w->out, key);
    sl_buf_append(w->out, ":", 1);
    w->comma = false;
}

void sl_json_put_string(struct sl_json_writer *w, struct sl_span value)
{
    separate(w);
    put_quoted(w->out, value);
}

void sl_json_put_int(struct sl_json_writer *w, int64_t value)
{
    separate(w);
    sl_buf_append_int(w->out, value);
}

/* The fewest digits that read back the same. */
static void put_by_printf(struct sl_buf *out, double value)
{
    char text[32];
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof(text), "%.*g", digits, value);
        if (strtod(text, NULL) == value) {
            break;
        }
    }
    sl_buf_append_text(out, text);
}

/* The same by yyjson, which finds them in one step. */
static void put_by_yyjson(struct sl_buf *out, double value)
{
    yyjson_val val = {.tag = YYJSON_TYPE_NUM | YYJSON_SUBTYPE_REAL, .uni.f64 = value};
    char memory[256]; /* It wants 32 bytes and some for itself. */
    yyjson_alc alc;
    size_t len;
    bool ok = yyjson_alc_pool_init(&alc, memory, sizeof(memory));
    assert(ok);
    char *text = yyjson_val_write_opts(&val, YYJSON_WRITE_NOFLAG, &alc, &len, NULL);
    assert(text != NULL);
    sl_buf_append(out, text, len);
}

void sl_json_put_number(struct sl_json_writer *w, double value)
{
    double size = fabs(value);
    if (!isfinite(value)) {
        sl_json_put_null(w);
        return;
    }
    separate(w);
    if (size < MAX_EXACT && value == trunc(value)) { /* Without an exponent. */
        sl_buf_append_int(w->out, (int64_t)value);
    } else if (size >= PLAIN_MIN && size < PLAIN_MAX) {
        put_by_yyjson(w->out, value);
    } else {
        put_by_printf(w->out, value);
    }
}

void sl_json_put_float(struct sl_json_writer *w, float value)
{
    char text[SL_FLOAT_TEXT_MAX];
    if (!isfinite(value)) {
        sl_json_put_null(w);
        return;
    }
    separate(w);
    sl_buf_append(w->out, text, sl_float_text(value, text));
}

void sl_json_put_bool(struct sl_json_writer *w, bool value)
{
    separate(w);
    sl_buf_append_text(w->out, value ? "true" : "false");
}

void sl_json_put_null(struct sl_json_writer *w)
{
    separate(w);
    sl_buf_append_text(w->out, "null");
}

void sl_json_put_raw(struct sl_json_writer *w, struct sl_span json)
{
    separate(w);
    sl_buf_append_span(w->out, json);
}
