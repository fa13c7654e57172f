/* Runs a loop until a condition holds; a test that waits for longer than 30 s has failed. */
#ifndef TESTS_SUPPORT_SOON_H
#define TESTS_SUPPORT_SOON_H

#include "common/clock.h"
#include "common/loop.h"
#include "tests/support/test.h"

enum { SOON_LIMIT_MS = 30000 };

#define SOON(loop, cond)                                                                           \
    do {                                                                                           \
        uint64_t soon_end_ = sl_clock_now_ms() + SOON_LIMIT_MS;                                    \
        while (!(cond)) {                                                                          \
            if (sl_clock_now_ms() >= soon_end_) {                                                  \
                fprintf(stderr, "%s:%d: waited in vain for %s\n", __FILE__, __LINE__, #cond);      \
                abort();                                                                           \
            }                                                                                      \
            sl_loop_turn(loop, 100);                                                               \
        }                                                                                          \
    } while (0)

/* Runs the loop for so long, to see that something does not happen. */
#define MEANWHILE(loop, ms)                                                                        \
    do {                                                                                           \
        uint64_t meanwhile_end_ = sl_clock_now_ms() + (ms);                                        \
        while (sl_clock_now_ms() < meanwhile_end_) {                                               \
            sl_loop_turn(loop, 20);                                                                \
        }                                                                                          \
    } while (0)

#endif
