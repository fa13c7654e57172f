/*
 * The five calls of each question, by libcurl's multi interface on one epoll. A question embeds,
 * searches both stores at once, reranks and reads the chat's stream; each answer is taken apart for
 * the next request as soon as it is complete (floor_calls_json.c). There is nothing else: what this
 * costs is what the calls themselves cost a C program.
 *
 * One turn: sleep until a descriptor is ready or something is due (epoll_pwait2 and a timer slack
 * of 1 ns, since milliseconds would show), drive curl, settle what has ended, fail what is overdue,
 * start what is due. Settling happens outside curl, because curl may not be called from its own
 * callbacks; the stream's tokens are counted in the callback, at the time at which they are parsed.
 *
 * Each kind of call has a multi handle of its own, as it would have an upstream of its own: curl
 * looks for an idle connection among all that go to one address, and the chat's long ones would be
 * in the way of the others. Questions and their easy handles are kept and used again.
 *
 * What can go wrong, per question: the failures of measure_run.h; all its other calls are aborted.
 */
#include "tests/bench/floor_calls.h"

#include "tests/bench/measure_clock.h"

#include <assert.h>
#include <curl/curl.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

enum { BODY_MAX = 8 << 20, LINE_MAX_BYTES = 1 << 20, EVENTS = 128, URL_SIZE = 512 };

static const char *const paths[CALLS_KINDS] = {
    "/v1/embeddings", "/collections/docs/points/query", "/docs/_search",
    "/v1/rerank",     "/v1/chat/completions",
};

struct question;

struct transfer {
    struct question *question;
    enum calls_kind kind;
    CURL *easy;
    struct sl_buf request, answer;
    bool running;
};

struct question {
    struct sl_list node; /* In the client's free ones, or in none. */
    struct measure_call call;
    struct calls_client *client;
    struct transfer transfers[CALLS_KINDS];
    struct sl_buf text;
    struct calls_passages passages;
    struct calls_stream stream;
    bool searched; /* One of the two searches is done. */
    bool garbled;
    struct question *next_made;
};

struct multi {
    struct calls_client *client;
    enum calls_kind kind;
    CURLM *handle;
    uint64_t due_ns; /* When curl wants to be called. */
};

