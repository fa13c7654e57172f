/*
 * common/redis.h over a network that is played, and the server at its other end.
 *
 * Within a connection nothing overtakes anything. A connection may break: requests that are on
 * their way are lost or still arrive, replies are lost, and the client hears of it soon, or only by
 * its own time-out. A server that stands still keeps what came for it and runs it when it goes on,
 * also what clients that have given up meanwhile had sent. Between a process that is cut off and
 * the server nothing passes; what was sent arrives when the cut is over, unless the connection is
 * gone by then, and sometimes even so: a kernel goes on sending for a socket that was closed.
 *
 * Hints over pub/sub may be lost without a word.
 */
#include "common/redis.h"

#include "common/redis_reply.h"
#include "tests/support/redis_emulator/emulator.h"
#include "tests/support/sim/sim_check.h"

enum { TEXTS_MAX = 16, TEXT_MAX = 1 << 20, TIMEOUT_MS = 1000 };

static const int64_t EPOCH_US = 1700000000000000;

struct sl_redis {
    struct sim_process *process;
    struct sl_loop *loop;
    struct sl_redis_config config;
    bool up, broken;     /* Broken: and does not know it yet. */
    uint64_t connection; /* Which one it is; counted over all processes. */
    uint64_t server;     /* The server's, when it was made. */
    char run_id[41];
    struct sl_list waiting; /* request */
    struct sl_list arrived; /* reply */
    uint64_t last_request_us, last_reply_us;
    struct sl_timer expiry, retry;
    bool subscribes, subscribed;
    uint64_t sub_connection, last_message_us;
    struct sl_timer sub_retry;
};

/* What the client knows of a command that is out. */
struct request {
    struct sl_list node;
    uint64_t sent_ms;
    sl_redis_cb *cb;
    void *ctx;
};

/* A command on its way, or waiting at a server that stands still. */
struct packet {
    struct sim_event event;
    struct sl_list node;
    struct sim_process *from;
    uint64_t incarnation, connection, server;
    size_t text, key_count, argc;
    struct sl_buf bytes;
    struct sl_span *argv;
};

struct reply {
    struct sim_event event;
    struct sl_list node;
    struct sim_process *to;
    uint64_t incarnation, connection;
    struct sl_buf bytes;
};

struct message {
    struct sim_event event;
    uint64_t connection;
    struct sl_buf bytes;
    size_t channel_len;
};

struct emulator *sim_redis;
uint64_t sim_redis_losses, sim_redis_lost_us;

static struct {
    bool down, paused;
    uint64_t number; /* Of its run. */
    uint64_t connections, coins;
    double rate;
    int64_t ahead_us;
    struct sl_list queue; /* packet */
    struct emulator_snapshot *snapshot;
} server;

static struct text {
    char *data;
    size_t len;
    bool beats;
} texts[TEXTS_MAX];

FILE *sim_calls_to;

/* --- the server --- */

static int64_t server_us(void)
{
    return EPOCH_US + server.ahead_us + (int64_t)((double)sim_now_us() * server.rate);
}

int64_t sim_redis_now_ms(void)
{
    return server_us() / 1000;
}

static uint64_t latency_us(void)
{
    return sim_percent(2) ? sim_between(10 * SIM_MS, 300 * SIM_MS) : sim_between(50, 3 * SIM_MS);
}

static void fini_packet(struct sim_event *event)
{
    struct packet *packet = (struct packet *)(void *)event;
    sl_buf_fini(&packet->bytes);
    free(packet->argv);
}

static bool is_current(const struct packet *packet)
{
    const struct sim_process *from = packet->from;
    return from->alive && from->incarnation == packet->incarnation && from->redis != NULL &&
           from->redis->connection == packet->connection && from->redis->up;
}

static bool survives(uint64_t connection)
{
    return ((connection + server.coins) * 0x9e3779b97f4a7c15u >> 40) % 2 == 0;
}

/* Whether what is on its way of a connection that is gone still arrives: all of it or nothing,
 * since nothing is lost in the middle of a connection. Not behind what the process says on its next
 * connection: that one begins by ending the one before. */
static bool arrives_late(const struct packet *packet)
{
    const struct sim_process *from = packet->from;
    bool again = from->alive && from->incarnation == packet->incarnation && from->redis != NULL &&
                 from->redis->up;
    return !again && survives(packet->connection);
}

static void on_reply_event(struct sim_event *event);

