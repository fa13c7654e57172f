/* A configuration is read whole and right, or the program says in one line what is wrong. */
#include "common/options.h"
#include "tests/support/test.h"

#include <stdint.h>
#include <unistd.h>

static const char *const levels[] = {"debug", "info", NULL};
static const char *const schemes[] = {"redis", "rediss", NULL};

struct values {
    const char *brokers;
    long long inflight;
    double ratio;
    bool strict;
    long long timeout_ms;
    long long bytes;
    int level;
    const char *url;
    const char *address, *prefix;
    const char *key;
};

#define AT(field) offsetof(struct values, field)
static const struct sl_option kafka_options[] = {
    {.name = "SLUICE_T_BROKERS",
     .type = SL_OPT_STRING,
     .offset = AT(brokers),
     .help = "Brokers to begin with, separated by commas; the others are found through them."},
    {.name = NULL},
};
static const struct sl_option other_options[] = {
    {.name = "SLUICE_T_INFLIGHT",
     .type = SL_OPT_INT,
     .offset = AT(inflight),
     .fallback = "8",
     .min = 1,
     .max = 64,
     .help = "Jobs in flight."},
    {.name = "SLUICE_T_RATIO",
     .type = SL_OPT_NUMBER,
     .offset = AT(ratio),
     .fallback = "0.5",
     .min = 0,
     .max = 1,
     .help = "A ratio."},
    {.name = "SLUICE_T_STRICT",
     .type = SL_OPT_BOOL,
     .offset = AT(strict),
     .fallback = "false",
     .help = "Whether to be strict."},
    {.name = "SLUICE_T_TIMEOUT",
     .type = SL_OPT_DURATION,
     .offset = AT(timeout_ms),
     .fallback = "15s",
     .min = 500,
     .max = 86400000,
     .help = "A time-out."},
    {.name = "SLUICE_T_BYTES",
     .type = SL_OPT_BYTES,
     .offset = AT(bytes),
     .fallback = "64k",
     .min = 1024,
     .max = 16777216,
     .help = "A size."},
    {.name = "SLUICE_T_LEVEL",
     .type = SL_OPT_CHOICE,
     .offset = AT(level),
     .fallback = "info",
     .choices = levels,
     .help = "A level | or not."},
    {.name = "SLUICE_T_URL",
     .type = SL_OPT_URL,
     .offset = AT(url),
     .fallback = "redis://127.0.0.1:6379",
     .choices = schemes,
     .help = "Where Redis is."},
    {.name = "SLUICE_T_LISTEN",
     .type = SL_OPT_ADDRESS,
     .offset = AT(address),
     .fallback = "127.0.0.1:8080",
     .help = "Where to listen."},
    {.name = "SLUICE_T_PREFIX",
     .type = SL_OPT_PREFIX,
     .offset = AT(prefix),
     .fallback = "sluice",
     .help = "Of names."},
    {.name = "SLUICE_T_API_KEY",
     .type = SL_OPT_STRING,
     .offset = AT(key),
     .fallback = "",
     .secret = true,
     .help = "A key."},
    {.name = NULL},
};

static struct values values;
static const struct sl_option_set sets[] = {
    {"Kafka", kafka_options, &values},
    {"Other things", other_options, &values},
};

static char *out_text, *err_text; /* Of the last load. */
static struct sl_options *options;

static enum sl_options_result load(const char *argument)
{
    char *argv[] = {(char *)(uintptr_t) "sluice-test", (char *)(uintptr_t)argument, NULL};
    size_t out_len, err_len;
    free(out_text);
    free(err_text);
    sl_options_fini(options);
    FILE *out = open_memstream(&out_text, &out_len);
    FILE *err = open_memstream(&err_text, &err_len);
    CHECK(out != NULL && err != NULL);
    memset(&values, 0, sizeof(values));
    enum sl_options_result result =
        sl_options_load("sluice-test", "Tests options.", sets, 2, argument != NULL ? 2 : 1, argv,
                        out, err, &options);
    fclose(out);
    fclose(err);
    CHECK((options != NULL) == (result == SL_OPTIONS_RUN));
    return result;
}

static void start(void) /* An environment with what is required. */
{
    clearenv();
    setenv("SLUICE_T_BROKERS", "a:9092,b:9092", 1);
}

static void finish(void)
{
    sl_options_fini(options);
    free(out_text);
    free(err_text);
    options = NULL;
    out_text = err_text = NULL;
}

