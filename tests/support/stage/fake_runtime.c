/*
 * The fake runtime. It keeps the promises of the real one that stages rely on: callbacks come only
 * from the test's own calls, a job is settled once, nothing calls back into a job that was
 * cancelled.
 */
#include "tests/support/stage/fake_runtime.h"

#include "common/clock.h"
#include "tests/support/stage/fake_redis.h"
#include "tests/support/test.h"

enum { ARENA_MAX = 16 << 20 };

struct sl_upstream {
    struct sl_worker *worker;
    const struct sl_upstream_config *config;
};

struct sl_worker {
    const struct sl_stage *stage;
    struct sl_loop *loop;
    struct sl_metrics *metrics;
    struct sl_options *options;
    void *state;
    struct sl_upstream_call *calls[FAKE_CALLS_MAX];
    size_t call_count;
    struct fake_search *searches[FAKE_CALLS_MAX];
    size_t search_count;
    size_t store_count;
    struct sl_store stores[4];
    struct sl_job *gathered; /* Has something to send at the end of the turn. */
};

static struct sl_worker *the_worker; /* Upstreams and stores are created without one. */

/* --- worker --- */

struct sl_worker *fake_worker_create(const struct sl_stage *stage)
{
    char name[] = "test", why[256] = "";
    char *argv[] = {name, NULL};
    struct sl_worker *worker = calloc(1, sizeof(*worker));
    CHECK(worker != NULL);
    worker->stage = stage;
    the_worker = worker;
    CHECK(sl_loop_create(&worker->loop) == 0 && sl_metrics_create(100, &worker->metrics) == 0);
    CHECK(sl_options_load("test", "", stage->option_sets, stage->option_set_count, 1, argv, stdout,
                          stderr, &worker->options) == SL_OPTIONS_RUN);
    CHECK(stage->init(worker, &worker->state, why, sizeof(why)) == 0);
    return worker;
}

void fake_forget_calls(struct sl_worker *worker)
{
    for (size_t i = 0; i < worker->call_count; i++) {
        CHECK(!worker->calls[i]->open); /* A call that nobody closed is a leaked connection. */
        sl_buf_fini(&worker->calls[i]->body);
        free(worker->calls[i]);
    }
    for (size_t i = 0; i < worker->search_count; i++) {
        CHECK(!worker->searches[i]->open);
        free(worker->searches[i]);
    }
    worker->call_count = worker->search_count = 0;
}

void fake_worker_destroy(struct sl_worker *worker)
{
    worker->stage->fini(worker->state);
    fake_redis_close();
    fake_forget_calls(worker);
    sl_loop_destroy(worker->loop);
    sl_metrics_destroy(worker->metrics);
    sl_options_fini(worker->options);
    free(worker);
}

struct sl_loop *fake_loop(struct sl_worker *worker)
{
    return worker->loop;
}

void fake_settle_loop(struct sl_worker *worker)
{
    for (int i = 0; i < 5; i++) {
        sl_loop_turn(worker->loop, 0);
    }
}

void *sl_worker_stage(struct sl_worker *worker)
{
    return worker->state;
}

struct sl_loop *sl_worker_loop(struct sl_worker *worker)
{
    return worker->loop;
}

struct sl_metrics *sl_worker_metrics(struct sl_worker *worker)
{
    return worker->metrics;
}

struct sl_coord *sl_worker_coord(struct sl_worker *worker)
{
    (void)worker;
    return NULL;
}

struct sl_http_client *sl_worker_http(struct sl_worker *worker)
{
    (void)worker;
    return NULL;
}

struct sl_condition *sl_worker_condition(struct sl_worker *worker, const char *name)
{
    (void)worker;
    (void)name;
    return NULL;
}

int64_t sl_coord_now_ms(const struct sl_coord *coord)
{
    (void)coord;
    return sl_clock_unix_ms();
}

/* --- jobs --- */

