/* Documents from anyone and batches between the workers. */
#include "common/codec.h"
#include "tests/support/test.h"

#include <stdint.h>

static struct sl_arena arena;
static struct sl_document document;
static struct sl_batch batch;
static struct sl_fault fault;

static void begin(void)
{
    sl_arena_fini(&arena);
    sl_arena_init(&arena, 64 << 20);
    memset(&fault, 0xee, sizeof(fault));
}

static int decode(struct sl_span bytes, bool json)
{
    begin();
    document = (struct sl_document){.tenant = SL_SPAN("acme")};
    return sl_document_decode(bytes, json, &arena, &document, &fault);
}

TEST(a_document_is_read_from_json_and_messagepack)
{
    CHECK_INT(
        decode(
            SL_SPAN("{\"doc_id\":\"a/b\",\"text\":\"t\",\"metadata\":{\"k\": [1.0, \"\\u00e9\"]},"
                    "\"collection\":\"c\",\"ingest_id\":\"r\"}"),
            true),
        0);
    CHECK(sl_span_is(document.doc_id, "a/b") && sl_span_is(document.text, "t"));
    CHECK(sl_span_is(document.metadata, "{\"k\":[1,\"\xc3\xa9\"]}"));
    CHECK(sl_span_is(document.collection, "c") && sl_span_is(document.ingest_id, "r"));
    CHECK(sl_span_is(document.tenant, "acme")); /* From a header: left alone. */
    CHECK_INT(decode(SL_SPAN("\x84\xa1v\x01\xa6"
                             "doc_id\xa1"
                             "d\xa4text\xa1t\xa8metadata\x81\xa1k\xc2"),
                     false),
              0);
    CHECK(sl_span_is(document.metadata, "{\"k\":false}"));
    CHECK(sl_span_is(document.collection, "default"));
    CHECK_INT(decode(SL_SPAN("{\"doc_id\":\"d\",\"text\":\"\"}"), true), 0);
    CHECK_INT(document.metadata.len + document.ingest_id.len, 0);
}

TEST(a_document_comes_back)
{
    struct sl_buf bytes;
    sl_buf_init(&bytes, 1 << 20);
    struct sl_document before = {.doc_id = SL_SPAN("d"),
                                 .text = SL_SPAN("some text"),
                                 .metadata = SL_SPAN("{\"a\":{\"b\":[]}}"),
                                 .collection = SL_SPAN("c"),
                                 .ingest_id = SL_SPAN("run"),
                                 .again = true};
    sl_document_encode(&before, &bytes);
    CHECK_INT(decode(sl_buf_span(&bytes), false), 0);
    CHECK(document.again);
    CHECK(sl_span_equal(document.text, before.text));
    CHECK(sl_span_equal(document.metadata, before.metadata));
    CHECK(sl_span_equal(document.ingest_id, before.ingest_id));
    sl_buf_fini(&bytes);
}

TEST(a_document_that_is_to_go_has_no_text)
{
    struct sl_buf bytes;
    sl_buf_init(&bytes, 1 << 20);
    CHECK_INT(decode(SL_SPAN("{\"doc_id\":\"d\",\"delete\":true}"), true), 0);
    CHECK(document.remove);
    struct sl_document before = {
        .doc_id = SL_SPAN("d"), .collection = SL_SPAN("c"), .remove = true};
    sl_document_encode(&before, &bytes);
    CHECK_INT(decode(sl_buf_span(&bytes), false), 0);
    CHECK(document.remove);
    CHECK_INT(document.text.len, 0);
    CHECK_INT(decode(SL_SPAN("{\"doc_id\":\"d\",\"delete\":true,\"text\":\"t\"}"), true),
              -SL_EINVAL);
    CHECK_STR(fault.param, "text");
    sl_buf_fini(&bytes);
}

