/* Routing headers there and back, and an ending that whoever holds its bytes can produce. */
#include "common/ending.h"
#include "tests/support/test.h"

static const char *const allowed[] = {"sluice.replies", "acme.answers", NULL};

static struct sl_arena arena;
static struct sl_query query;
static struct sl_fault fault;

static struct sl_record record_with(const struct sl_kafka_header *headers, size_t count)
{
    return (struct sl_record){.topic = "sluice.queries",
                              .partition = 3,
                              .offset = 42,
                              .timestamp_ms = 1700000000000,
                              .headers = headers,
                              .header_count = count};
}

static int read_route(const struct sl_kafka_header *headers, size_t count)
{
    struct sl_record record = record_with(headers, count);
    sl_arena_fini(&arena);
    sl_arena_init(&arena, 1 << 16);
    memset(&query, 0, sizeof(query));
    memset(&fault, 0, sizeof(fault));
    return sl_route_read(&record, allowed, &arena, &query, &fault);
}

static int read_one(const char *name, const char *value)
{
    struct sl_kafka_header header = {sl_span_of(name), sl_span_of(value)};
    return read_route(&header, 1);
}

TEST(a_record_without_headers_has_a_route_of_its_own)
{
    CHECK_INT(read_route(NULL, 0), 0);
    CHECK(sl_span_is(query.id, "018bcfe5-6800-7805-a750-82b52c6c6cfa"));
    CHECK(sl_span_is(query.tenant, "default"));
    CHECK_INT(query.reply_topic.len, 0);
    CHECK_INT(query.reply_partition, -1);
    CHECK_INT(query.deadline_ms, 0);
    CHECK_INT(query.traceparent.len, 0);
}

TEST(a_route_comes_back)
{
    struct sl_query before = {.id = SL_SPAN("order-17"),
                              .tenant = SL_SPAN("acme"),
                              .deadline_ms = 1700000060000,
                              .reply_topic = SL_SPAN("acme.answers"),
                              .traceparent = SL_SPAN("00-1-2-01")};
    static const int32_t partitions[] = {-1, 0, 31};
    for (size_t i = 0; i < sizeof(partitions) / sizeof(partitions[0]); i++) {
        struct sl_route route;
        before.reply_partition = partitions[i];
        before.reply_bundles = i != 1;
        sl_route_write(&route, &before, i == 0);
        CHECK_INT(read_route(route.headers, route.count), 0);
        CHECK(sl_span_equal(query.id, before.id) && sl_span_equal(query.tenant, before.tenant));
        CHECK(sl_span_equal(query.reply_topic, before.reply_topic));
        CHECK_INT(query.reply_partition, partitions[i]);
        CHECK_INT(query.reply_bundles, i == 2); /* Only of one partition. */
        CHECK_INT(query.deadline_ms, before.deadline_ms);
        CHECK(sl_span_equal(query.traceparent, before.traceparent));
        struct sl_record record = record_with(route.headers, route.count);
        CHECK_INT(sl_route_json(&record), i == 0);
    }
}

TEST(what_a_producer_says_wrong_is_told)
{
    CHECK_INT(read_one("sluice-id", "a b"), -SL_EBADMSG);
    CHECK_STR(fault.param, "sluice-id");
    CHECK_INT(read_one("sluice-id", ""), -SL_EBADMSG);
    static const char *const replies[] = {"sluice.queries",
                                          "other",
                                          ":1",
                                          "sluice.replies:-1",
                                          "sluice.replies:",
                                          "sluice.replies:x",
                                          "sluice.replies:1:2",
                                          ""};
    for (size_t i = 0; i < sizeof(replies) / sizeof(replies[0]); i++) {
        CHECK_INT(read_one("reply-to", replies[i]), -SL_EINVAL);
        CHECK_STR(fault.param, "reply-to");
        CHECK_INT(query.reply_topic.len, 0); /* No event goes to where it must not. */
        CHECK_INT(query.id.len, 36);         /* Its result can be written. */
    }
    static const char *const deadlines[] = {"", "0", "-5", "soon", "1700000000000.5"};
    for (size_t i = 0; i < sizeof(deadlines) / sizeof(deadlines[0]); i++) {
        CHECK_INT(read_one("sluice-deadline", deadlines[i]), -SL_EINVAL);
        CHECK_STR(fault.param, "sluice-deadline");
    }
}

