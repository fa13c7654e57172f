/*
 * libcurl on the loop, for http_client.c alone: it moves the bytes of transfers and knows when curl
 * may be called; what a call means, its time-outs and its limits are http_client.c's.
 */
#ifndef SLUICE_COMMON_HTTP_CURL_H
#define SLUICE_COMMON_HTTP_CURL_H

#include "common/http_client.h"

struct sl_curl;
struct sl_curl_transfer;
struct sock;
struct curl_slist;

/* Of a transfer, in this order. All but on_end come from inside curl: they may call anything here
 * but sl_curl_destroy. What is not 0 ends the transfer with it. */
struct sl_curl_events {
    void (*on_connecting)(struct sl_curl_transfer *transfer); /* Perhaps more than once. */
    void (*on_connected)(struct sl_curl_transfer *transfer);
    int (*on_header)(struct sl_curl_transfer *transfer, struct sl_span line); /* Status line too. */
    int (*on_head)(struct sl_curl_transfer *transfer); /* The final head is whole. */
    /* -SL_EAGAIN: keeps these bytes and reads no more until sl_curl_resume. */
    int (*on_body)(struct sl_curl_transfer *transfer, struct sl_span bytes);
    /* Once, last: out of curl, and an unfinished connection is closed. sl_curl_close is due. */
    void (*on_end)(struct sl_curl_transfer *transfer, int err);
};

enum sl_curl_state { SL_CURL_OPEN, SL_CURL_STARTING, SL_CURL_RUNNING, SL_CURL_ENDING };

/* A member of its owner, zeroed before sl_curl_open. */
struct sl_curl_transfer {
    const struct sl_curl_events *events;
    struct sl_curl *curl;
    struct sl_list node; /* In the list of its state. */
    struct sl_list resume;
    enum sl_curl_state state;
    struct sock *sock; /* http_curl.c's: of its connection; NULL: there is none. */
    void *easy;
    struct curl_slist *headers;
    bool added;     /* To curl's multi handle. */
    bool head_done; /* The status is known. */
    bool stalled;   /* curl keeps bytes that on_body refused. */
    size_t head_len;
    int err;         /* Why it is ENDING. */
    char error[256]; /* curl's own words, or empty. */
};

int sl_curl_create(struct sl_loop *loop, const struct sl_http_client_config *config,
                   struct sl_curl **ret) SL_CHECKED;
void sl_curl_destroy(struct sl_curl *curl); /* No transfer may be open. Takes NULL. */

/* Sets all options; request->body is borrowed until sl_curl_close. -SL_ENOMEM, -SL_EINVAL (a
 * header); then it is closed already. */
int sl_curl_open(struct sl_curl *curl, struct sl_curl_transfer *transfer,
                 const struct sl_curl_events *events,
                 const struct sl_http_request *request) SL_CHECKED;
void sl_curl_start(struct sl_curl_transfer *transfer);
/* on_end comes inside, or soon when this is called inside an event of any transfer. */
void sl_curl_abort(struct sl_curl_transfer *transfer, int err);
void sl_curl_resume(struct sl_curl_transfer *transfer);
void sl_curl_relax(
    struct sl_curl_transfer *transfer); /* While its body comes; see sl_http_relax. */
void sl_curl_close(struct sl_curl_transfer *transfer);

struct sl_curl_info {
    int status;       /* 0 before head_done. */
    const char *type; /* Content-Type or NULL; borrowed until sl_curl_close. */
    long long length; /* Content-Length, or -1. */
    bool sent;        /* Bytes of the request were written to a connection. */
};
struct sl_curl_info sl_curl_info(const struct sl_curl_transfer *transfer);

#endif
