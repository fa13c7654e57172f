/* Results and events: what consumers see, and that an event read from a topic shows the same. */
#include "common/codec.h"
#include "common/json.h"
#include "tests/support/test.h"

#include <math.h>
#include <stdint.h>
#include <stdlib.h>

#define BYTES(literal)                                                                             \
    {                                                                                              \
        literal, sizeof(literal) - 1                                                               \
    }

static struct sl_hit hits[] = {
    {BYTES("d\"1"), BYTES("d\"1_0"), 0, BYTES("text one"),
     BYTES(
         "{\"year\": 2020, \"x\": [1.0, -2.5e30, null, true, {\"y\": \"\xc3\xa9\"}],\n\"z\": {}}"),
     0.75, 0},
    {BYTES("e"), BYTES("e_12"), 12, BYTES("two"), BYTES(""), 1, 0},
};

static struct sl_query full_query(void)
{
    return (struct sl_query){
        .query = SL_SPAN("why?"),
        .collection = SL_SPAN("faq"),
        .model = SL_SPAN("asked"),
        .id = SL_SPAN("id-1"),
        .tenant = SL_SPAN("acme"),
        .source_topic = SL_SPAN("sluice.queries"),
        .source_partition = 3,
        .source_offset = 42,
        .hits = hits,
        .hits_len = 2,
        .degraded = SL_DEGRADED_KEYWORD | SL_DEGRADED_RERANK,
        .stages = {{.queue_ms = 1, .wait_ms = 2, .work_ms = 3, .attempts = 1},
                   {.work_ms = 9, .attempts = 2},
                   {.reached = true}},
    };
}

static struct sl_result full_result(void)
{
    return (struct sl_result){
        .outcome = SL_DONE,
        .answer = SL_SPAN("because"),
        .model = SL_SPAN("m-1"),
        .finish_reason = SL_SPAN("stop"),
        .usage = {.prompt_tokens = 100, .completion_tokens = 7},
        .retrieval_latency_ms = 20,
        .generation_latency_ms = 300,
        .ttft_ms = 50,
        .total_ms = 320,
    };
}

#define CHUNK_TAIL                                                                                 \
    "\"score\":0.75,\"metadata\":{\"year\":2020,\"x\":[1,-2.5e+30,null,true,{\"y\":\"\xc3\xa9\"}]" \
    ","                                                                                            \
    "\"z\":{}}}"
#define CHUNKS_WITH_TEXT                                                                           \
    "[{\"n\":1,\"doc_id\":\"d\\\"1\",\"chunk_id\":\"d\\\"1_0\",\"chunk_index\":0,\"text\":\"text " \
    "one\"," CHUNK_TAIL                                                                            \
    ",{\"n\":2,\"doc_id\":\"e\",\"chunk_id\":\"e_12\",\"chunk_index\":12,\"text\":\"two\","        \
    "\"score\":1,\"metadata\":{}}]"
#define CHUNKS                                                                                     \
    "[{\"n\":1,\"doc_id\":\"d\\\"1\",\"chunk_id\":\"d\\\"1_0\",\"chunk_index\":0," CHUNK_TAIL      \
    ",{\"n\":2,\"doc_id\":\"e\",\"chunk_id\":\"e_12\",\"chunk_index\":12,\"score\":1,"             \
    "\"metadata\":{}}]"
#define MIDDLE                                                                                     \
    "\"retrieval_latency_ms\":20,\"generation_latency_ms\":300,\"ttft_ms\":50,\"total_ms\":320,"   \
    "\"stages\":{\"embed\":{\"queue_ms\":1,\"wait_ms\":2,\"work_ms\":3,\"attempts\":1},"           \
    "\"retrieve\":{\"queue_ms\":0,\"wait_ms\":0,\"work_ms\":9,\"attempts\":2},"                    \
    "\"rerank\":{\"queue_ms\":0,\"wait_ms\":0,\"work_ms\":0,\"attempts\":0}},"                     \
    "\"degraded\":[\"keyword\",\"rerank\"],\"usage\":{\"prompt_tokens\":100,"                      \
    "\"completion_tokens\":7,\"total_tokens\":107,\"estimated\":false},"
#define END                                                                                        \
    "\"tenant\":\"acme\",\"collection\":\"faq\",\"model\":\"m-1\","                                \
    "\"source\":{\"topic\":\"sluice.queries\",\"partition\":3,\"offset\":42}"

