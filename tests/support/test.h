/*
 * The smallest harness that tests here need: CHECK names the line and ends the test program, TEST
 * declares a case, and the table at the end of a file lists them. `prog NAME` runs one case.
 */
#ifndef TESTS_SUPPORT_TEST_H
#define TESTS_SUPPORT_TEST_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(cond)                                                                                \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            fprintf(stderr, "%s:%d: CHECK(%s) failed\n", __FILE__, __LINE__, #cond);               \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

#define CHECK_INT(got, want)                                                                       \
    do {                                                                                           \
        long long got_ = (long long)(got), want_ = (long long)(want);                              \
        if (got_ != want_) {                                                                       \
            fprintf(stderr, "%s:%d: %s is %lld, expected %lld\n", __FILE__, __LINE__, #got, got_,  \
                    want_);                                                                        \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

#define CHECK_STR(got, want)                                                                       \
    do {                                                                                           \
        const char *got_ = (got), *want_ = (want);                                                 \
        if (got_ == NULL || strcmp(got_, want_) != 0) {                                            \
            fprintf(stderr, "%s:%d: %s is \"%s\", expected \"%s\"\n", __FILE__, __LINE__, #got,    \
                    got_ ? got_ : "(null)", want_);                                                \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

struct test_case {
    const char *name;
    void (*run)(void);
};

#define TEST(name) static void name(void)

/* Runs all cases, or those named on the command line; `return run_tests(cases, argc, argv);`. */
static inline int run_tests(const struct test_case *cases, int argc, char **argv)
{
    int ran = 0;
    for (const struct test_case *c = cases; c->name != NULL; c++) {
        int wanted = argc < 2;
        for (int i = 1; i < argc; i++) {
            wanted = wanted || strcmp(argv[i], c->name) == 0;
        }
        if (wanted) {
            fprintf(stderr, "- %s\n", c->name);
            c->run();
            ran++;
        }
    }
    printf("%d passed, 0 failed\n", ran);
    return ran > 0 ? 0 : 1;
}

#endif
