/*
 * Metrics in Prometheus' text format. A series is got once, at start or when its label value first
 * appears, and then updated by pointer on the loop's thread. The number of series is limited; past
 * the limit a shared overflow series is returned, so that no caller has to check.
 */
#ifndef SLUICE_COMMON_METRICS_H
#define SLUICE_COMMON_METRICS_H

#include "common/buf.h"

#include <stdint.h>

struct sl_metrics;
struct sl_counter;
struct sl_gauge;
struct sl_histogram;

int sl_metrics_create(size_t max_series, struct sl_metrics **ret) SL_CHECKED;
void sl_metrics_destroy(struct sl_metrics *metrics); /* Frees all series; takes NULL. */

/* Get or create. name and help are static; labels is NULL or text such as `stage="embed"`, copied
 * (label values are escaped by the caller with sl_metrics_escape where they come from outside). One
 * name has one type and one help. */
struct sl_counter *sl_metrics_counter(struct sl_metrics *metrics, const char *name,
                                      const char *help, const char *labels);
struct sl_gauge *sl_metrics_gauge(struct sl_metrics *metrics, const char *name, const char *help,
                                  const char *labels);
/* Buckets in seconds: 1 ms to 60 s in steps of 1, 2.5, 5. */
struct sl_histogram *sl_metrics_histogram(struct sl_metrics *metrics, const char *name,
                                          const char *help, const char *labels);

void sl_counter_add(struct sl_counter *counter, uint64_t n);
uint64_t sl_counter_value(const struct sl_counter *counter);
void sl_gauge_set(struct sl_gauge *gauge, double value);
void sl_gauge_add(struct sl_gauge *gauge, double delta);
double sl_gauge_value(const struct sl_gauge *gauge);
void sl_histogram_observe(struct sl_histogram *histogram, double seconds);

/* The whole registry as text, families together, in order of creation. */
void sl_metrics_write(const struct sl_metrics *metrics, struct sl_buf *out);
/* Appends a label value with \, " and newlines escaped. */
void sl_metrics_escape(struct sl_buf *out, struct sl_span value);

#endif
