/*
 * Admin ports are asked all at once, so that one that hangs costs its time-out and no more. A port
 * that refuses is a program that does not run; one that answers 503 says in its first line what is
 * missing.
 */
#include "workers/cli/scrape.h"

#include "common/http_client.h"
#include "common/loop.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

enum { READY, METRICS, REQUESTS, BODY_MAX = 4 << 20 };
#define COUNT_MAX 1e15 /* More than anything that is counted. */

struct scrape;

struct fetch {
    struct scrape *scrape;
    struct cli_host *host;
    struct sl_http_call *call;
    int what;
};

struct scrape {
    struct sl_loop *loop;
    struct sl_http_client *http;
    struct sl_signal *sigint;
    struct fetch fetches[CLI_HOSTS_MAX * REQUESTS];
    size_t count, open;
    bool interrupted;
};

/* --- Prometheus' text: name{label="value",...} number --- */

/* The next line of the metric; its labels without braces, and its value. False after the last. */
static bool next_sample(struct sl_span text, const char *name, size_t *at, struct sl_span *labels,
                        double *value)
{
    size_t name_len = strlen(name);
    while (*at < text.len) {
        struct sl_span line = {text.data + *at, text.len - *at};
        const char *end = memchr(line.data, '\n', line.len);
        line.len = end != NULL ? (size_t)(end - line.data) : line.len;
        *at += line.len + 1;
        if (!sl_span_begins(line, name) || line.len == name_len ||
            (line.data[name_len] != '{' && line.data[name_len] != ' ')) {
            continue;
        }
        struct sl_span rest = {line.data + name_len, line.len - name_len};
        const char *close = memrchr(rest.data, '}', rest.len);
        *labels = (struct sl_span){"", 0};
        if (rest.data[0] == '{' && close != NULL) {
            *labels = (struct sl_span){rest.data + 1, (size_t)(close - rest.data) - 1};
            rest.len -= (size_t)(close + 1 - rest.data);
            rest.data = close + 1;
        }
        char number[64];
        snprintf(number, sizeof(number), SL_SPAN_FMT, SL_SPAN_ARG(rest));
        *value = strtod(number, NULL);
        return true;
    }
    return false;
}

int64_t cli_metric_sum(struct sl_span text, const char *name)
{
    struct sl_span labels;
    double value, sum = 0;
    bool found = false;
    for (size_t at = 0; next_sample(text, name, &at, &labels, &value);) {
        sum += value;
        found = true;
    }
    return found && sum >= 0 && sum < COUNT_MAX ? (int64_t)sum : -1; /* Neither NaN. */
}

struct sl_span cli_metric_label(struct sl_span text, const char *name, const char *label)
{
    struct sl_span labels;
    double value;
    char key[64];
    size_t at = 0;
    int len = snprintf(key, sizeof(key), "%s=\"", label);
    if (!next_sample(text, name, &at, &labels, &value)) {
        return (struct sl_span){"", 0};
    }
    for (size_t i = 0; i + (size_t)len <= labels.len; i++) {
        bool begins = i == 0 || labels.data[i - 1] == ',';
        if (begins && memcmp(labels.data + i, key, (size_t)len) == 0) {
            const char *from = labels.data + i + len;
            size_t left = labels.len - i - (size_t)len;
            const char *end = memchr(from, '"', left);
            return (struct sl_span){from, end != NULL ? (size_t)(end - from) : left};
        }
    }
    return (struct sl_span){"", 0};
}

/* --- asking --- */

static void on_ready(struct cli_host *host, int err, int status, struct sl_span body,
                     const char *detail)
{
    host->answers = err == 0;
    host->ready = err == 0 && status == 200;
    if (err == -SL_ECONN) {
        snprintf(host->reason, sizeof(host->reason), "not running");
    } else if (err != 0) {
        snprintf(host->reason, sizeof(host->reason), "%s", detail);
    } else if (status != 200) {
        const char *end = body.len > 0 ? memchr(body.data, '\n', body.len) : NULL;
        body.len = end != NULL ? (size_t)(end - body.data) : body.len;
        snprintf(host->reason, sizeof(host->reason), SL_SPAN_FMT, SL_SPAN_ARG(body));
        if (body.len == 0) {
            snprintf(host->reason, sizeof(host->reason), "status %d", status);
        }
    }
}

