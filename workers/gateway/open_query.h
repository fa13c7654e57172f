/*
 * An open query: one that this gateway has callers for, or that it let in and that has not ended.
 * It is found by its id when an event comes. One that this gateway opened is read live and has a
 * live caller, who opened it; all other callers are fed by a replay.
 */
#ifndef SLUICE_GATEWAY_OPEN_QUERY_H
#define SLUICE_GATEWAY_OPEN_QUERY_H

#include "common/attach.h"
#include "workers/gateway/caller.h"
#include "workers/gateway/gateway.h"
#include "workers/gateway/intake.h"

struct idempotent;

struct open_query {
    struct gateway *gateway;
    struct sl_map_node by_id; /* In gateway->open, until it is freed. */
    struct sl_arena arena;
    struct sl_query query; /* What an ending needs; without history, filter and extra. */
    struct sl_attachment attachment;
    struct idempotent *key; /* To be told whether the job was produced; or NULL. */

    struct sl_list callers;
    size_t listening;    /* Of them, those who are there and not at the end. */
    struct caller *live; /* Who opened it; stays until the end, there or not. NULL: none. */

    bool ours;      /* This gateway produced it: it stores an ending after the deadline. */
    bool producing; /* The producer's report has not come. */
    bool attached;
    bool ended;   /* Its ending was seen. */
    bool overdue; /* The ending should have come by now. */
    struct sl_timer deadline;
    struct sl_timer grace; /* All callers have left. */
};

/* Where a caller that came back goes on. */
struct resume_point {
    bool given;
    uint32_t attempt, seq; /* The last event that it has. */
};

/* Opens the query that intake describes, under the request's id, and produces it; the exchange is
 * answered in any case. Copies what is kept. key: whose the id is, and who is told what becomes of
 * the produce; or NULL. */
void open_query_start(struct gateway *gateway, const struct intake *intake, struct idempotent *key);
/* The place of a query that would be opened now. */
struct sl_place open_query_place(const struct gateway *gateway, const struct sl_query *parsed);
/* Produces it again, under the request's id and with the key's place, for a gateway that died. */
void open_query_take_over(struct gateway *gateway, const struct intake *intake,
                          struct idempotent *key);
/* Another caller of a query that runs or has ended, wherever: the request's id, at its place. The
 * exchange is answered in any case. point NULL: its job is known to be produced. */
void open_query_join(struct gateway *gateway, const struct intake *intake,
                     const struct sl_place *place, const struct resume_point *point);

/* How open_query.c goes on with what open_start.c has begun: the producer's report, ctx being the
 * query, and the watch over its deadline. */
void open_query_delivered(void *ctx, int err, int32_t partition, int64_t offset);
void open_query_watch(struct open_query *q);

/* An event of this query, encoded, from this gateway's partition, or from a replay that read it in
 * that record. */
void open_query_live(struct open_query *q, struct sl_span bytes);
void open_query_replayed(struct open_query *q, const struct sl_record *record,
                         struct sl_span bytes);

/* A caller of q that is fed by a replay has been given all that stood in the log. */
void open_query_caught_up(struct open_query *q, struct caller *caller);

/* Of a caller of q. None of these frees anything. */
void open_query_attach(struct open_query *q);
void open_query_caller_lost(struct open_query *q, struct caller *caller); /* Its sequence broke. */
/* event: the ending that it was given, or NULL. */
void open_query_caller_ended(struct open_query *q, struct caller *caller,
                             const struct sl_event *event);
/* Its exchange is over; frees what is over with it. */
void open_query_caller_gone(struct open_query *q, struct caller *caller);
/* Frees the callers that are over, and the query if it is. At the end of each thing that happens to
 * a query. */
void open_query_tidy(struct open_query *q);

void open_query_free(struct open_query *q); /* Whatever refers to it. */
/* Frees all, when the server and the producer are gone. */
void open_query_free_all(struct gateway *gateway);

#endif
