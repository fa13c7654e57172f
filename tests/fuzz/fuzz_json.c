/*
 * The JSON reader and writer under arbitrary bytes: what is accepted keeps the promises that later
 * code relies on, and reads back the same after it was written; any bytes can be put as a string.
 */
#include "common/chunk.h"
#include "common/json.h"

#include <stdint.h>
#include <stdlib.h>

static void check(bool good)
{
    if (!good) {
        abort();
    }
}

static void check_string(struct sl_span text)
{
    check(sl_utf8_valid(text) == text.len);
    check(text.len == 0 || memchr(text.data, '\0', text.len) == NULL);
}

/* Writes value through the writer; the depth limit bounds the recursion. */
static void copy_value(const struct sl_json *value, struct sl_json_writer *w, int depth);

static void copy_children(const struct sl_json *value, struct sl_json_writer *w, int depth)
{
    bool object = sl_json_type(value) == SL_JSON_OBJECT;
    const struct sl_json *child;
    struct sl_span key;
    size_t at = 0, count = 0;
    check(depth <= 32);
    while (sl_json_each(value, &at, &key, &child)) {
        if (object) {
            check_string(key);
            sl_json_key_span(w, key);
        }
        copy_value(child, w, depth);
        count++;
    }
    check(count == sl_json_len(value));
}

static void copy_value(const struct sl_json *value, struct sl_json_writer *w, int depth)
{
    switch (sl_json_type(value)) {
    case SL_JSON_NULL:
        sl_json_put_null(w);
        break;
    case SL_JSON_BOOL:
        sl_json_put_bool(w, sl_json_bool(value));
        break;
    case SL_JSON_INT:
        sl_json_put_int(w, sl_json_int(value));
        break;
    case SL_JSON_NUMBER:
        sl_json_put_number(w, sl_json_number(value));
        break;
    case SL_JSON_STRING:
        check_string(sl_json_string(value));
        sl_json_put_string(w, sl_json_string(value));
        break;
    case SL_JSON_ARRAY:
        sl_json_begin_array(w);
        copy_children(value, w, depth + 1);
        sl_json_end_array(w);
        break;
    case SL_JSON_OBJECT:
        sl_json_begin_object(w);
        copy_children(value, w, depth + 1);
        sl_json_end_object(w);
        break;
    }
}

/* Parses text and writes it to out: false when it is refused. */
static bool rewrite(struct sl_span text, struct sl_buf *out)
{
    struct sl_json_doc *doc;
    struct sl_json_writer w = {.out = out};
    char why[128] = "";
    int rv = sl_json_parse(text, &doc, why, sizeof(why));
    if (rv != 0) {
        check(rv == -SL_EBADMSG && why[0] != '\0');
        return false;
    }
    copy_value(sl_json_root(doc), &w, 0);
    check(sl_buf_error(out) == 0);
    struct sl_buf dump;
    sl_buf_init(&dump, 64 << 20);
    sl_json_dump(sl_json_root(doc), &dump);
    check(sl_buf_error(&dump) == 0 && dump.len > 0);
    sl_buf_fini(&dump);
    sl_json_free(doc);
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct sl_span bytes = {(const char *)data, size};
    struct sl_buf once, twice;
    sl_buf_init(&once, 64 << 20);
    sl_buf_init(&twice, 64 << 20);
    if (rewrite(bytes, &once)) {
        check(rewrite(sl_buf_span(&once), &twice));
        check(sl_span_equal(sl_buf_span(&once), sl_buf_span(&twice)));
    }
    sl_buf_clear(&once);
    sl_buf_clear(&twice);
    sl_json_put_string(&(struct sl_json_writer){.out = &once}, bytes);
    check(rewrite(sl_buf_span(&once), &twice) == (memchr(data, '\0', size) == NULL));
    sl_buf_fini(&once);
    sl_buf_fini(&twice);
    return 0;
}
