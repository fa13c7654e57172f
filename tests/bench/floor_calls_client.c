/*
 * libcurl's multi interface on one epoll, and nothing else: what this costs is what the calls
 * themselves cost a C program.
 *
 * One turn: sleep until a descriptor is ready or something is due (epoll_pwait2 and a timer slack
 * of 1 ns, since milliseconds would show), drive curl, settle what has ended, fail what is overdue,
 * start what is due. Settling happens outside curl, because curl may not be called from its own
 * callbacks. A transfer that was just added may end at once, and what ends adds the next one: a
 * turn goes on until curl has nothing to do now, or a question would lie until something else
 * happens.
 *
 * Each kind of call has a multi handle of its own, as it would have an upstream of its own: curl
 * looks for an idle connection among all that go to one address, and the chat's long ones would be
 * in the way of the others.
 *
 * What can go wrong, per question: the failures of measure_run.h; all its other calls are aborted.
 */
#include "tests/bench/floor_calls_internal.h"

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

enum { EVENTS = 128 };

static const char *const paths[CALLS_KINDS] = {
    "/v1/embeddings", "/collections/docs/points/query", "/docs/_search",
    "/v1/rerank",     "/v1/chat/completions",
};

/* --- curl's callbacks --- */

static int on_socket(CURL *easy, curl_socket_t fd, int what, void *ctx, void *known)
{
    struct multi *multi = ctx;
    struct epoll_event event = {.data.u64 = (uint64_t)multi->kind << 32 | (uint32_t)fd};
    (void)easy;
    if (what == CURL_POLL_REMOVE) {
        (void)epoll_ctl(multi->client->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
        return 0;
    }
    event.events = (what & CURL_POLL_IN ? EPOLLIN : 0u) | (what & CURL_POLL_OUT ? EPOLLOUT : 0u);
    if (known == NULL) {
        curl_multi_assign(multi->handle, fd, multi);
    }
    return epoll_ctl(multi->client->epoll_fd, known == NULL ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, fd,
                     &event);
}

static int on_timer(CURLM *handle, long delay_ms, void *ctx)
{
    struct multi *multi = ctx;
    (void)handle;
    multi->due_ns =
        delay_ms < 0 ? MEASURE_NEVER : measure_now_ns() + (uint64_t)delay_ms * MEASURE_MS_NS;
    return 0;
}

static enum measure_failure failure_of(const struct question *question, CURLcode result)
{
    if (question->garbled) {
        return MEASURE_GARBLED;
    }
    return result == CURLE_COULDNT_CONNECT ? MEASURE_CONNECT : MEASURE_RESET;
}

static void settle(struct calls_client *client)
{
    for (int kind = 0; kind < CALLS_KINDS; kind++) {
        CURLM *handle = client->multis[kind].handle;
        CURLMsg *msg;
        int left;
        while ((msg = curl_multi_info_read(handle, &left)) != NULL) {
            CURL *easy = msg->easy_handle;
            CURLcode result = msg->data.result;
            struct transfer *transfer = NULL;
            long status = 0;
            curl_easy_getinfo(easy, CURLINFO_PRIVATE, &transfer);
            curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
            assert(transfer != NULL && transfer->running);
            curl_multi_remove_handle(handle, easy);
            transfer->running = false;
            if (result != CURLE_OK) {
                question_fail(transfer->question, failure_of(transfer->question, result));
            } else if (status != 200) {
                question_fail(transfer->question,
                              status == 503 ? MEASURE_STATUS_503 : MEASURE_STATUS_OTHER);
            } else {
                question_on_ended(transfer->question, transfer->kind);
            }
        }
    }
}

/* --- turns --- */

static int start_due(struct calls_client *client, uint64_t now_ns)
{
    while (measure_schedule_next(&client->run->schedule) <= now_ns) {
        struct question *question = question_take(client);
        if (question == NULL) {
            fprintf(stderr, "bench_floor_calls: %s\n", sl_error_text(-SL_ENOMEM));
            return -SL_ENOMEM;
        }
        if (!measure_run_start(client->run, &question->call, now_ns)) {
            sl_list_push(&client->free, &question->node);
            continue;
        }
        question_start(question);
    }
    return 0;
}

static void fail_overdue(struct calls_client *client, uint64_t now_ns)
{
    struct measure_call *call;
    while ((call = measure_run_overdue(client->run, now_ns)) != NULL) {
        question_fail(SL_ITEM(call, struct question, call), MEASURE_TIMEOUT);
    }
}

/* curl's time-outs, among which is "now" for a transfer that was just added. Each may end a
 * transfer, and each end may add others: until there is nothing left to do at once. */
static void drive_due(struct calls_client *client)
{
    bool again = true;
    while (again) {
        uint64_t now_ns = measure_now_ns();
        again = false;
        for (int kind = 0; kind < CALLS_KINDS; kind++) {
            struct multi *multi = &client->multis[kind];
            int running;
            if (multi->due_ns <= now_ns) {
                multi->due_ns = MEASURE_NEVER;
                curl_multi_socket_action(multi->handle, CURL_SOCKET_TIMEOUT, 0, &running);
                again = true;
            }
        }
        settle(client);
    }
}

/* Waits until something comes or is due; how many events, or -SL_EIO. */
static int wait_events(const struct calls_client *client, struct epoll_event *events)
{
    uint64_t wake = measure_run_wake(client->run), now = measure_now_ns();
    for (int kind = 0; kind < CALLS_KINDS; kind++) {
        uint64_t due = client->multis[kind].due_ns;
        wake = due < wake ? due : wake;
    }
    uint64_t left = wake > now ? wake - now : 0;
    struct timespec limit = {.tv_sec = (time_t)(left / MEASURE_S_NS),
                             .tv_nsec = (long)(left % MEASURE_S_NS)};
    int count = epoll_pwait2(client->epoll_fd, events, EVENTS, &limit, NULL);
    if (count < 0 && errno != EINTR) {
        perror("bench_floor_calls: epoll_pwait2");
        return -SL_EIO;
    }
    return count < 0 ? 0 : count;
}

static void drive_ready(struct calls_client *client, const struct epoll_event *event)
{
    int fd = (int)(event->data.u64 & UINT32_MAX), running;
    int what = (event->events & (EPOLLIN | EPOLLHUP | EPOLLERR) ? CURL_CSELECT_IN : 0) |
               (event->events & EPOLLOUT ? CURL_CSELECT_OUT : 0);
    curl_multi_socket_action(client->multis[event->data.u64 >> 32].handle, fd, what, &running);
}

int calls_client_run(struct calls_client *client, struct measure_run *run)
{
    client->run = run;
    while (measure_run_wake(run) != MEASURE_NEVER) {
        struct epoll_event events[EVENTS];
        int count = wait_events(client, events);
        if (count < 0) {
            return count;
        }
        for (int i = 0; i < count; i++) {
            if (events[i].data.u64 == (uint64_t)client->signal_fd) {
                return 0;
            }
            drive_ready(client, &events[i]);
        }
        settle(client);
        fail_overdue(client, measure_now_ns());
        int rv = start_due(client, measure_now_ns());
        if (rv != 0) {
            return rv;
        }
        drive_due(client);
    }
    return 0;
}

/* --- life --- */

static bool make_multi(struct calls_client *client, enum calls_kind kind)
{
    struct multi *multi = &client->multis[kind];
    CURLM *handle = curl_multi_init();
    bool good = handle != NULL;
    *multi = (struct multi){client, kind, handle, MEASURE_NEVER};
#define SET(option, value) (good = good && curl_multi_setopt(handle, option, value) == CURLM_OK)
    SET(CURLMOPT_SOCKETFUNCTION, on_socket);
    SET(CURLMOPT_SOCKETDATA, multi);
    SET(CURLMOPT_TIMERFUNCTION, on_timer);
    SET(CURLMOPT_TIMERDATA, multi);
    SET(CURLMOPT_PIPELINING, (long)CURLPIPE_NOTHING);
    SET(CURLMOPT_MAXCONNECTS, client->options->max_open);
#undef SET
    return good;
}

static bool open_descriptors(struct calls_client *client)
{
    struct rlimit files;
    sigset_t signals;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max; /* If it is refused, connections will fail. */
        (void)setrlimit(RLIMIT_NOFILE, &files);
    }
    (void)prctl(PR_SET_TIMERSLACK, 1UL, 0UL, 0UL, 0UL);
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    client->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    client->signal_fd = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = (uint64_t)client->signal_fd};
    return client->epoll_fd >= 0 && client->signal_fd >= 0 &&
           epoll_ctl(client->epoll_fd, EPOLL_CTL_ADD, client->signal_fd, &event) == 0;
}

