/*
 * Thousands of short schedules of everything that can happen to a worker, in random order, with
 * what must hold after each step:
 *
 *   a position ends once, and only after what its job sent was acknowledged, or after Redis said
 *   that there is nothing left to do
 *   slots are those of the jobs that hold one; permits are those of jobs that run
 *   a suspect runs alone
 *   when everything has been answered, nothing is left
 *
 * `unit_runtime_random SEED [COUNT]` runs the schedules from SEED on; a failure prints its seed.
 */
#include "tests/support/runtime/worker_fixture.h"
#include "tests/support/test.h"

#include <signal.h>
#include <stdio.h>
#include <unistd.h>

enum { SCHEDULES = 1000, STEPS = 60, IDS = 5, RECORDS_MAX = 400 };

/* What the test knows of one job's id. */
struct known {
    char id[64];
    bool forwarded, resulted, buried, moved, flushed;
    size_t sent; /* Bulk records since the last start without a failed one. */
};

static uint64_t state, seed;
static struct known known[RECORDS_MAX];
static size_t known_count;
static struct sl_position positions[RECORDS_MAX];
static size_t position_count;
static bool drained;

/* --- chance --- */

static uint64_t next_random(void)
{
    uint64_t z = state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static size_t below(size_t n)
{
    return (size_t)(next_random() % n);
}

static int one_of(const int *values, size_t count)
{
    return values[below(count)];
}

static void on_failure(int signum)
{
    char text[80];
    int len = snprintf(text, sizeof(text), "schedule of seed %llu\n", (unsigned long long)seed);
    ssize_t written = write(STDERR_FILENO, text, (size_t)len);
    (void)written;
    signal(signum, SIG_DFL);
    raise(signum);
}

/* --- what must hold --- */

static struct known *know(const char *id)
{
    for (size_t i = 0; i < known_count; i++) {
        if (strcmp(known[i].id, id) == 0) {
            return &known[i];
        }
    }
    CHECK(known_count < RECORDS_MAX);
    struct known *k = &known[known_count++];
    *k = (struct known){0};
    snprintf(k->id, sizeof(k->id), "%s", id);
    return k;
}

static struct sl_job *job_at(const struct sl_position *position)
{
    for (int s = 0; s < JOB_STATES; s++) {
        SL_LIST_EACH(node, &fx_worker.states[s])
        {
            struct sl_job *job = SL_ITEM(node, struct sl_job, in_state);
            for (size_t i = 0; i < job->position_count; i++) {
                if (memcmp(&job->positions[i], position, sizeof(*position)) == 0) {
                    return job;
                }
            }
        }
    }
    return NULL;
}

static void on_ack(const struct fake_sent *sent)
{
    if (strcmp(sent->topic, "sluice.retrieve") == 0) {
        know(sent->key)->forwarded = true;
    } else if (strcmp(sent->topic, "sluice.results") == 0) {
        know(sent->id)->resulted = true;
    } else if (strstr(sent->topic, ".dlq") != NULL) {
        know(sent->key)->buried = true;
    }
}

/* Why may this one end? */
static void on_end(const struct sl_position *position)
{
    struct sl_job *job = job_at(position);
    CHECK(job != NULL);
    const struct known *k = know(job->id.data);
    bool buried = know("garbage")->buried || k->buried || (job->input->bulk && know("doc")->buried);
    if (job->outcome == OUTCOME_dead) {
        CHECK(buried);
    } else if (job->outcome == OUTCOME_moved) {
        CHECK(k->moved);
    } else if (job->input->bulk) {
        CHECK(job->unacked == 0 && job->delivery_err == 0);
    } else if (job->outcome == OUTCOME_done && fx_worker.stage->index != SL_STAGE_generate) {
        CHECK(k->forwarded || k->resulted);
    } else {
        CHECK(k->resulted);
    }
}

static bool is_suspect(const struct sl_job *job)
{
    return !sl_list_empty(&job->in_suspects);
}

static void check_invariants(void)
{
    size_t slots[CLASS_COUNT] = {0};
    for (int s = 0; s < JOB_STATES; s++) {
        size_t count = 0;
        SL_LIST_EACH(node, &fx_worker.states[s])
        {
            const struct sl_job *job = SL_ITEM(node, struct sl_job, in_state);
            bool may_lack = s == JOB_PARKED || s == JOB_UNPARKED ||
                            (s == JOB_SETTLING && job->step == SETTLE_MARK);
            CHECK(job->has_slot != may_lack);
            CHECK((int)job->state == s &&
                  (s != JOB_RUNNING || job->restarting || job->started || job->on_room != NULL));
            CHECK(!is_suspect(job) || s != JOB_RUNNING || fx_worker.counts[JOB_RUNNING] == 1);
            slots[job->input->bulk ? CLASS_BULK : CLASS_QUERY] += job->has_slot ? 1 : 0;
            count++;
        }
        CHECK_INT(fx_worker.counts[s], count);
    }
    CHECK_INT(fx_worker.slots_used[CLASS_QUERY], slots[CLASS_QUERY]);
    CHECK_INT(fx_worker.slots_used[CLASS_BULK], slots[CLASS_BULK]);
    CHECK(slots[CLASS_QUERY] <= FX_SLOTS && slots[CLASS_BULK] <= FX_BULK_SLOTS);
    CHECK(fake_permits_held() <= 2 * fx_worker.counts[JOB_RUNNING]);
}

/* --- what can happen --- */

static void note(struct sl_position position)
{
    CHECK(position_count < RECORDS_MAX);
    positions[position_count++] = position;
}

static void take_query(void)
{
    static const char *const values[] = {
        "{\"query\": \"why?\"}", "{\"query\": \"why?\"}",
        "{\"query\": \"why?\"}", "{\"query\": \"why?\", \"on_worker_lost\": \"restart\"}",
        "{\"query\": 1}",        "{"};
    static const char *const replies[] = {"sluice.replies:3", "sluice.replies:4", NULL, "no.topic"};
    char id[16];
    snprintf(id, sizeof(id), "q%zu", below(IDS));
    const struct fake_record record = {.topic = FX_QUERIES,
                                       .partition = (int32_t)below(2),
                                       .id = id,
                                       .key = SL_SPAN("garbage"),
                                       .type = "application/json",
                                       .reply_to = replies[below(4)],
                                       .bundles = below(2) == 0,
                                       .timestamp_ms = fx_now(),
                                       .value = sl_span_of(values[below(6)])};
    struct sl_position position;
    if (intake_room(&fx_worker, CLASS_QUERY) > 0 && fake_consume(&record, &position)) {
        note(position);
    }
}

static void take_chunk(void)
{
    if (intake_room(&fx_worker, CLASS_BULK) > 0) {
        note(fx_chunk("doc"));
    }
}

static void rebalance(void)
{
    size_t count = position_count;
    bool ended[RECORDS_MAX];
    for (size_t i = 0; i < count; i++) {
        ended[i] = fake_ended(&positions[i]);
    }
    fake_rebalance();
    position_count = 0;
    for (size_t i = 0; i < count; i++) { /* What was not committed comes again. */
        struct sl_position again = positions[i];
        if (!ended[i] && (below(4) == 0 || !fake_consume_again(&positions[i], &again))) {
            continue; /* Another worker's now. */
        }
        if (!ended[i]) {
            positions[position_count++] = again;
        }
    }
}

/* What Redis may not grant now: a suspect beside others, anything beside a suspect. An answer that
 * was on its way when the first suspect was found comes all the same. */
static bool is_held(struct sl_admission *admission, enum sl_verdict verdict, uint32_t attempt)
{
    if (verdict != SL_VERDICT_GRANTED && (verdict != SL_VERDICT_STREAMED || !admission->restarts)) {
        return false;
    }
    if (attempt == 3 && !admission->suspect) {
        fake_suspect(admission);
    }
    const struct sl_list *first = sl_list_first(&fx_worker.suspects);
    bool begun = first != NULL && SL_ITEM(first, struct sl_job, in_suspects)->state == JOB_RUNNING;
    bool on_its_way = !admission->suspect && !begun && below(4) == 0;
    return !fake_may_run(admission) && !on_its_way;
}

static void answer_admission(void)
{
    static const enum sl_verdict verdicts[] = {
        SL_VERDICT_GRANTED,   SL_VERDICT_GRANTED, SL_VERDICT_GRANTED,  SL_VERDICT_GRANTED,
        SL_VERDICT_PARKED,    SL_VERDICT_DONE,    SL_VERDICT_ENDED,    SL_VERDICT_ENDING,
        SL_VERDICT_CANCELLED, SL_VERDICT_EXPIRED, SL_VERDICT_WORN_OUT, SL_VERDICT_STREAMED};
    if (fake_waiting_count() == 0) {
        return;
    }
    struct sl_admission *admission = fake_nth_waiting(below(fake_waiting_count()));
    enum sl_verdict verdict = verdicts[below(12)];
    struct sl_buf ending;
    sl_buf_init(&ending, 1 << 16);
    if (admission->bulk && (verdict == SL_VERDICT_ENDED || verdict == SL_VERDICT_ENDING ||
                            verdict == SL_VERDICT_CANCELLED || verdict == SL_VERDICT_EXPIRED ||
                            verdict == SL_VERDICT_STREAMED)) {
        verdict = SL_VERDICT_GRANTED;
    }
    uint32_t attempt = admission->suspect ? 3 : 1 + (uint32_t)below(3);
    if (is_held(admission, verdict, attempt)) {
        return;
    }
    if (verdict == SL_VERDICT_ENDING) {
        const struct sl_query query = {.id = admission->id,
                                       .tenant = SL_SPAN("default"),
                                       .reply_topic = SL_SPAN("sluice.replies")};
        const struct sl_result result = {.outcome = SL_DONE};
        sl_ending_pack(&query, &result, 1, 0, 1, fx_now(), &ending);
    }
    if (verdict == SL_VERDICT_DONE || verdict == SL_VERDICT_ENDED || verdict == SL_VERDICT_ENDING) {
        know(admission->id.data)->moved = true;
    }
    fake_verdict(admission, verdict, attempt, (unsigned)below(4), sl_buf_span(&ending));
    sl_buf_fini(&ending);
}

static void on_streaming(struct sl_job *job)
{
    struct sl_event event = {.type = SL_EVENT_DELTA, .text = SL_SPAN("delta")};
    int rv = sl_job_emit(job, &event);
    CHECK(rv == 0 || rv == -SL_EAGAIN || rv == -SL_ENOENT);
}

/* A text of this query now, or at the next flush, or the mark that its stream begins. */
static int stream_something(struct sl_job *job)
{
    struct sl_event event = {.type = SL_EVENT_DELTA, .text = SL_SPAN("delta")};
    size_t way = below(4);
    if (way == 0 && !job->marking) {
        return sl_job_stream(job, on_streaming);
    }
    if (way == 1) {
        sl_job_on_flush(job, on_streaming);
        return 0;
    }
    return sl_job_emit(job, &event);
}

static void send_something(struct sl_job *job)
{
    int rv = 0;
    if (sl_job_bulk(job)) {
        rv = sl_job_send(job, "vectors", SL_SPAN("k"), SL_SPAN("v"));
    } else if (fx_worker.stage->index == SL_STAGE_generate) {
        rv = stream_something(job);
    } else if (fx_worker.stage->index == SL_STAGE_rerank && job->outbox_count == 0) {
        struct sl_event event = {.type = SL_EVENT_SOURCES, .query = sl_job_query(job)};
        rv = sl_job_emit(job, &event);
    }
    CHECK(rv == 0 || rv == -SL_EAGAIN || rv == -SL_ENOENT);
}

static void settle_something(const char *id)
{
    struct sl_job *job = fx_settle(id);
    const struct sl_result result = {.outcome = SL_DONE, .answer = SL_SPAN("yes")};
    if (below(4) == 0) {
        sl_job_fail(job, SL_QERR_UPSTREAM_ERROR, "no");
    } else if (sl_job_bulk(job)) {
        sl_job_done(job);
    } else if (fx_worker.stage->index == SL_STAGE_generate || below(4) == 0) {
        sl_job_finish(job, &result);
    } else {
        sl_job_forward(job, "retrieve");
    }
}

static void act_in_a_stage(void)
{
    if (fx_running_count() == 0) {
        return;
    }
    struct sl_job *job = fx_nth_running(below(fx_running_count()));
    char id[64];
    snprintf(id, sizeof(id), SL_SPAN_FMT, SL_SPAN_ARG(sl_job_id(job)));
    if (below(2) == 0) {
        send_something(job);
    } else {
        settle_something(id);
    }
}

static void report(void)
{
    static const int errs[] = {0, 0, 0, 0, -SL_ETIMEDOUT, -SL_ETOOBIG, -SL_ENOENT};
    for (size_t i = 0, skip = below(4); i < fake_sent_count(); i++) {
        if (fake_sent(i)->open && skip-- == 0) {
            int err = one_of(errs, 7);
            if (err == -SL_ETOOBIG && strstr(fake_sent(i)->topic, "retrieve") == NULL) {
                on_ack(fake_sent(i)); /* Given up, which is as good as it gets. */
            }
            fake_report(fake_sent(i), err);
            return;
        }
    }
}

static void answer_op(void)
{
    static const int end[] = {0, 0, 0, -SL_EEXIST, -SL_ELOST, -SL_ECONN};
    static const int stream[] = {0, 0, 0, -SL_ELOST, -SL_ECONN};
    static const int done[] = {0, 0, 0, -SL_ELOST};
    enum fake_op_type type = (enum fake_op_type)below(FAKE_OPS);
    if (fake_op_count(type) == 0) {
        return;
    }
    int err = type == FAKE_END      ? one_of(end, 6)
              : type == FAKE_STREAM ? one_of(stream, 5)
              : type == FAKE_DONE   ? one_of(done, 4)
                                    : 0;
    fake_answer(fake_op(type, below(fake_op_count(type))), err);
}

static void disturb_a_claim(void)
{
    if (fake_granted_count() > 0) {
        struct sl_admission *admission = fake_granted(below(fake_granted_count()));
        if (below(2) == 0) {
            fake_lose(admission);
        } else if (!admission->bulk && !admission->cancelled) {
            fake_cancel(admission);
        }
    }
    if (fake_permits_held() > 0 && below(2) == 0) {
        fake_permit_lose(fake_permit_held(below(fake_permits_held())));
    }
}

static void retry_parked(void)
{
    if (fake_parked_count() > 0) {
        fake_retry(fake_parked(below(fake_parked_count())));
    }
}

static void refuse_or_not(void)
{
    static const int errs[] = {-SL_EAGAIN, -SL_EAGAIN, -SL_ENOENT, -SL_ETOOBIG};
    static const char *const topics[] = {"retrieve", "results", "queries.dlq", "chunks.dlq"};
    fake_refuse(NULL, below(2) == 0 ? -SL_EAGAIN : 0);
    fake_refuse("replies", below(2) == 0 ? one_of(errs, 3) : 0);
    size_t i = below(4);
    fake_refuse(topics[i], below(3) == 0 ? one_of(errs, i == 0 ? 4 : 1) : 0);
    fake_refuse_ops(below(4) == 0 ? -SL_EAGAIN : 0);
    fake_make_room();
}

static void accept_all(void)
{
    static const char *const topics[] = {NULL,          "retrieve",   "results",
                                         "queries.dlq", "chunks.dlq", "replies"};
    for (size_t i = 0; i < sizeof(topics) / sizeof(topics[0]); i++) {
        fake_refuse(topics[i], 0);
    }
    fake_refuse_ops(0);
    fake_make_room();
}

static void drain(void)
{
    if (!drained && below(10) == 0) {
        drained = true;
        fx_signal();
        fx_turn();
        CHECK(fake_leaving());
        fake_left();
        position_count = 0;
    }
}

static void sleep_a_while(void)
{
    static const int ms[] = {1, 50, 300, 3000};
    fx_sleep((uint64_t)one_of(ms, 4));
}

/* --- schedules --- */

static void step(void)
{
    static void (*const steps[])(void) = {
        take_query,      take_query, take_chunk, answer_admission, answer_admission,
        act_in_a_stage,  report,     report,     act_in_a_stage,   answer_op,
        disturb_a_claim, answer_op,  rebalance,  retry_parked,     refuse_or_not,
        sleep_a_while,   drain,      report,     answer_admission, act_in_a_stage};
    steps[below(sizeof(steps) / sizeof(steps[0]))]();
    if (below(3) != 0) {
        fx_turn(); /* Else the next comes within the same turn. */
    }
    check_invariants();
}

/* Now all answer, and answer well. */
static void finish(void)
{
    accept_all();
    for (int i = 0; i < 200; i++) {
        fx_turn();
        while (fake_parked_count() > 0) {
            fake_retry(fake_parked(0));
        }
        fx_turn();
        while (fake_waiting_count() > 0) {
            know(fake_nth_waiting(0)->id.data)->moved = true;
            fake_verdict(fake_nth_waiting(0), SL_VERDICT_DONE, 1, 0, SL_SPAN(""));
        }
        while (fx_running_count() > 0) {
            char id[64];
            snprintf(id, sizeof(id), "%s", sl_job_id(fx_nth_running(0)).data);
            settle_something(id);
        }
        fx_finish_all();
        fake_forget();
        fx_sleep(500);
    }
    fx_check_idle();
}

/* As a second signal does. */
static void stop(void)
{
    fx_signal();
    if (!drained) {
        fx_signal();
    }
    fx_turn();
    CHECK_INT(fake_granted_count() + fake_waiting_count() + fake_permits_held(), 0);
    fx_finish_all();
    fx_sleep(100);
    CHECK(fx_stopped());
}

static void run_schedule(uint64_t of_seed)
{
    static const enum sl_stage_index stages[] = {SL_STAGE_embed, SL_STAGE_rerank,
                                                 SL_STAGE_generate};
    state = seed = of_seed;
    known_count = position_count = 0;
    drained = false;
    fx_create(stages[below(3)]);
    fake_on_ack = on_ack;
    fake_on_end = on_end;
    size_t steps = 1 + below(STEPS);
    for (size_t i = 0; i < steps; i++) {
        step();
    }
    if (below(4) != 0) { /* Else the process ends in the middle of it. */
        finish();
    } else if (below(2) == 0) {
        stop();
    }
    fx_destroy();
}

int main(int argc, char **argv)
{
    uint64_t first = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
    uint64_t count = argc > 2 ? strtoull(argv[2], NULL, 10) : argc > 1 ? 1 : SCHEDULES;
    signal(SIGABRT, on_failure);
    for (uint64_t i = 0; i < count; i++) {
        run_schedule(first + i);
    }
    printf("%llu passed, 0 failed\n", (unsigned long long)count);
    return 0;
}
