/*
 * The two stores that a worker is told of, for vectors and for words: their options, their limits,
 * and how they are opened.
 */
#ifndef SLUICE_COMMON_STORE_OPTIONS_H
#define SLUICE_COMMON_STORE_OPTIONS_H

#include "common/options.h"
#include "common/store.h"

struct sl_worker;

enum sl_store_role { SL_STORE_VECTOR, SL_STORE_KEYWORD, SL_STORE_ROLES };

/* Filled from sl_store_option_table. */
struct sl_store_options {
    const char *vector_url, *keyword_url, *sqlite_vec, *analyzer;
    long long vector_limit, keyword_limit;
    long long dim; /* As in sl_store_env. */
    bool write;    /* No option: set by who will write, before it opens them. */
};
extern const struct sl_option sl_store_option_table[];

/* One a role, in their order; how many that is. */
size_t sl_store_limits(const struct sl_store_options *options, struct sl_limit ret[SL_STORE_ROLES]);
/* With the worker's loop and connections. timeout_ms: of one call. As sl_store_open; why names the
 * variable too. */
int sl_store_open_role(struct sl_worker *worker, const struct sl_store_options *options,
                       enum sl_store_role role, long long timeout_ms, struct sl_store **ret,
                       char *why, size_t why_size) SL_CHECKED;

#endif
