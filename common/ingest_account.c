/*
 * What gateway and command line ask of the account of ingestion.
 *
 * Each question is one run of common/lua/ingest_read.lua, and a struct call until its reply comes.
 * Nothing is asked again here: each question may be repeated by its caller with the same outcome,
 * and a run that is begun, closed or refused twice is as if it was once.
 *
 * A run's numbers come as they were counted, in one step, so they agree with each other: it has
 * ended when all documents that it was closed with are processed, failed or skipped.
 */
#include "common/ingest_account.h"

#include "common/json.h"
#include "common/lua_scripts.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum { ARGS_MAX = 8, NUMBER = 24, RUNS_MAX = 100, DOCUMENTS_MAX = 1000 };
enum { RUN_FIELDS = 14, DOCUMENT_FIELDS = 6 };

static struct sl_redis_script script = {.text = sl_lua_ingest_read};

enum kind { DONE, RUN, RUNS, DOCUMENTS };

struct call {
    enum kind kind;
    union {
        sl_ingest_done_cb *done;
        sl_ingest_run_cb *run;
        sl_ingest_runs_cb *runs;
        sl_ingest_documents_cb *documents;
    } cb;
    void *ctx;
};

/* --- replies --- */

static uint64_t count_at(const struct redisReply *reply, size_t i)
{
    long long count = sl_reply_int(sl_reply_at(reply, i));
    return count > 0 ? (uint64_t)count : 0;
}

static struct sl_ingest_run run_of(const struct redisReply *reply)
{
    struct sl_span documents = sl_reply_span(sl_reply_at(reply, 3));
    struct sl_ingest_run run = {
        .ingest_id = sl_reply_span(sl_reply_at(reply, 0)),
        .collection = sl_reply_span(sl_reply_at(reply, 1)),
        .source = sl_reply_span(sl_reply_at(reply, 2)),
        .closed = documents.len > 0,
        .documents = documents.len > 0 ? (int64_t)count_at(reply, 3) : -1,
        .processed = count_at(reply, 4),
        .failed = count_at(reply, 5) + count_at(reply, 7),
        .skipped = count_at(reply, 6),
        .refused = count_at(reply, 7),
        .taken = count_at(reply, 8),
        .total_chunks = count_at(reply, 9),
        .stored_chunks = count_at(reply, 10),
        .began_ms = sl_reply_int(sl_reply_at(reply, 12)),
        .moved_ms = sl_reply_int(sl_reply_at(reply, 13)),
    };
    uint64_t cut = count_at(reply, 11);
    run.waiting_chunks = cut > run.stored_chunks ? cut - run.stored_chunks : 0;
    uint64_t counted = run.processed + run.failed - run.refused + run.skipped;
    run.ended = run.closed && counted >= (uint64_t)run.documents;
    return run;
}

static void on_run(const struct call *call, const struct redisReply *reply)
{
    size_t len = sl_reply_len(reply), count = len > RUN_FIELDS ? (len - RUN_FIELDS) / 2 : 0;
    if (len < RUN_FIELDS) {
        call->cb.run(call->ctx, len == 0 ? -SL_ENOENT : -SL_EPROTO, NULL);
        return;
    }
    struct sl_ingest_failure *failures = calloc(count + 1, sizeof(*failures));
    if (failures == NULL) {
        call->cb.run(call->ctx, -SL_ENOMEM, NULL);
        return;
    }
    for (size_t i = 0; i < count; i++) {
        failures[i].doc_id = sl_reply_span(sl_reply_at(reply, RUN_FIELDS + 2 * i));
        failures[i].reason = sl_reply_span(sl_reply_at(reply, RUN_FIELDS + 2 * i + 1));
    }
    struct sl_ingest_run run = run_of(reply);
    run.failures = failures;
    run.failure_count = count;
    call->cb.run(call->ctx, 0, &run);
    free(failures);
}

static void on_runs(const struct call *call, const struct redisReply *reply)
{
    size_t len = sl_reply_len(reply);
    struct sl_ingest_run *runs = calloc(len + 1, sizeof(*runs));
    for (size_t i = 0; runs != NULL && i < len; i++) {
        runs[i] = run_of(sl_reply_at(reply, i));
    }
    call->cb.runs(call->ctx, runs == NULL ? -SL_ENOMEM : 0, runs, runs == NULL ? 0 : len);
    free(runs);
}