TEST(a_tenant_that_no_result_can_show_is_refused)
{
    char name[130];
    static const char *const wrong[] = {"a\nb", "\x7f", "\xff\xfe", "\xc3"};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        CHECK_INT(read_one("sluice-tenant", wrong[i]), -SL_EINVAL);
        CHECK_STR(fault.param, "sluice-tenant");
        CHECK(sl_span_is(query.tenant, "default")); /* Its result can be written. */
        CHECK_INT(query.id.len, 36);
    }
    struct sl_kafka_header zero = {SL_SPAN("sluice-tenant"), {"a\0b", 3}};
    CHECK_INT(read_route(&zero, 1), -SL_EINVAL);
    memset(name, 't', sizeof(name));
    name[129] = 0;
    CHECK_INT(read_one("sluice-tenant", name), -SL_EINVAL);
    CHECK_INT(read_one("sluice-tenant", name + 1), 0);
    CHECK_INT(query.tenant.len, 128);
    CHECK_INT(read_one("sluice-tenant", "Müller & Söhne"), 0);
    struct sl_kafka_header two[] = {{SL_SPAN("sluice-tenant"), SL_SPAN("a\nb")},
                                    {SL_SPAN("reply-to"), SL_SPAN("acme.answers")}};
    CHECK_INT(read_route(two, 2), -SL_EINVAL);
    CHECK_STR(fault.param, "sluice-tenant");
    CHECK(sl_span_is(query.reply_topic, "acme.answers")); /* It is told there too. */
}

TEST(a_trace_context_that_is_too_long_is_left_out)
{
    char trace[130];
    memset(trace, 'a', sizeof(trace));
    trace[129] = 0;
    CHECK_INT(read_one("traceparent", trace), 0);
    CHECK_INT(query.traceparent.len, 0);
    CHECK_INT(read_one("traceparent", trace + 1), 0);
    CHECK_INT(query.traceparent.len, 128);
}

TEST(the_content_type_is_read_as_http_does)
{
    static const struct {
        const char *type;
        bool json;
    } types[] = {{"application/json", true},    {"Application/JSON; charset=utf-8", true},
                 {"application/json ;x", true}, {"application/msgpack", false},
                 {"application/jsonx", false},  {"", false}};
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
        struct sl_kafka_header header = {SL_SPAN("content-type"), sl_span_of(types[i].type)};
        struct sl_record record = record_with(&header, 1);
        CHECK_INT(sl_route_json(&record), types[i].json);
    }
    struct sl_record bare = record_with(NULL, 0);
    CHECK(!sl_route_json(&bare));
}

/* --- endings --- */

static struct sl_query ended_query(void)
{
    return (struct sl_query){.query = SL_SPAN("why?"),
                             .id = SL_SPAN("id-1"),
                             .tenant = SL_SPAN("acme"),
                             .traceparent = SL_SPAN("00-1-2-01"),
                             .reply_topic = SL_SPAN("sluice.replies"),
                             .reply_partition = 7,
                             .accepted_ms = 1000,
                             .retrieved_ms = 1200};
}

static void pack(const struct sl_query *about, struct sl_buf *bytes)
{
    struct sl_result result = {.outcome = SL_DONE, .answer = SL_SPAN("because"), .ttft_ms = 5};
    sl_buf_init(bytes, 1 << 20);
    sl_ending_pack(about, &result, 2, 9, 77, 1500, bytes);
    CHECK_INT(sl_buf_error(bytes), 0);
}

TEST(an_ending_gives_its_event_and_then_its_result)
{
    struct sl_query about = ended_query();
    struct sl_buf bytes;
    struct sl_ending ending;
    struct sl_route route;
    struct sl_outgoing out[2];
    struct sl_event event;
    char reply[256];
    pack(&about, &bytes);
    CHECK_INT(sl_ending_unpack(sl_buf_span(&bytes), &ending), 0);
    CHECK_INT(sl_ending_records(&ending, "p.results", &route, reply, out), 2);
    CHECK_STR(out[0].topic, "sluice.replies");
    CHECK_INT(out[0].partition, 7);
    CHECK_STR(out[1].topic, "p.results");
    CHECK_INT(out[1].partition, -1);
    for (size_t i = 0; i < 2; i++) {
        struct sl_record record = record_with(out[i].headers, out[i].header_count);
        CHECK(sl_span_is(out[i].key, "id-1"));
        CHECK(sl_span_is(sl_record_header(&record, "sluice-id"), "id-1"));
        CHECK(sl_span_is(sl_record_header(&record, "sluice-tenant"), "acme"));
        CHECK(sl_span_is(sl_record_header(&record, "traceparent"), "00-1-2-01"));
        CHECK(!sl_route_json(&record));
    }
    sl_arena_fini(&arena);
    sl_arena_init(&arena, 1 << 16);
    CHECK_INT(sl_event_decode(out[0].value, &arena, &event), 0);
    CHECK_INT(event.type, SL_EVENT_DONE);
    CHECK(event.attempt == 2 && event.seq == 9 && event.fence == 77);
    CHECK_INT(event.result->total_ms, 500);
    CHECK_INT(event.result->retrieval_latency_ms, 200);
    CHECK_INT(event.result->generation_latency_ms, 300);
    CHECK_INT(event.result->ttft_ms, 5);
    CHECK(memmem(out[1].value.data, out[1].value.len, "because", 7) != NULL);
    sl_buf_fini(&bytes);
}

