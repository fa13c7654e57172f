/*
 * Routing headers and endings.
 *
 * An ending is stored before it is produced, so that a worker that dies in between leaves enough
 * for another to produce the very same event and result: the bytes here are their encoded values
 * and the route that they take, as length-prefixed fields. The first byte is a format number: a
 * worker of another version that does not know it leaves the ending to one that does.
 */
#include "common/ending.h"

#include "common/codec_value.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>

enum { FORMAT = 1, ENDING_FIELDS = 7, TENANT_MAX = 128, TRACE_MAX = 128 };

static void add_header(struct sl_route *route, const char *name, struct sl_span value)
{
    if (value.len > 0) {
        assert(route->count < SL_ROUTE_HEADERS);
        route->headers[route->count++] = (struct sl_kafka_header){sl_span_of(name), value};
    }
}

void sl_route_write(struct sl_route *route, const struct sl_query *query, bool json)
{
    route->count = 0;
    add_header(route, "sluice-id", query->id);
    add_header(route, "sluice-tenant", query->tenant);
    add_header(route, "sluice-key", query->key);
    add_header(route, "content-type",
               sl_span_of(json ? "application/json" : "application/msgpack"));
    if (query->deadline_ms > 0) {
        snprintf(route->deadline, sizeof(route->deadline), "%" PRId64, query->deadline_ms);
        add_header(route, "sluice-deadline", sl_span_of(route->deadline));
    }
    if (query->reply_topic.len > 0) {
        int len = query->reply_partition >= 0
                      ? snprintf(route->reply_to, sizeof(route->reply_to), SL_SPAN_FMT ":%" PRId32,
                                 SL_SPAN_ARG(query->reply_topic), query->reply_partition)
                      : snprintf(route->reply_to, sizeof(route->reply_to), SL_SPAN_FMT,
                                 SL_SPAN_ARG(query->reply_topic));
        assert(len > 0 && (size_t)len < sizeof(route->reply_to));
        add_header(route, "reply-to", sl_span_of(route->reply_to));
        add_header(route, "reply-bundles", query->reply_bundles ? SL_SPAN("1") : SL_SPAN(""));
    }
    add_header(route, "traceparent", query->traceparent);
}

bool sl_route_json(const struct sl_record *record)
{
    struct sl_span type = sl_record_header(record, "content-type");
    const char *semicolon = type.len > 0 ? memchr(type.data, ';', type.len) : NULL;
    if (semicolon != NULL) { /* A charset or another parameter follows. */
        type.len = (size_t)(semicolon - type.data);
    }
    while (type.len > 0 && type.data[type.len - 1] == ' ') {
        type.len--;
    }
    return sl_span_equal_nocase(type, SL_SPAN("application/json"));
}

static int read_id(const struct sl_record *record, struct sl_arena *arena, struct sl_query *query,
                   struct sl_fault *fault)
{
    struct sl_span id = sl_record_header(record, "sluice-id");
    char derived[37];
    if (id.data == NULL) {
        sl_id_derive(record->topic, record->partition, record->offset, record->timestamp_ms,
                     derived);
        id = sl_span_of(derived);
    } else if (!sl_id_valid(id)) {
        snprintf(fault->message, sizeof(fault->message),
                 "header sluice-id must be 1 to 64 characters of A-Z a-z 0-9 . _ -");
        snprintf(fault->param, sizeof(fault->param), "sluice-id");
        return -SL_EBADMSG;
    }
    query->id = sl_arena_copy(arena, id);
    return query->id.data != NULL ? 0 : -SL_ENOMEM;
}

static bool topic_allowed(struct sl_span topic, const char *const *allowed)
{
    for (; *allowed != NULL; allowed++) {
        if (sl_span_is(topic, *allowed)) {
            return true;
        }
    }
    return false;
}

