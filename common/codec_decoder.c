/*
 * Field tables and the readers that they name.
 *
 * sl_decoder_read() goes through a map once, in the order that it came in, and finds each key in
 * the table. A field that is wrong, unknown or there twice is refused: the first one's message is
 * kept, and its target keeps the default that was there before. A refusal does not stop the
 * reading, since a result that says what was wrong also says what was asked. Only a lack of memory
 * stops it.
 *
 * To add a field: a line in its message's table, and a reader if none fits.
 */
#include "common/codec_decoder.h"

#include "common/codec_sink.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>

enum { SHOWN = 64 };

/* Cut to what fits, at a character. */
static void copy_text(char *out, size_t size, struct sl_span text)
{
    size_t len = text.len < size ? text.len : size - 1;
    while (len > 0 && len < text.len && ((unsigned char)text.data[len] & 0xc0) == 0x80) {
        len--;
    }
    memcpy(out, text.data, len);
    out[len] = 0;
}

static void vrefuse(struct sl_decoder *decoder, const char *name, const char *format, va_list args)
{
    char what[180];
    struct sl_fault *fault = decoder->fault;
    if (decoder->err != 0) {
        return;
    }
    decoder->err = -SL_EINVAL;
    vsnprintf(what, sizeof(what), format, args);
    size_t path = strlen(decoder->path); /* Without its last dot when it is itself what is wrong. */
    path -= path > 0 && *name == 0 ? 1 : 0;
    snprintf(fault->message, sizeof(fault->message), "%.*s%s%s%s", (int)path, decoder->path, name,
             path > 0 || *name != 0 ? " " : "", what);
    const char *top = *decoder->path != 0 ? decoder->path : name;
    copy_text(fault->param, sizeof(fault->param), (struct sl_span){top, strcspn(top, "[.")});
}

void sl_decoder_refuse(struct sl_decoder *decoder, const char *name, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vrefuse(decoder, name, format, args);
    va_end(args);
}

static void put_place(struct sl_buf *out, const char *name, long long i)
{
    sl_buf_append_text(out, name);
    if (i >= 0) {
        sl_buf_append(out, "[", 1);
        sl_buf_append_int(out, i);
        sl_buf_append(out, "]", 1);
    }
}

size_t sl_decoder_enter(struct sl_decoder *decoder, const char *name, long long i)
{
    size_t left = strlen(decoder->path);
    struct sl_buf path = {.data = decoder->path + left,
                          .cap = sizeof(decoder->path) - left - 1,
                          .max = sizeof(decoder->path) - left - 1};
    put_place(&path, name, i);
    sl_buf_append(&path, ".", 1);
    path.data[path.len] = 0; /* What there was no room for is left out. */
    return left;
}

void sl_decoder_leave(struct sl_decoder *decoder, size_t left)
{
    decoder->path[left] = 0;
}

void *sl_decoder_alloc(struct sl_decoder *decoder, size_t size)
{
    void *memory = sl_arena_alloc(decoder->arena, size);
    if (memory == NULL) {
        decoder->err = -SL_ENOMEM;
    }
    return memory;
}

struct sl_span sl_decoder_keep(struct sl_decoder *decoder, struct sl_span text)
{
    if (decoder->borrow) {
        return text;
    }
    struct sl_span kept = sl_arena_copy(decoder->arena, text);
    if (kept.data == NULL) {
        decoder->err = -SL_ENOMEM;
    }
    return kept;
}

static bool is_texty(const struct sl_value *value)
{
    return value->type == SL_VALUE_TEXT || value->type == SL_VALUE_BYTES;
}

/* A message without "v" is of the first version. */
static int check_version(struct sl_decoder *decoder, const struct sl_value *map)
{
    struct sl_value_iter iter = {.container = map};
    struct sl_value key, value;
    while (sl_value_next(&iter, &key, &value)) {
        if (!is_texty(&key) || !sl_span_is(key.text, "v")) {
            continue;
        }
        if (value.type != SL_VALUE_INT) {
            sl_decoder_refuse(decoder, "v", "must be a whole number");
            return -SL_EINVAL;
        }
        if (value.integer != SL_MESSAGE_MAJOR) {
            sl_decoder_refuse(decoder, "v", "must be %d, not %lld", SL_MESSAGE_MAJOR,
                              (long long)value.integer);
            return -SL_EVERSION;
        }
    }
    return 0;
}

