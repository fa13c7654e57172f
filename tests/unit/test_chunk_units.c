/* Units and Unicode: how long chunks are in words and tokens, and what is never taken apart. */
#include "common/chunk_internal.h"
#include "tests/support/test.h"

#include <stdio.h>
#include <stdlib.h>

enum { MOST = 512 };
static struct sl_span chunks[MOST];
static size_t count;

static void cut_by(struct sl_span text, const struct sl_chunk_options *options)
{
    struct sl_chunker *chunker;
    struct sl_chunk chunk;
    size_t bad;
    int rv;
    CHECK_INT(sl_chunker_create(text, options, &chunker, &bad), 0);
    for (count = 0; (rv = sl_chunker_next(chunker, &chunk)) == 1; count++) {
        CHECK(count < MOST);
        chunks[count] = chunk.text;
    }
    CHECK_INT(rv, 0);
    sl_chunker_destroy(chunker);
}

static void cut(const char *text, enum sl_chunk_unit unit, size_t size, size_t overlap)
{
    cut_by(sl_span_of(text),
           &(struct sl_chunk_options){.unit = unit, .size = size, .overlap = overlap});
}

static void check_chunk(size_t i, const char *want)
{
    CHECK(i < count);
    if (!sl_span_is(chunks[i], want)) {
        fprintf(stderr, "chunk %zu is \"" SL_SPAN_FMT "\"\n", i, SL_SPAN_ARG(chunks[i]));
    }
    CHECK(sl_span_is(chunks[i], want));
}

/* --- characters as a reader sees them --- */

TEST(a_character_with_its_marks_is_not_taken_apart)
{
    cut("ae\u0301\u0302\u0300bcdef", SL_CHUNK_CHARACTERS, 3, 1);
    check_chunk(0, "a");
    cut("xx👩\u200d👩\u200d👧yyyy", SL_CHUNK_CHARACTERS, 5, 0);
    check_chunk(0, "xx");
    check_chunk(1, "👩\u200d👩\u200d👧");
    cut("🇩🇪🇫🇷🇮🇹", SL_CHUNK_CHARACTERS, 5, 2);
    check_chunk(0, "🇩🇪🇫🇷");
    check_chunk(1, "🇫🇷🇮🇹"); /* The overlap, too, is whole. */
    cut("a\u0301\u0301\u0301\u0301\u0301b", SL_CHUNK_CHARACTERS, 3, 1); /* Longer than a chunk. */
    CHECK(count > 1);
}

TEST(scripts_without_spaces_are_cut_between_words)
{
    cut("ภาษาไทยไม่มีช่องว่างระหว่างคำ", SL_CHUNK_CHARACTERS, 13, 0);
    check_chunk(0, "ภาษาไทยไม่มี");
}

TEST(sentences_end_by_unicodes_rules)
{
    static const struct {
        const char *text, *first;
    } cases[] = {
        {"It is (e.g. this one) so. Then some more", "It is (e.g. this one) so."},
        {"He has paid 3.50 dollars? Then some more of it", "He has paid 3.50 dollars?"},
        {"He said to us “it rains.” Then we left for home", "He said to us “it rains.”"},
        {"She asked him «pourquoi?» Puis elle est partie", "She asked him «pourquoi?»"},
        {"यह हमारा पहला वाक्य है। दूसरा वाक्य यहाँ से आता है", "यह हमारा पहला वाक्य है।"},
        {"A line of it is\nbroken. Then some more of it", "A line of it is\nbroken."},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        cut(cases[i].text, SL_CHUNK_CHARACTERS, 32, 3);
        check_chunk(0, cases[i].first);
    }
}

TEST(a_line_end_is_better_than_a_space)
{
    cut("- first of all\n- second one\n- third one", SL_CHUNK_CHARACTERS, 34, 0);
    check_chunk(0, "- first of all\n- second one");
}

static uint32_t random_state;

static uint32_t random_below(uint32_t n)
{
    random_state = random_state * 1664525u + 1013904223u;
    return (uint32_t)((uint64_t)(random_state >> 8) * n >> 24);
}

