/* Calls to an upstream: what is tried again, within which limits, and where the permit is. */
#include "common/upstream.h"

#include "common/clock.h"
#include "tests/support/runtime/fake_coord.h"
#include "tests/support/runtime/fake_http.h"
#include "tests/support/test.h"

enum { DEADLINE_MS = 20000, TURNS = 4 };

static uint64_t now_us;
static struct sl_loop *loop;
static struct sl_metrics *metrics;
static struct sl_coord *coord;
static struct sl_http_client *http;
static struct sl_upstream *upstream;
static struct sl_upstream_config config;
static struct sl_upstream_call *call;
static struct sl_permit *jobs_permit; /* NULL: the call has its own. */
static bool as_lease;                 /* It becomes the call's own. */

static size_t ends, retries;
static int end_err, end_status, data_rv;
static uint32_t end_attempts;
static char end_body[256], end_detail[400], data_seen[256];
static bool inside_start;

/* --- the caller --- */

static int on_data(void *ctx, struct sl_span bytes)
{
    (void)ctx;
    size_t have = strlen(data_seen);
    snprintf(data_seen + have, sizeof(data_seen) - have, SL_SPAN_FMT, SL_SPAN_ARG(bytes));
    return data_rv;
}

static void on_retry(void *ctx)
{
    (void)ctx;
    retries++;
}

/* A job that ends with its call: its permit's memory is gone when this returns. */
static void on_end(void *ctx, int err, int status, struct sl_span body, const char *detail,
                   uint32_t attempts)
{
    CHECK(ctx == &config && !inside_start);
    CHECK_INT(fake_permits_held() + fake_permits_waiting(), 0);
    ends++;
    end_err = err;
    end_status = status;
    end_attempts = attempts;
    snprintf(end_body, sizeof(end_body), SL_SPAN_FMT, SL_SPAN_ARG(body));
    snprintf(end_detail, sizeof(end_detail), "%s", detail);
    call = NULL;
    free(jobs_permit);
    jobs_permit = NULL;
}

static const struct sl_upstream_callbacks collecting = {.on_retry = on_retry, .on_end = on_end};
static const struct sl_upstream_callbacks streaming = {
    .on_data = on_data, .on_retry = on_retry, .on_end = on_end};

/* --- the frame --- */

static void turn(void)
{
    for (int i = 0; i < TURNS; i++) {
        sl_loop_turn(loop, 0);
    }
}

static void sleep_ms(uint64_t ms)
{
    now_us += ms * 1000;
    turn();
}

static int64_t redis_now(void)
{
    return sl_coord_now_ms(coord);
}

static void setup(void)
{
    static const struct sl_limit limits[] = {{.name = "OTHER", .limit = 1},
                                             {.name = "CHAT", .limit = 10}};
    const struct sl_coord_config coord_config = {.limits = limits, .limit_count = 2};
    char why[100];
    now_us = 5000000;
    sl_clock_use(&now_us);
    config = (struct sl_upstream_config){.url = "http://up/v1",
                                         .model = "m",
                                         .api_key = "key",
                                         .connect_timeout_ms = 1000,
                                         .first_byte_timeout_ms = 5000,
                                         .idle_timeout_ms = 3000,
                                         .timeout_ms = 15000,
                                         .attempts = 3};
    ends = retries = 0;
    data_rv = 0;
    data_seen[0] = '\0';
    CHECK(sl_loop_create(&loop) == 0 && sl_metrics_create(100, &metrics) == 0);
    CHECK(sl_coord_create(loop, &coord_config, &coord, why, sizeof(why)) == 0);
    const struct sl_http_client_config http_config = {.http2 = false};
    CHECK(sl_http_client_create(loop, &http_config, &http) == 0);
    CHECK(sl_upstream_create(loop, http, coord, metrics, "CHAT", &config, &upstream) == 0);
}

static void teardown(void)
{
    CHECK(call == NULL && fake_permits_held() + fake_permits_waiting() == 0);
    free(jobs_permit);
    jobs_permit = NULL;
    sl_upstream_destroy(upstream);
    sl_http_client_destroy(http);
    sl_coord_destroy(coord);
    sl_metrics_destroy(metrics);
    sl_loop_destroy(loop);
    sl_clock_use(NULL);
}

static uint32_t own_timeout_ms;

