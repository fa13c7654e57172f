/* Queries: what callers may send, what they are told, and that a query between stages comes back.
 */
#include "common/codec.h"
#include "tests/support/test.h"

#include <math.h>
#include <stdint.h>

enum { ARENA_MAX = 64 << 20 };

/* SL_SPAN for static memory. */
#define BYTES(literal)                                                                             \
    {                                                                                              \
        literal, sizeof(literal) - 1                                                               \
    }

static struct sl_arena arena;
static struct sl_query query;
static struct sl_fault fault;

static void begin(void)
{
    sl_arena_fini(&arena);
    sl_arena_init(&arena, ARENA_MAX);
    memset(&query, 0, sizeof(query));
    memset(&fault, 0xee, sizeof(fault)); /* Whoever reports must end its texts. */
}

static int decode_json(struct sl_span text)
{
    begin();
    char *copy = malloc(text.len + 1); /* Given back before anything is looked at. */
    CHECK(copy != NULL);
    memcpy(copy, text.data, text.len);
    int rv = sl_query_decode((struct sl_span){copy, text.len}, true, &arena, &query, &fault);
    free(copy);
    return rv;
}

static int decode_msgpack(const void *bytes, size_t len)
{
    begin();
    char *copy = malloc(len + 1);
    CHECK(copy != NULL);
    memcpy(copy, bytes, len);
    int rv = sl_query_decode((struct sl_span){copy, len}, false, &arena, &query, &fault);
    free(copy);
    return rv;
}

static int decode_internal(struct sl_span bytes)
{
    begin();
    char *copy = malloc(bytes.len + 1);
    CHECK(copy != NULL);
    memcpy(copy, bytes.data, bytes.len);
    int rv = sl_query_decode_internal((struct sl_span){copy, bytes.len}, &arena, &query, &fault);
    free(copy);
    return rv;
}

TEST(a_query_alone_gets_every_default)
{
    CHECK_INT(decode_json(SL_SPAN("{\"query\":\"why?\"}")), 0);
    CHECK(sl_span_is(query.query, "why?"));
    CHECK(sl_span_is(query.collection, "default"));
    CHECK_INT(query.mode, SL_MODE_ANSWER);
    CHECK_INT(query.top_n, 5);
    CHECK_INT(query.timeout_ms, 60000);
    CHECK_INT(query.max_tokens, 512);
    CHECK(query.temperature == 0);
    CHECK_INT(query.model.len, 0);
    CHECK_INT(query.on_disconnect, SL_DISCONNECT_CANCEL);
    CHECK_INT(query.on_worker_lost, SL_WORKER_LOST_ERROR);
    CHECK_INT(query.history_len + query.filter_len + query.hits_len, 0);
    CHECK(query.json);
    CHECK_INT(decode_msgpack("\x81\xa5query\xc4\x04why?", 13), 0); /* As bytes. */
    CHECK(sl_span_is(query.query, "why?"));
    CHECK(!query.json);
}

static void check_full(void)
{
    CHECK(sl_span_is(query.query, "caf\xc3\xa9?"));
    CHECK(sl_span_is(query.collection, "faq"));
    CHECK_INT(query.history_len, 2);
    CHECK(!query.history[0].assistant && sl_span_is(query.history[0].content, "a"));
    CHECK(query.history[1].assistant && sl_span_is(query.history[1].content, ""));
    CHECK_INT(query.mode, SL_MODE_SEARCH);
    CHECK_INT(query.top_n, 7);
    CHECK_INT(query.timeout_ms, 100);
    CHECK_INT(query.max_tokens, 32768);
    CHECK(sl_span_is(query.model, "m"));
    CHECK(query.temperature == 0.5);
    CHECK_INT(query.on_disconnect, SL_DISCONNECT_GRACE);
    CHECK_INT(query.grace_ms, 30000);
    CHECK_INT(query.on_worker_lost, SL_WORKER_LOST_RESTART);
    CHECK_INT(query.filter_len, 2);
    CHECK(sl_span_is(query.filter[0].key, "lang") && sl_span_is(query.filter[0].value, "en"));
    CHECK(sl_span_is(query.filter[1].key, "x") && sl_span_is(query.filter[1].value, ""));
}

