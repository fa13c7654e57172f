/*
 * The coordination, with the real client and the real scripts on a Redis in memory: one run of
 * everything that workers and gateways ask of it, repeated with each of its allocations failing and
 * each of Redis's replies going wrong in each way. All that was asked is answered once all the
 * same, and nothing is held in the end, here or in Redis.
 */
#include "common/attach.h"
#include "common/claim.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/redis_reply.h"
#include "tests/support/alloc_fail.h"
#include "tests/support/fake_link.h"
#include "tests/support/redis_emulator/emulator.h"
#include "tests/support/test.h"

enum { ROUNDS = 4000, STEP_MS = 50, SCRIPTS_MAX = 16, ARGS_MAX = 512, DEADLINE_MS = 600000 };
enum { WAYS = 8, LEASE_S = 15 };

static const uint64_t START_US = 1700000000000000;

/* In the place of common/log.c. */
void sl_log_write(enum sl_log_level level, const char *message, ...)
{
    (void)level;
    (void)message;
}

static uint64_t now_us;
static struct sl_loop *loop;
static struct sl_metrics *metrics;
static struct sl_coord *coord;
static struct emulator *redis;

/* Which reply goes wrong, and how. */
static long replies, failing;
static int way;
static bool silent[2]; /* The server answers no more on this connection. */

/* --- the server --- */

static char *scripts[SCRIPTS_MAX];
static size_t script_count;
static struct sl_buf published;

static void on_publish(void *ctx, struct sl_span channel, struct sl_span message)
{
    (void)ctx;
    sl_buf_printf(&published, "*3\r\n$7\r\nmessage\r\n$%zu\r\n" SL_SPAN_FMT "\r\n$%zu\r\n",
                  channel.len, SL_SPAN_ARG(channel), message.len);
    sl_buf_append_span(&published, message);
    sl_buf_append_text(&published, "\r\n");
}

/* The SHA1 is the script's place here. */
static void load(struct sl_span text, struct sl_buf *out)
{
    size_t at = 0;
    while (at < script_count && !sl_span_is(text, scripts[at])) {
        at++;
    }
    if (at == script_count) {
        CHECK(script_count < SCRIPTS_MAX);
        scripts[script_count++] = strndup(text.data, text.len);
    }
    sl_buf_printf(out, "$40\r\n%040zu\r\n", at);
}

static void run_script(struct sl_span text, size_t argc, const struct sl_span *argv,
                       struct sl_buf *out)
{
    long long keys = 0;
    CHECK(sl_span_to_int(argv[2], 0, 1, &keys) == 0);
    emulator_eval(redis, text, (size_t)keys, argc - 3, argv + 3, out);
}

static void run(size_t argc, const struct sl_span *argv, struct sl_buf *out)
{
    struct sl_span name = argv[0];
    if (sl_span_is(name, "EVAL")) {
        run_script(argv[1], argc, argv, out);
    } else if (sl_span_is(name, "EVALSHA")) {
        size_t at = strtoul(argv[1].data, NULL, 10);
        CHECK(at < script_count);
        run_script(sl_span_of(scripts[at]), argc, argv, out);
    } else if (sl_span_is(name, "SCRIPT")) {
        load(argv[2], out);
    } else if (sl_span_is(name, "INFO")) {
        sl_buf_append_text(out, "$24\r\n# Server\r\nrun_id:abc12\r\n\r\n");
    } else if (sl_span_is(name, "CONFIG")) {
        sl_buf_append_text(out, "*2\r\n$16\r\nmaxmemory-policy\r\n$10\r\nnoeviction\r\n");
    } else if (sl_span_is(name, "SUBSCRIBE")) {
        sl_buf_append_text(out, "*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n");
    } else {
        sl_buf_append_text(out, sl_span_is(name, "PING") ? "+PONG\r\n" : "+OK\r\n");
    }
}

/* Nothing of the server's own counts as an allocation; the client's callbacks run in between. */
static long paused;

static void feed(size_t i, struct sl_span bytes)
{
    sl_test_resume_alloc(paused);
    fake_link_feed(i, bytes);
    paused = sl_test_pause_alloc();
}

static void hang_up(size_t i)
{
    sl_test_resume_alloc(paused);
    sl_redis_link_close(fake_links[i], "the peer has gone");
    paused = sl_test_pause_alloc();
}