static struct sl_ingest_document document_of(const struct redisReply *reply, size_t at)
{
    return (struct sl_ingest_document){
        .doc_id = sl_reply_span(sl_reply_at(reply, at)),
        .version = sl_reply_int(sl_reply_at(reply, at + 1)),
        .chunks = count_at(reply, at + 2),
        .bytes = count_at(reply, at + 3),
        .stored_ms = sl_reply_int(sl_reply_at(reply, at + 4)),
        .changing = sl_reply_int(sl_reply_at(reply, at + 5)) == 1,
    };
}

static void on_documents(const struct call *call, const struct redisReply *reply)
{
    size_t fields = sl_reply_len(reply), len = fields > 0 ? (fields - 1) / DOCUMENT_FIELDS : 0;
    struct sl_ingest_document *documents = calloc(len + 1, sizeof(*documents));
    if (documents == NULL) {
        call->cb.documents(call->ctx, -SL_ENOMEM, NULL, 0, false);
        return;
    }
    for (size_t i = 0; i < len; i++) {
        documents[i] = document_of(reply, 1 + i * DOCUMENT_FIELDS);
    }
    call->cb.documents(call->ctx, 0, documents, len, sl_reply_int(sl_reply_at(reply, 0)) == 1);
    free(documents);
}

static void on_error(const struct call *call, int err)
{
    switch (call->kind) {
    case DONE:
        call->cb.done(call->ctx, err);
        break;
    case RUN:
        call->cb.run(call->ctx, err, NULL);
        break;
    case RUNS:
        call->cb.runs(call->ctx, err, NULL, 0);
        break;
    case DOCUMENTS:
        call->cb.documents(call->ctx, err, NULL, 0, false);
        break;
    }
}

static void on_reply(void *ctx, int err, const struct redisReply *reply)
{
    struct call call = *(struct call *)ctx;
    free(ctx);
    if (err != 0) {
        on_error(&call, err);
        return;
    }
    switch (call.kind) {
    case DONE:
        call.cb.done(call.ctx, sl_reply_int(reply) == 1 ? 0 : -SL_ENOENT);
        break;
    case RUN:
        on_run(&call, reply);
        break;
    case RUNS:
        on_runs(&call, reply);
        break;
    case DOCUMENTS:
        on_documents(&call, reply);
        break;
    }
}

/* --- questions --- */

static int ask(const struct sl_ingest_env *env, const char *operation, const struct sl_span *args,
               size_t len, const struct call *call)
{
    char ttl[NUMBER];
    struct sl_span argv[ARGS_MAX];
    struct call *copy = malloc(sizeof(*copy));
    if (copy == NULL) {
        return -SL_ENOMEM;
    }
    *copy = *call;
    snprintf(ttl, sizeof(ttl), "%" PRIu64, env->ttl_ms);
    argv[0] = sl_span_of(env->prefix);
    argv[1] = sl_span_of(ttl);
    argv[2] = env->tenant;
    argv[3] = sl_span_of(operation);
    assert(len + 4 <= ARGS_MAX);
    for (size_t i = 0; i < len; i++) {
        argv[4 + i] = args[i].data != NULL ? args[i] : SL_SPAN("");
    }
    int rv = sl_redis_eval(env->redis, &script, 1, 4 + len, argv, on_reply, copy);
    if (rv != 0) {
        free(copy);
    }
    return rv;
}

int sl_ingest_begin(const struct sl_ingest_env *env, struct sl_span ingest_id,
                    struct sl_span collection, struct sl_span source, sl_ingest_done_cb *cb,
                    void *ctx)
{
    const struct sl_span args[] = {ingest_id, collection, source};
    return ask(env, "begin", args, 3, &(struct call){DONE, {.done = cb}, ctx});
}

int sl_ingest_close(const struct sl_ingest_env *env, struct sl_span ingest_id, uint64_t documents,
                    sl_ingest_done_cb *cb, void *ctx)
{
    char number[NUMBER];
    snprintf(number, sizeof(number), "%" PRIu64, documents);
    const struct sl_span args[] = {ingest_id, sl_span_of(number)};
    return ask(env, "close", args, 2, &(struct call){DONE, {.done = cb}, ctx});
}

int sl_ingest_refuse(const struct sl_ingest_env *env, struct sl_span ingest_id,
                     struct sl_span doc_id, struct sl_span reason, sl_ingest_done_cb *cb, void *ctx)
{
    const struct sl_span args[] = {ingest_id, doc_id, reason};
    return ask(env, "refuse", args, 3, &(struct call){DONE, {.done = cb}, ctx});
}

