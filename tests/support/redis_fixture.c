/*
 * Runs redis-server for tests. The port is one below those that the kernel gives to outgoing
 * connections, so that nobody takes it while the server is down for a restart. A server counts as
 * started when it answers a PING, with whatever but that it is loading; it is polled for that with
 * a bound. The child is killed when this process dies (PR_SET_PDEATHSIG), and at exit.
 */
#include "tests/support/redis_fixture.h"

#include "common/buf.h"
#include "tests/support/test.h"

#include <arpa/inet.h>
#include <ftw.h>
#include <limits.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define QUERY_ENGINE ".local/query-engine"
enum { FIRST_PORT = 20000, PORTS = 12000, START_TRIES = 1000, TRY_MS = 10 };

struct redis_fixture {
    struct redis_fixture_options options;
    char dir[64];
    char url[256];
    int port;
    pid_t pid; /* 0: not running. */
    struct redis_fixture *next;
};

static struct redis_fixture *fixtures; /* For the end of the program. */

static struct sockaddr_in address(int port)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return in;
}

static int free_port(void)
{
    static int next;
    if (next == 0) {
        next = (int)(getpid() * 7919L % PORTS);
    }
    for (int i = 0; i < PORTS; i++) {
        int port = FIRST_PORT + next++ % PORTS;
        struct sockaddr_in in = address(port);
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        CHECK(fd >= 0);
        int rv = bind(fd, (struct sockaddr *)&in, sizeof(in));
        close(fd);
        if (rv == 0) {
            return port;
        }
    }
    CHECK(false && "a free port");
    return -1;
}

static void kill_all(void)
{
    for (struct redis_fixture *fixture = fixtures; fixture != NULL; fixture = fixture->next) {
        redis_fixture_kill(fixture);
    }
}

struct redis_fixture *redis_fixture_create(const struct redis_fixture_options *options)
{
    static bool at_exit;
    struct redis_fixture *fixture = calloc(1, sizeof(*fixture));
    CHECK(fixture != NULL);
    if (options != NULL) {
        fixture->options = *options;
    }
    const char *password = fixture->options.password;
    strcpy(fixture->dir, "/tmp/sluice-redis-XXXXXX");
    CHECK(mkdtemp(fixture->dir) != NULL);
    fixture->port = free_port();
    snprintf(fixture->url, sizeof(fixture->url), "redis://%s%s%s127.0.0.1:%d",
             password != NULL ? ":" : "", password != NULL ? password : "",
             password != NULL ? "@" : "", fixture->port);
    if (!at_exit) {
        CHECK(atexit(kill_all) == 0);
        at_exit = true;
    }
    fixture->next = fixtures;
    fixtures = fixture;
    return fixture;
}

static void run_server(const struct redis_fixture *fixture, pid_t parent)
{
    char port[16], log[80];
    snprintf(port, sizeof(port), "%d", fixture->port);
    snprintf(log, sizeof(log), "%s/log", fixture->dir);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) {
        _exit(1);
    }
    const char *policy = fixture->options.policy != NULL ? fixture->options.policy : "noeviction";
    const char *password = fixture->options.password != NULL ? fixture->options.password : "";
    const bool query_engine = fixture->options.query_engine;
    char module[PATH_MAX]; /* Redis has changed its directory when it loads this. */
    if (query_engine && realpath(QUERY_ENGINE "/redisearch.so", module) == NULL) {
        _exit(127);
    }
    const char *const argv[] = {query_engine ? QUERY_ENGINE "/valkey-server" : "redis-server",
                                "--port",
                                port,
                                "--bind",
                                "127.0.0.1",
                                "--dir",
                                fixture->dir,
                                "--logfile",
                                log,
                                "--save",
                                "",
                                "--appendfsync",
                                "always",
                                "--maxmemory-policy",
                                policy,
                                "--requirepass",
                                password,
                                "--appendonly",
                                fixture->options.appendonly ? "yes" : "no",
                                query_engine ? "--loadmodule" : NULL,
                                module,
                                NULL};
    execvp(argv[0], (char *const *)argv);
    _exit(127);
}

