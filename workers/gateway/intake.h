/* A request that was understood: what is asked, and how the answer is to look. */
#ifndef SLUICE_GATEWAY_INTAKE_H
#define SLUICE_GATEWAY_INTAKE_H

#include "common/codec.h"
#include "workers/gateway/chat_write.h"
#include "workers/gateway/http.h"

struct caller;

/* How the caller wants the answer. All hooks run while the caller is there. */
struct format {
    bool stream; /* SSE: the head follows acceptance, endings are events. */
    /* An event that counts, other than the terminal one. value: its record's bytes. */
    void (*event)(struct caller *caller, const struct sl_event *event, struct sl_span value);
    /* The terminal event; not streamed: of a query that is done, failures are answered for it. */
    void (*end)(struct caller *caller, const struct sl_event *event);
};
extern const struct format format_query_stream, format_query_json;
extern const struct format format_chat_stream, format_chat_json;

/* Passed by pointer and copied; the arena has one owner at a time. */
struct intake {
    struct request request;
    const struct format *format;
    struct sl_arena arena; /* Of what query and chat point to, but for the request's headers. */
    struct sl_query query; /* Without routing; zeroed for a caller that only reads events. */
    bool is_chat;
    struct chat_head chat; /* Without id and time. */
};

#endif