static void check_text(struct sl_buf *buf, const char *want)
{
    sl_buf_append(buf, "", 1);
    CHECK_INT(sl_buf_error(buf), 0);
    CHECK_STR(buf->data, want);
    sl_buf_clear(buf);
}

TEST(a_result_has_the_members_that_interfaces_lists)
{
    struct sl_query query = full_query();
    struct sl_result result = full_result();
    struct sl_buf out;
    sl_buf_init(&out, 1 << 20);
    sl_result_encode(&query, &result, true, &out);
    check_text(&out,
               "{\"id\":\"id-1\",\"outcome\":\"done\",\"query\":\"why?\",\"answer\":\"because\","
               "\"source_chunks\":" CHUNKS_WITH_TEXT "," MIDDLE "\"error\":null," END "}");
    sl_sources_json(&query, &out);
    check_text(&out, CHUNKS_WITH_TEXT);
    sl_result_encode(&query, &result, false, &out);
    CHECK_INT(sl_msgpack_check(sl_buf_span(&out)), 0);
    CHECK(memmem(out.data, out.len, "\xa8metadata\x83\xa4year\xcd\x07\xe4\xa1x\x95", 20) != NULL);
    CHECK(memmem(out.data, out.len, "\xa8metadata\x80", 10) != NULL);
    sl_buf_fini(&out);
}

TEST(a_result_of_little_has_every_member_too)
{
    struct sl_query query = {.id = SL_SPAN("i"), .tenant = SL_SPAN("t"), .model = SL_SPAN("asked")};
    struct sl_result result = {.outcome = SL_EXPIRED,
                               .code = SL_QERR_TIMEOUT,
                               .message = SL_SPAN("too late"),
                               .stage = SL_SPAN("embed")};
    struct sl_buf out;
    sl_buf_init(&out, 1 << 20);
    sl_result_encode(&query, &result, true, &out);
    check_text(
        &out,
        "{\"id\":\"i\",\"outcome\":\"expired\",\"query\":\"\",\"answer\":\"\",\"source_chunks\":"
        "[],\"retrieval_latency_ms\":0,\"generation_latency_ms\":0,\"ttft_ms\":0,"
        "\"total_ms\":0,\"stages\":{},\"degraded\":[],\"usage\":{\"prompt_tokens\":0,"
        "\"completion_tokens\":0,\"total_tokens\":0,\"estimated\":false},\"error\":{\"code\":"
        "\"timeout\",\"message\":\"too late\",\"stage\":\"embed\"},\"tenant\":\"t\","
        "\"collection\":\"\",\"model\":\"asked\",\"source\":null}");
    sl_buf_fini(&out);
}

TEST(metadata_that_is_no_object_is_an_empty_one)
{
    static const char *const bad[] = {"", "[]", "{", "7", "null", "{\"a\":1} x", "\xff"};
    struct sl_buf out;
    sl_buf_init(&out, 4096);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct sl_hit hit = {.score = NAN, .metadata = sl_span_of(bad[i])};
        struct sl_query query = {.hits = &hit, .hits_len = 1};
        sl_sources_json(&query, &out);
        check_text(&out,
                   "[{\"n\":1,\"doc_id\":\"\",\"chunk_id\":\"\",\"chunk_index\":0,\"text\":\"\","
                   "\"score\":0,\"metadata\":{}}]");
    }
    sl_buf_fini(&out);
}

/* --- events --- */

static struct sl_event event_of(enum sl_event_type type, const struct sl_query *query,
                                const struct sl_result *result)
{
    return (struct sl_event){.type = type,
                             .id = SL_SPAN("id-1"),
                             .attempt = 2,
                             .seq = 7,
                             .fence = 1700000000000000,
                             .text = SL_SPAN("a\n\"b\""),
                             .query = query,
                             .result = result};
}