/* It answers, and not that it is loading. */
static bool answers(const struct redis_fixture *fixture)
{
    struct sockaddr_in in = address(fixture->port);
    struct timeval timeout = {.tv_sec = 1};
    char reply[64] = "";
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout)) == 0);
    if (connect(fd, (struct sockaddr *)&in, sizeof(in)) == 0 &&
        send(fd, "PING\r\n", 6, MSG_NOSIGNAL) == 6 && recv(fd, reply, sizeof(reply) - 1, 0) < 0) {
        reply[0] = '\0';
    }
    close(fd);
    return reply[0] == '+' || strncmp(reply, "-NOAUTH", 7) == 0;
}

void redis_say(int port, size_t argc, const struct sl_span *argv)
{
    struct sockaddr_in in = address(port);
    struct timeval timeout = {.tv_sec = 10};
    struct sl_buf line;
    char reply[256];
    sl_buf_init(&line, 1 << 20);
    sl_buf_printf(&line, "*%zu\r\n", argc);
    for (size_t i = 0; i < argc; i++) {
        sl_buf_printf(&line, "$%zu\r\n", argv[i].len);
        sl_buf_append_span(&line, argv[i]);
        sl_buf_append_text(&line, "\r\n");
    }
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout)) == 0);
    CHECK(connect(fd, (struct sockaddr *)&in, sizeof(in)) == 0);
    CHECK(send(fd, line.data, line.len, MSG_NOSIGNAL) == (ssize_t)line.len);
    ssize_t len = recv(fd, reply, sizeof(reply) - 1, 0);
    CHECK(len > 0);
    reply[len] = '\0';
    if (reply[0] == '-') {
        fprintf(stderr, "redis: %s", reply);
        abort();
    }
    close(fd);
    sl_buf_fini(&line);
}

void redis_fixture_start(struct redis_fixture *fixture)
{
    CHECK(fixture->pid == 0);
    pid_t parent = getpid();
    fixture->pid = fork();
    CHECK(fixture->pid >= 0);
    if (fixture->pid == 0) {
        run_server(fixture, parent);
    }
    for (int i = 0; !answers(fixture); i++) {
        if (i == START_TRIES || waitpid(fixture->pid, NULL, WNOHANG) != 0) {
            fprintf(stderr, "redis-server did not start; its log is %s/log%s\n", fixture->dir,
                    fixture->options.query_engine && access(QUERY_ENGINE "/redisearch.so", R_OK)
                        ? "; " QUERY_ENGINE " is not there: run deploy/setup --tests"
                        : "");
            abort();
        }
        poll(NULL, 0, TRY_MS);
    }
}

static void end(struct redis_fixture *fixture, int signum)
{
    if (fixture->pid > 0) {
        CHECK(kill(fixture->pid, signum) == 0);
        CHECK(waitpid(fixture->pid, NULL, 0) == fixture->pid);
        fixture->pid = 0;
    }
}

void redis_fixture_stop(struct redis_fixture *fixture)
{
    end(fixture, SIGTERM);
}

void redis_fixture_kill(struct redis_fixture *fixture)
{
    end(fixture, SIGKILL);
}

void redis_fixture_pause(struct redis_fixture *fixture)
{
    CHECK(fixture->pid > 0 && kill(fixture->pid, SIGSTOP) == 0);
}

void redis_fixture_resume(struct redis_fixture *fixture)
{
    CHECK(fixture->pid > 0 && kill(fixture->pid, SIGCONT) == 0);
}

static int remove_entry(const char *path, const struct stat *stat, int type, struct FTW *ftw)
{
    (void)stat, (void)type, (void)ftw;
    return remove(path);
}

void redis_fixture_destroy(struct redis_fixture *fixture)
{
    if (fixture == NULL) {
        return;
    }
    redis_fixture_kill(fixture);
    CHECK(nftw(fixture->dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS) == 0);
    struct redis_fixture **link = &fixtures;
    while (*link != fixture) {
        link = &(*link)->next;
    }
    *link = fixture->next;
    free(fixture);
}

int redis_fixture_port(const struct redis_fixture *fixture)
{
    return fixture->port;
}

const char *redis_fixture_url(const struct redis_fixture *fixture)
{
    return fixture->url;
}
