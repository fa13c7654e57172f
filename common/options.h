/*
 * Configuration: one table of options per part of a program. Values come from environment
 * variables, secrets also from a file named by NAME_FILE; the table writes --help, --print-config
 * and docs/CONFIGURATION.md. An unknown argument, an unknown SLUICE_* variable that looks like a
 * misspelt option, or a value out of range stops the program at start with one line that names the
 * variable. A variable that is set and empty counts as not set.
 */
#ifndef SLUICE_COMMON_OPTIONS_H
#define SLUICE_COMMON_OPTIONS_H

#include "common/buf.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

enum sl_option_type {
    SL_OPT_INT,      /* long long */
    SL_OPT_NUMBER,   /* double */
    SL_OPT_STRING,   /* const char *; "" when empty. */
    SL_OPT_BOOL,     /* bool; 1, 0, true, false, yes, no, on, off. */
    SL_OPT_DURATION, /* long long, in milliseconds; written 1500ms, 15s, 5m, 24h, or plain seconds.
                      */
    SL_OPT_BYTES,    /* long long; written 512, 64k, 16m, 1g (powers of 1024). */
    SL_OPT_CHOICE,   /* int, the index in choices. */
    SL_OPT_URL,      /* const char *; the scheme must be one of choices when they are given. */
    SL_OPT_ADDRESS,  /* const char *, host:port. */
    SL_OPT_PREFIX,   /* const char *; what a Kafka topic's name may begin with, 1 to 200 characters.
                      */
};

struct sl_option {
    const char *name; /* The environment variable; NULL ends a table. */
    enum sl_option_type type;
    size_t offset;              /* Of the value in the table's values struct. */
    const char *fallback;       /* The default as text; NULL: required. */
    double min, max;            /* For numbers, in the value's unit; both 0: no limits. */
    const char *const *choices; /* Ended by NULL. */
    bool secret;                /* Also NAME_FILE; shown as "(hidden)". */
    const char *help;           /* One sentence. */
};

/* A table and the struct that it fills. Strings live until sl_options_fini. */
struct sl_option_set {
    const char *title; /* For --help, such as "Kafka". */
    const struct sl_option *options;
    void *values;
};

struct sl_options;

enum sl_options_result {
    SL_OPTIONS_RUN,   /* Go on. */
    SL_OPTIONS_EXIT,  /* --help, --version, --print-config or --markdown was served: exit with 0. */
    SL_OPTIONS_WRONG, /* One line was written to err: exit with 2. */
};

/* Reads argv (only the switches named above; programs with arguments of their own read argv first
 * and pass argc 1) and the environment, and fills the values of all sets (count of them). synopsis:
 * one sentence for --help. out and err: where texts go. The caller frees *ret with sl_options_fini;
 * it is NULL unless the result is SL_OPTIONS_RUN. */
enum sl_options_result sl_options_load(const char *program, const char *synopsis,
                                       const struct sl_option_set *sets, size_t count, int argc,
                                       char **argv, FILE *out, FILE *err, struct sl_options **ret);
void sl_options_fini(struct sl_options *options); /* Takes NULL. */

/* The configuration as `NAME=value  # origin` lines with secrets hidden. */
void sl_options_print(const struct sl_options *options, FILE *out);
/* One Markdown table a set: name, type, range, default, description. For docs/CONFIGURATION.md. */
void sl_options_markdown(const struct sl_option_set *sets, size_t count, FILE *out);

#endif
