/*
 * Loading the configuration. sl_options_load serves the switches, then goes through the tables: the
 * text of each option is its variable, the file that NAME_FILE names (secrets), or the default; the
 * type's reader in option_value.c checks it and stores it. Everything that is wrong is said in one
 * line on err that starts with the program and names the variable; the first mistake ends it.
 *
 * One environment serves all programs, so variables that a program does not know are ignored, but
 * for those that look like a misspelling of one of its own: a limit that silently stays at its
 * default is worse than a program that does not start. LOOKALIKES lists names that only look so;
 * the layer lint says when it needs a new entry.
 *
 * This is the only file that reads the environment.
 */
#include "common/options.h"

#include "common/arena.h"
#include "common/option_value.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

enum { MAX_TEXT = 65536, WIDTH = 80, MAX_DISTANCE = 2, MAX_NAME = 63 };

/* Options of different programs that are within MAX_DISTANCE of each other. */
static const char *const LOOKALIKES[] = {NULL};

enum origin { ORIGIN_DEFAULT, ORIGIN_ENVIRONMENT, ORIGIN_FILE };

struct entry {
    const struct sl_option *option;
    void *values;
    const char *text;
    enum origin origin;
};

struct sl_options {
    struct sl_arena arena;
    size_t count;
    struct entry entries[];
};

/* What loading needs to say what is wrong. */
struct loader {
    const char *program;
    const struct sl_option_set *sets;
    size_t count;
    FILE *err;
    struct sl_options *options;
};

