/*
 * A job's two round trips to Redis: the admission with two permits, from its arguments to the bytes
 * of the command and from the bytes of the reply to the verdict; and what is written when its stage
 * is done. Alone, and 20 jobs of one turn. The server is a Redis in memory that runs the real
 * scripts, uncounted.
 */
#include "common/claim.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/redis_reply.h"
#include "tests/instructions/count.h"
#include "tests/support/fake_link.h"
#include "tests/support/redis_emulator/emulator.h"

enum { JOBS = 20, SCRIPTS_MAX = 16, ARGS_MAX = 1024, LIMIT = 100000, TURNS_MAX = 1000 };
enum { REPLY_MAX = 1 << 20, STEP_US = 50000, COMPANY_US = 2000 };

static uint64_t now_us = 1700000000000000;
static struct sl_loop *loop;
static struct sl_metrics *metrics;
static struct sl_coord *coord;

static void turn(void)
{
    sl_loop_turn(loop, 0); /* Sets the wait, */
    sl_loop_turn(loop, 0); /* which is over. */
}

/* --- the server --- */

static struct emulator *redis;
static char *scripts[SCRIPTS_MAX];
static size_t script_count;

/* In the place of common/log.c. */
void sl_log_write(enum sl_log_level level, const char *message, ...)
{
    (void)level;
    (void)message;
}

/* The SHA1 is the script's place here. */
static void load(struct sl_span text, struct sl_buf *out)
{
    CHECK(script_count < SCRIPTS_MAX);
    scripts[script_count] = strndup(text.data, text.len);
    sl_buf_printf(out, "$40\r\n%040zu\r\n", script_count++);
}

static struct sl_span loaded(struct sl_span sha)
{
    size_t at = strtoul(sha.data, NULL, 10);
    CHECK(at < script_count);
    return sl_span_of(scripts[at]);
}

static void answer(size_t argc, const struct sl_span *argv, struct sl_buf *out)
{
    bool by_sha = sl_span_is(argv[0], "EVALSHA");
    if (by_sha || sl_span_is(argv[0], "EVAL")) {
        emulator_eval(redis, by_sha ? loaded(argv[1]) : argv[1], strtoul(argv[2].data, NULL, 10),
                      argc - 3, argv + 3, out);
    } else if (sl_span_is(argv[0], "SCRIPT")) {
        load(argv[2], out);
    } else if (sl_span_is(argv[0], "INFO")) {
        sl_buf_append_text(out, "$24\r\n# Server\r\nrun_id:abc12\r\n\r\n");
    } else if (sl_span_is(argv[0], "CONFIG")) {
        sl_buf_append_text(out, "*2\r\n$16\r\nmaxmemory-policy\r\n$10\r\nnoeviction\r\n");
    } else if (sl_span_is(argv[0], "SUBSCRIBE")) {
        sl_buf_append_text(out, "*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n");
    } else {
        sl_buf_append_text(out, sl_span_is(argv[0], "PING") ? "+PONG\r\n" : "+OK\r\n");
    }
}

/* The replies to all that this link has sent. */
static void serve(size_t i, struct sl_buf *out)
{
    const char *why;
    struct redisReply *command = NULL;
    struct redisReader *reader = sl_redis_reader_create();
    emulator_set_time(redis, (int64_t)now_us);
    CHECK(reader != NULL && sl_redis_reader_feed(reader, sl_buf_span(&fake_links[i]->out)));
    sl_buf_clear(&fake_links[i]->out);
    while (sl_redis_reader_next(reader, &command, &why) == 1) {
        struct sl_span argv[ARGS_MAX];
        size_t argc = sl_reply_len(command);
        CHECK(argc > 0 && argc <= ARGS_MAX);
        for (size_t a = 0; a < argc; a++) {
            argv[a] = sl_reply_span(sl_reply_at(command, a));
        }
        answer(argc, argv, out);
        sl_redis_reply_destroy(command);
    }
    sl_redis_reader_destroy(reader);
    CHECK(sl_buf_error(out) == 0);
}

/* What both links have sent is answered, again and again until they have nothing more to say. */
static void settle_down(void)
{
    for (bool said = true; said;) {
        said = false;
        for (size_t i = 0; i < 2; i++) {
            if (fake_link_is(i, SL_LINK_OPEN) && fake_links[i]->out.len > 0) {
                struct sl_buf out;
                sl_buf_init(&out, REPLY_MAX);
                serve(i, &out);
                fake_link_feed(i, sl_buf_span(&out));
                sl_buf_fini(&out);
                said = true;
            }
        }
        turn();
    }
}

/* --- jobs --- */

static struct job {
    struct sl_admission admission;
    struct sl_permit permits[SL_ADMIT_PERMITS];
    char id[40];
} jobs[JOBS];
static size_t job_count;
static size_t granted, done;

