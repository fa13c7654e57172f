/*
 * One turn: sleep until something comes or is due; read the clock; take what came; fail what is
 * overdue; start what is due; open connections ahead. All that one turn reads has the same time,
 * which is that of its wake-up.
 *
 * A connection is in one list by its state: free (closed), connecting without a call, idle, or in
 * none while it has a call. A call takes an idle one, the latest used first; if there is none it
 * opens its own and is sent when that is connected, all in the time of the call.
 *
 * What can go wrong, per call: the failures of measure_run.h. A kept connection may be closed by
 * the server just when the next request goes out: if no byte of an answer came, the request is sent
 * once more on a new one, as every HTTP client does. When connecting ahead fails, it pauses, and
 * calls will find the reason. A time-out closes the connection.
 */
#include "tests/bench/load_client.h"

#include "tests/bench/load_conn.h"
#include "tests/bench/measure_clock.h"

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

enum {
    SPARE = 64,       /* Connections that wait or are opened ahead in the open loop. */
    OPEN_AT_ONCE = 8, /* Ahead, in one turn. */
    OTHER_FDS = 32,
    EVENTS = 128,
    READ_BYTES = 65536,
};

static const uint64_t CONNECT_NS = 10 * MEASURE_S_NS, PAUSE_NS = 100 * MEASURE_MS_NS;

struct load_client {
    struct load_request *request;
    const struct measure_options *options;
    struct measure_run *run; /* NULL before the run. */
    struct load_conn *conns;
    size_t len; /* Of conns. */
    struct sl_list free, connecting, idle;
    size_t spare; /* In connecting and idle. */
    int epoll_fd, signal_fd;
    bool stopped;
    uint64_t number;
    uint64_t now_ns;
    uint64_t ahead_after_ns; /* Not 0: connecting ahead failed, and pauses until then. */
    char bytes[READ_BYTES];
};

/* --- the pool --- */

static void put(struct load_client *client, struct sl_list *list, struct load_conn *conn)
{
    sl_list_push(list, &conn->link);
    client->spare += list == &client->free ? 0 : 1;
}

/* The latest, whose memory is still at hand. NULL when the list is empty. */
static struct load_conn *take(struct load_client *client, struct sl_list *list)
{
    if (sl_list_empty(list)) {
        return NULL;
    }
    struct load_conn *conn = SL_ITEM(list->prev, struct load_conn, link);
    sl_list_remove(&conn->link);
    client->spare -= list == &client->free ? 0 : 1;
    return conn;
}

/* A connection that has no call goes: closed by the server, or it never came to be. */
static void drop_spare(struct load_client *client, struct load_conn *conn)
{
    assert(!conn->has_call);
    sl_list_remove(&conn->link);
    client->spare--;
    load_conn_close(conn);
    put(client, &client->free, conn);
}

static bool open_ahead(struct load_client *client)
{
    struct load_conn *conn = take(client, &client->free);
    if (conn == NULL) {
        return false;
    }
    if (load_conn_open(conn, client->request, client->epoll_fd) != 0) {
        put(client, &client->free, conn);
        return false;
    }
    put(client, &client->connecting, conn);
    return true;
}

/* How many should be open or on the way, beside those that have calls. */
static size_t wanted_ahead(const struct load_client *client)
{
    size_t busy = client->run != NULL ? client->run->open_len : 0;
    size_t streams = (size_t)client->options->streams;
    if (streams > 0) {
        return streams > busy ? streams - busy : 0;
    }
    return SPARE;
}

static void replenish(struct load_client *client)
{
    if (client->now_ns < client->ahead_after_ns) {
        return;
    }
    size_t wanted = wanted_ahead(client);
    for (int i = 0; i < OPEN_AT_ONCE && client->spare < wanted; i++) {
        if (!open_ahead(client)) {
            client->ahead_after_ns = client->now_ns + PAUSE_NS;
            return;
        }
    }
}

