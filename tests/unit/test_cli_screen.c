/* What the command line shows: texts made safe, tables, progress, errors, metrics. */
#include "tests/support/test.h"
#include "workers/cli/answer.h"
#include "workers/cli/cli.h"
#include "workers/cli/scrape.h"
#include "workers/cli/table.h"

#include <fcntl.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <unistd.h>

static char *shown;
static size_t shown_len;

static struct cli_terminal open_terminal(bool tty, int width)
{
    shown = NULL;
    return (struct cli_terminal){
        .out = open_memstream(&shown, &shown_len), .tty = tty, .colour = tty, .width = width};
}

static void check_shown(struct cli_terminal *terminal, const char *want)
{
    fclose(terminal->out);
    CHECK_STR(shown, want);
    free(shown);
}

TEST(control_characters_reach_no_terminal)
{
    const struct sl_span text = sl_span_of("a\x1b[2Jb\tc\nd\x7f"
                                           "e\xc2\x9b"
                                           "31mf\xc3\xa9\r");
    struct cli_terminal terminal = open_terminal(true, 80);
    cli_put_text(&terminal, text);
    check_shown(&terminal, "a?[2Jb\tc\nd?e?31mf\xc3\xa9?");
    terminal = open_terminal(false, 80);
    cli_put_text(&terminal, text);
    check_shown(&terminal, text.data);
}

