/*
 * `sluice dead redrive` and `sluice dead drop`.
 *
 * Each partition is surveyed first: which records are meant, and which is the last of them. A dry
 * run ends there. Else the partition is read again from its beginning up to that record, in
 * batches:
 *
 *   a record that is meant      is sent to its origin, or (drop) nothing is done with it
 *   a record that is to stay    is written again to the partition that it is on
 *
 * and when the broker has acknowledged all of a batch, all up to its end is deleted. So at any
 * moment a record is at its old place, at its new one, or at both, and never at none. Whoever is
 * stopped between an acknowledgement and the deletion sends that batch again when it is begun anew:
 * the new ids of queries are made so that this runs no query twice.
 *
 * A first SIGINT lets the batch end; a second one ends the program.
 */
#include "workers/cli/dead.h"

#include "common/clock.h"
#include "workers/cli/cli.h"

#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>

enum { BATCH_MAX = 512, BATCH_BYTES = 16 << 20, FLUSH_MS = 1000, SAY_MS = 5000, ROW_MAX = 4096 };

/* A record of the batch. */
struct item {
    struct move_run *run;
    int64_t offset;
    bool taken;        /* Else it stays. */
    bool sent;         /* The broker was asked to take it; */
    bool acknowledged; /* it has it, */
    int err;           /* or not. */
    int32_t to_partition;
    int64_t to_offset;
    char to[DEAD_TOPIC_MAX];
    char id[37];
};

struct move_run {
    const struct dead_move *move;
    const char *command;
    struct dead_source source;
    struct sl_loop *loop;
    struct sl_producer *producer;
    struct cli_terminal terminal;
    struct sl_buf line;
    struct item *items; /* BATCH_MAX of them. */
    size_t count, bytes, pending;
    bool fatal, header_shown;
    uint64_t taken, stayed, worn_out, foreign, homeless;
    char origin[DEAD_TOPIC_MAX]; /* The one that was asked for last, and whether it exists. */
    bool origin_exists;
    /* Of the partition that is worked on: records that were surveyed, and, up to the last that is
     * meant, those that were worked through and all. */
    uint64_t seen, done, total;
    uint64_t said_ms;
};

static volatile sig_atomic_t interrupted;

static void on_sigint(int signum)
{
    (void)signum;
    interrupted = 1;
}

/* --- which records are meant --- */

static void on_topic(void *ctx, const char *name, int32_t partitions)
{
    struct move_run *run = ctx;
    (void)partitions;
    run->origin_exists = run->origin_exists || strcmp(name, run->origin) == 0;
}

/* A producer would wait for it until its time-out. */
static bool origin_exists(struct move_run *run, struct sl_span topic)
{
    if (!sl_span_is(topic, run->origin)) {
        snprintf(run->origin, sizeof(run->origin), SL_SPAN_FMT, SL_SPAN_ARG(topic));
        run->origin_exists = false;
        if (sl_scan_topics(run->source.scan, run->origin, run->origin, on_topic, run) != 0) {
            run->origin_exists = true; /* Not known: sending it tells. */
        }
    }
    return run->origin_exists;
}

static bool is_meant(struct move_run *run, const struct dead_letter *letter, enum dead_fate *fate)
{
    *fate = DEAD_SEND;
    if (!dead_filter_matches(&run->move->filter, letter)) {
        return false;
    }
    if (!run->move->drop) {
        *fate = dead_judge(letter);
        if (*fate == DEAD_SEND && !origin_exists(run, letter->origin_topic)) {
            *fate = DEAD_HOMELESS;
        }
    }
    return true;
}