/* --- calls --- */

static void release(struct load_client *client, struct load_conn *conn, bool keep)
{
    conn->has_call = false;
    if (keep && conn->state == LOAD_CONN_READY) {
        put(client, &client->idle, conn);
        return;
    }
    load_conn_close(conn);
    put(client, &client->free, conn);
}

static void fail(struct load_client *client, struct load_conn *conn, enum measure_failure failure,
                 bool keep)
{
    measure_run_fail(client->run, &conn->call, failure, client->now_ns);
    release(client, conn, keep);
}

static void end(struct load_client *client, struct load_conn *conn, bool keep)
{
    int status = conn->http.status;
    if (status != 200) {
        fail(client, conn, status == 503 ? MEASURE_STATUS_503 : MEASURE_STATUS_OTHER, keep);
    } else if (conn->sse.ending == LOAD_ERROR) {
        fail(client, conn, MEASURE_ERROR_EVENT, keep);
    } else if (!conn->sse.complete) {
        fail(client, conn, MEASURE_SHORT, keep);
    } else {
        measure_run_end(client->run, &conn->call, client->now_ns);
        release(client, conn, keep);
    }
}

static void connect_for_call(struct load_client *client, struct load_conn *conn)
{
    if (load_conn_open(conn, client->request, client->epoll_fd) != 0) {
        fail(client, conn, MEASURE_CONNECT, false);
    }
}

/* The connection broke under a call. */
static void on_broken(struct load_client *client, struct load_conn *conn)
{
    bool again = conn->reused && !conn->answered;
    bool never = conn->state == LOAD_CONN_CONNECTING;
    load_conn_close(conn);
    if (again) {
        load_conn_begin(conn, conn->number);
        connect_for_call(client, conn);
    } else {
        fail(client, conn, never ? MEASURE_CONNECT : MEASURE_RESET, false);
    }
}

static void start_call(struct load_client *client, struct load_conn *conn)
{
    load_conn_begin(conn, client->number++);
    if (conn->state == LOAD_CONN_CLOSED) {
        connect_for_call(client, conn);
    } else if (load_conn_send(conn, client->request) != 0) {
        on_broken(client, conn);
    }
}

static void start_due(struct load_client *client)
{
    while (measure_schedule_next(&client->run->schedule) <= client->now_ns) {
        struct load_conn *conn = take(client, &client->idle);
        conn = conn != NULL ? conn : take(client, &client->free);
        assert(conn != NULL); /* There is one more than may be open and connecting. */
        if (measure_run_start(client->run, &conn->call, client->now_ns)) {
            start_call(client, conn);
        } else {
            release(client, conn, true);
        }
        client->now_ns = measure_now_ns();
    }
}

static void fail_overdue(struct load_client *client)
{
    struct measure_call *call;
    while ((call = measure_run_overdue(client->run, client->now_ns)) != NULL) {
        fail(client, SL_ITEM(call, struct load_conn, call), MEASURE_TIMEOUT, false);
    }
}

/* --- what came --- */

static void count_tokens(struct load_client *client, struct load_conn *conn)
{
    struct load_sse *sse = &conn->sse;
    if (sse->restarted) {
        conn->call.tokens = 0;
    }
    if (sse->events > 0) {
        measure_run_tokens(client->run, &conn->call, sse->tokens, sse->events, client->now_ns);
    }
    sse->tokens = sse->events = 0;
    sse->restarted = false;
}

/* Whether the call goes on. */
static bool on_bytes(struct load_client *client, struct load_conn *conn, struct sl_span bytes)
{
    struct sl_span body = {NULL, 0};
    enum load_http_step step;
    conn->answered = true;
    while ((step = load_http_next(&conn->http, &bytes, &body)) == LOAD_HTTP_BODY) {
        if (conn->http.status == 200 && load_sse_feed(&conn->sse, body) != 0) {
            step = LOAD_HTTP_BROKEN;
            break;
        }
    }
    count_tokens(client, conn);
    if (step == LOAD_HTTP_BROKEN) {
        fail(client, conn, MEASURE_GARBLED, false);
    } else if (step == LOAD_HTTP_END) {
        end(client, conn, conn->http.keep_alive && bytes.len == 0);
    }
    return step == LOAD_HTTP_MORE;
}

