/*
 * Raw requests and what a strict server answers: the status lines in order, then "close" where the
 * connection is closed. The handler under test echoes "METHOD path query body"; bodies may have
 * HTTP_CASE_MAX_BODY bytes, heads HTTP_CASE_MAX_HEAD.
 */
#ifndef TESTS_SUPPORT_HTTP_CASES_H
#define TESTS_SUPPORT_HTTP_CASES_H

#include "common/buf.h"

#include <stdio.h>

enum { HTTP_CASE_MAX_BODY = 16, HTTP_CASE_MAX_HEAD = 256 };

struct http_case {
    const char *name;
    struct sl_span raw;
    const char *want;
    const char *text; /* Found in the answer, or NULL. */
};

#define H "Host: a\r\n"
#define GET "GET / HTTP/1.1\r\n"
#define POST "POST / HTTP/1.1\r\n" H
#define CHUNKED POST "Transfer-Encoding: chunked\r\n\r\n"
#define X16 "xxxxxxxxxxxxxxxx"
#define X256 X16 X16 X16 X16 X16 X16 X16 X16 X16 X16 X16 X16 X16 X16 X16 X16
#define CASE(name, raw, want, text)                                                                \
    {                                                                                              \
        name, {raw, sizeof(raw) - 1}, want, text                                                   \
    }