TEST(each_event_shows_what_its_type_has)
{
    struct sl_query query = full_query();
    struct sl_result result = full_result(), failed = full_result();
    failed.outcome = SL_FAILED;
    failed.code = SL_QERR_UPSTREAM_ERROR;
    failed.message = SL_SPAN("no");
    failed.stage = SL_SPAN("generate");
    failed.finish_reason = (struct sl_span){0};
    const struct {
        enum sl_event_type type;
        const struct sl_result *result;
        const char *want;
    } cases[] = {
        {SL_EVENT_SOURCES, NULL,
         "{\"id\":\"id-1\",\"type\":\"sources\",\"attempt\":2,\"seq\":7,\"source_"
         "chunks\":" CHUNKS_WITH_TEXT "}"},
        {SL_EVENT_DELTA, NULL,
         "{\"id\":\"id-1\",\"type\":\"delta\",\"attempt\":2,\"seq\":7,\"text\":\"a\\n\\\"b\\\"\"}"},
        {SL_EVENT_RESTART, NULL, "{\"id\":\"id-1\",\"type\":\"restart\",\"attempt\":2,\"seq\":7}"},
        {SL_EVENT_DONE, &result,
         "{\"id\":\"id-1\",\"type\":\"done\",\"attempt\":2,\"seq\":7,\"outcome\":\"done\","
         "\"source_chunks\":" CHUNKS "," MIDDLE "\"error\":null," END
         ",\"finish_reason\":\"stop\"}"},
        {SL_EVENT_ERROR, &failed,
         "{\"id\":\"id-1\",\"type\":\"error\",\"attempt\":2,\"seq\":7,\"outcome\":\"failed\","
         "\"source_chunks\":" CHUNKS "," MIDDLE
         "\"error\":{\"code\":\"upstream_error\",\"message\":"
         "\"no\",\"stage\":\"generate\"}," END "}"},
    };
    struct sl_buf out;
    sl_buf_init(&out, 1 << 20);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct sl_event event = event_of(cases[i].type, &query, cases[i].result);
        sl_event_json(&event, &out);
        check_text(&out, cases[i].want);
        sl_event_encode(&event, true, &out); /* On Kafka: the same and the fence. */
        CHECK(memmem(out.data, out.len, "\"fence\":1700000000000000", 24) != NULL);
        sl_buf_clear(&out);
    }
    sl_buf_fini(&out);
}

/* --- reading them back: what is shown stays the same, for events made at random --- */

static uint32_t state = 1;

static uint32_t roll(uint32_t below)
{
    state = state * 1664525u + 1013904223u;
    return (state >> 8) % below;
}

static struct sl_span any_text(void)
{
    static const struct sl_span texts[] = {
        BYTES(""),          BYTES("plain"),   BYTES("\xe2\x82\xac"),
        BYTES("q\"\\\n\t"), BYTES("bad\xff"), BYTES("\x01\x7f")};
    return texts[roll(sizeof(texts) / sizeof(texts[0]))];
}

static struct sl_span any_metadata(void)
{
    static const struct sl_span objects[] = {BYTES(""),
                                             BYTES("{}"),
                                             BYTES("{\"a\":\"b\"}"),
                                             BYTES("{\"n\":-1,\"m\":18446744073709551615,\"f\":0.1,"
                                                   "\"g\":1e100,\"i\":-9223372036854775808}"),
                                             BYTES("{\"deep\":[[[[{\"x\":[]}]]],{\"\":null}]}"),
                                             BYTES("nonsense")};
    return objects[roll(sizeof(objects) / sizeof(objects[0]))];
}

static uint32_t any_number(void)
{
    static const uint32_t numbers[] = {0, 1, 127, 128, 65536, UINT32_MAX};
    return numbers[roll(6)];
}

static void any_query(struct sl_query *query, struct sl_hit *into)
{
    static const double scores[] = {0, 1, -0.5, 1e-9, 1e300, INFINITY};
    *query = (struct sl_query){.id = SL_SPAN("id-1"),
                               .tenant = any_text(),
                               .collection = any_text(),
                               .degraded = roll(8),
                               .hits = into,
                               .hits_len = roll(4)};
    for (size_t i = 0; i < query->hits_len; i++) {
        into[i] = (struct sl_hit){any_text(), any_text(),     (int64_t)any_number() - 5,
                                  any_text(), any_metadata(), scores[roll(5)],
                                  0};
    }
    for (size_t i = 0; i < SL_STAGE_COUNT; i++) {
        query->stages[i] = (struct sl_stage_time){roll(2) == 1, any_number(), any_number(),
                                                  any_number(), any_number()};
    }
    if (roll(2) == 0) {
        query->source_topic = SL_SPAN("topic");
        query->source_partition = (int32_t)roll(1000);
        query->source_offset = any_number();
    }
}