TEST(every_field_is_read_from_json_and_messagepack)
{
    CHECK_INT(
        decode_json(SL_SPAN(
            "{\"query\":\"caf\\u00e9?\",\"collection\":\"faq\",\"history\":[{\"role\":\"user\","
            "\"content\":\"a\"},{\"content\":\"\",\"role\":\"assistant\"}],\"mode\":\"search\","
            "\"top_n\":7.0,\"timeout_ms\":100,\"max_tokens\":32768,\"model\":\"m\","
            "\"temperature\":0.5,\"on_disconnect\":\"grace:30\",\"on_worker_lost\":\"restart\","
            "\"filter\":{\"lang\":\"en\",\"x\":\"\"}}")),
        0);
    check_full();
    static const char packed[] =
        "\x8d\xa1v\x01\xa5query\xa6"
        "caf\xc3\xa9?\xaa"
        "collection\xa3"
        "faq\xa7history\x92\x82"
        "\xa4role\xa4user\xa7"
        "content\xa1"
        "a\x82\xa7"
        "content\xa0\xa4role\xa9"
        "assistant"
        "\xa4mode\xa6search\xa5top_n\x07\xaatimeout_ms\x64\xaamax_tokens\xcd\x80\x00\xa5model\xa1m"
        "\xabtemperature\xca\x3f\x00\x00\x00\xadon_disconnect\xa8grace:30\xaeon_worker_lost\xa7"
        "restart\xa6"
        "filter\x82\xa4lang\xa2"
        "en\xa1x\xa0";
    CHECK_INT(decode_msgpack(packed, sizeof(packed) - 1), 0);
    check_full();
}

TEST(routing_members_are_left_alone)
{
    begin();
    query.id = SL_SPAN("id-1");
    query.tenant = SL_SPAN("acme");
    query.deadline_ms = 7;
    query.reply_topic = SL_SPAN("r");
    query.reply_partition = 3;
    query.top_n = 40;
    CHECK_INT(sl_query_decode(SL_SPAN("{\"query\":\"q\"}"), true, &arena, &query, &fault), 0);
    CHECK(sl_span_is(query.id, "id-1") && sl_span_is(query.tenant, "acme"));
    CHECK(sl_span_is(query.reply_topic, "r") && query.reply_partition == 3);
    CHECK_INT(query.deadline_ms, 7);
    CHECK_INT(query.top_n, 5); /* What is no routing does get its default. */
}

