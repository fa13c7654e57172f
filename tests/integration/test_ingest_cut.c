/* Documents are cut on the thread pool: which are Markdown, and what is said of those that cannot
 * be cut. */
#include "tests/support/http_peer.h"
#include "workers/ingest/cut.h"

#include <stdio.h>

static struct sl_loop *loop;
static struct ingest_cutter cutter;
static struct ingest_cut *cut;
static const struct ingest_cut_result *result;

static void on_cut(void *ctx, const struct ingest_cut_result *ret)
{
    (void)ctx;
    result = ret;
}

static int init(long long size, long long overlap, int unit, char *why, size_t why_size)
{
    const struct ingest_cut_config config = {
        .size = size, .overlap = overlap, .unit = unit, .tokens = {"", ""}};
    return ingest_cutter_init(&cutter, loop, NULL, &config, why, why_size);
}

static void start(const char *doc_id, const char *metadata, struct sl_span text)
{
    const struct sl_document document = {
        .doc_id = sl_span_of(doc_id), .metadata = sl_span_of(metadata), .text = text};
    result = NULL;
    CHECK_INT(ingest_cut_start(&cutter, &document, on_cut, NULL, &cut), 0);
    CHECK(result == NULL);
}

static void up(void)
{
    char why[128];
    CHECK_INT(sl_loop_create(&loop), 0);
    CHECK_INT(init(40, 8, 0, why, sizeof(why)), 0);
}

static void down(void)
{
    sl_loop_destroy(loop);
}

TEST(markdown_is_told_by_the_name_or_the_metadata)
{
    static const struct {
        const char *doc_id, *metadata;
        bool markdown;
    } cases[] = {
        {"a/guide.md", "", true},
        {"GUIDE.Markdown", "{}", true},
        {"guide.txt", "{\"content_type\": \"text/markdown\"}", true},
        {"guide", "{\"content_type\": \"Text/Markdown; charset=utf-8\"}", true},
        {"guide.txt", "{\"content_type\": \"text/markdown2\"}", false},
        {"guide.txt", "{\"content_type\": 7}", false},
        {"guide.txt", "{\"other\": \"text/markdown\"}", false},
        {"guide.txt", "", false},
        {"guidemd", "", false},
    };
    up();
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        start(cases[i].doc_id, cases[i].metadata,
              SL_SPAN("Before it all, a line.\n\n# Guide\n\n## Set up\n\nWords of it."));
        PEER_WAIT(loop, result != NULL);
        CHECK_INT(result->err, 0);
        CHECK(result->count >= 2);
        CHECK((result->headings != NULL) == cases[i].markdown);
        if (cases[i].markdown) {
            CHECK_INT(result->headings[0].len, 0);
            CHECK(sl_span_is(result->headings[1], "Guide > Set up"));
            CHECK(sl_span_begins(result->texts[1], "# Guide"));
        }
        ingest_cut_destroy(cut);
    }
    down();
}

TEST(markdown_without_headings_has_none)
{
    up();
    start("a.md", "", SL_SPAN("Only a line of text."));
    PEER_WAIT(loop, result != NULL);
    CHECK(result->err == 0 && result->count == 1 && result->headings == NULL);
    ingest_cut_destroy(cut);
    down();
}

TEST(what_cannot_be_cut_is_said)
{
    static const struct {
        struct sl_span text;
        const char *reason;
    } cases[] = {
        {{"caf\xe9 au lait", 12}, "its text is not UTF-8 at byte 3"},
        {{" \n\t ", 4}, "it holds nothing but white space"},
        {{NULL, 0}, "it holds nothing but white space"},
    };
    up();
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        start("a.md", "", cases[i].text);
        PEER_WAIT(loop, result != NULL);
        CHECK(result->err != 0);
        CHECK_STR(result->reason, cases[i].reason);
        ingest_cut_destroy(cut);
    }
    down();
}

TEST(a_cut_may_be_given_up_while_it_runs)
{
    up();
    start("a.md", "", SL_SPAN("Some text that nobody wants."));
    ingest_cut_destroy(cut);
    start("b.md", "", SL_SPAN("Some text."));
    PEER_WAIT(loop, result != NULL);
    CHECK(sl_span_is(result->texts[0], "Some text."));
    ingest_cut_destroy(cut);
    down();
}

TEST(settings_tell_what_is_cut_otherwise)
{
    char why[128] = "", first[sizeof(cutter.settings)];
    up();
    snprintf(first, sizeof(first), "%s", cutter.settings);
    CHECK_INT(init(40, 9, 0, why, sizeof(why)), 0);
    CHECK(strcmp(first, cutter.settings) != 0);
    CHECK_INT(init(40, 8, 1, why, sizeof(why)), 0);
    CHECK(strcmp(first, cutter.settings) != 0);
    CHECK_INT(init(40, 8, 0, why, sizeof(why)), 0);
    CHECK_STR(cutter.settings, first);
    CHECK_INT(init(40, 20, 0, why, sizeof(why)), -SL_EINVAL);
    CHECK(strstr(why, "less than half") != NULL);
    down();
}

int main(int argc, char **argv)
{
    static const struct test_case cases[] = {
        {"markdown_is_told_by_the_name_or_the_metadata",
         markdown_is_told_by_the_name_or_the_metadata},
        {"markdown_without_headings_has_none", markdown_without_headings_has_none},
        {"what_cannot_be_cut_is_said", what_cannot_be_cut_is_said},
        {"a_cut_may_be_given_up_while_it_runs", a_cut_may_be_given_up_while_it_runs},
        {"settings_tell_what_is_cut_otherwise", settings_tell_what_is_cut_otherwise},
        {NULL, NULL},
    };
    return run_tests(cases, argc, argv);
}
