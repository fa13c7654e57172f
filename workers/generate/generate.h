#ifndef SLUICE_WORKERS_GENERATE_H
#define SLUICE_WORKERS_GENERATE_H

#include "common/stage.h"

extern const struct sl_stage generate_stage;

#endif
