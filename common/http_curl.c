/*
 * libcurl's multi interface, driven through its socket-action API. curl says which descriptors to
 * watch (on_curl_socket) and when to be called again (on_curl_timer); the loop tells it what became
 * ready (on_socket_ready, on_timer).
 *
 * The story of a transfer: sl_curl_start lists it as STARTING; the task of this turn gives it to
 * curl, and it is RUNNING; curl calls on_curl_header for each line of a head and on_curl_body for
 * each piece of the body, and leaves a message when it is through; settle() reads the messages, and
 * finish() takes the handle out of curl and calls on_end.
 *
 * curl must not be called from inside its own callbacks (7.88 answers CURLM_RECURSIVE_API_CALL),
 * yet owners may do anything in theirs. So while in_curl is set a transfer that fails or is aborted
 * is only doomed: it is ENDING, its callbacks answer curl with an error from then on, and settle()
 * finishes it as soon as curl has returned, in the same turn. Starting and resuming are always left
 * to the task. Refused bytes are CURL_WRITEFUNC_PAUSE for curl, which keeps that one piece (at most
 * 16 KiB) and stops reading.
 *
 * Removing an unfinished handle closes its connection (with HTTP/2: resets its stream); that is how
 * cancelling and time-outs reach the upstream. Finished connections stay open for the next call;
 * one that the peer closed meanwhile is noticed when curl next looks for a connection.
 *
 * What can go wrong. An idle connection may die just as a request is written to it: curl would then
 * send the request again on another connection, whatever its method, as long as not one byte of a
 * response came. The peer may be at work on the first already, so the transfer ends instead with
 * -SL_ECONN (on_curl_connected), and whoever counts retries decides. A resolver that hangs cannot
 * be stopped: CURLOPT_QUICK_EXIT leaves its thread behind rather than wait for it in the loop.
 * Memory may run out: in a callback that belongs to a transfer, that one ends with -SL_ENOMEM
 * (answering curl -1 would end all); when curl itself runs out of it, see start_over. curl's errors
 * become ours in map_result and nowhere else.
 *
 * Each transfer has an easy handle of its own: making one costs 2 us, and a reused one may carry
 * over a password, or be left half reset when memory runs out, which curl_easy_reset cannot tell.
 *
 * A long file, because no other may include curl's header.
 */
#include "common/http_curl.h"

#include "common/http_text.h"
#include "common/relaxed.h"

#include <assert.h>
#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    KEEP_CONNECTIONS = 4096, /* Kept open when there is no limit: more than are ever in use. */
    HEAD_MAX = 256 * 1024,   /* Bytes of all heads of one response. */
};

struct sl_curl {
    struct sl_loop *loop;
    CURLM *multi;
    struct sl_http_client_config config; /* Without ca_file. */
    char *ca_file;
    bool queues;  /* Transfers may wait inside curl for a connection. */
    bool in_curl; /* curl is on the stack: only curl_easy_getinfo may be called. */
    bool due;     /* curl wants to be called without delay. */
    struct sl_timer timer;
    struct sl_task task;
    struct sl_list starting, running, ending;
    struct sl_list resuming;
    struct sl_list sockets;
    struct sl_relaxed *relaxed;
};

struct sock {
    struct sl_list node;
    struct sl_curl *curl;
    struct sl_poll *poll;
    curl_socket_t fd;
    int events;                        /* Those that curl waits for. */
    struct sl_curl_transfer *transfer; /* The last that curl named; NULL: it is through. */
    bool relaxed;                      /* That may be read late. */
    struct sl_relaxed_entry entry;
};

static void on_task(struct sl_task *task);
static void on_timer(struct sl_timer *timer);

/* --- the end of a transfer --- */

static void set_state(struct sl_curl_transfer *transfer, enum sl_curl_state state,
                      struct sl_list *list)
{
    sl_list_remove(&transfer->node);
    sl_list_push(list, &transfer->node);
    transfer->state = state;
}

/* The connection may serve another one next. */
static void leave_sock(struct sl_curl_transfer *transfer)
{
    if (transfer->sock != NULL) {
        transfer->sock->transfer = NULL;
        transfer->sock->relaxed = false;
        transfer->sock = NULL;
    }
}

