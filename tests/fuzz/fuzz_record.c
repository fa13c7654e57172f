/*
 * A Kafka record as any producer may write it, its headers most of all: how a worker reads them
 * (who asks, until when, where to reply), how an ending that Redis kept becomes records again, and
 * what `sluice dead` makes of the record as a dead letter. And what the command line shows of texts
 * that came over the network: events, errors, metrics.
 *
 * The input: a byte that chooses, then, for a record, headers as (name's index, length, value) up
 * to an index that names none; the rest is the value.
 */
#include "common/ending.h"
#include "common/json.h"
#include "tests/support/test.h"
#include "workers/cli/answer.h"
#include "workers/cli/cli.h"
#include "workers/cli/dead.h"
#include "workers/cli/scrape.h"

#include <stdint.h>

enum { MEMORY_MAX = 64 << 20 };

/* Our reader takes no zero characters. */
static void check_json(struct sl_span text)
{
    struct sl_json_doc *doc = NULL;
    CHECK(text.len > 0);
    CHECK(memmem(text.data, text.len, "\\u0000", 6) != NULL ||
          sl_json_parse(text, &doc, NULL, 0) == 0);
    sl_json_free(doc);
}

static const char *const names[] = {
    "content-type",
    "sluice-id",
    "sluice-tenant",
    "sluice-deadline",
    "sluice-key",
    "reply-to",
    "traceparent",
    "__connect.errors.topic",
    "__connect.errors.partition",
    "__connect.errors.offset",
    "__connect.errors.stage",
    "__connect.errors.exception.class.name",
    "__connect.errors.exception.message",
    "sluice-attempt",
    "x",
    "reply-bundles",
};
enum { NAMES = sizeof(names) / sizeof(names[0]) };

static struct sl_kafka_header headers[200];

static struct sl_record make_record(struct sl_span bytes)
{
    size_t count = 0;
    while (bytes.len >= 2 && (unsigned char)bytes.data[0] < NAMES && count < 200) {
        size_t len = (unsigned char)bytes.data[1];
        len = len < bytes.len - 2 ? len : bytes.len - 2;
        headers[count++] = (struct sl_kafka_header){sl_span_of(names[(size_t)bytes.data[0]]),
                                                    {bytes.data + 2, len}};
        bytes = (struct sl_span){bytes.data + 2 + len, bytes.len - 2 - len};
    }
    return (struct sl_record){.topic = "sluice.queries.dlq",
                              .partition = 3,
                              .offset = 17,
                              .timestamp_ms = 1700000000000,
                              .key = {bytes.data, bytes.len % 7},
                              .value = bytes,
                              .headers = headers,
                              .header_count = count};
}

/* What was read is written and read again: the same. */
static void read_route(const struct sl_record *record, struct sl_arena *arena)
{
    static const char *const topics[] = {"sluice.replies", "other", NULL};
    struct sl_query query = {0}, again = {0};
    struct sl_fault fault = {{0}, {0}};
    struct sl_route route;
    struct sl_span tenant;
    int rv = sl_route_read(record, topics, arena, &query, &fault);
    CHECK(rv == 0 || rv == -SL_EBADMSG || rv == -SL_EINVAL);
    CHECK(rv != -SL_EINVAL || fault.message[0] != '\0');
    CHECK(rv == -SL_EBADMSG || sl_id_valid(query.id));
    if (rv == 0) {
        sl_route_write(&route, &query, sl_route_json(record));
        const struct sl_record copy = {
            .topic = "t", .headers = route.headers, .header_count = route.count};
        CHECK(sl_route_read(&copy, topics, arena, &again, &fault) == 0);
        CHECK(sl_span_equal(query.id, again.id) && sl_span_equal(query.tenant, again.tenant));
        CHECK(query.deadline_ms == again.deadline_ms);
        CHECK(sl_span_equal(query.reply_topic, again.reply_topic));
        CHECK(query.reply_partition == again.reply_partition);
        CHECK(query.reply_bundles == again.reply_bundles);
        CHECK(sl_route_json(&copy) == sl_route_json(record));
    }
    rv = sl_route_tenant(record, arena, &tenant, &fault);
    CHECK((rv == 0 || rv == -SL_EINVAL) && tenant.len > 0);
}

