/*
 * The broker's logs, and common/kafka.h's producer.
 *
 * A record is on its way to the broker for a while, is appended there, and its report is on its way
 * back. A producer's records stay in order, but for those that the broker refuses. While the broker
 * is away nothing is appended and no report comes; what has no report after 30 s is reported as
 * failed, and may be in the log all the same. Of a process that dies, the first so many of the
 * records on their way still arrive.
 */
#include "tests/support/sim/sim_check.h"

enum { TOPICS_MAX = 12, PARTITIONS_MAX = 4, RECORD_MAX = 24 << 20, MESSAGE_TIMEOUT_MS = 30000 };

struct log {
    struct sim_record **records;
    size_t len, cap;
};

struct topic {
    char name[64];
    int32_t partitions;
    struct log logs[PARTITIONS_MAX];
};

/* A record that has no report yet, or none that the producer waits for. */
struct sent {
    struct sl_list node; /* In the producer, in order, until its report. */
    struct sim_record *record;
    bool appended, lost; /* Lost: it will never be. */
    bool reported;
    int err;         /* Of the report. */
    unsigned events; /* That point here. */
    uint64_t sent_ms;
    int64_t offset;
    int32_t partition;
    sl_delivery_cb *cb;
    void *ctx;
};

struct sent_event {
    struct sim_event event;
    struct sent *sent;
};

struct sl_producer {
    struct sim_process *process;
    struct sl_loop *loop;
    void (*on_room)(void *ctx);
    void *room_ctx;
    bool wants_room, closing;
    struct sl_list waiting; /* sent */
    size_t len, most;
    uint64_t last_append_us, last_report_us;
    struct sl_timer tick;
    struct sl_task room;
};

static struct topic topics[TOPICS_MAX];
static size_t topic_count;
static uint64_t away_until_us;
static unsigned refused_per_mille;

/* --- logs --- */

static struct topic *topic_of(const char *name)
{
    for (size_t i = 0; i < topic_count; i++) {
        if (strcmp(topics[i].name, name) == 0) {
            return &topics[i];
        }
    }
    CHECK(topic_count < TOPICS_MAX);
    struct topic *topic = &topics[topic_count++];
    *topic = (struct topic){.partitions = 1};
    snprintf(topic->name, sizeof(topic->name), "%s", name);
    if (strcmp(name, "sluice.queries") == 0 || strcmp(name, "sluice.generate") == 0) {
        topic->partitions = 3;
    } else if (strcmp(name, "sluice.chunks") == 0) {
        topic->partitions = 2;
    }
    return topic;
}

int32_t sim_kafka_partitions(const char *topic)
{
    return topic_of(topic)->partitions;
}

int64_t sim_kafka_end_offset(const char *topic, int32_t partition)
{
    return (int64_t)topic_of(topic)->logs[partition].len;
}

struct sim_record *sim_kafka_record(const char *topic, int32_t partition, int64_t offset)
{
    const struct log *log = &topic_of(topic)->logs[partition];
    return offset < (int64_t)log->len ? log->records[offset] : NULL;
}

static void free_record(struct sim_record *record)
{
    sl_buf_fini(&record->bytes);
    free(record);
}

static struct sl_span take_bytes(const struct sim_record *record, size_t *at, size_t len)
{
    struct sl_span span = {record->bytes.data + *at, len};
    *at += len;
    return span;
}

static struct sim_record *make_record(const struct sl_outgoing *from)
{
    struct sim_record *record = calloc(1, sizeof(*record));
    size_t at = 0;
    CHECK(record != NULL && from->header_count <= 16);
    snprintf(record->topic, sizeof(record->topic), "%s", from->topic);
    record->partition = from->partition;
    sl_buf_init(&record->bytes, RECORD_MAX);
    sl_buf_append_span(&record->bytes, from->key);
    sl_buf_append_span(&record->bytes, from->value);
    for (size_t i = 0; i < from->header_count; i++) {
        sl_buf_append_span(&record->bytes, from->headers[i].name);
        sl_buf_append_span(&record->bytes, from->headers[i].value);
    }
    sl_buf_append(&record->bytes, "", 1);
    CHECK(sl_buf_error(&record->bytes) == 0);
    record->key = take_bytes(record, &at, from->key.len);
    record->value = take_bytes(record, &at, from->value.len);
    for (size_t i = 0; i < from->header_count; i++) {
        record->headers[i].name = take_bytes(record, &at, from->headers[i].name.len);
        record->headers[i].value = take_bytes(record, &at, from->headers[i].value.len);
    }
    record->header_count = from->header_count;
    return record;
}