static void fini_reply(struct sim_event *event)
{
    sl_buf_fini(&((struct reply *)(void *)event)->bytes);
}

static void send_reply(const struct packet *packet, struct sl_buf *bytes)
{
    struct sl_redis *redis = packet->from->redis;
    struct reply *reply = sim_event_new(sizeof(*reply), on_reply_event);
    reply->event.fini = fini_reply;
    reply->to = packet->from;
    reply->incarnation = packet->incarnation;
    reply->connection = packet->connection;
    reply->bytes = *bytes;
    uint64_t at = sim_now_us() + latency_us();
    redis->last_reply_us = at > redis->last_reply_us ? at : redis->last_reply_us;
    sim_happen(&reply->event, redis->last_reply_us - sim_now_us());
}

static void note_beat(struct sim_process *process)
{
    if (sim_now_us() - process->last_beat_us > 5 * SIM_S) {
        process->last_silent_us = sim_now_us();
    }
    process->last_beat_us = sim_now_us();
}

/* For whoever wants to make the same calls on another Redis: each text by its length. */
static void write_call(const struct packet *packet)
{
    const struct text *text = &texts[packet->text];
    fprintf(sim_calls_to, "%lld %zu %zu %zu\n", (long long)server_us(), packet->key_count,
            packet->argc, text->len);
    fwrite(text->data, 1, text->len, sim_calls_to);
    for (size_t i = 0; i < packet->argc; i++) {
        fprintf(sim_calls_to, "%zu\n", packet->argv[i].len);
        fwrite(packet->argv[i].data, 1, packet->argv[i].len, sim_calls_to);
    }
}

static void execute(const struct packet *packet)
{
    if (sim_calls_to != NULL) {
        write_call(packet);
    }
    struct sl_buf bytes;
    const struct text *text = &texts[packet->text];
    bool alive = packet->from->alive && packet->from->incarnation == packet->incarnation;
    sl_buf_init(&bytes, 64 << 20);
    emulator_set_time(sim_redis, server_us());
    emulator_eval(sim_redis, (struct sl_span){text->data, text->len}, packet->key_count,
                  packet->argc, packet->argv, &bytes);
    CHECK(sl_buf_error(&bytes) == 0);
    sim_counts.scripts++;
    if (alive && text->beats && bytes.data[0] == '*') {
        note_beat(packet->from);
    }
    if (bytes.data[0] == '-') {
        sim_trace("redis answers [%zu] " SL_SPAN_FMT, packet->from->index, (int)bytes.len - 2,
                  bytes.data);
        CHECK(strncmp(bytes.data, "-OOM", 4) == 0); /* Else a script is wrong. */
        packet->from->last_troubled_us = sim_now_us();
    }
    sim_check_redis();
    if (is_current(packet) && !packet->from->redis->broken) {
        send_reply(packet, &bytes);
    } else {
        sl_buf_fini(&bytes);
    }
}

/* When a kernel sends again what did not arrive during a cut: at once, or seconds later, when
 * others have been through for long. Of one connection all at the same time. */
static uint64_t sent_again_us(const struct packet *packet)
{
    uint64_t coin = (packet->connection + server.coins) * 0xbf58476d1ce4e5b9u >> 33;
    uint64_t later = coin % 2 == 0 ? 0 : coin / 2 % (4 * SIM_S);
    uint64_t at = packet->from->cut_until_us + later;
    struct sl_redis *redis = packet->from->redis;
    if (redis != NULL && redis->connection == packet->connection && redis->last_request_us < at) {
        redis->last_request_us = at;
    }
    return at;
}

static void on_packet(struct sim_event *event)
{
    struct packet *packet = (struct packet *)(void *)event;
    struct sim_process *from = packet->from;
    bool alive = from->alive && from->incarnation == packet->incarnation;
    if (server.down || packet->server != server.number) {
        return;
    }
    if (alive && from->cut_until_us > sim_now_us()) { /* Sent again by the kernel. */
        struct packet *again = sim_event_new(sizeof(*again), on_packet);
        struct sim_event head = again->event;
        *again = *packet;
        again->event = head;
        again->event.fini = fini_packet;
        event->fini = NULL;
        sim_happen(&again->event, sent_again_us(packet) - sim_now_us());
        return;
    }
    if (!is_current(packet) && !arrives_late(packet)) {
        return;
    }
    if (server.paused) {
        struct packet *kept = sim_event_new(sizeof(*kept), on_packet);
        struct sim_event head = kept->event;
        *kept = *packet;
        kept->event = head;
        kept->event.fini = fini_packet;
        event->fini = NULL;
        sl_list_push(&server.queue, &kept->node);
        return;
    }
    execute(packet);
}