static int open_json(struct sl_decoder *decoder, struct sl_span bytes, struct sl_json_doc **doc,
                     struct sl_value *root)
{
    char why[160] = "";
    int rv = sl_json_parse(bytes, doc, why, sizeof(why));
    if (rv == -SL_EBADMSG) {
        snprintf(decoder->fault->message, sizeof(decoder->fault->message), "is not valid JSON: %s",
                 why);
    }
    if (rv == 0) {
        sl_value_of_json(sl_json_root(*doc), root);
    }
    return rv;
}

static int open_msgpack(struct sl_decoder *decoder, struct sl_span bytes, struct sl_value *root)
{
    int rv = sl_value_of_msgpack(bytes, root);
    if (rv != 0) {
        snprintf(decoder->fault->message, sizeof(decoder->fault->message),
                 "is not one whole MessagePack value");
        return rv;
    }
    root->raw = sl_arena_copy(decoder->arena, bytes); /* A map's children are found from here. */
    decoder->borrow = true;
    return root->raw.data != NULL ? 0 : -SL_ENOMEM;
}

int sl_decoder_open(struct sl_decoder *decoder, struct sl_span bytes, bool json,
                    struct sl_json_doc **doc, struct sl_value *root)
{
    *doc = NULL;
    *decoder->fault = (struct sl_fault){.param = ""};
    int rv = json ? open_json(decoder, bytes, doc, root) : open_msgpack(decoder, bytes, root);
    if (rv == 0 && root->type != SL_VALUE_MAP) {
        snprintf(decoder->fault->message, sizeof(decoder->fault->message), "must be %s",
                 json ? "a JSON object" : "a MessagePack map");
        rv = -SL_EBADMSG;
    }
    return rv == 0 && !json ? check_version(decoder, root) : rv;
}

/* --- maps --- */

static void refuse_key(struct sl_decoder *decoder, const struct sl_value *key)
{
    char name[SHOWN];
    if (!is_texty(key) || !sl_text_valid(key->text)) {
        sl_decoder_refuse(decoder, "", "has a key that is not text");
        return;
    }
    copy_text(name, sizeof(name), key->text);
    if (*name == 0) {
        sl_decoder_refuse(decoder, "", "has a field without a name");
    } else if (decoder->err == 0) {
        sl_decoder_refuse(decoder, name, "is not a known field");
        if (*decoder->path == 0) { /* A name of theirs may hold a dot or a bracket. */
            copy_text(decoder->fault->param, sizeof(decoder->fault->param), key->text);
        }
    }
}

static void on_unknown(struct sl_decoder *decoder, const struct sl_fields *fields,
                       const struct sl_value *key, const struct sl_value *value)
{
    if (fields->strict) {
        refuse_key(decoder, key);
    } else if (decoder->kept != NULL && *decoder->path == 0) {
        sl_buf_append_span(decoder->kept, key->raw);
        sl_buf_append_span(decoder->kept, value->raw);
        decoder->kept_pairs++;
    }
}

/* A key may hold anything, a zero too; a name ends with one. */
static bool is_named(const struct sl_field *field, struct sl_span key)
{
    size_t i = 0;
    while (i < key.len && field->name[i] == key.data[i] && key.data[i] != 0) {
        i++;
    }
    return i == key.len && field->name[i] == 0;
}

/* The search begins at `first`, the one behind the last that was found: they mostly come in the
 * table's order. */
static size_t find_field(const struct sl_fields *fields, const struct sl_value *key, size_t first)
{
    if (!is_texty(key) || key->text.len == 0) {
        return fields->count;
    }
    for (size_t n = 0, i = first; n < fields->count; n++, i++) {
        i = i >= fields->count ? 0 : i;
        if (is_named(&fields->fields[i], key->text)) {
            return i;
        }
    }
    return fields->count;
}

static void check_required(struct sl_decoder *decoder, const struct sl_fields *fields,
                           uint32_t seen)
{
    for (size_t i = 0; i < fields->count; i++) {
        if (fields->fields[i].required && (seen & (uint32_t)1 << i) == 0) {
            sl_decoder_refuse(decoder, fields->fields[i].name, "is missing");
        }
    }
}

