/*
 * The chain of processes. All but the first are forked before anything of librdkafka exists, since
 * its threads do not survive a fork. Each has a socket to the first process: a byte from there
 * starts it, a byte back says that its partitions are assigned, and the end of the socket ends it,
 * also when the first process dies.
 *
 * The first process sends a record at each due time (a timerfd: no time-out of epoll is exact
 * enough), reads the last topic and takes all times from the records: each process has written into
 * them when it received and when it sent. A hop runs from before the call that sends to the moment
 * at which the next process has the record in hand. CPU is read from the processes' CPU clocks when
 * the warm-up ends and when the last due time is over, so that neither start nor end counts.
 *
 * What can go wrong: a process does not come up within half a minute, or ends early: the run fails.
 * Records that have not come ten seconds after the last was sent count as not answered.
 */
#include "tests/bench/floor_hops.h"

#include "tests/bench/measure_clock.h"
#include "tests/bench/measure_schedule.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <unistd.h>

enum { TICK_MS = 1000, START_MS = 30000, TAIL_MS = 10000, JOIN_MS = 10000, JOIN_LOOK_MS = 10 };

struct process {
    pid_t pid;
    int fd; /* Our end of its socket. */
};

struct chain {
    const struct hops_options *options;
    unsigned count;
    struct process processes[HOPS_MAX];
};

/* The first process while it measures. */
struct run {
    const struct chain *chain;
    struct chain_result *result;
    struct measure_schedule schedule;
    struct link *link;
    char *value; /* Of hops_options.bytes. */
    uint64_t begin_ns, end_ns;
    uint64_t open; /* Sent and not received, warm-up included. */
    int timer_fd, signal_fd;
    bool counting, counted; /* CPU between the two. */
};

static int tell(const char *what, int rc)
{
    fprintf(stderr, "bench_floor_hops: %s: %s\n", what, errno != 0 ? strerror(errno) : "failed");
    return rc;
}

/* --- the processes in the middle --- */

static void on_middle_record(void *ctx, struct link *link, void *data, size_t len,
                             struct record *record)
{
    const unsigned *hop = ctx;
    struct chain_record chain;
    memcpy(&chain, data, sizeof(chain)); /* Not aligned. */
    chain.hops[*hop].received_ns = measure_now_ns();
    chain.hops[*hop + 1].sent_ns = measure_now_ns();
    memcpy(data, &chain, sizeof(chain));
    link_send(link, data, len, record);
}

static int run_middle(const struct hops_options *options, unsigned hop, int fd)
{
    char byte = 0;
    if (read(fd, &byte, 1) != 1) {
        return 0; /* Ended before it began. */
    }
    struct link_config config = {options, hop, hop + 1, on_middle_record, &hop};
    struct link *link = NULL;
    if (link_create(&config, &link) != 0) {
        return 1;
    }
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    bool told = false, ended = epoll_ctl(link_epoll(link), EPOLL_CTL_ADD, fd, &event) != 0;
    while (!ended && !link_failed(link)) {
        ended = link_wait(link, TICK_MS) == fd; /* Nothing but the end comes. */
        if (!told && link_assigned(link)) {
            told = true;
            ended = write(fd, &byte, 1) != 1;
        }
    }
    int status = link_failed(link) ? 1 : 0;
    link_destroy(link);
    return status;
}

/* In the child: its own socket only, or the others' ends would never come. */
static void become_middle(struct chain *chain, unsigned hop, int fd)
{
    const struct hops_options *options = chain->options;
    for (unsigned i = 0; i < chain->count; i++) {
        close(chain->processes[i].fd);
    }
    free(chain);
    int status = run_middle(options, hop, fd);
    close(fd);
    exit(status);
}

int chain_fork(const struct hops_options *options, struct chain **ret)
{
    struct chain *chain = calloc(1, sizeof(*chain));
    if (chain == NULL) {
        return -SL_ENOMEM;
    }
    chain->options = options;
    for (unsigned hop = 0; hop + 1 < options->hops; hop++) {
        int fds[2];
        pid_t pid = -1;
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0) {
            pid = fork();
            if (pid < 0) {
                close(fds[0]);
                close(fds[1]);
            }
        }
        if (pid < 0) {
            chain_join(chain);
            return tell("fork", -SL_EIO);
        }
        if (pid == 0) {
            close(fds[0]);
            become_middle(chain, hop, fds[1]);
        }
        close(fds[1]);
        chain->processes[chain->count++] = (struct process){pid, fds[0]};
    }
    *ret = chain;
    return 0;
}