static int complain(const struct loader *loader, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static int complain(const struct loader *loader, const char *format, ...)
{
    va_list args;
    fprintf(loader->err, "%s: ", loader->program);
    va_start(args, format);
    vfprintf(loader->err, format, args);
    va_end(args);
    fputc('\n', loader->err);
    return -SL_EINVAL;
}

/* --- texts for people --- */

static void print_buf(struct sl_buf *buf, FILE *out)
{
    if (sl_buf_error(buf) == 0) {
        fwrite(buf->data, 1, buf->len, out);
    }
    sl_buf_clear(buf);
}

/* Breaks text at spaces so that lines end before WIDTH. */
static void print_wrapped(FILE *out, const char *indent, const char *text)
{
    size_t column = 0;
    while (*text != '\0') {
        size_t len = strcspn(text, " ");
        if (column > 0 && column + 1 + len > WIDTH) {
            fputc('\n', out);
            column = 0;
        }
        const char *before = column == 0 ? indent : " ";
        column += strlen(before) + len;
        fprintf(out, "%s%.*s", before, (int)len, text);
        text += len + strspn(text + len, " ");
    }
    fputc('\n', out);
}

static void help_option(const struct sl_option *option, struct sl_buf *text, FILE *out)
{
    fprintf(out, "  %s%s\n", option->name, option->secret ? "  (or a file: NAME_FILE)" : "");
    print_wrapped(out, "      ", option->help);
    sl_option_put_wanted(option, text);
    if (option->fallback == NULL) {
        sl_buf_append_text(text, "; required");
    } else {
        sl_buf_printf(text, "; default: %s",
                      option->fallback[0] != '\0' ? option->fallback : "none");
    }
    sl_buf_append(text, "", 1);
    if (sl_buf_error(text) == 0) {
        print_wrapped(out, "      ", text->data);
    }
    sl_buf_clear(text);
}

/* A line that starts the program: the required options, or the first one that has a default. */
static void help_example(const struct loader *loader, FILE *out)
{
    const struct sl_option *sample = NULL;
    bool any = false;
    fprintf(out, "\nExample\n ");
    for (size_t i = 0; i < loader->count; i++) {
        for (const struct sl_option *o = loader->sets[i].options; o->name != NULL; o++) {
            if (o->fallback == NULL) {
                fprintf(out, " %s=...", o->name);
                any = true;
            } else if (sample == NULL && o->fallback[0] != '\0' && !o->secret) {
                sample = o;
            }
        }
    }
    if (!any && sample != NULL) {
        fprintf(out, " %s=%s", sample->name, sample->fallback);
    }
    fprintf(out, " %s\n", loader->program);
}

static void help(const struct loader *loader, const char *synopsis, FILE *out)
{
    struct sl_buf text;
    sl_buf_init(&text, MAX_TEXT);
    fprintf(out, "usage: %s [--help | --version | --print-config | --markdown]\n\n",
            loader->program);
    print_wrapped(out, "", synopsis);
    fprintf(out, "\n  --help          this text\n"
                 "  --version       the program's name and version\n"
                 "  --print-config  the configuration that it would run with, secrets hidden\n"
                 "  --markdown      the options as Markdown tables\n\n"
                 "Options are environment variables; an empty one counts as not set.\n");
    for (size_t i = 0; i < loader->count; i++) {
        fprintf(out, "\n%s\n", loader->sets[i].title);
        for (const struct sl_option *o = loader->sets[i].options; o->name != NULL; o++) {
            help_option(o, &text, out);
        }
    }
    help_example(loader, out);
    sl_buf_fini(&text);
}

static void put_cell(struct sl_buf *row, const char *text)
{
    for (; *text != '\0'; text++) {
        sl_buf_append_text(row, *text == '|' ? "\\" : "");
        sl_buf_append(row, text, 1);
    }
    sl_buf_append_text(row, " | ");
}

void sl_options_markdown(const struct sl_option_set *sets, size_t count, FILE *out)
{
    struct sl_buf row;
    sl_buf_init(&row, MAX_TEXT);
    for (size_t i = 0; i < count; i++) {
        fprintf(
            out,
            "### %s\n\n| name | type | range | default | description |\n|---|---|---|---|---|\n",
            sets[i].title);
        for (const struct sl_option *o = sets[i].options; o->name != NULL; o++) {
            sl_buf_printf(&row, "| `%s`%s | %s | ", o->name, o->secret ? " (`_FILE`)" : "",
                          sl_option_type_name(o->type));
            sl_option_put_range(o, &row);
            if (o->fallback == NULL || o->fallback[0] == '\0') {
                sl_buf_printf(&row, " | %s | ", o->fallback == NULL ? "required" : "");
            } else {
                sl_buf_printf(&row, " | `%s` | ", o->fallback);
            }
            put_cell(&row, o->help);
            row.len -= row.len > 0 ? 1 : 0; /* The space after the last bar. */
            sl_buf_append_text(&row, "\n");
            print_buf(&row, out);
        }
        fputc('\n', out);
    }
    sl_buf_fini(&row);
}

void sl_options_print(const struct sl_options *options, FILE *out)
{
    static const char *const origins[] = {"default", "environment", "file"};
    struct sl_buf line;
    sl_buf_init(&line, 2 * MAX_TEXT);
    for (size_t i = 0; i < options->count; i++) {
        const struct entry *entry = &options->entries[i];
        sl_buf_printf(&line, "%s=", entry->option->name);
        sl_option_put_shown(entry->option, entry->text, &line);
        sl_buf_printf(&line, "  # %s\n", origins[entry->origin]);
        print_buf(&line, out);
    }
    sl_buf_fini(&line);
}

/* --- misspelt variables --- */

static size_t least(size_t a, size_t b, size_t c)
{
    size_t ab = a < b ? a : b;
    return ab < c ? ab : c;
}

/* Levenshtein's distance, one row at a time; too long names are far from everything. */
static size_t distance(struct sl_span a, struct sl_span b)
{
    size_t row[MAX_NAME + 1];
    if (a.len > MAX_NAME || b.len > MAX_NAME) {
        return MAX_NAME;
    }
    for (size_t j = 0; j <= b.len; j++) {
        row[j] = j;
    }
    for (size_t i = 1; i <= a.len; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= b.len; j++) {
            size_t substituted = diagonal + (a.data[i - 1] != b.data[j - 1] ? 1 : 0);
            diagonal = row[j];
            row[j] = least(row[j] + 1, row[j - 1] + 1, substituted);
        }
    }
    return row[b.len];
}

static bool is_lookalike(struct sl_span name)
{
    for (size_t i = 0; LOOKALIKES[i] != NULL; i++) {
        if (sl_span_is(name, LOOKALIKES[i])) {
            return true;
        }
    }
    return false;
}

