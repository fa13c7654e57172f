/*
 * The body of POST /v1/chat/completions, OpenAI's, read into a query. Which of OpenAI's fields are
 * read, passed to the model, ignored or refused is one table in chat_members.c.
 */
#ifndef SLUICE_GATEWAY_CHAT_REQUEST_H
#define SLUICE_GATEWAY_CHAT_REQUEST_H

#include "common/codec.h"

/* Query fields that OpenAI's body lacks, as request headers; data NULL where there is none. */
struct chat_headers {
    struct sl_span collection, timeout_ms, on_disconnect;
};

struct chat_request {
    struct sl_query query; /* Without routing; its model is as the caller named it. */
    bool stream;
    bool include_usage; /* A stream ends with a chunk that holds the usage. */
};

/* All spans of ret are in the arena; body may go. history_max: bytes of earlier messages that are
 * kept, the newest first. 0; -SL_EBADMSG (no JSON object), -SL_EINVAL, -SL_ETOOBIG: fault says what
 * is wrong; -SL_ENOMEM. */
int chat_request_read(struct sl_span body, const struct chat_headers *headers, size_t history_max,
                      struct sl_arena *arena, struct chat_request *ret,
                      struct sl_fault *fault) SL_CHECKED;

#endif
