/*
 * What must hold, after each step:
 *
 *   limits     calls that are open of processes that live and do not stand still: within the limit
 *   deadline   no call begins after it
 *   one owner  a stage of a query, or a batch, is not begun while another process runs it, unless
 *              that one was silent for longer than it takes to be thought dead, or Redis forgot
 *   paid once  what was shown is not generated again unasked, unless Redis forgot
 *   claims     done stays done, streaming stays streaming, fences only grow
 *   endings    one counts: results are equal, unless Redis forgot
 *   stream     what a reader takes is one generation from its first token, or parted by restart;
 *              one terminal event
 *   poison     what kills its process is begun three times at most
 *   offsets    what is committed was sent on, or has its result
 *
 * and when the faults are over (sim_check_done): each query has ended for its reader and has a
 * result, all offsets are committed, and nothing is held, parked or waiting anywhere.
 *
 * "Redis forgot" is no excuse where the owner lived, in touch with Redis, since before: it has told
 * Redis its claim again.
 */
#include "tests/support/sim/sim_check.h"
#include "common/arena.h"
#include "common/bundle.h"
#include "common/codec.h"
#include "tests/support/redis_emulator/emulator.h"
#include "tests/support/sim/sim_gateway.h"
#include "workers/gateway/order.h"

enum {
    DEATHS_MAX = 3,
    FACTS_MAX = 256,
    FENCES_MAX = 64,
    DEADLINE_SLACK_MS = 400,
    SILENT_US = 5 * SIM_S,
    CANCEL_US = 6 * SIM_S
};

/* A stage that a process has begun and not settled. */
struct run {
    bool active;
    uint64_t incarnation, since_us, losses;
    int64_t deadline_ms;
    enum sim_limit limit;
    bool open; /* A call is. */
};

/* What Redis said of a claim, at the last look. */
struct claim {
    char state;
    uint64_t fence, losses;
};

struct fact {
    char id[64];
    bool query, restart, poison;
    unsigned begun[SIM_STAGES]; /* How often, of poison. */
    int64_t deadline_ms;
    uint64_t losses; /* When it was accepted. */
    struct run runs[SIM_STAGES][SIM_PROCESSES];
    struct claim claims[SIM_STAGES];
    bool forwarded, buried, sent; /* In the logs. */
    size_t results;
    struct sl_buf result, ending;
    uint64_t ending_losses;
    bool shown;
    const struct sim_process *shown_by;
    uint64_t shown_incarnation, shown_losses;
    struct order order;
    unsigned taken; /* Deltas since the reader's stream began. */
    unsigned long long text_fence;
    bool terminal;
    bool told;                               /* By a gateway: what comes now is not for them. */
    uint64_t cancelled_us, cancelled_losses; /* Redis knows since; 0: it does not. */
};

static struct fact facts[FACTS_MAX];
static size_t fact_count;
static uint64_t fences[FENCES_MAX * FACTS_MAX], fence_count;
static uint64_t highest_fence, fence_before; /* Of all; and before the last command. */

void (*sim_on_moment)(struct sim_process *process);
void (*sim_on_poison)(struct sim_process *process);

/* --- facts --- */

static struct fact *fact_of(struct sl_span id)
{
    for (size_t i = 0; i < fact_count; i++) {
        if (sl_span_is(id, facts[i].id)) {
            return &facts[i];
        }
    }
    CHECK(fact_count < FACTS_MAX && id.len < sizeof(facts[0].id));
    struct fact *fact = &facts[fact_count++];
    *fact = (struct fact){.losses = sim_redis_losses};
    snprintf(fact->id, sizeof(fact->id), SL_SPAN_FMT, SL_SPAN_ARG(id));
    sl_buf_init(&fact->result, 1 << 20);
    sl_buf_init(&fact->ending, 1 << 20);
    return fact;
}

size_t sim_check_query(const char *id, bool restart, int64_t deadline_ms)
{
    struct fact *fact = fact_of(sl_span_of(id));
    fact->query = true;
    fact->restart = restart;
    fact->deadline_ms = deadline_ms;
    sim_counts.queries++;
    return (size_t)(fact - facts);
}

static void moment(void)
{
    if (sim_on_moment != NULL) {
        sim_on_moment(sim_self);
    }
}

void sim_check_poison(const char *id)
{
    fact_of(sl_span_of(id))->poison = true;
}

