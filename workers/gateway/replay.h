/*
 * Replays: callers that are fed from a place in the log on, from any partition of the replies
 * topic. All of them share one client, and those of one partition read it together.
 */
#ifndef SLUICE_GATEWAY_REPLAY_H
#define SLUICE_GATEWAY_REPLAY_H

#include "workers/gateway/gateway.h"

struct caller;
struct replay;
struct replay_log; /* A partition that is followed. */

/* 0, or -SL_E* with the reason in why. Records are given to open_query_replayed, the end of a log
 * to open_query_caught_up. */
int replay_create(struct gateway *gateway, struct replay **ret, char *why,
                  size_t why_size) SL_CHECKED;
/* Stops reading; callers are not told. For the end of the process. Takes NULL. */
void replay_destroy(struct replay *replay);

/* Feeds the caller from its position on, from the next turn. -SL_EAGAIN: as many as may be are;
 * -SL_ENOMEM. A caller that cannot be fed is answered 410 or 503, or its stream is broken off. */
int replay_add(struct replay *replay, struct caller *caller, int32_t partition) SL_CHECKED;
void replay_remove(struct replay *replay, struct caller *caller); /* Also when it is not fed. */
int32_t replay_partition(const struct replay_log *log);

#endif
