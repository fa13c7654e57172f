/*
 * Documents, which anyone may put on their topic, and batches of chunks, which go between the
 * workers only. A document's metadata is an object for its producer and compact JSON text from here
 * on; each of its chunks carries it to the store.
 */
#include "common/codec_parts.h"

enum {
    NAME_MAX_BYTES = 128,
    DOC_ID_MAX = 512,
    DOCUMENT_TEXT_MAX = 16 << 20,
    TEXTS_MAX = 4096,
    FAILURE_MAX = 65536
};

/* --- documents --- */

/* clang-format off */
#define FIELD(type, name, member, reader, low, high) \
    {name, reader, offsetof(struct type, member), low, high, NULL, false}
#define DOCUMENT_FIELDS                                                                            \
    {"doc_id", sl_read_name, offsetof(struct sl_document, doc_id), 1, DOC_ID_MAX, NULL, true},     \
    {"text", sl_read_text, offsetof(struct sl_document, text), 0, DOCUMENT_TEXT_MAX, NULL, false}, \
    FIELD(sl_document, "metadata", metadata, sl_read_metadata, 0, SL_METADATA_MAX),                \
    FIELD(sl_document, "collection", collection, sl_read_name, 1, NAME_MAX_BYTES),                 \
    FIELD(sl_document, "ingest_id", ingest_id, sl_read_name, 0, NAME_MAX_BYTES),                   \
    FIELD(sl_document, "delete", remove, sl_read_bool, 0, 0),                                      \
    FIELD(sl_document, "again", again, sl_read_bool, 0, 0)
/* clang-format on */

static const struct sl_field json_fields[] = {DOCUMENT_FIELDS};
static const struct sl_field msgpack_fields[] = {DOCUMENT_FIELDS,
                                                 {.name = "v", .read = sl_read_pass}};
static const struct sl_fields json_document = {json_fields, SL_FIELDS_COUNT(json_fields), true};
static const struct sl_fields msgpack_document = {msgpack_fields, SL_FIELDS_COUNT(msgpack_fields),
                                                  true};

/* A document has a text, or is to go. */
static void check_text(struct sl_decoder *decoder, const struct sl_document *document)
{
    if (decoder->err == 0 && document->text.data == NULL && !document->remove) {
        sl_decoder_refuse(decoder, "text", "is missing");
    } else if (decoder->err == 0 && document->text.len > 0 && document->remove) {
        sl_decoder_refuse(decoder, "text", "must not stand beside delete");
    }
}

int sl_document_decode(struct sl_span bytes, bool json, struct sl_arena *arena,
                       struct sl_document *document, struct sl_fault *fault)
{
    struct sl_decoder decoder = {.arena = arena, .fault = fault};
    struct sl_json_doc *doc;
    struct sl_value root;
    *document = (struct sl_document){.collection = SL_SPAN("default"), .tenant = document->tenant};
    int rv = sl_decoder_open(&decoder, bytes, json, &doc, &root);
    if (rv == 0 || rv == -SL_EINVAL) {
        sl_decoder_read(&decoder, json ? &json_document : &msgpack_document, &root, document);
        check_text(&decoder, document);
        rv = decoder.err;
    }
    sl_json_free(doc);
    return rv;
}

/* --- documents of a caller --- */

struct given {
    struct sl_document document;
    bool too_big;
};

struct given_list {
    size_t max, len;
    struct sl_document *documents;
    bool too_big;
};

static void read_given_text(struct sl_decoder *decoder, const struct sl_field *field,
                            const struct sl_value *value, void *target)
{
    struct given *given = target;
    bool fits = value->type != SL_VALUE_TEXT || value->text.len <= DOCUMENT_TEXT_MAX;
    given->too_big = !fits && decoder->err == 0;
    if (fits) {
        sl_read_text(decoder, field, value, target);
    } else {
        sl_decoder_refuse(decoder, "text", "is larger than 16 MiB: it has %zu bytes",
                          value->text.len);
    }
}

/* The id is kept, the text borrowed: it is most of the document. */
static void read_given_id(struct sl_decoder *decoder, const struct sl_field *field,
                          const struct sl_value *value, void *target)
{
    struct given *given = target;
    sl_read_name(decoder, field, value, target);
    struct sl_span copy = sl_arena_copy(decoder->arena, given->document.doc_id);
    decoder->err = copy.data == NULL ? -SL_ENOMEM : decoder->err;
    given->document.doc_id = copy;
}