static void finish(struct sl_curl_transfer *transfer, int err)
{
    struct sl_curl *curl = transfer->curl;
    assert(!curl->in_curl);
    sl_list_remove(&transfer->node);
    sl_list_remove(&transfer->resume);
    leave_sock(transfer);
    if (transfer->added) {
        curl->in_curl = true;
        CURLMcode rv = curl_multi_remove_handle(curl->multi, transfer->easy);
        curl->in_curl = false;
        assert(rv == CURLM_OK);
        (void)rv;
        if (!sl_list_empty(&curl->ending)) {
            sl_task_defer(curl->loop, &curl->task, on_task);
        }
    }
    transfer->events->on_end(transfer, err);
}

/* Inside curl: ends it as soon as curl has returned. The first error counts. */
static void doom(struct sl_curl_transfer *transfer, int err)
{
    assert(err != 0 && transfer->curl->in_curl);
    if (transfer->state != SL_CURL_ENDING) {
        transfer->err = err;
        set_state(transfer, SL_CURL_ENDING, &transfer->curl->ending);
    }
}

void sl_curl_abort(struct sl_curl_transfer *transfer, int err)
{
    if (transfer->curl->in_curl) {
        doom(transfer, err);
    } else {
        finish(transfer, err);
    }
}

static int map_result(CURLcode result, bool head_done)
{
    switch (result) {
    case CURLE_OK: /* Also when the peer closed inside the head. */
        return head_done ? 0 : -SL_ECONN;
    case CURLE_OUT_OF_MEMORY:
        return -SL_ENOMEM;
    case CURLE_URL_MALFORMAT:
        return -SL_EINVAL;
    case CURLE_OPERATION_TIMEDOUT:
        return -SL_ETIMEDOUT;
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_CONNECT:
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
        return -SL_ECONN;
    case CURLE_SEND_ERROR:
    case CURLE_RECV_ERROR:
    case CURLE_GOT_NOTHING:
    case CURLE_PARTIAL_FILE:
    case CURLE_HTTP2:
    case CURLE_HTTP2_STREAM:
        return head_done ? -SL_ECUT : -SL_ECONN;
    default:
        return -SL_EPROTO;
    }
}

/* --- what curl tells about one transfer --- */

static int on_curl_resolve(void *resolver, void *reserved, void *ctx)
{
    struct sl_curl_transfer *transfer = ctx;
    (void)resolver;
    (void)reserved;
    transfer->events->on_connecting(transfer);
    return 0;
}

static int on_curl_socket_open(void *ctx, curl_socket_t fd, curlsocktype purpose)
{
    struct sl_curl_transfer *transfer = ctx;
    (void)fd;
    (void)purpose;
    transfer->events->on_connecting(transfer);
    return CURL_SOCKOPT_OK;
}

static int on_curl_connected(void *ctx, char *peer_ip, char *own_ip, int peer_port, int own_port)
{
    struct sl_curl_transfer *transfer = ctx;
    (void)peer_ip;
    (void)own_ip;
    (void)peer_port;
    (void)own_port;
    if (sl_curl_info(transfer).sent) { /* curl is about to send it a second time. */
        doom(transfer, -SL_ECONN);
        return CURL_PREREQFUNC_ABORT;
    }
    transfer->events->on_connected(transfer);
    return CURL_PREREQFUNC_OK;
}

static int take_header(struct sl_curl_transfer *transfer, struct sl_span line)
{
    long status = 0;
    transfer->head_len += line.len;
    if (transfer->head_len > HEAD_MAX) {
        return -SL_EPROTO;
    }
    if (transfer->head_done) {
        return 0; /* A trailer. */
    }
    if (!sl_span_is(line, "\r\n") && !sl_span_is(line, "\n")) {
        return transfer->events->on_header(transfer, line);
    }
    if (curl_easy_getinfo(transfer->easy, CURLINFO_RESPONSE_CODE, &status) != CURLE_OK ||
        status < 200) {
        return 0; /* An interim head; the final one is to come. */
    }
    transfer->head_done = true;
    return transfer->events->on_head(transfer);
}