static int64_t append(struct sim_record *record)
{
    struct topic *topic = topic_of(record->topic);
    if (record->partition < 0) {
        uint64_t hash = 14695981039346656037u;
        for (size_t i = 0; i < record->key.len; i++) {
            hash = (hash ^ (unsigned char)record->key.data[i]) * 1099511628211u;
        }
        record->partition = (int32_t)(hash % (uint64_t)topic->partitions);
    }
    CHECK(record->partition < topic->partitions);
    struct log *log = &topic->logs[record->partition];
    if (log->len == log->cap) {
        log->cap = log->cap > 0 ? log->cap * 2 : 16;
        log->records = realloc(log->records, log->cap * sizeof(struct sim_record *));
        CHECK(log->records != NULL);
    }
    record->offset = (int64_t)log->len;
    record->timestamp_ms = sim_redis_now_ms();
    log->records[log->len++] = record;
    sim_check_record(record);
    sim_group_appended(record);
    return record->offset;
}

void sim_kafka_produce(const char *topic, int32_t partition, struct sl_span key,
                       struct sl_span value, const struct sl_kafka_header *headers, size_t count)
{
    const struct sl_outgoing outgoing = {.topic = topic,
                                         .partition = partition,
                                         .key = key,
                                         .value = value,
                                         .headers = headers,
                                         .header_count = count};
    append(make_record(&outgoing));
}

void sim_kafka_refuse(unsigned per_mille)
{
    refused_per_mille = per_mille;
}

void sim_kafka_away(uint64_t us)
{
    sim_trace("kafka is away for %.1f s", (double)us / SIM_S);
    uint64_t until = sim_now_us() + us;
    away_until_us = until > away_until_us ? until : away_until_us;
}

/* --- records on their way --- */

static uint64_t latency_us(void)
{
    return sim_percent(2) ? sim_between(10 * SIM_MS, 500 * SIM_MS) : sim_between(100, 5 * SIM_MS);
}

static void let_go(struct sent *sent)
{
    if (sent->events == 0 && sent->reported) {
        if (!sent->appended) {
            free_record(sent->record);
        }
        free(sent);
    }
}

static void fini_sent_event(struct sim_event *event)
{
    struct sent *sent = ((struct sent_event *)(void *)event)->sent;
    sent->events--;
    let_go(sent);
}

static struct sim_event *sent_event(struct sent *sent, void (*run)(struct sim_event *event))
{
    struct sent_event *event = sim_event_new(sizeof(*event), run);
    event->event.fini = fini_sent_event;
    event->sent = sent;
    sent->events++;
    return &event->event;
}

static void report(struct sl_producer *producer, struct sent *sent, int err)
{
    sl_list_remove(&sent->node);
    producer->len--;
    sent->reported = true;
    if (sent->cb != NULL) {
        sent->cb(sent->ctx, err, sent->partition, sent->offset);
    }
}

static void on_room_task(struct sl_task *task)
{
    struct sl_producer *producer = SL_ITEM(task, struct sl_producer, room);
    if (producer->on_room != NULL) {
        producer->on_room(producer->room_ctx);
    }
}

static void on_report(struct sim_event *event)
{
    struct sent *sent = ((struct sent_event *)(void *)event)->sent;
    struct sl_producer *producer = sim_self->producer;
    if (sent->reported || producer == NULL) {
        return;
    }
    report(producer, sent, sent->err);
    if (producer->wants_room && producer->len < producer->most) {
        producer->wants_room = false;
        sl_task_defer(producer->loop, &producer->room, on_room_task);
    }
}

struct append_event {
    struct sent_event head;
    struct sim_process *from;
    uint64_t incarnation;
};

/* Away: it is sent again when the broker is back, unless it was given up. */
static void on_append(struct sim_event *event)
{
    struct append_event *arriving = (struct append_event *)(void *)event;
    struct sent *sent = arriving->head.sent;
    if (sent->lost) {
        return;
    }
    if (away_until_us > sim_now_us()) {
        struct append_event *again = sim_event_new(sizeof(*again), on_append);
        again->head.event.fini = fini_sent_event;
        again->head.sent = sent;
        again->from = arriving->from;
        again->incarnation = arriving->incarnation;
        sent->events++;
        sim_happen(&again->head.event, away_until_us - sim_now_us());
        return;
    }
    if (sim_below(1000) < refused_per_mille) {
        sent->lost = true;
        sent->err = -SL_EIO;
    } else {
        sent->offset = append(sent->record);
        sent->partition = sent->record->partition;
        sent->appended = true;
    }
    struct sim_process *from = arriving->from;
    if (from->alive && from->incarnation == arriving->incarnation && from->producer != NULL) {
        struct sl_producer *producer = from->producer;
        uint64_t at = sim_now_us() + latency_us();
        producer->last_report_us = at > producer->last_report_us ? at : producer->last_report_us;
        sim_happen_in(sent_event(sent, on_report), from, producer->last_report_us - sim_now_us());
    }
}

