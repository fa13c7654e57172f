/*
 * The registry: families in order of creation, each with its series. Two maps find a family by its
 * name and a series by name and labels; both are used when a series is asked for, never when it is
 * updated. All runs on one thread, so values are plain numbers.
 *
 * Labels may come from outside (a topic, an upstream's status), so their number is limited. A
 * series past the limit is counted under the label overflow="true" of its own family: sums over a
 * family stay right, and the reader sees that labels are missing. Out of memory is treated in the
 * same way, down to one spare series that is never shown.
 */
#include "common/metrics.h"

#include "common/json.h"
#include "common/list.h"
#include "common/map.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>

static const double bounds[] = {0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01,
                                0.025,  0.05,    0.1,    0.25,  0.5,    1,     2.5,
                                5,      10,      25,     50,    60};
enum { BOUND_COUNT = sizeof(bounds) / sizeof(bounds[0]) };

static const char overflow_labels[] = "overflow=\"true\"";

enum type { COUNTER, GAUGE, HISTOGRAM };

struct sl_counter {
    uint64_t value;
};

struct sl_gauge {
    double value;
};

struct sl_histogram {
    uint64_t buckets[BOUND_COUNT + 1]; /* Each by itself; the last is above all bounds. */
    double sum;
};

struct family {
    struct sl_map_node by_name;
    struct sl_list node;
    struct sl_list series;
    const char *name;
    const char *help;
    enum type type;
};

union value {
    struct sl_counter counter;
    struct sl_gauge gauge;
    struct sl_histogram histogram;
};

struct series {
    struct sl_map_node by_key;
    struct sl_list node; /* In its family. */
    union value value;
    size_t name_len;
    char key[]; /* name, a zero, labels, a zero. */
};

struct sl_metrics {
    struct sl_map families_by_name;
    struct sl_map series_by_key;
    struct sl_list families;
    size_t series_count;
    size_t max_series;
    union value spare;
};

int sl_metrics_create(size_t max_series, struct sl_metrics **ret)
{
    struct sl_metrics *metrics = calloc(1, sizeof(*metrics));
    if (metrics == NULL) {
        return -SL_ENOMEM;
    }
    metrics->max_series = max_series;
    sl_list_init(&metrics->families);
    if (sl_map_init(&metrics->families_by_name) != 0) {
        goto err_metrics;
    }
    if (sl_map_init(&metrics->series_by_key) != 0) {
        goto err_families;
    }
    *ret = metrics;
    return 0;

err_families:
    sl_map_fini(&metrics->families_by_name);
err_metrics:
    free(metrics);
    return -SL_ENOMEM;
}

void sl_metrics_destroy(struct sl_metrics *metrics)
{
    if (metrics == NULL) {
        return;
    }
    SL_LIST_EACH_SAFE(f, &metrics->families)
    {
        struct family *family = SL_ITEM(f, struct family, node);
        SL_LIST_EACH_SAFE(s, &family->series)
        {
            free(SL_ITEM(s, struct series, node));
        }
        free(family);
    }
    sl_map_fini(&metrics->series_by_key);
    sl_map_fini(&metrics->families_by_name);
    free(metrics);
}

static struct family *get_family(struct sl_metrics *metrics, const char *name, const char *help,
                                 enum type type)
{
    struct sl_map_node *node = sl_map_find(&metrics->families_by_name, sl_span_of(name));
    if (node != NULL) {
        struct family *found = SL_ITEM(node, struct family, by_name);
        assert(found->type == type && strcmp(found->help, help) == 0);
        return found;
    }
    struct family *family = malloc(sizeof(*family));
    if (family == NULL) {
        return NULL;
    }
    *family = (struct family){.name = name, .help = help, .type = type};
    sl_list_init(&family->series);
    sl_list_init(&family->node);
    sl_list_push(&metrics->families, &family->node);
    sl_map_add(&metrics->families_by_name, &family->by_name, sl_span_of(name));
    return family;
}

/* NULL when it does not exist and may not be made (force: may be made past the limit). */
static struct series *find_or_add(struct sl_metrics *metrics, struct family *family,
                                  const char *labels, bool force)
{
    size_t name_len = strlen(family->name), labels_len = strlen(labels);
    struct series *series = calloc(1, sizeof(*series) + name_len + labels_len + 2);
    if (series == NULL) {
        return NULL;
    }
    series->name_len = name_len;
    memcpy(series->key, family->name, name_len);
    memcpy(series->key + name_len + 1, labels, labels_len);
    struct sl_span key = {series->key, name_len + 1 + labels_len};
    struct sl_map_node *node = sl_map_find(&metrics->series_by_key, key);
    if (node != NULL || (!force && metrics->series_count >= metrics->max_series)) {
        free(series);
        return node != NULL ? SL_ITEM(node, struct series, by_key) : NULL;
    }
    sl_list_init(&series->node);
    sl_list_push(&family->series, &series->node);
    sl_map_add(&metrics->series_by_key, &series->by_key, key);
    metrics->series_count++;
    return series;
}

