/*
 * A runtime for stage tests: one worker, its jobs, upstream calls and searches, all in the test's
 * hand. Texts that are kept for tests to look at are cut to the room that they have here. A test
 * makes a job, starts it, answers the calls that the stage makes, and looks at how the stage
 * settled the job. It replaces job.c, worker.c, upstream.c, store.c and coord.c at link time.
 */
#ifndef TESTS_SUPPORT_FAKE_RUNTIME_H
#define TESTS_SUPPORT_FAKE_RUNTIME_H

#include "common/job.h"
#include "common/store.h"
#include "common/upstream.h"

enum fake_settled { FAKE_OPEN, FAKE_FORWARDED, FAKE_DONE, FAKE_FINISHED, FAKE_FAILED };

enum { FAKE_EVENTS_MAX = 64, FAKE_CALLS_MAX = 512, FAKE_TEXT_MAX = 4096 };

struct fake_event {
    enum sl_event_type type;
    char text[256];
    size_t hits;
};

struct sl_job {
    struct sl_worker *worker;
    struct sl_arena arena;
    struct sl_query query;
    struct sl_batch batch;
    struct sl_ended ended;
    bool bulk;
    char id[40];
    struct sl_permit permits[SL_ADMIT_PERMITS];
    void *state;
    int64_t deadline_ms;
    uint32_t attempts;
    /* What the stage did. */
    enum fake_settled settled;
    char topic[64]; /* Forwarded or sent to. */
    struct fake_event events[FAKE_EVENTS_MAX];
    size_t event_count;
    int emit_err;    /* Answered to emits and sends while not 0. */
    size_t send_max; /* Bytes of what is sent; 0: any. */
    void (*on_room)(struct sl_job *job);
    void (*on_streaming)(struct sl_job *job); /* The test calls it when the claim is to say so. */
    struct sl_result result;                  /* Finished. */
    char answer[FAKE_TEXT_MAX];
    enum sl_query_error code;
    char message[512];
    struct sl_result partial;
    char partial_answer[FAKE_TEXT_MAX];
    struct sl_buf sent; /* The value of the last send. */
};

/* One call to an upstream that the stage made and that is open until answered or cancelled. */
struct sl_upstream_call {
    bool open, committed, paused, cancelled;
    char path[64];
    struct sl_buf body; /* Terminated. */
    struct sl_upstream_request request;
};

struct fake_search {
    struct sl_store_call base;
    bool open, cancelled, vector;
    struct sl_store_search search;
    sl_store_hits_cb *cb;
    void *ctx;
};

/* The worker of this test: init has run. environment: option values come from setenv before. */
struct sl_worker *fake_worker_create(const struct sl_stage *stage);
void fake_worker_destroy(struct sl_worker *worker);
/* Frees the calls and searches so far, all of which have ended. */
void fake_forget_calls(struct sl_worker *worker);
struct sl_loop *fake_loop(struct sl_worker *worker);
/* Turns the loop until nothing is pending, without waiting. */
void fake_settle_loop(struct sl_worker *worker);

/* A job with a question; the caller may change job->query before fake_start. */
struct sl_job *fake_job_create(struct sl_worker *worker, const char *question);
struct sl_job *fake_bulk_create(struct sl_worker *worker, const struct sl_batch *batch);
void fake_prepare(struct sl_job *job); /* Of a stage that prepares; before the start. */
struct sl_job *fake_result_create(struct sl_worker *worker, const struct sl_ended *ended);
void fake_start(struct sl_job *job);
void fake_cancel(struct sl_job *job);
void fake_job_destroy(struct sl_job *job);

/* Upstream calls in the order in which they were made. */
size_t fake_call_count(const struct sl_worker *worker);
struct sl_upstream_call *fake_call(struct sl_worker *worker, size_t i);
/* Stream bytes to the stage; what its on_data returned. */
int fake_call_data(struct sl_upstream_call *call, const char *bytes);
void fake_call_retry(struct sl_upstream_call *call);
/* The end: err as in upstream.h. The call is closed. */
void fake_call_end(struct sl_upstream_call *call, int err, int status, const char *body);

size_t fake_search_count(const struct sl_worker *worker);
struct fake_search *fake_search(struct sl_worker *worker, size_t i);
/* Answers with count hits whose chunk ids are the names, best first; err not 0: fails. A name may
 * end in @ and the hit's version. */
void fake_search_end(struct fake_search *search, int err, const char *const *names, size_t count);

#endif
