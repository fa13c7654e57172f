/* Keys and tags of the Redis store, which what is stored already must keep. */
#include "common/store_redis_internal.h"
#include "tests/support/test.h"

static struct sl_buf out;

static const char *text_of(struct sl_buf *buf)
{
    static char text[1024];
    CHECK(sl_buf_error(buf) == 0 && buf->len < sizeof(text));
    snprintf(text, sizeof(text), SL_SPAN_FMT, SL_SPAN_ARG(sl_buf_span(buf)));
    sl_buf_fini(buf);
    sl_buf_init(buf, sizeof(text));
    return text;
}

static struct sl_batch document(const char *tenant, const char *collection, const char *doc_id)
{
    return (struct sl_batch){.tenant = sl_span_of(tenant),
                             .collection = sl_span_of(collection),
                             .doc_id = sl_span_of(doc_id)};
}

static const char *key_of(const char *tenant, const char *collection, const char *doc_id)
{
    const struct sl_batch batch = document(tenant, collection, doc_id);
    sl_buf_init(&out, 1024);
    redis_put_document_key(&out, "chunks", &batch);
    return text_of(&out);
}

TEST(keys_name_what_they_hold)
{
    CHECK_STR(key_of("default", "manuals", "docs/a.md"), "chunks:7:default,7:manuals,docs/a.md:");
    CHECK_STR(key_of("a,1:b", "c", ":"), "chunks:5:a,1:b,1:c,::");
}

TEST(a_key_is_of_one_document_only)
{
    const struct {
        const char *key, *document;
        bool is;
    } cases[] = {
        {"c:1:a,1:b,d:12:0", "c:1:a,1:b,d:", true},   {"c:1:a,1:b,d:12:", "c:1:a,1:b,d:", true},
        {"c:1:a,1:b,d:1:2:0", "c:1:a,1:b,d:", false}, {"c:1:a,1:b,d:1:2:0", "c:1:a,1:b,d:1:", true},
        {"c:1:a,1:b,d:x:0", "c:1:a,1:b,d:", false},   {"c:1:a,1:b,e:1:0", "c:1:a,1:b,d:", false},
        {"c:1:a,1:b,d:", "c:1:a,1:b,d:", false},      {"c:", "c:1:a,1:b,d:", false},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        CHECK_INT(redis_is_key_of(sl_span_of(cases[i].key), sl_span_of(cases[i].document)),
                  cases[i].is);
    }
}

TEST(terms_are_the_same_for_ever)
{
    const struct sl_batch batch = document("default", "default", "docs/a.md");
    sl_buf_init(&out, 1024);
    CHECK_INT(redis_put_terms(&out, &batch, SL_SPAN("{\"lang\":\"en\",\"none\":null,\"n\":[7]}")),
              0);
    CHECK_STR(text_of(&out), "s33d6799557fac86077a8eed0a5f26870,d634a19de4bb8156902431927439f7573,"
                             "m779b86518740b8aa304aa10719190f46");
    sl_buf_fini(&out);
}

TEST(terms_tell_apart_what_reads_alike)
{
    static const char *const pairs[][2] = {{"a", "bc"}, {"ab", "c"}, {"a", "b"}, {"abc", ""}};
    char texts[4][64];
    for (size_t i = 0; i < 4; i++) {
        sl_buf_init(&out, 1024);
        redis_put_pair_term(&out, sl_span_of(pairs[i][0]), sl_span_of(pairs[i][1]));
        snprintf(texts[i], sizeof(texts[i]), "%s", text_of(&out));
        sl_buf_fini(&out);
        for (size_t other = 0; other < i; other++) {
            CHECK(strcmp(texts[i], texts[other]) != 0);
        }
    }
}

TEST(metadata_that_is_no_object_has_no_terms)
{
    static const char *const broken[] = {"{broken", "[1]", "7", "\"text\""};
    const struct sl_batch batch = document("t", "c", "d");
    for (size_t i = 0; i < 4; i++) {
        sl_buf_init(&out, 1024);
        CHECK_INT(redis_put_terms(&out, &batch, sl_span_of(broken[i])), -SL_EINVAL);
        sl_buf_fini(&out);
    }
}

int main(int argc, char **argv)
{
    const struct test_case cases[] = {
        {"keys_name_what_they_hold", keys_name_what_they_hold},
        {"a_key_is_of_one_document_only", a_key_is_of_one_document_only},
        {"terms_are_the_same_for_ever", terms_are_the_same_for_ever},
        {"terms_tell_apart_what_reads_alike", terms_tell_apart_what_reads_alike},
        {"metadata_that_is_no_object_has_no_terms", metadata_that_is_no_object_has_no_terms},
        {NULL, NULL},
    };
    return run_tests(cases, argc, argv);
}
