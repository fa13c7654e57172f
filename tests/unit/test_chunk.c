/* Chunks cover the whole text, stay within their size, cut where a reader would, and always end. */
#include "common/chunk.h"
#include "tests/support/test.h"

#include <stdint.h>

static size_t characters(struct sl_span text)
{
    size_t n = 0;
    for (size_t i = 0; i < text.len; i++) {
        n += ((unsigned char)text.data[i] & 0xc0) != 0x80;
    }
    return n;
}

static bool is_ascii_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

enum { MOST = 4096 };
static struct sl_span chunks[MOST];
static size_t count;

static char paths[MOST][SL_HEADINGS_MAX + 1];

/* Cuts text into chunks[] and checks what must hold for every text. */
static void cut_by(struct sl_span text, const struct sl_chunk_options *options)
{
    struct sl_chunker *chunker;
    struct sl_chunk chunk;
    size_t bad, covered = 0;
    int rv;
    CHECK_INT(sl_chunker_create(text, options, &chunker, &bad), 0);
    for (count = 0; (rv = sl_chunker_next(chunker, &chunk)) == 1; count++) {
        struct sl_span cut = chunk.text;
        CHECK(count < MOST);
        chunks[count] = cut;
        snprintf(paths[count], sizeof(paths[count]), SL_SPAN_FMT, SL_SPAN_ARG(chunk.headings));
        CHECK(cut.len > 0);
        CHECK(options->unit != SL_CHUNK_CHARACTERS || characters(cut) <= options->size);
        CHECK_INT(sl_utf8_valid(cut), cut.len);
        CHECK(!is_ascii_space(cut.data[0]) && !is_ascii_space(cut.data[cut.len - 1]));
        CHECK(count == 0 || cut.data > chunks[count - 1].data);
        size_t start = (size_t)(cut.data - text.data);
        for (; covered < start; covered++) { /* Only white space lies between chunks. */
            CHECK(is_ascii_space(text.data[covered]));
        }
        covered = start + cut.len > covered ? start + cut.len : covered;
    }
    CHECK_INT(rv, 0);
    for (; covered < text.len; covered++) {
        CHECK(is_ascii_space(text.data[covered]));
    }
    CHECK_INT(sl_chunker_next(chunker, &chunk), 0);
    sl_chunker_destroy(chunker);
}

static void cut(struct sl_span text, size_t size, size_t overlap)
{
    cut_by(text, &(struct sl_chunk_options){.size = size, .overlap = overlap});
}

static void check_chunk(size_t i, const char *want)
{
    CHECK(i < count);
    if (!sl_span_is(chunks[i], want)) {
        fprintf(stderr, "chunk %zu is \"" SL_SPAN_FMT "\"\n", i, SL_SPAN_ARG(chunks[i]));
    }
    CHECK(sl_span_is(chunks[i], want));
}

TEST(a_short_text_is_one_chunk)
{
    cut(SL_SPAN("  One line.\n\nAnother.\n"), 500, 50);
    CHECK_INT(count, 1);
    check_chunk(0, "One line.\n\nAnother.");
    cut(SL_SPAN("0123456789"), 10, 2);
    CHECK_INT(count, 1);
    cut(SL_SPAN(" \n\t "), 500, 50);
    CHECK_INT(count, 0);
    cut((struct sl_span){NULL, 0}, 500, 50);
    CHECK_INT(count, 0);
}

TEST(a_paragraph_end_is_best_and_needs_no_overlap)
{
    cut(SL_SPAN("The first is here. It goes on.\n \nThe next one. It ends."), 36, 8);
    CHECK_INT(count, 2);
    check_chunk(0, "The first is here. It goes on.");
    check_chunk(1, "The next one. It ends.");
}

TEST(a_sentence_end_is_better_than_a_space)
{
    cut(SL_SPAN("It rains a lot now (\"Really?\") and it does not end soon."), 40, 12);
    check_chunk(0, "It rains a lot now (\"Really?\")");
    check_chunk(1, "(\"Really?\") and it does not end soon.");
}