static size_t on_curl_header(char *data, size_t size, size_t count, void *ctx)
{
    struct sl_curl_transfer *transfer = ctx;
    int err = 0;
    if (transfer->state == SL_CURL_RUNNING) {
        err = take_header(transfer, (struct sl_span){data, size * count});
    }
    if (err != 0) {
        doom(transfer, err);
    }
    return transfer->state == SL_CURL_RUNNING ? size * count : 0;
}

static size_t on_curl_body(char *data, size_t size, size_t count, void *ctx)
{
    struct sl_curl_transfer *transfer = ctx;
    int err = 0;
    if (transfer->state == SL_CURL_RUNNING) {
        err = transfer->events->on_body(transfer, (struct sl_span){data, size * count});
    }
    if (err == -SL_EAGAIN && transfer->state == SL_CURL_RUNNING) {
        transfer->stalled = true;
        return CURL_WRITEFUNC_PAUSE;
    }
    if (err != 0) {
        doom(transfer, err);
    }
    return transfer->state == SL_CURL_RUNNING ? size * count : CURL_WRITEFUNC_ERROR;
}

/* --- driving curl --- */

/* Finishes what is doomed and what curl says is done. */
static void settle(struct sl_curl *curl)
{
    for (;;) {
        struct sl_list *node;
        int left;
        while ((node = sl_list_first(&curl->ending)) != NULL) {
            struct sl_curl_transfer *transfer = SL_ITEM(node, struct sl_curl_transfer, node);
            finish(transfer, transfer->err);
        }
        CURLMsg *msg = curl_multi_info_read(curl->multi, &left);
        if (msg == NULL) {
            return;
        }
        CURLcode result = msg->data.result;
        struct sl_curl_transfer *transfer = NULL;
        if (curl_easy_getinfo(msg->easy_handle, CURLINFO_PRIVATE, &transfer) == CURLE_OK) {
            assert(transfer != NULL);
            finish(transfer, map_result(result, transfer->head_done));
        }
    }
}

/* --- the multi handle --- */

static int on_curl_socket(CURL *easy, curl_socket_t fd, int what, void *ctx, void *socket_ctx);
static int on_curl_timer(CURLM *multi, long delay_ms, void *ctx);
static void drive(struct sl_curl *curl, curl_socket_t fd, int ready);

static CURLM *make_multi(struct sl_curl *curl)
{
    const struct sl_http_client_config *config = &curl->config;
    size_t keep = config->max_connections > 0 ? config->max_connections : KEEP_CONNECTIONS;
    long pipelining = config->http2 ? CURLPIPE_MULTIPLEX : CURLPIPE_NOTHING;
    CURLM *multi = curl_multi_init();
    bool ok = multi != NULL;
#define SET(option, value) (ok = ok && curl_multi_setopt(multi, option, value) == CURLM_OK)
    SET(CURLMOPT_SOCKETFUNCTION, on_curl_socket);
    SET(CURLMOPT_SOCKETDATA, curl);
    SET(CURLMOPT_TIMERFUNCTION, on_curl_timer);
    SET(CURLMOPT_TIMERDATA, curl);
    SET(CURLMOPT_PIPELINING, pipelining);
    SET(CURLMOPT_MAXCONNECTS, (long)keep);
    SET(CURLMOPT_MAX_TOTAL_CONNECTIONS, (long)config->max_connections);
    SET(CURLMOPT_MAX_HOST_CONNECTIONS, (long)config->max_connections_per_host);
#undef SET
    if (!ok) {
        curl_multi_cleanup(multi);
        return NULL;
    }
    return multi;
}

static void on_relaxed_ready(struct sl_relaxed_entry *entry)
{
    const struct sock *sock = SL_ITEM(entry, struct sock, entry);
    drive(sock->curl, sock->fd, CURL_CSELECT_IN);
}

/* Has the socket looked at now and then, if it is only read, or watched. */
static int sock_watch(struct sock *sock)
{
    struct sl_relaxed *relaxed = sock->curl->relaxed;
    bool late = sock->relaxed && sock->events == SL_READABLE;
    if (late && sock->entry.added) {
        return 0;
    }
    sl_relaxed_remove(relaxed, &sock->entry);
    if (late && sl_relaxed_add(relaxed, &sock->entry) == 0) {
        return sl_poll_set(sock->poll, 0);
    }
    return sl_poll_set(sock->poll, sock->events);
}

