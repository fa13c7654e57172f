/*
 * The arguments of a command, from a table. A value may follow its name or an equals sign; words
 * that are no arguments may stand anywhere. A value that begins with two dashes is taken for a
 * forgotten one, unless an equals sign says that it is meant.
 */
#include "workers/cli/cli.h"

#include "common/option_value.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int cli_usage_error(const char *command, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fprintf(stderr, "sluice %s: ", command);
    vfprintf(stderr, format, args);
    fprintf(stderr, " (sluice %s --help says more)\n", command);
    va_end(args);
    return CLI_USAGE;
}

static int store_number(const char *command, const struct cli_arg *arg, const char *text)
{
    const struct sl_option option = {.name = arg->name,
                                     .type = arg->type == CLI_NUMBER ? SL_OPT_INT : SL_OPT_DURATION,
                                     .min = arg->min,
                                     .max = arg->max};
    if (text[0] != '\0' && sl_option_store(&option, text, arg->value) == 0) {
        return CLI_GO_ON;
    }
    struct sl_buf wanted;
    sl_buf_init(&wanted, 256);
    sl_option_put_wanted(&option, &wanted);
    int code = cli_usage_error(command, "%s must be " SL_SPAN_FMT ", not '%s'", arg->name,
                               SL_SPAN_ARG(sl_buf_span(&wanted)), text);
    sl_buf_fini(&wanted);
    return code;
}

static int add_to_list(const char *command, struct cli_list *list, const char *text)
{
    if (list->len == CLI_LIST_MAX) {
        return cli_usage_error(command, "more than %d of them: '%s'", CLI_LIST_MAX, text);
    }
    list->items[list->len++] = text;
    return CLI_GO_ON;
}

static int store(const char *command, const struct cli_arg *arg, const char *text)
{
    switch (arg->type) {
    case CLI_TEXT:
        *(const char **)arg->value = text;
        return CLI_GO_ON;
    case CLI_LIST:
        return add_to_list(command, arg->value, text);
    default:
        return store_number(command, arg, text);
    }
}

static const struct cli_arg *find(const struct cli_arg *args, const char *word, size_t len)
{
    for (; args->name != NULL; args++) {
        if (strlen(args->name) == len && strncmp(args->name, word, len) == 0) {
            return args;
        }
    }
    return NULL;
}

/* One argument at argv[*at]; moves *at over its value. */
static int take(const char *command, const struct cli_arg *args, int argc, char **argv, int *at)
{
    const char *word = argv[*at];
    size_t len = strcspn(word, "=");
    const struct cli_arg *arg = find(args, word, len);
    if (arg == NULL) {
        return cli_usage_error(command, "unknown option '%.*s'", (int)len, word);
    }
    if (arg->type == CLI_SWITCH) {
        if (word[len] == '=') {
            return cli_usage_error(command, "%s takes no value", arg->name);
        }
        *(bool *)arg->value = true;
        return CLI_GO_ON;
    }
    if (word[len] == '=') {
        return store(command, arg, word + len + 1);
    }
    if (*at + 1 == argc || strncmp(argv[*at + 1], "--", 2) == 0) {
        return cli_usage_error(command, "%s needs a value", arg->name);
    }
    return store(command, arg, argv[++*at]);
}

int cli_parse(const char *command, const char *help, const struct cli_arg *args, int argc,
              char **argv, struct cli_list *words)
{
    bool only_words = false;
    for (int i = 1; i < argc; i++) {
        const char *word = argv[i];
        int code = CLI_GO_ON;
        if (only_words || word[0] != '-' || word[1] == '\0') {
            code = add_to_list(command, words, word);
        } else if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0) {
            fputs(help, stdout);
            code = CLI_DONE;
        } else if (strcmp(word, "--version") == 0) {
            printf("sluice %s\n", SLUICE_VERSION);
            code = CLI_DONE;
        } else if (strcmp(word, "--") == 0) {
            only_words = true;
        } else {
            code = take(command, args, argc, argv, &i);
        }
        if (code != CLI_GO_ON) {
            return code;
        }
    }
    return CLI_GO_ON;
}