/* clang-format off */
static const struct sl_field given_table[] = {
    {"doc_id", read_given_id, offsetof(struct given, document.doc_id), 1, DOC_ID_MAX, NULL, true},
    {"text", read_given_text, offsetof(struct given, document.text), 0, DOCUMENT_TEXT_MAX, NULL,
     true},
    FIELD(given, "metadata", document.metadata, sl_read_metadata, 0, SL_METADATA_MAX),
    FIELD(given, "collection", document.collection, sl_read_name, 1, NAME_MAX_BYTES),
};
/* clang-format on */

static bool read_given(struct sl_decoder *decoder, const struct sl_value *value,
                       struct sl_document *ret)
{
    static const struct sl_fields fields = {given_table, SL_FIELDS_COUNT(given_table), true};
    struct given given = {
        .document = {.collection = SL_SPAN("default"), .tenant = SL_SPAN("default")}};
    if (value->type != SL_VALUE_MAP) {
        sl_decoder_refuse(decoder, "", "must be an object");
        return false;
    }
    sl_decoder_read(decoder, &fields, value, &given);
    *ret = given.document;
    return given.too_big;
}

static void read_given_list(struct sl_decoder *decoder, const struct sl_field *field,
                            const struct sl_value *value, void *target)
{
    struct given_list *list = target;
    struct sl_value_iter iter = {.container = value};
    struct sl_value key, element;
    if (value->type != SL_VALUE_LIST || value->len == 0) {
        sl_decoder_refuse(decoder, field->name, "must be a list of at least one document");
        return;
    }
    if (value->len > list->max) {
        list->too_big = decoder->err == 0;
        sl_decoder_refuse(decoder, field->name, "must be at most %zu, not %zu", list->max,
                          value->len);
        return;
    }
    list->documents = sl_decoder_alloc(decoder, value->len * sizeof(*list->documents));
    while (decoder->err == 0 && sl_value_next(&iter, &key, &element)) {
        size_t left = sl_decoder_enter(decoder, field->name, (long long)list->len);
        list->too_big = read_given(decoder, &element, &list->documents[list->len++]);
        sl_decoder_leave(decoder, left);
    }
}

static void read_given_root(struct sl_decoder *decoder, const struct sl_value *root,
                            struct given_list *list)
{
    static const struct sl_field table[] = {
        {.name = "documents", .read = read_given_list, .required = true}};
    static const struct sl_fields fields = {table, SL_FIELDS_COUNT(table), true};
    if (sl_json_get(root->json, "documents") != NULL) {
        sl_decoder_read(decoder, &fields, root, list);
        return;
    }
    list->documents = sl_decoder_alloc(decoder, sizeof(*list->documents));
    if (list->documents != NULL) {
        list->len = 1;
        list->too_big = read_given(decoder, root, list->documents);
    }
}

int sl_documents_decode(struct sl_span bytes, size_t max, struct sl_arena *arena,
                        struct sl_json_doc **doc, struct sl_document **documents, size_t *len,
                        struct sl_fault *fault)
{
    struct sl_decoder decoder = {.arena = arena, .fault = fault, .borrow = true};
    struct given_list list = {.max = max};
    struct sl_value root;
    int rv = sl_decoder_open(&decoder, bytes, true, doc, &root);
    if (rv == 0) {
        read_given_root(&decoder, &root, &list);
        rv = decoder.err == -SL_EINVAL && list.too_big ? -SL_ETOOBIG : decoder.err;
    }
    if (rv == 0) {
        *documents = list.documents;
        *len = list.len;
    }
    return rv;
}

void sl_document_encode(const struct sl_document *document, struct sl_buf *out)
{
    struct sl_sink sink;
    sl_sink_init(&sink, out, false);
    size_t pairs = 5;
    pairs += document->ingest_id.len > 0 ? 1 : 0;
    pairs += document->again ? 1 : 0;
    sl_sink_map(&sink, pairs);
    sl_sink_int_at(&sink, "v", SL_MESSAGE_MAJOR);
    sl_sink_text_at(&sink, "doc_id", document->doc_id);
    if (document->remove) {
        sl_sink_key(&sink, "delete");
        sl_sink_bool(&sink, true);
    } else {
        sl_sink_text_at(&sink, "text", document->text);
    }
    sl_sink_key(&sink, "metadata");
    sl_sink_object(&sink, document->metadata);
    sl_sink_text_at(&sink, "collection", document->collection);
    if (document->ingest_id.len > 0) {
        sl_sink_text_at(&sink, "ingest_id", document->ingest_id);
    }
    if (document->again) {
        sl_sink_key(&sink, "again");
        sl_sink_bool(&sink, true);
    }
    sl_sink_map_end(&sink);
}

