/*
 * Where this gateway's replies come from: one partition of the replies topic, read from its end
 * without a group.
 */
#ifndef SLUICE_GATEWAY_REPLIES_H
#define SLUICE_GATEWAY_REPLIES_H

#include "workers/gateway/gateway.h"

/* Begins to choose a partition and to read it, and tries until it can. 0, or -SL_E* with the reason
 * in why. The record's query is looked up in gateway->open. */
int replies_create(struct gateway *gateway, struct replies **ret, char *why,
                   size_t why_size) SL_CHECKED;
/* Before the loop is destroyed. Takes NULL. */
void replies_destroy(struct replies *replies);
bool replies_ready(const struct replies *replies); /* Reading: queries may be accepted. */
int32_t replies_partition(const struct replies *replies);
/* The offset of the next record that will be seen. */
int64_t replies_next(const struct replies *replies);

#endif
