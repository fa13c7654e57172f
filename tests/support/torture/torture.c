/*
 * The driver plays everything around the worker: round by round it answers whatever waits, lets
 * time pass when nothing does, and ends when no job is left. Each answer asks torture_strike first.
 * Nothing that it allocates itself counts.
 */
#include "tests/support/torture/torture.h"

#include "tests/support/alloc_fail.h"
#include "tests/support/test.h"

#include <signal.h>
#include <stdio.h>

enum { FED_MAX = 8, ROUNDS = 3000, STEP_MS = 100, WORK_MAX = 8, STRIKES = 3, SEEDS = 1000 };

static const struct {
    const char *name;
    int ways;
} kinds[] = {
#define X(kind, name, ways) {name, ways},
    TORTURE_KINDS(X)
#undef X
};

/* What is to go wrong in this run, and what was met so far. */
struct strike {
    enum torture_kind kind;
    int way;
    long k;
};
static struct strike plan[STRIKES];
static size_t plan_len;
static long met[TORTURE_KIND_COUNT];
static bool struck;

/* What became of each record. */
static struct fed {
    struct sl_position position;
    char id[48];
    bool bulk, ended;
    bool claimed, done, worn_out; /* As Redis remembers it. */
    bool moved;                   /* Redis said that nothing is left to do. */
    bool away; /* Its partition went; given_back: it comes again when there is room. */
    bool given_back;
    int forwarded, resulted, buried;
    int made; /* Bulk: records that it was done with. */
} fed[FED_MAX];
static size_t fed_count;

static const struct torture *tortured;
static bool stopping;
static bool too_big; /* A result was refused for good, for its size: it can never arrive. */
static struct sl_admission *shaken; /* Granted, and to be lost or cancelled next. */
static bool shaken_lost;
static struct sl_permit *doomed; /* Granted, and to be lost next. */

int torture_strike(enum torture_kind kind)
{
    met[kind]++;
    for (size_t i = 0; i < plan_len; i++) {
        if (plan[i].kind == kind && plan[i].k == met[kind]) {
            struck = true;
            return plan[i].way;
        }
    }
    return 0;
}

/* The k of the allocation that is to fail; 0: none. */
static long failing_alloc(enum torture_kind kind)
{
    for (size_t i = 0; i < plan_len; i++) {
        if (plan[i].kind == kind) {
            return plan[i].k;
        }
    }
    return 0;
}

/* --- records and what becomes of them --- */

static struct fed *find_fed(const char *id)
{
    for (size_t i = 0; i < fed_count; i++) {
        if (strcmp(fed[i].id, id) == 0) {
            return &fed[i];
        }
    }
    return NULL;
}

void torture_feed(const struct fake_record *record)
{
    CHECK(fed_count < FED_MAX);
    struct fed *f = &fed[fed_count];
    *f = (struct fed){.bulk = tortured->stage->inputs[record->topic].bulk};
    snprintf(f->id, sizeof(f->id), SL_SPAN_FMT, SL_SPAN_ARG(record->key));
    fed_count++;
    if (!fake_consume(record, &f->position)) { /* It ends already: nothing is taken. */
        CHECK(fx_worker.draining);
        fed_count--;
    }
}

void torture_feed_query(uint32_t topic, const char *id, const struct sl_query *query)
{
    struct sl_buf value;
    char deadline[24];
    long paused = sl_test_pause_alloc();
    sl_buf_init(&value, 1 << 20);
    sl_query_encode(query, &value);
    CHECK(sl_buf_error(&value) == 0);
    sl_test_resume_alloc(paused);
    snprintf(deadline, sizeof(deadline), "%lld", (long long)fx_now() + FX_TIMEOUT_MS);
    torture_feed(&(struct fake_record){.topic = topic,
                                       .id = id,
                                       .reply_to = "sluice.replies:3",
                                       .deadline = deadline,
                                       .bundles = fed_count % 2 == 0,
                                       .timestamp_ms = fx_now(),
                                       .key = sl_span_of(id),
                                       .value = sl_buf_span(&value)});
    sl_buf_fini(&value);
}