static int read_reply_to(struct sl_span value, const char *const *allowed, struct sl_arena *arena,
                         struct sl_query *query, struct sl_fault *fault)
{
    struct sl_span topic = value;
    long long partition = -1;
    const char *colon = value.len > 0 ? memrchr(value.data, ':', value.len) : NULL;
    if (colon != NULL) {
        size_t at = (size_t)(colon - value.data);
        topic.len = at;
        if (sl_span_to_int((struct sl_span){colon + 1, value.len - at - 1}, 0, 1000000,
                           &partition) != 0) {
            snprintf(fault->param, sizeof(fault->param), "reply-to");
            snprintf(fault->message, sizeof(fault->message),
                     "header reply-to must be topic or topic:partition");
            return -SL_EINVAL;
        }
    }
    if (topic.len > 249 || !topic_allowed(topic, allowed)) {
        snprintf(fault->param, sizeof(fault->param), "reply-to");
        snprintf(fault->message, sizeof(fault->message),
                 "header reply-to names a topic that is neither the replies topic nor one of "
                 "SLUICE_REPLY_TOPICS");
        return -SL_EINVAL;
    }
    query->reply_partition = (int32_t)partition;
    query->reply_topic = sl_arena_copy(arena, topic);
    return query->reply_topic.data != NULL ? 0 : -SL_ENOMEM;
}

static int read_deadline(struct sl_span value, struct sl_query *query, struct sl_fault *fault)
{
    long long deadline = 0;
    if (value.data == NULL) {
        return 0;
    }
    if (sl_span_to_int(value, 1, INT64_MAX, &deadline) != 0) {
        snprintf(fault->param, sizeof(fault->param), "sluice-deadline");
        snprintf(fault->message, sizeof(fault->message),
                 "header sluice-deadline must be Unix milliseconds");
        return -SL_EINVAL;
    }
    query->deadline_ms = deadline;
    return 0;
}

int sl_route_tenant(const struct sl_record *record, struct sl_arena *arena, struct sl_span *ret,
                    struct sl_fault *fault)
{
    struct sl_span tenant = sl_record_header(record, "sluice-tenant");
    int rv = 0;
    if (tenant.len > TENANT_MAX || !sl_text_valid(tenant) || sl_text_has_control(tenant)) {
        snprintf(fault->param, sizeof(fault->param), "sluice-tenant");
        snprintf(
            fault->message, sizeof(fault->message),
            "header sluice-tenant must be UTF-8 of at most %d bytes without control characters",
            TENANT_MAX);
        tenant.len = 0;
        rv = -SL_EINVAL;
    }
    *ret = sl_arena_copy(arena, tenant.len > 0 ? tenant : SL_SPAN("default"));
    return ret->data != NULL ? rv : -SL_ENOMEM;
}

int sl_route_read(const struct sl_record *record, const char *const *reply_topics,
                  struct sl_arena *arena, struct sl_query *query, struct sl_fault *fault)
{
    struct sl_span trace = sl_record_header(record, "traceparent");
    query->reply_partition = -1;
    int rv = read_id(record, arena, query, fault);
    if (rv != 0) {
        return rv;
    }
    query->traceparent = sl_arena_copy(arena, trace.len <= TRACE_MAX ? trace : SL_SPAN(""));
    query->key = sl_arena_copy(arena, sl_record_header(record, "sluice-key"));
    rv = sl_route_tenant(record, arena, &query->tenant, fault);
    if (query->traceparent.data == NULL || query->key.data == NULL || rv == -SL_ENOMEM) {
        return -SL_ENOMEM;
    }
    struct sl_span reply_to = sl_record_header(record, "reply-to");
    if (reply_to.data != NULL) { /* Always: whatever else is wrong is said there. */
        int reply_rv = read_reply_to(reply_to, reply_topics, arena, query, fault);
        rv = reply_rv != 0 ? reply_rv : rv;
        query->reply_bundles = query->reply_partition >= 0 &&
                               sl_span_is(sl_record_header(record, "reply-bundles"), "1");
    }
    return rv != 0 ? rv : read_deadline(sl_record_header(record, "sluice-deadline"), query, fault);
}

/* --- endings --- */

static void put_u32(struct sl_buf *out, size_t value)
{
    unsigned char bytes[4] = {(unsigned char)(value >> 24), (unsigned char)(value >> 16),
                              (unsigned char)(value >> 8), (unsigned char)value};
    assert(value <= UINT32_MAX);
    sl_buf_append(out, bytes, sizeof(bytes));
}