static const struct {
    const char *json, *param, *message;
} refusals[] = {
    {"{}", "query", "query is missing"},
    {"{\"query\":\"\"}", "query", "query must be text of 1 to 32768 bytes, not of 0"},
    {"{\"query\":5}", "query", "query must be text of 1 to 32768 bytes, not 5"},
    {"{\"query\":null}", "query", "query must be text of 1 to 32768 bytes, not null"},
    {"{\"query\":[1]}", "query", "query must be text of 1 to 32768 bytes, not a list"},
    {"{\"query\":\"q\",\"colour\":1}", "colour", "colour is not a known field"},
    {"{\"query\":\"q\",\"\":1}", "", "has a field without a name"},
    {"{\"query\":\"q\",\"v\":1}", "v", "v is not a known field"},
    {"{\"query\":\"q\",\"extra\":{}}", "extra", "extra is not a known field"},
    {"{\"query\":\"q\",\"a.b\":1}", "a.b", "a.b is not a known field"},
    {"{\"query\":\"q\",\"collection\":\"\"}", "collection",
     "collection must be text of 1 to 128 bytes, not of 0"},
    {"{\"query\":\"q\",\"collection\":\"a\\nb\"}", "collection",
     "collection must be text without control characters"},
    {"{\"query\":\"q\",\"history\":{}}", "history",
     "history must be a list of at most 64 turns, not an object"},
    {"{\"query\":\"q\",\"history\":[1]}", "history",
     "history[0] must be an object with role and content"},
    {"{\"query\":\"q\",\"history\":[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"system\","
     "\"content\":\"a\"}]}",
     "history", "history[1].role must be \"user\" or \"assistant\", not \"system\""},
    {"{\"query\":\"q\",\"history\":[{\"role\":\"user\"}]}", "history",
     "history[0].content is missing"},
    {"{\"query\":\"q\",\"history\":[{\"role\":\"user\",\"content\":\"a\",\"name\":\"b\"}]}",
     "history", "history[0].name is not a known field"},
    {"{\"query\":\"q\",\"mode\":\"fast\"}", "mode",
     "mode must be \"answer\" or \"search\", not \"fast\""},
    {"{\"query\":\"q\",\"mode\":{}}", "mode",
     "mode must be \"answer\" or \"search\", not an object"},
    {"{\"query\":\"q\",\"top_n\":0}", "top_n", "top_n must be a whole number from 1 to 50, not 0"},
    {"{\"query\":\"q\",\"top_n\":51}", "top_n",
     "top_n must be a whole number from 1 to 50, not 51"},
    {"{\"query\":\"q\",\"top_n\":\"x\"}", "top_n",
     "top_n must be a whole number from 1 to 50, not \"x\""},
    {"{\"query\":\"q\",\"top_n\":5.5}", "top_n",
     "top_n must be a whole number from 1 to 50, not 5.5"},
    {"{\"query\":\"q\",\"top_n\":1e300}", "top_n",
     "top_n must be a whole number from 1 to 50, not 1e+300"},
    {"{\"query\":\"q\",\"top_n\":true}", "top_n",
     "top_n must be a whole number from 1 to 50, not true"},
    {"{\"query\":\"q\",\"timeout_ms\":99}", "timeout_ms",
     "timeout_ms must be a whole number from 100 to 600000, not 99"},
    {"{\"query\":\"q\",\"max_tokens\":32769}", "max_tokens",
     "max_tokens must be a whole number from 1 to 32768, not 32769"},
    {"{\"query\":\"q\",\"model\":\"a\\u0007\"}", "model",
     "model must be text without control characters"},
    {"{\"query\":\"q\",\"temperature\":2.1}", "temperature",
     "temperature must be a number from 0 to 2, not 2.1"},
    {"{\"query\":\"q\",\"temperature\":\"hot\"}", "temperature",
     "temperature must be a number from 0 to 2, not \"hot\""},
    {"{\"query\":\"q\",\"on_disconnect\":\"grace:0\"}", "on_disconnect",
     "on_disconnect must be \"cancel\", \"continue\" or \"grace:SECONDS\" with 1 to 3600 seconds, "
     "not "
     "\"grace:0\""},
    {"{\"query\":\"q\",\"on_disconnect\":\"grace:3601\"}", "on_disconnect", NULL},
    {"{\"query\":\"q\",\"on_disconnect\":\"grace:\"}", "on_disconnect", NULL},
    {"{\"query\":\"q\",\"on_disconnect\":\"grace\"}", "on_disconnect", NULL},
    {"{\"query\":\"q\",\"on_disconnect\":7}", "on_disconnect", NULL},
    {"{\"query\":\"q\",\"on_worker_lost\":\"retry\"}", "on_worker_lost",
     "on_worker_lost must be \"error\" or \"restart\", not \"retry\""},
    {"{\"query\":\"q\",\"filter\":[]}", "filter", "filter must be an object of at most 16 pairs"},
    {"{\"query\":\"q\",\"filter\":{\"year\":2020}}", "filter",
     "filter.year must be text of 0 to 1024 bytes, not 2020"},
    {"{\"query\":\"q\",\"filter\":{\"\":\"a\"}}", "filter",
     "filter.(key) must be text of 1 to 128 bytes, not of 0"},
    {"{\"query\":\"q\",\"filter\":{\"a\":true}}", "filter",
     "filter.a must be text of 0 to 1024 bytes, not true"},
    {"{\"query\":\"q\",\"mode\":\"a rather long text that nobody wants to read to its end\"}",
     "mode",
     "mode must be \"answer\" or \"search\", not \"a rather long text that nobody wants to ...\""},
};