void torture_feed_batch(uint32_t topic, const char *id, const struct sl_batch *batch)
{
    struct sl_buf value;
    long paused = sl_test_pause_alloc();
    sl_buf_init(&value, 1 << 20);
    sl_batch_encode(batch, &value);
    CHECK(sl_buf_error(&value) == 0);
    sl_test_resume_alloc(paused);
    torture_feed(&(struct fake_record){.topic = topic,
                                       .timestamp_ms = fx_now(),
                                       .key = sl_span_of(id),
                                       .value = sl_buf_span(&value)});
    sl_buf_fini(&value);
}

static bool is_topic(const struct fake_sent *sent, const char *name)
{
    return strncmp(sent->topic, "sluice.", 7) == 0 && strcmp(sent->topic + 7, name) == 0;
}

static void on_ack(const struct fake_sent *sent)
{
    struct fed *by_id = find_fed(sent->id), *by_key = find_fed(sent->key);
    if (strstr(sent->topic, ".dlq") != NULL) {
        CHECK(by_key != NULL);
        by_key->buried++;
    } else if (is_topic(sent, "results")) {
        CHECK(by_id != NULL);
        by_id->resulted++;
    } else if (tortured->bulk_output != NULL && is_topic(sent, tortured->bulk_output)) {
        CHECK(by_key != NULL);
        by_key->made++;
    } else if (by_id != NULL && !by_id->bulk && !is_topic(sent, "replies")) {
        by_id->forwarded++;
    }
}

static int outputs(const struct fed *f)
{
    return f->forwarded + f->resulted + f->buried;
}

/* A query whose owners died too often has a dead letter besides its result, another one if the
 * claim is lost meanwhile. What is no message has no claim: its dead letter may be written again
 * after a rebalance. */
static bool came_once(const struct fed *f)
{
    int ended = f->forwarded + f->resulted;
    return ended <= 1 && (f->buried == 0 || f->forwarded == 0) &&
           (f->buried == 0 || ended == 0 || f->worn_out) &&
           (f->buried <= 1 || f->bulk || f->worn_out || !f->claimed);
}

static void on_end(const struct sl_position *position)
{
    for (size_t i = 0; i < fed_count; i++) {
        struct fed *f = &fed[i];
        if (memcmp(&f->position, position, sizeof(*position)) == 0) {
            CHECK(!f->ended && came_once(f));
            CHECK(!f->bulk || f->moved || tortured->bulk_output == NULL || f->made + f->buried > 0);
            CHECK(f->bulk || f->moved || outputs(f) > 0 || too_big || !f->claimed);
            f->ended = true;
            return;
        }
    }
    CHECK(false && "a record that nobody fed");
}

/* --- partitions --- */

/* They are taken away; in way 1 they come back, in way 2 another worker has them. */
static void move_partitions(int way)
{
    if (way == 0 || stopping) {
        return;
    }
    fake_rebalance();
    for (size_t i = 0; i < fed_count; i++) {
        fed[i].away = true;
        fed[i].given_back = way == 1 && !fed[i].ended;
    }
}

static bool give_again(void)
{
    bool given = false;
    for (size_t i = 0; i < fed_count; i++) {
        struct fed *f = &fed[i];
        if (f->given_back && fake_consume_again(&f->position, &f->position)) {
            f->given_back = f->away = f->ended = false;
            given = true;
        }
    }
    return given;
}

/* --- the thread pool --- */

static struct work {
    void (*work)(void *ctx);
    void (*done)(void *ctx);
    void *ctx;
} works[WORK_MAX];
static size_t work_count;

/* Linked in place of sl_work_submit. */
int __wrap_sl_work_submit(struct sl_loop *loop, void (*work)(void *ctx), void (*done)(void *ctx),
                          void *ctx);
int __wrap_sl_work_submit(struct sl_loop *loop, void (*work)(void *ctx), void (*done)(void *ctx),
                          void *ctx)
{
    (void)loop;
    if (torture_strike(TORTURE_OTHER) != 0) {
        return -SL_ENOMEM;
    }
    CHECK(work_count < WORK_MAX);
    works[work_count++] = (struct work){work, done, ctx};
    return 0;
}

static bool do_work(void)
{
    if (work_count == 0) {
        return false;
    }
    struct work work = works[0];
    memmove(works, works + 1, --work_count * sizeof(works[0]));
    work.work(work.ctx);
    work.done(work.ctx);
    return true;
}

/* --- Redis --- */