static struct sl_result any_result(void)
{
    struct sl_result result = {.outcome = (enum sl_outcome)roll(4),
                               .code = (enum sl_query_error)roll(SL_QERR_INTERNAL + 1),
                               .model = any_text(),
                               .finish_reason = any_text(),
                               .usage = {any_number(), any_number(), roll(2) == 1},
                               .retrieval_latency_ms = any_number(),
                               .generation_latency_ms = any_number(),
                               .ttft_ms = any_number(),
                               .total_ms = any_number()};
    if (result.code != SL_QERR_NONE) {
        result.message = any_text();
        result.stage = any_text();
    }
    return result;
}

TEST(an_event_that_was_read_shows_what_was_written)
{
    struct sl_buf packed, direct, read;
    struct sl_arena arena;
    sl_buf_init(&packed, 1 << 20);
    sl_buf_init(&direct, 1 << 20);
    sl_buf_init(&read, 1 << 20);
    sl_arena_init(&arena, 1 << 20);
    for (int i = 0; i < 3000; i++) {
        struct sl_hit some[4];
        struct sl_query query;
        any_query(&query, some);
        struct sl_result result = any_result();
        struct sl_event event = event_of((enum sl_event_type)(i % 5), &query, &result), back;
        event.attempt = any_number();
        event.text = any_text();
        sl_event_encode(&event, false, &packed);
        CHECK_INT(sl_event_decode(sl_buf_span(&packed), &arena, &back), 0);
        CHECK(back.fence == event.fence);
        sl_event_json(&event, &direct);
        sl_event_json(&back, &read);
        CHECK_INT(sl_buf_error(&direct), 0);
        sl_buf_append(&direct, "", 1);
        sl_buf_append(&read, "", 1);
        CHECK_STR(read.data, direct.data);
        CHECK(back.type == SL_EVENT_DELTA || (back.query != NULL && back.result != NULL));
        sl_buf_clear(&packed);
        sl_buf_clear(&direct);
        sl_buf_clear(&read);
        sl_arena_fini(&arena);
    }
    sl_buf_fini(&packed);
    sl_buf_fini(&direct);
    sl_buf_fini(&read);
}

TEST(an_event_keeps_what_the_gateway_needs)
{
    struct sl_query query = full_query();
    struct sl_result result = full_result();
    struct sl_event event = event_of(SL_EVENT_DONE, &query, &result), back;
    struct sl_buf packed;
    struct sl_arena arena;
    sl_buf_init(&packed, 1 << 20);
    sl_arena_init(&arena, 1 << 20);
    sl_event_encode(&event, false, &packed);
    CHECK_INT(sl_event_decode(sl_buf_span(&packed), &arena, &back), 0);
    sl_buf_fini(&packed);
    CHECK(sl_span_is(back.id, "id-1") && sl_span_is(back.query->id, "id-1"));
    CHECK_INT(back.attempt, 2);
    CHECK_INT(back.seq, 7);
    CHECK_INT(back.result->outcome, SL_DONE);
    CHECK(sl_span_is(back.result->finish_reason, "stop"));
    CHECK(sl_span_is(back.result->model, "m-1"));
    CHECK_INT(back.result->usage.completion_tokens, 7);
    CHECK_INT(back.query->hits_len, 2);
    CHECK(sl_span_is(back.query->hits[0].doc_id, "d\"1"));
    CHECK_INT(back.query->hits[0].text.len, 0);
    CHECK_INT(back.query->degraded, SL_DEGRADED_KEYWORD | SL_DEGRADED_RERANK);
    sl_arena_fini(&arena);
}

