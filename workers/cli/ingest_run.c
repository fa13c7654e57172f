/*
 * A run of ingestion from its beginning to its end. It begins in the account, then files are read
 * and sent (ingest_send.c) while the account is read twenty times a second (ingest_watch.c):
 * sluice-ingest counts there what was stored and what could not be. When the last document is on
 * the topic the run is closed, and it is over when all of them are counted.
 *
 * It may end early: on ctrl-C, when Kafka refuses, or when nothing moved for the time-out. Then
 * nothing more is sent, what is on its way is waited for, some seconds at most, and closed in the
 * account: the workers do the rest, and a second run finds it unchanged. A second ctrl-C does not
 * even wait for that.
 */
#include "workers/cli/ingest_internal.h"

#include "common/clock.h"
#include "common/codec.h"

#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

enum {
    TICK_MS = 50,
    LEAVE_MS = 4000,
    READ_GRACE_MS = 500,
    RATE_MS = 10000, /* The rate is that of one to two of these. */
    MESSAGE_MAX = 24 << 20,
    FLUSH_MS = 1000,
    TOPIC_MS = 10000,
};

/* --- how it ends --- */

void ingest_moved(struct ingest_state *state)
{
    state->moved_ms = sl_clock_now_ms();
}

void ingest_end(struct ingest_state *state)
{
    state->over = true;
    sl_loop_stop(state->loop);
}

static void leave(struct ingest_state *state)
{
    if (!state->leaving) {
        state->leaving = true;
        state->leave_by_ms = sl_clock_now_ms() + LEAVE_MS;
    }
}

void ingest_give_up(struct ingest_state *state, const char *format, ...)
{
    va_list args;
    if (state->leaving || state->over) {
        return;
    }
    va_start(args, format);
    vsnprintf(state->run->why, sizeof(state->run->why), format, args);
    va_end(args);
    leave(state);
}

static void on_fatal(void *ctx, const char *why)
{
    ingest_give_up(ctx, "Kafka: %s", why);
}

static void on_signal(void *ctx, int signum)
{
    struct ingest_state *state = ctx;
    (void)signum;
    if (state->interrupted) {
        cli_progress_end(&state->line);
        _exit(CLI_INTERRUPTED);
    }
    state->interrupted = true;
    leave(state);
}

static void on_standstill(struct ingest_state *state)
{
    uint64_t seconds = state->run->timeout_ms / 1000;
    const struct ingest_reading *reading = &state->reading;
    if (reading->busy && reading->file->root != NULL) {
        ingest_give_up(state, "for %" PRIu64 " s %s/%s could not be read", seconds,
                       reading->file->root, reading->file->id);
    } else if (state->in_flight > 0) {
        ingest_give_up(state,
                       "for %" PRIu64 " s Kafka has not acknowledged %zu documents at %s "
                       "(SLUICE_KAFKA_BROKERS)",
                       seconds, state->in_flight, cli_options.brokers);
    } else if (state->redis_why[0] != '\0') {
        ingest_give_up(state, "for %" PRIu64 " s Redis could not be asked: %s (SLUICE_REDIS_URL)",
                       seconds, state->redis_why);
    } else {
        ingest_give_up(state,
                       "%" PRIu64 " of %" PRIu64
                       " documents are not stored, and nothing moved for %" PRIu64
                       " s (%s): sluice status shows which program is not ready and where records "
                       "wait",
                       state->run->sent - state->passed, state->run->sent, seconds, state->waiting);
    }
}

/* --- time --- */

static void draw(struct ingest_state *state)
{
    const struct cli_ingest_run *run = state->run;
    struct ingest_mark now = {.at_ms = sl_clock_now_ms(),
                              .seen = run->processed + run->failed + run->skipped,
                              .chunks = state->known.stored_chunks};
    const struct ingest_mark *old = &state->marks[0];
    const struct cli_progress progress = {
        .done = run->processed,
        .failed = run->failed,
        .skipped = run->skipped,
        .total = run->plan->files.len,
        .chunks = now.chunks,
        .elapsed_ms = now.at_ms - state->began_ms,
        .recent_ms = now.at_ms - old->at_ms,
        .recent_seen = now.seen - old->seen,
        .recent_chunks = now.chunks - old->chunks,
    };
    cli_progress_draw(&state->line, &progress, now.at_ms);
    if (now.at_ms - state->marks[1].at_ms >= RATE_MS) {
        state->marks[0] = state->marks[1];
        state->marks[1] = now;
    }
}