TEST(defaults_fill_what_is_not_set)
{
    start();
    setenv("SLUICE_T_INFLIGHT", "", 1); /* Empty counts as not set. */
    CHECK_INT(load(NULL), SL_OPTIONS_RUN);
    CHECK_STR(values.brokers, "a:9092,b:9092");
    CHECK_INT(values.inflight, 8);
    CHECK(values.ratio == 0.5 && !values.strict);
    CHECK_INT(values.timeout_ms, 15000);
    CHECK_INT(values.bytes, 65536);
    CHECK_INT(values.level, 1);
    CHECK_STR(values.url, "redis://127.0.0.1:6379");
    CHECK_STR(values.address, "127.0.0.1:8080");
    CHECK_STR(values.key, "");
    finish();
}

TEST(values_are_read_by_type)
{
    static const struct {
        const char *name, *text;
        long long want;
        const void *at;
    } good[] = {
        {"SLUICE_T_INFLIGHT", "64", 64, &values.inflight},
        {"SLUICE_T_TIMEOUT", "1500ms", 1500, &values.timeout_ms},
        {"SLUICE_T_TIMEOUT", "20", 20000, &values.timeout_ms},
        {"SLUICE_T_TIMEOUT", "5m", 300000, &values.timeout_ms},
        {"SLUICE_T_TIMEOUT", "24h", 86400000, &values.timeout_ms},
        {"SLUICE_T_BYTES", "1024", 1024, &values.bytes},
        {"SLUICE_T_BYTES", "2K", 2048, &values.bytes},
        {"SLUICE_T_BYTES", "16m", 16777216, &values.bytes},
    };
    static const char *const trues[] = {"1", "true", "YES", "on"};
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        start();
        setenv(good[i].name, good[i].text, 1);
        CHECK_INT(load(NULL), SL_OPTIONS_RUN);
        CHECK_INT(*(const long long *)good[i].at, good[i].want);
    }
    for (size_t i = 0; i < sizeof(trues) / sizeof(trues[0]); i++) {
        setenv("SLUICE_T_STRICT", trues[i], 1);
        CHECK(load(NULL) == SL_OPTIONS_RUN && values.strict);
    }
    setenv("SLUICE_T_LEVEL", "DEBUG", 1);
    setenv("SLUICE_T_RATIO", "1e-1", 1);
    setenv("SLUICE_T_URL", "rediss://u:p@h", 1);
    setenv("SLUICE_T_LISTEN", "[::1]:0", 1);
    setenv("SLUICE_T_PREFIX", "acme.test_1-x", 1);
    CHECK_INT(load(NULL), SL_OPTIONS_RUN);
    CHECK_INT(values.level, 0);
    CHECK(values.ratio == 0.1);
    CHECK_STR(values.url, "rediss://u:p@h");
    CHECK_STR(values.address, "[::1]:0");
    CHECK_STR(values.prefix, "acme.test_1-x");
    finish();
}

TEST(wrong_values_stop_the_program_and_name_the_variable)
{
    static const char *const bad[][2] = {
        {"SLUICE_T_INFLIGHT", "0"},      {"SLUICE_T_INFLIGHT", "65"},
        {"SLUICE_T_INFLIGHT", "8x"},     {"SLUICE_T_INFLIGHT", " 8"},
        {"SLUICE_T_RATIO", "1.1"},       {"SLUICE_T_RATIO", "nan"},
        {"SLUICE_T_RATIO", "0x1"},       {"SLUICE_T_RATIO", "."},
        {"SLUICE_T_STRICT", "maybe"},    {"SLUICE_T_TIMEOUT", "499ms"},
        {"SLUICE_T_TIMEOUT", "s"},       {"SLUICE_T_TIMEOUT", "1.5s"},
        {"SLUICE_T_TIMEOUT", "5 m"},     {"SLUICE_T_TIMEOUT", "9223372036854775807h"},
        {"SLUICE_T_TIMEOUT", "-1s"},     {"SLUICE_T_BYTES", "1t"},
        {"SLUICE_T_LEVEL", "loud"},      {"SLUICE_T_URL", "http://h"},
        {"SLUICE_T_URL", "redis:"},      {"SLUICE_T_URL", "redis://"},
        {"SLUICE_T_URL", "redis://a b"}, {"SLUICE_T_LISTEN", "8080"},
        {"SLUICE_T_LISTEN", ":8080"},    {"SLUICE_T_LISTEN", "h:65536"},
        {"SLUICE_T_LISTEN", "::1:80"},   {"SLUICE_T_PREFIX", "a b"},
        {"SLUICE_T_PREFIX", "a/b"},      {"SLUICE_T_PREFIX", "s\xc3\xbc"},
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        char want[64];
        start();
        setenv(bad[i][0], bad[i][1], 1);
        CHECK_INT(load(NULL), SL_OPTIONS_WRONG);
        snprintf(want, sizeof(want), "sluice-test: %s=%s: must be ", bad[i][0], bad[i][1]);
        CHECK(strncmp(err_text, want, strlen(want)) == 0);
        CHECK(strchr(err_text, '\n') == err_text + strlen(err_text) - 1);
    }
    char longest[202];
    memset(longest, 'x', sizeof(longest));
    longest[201] = 0;
    start();
    setenv("SLUICE_T_PREFIX", longest, 1);
    CHECK_INT(load(NULL), SL_OPTIONS_WRONG);
    setenv("SLUICE_T_PREFIX", longest + 1, 1);
    CHECK_INT(load(NULL), SL_OPTIONS_RUN);
    start();
    setenv("SLUICE_T_TIMEOUT", "2", 1);
    setenv("SLUICE_T_BYTES", "1", 1);
    load(NULL);
    CHECK_STR(err_text, "sluice-test: SLUICE_T_BYTES=1: must be a number of bytes like 512, 64k, "
                        "16m or 1g, 1k to 16m\n");
    start();
    setenv("SLUICE_T_URL", "http://user:secret@h", 1);
    load(NULL);
    CHECK_STR(err_text, "sluice-test: SLUICE_T_URL=http://***@h: must be a URL that starts with "
                        "redis://, rediss://\n");
    clearenv();
    CHECK_INT(load(NULL), SL_OPTIONS_WRONG);
    CHECK(strncmp(err_text, "sluice-test: SLUICE_T_BROKERS is not set: Brokers", 49) == 0);
    finish();
}