void chain_join(struct chain *chain)
{
    if (chain == NULL) {
        return;
    }
    for (unsigned i = 0; i < chain->count; i++) {
        close(chain->processes[i].fd);
    }
    unsigned looks = JOIN_MS / JOIN_LOOK_MS;
    for (unsigned i = 0; i < chain->count; i++) {
        int flags = WNOHANG;
        while (waitpid(chain->processes[i].pid, NULL, flags) == 0) {
            if (looks > 0) {
                looks--;
                nanosleep(&(struct timespec){.tv_nsec = JOIN_LOOK_MS * 1000000L}, NULL);
            } else {
                kill(chain->processes[i].pid, SIGKILL);
                flags = 0;
            }
        }
    }
    free(chain);
}

/* --- CPU --- */

static uint64_t cpu_of(pid_t pid)
{
    clockid_t clock;
    return clock_getcpuclockid(pid, &clock) == 0 ? measure_clock_read(clock) : 0;
}

static void read_cpu(struct run *run, bool begin)
{
    struct chain_result *result = run->result;
    pid_t broker = run->chain->options->broker;
    uint64_t cpu = measure_cpu_ns(), broker_cpu = broker != 0 ? cpu_of(broker) : 0;
    for (unsigned i = 0; i < run->chain->count; i++) {
        cpu += cpu_of(run->chain->processes[i].pid);
    }
    double at_s = (double)measure_now_ns() / 1e9;
    result->cpu_ns = begin ? cpu : cpu - result->cpu_ns;
    result->broker_cpu_ns = begin ? broker_cpu : broker_cpu - result->broker_cpu_ns;
    result->counted_s = begin ? at_s : at_s - result->counted_s;
}

/* --- the first process --- */

static void on_last_record(void *ctx, struct link *link, void *data, size_t len,
                           struct record *record)
{
    struct run *run = ctx;
    struct chain_record chain;
    unsigned hops = run->chain->options->hops;
    assert(len == run->chain->options->bytes);
    memcpy(&chain, data, sizeof(chain));
    chain.hops[hops - 1].received_ns = measure_now_ns();
    link_finish(link, record);
    run->open--;
    if (!chain.counted) {
        return;
    }
    run->result->answered++;
    measure_histogram_add(&run->result->late, chain.hops[0].sent_ns - chain.due_ns);
    measure_histogram_add(&run->result->chain, chain.hops[hops - 1].received_ns - chain.due_ns);
    for (unsigned i = 0; i < hops; i++) {
        measure_histogram_add(&run->result->hop, chain.hops[i].received_ns - chain.hops[i].sent_ns);
    }
}

static void send_due(struct run *run)
{
    uint64_t due;
    while (measure_schedule_take(&run->schedule, measure_now_ns(), &due)) {
        struct chain_record chain = {.due_ns = due, .counted = due >= run->begin_ns};
        chain.hops[0].sent_ns = measure_now_ns();
        memcpy(run->value, &chain, sizeof(chain));
        link_send(run->link, run->value, run->chain->options->bytes, NULL);
        run->open++;
        run->result->due += chain.counted;
    }
}

/* Also when the counted time begins or ends, and at the last limit. */
static int set_timer(const struct run *run)
{
    uint64_t at = measure_schedule_next(&run->schedule);
    uint64_t mark = !run->counting ? run->begin_ns : run->end_ns;
    at = at < mark || run->counted ? at : mark;
    uint64_t limit = run->end_ns + TAIL_MS * MEASURE_MS_NS;
    at = at < limit ? at : limit;
    struct itimerspec when = {
        .it_value = {.tv_sec = (time_t)(at / MEASURE_S_NS), .tv_nsec = (long)(at % MEASURE_S_NS)}};
    return timerfd_settime(run->timer_fd, TFD_TIMER_ABSTIME, &when, NULL);
}

static void on_timer(struct run *run)
{
    if (!run->counting && measure_now_ns() >= run->begin_ns) {
        run->counting = true;
        read_cpu(run, true);
    }
    send_due(run);
    if (!run->counted && measure_now_ns() >= run->end_ns) {
        run->counted = true;
        read_cpu(run, false);
    }
}