static union value *get_value(struct sl_metrics *metrics, const char *name, const char *help,
                              const char *labels, enum type type)
{
    struct family *family = get_family(metrics, name, help, type);
    struct series *series = NULL;
    if (family != NULL) {
        series = find_or_add(metrics, family, labels != NULL ? labels : "", false);
        if (series == NULL) {
            series = find_or_add(metrics, family, overflow_labels, true);
        }
    }
    return series != NULL ? &series->value : &metrics->spare;
}

struct sl_counter *sl_metrics_counter(struct sl_metrics *metrics, const char *name,
                                      const char *help, const char *labels)
{
    return &get_value(metrics, name, help, labels, COUNTER)->counter;
}

struct sl_gauge *sl_metrics_gauge(struct sl_metrics *metrics, const char *name, const char *help,
                                  const char *labels)
{
    return &get_value(metrics, name, help, labels, GAUGE)->gauge;
}

struct sl_histogram *sl_metrics_histogram(struct sl_metrics *metrics, const char *name,
                                          const char *help, const char *labels)
{
    return &get_value(metrics, name, help, labels, HISTOGRAM)->histogram;
}

void sl_counter_add(struct sl_counter *counter, uint64_t n)
{
    counter->value += n;
}

uint64_t sl_counter_value(const struct sl_counter *counter)
{
    return counter->value;
}

void sl_gauge_set(struct sl_gauge *gauge, double value)
{
    gauge->value = value;
}

void sl_gauge_add(struct sl_gauge *gauge, double delta)
{
    gauge->value += delta;
}

double sl_gauge_value(const struct sl_gauge *gauge)
{
    return gauge->value;
}

void sl_histogram_observe(struct sl_histogram *histogram, double seconds)
{
    size_t i = 0;
    while (i < BOUND_COUNT && seconds > bounds[i]) {
        i++;
    }
    histogram->buckets[i]++;
    histogram->sum += seconds;
}

/* --- text --- */

static void put_number(struct sl_buf *out, double value)
{
    if (isnan(value)) {
        sl_buf_append_text(out, "NaN");
    } else if (isinf(value)) {
        sl_buf_append_text(out, value > 0 ? "+Inf" : "-Inf");
    } else {
        struct sl_json_writer w = {.out = out};
        sl_json_put_number(&w, value);
    }
}

/* The line up to the value: name, suffix, labels and for buckets the bound. */
static void put_name(struct sl_buf *out, const struct series *series, const char *suffix,
                     const double *bound)
{
    const char *labels = series->key + series->name_len + 1;
    sl_buf_append_text(out, series->key);
    sl_buf_append_text(out, suffix);
    if (labels[0] != '\0' || bound != NULL) {
        sl_buf_printf(out, "{%s", labels);
        if (bound != NULL) {
            sl_buf_append_text(out, labels[0] != '\0' ? ",le=\"" : "le=\"");
            put_number(out, *bound);
            sl_buf_append_text(out, "\"");
        }
        sl_buf_append_text(out, "}");
    }
    sl_buf_append_text(out, " ");
}

static void put_histogram(struct sl_buf *out, const struct series *series)
{
    const struct sl_histogram *histogram = &series->value.histogram;
    uint64_t count = 0;
    for (size_t i = 0; i <= BOUND_COUNT; i++) {
        double bound = i < BOUND_COUNT ? bounds[i] : (double)INFINITY;
        count += histogram->buckets[i];
        put_name(out, series, "_bucket", &bound);
        sl_buf_printf(out, "%llu\n", (unsigned long long)count);
    }
    put_name(out, series, "_sum", NULL);
    put_number(out, histogram->sum);
    sl_buf_append_text(out, "\n");
    put_name(out, series, "_count", NULL);
    sl_buf_printf(out, "%llu\n", (unsigned long long)count);
}

static void put_series(struct sl_buf *out, const struct series *series, enum type type)
{
    switch (type) {
    case COUNTER:
        put_name(out, series, "", NULL);
        sl_buf_printf(out, "%llu\n", (unsigned long long)series->value.counter.value);
        break;
    case GAUGE:
        put_name(out, series, "", NULL);
        put_number(out, series->value.gauge.value);
        sl_buf_append_text(out, "\n");
        break;
    case HISTOGRAM:
        put_histogram(out, series);
        break;
    }
}

void sl_metrics_write(const struct sl_metrics *metrics, struct sl_buf *out)
{
    static const char *const names[] = {"counter", "gauge", "histogram"};
    SL_LIST_EACH(f, &metrics->families)
    {
        const struct family *family = SL_ITEM(f, struct family, node);
        sl_buf_printf(out, "# HELP %s %s\n# TYPE %s %s\n", family->name, family->help, family->name,
                      names[family->type]);
        SL_LIST_EACH(s, &family->series)
        {
            put_series(out, SL_ITEM(s, struct series, node), family->type);
        }
    }
}

void sl_metrics_escape(struct sl_buf *out, struct sl_span value)
{
    for (size_t i = 0; i < value.len; i++) {
        char c = value.data[i];
        if (c == '\n') {
            sl_buf_append(out, "\\n", 2);
        } else if (c == '\\' || c == '"') {
            sl_buf_append(out, (const char[]){'\\', c}, 2);
        } else {
            sl_buf_append(out, &c, 1);
        }
    }
}
