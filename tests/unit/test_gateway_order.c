/*
 * The reader's rules as a table: a log of events, and which of them the caller sees. An event is
 * written TYPE ATTEMPT.SEQ/FENCE; sources, delta, restart, done, error by their first letters. `.`
 * drops, `+` takes, `!` finds the stream broken.
 */
#include "tests/support/test.h"
#include "workers/gateway/order.h"

static const struct row {
    const char *what;
    const char *log;
    const char *verdicts;
} rows[] = {
    {"the happy path", "s0.0/5 d1.0/9 d1.1/9 D1.2/9", "++++"},
    {"a search", "s0.0/5 D0.1/5", "++"},
    {"an answer without text", "s0.0/5 D1.0/9", "++"},
    {"nothing after the end", "s0.0/5 d1.0/9 D1.1/9 D1.1/9 d1.2/9 E2.0/12 D0.1/99", "+++...."},
    {"a record delivered twice", "s0.0/5 s0.0/5 d1.0/9 d1.0/9 d1.1/9 d1.0/9 D1.2/9", "+.+.+.+"},
    {"sources of a second reranker", "s0.0/5 s0.0/7 d1.0/9", "+.+"},
    {"sources that the first delta overtook", "d1.0/9 s0.0/5 d1.1/9 s0.0/5", "+++."},
    {"a gap", "d1.0/9 d1.2/9 d1.3/9", "+!."},
    {"a first delta that is missing", "s0.0/5 d1.1/9", "+!"},
    {"done after a gap", "d1.0/9 D1.2/9", "+!"},
    {"an error after a gap says it itself", "d1.0/9 E1.2/9", "++"},
    {"a take-over before any text", "s0.0/5 d2.0/12 d2.1/12 D2.2/12", "++++"},
    {"a take-over after text", "d1.0/9 d2.0/12 D2.1/12", "+!."},
    {"a take-over after text, with a restart", "d1.0/9 d1.1/9 R2.0/12 d2.1/12 D2.2/12", "+++++"},
    {"a second take-over needs its own restart", "d1.0/9 R2.0/12 d2.1/12 d3.0/15", "+++!"},
    {"two restarts without text between them", "d1.0/9 R2.0/12 R3.0/15 d3.1/15 D3.2/15", "+++++"},
    {"a gap behind a restart", "d1.0/9 R2.0/12 d2.2/12", "++!"},
    {"a paused owner that comes back", "d1.0/9 R2.0/12 d1.1/9 d2.1/12 D1.2/9 D2.2/12", "++.+.+"},
    {"an error of an owner that was replaced", "d1.0/9 R2.0/12 E1.1/9 d2.1/12 D2.2/12", "++.++"},
    {"worker_lost written by the next owner", "d1.0/9 E2.0/12", "++"},
    {"an ending before generation, whatever its number", "s0.0/5 E0.7/1", "++"},
    {"an ending by another gateway in mid-stream", "d1.0/9 E0.1/0 d1.1/9", "++."},
    {"an error first of all", "E0.0/3 s0.0/5", "+."},
    {NULL, NULL, NULL},
};

static const char *read_event(const char *at, struct sl_event *event)
{
    static const char letters[] = "sdRDE"; /* In the order of enum sl_event_type. */
    unsigned attempt, seq, fence;
    int used;
    *event = (struct sl_event){0};
    CHECK(sscanf(at + 1, "%u.%u/%u%n", &attempt, &seq, &fence, &used) == 3);
    CHECK(strchr(letters, *at) != NULL);
    event->type = (enum sl_event_type)(strchr(letters, *at) - letters);
    event->attempt = attempt;
    event->seq = seq;
    event->fence = fence;
    at += 1 + used;
    return at + strspn(at, " ");
}

TEST(each_log_gives_one_stream)
{
    for (const struct row *row = rows; row->what != NULL; row++) {
        struct order order = {0};
        char got[16] = "";
        const char *at = row->log;
        for (size_t i = 0; *at != '\0'; i++) {
            struct sl_event event;
            at = read_event(at, &event);
            got[i] = ".+!"[order_take(&order, &event)];
        }
        fprintf(stderr, "  %s\n", row->what);
        CHECK_STR(got, row->verdicts);
    }
}

TEST(a_local_event_continues_the_numbers)
{
    struct order order = {0};
    struct sl_event event = {.type = SL_EVENT_DELTA, .attempt = 3, .fence = 7};
    CHECK(order_take(&order, &event) == ORDER_TAKE);
    CHECK_INT(order.attempt, 3);
    CHECK_INT(order.next_seq, 1);
    CHECK(!order.ended);
}

int main(int argc, char **argv)
{
    static const struct test_case cases[] = {
        {"each_log_gives_one_stream", each_log_gives_one_stream},
        {"a_local_event_continues_the_numbers", a_local_event_continues_the_numbers},
        {NULL, NULL},
    };
    return run_tests(cases, argc, argv);
}
