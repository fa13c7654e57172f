/*
 * The observe stage: what became of each query, for people who look afterwards. One result in, one
 * analytics record out: on its topic, and where SLUICE_ANALYTICS_URL says so as a row in
 * PostgreSQL.
 *
 * The happy path: the answer is measured (quality.c); if it is among the sampled share, a model
 * judges it (judge.c); the record is written (record.c), sent to its topic and added to the next
 * batch of rows (database.c). The job is done when the row is committed and the broker has the
 * record, so that a worker that is killed at any moment loses nothing: what it had not finished is
 * read again.
 *
 * Results come at least once, and so do their records on the topic: keyed by the query's id, equal
 * but for the times of repeated results and for what a model says twice. The database has each
 * once.
 *
 * What can go wrong: no judgement (recorded as missing, counted); the database away or slow (jobs
 * wait with their slots, so that no more is taken than there are slots, and the group's lag tells);
 * a row that the database refuses for its own sake (its result goes to the dead letters).
 */
#include "workers/observe/observe.h"

#include "common/job.h"
#include "common/worker.h"
#include "workers/observe/database.h"
#include "workers/observe/judge.h"
#include "workers/observe/record.h"

#include <stdio.h>
#include <stdlib.h>

enum { RECORD_MAX = 16 << 20, MODEL_MAX = 256 };

static struct {
    const char *analytics_url;
    int redact;
    double share;
    const char *judge_url, *judge_model, *judge_api_key;
    const char *chat_url, *chat_model, *chat_api_key;
    long long chat_limit, judge_limit, judge_timeout_ms;
} config;

struct observe {
    struct judge *judge;       /* NULL: nothing is sampled. */
    struct database *database; /* NULL: there is none. */
    struct sl_upstream_config upstream;
    char model[MODEL_MAX];
};

struct state {
    struct sl_job *job;
    struct quality quality;
    struct judge_call judging;
    struct sl_buf record;
    struct database_row row;
};

bool observe_samples(struct sl_span query_id, double share)
{
    uint64_t hash = 0xcbf29ce484222325; /* FNV-1a, then mixed: ids differ in few characters. */
    for (size_t i = 0; i < query_id.len; i++) {
        hash = (hash ^ (unsigned char)query_id.data[i]) * 0x100000001b3;
    }
    hash = (hash ^ hash >> 33) * 0xff51afd7ed558ccd;
    hash = (hash ^ hash >> 33) * 0xc4ceb9fe1a85ec53;
    hash ^= hash >> 33;
    return (double)(hash >> 11) < share * (double)(1ULL << 53);
}

/* --- storing --- */

static void on_stored(struct database_row *row, int err, const char *why)
{
    struct state *state = SL_ITEM(row, struct state, row);
    char message[200];
    sl_buf_fini(&state->record);
    if (err == 0) {
        sl_job_done(state->job);
    } else {
        snprintf(message, sizeof(message), "the database refuses its row: %s", why);
        sl_job_fail(state->job, SL_QERR_BAD_REQUEST, message);
    }
}

static void send_record(struct sl_job *job)
{
    struct state *state = sl_job_state(job);
    struct observe *observe = sl_worker_stage(sl_job_worker(job));
    int rv = sl_buf_error(&state->record);
    rv = rv != 0 ? rv
                 : sl_job_send_json(job, "analytics", sl_job_result(job)->query.id,
                                    sl_buf_span(&state->record));
    if (rv == -SL_EAGAIN) {
        sl_job_on_room(job, send_record);
    } else if (rv != 0) {
        sl_buf_fini(&state->record);
        sl_job_fail(job, SL_QERR_INTERNAL, sl_error_text(rv));
    } else if (observe->database != NULL) {
        state->row.json = sl_buf_span(&state->record);
        state->row.on_stored = on_stored;
        database_add(observe->database, &state->row);
    } else {
        sl_buf_fini(&state->record);
        sl_job_done(job);
    }
}

static void write_record(struct state *state)
{
    struct sl_job *job = state->job;
    const struct observe *observe = sl_worker_stage(sl_job_worker(job));
    record_write(sl_job_result(job), sl_job_timestamp_ms(job), (enum record_redact)config.redact,
                 &state->quality, observe->model, &state->record);
    send_record(job);
}

