#ifndef SLUICE_WORKERS_RERANK_H
#define SLUICE_WORKERS_RERANK_H

#include "common/stage.h"

extern const struct sl_stage rerank_stage;

#endif
