/* What is read of requests about documents: bodies, query strings, parts of paths. */
#include "common/http_text.h"
#include "common/text.h"
#include "tests/support/alloc_fail.h"
#include "tests/support/test.h"
#include "workers/gateway/document_request.h"
#include "workers/gateway/parameters.h"

static struct document_request request;
static struct sl_fault fault;

static int read_body(const char *body, bool is_text)
{
    document_request_init(&request);
    request.is_text = is_text;
    request.doc_id = SL_SPAN("a \"b\".md");
    request.ingest_id = SL_SPAN("run-1");
    sl_buf_append_text(&request.body, body);
    return document_request_read(&request, &fault);
}

static void decode(size_t i, struct sl_arena *arena, struct sl_document *ret)
{
    const struct document_record *record = &request.list[i];
    struct sl_fault wrong;
    *ret = (struct sl_document){.tenant = SL_SPAN("t")};
    CHECK_INT(sl_document_decode((struct sl_span){request.records.data + record->at, record->len},
                                 false, arena, ret, &wrong),
              0);
    CHECK(sl_span_equal(ret->doc_id, record->doc_id));
}

TEST(each_document_of_a_batch_becomes_a_record)
{
    struct sl_document document;
    struct sl_arena arena;
    sl_arena_init(&arena, 1 << 20);
    CHECK_INT(read_body("{\"documents\":[{\"doc_id\":\"a\",\"text\":\"one\",\"collection\":\"c\"},"
                        "{\"text\":\"\\u00fc\",\"metadata\":{\"k\":[1]},\"doc_id\":\"b/c\"}]}",
                        false),
              0);
    CHECK_INT(request.count, 2);
    CHECK(sl_span_is(request.run_collection, "c"));
    decode(1, &arena, &document);
    CHECK(sl_span_is(document.doc_id, "b/c") && sl_span_is(document.text, "\xc3\xbc"));
    CHECK(sl_span_is(document.metadata, "{\"k\":[1]}"));
    CHECK(sl_span_is(document.collection, "default"));
    CHECK(sl_span_is(document.ingest_id, "run-1") && !document.remove);
    CHECK(request.body.data == NULL);
    document_request_fini(&request);
    sl_arena_fini(&arena);
}

TEST(a_text_keeps_its_bytes_but_for_a_mark_in_front)
{
    struct sl_document document;
    struct sl_arena arena;
    sl_arena_init(&arena, 1 << 20);
    CHECK_INT(read_body("\xef\xbb\xbf \"x\"\r\n", true), 0);
    decode(0, &arena, &document);
    CHECK(sl_span_is(document.text, " \"x\"\r\n"));
    CHECK(sl_span_is(document.doc_id, "a \"b\".md"));
    document_request_fini(&request);
    sl_arena_fini(&arena);
}

TEST(what_is_wrong_with_a_batch_is_told_by_its_place)
{
    CHECK_INT(read_body("{\"documents\":[{\"doc_id\":\"a\",\"text\":\"t\"},"
                        "{\"doc_id\":\"b\",\"text\":\" \\t\"}]}",
                        false),
              -SL_EINVAL);
    CHECK_STR(fault.message, "documents[1].text is empty");
    CHECK_STR(fault.param, "documents");
    document_request_fini(&request);
    CHECK_INT(read_body("{\"documents\":[],\"collection\":\"c\"}", false), -SL_EINVAL);
    document_request_fini(&request);
}

TEST(each_lack_of_memory_is_told)
{
    int rv = -SL_ENOMEM;
    for (long k = 1; rv != 0; k++) {
        CHECK(k < 200);
        sl_test_fail_alloc(k);
        rv = read_body("{\"doc_id\":\"a\",\"text\":\"t\",\"metadata\":{\"k\":1}}", false);
        sl_test_fail_alloc(0);
        CHECK(rv == 0 || rv == -SL_ENOMEM || rv == -SL_EBADMSG);
        document_request_fini(&request);
    }
}

TEST(a_text_that_is_none_is_told_what_it_looks_like)
{
    static const struct {
        struct sl_span bytes;
        const char *why;
    } cases[] = {
        {{"caf\xe9 noir", 9}, "is not UTF-8 at byte 3: it looks like Latin-1 or Windows-1252"},
        {{"\xff\xfeh\0i\0", 6},
         "is not UTF-8 at byte 0: it begins with the byte order mark of UTF-16"},
        {{"h\0e\0l\0l\0o\0", 10}, "holds a zero character at byte 1: it looks like UTF-16"},
        {{"\x7f"
          "ELF\x02\x01\0\xff",
          8},
         "is not UTF-8 at byte 7: it looks like a binary file"},
        {{"\xef\xbb\xbf\n", 4}, "is empty"},
    };
    char why[160];
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct sl_span text = cases[i].bytes;
        CHECK_INT(sl_text_check(&text, why, sizeof(why)), -SL_EINVAL);
        CHECK_STR(why, cases[i].why);
    }
}

TEST(a_query_string_is_decoded_and_known_by_name)
{
    struct parameter table[] = {{.name = "collection", .max = 8}, {.name = "limit", .max = 8}};
    struct sl_arena arena;
    long long limit;
    sl_arena_init(&arena, 1 << 16);
    CHECK_INT(parameters_read(SL_SPAN("&limit=%37&collection=a+b%2B&"), table, 2, &arena, &fault),
              0);
    CHECK(sl_span_is(table[0].value, "a b+"));
    CHECK_INT(parameter_number(&table[1], 1, 9, 3, &limit, &fault), 0);
    CHECK_INT(limit, 7);
    CHECK_INT(parameter_number(&table[1], 1, 6, 3, &limit, &fault), -SL_EINVAL);
    static const char *const wrong[] = {"limit=1&limit=2", "limit=%f",  "limit=%",
                                        "limit=",          "other=1",   "=1",
                                        "limit=%00",       "%6cimit=1", "collection=123456789"};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        table[0].value.data = table[1].value.data = NULL;
        CHECK_INT(parameters_read(sl_span_of(wrong[i]), table, 2, &arena, &fault), -SL_EINVAL);
        CHECK(fault.message[0] != '\0' && fault.param[0] != '\0');
    }
    struct sl_span id;
    CHECK_INT(path_part_read(SL_SPAN("a%2Fb+c/d"), "id", 64, &arena, &id, &fault), 0);
    CHECK(sl_span_is(id, "a/b+c/d"));
    sl_arena_fini(&arena);
}

int main(int argc, char **argv)
{
    const struct test_case cases[] = {
        {"each_document_of_a_batch_becomes_a_record", each_document_of_a_batch_becomes_a_record},
        {"a_text_keeps_its_bytes_but_for_a_mark_in_front",
         a_text_keeps_its_bytes_but_for_a_mark_in_front},
        {"what_is_wrong_with_a_batch_is_told_by_its_place",
         what_is_wrong_with_a_batch_is_told_by_its_place},
        {"each_lack_of_memory_is_told", each_lack_of_memory_is_told},
        {"a_text_that_is_none_is_told_what_it_looks_like",
         a_text_that_is_none_is_told_what_it_looks_like},
        {"a_query_string_is_decoded_and_known_by_name",
         a_query_string_is_decoded_and_known_by_name},
        {NULL, NULL},
    };
    return run_tests(cases, argc, argv);
}
