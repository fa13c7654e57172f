/* One question after another to the account of ingestion, for commands that do nothing meanwhile.
 */
#ifndef SLUICE_WORKERS_CLI_ACCOUNT_H
#define SLUICE_WORKERS_CLI_ACCOUNT_H

#include "common/ingest_account.h"

struct cli_account {
    struct sl_ingest_env env; /* For the questions, once it is open. */
    struct sl_loop *loop;
    struct sl_redis *redis;
    struct sl_signal *sigint;
    struct sl_timer timer;
    char why[160];
    bool up, answered, late, interrupted;
};

/* Waits until Redis can be asked. 0; -SL_ECONN, -SL_EINVAL, -SL_ENOMEM: why says what;
 * -SL_ECANCELLED: interrupted. The caller calls cli_account_close on every path. */
int cli_account_open(struct cli_account *account) SL_CHECKED;
/* Runs the loop until the question's callback has called cli_account_answered. 0, -SL_ETIMEDOUT,
 * -SL_ECANCELLED. */
int cli_account_wait(struct cli_account *account) SL_CHECKED;
void cli_account_answered(struct cli_account *account);
/* For so long, unless it is interrupted: then -SL_ECANCELLED. */
int cli_account_pause(struct cli_account *account, uint64_t ms) SL_CHECKED;
void cli_account_close(struct cli_account *account);

/* "sluice COMMAND: ..." for what open or a question brought; the exit code. */
int cli_account_failed(const struct cli_account *account, const char *command, int err);

#endif