static struct sl_job *new_job(struct sl_worker *worker)
{
    struct sl_job *job = calloc(1, sizeof(*job));
    CHECK(job != NULL);
    job->worker = worker;
    sl_arena_init(&job->arena, ARENA_MAX);
    sl_buf_init(&job->sent, ARENA_MAX);
    job->state = calloc(1, worker->stage->state_size);
    CHECK(job->state != NULL);
    job->deadline_ms = sl_clock_unix_ms() + 60000;
    snprintf(job->id, sizeof(job->id), "job");
    return job;
}

struct sl_job *fake_job_create(struct sl_worker *worker, const char *question)
{
    struct sl_job *job = new_job(worker);
    job->query = (struct sl_query){.query = sl_span_of(question),
                                   .collection = SL_SPAN("default"),
                                   .tenant = SL_SPAN("default"),
                                   .id = sl_span_of(job->id),
                                   .top_n = 5,
                                   .timeout_ms = 60000,
                                   .max_tokens = 512,
                                   .accepted_ms = sl_clock_unix_ms(),
                                   .deadline_ms = job->deadline_ms,
                                   .reply_topic = SL_SPAN("sluice.replies")};
    return job;
}

struct sl_job *fake_bulk_create(struct sl_worker *worker, const struct sl_batch *batch)
{
    struct sl_job *job = new_job(worker);
    job->bulk = true;
    job->batch = *batch;
    return job;
}

void fake_prepare(struct sl_job *job)
{
    job->worker->stage->prepare(job);
}

struct sl_job *fake_result_create(struct sl_worker *worker, const struct sl_ended *ended)
{
    struct sl_job *job = new_job(worker);
    job->bulk = true;
    job->ended = *ended;
    return job;
}

void fake_start(struct sl_job *job)
{
    job->worker->stage->start(job);
}

void fake_cancel(struct sl_job *job)
{
    CHECK(job->settled == FAKE_OPEN);
    job->worker->stage->cancel(job);
    CHECK(job->settled == FAKE_OPEN); /* cancel must not settle. */
}

void fake_job_destroy(struct sl_job *job)
{
    sl_arena_fini(&job->arena);
    sl_buf_fini(&job->sent);
    free(job->state);
    free(job);
}

struct sl_query *sl_job_query(struct sl_job *job)
{
    return job->bulk ? NULL : &job->query;
}

struct sl_batch *sl_job_batch(struct sl_job *job)
{
    return &job->batch;
}

const struct sl_ended *sl_job_result(struct sl_job *job)
{
    return &job->ended;
}

int64_t sl_job_timestamp_ms(const struct sl_job *job)
{
    (void)job;
    return 1700000000123;
}

struct sl_worker *sl_job_worker(struct sl_job *job)
{
    return job->worker;
}

void *sl_job_state(struct sl_job *job)
{
    return job->state;
}

struct sl_arena *sl_job_arena(struct sl_job *job)
{
    return &job->arena;
}

struct sl_span sl_job_id(const struct sl_job *job)
{
    return sl_span_of(job->id);
}

uint32_t sl_job_attempt(const struct sl_job *job)
{
    (void)job;
    return 1;
}

bool sl_job_bulk(const struct sl_job *job)
{
    return job->bulk;
}

int64_t sl_job_deadline_ms(const struct sl_job *job)
{
    return job->deadline_ms;
}

int64_t sl_job_remaining_ms(const struct sl_job *job)
{
    return job->deadline_ms - sl_clock_unix_ms();
}

struct sl_permit *sl_job_permit(struct sl_job *job, size_t i)
{
    CHECK(i < job->worker->stage->admission_permits);
    return &job->permits[i];
}

void sl_job_count_attempts(struct sl_job *job, uint32_t calls)
{
    job->attempts += calls;
}

static void copy_text(char *to, size_t size, struct sl_span text)
{
    text.len = text.len < size ? text.len : size - 1;
    if (text.len > 0) {
        memcpy(to, text.data, text.len);
    }
    to[text.len] = '\0';
}

int sl_job_stream(struct sl_job *job, void (*ready)(struct sl_job *job))
{
    CHECK(job->settled == FAKE_OPEN && job->on_streaming == NULL);
    job->on_streaming = ready;
    return 0;
}