TEST(chunks_keep_headings_and_indexes)
{
    struct sl_span texts[] = {SL_SPAN("one"), SL_SPAN("two")};
    const struct sl_span headings[] = {SL_SPAN("A > B"), SL_SPAN("")};
    const uint32_t indexes[] = {7, 40};
    struct sl_buf bytes;
    sl_buf_init(&bytes, 1 << 20);
    struct sl_batch before = {
        .doc_id = SL_SPAN("d"), .texts = texts, .len = 2, .headings = headings, .indexes = indexes};
    sl_batch_encode(&before, &bytes);
    begin();
    CHECK_INT(sl_batch_decode(sl_buf_span(&bytes), &arena, &batch, &fault), 0);
    CHECK(sl_span_is(batch.headings[0], "A > B") && batch.headings[1].len == 0);
    CHECK_INT(sl_batch_index(&batch, 0), 7);
    CHECK_INT(sl_batch_index(&batch, 1), 40);
    sl_buf_clear(&bytes);
    sl_buf_append_text(&bytes, "\x84\xa6"
                               "doc_id\xa1"
                               "d\xa5texts\x92\xa1"
                               "a\xa1"
                               "b\xa5total\x02\xa7indexes\x91\x07");
    begin();
    CHECK_INT(sl_batch_decode(sl_buf_span(&bytes), &arena, &batch, &fault), -SL_EBADMSG);
    CHECK_STR(fault.param, "indexes");
    sl_buf_fini(&bytes);
}

TEST(a_bad_document_says_why)
{
    static const struct {
        const char *json, *param, *message;
    } bad[] = {
        {"{\"text\":\"t\"}", "doc_id", "doc_id is missing"},
        {"{\"doc_id\":\"d\"}", "text", "text is missing"},
        {"{\"doc_id\":\"\",\"text\":\"\"}", "doc_id",
         "doc_id must be text of 1 to 512 bytes, not of 0"},
        {"{\"doc_id\":\"a\\tb\",\"text\":\"\"}", "doc_id",
         "doc_id must be text without control characters"},
        {"{\"doc_id\":\"d\",\"text\":7}", "text",
         "text must be text of 0 to 16777216 bytes, not 7"},
        {"{\"doc_id\":\"d\",\"text\":\"\",\"metadata\":\"x\"}", "metadata",
         "metadata must be an object, not \"x\""},
        {"{\"doc_id\":\"d\",\"text\":\"\",\"title\":\"x\"}", "title", "title is not a known field"},
        {"{\"doc_id\":\"d\",\"text\":\"\",\"v\":1}", "v", "v is not a known field"},
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        CHECK_INT(decode(sl_span_of(bad[i].json), true), -SL_EINVAL);
        CHECK_STR(fault.param, bad[i].param);
        CHECK_STR(fault.message, bad[i].message);
    }
    CHECK_INT(decode(SL_SPAN("["), true), -SL_EBADMSG);
    CHECK_INT(decode(SL_SPAN("\x81\xa1v\x02"), false), -SL_EVERSION);
}

TEST(metadata_must_be_what_json_can_hold)
{
#define HEAD                                                                                       \
    "\x83\xa6"                                                                                     \
    "doc_id\xa1"                                                                                   \
    "d\xa4text\xa0\xa8metadata"
    static const struct {
        const char *bytes;
        size_t len;
        const char *message;
    } bad[] = {
        {HEAD "\x81\x01\x02", sizeof(HEAD) + 2, "metadata must be an object that JSON can hold"},
        {HEAD "\x81\xa1k\xd4\x01x", sizeof(HEAD) + 5,
         "metadata must be an object that JSON can hold"},
        {HEAD "\x81\xa1k\xa1\xff", sizeof(HEAD) + 4,
         "metadata must be an object that JSON can hold"},
        {HEAD "\x82\xa1k\x01\xa1k\x02", sizeof(HEAD) + 6,
         "metadata must be an object that JSON can hold"},
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        CHECK_INT(decode((struct sl_span){bad[i].bytes, bad[i].len}, false), -SL_EINVAL);
        CHECK_STR(fault.message, bad[i].message);
    }
    for (int depth = 24; depth <= 25; depth++) { /* Its own map is one level. */
        struct sl_buf json;
        sl_buf_init(&json, 4096);
        sl_buf_append_text(&json, "{\"doc_id\":\"d\",\"text\":\"\",\"metadata\":{\"k\":");
        for (int i = 1; i < depth; i++) {
            sl_buf_append_text(&json, "[");
        }
        for (int i = 1; i < depth; i++) {
            sl_buf_append_text(&json, "]");
        }
        sl_buf_append_text(&json, "}}");
        CHECK_INT(decode(sl_buf_span(&json), true), depth == 24 ? 0 : -SL_EINVAL);
        sl_buf_fini(&json);
    }
    CHECK_STR(fault.message, "metadata must be nested at most 24 deep");
}

