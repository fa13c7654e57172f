/* The reader refuses what later code must not see; the writer's text reads back as what was put. */
#include "common/json.h"
#include "tests/support/test.h"

#include <math.h>

static struct sl_json_doc *parse(const char *text)
{
    struct sl_json_doc *doc;
    CHECK(sl_json_parse(sl_span_of(text), &doc, NULL, 0) == 0);
    return doc;
}

static void refuse(struct sl_span text, const char *want_why)
{
    struct sl_json_doc *doc = NULL;
    char why[200];
    CHECK_INT(sl_json_parse(text, &doc, why, sizeof(why)), -SL_EBADMSG);
    CHECK(doc == NULL);
    CHECK(sl_json_parse(text, &doc, NULL, 0) == -SL_EBADMSG);
    if (want_why != NULL) {
        CHECK_STR(why, want_why);
    }
}

TEST(values_have_their_types)
{
    struct sl_json_doc *doc = parse(" {\"n\":null,\"t\":true,\"i\":-9223372036854775808,"
                                    "\"u\":9223372036854775808,\"d\":1.5,\"s\":\"\\u00e9\","
                                    "\"a\":[1,[2,3],{}],\"e\":5e0} ");
    const struct sl_json *root = sl_json_root(doc);
    CHECK_INT(sl_json_type(root), SL_JSON_OBJECT);
    CHECK_INT(sl_json_len(root), 8);
    CHECK_INT(sl_json_type(sl_json_get(root, "n")), SL_JSON_NULL);
    CHECK(sl_json_bool(sl_json_get(root, "t")));
    CHECK(sl_json_int(sl_json_get(root, "i")) == INT64_MIN);
    CHECK(sl_json_number(sl_json_get(root, "i")) == -9223372036854775808.0);
    CHECK_INT(sl_json_type(sl_json_get(root, "u")), SL_JSON_NUMBER); /* Too big for 64 bits. */
    CHECK(sl_json_number(sl_json_get(root, "u")) == 9223372036854775808.0);
    CHECK(sl_json_number(sl_json_get(root, "d")) == 1.5);
    CHECK_INT(sl_json_type(sl_json_get(root, "e")), SL_JSON_NUMBER);
    CHECK(sl_span_is(sl_json_string(sl_json_get(root, "s")), "\xc3\xa9"));
    CHECK_INT(sl_json_len(sl_json_get(root, "a")), 3);
    CHECK(sl_json_get(root, "none") == NULL);
    CHECK(sl_json_get(sl_json_get(sl_json_get(root, "none"), "x"), "y") == NULL);
    CHECK(sl_json_get(sl_json_get(root, "a"), "x") == NULL); /* Not an object. */
    CHECK_STR(sl_json_type_name(SL_JSON_STRING), "string");
    sl_json_free(doc);
    sl_json_free(NULL);
}

TEST(each_visits_children_and_not_theirs)
{
    struct sl_json_doc *doc = parse("{\"a\":[1,[2,3],{\"k\":[]},4],\"b\":{},\"c\":[]}");
    const struct sl_json *value = NULL;
    struct sl_span key;
    size_t at = 0;
    char keys[8] = "";
    while (sl_json_each(sl_json_root(doc), &at, &key, &value)) {
        strncat(keys, key.data, key.len);
        size_t inner = 0;
        CHECK(sl_span_is(key, "a") || !sl_json_each(value, &inner, NULL, &value));
    }
    CHECK_STR(keys, "abc");
    const struct sl_json *array = sl_json_get(sl_json_root(doc), "a");
    size_t seen = 0;
    at = 0;
    while (sl_json_each(array, &at, NULL, &value)) {
        static const enum sl_json_type want[] = {SL_JSON_INT, SL_JSON_ARRAY, SL_JSON_OBJECT,
                                                 SL_JSON_INT};
        CHECK_INT(sl_json_type(value), want[seen]);
        seen++;
    }
    CHECK_INT(seen, 4);
    CHECK_INT(sl_json_int(value), 4);
    sl_json_free(doc);
}

TEST(refuses_what_is_not_json)
{
    static const char *const bad[] = {"",
                                      " ",
                                      "{",
                                      "[1,]",
                                      "{\"a\":1,}",
                                      "nul",
                                      "1 2",
                                      "{'a':1}",
                                      "[01]",
                                      "\"\\x\"",
                                      "[NaN]",
                                      "\"\\ud800\"",
                                      "/**/ 1",
                                      "\"a\nb\"",
                                      "1e999",
                                      "\xef\xbb\xbf{}",
                                      "\"\xff\"",
                                      "\"\xc0\x80\"",
                                      "\"\xed\xa0\x80\""};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        refuse(sl_span_of(bad[i]), NULL);
    }
    refuse((struct sl_span){NULL, 0}, "no JSON value at byte 0");
    refuse((struct sl_span){"1\0", 2}, NULL);
}