struct calls_client {
    const struct measure_options *options;
    struct measure_run *run;
    struct multi multis[CALLS_KINDS];
    struct curl_slist *headers;
    struct sl_list free;
    struct question *made; /* All of them. */
    char urls[CALLS_KINDS][URL_SIZE];
    uint64_t number;
    int epoll_fd, signal_fd;
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

static size_t on_body(char *data, size_t size, size_t count, void *ctx)
{
    struct transfer *transfer = ctx;
    struct sl_span bytes = {data, size * count};
    long status = 0;
    if (transfer->kind != CALLS_CHAT) {
        sl_buf_append_span(&transfer->answer, bytes);
        return sl_buf_error(&transfer->answer) == 0 ? bytes.len : 0;
    }
    curl_easy_getinfo(transfer->easy, CURLINFO_RESPONSE_CODE, &status);
    if (status != 200) {
        return bytes.len;
    }
    struct question *question = transfer->question;
    long tokens = 0, events = 0;
    question->garbled = !calls_stream_read(&question->stream, bytes, &tokens, &events);
    if (tokens > 0) {
        measure_run_tokens(question->client->run, &question->call, tokens, events,
                           measure_now_ns());
    }
    return question->garbled ? 0 : bytes.len;
}

/* --- questions --- */

static bool make_transfer(struct question *question, enum calls_kind kind)
{
    struct transfer *transfer = &question->transfers[kind];
    struct calls_client *client = question->client;
    CURL *easy = curl_easy_init();
    bool good = easy != NULL;
    *transfer = (struct transfer){.question = question, .kind = kind, .easy = easy};
    sl_buf_init(&transfer->request, BODY_MAX);
    sl_buf_init(&transfer->answer, BODY_MAX);
#define SET(option, value) (good = good && curl_easy_setopt(easy, option, value) == CURLE_OK)
    SET(CURLOPT_URL, client->urls[kind]);
    SET(CURLOPT_HTTPHEADER, client->headers);
    SET(CURLOPT_POST, 1L);
    SET(CURLOPT_WRITEFUNCTION, on_body);
    SET(CURLOPT_WRITEDATA, transfer);
    SET(CURLOPT_PRIVATE, transfer);
    SET(CURLOPT_NOSIGNAL, 1L);
    SET(CURLOPT_PROXY, "");
    SET(CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
#undef SET
    return good;
}

static struct question *make_question(struct calls_client *client)
{
    struct question *question = calloc(1, sizeof(*question));
    if (question == NULL) {
        return NULL;
    }
    question->client = client;
    question->next_made = client->made;
    client->made = question; /* Destroyed with the client, also when it is half made. */
    sl_list_init(&question->node);
    sl_buf_init(&question->text, BODY_MAX);
    sl_buf_init(&question->stream.line, LINE_MAX_BYTES);
    for (int kind = 0; kind < CALLS_KINDS; kind++) {
        if (!make_transfer(question, (enum calls_kind)kind)) {
            return NULL;
        }
    }
    return question;
}

static struct question *take_question(struct calls_client *client)
{
    struct sl_list *node = sl_list_first(&client->free);
    if (node == NULL) {
        return make_question(client);
    }
    sl_list_remove(node);
    return SL_ITEM(node, struct question, node);
}

static void give_back(struct question *question)
{
    for (int kind = 0; kind < CALLS_KINDS; kind++) {
        struct transfer *transfer = &question->transfers[kind];
        if (transfer->running) {
            curl_multi_remove_handle(question->client->multis[kind].handle, transfer->easy);
            transfer->running = false;
        }
    }
    calls_passages_clear(&question->passages);
    sl_buf_clear(&question->stream.line);
    question->stream.done = question->searched = question->garbled = false;
    sl_list_push(&question->client->free, &question->node);
}

static void fail(struct question *question, enum measure_failure failure)
{
    measure_run_fail(question->client->run, &question->call, failure, measure_now_ns());
    give_back(question);
}

/* --- calls --- */

static void start_call(struct question *question, enum calls_kind kind)
{
    struct transfer *transfer = &question->transfers[kind];
    struct multi *multi = &question->client->multis[kind];
    curl_off_t len = (curl_off_t)transfer->request.len;
    sl_buf_clear(&transfer->answer);
    if (sl_buf_error(&transfer->request) != 0 ||
        curl_easy_setopt(transfer->easy, CURLOPT_POSTFIELDS, transfer->request.data) != CURLE_OK ||
        curl_easy_setopt(transfer->easy, CURLOPT_POSTFIELDSIZE_LARGE, len) != CURLE_OK ||
        curl_multi_add_handle(multi->handle, transfer->easy) != CURLM_OK) {
        fail(question, MEASURE_CONNECT);
        return;
    }
    transfer->running = true;
}

static struct sl_span answer_of(const struct question *question, enum calls_kind kind)
{
    return sl_buf_span(&question->transfers[kind].answer);
}

/* Makes the request of the next call, if the answers so far allow it. */
static void go_on(struct question *question, enum calls_kind kind, bool written)
{
    if (!written) {
        fail(question, MEASURE_GARBLED);
        return;
    }
    start_call(question, kind);
}

static struct sl_buf *request_of(struct question *question, enum calls_kind kind)
{
    struct sl_buf *request = &question->transfers[kind].request;
    sl_buf_clear(request);
    return request;
}

static void on_embedded(struct question *question)
{
    calls_write_keyword(request_of(question, CALLS_KEYWORD), sl_buf_span(&question->text));
    if (!calls_write_vector(request_of(question, CALLS_VECTOR), answer_of(question, CALLS_EMBED)) ||
        sl_buf_error(&question->transfers[CALLS_KEYWORD].request) != 0) {
        fail(question, MEASURE_GARBLED);
        return;
    }
    start_call(question, CALLS_VECTOR);
    if (question->transfers[CALLS_VECTOR].running) {
        start_call(question, CALLS_KEYWORD);
    }
}

static void on_searched(struct question *question)
{
    if (!question->searched) {
        question->searched = true;
        return;
    }
    go_on(question, CALLS_RERANK,
          calls_write_rerank(request_of(question, CALLS_RERANK), sl_buf_span(&question->text),
                             answer_of(question, CALLS_VECTOR), answer_of(question, CALLS_KEYWORD),
                             &question->passages));
}

static void on_answered(struct question *question)
{
    if (!question->stream.done) {
        fail(question, MEASURE_SHORT);
        return;
    }
    measure_run_end(question->client->run, &question->call, measure_now_ns());
    give_back(question);
}

static void on_ended(struct question *question, enum calls_kind kind)
{
    switch (kind) {
    case CALLS_EMBED:
        on_embedded(question);
        break;
    case CALLS_VECTOR:
    case CALLS_KEYWORD:
        on_searched(question);
        break;
    case CALLS_RERANK:
        go_on(question, CALLS_CHAT,
              calls_write_chat(request_of(question, CALLS_CHAT), sl_buf_span(&question->text),
                               &question->passages, answer_of(question, CALLS_RERANK)));
        break;
    default:
        on_answered(question);
        break;
    }
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
                fail(transfer->question, failure_of(transfer->question, result));
            } else if (status != 200) {
                fail(transfer->question, status == 503 ? MEASURE_STATUS_503 : MEASURE_STATUS_OTHER);
            } else {
                on_ended(transfer->question, transfer->kind);
            }
        }
    }
}