/* Three deaths are enough. */
static void check_poison(struct fact *fact)
{
    if (!fact->poison) {
        return;
    }
    unsigned begun = ++fact->begun[sim_self->stage];
    if (begun > DEATHS_MAX && fact->losses == sim_redis_losses) {
        SIM_FAIL("%s has killed %u processes and is begun again", fact->id, begun - 1);
    }
    sim_on_poison(sim_self);
}

static struct run *run_of(const struct sl_job *job)
{
    return &fact_of(job->id)->runs[sim_self->stage][sim_self->index];
}

/* --- what stages do --- */

/* May somebody else have begun what this one runs? */
static bool may_be_passed_over(const struct sim_process *process, const struct run *run)
{
    bool silent = process->last_silent_us >= run->since_us ||
                  sim_now_us() - process->last_beat_us > SILENT_US;
    bool forgotten =
        sim_redis_losses != run->losses && process->last_troubled_us >= sim_redis_lost_us;
    return process->paused || silent || forgotten;
}

static void check_one_owner(const struct fact *fact, enum sim_stage_of stage)
{
    for (size_t i = 0; i < sim_process_count; i++) {
        const struct sim_process *process = &sim_processes[i];
        const struct run *run = &fact->runs[stage][i];
        if (run->active && process != sim_self && !may_be_passed_over(process, run)) {
            SIM_FAIL("%s of %s is begun while process %zu runs it", sim_stages[stage].name,
                     fact->id, i);
        }
    }
}

static void check_paid_once(const struct fact *fact)
{
    const struct sim_process *by = fact->shown_by;
    if (!fact->shown || fact->restart) {
        return;
    }
    const struct run *run = &fact->runs[SIM_SECOND][by->index];
    bool runs = run->active && run->incarnation == fact->shown_incarnation;
    if (fact->shown_losses == sim_redis_losses ||
        (runs && !may_be_passed_over(by, run) && by->last_troubled_us < sim_redis_lost_us)) {
        SIM_FAIL("%s is generated again after process %zu had shown something", fact->id,
                 by->index);
    }
}

void sim_check_started(struct sl_job *job)
{
    struct fact *fact = fact_of(job->id);
    struct run *run = run_of(job);
    sim_trace("begins %s of %s, attempt %u, fence %llu", sim_stages[sim_self->stage].name, fact->id,
              job->admission.attempt, (unsigned long long)job->admission.fence);
    CHECK(!run->active);
    check_one_owner(fact, sim_self->stage);
    if (sim_self->stage == SIM_SECOND) {
        check_paid_once(fact);
    }
    *run = (struct run){.active = true,
                        .incarnation = sim_self->incarnation,
                        .since_us = sim_now_us(),
                        .losses = sim_redis_losses,
                        .deadline_ms = sl_job_bulk(job) ? 0 : sl_job_deadline_ms(job)};
    check_poison(fact);
    sim_counts.takeovers += job->admission.attempt > 1 ? 1 : 0;
}

void sim_check_stopped(struct sl_job *job)
{
    struct run *run = run_of(job);
    sim_trace("leaves %s of %s", sim_stages[sim_self->stage].name, fact_of(job->id)->id);
    CHECK(run->active && !run->open);
    run->active = false;
    moment();
}

void sim_check_call(struct sl_job *job, enum sim_limit limit, bool open)
{
    struct run *run = run_of(job);
    CHECK(run->active && run->open != open);
    run->open = open;
    run->limit = limit;
    sim_trace("%s a call of %s for %s", open ? "opens" : "closes", sim_limits[limit].name,
              fact_of(job->id)->id);
    if (open && run->deadline_ms > 0 && sim_redis_now_ms() > run->deadline_ms + DEADLINE_SLACK_MS) {
        SIM_FAIL("a call begins %lld ms after the deadline",
                 (long long)(sim_redis_now_ms() - run->deadline_ms));
    }
    moment();
}

void sim_check_shown(struct sl_job *job)
{
    struct fact *fact = fact_of(job->id);
    fact->shown = true;
    fact->shown_by = sim_self;
    fact->shown_incarnation = sim_self->incarnation;
    fact->shown_losses = run_of(job)->losses; /* When it was claimed, and marked. */
    moment();
}

void sim_check_died(const struct sim_process *process)
{
    for (size_t i = 0; i < fact_count && process->stage != SIM_GATEWAY; i++) {
        CHECK(!facts[i].runs[process->stage][process->index].active);
    }
}

