/*
 * The ending of a query as bytes that Redis keeps (claim.h), and the routing headers that each
 * record about a query carries. Whoever holds an ending can produce its event and its result.
 */
#ifndef SLUICE_COMMON_ENDING_H
#define SLUICE_COMMON_ENDING_H

#include "common/codec.h"
#include "common/kafka.h"

enum { SL_ROUTE_HEADERS = 10 };

/* Headers of one record; borrows the query's spans, owns the rest. */
struct sl_route {
    struct sl_kafka_header headers[SL_ROUTE_HEADERS];
    size_t count;
    char deadline[24];
    char reply_to[280];
};
/* sluice-id, sluice-tenant, sluice-deadline, reply-to, reply-bundles, traceparent as far as set, and content-type.
 */
void sl_route_write(struct sl_route *route, const struct sl_query *query, bool json);
/* The same from a record's headers into the query; spans are copied to the arena. -SL_EBADMSG: the
 * id has characters that no id may have (a dead letter); -SL_EINVAL: fault says what (reply-to,
 * tenant, deadline); -SL_ENOMEM. A record without sluice-id gets the id that its position gives it;
 * a trace context that is longer than any is left out, since every event would carry it.
 * reply_topics: allowed in reply-to, NULL at the end. */
int sl_route_read(const struct sl_record *record, const char *const *reply_topics,
                  struct sl_arena *arena, struct sl_query *query,
                  struct sl_fault *fault) SL_CHECKED;
/* The tenant alone, copied to the arena. -SL_EINVAL: fault says why, and ret is the default, so
 * that a result can be written; -SL_ENOMEM. */
int sl_route_tenant(const struct sl_record *record, struct sl_arena *arena, struct sl_span *ret,
                    struct sl_fault *fault) SL_CHECKED;
bool sl_route_json(const struct sl_record *record); /* content-type says application/json. */

struct sl_ending {
    struct sl_span id, key, tenant, traceparent; /* key: the result's; empty: the id. */
    struct sl_span reply_topic;                  /* Empty: no event. */
    int32_t reply_partition;
    bool json;
    struct sl_span event, result; /* Encoded. */
};

/* Fills in what every result has (latencies up to now_ms, Redis's clock), encodes event and result,
 * and appends the ending. Errors are in out. */
void sl_ending_pack(const struct sl_query *query, const struct sl_result *result, uint32_t attempt,
                    uint32_t seq, uint64_t fence, int64_t now_ms, struct sl_buf *out);
/* Borrows bytes. -SL_EBADMSG; -SL_EVERSION: of a format that is not known here. */
int sl_ending_unpack(struct sl_span bytes, struct sl_ending *ret) SL_CHECKED;
/* The records to produce, into out (room for 2): the event first where there is one. results_topic:
 * with prefix. Borrows ending, route and topic. reply: memory for the topic's name. */
size_t sl_ending_records(const struct sl_ending *ending, const char *results_topic,
                         struct sl_route *route, char reply[256], struct sl_outgoing out[2]);

#endif
