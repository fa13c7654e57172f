/* Reads HTTP/1.1 responses from bytes cut anywhere, in place and in fixed memory: as much as load
 * needs, and strictly. Only bodies of known length: chunked, or with a Content-Length. */
#ifndef TESTS_BENCH_LOAD_HTTP_H
#define TESTS_BENCH_LOAD_HTTP_H

#include "common/buf.h"

#include <stdbool.h>
#include <stdint.h>

enum { LOAD_LINE_MAX = 512 };

struct load_http {
    int state;
    int status;      /* 0 until the status line was read. */
    bool keep_alive; /* The connection may be used again after the end. */
    bool chunked, has_length;
    uint64_t left; /* Bytes of the chunk, or of the body, that are still to come. */
    size_t line_len;
    char line[LOAD_LINE_MAX]; /* The beginning of a line that was cut. */
};

enum load_http_step {
    LOAD_HTTP_MORE,   /* All bytes are read, and more must come. */
    LOAD_HTTP_BODY,   /* A piece of the body; call again for what follows. */
    LOAD_HTTP_END,    /* The response is complete; what is left belongs to nothing. */
    LOAD_HTTP_BROKEN, /* Not such a response. */
};

void load_http_init(struct load_http *http); /* For the next response. */

/* Reads from the front of bytes and shortens it. ret_body is set with LOAD_HTTP_BODY and borrows
 * from bytes. Not to be called again after END or BROKEN. */
enum load_http_step load_http_next(struct load_http *http, struct sl_span *bytes,
                                   struct sl_span *ret_body);

#endif
