/*
 * A library for LD_PRELOAD that lets a program fail at a chosen moment: when it sends an HTTP
 * request that contains a text. The fault rows give it to workers whose own code knows nothing of
 * it:
 *
 *   FAULT_MARKER=text   which requests; without it nothing happens
 *   FAULT=abort         the process ends by SIGABRT, and the request is not sent
 *   FAULT=block         the thread that sent the request stands still for FAULT_SECONDS, once
 *
 * Only connections on which a POST was seen are looked at: a record on its way to Kafka holds the
 * same text, and a dead letter has to get out. A request that is split between two calls so that
 * the text is too is not recognised; the short ones of the rows are sent in one or two calls, head
 * and body.
 */
#include <dlfcn.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { FDS_MAX = 4096 };

static const char *marker, *fault;
static time_t seconds;
static atomic_bool blocked;
static atomic_bool is_http[FDS_MAX];

/* The function of this name that comes after this library's. */
#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

__attribute__((constructor)) static void read_environment(void)
{
    const char *text = getenv("FAULT_SECONDS");
    marker = getenv("FAULT_MARKER");
    fault = getenv("FAULT");
    seconds = text != NULL ? atol(text) : 0;
}

static void tell(const char *text)
{
    ssize_t written = REAL(write)(STDERR_FILENO, text, strlen(text));
    (void)written;
}

static bool has_marker(int fd, const void *data, size_t len)
{
    if (marker == NULL || fault == NULL || fd < 0 || fd >= FDS_MAX || data == NULL) {
        return false;
    }
    if (len >= 5 && memcmp(data, "POST ", 5) == 0) {
        is_http[fd] = true;
    }
    return is_http[fd] && memmem(data, len, marker, strlen(marker)) != NULL;
}

static void before(bool found)
{
    if (found && strcmp(fault, "abort") == 0) {
        const struct rlimit none = {0, 0};
        setrlimit(RLIMIT_CORE, &none);
        tell("fault: aborting at the marker\n");
        abort();
    }
}

static void after(bool found)
{
    if (found && strcmp(fault, "block") == 0 && !atomic_exchange(&blocked, true)) {
        struct timespec left = {seconds, 0};
        tell("fault: standing still at the marker\n");
        while (nanosleep(&left, &left) != 0) {
        }
        tell("fault: going on\n");
    }
}

ssize_t send(int fd, const void *data, size_t len, int flags)
{
    bool found = has_marker(fd, data, len);
    before(found);
    ssize_t sent = REAL(send)(fd, data, len, flags);
    after(found);
    return sent;
}

ssize_t write(int fd, const void *data, size_t len)
{
    bool found = has_marker(fd, data, len);
    before(found);
    ssize_t sent = REAL(write)(fd, data, len);
    after(found);
    return sent;
}

static bool any_has_marker(int fd, const struct iovec *parts, size_t count)
{
    bool found = false;
    for (size_t i = 0; i < count; i++) {
        found = has_marker(fd, parts[i].iov_base, parts[i].iov_len) || found;
    }
    return found;
}

ssize_t writev(int fd, const struct iovec *parts, int count)
{
    bool found = any_has_marker(fd, parts, (size_t)count);
    before(found);
    ssize_t sent = REAL(writev)(fd, parts, count);
    after(found);
    return sent;
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
    bool found = any_has_marker(fd, message->msg_iov, message->msg_iovlen);
    before(found);
    ssize_t sent = REAL(sendmsg)(fd, message, flags);
    after(found);
    return sent;
}

int close(int fd)
{
    if (fd >= 0 && fd < FDS_MAX) {
        is_http[fd] = false;
    }
    return REAL(close)(fd);
}
