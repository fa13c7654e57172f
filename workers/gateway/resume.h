/* GET /v1/queries/{id}/events: a stream goes on, or is told again, whichever gateway began it. */
#ifndef SLUICE_GATEWAY_RESUME_H
#define SLUICE_GATEWAY_RESUME_H

#include "workers/gateway/gateway.h"
#include "workers/gateway/open_query.h"

/* The request's id is the query's. The exchange is answered in any case. */
void resume_start(struct gateway *gateway, const struct request *request);

/* A Last-Event-ID: ATTEMPT:SEQ. 0 or -SL_EINVAL. Pure. */
int resume_point_read(struct sl_span header, struct resume_point *ret) SL_CHECKED;

#endif