/* Without a call nothing may come but the server's goodbye. */
static void on_idle(struct load_client *client, struct load_conn *conn)
{
    ssize_t len = recv(conn->fd, client->bytes, sizeof(client->bytes), 0);
    if (len >= 0 || errno != EAGAIN) {
        drop_spare(client, conn);
    }
}

static void on_readable(struct load_client *client, struct load_conn *conn, bool closing)
{
    ssize_t len;
    do {
        len = recv(conn->fd, client->bytes, sizeof(client->bytes), 0);
        if (len > 0 && !on_bytes(client, conn, (struct sl_span){client->bytes, (size_t)len})) {
            if (closing && conn->state == LOAD_CONN_READY) {
                drop_spare(client, conn); /* No event would tell a second time. */
            }
            return;
        }
    } while (len == (ssize_t)sizeof(client->bytes) || (len > 0 && closing));
    if (len == 0 || (len < 0 && errno != EAGAIN)) {
        on_broken(client, conn);
    }
}

static void on_connect(struct load_client *client, struct load_conn *conn)
{
    bool failed = load_conn_check(conn) != 0;
    if (conn->has_call) {
        if (failed || load_conn_send(conn, client->request) != 0) {
            on_broken(client, conn);
        }
        return;
    }
    if (failed) {
        drop_spare(client, conn);
        client->ahead_after_ns = client->now_ns + PAUSE_NS;
        return;
    }
    sl_list_remove(&conn->link);
    sl_list_push(&client->idle, &conn->link);
}

static void on_event(struct load_client *client, struct load_conn *conn, uint32_t events)
{
    if (conn->state == LOAD_CONN_CONNECTING) {
        on_connect(client, conn);
    } else if (!conn->has_call) {
        on_idle(client, conn);
    } else if ((events & EPOLLOUT) != 0 && !conn->answered &&
               load_conn_send(conn, client->request) != 0) {
        on_broken(client, conn);
    } else if ((events & ~(uint32_t)EPOLLOUT) != 0) {
        on_readable(client, conn, (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0);
    }
}

/* --- turns --- */

/* Until something comes, at most until wake_ns, and takes it. */
static int wait_events(struct load_client *client, uint64_t wake_ns)
{
    struct epoll_event events[EVENTS];
    uint64_t now_ns = measure_now_ns();
    uint64_t left_ns = wake_ns > now_ns ? wake_ns - now_ns : 0;
    struct timespec left = {.tv_sec = (time_t)(left_ns / MEASURE_S_NS),
                            .tv_nsec = (long)(left_ns % MEASURE_S_NS)};
    int len = epoll_pwait2(client->epoll_fd, events, EVENTS, &left, NULL);
    client->now_ns = measure_now_ns();
    if (len < 0 && errno != EINTR) {
        perror("bench_load: epoll");
        return -1;
    }
    for (int i = 0; i < len; i++) {
        if (events[i].data.ptr == NULL) {
            client->stopped = true;
        } else {
            on_event(client, events[i].data.ptr, events[i].events);
        }
    }
    return 0;
}

/* Before the run: until all that are wanted ahead are there. */
static int connect_first(struct load_client *client)
{
    client->now_ns = measure_now_ns();
    uint64_t end_ns = client->now_ns + CONNECT_NS;
    size_t wanted = wanted_ahead(client);
    replenish(client);
    while (!client->stopped && (client->spare < wanted || !sl_list_empty(&client->connecting))) {
        if (client->ahead_after_ns > 0 || client->now_ns >= end_ns) {
            fprintf(stderr, "bench_load: %s cannot be reached\n", client->options->target);
            return -1;
        }
        if (wait_events(client, client->spare < wanted ? client->now_ns : end_ns) != 0) {
            return -1;
        }
        replenish(client);
    }
    return 0;
}

int load_client_run(struct load_client *client, struct measure_run *run)
{
    client->run = run;
    client->now_ns = measure_now_ns();
    int rv = 0;
    while (rv == 0 && !client->stopped) {
        fail_overdue(client);
        start_due(client);
        replenish(client);
        uint64_t wake_ns = measure_run_wake(run);
        if (wake_ns == MEASURE_NEVER) {
            break;
        }
        rv = wait_events(client, wake_ns);
    }
    return rv;
}

/* --- set up --- */

int load_client_allow(struct measure_options *options)
{
    struct rlimit limit;
    rlim_t needed = (rlim_t)options->max_open + SPARE + 1 + OTHER_FDS;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) {
        perror("bench_load: getrlimit");
        return -1;
    }
    struct rlimit more = {.rlim_cur = needed,
                          .rlim_max = limit.rlim_max > needed ? limit.rlim_max : needed};
    if (limit.rlim_cur >= needed || setrlimit(RLIMIT_NOFILE, &more) == 0) {
        return 0;
    }
    limit.rlim_cur = limit.rlim_max; /* More than that only a privileged process may have. */
    long allowed = (long)limit.rlim_max - SPARE - 1 - OTHER_FDS;
    if (allowed < 1 || allowed < options->streams || setrlimit(RLIMIT_NOFILE, &limit) != 0) {
        fprintf(stderr, "bench_load: only %lu descriptors are allowed here\n",
                (unsigned long)limit.rlim_max);
        return -1;
    }
    options->max_open = allowed;
    return 0;
}

