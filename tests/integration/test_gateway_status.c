/*
 * GET /v1/queries/{id} on a real Kafka and Redis: states are put into Redis and results into the
 * log as workers do it, and the gateway is asked about them.
 */
#include "common/ending.h"
#include "common/json.h"
#include "tests/support/gateway_fixture.h"
#include "tests/support/kafka_fixture.h"
#include "tests/support/kafka_reports.h"
#include "tests/support/kafka_trim.h"
#include "tests/support/soon.h"

#include <signal.h>

enum { RESULTS = 300, CALLERS = 60, WAITING_MAX = 256 };

static struct sl_producer *producer;
static int64_t last_offset;
static bool reported;

static void begin(const char *const *environment)
{
    char why[256] = "";
    gateway_start(environment);
    const struct sl_kafka_config config = {.brokers = kafka_fixture_brokers(), .client_id = "test"};
    CHECK_INT(sl_producer_create(gateway.loop, &config, kafka_on_fatal, NULL, &producer, why,
                                 sizeof(why)),
              0);
}

static void finish(void)
{
    sl_producer_destroy(producer, 1000);
    gateway_stop(0);
}

static void on_report(void *ctx, int err, int32_t partition, int64_t offset)
{
    (void)ctx;
    CHECK_INT(err, 0);
    CHECK_INT(partition, 0);
    last_offset = offset;
    reported = true;
}

static void encode(const char *id, bool json, struct sl_buf *out)
{
    struct sl_hit hit = {.doc_id = SL_SPAN("guide.md"),
                         .chunk_id = SL_SPAN("guide.md_3"),
                         .chunk_index = 3,
                         .text = SL_SPAN("a \"passage\"\nof two lines"),
                         .metadata = SL_SPAN("{\"lang\":\"en\",\"n\":[1,2.5,null]}"),
                         .score = 0.25};
    struct sl_query query = {.id = sl_span_of(id),
                             .query = SL_SPAN("Wie viel k\xc3\xb6stet es?"),
                             .tenant = SL_SPAN("default"),
                             .collection = SL_SPAN("default"),
                             .hits = &hit,
                             .hits_len = 1,
                             .source_topic = SL_SPAN("sluice.queries"),
                             .source_offset = 42};
    struct sl_result result = {.outcome = SL_DONE,
                               .answer = SL_SPAN("Nothing [1]."),
                               .model = SL_SPAN("model-a"),
                               .usage = {.prompt_tokens = 11, .completion_tokens = 7},
                               .total_ms = 90};
    sl_buf_init(out, 1 << 20);
    sl_result_encode(&query, &result, json, out);
    CHECK_INT(sl_buf_error(out), 0);
}

/* The record alone; its offset. */
static int64_t put_result(const char *id, bool json)
{
    struct sl_buf bytes;
    struct sl_route route;
    const struct sl_query about = {.id = sl_span_of(id)};
    encode(id, json, &bytes);
    sl_route_write(&route, &about, json);
    const struct sl_outgoing record = {.topic = gateway_results_topic(),
                                       .partition = 0,
                                       .key = sl_span_of(id),
                                       .value = sl_buf_span(&bytes),
                                       .headers = route.headers,
                                       .header_count = route.count};
    reported = false;
    CHECK_INT(sl_producer_send(producer, &record, on_report, NULL), 0);
    SOON(gateway.loop, reported);
    sl_buf_fini(&bytes);
    return last_offset;
}

/* What Redis knows once an ending is in the log. */
static void note_result(const char *id, int64_t offset)
{
    char place[32];
    snprintf(place, sizeof(place), "0 %lld", (long long)offset);
    gateway_redis_set(id, ".end_owner", "0123456789abcdef");
    gateway_redis_set(id, ".outcome", "done");
    gateway_redis_set(id, ".end_acked", place);
}

static void ask(struct peer *peer, const char *method, const char *id)
{
    char request[256];
    peer_open(peer, gateway.port);
    snprintf(request, sizeof(request), "%s /v1/queries/%s HTTP/1.1\r\nHost: a\r\n\r\n", method, id);
    peer_send_text(peer, request);
}

static bool has_answer(struct peer *peer)
{
    const char *body = peer_has(peer, "\r\n\r\n") ? strstr(peer_text(peer), "\r\n\r\n") + 4 : NULL;
    const char *length = body != NULL ? strstr(peer_text(peer), "content-length: ") : NULL;
    return length != NULL && strlen(body) >= (size_t)atoll(length + 16);
}

/* Waits for the answer, which must have this status and hold this text. */
static void check(struct peer *peer, int status, const char *text)
{
    char line[32];
    snprintf(line, sizeof(line), "HTTP/1.1 %d ", status);
    SOON(gateway.loop, has_answer(peer));
    if (strncmp(peer_text(peer), line, strlen(line)) != 0 || !peer_has(peer, text)) {
        fprintf(stderr, "expected %d and %s in\n%s\n", status, text, peer_text(peer));
        abort();
    }
    CHECK(peer_has(peer, "\r\nsluice-id: ") &&
          peer_has(peer, "content-type: application/json\r\n"));
}

