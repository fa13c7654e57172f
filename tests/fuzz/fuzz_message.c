/*
 * MessagePack from a topic, given to every decoder. Whatever one of them accepts must be written
 * again and accepted again, the same, and what a caller would be shown of it must be JSON.
 */
#include "common/codec.h"
#include "common/ending.h"
#include "common/json.h"

#include <stdint.h>
#include <stdlib.h>

enum { MEMORY_MAX = 64 << 20 };

static struct sl_arena arena;

static void require(bool holds)
{
    if (!holds) {
        abort();
    }
}

static void require_json(struct sl_span text)
{
    struct sl_json_doc *doc = NULL;
    require(sl_json_parse(text, &doc, NULL, 0) == 0);
    sl_json_free(doc);
}

static void try_query(struct sl_span bytes, struct sl_buf *first, struct sl_buf *second)
{
    struct sl_query query = {.id = SL_SPAN("i")}, again = {.id = SL_SPAN("i")};
    struct sl_result result = {.outcome = SL_DONE};
    struct sl_fault fault;
    int rv = sl_query_decode(bytes, false, &arena, &query, &fault);
    require(rv == 0 || fault.message[0] != 0);
    if (rv == -SL_EINVAL) { /* A refused query has a result all the same. */
        sl_result_encode(&query, &result, true, first);
        require_json(sl_buf_span(first));
        sl_buf_clear(first);
    }
    if (sl_query_decode_internal(bytes, &arena, &query, &fault) != 0) {
        return;
    }
    sl_query_encode(&query, first);
    require(sl_buf_error(first) == 0);
    require(sl_query_decode_internal(sl_buf_span(first), &arena, &again, &fault) == 0);
    sl_query_encode(&again, second);
    require(sl_span_equal(sl_buf_span(first), sl_buf_span(second)));
}

static void try_event(struct sl_span bytes, struct sl_buf *first, struct sl_buf *second)
{
    struct sl_event event, again;
    if (sl_event_decode(bytes, &arena, &event) != 0) {
        return;
    }
    sl_event_encode(&event, false, second);
    require(sl_event_decode(sl_buf_span(second), &arena, &again) == 0);
    sl_buf_clear(second);
    sl_event_json(&event, first);
    sl_event_json(&again, second);
    require(sl_buf_error(first) == 0);
    require_json(sl_buf_span(first));
    require(sl_span_equal(sl_buf_span(first), sl_buf_span(second)));
}

/* A result, as MessagePack and as JSON: what is read of it is written and read again, the same. */
static void try_result(struct sl_span bytes, bool json, struct sl_buf *first, struct sl_buf *second)
{
    struct sl_ended ended, again;
    struct sl_fault fault;
    sl_buf_clear(first);
    sl_buf_clear(second);
    if (sl_result_decode(bytes, json, &arena, &ended, &fault) != 0) {
        return;
    }
    sl_result_encode(&ended.query, &ended.result, false, first);
    require(sl_buf_error(first) == 0);
    require(sl_result_decode(sl_buf_span(first), false, &arena, &again, &fault) == 0);
    sl_result_encode(&again.query, &again.result, false, second);
    require(sl_span_equal(sl_buf_span(first), sl_buf_span(second)));
}

static void try_bulk(struct sl_span bytes, struct sl_buf *first, struct sl_buf *second)
{
    struct sl_batch batch;
    struct sl_document document = {.tenant = SL_SPAN("t")};
    struct sl_fault fault;
    if (sl_batch_decode(bytes, &arena, &batch, &fault) == 0) {
        sl_batch_encode(&batch, first);
        require(sl_batch_decode(sl_buf_span(first), &arena, &batch, &fault) == 0);
    }
    if (sl_document_decode(bytes, false, &arena, &document, &fault) == 0) {
        sl_document_encode(&document, second);
        require(sl_document_decode(sl_buf_span(second), false, &arena, &document, &fault) == 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct sl_span bytes = {(const char *)data, size};
    struct sl_ending ending;
    struct sl_buf first, second;
    sl_buf_init(&first, MEMORY_MAX);
    sl_buf_init(&second, MEMORY_MAX);
    sl_arena_init(&arena, MEMORY_MAX);
    if (sl_ending_unpack(bytes, &ending) == 0) {
        bytes = ending.event; /* What a worker finds in Redis holds messages. */
    }
    if (sl_msgpack_check(bytes) == 0) {
        try_query(bytes, &first, &second);
        sl_buf_clear(&first);
        sl_buf_clear(&second);
        try_event(bytes, &first, &second);
        sl_buf_clear(&first);
        sl_buf_clear(&second);
        try_bulk(bytes, &first, &second);
        try_result(bytes, false, &first, &second);
    } else {
        struct sl_event event;
        require(sl_event_decode(bytes, &arena, &event) == -SL_EBADMSG);
    }
    sl_arena_fini(&arena);
    sl_buf_fini(&first);
    sl_buf_fini(&second);
    return 0;
}
