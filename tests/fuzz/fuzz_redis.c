/*
 * A Redis server that says anything: what the client (redis.c, redis_conn.c, redis_reply.c) and the
 * coordination on it (coord*.c, claim.c, permit.c) make of replies that are cut, malformed, of
 * other types, in other numbers or with absurd values, while jobs are admitted, settled and
 * withdrawn and time passes.
 *
 * The input is a list of steps, each a byte and what it takes. Checked besides memory: nothing is
 * told to who has withdrawn, an admission gets one verdict, a permit is granted once, and whoever
 * waits for an answer gets it at most once.
 */
#include "common/attach.h"
#include "common/claim.h"
#include "common/clock.h"
#include "common/ending.h"
#include "common/log.h"
#include "tests/support/fake_link.h"
#include "tests/support/test.h"

#include <stdint.h>

enum { JOBS = 4, PERMITS = 3, STEPS_MAX = 400, START_S = 1700000 };

/* In the place of common/log.c: a line for each input is too much. */
void sl_log_write(enum sl_log_level level, const char *message, ...)
{
    (void)level;
    (void)message;
}

/* --- the link --- */

/* A copy of its own, so that reading past the end is noticed. */
static void feed(size_t i, struct sl_span bytes)
{
    char *copy = malloc(bytes.len + 1);
    CHECK(copy != NULL);
    if (bytes.len > 0) {
        memcpy(copy, bytes.data, bytes.len);
    }
    fake_link_feed(i, (struct sl_span){copy, bytes.len});
    free(copy);
}

static void open_link(size_t i, bool greet)
{
    bool opens = fake_link_is(i, SL_LINK_WAITING);
    fake_link_open(i);
    if (opens && greet) {
        feed(i, i == 0 ? SL_SPAN("+OK\r\n$24\r\n# Server\r\nrun_id:abc12\r\n\r\n"
                                 "*2\r\n$1\r\nm\r\n$10\r\nnoeviction\r\n+PONG\r\n")
                       : SL_SPAN("+OK\r\n+PONG\r\n"));
    }
}

/* --- who uses it --- */

static uint64_t now_us;
static struct sl_loop *loop;
static struct sl_metrics *metrics;
static struct sl_coord *coord;

static struct job {
    struct sl_admission admission;
    struct sl_permit permits[SL_ADMIT_PERMITS];
    char id[2];
    enum { IDLE, WAITING, PARKED, RUNNING, LOST } state;
} jobs[JOBS];
static struct sl_permit permits[PERMITS];
static bool waiting[PERMITS];
static struct sl_attachment attachment;
static bool attached;
static struct sl_idempotency idempotency;
static bool asking; /* idempotency is being asked about. */
static bool holding;
static long asked, answered; /* Callbacks that are due once. */

static void on_verdict(struct sl_admission *admission, enum sl_verdict verdict)
{
    struct job *job = SL_ITEM(admission, struct job, admission);
    struct sl_ending ending;
    CHECK(job->state == WAITING);
    switch (verdict) {
    case SL_VERDICT_PARKED:
        job->state = PARKED;
        break;
    case SL_VERDICT_ENDING:
        (void)!sl_ending_unpack(admission->ending, &ending);
        job->state = IDLE;
        break;
    case SL_VERDICT_DONE:
    case SL_VERDICT_ENDED:
        job->state = IDLE;
        break;
    default:
        job->state = RUNNING;
    }
}

static void on_retry(struct sl_admission *admission)
{
    struct job *job = SL_ITEM(admission, struct job, admission);
    CHECK(job->state == PARKED);
    job->state = WAITING;
    sl_admit(coord, admission);
}

static void on_cancelled(struct sl_admission *admission)
{
    CHECK(SL_ITEM(admission, struct job, admission)->state == RUNNING);
}

static void on_claim_lost(struct sl_admission *admission)
{
    struct job *job = SL_ITEM(admission, struct job, admission);
    CHECK(job->state == RUNNING);
    job->state = LOST;
}

