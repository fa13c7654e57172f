/* Arguments, patterns and the walk through a directory. */
#include "tests/support/test.h"
#include "workers/cli/ingest_dry.h"
#include "workers/cli/ingest_plan.h"
#include "workers/cli/read.h"

#include <fcntl.h>
#include <limits.h>
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

static const struct cli_list take_md = {.items = {"**/*.md"}, .len = 1};
static const struct cli_list none = {.len = 0};
static const struct cli_patterns md_files = {&take_md, &none};

/* "id" or "id: reason" of each item. */
static void check_files(const struct cli_files *files, const char *const *want)
{
    size_t i = 0;
    for (; i < files->len && want[i] != NULL; i++) {
        char got[2 * PATH_MAX];
        const struct cli_file *file = &files->items[i];
        snprintf(got, sizeof(got), "%s%s%s", file->id, file->reason != NULL ? ": " : "",
                 file->reason != NULL ? file->reason : "");
        CHECK_STR(got, want[i]);
    }
    CHECK(i == files->len && want[i] == NULL);
}

TEST(walk_names_what_it_cannot_take)
{
    static const char *const want[] = {"a.md",
                                       "b/c.md",
                                       "b/d/e.md",
                                       "b/d/up: a link that leads round in a circle",
                                       "etc: a link that leaves the directory",
                                       "gone.md: a link that leads nowhere",
                                       "inner.md",
                                       "loop.md: a link that leads round in a circle",
                                       "loop2/c.md",
                                       "loop2/d/e.md",
                                       "loop2/d/up: a link that leads round in a circle",
                                       "null.md: a link that leaves the directory",
                                       "out.md: a link that leaves the directory",
                                       "pipe.md: a named pipe, not a file",
                                       "self: a link that leads round in a circle",
                                       NULL};
    struct cli_files files = {.items = NULL};
    make_root();
    CHECK(mkdir("b", 0700) == 0 && mkdir("b/d", 0700) == 0 && mkdir("x.md", 0700) == 0);
    CHECK(mkdir(".git", 0700) == 0 && symlink("/etc", ".hidden") == 0);
    make_file("a.md", "a", 1);
    make_file("b/c.md", "c", 1);
    make_file("b/d/e.md", "e", 1);
    make_file("b/no.txt", "n", 1);
    make_file(".git/a.md", "n", 1);
    CHECK(symlink("/etc/passwd", "out.md") == 0 && symlink("nowhere", "gone.md") == 0);
    CHECK(symlink("a.md", "inner.md") == 0 && symlink("/etc", "etc") == 0);
    CHECK(symlink("..", "b/d/up") == 0 && symlink(".", "self") == 0 && symlink("b", "loop2") == 0);
    CHECK(symlink("loop.md", "loop.md") == 0 && symlink("/dev/null", "null.md") == 0);
    CHECK(symlink("/etc/passwd", "out.txt") == 0 && mkfifo("pipe.md", 0600) == 0);
    CHECK_INT(cli_walk(".", &md_files, &files), 0);
    CHECK(cli_files_sort(&files) == NULL);
    check_files(&files, want);
    CHECK_INT(cli_walk("not-there", &md_files, &files), -SL_ENOENT);
    CHECK_INT(cli_walk("a.md", &md_files, &files), -SL_EINVAL);
    cli_files_fini(&files);
    remove_root();
}

TEST(what_is_excluded_is_not_looked_at)
{
    static const char *const want[] = {"a.md", "b/c.md", NULL};
    static const struct cli_list exclude = {.items = {"**/drafts", "b/x*"}, .len = 2};
    const struct cli_patterns patterns = {&take_md, &exclude};
    struct cli_files files = {.items = NULL};
    make_root();
    CHECK(mkdir("b", 0700) == 0 && mkdir("b/drafts", 0700) == 0 && mkdir("b/drafts/z", 0700) == 0);
    make_file("a.md", "a", 1);
    make_file("b/c.md", "a", 1);
    make_file("b/x1.md", "a", 1);
    make_file("b/drafts/z/d.md", "a", 1);
    CHECK(symlink("/etc", "b/drafts/etc") == 0);
    CHECK_INT(cli_walk(".", &patterns, &files), 0);
    CHECK(cli_files_sort(&files) == NULL);
    check_files(&files, want);
    cli_files_fini(&files);
    remove_root();
}