static void admit(struct sl_admission *admission, int way)
{
    bool query = !admission->bulk;
    struct fed *f = query ? find_fed(admission->id.data) : NULL;
    enum sl_verdict verdict = SL_VERDICT_GRANTED;
    unsigned permits = way != 2 && met[TORTURE_VERDICT] % 2 == 1 ? 3 : 0; /* Every other. */
    switch (way) {
    case 1:
        verdict = SL_VERDICT_PARKED;
        break;
    case 3:
        verdict = SL_VERDICT_DONE;
        break;
    case 4:
        verdict = query ? SL_VERDICT_CANCELLED : verdict;
        break;
    case 5:
        verdict = query ? SL_VERDICT_EXPIRED : verdict;
        break;
    case 6:
        verdict = query ? SL_VERDICT_STREAMED : verdict;
        break;
    case 7:
        verdict = SL_VERDICT_WORN_OUT;
        break;
    case 8:
        verdict = query ? SL_VERDICT_ENDING : verdict;
        break;
    default:
        break;
    }
    for (size_t i = 0; i < fed_count; i++) {
        fed[i].moved = fed[i].moved || (fed[i].bulk && !query && verdict == SL_VERDICT_DONE);
    }
    if (f != NULL) {
        verdict = f->done ? SL_VERDICT_DONE : f->worn_out ? SL_VERDICT_WORN_OUT : verdict;
        f->claimed = true;
        f->worn_out = f->worn_out || verdict == SL_VERDICT_WORN_OUT;
        f->moved = f->moved || verdict == SL_VERDICT_DONE;
    }
    if (way == 11) {
        fx_sleep(FX_TIMEOUT_MS + STEP_MS);
        if (fake_waiting_count() == 0 || fake_nth_waiting(0) != admission) {
            return;
        }
    } else if (way >= 9) {
        shaken = admission;
        shaken_lost = way == 9 || !query;
    }
    fake_verdict(admission, verdict, 1, permits, SL_SPAN("\1no ending"));
}

static bool shake(void)
{
    struct sl_admission *admission = shaken;
    shaken = NULL;
    if (admission == NULL || admission->state != SL_ADMIT_GRANTED) {
        return false;
    }
    if (shaken_lost) {
        fake_lose(admission);
    } else if (!admission->cancelled) {
        fake_cancel(admission);
    }
    return true;
}

static bool answer_admission(void)
{
    for (size_t i = 0; i < fake_waiting_count(); i++) {
        struct sl_admission *admission = fake_nth_waiting(i);
        if (!fake_may_run(admission)) {
            continue;
        }
        int way = torture_strike(TORTURE_VERDICT);
        if (way == 12 && !admission->suspect) {
            fake_suspect(admission); /* It runs alone, later. */
        } else {
            admit(admission, way);
        }
        return true;
    }
    if (fake_parked_count() > 0) {
        fx_sleep(STEP_MS);
        if (fake_parked_count() > 0) {
            fake_retry(fake_parked(0));
        }
        return true;
    }
    return shake();
}

static bool answer_permit(void)
{
    if (doomed != NULL) {
        struct sl_permit *permit = doomed;
        doomed = NULL;
        for (size_t i = 0; i < fake_permits_held(); i++) {
            if (fake_permit_held(i) == permit) {
                fake_permit_lose(permit);
                return true;
            }
        }
    }
    if (fake_permits_waiting() == 0) {
        return false;
    }
    struct sl_permit *permit = fake_permit_waiting(0);
    int way = torture_strike(TORTURE_PERMIT);
    if (way == 1) {
        fake_permit_expire(permit);
    } else {
        doomed = way == 2 ? permit : NULL;
        fake_permit_grant(permit);
    }
    return true;
}

static bool answer_write(void)
{
    for (int type = 0; type < FAKE_OPS; type++) {
        if (fake_op_count((enum fake_op_type)type) > 0) {
            bool awaited = type == FAKE_DONE || type == FAKE_STREAM || type == FAKE_END;
            int way = awaited ? torture_strike(TORTURE_WRITE) : 0;
            int err = way == 0 ? 0 : way == 1 || type == FAKE_DONE ? -SL_ELOST : -SL_ECONN;
            struct fake_op *op = fake_op((enum fake_op_type)type, 0);
            struct fed *f = type == FAKE_DONE && err == 0 ? find_fed(op->id) : NULL;
            if (f != NULL) {
                f->done = true;
            }
            fake_answer(op, err);
            return true;
        }
    }
    return false;
}