TEST(a_cut_at_a_space_overlaps_by_whole_words)
{
    cut(SL_SPAN("one two three four five six seven eight nine ten"), 20, 8);
    check_chunk(0, "one two three four");
    check_chunk(1, "four five six seven");
    check_chunk(2, "seven eight nine ten");
    CHECK_INT(count, 3);
}

TEST(scripts_without_spaces_are_cut_at_their_full_stops)
{
    /* Nine characters and a full stop, four times. */
    cut(SL_SPAN("一二三四五六七八九。一二三四五六七八九。一二三四五六七八九。一二三四五六七八九。"),
        12, 0);
    CHECK_INT(count, 4);
    for (size_t i = 0; i < 4; i++) {
        check_chunk(i, "一二三四五六七八九。");
    }
}

TEST(one_long_word_is_cut_hard_with_overlap)
{
    cut(SL_SPAN("0123456789abcdefghij"), 10, 3);
    check_chunk(0, "0123456789");
    check_chunk(1, "789abcdefg");
    check_chunk(2, "efghij");
    CHECK_INT(count, 3);
}

TEST(nothing_but_new_text_makes_a_chunk)
{
    cut(SL_SPAN("one two three four five      \n"), 24, 10); /* What follows the cut is space. */
    CHECK_INT(count, 1);
}

/* Texts made of awkward pieces; the checks are in cut(). */
static uint32_t random_state;

static uint32_t random_below(uint32_t n)
{
    random_state = random_state * 1664525u + 1013904223u;
    return (uint32_t)((uint64_t)(random_state >> 8) * n >> 24);
}

static void put_piece(struct sl_buf *text)
{
    static const char *const pieces[] = {"a",
                                         "word",
                                         ". ",
                                         "! ",
                                         " ",
                                         "  ",
                                         "\n",
                                         "\n\n",
                                         "\r\n\r\n",
                                         "字",
                                         "。",
                                         "é",
                                         "😀",
                                         "👩‍👩‍👧",
                                         "averyveryverylongwordindeed",
                                         "?\") ",
                                         "\t",
                                         "0",
                                         "end.",
                                         "                    "};
    uint32_t which = random_below(sizeof(pieces) / sizeof(pieces[0]));
    for (uint32_t n = random_below(8) == 0 ? random_below(60) : 1; n > 0; n--) {
        sl_buf_append_text(text, pieces[which]);
    }
}

TEST(any_text_is_covered_and_ends)
{
    struct sl_buf text;
    sl_buf_init(&text, 1 << 20);
    for (uint32_t seed = 1; seed <= 300; seed++) {
        random_state = seed;
        sl_buf_clear(&text);
        uint32_t pieces = random_below(300);
        for (uint32_t i = 0; i < pieces; i++) {
            put_piece(&text);
        }
        size_t size = 1 + random_below(100);
        size_t overlap = random_below((uint32_t)(size - 1) / 2 + 1);
        size = pieces * 3 / size > MOST / 8 ? 50 : size;
        overlap = overlap * 2 < size ? overlap : 0;
        fprintf(stderr, "  seed %u: %zu bytes, size %zu, overlap %zu\n", seed, text.len, size,
                overlap);
        struct sl_span copy[MOST];
        cut(sl_buf_span(&text), size, overlap);
        size_t first = count;
        memcpy(copy, chunks, sizeof(copy));
        cut(sl_buf_span(&text), size, overlap); /* And again the same. */
        CHECK_INT(count, first);
        CHECK(memcmp(copy, chunks, count * sizeof(copy[0])) == 0);
    }
    sl_buf_fini(&text);
}