/* --- jobs --- */

static void on_judged(struct judge_call *call)
{
    write_record(SL_ITEM(call, struct state, judging));
}

static void start(struct sl_job *job)
{
    struct observe *observe = sl_worker_stage(sl_job_worker(job));
    struct state *state = sl_job_state(job);
    const struct sl_ended *ended = sl_job_result(job);
    state->job = job;
    sl_buf_init(&state->record, RECORD_MAX);
    quality_measure(ended, &state->quality);
    bool sampled = observe->judge != NULL && state->quality.measured && !state->quality.empty &&
                   observe_samples(ended->query.id, config.share);
    if (!sampled ||
        !judge_start(observe->judge, &state->judging, ended, &state->quality, on_judged)) {
        write_record(state);
    }
}

static void cancel(struct sl_job *job)
{
    struct observe *observe = sl_worker_stage(sl_job_worker(job));
    struct state *state = sl_job_state(job);
    judge_cancel(&state->judging);
    if (observe->database != NULL) {
        database_withdraw(observe->database, &state->row);
    }
    sl_buf_fini(&state->record);
}

/* --- the stage --- */

static void fini(void *stage_state)
{
    struct observe *observe = stage_state;
    judge_destroy(observe->judge);
    database_destroy(observe->database);
    free(observe);
}

/* The judge's upstream: what is not said of it is the chat model's. The key goes with the address,
 * so that it is never sent to another one. */
static int create_judge(struct sl_worker *worker, struct observe *observe, char *why,
                        size_t why_size)
{
    bool own = config.judge_url[0] != '\0';
    const char *model = config.judge_model[0] != '\0' ? config.judge_model : config.chat_model;
    snprintf(observe->model, sizeof(observe->model), "%.*s", (int)strcspn(model, ","), model);
    observe->upstream = (struct sl_upstream_config){
        .url = own ? config.judge_url : config.chat_url,
        .model = observe->model,
        .api_key =
            own || config.judge_api_key[0] != '\0' ? config.judge_api_key : config.chat_api_key,
        .limit = config.chat_limit,
        .connect_timeout_ms = 2000,
        .first_byte_timeout_ms = config.judge_timeout_ms,
        .idle_timeout_ms = config.judge_timeout_ms,
        .timeout_ms = config.judge_timeout_ms,
        .attempts = 3,
    };
    if (observe->upstream.url[0] == '\0') {
        snprintf(why, why_size,
                 "SLUICE_QUALITY_SHARE is more than 0, and neither SLUICE_JUDGE_URL nor "
                 "SLUICE_CHAT_URL names a model to judge with");
        return -SL_EINVAL;
    }
    if (config.judge_limit >= config.chat_limit && config.chat_limit > 1) {
        snprintf(why, why_size, "SLUICE_JUDGE_LIMIT must be less than SLUICE_CHAT_LIMIT");
        return -SL_EINVAL;
    }
    return judge_create(worker, &observe->upstream, &observe->judge);
}

static int init(struct sl_worker *worker, void **ret, char *why, size_t why_size)
{
    struct observe *observe = calloc(1, sizeof(*observe));
    if (observe == NULL) {
        return -SL_ENOMEM;
    }
    *ret = observe;
    int rv = config.share > 0 ? create_judge(worker, observe, why, why_size) : 0;
    if (rv == 0 && config.analytics_url[0] != '\0') {
        rv = database_create(worker, config.analytics_url, &observe->database, why, why_size);
    }
    return rv;
}

static size_t limits(struct sl_limit ret[SL_STAGE_LIMITS])
{
    if (config.share <= 0) {
        return 0;
    }
    ret[0] = (struct sl_limit){.name = "CHAT",
                               .limit = (uint32_t)config.chat_limit,
                               .bulk_max = (uint32_t)config.judge_limit};
    return 1;
}

