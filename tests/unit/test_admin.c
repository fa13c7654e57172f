/* The admin port's pages, without sockets. */
#include "common/admin.h"
#include "tests/support/fake_tcp.h"
#include "tests/support/test.h"

#include <errno.h>

static struct sl_loop *loop;
static struct sl_metrics *metrics;
static struct sl_admin *admin;
static struct sl_tcp *tcp;
static struct sl_gauge *gauge;

static void begin(void)
{
    char why[64];
    CHECK(sl_loop_create(&loop) == 0);
    CHECK(sl_metrics_create(100, &metrics) == 0);
    CHECK(sl_admin_create(loop, "fake", metrics, &admin, why, sizeof(why)) == 0);
    gauge = sl_metrics_gauge(metrics, "things", "Things.", NULL);
    tcp = fake_connect();
}

static void finish(void)
{
    sl_admin_destroy(admin);
    sl_metrics_destroy(metrics);
    sl_loop_destroy(loop);
    fake_free(tcp);
}

static const char *ask(const char *method, const char *path)
{
    char request[128];
    sl_buf_clear(&tcp->out);
    tcp->taken = 0;
    int len = snprintf(request, sizeof(request), "%s %s HTTP/1.1\r\nHost: a\r\n\r\n", method, path);
    fake_send(tcp, (struct sl_span){request, (size_t)len});
    sl_buf_append(&tcp->out, "", 1);
    tcp->out.len--;
    return tcp->out.data;
}

static void on_scrape(void *ctx)
{
    sl_gauge_set(gauge, *(double *)ctx);
}

static double value_of(const char *page, const char *name)
{
    char line[128];
    snprintf(line, sizeof(line), "\n%s ", name);
    const char *found = strstr(page, line);
    CHECK(found != NULL);
    return strtod(found + strlen(line), NULL);
}

TEST(metrics_are_fresh_and_tell_of_the_process)
{
    char build[256];
    double things = 7;
    begin();
    sl_admin_on_scrape(admin, on_scrape, &things);
    const char *page = ask("GET", "/metrics");
    CHECK(strstr(page, "content-type: text/plain; version=0.0.4\r\n") != NULL);
    CHECK(value_of(page, "things") == 7);
    snprintf(build, sizeof(build), "\nsluice_build_info{version=\"%s\",program=\"%s\"} 1\n",
             SLUICE_VERSION, program_invocation_short_name);
    CHECK(strstr(page, build) != NULL);
    CHECK(value_of(page, "process_resident_memory_bytes") > 100000);
    CHECK(value_of(page, "process_cpu_seconds_total") > 0);
    CHECK(value_of(page, "process_start_time_seconds") > 1.6e9);
    double fds = value_of(page, "process_open_fds");
    FILE *one_more = fopen("/dev/null", "re");
    CHECK(one_more != NULL);
    things = 8;
    CHECK(value_of(page, "sluice_log_dropped_total") == 0);
    page = ask("GET", "/metrics");
    CHECK(value_of(page, "things") == 8);
    CHECK(value_of(page, "process_open_fds") == fds + 1);
    fclose(one_more);
    finish();
}

TEST(ready_when_every_condition_is_met)
{
    begin();
    struct sl_condition *redis = sl_admin_condition(admin, "redis");
    struct sl_condition *kafka = sl_admin_condition(admin, "kafka");
    CHECK(redis != NULL && kafka != NULL);
    const char *page = ask("GET", "/readyz");
    CHECK(strstr(page, "HTTP/1.1 503 ") == page);
    CHECK_STR(strstr(page, "\r\n\r\n"), "\r\n\r\nredis: starting\nkafka: starting\n");
    sl_condition_set(kafka, true, NULL);
    sl_condition_set(redis, false, "connection refused");
    CHECK_STR(strstr(ask("GET", "/readyz"), "\r\n\r\n"), "\r\n\r\nredis: connection refused\n");
    CHECK(strstr(ask("GET", "/healthz"), "HTTP/1.1 200 ") != NULL);
    page = ask("GET", "/metrics");
    CHECK(value_of(page, "sluice_condition_met{condition=\"kafka\"}") == 1);
    CHECK(value_of(page, "sluice_condition_met{condition=\"redis\"}") == 0);
    sl_condition_set(redis, true, "");
    page = ask("GET", "/readyz");
    CHECK(strstr(page, "HTTP/1.1 200 ") == page);
    CHECK_STR(strstr(page, "\r\n\r\n"), "\r\n\r\nready\n");
    finish();
}

TEST(other_paths_and_methods_are_refused)
{
    const struct {
        const char *method, *path, *status;
    } cases[] = {
        {"GET", "/healthz", "HTTP/1.1 200 "},
        {"HEAD", "/healthz", "HTTP/1.1 200 "},
        {"GET", "/healthz?verbose", "HTTP/1.1 200 "},
        {"GET", "/", "HTTP/1.1 404 "},
        {"GET", "/metrics/", "HTTP/1.1 404 "},
        {"POST", "/metrics", "HTTP/1.1 405 "},
        {"DELETE", "/", "HTTP/1.1 405 "},
    };
    begin();
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const char *page = ask(cases[i].method, cases[i].path);
        CHECK(strstr(page, cases[i].status) == page);
    }
    CHECK(strstr(ask("PUT", "/readyz"), "\r\nallow: GET, HEAD\r\n") != NULL);
    finish();
}

TEST(taken_port_is_told_with_its_variable)
{
    char why[128];
    CHECK(sl_loop_create(&loop) == 0);
    CHECK(sl_metrics_create(100, &metrics) == 0);
    fake_taken = "address already in use";
    CHECK_INT(sl_admin_create(loop, "127.0.0.1:9101", metrics, &admin, why, sizeof(why)), -SL_EIO);
    CHECK_STR(why, "SLUICE_ADMIN_LISTEN=127.0.0.1:9101: address already in use");
    fake_taken = NULL;
    sl_metrics_destroy(metrics);
    sl_loop_destroy(loop);
}

int main(int argc, char **argv)
{
    const struct test_case cases[] = {
        {"metrics_are_fresh_and_tell_of_the_process", metrics_are_fresh_and_tell_of_the_process},
        {"ready_when_every_condition_is_met", ready_when_every_condition_is_met},
        {"other_paths_and_methods_are_refused", other_paths_and_methods_are_refused},
        {"taken_port_is_told_with_its_variable", taken_port_is_told_with_its_variable},
        {NULL, NULL},
    };
    return run_tests(cases, argc, argv);
}