TEST(names_that_no_document_can_have_are_named)
{
    enum { FOLDER = 250 };
    static const char *const names[] = {"12345.md", "123456.md"};
    char path[600] = "";
    struct cli_files files = {.items = NULL};
    struct sl_buf shown;
    make_root();
    make_file("caf\xe9.md", "a", 1);
    for (size_t i = 0, at = 0; i < 2; i++) {
        memset(path + at, 'n', FOLDER);
        path[at += FOLDER] = '\0';
        CHECK(mkdir(path, 0700) == 0);
        path[at++] = '/';
    }
    for (size_t i = 0; i < 2; i++) {
        snprintf(path + 2 * (FOLDER + 1), 20, "ab%s", names[i]);
        CHECK_INT(strlen(path), 512 + i);
        make_file(path, "a", 1);
    }
    CHECK_INT(cli_walk(".", &md_files, &files), 0);
    CHECK(cli_files_sort(&files) == NULL);
    CHECK_INT(files.len, 3);
    CHECK_STR(files.items[0].reason, "its name is not UTF-8");
    CHECK(files.items[1].reason == NULL);
    CHECK_STR(files.items[2].reason, "its path is longer than 512 bytes");
    sl_buf_init(&shown, 100);
    cli_put_name(&shown, files.items[0].id);
    CHECK(sl_span_is(sl_buf_span(&shown), "caf\\xe9.md"));
    sl_buf_fini(&shown);
    cli_files_fini(&files);
    remove_root();
}

static void check_text(const char *bytes, size_t len, const char *want)
{
    struct sl_buf text;
    char why[CLI_WHY_MAX] = "";
    sl_buf_init(&text, CLI_TEXT_ROOM);
    make_file("text", bytes, len);
    bool fine = cli_read_text(".", "text", &text, why);
    if (want == NULL) {
        CHECK(fine);
        CHECK(sl_span_equal(sl_buf_span(&text), (struct sl_span){bytes, len}));
    } else {
        CHECK(!fine);
        CHECK_STR(why, want);
    }
    sl_buf_fini(&text);
}

TEST(what_is_no_text_is_told)
{
    static const char marks16[] = "not UTF-8: begins with the byte order mark of UTF-16";
    static const char marks32[] = "not UTF-8: begins with the byte order mark of UTF-32";
    char *large = malloc(CLI_TEXT_MAX + 1);
    CHECK(large != NULL);
    memset(large, 'a', CLI_TEXT_MAX + 1);
    make_root();
    check_text("caf\xc3\xa9", 5, NULL);
    check_text("caf\xe9", 4, "not UTF-8, perhaps Latin-1 or Windows-1252: byte 3 is 0xe9");
    check_text("\x89\x01\xe9", 3, "not UTF-8: byte 0 is 0x89");
    check_text("\xff\xfe"
               "a\0",
               4, marks16);
    check_text("\xfe\xff\0a", 4, marks16);
    check_text("\xff\xfe\0\0a\0\0\0", 8, marks32);
    check_text("\0\0\xfe\xff\0\0\0a", 8, marks32);
    check_text("a\0b", 3, "holds a zero byte: not a text");
    check_text("", 0, "empty");
    check_text(" \r\n\t\f\v", 6, "nothing but white space");
    check_text("\xef\xbb\xbf", 3, "empty");
    check_text("\xef\xbb\xbf\r\n", 5, "nothing but white space");
    check_text(large, CLI_TEXT_MAX, NULL);
    check_text(large, CLI_TEXT_MAX + 1, "larger than 16 MiB");
    remove_root();
    free(large);
}

TEST(what_is_no_file_is_not_opened)
{
    char why[CLI_WHY_MAX];
    struct sl_buf text;
    make_root();
    CHECK(mkdir("folder", 0700) == 0 && mkfifo("pipe", 0600) == 0);
    sl_buf_init(&text, 100);
    CHECK(!cli_read_text(".", "folder", &text, why));
    CHECK_STR(why, "a directory, not a file");
    CHECK(!cli_read_text(".", "pipe", &text, why));
    CHECK_STR(why, "a named pipe, not a file");
    CHECK(!cli_read_text("/dev", "zero", &text, why));
    CHECK_STR(why, "a device, not a file");
    CHECK(!cli_read_text(".", "none", &text, why));
    CHECK_STR(why, "is gone");
    sl_buf_fini(&text);
    remove_root();
}

TEST(byte_order_mark_is_no_text)
{
    static const char bytes[] = "\xef\xbb\xbf"
                                "3 May\r\n";
    struct sl_buf text;
    char why[CLI_WHY_MAX];
    sl_buf_init(&text, 100000);
    make_root();
    make_file("windows.txt", bytes, sizeof(bytes) - 1);
    CHECK(cli_read_text(".", "windows.txt", &text, why));
    CHECK(sl_span_is(sl_buf_span(&text), "3 May\r\n"));
    sl_buf_fini(&text);
    remove_root();
}

static int make_plan(struct cli_plan *plan, const char *const *words, const char *id)
{
    struct cli_list list = {.len = 0};
    for (; words[list.len] != NULL; list.len++) {
        list.items[list.len] = words[list.len];
    }
    return cli_plan_make(plan, &list, &md_files, id);
}