static void check_one(const char *id, int status, const char *text)
{
    struct peer peer;
    ask(&peer, "GET", id);
    check(&peer, status, text);
    peer_close(&peer);
}

TEST(a_query_that_runs_tells_how_far_it_is)
{
    begin(NULL);
    gateway_redis_set("q-1", ".open", "0 5 1764000000000 0");
    check_one("q-1", 200, "{\"id\":\"q-1\",\"state\":\"queued\",\"stage\":null}");
    gateway_redis_set("q-1", "embed", "d 0123456789abcdef 1 7");
    gateway_redis_set("q-1", "retrieve", "s 0123456789abcdef 1 8");
    check_one("q-1", 200, "{\"id\":\"q-1\",\"state\":\"running\",\"stage\":\"retrieve\"}");
    gateway_redis_set("q-1", ".cancelled", "1");
    check_one("q-1", 200, "{\"id\":\"q-1\",\"state\":\"cancelling\",\"stage\":\"retrieve\"}");
    gateway_redis_set("q-1", ".end_owner", "0123456789abcdef");
    check_one("q-1", 200, "{\"id\":\"q-1\",\"state\":\"ending\",\"stage\":null}");
    gateway_redis_set("q-1", ".end_acked", "1");
    check_one("q-1", 200, "{\"id\":\"q-1\",\"state\":\"ended\",\"stage\":null}");
    finish();
}

TEST(a_query_that_has_ended_gives_its_result_as_json)
{
    static const char *const ids[] = {"of-json", "of-msgpack"};
    begin(NULL);
    put_result("other", true);
    for (size_t i = 0; i < 2; i++) {
        struct sl_buf expected;
        struct peer peer;
        note_result(ids[i], put_result(ids[i], i == 0));
        encode(ids[i], true, &expected);
        sl_buf_append(&expected, "", 1);
        ask(&peer, "GET", ids[i]);
        check(&peer, 200, expected.data);
        CHECK_STR(strstr(peer_text(&peer), "\r\n\r\n") + 4, expected.data);
        peer_close(&peer);
        sl_buf_fini(&expected);
    }
    struct peer peer;
    ask(&peer, "HEAD", "of-msgpack");
    SOON(gateway.loop, peer_has(&peer, "\r\n\r\n"));
    CHECK(peer_has(&peer, "HTTP/1.1 200 ") && peer_has(&peer, "sluice-id: of-msgpack\r\n"));
    peer_close(&peer);
    finish();
}

TEST(what_is_not_known_is_not_found_or_gone_by_its_own_time)
{
    char id[37];
    begin(NULL);
    check_one("order-17", 404, "\"code\":\"not_found\"");
    sl_id_new(sl_clock_unix_ms() - 23 * 3600 * 1000, id);
    check_one(id, 404, "\"code\":\"not_found\"");
    sl_id_new(sl_clock_unix_ms() + 48 * 3600 * 1000, id);
    check_one(id, 404, "\"code\":\"not_found\"");
    sl_id_new(sl_clock_unix_ms() - 25 * 3600 * 1000, id);
    check_one(id, 410, "\"code\":\"gone\"");
    finish();
}

TEST(a_result_that_the_log_does_not_hold_is_gone)
{
    begin(NULL);
    int64_t first = put_result("first", true), second = put_result("second", true);
    note_result("first", first);
    note_result("second", second);
    note_result("another", second);
    note_result("beyond", second + 100);
    check_one("another", 410, "\"code\":\"gone\"");
    check_one("beyond", 410, "\"code\":\"gone\"");
    check_one("second", 200, "\"id\":\"second\"");
    kafka_trim(kafka_fixture_brokers(), gateway_results_topic(), 0, second);
    check_one("first", 410, "\"code\":\"gone\"");
    check_one("second", 200, "\"id\":\"second\"");
    finish();
}

TEST(many_callers_get_each_its_own_result)
{
    static struct peer peers[CALLERS];
    static char ids[CALLERS][16];
    unsigned seed = 7;
    begin(NULL);
    for (int i = 0; i < RESULTS; i++) {
        int caller = i % (RESULTS / CALLERS) == 0 ? i / (RESULTS / CALLERS) : -1;
        snprintf(ids[caller >= 0 ? caller : 0], 16, "q-%d", i);
        int64_t offset = put_result(ids[caller >= 0 ? caller : 0], i % 2 == 0);
        if (caller >= 0) {
            note_result(ids[caller], offset);
        }
    }
    snprintf(ids[0], sizeof(ids[0]), "q-0");
    for (int round = 0; round < 3; round++) {
        static int wanted[CALLERS];
        for (int i = 0; i < CALLERS; i++) {
            wanted[i] = rand_r(&seed) % CALLERS;
            ask(&peers[i], "GET", ids[wanted[i]]);
        }
        for (int i = 0; i < CALLERS; i++) {
            char text[64];
            snprintf(text, sizeof(text), "{\"id\":\"%s\",\"outcome\"", ids[wanted[i]]);
            check(&peers[i], 200, text);
            peer_close(&peers[i]);
        }
    }
    finish();
}

