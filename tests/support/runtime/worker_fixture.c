/*
 * The fixture's stage keeps its running jobs in a list by itself, so that a test finds them, and a
 * job that is started twice or stopped without having been started ends the test.
 */
#include "tests/support/runtime/worker_fixture.h"

#include "common/clock.h"
#include "tests/support/test.h"

#include <stdio.h>

enum { START_US = 5000000, TURNS = 6, RUNNING_MAX = 64 };

struct state {
    bool running;
    bool prepared;
};

struct sl_worker fx_worker;
size_t fx_starts, fx_cancels, fx_prepared;
const char *fx_partial;
bool fx_hears_losses;

static uint64_t now_us;
static struct sl_job *running[RUNNING_MAX];
static size_t running_count;

/* --- the stage --- */

/* A query is prepared once before it begins, behind its place in the line; and once more after it
 * was told that it does not. */
static void prepare(struct sl_job *job)
{
    struct state *state = sl_job_state(job);
    CHECK(!state->prepared && !state->running && !sl_job_bulk(job) && sl_job_query(job) != NULL);
    CHECK(fake_waiting(job->id.data) == &job->admission);
    state->prepared = true;
    fx_prepared++;
}

static void unprepare(struct sl_job *job)
{
    struct state *state = sl_job_state(job);
    CHECK(state->prepared && fx_prepared > 0);
    state->prepared = false;
    fx_prepared--;
}

static void start(struct sl_job *job)
{
    struct state *state = sl_job_state(job);
    CHECK(!state->running && running_count < RUNNING_MAX);
    CHECK(state->prepared == !sl_job_bulk(job));
    fx_prepared -= state->prepared ? 1 : 0;
    state->prepared = false;
    state->running = true;
    running[running_count++] = job;
    fx_starts++;
}

static void worn_out(struct sl_job *job, const char *why)
{
    CHECK(sl_job_bulk(job) && why[0] != '\0');
    start(job);
}

static void take_out(struct sl_job *job)
{
    struct state *state = sl_job_state(job);
    CHECK(state->running);
    state->running = false;
    for (size_t i = 0; i < running_count; i++) {
        if (running[i] == job) {
            running[i] = running[--running_count];
            return;
        }
    }
    CHECK(false && "a job that does not run");
}

static void cancel(struct sl_job *job)
{
    if (fx_partial != NULL) {
        const struct sl_result partial = {.answer = sl_span_of(fx_partial),
                                          .usage = {.completion_tokens = 3}};
        sl_job_partial(job, &partial);
    }
    take_out(job);
    fx_cancels++;
}

static int init(struct sl_worker *worker, void **ret, char *why, size_t why_size)
{
    (void)why;
    (void)why_size;
    *ret = worker;
    return fx_part_err() == 0 ? 0 : -SL_EINVAL;
}

static void fini(void *stage_state)
{
    CHECK(stage_state == &fx_worker && running_count == 0 && fx_prepared == 0);
}

static size_t limits(struct sl_limit ret[SL_STAGE_LIMITS])
{
    ret[0] = (struct sl_limit){.name = "FIRST", .limit = 2};
    ret[1] = (struct sl_limit){.name = "SECOND", .limit = 2};
    return 2;
}

static const char *const outputs[] = {"retrieve", "vectors", "replies", "results", NULL};

static struct sl_stage stage = {
    .name = "test",
    .synopsis = "",
    .inputs = {{.topic = "queries", .kind = SL_INPUT_QUERY, .public = true},
               {.topic = "chunks", .kind = SL_INPUT_BATCH, .bulk = true}},
    .outputs = outputs,
    .limits = limits,
    .admission_permits = 2,
    .state_size = sizeof(struct state),
    .init = init,
    .fini = fini,
    .prepare = prepare,
    .unprepare = unprepare,
    .start = start,
    .cancel = cancel,
};

/* --- the worker --- */

