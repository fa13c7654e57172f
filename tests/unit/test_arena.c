/* An arena gives memory back as a whole, and tells its limit from want of memory. */
#include "common/arena.h"
#include "tests/support/alloc_fail.h"
#include "tests/support/test.h"

#include <stdint.h>

TEST(memory_is_zeroed_aligned_and_apart)
{
    struct sl_arena arena;
    sl_arena_init(&arena, 1 << 20);
    char *last = NULL;
    for (size_t size = 1; size < 3000; size += 7) {
        char *memory = sl_arena_alloc(&arena, size);
        CHECK(memory != NULL && (uintptr_t)memory % _Alignof(max_align_t) == 0);
        for (size_t i = 0; i < size; i++) {
            CHECK(memory[i] == 0);
        }
        memset(memory, 'x', size);
        CHECK(last == NULL || *last == 'x');
        last = memory;
    }
    struct sl_span copy = sl_arena_copy(&arena, SL_SPAN("text"));
    CHECK(sl_span_is(copy, "text") && copy.data[4] == '\0');
    CHECK_STR(sl_arena_printf(&arena, "%d-%s", 7, "x"), "7-x");
    sl_arena_fini(&arena);
    CHECK_INT(arena.used, 0);
}

TEST(the_limit_is_told_from_want_of_memory)
{
    static const size_t sizes[] = {100000, SIZE_MAX - 100};
    struct sl_arena arena;
    for (size_t i = 0; i < 2; i++) {
        sl_arena_init(&arena, 65536);
        CHECK(sl_arena_alloc(&arena, 40000) != NULL);
        CHECK(!arena.full);
        CHECK(sl_arena_alloc(&arena, sizes[i]) == NULL);
        CHECK(arena.full);
        sl_arena_fini(&arena);
        CHECK(!arena.full && sl_arena_alloc(&arena, 10) != NULL);
        sl_arena_fini(&arena);
    }
    sl_arena_init(&arena, 65536);
    sl_test_fail_alloc(1);
    CHECK(sl_arena_alloc(&arena, 10) == NULL);
    CHECK(sl_test_alloc_failed() && !arena.full);
    sl_arena_fini(&arena);
}

int main(int argc, char **argv)
{
    static const struct test_case cases[] = {
        {"memory_is_zeroed_aligned_and_apart", memory_is_zeroed_aligned_and_apart},
        {"the_limit_is_told_from_want_of_memory", the_limit_is_told_from_want_of_memory},
        {NULL, NULL},
    };
    return run_tests(cases, argc, argv);
}
