/*
 * This process among the others. Here: its beginning and end, the link to Redis, Redis's clock, and
 * what other processes publish. The parts stand in files of their own:
 *
 *   coord_admit.c   the line of what waits, one round trip for all that gathered   (admit.lua)
 *   coord_settle.c  what is given back, done, ended, cancelled                     (settle.lua)
 *   coord_renew.c   leases: kept, or lost in time                                  (renew.lua)
 *   coord_watch.c   the heartbeat, and what is parked                              (beat.lua)
 *   attach.c        what has readers here, and what Redis knows of a query         (look.lua)
 *   attach_idempotent.c  of requests with one key one is the first           (idempotent.lua)
 *
 * What it costs: in the steady state a job takes two or three round trips: one to be admitted with
 * its permits, one to give a permit back and to mark its claim, which is two where the broker takes
 * longer than 2 ms in between; jobs of one turn of the loop share each of them. A process that is
 * idle sends its heartbeat once a second; one that holds something, a renewal every 4 s.
 *
 * The story of a link: Redis is reached and told its run id; the heartbeat goes out at once, and
 * with its reply, the clock being known, the process is ready. What waited is asked for, what was
 * held is renewed, what could not be written is sent again. When the link goes down nothing new is
 * granted; running calls go on until their leases end.
 *
 * Hints come over pub/sub and only save time: `permit NAME` (one came back), `claim ID` (parked
 * work may be free), `cancel ID`. One that is lost is made good by the second, by the renewal, and
 * by the round after each resubscription.
 */
#include "common/coord.h"

#include "common/clock.h"
#include "common/coord_internal.h"
#include "common/log.h"
#include "common/lua_scripts.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>

enum { DEFAULT_TTL_MS = 15000, HEARTBEAT_KEPT_MS = 60000 };

/* --- the link --- */

void coord_set_ready(struct sl_coord *coord, bool ready, const char *why)
{
    if (coord->ready == ready) {
        return;
    }
    coord->ready = ready;
    sl_gauge_set(coord->gauge_ready, ready ? 1 : 0);
    if (coord->on_ready != NULL) {
        coord->on_ready(coord->ctx, ready, ready ? "" : why);
    }
    if (ready) {
        coord_ask_all(coord);
    }
}

static void on_link(void *ctx, const char *run_id, const char *why)
{
    struct sl_coord *coord = ctx;
    if (coord->closing) {
        return;
    }
    coord->linked = run_id != NULL;
    if (!coord->linked) {
        coord_set_ready(coord, false, why);
        return;
    }
    snprintf(coord->run_id, sizeof(coord->run_id), "%s", run_id);
    coord_beat_now(coord);
    coord_renew_now(coord);
    sl_timer_stop(coord->loop, &coord->settle_timer);
    coord_settle_soon(coord);
}

static bool take_word(struct sl_span *message, struct sl_span word)
{
    if (message->len < word.len || memcmp(message->data, word.data, word.len) != 0) {
        return false;
    }
    message->data += word.len;
    message->len -= word.len;
    return true;
}

void coord_tell_cancelled(struct sl_coord *coord)
{
    struct sl_admission *told;
    do {
        told = NULL;
        SL_LIST_EACH(node, &coord->granted)
        {
            struct sl_admission *admission = SL_ITEM(node, struct sl_admission, node);
            if (admission->cancel_seen && !admission->cancelled) {
                told = admission;
                break;
            }
        }
        if (told != NULL) { /* The callback may change the list: start again. */
            told->cancelled = true;
            if (told->on_cancelled != NULL) {
                told->on_cancelled(told);
            }
        }
    } while (told != NULL);
}

static void on_cancel(struct sl_coord *coord, struct sl_span id)
{
    SL_LIST_EACH(node, &coord->granted)
    {
        struct sl_admission *admission = SL_ITEM(node, struct sl_admission, node);
        if (!admission->bulk && sl_span_equal(admission->id, id)) {
            admission->cancel_seen = true;
        }
    }
    coord_attach_cancelled(coord, id, false);
    coord_ask_about(coord, id);
    coord_tell_cancelled(coord);
}

static void on_message(void *ctx, struct sl_span channel, struct sl_span message)
{
    struct sl_coord *coord = ctx;
    (void)channel; /* There is only one. */
    if (coord->closing) {
        return;
    }
    if (take_word(&message, SL_SPAN("permit "))) {
        for (size_t i = 0; i < coord->limit_count; i++) {
            if (sl_span_is(message, coord->limits[i].name)) {
                sl_line_move(&coord->line, sl_line_limit(i));
                coord_ask(coord);
            }
        }
    } else if (take_word(&message, SL_SPAN("claim "))) {
        coord_retry_parked(coord, message);
    } else if (take_word(&message, SL_SPAN("cancel "))) {
        on_cancel(coord, message);
    }
}

