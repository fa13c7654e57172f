/*
 * The k-th allocation fails: test programs have a malloc of their own (alloc_fail.c) that counts
 * down and passes everything on. Only the calling thread's allocations count.
 *
 *     for (long k = 1;; k++) {
 *         sl_test_fail_alloc(k);
 *         ... the operation: fails cleanly or succeeds ...
 *         if (!sl_test_alloc_failed()) {
 *             break;
 *         }
 *     }
 */
#ifndef TESTS_SUPPORT_ALLOC_FAIL_H
#define TESTS_SUPPORT_ALLOC_FAIL_H

#include <stdbool.h>

/* The k-th malloc, calloc or realloc from now on fails, once; 0: none. sl_test_fail_alloc counts
 * what the program itself and the static libraries in it ask for, sl_test_fail_any_alloc also what
 * shared libraries do (many of them abort then: hiredis, librdkafka, libuv in places). */
void sl_test_fail_alloc(long k);
void sl_test_fail_any_alloc(long k);
/* Did it fail since then? Stops counting. */
bool sl_test_alloc_failed(void);

/* What fakes and drivers allocate themselves is not counted: between these two nothing fails. pause
 * returns what resume takes. */
long sl_test_pause_alloc(void);
void sl_test_resume_alloc(long paused);

#endif