static void on_permit_lost(struct sl_permit *permit)
{
    CHECK(permit->state == SL_PERMIT_NONE);
}

static void on_granted(struct sl_permit *permit, int err)
{
    size_t i = (size_t)(permit - permits);
    CHECK(waiting[i] && (err == 0) == (permit->state == SL_PERMIT_HELD));
    waiting[i] = false;
}

static void on_answer(void *ctx, int err)
{
    (void)ctx;
    (void)err;
    CHECK(++answered <= asked);
}

static void ask_once(int err)
{
    asked += err == 0;
}

static void admit(struct job *job, unsigned how)
{
    if (job->state != IDLE) {
        return;
    }
    job->admission =
        (struct sl_admission){.id = {job->id, 1},
                              .stage = "rerank",
                              .deadline_ms = (how & 1) != 0 ? sl_coord_now_ms(coord) + 2000 : 0,
                              .bulk = (how & 2) != 0,
                              .no_claim = (how & 4) != 0,
                              .on_verdict = on_verdict,
                              .on_retry = on_retry,
                              .on_cancelled = on_cancelled,
                              .on_lost = on_claim_lost};
    for (size_t i = 0; i < SL_ADMIT_PERMITS; i++) {
        if ((how >> (3 + i) & 1) != 0 && job->permits[i].state == SL_PERMIT_NONE) {
            job->admission.permits[i] = &job->permits[i];
        }
    }
    job->state = WAITING;
    sl_admit(coord, &job->admission);
}

static void settle(struct job *job, unsigned how)
{
    struct sl_admission *admission = &job->admission;
    bool runs = job->state == RUNNING || job->state == LOST;
    if (runs && how % 4 == 3) {
        ask_once(sl_claim_stream(coord, admission, on_answer, NULL));
        return;
    }
    if (runs && how % 4 == 0 && !admission->no_claim) {
        asked++;
        sl_claim_done(coord, admission, on_answer, NULL);
    } else if (runs && how % 4 == 1) {
        ask_once(sl_claim_end(coord, admission->id, admission->stage, admission->fence, "done",
                              SL_SPAN("ending"), on_answer, NULL));
        sl_claim_give_back(coord, admission);
    } else {
        sl_admit_withdraw(coord, admission);
    }
    job->state = IDLE;
    for (size_t i = 0; i < SL_ADMIT_PERMITS; i++) {
        sl_permit_release(coord, &job->permits[i]);
    }
}

static void use_permit(size_t i, unsigned how)
{
    if (permits[i].state == SL_PERMIT_NONE) {
        waiting[i] = true;
        sl_permit_request(coord, &permits[i], (how & 1) != 0 ? sl_coord_now_ms(coord) + 1500 : 0);
    } else {
        waiting[i] = false;
        sl_permit_release(coord, &permits[i]);
    }
}

static void on_looked(void *ctx, int err, const struct sl_query_state *state)
{
    on_answer(ctx, err);
    CHECK((err == 0) == (state != NULL));
    CHECK(state == NULL || (state->outcome != NULL && state->stage != NULL));
}

static void on_idempotent(void *ctx, int err, enum sl_idempotent answer)
{
    on_answer(ctx, err);
    asking = false;
    CHECK(answer <= SL_IDEMPOTENT_CONFLICT);
    CHECK(memchr(idempotency.id, '\0', sizeof(idempotency.id)) != NULL);
}

static void use_key(void)
{
    if (asking) {
        return;
    }
    idempotency = (struct sl_idempotency){.tenant = SL_SPAN("acme"),
                                          .key = SL_SPAN("key"),
                                          .body = SL_SPAN("body"),
                                          .id = "a",
                                          .place = {.partition = 1}};
    asking = true;
    asked++;
    if (sl_idempotent_open(coord, &idempotency, on_idempotent, NULL) != 0) {
        asking = false;
        asked--;
    }
}