static void drop_queue(void)
{
    struct sl_list *node;
    while ((node = sl_list_first(&server.queue)) != NULL) {
        struct packet *packet = SL_ITEM(node, struct packet, node);
        sl_list_remove(node);
        fini_packet(&packet->event);
        free(packet);
    }
}

static void on_go_on(struct sim_event *event)
{
    (void)event;
    struct sl_list *node;
    server.paused = false;
    sim_trace("redis goes on");
    while ((node = sl_list_first(&server.queue)) != NULL) {
        struct packet *packet = SL_ITEM(node, struct packet, node);
        sl_list_remove(node);
        execute(packet);
        fini_packet(&packet->event);
        free(packet);
    }
}

void sim_redis_pause(uint64_t us)
{
    if (!server.paused && !server.down) {
        sim_trace("redis stands still for %.1f s", (double)us / SIM_S);
        server.paused = true;
        sim_happen(sim_event_new(sizeof(struct sim_event), on_go_on), us);
    }
}

static void lose(void)
{
    sim_redis_losses++;
    sim_redis_lost_us = sim_now_us();
    sim_counts.flushes++;
}

void sim_redis_flush(void)
{
    sim_trace("FLUSHALL");
    emulator_flush(sim_redis);
    lose();
}

void sim_redis_snapshot(void)
{
    sim_trace("redis saves a snapshot");
    emulator_snapshot_destroy(server.snapshot);
    server.snapshot = emulator_save(sim_redis);
}

static void on_up(struct sim_event *event)
{
    (void)event;
    sim_trace("redis is up again");
    server.down = false;
}

void sim_redis_restart(bool old, uint64_t away_us)
{
    if (server.down || server.paused) {
        return;
    }
    sim_trace("redis ends; comes again %s", old && server.snapshot != NULL ? "old" : "empty");
    if (old && server.snapshot != NULL) {
        emulator_load(sim_redis, server.snapshot);
    } else {
        emulator_flush(sim_redis);
    }
    lose();
    server.number++;
    server.down = true;
    for (size_t i = 0; i < sim_process_count; i++) {
        sim_redis_drop(&sim_processes[i]);
    }
    sim_happen(sim_event_new(sizeof(struct sim_event), on_up), away_us);
}

void sim_redis_full(bool full)
{
    sim_trace(full ? "redis is full" : "redis has room again");
    emulator_set_full(sim_redis, full);
}

bool sim_redis_quiet(void)
{
    return !server.down && !server.paused;
}

/* --- the client's connection --- */

static void on_expiry(struct sl_timer *timer);
static void on_retry(struct sl_timer *timer);

static void retry_soon(struct sl_redis *redis)
{
    sl_timer_start(redis->loop, &redis->retry, sim_between(20, 700), on_retry);
}

static void drop_arrived(struct sl_redis *redis)
{
    struct sl_list *node;
    while ((node = sl_list_first(&redis->arrived)) != NULL) {
        struct reply *reply = SL_ITEM(node, struct reply, node);
        sl_list_remove(node);
        fini_reply(&reply->event);
        free(reply);
    }
}

static void fail_waiting(struct sl_redis *redis, int err)
{
    struct sl_list *node;
    uint64_t now = sl_clock_now_ms();
    while ((node = sl_list_first(&redis->waiting)) != NULL) {
        struct request *request = SL_ITEM(node, struct request, node);
        bool expired = err == -SL_ECONN && now - request->sent_ms >= TIMEOUT_MS;
        sl_list_remove(node);
        if (request->cb != NULL) {
            request->cb(request->ctx, expired ? -SL_ETIMEDOUT : err, NULL);
        }
        free(request);
    }
}

static void take_down(struct sl_redis *redis, const char *why)
{
    redis->up = false;
    redis->connection = 0;
    redis->process->last_troubled_us = sim_now_us();
    sl_timer_stop(redis->loop, &redis->expiry);
    drop_arrived(redis);
    fail_waiting(redis, -SL_ECONN);
    redis->config.on_link(redis->config.ctx, NULL, why);
    retry_soon(redis);
}