static char *write_file(const char *content, size_t len)
{
    static char path[64];
    strcpy(path, "/tmp/sluice-test-XXXXXX");
    int fd = mkstemp(path);
    CHECK(fd >= 0 && write(fd, content, len) == (ssize_t)len);
    close(fd);
    return path;
}

TEST(secrets_come_from_files_too)
{
    static const struct {
        const char *content;
        size_t len;
        const char *want; /* NULL: refused. */
    } cases[] = {
        {"key", 3, "key"},     {"key\n", 4, "key"}, {"key\r\n", 5, "key"}, {"key\n\n", 5, "key\n"},
        {" key ", 5, " key "}, {"", 0, NULL},       {"\n", 1, NULL},       {"a\0b", 3, NULL},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        start();
        char *path = write_file(cases[i].content, cases[i].len);
        setenv("SLUICE_T_API_KEY_FILE", path, 1);
        CHECK_INT(load(NULL), cases[i].want != NULL ? SL_OPTIONS_RUN : SL_OPTIONS_WRONG);
        unlink(path);
        if (cases[i].want != NULL) {
            CHECK_STR(values.key, cases[i].want);
        }
    }
    setenv("SLUICE_T_API_KEY_FILE", "/nonexistent/key", 1);
    CHECK_INT(load(NULL), SL_OPTIONS_WRONG);
    CHECK_STR(err_text, "sluice-test: SLUICE_T_API_KEY_FILE: /nonexistent/key: No such file or "
                        "directory\n");
    setenv("SLUICE_T_API_KEY", "k", 1);
    CHECK_INT(load(NULL), SL_OPTIONS_WRONG);
    CHECK_STR(err_text, "sluice-test: SLUICE_T_API_KEY and SLUICE_T_API_KEY_FILE are both set; set "
                        "one\n");
    finish();
}

TEST(misspelt_variables_stop_the_program)
{
    static const char *const bad[] = {"SLUICE_T_BROKER", "SLUICE_T_BROKERSS", "SLUICE_T_BORKERS",
                                      "SLUICE_TBROKERS", "SLUICE_T_API_KEYFILE"};
    static const char *const good[] = {"SLUICE_SOMETHING_ELSE", "SLUICE_T_BROKEN_IN", "MY_T_BROKER",
                                       "SLUICE_T_API_KEY_FILE"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        start();
        setenv(bad[i], "x", 1);
        CHECK_INT(load(NULL), SL_OPTIONS_WRONG);
        CHECK(strstr(err_text, bad[i]) != NULL && strstr(err_text, "did you mean") != NULL);
    }
    start();
    setenv("SLUICE_T_BROKER", "x", 1);
    load(NULL);
    CHECK_STR(err_text, "sluice-test: unknown variable SLUICE_T_BROKER: did you mean "
                        "SLUICE_T_BROKERS?\n");
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        start();
        char *path = write_file("x", 1);
        setenv(good[i], path, 1);
        CHECK_INT(load(NULL), SL_OPTIONS_RUN);
        unlink(path);
    }
    finish();
}

