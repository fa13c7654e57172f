/*
 * A connection to PostgreSQL that keeps itself up, on the loop: one statement at a time, libpq
 * underneath. Its user queues statements; after a connection was lost it says again what the server
 * may not have got.
 */
#ifndef SLUICE_COMMON_POSTGRES_H
#define SLUICE_COMMON_POSTGRES_H

#include "common/buf.h"
#include "common/loop.h"

struct sl_postgres;

struct sl_postgres_config {
    const char *url;         /* postgresql://...; borrowed. */
    const char *application; /* What the server's views show it as; static. */
    /* Connected: statements may be run, first of all here. */
    void (*on_up)(void *ctx);
    /* Not, or not any more; it is tried again. why: one line without the password; borrowed. A
     * statement that was under way has had its callback. */
    void (*on_down)(void *ctx, const char *why);
    void *ctx;
};

/* Connects later. -SL_ENOMEM, or -SL_EINVAL: the URL is wrong, or has an option or a value that
 * libpq does not know; what, in why, without the password. */
int sl_postgres_create(struct sl_loop *loop, const struct sl_postgres_config *config,
                       struct sl_postgres **ret, char *why, size_t why_size) SL_CHECKED;
/* Without a callback of a statement that is under way. Takes NULL; from no callback. */
void sl_postgres_destroy(struct sl_postgres *postgres);
bool sl_postgres_ready(const struct sl_postgres *postgres); /* Up, and no statement is under way. */

/* What a statement came to, valid in its callback. */
struct sl_postgres_result {
    int err;              /* 0; else as told below. */
    const char *sqlstate; /* Five characters, "" without an error of the server. */
    const char *why;      /* One line; "" without an error. */
    int rows, columns;    /* Of the last statement in the text. */
    long long affected;
    const void *data; /* libpq's. */
};
/* data NULL: it is null. */
struct sl_span sl_postgres_value(const struct sl_postgres_result *result, int row, int column);

/* err: -SL_EINVAL (the data are at fault: SQLSTATE classes 22 and 23), -SL_EUPSTREAM (the server
 * may take it later: classes 08, 40, 53, 55, 57, 58), -SL_EREJECTED (anything else that it says),
 * -SL_ETIMEDOUT and -SL_ECONN (the connection is gone: whether it was done is not known). */
typedef void sl_postgres_cb(void *ctx, const struct sl_postgres_result *result);

/* Only when ready. With parameters ($1 ..., as text, copied; data NULL: null) sql is one statement,
 * without them it may be several. cb comes once, later. Not 0 (-SL_ECONN, -SL_ENOMEM): it does not,
 * and on_down follows. */
int sl_postgres_query(struct sl_postgres *postgres, const char *sql, const struct sl_span *params,
                      size_t count, uint32_t timeout_ms, sl_postgres_cb *cb, void *ctx) SL_CHECKED;
/* The server is of no use as it is: closes, and tries again after a while. on_down comes later. */
void sl_postgres_drop(struct sl_postgres *postgres, const char *why);
/* It is of use: the next tries begin with short waits again. */
void sl_postgres_settled(struct sl_postgres *postgres);

#endif