static void finish_request(struct sl_redis *redis, struct sl_span bytes)
{
    struct redisReader *reader = sl_redis_reader_create();
    struct redisReply *reply = NULL;
    const char *why = "";
    struct request *request = SL_ITEM(sl_list_first(&redis->waiting), struct request, node);
    CHECK(reader != NULL && sl_redis_reader_feed(reader, bytes));
    CHECK_INT(sl_redis_reader_next(reader, &reply, &why), 1);
    sl_list_remove(&request->node);
    if (request->cb != NULL) {
        bool failed = sl_reply_type(reply) == SL_REPLY_ERROR;
        request->cb(request->ctx, failed ? -SL_EUPSTREAM : 0, failed ? NULL : reply);
    }
    free(request);
    sl_redis_reply_destroy(reply);
    sl_redis_reader_destroy(reader);
}

static void read_replies(struct sl_redis *redis)
{
    struct sl_list *node;
    while (redis->up && (node = sl_list_first(&redis->arrived)) != NULL) {
        struct reply *reply = SL_ITEM(node, struct reply, node);
        sl_list_remove(node);
        finish_request(redis, sl_buf_span(&reply->bytes));
        fini_reply(&reply->event);
        free(reply);
    }
}

static void on_readable(struct sim_event *event)
{
    (void)event;
    if (sim_self->redis != NULL) {
        read_replies(sim_self->redis);
    }
}

static void on_reply_event(struct sim_event *event)
{
    struct reply *reply = (struct reply *)(void *)event;
    struct sim_process *to = reply->to;
    struct sl_redis *redis = to->redis;
    if (!to->alive || to->incarnation != reply->incarnation || redis == NULL ||
        redis->connection != reply->connection || redis->broken) {
        return;
    }
    struct reply *kept = sim_event_new(sizeof(*kept), on_reply_event);
    struct sim_event head = kept->event;
    *kept = *reply;
    kept->event = head;
    kept->event.fini = fini_reply;
    event->fini = NULL;
    if (to->cut_until_us > sim_now_us()) {
        sim_happen(&kept->event, to->cut_until_us - sim_now_us());
        return;
    }
    sl_list_init(&kept->node);
    sl_list_push(&redis->arrived, &kept->node);
    sim_happen_in(sim_event_new(sizeof(struct sim_event), on_readable), to, 0);
}

/* What has arrived is read before the connection counts as dead. */
static void on_expiry(struct sl_timer *timer)
{
    struct sl_redis *redis = SL_ITEM(timer, struct sl_redis, expiry);
    read_replies(redis);
    struct sl_list *oldest = sl_list_first(&redis->waiting);
    if (!redis->up || oldest == NULL) {
        return;
    }
    uint64_t age = sl_clock_now_ms() - SL_ITEM(oldest, struct request, node)->sent_ms;
    if (age >= TIMEOUT_MS) {
        take_down(redis, "no answer");
    } else {
        sl_timer_start(redis->loop, timer, TIMEOUT_MS - age, on_expiry);
    }
}

struct told {
    struct sim_event event;
    uint64_t connection;
};

static void on_reset(struct sim_event *event)
{
    struct sl_redis *redis = sim_self->redis;
    if (redis != NULL && redis->up &&
        redis->connection == ((struct told *)(void *)event)->connection) {
        take_down(redis, "reset");
    }
}

/* The server's half of subscriptions ends with the connection; the client's starts anew. */
static void on_sub_retry(struct sl_timer *timer);

static void on_sub_reset(struct sim_event *event)
{
    struct sl_redis *redis = sim_self->redis;
    (void)event;
    if (redis != NULL && redis->subscribes && !redis->subscribed) {
        sl_timer_start(redis->loop, &redis->sub_retry, sim_between(20, 700), on_sub_retry);
    }
}

void sim_redis_drop(struct sim_process *process)
{
    struct sl_redis *redis = process->redis;
    if (!process->alive || redis == NULL) {
        return;
    }
    if (redis->up && !redis->broken) {
        redis->broken = true;
        process->last_troubled_us = sim_now_us();
        if (server.down || sim_percent(70)) {
            struct told *told = sim_event_new(sizeof(*told), on_reset);
            told->connection = redis->connection;
            sim_happen_in(&told->event, process, sim_between(0, 50 * SIM_MS));
        }
    }
    if (redis->subscribed) {
        redis->subscribed = false;
        sim_happen_in(sim_event_new(sizeof(struct sim_event), on_sub_reset), process,
                      sim_between(0, 5 * SIM_S));
    }
}