static int open_fds(struct load_client *client)
{
    sigset_t signals;
    struct epoll_event event = {.events = EPOLLIN};
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    client->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    client->signal_fd = signalfd(-1, &signals, SFD_NONBLOCK | SFD_CLOEXEC);
    if (client->epoll_fd < 0 || client->signal_fd < 0 ||
        epoll_ctl(client->epoll_fd, EPOLL_CTL_ADD, client->signal_fd, &event) != 0) {
        perror("bench_load: epoll or signalfd");
        return -1;
    }
    /* The default slack of 50 us would be measured as lateness. */
    (void)prctl(PR_SET_TIMERSLACK, 1000UL, 0UL, 0UL, 0UL);
    return 0;
}

struct load_client *load_client_create(struct load_request *request,
                                       const struct measure_options *options)
{
    struct load_client *client = calloc(1, sizeof(*client));
    size_t len = (size_t)options->max_open + SPARE + 1;
    struct load_conn *conns = calloc(len, sizeof(*conns));
    if (client == NULL || conns == NULL) {
        fprintf(stderr, "bench_load: out of memory\n");
        free(conns);
        free(client);
        return NULL;
    }
    client->request = request;
    client->options = options;
    client->conns = conns;
    client->len = len;
    client->epoll_fd = client->signal_fd = -1;
    sl_list_init(&client->free);
    sl_list_init(&client->connecting);
    sl_list_init(&client->idle);
    for (size_t i = len; i > 0; i--) {
        put(client, &client->free, &conns[i - 1]);
    }
    if (open_fds(client) != 0 || connect_first(client) != 0) {
        load_client_destroy(client);
        return NULL;
    }
    return client;
}

void load_client_destroy(struct load_client *client)
{
    if (client == NULL) {
        return;
    }
    for (size_t i = 0; i < client->len; i++) {
        load_conn_close(&client->conns[i]);
    }
    if (client->epoll_fd >= 0) {
        (void)close(client->epoll_fd);
    }
    if (client->signal_fd >= 0) {
        (void)close(client->signal_fd);
    }
    free(client->conns);
    free(client);
}
