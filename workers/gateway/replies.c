/*
 * The partition of replies, and its records.
 *
 *   COUNTING  how many partitions the topic has; asks Kafka on the thread pool, again and again
 *             until it answers
 *   CHOOSING  how many gateways hold each: Redis knows. Without Redis after two seconds: any
 *   STARTING  the reader is made, at the end of the partition; what is produced from now on is seen
 *   READING   queries may be accepted
 *
 * A holder of a partition is a member of the sorted set `<prefix>:gateway:reply:<partition>`, whose
 * score is when its lease ends; it is renewed every ten seconds. The lease only spreads gateways
 * over partitions. Two that share one see each other's records and skip them: the query's id is
 * beside each event, so that costs one look into the map.
 */
#include "workers/gateway/replies.h"

#include "common/bundle.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/redis.h"
#include "workers/gateway/open_query.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>

enum {
    COUNT_TIMEOUT_MS = 2000,
    COUNT_AGAIN_MS = 500,
    CHOOSE_MS = 2000,
    LEASE_MS = 30000,
    RENEW_MS = 10000,
    PARTITIONS_MAX = 1024,
    KEY_MAX = 320,
};

enum state { COUNTING, CHOOSING, STARTING, READING };

struct replies {
    struct gateway *gateway;
    enum state state;
    struct sl_redis *redis; /* Of its own: leases are no matter of coordination. */
    struct sl_reader *reader;
    struct sl_timer timer;
    int partitions; /* Also the answer of the thread pool. */
    int32_t partition;
    int64_t next;  /* Offset. */
    double lag_s;  /* Of the record that is being read. */
    bool counting; /* The thread pool works for us. */
    long long holders[PARTITIONS_MAX];
    int asked;
};

static void begin_counting(struct replies *replies);
static void choose(struct replies *replies);

/* --- records --- */

static void on_event(void *ctx, struct sl_span id, struct sl_span event)
{
    struct replies *replies = ctx;
    struct gateway *gateway = replies->gateway;
    struct sl_map_node *node = sl_map_find(&gateway->open, id);
    if (node != NULL) {
        sl_histogram_observe(gateway->metrics.reply_lag, replies->lag_s);
        open_query_live(SL_ITEM(node, struct open_query, by_id), event);
    }
}

static void on_record(void *ctx, const struct sl_record *record)
{
    struct replies *replies = ctx;
    double lag_s = (double)(sl_clock_unix_ms() - record->timestamp_ms) / 1000;
    replies->next = record->offset + 1;
    replies->lag_s = lag_s > 0 ? lag_s : 0;
    int err = sl_record_events(record, on_event, replies);
    if (err != 0) {
        sl_log(SL_LOG_WARN, "a bundle of events is not readable",
               SL_INT("partition", record->partition), SL_INT("offset", record->offset),
               SL_ERR(err));
    }
}

static void on_started(void *ctx, int64_t offset)
{
    struct replies *replies = ctx;
    replies->state = READING;
    replies->next = offset;
    sl_condition_set(replies->gateway->kafka_ready, true, NULL);
    sl_log(SL_LOG_INFO, "reading replies", SL_STR("topic", replies->gateway->replies_topic),
           SL_INT("partition", replies->partition), SL_INT("offset", offset));
}

static void on_reader_error(void *ctx, bool fatal, const char *why)
{
    struct replies *replies = ctx;
    sl_log(fatal ? SL_LOG_ERROR : SL_LOG_WARN, "kafka", SL_STR("why", why),
           SL_STR("variable", sl_kafka_variable(why)));
    if (fatal) {
        gateway_fail(replies->gateway);
    }
}

static void start_reader(struct replies *replies)
{
    static const struct sl_reader_callbacks callbacks = {
        .on_record = on_record, .on_started = on_started, .on_error = on_reader_error};
    struct gateway *gateway = replies->gateway;
    const struct sl_kafka_config config = {.brokers = gateway->process->brokers,
                                           .client_id = "gateway"};
    char why[256] = "";
    replies->state = STARTING;
    if (sl_reader_create(gateway->loop, &config, gateway->replies_topic, replies->partition,
                         SL_OFFSET_END, &callbacks, replies, &replies->reader, why,
                         sizeof(why)) != 0) {
        on_reader_error(replies, true, why);
    }
}

/* --- the lease --- */

static struct sl_span lease_key(const struct replies *replies, int partition, char key[KEY_MAX])
{
    snprintf(key, KEY_MAX, "%s:gateway:reply:%d", replies->gateway->process->topic_prefix,
             partition);
    return sl_span_of(key);
}

/* What is not sent now, the next renewal sends. */
static void renew(struct replies *replies)
{
    char key[KEY_MAX], until[24], ttl[24];
    snprintf(until, sizeof(until), "%lld", (long long)sl_clock_unix_ms() + LEASE_MS);
    snprintf(ttl, sizeof(ttl), "%d", LEASE_MS);
    struct sl_span name = lease_key(replies, replies->partition, key);
    struct sl_span owner = sl_span_of(sl_coord_owner(replies->gateway->coord));
    struct sl_span add[] = {SL_SPAN("ZADD"), name, sl_span_of(until), owner};
    struct sl_span expire[] = {SL_SPAN("PEXPIRE"), name, sl_span_of(ttl)};
    int err = sl_redis_command(replies->redis, 4, add, NULL, NULL);
    err = err != 0 ? err : sl_redis_command(replies->redis, 3, expire, NULL, NULL);
    if (err != 0) {
        sl_log(SL_LOG_DEBUG, "the lease of the replies' partition was not renewed", SL_ERR(err));
    }
}

