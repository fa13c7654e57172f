/* The requests of a load: one text for all, in which the number of the question is written anew. */
#ifndef TESTS_BENCH_LOAD_REQUEST_H
#define TESTS_BENCH_LOAD_REQUEST_H

#include "common/buf.h"
#include "tests/bench/measure_options.h"

#include <stdint.h>
#include <sys/socket.h>

struct load_request {
    struct sockaddr_storage address; /* Of the server. */
    socklen_t address_len;
    struct sl_buf text;
    size_t question_at, question_len; /* In text. */
};

/* Looks the server's name up. 0, or -1 after a line on stderr. The options are not kept. */
int load_request_init(struct load_request *request, const struct measure_options *options);
void load_request_fini(struct load_request *request); /* Also of a zeroed one. */

/* The bytes of request `number`; borrowed until the next call. All have the same length. */
struct sl_span load_request_text(struct load_request *request, uint64_t number);

#endif