TEST(a_bad_event_is_refused)
{
    static const struct {
        struct sl_span bytes;
        int want;
    } bad[] = {
        {BYTES(""), -SL_EBADMSG},
        {BYTES("\x80"), -SL_EBADMSG},
        {BYTES("\x90"), -SL_EBADMSG},
        {BYTES("\x81\xa2id\xa1i"), -SL_EBADMSG},
        {BYTES("\x82\xa2id\xa1i\xa4type\xa5other"), -SL_EBADMSG},
        {BYTES("\x83\xa2id\xa1i\xa4type\xa5"
               "delta\xa3seq\xa1x"),
         -SL_EBADMSG},
        {BYTES("\x83\xa2id\xa1i\xa4type\xa5"
               "delta\xa5"
               "fence\xff"),
         -SL_EBADMSG},
        {BYTES("\x83\xa2id\xa1i\xa4type\xa5"
               "delta\xa1v\x02"),
         -SL_EVERSION},
        {BYTES("\x82\xa2id\xa1i\xa4type\xa5"
               "delta"),
         0},
        {BYTES("\x84\xa2id\xa1i\xa4type\xa4"
               "done\xa3new\x81\xc0\xc0\xa1v\x01"),
         0},
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct sl_arena arena;
        struct sl_event event;
        sl_arena_init(&arena, 1 << 16);
        CHECK_INT(sl_event_decode(bad[i].bytes, &arena, &event), bad[i].want);
        sl_arena_fini(&arena);
    }
}

TEST(no_cut_or_changed_byte_does_harm)
{
    struct sl_query query = full_query();
    struct sl_result result = full_result();
    struct sl_buf packed, shown;
    sl_buf_init(&packed, 1 << 20);
    sl_buf_init(&shown, 1 << 20);
    struct sl_event event = event_of(SL_EVENT_DONE, &query, &result), back;
    sl_event_encode(&event, false, &packed);
    for (size_t i = 0; i < packed.len; i++) {
        char was = packed.data[i];
        for (int byte = 0; byte < 256; byte += 7) {
            struct sl_arena arena;
            sl_arena_init(&arena, 1 << 20);
            packed.data[i] = (char)byte;
            if (sl_event_decode(sl_buf_span(&packed), &arena, &back) == 0) {
                sl_event_json(&back, &shown);
                CHECK_INT(sl_buf_error(&shown), 0);
                sl_buf_clear(&shown);
            }
            CHECK_INT(sl_event_decode((struct sl_span){packed.data, i}, &arena, &back),
                      -SL_EBADMSG);
            sl_arena_fini(&arena);
        }
        packed.data[i] = was;
    }
    sl_buf_fini(&packed);
    sl_buf_fini(&shown);
}

TEST(names_are_those_of_interfaces)
{
    CHECK_STR(sl_outcome_text(SL_CANCELLED), "cancelled");
    CHECK_STR(sl_outcome_text(SL_FAILED), "failed");
    CHECK_STR(sl_event_type_text(SL_EVENT_RESTART), "restart");
    CHECK_STR(sl_query_error_text(SL_QERR_NONE), "");
    CHECK_STR(sl_query_error_text(SL_QERR_WORKER_LOST), "worker_lost");
    CHECK_STR(sl_query_error_text(SL_QERR_INTERNAL), "internal");
}

/* The same members in another order, which the writer never puts them in. */
static void write_reversed(const struct sl_event *event, struct sl_buf *out)
{
    struct sl_buf delta;
    sl_buf_init(&delta, 1 << 20);
    sl_event_encode(event, false, &delta);
    CHECK(delta.len > 3 && (unsigned char)delta.data[0] == 0x86);
    size_t head = event->id.len <= 31 ? 1 : 2, id_len = 3 + head + event->id.len;
    sl_buf_append(out, delta.data, 1);
    sl_buf_append(out, delta.data + 1 + id_len, delta.len - 1 - id_len);
    sl_buf_append(out, delta.data + 1, id_len);
    sl_buf_fini(&delta);
}

static void check_delta(struct sl_span bytes, const struct sl_event *event)
{
    struct sl_arena arena;
    struct sl_event back;
    sl_arena_init(&arena, 1 << 20);
    CHECK_INT(sl_msgpack_check(bytes), 0);
    CHECK_INT(sl_event_decode(bytes, &arena, &back), 0);
    CHECK_INT(back.type, SL_EVENT_DELTA);
    CHECK(sl_span_equal(back.id, event->id) && sl_span_equal(back.text, event->text));
    CHECK(back.attempt == event->attempt && back.seq == event->seq && back.fence == event->fence);
    sl_arena_fini(&arena);
}