static int on_write(enum fake_op_type type)
{
    static const int errs[] = {0, -SL_EAGAIN, -SL_ENOMEM};
    (void)type;
    return errs[torture_strike(TORTURE_REFUSED_WRITE)];
}

/* --- Kafka --- */

static int on_send(const char *topic)
{
    static const int errs[] = {0, -SL_EAGAIN, -SL_ENOMEM, -SL_ETOOBIG};
    int err = errs[torture_strike(TORTURE_SEND)];
    too_big = too_big || (err == -SL_ETOOBIG && strcmp(topic, "results") == 0);
    return err;
}

static bool report(void)
{
    static const int errs[] = {0, -SL_ETIMEDOUT, -SL_ETOOBIG, -SL_ENOENT, -SL_EIO};
    for (size_t i = 0; i < fake_sent_count(); i++) {
        if (fake_sent(i)->open) {
            int err = errs[torture_strike(TORTURE_REPORT)];
            too_big = too_big || (err == -SL_ETOOBIG && is_topic(fake_sent(i), "results"));
            fake_report(fake_sent(i), err);
            return true;
        }
    }
    return false;
}

/* --- HTTP --- */

static int on_http_start(void)
{
    return torture_strike(TORTURE_HTTP_START) != 0 ? -SL_ENOMEM : 0;
}

static void end_http(int err, int status, const char *body)
{
    fake_http_end(&(struct fake_http_end){.err = err,
                                          .status = status,
                                          .retry_after_ms = status == 429 ? 300 : 0,
                                          .connected = true,
                                          .body = body});
}

/* A response of so many bytes of body, then its end. */
static void respond(const char *body, size_t len, int err)
{
    char piece[4096];
    bool streamed = fake_http_request()->callbacks->on_data != NULL;
    CHECK(len < sizeof(piece));
    memcpy(piece, body, len);
    piece[len] = '\0';
    fake_http_head(200);
    int rv = streamed ? fake_http_data(piece) : 0;
    end_http(rv != 0 ? rv : err, 200, streamed || err != 0 ? NULL : piece);
}

static bool answer_http(void)
{
    if (fake_http_open() == 0) {
        return false;
    }
    const struct sl_http_request *request = fake_http_request();
    const char *body = tortured->answer(request->url, request->body.data);
    switch (torture_strike(TORTURE_HTTP)) {
    case 0:
        respond(body, strlen(body), 0);
        break;
    case 1:
        fake_http_end(&(struct fake_http_end){.err = -SL_ECONN});
        break;
    case 2:
        fake_http_end(&(struct fake_http_end){.err = -SL_ETIMEDOUT});
        break;
    case 3:
        end_http(-SL_ETIMEDOUT, 0, NULL);
        break;
    case 4:
        end_http(-SL_ECONN, 0, NULL);
        break;
    case 5:
        end_http(0, 500, "{\"error\":{\"message\":\"no\"}}");
        break;
    case 6:
        end_http(0, 429, "");
        break;
    case 7:
        end_http(0, 400, "no");
        break;
    case 8:
        respond(body, strlen(body) / 2, -SL_ECUT);
        break;
    case 9: /* Half of it, as if that were all. */
        respond(body, strlen(body) / 2, 0);
        break;
    default:
        respond("data: {\"x\n\n", 11, 0);
    }
    return true;
}

/* --- one run --- */

static bool end_process(void)
{
    int way = torture_strike(TORTURE_END);
    if (way == 0) {
        return false;
    }
    stopping = true;
    fx_signal();
    if (way == 2) {
        fx_signal(); /* Now. */
    }
    return way == 2;
}

static bool answer_something(void)
{
    if (fake_leaving() && !fx_worker.left) {
        fake_left();
        return true;
    }
    return give_again() || do_work() || answer_admission() || answer_permit() || answer_http() ||
           answer_write() || report() || (tortured->drive != NULL && tortured->drive());
}

/* Until nothing is left to do, or the process ends. */
static void play(void)
{
    for (int round = 0; round < ROUNDS; round++) {
        fx_turn();
        if (fx_worker.exit_code != 0 && !stopping) {
            stopping = true; /* It found out itself that it cannot go on. */
        }
        if (end_process() || fx_stopped()) {
            return;
        }
        move_partitions(torture_strike(TORTURE_MOVE));
        fake_make_room();
        if (!answer_something()) {
            if (fx_worker.jobs.len == 0 && !fx_worker.draining) {
                return;
            }
            fx_sleep(STEP_MS);
        }
    }
    CHECK(false && "it goes on for ever");
}

