/* DELETE /v1/queries/{id}: the query is noted as cancelled in Redis, whichever gateway has it open.
 */
#ifndef SLUICE_GATEWAY_CANCEL_H
#define SLUICE_GATEWAY_CANCEL_H

#include "workers/gateway/gateway.h"

/* Answers 202 when Redis has it, else 503. The request's id is the query's. */
void cancel_start(struct gateway *gateway, const struct request *request);
void cancel_free_all(struct gateway *gateway); /* When the server and the coord are gone. */

#endif
