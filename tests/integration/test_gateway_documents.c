/*
 * Documents and runs of ingestion over HTTP, on a real Kafka and Redis: what comes to the topic is
 * read from there, and the account is moved as the workers do it.
 */
#include "common/ingest_account.h"
#include "common/json.h"
#include "common/kafka.h"
#include "tests/support/gateway_fixture.h"
#include "tests/support/kafka_fixture.h"
#include "tests/support/soon.h"

#include <signal.h>

enum { DOCUMENTS_MAX = 1100 };

static struct sl_reader *reader;
static struct sl_redis *redis;
static struct sl_ingest_env env;
static bool linked, told, started;

static struct come {
    char doc_id[64], collection[64], metadata[64], ingest_id[64], key[64];
    size_t text_len;
    bool remove;
} come[DOCUMENTS_MAX];
static size_t come_count;

static void copy(char out[64], struct sl_span text)
{
    snprintf(out, 64, SL_SPAN_FMT, SL_SPAN_ARG(text));
}

static void on_record(void *ctx, const struct sl_record *record)
{
    struct sl_document document = {.remove = false};
    struct sl_arena arena;
    struct sl_fault fault;
    struct come *to = &come[come_count++];
    (void)ctx;
    CHECK(come_count < DOCUMENTS_MAX);
    CHECK(sl_span_is(sl_record_header(record, "content-type"), "application/msgpack"));
    CHECK(sl_span_is(sl_record_header(record, "sluice-tenant"), "default"));
    sl_arena_init(&arena, 64 << 20);
    CHECK_INT(sl_document_decode(record->value, false, &arena, &document, &fault), 0);
    copy(to->doc_id, document.doc_id);
    copy(to->collection, document.collection);
    copy(to->metadata, document.metadata);
    copy(to->ingest_id, document.ingest_id);
    copy(to->key, record->key);
    to->text_len = document.text.len;
    to->remove = document.remove;
    CHECK_STR(to->key, to->doc_id);
    sl_arena_fini(&arena);
}

static void on_started(void *ctx, int64_t offset)
{
    (void)ctx;
    (void)offset;
    started = true;
}

static void on_error(void *ctx, bool fatal, const char *why)
{
    (void)ctx;
    (void)why;
    CHECK(!fatal);
}

static void on_link(void *ctx, const char *run_id, const char *why)
{
    (void)ctx;
    (void)why;
    linked = run_id != NULL;
}

static void begin(void)
{
    static const struct sl_reader_callbacks callbacks = {
        .on_record = on_record, .on_started = on_started, .on_error = on_error};
    char why[256] = "";
    gateway_start(NULL);
    come_count = 0;
    linked = started = false;
    const struct sl_kafka_config config = {.brokers = kafka_fixture_brokers(), .client_id = "test"};
    const struct sl_redis_config redis_config = {.url = redis_fixture_url(gateway.redis),
                                                 .on_link = on_link};
    CHECK_INT(sl_reader_create(gateway.loop, &config, gateway_documents_topic(), 0,
                               SL_OFFSET_BEGINNING, &callbacks, NULL, &reader, why, sizeof(why)),
              0);
    CHECK_INT(sl_redis_create(gateway.loop, &redis_config, &redis, why, sizeof(why)), 0);
    SOON(gateway.loop, linked && started);
    env = (struct sl_ingest_env){
        .redis = redis, .prefix = gateway_prefix(), .ttl_ms = 60000, .tenant = SL_SPAN("default")};
}

static void finish(void)
{
    sl_reader_destroy(reader);
    sl_redis_destroy(redis);
    gateway_stop(0);
}