/* What the client gets for this command. */
static void serve(size_t i, size_t argc, const struct sl_span *argv, struct sl_buf *out)
{
    int how = ++replies == failing ? way : 0;
    if (how == 0 || how == 2 || how == 6) {
        run(argc, argv, out);
    }
    switch (how) {
    case 1: /* Before it runs, */
    case 2: /* or after. */
        hang_up(i);
        break;
    case 3:
        sl_buf_append_text(out, "-ERR no\r\n");
        break;
    case 4:
        sl_buf_append_text(out, "?\r\n");
        break;
    case 5:
        silent[i] = true;
        break;
    case 6: /* It ran, and the reply has another form. */
        sl_buf_clear(out);
        sl_buf_append_text(out, "*1\r\n:1\r\n");
        break;
    case 7:
        sl_buf_append_text(out, "-NOSCRIPT no\r\n");
        break;
    case 8:
        sl_buf_append_text(out, "-OOM command not allowed when used memory > 'maxmemory'.\r\n");
        break;
    default:
        break;
    }
}

static void serve_command(size_t i, const struct redisReply *command)
{
    struct sl_span argv[ARGS_MAX];
    struct sl_buf out;
    size_t argc = sl_reply_len(command);
    CHECK(argc > 0 && argc <= ARGS_MAX);
    for (size_t a = 0; a < argc; a++) {
        argv[a] = sl_reply_span(sl_reply_at(command, a));
    }
    sl_buf_init(&out, 1 << 20);
    serve(i, argc, argv, &out);
    CHECK(sl_buf_error(&out) == 0);
    feed(i, sl_buf_span(&out));
    sl_buf_fini(&out);
}

/* Runs what the link has sent; whether there was something. */
static bool serve_link(size_t i)
{
    const char *why;
    struct redisReply *command = NULL;
    if (!fake_link_is(i, SL_LINK_OPEN) || fake_links[i]->out.len == 0) {
        return false;
    }
    struct redisReader *reader = sl_redis_reader_create();
    CHECK(reader != NULL && sl_redis_reader_feed(reader, sl_buf_span(&fake_links[i]->out)));
    sl_buf_clear(&fake_links[i]->out);
    while (fake_link_is(i, SL_LINK_OPEN) && !silent[i] &&
           sl_redis_reader_next(reader, &command, &why) == 1) {
        serve_command(i, command);
        sl_redis_reply_destroy(command);
    }
    sl_redis_reader_destroy(reader);
    return true;
}

static bool serve_all(void)
{
    bool served = false;
    emulator_set_time(redis, (int64_t)now_us);
    paused = sl_test_pause_alloc();
    for (size_t i = 0; i < 2; i++) {
        served = serve_link(i) || served;
    }
    if (published.len > 0) {
        struct sl_buf hints = published;
        sl_buf_init(&published, 1 << 20);
        feed(1, sl_buf_span(&hints));
        sl_buf_fini(&hints);
    }
    sl_test_resume_alloc(paused);
    return served;
}

/* --- who asks --- */

static struct job {
    struct sl_admission admission;
    struct sl_permit permits[SL_ADMIT_PERMITS];
    enum { ADMITTED, GIVEN_BACK, ENDS, MARKED } step;
    bool over;
} answered, forwarded, bulk, cancelled;
static struct sl_permit permit;
static struct sl_attachment attachment;
static struct sl_idempotency idempotency;
static bool permit_over, look_over, key_over;

static void on_permit_lost(struct sl_permit *lost)
{
    (void)lost;
    CHECK(false && "a lease that was lost within a few seconds");
}

static void on_claim_lost(struct sl_admission *admission)
{
    (void)admission;
    CHECK(false && "a claim that nobody else wanted");
}

static void on_retry(struct sl_admission *admission)
{
    sl_admit(coord, admission);
}

static void on_cancelled(struct sl_admission *admission)
{
    CHECK(admission == &cancelled.admission);
}

static void release(struct job *job)
{
    for (size_t i = 0; i < SL_ADMIT_PERMITS; i++) {
        sl_permit_release(coord, &job->permits[i]);
    }
}

static void on_marked(void *ctx, int err)
{
    struct job *job = ctx;
    CHECK(!job->over && err == 0);
    job->over = true;
}

static void mark(struct job *job)
{
    release(job);
    sl_claim_done(coord, &job->admission, on_marked, job);
}

static void end_query(struct job *job);

static void on_ended(void *ctx, int err)
{
    struct job *job = ctx;
    CHECK(err == 0 && job->step == ENDS);
    job->step = MARKED;
    sl_claim_ended(coord, job->admission.id, 0, 17);
    mark(job);
}