/* --- turns --- */

static void write_text(struct question *question)
{
    struct calls_client *client = question->client;
    sl_buf_clear(&question->text);
    sl_buf_printf(&question->text, "Question %llu:", (unsigned long long)client->number++);
    while (question->text.len + 5 < (size_t)client->options->query_bytes) {
        sl_buf_append_text(&question->text, " what");
    }
}

static int start_due(struct calls_client *client, uint64_t now_ns)
{
    while (measure_schedule_next(&client->run->schedule) <= now_ns) {
        struct question *question = take_question(client);
        if (question == NULL) {
            fprintf(stderr, "bench_floor_calls: %s\n", sl_error_text(-SL_ENOMEM));
            return -SL_ENOMEM;
        }
        if (!measure_run_start(client->run, &question->call, now_ns)) {
            sl_list_push(&client->free, &question->node);
            continue;
        }
        write_text(question);
        calls_write_embed(request_of(question, CALLS_EMBED), sl_buf_span(&question->text));
        start_call(question, CALLS_EMBED);
    }
    return 0;
}

static void fail_overdue(struct calls_client *client, uint64_t now_ns)
{
    struct measure_call *call;
    while ((call = measure_run_overdue(client->run, now_ns)) != NULL) {
        fail(SL_ITEM(call, struct question, call), MEASURE_TIMEOUT);
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

static void destroy_question(struct question *question)
{
    for (int kind = 0; kind < CALLS_KINDS; kind++) {
        struct transfer *transfer = &question->transfers[kind];
        if (transfer->running) {
            curl_multi_remove_handle(question->client->multis[kind].handle, transfer->easy);
        }
        curl_easy_cleanup(transfer->easy);
        sl_buf_fini(&transfer->request);
        sl_buf_fini(&transfer->answer);
    }
    calls_passages_clear(&question->passages);
    sl_buf_fini(&question->text);
    sl_buf_fini(&question->stream.line);
    free(question);
}

void calls_client_destroy(struct calls_client *client)
{
    if (client == NULL) {
        return;
    }
    while (client->made != NULL) {
        struct question *question = client->made;
        client->made = question->next_made;
        destroy_question(question);
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