static void send_body(struct peer *peer, const char *method, const char *target, const char *type,
                      struct sl_span body)
{
    struct sl_buf request;
    sl_buf_init(&request, 32 << 20);
    sl_buf_printf(&request,
                  "%s %s HTTP/1.1\r\nHost: a\r\nContent-Type: %s\r\nContent-Length: %zu\r\n\r\n",
                  method, target, type, body.len);
    sl_buf_append_span(&request, body);
    peer_open(peer, gateway.port);
    struct sl_span rest = sl_buf_span(&request);
    for (int turn = 0; turn < 200000 && rest.len > 0; turn++) {
        ssize_t n = send(peer->fd, rest.data, rest.len, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n > 0) {
            rest.data += n;
            rest.len -= (size_t)n;
        } else if (errno != EAGAIN) {
            break;
        } else {
            sl_loop_turn(gateway.loop, 1);
        }
    }
    sl_buf_fini(&request);
}

static bool has_answer(struct peer *peer)
{
    const char *body = peer_has(peer, "\r\n\r\n") ? strstr(peer_text(peer), "\r\n\r\n") + 4 : NULL;
    const char *length = body != NULL ? strstr(peer_text(peer), "content-length: ") : NULL;
    return length != NULL && strlen(body) >= (size_t)atoll(length + 16);
}

static void check(struct peer *peer, int status, const char *text)
{
    char line[32];
    snprintf(line, sizeof(line), "HTTP/1.1 %d ", status);
    SOON(gateway.loop, has_answer(peer));
    if (strncmp(peer_text(peer), line, strlen(line)) != 0 || !peer_has(peer, text)) {
        fprintf(stderr, "expected %d and %s in\n%s\n", status, text, peer_text(peer));
        abort();
    }
}

static void check_call(const char *method, const char *target, const char *type, const char *body,
                       int status, const char *text)
{
    struct peer peer;
    send_body(&peer, method, target, type, sl_span_of(body));
    check(&peer, status, text);
    peer_close(&peer);
}

static void check_get(const char *target, int status, const char *text)
{
    check_call("GET", target, "text/plain", "", status, text);
}

#define JSON "application/json"

/* The id in {"ingest_id":"..."}. */
static void put(const char *method, const char *target, const char *type, struct sl_span body,
                char id[37])
{
    struct peer peer;
    send_body(&peer, method, target, type, body);
    check(&peer, 202, "{\"ingest_id\":\"");
    memcpy(id, strstr(peer_text(&peer), "{\"ingest_id\":\"") + 14, 36);
    id[36] = '\0';
    peer_close(&peer);
}

TEST(documents_come_to_the_topic_and_their_run_knows_how_many)
{
    char id[37], target[64];
    begin();
    put("POST", "/v1/documents", JSON,
        SL_SPAN("{\"documents\":[{\"doc_id\":\"a/b.md\",\"text\":\"one\",\"collection\":\"manual\","
                "\"metadata\":{\"lang\":\"en\"}},{\"doc_id\":\"c\",\"text\":\"\\ufefftwo\"}]}"),
        id);
    SOON(gateway.loop, come_count == 2);
    CHECK_STR(come[0].doc_id, "a/b.md");
    CHECK_STR(come[0].collection, "manual");
    CHECK_STR(come[0].metadata, "{\"lang\":\"en\"}");
    CHECK_STR(come[0].ingest_id, id);
    CHECK_STR(come[1].collection, "default");
    CHECK_INT(come[1].text_len, 3);
    snprintf(target, sizeof(target), "/v1/ingests/%s", id);
    check_get(target, 200, "\"documents\":2");
    check_get(target, 200, "\"state\":\"running\"");
    check_get("/v1/ingests", 200, id);
    check_get("/v1/ingests?limit=0", 400, "limit must be a whole number from 1 to 100");
    check_get("/v1/ingests/no-such-run", 404, "\"code\":\"not_found\"");
    finish();
}