static void print_row(struct move_run *run, const struct dead_letter *letter, enum dead_fate fate)
{
    const int64_t now_ms = run->move->filter.now_ms;
    int width = run->terminal.tty ? run->terminal.width : 0;
    char note[80] = "";
    if (fate == DEAD_WORN_OUT) {
        snprintf(note, sizeof(note), "(stays: it was tried %lld times)", letter->attempt);
    } else if (fate == DEAD_FOREIGN) {
        snprintf(note, sizeof(note), "(stays: its headers name no origin)");
    } else if (fate == DEAD_HOMELESS) {
        snprintf(note, sizeof(note), "(stays: the topic it came from does not exist)");
    }
    if (!run->header_shown) {
        run->header_shown = true;
        sl_buf_clear(&run->line);
        dead_put_row(NULL, 0, NULL, 0, &run->line);
        printf("%s" SL_SPAN_FMT "%s\n", cli_style(&run->terminal, CLI_FAINT),
               SL_SPAN_ARG(sl_buf_span(&run->line)), cli_style(&run->terminal, CLI_PLAIN));
    }
    sl_buf_clear(&run->line);
    dead_put_row(letter, now_ms, note[0] != '\0' ? note : NULL, width, &run->line);
    cli_put_text(&run->terminal, sl_buf_span(&run->line));
    fputc('\n', stdout);
}

/* Not more often than every few seconds, so that short work is silent. */
static void say_progress(struct move_run *run, const char *topic)
{
    uint64_t now_ms = sl_clock_now_ms();
    if (now_ms - run->said_ms < SAY_MS) {
        return;
    }
    run->said_ms = now_ms;
    if (run->done == 0) {
        fprintf(stderr, "sluice %s: looked at %" PRIu64 " records of %s\n", run->command, run->seen,
                topic);
    } else {
        fprintf(stderr, "sluice %s: %" PRIu64 " of %" PRIu64 " records of %s\n", run->command,
                run->done, run->total, topic);
    }
}

/* *last: the offset of the last record that is to be taken, -1: none is. */
static int survey(struct move_run *run, const char *topic, int32_t partition, int64_t *last)
{
    const struct sl_record *record;
    struct sl_scan *scan = run->source.scan;
    *last = -1;
    run->seen = run->done = run->total = 0;
    int rv = sl_scan_begin(scan, topic, partition, SL_OFFSET_BEGINNING);
    while (rv == 0 && !interrupted && (rv = sl_scan_next(scan, &record)) > 0) {
        struct dead_letter letter;
        enum dead_fate fate;
        dead_read(record, &letter);
        run->seen++;
        say_progress(run, topic);
        rv = 0;
        if (!is_meant(run, &letter, &fate)) {
            continue;
        }
        run->worn_out += fate == DEAD_WORN_OUT;
        run->foreign += fate == DEAD_FOREIGN;
        run->homeless += fate == DEAD_HOMELESS;
        if (fate == DEAD_SEND) {
            *last = record->offset;
            run->total = run->seen;
            run->taken += !run->move->yes;
        }
        if (!run->move->yes) {
            print_row(run, &letter, fate);
        }
    }
    return rv;
}

/* --- a batch --- */

static void on_delivered(void *ctx, int err, int32_t partition, int64_t offset)
{
    struct item *item = ctx;
    item->acknowledged = err == 0;
    item->err = err;
    item->to_partition = partition;
    item->to_offset = offset;
    if (--item->run->pending == 0) {
        sl_loop_stop(item->run->loop);
    }
}

static void on_fatal(void *ctx, const char *why)
{
    struct move_run *run = ctx;
    snprintf(run->source.why, sizeof(run->source.why), "%s", why);
    run->fatal = true;
    sl_loop_stop(run->loop);
}

static void await_reports(struct move_run *run)
{
    while (run->pending > 0 && !run->fatal) {
        sl_loop_run(run->loop);
    }
}

static void send_item(struct move_run *run, struct item *item, const struct sl_outgoing *outgoing)
{
    snprintf(item->to, sizeof(item->to), "%s", outgoing->topic);
    int rv = sl_producer_send(run->producer, outgoing, on_delivered, item);
    if (rv == -SL_EAGAIN) { /* The queue is full of what came before. */
        await_reports(run);
        rv = sl_producer_send(run->producer, outgoing, on_delivered, item);
    }
    item->sent = true;
    item->err = rv;
    run->pending += rv == 0;
}

