/*
 * The observe stage, and what its files share: observe.c (the stage), record.c (the analytics
 * record), quality.c (measures without a model), judge.c (a model's judgement), database.c (rows in
 * PostgreSQL).
 */
#ifndef SLUICE_WORKERS_OBSERVE_H
#define SLUICE_WORKERS_OBSERVE_H

#include "common/stage.h"

extern const struct sl_stage observe_stage;

/* Whether this query is among the share (0 to 1) that is judged: the same answer for each delivery
 * of it, on every worker. */
bool observe_samples(struct sl_span query_id, double share);

#endif
