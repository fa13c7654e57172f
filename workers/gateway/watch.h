/* GET /v1/ingests/{id} as an event stream. */
#ifndef SLUICE_GATEWAY_WATCH_H
#define SLUICE_GATEWAY_WATCH_H

#include "workers/gateway/gateway.h"

/* The request's id is the run's. The exchange is answered in any case. */
void watch_start(struct gateway *gateway, const struct request *request);
/* Ends the streams: whoever watches comes back to another gateway. */
void watches_drain(struct gateway *gateway);
/* When the server and the coord are gone. */
void watches_free_all(struct gateway *gateway);

#endif