static void sock_destroy(struct sock *sock)
{
    if (sock != NULL) {
        if (sock->transfer != NULL) {
            leave_sock(sock->transfer);
        }
        sl_relaxed_remove(sock->curl->relaxed, &sock->entry);
        sl_list_remove(&sock->node);
        sl_poll_destroy(sock->poll);
        free(sock);
    }
}

/* With all its connections; no transfer may be in it. */
static void drop_multi(struct sl_curl *curl)
{
    struct sl_list *node;
    curl_multi_cleanup(curl->multi); /* Calls on_curl_socket and on_curl_timer. */
    while ((node = sl_list_first(&curl->sockets)) != NULL) {
        sock_destroy(SL_ITEM(node, struct sock, node));
    }
    sl_timer_stop(curl->loop, &curl->timer);
    curl->due = false;
    curl->multi = NULL;
}

/* curl ran out of memory and does not say for which transfer: all that run end. The handle is not
 * used on, since 7.88 divides by zero when it next meets the same descriptor. */
static void start_over(struct sl_curl *curl)
{
    struct sl_list *node;
    curl->in_curl = true;
    while ((node = sl_list_first(&curl->running)) != NULL) {
        doom(SL_ITEM(node, struct sl_curl_transfer, node), -SL_ENOMEM);
    }
    curl->in_curl = false;
    settle(curl);
    CURLM *multi = make_multi(curl);
    if (multi != NULL) {
        drop_multi(curl);
        curl->multi = multi;
    }
}

static void drive(struct sl_curl *curl, curl_socket_t fd, int ready)
{
    int running;
    curl->in_curl = true;
    CURLMcode rv = curl_multi_socket_action(curl->multi, fd, ready, &running);
    curl->in_curl = false;
    if (rv == CURLM_OK) {
        settle(curl);
    } else {
        start_over(curl);
    }
}

static void on_timer(struct sl_timer *timer)
{
    drive(SL_ITEM(timer, struct sl_curl, timer), CURL_SOCKET_TIMEOUT, 0);
}

static int on_curl_timer(CURLM *multi, long delay_ms, void *ctx)
{
    struct sl_curl *curl = ctx;
    (void)multi;
    curl->due = delay_ms == 0;
    if (delay_ms > 0) {
        sl_timer_start(curl->loop, &curl->timer, (uint64_t)delay_ms, on_timer);
        return 0;
    }
    sl_timer_stop(curl->loop, &curl->timer);
    if (curl->due) {
        sl_task_defer(curl->loop, &curl->task, on_task); /* A timer would wait a millisecond. */
    }
    return 0;
}

static void on_socket_ready(void *ctx, int events)
{
    const struct sock *sock = ctx;
    int ready = ((events & SL_READABLE) != 0 ? CURL_CSELECT_IN : 0) |
                ((events & SL_WRITABLE) != 0 ? CURL_CSELECT_OUT : 0);
    drive(sock->curl, sock->fd, ready);
}

static int sock_create(struct sl_curl *curl, curl_socket_t fd, struct sock **ret)
{
    struct sock *sock = calloc(1, sizeof(*sock));
    if (sock == NULL) {
        return -SL_ENOMEM;
    }
    sock->curl = curl;
    sock->fd = fd;
    sock->entry = (struct sl_relaxed_entry){.fd = fd, .on_ready = on_relaxed_ready};
    sl_list_push(&curl->sockets, &sock->node);
    int rv = sl_poll_create(curl->loop, fd, on_socket_ready, sock, &sock->poll);
    if (rv == 0 && curl_multi_assign(curl->multi, fd, sock) != CURLM_OK) {
        rv = -SL_ENOMEM;
    }
    if (rv != 0) {
        sock_destroy(sock);
        return rv;
    }
    *ret = sock;
    return 0;
}

static void take_sock(struct sock *sock, struct sl_curl_transfer *transfer)
{
    if (sock->transfer != transfer && sock->transfer != NULL) {
        leave_sock(sock->transfer);
    }
    sock->transfer = transfer;
    if (transfer != NULL) {
        if (transfer->sock != NULL && transfer->sock != sock) { /* Of another address. */
            leave_sock(transfer);
        }
        transfer->sock = sock;
    }
}