TEST(refuses_zero_characters)
{
    refuse(SL_SPAN("{\"a\":\"x\\u0000y\"}"), "a zero character in a string at byte 6");
    refuse(SL_SPAN("{\"a\\u0000\":1}"), "a zero character in a string at byte 2");
}

TEST(refuses_deep_nesting)
{
    char text[200];
    memset(text, '[', 32);
    memset(text + 32, ']', 32);
    struct sl_json_doc *doc;
    CHECK(sl_json_parse((struct sl_span){text, 64}, &doc, NULL, 0) == 0);
    sl_json_free(doc);
    snprintf(text, sizeof(text), "[\"\\\"[[\",%.*s0%.*s]", 32, "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
             32, "]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]");
    refuse(sl_span_of(text), "nested deeper than 32 at byte 39");
    size_t len = 2000000; /* Takes no stack. */
    char *deep = malloc(len);
    CHECK(deep != NULL);
    memset(deep, '[', len / 2);
    memset(deep + len / 2, ']', len / 2);
    refuse((struct sl_span){deep, len}, "nested deeper than 32 at byte 32");
    free(deep);
    /* Wide is not deep. */
    doc = parse("[[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],"
                "[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[]]");
    sl_json_free(doc);
}

/* An object of count keys, the last named as the one at index twice. */
static void put_object(struct sl_buf *out, size_t count, size_t twice)
{
    struct sl_json_writer w = {.out = out};
    char key[32];
    sl_json_begin_object(&w);
    for (size_t i = 0; i < count; i++) {
        snprintf(key, sizeof(key), "k%zu", i == count - 1 ? twice : i);
        sl_json_key(&w, key);
        sl_json_put_int(&w, 1);
    }
    sl_json_end_object(&w);
}

TEST(refuses_the_same_key_twice)
{
    struct sl_buf text;
    struct sl_json_doc *doc;
    sl_buf_init(&text, 16 << 20);
    refuse(SL_SPAN("{\"a\":1,\"b\":2,\"\\u0061\":3}"),
           "the same key twice in one object at byte 14");
    refuse(SL_SPAN("[{\"a\":{\"b\":1,\"b\":1}}]"), NULL);
    static const size_t counts[] = {2, 64, 65, 1000,
                                    200000}; /* Around the limit of the two ways. */
    for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
        sl_buf_clear(&text);
        put_object(&text, counts[i], counts[i] / 2 - 1);
        refuse(sl_buf_span(&text), NULL);
        sl_buf_clear(&text);
        put_object(&text, counts[i], counts[i] - 1);
        CHECK(sl_json_parse(sl_buf_span(&text), &doc, NULL, 0) == 0);
        sl_json_free(doc);
    }
    sl_buf_fini(&text);
    doc = parse("{\"a\":1,\"A\":2,\"ab\":{\"a\":3},\"\":4}"); /* These differ. */
    sl_json_free(doc);
}

static void check_buf(struct sl_buf *out, const char *want)
{
    sl_buf_append(out, "", 1);
    CHECK(sl_buf_error(out) == 0);
    CHECK_STR(out->data, want);
    sl_buf_clear(out);
}

TEST(writes_compact_json)
{
    struct sl_buf out;
    sl_buf_init(&out, 1000);
    struct sl_json_writer w = {.out = &out};
    sl_json_begin_object(&w);
    sl_json_key(&w, "s");
    sl_json_put_string(&w, SL_SPAN("\"\\\b\f\n\r\t\x01\x7f/\xc3\xa9"));
    sl_json_key_span(&w, SL_SPAN("k\n"));
    sl_json_begin_array(&w);
    sl_json_put_int(&w, INT64_MIN);
    sl_json_put_bool(&w, true);
    sl_json_put_null(&w);
    sl_json_begin_object(&w);
    sl_json_end_object(&w);
    sl_json_put_raw(&w, SL_SPAN("[7]"));
    sl_json_end_array(&w);
    sl_json_key(&w, "e");
    sl_json_put_string(&w, (struct sl_span){NULL, 0});
    sl_json_end_object(&w);
    check_buf(&out, "{\"s\":\"\\\"\\\\\\b\\f\\n\\r\\t\\u0001\\u007f/\xc3\xa9\",\"k\\n\":"
                    "[-9223372036854775808,true,null,{},[7]],\"e\":\"\"}");
    sl_json_put_string(&(struct sl_json_writer){.out = &out},
                       SL_SPAN("a\xff\xe2\x82z\xf0\x9f\x98"));
    check_buf(&out,
              "\"a\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbdz\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\"");
    sl_buf_fini(&out);
}

