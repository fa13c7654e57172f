/*
 * Questions to the account. Each is one run of the script; a reply that does not come, or is an
 * error, leads to the same question again after a wait that grows to some seconds: every question
 * can be repeated with the same outcome.
 *
 * A run cannot be taken back. So what the client knows is a struct ingest_call of its own, which
 * forgets its question when that is cancelled.
 */
#include "workers/ingest/account.h"

#include "common/clock.h"
#include "common/log.h"
#include "common/lua_scripts.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum { RETRY_BASE_MS = 100, RETRY_CAP_MS = 5000, ARGS_MAX = 13, NUMBER = 24, REPLY_LEN = 4 };

static struct sl_redis_script script = {.text = sl_lua_ingest_account};

struct ingest_call {
    struct ingest_ask *ask; /* NULL: cancelled. */
};

struct args {
    struct sl_span spans[ARGS_MAX];
    char numbers[ARGS_MAX][NUMBER];
    size_t len;
};

static void add(struct args *args, struct sl_span span)
{
    assert(args->len < ARGS_MAX);
    args->spans[args->len++] = span.data != NULL ? span : (struct sl_span){"", 0};
}

static void add_number(struct args *args, int64_t number)
{
    char *text = args->numbers[args->len];
    snprintf(text, NUMBER, "%" PRId64, number);
    add(args, sl_span_of(text));
}

/* What the operation wants besides the version and the place. */
static void write_rest(const struct ingest_ask *ask, struct args *args)
{
    switch (ask->question) {
    case INGEST_CUT:
    case INGEST_DONE:
        add_number(args, ask->total);
        break;
    case INGEST_BATCH:
        add_number(args, ask->chunks);
        add_number(args, ask->total);
        break;
    case INGEST_CLEANED:
        add_number(args, 0);
        break;
    case INGEST_FAILED:
        add(args, ask->reason);
        break;
    case INGEST_OPEN:
        add(args, ask->hash);
        add_number(args, ask->size);
        add_number(args, (int64_t)ask->bytes);
        add(args, ask->source);
        add_number(args, ask->again ? 1 : 0);
        break;
    case INGEST_REMOVE:
        add(args, ask->source);
        break;
    case INGEST_LOOK:
        break;
    }
}

static void write_args(const struct ingest_ask *ask, struct args *args)
{
    static const char *const names[] = {"open",  "remove", "cut",  "look",
                                        "batch", "done",   "done", "failed"};
    args->len = 0;
    add(args, sl_span_of(ask->account->prefix));
    add_number(args, (int64_t)ask->account->ttl_ms);
    add(args, ask->tenant);
    add(args, ask->collection);
    add(args, ask->doc_id);
    add(args, ask->ingest_id);
    add(args, sl_span_of(names[ask->question]));
    if (ask->question == INGEST_OPEN || ask->question == INGEST_REMOVE) {
        add(args, ask->message);
    } else {
        add_number(args, ask->version);
        if (ask->question != INGEST_CUT) {
            add_number(args, ask->place);
        }
    }
    write_rest(ask, args);
}

static bool read_answer(struct ingest_ask *ask, const struct redisReply *reply)
{
    static const char *const states[] = {"open",   "complete", "old", "done",
                                         "failed", "skipped",  "lost"};
    if (sl_reply_len(reply) != REPLY_LEN) {
        return false;
    }
    struct sl_span state = sl_reply_span(sl_reply_at(reply, 0));
    struct sl_span reason = sl_reply_span(sl_reply_at(reply, 3));
    for (size_t i = 0; i < sizeof(states) / sizeof(states[0]); i++) {
        if (sl_span_is(state, states[i])) {
            ask->state = (enum ingest_state)i;
            ask->version = sl_reply_int(sl_reply_at(reply, 1));
            ask->accepted = sl_reply_int(sl_reply_at(reply, 2));
            snprintf(ask->uncounted, sizeof(ask->uncounted), SL_SPAN_FMT, SL_SPAN_ARG(reason));
            return ask->version > 0;
        }
    }
    return false;
}

static void run(struct ingest_ask *ask);

static void on_retry(struct sl_timer *timer)
{
    run(SL_ITEM(timer, struct ingest_ask, retry));
}

static void ask_again(struct ingest_ask *ask, int err)
{
    if (ask->backoff.tries % 8 == 0) {
        sl_log(SL_LOG_WARN, "the account does not answer, asking again",
               SL_SPANF("doc_id", ask->doc_id), SL_ERR(err));
    }
    sl_timer_start(ask->account->loop, &ask->retry, sl_backoff_next_ms(&ask->backoff), on_retry);
}

static void on_reply(void *ctx, int err, const struct redisReply *reply)
{
    struct ingest_call *call = ctx;
    struct ingest_ask *ask = call->ask;
    free(call);
    if (ask == NULL) {
        return;
    }
    ask->call = NULL;
    if (err == 0 && read_answer(ask, reply)) {
        ask->on_answer(ask);
    } else {
        ask_again(ask, err != 0 ? err : -SL_EPROTO);
    }
}

static void run(struct ingest_ask *ask)
{
    struct args args;
    struct ingest_call *call = calloc(1, sizeof(*call));
    int rv = call == NULL ? -SL_ENOMEM : 0;
    if (rv == 0) {
        write_args(ask, &args);
        call->ask = ask;
        rv = sl_redis_eval(ask->account->redis, &script, 1, args.len, args.spans, on_reply, call);
    }
    if (rv != 0) {
        free(call);
        ask_again(ask, rv);
        return;
    }
    ask->call = call;
}

void ingest_ask(struct ingest_account *account, struct ingest_ask *ask,
                enum ingest_question question)
{
    assert(ask->call == NULL && !sl_timer_active(&ask->retry));
    ask->account = account;
    ask->question = question;
    sl_backoff_init(&ask->backoff, RETRY_BASE_MS, RETRY_CAP_MS, sl_clock_now_us());
    run(ask);
}

void ingest_ask_cancel(struct ingest_ask *ask)
{
    if (ask->account != NULL) {
        sl_timer_stop(ask->account->loop, &ask->retry);
    }
    if (ask->call != NULL) {
        ask->call->ask = NULL;
        ask->call = NULL;
    }
}
