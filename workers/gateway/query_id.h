/* Ids of queries in paths: what is answered when nothing is known of one. */
#ifndef SLUICE_GATEWAY_QUERY_ID_H
#define SLUICE_GATEWAY_QUERY_ID_H

#include "workers/gateway/gateway.h"

/* The time in a UUID of version 7, Unix ms; -1: it is none. Pure. */
int64_t query_id_time_ms(struct sl_span id);

/* Redis does not know the request's id: 410 where it is a gateway's own and older than results are
 * kept, else 404. */
void query_id_respond_unknown(const struct gateway *gateway, const struct request *request);
/* 410: Redis knows it, but what it left is not in the log. */
void query_id_respond_gone(const struct request *request);

#endif
