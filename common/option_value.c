/*
 * One reader per type of option, in a table. A new type needs an entry in options.h, a reader and a
 * row here. Readers take the whole text or nothing: "5x" is no number.
 */
#include "common/option_value.h"

#include <assert.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { PREFIX_MAX = 200 }; /* A topic's name has 249 at most, and ours end in .documents.dlq. */

struct unit {
    const char *name;
    long long size;
};

/* Smallest first; NULL ends. */
static const struct unit duration_units[] = {
    {"ms", 1}, {"s", 1000}, {"m", 60 * 1000}, {"h", 3600 * 1000}, {NULL, 0}};
static const struct unit byte_units[] = {
    {"", 1}, {"k", 1LL << 10}, {"m", 1LL << 20}, {"g", 1LL << 30}, {NULL, 0}};

static bool in_range(const struct sl_option *option, double value)
{
    return (option->min == 0 && option->max == 0) || (value >= option->min && value <= option->max);
}

static int store_integer(const struct sl_option *option, long long value, void *to)
{
    if (!in_range(option, (double)value)) {
        return -SL_EINVAL;
    }
    *(long long *)to = value;
    return 0;
}

static int store_int(const struct sl_option *option, const char *text, void *to)
{
    long long value;
    if (sl_span_to_int(sl_span_of(text), LLONG_MIN, LLONG_MAX, &value) != 0) {
        return -SL_EINVAL;
    }
    return store_integer(option, value, to);
}

static int store_number(const struct sl_option *option, const char *text, void *to)
{
    char *end;
    if (strspn(text, "0123456789+-.eE") != strlen(text)) { /* No hexadecimal, no "inf". */
        return -SL_EINVAL;
    }
    double value = strtod(text, &end);
    if (end == text || *end != '\0' || !isfinite(value) || !in_range(option, value)) {
        return -SL_EINVAL;
    }
    *(double *)to = value;
    return 0;
}

static int store_string(const struct sl_option *option, const char *text, void *to)
{
    (void)option;
    *(const char **)to = text;
    return 0;
}

static int store_bool(const struct sl_option *option, const char *text, void *to)
{
    static const char *const words[] = {"0", "1", "false", "true", "no", "yes", "off", "on"};
    (void)option;
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        if (sl_span_equal_nocase(sl_span_of(text), sl_span_of(words[i]))) {
            *(bool *)to = i % 2 == 1;
            return 0;
        }
    }
    return -SL_EINVAL;
}

/* A whole number and a unit; without a unit it counts plain. */
static int store_with_unit(const struct sl_option *option, const char *text,
                           const struct unit *units, long long plain, void *to)
{
    size_t digits = strspn(text, "0123456789");
    struct sl_span suffix = sl_span_of(text + digits);
    long long value, size = suffix.len == 0 ? plain : 0;
    for (const struct unit *u = units; u->name != NULL; u++) {
        size = suffix.len > 0 && sl_span_equal_nocase(suffix, sl_span_of(u->name)) ? u->size : size;
    }
    if (size == 0 || sl_span_to_int((struct sl_span){text, digits}, 0, LLONG_MAX, &value) != 0 ||
        __builtin_mul_overflow(value, size, &value)) {
        return -SL_EINVAL;
    }
    return store_integer(option, value, to);
}

static int store_duration(const struct sl_option *option, const char *text, void *to)
{
    return store_with_unit(option, text, duration_units, 1000, to);
}

static int store_bytes(const struct sl_option *option, const char *text, void *to)
{
    return store_with_unit(option, text, byte_units, 1, to);
}

/* The index of word in the option's choices, or -1. */
static int find_choice(const struct sl_option *option, struct sl_span word)
{
    for (int i = 0; option->choices[i] != NULL; i++) {
        if (sl_span_equal_nocase(word, sl_span_of(option->choices[i]))) {
            return i;
        }
    }
    return -1;
}

static int store_choice(const struct sl_option *option, const char *text, void *to)
{
    int index = find_choice(option, sl_span_of(text));
    if (index < 0) {
        return -SL_EINVAL;
    }
    *(int *)to = index;
    return 0;
}

static bool is_printable(const char *text) /* Without spaces. */
{
    for (; *text != '\0'; text++) {
        if ((unsigned char)*text <= ' ' || *text == 0x7f) {
            return false;
        }
    }
    return true;
}

static int store_url(const struct sl_option *option, const char *text, void *to)
{
    const char *mark = strstr(text, "://");
    if (text[0] != '\0') {
        if (mark == NULL || mark == text || mark[3] == '\0' || !is_printable(text)) {
            return -SL_EINVAL;
        }
        if (option->choices != NULL &&
            find_choice(option, (struct sl_span){text, (size_t)(mark - text)}) < 0) {
            return -SL_EINVAL;
        }
    }
    return store_string(option, text, to);
}