void sim_redis_cut(struct sim_process *process, uint64_t us)
{
    sim_trace("process %zu is cut off from redis for %.1f s", process->index, (double)us / SIM_S);
    uint64_t until = sim_now_us() + us;
    process->cut_until_us = until > process->cut_until_us ? until : process->cut_until_us;
}

/* --- connecting --- */

static bool is_reachable(const struct sim_process *process)
{
    return !server.down && !server.paused && process->cut_until_us <= sim_now_us();
}

static void on_connected(struct sim_event *event)
{
    struct sl_redis *redis = sim_self->redis;
    (void)event;
    if (redis == NULL || redis->up) {
        return;
    }
    if (!is_reachable(sim_self)) {
        redis->process->last_troubled_us = sim_now_us();
        redis->config.on_link(redis->config.ctx, NULL, "cannot connect");
        retry_soon(redis);
        return;
    }
    redis->up = true;
    redis->broken = false;
    redis->connection = ++server.connections;
    redis->server = server.number;
    snprintf(redis->run_id, sizeof(redis->run_id), "run%llu", (unsigned long long)server.number);
    sim_trace("reaches redis %s", redis->run_id);
    redis->config.on_link(redis->config.ctx, redis->run_id, NULL);
}

static void on_retry(struct sl_timer *timer)
{
    struct sl_redis *redis = SL_ITEM(timer, struct sl_redis, retry);
    uint64_t delay = 2 * latency_us() + (is_reachable(redis->process) ? 0 : sim_below(SIM_S));
    sim_happen_in(sim_event_new(sizeof(struct sim_event), on_connected), redis->process, delay);
}

static void on_sub_retry(struct sl_timer *timer)
{
    struct sl_redis *redis = SL_ITEM(timer, struct sl_redis, sub_retry);
    if (redis->subscribed) {
        return;
    }
    if (!is_reachable(redis->process)) {
        sl_timer_start(redis->loop, timer, sim_between(100, 1000), on_sub_retry);
        return;
    }
    redis->subscribed = true;
    redis->sub_connection = ++server.connections;
    redis->config.on_subscribed(redis->config.ctx);
}

/* --- messages --- */

static void fini_message(struct sim_event *event)
{
    sl_buf_fini(&((struct message *)(void *)event)->bytes);
}

static void on_message(struct sim_event *event)
{
    struct message *message = (struct message *)(void *)event;
    struct sl_redis *redis = sim_self->redis;
    if (redis == NULL || !redis->subscribed || redis->sub_connection != message->connection) {
        return;
    }
    struct sl_span all = sl_buf_span(&message->bytes);
    size_t len = message->channel_len;
    redis->config.on_message(redis->config.ctx, (struct sl_span){all.data, len},
                             (struct sl_span){all.data + len, all.len - len});
}

static void on_publish(void *ctx, struct sl_span channel, struct sl_span text)
{
    (void)ctx;
    for (size_t i = 0; i < sim_process_count; i++) {
        struct sim_process *process = &sim_processes[i];
        struct sl_redis *redis = process->alive ? process->redis : NULL;
        if (redis == NULL || !redis->subscribed || sim_percent(5)) {
            continue;
        }
        struct message *message = sim_event_new(sizeof(*message), on_message);
        message->event.fini = fini_message;
        message->connection = redis->sub_connection;
        message->channel_len = channel.len;
        sl_buf_init(&message->bytes, TEXT_MAX);
        sl_buf_append_span(&message->bytes, channel);
        sl_buf_append_span(&message->bytes, text);
        uint64_t at = sim_now_us() + latency_us();
        redis->last_message_us = at > redis->last_message_us ? at : redis->last_message_us;
        sim_happen_in(&message->event, process, redis->last_message_us - sim_now_us());
    }
}

/* --- common/redis.h --- */

int sl_redis_create(struct sl_loop *loop, const struct sl_redis_config *config,
                    struct sl_redis **ret, char *why, size_t why_size)
{
    struct sl_redis *redis = calloc(1, sizeof(*redis));
    (void)why, (void)why_size;
    CHECK(redis != NULL && sim_self != NULL);
    redis->process = sim_self;
    redis->loop = loop;
    redis->config = *config;
    sl_list_init(&redis->waiting);
    sl_list_init(&redis->arrived);
    sim_self->redis = *ret = redis;
    retry_soon(redis);
    return 0;
}