/* --- the logs --- */

static void take(struct fact *fact, const struct sl_event *event)
{
    unsigned long long fence = 0;
    unsigned at = 0;
    char text[64];
    if (fact->terminal) {
        SIM_FAIL("the reader of %s takes something after the end", fact->id);
    }
    switch (event->type) {
    case SL_EVENT_SOURCES:
        break;
    case SL_EVENT_DELTA:
        snprintf(text, sizeof(text), SL_SPAN_FMT, SL_SPAN_ARG(event->text));
        CHECK(sscanf(text, "%llu:%u", &fence, &at) == 2);
        if (at != fact->taken || (at > 0 && fence != fact->text_fence)) {
            SIM_FAIL("the stream of %s is spliced: %s after %llu:%u", fact->id, text,
                     fact->text_fence, fact->taken - 1);
        }
        fact->text_fence = fence;
        fact->taken++;
        break;
    case SL_EVENT_RESTART:
        if (!fact->restart) {
            SIM_FAIL("%s begins again unasked", fact->id);
        }
        fact->taken = 0;
        sim_counts.restarts++;
        break;
    case SL_EVENT_DONE:
        sim_counts.done++;
        fact->terminal = true;
        if (event->result->usage.completion_tokens != fact->taken) {
            SIM_FAIL("%s is done with %u of %u tokens", fact->id, fact->taken,
                     event->result->usage.completion_tokens);
        }
        break;
    case SL_EVENT_ERROR:
        sim_counts.failed++;
        fact->terminal = true;
        break;
    }
}

static void on_event(void *ctx, struct sl_span id, struct sl_span bytes)
{
    struct sl_arena arena;
    struct sl_event event;
    unsigned *events = ctx;
    sl_arena_init(&arena, 1 << 20);
    CHECK_INT(sl_event_decode(bytes, &arena, &event), 0);
    CHECK(sl_span_equal(id, event.id));
    sim_counts.bundled += ++*events > 1 ? 1 : 0;
    struct fact *fact = fact_of(event.id);
    enum order_verdict verdict = order_take(&fact->order, &event);
    bool ended = fact->terminal;
    sim_trace("reply to %s: %s %u.%u/%llu: %s", fact->id, sl_event_type_text(event.type),
              event.attempt, event.seq, (unsigned long long)event.fence,
              verdict == ORDER_TAKE   ? "taken"
              : verdict == ORDER_DROP ? "dropped"
                                      : "broken");
    if (fact->told) {
        ;
    } else if (verdict == ORDER_TAKE) {
        take(fact, &event);
    } else if (verdict == ORDER_LOST) {
        sim_counts.lost++;
        fact->terminal = true;
    }
    if (fact->terminal && !ended) {
        sim_gateway_ended(fact->id);
    }
    sl_arena_fini(&arena);
}

static void on_reply(const struct sim_record *record)
{
    const struct sl_record reply = {
        .value = record->value, .headers = record->headers, .header_count = record->header_count};
    unsigned events = 0;
    CHECK_INT(sl_record_events(&reply, on_event, &events), 0);
    CHECK(events > 0);
}

bool sim_check_ended(const char *id)
{
    return fact_of(sl_span_of(id))->terminal;
}

void sim_check_told(const char *id)
{
    struct fact *fact = fact_of(sl_span_of(id));
    sim_trace("tells the callers of %s that its deadline has passed", id);
    sim_counts.told++;
    fact->terminal = fact->told = true;
}

static void on_result(const struct sim_record *record)
{
    struct fact *fact = fact_of(record->key);
    sim_trace("result of %s", fact->id);
    if (fact->results++ == 0) {
        sl_buf_append_span(&fact->result, record->value);
    } else if (!sl_span_equal(sl_buf_span(&fact->result), record->value) &&
               fact->losses == sim_redis_losses) {
        SIM_FAIL("%s has two different results", fact->id);
    }
}

static struct sl_span id_of(const struct sim_record *record, char derived[37])
{
    if (strcmp(record->topic, "sluice.chunks") == 0) {
        sl_id_derive(record->topic, record->partition, record->offset, record->timestamp_ms,
                     derived);
        return sl_span_of(derived);
    }
    return record->key;
}

static struct sl_span header_of(const struct sim_record *record, const char *name)
{
    for (size_t i = 0; i < record->header_count; i++) {
        if (sl_span_is(record->headers[i].name, name)) {
            return record->headers[i].value;
        }
    }
    SIM_FAIL("a record to %s lacks the header %s", record->topic, name);
}