void sl_decoder_read(struct sl_decoder *decoder, const struct sl_fields *fields,
                     const struct sl_value *value, void *target)
{
    struct sl_value_iter iter = {.container = value};
    struct sl_value key, member;
    uint32_t seen = 0;
    size_t next = 0;
    assert(value->type == SL_VALUE_MAP && fields->count <= SL_FIELDS_MAX);
    while (decoder->err != -SL_ENOMEM && sl_value_next(&iter, &key, &member)) {
        size_t i = find_field(fields, &key, next);
        next = i + 1;
        if (i == fields->count) {
            on_unknown(decoder, fields, &key, &member);
            continue;
        }
        const struct sl_field *field = &fields->fields[i];
        if ((seen & (uint32_t)1 << i) != 0) {
            sl_decoder_refuse(decoder, field->name, "is there twice");
            continue;
        }
        seen |= (uint32_t)1 << i;
        field->read(decoder, field, &member, target);
    }
    check_required(decoder, fields, seen);
}

/* --- readers --- */

static void *place(const struct sl_field *field, void *target)
{
    return (char *)target + field->offset;
}

/* Refusals are functions of their own: what they need is not made ready for each value. */
static void refuse_range(struct sl_decoder *decoder, const struct sl_field *field, const char *what,
                         const char *unit, const struct sl_value *value)
{
    char shown[SHOWN];
    sl_value_describe(value, shown, sizeof(shown));
    sl_decoder_refuse(decoder, field->name, "must be %s %lld to %lld%s, not %s", what, field->min,
                      field->max, unit, shown);
}

static bool text_fits(struct sl_decoder *decoder, const struct sl_field *field,
                      const struct sl_value *value)
{
    if (!is_texty(value)) {
        refuse_range(decoder, field, "text of", " bytes", value);
        return false;
    }
    if (value->text.len < (size_t)field->min || value->text.len > (size_t)field->max) {
        sl_decoder_refuse(decoder, field->name, "must be text of %lld to %lld bytes, not of %zu",
                          field->min, field->max, value->text.len);
        return false;
    }
    if (!sl_text_valid(value->text)) {
        sl_decoder_refuse(decoder, field->name, "must be UTF-8 text without zero characters");
        return false;
    }
    return true;
}

static void set_text(struct sl_decoder *decoder, const struct sl_field *field, void *target,
                     struct sl_span text)
{
    struct sl_span kept = sl_decoder_keep(decoder, text);
    if (decoder->err != -SL_ENOMEM) {
        memcpy(place(field, target), &kept, sizeof(kept));
    }
}

void sl_read_text(struct sl_decoder *decoder, const struct sl_field *field,
                  const struct sl_value *value, void *target)
{
    if (text_fits(decoder, field, value)) {
        set_text(decoder, field, target, value->text);
    }
}

void sl_read_name(struct sl_decoder *decoder, const struct sl_field *field,
                  const struct sl_value *value, void *target)
{
    if (!text_fits(decoder, field, value)) {
        return;
    }
    if (sl_text_has_control(value->text)) {
        sl_decoder_refuse(decoder, field->name, "must be text without control characters");
        return;
    }
    set_text(decoder, field, target, value->text);
}

/* A whole number in the field's range; 5.0 is one too, since some languages know no other. */
static bool read_whole(struct sl_decoder *decoder, const struct sl_field *field,
                       const struct sl_value *value, int64_t *ret)
{
    int64_t whole = 0;
    bool ok = value->type == SL_VALUE_INT;
    if (ok) {
        whole = value->integer;
    } else if (value->type == SL_VALUE_NUMBER && fabs(value->number) <= 9007199254740992.0 &&
               value->number == trunc(value->number)) {
        ok = true;
        whole = (int64_t)value->number;
    }
    if (!ok || whole < field->min || whole > field->max) {
        refuse_range(decoder, field, "a whole number from", "", value);
        return false;
    }
    *ret = whole;
    return true;
}

void sl_read_u32(struct sl_decoder *decoder, const struct sl_field *field,
                 const struct sl_value *value, void *target)
{
    int64_t whole;
    assert(field->min >= 0 && field->max <= UINT32_MAX);
    if (read_whole(decoder, field, value, &whole)) {
        uint32_t number = (uint32_t)whole;
        memcpy(place(field, target), &number, sizeof(number));
    }
}

void sl_read_i64(struct sl_decoder *decoder, const struct sl_field *field,
                 const struct sl_value *value, void *target)
{
    int64_t whole;
    if (read_whole(decoder, field, value, &whole)) {
        memcpy(place(field, target), &whole, sizeof(whole));
    }
}

