/* A worker process: the loop, the connections and the one stage that it runs. */
#ifndef SLUICE_COMMON_WORKER_H
#define SLUICE_COMMON_WORKER_H

#include "common/http_client.h"
#include "common/stage.h"

/* The whole of a worker's main(): options, log, connections, jobs, drain. Returns the exit code. */
int sl_worker_main(const struct sl_stage *stage, int argc, char **argv);

void *sl_worker_stage(struct sl_worker *worker); /* What init returned. */
struct sl_loop *sl_worker_loop(struct sl_worker *worker);
struct sl_metrics *sl_worker_metrics(struct sl_worker *worker);
struct sl_coord *sl_worker_coord(struct sl_worker *worker);
struct sl_http_client *sl_worker_http(struct sl_worker *worker);
/* A condition of the stage's own for /readyz (admin.h), not met at first. name is static. NULL: out
 * of memory. */
struct sl_condition;
struct sl_condition *sl_worker_condition(struct sl_worker *worker, const char *name) SL_CHECKED;

#endif
