/*
 * The admin port: three pages on the HTTP server, each written when it is asked for.
 *
 * /healthz answers from the loop, so a loop that hangs does not answer: whoever restarts programs
 * needs no more. /readyz tells whether work should be sent here; every part that must be there
 * first (a broker, Redis) has a condition that its owner sets when it changes. /metrics asks the
 * owner to refresh its gauges, writes the registry and adds what the kernel knows about the
 * process; the latter comes from /proc, and a value that cannot be read is left out.
 */
#include "common/admin.h"

#include "common/clock.h"
#include "common/http_server.h"
#include "common/list.h"
#include "common/log.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

enum { PAGE_MAX = 16 * 1024 * 1024, WHY_SIZE = 160 };

struct sl_condition {
    struct sl_list node;
    const char *name;
    struct sl_gauge *gauge;
    bool met;
    char why[WHY_SIZE];
};

struct sl_admin {
    struct sl_http_server *server;
    struct sl_metrics *metrics;
    struct sl_list conditions;
    void (*on_scrape)(void *ctx);
    void *scrape_ctx;
    double started; /* Unix seconds. */
    struct sl_buf page;
};

/* --- the process --- */

static bool resident_bytes(double *ret)
{
    unsigned long long size = 0;
    unsigned long long resident = 0;
    FILE *f = fopen("/proc/self/statm", "re");
    if (f == NULL) {
        return false;
    }
    int found = fscanf(f, "%llu %llu", &size, &resident);
    fclose(f);
    *ret = (double)resident * (double)sysconf(_SC_PAGESIZE);
    return found == 2;
}

static bool open_fds(double *ret)
{
    long count = -1; /* The folder's own descriptor does not count. */
    DIR *dir = opendir("/proc/self/fd");
    if (dir == NULL) {
        return false;
    }
    for (struct dirent *entry = readdir(dir); entry != NULL; entry = readdir(dir)) {
        count += entry->d_name[0] != '.';
    }
    closedir(dir);
    *ret = (double)count;
    return true;
}

static bool cpu_seconds(double *ret)
{
    struct rusage usage;
    if (getrusage(RUSAGE_SELF, &usage) != 0) {
        return false;
    }
    *ret = (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
    return true;
}

static bool dropped_lines(double *ret)
{
    *ret = (double)sl_log_dropped();
    return true;
}

static void write_process_metrics(const struct sl_admin *admin, struct sl_buf *page)
{
    static const struct {
        const char *name, *type, *help;
        bool (*read)(double *ret);
    } values[] = {
        {"process_resident_memory_bytes", "gauge", "Resident memory.", resident_bytes},
        {"process_cpu_seconds_total", "counter", "User and system CPU time.", cpu_seconds},
        {"process_open_fds", "gauge", "Open file descriptors.", open_fds},
        {"sluice_log_dropped_total", "counter", "Log lines that found no room.", dropped_lines},
    };
    double value;
    for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
        if (values[i].read(&value)) {
            sl_buf_printf(page, "# HELP %s %s\n# TYPE %s %s\n%s %.17g\n", values[i].name,
                          values[i].help, values[i].name, values[i].type, values[i].name, value);
        }
    }
    sl_buf_printf(page,
                  "# HELP process_start_time_seconds Unix time of the start.\n"
                  "# TYPE process_start_time_seconds gauge\n"
                  "process_start_time_seconds %.3f\n",
                  admin->started);
}

/* --- the pages --- */

static void answer_metrics(struct sl_admin *admin, struct sl_http_exchange *exchange)
{
    if (admin->on_scrape != NULL) {
        admin->on_scrape(admin->scrape_ctx);
    }
    SL_LIST_EACH(node, &admin->conditions)
    {
        const struct sl_condition *condition = SL_ITEM(node, struct sl_condition, node);
        sl_gauge_set(condition->gauge, condition->met ? 1 : 0);
    }
    sl_metrics_write(admin->metrics, &admin->page);
    write_process_metrics(admin, &admin->page);
    if (sl_buf_error(&admin->page) != 0) {
        sl_http_respond(exchange, 500, "text/plain", NULL, 0, SL_SPAN("out of memory\n"));
        return;
    }
    sl_http_respond(exchange, 200, "text/plain; version=0.0.4", NULL, 0, sl_buf_span(&admin->page));
}

static void answer_ready(struct sl_admin *admin, struct sl_http_exchange *exchange)
{
    SL_LIST_EACH(node, &admin->conditions)
    {
        const struct sl_condition *condition = SL_ITEM(node, struct sl_condition, node);
        if (!condition->met) {
            sl_buf_printf(&admin->page, "%s: %s\n", condition->name, condition->why);
        }
    }
    bool ready = admin->page.len == 0 && sl_buf_error(&admin->page) == 0;
    sl_http_respond(exchange, ready ? 200 : 503, "text/plain", NULL, 0,
                    ready ? SL_SPAN("ready\n") : sl_buf_span(&admin->page));
}

