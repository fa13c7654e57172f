/* Documents that callers put in, or let go: from the request to the broker's acknowledgement. */
#ifndef SLUICE_GATEWAY_UPLOAD_H
#define SLUICE_GATEWAY_UPLOAD_H

#include "workers/gateway/gateway.h"

/* POST /v1/documents. The exchange is answered in any case. */
void upload_start(struct gateway *gateway, struct request *request);
/* DELETE /v1/documents/{id}: the same with one record that has no text. */
void upload_remove(struct gateway *gateway, struct request *request);
/* None is under way. */
bool uploads_idle(const struct gateway *gateway);
/* Their own producer; reports that have not come do so inside. */
void uploads_stop(struct gateway *gateway, uint32_t flush_ms);
/* When the coord is gone. What the thread pool still works at is freed when it is done. */
void uploads_free_all(struct gateway *gateway);

#endif
