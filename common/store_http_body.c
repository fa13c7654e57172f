/*
 * What the bodies of all HTTP stores are made of: vectors, a chunk's fields, and its id. The id
 * follows from tenant, collection, document, version and index, so that a chunk that is written
 * twice is there once, whoever writes it.
 */
#include "common/store_http.h"

#include <inttypes.h>
#include <stdio.h>

enum { KEY_MAX = 4096, METADATA_MAX = 16 << 20 };

/* Of the names below; any UUID will do, but never another one. */
static const unsigned char space[16] = {0x5a, 0x1c, 0x0e, 0x9b, 0x7f, 0x2d, 0x4c, 0x83,
                                        0x9e, 0x61, 0x3b, 0xd4, 0x08, 0xa7, 0x52, 0xf6};

void sl_http_store_put_vector(struct sl_json_writer *w, const float *vector, size_t dim)
{
    sl_json_begin_array(w);
    for (size_t i = 0; i < dim; i++) {
        sl_json_put_float(w, vector[i]);
    }
    sl_json_end_array(w);
}

static void put_text(struct sl_json_writer *w, const char *key, struct sl_span value)
{
    sl_json_key(w, key);
    sl_json_put_string(w, value);
}

/* As one line, whatever it was: bodies may be lines. */
static void put_metadata(struct sl_json_writer *w, struct sl_span metadata)
{
    struct sl_json_doc *doc = NULL;
    struct sl_buf line;
    sl_buf_init(&line, METADATA_MAX);
    int rv = metadata.len > 0 ? sl_json_parse(metadata, &doc, NULL, 0) : 0;
    if (rv == 0 && doc != NULL) {
        sl_json_dump(sl_json_root(doc), &line);
        rv = sl_json_type(sl_json_root(doc)) == SL_JSON_OBJECT ? sl_buf_error(&line) : -SL_EBADMSG;
    }
    sl_json_key(w, "metadata");
    sl_json_put_raw(w, doc != NULL ? sl_buf_span(&line) : SL_SPAN("{}"));
    if (rv != 0) {
        w->out->err = rv;
    }
    sl_json_free(doc);
    sl_buf_fini(&line);
}

void sl_http_store_put_fields(struct sl_json_writer *w, const struct sl_batch *batch, size_t i)
{
    struct sl_buf id;
    sl_buf_init(&id, KEY_MAX);
    sl_buf_append_span(&id, batch->doc_id);
    sl_buf_append_text(&id, "_");
    sl_buf_append_uint(&id, sl_batch_index(batch, i));
    put_text(w, "tenant", batch->tenant);
    put_text(w, "collection", batch->collection);
    put_text(w, "doc_id", batch->doc_id);
    put_text(w, "chunk_id", sl_buf_span(&id));
    sl_json_key(w, "chunk_index");
    sl_json_put_int(w, sl_batch_index(batch, i));
    sl_json_key(w, "version");
    sl_json_put_int(w, batch->version);
    put_text(w, "text", batch->texts[i]);
    put_metadata(w, sl_batch_metadata(batch, i));
    if (id.err != 0) {
        w->out->err = id.err;
    }
    sl_buf_fini(&id);
}

/* Each part with its length: no two keys run into the same name. */
static void add_part(struct sl_buf *name, struct sl_span part)
{
    sl_buf_append_uint(name, part.len);
    sl_buf_append_text(name, ":");
    sl_buf_append_span(name, part);
}

int sl_http_store_chunk_id(const struct sl_batch *batch, size_t i, char ret[SL_UUID_TEXT])
{
    struct sl_buf name;
    sl_buf_init(&name, KEY_MAX);
    add_part(&name, batch->tenant);
    add_part(&name, batch->collection);
    add_part(&name, batch->doc_id);
    sl_buf_printf(&name, "%" PRId64 ":%" PRIu32, batch->version, sl_batch_index(batch, i));
    int rv = sl_buf_error(&name);
    if (rv == 0) {
        sl_uuid5(space, sl_buf_span(&name), ret);
    }
    sl_buf_fini(&name);
    return rv;
}
