/* The scripted server: a thread that accepts, and one for each connection. Failures of the server
 * itself end the test program. */
#include "tests/support/http_script.h"

#include "tests/support/test.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

enum { CONNECTIONS_MAX = 2048, WAIT_S = 10 };

struct http_script {
    http_script_fn *serve;
    int fd;
    int port;
    pthread_t acceptor;
    pthread_mutex_t mutex;
    pthread_t threads[CONNECTIONS_MAX];
    int fds[CONNECTIONS_MAX]; /* -1: closed. */
    atomic_int accepted, requests, peer_closed, closed;
};

static void *run_connection(void *ctx)
{
    struct http_script_conn *conn = ctx;
    struct http_script *script = conn->script;
    script->serve(conn);
    pthread_mutex_lock(&script->mutex);
    script->fds[conn->number - 1] = -1;
    close(conn->fd);
    atomic_fetch_add(&script->closed, 1);
    pthread_mutex_unlock(&script->mutex);
    free(conn);
    return NULL;
}

static void start_connection(struct http_script *script, int fd)
{
    struct timeval wait = {.tv_sec = WAIT_S};
    int on = 1;
    struct http_script_conn *conn = calloc(1, sizeof(*conn));
    pthread_attr_t attr;
    CHECK(conn != NULL);
    CHECK(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait)) == 0);
    CHECK(setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof(wait)) == 0);
    CHECK(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) == 0);
    CHECK(pthread_attr_init(&attr) == 0);
    CHECK(pthread_attr_setstacksize(&attr, 256 * 1024) == 0);
    pthread_mutex_lock(&script->mutex);
    int number = atomic_load(&script->accepted) + 1;
    CHECK(number <= CONNECTIONS_MAX);
    conn->script = script;
    conn->fd = fd;
    conn->number = number;
    script->fds[number - 1] = fd;
    CHECK(pthread_create(&script->threads[number - 1], &attr, run_connection, conn) == 0);
    atomic_store(&script->accepted, number);
    pthread_mutex_unlock(&script->mutex);
    pthread_attr_destroy(&attr);
}

static void *run_acceptor(void *ctx)
{
    struct http_script *script = ctx;
    for (;;) {
        int fd = accept4(script->fd, NULL, NULL, SOCK_CLOEXEC);
        if (fd < 0) {
            return NULL; /* Shut down. */
        }
        start_connection(script, fd);
    }
}

struct http_script *http_script_start(http_script_fn *serve)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t len = sizeof(address);
    struct http_script *script = calloc(1, sizeof(*script));
    CHECK(script != NULL);
    script->serve = serve;
    script->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(script->fd >= 0);
    CHECK(bind(script->fd, (struct sockaddr *)&address, sizeof(address)) == 0);
    CHECK(listen(script->fd, 1024) == 0);
    CHECK(getsockname(script->fd, (struct sockaddr *)&address, &len) == 0);
    script->port = ntohs(address.sin_port);
    CHECK(pthread_mutex_init(&script->mutex, NULL) == 0);
    CHECK(pthread_create(&script->acceptor, NULL, run_acceptor, script) == 0);
    return script;
}

void http_script_stop(struct http_script *script)
{
    shutdown(script->fd, SHUT_RDWR);
    pthread_join(script->acceptor, NULL);
    close(script->fd);
    int count = atomic_load(&script->accepted);
    pthread_mutex_lock(&script->mutex);
    for (int i = 0; i < count; i++) {
        if (script->fds[i] >= 0) {
            shutdown(script->fds[i], SHUT_RDWR);
        }
    }
    pthread_mutex_unlock(&script->mutex);
    for (int i = 0; i < count; i++) {
        pthread_join(script->threads[i], NULL);
    }
    pthread_mutex_destroy(&script->mutex);
    free(script);
}

int http_script_port(const struct http_script *script)
{
    return script->port;
}

int http_script_accepted(const struct http_script *script)
{
    return atomic_load(&script->accepted);
}

int http_script_requests(const struct http_script *script)
{
    return atomic_load(&script->requests);
}

int http_script_closed(const struct http_script *script)
{
    return atomic_load(&script->closed);
}

int http_script_peer_closed(const struct http_script *script)
{
    return atomic_load(&script->peer_closed);
}

/* Reads more of the request; keeps what fits, counts all. */
static bool read_more(struct http_script_conn *conn, size_t *kept, size_t *total)
{
    char piece[16384];
    ssize_t got = recv(conn->fd, piece, sizeof(piece), 0);
    if (got <= 0) {
        return false;
    }
    size_t room = sizeof(conn->request) - 1 - *kept;
    size_t take = (size_t)got < room ? (size_t)got : room;
    memcpy(conn->request + *kept, piece, take);
    *kept += take;
    *total += (size_t)got;
    conn->request[*kept] = '\0';
    return true;
}

bool http_script_read(struct http_script_conn *conn)
{
    size_t kept = 0;
    size_t total = 0;
    const char *end;
    conn->request[0] = '\0';
    while ((end = strstr(conn->request, "\r\n\r\n")) == NULL) {
        if (!read_more(conn, &kept, &total)) {
            return false;
        }
    }
    size_t head = (size_t)(end + 4 - conn->request);
    const char *length = strcasestr(conn->request, "\r\nContent-Length:");
    conn->body_len = length != NULL && length < end ? strtoul(length + 17, NULL, 10) : 0;
    while (total < head + conn->body_len) {
        if (!read_more(conn, &kept, &total)) {
            return false;
        }
    }
    atomic_fetch_add(&conn->script->requests, 1);
    return true;
}

void http_script_send_bytes(struct http_script_conn *conn, const void *data, size_t len)
{
    const char *at = data;
    while (len > 0) {
        ssize_t sent = send(conn->fd, at, len, MSG_NOSIGNAL);
        if (sent <= 0) {
            return; /* The peer left: the test sees it on its side. */
        }
        at += sent;
        len -= (size_t)sent;
    }
}

void http_script_send(struct http_script_conn *conn, const char *text)
{
    http_script_send_bytes(conn, text, strlen(text));
}

void http_script_await_close(struct http_script_conn *conn)
{
    char piece[4096];
    ssize_t got;
    while ((got = recv(conn->fd, piece, sizeof(piece), 0)) > 0) {
    }
    if (got == 0 || errno == ECONNRESET) {
        atomic_fetch_add(&conn->script->peer_closed, 1);
    }
}

void http_script_reset(struct http_script_conn *conn)
{
    struct linger linger = {.l_onoff = 1};
    CHECK(setsockopt(conn->fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger)) == 0);
}
