/*
 * libpq on the loop. A try to connect goes: the whole of it, name look-up, TLS and password, on a
 * thread of the pool, since libpq looks names up with getaddrinfo, which blocks; the connection
 * then comes to the loop and is watched there. A statement goes: send, flush, wait until readable,
 * take what is there, until its results are whole.
 *
 * What can go wrong:
 * - The server is away, refuses, or hangs while it is connected to: the try ends within
 *   CONNECT_SECONDS an address, and the next begins after a backoff.
 * - It hangs in a statement: its time-out closes the connection. What the server does with it then
 *   is not known, so the caller must be able to run it again.
 * - It ends while nothing is under way: the socket becomes readable, and libpq says that it closed.
 * - The owner goes while a try is on its thread: the try is an orphan, and closes what it opened.
 *
 * The values of options in a URL (sslmode=...) libpq looks at only when it connects. So that a
 * wrong one stops a program at start, it is told at creation to connect to a socket that cannot
 * exist: any complaint but that one is about an option.
 *
 * libpq's texts never hold the password, but for those about a URL that cannot be read: of these
 * only the ones that name a parameter are passed on.
 */
#include "common/postgres.h"

#include "common/backoff.h"
#include "common/clock.h"

#include <assert.h>
#include <libpq-fe.h>
#include <stdio.h>
#include <stdlib.h>

enum { BACKOFF_BASE_MS = 200, BACKOFF_CAP_MS = 10000, WHY_MAX = 320, PARAMS_MAX = 8 };
#define CONNECT_SECONDS "10"

/* A try to connect. Everything but postgres is the pool's thread's until it is done. */
struct attempt {
    struct sl_postgres *postgres; /* NULL: it is gone. */
    char *url;
    const char *application;
    PGconn *conn;
};

struct sl_postgres {
    struct sl_loop *loop;
    struct sl_postgres_config config;
    PGconn *conn; /* NULL: not connected. */
    struct sl_poll *poll;
    struct attempt *attempt;
    struct sl_timer timer; /* The next try, or the time-out of the statement. */
    struct sl_task down;   /* on_down is due. */
    struct sl_backoff backoff;
    sl_postgres_cb *cb; /* Of the statement under way; NULL: there is none. */
    void *ctx;
    PGresult *result; /* The last of it so far, or the first error. */
    bool unflushed;
    char why[WHY_MAX];
};

static void on_retry(struct sl_timer *timer);

/* --- texts --- */

/* libpq's messages end in a newline, and may have several lines. */
static void copy_line(char *to, size_t size, const char *text)
{
    size_t len = strlen(text);
    while (len > 0 && (text[len - 1] == '\n' || text[len - 1] == ' ')) {
        len--;
    }
    len = len < size ? len : size - 1;
    for (size_t i = 0; i < len; i++) {
        to[i] = (unsigned char)text[i] < ' ' ? ' ' : text[i];
    }
    to[len] = '\0';
}

static bool in_class(const char *sqlstate, const char *const *classes)
{
    for (; *classes != NULL; classes++) {
        if (strncmp(sqlstate, *classes, 2) == 0) {
            return true;
        }
    }
    return false;
}

static int error_of(const char *sqlstate)
{
    static const char *const data[] = {"22", "23", NULL};
    static const char *const later[] = {"08", "40", "53", "55", "57", "58", NULL};
    return in_class(sqlstate, data)    ? -SL_EINVAL
           : in_class(sqlstate, later) ? -SL_EUPSTREAM
                                       : -SL_EREJECTED;
}

/* --- closing --- */

static void clear_result(struct sl_postgres *postgres)
{
    PQclear(postgres->result); /* Takes NULL. */
    postgres->result = NULL;
}

static void on_down(struct sl_task *task)
{
    struct sl_postgres *postgres = SL_ITEM(task, struct sl_postgres, down);
    sl_postgres_cb *cb = postgres->cb;
    postgres->cb = NULL;
    if (cb != NULL) {
        bool late = strcmp(postgres->why, "the statement timed out") == 0;
        const struct sl_postgres_result result = {
            .err = late ? -SL_ETIMEDOUT : -SL_ECONN, .sqlstate = "", .why = postgres->why};
        cb(postgres->ctx, &result);
    }
    postgres->config.on_down(postgres->config.ctx, postgres->why);
}