TEST(sentences_of_ascii_end_where_icu_sees_them)
{
    static const char letters[] = "aaaBB11  .. .!?\"')(]-,:;\n\r\t\v/_@";
    char text[64];
    size_t found = 0;
    random_state = 1;
    for (int round = 0; round < 5000; round++) {
        struct chunk_breaks *breaks = sl_chunk_breaks_create();
        CHECK(breaks != NULL);
        size_t len = 8 + random_below(50);
        for (size_t i = 0; i < len; i++) {
            text[i] = letters[random_below(sizeof(letters) - 1)];
        }
        struct sl_span span = {text, len};
        size_t high = len - 1 - random_below(4), low = 1 + random_below(5);
        size_t own = sl_chunk_sentence(breaks, span, 0, len, low, high);
        size_t icu = sl_chunk_sentence_icu(breaks, span, 0, len, low, high);
        if (own != icu) {
            fprintf(stderr, "[" SL_SPAN_FMT "] up to %zu: %zu, ICU %zu\n", SL_SPAN_ARG(span), high,
                    own, icu);
        }
        CHECK_INT(own, icu);
        found += own > 0 ? 1 : 0;
        CHECK_INT(sl_chunk_breaks_error(breaks), 0);
        sl_chunk_breaks_destroy(breaks);
    }
    CHECK(found > 500);
}

/* --- units --- */

TEST(words_are_counted)
{
    cut("one two three, four five six seven", SL_CHUNK_WORDS, 3, 1);
    check_chunk(0, "one two three,");
    check_chunk(1, "three, four five");
    check_chunk(2, "five six seven");
    CHECK_INT(count, 3);
}

TEST(words_of_scripts_without_spaces_are_a_dictionarys)
{
    /* "We learn Chinese in Beijing", four or five words of eight characters, 20 times. */
    char text[20 * 24 + 1] = "";
    for (int i = 0; i < 20; i++) {
        strcat(text, "我在北京学习中文");
    }
    cut(text, SL_CHUNK_WORDS, 20, 0);
    CHECK(count >= 4 && count <= 6);
}

TEST(what_has_no_end_counts_as_words_too)
{
    char text[4000];
    memset(text, 'x', sizeof(text));
    cut_by((struct sl_span){text, sizeof(text)},
           &(struct sl_chunk_options){.unit = SL_CHUNK_WORDS, .size = 20, .overlap = 2});
    CHECK(count > 5);
}

TEST(tokens_are_estimated)
{
    cut("one two, three4 internationalization 字字", SL_CHUNK_TOKENS, 5, 0);
    check_chunk(0, "one two, three4");           /* one, two and ",", three and 4. */
    check_chunk(1, "internationalization 字字"); /* Three and two. */
    CHECK_INT(count, 2);
}

TEST(pieces_are_counted_as_told)
{
    struct sl_span text = SL_SPAN("one two three four");
    static const uint8_t counts[] = {5, 1, 1, 5};
    cut_by(text, &(struct sl_chunk_options){
                     .unit = SL_CHUNK_COUNTED, .size = 7, .overlap = 1, .counts = counts});
    check_chunk(0, "one two three");
    check_chunk(1, "three four");
    CHECK_INT(count, 2);
}

TEST(pieces_are_short)
{
    struct sl_span text = SL_SPAN("a  naïve      b, internationalization предложение");
    static const char *const want[] = {"a",    "  naïve",   "    ", "  b,", " internationaliza",
                                       "tion", " предложе", "ние"};
    size_t i = 0;
    for (size_t at = 0, end; at < text.len; at = end, i++) {
        end = sl_chunk_piece(text, at);
        CHECK(i < sizeof(want) / sizeof(want[0]));
        CHECK(sl_span_is((struct sl_span){text.data + at, end - at}, want[i]));
    }
    CHECK_INT(i, sizeof(want) / sizeof(want[0]));
}

int main(int argc, char **argv)
{
    static const struct test_case cases[] = {
        {"a_character_with_its_marks_is_not_taken_apart",
         a_character_with_its_marks_is_not_taken_apart},
        {"scripts_without_spaces_are_cut_between_words",
         scripts_without_spaces_are_cut_between_words},
        {"sentences_end_by_unicodes_rules", sentences_end_by_unicodes_rules},
        {"a_line_end_is_better_than_a_space", a_line_end_is_better_than_a_space},
        {"sentences_of_ascii_end_where_icu_sees_them", sentences_of_ascii_end_where_icu_sees_them},
        {"words_are_counted", words_are_counted},
        {"words_of_scripts_without_spaces_are_a_dictionarys",
         words_of_scripts_without_spaces_are_a_dictionarys},
        {"what_has_no_end_counts_as_words_too", what_has_no_end_counts_as_words_too},
        {"tokens_are_estimated", tokens_are_estimated},
        {"pieces_are_counted_as_told", pieces_are_counted_as_told},
        {"pieces_are_short", pieces_are_short},
        {NULL, NULL},
    };
    setenv("LC_ALL", "th_TH.UTF-8", 1); /* Whatever the environment says, chunks are the same. */
    setenv("ICU_DATA", "/nowhere", 1);
    return run_tests(cases, argc, argv);
}
