/*
 * The parts of a process that a runtime test has no use for: the log, the admin port, the signals,
 * and the loop's end, which is only noted. The HTTP client is in fake_http.c.
 */
#include "common/admin.h"
#include "common/log.h"
#include "common/process.h"
#include "tests/support/runtime/worker_fixture.h"
#include "tests/support/test.h"

void sl_log_write(enum sl_log_level level, const char *message, ...)
{
    (void)level;
    CHECK(message != NULL);
}

struct sl_admin {
    int unused;
};

struct sl_condition {
    bool met;
};

struct sl_signals {
    void (*on_drain)(void *ctx);
    void (*on_stop)(void *ctx);
    void *ctx;
    bool draining;
};

enum { CONDITIONS = 8 };

static struct sl_admin the_admin;
static struct sl_condition conditions[CONDITIONS];
static const char *condition_names[CONDITIONS];
static size_t condition_count;
static struct sl_signals the_signals;
static bool loop_stopped;

int fx_failing_part;

int fx_part_err(void)
{
    return fx_failing_part > 0 && --fx_failing_part == 0 ? -SL_EIO : 0;
}

int sl_admin_create(struct sl_loop *loop, const char *address, struct sl_metrics *metrics,
                    struct sl_admin **ret, char *why, size_t why_size)
{
    (void)loop;
    (void)address;
    (void)metrics;
    (void)why;
    (void)why_size;
    condition_count = 0;
    loop_stopped = false;
    *ret = &the_admin;
    return fx_part_err();
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
    (void)admin;
    CHECK(condition_count < CONDITIONS);
    condition_names[condition_count] = name;
    return &conditions[condition_count++];
}

void sl_condition_set(struct sl_condition *condition, bool met, const char *why)
{
    CHECK(condition != NULL && (met || why != NULL));
    condition->met = met;
}

void sl_admin_on_scrape(struct sl_admin *admin, void (*cb)(void *ctx), void *ctx)
{
    (void)admin;
    (void)cb;
    (void)ctx;
}

bool fx_ready(const char *name)
{
    for (size_t i = 0; i < condition_count; i++) {
        if (strcmp(condition_names[i], name) == 0) {
            return conditions[i].met;
        }
    }
    CHECK(false && "no such condition");
    return false;
}

int sl_signals_create(struct sl_loop *loop, long long drain_ms, void (*on_drain)(void *ctx),
                      void (*on_stop)(void *ctx), void *ctx, struct sl_signals **ret)
{
    (void)loop;
    (void)drain_ms;
    the_signals = (struct sl_signals){.on_drain = on_drain, .on_stop = on_stop, .ctx = ctx};
    *ret = &the_signals;
    return fx_part_err();
}

void sl_signals_destroy(struct sl_signals *signals)
{
    (void)signals;
}

void fx_signal(void)
{
    if (the_signals.draining) {
        the_signals.on_stop(the_signals.ctx);
    } else {
        the_signals.draining = true;
        the_signals.on_drain(the_signals.ctx);
    }
}

/* Linked in place of sl_loop_stop: the test goes on turning the loop. */
void __wrap_sl_loop_stop(struct sl_loop *loop);
void __wrap_sl_loop_stop(struct sl_loop *loop)
{
    (void)loop;
    loop_stopped = true;
}

bool fx_stopped(void)
{
    return loop_stopped;
}