/* What a worker does with suspects: all wait, or but one. */
static void hold(void)
{
    const struct sl_admission *only = NULL;
    for (size_t i = 0; i < JOBS; i++) {
        const struct sl_admission *admission = &jobs[i].admission;
        only = jobs[i].state == WAITING && admission->suspect ? admission : only;
    }
    holding = !holding;
    sl_admit_hold(coord, holding, holding ? only : NULL);
}

/* What a gateway asks about a query. */
static void be_gateway(unsigned how)
{
    switch (how % 6) {
    case 0:
        ask_once(sl_coord_cancel(coord, SL_SPAN("a"), on_answer, NULL));
        break;
    case 1:
        asked++; /* The answer may come inside when the coord is destroyed. */
        asked -= sl_query_look(coord, SL_SPAN("a"), on_looked, NULL) != 0;
        break;
    case 4:
        use_key();
        break;
    case 5:
        hold();
        break;
    default:
        if (!attached) {
            attachment = (struct sl_attachment){
                .id = SL_SPAN("a"),
                .place = {.partition = 1, .offset = 2, .deadline_ms = sl_coord_now_ms(coord)}};
            sl_attach(coord, &attachment);
        } else if (how % 6 == 2) {
            sl_detach(coord, &attachment);
        } else {
            sl_detach_leave(coord, &attachment);
        }
        attached = !attached;
    }
}

/* --- replies --- */

static struct sl_span input;

static unsigned take(void)
{
    unsigned byte = 0;
    if (input.len > 0) {
        byte = (unsigned char)input.data[0];
        input.data++;
        input.len--;
    }
    return byte;
}

static struct sl_span take_bytes(void)
{
    size_t len = take();
    len = len < input.len ? len : input.len;
    struct sl_span bytes = {input.data, len};
    input.data += len;
    input.len -= len;
    return bytes;
}

static void put_value(struct sl_buf *out, int depth)
{
    static const char *const values[] = {
        "$-1\r\n",
        ":9223372036854775807\r\n",
        ":-9223372036854775808\r\n",
        "$3\r\nown\r\n",
        "$30\r\nan owner that is much too long\r\n",
        "$0\r\n\r\n",
        "-ERR no\r\n",
        "$3\r\n123\r\n",
        "*0\r\n",
        "$23\r\n3 17 1700001000 30000 7\r\n",
        "$4\r\ndone\r\n",
        "$1\r\na\r\n",
    };
    enum { VALUES = sizeof(values) / sizeof(values[0]) };
    unsigned byte = take();
    if (byte < 160) {
        sl_buf_printf(out, ":%d\r\n", (int)byte - 16);
    } else if (byte < 240 || depth > 2) {
        sl_buf_append_text(out, values[byte % VALUES]);
    } else {
        sl_buf_printf(out, "*%u\r\n", byte - 240);
        for (unsigned i = 240; i < byte; i++) {
            put_value(out, depth + 1);
        }
    }
}

/* A script's reply: the time and the quarantine as they should be, unless how says otherwise. */
static void reply(unsigned how)
{
    struct sl_buf out;
    sl_buf_init(&out, 1 << 20);
    unsigned count = how >> 1 & 15;
    sl_buf_printf(&out, "*%u\r\n", count + 2);
    if ((how & 1) == 0) {
        sl_buf_printf(&out, ":%llu\r\n:0\r\n", (unsigned long long)(now_us / 1000));
    } else {
        put_value(&out, 0);
        put_value(&out, 0);
    }
    for (unsigned i = 0; i < count; i++) {
        put_value(&out, 0);
    }
    feed(0, sl_buf_span(&out));
    sl_buf_fini(&out);
}

static void publish(void)
{
    struct sl_buf out;
    struct sl_span bytes = take_bytes();
    sl_buf_init(&out, 1 << 16);
    sl_buf_printf(&out, "*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$%zu\r\n", bytes.len);
    sl_buf_append_span(&out, bytes);
    sl_buf_append_text(&out, "\r\n");
    feed(1, sl_buf_span(&out));
    sl_buf_fini(&out);
}