TEST(what_the_deepest_document_says_reaches_the_gateway)
{
    struct sl_buf text, packed;
    sl_buf_init(&text, 4096);
    sl_buf_init(&packed, 4096);
    sl_buf_append_text(&text, "{\"k\":");
    for (int i = 1; i < 24; i++) {
        sl_buf_append_text(&text, "[");
    }
    for (int i = 1; i < 24; i++) {
        sl_buf_append_text(&text, "]");
    }
    sl_buf_append_text(&text, "}");
    struct sl_hit hit = {.metadata = sl_buf_span(&text)};
    struct sl_query query = {.hits = &hit, .hits_len = 1};
    struct sl_event event = {.type = SL_EVENT_SOURCES, .id = SL_SPAN("i"), .query = &query}, back;
    sl_event_encode(&event, false, &packed);
    begin();
    CHECK_INT(sl_event_decode(sl_buf_span(&packed), &arena, &back), 0);
    CHECK(sl_span_equal(back.query->hits[0].metadata, sl_buf_span(&text)));
    sl_buf_fini(&text);
    sl_buf_fini(&packed);
}

TEST(sizes_of_a_document_are_limited)
{
    static char id[514], text[(16 << 20) + 2];
    struct sl_buf bytes;
    sl_buf_init(&bytes, 64 << 20);
    memset(id, 'a', sizeof(id));
    memset(text, 'b', sizeof(text));
    for (size_t over = 0; over < 2; over++) {
        struct sl_document big = {.doc_id = {id, 512 + over}, .collection = SL_SPAN("c")};
        sl_buf_clear(&bytes);
        sl_document_encode(&big, &bytes);
        CHECK_INT(decode(sl_buf_span(&bytes), false), over == 0 ? 0 : -SL_EINVAL);
        big = (struct sl_document){
            .doc_id = {id, 1}, .text = {text, (16 << 20) + over}, .collection = SL_SPAN("c")};
        sl_buf_clear(&bytes);
        sl_document_encode(&big, &bytes);
        CHECK_INT(decode(sl_buf_span(&bytes), false), over == 0 ? 0 : -SL_EINVAL);
        sl_buf_clear(&bytes);
        sl_buf_printf(&bytes, "{\"doc_id\":\"d\",\"text\":\"\",\"metadata\":{\"k\":\"%.*s\"}}",
                      (int)(65536 - 8 + over), text);
        CHECK_INT(decode(sl_buf_span(&bytes), true), over == 0 ? 0 : -SL_EINVAL);
    }
    CHECK_STR(fault.message, "metadata must be at most 65536 bytes as JSON");
    sl_buf_fini(&bytes);
}

/* --- batches --- */

static int batch_back(const struct sl_batch *before)
{
    struct sl_buf bytes;
    sl_buf_init(&bytes, 1 << 20);
    sl_batch_encode(before, &bytes);
    CHECK_INT(sl_buf_error(&bytes), 0);
    begin();
    memset(&batch, 0xee, sizeof(batch));
    int rv = sl_batch_decode(sl_buf_span(&bytes), &arena, &batch, &fault);
    sl_buf_fini(&bytes);
    return rv;
}

static struct sl_batch sample(void)
{
    static struct sl_span texts[] = {{"one", 3}, {"", 0}};
    static const float vectors[] = {1, 2, 3, -0.5f, 0, 1e-30f};
    return (struct sl_batch){.doc_id = SL_SPAN("d"),
                             .tenant = SL_SPAN("t"),
                             .collection = SL_SPAN("c"),
                             .ingest_id = SL_SPAN("r"),
                             .metadata = SL_SPAN("{\"k\":1}"),
                             .version = 7,
                             .total_chunks = 9,
                             .first = 5,
                             .texts = texts,
                             .len = 2,
                             .vectors = vectors,
                             .dim = 3};
}