/* The statement under way and the owner learn of it at the end of the turn. */
static void lose(struct sl_postgres *postgres, const char *why)
{
    copy_line(postgres->why, sizeof(postgres->why), why);
    clear_result(postgres);
    sl_poll_destroy(postgres->poll);
    postgres->poll = NULL;
    PQfinish(postgres->conn); /* Takes NULL. */
    postgres->conn = NULL;
    sl_timer_start(postgres->loop, &postgres->timer, sl_backoff_next_ms(&postgres->backoff),
                   on_retry);
    sl_task_defer(postgres->loop, &postgres->down, on_down);
}

void sl_postgres_drop(struct sl_postgres *postgres, const char *why)
{
    if (postgres->conn != NULL) {
        lose(postgres, why);
    }
}

/* --- statements --- */

static void on_timeout(struct sl_timer *timer)
{
    lose(SL_ITEM(timer, struct sl_postgres, timer), "the statement timed out");
}

static void finish_statement(struct sl_postgres *postgres)
{
    const PGresult *data = postgres->result;
    ExecStatusType status = PQresultStatus(data); /* Of NULL: fatal. */
    bool fine = status == PGRES_TUPLES_OK || status == PGRES_COMMAND_OK;
    const char *state = data != NULL ? PQresultErrorField(data, PG_DIAG_SQLSTATE) : NULL;
    const char *words = data != NULL ? PQresultErrorField(data, PG_DIAG_MESSAGE_PRIMARY) : NULL;
    char why[WHY_MAX] = "";
    struct sl_postgres_result result = {.sqlstate = "", .why = why, .data = data};
    if (fine) {
        result.rows = PQntuples(data);
        result.columns = PQnfields(data);
        result.affected = strtoll(PQcmdTuples(postgres->result), NULL, 10);
    } else {
        result.sqlstate = state != NULL ? state : "";
        result.err = error_of(result.sqlstate);
        copy_line(why, sizeof(why), words != NULL ? words : PQerrorMessage(postgres->conn));
    }
    sl_postgres_cb *cb = postgres->cb;
    sl_timer_stop(postgres->loop, &postgres->timer);
    postgres->cb = NULL;
    postgres->result = NULL;
    cb(postgres->ctx, &result);
    PQclear((PGresult *)data);
}

/* Keeps the last result, or the first that is an error. */
static void keep(struct sl_postgres *postgres, PGresult *result)
{
    ExecStatusType status = PQresultStatus(postgres->result);
    bool failed =
        postgres->result != NULL && status != PGRES_TUPLES_OK && status != PGRES_COMMAND_OK;
    if (failed) {
        PQclear(result);
    } else {
        PQclear(postgres->result);
        postgres->result = result;
    }
}

/* Takes what results there are; at their end, the statement is over. */
static void take_results(struct sl_postgres *postgres)
{
    while (postgres->cb != NULL && !postgres->unflushed && !PQisBusy(postgres->conn)) {
        PGresult *result = PQgetResult(postgres->conn);
        if (result != NULL) {
            keep(postgres, result);
        } else if (PQstatus(postgres->conn) == CONNECTION_BAD) {
            lose(postgres, PQerrorMessage(postgres->conn));
        } else {
            finish_statement(postgres);
        }
    }
}

static void flush(struct sl_postgres *postgres)
{
    int rv = PQflush(postgres->conn);
    postgres->unflushed = rv > 0;
    if (rv < 0 ||
        sl_poll_set(postgres->poll, SL_READABLE | (postgres->unflushed ? SL_WRITABLE : 0)) != 0) {
        lose(postgres, PQerrorMessage(postgres->conn));
    }
}

static void on_ready(void *ctx, int events)
{
    struct sl_postgres *postgres = ctx;
    if ((events & SL_READABLE) != 0 && PQconsumeInput(postgres->conn) == 0) {
        lose(postgres, PQerrorMessage(postgres->conn));
        return;
    }
    if (postgres->unflushed) {
        flush(postgres);
    }
    if (postgres->conn != NULL) {
        take_results(postgres);
    }
}