static void show_letter(const struct sl_record *record, struct sl_buf *out)
{
    struct dead_letter letter;
    struct dead_restored restored;
    dead_read(record, &letter);
    dead_put_row(&letter, 1700000100000, NULL, (int)(record->value.len % 200), out);
    CHECK(sl_buf_error(out) == 0 && memchr(out->data, '\n', out->len) == NULL);
    sl_buf_clear(out);
    dead_put_json(&letter, 1700000100000, out);
    CHECK(sl_buf_error(out) == 0);
    check_json(sl_buf_span(out));
    sl_buf_clear(out);
    if (dead_judge(&letter) == DEAD_SEND) {
        dead_restore(&letter, record->value.len % 2 == 0, &restored);
        CHECK(restored.header_count <= DEAD_HEADERS_MAX);
        CHECK(strncmp(restored.topic, "sluice.", 7) == 0);
        CHECK(restored.id[0] == '\0' || sl_id_valid(sl_span_of(restored.id)));
    }
    const char *kind = dead_put_value(record->value, out);
    CHECK(sl_buf_error(out) == 0);
    if (strcmp(kind, "JSON") == 0) {
        check_json(sl_buf_span(out));
    }
    sl_buf_clear(out);
}

static void read_ending(struct sl_span bytes)
{
    struct sl_ending ending;
    struct sl_route route;
    struct sl_outgoing out[2];
    char reply[256];
    if (sl_ending_unpack(bytes, &ending) == 0) {
        size_t count = sl_ending_records(&ending, "sluice.results", &route, reply, out);
        CHECK(count >= 1 && count <= 2);
        for (size_t i = 0; i < count; i++) {
            CHECK(out[i].header_count <= SL_ROUTE_HEADERS && out[i].topic[0] != '\0');
        }
    }
}

/* Lines: a type and the data of an event in turn. */
static void show_answer(struct sl_span text)
{
    static FILE *null;
    struct cli_answer answer;
    null = null != NULL ? null : fopen("/dev/null", "w");
    CHECK(null != NULL);
    cli_answer_init(&answer, "ask", null, null);
    answer.out.tty = text.len % 2 == 1;
    while (text.len > 0 && !cli_answer_ended(&answer)) {
        struct sl_span parts[2];
        for (size_t i = 0; i < 2; i++) {
            const char *end = text.len > 0 ? memchr(text.data, '\n', text.len) : NULL;
            parts[i] =
                (struct sl_span){text.data, end != NULL ? (size_t)(end - text.data) : text.len};
            size_t used = parts[i].len + (end != NULL ? 1 : 0);
            text = (struct sl_span){text.data + used, text.len - used};
        }
        if (cli_answer_event(&answer, parts[0], parts[1]) != 0) {
            break;
        }
    }
    if (cli_answer_ended(&answer)) {
        cli_answer_finish(&answer);
    }
    cli_answer_fini(&answer);
}

static void show_text(struct sl_span text, struct sl_buf *out)
{
    cli_describe_error(text, out);
    CHECK(sl_buf_error(out) == 0);
    (void)cli_metric_sum(text, "sluice_jobs_in_flight");
    struct sl_span label = cli_metric_label(text, "sluice_build_info", "program");
    CHECK(label.len == 0 || (label.data >= text.data && label.len < text.len));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct sl_arena arena;
    struct sl_buf out;
    if (size < 1) {
        return 0;
    }
    struct sl_span bytes = {(const char *)data + 1, size - 1};
    sl_arena_init(&arena, MEMORY_MAX);
    sl_buf_init(&out, MEMORY_MAX);
    cli_options.topic_prefix = "sluice";
    cli_options.dead_attempts = 3;
    cli_options.no_color = cli_options.term = "";
    switch (data[0] % 4) {
    case 0: {
        const struct sl_record record = make_record(bytes);
        read_route(&record, &arena);
        show_letter(&record, &out);
        break;
    }
    case 1:
        read_ending(bytes);
        break;
    case 2:
        show_answer(bytes);
        break;
    default:
        show_text(bytes, &out);
    }
    sl_buf_fini(&out);
    sl_arena_fini(&arena);
    return 0;
}