TEST(switches_are_served)
{
    clearenv(); /* None but --print-config needs a configuration. */
    CHECK_INT(load("--version"), SL_OPTIONS_EXIT);
    CHECK_STR(out_text, "sluice-test " SLUICE_VERSION "\n");
    CHECK_INT(load("--nonsense"), SL_OPTIONS_WRONG);
    CHECK_STR(err_text, "sluice-test: unknown argument --nonsense; see --help\n");
    CHECK_INT(load("--print-config"), SL_OPTIONS_WRONG);
    start();
    setenv("SLUICE_T_API_KEY", "hidden", 1);
    setenv("SLUICE_T_URL", "redis://:hidden@h:1/0", 1);
    CHECK_INT(load("--print-config"), SL_OPTIONS_EXIT);
    CHECK_STR(out_text, "SLUICE_T_BROKERS=a:9092,b:9092  # environment\n"
                        "SLUICE_T_INFLIGHT=8  # default\nSLUICE_T_RATIO=0.5  # default\n"
                        "SLUICE_T_STRICT=false  # default\nSLUICE_T_TIMEOUT=15s  # default\n"
                        "SLUICE_T_BYTES=64k  # default\nSLUICE_T_LEVEL=info  # default\n"
                        "SLUICE_T_URL=redis://***@h:1/0  # environment\n"
                        "SLUICE_T_LISTEN=127.0.0.1:8080  # default\n"
                        "SLUICE_T_PREFIX=sluice  # default\n"
                        "SLUICE_T_API_KEY=(hidden)  # environment\n");
    finish();
}

TEST(help_and_markdown_tell_what_is_allowed)
{
    clearenv();
    CHECK_INT(load("--help"), SL_OPTIONS_EXIT);
    CHECK(strstr(out_text, "\nTests options.\n") != NULL);
    CHECK(strstr(out_text, "\nKafka\n  SLUICE_T_BROKERS\n"
                           "      Brokers to begin with, separated by commas; the others are found "
                           "through\n      them.\n      text; required\n") != NULL);
    CHECK(strstr(out_text, "\nOther things\n  SLUICE_T_INFLIGHT\n      Jobs in flight.\n"
                           "      a whole number, 1 to 64; default: 8\n") != NULL);
    CHECK(strstr(out_text, "      a duration like 1500ms, 15s, 5m or 24h, 500ms to 24h; "
                           "default: 15s\n") != NULL);
    CHECK(strstr(out_text, "      one of debug, info; default: info\n") != NULL);
    CHECK(strstr(out_text, "SLUICE_T_API_KEY  (or a file: NAME_FILE)") != NULL);
    CHECK(strstr(out_text, "\nExample\n  SLUICE_T_BROKERS=... sluice-test\n") != NULL);
    CHECK(strstr(out_text, "--markdown") != NULL);
    for (const char *line = out_text, *end; (end = strchr(line, '\n')) != NULL; line = end + 1) {
        CHECK(end - line <= 80);
    }
    CHECK_INT(load("--markdown"), SL_OPTIONS_EXIT);
    CHECK(strstr(out_text, "## sluice-test\n\nTests options.\n\n### Kafka\n\n"
                           "| name | type | range | default | description |\n"
                           "|---|---|---|---|---|\n"
                           "| `SLUICE_T_BROKERS` | text |  | required | Brokers") != NULL);
    CHECK(strstr(out_text, "| `SLUICE_T_LEVEL` | choice | debug, info | `info` | A level \\| or "
                           "not. |\n") != NULL);
    CHECK(strstr(out_text, "| `SLUICE_T_API_KEY` (`_FILE`) | text |  |  | A key. |\n") != NULL);
    finish();
}

int main(int argc, char **argv)
{
    const struct test_case cases[] = {
        {"defaults_fill_what_is_not_set", defaults_fill_what_is_not_set},
        {"values_are_read_by_type", values_are_read_by_type},
        {"wrong_values_stop_the_program_and_name_the_variable",
         wrong_values_stop_the_program_and_name_the_variable},
        {"secrets_come_from_files_too", secrets_come_from_files_too},
        {"misspelt_variables_stop_the_program", misspelt_variables_stop_the_program},
        {"switches_are_served", switches_are_served},
        {"help_and_markdown_tell_what_is_allowed", help_and_markdown_tell_what_is_allowed},
        {NULL, NULL},
    };
    return run_tests(cases, argc, argv);
}