/* --- common/kafka.h --- */

struct sl_span sl_record_header(const struct sl_record *record, const char *name)
{
    for (size_t i = record->header_count; i-- > 0;) {
        if (sl_span_is(record->headers[i].name, name)) {
            return record->headers[i].value;
        }
    }
    return (struct sl_span){NULL, 0};
}

static void on_tick(struct sl_timer *timer)
{
    struct sl_producer *producer = SL_ITEM(timer, struct sl_producer, tick);
    sl_timer_start(producer->loop, timer, 1000, on_tick);
    struct sl_list *node;
    while ((node = sl_list_first(&producer->waiting)) != NULL) {
        struct sent *sent = SL_ITEM(node, struct sent, node);
        if (sl_clock_now_ms() - sent->sent_ms < MESSAGE_TIMEOUT_MS) {
            return;
        }
        sim_trace("gives up a record to %s", sent->record->topic);
        sent->lost = !sent->appended;
        report(producer, sent, -SL_ETIMEDOUT);
        let_go(sent);
    }
}

int sl_producer_create(struct sl_loop *loop, const struct sl_kafka_config *config,
                       void (*on_fatal)(void *ctx, const char *why), void *ctx,
                       struct sl_producer **ret, char *why, size_t why_size)
{
    struct sl_producer *producer = calloc(1, sizeof(*producer));
    (void)config, (void)on_fatal, (void)ctx, (void)why, (void)why_size;
    CHECK(producer != NULL);
    producer->process = sim_self;
    producer->loop = loop;
    producer->most = sim_percent(20) ? sim_between(2, 6) : 1000;
    sl_list_init(&producer->waiting);
    sl_timer_start(loop, &producer->tick, 1000, on_tick);
    sim_self->producer = *ret = producer;
    return 0;
}

int sl_producer_send(struct sl_producer *producer, const struct sl_outgoing *outgoing,
                     sl_delivery_cb *cb, void *ctx)
{
    if (producer->closing || !producer->process->alive) {
        return -SL_ECLOSED;
    }
    if (producer->len >= producer->most) {
        producer->wants_room = true;
        return -SL_EAGAIN;
    }
    struct sent *sent = calloc(1, sizeof(*sent));
    CHECK(sent != NULL);
    sent->record = make_record(outgoing);
    sent->sent_ms = sl_clock_now_ms();
    sent->cb = cb;
    sent->ctx = ctx;
    sl_list_push(&producer->waiting, &sent->node);
    producer->len++;
    struct append_event *event = sim_event_new(sizeof(*event), on_append);
    event->head.event.fini = fini_sent_event;
    event->head.sent = sent;
    event->from = producer->process;
    event->incarnation = producer->process->incarnation;
    sent->events++;
    uint64_t at = sim_now_us() + latency_us();
    producer->last_append_us = at > producer->last_append_us ? at : producer->last_append_us;
    sim_happen(&event->head.event, producer->last_append_us - sim_now_us());
    return 0;
}

void sl_producer_on_room(struct sl_producer *producer, void (*on_room)(void *ctx), void *ctx)
{
    producer->on_room = on_room;
    producer->room_ctx = ctx;
}

void sl_producer_warm(struct sl_producer *producer, const char *topic)
{
    (void)producer, (void)topic;
}

/* The last of those on their way are lost; how many is chance. */
void sl_producer_destroy(struct sl_producer *producer, uint32_t flush_ms)
{
    bool arrives = true;
    struct sl_list *node;
    (void)flush_ms;
    producer->closing = true;
    sl_timer_stop(producer->loop, &producer->tick);
    sl_task_cancel(&producer->room);
    while ((node = sl_list_first(&producer->waiting)) != NULL) {
        struct sent *sent = SL_ITEM(node, struct sent, node);
        arrives = arrives && sim_percent(60);
        sent->lost = !sent->appended && !arrives;
        report(producer, sent, -SL_ETIMEDOUT);
        let_go(sent);
    }
    producer->process->producer = NULL;
    free(producer);
}

/* --- beginning and end --- */

void sim_kafka_begin(void)
{
    topic_count = 0;
    away_until_us = 0;
    refused_per_mille = 0;
    sim_group_begin();
}

void sim_kafka_end(void)
{
    sim_group_end();
    for (size_t i = 0; i < topic_count; i++) {
        for (size_t j = 0; j < PARTITIONS_MAX; j++) {
            struct log *log = &topics[i].logs[j];
            for (size_t k = 0; k < log->len; k++) {
                free_record(log->records[k]);
            }
            free(log->records);
        }
    }
    topic_count = 0;
}
