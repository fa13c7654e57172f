/*
 * The log. sl_log_write formats a line on the caller's stack, takes the lock and copies it into a
 * ring; the writer's thread sleeps on a condition variable and writes what is in the ring. The lock
 * is never held over a system call that may wait, so a caller waits for a memcpy at most.
 *
 * The writer writes to a descriptor that it does not own (standard error, often a pipe shared with
 * others), so it must not make it non-blocking. It polls for room first and then writes at most
 * PIPE_BUF bytes, which a pipe that poll calls writable takes at once.
 *
 * What can go wrong:
 * - Nobody reads the pipe: the ring fills, lines are dropped and counted, and the next line that
 *   finds room is preceded by one that says how many were lost.
 * - The descriptor fails (EPIPE, a full disk): what could not be written is dropped and counted.
 *   SIGPIPE is blocked in the writer's thread.
 * - The end of the process: sl_log_stop waits up to 2 s for the ring to empty, then tells the
 * writer to give up. A writer that is stuck inside write() all the same is abandoned with its ring.
 * Before the start and after the stop, lines are written by the caller, if the descriptor has room
 * within 100 ms.
 */
#include "common/log.h"

#include "common/clock.h"
#include "common/json.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

enum {
    RING_SIZE = 1 << 20,
    LINE_SIZE = 16384, /* Of one line; fields that do not fit are left out. */
    VALUE_SIZE = 1024, /* Of one value, before escaping. */
    STOP_MS = 2000,
    GIVE_UP_MS = 500, /* More than POLL_MS: what the writer needs to see that it should give up. */
    POLL_MS = 100,
};