static void begin_until(const struct sl_upstream_callbacks *callbacks, int64_t deadline_ms)
{
    const struct sl_upstream_request request = {.method = "POST",
                                                .path = "/embeddings",
                                                .body = SL_SPAN("{}"),
                                                .max_response = 1000,
                                                .timeout_ms = own_timeout_ms,
                                                .deadline_ms = deadline_ms,
                                                .permit = as_lease ? NULL : jobs_permit,
                                                .lease = as_lease ? jobs_permit : NULL,
                                                .callbacks = callbacks,
                                                .ctx = &config};
    inside_start = true;
    CHECK(sl_upstream_start(upstream, &request, &call) == 0);
    inside_start = false;
}

static void begin(const struct sl_upstream_callbacks *callbacks)
{
    begin_until(callbacks, redis_now() + (own_timeout_ms > 0 ? 200000 : DEADLINE_MS));
}

static void on_unused_permit_lost(struct sl_permit *permit)
{
    (void)permit;
    CHECK(false && "the call has it");
}

static void on_verdict(struct sl_admission *admission, enum sl_verdict verdict)
{
    (void)admission;
    (void)verdict;
}

static void on_permit_lost_early(struct sl_permit *permit)
{
    CHECK(permit->state == SL_PERMIT_NONE);
}

/* A permit as it comes with a job's admission, held or not. */
static void give_jobs_permit(bool held)
{
    jobs_permit = calloc(1, sizeof(*jobs_permit));
    CHECK(jobs_permit != NULL);
    sl_permit_init(jobs_permit, 1, false, NULL, on_unused_permit_lost);
    struct sl_admission admission = {
        .id = SL_SPAN("q"), .permits = {jobs_permit}, .on_verdict = on_verdict};
    sl_admit(coord, &admission);
    fake_verdict(&admission, SL_VERDICT_GRANTED, 1, held ? 1 : 0, SL_SPAN(""));
    sl_admit_withdraw(coord, &admission);
}

static void grant(void)
{
    CHECK_INT(fake_permits_waiting(), 1);
    fake_permit_grant(fake_permit_waiting(0));
}

static void end(int err, int status, bool connected)
{
    const struct fake_http_end how = {
        .err = err, .status = status, .connected = connected, .body = "body"};
    fake_http_end(&how);
    turn();
}

/* --- the happy paths --- */

TEST(a_call_waits_for_its_permit_and_gives_it_back_before_it_tells)
{
    setup();
    begin(&collecting);
    turn();
    CHECK_INT(fake_http_started(), 0);
    grant();
    const struct sl_http_request *request = fake_http_request();
    CHECK_STR(request->url, "http://up/v1/embeddings");
    CHECK(request->header_count == 3 && sl_span_is(request->headers[2].value, "Bearer key"));
    CHECK_INT(request->connect_timeout_ms, 1000);
    CHECK_INT(request->total_timeout_ms, 15000);
    CHECK_INT(fake_permits_held(), 1);
    end(0, 200, true);
    CHECK(ends == 1 && end_err == 0 && end_status == 200 && end_attempts == 1);
    CHECK_STR(end_body, "body");
    CHECK_STR(end_detail, "");
    CHECK_INT(fake_permits_released(), 1);
    teardown();
}

TEST(a_stream_passes_on_only_the_body_of_a_success)
{
    setup();
    config.attempts = 1;
    begin(&streaming);
    grant();
    fake_http_head(200);
    CHECK_INT(fake_http_data("token"), 0);
    end(0, 200, true);
    CHECK_STR(data_seen, "token");
    begin(&streaming);
    grant();
    fake_http_head(503);
    CHECK_INT(fake_http_data("{\"error\""), 0);
    end(0, 503, true);
    CHECK_STR(data_seen, "token");
    CHECK(end_err == -SL_EUPSTREAM && end_status == 503);
    CHECK(strstr(end_detail, "503") != NULL && strstr(end_detail, "{\"error\"") != NULL);
    teardown();
}

/* --- what is tried again --- */

