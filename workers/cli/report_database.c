/*
 * A report from the analytics database, which counts and ranks by itself: three statements, one
 * after the other, on a loop that turns until the last is answered or something failed.
 */
#include "workers/cli/report.h"

#include "common/postgres.h"

#include <stdio.h>
#include <stdlib.h>

enum { STATEMENT_MS = 60000, PARAMS = 2, NUMBER = 24 };

struct reading {
    struct sl_loop *loop;
    struct sl_postgres *postgres;
    struct report *report;
    size_t step;
    char from[NUMBER], to[NUMBER]; /* Unix milliseconds. */
    char *why;
    int err;
};

#define SPAN                                                                                       \
    "time >= to_timestamp($1::bigint / 1000.0) AND time < to_timestamp($2::bigint / 1000.0)"
#define MEAN(name) "count(quality->>'" name "'), coalesce(avg((quality->>'" name "')::float), 0)"
#define TRUE_OF(name) "count(*) FILTER (WHERE (quality->>'" name "')::boolean)"

/* clang-format off */
static const char select_counts[] =
    "SELECT count(*), count(*) FILTER (WHERE outcome = 'done'),"
    " count(*) FILTER (WHERE outcome = 'failed'), count(*) FILTER (WHERE outcome = 'cancelled'),"
    " count(*) FILTER (WHERE outcome = 'expired'), count(*) FILTER (WHERE degraded <> '{}'),"
    " count(*) FILTER (WHERE 'vector' = ANY (degraded)),"
    " count(*) FILTER (WHERE 'keyword' = ANY (degraded)),"
    " count(*) FILTER (WHERE 'rerank' = ANY (degraded)),"
    " coalesce(sum(prompt_tokens), 0), coalesce(sum(completion_tokens), 0), count(quality), "
    TRUE_OF("refusal") ", " TRUE_OF("empty") ", " TRUE_OF("sampled") ", "
    MEAN("citation_share") ", " MEAN("word_overlap") ", " MEAN("trigram_overlap") ", "
    MEAN("groundedness") ", " MEAN("relevance")
    " FROM sluice_queries WHERE " SPAN;
/* clang-format on */

static const char select_errors[] =
    "SELECT error_code, error_stage, count(*) FROM sluice_queries WHERE outcome <> 'done' AND " SPAN
    " GROUP BY 1, 2 ORDER BY 3 DESC, 1 LIMIT 16";

static const char select_times[] =
    "WITH q AS (SELECT * FROM sluice_queries WHERE " SPAN "), t (name, ms) AS ("
    " SELECT 'total', latency_ms FROM q WHERE outcome = 'done'"
    " UNION ALL SELECT 'first token', ttft_ms FROM q WHERE outcome = 'done' AND ttft_ms > 0"
    " UNION ALL SELECT 'retrieval', retrieval_latency_ms FROM q WHERE outcome = 'done'"
    " UNION ALL SELECT 'generation', generation_latency_ms FROM q"
    "  WHERE outcome = 'done' AND generation_latency_ms > 0"
    " UNION ALL SELECT key || ', waiting', (value->>'queue_ms')::bigint"
    "  + (value->>'wait_ms')::bigint FROM q, jsonb_each(stages)"
    " UNION ALL SELECT key, (value->>'work_ms')::bigint FROM q, jsonb_each(stages)) "
    "SELECT name, count(ms), percentile_disc(0.5) WITHIN GROUP (ORDER BY ms),"
    " percentile_disc(0.95) WITHIN GROUP (ORDER BY ms),"
    " percentile_disc(0.99) WITHIN GROUP (ORDER BY ms) FROM t WHERE ms IS NOT NULL GROUP BY name";

/* --- answers --- */

/* Numbers that the server wrote, some with a fraction. */
static double number_at(const struct sl_postgres_result *result, int row, int column)
{
    struct sl_span value = sl_postgres_value(result, row, column);
    return value.data != NULL ? strtod(value.data, NULL) : 0;
}

static uint64_t count_at(const struct sl_postgres_result *result, int row, int column)
{
    double value = number_at(result, row, column);
    return value > 0 ? (uint64_t)value : 0;
}

static struct report_mean mean_at(const struct sl_postgres_result *result, int column)
{
    return (struct report_mean){count_at(result, 0, column), number_at(result, 0, column + 1)};
}