struct sink {
    int fd;
    int done_fd; /* An eventfd: the writer has ended. */
    pthread_t thread;
    pthread_cond_t filled;
    bool stopping;        /* Write what is there, then end. */
    bool giving_up;       /* End now. */
    size_t head, len;     /* Of the ring. */
    uint64_t unmentioned; /* Lines dropped since the last line that said so. */
    char ring[RING_SIZE];
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* Of all below and of the sink. */
static struct sink *sink;   /* NULL: lines are written by the caller. */
static const char *program; /* NULL: the name it was started by. */
static enum sl_log_format format = SL_LOG_TEXT;
static int fallback_fd = STDERR_FILENO;

static atomic_int threshold = SL_LOG_INFO;
static atomic_ullong dropped;

static const char *const level_names[] = {"debug", "info", "warn", "error"};

/* --- a line --- */

static void put_time(struct sl_buf *line)
{
    int64_t now_ms = sl_clock_unix_ms();
    time_t seconds = (time_t)(now_ms / 1000);
    struct tm tm;
    gmtime_r(&seconds, &tm);
    sl_buf_printf(line, "%04d-%02d-%02dT%02d:%02d:%02d.%03dZ", tm.tm_year + 1900, tm.tm_mon + 1,
                  tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec, (int)(now_ms % 1000));
}

static const char *program_name(void)
{
    return program != NULL ? program : program_invocation_short_name;
}

static bool is_bare(struct sl_span text)
{
    for (size_t i = 0; i < text.len; i++) {
        char c = text.data[i];
        if (c <= ' ' || c > '~' || c == '"' || c == '=' || c == '\\') {
            return false;
        }
    }
    return text.len > 0;
}

/* A string value; one that is too long is cut at a character and ends in dots. */
static void put_text(struct sl_json_writer *w, struct sl_span text, bool may_be_bare)
{
    char cut[VALUE_SIZE + 3];
    if (text.len > VALUE_SIZE) {
        size_t len = VALUE_SIZE;
        while (len > VALUE_SIZE - 4 && ((unsigned char)text.data[len] & 0xc0) == 0x80) {
            len--;
        }
        memcpy(cut, text.data, len);
        memcpy(cut + len, "...", 3);
        text = (struct sl_span){cut, len + 3};
    }
    if (may_be_bare && is_bare(text)) {
        sl_buf_append_span(w->out, text);
    } else {
        sl_json_put_string(w, text);
    }
}

static void put_value(struct sl_json_writer *w, const struct sl_field *field, bool may_be_bare)
{
    switch (field->type) {
    case SL_FIELD_SPAN:
        put_text(w, field->span, may_be_bare);
        break;
    case SL_FIELD_INT:
        sl_json_put_int(w, field->integer);
        break;
    case SL_FIELD_NUMBER:
        sl_json_put_number(w, field->number);
        break;
    }
}

static void put_json_line(struct sl_buf *line, enum sl_log_level level, const char *message,
                          va_list fields)
{
    struct sl_json_writer w = {.out = line};
    sl_json_begin_object(&w);
    sl_json_key(&w, "time");
    sl_buf_append_text(line, "\"");
    put_time(line);
    sl_buf_append_text(line, "\"");
    w.comma = true;
    sl_json_key(&w, "level");
    sl_json_put_string(&w, sl_span_of(level_names[level]));
    sl_json_key(&w, "program");
    sl_json_put_string(&w, sl_span_of(program_name()));
    sl_json_key(&w, "message");
    put_text(&w, sl_span_of(message), false);
    for (struct sl_field f = va_arg(fields, struct sl_field); f.key != NULL;
         f = va_arg(fields, struct sl_field)) {
        size_t before = line->len;
        sl_json_key(&w, f.key);
        put_value(&w, &f, false);
        if (sl_buf_error(line) != 0) { /* No room: leave this field out, whole. */
            line->len = before;
            line->err = 0;
            w.comma = true;
        }
    }
}

static void put_text_line(struct sl_buf *line, enum sl_log_level level, const char *message,
                          va_list fields)
{
    put_time(line);
    sl_buf_printf(line, " %s %s ", level_names[level], program_name());
    put_text(&(struct sl_json_writer){.out = line}, sl_span_of(message), false);
    for (struct sl_field f = va_arg(fields, struct sl_field); f.key != NULL;
         f = va_arg(fields, struct sl_field)) {
        size_t before = line->len;
        sl_buf_printf(line, " %s=", f.key);
        put_value(&(struct sl_json_writer){.out = line}, &f, true);
        if (sl_buf_error(line) != 0) {
            line->len = before;
            line->err = 0;
        }
    }
}

static void put_line(struct sl_buf *line, enum sl_log_level level, const char *message,
                     va_list fields)
{
    bool json = format == SL_LOG_JSON;
    line->max = LINE_SIZE - 2; /* Room for the end, whatever the fields take. */
    if (json) {
        put_json_line(line, level, message, fields);
    } else {
        put_text_line(line, level, message, fields);
    }
    line->max = LINE_SIZE;
    sl_buf_append_text(line, json ? "}\n" : "\n");
}

/* --- the writer's thread --- */

static uint64_t count_lines(const char *data, size_t len)
{
    uint64_t count = 0;
    for (size_t i = 0; i < len; i++) {
        count += data[i] == '\n';
    }
    return count;
}

/* A signal starts the wait again. */
static int poll_again(struct pollfd *p, int timeout_ms)
{
    int ready;
    do {
        ready = poll(p, 1, timeout_ms);
    } while (ready < 0 && errno == EINTR);
    return ready;
}

/* Waits for room and writes once: how much was written, 0 when there was no room within POLL_MS,
 * -1 when the descriptor has failed. */
static ssize_t write_some(int fd, const char *data, size_t len)
{
    struct pollfd p = {.fd = fd, .events = POLLOUT};
    int ready = poll_again(&p, POLL_MS);
    if (ready <= 0) {
        return ready;
    }
    ssize_t n = write(fd, data, len < PIPE_BUF ? len : PIPE_BUF);
    if (n < 0 && (errno == EINTR || errno == EAGAIN)) {
        return 0;
    }
    return n;
}

/* The bytes at the head that lie in one piece. */
static struct sl_span first_piece(const struct sink *s)
{
    size_t len = s->len < RING_SIZE - s->head ? s->len : RING_SIZE - s->head;
    return (struct sl_span){s->ring + s->head, len};
}

/* Forgets what is at the head, written or not. */
static void advance(struct sink *s, size_t len)
{
    s->head = (s->head + len) % RING_SIZE;
    s->len -= len;
}

static void drop_first_piece(struct sink *s)
{
    struct sl_span piece = first_piece(s);
    atomic_fetch_add(&dropped, count_lines(piece.data, piece.len));
    advance(s, piece.len);
}

static void *write_ring(void *arg)
{
    struct sink *s = arg;
    pthread_mutex_lock(&lock);
    for (;;) {
        while (s->len == 0 && !s->stopping) {
            pthread_cond_wait(&s->filled, &lock);
        }
        if (s->len == 0 || s->giving_up) {
            break;
        }
        struct sl_span piece = first_piece(s);
        pthread_mutex_unlock(&lock);
        ssize_t n = write_some(s->fd, piece.data, piece.len);
        pthread_mutex_lock(&lock);
        if (n < 0) {
            drop_first_piece(s);
        } else {
            advance(s, (size_t)n);
        }
    }
    while (s->len > 0) {
        drop_first_piece(s);
    }
    pthread_mutex_unlock(&lock);
    (void)eventfd_write(s->done_fd, 1); /* An eventfd at 0 has room. */
    return NULL;
}

/* --- the callers' side, all under the lock --- */

static void put_in_ring(struct sink *s, struct sl_span line)
{
    size_t tail = (s->head + s->len) % RING_SIZE;
    size_t first = line.len < RING_SIZE - tail ? line.len : RING_SIZE - tail;
    memcpy(s->ring + tail, line.data, first);
    memcpy(s->ring, line.data + first, line.len - first);
    s->len += line.len;
    pthread_cond_signal(&s->filled);
}

/* A buf over an array that is already at its maximum never allocates. */
#define LINE_BUF(array) ((struct sl_buf){.data = (array), .cap = LINE_SIZE, .max = LINE_SIZE})

static void put_note(struct sl_buf *line, ...) /* The fields of the line about dropped lines. */
{
    va_list fields;
    va_start(fields, line);
    put_line(line, SL_LOG_WARN, "log lines were dropped", fields);
    va_end(fields);
}

static void offer_to_ring(struct sink *s, struct sl_span line)
{
    char text[LINE_SIZE];
    struct sl_buf note = LINE_BUF(text);
    if (s->unmentioned > 0) {
        put_note(&note, SL_INT("count", s->unmentioned), (struct sl_field){.key = NULL});
    }
    if (note.len + line.len > RING_SIZE - s->len) {
        s->unmentioned++;
        atomic_fetch_add(&dropped, 1);
        return;
    }
    if (note.len > 0) {
        s->unmentioned = 0;
        put_in_ring(s, sl_buf_span(&note));
    }
    put_in_ring(s, line);
}

static void write_directly(struct sl_span line)
{
    while (line.len > 0) {
        ssize_t n = write_some(fallback_fd, line.data, line.len);
        if (n <= 0) {
            atomic_fetch_add(&dropped, 1);
            return;
        }
        line = (struct sl_span){line.data + n, line.len - (size_t)n};
    }
}

bool sl_log_wants(enum sl_log_level level)
{
    return (int)level >= atomic_load_explicit(&threshold, memory_order_relaxed);
}

void sl_log_write(enum sl_log_level level, const char *message, ...)
{
    char text[LINE_SIZE];
    struct sl_buf line = LINE_BUF(text);
    va_list fields;
    if (!sl_log_wants(level)) {
        return;
    }
    va_start(fields, message);
    put_line(&line, level, message, fields);
    va_end(fields);
    pthread_mutex_lock(&lock);
    if (sink != NULL) {
        offer_to_ring(sink, sl_buf_span(&line));
        pthread_mutex_unlock(&lock);
    } else {
        pthread_mutex_unlock(&lock);
        write_directly(sl_buf_span(&line));
    }
}

uint64_t sl_log_dropped(void)
{
    return atomic_load(&dropped);
}

/* --- start and stop --- */

static int start_thread(struct sink *s)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* The thread inherits it. */
    int rv = pthread_create(&s->thread, NULL, write_ring, s);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return rv == 0 ? 0 : -SL_ENOMEM;
}