int sl_job_emit(struct sl_job *job, struct sl_event *event)
{
    CHECK(job->settled == FAKE_OPEN);
    if (job->emit_err != 0) {
        return job->emit_err;
    }
    CHECK(job->event_count < FAKE_EVENTS_MAX);
    struct fake_event *seen = &job->events[job->event_count++];
    seen->type = event->type;
    copy_text(seen->text, sizeof(seen->text), event->text);
    seen->hits = event->query != NULL ? event->query->hits_len : 0;
    return 0;
}

void sl_job_on_room(struct sl_job *job, void (*on_room)(struct sl_job *job))
{
    job->on_room = on_room;
}

void sl_job_on_flush(struct sl_job *job, void (*flush)(struct sl_job *job))
{
    job->on_room = flush;
    the_worker->gathered = job;
}

/* At the end of each turn. */
static void flush(void)
{
    struct sl_job *job = the_worker->gathered;
    the_worker->gathered = NULL;
    if (job != NULL && job->settled == FAKE_OPEN && job->on_room != NULL) {
        job->on_room(job);
    }
}

int sl_job_send(struct sl_job *job, const char *topic, struct sl_span key, struct sl_span value)
{
    (void)key;
    if (job->emit_err != 0 || (job->send_max > 0 && value.len > job->send_max)) {
        return job->emit_err != 0 ? job->emit_err : -SL_ETOOBIG;
    }
    snprintf(job->topic, sizeof(job->topic), "%s", topic);
    sl_buf_clear(&job->sent);
    sl_buf_append_span(&job->sent, value);
    return 0;
}

int sl_job_send_json(struct sl_job *job, const char *topic, struct sl_span key,
                     struct sl_span value)
{
    return sl_job_send(job, topic, key, value);
}

static void settle(struct sl_job *job, enum fake_settled how)
{
    CHECK(job->settled == FAKE_OPEN); /* Exactly once. */
    job->settled = how;
}

void sl_job_forward(struct sl_job *job, const char *topic)
{
    settle(job, FAKE_FORWARDED);
    snprintf(job->topic, sizeof(job->topic), "%s", topic);
}

void sl_job_done(struct sl_job *job)
{
    settle(job, FAKE_DONE);
}

void sl_job_finish(struct sl_job *job, const struct sl_result *result)
{
    settle(job, FAKE_FINISHED);
    job->result = *result;
    copy_text(job->answer, sizeof(job->answer), result->answer);
}

void sl_job_fail(struct sl_job *job, enum sl_query_error code, const char *message)
{
    settle(job, FAKE_FAILED);
    job->code = code;
    snprintf(job->message, sizeof(job->message), "%s", message);
}

void sl_job_partial(struct sl_job *job, const struct sl_result *partial)
{
    job->partial = *partial;
    copy_text(job->partial_answer, sizeof(job->partial_answer), partial->answer);
}

/* --- upstreams --- */

const char *const sl_upstream_schemes[] = {"http", "https", NULL};

int sl_upstream_create(struct sl_loop *loop, struct sl_http_client *http, struct sl_coord *coord,
                       struct sl_metrics *metrics, const char *name,
                       const struct sl_upstream_config *config, struct sl_upstream **ret)
{
    struct sl_upstream *upstream = calloc(1, sizeof(*upstream));
    (void)loop;
    (void)http;
    (void)coord;
    (void)metrics;
    (void)name;
    CHECK(upstream != NULL);
    *upstream = (struct sl_upstream){the_worker, config};
    *ret = upstream;
    return 0;
}

void sl_upstream_destroy(struct sl_upstream *upstream)
{
    free(upstream);
}