static void check_end(void)
{
    for (size_t i = 0; i < fed_count; i++) {
        const struct fed *f = &fed[i];
        CHECK(came_once(f));
        CHECK(f->ended || f->away || stopping);
    }
    if (!stopping) {
        fx_check_idle();
    }
}

static void begin(void)
{
    struck = false;
    memset(met, 0, sizeof(met));
    fed_count = work_count = 0;
    stopping = too_big = false;
    shaken = NULL;
    doomed = NULL;
    fake_on_send = on_send;
    fake_on_write = on_write;
    fake_http_on_start = on_http_start;
    sl_test_fail_alloc(failing_alloc(TORTURE_ALLOCATION));
}

static void run_once(void)
{
    long any = failing_alloc(TORTURE_ANY_ALLOCATION);
    begin();
    if (fx_start_stage(tortured->stage) == 0) {
        fake_on_ack = on_ack;
        fake_on_end = on_end;
        if (any > 0) { /* libuv's loop is there by now. */
            sl_test_fail_any_alloc(any);
        }
        fx_turn();
        tortured->feed();
        play();
        check_end();
        fx_destroy();
        while (do_work()) {
        }
        if (tortured->end != NULL) {
            tortured->end();
        }
    }
    struck = sl_test_alloc_failed() || struck;
}

static void on_failure(int signum)
{
    for (size_t i = 0; i < plan_len; i++) {
        fprintf(stderr, "when the %ld. of the %s went wrong in way %d\n", plan[i].k,
                kinds[plan[i].kind].name, plan[i].way);
    }
    signal(signum, SIG_DFL);
    raise(signum);
}

/* Until the k-th is no longer met; how many runs went wrong. */
static long run_each(enum torture_kind kind, int way)
{
    plan_len = 1;
    for (long k = 1;; k++) {
        plan[0] = (struct strike){kind, way, k};
        run_once();
        if (!struck) {
            return k - 1;
        }
    }
}

static uint32_t next_random(uint64_t *state)
{
    *state = *state * 6364136223846793005U + 1442695040888963407U;
    return (uint32_t)(*state >> 33);
}

/* Three at once, each somewhere in what a run without failures meets. */
static void run_seeds(const long *counts)
{
    plan_len = STRIKES;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        uint64_t state = seed * 0x9e3779b97f4a7c15U;
        for (size_t i = 0; i < STRIKES; i++) {
            enum torture_kind kind = next_random(&state) % TORTURE_KIND_COUNT;
            plan[i].kind = kind;
            plan[i].way = 1 + (int)(next_random(&state) % (uint32_t)kinds[kind].ways);
            plan[i].k = 1 + (long)(next_random(&state) % (uint32_t)(counts[kind] + 2));
        }
        run_once();
    }
}

int torture_run(const struct torture *torture)
{
    struct sl_options *options = NULL;
    char name[] = "torture", *argv[] = {name, NULL};
    long counts[TORTURE_KIND_COUNT] = {0}, total = 0;
    tortured = torture;
    signal(SIGABRT, on_failure);
    CHECK(sl_options_load(name, "", torture->stage->option_sets, torture->stage->option_set_count,
                          1, argv, stdout, stderr, &options) == SL_OPTIONS_RUN);
    plan_len = 0;
    run_once();
    CHECK(met[TORTURE_VERDICT] > 0 && met[TORTURE_HTTP] + met[TORTURE_OTHER] > 0);
    for (int kind = 0; kind < TORTURE_KIND_COUNT; kind++) {
        long runs = 0;
        for (int way = 1; way <= kinds[kind].ways; way++) {
            long count = run_each((enum torture_kind)kind, way);
            counts[kind] = count > counts[kind] ? count : counts[kind];
            runs += count;
        }
        printf("%-34s %5ld, %2d ways: %5ld runs\n", kinds[kind].name, counts[kind],
               kinds[kind].ways, runs);
        total += runs;
    }
    run_seeds(counts);
    printf("%s: %ld failed one by one, %d times three at once\n", torture->stage->name, total,
           SEEDS);
    sl_options_fini(options);
    return total > 0 ? 0 : 1;
}