TEST(an_ending_of_a_json_job_is_json_and_without_reply_topic_it_has_no_event)
{
    struct sl_query about = ended_query();
    struct sl_buf bytes;
    struct sl_ending ending;
    struct sl_route route;
    struct sl_outgoing out[2];
    char reply[256];
    about.json = true;
    about.reply_topic.len = 0;
    pack(&about, &bytes);
    CHECK_INT(sl_ending_unpack(sl_buf_span(&bytes), &ending), 0);
    CHECK_INT(sl_ending_records(&ending, "results", &route, reply, out), 1);
    CHECK_STR(out[0].topic, "results");
    struct sl_record record = record_with(out[0].headers, out[0].header_count);
    CHECK(sl_route_json(&record));
    CHECK(out[0].value.len > 0 && out[0].value.data[0] == '{');
    sl_buf_fini(&bytes);
}

TEST(a_query_that_ended_before_retrieval_has_no_time_of_generation)
{
    struct sl_query about = ended_query();
    struct sl_result result = {.outcome = SL_EXPIRED, .code = SL_QERR_TIMEOUT};
    struct sl_buf bytes;
    struct sl_ending ending;
    struct sl_event event;
    about.retrieved_ms = 0;
    sl_buf_init(&bytes, 1 << 20);
    sl_ending_pack(&about, &result, 0, 0, 1, 900, &bytes); /* And a clock that stepped back. */
    CHECK_INT(sl_ending_unpack(sl_buf_span(&bytes), &ending), 0);
    sl_arena_fini(&arena);
    sl_arena_init(&arena, 1 << 16);
    CHECK_INT(sl_event_decode(ending.event, &arena, &event), 0);
    CHECK_INT(event.type, SL_EVENT_ERROR);
    CHECK_INT(event.result->outcome, SL_EXPIRED);
    CHECK_INT(event.result->code, SL_QERR_TIMEOUT);
    CHECK_INT(event.result->total_ms, 0);
    CHECK_INT(event.result->generation_latency_ms, 0);
    sl_buf_fini(&bytes);
}

TEST(bytes_that_are_no_ending_are_refused)
{
    struct sl_query about = ended_query();
    struct sl_buf bytes;
    struct sl_ending ending = {.reply_partition = 99};
    pack(&about, &bytes);
    for (size_t len = 0; len < bytes.len; len++) {
        CHECK_INT(sl_ending_unpack((struct sl_span){bytes.data, len}, &ending), -SL_EBADMSG);
    }
    CHECK_INT(ending.reply_partition, 99); /* Untouched. */
    sl_buf_append(&bytes, "x", 1);
    CHECK_INT(sl_ending_unpack(sl_buf_span(&bytes), &ending), -SL_EBADMSG);
    bytes.len--;
    bytes.data[0] = 2; /* A format of a later version. */
    CHECK_INT(sl_ending_unpack(sl_buf_span(&bytes), &ending), -SL_EVERSION);
    sl_buf_fini(&bytes);
}

TEST(an_ending_that_does_not_fit_says_so)
{
    struct sl_query about = ended_query();
    struct sl_result result = {.outcome = SL_DONE};
    struct sl_buf whole, bytes;
    pack(&about, &whole);
    for (size_t max = 0; max < whole.len - 10; max += 37) { /* 10: the answer is not in this one. */
        sl_buf_init(&bytes, max);
        sl_ending_pack(&about, &result, 2, 9, 77, 1500, &bytes);
        CHECK_INT(sl_buf_error(&bytes), -SL_ETOOBIG);
        sl_buf_fini(&bytes);
    }
    sl_buf_fini(&whole);
}

static const struct test_case cases[] = {
    {"a_record_without_headers_has_a_route_of_its_own",
     a_record_without_headers_has_a_route_of_its_own},
    {"a_route_comes_back", a_route_comes_back},
    {"what_a_producer_says_wrong_is_told", what_a_producer_says_wrong_is_told},
    {"a_tenant_that_no_result_can_show_is_refused", a_tenant_that_no_result_can_show_is_refused},
    {"a_trace_context_that_is_too_long_is_left_out", a_trace_context_that_is_too_long_is_left_out},
    {"the_content_type_is_read_as_http_does", the_content_type_is_read_as_http_does},
    {"an_ending_gives_its_event_and_then_its_result",
     an_ending_gives_its_event_and_then_its_result},
    {"an_ending_of_a_json_job",
     an_ending_of_a_json_job_is_json_and_without_reply_topic_it_has_no_event},
    {"a_query_that_ended_before_retrieval_has_no_time_of_generation",
     a_query_that_ended_before_retrieval_has_no_time_of_generation},
    {"bytes_that_are_no_ending_are_refused", bytes_that_are_no_ending_are_refused},
    {"an_ending_that_does_not_fit_says_so", an_ending_that_does_not_fit_says_so},
    {NULL, NULL},
};

int main(int argc, char **argv)
{
    int rv = run_tests(cases, argc, argv);
    sl_arena_fini(&arena);
    return rv;
}
