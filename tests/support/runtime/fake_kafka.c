/*
 * The fake producer copies what it is given, as the real one does. The fake consumer remembers each
 * record that it gave, with its bytes, so that it can give it again under another epoch.
 */
#include "tests/support/runtime/fake_kafka.h"

#include "common/kafka_lag.h"
#include "tests/support/alloc_fail.h"
#include "tests/support/runtime/worker_fixture.h"
#include "tests/support/test.h"

#include <assert.h>

enum { GIVEN_MAX = 1024, HEADERS = 5, TOPICS = 3, PARTITIONS = 4, REFUSALS = 8 };

struct sl_producer {
    void (*on_room)(void *ctx);
    void *room_ctx;
    void (*on_fatal)(void *ctx, const char *why);
    void *fatal_ctx;
    bool closing;
};

struct given {
    struct fake_record record;
    char texts[HEADERS][128];
    char *bytes; /* key, then value */
    struct sl_position position;
    bool ended;
};

struct sl_consumer {
    struct sl_consumer_config config;
    const char *names[TOPICS];
    uint32_t classes[TOPICS];
    uint64_t epoch;
    int64_t next[TOPICS][PARTITIONS];
    struct given *given[GIVEN_MAX];
    size_t given_count;
    bool leaving, left;
    void (*on_left)(void *ctx);
    void *left_ctx;
};

static struct sl_producer *producer_now;
static struct sl_consumer *consumer_now;
static struct fake_sent *sents[FAKE_SENT_MAX];
static size_t sent_count;
static struct {
    char topic[FAKE_TOPIC_MAX];
    int err;
} refusals[REFUSALS];

int (*fake_on_send)(const char *topic);
void (*fake_on_ack)(const struct fake_sent *sent);
void (*fake_on_end)(const struct sl_position *position);
size_t fake_kicks;
bool fake_flushes;

/* --- producing --- */

int sl_producer_create(struct sl_loop *loop, const struct sl_kafka_config *config,
                       void (*on_fatal)(void *ctx, const char *why), void *ctx,
                       struct sl_producer **ret, char *why, size_t why_size)
{
    (void)loop;
    (void)config;
    (void)why;
    (void)why_size;
    int err = fx_part_err();
    if (err != 0) {
        return err;
    }
    long paused = sl_test_pause_alloc();
    *ret = producer_now = calloc(1, sizeof(**ret));
    sl_test_resume_alloc(paused);
    CHECK(*ret != NULL);
    producer_now->on_fatal = on_fatal;
    producer_now->fatal_ctx = ctx;
    fake_flushes = false;
    return 0;
}

static const char *without_prefix(const char *topic)
{
    return strncmp(topic, "sluice.", 7) == 0 ? topic + 7 : topic;
}

size_t fake_sent_count(void)
{
    return sent_count;
}

struct fake_sent *fake_sent(size_t i)
{
    CHECK(i < sent_count);
    return sents[i];
}

struct fake_sent *fake_open(const char *topic)
{
    for (size_t i = 0; i < sent_count; i++) {
        if (sents[i]->open && strcmp(without_prefix(sents[i]->topic), topic) == 0) {
            return sents[i];
        }
    }
    return NULL;
}

size_t fake_count(const char *topic)
{
    size_t count = 0;
    for (size_t i = 0; i < sent_count; i++) {
        count += strcmp(without_prefix(sents[i]->topic), topic) == 0 ? 1 : 0;
    }
    return count;
}

size_t fake_open_count(void)
{
    size_t count = 0;
    for (size_t i = 0; i < sent_count; i++) {
        count += sents[i]->open ? 1 : 0;
    }
    return count;
}

static int64_t offsets;

void fake_report(struct fake_sent *sent, int err)
{
    CHECK(sent != NULL && sent->open);
    sent->open = false;
    sent->acked = err == 0;
    if (err == 0 && fake_on_ack != NULL) {
        fake_on_ack(sent);
    }
    sent->offset = ++offsets;
    sent->cb(sent->ctx, err, err == 0 ? 7 : -1, err == 0 ? sent->offset : -1);
}

static void free_sent(struct fake_sent *sent)
{
    sl_buf_fini(&sent->value);
    free(sent);
}

