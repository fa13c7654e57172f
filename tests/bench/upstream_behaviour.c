/*
 * One table of names, defaults and ranges serves the command line, PUT /behaviour and --help. All
 * values are whole numbers; times are milliseconds.
 */
#include "upstream_behaviour.h"

#include "common/json.h"

#include <stdio.h>

struct field {
    const char *name;
    size_t offset;
    uint32_t preset, min, max;
    const char *help;
};

static const struct field fields[] = {
#define X(name, preset, min, max, help)                                                            \
    {#name, offsetof(struct upstream_behaviour, name), preset, min, max, help},
    UPSTREAM_FIELDS(X)
#undef X
};
enum { FIELD_COUNT = sizeof(fields) / sizeof(fields[0]) };

static uint32_t *value_of(struct upstream_behaviour *behaviour, const struct field *field)
{
    return (uint32_t *)(void *)((char *)behaviour + field->offset);
}

void upstream_behaviour_init(struct upstream_behaviour *behaviour)
{
    for (size_t i = 0; i < FIELD_COUNT; i++) {
        *value_of(behaviour, &fields[i]) = fields[i].preset;
    }
}

static bool same_name(struct sl_span name, const char *field)
{
    if (name.len != strlen(field)) {
        return false;
    }
    for (size_t i = 0; i < name.len; i++) {
        if (name.data[i] != field[i] && !(field[i] == '_' && name.data[i] == '-')) {
            return false;
        }
    }
    return true;
}

int upstream_behaviour_set(struct upstream_behaviour *behaviour, struct sl_span name,
                           struct sl_span value, char *why, size_t why_size)
{
    for (size_t i = 0; i < FIELD_COUNT; i++) {
        long long number = 0;
        if (!same_name(name, fields[i].name)) {
            continue;
        }
        if (sl_span_to_int(value, fields[i].min, fields[i].max, &number) != 0) {
            snprintf(why, why_size, "%s is a whole number from %u to %u", fields[i].name,
                     fields[i].min, fields[i].max);
            return -SL_EINVAL;
        }
        *value_of(behaviour, &fields[i]) = (uint32_t)number;
        return 0;
    }
    snprintf(why, why_size, "unknown key: " SL_SPAN_FMT, name.len < 60 ? (int)name.len : 60,
             name.data);
    return -SL_ENOENT;
}

/* 30.0 is as good as 30. */
static int set_json(struct upstream_behaviour *behaviour, struct sl_span name,
                    const struct sl_json *value, char *why, size_t why_size)
{
    char text[32] = "";
    enum sl_json_type type = sl_json_type(value);
    if (type == SL_JSON_INT || type == SL_JSON_NUMBER) {
        snprintf(text, sizeof(text), "%.15g", sl_json_number(value));
    }
    return upstream_behaviour_set(behaviour, name, sl_span_of(text), why, why_size);
}

int upstream_behaviour_apply(struct upstream_behaviour *behaviour, struct sl_span json, char *why,
                             size_t why_size)
{
    struct upstream_behaviour changed = *behaviour;
    struct sl_json_doc *doc;
    struct sl_span key;
    const struct sl_json *value;
    size_t at = 0;
    snprintf(why, why_size, "%s", sl_error_text(-SL_ENOMEM));
    if (sl_json_parse(json, &doc, why, why_size) != 0) {
        return -SL_EINVAL;
    }
    int rv = 0;
    if (sl_json_type(sl_json_root(doc)) != SL_JSON_OBJECT) {
        snprintf(why, why_size, "the body is not a JSON object");
        rv = -SL_EINVAL;
    }
    while (rv == 0 && sl_json_each(sl_json_root(doc), &at, &key, &value)) {
        rv = set_json(&changed, key, value, why, why_size);
    }
    sl_json_free(doc);
    if (rv != 0) {
        return -SL_EINVAL;
    }
    *behaviour = changed;
    return 0;
}

void upstream_behaviour_write(const struct upstream_behaviour *behaviour, struct sl_buf *out)
{
    struct sl_json_writer w = {.out = out};
    sl_json_begin_object(&w);
#define X(name, preset, min, max, help)                                                            \
    sl_json_key(&w, #name);                                                                        \
    sl_json_put_int(&w, behaviour->name);
    UPSTREAM_FIELDS(X)
#undef X
    sl_json_end_object(&w);
}

void upstream_behaviour_help(struct sl_buf *out)
{
    for (size_t i = 0; i < FIELD_COUNT; i++) {
        char option[32];
        snprintf(option, sizeof(option), "--%s N", fields[i].name);
        for (char *c = option; *c != '\0'; c++) {
            *c = *c == '_' ? '-' : *c;
        }
        sl_buf_printf(out, "  %-20s %s (%u)\n", option, fields[i].help, fields[i].preset);
    }
}