static int on_curl_socket(CURL *easy, curl_socket_t fd, int what, void *ctx, void *socket_ctx)
{
    struct sock *sock = socket_ctx;
    struct sl_curl_transfer *transfer = NULL;
    if (curl_easy_getinfo(easy, CURLINFO_PRIVATE, &transfer) != CURLE_OK) {
        transfer = NULL; /* As of a handle of curl's own. */
    }
    if (what == CURL_POLL_REMOVE) {
        sock_destroy(sock);
        return 0;
    }
    int events = ((what & CURL_POLL_IN) != 0 ? SL_READABLE : 0) |
                 ((what & CURL_POLL_OUT) != 0 ? SL_WRITABLE : 0);
    int rv = sock == NULL ? sock_create(ctx, fd, &sock) : 0;
    if (rv == 0) {
        take_sock(sock, transfer);
        sock->events = events;
        rv = sock_watch(sock);
    }
    if (rv != 0 && transfer != NULL) {
        doom(transfer, rv == -SL_ENOMEM ? rv : -SL_ECONN);
    }
    return 0;
}

static void add_started(struct sl_curl *curl)
{
    struct sl_list *node;
    curl->in_curl = true;
    while ((node = sl_list_first(&curl->starting)) != NULL) {
        struct sl_curl_transfer *transfer = SL_ITEM(node, struct sl_curl_transfer, node);
        set_state(transfer, SL_CURL_RUNNING, &curl->running);
        transfer->added = curl_multi_add_handle(curl->multi, transfer->easy) == CURLM_OK;
        if (!transfer->added) {
            doom(transfer, -SL_ENOMEM);
        }
    }
    curl->in_curl = false;
}

static void resume_stalled(struct sl_curl *curl)
{
    struct sl_list *node;
    curl->in_curl = true;
    while ((node = sl_list_first(&curl->resuming)) != NULL) {
        struct sl_curl_transfer *transfer = SL_ITEM(node, struct sl_curl_transfer, resume);
        sl_list_remove(node);
        transfer->stalled = false;
        if (transfer->state == SL_CURL_RUNNING) {
            CURLcode rv = curl_easy_pause(transfer->easy, CURLPAUSE_CONT); /* on_curl_body, too. */
            if (rv != CURLE_OK) {
                doom(transfer, rv == CURLE_OUT_OF_MEMORY ? -SL_ENOMEM : -SL_EPROTO);
            }
        }
    }
    curl->in_curl = false;
}

static void on_task(struct sl_task *task)
{
    struct sl_curl *curl = SL_ITEM(task, struct sl_curl, task);
    add_started(curl);
    resume_stalled(curl);
    if (curl->due) {
        curl->due = false;
        drive(curl, CURL_SOCKET_TIMEOUT, 0);
    } else {
        settle(curl);
    }
}

/* --- opening and starting --- */

#define SET(option, value) (ok = curl_easy_setopt(easy, option, value) == CURLE_OK && ok)

static int set_callbacks(struct sl_curl_transfer *transfer)
{
    CURL *easy = transfer->easy;
    bool ok = true;
    _Static_assert(sizeof(transfer->error) >= CURL_ERROR_SIZE, "room for curl's words");
    SET(CURLOPT_PRIVATE, transfer);
    SET(CURLOPT_ERRORBUFFER, transfer->error);
    SET(CURLOPT_RESOLVER_START_FUNCTION, on_curl_resolve);
    SET(CURLOPT_RESOLVER_START_DATA, transfer);
    SET(CURLOPT_SOCKOPTFUNCTION, on_curl_socket_open);
    SET(CURLOPT_SOCKOPTDATA, transfer);
    SET(CURLOPT_PREREQFUNCTION, on_curl_connected);
    SET(CURLOPT_PREREQDATA, transfer);
    SET(CURLOPT_HEADERFUNCTION, on_curl_header);
    SET(CURLOPT_HEADERDATA, transfer);
    SET(CURLOPT_WRITEFUNCTION, on_curl_body);
    SET(CURLOPT_WRITEDATA, transfer);
    return ok ? 0 : -SL_ENOMEM;
}