TEST(arguments_become_documents)
{
    static const char *const want[] = {"a.md", "c.txt", "d/b.md", NULL};
    char here[PATH_MAX], host[256], source[3 * PATH_MAX];
    struct cli_plan plan;
    struct sl_buf told;
    make_root();
    CHECK(mkdir("x", 0700) == 0 && mkdir("x/d", 0700) == 0 && mkdir("y", 0700) == 0);
    make_file("x/a.md", "a", 1);
    make_file("x/d/b.md", "a", 1);
    make_file("y/c.txt", "a", 1);
    CHECK_INT(make_plan(&plan, (const char *[]){"x//", "y/c.txt", NULL}, NULL), CLI_GO_ON);
    check_files(&plan.files, want);
    CHECK_STR(plan.files.items[1].root, "y");
    CHECK(getcwd(here, sizeof(here)) != NULL && gethostname(host, sizeof(host)) == 0);
    snprintf(source, sizeof(source), "%s/x, %s/y on %s", here, here, host);
    sl_buf_init(&told, 100000);
    cli_plan_put_source(&plan, &told);
    CHECK(sl_span_is(sl_buf_span(&told), source));
    sl_buf_fini(&told);
    cli_plan_fini(&plan);
    remove_root();
}

TEST(arguments_that_mean_one_document_are_refused)
{
    struct cli_plan plan;
    make_root();
    CHECK(mkdir("x", 0700) == 0 && mkdir("y", 0700) == 0);
    make_file("x/a.md", "a", 1);
    make_file("y/a.md", "a", 1);
    make_file("y/a.txt", "a", 1);
    CHECK_INT(make_plan(&plan, (const char *[]){"x", "y/a.txt", NULL}, NULL), CLI_GO_ON);
    cli_plan_fini(&plan);
    CHECK_INT(make_plan(&plan, (const char *[]){"x", "y", NULL}, NULL), CLI_FAILED);
    cli_plan_fini(&plan);
    CHECK_INT(make_plan(&plan, (const char *[]){"x", "y/a.md", NULL}, NULL), CLI_FAILED);
    cli_plan_fini(&plan);
    CHECK_INT(make_plan(&plan, (const char *[]){"x", "z", NULL}, NULL), CLI_FAILED);
    cli_plan_fini(&plan);
    CHECK_INT(make_plan(&plan, (const char *[]){"-", NULL}, NULL), CLI_USAGE);
    cli_plan_fini(&plan);
    CHECK_INT(make_plan(&plan, (const char *[]){"x", NULL}, "name"), CLI_USAGE);
    cli_plan_fini(&plan);
    remove_root();
}

static void check_metadata(const char *const *pairs, int code, const char *want)
{
    struct cli_list list = {.len = 0};
    struct sl_buf out;
    sl_buf_init(&out, 1 << 20);
    for (; pairs[list.len] != NULL; list.len++) {
        list.items[list.len] = pairs[list.len];
    }
    CHECK_INT(cli_metadata(&list, &out), code);
    CHECK(want == NULL || sl_span_is(sl_buf_span(&out), want));
    sl_buf_fini(&out);
}

TEST(metadata_is_pairs)
{
    static char long_pair[70000] = "k=";
    memset(long_pair + 2, 'v', sizeof(long_pair) - 3);
    check_metadata((const char *[]){NULL}, CLI_GO_ON, "{}");
    check_metadata((const char *[]){"a=1", "b=x=\"y\"", "c=", NULL}, CLI_GO_ON,
                   "{\"a\":\"1\",\"b\":\"x=\\\"y\\\"\",\"c\":\"\"}");
    check_metadata((const char *[]){"a=1", "ab=2", NULL}, CLI_GO_ON, NULL);
    check_metadata((const char *[]){"a", NULL}, CLI_USAGE, NULL);
    check_metadata((const char *[]){"=a", NULL}, CLI_USAGE, NULL);
    check_metadata((const char *[]){"a=1", "a=2", NULL}, CLI_USAGE, NULL);
    check_metadata((const char *[]){"a=\xff", NULL}, CLI_USAGE, NULL);
    check_metadata((const char *[]){long_pair, NULL}, CLI_USAGE, NULL);
}

TEST(chunks_are_estimated)
{
    CHECK_INT(cli_estimate_chunks(1), 1);
    CHECK_INT(cli_estimate_chunks(500), 1);
    CHECK_INT(cli_estimate_chunks(501), 2);
    CHECK_INT(cli_estimate_chunks(500 + 370), 2);
    CHECK_INT(cli_estimate_chunks(500 + 371), 3);
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
    {"walk_names_what_it_cannot_take", walk_names_what_it_cannot_take},
    {"what_is_excluded_is_not_looked_at", what_is_excluded_is_not_looked_at},
    {"names_that_no_document_can_have_are_named", names_that_no_document_can_have_are_named},
    {"what_is_no_text_is_told", what_is_no_text_is_told},
    {"what_is_no_file_is_not_opened", what_is_no_file_is_not_opened},
    {"arguments_become_documents", arguments_become_documents},
    {"arguments_that_mean_one_document_are_refused", arguments_that_mean_one_document_are_refused},
    {"metadata_is_pairs", metadata_is_pairs},
    {"chunks_are_estimated", chunks_are_estimated},
    {"byte_order_mark_is_no_text", byte_order_mark_is_no_text},
    {"arguments_in_any_order", arguments_in_any_order},
    {"wrong_arguments_are_refused", wrong_arguments_are_refused},
    {NULL, NULL},
};

int main(int argc, char **argv)
{
    return run_tests(cases, argc, argv);
}