static void add_item(struct move_run *run, const struct sl_record *record)
{
    struct item *item = &run->items[run->count++];
    struct dead_letter letter;
    enum dead_fate fate;
    dead_read(record, &letter);
    *item = (struct item){.run = run, .offset = record->offset};
    item->taken = is_meant(run, &letter, &fate) && fate == DEAD_SEND;
    run->bytes += record->value.len;
    if (item->taken && run->move->drop) {
        return;
    }
    struct sl_outgoing outgoing = {.topic = record->topic,
                                   .partition = record->partition,
                                   .key = record->key,
                                   .value = record->value,
                                   .headers = record->headers,
                                   .header_count = record->header_count,
                                   .timestamp_ms = record->timestamp_ms};
    struct dead_restored restored;
    if (item->taken) {
        dead_restore(&letter, run->move->keep_reply_to, &restored);
        memcpy(item->id, restored.id, sizeof(item->id));
        outgoing.topic = restored.topic;
        outgoing.partition = -1;
        outgoing.headers = restored.headers;
        outgoing.header_count = restored.header_count;
        outgoing.timestamp_ms = 0;
    }
    send_item(run, item, &outgoing);
}

static void report(struct move_run *run, const char *topic, int32_t partition,
                   const struct item *item)
{
    run->taken += item->taken;
    run->stayed += !item->taken;
    run->done++;
    if (!item->taken) {
        return;
    }
    if (run->move->drop) {
        printf("dropped %s %" PRId32 ":%" PRId64 "\n", topic, partition, item->offset);
    } else {
        printf("sent %s %" PRId32 ":%" PRId64 " to %s %" PRId32 ":%" PRId64 "%s%s\n", topic,
               partition, item->offset, item->to, item->to_partition, item->to_offset,
               item->id[0] != '\0' ? " id " : "", item->id);
    }
}

static int batch_failed(const struct move_run *run, const char *topic, int32_t partition,
                        const struct item *item)
{
    const char *why = run->fatal ? run->source.why : sl_error_text(item->err);
    fflush(stdout);
    if (item->err == -SL_ENOENT) {
        fprintf(stderr, "sluice %s: the topic %s does not exist: sluice topics create makes it\n",
                run->command, item->to);
    } else {
        fprintf(stderr, "sluice %s: %s %" PRId32 ":%" PRId64 " could not be written to %s: %s\n",
                run->command, topic, partition, item->offset, item->to, why);
    }
    return CLI_FAILED;
}

/* Deletes what the broker has elsewhere, up to the first that it has not. */
static int end_batch(struct move_run *run, const char *topic, int32_t partition)
{
    size_t good = 0;
    int code = CLI_DONE;
    await_reports(run);
    while (good < run->count && (!run->items[good].sent || run->items[good].acknowledged)) {
        good++;
    }
    if (good > 0 && sl_scan_delete(run->source.scan, run->items[good - 1].offset + 1) != 0) {
        fflush(stdout);
        fprintf(stderr,
                "sluice %s: %s %" PRId32 ": the records before %" PRId64
                " %scould not be deleted: %s\n",
                run->command, topic, partition, run->items[good - 1].offset + 1,
                run->move->drop ? "" : "were sent and ", run->source.why);
        code = CLI_FAILED;
    } else {
        for (size_t i = 0; i < good; i++) {
            report(run, topic, partition, &run->items[i]);
        }
        say_progress(run, topic);
    }
    if (code == CLI_DONE && good < run->count) {
        code = batch_failed(run, topic, partition, &run->items[good]);
    }
    run->count = run->bytes = 0;
    return code;
}

/* --- the run --- */

static int work_through(struct move_run *run, const char *topic, int32_t partition, int64_t last)
{
    const struct sl_record *record;
    struct sl_scan *scan = run->source.scan;
    int64_t offset = -1;
    int code = CLI_DONE;
    int rv = sl_scan_begin(scan, topic, partition, SL_OFFSET_BEGINNING);
    while (rv == 0 && code == CLI_DONE && offset < last && !interrupted) {
        rv = sl_scan_next(scan, &record);
        if (rv > 0 && record->offset <= last) {
            offset = record->offset;
            add_item(run, record);
            rv = 0;
        } else if (rv >= 0) {
            break; /* The rest was deleted meanwhile. */
        }
        if (run->count == BATCH_MAX || run->bytes >= BATCH_BYTES) {
            code = end_batch(run, topic, partition);
        }
    }
    if (run->count > 0) {
        code = end_batch(run, topic, partition);
    }
    return rv < 0 && code == CLI_DONE ? dead_scan_failed(&run->source, topic) : code;
}