/* What was published before may have been missed. */
static void on_subscribed(void *ctx)
{
    struct sl_coord *coord = ctx;
    if (!coord->closing) {
        coord_renew_now(coord);
        coord_beat_now(coord);
        coord_ask_all(coord);
    }
}

/* --- beginning and end --- */

static int name_owner(struct sl_coord *coord, const char *boot_id)
{
    if (boot_id != NULL) {
        assert(strlen(boot_id) > 0 && strlen(boot_id) < sizeof(coord->owner));
        snprintf(coord->owner, sizeof(coord->owner), "%s", boot_id);
        return 0;
    }
    uint64_t random;
    if (getrandom(&random, sizeof(random), 0) != sizeof(random)) {
        return -SL_EIO;
    }
    snprintf(coord->owner, sizeof(coord->owner), "%016" PRIx64, random);
    return 0;
}

static void make_metrics(struct sl_coord *coord, struct sl_metrics *metrics)
{
    coord->gauge_ready =
        sl_metrics_gauge(metrics, "sluice_redis_ready", "1 while Redis can be relied on.", NULL);
    coord->lost_permits =
        sl_metrics_counter(metrics, "sluice_permits_lost_total",
                           "Leases that ended or were lost while a call held them.", NULL);
    coord->lost_claims = sl_metrics_counter(metrics, "sluice_claims_lost_total",
                                            "Claims that were lost while they ran.", NULL);
    coord->takeovers = sl_metrics_counter(metrics, "sluice_takeovers_total",
                                          "Claims taken over from owners that died.", NULL);
    for (size_t i = 0; i < coord->limit_count; i++) {
        struct sl_buf labels;
        char text[128];
        sl_buf_init(&labels, sizeof(text));
        sl_metrics_escape(&labels, sl_span_of(coord->limits[i].name));
        snprintf(text, sizeof(text), "upstream=\"" SL_SPAN_FMT "\"",
                 SL_SPAN_ARG(sl_buf_span(&labels)));
        sl_buf_fini(&labels);
        coord->gauge_held[i] = sl_metrics_gauge(metrics, "sluice_permits_in_use",
                                                "Permits that this process holds.", text);
        struct sl_gauge *limit =
            sl_metrics_gauge(metrics, "sluice_permit_limit", "Permits of the whole cluster.", text);
        sl_gauge_set(limit, coord->limits[i].limit);
    }
}

static int make_scripts(struct sl_coord *coord)
{
    const struct {
        struct coord_script *script;
        const char *text;
        void (*on_reply)(struct sl_coord *, int, const struct redisReply *);
    } scripts[] = {
        {&coord->admit, sl_lua_admit, coord_on_admitted},
        {&coord->settle, sl_lua_settle, coord_on_settled},
        {&coord->renew, sl_lua_renew, coord_on_renewed},
        {&coord->beat, sl_lua_beat, coord_on_beaten},
        {&coord->look_at_query, sl_lua_look, NULL},
        {&coord->idempotent, sl_lua_idempotent, NULL},
    };
    int err = 0;
    for (size_t i = 0; i < sizeof(scripts) / sizeof(scripts[0]); i++) {
        int rv = coord_script_init(coord, scripts[i].script, scripts[i].text, scripts[i].on_reply);
        err = err != 0 ? err : rv;
    }
    return err;
}

static int connect_redis(struct sl_coord *coord, const char *url, char *why, size_t why_size)
{
    const struct sl_redis_config config = {
        .url = url,
        .connect_timeout_ms = 2000,
        .command_timeout_ms = 1000,
        .on_link = on_link,
        .on_message = on_message,
        .on_subscribed = on_subscribed,
        .ctx = coord,
    };
    char reason[200] = "";
    int err = sl_redis_create(coord->loop, &config, &coord->redis, reason, sizeof(reason));
    if (err != 0) {
        snprintf(why, why_size, "SLUICE_REDIS_URL: %s",
                 reason[0] != '\0' ? reason : sl_error_text(err));
        return err;
    }
    struct sl_buf channel;
    sl_buf_init(&channel, 1024);
    sl_buf_append_text(&channel, coord->prefix);
    sl_buf_append_text(&channel, ":hint");
    err = sl_buf_error(&channel);
    if (err == 0) {
        err = sl_redis_subscribe(coord->redis, sl_buf_span(&channel));
    }
    sl_buf_fini(&channel);
    return err;
}

