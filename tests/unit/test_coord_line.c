/* Who is asked for next, and how few when a limit is full. */
#include "common/coord_line.h"
#include "tests/support/test.h"

enum { CHAT = 1, CHAT_BULK = 2, EMBED = 4 }; /* Bits of wants. */

static struct sl_line line;
static struct sl_ticket tickets[400];
static struct sl_ticket *due[SL_LINE_BATCH];

static struct sl_ticket *add(int i, int64_t deadline_ms, uint16_t wants, uint64_t ask_ms)
{
    tickets[i] = (struct sl_ticket){.deadline_ms = deadline_ms, .wants = wants, .ask_ms = ask_ms};
    tickets[i].bulk = wants == CHAT_BULK;
    sl_list_init(&tickets[i].node);
    sl_line_add(&line, &tickets[i]);
    return &tickets[i];
}

TEST(queries_come_by_deadline_and_bulk_work_last)
{
    sl_line_init(&line);
    add(0, 500, CHAT, 0);
    add(1, 100, CHAT_BULK, 0);
    add(2, 0, CHAT, 0); /* Without a deadline. */
    add(3, 300, 0, 0);
    add(4, 300, CHAT, 0);
    const int order[] = {3, 4, 0, 2, 1};
    CHECK_INT(sl_line_collect(&line, 1, due), 5);
    for (int i = 0; i < 5; i++) {
        CHECK_INT(due[i] - tickets, order[i]);
    }
}

TEST(what_is_asked_or_not_due_is_left)
{
    sl_line_init(&line);
    add(0, 1, 0, 50);
    add(1, 2, 0, 70);
    tickets[0].slot = 1;
    CHECK_INT(sl_line_collect(&line, 60, due), 0);
    CHECK_INT(sl_line_next(&line), 70);
    CHECK_INT(sl_line_collect(&line, 70, due), 1);
    sl_line_remove(&line, &tickets[1]);
    sl_line_remove(&line, &tickets[1]);
    CHECK_INT(line.len, 1);
    CHECK(sl_line_next(&line) == UINT64_MAX);
}

TEST(a_limit_that_moved_asks_for_the_first_few_that_want_it)
{
    sl_line_init(&line);
    for (int i = 0; i < 100; i++) {
        add(i, i + 1, i % 2 == 0 ? CHAT : EMBED, 1000);
    }
    sl_line_move(&line, sl_line_limit(0));
    CHECK_INT(sl_line_collect(&line, 1, due), SL_LINE_HEADS);
    for (int i = 0; i < SL_LINE_HEADS; i++) {
        CHECK_INT(due[i] - tickets, 2 * i);
    }
    CHECK_INT(sl_line_collect(&line, 1, due), 0); /* Once. */
}

TEST(a_newcomer_does_not_overtake_those_who_wait_for_the_same)
{
    sl_line_init(&line);
    add(0, 10, CHAT, 1000);
    add(1, 20, EMBED, 1000);
    add(2, 5, CHAT_BULK, 1000);
    add(3, 30, CHAT, 0);
    CHECK_INT(sl_line_collect(&line, 1, due), 3);
    CHECK(due[0] == &tickets[0] && due[1] == &tickets[3] && due[2] == &tickets[2]);
}

TEST(a_batch_is_bounded_and_the_rest_follows)
{
    sl_line_init(&line);
    for (int i = 0; i < 400; i++) {
        add(i, i + 1, CHAT, 0);
    }
    int asked = 0;
    for (int round = 0; round < 4; round++) {
        size_t len = sl_line_collect(&line, 1, due);
        CHECK(len <= SL_LINE_BATCH);
        for (size_t i = 0; i < len; i++) {
            CHECK_INT(due[i] - tickets, asked++);
            due[i]->slot = 1;
        }
    }
    CHECK_INT(asked, 400);
}

int main(int argc, char **argv)
{
    const struct test_case cases[] = {
        {"queries_come_by_deadline_and_bulk_work_last",
         queries_come_by_deadline_and_bulk_work_last},
        {"what_is_asked_or_not_due_is_left", what_is_asked_or_not_due_is_left},
        {"a_limit_that_moved_asks_for_the_first_few_that_want_it",
         a_limit_that_moved_asks_for_the_first_few_that_want_it},
        {"a_newcomer_does_not_overtake_those_who_wait_for_the_same",
         a_newcomer_does_not_overtake_those_who_wait_for_the_same},
        {"a_batch_is_bounded_and_the_rest_follows", a_batch_is_bounded_and_the_rest_follows},
        {NULL, NULL},
    };
    return run_tests(cases, argc, argv);
}
