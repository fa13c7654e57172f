/*
 * Analytics records as rows in PostgreSQL: gathered into batches, stored once by tenant and query
 * id however often they come, and reported only when they are committed.
 */
#ifndef SLUICE_WORKERS_OBSERVE_DATABASE_H
#define SLUICE_WORKERS_OBSERVE_DATABASE_H

#include "common/buf.h"
#include "common/list.h"

struct sl_worker;
struct database;

/* Connects and makes its tables later, and again for as long as it takes; the condition "database"
 * of the worker says how it stands. -SL_ENOMEM, or -SL_EINVAL with what is wrong with the URL in
 * why. */
int database_create(struct sl_worker *worker, const char *url, struct database **ret, char *why,
                    size_t why_size) SL_CHECKED;
void database_destroy(
    struct database *database); /* All rows are stored or withdrawn. Takes NULL. */

/* A record that is to be stored: a member of its owner, zeroed before. */
struct database_row {
    struct sl_list node;
    struct sl_span json; /* The record; the owner's until on_stored or withdrawal. */
    /* Once, later: 0, committed; else the database will never take it, and why. */
    void (*on_stored)(struct database_row *row, int err, const char *why);
};
void database_add(struct database *database, struct database_row *row);
/* No callback comes; it may be stored all the same. Also of one that was never added. */
void database_withdraw(struct database *database, struct database_row *row);

#endif