static int store_address(const struct sl_option *option, const char *text, void *to)
{
    const char *colon = strrchr(text, ':');
    long long port;
    if (text[0] != '\0') {
        if (colon == NULL || colon == text || !is_printable(text) ||
            sl_span_to_int(sl_span_of(colon + 1), 0, 65535, &port) != 0) {
            return -SL_EINVAL;
        }
        bool bracketed = text[0] == '[' && colon[-1] == ']';
        if (!bracketed && memchr(text, ':', (size_t)(colon - text)) != NULL) {
            return -SL_EINVAL; /* An IPv6 address needs its brackets. */
        }
    }
    return store_string(option, text, to);
}

static int store_prefix(const struct sl_option *option, const char *text, void *to)
{
    size_t len = strlen(text);
    for (size_t i = 0; i < len; i++) {
        char c = text[i];
        if (!((c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
              c == '.' || c == '_' || c == '-')) {
            return -SL_EINVAL;
        }
    }
    return len >= 1 && len <= PREFIX_MAX ? store_string(option, text, to) : -SL_EINVAL;
}

static const struct {
    const char *name;
    const char *wanted;
    int (*store)(const struct sl_option *option, const char *text, void *to);
} types[] = {
    [SL_OPT_INT] = {"whole number", "a whole number", store_int},
    [SL_OPT_NUMBER] = {"number", "a number", store_number},
    [SL_OPT_STRING] = {"text", "text", store_string},
    [SL_OPT_BOOL] = {"boolean", "true or false", store_bool},
    [SL_OPT_DURATION] = {"duration", "a duration like 1500ms, 15s, 5m or 24h", store_duration},
    [SL_OPT_BYTES] = {"bytes", "a number of bytes like 512, 64k, 16m or 1g", store_bytes},
    [SL_OPT_CHOICE] = {"choice", "one of", store_choice},
    [SL_OPT_URL] = {"URL", "a URL", store_url},
    [SL_OPT_ADDRESS] = {"address", "host:port", store_address},
    [SL_OPT_PREFIX] = {"prefix", "at most 200 characters of A-Z a-z 0-9 . _ -", store_prefix},
};

int sl_option_store(const struct sl_option *option, const char *text, void *values)
{
    return types[option->type].store(option, text, (char *)values + option->offset);
}

/* --- descriptions --- */

const char *sl_option_type_name(enum sl_option_type type)
{
    return types[type].name;
}

static void put_with_unit(struct sl_buf *out, double value, const struct unit *units)
{
    long long whole = (long long)value;
    const struct unit *best = units;
    for (const struct unit *u = units; u->name != NULL; u++) {
        best = whole > 0 && whole % u->size == 0 ? u : best;
    }
    sl_buf_printf(out, "%lld%s", whole / best->size, whole == 0 ? "" : best->name);
}

static void put_limit(const struct sl_option *option, double value, struct sl_buf *out)
{
    if (option->type == SL_OPT_DURATION) {
        put_with_unit(out, value, duration_units);
    } else if (option->type == SL_OPT_BYTES) {
        put_with_unit(out, value, byte_units);
    } else {
        sl_buf_printf(out, "%.15g", value);
    }
}

void sl_option_put_range(const struct sl_option *option, struct sl_buf *out)
{
    if (option->choices != NULL) {
        for (int i = 0; option->choices[i] != NULL; i++) {
            sl_buf_printf(out, "%s%s%s", i > 0 ? ", " : "", option->choices[i],
                          option->type == SL_OPT_URL ? "://" : "");
        }
    } else if (option->min != 0 || option->max != 0) {
        assert(option->min <= option->max);
        put_limit(option, option->min, out);
        sl_buf_append_text(out, " to ");
        put_limit(option, option->max, out);
    }
}

void sl_option_put_wanted(const struct sl_option *option, struct sl_buf *out)
{
    sl_buf_append_text(out, types[option->type].wanted);
    size_t before = out->len;
    sl_buf_append_text(out, option->type == SL_OPT_CHOICE ? " "
                            : option->type == SL_OPT_URL  ? " that starts with "
                                                          : ", ");
    size_t with_link = out->len;
    sl_option_put_range(option, out);
    if (out->len == with_link) {
        out->len = before;
    }
}

void sl_option_put_shown(const struct sl_option *option, const char *text, struct sl_buf *out)
{
    if (option->secret && text[0] != '\0') {
        sl_buf_append_text(out, "(hidden)");
        return;
    }
    const char *mark = option->type == SL_OPT_URL ? strstr(text, "://") : NULL;
    const char *login = NULL, *at = NULL;
    if (mark != NULL) {
        login = mark + 3;
        at = memrchr(login, '@', strcspn(login, "/?#"));
    }
    for (; *text != '\0'; text++) {
        if (text == login && at != NULL) {
            sl_buf_append_text(out, "***");
            text = at;
        }
        bool control = (unsigned char)*text < ' ' || *text == 0x7f;
        sl_buf_append(out, control ? "?" : text, 1);
    }
}
