#ifndef SLUICE_WORKERS_EMBED_H
#define SLUICE_WORKERS_EMBED_H

#include "common/stage.h"

extern const struct sl_stage embed_stage;

#endif