static int measure(struct run *run)
{
    uint64_t limit = run->end_ns + TAIL_MS * MEASURE_MS_NS;
    while ((!run->counted || run->open > 0) && measure_now_ns() < limit) {
        if (set_timer(run) != 0) {
            return tell("timerfd_settime", -SL_EIO);
        }
        int fd = link_wait(run->link, TICK_MS);
        if (link_failed(run->link)) {
            return -SL_EIO;
        }
        if (fd == run->timer_fd) {
            on_timer(run); /* Setting the next time takes the readiness back. */
        } else if (fd == run->signal_fd) {
            run->result->stopped = true;
            return 0;
        } else if (fd >= 0) {
            return tell("a process has ended", -SL_EIO);
        }
    }
    return 0;
}

static int await_assigned(struct run *run)
{
    uint64_t limit = measure_now_ns() + START_MS * MEASURE_MS_NS;
    while (!link_assigned(run->link)) {
        if (link_failed(run->link) || measure_now_ns() > limit) {
            return tell("no assignment", -SL_ETIMEDOUT);
        }
        link_wait(run->link, TICK_MS);
    }
    for (unsigned i = 0; i < run->chain->count; i++) {
        struct pollfd fd = {.fd = run->chain->processes[i].fd, .events = POLLIN};
        struct epoll_event end = {.events = EPOLLIN, .data.fd = fd.fd};
        char byte;
        if (poll(&fd, 1, START_MS) != 1 || read(fd.fd, &byte, 1) != 1 ||
            epoll_ctl(link_epoll(run->link), EPOLL_CTL_ADD, fd.fd, &end) != 0) {
            return tell("a process does not start", -SL_ETIMEDOUT);
        }
    }
    return 0;
}

static int watch(struct run *run)
{
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    run->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    run->signal_fd = signalfd(-1, &signals, SFD_NONBLOCK | SFD_CLOEXEC);
    struct epoll_event timer = {.events = EPOLLIN, .data.fd = run->timer_fd};
    struct epoll_event stop = {.events = EPOLLIN, .data.fd = run->signal_fd};
    int epoll_fd = link_epoll(run->link);
    if (run->timer_fd < 0 || run->signal_fd < 0 ||
        epoll_ctl(epoll_fd, EPOLL_CTL_ADD, run->timer_fd, &timer) != 0 ||
        epoll_ctl(epoll_fd, EPOLL_CTL_ADD, run->signal_fd, &stop) != 0) {
        return tell("timerfd", -SL_EIO);
    }
    return 0;
}

static int start(struct run *run)
{
    const struct hops_options *options = run->chain->options;
    for (unsigned i = 0; i < run->chain->count; i++) {
        if (write(run->chain->processes[i].fd, "", 1) != 1) {
            return tell("a process has ended", -SL_EIO);
        }
    }
    struct link_config config = {options, options->hops - 1, 0, on_last_record, run};
    int rc = link_create(&config, &run->link);
    if (rc == 0) {
        rc = watch(run);
    }
    if (rc == 0) {
        rc = await_assigned(run);
    }
    if (rc != 0) {
        return rc;
    }
    uint64_t now = measure_now_ns();
    run->begin_ns = now + (uint64_t)(options->warmup * 1e9);
    run->end_ns = run->begin_ns + (uint64_t)(options->seconds * 1e9);
    return measure_schedule_open(&run->schedule, options->rate, options->poisson, options->seed,
                                 now, run->end_ns);
}

int chain_run(struct chain *chain, struct chain_result *ret)
{
    struct run run = {.chain = chain, .result = ret, .timer_fd = -1, .signal_fd = -1};
    run.value = calloc(1, chain->options->bytes);
    int rc = run.value != NULL ? 0 : -SL_ENOMEM;
    errno = 0;
    if (rc == 0) {
        rc = start(&run);
    }
    if (rc == 0) {
        rc = measure(&run);
    }
    link_destroy(run.link);
    measure_schedule_fini(&run.schedule);
    free(run.value);
    if (run.timer_fd >= 0) {
        close(run.timer_fd);
    }
    if (run.signal_fd >= 0) {
        close(run.signal_fd);
    }
    return rc;
}
