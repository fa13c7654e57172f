/*
 * A worker's main(): the options that every worker has and the stage's own, then worker.c.
 */
#include "common/worker_internal.h"

#include <assert.h>
#include <stdio.h>

enum { SETS_MAX = 6 };

#define FIELD(name) offsetof(struct worker_options, name)
static const struct sl_option worker_options[] = {
    {.name = "SLUICE_REPLY_TOPICS",
     .type = SL_OPT_STRING,
     .offset = FIELD(reply_topics),
     .fallback = "",
     .help = "Further topics that a job may name in reply-to, separated by commas."},
    {.name = "SLUICE_MAX_INFLIGHT",
     .type = SL_OPT_INT,
     .offset = FIELD(max_inflight),
     .fallback = "1024",
     .min = 1,
     .max = 60000,
     .help = "Queries, or documents, that this process works on at once."},
    {.name = "SLUICE_MAX_INFLIGHT_BULK",
     .type = SL_OPT_INT,
     .offset = FIELD(max_inflight_bulk),
     .fallback = "64",
     .min = 1,
     .max = 60000,
     .help = "Batches of chunks that this process works on at once."},
    {.name = "SLUICE_PARKED_MAX",
     .type = SL_OPT_BYTES,
     .offset = FIELD(parked_max),
     .fallback = "256m",
     .min = 1048576,
     .max = 1099511627776.0,
     .help = "Memory of jobs that other workers run, queries and bulk work each; at it no more are "
             "taken."},
    {.name = "SLUICE_HTTP2",
     .type = SL_OPT_BOOL,
     .offset = FIELD(http2),
     .fallback = "false",
     .help = "Offer HTTP/2 to https upstreams."},
    {.name = "SLUICE_CA_FILE",
     .type = SL_OPT_STRING,
     .offset = FIELD(ca_file),
     .fallback = "",
     .help = "Certificates to trust for https upstreams instead of the system's."},
    {.name = NULL},
};
enum { OPTION_COUNT = sizeof(worker_options) / sizeof(worker_options[0]) };

/* The table with this stage's defaults. */
static void fill_table(const struct sl_stage *stage, char inflight[2][24],
                       struct sl_option table[OPTION_COUNT])
{
    memcpy(table, worker_options, sizeof(worker_options));
    snprintf(inflight[0], 24, "%lld", stage->max_inflight);
    snprintf(inflight[1], 24, "%lld", stage->max_inflight_bulk);
    for (struct sl_option *option = table; option->name != NULL; option++) {
        if (option->offset == FIELD(max_inflight) && stage->max_inflight > 0) {
            option->fallback = inflight[0];
        } else if (option->offset == FIELD(max_inflight_bulk) && stage->max_inflight_bulk > 0) {
            option->fallback = inflight[1];
        }
    }
}

static int run(void *ctx, const struct sl_process_options *process)
{
    struct sl_worker *worker = ctx;
    worker->process = process;
    int code = worker_start(worker);
    if (code == 0) {
        sl_loop_run(worker->loop);
        code = worker_finish(worker);
    }
    return code;
}

int sl_worker_main(const struct sl_stage *stage, int argc, char **argv)
{
    struct sl_worker worker = {.stage = stage};
    struct sl_option table[OPTION_COUNT];
    struct sl_option_set sets[SETS_MAX] = {{"Work", table, &worker.options}};
    char program[64], inflight[2][24];
    assert(stage->option_set_count < SETS_MAX);
    fill_table(stage, inflight, table);
    memcpy(sets + 1, stage->option_sets, stage->option_set_count * sizeof(sets[0]));
    snprintf(program, sizeof(program), "sluice-%s", stage->name);
    const struct sl_process process = {
        .program = program,
        .synopsis = stage->synopsis,
        .admin_address = stage->admin_address != NULL ? stage->admin_address : "127.0.0.1:0",
        .drain_ms = stage->drain_ms,
        .option_sets = sets,
        .option_set_count = stage->option_set_count + 1,
        .run = run,
        .ctx = &worker,
    };
    return sl_process_main(&process, argc, argv);
}