TEST(a_delta_is_read_in_any_order_and_size)
{
    static const size_t sizes[] = {0, 1, 31, 32, 255, 256, 65535, 65536};
    static const uint64_t numbers[] = {
        0, 127, 128, 255, 256, UINT16_MAX, UINT16_MAX + 1, UINT32_MAX, INT64_MAX};
    static char text[65536];
    memset(text, 'x', sizeof(text));
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        for (size_t j = 0; j < sizeof(numbers) / sizeof(numbers[0]); j++) {
            const struct sl_event event = {
                .type = SL_EVENT_DELTA,
                .id = {text, sizes[i] % 65 + (sizes[i] % 65 == 0)},
                .attempt = (uint32_t)numbers[j],
                .seq = (uint32_t)(numbers[j] / 2),
                .fence = numbers[j],
                .text = {text, sizes[i]},
            };
            struct sl_buf out;
            sl_buf_init(&out, 1 << 20);
            sl_event_encode(&event, false, &out);
            check_delta(sl_buf_span(&out), &event);
            sl_buf_clear(&out);
            write_reversed(&event, &out);
            check_delta(sl_buf_span(&out), &event);
            sl_buf_fini(&out);
        }
    }
}

TEST(a_delta_of_broken_text_is_made_whole)
{
    const struct sl_event event = {
        .type = SL_EVENT_DELTA, .id = SL_SPAN("id-1"), .text = {"a\xff\0z", 4}};
    const struct sl_event whole = {.type = SL_EVENT_DELTA,
                                   .id = SL_SPAN("id-1"),
                                   .text = SL_SPAN("a\xef\xbf\xbd\xef\xbf\xbdz")};
    struct sl_buf out;
    sl_buf_init(&out, 1000);
    sl_event_encode(&event, false, &out);
    check_delta(sl_buf_span(&out), &whole);
    sl_buf_fini(&out);
}

TEST(no_cut_or_changed_byte_of_a_delta_does_harm)
{
    const struct sl_event event = {.type = SL_EVENT_DELTA,
                                   .id = SL_SPAN("id-1"),
                                   .attempt = 1,
                                   .seq = 300,
                                   .fence = 70000,
                                   .text = SL_SPAN("a token")};
    struct sl_buf out;
    sl_buf_init(&out, 1000);
    sl_event_encode(&event, false, &out);
    for (size_t at = 0; at < out.len; at++) {
        for (unsigned change = 0; change < 256; change++) {
            struct sl_arena arena;
            struct sl_event back;
            char *bytes = malloc(out.len); /* Of just this size, for the sanitizer. */
            size_t len = change == 0 ? at : out.len;
            CHECK(bytes != NULL);
            memcpy(bytes, out.data, out.len);
            bytes[at] = (char)(bytes[at] ^ (char)change);
            sl_arena_init(&arena, 1 << 16);
            int rv = sl_event_decode((struct sl_span){bytes, len}, &arena, &back);
            CHECK(rv == 0 ? change > 0 && sl_msgpack_check((struct sl_span){bytes, len}) == 0
                          : rv == -SL_EBADMSG || rv == -SL_EVERSION);
            sl_arena_fini(&arena);
            free(bytes);
        }
    }
    sl_buf_fini(&out);
}

static const struct test_case cases[] = {
    {"a_result_has_the_members_that_interfaces_lists",
     a_result_has_the_members_that_interfaces_lists},
    {"a_result_of_little_has_every_member_too", a_result_of_little_has_every_member_too},
    {"metadata_that_is_no_object_is_an_empty_one", metadata_that_is_no_object_is_an_empty_one},
    {"each_event_shows_what_its_type_has", each_event_shows_what_its_type_has},
    {"an_event_that_was_read_shows_what_was_written",
     an_event_that_was_read_shows_what_was_written},
    {"an_event_keeps_what_the_gateway_needs", an_event_keeps_what_the_gateway_needs},
    {"a_bad_event_is_refused", a_bad_event_is_refused},
    {"no_cut_or_changed_byte_does_harm", no_cut_or_changed_byte_does_harm},
    {"a_delta_is_read_in_any_order_and_size", a_delta_is_read_in_any_order_and_size},
    {"a_delta_of_broken_text_is_made_whole", a_delta_of_broken_text_is_made_whole},
    {"no_cut_or_changed_byte_of_a_delta_does_harm", no_cut_or_changed_byte_of_a_delta_does_harm},
    {"names_are_those_of_interfaces", names_are_those_of_interfaces},
    {NULL, NULL},
};

int main(int argc, char **argv)
{
    return run_tests(cases, argc, argv);
}
