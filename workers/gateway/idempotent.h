/*
 * Idempotency-Key: of several requests with one key and one body, at any gateway, one produces the
 * query and the others are callers of it.
 */
#ifndef SLUICE_GATEWAY_IDEMPOTENT_H
#define SLUICE_GATEWAY_IDEMPOTENT_H

#include "common/attach.h"
#include "workers/gateway/gateway.h"
#include "workers/gateway/intake.h"

struct idempotent;

/* 1 to 255 visible ASCII characters. Pure. */
bool idempotent_key_valid(struct sl_span key);
/* Asks whose the key is, and opens or joins the query. Takes over what intake's arena holds and
 * leaves it empty. The exchange is answered in any case. */
void idempotent_start(struct gateway *gateway, struct intake *intake, struct sl_span key);

/* For whoever produces the query (open_query.h), which then owns the key. Both take NULL. */
void idempotent_settle(struct idempotent *key, bool produced); /* Frees it too. */
void idempotent_free(struct idempotent *key);                  /* Without a word to Redis. */
/* Where the query's events are to be. */
const struct sl_place *idempotent_place(const struct idempotent *key);

#endif