TEST(only_what_can_succeed_is_tried_again)
{
    static const struct {
        int err, status;
        bool connected, again;
        int end_err;
    } cases[] = {
        {-SL_ECONN, 0, false, true, -SL_ECONN},
        {-SL_ECONN, 0, true, true, -SL_ECONN},
        {-SL_ETIMEDOUT, 0, false, true, -SL_ETIMEDOUT},
        {-SL_ETIMEDOUT, 0, true, false, -SL_ETIMEDOUT}, /* It may be at work on it. */
        {-SL_ETIMEDOUT, 200, true, false, -SL_ETIMEDOUT},
        {-SL_ECUT, 200, true, true, -SL_ECUT},
        {-SL_EPROTO, 200, true, true, -SL_EPROTO},
        {-SL_ETOOBIG, 200, true, false, -SL_ETOOBIG},
        {-SL_ENOMEM, 0, false, false, -SL_ENOMEM},
        {0, 408, true, true, -SL_EUPSTREAM},
        {0, 429, true, true, -SL_ERATE},
        {0, 500, true, true, -SL_EUPSTREAM},
        {0, 503, true, true, -SL_EUPSTREAM},
        {0, 302, true, false, -SL_EREJECTED},
        {0, 400, true, false, -SL_EREJECTED},
        {0, 401, true, false, -SL_EREJECTED},
        {0, 404, true, false, -SL_EREJECTED},
        {0, 422, true, false, -SL_EREJECTED},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        for (int committed = 0; committed < 2; committed++) {
            setup();
            begin(&streaming);
            grant();
            if (committed != 0) {
                sl_upstream_commit(call);
            }
            bool again = cases[i].again && committed == 0;
            end(cases[i].err, cases[i].status, cases[i].connected);
            CHECK_INT(fake_permits_held(), 0);
            CHECK_INT(ends, again ? 0 : 1);
            CHECK_INT(retries, again ? 1 : 0);
            if (again) {
                sleep_ms(200);
                grant();
                end(0, 200, true);
                CHECK(ends == 1 && end_err == 0 && end_attempts == 2);
            } else {
                CHECK_INT(end_err, cases[i].end_err);
            }
            teardown();
        }
    }
}

TEST(attempts_are_counted_and_the_last_error_is_told)
{
    setup();
    begin(&collecting);
    for (int i = 0; i < 3; i++) {
        CHECK_INT(ends, 0);
        sleep_ms(1000);
        grant();
        end(0, i < 2 ? 500 : 503, true);
    }
    CHECK(ends == 1 && end_attempts == 3 && end_status == 503 && retries == 2);
    CHECK_STR(end_body, "body");
    teardown();
}

TEST(retries_are_a_tenth_of_the_calls_after_the_first_ten)
{
    setup();
    size_t tried_again = 0;
    for (int i = 0; i < 100; i++) {
        begin(&collecting);
        grant();
        end(-SL_ECONN, 0, false);
        if (ends == 0) {
            tried_again++;
            sl_upstream_cancel(call);
            call = NULL;
        }
        ends = 0;
    }
    CHECK(tried_again >= 19 && tried_again <= 20);
    teardown();
}

TEST(no_retry_is_begun_that_the_deadline_comes_before)
{
    setup();
    begin_until(&collecting, redis_now() + 40); /* Backoff is 50 ms at least. */
    grant();
    end(-SL_ECONN, 0, false);
    CHECK(ends == 1 && end_err == -SL_ECONN);
    teardown();
}

/* --- Retry-After --- */

TEST(retry_after_holds_up_all_workers)
{
    static const struct {
        int status;
        long after_ms;
        uint32_t cool_ms; /* 0: none. */
    } cases[] = {{429, 3000, 3000}, {503, 2000, 2000},        {500, 2000, 0},
                 {429, 0, 0},       {429, 86400000L, 600000}, {400, 1000, 0}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        setup();
        begin(&collecting);
        grant();
        const struct fake_http_end how = {
            .status = cases[i].status, .retry_after_ms = cases[i].after_ms, .connected = true};
        fake_http_end(&how);
        turn();
        CHECK_INT(fake_op_count(FAKE_COOL_DOWN), cases[i].cool_ms > 0 ? 1 : 0);
        if (cases[i].cool_ms > 0) {
            CHECK_INT(fake_op(FAKE_COOL_DOWN, 0)->ms, cases[i].cool_ms);
        }
        if (cases[i].cool_ms > DEADLINE_MS) { /* Nobody waits for that. */
            CHECK(ends == 1 && end_err == -SL_ERATE);
        } else if (cases[i].cool_ms > 0) {
            sleep_ms(cases[i].cool_ms + 10);
            CHECK_INT(fake_permits_waiting(), 0); /* Others go first. */
            sleep_ms(200);
            grant();
            end(0, 200, true);
            CHECK_INT(end_err, 0);
        }
        if (ends == 0) {
            sl_upstream_cancel(call);
            call = NULL;
        }
        teardown();
    }
}

TEST(a_probe_tells_that_it_succeeded_as_soon_as_that_is_known)
{
    setup();
    begin(&streaming);
    grant();
    fake_permit_held(0)->probe = true;
    fake_http_head(429);
    CHECK_INT(fake_written(FAKE_HEAL), 0);
    end(0, 429, true);
    sleep_ms(1000);
    grant();
    fake_permit_held(0)->probe = true;
    fake_http_head(200); /* The stream goes on for long; nobody else waits for its end. */
    CHECK_INT(fake_written(FAKE_HEAL), 1);
    end(0, 200, true);
    CHECK_INT(end_err, 0);
    begin(&collecting);
    grant();
    fake_http_head(200);
    end(0, 200, true);
    CHECK_INT(fake_written(FAKE_HEAL), 1); /* No reason to. */
    teardown();
}

