/*
 * Names that come in a URL. The rules are those of the same names in a JSON body, and so are the
 * words in which they are refused.
 *
 * In a query string "+" stands for a blank, as forms and most client libraries write it; in a path
 * it stands for itself. A "/" may be written as it is or as %2F: both mean the same id.
 */
#include "workers/gateway/parameters.h"

#include "common/codec_value.h"
#include "common/http_text.h"

#include <stdio.h>

enum { TARGET_MAX = 1 << 16 };

static int refuse(struct sl_fault *fault, struct sl_span name, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static int refuse(struct sl_fault *fault, struct sl_span name, const char *format, ...)
{
    char what[160];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof(what), format, args);
    va_end(args);
    size_t len = name.len < sizeof(fault->param) ? name.len : sizeof(fault->param) - 1;
    while (len > 0 && len < name.len && ((unsigned char)name.data[len] & 0xc0) == 0x80) {
        len--;
    }
    snprintf(fault->param, sizeof(fault->param), "%.*s", (int)len, name.data);
    snprintf(fault->message, sizeof(fault->message), "%s %s", fault->param, what);
    return -SL_EINVAL;
}

static int read_value(struct sl_span text, bool blanks, struct sl_span name, size_t max,
                      struct sl_arena *arena, struct sl_span *ret, struct sl_fault *fault)
{
    struct sl_buf decoded;
    int rv = 0;
    sl_buf_init(&decoded, TARGET_MAX);
    if (sl_http_percent_decode(text, blanks, &decoded) != 0) {
        rv = refuse(fault, name, "has a %% that no two hexadecimal digits follow");
    } else if (sl_buf_error(&decoded) == -SL_ENOMEM) {
        rv = -SL_ENOMEM;
    } else if (sl_buf_error(&decoded) != 0 || decoded.len == 0 || decoded.len > max) {
        rv = refuse(fault, name, "must be text of 1 to %zu bytes, not of %zu", max, decoded.len);
    } else if (!sl_text_valid(sl_buf_span(&decoded)) ||
               sl_text_has_control(sl_buf_span(&decoded))) {
        rv = refuse(fault, name, "must be UTF-8 text without control characters");
    } else {
        *ret = sl_arena_copy(arena, sl_buf_span(&decoded));
        rv = ret->data == NULL ? -SL_ENOMEM : 0;
    }
    sl_buf_fini(&decoded);
    return rv;
}

static struct parameter *find(struct parameter *table, size_t count, struct sl_span name)
{
    for (size_t i = 0; i < count; i++) {
        if (sl_span_is(name, table[i].name)) {
            return &table[i];
        }
    }
    return NULL;
}

static int refuse_unknown(struct sl_fault *fault, struct sl_span name)
{
    if (!sl_text_valid(name) || sl_text_has_control(name) || name.len == 0) {
        return refuse(fault, SL_SPAN("query"), "has a parameter without a readable name");
    }
    return refuse(fault, name, "is not a known parameter");
}

/* Names are ASCII letters: one that is written with percent signs is another to us. */
int parameters_read(struct sl_span query, struct parameter *table, size_t count,
                    struct sl_arena *arena, struct sl_fault *fault)
{
    struct sl_span name, value;
    int rv = 0;
    *fault = (struct sl_fault){.param = ""};
    while (rv == 0 && sl_http_next_parameter(&query, &name, &value)) {
        struct parameter *parameter = find(table, count, name);
        if (parameter == NULL) {
            rv = refuse_unknown(fault, name);
        } else if (parameter->value.data != NULL) {
            rv = refuse(fault, name, "is there twice");
        } else {
            rv = read_value(value, true, name, parameter->max, arena, &parameter->value, fault);
        }
    }
    for (size_t i = 0; rv == 0 && i < count; i++) {
        if (table[i].required && table[i].value.data == NULL) {
            rv = refuse(fault, sl_span_of(table[i].name), "is missing");
        }
    }
    return rv;
}

int parameter_number(const struct parameter *parameter, long long min, long long max,
                     long long fallback, long long *ret, struct sl_fault *fault)
{
    *ret = fallback;
    if (parameter->value.data == NULL || sl_span_to_int(parameter->value, min, max, ret) == 0) {
        return 0;
    }
    return refuse(fault, sl_span_of(parameter->name), "must be a whole number from %lld to %lld",
                  min, max);
}

int path_part_read(struct sl_span part, const char *name, size_t max, struct sl_arena *arena,
                   struct sl_span *ret, struct sl_fault *fault)
{
    *fault = (struct sl_fault){.param = ""};
    return read_value(part, false, sl_span_of(name), max, arena, ret, fault);
}