TEST(first_line_is_cut_at_characters)
{
    static const struct {
        const char *text;
        size_t max;
        const char *want;
    } cases[] = {
        {"", 10, ""},
        {" \n\n  one\ttwo \r\nthree", 10, "one two"},
        {"0123456789", 10, "0123456789"},
        {"0123456789a", 10, "012345678…"},
        {"äöüäöüäöü", 4, "äöü…"},
        {"ab   cd", 4, "ab …"},
        {"abc d", 3, "ab…"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct sl_buf out;
        sl_buf_init(&out, 1024);
        cli_put_first_line(&out, sl_span_of(cases[i].text), cases[i].max);
        sl_buf_append(&out, "", 1);
        CHECK_STR(out.data, cases[i].want);
        sl_buf_fini(&out);
    }
}

TEST(table_is_as_wide_as_its_cells)
{
    struct cli_terminal terminal = open_terminal(false, 80);
    struct cli_table table;
    static const char *const cells[] = {"stage", "ms",       "why",  "ünï", "7",
                                        "",      "generate", "1234", "x"};
    cli_table_init(&table, "lrl");
    for (size_t i = 0; i < sizeof(cells) / sizeof(cells[0]); i++) {
        cli_table_cell(&table, CLI_RED, "%s", cells[i]);
    }
    CHECK_INT(cli_table_print(&table, &terminal), 0);
    cli_table_fini(&table);
    check_shown(&terminal, "stage       ms  why\n"
                           "ünï          7  \n"
                           "generate  1234  x\n");
}

TEST(table_grows)
{
    struct cli_terminal terminal = open_terminal(true, 80);
    struct cli_table table;
    cli_table_init(&table, "l");
    for (int i = 0; i < 100; i++) {
        cli_table_cell(&table, CLI_GREEN, "%d", i);
    }
    CHECK_INT(cli_table_print(&table, &terminal), 0);
    cli_table_fini(&table);
    fclose(terminal.out);
    CHECK(strstr(shown, "\x1b[2m0\x1b[0m\n\x1b[32m1\x1b[0m\n") == shown);
    CHECK(strstr(shown, "\n\x1b[32m99\x1b[0m\n") != NULL);
    free(shown);
}

static void check_progress(struct cli_progress progress, int width, bool bar, const char *want)
{
    struct sl_buf out;
    sl_buf_init(&out, 1024);
    cli_progress_format(&progress, width, bar, &out);
    sl_buf_append(&out, "", 1);
    CHECK_STR(out.data, want);
    sl_buf_fini(&out);
}

TEST(progress_tells_how_far_and_how_long)
{
    check_progress((struct cli_progress){.total = 37}, 80, true,
                   "[------------------------------] 0/37 documents  0 chunks");
    check_progress(
        (struct cli_progress){
            .done = 9, .failed = 1, .total = 40, .chunks = 55, .elapsed_ms = 10000},
        100, true,
        "[#######-----------------------] 10/40 documents (1 failed)  55 chunks  5.5/s  0:30 left");
    check_progress((struct cli_progress){.done = 1, .total = 4001, .chunks = 2, .elapsed_ms = 2000},
                   100, false, "1/4001 documents  2 chunks  1.0/s  2:13:20 left");
    check_progress((struct cli_progress){.done = 100,
                                         .skipped = 800,
                                         .total = 1000,
                                         .chunks = 400,
                                         .elapsed_ms = 500000,
                                         .recent_ms = 10000,
                                         .recent_seen = 50,
                                         .recent_chunks = 200},
                   100, false, "900/1000 documents (800 unchanged)  400 chunks  20.0/s  0:20 left");
    check_progress((struct cli_progress){.done = 4, .total = 4, .chunks = 8, .elapsed_ms = 4000},
                   50, true, "[################] 4/4 documents  8 chunks  2.0/s");
    check_progress((struct cli_progress){.done = 4, .total = 4, .chunks = 8, .elapsed_ms = 4000},
                   20, true, "4/4 documents  8 ch");
}

TEST(plain_progress_is_seldom)
{
    struct cli_progress_line line = {.terminal = open_terminal(false, 80)};
    const struct cli_progress progress = {.total = 2};
    cli_progress_draw(&line, &progress, 4999);
    cli_progress_draw(&line, &progress, 5000);
    cli_progress_draw(&line, &progress, 5200);
    cli_progress_end(&line);
    check_shown(&line.terminal, "0/2 documents  0 chunks\n");
}

TEST(progress_leaves_a_clean_terminal)
{
    struct cli_progress_line line = {.terminal = open_terminal(true, 40)};
    const struct cli_progress progress = {.total = 2};
    cli_progress_draw(&line, &progress, 1);
    cli_progress_end(&line);
    cli_progress_end(&line);
    check_shown(&line.terminal, "\r[-------------] 0/2 documents  0 chunks\x1b[K\n");
}

/* What is there to read from the terminal's other end, without its last line's end. */
static void check_drawn(int fd, const char *want)
{
    char drawn[256];
    ssize_t len = read(fd, drawn, sizeof(drawn) - 1);
    CHECK(len > 0);
    drawn[len] = '\0';
    CHECK_STR(drawn, want);
}

TEST(progress_fits_a_terminal_that_became_narrower)
{
    int master = posix_openpt(O_RDWR | O_NOCTTY);
    CHECK(master >= 0 && grantpt(master) == 0 && unlockpt(master) == 0);
    FILE *out = fopen(ptsname(master), "w");
    CHECK(out != NULL);
    const struct cli_progress progress = {.total = 2};
    struct cli_progress_line line = {.terminal = {.out = out, .tty = true, .width = 80}};
    const struct winsize wide = {.ws_row = 24, .ws_col = 40}, narrow = {.ws_row = 24, .ws_col = 30};
    CHECK_INT(ioctl(fileno(out), TIOCSWINSZ, &wide), 0);
    cli_progress_draw(&line, &progress, 1);
    check_drawn(master, "\r[-------------] 0/2 documents  0 chunks\x1b[K");
    CHECK_INT(ioctl(fileno(out), TIOCSWINSZ, &narrow), 0);
    cli_progress_draw(&line, &progress, 2);
    check_drawn(master, "\r0/2 documents  0 chunks\x1b[K");
    CHECK_INT(fclose(out), 0);
    CHECK_INT(close(master), 0);
}

static void check_error(const char *body, const char *want)
{
    struct sl_buf out;
    sl_buf_init(&out, 4096);
    cli_describe_error(sl_span_of(body), &out);
    sl_buf_append(&out, "", 1);
    CHECK_STR(out.data, want);
    sl_buf_fini(&out);
}

TEST(errors_of_any_shape_are_told)
{
    check_error("{\"error\":{\"message\":\"no\",\"param\":\"x\",\"code\":\"c\"}}", "no (c, x)");
    check_error("{\"error\":{\"message\":\"no\",\"param\":null,\"code\":\"c\"}}", "no (c)");
    check_error("{\"error\":\"text\"}", "{\"error\":\"text\"}");
    check_error("upstream died\nand more", "upstream died");
    check_error("", "");
}

/* What the answer shows for these events; each is type and data in turn. */
static void check_answer(const char *const *events, const char *want, const char *want_err)
{
    struct cli_answer answer;
    char *err = NULL;
    size_t err_len = 0;
    shown = NULL;
    FILE *out = open_memstream(&shown, &shown_len), *err_out = open_memstream(&err, &err_len);
    cli_answer_init(&answer, "ask", out, err_out);
    for (; events[0] != NULL; events += 2) {
        CHECK_INT(cli_answer_event(&answer, sl_span_of(events[0]), sl_span_of(events[1])), 0);
    }
    CHECK(cli_answer_ended(&answer));
    cli_answer_finish(&answer);
    cli_answer_fini(&answer);
    fclose(out);
    fclose(err_out);
    CHECK_STR(shown, want);
    CHECK_STR(err, want_err);
    free(shown);
    free(err);
}

TEST(answer_without_sources)
{
    static const char *const events[] = {"delta", "{\"text\":\"I do not know.\\n\"}",
                                         "done",  "{\"total_ms\":12}",
                                         "delta", "{\"text\":\"late\"}",
                                         NULL};
    check_answer(events,
                 "I do not know.\n\nno sources were found\n\n"
                 "stage  queue ms  wait ms  work ms  calls\ntotal 12 ms\n",
                 "");
}

TEST(answer_with_fields_of_wrong_types)
{
    static const char *const events[] = {
        "sources",
        "{\"source_chunks\":[{\"n\":\"x\",\"doc_id\":5,\"text\":null,\"score\":\"\"},7]}",
        "delta",
        "{\"text\":5}",
        "done",
        "{\"stages\":{\"embed\":7},\"degraded\":[1],\"total_ms\":\"x\"}",
        NULL};
    check_answer(events,
                 "\nsources\n[0] #0  0.000  \n[0] #0  0.000  \n\n"
                 "stage  queue ms  wait ms  work ms  calls\n"
                 "embed         0        0        0      0\ntotal 0 ms\n\n",
                 "");
}

TEST(answer_that_restarts_and_fails)
{
    static const char *const events[] = {
        "delta", "{\"text\":\"half\"}",  "restart", "{}",
        "delta", "{\"text\":\"again\"}", "error",   "{\"error\":{\"code\":\"timeout\"}}",
        NULL};
    check_answer(events, "half\nagain\n",
                 "sluice ask: a worker was lost, the answer begins again\n"
                 "sluice ask: the query failed (timeout)\n");
}

TEST(answer_that_no_stage_gave_says_where_to_look)
{
    static const char *const events[] = {
        "error",
        "{\"error\":{\"message\":\"too late\",\"code\":\"timeout\",\"stage\":\"gateway\"}}", NULL};
    check_answer(events, "",
                 "sluice ask: too late (timeout in gateway): sluice status shows what runs and "
                 "what waits\n");
}

TEST(answer_refuses_what_is_no_json)
{
    struct cli_answer answer;
    cli_answer_init(&answer, "ask", stdout, stderr);
    CHECK_INT(cli_answer_event(&answer, SL_SPAN("delta"), SL_SPAN("{\"text\"")), -SL_EPROTO);
    CHECK_INT(cli_answer_event(&answer, SL_SPAN("message"), SL_SPAN("[DONE]")), 0);
    CHECK(!cli_answer_ended(&answer));
    cli_answer_fini(&answer);
}

TEST(metrics_are_read)
{
    const struct sl_span text =
        SL_SPAN("# HELP jobs Jobs.\njobs_other 9\njobs{stage=\"a\",program=\"x y\"} 3\n"
                "jobs{stage=\"b{}\"} 4.0\nplain 7 1700000000\nlast{l=\"v\"} 1e2");
    CHECK_INT(cli_metric_sum(text, "jobs"), 7);
    CHECK_INT(cli_metric_sum(text, "plain"), 7);
    CHECK_INT(cli_metric_sum(text, "last"), 100);
    CHECK_INT(cli_metric_sum(text, "job"), -1);
    CHECK(sl_span_is(cli_metric_label(text, "jobs", "program"), "x y"));
    CHECK(sl_span_is(cli_metric_label(text, "jobs", "gram"), ""));
    CHECK(sl_span_is(cli_metric_label(text, "none", "program"), ""));
}

static const struct test_case cases[] = {
    {"control_characters_reach_no_terminal", control_characters_reach_no_terminal},
    {"first_line_is_cut_at_characters", first_line_is_cut_at_characters},
    {"table_is_as_wide_as_its_cells", table_is_as_wide_as_its_cells},
    {"table_grows", table_grows},
    {"progress_tells_how_far_and_how_long", progress_tells_how_far_and_how_long},
    {"plain_progress_is_seldom", plain_progress_is_seldom},
    {"progress_leaves_a_clean_terminal", progress_leaves_a_clean_terminal},
    {"progress_fits_a_terminal_that_became_narrower",
     progress_fits_a_terminal_that_became_narrower},
    {"errors_of_any_shape_are_told", errors_of_any_shape_are_told},
    {"answer_without_sources", answer_without_sources},
    {"answer_with_fields_of_wrong_types", answer_with_fields_of_wrong_types},
    {"answer_that_restarts_and_fails", answer_that_restarts_and_fails},
    {"answer_that_no_stage_gave_says_where_to_look", answer_that_no_stage_gave_says_where_to_look},
    {"answer_refuses_what_is_no_json", answer_refuses_what_is_no_json},
    {"metrics_are_read", metrics_are_read},
    {NULL, NULL},
};

int main(int argc, char **argv)
{
    cli_options.term = "dumb";
    cli_options.no_color = "";
    return run_tests(cases, argc, argv);
}