/* The names that entry answers to: its own, and for a secret that of its file. */
static size_t names_of(const struct entry *entry, char names[2][MAX_NAME + 8])
{
    size_t len = strlen(entry->option->name);
    assert(len <= MAX_NAME);
    memcpy(names[0], entry->option->name, len + 1);
    memcpy(names[1], entry->option->name, len);
    memcpy(names[1] + len, "_FILE", sizeof("_FILE"));
    return entry->option->secret ? 2 : 1;
}

static int check_spelling(const struct loader *loader, struct sl_span name)
{
    char names[2][MAX_NAME + 8];
    char nearest[MAX_NAME + 8] = "";
    size_t least_distance = MAX_DISTANCE + 1;
    for (size_t i = 0; i < loader->options->count; i++) {
        size_t count = names_of(&loader->options->entries[i], names);
        for (size_t j = 0; j < count; j++) {
            size_t d = distance(name, sl_span_of(names[j]));
            if (d < least_distance) {
                least_distance = d;
                memcpy(nearest, names[j], sizeof(nearest));
            }
        }
    }
    if (least_distance == 0 || least_distance > MAX_DISTANCE || is_lookalike(name)) {
        return 0;
    }
    return complain(loader, "unknown variable " SL_SPAN_FMT ": did you mean %s?", SL_SPAN_ARG(name),
                    nearest);
}

static int check_environment(const struct loader *loader)
{
    for (char **variable = environ; variable != NULL && *variable != NULL; variable++) {
        struct sl_span name = {*variable, strcspn(*variable, "=")};
        if (strncmp(*variable, "SLUICE_", 7) == 0 && check_spelling(loader, name) != 0) {
            return -SL_EINVAL;
        }
    }
    return 0;
}

/* --- values --- */

/* The variable's text, or NULL when it is not set or empty. */
static const char *read_variable(const char *name)
{
    const char *text = getenv(name);
    return text != NULL && text[0] != '\0' ? text : NULL;
}

/* Reads the file into the arena, without the newline at its end. */
static int read_file(const struct loader *loader, const char *name, const char *path,
                     const char **ret)
{
    char *text = sl_arena_alloc(&loader->options->arena, MAX_TEXT + 1);
    if (text == NULL) {
        return complain(loader, "out of memory");
    }
    FILE *file = fopen(path, "re");
    if (file == NULL) {
        return complain(loader, "%s: %s: %s", name, path, strerror(errno));
    }
    size_t len = fread(text, 1, MAX_TEXT + 1, file);
    bool failed = ferror(file) != 0;
    fclose(file);
    if (failed || len > MAX_TEXT) {
        return complain(loader, "%s: %s: %s", name, path,
                        failed ? "cannot be read" : "more than 64 KiB");
    }
    len -= len > 0 && text[len - 1] == '\n' ? 1 : 0;
    len -= len > 0 && text[len - 1] == '\r' ? 1 : 0;
    text[len] = '\0';
    if (len == 0 || strlen(text) != len) {
        return complain(loader, "%s: %s: %s", name, path,
                        len == 0 ? "the file is empty" : "a zero character in the file");
    }
    *ret = text;
    return 0;
}

/* Sets entry's text and origin; text stays NULL when a required option has none. */
static int find_text(const struct loader *loader, struct entry *entry)
{
    char names[2][MAX_NAME + 8];
    const struct sl_option *option = entry->option;
    const char *path = names_of(entry, names) > 1 ? read_variable(names[1]) : NULL;
    const char *text = read_variable(option->name);
    if (path != NULL && text != NULL) {
        return complain(loader, "%s and %s are both set; set one", names[0], names[1]);
    }
    if (path != NULL) {
        entry->origin = ORIGIN_FILE;
        return read_file(loader, names[1], path, &entry->text);
    }
    entry->origin = text != NULL ? ORIGIN_ENVIRONMENT : ORIGIN_DEFAULT;
    text = text != NULL ? text : option->fallback;
    if (text == NULL) {
        return complain(loader, "%s is not set: %s", option->name, option->help);
    }
    if (strlen(text) > MAX_TEXT) {
        return complain(loader, "%s is longer than 64 KiB", option->name);
    }
    entry->text = sl_arena_string(&loader->options->arena, sl_span_of(text));
    return entry->text != NULL ? 0 : complain(loader, "out of memory");
}

