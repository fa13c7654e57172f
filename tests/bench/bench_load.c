/*
 * The benchmark's client: asks questions over HTTP, reads the streams of the answers, and tells how
 * long they took. It is one thread that costs little, so that it can share a machine with what it
 * measures, and its own lateness and CPU time are in the report.
 *
 * load_client.c talks, measure_run.c keeps the book. Requests start when they are due, whatever the
 * answers do, and all their times count from then.
 *
 * Exit codes: 0 the run is done, whatever failed in it, or was ended by SIGTERM; 1 it could not be
 * done; 2 wrong usage.
 */
#include "tests/bench/load_client.h"
#include "tests/bench/measure_clock.h"
#include "tests/bench/measure_report.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

static const struct measure_program PROGRAM = {
    .name = "bench_load",
    .about =
        "Asks questions (POST {\"query\": ...}, answered by server-sent events) and measures the\n"
        "answers. An answer must hold exactly --tokens words, an event `done`, and `[DONE]`;\n"
        "anything else is a failure. The summary goes to stderr.\n",
    .target = "url",
    .examples =
        "  bench_load --url http://127.0.0.1:8080/v1/query --rate 44.6 --seconds 20 --ideal-ms "
        "770\n"
        "  bench_load --url http://127.0.0.1:8080/v1/query --streams 100 --spread 2.2 --warmup 5 "
        "--json -\n",
    .history = true,
};

static int run_load(struct load_request *request, const struct measure_options *options)
{
    static struct measure_run run; /* Its histograms are large for a stack. */
    struct load_client *client = load_client_create(request, options);
    if (client == NULL) {
        return 1;
    }
    int rv = measure_run_init(&run, options, measure_now_ns());
    if (rv != 0) {
        fprintf(stderr, "bench_load: %s\n", sl_error_text(rv));
    } else {
        rv = load_client_run(client, &run);
    }
    load_client_destroy(client);
    int code = rv == 0 ? measure_report(&run, &PROGRAM) : 1;
    measure_run_fini(&run);
    return code;
}

int main(int argc, char **argv)
{
    struct measure_options options;
    struct load_request request = {0};
    sigset_t signals;
    int code = measure_options_parse(&options, &PROGRAM, argc, argv);
    if (code >= 0) {
        return code;
    }
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    if (sigprocmask(SIG_BLOCK, &signals, NULL) != 0) {
        perror("bench_load: sigprocmask");
        return 1;
    }
    bool ready = load_client_allow(&options) == 0 && load_request_init(&request, &options) == 0;
    code = ready ? run_load(&request, &options) : 1;
    load_request_fini(&request);
    return code;
}