static int run_partition(struct move_run *run, const char *topic, int32_t partition)
{
    int64_t last;
    if (survey(run, topic, partition, &last) != 0) {
        fflush(stdout);
        return dead_scan_failed(&run->source, topic);
    }
    return run->move->yes && last >= 0 && !interrupted ? work_through(run, topic, partition, last)
                                                       : CLI_DONE;
}

static void print_sum(const struct move_run *run)
{
    const char *verb = run->move->drop ? "dropped" : "sent";
    printf("%" PRIu64 " %s%s", run->taken, run->move->yes ? "" : "would be ", verb);
    if (run->worn_out > 0) {
        printf(", %" PRIu64 " tried SLUICE_DEAD_ATTEMPTS=%lld times or more and not %s",
               run->worn_out, cli_options.dead_attempts, verb);
    }
    if (run->foreign > 0) {
        printf(", %" PRIu64 " without an origin and not %s", run->foreign, verb);
    }
    if (run->homeless > 0) {
        printf(", %" PRIu64 " whose topic does not exist and not %s", run->homeless, verb);
    }
    if (run->stayed > 0) {
        printf(", %" PRIu64 " that stay written again", run->stayed);
    }
    printf(run->move->yes || run->taken == 0 ? "\n" : "; nothing was changed: --yes does it\n");
}

static int create_parts(struct move_run *run)
{
    const struct sl_kafka_config kafka = {.brokers = cli_options.brokers, .client_id = "sluice"};
    run->items = calloc(BATCH_MAX, sizeof(*run->items));
    int rv = run->items != NULL ? sl_loop_create(&run->loop) : -SL_ENOMEM;
    rv = rv != 0 ? rv
                 : sl_producer_create(run->loop, &kafka, on_fatal, run, &run->producer,
                                      run->source.why, sizeof(run->source.why));
    if (rv != 0) {
        fprintf(stderr, "sluice %s: %s\n", run->command, sl_error_text(rv));
    }
    return rv == 0 ? CLI_DONE : CLI_FAILED;
}

static void destroy_parts(struct move_run *run)
{
    dead_close(&run->source);
    if (run->producer != NULL) {
        sl_producer_destroy(run->producer, FLUSH_MS);
    }
    if (run->loop != NULL) {
        sl_loop_destroy(run->loop);
    }
    free(run->items);
    sl_buf_fini(&run->line);
}

int dead_move(const struct dead_move *move)
{
    struct sigaction action = {.sa_handler = on_sigint, .sa_flags = (int)SA_RESETHAND};
    struct move_run run = {.move = move,
                           .command = move->drop ? "dead drop" : "dead redrive",
                           .said_ms = sl_clock_now_ms()};
    sigaction(SIGINT, &action, NULL);
    signal(SIGPIPE, SIG_IGN); /* A reader that goes does not stop what was begun. */
    cli_terminal_init(&run.terminal, stdout);
    sl_buf_init(&run.line, ROW_MAX);
    int code = dead_open(run.command, move->filter.topic, &run.source);
    if (code == CLI_DONE && move->yes) {
        code = create_parts(&run);
    }
    for (size_t i = 0; code == CLI_DONE && !interrupted && i < run.source.count; i++) {
        for (int32_t p = 0; code == CLI_DONE && !interrupted && p < run.source.partitions[i]; p++) {
            code = run_partition(&run, run.source.topics[i], p);
        }
    }
    if (run.source.count > 0 && (code == CLI_DONE || run.taken > 0)) {
        print_sum(&run);
    }
    destroy_parts(&run);
    return code == CLI_DONE && interrupted ? CLI_INTERRUPTED : code;
}
