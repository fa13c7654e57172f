/*
 * Requests about documents, as any caller may send them: the first line is a query string, the rest
 * a body, which is JSON where it begins with a brace and else a text. What is accepted must be
 * records that the workers can read; what is refused must say why.
 */
#include "tests/support/test.h"
#include "workers/gateway/document_request.h"
#include "workers/gateway/parameters.h"

#include <stdint.h>

enum { MEMORY_MAX = 64 << 20 };

static void check_records(const struct document_request *request)
{
    for (size_t i = 0; i < request->count; i++) {
        const struct document_record *record = &request->list[i];
        const struct sl_span value = {request->records.data + record->at, record->len};
        struct sl_document document = {.remove = false};
        struct sl_fault fault;
        struct sl_arena arena;
        sl_arena_init(&arena, MEMORY_MAX);
        CHECK(sl_document_decode(value, false, &arena, &document, &fault) == 0);
        CHECK(sl_span_equal(document.doc_id, record->doc_id) && document.text.len > 0);
        CHECK(sl_span_is(document.ingest_id, "run") && !document.remove);
        sl_arena_fini(&arena);
    }
}

static void check_fault(int rv, const struct sl_fault *fault)
{
    CHECK(rv == -SL_EBADMSG || rv == -SL_EINVAL || rv == -SL_ETOOBIG);
    CHECK(fault->message[0] != '\0' && memchr(fault->message, '\0', sizeof(fault->message)));
    CHECK(memchr(fault->param, '\0', sizeof(fault->param)) != NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct parameter table[] = {{.name = "doc_id", .max = DOCUMENT_ID_MAX, .required = true},
                                {.name = "collection", .max = COLLECTION_MAX},
                                {.name = "metadata", .max = 4096}};
    const char *text = (const char *)data;
    const char *end = size > 0 ? memchr(text, '\n', size) : NULL;
    struct sl_span query = {text, end != NULL ? (size_t)(end - text) : size}, id;
    size_t used = query.len + (end != NULL ? 1 : 0);
    struct document_request request;
    struct sl_fault fault = {{0}, {0}};
    struct sl_arena names;
    sl_arena_init(&names, MEMORY_MAX);
    document_request_init(&request);
    request.ingest_id = SL_SPAN("run");
    request.is_text = size > used && text[used] != '{';
    sl_buf_append(&request.body, text + used, size - used);
    int rv = path_part_read(query, "id", DOCUMENT_ID_MAX, &names, &id, &fault);
    CHECK(rv == 0 ? id.len > 0 && id.len <= DOCUMENT_ID_MAX : fault.message[0] != '\0');
    rv = parameters_read(query, table, request.is_text ? 3 : 0, &names, &fault);
    if (rv == 0) {
        request.doc_id = table[0].value;
        request.collection = table[1].value;
        request.metadata = table[2].value;
        rv = document_request_read(&request, &fault);
    }
    if (rv == 0) {
        check_records(&request);
    } else {
        check_fault(rv, &fault);
    }
    document_request_fini(&request);
    sl_arena_fini(&names);
    return 0;
}
