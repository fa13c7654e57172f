/* Cutting documents of about 20 KB into chunks of 500 characters, or other units. */
#include "common/chunk.h"
#include "tests/instructions/count.h"

#include <stdlib.h>

struct document {
    struct sl_span text;
    struct sl_chunk_options options;
};

static void cut(void *ctx)
{
    const struct document *document = ctx;
    struct sl_chunker *chunker;
    struct sl_chunk chunk;
    size_t bad = 0, count = 0;
    CHECK(sl_chunker_create(document->text, &document->options, &chunker, &bad) == 0);
    while (sl_chunker_next(chunker, &chunk) == 1) {
        count++;
    }
    CHECK(count > 10);
    sl_chunker_destroy(chunker);
}

/* The paragraph, until there are 20 KB. */
static unsigned measure_cut(const char *paragraph, enum sl_chunk_unit unit, size_t size,
                            bool markdown)
{
    struct sl_buf text;
    sl_buf_init(&text, 1 << 20);
    while (text.len < 20000) {
        sl_buf_append_text(&text, paragraph);
    }
    CHECK(sl_buf_error(&text) == 0);
    struct document document = {
        sl_buf_span(&text),
        {.unit = unit, .size = size, .overlap = size / 10, .markdown = markdown}};
    unsigned operations = measure(cut, &document);
    sl_buf_fini(&text);
    return operations;
}

static const char prose[] =
    "A lease is held for as long as it is renewed. Whoever holds it may work on the query; whoever "
    "finds it expired may take it over, and the one that lost it learns of that with its next "
    "renewal (e.g. after a pause of the process). No two hold it at once. What was sent under a "
    "lease that is gone is refused by its number. ";

static unsigned prose_20k(void)
{
    return measure_cut(prose, SL_CHUNK_CHARACTERS, 500, false);
}

static unsigned curly_quotes_20k(void)
{
    return measure_cut("He said “it rains” – and that was all of it. Nobody asked why; she didn’t "
                       "either. The café was closed, so we went home.\n",
                       SL_CHUNK_CHARACTERS, 500, false);
}

static unsigned markdown_20k(void)
{
    return measure_cut(
        "## Leases\n\nA lease is held for as long as it is renewed. Whoever holds it "
        "may work on the query.\n\n- one\n- two\n\n```c\n# no heading\nint a;\n```\n\n",
        SL_CHUNK_CHARACTERS, 500, true);
}

static unsigned tokens_20k(void)
{
    return measure_cut(prose, SL_CHUNK_TOKENS, 100, false);
}

int main(int argc, char **argv)
{
    static const struct count_case cases[] = {
        {"prose_20k", prose_20k},
        {"curly_quotes_20k", curly_quotes_20k},
        {"markdown_20k", markdown_20k},
        {"tokens_20k", tokens_20k},
        {NULL, NULL},
    };
    return count_main(cases, argc, argv);
}