TEST(a_caller_is_told_what_is_wrong)
{
    for (size_t i = 0; i < sizeof(refusals) / sizeof(refusals[0]); i++) {
        CHECK_INT(decode_json(sl_span_of(refusals[i].json)), -SL_EINVAL);
        CHECK_STR(fault.param, refusals[i].param);
        if (refusals[i].message != NULL) {
            CHECK_STR(fault.message, refusals[i].message);
        }
    }
}

TEST(lengths_are_limited)
{
    static char text[SL_QUERY_MAX + 64];
    struct sl_buf json;
    sl_buf_init(&json, 1 << 20);
    memset(text, 'a', sizeof(text));
    for (int over = 0; over < 2; over++) {
        sl_buf_clear(&json);
        sl_buf_printf(&json, "{\"query\":\"%.*s\"}", SL_QUERY_MAX + over, text);
        CHECK_INT(decode_json(sl_buf_span(&json)), over == 0 ? 0 : -SL_EINVAL);
        sl_buf_clear(&json);
        sl_buf_printf(&json, "{\"query\":\"q\",\"collection\":\"%.*s\"}", 128 + over, text);
        CHECK_INT(decode_json(sl_buf_span(&json)), over == 0 ? 0 : -SL_EINVAL);
        sl_buf_clear(&json);
        sl_buf_append_text(&json, "{\"query\":\"q\",\"filter\":{");
        for (int i = 0; i < SL_FILTER_MAX + over; i++) {
            sl_buf_printf(&json, "%s\"k%d\":\"\"", i > 0 ? "," : "", i);
        }
        sl_buf_append_text(&json, "}}");
        CHECK_INT(decode_json(sl_buf_span(&json)), over == 0 ? 0 : -SL_EINVAL);
        sl_buf_clear(&json);
        sl_buf_append_text(&json, "{\"query\":\"q\",\"history\":[");
        for (int i = 0; i < SL_HISTORY_MAX + over; i++) {
            sl_buf_printf(&json, "%s{\"role\":\"user\",\"content\":\"\"}", i > 0 ? "," : "");
        }
        sl_buf_append_text(&json, "]}");
        CHECK_INT(decode_json(sl_buf_span(&json)), over == 0 ? 0 : -SL_EINVAL);
    }
    CHECK_STR(fault.message, "history must be a list of at most 64 turns, not of 65");
    sl_buf_fini(&json);
}

TEST(a_long_unknown_name_is_cut_at_a_character)
{
    struct sl_buf json;
    sl_buf_init(&json, 4096);
    sl_buf_append_text(&json, "{\"query\":\"q\",\"");
    for (int i = 0; i < 100; i++) {
        sl_buf_append_text(&json, "\xe2\x82\xac");
    }
    sl_buf_append_text(&json, "\":1}");
    CHECK_INT(decode_json(sl_buf_span(&json)), -SL_EINVAL);
    CHECK_INT(strlen(fault.param), 63); /* 21 whole characters. */
    sl_buf_fini(&json);
}

TEST(what_could_be_read_is_set_when_something_is_wrong)
{
    CHECK_INT(decode_json(SL_SPAN("{\"top_n\":99,\"bad\":1,\"query\":\"q\",\"collection\":\"c\","
                                  "\"mode\":\"search\"}")),
              -SL_EINVAL);
    CHECK_STR(fault.param, "top_n"); /* The first. */
    CHECK_INT(query.top_n, 5);
    CHECK(sl_span_is(query.query, "q") && sl_span_is(query.collection, "c"));
    CHECK_INT(query.mode, SL_MODE_SEARCH);
    CHECK(query.json);
}