static int send_statement(struct sl_postgres *postgres, const char *sql,
                          const struct sl_span *params, size_t count)
{
    char *texts[PARAMS_MAX] = {NULL};
    const char *values[PARAMS_MAX];
    bool room = true;
    int sent = 0;
    if (count == 0) {
        return PQsendQuery(postgres->conn, sql) != 0 ? 0 : -SL_ECONN;
    }
    for (size_t i = 0; i < count; i++) { /* libpq wants them to end in a zero. */
        texts[i] = params[i].data != NULL ? strndup(params[i].data, params[i].len) : NULL;
        room = room && (params[i].data == NULL || texts[i] != NULL);
        values[i] = texts[i];
    }
    if (room) {
        sent = PQsendQueryParams(postgres->conn, sql, (int)count, NULL, values, NULL, NULL, 0);
    }
    for (size_t i = 0; i < count; i++) {
        free(texts[i]);
    }
    return sent != 0 ? 0 : room ? -SL_ECONN : -SL_ENOMEM;
}

int sl_postgres_query(struct sl_postgres *postgres, const char *sql, const struct sl_span *params,
                      size_t count, uint32_t timeout_ms, sl_postgres_cb *cb, void *ctx)
{
    assert(sl_postgres_ready(postgres) && count <= PARAMS_MAX);
    int rv = send_statement(postgres, sql, params, count);
    if (rv == 0) {
        flush(postgres);
        rv = postgres->conn != NULL ? 0 : -SL_ECONN;
    } else {
        lose(postgres, PQerrorMessage(postgres->conn));
    }
    if (rv == 0) {
        postgres->cb = cb;
        postgres->ctx = ctx;
        sl_timer_start(postgres->loop, &postgres->timer, timeout_ms, on_timeout);
    }
    return rv;
}

struct sl_span sl_postgres_value(const struct sl_postgres_result *result, int row, int column)
{
    const PGresult *data = result->data;
    if (data == NULL || row >= result->rows || column >= result->columns ||
        PQgetisnull(data, row, column)) {
        return (struct sl_span){0};
    }
    return (struct sl_span){PQgetvalue(data, row, column), (size_t)PQgetlength(data, row, column)};
}

bool sl_postgres_ready(const struct sl_postgres *postgres)
{
    return postgres->conn != NULL && postgres->cb == NULL;
}

void sl_postgres_settled(struct sl_postgres *postgres)
{
    sl_backoff_reset(&postgres->backoff);
}

/* --- connecting --- */

static void ignore_notice(void *ctx, const PGresult *notice)
{
    (void)ctx;
    (void)notice;
}

static void connect_on_pool(void *ctx)
{
    struct attempt *attempt = ctx;
    const char *names[] = {"fallback_application_name", "dbname", "connect_timeout",
                           "client_encoding", NULL};
    const char *values[] = {attempt->application, attempt->url, CONNECT_SECONDS, "UTF8", NULL};
    attempt->conn = PQconnectdbParams(names, values, 1);
}

static void adopt(struct sl_postgres *postgres, PGconn *conn)
{
    postgres->conn = conn;
    if (conn == NULL) {
        lose(postgres, sl_error_text(-SL_ENOMEM));
    } else if (PQstatus(conn) != CONNECTION_OK || PQsetnonblocking(conn, 1) != 0) {
        lose(postgres, PQerrorMessage(conn));
    } else if (sl_poll_create(postgres->loop, PQsocket(conn), on_ready, postgres,
                              &postgres->poll) != 0 ||
               sl_poll_set(postgres->poll, SL_READABLE) != 0) {
        lose(postgres, "its socket cannot be watched");
    } else {
        PQsetNoticeReceiver(conn, ignore_notice, NULL);
        postgres->unflushed = false;
        postgres->config.on_up(postgres->config.ctx);
    }
}

static void on_connected(void *ctx)
{
    struct attempt *attempt = ctx;
    struct sl_postgres *postgres = attempt->postgres;
    if (postgres != NULL) {
        postgres->attempt = NULL;
        adopt(postgres, attempt->conn);
    } else {
        PQfinish(attempt->conn);
    }
    free(attempt->url);
    free(attempt);
}