/* --- the run --- */

static void turn(void)
{
    sl_loop_turn(loop, 0); /* Sets the wait, */
    sl_loop_turn(loop, 0); /* which is over. */
    for (size_t i = 0; i < 2; i++) {
        if (fake_links[i] != NULL) {
            sl_buf_clear(&fake_links[i]->out); /* The network took it. */
        }
    }
}

static void step(void)
{
    unsigned what = take();
    unsigned how = what / 12;
    switch (what % 12) {
    case 0:
    case 1:
        feed(what % 12, take_bytes());
        break;
    case 2:
        feed(0, SL_SPAN("$40\r\n0123456789012345678901234567890123456789\r\n"));
        break; /* To a SCRIPT LOAD. */
    case 3:
    case 4:
        reply(take());
        break;
    case 5:
        now_us += 1000 * 20 * (uint64_t)take();
        break;
    case 6:
        sl_redis_link_close(fake_links[how % 2], "the peer has gone");
        break;
    case 7:
        open_link(how % 2, how % 3 != 2);
        break;
    case 8:
        admit(&jobs[how % JOBS], take());
        break;
    case 9:
        settle(&jobs[how % JOBS], take());
        break;
    case 10:
        if (how % 4 == 3) {
            be_gateway(take());
        } else {
            use_permit(how % PERMITS, take());
        }
        break;
    default:
        publish();
    }
    turn();
}

static void begin(void)
{
    static const struct sl_limit limits[] = {{.name = "CHAT", .limit = 4},
                                             {.name = "EMBED", .limit = 2}};
    const struct sl_coord_config config = {.redis_url = "redis://127.0.0.1",
                                           .prefix = "sluice",
                                           .boot_id = "me",
                                           .limits = limits,
                                           .limit_count = 2,
                                           .result_ttl_ms = 60000,
                                           .on_ready = NULL};
    struct sl_coord_config with_metrics = config;
    char why[200];
    fake_links[0] = fake_links[1] = NULL;
    now_us = (uint64_t)START_S * 1000000;
    sl_clock_use(&now_us);
    CHECK(sl_loop_create(&loop) == 0 && sl_metrics_create(100, &metrics) == 0);
    with_metrics.metrics = metrics;
    CHECK(sl_coord_create(loop, &with_metrics, &coord, why, sizeof(why)) == 0);
    asked = answered = 0;
    attached = asking = holding = false;
    for (size_t i = 0; i < JOBS; i++) {
        jobs[i] = (struct job){.id = {(char)('a' + i), 0}};
        for (size_t p = 0; p < SL_ADMIT_PERMITS; p++) {
            sl_permit_init(&jobs[i].permits[p], p, i % 2 == 1, NULL, on_permit_lost);
        }
    }
    for (size_t i = 0; i < PERMITS; i++) {
        sl_permit_init(&permits[i], i % 2, false, on_granted, on_permit_lost);
        waiting[i] = false;
    }
}

static void end(void)
{
    for (size_t i = 0; i < JOBS; i++) {
        settle(&jobs[i], 2);
    }
    for (size_t i = 0; i < PERMITS; i++) {
        waiting[i] = false;
        sl_permit_release(coord, &permits[i]);
    }
    if (attached) {
        be_gateway(2);
    }
    CHECK(sl_permit_held(coord, 0) == 0 && sl_permit_held(coord, 1) == 0);
    sl_coord_destroy(coord);
    sl_metrics_destroy(metrics);
    sl_loop_destroy(loop);
    sl_clock_use(NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    input = (struct sl_span){(const char *)data, size};
    begin();
    for (int i = 0; i < STEPS_MAX && input.len > 0; i++) {
        step();
    }
    end();
    return 0;
}
