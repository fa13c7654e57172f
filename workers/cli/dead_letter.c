/*
 * What a dead letter says of itself. The workers leave a record's bytes and headers as they were
 * and add headers named as Kafka Connect names them (docs/WIRE.md, "Dead letters"); a record that
 * lacks them was not written by a worker, and is shown but never sent again.
 *
 * Sent again it is what it was before it died: its key, its value, its headers without those that
 * the workers added. Three things differ. It says how often it was tried, so that what cannot be
 * processed does not go round for ever: the workers pass that number on to the next dead letter. A
 * query gets a new id, since its old one may have ended already and would be taken for done. And a
 * query has no deadline and no reply-to: the old ones have passed, and nobody listens there.
 */
#include "workers/cli/dead.h"

#include "common/codec.h"
#include "common/json.h"
#include "workers/cli/cli.h"

#include <inttypes.h>

enum { ATTEMPT_MAX = 1000000, MESSAGE_SHOWN = 200, MESSAGE_LEAST = 24, ID_SHOWN = 36 };

/* --- reading --- */

static long long header_number(const struct sl_record *record, const char *name, long long max,
                               long long fallback)
{
    long long number = fallback;
    if (sl_span_to_int(sl_record_header(record, name), 0, max, &number) != 0) {
        number = fallback;
    }
    return number;
}

void dead_read(const struct sl_record *record, struct dead_letter *ret)
{
    struct sl_span id = sl_record_header(record, "sluice-id");
    *ret = (struct dead_letter){
        .record = record,
        .id = id.len > 0 ? id : record->key,
        .stage = sl_record_header(record, "__connect.errors.stage"),
        .reason = sl_record_header(record, "__connect.errors.exception.class.name"),
        .message = sl_record_header(record, "__connect.errors.exception.message"),
        .origin_topic = sl_record_header(record, "__connect.errors.topic"),
        .origin_partition = header_number(record, "__connect.errors.partition", INT32_MAX, -1),
        .origin_offset = header_number(record, "__connect.errors.offset", INT64_MAX, -1),
        .attempt = header_number(record, "sluice-attempt", ATTEMPT_MAX, 0),
    };
}

/* --- choosing --- */

static bool ends_with(const char *text, const char *end)
{
    size_t len = strlen(text), end_len = strlen(end);
    return len >= end_len && strcmp(text + len - end_len, end) == 0;
}

void dead_topic_name(const char *word, char ret[DEAD_TOPIC_MAX])
{
    const char *prefix = cli_options.topic_prefix;
    size_t len = strlen(prefix);
    bool whole = strncmp(word, prefix, len) == 0 && word[len] == '.';
    snprintf(ret, DEAD_TOPIC_MAX, "%s%s%s%s", whole ? "" : prefix, whole ? "" : ".", word,
             ends_with(word, ".dlq") ? "" : ".dlq");
}

bool dead_filter_matches(const struct dead_filter *filter, const struct dead_letter *letter)
{
    int64_t age_ms = filter->now_ms - letter->record->timestamp_ms;
    char topic[DEAD_TOPIC_MAX];
    if (filter->topic != NULL) {
        dead_topic_name(filter->topic, topic);
        if (strcmp(topic, letter->record->topic) != 0) {
            return false;
        }
    }
    if (filter->reason != NULL &&
        !sl_span_equal_nocase(letter->reason, sl_span_of(filter->reason))) {
        return false;
    }
    return (filter->older_ms < 0 || age_ms >= filter->older_ms) &&
           (filter->newer_ms < 0 || age_ms < filter->newer_ms);
}

/* --- showing --- */

void dead_put_age(int64_t ms, struct sl_buf *out)
{
    int64_t seconds = ms > 0 ? ms / 1000 : 0;
    if (seconds < 60) {
        sl_buf_printf(out, "%" PRId64 "s", seconds);
    } else if (seconds < 3600) {
        sl_buf_printf(out, "%" PRId64 "m", seconds / 60);
    } else if (seconds < 2 * 86400) {
        sl_buf_printf(out, "%" PRId64 "h", seconds / 3600);
    } else {
        sl_buf_printf(out, "%" PRId64 "d", seconds / 86400);
    }
}

/* `queries` of `sluice.queries.dlq`. */
static struct sl_span short_topic(const char *topic)
{
    size_t prefix = strlen(cli_options.topic_prefix);
    struct sl_span name = sl_span_of(topic);
    if (sl_span_begins(name, cli_options.topic_prefix) && topic[prefix] == '.') {
        name = sl_span_of(topic + prefix + 1);
    }
    name.len -= ends_with(topic, ".dlq") ? strlen(".dlq") : 0;
    return name;
}

/* A column and the space behind it; a text that is wider moves the next one on. */
static void put_cell(struct sl_buf *out, struct sl_span text, size_t width)
{
    size_t from = out->len;
    cli_put_first_line(out, text, ID_SHOWN);
    size_t own = cli_text_width((struct sl_span){out->data + from, out->len - from});
    sl_buf_printf(out, "%*s", (int)(own < width ? width - own : 0) + 2, "");
}

/* The last column takes what the screen has left. */
static void put_message(struct sl_buf *out, struct sl_span text, int width)
{
    size_t used = cli_text_width(sl_buf_span(out)), max = MESSAGE_SHOWN;
    if (width > 0) {
        max = (size_t)width > used + MESSAGE_LEAST ? (size_t)width - used : MESSAGE_LEAST;
    }
    cli_put_first_line(out, text, max);
}

static struct sl_span or_dash(struct sl_span text)
{
    return text.len > 0 ? text : SL_SPAN("-");
}

