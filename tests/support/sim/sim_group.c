/*
 * The group consumer of common/kafka.h, one group a stage, on the real window.
 *
 * The story of a rebalance (eager, as Sluice has it): somebody joins, leaves, or was not heard of
 * for ten seconds. Each member hears of it by its next heartbeat, ends its epochs after it has
 * committed what is finished, and joins again. When all have, each is told its share. A member that
 * stands still keeps the others waiting until the group goes on without it; when it wakes it still
 * believes in its share, its commits are refused, and it hears that it has lost everything.
 *
 * Offsets: what is finished is committed once a second. What a process has not committed when it
 * dies is delivered again.
 */
#include "common/window.h"
#include "tests/support/sim/sim_check.h"

enum {
    PARTITIONS_MAX = 4,
    PARTS_MAX = SL_STAGE_INPUTS * PARTITIONS_MAX,
    SESSION_US = 10 * SIM_S,
    HEARTBEAT_US = SIM_S,
    COMMIT_MS = 1000
};

struct part {
    uint32_t topic;
    int32_t id;
    uint64_t epoch;
    int64_t next; /* Offset to be read. */
    int64_t stored;
    struct sl_window window;
};

struct sl_consumer {
    struct sim_process *process;
    struct sl_loop *loop;
    struct sl_consumer_config config;
    char names[SL_STAGE_INPUTS][64];
    uint32_t classes[SL_STAGE_INPUTS];
    struct part parts[PARTS_MAX];
    size_t part_count, first;
    uint64_t epoch;
    uint64_t generation; /* Of the share that it has. */
    bool joined, leaving;
    uint64_t last_event_us;
    struct sl_timer commit;
    struct sl_task scan;
    void (*on_left)(void *ctx);
    void *left_ctx;
};

/* What the coordinator of a group knows. */
static struct group {
    struct member {
        bool in, ready; /* Ready: it has given its share back. */
        uint64_t incarnation;
    } members[SIM_PROCESSES];
    bool balancing;
    uint64_t generation; /* Of the shares that were dealt last. */
    int64_t committed[SL_STAGE_INPUTS][PARTITIONS_MAX];
} groups[SIM_STAGES];

static void on_scan(struct sl_task *task);

static struct group *group_of(const struct sl_consumer *consumer)
{
    return &groups[consumer->process->stage];
}

static struct member *member_of(const struct sl_consumer *consumer)
{
    struct member *member = &group_of(consumer)->members[consumer->process->index];
    return member->in && member->incarnation == consumer->process->incarnation ? member : NULL;
}

/* --- committing --- */

static void commit(struct sl_consumer *consumer)
{
    struct group *group = group_of(consumer);
    if (member_of(consumer) == NULL || consumer->generation != group->generation) {
        return; /* Refused. */
    }
    for (size_t i = 0; i < consumer->part_count; i++) {
        struct part *part = &consumer->parts[i];
        int64_t *committed = &group->committed[part->topic][part->id];
        if (part->stored > *committed) {
            sim_check_commit(consumer->names[part->topic], part->id, *committed, part->stored);
            *committed = part->stored;
        }
    }
}

static void on_commit(struct sl_timer *timer)
{
    struct sl_consumer *consumer = SL_ITEM(timer, struct sl_consumer, commit);
    sl_timer_start(consumer->loop, timer, COMMIT_MS, on_commit);
    sl_task_defer(consumer->loop, &consumer->scan, on_scan);
    commit(consumer);
}

int64_t sim_group_committed(size_t stage, const char *topic, int32_t partition)
{
    for (uint32_t i = 0; sim_stages[stage].inputs[i].topic != NULL; i++) {
        if (strcmp(topic + strlen("sluice."), sim_stages[stage].inputs[i].topic) == 0) {
            return groups[stage].committed[i][partition];
        }
    }
    SIM_FAIL("nobody reads %s", topic);
}