static bool make(struct calls_client *client)
{
    int base = (int)strcspn(client->options->target + strlen("http://"), "/") + 7;
    client->headers = curl_slist_append(NULL, "Content-Type: application/json");
    struct curl_slist *more = curl_slist_append(client->headers, "Expect:");
    if (client->headers == NULL || more == NULL || !open_descriptors(client)) {
        return false;
    }
    for (int kind = 0; kind < CALLS_KINDS; kind++) {
        int len = snprintf(client->urls[kind], URL_SIZE, "%.*s%s", base, client->options->target,
                           paths[kind]);
        if (len >= URL_SIZE || !make_multi(client, (enum calls_kind)kind)) {
            return false;
        }
    }
    return true;
}

struct calls_client *calls_client_create(const struct measure_options *options)
{
    struct calls_client *client = calloc(1, sizeof(*client));
    if (client != NULL) {
        client->options = options;
        client->epoll_fd = client->signal_fd = -1;
        sl_list_init(&client->free);
    }
    if (client == NULL || curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK || !make(client)) {
        fprintf(stderr, "bench_floor_calls: the client cannot be made\n");
        calls_client_destroy(client);
        return NULL;
    }
    return client;
}

void calls_client_destroy(struct calls_client *client)
{
    if (client == NULL) {
        return;
    }
    while (client->made != NULL) {
        struct question *question = client->made;
        client->made = question->next_made;
        question_destroy(question);
    }
    for (int kind = 0; kind < CALLS_KINDS; kind++) {
        curl_multi_cleanup(client->multis[kind].handle);
    }
    curl_slist_free_all(client->headers);
    if (client->epoll_fd >= 0) {
        close(client->epoll_fd);
    }
    if (client->signal_fd >= 0) {
        close(client->signal_fd);
    }
    curl_global_cleanup();
    free(client);
}