void dead_put_row(const struct dead_letter *letter, int64_t now_ms, const char *note, int width,
                  struct sl_buf *out)
{
    char at[40], age[24];
    struct sl_buf age_text;
    if (letter == NULL) {
        sl_buf_printf(out, "%-10s  %-8s  %-4s  %-36s  %-8s  %-8s  message", "topic", "at", "age",
                      "id or key", "stage", "reason");
        return;
    }
    const struct sl_record *record = letter->record;
    sl_buf_init(&age_text, sizeof(age));
    dead_put_age(now_ms - record->timestamp_ms, &age_text);
    snprintf(age, sizeof(age), SL_SPAN_FMT, SL_SPAN_ARG(sl_buf_span(&age_text)));
    sl_buf_fini(&age_text);
    snprintf(at, sizeof(at), "%" PRId32 ":%" PRId64, record->partition, record->offset);
    put_cell(out, short_topic(record->topic), 10);
    put_cell(out, sl_span_of(at), 8);
    put_cell(out, sl_span_of(age), 4);
    put_cell(out, or_dash(letter->id), ID_SHOWN);
    put_cell(out, or_dash(letter->stage), 8);
    put_cell(out, or_dash(letter->reason), 8);
    put_message(out, note != NULL ? sl_span_of(note) : letter->message, width);
}

static void json_text(struct sl_json_writer *w, const char *key, struct sl_span text)
{
    sl_json_key(w, key);
    sl_json_put_string(w, text);
}

static void json_int(struct sl_json_writer *w, const char *key, int64_t value)
{
    sl_json_key(w, key);
    sl_json_put_int(w, value);
}

void dead_put_json(const struct dead_letter *letter, int64_t now_ms, struct sl_buf *out)
{
    const struct sl_record *record = letter->record;
    struct sl_json_writer w = {.out = out};
    sl_json_begin_object(&w);
    json_text(&w, "topic", sl_span_of(record->topic));
    json_int(&w, "partition", record->partition);
    json_int(&w, "offset", record->offset);
    json_int(&w, "timestamp_ms", record->timestamp_ms);
    json_int(&w, "age_ms", now_ms - record->timestamp_ms);
    json_text(&w, "id", sl_record_header(record, "sluice-id"));
    json_text(&w, "key", record->key);
    sl_json_key(&w, "origin");
    sl_json_begin_object(&w);
    json_text(&w, "topic", letter->origin_topic);
    json_int(&w, "partition", letter->origin_partition);
    json_int(&w, "offset", letter->origin_offset);
    sl_json_end_object(&w);
    json_text(&w, "stage", letter->stage);
    json_text(&w, "reason", letter->reason);
    json_text(&w, "message", letter->message);
    json_int(&w, "attempt", letter->attempt);
    json_int(&w, "bytes", (int64_t)record->value.len);
    sl_json_end_object(&w);
}

/* --- sending again --- */

static bool is_ours(struct sl_span topic)
{
    size_t prefix = strlen(cli_options.topic_prefix);
    bool dead = topic.len >= 4 && memcmp(topic.data + topic.len - 4, ".dlq", 4) == 0;
    return topic.len > prefix + 1 && topic.len < DEAD_TOPIC_MAX && !dead &&
           sl_span_begins(topic, cli_options.topic_prefix) && topic.data[prefix] == '.' &&
           memchr(topic.data, '\0', topic.len) == NULL;
}

enum dead_fate dead_judge(const struct dead_letter *letter)
{
    if (!is_ours(letter->origin_topic) || letter->origin_partition < 0 ||
        letter->origin_offset < 0 || letter->record->header_count + 2 > DEAD_HEADERS_MAX) {
        return DEAD_FOREIGN;
    }
    return letter->attempt >= cli_options.dead_attempts ? DEAD_WORN_OUT : DEAD_SEND;
}

static bool holds_queries(const char *topic)
{
    static const char *const names[] = {"queries", "retrieve", "rerank", "generate"};
    const char *name = topic + strlen(cli_options.topic_prefix) + 1;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (strcmp(name, names[i]) == 0) {
            return true;
        }
    }
    return false;
}

static bool is_restored(struct sl_span name, bool query, bool keep_reply_to)
{
    if (sl_span_begins(name, "__connect.") || sl_span_is(name, "sluice-attempt")) {
        return false;
    }
    return !query || !(sl_span_is(name, "sluice-id") || sl_span_is(name, "sluice-deadline") ||
                       (sl_span_is(name, "reply-to") && !keep_reply_to));
}

void dead_restore(const struct dead_letter *letter, bool keep_reply_to, struct dead_restored *ret)
{
    const struct sl_record *record = letter->record;
    ret->header_count = 0;
    ret->id[0] = '\0';
    snprintf(ret->topic, sizeof(ret->topic), SL_SPAN_FMT, SL_SPAN_ARG(letter->origin_topic));
    bool query = holds_queries(ret->topic);
    for (size_t i = 0; i < record->header_count; i++) {
        if (is_restored(record->headers[i].name, query, keep_reply_to)) {
            ret->headers[ret->header_count++] = record->headers[i];
        }
    }
    snprintf(ret->attempt, sizeof(ret->attempt), "%lld", letter->attempt + 1);
    ret->headers[ret->header_count++] =
        (struct sl_kafka_header){SL_SPAN("sluice-attempt"), sl_span_of(ret->attempt)};
    if (query) { /* Of where it failed, which stays when the dead letter itself is moved. */
        sl_id_derive(record->topic, (int32_t)letter->origin_partition, letter->origin_offset,
                     record->timestamp_ms, ret->id);
        ret->headers[ret->header_count++] =
            (struct sl_kafka_header){SL_SPAN("sluice-id"), sl_span_of(ret->id)};
    }
}