int sl_upstream_start(struct sl_upstream *upstream, const struct sl_upstream_request *request,
                      struct sl_upstream_call **ret)
{
    struct sl_worker *worker = upstream->worker;
    struct sl_upstream_call *call = calloc(1, sizeof(*call));
    CHECK(call != NULL && worker->call_count < FAKE_CALLS_MAX);
    call->open = true;
    call->request = *request;
    snprintf(call->path, sizeof(call->path), "%s", request->path);
    sl_buf_init(&call->body, ARENA_MAX);
    sl_buf_append_span(&call->body, request->body);
    sl_buf_append(&call->body, "", 1);
    worker->calls[worker->call_count++] = call;
    *ret = call;
    return 0;
}

void sl_upstream_commit(struct sl_upstream_call *call)
{
    call->committed = true;
}

void sl_upstream_pause(struct sl_upstream_call *call, bool paused)
{
    call->paused = paused;
}

void sl_upstream_cancel(struct sl_upstream_call *call)
{
    CHECK(call->open);
    call->open = false;
    call->cancelled = true;
}

size_t fake_call_count(const struct sl_worker *worker)
{
    return worker->call_count;
}

struct sl_upstream_call *fake_call(struct sl_worker *worker, size_t i)
{
    CHECK(i < worker->call_count);
    return worker->calls[i];
}

int fake_call_data(struct sl_upstream_call *call, const char *bytes)
{
    CHECK(call->open);
    int rv = call->request.callbacks->on_data(call->request.ctx, sl_span_of(bytes));
    flush();
    return rv;
}

void fake_call_retry(struct sl_upstream_call *call)
{
    CHECK(call->open && !call->committed);
    if (call->request.callbacks->on_retry != NULL) {
        call->request.callbacks->on_retry(call->request.ctx);
    }
}

void fake_call_end(struct sl_upstream_call *call, int err, int status, const char *body)
{
    CHECK(call->open);
    call->open = false;
    call->request.callbacks->on_end(call->request.ctx, err, status, sl_span_of(body),
                                    err != 0 ? "the upstream failed" : "", 1);
}

/* --- stores --- */

int sl_store_open(const char *url, const struct sl_store_env *env, struct sl_store **ret, char *why,
                  size_t why_size)
{
    (void)url;
    (void)env;
    (void)why;
    (void)why_size;
    *ret = &the_worker->stores[the_worker->store_count++];
    return 0;
}

void sl_store_close(struct sl_store *store)
{
    (void)store;
}

int sl_store_search(struct sl_store *store, const struct sl_store_search *search,
                    sl_store_hits_cb *cb, void *ctx, struct sl_store_call **ret)
{
    struct fake_search *made = calloc(1, sizeof(*made));
    CHECK(made != NULL && the_worker->search_count < FAKE_CALLS_MAX);
    made->base.store = store;
    made->open = true;
    made->vector = search->vector != NULL;
    made->search = *search;
    made->cb = cb;
    made->ctx = ctx;
    the_worker->searches[the_worker->search_count++] = made;
    *ret = &made->base;
    return 0;
}

void sl_store_cancel(struct sl_store_call *call)
{
    struct fake_search *search = (struct fake_search *)(void *)call;
    CHECK(search->open);
    search->open = false;
    search->cancelled = true;
}

size_t fake_search_count(const struct sl_worker *worker)
{
    return worker->search_count;
}

struct fake_search *fake_search(struct sl_worker *worker, size_t i)
{
    CHECK(i < worker->search_count);
    return worker->searches[i];
}

void fake_search_end(struct fake_search *search, int err, const char *const *names, size_t count)
{
    struct sl_hit *hits = sl_arena_alloc(search->search.arena, (count + 1) * sizeof(*hits));
    CHECK(search->open && hits != NULL);
    search->open = false;
    for (size_t i = 0; i < count; i++) {
        const char *at = strchr(names[i], '@');
        size_t len = at != NULL ? (size_t)(at - names[i]) : strlen(names[i]);
        hits[i].chunk_id = hits[i].doc_id = hits[i].text = (struct sl_span){names[i], len};
        hits[i].version = at != NULL ? atoll(at + 1) : 0;
        hits[i].score = 1.0 - (double)i / 100;
    }
    search->cb(search->ctx, err, hits, count, err != 0 ? "the store failed" : "");
}
