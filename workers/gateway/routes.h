/* From a request to what answers it. */
#ifndef SLUICE_GATEWAY_ROUTES_H
#define SLUICE_GATEWAY_ROUTES_H

#include "workers/gateway/gateway.h"

/* Callbacks of struct sl_http_server_callbacks; ctx is the gateway. */
size_t routes_max_body(void *ctx, struct sl_span method, struct sl_span path);
void routes_on_request(void *ctx, struct sl_http_exchange *exchange);
void routes_error_body(void *ctx, int status, const char *why, struct sl_buf *body);
void routes_error_head(void *ctx, int status, struct sl_buf *head);

/* openapi.json, compiled in. */
extern const char gateway_openapi[];

#endif
