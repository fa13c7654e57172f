/* Arguments, patterns and the walk through a directory. */
#include "tests/support/test.h"
#include "workers/cli/cli.h"
#include "workers/cli/walk.h"

#include <sys/stat.h>
#include <unistd.h>

TEST(paths_fit_patterns)
{
    static const struct {
        const char *pattern, *path;
        bool fits;
    } table[] = {
        {"**/*.md", "a.md", true},
        {"**/*.md", "a/b/c.md", true},
        {"**/*.md", "a/b/c.mdx", false},
        {"**/*.md", ".hidden.md", false},
        {"**/*.md", ".git/a.md", false},
        {"**/*.md", "a/.git/b.md", false},
        {"*.md", "a.md", true},
        {"*.md", "a/b.md", false},
        {"a/*.md", "a/b.md", true},
        {"a/*.md", "b/b.md", false},
        {"a/**", "a/b/c", true},
        {"a/**", "a", false},
        {"a/**/z", "a/z", true},
        {"a/**/z", "a/b/c/z", true},
        {"a/**/z", "a/b/c", false},
        {"**", "a/b", true},
        {"**/b/**/d", "a/b/c/b/d", true},
        {".git/*", ".git/a", true},
        {"?[0-9].txt", "a7.txt", true},
        {"a", "a/b", false},
        {"a/b", "a", false},
    };
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        if (cli_path_fits(table[i].pattern, table[i].path) != table[i].fits) {
            fprintf(stderr, "%s on %s\n", table[i].pattern, table[i].path);
            CHECK(false && "fits as expected");
        }
    }
}

static char root[64];

static void make_root(void)
{
    snprintf(root, sizeof(root), "/tmp/sluice-walk-XXXXXX");
    CHECK(mkdtemp(root) != NULL && chdir(root) == 0);
}

static void remove_root(void)
{
    char command[128];
    snprintf(command, sizeof(command), "rm -rf '%s'", root);
    CHECK(chdir("/") == 0);
    CHECK_INT(system(command), 0);
}

static void make_file(const char *path, const char *bytes, size_t len)
{
    FILE *file = fopen(path, "wb");
    CHECK(file != NULL && fwrite(bytes, 1, len, file) == len && fclose(file) == 0);
}

TEST(walk_is_sorted_and_stays_below)
{
    static const char *const patterns[] = {"**/*.md"};
    static const char *const want[] = {"a.md",     "b/c.md",     "b/d/e.md",
                                       "inner.md", "loop2/c.md", "loop2/d/e.md"};
    struct cli_files files;
    make_root();
    CHECK(mkdir("b", 0700) == 0 && mkdir("b/d", 0700) == 0 && mkdir("x.md", 0700) == 0);
    make_file("a.md", "a", 1);
    make_file("b/c.md", "c", 1);
    make_file("b/d/e.md", "e", 1);
    make_file("b/no.txt", "n", 1);
    CHECK(symlink("/etc/passwd", "out.md") == 0 && symlink("nowhere", "gone.md") == 0);
    CHECK(symlink("a.md", "inner.md") == 0 && symlink("/etc", "etc") == 0);
    CHECK(symlink("..", "b/d/up") == 0 && symlink(".", "self") == 0 && symlink("b", "loop2") == 0);
    CHECK(mkfifo("pipe.md", 0600) == 0);
    CHECK_INT(cli_walk(".", patterns, 1, &files), 0);
    CHECK_INT(files.len, sizeof(want) / sizeof(want[0]));
    for (size_t i = 0; i < files.len; i++) {
        CHECK_STR(files.items[i].path, want[i]);
        CHECK(files.items[i].reason == NULL);
    }
    cli_files_fini(&files);
    CHECK_INT(cli_walk("not-there", patterns, 1, &files), -SL_ENOENT);
    CHECK_INT(cli_walk("a.md", patterns, 1, &files), -SL_EINVAL);
    cli_files_fini(&files);
    remove_root();
}

static void check_text(const char *bytes, size_t len, const char *want)
{
    struct sl_buf text;
    sl_buf_init(&text, 17 << 20);
    make_file("text", bytes, len);
    const char *reason = cli_read_text(".", "text", &text);
    if (want == NULL) {
        CHECK(reason == NULL);
        CHECK(sl_span_equal(sl_buf_span(&text), (struct sl_span){bytes, len}));
    } else {
        CHECK_STR(reason, want);
    }
    sl_buf_fini(&text);
}