TEST(a_text_is_a_document_whose_names_are_in_the_url)
{
    char id[37];
    begin();
    put("POST",
        "/v1/documents?doc_id=guide%2Fa+b%C3%BC.md&collection=m%26n&metadata=%7B%22a%22:1%7D",
        "text/markdown; charset=utf-8", SL_SPAN("\xef\xbb\xbf# A\n"), id);
    SOON(gateway.loop, come_count == 1);
    CHECK_STR(come[0].doc_id, "guide/a b\xc3\xbc.md");
    CHECK_STR(come[0].collection, "m&n");
    CHECK_STR(come[0].metadata, "{\"a\":1}");
    CHECK_INT(come[0].text_len, 4);
    put("DELETE", "/v1/documents/guide/a%20b+c.md?collection=manual", JSON, SL_SPAN(""), id);
    SOON(gateway.loop, come_count == 2);
    CHECK_STR(come[1].doc_id, "guide/a b+c.md");
    CHECK_STR(come[1].collection, "manual");
    CHECK(come[1].remove);
    finish();
}

TEST(what_is_wrong_is_refused_whole_and_by_name)
{
    static const struct {
        const char *target, *type, *body;
        int status;
        const char *text;
    } cases[] = {
        {"/v1/documents", JSON, "{\"doc_id\":\"a\",\"text\":\"t\",\"ingest_id\":\"x\"}", 400,
         "ingest_id is not a known field"},
        {"/v1/documents", JSON, "{\"doc_id\":\"a\",\"text\":\"t\",\"delete\":true}", 400,
         "delete is not a known field"},
        {"/v1/documents", JSON, "{\"documents\":[{\"doc_id\":\"a\",\"text\":\"t\"},{}]}", 400,
         "documents[1].doc_id is missing"},
        {"/v1/documents", JSON, "{\"documents\":[]}", 400, "at least one document"},
        {"/v1/documents", JSON, "{\"documents\":[1]}", 400, "documents[0] must be an object"},
        {"/v1/documents", JSON, "{\"doc_id\":\"a\",\"text\":\" \\n\"}", 400, "text is empty"},
        {"/v1/documents", JSON, "{\"doc_id\":\"a\\n\",\"text\":\"t\"}", 400, "control characters"},
        {"/v1/documents", JSON, "[]", 400, "must be a JSON object"},
        {"/v1/documents", JSON, "{\"doc_id\":\"a\",", 400, "\"code\":\"invalid_json\""},
        {"/v1/documents?collection=x", JSON, "{\"doc_id\":\"a\",\"text\":\"t\"}", 400,
         "collection is not a known parameter"},
        {"/v1/documents", "text/plain", "text", 400, "doc_id is missing"},
        {"/v1/documents?doc_id=a&doc_id=b", "text/plain", "text", 400, "doc_id is there twice"},
        {"/v1/documents?doc_id=%zz", "text/plain", "text", 400, "two hexadecimal digits"},
        {"/v1/documents?doc_id=%ff", "text/plain", "text", 400, "must be UTF-8"},
        {"/v1/documents?doc_id=a&metadata=%5B%5D", "text/plain", "text", 400,
         "metadata must be an object"},
        {"/v1/documents?doc_id=a&metadata=%7B", "text/plain", "text", 400,
         "metadata is not valid JSON"},
        {"/v1/documents?doc_id=a", "text/plain", "caf\xe9 au lait", 400,
         "not UTF-8 at byte 3: it looks like Latin-1"},
        {"/v1/documents?doc_id=a", "text/plain", "\xff\xfet", 400, "byte order mark of UTF-16"},
        {"/v1/documents?doc_id=a", "text/plain", "", 400, "text is empty"},
        {"/v1/documents?doc_id=a", "text/html", "<p>", 415, "text/markdown"},
    };
    begin();
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        check_call("POST", cases[i].target, cases[i].type, cases[i].body, cases[i].status,
                   cases[i].text);
    }
    check_call("PUT", "/v1/documents", JSON, "{}", 405, "POST, GET, HEAD");
    check_get("/v1/ingests", 200, "\"data\":[]");
    CHECK_INT(come_count, 0);
    finish();
}

static char *large_text(size_t len)
{
    char *text = malloc(len + 1);
    CHECK(text != NULL);
    memset(text, 'x', len);
    text[len] = '\0';
    return text;
}