static const char *const redact_words[] = {"none", "query", "answer", "all", NULL};
static const char *const database_schemes[] = {"postgresql", "postgres", NULL};
static const struct sl_option record_options[] = {
    {.name = "SLUICE_ANALYTICS_URL",
     .type = SL_OPT_URL,
     .offset = offsetof(__typeof__(config), analytics_url),
     .fallback = "",
     .choices = database_schemes,
     .secret = true,
     .help = "Database for the records, as postgresql://user:password@host:port/database; empty: "
             "none, they are on the analytics topic alone."},
    {.name = "SLUICE_ANALYTICS_REDACT",
     .type = SL_OPT_CHOICE,
     .offset = offsetof(__typeof__(config), redact),
     .fallback = "none",
     .choices = redact_words,
     .help = "Texts that are left empty in records, on the topic and in the database."},
    {.name = NULL},
};
static const struct sl_option quality_options[] = {
    {.name = "SLUICE_QUALITY_SHARE",
     .type = SL_OPT_NUMBER,
     .offset = offsetof(__typeof__(config), share),
     .fallback = "0",
     .min = 0,
     .max = 1,
     .help = "Share of the answers that a model judges; 0: none."},
    {.name = "SLUICE_JUDGE_URL",
     .type = SL_OPT_URL,
     .offset = offsetof(__typeof__(config), judge_url),
     .fallback = "",
     .choices = sl_upstream_schemes,
     .help = "Base address of the judge's API; empty: that of the chat model."},
    {.name = "SLUICE_JUDGE_MODEL",
     .type = SL_OPT_STRING,
     .offset = offsetof(__typeof__(config), judge_model),
     .fallback = "",
     .help = "The judge's model name; empty: the first of SLUICE_CHAT_MODEL."},
    {.name = "SLUICE_JUDGE_API_KEY",
     .type = SL_OPT_STRING,
     .offset = offsetof(__typeof__(config), judge_api_key),
     .fallback = "",
     .secret = true,
     .help = "Sent to the judge as a bearer token; empty: the chat model's key where the judge has "
             "no address of its own, else none."},
    {.name = "SLUICE_JUDGE_LIMIT",
     .type = SL_OPT_INT,
     .offset = offsetof(__typeof__(config), judge_limit),
     .fallback = "1",
     .min = 1,
     .max = 100000,
     .help = "Permits of the limit CHAT that judging holds at most, in the whole cluster; less "
             "than that limit, so that answers come first."},
    {.name = "SLUICE_JUDGE_TIMEOUT",
     .type = SL_OPT_DURATION,
     .offset = offsetof(__typeof__(config), judge_timeout_ms),
     .fallback = "30s",
     .min = 1,
     .max = 60000,
     .help = "For one judgement."},
    {.name = NULL},
};
static const struct sl_option chat_options[] = {
    {.name = "SLUICE_CHAT_URL",
     .type = SL_OPT_URL,
     .offset = offsetof(__typeof__(config), chat_url),
     .fallback = "",
     .choices = sl_upstream_schemes,
     .help = "Base address of the chat model's API."},
    {.name = "SLUICE_CHAT_MODEL",
     .type = SL_OPT_STRING,
     .offset = offsetof(__typeof__(config), chat_model),
     .fallback = "",
     .help = "Its model names; the first one judges."},
    {.name = "SLUICE_CHAT_API_KEY",
     .type = SL_OPT_STRING,
     .offset = offsetof(__typeof__(config), chat_api_key),
     .fallback = "",
     .secret = true,
     .help = "Its bearer token."},
    {.name = "SLUICE_CHAT_LIMIT",
     .type = SL_OPT_INT,
     .offset = offsetof(__typeof__(config), chat_limit),
     .fallback = "10",
     .min = 1,
     .max = 100000,
     .help = "Calls in flight at most, in the whole cluster."},
    {.name = NULL},
};
static const struct sl_option_set option_sets[] = {
    {"Analytics", record_options, &config},
    {"Quality", quality_options, &config},
    {"Chat model that judges", chat_options, &config},
};
static const char *const outputs[] = {"analytics", NULL};

const struct sl_stage observe_stage = {
    .name = "observe",
    .synopsis = "Keeps a record of each query and measures the quality of answers.",
    .index = SL_STAGE_COUNT,
    .inputs = {{.topic = "results", .kind = SL_INPUT_RESULT, .bulk = true, .public = true}},
    .outputs = outputs,
    .limits = limits,
    .admin_address = "127.0.0.1:9106",
    .drain_ms = 10000,
    .state_size = sizeof(struct state),
    .option_sets = option_sets,
    .option_set_count = 3,
    .init = init,
    .fini = fini,
    .start = start,
    .cancel = cancel,
};
