/* One HTTP/1.1 request out of the bytes of a connection, and what its body asks of a model or
 * store. */
#ifndef SLUICE_BENCH_UPSTREAM_REQUEST_H
#define SLUICE_BENCH_UPSTREAM_REQUEST_H

#include "common/buf.h"

#include <stdint.h>

enum { UPSTREAM_HEAD_MAX = 16 << 10, UPSTREAM_BODY_MAX = 64 << 20 };

struct upstream_request {
    struct sl_span method, path; /* The path is without its query. Borrowed, as the body. */
    struct sl_span body;
    size_t len; /* Of all of it. */
    bool keep_alive;
    bool wants_continue; /* Expect: 100-continue, and the body has not come. */
};

/* The request at the front of bytes. 0: whole. -SL_EAGAIN: more bytes are needed; wants_continue is
 * set if the client waits to be asked. Else -SL_EBADMSG, and a static reason in why. */
int upstream_request_read(struct sl_span bytes, struct upstream_request *request,
                          const char **why) SL_CHECKED;

struct upstream_asked {
    uint32_t count;  /* Texts to embed, hits, documents to score. */
    uint32_t top;    /* rerank: how many of the scores; at most count. */
    uint32_t prompt; /* chat: tokens, roughly. */
    bool base64;     /* embeddings */
    bool stream;     /* chat */
    bool usage;      /* chat: include_usage */
};

/* 0 or -SL_EBADMSG with a static reason in why. */
typedef int upstream_read_cb(struct sl_span body, struct upstream_asked *asked, const char **why);
int upstream_read_embeddings(struct sl_span body, struct upstream_asked *asked, const char **why);
int upstream_read_search(struct sl_span body, struct upstream_asked *asked, const char **why);
int upstream_read_rerank(struct sl_span body, struct upstream_asked *asked, const char **why);
int upstream_read_chat(struct sl_span body, struct upstream_asked *asked, const char **why);

#endif
