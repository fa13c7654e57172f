/*
 * The generate stage: one streamed chat completion a query, its tokens sent to the caller as they
 * come.
 *
 * The happy path: the prompt goes out under the permit that came with admission; each piece of text
 * is a delta event; the model says why it finished and what it used; the stream ends; the query is
 * done.
 *
 * What can go wrong:
 * - The worker dies: once the first token came, the claim says so before it is sent on. Whoever
 *   finds the job does not pay for a second answer unasked.
 * - Nothing came yet: the upstream layer tries again, at most three calls in all.
 * - A stream that is cut, stalls, ends without a finish_reason or carries an error after the first
 *   token: the query fails with what was sent so far as its partial answer. A short answer is never
 *   passed off as a whole one.
 * - The reply topic is slow: the model's connection is read no further until there is room; text
 *   that was read already waits here, joined into one delta. So does text that comes within the few
 *   milliseconds in which the runtime gathers what all streams have to send; the first never does.
 * - Cancel, deadline: the connection is closed; tokens and usage so far are the query's partial.
 */
#include "workers/generate/generate.h"

#include "common/job.h"
#include "common/json.h"
#include "common/sse.h"
#include "common/upstream.h"
#include "common/worker.h"
#include "workers/generate/prompt.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

enum { REQUEST_MAX = 64 << 20, EVENT_MAX = 1 << 20, ANSWER_MAX = 4 << 20, FINISH_MAX = 32 };
enum { CHARS_PER_TOKEN = 4 };

struct state {
    struct sl_upstream_call *call;
    struct sl_sse_reader reader;
    struct sl_buf answer; /* All text so far. */
    size_t emitted;       /* Bytes of it that were sent. */
    char finish[FINISH_MAX];
    struct sl_span model;
    struct sl_usage usage;
    bool has_usage, has_reader, ended;
    bool streaming;  /* The claim says that something is being sent. */
    bool paused;     /* The call is not read, for want of room. */
    uint32_t pieces; /* Of text that the model sent: about as many as tokens. */
    uint32_t ttft_ms;
    char why[200]; /* What was wrong with the stream. */
};

struct generate {
    struct sl_upstream *upstream;
    struct sl_counter *prompt_tokens, *completion_tokens;
};

static struct sl_upstream_config config;

/* --- the result so far --- */

static struct sl_result result_of(struct sl_job *job)
{
    const struct state *state = sl_job_state(job);
    const struct sl_query *query = sl_job_query(job);
    struct sl_result result = {.outcome = SL_DONE,
                               .answer = sl_buf_span(&state->answer),
                               .model = state->model,
                               .finish_reason = sl_span_of(state->finish),
                               .usage = state->usage,
                               .ttft_ms = state->ttft_ms};
    if (!state->has_usage && state->pieces > 0) {
        size_t chars = query->query.len;
        for (size_t i = 0; i < query->hits_len; i++) {
            chars += query->hits[i].text.len;
        }
        result.usage = (struct sl_usage){.prompt_tokens = (uint32_t)(chars / CHARS_PER_TOKEN),
                                         .completion_tokens = state->pieces,
                                         .estimated = true};
    }
    return result;
}

/* When the model's part has ended, however it did. */
static void count_tokens(struct sl_job *job, const struct sl_usage *usage)
{
    struct generate *generate = sl_worker_stage(sl_job_worker(job));
    sl_counter_add(generate->prompt_tokens, usage->prompt_tokens);
    sl_counter_add(generate->completion_tokens, usage->completion_tokens);
}

static void release(struct state *state)
{
    if (state->has_reader) {
        sl_sse_reader_fini(&state->reader);
        sl_buf_fini(&state->answer);
        state->has_reader = false;
    }
}

static void fail(struct sl_job *job, enum sl_query_error code, const char *message)
{
    struct sl_result partial = result_of(job);
    count_tokens(job, &partial.usage);
    sl_job_partial(job, &partial);
    release(sl_job_state(job));
    sl_job_fail(job, code, message);
}

