/*
 * The admin port of a program: /metrics (Prometheus' text format), /healthz (200 while the loop
 * turns) and /readyz (200, or 503 with one line for each condition that is not met). Unencrypted
 * and without authentication: it belongs on loopback or a private network.
 */
#ifndef SLUICE_COMMON_ADMIN_H
#define SLUICE_COMMON_ADMIN_H

#include "common/loop.h"
#include "common/metrics.h"

struct sl_admin;
struct sl_condition;

/* address "host:port", port 0: a free one. Borrows metrics, and adds sluice_build_info to it. 0,
 * -SL_ENOMEM, -SL_EINVAL, -SL_EIO (cannot listen); the reason in why. */
int sl_admin_create(struct sl_loop *loop, const char *address, struct sl_metrics *metrics,
                    struct sl_admin **ret, char *why, size_t why_size) SL_CHECKED;
void sl_admin_destroy(struct sl_admin *admin); /* Frees its conditions; takes NULL. */
int sl_admin_port(const struct sl_admin *admin);

/* A new condition of being ready, not met and "starting" at first; /metrics has it as
 * sluice_condition_met. name is static. NULL: out of memory. */
struct sl_condition *sl_admin_condition(struct sl_admin *admin, const char *name) SL_CHECKED;
/* why: what is missing, one line, copied (up to 159 bytes); not shown when met, and may be NULL
 * then. */
void sl_condition_set(struct sl_condition *condition, bool met, const char *why);

/* Called before each /metrics is written, to refresh gauges. One hook; NULL removes it. */
void sl_admin_on_scrape(struct sl_admin *admin, void (*cb)(void *ctx), void *ctx);

#endif