static void on_tick(struct sl_timer *timer)
{
    struct ingest_state *state = SL_ITEM(timer, struct ingest_state, tick);
    uint64_t now_ms = sl_clock_now_ms();
    if (state->over) {
        return;
    }
    ingest_pump(state);
    ingest_read_account(state);
    draw(state);
    bool never_begun = !state->run->begun && !state->asking;
    if (state->leaving && (never_begun || now_ms >= state->leave_by_ms)) {
        ingest_end(state);
        return;
    }
    if (!state->leaving && now_ms - state->moved_ms >= state->run->timeout_ms) {
        on_standstill(state);
    }
    sl_timer_start(state->loop, timer, TICK_MS, on_tick);
}

static void on_link(void *ctx, const char *run_id, const char *why)
{
    struct ingest_state *state = ctx;
    snprintf(state->redis_why, sizeof(state->redis_why), "%s", run_id != NULL ? "" : why);
    ingest_watch(state);
}

static void on_room(void *ctx)
{
    ingest_pump(ctx);
}

/* --- the run --- */

static int create_parts(struct ingest_state *state, char *why, size_t why_size)
{
    const struct sl_kafka_config kafka = {.brokers = cli_options.brokers, .client_id = "sluice"};
    const struct sl_redis_config redis = {
        .url = cli_options.redis_url, .on_link = on_link, .ctx = state};
    int rv = sl_loop_create(&state->loop);
    rv = rv != 0 ? rv : sl_signal_create(state->loop, SIGINT, on_signal, state, &state->sigint);
    rv = rv != 0 ? rv : sl_signal_create(state->loop, SIGTERM, on_signal, state, &state->sigterm);
    rv = rv != 0 ? rv
                 : sl_producer_create(state->loop, &kafka, on_fatal, state, &state->producer, why,
                                      why_size);
    rv = rv != 0 ? rv : sl_redis_create(state->loop, &redis, &state->redis, why, why_size);
    if (rv == 0) {
        sl_producer_on_room(state->producer, on_room, state);
        sl_producer_warm(state->producer, state->topic);
        state->env = (struct sl_ingest_env){.redis = state->redis,
                                            .prefix = cli_options.topic_prefix,
                                            .ttl_ms = (uint64_t)cli_options.result_ttl_ms,
                                            .tenant = SL_SPAN("default")};
    }
    return rv;
}

static void destroy_parts(struct ingest_state *state)
{
    state->over = true;
    if (state->loop == NULL) {
        return;
    }
    sl_timer_stop(state->loop, &state->tick);
    if (state->producer != NULL) {
        sl_producer_destroy(state->producer, FLUSH_MS);
    }
    sl_redis_destroy(state->redis);
    sl_signal_destroy(state->sigint);
    sl_signal_destroy(state->sigterm);
    sl_loop_destroy(state->loop);
    ingest_watch_fini(state);
}

/* Whether the topic is there, asked before anything is read: the producer would wait for it long.
 */
static bool topic_exists(struct ingest_state *state)
{
    const struct sl_kafka_config kafka = {.brokers = cli_options.brokers, .client_id = "sluice"};
    struct cli_ingest_run *run = state->run;
    int count = sl_kafka_partition_count(&kafka, state->topic, TOPIC_MS);
    if (count == -SL_ENOENT) {
        snprintf(run->why, sizeof(run->why),
                 "the topic %s does not exist: sluice topics create makes it", state->topic);
    } else if (count < 0) {
        snprintf(run->why, sizeof(run->why), "Kafka does not answer at %s (SLUICE_KAFKA_BROKERS)",
                 cli_options.brokers);
    }
    return count > 0;
}

/* A file on a disk that does not answer cannot be waited for. */
static void await_reading(struct ingest_state *state)
{
    uint64_t until_ms = sl_clock_now_ms() + READ_GRACE_MS;
    while (state->reading.busy && sl_clock_now_ms() < until_ms) {
        sl_loop_turn(state->loop, TICK_MS);
    }
    state->run->stuck = state->reading.busy;
}