void fake_forget(void)
{
    size_t kept = 0;
    for (size_t i = 0; i < sent_count; i++) {
        if (sents[i]->open) {
            sents[kept++] = sents[i];
        } else {
            free_sent(sents[i]);
        }
    }
    sent_count = kept;
}

void fake_refuse(const char *topic, int err)
{
    const char *name = topic != NULL ? topic : "*";
    size_t at = 0;
    while (at < REFUSALS && refusals[at].topic[0] != '\0' &&
           strcmp(refusals[at].topic, name) != 0) {
        at++;
    }
    CHECK(at < REFUSALS);
    snprintf(refusals[at].topic, sizeof(refusals[at].topic), "%s", name);
    refusals[at].err = err;
}

static int refusal_of(const char *topic)
{
    int err = fake_on_send != NULL ? fake_on_send(without_prefix(topic)) : 0;
    if (err != 0) {
        return err;
    }
    for (size_t i = 0; i < REFUSALS; i++) {
        if (refusals[i].err != 0 && (strcmp(refusals[i].topic, "*") == 0 ||
                                     strcmp(refusals[i].topic, without_prefix(topic)) == 0)) {
            return refusals[i].err;
        }
    }
    return 0;
}

void fake_make_room(void)
{
    if (producer_now != NULL) { /* Else it has ended. */
        producer_now->on_room(producer_now->room_ctx);
    }
}

static void copy_text(char *to, size_t size, struct sl_span text)
{
    snprintf(to, size, SL_SPAN_FMT, SL_SPAN_ARG(text));
}

static struct fake_sent *new_sent(const struct sl_outgoing *outgoing)
{
    struct fake_sent *sent = calloc(1, sizeof(*sent));
    CHECK(sent != NULL);
    *sent = (struct fake_sent){.open = true, .partition = outgoing->partition};
    snprintf(sent->topic, sizeof(sent->topic), "%s", outgoing->topic);
    copy_text(sent->key, sizeof(sent->key), outgoing->key);
    sl_buf_init(&sent->value, 64 << 20);
    sl_buf_append_span(&sent->value, outgoing->value);
    sl_buf_append(&sent->value, "", 1);
    sent->value.len--;
    for (size_t i = 0; i < outgoing->header_count; i++) {
        const struct sl_kafka_header *header = &outgoing->headers[i];
        if (sl_span_is(header->name, "__connect.errors.exception.class.name")) {
            copy_text(sent->error, sizeof(sent->error), header->value);
        } else if (sl_span_is(header->name, "content-type")) {
            copy_text(sent->type, sizeof(sent->type), header->value);
        } else if (sl_span_is(header->name, "sluice-id")) {
            copy_text(sent->id, sizeof(sent->id), header->value);
        }
    }
    return sent;
}

int sl_producer_send(struct sl_producer *producer, const struct sl_outgoing *outgoing,
                     sl_delivery_cb *cb, void *ctx)
{
    if (producer->closing) {
        return -SL_ECLOSED;
    }
    int err = refusal_of(outgoing->topic);
    if (err != 0) {
        return err;
    }
    CHECK(sent_count < FAKE_SENT_MAX && cb != NULL);
    long paused = sl_test_pause_alloc();
    sents[sent_count] = new_sent(outgoing);
    sl_test_resume_alloc(paused);
    sents[sent_count]->cb = cb;
    sents[sent_count++]->ctx = ctx;
    return 0;
}

void sl_producer_on_room(struct sl_producer *producer, void (*on_room)(void *ctx), void *ctx)
{
    producer->on_room = on_room;
    producer->room_ctx = ctx;
}

void sl_producer_warm(struct sl_producer *producer, const char *topic)
{
    (void)producer;
    (void)topic;
}

/* As with a broker that is away: what has no report gets one that says so. */
void sl_producer_destroy(struct sl_producer *producer, uint32_t flush_ms)
{
    (void)flush_ms;
    producer->closing = true;
    for (size_t i = 0; i < sent_count; i++) {
        if (sents[i]->open) {
            fake_report(sents[i], fake_flushes ? 0 : -SL_ETIMEDOUT);
        }
    }
    fake_forget();
    CHECK(sent_count == 0);
    memset(refusals, 0, sizeof(refusals));
    free(producer);
    producer_now = NULL;
}