static void on_retry(struct sl_timer *timer)
{
    struct sl_postgres *postgres = SL_ITEM(timer, struct sl_postgres, timer);
    assert(postgres->conn == NULL && postgres->attempt == NULL);
    struct attempt *attempt = calloc(1, sizeof(*attempt));
    if (attempt != NULL) {
        *attempt = (struct attempt){.postgres = postgres,
                                    .url = strdup(postgres->config.url),
                                    .application = postgres->config.application};
        if (attempt->url != NULL &&
            sl_work_submit(postgres->loop, connect_on_pool, on_connected, attempt) == 0) {
            postgres->attempt = attempt;
            return;
        }
        free(attempt->url);
        free(attempt);
    }
    lose(postgres, sl_error_text(-SL_ENOMEM));
}

/* --- the URL --- */

static const char *option_value(const PQconninfoOption *options, const char *name)
{
    for (; options->keyword != NULL; options++) {
        if (strcmp(options->keyword, name) == 0) {
            return options->val;
        }
    }
    return NULL;
}

/* "" where libpq has nothing against the values of the options; else what. */
static void try_options(const char *url, char *why, size_t why_size)
{
    const char *names[] = {"dbname", "host", "hostaddr", "port", NULL};
    const char *values[] = {url, "/nonexistent", "", "5432", NULL};
    PGconn *conn = PQconnectStartParams(names, values, 1);
    const char *words = conn != NULL ? PQerrorMessage(conn) : sl_error_text(-SL_ENOMEM);
    why[0] = '\0';
    if (words[0] != '\0' && strncmp(words, "connection to server", 20) != 0) {
        copy_line(why, why_size, words);
    }
    PQfinish(conn);
}

static bool is_port(const char *text)
{
    long long port;
    while (text != NULL && *text != '\0') { /* Several hosts have a list of them. */
        size_t len = strcspn(text, ",");
        if (len > 0 && sl_span_to_int((struct sl_span){text, len}, 1, 65535, &port) != 0) {
            return false;
        }
        text += len + (text[len] == ',' ? 1 : 0);
    }
    return true;
}

static int check_url(const char *url, char *why, size_t why_size)
{
    static const char about_parameter[] = "invalid URI query parameter";
    char *words = NULL, line[WHY_MAX] = "";
    PQconninfoOption *options = PQconninfoParse(url, &words);
    if (options == NULL) {
        copy_line(line, sizeof(line), words != NULL ? words : sl_error_text(-SL_ENOMEM));
        bool safe = strncmp(line, about_parameter, sizeof(about_parameter) - 1) == 0;
        PQfreemem(words);
        snprintf(why, why_size, "%s", safe ? line : "is not a URL that PostgreSQL's clients know");
        return -SL_EINVAL;
    }
    if (!is_port(option_value(options, "port"))) {
        snprintf(line, sizeof(line), "its port must be a whole number from 1 to 65535");
    } else {
        try_options(url, line, sizeof(line));
    }
    PQconninfoFree(options);
    snprintf(why, why_size, "%s", line);
    return line[0] == '\0' ? 0 : -SL_EINVAL;
}

/* --- life --- */

int sl_postgres_create(struct sl_loop *loop, const struct sl_postgres_config *config,
                       struct sl_postgres **ret, char *why, size_t why_size)
{
    int rv = check_url(config->url, why, why_size);
    if (rv != 0) {
        return rv;
    }
    struct sl_postgres *postgres = calloc(1, sizeof(*postgres));
    if (postgres == NULL) {
        return -SL_ENOMEM;
    }
    postgres->loop = loop;
    postgres->config = *config;
    sl_backoff_init(&postgres->backoff, BACKOFF_BASE_MS, BACKOFF_CAP_MS,
                    sl_clock_now_us() ^ (uint64_t)(uintptr_t)postgres);
    sl_timer_start(loop, &postgres->timer, 0, on_retry);
    *ret = postgres;
    return 0;
}

void sl_postgres_destroy(struct sl_postgres *postgres)
{
    if (postgres == NULL) {
        return;
    }
    if (postgres->attempt != NULL) {
        postgres->attempt->postgres = NULL;
    }
    sl_timer_stop(postgres->loop, &postgres->timer);
    sl_task_cancel(&postgres->down);
    clear_result(postgres);
    sl_poll_destroy(postgres->poll);
    PQfinish(postgres->conn);
    free(postgres);
}