TEST(what_is_no_map_is_no_message)
{
    static const char *const bad[] = {"",
                                      "[]",
                                      "1",
                                      "\"q\"",
                                      "null",
                                      "{",
                                      "{\"query\":\"q\"} x",
                                      "{\"query\":\"q\",\"query\":\"r\"}",
                                      "\xff"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        CHECK_INT(decode_json(sl_span_of(bad[i])), -SL_EBADMSG);
        CHECK(strlen(fault.message) > 0);
    }
    CHECK_INT(decode_json(SL_SPAN("[]")), -SL_EBADMSG);
    CHECK_STR(fault.message, "must be a JSON object");
    CHECK_INT(decode_msgpack("\x90", 1), -SL_EBADMSG);
    CHECK_STR(fault.message, "must be a MessagePack map");
    CHECK_INT(decode_msgpack("", 0), -SL_EBADMSG);
    CHECK_INT(decode_msgpack("\x80\x80", 2), -SL_EBADMSG); /* Bytes after it. */
}

TEST(messagepack_of_its_own_kind_is_checked_too)
{
    CHECK_INT(decode_msgpack("\x82\xa5query\xa1q\xa5query\xa1q", 17), -SL_EINVAL);
    CHECK_STR(fault.message, "query is there twice");
    CHECK_INT(decode_msgpack("\x82\xa5query\xa1q\x01\x02", 11), -SL_EINVAL);
    CHECK_STR(fault.message, "has a key that is not text");
    CHECK_INT(decode_msgpack("\x81\xa5query\xa2\xc3\x28", 10), -SL_EINVAL);
    CHECK_STR(fault.message, "query must be UTF-8 text without zero characters");
    CHECK_INT(decode_msgpack("\x81\xa5query\xa2q\0", 10), -SL_EINVAL);
    CHECK_STR(fault.param, "query");
    CHECK_INT(decode_msgpack("\x82\xa5query\xa1q\xa6"
                             "filter\x82\xa1k\xa0\xa1k\xa0",
                             23),
              -SL_EINVAL);
    CHECK_STR(fault.message, "filter.k is there twice");
    CHECK_INT(decode_msgpack("\x82\xa5query\xa1q\xa5top_n\xcf\xff\xff\xff\xff\xff\xff\xff\xff", 24),
              -SL_EINVAL);
    CHECK_STR(fault.param, "top_n");
}

TEST(another_major_version_is_told_apart)
{
    CHECK_INT(decode_msgpack("\x83\xa5query\xa1q\xa3new\xc0\xa1v\x02", 17), -SL_EVERSION);
    CHECK_INT(decode_msgpack("\x82\xa5query\xa1q\xa1v\x01", 12), 0);
    CHECK_INT(decode_msgpack("\x82\xa5query\xa1q\xa1v\xa1x", 13), -SL_EINVAL);
    CHECK_STR(fault.param, "v");
    CHECK_INT(decode_internal(SL_SPAN("\x81\xa1v\x02")), -SL_EVERSION);
    CHECK_INT(decode_internal(SL_SPAN("\x82\xa5query\xa1q\xa1v\xc0")), -SL_EBADMSG);
}

/* --- between stages --- */

static struct sl_query sample(void)
{
    static struct sl_turn history[] = {{false, {"h", 1}}, {true, {"i", 1}}};
    static struct sl_pair filter[] = {{{"k", 1}, {"v", 1}}};
    static const float vector[] = {0.25f, -1.5f, 3e38f};
    static struct sl_hit hits[] = {
        {BYTES("d"), BYTES("d_0"), 0, BYTES("text"), BYTES("{\"a\":1}"), 0.5, 0},
        {BYTES("e"), BYTES("e_7"), 7, BYTES(""), BYTES(""), -3, 0},
    };
    return (struct sl_query){
        .query = SL_SPAN("q"),
        .collection = SL_SPAN("c"),
        .history = history,
        .history_len = 2,
        .mode = SL_MODE_SEARCH,
        .top_n = 50,
        .timeout_ms = 600000,
        .max_tokens = 1,
        .model = SL_SPAN("m"),
        .temperature = 1.25,
        .on_disconnect = SL_DISCONNECT_GRACE,
        .grace_ms = 1000,
        .on_worker_lost = SL_WORKER_LOST_RESTART,
        .filter = filter,
        .filter_len = 1,
        .extra = SL_SPAN("{\"seed\":1}"),
        .json = true,
        .accepted_ms = 1700000000000,
        .source_topic = SL_SPAN("sluice.queries"),
        .source_partition = 11,
        .source_offset = 1ll << 40,
        .vector = vector,
        .vector_len = 3,
        .hits = hits,
        .hits_len = 2,
        .degraded = SL_DEGRADED_VECTOR | SL_DEGRADED_RERANK,
        .retrieved_ms = 1700000000123,
        .stages = {{.queue_ms = 1, .wait_ms = 2, .work_ms = 3, .attempts = 4}, {.reached = true}},
        .unknown = SL_SPAN("\xa3new\xc3\xa1z\x91\xc0"),
        .unknown_pairs = 2,
    };
}

