/*
 * Documents that callers put in.
 *
 * A JSON body is one document or a list of them. A body of plain text or Markdown is a text as it
 * is; its names come in the URL. They are written as the JSON document that they would be, with an
 * empty text, and read by the same decoder, so that ranges and their words exist once.
 *
 * A request is taken whole or not at all: the first document that is wrong refuses it, and says by
 * its place which one that is. Memory: the body, its parsed form and the records are each as large
 * as the texts; the body goes once it is parsed, what was parsed once the records are written.
 */
#include "workers/gateway/document_request.h"

#include "common/json.h"
#include "common/text.h"

#include <stdio.h>

enum {
    ARENA_MAX = 64 << 20,
    RECORDS_MAX = 64 << 20, /* Of the body's bytes, and what a thousand documents have besides. */
    NAMES_MAX = 1 << 20,
};

static int refuse(struct sl_fault *fault, int err, const char *param, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

static int refuse(struct sl_fault *fault, int err, const char *param, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(fault->message, sizeof(fault->message), format, args);
    va_end(args);
    snprintf(fault->param, sizeof(fault->param), "%s", param);
    return err;
}

void document_request_init(struct document_request *request)
{
    *request = (struct document_request){.is_text = false};
    sl_arena_init(&request->arena, ARENA_MAX);
    sl_buf_init(&request->records, RECORDS_MAX);
    sl_buf_init(&request->body, DOCUMENT_BODY_MAX);
}

void document_request_fini(struct document_request *request)
{
    sl_buf_fini(&request->body);
    sl_buf_fini(&request->records);
    sl_arena_fini(&request->arena);
}

/* --- records --- */

static int write_records(struct document_request *request, struct sl_document *documents,
                         size_t count)
{
    request->list = sl_arena_alloc(&request->arena, count * sizeof(*request->list));
    if (request->list == NULL) {
        return -SL_ENOMEM;
    }
    for (size_t i = 0; i < count; i++) {
        size_t at = request->records.len;
        documents[i].ingest_id = request->ingest_id;
        sl_document_encode(&documents[i], &request->records);
        request->list[i] = (struct document_record){
            .doc_id = documents[i].doc_id, .at = at, .len = request->records.len - at};
    }
    request->count = count;
    request->run_collection = sl_arena_copy(&request->arena, documents[0].collection);
    return request->run_collection.data == NULL ? -SL_ENOMEM : sl_buf_error(&request->records);
}

/* --- texts --- */

static int check_texts(struct sl_document *documents, size_t count, bool in_list,
                       struct sl_fault *fault)
{
    char why[160];
    for (size_t i = 0; i < count; i++) {
        if (sl_text_check(&documents[i].text, why, sizeof(why)) == 0) {
            continue;
        }
        return in_list ? refuse(fault, -SL_EINVAL, "documents", "documents[%zu].text %s", i, why)
                       : refuse(fault, -SL_EINVAL, "text", "text %s", why);
    }
    return 0;
}

/* What is wrong with metadata is told before it becomes part of a larger value. */
static int check_metadata(struct sl_span metadata, struct sl_fault *fault)
{
    struct sl_json_doc *doc = NULL;
    char why[128] = "";
    int rv = sl_json_parse(metadata, &doc, why, sizeof(why));
    if (rv == -SL_EBADMSG) {
        rv = refuse(fault, -SL_EINVAL, "metadata", "metadata is not valid JSON: %s", why);
    }
    sl_json_free(doc);
    return rv;
}

static void write_names(const struct document_request *request, struct sl_buf *out)
{
    struct sl_json_writer w = {.out = out};
    sl_json_begin_object(&w);
    sl_json_key(&w, "doc_id");
    sl_json_put_string(&w, request->doc_id);
    sl_json_key(&w, "text");
    sl_json_put_string(&w, SL_SPAN(""));
    if (request->collection.data != NULL) {
        sl_json_key(&w, "collection");
        sl_json_put_string(&w, request->collection);
    }
    if (request->metadata.data != NULL) {
        sl_json_key(&w, "metadata");
        sl_json_put_raw(&w, request->metadata);
    }
    sl_json_end_object(&w);
}

static int decode_names(struct document_request *request, struct sl_json_doc **doc,
                        struct sl_document **documents, size_t *count, struct sl_fault *fault)
{
    struct sl_buf names;
    sl_buf_init(&names, NAMES_MAX);
    write_names(request, &names);
    int rv = sl_buf_error(&names);
    rv = rv != 0 ? rv
                 : sl_documents_decode(sl_buf_span(&names), 1, &request->arena, doc, documents,
                                       count, fault);
    sl_buf_fini(&names);
    return rv == -SL_EBADMSG ? -SL_EINVAL : rv;
}

static int read_text(struct document_request *request, struct sl_fault *fault)
{
    struct sl_json_doc *doc = NULL;
    struct sl_document *document;
    size_t count;
    if (request->body.len > DOCUMENT_TEXT_MAX) {
        return refuse(fault, -SL_ETOOBIG, "text",
                      "the text is larger than 16 MiB: it has %zu bytes", request->body.len);
    }
    int rv = request->metadata.data != NULL ? check_metadata(request->metadata, fault) : 0;
    rv = rv != 0 ? rv : decode_names(request, &doc, &document, &count, fault);
    if (rv == 0) {
        document->text = sl_buf_span(&request->body);
        rv = check_texts(document, 1, false, fault);
    }
    rv = rv != 0 ? rv : write_records(request, document, 1);
    sl_json_free(doc);
    return rv;
}

/* --- JSON --- */

static int read_json(struct document_request *request, struct sl_fault *fault)
{
    struct sl_span body = sl_buf_span(&request->body);
    struct sl_json_doc *doc = NULL;
    struct sl_document *documents;
    size_t count;
    char why[160];
    if (sl_text_check(&body, why, sizeof(why)) != 0) {
        return refuse(fault, -SL_EBADMSG, "", "%s", why);
    }
    int rv =
        sl_documents_decode(body, DOCUMENTS_MAX, &request->arena, &doc, &documents, &count, fault);
    sl_buf_fini(&request->body);
    if (rv == 0) {
        bool in_list = sl_json_get(sl_json_root(doc), "documents") != NULL;
        rv = check_texts(documents, count, in_list, fault);
    }
    rv = rv != 0 ? rv : write_records(request, documents, count);
    sl_json_free(doc);
    return rv;
}

int document_request_read(struct document_request *request, struct sl_fault *fault)
{
    *fault = (struct sl_fault){.param = ""};
    int rv = request->is_text ? read_text(request, fault) : read_json(request, fault);
    sl_buf_fini(&request->body);
    return rv;
}

int document_request_remove(struct document_request *request)
{
    struct sl_document document = {.doc_id = sl_arena_copy(&request->arena, request->doc_id),
                                   .collection =
                                       sl_arena_copy(&request->arena, request->collection),
                                   .remove = true};
    if (document.doc_id.data == NULL || document.collection.data == NULL) {
        return -SL_ENOMEM;
    }
    return write_records(request, &document, 1);
}