TEST(large_documents_pass_and_larger_ones_do_not)
{
    char id[37];
    struct peer peer;
    char *text = large_text((24 << 20) + 1);
    begin();
    put("POST", "/v1/documents?doc_id=large", "text/plain", (struct sl_span){text, 16 << 20}, id);
    SOON(gateway.loop, come_count == 1);
    CHECK_INT(come[0].text_len, 16 << 20);
    send_body(&peer, "POST", "/v1/documents?doc_id=a", "text/plain",
              (struct sl_span){text, (16 << 20) + 1});
    check(&peer, 413, "larger than 16 MiB");
    peer_close(&peer);
    send_body(&peer, "POST", "/v1/documents?doc_id=a", "text/plain",
              (struct sl_span){text, (24 << 20) + 1});
    check(&peer, 413, "larger than 25165824 bytes");
    peer_close(&peer);
    free(text);
    finish();
}

static void write_batch(struct sl_buf *body, int count, const char *text)
{
    sl_buf_init(body, 32 << 20);
    sl_buf_append_text(body, "{\"documents\":[");
    for (int i = 0; i < count; i++) {
        sl_buf_printf(body, "%s{\"doc_id\":\"d%d\",\"text\":\"", i > 0 ? "," : "", i);
        sl_buf_append_text(body, text);
        sl_buf_append_text(body, "\"}");
    }
    sl_buf_append_text(body, "]}");
}

TEST(a_thousand_documents_pass_at_once_and_one_more_does_not)
{
    char id[37], target[64];
    struct sl_buf body;
    struct peer peer;
    char *text = large_text(5000);
    begin();
    write_batch(&body, 1000, text);
    put("POST", "/v1/documents", JSON, sl_buf_span(&body), id);
    sl_buf_fini(&body);
    SOON(gateway.loop, come_count == 1000);
    CHECK_STR(come[999].doc_id, "d999");
    snprintf(target, sizeof(target), "/v1/ingests/%s", id);
    check_get(target, 200, "\"documents\":1000");
    write_batch(&body, 1001, "t");
    send_body(&peer, "POST", "/v1/documents", JSON, sl_buf_span(&body));
    check(&peer, 413, "documents must be at most 1000, not 1001");
    peer_close(&peer);
    sl_buf_fini(&body);
    free(text);
    finish();
}

TEST(without_redis_nothing_is_sent)
{
    begin();
    redis_fixture_pause(gateway.redis);
    check_call("POST", "/v1/documents", JSON, "{\"doc_id\":\"a\",\"text\":\"t\"}", 503,
               "\"code\":\"overloaded\"");
    check_get("/v1/documents", 503, "\"code\":\"overloaded\"");
    redis_fixture_resume(gateway.redis);
    MEANWHILE(gateway.loop, 200);
    CHECK_INT(come_count, 0);
    finish();
}

TEST(no_documents_are_listed_before_any_is_stored)
{
    begin();
    check_get("/v1/documents", 200,
              "{\"object\":\"list\",\"data\":[],\"has_more\":false,\"last_id\":null}");
    check_get("/v1/documents?limit=1001", 400, "limit must be");
    check_get("/v1/documents?colection=x", 400, "colection is not a known parameter");
    check_get("/v1/documents/a/b.md?collection=manual", 404, "no such document");
    check_get("/v1/documents/%00", 400, "control characters");
    finish();
}

static void on_told(void *ctx, int err)
{
    (void)ctx;
    CHECK_INT(err, 0);
    told = true;
}

static void begin_run(const char *id)
{
    told = false;
    CHECK_INT(
        sl_ingest_begin(&env, sl_span_of(id), SL_SPAN("default"), SL_SPAN("test"), on_told, NULL),
        0);
    SOON(gateway.loop, told);
}

static void refuse_one(const char *id, const char *doc_id)
{
    told = false;
    CHECK_INT(sl_ingest_refuse(&env, sl_span_of(id), sl_span_of(doc_id), SL_SPAN("too \"bad\""),
                               on_told, NULL),
              0);
    SOON(gateway.loop, told);
}