static void encode(const struct sl_query *from, struct sl_buf *out)
{
    sl_buf_init(out, 1 << 20);
    sl_query_encode(from, out);
    CHECK_INT(sl_buf_error(out), 0);
    CHECK_INT(sl_msgpack_check(sl_buf_span(out)), 0);
}

TEST(a_query_between_stages_comes_back_whole)
{
    struct sl_query full = sample();
    struct sl_buf bytes, again;
    encode(&full, &bytes);
    CHECK_INT(decode_internal(sl_buf_span(&bytes)), 0);
    CHECK_INT(query.history_len, 2);
    CHECK(query.history[1].assistant && sl_span_is(query.history[1].content, "i"));
    CHECK_INT(query.grace_ms, 1000);
    CHECK(sl_span_is(query.extra, "{\"seed\":1}"));
    CHECK(query.json);
    CHECK(query.accepted_ms == 1700000000000 && query.retrieved_ms == 1700000000123);
    CHECK(sl_span_is(query.source_topic, "sluice.queries"));
    CHECK(query.source_partition == 11 && query.source_offset == 1ll << 40);
    CHECK_INT(query.vector_len, 3);
    CHECK(query.vector[0] == 0.25f && query.vector[1] == -1.5f && query.vector[2] == 3e38f);
    CHECK_INT(query.hits_len, 2);
    CHECK(sl_span_is(query.hits[0].metadata, "{\"a\":1}") && query.hits[0].score == 0.5);
    CHECK(sl_span_is(query.hits[1].chunk_id, "e_7") && query.hits[1].chunk_index == 7);
    CHECK_INT(query.degraded, SL_DEGRADED_VECTOR | SL_DEGRADED_RERANK);
    CHECK_INT(query.stages[0].wait_ms, 2);
    CHECK(query.stages[1].reached && query.stages[1].attempts == 0);
    CHECK(!query.stages[2].reached);
    CHECK_INT(query.unknown_pairs, 2);
    CHECK(sl_span_equal(query.unknown, full.unknown));
    encode(&query, &again); /* Nothing was lost that is not looked at above. */
    CHECK(sl_span_equal(sl_buf_span(&bytes), sl_buf_span(&again)));
    sl_buf_fini(&bytes);
    sl_buf_fini(&again);
}

TEST(a_query_that_holds_little_comes_back_too)
{
    struct sl_buf bytes;
    CHECK_INT(decode_json(SL_SPAN("{\"query\":\"q\"}")), 0);
    query.accepted_ms = 1;
    encode(&query, &bytes);
    CHECK_INT(decode_internal(sl_buf_span(&bytes)), 0);
    CHECK(sl_span_is(query.collection, "default") && query.json);
    CHECK(!query.stages[0].reached && query.hits_len == 0 && query.unknown_pairs == 0);
    CHECK_INT(decode_internal(SL_SPAN("\x81\xa5query\xa1q")), 0);
    CHECK_INT(query.top_n, 5);
    sl_buf_fini(&bytes);
}

