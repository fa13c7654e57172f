/*
 * The HTTP client without a network: calls wait until the test answers them. Replaces http_client.c
 * at link time.
 */
#ifndef TESTS_SUPPORT_FAKE_HTTP_H
#define TESTS_SUPPORT_FAKE_HTTP_H

#include "common/http_client.h"

/* The call that all this is about: the oldest that is open, or the one chosen. NULL: none. */
struct sl_http_call *fake_http_call(void);
size_t fake_http_open(void);     /* How many are open. */
void fake_http_choose(size_t i); /* Of those that are open, until it ends. */
const struct sl_http_request *
fake_http_request(void);        /* Of the call; its URL and body are copies. */
size_t fake_http_started(void); /* Since the client was created. */
size_t fake_http_cancelled(void);
bool fake_http_paused(void);
void fake_http_refuse(int err);         /* What sl_http_start returns; 0: it works. */
extern int (*fake_http_on_start)(void); /* Likewise, asked at each start; NULL: it works. */
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