/* --- sending --- */

static void finish_if_all_sent(struct sl_job *job)
{
    struct state *state = sl_job_state(job);
    if (state->ended && state->emitted == state->answer.len) {
        struct sl_result result = result_of(job);
        count_tokens(job, &result.usage);
        sl_job_finish(job, &result); /* Copies what it needs. */
        release(state);
    }
}

static int send_text(struct sl_job *job);

static void go_on(struct sl_job *job)
{
    struct state *state = sl_job_state(job);
    int rv = send_text(job);
    if (rv != 0 && rv != -SL_EAGAIN) {
        if (state->call != NULL) {
            sl_upstream_cancel(state->call);
            state->call = NULL;
        }
        fail(job, SL_QERR_INTERNAL, sl_error_text(rv));
    } else if (rv == 0) {
        if (state->call != NULL && state->paused) {
            sl_upstream_pause(state->call, false);
        }
        state->paused = false;
        finish_if_all_sent(job);
    }
}

/* Sends what is not sent yet as one delta. */
static int send_text(struct sl_job *job)
{
    struct state *state = sl_job_state(job);
    size_t unsent = state->answer.len - state->emitted;
    if (unsent == 0 || !state->streaming) {
        return 0;
    }
    struct sl_event event = {.type = SL_EVENT_DELTA,
                             .text = {state->answer.data + state->emitted, unsent}};
    int rv = sl_job_emit(job, &event);
    if (rv == -SL_EAGAIN) {
        sl_job_on_room(job, go_on);
        if (state->call != NULL) {
            sl_upstream_pause(state->call, true);
        }
        state->paused = true;
    } else if (rv == 0) {
        state->emitted = state->answer.len;
    }
    return rv;
}

static void on_streaming(struct sl_job *job)
{
    struct state *state = sl_job_state(job);
    state->streaming = true;
    go_on(job);
}

/* --- the model's stream --- */

static int on_text(struct sl_job *job, struct sl_span text)
{
    struct state *state = sl_job_state(job);
    bool waiting = state->emitted < state->answer.len;
    int rv = 0;
    if (text.len == 0) {
        return 0;
    }
    if (state->answer.len == 0) { /* The first token: from here on nothing is tried again. */
        const struct sl_query *query = sl_job_query(job);
        int64_t now = sl_coord_now_ms(sl_worker_coord(sl_job_worker(job)));
        state->ttft_ms = now > query->accepted_ms ? (uint32_t)(now - query->accepted_ms) : 0;
        sl_upstream_commit(state->call);
        rv = sl_job_stream(job, on_streaming);
        if (rv != 0) {
            return rv;
        }
    }
    sl_buf_append_span(&state->answer, text);
    state->pieces++;
    rv = sl_buf_error(&state->answer);
    if (rv != 0) {
        snprintf(state->why, sizeof(state->why), "the answer is longer than %d bytes", ANSWER_MAX);
        return rv;
    }
    if (!waiting && state->streaming) {
        sl_job_on_flush(job, go_on);
    }
    return 0;
}

static uint32_t count_of(const struct sl_json *usage, const char *key)
{
    const struct sl_json *value = sl_json_get(usage, key);
    int64_t n = value != NULL && sl_json_type(value) == SL_JSON_INT ? sl_json_int(value) : 0;
    return n > 0 && n <= UINT32_MAX ? (uint32_t)n : 0;
}

static void on_usage(struct state *state, const struct sl_json *usage)
{
    if (usage != NULL && sl_json_type(usage) == SL_JSON_OBJECT) {
        state->usage.prompt_tokens = count_of(usage, "prompt_tokens");
        state->usage.completion_tokens = count_of(usage, "completion_tokens");
        state->has_usage = true;
    }
}

static struct sl_span string_at(const struct sl_json *object, const char *key)
{
    const struct sl_json *value = sl_json_get(object, key);
    return value != NULL && sl_json_type(value) == SL_JSON_STRING ? sl_json_string(value)
                                                                  : SL_SPAN("");
}

