#ifndef SLUICE_WORKERS_RETRIEVE_H
#define SLUICE_WORKERS_RETRIEVE_H

#include "common/stage.h"

extern const struct sl_stage retrieve_stage;

#endif