int fx_start_stage(const struct sl_stage *tested)
{
    static struct sl_process_options process;
    process = (struct sl_process_options){.brokers = "",
                                          .topic_prefix = "sluice",
                                          .redis_url = "",
                                          .admin_listen = "",
                                          .drain_ms = FX_DRAIN_MS};
    now_us = START_US;
    sl_clock_use(&now_us);
    fx_worker = (struct sl_worker){.stage = tested, .process = &process};
    fx_worker.options = (struct worker_options){.reply_topics = "acme.answers",
                                                .max_inflight = FX_SLOTS,
                                                .max_inflight_bulk = FX_BULK_SLOTS,
                                                .parked_max = 1 << 20,
                                                .ca_file = ""};
    fx_starts = fx_cancels = fx_prepared = 0;
    fx_partial = NULL;
    fake_on_ack = NULL;
    fake_on_end = NULL;
    return worker_start(&fx_worker);
}

int fx_start(enum sl_stage_index index)
{
    stage.index = index;
    stage.worn_out = fx_hears_losses ? worn_out : NULL;
    return fx_start_stage(&stage);
}

void fx_create(enum sl_stage_index index)
{
    CHECK_INT(fx_start(index), 0);
    fx_turn();
}

int fx_destroy(void)
{
    int code = worker_finish(&fx_worker);
    CHECK_INT(fx_worker.slots_used[CLASS_QUERY] + fx_worker.slots_used[CLASS_BULK], 0);
    CHECK_INT(fx_worker.parked_bytes[CLASS_QUERY] + fx_worker.parked_bytes[CLASS_BULK], 0);
    for (int i = 0; i < JOB_STATES; i++) {
        CHECK_INT(fx_worker.counts[i], 0);
    }
    sl_clock_use(NULL);
    return code;
}

void fx_turn(void)
{
    for (int i = 0; i < TURNS; i++) {
        sl_loop_turn(fx_worker.loop, 0);
    }
}

void fx_sleep(uint64_t ms)
{
    enum { STEP_MS = 50 };
    while (ms > 0) {
        uint64_t step = ms < STEP_MS ? ms : STEP_MS;
        now_us += step * 1000;
        ms -= step;
        sl_loop_turn(fx_worker.loop, 0);
        sl_loop_turn(fx_worker.loop, 0);
    }
    fx_turn();
}

int64_t fx_now(void)
{
    return sl_coord_now_ms(fx_worker.coord);
}

/* --- records --- */

struct sl_position fx_take(const struct fake_record *record)
{
    struct sl_position position;
    CHECK(fake_consume(record, &position));
    fx_turn();
    return position;
}

struct sl_position fx_ask(const char *id)
{
    const struct fake_record record = {.topic = FX_QUERIES,
                                       .id = id,
                                       .type = "application/json",
                                       .reply_to = "sluice.replies:3",
                                       .timestamp_ms = fx_now(),
                                       .value = SL_SPAN("{\"query\": \"why?\"}")};
    return fx_take(&record);
}

struct sl_position fx_chunk(const char *id)
{
    struct sl_span text = SL_SPAN("a chunk");
    const struct sl_batch batch = {.doc_id = sl_span_of(id),
                                   .tenant = SL_SPAN("default"),
                                   .collection = SL_SPAN("default"),
                                   .version = 1,
                                   .total_chunks = 1,
                                   .texts = &text,
                                   .len = 1};
    struct sl_buf value;
    sl_buf_init(&value, 1 << 16);
    sl_batch_encode(&batch, &value);
    const struct fake_record record = {.topic = FX_CHUNKS,
                                       .timestamp_ms = fx_now(),
                                       .key = sl_span_of(id),
                                       .value = sl_buf_span(&value)};
    struct sl_position position = fx_take(&record);
    sl_buf_fini(&value);
    return position;
}

const char *fx_bulk_id(const struct sl_position *position)
{
    for (int state = 0; state < JOB_STATES; state++) {
        SL_LIST_EACH(node, &fx_worker.states[state])
        {
            const struct sl_job *job = SL_ITEM(node, struct sl_job, in_state);
            if (job->input->bulk && job->positions[0].offset == position->offset) {
                return job->id.data;
            }
        }
    }
    CHECK(false && "no such job");
    return NULL;
}

/* --- the stage's jobs --- */

size_t fx_running_count(void)
{
    return running_count;
}

struct sl_job *fx_nth_running(size_t i)
{
    CHECK(i < running_count);
    return running[i];
}

struct sl_job *fx_running(const char *id)
{
    for (size_t i = 0; i < running_count; i++) {
        if (sl_span_is(sl_job_id(running[i]), id)) {
            return running[i];
        }
    }
    return NULL;
}