TEST(a_job_that_no_stage_has_had_is_one_that_a_caller_may_send)
{
    struct sl_buf bytes;
    struct sl_query job = sample();
    job.json = false;
    job.accepted_ms = job.retrieved_ms = 0;
    job.source_topic = SL_SPAN("");
    job.vector_len = job.hits_len = job.degraded = job.unknown_pairs = 0;
    job.unknown = SL_SPAN("");
    memset(job.stages, 0, sizeof(job.stages));
    encode(&job, &bytes);
    CHECK_INT(decode_msgpack(bytes.data, bytes.len), 0);
    CHECK(sl_span_is(query.extra, "{\"seed\":1}"));
    job.extra = SL_SPAN("{\"seed\":1},"); /* It would break out of the request to the model. */
    sl_buf_fini(&bytes);
    encode(&job, &bytes);
    CHECK_INT(decode_msgpack(bytes.data, bytes.len), -SL_EINVAL);
    CHECK_STR(fault.param, "extra");
    sl_buf_fini(&bytes);
}

TEST(text_that_is_not_utf8_is_mended_on_its_way_out)
{
    struct sl_query bad = sample();
    struct sl_buf bytes;
    struct sl_hit hit = {.text = SL_SPAN("a\xff"
                                         "b\0c\xc3"),
                         .score = NAN};
    bad.hits = &hit;
    bad.hits_len = 1;
    encode(&bad, &bytes);
    CHECK_INT(decode_internal(sl_buf_span(&bytes)), 0);
    CHECK(sl_span_is(query.hits[0].text, "a\xef\xbf\xbd"
                                         "b\xef\xbf\xbd"
                                         "c\xef\xbf\xbd"));
    CHECK(query.hits[0].score == 0);
    sl_buf_fini(&bytes);
}

TEST(every_wrong_type_between_stages_is_refused)
{
    static const char *const keys[] = {
        "query", "collection", "history",     "mode",          "top_n",  "timeout_ms",
        "model", "max_tokens", "temperature", "on_disconnect", "filter", "on_worker_lost",
        "v",     "extra",      "json",        "accepted",      "source", "vector",
        "hits",  "degraded",   "retrieved",   "stages"};
    static const struct sl_span wrong[] = {BYTES("\xc7\x01\x05x"), BYTES("\x93\xc0\x01\x80"),
                                           BYTES("\xcb\xff\xff\xff\xff\xff\xff\xff\xff")};
    struct sl_buf bytes;
    sl_buf_init(&bytes, 4096);
    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        for (size_t j = 0; j < sizeof(wrong) / sizeof(wrong[0]); j++) {
            bool query_itself = strcmp(keys[i], "query") == 0;
            sl_buf_clear(&bytes);
            sl_buf_append_text(&bytes, query_itself ? "\x81" : "\x82\xa5query\xa1q");
            char head = (char)(0xa0 | strlen(keys[i]));
            sl_buf_append(&bytes, &head, 1);
            sl_buf_append_text(&bytes, keys[i]);
            sl_buf_append_span(&bytes, wrong[j]);
            CHECK_INT(decode_internal(sl_buf_span(&bytes)), -SL_EBADMSG);
            CHECK(strstr(fault.message, keys[i]) == fault.message);
        }
    }
    sl_buf_fini(&bytes);
}

TEST(no_cut_or_changed_byte_does_harm)
{
    struct sl_query full = sample();
    struct sl_buf bytes;
    encode(&full, &bytes);
    for (size_t len = 0; len < bytes.len; len++) {
        CHECK_INT(decode_internal((struct sl_span){bytes.data, len}), -SL_EBADMSG);
    }
    for (size_t i = 0; i < bytes.len; i++) {
        char was = bytes.data[i];
        for (int byte = 0; byte < 256; byte += 5) {
            bytes.data[i] = (char)byte;
            int rv = decode_internal(sl_buf_span(&bytes));
            CHECK(rv == 0 || rv == -SL_EBADMSG || rv == -SL_EVERSION);
        }
        bytes.data[i] = was;
    }
    sl_buf_fini(&bytes);
}

TEST(a_full_arena_is_out_of_memory_and_nothing_else)
{
    struct sl_query full = sample();
    struct sl_buf bytes;
    encode(&full, &bytes);
    int rv = -SL_ENOMEM;
    for (size_t max = 0; rv != 0; max += 512) {
        CHECK(max < ARENA_MAX);
        sl_arena_fini(&arena);
        sl_arena_init(&arena, max);
        memset(&query, 0, sizeof(query));
        rv = sl_query_decode_internal(sl_buf_span(&bytes), &arena, &query, &fault);
        CHECK(rv == 0 || rv == -SL_ENOMEM);
    }
    sl_buf_fini(&bytes);
}