TEST(who_waits_for_what_does_not_come_is_told_and_who_leaves_is_forgotten)
{
    static struct peer waiting[WAITING_MAX];
    begin(NULL);
    int64_t offset = put_result("here", true);
    note_result("here", offset);
    note_result("missing", offset + 1); /* Where the next one will be. */
    for (int i = 0; i < WAITING_MAX; i++) {
        ask(&waiting[i], "GET", "missing");
    }
    MEANWHILE(gateway.loop, 100);
    for (int i = 1; i < WAITING_MAX; i++) {
        peer_close(&waiting[i]);
    }
    struct peer behind; /* What is missing holds nobody up. */
    ask(&behind, "GET", "here");
    check(&behind, 200, "\"id\":\"here\"");
    CHECK(!has_answer(&waiting[0]));
    check(&waiting[0], 503, "\"code\":\"overloaded\"");
    CHECK(peer_has(&waiting[0], "retry-after: 1\r\n"));
    peer_close(&behind);
    peer_close(&waiting[0]);
    check_one("here", 200, "\"id\":\"here\"");
    finish();
}

TEST(more_callers_than_the_limit_are_told_to_come_again)
{
    static struct peer waiting[WAITING_MAX + 1];
    begin(NULL);
    note_result("missing", 0);
    for (int i = 0; i <= WAITING_MAX; i++) {
        ask(&waiting[i], "GET", "missing");
    }
    check(&waiting[WAITING_MAX], 503, "\"code\":\"overloaded\"");
    put_result("missing", true);
    for (int i = 0; i <= WAITING_MAX; i++) {
        if (i < WAITING_MAX) {
            check(&waiting[i], 200, "{\"id\":\"missing\"");
        }
        peer_close(&waiting[i]);
    }
    finish();
}

TEST(without_redis_nothing_is_known)
{
    begin(NULL);
    struct peer peer;
    redis_fixture_pause(gateway.redis);
    ask(&peer, "GET", "q-1");
    check(&peer, 503, "\"code\":\"overloaded\"");
    CHECK(peer_has(&peer, "retry-after: 1\r\n"));
    peer_close(&peer);
    ask(&peer, "GET", "q-1"); /* Leaves before the answer. */
    MEANWHILE(gateway.loop, 50);
    peer_close(&peer);
    redis_fixture_resume(gateway.redis);
    gateway_redis_set("q-1", ".open", "0 5 1764000000000 0");
    check_one("q-1", 200, "\"state\":\"queued\"");
    finish();
}

TEST(a_gateway_ends_in_the_midst_of_it)
{
    struct peer peers[3];
    begin(NULL);
    note_result("missing", 0);
    ask(&peers[0], "GET", "missing");
    redis_fixture_pause(gateway.redis);
    MEANWHILE(gateway.loop, 50);
    ask(&peers[1], "GET", "missing");
    ask(&peers[2], "GET", "other");
    MEANWHILE(gateway.loop, 50);
    gateway_signal(SIGTERM);
    SOON(gateway.loop, gateway_ended());
    for (int i = 0; i < 3; i++) {
        peer_close(&peers[i]);
    }
    redis_fixture_resume(gateway.redis);
    finish();
}

int main(int argc, char **argv)
{
    const struct test_case cases[] = {
        {"a_query_that_runs_tells_how_far_it_is", a_query_that_runs_tells_how_far_it_is},
        {"a_query_that_has_ended_gives_its_result_as_json",
         a_query_that_has_ended_gives_its_result_as_json},
        {"what_is_not_known_is_not_found_or_gone_by_its_own_time",
         what_is_not_known_is_not_found_or_gone_by_its_own_time},
        {"a_result_that_the_log_does_not_hold_is_gone",
         a_result_that_the_log_does_not_hold_is_gone},
        {"many_callers_get_each_its_own_result", many_callers_get_each_its_own_result},
        {"who_waits_for_what_does_not_come_is_told_and_who_leaves_is_forgotten",
         who_waits_for_what_does_not_come_is_told_and_who_leaves_is_forgotten},
        {"more_callers_than_the_limit_are_told_to_come_again",
         more_callers_than_the_limit_are_told_to_come_again},
        {"without_redis_nothing_is_known", without_redis_nothing_is_known},
        {"a_gateway_ends_in_the_midst_of_it", a_gateway_ends_in_the_midst_of_it},
        {NULL, NULL},
    };
    return run_tests(cases, argc, argv);
}