TEST(a_batch_comes_back)
{
    struct sl_batch before = sample();
    CHECK_INT(batch_back(&before), 0);
    CHECK(sl_span_is(batch.doc_id, "d") && sl_span_is(batch.tenant, "t"));
    CHECK(sl_span_is(batch.collection, "c") && sl_span_is(batch.ingest_id, "r"));
    CHECK(sl_span_is(batch.metadata, "{\"k\":1}"));
    CHECK(batch.version == 7 && batch.total_chunks == 9 && batch.first == 5 && batch.len == 2);
    CHECK(sl_span_is(batch.texts[0], "one") && batch.texts[1].len == 0);
    CHECK(batch.dim == 3 && memcmp(batch.vectors, before.vectors, 24) == 0);
    CHECK((uintptr_t)batch.vectors % _Alignof(float) == 0);
    before.vectors = NULL;
    CHECK_INT(batch_back(&before), 0);
    CHECK(batch.vectors == NULL && batch.dim == 0 && batch.failure.len == 0);
    before.failure = SL_SPAN("too long");
    CHECK_INT(batch_back(&before), 0);
    CHECK(sl_span_is(batch.failure, "too long"));
}

TEST(vectors_that_do_not_fit_the_texts_are_refused)
{
    struct sl_batch before = sample();
    struct sl_span one = {"x", 1};
    struct sl_buf bytes;
    sl_buf_init(&bytes, 4096);
    sl_batch_encode(&before, &bytes);
    char *dim = memmem(bytes.data, bytes.len,
                       "\xa3"
                       "dim",
                       4);
    CHECK(dim != NULL && dim[4] == 3);
    static const char wrong[] = {0, 2, 4, 127};
    for (size_t i = 0; i < sizeof(wrong); i++) {
        dim[4] = wrong[i];
        begin();
        CHECK_INT(sl_batch_decode(sl_buf_span(&bytes), &arena, &batch, &fault), -SL_EBADMSG);
        CHECK_STR(fault.param, "vectors");
    }
    before.failure = one; /* Failed, and yet vectors. */
    CHECK_INT(batch_back(&before), -SL_EBADMSG);
    sl_buf_fini(&bytes);
}

TEST(no_cut_or_changed_byte_of_a_batch_does_harm)
{
    struct sl_batch before = sample();
    struct sl_buf bytes;
    sl_buf_init(&bytes, 4096);
    sl_batch_encode(&before, &bytes);
    for (size_t i = 0; i < bytes.len; i++) {
        char was = bytes.data[i];
        begin();
        CHECK_INT(sl_batch_decode((struct sl_span){bytes.data, i}, &arena, &batch, &fault),
                  -SL_EBADMSG);
        for (int byte = 0; byte < 256; byte++) {
            bytes.data[i] = (char)byte;
            begin();
            int rv = sl_batch_decode(sl_buf_span(&bytes), &arena, &batch, &fault);
            CHECK(rv == 0 || rv == -SL_EBADMSG || rv == -SL_EVERSION);
        }
        bytes.data[i] = was;
    }
    sl_buf_fini(&bytes);
}

static const struct test_case cases[] = {
    {"a_document_is_read_from_json_and_messagepack", a_document_is_read_from_json_and_messagepack},
    {"a_document_comes_back", a_document_comes_back},
    {"a_document_that_is_to_go_has_no_text", a_document_that_is_to_go_has_no_text},
    {"chunks_keep_headings_and_indexes", chunks_keep_headings_and_indexes},
    {"a_bad_document_says_why", a_bad_document_says_why},
    {"metadata_must_be_what_json_can_hold", metadata_must_be_what_json_can_hold},
    {"what_the_deepest_document_says_reaches_the_gateway",
     what_the_deepest_document_says_reaches_the_gateway},
    {"sizes_of_a_document_are_limited", sizes_of_a_document_are_limited},
    {"a_batch_comes_back", a_batch_comes_back},
    {"vectors_that_do_not_fit_the_texts_are_refused",
     vectors_that_do_not_fit_the_texts_are_refused},
    {"no_cut_or_changed_byte_of_a_batch_does_harm", no_cut_or_changed_byte_of_a_batch_does_harm},
    {NULL, NULL},
};

int main(int argc, char **argv)
{
    int rv = run_tests(cases, argc, argv);
    sl_arena_fini(&arena);
    return rv;
}