/* Of work whose owners died again and again. */
static void on_dead_letter(const struct sim_record *record)
{
    long long partition = 0, offset = 0;
    char derived[37], topic[64];
    sim_trace("a dead letter to %s", record->topic);
    struct sl_span why = header_of(record, "__connect.errors.exception.class.name");
    if (!sl_span_is(why, "LOST")) {
        SIM_FAIL("a dead letter for " SL_SPAN_FMT, SL_SPAN_ARG(why));
    }
    snprintf(topic, sizeof(topic), "%.*s", (int)(strlen(record->topic) - strlen(".dlq")),
             record->topic);
    CHECK_INT(sl_span_to_int(header_of(record, "__connect.errors.partition"), 0, 100, &partition),
              0);
    CHECK_INT(sl_span_to_int(header_of(record, "__connect.errors.offset"), 0, 10000, &offset), 0);
    fact_of(id_of(sim_kafka_record(topic, (int32_t)partition, offset), derived))->buried = true;
    sim_counts.dead++;
}

void sim_check_record(const struct sim_record *record)
{
    char derived[37];
    if (strcmp(record->topic, "sluice.replies") == 0) {
        on_reply(record);
        return;
    }
    fact_of(id_of(record, derived)); /* Claims on it are looked at from now on. */
    if (strcmp(record->topic, "sluice.results") == 0) {
        on_result(record);
    } else if (strcmp(record->topic, "sluice.generate") == 0) {
        fact_of(record->key)->forwarded = true;
    } else if (strcmp(record->topic, "sluice.vectors") == 0) {
        fact_of(record->key)->sent = true;
    } else if (strstr(record->topic, ".dlq") != NULL) {
        on_dead_letter(record);
    }
}

void sim_check_commit(const char *topic, int32_t partition, int64_t from, int64_t to)
{
    sim_trace("commits %s/%d up to %lld", topic, partition, (long long)to);
    for (int64_t offset = from; offset < to; offset++) {
        char derived[37];
        const struct sim_record *record = sim_kafka_record(topic, partition, offset);
        const struct fact *fact = fact_of(id_of(record, derived));
        bool ended = fact->results > 0 || fact->sent || fact->buried;
        bool first = strcmp(topic, "sluice.queries") == 0;
        if (!ended && !(first && fact->forwarded)) {
            SIM_FAIL("%s is committed past %s, which is not finished", topic, fact->id);
        }
    }
}

/* --- Redis --- */

static bool is_known(uint64_t fence)
{
    for (uint64_t i = 0; i < fence_count; i++) {
        if (fences[i] == fence) {
            return true;
        }
    }
    return false;
}

static void check_fence(const struct fact *fact, uint64_t fence)
{
    if (is_known(fence)) {
        return;
    }
    if (fence <= fence_before) {
        SIM_FAIL("%s gets fence %llu after %llu", fact->id, (unsigned long long)fence,
                 (unsigned long long)fence_before);
    }
    CHECK(fence_count < sizeof(fences) / sizeof(fences[0]));
    fences[fence_count++] = fence;
    highest_fence = fence > highest_fence ? fence : highest_fence;
}

static bool is_shown(char state)
{
    return state == 't' || state == 'g';
}

static void check_claim(struct fact *fact, enum sim_stage_of stage)
{
    char key[128], text[128], state, owner[32];
    unsigned attempt;
    unsigned long long fence;
    snprintf(key, sizeof(key), "sluice:%s:%.64s", fact->query ? "query" : "bulk", fact->id);
    struct sl_span field = emulator_hash_field(sim_redis, key, sim_stages[stage].name);
    if (field.data == NULL) {
        return;
    }
    snprintf(text, sizeof(text), SL_SPAN_FMT, SL_SPAN_ARG(field));
    CHECK(sscanf(text, "%c %31s %u %llu", &state, owner, &attempt, &fence) == 4);
    struct claim *last = &fact->claims[stage];
    if (last->state != state || last->fence != fence) {
        sim_trace("claim of %s, %s: %s", fact->id, sim_stages[stage].name, text);
    }
    if (last->state != '\0' && last->losses == sim_redis_losses && fact->query) {
        if (last->state == 'd' && state != 'd') {
            SIM_FAIL("%s of %s was done and is now %s", sim_stages[stage].name, fact->id, text);
        }
        if (is_shown(last->state) && !is_shown(state) && state != 'd') {
            SIM_FAIL("%s of %s was streaming and is now %s", sim_stages[stage].name, fact->id,
                     text);
        }
        if (fence < last->fence) {
            SIM_FAIL("%s of %s had fence %llu and is now %s", sim_stages[stage].name, fact->id,
                     (unsigned long long)last->fence, text);
        }
    }
    check_fence(fact, fence);
    *last = (struct claim){state, fence, sim_redis_losses};
}