/* --- consuming --- */

int sl_consumer_create(struct sl_loop *loop, const struct sl_consumer_config *config,
                       struct sl_consumer **ret, char *why, size_t why_size)
{
    int err = fx_part_err();
    if (err != 0) {
        return err;
    }
    long paused = sl_test_pause_alloc();
    struct sl_consumer *consumer = calloc(1, sizeof(*consumer));
    sl_test_resume_alloc(paused);
    (void)loop;
    (void)why;
    (void)why_size;
    CHECK(consumer != NULL && config->topic_count <= TOPICS);
    consumer->config = *config;
    for (size_t i = 0; i < config->topic_count; i++) {
        consumer->names[i] = config->topics[i].name;
        consumer->classes[i] = config->topics[i].class;
    }
    consumer->epoch = 1;
    *ret = consumer_now = consumer;
    fake_kicks = 0;
    return 0;
}

void sl_consumer_destroy(struct sl_consumer *consumer)
{
    if (consumer == NULL) {
        return;
    }
    for (size_t i = 0; i < consumer->given_count; i++) {
        free(consumer->given[i]->bytes);
        free(consumer->given[i]);
    }
    free(consumer);
    consumer_now = NULL;
}

static struct given *find_given(const struct sl_position *position)
{
    for (size_t i = 0; i < consumer_now->given_count; i++) {
        const struct sl_position *other = &consumer_now->given[i]->position;
        if (other->topic == position->topic && other->partition == position->partition &&
            other->offset == position->offset && other->epoch == position->epoch) {
            return consumer_now->given[i];
        }
    }
    return NULL;
}

static void add_header(struct sl_kafka_header *headers, size_t *count, const char *name,
                       const char *value)
{
    if (value != NULL) {
        headers[(*count)++] = (struct sl_kafka_header){sl_span_of(name), sl_span_of(value)};
    }
}

/* Gives it from bytes of its own that are gone afterwards: whoever keeps one is found out. */
static void give(const struct given *given)
{
    const struct fake_record *r = &given->record;
    struct sl_kafka_header headers[HEADERS];
    size_t count = 0, len = r->key.len + r->value.len;
    long paused = sl_test_pause_alloc();
    char *bytes = malloc(len + 1);
    sl_test_resume_alloc(paused);
    CHECK(bytes != NULL);
    memcpy(bytes, given->bytes, len);
    add_header(headers, &count, "sluice-id", r->id);
    add_header(headers, &count, "content-type", r->type);
    add_header(headers, &count, "reply-to", r->reply_to);
    add_header(headers, &count, "sluice-deadline", r->deadline);
    add_header(headers, &count, "reply-bundles", r->bundles ? "1" : NULL);
    const struct sl_record record = {
        .topic = consumer_now->names[r->topic],
        .partition = r->partition,
        .offset = given->position.offset,
        .timestamp_ms = r->timestamp_ms,
        .key = {r->key.data != NULL ? bytes : NULL, r->key.len},
        .value = {r->value.data != NULL ? bytes + r->key.len : NULL, r->value.len},
        .headers = headers,
        .header_count = count,
    };
    consumer_now->config.on_record(consumer_now->config.ctx, &record, &given->position);
    free(bytes);
}

static bool has_room(uint32_t topic)
{
    const struct sl_consumer_config *config = &consumer_now->config;
    return !consumer_now->leaving && config->room(config->ctx, consumer_now->classes[topic]) > 0;
}

static const char *keep_text(char to[128], const char *text)
{
    if (text == NULL) {
        return NULL;
    }
    snprintf(to, 128, "%s", text);
    return to;
}

static struct given *new_given(const struct fake_record *record)
{
    long paused = sl_test_pause_alloc();
    struct given *given = calloc(1, sizeof(*given));
    CHECK(given != NULL && consumer_now->given_count < GIVEN_MAX);
    given->record = *record;
    given->record.id = keep_text(given->texts[0], record->id);
    given->record.type = keep_text(given->texts[1], record->type);
    given->record.reply_to = keep_text(given->texts[2], record->reply_to);
    given->record.deadline = keep_text(given->texts[3], record->deadline);
    given->bytes = malloc(record->key.len + record->value.len + 1);
    sl_test_resume_alloc(paused);
    CHECK(given->bytes != NULL);
    if (record->key.len > 0) {
        memcpy(given->bytes, record->key.data, record->key.len);
    }
    if (record->value.len > 0) {
        memcpy(given->bytes + record->key.len, record->value.data, record->value.len);
    }
    consumer_now->given[consumer_now->given_count++] = given;
    return given;
}