static int set_options(struct sl_curl_transfer *transfer, const struct sl_http_request *request)
{
    const struct sl_curl *curl = transfer->curl;
    CURL *easy = transfer->easy;
    /* The caller's time-out ends the call first; this makes curl try a second address in time. But
     * from 8.x on it also counts the wait for a free connection, so not where there is one. */
    long connect_ms = request->connect_timeout_ms > 0 && !curl->queues
                          ? (long)request->connect_timeout_ms * 3 / 2
                          : 24L * 3600 * 1000;
    long version = curl->config.http2 ? CURL_HTTP_VERSION_2TLS : CURL_HTTP_VERSION_1_1;
    bool ok = true;
    SET(CURLOPT_URL, request->url);
    SET(CURLOPT_PROTOCOLS_STR, "http,https");
    SET(CURLOPT_HTTP_VERSION, version);
    SET(CURLOPT_PIPEWAIT, curl->config.http2 ? 1L : 0L);
    SET(CURLOPT_PROXY, "");
    SET(CURLOPT_NOSIGNAL, 1L);
    SET(CURLOPT_TCP_NODELAY, 1L);
    SET(CURLOPT_QUICK_EXIT, 1L);
    SET(CURLOPT_CONNECTTIMEOUT_MS, connect_ms + 1);
    SET(CURLOPT_USERAGENT, "sluice/" SLUICE_VERSION);
    SET(CURLOPT_HTTPHEADER, transfer->headers);
    if (curl->ca_file != NULL) {
        SET(CURLOPT_CAINFO, curl->ca_file);
    }
    if (strcmp(request->method, "HEAD") == 0) {
        SET(CURLOPT_NOBODY, 1L);
    } else if (request->body.len > 0 || strcmp(request->method, "POST") == 0) {
        SET(CURLOPT_POST, 1L);
        SET(CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)request->body.len);
        SET(CURLOPT_POSTFIELDS, request->body.len > 0 ? request->body.data : "");
    }
    SET(CURLOPT_CUSTOMREQUEST, request->method);
    return ok ? 0 : -SL_ENOMEM;
}
#undef SET

static int add_line(struct sl_curl_transfer *transfer, const char *line)
{
    struct curl_slist *list = curl_slist_append(transfer->headers, line);
    if (list == NULL) {
        return -SL_ENOMEM;
    }
    transfer->headers = list;
    return 0;
}

static int add_header(struct sl_curl_transfer *transfer, const struct sl_http_header *header)
{
    char *line = NULL;
    if (!sl_http_is_token(header->name) || !sl_http_is_value(header->value)) {
        return -SL_EINVAL;
    }
    /* An empty value is curl's special case. */
    const char *format = header->value.len > 0 ? "%.*s: %.*s" : "%.*s;";
    int len = asprintf(&line, format, SL_SPAN_ARG(header->name), SL_SPAN_ARG(header->value));
    if (len < 0) {
        return -SL_ENOMEM;
    }
    int rv = add_line(transfer, line);
    free(line);
    return rv;
}

static int add_headers(struct sl_curl_transfer *transfer, const struct sl_http_request *request)
{
    bool typed = false;
    int rv = add_line(transfer, "Expect:"); /* No 100-continue: it costs a round trip. */
    for (size_t i = 0; rv == 0 && i < request->header_count; i++) {
        rv = add_header(transfer, &request->headers[i]);
        typed = typed || sl_span_equal_nocase(request->headers[i].name, SL_SPAN("content-type"));
    }
    if (rv == 0 && !typed) {
        rv = add_line(transfer, "Content-Type:"); /* Not the one that curl assumes. */
    }
    return rv;
}

int sl_curl_open(struct sl_curl *curl, struct sl_curl_transfer *transfer,
                 const struct sl_curl_events *events, const struct sl_http_request *request)
{
    transfer->curl = curl;
    transfer->events = events;
    sl_list_init(&transfer->node);
    sl_list_init(&transfer->resume);
    transfer->easy = curl_easy_init();
    int rv = transfer->easy != NULL ? add_headers(transfer, request) : -SL_ENOMEM;
    if (rv == 0) {
        rv = set_callbacks(transfer);
    }
    if (rv == 0) {
        rv = set_options(transfer, request);
    }
    if (rv != 0) {
        sl_curl_close(transfer);
    }
    return rv;
}