/* While Redis keeps its state the bytes of an ending stay what they are until it is out. */
static void check_ending(struct fact *fact)
{
    char key[128];
    snprintf(key, sizeof(key), "sluice:query:%.64s", fact->id);
    struct sl_span ending = emulator_hash_field(sim_redis, key, ".end");
    if (ending.data == NULL) {
        return;
    }
    if (fact->ending.len > 0 && fact->ending_losses == sim_redis_losses &&
        !sl_span_equal(sl_buf_span(&fact->ending), ending)) {
        SIM_FAIL("the ending of %s is another one now", fact->id);
    }
    fact->ending_losses = sim_redis_losses;
    sl_buf_clear(&fact->ending);
    sl_buf_append_span(&fact->ending, ending);
}

/* A cancellation counts from when Redis has it. */
static void check_cancelled(struct fact *fact)
{
    char key[128];
    snprintf(key, sizeof(key), "sluice:query:%.64s", fact->id);
    bool cancelled = emulator_hash_field(sim_redis, key, ".cancelled").data != NULL;
    if (fact->cancelled_us != 0 && fact->cancelled_losses == sim_redis_losses && !cancelled) {
        SIM_FAIL("%s is not cancelled any more", fact->id);
    }
    if (cancelled && (fact->cancelled_us == 0 || fact->cancelled_losses != sim_redis_losses)) {
        sim_trace("%s is cancelled", fact->id);
        sim_counts.cancelled += fact->cancelled_us == 0 ? 1 : 0;
        fact->cancelled_us = sim_now_us();
        fact->cancelled_losses = sim_redis_losses;
    }
}

static size_t leases(enum sim_limit limit)
{
    char key[80];
    snprintf(key, sizeof(key), "sluice:permits:%s:query", sim_limits[limit].name);
    size_t count = emulator_zset_len(sim_redis, key);
    snprintf(key, sizeof(key), "sluice:permits:%s:bulk", sim_limits[limit].name);
    return count + emulator_zset_len(sim_redis, key);
}

void sim_check_redis(void)
{
    fence_before = highest_fence;
    for (size_t i = 0; i < fact_count; i++) {
        check_claim(&facts[i], SIM_FIRST);
        if (facts[i].query) {
            check_claim(&facts[i], SIM_SECOND);
            check_ending(&facts[i]);
            check_cancelled(&facts[i]);
        }
    }
    for (enum sim_limit limit = 0; sim_redis_losses == 0 && limit < SIM_LIMITS; limit++) {
        if (leases(limit) > sim_limits[limit].limit) {
            SIM_FAIL("%zu leases of %s", leases(limit), sim_limits[limit].name);
        }
    }
}

/* --- each step --- */

/* Whoever is in touch with Redis hears of a cancellation by a hint or by its next renewal. */
static void check_stops(const struct fact *fact, const struct sim_process *process,
                        const struct run *run)
{
    uint64_t since = run->since_us > fact->cancelled_us ? run->since_us : fact->cancelled_us;
    bool in_touch = process->last_troubled_us < since && process->last_silent_us < since &&
                    sim_now_us() - process->last_beat_us < SILENT_US;
    if (fact->cancelled_us != 0 && fact->cancelled_losses == sim_redis_losses && in_touch &&
        !process->paused && sim_now_us() - since > CANCEL_US) {
        SIM_FAIL("process %zu still runs %s, which is cancelled", process->index, fact->id);
    }
}

void sim_check_step(void)
{
    unsigned open[SIM_LIMITS] = {0};
    for (size_t i = 0; i < fact_count; i++) {
        for (size_t p = 0; p < sim_process_count; p++) {
            const struct sim_process *process = &sim_processes[p];
            if (process->stage == SIM_GATEWAY) {
                continue;
            }
            const struct run *run = &facts[i].runs[process->stage][p];
            if (run->active) {
                check_stops(&facts[i], process, run);
            }
            if (run->open && process->alive && !process->paused) {
                open[run->limit]++;
            }
        }
    }
    for (enum sim_limit limit = 0; limit < SIM_LIMITS; limit++) {
        if (open[limit] > sim_limits[limit].limit) {
            SIM_FAIL("%u calls of %s at a limit of %u", open[limit], sim_limits[limit].name,
                     sim_limits[limit].limit);
        }
    }
}

