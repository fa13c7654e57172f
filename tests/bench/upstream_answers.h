/* What the stub answers, as bytes. One set belongs to one behaviour and is made before the first
 * request that uses it, so that an answer costs little more than its write. */
#ifndef SLUICE_BENCH_UPSTREAM_ANSWERS_H
#define SLUICE_BENCH_UPSTREAM_ANSWERS_H

#include "upstream_behaviour.h"
#include "upstream_request.h"

enum upstream_kind {
    UPSTREAM_EMBED,
    UPSTREAM_VECTOR,
    UPSTREAM_KEYWORD,
    UPSTREAM_RERANK,
    UPSTREAM_CHAT,
    UPSTREAM_WRITE, /* What fills a store: answered at once. */
    UPSTREAM_KINDS
};

struct upstream_answers {
    size_t refs;
    struct upstream_behaviour behaviour;
    struct sl_buf vector_base64, vector_list; /* The JSON value of one embedding. */
    struct sl_buf hits[2];                    /* Of VECTOR and KEYWORD: records and commas. */
    size_t *hit_ends[2];                      /* Where the record with this number ends. */
    struct sl_buf stream;                     /* Response head and first event, then the others. */
    size_t *token_ends;                       /* Where the token with this number ends in it. */
};

/* With one reference; 0 or -SL_ENOMEM. */
int upstream_answers_create(const struct upstream_behaviour *behaviour,
                            struct upstream_answers **ret) SL_CHECKED;
struct upstream_answers *upstream_answers_ref(struct upstream_answers *answers);
void upstream_answers_unref(struct upstream_answers *answers); /* Takes NULL. */

/* From the request to its first byte, in microseconds. */
uint64_t upstream_answers_latency_us(const struct upstream_answers *answers,
                                     enum upstream_kind kind, const struct upstream_asked *asked);

/* Appends the body of a response: of any kind but WRITE, and of CHAT that is not streamed. */
void upstream_answers_write(const struct upstream_answers *answers, enum upstream_kind kind,
                            const struct upstream_asked *asked, struct sl_buf *body);
/* The bytes of tokens [from, to) of a stream; token 0 brings the response's head. Borrowed. */
struct sl_span upstream_answers_tokens(const struct upstream_answers *answers, size_t from,
                                       size_t to);
/* Appends the end of a stream: finish_reason, usage, [DONE], and the end of the response. */
void upstream_answers_tail(const struct upstream_answers *answers,
                           const struct upstream_asked *asked, struct sl_buf *out);

/* Appends a response with a JSON body. */
void upstream_answers_json(struct sl_buf *out, int status, struct sl_span body);

#endif