static void read_counts(struct report *report, const struct sl_postgres_result *result)
{
    int column = 0;
    report->queries = count_at(result, 0, column++);
    for (size_t i = 0; i < REPORT_OUTCOMES; i++) {
        report->outcomes[i] = count_at(result, 0, column++);
    }
    report->degraded = count_at(result, 0, column++);
    for (size_t i = 0; i < 3; i++) {
        report->degraded_parts[i] = count_at(result, 0, column++);
    }
    report->prompt_tokens = count_at(result, 0, column++);
    report->completion_tokens = count_at(result, 0, column++);
    report->answers = count_at(result, 0, column++);
    report->refusals = count_at(result, 0, column++);
    report->empty = count_at(result, 0, column++);
    report->sampled = count_at(result, 0, column++);
    report->citation_share = mean_at(result, column);
    report->word_overlap = mean_at(result, column + 2);
    report->trigram_overlap = mean_at(result, column + 4);
    report->groundedness = mean_at(result, column + 6);
    report->relevance = mean_at(result, column + 8);
    report->judged = report->groundedness.count;
}

static void copy_at(const struct sl_postgres_result *result, int row, int column, char *to,
                    size_t size)
{
    struct sl_span value = sl_postgres_value(result, row, column);
    snprintf(to, size, "%s", value.data != NULL ? value.data : ""); /* libpq ends it in a zero. */
}

static void read_errors(struct report *report, const struct sl_postgres_result *result)
{
    for (int i = 0; i < result->rows && i < REPORT_ERRORS; i++) {
        struct report_error *error = &report->errors[report->error_count++];
        copy_at(result, i, 0, error->code, sizeof(error->code));
        copy_at(result, i, 1, error->stage, sizeof(error->stage));
        error->count = count_at(result, i, 2);
    }
}

static void read_times(struct report *report, const struct sl_postgres_result *result)
{
    for (int row = 0; row < result->rows; row++) {
        struct sl_span name = sl_postgres_value(result, row, 0);
        for (size_t i = 0; i < REPORT_TIME_COUNT; i++) {
            if (sl_span_is(name, report_time_name((enum report_time)i))) {
                report->times[i] =
                    (struct report_times){count_at(result, row, 1), number_at(result, row, 2),
                                          number_at(result, row, 3), number_at(result, row, 4)};
            }
        }
    }
}

/* --- asking --- */

static const struct {
    const char *sql;
    void (*read)(struct report *report, const struct sl_postgres_result *result);
} statements[] = {
    {select_counts, read_counts}, {select_errors, read_errors}, {select_times, read_times}};
enum { STATEMENTS = sizeof(statements) / sizeof(statements[0]) };

static void end(struct reading *reading, int err, const char *why)
{
    if (reading->err == 0 && err != 0) {
        reading->err = err;
        snprintf(reading->why, REPORT_WHY, "%s", why);
    }
    sl_loop_stop(reading->loop);
}

static void on_answer(void *ctx, const struct sl_postgres_result *result);

static void ask_next(struct reading *reading)
{
    const struct sl_span params[PARAMS] = {sl_span_of(reading->from), sl_span_of(reading->to)};
    if (reading->step == STATEMENTS) {
        end(reading, 0, "");
        return;
    }
    int rv = sl_postgres_query(reading->postgres, statements[reading->step].sql, params, PARAMS,
                               STATEMENT_MS, on_answer, reading);
    if (rv != 0) {
        end(reading, rv, sl_error_text(rv));
    }
}

static void on_answer(void *ctx, const struct sl_postgres_result *result)
{
    struct reading *reading = ctx;
    bool missing = strcmp(result->sqlstate, "42P01") == 0;
    if (result->err != 0) {
        end(reading, missing ? -SL_ENOENT : result->err, result->why);
        return;
    }
    statements[reading->step++].read(reading->report, result);
    ask_next(reading);
}

static void on_up(void *ctx)
{
    ask_next(ctx);
}

static void on_down(void *ctx, const char *why)
{
    end(ctx, -SL_ECONN, why);
}

int report_from_database(const char *url, struct report *report, char why[REPORT_WHY])
{
    struct reading reading = {.report = report, .why = why};
    const struct sl_postgres_config config = {.url = url,
                                              .application = "sluice report",
                                              .on_up = on_up,
                                              .on_down = on_down,
                                              .ctx = &reading};
    snprintf(reading.from, sizeof(reading.from), "%lld", (long long)report->from_ms);
    snprintf(reading.to, sizeof(reading.to), "%lld", (long long)report->to_ms);
    why[0] = '\0';
    int rv = sl_loop_create(&reading.loop);
    if (rv != 0) {
        snprintf(why, REPORT_WHY, "%s", sl_error_text(rv));
        return rv;
    }
    rv = sl_postgres_create(reading.loop, &config, &reading.postgres, why, REPORT_WHY);
    if (rv == 0) {
        sl_loop_run(reading.loop);
        rv = reading.err;
        sl_postgres_destroy(reading.postgres);
    }
    sl_loop_destroy(reading.loop);
    return rv;
}