static void on_metrics(struct cli_host *host, int status, struct sl_span body)
{
    if (status != 200) {
        return;
    }
    struct sl_span program = cli_metric_label(body, "sluice_build_info", "program");
    host->in_flight = cli_metric_sum(body, "sluice_jobs_in_flight");
    if (program.len > 0) {
        snprintf(host->program, sizeof(host->program), SL_SPAN_FMT, SL_SPAN_ARG(program));
    }
}

static void on_end(void *ctx, int err, const struct sl_http_response *response, struct sl_span body,
                   const char *detail)
{
    struct fetch *fetch = ctx;
    fetch->call = NULL;
    if (fetch->what == READY) {
        on_ready(fetch->host, err, response->status, body, detail);
    } else if (err == 0) {
        on_metrics(fetch->host, response->status, body);
    }
    if (--fetch->scrape->open == 0) {
        sl_loop_stop(fetch->scrape->loop);
    }
}

static int start(struct scrape *scrape, struct cli_host *host, int what, uint32_t timeout_ms)
{
    static const struct sl_http_callbacks callbacks = {.on_end = on_end};
    struct fetch *fetch = &scrape->fetches[scrape->count];
    char url[192];
    snprintf(url, sizeof(url), "http://%s%s", host->address,
             what == READY ? "/readyz" : "/metrics");
    const struct sl_http_request request = {.method = "GET",
                                            .url = url,
                                            .connect_timeout_ms = timeout_ms,
                                            .total_timeout_ms = timeout_ms,
                                            .max_body = BODY_MAX,
                                            .callbacks = &callbacks,
                                            .ctx = fetch};
    *fetch = (struct fetch){.scrape = scrape, .host = host, .what = what};
    int rv = sl_http_start(scrape->http, &request, &fetch->call);
    if (rv == 0) {
        scrape->count++;
        scrape->open++;
    } else if (rv == -SL_EINVAL) {
        snprintf(host->reason, sizeof(host->reason), "not an address");
        rv = 0;
    }
    return rv;
}

static void on_sigint(void *ctx, int signum)
{
    struct scrape *scrape = ctx;
    (void)signum;
    scrape->interrupted = true;
    sl_loop_stop(scrape->loop);
}

static int run(struct scrape *scrape, struct cli_host *hosts, size_t count, uint32_t timeout_ms)
{
    const struct sl_http_client_config config = {.max_connections_per_host = REQUESTS};
    int rv = sl_loop_create(&scrape->loop);
    rv = rv != 0 ? rv : sl_signal_create(scrape->loop, SIGINT, on_sigint, scrape, &scrape->sigint);
    rv = rv != 0 ? rv : sl_http_client_create(scrape->loop, &config, &scrape->http);
    for (size_t i = 0; i < count * REQUESTS && rv == 0; i++) {
        int what = i % REQUESTS == 0 ? READY : METRICS;
        rv = start(scrape, &hosts[i / REQUESTS], what, timeout_ms);
    }
    if (rv == 0 && scrape->open > 0) {
        sl_loop_run(scrape->loop);
    }
    for (size_t i = 0; i < scrape->count; i++) {
        if (scrape->fetches[i].call != NULL) {
            sl_http_cancel(scrape->fetches[i].call);
        }
    }
    return rv != 0 ? rv : scrape->interrupted ? -SL_ECANCELLED : 0;
}

int cli_scrape(struct cli_host *hosts, size_t count, uint32_t timeout_ms)
{
    struct scrape *scrape = calloc(1, sizeof(*scrape));
    if (scrape == NULL) {
        return -SL_ENOMEM;
    }
    for (size_t i = 0; i < count; i++) {
        hosts[i].in_flight = -1;
    }
    signal(SIGPIPE, SIG_IGN);
    int rv = run(scrape, hosts, count, timeout_ms);
    if (scrape->loop != NULL) {
        sl_http_client_destroy(scrape->http);
        sl_signal_destroy(scrape->sigint);
        sl_loop_destroy(scrape->loop);
    }
    free(scrape);
    return rv;
}
