/*
 * Endings that the gateway writes: of queries whose deadline passed and that nobody ended. The
 * ending is stored in Redis, where the first one counts; if it is ours, its event and its result
 * are produced. The caller waits for what comes of it, but not for long (open_query.c).
 */
#ifndef SLUICE_GATEWAY_EXPIRY_H
#define SLUICE_GATEWAY_EXPIRY_H

#include "common/message.h"
#include "workers/gateway/gateway.h"

/* Copies. What fails is logged: then the first worker that reads the expired job ends the query. */
void expiry_start(struct gateway *gateway, const struct sl_query *query,
                  const struct sl_result *result);
void expiry_free_all(struct gateway *gateway); /* When the producer and the coord are gone. */

#endif
