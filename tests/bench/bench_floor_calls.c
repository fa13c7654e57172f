/*
 * The floor under a question's calls: a minimal C client makes the same five calls that Sluice's
 * workers make for a question (embed, both searches at once, rerank, the streamed chat), in one
 * process and with nothing between. What Sluice adds to a question is compared with this.
 *
 * floor_calls_client.c calls, floor_calls_json.c and floor_calls_stream.c take the answers apart,
 * measure_run.c keeps the book. Questions start when they are due, as those of bench_load do, and
 * are reported in the same form.
 *
 * Exit codes: 0 the run is done, whatever failed in it, or was ended by SIGTERM; 1 it could not be
 * done; 2 wrong usage.
 */
#include "tests/bench/floor_calls.h"
#include "tests/bench/measure_clock.h"
#include "tests/bench/measure_report.h"

#include <signal.h>
#include <stdio.h>

static const struct measure_program PROGRAM = {
    .name = "bench_floor_calls",
    .about = "Makes the five calls of each question directly and measures them: the floor of what\n"
             "a question costs. An answer must hold exactly --tokens words and `[DONE]`; anything\n"
             "else is a failure. The summary goes to stderr.\n",
    .target = "upstream",
    .examples =
        "  bench_floor_calls --upstream http://127.0.0.1:9000 --rate 44.6 --seconds 20 --ideal-ms "
        "770\n"
        "  bench_floor_calls --upstream http://127.0.0.1:9000 --streams 100 --spread 2.2 --json "
        "-\n",
};

static int run_calls(const struct measure_options *options)
{
    static struct measure_run run; /* Its histograms are large for a stack. */
    struct calls_client *client = calls_client_create(options);
    if (client == NULL) {
        return 1;
    }
    int rv = measure_run_init(&run, options, measure_now_ns());
    if (rv != 0) {
        fprintf(stderr, "bench_floor_calls: %s\n", sl_error_text(rv));
    } else {
        rv = calls_client_run(client, &run);
    }
    calls_client_destroy(client);
    int code = rv == 0 ? measure_report(&run, &PROGRAM) : 1;
    measure_run_fini(&run);
    return code;
}

int main(int argc, char **argv)
{
    struct measure_options options;
    sigset_t signals;
    int code = measure_options_parse(&options, &PROGRAM, argc, argv);
    if (code >= 0) {
        return code;
    }
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    if (sigprocmask(SIG_BLOCK, &signals, NULL) != 0) {
        perror("bench_floor_calls: sigprocmask");
        return 1;
    }
    return run_calls(&options);
}