/* --- batches --- */

/* Lists whose right length is known only after all fields are read. */
struct batch_target {
    struct sl_batch batch;
    struct sl_span vectors;
    size_t headings_len, indexes_len;
};

static struct sl_span *read_list(struct sl_decoder *decoder, const struct sl_field *field,
                                 const struct sl_value *value, size_t *len)
{
    struct sl_value_iter iter = {.container = value};
    struct sl_value key, element;
    *len = 0;
    if (!sl_check_list(decoder, field->name, value, TEXTS_MAX, "texts") || value->len == 0) {
        return NULL;
    }
    struct sl_span *texts = sl_decoder_alloc(decoder, value->len * sizeof(*texts));
    while (decoder->err != -SL_ENOMEM && sl_value_next(&iter, &key, &element)) {
        texts[*len] =
            sl_read_element(decoder, field->name, (long long)*len, DOCUMENT_TEXT_MAX, &element);
        ++*len;
    }
    return texts;
}

static void read_texts(struct sl_decoder *decoder, const struct sl_field *field,
                       const struct sl_value *value, void *target)
{
    struct batch_target *batch = target;
    batch->batch.texts = read_list(decoder, field, value, &batch->batch.len);
}

static void read_headings(struct sl_decoder *decoder, const struct sl_field *field,
                          const struct sl_value *value, void *target)
{
    struct batch_target *batch = target;
    batch->batch.headings = read_list(decoder, field, value, &batch->headings_len);
}

static void read_indexes(struct sl_decoder *decoder, const struct sl_field *field,
                         const struct sl_value *value, void *target)
{
    struct batch_target *batch = target;
    struct sl_value_iter iter = {.container = value};
    struct sl_value key, element;
    if (!sl_check_list(decoder, field->name, value, TEXTS_MAX, "numbers") || value->len == 0) {
        return;
    }
    uint32_t *indexes = sl_decoder_alloc(decoder, value->len * sizeof(*indexes));
    while (decoder->err == 0 && sl_value_next(&iter, &key, &element)) {
        const struct sl_field one = {.name = field->name, .max = UINT32_MAX};
        sl_read_u32(decoder, &one, &element, &indexes[batch->indexes_len++]);
    }
    batch->batch.indexes = indexes;
}

static void read_vectors(struct sl_decoder *decoder, const struct sl_field *field,
                         const struct sl_value *value, void *target)
{
    struct sl_span *vectors = (struct sl_span *)((char *)target + field->offset);
    if (value->type != SL_VALUE_BYTES) {
        sl_decoder_refuse(decoder, field->name, "must be float32 numbers as bytes");
        return;
    }
    *vectors = value->text;
}

/* clang-format off */
static const struct sl_field batch_table[] = {
    {.name = "v", .read = sl_read_pass},
    {"doc_id", sl_read_text, offsetof(struct sl_batch, doc_id), 1, DOC_ID_MAX, NULL, true},
    FIELD(sl_batch, "tenant", tenant, sl_read_text, 0, SL_METADATA_MAX),
    FIELD(sl_batch, "collection", collection, sl_read_text, 0, NAME_MAX_BYTES),
    FIELD(sl_batch, "ingest_id", ingest_id, sl_read_text, 0, NAME_MAX_BYTES),
    FIELD(sl_batch, "metadata", metadata, sl_read_text, 0, SL_METADATA_MAX),
    FIELD(sl_batch, "version", version, sl_read_i64, 0, INT64_MAX),
    FIELD(sl_batch, "total", total_chunks, sl_read_u32, 0, UINT32_MAX),
    FIELD(sl_batch, "first", first, sl_read_u32, 0, UINT32_MAX),
    FIELD(batch_target, "texts", batch, read_texts, 0, 0),
    FIELD(batch_target, "headings", batch, read_headings, 0, 0),
    FIELD(batch_target, "indexes", batch, read_indexes, 0, 0),
    FIELD(batch_target, "vectors", vectors, read_vectors, 0, 0),
    FIELD(sl_batch, "dim", dim, sl_read_u32, 0, SL_VECTOR_MAX),
    FIELD(sl_batch, "failure", failure, sl_read_text, 0, FAILURE_MAX),
};
/* clang-format on */

