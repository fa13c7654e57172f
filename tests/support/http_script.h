/*
 * An HTTP server for tests whose every byte the test decides: it accepts on a free port of the
 * loopback address and runs the test's script for each connection in a thread of its own, with
 * blocking sockets. No wait in it is longer than 10 s.
 */
#ifndef TESTS_SUPPORT_HTTP_SCRIPT_H
#define TESTS_SUPPORT_HTTP_SCRIPT_H

#include <stdbool.h>
#include <stddef.h>

struct http_script;

struct http_script_conn {
    struct http_script *script;
    int fd;
    int number;          /* Of the connection, from 1. */
    char request[65536]; /* The last request's head and what came of its body, terminated. */
    size_t body_len;
};

/* What to do with a connection; it is closed when this returns. */
typedef void http_script_fn(struct http_script_conn *conn);

struct http_script *http_script_start(http_script_fn *serve);
void http_script_stop(struct http_script *script); /* Shuts its connections down and joins. */
int http_script_port(const struct http_script *script);
/* Counted since the start; from any thread. */
int http_script_accepted(const struct http_script *script);
int http_script_requests(const struct http_script *script);
int http_script_closed(const struct http_script *script);      /* Connections, by this server. */
int http_script_peer_closed(const struct http_script *script); /* As http_script_await_close saw. */

/* For scripts. Reads a request with its body of Content-Length bytes; false: the peer closed. */
bool http_script_read(struct http_script_conn *conn);
void http_script_send(struct http_script_conn *conn, const char *text);
void http_script_send_bytes(struct http_script_conn *conn, const void *data, size_t len);
/* Until the peer closes, which is counted; what it sends is dropped. */
void http_script_await_close(struct http_script_conn *conn);
void http_script_reset(struct http_script_conn *conn); /* Closes with a reset when serve returns. */

#endif