bool fake_consume(const struct fake_record *record, struct sl_position *ret)
{
    if (!has_room(record->topic)) {
        return false;
    }
    struct given *given = new_given(record);
    given->position =
        (struct sl_position){.topic = record->topic,
                             .partition = record->partition,
                             .offset = consumer_now->next[record->topic][record->partition]++,
                             .epoch = consumer_now->epoch};
    if (ret != NULL) {
        *ret = given->position;
    }
    give(given);
    return true;
}

bool fake_consume_again(const struct sl_position *old, struct sl_position *ret)
{
    const struct given *before = find_given(old);
    CHECK(before != NULL && old->epoch < consumer_now->epoch);
    if (!has_room(old->topic)) {
        return false;
    }
    struct fake_record record = before->record;
    record.key.data = record.key.data != NULL ? before->bytes : NULL;
    record.value.data = record.value.data != NULL ? before->bytes + record.key.len : NULL;
    struct given *given = new_given(&record);
    given->position = *old;
    given->position.epoch = consumer_now->epoch;
    if (ret != NULL) {
        *ret = given->position;
    }
    give(given);
    return true;
}

void fake_rebalance(void)
{
    consumer_now->epoch++;
}

bool fake_ended(const struct sl_position *position)
{
    const struct given *given = find_given(position);
    CHECK(given != NULL);
    return given->ended;
}

size_t fake_unended(void)
{
    size_t count = 0;
    for (size_t i = 0; i < consumer_now->given_count; i++) {
        const struct given *given = consumer_now->given[i];
        count += given->position.epoch == consumer_now->epoch && !given->ended ? 1 : 0;
    }
    return count;
}

void sl_consumer_end(struct sl_consumer *consumer, const struct sl_position *position)
{
    CHECK(consumer == consumer_now);
    struct given *given = find_given(position);
    CHECK(given != NULL && !given->ended);
    given->ended = true;
    if (position->epoch == consumer->epoch && fake_on_end != NULL) {
        fake_on_end(position);
    }
}

bool sl_consumer_owns(const struct sl_consumer *consumer, const struct sl_position *position)
{
    return position->epoch == consumer->epoch;
}

bool sl_consumer_joined(const struct sl_consumer *consumer)
{
    return !consumer->leaving;
}

void sl_consumer_kick(struct sl_consumer *consumer)
{
    CHECK(consumer != NULL);
    fake_kicks++;
}

void sl_consumer_leave(struct sl_consumer *consumer, void (*on_left)(void *ctx), void *ctx)
{
    CHECK(!consumer->leaving);
    consumer->leaving = true;
    consumer->on_left = on_left;
    consumer->left_ctx = ctx;
}

void fake_producer_dies(void)
{
    producer_now->on_fatal(producer_now->fatal_ctx, "fenced");
}

void fake_consumer_dies(void)
{
    consumer_now->config.on_error(consumer_now->config.ctx, true, "fenced");
}

bool fake_leaving(void)
{
    return consumer_now->leaving;
}

void fake_left(void)
{
    CHECK(consumer_now->leaving && !consumer_now->left);
    consumer_now->left = true;
    consumer_now->epoch++;
    consumer_now->on_left(consumer_now->left_ctx);
}

/* --- lags --- */



int sl_kafka_lag_open(const struct sl_kafka_config *config, const char *group, const char *topic,
                      struct sl_kafka_lag **ret)
{
    (void)config;
    (void)group;
    (void)topic;
    *ret = NULL;
    return 0;
}

int64_t sl_kafka_lag_read(struct sl_kafka_lag *lag, int timeout_ms)
{
    (void)lag;
    (void)timeout_ms;
    return 0;
}

void sl_kafka_lag_close(struct sl_kafka_lag *lag)
{
    (void)lag;
}