static void on_renew(struct sl_timer *timer)
{
    struct replies *replies = SL_ITEM(timer, struct replies, timer);
    renew(replies);
    sl_timer_start(replies->gateway->loop, timer, RENEW_MS, on_renew);
}

/* --- choosing --- */

/* One of the partitions with the fewest holders; all the same when Redis did not tell. */
static void take_best(struct replies *replies)
{
    uint32_t random = 0;
    int best = 0;
    if (getrandom(&random, sizeof(random), 0) != (ssize_t)sizeof(random)) {
        random = (uint32_t)sl_clock_now_us();
    }
    for (int i = 0; i < replies->partitions; i++) { /* From a random one on. */
        int candidate = (int)((random + (uint32_t)i) % (uint32_t)replies->partitions);
        if (i == 0 || replies->holders[candidate] < replies->holders[best]) {
            best = candidate;
        }
    }
    replies->partition = best;
    on_renew(&replies->timer);
    start_reader(replies);
}

static void on_holders(void *ctx, int err, const struct redisReply *reply)
{
    struct replies *replies = ctx;
    if (replies->state != CHOOSING || replies->gateway->stopping) {
        return;
    }
    replies->holders[--replies->asked] = err == 0 ? sl_reply_int(reply) : 0;
    if (replies->asked == 0) {
        take_best(replies);
    }
}

/* Answers come in order, so the partitions are asked from the last to the first. */
static void choose(struct replies *replies)
{
    char key[KEY_MAX], now[24];
    if (replies->state != CHOOSING || replies->asked > 0) {
        return;
    }
    snprintf(now, sizeof(now), "%lld", (long long)sl_clock_unix_ms());
    for (int i = replies->partitions - 1; i >= 0; i--) {
        struct sl_span count[] = {SL_SPAN("ZCOUNT"), lease_key(replies, i, key), sl_span_of(now),
                                  SL_SPAN("+inf")};
        if (sl_redis_command(replies->redis, 4, count, on_holders, replies) != 0) {
            break;
        }
        replies->asked++;
    }
}

static void on_choose_timeout(struct sl_timer *timer)
{
    struct replies *replies = SL_ITEM(timer, struct replies, timer);
    sl_log(SL_LOG_WARN, "redis is away: taking any partition of the replies topic");
    take_best(replies);
}

static void on_link(void *ctx, const char *run_id, const char *why)
{
    struct replies *replies = ctx;
    (void)why; /* The coord's link says it. */
    if (run_id != NULL) {
        choose(replies);
        if (replies->state > CHOOSING) {
            renew(replies);
        }
    }
}

/* --- counting --- */

static void on_count_again(struct sl_timer *timer)
{
    begin_counting(SL_ITEM(timer, struct replies, timer));
}

static void count(void *ctx)
{
    struct replies *replies = ctx;
    const struct sl_kafka_config config = {.brokers = replies->gateway->process->brokers,
                                           .client_id = "gateway"};
    replies->partitions =
        sl_kafka_partition_count(&config, replies->gateway->replies_topic, COUNT_TIMEOUT_MS);
}

static void on_counted(void *ctx)
{
    struct replies *replies = ctx;
    struct gateway *gateway = replies->gateway;
    char why[TOPIC_MAX + 96];
    replies->counting = false;
    if (gateway->stopping) {
        return;
    }
    if (replies->partitions < 1) {
        snprintf(why, sizeof(why), "topic %s: %s (SLUICE_KAFKA_BROKERS)", gateway->replies_topic,
                 sl_error_text(replies->partitions));
        sl_kafka_trouble(why, sizeof(why));
        sl_log(SL_LOG_WARN, "waiting for kafka", SL_STR("why", why));
        sl_condition_set(gateway->kafka_ready, false, why);
        sl_timer_start(gateway->loop, &replies->timer, COUNT_AGAIN_MS, on_count_again);
        return;
    }
    if (replies->partitions > PARTITIONS_MAX) {
        replies->partitions = PARTITIONS_MAX;
    }
    replies->state = CHOOSING;
    sl_timer_start(gateway->loop, &replies->timer, CHOOSE_MS, on_choose_timeout);
    if (sl_redis_up(replies->redis)) {
        choose(replies);
    }
}

static void begin_counting(struct replies *replies)
{
    if (sl_work_submit(replies->gateway->loop, count, on_counted, replies) == 0) {
        replies->counting = true;
    } else {
        sl_timer_start(replies->gateway->loop, &replies->timer, COUNT_AGAIN_MS, on_count_again);
    }
}

/* --- life --- */

int replies_create(struct gateway *gateway, struct replies **ret, char *why, size_t why_size)
{
    struct replies *replies = calloc(1, sizeof(*replies));
    if (replies == NULL) {
        return -SL_ENOMEM;
    }
    replies->gateway = gateway;
    const struct sl_redis_config config = {
        .url = gateway->process->redis_url, .on_link = on_link, .ctx = replies};
    int rv = sl_redis_create(gateway->loop, &config, &replies->redis, why, why_size);
    if (rv != 0) {
        free(replies);
        return rv;
    }
    begin_counting(replies);
    *ret = replies;
    return 0;
}

void replies_destroy(struct replies *replies)
{
    if (replies == NULL) {
        return;
    }
    while (replies->counting) { /* At most COUNT_TIMEOUT_MS. */
        sl_loop_turn(replies->gateway->loop, 100);
    }
    sl_timer_stop(replies->gateway->loop, &replies->timer);
    sl_reader_destroy(replies->reader);
    sl_redis_destroy(replies->redis);
    free(replies);
}

bool replies_ready(const struct replies *replies)
{
    return replies->state == READING;
}

int32_t replies_partition(const struct replies *replies)
{
    return replies->partition;
}

int64_t replies_next(const struct replies *replies)
{
    return replies->next;
}