TEST(cuts_inside_a_paragraph_overlap)
{
    char text[20000];
    for (size_t i = 0; i < sizeof(text); i++) { /* Words of six letters, no sentence ends. */
        text[i] = i % 7 == 6 ? ' ' : 'x';
    }
    cut((struct sl_span){text, sizeof(text)}, 500, 50);
    CHECK(count > 40 && count < 50);
    for (size_t i = 1; i < count; i++) {
        const char *end = chunks[i - 1].data + chunks[i - 1].len;
        CHECK(end - chunks[i].data >= 40 && end - chunks[i].data <= 50);
    }
}

TEST(wrong_sizes_and_bytes_are_refused)
{
    static const struct {
        const char *text;
        size_t size, overlap;
        int want;
    } cases[] = {{"a", 0, 0, -SL_EINVAL},
                 {"a", 100, 50, -SL_EINVAL},
                 {"a", 101, 50, 0},
                 {"caf\xe9 au lait", 500, 50, -SL_EINVAL}};
    size_t bad = 0;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct sl_chunker *chunker = NULL;
        struct sl_chunk_options options = {.size = cases[i].size, .overlap = cases[i].overlap};
        CHECK_INT(sl_chunker_create(sl_span_of(cases[i].text), &options, &chunker, &bad),
                  cases[i].want);
        sl_chunker_destroy(chunker);
    }
    CHECK_INT(bad, 3);
}

TEST(valid_utf8_is_measured)
{
    static const struct {
        const char *text;
        size_t want;
    } cases[] = {
        {"", 0},
        {"plain ascii text longer than eight", 34},
        {"\x7f\xc2\x80\xdf\xbf\xe0\xa0\x80\xef\xbf\xbf\xf0\x90\x80\x80\xf4\x8f\xbf\xbf", 19},
        {"12345678\x80", 8}, /* A continuation byte alone. */
        {"a\xc0\x80", 1},    /* Longer than needed. */
        {"a\xe0\x9f\xbf", 1},
        {"a\xf0\x8f\xbf\xbf", 1},
        {"a\xed\xa0\x80", 1},     /* A surrogate. */
        {"a\xf4\x90\x80\x80", 1}, /* Over U+10FFFF. */
        {"a\xf5\x80\x80\x80", 1},
        {"a\xff", 1},
        {"a\xe2\x82", 1}, /* Cut. */
        {"a\xe2\x82z", 1},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        size_t len = strlen(cases[i].text);
        char *exact = malloc(len + 1); /* So that overreads show. */
        CHECK(exact != NULL);
        memcpy(exact + 1, cases[i].text, len);
        CHECK_INT(sl_utf8_valid((struct sl_span){exact + 1, len}), cases[i].want);
        free(exact);
    }
}

int main(int argc, char **argv)
{
    const struct test_case cases[] = {
        {"a_short_text_is_one_chunk", a_short_text_is_one_chunk},
        {"a_paragraph_end_is_best_and_needs_no_overlap",
         a_paragraph_end_is_best_and_needs_no_overlap},
        {"a_sentence_end_is_better_than_a_space", a_sentence_end_is_better_than_a_space},
        {"a_cut_at_a_space_overlaps_by_whole_words", a_cut_at_a_space_overlaps_by_whole_words},
        {"scripts_without_spaces_are_cut_at_their_full_stops",
         scripts_without_spaces_are_cut_at_their_full_stops},
        {"one_long_word_is_cut_hard_with_overlap", one_long_word_is_cut_hard_with_overlap},
        {"nothing_but_new_text_makes_a_chunk", nothing_but_new_text_makes_a_chunk},
        {"any_text_is_covered_and_ends", any_text_is_covered_and_ends},
        {"cuts_inside_a_paragraph_overlap", cuts_inside_a_paragraph_overlap},
        {"wrong_sizes_and_bytes_are_refused", wrong_sizes_and_bytes_are_refused},
        {"valid_utf8_is_measured", valid_utf8_is_measured},
        {NULL, NULL},
    };
    return run_tests(cases, argc, argv);
}