TEST(a_probe_that_is_refused_for_itself_opens_the_limit_to_others)
{
    static const struct {
        int status;
        bool heals;
    } cases[] = {{200, true},  {400, true},  {401, true},  {404, true},
                 {408, false}, {429, false}, {500, false}, {503, false}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        setup();
        begin(&collecting);
        grant();
        fake_permit_held(0)->probe = true;
        fake_http_head(cases[i].status);
        CHECK_INT(fake_written(FAKE_HEAL), cases[i].heals ? 1 : 0);
        sl_upstream_cancel(call);
        call = NULL;
        teardown();
    }
}

/* --- the deadline --- */

TEST(a_request_may_be_more_patient_than_others)
{
    setup();
    own_timeout_ms = 120000;
    begin(&collecting);
    own_timeout_ms = 0;
    grant();
    const struct sl_http_request *request = fake_http_request();
    CHECK_INT(request->connect_timeout_ms, 1000);
    CHECK_INT(request->first_byte_timeout_ms, 120000);
    CHECK_INT(request->idle_timeout_ms, 120000);
    CHECK_INT(request->total_timeout_ms, 120000);
    end(0, 200, true);
    teardown();
}

TEST(time_outs_end_at_the_deadline)
{
    setup();
    begin_until(&collecting, redis_now() + 700);
    grant();
    const struct sl_http_request *request = fake_http_request();
    CHECK_INT(request->connect_timeout_ms, 700);
    CHECK_INT(request->first_byte_timeout_ms, 700);
    CHECK_INT(request->total_timeout_ms, 700);
    sleep_ms(699); /* A timer may be a little early. */
    end(-SL_ETIMEDOUT, 0, true);
    CHECK_INT(end_err, -SL_EEXPIRED);
    begin_until(&collecting, redis_now() + DEADLINE_MS);
    grant();
    sleep_ms(5000);
    end(-SL_ETIMEDOUT, 0, true); /* Its own time-out, not the deadline. */
    CHECK_INT(end_err, -SL_ETIMEDOUT);
    teardown();
}

TEST(a_deadline_that_passed_costs_no_call)
{
    setup();
    begin_until(&collecting, redis_now() + 100);
    sleep_ms(200);
    grant(); /* Too late. */
    turn();
    sleep_ms(2);
    CHECK(ends == 1 && end_err == -SL_EEXPIRED && end_attempts == 0 && fake_http_started() == 0);
    begin_until(&collecting, redis_now() + 100);
    fake_permit_expire(fake_permit_waiting(0));
    sleep_ms(2);
    CHECK(ends == 2 && end_err == -SL_EEXPIRED);
    teardown();
}

/* --- the permit --- */

TEST(a_permit_that_came_with_the_job_is_taken_up_at_once)
{
    for (int held = 0; held < 2; held++) {
        setup();
        give_jobs_permit(held != 0);
        begin(&collecting);
        CHECK_INT(fake_permits_waiting(), held != 0 ? 0 : 1);
        if (held == 0) {
            grant();
        }
        CHECK_INT(fake_http_started(), 1);
        end(0, 200, true);
        CHECK(ends == 1 && jobs_permit == NULL); /* Gone with its job, and looked at no more. */
        teardown();
    }
}

TEST(a_lease_that_a_call_takes_over_outlives_who_had_it)
{
    setup();
    give_jobs_permit(true);
    as_lease = true;
    begin(&collecting);
    as_lease = false;
    CHECK_INT(jobs_permit->state, SL_PERMIT_NONE);
    free(jobs_permit);
    jobs_permit = NULL;
    CHECK(fake_permits_waiting() == 0 && fake_permits_held() == 1);
    end(0, 200, true);
    CHECK(ends == 1 && end_err == 0);
    CHECK_INT(fake_permits_released(), 1);
    teardown();
}

TEST(a_permit_lost_on_its_way_to_the_call_is_asked_for_again)
{
    setup();
    give_jobs_permit(true);
    jobs_permit->on_lost = on_permit_lost_early;
    fake_permit_lose(jobs_permit);
    begin(&collecting);
    grant();
    end(0, 200, true);
    CHECK_INT(ends, 1);
    teardown();
}