/* --- lengths that lie --- */

TEST(a_claimed_length_reserves_nothing)
{
    static const struct {
        const char *bytes;
        size_t len;
    } bad[] = {
        {"\xdd\xff\xff\xff\xff", 5},
        {"\xdf\xff\xff\xff\xff", 5},
        {"\xdb\xff\xff\xff\xff", 5},
        {"\xc6\xff\xff\xff\xff", 5},
        {"\xc9\xff\xff\xff\xff\x01", 6},
        {"\xdf\x80\x00\x00\x00\x01", 6},
        {"\xc1", 1},
        {"\x91", 1},
        {"\x81\xc0", 2},
        {"\xa3"
         "ab",
         3},
        {"\xd8\x01", 2},
        {"\xcf\0\0\0\0\0\0\0", 8},
        {"", 0},
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        CHECK_INT(sl_msgpack_check((struct sl_span){bad[i].bytes, bad[i].len}), -SL_EBADMSG);
    }
    static const char *const good[] = {"\xc0", "\x90", "\x80", "\xe0", "\x7f", "\xa0"};
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        CHECK_INT(sl_msgpack_check((struct sl_span){good[i], 1}), 0);
    }
}

TEST(depth_is_limited)
{
    char deep[40];
    memset(deep, 0x91, sizeof(deep));
    deep[32] = (char)0xc0;
    CHECK_INT(sl_msgpack_check((struct sl_span){deep, 33}), 0); /* 32 lists around a null. */
    deep[32] = (char)0x90;
    CHECK_INT(sl_msgpack_check((struct sl_span){deep, 33}), -SL_EBADMSG);
}

static const struct test_case cases[] = {
    {"a_query_alone_gets_every_default", a_query_alone_gets_every_default},
    {"every_field_is_read_from_json_and_messagepack",
     every_field_is_read_from_json_and_messagepack},
    {"routing_members_are_left_alone", routing_members_are_left_alone},
    {"a_caller_is_told_what_is_wrong", a_caller_is_told_what_is_wrong},
    {"lengths_are_limited", lengths_are_limited},
    {"a_long_unknown_name_is_cut_at_a_character", a_long_unknown_name_is_cut_at_a_character},
    {"what_could_be_read_is_set_when_something_is_wrong",
     what_could_be_read_is_set_when_something_is_wrong},
    {"what_is_no_map_is_no_message", what_is_no_map_is_no_message},
    {"messagepack_of_its_own_kind_is_checked_too", messagepack_of_its_own_kind_is_checked_too},
    {"another_major_version_is_told_apart", another_major_version_is_told_apart},
    {"a_query_between_stages_comes_back_whole", a_query_between_stages_comes_back_whole},
    {"a_query_that_holds_little_comes_back_too", a_query_that_holds_little_comes_back_too},
    {"a_job_that_no_stage_has_had_is_one_that_a_caller_may_send",
     a_job_that_no_stage_has_had_is_one_that_a_caller_may_send},
    {"a_job_that_no_stage_has_had_is_one_that_a_caller_may_send",
     a_job_that_no_stage_has_had_is_one_that_a_caller_may_send},
    {"text_that_is_not_utf8_is_mended_on_its_way_out",
     text_that_is_not_utf8_is_mended_on_its_way_out},
    {"every_wrong_type_between_stages_is_refused", every_wrong_type_between_stages_is_refused},
    {"no_cut_or_changed_byte_does_harm", no_cut_or_changed_byte_does_harm},
    {"a_full_arena_is_out_of_memory_and_nothing_else",
     a_full_arena_is_out_of_memory_and_nothing_else},
    {"a_claimed_length_reserves_nothing", a_claimed_length_reserves_nothing},
    {"depth_is_limited", depth_is_limited},
    {NULL, NULL},
};

int main(int argc, char **argv)
{
    int rv = run_tests(cases, argc, argv);
    sl_arena_fini(&arena);
    return rv;
}