static void end_epochs(struct sl_consumer *consumer)
{
    for (size_t i = 0; i < consumer->part_count; i++) {
        sl_window_fini(&consumer->parts[i].window);
    }
    consumer->part_count = 0;
    consumer->joined = false;
}

/* --- the group --- */

/* What the coordinator says to a member arrives in order. */
static void tell(struct sim_process *process, void (*run)(struct sim_event *), uint64_t within_us,
                 size_t size, const void *bytes)
{
    struct sl_consumer *consumer = process->alive ? process->consumer : NULL;
    if (consumer == NULL) {
        return; /* Nobody hears it. */
    }
    struct sim_event *event = sim_event_new(sizeof(*event) + size, run);
    if (size > 0) {
        memcpy(event + 1, bytes, size);
    }
    uint64_t at = sim_now_us() + sim_between(100, within_us);
    consumer->last_event_us = at > consumer->last_event_us ? at : consumer->last_event_us;
    sim_happen_in(event, process, consumer->last_event_us - sim_now_us());
}

static void deal_if_ready(struct group *group);

static void on_rejoined(struct sim_event *event)
{
    struct sim_process *process = *(struct sim_process **)(void *)(event + 1);
    uint64_t incarnation = event->incarnation;
    struct group *group = &groups[process->stage];
    struct member *member = &group->members[process->index];
    if (member->in && member->incarnation == incarnation) {
        member->ready = true;
        deal_if_ready(group);
    }
}

/* In the member: gives its share back, and joins again. */
static void on_revoke(struct sim_event *event)
{
    (void)event;
    struct sl_consumer *consumer = sim_self->consumer;
    if (consumer == NULL || consumer->leaving) {
        return;
    }
    commit(consumer);
    end_epochs(consumer);
    struct sim_event *rejoined = sim_event_new(sizeof(*rejoined) + sizeof(void *), on_rejoined);
    memcpy(rejoined + 1, &sim_self, sizeof(void *));
    rejoined->incarnation = sim_self->incarnation;
    sim_happen(rejoined, sim_between(100, 5 * SIM_MS));
}

static void balance(struct group *group)
{
    group->balancing = true;
    for (size_t i = 0; i < SIM_PROCESSES; i++) {
        struct member *member = &group->members[i];
        if (member->in) {
            member->ready = false;
            tell(&sim_processes[i], on_revoke, HEARTBEAT_US, 0, NULL);
        }
    }
    deal_if_ready(group);
}

struct share {
    uint64_t generation;
    size_t rank, members;
};

static void add_part(struct sl_consumer *consumer, uint32_t topic, int32_t id)
{
    int64_t committed = group_of(consumer)->committed[topic][id];
    CHECK(consumer->part_count < PARTS_MAX);
    struct part *part = &consumer->parts[consumer->part_count++];
    *part = (struct part){.topic = topic,
                          .id = id,
                          .epoch = ++consumer->epoch,
                          .next = committed,
                          .stored = committed};
    sl_window_init(&part->window);
}

/* In the member: the `range` of each topic. */
static void on_assign(struct sim_event *event)
{
    struct share share;
    struct sl_consumer *consumer = sim_self->consumer;
    memcpy(&share, event + 1, sizeof(share));
    if (consumer == NULL || consumer->leaving || member_of(consumer) == NULL ||
        share.generation != group_of(consumer)->generation) {
        return;
    }
    end_epochs(consumer);
    consumer->generation = share.generation;
    consumer->joined = true;
    for (uint32_t topic = 0; topic < consumer->config.topic_count; topic++) {
        size_t partitions = (size_t)sim_kafka_partitions(consumer->names[topic]);
        size_t each = partitions / share.members, more = partitions % share.members;
        size_t from = share.rank * each + (share.rank < more ? share.rank : more);
        size_t count = each + (share.rank < more ? 1 : 0);
        for (size_t i = from; i < from + count; i++) {
            add_part(consumer, topic, (int32_t)i);
        }
    }
    sim_trace("has %zu partitions", consumer->part_count);
    sl_task_defer(consumer->loop, &consumer->scan, on_scan);
}