void sl_redis_destroy(struct sl_redis *redis)
{
    redis->up = redis->subscribed = false;
    redis->process->redis = NULL;
    fail_waiting(redis, -SL_ECLOSED);
    drop_arrived(redis);
    sl_timer_stop(redis->loop, &redis->expiry);
    sl_timer_stop(redis->loop, &redis->retry);
    sl_timer_stop(redis->loop, &redis->sub_retry);
    free(redis);
}

static size_t text_of(const char *text)
{
    size_t len = strlen(text), i = 0;
    while (i < TEXTS_MAX && texts[i].data != NULL &&
           (texts[i].len != len || memcmp(texts[i].data, text, len) != 0)) {
        i++;
    }
    CHECK(i < TEXTS_MAX);
    if (texts[i].data == NULL) {
        texts[i] = (struct text){.data = strdup(text),
                                 .len = len,
                                 .beats = strstr(text, "The heartbeat of a process") != NULL};
        CHECK(texts[i].data != NULL);
    }
    return i;
}

static void copy_arguments(struct packet *packet, size_t argc, const struct sl_span *argv)
{
    size_t at = 0;
    sl_buf_init(&packet->bytes, 64 << 20);
    packet->argc = argc;
    packet->argv = calloc(argc, sizeof(*packet->argv));
    CHECK(packet->argv != NULL);
    for (size_t i = 0; i < argc; i++) {
        sl_buf_append_span(&packet->bytes, argv[i]);
    }
    CHECK(sl_buf_error(&packet->bytes) == 0);
    for (size_t i = 0; i < argc; i++) {
        packet->argv[i] = (struct sl_span){packet->bytes.data + at, argv[i].len};
        at += argv[i].len;
    }
}

int sl_redis_eval(struct sl_redis *redis, struct sl_redis_script *script, size_t key_count,
                  size_t argc, const struct sl_span *argv, sl_redis_cb *cb, void *ctx)
{
    if (!redis->up || !redis->process->alive) {
        return -SL_ECONN;
    }
    struct request *request = calloc(1, sizeof(*request));
    struct packet *packet = sim_event_new(sizeof(*packet), on_packet);
    CHECK(request != NULL);
    *request = (struct request){.sent_ms = sl_clock_now_ms(), .cb = cb, .ctx = ctx};
    sl_list_push(&redis->waiting, &request->node);
    if (!sl_timer_active(&redis->expiry)) {
        sl_timer_start(redis->loop, &redis->expiry, TIMEOUT_MS, on_expiry);
    }
    packet->event.fini = fini_packet;
    packet->from = redis->process;
    packet->incarnation = redis->process->incarnation;
    packet->connection = redis->connection;
    packet->server = redis->server;
    packet->text = text_of(script->text);
    packet->key_count = key_count;
    copy_arguments(packet, argc, argv);
    sl_list_init(&packet->node);
    if (redis->broken && !survives(redis->connection)) {
        packet->server = 0; /* Lost. */
    }
    uint64_t at = sim_now_us() + latency_us();
    redis->last_request_us = at > redis->last_request_us ? at : redis->last_request_us;
    sim_happen(&packet->event, redis->last_request_us - sim_now_us());
    return 0;
}

int sl_redis_subscribe(struct sl_redis *redis, struct sl_span channel)
{
    (void)channel; /* There is only one. */
    redis->subscribes = true;
    sl_timer_start(redis->loop, &redis->sub_retry, sim_between(1, 50), on_sub_retry);
    return 0;
}

bool sl_redis_up(const struct sl_redis *redis)
{
    return redis->up;
}

/* --- beginning and end --- */

void sim_redis_begin(void)
{
    if (sim_redis == NULL) {
        sim_redis = emulator_create();
        emulator_on_publish(sim_redis, on_publish, NULL);
    }
    server.down = server.paused = false;
    server.number = 1;
    server.connections = 0;
    server.coins = sim_random();
    server.rate = 1.0 + ((double)sim_below(4001) - 2000.0) / 1e6;
    server.ahead_us = 0;
    sl_list_init(&server.queue);
    sim_redis_losses = 0;
    sim_redis_lost_us = sim_now_us();
    emulator_set_full(sim_redis, false);
    emulator_flush(sim_redis);
}

void sim_redis_end(void)
{
    drop_queue();
    emulator_snapshot_destroy(server.snapshot);
    server.snapshot = NULL;
    emulator_flush(sim_redis);
}