static int on_error_object(struct state *state, const struct sl_json *error)
{
    struct sl_span message =
        sl_json_type(error) == SL_JSON_STRING ? sl_json_string(error) : string_at(error, "message");
    snprintf(state->why, sizeof(state->why), "the model reported an error: " SL_SPAN_FMT,
             message.len < 120 ? (int)message.len : 120, message.data != NULL ? message.data : "");
    return -SL_EUPSTREAM;
}

static int on_chunk(struct sl_job *job, const struct sl_json *root)
{
    struct state *state = sl_job_state(job);
    const struct sl_json *error = sl_json_get(root, "error"), *choice = NULL;
    const struct sl_json *choices = sl_json_get(root, "choices");
    size_t at = 0;
    if (error != NULL && sl_json_type(error) != SL_JSON_NULL) {
        return on_error_object(state, error);
    }
    on_usage(state, sl_json_get(root, "usage"));
    if (choices == NULL || sl_json_type(choices) != SL_JSON_ARRAY ||
        !sl_json_each(choices, &at, NULL, &choice)) {
        return 0;
    }
    struct sl_span finish = string_at(choice, "finish_reason");
    int rv = on_text(job, string_at(sl_json_get(choice, "delta"), "content"));
    if (finish.len > 0) {
        snprintf(state->finish, sizeof(state->finish), SL_SPAN_FMT, SL_SPAN_ARG(finish));
    }
    return rv;
}

static int on_event(void *ctx, const struct sl_sse_event *event)
{
    struct sl_job *job = ctx;
    struct state *state = sl_job_state(job);
    struct sl_json_doc *doc;
    char why[100];
    if (sl_span_is(event->data, "[DONE]")) {
        return 0;
    }
    int rv = sl_json_parse(event->data, &doc, why, sizeof(why));
    if (rv != 0) {
        snprintf(state->why, sizeof(state->why), "the model's stream is not JSON: %s", why);
        return rv == -SL_EBADMSG ? -SL_EPROTO : rv;
    }
    rv = on_chunk(job, sl_json_root(doc));
    sl_json_free(doc);
    return rv;
}

static int on_data(void *ctx, struct sl_span bytes)
{
    struct state *state = sl_job_state(ctx);
    return sl_sse_reader_feed(&state->reader, bytes);
}

static void forget_attempt(struct sl_job *job)
{
    struct state *state = sl_job_state(job);
    release(state);
    sl_sse_reader_init(&state->reader, EVENT_MAX, on_event, job);
    sl_buf_init(&state->answer, ANSWER_MAX);
    state->has_reader = true;
    state->finish[0] = '\0';
    state->has_usage = false;
    state->why[0] = '\0';
}

static void on_retry(void *ctx)
{
    forget_attempt(ctx);
}

static void on_end(void *ctx, int err, int status, struct sl_span body, const char *detail,
                   uint32_t attempts)
{
    struct sl_job *job = ctx;
    struct state *state = sl_job_state(job);
    (void)status;
    (void)body;
    state->call = NULL;
    sl_job_count_attempts(job, attempts);
    if (err != 0 || state->finish[0] == '\0') {
        (void)send_text(job); /* Without room the partial answer alone has it. */
    }
    if (err == 0 && state->finish[0] == '\0') {
        fail(job, SL_QERR_UPSTREAM_ERROR, "the model's stream ended without a finish_reason");
    } else if (err == -SL_EEXPIRED) {
        fail(job, SL_QERR_TIMEOUT, "the deadline passed during generation");
    } else if (err != 0) {
        fail(job, SL_QERR_UPSTREAM_ERROR, state->why[0] != '\0' ? state->why : detail);
    } else {
        state->ended = true;
        go_on(job);
    }
}

/* --- starting --- */

