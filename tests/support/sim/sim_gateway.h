/* Gateways of the simulated cluster; see sim.h. */
#ifndef TESTS_SUPPORT_SIM_GATEWAY_H
#define TESTS_SUPPORT_SIM_GATEWAY_H

#include "tests/support/sim/sim.h"

/* All but the last four are about the gateway whose code runs. */

void sim_gateway_start(void);
void sim_gateway_finish(void);
void sim_gateway_open(const char *id, int64_t deadline_ms, int64_t policy_ms);
void sim_gateway_leave(const char *id);
void sim_gateway_cancel(const char *id);
void sim_gateway_ended(const char *id); /* All of them: the reader has taken the end. */
bool sim_gateway_ready(const struct sim_process *process); /* Knows Redis's clock. */
bool sim_gateway_has(const struct sim_process *process, const char *id);
void sim_gateway_trace(const struct sim_process *process); /* What keeps it from being idle. */
bool sim_gateway_idle(const struct sim_process *process);

#endif