TEST(what_is_no_text_is_told)
{
    enum { MIB16 = 16 << 20 };
    char *large = malloc(MIB16 + 1);
    CHECK(large != NULL);
    memset(large, 'a', MIB16 + 1);
    make_root();
    check_text("caf\xc3\xa9", 5, NULL);
    check_text("caf\xe9", 4, "not UTF-8");
    check_text("a\0b", 3, "holds a zero byte: not a text");
    check_text("", 0, "empty");
    check_text(" \r\n\t\f\v", 6, "empty");
    check_text("\xef\xbb\xbf\r\n", 5, "empty");
    check_text(large, MIB16, NULL);
    check_text(large, MIB16 + 1, "larger than 16 MiB");
    CHECK(mkdir("folder", 0700) == 0);
    struct sl_buf text;
    sl_buf_init(&text, 100);
    CHECK_STR(cli_read_text(".", "folder", &text), "not a regular file");
    CHECK_STR(cli_read_text(".", "none", &text), "cannot be opened");
    sl_buf_fini(&text);
    remove_root();
    free(large);
}

TEST(byte_order_mark_is_no_text)
{
    static const char bytes[] = "\xef\xbb\xbf"
                                "3 May\r\n";
    struct sl_buf text;
    sl_buf_init(&text, 100000);
    make_root();
    make_file("windows.txt", bytes, sizeof(bytes) - 1);
    CHECK(cli_read_text(".", "windows.txt", &text) == NULL);
    CHECK(sl_span_is(sl_buf_span(&text), "3 May\r\n"));
    sl_buf_fini(&text);
    remove_root();
}

struct parsed {
    const char *text;
    long long number, duration;
    bool flag;
    struct cli_list list, words;
};

static int parse(struct parsed *parsed, int argc, char **argv)
{
    const struct cli_arg args[] = {
        {"--text", CLI_TEXT, &parsed->text, 0, 0},
        {"--number", CLI_NUMBER, &parsed->number, 1, 50},
        {"--duration", CLI_DURATION, &parsed->duration, 100, 60000},
        {"--flag", CLI_SWITCH, &parsed->flag, 0, 0},
        {"--list", CLI_LIST, &parsed->list, 0, 0},
        {.name = NULL},
    };
    *parsed = (struct parsed){.text = NULL};
    return cli_parse("test", "help\n", args, argc, argv, &parsed->words);
}
#define ARGC(argv) (int)(sizeof(argv) / sizeof(argv[0]))

TEST(arguments_in_any_order)
{
    struct parsed parsed;
    char *argv[] = {"test", "one",    "--text",  "-x",         "--number=7", "--list", "a",
                    "two",  "--flag", "--list=", "--duration", "2s",         "--",     "--text"};
    CHECK_INT(parse(&parsed, ARGC(argv), argv), CLI_GO_ON);
    CHECK_STR(parsed.text, "-x");
    CHECK_INT(parsed.number, 7);
    CHECK_INT(parsed.duration, 2000);
    CHECK(parsed.flag);
    CHECK_INT(parsed.list.len, 2);
    CHECK_STR(parsed.list.items[1], "");
    CHECK_INT(parsed.words.len, 3);
    CHECK_STR(parsed.words.items[2], "--text");
}

TEST(wrong_arguments_are_refused)
{
    static char *wrong[][3] = {
        {"test", "--text", NULL},        {"test", "--text", "--flag"},
        {"test", "--number", "0"},       {"test", "--number", "51"},
        {"test", "--number", "7x"},      {"test", "--number=", "x"},
        {"test", "--duration", "1hour"}, {"test", "--flag=1", "x"},
        {"test", "--numbers", "1"},      {"test", "-t", "1"},
        {"test", "--tex", "1"},
    };
    struct parsed parsed;
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        CHECK_INT(parse(&parsed, wrong[i][2] != NULL ? 3 : 2, wrong[i]), CLI_USAGE);
    }
}

static const struct test_case cases[] = {
    {"paths_fit_patterns", paths_fit_patterns},
    {"walk_is_sorted_and_stays_below", walk_is_sorted_and_stays_below},
    {"what_is_no_text_is_told", what_is_no_text_is_told},
    {"byte_order_mark_is_no_text", byte_order_mark_is_no_text},
    {"arguments_in_any_order", arguments_in_any_order},
    {"wrong_arguments_are_refused", wrong_arguments_are_refused},
    {NULL, NULL},
};

int main(int argc, char **argv)
{
    return run_tests(cases, argc, argv);
}