/* Without memory for it: again at once, as settle.c does after a while. */
static void end_query(struct job *job)
{
    int rv = -SL_ENOMEM;
    job->step = ENDS;
    for (int i = 0; rv != 0 && i < 2; i++) {
        rv = sl_claim_end(coord, job->admission.id, job->admission.stage, job->admission.fence,
                          "done", SL_SPAN("the ending"), on_ended, job);
    }
    CHECK(rv == 0);
}

static void on_streaming(void *ctx, int err)
{
    CHECK(err == 0);
    end_query(ctx);
}

static void on_verdict(struct sl_admission *admission, enum sl_verdict verdict)
{
    struct job *job = SL_ITEM(admission, struct job, admission);
    CHECK(!job->over);
    if (job == &cancelled) {
        CHECK(verdict == SL_VERDICT_CANCELLED);
        end_query(job);
        return;
    }
    CHECK(verdict == SL_VERDICT_GRANTED);
    if (job == &answered) {
        if (sl_claim_stream(coord, admission, on_streaming, job) != 0) {
            end_query(job);
        }
    } else if (job == &bulk && job->step == ADMITTED) {
        job->step = GIVEN_BACK;
        sl_claim_give_back(coord, admission);
        sl_admit(coord, admission);
    } else {
        mark(job);
    }
}

static void admit(struct job *job, const char *id, bool is_bulk)
{
    *job = (struct job){
        .admission = {.id = sl_span_of(id),
                      .stage = "rerank",
                      .deadline_ms = is_bulk ? 0 : sl_coord_now_ms(coord) + DEADLINE_MS,
                      .bulk = is_bulk,
                      .on_verdict = on_verdict,
                      .on_retry = on_retry,
                      .on_cancelled = on_cancelled,
                      .on_lost = on_claim_lost}};
    for (size_t i = 0; i < SL_ADMIT_PERMITS; i++) {
        sl_permit_init(&job->permits[i], i, is_bulk, NULL, on_permit_lost);
        job->admission.permits[i] = is_bulk ? NULL : &job->permits[i];
    }
    sl_admit(coord, &job->admission);
}

static void on_granted(struct sl_permit *granted, int err)
{
    CHECK(err == 0 && !permit_over && granted == &permit);
    permit_over = true;
    sl_permit_release(coord, granted);
}

static void on_cancel_noted(void *ctx, int err)
{
    (void)ctx;
    CHECK(err == 0);
    admit(&cancelled, "c", false);
}

static void on_looked(void *ctx, int err, const struct sl_query_state *state)
{
    (void)ctx;
    CHECK(!look_over && (err == 0 || err == -SL_ECONN) && (err == 0) == (state != NULL));
    look_over = true;
}

static void on_key(void *ctx, int err, enum sl_idempotent answer)
{
    (void)ctx;
    CHECK(!key_over && (err != 0 || answer == SL_IDEMPOTENT_NEW));
    key_over = true;
    if (err == 0) {
        sl_idempotent_settle(coord, &idempotency, true);
    }
}

/* What is refused for want of memory counts as over. */
static void ask_everything(void)
{
    permit_over = look_over = key_over = false;
    admit(&answered, "a", false);
    admit(&forwarded, "f", false);
    admit(&bulk, "b", true);
    sl_permit_init(&permit, 0, false, on_granted, on_permit_lost);
    sl_permit_request(coord, &permit, sl_coord_now_ms(coord) + DEADLINE_MS);
    sl_permit_cool_down(coord, 1, 20);
    cancelled = (struct job){.over = false};
    cancelled.over = sl_coord_cancel(coord, SL_SPAN("c"), on_cancel_noted, NULL) != 0;
    attachment = (struct sl_attachment){
        .id = SL_SPAN("a"),
        .place = {
            .partition = 1, .offset = 2, .deadline_ms = sl_coord_now_ms(coord) + DEADLINE_MS}};
    sl_attach(coord, &attachment);
    look_over = sl_query_look(coord, SL_SPAN("a"), on_looked, NULL) != 0;
    idempotency = (struct sl_idempotency){
        .tenant = SL_SPAN("acme"), .key = SL_SPAN("k"), .body = SL_SPAN("{}"), .id = "a"};
    key_over = sl_idempotent_open(coord, &idempotency, on_key, NULL) != 0;
}

static bool all_over(void)
{
    return answered.over && forwarded.over && bulk.over && cancelled.over && permit_over &&
           look_over && key_over && sl_coord_idle(coord);
}

/* --- the run --- */

static void turn(void)
{
    sl_loop_turn(loop, 0);
    sl_loop_turn(loop, 0);
}