void sl_read_number(struct sl_decoder *decoder, const struct sl_field *field,
                    const struct sl_value *value, void *target)
{
    if ((value->type != SL_VALUE_INT && value->type != SL_VALUE_NUMBER) ||
        !(value->number >= (double)field->min && value->number <= (double)field->max)) {
        refuse_range(decoder, field, "a number from", "", value);
        return;
    }
    memcpy(place(field, target), &value->number, sizeof(value->number));
}

void sl_read_bool(struct sl_decoder *decoder, const struct sl_field *field,
                  const struct sl_value *value, void *target)
{
    char shown[SHOWN];
    if (value->type != SL_VALUE_BOOL) {
        sl_value_describe(value, shown, sizeof(shown));
        sl_decoder_refuse(decoder, field->name, "must be true or false, not %s", shown);
        return;
    }
    memcpy(place(field, target), &value->boolean, sizeof(value->boolean));
}

/* "a", "b" or "c" */
static void list_names(const char *const *names, char *out, size_t size)
{
    size_t at = 0;
    for (size_t i = 0; names[i] != NULL && at < size; i++) {
        const char *before = i == 0 ? "" : names[i + 1] == NULL ? " or " : ", ";
        at += (size_t)snprintf(out + at, size - at, "%s\"%s\"", before, names[i]);
    }
}

static void refuse_choice(struct sl_decoder *decoder, const struct sl_field *field,
                          const struct sl_value *value)
{
    char shown[SHOWN], names[120];
    sl_value_describe(value, shown, sizeof(shown));
    list_names(field->names, names, sizeof(names));
    sl_decoder_refuse(decoder, field->name, "must be %s, not %s", names, shown);
}

void sl_read_choice(struct sl_decoder *decoder, const struct sl_field *field,
                    const struct sl_value *value, void *target)
{
    _Static_assert(sizeof(enum sl_mode) == sizeof(unsigned), "enums are written as unsigned");
    for (unsigned i = 0; is_texty(value) && field->names[i] != NULL; i++) {
        if (sl_span_is(value->text, field->names[i])) {
            memcpy(place(field, target), &i, sizeof(i));
            return;
        }
    }
    refuse_choice(decoder, field, value);
}

void sl_read_metadata(struct sl_decoder *decoder, const struct sl_field *field,
                      const struct sl_value *value, void *target)
{
    char shown[SHOWN];
    struct sl_buf text;
    struct sl_sink sink;
    if (value->type != SL_VALUE_MAP) {
        sl_value_describe(value, shown, sizeof(shown));
        sl_decoder_refuse(decoder, field->name, "must be an object, not %s", shown);
        return;
    }
    if (sl_value_depth(value) > SL_METADATA_DEPTH) {
        sl_decoder_refuse(decoder, field->name, "must be nested at most %d deep",
                          SL_METADATA_DEPTH);
        return;
    }
    sl_buf_init(&text, (size_t)field->max);
    sl_sink_init(&sink, &text, true);
    int rv = sl_sink_value(&sink, value);
    struct sl_json_doc *doc = NULL;
    if (rv == 0 && sl_buf_error(&text) == 0) { /* Its keys may still be there twice. */
        rv = sl_json_parse(sl_buf_span(&text), &doc, NULL, 0);
    }
    sl_json_free(doc);
    if (rv == -SL_ENOMEM || sl_buf_error(&text) == -SL_ENOMEM) {
        decoder->err = -SL_ENOMEM;
    } else if (sl_buf_error(&text) != 0) {
        sl_decoder_refuse(decoder, field->name, "must be at most %lld bytes as JSON", field->max);
    } else if (rv != 0) {
        sl_decoder_refuse(decoder, field->name, "must be an object that JSON can hold");
    } else {
        struct sl_span copy = sl_arena_copy(decoder->arena, sl_buf_span(&text));
        decoder->err = copy.data == NULL ? -SL_ENOMEM : decoder->err;
        memcpy(place(field, target), &copy, sizeof(copy));
    }
    sl_buf_fini(&text);
}

void sl_read_pass(struct sl_decoder *decoder, const struct sl_field *field,
                  const struct sl_value *value, void *target)
{
    (void)decoder;
    (void)field;
    (void)value;
    (void)target;
}