int sl_ingest_read(const struct sl_ingest_env *env, struct sl_span ingest_id, size_t known,
                   sl_ingest_run_cb *cb, void *ctx)
{
    char number[NUMBER];
    snprintf(number, sizeof(number), "%zu", known);
    const struct sl_span args[] = {ingest_id, sl_span_of(number)};
    return ask(env, "read", args, 2, &(struct call){RUN, {.run = cb}, ctx});
}

int sl_ingest_runs(const struct sl_ingest_env *env, size_t max, sl_ingest_runs_cb *cb, void *ctx)
{
    char number[NUMBER];
    snprintf(number, sizeof(number), "%zu", max < RUNS_MAX ? max : RUNS_MAX);
    const struct sl_span args[] = {sl_span_of(number)};
    return ask(env, "runs", args, 1, &(struct call){RUNS, {.runs = cb}, ctx});
}

int sl_ingest_documents(const struct sl_ingest_env *env, struct sl_span collection,
                        struct sl_span after, size_t max, sl_ingest_documents_cb *cb, void *ctx)
{
    char number[NUMBER];
    snprintf(number, sizeof(number), "%zu", max < DOCUMENTS_MAX ? max : DOCUMENTS_MAX);
    const struct sl_span args[] = {collection, after, sl_span_of(number)};
    return ask(env, "documents", args, 3, &(struct call){DOCUMENTS, {.documents = cb}, ctx});
}

/* --- in words --- */

void sl_ingest_run_waiting(const struct sl_ingest_run *run, struct sl_buf *out)
{
    uint64_t counted = run->processed + run->failed - run->refused + run->skipped;
    size_t begun = out->len;
    if (run->ended) {
        return;
    }
    if (!run->closed) {
        sl_buf_append_text(out, "not all documents are sent");
    }
    if (run->closed && run->taken < (uint64_t)run->documents) {
        sl_buf_printf(out, "%" PRIu64 " of %" PRId64 " documents are not taken up",
                      (uint64_t)run->documents - run->taken, run->documents);
    }
    if (run->waiting_chunks > 0) {
        sl_buf_printf(out, "%s%" PRIu64 " chunks wait for vectors or the store",
                      out->len > begun ? "; " : "", run->waiting_chunks);
    } else if (run->taken > counted) {
        sl_buf_printf(out, "%s%" PRIu64 " documents are being worked on",
                      out->len > begun ? "; " : "", run->taken - counted);
    }
}

static void put_number(struct sl_json_writer *w, const char *key, uint64_t number)
{
    sl_json_key(w, key);
    sl_json_put_int(w, (int64_t)number);
}

static void put_text(struct sl_json_writer *w, const char *key, struct sl_span text)
{
    sl_json_key(w, key);
    sl_json_put_string(w, text);
}

static void put_failures(struct sl_json_writer *w, const struct sl_ingest_run *run)
{
    sl_json_key(w, "failures");
    sl_json_begin_array(w);
    for (size_t i = 0; i < run->failure_count; i++) {
        sl_json_begin_object(w);
        put_text(w, "doc_id", run->failures[i].doc_id);
        put_text(w, "reason", run->failures[i].reason);
        sl_json_end_object(w);
    }
    sl_json_end_array(w);
}

static void put_waiting(struct sl_json_writer *w, const struct sl_ingest_run *run)
{
    struct sl_buf line;
    sl_buf_init(&line, 512);
    sl_ingest_run_waiting(run, &line);
    sl_json_key(w, "waiting_for");
    if (run->ended) {
        sl_json_put_null(w);
    } else {
        sl_json_put_string(w, sl_buf_span(&line));
    }
    sl_buf_fini(&line);
}

void sl_ingest_run_json(const struct sl_ingest_run *run, struct sl_buf *out)
{
    struct sl_json_writer w = {.out = out};
    sl_json_begin_object(&w);
    put_text(&w, "ingest_id", run->ingest_id);
    put_text(&w, "state", run->ended ? SL_SPAN("done") : SL_SPAN("running"));
    put_number(&w, "processed", run->processed);
    put_number(&w, "failed", run->failed);
    put_number(&w, "skipped", run->skipped);
    put_number(&w, "total_chunks", run->total_chunks);
    put_failures(&w, run);
    sl_json_key(&w, "documents");
    if (run->closed) {
        sl_json_put_int(&w, run->documents);
    } else {
        sl_json_put_null(&w);
    }
    put_number(&w, "stored_chunks", run->stored_chunks);
    put_text(&w, "source", run->source);
    put_waiting(&w, run);
    sl_json_end_object(&w);
}