TEST(a_lost_lease_closes_the_connection_and_asks_anew)
{
    setup();
    begin(&streaming);
    grant();
    fake_permit_lose(fake_permit_held(0));
    CHECK(fake_http_cancelled() == 1 && ends == 0);
    sleep_ms(200);
    grant();
    sl_upstream_commit(call);
    fake_permit_lose(fake_permit_held(0));
    CHECK_INT(ends, 0); /* Not inside the coordination's callback. */
    sleep_ms(2);
    CHECK(ends == 1 && end_err == -SL_ELOST && fake_http_cancelled() == 2);
    CHECK(strstr(end_detail, "lease") != NULL);
    teardown();
}

/* --- ends that come at odd moments --- */

TEST(a_call_that_cannot_be_started_ends_later)
{
    setup();
    fake_http_refuse(-SL_ENOMEM);
    begin(&collecting);
    grant();
    CHECK_INT(ends, 0);
    fake_permit_lose(fake_permit_held(0)); /* While its end is on the way. */
    sleep_ms(2);
    CHECK(ends == 1 && end_err == -SL_ENOMEM && end_attempts == 0);
    teardown();
}

TEST(a_cancelled_call_tells_nothing_and_keeps_nothing)
{
    for (int moment = 0; moment < 6; moment++) {
        setup();
        begin(&streaming);
        if (moment > 0) {
            fake_http_refuse(moment == 5 ? -SL_EINVAL : 0);
            grant();
        }
        if (moment == 2) {
            fake_http_head(200);
            CHECK_INT(fake_http_data("token"), 0);
        } else if (moment == 3) {
            end(-SL_ECONN, 0, false); /* Now it backs off. */
        } else if (moment == 4) {
            sl_upstream_commit(call);
            fake_permit_lose(fake_permit_held(0)); /* Its end is on the way. */
        }
        sl_upstream_cancel(call);
        call = NULL;
        CHECK_INT(fake_permits_held() + fake_permits_waiting(), 0);
        CHECK(fake_http_call() == NULL);
        sleep_ms(5000);
        CHECK_INT(ends, 0);
        teardown();
    }
}

TEST(a_caller_that_refuses_the_body_ends_the_call)
{
    setup();
    begin(&streaming);
    grant();
    fake_http_head(200);
    data_rv = -SL_ETOOBIG;
    CHECK_INT(fake_http_data("token"), -SL_ETOOBIG);
    end(-SL_ETOOBIG, 200, true);
    CHECK(ends == 1 && end_err == -SL_ETOOBIG);
    teardown();
}

TEST(a_paused_call_is_read_no_further)
{
    setup();
    begin(&streaming);
    sl_upstream_pause(call, true); /* Nothing to pause yet. */
    grant();
    sl_upstream_pause(call, true);
    CHECK(fake_http_paused());
    sl_upstream_pause(call, false);
    CHECK(!fake_http_paused());
    sl_upstream_cancel(call);
    call = NULL;
    teardown();
}

#define CASE(name)                                                                                 \
    {                                                                                              \
#name, name                                                                                \
    }

int main(int argc, char **argv)
{
    static const struct test_case cases[] = {
        CASE(a_call_waits_for_its_permit_and_gives_it_back_before_it_tells),
        CASE(a_stream_passes_on_only_the_body_of_a_success),
        CASE(only_what_can_succeed_is_tried_again),
        CASE(attempts_are_counted_and_the_last_error_is_told),
        CASE(retries_are_a_tenth_of_the_calls_after_the_first_ten),
        CASE(no_retry_is_begun_that_the_deadline_comes_before),
        CASE(retry_after_holds_up_all_workers),
        CASE(a_probe_tells_that_it_succeeded_as_soon_as_that_is_known),
        CASE(a_probe_that_is_refused_for_itself_opens_the_limit_to_others),
        CASE(a_request_may_be_more_patient_than_others),
        CASE(time_outs_end_at_the_deadline),
        CASE(a_deadline_that_passed_costs_no_call),
        CASE(a_permit_that_came_with_the_job_is_taken_up_at_once),
        CASE(a_lease_that_a_call_takes_over_outlives_who_had_it),
        CASE(a_permit_lost_on_its_way_to_the_call_is_asked_for_again),
        CASE(a_lost_lease_closes_the_connection_and_asks_anew),
        CASE(a_call_that_cannot_be_started_ends_later),
        CASE(a_cancelled_call_tells_nothing_and_keeps_nothing),
        CASE(a_caller_that_refuses_the_body_ends_the_call),
        CASE(a_paused_call_is_read_no_further),
        {NULL, NULL},
    };
    return run_tests(cases, argc, argv);
}