void sl_curl_start(struct sl_curl_transfer *transfer)
{
    struct sl_curl *curl = transfer->curl;
    set_state(transfer, SL_CURL_STARTING, &curl->starting);
    sl_task_defer(curl->loop, &curl->task, on_task);
}

void sl_curl_resume(struct sl_curl_transfer *transfer)
{
    struct sl_curl *curl = transfer->curl;
    if (transfer->stalled) {
        sl_list_remove(&transfer->resume);
        sl_list_push(&curl->resuming, &transfer->resume);
        sl_task_defer(curl->loop, &curl->task, on_task);
    }
}

void sl_curl_relax(struct sl_curl_transfer *transfer)
{
    /* Of a connection with HTTP/2 other transfers may wait, too. */
    if (transfer->sock != NULL && !transfer->curl->config.http2) {
        transfer->sock->relaxed = true;
        (void)sock_watch(transfer->sock);
    }
}

void sl_curl_close(struct sl_curl_transfer *transfer)
{
    curl_easy_cleanup(transfer->easy);
    curl_slist_free_all(transfer->headers);
    transfer->easy = NULL;
    transfer->headers = NULL;
}

struct sl_curl_info sl_curl_info(const struct sl_curl_transfer *transfer)
{
    CURL *easy = transfer->easy;
    long status = 0;
    long sent = 0;
    char *type = NULL;
    curl_off_t length = -1;
    bool known = curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status) == CURLE_OK &&
                 curl_easy_getinfo(easy, CURLINFO_REQUEST_SIZE, &sent) == CURLE_OK &&
                 curl_easy_getinfo(easy, CURLINFO_CONTENT_TYPE, &type) == CURLE_OK &&
                 curl_easy_getinfo(easy, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &length) == CURLE_OK;
    assert(known);
    (void)known;
    return (struct sl_curl_info){
        .status = transfer->head_done ? (int)status : 0,
        .type = transfer->head_done ? type : NULL,
        .length = transfer->head_done ? length : -1,
        .sent = sent > 0,
    };
}

/* --- the client's part --- */

int sl_curl_create(struct sl_loop *loop, const struct sl_http_client_config *config,
                   struct sl_curl **ret)
{
    struct sl_curl *curl = calloc(1, sizeof(*curl));
    if (curl == NULL) {
        return -SL_ENOMEM;
    }
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
        free(curl);
        return -SL_ENOMEM;
    }
    curl->loop = loop;
    curl->config = *config;
    curl->config.ca_file = NULL;
    curl->queues =
        config->http2 || config->max_connections > 0 || config->max_connections_per_host > 0;
    sl_list_init(&curl->starting);
    sl_list_init(&curl->running);
    sl_list_init(&curl->ending);
    sl_list_init(&curl->resuming);
    sl_list_init(&curl->sockets);
    curl->ca_file = config->ca_file != NULL ? strdup(config->ca_file) : NULL;
    curl->multi = make_multi(curl);
    int rv = sl_relaxed_create(loop, &curl->relaxed);
    if (rv != 0 || curl->multi == NULL || (config->ca_file != NULL && curl->ca_file == NULL)) {
        sl_curl_destroy(curl);
        return -SL_ENOMEM;
    }
    *ret = curl;
    return 0;
}

void sl_curl_destroy(struct sl_curl *curl)
{
    struct sl_list *node;
    if (curl == NULL) {
        return;
    }
    assert(!curl->in_curl && sl_list_empty(&curl->starting) && sl_list_empty(&curl->running));
    while ((node = sl_list_first(&curl->ending)) != NULL) { /* Aborted in this very turn. */
        struct sl_curl_transfer *transfer = SL_ITEM(node, struct sl_curl_transfer, node);
        finish(transfer, transfer->err);
    }
    drop_multi(curl);
    sl_relaxed_destroy(curl->relaxed);
    sl_task_cancel(&curl->task);
    free(curl->ca_file);
    free(curl);
    curl_global_cleanup();
}
