/*
 * The HTTP client without a network: calls wait until the test answers them. Replaces http_client.c
 * at link time.
 */
#ifndef TESTS_SUPPORT_FAKE_HTTP_H
#define TESTS_SUPPORT_FAKE_HTTP_H

#include "common/http_client.h"

/* The call that is open; there may be one at a time. NULL: none. */
struct sl_http_call *fake_http_call(void);
const struct sl_http_request *fake_http_request(void); /* Of the open call. */
size_t fake_http_started(void);                        /* Since the client was created. */
size_t fake_http_cancelled(void);
bool fake_http_paused(void);
void fake_http_refuse(int err); /* What sl_http_start returns; 0: it works. */
/* Answers: the head, a piece of the body (what on_data returned), the end. */
void fake_http_head(int status);
int fake_http_data(const char *bytes);
struct fake_http_end {
    int err, status;
    long retry_after_ms;
    bool connected;
    const char *body;
};
void fake_http_end(const struct fake_http_end *end);

#endif
