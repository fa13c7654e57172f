/* See python_server.h. The child ends when its standard input does, which is ours alone. */
#include "tests/support/python_server.h"

#include "tests/support/test.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

enum { WAIT_S = 20, ANSWER_MAX = 1 << 20, ARGS_MAX = 16 };

struct python_server {
    pid_t pid;
    int input; /* The child's. */
    int port;
};

static void become_server(int input, int output, const char *script, const char *const *more)
{
    char *args[ARGS_MAX] = {"python3", (char *)script, "--port", "0", "--with-parent"};
    size_t count = 5;
    for (; more != NULL && *more != NULL && count < ARGS_MAX - 1; more++) {
        args[count++] = (char *)*more;
    }
    if (dup2(input, STDIN_FILENO) >= 0 && dup2(output, STDOUT_FILENO) >= 0) {
        execvp(args[0], args);
    }
    perror(script);
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

struct python_server *python_server_start(const char *script, const char *const *more)
{
    struct python_server *server = calloc(1, sizeof(*server));
    int in[2];
    int out[2];
    CHECK(server != NULL && pipe2(in, O_CLOEXEC) == 0 && pipe2(out, O_CLOEXEC) == 0);
    server->pid = fork();
    CHECK(server->pid >= 0);
    if (server->pid == 0) {
        become_server(in[0], out[1], script, more);
    }
    close(in[0]);
    close(out[1]);
    server->input = in[1];
    server->port = read_port(out[0]);
    return server;
}

void python_server_stop(struct python_server *server)
{
    if (server != NULL) {
        close(server->input);
        CHECK(waitpid(server->pid, NULL, 0) == server->pid);
        free(server);
    }
}

int python_server_port(const struct python_server *server)
{
    return server->port;
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

const char *python_server_say(int port, const char *request, const char *json)
{
    static char answer[ANSWER_MAX];
    char head[256];
    size_t len = 0;
    ssize_t n = 1;
    int fd = connect_to(port);
    int head_len = snprintf(head, sizeof(head),
                            "%s HTTP/1.1\r\nHost: test\r\nConnection: close\r\n"
                            "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n",
                            request, strlen(json));
    CHECK(head_len > 0 && (size_t)head_len < sizeof(head));
    send_all(fd, head, (size_t)head_len);
    send_all(fd, json, strlen(json));
    for (; n > 0 && len + 1 < ANSWER_MAX; len += (size_t)n) {
        n = recv(fd, answer + len, ANSWER_MAX - 1 - len, 0);
        CHECK(n >= 0);
    }
    close(fd);
    answer[len] = '\0';
    const char *body = strstr(answer, "\r\n\r\n");
    if (strncmp(answer, "HTTP/1.1 2", 10) != 0 || body == NULL) {
        fprintf(stderr, "%s: %s\n", request, answer);
        abort();
    }
    return body + 4;
}
