/* What an admin port says: /readyz and /metrics of several programs at once. */
#ifndef SLUICE_WORKERS_CLI_SCRAPE_H
#define SLUICE_WORKERS_CLI_SCRAPE_H

#include "common/buf.h"

#include <stdint.h>

enum { CLI_HOSTS_MAX = 256 };

struct cli_host {
    char address[128]; /* host:port; given by the caller. */
    char program[64];  /* "sluice-embed"; the caller's guess, then what the port says. */
    /* Found out. */
    bool answers, ready;
    char reason[160];  /* Why it is not ready. */
    int64_t in_flight; /* -1: it does not say. */
};

/* Asks all of them, for at most timeout_ms. 0, -SL_ENOMEM, or -SL_ECANCELLED (ctrl-C). */
int cli_scrape(struct cli_host *hosts, size_t count, uint32_t timeout_ms) SL_CHECKED;

/* From Prometheus' text: the sum of a metric over its labels; -1 when it is not there, or no count.
 */
int64_t cli_metric_sum(struct sl_span text, const char *name);
/* The value of a label on the first line of a metric, empty when it is not there; borrowed. */
struct sl_span cli_metric_label(struct sl_span text, const char *name, const char *label);

#endif
