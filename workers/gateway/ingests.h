/* Where runs of ingestion and documents are read: Redis, for GET /v1/ingests and /v1/documents. */
#ifndef SLUICE_GATEWAY_INGESTS_H
#define SLUICE_GATEWAY_INGESTS_H

#include "common/codec.h"
#include "common/ingest_account.h"
#include "workers/gateway/gateway.h"

struct sl_ingest_env ingests_env(const struct gateway *gateway);
/* What follows the part of the request's path that comes before {id}; not decoded. */
struct sl_span ingests_path_rest(const struct request *request);
/* 400, 413 or 503 by err (common/error.h) for what was read of the request. */
void ingests_respond_fault(const struct request *request, int err, const struct sl_fault *fault);

/* Each answers the exchange, now or when Redis has answered. */
void ingests_list(struct gateway *gateway, struct request *request);
void ingests_get(struct gateway *gateway, struct request *request); /* JSON; the id: request's. */
void documents_list(struct gateway *gateway, struct request *request);
void documents_get(struct gateway *gateway, struct request *request);
/* 404 or 503 for a run that could not be read. */
void ingests_respond_missing(const struct request *request, int err);

#endif