static void on_verdict(struct sl_admission *admission, enum sl_verdict verdict)
{
    CHECK(verdict == SL_VERDICT_GRANTED && admission->permits[0]->state == SL_PERMIT_HELD);
    granted++;
}

static void on_told(struct sl_admission *admission)
{
    (void)admission;
    CHECK(false && "a claim that nobody else wanted");
}

static void on_permit_lost(struct sl_permit *permit)
{
    (void)permit;
    CHECK(false && "a lease that has just begun");
}

static void make_jobs(int operation)
{
    for (size_t i = 0; i < job_count; i++) {
        struct job *job = &jobs[i];
        snprintf(job->id, sizeof(job->id), "01932c07-2b5c-7cc3-98f1-%06d%06zu", operation, i);
        job->admission = (struct sl_admission){.id = sl_span_of(job->id),
                                               .stage = "retrieve",
                                               .deadline_ms = sl_coord_now_ms(coord) + 60000,
                                               .on_verdict = on_verdict,
                                               .on_retry = on_told,
                                               .on_cancelled = on_told,
                                               .on_lost = on_told};
        for (size_t p = 0; p < SL_ADMIT_PERMITS; p++) {
            sl_permit_init(&job->permits[p], p, false, NULL, on_permit_lost);
            job->admission.permits[p] = &job->permits[p];
        }
    }
}

static void on_done(void *ctx, int err)
{
    (void)ctx;
    CHECK(err == 0);
    done++;
}

/* --- what is counted: a call, what leaves at the end of its turn, and the reply --- */

static void admit(void *ctx)
{
    (void)ctx;
    for (size_t i = 0; i < job_count; i++) {
        sl_admit(coord, &jobs[i].admission);
    }
    turn();
}

static void settle(void *ctx)
{
    (void)ctx;
    for (size_t i = 0; i < job_count; i++) {
        for (size_t p = 0; p < SL_ADMIT_PERMITS; p++) {
            sl_permit_release(coord, &jobs[i].permits[p]);
        }
        sl_claim_done(coord, &jobs[i].admission, on_done, NULL);
    }
    now_us += COMPANY_US;
    turn();
}

static void take_reply(void *ctx)
{
    fake_link_feed(0, sl_buf_span(ctx));
}

static void round_trip(int operation, void (*step)(void *ctx))
{
    struct sl_buf reply;
    sl_buf_init(&reply, REPLY_MAX);
    measure_one(operation, step, NULL);
    serve(0, &reply);
    measure_one(operation, take_reply, &reply);
    sl_buf_fini(&reply);
}

/* --- the run --- */

static void begin(void)
{
    static const struct sl_limit limits[] = {{.name = "VECTOR", .limit = LIMIT},
                                             {.name = "KEYWORD", .limit = LIMIT}};
    struct sl_coord_config config = {.redis_url = "redis://127.0.0.1",
                                     .prefix = "sluice",
                                     .boot_id = "0123456789abcdef",
                                     .limits = limits,
                                     .limit_count = 2,
                                     .result_ttl_ms = 3600000,
                                     .orphan_grace_ms = 60000};
    char why[200];
    sl_clock_use(&now_us);
    redis = emulator_create();
    CHECK(sl_loop_create(&loop) == 0 && sl_metrics_create(100, &metrics) == 0);
    config.metrics = metrics;
    CHECK(sl_coord_create(loop, &config, &coord, why, sizeof(why)) == 0);
    for (int i = 0; !sl_coord_ready(coord) || sl_coord_quarantine_ms(coord) > 0; i++) {
        CHECK(i < TURNS_MAX);
        turn();
        fake_link_open(0);
        fake_link_open(1);
        settle_down();
        now_us += STEP_US;
    }
}

static void end(void)
{
    sl_coord_destroy(coord);
    sl_metrics_destroy(metrics);
    sl_loop_destroy(loop);
    emulator_destroy(redis);
    while (script_count > 0) {
        free(scripts[--script_count]);
    }
}

static unsigned run(size_t count, bool admission)
{
    job_count = count;
    begin();
    for (int i = 0; i < COUNT_OPERATIONS; i++) {
        make_jobs(i);
        granted = done = 0;
        round_trip(admission ? i : 0, admit);
        CHECK(granted == job_count);
        settle_down();
        round_trip(admission ? 0 : i, settle);
        settle_down();
        CHECK(done == job_count && sl_coord_idle(coord));
    }
    end();
    return COUNT_ROUNDS;
}

static unsigned admit_one(void)
{
    return run(1, true);
}

static unsigned admit_20(void)
{
    return run(JOBS, true);
}

static unsigned done_one(void)
{
    return run(1, false);
}

static unsigned done_20(void)
{
    return run(JOBS, false);
}

int main(int argc, char **argv)
{
    static const struct count_case cases[] = {
        {"admit_one", admit_one}, {"admit_20", admit_20}, {"done_one", done_one},
        {"done_20", done_20},     {NULL, NULL},
    };
    return count_main(cases, argc, argv);
}
