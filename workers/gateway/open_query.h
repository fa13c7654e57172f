/*
 * An open query: from its produce to the end of what its caller gets. It is found by its id when an
 * event comes, and lives until three things are over: the query (its terminal event, or the time
 * after which the gateway ends it), its exchange with the caller, and the producer's report.
 */
#ifndef SLUICE_GATEWAY_OPEN_QUERY_H
#define SLUICE_GATEWAY_OPEN_QUERY_H

#include "common/codec.h"
#include "workers/gateway/chat_write.h"
#include "workers/gateway/gateway.h"
#include "workers/gateway/order.h"

struct open_query;

/* How the caller wants the answer. All hooks run while the caller is there. */
struct format {
    bool stream; /* SSE: the head follows acceptance, endings are events. */
    /* An event that counts, other than the terminal one. value: its record's bytes. */
    void (*event)(struct open_query *q, const struct sl_event *event, struct sl_span value);
    /* The terminal event; not streamed: of a query that is done, failures are answered for it. */
    void (*end)(struct open_query *q, const struct sl_event *event);
};
extern const struct format format_query_stream, format_query_json;
extern const struct format format_chat_stream, format_chat_json;

struct open_query {
    struct gateway *gateway;
    struct sl_map_node by_id;  /* In gateway->open. */
    struct sl_list in_settled; /* Once ended. */
    struct request request;    /* exchange NULL: the caller has gone, or has everything. */
    const struct format *format;
    struct sl_arena arena;
    struct sl_query query; /* What the ending needs; without history, filter and extra. */
    struct order order;

    bool producing; /* The producer's report has not come. */
    bool accepted;  /* The broker has the job. */
    bool ended;
    bool left; /* The caller went before the end. */
    bool cut;  /* Nothing more is written: a write was not taken, or could not be made. */
    uint64_t opened_us, first_text_us;
    uint64_t written_ms;      /* The last write, for keep-alives. */
    struct sl_timer deadline; /* The gateway's own ending. */
    struct sl_timer idle;     /* Keep-alives; then the grace of a caller who left. */
    struct sl_task flush;
    struct sl_buf out; /* Stream: to be written. Else: the text so far. */

    struct chat_head chat;
    struct sl_buf citations; /* Chat, not streamed: a JSON array. */
    bool chat_begun;         /* The first chunk is written. */
};

/* Opens the query that parsed describes and produces it; the exchange is answered in any case.
 * Copies of parsed what is kept. chat: NULL for the other formats. */
void open_query_start(struct gateway *gateway, const struct request *request,
                      const struct format *format, const struct sl_query *parsed,
                      const struct chat_head *chat);
/* A record of the replies topic whose id is this query's. */
void open_query_record(struct open_query *q, const struct sl_record *record);
/* Appends to the stream; written at the end of this turn. */
struct sl_buf *open_query_out(struct open_query *q);

/* Ends all that are left, when the server and the producer are gone. */
void open_query_free_all(struct gateway *gateway);

#endif