/* A round of everything; time passes when nothing happens. */
static void go_on(void)
{
    turn();
    for (size_t i = 0; i < 2; i++) {
        if (fake_link_is(i, SL_LINK_WAITING)) {
            silent[i] = false;
            fake_link_open(i);
        }
    }
    if (!serve_all()) {
        now_us += STEP_MS * 1000;
    }
}

/* From here on the allocation of this number fails; 0: none. */
static int begin(long alloc)
{
    static const struct sl_limit limits[] = {{.name = "FIRST", .limit = 2},
                                             {.name = "SECOND", .limit = 1}};
    const struct sl_coord_config config = {.redis_url = "redis://127.0.0.1",
                                           .prefix = "sluice",
                                           .boot_id = "me",
                                           .limits = limits,
                                           .limit_count = 2,
                                           .result_ttl_ms = 3600000,
                                           .orphan_grace_ms = 60000};
    char why[200];
    now_us = START_US;
    sl_clock_use(&now_us);
    redis = emulator_create();
    emulator_set_time(redis, (int64_t)now_us);
    emulator_on_publish(redis, on_publish, NULL);
    sl_buf_init(&published, 1 << 20);
    fake_links[0] = fake_links[1] = NULL;
    silent[0] = silent[1] = false;
    replies = 0;
    CHECK(sl_loop_create(&loop) == 0 && sl_metrics_create(100, &metrics) == 0);
    struct sl_coord_config with_metrics = config;
    with_metrics.metrics = metrics;
    coord = NULL;
    sl_test_fail_alloc(alloc);
    return sl_coord_create(loop, &with_metrics, &coord, why, sizeof(why));
}

static void end(void)
{
    sl_coord_destroy(coord);
    sl_metrics_destroy(metrics);
    sl_loop_destroy(loop);
    emulator_destroy(redis);
    sl_buf_fini(&published);
    sl_clock_use(NULL);
}

static void on_taken(struct sl_permit *taken, int err)
{
    CHECK(err == 0 && taken->state == SL_PERMIT_HELD);
}

/* As many as there are, soon: so none is held by anybody else. */
static void take_all_permits(uint64_t within_s)
{
    uint64_t until_us = now_us + within_s * 1000000;
    struct sl_permit all[3];
    for (size_t i = 0; i < 3; i++) {
        sl_permit_init(&all[i], i / 2, false, on_taken, on_permit_lost);
        sl_permit_request(coord, &all[i], 0);
    }
    while (sl_permit_held(coord, 0) + sl_permit_held(coord, 1) < 3) {
        CHECK(now_us < until_us);
        go_on();
    }
    for (size_t i = 0; i < 3; i++) {
        sl_permit_release(coord, &all[i]);
    }
}

static void run_once(long alloc)
{
    bool asked = false;
    int rv = begin(alloc);
    for (int round = 0; rv == 0 && !(asked && all_over()); round++) {
        CHECK(round < ROUNDS);
        go_on();
        if (!asked && sl_coord_ready(coord) && sl_coord_quarantine_ms(coord) == 0) {
            asked = true;
            ask_everything();
        }
    }
    CHECK(rv == 0 || rv == -SL_ENOMEM);
    if (rv == 0) {
        CHECK(sl_permit_held(coord, 0) == 0 && sl_permit_held(coord, 1) == 0);
        sl_detach_leave(coord, &attachment);
        /* Without memory to give one back its lease ends by itself. */
        take_all_permits(alloc > 0 ? LEASE_S + 2 : 3);
    }
    end();
}

TEST(each_reply_of_redis_goes_wrong_in_turn)
{
    long runs = 0, count = 0;
    for (way = 1; way <= WAYS; way++) {
        failing = 0;
        do {
            failing++;
            run_once(0);
            runs += replies >= failing;
            count = failing > count ? failing : count;
        } while (replies >= failing);
    }
    failing = 0;
    printf("replies of Redis %ld, %d ways: %ld runs\n", count - 1, WAYS, runs);
}

TEST(each_allocation_fails_in_turn)
{
    long k = 0;
    failing = 0;
    do {
        run_once(++k);
    } while (sl_test_alloc_failed());
    printf("allocations %ld\n", k - 1);
}

int main(int argc, char **argv)
{
    static const struct test_case cases[] = {
        {"each_reply_of_redis_goes_wrong_in_turn", each_reply_of_redis_goes_wrong_in_turn},
        {"each_allocation_fails_in_turn", each_allocation_fails_in_turn},
        {NULL, NULL},
    };
    int rv = run_tests(cases, argc, argv);
    while (script_count > 0) {
        free(scripts[--script_count]);
    }
    return rv;
}