/* Whatever character stands where in a text: what is written reads back the same. */
TEST(every_character_is_escaped_where_it_must_be)
{
    for (unsigned c = 1; c < 0x80; c++) {
        for (size_t at = 0; at < 24; at += 3) { /* All places in a word. */
            char text[] = "abcdefgh ijklmnop qrstuv";
            struct sl_buf out;
            struct sl_json_doc *doc;
            text[at] = (char)c;
            sl_buf_init(&out, 1000);
            sl_json_put_string(&(struct sl_json_writer){.out = &out}, sl_span_of(text));
            bool same = memchr(out.data + 1, (int)c, out.len - 2) != NULL;
            CHECK(c == '\\' || same == (c >= 0x20 && c != 0x7f) || (c == '"' && same));
            CHECK_INT(sl_json_parse(sl_buf_span(&out), &doc, NULL, 0), 0);
            CHECK(sl_span_is(sl_json_string(sl_json_root(doc)), text));
            sl_json_free(doc);
            sl_buf_fini(&out);
        }
    }
}

TEST(numbers_read_back_the_same)
{
    static const struct {
        double value;
        const char *want; /* NULL: only that it reads back. */
    } cases[] = {
        {0, "0"},
        {-0.0, "0"},
        {5, "5"},
        {-12, "-12"},
        {0.1, "0.1"},
        {0.0001, "0.0001"},
        {0.00001, "1e-05"},
        {-2.5, "-2.5"},
        {123456789012345.6, "123456789012345.6"},
        {1234567890123456.5, "1234567890123456.5"},
        {1e14, "100000000000000"},
        {1e21, "1e+21"},
        {1.0 / 3, NULL},
        {5e-324, NULL},
        {1.7976931348623157e308, NULL},
        {123456789.123456789, NULL},
        {2.2250738585072014e-308, NULL},
        {0.30000000000000004, "0.30000000000000004"},
        {(double)NAN, "null"},
        {(double)INFINITY, "null"},
    };
    struct sl_buf out;
    sl_buf_init(&out, 1000);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct sl_json_writer w = {.out = &out};
        sl_json_put_number(&w, cases[i].value);
        if (cases[i].want != NULL) {
            check_buf(&out, cases[i].want);
            continue;
        }
        struct sl_json_doc *doc;
        CHECK(sl_json_parse(sl_buf_span(&out), &doc, NULL, 0) == 0);
        CHECK(sl_json_number(sl_json_root(doc)) == cases[i].value);
        sl_json_free(doc);
        sl_buf_clear(&out);
    }
    sl_buf_fini(&out);
}

TEST(dump_is_compact)
{
    struct sl_buf out;
    sl_buf_init(&out, 1000);
    struct sl_json_doc *doc = parse("{ \"a\" : [ 1 , 2.5 , \"x\\u0041\" ] , \"b\" : { } }");
    sl_json_dump(sl_json_root(doc), &out);
    check_buf(&out, "{\"a\":[1,2.5,\"xA\"],\"b\":{}}");
    sl_json_dump(sl_json_get(sl_json_root(doc), "a"), &out);
    check_buf(&out, "[1,2.5,\"xA\"]");
    sl_buf_fini(&out);
    sl_buf_init(&out, 4);
    sl_json_dump(sl_json_root(doc), &out);
    CHECK_INT(sl_buf_error(&out), -SL_ETOOBIG);
    sl_json_free(doc);
    sl_buf_fini(&out);
}

int main(int argc, char **argv)
{
    const struct test_case cases[] = {
        {"values_have_their_types", values_have_their_types},
        {"each_visits_children_and_not_theirs", each_visits_children_and_not_theirs},
        {"refuses_what_is_not_json", refuses_what_is_not_json},
        {"refuses_zero_characters", refuses_zero_characters},
        {"refuses_deep_nesting", refuses_deep_nesting},
        {"refuses_the_same_key_twice", refuses_the_same_key_twice},
        {"writes_compact_json", writes_compact_json},
        {"every_character_is_escaped_where_it_must_be",
         every_character_is_escaped_where_it_must_be},
        {"numbers_read_back_the_same", numbers_read_back_the_same},
        {"dump_is_compact", dump_is_compact},
        {NULL, NULL},
    };
    return run_tests(cases, argc, argv);
}