static uint32_t get_u32(const char *at)
{
    const unsigned char *b = (const unsigned char *)at;
    return (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | (uint32_t)b[3];
}

static void put_field(struct sl_buf *out, struct sl_span field)
{
    put_u32(out, field.len);
    sl_buf_append_span(out, field);
}

static uint32_t elapsed(int64_t from_ms, int64_t to_ms)
{
    int64_t ms = from_ms > 0 && to_ms > from_ms ? to_ms - from_ms : 0;
    return ms > UINT32_MAX ? UINT32_MAX : (uint32_t)ms;
}

/* Latencies that follow from the query's own times. */
static struct sl_result complete(const struct sl_query *query, const struct sl_result *result,
                                 int64_t now_ms)
{
    struct sl_result whole = *result;
    whole.total_ms = elapsed(query->accepted_ms, now_ms);
    whole.retrieval_latency_ms =
        elapsed(query->accepted_ms, query->retrieved_ms > 0 ? query->retrieved_ms : now_ms);
    if (query->mode == SL_MODE_ANSWER && query->retrieved_ms > 0) {
        whole.generation_latency_ms = elapsed(query->retrieved_ms, now_ms);
    }
    return whole;
}

void sl_ending_pack(const struct sl_query *query, const struct sl_result *result, uint32_t attempt,
                    uint32_t seq, uint64_t fence, int64_t now_ms, struct sl_buf *out)
{
    struct sl_result whole = complete(query, result, now_ms);
    struct sl_event event = {
        .type = result->outcome == SL_DONE ? SL_EVENT_DONE : SL_EVENT_ERROR,
        .id = query->id,
        .attempt = attempt,
        .seq = seq,
        .fence = fence,
        .query = query,
        .result = &whole,
    };
    struct sl_buf part;
    sl_buf_init(&part, out->max);
    unsigned char head[2] = {FORMAT, query->json ? 1 : 0};
    sl_buf_append(out, head, sizeof(head));
    put_u32(out, (uint32_t)query->reply_partition);
    put_field(out, query->id);
    put_field(out, query->key);
    put_field(out, query->tenant);
    put_field(out, query->traceparent);
    put_field(out, query->reply_topic);
    if (query->reply_topic.len > 0) {
        sl_event_encode(&event, query->json, &part);
    }
    put_field(out, sl_buf_span(&part));
    int err = sl_buf_error(&part);
    sl_buf_clear(&part);
    sl_result_encode(query, &whole, query->json, &part);
    put_field(out, sl_buf_span(&part));
    err = err != 0 ? err : sl_buf_error(&part);
    out->err = out->err != 0 ? out->err : err;
    sl_buf_fini(&part);
}

int sl_ending_unpack(struct sl_span bytes, struct sl_ending *ret)
{
    struct sl_ending ending = {0};
    struct sl_span *fields[ENDING_FIELDS] = {
        &ending.id,          &ending.key,   &ending.tenant, &ending.traceparent,
        &ending.reply_topic, &ending.event, &ending.result};
    if (bytes.len < 6) {
        return -SL_EBADMSG;
    }
    if (bytes.data[0] != FORMAT) {
        return -SL_EVERSION;
    }
    ending.json = bytes.data[1] != 0;
    ending.reply_partition = (int32_t)get_u32(bytes.data + 2);
    size_t at = 6;
    for (size_t i = 0; i < ENDING_FIELDS; i++) {
        if (bytes.len - at < 4 || get_u32(bytes.data + at) > bytes.len - at - 4) {
            return -SL_EBADMSG;
        }
        *fields[i] = (struct sl_span){bytes.data + at + 4, get_u32(bytes.data + at)};
        at += 4 + fields[i]->len;
    }
    struct sl_span topic = ending.reply_topic;
    if (at != bytes.len || topic.len > 249 ||
        (topic.len > 0 && memchr(topic.data, '\0', topic.len) != NULL)) {
        return -SL_EBADMSG;
    }
    *ret = ending;
    return 0;
}

size_t sl_ending_records(const struct sl_ending *ending, const char *results_topic,
                         struct sl_route *route, char reply[256], struct sl_outgoing out[2])
{
    struct sl_query about = {
        .id = ending->id, .tenant = ending->tenant, .traceparent = ending->traceparent};
    size_t count = 0;
    sl_route_write(route, &about, ending->json);
    struct sl_outgoing record = {.partition = -1,
                                 .key = ending->id,
                                 .headers = route->headers,
                                 .header_count = route->count};
    if (ending->reply_topic.len > 0) {
        snprintf(reply, 256, SL_SPAN_FMT, SL_SPAN_ARG(ending->reply_topic));
        out[count] = record;
        out[count].topic = reply;
        out[count].partition = ending->reply_partition;
        out[count++].value = ending->event;
    }
    out[count] = record;
    out[count].key = ending->key.len > 0 ? ending->key : ending->id;
    out[count].topic = results_topic;
    out[count++].value = ending->result;
    return count;
}
