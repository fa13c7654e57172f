/*
 * GET /v1/queries/{id}: how far a query is, or its result. Redis knows which, and where in the log
 * the result is; whoever ran the query, and through which gateway, does not matter.
 */
#ifndef SLUICE_GATEWAY_STATUS_H
#define SLUICE_GATEWAY_STATUS_H

#include "workers/gateway/gateway.h"

int status_create(struct gateway *gateway, struct status **ret, char *why,
                  size_t why_size) SL_CHECKED;
/* When the server and the coord are gone. Takes NULL. */
void status_destroy(struct status *status);

/* The request's id is the query's. Answered within some 10 s. */
void status_start(struct status *status, const struct request *request);

#endif
