/*
 * malloc, calloc and realloc of the test program come before those of the C library or of a
 * sanitizer, for shared libraries too; they are passed on to the real ones. Who asks is told by the
 * return address: inside the program's own text or not.
 *
 * These run before main and before a sanitizer has started, so they are not instrumented and touch
 * nothing but a thread-local counter.
 */
#include "tests/support/alloc_fail.h"

#include <errno.h>
#include <stddef.h>
#include <stdint.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED
#endif
#elif defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED
#endif

#ifdef SANITIZED
#define REAL(name) __interceptor_##name
#else
#define REAL(name) __libc_##name
#endif

void *REAL(malloc)(size_t size);
void *REAL(calloc)(size_t count, size_t size);
void *REAL(realloc)(void *old, size_t size);
void *malloc(size_t size);
void *calloc(size_t count, size_t size);
void *realloc(void *old, size_t size);

extern const char __executable_start, etext; /* From the linker. */

static __thread long left; /* Allocations until the one that fails; 0: none. */
static __thread bool any;
static __thread bool failed;

#define RAW __attribute__((noinline, no_sanitize("address", "thread", "undefined")))

RAW static bool fails(const void *caller)
{
    uintptr_t at = (uintptr_t)caller;
    bool own = at >= (uintptr_t)&__executable_start && at < (uintptr_t)&etext;
    if (left == 0 || (!own && !any) || --left > 0) {
        return false;
    }
    failed = true;
    errno = ENOMEM;
    return true;
}

RAW void *malloc(size_t size)
{
    return fails(__builtin_return_address(0)) ? NULL : REAL(malloc)(size);
}

RAW void *calloc(size_t count, size_t size)
{
    return fails(__builtin_return_address(0)) ? NULL : REAL(calloc)(count, size);
}

RAW void *realloc(void *old, size_t size)
{
    return fails(__builtin_return_address(0)) ? NULL : REAL(realloc)(old, size);
}

void sl_test_fail_alloc(long k)
{
    failed = false;
    any = false;
    left = k;
}

void sl_test_fail_any_alloc(long k)
{
    sl_test_fail_alloc(k);
    any = true;
}

bool sl_test_alloc_failed(void)
{
    left = 0;
    return failed;
}

long sl_test_pause_alloc(void)
{
    long paused = left;
    left = 0;
    return paused;
}

void sl_test_resume_alloc(long paused)
{
    left = paused;
}
