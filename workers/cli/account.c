/* A loop, a Redis client and a time-out around single questions. What comes late finds nobody. */
#include "workers/cli/account.h"

#include "workers/cli/cli.h"

#include <signal.h>
#include <stdio.h>

enum { OPEN_MS = 5000, ANSWER_MS = 5000 };

static void on_link(void *ctx, const char *run_id, const char *why)
{
    struct cli_account *account = ctx;
    account->up = run_id != NULL;
    snprintf(account->why, sizeof(account->why), "%s", run_id != NULL ? "" : why);
    if (account->up) {
        sl_loop_stop(account->loop);
    }
}

static void on_sigint(void *ctx, int signum)
{
    struct cli_account *account = ctx;
    (void)signum;
    account->interrupted = true;
    sl_loop_stop(account->loop);
}

static void on_late(struct sl_timer *timer)
{
    struct cli_account *account = SL_ITEM(timer, struct cli_account, timer);
    account->late = true;
    sl_loop_stop(account->loop);
}

/* Until *done, the time is over or it is interrupted. */
static int run_until(struct cli_account *account, const bool *done, uint64_t ms)
{
    account->late = false;
    sl_timer_start(account->loop, &account->timer, ms, on_late);
    while (!*done && !account->late && !account->interrupted) {
        sl_loop_run(account->loop);
    }
    sl_timer_stop(account->loop, &account->timer);
    return account->interrupted ? -SL_ECANCELLED : *done ? 0 : -SL_ETIMEDOUT;
}

int cli_account_open(struct cli_account *account)
{
    *account = (struct cli_account){.loop = NULL};
    const struct sl_redis_config config = {
        .url = cli_options.redis_url, .on_link = on_link, .ctx = account};
    signal(SIGPIPE, SIG_IGN);
    int rv = sl_loop_create(&account->loop);
    rv = rv != 0 ? rv
                 : sl_signal_create(account->loop, SIGINT, on_sigint, account, &account->sigint);
    rv = rv != 0 ? rv
                 : sl_redis_create(account->loop, &config, &account->redis, account->why,
                                   sizeof(account->why));
    if (rv != 0) {
        return rv;
    }
    account->env = (struct sl_ingest_env){.redis = account->redis,
                                          .prefix = cli_options.topic_prefix,
                                          .ttl_ms = (uint64_t)cli_options.result_ttl_ms,
                                          .tenant = SL_SPAN("default")};
    rv = run_until(account, &account->up, OPEN_MS);
    return rv == -SL_ETIMEDOUT ? -SL_ECONN : rv;
}

int cli_account_wait(struct cli_account *account)
{
    int rv = run_until(account, &account->answered, ANSWER_MS);
    account->answered = false;
    return rv;
}

void cli_account_answered(struct cli_account *account)
{
    account->answered = true;
    sl_loop_stop(account->loop);
}

int cli_account_pause(struct cli_account *account, uint64_t ms)
{
    const bool never = false;
    return run_until(account, &never, ms) == -SL_ECANCELLED ? -SL_ECANCELLED : 0;
}

void cli_account_close(struct cli_account *account)
{
    if (account->loop == NULL) {
        return;
    }
    sl_timer_stop(account->loop, &account->timer);
    sl_redis_destroy(account->redis);
    sl_signal_destroy(account->sigint);
    sl_loop_destroy(account->loop);
    account->loop = NULL;
}

int cli_account_failed(const struct cli_account *account, const char *command, int err)
{
    if (err == -SL_ECANCELLED) {
        return CLI_INTERRUPTED;
    }
    fprintf(stderr, "sluice %s: Redis could not be asked: %s (SLUICE_REDIS_URL)\n", command,
            account->why[0] != '\0' ? account->why : sl_error_text(err));
    return CLI_FAILED;
}
