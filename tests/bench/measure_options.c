/*
 * One table holds each option's name, range, default and line of --help. Values are checked here,
 * so that programs need not: what comes through is within its range, there is a target, and either
 * a rate or a number of streams. Options take their value as `--name value` or `--name=value`.
 */
#include "tests/bench/measure_options.h"

#include <errno.h>
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum kind { TARGET, TEXT, NUMBER, INTEGER, ARRIVALS };

struct option_row {
    const char *name;
    enum kind kind;
    size_t offset; /* In struct measure_options. */
    double min, max, preset;
    const char *help;
};

#define AT(member) offsetof(struct measure_options, member)
/* clang-format off */
static const struct option_row TABLE[] = {
    {"",           TARGET,   AT(target),      0, 0, 0,              "what is asked; needed"},
    {"rate",       NUMBER,   AT(rate),        0, 1e6, 0,            "requests a second, whatever the answers do (open loop)"},
    {"arrivals",   ARRIVALS, AT(poisson),     0, 0, 1,              "poisson (the default) or even, for --rate"},
    {"streams",    INTEGER,  AT(streams),     0, 1e6, 0,            "or: streams at once, each starts again when it ends (closed loop)"},
    {"spread",     NUMBER,   AT(spread_s),    0, 3600, 2,           "seconds over which the first starts of --streams are spread"},
    {"seconds",    NUMBER,   AT(seconds),     0.001, 86400, 10,     "of the counted phase"},
    {"warmup",     NUMBER,   AT(warmup_s),    0, 86400, 0,          "seconds of requests before, which are not counted"},
    {"ideal-ms",   NUMBER,   AT(ideal_ms),    0, 1e6, 0,            "the least time to the first token; the overhead is what is above"},
    {"timeout-ms", INTEGER,  AT(timeout_ms),  1, 3.6e6, 30000,      "of a request, from when it was due"},
    {"tokens",     INTEGER,  AT(tokens),      0, 1e6, 50,           "of a whole answer"},
    {"max-open",   INTEGER,  AT(max_open),    1, 1e6, 20000,        "requests at once, or fewer descriptors; one that is due above fails"},
    {"seed",       INTEGER,  AT(seed),        0, 2147483647, 1,     "of the arrivals"},
    {"query-bytes", INTEGER, AT(query_bytes), 16, 32768, 60,        "length of the question"},
    {"history",    INTEGER,  AT(history),     0, 1000, 0,           "earlier messages that are sent with it"},
    {"json",       TEXT,     AT(json),        0, 0, 0,              "file for the report as JSON, - for stdout"},
};
/* clang-format on */
enum { ROWS = sizeof(TABLE) / sizeof(TABLE[0]) };

static const char *name_of(const struct option_row *row, const struct measure_program *program)
{
    return row->kind == TARGET ? program->target : row->name;
}

static bool is_known(const struct option_row *row, const struct measure_program *program)
{
    return row->offset != AT(history) || program->history;
}

static void print_help(const struct measure_program *program)
{
    printf("usage: %s --%s URL (--rate R | --streams N) [options]\n\n%s\n", program->name,
           program->target, program->about);
    for (int i = 0; i < ROWS; i++) {
        if (!is_known(&TABLE[i], program)) {
            continue;
        }
        printf("  --%-12s %s", name_of(&TABLE[i], program), TABLE[i].help);
        if (TABLE[i].preset > 0 && TABLE[i].kind != ARRIVALS) {
            printf(" (%.15g)", TABLE[i].preset);
        }
        printf("\n");
    }
    printf("  --%-12s this text\n\nexamples:\n%s", "help", program->examples);
}

static const struct option_row *find(const struct measure_program *program, const char *name,
                                     size_t len)
{
    for (int i = 0; i < ROWS; i++) {
        const char *known = name_of(&TABLE[i], program);
        if (is_known(&TABLE[i], program) && strlen(known) == len &&
            strncmp(known, name, len) == 0) {
            return &TABLE[i];
        }
    }
    return NULL;
}

static void preset(struct measure_options *options)
{
    *options = (struct measure_options){0};
    for (int i = 0; i < ROWS; i++) {
        void *at = (char *)options + TABLE[i].offset;
        if (TABLE[i].kind == NUMBER) {
            memcpy(at, &TABLE[i].preset, sizeof(double));
        } else if (TABLE[i].kind == INTEGER) {
            long value = (long)TABLE[i].preset;
            memcpy(at, &value, sizeof(value));
        }
    }
    options->poisson = true;
}

/* A decimal number in the row's range. */
static bool set_number(const struct option_row *row, void *at, const char *text)
{
    char *end = NULL;
    errno = 0;
    double value = strtod(text, &end);
    if (end == text || *end != '\0' || errno != 0 || !(value >= row->min && value <= row->max)) {
        return false;
    }
    long whole = (long)value;
    if (row->kind == INTEGER) {
        memcpy(at, &whole, sizeof(whole));
        return (double)whole >= value && (double)whole <= value;
    }
    memcpy(at, &value, sizeof(value));
    return true;
}

static bool set(struct measure_options *options, const struct option_row *row, const char *text)
{
    void *at = (char *)options + row->offset;
    switch (row->kind) {
    case TARGET:
        memcpy(at, &text, sizeof(text));
        return strncmp(text, "http://", 7) == 0;
    case TEXT:
        memcpy(at, &text, sizeof(text));
        return *text != '\0';
    case ARRIVALS:
        options->poisson = strcmp(text, "poisson") == 0;
        return options->poisson || strcmp(text, "even") == 0;
    case NUMBER:
    case INTEGER:
        return set_number(row, at, text);
    }
    return false;
}

static int wrong(const struct measure_program *program, const char *what, const char *text)
{
    fprintf(stderr, "%s: %s%s; --help lists the options\n", program->name, what, text);
    return 2;
}

static int check(const struct measure_options *options, const struct measure_program *program)
{
    if (options->target == NULL) {
        return wrong(program, "needs --", program->target);
    }
    if ((options->rate > 0) == (options->streams > 0)) {
        return wrong(program, "needs either --rate or --streams", "");
    }
    if (options->streams > options->max_open) {
        return wrong(program, "--streams is larger than --max-open", "");
    }
    return -1;
}

int measure_options_parse(struct measure_options *options, const struct measure_program *program,
                          int argc, char **argv)
{
    preset(options);
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0) {
            print_help(program);
            return 0;
        }
        const char *name = strncmp(argv[i], "--", 2) == 0 ? argv[i] + 2 : "";
        size_t len = strcspn(name, "=");
        const struct option_row *row = find(program, name, len);
        if (row == NULL) {
            return wrong(program, "unknown option ", argv[i]);
        }
        const char *value = name[len] == '=' ? name + len + 1 : argv[++i];
        if (value == NULL) {
            return wrong(program, "a value must follow ", argv[i - 1]);
        }
        if (!set(options, row, value)) {
            return wrong(program, "not a value of this option: ", argv[i]);
        }
    }
    return check(options, program);
}