/* The caller's model, else the first that is configured, for which `sluice` is another name. */
static struct sl_span choose_model(const struct sl_query *query)
{
    struct sl_span all = sl_span_of(config.model);
    const char *comma = all.len > 0 ? memchr(all.data, ',', all.len) : NULL;
    if (query->model.len > 0 && !sl_span_is(query->model, "sluice")) {
        return query->model;
    }
    return comma != NULL ? (struct sl_span){all.data, (size_t)(comma - all.data)} : all;
}

static void start(struct sl_job *job)
{
    static const struct sl_upstream_callbacks callbacks = {
        .on_data = on_data, .on_retry = on_retry, .on_end = on_end};
    struct generate *generate = sl_worker_stage(sl_job_worker(job));
    struct state *state = sl_job_state(job);
    struct sl_buf body;
    forget_attempt(job);
    state->model = choose_model(sl_job_query(job));
    sl_buf_init(&body, REQUEST_MAX);
    prompt_write(sl_job_query(job), state->model, &body);
    const struct sl_upstream_request request = {
        .method = "POST",
        .path = "/chat/completions",
        .body = sl_buf_span(&body),
        .deadline_ms = sl_job_deadline_ms(job),
        .permit = sl_job_permit(job, 0),
        .callbacks = &callbacks,
        .ctx = job,
    };
    int rv = sl_buf_error(&body);
    rv = rv != 0 ? rv : sl_upstream_start(generate->upstream, &request, &state->call);
    sl_buf_fini(&body);
    if (rv != 0) {
        fail(job, SL_QERR_INTERNAL, sl_error_text(rv));
    }
}

static void cancel(struct sl_job *job)
{
    struct state *state = sl_job_state(job);
    struct sl_result partial = result_of(job);
    count_tokens(job, &partial.usage);
    sl_job_partial(job, &partial);
    if (state->call != NULL) {
        sl_upstream_cancel(state->call);
        state->call = NULL;
    }
    release(state);
}

/* --- the stage --- */

static int init(struct sl_worker *worker, void **ret, char *why, size_t why_size)
{
    static const char tokens[] = "sluice_tokens_total";
    static const char help[] = "Tokens of the chat model's calls, estimated where it tells none.";
    struct sl_metrics *metrics = sl_worker_metrics(worker);
    struct generate *generate = calloc(1, sizeof(*generate));
    (void)why;
    (void)why_size;
    if (generate == NULL) {
        return -SL_ENOMEM;
    }
    *ret = generate;
    generate->prompt_tokens = sl_metrics_counter(metrics, tokens, help, "kind=\"prompt\"");
    generate->completion_tokens = sl_metrics_counter(metrics, tokens, help, "kind=\"completion\"");
    return sl_upstream_create(sl_worker_loop(worker), sl_worker_http(worker),
                              sl_worker_coord(worker), metrics, "CHAT", &config,
                              &generate->upstream);
}

static void fini(void *stage_state)
{
    struct generate *generate = stage_state;
    sl_upstream_destroy(generate->upstream);
    free(generate);
}

static size_t limits(struct sl_limit ret[SL_STAGE_LIMITS])
{
    ret[0] = (struct sl_limit){.name = "CHAT", .limit = (uint32_t)config.limit};
    return 1;
}

static const struct sl_option options[] = {
    SL_UPSTREAM_OPTIONS("CHAT", "10", "15s", "10s", "30s"),
    {.name = NULL},
};
static const struct sl_option_set option_sets[] = {{"Chat model", options, &config}};
static const char *const outputs[] = {"replies", "results", NULL};

const struct sl_stage generate_stage = {
    .name = "generate",
    .synopsis = "Streams the chat model's answer to the caller, token by token.",
    .index = SL_STAGE_generate,
    .inputs = {{.topic = "generate", .kind = SL_INPUT_QUERY}},
    .outputs = outputs,
    .limits = limits,
    .admission_permits = 1,
    .admin_address = "127.0.0.1:9104",
    .drain_ms = 65000,
    .state_size = sizeof(struct state),
    .option_sets = option_sets,
    .option_set_count = 1,
    .init = init,
    .fini = fini,
    .start = start,
    .cancel = cancel,
};
