/* The command line that the load programs of the benchmark share: what is sent, when, for how
 * long, and where the report goes. */
#ifndef TESTS_BENCH_MEASURE_OPTIONS_H
#define TESTS_BENCH_MEASURE_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

/* What differs from program to program; all texts are static. */
struct measure_program {
    const char *name;     /* "bench_load" */
    const char *about;    /* Some lines for --help, with a newline at the end. */
    const char *target;   /* The option that names what is asked: "url". */
    const char *examples; /* Whole lines. */
    bool history;         /* Knows --history. */
};

struct measure_options {
    const char *target; /* An http:// URL; borrowed from argv, as all texts. */
    double rate;        /* Per second, open loop; or 0 and streams > 0. */
    long streams;
    bool poisson;
    double seconds, warmup_s; /* warmup_s comes before, and is not counted. */
    double spread_s;          /* Over which the closed loop's first starts are spread. */
    double ideal_ms;          /* What the models and stores alone take to the first token. */
    long timeout_ms;          /* Of one request, from when it was due. */
    long tokens;              /* Of each whole answer. */
    long max_open;
    long seed;
    long query_bytes, history; /* Of the question; earlier messages sent with it. */
    const char *json;          /* A file, "-" for stdout, or NULL. */
};

/* Returns -1 to go on, or the exit code: 0 after --help, 2 after one line on stderr that says what
 * is wrong. */
int measure_options_parse(struct measure_options *options, const struct measure_program *program,
                          int argc, char **argv);

#endif