static void on_request(void *ctx, struct sl_http_exchange *exchange)
{
    static const struct sl_http_header allow = {{"allow", 5}, {"GET, HEAD", 9}};
    struct sl_admin *admin = ctx;
    struct sl_span method = sl_http_method(exchange);
    struct sl_span path = sl_http_path(exchange);
    sl_buf_clear(&admin->page);
    if (!sl_span_is(method, "GET") && !sl_span_is(method, "HEAD")) {
        sl_http_respond(exchange, 405, "text/plain", &allow, 1, SL_SPAN("only GET\n"));
    } else if (sl_span_is(path, "/metrics")) {
        answer_metrics(admin, exchange);
    } else if (sl_span_is(path, "/healthz")) {
        sl_http_respond(exchange, 200, "text/plain", NULL, 0, SL_SPAN("ok\n"));
    } else if (sl_span_is(path, "/readyz")) {
        answer_ready(admin, exchange);
    } else {
        sl_http_respond(exchange, 404, "text/plain", NULL, 0,
                        SL_SPAN("/metrics, /healthz or /readyz\n"));
    }
}

static size_t max_body(void *ctx, struct sl_span method, struct sl_span path)
{
    (void)ctx;
    (void)method;
    (void)path;
    return 0;
}

static void error_body(void *ctx, int status, const char *why, struct sl_buf *body)
{
    (void)ctx;
    (void)status;
    sl_buf_printf(body, "%s\n", why);
}

/* --- the owner's side --- */

struct sl_condition *sl_admin_condition(struct sl_admin *admin, const char *name)
{
    struct sl_condition *condition = calloc(1, sizeof(*condition));
    if (condition != NULL) {
        char labels[64];
        snprintf(labels, sizeof(labels), "condition=\"%s\"", name);
        condition->name = name;
        condition->gauge = sl_metrics_gauge(admin->metrics, "sluice_condition_met",
                                            "1 while this condition of readiness is met.", labels);
        sl_list_push(&admin->conditions, &condition->node);
        sl_condition_set(condition, false, "starting");
    }
    return condition;
}

void sl_condition_set(struct sl_condition *condition, bool met, const char *why)
{
    condition->met = met;
    snprintf(condition->why, sizeof(condition->why), "%s", met || why == NULL ? "" : why);
}

void sl_admin_on_scrape(struct sl_admin *admin, void (*cb)(void *ctx), void *ctx)
{
    admin->on_scrape = cb;
    admin->scrape_ctx = ctx;
}

int sl_admin_create(struct sl_loop *loop, const char *address, struct sl_metrics *metrics,
                    struct sl_admin **ret, char *why, size_t why_size)
{
    const struct sl_http_server_config config = {
        .address = address,
        .max_connections = 64,
        .max_header_bytes = 8 * 1024,
        .header_timeout_ms = 10000,
        .body_timeout_ms = 10000,
        .idle_timeout_ms = 120000, /* Scrapes come every minute or oftener. */
        .stall_timeout_ms = 30000,
        .max_write_queue = 64 * 1024,
    };
    const struct sl_http_server_callbacks callbacks = {
        .max_body = max_body, .on_request = on_request, .error_body = error_body};
    char labels[160];
    struct sl_admin *admin = calloc(1, sizeof(*admin));
    if (admin == NULL) {
        snprintf(why, why_size, "%s", sl_error_text(-SL_ENOMEM));
        return -SL_ENOMEM;
    }
    admin->metrics = metrics;
    admin->started = (double)sl_clock_unix_ms() / 1000;
    sl_list_init(&admin->conditions);
    sl_buf_init(&admin->page, PAGE_MAX);
    char reason[WHY_SIZE] = "";
    int err = sl_http_server_create(loop, &config, &callbacks, admin, &admin->server, reason,
                                    sizeof(reason));
    if (err != 0) {
        snprintf(why, why_size, "SLUICE_ADMIN_LISTEN=%s: %s", address, reason);
        free(admin);
        return err;
    }
    snprintf(labels, sizeof(labels), "version=\"%s\",program=\"%.100s\"", SLUICE_VERSION,
             program_invocation_short_name);
    sl_gauge_set(sl_metrics_gauge(metrics, "sluice_build_info", "What runs here.", labels), 1);
    *ret = admin;
    return 0;
}

void sl_admin_destroy(struct sl_admin *admin)
{
    struct sl_list *node;
    if (admin == NULL) {
        return;
    }
    sl_http_server_destroy(admin->server);
    while ((node = sl_list_first(&admin->conditions)) != NULL) {
        sl_list_remove(node);
        free(SL_ITEM(node, struct sl_condition, node));
    }
    sl_buf_fini(&admin->page);
    free(admin);
}

int sl_admin_port(const struct sl_admin *admin)
{
    return sl_http_server_port(admin->server);
}