static void deal_if_ready(struct group *group)
{
    struct share share = {.generation = group->generation + 1};
    if (!group->balancing) {
        return;
    }
    for (size_t i = 0; i < SIM_PROCESSES; i++) {
        if (group->members[i].in && !group->members[i].ready) {
            return;
        }
        share.members += group->members[i].in ? 1 : 0;
    }
    group->balancing = false;
    group->generation++;
    for (size_t i = 0; i < SIM_PROCESSES; i++) {
        if (group->members[i].in) {
            tell(&sim_processes[i], on_assign, 20 * SIM_MS, sizeof(share), &share);
            share.rank++;
        }
    }
}

/* In a member that was thought dead: everything is lost, and it joins anew. */
static void on_lost(struct sim_event *event)
{
    (void)event;
    struct sl_consumer *consumer = sim_self->consumer;
    if (consumer == NULL || consumer->leaving) {
        return;
    }
    sim_trace("has lost its partitions");
    end_epochs(consumer);
    struct group *group = group_of(consumer);
    group->members[sim_self->index] =
        (struct member){.in = true, .ready = true, .incarnation = sim_self->incarnation};
    balance(group);
}

/* Once a second: who has not been heard of? */
static void on_session_look(struct sim_event *event)
{
    (void)event;
    sim_happen(sim_event_new(sizeof(struct sim_event), on_session_look), HEARTBEAT_US);
    for (size_t i = 0; i < sim_process_count; i++) {
        struct sim_process *process = &sim_processes[i];
        if (process->stage == SIM_GATEWAY) {
            continue;
        }
        struct group *group = &groups[process->stage];
        struct member *member = &group->members[i];
        bool gone = !process->alive || process->incarnation != member->incarnation;
        uint64_t since = gone ? process->died_at_us : process->paused_at_us;
        if (member->in && (gone || process->paused) && sim_now_us() - since > SESSION_US) {
            sim_trace("the group goes on without process %zu", i);
            member->in = false;
            if (!gone) {
                tell(process, on_lost, HEARTBEAT_US, 0, NULL);
            }
            balance(group);
        }
    }
}

/* --- reading --- */

static bool give_next(struct sl_consumer *consumer, struct part *part)
{
    const struct sl_consumer_config *config = &consumer->config;
    const struct sim_record *from =
        sim_kafka_record(consumer->names[part->topic], part->id, part->next);
    if (from == NULL || config->room(config->ctx, consumer->classes[part->topic]) == 0 ||
        sl_window_take(&part->window, part->next) != 0) {
        return false;
    }
    const struct sl_record record = {.topic = consumer->names[part->topic],
                                     .partition = part->id,
                                     .offset = from->offset,
                                     .timestamp_ms = from->timestamp_ms,
                                     .key = from->key,
                                     .value = from->value,
                                     .headers = from->headers,
                                     .header_count = from->header_count};
    const struct sl_position position = {
        .topic = part->topic, .partition = part->id, .offset = part->next, .epoch = part->epoch};
    part->next++;
    config->on_record(config->ctx, &record, &position);
    return true;
}

static void on_scan(struct sl_task *task)
{
    struct sl_consumer *consumer = SL_ITEM(task, struct sl_consumer, scan);
    size_t empty = 0;
    while (!consumer->leaving && empty < consumer->part_count) {
        consumer->first = (consumer->first + 1) % consumer->part_count;
        empty = give_next(consumer, &consumer->parts[consumer->first]) ? 0 : empty + 1;
    }
}

static void on_fetched(struct sim_event *event)
{
    (void)event;
    if (sim_self->consumer != NULL) {
        sl_consumer_kick(sim_self->consumer);
    }
}