/* clang-format off */
static const struct http_case http_cases[] = {
    /* Targets. */
    CASE("path and query", "GET /p/q?a=b HTTP/1.1\r\n" H "\r\n", "200", "GET /p/q a=b "),
    CASE("empty query", "GET /p? HTTP/1.1\r\n" H "\r\n", "200", "GET /p  "),
    CASE("two question marks", "GET /p?a?b HTTP/1.1\r\n" H "\r\n", "200", "GET /p a?b "),
    CASE("two slashes stay a path", "GET //h/p HTTP/1.1\r\n" H "\r\n", "200", "GET //h/p  "),
    CASE("absolute form", "GET http://h:1/p?q HTTP/1.1\r\n" H "\r\n", "200", "GET /p q "),
    CASE("absolute form, capitals", "GET HTTPS://h/p HTTP/1.1\r\n" H "\r\n", "200", "GET /p  "),
    CASE("absolute form without path", "GET http://h HTTP/1.1\r\n" H "\r\n", "200", "GET /  "),
    CASE("absolute form, query only", "GET http://h?q HTTP/1.1\r\n" H "\r\n", "200", "GET / q "),
    CASE("absolute form without host", "GET http:///p HTTP/1.1\r\n" H "\r\n", "400 close", NULL),
    CASE("absolute form with user", "GET http://u@h/p HTTP/1.1\r\n" H "\r\n", "400 close", NULL),
    CASE("another scheme", "GET ftp://h/p HTTP/1.1\r\n" H "\r\n", "400 close", NULL),
    CASE("asterisk", "OPTIONS * HTTP/1.1\r\n" H "\r\n", "200", "OPTIONS *  "),
    CASE("asterisk for GET", "GET * HTTP/1.1\r\n" H "\r\n", "400 close", NULL),
    CASE("asterisk and more", "OPTIONS *a HTTP/1.1\r\n" H "\r\n", "400 close", NULL),
    CASE("fragment", "GET /p#f HTTP/1.1\r\n" H "\r\n", "400 close", NULL),
    CASE("no slash", "GET p HTTP/1.1\r\n" H "\r\n", "400 close", NULL),
    CASE("control in target", "GET /\x01 HTTP/1.1\r\n" H "\r\n", "400 close", NULL),
    CASE("zero in target", "GET /\0 HTTP/1.1\r\n" H "\r\n", "400 close", NULL),
    CASE("high byte in target", "GET /\xc3\xa4 HTTP/1.1\r\n" H "\r\n", "400 close", NULL),
    CASE("target too long", "GET /" X256 " HTTP/1.1\r\n" H "\r\n", "414 close", NULL),
    /* Methods and versions. */
    CASE("another method", "DELETE / HTTP/1.1\r\n" H "\r\n", "200", "DELETE /  "),
    CASE("unknown method", "BREW / HTTP/1.1\r\n" H "\r\n", "501 close", NULL),
    CASE("longer method", "GETX / HTTP/1.1\r\n" H "\r\n", "501 close", NULL),
    CASE("method in small letters", "get / HTTP/1.1\r\n" H "\r\n", "501 close", NULL),
    CASE("connect", "CONNECT a:1 HTTP/1.1\r\n" H "\r\n", "501 close", NULL),
    CASE("TLS", "\x16\x03\x01\x02\x01", "400 close", NULL),
    CASE("tab after method", "GET\t/ HTTP/1.1\r\n" H "\r\n", "400 close", NULL),
    CASE("HTTP/1.0", "GET / HTTP/1.0\r\n\r\n", "200 close", "connection: close"),
    CASE("HTTP/1.0 keep-alive", "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", "200 close", NULL),
    CASE("HTTP/0.9", "GET / HTTP/0.9\r\n" H "\r\n", "505 close", NULL),
    CASE("HTTP/1.2", "GET / HTTP/1.2\r\n" H "\r\n", "505 close", NULL),
    CASE("HTTP/2.0", "GET / HTTP/2.0\r\n" H "\r\n", "505 close", NULL),
    CASE("HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "505 close", NULL),
    CASE("no version", "GET /\r\n" H "\r\n", "505 close", NULL),
    CASE("long version", "GET / HTTP/1.10\r\n" H "\r\n", "400 close", NULL),
    CASE("space after version", "GET / HTTP/1.1 \r\n" H "\r\n", "400 close", NULL),
    CASE("upgrade is ignored", GET H "Connection: upgrade\r\nUpgrade: h2c\r\n\r\n" GET H "\r\n",
         "200 200", NULL),
    CASE("upgrade with a body", POST "Connection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\nhi"
         GET H "\r\n", "200 200", "POST /  hi"),
    /* Line ends. */
    CASE("empty lines before", "\r\n\r\n" GET H "\r\n", "200", NULL),
    CASE("bare LF before", "\n" GET H "\r\n", "400 close", NULL),
    CASE("bare CR before", "\r" GET H "\r\n", "400 close", NULL),
    CASE("bare LF after request line", "GET / HTTP/1.1\n" H "\r\n", "400 close", NULL),
    CASE("bare CR after request line", "GET / HTTP/1.1\r" H "\r\n", "400 close", NULL),
    CASE("bare LF after header", GET "Host: a\n\r\n", "400 close", NULL),
    CASE("bare CR after header", GET "Host: a\rX: b\r\n\r\n", "400 close", NULL),
    CASE("bare LF after head", GET "Host: a\r\n\n", "400 close", NULL),
    CASE("two CRs", GET "Host: a\r\r\n\r\n", "400 close", NULL),
    /* Headers. */
    CASE("Host missing", GET "\r\n", "400 close", NULL),
    CASE("Host twice", GET H H "\r\n", "400 close", NULL),
    CASE("Host empty", GET "Host:\r\n\r\n", "200", NULL),
    CASE("Host with port", GET "hOST: [::1]:80 \t\r\n\r\n", "200", NULL),
    CASE("Host with a path", GET "Host: a/b\r\n\r\n", "400 close", NULL),
    CASE("Host list", GET "Host: a b\r\n\r\n", "400 close", NULL),
    CASE("space before colon", GET "Host : a\r\n\r\n", "400 close", NULL),
    CASE("space before the first header", GET " Host: a\r\n\r\n", "400 close", NULL),
    CASE("folded header", GET H "X: a\r\n b\r\n\r\n", "400 close", NULL),
    CASE("folded with a tab", GET H "X: a\r\n\tb\r\n\r\n", "400 close", NULL),
    CASE("folded empty header", GET H "X:\r\n b\r\n\r\n", "400 close", NULL),
    CASE("no colon", GET H "X\r\n\r\n", "400 close", NULL),
    CASE("no name", GET H ": a\r\n\r\n", "400 close", NULL),
    CASE("zero in value", GET H "X: a\0b\r\n\r\n", "400 close", NULL),
    CASE("control in value", GET H "X: a\x01\r\n\r\n", "400 close", NULL),
    CASE("high byte in value", GET H "X: \xc3\xa4\r\n\r\n", "200", NULL),
    CASE("high byte in name", GET H "\xc3\xa4: a\r\n\r\n", "400 close", NULL),
    CASE("headers too long", GET H "X: " X256 "\r\n\r\n", "431 close", NULL),
    CASE("header name too long", GET H X256 ": a\r\n\r\n", "431 close", NULL),
    CASE("Connection: close", GET H "Connection: close\r\n\r\n" GET H "\r\n", "200 close", NULL),
    CASE("Connection list", GET H "Connection: x, Close\r\n\r\n" GET H "\r\n", "200 close", NULL),
    /* Lengths. */
    CASE("body", POST "Content-Length: 5\r\n\r\nhello", "200", "POST /  hello"),
    CASE("empty body", POST "Content-Length: 0\r\n\r\n", "200", "POST /  "),
    CASE("largest body", POST "Content-Length: 16\r\n\r\n" X16, "200", X16),
    CASE("body too large", POST "Content-Length: 17\r\n\r\n", "413 close", NULL),
    CASE("huge length", POST "Content-Length: 18446744073709551615\r\n\r\n", "413 close", NULL),
    CASE("length overflow", POST "Content-Length: 18446744073709551616\r\n\r\n", "400 close", NULL),
    CASE("lengths conflict", POST "Content-Length: 5\r\nContent-Length: 6\r\n\r\n", "400 close", NULL),
    CASE("lengths repeated", POST "Content-Length: 5\r\nContent-Length: 5\r\n\r\n", "400 close", NULL),
    CASE("length list", POST "Content-Length: 5, 5\r\n\r\nhello", "400 close", NULL),
    CASE("length with plus", POST "Content-Length: +5\r\n\r\nhello", "400 close", NULL),
    CASE("length with minus", POST "Content-Length: -5\r\n\r\nhello", "400 close", NULL),
    CASE("length in hex", POST "Content-Length: 0x5\r\n\r\nhello", "400 close", NULL),
    CASE("length empty", POST "Content-Length:\r\n\r\n", "400 close", NULL),
    CASE("length with chunked", POST "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
         "400 close", NULL),
    CASE("chunked with length", POST "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
         "400 close", NULL),
    /* Chunks. */
    CASE("chunks", CHUNKED "3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n", "200", "POST /  hello"),
    CASE("chunk size in hex", CHUNKED "A\r\n0123456789\r\n0\r\n\r\n", "200", "POST /  0123456789"),
    CASE("chunk extension and trailer", CHUNKED "5;a=\"b\"\r\nhello\r\n0\r\nT: x\r\n\r\n" GET H "\r\n",
         "200 200", "POST /  hello"),
    CASE("coding in capitals", POST "Transfer-Encoding: CHUNKED\r\n\r\n0\r\n\r\n", "200", NULL),
    CASE("chunks over the limit", CHUNKED "a\r\n0123456789\r\na\r\n0123456789", "413 close", NULL),
    CASE("no chunk size", CHUNKED "\r\n", "400 close", NULL),
    CASE("chunk size negative", CHUNKED "-1\r\n", "400 close", NULL),
    CASE("chunk size with 0x", CHUNKED "0x1\r\n", "400 close", NULL),
    CASE("chunk size overflow", CHUNKED "10000000000000000\r\n", "400 close", NULL),
    CASE("space after chunk size", CHUNKED "1 \r\nx\r\n0\r\n\r\n", "400 close", NULL),
    CASE("bare LF after chunk size", CHUNKED "1\nx\r\n0\r\n\r\n", "400 close", NULL),
    CASE("bare LF after chunk", CHUNKED "1\r\nx\n0\r\n\r\n", "400 close", NULL),
    CASE("chunk longer than its size", CHUNKED "1\r\nxy\r\n0\r\n\r\n", "400 close", NULL),
    CASE("bare LF in extension", CHUNKED "1;a\nx\r\n0\r\n\r\n", "400 close", NULL),
    CASE("folded trailer", CHUNKED "0\r\nT: x\r\n y\r\n\r\n", "400 close", NULL),
    CASE("length in trailer", CHUNKED "0\r\nContent-Length: 5\r\n\r\n", "400 close", NULL),
    CASE("extension without end", CHUNKED "1;" X256 X256, "431 close", NULL),
    CASE("trailers without end", CHUNKED "0\r\nT: " X256 X256, "431 close", NULL),
    CASE("another coding", POST "Transfer-Encoding: gzip\r\n\r\n", "501 close", NULL),
    CASE("two codings", POST "Transfer-Encoding: gzip, chunked\r\n\r\n", "501 close", NULL),
    CASE("coding after chunked", POST "Transfer-Encoding: chunked, gzip\r\n\r\n", "400 close", NULL),
    CASE("chunked twice", POST "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
         "400 close", NULL),
    CASE("coding in HTTP/1.0", "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
         "400 close", NULL),
    /* Expectations. */
    CASE("body sent with the expectation", POST "Expect: 100-continue\r\nContent-Length: 2\r\n\r\nhi",
         NULL, "POST /  hi"),
    CASE("expectation alone", POST "Expect: 100-Continue\r\nContent-Length: 2\r\n\r\n", "100", NULL),
    CASE("expectation of a body too large", POST "Expect: 100-continue\r\nContent-Length: 17\r\n\r\n",
         "413 close", NULL),
    CASE("another expectation", POST "Expect: more\r\nContent-Length: 2\r\n\r\n", "417 close", NULL),
    CASE("expectation in HTTP/1.0", "POST / HTTP/1.0\r\nExpect: x\r\nContent-Length: 2\r\n\r\nhi",
         "200 close", NULL),
    /* Pipelines. */
    CASE("three at once", GET H "\r\n" POST "Content-Length: 2\r\n\r\nhi" GET H "\r\n",
         "200 200 200", "POST /  hi"),
    CASE("a bad one ends it", GET H "\r\n" GET "\r\n" GET H "\r\n", "200 400 close", NULL),
    CASE("HEAD has no body", "HEAD /p HTTP/1.1\r\n" H "\r\n" GET H "\r\n", "200 200",
         "content-length: 9\r\n\r\nHTTP/1.1 200 "),
    CASE("a refused HEAD has no body", "HEAD /p HTTP/1.1\r\n\r\n", "400 close", NULL),
};
/* clang-format on */
#undef H
#undef GET
#undef POST
#undef CHUNKED
#undef X16
#undef X256
#undef CASE

enum { HTTP_CASES = sizeof(http_cases) / sizeof(http_cases[0]) };

/* What came back, in the form of `want`. Both texts end with a zero. */
static inline void http_case_summary(const char *answer, bool closed, char *ret, size_t size)
{
    size_t len = 0;
    ret[0] = '\0';
    while ((answer = strstr(answer, "HTTP/1.1 ")) != NULL && len + 10 < size) {
        answer += strlen("HTTP/1.1 ");
        if (answer[0] >= '0' && answer[0] <= '9') {
            len += (size_t)snprintf(ret + len, size - len, "%s%.3s", len > 0 ? " " : "", answer);
        }
    }
    if (closed) {
        snprintf(ret + len, size - len, "%sclose", len > 0 ? " " : "");
    }
}

#endif
