/*
 * The body of POST /v1/chat/completions and the headers that go with it, as any caller may send
 * them: where it does not begin with a brace, the first lines are collection, time-out and
 * on_disconnect, and each is read as Last-Event-ID, Idempotency-Key and an id in a path as well.
 * What is accepted must pass between the stages, with what goes to the model as an object; what is
 * refused must say why.
 */
#include "common/json.h"
#include "tests/support/test.h"
#include "workers/gateway/chat_request.h"
#include "workers/gateway/idempotent.h"
#include "workers/gateway/query_id.h"
#include "workers/gateway/resume.h"

#include <stdint.h>

enum { MEMORY_MAX = 64 << 20, HISTORY_MAX = 64 };

/* The next line of *rest; data NULL after the last or an empty one, as where there is no header. */
static struct sl_span next_line(struct sl_span *rest)
{
    const char *end = rest->len > 0 ? memchr(rest->data, '\n', rest->len) : NULL;
    struct sl_span line = {rest->data, end != NULL ? (size_t)(end - rest->data) : 0};
    if (end != NULL) {
        rest->data += line.len + 1;
        rest->len -= line.len + 1;
    }
    return line.len > 0 ? line : (struct sl_span){NULL, 0};
}

static size_t history_bytes(const struct sl_query *query)
{
    size_t sum = 0;
    for (size_t i = 0; i < query->history_len; i++) {
        sum += query->history[i].content.len;
    }
    return sum;
}

static void check_accepted(struct chat_request *chat, struct sl_arena *arena)
{
    struct sl_query again = {.id = SL_SPAN("i")};
    struct sl_json_doc *doc = NULL;
    struct sl_fault fault;
    struct sl_buf out;
    sl_buf_init(&out, MEMORY_MAX);
    CHECK(chat->query.query.len > 0 && history_bytes(&chat->query) <= HISTORY_MAX);
    CHECK(!chat->include_usage || chat->stream);
    if (chat->query.extra.len > 0) {
        CHECK(sl_json_parse(chat->query.extra, &doc, NULL, 0) == 0);
        CHECK(sl_json_type(sl_json_root(doc)) == SL_JSON_OBJECT);
        sl_json_free(doc);
    }
    chat->query.id = SL_SPAN("i");
    sl_query_encode(&chat->query, &out);
    CHECK(sl_buf_error(&out) == 0);
    CHECK(sl_query_decode_internal(sl_buf_span(&out), arena, &again, &fault) == 0);
    CHECK(sl_span_equal(again.query, chat->query.query));
    CHECK(again.history_len == chat->query.history_len);
    sl_buf_fini(&out);
}

static void read_names(struct sl_span text)
{
    struct resume_point point = {.seq = 7};
    int rv = resume_point_read(text, &point);
    CHECK(rv == 0 ? point.given : rv == -SL_EINVAL && !point.given && point.seq == 7);
    CHECK(!idempotent_key_valid(text) || (text.len >= 1 && text.len <= 255));
    CHECK(query_id_time_ms(text) < (int64_t)1 << 48);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct sl_span body = {(const char *)data, size};
    struct chat_headers headers = {{0}, {0}, {0}};
    struct chat_request chat;
    struct sl_fault fault;
    struct sl_arena arena;
    if (size > 0 && data[0] != '{') {
        headers.collection = next_line(&body);
        headers.timeout_ms = next_line(&body);
        headers.on_disconnect = next_line(&body);
        read_names(headers.collection);
        read_names(headers.timeout_ms);
        read_names(headers.on_disconnect);
    }
    sl_arena_init(&arena, MEMORY_MAX);
    int rv = chat_request_read(body, &headers, HISTORY_MAX, &arena, &chat, &fault);
    if (rv == 0) {
        check_accepted(&chat, &arena);
    } else {
        CHECK(rv == -SL_EBADMSG || rv == -SL_EINVAL || rv == -SL_ETOOBIG);
        CHECK(fault.message[0] != '\0' && memchr(fault.message, '\0', sizeof(fault.message)));
        CHECK(memchr(fault.param, '\0', sizeof(fault.param)) != NULL);
    }
    sl_arena_fini(&arena);
    return 0;
}
