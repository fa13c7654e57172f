/* What the scripted server does in several tests of the HTTP client. */
#ifndef TESTS_INTEGRATION_HTTP_SCRIPTS_H
#define TESTS_INTEGRATION_HTTP_SCRIPTS_H

#include "tests/support/http_script.h"
#include "tests/support/test.h"

#include <stdatomic.h>
#include <unistd.h>

enum { BOUND_MS = 8000 };

#define OK_HEAD "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"
#define OK_HELLO OK_HEAD "Content-Length: 5\r\n\r\nhello"
#define CHUNKED OK_HEAD "Transfer-Encoding: chunked\r\n\r\n"
#define CHUNKED_CLOSE OK_HEAD "Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n"

static inline void serve_hello(struct http_script_conn *conn)
{
    while (http_script_read(conn)) {
        http_script_send(conn, OK_HELLO);
    }
}

static const char *reply;

static inline void serve_reply_and_close(struct http_script_conn *conn)
{
    if (http_script_read(conn)) {
        http_script_send(conn, reply);
    }
}

static atomic_int may_send; /* How far the scripts below may go. */

static inline void await(atomic_int *value, int at_least)
{
    for (int i = 0; i < BOUND_MS && atomic_load(value) < at_least; i++) {
        usleep(1000);
    }
}

/* Pieces "pN" as the test allows them, five in all; then the last chunk. */
static inline void send_pieces(struct http_script_conn *conn, const char *head)
{
    http_script_send(conn, head);
    for (int i = 1; i <= 5; i++) {
        char chunk[32];
        await(&may_send, i);
        snprintf(chunk, sizeof(chunk), "2\r\np%d\r\n", i);
        http_script_send(conn, chunk);
    }
    http_script_send(conn, "0\r\n\r\n");
}

static inline void serve_pieces(struct http_script_conn *conn)
{
    while (http_script_read(conn)) {
        send_pieces(conn, CHUNKED);
    }
}

static inline void serve_eight_megabytes(struct http_script_conn *conn)
{
    static const char zeros[65536];
    CHECK(http_script_read(conn));
    http_script_send(conn, OK_HEAD "Content-Length: 8388608\r\n\r\n");
    for (int i = 0; i < 128; i++) {
        http_script_send_bytes(conn, zeros, sizeof(zeros));
    }
}

#endif
