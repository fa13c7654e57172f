/*
 * A JSON job or document as anyone may send it. What is accepted must pass between the stages; what
 * is refused must say why, and its result must be JSON.
 */
#include "common/codec.h"
#include "common/json.h"

#include <stdint.h>
#include <stdlib.h>

enum { MEMORY_MAX = 64 << 20 };

static void require(bool holds)
{
    if (!holds) {
        abort();
    }
}

static void try_query(struct sl_span text, struct sl_arena *arena, struct sl_buf *out)
{
    struct sl_query query = {.id = SL_SPAN("i")};
    struct sl_result result = {.outcome = SL_FAILED, .code = SL_QERR_BAD_REQUEST};
    struct sl_json_doc *doc = NULL;
    struct sl_fault fault;
    int rv = sl_query_decode(text, true, arena, &query, &fault);
    require(rv == 0 || fault.message[0] != 0);
    if (rv == 0) {
        sl_query_encode(&query, out);
        require(sl_query_decode_internal(sl_buf_span(out), arena, &query, &fault) == 0);
    } else if (rv == -SL_EINVAL) {
        result.message = sl_span_of(fault.message);
        sl_result_encode(&query, &result, true, out);
        require(sl_json_parse(sl_buf_span(out), &doc, NULL, 0) == 0);
        sl_json_free(doc);
    }
}

static void try_document(struct sl_span text, struct sl_arena *arena, struct sl_buf *out)
{
    struct sl_document document = {.tenant = SL_SPAN("t")};
    struct sl_fault fault;
    int rv = sl_document_decode(text, true, arena, &document, &fault);
    require(rv == 0 || fault.message[0] != 0);
    if (rv == 0) {
        sl_document_encode(&document, out);
        require(sl_document_decode(sl_buf_span(out), false, arena, &document, &fault) == 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct sl_span text = {(const char *)data, size};
    struct sl_arena arena;
    struct sl_buf out;
    sl_arena_init(&arena, MEMORY_MAX);
    sl_buf_init(&out, MEMORY_MAX);
    try_query(text, &arena, &out);
    sl_buf_clear(&out);
    try_document(text, &arena, &out);
    sl_arena_fini(&arena);
    sl_buf_fini(&out);
    return 0;
}
