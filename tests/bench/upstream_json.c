/*
 * A scanner for the top level of a request's body. A string is skipped by memchr, a nested value by
 * counting brackets outside strings, so a rerank body of 12 KB costs a microsecond or two. Whether
 * the programs under test write sound JSON is for their tests to find out, not for a benchmark.
 */
#include "upstream_json.h"

static size_t skip_blanks(struct sl_span text, size_t at)
{
    while (at < text.len && (text.data[at] == ' ' || text.data[at] == '\n' ||
                             text.data[at] == '\r' || text.data[at] == '\t')) {
        at++;
    }
    return at;
}

/* From an opening quote to behind the closing one; 0 when there is none. */
static size_t skip_string(struct sl_span text, size_t at)
{
    for (size_t from = at + 1; from < text.len;) {
        const char *quote = memchr(text.data + from, '"', text.len - from);
        if (quote == NULL) {
            return 0;
        }
        size_t end = (size_t)(quote - text.data);
        size_t slashes = 0;
        while (end - slashes > at + 1 && text.data[end - slashes - 1] == '\\') {
            slashes++;
        }
        if (slashes % 2 == 0) {
            return end + 1;
        }
        from = end + 1;
    }
    return 0;
}

static size_t skip_nested(struct sl_span text, size_t at)
{
    size_t depth = 0;
    while (at < text.len) {
        char c = text.data[at];
        if (c == '"') {
            at = skip_string(text, at);
            if (at == 0) {
                return 0;
            }
            continue;
        }
        depth += c == '{' || c == '[';
        depth -= c == '}' || c == ']';
        at++;
        if (depth == 0) {
            return at;
        }
    }
    return 0;
}

/* From the first byte of a value to behind its last; 0 when it is cut short or none. */
static size_t skip_value(struct sl_span text, size_t at)
{
    size_t begin = at;
    if (at == text.len) {
        return 0;
    }
    if (text.data[at] == '"') {
        return skip_string(text, at);
    }
    if (text.data[at] == '{' || text.data[at] == '[') {
        return skip_nested(text, at);
    }
    while (at < text.len && strchr(",]} \n\r\t:\"", text.data[at]) == NULL) {
        at++;
    }
    return at > begin ? at : 0;
}

/* Over the opening bracket, or the comma before the next item. */
static enum upstream_step to_item(struct sl_span text, size_t *at, const char brackets[2])
{
    bool first = *at == 0;
    *at = skip_blanks(text, *at);
    if (first) {
        if (*at == text.len || text.data[*at] != brackets[0]) {
            return UPSTREAM_BAD;
        }
        *at = skip_blanks(text, *at + 1);
    }
    if (*at == text.len) {
        return UPSTREAM_BAD;
    }
    if (text.data[*at] == brackets[1]) {
        return UPSTREAM_END;
    }
    if (!first) {
        if (text.data[*at] != ',') {
            return UPSTREAM_BAD;
        }
        *at = skip_blanks(text, *at + 1);
    }
    return UPSTREAM_ITEM;
}

static enum upstream_step take_value(struct sl_span text, size_t *at, struct sl_span *value)
{
    size_t begin = skip_blanks(text, *at);
    size_t end = skip_value(text, begin);
    if (end == 0) {
        return UPSTREAM_BAD;
    }
    *value = (struct sl_span){text.data + begin, end - begin};
    *at = end;
    return UPSTREAM_ITEM;
}

enum upstream_step upstream_json_member(struct sl_span object, size_t *at, struct sl_span *key,
                                        struct sl_span *value)
{
    enum upstream_step step = to_item(object, at, "{}");
    if (step != UPSTREAM_ITEM) {
        return step;
    }
    size_t end = *at < object.len && object.data[*at] == '"' ? skip_string(object, *at) : 0;
    if (end == 0) {
        return UPSTREAM_BAD;
    }
    *key = (struct sl_span){object.data + *at + 1, end - *at - 2};
    *at = skip_blanks(object, end);
    if (*at == object.len || object.data[*at] != ':') {
        return UPSTREAM_BAD;
    }
    (*at)++;
    return take_value(object, at, value);
}

enum upstream_step upstream_json_element(struct sl_span array, size_t *at, struct sl_span *value)
{
    enum upstream_step step = to_item(array, at, "[]");
    return step == UPSTREAM_ITEM ? take_value(array, at, value) : step;
}