static void free_sink(struct sink *s)
{
    if (s->done_fd >= 0) {
        close(s->done_fd);
    }
    pthread_cond_destroy(&s->filled);
    free(s);
}

int sl_log_start(const char *name, enum sl_log_level level, enum sl_log_format line_format, int fd)
{
    assert(sink == NULL);
    struct sink *s = calloc(1, sizeof(*s));
    if (s == NULL) {
        return -SL_ENOMEM;
    }
    s->fd = fd;
    pthread_cond_init(&s->filled, NULL);
    s->done_fd = eventfd(0, EFD_CLOEXEC);
    if (s->done_fd < 0 || start_thread(s) != 0) {
        free_sink(s);
        return -SL_ENOMEM;
    }
    program = name;
    format = line_format;
    fallback_fd = fd;
    atomic_store(&threshold, (int)level);
    pthread_mutex_lock(&lock);
    sink = s;
    pthread_mutex_unlock(&lock);
    return 0;
}

static bool wait_done(const struct sink *s, int timeout_ms)
{
    struct pollfd p = {.fd = s->done_fd, .events = POLLIN};
    return poll_again(&p, timeout_ms) > 0;
}

void sl_log_stop(void)
{
    pthread_mutex_lock(&lock);
    struct sink *s = sink;
    sink = NULL;
    if (s == NULL) {
        pthread_mutex_unlock(&lock);
        return;
    }
    s->stopping = true;
    pthread_cond_signal(&s->filled);
    pthread_mutex_unlock(&lock);
    if (!wait_done(s, STOP_MS)) {
        pthread_mutex_lock(&lock);
        s->giving_up = true;
        pthread_mutex_unlock(&lock);
        if (!wait_done(s, GIVE_UP_MS)) {
            pthread_detach(s->thread); /* Stuck in write(); the ring stays its own. */
            return;
        }
    }
    pthread_join(s->thread, NULL);
    free_sink(s);
}
