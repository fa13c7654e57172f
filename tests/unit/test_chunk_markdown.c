/* Markdown: what is a heading and what is code, and what that means for chunks. */
#include "common/chunk_internal.h"
#include "tests/support/test.h"

#include <stdio.h>
#include <stdlib.h>

/* "1@0" is a heading of level 1 from byte 0 on, "0@9-20" code up to byte 20. */
static void check_blocks(const char *text, const char *want)
{
    struct chunk_blocks blocks;
    char got[512] = "";
    size_t len = 0;
    CHECK_INT(sl_chunk_markdown(sl_span_of(text), &blocks), 0);
    for (size_t i = 0; i < blocks.len; i++) {
        const struct chunk_block *block = &blocks.list[i];
        len += (size_t)snprintf(got + len, sizeof(got) - len, "%s%u@%u", i > 0 ? " " : "",
                                block->level, block->from);
        if (block->level == 0) {
            len += (size_t)snprintf(got + len, sizeof(got) - len, "-%u", block->to);
        }
    }
    free(blocks.list);
    if (strcmp(got, want) != 0) {
        fprintf(stderr, "%s\nis \"%s\"\n", text, got);
    }
    CHECK(strcmp(got, want) == 0);
}

TEST(headings_are_those_of_commonmark)
{
    static const struct {
        const char *text, *want;
    } cases[] = {
        {"# a\n## b ##\n###### c", "1@0 2@4 6@12"},
        {"####### a\n#a\n\\# a\n", ""},
        {"   # a\n    # b\n", "1@0"},
        {"text\n    # b\n# c\n", "1@13"},
        {"#\n#\tb\n", "1@0 1@2"},
        {"Two\nlines\n===\n\nOne\n---\n", "1@0 2@15"},
        {"a\n\n---\n", ""},
        {"a\n= =\n", ""},
        {"- a\n---\n> a\n===\n", ""},
        {"> # a\n- # b\n1. # c\n", ""},
        {"- a\n\n  # b\n\n# c\n", "1@12"},
        {"2) a\n# b\n", "1@5"},
        {"a\r\n===\r\n# b\r\n", "1@0 1@8"},
        {"<!--\n# a\n-->\n# b\n", "1@13"},
        {"<div>\n# a\n\n# b\n", "1@11"},
        {"<pre>\n\n# a\n</pre>\n# b\n", "1@18"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        check_blocks(cases[i].text, cases[i].want);
    }
}

TEST(no_heading_is_in_fenced_code)
{
    check_blocks("```\n# a\n```\n# b\n", "0@0-12 1@12");
    check_blocks("~~~~ c\n```\n~~~\n# a\n~~~~~\n# b\n", "0@0-25 1@25");
    check_blocks("``` `\n# a\n", "1@6");
    check_blocks("```\n# to the end\n", "0@0-17");
    check_blocks("- ```\n  # a\n\n  ```\n# b\n", "0@0-19 1@19");
    check_blocks("- ```\n  # a\n# b\n", "0@0-12 1@12"); /* The list's end is the code's. */
    check_blocks("   ```\n# a\n    ```\n   ```\n", "0@0-26");
}

/* --- chunks --- */

enum { MOST = 64 };
static struct sl_chunk chunks[MOST];
static size_t count;
static char paths[MOST][SL_HEADINGS_MAX + 1];

static void cut(const char *text, size_t size, size_t overlap)
{
    const struct sl_chunk_options options = {.size = size, .overlap = overlap, .markdown = true};
    struct sl_chunker *chunker;
    size_t bad;
    int rv;
    CHECK_INT(sl_chunker_create(sl_span_of(text), &options, &chunker, &bad), 0);
    for (count = 0; (rv = sl_chunker_next(chunker, &chunks[count])) == 1; count++) {
        CHECK(count + 1 < MOST);
        snprintf(paths[count], sizeof(paths[count]), SL_SPAN_FMT,
                 SL_SPAN_ARG(chunks[count].headings));
    }
    CHECK_INT(rv, 0);
    sl_chunker_destroy(chunker);
}

static void check_chunk(size_t i, const char *headings, const char *text)
{
    CHECK(i < count);
    if (!sl_span_is(chunks[i].text, text) || strcmp(paths[i], headings) != 0) {
        fprintf(stderr, "chunk %zu, \"%s\", is \"" SL_SPAN_FMT "\"\n", i, paths[i],
                SL_SPAN_ARG(chunks[i].text));
    }
    CHECK(sl_span_is(chunks[i].text, text));
    CHECK(strcmp(paths[i], headings) == 0);
}

TEST(a_chunk_knows_the_headings_above_it)
{
    cut("Before all.\n\n# The  *guide* #\nIntro of it.\n\n## Set\nup a machine\n\n## First\n\nOne "
        "two three "
        "four "
        "five.\n\nOther\nname\n===\n\n##\n\nLast words here.\n",
        40, 5);
    check_chunk(0, "", "Before all.");
    check_chunk(1, "The *guide*", "# The  *guide* #\nIntro of it.");
    check_chunk(2, "The *guide* > Set", "## Set\nup a machine");
    check_chunk(3, "The *guide* > First", "## First\n\nOne two three four five.");
    check_chunk(4, "Other name", "Other\nname\n===\n\n##\n\nLast words here.");
    CHECK_INT(count, 5);
}

TEST(a_heading_stays_with_its_text)
{
    cut("Words of the first part, some more.\n\n# Next\n\n## Inner\n\nText of the next.", 60, 5);
    check_chunk(0, "", "Words of the first part, some more.");
    check_chunk(1, "Next > Inner", "# Next\n\n## Inner\n\nText of the next.");
    CHECK_INT(count, 2);
    /* A heading that a chunk cannot hold is cut all the same. */
    cut("# one two three four five six seven eight nine ten eleven\ntext", 30, 5);
    CHECK(count >= 2);
}

TEST(code_that_fits_is_not_cut)
{
    static const char code[] = "```c\nint a;\n\nint b;\n\nint c;\nint d;\n```";
    char text[256];
    snprintf(text, sizeof(text), "Some words before the code, ten.\n\n%s\nAnd after.", code);
    cut(text, 50, 10);
    check_chunk(0, "", "Some words before the code, ten.");
    CHECK(count == 3 || count == 2);
    CHECK(sl_span_begins(chunks[1].text, code));
}

TEST(code_that_does_not_fit_is_cut_between_lines)
{
    cut("# A\n```\nline one\nline two\nline three\nline four\nline five\nline six\n```\n", 40, 12);
    check_chunk(0, "A", "# A\n```\nline one\nline two\nline three");
    check_chunk(1, "A", "line three\nline four\nline five\nline six");
    check_chunk(2, "A", "line six\n```");
    CHECK_INT(count, 3);
}

TEST(overlaps_do_not_reach_over_a_heading_or_out_of_code)
{
    cut("One two three four five six.\n# H\nseven eight nine ten eleven twelve", 20, 9);
    for (size_t i = 1; i < count; i++) {
        const char *heading = memmem(chunks[i].text.data, chunks[i].text.len, "# H", 3);
        CHECK(heading == NULL || heading == chunks[i].text.data);
    }
}

TEST(headings_are_cut_to_their_maximum_at_a_character)
{
    struct sl_buf text;
    sl_buf_init(&text, 1 << 20);
    for (int level = 1; level <= 3; level++) {
        sl_buf_printf(&text, "%.*s x", level, "###");
        for (int i = 0; i < 70; i++) {
            sl_buf_append_text(&text, "字");
        }
        sl_buf_append_text(&text, "\n");
    }
    sl_buf_append(&text, "text\0", 5);
    cut(text.data, 500, 50);
    CHECK_INT(count, 1);
    CHECK(strlen(paths[0]) <= SL_HEADINGS_MAX && strlen(paths[0]) > SL_HEADINGS_MAX - 4);
    CHECK_INT(sl_utf8_valid(sl_span_of(paths[0])), strlen(paths[0]));
    sl_buf_fini(&text);
}

TEST(plain_text_has_no_headings)
{
    const struct sl_chunk_options options = {.size = 20, .overlap = 5};
    struct sl_chunker *chunker;
    size_t bad;
    CHECK_INT(sl_chunker_create(SL_SPAN("# A\n\ntext"), &options, &chunker, &bad), 0);
    CHECK_INT(sl_chunker_next(chunker, &chunks[0]), 1);
    CHECK_INT(chunks[0].headings.len, 0);
    sl_chunker_destroy(chunker);
}

int main(int argc, char **argv)
{
    static const struct test_case cases[] = {
        {"headings_are_those_of_commonmark", headings_are_those_of_commonmark},
        {"no_heading_is_in_fenced_code", no_heading_is_in_fenced_code},
        {"a_chunk_knows_the_headings_above_it", a_chunk_knows_the_headings_above_it},
        {"a_heading_stays_with_its_text", a_heading_stays_with_its_text},
        {"code_that_fits_is_not_cut", code_that_fits_is_not_cut},
        {"code_that_does_not_fit_is_cut_between_lines",
         code_that_does_not_fit_is_cut_between_lines},
        {"overlaps_do_not_reach_over_a_heading_or_out_of_code",
         overlaps_do_not_reach_over_a_heading_or_out_of_code},
        {"headings_are_cut_to_their_maximum_at_a_character",
         headings_are_cut_to_their_maximum_at_a_character},
        {"plain_text_has_no_headings", plain_text_has_no_headings},
        {NULL, NULL},
    };
    return run_tests(cases, argc, argv);
}
