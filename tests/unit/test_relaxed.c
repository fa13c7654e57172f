/* Descriptors that are looked at together: all that is ready comes, none is lost in a slice, and an
 * owner may remove any of them at any moment. */
#include "common/clock.h"
#include "common/relaxed.h"
#include "tests/support/test.h"

#include <unistd.h>

enum { ENTRIES = 150, BOUND_MS = 10000 }; /* More than two slices. */

static struct sl_loop *loop;
static struct sl_relaxed *relaxed;
static struct pipe {
    struct sl_relaxed_entry entry;
    int write_fd;
    int count;
} pipes[ENTRIES];
static size_t total;
static bool removes_next;

static void on_ready(struct sl_relaxed_entry *entry)
{
    struct pipe *pipe = SL_ITEM(entry, struct pipe, entry);
    char byte;
    CHECK(entry->added && read(entry->fd, &byte, 1) == 1);
    pipe->count++;
    total++;
    if (removes_next) { /* The next one may be in the same slice. */
        struct pipe *next = &pipes[(size_t)(pipe - pipes + 1) % ENTRIES];
        sl_relaxed_remove(relaxed, entry);
        sl_relaxed_remove(relaxed, &next->entry);
    }
}

static void up(void)
{
    total = 0;
    removes_next = false;
    CHECK_INT(sl_loop_create(&loop), 0);
    CHECK_INT(sl_relaxed_create(loop, &relaxed), 0);
    for (size_t i = 0; i < ENTRIES; i++) {
        int fds[2];
        CHECK(pipe(fds) == 0);
        pipes[i] = (struct pipe){.entry = {.fd = fds[0], .on_ready = on_ready}, .write_fd = fds[1]};
        CHECK_INT(sl_relaxed_add(relaxed, &pipes[i].entry), 0);
    }
}

static void down(void)
{
    for (size_t i = 0; i < ENTRIES; i++) {
        sl_relaxed_remove(relaxed, &pipes[i].entry);
        close(pipes[i].entry.fd);
        close(pipes[i].write_fd);
    }
    sl_relaxed_destroy(relaxed);
    sl_loop_destroy(loop);
}

static void write_all(void)
{
    for (size_t i = 0; i < ENTRIES; i++) {
        CHECK(write(pipes[i].write_fd, "x", 1) == 1);
    }
}

static void run_until(size_t wanted)
{
    uint64_t until = sl_clock_now_ms() + BOUND_MS;
    while (total < wanted) {
        CHECK(sl_clock_now_ms() < until);
        sl_loop_turn(loop, 10);
    }
}

TEST(each_that_is_ready_comes_again_and_again)
{
    up();
    for (int round = 1; round <= 3; round++) {
        write_all();
        run_until(total + ENTRIES);
        for (size_t i = 0; i < ENTRIES; i++) {
            CHECK_INT(pipes[i].count, round);
        }
    }
    down();
}

TEST(what_was_removed_does_not_come)
{
    up();
    removes_next = true;
    write_all();
    uint64_t until = sl_clock_now_ms() + BOUND_MS;
    for (size_t left = ENTRIES; left > 0;) {
        CHECK(sl_clock_now_ms() < until);
        sl_loop_turn(loop, 10);
        left = 0;
        for (size_t i = 0; i < ENTRIES; i++) {
            left += pipes[i].entry.added ? 1 : 0;
        }
    }
    CHECK_INT(total, ENTRIES / 2);
    removes_next = false;
    for (size_t i = 0; i < ENTRIES; i++) { /* What was not read is still there. */
        CHECK_INT(sl_relaxed_add(relaxed, &pipes[i].entry), 0);
    }
    run_until(ENTRIES);
    down();
}

TEST(a_file_cannot_be_waited_for)
{
    FILE *file = tmpfile();
    CHECK(file != NULL);
    up();
    struct sl_relaxed_entry entry = {.fd = fileno(file), .on_ready = on_ready};
    CHECK_INT(sl_relaxed_add(relaxed, &entry), -SL_EINVAL);
    CHECK(!entry.added);
    down();
    (void)fclose(file);
}

static const struct test_case cases[] = {
    {"each_that_is_ready_comes_again_and_again", each_that_is_ready_comes_again_and_again},
    {"what_was_removed_does_not_come", what_was_removed_does_not_come},
    {"a_file_cannot_be_waited_for", a_file_cannot_be_waited_for},
    {NULL, NULL},
};

int main(int argc, char **argv)
{
    return run_tests(cases, argc, argv);
}
