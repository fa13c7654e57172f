/*
 * Listening, and the turns of the loop: wait for events, handle each, write what is due, free what
 * was closed, arm the timer. Due tokens of many streams are written in one turn; requests that come
 * meanwhile wait for the length of that, a few microseconds a token.
 *
 * What can go wrong: more connections than file descriptors. Accepting stops then until one is
 * closed, instead of failing again and again.
 */
#include "upstream_server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

enum { EVENTS_MAX = 512, BACKLOG = 4096, OWN_FDS = 32, CONNECTIONS_MAX = 100000 };
enum { ANSWER_MAX = 65 << 20 };

static int watch(struct upstream_server *server, int operation, int fd,
                 struct upstream_watch *watched)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = watched};
    return epoll_ctl(server->epoll, operation, fd, &event) == 0 ? 0 : -SL_EIO;
}

/* --- accepting --- */

static void set_accepting(struct upstream_server *server, bool accepting)
{
    if (server->accepting != accepting && watch(server, accepting ? EPOLL_CTL_ADD : EPOLL_CTL_DEL,
                                                server->listener, &server->accept_watch) == 0) {
        server->accepting = accepting;
    }
}

static void on_accept(struct upstream_watch *watched, uint32_t events)
{
    struct upstream_server *server = SL_ITEM(watched, struct upstream_server, accept_watch);
    (void)events;
    while (server->connections < server->connections_max) {
        int fd = accept4(server->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0 && (errno == EINTR || errno == ECONNABORTED)) {
            continue;
        }
        if (fd < 0 && errno == EAGAIN) {
            return;
        }
        if (fd < 0) {
            break; /* Out of descriptors or memory. */
        }
        if (upstream_conn_open(server, fd) != 0) {
            close(fd);
        }
    }
    set_accepting(server, false);
}

/* --- timers and signals --- */

/* The turn itself runs the timers: being awake is all that is needed. */
static void on_timer(struct upstream_watch *watched, uint32_t events)
{
    (void)watched;
    (void)events;
}

static void on_signal(struct upstream_watch *watched, uint32_t events)
{
    struct upstream_server *server = SL_ITEM(watched, struct upstream_server, signal_watch);
    (void)events;
    server->stopping = true;
}

int upstream_server_run(struct upstream_server *server)
{
    struct epoll_event events[EVENTS_MAX];
    while (!server->stopping) {
        upstream_timers_arm(&server->timers);
        int count = epoll_wait(server->epoll, events, EVENTS_MAX, -1);
        if (count < 0 && errno != EINTR) {
            return -SL_EIO;
        }
        for (int i = 0; i < count; i++) {
            struct upstream_watch *watched = events[i].data.ptr;
            watched->ready(watched, events[i].events);
        }
        upstream_timers_run(&server->timers);
        if (!sl_list_empty(&server->closed)) {
            upstream_conns_free_closed(server);
            set_accepting(server, true);
        }
    }
    return 0;
}

/* --- beginning and end --- */

/* "host:port", IPv4 or localhost. */
static int read_address(const char *text, struct sockaddr_in *address)
{
    char host[64];
    long long port = 0;
    const char *colon = strrchr(text, ':');
    if (colon == NULL || (size_t)(colon - text) >= sizeof(host) ||
        sl_span_to_int(sl_span_of(colon + 1), 0, 65535, &port) != 0) {
        return -SL_EINVAL;
    }
    snprintf(host, sizeof(host), "%.*s", (int)(colon - text), text);
    *address = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    const char *number = strcmp(host, "localhost") == 0 ? "127.0.0.1" : host;
    return inet_pton(AF_INET, number, &address->sin_addr) == 1 ? 0 : -SL_EINVAL;
}

static int open_listener(struct upstream_server *server, const char *text, char *why,
                         size_t why_size)
{
    struct sockaddr_in address;
    int on = 1;
    if (read_address(text, &address) != 0) {
        snprintf(why, why_size, "--listen takes HOST:PORT, as in 127.0.0.1:0, not %s", text);
        return -SL_EINVAL;
    }
    server->listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (server->listener < 0 ||
        setsockopt(server->listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) != 0 ||
        bind(server->listener, (struct sockaddr *)(void *)&address, sizeof(address)) != 0 ||
        listen(server->listener, BACKLOG) != 0) {
        snprintf(why, why_size, "cannot listen on %s: %s", text, strerror(errno));
        return -SL_EIO;
    }
    return 0;
}

/* As many descriptors as we may have; how many connections that allows. */
static size_t raise_limit(void)
{
    struct rlimit limit = {.rlim_cur = 1024, .rlim_max = 1024};
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        rlim_t before = limit.rlim_cur;
        limit.rlim_cur = limit.rlim_max;
        if (setrlimit(RLIMIT_NOFILE, &limit) != 0) {
            limit.rlim_cur = before;
        }
    }
    size_t count = limit.rlim_cur > OWN_FDS ? (size_t)limit.rlim_cur - OWN_FDS : 1;
    return count < CONNECTIONS_MAX ? count : CONNECTIONS_MAX;
}

static int watch_all(struct upstream_server *server)
{
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    server->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (server->epoll < 0 || sigprocmask(SIG_BLOCK, &signals, NULL) != 0) {
        return -SL_EIO;
    }
    server->signals = signalfd(-1, &signals, SFD_NONBLOCK | SFD_CLOEXEC);
    if (server->signals < 0 ||
        watch(server, EPOLL_CTL_ADD, server->signals, &server->signal_watch) != 0) {
        return -SL_EIO;
    }
    int rv = upstream_timers_init(&server->timers);
    if (rv != 0) {
        return rv;
    }
    set_accepting(server, true);
    return server->accepting ? watch(server, EPOLL_CTL_ADD, server->timers.fd, &server->timer_watch)
                             : -SL_EIO;
}

int upstream_server_init(struct upstream_server *server, const char *address,
                         const struct upstream_behaviour *behaviour, char *why, size_t why_size)
{
    server->accept_watch.ready = on_accept;
    server->timer_watch.ready = on_timer;
    server->signal_watch.ready = on_signal;
    server->epoll = server->listener = server->signals = server->timers.fd = -1;
    server->behaviour = *behaviour;
    server->connections_max = raise_limit();
    sl_list_init(&server->open);
    sl_list_init(&server->closed);
    sl_buf_init(&server->out, ANSWER_MAX);
    sl_buf_init(&server->body, ANSWER_MAX);
    int rv = open_listener(server, address, why, why_size);
    if (rv != 0) {
        return rv;
    }
    rv = watch_all(server);
    rv = rv != 0 ? rv : upstream_answers_create(behaviour, &server->answers);
    if (rv != 0) {
        snprintf(why, why_size, "cannot start: %s", sl_error_text(rv));
    }
    return rv;
}

int upstream_server_port(const struct upstream_server *server)
{
    struct sockaddr_in address = {.sin_port = 0};
    socklen_t size = sizeof(address);
    if (getsockname(server->listener, (struct sockaddr *)(void *)&address, &size) != 0) {
        return 0;
    }
    return ntohs(address.sin_port);
}

void upstream_server_fini(struct upstream_server *server)
{
    const int fds[] = {server->listener, server->signals, server->epoll};
    upstream_conns_close_all(server);
    upstream_answers_unref(server->answers);
    upstream_timers_fini(&server->timers);
    sl_buf_fini(&server->out);
    sl_buf_fini(&server->body);
    for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++) {
        if (fds[i] >= 0) {
            close(fds[i]);
        }
    }
}