static void init(struct sl_coord *coord, struct sl_loop *loop, const struct sl_coord_config *config)
{
    coord->loop = loop;
    coord->limit_count = config->limit_count;
    for (size_t i = 0; i < config->limit_count; i++) {
        coord->limits[i] = config->limits[i];
    }
    coord->ttl_ms = config->ttl_ms != 0 ? config->ttl_ms : DEFAULT_TTL_MS;
    coord->unit_ms = coord->ttl_ms / 15;
    coord->result_ttl_ms = config->result_ttl_ms;
    coord->orphan_grace_ms = config->orphan_grace_ms;
    coord->heartbeat_ttl_ms = config->orphan_grace_ms + HEARTBEAT_KEPT_MS;
    coord->on_ready = config->on_ready;
    coord->ctx = config->ctx;
    coord->clock_offset_ms = sl_clock_unix_ms() - (int64_t)sl_clock_now_ms();
    coord_args_init(&coord->args);
    sl_observer_init(&coord->observer, coord->unit_ms);
    sl_line_init(&coord->line);
    sl_list_init(&coord->held);
    sl_list_init(&coord->granted);
    sl_list_init(&coord->parked);
    sl_list_init(&coord->attached);
    sl_list_init(&coord->questions);
    sl_list_init(&coord->releases);
    sl_list_init(&coord->ops);
    sl_list_init(&coord->sent);
    sl_list_init(&coord->spare);
    sl_list_init(&coord->made);
}

int sl_coord_create(struct sl_loop *loop, const struct sl_coord_config *config,
                    struct sl_coord **ret, char *why, size_t why_size)
{
    assert(config->limit_count <= SL_LIMITS_MAX && config->metrics != NULL);
    assert(config->result_ttl_ms > 0 && (config->ttl_ms == 0 || config->ttl_ms >= 15));
    struct sl_coord *coord = calloc(1, sizeof(*coord));
    if (coord == NULL) {
        snprintf(why, why_size, "%s", sl_error_text(-SL_ENOMEM));
        return -SL_ENOMEM;
    }
    init(coord, loop, config);
    coord->prefix = strdup(config->prefix);
    int err = coord->prefix != NULL ? name_owner(coord, config->boot_id) : -SL_ENOMEM;
    if (err == 0) {
        err = make_scripts(coord);
    }
    snprintf(why, why_size, "%s", sl_error_text(err));
    if (err == 0) {
        make_metrics(coord, config->metrics);
        err = connect_redis(coord, config->redis_url, why, why_size);
    }
    if (err != 0) {
        sl_coord_destroy(coord);
        return err;
    }
    coord_beat_now(coord); /* Starts the timers; the first beat goes out with the link. */
    coord_renew_now(coord);
    *ret = coord;
    return 0;
}

void sl_coord_destroy(struct sl_coord *coord)
{
    if (coord == NULL) {
        return;
    }
    coord->closing = true;
    sl_redis_destroy(coord->redis);
    coord_question_end_all(coord);
    sl_task_cancel(&coord->ask_task);
    sl_task_cancel(&coord->settle_task);
    sl_timer_stop(coord->loop, &coord->line_timer);
    sl_timer_stop(coord->loop, &coord->lease_timer);
    sl_timer_stop(coord->loop, &coord->renew_timer);
    sl_timer_stop(coord->loop, &coord->beat_timer);
    sl_timer_stop(coord->loop, &coord->settle_timer);
    sl_timer_stop(coord->loop, &coord->company_timer);
    coord_settle_fini(coord);
    coord_script_fini(&coord->admit);
    coord_script_fini(&coord->settle);
    coord_script_fini(&coord->renew);
    coord_script_fini(&coord->beat);
    coord_script_fini(&coord->look_at_query);
    coord_script_fini(&coord->idempotent);
    coord_args_fini(&coord->args);
    free(coord->prefix);
    free(coord);
}

/* --- what others ask --- */

bool sl_coord_idle(const struct sl_coord *coord)
{
    return coord->op_count == 0;
}

const char *sl_coord_owner(const struct sl_coord *coord)
{
    return coord->owner;
}

bool sl_coord_ready(const struct sl_coord *coord)
{
    return coord->ready;
}

uint64_t sl_coord_quarantine_ms(const struct sl_coord *coord)
{
    uint64_t now = sl_clock_now_ms();
    return coord->quarantine_end_ms > now ? coord->quarantine_end_ms - now : 0;
}

int64_t sl_coord_now_ms(const struct sl_coord *coord)
{
    return (int64_t)sl_clock_now_ms() + coord->clock_offset_ms;
}

uint64_t coord_local_ms(const struct sl_coord *coord, int64_t redis_ms)
{
    int64_t local = redis_ms - coord->clock_offset_ms;
    return local > 0 ? (uint64_t)local : 0;
}

size_t sl_coord_limit(const struct sl_coord *coord, const char *name)
{
    for (size_t i = 0; i < coord->limit_count; i++) {
        if (strcmp(coord->limits[i].name, name) == 0) {
            return i;
        }
    }
    return SL_LIMITS_MAX;
}

const char *sl_coord_prefix(const struct sl_coord *coord)
{
    return coord->prefix;
}

struct sl_redis *sl_coord_redis(const struct sl_coord *coord)
{
    return coord->redis;
}

uint64_t sl_coord_result_ttl_ms(const struct sl_coord *coord)
{
    return coord->result_ttl_ms;
}
