/*
 * What programs that count instructions share. A count_NAME.c has a table of cases; `count_NAME
 * CASE` runs one of them under callgrind, which counts only while measured_step() runs, and prints
 * of how many operations that was. tests/instructions/run does the rest.
 *
 * A case does its operation a few times uncounted first, since what happens once in a process (a
 * buffer grows, the allocator asks for memory) is not what an operation costs. Nothing in a case
 * may depend on time or chance: time stands still, and each random number is the same
 * (__wrap_getrandom, which every one of these programs is linked with).
 */
#ifndef TESTS_INSTRUCTIONS_COUNT_H
#define TESTS_INSTRUCTIONS_COUNT_H

#include "common/clock.h"
#include "tests/support/test.h"

#include <stdio.h>
#include <string.h>
#include <sys/types.h>

enum { COUNT_WARM_UP = 3, COUNT_ROUNDS = 8, COUNT_OPERATIONS = COUNT_WARM_UP + COUNT_ROUNDS };

struct count_case {
    const char *name;
    unsigned (*run)(void); /* How many operations were measured. */
};

/* The only calls that are counted, by this name: not inlined, and no jump out of it at its end. */
__attribute__((noinline, noclone)) static void measured_step(void (*step)(void *ctx), void *ctx)
{
    step(ctx);
    __asm__ volatile("" ::: "memory");
}

/* Of a case that does its operations itself: those up to COUNT_WARM_UP are not counted. */
static inline void measure_one(int operation, void (*step)(void *ctx), void *ctx)
{
    if (operation < COUNT_WARM_UP) {
        step(ctx);
    } else {
        measured_step(step, ctx);
    }
}

/* The run of a case whose operation is one function. */
static inline unsigned measure(void (*step)(void *ctx), void *ctx)
{
    for (int i = 0; i < COUNT_OPERATIONS; i++) {
        measure_one(i, step, ctx);
    }
    return COUNT_ROUNDS;
}

ssize_t __wrap_getrandom(void *buffer, size_t len, unsigned flags);
ssize_t __wrap_getrandom(void *buffer, size_t len, unsigned flags)
{
    (void)flags;
    memset(buffer, 0x5a, len);
    return (ssize_t)len;
}

/* Without an argument: the names of all cases. */
static inline int count_main(const struct count_case *cases, int argc, char **argv)
{
    static const uint64_t now_us = 1700000000000000;
    sl_clock_use(&now_us);
    for (const struct count_case *c = cases; c->name != NULL; c++) {
        if (argc < 2) {
            printf("%s\n", c->name);
        } else if (strcmp(argv[1], c->name) == 0) {
            printf("operations %u\n", c->run());
            return 0;
        }
    }
    return argc < 2 ? 0 : 2;
}

#endif