struct sl_job *fx_settle(const char *id)
{
    struct sl_job *job = fx_running(id);
    CHECK(job != NULL);
    take_out(job);
    return job;
}

/* --- short ways --- */

void fx_verdict(const char *id, enum sl_verdict verdict)
{
    fake_verdict(fake_waiting(id), verdict, 1, 3, SL_SPAN(""));
    fx_turn();
}

struct sl_job *fx_grant(const char *id)
{
    fx_verdict(id, SL_VERDICT_GRANTED);
    struct sl_job *job = fx_running(id);
    CHECK(job != NULL);
    return job;
}

void fx_forward(const char *id)
{
    sl_job_forward(fx_settle(id), "retrieve");
    fx_turn();
}

void fx_finish(const char *id, const char *answer)
{
    const struct sl_result result = {.outcome = SL_DONE, .answer = sl_span_of(answer)};
    sl_job_finish(fx_settle(id), &result);
    fx_turn();
}

int fx_emit(const char *id, const char *delta)
{
    struct sl_job *job = fx_running(id);
    struct sl_event event = {.type = SL_EVENT_DELTA, .text = sl_span_of(delta)};
    if (job->worker->stage->index != SL_STAGE_generate) {
        event = (struct sl_event){.type = SL_EVENT_SOURCES, .query = sl_job_query(job)};
    }
    int rv = sl_job_emit(job, &event);
    fx_turn();
    return rv;
}

int fx_send(const char *id)
{
    int rv = sl_job_send(fx_running(id), "vectors", SL_SPAN("key"), SL_SPAN("value"));
    fx_turn();
    return rv;
}

void fx_ack(const char *topic)
{
    fake_report(fake_open(topic), 0);
    fx_turn();
}

void fx_fail(const char *topic, int err)
{
    fake_report(fake_open(topic), err);
    fx_turn();
}

void fx_answer(enum fake_op_type type, int err)
{
    fake_answer(fake_op(type, 0), err);
    fx_turn();
}

const char *fx_last(const char *topic)
{
    char name[80];
    snprintf(name, sizeof(name), "sluice.%s", topic);
    for (size_t i = fake_sent_count(); i-- > 0;) {
        if (strcmp(fake_sent(i)->topic, name) == 0) {
            return fake_sent(i)->value.data;
        }
    }
    CHECK(false && "nothing was sent there");
    return NULL;
}

bool fx_last_has(const char *topic, const char *text)
{
    return strstr(fx_last(topic), text) != NULL;
}

static bool answer_one_op(void)
{
    for (int type = 0; type < FAKE_OPS; type++) {
        if (fake_op_count((enum fake_op_type)type) > 0) {
            fx_answer((enum fake_op_type)type, 0);
            return true;
        }
    }
    return false;
}

static bool report_one(void)
{
    for (size_t i = 0; i < fake_sent_count(); i++) {
        if (fake_sent(i)->open) {
            fake_report(fake_sent(i), 0);
            fx_turn();
            return true;
        }
    }
    return false;
}

void fx_finish_all(void)
{
    fx_turn();
    for (int i = 0; i < 1000; i++) {
        if (!report_one() && !answer_one_op()) {
            return;
        }
    }
    CHECK(false && "it goes on for ever");
}

void fx_check_idle(void)
{
    for (int i = 0; i < JOB_STATES; i++) {
        CHECK_INT(fx_worker.counts[i], 0);
    }
    CHECK_INT(fx_worker.slots_used[CLASS_QUERY] + fx_worker.slots_used[CLASS_BULK], 0);
    CHECK_INT(fx_worker.parked_bytes[CLASS_QUERY] + fx_worker.parked_bytes[CLASS_BULK], 0);
    CHECK_INT(fx_worker.jobs.len, 0);
    CHECK_INT(fake_granted_count() + fake_waiting_count() + fake_parked_count(), 0);
    CHECK_INT(fake_permits_held() + fake_permits_waiting(), 0);
    CHECK_INT(fake_unended(), 0);
}

uint64_t fx_counted(enum job_outcome outcome)
{
    return sl_counter_value(fx_worker.outcomes[outcome]);
}
