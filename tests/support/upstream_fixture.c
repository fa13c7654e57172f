/* See upstream_fixture.h. The child ends when its standard input does, which is ours alone. */
#include "tests/support/upstream_fixture.h"

#include "tests/support/test.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

enum { WAIT_S = 20, ANSWER_MAX = 1 << 20 };

struct upstream_fixture {
    pid_t pid;
    int input; /* The child's. */
    int port;
    char answer[ANSWER_MAX];
};

static void become_server(int input, int output, int dim)
{
    char text[16];
    snprintf(text, sizeof(text), "%d", dim);
    if (dup2(input, STDIN_FILENO) >= 0 && dup2(output, STDOUT_FILENO) >= 0) {
        execlp("python3", "python3", "tests/support/upstream.py", "--port", "0", "--with-parent",
               "--dim", text, (char *)NULL);
    }
    perror("upstream.py");
    _exit(1);
}

static int read_port(int fd)
{
    FILE *file = fdopen(fd, "r");
    int port = 0;
    CHECK(file != NULL);
    CHECK(fscanf(file, "listening %d", &port) == 1); /* It prints that or ends. */
    fclose(file);
    return port;
}

struct upstream_fixture *upstream_fixture_start(int dim)
{
    struct upstream_fixture *fixture = calloc(1, sizeof(*fixture));
    int in[2];
    int out[2];
    CHECK(fixture != NULL && pipe2(in, O_CLOEXEC) == 0 && pipe2(out, O_CLOEXEC) == 0);
    fixture->pid = fork();
    CHECK(fixture->pid >= 0);
    if (fixture->pid == 0) {
        become_server(in[0], out[1], dim);
    }
    close(in[0]);
    close(out[1]);
    fixture->input = in[1];
    fixture->port = read_port(out[0]);
    return fixture;
}

void upstream_fixture_stop(struct upstream_fixture *fixture)
{
    if (fixture != NULL) {
        close(fixture->input);
        CHECK(waitpid(fixture->pid, NULL, 0) == fixture->pid);
        free(fixture);
    }
}

int upstream_fixture_port(const struct upstream_fixture *fixture)
{
    return fixture->port;
}

static int connect_to(int port)
{
    const struct timeval wait = {.tv_sec = WAIT_S};
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait)) == 0);
    CHECK(connect(fd, (struct sockaddr *)&in, sizeof(in)) == 0);
    return fd;
}

static void send_all(int fd, const char *data, size_t len)
{
    while (len > 0) {
        ssize_t n = send(fd, data, len, MSG_NOSIGNAL);
        CHECK(n > 0);
        data += n;
        len -= (size_t)n;
    }
}

const char *upstream_fixture_say(struct upstream_fixture *fixture, const char *request,
                                 const char *json)
{
    char head[256];
    size_t len = 0;
    ssize_t n = 1;
    int fd = connect_to(fixture->port);
    int head_len = snprintf(head, sizeof(head),
                            "%s HTTP/1.1\r\nHost: test\r\nConnection: close\r\n"
                            "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n",
                            request, strlen(json));
    CHECK(head_len > 0 && (size_t)head_len < sizeof(head));
    send_all(fd, head, (size_t)head_len);
    send_all(fd, json, strlen(json));
    for (; n > 0 && len + 1 < ANSWER_MAX; len += (size_t)n) {
        n = recv(fd, fixture->answer + len, ANSWER_MAX - 1 - len, 0);
        CHECK(n >= 0);
    }
    close(fd);
    fixture->answer[len] = '\0';
    const char *body = strstr(fixture->answer, "\r\n\r\n");
    if (strncmp(fixture->answer, "HTTP/1.1 200", 12) != 0 || body == NULL) {
        fprintf(stderr, "%s: %s\n", request, fixture->answer);
        abort();
    }
    return body + 4;
}