/* --- the end --- */

static bool is_idle(const struct sim_process *process)
{
    const struct sl_worker *worker = &process->worker;
    size_t jobs = 0;
    if (!process->alive) {
        return true;
    }
    if (process->stage == SIM_GATEWAY) {
        return sim_gateway_idle(process);
    }
    for (int i = 0; i < JOB_STATES; i++) {
        jobs += worker->counts[i];
    }
    uint32_t held = 0;
    for (size_t i = 0; i < worker->limit_count; i++) {
        held += sl_permit_held(worker->coord, i);
    }
    return jobs == 0 && held == 0 && sl_coord_idle(worker->coord) &&
           worker->slots_used[CLASS_QUERY] + worker->slots_used[CLASS_BULK] == 0;
}

static bool is_committed(enum sim_stage_of stage, bool trace)
{
    bool all = true;
    for (const struct sl_stage_input *in = sim_stages[stage].inputs; in->topic != NULL; in++) {
        char topic[64];
        snprintf(topic, sizeof(topic), "sluice.%s", in->topic);
        for (int32_t i = 0; i < sim_kafka_partitions(topic); i++) {
            int64_t end = sim_kafka_end_offset(topic, i);
            if (sim_group_committed(stage, topic, i) != end) {
                all = false;
                if (trace) {
                    sim_trace("%s/%d is committed up to %lld of %lld", topic, i,
                              (long long)sim_group_committed(stage, topic, i), (long long)end);
                }
            }
        }
    }
    return all;
}

static void trace_parked(const struct sl_worker *worker)
{
    SL_LIST_EACH(node, &worker->states[JOB_PARKED])
    {
        const struct sl_job *job = SL_ITEM(node, struct sl_job, in_state);
        sim_trace("parked: %s, which has attempt %u of %s", job->id.data, job->admission.attempt,
                  job->admission.dead_owner);
    }
}

static bool look(bool trace)
{
    bool all = is_committed(SIM_FIRST, trace) && is_committed(SIM_SECOND, trace);
    for (size_t i = 0; i < fact_count && (all || trace); i++) {
        const struct fact *fact = &facts[i];
        bool read =
            fact->terminal || fact->losses != sim_redis_losses; /* Or its gateway ends it. */
        if (fact->query && (fact->results == 0 || !read)) {
            all = false;
            if (trace) {
                sim_trace("%s: %zu results, %s", fact->id, fact->results,
                          fact->terminal ? "ended for its reader" : "its reader waits");
            }
        }
    }
    for (size_t i = 0; i < sim_process_count && (all || trace); i++) {
        if (!is_idle(&sim_processes[i])) {
            all = false;
            if (trace && sim_processes[i].stage == SIM_GATEWAY) {
                sim_gateway_trace(&sim_processes[i]);
            } else if (trace) {
                const size_t *counts = sim_processes[i].worker.counts;
                sim_trace("process %zu: jobs %zu admitting, %zu parked, %zu running, %zu settling",
                          i, counts[JOB_ADMITTING], counts[JOB_PARKED] + counts[JOB_UNPARKED],
                          counts[JOB_RUNNING], counts[JOB_SETTLING]);
                trace_parked(&sim_processes[i].worker);
            }
        }
    }
    for (enum sim_limit limit = 0; limit < SIM_LIMITS && (all || trace); limit++) {
        if (leases(limit) > 0) {
            all = false;
            if (trace) {
                sim_trace("%zu leases of %s", leases(limit), sim_limits[limit].name);
            }
        }
    }
    return all;
}

bool sim_check_done(void)
{
    return look(false);
}

void sim_check_undone(void)
{
    look(true);
}

/* --- beginning and end --- */

void sim_check_begin(void)
{
    fact_count = fence_count = highest_fence = 0;
}

void sim_check_end(void)
{
    for (size_t i = 0; i < fact_count; i++) {
        sl_buf_fini(&facts[i].result);
        sl_buf_fini(&facts[i].ending);
    }
    fact_count = 0;
}