static void finish_batch(struct sl_decoder *decoder, struct batch_target *target)
{
    struct sl_batch *batch = &target->batch;
    if (decoder->err == 0 && batch->headings != NULL && target->headings_len != batch->len) {
        sl_decoder_refuse(decoder, "headings", "must be as many as texts");
    }
    if (decoder->err == 0 && batch->indexes != NULL && target->indexes_len != batch->len) {
        sl_decoder_refuse(decoder, "indexes", "must be as many as texts");
    }
    if (decoder->err != 0 || target->vectors.data == NULL) {
        return;
    }
    if (batch->dim == 0 || batch->failure.len > 0 ||
        target->vectors.len != batch->len * batch->dim * sizeof(float)) {
        sl_decoder_refuse(decoder, "vectors", "must be one of dim numbers for each text");
        return;
    }
    batch->vectors = sl_decoder_floats(decoder, target->vectors);
}

int sl_batch_decode(struct sl_span bytes, struct sl_arena *arena, struct sl_batch *batch,
                    struct sl_fault *fault)
{
    static const struct sl_fields fields = {batch_table, SL_FIELDS_COUNT(batch_table), false};
    struct sl_decoder decoder = {.arena = arena, .fault = fault};
    struct batch_target target = {.batch = {.collection = SL_SPAN("default")}};
    struct sl_json_doc *doc;
    struct sl_value root;
    int rv = sl_decoder_open(&decoder, bytes, false, &doc, &root);
    if (rv == 0) {
        sl_decoder_read(&decoder, &fields, &root, &target);
        finish_batch(&decoder, &target);
        rv = decoder.err;
    }
    if (rv == 0) {
        *batch = target.batch;
    }
    return rv == -SL_EINVAL ? -SL_EBADMSG : rv;
}

static void put_texts(struct sl_sink *sink, const char *name, const struct sl_span *texts,
                      size_t len)
{
    sl_sink_key(sink, name);
    sl_sink_list(sink, len);
    for (size_t i = 0; i < len; i++) {
        sl_sink_text(sink, texts[i]);
    }
    sl_sink_list_end(sink);
}

void sl_batch_encode(const struct sl_batch *batch, struct sl_buf *out)
{
    struct sl_sink sink;
    sl_sink_init(&sink, out, false);
    size_t more = batch->vectors != NULL ? 2 : 0;
    more += batch->failure.len > 0 ? 1 : 0;
    more += batch->headings != NULL ? 1 : 0;
    more += batch->indexes != NULL ? 1 : 0;
    sl_sink_map(&sink, 10 + more);
    sl_sink_int_at(&sink, "v", SL_MESSAGE_MAJOR);
    sl_sink_text_at(&sink, "doc_id", batch->doc_id);
    sl_sink_text_at(&sink, "tenant", batch->tenant);
    sl_sink_text_at(&sink, "collection", batch->collection);
    sl_sink_text_at(&sink, "ingest_id", batch->ingest_id);
    sl_sink_text_at(&sink, "metadata", batch->metadata);
    sl_sink_int_at(&sink, "version", batch->version);
    sl_sink_int_at(&sink, "total", batch->total_chunks);
    sl_sink_int_at(&sink, "first", batch->first);
    put_texts(&sink, "texts", batch->texts, batch->len);
    if (batch->headings != NULL) {
        put_texts(&sink, "headings", batch->headings, batch->len);
    }
    if (batch->indexes != NULL) {
        sl_sink_key(&sink, "indexes");
        sl_sink_list(&sink, batch->len);
        for (size_t i = 0; i < batch->len; i++) {
            sl_sink_int(&sink, batch->indexes[i]);
        }
        sl_sink_list_end(&sink);
    }
    if (batch->vectors != NULL) {
        sl_sink_int_at(&sink, "dim", batch->dim);
        sl_sink_key(&sink, "vectors");
        sl_sink_floats(&sink, batch->vectors, batch->len * batch->dim);
    }
    if (batch->failure.len > 0) {
        sl_sink_text_at(&sink, "failure", batch->failure);
    }
    sl_sink_map_end(&sink);
}