static int load_entry(const struct loader *loader, struct entry *entry)
{
    int rv = find_text(loader, entry);
    if (rv != 0 || sl_option_store(entry->option, entry->text, entry->values) == 0) {
        return rv;
    }
    assert(entry->origin != ORIGIN_DEFAULT); /* A default must fit its own option. */
    struct sl_buf text;
    sl_buf_init(&text, 3 * MAX_TEXT);
    sl_option_put_shown(entry->option, entry->text, &text);
    sl_buf_append_text(&text, ": must be ");
    sl_option_put_wanted(entry->option, &text);
    rv = complain(loader, "%s=" SL_SPAN_FMT, entry->option->name, SL_SPAN_ARG(sl_buf_span(&text)));
    sl_buf_fini(&text);
    return rv;
}

static struct sl_options *make_options(const struct loader *loader)
{
    size_t count = 0, i = 0;
    for (size_t s = 0; s < loader->count; s++) {
        for (const struct sl_option *o = loader->sets[s].options; o->name != NULL; o++) {
            count++;
        }
    }
    struct sl_options *options = calloc(1, sizeof(*options) + count * sizeof(struct entry));
    if (options == NULL) {
        return NULL;
    }
    options->count = count;
    sl_arena_init(&options->arena, 64u * MAX_TEXT);
    for (size_t s = 0; s < loader->count; s++) {
        for (const struct sl_option *o = loader->sets[s].options; o->name != NULL; o++) {
            options->entries[i++] = (struct entry){.option = o, .values = loader->sets[s].values};
        }
    }
    return options;
}

static int load_all(const struct loader *loader)
{
    int rv = check_environment(loader);
    for (size_t i = 0; i < loader->options->count && rv == 0; i++) {
        rv = load_entry(loader, &loader->options->entries[i]);
    }
    return rv;
}

/* --- the switches --- */

/* Those that need no configuration. */
static bool serve_switch(const struct loader *loader, const char *wanted, const char *synopsis,
                         FILE *out)
{
    if (strcmp(wanted, "--help") == 0) {
        help(loader, synopsis, out);
    } else if (strcmp(wanted, "--version") == 0) {
        fprintf(out, "%s " SLUICE_VERSION "\n", loader->program);
    } else if (strcmp(wanted, "--markdown") == 0) {
        fprintf(out, "## %s\n\n%s\n\n", loader->program, synopsis);
        sl_options_markdown(loader->sets, loader->count, out);
    } else {
        return false;
    }
    return true;
}

enum sl_options_result sl_options_load(const char *program, const char *synopsis,
                                       const struct sl_option_set *sets, size_t count, int argc,
                                       char **argv, FILE *out, FILE *err, struct sl_options **ret)
{
    struct loader loader = {.program = program, .sets = sets, .count = count, .err = err};
    bool print = argc > 1 && strcmp(argv[1], "--print-config") == 0;
    *ret = NULL;
    if (argc > 2) {
        complain(&loader, "one argument at most; see --help");
        return SL_OPTIONS_WRONG;
    }
    if (argc > 1 && serve_switch(&loader, argv[1], synopsis, out)) {
        return SL_OPTIONS_EXIT;
    }
    if (argc > 1 && !print) {
        complain(&loader, "unknown argument %s; see --help", argv[1]);
        return SL_OPTIONS_WRONG;
    }
    loader.options = make_options(&loader);
    if (loader.options == NULL) {
        complain(&loader, "out of memory");
        return SL_OPTIONS_WRONG;
    }
    enum sl_options_result result = load_all(&loader) != 0 ? SL_OPTIONS_WRONG
                                    : print                ? SL_OPTIONS_EXIT
                                                           : SL_OPTIONS_RUN;
    if (result == SL_OPTIONS_RUN) {
        *ret = loader.options;
        return result;
    }
    if (result == SL_OPTIONS_EXIT) {
        sl_options_print(loader.options, out);
    }
    sl_options_fini(loader.options);
    return result;
}

void sl_options_fini(struct sl_options *options)
{
    if (options != NULL) {
        sl_arena_fini(&options->arena);
        free(options);
    }
}