static void run_loop(struct ingest_state *state)
{
    char why[256] = "";
    if (!topic_exists(state)) {
        return;
    }
    int rv = create_parts(state, why, sizeof(why));
    if (rv != 0) {
        snprintf(state->run->why, sizeof(state->run->why), "%s",
                 why[0] != '\0' ? why : sl_error_text(rv));
        return;
    }
    state->began_ms = state->moved_ms = sl_clock_now_ms();
    state->marks[0].at_ms = state->marks[1].at_ms = state->began_ms;
    cli_progress_init(&state->line, stderr, state->began_ms);
    sl_timer_start(state->loop, &state->tick, TICK_MS, on_tick);
    sl_loop_run(state->loop);
    if (state->line.shown) {
        draw(state); /* As it stands at the end. */
    }
    cli_progress_end(&state->line);
    await_reading(state);
}

int cli_ingest_run(struct cli_ingest_run *run)
{
    struct ingest_state *state = calloc(1, sizeof(*state));
    if (state == NULL) {
        snprintf(run->why, sizeof(run->why), "%s", sl_error_text(-SL_ENOMEM));
        return CLI_FAILED;
    }
    state->run = run;
    snprintf(state->topic, sizeof(state->topic), "%s.documents", cli_options.topic_prefix);
    snprintf(state->redis_why, sizeof(state->redis_why), "no connection yet");
    sl_id_new(sl_clock_unix_ms(), run->ingest_id);
    sl_list_init(&state->refusals);
    sl_buf_init(&state->reading.text, CLI_TEXT_ROOM);
    sl_buf_init(&state->reading.message, MESSAGE_MAX);
    signal(SIGPIPE, SIG_IGN);
    run_loop(state);
    bool interrupted = state->interrupted && run->why[0] == '\0';
    if (!run->stuck) { /* Else the pool still uses it. */
        destroy_parts(state);
        sl_buf_fini(&state->reading.text);
        sl_buf_fini(&state->reading.message);
        free(state);
    }
    return interrupted ? CLI_INTERRUPTED : run->why[0] != '\0' ? CLI_FAILED : CLI_DONE;
}

void cli_ingest_run_fini(struct cli_ingest_run *run)
{
    for (size_t i = 0; i < run->failure_count; i++) {
        free(run->failures[i].doc_id);
        free(run->failures[i].reason);
    }
    free(run->failures);
    run->failures = NULL;
}

/* --- what came of it --- */

static void print_failures(const struct cli_ingest_run *run, const struct cli_terminal *err)
{
    enum { NAME_WIDTH_MAX = 60 };
    size_t width = strlen("document");
    for (size_t i = 0; i < run->failure_count; i++) {
        size_t own = cli_text_width(sl_span_of(run->failures[i].doc_id));
        width = own > width && own <= NAME_WIDTH_MAX ? own : width;
    }
    fprintf(stderr, "%s%-*s  why it failed%s\n", cli_style(err, CLI_FAINT), (int)width, "document",
            cli_style(err, CLI_PLAIN));
    for (size_t i = 0; i < run->failure_count; i++) {
        struct sl_span doc_id = sl_span_of(run->failures[i].doc_id);
        size_t own = cli_text_width(doc_id);
        fputs(cli_style(err, CLI_RED), stderr);
        cli_put_text(err, doc_id);
        fprintf(stderr, "%s%*s  ", cli_style(err, CLI_PLAIN), own < width ? (int)(width - own) : 0,
                "");
        cli_put_text(err, sl_span_of(run->failures[i].reason));
        fputc('\n', stderr);
    }
    if (run->failed > run->failure_count) {
        fprintf(stderr, "and %" PRIu64 " more\n", run->failed - run->failure_count);
    }
}

void cli_ingest_report(const struct cli_ingest_run *run, int code)
{
    struct cli_terminal err;
    cli_terminal_init(&err, stderr);
    if (run->failed > 0) {
        print_failures(run, &err);
    }
    if (run->skipped > 0) {
        fprintf(stderr, "%" PRIu64 " skipped: nothing in them has changed\n", run->skipped);
    }
    if (code == CLI_INTERRUPTED) {
        fprintf(stderr,
                "sluice %s: interrupted: %" PRIu64 " of %zu documents were sent, and what was sent "
                "is done all the same\n",
                run->command, run->sent, run->plan->files.len);
    } else if (code == CLI_FAILED) {
        fprintf(stderr, "sluice %s: %s\n", run->command, run->why);
    }
    if (code != CLI_DONE && run->begun) {
        fprintf(stderr,
                "sluice %s: the same command again does what is missing%s; sluice ingest status %s "
                "tells how far this run is\n",
                run->command, run->remove ? "" : " (what is stored and unchanged is skipped)",
                run->ingest_id);
    }
}