void sim_group_appended(const struct sim_record *record)
{
    for (size_t i = 0; i < sim_process_count; i++) {
        struct sim_process *process = &sim_processes[i];
        struct sl_consumer *consumer = process->alive ? process->consumer : NULL;
        for (size_t j = 0; consumer != NULL && j < consumer->part_count; j++) {
            const struct part *part = &consumer->parts[j];
            if (part->id == record->partition &&
                strcmp(consumer->names[part->topic], record->topic) == 0) {
                sim_happen_in(sim_event_new(sizeof(struct sim_event), on_fetched), process,
                              sim_between(200, 20 * SIM_MS));
            }
        }
    }
}

/* --- common/kafka.h --- */

int sl_consumer_create(struct sl_loop *loop, const struct sl_consumer_config *config,
                       struct sl_consumer **ret, char *why, size_t why_size)
{
    struct sl_consumer *consumer = calloc(1, sizeof(*consumer));
    (void)why, (void)why_size;
    CHECK(consumer != NULL && config->topic_count <= SL_STAGE_INPUTS);
    consumer->process = sim_self;
    consumer->loop = loop;
    consumer->config = *config;
    for (size_t i = 0; i < config->topic_count; i++) {
        snprintf(consumer->names[i], sizeof(consumer->names[i]), "%s", config->topics[i].name);
        consumer->classes[i] = config->topics[i].class;
    }
    sim_self->consumer = *ret = consumer;
    sl_timer_start(loop, &consumer->commit, COMMIT_MS, on_commit);
    struct group *group = group_of(consumer);
    group->members[sim_self->index] =
        (struct member){.in = true, .incarnation = sim_self->incarnation};
    balance(group);
    return 0;
}

void sl_consumer_destroy(struct sl_consumer *consumer)
{
    end_epochs(consumer);
    sl_timer_stop(consumer->loop, &consumer->commit);
    sl_task_cancel(&consumer->scan);
    consumer->process->consumer = NULL;
    free(consumer);
}

static struct part *part_of(const struct sl_consumer *consumer, const struct sl_position *position)
{
    for (size_t i = 0; i < consumer->part_count; i++) {
        const struct part *part = &consumer->parts[i];
        if (part->topic == position->topic && part->id == position->partition &&
            part->epoch == position->epoch) {
            return (struct part *)(uintptr_t)part;
        }
    }
    return NULL;
}

void sl_consumer_end(struct sl_consumer *consumer, const struct sl_position *position)
{
    struct part *part = part_of(consumer, position);
    if (part != NULL && sl_window_end(&part->window, position->offset)) {
        part->stored = part->window.base;
    }
}

bool sl_consumer_owns(const struct sl_consumer *consumer, const struct sl_position *position)
{
    return part_of(consumer, position) != NULL;
}

bool sl_consumer_joined(const struct sl_consumer *consumer)
{
    return consumer->joined;
}

void sl_consumer_kick(struct sl_consumer *consumer)
{
    sl_task_defer(consumer->loop, &consumer->scan, on_scan);
}

static void on_left_event(struct sim_event *event)
{
    struct sl_consumer *consumer = sim_self->consumer;
    (void)event;
    if (consumer != NULL) {
        consumer->on_left(consumer->left_ctx);
    }
}

void sl_consumer_leave(struct sl_consumer *consumer, void (*on_left)(void *ctx), void *ctx)
{
    struct member *member = member_of(consumer);
    consumer->on_left = on_left;
    consumer->left_ctx = ctx;
    commit(consumer);
    consumer->leaving = true;
    end_epochs(consumer);
    if (member != NULL) {
        member->in = false;
        balance(group_of(consumer));
    }
    sim_happen_in(sim_event_new(sizeof(struct sim_event), on_left_event), consumer->process,
                  sim_between(SIM_MS, 300 * SIM_MS));
}

/* --- beginning and end --- */

void sim_group_begin(void)
{
    memset(groups, 0, sizeof(groups));
    sim_happen(sim_event_new(sizeof(struct sim_event), on_session_look), HEARTBEAT_US);
}

void sim_group_end(void)
{
    memset(groups, 0, sizeof(groups));
}