static void close_run(const char *id)
{
    told = false;
    CHECK_INT(sl_ingest_close(&env, sl_span_of(id), 0, on_told, NULL), 0);
    SOON(gateway.loop, told);
}

static void watch(struct peer *peer, const char *id)
{
    char request[256];
    peer_open(peer, gateway.port);
    snprintf(request, sizeof(request),
             "GET /v1/ingests/%s HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n", id);
    peer_send_text(peer, request);
}

TEST(a_run_is_watched_to_its_end)
{
    struct peer early, late, leaver, none;
    begin();
    begin_run("run-1");
    watch(&early, "run-1");
    watch(&leaver, "run-1");
    SOON(gateway.loop, peer_has(&early, "event: progress\n") && peer_has(&leaver, "progress"));
    CHECK(peer_has(&early, "content-type: text/event-stream"));
    peer_close(&leaver);
    refuse_one("run-1", "a.md");
    SOON(gateway.loop, peer_has(&early, "\"failed\":1"));
    watch(&late, "run-1");
    SOON(gateway.loop, peer_has(&late, "{\"doc_id\":\"a.md\",\"reason\":\"too \\\"bad\\\"\"}"));
    refuse_one("run-1", "b.md");
    close_run("run-1");
    SOON(gateway.loop, peer_has(&early, "data: [DONE]\n\n") && peer_has(&late, "data: [DONE]"));
    CHECK(peer_has(&early, "event: done\n") && peer_has(&late, "event: done\n"));
    CHECK(peer_has(&early, "\"a.md\"") && peer_has(&early, "\"b.md\""));
    peer_close(&early);
    peer_close(&late);
    watch(&late, "run-1"); /* Of a run that has ended. */
    SOON(gateway.loop, peer_has(&late, "event: done\n") && peer_has(&late, "[DONE]"));
    CHECK_INT(peer_count(&late, "event: "), 1);
    peer_close(&late);
    watch(&none, "run-2");
    check(&none, 404, "\"code\":\"not_found\"");
    peer_close(&none);
    finish();
}

TEST(a_gateway_that_ends_lets_its_watchers_go)
{
    struct peer peer;
    begin();
    begin_run("run-1");
    watch(&peer, "run-1");
    SOON(gateway.loop, peer_has(&peer, "event: progress\n"));
    gateway_signal(SIGTERM);
    SOON(gateway.loop, gateway_ended());
    SOON(gateway.loop, peer_ended(&peer));
    CHECK(peer_has(&peer, "\r\n0\r\n\r\n") && !peer_has(&peer, "[DONE]"));
    peer_close(&peer);
    finish();
}

int main(int argc, char **argv)
{
    const struct test_case cases[] = {
        {"documents_come_to_the_topic_and_their_run_knows_how_many",
         documents_come_to_the_topic_and_their_run_knows_how_many},
        {"a_text_is_a_document_whose_names_are_in_the_url",
         a_text_is_a_document_whose_names_are_in_the_url},
        {"what_is_wrong_is_refused_whole_and_by_name", what_is_wrong_is_refused_whole_and_by_name},
        {"large_documents_pass_and_larger_ones_do_not",
         large_documents_pass_and_larger_ones_do_not},
        {"a_thousand_documents_pass_at_once_and_one_more_does_not",
         a_thousand_documents_pass_at_once_and_one_more_does_not},
        {"without_redis_nothing_is_sent", without_redis_nothing_is_sent},
        {"no_documents_are_listed_before_any_is_stored",
         no_documents_are_listed_before_any_is_stored},
        {"a_run_is_watched_to_its_end", a_run_is_watched_to_its_end},
        {"a_gateway_that_ends_lets_its_watchers_go", a_gateway_that_ends_lets_its_watchers_go},
        {NULL, NULL},
    };
    return run_tests(cases, argc, argv);
}
