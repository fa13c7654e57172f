/* The parts of a process that the simulation has no use for: log, admin port, signals, HTTP. */
#include "tests/support/sim/sim.h"

#include "common/admin.h"
#include "common/http_client.h"
#include "common/log.h"

struct sl_admin {
    int unused;
};

struct sl_condition {
    bool met;
};

static struct sl_admin the_admin;
static struct sl_condition the_condition;

void sl_log_write(enum sl_log_level level, const char *message, ...)
{
    if (level >= SL_LOG_INFO) {
        sim_trace("log: %s", message);
    }
}

int sl_admin_create(struct sl_loop *loop, const char *address, struct sl_metrics *metrics,
                    struct sl_admin **ret, char *why, size_t why_size)
{
    (void)loop, (void)address, (void)metrics, (void)why, (void)why_size;
    *ret = &the_admin;
    return 0;
}

void sl_admin_destroy(struct sl_admin *admin)
{
    (void)admin;
}

int sl_admin_port(const struct sl_admin *admin)
{
    (void)admin;
    return 0;
}

struct sl_condition *sl_admin_condition(struct sl_admin *admin, const char *name)
{
    (void)admin, (void)name;
    return &the_condition;
}

void sl_condition_set(struct sl_condition *condition, bool met, const char *why)
{
    CHECK(met || why != NULL);
    condition->met = met;
}

void sl_admin_on_scrape(struct sl_admin *admin, void (*cb)(void *ctx), void *ctx)
{
    (void)admin, (void)cb, (void)ctx;
}

/* The world drains and kills by itself. */
int sl_signals_create(struct sl_loop *loop, long long drain_ms, void (*on_drain)(void *ctx),
                      void (*on_stop)(void *ctx), void *ctx, struct sl_signals **ret)
{
    (void)loop, (void)drain_ms, (void)on_drain, (void)on_stop, (void)ctx;
    *ret = NULL;
    return 0;
}

void sl_signals_destroy(struct sl_signals *signals)
{
    (void)signals;
}

int sl_http_client_create(struct sl_loop *loop, const struct sl_http_client_config *config,
                          struct sl_http_client **ret)
{
    (void)loop, (void)config;
    *ret = NULL;
    return 0;
}

void sl_http_client_destroy(struct sl_http_client *client)
{
    CHECK(client == NULL);
}

/* --- what waits behind a stage: no stage here has a bound on it --- */

int sl_backlog_create(struct sl_loop *loop, const struct sl_kafka_config *kafka,
                      const struct sl_backlog_topic topics[SL_BACKLOG_TOPICS], long long max,
                      void (*on_room)(void *ctx), void *ctx, struct sl_backlog **ret)
{
    (void)loop;
    (void)kafka;
    (void)topics;
    (void)max;
    (void)on_room;
    (void)ctx;
    *ret = NULL;
    return 0;
}

void sl_backlog_destroy(struct sl_backlog *backlog)
{
    CHECK(backlog == NULL);
}

void sl_backlog_begun(struct sl_backlog *backlog)
{
    (void)backlog;
}

bool sl_backlog_full(const struct sl_backlog *backlog)
{
    (void)backlog;
    return false;
}
